//! Proxmox VE's firewall files, as far as they decide whether a guest may use its addresses.
//!
//! Source: pve-firewall `PVE/Firewall.pm`, `parse_fw_config`, `generate_tap_rules_direction` and `get_ipset_cidrs`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::guest::GuestConfig;
use crate::model::{GuestKind, NicId, Prefix, Vmid};

/// The files that count for this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firewall {
    /// `firewall/cluster.fw`.
    pub cluster: FirewallFile,
    /// `nodes/NODE/host.fw`.
    pub host: FirewallFile,
    /// `firewall/VMID.fw` of guests with assignments.
    pub guests: BTreeMap<Vmid, FirewallFile>,
}

/// One file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirewallFile {
    options: BTreeMap<String, String>,
    aliases: BTreeMap<String, IpNet>,
    /// Members of each set, as they stand there.
    sets: BTreeMap<String, Vec<String>>,
}

impl FirewallFile {
    /// Reads a file. Never fails: Proxmox VE itself skips what it does not understand.
    pub fn parse(text: &str) -> Self {
        let mut file = Self::default();
        let mut section = String::new();
        let mut set = None;
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if let Some(header) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
                let mut words = header.split_whitespace();
                section = words.next().unwrap_or_default().to_ascii_lowercase();
                set = words.next().filter(|_| section == "ipset").map(str::to_ascii_lowercase);
                if let Some(set) = &set {
                    file.sets.entry(set.clone()).or_default();
                }
                continue;
            }
            match (section.as_str(), &set) {
                ("options", _) => {
                    if let Some((key, value)) = line.split_once(':') {
                        file.options.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
                    }
                }
                ("aliases", _) => {
                    let mut words = line.split_whitespace();
                    if let (Some(name), Some(net)) = (words.next(), words.next().and_then(net)) {
                        file.aliases.insert(name.to_ascii_lowercase(), net);
                    }
                }
                ("ipset", Some(set)) => file.sets.entry(set.clone()).or_default().push(line.to_ascii_lowercase()),
                _ => {}
            }
        }
        file
    }

    /// Whether an option is set; `default` if nothing is said.
    pub fn is_on(&self, option: &str, default: bool) -> bool {
        self.options.get(option).map_or(default, |value| !matches!(value.as_str(), "0" | "no" | "off" | "false"))
    }
}

fn net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

impl Firewall {
    /// Whether it filters guests on this node at all.
    pub fn is_on(&self) -> bool {
        self.cluster.is_on("enable", false) && self.host.is_on("enable", true)
    }

    /// Whether the rules of this guest count.
    pub fn is_on_for(&self, vmid: Vmid) -> bool {
        self.is_on() && self.guests.get(&vmid).is_some_and(|file| file.is_on("enable", false))
    }

    /// The set by which a NIC's source addresses are checked, if that drops this one.
    pub fn dropping_set(&self, vmid: Vmid, config: &GuestConfig, nic: NicId, address: Prefix) -> Option<String> {
        let file = self.guests.get(&vmid)?;
        let name = format!("ipfilter-{nic}");
        let members = file.sets.get(&name);
        if members.is_none() && !file.is_on("ipfilter", false) {
            return None;
        }
        let mut allowed = false;
        for member in members.into_iter().flatten() {
            let (excluded, member) =
                member.strip_prefix('!').map_or((false, member.as_str()), |rest| (true, rest.trim()));
            let covers = self.resolve(file, member).is_some_and(|net| net.contains(&address.net()));
            if covers && excluded {
                return Some(name);
            }
            allowed |= covers;
        }
        // Proxmox VE adds what it has configured in a container itself.
        let configured = config.kind == GuestKind::Lxc
            && config.static_addresses(nic).iter().any(|net| address.single() == Some(net.addr()));
        (!allowed && !configured).then_some(name)
    }

    /// Single addresses that guests may use by their sets `ipfilter-netN`.
    pub fn allowed(&self) -> Vec<(Vmid, NicId, IpNet)> {
        let of = |(vmid, file): (&Vmid, &FirewallFile)| {
            let sets =
                file.sets.iter().filter_map(|(name, set)| Some((name.strip_prefix("ipfilter-")?.parse().ok()?, set)));
            let members = sets.flat_map(|(nic, members): (NicId, _)| members.iter().map(move |member| (nic, member)));
            let nets = members
                .filter(|(_, member)| !member.starts_with('!'))
                .filter_map(|(nic, member)| Some((nic, self.resolve(file, member)?)));
            let single = nets.filter(|(_, net)| net.prefix_len() == net.max_prefix_len());
            single.map(|(nic, net)| (*vmid, nic, net)).collect::<Vec<_>>()
        };
        self.guests.iter().flat_map(of).collect()
    }

