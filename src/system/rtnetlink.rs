//! The messages of rtnetlink: their types, flags and attributes, and what one says.
//!
//! Source of the layouts: Linux `include/uapi/linux/{rtnetlink,neighbour,if_link,if_bridge,netconf}.h`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;

use super::netlink::{attribute, text};
use crate::links::{BridgeOptions, BridgePort, Link, PortState};
use crate::model::{Family, IfName, MacAddr};
use crate::plan::{DefaultRoute, Way};

/// Our number among routing protocols; packaged for `ip` in `/etc/iproute2/rt_protos.d`.
pub(super) const PROTOCOL: u8 = 121;

pub(super) const NEW_LINK: u16 = 16;
pub(super) const DELETE_LINK: u16 = 17;
pub(super) const GET_LINK: u16 = 18;
pub(super) const NEW_ADDRESS: u16 = 20;
pub(super) const DELETE_ADDRESS: u16 = 21;
pub(super) const GET_ADDRESS: u16 = 22;
pub(super) const NEW_ROUTE: u16 = 24;
pub(super) const DELETE_ROUTE: u16 = 25;
pub(super) const GET_ROUTE: u16 = 26;
pub(super) const NEW_NEIGHBOUR: u16 = 28;
pub(super) const DELETE_NEIGHBOUR: u16 = 29;
pub(super) const GET_NEIGHBOUR: u16 = 30;
pub(super) const NEW_NETCONF: u16 = 80;

pub(super) const AF_INET: u8 = 2;
pub(super) const AF_BRIDGE: u8 = 7;
pub(super) const AF_INET6: u8 = 10;

/// `IFF_UP`. Source: Linux `include/uapi/linux/if.h`.
pub(super) const INTERFACE_UP: u32 = 1;
/// `IFF_NOARP`. Same source.
pub(super) const INTERFACE_NO_ARP: u32 = 0x80;

pub(super) const LINK_ADDRESS: u16 = 1;
pub(super) const LINK_NAME: u16 = 3;
pub(super) const LINK_MASTER: u16 = 10;
pub(super) const LINK_INFO: u16 = 18;
pub(super) const INFO_KIND: u16 = 1;
pub(super) const INFO_DATA: u16 = 2;
pub(super) const INFO_SLAVE_KIND: u16 = 4;
pub(super) const INFO_SLAVE_DATA: u16 = 5;
/// `IFLA_BRPORT_GROUP_FWD_MASK`.
pub(super) const PORT_GROUP_FORWARD: u16 = 31;
/// Every group of the bridge itself, 01:80:c2:00:00:00 to 0f, but that of pause frames, which Linux passes on to nobody.
pub(super) const ALL_GROUPS: u16 = 0xfffd;
pub(super) const BRIDGE_SPANNING_TREE: u16 = 5;
/// `IFLA_BR_ROOT_PORT`.
pub(super) const BRIDGE_ROOT_PORT: u16 = 12;
/// `IFLA_BRPORT_STATE`, `IFLA_BRPORT_NO`.
pub(super) const PORT_STATE: u16 = 1;
pub(super) const PORT_NUMBER: u16 = 18;
pub(super) const VXLAN: &str = "vxlan";
pub(super) const BRIDGE_VLAN_FILTERING: u16 = 7;
pub(super) const BRIDGE_BOOLEAN_OPTIONS: u16 = 46;
pub(super) const BRIDGE_MAX_LEARNED: u16 = 49;
/// Bit of `br_boolopt_id` `BR_BOOLOPT_NO_LL_LEARN`.
pub(super) const NO_LINK_LOCAL_LEARN: u32 = 1;
/// Bit of `br_boolopt_id` `BR_BOOLOPT_FDB_LOCAL_VLAN_0` (Linux 6.18).
pub(super) const LOCAL_IN_VLAN_0: u32 = 1 << 4;

pub(super) const ADDRESS_ADDRESS: u16 = 1;
pub(super) const ADDRESS_LOCAL: u16 = 2;
pub(super) const ADDRESS_PROTOCOL: u16 = 11;
pub(super) const ADDRESS_PERMANENT: u8 = 0x80;
pub(super) const ADDRESS_NO_DAD: u8 = 0x02;

