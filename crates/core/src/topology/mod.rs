//! A node drawn: provider, uplinks, bridges, guests, and what lies behind guests that route.
//!
//! ```text
//!  registry, guests, interfaces --> draw() --> Map --+--> text, Mermaid, DOT
//!                               --> check()          |
//! ```

mod check;
mod render;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

pub use check::{Flaw, check};
pub use render::{dot, mermaid, text};
use serde::Serialize;

use crate::guest::Nic;
use crate::interfaces::{Interfaces, Kind as InterfaceKind};
use crate::links::Link;
use crate::links::Links;
use crate::links::is_guest_port;
use crate::model::{GuestKind, IfName, NicId, Vmid};
use crate::plan::{Inputs, is_uplink_name, pool_bridges};
use crate::registry::document::{Mode, Pool};

/// A drawing: items, and edges that lead away from the provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Map {
    /// What there is, in the order in which it was found.
    pub items: Vec<Item>,
    /// What hangs on what.
    pub edges: Vec<Edge>,
}

/// Something to draw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub title: String,
    /// What else there is to say of it.
    pub details: Vec<String>,
}

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Where the addresses come from.
    Provider,
    /// The node, as far as it routes.
    Node,
    /// An interface that leads to the provider.
    Uplink,
    /// A bridge.
    Bridge,
    /// A VLAN of a bridge.
    Vlan,
    /// A guest.
    Guest,
}

/// One item hangs on another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Edge {
    /// Index of the item that is nearer to the provider.
    pub from: usize,
    /// Index of the other one.
    pub to: usize,
    /// The NIC between them, if it is a guest's.
    pub nic: Option<String>,
}

/// A bridge, or a VLAN of it: `vmbr0v10`, which Proxmox VE makes for VLAN 10 of the plain bridge `vmbr0`, is that VLAN.
type Segment = (IfName, Option<u16>);

/// A NIC of a guest.
type Port = (Vmid, NicId);

/// By what an item is known while the map is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Provider,
    Node,
    Uplink(IfName),
    Segment(Segment),
    Guest(Vmid),
}

/// Draws this node. `interfaces` are what `/etc/network/interfaces` says beyond the links in `inputs`.
pub fn draw(inputs: &Inputs, interfaces: &Interfaces) -> Map {
    let mut drawing = Drawing {
        inputs,
        interfaces,
        ports: segments(inputs),
        map: Map::default(),
        indices: BTreeMap::new(),
        queue: VecDeque::new(),
        drawn: BTreeSet::new(),
    };
    for bridge in drawing.known_bridges() {
        if let segment @ (_, Some(_)) = drawing.canonical((bridge, None)) {
            drawing.ports.entry(segment).or_default();
        }
    }
    drawing.public_side();
    drawing.node();
    drawing.follow();
    for bridge in drawing.bridges() {
        drawing.item(Key::Segment((bridge, None)));
        drawing.follow();
    }
    for vmid in own_guests(inputs).map(|(vmid, _)| vmid).collect::<Vec<_>>() {
        drawing.item(Key::Guest(vmid));
    }
    drawing.map
}

/// The guests of this node.
fn own_guests(inputs: &Inputs) -> impl Iterator<Item = (Vmid, &crate::plan::Located)> {
    inputs.guests.iter().filter(|(_, place)| place.node == inputs.node).map(|(vmid, place)| (*vmid, place))
}

/// `vmbr0v10` as VLAN 10 of the bridge `vmbr0`, if it stands for that; the segment itself, if not.
///
/// Source: pve-common `PVE/Network.pm`: a VLAN-aware bridge has no such bridges beside it.
fn canonical(links: &Links, segment: Segment) -> Segment {
    let (bridge, tag) = segment;
    let stem = bridge.as_str().rsplit_once('v').and_then(|(stem, tag)| Some((stem.parse().ok()?, tag.parse().ok()?)));
    let is_plain = |name: IfName| links.get(name)?.bridge.map(|options| !options.vlan_filtering);
    match (stem, tag) {
        (Some((stem, tag)), None) if is_plain(stem) == Some(true) => (stem, Some(tag)),
        _ => segment,
    }
}

