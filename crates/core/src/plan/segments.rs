//! Where pools are: their bridges, and the VLANs of these.

use std::collections::BTreeSet;

use super::inputs::Inputs;
use crate::links::is_guest_port;
use crate::model::IfName;
use crate::registry::Registry;

/// Bridges that carry a pool.
pub fn pool_bridges(registry: &Registry) -> BTreeSet<IfName> {
    registry.pools.pools.values().map(|pool| pool.bridge).collect()
}

/// If nothing is known of the pools: the bridges that may carry one. Those that the file seems to name, and those of guests
/// with addresses; if there are none, every bridge with an uplink.
pub(super) fn lost_bridges(inputs: &Inputs) -> BTreeSet<IfName> {
    let Some(named) = &inputs.registry.lost_pools else { return BTreeSet::new() };
    let holders = inputs.registry.guests.values().filter(|guest| !guest.is_empty());
    let configs = holders.filter_map(|guest| inputs.guests.get(&guest.vmid));
    let nics = configs.flat_map(|place| place.config.nics.values().flatten()).filter_map(|nic| nic.bridge);
    let likely: BTreeSet<IfName> = named.iter().copied().chain(nics).collect();
    if !likely.is_empty() {
        return likely;
    }
    let is_bridge = |name: &IfName| inputs.links.get(*name).is_some_and(|link| link.bridge.is_some());
    let bridges = inputs.links.0.keys().copied().filter(is_bridge);
    bridges.filter(|bridge| inputs.links.ports(*bridge).any(|port| !is_guest_port(port.as_str()))).collect()
}

/// The pool's bridges and the per-VLAN bridges that Proxmox VE made beside them.
pub(super) fn segments(inputs: &Inputs, bridges: &BTreeSet<IfName>) -> BTreeSet<IfName> {
    let nics =
        inputs.guests.values().filter(|place| place.node == inputs.node).flat_map(|place| place.config.nics.values());
    let tagged = nics.flatten().filter_map(|nic| {
        let bridge = nic.bridge.filter(|bridge| bridges.contains(bridge))?;
        inputs.links.segment(bridge, Some(nic.tag?))
    });
    bridges.iter().copied().chain(tagged).collect()
}

/// `vmbr0`, or `vmbr0v10` of `vmbr0`.
pub fn is_segment_of(bridge: IfName, pool: IfName) -> bool {
    let tag = |rest: &str| rest.strip_prefix('v').is_some_and(|tag| tag.parse::<u16>().is_ok());
    bridge == pool || bridge.as_str().strip_prefix(pool.as_str()).is_some_and(tag)
}

pub(super) fn is_vlan_aware(inputs: &Inputs, bridge: IfName) -> bool {
    inputs.links.get(bridge).and_then(|link| link.bridge).is_some_and(|options| options.vlan_filtering)
}

/// Where a NIC is: its bridge, and its VLAN if it has a tag.
pub(super) type At = (IfName, Option<u16>);

/// The VLAN of what is untagged, on a VLAN-aware bridge that nobody has told otherwise.
const DEFAULT_VLAN: u16 = 1;

/// Where pools are: their bridges, and the VLANs beside them in which guests of this node hold addresses. The VLANs of
/// others are none of a pool's business: no provider's address is in them.
pub(super) struct Places {
    pub(super) bridges: BTreeSet<IfName>,
    vlans: BTreeSet<(IfName, u16)>,
    /// Nothing is known of the pools: they may be anywhere.
    pub(super) lost: bool,
}

impl Places {
    pub(super) fn of_pools(inputs: &Inputs) -> Self {
        let bridges: BTreeSet<IfName> =
            pool_bridges(&inputs.registry).into_iter().chain(lost_bridges(inputs)).collect();
        let mut vlans = BTreeSet::new();
        for guest in inputs.registry.guests.values() {
            let Some(place) = inputs.guests.get(&guest.vmid).filter(|place| place.node == inputs.node) else {
                continue;
            };
            for (id, interface) in guest.interfaces.iter().filter(|(_, interface)| !interface.addresses.is_empty()) {
                let Some(Ok(nic)) = place.config.nics.get(id) else { continue };
                let Some(bridge) = nic.bridge.filter(|bridge| bridges.contains(bridge)) else { continue };
                vlans.extend(nic.tag.iter().chain(&interface.trunk).map(|vlan| (bridge, *vlan)));
            }
        }
        Self { bridges, vlans, lost: inputs.registry.lost_pools.is_some() }
    }

    /// The pools' bridges, and the bridges of the VLANs beside them in which pools are.
    pub(super) fn segments(&self, inputs: &Inputs) -> BTreeSet<IfName> {
        let tagged = self.vlans.iter().filter_map(|(bridge, vlan)| inputs.links.segment(*bridge, Some(*vlan)));
        self.bridges.iter().copied().chain(tagged).collect()
    }

    /// Whether no pool is there.
    pub(super) fn is_elsewhere(&self, (bridge, tag): At) -> bool {
        let (bridge, tag) = tag.map_or_else(|| self.split(bridge), |tag| (bridge, Some(tag)));
        let in_vlan = |tag: u16| tag != DEFAULT_VLAN && !self.vlans.contains(&(bridge, tag));
        !self.lost && (!self.bridges.contains(&bridge) || tag.is_some_and(in_vlan))
    }

    /// `vmbr0v10` is VLAN 10 of `vmbr0`.
    fn split(&self, name: IfName) -> At {
        let found = self.bridges.iter().find_map(|bridge| {
            let tag = name.as_str().strip_prefix(bridge.as_str())?.strip_prefix('v')?;
            Some((*bridge, Some(tag.parse().ok()?)))
        });
        found.unwrap_or((name, None))
    }
}

impl Inputs {
    /// Bridges of VLANs beside those of pools, each with the number by which it is known from one that is made anew.
    pub fn vlan_bridges(&self) -> BTreeSet<(IfName, u32)> {
        let bridges = pool_bridges(&self.registry);
        let made = segments(self, &bridges).into_iter().filter(|segment| !bridges.contains(segment));
        made.filter_map(|segment| Some((segment, self.links.get(segment)?.index))).collect()
    }

    /// Bridges of pools, and of VLANs beside them, that something is plugged into.
    pub fn occupied_bridges(&self) -> BTreeSet<IfName> {
        let bridges = segments(self, &pool_bridges(&self.registry));
        bridges.into_iter().filter(|bridge| self.links.ports(*bridge).next().is_some()).collect()
    }
}
