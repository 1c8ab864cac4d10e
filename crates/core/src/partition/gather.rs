//! From what Proxmox VE's files say to what a plan is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::document::Declared;
use super::sdn::Sdn;
use super::{Labels, Member, Network, Port, Used};
use crate::guest::{GuestConfig, Nic};
use crate::interfaces::{Interfaces, Kind};
use crate::links::is_guest_port;
use crate::model::{IfName, Vmid};
use crate::plan::{Inputs, Located, pool_bridges};

/// The network, by the guests of all nodes and the interfaces of this one.
pub fn gather(inputs: &Inputs, interfaces: &Interfaces, sdn: &Sdn, declared: &Declared) -> Network {
    let public = public_bridges(inputs, interfaces);
    let mut network = Network {
        used: used(inputs, interfaces, sdn),
        vlans: vlans(inputs, interfaces, sdn),
        bridges: bridges(inputs, interfaces, sdn),
        flows: declared.flows.clone(),
        public,
        ..Network::default()
    };
    let mut outside = Vec::new();
    for (vmid, place) in inputs.guests.iter().filter(|(_, place)| !place.config.template) {
        let member = member(*vmid, place, declared, &mut network.notes);
        let (out, behind): (Vec<&Port>, Vec<&Port>) =
            member.ports.iter().partition(|port| network.public.contains(&port.bridge));
        if !out.is_empty() && !behind.is_empty() {
            network.routers.insert(*vmid, member);
        } else if behind.is_empty() && member.labels == Labels::default() {
            outside.push(vmid.to_string());
        } else {
            network.members.insert(*vmid, member);
        }
    }
    if !outside.is_empty() {
        let guests = super::render::counted(&outside);
        network.notes.push(format!("not planned, because they are on public bridges only and have no label: {guests}"));
    }
    let unknown = declared.guests.keys().filter(|vmid| !inputs.guests.contains_key(vmid)).map(ToString::to_string);
    let unknown: Vec<String> = unknown.collect();
    if !unknown.is_empty() {
        network
            .notes
            .push(format!("the file has labels for guests that do not exist: {}", super::render::counted(&unknown)));
    }
    network
}

/// Bridges of pools, and those with a port that is no guest's.
fn public_bridges(inputs: &Inputs, interfaces: &Interfaces) -> BTreeSet<IfName> {
    let is_uplink = |port: &IfName| !is_guest_port(port.as_str());
    let described = interfaces.0.iter().filter(|(_, interface)| {
        matches!(interface.kind, Kind::Bridge | Kind::OpenVswitch) && interface.ports.iter().any(is_uplink)
    });
    let live = inputs.links.0.iter().filter(|(name, link)| {
        let is_firewall = name.as_str().starts_with("fwbr");
        link.bridge.is_some() && !is_firewall && inputs.links.ports(**name).any(|port| is_uplink(&port))
    });
    let named = described.map(|(name, _)| *name).chain(live.map(|(name, _)| *name));
    named.chain(pool_bridges(&inputs.registry)).collect()
}

fn member(vmid: Vmid, place: &Located, declared: &Declared, notes: &mut Vec<String>) -> Member {
    let (by_tags, ignored) = Labels::from_tags(place.config.line("tags").unwrap_or_default());
    let labels = declared.guests.get(&vmid).map_or(by_tags.clone(), |labels| by_tags.overridden_by(labels));
    for tag in ignored {
        notes.push(format!("guest {vmid} has a second tag of one kind, which has no effect: {tag}"));
    }
    Member { node: place.node.clone(), name: place.config.name.clone(), labels, ports: ports(&place.config) }
}

fn ports(config: &GuestConfig) -> Vec<Port> {
    let mut ports = Vec::new();
    for (nic, line) in &config.nics {
        let Ok(Nic { bridge: Some(bridge), tag, firewall, .. }) = line else { continue };
        let inside = config.ip_config(*nic).and_then(Result::ok).unwrap_or_default();
        let gateways = [inside.v4.gateway, inside.v6.gateway].into_iter().flatten().collect();
        let addresses = config.static_addresses(*nic);
        ports.push(Port { nic: *nic, bridge: *bridge, tag: *tag, firewall: *firewall, addresses, gateways });
    }
    ports
}

fn is_usable(net: &IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local() && !address.is_unspecified(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local() && !address.is_unspecified(),
    }
}

fn used(inputs: &Inputs, interfaces: &Interfaces, sdn: &Sdn) -> Vec<Used> {
    let node = &inputs.node;
    let mut used: BTreeSet<Used> = sdn.used.iter().cloned().collect();
    for (name, link) in &inputs.links.0 {
        used.extend(link.addresses.iter().map(|net| Used { net: *net, by: format!("{name} of node {node}") }));
    }
    for (name, interface) in &interfaces.0 {
        let nets = interface.addresses.iter().chain(&interface.routes);
        used.extend(nets.map(|net| Used { net: *net, by: format!("{name} of node {node}") }));
    }
    for (vmid, place) in &inputs.guests {
        for nic in place.config.nics.keys() {
            let nets = place.config.static_addresses(*nic).into_iter();
            used.extend(nets.map(|net| Used { net, by: format!("guest {vmid} {nic}") }));
        }
    }
    for (name, pool) in &inputs.registry.pools.pools {
        used.extend(pool.addresses.iter().map(|entry| Used { net: entry.address.net(), by: format!("pool {name}") }));
    }
    used.retain(|used| is_usable(&used.net) && used.net.prefix_len() > 0);
    used.into_iter().collect()
}

fn vlans(inputs: &Inputs, interfaces: &Interfaces, sdn: &Sdn) -> BTreeSet<u16> {
    let tags = inputs.guests.values().flat_map(|place| place.config.nics.values().flatten().filter_map(|nic| nic.tag));
    let names = inputs.links.0.keys().chain(interfaces.0.keys());
    // eno1.10, vmbr0.10, vmbr0v10.
    let of_name = |name: &IfName| {
        let name = name.as_str();
        let bridge = || name.strip_prefix("vmbr").and_then(|rest| rest.split_once('v')).map(|(_, id)| id);
        name.rsplit_once('.').map(|(_, id)| id).or_else(bridge)?.parse::<u16>().ok()
    };
    tags.chain(names.filter_map(of_name))
        .chain(sdn.vlans.iter().copied())
        .filter(|id| (1..=4094).contains(id))
        .collect()
}

fn bridges(inputs: &Inputs, interfaces: &Interfaces, sdn: &Sdn) -> BTreeMap<IfName, bool> {
    let described = interfaces.0.iter().filter(|(_, interface)| interface.kind == Kind::Bridge);
    let mut bridges: BTreeMap<IfName, bool> =
        described.map(|(name, interface)| (*name, interface.vlan_aware)).collect();
    for (name, link) in &inputs.links.0 {
        if let Some(options) = link.bridge {
            bridges.insert(*name, options.vlan_filtering);
        }
    }
    // A VNet is one VLAN: what is on it needs no tag.
    for vnet in &sdn.vnets {
        bridges.remove(vnet);
    }
    bridges
}
