//! Traces of addresses that guests use: in documents and rules that somebody else has made, and in what their ports send.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::guest::GuestConfig;
use crate::model::{GuestKind, IfName, MacAddr, NicId, Vmid};

/// Where an address was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// `ipconfigN` of a VM, `netN` of a container.
    Configuration,
    /// A network document of `cicustom`.
    Document,
    /// A permanent entry of the node's neighbour table that somebody else has made.
    StaticNeighbour,
    /// The node's neighbour table.
    Neighbours,
    /// A route of the node to one address.
    Route,
    /// A set `ipfilter-netN` of Proxmox VE's firewall.
    FirewallSet,
    /// What Proxmox VE's SDN has given away.
    Sdn,
    /// A rule of another table, loaded by this program.
    Rule(&'static str),
    /// Sent by a port: the sender of ARP.
    Arp,
    /// Sent by a port: the source of a neighbour solicitation or advertisement.
    Discovery,
    /// Sent by a port: the source of any packet.
    Packets,
}

impl Place {
    /// As a table shows it.
    pub fn name(self) -> String {
        let name = match self {
            Self::Configuration => "configuration",
            Self::Document => "cicustom",
            Self::StaticNeighbour => "static neighbour",
            Self::Neighbours => "neighbour table",
            Self::Route => "route",
            Self::FirewallSet => "firewall set",
            Self::Sdn => "SDN",
            Self::Rule(program) => return format!("rule of {program}"),
            Self::Arp => "ARP",
            Self::Discovery => "neighbour discovery",
            Self::Packets => "packets",
        };
        name.to_owned()
    }
}

/// Who uses an address, as far as the place says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A guest's NIC.
    Nic(Vmid, NicId),
    /// Whoever has this MAC.
    Mac(MacAddr),
    /// Whoever is behind this port.
    Port(IfName),
    /// A frame that came from this port, with this MAC as its sender.
    Sender(IfName, MacAddr),
    /// Somebody behind this bridge.
    Bridge(IfName),
}

/// An address in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trace {
    /// Who uses it.
    pub who: Who,
    /// The address.
    pub address: IpAddr,
    /// Where that was seen.
    pub place: Place,
}

/// Everything that is known beside configurations and the neighbour table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    /// The traces.
    pub all: BTreeSet<Trace>,
    /// Ports that claimed more addresses than are kept of one.
    pub overfull: BTreeSet<IfName>,
}

impl Traces {
    /// What is known of a NIC. A bridge alone says nothing about who of its guests it is.
    pub fn of(&self, vmid: Vmid, config: &GuestConfig, nic: NicId, mac: MacAddr) -> BTreeMap<IpAddr, BTreeSet<Place>> {
        let ports = ports(vmid, config, nic);
        let is_guests = |port: IfName| crate::links::is_guest_port(port.as_str());
        let is_its = |who: Who| match who {
            Who::Nic(of, id) => (of, id) == (vmid, nic),
            Who::Mac(of) => of == mac,
            Who::Port(port) => ports.contains(&port),
            // Elsewhere it may be a guest of another node; but nobody is what another guest says of itself.
            Who::Sender(port, of) => of == mac && (ports.contains(&port) || !is_guests(port)),
            Who::Bridge(_) => false,
        };
        let mut found: BTreeMap<IpAddr, BTreeSet<Place>> = BTreeMap::new();
        for Trace { address, place, .. } in self.all.iter().filter(|trace| is_its(trace.who)) {
            found.entry(*address).or_default().insert(*place);
        }
        found
    }

    /// What the ports say against a NIC with this MAC having an address. `known`: the MACs of all guests.
    pub fn against(
        &self,
        (vmid, config, nic, mac): (Vmid, &GuestConfig, NicId, MacAddr),
        address: IpAddr,
        known: &BTreeSet<MacAddr>,
    ) -> Option<String> {
        let ports = ports(vmid, config, nic);
        let senders = self.all.iter().filter(|trace| trace.address == address && trace.place != Place::Packets);
        let other = senders.filter_map(|trace| match trace.who {
            Who::Sender(port, of) if of != mac && (ports.contains(&port) || !known.contains(&of)) => Some((port, of)),
            Who::Sender(..) | Who::Nic(..) | Who::Mac(_) | Who::Port(_) | Who::Bridge(_) => None,
        });
        other.min().map(|(port, of)| format!("MAC {of} on {port} uses it, too"))
    }

