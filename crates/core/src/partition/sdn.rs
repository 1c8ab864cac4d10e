//! Proxmox VE's SDN: what it has, and the commands that would make a plan of it.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::document::{Plan, Subnet};
use super::weigh::INTERNET;
use super::{Rule, Used};
use crate::model::IfName;
use crate::model::text::quoted;

/// What SDN is configured with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sdn {
    /// Subnets.
    pub used: Vec<Used>,
    /// VLANs of `VNets`.
    pub vlans: Vec<u16>,
    /// Names of `VNets`: they are bridges of every node.
    pub vnets: Vec<IfName>,
}

/// Reads `sdn/subnets.cfg` and `sdn/vnets.cfg`. What is not understood is passed over, as it is by Proxmox VE.
///
/// Source: pve-network `PVE/Network/SDN/SubnetPlugin.pm` (a section is called `ZONE-ADDRESS-LENGTH`), `VnetPlugin.pm`.
pub fn parse_sdn(subnets: &str, vnets: &str) -> Sdn {
    let mut sdn = Sdn::default();
    for id in subnets.lines().filter_map(|line| line.strip_prefix("subnet:")) {
        let id = id.trim();
        let mut parts = id.rsplitn(3, '-');
        let (length, address) = (parts.next(), parts.next());
        let net = length.zip(address).and_then(|(length, address)| format!("{address}/{length}").parse::<IpNet>().ok());
        sdn.used.extend(net.map(|net| Used { net, by: format!("SDN subnet {id}") }));
    }
    for line in vnets.lines() {
        if let Some(name) = line.strip_prefix("vnet:") {
            sdn.vnets.extend(name.trim().parse::<IfName>().ok());
        } else if let Some(tag) = line.trim_start().strip_prefix("tag ") {
            sdn.vlans.extend(tag.trim().parse::<u16>().ok());
        }
    }
    sdn
}

/// Name of the `VNet` of a VLAN: at most eight characters, as pve-network wants it.
pub(super) fn vnet(vlan: u16) -> String {
    format!("vlan{vlan}")
}

/// Name of the firewall group for what may come into a subnet. Source: pve-firewall `PVE/Firewall.pm`,
/// `security_group_name_pattern`: 2 to 18 characters.
fn firewall_group(vlan: u16) -> String {
    format!("to-vlan{vlan}")
}

/// A shell script that only prints its commands unless it is told `--apply`: zone, `VNets`, subnets, firewall groups.
///
/// `bridge` is VLAN-aware and the same on all nodes; the `VNets` are VLANs of it.
pub fn script(plan: &Plan, zone: &str, bridge: IfName) -> String {
    let mut text = format!(
        "#!/bin/sh\n\
         # Subnets of a plan ({}, base {}) for Proxmox VE's SDN.\n\
         # Without an argument it only prints the commands. Read them, then run it with --apply on one node.\n\
         # Needs Proxmox VE 8.1 or later and the VLAN-aware bridge {bridge} on every node. What exists already makes it stop.\n\
         set -eu\n\
         apply=${{1-}}\n\
         run() {{\n\
         \x20   printf '%s\\n' \"$*\"\n\
         \x20   [ \"$apply\" != --apply ] || \"$@\"\n\
         }}\n\n",
        plan.strategy.as_str(),
        plan.base
    );
    let mut run = |words: &[&str]| {
        let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        let _ = writeln!(text, "run {}", words.join(" "));
    };
    run(&["pvesh", "create", "/cluster/sdn/zones", "--type", "vlan", "--zone", zone, "--bridge", bridge.as_str()]);
    for subnet in &plan.subnets {
        let (vnet, tag) = (vnet(subnet.vlan), subnet.vlan.to_string());
        run(&[
            "pvesh",
            "create",
            "/cluster/sdn/vnets",
            "--vnet",
            &vnet,
            "--zone",
            zone,
            "--tag",
            &tag,
            "--alias",
            &subnet.name,
        ]);
        let path = format!("/cluster/sdn/vnets/{vnet}/subnets");
        let (net, gateway) = (subnet.subnet.to_string(), subnet.gateway.to_string());
        run(&["pvesh", "create", &path, "--type", "subnet", "--subnet", &net, "--gateway", &gateway]);
        if let (Some(net), Some(gateway)) = (subnet.subnet6, subnet.gateway6) {
            let (net, gateway) = (net.to_string(), gateway.to_string());
            run(&["pvesh", "create", &path, "--type", "subnet", "--subnet", &net, "--gateway", &gateway]);
        }
    }
    for subnet in &plan.subnets {
        let incoming: Vec<&Rule> = plan.rules.iter().filter(|rule| rule.to == subnet.name).collect();
        if !incoming.is_empty() {
            firewall(plan, subnet, &incoming, &mut run);
        }
    }
    run(&["pvesh", "set", "/cluster/sdn"]);
    text + "\n[ \"$apply\" = --apply ] || echo 'nothing was changed: run it with --apply' >&2\n"
}

