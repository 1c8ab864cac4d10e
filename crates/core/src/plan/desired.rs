//! What should be: from the inputs to the state of the network, without looking at the kernel.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use ipnet::IpNet;

use super::checks::{Index, check_guest, check_own, check_pending, wrong_node};
use super::guest_share::{add_guest, add_shared};
use super::inputs::{Inputs, Presence};
use super::routed;
use super::routers;
use super::segments::{Places, lost_bridges, pool_bridges, segments};
use super::state::{NetState, Rules};
use super::support;
use super::unbound::{other_vlans, unbound_elements};
use super::uplink_guard::{guard_elements, unregistered};
use super::uplinks::{keeps_mac, misnamed_uplinks, present_uplinks, uplink_elements};
use super::watch;
use crate::code;
use crate::links::{BridgeOptions, guest_of_port, is_guest_port, is_test_port};
use crate::model::address::{ranges4, ranges6};
use crate::model::{IfName, Prefix, Problem, Subject};
use crate::registry::document::{DocumentError, Enforce, GuestFile, Pool};
use crate::registry::{Registry, conflicts_among, misplaced, room};
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
    let mut desired = Desired { state: state(inputs), problems: Vec::new() };
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
    for guest in inputs.registry.guests.values() {
        desired.problems.extend(check_guest(inputs, &index, guest));
        desired.problems.extend(check_own(&own, guest));
    }
    desired.problems.extend(support::problems(inputs));
    desired.problems.extend(routers::problems(inputs));
    desired.problems.extend(misnamed_uplinks(inputs));
    desired
}

/// The state of the node and all its guests.
fn state(inputs: &Inputs) -> NetState {
    let mut state = filter(inputs);
    // What a pool is there for is done even if nothing is filtered because of it.
    if let Some(shown) = watch::limited(inputs, Enforce::Watch) {
        let all = std::mem::replace(&mut state, filter(&shown));
        state = NetState { neighbours: all.neighbours, routes: all.routes, support: all.support, ..state };
    }
    let enforced = watch::limited(inputs, Enforce::On);
    if let Some(enforced) = &enforced {
        let shown = watch::limited(inputs, Enforce::Watch);
        let shown = (shown.as_ref().unwrap_or(inputs), &state);
        let watched = watch::elements(shown, (enforced, &filter(enforced)));
        state.elements.extend(watched);
        if watch::is_nothing(&enforced.registry) {
            // Frames to the bridge's own groups stay the bridge's, as before.
            state.screened_ports.clear();
        }
    }
    if !inputs.registry.has_routed() {
        return state;
    }
    let mut routed = routed::node_share(inputs);
    if let Some(enforced) = &enforced {
        // What the node forwards for guests only is kept from others all the same.
        routed = Routed { kept6: routed.kept6, ..routed::node_share(enforced) };
    }
    let enforced = enforced.as_ref().unwrap_or(inputs);
    enforced.registry.guests.values().for_each(|guest| routed::guest_share(enforced, guest, &mut routed));
    routed::shared_share(enforced, &mut routed);
    match inputs.backend {
        Backend::Nftables => {
            state.routed_rules = Rules::Loaded;
            state.elements.extend(routed.elements());
        }
        Backend::Iptables { variant, ipset, ipv6 } => {
            (state.chains, state.ipsets) = routed.chains(variant, ipset, ipv6);
        }
    }
    state
}

/// The node's share and that of every guest, but for what filters routed traffic.
fn filter(inputs: &Inputs) -> NetState {
    let mut state = node_state(inputs);
    inputs.registry.guests.values().for_each(|guest| add_guest(inputs, guest, &mut state));
    add_shared(inputs, &mut state);
    state
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

/// One guest's share of the state: what its start and stop change. The node's share must be in place already.
pub fn desired_for(inputs: &Inputs, guest: &GuestFile) -> NetState {
    let mut state = NetState { rules: Rules::Loaded, ..NetState::default() };
    add_guest(inputs, guest, &mut state);
    let limited = |least| {
        let limited = watch::limited(inputs, least)?;
        let guest = limited.registry.guests.get(&guest.vmid).cloned().unwrap_or_else(|| GuestFile::new(guest.vmid));
        Some((limited, guest))
    };
    if let Some((shown, guest)) = limited(Enforce::Watch) {
        let mut filter = NetState::default();
        add_guest(&shown, &guest, &mut filter);
        state.elements = filter.elements;
        (state.screened_ports, state.forwarding) = (filter.screened_ports, filter.forwarding);
    }
    let enforced = limited(Enforce::On);
    if enforced.as_ref().is_some_and(|(enforced, _)| watch::is_nothing(&enforced.registry)) {
        state.screened_ports.clear();
    }
    let mut routed = Routed::default();
    match &enforced {
        Some((enforced, guest)) => routed::guest_share(enforced, guest, &mut routed),
        None => routed::guest_share(inputs, guest, &mut routed),
    }
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
    let macs = entries()
        .filter_map(|entry| entry.mac)
        .chain(assignments().flat_map(|(.., interface, _)| interface.all_macs()));
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
    // Mostly in order already, which only this way of sorting knows to use.
    list.sort();
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

/// What is as it should be, and may still surprise.
pub fn notes(inputs: &Inputs) -> Vec<Problem> {
    let own = pending(inputs).into_iter().chain(unregistered(inputs)).chain(support::notes(inputs));
    own.chain(watch::notes(&inputs.registry)).chain(elsewhere(inputs)).collect()
}

/// Guests of this node whose addresses work on another one, as far as their pools only warn of that.
fn elsewhere(inputs: &Inputs) -> Vec<Problem> {
    let Registry { pools, guests, .. } = &inputs.registry;
    if pools.pools.values().all(|pool| pool.serves(&inputs.node)) {
        return Vec::new();
    }
    let is_here = |guest: &&GuestFile| inputs.guests.get(&guest.vmid).is_some_and(|place| place.node == inputs.node);
    let found = guests.values().filter(is_here).flat_map(|guest| misplaced(pools, guest, &inputs.node));
    found.filter(|misplaced| !misplaced.is_refused()).map(|misplaced| wrong_node(&misplaced)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::Link;
    use crate::plan::fixtures::{OWN, inputs, shown};

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
}
