//! Existing networks against rules, and against a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use serde::Serialize;

use super::document::{Plan, Subnet};
use super::{Member, Network, Port, Used};
use crate::model::{IfName, Severity, Vmid};

/// Something that is not as planned, or cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Finding {
    /// Name that never changes.
    pub code: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What is so.
    pub sentence: String,
    /// What to do.
    pub remedy: String,
}

/// A bridge, or a VLAN of it.
type Segment = (IfName, Option<u16>);

/// Looks for mistakes, the worst first.
pub fn check(network: &Network, plan: Option<&Plan>) -> Vec<Finding> {
    let mut findings = overlaps(network);
    findings.extend(host_bits(network));
    findings.extend(open_zones(network));
    findings.extend(single_routers(network));
    findings.extend(unaware_bridges(network, plan));
    if let Some(plan) = plan {
        findings.extend(outside_plan(network, plan));
        findings.extend(misplaced(network, plan));
    }
    findings.sort_by(|one, two| (one.severity, one.code).cmp(&(two.severity, two.code)));
    findings.dedup();
    findings
}

fn everybody(network: &Network) -> impl Iterator<Item = (Vmid, &Member)> {
    network.members.iter().chain(&network.routers).map(|(vmid, member)| (*vmid, member))
}

/// Two subnets of which one lies in the other. The same subnet twice is one subnet with two interfaces in it.
fn overlaps(network: &Network) -> Vec<Finding> {
    let is_net = |used: &&Used| used.net.prefix_len() < used.net.max_prefix_len();
    let mut used: Vec<(IpNet, &Used)> =
        network.used.iter().filter(is_net).map(|used| (used.net.trunc(), used)).collect();
    // A subnet comes right after those that hold it.
    used.sort_by_key(|(net, used)| (net.network(), net.prefix_len(), *used));
    let mut findings = Vec::new();
    let mut outer: Vec<(IpNet, &Used)> = Vec::new();
    for (net, inner) in used {
        outer.retain(|(holder, _)| holder.contains(&net));
        if let Some((holder, by)) = outer.iter().rev().find(|(holder, by)| *holder != net && by.by != inner.by) {
            findings.push(Finding {
                code: "overlapping-subnets",
                severity: Severity::Error,
                sentence: format!(
                    "{net} of {} lies in {holder} of {}: who is in one of them does not reach the other",
                    inner.by, by.by
                ),
                remedy: "give one of them a prefix that nobody has; `pve-public-ip partition plan` finds one"
                    .to_owned(),
            });
        }
        outer.push((net, inner));
    }
    findings
}

/// Guests with an address in this network, and the network itself.
fn inhabitants(network: &Network, net: IpNet) -> BTreeSet<Vmid> {
    let lives = |port: &Port| port.addresses.iter().any(|own| net.contains(&own.addr()));
    everybody(network).filter(|(_, member)| member.ports.iter().any(lives)).map(|(vmid, _)| vmid).collect()
}

/// An address such as 192.168.1.1/16 reads as if its network were 192.168.1.0.
fn host_bits(network: &Network) -> Vec<Finding> {
    let mut misread: BTreeMap<(Ipv4Net, Ipv4Net), Vec<String>> = BTreeMap::new();
    for used in &network.used {
        let IpNet::V4(net) = used.net else { continue };
        let Ok(read) = Ipv4Net::new(net.addr(), 24).map(|net| net.trunc()) else { continue };
        if net.prefix_len() < 24 && read.network() != net.network() {
            misread.entry((net.trunc(), read)).or_default().push(format!("{net} of {}", used.by));
        }
    }
    let finding = |((whole, read), owners): ((Ipv4Net, Ipv4Net), Vec<String>)| {
        let room = (1u64 << (32 - u32::from(whole.prefix_len()))) - 2;
        let guests = inhabitants(network, whole.into()).len();
        Finding {
            code: "host-bits",
            severity: Severity::Warning,
            sentence: format!(
                "{}: the network is {whole}, from {} to {}, with room for {room} addresses; {guests} guests have one there",
                super::render::counted(&owners),
                whole.network(),
                whole.broadcast()
            ),
            remedy: format!("if {read} is meant, change the length to /24 wherever it is configured"),
        }
    };
    misread.into_iter().map(finding).collect()
}

fn segments(network: &Network) -> BTreeMap<Segment, Vec<(Vmid, &Member, &Port)>> {
    let mut segments: BTreeMap<Segment, Vec<(Vmid, &Member, &Port)>> = BTreeMap::new();
    for (vmid, member) in everybody(network) {
        for port in &member.ports {
            segments.entry((port.bridge, port.tag)).or_default().push((vmid, member, port));
        }
    }
    segments
}

