//! Ports of guests without addresses, and of other networks: what they may do.

use std::collections::BTreeSet;

use super::inputs::Inputs;
use super::segments::{At, Places, is_segment_of, is_vlan_aware};
use super::uplink_guard::bridge_guard;
use super::uplinks::is_uplink_name;
use crate::guest::Nic;
use crate::links::is_guest_port;
use crate::model::{GuestKind, IfName, Vmid};
use crate::registry::document::{Pool, UplinkGuard};
use crate::ruleset::{Element, SetId};

/// A NIC of one of this node's guests that holds no address.
struct UnboundPort {
    vmid: Vmid,
    port: IfName,
    /// The bridge that it is on.
    bridge: IfName,
    /// The same, and in which VLAN; `None`: in several, or in one that is not known.
    at: Option<At>,
}

fn unbound_ports(inputs: &Inputs) -> Vec<UnboundPort> {
    let mut ports = Vec::new();
    for (vmid, place) in inputs.guests.iter().filter(|(_, place)| place.node == inputs.node) {
        for (id, nic) in &place.config.nics {
            if inputs.registry.guests.get(vmid).is_some_and(|guest| guest.interfaces.contains_key(id)) {
                continue;
            }
            let nic = nic.as_ref().ok();
            let (configured, tag) = (nic.and_then(|nic| nic.bridge), nic.and_then(|nic| nic.tag));
            // What is plugged in now counts more than what the configuration says.
            let plugged = inputs.links.bridge_of(place.config.kind, *vmid, *id);
            let Some(bridge) = plugged.or(configured) else { continue };
            // On a bridge that is not VLAN-aware a port is in no VLAN of its own, whatever its tag; made for one, the bridge
            // says so by its name.
            let tag = tag.filter(|_| plugged.is_none() || plugged == configured && is_vlan_aware(inputs, bridge));
            let at = place.config.trunks(*id).is_empty().then_some((bridge, tag));
            ports.push(UnboundPort { vmid: *vmid, port: place.config.kind.port(*vmid, *id), bridge, at });
        }
    }
    ports
}

/// More than an ordinary guest without addresses may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unbound {
    /// Anything.
    Free,
    /// Be router and DHCP server, and use what only gateways and the node have.
    Elsewhere,
    /// Be router and DHCP server.
    Router,
}

/// The ports of guests that hold no address, and what they may do.
///
/// On a bridge without a pool they may be routers and DHCP servers and use what only gateways and the node have, but
/// protected addresses stay protected: a NIC can be moved to a pool's bridge while its guest runs, and no hook is called.
/// Only on the LAN of a guest that routes a prefix is everything allowed, because its addresses are used there by right.
pub(super) fn unbound_kinds(inputs: &Inputs, places: &Places) -> Vec<(IfName, Option<Unbound>)> {
    let ports = unbound_ports(inputs);
    let lans: BTreeSet<At> = routers_among(inputs, &ports).filter_map(|port| port.at).collect();
    let kind_of = |port: &UnboundPort| {
        if let Some(at) = port.at.filter(|at| places.is_elsewhere(*at)) {
            return Some(if lans.contains(&at) { Unbound::Free } else { Unbound::Elsewhere });
        }
        let on_pool = places.bridges.iter().any(|pool| is_segment_of(port.bridge, *pool));
        if places.lost || !on_pool {
            return None;
        }
        let pools = || inputs.registry.pools.pools.values().filter(|pool| is_segment_of(port.bridge, pool.bridge));
        // Of two pools on one bridge both must allow it; one that is not enforced has no say against one that is.
        let strictest = pools().map(Pool::enforce).max();
        let mut pools = pools().filter(|pool| Some(pool.enforce()) == strictest);
        pools.all(|pool| pool.guest_routers).then_some(Unbound::Router)
    };
    ports.iter().map(|port| (port.port, kind_of(port))).collect()
}

pub(super) fn unbound_elements(inputs: &Inputs, places: &Places) -> BTreeSet<Element> {
    let set = |kind| match kind {
        Unbound::Free => SetId::FreePorts,
        Unbound::Elsewhere => SetId::Elsewhere,
        Unbound::Router => SetId::RouterPorts,
    };
    let kinds =
        unbound_kinds(inputs, places).into_iter().filter_map(|(port, kind)| Some(Element::port(set(kind?), port)));
    let others = other_ports(inputs, places).into_iter().map(|port| Element::port(SetId::Elsewhere, port));
    kinds.chain(others).collect()
}

