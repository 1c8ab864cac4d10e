//! Links, addresses, forwarding entries, neighbours and routes over rtnetlink.
//!
//! What this program sets carries its protocol number, so that it can be told from everything else without a state
//! file. Source of the message layouts: Linux `include/uapi/linux/{rtnetlink,neighbour,if_link,if_bridge}.h`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockProtocol};

use super::netlink::flags::{ACKNOWLEDGE, CREATE, DUMP, EXCLUSIVE, REPLACE, REQUEST};
use super::netlink::{Builder, Frame, NetlinkError, Socket, attribute, text};
use crate::model::{IfName, MacAddr};
use crate::plan::{BridgeOptions, DefaultRoute, Event, Link, Links, Route, is_guest_port};

/// Our number among routing protocols; packaged for `ip` in `/etc/iproute2/rt_protos.d`.
const PROTOCOL: u8 = 121;

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const NEW_NEIGHBOUR: u16 = 28;
const DELETE_NEIGHBOUR: u16 = 29;
const GET_NEIGHBOUR: u16 = 30;

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;

/// `IFF_UP`. Source: Linux `include/uapi/linux/if.h`.
const INTERFACE_UP: u32 = 1;

const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MASTER: u16 = 10;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const BRIDGE_VLAN_FILTERING: u16 = 7;
const BRIDGE_BOOLEAN_OPTIONS: u16 = 46;
/// Bit of `br_boolopt_id` `BR_BOOLOPT_NO_LL_LEARN`.
const NO_LINK_LOCAL_LEARN: u32 = 1;

const ADDRESS_ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;

const NEIGHBOUR_DESTINATION: u16 = 1;
const NEIGHBOUR_LLADDR: u16 = 2;
const NEIGHBOUR_PROTOCOL: u16 = 12;
const STATE_NOARP: u16 = 0x40;
const STATE_PERMANENT: u16 = 0x80;
const FLAG_MASTER: u8 = 0x04;
const FLAG_STICKY: u8 = 0x40;

const ROUTE_DESTINATION: u16 = 1;
const ROUTE_OUTPUT: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
const ROUTE_PRIORITY: u16 = 6;
const TABLE_MAIN: u8 = 254;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const TYPE_UNICAST: u8 = 1;
const NEXT_HOP_ON_LINK: u32 = 4;

/// Why routing state could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The interface went away.
    #[error("there is no interface `{0}`")]
    NoInterface(IfName),
    /// Somebody else's route.
    #[error("there is a route to {0} already that this program did not make")]
    ForeignRoute(IpNet),
}

/// Routing state as far as it is ours.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) forwarding: BTreeSet<(IfName, MacAddr)>,
    pub(super) neighbours: BTreeMap<(IfName, IpAddr), MacAddr>,
    pub(super) routes: BTreeMap<IpNet, Route>,
}

/// An open connection to rtnetlink.
#[derive(Debug)]
pub(super) struct Routing {
    socket: Socket,
}

