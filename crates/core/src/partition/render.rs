//! Plans for people: tables, pictures, stanzas for `/etc/network/interfaces`.

use std::collections::{BTreeMap, BTreeSet};

use super::document::{Plan, Subnet};
use super::weigh::INTERNET;
use super::{Member, Network, Strategy, Weight};
use crate::model::{IfName, Vmid};
use crate::topology::{Edge, Item, Kind, Map};

/// `101, 102, 103 and 5 more`.
pub(super) fn counted(names: &[String]) -> String {
    /// As many as a line of a table holds.
    const SHOWN: usize = 8;
    let rest = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len() - rest].join(", ");
    if rest > 0 { format!("{shown} and {rest} more") } else { shown }
}

fn some(guests: &[Vmid]) -> String {
    counted(&guests.iter().map(ToString::to_string).collect::<Vec<_>>())
}

/// Name, VLAN, subnets, gateways, DHCP range, how many guests and which.
pub fn subnet_rows(plan: &Plan) -> Vec<Vec<String>> {
    let lines = |one: String, two: Option<String>| two.map_or_else(|| one.clone(), |two| format!("{one} {two}"));
    let row = |subnet: &Subnet| {
        vec![
            subnet.name.clone(),
            subnet.vlan.to_string(),
            lines(subnet.subnet.to_string(), subnet.subnet6.map(|net| net.to_string())),
            lines(subnet.gateway.to_string(), subnet.gateway6.map(|ip| ip.to_string())),
            format!("{}-{}", subnet.dhcp[0], subnet.dhcp[1]),
            subnet.guests.len().to_string(),
            some(&subnet.guests),
        ]
    };
    plan.subnets.iter().map(row).collect()
}

/// From, to, what.
pub fn rule_rows(plan: &Plan) -> Vec<Vec<String>> {
    let mut ports: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for rule in &plan.rules {
        let port = rule.port.map_or_else(|| "everything".to_owned(), |port| port.to_string());
        ports.entry((&rule.from, &rule.to)).or_default().push(port);
    }
    ports.into_iter().map(|((from, to), ports)| vec![from.to_owned(), to.to_owned(), ports.join(", ")]).collect()
}

/// A line for each strategy that has a plan, or why it has none.
pub fn weight_rows(weights: &[(Strategy, Result<Weight, String>)]) -> Vec<Vec<String>> {
    let number = |value: Option<usize>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let row = |(strategy, weight): &(Strategy, Result<Weight, String>)| {
        let mut row = vec![strategy.as_str().to_owned()];
        match weight {
            Ok(weight) => row.extend([
                weight.subnets.to_string(),
                number(weight.crossing_flows),
                number(weight.rules),
                weight.beside_critical.to_string(),
                weight.used_addresses.to_string(),
                weight.free_addresses.to_string(),
            ]),
            Err(reason) => row.extend(std::iter::once(reason.clone()).chain(vec![String::new(); 5])),
        }
        row
    };
    weights.iter().map(row).collect()
}

/// A drawing that is being made.
#[derive(Default)]
struct Canvas {
    map: Map,
}

impl Canvas {
    fn item(&mut self, kind: Kind, title: impl Into<String>, details: Vec<String>) -> usize {
        self.map.items.push(Item { kind, title: title.into(), details });
        self.map.items.len() - 1
    }

    fn edge(&mut self, from: usize, to: usize, label: Option<String>) {
        self.map.edges.push(Edge { from, to, nic: label });
    }

    fn guest(&mut self, vmid: Vmid, member: Option<&Member>) -> usize {
        let name = member.and_then(|member| member.name.as_ref()).map(|name| format!(" {name}")).unwrap_or_default();
        let labels = member.map(|member| &member.labels);
        let label = |kind: &str, value: Option<&String>| value.map(|value| format!("{kind} {value}"));
        let details = [
            label("app", labels.and_then(|labels| labels.app.as_ref())),
            label("service", labels.and_then(|labels| labels.service.as_ref())),
            label("zone", labels.and_then(|labels| labels.zone.as_ref())),
        ];
        self.item(Kind::Guest, format!("guest {vmid}{name}"), details.into_iter().flatten().collect())
    }
}

