//! What cannot work as it is drawn.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::{own_guests, segments};
use crate::guest::Nic;
use crate::interfaces::Interfaces;
use crate::model::{GuestKind, IfName, NicId, Prefix, Vmid};
use crate::plan::{Inputs, is_segment_of, macs_of_the_node, macs_of_two_nics, router_lans};
use crate::registry::document::PoolIndex;

/// A mistake in addresses or MACs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Flaw {
    /// Name that never changes.
    pub code: &'static str,
    /// What it is about.
    pub subject: String,
    /// What is wrong.
    pub sentence: String,
    /// What to do.
    pub remedy: String,
}

impl Flaw {
    fn new(code: &'static str, subject: impl std::fmt::Display, sentence: String, remedy: impl Into<String>) -> Self {
        Self { code, subject: subject.to_string(), sentence, remedy: remedy.into() }
    }
}

/// Looks for mistakes on this node, in a fixed order.
pub fn check(inputs: &Inputs, interfaces: &Interfaces) -> Vec<Flaw> {
    let mut flaws: Vec<Flaw> = broken(inputs).collect();
    flaws.extend(host_bits(interfaces));
    flaws.extend(overlaps(inputs));
    flaws.extend(guest_overlaps(inputs));
    flaws.extend(guest_gateways(inputs));
    flaws.extend(twice(inputs));
    flaws.extend(elsewhere(inputs));
    let guests = macs_of_two_nics(own_guests(inputs), &inputs.registry).into_iter();
    let shared = guests.chain(macs_of_the_node(own_guests(inputs), &inputs.links));
    flaws.extend(shared.map(|shared| Flaw::new("same-mac", shared.mac, shared.sentence, shared.remedy)));
    flaws
}

/// Pools that overlap or have host bits set are not taken: their file says so.
fn broken(inputs: &Inputs) -> impl Iterator<Item = Flaw> {
    let broken = inputs.registry.broken.iter();
    broken.map(|error| Flaw::new("registry-broken", error.path.display(), error.to_string(), error.hint.clone()))
}

fn host_bits(interfaces: &Interfaces) -> impl Iterator<Item = Flaw> {
    let routes =
        interfaces.0.iter().flat_map(|(name, interface)| interface.routes.iter().map(move |net| (*name, *net)));
    routes.filter(|(_, net)| net.addr() != net.network()).map(|(name, net)| {
        let sentence = format!("the route to {net} at {name} has host bits set: `ip route` refuses it");
        Flaw::new("host-bits", name, sentence, format!("write {} in /etc/network/interfaces", net.trunc()))
    })
}

/// The node's subnets, but for those that every interface has.
fn subnets(inputs: &Inputs) -> Vec<(IpNet, IfName)> {
    let is_usable = |net: &IpNet| match net.addr() {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    };
    let all = inputs.links.0.iter().flat_map(|(name, link)| link.addresses.iter().map(move |net| (*net, *name)));
    let mut all: Vec<(IpNet, IfName)> = all.filter(|(net, _)| is_usable(net)).collect();
    all.sort_unstable();
    all
}

fn overlap(one: &IpNet, two: &IpNet) -> bool {
    one.contains(&two.network()) || two.contains(&one.network())
}

fn overlaps(inputs: &Inputs) -> Vec<Flaw> {
    let mut subnets = subnets(inputs);
    // An address on its own leads nowhere else: a node that routes has its main address on every bridge.
    subnets.retain(|(net, _)| net.prefix_len() < net.max_prefix_len());
    let mut flaws = Vec::new();
    for (place, (one, first)) in subnets.iter().enumerate() {
        for (two, second) in subnets[place + 1..].iter().filter(|(two, second)| second != first && overlap(one, two)) {
            let sentence = format!("{one} of {first} and {two} of {second} overlap: the node reaches only one of them");
            flaws.push(Flaw::new("overlapping-subnets", first, sentence, "give one of them another prefix"));
        }
    }
    flaws
}

