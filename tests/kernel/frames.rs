//! Small builders of frames, right and wrong ones. Every function returns bytes; nothing here knows a verdict.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Mac;

pub(crate) const BROADCAST: Mac = [0xff; 6];
/// LLDP's group: a bridge handles it before any rule sees it, and learns its source all the same.
pub(crate) const LINK_LOCAL_GROUP: Mac = [0x01, 0x80, 0xc2, 0, 0, 0x0e];
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const MLD_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
pub(crate) const DHCP6_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

pub(crate) const IP4: u16 = 0x0800;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IP6: u16 = 0x86dd;
pub(crate) const VLAN: u16 = 0x8100;

pub(crate) const ICMP: u8 = 1;
pub(crate) const IGMP: u8 = 2;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP6: u8 = 58;

pub(crate) fn ether(to: Mac, from: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

/// Puts a tag behind the MACs of a frame.
pub(crate) fn tagged(tpid: u16, vlan: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &tpid.to_be_bytes(), &vlan.to_be_bytes(), &frame[12..]].concat()
}

/// The same frame as 802.3 with an LLC/SNAP header that carries the ethertype (RFC 1042).
pub(crate) fn snap(frame: &[u8]) -> Vec<u8> {
    let body = [&[0xaa, 0xaa, 3, 0, 0, 0], &frame[12..]].concat();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&frame[..12], &length, &body].concat()
}

// ---- ARP ----

#[derive(Clone, Copy)]
pub(crate) struct Arp {
    pub(crate) hardware: u16,
    pub(crate) protocol: u16,
    pub(crate) lengths: [u8; 2],
    pub(crate) operation: u16,
    pub(crate) sender: (Mac, Ipv4Addr),
    pub(crate) target: (Mac, Ipv4Addr),
}

impl Arp {
    pub(crate) fn request(sender: (Mac, Ipv4Addr), wanted: Ipv4Addr) -> Self {
        let target = ([0; 6], wanted);
        Self { hardware: 1, protocol: IP4, lengths: [6, 4], operation: 1, sender, target }
    }

    pub(crate) fn reply(sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Self {
        Self { operation: 2, target, ..Self::request(sender, target.1) }
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        let mut bytes = [self.hardware.to_be_bytes(), self.protocol.to_be_bytes(), self.lengths].concat();
        bytes.extend(self.operation.to_be_bytes());
        for (mac, address) in [self.sender, self.target] {
            bytes.extend(mac);
            bytes.extend(address.octets());
        }
        bytes
    }

    pub(crate) fn frame(self, to: Mac, from: Mac) -> Vec<u8> {
        ether(to, from, ARP, &self.bytes())
    }
}

// ---- IPv4 ----

/// A packet; `fragment` is the field of the header: flags and offset in units of 8 bytes.
pub(crate) fn ip4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap();
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0x12, 0x34]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header[..], payload].concat()
}

/// Without a checksum, which IPv4 allows.
pub(crate) fn udp(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + data.len()).unwrap();
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], data].concat()
}

/// A SYN.
pub(crate) fn tcp(from: u16, to: u16) -> Vec<u8> {
    let fixed = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0];
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &fixed].concat()
}

pub(crate) fn icmp(kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0][..], body].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

// ---- IPv6 ----

pub(crate) fn ip6(from: Ipv6Addr, to: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, hops]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

pub(crate) fn udp6(from: Ipv6Addr, to: Ipv6Addr, source: u16, destination: u16) -> Vec<u8> {
    with_checksum6(from, to, UDP, udp(source, destination, b"data"), 6)
}

pub(crate) fn icmp6(from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    with_checksum6(from, to, ICMP6, [&[kind, 0, 0, 0], body].concat(), 2)
}

/// Body of a solicitation or advertisement: flags, target, options.
pub(crate) fn nd_body(flags: u8, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    [&[flags, 0, 0, 0], &target.octets()[..], options].concat()
}

/// Option 1 (source) or 2 (target): a link-layer address.
pub(crate) fn lladdr_option(kind: u8, mac: Mac) -> Vec<u8> {
    [&[kind, 1], &mac[..]].concat()
}

/// Body of a router advertisement that makes the sender a default router.
pub(crate) fn ra_body(options: &[u8]) -> Vec<u8> {
    [&[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0], options].concat()
}

/// Body of a version 2 multicast listener report for one group.
pub(crate) fn mld2_body(group: Ipv6Addr) -> Vec<u8> {
    [&[0, 0, 0, 1, 4, 0, 0, 0][..], &group.octets()].concat()
}

/// A multicast listener message as RFC 3810 wants it: router alert, hop limit 1.
pub(crate) fn mld(from: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    let message = icmp6(from, MLD_ROUTERS, kind, body);
    ip6(from, MLD_ROUTERS, 0, 1, &[&[ICMP6, 0, 5, 2, 0, 0, 1, 0], &message[..]].concat())
}

/// The same without the hop-by-hop header.
pub(crate) fn mld_bare(from: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    ip6(from, MLD_ROUTERS, ICMP6, 1, &icmp6(from, MLD_ROUTERS, kind, body))
}

/// Hop-by-hop or destination options of eight bytes, all padding.
pub(crate) fn options_header(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

/// Fragment header; offset in units of 8 bytes.
pub(crate) fn fragment_header(next: u8, offset: u16, more: bool) -> [u8; 8] {
    let field = (offset << 3 | u16::from(more)).to_be_bytes();
    [next, 0, field[0], field[1], 0, 0, 0x12, 0x34]
}

pub(crate) fn group_mac(group: Ipv6Addr) -> Mac {
    let octets = group.octets();
    [0x33, 0x33, octets[12], octets[13], octets[14], octets[15]]
}

/// The group in which a host listens for solicitations of this address.
pub(crate) fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

fn with_checksum6(from: Ipv6Addr, to: Ipv6Addr, next: u8, mut message: Vec<u8>, at: usize) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let pseudo = [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, next], &message].concat();
    let sum = checksum(&pseudo);
    message[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    message
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
