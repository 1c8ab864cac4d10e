//! Small builders of frames, right and wrong ones. Every function returns bytes; nothing here knows a verdict.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Six octets, any of them: a frame may carry what is no MAC of a NIC.
pub type Mac = [u8; 6];

/// Everybody.
pub const BROADCAST: Mac = [0xff; 6];
/// LLDP's group: a bridge handles it before any rule sees it, and learns its source all the same.
pub const LINK_LOCAL_GROUP: Mac = [0x01, 0x80, 0xc2, 0, 0, 0x0e];
/// Every host on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Every router on the link.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const MLD_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// Every DHCPv6 server and relay on the link.
pub const DHCP6_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Ethertype of IPv4.
pub const IP4: u16 = 0x0800;
/// Ethertype of ARP.
pub const ARP: u16 = 0x0806;
/// Ethertype of IPv6.
pub const IP6: u16 = 0x86dd;
/// Ethertype of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;

/// Protocol number.
pub const ICMP: u8 = 1;
/// Protocol number.
pub const IGMP: u8 = 2;
/// Protocol number.
pub const TCP: u8 = 6;
/// Protocol number.
pub const UDP: u8 = 17;
/// Protocol number.
pub const ICMP6: u8 = 58;

/// A frame.
pub fn ether(to: Mac, from: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

/// Puts a tag behind the MACs of a frame.
pub fn tagged(tpid: u16, vlan: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &tpid.to_be_bytes(), &vlan.to_be_bytes(), &frame[12..]].concat()
}

/// Whether there is one, of whatever kind.
pub fn is_tagged(frame: &[u8]) -> bool {
    let ethertype = frame.get(12..14).and_then(|bytes| <[u8; 2]>::try_from(bytes).ok()).map(u16::from_be_bytes);
    ethertype.is_some_and(|ethertype| [VLAN, 0x88a8, 0x9100, 0x9200].contains(&ethertype))
}

/// Ethertype and packet behind all tags.
fn behind_tags(frame: &[u8]) -> (u16, &[u8]) {
    let mut rest = frame.get(12..).unwrap_or_default();
    loop {
        match rest {
            [0x81, 0, _, _, inner @ ..] | [0x88, 0xa8, _, _, inner @ ..] => rest = inner,
            [high, low, packet @ ..] => return (u16::from_be_bytes([*high, *low]), packet),
            _ => return (0, rest),
        }
    }
}

/// The destination of the IP packet in a frame, behind any tags.
pub fn destination(frame: &[u8]) -> Option<IpAddr> {
    match behind_tags(frame) {
        (IP4, packet) => packet.get(16..)?.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        (IP6, packet) => packet.get(24..)?.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}

/// Whether it is a router advertisement, behind one header of eight bytes at most.
pub fn is_advertisement(frame: &[u8]) -> bool {
    let kind = match behind_tags(frame) {
        (IP6, packet) if packet.get(6) == Some(&ICMP6) => packet.get(40),
        (IP6, packet) if packet.get(40) == Some(&ICMP6) => packet.get(48),
        _ => None,
    };
    kind == Some(&134)
}

/// The same frame as 802.3 with an LLC/SNAP header that carries the ethertype (RFC 1042).
pub fn snap(frame: &[u8]) -> Vec<u8> {
    let body = [&[0xaa, 0xaa, 3, 0, 0, 0], &frame[12..]].concat();
    let length = length16(body.len());
    [&frame[..12], &length, &body].concat()
}

// ---- ARP ----

/// An ARP or RARP message; every field may be wrong.
#[derive(Debug, Clone, Copy)]
pub struct Arp {
    /// Hardware type; Ethernet is 1.
    pub hardware: u16,
    /// Protocol type.
    pub protocol: u16,
    /// Lengths of hardware and protocol address.
    pub lengths: [u8; 2],
    /// 1 request, 2 reply; RARP 3 and 4.
    pub operation: u16,
    /// Who says it.
    pub sender: (Mac, Ipv4Addr),
    /// Of whom or to whom.
    pub target: (Mac, Ipv4Addr),
}

impl Arp {
    /// Who has `wanted`?
    pub fn request(sender: (Mac, Ipv4Addr), wanted: Ipv4Addr) -> Self {
        let target = ([0; 6], wanted);
        Self { hardware: 1, protocol: IP4, lengths: [6, 4], operation: 1, sender, target }
    }

    /// `sender` says to `target` that it has its address.
    pub fn reply(sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Self {
        Self { operation: 2, target, ..Self::request(sender, target.1) }
    }

    /// Without Ethernet header.
    pub fn bytes(self) -> Vec<u8> {
        let mut bytes = [self.hardware.to_be_bytes(), self.protocol.to_be_bytes(), self.lengths].concat();
        bytes.extend(self.operation.to_be_bytes());
        for (mac, address) in [self.sender, self.target] {
            bytes.extend(mac);
            bytes.extend(address.octets());
        }
        bytes
    }

    /// With Ethernet header.
    pub fn frame(self, to: Mac, from: Mac) -> Vec<u8> {
        ether(to, from, ARP, &self.bytes())
    }
}

// ---- IPv4 ----

/// A packet; `fragment` is the field of the header: flags and offset in units of 8 bytes.
pub fn ip4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(length16(20 + payload.len()));
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
pub fn udp(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length16(8 + data.len()), &[0, 0], data].concat()
}

/// A SYN.
pub fn tcp(from: u16, to: u16) -> Vec<u8> {
    let fixed = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0];
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &fixed].concat()
}

