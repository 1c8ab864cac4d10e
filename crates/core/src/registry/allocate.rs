//! Next-free allocation: the lowest address of a pool that nobody holds and that a host may use.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::document::{Mode, Pool, PoolAddress};
use crate::model::{Family, PoolName, Prefix};

/// What an address means in its subnet besides being one of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Role {
    /// In words.
    pub(super) name: &'static str,
    /// Whether that is certain: then nobody gets it, even who names it. Else it is only not handed out by itself.
    pub(super) is_certain: bool,
}

/// Why an address of an entry is not for a guest, if so.
///
/// The gateway never is. The first and the last IPv4 address of an on-link subnet mean the subnet itself and everyone on it,
/// and the first IPv6 address means its routers (RFC 4291 2.6.1); a /31 and a /127 have neither (RFC 3021, RFC 6164).
/// An entry of a bridged pool is an on-link subnet for certain when its gateway lies inside it. It may be one where no
/// gateway is known, and when the node routes and has the gateway's address out of it. The first address of an IPv6 prefix
/// is one that forwarding nodes take for themselves (Linux `addrconf_join_anycast`), wherever the gateway is.
pub(super) fn role(pool: &Pool, entry: &PoolAddress, address: IpAddr) -> Option<Role> {
    let gateway = pool.gateway_of(entry);
    if gateway == Some(address) {
        return Some(Role { name: "the gateway", is_certain: true });
    }
    let net = entry.address.net();
    if net.max_prefix_len() - net.prefix_len() < 2 {
        return None;
    }
    let is_inside = gateway.is_some_and(|gateway| net.contains(&gateway));
    let is_bridged = pool.mode() == Mode::Bridged;
    let is_certain = is_bridged && is_inside;
    let name = match address {
        IpAddr::V6(_) if address == net.network() => "the subnet-router anycast address",
        IpAddr::V4(_) if !is_inside && (!is_bridged || gateway.is_some()) => return None,
        IpAddr::V4(_) if address == net.network() => "the network address",
        IpAddr::V4(_) if address == net.broadcast() => "the broadcast address",
        _ => return None,
    };
    Some(Role { name, is_certain })
}

/// Ranges of addresses that are not free, sorted and apart, of one family each.
#[derive(Debug, Default, Clone)]
pub(super) struct Busy([Vec<(u128, u128)>; 2]);

impl Busy {
    pub(super) fn of(prefixes: impl IntoIterator<Item = Prefix>) -> Self {
        Self::default().with(prefixes)
    }

    /// With more of them.
    #[must_use]
    pub(super) fn with(mut self, prefixes: impl IntoIterator<Item = Prefix>) -> Self {
        let mut is_more = [false; 2];
        for prefix in prefixes {
            let of_family = usize::from(prefix.family() == Family::V6);
            is_more[of_family] = true;
            // A guest's are mostly a few in a row: of a hundred thousand some are left to be sorted.
            let range = (number(prefix.first()), number(prefix.net().broadcast()));
            add(&mut self.0[of_family], range);
        }
        Self(std::array::from_fn(|family| {
            let mut ranges = std::mem::take(&mut self.0[family]);
            if !is_more[family] {
                return ranges;
            }
            ranges.sort_unstable();
            let mut apart = Vec::with_capacity(ranges.len());
            for range in ranges {
                add(&mut apart, range);
            }
            apart
        }))
    }

    /// Whether an address of the prefix is in them.
    pub(super) fn meets(&self, prefix: Prefix) -> bool {
        let ranges = &self.0[usize::from(prefix.family() == Family::V6)];
        let behind = ranges.partition_point(|(_, end)| *end < number(prefix.first()));
        ranges.get(behind).is_some_and(|(start, _)| *start <= number(prefix.net().broadcast()))
    }
}

/// Adds a range behind others, to the last one if it begins in that or just behind it.
fn add(ranges: &mut Vec<(u128, u128)>, (start, end): (u128, u128)) {
    match ranges.last_mut().filter(|last| last.0 <= start && start <= last.1.saturating_add(1)) {
        Some(last) => last.1 = last.1.max(end),
        None => ranges.push((start, end)),
    }
}

/// The usable addresses of a family, lowest first, that are in none of the `busy` ranges and none of `avoid`.
///
/// Held ranges are skipped whole, so that a /64 with a held /65 costs one step, not 2^63.
pub(super) fn free<'a>(
    pool: &'a Pool,
    entries: &'a [&'a PoolAddress],
    family: Family,
    busy: &'a Busy,
    avoid: &'a BTreeSet<IpAddr>,
) -> impl Iterator<Item = Prefix> + 'a {
    let mut entries: Vec<&PoolAddress> =
        entries.iter().copied().filter(|entry| entry.address.family() == family).collect();
    entries.sort_by_key(|entry| entry.address);
    entries.into_iter().flat_map(move |entry| free_in(pool, entry, entry.address, busy, avoid))
}

