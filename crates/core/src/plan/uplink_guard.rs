//! The guard of the uplinks: which MACs reach the provider, and which NICs it keeps back.

use std::collections::{BTreeMap, BTreeSet};

use super::inputs::Inputs;
use super::segments::{Places, is_segment_of, pool_bridges};
use super::uplinks::present_uplinks;
use crate::code;
use crate::guest::Nic;
use crate::model::{IfName, MacAddr, NicId, PoolName, Problem, Vmid};
use crate::registry::Registry;
use crate::registry::beside::known_macs;
use crate::registry::document::{Assigned, GuestFile, Interface, Mode, Pool, UplinkGuard};
use crate::ruleset::{Element, SetId};

/// What the guards of the uplinks let through. Of several pools on one bridge the strictest decides.
pub(super) fn guard_elements(inputs: &Inputs, segments: &BTreeSet<IfName>) -> BTreeSet<Element> {
    let registered = registered_macs(&inputs.registry);
    // Not all that these send may leave: for them there is no quick way.
    let interfaces = inputs.registry.guests.values().flat_map(|guest| guest.interfaces.values());
    let inner: BTreeSet<MacAddr> =
        interfaces.filter(|interface| !interface.also.is_empty()).flat_map(Interface::all_macs).collect();
    let mut elements: BTreeSet<Element> =
        registered.iter().map(|(_, mac)| Element::mac(SetId::RegisteredMac, *mac)).collect();
    if inputs.registry.lost_pools.is_some() {
        let assigned: BTreeSet<MacAddr> =
            inputs.registry.assignments().map(|(.., interface, _)| interface.mac).collect();
        elements.extend(assigned.iter().map(|mac| Element::mac(SetId::RegisteredMac, *mac)));
        for uplink in present_uplinks(inputs, segments) {
            elements.insert(Element::port(SetId::GuardEnforce, uplink));
            let quick = assigned.iter().filter(|mac| !inner.contains(mac));
            elements.extend(quick.map(|mac| Element::mac_on_port(SetId::UplinkRegistered, uplink, *mac)));
        }
    }
    for bridge in pool_bridges(&inputs.registry) {
        let guard = bridge_guard(&inputs.registry, bridge);
        let set = match guard {
            UplinkGuard::Off => continue,
            UplinkGuard::Report => SetId::GuardReport,
            UplinkGuard::Enforce => SetId::GuardEnforce,
        };
        let own = segments.iter().copied().filter(|segment| is_segment_of(*segment, bridge)).collect();
        for uplink in present_uplinks(inputs, &own) {
            elements.insert(Element::port(set, uplink));
            let macs = registered.iter().filter(|(of, mac)| *of == bridge && !inner.contains(mac));
            elements.extend(macs.map(|(_, mac)| Element::mac_on_port(SetId::UplinkRegistered, uplink, *mac)));
        }
    }
    elements
}

/// The strictest guard that a pool asks for on this bridge.
pub(super) fn bridge_guard(registry: &Registry, bridge: IfName) -> UplinkGuard {
    let pools = registry.pools.pools.values().filter(|pool| pool.bridge == bridge);
    pools.map(|pool| guard_of(registry, pool)).max().unwrap_or(UplinkGuard::Off)
}

/// MACs that the provider knows, each with the bridge of its pool.
pub(super) fn registered_macs(registry: &Registry) -> BTreeSet<(IfName, MacAddr)> {
    let pools = &registry.pools.pools;
    let named = pools.values().flat_map(|pool| {
        let of_entries = pool.addresses.iter().filter_map(|entry| entry.mac);
        of_entries.chain(pool.allowed_macs.iter().copied()).map(|mac| (pool.bridge, mac))
    });
    let mut macs: BTreeSet<(IfName, MacAddr)> = named.collect();
    for interface in registry.guests.values().flat_map(|guest| guest.interfaces.values()) {
        // Of a NIC's addresses one after the other is of the same pool, as a rule.
        let mut last = None;
        for name in interface.addresses.iter().map(|assigned| &assigned.pool) {
            if last != Some(name) {
                macs.extend(
                    pools
                        .get(name)
                        .filter(|pool| is_seen(pool))
                        .into_iter()
                        .flat_map(|pool| known_macs(pool, interface).map(|mac| (pool.bridge, mac))),
                );
                last = Some(name);
            }
        }
    }
    macs
}