/// An ICMP message with its checksum.
pub fn icmp(kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0][..], body].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

// ---- IPv6 ----

/// A packet; `next` is what follows the fixed header.
pub fn ip6(from: Ipv6Addr, to: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length16(payload.len()));
    packet.extend([next, hops]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

/// A datagram with its checksum.
pub fn udp6(from: Ipv6Addr, to: Ipv6Addr, source: u16, destination: u16) -> Vec<u8> {
    with_checksum6(from, to, UDP, udp(source, destination, b"data"), 6)
}

/// A message with its checksum; code 0.
pub fn icmp6(from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    with_checksum6(from, to, ICMP6, [&[kind, 0, 0, 0], body].concat(), 2)
}

/// Body of a solicitation or advertisement: flags, target, options.
pub fn nd_body(flags: u8, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    [&[flags, 0, 0, 0], &target.octets()[..], options].concat()
}

/// Option 1 (source) or 2 (target): a link-layer address.
pub fn lladdr_option(kind: u8, mac: Mac) -> Vec<u8> {
    [&[kind, 1], &mac[..]].concat()
}

/// Body of a router advertisement that makes the sender a default router.
pub fn ra_body(options: &[u8]) -> Vec<u8> {
    [&[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0], options].concat()
}

/// Body of a version 2 multicast listener report for one group.
pub fn mld2_body(group: Ipv6Addr) -> Vec<u8> {
    [&[0, 0, 0, 1, 4, 0, 0, 0][..], &group.octets()].concat()
}

/// A multicast listener message as RFC 3810 wants it: router alert, hop limit 1.
pub fn mld(from: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    let message = icmp6(from, MLD_ROUTERS, kind, body);
    ip6(from, MLD_ROUTERS, 0, 1, &[&[ICMP6, 0, 5, 2, 0, 0, 1, 0], &message[..]].concat())
}

/// The same without the hop-by-hop header.
pub fn mld_bare(from: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    ip6(from, MLD_ROUTERS, ICMP6, 1, &icmp6(from, MLD_ROUTERS, kind, body))
}

/// Hop-by-hop or destination options of eight bytes, all padding.
pub fn options_header(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

/// Fragment header; offset in units of 8 bytes.
pub fn fragment_header(next: u8, offset: u16, more: bool) -> [u8; 8] {
    let field = (offset << 3 | u16::from(more)).to_be_bytes();
    [next, 0, field[0], field[1], 0, 0, 0x12, 0x34]
}

/// The MAC to which a group's packets go.
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let octets = group.octets();
    [0x33, 0x33, octets[12], octets[13], octets[14], octets[15]]
}

/// The group in which a host listens for solicitations of this address.
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// Writes the checksum of a message, which covers the addresses too, at a place in it.
pub fn with_checksum6(from: Ipv6Addr, to: Ipv6Addr, next: u8, mut message: Vec<u8>, at: usize) -> Vec<u8> {
    let pseudo =
        [&from.octets()[..], &to.octets(), &[0, 0], &length16(message.len()), &[0, 0, 0, next], &message].concat();
    let sum = checksum(&pseudo);
    message[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    message
}

/// No frame here is longer than the field can say.
fn length16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// The Internet checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [.., high, low] = sum.to_be_bytes();
    !u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Mac = [2, 0, 0, 0, 0, 1];
    const TWO: Mac = [2, 0, 0, 0, 0, 2];

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn arp_is_as_the_rfc_has_it() {
        let request = Arp::request((ONE, Ipv4Addr::new(192, 0, 2, 1)), Ipv4Addr::new(192, 0, 2, 2));
        let frame = "ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 c0000201 000000000000 c0000202";
        assert_eq!(hex(&request.frame(BROADCAST, ONE)), frame.replace(' ', ""));
        let reply = Arp::reply((TWO, Ipv4Addr::new(192, 0, 2, 2)), (ONE, Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(hex(&reply.bytes()), "0001080006040002020000000002c0000202020000000001c0000201");
    }

    #[test]
    fn checksums_come_out_even() {
        let (from, to) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let packet = ip4(from, to, UDP, 0, &udp(1, 2, b"odd"));
        assert_eq!((checksum(&packet[..20]), packet.len(), &packet[2..4]), (0, 31, &[0, 31][..]));
        assert_eq!(checksum(&icmp(8, 0, b"odd")), 0);
        // RFC 1071, section 3.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        let (from, to): (Ipv6Addr, Ipv6Addr) = ("2001:db8::1".parse().unwrap(), ALL_NODES);
        for (next, message) in [(ICMP6, icmp6(from, to, 136, &nd_body(0x20, from, &[]))), (UDP, udp6(from, to, 1, 2))] {
            let length = u8::try_from(message.len()).unwrap();
            let pseudo = [&from.octets()[..], &to.octets(), &[0, 0, 0, length, 0, 0, 0, next], &message].concat();
            assert_eq!(checksum(&pseudo), 0);
        }
    }

    #[test]
    fn wrappers_wrap() {
        let frame = ether(TWO, ONE, IP4, b"packet");
        assert_eq!(
            hex(&tagged(VLAN, 10, &frame)),
            format!("020000000002020000000001 8100 000a 0800{}", hex(b"packet")).replace(' ', "")
        );
        assert_eq!(
            hex(&snap(&frame)),
            format!("020000000002020000000001 000e aaaa03000000 0800{}", hex(b"packet")).replace(' ', "")
        );
        let packet = ip6(ALL_NODES, ALL_ROUTERS, UDP, 1, &[]);
        let frame = ether(TWO, ONE, IP6, &packet);
        assert_eq!(destination(&frame), Some(ALL_ROUTERS.into()));
        assert_eq!(destination(&tagged(VLAN, 0, &frame)), Some(ALL_ROUTERS.into()));
        assert_eq!((destination(&frame[..50]), destination(&snap(&frame))), (None, None));
        assert_eq!(fragment_header(UDP, 3, true), [17, 0, 0, 0x19, 0, 0, 0x12, 0x34]);
        assert_eq!(solicited_node("2001:db8::12:3456".parse().unwrap()).to_string(), "ff02::1:ff12:3456");
        assert_eq!(group_mac(ALL_ROUTERS), [0x33, 0x33, 0, 0, 0, 2]);
        let report = mld(Ipv6Addr::UNSPECIFIED, 143, &mld2_body(ALL_NODES));
        assert_eq!((report[6], report[7], hex(&report[40..48])), (0, 1, "3a00050200000100".to_owned()));
        assert_eq!(report[48], 143);
    }
}