/// The network as it is, as far as the plan is about it.
pub fn today_map(network: &Network) -> Map {
    let mut canvas = Canvas::default();
    let provider = canvas.item(Kind::Provider, "provider", Vec::new());
    let mut segments: BTreeMap<(IfName, Option<u16>), usize> = BTreeMap::new();
    let guests = || network.routers.iter().chain(&network.members);
    // Bridges that lead out come first, so that routers hang on them and not on what is behind.
    let ports: BTreeSet<(bool, IfName, Option<u16>)> = guests()
        .flat_map(|(_, member)| &member.ports)
        .map(|port| (!network.public.contains(&port.bridge), port.bridge, port.tag))
        .collect();
    for (is_behind, bridge, tag) in ports {
        let title = tag.map_or_else(|| bridge.to_string(), |tag| format!("{bridge} VLAN {tag}"));
        let item = canvas.item(if tag.is_some() { Kind::Vlan } else { Kind::Bridge }, title, Vec::new());
        segments.insert((bridge, tag), item);
        if !is_behind {
            canvas.edge(provider, item, None);
        }
    }
    for (vmid, member) in guests() {
        let guest = canvas.guest(*vmid, Some(member));
        for port in &member.ports {
            let segment = segments[&(port.bridge, port.tag)];
            let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
            let label = format!("{} {}", port.nic, addresses.join(", ")).trim_end().to_owned();
            let is_way_in = network.routers.contains_key(vmid) && !network.public.contains(&port.bridge);
            let (from, to) = if is_way_in { (guest, segment) } else { (segment, guest) };
            canvas.edge(from, to, Some(label));
        }
    }
    canvas.map
}

/// The network as it is planned: provider, routers, subnets, guests, and what may pass between subnets.
pub fn planned_map(network: &Network, plan: &Plan) -> Map {
    let mut canvas = Canvas::default();
    let provider = canvas.item(Kind::Provider, "provider", Vec::new());
    let mut gates = Vec::new();
    for vmid in &plan.routers {
        let router = canvas.guest(*vmid, network.routers.get(vmid));
        canvas.edge(provider, router, None);
        gates.push(router);
    }
    if gates.is_empty() {
        let node = canvas.item(Kind::Node, "the nodes", Vec::new());
        canvas.edge(provider, node, None);
        gates.push(node);
    }
    let mut items: BTreeMap<&str, usize> = BTreeMap::from([(INTERNET, provider)]);
    for subnet in &plan.subnets {
        let mut details = vec![subnet.subnet.to_string()];
        details.extend(subnet.subnet6.map(|net| net.to_string()));
        details.push(format!("gateway {}", subnet.gateway));
        let item = canvas.item(Kind::Vlan, format!("{} VLAN {}", subnet.name, subnet.vlan), details);
        for gate in &gates {
            canvas.edge(*gate, item, None);
        }
        items.insert(&subnet.name, item);
        for vmid in &subnet.guests {
            let guest = canvas.guest(*vmid, network.members.get(vmid));
            canvas.edge(item, guest, None);
        }
    }
    for row in rule_rows(plan) {
        if let (Some(from), Some(to)) = (items.get(row[0].as_str()), items.get(row[1].as_str())) {
            canvas.edge(*from, *to, Some(format!("allow {}", row[2])));
        }
    }
    canvas.map
}

/// What `/etc/network/interfaces` needs where there is no SDN: a VLAN-aware bridge, and the node's gateways if no guest
/// routes.
pub fn stanzas(plan: &Plan, bridge: IfName) -> String {
    let vlans: Vec<String> = plan.subnets.iter().map(|subnet| subnet.vlan.to_string()).collect();
    let mut text = format!(
        "# Plan: {}, base {}. For each node; an existing stanza of {bridge} keeps its other lines.\n\
         auto {bridge}\niface {bridge} inet manual\n\tbridge-ports none\n\tbridge-stp off\n\tbridge-fd 0\n\
         \tbridge-vlan-aware yes\n\tbridge-vids {}\n",
        plan.strategy.as_str(),
        plan.base,
        vlans.join(" ")
    );
    if !plan.routers.is_empty() {
        let routers: Vec<String> = plan.routers.iter().map(ToString::to_string).collect();
        text += &format!(
            "\n# The gateways are addresses of guest {}: its NIC on {bridge} needs trunks={}\n",
            routers.join(", "),
            vlans.join(";")
        );
        return text;
    }
    for subnet in &plan.subnets {
        let length = subnet.subnet.prefix_len();
        text += &format!(
            "\n# {}\nauto {bridge}.{vlan}\niface {bridge}.{vlan} inet static\n\taddress {}/{length}\n",
            subnet.name,
            subnet.gateway,
            vlan = subnet.vlan
        );
        if let Some(gateway) = subnet.gateway6 {
            text += &format!("iface {bridge}.{} inet6 static\n\taddress {gateway}/64\n", subnet.vlan);
        }
    }
    text
}
