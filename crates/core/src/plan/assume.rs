//! What a new pool need not be told: the bridge and the gateways, found out from the node by the rules of its profile.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::inputs::{DefaultRoute, Exits};
use crate::interfaces::Interfaces;
use crate::links::OPEN_VSWITCH;
use crate::links::{Link, Links, is_guest_port};
use crate::model::{Family, IfName};
use crate::registry::document::{Mode, Pool, PoolAddress};
use crate::registry::layout::GatewayRule;

/// What is known of the node.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Its interfaces.
    pub links: Links,
    /// Its ways to the world.
    pub exits: Exits,
    /// Interfaces of which something is known from its configuration only.
    pub filed: BTreeSet<IfName>,
    /// Whether it is one node of several.
    pub in_cluster: bool,
}

impl Surroundings {
    /// Adds what the node's configuration says of interfaces, addresses and gateways that the kernel does not know, because
    /// they are not up.
    pub fn complete(&mut self, configured: &Interfaces) {
        for (name, link) in configured.links().0 {
            let is_news = |net: &IpNet| !self.links.speaks(name, Family::of_net(*net));
            let addresses: Vec<IpNet> = link.addresses.iter().copied().filter(is_news).collect();
            if !addresses.is_empty() || self.links.get(name).is_none() {
                self.filed.insert(name);
            }
            self.exits.addresses.extend(addresses.iter().map(|net| (name, *net)));
            let blank = Link { addresses: Vec::new(), ..link.clone() };
            let known = self.links.0.entry(name).or_insert(blank);
            known.addresses.extend(addresses);
            if link.kind == OPEN_VSWITCH && known.bridge.is_none() {
                // The kernel may have another device of that name for it.
                known.kind = link.kind;
            }
        }
        let is_known = |family: &Family| self.exits.routes.iter().any(|route| route.family == *family);
        let known: Vec<Family> = Family::BOTH.into_iter().filter(is_known).collect();
        for (device, interface) in &configured.0 {
            for via in interface.gateways.iter().filter(|via| !known.contains(&Family::of(**via))) {
                self.exits.routes.push(DefaultRoute {
                    device: *device,
                    via: Some(*via),
                    metric: 0,
                    family: Family::of(*via),
                });
                self.filed.insert(*device);
            }
        }
    }

    /// An interface as it is shown to people.
    fn shown(&self, device: IfName) -> String {
        if self.filed.contains(&device) { format!("{device}, by /etc/network/interfaces") } else { device.to_string() }
    }

    /// Ports of a bridge that lead out of the node.
    fn uplinks(&self, bridge: IfName) -> Vec<String> {
        self.links.ports(bridge).filter(|port| !is_guest_port(port.as_str())).map(|port| port.to_string()).collect()
    }
}

/// The bridge for the guests' NICs if none is named, with the reason; else why not, and what to do.
pub fn assume_bridge(mode: Mode, node: &Surroundings) -> Result<(IfName, String), (String, String)> {
    let is_own = |bridge: IfName| !bridge.as_str().starts_with("fwbr");
    let all = node.links.0.iter().filter(|(name, link)| link.bridge.is_some() && is_own(**name)).map(|(name, _)| *name);
    let fit: Vec<IfName> = all.filter(|bridge| mode == Mode::Routed || !node.uplinks(*bridge).is_empty()).collect();
    let described = |bridge: &IfName| {
        let ports = node.uplinks(*bridge).join(", ");
        let ports = if ports.is_empty() { "no uplink".to_owned() } else { format!("uplink {ports}") };
        let source = if node.filed.contains(bridge) { ", by /etc/network/interfaces" } else { "" };
        format!("{bridge} ({ports}{source})")
    };
    let hint = "say which: --bridge BRIDGE".to_owned();
    match (fit.as_slice(), mode) {
        ([only], _) => Ok((*only, format!("bridge {}, the only one that fits", described(only)))),
        ([], Mode::Bridged) => Err(("no bridge of this node has an uplink to the provider".to_owned(), hint)),
        ([], Mode::Routed) => Err(("this node has no bridge".to_owned(), hint)),
        (several, _) => {
            let names: Vec<String> = several.iter().map(described).collect();
            Err((format!("{} bridges fit: {}", names.len(), names.join(", ")), hint))
        }
    }
}

