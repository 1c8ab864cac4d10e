//! `/etc/network/interfaces` and what it includes, as far as bridges, their ports and addresses go: what a node is like
//! when its kernel cannot be asked, or before it is.
//!
//! Source: `interfaces(5)` of ifupdown and of ifupdown2, which takes `bridge-ports` and `bridge_ports` for the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::links::BridgeOptions;
use crate::links::Link;
use crate::links::Links;
use crate::links::OPEN_VSWITCH;
use crate::model::{IfName, MacAddr};

/// The interfaces that the files describe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces(pub BTreeMap<IfName, Interface>);

/// One interface; several stanzas of one name are one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Addresses with their prefixes, as they stand there: host bits and all.
    pub addresses: Vec<IpNet>,
    /// Gateways.
    pub gateways: Vec<IpAddr>,
    /// Who is at the other end, by `pointopoint`.
    pub peers: Vec<IpAddr>,
    /// Addresses that came without a length, as far as no `netmask` has given them one.
    bare: BTreeSet<IpAddr>,
    /// The commands that are run when it comes up, in order.
    pub commands: Vec<String>,
    /// Where `ip route` in its commands leads, as it stands there.
    pub routes: Vec<IpNet>,
    /// What it is.
    pub kind: Kind,
    /// What is plugged into it: ports of a bridge, members of a bond.
    pub ports: BTreeSet<IfName>,
    /// Its MAC, if the file sets it.
    pub mac: Option<MacAddr>,
    /// Of a bridge: VLAN-aware.
    pub vlan_aware: bool,
    /// Of a VLAN-aware bridge: the VLANs that its ports admit.
    pub vids: Vids,
}

/// What an interface is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Kind {
    /// Neither a bridge nor a bond.
    #[default]
    Plain,
    /// A bond.
    Bond,
    /// A bridge of the kernel.
    Bridge,
    /// A bridge of Open vSwitch.
    OpenVswitch,
}

/// VLANs, as ranges; none said is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vids(Vec<(u16, u16)>);

impl Vids {
    /// `2-4094`, `10 20 30-40`.
    fn parse(text: &str) -> Self {
        let range = |part: &str| match part.split_once('-') {
            Some((first, last)) => Some((first.parse().ok()?, last.parse().ok()?)),
            None => part.parse().ok().map(|id| (id, id)),
        };
        Self(text.split([' ', '\t', ',']).filter_map(range).collect())
    }

    /// Whether frames of this VLAN are admitted.
    pub fn contains(&self, id: u16) -> bool {
        self.0.is_empty() || self.0.iter().any(|(first, last)| (*first..=*last).contains(&id))
    }
}

impl Interfaces {
    /// Reads one file into it; returns the patterns of the files that it includes, in order.
    ///
    /// Never fails: whoever sets up the network complains of what is wrong in it.
    pub fn read(&mut self, text: &str) -> Vec<String> {
        let mut includes = Vec::new();
        let mut current: Option<IfName> = None;
        for line in logical_lines(text) {
            let mut words = line.split_whitespace();
            let Some(key) = words.next() else { continue };
            let rest = line[line.find(key).unwrap_or_default() + key.len()..].trim();
            match key {
                "iface" => {
                    // `eth0:1` adds addresses to `eth0`.
                    let name = words.next().and_then(|name| name.split(':').next()?.parse().ok());
                    current = name;
                    if let Some(name) = name {
                        self.0.entry(name).or_default();
                    }
                }
                "source" => includes.push(rest.to_owned()),
                "source-directory" => includes.push(format!("{}/*", rest.trim_end_matches('/'))),
                "auto" | "mapping" | "rename" => current = None,
                key if key.starts_with("allow-") => current = None,
                key => {
                    let Some(interface) = current.and_then(|name| self.0.get_mut(&name)) else { continue };
                    interface.set(&key.replace('_', "-"), rest);
                }
            }
        }
        includes
    }

    /// The same as the kernel would show it.
    pub fn links(&self) -> Links {
        let mut links = Links::default();
        for (name, interface) in &self.0 {
            let options = BridgeOptions { vlan_filtering: interface.vlan_aware, ..BridgeOptions::default() };
            let bridge = (interface.kind == Kind::Bridge).then_some(options);
            let (mac, addresses) = (interface.mac, interface.addresses.clone());
            let kind = match interface.kind {
                Kind::Plain => "",
                Kind::Bond => "bond",
                Kind::Bridge => "bridge",
                Kind::OpenVswitch => OPEN_VSWITCH,
            };
            links.0.insert(*name, Link { mac, addresses, bridge, kind: kind.to_owned(), ..Link::default() });
        }
        for (name, interface) in &self.0 {
            for port in &interface.ports {
                links.0.entry(*port).or_default().master = Some(*name);
            }
        }
        links
    }

