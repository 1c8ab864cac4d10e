//! What the filter of routed traffic has to know, and how `table inet pve-public-ip` is told.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{Element, SetId};
use crate::model::{IfName, MacAddr};

/// All that decides on routed packets, whichever program filters them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routed {
    /// Bridges of routed pools that carry guests only, with the MAC by which the node is reached there.
    pub routed_bridges: BTreeMap<IfName, Option<MacAddr>>,
    /// Bridges of routed pools that carry an uplink, too.
    pub shared_bridges: BTreeSet<IfName>,
    /// Other bridges that carry guests only.
    pub guest_bridges: BTreeSet<IfName>,
    /// Bridges behind guests that route a prefix: its addresses are used there by right.
    pub lan_bridges: BTreeSet<IfName>,
    /// Bridges, with the MAC by which the node is reached there, and other interfaces, from which the node forwards no
    /// IPv6: it was this program that switched it on for all interfaces, and a pool's guests do not need these.
    pub kept6: BTreeMap<IfName, Option<MacAddr>>,
    /// Interfaces that a packet for a pool must not leave by when it came in there, with their MACs.
    pub loops: BTreeMap<IfName, MacAddr>,
    /// Every address of a routed pool.
    pub pools: BTreeSet<IpNet>,
    /// Who may use what.
    pub from: BTreeSet<(IpNet, MacAddr)>,
    /// What belongs to guests that run here.
    pub here: BTreeSet<IpNet>,
}

impl Routed {
    /// As members of the table's sets.
    pub fn elements(&self) -> BTreeSet<Element> {
        let ports = |set, ports: &mut dyn Iterator<Item = &IfName>| -> Vec<Element> {
            ports.map(|port| Element::port(set, *port)).collect()
        };
        let mut elements = BTreeSet::new();
        elements.extend(ports(SetId::RoutedBridges, &mut self.routed_bridges.keys()));
        elements.extend(ports(SetId::SharedBridges, &mut self.shared_bridges.iter()));
        elements.extend(ports(SetId::GuestBridges, &mut self.guest_bridges.iter()));
        elements.extend(ports(SetId::LanBridges, &mut self.lan_bridges.iter()));
        let macs = self.routed_bridges.iter().filter_map(|(bridge, mac)| Some((*bridge, (*mac)?)));
        elements.extend(macs.map(|(bridge, mac)| Element::mac_on_port(SetId::BridgeMac, bridge, mac)));
        elements.extend(self.kept6.iter().map(|(device, mac)| match mac {
            Some(mac) => Element::mac_on_port(SetId::Kept6, *device, *mac),
            None => Element::port(SetId::Kept6Links, *device),
        }));
        elements.extend(self.loops.iter().map(|(device, mac)| Element::routed_loop(*device, *mac)));
        elements.extend(self.pools.iter().map(|net| Element::routed_pool(net.network(), net.broadcast())));
        elements.extend(self.from.iter().flat_map(|(net, mac)| Element::routed_from(*mac, *net)));
        elements.extend(self.here.iter().flat_map(|net| Element::routed_here(*net)));
        elements
    }
}
