//! Next-free allocation: the lowest address of a pool that nobody holds and that a host may use.

use std::net::IpAddr;

use super::document::{Mode, Pool, PoolAddress};
use crate::model::{PoolName, Prefix};

/// Why an address of an entry must not be handed out, if so.
///
/// An entry is an on-link subnet when its gateway lies inside it: then the first and the last IPv4 address mean the
/// subnet itself and everyone on it, and the first IPv6 address means its routers (RFC 4291 2.6.1). Of a block that
/// is routed to the node or to the guest every address is usable. A /31 has neither (RFC 3021).
pub(super) fn unusable(pool: &Pool, entry: &PoolAddress, address: IpAddr) -> Option<&'static str> {
    let host = Prefix::host(address).ok()?;
    let gateway = pool.gateway(host);
    if gateway == Some(address) {
        return Some("the gateway");
    }
    let net = entry.address.net();
    let on_link = pool.mode() == Mode::Bridged && gateway.is_some_and(|gateway| net.contains(&gateway));
    let has_ends = net.max_prefix_len() - net.prefix_len() >= 2;
    if !on_link || !has_ends {
        return None;
    }
    if address == net.network() {
        return Some(if address.is_ipv4() { "the network address" } else { "the subnet-router anycast address" });
    }
    (address.is_ipv4() && address == net.broadcast()).then_some("the broadcast address")
}

/// The lowest usable address of the family that overlaps none of `held` and is none of `avoid` (the node's own).
pub(super) fn next_free(pool: &Pool, family: u8, held: &[Prefix], avoid: &[IpAddr]) -> Option<Prefix> {
    let mut entries: Vec<_> = pool.addresses.iter().filter(|entry| entry.address.family() == family).collect();
    entries.sort_by_key(|entry| entry.address);
    entries.into_iter().find_map(|entry| next_free_in(pool, entry, held, avoid))
}

fn next_free_in(pool: &Pool, entry: &PoolAddress, held: &[Prefix], avoid: &[IpAddr]) -> Option<Prefix> {
    let net = entry.address.net();
    let (mut candidate, last) = (number(net.network()), number(net.broadcast()));
    let mut taken: Vec<(u128, u128)> = held
        .iter()
        .filter(|prefix| prefix.overlaps(entry.address))
        .map(|prefix| (number(prefix.first()), number(prefix.net().broadcast())))
        .collect();
    taken.sort_unstable();
    let mut taken = taken.into_iter().peekable();
    while candidate <= last {
        while taken.peek().is_some_and(|(_, end)| *end < candidate) {
            taken.next();
        }
        // Held ranges are skipped whole, so that a /64 with a held /65 costs one step, not 2^63.
        if let Some((_, end)) = taken.peek().filter(|(start, _)| *start <= candidate) {
            candidate = end.checked_add(1)?;
            continue;
        }
        let address = address(candidate, net.network().is_ipv4())?;
        if unusable(pool, entry, address).is_none() && !avoid.contains(&address) {
            return Prefix::host(address).ok();
        }
        candidate = candidate.checked_add(1)?;
    }
    None
}

/// How many addresses of a pool's entries a guest could get, as far as a `u128` counts.
pub fn capacity(entry: &PoolAddress) -> u128 {
    let net = entry.address.net();
    let bits = u32::from(net.max_prefix_len() - net.prefix_len());
    1u128.checked_shl(bits).unwrap_or(u128::MAX)
}

/// Whether `address` is fit for a guest; the error names the reason and the pool.
pub(super) fn check_usable(name: &PoolName, pool: &Pool, prefix: Prefix) -> Result<(), String> {
    let Some(address) = prefix.single() else { return Ok(()) };
    let Some(entry) = pool.entry(prefix) else { return Ok(()) };
    match unusable(pool, entry, address) {
        // A pool of exactly one address is what its owner says it is.
        Some(role) if entry.address != prefix || role == "the gateway" => {
            Err(format!("{address} is {role} of pool `{name}`"))
        }
        _ => Ok(()),
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address(number: u128, v4: bool) -> Option<IpAddr> {
    if v4 { u32::try_from(number).ok().map(|bits| IpAddr::V4(bits.into())) } else { Some(IpAddr::V6(number.into())) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::registry::document::Profile;

    fn pool(profile: Profile, gateway4: Option<&str>, entries: &[&str]) -> Pool {
        let entries = entries.iter().map(|text| PoolAddress::new(text.parse().unwrap()));
        Pool {
            gateway4: gateway4.map(|text| text.parse().unwrap()),
            gateway6: Some("2001:db8::1".parse().unwrap()),
            ..Pool::new(profile, "vmbr0".parse().unwrap(), entries.collect())
        }
    }

    /// Hands out until nothing is left.
    fn drain(pool: &Pool, family: u8) -> Vec<String> {
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
            drain(&on_link, 4),
            ["203.0.113.10", "203.0.113.11", "203.0.113.12", "203.0.113.13", "203.0.113.14"]
        );
    }

    #[test]
    fn of_a_routed_block_every_address_is_handed_out() {
        let outside = pool(Profile::GenericBridged, Some("198.51.100.254"), &["203.0.113.8/30"]);
        assert_eq!(drain(&outside, 4), ["203.0.113.8", "203.0.113.9", "203.0.113.10", "203.0.113.11"]);
        let routed = pool(Profile::GenericRouted, None, &["203.0.113.8/30"]);
        assert_eq!(drain(&routed, 4).len(), 4);
        let point_to_point = pool(Profile::GenericBridged, Some("203.0.113.8"), &["203.0.113.8/31"]);
        assert_eq!(drain(&point_to_point, 4), ["203.0.113.9"]);
    }

    #[test]
    fn a_held_prefix_is_skipped_whole_and_the_nodes_addresses_too() {
        let v6 = pool(Profile::GenericRouted, None, &["2001:db8:1::/64"]);
        let held = ["2001:db8:1::/65".parse().unwrap()];
        assert_eq!(next_free(&v6, 6, &held, &[]).unwrap().to_string(), "2001:db8:1:0:8000::/128");
        let avoid = ["2001:db8:1::".parse().unwrap()];
        assert_eq!(next_free(&v6, 6, &[], &avoid).unwrap().to_string(), "2001:db8:1::1/128");
        assert_eq!(next_free(&v6, 4, &[], &[]), None);
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
            prop_assert_eq!(next_free(&pool, 4, &held, &[]), free);
        }
    }
}