    /// An address, or the name of one: of the guest (`guest/x`), of the datacenter (`dc/x`), or `x` of either.
    fn resolve(&self, file: &FirewallFile, member: &str) -> Option<IpNet> {
        let own = |name| file.aliases.get(name);
        let common = |name| self.cluster.aliases.get(name);
        net(member).or_else(|| {
            let found = match member.split_once('/') {
                Some(("guest", name)) => own(name),
                Some(("dc", name)) => common(name),
                _ => own(member).or_else(|| common(member)),
            };
            found.copied()
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drops(text: &str, cluster: &str, address: &str) -> Option<String> {
        let vmid: Vmid = "100".parse().unwrap();
        let firewall = Firewall {
            cluster: FirewallFile::parse(cluster),
            host: FirewallFile::default(),
            guests: BTreeMap::from([(vmid, FirewallFile::parse(text))]),
        };
        let config = GuestConfig::parse(GuestKind::Qemu, b"net0: virtio=02:00:00:00:00:64,bridge=vmbr0,firewall=1\n");
        firewall.dropping_set(vmid, &config, NicId::FIRST, address.parse().unwrap())
    }

    #[test]
    fn a_set_drops_what_is_not_in_it() {
        let dropped = Some("ipfilter-net0".to_owned());
        for (text, expected) in [
            ("", None),
            ("[OPTIONS]\n\nenable: 1\n", None),
            ("[OPTIONS]\nipfilter: 1\n", dropped.clone()),
            ("[OPTIONS]\nipfilter: 0\n", None),
            ("[IPSET ipfilter-net0] # of the first NIC\n\n203.0.113.11\n", dropped.clone()),
            ("[IPSET ipfilter-net0]\n203.0.113.10 # own\n", None),
            ("[ipset IPFILTER-NET0]\n203.0.113.0/28\n", None),
            ("[IPSET ipfilter-net0]\n203.0.113.0/28\n!203.0.113.10\n", dropped.clone()),
            ("[IPSET ipfilter-net1]\n203.0.113.11\n", None),
            ("[ALIASES]\nOwn 203.0.113.10\n[IPSET ipfilter-net0]\nguest/own\n", None),
            ("[IPSET ipfilter-net0]\ndc/pub\n", None),
            ("[IPSET ipfilter-net0]\npub\n", None),
            ("[IPSET ipfilter-net0]\nguest/pub\n", dropped.clone()),
            ("[IPSET ipfilter-net0]\n|not an address|\n", dropped.clone()),
        ] {
            assert_eq!(drops(text, "[ALIASES]\npub 203.0.113.8/29\n", "203.0.113.10"), expected, "{text:?}");
        }
        let own = "[OPTIONS]\nipfilter: 1\n";
        assert_eq!(drops(own, "", "2001:db8::10"), dropped);
        assert_eq!(
            drops("[IPSET ipfilter-net0]\n203.0.113.8/31\n", "", "203.0.113.8/29"),
            dropped,
            "only a part of it"
        );
    }

    #[test]
    fn sets_allow_single_addresses() {
        let vmid: Vmid = "100".parse().unwrap();
        let text =
            "[IPSET ipfilter-net0]\n203.0.113.10\n!203.0.113.11\npub\n203.0.113.0/24\n[IPSET other]\n203.0.113.12\n";
        let firewall = Firewall {
            cluster: FirewallFile::parse("[ALIASES]\npub 2001:db8::1\n"),
            guests: BTreeMap::from([(vmid, FirewallFile::parse(text))]),
            ..Firewall::default()
        };
        let allowed: Vec<String> = firewall.allowed().iter().map(|(.., net)| net.addr().to_string()).collect();
        assert_eq!(allowed, ["203.0.113.10", "2001:db8::1"]);
    }

    #[test]
    fn containers_have_their_own_addresses() {
        let vmid: Vmid = "200".parse().unwrap();
        let guests = BTreeMap::from([(vmid, FirewallFile::parse("[OPTIONS]\nipfilter: 1\n"))]);
        let firewall = Firewall { guests, ..Firewall::default() };
        let text = b"net0: name=eth0,bridge=vmbr0,hwaddr=02:00:00:00:00:C8,ip=203.0.113.10/24,ip6=auto,firewall=1\n";
        let config = GuestConfig::parse(GuestKind::Lxc, text);
        let drops =
            |address: &str| firewall.dropping_set(vmid, &config, NicId::FIRST, address.parse().unwrap()).is_some();
        assert_eq!([drops("203.0.113.10"), drops("203.0.113.11")], [false, true]);
    }

    proptest! {
        #[test]
        fn survives_anything(text in "(\\[|\\]|IPSET|OPTIONS|ALIASES|ipfilter-net0|ipfilter: 1|!|#|:|[ \n/a-z0-9.]){0,40}") {
            let _ = drops(&text, &text, "203.0.113.10");
        }
    }

    #[test]
    fn it_counts_only_where_it_is_on() {
        let vmid: Vmid = "100".parse().unwrap();
        for (cluster, host, guest, expected) in [
            ("", "", "[OPTIONS]\nenable: 1\n", [false, false]),
            ("[OPTIONS]\nenable: 1\n", "", "", [true, false]),
            ("[OPTIONS]\nenable: 1\n", "", "[OPTIONS]\nenable: 1\n", [true, true]),
            ("[OPTIONS]\nenable: 1\n", "[OPTIONS]\nenable: 0\n", "[OPTIONS]\nenable: 1\n", [false, false]),
        ] {
            let firewall = Firewall {
                cluster: FirewallFile::parse(cluster),
                host: FirewallFile::parse(host),
                guests: BTreeMap::from([(vmid, FirewallFile::parse(guest))]),
            };
            assert_eq!([firewall.is_on(), firewall.is_on_for(vmid)], expected, "{cluster:?} {host:?} {guest:?}");
        }
    }
}
