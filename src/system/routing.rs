//! Links, addresses, forwarding entries, neighbours and routes over rtnetlink.
//!
//! What this program sets carries its protocol number, so that it can be told from everything else without a state
//! file. Source of the message layouts: Linux `include/uapi/linux/{rtnetlink,neighbour,if_link,if_bridge}.h`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockProtocol};

use super::forwarding::Pinned;
use super::netlink::flags::{ACKNOWLEDGE, CREATE, DUMP, EXCLUSIVE, REPLACE, REQUEST};
use super::netlink::{Builder, Frame, Instruction, NetlinkError, Socket, attribute, attributes, text};
use super::pins::Pins;
use crate::links::Link;
use crate::links::Links;
use crate::links::{BridgeOptions, BridgePort, PortState};
use crate::model::{IfName, MacAddr};
use crate::plan::{
    Decided, DefaultRoute, Event, Exits, Foreign, NetState, Refusal, Route, Way, decide, foreign_neighbour,
};

/// Our number among routing protocols; packaged for `ip` in `/etc/iproute2/rt_protos.d`.
const PROTOCOL: u8 = 121;

pub(super) const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
pub(super) const NEW_NEIGHBOUR: u16 = 28;
pub(super) const DELETE_NEIGHBOUR: u16 = 29;
pub(super) const GET_NEIGHBOUR: u16 = 30;
const NEW_NETCONF: u16 = 80;

pub(super) const AF_INET: u8 = 2;
pub(super) const AF_BRIDGE: u8 = 7;
pub(super) const AF_INET6: u8 = 10;

/// `IFF_UP`. Source: Linux `include/uapi/linux/if.h`.
const INTERFACE_UP: u32 = 1;
/// `IFF_NOARP`. Same source.
const INTERFACE_NO_ARP: u32 = 0x80;

pub(super) const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MASTER: u16 = 10;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
/// `IFLA_BRPORT_GROUP_FWD_MASK`.
const PORT_GROUP_FORWARD: u16 = 31;
/// Every group of the bridge itself, 01:80:c2:00:00:00 to 0f, but that of pause frames, which Linux passes on to nobody.
const ALL_GROUPS: u16 = 0xfffd;
const BRIDGE_SPANNING_TREE: u16 = 5;
/// `IFLA_BR_ROOT_PORT`.
const BRIDGE_ROOT_PORT: u16 = 12;
/// `IFLA_BRPORT_STATE`, `IFLA_BRPORT_NO`.
const PORT_STATE: u16 = 1;
const PORT_NUMBER: u16 = 18;
const VXLAN: &str = "vxlan";
const BRIDGE_VLAN_FILTERING: u16 = 7;
const BRIDGE_BOOLEAN_OPTIONS: u16 = 46;
const BRIDGE_MAX_LEARNED: u16 = 49;
/// Bit of `br_boolopt_id` `BR_BOOLOPT_NO_LL_LEARN`.
const NO_LINK_LOCAL_LEARN: u32 = 1;
/// Bit of `br_boolopt_id` `BR_BOOLOPT_FDB_LOCAL_VLAN_0` (Linux 6.18).
const LOCAL_IN_VLAN_0: u32 = 1 << 4;

const ADDRESS_ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_PROTOCOL: u16 = 11;
const ADDRESS_PERMANENT: u8 = 0x80;
const ADDRESS_NO_DAD: u8 = 0x02;

/// Source: Linux `include/uapi/linux/netconf.h`.
const NETCONF_INDEX: u16 = 1;
const NETCONF_FORWARDING: u16 = 2;
const NETCONF_PROXY: u16 = 5;

pub(super) const NEIGHBOUR_DESTINATION: u16 = 1;
pub(super) const NEIGHBOUR_LLADDR: u16 = 2;
pub(super) const NEIGHBOUR_PROTOCOL: u16 = 12;
pub(super) const STATE_NOARP: u16 = 0x40;
pub(super) const STATE_PERMANENT: u16 = 0x80;
/// `NUD_REACHABLE`, `NUD_STALE`, `NUD_DELAY`, `NUD_PROBE`, `NUD_PERMANENT`: it has answered once.
const STATES_FOUND: u16 = 0x02 | 0x04 | 0x08 | 0x10 | STATE_PERMANENT;
pub(super) const FLAG_MASTER: u8 = 0x04;
pub(super) const FLAG_SELF: u8 = 0x02;
const FLAG_PROXY: u8 = 0x08;
pub(super) const FLAG_STICKY: u8 = 0x40;

