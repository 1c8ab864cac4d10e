//! What the kernel tells of interfaces, addresses, neighbours, forwarding entries and routes as it happens.

use std::collections::BTreeMap;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockProtocol};

use super::netlink::{Frame, Instruction, NetlinkError, Socket, attribute, attributes};
use super::rtnetlink::{
    AF_BRIDGE, AF_INET, DELETE_ADDRESS, DELETE_LINK, DELETE_NEIGHBOUR, DELETE_ROUTE, FLAG_STICKY,
    NEIGHBOUR_DESTINATION, NEIGHBOUR_PROTOCOL, NETCONF_FORWARDING, NETCONF_INDEX, NETCONF_PROXY, NEW_ADDRESS, NEW_LINK,
    NEW_NEIGHBOUR, NEW_NETCONF, NEW_ROUTE, PROTOCOL, STATE_NOARP, STATE_PERMANENT, address, default_routes,
    index_and_name, ip, link, lladdr, read_u16, read_u32, way,
};
use crate::model::Family;
use crate::plan::{Event, Way};

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
                family: if family == AF_INET { Family::V4 } else { Family::V6 },
                index: value(NETCONF_INDEX)?,
                forwarding: value(NETCONF_FORWARDING),
                proxy: value(NETCONF_PROXY),
                unnamed: attributes(rest).all(|(kind, _)| kind == NETCONF_INDEX),
            })
        }
        _ => None,
    }
}
