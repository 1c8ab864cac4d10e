//! The interfaces of a node, as they are or as a file says: their names, masters, MACs and addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Family, GuestKind, IfName, MacAddr, NicId, Vmid};

/// Interfaces of the node by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links(pub BTreeMap<IfName, Link>);

/// One interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number; a port that was made anew has another one.
    pub index: u32,
    /// The bridge (or bond, VRF) that it is a port of.
    pub master: Option<IfName>,
    /// Whether it is up: one that goes down takes routes with it, without a word.
    pub up: bool,
    /// Whether nobody asks for addresses on it, by ARP or neighbour discovery: a tunnel such as WireGuard's.
    pub no_arp: bool,
    /// Its own MAC.
    pub mac: Option<MacAddr>,
    /// Addresses of the node on it, with their prefixes.
    pub addresses: Vec<IpNet>,
    /// Gateways that the node has here for its guests only, with our mark.
    pub gateways: BTreeSet<IpAddr>,
    /// Set for bridges.
    pub bridge: Option<BridgeOptions>,
    /// Set for the ports of bridges.
    pub port: Option<BridgePort>,
    /// Of a bridge: number of the port behind which the root of its spanning tree is; 0: it has none, or is the root.
    pub root_port: u16,
    /// Passes what comes in for the groups of the bridge itself (01:80:c2:00:00:0X) on to the bridge, and so by the filter.
    pub screened: bool,
    /// What the kernel calls this kind of interface; empty for network cards.
    pub kind: String,
}

/// What matters of a bridge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "settings of the kernel, each by itself")]
pub struct BridgeOptions {
    /// VLAN-aware.
    pub vlan_filtering: bool,
    /// Does not learn from 01:80:c2:00:00:0X.
    pub no_linklocal_learn: bool,
    /// Takes part in the spanning tree protocol.
    pub spanning_tree: bool,
    /// Has the entries of its own MACs in VLAN 0 only, where it looks when another VLAN has none.
    pub local_in_vlan_0: bool,
    /// How many entries it may learn; 0: any number. `None`: the kernel has no bound (before Linux 6.8).
    pub max_learned: Option<u32>,
}

/// What a bridge makes of one of its ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BridgePort {
    /// Its number in the bridge, from 1 on.
    pub number: u16,
    /// Whether it passes frames.
    pub state: PortState,
}

/// State of a bridge's port. Source: Linux `include/uapi/linux/if_bridge.h`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PortState {
    /// The port is down.
    Disabled,
    /// The spanning tree waits for news of loops, and passes nothing.
    Listening,
    /// The same a while later: MACs are learnt, and nothing is passed.
    Learning,
    /// Frames pass.
    #[default]
    Forwarding,
    /// The spanning tree has closed the port: there is another way.
    Blocking,
}

impl PortState {
    /// As the kernel numbers them.
    pub fn of_kernel(number: u8) -> Self {
        match number {
            0 => Self::Disabled,
            1 => Self::Listening,
            2 => Self::Learning,
            4 => Self::Blocking,
            _ => Self::Forwarding,
        }
    }

    /// As `bridge link show` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Listening => "listening",
            Self::Learning => "learning",
            Self::Forwarding => "forwarding",
            Self::Blocking => "blocking",
        }
    }

    /// Whether it is the spanning tree that keeps frames from passing.
    pub fn is_held(self) -> bool {
        matches!(self, Self::Listening | Self::Learning | Self::Blocking)
    }
}

impl Link {
    /// Whether both are the same but for the node's addresses.
    pub fn is_alike(&self, other: &Self) -> bool {
        let parts = |link: &Self| (link.index, link.master, link.up, link.no_arp, link.mac, link.screened, link.bridge);
        parts(self) == parts(other)
    }
}

impl Links {
    /// An interface by name.
    pub fn get(&self, name: IfName) -> Option<&Link> {
        self.0.get(&name)
    }

    /// An interface by number.
    pub fn by_index(&self, index: u32) -> Option<IfName> {
        self.0.iter().find(|(_, link)| link.index == index).map(|(name, _)| *name)
    }

    /// The bridge that a guest's port is on; behind the NIC firewall that of its second half.
    pub fn bridge_of(&self, kind: GuestKind, vmid: Vmid, nic: NicId) -> Option<IfName> {
        let outer = self.get(GuestKind::firewall_port(vmid, nic)).and_then(|link| link.master);
        outer.or_else(|| self.get(kind.port(vmid, nic)).and_then(|link| link.master))
    }

    /// The names of all, by their numbers.
    pub fn names(&self) -> BTreeMap<u32, IfName> {
        self.0.iter().map(|(name, link)| (link.index, *name)).collect()
    }

    /// Ports of a bridge.
    pub fn ports(&self, bridge: IfName) -> impl Iterator<Item = IfName> {
        self.0.iter().filter(move |(_, link)| link.master == Some(bridge)).map(|(name, _)| *name)
    }

    /// The port behind which the root of a bridge's spanning tree is.
    pub fn root_port(&self, bridge: IfName) -> Option<IfName> {
        let number = self.get(bridge).map(|link| link.root_port).filter(|number| *number != 0)?;
        self.ports(bridge).find(|port| self.get(*port).and_then(|link| link.port).is_some_and(|it| it.number == number))
    }