/// A guest with two NICs in one subnet answers by either.
fn guest_overlaps(inputs: &Inputs) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    for (vmid, place) in own_guests(inputs) {
        let config = &place.config;
        let nets: Vec<_> = config
            .nics
            .keys()
            .flat_map(|id| config.static_addresses(*id).into_iter().map(move |net| (*id, net)))
            .collect();
        for (index, (first, one)) in nets.iter().enumerate() {
            for (second, two) in nets[index + 1..].iter().filter(|(id, two)| id != first && overlap(one, two)) {
                let sentence = format!(
                    "guest {vmid} has {one} on {first} and {two} on {second}, which overlap: it answers by either NIC"
                );
                let remedy = format!("change one of them: `{} config {vmid}`", config.kind.tool());
                flaws.push(Flaw::new("overlapping-subnets", format!("guest {vmid}"), sentence, remedy));
            }
        }
    }
    flaws
}

/// What Proxmox VE tells a virtual machine has no word for on-link; to a container it says so by itself.
fn guest_gateways(inputs: &Inputs) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    for (vmid, place) in own_guests(inputs) {
        let config = &place.config;
        let told = config.kind == GuestKind::Qemu && !config.cloud_init_drives().is_empty();
        if !told || config.cicustom().contains_key("network") {
            continue;
        }
        for id in config.nics.keys() {
            let Some(Ok(inside)) = config.ip_config(*id) else { continue };
            for (net, gateway) in inside.static_gateways() {
                let is_link_local = matches!(gateway, IpAddr::V6(address) if address.is_unicast_link_local());
                if !net.contains(&gateway) && !is_link_local {
                    let sentence = format!(
                        "gateway {gateway} of guest {vmid} {id} is outside of {net}: by cloud-init alone it gets no default route"
                    );
                    let remedy = format!("`pve-public-ip assign {vmid} ...` tells the guest that it is on-link");
                    flaws.push(Flaw::new("gateway-outside", format!("guest {vmid}"), sentence, remedy));
                }
            }
        }
    }
    flaws
}

/// One address of a pool at two guests, wherever they are: assigned to one, or configured at both.
///
/// Who holds a prefix whole uses of it what it likes, and so do the guests behind it.
fn twice_public(inputs: &Inputs) -> Vec<Flaw> {
    let index = PoolIndex::new(&inputs.registry.pools);
    let lans = router_lans(inputs);
    let mut users: BTreeMap<IpAddr, BTreeMap<Vmid, NicId>> = BTreeMap::new();
    let holds = |vmid: &Vmid, address: IpAddr| {
        let guest = inputs.registry.guests.get(vmid);
        guest.is_some_and(|guest| guest.addresses().any(|(.., assigned)| assigned.address.single() == Some(address)))
    };
    for (vmid, id, _, assigned) in inputs.registry.assignments() {
        if let Some(address) = assigned.address.single() {
            let users = users.entry(address).or_default();
            // Guests of a group hold it in turn: the first stands for all.
            if assigned.shared.is_none() || users.is_empty() {
                users.entry(vmid).or_insert(id);
            }
        }
    }
    for (vmid, place) in &inputs.guests {
        for (id, nic) in &place.config.nics {
            let behind = matches!(nic, Ok(Nic { bridge: Some(bridge), .. }) if lans.contains(bridge));
            for net in place.config.static_addresses(*id).into_iter().filter(|_| !behind) {
                if index.pool_of(net.addr()).is_some() && !holds(vmid, net.addr()) {
                    users.entry(net.addr()).or_default().entry(*vmid).or_insert(*id);
                }
            }
        }
    }
    let shared = users.into_iter().filter(|(_, users)| users.len() > 1);
    let flaw = |(address, users): (IpAddr, BTreeMap<Vmid, NicId>)| {
        let holder = |vmid: &Vmid| holds(vmid, address);
        let verb = |vmid: &Vmid| if holder(vmid) { "is assigned to" } else { "is configured at" };
        let words: Vec<String> = users.iter().map(|(vmid, id)| format!("{} guest {vmid} {id}", verb(vmid))).collect();
        // Who only has it in his configuration gives way; of several the last.
        let other = users.keys().rfind(|vmid| !holder(vmid));
        let config = other.and_then(|vmid| Some((*vmid, &inputs.guests.get(vmid)?.config)));
        let remedy = match config.and_then(|(vmid, config)| Some((vmid, config, config.nic_with(address)?))) {
            Some((vmid, config, nic)) => {
                format!("take it out of the configuration of guest {vmid}: `{}`", config.without_address(vmid, nic))
            }
            None => format!(
                "`pve-public-ip release {} {address}`",
                users.keys().next_back().map(Vmid::to_string).unwrap_or_default()
            ),
        };
        Flaw::new("same-address", address, format!("{address} {}", words.join(" and ")), remedy)
    };
    shared.map(flaw).collect()
}