/// Who is on which bridge and VLAN.
fn segments(inputs: &Inputs) -> BTreeMap<Segment, Vec<Port>> {
    let mut found: BTreeMap<Segment, Vec<Port>> = BTreeMap::new();
    for (vmid, place) in own_guests(inputs) {
        for (id, nic) in &place.config.nics {
            if let Ok(Nic { bridge: Some(bridge), tag, .. }) = nic {
                found.entry(canonical(&inputs.links, (*bridge, *tag))).or_default().push((vmid, *id));
            }
        }
    }
    found
}

/// What was drawn so far.
struct Drawing<'a> {
    inputs: &'a Inputs,
    interfaces: &'a Interfaces,
    ports: BTreeMap<Segment, Vec<Port>>,
    map: Map,
    indices: BTreeMap<Key, usize>,
    /// Segments whose guests are not drawn yet.
    queue: VecDeque<Segment>,
    /// NICs that are drawn.
    drawn: BTreeSet<Port>,
}

impl Drawing<'_> {
    fn canonical(&self, segment: Segment) -> Segment {
        canonical(&self.inputs.links, segment)
    }

    /// Every bridge that somebody knows of, but for those of the NIC firewall.
    fn known_bridges(&self) -> BTreeSet<IfName> {
        let links = self.inputs.links.0.iter().filter(|(_, link)| link.bridge.is_some()).map(|(name, _)| *name);
        let described = self.interfaces.0.iter();
        let described = described
            .filter(|(_, interface)| matches!(interface.kind, InterfaceKind::Bridge | InterfaceKind::OpenVswitch))
            .map(|(name, _)| *name);
        let all = links.chain(described).chain(self.ports.keys().map(|(bridge, _)| *bridge));
        let mut bridges: BTreeSet<IfName> = all.chain(pool_bridges(&self.inputs.registry)).collect();
        bridges.retain(|bridge| !bridge.as_str().starts_with("fwbr"));
        bridges
    }

    /// The same, but for those that are VLANs of others.
    fn bridges(&self) -> BTreeSet<IfName> {
        let known = self.known_bridges().into_iter();
        known.filter(|bridge| self.canonical((*bridge, None)) == (*bridge, None)).collect()
    }

    /// Ports of a bridge that lead to the provider.
    fn uplinks(&self, bridge: IfName) -> BTreeSet<IfName> {
        let named = self.inputs.registry.node.as_ref().and_then(|node| node.uplinks.as_ref());
        let described = self.interfaces.0.get(&bridge).map(|interface| interface.ports.clone()).unwrap_or_default();
        let ports = self.inputs.links.ports(bridge).chain(described);
        let is_uplink = |port: &IfName| named.map_or(!is_guest_port(port.as_str()), |named| named.contains(port));
        ports.filter(is_uplink).collect()
    }

    fn link(&self, name: IfName) -> Option<&Link> {
        self.inputs.links.get(name)
    }

    /// Addresses of the node on an interface, but for link-local ones.
    fn node_addresses(&self, name: IfName) -> Vec<String> {
        let addresses = self.link(name).map(|link| link.addresses.as_slice()).unwrap_or_default();
        let usable = addresses.iter().filter(|net| match net.addr() {
            IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
            IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
        });
        let mut shown: Vec<String> = usable.map(ToString::to_string).collect();
        shown.sort_unstable();
        shown
    }

    /// The item of a key; made, if it is not there yet.
    fn item(&mut self, key: Key) -> usize {
        if let Some(index) = self.indices.get(&key) {
            return *index;
        }
        let item = match key {
            Key::Provider => Item { kind: Kind::Provider, title: "provider".to_owned(), details: Vec::new() },
            Key::Node => Item { kind: Kind::Node, title: format!("node {}", self.inputs.node), details: Vec::new() },
            Key::Uplink(name) => self.uplink_item(name),
            Key::Segment((bridge, None)) => self.bridge_item(bridge),
            Key::Segment((bridge, Some(tag))) => self.vlan_item(bridge, tag),
            Key::Guest(vmid) => self.guest_item(vmid),
        };
        let index = self.map.items.len();
        self.map.items.push(item);
        self.indices.insert(key, index);
        if let Key::Segment(segment) = key {
            self.queue.push_back(segment);
        }
        index
    }

    fn edge(&mut self, from: Key, to: Key, nic: Option<String>) {
        let (from, to) = (self.item(from), self.item(to));
        self.map.edges.push(Edge { from, to, nic });
    }

    fn uplink_item(&self, name: IfName) -> Item {
        let members: BTreeSet<IfName> = self
            .interfaces
            .0
            .get(&name)
            .map(|interface| interface.ports.clone())
            .unwrap_or_default()
            .into_iter()
            .chain(self.inputs.links.ports(name))
            .collect();
        let mut details = self.node_addresses(name);
        if !members.is_empty() {
            details.push(format!("of {}", members.iter().map(IfName::as_str).collect::<Vec<_>>().join(", ")));
        }
        Item { kind: Kind::Uplink, title: name.to_string(), details }
    }

    fn bridge_item(&self, bridge: IfName) -> Item {
        let link = self.link(bridge);
        let described = self.interfaces.0.get(&bridge).map(|interface| &interface.kind);
        let mut details = Vec::new();
        if described == Some(&InterfaceKind::OpenVswitch) {
            details.push("Open vSwitch: not protected".to_owned());
        } else if link.is_none() && described.is_none() {
            details.push("does not exist".to_owned());
        }
        if link.and_then(|link| link.bridge).is_some_and(|options| options.vlan_filtering) {
            details.push("VLAN-aware".to_owned());
        }
        details.extend(self.own_lines(bridge));
        Item { kind: Kind::Bridge, title: bridge.to_string(), details }
    }

    fn vlan_item(&self, bridge: IfName, tag: u16) -> Item {
        let mut details = Vec::new();
        if let Some(device) = self.inputs.links.segment(bridge, Some(tag)) {
            if self.link(device).is_some_and(|link| link.bridge.is_some()) {
                let uplinks = self.uplinks(device);
                let by: Vec<&str> = uplinks.iter().map(IfName::as_str).collect();
                let by = if by.is_empty() { String::new() } else { format!(", uplink {}", by.join(", ")) };
                details.push(format!("bridge {device}{by}"));
            }
            details.extend(self.own_lines(device));
        }
        Item { kind: Kind::Vlan, title: format!("{bridge} VLAN {tag}"), details }
    }

    /// What the node has on a bridge: its addresses and pools.
    fn own_lines(&self, bridge: IfName) -> Vec<String> {
        let addresses = self.node_addresses(bridge).into_iter().map(|address| format!("node {address}"));
        let pools = self.inputs.registry.pools.pools.iter().filter(|(_, pool)| pool.bridge == bridge);
        addresses.chain(pools.map(|(name, pool)| format!("pool {name}: {}", pool_text(pool)))).collect()
    }

    fn guest_item(&self, vmid: Vmid) -> Item {
        let config = &self.inputs.guests[&vmid].config;
        let name = config.name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
        let mut details = Vec::new();
        if config.kind == GuestKind::Lxc {
            details.push("container".to_owned());
        }
        if config.template {
            details.push("template".to_owned());
        }
        for (id, nic) in &config.nics {
            match nic {
                Err(error) => details.push(format!("{id} is not understood: {error}")),
                Ok(Nic { bridge: None, .. }) => details.push(format!("{id} is on no bridge")),
                Ok(_) => {}
            }
        }
        Item { kind: Kind::Guest, title: format!("guest {vmid}{name}"), details }
    }

    /// `net0 tap100i0 02:00:00:00:00:64: 203.0.113.10 (ovh-rbx), configured 10.0.0.2/24`.
    fn nic_text(&self, (vmid, id): Port) -> String {
        let config = &self.inputs.guests[&vmid].config;
        let mac = config.nics.get(&id).and_then(|nic| nic.as_ref().ok()?.mac);
        let mac = mac.map_or_else(|| "no fixed MAC".to_owned(), |mac| mac.to_string());
        let held = self.inputs.registry.guests.get(&vmid).and_then(|guest| guest.interfaces.get(&id));
        let mut said: Vec<String> = held
            .iter()
            .flat_map(|interface| &interface.addresses)
            .map(|assigned| format!("{} ({})", assigned.address, assigned.pool))
            .collect();
        let covered = |net: &ipnet::IpNet| {
            held.iter().flat_map(|held| &held.addresses).any(|assigned| assigned.address.net().contains(&net.addr()))
        };
        let own = config.static_addresses(id).into_iter().filter(|net| !covered(net));
        said.extend(own.map(|net| net.to_string()));
        let separator = if said.is_empty() { "" } else { ": " };
        format!("{id} {} {mac}{separator}{}", config.kind.port(vmid, id), said.join(", "))
    }

    /// Provider, uplinks and the bridges that have some.
    fn public_side(&mut self) {
        for bridge in self.bridges() {
            for uplink in self.uplinks(bridge) {
                self.edge_once(Key::Provider, Key::Uplink(uplink));
                self.edge(Key::Uplink(uplink), Key::Segment((bridge, None)), None);
            }
        }
        let bare = self
            .inputs
            .links
            .0
            .iter()
            .filter(|(name, link)| link.master.is_none() && link.bridge.is_none() && is_uplink_name(name.as_str()));
        for name in bare.map(|(name, _)| *name).collect::<Vec<_>>() {
            if !self.node_addresses(name).is_empty() {
                self.edge_once(Key::Provider, Key::Uplink(name));
                self.edge(Key::Uplink(name), Key::Node, None);
            }
        }
    }

    /// An uplink with several bridges (by VLANs of its own) hangs on the provider once.
    fn edge_once(&mut self, from: Key, to: Key) {
        if !self.indices.contains_key(&to) {
            self.edge(from, to, None);
        }
    }

    /// The node, if it routes to bridges that have no uplink of their own.
    fn node(&mut self) {
        let routed = |pool: &Pool, bridge| pool.bridge == bridge && pool.mode() == Mode::Routed;
        let (public, others): (Vec<IfName>, Vec<IfName>) =
            self.bridges().into_iter().partition(|bridge| self.indices.contains_key(&Key::Segment((*bridge, None))));
        let pools: Vec<&Pool> = self.inputs.registry.pools.pools.values().collect();
        let is_behind = |bridge: &IfName| {
            !self.node_addresses(*bridge).is_empty() || pools.iter().any(|pool| routed(pool, *bridge))
        };
        let behind: Vec<IfName> = others.into_iter().filter(is_behind).collect();
        let spoken: Vec<IfName> =
            public.into_iter().filter(|bridge| !self.node_addresses(*bridge).is_empty()).collect();
        if behind.is_empty() {
            return;
        }
        for bridge in spoken {
            self.edge(Key::Segment((bridge, None)), Key::Node, None);
        }
        for bridge in behind {
            self.edge(Key::Node, Key::Segment((bridge, None)), None);
        }
    }

    /// Draws the guests of every segment that is drawn, and what lies behind those that have NICs elsewhere.
    fn follow(&mut self) {
        while let Some((bridge, tag)) = self.queue.pop_front() {
            let segment = Key::Segment((bridge, tag));
            let is_inside = |of: &&Segment| of.1.is_some() && self.canonical((of.0, None)) == (bridge, tag);
            for vlan in self.ports.keys().filter(is_inside).copied().collect::<Vec<_>>() {
                self.edge_once(segment, Key::Segment(vlan));
            }
            for port in self.ports.get(&(bridge, tag)).cloned().unwrap_or_default() {
                if self.drawn.insert(port) {
                    let text = self.nic_text(port);
                    self.edge(segment, Key::Guest(port.0), Some(text));
                    self.behind(port.0);
                }
            }
        }
    }

    /// Segments that only this guest leads to, so far.
    fn behind(&mut self, vmid: Vmid) {
        let nics: Vec<(NicId, Segment)> = self.inputs.guests[&vmid]
            .config
            .nics
            .iter()
            .filter_map(|(id, nic)| nic.as_ref().ok().and_then(|nic| Some((*id, (nic.bridge?, nic.tag)))))
            .map(|(id, segment)| (id, self.canonical(segment)))
            .collect();
        for (id, segment) in nics {
            // A VLAN hangs on its bridge, whoever is in it.
            let base = self.canonical((segment.0, None));
            if !self.indices.contains_key(&Key::Segment(base)) && self.drawn.insert((vmid, id)) {
                let text = self.nic_text((vmid, id));
                self.edge(Key::Guest(vmid), Key::Segment(base), Some(text));
                if segment != base {
                    self.edge_once(Key::Segment(base), Key::Segment(segment));
                }
            }
        }
    }
}

fn pool_text(pool: &Pool) -> String {
    let gateways = [pool.gateway4.map(IpAddr::from), pool.gateway6.map(IpAddr::from)].into_iter().flatten();
    let gateways: Vec<String> = gateways.map(|gateway| gateway.to_string()).collect();
    let gateway = if gateways.is_empty() { String::new() } else { format!(", gateway {}", gateways.join(" and ")) };
    format!("{}{gateway}", pool.profile_name())
}