/// Whether the provider sees the MACs of the pool's guests.
pub(super) fn is_seen(pool: &Pool) -> bool {
    pool.mode() == Mode::Bridged
}

/// What the guard that a pool asks for does on this node: no more than the pool's rules are enforced, and than the node lets
/// it.
pub fn guard_of(registry: &Registry, pool: &Pool) -> UplinkGuard {
    let on_node = registry.node.as_ref().and_then(|node| node.enforce).unwrap_or_default();
    pool.uplink_guard().min(pool.enforce().min(on_node).into())
}

/// A NIC of one of this node's guests whose MAC no pool of its bridge knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger<'a> {
    /// The guest.
    pub vmid: Vmid,
    /// Its NIC.
    pub nic: NicId,
    /// The MAC.
    pub mac: MacAddr,
    /// A pool of the bridge, by name: where the MAC would be allowed.
    pub pool: &'a PoolName,
    /// What becomes of its frames.
    pub guard: UplinkGuard,
}

/// NICs of this node's guests that are on a pool's bridge with a MAC that no pool knows.
pub fn strangers(inputs: &Inputs) -> Vec<Stranger<'_>> {
    let registered = registered_macs(&inputs.registry);
    let mut pools: BTreeMap<IfName, (&PoolName, UplinkGuard)> = BTreeMap::new();
    for (name, pool) in &inputs.registry.pools.pools {
        let guard = guard_of(&inputs.registry, pool);
        let strictest = pools.entry(pool.bridge).or_insert((name, guard));
        if guard > strictest.1 {
            *strictest = (name, guard);
        }
    }
    // On a bridge without uplink nobody reaches the provider anyway. Without any interface the node was not looked at.
    let places = Places::of_pools(inputs);
    let own = places.segments(inputs);
    let leads_out = |bridge: IfName| {
        let segments = own.iter().copied().filter(|segment| is_segment_of(*segment, bridge)).collect();
        inputs.links.0.is_empty() || !present_uplinks(inputs, &segments).is_empty()
    };
    pools.retain(|bridge, _| leads_out(*bridge));
    let mut found = Vec::new();
    for (vmid, place) in inputs.guests.iter().filter(|(_, place)| place.node == inputs.node) {
        for (id, nic) in &place.config.nics {
            let Ok(Nic { mac: Some(mac), bridge: Some(bridge), tag, .. }) = nic else { continue };
            let is_routed = inputs.registry.guests.get(vmid).is_some_and(|guest| is_only_routed(inputs, guest, *id));
            if is_routed || places.is_elsewhere((*bridge, *tag)) {
                continue;
            }
            if let (Some((pool, guard)), false) = (pools.get(bridge), registered.contains(&(*bridge, *mac))) {
                found.push(Stranger { vmid: *vmid, nic: *id, mac: *mac, pool, guard: *guard });
            }
        }
    }
    found
}

/// Whether what the NIC sends to the provider is meant to go by way of the node.
fn is_only_routed(inputs: &Inputs, guest: &GuestFile, nic: NicId) -> bool {
    let addresses = guest.interfaces.get(&nic).map(|interface| &interface.addresses[..]).unwrap_or_default();
    let pool = |assigned: &Assigned| inputs.registry.pools.pools.get(&assigned.pool);
    !addresses.is_empty() && addresses.iter().all(|assigned| pool(assigned).is_some_and(|pool| !is_seen(pool)))
}

/// NICs of this node's guests whose frames a guard keeps from the provider: no pool knows their MAC.
pub fn unregistered(inputs: &Inputs) -> Vec<Problem> {
    let pools = &inputs.registry.pools.pools;
    // Every look comes here: what most nodes do not need is not worked out.
    if pools.values().all(|pool| guard_of(&inputs.registry, pool) != UplinkGuard::Enforce) {
        return Vec::new();
    }
    let kept_back = strangers(inputs).into_iter().filter(|stranger| stranger.guard == UplinkGuard::Enforce);
    let problem = |Stranger { vmid, nic, mac, pool, .. }: Stranger<'_>| {
        let sentence = format!("guest {vmid} {nic} does not reach the provider: no pool knows its MAC {mac}");
        let hint = format!("if the provider knows this MAC: `pve-public-ip pool set {pool} --allow-mac {mac}`");
        Problem::of_guest(code!("mac-kept-back"), vmid, sentence, hint)
    };
    kept_back.map(problem).collect()
}
