//! What should be: from the inputs to the state of the network, without looking at the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use ipnet::IpNet;

use super::checks::{Index, check_guest, check_own, check_pending};
use super::inputs::{Inputs, Presence};
use super::routed;
use super::routers;
use super::state::{NetState, Route, Rules};
use super::support;
use crate::code;
use crate::guest::Nic;
use crate::links::{BridgeOptions, Links, guest_of_port, is_guest_port, is_test_port};
use crate::model::address::{ranges4, ranges6};
use crate::model::{GuestKind, IfName, MacAddr, NicId, PoolName, Prefix, Problem, Subject, Vmid};
use crate::registry::document::{Assigned, DocumentError, GuestFile, Interface, Mode, Pool, UplinkGuard};
use crate::registry::{Registry, conflicts_among, room};
use crate::ruleset::{Backend, Element, Routed, SetId};

/// A decision: the state, and the assignments that cannot be realised.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// What the kernel should have.
    pub state: NetState,
    /// What stands in the way of an assignment.
    pub problems: Vec<Problem>,
}

/// Whether there is nothing to protect yet: no pool, no address, and no file that may speak of one.
pub fn is_idle(registry: &Registry) -> bool {
    registry.pools.pools.is_empty() && registry.broken.is_empty() && registry.assignments().next().is_none()
}

/// The whole node.
pub fn desired(inputs: &Inputs) -> Desired {
    let mut desired = Desired { state: node_state(inputs), problems: Vec::new() };
    desired.problems.extend(unreadable(inputs));
    for name in room::left_out(&inputs.registry) {
        let sentence =
            format!("pool `{name}` is too large for the filter: its addresses that nobody holds are not reserved");
        let hint = format!("make it smaller: `pve-public-ip pool remove {name} PREFIX`, then add only what guests get");
        desired.problems.push(Problem::new(code!("filter-full"), Subject::Pool(name.clone()), sentence, hint));
    }
    let (index, own) = (Index::new(&inputs.registry), inputs.links.by_address());
    for (guests, sentence) in conflicts_among(index.holders()) {
        let hint = "release one of them, or correct the file by hand".to_owned();
        let subject = guests.last().map_or(Subject::Node, |vmid| Subject::Guest(*vmid));
        desired.problems.push(Problem::new(code!("registry-conflict"), subject, sentence, hint));
    }
    let is_routing = inputs.registry.has_routed();
    let mut routed = if is_routing { routed::node_share(inputs) } else { Routed::default() };
    for guest in inputs.registry.guests.values() {
        add_guest(inputs, guest, &mut desired.state);
        routed::guest_share(inputs, guest, &mut routed);
        desired.problems.extend(check_guest(inputs, &index, guest));
        desired.problems.extend(check_own(&own, guest));
    }
    match inputs.backend {
        _ if !is_routing => {}
        Backend::Nftables => {
            desired.state.routed_rules = Rules::Loaded;
            desired.state.elements.extend(routed.elements());
        }
        Backend::Iptables { variant, ipset, ipv6 } => {
            (desired.state.chains, desired.state.ipsets) = routed.chains(variant, ipset, ipv6);
        }
    }
    desired.problems.extend(support::problems(inputs));
    desired.problems.extend(routers::problems(inputs));
    desired.problems.extend(misnamed_uplinks(inputs));
    desired
}

