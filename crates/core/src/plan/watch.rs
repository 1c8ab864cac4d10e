//! Pools that are not enforced (yet): what a node would be like without them.
//!
//! A pool is *watched* if what is against the rules because of it passes, and is counted. The definition is by comparison: a
//! frame that is dropped with all pools, and would not be dropped without the watched ones, is counted and passes. So this
//! module makes the same inputs without those pools; what the filter has with them and lacks without them is *watched*, and
//! the sets `watched_*` say so.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use super::guest_share::own_link_locals;
use super::inputs::Inputs;
use super::segments::Places;
use super::state::NetState;
use super::unbound::{Unbound, unbound_kinds};
use crate::code;
use crate::model::{IfName, Problem, Subject};
use crate::registry::Registry;
use crate::registry::document::{Enforce, Interface, Pool};
use crate::ruleset::{Element, SetId};

/// How far the rules for a NIC are enforced: as far as those of the strictest pool from which it holds an address. A pool that
/// nobody knows is enforced.
pub fn enforce_of(registry: &Registry, interface: &Interface) -> Enforce {
    let of_pool = |pool| registry.pools.pools.get(pool).map_or(Enforce::On, Pool::enforce);
    interface.addresses.iter().map(|assigned| of_pool(&assigned.pool)).max().unwrap_or(Enforce::On)
}

/// The same registry with only what is enforced this far: pools, and what guests hold of them; `None`: that is all of it.
fn limited_registry(registry: &Registry, least: Enforce) -> Option<Registry> {
    if registry.pools.pools.values().all(|pool| pool.enforce() >= least) {
        return None;
    }
    let mut limited = registry.clone();
    for (name, _) in registry.pools.pools.iter().filter(|(_, pool)| pool.enforce() < least) {
        limited.pools.pools.remove(name);
    }
    let is_in = |interface: &Interface| enforce_of(registry, interface) >= least;
    for (vmid, guest) in &registry.guests {
        if !guest.interfaces.values().all(is_in) {
            let mut guest = guest.clone();
            guest.interfaces.retain(|_, interface| is_in(interface));
            limited.guests.insert(*vmid, guest);
        }
    }
    Some(limited)
}

/// The same node with only what is enforced this far; `None`: that is all of it.
pub fn limited(inputs: &Inputs, least: Enforce) -> Option<Inputs> {
    let registry = limited_registry(&inputs.registry, least)?;
    Some(Inputs { registry, ..inputs.clone() })
}

/// Whether nothing at all is to be dropped on this node.
pub fn is_nothing(registry: &Registry) -> bool {
    registry.lost_pools.is_none() && registry.pools.pools.is_empty() && registry.assignments().next().is_none()
}

/// Pools that are not enforced.
pub(super) fn notes(registry: &Registry) -> impl Iterator<Item = Problem> {
    let loose = registry.pools.pools.iter().filter(|(_, pool)| pool.enforce() != Enforce::On);
    loose.map(|(name, pool)| {
        let what = match pool.enforce() {
            Enforce::Watch => "is only watched: what is against its rules is counted, and passes",
            Enforce::Off | Enforce::On => "is off: nothing is filtered because of it",
        };
        let hint = format!("`pve-public-ip pool set {name} --enforce on`; it names who would lose something by that");
        Problem::new(code!("pool-not-enforced"), Subject::Pool(name.clone()), format!("pool `{name}` {what}"), hint)
    })
}

