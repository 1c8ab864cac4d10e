//! What a network document tells the guest, whoever wrote it: Proxmox VE, this program, or somebody by hand.
//!
//! Source: cloud-init `doc/rtd/reference/network-config-format-v1.rst` and `-v2.rst`, `cloudinit/net/network_state.py`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::yaml::{self, Node, YamlError, strange, wrong};
use crate::model::MacAddr;

/// What is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) nics: Vec<ToldNic>,
    /// Name servers of all NICs.
    pub(super) name_servers: Vec<IpAddr>,
    /// What is there and not understood, so that nobody can say what is missing.
    pub(super) unknown: Vec<String>,
    /// What only some guests understand.
    pub(super) risks: Vec<String>,
}

/// What is told about one NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ToldNic {
    pub(super) name: String,
    pub(super) mac: MacAddr,
    /// Whether cloud-init waits for a NIC with exactly this spelling of the MAC, and gives up without one.
    pub(super) awaited: Option<String>,
    pub(super) addresses: Vec<IpNet>,
    /// Default gateways.
    pub(super) gateways: Vec<ToldGateway>,
    /// Prefixes that are on the link by a route of their own.
    pub(super) links: Vec<IpNet>,
    /// The other ends of the link, in ifupdown's sense.
    pub(super) peers: Vec<IpAddr>,
    pub(super) name_servers: Vec<IpAddr>,
}

/// A default gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ToldGateway {
    pub(super) address: IpAddr,
    /// Whether it stands under `routes`.
    pub(super) under_routes: bool,
    /// `on-link` of version 2, which only netplan gets to see.
    pub(super) on_link: bool,
}

/// Reads a document.
pub(super) fn parse(text: &str) -> Result<Told, YamlError> {
    let root = yaml::parse(text)?;
    // With and without the wrapper it is the same to cloud-init.
    let root = root.get("network").unwrap_or(&root);
    let Some(version) = root.get("version") else { return wrong(root.line, "there is no `version`") };
    let mut told = Told::default();
    match version.word()? {
        "1" => version_1(root, &mut told)?,
        "2" => version_2(root, &mut told)?,
        other => return strange(version.line, format!("version {other} of network documents is not known here")),
    }
    Ok(told)
}

impl Told {
    fn unknown(&mut self, line: usize, text: &str) {
        self.unknown.push(format!("line {line}: {text}"));
    }

    fn risk(&mut self, line: usize, text: &str) {
        self.risks.push(format!("line {line}: {text}"));
    }

    /// Notes every key that is not in the list: it may change anything.
    fn known(&mut self, node: &Node, keys: &[&str]) {
        for (key, value) in node.entries() {
            if !keys.contains(&key.as_str()) {
                self.unknown(value.line, &format!("`{key}` is not understood here"));
            }
        }
    }
}

impl ToldNic {
    fn new(name: &str, mac: MacAddr, awaited: Option<&str>) -> Self {
        let (name, awaited) = (name.to_owned(), awaited.map(str::to_owned));
        let (addresses, gateways, links, peers, name_servers) = Default::default();
        Self { name, mac, awaited, addresses, gateways, links, peers, name_servers }
    }
}

fn version_1(root: &Node, told: &mut Told) -> Result<(), YamlError> {
    told.known(root, &["version", "config"]);
    for part in root.get("config").map(Node::items).unwrap_or_default() {
        let Some(kind) = part.get("type") else { return wrong(part.line, "there is no `type`") };
        match kind.word()? {
            "physical" => {
                told.known(part, &["type", "name", "mac_address", "mtu", "accept-ra", "subnets"]);
                let name = text(part, "name")?.unwrap_or_default();
                let Some(mac) = mac(part, "mac_address")? else {
                    told.unknown(
                        part.line,
                        &format!("`{name}` is known by its name only, which may be another inside"),
                    );
                    continue;
                };
                let mut nic = ToldNic::new(name, mac, text(part, "mac_address")?);
                for subnet in part.get("subnets").map(Node::items).unwrap_or_default() {
                    subnet_1(subnet, &mut nic, told)?;
                }
                told.nics.push(nic);
            }
            "nameserver" => {
                told.known(part, &["type", "address", "search"]);
                let found = name_servers(part, "address", told)?;
                told.name_servers.extend(found);
            }
            "loopback" => {}
            other => told.unknown(part.line, &format!("a `{other}` is not understood here")),
        }
    }
    Ok(())
}