/// The same of the part of one entry that lies in `within`.
pub(super) fn free_in<'a>(
    pool: &'a Pool,
    entry: &'a PoolAddress,
    within: Prefix,
    busy: &'a Busy,
    avoid: &'a BTreeSet<IpAddr>,
) -> impl Iterator<Item = Prefix> + 'a {
    let family = entry.address.family();
    let net = if within.contains(entry.address) { entry.address.net() } else { within.net() };
    let ranges = &busy.0[usize::from(family == Family::V6)];
    let last = number(net.broadcast());
    let mut candidate = Some(number(net.network())).filter(|_| entry.address.overlaps(within));
    let mut at_range = ranges.partition_point(|(_, end)| candidate.is_some_and(|candidate| *end < candidate));
    std::iter::from_fn(move || {
        loop {
            let at = candidate.filter(|at| *at <= last)?;
            while ranges.get(at_range).is_some_and(|(_, end)| *end < at) {
                at_range += 1;
            }
            if let Some((_, end)) = ranges.get(at_range).filter(|(start, _)| *start <= at) {
                candidate = end.checked_add(1);
                continue;
            }
            candidate = at.checked_add(1);
            let address = address(at, family)?;
            if role(pool, entry, address).is_none() && !avoid.contains(&address) {
                return Prefix::host(address).ok();
            }
        }
    })
}

/// How many addresses of a pool's entries a guest could get, as far as a `u128` counts.
pub fn capacity(entry: &PoolAddress) -> u128 {
    let net = entry.address.net();
    let bits = u32::from(net.max_prefix_len() - net.prefix_len());
    1u128.checked_shl(bits).unwrap_or(u128::MAX)
}

/// Whether an address of an entry is fit for a guest; the error names the reason and the pool.
pub(super) fn check_entry(name: &PoolName, pool: &Pool, entry: &PoolAddress, prefix: Prefix) -> Result<(), String> {
    let Some(address) = prefix.single() else { return Ok(()) };
    let role = role(pool, entry, address).filter(|role| role.is_certain);
    role.map_or(Ok(()), |Role { name: role, .. }| Err(format!("{address} is {role} of pool `{name}`")))
}

pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

