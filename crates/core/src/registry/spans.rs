//! A pool's entry as runs of addresses: who holds them, what cools down, what no guest gets, what is free.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::allocate::{self, number};
use super::document::{Pool, PoolAddress, Released};
use super::prefixes::Holders;
use crate::model::{Moment, NicId, Prefix, Vmid};

/// A run of addresses that are all in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span<'a> {
    /// The first address.
    pub first: IpAddr,
    /// The last one.
    pub last: IpAddr,
    /// What they are.
    pub state: State<'a>,
}

/// What becomes of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State<'a> {
    /// Somebody gets them.
    Free,
    /// A guest's NIC has them, as one assignment.
    Held(Vmid, NicId, Prefix),
    /// They were given back, and are handed out again at this time.
    Cooling(Prefix, &'a Released, Moment),
    /// Nobody gets them by itself, because of what they are.
    Withheld(String),
}

/// The addresses of an entry from the first to the last. An address that two hold is there twice.
///
/// `withheld` is [`super::Registry::withheld`], `cooling` [`super::Registry::all_cooling`] by first address.
pub(super) fn of<'a>(
    pool: &Pool,
    entry: &PoolAddress,
    holders: &Holders<'_>,
    cooling: &BTreeMap<Prefix, (&'a Released, Moment)>,
    withheld: &BTreeMap<IpAddr, String>,
) -> Vec<Span<'a>> {
    let net = entry.address.net();
    let (start, end) = (number(net.network()), number(net.broadcast()));
    let family = entry.address.family();
    let mut taken: Vec<(u128, u128, State<'a>)> = Vec::new();
    for (vmid, nic, _, assigned) in holders.overlapping(entry.address) {
        let held = assigned.address;
        let range = (number(held.first()).max(start), number(held.net().broadcast()).min(end));
        taken.push((range.0, range.1, State::Held(vmid, nic, held)));
    }
    let cools = cooling.range(entry.address..).take_while(|(prefix, _)| entry.address.contains(**prefix));
    for (prefix, (released, free_at)) in cools {
        let range = (number(prefix.first()), number(prefix.net().broadcast()));
        taken.push((range.0, range.1, State::Cooling(*prefix, released, *free_at)));
    }
    // By the order of the sort below a holder comes first, so that what he has is not shown as something else.
    let ends = [Some(net.network()), Some(net.broadcast()), pool.gateway_of(entry).filter(|it| net.contains(it))];
    let mut roles: BTreeMap<IpAddr, String> =
        withheld.range(net.network()..=net.broadcast()).map(|(address, what)| (*address, what.clone())).collect();
    for address in ends.into_iter().flatten() {
        if let Some(role) = allocate::role(pool, entry, address) {
            roles.insert(address, role.name.to_owned());
        }
    }
    taken.extend(roles.into_iter().map(|(address, what)| (number(address), number(address), State::Withheld(what))));
    let rank = |state: &State<'_>| match state {
        State::Held(..) => 0,
        State::Cooling(..) => 1,
        State::Withheld(_) | State::Free => 2,
    };
    taken.sort_by(|one, two| (one.0, rank(&one.2), two.1).cmp(&(two.0, rank(&two.2), one.1)));

    let mut spans = Vec::new();
    let span = |first: u128, last: u128, state: State<'a>| {
        let (first, last) = (allocate::address(first, family)?, allocate::address(last, family)?);
        Some(Span { first, last, state })
    };
    // The first address that nothing was said of yet; `None` behind the last one of all.
    let mut untold = Some(start);
    for (first, last, state) in taken {
        if let Some(gap) = untold.filter(|untold| *untold < first) {
            spans.extend(span(gap, first - 1, State::Free));
        }
        let is_told = untold.is_none_or(|untold| last < untold);
        if !(is_told && matches!(state, State::Withheld(_))) {
            spans.extend(span(first, last, state));
        }
        untold = untold.and_then(|untold| last.checked_add(1).map(|behind| behind.max(untold)));
    }
    if let Some(gap) = untold.filter(|untold| *untold <= end) {
        spans.extend(span(gap, end, State::Free));
    }
    spans
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::Family;
    use crate::registry::Registry;
    use crate::registry::inventory::tests::scene;

    fn shown(registry: &Registry, own: &[&str], now: &str) -> Vec<String> {
        let own: Vec<_> = own.iter().map(|net| net.parse().unwrap()).collect();
        let pool = registry.pools.pools.values().next().unwrap();
        let state = |state: &State<'_>| match state {
            State::Free => "free".to_owned(),
            State::Held(vmid, ..) => vmid.to_string(),
            State::Cooling(..) => "cools".to_owned(),
            State::Withheld(what) => what.clone(),
        };
        let spans = registry.spans(pool, &own, now.parse().unwrap()).into_iter().flat_map(|(_, spans)| spans);
        spans.map(|span| format!("{} {} {}", span.first, span.last, state(&span.state))).collect()
    }

    fn registry(gateway: &str, entry: &str, held: &[&str]) -> Registry {
        let addresses = json!([{"address": entry}]);
        let pool =
            json!({"profile": "generic-bridged", "bridge": "vmbr0", "gateway4": gateway, "addresses": addresses});
        scene(&json!({ "a": pool }), held)
    }

    #[test]
    fn every_address_has_its_place() {
        let registry = registry("203.0.113.1", "203.0.113.0/28", &["203.0.113.2", "203.0.113.4/31", "203.0.113.14"]);
        assert_eq!(
            shown(&registry, &["203.0.113.7/32"], "2026-11-22T10:30:00Z"),
            [
                "203.0.113.0 203.0.113.0 the network address",
                "203.0.113.1 203.0.113.1 the gateway",
                "203.0.113.2 203.0.113.2 100",
                "203.0.113.3 203.0.113.3 free",
                "203.0.113.4 203.0.113.5 100",
                "203.0.113.6 203.0.113.6 free",
                "203.0.113.7 203.0.113.7 an address of this node",
                "203.0.113.8 203.0.113.11 free",
                "203.0.113.12 203.0.113.12 cools",
                "203.0.113.13 203.0.113.13 free",
                "203.0.113.14 203.0.113.14 100",
                "203.0.113.15 203.0.113.15 the broadcast address",
            ]
        );
        let of = super::tests::registry;
        let whole = of("198.51.100.1", "203.0.113.0/28", &["203.0.113.0/28"]);
        assert_eq!(shown(&whole, &[], "2026-11-22T12:30:00Z"), ["203.0.113.0 203.0.113.15 100"]);
        let wide = of("198.51.100.1", "2001:db8::/64", &["2001:db8::7"]);
        assert_eq!(
            shown(&wide, &[], "2026-11-22T12:30:00Z"),
            [
                "2001:db8:: 2001:db8:: the subnet-router anycast address",
                "2001:db8::1 2001:db8::6 free",
                "2001:db8::7 2001:db8::7 100",
                "2001:db8::8 2001:db8::ffff:ffff:ffff:ffff free",
            ]
        );
    }

    proptest! {
        /// The runs are in order, without a gap, from the first address to the last; and what is free is free.
        #[test]
        fn runs_cover_the_entry(
            held in proptest::collection::vec((0u8..=255, 28u8..33), 0..30), own in proptest::collection::vec(0u8..=255, 0..5),
        ) {
            let net = |(low, length): &(u8, u8)| {
                let net: ipnet::IpNet = format!("203.0.113.{low}/{length}").parse().unwrap();
                net.trunc().to_string()
            };
            let held: Vec<String> = held.iter().map(net).collect();
            let registry = registry("203.0.113.1", "203.0.113.0/24", &held.iter().map(String::as_str).collect::<Vec<_>>());
            let own: Vec<ipnet::IpNet> = own.iter().map(|low| format!("203.0.113.{low}/32").parse().unwrap()).collect();
            let pool = registry.pools.pools.values().next().unwrap();
            let spans = registry.spans(pool, &own, "2026-11-22T10:30:00Z".parse().unwrap()).remove(0).1;
            let covered: BTreeMap<u128, bool> = spans.iter().flat_map(|span| {
                (number(span.first)..=number(span.last)).map(|at| (at, span.state == State::Free))
            }).collect();
            prop_assert_eq!(covered.len(), 256);
            prop_assert!(spans.windows(2).all(|pair| number(pair[0].first) <= number(pair[1].first)));
            for (at, is_free) in covered {
                let address = allocate::address(at, Family::V4).unwrap();
                let is_held = held.iter().any(|held| held.parse::<ipnet::IpNet>().unwrap().contains(&address));
                let is_own = own.iter().any(|net| net.addr() == address);
                let low = u8::try_from(at & 255).unwrap();
                prop_assert_eq!(is_free, !is_held && !is_own && ![0, 1, 12, 255].contains(&low), "{}", address);
            }
        }
    }
}
