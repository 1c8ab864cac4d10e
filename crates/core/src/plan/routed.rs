//! What the filter of routed traffic has to know: from the inputs.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::guest_share::shared_elsewhere;
use super::inputs::{Inputs, Presence};
use super::segments::{is_segment_of, segments};
use super::support;
use super::unbound::router_lans;
use super::uplinks::present_uplinks;
use crate::links::{Link, is_guest_port};
use crate::model::{IfName, MacAddr, Prefix, Vmid};
use crate::registry::Registry;
use crate::registry::document::{Assigned, GuestFile, Interface, Mode};
use crate::ruleset::Routed;

/// What does not depend on which guests run here.
pub(super) fn node_share(inputs: &Inputs) -> Routed {
    let mut routed = Routed::default();
    let pools = || inputs.registry.pools.pools.values().filter(|pool| pool.mode() == Mode::Routed);
    let bridges: BTreeSet<IfName> = pools().map(|pool| pool.bridge).collect();
    for segment in segments(inputs, &bridges) {
        let Some(link) = inputs.links.get(segment) else { continue };
        // A bridge in a VRF hands its packets on under the VRF's name, behind which the bridge's MAC says nothing.
        let vrf = link.master.filter(|_| link.bridge.is_some());
        if carries_uplink(inputs, segment) {
            routed.shared_bridges.extend([segment].into_iter().chain(vrf));
        } else {
            routed.routed_bridges.insert(segment, known_mac(link));
            routed.routed_bridges.extend(vrf.map(|vrf| (vrf, None)));
        }
    }
    let is_routed = |name: &IfName| routed.routed_bridges.contains_key(name);
    let lans = router_lans(inputs);
    let is_guests = |name: &IfName| is_guest_port(name.as_str()) || name.as_str().starts_with("fwbr");
    // Guests' ports and the bridges of their firewalls have addresses of their own where nobody has switched IPv6 off on them.
    let others = inputs.links.0.iter().filter(|(name, _)| !is_routed(name) && !is_guests(name));
    let ways6 = support::ways6(inputs);
    let is_needed = |name: &IfName| ways6.contains(name) || routed.shared_bridges.contains(name);
    let mut kept6 = BTreeMap::new();
    let is_bridge = |name: IfName| inputs.links.get(name).is_some_and(|link| link.bridge.is_some());
    for (name, link) in others {
        // What comes in by a port of a bridge comes in by the bridge.
        let is_kept = inputs.exits.forwards6_for_us && !is_needed(name) && !link.master.is_some_and(is_bridge);
        match (is_kept, &link.bridge) {
            (true, Some(_)) => kept6.extend(known_mac(link).map(|mac| (*name, Some(mac)))),
            (true, None) if name.as_str() != "lo" => drop(kept6.insert(*name, None)),
            _ => {}
        }
        let is_lan = || lans.iter().any(|lan| is_segment_of(*name, *lan));
        if link.bridge.is_some() && !carries_uplink(inputs, *name) {
            if is_lan() {
                routed.lan_bridges.insert(*name);
                continue;
            }
            routed.guest_bridges.insert(*name);
        } else if let (Some(mac), false) = (known_mac(link), link.addresses.is_empty()) {
            routed.loops.insert(*name, mac);
        }
    }
    routed.kept6 = kept6;
    let entries = pools().flat_map(|pool| pool.addresses.iter().map(|entry| entry.address));
    // An assignment stays protected even if its pool's entry was lost by hand.
    let assigned = inputs.registry.guests.values().flat_map(|guest| assigned(&inputs.registry, guest));
    let owned: Vec<IpNet> = entries.chain(assigned.map(|(_, assigned)| assigned.address)).map(Prefix::net).collect();
    routed.pools = IpNet::aggregate(&owned).into_iter().collect();
    routed
}

/// What one guest's assignments mean here.
pub(super) fn guest_share(inputs: &Inputs, guest: &GuestFile, routed: &mut Routed) {
    let Some(presence) = inputs.presence.get(&guest.vmid) else { return };
    for (interface, assigned) in assigned(&inputs.registry, guest) {
        let net = assigned.address.net();
        routed.from.extend(interface.all_macs().map(|mac| (net, mac)));
        // As long as it speaks on the node that it comes from, its packets come in from outside.
        if *presence != Presence::Incoming && assigned.shared.is_none() {
            routed.here.insert(net);
        }
    }
}

