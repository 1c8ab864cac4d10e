//! What routed guests need of the node around them: forwarding, a gateway on their bridge, and where the provider asks
//! for their addresses on the wire, somebody who answers.
//!
//! All of it is there only while a guest runs that needs it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::inputs::{Inputs, Presence};
use super::state::{Setting, Support};
use crate::code;
use crate::links::{Link, Links, OPEN_VSWITCH};
use crate::model::{Family, IfName, MacAddr, PoolName, Prefix, Problem, Subject};
use crate::registry::document::{GuestFile, Mode, Pool};

/// The node answers for each address of a prefix by itself; of a shorter one there would be a flood of entries.
const SHORTEST_PROXIED: u8 = 24;

/// An address that is routed to a guest, or would be.
struct Routed<'a> {
    name: &'a PoolName,
    pool: &'a Pool,
    address: Prefix,
    gateway: Option<IpAddr>,
    device: IfName,
    /// The bridge of the NIC firewall that it is behind.
    firewall: Option<IfName>,
}

impl Routed<'_> {
    fn family(&self) -> Family {
        self.address.family()
    }
}

/// The routed addresses of a guest, as far as their bridge is here and fit for it.
fn routed<'a>(inputs: &'a Inputs, guest: &'a GuestFile) -> impl Iterator<Item = Routed<'a>> {
    let config = inputs.guests.get(&guest.vmid).map(|place| &place.config);
    guest.addresses().filter_map(move |(nic, _, assigned)| {
        let (name, pool) = inputs.registry.pools.pools.get_key_value(&assigned.pool)?;
        if pool.mode() != Mode::Routed {
            return None;
        }
        let tag = config?.tag(nic);
        let device = inputs.links.segment(pool.bridge, tag)?;
        let address = assigned.address;
        let gateway = assigned.gateway.or_else(|| pool.gateway(address));
        let port = inputs.links.get(config?.kind.port(guest.vmid, nic));
        let firewall = port.and_then(|port| port.master).filter(|bridge| bridge.as_str().starts_with("fwbr"));
        unfit(&inputs.links, device).is_none().then_some(Routed { name, pool, address, gateway, device, firewall })
    })
}

/// What a guest needs, if it runs here.
pub fn support(inputs: &Inputs, guest: &GuestFile) -> Support {
    let mut support = Support::default();
    if inputs.presence.get(&guest.vmid) != Some(&Presence::Running) {
        return support;
    }
    for one in routed(inputs, guest) {
        add_needs(inputs, &one, &mut support);
    }
    support
}

/// Gateways that the node is for a guest that runs here: the guest's port, the MAC at which it has to look for them, and
/// the address.
pub fn gateways_here(inputs: &Inputs, guest: &GuestFile) -> BTreeSet<(IfName, MacAddr, IpAddr)> {
    let Some(config) = inputs.guests.get(&guest.vmid).map(|place| &place.config) else { return BTreeSet::new() };
    let ours = support(inputs, guest).gateways;
    let here = guest.addresses().filter_map(|(nic, _, assigned)| {
        let pool = inputs.registry.pools.pools.get(&assigned.pool)?;
        let device = inputs.links.segment(pool.bridge, config.tag(nic))?;
        let link = inputs.links.get(device)?;
        let gateway = assigned.gateway.or_else(|| pool.gateway(assigned.address))?;
        let is_here = ours.contains(&(device, gateway))
            || link.gateways.contains(&gateway)
            || link.addresses.iter().any(|net| net.addr() == gateway);
        let port = config.kind.port(guest.vmid, nic);
        (is_here && inputs.links.get(port).is_some()).then_some((port, link.mac?, gateway))
    });
    here.collect()
}

fn add_needs(inputs: &Inputs, one: &Routed<'_>, support: &mut Support) {
    let uplinks = uplinks(inputs, one.family());
    let ways = ways(inputs, one.family()).into_iter().chain(uplinks.iter().copied()).chain([one.device]);
    if one.family() == Family::V4 {
        support.settings.extend(ways.map(Setting::Forwarding4));
        support.settings.extend(one.firewall.map(Setting::ArpIgnore));
    } else {
        support.settings.extend(inputs.exits.advertised.iter().copied().map(Setting::AcceptRa));
        if inputs.exits.can_force_forwarding {
            support.settings.extend(ways.map(Setting::ForceForwarding6));
            // Otherwise the node would go on taking routers' words there, as a host does.
            support.settings.insert(Setting::Router6(one.device));
        } else {
            support.settings.insert(Setting::Forwarding6);
        }
    }
    if let Some(gateway) =
        one.gateway.filter(|gateway| gateway_location(inputs, one.device, *gateway) == GatewayLocation::Bridge)
    {
        support.gateways.insert((one.device, gateway));
    }
    let [uplink] = uplinks[..] else { return };
    let is_asked = inputs.links.get(uplink).is_none_or(|link| !link.no_arp);
    if !one.pool.proxy() || uplink == one.device || !is_asked {
        return;
    }
    let proxies = proxies(one.address);
    if one.family() == Family::V6 && !proxies.is_empty() {
        support.settings.extend([Setting::Router6(uplink), Setting::ProxyNdp(uplink)]);
    }
    support.proxies.extend(proxies.into_iter().map(|address| (uplink, address)));
}