    /// The bridge and the state of a port that passes nothing, whoever sends.
    pub fn not_forwarding(&self, port: IfName) -> Option<(IfName, PortState)> {
        let link = self.get(port)?;
        let state = link.port.map(|port| port.state).filter(|state| *state != PortState::Forwarding)?;
        Some((link.master?, state))
    }

    /// The interface on which the node speaks with a NIC: the bridge, or what carries the NIC's VLAN.
    ///
    /// Source: pve-common `PVE/Network.pm`: `vmbr0v10` for a tag on a plain bridge; on a VLAN-aware bridge the
    /// administrator may have made `vmbr0.10`.
    pub fn segment(&self, bridge: IfName, tag: Option<u16>) -> Option<IfName> {
        let Some(tag) = tag else { return self.get(bridge).map(|_| bridge) };
        let aware = self.get(bridge)?.bridge.is_some_and(|bridge| bridge.vlan_filtering);
        let name = format!("{bridge}{}{tag}", if aware { "." } else { "v" }).parse().ok()?;
        self.get(name).map(|_| name)
    }

    /// The VRF that an interface is part of: what comes in by it is routed by the VRF's table, not by the node's.
    pub fn vrf_of(&self, name: IfName) -> Option<IfName> {
        self.get(name)?.master.filter(|master| self.get(*master).is_some_and(|master| master.kind == "vrf"))
    }

    /// Whether the node has an address of this family on the interface, other than a link-local one.
    pub fn speaks(&self, device: IfName, family: Family) -> bool {
        let usable = |net: &IpNet| match net.addr() {
            IpAddr::V4(_) => family == Family::V4,
            IpAddr::V6(address) => family == Family::V6 && !address.is_unicast_link_local(),
        };
        self.get(device).is_some_and(|link| link.addresses.iter().any(usable))
    }

    /// Every address of the node, with its interface.
    pub fn addresses(&self) -> impl Iterator<Item = (IfName, IpAddr)> {
        self.0.iter().flat_map(|(name, link)| link.addresses.iter().map(|net| (*name, net.addr())))
    }

    /// The same, to be looked up; of several interfaces with one address the last.
    pub fn by_address(&self) -> BTreeMap<IpAddr, IfName> {
        self.addresses().map(|(name, address)| (address, name)).collect()
    }

    /// The interfaces that have one of these addresses.
    pub fn holding(&self, addresses: &BTreeSet<IpAddr>) -> BTreeSet<IfName> {
        self.addresses().filter(|(_, address)| addresses.contains(address)).map(|(name, _)| name).collect()
    }

    /// Every address of the node that others could take it for: all but loopback addresses and, on other interfaces than
    /// these, link-local ones of IPv6, which every interface has for itself.
    pub fn own_addresses(&self, segments: &BTreeSet<IfName>) -> Vec<IpAddr> {
        let is_local = |address: &IpAddr| match address {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        let of_node = self
            .addresses()
            .filter(|(name, address)| !address.is_loopback() && (segments.contains(name) || !is_local(address)));
        of_node.map(|(_, address)| address).collect()
    }
}

/// Whether an interface is named as Proxmox VE names what belongs to guests.
///
/// Source: pve-common `PVE/Network.pm`, pve-firewall `PVE/Firewall/Helpers.pm`.
pub fn is_guest_port(name: &str) -> bool {
    let numbered = |stem: &str, middle: &[char]| {
        let rest = name.strip_prefix(stem).and_then(|rest| rest.split_once(middle));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        rest.is_some_and(|(vmid, nic)| digits(vmid) && digits(nic))
    };
    numbered("tap", &['i']) || numbered("veth", &['i']) || numbered("fwpr", &['p']) || numbered("fwln", &['i', 'o'])
}

/// The ports by which `verify --active` attacks the node's own bridges: first the attacker's, then the listener's.
///
/// Named like those of a guest, so that nobody takes them for an uplink, and of guest 0, which cannot exist.
pub const TEST_PORTS: [&str; 2] = ["veth0i121", "veth0i122"];

/// Whether what came from this port was only a test.
pub fn is_test_port(name: &str) -> bool {
    TEST_PORTS.contains(&name)
}

/// The guest that a port of this name belongs to.
pub fn guest_of_port(port: IfName) -> Option<Vmid> {
    let name = Some(port.as_str()).filter(|name| is_guest_port(name))?;
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// What the kernel calls a bridge of Open vSwitch.
pub const OPEN_VSWITCH: &str = "openvswitch";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_guest_ports_by_name() {
        for name in ["tap100i0", "veth100i31", "fwpr100p0", "fwln100i0", "fwln100o0"] {
            assert!(is_guest_port(name), "{name}");
            assert_eq!(guest_of_port(name.parse().unwrap()), "100".parse().ok(), "{name}");
        }
        for name in ["eno1", "bond0", "tap0", "veth1a2b", "vmbr0", "tapi0", "tap100i", "fwbr100i0", "eno1.10"] {
            assert!(!is_guest_port(name), "{name}");
            assert_eq!(guest_of_port(name.parse().unwrap()), None, "{name}");
        }
        for name in TEST_PORTS {
            assert!(is_guest_port(name) && is_test_port(name), "{name}");
            assert_eq!(guest_of_port(name.parse().unwrap()), None, "{name}");
        }
    }
}