/// What guests of this node hold in turn, and nobody on another one: from outside it comes from nobody.
pub(super) fn shared_share(inputs: &Inputs, routed: &mut Routed) {
    let elsewhere = shared_elsewhere(inputs);
    let is_here = |vmid: &Vmid| inputs.presence.get(vmid).is_some_and(|presence| *presence != Presence::Incoming);
    for (_, guest) in inputs.registry.guests.iter().filter(|(vmid, _)| is_here(vmid)) {
        let shared = assigned(&inputs.registry, guest).filter(|(_, assigned)| assigned.shared.is_some());
        let nets = shared.map(|(_, assigned)| assigned.address.net());
        routed.here.extend(nets.filter(|net| !elsewhere.contains(net)));
    }
}

/// Whether a guest has addresses of routed pools.
pub(super) fn is_routed(registry: &Registry, guest: &GuestFile) -> bool {
    assigned(registry, guest).next().is_some()
}

/// A guest's assignments from routed pools.
fn assigned<'a>(registry: &'a Registry, guest: &'a GuestFile) -> impl Iterator<Item = (&'a Interface, &'a Assigned)> {
    let pool = |assigned: &Assigned| registry.pools.pools.get(&assigned.pool);
    let routed = move |assigned: &Assigned| pool(assigned).is_some_and(|pool| pool.mode() == Mode::Routed);
    guest.addresses().map(|(_, interface, assigned)| (interface, assigned)).filter(move |(_, one)| routed(one))
}

/// A bridge without ports has none.
fn known_mac(link: &Link) -> Option<MacAddr> {
    link.mac.filter(|mac| mac.octets() != [0; 6])
}