fn segment_name((bridge, tag): Segment) -> String {
    tag.map_or_else(|| bridge.to_string(), |tag| format!("{bridge} VLAN {tag}"))
}

/// Guests of different zones on one segment: a bridge has no rules of its own.
fn open_zones(network: &Network) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (segment, ports) in segments(network) {
        let mut zones: BTreeMap<&str, Vec<(Vmid, bool)>> = BTreeMap::new();
        for (vmid, member, port) in ports.into_iter().filter(|(vmid, ..)| !network.routers.contains_key(vmid)) {
            let zone = member.labels.zone.as_deref().unwrap_or("no zone");
            zones.entry(zone).or_default().push((vmid, port.firewall));
        }
        let named = zones.keys().any(|zone| *zone != "no zone");
        let open: Vec<Vmid> =
            zones.values().flatten().filter(|(_, firewall)| !firewall).map(|(vmid, _)| *vmid).collect();
        if zones.len() < 2 || !named || open.is_empty() {
            continue;
        }
        let parts: Vec<String> = zones
            .iter()
            .map(|(zone, guests)| {
                let prefix = if *zone == "no zone" { "of no zone" } else { "of zone" };
                let name = if *zone == "no zone" { String::new() } else { format!(" {zone}") };
                format!("{} {prefix}{name}", list(guests.iter().map(|(vmid, _)| *vmid)))
            })
            .collect();
        findings.push(Finding {
            code: "open-between-zones",
            severity: Severity::Error,
            sentence: format!(
                "on {} nothing filters between {}: the NIC firewall of {} is off",
                segment_name(segment),
                parts.join(" and "),
                list(open)
            ),
            remedy: "give each zone a VLAN of its own: `pve-public-ip partition plan --strategy hybrid --base PREFIX`"
                .to_owned(),
        });
    }
    findings
}

/// `guest 101`, `guests 101, 102 and 3 more`.
fn list(guests: impl IntoIterator<Item = Vmid>) -> String {
    let guests: BTreeSet<Vmid> = guests.into_iter().collect();
    let shown: Vec<String> = guests.iter().take(5).map(ToString::to_string).collect();
    let rest = guests.len() - shown.len();
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{} {}{more}", if guests.len() == 1 { "guest" } else { "guests" }, shown.join(", "))
}

/// A segment that one guest alone leads out of.
fn single_routers(network: &Network) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (segment, ports) in segments(network) {
        if network.public.contains(&segment.0) {
            continue;
        }
        let (routers, others): (Vec<_>, Vec<_>) =
            ports.into_iter().partition(|(vmid, ..)| network.routers.contains_key(vmid));
        let ([(router, _, port)], false) = (&routers[..], others.is_empty()) else { continue };
        let own: BTreeSet<IpAddr> = port.addresses.iter().map(IpNet::addr).collect();
        let through: BTreeSet<IpAddr> = others
            .iter()
            .flat_map(|(.., port)| &port.gateways)
            .filter(|gateway| own.contains(gateway))
            .copied()
            .collect();
        let gateway = match through.first() {
            Some(gateway) => format!("; their gateway {gateway} is its {}, not the node", port.nic),
            None => String::new(),
        };
        findings.push(Finding {
            code: "single-router",
            severity: Severity::Info,
            sentence: format!(
                "guest {router} alone leads out of {}: when it stops, nobody reaches {}{gateway}",
                segment_name(segment),
                list(others.iter().map(|(vmid, ..)| *vmid))
            ),
            remedy: "a second router guest on another node, with a shared address between them (CARP, VRRP)".to_owned(),
        });
    }
    findings
}