/// Source: Linux `include/uapi/linux/netconf.h`.
pub(super) const NETCONF_INDEX: u16 = 1;
pub(super) const NETCONF_FORWARDING: u16 = 2;
pub(super) const NETCONF_PROXY: u16 = 5;

pub(super) const NEIGHBOUR_DESTINATION: u16 = 1;
pub(super) const NEIGHBOUR_LLADDR: u16 = 2;
pub(super) const NEIGHBOUR_PROTOCOL: u16 = 12;
pub(super) const STATE_NOARP: u16 = 0x40;
pub(super) const STATE_PERMANENT: u16 = 0x80;
/// `NUD_REACHABLE`, `NUD_STALE`, `NUD_DELAY`, `NUD_PROBE`, `NUD_PERMANENT`: it has answered once.
pub(super) const STATES_FOUND: u16 = 0x02 | 0x04 | 0x08 | 0x10 | STATE_PERMANENT;
pub(super) const FLAG_MASTER: u8 = 0x04;
pub(super) const FLAG_SELF: u8 = 0x02;
pub(super) const FLAG_PROXY: u8 = 0x08;
pub(super) const FLAG_STICKY: u8 = 0x40;

pub(super) const ROUTE_DESTINATION: u16 = 1;
pub(super) const ROUTE_OUTPUT: u16 = 4;
pub(super) const ROUTE_GATEWAY: u16 = 5;
pub(super) const ROUTE_PRIORITY: u16 = 6;
pub(super) const ROUTE_MULTIPATH: u16 = 9;
pub(super) const ROUTE_VIA: u16 = 18;
pub(super) const TABLE_MAIN: u8 = 254;
pub(super) const SCOPE_UNIVERSE: u8 = 0;
pub(super) const SCOPE_LINK: u8 = 253;
pub(super) const PROTOCOL_ADVERTISED: u8 = 9;
pub(super) const TYPE_UNICAST: u8 = 1;
pub(super) const TYPE_LOCAL: u8 = 2;
/// What the kernel says if there is no such entry, interface or way.
pub(super) const ABSENT: [Errno; 7] = [
    Errno::ENOENT,
    Errno::ENODEV,
    Errno::EINVAL,
    Errno::EAFNOSUPPORT,
    Errno::ENETUNREACH,
    Errno::EHOSTUNREACH,
    Errno::EACCES,
];
pub(super) const NEXT_HOP_ON_LINK: u32 = 4;
/// `RTM_F_FIB_MATCH`: answer with the route, not with the way of a packet.
pub(super) const WHOLE_ROUTE: u32 = 0x2000;

pub(super) fn index_and_name(frame: &[u8]) -> Option<(u32, IfName)> {
    let name = attribute(frame.get(16..)?, LINK_NAME)?;
    Some((read_u32(frame, 4), text(name).parse().ok()?))
}