fn subnet_1(subnet: &Node, nic: &mut ToldNic, told: &mut Told) -> Result<(), YamlError> {
    let known = "type address netmask broadcast gateway dns_nameservers dns_search routes pointopoint";
    told.known(subnet, &known.split(' ').collect::<Vec<_>>());
    let Some(kind) = subnet.get("type") else { return wrong(subnet.line, "there is no `type`") };
    match kind.word()? {
        "static" | "static6" => {
            let Some(net) = net(subnet, "address", "netmask")? else {
                return wrong(subnet.line, "there is no `address`");
            };
            nic.addresses.push(net);
        }
        "dhcp" | "dhcp4" | "dhcp6" | "ipv6_slaac" | "ipv6_dhcpv6-stateful" | "ipv6_dhcpv6-stateless" => {}
        other => told.unknown(kind.line, &format!("a subnet of type `{other}` is not understood here")),
    }
    for address in addresses(subnet, "gateway")? {
        nic.gateways.push(ToldGateway { address, under_routes: false, on_link: false });
    }
    nic.peers.extend(addresses(subnet, "pointopoint")?);
    nic.name_servers.extend(name_servers(subnet, "dns_nameservers", told)?);
    for route in subnet.get("routes").map(Node::items).unwrap_or_default() {
        told.known(route, &["network", "destination", "netmask", "prefix", "gateway", "metric"]);
        let key = if route.get("destination").is_some() { "destination" } else { "network" };
        let mask = if route.get("prefix").is_some() { "prefix" } else { "netmask" };
        let (Some(to), Some(via)) = (net(route, key, mask)?, address(route, "gateway")?) else {
            return wrong(route.line, "a route needs `network` and `gateway`; without, cloud-init fails");
        };
        put_route(nic, to, via, false);
    }
    Ok(())
}

fn put_route(nic: &mut ToldNic, to: IpNet, via: IpAddr, on_link: bool) {
    if via.is_unspecified() {
        nic.links.push(to);
    } else if to.prefix_len() == 0 {
        nic.gateways.push(ToldGateway { address: via, under_routes: true, on_link });
    }
}

fn version_2(root: &Node, told: &mut Told) -> Result<(), YamlError> {
    told.known(root, &["version", "ethernets", "renderer"]);
    for (id, part) in root.get("ethernets").map(Node::entries).unwrap_or_default() {
        let known = "match set-name macaddress mtu optional critical wakeonlan renderer link-local accept-ra dhcp4 dhcp6 \
                     dhcp-identifier dhcp4-overrides dhcp6-overrides ipv6-privacy addresses gateway4 gateway6 nameservers \
                     routes";
        told.known(part, &known.split_whitespace().collect::<Vec<_>>());
        let matched = part.get("match").map(|part| mac(part, "macaddress")).transpose()?.flatten();
        let Some(mac) = matched else {
            told.unknown(part.line, &format!("`{id}` is known by its name only, which may be another inside"));
            continue;
        };
        let name = text(part, "set-name")?;
        let spelled = part.get("match").map(|part| text(part, "macaddress")).transpose()?.flatten();
        let mut nic = ToldNic::new(name.unwrap_or(id), mac, name.and(spelled));
        for address in part.get("addresses").map(Node::items).unwrap_or_default() {
            // An address with options is a mapping of one key.
            let word = address.entries().first().map_or_else(|| address.word(), |(key, _)| Ok(key))?;
            let Ok(net) = word.parse() else {
                return wrong(address.line, format!("`{word}` is not an address with the length of its prefix"));
            };
            nic.addresses.push(net);
        }
        for key in ["gateway4", "gateway6"] {
            let found = address(part, key)?;
            nic.gateways.extend(found.map(|address| ToldGateway { address, under_routes: false, on_link: false }));
        }
        if let Some(servers) = part.get("nameservers") {
            nic.name_servers.extend(name_servers(servers, "addresses", told)?);
        }
        for route in part.get("routes").map(Node::items).unwrap_or_default() {
            route_2(route, &mut nic, told)?;
        }
        told.nics.push(nic);
    }
    Ok(())
}

