//! What one guest's assignments mean on a node: its port's whitelist, its claims, and how it is reached.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::inputs::{Inputs, Presence};
use super::state::{NetState, Route, Setting};
use super::support;
use super::uplink_guard::is_seen;
use super::watch;
use crate::guest::Nic;
use crate::model::{Family, GuestKind, IfName, MacAddr, NicId, Vmid};
use crate::registry::Registry;
use crate::registry::beside::known_macs;
use crate::registry::document::{Assigned, Enforce, GuestFile, Interface, Mode};
use crate::ruleset::{Element, SetId};

/// Adds what one guest's assignments mean on this node.
///
/// The MAC is always the registry's: if the guest's configuration says another, its frames are dropped.
pub(super) fn add_guest(inputs: &Inputs, guest: &GuestFile, state: &mut NetState) {
    // Whether it runs here or not, no other guest of this node may use its MAC.
    state.elements.extend(guest.interfaces.values().flat_map(Interface::all_macs).flat_map(Element::reserved_mac));
    let Some(presence) = inputs.presence.get(&guest.vmid) else { return };
    let Some(place) = inputs.guests.get(&guest.vmid) else { return };
    state.support.extend(support::support(inputs, guest));
    for (id, interface) in &guest.interfaces {
        let port = place.config.kind.port(guest.vmid, *id);
        state.elements.extend(port_elements(port, interface));
        if watch::enforce_of(&inputs.registry, interface) != Enforce::On {
            state.elements.insert(Element::port(SetId::WatchedBound, port));
        }
        if !hears_advertisements(&inputs.registry, interface) {
            state.elements.insert(Element::port(SetId::PortNoRa, port));
        }
        let pools = interface.addresses.iter().filter_map(|one| inputs.registry.pools.pools.get(&one.pool));
        for pool in pools.filter(|pool| is_seen(pool)) {
            state.elements.extend(known_macs(pool, interface).map(|mac| Element::mac(SetId::RegisteredMac, mac)));
        }
        if watch::enforce_of(&inputs.registry, interface) == Enforce::On {
            state.elements.extend(interface.also.iter().flat_map(|prefix| Element::inner(port, prefix.net())));
        }
        if *presence == Presence::Incoming {
            // The guest still speaks on the source node: its frames come in by the uplink.
            continue;
        }
        state.elements.extend(interface.own_macs().flat_map(Element::bound_mac));
        // What it shares is the node's share: other guests may need it after this one has gone.
        let shared = shared_nets(interface);
        let own = own_nets(interface).into_iter().filter(|net| !shared.contains(net));
        state.elements.extend(own.flat_map(Element::bound_address));
        if *presence == Presence::Running {
            let nic = place.config.nics.get(id).and_then(|nic| nic.as_ref().ok());
            add_reachability(inputs, guest.vmid, *id, interface, nic, port, state);
        }
    }
}

/// The port's whitelist.
fn port_elements(port: IfName, interface: &Interface) -> BTreeSet<Element> {
    let mut elements = BTreeSet::from([Element::port(SetId::Ports, port)]);
    elements.extend(interface.all_macs().flat_map(|mac| Element::port_mac(port, mac)));
    for net in own_nets(interface).into_iter().chain(interface.also.iter().map(|prefix| prefix.net())) {
        elements.extend(interface.all_macs().flat_map(|mac| Element::port_address(port, mac, net)));
        elements.extend(Element::port_group_address(port, net));
    }
    elements.extend(interface.trunk.iter().map(|vlan| Element::trunk(port, *vlan)));
    if interface.any_link_local {
        elements.extend(interface.all_macs().map(|mac| Element::mac_on_port(SetId::PortAnyLl, port, mac)));
    }
    if !interface.any_destination {
        elements.insert(Element::port(SetId::PortStrict, port));
    }
    if interface.dhcp == Some(false) {
        elements.insert(Element::port(SetId::PortNoDhcp, port));
    }
    elements
}

/// Whether router advertisements are delivered to a NIC. What its guest is told says no where each of its IPv6 addresses
/// has a gateway, or it has none: the address that it would make of the advertised prefix is not its own, and is dropped.
pub fn hears_advertisements(registry: &Registry, interface: &Interface) -> bool {
    let gateway = |assigned: &Assigned| {
        let pool = registry.pools.pools.get(&assigned.pool);
        assigned.gateway.or_else(|| pool.and_then(|pool| pool.gateway(assigned.address)))
    };
    let mut v6 = interface.addresses.iter().filter(|assigned| assigned.address.family() == Family::V6);
    interface.router_advertisements.unwrap_or_else(|| v6.any(|assigned| gateway(assigned).is_none()))
}

/// Everything that a NIC may use as a source: its addresses and its link-local ones.
pub(super) fn own_nets(interface: &Interface) -> BTreeSet<IpNet> {
    let link_local = own_link_locals(interface);
    interface
        .addresses
        .iter()
        .map(|assigned| assigned.address.net())
        .chain(link_local.map(|address| IpNet::from(IpAddr::V6(address))))
        .collect()
}

/// The link-local addresses that a NIC may use.
pub(super) fn own_link_locals(interface: &Interface) -> impl Iterator<Item = Ipv6Addr> {
    interface.link_local.iter().copied().chain(interface.own_macs().map(MacAddr::link_local))
}