    /// What ifupdown makes of an IPv4 address without a length: it has the mask of its class of before 1993. With ifupdown2,
    /// and of IPv6 with either, it is a single address.
    ///
    /// Source: ifupdown 0.8 `inet.defn`, `compute_v4_mask`.
    pub fn take_masks_of_classes(&mut self) {
        for interface in self.0.values_mut() {
            for net in interface.addresses.iter_mut().filter(|net| interface.bare.contains(&net.addr())) {
                let IpAddr::V4(address) = net.addr() else { continue };
                let length = match address.octets()[0] {
                    0..128 => 8,
                    128..192 => 16,
                    192..224 => 24,
                    224.. => continue,
                };
                *net = IpNet::new(net.addr(), length).unwrap_or(*net);
            }
        }
    }

    /// Bridges of Open vSwitch.
    pub fn open_vswitch(&self) -> BTreeSet<IfName> {
        let all = self.0.iter().filter(|(_, interface)| interface.kind == Kind::OpenVswitch);
        all.map(|(name, _)| *name).collect()
    }
}

impl Interface {
    fn set(&mut self, key: &str, value: &str) {
        let names = || value.split_whitespace().filter_map(|name| name.parse::<IfName>().ok());
        match key {
            "address" => {
                self.bare.extend(value.parse::<IpAddr>());
                let single = || value.parse::<IpAddr>().ok().map(IpNet::from);
                self.addresses.extend(value.parse().ok().or_else(single));
            }
            "netmask" => {
                // Belongs to the address before it, which came without a length.
                let length = value.parse::<u8>().ok();
                let mask = || ipnet::ip_mask_to_prefix(value.parse().ok()?).ok();
                if let (Some(last), Some(length)) = (self.addresses.last_mut(), length.or_else(mask)) {
                    *last = IpNet::new(last.addr(), length).unwrap_or(*last);
                    self.bare.remove(&last.addr());
                }
            }
            "gateway" => self.gateways.extend(value.parse::<IpAddr>()),
            "pointopoint" => self.peers.extend(value.parse::<IpAddr>()),
            "up" | "post-up" | "pre-up" => {
                self.routes.extend(route(value));
                self.commands.push(value.to_owned());
            }
            "hwaddress" => self.mac = value.split_whitespace().last().and_then(|mac| mac.parse().ok()),
            "bridge-ports" => {
                self.kind = Kind::Bridge;
                self.ports.extend(names().filter(|name| name.as_str() != "none"));
            }
            "bridge-vlan-aware" => self.vlan_aware = matches!(value, "yes" | "on" | "1" | "true"),
            "bridge-vids" => self.vids = Vids::parse(value),
            "bond-slaves" | "slaves" | "ovs-bonds" => {
                self.kind = Kind::Bond;
                self.ports.extend(names().filter(|name| name.as_str() != "none"));
            }
            "ovs-type" if value == "OVSBridge" => self.kind = Kind::OpenVswitch,
            "ovs-ports" => self.ports.extend(names()),
            _ => {}
        }
    }
}