/// Files of the registry that cannot be used, and what counts as long as it is so.
fn unreadable(inputs: &Inputs) -> Vec<Problem> {
    let registry = &inputs.registry;
    let cut_off = lost_bridges(inputs);
    let counts = |path: &Path| {
        if registry.recalled.contains(path) {
            return "; as long as it is so, its last known good copy counts".to_owned();
        }
        let is_of_pools = path.ends_with("pools.json") || path.parent().is_some_and(|parent| parent.ends_with("pools"));
        if registry.lost_pools.is_none() || !is_of_pools {
            return String::new();
        }
        let names: Vec<&str> = cut_off.iter().map(IfName::as_str).collect();
        let bridges = if names.is_empty() { String::new() } else { format!(" of {}", names.join(", ")) };
        format!("; there is no copy of it, so guests without addresses are cut off from the uplinks{bridges}")
    };
    let problem = |error: &DocumentError| {
        let subject = Subject::File(error.path.display().to_string());
        Problem::new(code!("registry-broken"), subject, format!("{error}{}", counts(&error.path)), error.hint.clone())
    };
    registry.broken.iter().map(problem).collect()
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

/// One guest's share of the state: what its start and stop change. The node's share must be in place already.
pub fn desired_for(inputs: &Inputs, guest: &GuestFile) -> NetState {
    let mut state = NetState { rules: Rules::Loaded, ..NetState::default() };
    add_guest(inputs, guest, &mut state);
    let mut routed = Routed::default();
    routed::guest_share(inputs, guest, &mut routed);
    // Chains have an order, so that one guest's share of them cannot be told from the whole.
    if routed != Routed::default() && inputs.backend == Backend::Nftables {
        state.routed_rules = Rules::Loaded;
        state.elements.extend(routed.elements());
    }
    state
}

/// Whether a guest's routed traffic is filtered by chains, of which it has no share of its own.
pub fn is_filtered_by_chains(backend: Backend, registry: &Registry, guest: &GuestFile) -> bool {
    backend != Backend::Nftables && routed::is_routed(registry, guest)
}

/// What does not depend on which guests run here: pools, gateways, the node itself, uplinks.
fn node_state(inputs: &Inputs) -> NetState {
    let mut state = NetState { rules: Rules::Loaded, ..NetState::default() };
    let pools = &inputs.registry.pools.pools;
    // Written by hand, or by a release with larger sets: one pool that does not fit stops no other one.
    let left_out = room::left_out(&inputs.registry);
    let fitting = || pools.iter().filter(|(name, _)| !left_out.contains(name));
    let entries = || fitting().flat_map(|(_, pool)| &pool.addresses);
    let assignments = || inputs.registry.assignments();
    let bridges: BTreeSet<IfName> = pool_bridges(&inputs.registry).into_iter().chain(lost_bridges(inputs)).collect();
    let segments = segments(inputs, &bridges);
    let mut infra_macs = BTreeSet::new();

    for bridge in &segments {
        let Some(link) = inputs.links.get(*bridge) else { continue };
        // A bridge without ports has none.
        let mac = link.mac.filter(|mac| mac.octets() != [0; 6]);
        infra_macs.extend(mac);
        if link.bridge.is_some() {
            state.deaf_bridges.insert(*bridge);
            state.own_entries.extend(mac.map(|_| *bridge));
            if mac.is_some() && keeps_mac(inputs, *bridge) {
                state.fixed_macs.insert(*bridge);
            }
        }
    }
    for mac in pools.values().filter_map(|pool| pool.gateway_mac) {
        infra_macs.insert(mac);
        for uplink in present_uplinks(inputs, &segments) {
            let sets = [SetId::UplinkMac, SetId::HairpinMac];
            state.elements.extend(sets.map(|set| Element::mac_on_port(set, uplink, mac)));
        }
    }
    let learnt = routers::protected(inputs);
    for (mac, uplinks) in &learnt.macs {
        infra_macs.insert(*mac);
        for uplink in uplinks {
            let sets = [SetId::UplinkMac, SetId::HairpinMac];
            state.elements.extend(sets.map(|set| Element::mac_on_port(set, *uplink, *mac)));
        }
    }
    state.elements.extend(infra_macs.iter().copied().flat_map(Element::infra_mac));
    let infra = infrastructure_addresses(inputs, &segments, &learnt);
    state.elements.extend(infra.iter().copied().flat_map(Element::infra_address));

    // An assignment stays protected even if its pool's entry was lost by hand.
    let owned = entries().map(|entry| entry.address).chain(assignments().map(|(.., assigned)| assigned.address));
    let owned = sorted(owned.map(Prefix::net));
    let nobodys = held_by_nobody(&infra, &owned);
    state.elements.extend(nobodys.into_iter().flat_map(Element::elsewhere_address));
    let reserved = sorted(owned.into_iter().chain(infra.into_iter().map(IpNet::from)));
    let v4 = ranges4(reserved.iter().filter_map(|net| match net {
        IpNet::V4(net) => Some(*net),
        IpNet::V6(_) => None,
    }));
    let v6 = ranges6(reserved.iter().filter_map(|net| match net {
        // The rules look link-local addresses up one by one: they are never a range.
        IpNet::V6(net) => (!net.addr().is_unicast_link_local()).then_some(*net),
        IpNet::V4(_) => None,
    }));
    state.elements.extend(v4.into_iter().flat_map(|(first, last)| Element::reserved_range(first.into(), last.into())));
    state.elements.extend(v6.into_iter().flat_map(|(first, last)| Element::reserved_range(first.into(), last.into())));
    let macs = entries().filter_map(|entry| entry.mac).chain(assignments().map(|(.., interface, _)| interface.mac));
    let macs = sorted(macs);
    let nobodys = infra_macs.iter().copied().filter(|mac| macs.binary_search(mac).is_err());
    state.elements.extend(nobodys.flat_map(Element::elsewhere_mac));
    state.elements.extend(macs.into_iter().flat_map(Element::reserved_mac));

    state.elements.extend(broadcasts(inputs, &segments).into_iter().map(Element::broadcast));
    state.elements.extend(uplink_elements(inputs, &segments));
    let places = Places::of_pools(inputs);
    state.elements.extend(guard_elements(inputs, &places.segments(inputs)));
    state.elements.extend(other_vlans(inputs, &places));
    for (port, bridge) in guests_ports(inputs) {
        state.screened_ports.insert(port);
        state.elements.extend(bridge.spanning_tree.then(|| Element::port(SetId::Spanning, port)));
    }
    state.elements.extend(unbound_elements(inputs, &places));
    state
}

/// Ports of all bridges that are named like guests', but for those that the administrator calls uplinks.
fn guests_ports(inputs: &Inputs) -> impl Iterator<Item = (IfName, BridgeOptions)> {
    let named = inputs.registry.node.as_ref().and_then(|node| node.uplinks.as_ref());
    inputs.links.0.iter().filter_map(move |(name, link)| {
        let bridge = inputs.links.get(link.master?)?.bridge?;
        // A guest that comes by migration sends nothing here before it has come.
        let comes = guest_of_port(*name).is_some_and(|vmid| inputs.presence.get(&vmid) == Some(&Presence::Incoming));
        let is_guests = is_guest_port(name.as_str()) && !is_test_port(name.as_str()) && !comes;
        (is_guests && named.is_none_or(|named| !named.contains(name))).then_some((*name, bridge))
    })
}

/// Each once, in order: of a hundred thousand a list costs a tenth of a tree.
fn sorted<T: Ord>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut list: Vec<T> = all.collect();
    list.sort_unstable();
    list.dedup();
    list
}

