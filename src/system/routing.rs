//! Links, addresses, forwarding entries, neighbours and routes over rtnetlink.
//!
//! What this program sets carries its protocol number, so that it can be told from everything else without a state
//! file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::netlink::flags::{ACKNOWLEDGE, CREATE, DUMP, EXCLUSIVE, REPLACE, REQUEST};
use super::netlink::{Builder, NetlinkError, Socket, attribute};
use super::pins::{Pinned, Pins};
use super::rtnetlink::{
    ABSENT, ADDRESS_ADDRESS, ADDRESS_LOCAL, ADDRESS_PERMANENT, ADDRESS_PROTOCOL, AF_INET, AF_INET6, ALL_GROUPS,
    BRIDGE_BOOLEAN_OPTIONS, DELETE_ADDRESS, DELETE_NEIGHBOUR, DELETE_ROUTE, Entry, FLAG_PROXY, GET_ADDRESS, GET_LINK,
    GET_NEIGHBOUR, GET_ROUTE, INFO_DATA, INFO_KIND, INFO_SLAVE_DATA, INFO_SLAVE_KIND, LINK_INFO, LINK_MASTER,
    LINK_NAME, NEIGHBOUR_DESTINATION, NEIGHBOUR_LLADDR, NEIGHBOUR_PROTOCOL, NEW_ADDRESS, NEW_LINK, NEW_NEIGHBOUR,
    NEW_ROUTE, NEXT_HOP_ON_LINK, NO_LINK_LOCAL_LEARN, PORT_GROUP_FORWARD, PROTOCOL, PROTOCOL_ADVERTISED,
    ROUTE_DESTINATION, ROUTE_GATEWAY, ROUTE_OUTPUT, ROUTE_VIA, SCOPE_LINK, SCOPE_UNIVERSE, STATE_PERMANENT,
    STATES_FOUND, TYPE_LOCAL, VXLAN, WHOLE_ROUTE, address, default_routes, entry, family, index_and_name, ip, link,
    lladdr, name_of, neighbour, octets, own_address, read_u16, read_u32, route, way,
};
use crate::host::files;
use crate::links::Links;
use crate::model::{IfName, MacAddr};
use crate::plan::present::Neighbour;
use crate::plan::{Decided, Exits, Foreign, NetState, Refusal, Route};
use crate::plan::{decide, foreign_neighbour, interface_down, without_ipv6};

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
    #[error("{}", interface_down(*.0).sentence)]
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

    /// What the neighbour table knows, by whichever way it came there.
    pub(super) fn neighbours(&mut self) -> Result<Vec<Neighbour>, NetlinkError> {
        let mut found = Vec::new();
        for family in [AF_INET, AF_INET6] {
            for frame in self.dump(GET_NEIGHBOUR, &neighbour(family, 0, 0, 0), "list the neighbours")? {
                let Some(Entry { index, address, mac: Some(mac), permanent, ours }) = entry(&frame) else { continue };
                let is_found = read_u16(&frame, 8) & STATES_FOUND != 0;
                let Some(device) = name_of(index).filter(|_| is_found) else { continue };
                found.push(Neighbour { device, address, mac, is_static: permanent && !ours });
            }
        }
        Ok(found)
    }

    /// Routes to single addresses that an administrator has made, with the interface that they lead to.
    pub(super) fn host_routes(&mut self) -> Result<Vec<(IpAddr, IfName)>, NetlinkError> {
        // `RTPROT_BOOT` (what `ip route add` makes) and `RTPROT_STATIC`; a routing daemon's are not those of single guests.
        const BY_HAND: [u8; 2] = [3, 4];
        let mut found = Vec::new();
        for family in [AF_INET, AF_INET6] {
            for frame in self.dump(GET_ROUTE, &route(family, 0, 0, 0), "list the routes")? {
                let Some((net, Some(index), way)) = way(&frame, |_| None) else { continue };
                let is_one = net.prefix_len() == net.max_prefix_len() && way.kind.is_empty() && way.via.is_none();
                let is_by_hand = is_one && BY_HAND.contains(&frame[5]);
                found.extend(name_of(index).filter(|_| is_by_hand).map(|device| (net.addr(), device)));
            }
        }
        Ok(found)
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
        let there = |(net, _): &(&IpNet, &Route)| observed.foreign.routes.contains_key(*net);
        let there = wanted.routes.iter().filter(there).map(|(net, route)| (*net, *route)).collect();
        observed.foreign.bypassed = self.bypassed(links, &there)?;
        let routed = wanted.routes.iter().map(|(net, route)| (route.device, net.addr()));
        let known = wanted.neighbours.keys().chain(&wanted.support.gateways).copied();
        let devices = routed.chain(known).filter(|(_, address)| address.is_ipv6()).map(|(device, _)| device);
        let devices: BTreeSet<IfName> = devices.collect();
        observed.foreign.without_ipv6 = devices.into_iter().filter(|device| has_no_ipv6(*device)).collect();
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
            added => added.map_err(|error| reason(device, address, error)),
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
        let set = self.change(NEW_NEIGHBOUR, CREATE | REPLACE, &fixed, &action, |message| {
            message
                .attribute(NEIGHBOUR_DESTINATION, &octets(address))
                .attribute(NEIGHBOUR_LLADDR, &mac.octets())
                .attribute(NEIGHBOUR_PROTOCOL, &[PROTOCOL]);
        });
        set.map_err(|error| reason(device, address, error))
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
                    added.map_err(|error| reason(to.device, net.addr(), error))?;
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

    /// Whether the node takes what is sent to an address for its own.
    pub(super) fn is_own(&mut self, address: IpAddr) -> bool {
        let sequence = self.socket.next_sequence();
        let mut fixed = [0; 12];
        (fixed[0], fixed[1]) = (family(address), if address.is_ipv4() { 32 } else { 128 });
        let mut builder = Builder::default();
        builder.message(GET_ROUTE, REQUEST | ACKNOWLEDGE, sequence, &fixed);
        builder.attribute(ROUTE_DESTINATION, &octets(address)).end_message();
        // To what is not reachable at all the answer is an error.
        let found = self.socket.request(builder.bytes(), sequence, "look up an address").unwrap_or_default();
        found.first().is_some_and(|frame| frame.payload.get(7) == Some(&TYPE_LOCAL))
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

/// Removing what is not there is what was wanted.
pub(super) fn absent_is_fine(result: Result<(), NetlinkError>) -> Result<(), RoutingError> {
    match result {
        Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::ESRCH | Errno::ENODEV | Errno::EINVAL)) => {
            Ok(())
        }
        result => Ok(result?),
    }
}

/// Why something with this address could not be put on an interface: the kernel names many causes by one number.
fn reason(device: IfName, address: IpAddr, error: NetlinkError) -> RoutingError {
    if address.is_ipv6() && has_no_ipv6(device) {
        return RoutingError::Foreign(without_ipv6(device));
    }
    error.into()
}

/// Whether somebody has switched IPv6 off on an interface.
fn has_no_ipv6(device: IfName) -> bool {
    let path = Path::new("/proc/sys/net/ipv6/conf").join(device.as_str()).join("disable_ipv6");
    files::read_kernel(&path).is_ok_and(|text| text.trim() == "1")
}

pub(super) fn index_of(name: IfName) -> Result<u32, RoutingError> {
    nix::net::if_::if_nametoindex(name.as_str()).map_err(|_| RoutingError::NoInterface(name))
}