/// The destination in `ip route add DESTINATION ...`; other commands have none.
fn route(command: &str) -> Option<IpNet> {
    let mut words = command.split_whitespace().skip_while(|word| !matches!(*word, "route" | "r" | "ro"));
    words.next()?;
    matches!(words.next()?, "add" | "replace" | "append" | "change").then_some(())?;
    let destination = words.next()?;
    destination.parse().ok().or_else(|| destination.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Lines without comments; a backslash at the end continues a line.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut continues = false;
    for line in text.lines() {
        let (part, more) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
        match lines.last_mut().filter(|_| continues) {
            Some(last) => {
                last.push(' ');
                last.push_str(part);
            }
            None => lines.push(part.to_owned()),
        }
        continues = more;
    }
    lines.retain(|line| !line.trim_start().starts_with('#'));
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Interfaces, Vec<String>) {
        let mut interfaces = Interfaces::default();
        let includes = interfaces.read(text);
        (interfaces, includes)
    }

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }

    #[test]
    fn understands_what_proxmox_writes() {
        let (found, includes) = read(
            "# network interface settings; autogenerated\n\nauto lo\niface lo inet loopback\n\niface eno1 inet manual\n\n\
             auto vmbr0\niface vmbr0 inet static\n\taddress 198.51.100.7/24\n\tgateway 198.51.100.254\n\
             \tbridge-ports eno1\n\tbridge-stp off\n\tbridge-fd 0\n\thwaddress ether 02:00:00:00:00:FE\n\
             \tpost-up echo 1 > /proc/sys/net/ipv4/ip_forward\n\niface vmbr0 inet6 static\n\taddress 2001:db8::7/64\n\n\
             auto vmbr1\niface vmbr1 inet manual\n\tbridge-ports none\n\tbridge-vlan-aware yes\n\tbridge-vids 2-100 200\n\n\
             source /etc/network/interfaces.d/*\n",
        );
        assert_eq!(includes, ["/etc/network/interfaces.d/*"]);
        let bridge = &found.0[&name("vmbr0")];
        assert_eq!(bridge.addresses, ["198.51.100.7/24".parse().unwrap(), "2001:db8::7/64".parse().unwrap()]);
        assert_eq!(bridge.gateways, ["198.51.100.254".parse::<IpAddr>().unwrap()]);
        assert_eq!((&bridge.kind, bridge.ports.len()), (&Kind::Bridge, 1));
        let vids = &found.0[&name("vmbr1")].vids;
        assert_eq!([1, 2, 100, 101, 200].map(|id| vids.contains(id)), [false, true, true, false, true]);
        let links = found.links();
        assert_eq!(links.get(name("eno1")).unwrap().master, Some(name("vmbr0")));
        assert_eq!(links.get(name("vmbr0")).unwrap().mac.unwrap().to_string(), "02:00:00:00:00:fe");
        assert!(links.get(name("vmbr1")).unwrap().bridge.unwrap().vlan_filtering);
        assert!(links.get(name("eno1")).unwrap().bridge.is_none());
    }

    #[test]
    fn understands_older_words_and_open_vswitch() {
        let (found, includes) = read(
            "allow-hotplug eth0\niface bond0 inet manual\n  slaves eth0 eth1\niface br0 inet static\n  address 192.0.2.1\n\
             \x20 netmask 255.255.255.0\n  bridge_ports bond0 \\\n    eth2\niface br0:1 inet static\n  address 192.0.2.2\n\
             \x20 netmask 28\niface vmbr2 inet manual\n\tovs_type OVSBridge\n\tovs_ports eth3 in0\nsource-directory /etc/network/more/\n",
        );
        assert_eq!(includes, ["/etc/network/more/*"]);
        assert_eq!(found.0[&name("bond0")].kind, Kind::Bond);
        let bridge = &found.0[&name("br0")];
        assert_eq!(bridge.addresses, ["192.0.2.1/24".parse().unwrap(), "192.0.2.2/28".parse().unwrap()]);
        assert_eq!(bridge.ports, [name("bond0"), name("eth2")].into());
        assert_eq!(found.open_vswitch(), [name("vmbr2")].into());
        assert!(found.links().get(name("vmbr2")).unwrap().bridge.is_none());
        assert!(Vids::default().contains(4094), "all, if none is said");
    }

    #[test]
    fn understands_gateways_that_are_elsewhere() {
        let (found, _) = read(
            "iface eno1 inet static\n address 203.0.113.7/32\n gateway 198.51.100.1\n pointopoint 198.51.100.1\n\
             \x20post-up ip route add 192.0.2.9/29 dev vmbr1\n up ip -4 r replace 198.51.100.9 dev eno1\n\
             \x20up ip route del 192.0.2.0/24\n up sysctl -w net.ipv4.ip_forward=1\n",
        );
        let interface = &found.0[&name("eno1")];
        assert_eq!(interface.peers, interface.gateways);
        assert_eq!(interface.routes, ["192.0.2.9/29".parse().unwrap(), "198.51.100.9/32".parse().unwrap()]);
    }

    #[test]
    fn an_address_without_a_mask_is_what_the_program_takes_it_for() {
        let text = "iface a inet static\n address 10.0.0.5\niface b inet static\n address 172.16.0.5\niface c inet static\n \
             address 203.0.113.5\niface d inet6 static\n address 2001:db8::5\niface e inet static\n address 10.0.0.6\n \
             netmask 255.255.255.252\n address 10.0.0.9/32\niface f inet static\n address 198.51.100.7/32\n";
        let shown = |found: &Interfaces| {
            let nets = found.0.values().flat_map(|interface| &interface.addresses);
            nets.map(ToString::to_string).collect::<Vec<_>>()
        };
        let (mut found, _) = read(text);
        let rest = ["2001:db8::5/128", "10.0.0.6/30", "10.0.0.9/32", "198.51.100.7/32"];
        assert_eq!(shown(&found), [&["10.0.0.5/32", "172.16.0.5/32", "203.0.113.5/32"][..], &rest].concat());
        found.take_masks_of_classes();
        assert_eq!(shown(&found), [&["10.0.0.5/8", "172.16.0.5/16", "203.0.113.5/24"][..], &rest].concat());
    }

    proptest! {
        #[test]
        fn survives_anything(text in "(iface|bridge-ports|address|netmask|source|bridge_vids|\\\\|[ \t\n#a-z0-9./:-]){0,60}") {
            let (found, _) = read(&text);
            let _ = found.links();
        }
    }
}