/// Fills in the gateways that the pool does not name, and says in a line each what was assumed, or why nothing was; `naming`
/// says how the gateway of a family is named.
pub fn assume_gateways(pool: &mut Pool, node: &Surroundings, naming: impl Fn(Family) -> String) -> Vec<String> {
    let (rule4, rule6) = pool.gateway_rules();
    let mut said = Vec::new();
    for (family, rule) in [(Family::V4, rule4), (Family::V6, rule6)] {
        let needs_one = |entry: &PoolAddress| entry.address.family() == family && entry.gateway.is_none();
        if pool.common_gateway(family).is_some() || !pool.addresses.iter().any(needs_one) {
            continue;
        }
        match find(rule, pool, node, family) {
            Some(Ok((address, why))) => {
                said.push(format!("assumed: {family} gateway {address}, {why}"));
                match address {
                    IpAddr::V4(address) => pool.gateway4 = Some(address),
                    IpAddr::V6(address) => pool.gateway6 = Some(address),
                }
            }
            Some(Err(why)) => said.push(format!("no {family} gateway: {why}; {}", naming(family))),
            None => {}
        }
    }
    if rule4 == GatewayRule::Penultimate {
        said.extend(assume_for_blocks(pool));
    }
    said
}

/// Where each block has its own gateway, that of another block is none for it: it would be outside of its subnet, and its own
/// would be handed out. A gateway that is in none of the blocks is meant for all.
fn assume_for_blocks(pool: &mut Pool) -> Vec<String> {
    let Some(common) = pool.gateway4.map(IpAddr::V4) else { return Vec::new() };
    if !pool.addresses.iter().any(|entry| entry.address.net().contains(&common)) {
        return Vec::new();
    }
    let mut said = Vec::new();
    for entry in pool.addresses.iter_mut().filter(|entry| entry.gateway.is_none()) {
        let IpNet::V4(net) = entry.address.net() else { continue };
        if let Some(gateway) = penultimate(net).filter(|_| !entry.address.net().contains(&common)) {
            said.push(format!("assumed: IPv4 gateway {gateway} for {net}, the last address but one of it"));
            entry.gateway = Some(gateway.into());
        }
    }
    said
}

/// The last address but one of a block of four addresses or more.
fn penultimate(net: Ipv4Net) -> Option<Ipv4Addr> {
    (net.prefix_len() <= 30).then(|| Ipv4Addr::from(u32::from(net.broadcast()) - 1))
}

type Found = Result<(IpAddr, String), String>;