/// One address configured twice on one segment.
fn twice(inputs: &Inputs) -> Vec<Flaw> {
    let mut flaws = twice_public(inputs);
    let said: BTreeSet<String> = flaws.iter().map(|flaw| flaw.subject.clone()).collect();
    for ((bridge, tag), ports) in segments(inputs) {
        let mut users: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
        let node = inputs.links.segment(bridge, tag).and_then(|segment| inputs.links.get(segment));
        for net in node.into_iter().flat_map(|link| &link.addresses) {
            users.entry(net.addr()).or_default().push("the node".to_owned());
        }
        for (vmid, id) in ports {
            for net in inputs.guests[&vmid].config.static_addresses(id) {
                users.entry(net.addr()).or_default().push(format!("guest {vmid} {id}"));
            }
        }
        for (address, users) in users {
            let of_the_node = users.iter().any(|user| user == "the node");
            if users.len() < 2 || !of_the_node && said.contains(&address.to_string()) {
                continue;
            }
            let sentence = format!("{address} is configured on {bridge} for {}", users.join(" and "));
            flaws.push(Flaw::new("same-address", address, sentence, "give each an address of its own"));
        }
    }
    flaws
}

/// Addresses of a pool on another interface than its bridge.
fn elsewhere(inputs: &Inputs) -> Vec<Flaw> {
    let mut entries: Vec<(Prefix, IfName, &str)> = Vec::new();
    for (name, pool) in &inputs.registry.pools.pools {
        entries.extend(pool.addresses.iter().map(|entry| (entry.address, pool.bridge, name.as_str())));
    }
    entries.sort_unstable();
    let entry_of = |address: IpAddr| {
        let host = Prefix::host(address).ok()?;
        let before = entries.partition_point(|(prefix, ..)| prefix.first() <= address);
        entries[..before].last().filter(|(prefix, ..)| prefix.contains(host))
    };
    let mut flaws = Vec::new();
    for (net, device) in subnets(inputs) {
        if let Some((_, bridge, pool)) = entry_of(net.addr()).filter(|(_, bridge, _)| !is_of(device, *bridge)) {
            let sentence = format!("{net} of {device} is of pool `{pool}`, which is on {bridge}");
            let remedy = format!("`pve-public-ip pool remove {pool} {}`, or take it from {device}", net.addr());
            flaws.push(Flaw::new("pool-elsewhere", device, sentence, remedy));
        }
    }
    // Behind a guest that routes a prefix its addresses are used by right.
    let lans: BTreeSet<IfName> = router_lans(inputs);
    for (vmid, place) in own_guests(inputs) {
        for (id, nic) in &place.config.nics {
            let Ok(Nic { bridge: Some(device), .. }) = nic else { continue };
            for net in place.config.static_addresses(*id).into_iter().filter(|_| !lans.contains(device)) {
                if let Some((_, bridge, pool)) = entry_of(net.addr()).filter(|(_, bridge, _)| !is_of(*device, *bridge))
                {
                    flaws.push(stray(vmid, *device, net.addr(), *bridge, pool, place.config.kind));
                }
            }
        }
    }
    flaws
}

fn stray(vmid: Vmid, device: IfName, address: IpAddr, bridge: IfName, pool: &str, kind: GuestKind) -> Flaw {
    let sentence =
        format!("guest {vmid} is configured with {address} of pool `{pool}` on {device}, but the pool is on {bridge}");
    let remedy = format!("move the NIC to {bridge}, or change the address: `{} config {vmid}`", kind.tool());
    Flaw::new("pool-elsewhere", format!("guest {vmid}"), sentence, remedy)
}

/// Whether the device is the bridge, or what carries a VLAN of it.
fn is_of(device: IfName, bridge: IfName) -> bool {
    let vlan = device.as_str().strip_prefix(bridge.as_str()).is_some_and(|rest| rest.starts_with('.'));
    vlan || is_segment_of(device, bridge)
}