impl Routing {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(SockProtocol::NetlinkRoute)? })
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
            let Some(net) = address(&frame) else { continue };
            let index = read_u32(&frame, 4);
            if let Some(link) = names.get(&index).and_then(|name| links.0.get_mut(name)) {
                link.addresses.push(net);
            }
        }
        Ok(links)
    }

    /// The node's default routes, the preferred one of each family first.
    pub(super) fn default_routes(&mut self) -> Result<Vec<DefaultRoute>, NetlinkError> {
        let mut found = Vec::new();
        for family in [AF_INET, AF_INET6] {
            for frame in self.dump(GET_ROUTE, &route(family, 0, 0, 0), "list the routes")? {
                let Some(rest) = frame.get(12..) else { continue };
                let is_default = frame[1] == 0 && frame[4] == TABLE_MAIN && frame[7] == TYPE_UNICAST;
                let index = attribute(rest, ROUTE_OUTPUT).map(|bytes| read_u32(bytes, 0));
                let name = index.and_then(|index| nix::net::if_::if_indextoname(index).ok());
                let device = name.and_then(|name| name.to_str().ok()?.parse().ok());
                if let (true, Some(device)) = (is_default, device) {
                    let metric = attribute(rest, ROUTE_PRIORITY).map_or(0, |bytes| read_u32(bytes, 0));
                    let via = attribute(rest, ROUTE_GATEWAY).and_then(ip);
                    found.push((metric, DefaultRoute { device, via, v4: family == AF_INET }));
                }
            }
        }
        found.sort_by_key(|(metric, _)| *metric);
        Ok(found.into_iter().map(|(_, route)| route).collect())
    }

    /// What carries our mark.
    pub(super) fn observe(&mut self) -> Result<Observed, NetlinkError> {
        let mut observed = Observed::default();
        let mut names = BTreeMap::new();
        for frame in self.dump(GET_LINK, &[0; 16], "list the interfaces")? {
            names.extend(index_and_name(&frame));
        }
        for frame in self.dump(GET_NEIGHBOUR, &neighbour(AF_BRIDGE, 0, 0, 0), "list the forwarding entries")? {
            let sticky = frame.get(10).is_some_and(|flags| flags & FLAG_STICKY != 0);
            let port = names.get(&read_u32(&frame, 4)).filter(|name| is_guest_port(name.as_str()));
            if let (true, Some(port), Some(mac)) = (sticky, port, lladdr(&frame)) {
                observed.forwarding.insert((*port, mac));
            }
        }
        for family in [AF_INET, AF_INET6] {
            for frame in self.dump(GET_NEIGHBOUR, &neighbour(family, 0, 0, 0), "list the neighbours")? {
                let rest = &frame[12.min(frame.len())..];
                let ours = attribute(rest, NEIGHBOUR_PROTOCOL) == Some(&[PROTOCOL]);
                let address = attribute(rest, NEIGHBOUR_DESTINATION).and_then(ip);
                if let (true, Some(name), Some(address)) = (ours, names.get(&read_u32(&frame, 4)), address) {
                    // One without a MAC (somebody made it fail) is ours and wrong: shown as another MAC.
                    let mac = lladdr(&frame).unwrap_or_else(|| MacAddr::from_octets([0; 6]));
                    let permanent = read_u16(&frame, 8) & STATE_PERMANENT != 0;
                    let mac = if permanent { mac } else { MacAddr::from_octets([0; 6]) };
                    observed.neighbours.insert((*name, address), mac);
                }
            }
            for frame in self.dump(GET_ROUTE, &route(family, 0, 0, 0), "list the routes")? {
                if let Some((net, route)) = our_route(&frame, &names) {
                    observed.routes.insert(net, route);
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

    pub(super) fn set_forwarding(&mut self, port: IfName, mac: MacAddr) -> Result<(), RoutingError> {
        // A guest may stop at any moment; without its port there is nothing to pin, and no reason to stop here.
        let Ok(index) = index_of(port) else { return Ok(()) };
        let fixed = neighbour(AF_BRIDGE, index, STATE_NOARP, FLAG_MASTER | FLAG_STICKY);
        let action = format!("pin {mac} to {port}");
        let put = |message: &mut Builder| {
            message.attribute(NEIGHBOUR_LLADDR, &mac.octets());
        };
        // The bridge may have learnt the MAC elsewhere: only without that entry does the new one get its port.
        let _ = self.change(DELETE_NEIGHBOUR, 0, &neighbour(AF_BRIDGE, index, 0, FLAG_MASTER), &action, put);
        match self.change(NEW_NEIGHBOUR, CREATE | REPLACE, &fixed, &action, put) {
            Err(error) if matches!(error.errno(), Some(Errno::ENODEV | Errno::EOPNOTSUPP)) => Ok(()),
            result => Ok(result?),
        }
    }

    pub(super) fn remove_forwarding(&mut self, port: IfName, mac: MacAddr) -> Result<(), RoutingError> {
        let Ok(index) = index_of(port) else { return Ok(()) };
        let action = format!("let {mac} go from {port}");
        absent_is_fine(self.change(
            DELETE_NEIGHBOUR,
            0,
            &neighbour(AF_BRIDGE, index, 0, FLAG_MASTER),
            &action,
            |message| {
                message.attribute(NEIGHBOUR_LLADDR, &mac.octets());
            },
        ))
    }

    pub(super) fn set_neighbour(&mut self, device: IfName, address: IpAddr, mac: MacAddr) -> Result<(), RoutingError> {
        let fixed = neighbour(family(address), index_of(device)?, STATE_PERMANENT, 0);
        let action = format!("set the neighbour {address} on {device}");
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
                added => return Ok(added?),
            }
        }
        Err(RoutingError::ForeignRoute(net))
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

    fn dump(&mut self, kind: u16, fixed: &[u8], action: &str) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let sequence = self.socket.next_sequence();
        let mut builder = Builder::default();
        builder.message(kind, REQUEST | DUMP, sequence, fixed);
        let frames = self.socket.request(builder.bytes(), sequence, action)?;
        let fixed = fixed.len();
        Ok(frames.into_iter().map(|frame| frame.payload).filter(|payload| payload.len() >= fixed).collect())
    }

    fn change(
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
        /// Masks of links, neighbours, IPv4 addresses and routes, IPv6 addresses and routes. Source: Linux
        /// `include/uapi/linux/rtnetlink.h`.
        const GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400;
        Ok(Self { socket: Socket::listen(SockProtocol::NetlinkRoute, GROUPS)? })
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

fn event(frame: &Frame) -> Option<Event> {
    let payload = &frame.payload[..];
    let family = *payload.first()?;
    match frame.kind {
        // Of another family: what a bridge or a protocol has to say about an interface that is told of elsewhere.
        NEW_LINK | DELETE_LINK if family != 0 => None,
        NEW_LINK => Some(Event::Link(index_and_name(payload)?.1, link(payload, &BTreeMap::new()))),
        DELETE_LINK => Some(Event::LinkGone(index_and_name(payload)?.1)),
        NEW_ADDRESS | DELETE_ADDRESS => {
            let (index, net) = (read_u32(payload, 4), address(payload)?);
            Some(Event::Address { index, net, present: frame.kind == NEW_ADDRESS })
        }
        NEW_NEIGHBOUR | DELETE_NEIGHBOUR if family == AF_BRIDGE => {
            let sticky = frame.kind == NEW_NEIGHBOUR && *payload.get(10)? & FLAG_STICKY != 0;
            Some(Event::Forwarding { index: read_u32(payload, 4), mac: lladdr(payload)?, sticky })
        }
        NEW_NEIGHBOUR | DELETE_NEIGHBOUR => {
            let rest = payload.get(12..)?;
            let stays = frame.kind == NEW_NEIGHBOUR && read_u16(payload, 8) & STATE_PERMANENT != 0;
            let address = attribute(rest, NEIGHBOUR_DESTINATION).and_then(ip)?;
            let ours = attribute(rest, NEIGHBOUR_PROTOCOL) == Some(&[PROTOCOL]);
            let mac = stays.then(|| lladdr(payload)).flatten();
            ours.then_some(Event::Neighbour { index: read_u32(payload, 4), address, mac })
        }
        NEW_ROUTE | DELETE_ROUTE => {
            let (net, index, via) = marked_route(payload)?;
            Some(Event::Route { net, index, via, present: frame.kind == NEW_ROUTE })
        }
        _ => None,
    }
}

/// Removing what is not there is what was wanted.
fn absent_is_fine(result: Result<(), NetlinkError>) -> Result<(), RoutingError> {
    match result {
        Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::ESRCH | Errno::ENODEV | Errno::EINVAL)) => {
            Ok(())
        }
        result => Ok(result?),
    }
}

fn index_of(name: IfName) -> Result<u32, RoutingError> {
    nix::net::if_::if_nametoindex(name.as_str()).map_err(|_| RoutingError::NoInterface(name))
}

fn index_and_name(frame: &[u8]) -> Option<(u32, IfName)> {
    let name = attribute(frame.get(16..)?, LINK_NAME)?;
    Some((read_u32(frame, 4), text(name).parse().ok()?))
}

fn link(frame: &[u8], names: &BTreeMap<u32, IfName>) -> Link {
    let attributes = frame.get(16..).unwrap_or_default();
    let info = attribute(attributes, LINK_INFO).unwrap_or_default();
    let is_bridge = attribute(info, INFO_KIND).is_some_and(|kind| text(kind) == "bridge");
    let data = attribute(info, INFO_DATA).unwrap_or_default();
    let master = attribute(attributes, LINK_MASTER).map(|index| read_u32(index, 0));
    // A bridge that was not asked for by name is not in `names`.
    let name_of = |index: u32| {
        let asked = || nix::net::if_::if_indextoname(index).ok()?.to_str().ok()?.parse().ok();
        names.get(&index).copied().or_else(asked)
    };
    Link {
        index: read_u32(frame, 4),
        master: master.and_then(name_of),
        up: read_u32(frame, 8) & INTERFACE_UP != 0,
        mac: attribute(attributes, LINK_ADDRESS).and_then(mac),
        addresses: Vec::new(),
        bridge: is_bridge.then(|| BridgeOptions {
            vlan_filtering: attribute(data, BRIDGE_VLAN_FILTERING) == Some(&[1]),
            no_linklocal_learn: attribute(data, BRIDGE_BOOLEAN_OPTIONS)
                .is_some_and(|options| read_u32(options, 0) & NO_LINK_LOCAL_LEARN != 0),
        }),
    }
}

fn address(frame: &[u8]) -> Option<IpNet> {
    let rest = frame.get(8..)?;
    // On point-to-point links ADDRESS is the peer.
    let own = attribute(rest, ADDRESS_LOCAL).or_else(|| attribute(rest, ADDRESS_ADDRESS))?;
    IpNet::new(ip(own)?, frame[1]).ok()
}

fn our_route(frame: &[u8], names: &BTreeMap<u32, IfName>) -> Option<(IpNet, Route)> {
    let (net, index, via) = marked_route(frame)?;
    Some((net, Route { device: *names.get(&index)?, via }))
}

/// Destination, number of the interface and next hop of a route that carries our mark.
fn marked_route(frame: &[u8]) -> Option<(IpNet, u32, Option<IpAddr>)> {
    let rest = frame.get(12..)?;
    if frame[5] != PROTOCOL || frame[4] != TABLE_MAIN {
        return None;
    }
    let any = if frame[0] == AF_INET { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let destination = attribute(rest, ROUTE_DESTINATION).map_or(Some(any), ip)?;
    let via = attribute(rest, ROUTE_GATEWAY).and_then(ip);
    Some((IpNet::new(destination, frame[1]).ok()?, read_u32(attribute(rest, ROUTE_OUTPUT)?, 0), via))
}

/// `struct ndmsg`.
fn neighbour(family: u8, index: u32, state: u16, flags: u8) -> [u8; 12] {
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

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    let value = bytes.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    value.map_or(0, u32::from_ne_bytes)
}

fn read_u16(bytes: &[u8], at: usize) -> u16 {
    let value = bytes.get(at..at + 2).and_then(|bytes| <[u8; 2]>::try_from(bytes).ok());
    value.map_or(0, u16::from_ne_bytes)
}