fn find(rule: GatewayRule, pool: &Pool, node: &Surroundings, family: Family) -> Option<Found> {
    let route = node.exits.routes.iter().find(|route| route.family == family);
    let main = || -> Result<(IpAddr, IfName), String> {
        let route = route.ok_or("the node has no default route")?;
        let found = global(node, route.device, family);
        found.map(|address| (address, route.device)).ok_or(format!("the node has no address on {}", route.device))
    };
    // Guests that move to another node must find their gateway there; on a bridge with an uplink it would be there twice.
    let shared = |address: &IpAddr| {
        let is_fit = node.in_cluster && node.uplinks(pool.bridge).is_empty();
        is_fit.then(|| (*address, "which each node has on this bridge while such a guest runs there".to_owned()))
    };
    Some(match rule {
        GatewayRule::Named => return None,
        GatewayRule::Fixed(address) => Ok((address, format!("as always with {}", pool.profile_name()))),
        GatewayRule::NodeLast254 => main().and_then(|(address, device)| match address {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                let gateway = Ipv4Addr::new(a, b, c, 254);
                let device = node.shown(device);
                Ok((gateway.into(), format!("the node's main address {address} ({device}) with 254 at its end")))
            }
            IpAddr::V6(_) => Err("the rule is for IPv4 only".to_owned()),
        }),
        GatewayRule::NodeGateway => match route.and_then(|route| Some((route.via?, route.device))) {
            Some((via, device)) => {
                let device = node.shown(device);
                Ok((via, format!("the node's own ({device}); compare it with what the provider says of the address")))
            }
            None => Err("the node has no default route with a gateway".to_owned()),
        },
        GatewayRule::NodeAddress => match global(node, pool.bridge, family) {
            Some(address) => Ok((address, format!("the node's address on {}", node.shown(pool.bridge)))),
            None => shared(&IpAddr::from([169, 254, 0, 1])).map_or_else(
                || {
                    main()
                        .map(|(address, device)| (address, format!("the node's main address ({})", node.shown(device))))
                },
                Ok,
            ),
        },
        GatewayRule::BridgeLinkLocal => {
            if let Some(found) = shared(&Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into()) {
                return Some(Ok(found));
            }
            let link = node.links.get(pool.bridge);
            let local = |net: &&IpNet| matches!(net.addr(), IpAddr::V6(address) if address.is_unicast_link_local());
            match link.and_then(|link| link.addresses.iter().find(local)) {
                Some(net) => Ok((net.addr(), format!("the node's link-local address on {}", pool.bridge))),
                None => Err(format!("{} has no link-local address", pool.bridge)),
            }
        }
        GatewayRule::Penultimate => {
            let blocks = pool.addresses.iter().filter_map(|entry| match entry.address.net() {
                IpNet::V4(net) => Some((net, penultimate(net)?)),
                IpNet::V6(_) => None,
            });
            match blocks.into_iter().next() {
                Some((net, gateway)) => Ok((gateway.into(), format!("the last address but one of {net}"))),
                None => Err("the pool has no IPv4 block of four addresses or more".to_owned()),
            }
        }
    })
}