pub(super) fn link(frame: &[u8], names: &BTreeMap<u32, IfName>) -> Link {
    let attributes = frame.get(16..).unwrap_or_default();
    let info = attribute(attributes, LINK_INFO).unwrap_or_default();
    let kind = attribute(info, INFO_KIND).map(text).unwrap_or_default();
    let data = attribute(info, INFO_DATA).unwrap_or_default();
    let options = attribute(data, BRIDGE_BOOLEAN_OPTIONS).map_or(0, |options| read_u32(options, 0));
    let has_option = |bit| options & bit != 0;
    let master = attribute(attributes, LINK_MASTER).map(|index| read_u32(index, 0));
    // A bridge that was not asked for by name is not in `names`.
    let master = master.and_then(|index| names.get(&index).copied().or_else(|| name_of(index)));
    let port =
        attribute(info, INFO_SLAVE_DATA).filter(|_| attribute(info, INFO_SLAVE_KIND).map(text) == Some("bridge"));
    Link {
        index: read_u32(frame, 4),
        master,
        up: read_u32(frame, 8) & INTERFACE_UP != 0,
        no_arp: read_u32(frame, 8) & INTERFACE_NO_ARP != 0,
        mac: attribute(attributes, LINK_ADDRESS).and_then(mac),
        addresses: Vec::new(),
        gateways: BTreeSet::new(),
        kind: kind.to_owned(),
        screened: port
            .and_then(|port| attribute(port, PORT_GROUP_FORWARD))
            .is_some_and(|mask| read_u16(mask, 0) == ALL_GROUPS),
        port: port.map(|port| BridgePort {
            number: attribute(port, PORT_NUMBER).map_or(0, |number| read_u16(number, 0)),
            state: attribute(port, PORT_STATE)
                .and_then(|state| state.first())
                .map_or_else(PortState::default, |state| PortState::of_kernel(*state)),
        }),
        root_port: attribute(data, BRIDGE_ROOT_PORT).filter(|_| kind == "bridge").map_or(0, |port| read_u16(port, 0)),
        bridge: (kind == "bridge").then(|| BridgeOptions {
            vlan_filtering: attribute(data, BRIDGE_VLAN_FILTERING) == Some(&[1]),
            no_linklocal_learn: has_option(NO_LINK_LOCAL_LEARN),
            spanning_tree: attribute(data, BRIDGE_SPANNING_TREE).is_some_and(|state| read_u32(state, 0) != 0),
            local_in_vlan_0: has_option(LOCAL_IN_VLAN_0),
            max_learned: attribute(data, BRIDGE_MAX_LEARNED).map(|limit| read_u32(limit, 0)),
        }),
    }
}

/// An address of the node, and whether it carries our mark.
pub(super) fn address(frame: &[u8]) -> Option<(IpNet, bool)> {
    let rest = frame.get(8..)?;
    // On point-to-point links ADDRESS is the peer.
    let own = attribute(rest, ADDRESS_LOCAL).or_else(|| attribute(rest, ADDRESS_ADDRESS))?;
    let ours = attribute(rest, ADDRESS_PROTOCOL) == Some(&[PROTOCOL]);
    Some((IpNet::new(ip(own)?, frame[1]).ok()?, ours))
}

/// `struct ifaddrmsg` of a gateway. A link-local one needs its prefix, by which guests are reached in turn.
pub(super) fn own_address(address: IpAddr, index: u32) -> [u8; 8] {
    let mut fixed = [0; 8];
    fixed[0] = family(address);
    fixed[1] = match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(address) if address.is_unicast_link_local() => 64,
        IpAddr::V6(_) => 128,
    };
    // Guests ask for it at once, and on another bridge it may well be there twice.
    fixed[2] = ADDRESS_PERMANENT | ADDRESS_NO_DAD;
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed
}

/// The default routes of a message: one, or one for each next hop; none if it is about another destination.
pub(super) fn default_routes(frame: &[u8]) -> Vec<DefaultRoute> {
    let Some(rest) = frame.get(12..) else { return Vec::new() };
    if frame[1] != 0 || frame[4] != TABLE_MAIN || frame[7] != TYPE_UNICAST {
        return Vec::new();
    }
    let metric = attribute(rest, ROUTE_PRIORITY).map_or(0, |bytes| read_u32(bytes, 0));
    let found = |index: u32, attributes: &[u8]| {
        let via = attribute(attributes, ROUTE_GATEWAY).and_then(ip);
        Some(DefaultRoute {
            device: name_of(index)?,
            via,
            metric,
            family: if frame[0] == AF_INET { Family::V4 } else { Family::V6 },
        })
    };
    if let Some(index) = attribute(rest, ROUTE_OUTPUT) {
        return found(read_u32(index, 0), rest).into_iter().collect();
    }
    let mut hops = attribute(rest, ROUTE_MULTIPATH).unwrap_or_default();
    let mut routes = Vec::new();
    // `struct rtnexthop`: length, flags, weight, interface; then attributes.
    while let Some(hop) = hops.get(..usize::from(read_u16(hops, 0))).filter(|hop| hop.len() >= 8) {
        routes.extend(found(read_u32(hop, 4), &hop[8..]));
        hops = hops.get(hop.len().next_multiple_of(4)..).unwrap_or_default();
    }
    routes
}