/// Those of the addresses that are in none of the prefixes, which are sorted.
fn held_by_nobody(addresses: &BTreeSet<IpAddr>, owned: &[IpNet]) -> Vec<IpAddr> {
    let lengths: BTreeSet<u8> = owned.iter().map(IpNet::prefix_len).collect();
    let is_held = |address: &IpAddr| {
        let nets = lengths.iter().filter_map(|length| Some(IpNet::new(*address, *length).ok()?.trunc()));
        nets.into_iter().any(|net| owned.binary_search(&net).is_ok())
    };
    addresses.iter().copied().filter(|address| !is_held(address)).collect()
}

/// Addresses of the gateways and of the node, on whichever of its interfaces: who uses one on a pool's bridge gets what is
/// for the node. A gateway has a link-local address too, by which hosts may know it.
pub(super) fn infrastructure_addresses(
    inputs: &Inputs,
    segments: &BTreeSet<IfName>,
    learnt: &routers::Protected,
) -> BTreeSet<IpAddr> {
    let pools = || inputs.registry.pools.pools.values();
    let named = pools().filter_map(|pool| pool.gateway_mac).map(|mac| IpAddr::V6(mac.link_local()));
    let gateways = pools().flat_map(Pool::gateways).chain(named).chain(learnt.addresses.iter().copied());
    // Without a pool nobody is filtered, and nothing of the node is left in the sets.
    let own = if segments.is_empty() { Vec::new() } else { inputs.links.own_addresses(segments) };
    gateways.chain(own).collect()
}