pub(super) fn address(number: u128, family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => u32::try_from(number).ok().map(|bits| IpAddr::V4(bits.into())),
        Family::V6 => Some(IpAddr::V6(number.into())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::registry::document::Profile;

    fn check_usable(name: &PoolName, pool: &Pool, prefix: Prefix) -> Result<(), String> {
        pool.entry(prefix).map_or(Ok(()), |entry| check_entry(name, pool, entry, prefix))
    }

    fn pool(profile: Profile, gateway4: Option<&str>, entries: &[&str]) -> Pool {
        let entries = entries.iter().map(|text| PoolAddress::new(text.parse().unwrap()));
        Pool {
            gateway4: gateway4.map(|text| text.parse().unwrap()),
            gateway6: Some("2001:db8::1".parse().unwrap()),
            ..Pool::new(profile, "vmbr0".parse().unwrap(), entries.collect())
        }
    }

    fn next_free(pool: &Pool, family: Family, held: &[Prefix], avoid: &[IpAddr]) -> Option<Prefix> {
        let entries: Vec<&PoolAddress> = pool.addresses.iter().collect();
        let avoid = avoid.iter().copied().collect();
        free(pool, &entries, family, &Busy::of(held.iter().copied()), &avoid).next()
    }

    /// Hands out until nothing is left.
    fn drain(pool: &Pool, family: Family) -> Vec<String> {
        let mut held = Vec::new();
        while let Some(prefix) = next_free(pool, family, &held, &[]) {
            held.push(prefix);
            assert!(held.len() < 1000);
        }
        held.iter().map(|prefix| prefix.first().to_string()).collect()
    }

    #[test]
    fn an_on_link_subnet_keeps_its_ends_and_gateway() {
        let on_link = pool(Profile::GenericBridged, Some("203.0.113.9"), &["203.0.113.8/29"]);
        assert_eq!(
            drain(&on_link, Family::V4),
            ["203.0.113.10", "203.0.113.11", "203.0.113.12", "203.0.113.13", "203.0.113.14"]
        );
    }

    #[test]
    fn of_a_routed_block_every_address_is_handed_out() {
        let outside = pool(Profile::GenericBridged, Some("198.51.100.254"), &["203.0.113.8/30"]);
        assert_eq!(drain(&outside, Family::V4), ["203.0.113.8", "203.0.113.9", "203.0.113.10", "203.0.113.11"]);
        let routed = pool(Profile::GenericRouted, None, &["203.0.113.8/30"]);
        assert_eq!(drain(&routed, Family::V4).len(), 4);
        let point_to_point = pool(Profile::GenericBridged, Some("203.0.113.8"), &["203.0.113.8/31"]);
        assert_eq!(drain(&point_to_point, Family::V4), ["203.0.113.9"]);
    }

    #[test]
    fn what_may_mean_a_whole_subnet_is_not_handed_out_by_itself() {
        let name = "p".parse().unwrap();
        // Nobody knows whether this block is a subnet of its own.
        let unknown = pool(Profile::GenericBridged, None, &["203.0.113.8/30"]);
        assert_eq!(drain(&unknown, Family::V4), ["203.0.113.9", "203.0.113.10"]);
        assert_eq!(check_usable(&name, &unknown, "203.0.113.8".parse().unwrap()), Ok(()));
        // The node has its gateway out of the block, perhaps with the block's length.
        let routed = pool(Profile::GenericRouted, Some("203.0.113.9"), &["203.0.113.8/30"]);
        assert_eq!(drain(&routed, Family::V4), ["203.0.113.10"]);
        assert_eq!(check_usable(&name, &routed, "203.0.113.11".parse().unwrap()), Ok(()));
        for (profile, gateway, first) in [
            (Profile::GenericRouted, Some("fe80::1"), "2001:db8:1::1"),
            (Profile::GenericRouted, None, "2001:db8:1::1"),
            (Profile::GenericBridged, Some("fe80::1"), "2001:db8:1::1"),
            (Profile::GenericBridged, None, "2001:db8:1::1"),
            (Profile::GenericBridged, Some("2001:db8:1::1"), "2001:db8:1::2"),
        ] {
            for length in [64, 126] {
                let mut v6 = pool(profile, None, &[&format!("2001:db8:1::/{length}")]);
                v6.gateway6 = gateway.map(|text| text.parse().unwrap());
                let found = next_free(&v6, Family::V6, &[], &[]).unwrap().first().to_string();
                assert_eq!(found, first, "{profile:?} {gateway:?} /{length}");
            }
        }
        let point_to_point = pool(Profile::GenericRouted, None, &["2001:db8:1::/127"]);
        assert_eq!(drain(&point_to_point, Family::V6), ["2001:db8:1::", "2001:db8:1::1"]);
    }

    #[test]
    fn a_held_prefix_is_skipped_whole_and_the_nodes_addresses_too() {
        let v6 = pool(Profile::GenericRouted, None, &["2001:db8:1::/64"]);
        let held = ["2001:db8:1::/65".parse().unwrap()];
        assert_eq!(next_free(&v6, Family::V6, &held, &[]).unwrap().to_string(), "2001:db8:1:0:8000::");
        let avoid = ["2001:db8:1::1".parse().unwrap()];
        assert_eq!(next_free(&v6, Family::V6, &[], &avoid).unwrap().to_string(), "2001:db8:1::2");
        assert_eq!(next_free(&v6, Family::V4, &[], &[]), None);
    }

    #[test]
    fn says_which_role_an_address_has() {
        let name = "p".parse().unwrap();
        let on_link = pool(Profile::GenericBridged, Some("203.0.113.9"), &["203.0.113.8/29", "192.0.2.7/32"]);
        for (text, role) in
            [("203.0.113.8", "the network"), ("203.0.113.9", "the gateway"), ("203.0.113.15", "the broadcast")]
        {
            let message = check_usable(&name, &on_link, text.parse().unwrap()).unwrap_err();
            assert!(message.contains(role), "{message}");
        }
        assert_eq!(check_usable(&name, &on_link, "203.0.113.10".parse().unwrap()), Ok(()));
        assert_eq!(check_usable(&name, &on_link, "192.0.2.7".parse().unwrap()), Ok(()));
    }

    proptest! {
        #[test]
        fn never_hands_out_what_is_held(held in proptest::collection::vec((0u8..=255, 26u8..=32), 0..20)) {
            let pool = pool(Profile::GenericRouted, None, &["203.0.113.0/24"]);
            let held: Vec<Prefix> = held.iter().map(|(last, length)| {
                let net: ipnet::IpNet = format!("203.0.113.{last}/{length}").parse().unwrap();
                net.trunc().to_string().parse().unwrap()
            }).collect();
            let free = (0..=255u8).map(|last| Prefix::host(IpAddr::from([203, 0, 113, last])).unwrap())
                .find(|prefix| !held.iter().any(|other| other.overlaps(*prefix)));
            prop_assert_eq!(next_free(&pool, Family::V4, &held, &[]), free);
        }
    }
}