/// Forwarding entry, neighbour and route of a running guest.
fn add_reachability(
    inputs: &Inputs,
    vmid: Vmid,
    id: NicId,
    interface: &Interface,
    nic: Option<&Nic>,
    port: IfName,
    state: &mut NetState,
) {
    let links = &inputs.links;
    for candidate in [port, GuestKind::firewall_port(vmid, id), GuestKind::firewall_link(vmid, id)] {
        if links.get(candidate).is_some_and(|link| link.master.is_some()) {
            state.screened_ports.insert(candidate);
        }
    }
    // Where it is not enforced, MAC and address may move to another port, as they do with virtual routers.
    let stays = watch::enforce_of(&inputs.registry, interface) == Enforce::On;
    for candidate in [port, GuestKind::firewall_port(vmid, id)].into_iter().filter(|_| stays) {
        if links.get(candidate).is_some_and(|link| link.master.is_some()) {
            // A virtual MAC moves with the master.
            for mac in interface.own_macs() {
                state.forwarding.insert((candidate, mac), interface.trunk.clone());
            }
        }
    }
    for assigned in interface.addresses.iter().filter(|assigned| assigned.shared.is_none()) {
        let Some(pool) = inputs.registry.pools.pools.get(&assigned.pool) else { continue };
        let Some(device) = links.segment(pool.bridge, nic.and_then(|nic| nic.tag)) else {
            continue;
        };
        let routed = pool.mode() == Mode::Routed;
        if routed && support::unfit(links, device).is_some() {
            continue;
        }
        let (net, family) = (assigned.address.net(), assigned.address.family());
        if let Some(address) = assigned.address.single() {
            if routed || stays && interface.vrrp.is_empty() && links.speaks(device, family) {
                state.neighbours.insert((device, address), interface.mac);
            }
        }
        if routed {
            let via = next_hop(interface, assigned);
            // An IPv4 address of its own is a neighbour already, if it is of a routed pool.
            let is_shared = |hop: IpAddr| {
                interface.addresses.iter().any(|one| one.shared.is_some() && one.address.single() == Some(hop))
            };
            let pinned = via.filter(|hop| (hop.is_ipv6() || assigned.via.is_some()) && !is_shared(*hop));
            state.neighbours.extend(pinned.map(|hop| ((device, hop), interface.mac)));
            state.routes.insert(net, Route { device, via });
        }
    }
}

fn net_of(assigned: &Assigned) -> IpNet {
    assigned.address.net()
}

/// Through which of its addresses a guest routes a prefix: the one that is named for it, else
/// - IPv6: its link-local address, which it always has;
/// - IPv4: its first single address; without one the prefix is taken to be on the bridge itself.
fn next_hop(interface: &Interface, assigned: &Assigned) -> Option<IpAddr> {
    if assigned.address.single().is_some() {
        return None;
    }
    assigned.via.or_else(|| match assigned.address.family() {
        Family::V6 => Some(IpAddr::V6(interface.mac.link_local())),
        Family::V4 => interface
            .addresses
            .iter()
            .filter(|one| one.address.family() == Family::V4 && one.shared.is_none())
            .find_map(|one| one.address.single()),
    })
}

/// What a NIC may use in turn with others' NICs: the addresses that it shares, and the link-local ones that are named for it
/// then, because a virtual router has one, too.
fn shared_nets(interface: &Interface) -> BTreeSet<IpNet> {
    let shared: BTreeSet<IpNet> = interface.addresses.iter().filter(|one| one.shared.is_some()).map(net_of).collect();
    let named = interface.link_local.iter().map(|address| IpNet::from(IpAddr::V6(*address)));
    if shared.is_empty() { shared } else { shared.into_iter().chain(named).collect() }
}

/// What several guests hold in turn, as far as one of them may have it on another node: there it speaks by right, and its
/// frames come in by the uplink.
pub(super) fn shared_elsewhere(inputs: &Inputs) -> BTreeSet<IpNet> {
    let elsewhere = |vmid: &Vmid| inputs.guests.get(vmid).is_some_and(|place| place.node != inputs.node);
    let others = inputs.registry.guests.iter().filter(|(vmid, guest)| guest.shares() && elsewhere(vmid));
    others.flat_map(|(_, guest)| guest.interfaces.values().flat_map(shared_nets)).collect()
}

/// Adds what guests of this node hold in turn with others. Their ports' whitelists are theirs; the rest follows whoever
/// has the address: neighbours are not pinned, so that the kernel believes who announces itself, and the filter lets nobody
/// do that but the members.
pub(super) fn add_shared(inputs: &Inputs, state: &mut NetState) {
    let elsewhere = shared_elsewhere(inputs);
    for (vmid, nic, interface, assigned) in inputs.registry.assignments() {
        let presence = inputs.presence.get(&vmid).filter(|presence| **presence != Presence::Incoming);
        let (Some(presence), Some(place), true) = (presence, inputs.guests.get(&vmid), assigned.shared.is_some())
        else {
            continue;
        };
        let net = net_of(assigned);
        let claimed = shared_nets(interface).into_iter().filter(|net| !elsewhere.contains(net));
        state.elements.extend(claimed.flat_map(Element::bound_address));
        let pool = inputs.registry.pools.pools.get(&assigned.pool).filter(|_| *presence == Presence::Running);
        let Some(pool) = pool else { continue };
        let Some(device) = inputs.links.segment(pool.bridge, place.config.tag(nic)) else { continue };
        if assigned.address.family() == Family::V4 {
            state.support.settings.insert(Setting::NeighbourLock(device));
        }
        if pool.mode() == Mode::Routed && support::unfit(&inputs.links, device).is_none() {
            // Of two members with hops of their own the first counts: they are to name the address that they share.
            state.routes.entry(net).or_insert(Route { device, via: next_hop(interface, assigned) });
        }
    }
}