/// Bridges that carry a pool.
pub fn pool_bridges(registry: &Registry) -> BTreeSet<IfName> {
    registry.pools.pools.values().map(|pool| pool.bridge).collect()
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

/// Names that the kernel and Proxmox VE give to links of the node itself. They are uplinks even if they come after the
/// last `apply` (a new card, a bond that is made anew), because taking the provider for a guest cuts the node off.
const UPLINK_STEMS: [&str; 5] = ["bond", "en", "eth", "team", "vlan"];

/// Whether an interface is named like a link of the node itself.
pub fn is_uplink_name(name: &str) -> bool {
    UPLINK_STEMS.iter().any(|stem| name.starts_with(stem))
}

/// Ports that lead to the provider: those that the administrator named, else what is named like a link of the node, and
/// every other port of a pool's bridge that is not named like a guest's.
fn uplink_elements(inputs: &Inputs, segments: &BTreeSet<IfName>) -> BTreeSet<Element> {
    if let Some(named) = inputs.registry.node.as_ref().and_then(|node| node.uplinks.as_ref()) {
        return named.iter().copied().map(Element::uplink).collect();
    }
    let others = present_uplinks(inputs, segments).into_iter().filter(|port| !is_uplink_name(port.as_str()));
    others.map(Element::uplink).chain(UPLINK_STEMS.map(Element::uplinks_named)).collect()
}

/// The uplinks that are plugged into a pool's bridge now.
pub(super) fn present_uplinks(inputs: &Inputs, segments: &BTreeSet<IfName>) -> BTreeSet<IfName> {
    let named = inputs.registry.node.as_ref().and_then(|node| node.uplinks.as_ref());
    let ports = segments.iter().flat_map(|bridge| inputs.links.ports(*bridge));
    let is_uplink = |port: &IfName| named.map_or(!is_guest_port(port.as_str()), |named| named.contains(port));
    ports.filter(is_uplink).collect()
}

/// Whether a bridge may keep the MAC that it has now. To the provider it is the node's, so next to an uplink it has to be
/// that of the uplink; and it may not be kept as long as an uplink may still come, which it does before any guest.
fn keeps_mac(inputs: &Inputs, bridge: IfName) -> bool {
    let uplinks = present_uplinks(inputs, &BTreeSet::from([bridge]));
    let is_other = |port: &IfName| uplinks.contains(port) || !is_guest_port(port.as_str());
    let (others, guests): (Vec<IfName>, Vec<IfName>) = inputs.links.ports(bridge).partition(is_other);
    let mac_of = |name: IfName| inputs.links.get(name).and_then(|link| link.mac);
    if others.is_empty() {
        return !guests.is_empty();
    }
    others.into_iter().any(|port| mac_of(port).is_some() && mac_of(port) == mac_of(bridge))
}

/// The uplinks of the bridge that this interface is, or is a VLAN of.
pub(super) fn uplinks_of(inputs: &Inputs, device: IfName) -> BTreeSet<IfName> {
    let base = device.as_str().split_once('.').and_then(|(base, _)| base.parse().ok());
    present_uplinks(inputs, &BTreeSet::from([base.unwrap_or(device)]))
}

/// Interfaces that this node's file names as uplinks, and that are part of something which is no bridge: what comes from the
/// provider comes in by that.
fn misnamed_uplinks(inputs: &Inputs) -> Vec<Problem> {
    let named = inputs.registry.node.as_ref().and_then(|node| node.uplinks.as_ref());
    let problem = |uplink: &IfName| {
        let (sentence, hint) = misnamed_uplink(&inputs.links, *uplink)?;
        Some(Problem::new(code!("uplink-misnamed"), Subject::Interface(*uplink), sentence, hint))
    };
    named.into_iter().flatten().filter_map(problem).collect()
}

/// Why an interface cannot be an uplink, and what to name instead; `None`: it is a port of a bridge, or is not there (yet).
pub fn misnamed_uplink(links: &Links, uplink: IfName) -> Option<(String, String)> {
    let master = links.get(uplink)?.master;
    let is_bridge = |name: IfName| links.get(name).is_some_and(|link| link.bridge.is_some());
    if master.is_some_and(is_bridge) {
        return None;
    }
    // A bond, or a VLAN on top of it, may be what is plugged into the bridge.
    let port = std::iter::successors(master, |name| links.get(*name).and_then(|link| link.master));
    let port = port.take(8).find(|name| links.get(*name).and_then(|link| link.master).is_some_and(is_bridge));
    let what = match master {
        Some(master) => format!("{uplink} is part of {master}, and no port of a bridge"),
        None => format!("{uplink} is no port of a bridge"),
    };
    let hint = match port {
        Some(port) => format!("`pve-public-ip node set --uplink {port}`"),
        None => "`pve-public-ip node set --any-uplink` knows the uplinks by their names".to_owned(),
    };
    Some((format!("the uplink {what}: what comes from the provider is not taken for that"), hint))
}

/// What the guards of the uplinks let through. Of several pools on one bridge the strictest decides.
fn guard_elements(inputs: &Inputs, segments: &BTreeSet<IfName>) -> BTreeSet<Element> {
    let registered = registered_macs(&inputs.registry);
    let mut elements: BTreeSet<Element> =
        registered.iter().map(|(_, mac)| Element::mac(SetId::RegisteredMac, *mac)).collect();
    if inputs.registry.lost_pools.is_some() {
        let assigned: BTreeSet<MacAddr> =
            inputs.registry.assignments().map(|(.., interface, _)| interface.mac).collect();
        elements.extend(assigned.iter().map(|mac| Element::mac(SetId::RegisteredMac, *mac)));
        for uplink in present_uplinks(inputs, segments) {
            elements.insert(Element::port(SetId::GuardEnforce, uplink));
            elements.extend(assigned.iter().map(|mac| Element::mac_on_port(SetId::UplinkRegistered, uplink, *mac)));
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
            let macs = registered.iter().filter(|(of, _)| *of == bridge);
            elements.extend(macs.map(|(_, mac)| Element::mac_on_port(SetId::UplinkRegistered, uplink, *mac)));
        }
    }
    elements
}

/// The strictest guard that a pool asks for on this bridge.
pub(super) fn bridge_guard(registry: &Registry, bridge: IfName) -> UplinkGuard {
    let pools = registry.pools.pools.values().filter(|pool| pool.bridge == bridge);
    pools.map(Pool::uplink_guard).max().unwrap_or(UplinkGuard::Off)
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
        let guard = pool.uplink_guard();
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

fn is_vlan_aware(inputs: &Inputs, bridge: IfName) -> bool {
    inputs.links.get(bridge).and_then(|link| link.bridge).is_some_and(|options| options.vlan_filtering)
}

/// Where a NIC is: its bridge, and its VLAN if it has a tag.
type At = (IfName, Option<u16>);

/// The VLAN of what is untagged, on a VLAN-aware bridge that nobody has told otherwise.
const DEFAULT_VLAN: u16 = 1;

/// Where pools are: their bridges, and the VLANs beside them in which guests of this node hold addresses. The VLANs of
/// others are none of a pool's business: no provider's address is in them.
pub(super) struct Places {
    bridges: BTreeSet<IfName>,
    vlans: BTreeSet<(IfName, u16)>,
    /// Nothing is known of the pools: they may be anywhere.
    lost: bool,
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
    fn segments(&self, inputs: &Inputs) -> BTreeSet<IfName> {
        let tagged = self.vlans.iter().filter_map(|(bridge, vlan)| inputs.links.segment(*bridge, Some(*vlan)));
        self.bridges.iter().copied().chain(tagged).collect()
    }

    /// Whether no pool is there.
    fn is_elsewhere(&self, (bridge, tag): At) -> bool {
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

/// VLANs for each NIC of which the guard is told: more are those of a NIC that may use any.
const MANY_VLANS: usize = 64;

/// The ports of guests on VLAN-aware bridges of pools, with the VLANs in which the administrator has put them and no pool
/// is. A guest that makes up a tag is not let out by it.
fn other_vlans(inputs: &Inputs, places: &Places) -> BTreeSet<Element> {
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

/// What is as it should be, and may still surprise.
pub fn notes(inputs: &Inputs) -> Vec<Problem> {
    pending(inputs).into_iter().chain(unregistered(inputs)).chain(support::notes(inputs)).collect()
}

/// Changes that wait for the next start of a guest of this node, and keep it from starting.
fn pending(inputs: &Inputs) -> Vec<Problem> {
    let waits = |guest: &&GuestFile| {
        let place = inputs.guests.get(&guest.vmid).filter(|place| place.node == inputs.node);
        !guest.is_empty() && place.is_some_and(|place| !place.config.pending.is_empty())
    };
    let mut concerned = inputs.registry.guests.values().filter(waits).peekable();
    // Every look comes here, and hardly ever waits anything.
    if concerned.peek().is_none() {
        return Vec::new();
    }
    let index = Index::new(&inputs.registry);
    let problems =
        |guest: &GuestFile| check_pending(&inputs.registry, &index, guest, &inputs.guests[&guest.vmid].config);
    concerned.flat_map(problems).collect()
}

/// NICs of this node's guests whose frames a guard keeps from the provider: no pool knows their MAC.
pub fn unregistered(inputs: &Inputs) -> Vec<Problem> {
    let pools = &inputs.registry.pools.pools;
    // Every look comes here: what most nodes do not need is not worked out.
    if pools.values().all(|pool| pool.uplink_guard() != UplinkGuard::Enforce) {
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
                macs.extend(pools.get(name).filter(|pool| is_seen(pool)).map(|pool| (pool.bridge, interface.mac)));
                last = Some(name);
            }
        }
    }
    macs
}

/// Whether the provider sees the MACs of the pool's guests.
fn is_seen(pool: &Pool) -> bool {
    pool.mode() == Mode::Bridged
}

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
        let mut pools = inputs.registry.pools.pools.values().filter(|pool| is_segment_of(port.bridge, pool.bridge));
        // Of two pools on one bridge both must allow it.
        pools.all(|pool| pool.guest_routers).then_some(Unbound::Router)
    };
    ports.iter().map(|port| (port.port, kind_of(port))).collect()
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

fn unbound_elements(inputs: &Inputs, places: &Places) -> BTreeSet<Element> {
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

/// `vmbr0`, or `vmbr0v10` of `vmbr0`.
pub fn is_segment_of(bridge: IfName, pool: IfName) -> bool {
    let rest = bridge.as_str().strip_prefix(pool.as_str());
    let tag = |rest: &str| rest.strip_prefix('v').is_some_and(|tag| tag.parse::<u16>().is_ok());
    rest.is_some_and(|rest| rest.is_empty() || tag(rest))
}

/// Adds what one guest's assignments mean on this node.
///
/// The MAC is always the registry's: if the guest's configuration says another, its frames are dropped.
fn add_guest(inputs: &Inputs, guest: &GuestFile, state: &mut NetState) {
    // Whether it runs here or not, no other guest of this node may use its MAC.
    state.elements.extend(guest.interfaces.values().flat_map(|interface| Element::reserved_mac(interface.mac)));
    let Some(presence) = inputs.presence.get(&guest.vmid) else { return };
    let Some(place) = inputs.guests.get(&guest.vmid) else { return };
    state.support.extend(support::support(inputs, guest));
    for (id, interface) in &guest.interfaces {
        let port = place.config.kind.port(guest.vmid, *id);
        state.elements.extend(port_elements(port, interface));
        if !hears_advertisements(&inputs.registry, interface) {
            state.elements.insert(Element::port(SetId::PortNoRa, port));
        }
        let mut pools = interface.addresses.iter().filter_map(|one| inputs.registry.pools.pools.get(&one.pool));
        if pools.any(is_seen) {
            state.elements.insert(Element::mac(SetId::RegisteredMac, interface.mac));
        }
        if *presence == Presence::Incoming {
            // The guest still speaks on the source node: its frames come in by the uplink.
            continue;
        }
        state.elements.extend(Element::bound_mac(interface.mac));
        state.elements.extend(own_nets(interface).into_iter().flat_map(Element::bound_address));
        if *presence == Presence::Running {
            let nic = place.config.nics.get(id).and_then(|nic| nic.as_ref().ok());
            add_reachability(inputs, guest.vmid, *id, interface, nic, port, state);
        }
    }
}

/// The port's whitelist.
fn port_elements(port: IfName, interface: &Interface) -> BTreeSet<Element> {
    let mut elements = BTreeSet::from([Element::port(SetId::Ports, port)]);
    elements.extend(Element::port_mac(port, interface.mac));
    for net in own_nets(interface) {
        elements.extend(Element::port_address(port, interface.mac, net));
        elements.extend(Element::port_group_address(port, net));
    }
    elements.extend(interface.trunk.iter().map(|vlan| Element::trunk(port, *vlan)));
    if interface.any_link_local {
        elements.insert(Element::mac_on_port(SetId::PortAnyLl, port, interface.mac));
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
    let mut v6 = interface.addresses.iter().filter(|assigned| assigned.address.family() == 6);
    interface.router_advertisements.unwrap_or_else(|| v6.any(|assigned| gateway(assigned).is_none()))
}

/// Broadcast addresses of the subnets that guests may be in, as far as no guest has them for its own.
pub(super) fn broadcasts(inputs: &Inputs, segments: &BTreeSet<IfName>) -> BTreeSet<Ipv4Addr> {
    let links = segments.iter().filter_map(|bridge| inputs.links.get(*bridge));
    let nodes = links.flat_map(|link| link.addresses.iter().copied());
    let entries = inputs.registry.pools.pools.values().flat_map(|pool| &pool.addresses);
    let nets = nodes.chain(entries.map(|entry| entry.address.net())).filter_map(|net| match net {
        IpNet::V4(net) if net.prefix_len() < 31 => Some(net.broadcast()),
        _ => None,
    });
    let mut broadcasts: BTreeSet<Ipv4Addr> = nets.collect();
    for (.., assigned) in inputs.registry.assignments() {
        if let Some(IpAddr::V4(address)) = assigned.address.single() {
            broadcasts.remove(&address);
        }
    }
    broadcasts
}

/// Everything that a NIC may use as a source: its addresses and its link-local ones.
pub(super) fn own_nets(interface: &Interface) -> BTreeSet<IpNet> {
    let link_local = interface.link_local.iter().copied().chain([interface.mac.link_local()]);
    interface
        .addresses
        .iter()
        .map(|assigned| assigned.address.net())
        .chain(link_local.map(|address| IpNet::from(IpAddr::V6(address))))
        .collect()
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
    for candidate in [port, GuestKind::firewall_port(vmid, id)] {
        if links.get(candidate).is_some_and(|link| link.master.is_some()) {
            state.forwarding.insert((candidate, interface.mac), interface.trunk.clone());
        }
    }
    for assigned in &interface.addresses {
        let Some(pool) = inputs.registry.pools.pools.get(&assigned.pool) else { continue };
        let Some(device) = links.segment(pool.bridge, nic.and_then(|nic| nic.tag)) else {
            continue;
        };
        let routed = pool.mode() == Mode::Routed;
        if routed && support::unfit(links, device).is_some() {
            continue;
        }
        let (net, is_v4) = (assigned.address.net(), assigned.address.family() == 4);
        if let Some(address) = assigned.address.single() {
            if routed || links.speaks(device, is_v4) {
                state.neighbours.insert((device, address), interface.mac);
            }
        }
        if routed {
            let via = if assigned.address.single().is_some() { None } else { next_hop(interface, is_v4) };
            if let Some(IpAddr::V6(hop)) = via {
                state.neighbours.insert((device, IpAddr::V6(hop)), interface.mac);
            }
            state.routes.insert(net, Route { device, via });
        }
    }
}

/// Through which of its own addresses a guest routes a prefix.
///
/// IPv6: its link-local address, which it always has. IPv4: its first single address; without one the prefix is taken
/// to be on the bridge itself.
fn next_hop(interface: &Interface, v4: bool) -> Option<IpAddr> {
    if !v4 {
        return Some(IpAddr::V6(interface.mac.link_local()));
    }
    let mut v4 = interface.addresses.iter().filter(|assigned| assigned.address.family() == 4);
    v4.find_map(|assigned: &Assigned| assigned.address.single())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::guest::GuestConfig;
    use crate::links::BridgeOptions;
    use crate::links::Link;
    use crate::links::Links;
    use crate::plan::Located;
    use crate::registry::document::PoolsFile;

    const POOLS: &str = r#"{"version":1,"pools":{
        "lan":{"profile":"generic-bridged","bridge":"vmbr0","gateway4":"203.0.113.1","addresses":[{"address":"203.0.113.8/29"}]},
        "net":{"profile":"generic-routed","bridge":"vmbr1","guest_routers":true,"addresses":[{"address":"2001:db8:1::/48"}]}}}"#;

    const GUEST: &str = r#"{"version":1,"vmid":100,"interfaces":{"net0":{"mac":"02:00:00:00:00:0a","trunk":[258],
        "any_link_local":true,"dhcp":false,"addresses":[
        {"address":"203.0.113.10/32","pool":"lan","assigned_at":"2026-11-22T10:00:00Z"}]}}}"#;

    /// A node `n1` with vmbr0 (uplinks eno1 and odd0), vmbr1, vmbr2 and these guests.
    fn inputs(presence: Option<Presence>, configs: &[(u32, &str)]) -> Inputs {
        let pools: PoolsFile = serde_json::from_str(POOLS).unwrap();
        let guest: GuestFile = serde_json::from_str(GUEST).unwrap();
        let name = |text: &str| -> IfName { text.parse().unwrap() };
        let bridge = Link { bridge: Some(BridgeOptions::default()), ..Link::default() };
        let port = Link { master: Some(name("vmbr0")), ..Link::default() };
        let mut links: BTreeMap<IfName, Link> =
            ["vmbr0", "vmbr1", "vmbr2"].into_iter().map(|text| (name(text), bridge.clone())).collect();
        links.extend(["eno1", "odd0", "tap100i0"].map(|text| (name(text), port.clone())));
        links.get_mut(&name("vmbr0")).unwrap().addresses = vec!["203.0.113.250/24".parse().unwrap()];
        let place = |text: &str| Located {
            node: "n1".parse().unwrap(),
            config: GuestConfig::parse(GuestKind::Qemu, text.as_bytes()),
        };
        let vmid = |number: u32| number.to_string().parse().unwrap();
        let registry = Registry { pools, guests: [(guest.vmid, guest.clone())].into(), ..Registry::default() };
        let guests = configs.iter().map(|(number, text)| (vmid(*number), place(text))).collect();
        Inputs {
            presence: presence.map(|presence| (guest.vmid, presence)).into_iter().collect(),
            links: Links(links),
            ..Inputs::new("n1".parse().unwrap(), registry, guests)
        }
    }

    fn shown(state: &NetState, sets: &[SetId]) -> Vec<String> {
        state.elements.iter().filter(|element| sets.contains(&element.set())).map(ToString::to_string).collect()
    }

    const OWN: (u32, &str) = (100, "net0: virtio=02:00:00:00:00:0A,bridge=vmbr0\n");

    #[test]
    fn a_bridge_keeps_only_a_mac_that_may_be_kept() {
        const UPLINKS: u8 = 1;
        let fixed = |bridge_mac: Option<u8>, ports: &[(&str, u8)], named: Option<&str>| {
            let mut inputs = inputs(None, &[]);
            let name = |text: &str| -> IfName { text.parse().unwrap() };
            let mac = |last| Some(MacAddr::from_octets([2, 0, 0, 0, 0, last]));
            let links = &mut inputs.links.0;
            links.retain(|_, link| link.master.is_none());
            links.get_mut(&name("vmbr0")).unwrap().mac = bridge_mac.and_then(mac);
            for (port, last) in ports {
                let link = Link { master: Some(name("vmbr0")), mac: mac(*last), ..Link::default() };
                links.insert(name(port), link);
            }
            inputs.registry.node = named
                .map(|uplink| serde_json::from_value(serde_json::json!({"version": 1, "uplinks": [uplink]})).unwrap());
            desired(&inputs).state.fixed_macs.contains(&name("vmbr0"))
        };
        let (eno1, eno2, tap) = (("eno1", UPLINKS), ("eno2", 2), ("tap100i0", 9));
        assert!(fixed(Some(UPLINKS), &[eno1, tap], None));
        assert!(fixed(Some(UPLINKS), &[eno1], None), "before any guest comes");
        assert!(fixed(Some(2), &[eno1, eno2], None), "one of its uplinks");
        assert!(!fixed(Some(9), &[eno1, tap], None), "the provider knows the uplink's MAC, not a guest's");
        assert!(!fixed(Some(7), &[], None), "the uplink may be on its way");
        assert!(fixed(Some(9), &[tap], None), "there is none");
        assert!(!fixed(None, &[tap], None));
        assert!(!fixed(Some(9), &[("veth5i0", 3), tap], Some("veth5i0")), "an uplink named like a guest's port");
        assert!(fixed(Some(3), &[("veth5i0", 3), tap], Some("veth5i0")));
    }

    #[test]
    fn a_running_guest_has_a_whitelist_a_claim_and_a_neighbour() {
        let state = desired(&inputs(Some(Presence::Running), &[OWN])).state;
        assert_eq!(
            shown(&state, &[SetId::Ports, SetId::PortIp4, SetId::PortNoDhcp, SetId::PortAnyLl, SetId::PortTrunk]),
            [
                "ports { tap100i0 }",
                "port_ip4 { tap100i0 . 01:00:00:00:00:00 . 203.0.113.10 }",
                "port_ip4 { tap100i0 . 02:00:00:00:00:0a . 203.0.113.10 }",
                "port_no_dhcp { tap100i0 }",
                "port_any_ll { tap100i0 . 02:00:00:00:00:0a }",
                "port_trunk { tap100i0 . 258 }",
            ]
        );
        assert_eq!(
            shown(&state, &[SetId::BoundMac, SetId::BoundIp4]),
            ["bound_mac { 02:00:00:00:00:0a }", "bound_ip4 { 203.0.113.10 }",]
        );
        assert_eq!((state.neighbours.len(), state.forwarding.len(), state.routes.len()), (1, 1, 0));
    }

    #[test]
    fn a_guest_that_comes_by_migration_is_filtered_but_claims_nothing_yet() {
        let state = desired(&inputs(Some(Presence::Incoming), &[OWN])).state;
        assert_eq!(shown(&state, &[SetId::Ports, SetId::BoundMac, SetId::BoundIp4]), ["ports { tap100i0 }"]);
        assert!(state.neighbours.is_empty() && state.forwarding.is_empty());
    }

    #[test]
    fn what_does_not_run_stays_reserved() {
        let state = desired(&inputs(None, &[OWN])).state;
        assert_eq!(shown(&state, &[SetId::Ports, SetId::BoundIp4]), Vec::<String>::new());
        assert_eq!(
            shown(&state, &[SetId::ReservedMac, SetId::ReservedIp4, SetId::ReservedIp424, SetId::ReservedIp632]),
            [
                "reserved_mac { 02:00:00:00:00:0a }",
                "reserved_ip4_24 { 203.0.113.0 }",
                "reserved_ip4 { 203.0.113.1 }",
                "reserved_ip4 { 203.0.113.8-203.0.113.15 }",
                "reserved_ip4 { 203.0.113.250 }",
                "reserved_ip6_32 { 2001:db8::/32 }",
            ]
        );
    }

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
    fn what_the_node_has_is_protected_where_pools_are() {
        let mut inputs = inputs(None, &[OWN]);
        let name = |text: &str| -> IfName { text.parse().unwrap() };
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
        let link = |list: &[&str]| Link { addresses: nets(list), ..Link::default() };
        inputs.links.0.get_mut(&name("vmbr2")).unwrap().addresses = nets(&["192.168.1.1/24", "fe80::5/64"]);
        inputs.links.0.get_mut(&name("vmbr1")).unwrap().addresses = nets(&["fe80::6/64"]);
        inputs.links.0.insert(name("lo"), link(&["127.0.0.1/8", "::1/128", "192.0.2.53/32"]));
        inputs.links.0.insert(name("wg0"), link(&["2001:db8:9::1/64", "203.0.113.9/32"]));
        let state = desired(&inputs).state;
        let own = ["192.0.2.53", "192.168.1.1", "203.0.113.1", "203.0.113.250"];
        let with = |set: &str, own: &[&str]| own.iter().map(|ip| format!("{set} {{ {ip} }}")).collect::<Vec<_>>();
        let in_pool = ["192.0.2.53", "192.168.1.1", "203.0.113.1", "203.0.113.9", "203.0.113.250"];
        assert_eq!(shown(&state, &[SetId::InfraIp4]), with("infra_ip4", &in_pool));
        assert_eq!(shown(&state, &[SetId::ElsewhereIp4]), with("elsewhere_ip4", &own));
        let own = ["2001:db8:9::1", "fe80::6"];
        assert_eq!(shown(&state, &[SetId::InfraIp6]), with("infra_ip6", &own));
        assert_eq!(shown(&state, &[SetId::ElsewhereIp6]), with("elsewhere_ip6", &own));
        let numbers = |set| state.elements.iter().filter(|element| element.set() == set).count();
        assert_eq!((numbers(SetId::ElsewhereNumber4), numbers(SetId::ElsewhereNd)), (4, 2));
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

    #[test]
    fn uplinks_are_known_by_name_by_place_or_by_decree() {
        let mut inputs = inputs(None, &[OWN]);
        let uplinks = |inputs: &Inputs| shown(&desired(inputs).state, &[SetId::Uplinks]).join(" ");
        assert_eq!(
            uplinks(&inputs),
            "uplinks { bond* } uplinks { en* } uplinks { eth* } uplinks { odd0 } uplinks { team* } uplinks { vlan* }"
        );
        inputs.registry.node = serde_json::from_str(r#"{"version":1,"uplinks":["odd0"]}"#).ok();
        assert_eq!(uplinks(&inputs), "uplinks { odd0 }");
    }
}