const ROUTE_DESTINATION: u16 = 1;
const ROUTE_OUTPUT: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
const ROUTE_PRIORITY: u16 = 6;
const ROUTE_MULTIPATH: u16 = 9;
const ROUTE_VIA: u16 = 18;
const TABLE_MAIN: u8 = 254;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const PROTOCOL_ADVERTISED: u8 = 9;
const TYPE_UNICAST: u8 = 1;
/// What the kernel says if there is no such entry, interface or way.
const ABSENT: [Errno; 7] = [
    Errno::ENOENT,
    Errno::ENODEV,
    Errno::EINVAL,
    Errno::EAFNOSUPPORT,
    Errno::ENETUNREACH,
    Errno::EHOSTUNREACH,
    Errno::EACCES,
];
const NEXT_HOP_ON_LINK: u32 = 4;
/// `RTM_F_FIB_MATCH`: answer with the route, not with the way of a packet.
const WHOLE_ROUTE: u32 = 0x2000;

/// Why routing state could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The interface went away.
    #[error("there is no interface `{0}`")]
    NoInterface(IfName),
    /// The interface is down.
    #[error("{0} is down, so that nothing can be routed to it")]
    Down(IfName),
    /// Somebody else's state is in the way.
    #[error("{0}")]
    Foreign(Refusal),
}

/// Routing state as far as it is ours, and what else is there where ours is wanted.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) foreign: Foreign,
    pub(super) forwarding: Pinned,
    pub(super) own_entries: BTreeSet<IfName>,
    pub(super) neighbours: BTreeMap<(IfName, IpAddr), MacAddr>,
    pub(super) proxies: BTreeSet<(IfName, IpAddr)>,
    pub(super) routes: BTreeMap<IpNet, Route>,
}

/// An open connection to rtnetlink.
#[derive(Debug)]
pub(super) struct Routing {
    pub(super) socket: Socket,
    pub(super) pins: Pins,
}