/// Tags on bridges that do not know VLANs: Proxmox VE makes a bridge for each of them, which routers and trunks do not see.
fn unaware_bridges(network: &Network, plan: Option<&Plan>) -> Vec<Finding> {
    let is_unaware = |bridge: &IfName| network.bridges.get(bridge) == Some(&false);
    let mut tagged: BTreeMap<IfName, BTreeSet<Vmid>> = BTreeMap::new();
    let mut planned: BTreeSet<IfName> = BTreeSet::new();
    for (vmid, member) in everybody(network) {
        for port in member.ports.iter().filter(|port| is_unaware(&port.bridge)) {
            if port.tag.is_some() {
                tagged.entry(port.bridge).or_default().insert(vmid);
            }
            let is_placed = plan.is_some_and(|plan| plan.subnets.iter().any(|subnet| subnet.guests.contains(&vmid)));
            if is_placed && !network.public.contains(&port.bridge) {
                planned.insert(port.bridge);
            }
        }
    }
    let mut findings: Vec<Finding> = Vec::new();
    for (bridge, guests) in &tagged {
        let sentence = format!(
            "there are tags on {bridge}, which is not VLAN-aware (of {}): each VLAN becomes a bridge {bridge}vTAG of its own, and without a port that leads out of {bridge} a VLAN ends at its node",
            list(guests.iter().copied())
        );
        let remedy = format!("`bridge-vlan-aware yes` for {bridge} in /etc/network/interfaces, then `ifreload -a`");
        findings.push(Finding { code: "vlan-unaware-bridge", severity: Severity::Warning, sentence, remedy });
    }
    for bridge in planned.into_iter().filter(|bridge| !tagged.contains_key(bridge)) {
        let sentence = format!("{bridge} is not VLAN-aware, and the plan has VLANs for guests that are on it");
        let remedy = format!("`bridge-vlan-aware yes` for {bridge} in /etc/network/interfaces, then `ifreload -a`");
        findings.push(Finding { code: "vlan-unaware-bridge", severity: Severity::Warning, sentence, remedy });
    }
    findings
}

/// What somebody else has of the plan's subnets.
fn outside_plan(network: &Network, plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    for used in &network.used {
        let IpNet::V4(net) = used.net else { continue };
        let net = net.trunc();
        let overlaps = |subnet: &&Subnet| net.contains(&subnet.subnet) && net != subnet.subnet;
        if let Some(subnet) = plan.subnets.iter().find(overlaps) {
            findings.push(Finding {
                code: "plan-overlaps",
                severity: Severity::Error,
                sentence: format!("{net} of {} covers {} of the plan ({})", used.by, subnet.subnet, subnet.name),
                remedy: format!("take {net} off, or plan with another --base"),
            });
        }
    }
    findings
}

/// Guests that are not where the plan has them.
fn misplaced(network: &Network, plan: &Plan) -> Vec<Finding> {
    let places: BTreeMap<Vmid, &Subnet> =
        plan.subnets.iter().flat_map(|subnet| subnet.guests.iter().map(move |vmid| (*vmid, subnet))).collect();
    let mut findings = Vec::new();
    for (vmid, member) in &network.members {
        let behind: Vec<&Port> = member.ports.iter().filter(|port| !network.public.contains(&port.bridge)).collect();
        let Some(subnet) = places.get(vmid) else {
            findings.push(Finding {
                code: "not-in-plan",
                severity: Severity::Warning,
                sentence: format!("guest {vmid} is not in the plan"),
                remedy:
                    "`pve-public-ip partition plan` with the same --plan FILE finds a place for it; nobody else moves"
                        .to_owned(),
            });
            continue;
        };
        let place = format!("{} ({}, VLAN {})", subnet.name, subnet.subnet, subnet.vlan);
        for port in behind {
            let is_inside = |net: &&IpNet| match net {
                IpNet::V4(net) => subnet.subnet.contains(&net.addr()),
                IpNet::V6(net) => subnet.subnet6.is_none_or(|own| own.contains(&net.addr())),
            };
            let strays: Vec<String> =
                port.addresses.iter().filter(|net| !is_inside(net)).map(ToString::to_string).collect();
            if !strays.is_empty() {
                findings.push(Finding {
                    code: "wrong-subnet",
                    severity: Severity::Error,
                    sentence: format!("guest {vmid} {} has {}, and belongs into {place}", port.nic, strays.join(", ")),
                    remedy: format!(
                        "give it an address from {} to {}, gateway {}",
                        subnet.dhcp[0], subnet.dhcp[1], subnet.gateway
                    ),
                });
            }
            // A VNet has the tag itself, and its ports have none.
            let is_vnet = port.bridge.as_str() == super::sdn::vnet(subnet.vlan);
            if port.tag != Some(subnet.vlan) && !is_vnet {
                findings.push(Finding {
                    code: "wrong-vlan",
                    severity: Severity::Error,
                    sentence: format!(
                        "guest {vmid} {} is on {}, and belongs into {place}",
                        port.nic,
                        segment_name((port.bridge, port.tag))
                    ),
                    remedy: format!(
                        "set `tag={}` for {}, or put it on the VNet {}",
                        subnet.vlan,
                        port.nic,
                        super::sdn::vnet(subnet.vlan)
                    ),
                });
            }
        }
    }
    findings
}