    /// Whether the NIC's port claimed more addresses than are kept.
    pub fn is_overfull(&self, vmid: Vmid, config: &GuestConfig, nic: NicId) -> bool {
        ports(vmid, config, nic).iter().any(|port| self.overfull.contains(port))
    }

    /// Addresses that the node has a route to on a bridge.
    pub fn routed(&self) -> impl Iterator<Item = (IpAddr, IfName)> {
        self.all.iter().filter_map(|trace| match trace.who {
            Who::Bridge(bridge) if trace.place == Place::Route => Some((trace.address, bridge)),
            _ => None,
        })
    }
}

/// Where frames of a NIC come from.
fn ports(vmid: Vmid, config: &GuestConfig, nic: NicId) -> [IfName; 2] {
    [config.kind.port(vmid, nic), GuestKind::firewall_port(vmid, nic)]
}

/// What a rule says about one end of a packet.
#[derive(Default)]
struct End {
    ports: BTreeSet<IfName>,
    macs: BTreeSet<MacAddr>,
    addresses: BTreeSet<IpAddr>,
}

/// What the rules of a packet filter tie together: a port or MAC, and single addresses. `text` is what `iptables-save`,
/// `ebtables-save` or `nft list table` prints; what is not understood is passed over.
///
/// A rule that drops ties only what it excepts: `-i tap100i0 ! -s 203.0.113.10 -j DROP`.
pub fn in_rules(program: &'static str, text: &str) -> BTreeSet<Trace> {
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_matches(['"', ';'])).collect();
        let is_no = |word: &&&str| matches!(**word, "!" | "!=");
        let drops = words.iter().any(|word| matches!(*word, "DROP" | "REJECT" | "drop" | "reject"));
        if line.contains(" . ") {
            concatenated(program, line, &mut found);
        } else if drops == words.iter().any(|word| is_no(&word)) {
            for end in ends(&words) {
                let who =
                    end.ports.iter().map(|port| Who::Port(*port)).chain(end.macs.iter().map(|mac| Who::Mac(*mac)));
                let who: Vec<Who> = who.collect();
                // What is said of several is said of none.
                let whole = if end.ports.len() > 1 || end.macs.len() > 1 { &[][..] } else { &who };
                found.extend(whole.iter().flat_map(|who| {
                    end.addresses.iter().map(|address| Trace {
                        who: *who,
                        address: *address,
                        place: Place::Rule(program),
                    })
                }));
            }
        }
    }
    found
}

/// Elements such as `"tap100i0" . 02:00:00:00:00:64 . 203.0.113.10`.
fn concatenated(program: &'static str, line: &str, found: &mut BTreeSet<Trace>) {
    for element in line.split([',', '{', '}', '=']).filter(|element| element.contains(" . ")) {
        let parts = element.split(" . ").map(|part| part.trim().trim_matches('"'));
        let mut end = End::default();
        for part in parts {
            end.note(part.split(' ').next().unwrap_or(part).trim_matches('"'));
        }
        let (port, mac) = (end.ports.first().map(|port| Who::Port(*port)), end.macs.first().map(|mac| Who::Mac(*mac)));
        for who in port.into_iter().chain(mac) {
            let place = Place::Rule(program);
            found.extend(end.addresses.iter().map(|address| Trace { who, address: *address, place }));
        }
    }
}

impl End {
    /// One value, whatever it is: the name of a guest's port, a MAC, a single address.
    fn note(&mut self, value: &str) -> bool {
        let single = || value.parse::<IpNet>().ok().filter(|net| net.prefix_len() == net.max_prefix_len());
        let address = value.parse::<IpAddr>().ok().or_else(|| single().map(|net| net.addr()));
        if let Some(address) = address {
            self.addresses.insert(address);
        } else if let Ok(mac) = value.split('/').next().unwrap_or(value).parse() {
            self.macs.insert(mac);
        } else if let Some(port) = value.parse::<IfName>().ok().filter(|_| crate::links::is_guest_port(value)) {
            self.ports.insert(port);
        } else {
            return value.parse::<IpNet>().is_ok();
        }
        true
    }
}