impl Routing {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(SockProtocol::NetlinkRoute)?, pins: Pins::default() })
    }

    /// Notes in this directory what the kernel cannot mark as ours.
    pub(super) fn noting(self, directory: &Path) -> Self {
        Self { pins: Pins::noted_in(directory), ..self }
    }

    /// All interfaces with their addresses.
    pub(super) fn links(&mut self) -> Result<Links, NetlinkError> {
        let frames = self.dump(GET_LINK, &[0; 16], "list the interfaces")?;
        self.with_addresses(&frames)
    }

    /// These interfaces, as far as they exist, with their addresses; cheap on a node with a thousand ports.
    pub(super) fn links_named(&mut self, names: &BTreeSet<IfName>) -> Result<Links, NetlinkError> {
        let mut frames = Vec::new();
        for name in names {
            let sequence = self.socket.next_sequence();
            let mut builder = Builder::default();
            builder.message(GET_LINK, REQUEST | ACKNOWLEDGE, sequence, &[0; 16]).string(LINK_NAME, name.as_str());
            builder.end_message();
            match self.socket.request(builder.bytes(), sequence, &format!("look up {name}")) {
                Ok(answer) => frames.extend(answer.into_iter().map(|frame| frame.payload)),
                Err(error) if error.errno() == Some(Errno::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
        self.with_addresses(&frames)
    }

    fn with_addresses(&mut self, frames: &[Vec<u8>]) -> Result<Links, NetlinkError> {
        let names: BTreeMap<u32, IfName> = frames.iter().filter_map(|frame| index_and_name(frame)).collect();
        let mut links = Links::default();
        for frame in frames {
            if let Some((_, name)) = index_and_name(frame) {
                links.0.insert(name, link(frame, &names));
            }
        }
        for frame in self.dump(GET_ADDRESS, &[0; 8], "list the addresses")? {
            let Some((net, ours)) = address(&frame) else { continue };
            let index = read_u32(&frame, 4);
            if let Some(link) = names.get(&index).and_then(|name| links.0.get_mut(name)) {
                if ours {
                    link.gateways.insert(net.addr());
                } else {
                    link.addresses.push(net);
                }
            }
        }
        Ok(links)
    }

    /// The VXLAN ports of a bridge. The kernel looks for them, so that a thousand other ports cost nothing.
    pub(super) fn vxlan_ports(&mut self, bridge: u32) -> Result<Links, NetlinkError> {
        let sequence = self.socket.next_sequence();
        let mut builder = Builder::default();
        builder.message(GET_LINK, REQUEST | DUMP, sequence, &[0; 16]);
        builder.attribute(LINK_MASTER, &bridge.to_ne_bytes());
        let info = builder.begin(LINK_INFO);
        builder.string(INFO_KIND, VXLAN);
        builder.end(info);
        builder.end_message();
        let frames = self.socket.request(builder.bytes(), sequence, "list the ports of a bridge")?;
        let frames = frames.iter().map(|frame| &frame.payload[..]);
        let named = frames.filter_map(|frame| Some((index_and_name(frame)?.1, link(frame, &BTreeMap::new()))));
        // A kernel that has never had such a port lists all of them.
        Ok(Links(named.filter(|(_, link)| link.kind == VXLAN).collect()))
    }

    /// The node's default routes and addresses.
    pub(super) fn exits(&mut self) -> Result<Exits, NetlinkError> {
        let mut exits = Exits::default();
        for family in [AF_INET, AF_INET6] {
            for frame in self.dump(GET_ROUTE, &route(family, 0, 0, 0), "list the routes")? {
                let found = default_routes(&frame);
                if frame[5] == PROTOCOL_ADVERTISED {
                    exits.advertised.extend(found.iter().map(|route| route.device));
                }
                exits.routes.extend(found);
            }
        }
        exits.routes.sort_by_key(|route| route.metric);
        for frame in self.dump(GET_ADDRESS, &[0; 8], "list the addresses")? {
            let Some((net, ours)) = address(&frame) else { continue };
            let Some(device) = name_of(read_u32(&frame, 4)).filter(|_| !ours) else { continue };
            exits.addresses.insert((device, net));
            // One that expires came by advertisement, or by DHCPv6, which an advertisement asks for.
            if frame[2] & ADDRESS_PERMANENT == 0 && net.addr().is_ipv6() {
                exits.advertised.insert(device);
            }
        }
        Ok(exits)
    }

    /// Whether the bridge of this port looks at VLAN tags.
    pub(super) fn looks_at_tags(&mut self, port: u32) -> Result<bool, NetlinkError> {
        let Some(port) = self.link_numbered(port)? else { return Ok(false) };
        let Some(master) = attribute(port.get(16..).unwrap_or_default(), LINK_MASTER) else { return Ok(false) };
        let bridge = self.link_numbered(read_u32(master, 0))?;
        let bridge = bridge.and_then(|frame| link(&frame, &BTreeMap::new()).bridge);
        Ok(bridge.is_some_and(|bridge| bridge.vlan_filtering))
    }

    /// At which MAC the node's neighbour table has an address, if it was found there.
    pub(super) fn neighbour(&mut self, index: u32, address: IpAddr) -> Result<Option<MacAddr>, NetlinkError> {
        let fixed = neighbour(family(address), index, 0, 0);
        let found = self.single(GET_NEIGHBOUR, &fixed, &format!("look up the neighbour {address}"), |message| {
            message.attribute(NEIGHBOUR_DESTINATION, &octets(address));
        })?;
        Ok(found.filter(|frame| read_u16(frame, 8) & STATES_FOUND != 0).and_then(|frame| lladdr(&frame)))
    }

    /// Interface and next hop of what the node itself sends to the world. One route is looked up: all routes of a node may
    /// be those of the Internet.
    pub(super) fn next_hops(&mut self) -> Result<BTreeSet<(u32, IpAddr)>, NetlinkError> {
        // Set aside for tests of networks (RFC 2544, RFC 5180): nobody has a route of his own to them.
        const ANYWHERE: [IpAddr; 2] = [
            IpAddr::V4(Ipv4Addr::new(198, 18, 121, 121)),
            IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 121, 0, 0, 0, 0x121)),
        ];
        let mut hops = BTreeSet::new();
        for address in ANYWHERE {
            let mut fixed = route(family(address), if address.is_ipv4() { 32 } else { 128 }, 0, 0);
            fixed[4..8].fill(0);
            let found = self.single(GET_ROUTE, &fixed, "look up the default route", |message| {
                message.attribute(ROUTE_DESTINATION, &octets(address));
            })?;
            let hop = found.and_then(|frame| {
                let rest = frame.get(12..)?;
                // An IPv4 route may lead by way of an IPv6 router: family, then address.
                let other = || attribute(rest, ROUTE_VIA).and_then(|via| ip(via.get(2..)?));
                let via = attribute(rest, ROUTE_GATEWAY).and_then(ip).or_else(other)?;
                Some((read_u32(attribute(rest, ROUTE_OUTPUT)?, 0), via))
            });
            hops.extend(hop);
        }
        Ok(hops)
    }

    /// The one thing that is asked for; `None`: there is no such thing.
    fn single(
        &mut self,
        kind: u16,
        fixed: &[u8],
        action: &str,
        fill: impl Fn(&mut Builder),
    ) -> Result<Option<Vec<u8>>, NetlinkError> {
        let sequence = self.socket.next_sequence();
        let mut builder = Builder::default();
        builder.message(kind, REQUEST | ACKNOWLEDGE, sequence, fixed);
        fill(&mut builder);
        builder.end_message();
        match self.socket.request(builder.bytes(), sequence, action) {
            Ok(frames) => {
                Ok(frames.into_iter().map(|frame| frame.payload).find(|payload| payload.len() >= fixed.len()))
            }
            Err(error) if error.errno().is_some_and(|errno| ABSENT.contains(&errno)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn link_numbered(&mut self, index: u32) -> Result<Option<Vec<u8>>, NetlinkError> {
        let mut fixed = [0; 16];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        let sequence = self.socket.next_sequence();
        let mut builder = Builder::default();
        builder.message(GET_LINK, REQUEST | ACKNOWLEDGE, sequence, &fixed);
        match self.socket.request(builder.bytes(), sequence, "look up an interface") {
            Ok(answer) => Ok(answer.into_iter().next().map(|frame| frame.payload)),
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What carries our mark, and what else there is where this is wanted; of the forwarding entries what is wanted or was
    /// set by us. How many neighbours a guest can add is limited by the kernel (`gc_thresh3`, 1,024 of each family unless
    /// the administrator raises it).
    pub(super) fn observe(&mut self, links: &Links, wanted: &NetState) -> Result<Observed, NetlinkError> {
        let forwarding = self.pinned(links, &wanted.forwarding)?;
        let own_entries = self.own_entries(links, &wanted.own_entries)?;
        let mut observed = Observed { forwarding, own_entries, ..Observed::default() };
        let names: BTreeMap<u32, IfName> = links.0.iter().map(|(name, link)| (link.index, *name)).collect();
        for family in [AF_INET, AF_INET6] {
            for frame in self.dump(GET_NEIGHBOUR, &neighbour(family, 0, 0, 0), "list the neighbours")? {
                let Some(found) = entry(&frame) else { continue };
                let Some(key) = names.get(&found.index).map(|name| (*name, found.address)) else { continue };
                if found.ours {
                    observed.neighbours.insert(key, found.fixed());
                } else if found.permanent && wanted.neighbours.contains_key(&key) {
                    observed.foreign.neighbours.insert(key, found.fixed());
                }
            }
            for frame in self.dump(GET_NEIGHBOUR, &neighbour(family, 0, 0, FLAG_PROXY), "list the proxy entries")? {
                let Some(found) = entry(&frame) else { continue };
                let Some(key) = names.get(&found.index).map(|name| (*name, found.address)) else { continue };
                if found.ours {
                    observed.proxies.insert(key);
                } else if wanted.support.proxies.contains(&key) {
                    observed.foreign.proxies.insert(key);
                }
            }
            for frame in self.dump(GET_ROUTE, &route(family, 0, 0, 0), "list the routes")? {
                let Some((net, index, way)) = way(&frame, |index| names.get(&index).copied()) else { continue };
                if let (true, Some(device)) = (way.ours, index.and_then(|index| names.get(&index))) {
                    observed.routes.insert(net, Route { device: *device, via: way.via });
                }
                if wanted.routes.contains_key(&net) {
                    observed.foreign.routes.entry(net).or_default().push(way);
                }
            }
        }
        Ok(observed)
    }

    pub(super) fn set_deaf_bridge(&mut self, bridge: IfName) -> Result<(), RoutingError> {
        let index = index_of(bridge)?;
        let mut fixed = [0; 16];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        let action = format!("stop {bridge} from learning from link-local frames");
        self.change(NEW_LINK, 0, &fixed, &action, |message| {
            let info = message.begin(LINK_INFO);
            message.attribute(INFO_KIND, b"bridge");
            let data = message.begin(INFO_DATA);
            let value = [NO_LINK_LOCAL_LEARN.to_ne_bytes(), NO_LINK_LOCAL_LEARN.to_ne_bytes()].concat();
            message.attribute(BRIDGE_BOOLEAN_OPTIONS, &value);
            message.end(data);
            message.end(info);
        })?;
        Ok(())
    }

    pub(super) fn screen_port(&mut self, port: IfName) -> Result<(), RoutingError> {
        let index = index_of(port)?;
        let mut fixed = [0; 16];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        let action = format!("keep frames to groups of the bridge itself from coming in by {port}");
        self.change(NEW_LINK, 0, &fixed, &action, |message| {
            let info = message.begin(LINK_INFO);
            message.attribute(INFO_SLAVE_KIND, b"bridge");
            let data = message.begin(INFO_SLAVE_DATA);
            message.attribute(PORT_GROUP_FORWARD, &ALL_GROUPS.to_ne_bytes());
            message.end(data);
            message.end(info);
        })?;
        Ok(())
    }

    pub(super) fn set_proxy(&mut self, device: IfName, address: IpAddr) -> Result<(), RoutingError> {
        let index = index_of(device)?;
        let action = format!("answer for {address} on {device}");
        // Whoever made it: to set it again would put our mark on it.
        if self.entry(index, address, FLAG_PROXY, &action)?.is_some() {
            return Ok(());
        }
        let fixed = neighbour(family(address), index, STATE_PERMANENT, FLAG_PROXY);
        self.change(NEW_NEIGHBOUR, CREATE | REPLACE, &fixed, &action, |message| {
            message.attribute(NEIGHBOUR_DESTINATION, &octets(address)).attribute(NEIGHBOUR_PROTOCOL, &[PROTOCOL]);
        })?;
        Ok(())
    }

    pub(super) fn remove_proxy(&mut self, device: IfName, address: IpAddr) -> Result<(), RoutingError> {
        let Ok(index) = index_of(device) else { return Ok(()) };
        let action = format!("stop answering for {address} on {device}");
        if self.entry(index, address, FLAG_PROXY, &action)?.is_some_and(|found| !found.ours) {
            return Ok(());
        }
        let fixed = neighbour(family(address), index, 0, FLAG_PROXY);
        absent_is_fine(self.change(DELETE_NEIGHBOUR, 0, &fixed, &action, |message| {
            message.attribute(NEIGHBOUR_DESTINATION, &octets(address));
        }))
    }

    pub(super) fn set_gateway(&mut self, device: IfName, address: IpAddr) -> Result<(), RoutingError> {
        let action = format!("put the gateway {address} on {device}");
        let fixed = own_address(address, index_of(device)?);
        let added = self.change(NEW_ADDRESS, CREATE | EXCLUSIVE, &fixed, &action, |message| {
            message
                .attribute(ADDRESS_LOCAL, &octets(address))
                .attribute(ADDRESS_ADDRESS, &octets(address))
                .attribute(ADDRESS_PROTOCOL, &[PROTOCOL]);
        });
        match added {
            // There since the look: whoever it belongs to, it serves.
            Err(error) if error.errno() == Some(Errno::EEXIST) => Ok(()),
            added => Ok(added?),
        }
    }

    pub(super) fn remove_gateway(&mut self, device: IfName, address: IpAddr) -> Result<(), RoutingError> {
        // The kernel does not look at the mark: one that is somebody else's by now stays.
        let links = self.links_named(&BTreeSet::from([device]))?;
        if !links.get(device).is_some_and(|link| link.gateways.contains(&address)) {
            return Ok(());
        }
        let fixed = own_address(address, index_of(device)?);
        let action = format!("take the gateway {address} off {device}");
        match self.change(DELETE_ADDRESS, 0, &fixed, &action, |message| {
            message.attribute(ADDRESS_LOCAL, &octets(address)).attribute(ADDRESS_ADDRESS, &octets(address));
        }) {
            Err(error) if error.errno() == Some(Errno::EADDRNOTAVAIL) => Ok(()),
            removed => absent_is_fine(removed),
        }
    }

    pub(super) fn set_neighbour(&mut self, device: IfName, address: IpAddr, mac: MacAddr) -> Result<(), RoutingError> {
        let index = index_of(device)?;
        let action = format!("set the neighbour {address} on {device}");
        // One that the kernel has learnt is nobody's.
        let foreign = self.entry(index, address, 0, &action)?.filter(|found| found.permanent && !found.ours);
        match foreign.map(|found| found.fixed()) {
            Some(found) if found == mac => return Ok(()),
            Some(found) => return Err(RoutingError::Foreign(foreign_neighbour(device, address, mac, found))),
            None => {}
        }
        let fixed = neighbour(family(address), index, STATE_PERMANENT, 0);
        self.change(NEW_NEIGHBOUR, CREATE | REPLACE, &fixed, &action, |message| {
            message
                .attribute(NEIGHBOUR_DESTINATION, &octets(address))
                .attribute(NEIGHBOUR_LLADDR, &mac.octets())
                .attribute(NEIGHBOUR_PROTOCOL, &[PROTOCOL]);
        })?;
        Ok(())
    }

    pub(super) fn remove_neighbour(&mut self, device: IfName, address: IpAddr) -> Result<(), RoutingError> {
        let Ok(index) = index_of(device) else { return Ok(()) };
        let action = format!("remove the neighbour {address} on {device}");
        if self.entry(index, address, 0, &action)?.is_some_and(|found| !found.ours) {
            return Ok(());
        }
        absent_is_fine(self.change(DELETE_NEIGHBOUR, 0, &neighbour(family(address), index, 0, 0), &action, |message| {
            message.attribute(NEIGHBOUR_DESTINATION, &octets(address));
        }))
    }

    pub(super) fn set_route(&mut self, net: IpNet, to: Route) -> Result<(), RoutingError> {
        let index = index_of(to.device)?;
        let scope = if to.via.is_some() || net.addr().is_ipv6() { SCOPE_UNIVERSE } else { SCOPE_LINK };
        let mut fixed = route(family(net.addr()), net.prefix_len(), PROTOCOL, scope);
        if to.via.is_some() {
            // The guest is on this device, whether or not its own route is there already or covers the next hop.
            fixed[8..12].copy_from_slice(&NEXT_HOP_ON_LINK.to_ne_bytes());
        }
        let action = format!("route {net} to {}", to.device);
        // Never NLM_F_REPLACE: it would also replace a route of the administrator. Ours is removed first, if need be.
        for _ in 0..2 {
            let added = self.change(NEW_ROUTE, CREATE | EXCLUSIVE, &fixed, &action, |message| {
                message.attribute(ROUTE_DESTINATION, &octets(net.addr())).attribute(ROUTE_OUTPUT, &index.to_ne_bytes());
                if let Some(via) = to.via {
                    message.attribute(ROUTE_GATEWAY, &octets(via));
                }
            });
            match added {
                Err(error) if error.errno() == Some(Errno::EEXIST) => self.remove_route(net)?,
                Err(error) if error.errno() == Some(Errno::ENETDOWN) => return Err(RoutingError::Down(to.device)),
                added => {
                    added?;
                    if self.decides(net) {
                        return Ok(());
                    }
                    break;
                }
            }
        }
        // Somebody else's, then; it may do.
        let mut ways = Vec::new();
        for frame in self.dump(GET_ROUTE, &route(family(net.addr()), 0, 0, 0), "list the routes")? {
            ways.extend(way(&frame, name_of).filter(|(to, ..)| *to == net).map(|(.., way)| way));
        }
        match decide(&net, &to, &ways) {
            Decided::Blocked(refusal) => Err(RoutingError::Foreign(refusal)),
            // Or it has gone since, and ours is there.
            Decided::AsWanted | Decided::Open => Ok(()),
        }
    }

    /// Whether our route to this destination is the one that the kernel takes: a lower metric goes before it.
    fn decides(&mut self, net: IpNet) -> bool {
        let sequence = self.socket.next_sequence();
        let mut fixed = [0; 12];
        (fixed[0], fixed[1]) = (family(net.addr()), net.max_prefix_len());
        fixed[8..12].copy_from_slice(&WHOLE_ROUTE.to_ne_bytes());
        let mut builder = Builder::default();
        builder.message(GET_ROUTE, REQUEST | ACKNOWLEDGE, sequence, &fixed);
        builder.attribute(ROUTE_DESTINATION, &octets(net.addr())).end_message();
        let Ok(frames) = self.socket.request(builder.bytes(), sequence, "look up a route") else {
            // One that leads nowhere is answered by an error.
            return false;
        };
        let found = frames.first().and_then(|frame| way(&frame.payload, |_| None));
        // A longer one of a part, or another table by a rule, is not about this destination.
        found.is_none_or(|(to, _, way)| to != net || way.ours)
    }

    /// One entry of the neighbour table, without reading all of it.
    fn entry(&mut self, index: u32, address: IpAddr, flags: u8, action: &str) -> Result<Option<Entry>, NetlinkError> {
        let sequence = self.socket.next_sequence();
        let mut builder = Builder::default();
        builder.message(GET_NEIGHBOUR, REQUEST | ACKNOWLEDGE, sequence, &neighbour(family(address), index, 0, flags));
        builder.attribute(NEIGHBOUR_DESTINATION, &octets(address)).end_message();
        match self.socket.request(builder.bytes(), sequence, action) {
            Ok(frames) => Ok(frames.first().and_then(|frame| entry(&frame.payload))),
            Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::ENODEV)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn remove_route(&mut self, net: IpNet) -> Result<(), RoutingError> {
        // With the protocol in the request the kernel removes ours and no other.
        let mut fixed = route(family(net.addr()), net.prefix_len(), PROTOCOL, 0);
        fixed[6] = 255; // RT_SCOPE_NOWHERE: any
        let action = format!("remove the route to {net}");
        absent_is_fine(self.change(DELETE_ROUTE, 0, &fixed, &action, |message| {
            message.attribute(ROUTE_DESTINATION, &octets(net.addr()));
        }))
    }

    pub(super) fn dump(&mut self, kind: u16, fixed: &[u8], action: &str) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let sequence = self.socket.next_sequence();
        let mut builder = Builder::default();
        builder.message(kind, REQUEST | DUMP, sequence, fixed);
        let frames = self.socket.request(builder.bytes(), sequence, action)?;
        let fixed = fixed.len();
        Ok(frames.into_iter().map(|frame| frame.payload).filter(|payload| payload.len() >= fixed).collect())
    }

    pub(super) fn change(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        action: &str,
        fill: impl Fn(&mut Builder),
    ) -> Result<(), NetlinkError> {
        let sequence = self.socket.next_sequence();
        let mut builder = Builder::default();
        builder.message(kind, REQUEST | ACKNOWLEDGE | flags, sequence, fixed);
        fill(&mut builder);
        builder.end_message();
        self.socket.request(builder.bytes(), sequence, action).map(drop)
    }
}

/// Hears of interfaces, addresses, neighbours, forwarding entries and routes.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) socket: Socket,
}

impl Changes {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        /// Masks of links, neighbours, IPv4 addresses and routes, IPv6 addresses and routes, IPv4 and IPv6 settings of
        /// interfaces. Source: Linux `include/uapi/linux/rtnetlink.h`.
        const GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400 | 1 << 23 | 1 << 24;
        let socket = Socket::listen(SockProtocol::NetlinkRoute, GROUPS)?;
        socket.hear_only(&interesting());
        Ok(Self { socket })
    }

    /// What is waiting, as far as it may concern us.
    pub(super) fn drain(&mut self, events: &mut Vec<Event>) -> Result<(), NetlinkError> {
        loop {
            match self.socket.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(Some(frames)) => events.extend(frames.iter().filter_map(event)),
                Ok(None) => return Ok(()),
                Err(error) if error.errno() == Some(Errno::ENOBUFS) => events.push(Event::Lost),
                Err(error) => return Err(error),
            }
        }
    }
}

/// What the kernel is to tell at all, as a program that it runs for each message (`socket(7)`, `SO_ATTACH_FILTER`).
///
/// A guest makes its bridge learn as many MACs as it sends, and each is a message: to receive them would take the whole
/// processor, and overrun the socket. So of forwarding entries only those are told that somebody has set, or that are
/// sticky, as ours are; of neighbours and routes those with our mark, default routes, and routes to single addresses: one
/// that somebody else made may stand in for ours, or in its way.
fn interesting() -> Vec<Instruction> {
    /// The type in `struct nlmsghdr`, and where the message itself begins.
    const TYPE: u32 = 4;
    const PAYLOAD: u32 = 16;
    const ROUTE_LENGTH: u32 = PAYLOAD + 1;
    const ROUTE_PROTOCOL: u32 = PAYLOAD + 5;
    const NEIGHBOUR_STATE: u32 = PAYLOAD + 8;
    const NEIGHBOUR_FLAGS: u32 = PAYLOAD + 10;
    const NEIGHBOUR_ATTRIBUTES: u32 = PAYLOAD + 12;
    // Numbers of 16 bits are in the order of this machine, and are loaded as if they came from the network.
    let host = |value: u16| u32::from(value.to_be());
    let is = |value: u32, yes: u8, no: u8| Instruction::Branch { bits: false, value, yes, no };
    let any_of = |value: u32, yes: u8, no: u8| Instruction::Branch { bits: true, value, yes, no };
    let (neighbour, address, forwarding, route, accept, ignore) = (6, 8, 12, 16, 22, 23);
    vec![
        Instruction::Half(TYPE),
        is(host(NEW_NEIGHBOUR), neighbour, 2),
        is(host(DELETE_NEIGHBOUR), neighbour, 3),
        is(host(NEW_ROUTE), route, 4),
        is(host(DELETE_ROUTE), route, 5),
        is(0, accept, accept),
        // neighbour:
        Instruction::Byte(PAYLOAD),
        is(u32::from(AF_BRIDGE), forwarding, address),
        // address:
        Instruction::Attribute { after: NEIGHBOUR_ATTRIBUTES, kind: u32::from(NEIGHBOUR_PROTOCOL) },
        is(0, ignore, 10),
        Instruction::ByteOfAttribute,
        is(u32::from(PROTOCOL), accept, ignore),
        // forwarding:
        Instruction::Byte(NEIGHBOUR_FLAGS),
        any_of(u32::from(FLAG_STICKY), accept, 14),
        Instruction::Half(NEIGHBOUR_STATE),
        any_of(host(STATE_NOARP | STATE_PERMANENT), accept, ignore),
        // route:
        Instruction::Byte(ROUTE_PROTOCOL),
        is(u32::from(PROTOCOL), accept, 18),
        Instruction::Byte(ROUTE_LENGTH),
        is(0, accept, 20),
        is(32, accept, 21),
        is(128, accept, ignore),
        // accept, ignore:
        Instruction::End(true),
        Instruction::End(false),
    ]
}

fn event(frame: &Frame) -> Option<Event> {
    let payload = &frame.payload[..];
    let family = *payload.first()?;
    match frame.kind {
        // Of another family: what a bridge or a protocol has to say about an interface that is told of elsewhere.
        NEW_LINK | DELETE_LINK if family != 0 => None,
        NEW_LINK => Some(Event::Link(index_and_name(payload)?.1, link(payload, &BTreeMap::new()))),
        DELETE_LINK => Some(Event::LinkGone(index_and_name(payload)?.1)),
        NEW_ADDRESS | DELETE_ADDRESS => {
            let (index, (net, ours)) = (read_u32(payload, 4), address(payload)?);
            Some(Event::Address { index, net, ours, present: frame.kind == NEW_ADDRESS })
        }
        NEW_NEIGHBOUR | DELETE_NEIGHBOUR if family == AF_BRIDGE => {
            let sticky = frame.kind == NEW_NEIGHBOUR && *payload.get(10)? & FLAG_STICKY != 0;
            let local = frame.kind == NEW_NEIGHBOUR && read_u16(payload, 8) & STATE_PERMANENT != 0;
            Some(Event::Forwarding { index: read_u32(payload, 4), mac: lladdr(payload)?, sticky, local })
        }
        NEW_NEIGHBOUR | DELETE_NEIGHBOUR => {
            let rest = payload.get(12..)?;
            let stays = frame.kind == NEW_NEIGHBOUR && read_u16(payload, 8) & STATE_PERMANENT != 0;
            let address = attribute(rest, NEIGHBOUR_DESTINATION).and_then(ip)?;
            let (index, mac) = (read_u32(payload, 4), lladdr(payload));
            if attribute(rest, NEIGHBOUR_PROTOCOL) != Some(&[PROTOCOL]) {
                return None;
            }
            Some(Event::Neighbour { index, address, mac: mac.filter(|_| stays) })
        }
        NEW_ROUTE | DELETE_ROUTE => {
            let present = frame.kind == NEW_ROUTE;
            // Of one with several next hops the first tells enough: what there is now has to be looked up anyway.
            let first = default_routes(payload).into_iter().next().filter(|_| payload.get(5) != Some(&PROTOCOL));
            if let Some(route) = first {
                return Some(Event::DefaultRoute { route, present });
            }
            let (net, index, Way { ours, via, .. }) = way(payload, |_| None)?;
            Some(Event::Route { net, index: index.unwrap_or_default(), via, present, ours })
        }
        NEW_NETCONF => {
            let rest = payload.get(4..)?;
            let value = |kind| attribute(rest, kind).map(|bytes| read_u32(bytes, 0));
            Some(Event::Settings {
                v4: family == AF_INET,
                index: value(NETCONF_INDEX)?,
                forwarding: value(NETCONF_FORWARDING),
                proxy: value(NETCONF_PROXY),
                unnamed: attributes(rest).all(|(kind, _)| kind == NETCONF_INDEX),
            })
        }
        _ => None,
    }
}

/// Removing what is not there is what was wanted.
pub(super) fn absent_is_fine(result: Result<(), NetlinkError>) -> Result<(), RoutingError> {
    match result {
        Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::ESRCH | Errno::ENODEV | Errno::EINVAL)) => {
            Ok(())
        }
        result => Ok(result?),
    }
}