pub(super) fn name_of(index: u32) -> Option<IfName> {
    nix::net::if_::if_indextoname(index).ok()?.to_str().ok()?.parse().ok()
}

/// Destination, number of the interface if there is one, and the rest of a route in the main table.
pub(super) fn way(frame: &[u8], name: impl Fn(u32) -> Option<IfName>) -> Option<(IpNet, Option<u32>, Way)> {
    let rest = frame.get(12..)?;
    // Routes for some types of service (IPv4) are none for all packets; a clone of the cache is no route.
    if frame[4] != TABLE_MAIN || frame[3] != 0 {
        return None;
    }
    let kind = match frame[7] {
        TYPE_UNICAST => "",
        6 => "blackhole",
        7 => "unreachable",
        8 => "prohibit",
        9 => "throw",
        _ => return None,
    };
    let any = if frame[0] == AF_INET { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let destination = attribute(rest, ROUTE_DESTINATION).map_or(Some(any), ip)?;
    let index = attribute(rest, ROUTE_OUTPUT).map(|bytes| read_u32(bytes, 0));
    let way = Way {
        ours: frame[5] == PROTOCOL,
        metric: attribute(rest, ROUTE_PRIORITY).map_or(0, |bytes| read_u32(bytes, 0)),
        kind,
        // One that leads nowhere is on the loopback interface, which says nothing.
        device: index.filter(|_| kind.is_empty()).and_then(name),
        via: attribute(rest, ROUTE_GATEWAY).and_then(ip),
    };
    Some((IpNet::new(destination, frame[1]).ok()?, index, way))
}

/// An entry of the neighbour table.
pub(super) struct Entry {
    pub(super) index: u32,
    pub(super) address: IpAddr,
    pub(super) mac: Option<MacAddr>,
    pub(super) permanent: bool,
    pub(super) ours: bool,
}

impl Entry {
    /// The MAC that it stays at. One without (somebody made it fail) is shown as another MAC.
    pub(super) fn fixed(&self) -> MacAddr {
        self.mac.filter(|_| self.permanent).unwrap_or(MacAddr::from_octets([0; 6]))
    }
}

pub(super) fn entry(frame: &[u8]) -> Option<Entry> {
    let rest = frame.get(12..)?;
    Some(Entry {
        index: read_u32(frame, 4),
        address: attribute(rest, NEIGHBOUR_DESTINATION).and_then(ip)?,
        mac: lladdr(frame),
        permanent: read_u16(frame, 8) & STATE_PERMANENT != 0,
        ours: attribute(rest, NEIGHBOUR_PROTOCOL) == Some(&[PROTOCOL]),
    })
}

/// `struct ndmsg`.
pub(super) fn neighbour(family: u8, index: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut fixed = [0; 12];
    fixed[0] = family;
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..10].copy_from_slice(&state.to_ne_bytes());
    fixed[10] = flags;
    fixed
}

/// `struct rtmsg`, main table, unicast.
pub(super) fn route(family: u8, length: u8, protocol: u8, scope: u8) -> [u8; 12] {
    let mut fixed = [0; 12];
    fixed[0] = family;
    fixed[1] = length;
    fixed[4] = TABLE_MAIN;
    fixed[5] = protocol;
    fixed[6] = scope;
    fixed[7] = TYPE_UNICAST;
    fixed
}

pub(super) fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| IpAddr::V4(Ipv4Addr::from(octets))),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets))),
        _ => None,
    }
}

pub(super) fn mac(bytes: &[u8]) -> Option<MacAddr> {
    <[u8; 6]>::try_from(bytes).ok().map(MacAddr::from_octets)
}

pub(super) fn lladdr(frame: &[u8]) -> Option<MacAddr> {
    attribute(frame.get(12..)?, NEIGHBOUR_LLADDR).and_then(mac)
}

pub(super) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    let value = bytes.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    value.map_or(0, u32::from_ne_bytes)
}

pub(super) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    let value = bytes.get(at..at + 2).and_then(|bytes| <[u8; 2]>::try_from(bytes).ok());
    value.map_or(0, u16::from_ne_bytes)
}