/// What the node would be for guests of a pool that runs here, in a sentence, and what would keep them from the world.
pub fn outlook(inputs: &Inputs, name: &PoolName) -> (Option<String>, BTreeSet<Problem>) {
    let (mut support, mut problems) = (Support::default(), BTreeSet::new());
    let pool = inputs.registry.pools.pools.get(name).filter(|pool| pool.mode() == Mode::Routed);
    for (family, pool) in Family::BOTH.into_iter().filter_map(|family| pool.map(|pool| (family, pool))) {
        let entry = pool.addresses.iter().map(|entry| entry.address).find(|prefix| prefix.family() == family);
        let Some(address) = entry.and_then(|prefix| Prefix::host(prefix.first()).ok()) else { continue };
        let one = Routed { name, pool, address, gateway: pool.gateway(address), device: pool.bridge, firewall: None };
        add_needs(inputs, &one, &mut support);
        add_problems(inputs, &one, &mut problems);
    }
    (in_words(&support), problems)
}

fn in_words(support: &Support) -> Option<String> {
    let listed = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(" and ");
    let settings = |of: fn(&Setting) -> Option<IfName>| -> BTreeSet<String> {
        support.settings.iter().filter_map(of).map(|device| device.to_string()).collect()
    };
    let mut parts = Vec::new();
    let forwards = settings(|setting| if let Setting::Forwarding4(device) = setting { Some(*device) } else { None });
    parts.extend((!forwards.is_empty()).then(|| format!("forwards IPv4 on {}", listed(forwards))));
    let forwards =
        settings(|setting| if let Setting::ForceForwarding6(device) = setting { Some(*device) } else { None });
    parts.extend((!forwards.is_empty()).then(|| format!("forwards IPv6 on {}", listed(forwards))));
    parts.extend(support.settings.contains(&Setting::Forwarding6).then(|| "forwards IPv6".to_owned()));
    let learns = settings(|setting| if let Setting::AcceptRa(device) = setting { Some(*device) } else { None });
    parts.extend((!learns.is_empty()).then(|| format!("goes on learning its IPv6 routes on {}", listed(learns))));
    let gateways: BTreeSet<String> = support.gateways.iter().map(|(on, ip)| format!("{ip} on {on}")).collect();
    parts.extend((!gateways.is_empty()).then(|| format!("has the gateway {}", listed(gateways))));
    let answers: BTreeSet<String> = support.proxies.iter().map(|(on, _)| on.to_string()).collect();
    parts.extend((!answers.is_empty()).then(|| format!("answers for its addresses on {}", listed(answers))));
    let last = parts.pop()?;
    let all = if parts.is_empty() { last } else { format!("{} and {last}", parts.join(", ")) };
    Some(format!("while a guest of it runs here, the node {all}"))
}

/// The interfaces by which packets for guests may come in: all that the node's default routes lead by. A named uplink
/// says where the node answers for guests; the provider may send by the other one all the same.
fn ways(inputs: &Inputs, family: Family) -> BTreeSet<IfName> {
    inputs.exits.routes.iter().filter(|route| route.family == family).map(|route| route.device).collect()
}

/// The interfaces by which IPv6 of guests comes in from the world, and goes out.
pub(super) fn ways6(inputs: &Inputs) -> BTreeSet<IfName> {
    ways(inputs, Family::V6).into_iter().chain(uplinks(inputs, Family::V6)).collect()
}

/// Where the node answers for guests: the interfaces of its default route; more than one if it leads by several at the same
/// metric.
fn uplinks(inputs: &Inputs, family: Family) -> Vec<IfName> {
    if let Some(named) = named_uplink(inputs) {
        return if inputs.links.get(named).is_some() { vec![named] } else { Vec::new() };
    }
    let routes = || inputs.exits.routes.iter().filter(|route| route.family == family);
    let best = routes().next().map(|route| route.metric);
    let devices: BTreeSet<IfName> =
        routes().filter(|route| Some(route.metric) == best).map(|route| route.device).collect();
    devices.into_iter().collect()
}