pub(super) fn index_of(name: IfName) -> Result<u32, RoutingError> {
    nix::net::if_::if_nametoindex(name.as_str()).map_err(|_| RoutingError::NoInterface(name))
}

fn index_and_name(frame: &[u8]) -> Option<(u32, IfName)> {
    let name = attribute(frame.get(16..)?, LINK_NAME)?;
    Some((read_u32(frame, 4), text(name).parse().ok()?))
}

fn link(frame: &[u8], names: &BTreeMap<u32, IfName>) -> Link {
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
fn address(frame: &[u8]) -> Option<(IpNet, bool)> {
    let rest = frame.get(8..)?;
    // On point-to-point links ADDRESS is the peer.
    let own = attribute(rest, ADDRESS_LOCAL).or_else(|| attribute(rest, ADDRESS_ADDRESS))?;
    let ours = attribute(rest, ADDRESS_PROTOCOL) == Some(&[PROTOCOL]);
    Some((IpNet::new(ip(own)?, frame[1]).ok()?, ours))
}

/// `struct ifaddrmsg` of a gateway. A link-local one needs its prefix, by which guests are reached in turn.
fn own_address(address: IpAddr, index: u32) -> [u8; 8] {
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
fn default_routes(frame: &[u8]) -> Vec<DefaultRoute> {
    let Some(rest) = frame.get(12..) else { return Vec::new() };
    if frame[1] != 0 || frame[4] != TABLE_MAIN || frame[7] != TYPE_UNICAST {
        return Vec::new();
    }
    let metric = attribute(rest, ROUTE_PRIORITY).map_or(0, |bytes| read_u32(bytes, 0));
    let found = |index: u32, attributes: &[u8]| {
        let via = attribute(attributes, ROUTE_GATEWAY).and_then(ip);
        Some(DefaultRoute { device: name_of(index)?, via, metric, v4: frame[0] == AF_INET })
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

fn name_of(index: u32) -> Option<IfName> {
    nix::net::if_::if_indextoname(index).ok()?.to_str().ok()?.parse().ok()
}

/// Destination, number of the interface if there is one, and the rest of a route in the main table.
fn way(frame: &[u8], name: impl Fn(u32) -> Option<IfName>) -> Option<(IpNet, Option<u32>, Way)> {
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
struct Entry {
    index: u32,
    address: IpAddr,
    mac: Option<MacAddr>,
    permanent: bool,
    ours: bool,
}

impl Entry {
    /// The MAC that it stays at. One without (somebody made it fail) is shown as another MAC.
    fn fixed(&self) -> MacAddr {
        self.mac.filter(|_| self.permanent).unwrap_or(MacAddr::from_octets([0; 6]))
    }
}

fn entry(frame: &[u8]) -> Option<Entry> {
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
fn route(family: u8, length: u8, protocol: u8, scope: u8) -> [u8; 12] {
    let mut fixed = [0; 12];
    fixed[0] = family;
    fixed[1] = length;
    fixed[4] = TABLE_MAIN;
    fixed[5] = protocol;
    fixed[6] = scope;
    fixed[7] = TYPE_UNICAST;
    fixed
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| IpAddr::V4(Ipv4Addr::from(octets))),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets))),
        _ => None,
    }
}

fn mac(bytes: &[u8]) -> Option<MacAddr> {
    <[u8; 6]>::try_from(bytes).ok().map(MacAddr::from_octets)
}

fn lladdr(frame: &[u8]) -> Option<MacAddr> {
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