/// The first address of the node on an interface that is good beyond it.
fn global(node: &Surroundings, device: IfName, family: Family) -> Option<IpAddr> {
    let fits = |address: &IpAddr| match address {
        IpAddr::V4(address) => family == Family::V4 && !address.is_link_local(),
        IpAddr::V6(address) => family == Family::V6 && !address.is_unicast_link_local(),
    };
    node.links.get(device)?.addresses.iter().map(IpNet::addr).find(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::BridgeOptions;
    use crate::registry::document::Profile;

    fn naming(family: Family) -> String {
        format!("name it with --gateway{}", family.number())
    }

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }

    /// A node as the installer makes it: the card in vmbr0, and a bridge for private networks.
    fn node() -> Surroundings {
        let mut links = Links::default();
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let bridge = |list: &[&str]| Link {
            addresses: addresses(list),
            bridge: Some(BridgeOptions::default()),
            ..Link::default()
        };
        links.0.insert(name("vmbr0"), bridge(&["fe80::5/64", "198.51.100.7/24", "2001:db8:7::2/64"]));
        links.0.insert(name("vmbr1"), bridge(&["10.0.0.1/24", "fe80::6/64"]));
        links.0.insert(name("fwbr100i0"), bridge(&[]));
        for (port, master) in [("eno1", "vmbr0"), ("tap100i0", "vmbr1"), ("fwln100i0", "fwbr100i0")] {
            links.0.insert(name(port), Link { master: Some(name(master)), ..Link::default() });
        }
        let via = |text: &str| Some(text.parse().unwrap());
        let routes = vec![
            DefaultRoute { device: name("vmbr0"), via: via("198.51.100.1"), metric: 0, family: Family::V4 },
            DefaultRoute { device: name("vmbr0"), via: via("fe80::1"), metric: 1024, family: Family::V6 },
        ];
        Surroundings { links, exits: Exits { routes, ..Exits::default() }, ..Surroundings::default() }
    }

    fn pool(profile: Profile, bridge: &str, entries: &[&str]) -> Pool {
        let entries = entries.iter().map(|text| PoolAddress::new(text.parse().unwrap()));
        Pool::new(profile, name(bridge), entries.collect())
    }

    #[test]
    fn the_bridge_is_found_if_there_is_only_one() {
        let mut node = node();
        let (bridge, why) = assume_bridge(Mode::Bridged, &node).unwrap();
        assert_eq!((bridge, why.as_str()), (name("vmbr0"), "bridge vmbr0 (uplink eno1), the only one that fits"));
        let (why, hint) = assume_bridge(Mode::Routed, &node).unwrap_err();
        assert_eq!(why, "2 bridges fit: vmbr0 (uplink eno1), vmbr1 (no uplink)");
        assert_eq!(hint, "say which: --bridge BRIDGE");
        node.links.0.remove(&name("eno1"));
        let (why, _) = assume_bridge(Mode::Bridged, &node).unwrap_err();
        assert_eq!(why, "no bridge of this node has an uplink to the provider");
        assert_eq!(assume_bridge(Mode::Routed, &Surroundings::default()).unwrap_err().0, "this node has no bridge");
    }

    #[test]
    fn each_profile_has_its_gateways() {
        let both = ["203.0.113.8/29", "2001:db8:1::/64"];
        for (profile, bridge, gateway4, gateway6) in [
            (Profile::OvhBridged, "vmbr0", "198.51.100.254", "-"),
            (Profile::OvhRouted, "vmbr1", "10.0.0.1", "fe80::6"),
            (Profile::OvhVrack, "vmbr1", "203.0.113.14", "-"),
            (Profile::HetznerBridged, "vmbr0", "198.51.100.1", "fe80::1"),
            (Profile::HetznerRouted, "vmbr1", "10.0.0.1", "fe80::6"),
            (Profile::HetznerRouted, "vmbr9", "198.51.100.7", "-"),
            (Profile::DediboxBridged, "vmbr0", "62.210.0.1", "-"),
            (Profile::GenericBridged, "vmbr0", "-", "-"),
            (Profile::GenericRouted, "vmbr0", "198.51.100.7", "fe80::5"),
        ] {
            let mut pool = pool(profile, bridge, &both);
            let said = assume_gateways(&mut pool, &node(), naming);
            let shown = |address: Option<IpAddr>| address.map_or("-".to_owned(), |address| address.to_string());
            let found = (shown(pool.gateway4.map(IpAddr::V4)), shown(pool.gateway6.map(IpAddr::V6)));
            assert_eq!(found, (gateway4.to_owned(), gateway6.to_owned()), "{profile:?} on {bridge}: {said:?}");
            assert_eq!(said.iter().filter(|line| line.starts_with("assumed")).count(), {
                usize::from(gateway4 != "-") + usize::from(gateway6 != "-")
            });
        }
    }

    #[test]
    fn what_the_kernel_does_not_know_is_read() {
        let mut files = Interfaces::default();
        files.read(
            "iface eno1 inet manual\nauto vmbr0\niface vmbr0 inet static\n address 198.51.100.7/24\n gateway 198.51.100.1\n bridge-ports eno1\n\
             iface vmbr0 inet6 static\n address 2001:db8:7::2/64\n gateway fe80::1\n",
        );
        // The kernel has the bridge, but it is not up.
        let mut node = Surroundings::default();
        node.links.0.insert(name("vmbr0"), Link { bridge: Some(BridgeOptions::default()), ..Link::default() });
        node.complete(&files);
        let (_, why) = assume_bridge(Mode::Bridged, &node).unwrap();
        assert_eq!(why, "bridge vmbr0 (uplink eno1, by /etc/network/interfaces), the only one that fits");
        let mut ovh = pool(Profile::OvhBridged, "vmbr0", &["203.0.113.8/29"]);
        assert_eq!(
            assume_gateways(&mut ovh, &node, naming),
            [
                "assumed: IPv4 gateway 198.51.100.254, the node's main address 198.51.100.7 (vmbr0, by /etc/network/interfaces) with 254 at its end"
            ]
        );
        // What it knows counts more.
        let mut node = self::node();
        let before = node.clone();
        files.read("iface vmbr0 inet static\n address 192.0.2.7/24\n gateway 192.0.2.1\n");
        node.complete(&files);
        assert_eq!((node.links, node.exits, node.filed), (before.links, before.exits, BTreeSet::new()));
    }

    #[test]
    fn in_a_cluster_all_nodes_have_the_same_gateway() {
        let mut node = Surroundings { in_cluster: true, ..node() };
        node.links.0.get_mut(&name("vmbr1")).unwrap().addresses.clear();
        let mut routed = pool(Profile::HetznerRouted, "vmbr1", &["203.0.113.8/29", "2001:db8:1::/64"]);
        let why = "which each node has on this bridge while such a guest runs there";
        assert_eq!(
            assume_gateways(&mut routed, &node, naming),
            [format!("assumed: IPv4 gateway 169.254.0.1, {why}"), format!("assumed: IPv6 gateway fe80::1, {why}")]
        );
        let mut shared = pool(Profile::HetznerRouted, "vmbr0", &["2001:db8:1::/64"]);
        assert_eq!(
            assume_gateways(&mut shared, &node, naming),
            ["assumed: IPv6 gateway fe80::5, the node's link-local address on vmbr0"]
        );
    }

    #[test]
    fn what_is_named_or_unknown_is_not_assumed() {
        let mut named = pool(Profile::OvhBridged, "vmbr0", &["203.0.113.10/32"]);
        named.gateway4 = Some(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(assume_gateways(&mut named, &node(), naming), [""; 0]);
        let mut lost = pool(Profile::OvhBridged, "vmbr0", &["203.0.113.10/32"]);
        let said = assume_gateways(&mut lost, &Surroundings::default(), naming);
        assert_eq!(said, ["no IPv4 gateway: the node has no default route; name it with --gateway4"]);
        assert_eq!(lost.gateway4, None);
        let mut single = pool(Profile::OvhVrack, "vmbr0", &["203.0.113.10/32"]);
        assert_eq!(
            assume_gateways(&mut single, &node(), naming),
            ["no IPv4 gateway: the pool has no IPv4 block of four addresses or more; name it with --gateway4"]
        );
    }

    #[test]
    fn each_block_of_a_vrack_has_its_own_gateway() {
        let of = |pool: &Pool| -> Vec<String> {
            let gateway = |entry| pool.gateway_of(entry).map_or("-".to_owned(), |gateway| gateway.to_string());
            pool.addresses.iter().map(gateway).collect()
        };
        let blocks = ["192.0.2.7/32", "203.0.113.8/29", "203.0.113.16/29", "198.51.100.0/28", "2001:db8:1::/64"];
        let mut two = pool(Profile::OvhVrack, "vmbr1", &blocks);
        let said = assume_gateways(&mut two, &node(), naming);
        assert_eq!(
            said,
            [
                "assumed: IPv4 gateway 203.0.113.14, the last address but one of 203.0.113.8/29",
                "assumed: IPv4 gateway 203.0.113.22 for 203.0.113.16/29, the last address but one of it",
                "assumed: IPv4 gateway 198.51.100.14 for 198.51.100.0/28, the last address but one of it",
            ]
        );
        assert_eq!(of(&two), ["203.0.113.14", "203.0.113.14", "203.0.113.22", "198.51.100.14", "-"]);
        assert_eq!(assume_gateways(&mut two, &node(), naming), [""; 0], "once");
        // One that is named is one for its own block, or for all.
        for (named, gateways) in [
            ("203.0.113.9", ["203.0.113.9", "203.0.113.9", "203.0.113.22", "198.51.100.14", "-"]),
            ("10.0.0.1", ["10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.1", "-"]),
        ] {
            let mut pool = pool(Profile::OvhVrack, "vmbr1", &blocks);
            pool.gateway4 = Some(named.parse().unwrap());
            assume_gateways(&mut pool, &node(), naming);
            assert_eq!(of(&pool), gateways);
        }
    }
}