fn named_uplink(inputs: &Inputs) -> Option<IfName> {
    inputs.registry.node.as_ref()?.route_uplink
}

/// The addresses to answer for; none if they are too many to name.
fn proxies(prefix: Prefix) -> Vec<IpAddr> {
    match (prefix.single(), prefix.net()) {
        (Some(address), _) => vec![address],
        (None, IpNet::V4(net)) if net.prefix_len() >= SHORTEST_PROXIED => {
            let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
            (first..=last).map(|number| IpAddr::V4(number.into())).collect()
        }
        (None, _) => Vec::new(),
    }
}

/// Where a gateway of guests is, or has to be.
#[derive(Debug, PartialEq, Eq)]
enum GatewayLocation {
    /// The node has it anyway.
    Node,
    /// On the bridge, as long as a guest needs it.
    Bridge,
    /// Not here: it is somebody else's, for this reason.
    Elsewhere(String),
}

/// The node takes a gateway upon itself only where that cannot cut it off from somebody who has it really: the pool may
/// have been made on another node, with that node's main address.
fn gateway_location(inputs: &Inputs, device: IfName, gateway: IpAddr) -> GatewayLocation {
    let link_local = match gateway {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    // A link-local IPv6 address is an address of one interface.
    let counts = |on: &IfName| *on == device || !link_local || gateway.is_ipv4();
    if inputs.exits.addresses.iter().any(|(on, net)| net.addr() == gateway && counts(on)) {
        return GatewayLocation::Node;
    }
    if let Some(route) = inputs.exits.routes.iter().find(|route| route.via == Some(gateway) && counts(&route.device)) {
        return GatewayLocation::Elsewhere(format!("is the node's own gateway on {}", route.device));
    }
    let pools = || inputs.registry.pools.pools.values().filter(|pool| pool.mode() == Mode::Routed);
    let in_pool = || pools().flat_map(|pool| &pool.addresses).any(|entry| entry.address.net().contains(&gateway));
    if link_local || in_pool() {
        return GatewayLocation::Bridge;
    }
    let private = match gateway {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.is_unique_local(),
    };
    let beside = inputs.exits.addresses.iter().find(|(on, net)| *on != device && net.contains(&gateway));
    match beside {
        None if private => GatewayLocation::Bridge,
        None => GatewayLocation::Elsewhere("is no address of this node".to_owned()),
        Some((on, net)) => {
            GatewayLocation::Elsewhere(format!("is no address of this node, but of its network {net} on {on}"))
        }
    }
}

/// What keeps routed guests that run here from the world, apart from the guests themselves.
pub fn problems(inputs: &Inputs) -> BTreeSet<Problem> {
    let mut found = BTreeSet::new();
    let here = inputs.registry.guests.values().filter(|guest| inputs.presence.contains_key(&guest.vmid));
    for one in here.flat_map(|guest| routed(inputs, guest)) {
        add_problems(inputs, &one, &mut found);
    }
    found
}

fn add_problems(inputs: &Inputs, one: &Routed<'_>, found: &mut BTreeSet<Problem>) {
    let (name, family) = (one.name, one.address.family());
    let mut add = |sentence: String, hint: String| {
        found.insert(Problem::new(code!("routed-pool-unreachable"), Subject::Pool(name.clone()), sentence, hint))
    };
    if let Some(gateway) = one.gateway {
        if let GatewayLocation::Elsewhere(why) = gateway_location(inputs, one.device, gateway) {
            let shared = if gateway.is_ipv4() { "169.254.0.1" } else { "fe80::1" };
            let hint = format!(
                "give it to {} here, or make the pool with `--gateway{} {shared}`, which every node can have",
                one.device,
                family.number()
            );
            add(format!("the gateway {gateway} of pool `{name}` {why}: its guests here reach nothing"), hint);
        }
    }
    let uplinks = uplinks(inputs, one.family());
    let file = format!("nodes/{}.json", inputs.node);
    if let Some(named) = named_uplink(inputs).filter(|_| uplinks.is_empty()) {
        let hint = "`ip -br link` lists them; without the key it is that of the default route".to_owned();
        add(format!("route_uplink `{named}` in {file} is no interface of this node"), hint);
        return;
    }
    if let Some((uplink, vrf)) = uplink_in_vrf(inputs, &uplinks, one.family()) {
        let hint = format!(
            "take {uplink} out of {vrf} in /etc/network/interfaces, then `ifreload -a`, or name an uplink outside of it: \
             `pve-public-ip node set --route-uplink INTERFACE`"
        );
        add(format!("the node has no {family} uplink for pool `{name}`: {}", in_vrf(uplink, vrf)), hint);
        return;
    }
    if !one.pool.proxy() {
        return;
    }
    let needs = format!("pool `{name}` needs an interface on which the node answers for its {family} addresses");
    let hint = "name it: `pve-public-ip node set --route-uplink INTERFACE` on this node".to_owned();
    match &uplinks[..] {
        [] => drop(add(format!("{needs}, but the node has no {family} default route"), hint)),
        [uplink] if *uplink == one.device => drop(add(
            format!("{needs}, but its guests are on {uplink} themselves, by which the node reaches the provider"),
            "the kernel does not answer for who is on the same side: use a bridge of their own, without the uplink"
                .to_owned(),
        )),
        [_] => {}
        several => {
            let names: Vec<&str> = several.iter().map(IfName::as_str).collect();
            let sentence = format!("{needs}, but the {family} default route leads by {}", names.join(" and by "));
            let hint = format!(
                "{hint}; if the provider routes the addresses to the node and asks nobody for them, make the pool with a \
                 profile file that has `\"proxy\": false`"
            );
            add(sentence, hint);
        }
    }
}

/// Prefixes that the provider asks for on the wire, and that are too large for an answer for each address.
pub(super) fn notes(inputs: &Inputs) -> Vec<Problem> {
    let mut found = Vec::new();
    for (vmid, guest) in inputs.registry.guests.iter().filter(|(vmid, _)| inputs.presence.contains_key(vmid)) {
        for one in routed(inputs, guest).filter(|one| one.pool.proxy() && proxies(one.address).is_empty()) {
            let (address, name) = (one.address.to_string(), one.name);
            found.push(Problem::of_guest(
                code!("prefix-not-answered-for"),
                *vmid,
                format!(
                    "the node does not answer for {address} of guest {vmid}: no prefix can be named as a whole, and its addresses are too many"
                ),
                format!("have the provider route it to the node; else `ndppd` answers for IPv6 prefixes (pool `{name}`)"),
            ));
        }
    }
    found
}

/// Why frames on this bridge pass no filter of the kernel, and what to do about it; `None`: they are filtered.
///
/// nftables sees the frames of Linux bridges only: not those of Open vSwitch, and nothing on what is no bridge at all.
pub fn unfiltered(links: &Links, bridge: IfName) -> Option<(String, String)> {
    let Some(link) = links.get(bridge) else {
        let hint = "make it a Linux bridge in /etc/network/interfaces, then `ifreload -a`".to_owned();
        return Some((format!("{bridge} does not exist on this node"), hint));
    };
    if link.bridge.is_some() {
        return None;
    }
    let hint = "make it a Linux bridge, or take another bridge for the pool and its guests".to_owned();
    let kind = match link.kind.as_str() {
        OPEN_VSWITCH => {
            let why = format!("{bridge} is an Open vSwitch bridge, whose frames pass no filter of the kernel");
            return Some((why, hint));
        }
        "" => "a network card".to_owned(),
        kind => format!("an interface of type {kind}"),
    };
    Some((format!("{bridge} is {kind} and no Linux bridge: nothing on it is filtered"), hint))
}

fn in_vrf(device: IfName, vrf: IfName) -> String {
    format!("{device} is part of the VRF {vrf}, which routes by a table of its own and not by the node's")
}

/// The uplink of routed guests that is part of a VRF: what the provider sends there does not find the guests' routes. If
/// the node has no default route outside of VRFs, that is the interface by which it has one inside.
fn uplink_in_vrf(inputs: &Inputs, uplinks: &[IfName], family: Family) -> Option<(IfName, IfName)> {
    let links = &inputs.links;
    let has_vrf = |device: IfName| links.vrf_of(device).map(|vrf| (device, vrf));
    let ways = ways(inputs, family);
    if let Some(found) = uplinks.iter().chain(&ways).find_map(|device| has_vrf(*device)) {
        return Some(found);
    }
    let is_way = |(device, link): &(&IfName, &Link)| link.bridge.is_none() && links.speaks(**device, family);
    let candidates = || links.0.iter().filter(is_way).filter_map(|(device, _)| has_vrf(*device));
    if uplinks.is_empty() && ways.is_empty() { candidates().next() } else { None }
}

/// Why guests cannot be routed on this bridge, and what to do about it. Whether its frames are filtered is another
/// question: [`unfiltered`].
pub fn unfit(links: &Links, bridge: IfName) -> Option<(String, String)> {
    let elsewhere = |what: &str| format!("{what}, or take a bridge of its own for the pool");
    if let Some(vrf) = links.vrf_of(bridge) {
        return Some((
            in_vrf(bridge, vrf),
            elsewhere("take it out of the VRF (an SDN zone of type EVPN puts its VNets there)"),
        ));
    }
    let port = links.ports(bridge).find(|port| links.get(*port).is_some_and(|port| port.kind == "vxlan"))?;
    Some((
        format!(
            "{bridge} reaches other nodes by VXLAN ({port}), so that a guest's address would be routed on one node and used on another"
        ),
        elsewhere("take a zone without VXLAN"),
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::guest::GuestConfig;
    use crate::links::BridgeOptions;
    use crate::links::Link;
    use crate::model::GuestKind;
    use crate::plan::{DefaultRoute, Exits, Located as At};
    use crate::registry::Registry;
    use crate::registry::document::{PoolsFile, Profile};

    const GUEST: &str = r#"{"version":1,"vmid":100,"interfaces":{"net0":{"mac":"02:00:00:00:00:0a","addresses":[
        {"address":"203.0.113.10/32","pool":"net","assigned_at":"2026-11-22T10:00:00Z"},
        {"address":"2001:db8:1::10/128","pool":"net","assigned_at":"2026-11-22T10:00:00Z"}]}}}"#;

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }

    /// Guest 100 runs on vmbr1; the node reaches the world by eno1, where it learns its IPv6 routes.
    fn inputs(profile: &str, gateways: [&str; 2]) -> Inputs {
        let pools = format!(
            r#"{{"version":1,"pools":{{"net":{{"profile":"{profile}","bridge":"vmbr1","gateway4":"{}","gateway6":"{}",
            "addresses":[{{"address":"203.0.113.0/24"}},{{"address":"2001:db8:1::/64"}}]}}}}}}"#,
            gateways[0], gateways[1]
        );
        let pools: PoolsFile = serde_json::from_str(&pools).unwrap();
        let guest: GuestFile = serde_json::from_str(GUEST).unwrap();
        let bridge = || Link { bridge: Some(BridgeOptions::default()), kind: "bridge".to_owned(), ..Link::default() };
        let links = BTreeMap::from([(name("vmbr1"), bridge()), (name("eno1"), Link::default())]);
        let config = GuestConfig::parse(GuestKind::Qemu, b"net0: virtio=02:00:00:00:00:0A,bridge=vmbr1\n");
        let way = |via: &str, metric| {
            let via: IpAddr = via.parse().unwrap();
            DefaultRoute { device: name("eno1"), via: Some(via), metric, family: Family::of(via) }
        };
        let own = ["198.51.100.7/24", "2001:db8:7::2/64", "fe80::5/64"];
        let exits = Exits {
            routes: vec![way("198.51.100.1", 0), way("fe80::1", 1024)],
            addresses: own.iter().map(|net| (name("eno1"), net.parse().unwrap())).collect(),
            advertised: BTreeSet::from([name("eno1")]),
            ..Exits::default()
        };
        let guests = BTreeMap::from([(guest.vmid, At { node: "n1".parse().unwrap(), config })]);
        let presence = BTreeMap::from([(guest.vmid, Presence::Running)]);
        let registry = Registry { pools, guests: [(guest.vmid, guest)].into(), ..Registry::default() };
        Inputs { presence, links: Links(links), exits, ..Inputs::new("n1".parse().unwrap(), registry, guests) }
    }

    /// In words, as steps say them.
    fn shown(inputs: &Inputs) -> Vec<String> {
        let guest = inputs.registry.guests.values().next().unwrap();
        let Support { settings, gateways, proxies } = support(inputs, guest);
        let settings = settings.iter().map(|setting| format!("{} {}", setting.path(), setting.value()));
        let gateways = gateways.iter().map(|(on, address)| format!("gateway {address} {on}"));
        settings.chain(gateways).chain(proxies.iter().map(|(on, address)| format!("proxy {address} {on}"))).collect()
    }

    fn sentences(inputs: &Inputs) -> Vec<String> {
        problems(inputs).into_iter().map(|problem| problem.sentence).collect()
    }

    #[test]
    fn a_profile_says_who_answers() {
        let forwarding = [
            "net/ipv6/conf/eno1/accept_ra 2",
            "net/ipv4/conf/eno1/forwarding 1",
            "net/ipv4/conf/vmbr1/forwarding 1",
            "net/ipv6/conf/all/forwarding 1",
        ];
        let gateways = ["gateway 169.254.0.1 vmbr1", "gateway fe80::1 vmbr1"];
        let mut inputs = inputs("hetzner-routed", ["169.254.0.1", "fe80::1"]);
        assert_eq!(shown(&inputs), [&forwarding[..], &gateways].concat());
        inputs.registry.pools.pools.values_mut().for_each(|pool| pool.profile = Profile::OvhRouted);
        let proxies = ["proxy 203.0.113.10 eno1", "proxy 2001:db8:1::10 eno1"];
        let router = ["net/ipv6/conf/eno1/forwarding 1", "net/ipv6/conf/eno1/proxy_ndp 1"];
        assert_eq!(shown(&inputs), [&forwarding[..], &router, &gateways, &proxies].concat());
        assert_eq!((sentences(&inputs), notes(&inputs)), (Vec::new(), Vec::new()));
        for presence in [Presence::Starting, Presence::Incoming] {
            inputs.presence.values_mut().for_each(|one| *one = presence);
            assert_eq!(shown(&inputs), [""; 0], "{presence:?}");
        }
    }

    #[test]
    fn a_gateway_is_taken_on_only_where_nobody_else_can_have_it() {
        for (gateways, put, said) in [
            (["198.51.100.7", "2001:db8:7::2"], vec![], vec![]),
            // Of the same link-local address on another interface nothing follows for this one.
            (["203.0.113.1", "fe80::5"], vec!["gateway 203.0.113.1 vmbr1", "gateway fe80::5 vmbr1"], vec![]),
            (["10.1.2.3", "fd00::1"], vec!["gateway 10.1.2.3 vmbr1", "gateway fd00::1 vmbr1"], vec![]),
            (
                ["198.51.100.1", "2001:db8:7::3"],
                vec![],
                vec![
                    "the gateway 198.51.100.1 of pool `net` is the node's own gateway on eno1: its guests here reach nothing",
                    "the gateway 2001:db8:7::3 of pool `net` is no address of this node, but of its network 2001:db8:7::2/64 on eno1: its guests here reach nothing",
                ],
            ),
            (
                ["192.0.2.7", "fe80::1"],
                vec!["gateway fe80::1 vmbr1"],
                vec!["the gateway 192.0.2.7 of pool `net` is no address of this node: its guests here reach nothing"],
            ),
        ] {
            let inputs = inputs("hetzner-routed", gateways);
            let found: Vec<String> = shown(&inputs).into_iter().filter(|line| line.starts_with("gateway")).collect();
            assert_eq!(
                (found, sentences(&inputs)),
                (put.iter().map(ToString::to_string).collect(), said.iter().map(ToString::to_string).collect()),
                "{gateways:?}"
            );
        }
        // On the bridge by which the node itself reaches its gateway there is one already.
        let mut inputs = inputs("hetzner-routed", ["169.254.0.1", "fe80::1"]);
        inputs.exits.routes.iter_mut().for_each(|route| route.device = name("vmbr1"));
        assert_eq!(
            sentences(&inputs),
            ["the gateway fe80::1 of pool `net` is the node's own gateway on vmbr1: its guests here reach nothing"]
        );
    }

    #[test]
    fn of_two_ways_none_is_chosen() {
        let mut inputs = inputs("ovh-routed", ["169.254.0.1", "fe80::1"]);
        let needs = "pool `net` needs an interface on which the node answers for its";
        let second = DefaultRoute { device: name("eno2"), ..inputs.exits.routes[0] };
        inputs.exits.routes.insert(1, second);
        assert_eq!(
            sentences(&inputs),
            [format!("{needs} IPv4 addresses, but the IPv4 default route leads by eno1 and by eno2")]
        );
        let lines = shown(&inputs);
        assert!(!lines.iter().any(|line| line.starts_with("proxy 203")), "{lines:?}");
        assert!(lines.contains(&"net/ipv4/conf/eno2/forwarding 1".to_owned()), "what comes by either is forwarded");
        inputs.links.0.insert(name("eno1"), Link::default());
        inputs.registry.node = serde_json::from_str(r#"{"version":1,"route_uplink":"eno1"}"#).ok();
        let lines = shown(&inputs);
        for line in ["proxy 203.0.113.10 eno1", "net/ipv4/conf/eno1/forwarding 1", "net/ipv4/conf/eno2/forwarding 1"] {
            assert!(lines.contains(&line.to_owned()), "the named one answers, and both forward: {lines:?}");
        }
        inputs.registry.node = None;
        inputs.exits.routes[1].metric = 100;
        assert_eq!(sentences(&inputs), [""; 0], "the better one is meant");
        inputs.exits.routes.clear();
        let lost = |family: Family| format!("{needs} {family} addresses, but the node has no {family} default route");
        assert_eq!(sentences(&inputs), Family::BOTH.map(lost));
        inputs.registry.node = serde_json::from_str(r#"{"version":1,"route_uplink":"eno2"}"#).ok();
        assert_eq!(sentences(&inputs), ["route_uplink `eno2` in nodes/n1.json is no interface of this node"]);
        inputs.links.0.insert(name("eno2"), Link::default());
        assert_eq!(sentences(&inputs), [""; 0]);
        assert!(shown(&inputs).contains(&"proxy 203.0.113.10 eno2".to_owned()));
        inputs.registry.node = serde_json::from_str(r#"{"version":1,"route_uplink":"vmbr1"}"#).ok();
        let same = "addresses, but its guests are on vmbr1 themselves, by which the node reaches the provider";
        assert_eq!(sentences(&inputs), [format!("{needs} IPv4 {same}"), format!("{needs} IPv6 {same}")]);
    }

    #[test]
    fn nobody_is_asked_for_on_a_tunnel_and_nothing_is_routed_out_of_a_vrf() {
        let mut inputs = inputs("ovh-routed", ["169.254.0.1", "fe80::1"]);
        let net = "net".parse().unwrap();
        let answers = |inputs: &Inputs| {
            let (outlook, problems) = outlook(inputs, &net);
            assert_eq!(problems, BTreeSet::new());
            (outlook.unwrap().contains("answers for"), shown(inputs).iter().any(|line| line.contains("prox")))
        };
        assert_eq!(answers(&inputs), (true, true));
        inputs.links.0.get_mut(&name("eno1")).unwrap().no_arp = true;
        assert_eq!(
            answers(&inputs),
            (false, false),
            "nor is it a problem: what the provider sends comes by the tunnel"
        );
        let why = "eno1 is part of the VRF vrf0, which routes by a table of its own and not by the node's";
        let said = |family: Family| format!("the node has no {family} uplink for pool `net`: {why}");
        let kind = |kind: &str| Link { kind: kind.to_owned(), ..Link::default() };
        inputs.links.0.insert(name("vrf0"), kind("vrf"));
        let member =
            Link { master: Some(name("vrf0")), addresses: vec!["198.51.100.7/24".parse().unwrap()], ..Link::default() };
        inputs.links.0.insert(name("eno1"), member);
        assert_eq!(sentences(&inputs), Family::BOTH.map(said), "a route of the node by an interface of the VRF");
        inputs.registry.pools.pools.values_mut().for_each(|pool| pool.profile = Profile::HetznerRouted);
        assert_eq!(sentences(&inputs), Family::BOTH.map(said), "whoever answers, packets come in by that table");
        // The usual case: the default route is in the VRF's table, where the node's list does not have it.
        inputs.exits.routes.clear();
        assert_eq!(sentences(&inputs), [said(Family::V4)], "and for IPv6 that interface has no address");
        // A VRF beside, for management.
        let eno2 = DefaultRoute { device: name("eno2"), via: None, metric: 0, family: Family::V4 };
        inputs.exits.routes.push(eno2);
        inputs.links.0.insert(name("eno2"), Link::default());
        assert_eq!(sentences(&inputs), [""; 0]);
    }

    #[test]
    fn where_the_kernel_can_only_the_interfaces_of_the_pool_forward() {
        let mut inputs = inputs("ovh-routed", ["169.254.0.1", "fe80::1"]);
        inputs.exits.can_force_forwarding = true;
        inputs.links.0.insert(name("vmbr9"), Link::default());
        let ipv6: Vec<String> = shown(&inputs)
            .into_iter()
            .filter(|line| line.starts_with("net/ipv6") && line.contains("forwarding"))
            .collect();
        assert_eq!(
            ipv6,
            [
                "net/ipv6/conf/eno1/force_forwarding 1",
                "net/ipv6/conf/vmbr1/force_forwarding 1",
                "net/ipv6/conf/eno1/forwarding 1",
                "net/ipv6/conf/vmbr1/forwarding 1",
            ]
        );
        let (outlook, _) = outlook(&inputs, &"net".parse().unwrap());
        assert!(outlook.as_ref().unwrap().contains(", forwards IPv6 on eno1 and vmbr1, "), "{outlook:?}");
    }

    #[test]
    fn of_prefixes_only_small_ones_are_answered_for() {
        let mut inputs = inputs("ovh-routed", ["169.254.0.1", "fe80::1"]);
        let mut with = |address: &str| {
            let file = GUEST.replace("203.0.113.10/32", address);
            let guest: GuestFile = serde_json::from_str(&file).unwrap();
            inputs.registry.guests.insert(guest.vmid, guest);
            let said: Vec<String> = notes(&inputs).into_iter().map(|note| note.sentence).collect();
            (shown(&inputs).iter().filter(|line| line.starts_with("proxy 2") && !line.contains(':')).count(), said)
        };
        assert_eq!(with("203.0.113.8/29"), (8, vec![]));
        assert_eq!(with("203.0.113.0/24"), (256, vec![]));
        let (count, said) = with("203.0.112.0/23");
        assert_eq!(count, 0);
        let sentence = "the node does not answer for 203.0.112.0/23 of guest 100: no prefix can be named as a whole, and its addresses are too many";
        assert_eq!(said, [sentence]);
    }

    #[test]
    fn on_some_bridges_nobody_is_routed() {
        let mut inputs = inputs("ovh-routed", ["169.254.0.1", "fe80::1"]);
        let bridge = name("vmbr1");
        let why = |inputs: &Inputs| unfit(&inputs.links, bridge).map(|(why, _)| why);
        assert_eq!(why(&inputs), None);
        let kind = |kind: &str, master| Link { kind: kind.to_owned(), master, ..Link::default() };
        inputs.links.0.insert(name("vxlan_v1"), kind("vxlan", Some(bridge)));
        let vxlan = "vmbr1 reaches other nodes by VXLAN (vxlan_v1), so that a guest's address would be routed on one node and used on another";
        assert_eq!(why(&inputs).as_deref(), Some(vxlan));
        assert_eq!(shown(&inputs), [""; 0]);
        let found = crate::plan::desired(&inputs);
        assert!(found.state.routes.is_empty() && found.state.neighbours.is_empty());
        let problem = found.problems.first().unwrap();
        assert_eq!(problem.sentence, format!("203.0.113.10 cannot be routed to guest 100 net0: {vxlan}"));
        assert_eq!(problem.hint, "take a zone without VXLAN, or take a bridge of its own for the pool");
        inputs.links.0.insert(name("vrf_z1"), kind("vrf", None));
        inputs.links.0.get_mut(&bridge).unwrap().master = Some(name("vrf_z1"));
        assert_eq!(
            why(&inputs).as_deref(),
            Some("vmbr1 is part of the VRF vrf_z1, which routes by a table of its own and not by the node's")
        );
        for (kind_of, why) in [
            ("openvswitch", "vmbr1 is an Open vSwitch bridge, whose frames pass no filter of the kernel"),
            ("veth", "vmbr1 is an interface of type veth and no Linux bridge: nothing on it is filtered"),
            ("", "vmbr1 is a network card and no Linux bridge: nothing on it is filtered"),
        ] {
            inputs.links.0.insert(bridge, kind(kind_of, None));
            let found = crate::plan::desired(&inputs);
            let problem = found.problems.first().unwrap();
            assert_eq!(problem.sentence, format!("guest 100 net0 cannot be protected: {why}"));
        }
        // What it is plugged into counts, too, wherever it should be: a port of Open vSwitch has this master.
        inputs.links.0.insert(bridge, Link { bridge: Some(BridgeOptions::default()), ..kind("bridge", None) });
        inputs.links.0.insert(name("tap100i0"), kind("tun", Some(name("ovs-system"))));
        inputs.links.0.insert(name("ovs-system"), kind("openvswitch", None));
        let said = |inputs: &Inputs| crate::plan::desired(inputs).problems.first().unwrap().sentence.clone();
        assert_eq!(
            said(&inputs),
            "guest 100 net0 cannot be protected: ovs-system is an Open vSwitch bridge, whose frames pass no filter of the kernel"
        );
        inputs.links.0.remove(&bridge);
        assert_eq!(
            crate::plan::desired(&inputs).problems.first().unwrap().sentence,
            "guest 100 net0 cannot be protected: vmbr1 does not exist on this node"
        );
    }
}