/// Whether frames of the provider come in there: by the bridge itself, or by the one whose VLAN this is.
fn carries_uplink(inputs: &Inputs, segment: IfName) -> bool {
    let base = segment.as_str().split_once('.').and_then(|(base, _)| base.parse().ok());
    !present_uplinks(inputs, &[Some(segment), base].into_iter().flatten().collect()).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::Links;
    use crate::model::Family;
    use crate::model::IfName;
    use crate::plan::{desired, desired_for};
    use crate::ruleset::{SetId, Table};
    use crate::selftest::topologies::TOPOLOGIES;

    fn inputs(links: &[(&str, Link)]) -> Inputs {
        let topology = TOPOLOGIES.iter().find(|topology| topology.name == "routed").unwrap();
        topology
            .inputs(Links(links.iter().map(|(name, link)| (name.parse().unwrap(), link.clone())).collect()))
            .unwrap()
    }

    fn bridge(mac: u8) -> Link {
        let mac = Some(MacAddr::from_octets([2, 0, 0, 0, 0, mac]));
        Link { bridge: Some(crate::links::BridgeOptions::default()), mac, ..Link::default() }
    }

    #[test]
    fn what_did_not_forward_by_ipv6_does_not_do_it_because_of_a_pool() {
        let card = || Link { mac: Some(MacAddr::from_octets([2, 0, 0, 0, 0, 9])), ..Link::default() };
        let mut inputs = inputs(&[
            ("lo", Link::default()),
            ("vmbr0", bridge(1)),
            ("tap100i0", port("vmbr0")),
            ("vmbr2", bridge(2)),
            ("tap200i0", port("vmbr2")),
            ("vmbr3", bridge(3)),
            ("eno2", port("vmbr3")),
            ("tap201i0", port("vmbr3")),
            ("vmbr4", Link { mac: None, ..bridge(4) }),
            ("eno1", card()),
            ("eno3", card()),
            ("wg0", Link::default()),
        ]);
        assert!(node_share(&inputs).kept6.is_empty(), "the administrator switched it on");
        inputs.exits.forwards6_for_us = true;
        let kept = |inputs: &Inputs| -> Vec<String> {
            let of = |(name, mac): (&IfName, &Option<MacAddr>)| {
                mac.map_or_else(|| name.to_string(), |mac| format!("{name} {mac}"))
            };
            node_share(inputs).kept6.iter().map(of).collect()
        };
        // vmbr0 is the pool's, and eno1 leads to the world.
        assert_eq!(kept(&inputs), ["eno3", "vmbr2 02:00:00:00:00:02", "vmbr3 02:00:00:00:00:03", "wg0"]);
        let to_world = |device: &str| crate::plan::DefaultRoute {
            device: device.parse().unwrap(),
            via: None,
            metric: 0,
            family: Family::V6,
        };
        inputs.exits.routes = vec![to_world("vmbr3")];
        assert_eq!(kept(&inputs), ["eno1", "eno3", "vmbr2 02:00:00:00:00:02", "wg0"]);
    }

    fn port(master: &str) -> Link {
        Link { master: master.parse().ok(), ..Link::default() }
    }

    fn names(names: &[&str]) -> BTreeSet<IfName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn bridges_are_told_apart_by_who_is_on_them() {
        let card = Link {
            mac: Some(MacAddr::from_octets([2, 0, 0, 0, 0, 9])),
            addresses: vec!["192.0.2.7/24".parse().unwrap()],
            ..Link::default()
        };
        let all = [
            ("vmbr0", bridge(1)),
            ("tap100i0", port("vmbr0")),
            ("vmbr1", bridge(2)),
            ("tap200i0", port("vmbr1")),
            ("vmbr2", bridge(3)),
            ("eno2", port("vmbr2")),
            ("fwbr100i0", bridge(4)),
            ("eno1", card),
            ("eno3", Link::default()),
        ];
        let found = node_share(&inputs(&all));
        assert_eq!(found.routed_bridges.keys().copied().collect::<BTreeSet<_>>(), names(&["vmbr0"]));
        assert_eq!(found.guest_bridges, names(&["vmbr1"]));
        assert_eq!(found.loops.keys().copied().collect::<BTreeSet<_>>(), names(&["eno1"]));
        assert_eq!(found.shared_bridges, names(&[]));

        let mut shared = inputs(&all);
        shared.links.0.insert("eno4".parse().unwrap(), port("vmbr0"));
        let found = node_share(&shared);
        assert_eq!((found.routed_bridges.len(), found.shared_bridges), (0, names(&["vmbr0"])));

        let mut in_vrf = inputs(&all);
        in_vrf.links.0.get_mut(&"vmbr0".parse().unwrap()).unwrap().master = "vrf_a".parse().ok();
        let found = node_share(&in_vrf).routed_bridges;
        assert_eq!(found.keys().copied().collect::<BTreeSet<_>>(), names(&["vmbr0", "vrf_a"]));
    }

    #[test]
    fn a_guest_that_comes_by_migration_may_send_and_is_not_yet_here() {
        let mut inputs = inputs(&[("vmbr0", bridge(1))]);
        let guest = inputs.registry.guests.values().next().unwrap().clone();
        let count = |inputs: &Inputs, set| {
            desired_for(inputs, &guest).elements.iter().filter(|element| element.set() == set).count()
        };
        assert_eq!((count(&inputs, SetId::FromIp4), count(&inputs, SetId::HereIp4)), (1, 1));
        inputs.presence.insert(guest.vmid, Presence::Incoming);
        assert_eq!((count(&inputs, SetId::FromIp4), count(&inputs, SetId::HereIp4)), (1, 0));
        inputs.presence.clear();
        assert_eq!((count(&inputs, SetId::FromIp4), count(&inputs, SetId::HereIp4)), (0, 0));
    }

    #[test]
    fn without_a_routed_pool_there_is_nothing() {
        for topology in TOPOLOGIES {
            let state = desired(&topology.inputs(Links::default()).unwrap()).state;
            let elements = state.elements.iter().filter(|element| element.set().table() == Table::Inet).count();
            let is_routed = topology.name == "routed";
            assert_eq!((elements > 0, state.routed_rules > crate::plan::Rules::Absent), (is_routed, is_routed));
        }
    }
}