/// A security group that admits what is declared. Whoever applies it to a guest decides what else comes in.
fn firewall(plan: &Plan, subnet: &Subnet, rules: &[&Rule], run: &mut impl FnMut(&[&str])) {
    let group = firewall_group(subnet.vlan);
    // Without blanks, so that what the script prints can be pasted.
    let comment = format!("into:{}", subnet.name);
    run(&["pvesh", "create", "/cluster/firewall/groups", "--group", &group, "--comment", &comment]);
    let path = format!("/cluster/firewall/groups/{group}");
    for rule in rules {
        let from = plan.subnets.iter().find(|other| other.name == rule.from);
        let sources: Vec<Option<String>> = match from {
            Some(from) => {
                let six = from.subnet6.map(|net| Some(net.to_string()));
                std::iter::once(Some(from.subnet.to_string())).chain(six).collect()
            }
            None => vec![None],
        };
        for source in sources {
            let mut words = vec!["pvesh", "create", &path, "--type", "in", "--action", "ACCEPT", "--enable", "1"];
            if let Some(source) = &source {
                words.extend(["--source", source]);
            }
            let (protocol, ports) = rule.port.map(super::document::Service::parts).unzip();
            // Of two families the protocol has two names.
            let is_six = source.as_ref().is_some_and(|source| source.contains(':'));
            if let Some(protocol) = protocol {
                words.extend(["--proto", if protocol == "icmp" && is_six { "ipv6-icmp" } else { protocol }]);
            }
            let ports = ports.flatten();
            if let Some(ports) = &ports {
                words.extend(["--dport", ports]);
            }
            let comment = format!("from:{}", if from.is_some() { rule.from.as_str() } else { INTERNET });
            words.extend(["--comment", &comment]);
            run(&words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_sdn_has() {
        let subnets = "subnet: my-zone-10.0.0.0-24\n\tvnet v1\n\tgateway 10.0.0.1\n\nsubnet: z-fd00::-64\n\tvnet v1\n\nsubnet: broken\n";
        let vnets = "vnet: v1\n\tzone my-zone\n\ttag 100\n\nvnet: v2\n\tzone z\n";
        let sdn = parse_sdn(subnets, vnets);
        let used: Vec<String> = sdn.used.iter().map(|used| format!("{} {}", used.net, used.by)).collect();
        assert_eq!(used, ["10.0.0.0/24 SDN subnet my-zone-10.0.0.0-24", "fd00::/64 SDN subnet z-fd00::-64"]);
        assert_eq!(sdn.vlans, [100]);
        assert_eq!(sdn.vnets, ["v1".parse().unwrap(), "v2".parse().unwrap()]);
    }

    #[test]
    fn words_are_quoted() {
        assert_eq!(quoted("10.0.0.0/24"), "10.0.0.0/24");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted("$(x)"), "'$(x)'");
        assert_eq!(quoted(""), "''");
    }
}