fn route_2(route: &Node, nic: &mut ToldNic, told: &mut Told) -> Result<(), YamlError> {
    told.known(route, &["to", "via", "on-link", "metric", "scope", "type", "from", "mtu"]);
    let Some(via) = address(route, "via")? else {
        if let (Some("link"), Some(to)) = (text(route, "scope")?, net(route, "to", "")?) {
            told.risk(route.line, "only netplan knows a route without `via`");
            nic.links.push(to);
            return Ok(());
        }
        return wrong(route.line, "a route needs `to` and `via`");
    };
    let to = match text(route, "to")? {
        Some("default") => {
            told.risk(route.line, "many releases of cloud-init do not know `default`, but `0.0.0.0/0` and `::/0`");
            IpNet::new(if via.is_ipv4() { [0; 4].into() } else { [0; 16].into() }, 0).ok()
        }
        _ => net(route, "to", "")?,
    };
    let Some(to) = to else { return wrong(route.line, "a route needs `to` and `via`") };
    let on_link = route.get("on-link").map(Node::flag).transpose()?.unwrap_or_default();
    put_route(nic, to, via, on_link);
    Ok(())
}

fn text<'a>(node: &'a Node, key: &str) -> Result<Option<&'a str>, YamlError> {
    node.get(key).map(Node::word).transpose()
}

fn mac(node: &Node, key: &str) -> Result<Option<MacAddr>, YamlError> {
    let Some(node) = node.get(key) else { return Ok(None) };
    match node.word()?.parse() {
        Ok(mac) => Ok(Some(mac)),
        Err(error) => wrong(node.line, format!("{key}: {error}")),
    }
}

fn one_address(node: &Node, key: &str) -> Result<IpAddr, YamlError> {
    let word = node.word()?;
    word.parse().or_else(|_| wrong(node.line, format!("{key}: `{word}` is not an address")))
}

fn address(node: &Node, key: &str) -> Result<Option<IpAddr>, YamlError> {
    node.get(key).map(|node| one_address(node, key)).transpose()
}

/// Name servers, of which several may stand in one word. Of a bad one nobody can say what becomes of the rest.
fn name_servers(node: &Node, key: &str, told: &mut Told) -> Result<Vec<IpAddr>, YamlError> {
    let mut found = Vec::new();
    for item in node.get(key).map(Node::items).unwrap_or_default() {
        for word in item.word()?.split_whitespace() {
            match word.parse() {
                Ok(address) => found.push(address),
                Err(_) => told.unknown(item.line, &format!("the name server `{word}` is not an address")),
            }
        }
    }
    Ok(found)
}

/// One address or several.
fn addresses(node: &Node, key: &str) -> Result<Vec<IpAddr>, YamlError> {
    node.get(key).map(Node::items).unwrap_or_default().iter().map(|item| one_address(item, key)).collect()
}

/// An address with its prefix, of which the length may stand under another key, as a length or as a mask.
fn net(node: &Node, key: &str, mask_key: &str) -> Result<Option<IpNet>, YamlError> {
    let Some(word) = text(node, key)? else { return Ok(None) };
    if word.contains('/') {
        return match word.parse() {
            Ok(net) => Ok(Some(net)),
            Err(_) => wrong(node.line, format!("{key}: `{word}` is not an address with the length of its prefix")),
        };
    }
    let Ok(address) = word.parse::<IpAddr>() else {
        return wrong(node.line, format!("{key}: `{word}` is not an address"));
    };
    let length = match text(node, mask_key)? {
        // What cloud-init takes for it.
        None if address.is_ipv4() => Some(24),
        None => Some(64),
        Some(mask) => mask.parse().ok().or_else(|| ipnet::ip_mask_to_prefix(mask.parse().ok()?).ok()),
    };
    match length.and_then(|length| IpNet::new(address, length).ok()) {
        Some(net) => Ok(Some(net)),
        None => wrong(node.line, format!("`{mask_key}` is neither a length nor a mask")),
    }
}