/// The two ends of a rule: where the packet comes from, and where it goes.
fn ends(words: &[&str]) -> [End; 2] {
    let mut ends = [End::default(), End::default()];
    for (at, word) in words.iter().enumerate() {
        let end = match *word {
            "-s" | "--source" | "--src" | "--ip-src" | "--ip-source" | "--ip6-src" | "--ip6-source"
            | "--arp-ip-src" | "--arp-mac-src" | "--mac-source" | "--source-mac" | "--physdev-in" | "-i"
            | "--in-interface" | "iifname" | "iif" | "saddr" => &mut ends[0],
            "-d" | "--destination" | "--dst" | "--ip-dst" | "--ip-destination" | "--ip6-dst" | "--ip6-destination"
            | "--physdev-out" | "-o" | "--out-interface" | "oifname" | "oif" | "daddr" => &mut ends[1],
            _ => continue,
        };
        let values =
            words[at + 1..].iter().filter(|word| !matches!(**word, "!" | "!=" | "==" | "ip" | "ether" | "{" | "="));
        for value in values {
            let is_last = !value.ends_with(',');
            if !value.split(',').filter(|value| !value.is_empty()).all(|value| end.note(value)) || is_last {
                break;
            }
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(program: &'static str, text: &str) -> Vec<String> {
        let show = |trace: &Trace| {
            let who = match trace.who {
                Who::Port(port) => port.to_string(),
                Who::Mac(mac) => mac.to_string(),
                other => format!("{other:?}"),
            };
            format!("{who} {}", trace.address)
        };
        in_rules(program, text).iter().map(show).collect()
    }

    #[test]
    fn rules_of_all_programs_tie_addresses() {
        for (line, expected) in [
            ("-A FORWARD -s 203.0.113.10/32 -m physdev --physdev-in tap100i0 -j ACCEPT", vec!["tap100i0 203.0.113.10"]),
            ("-A FORWARD ! -s 203.0.113.10/32 -m physdev --physdev-in tap100i0 -j DROP", vec!["tap100i0 203.0.113.10"]),
            ("-A FORWARD -s 203.0.113.10/32 -m physdev --physdev-in tap101i0 -j DROP", vec![]),
            ("-A FORWARD -d 203.0.113.10/32 -o veth200i0 -j ACCEPT", vec!["veth200i0 203.0.113.10"]),
            (
                "-A FORWARD -s 203.0.113.10/32 -m mac --mac-source 02:00:00:00:00:64 -j RETURN",
                vec!["02:00:00:00:00:64 203.0.113.10"],
            ),
            ("-A FORWARD -p IPv4 -i tap100i0 --ip-src ! 203.0.113.10 -j DROP", vec!["tap100i0 203.0.113.10"]),
            ("-A FORWARD -p ARP -i tap100i0 --arp-ip-src ! 203.0.113.10 -j DROP", vec!["tap100i0 203.0.113.10"]),
            (
                "-A FORWARD -p IPv6 -s 02:00:00:00:00:64 --ip6-src 2001:db8::5/ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff -j ACCEPT",
                vec![],
            ),
            (
                "-A FORWARD -p IPv6 -s 02:00:00:00:00:64 --ip6-src 2001:db8::5 -j ACCEPT",
                vec!["02:00:00:00:00:64 2001:db8::5"],
            ),
            ("\t\tiifname \"tap100i0\" ip saddr 203.0.113.10 accept", vec!["tap100i0 203.0.113.10"]),
            (
                "\t\tiifname \"tap100i0\" ip saddr != { 203.0.113.10, 203.0.113.11 } drop",
                vec!["tap100i0 203.0.113.10", "tap100i0 203.0.113.11"],
            ),
            (
                "\t\tether saddr 02:00:00:00:00:64 arp saddr ip != 203.0.113.10 drop",
                vec!["02:00:00:00:00:64 203.0.113.10"],
            ),
            ("\t\telements = { \"tap100i0\" . 203.0.113.10,", vec!["tap100i0 203.0.113.10"]),
            (
                "\t\t\t     02:00:00:00:00:64 . 203.0.113.11 timeout 1d expires 2h }",
                vec!["02:00:00:00:00:64 203.0.113.11"],
            ),
            // Of whole networks, of the node itself, of several ports: of nobody.
            ("-A FORWARD -s 203.0.113.0/24 -m physdev --physdev-in tap100i0 -j ACCEPT", vec![]),
            ("-A INPUT -s 203.0.113.10/32 -i eno1 -j ACCEPT", vec![]),
            ("\t\tiifname { \"tap100i0\", \"tap101i0\" } ip saddr 203.0.113.10 accept", vec![]),
            ("-A PREROUTING -d 203.0.113.10/32 -j DNAT --to-destination 10.0.0.5", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(shown("nft", line), expected, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn survives_anything(line in "(-s|-i|saddr|iifname|tap1i0|1.2.3.4|02:00:00:00:00:01|drop|[ .,!{}=\"0-9a-f:/]){0,40}") {
            in_rules("nft", &line);
        }
    }
}