/// Ports of bridges without a pool that are no guest's: they lead to other networks. Those of containers that somebody else
/// runs come and go, and are taken for guests'.
pub(super) fn other_ports(inputs: &Inputs, places: &Places) -> BTreeSet<IfName> {
    let named = inputs.registry.node.as_ref().and_then(|node| node.uplinks.as_ref());
    let is_uplink = |name: IfName| named.map_or(is_uplink_name(name.as_str()), |named| named.contains(&name));
    let is_bridge = |name: IfName| inputs.links.get(name).is_some_and(|link| link.bridge.is_some());
    let leads_elsewhere = |master: IfName| is_bridge(master) && places.is_elsewhere((master, None));
    let ports = inputs.links.0.iter().filter(|(name, link)| {
        link.kind != "veth"
            && !is_guest_port(name.as_str())
            && !is_uplink(**name)
            && link.master.is_some_and(leads_elsewhere)
    });
    ports.map(|(name, _)| *name).collect()
}

/// Bridges on which a guest that routes a prefix has a NIC without addresses: its prefix is used there by right.
pub fn router_lans(inputs: &Inputs) -> BTreeSet<IfName> {
    let ports = unbound_ports(inputs);
    routers_among(inputs, &ports).map(|port| port.bridge).collect()
}

fn routers_among<'a>(inputs: &'a Inputs, ports: &'a [UnboundPort]) -> impl Iterator<Item = &'a UnboundPort> {
    let routes = |vmid: &Vmid| {
        let guest = inputs.registry.guests.get(vmid);
        guest.is_some_and(|guest| guest.addresses().any(|(.., assigned)| assigned.address.single().is_none()))
    };
    ports.iter().filter(move |port| routes(&port.vmid))
}

/// VLANs for each NIC of which the guard is told: more are those of a NIC that may use any.
const MANY_VLANS: usize = 64;