/// What stands in the filter because of watched pools alone: `shown` is all that the filter has, of `inputs`, and `enforced`
/// what it would have of `limited`.
pub(super) fn elements(
    (inputs, shown): (&Inputs, &NetState),
    (limited, enforced): (&Inputs, &NetState),
) -> BTreeSet<Element> {
    let mut elements = BTreeSet::new();
    for element in of_set(shown, SetId::ReservedMac).filter(|element| !enforced.elements.contains(element)) {
        elements.extend(element.names().mac.into_iter().flat_map(Element::watched_mac));
    }
    for set in [SetId::ReservedIp4, SetId::ReservedIp6] {
        let ranges = |state| of_set(state, set).filter_map(|element| element.names().range).map(numbers).collect();
        let enforced: Vec<(u128, u128)> = ranges(enforced);
        let address = |number: u128| match (set, u32::try_from(number)) {
            (SetId::ReservedIp4, Ok(number)) => IpAddr::V4(number.into()),
            _ => IpAddr::V6(number.into()),
        };
        for (first, last) in without(ranges(shown), &enforced) {
            elements.extend(Element::watched_range(address(first), address(last)));
        }
    }
    let locals = &link_locals(inputs, shown) - &link_locals(limited, enforced);
    elements.extend(locals.into_iter().flat_map(|local| Element::watched_range(local.into(), local.into())));
    if is_nothing(&limited.registry) {
        elements.insert(Element::watch_all());
    } else {
        let ports = &unhindered(limited) - &unhindered(inputs);
        elements.extend(ports.into_iter().map(|port| Element::port(SetId::WatchedPorts, port)));
    }
    elements
}

fn of_set(state: &NetState, set: SetId) -> impl Iterator<Item = &Element> {
    state.elements.iter().filter(move |element| element.set() == set)
}

/// Guests' ports where no pool is.
fn unhindered(inputs: &Inputs) -> BTreeSet<IfName> {
    let kinds = unbound_kinds(inputs, &Places::of_pools(inputs)).into_iter();
    kinds.filter(|(_, kind)| matches!(kind, Some(Unbound::Free | Unbound::Elsewhere))).map(|(port, _)| port).collect()
}

/// Link-local addresses that are protected: those of gateways and node, and those that guests have, whether they run or not.
fn link_locals(inputs: &Inputs, state: &NetState) -> BTreeSet<Ipv6Addr> {
    let infra = of_set(state, SetId::InfraIp6).filter_map(|element| match element.names().range {
        Some((IpAddr::V6(address), _)) => Some(address),
        _ => None,
    });
    let interfaces = inputs.registry.guests.values().flat_map(|guest| guest.interfaces.values());
    let own = interfaces.flat_map(own_link_locals);
    infra.chain(own).filter(Ipv6Addr::is_unicast_link_local).collect()
}

fn numbers((first, last): (IpAddr, IpAddr)) -> (u128, u128) {
    let number = |address| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    (number(first), number(last))
}

/// What of the ranges is in none of the others; both are sorted and disjoint.
fn without(ranges: Vec<(u128, u128)>, others: &[(u128, u128)]) -> Vec<(u128, u128)> {
    let mut rest = Vec::new();
    for (mut first, last) in ranges {
        let behind = others.partition_point(|(_, end)| *end < first);
        let mut is_whole = true;
        for (from, to) in others[behind..].iter().take_while(|(from, _)| *from <= last) {
            if *from > first {
                rest.push((first, from - 1));
            }
            match to.checked_add(1).filter(|next| *next <= last) {
                Some(next) => first = next,
                None => is_whole = false,
            }
        }
        if is_whole {
            rest.push((first, last));
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_left_of_ranges_is_what_is_left_of_their_numbers(
            all in proptest::collection::btree_set(0u128..40, 0..30),
            taken in proptest::collection::btree_set(0u128..40, 0..30),
        ) {
            let ranges = |numbers: &BTreeSet<u128>| {
                let mut ranges: Vec<(u128, u128)> = Vec::new();
                for number in numbers {
                    match ranges.last_mut() {
                        Some(last) if last.1 + 1 == *number => last.1 = *number,
                        _ => ranges.push((*number, *number)),
                    }
                }
                ranges
            };
            prop_assert_eq!(without(ranges(&all), &ranges(&taken)), ranges(&(&all - &taken)));
        }
    }

    #[test]
    fn nothing_is_left_of_the_last_address() {
        assert_eq!(without(vec![(5, u128::MAX)], &[(9, u128::MAX)]), [(5, 8)]);
        assert!(without(vec![(5, u128::MAX)], &[(0, u128::MAX)]).is_empty());
    }
}