/// The ports of guests on VLAN-aware bridges of pools, with the VLANs in which the administrator has put them and no pool
/// is. A guest that makes up a tag is not let out by it.
pub(super) fn other_vlans(inputs: &Inputs, places: &Places) -> BTreeSet<Element> {
    let mut elements = BTreeSet::new();
    for (vmid, place) in inputs.guests.iter().filter(|(_, place)| place.node == inputs.node) {
        for (id, nic) in &place.config.nics {
            let Ok(Nic { bridge: Some(bridge), tag, firewall, .. }) = nic else { continue };
            let is_guarded = bridge_guard(&inputs.registry, *bridge) != UplinkGuard::Off;
            if !(is_guarded && is_vlan_aware(inputs, *bridge)) {
                continue;
            }
            let trunks = Some(place.config.trunks(*id)).filter(|vlans| vlans.len() <= MANY_VLANS).unwrap_or_default();
            let outer = firewall.then(|| GuestKind::firewall_port(*vmid, *id));
            let ports: Vec<IfName> = [place.config.kind.port(*vmid, *id)].into_iter().chain(outer).collect();
            let vlans = tag.iter().chain(&trunks).filter(|vlan| places.is_elsewhere((*bridge, Some(**vlan))));
            for vlan in vlans {
                elements.extend(ports.iter().map(|port| Element::vlan_on_port(SetId::OtherVlans, *port, *vlan)));
            }
        }
    }
    elements
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::GuestConfig;
    use crate::links::{BridgeOptions, Link};
    use crate::plan::fixtures::{GUEST, OWN, inputs, shown};
    use crate::plan::{Presence, desired, strangers};
    use crate::registry::document::GuestFile;

    #[test]
    fn ports_without_addresses_are_what_their_bridge_makes_them() {
        let others = [
            OWN,
            (101, "net0: virtio=02:00:00:00:00:0B,bridge=vmbr0\nnet1: virtio=02:00:00:00:00:1B,bridge=vmbr2\n"),
            (102, "net0: virtio=02:00:00:00:00:0C,bridge=vmbr1\n"),
        ];
        let shown_ports =
            |inputs: &Inputs| shown(&desired(inputs).state, &[SetId::FreePorts, SetId::Elsewhere, SetId::RouterPorts]);
        let mut inputs = inputs(None, &others);
        assert_eq!(shown_ports(&inputs), ["elsewhere { tap101i1 }", "router_ports { tap102i0 }"]);

        // With a prefix and a second NIC, guest 100 is the router of vmbr2.
        let lan = "net0: virtio=02:00:00:00:00:0A,bridge=vmbr0\nnet1: virtio=02:00:00:00:00:1A,bridge=vmbr2\n";
        inputs.guests.get_mut(&"100".parse().unwrap()).unwrap().config =
            GuestConfig::parse(GuestKind::Qemu, lan.as_bytes());
        let file = GUEST.replace("203.0.113.10/32", "203.0.113.8/29");
        let guest: GuestFile = serde_json::from_str(&file).unwrap();
        inputs.registry.guests.insert(guest.vmid, guest);
        let shown = shown_ports(&inputs);
        assert_eq!(shown, ["free_ports { tap100i1 }", "free_ports { tap101i1 }", "router_ports { tap102i0 }"]);
    }

    #[test]
    fn in_vlans_without_a_pool_guests_are_elsewhere() {
        let mut inputs = inputs(
            Some(Presence::Running),
            &[
                (100, "net0: virtio=02:00:00:00:00:0A,bridge=vmbr0,tag=10\n"),
                (101, "net0: virtio=02:00:00:00:00:0B,bridge=vmbr0,tag=77\n"),
                (102, "net0: virtio=02:00:00:00:00:0C,bridge=vmbr0,tag=10\n"),
                (103, "net0: virtio=02:00:00:00:00:0D,bridge=vmbr0\n"),
                (104, "net0: virtio=02:00:00:00:00:0E,bridge=vmbr0,tag=77,firewall=1\n"),
                (105, "net0: virtio=02:00:00:00:00:0F,bridge=vmbr0,tag=77,trunks=1;10;78\n"),
                (106, "net0: virtio=02:00:00:00:00:10,bridge=vmbr0,tag=1\n"),
                // Guest 100 is a trunk for it.
                (107, "net0: virtio=02:00:00:00:00:11,bridge=vmbr0,tag=258\n"),
                (108, "net0: virtio=02:00:00:00:00:12,bridge=vmbr0,trunks=2-4094\n"),
            ],
        );
        let name = |text: &str| -> IfName { text.parse().unwrap() };
        inputs.links.0.get_mut(&name("vmbr0")).unwrap().bridge =
            Some(BridgeOptions { vlan_filtering: true, ..BridgeOptions::default() });
        let found = |inputs: &Inputs, set| shown(&desired(inputs).state, &[set]);
        assert_eq!(found(&inputs, SetId::Elsewhere), ["elsewhere { tap101i0 }", "elsewhere { tap104i0 }"]);
        let vlans = ["fwpr104p0 . 77", "tap101i0 . 77", "tap104i0 . 77", "tap105i0 . 77", "tap105i0 . 78"];
        assert_eq!(found(&inputs, SetId::OtherVlans), vlans.map(|vlan| format!("other_vlans {{ {vlan} }}")));
        let strangers: Vec<String> = strangers(&inputs).iter().map(|stranger| stranger.vmid.to_string()).collect();
        assert_eq!(strangers, ["102", "103", "106", "107", "108"]);

        // A bridge that is not VLAN-aware carries each VLAN by one of its own.
        inputs.links.0.get_mut(&name("vmbr0")).unwrap().bridge = Some(BridgeOptions::default());
        assert_eq!(found(&inputs, SetId::OtherVlans), Vec::<String>::new());
        for (port, bridge) in [("tap101i0", "vmbr0v77"), ("tap102i0", "vmbr0v10"), ("tap103i0", "vmbr0")] {
            let link = |master| Link { master, bridge: Some(BridgeOptions::default()), ..Link::default() };
            inputs.links.0.entry(name(bridge)).or_insert_with(|| link(None));
            inputs.links.0.insert(name(port), Link { bridge: None, ..link(Some(name(bridge))) });
        }
        let elsewhere = found(&inputs, SetId::Elsewhere);
        assert!(elsewhere.contains(&"elsewhere { tap101i0 }".to_owned()), "{elsewhere:?}");
        assert!(!elsewhere.iter().any(|port| port.contains("102") || port.contains("103")), "{elsewhere:?}");
        // On the pool's own bridge now, whatever its configuration says.
        inputs.links.0.get_mut(&name("tap101i0")).unwrap().master = Some(name("vmbr0"));
        assert!(!found(&inputs, SetId::Elsewhere).contains(&"elsewhere { tap101i0 }".to_owned()));
    }

    #[test]
    fn what_leads_to_other_networks_is_elsewhere() {
        let mut inputs = inputs(None, &[OWN]);
        let name = |text: &str| -> IfName { text.parse().unwrap() };
        let port = |bridge, kind: &str| Link { master: Some(name(bridge)), kind: kind.to_owned(), ..Link::default() };
        for (port, link) in [
            ("lan1", port("vmbr2", "")),
            ("eno2", port("vmbr2", "")),
            ("veth1a2b", port("vmbr2", "veth")),
            ("tap9i0", port("vmbr2", "tun")),
            ("lan2", port("vmbr0", "")),
        ] {
            inputs.links.0.insert(name(port), link);
        }
        let found = |inputs: &Inputs| shown(&desired(inputs).state, &[SetId::Elsewhere]);
        assert_eq!(found(&inputs), ["elsewhere { lan1 }"], "eno2 is an uplink by its name");
        inputs.registry.node = serde_json::from_str(r#"{"version":1,"uplinks":["lan2"]}"#).ok();
        assert_eq!(found(&inputs), ["elsewhere { eno2 }", "elsewhere { lan1 }"]);
        inputs.registry.lost_pools = Some(BTreeSet::new());
        assert_eq!(found(&inputs), Vec::<String>::new(), "a pool may be anywhere");
    }
}
