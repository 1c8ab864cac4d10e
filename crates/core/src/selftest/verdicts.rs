//! What must pass and what must not, as frames: one table for a bound port, one for every other port.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::frames::{
    ALL_NODES, ALL_ROUTERS, ARP, Arp, BROADCAST, DHCP6_SERVERS, ICMP, ICMP6, IGMP, IP4, IP6, Mac, TCP, UDP, VLAN,
    checksum, ether, fragment_header, group_mac, icmp, icmp6, ip4, ip6, is_tagged, lladdr_option, mld, mld_bare,
    mld2_body, nd_body, options_header, ra_body, snap, solicited_node, tagged, tcp, udp, udp6, with_checksum6,
};
use crate::model::MacAddr;

/// A frame, and whether it must arrive.
#[derive(Debug, Clone)]
pub struct Case {
    /// The rows of the report's summary.
    pub group: &'static str,
    /// What kind of frame it is, in words.
    pub class: String,
    /// The frame.
    pub frame: Vec<u8>,
    /// Whether it must arrive.
    pub passes: bool,
    /// What a virtual machine asks of its network card with the frame.
    pub offload: Option<Offload>,
    /// Bytes by which the frame is known although the kernel changes it on its way: it cuts a large one, or routes it.
    pub mark: Option<Vec<u8>>,
}

/// What a driver may leave to the network card: `struct virtio_net_hdr` of Linux `include/uapi/linux/virtio_net.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    /// Into which kind of packets the frame is cut; 0: it is not.
    pub segments: u8,
    /// Length of all headers.
    pub headers: u16,
    /// Bytes of data in each segment.
    pub segment: u16,
    /// Where the checksum begins.
    pub start: u16,
    /// Where, counted from there, it is written.
    pub offset: u16,
}

/// Somebody with a MAC and addresses.
#[derive(Debug, Clone, Copy)]
pub struct Who {
    /// The NIC's.
    pub mac: Mac,
    /// One of each family.
    pub ip4: Ipv4Addr,
    /// One of each family.
    pub ip6: Ipv6Addr,
}

impl Who {
    /// The address that the MAC makes.
    pub fn link_local(self) -> Ipv6Addr {
        MacAddr::from_octets(self.mac).link_local()
    }
}

/// Those that a sender may pose as, and what is around them.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    /// The provider's.
    pub gateway: Who,
    /// On the bridge.
    pub node: Who,
    /// Bound elsewhere on the bridge.
    pub victim: Who,
    /// Not in any pool.
    pub stranger: Who,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) group: &'static str,
    pub(super) cases: Vec<Case>,
}

impl Table {
    pub(super) fn pass(&mut self, class: impl Into<String>, frame: Vec<u8>) {
        self.is(true, class, frame);
    }

    pub(super) fn drop(&mut self, class: impl Into<String>, frame: Vec<u8>) {
        self.is(false, class, frame);
    }

    pub(super) fn is(&mut self, passes: bool, class: impl Into<String>, frame: Vec<u8>) {
        self.cases.push(Case { group: self.group, class: class.into(), frame, passes, offload: None, mark: None });
    }
}

/// Frames from one MAC, to one MAC or to the group that the destination address has.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    pub(super) me: Who,
    pub(super) to: Mac,
}

impl Sender {
    pub(super) fn v4(self, from: Ipv4Addr, to: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        ether(self.to, self.me.mac, IP4, &ip4(from, to, protocol, fragment, payload))
    }

    pub(super) fn v6(self, from: Ipv6Addr, to: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
        let mac = if to.is_multicast() { group_mac(to) } else { self.to };
        ether(mac, self.me.mac, IP6, &ip6(from, to, next, hops, payload))
    }

    pub(super) fn udp6(self, from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
        self.v6(from, to, UDP, 64, &udp6(from, to, 4000, 4001))
    }

    pub(super) fn icmp6(self, from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
        self.v6(from, to, ICMP6, 255, &icmp6(from, to, kind, body))
    }

    pub(super) fn ns(self, from: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        self.icmp6(from, solicited_node(target), 135, &nd_body(0, target, options))
    }

    /// Unsolicited, with the override flag: what poisons a neighbour's cache.
    pub(super) fn na(self, from: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        self.icmp6(from, ALL_NODES, 136, &nd_body(0x20, target, options))
    }

    /// A message behind an extension header of eight bytes.
    pub(super) fn behind(self, from: Ipv6Addr, to: Ipv6Addr, next: u8, header: [u8; 8], message: &[u8]) -> Vec<u8> {
        self.v6(from, to, next, 255, &[&header[..], message].concat())
    }

    pub(super) fn mld(self, packet: &[u8]) -> Vec<u8> {
        ether([0x33, 0x33, 0, 0, 0, 0x16], self.me.mac, IP6, packet)
    }

    pub(super) fn arp(self, arp: Arp) -> Vec<u8> {
        arp.frame(self.to, self.me.mac)
    }
}

const HOP_BY_HOP: u8 = 0;
const PIM: u8 = 103;
pub(super) const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
pub(super) const MORE: u16 = 0x2000;
/// Data of a later fragment that reads like ports 67 -> 68, and like an ICMP redirect.
const LOOKS_LIKE_DHCP: [u8; 16] = [0, 67, 0, 68, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
const LOOKS_LIKE_REDIRECT: [u8; 16] = [5, 1, 0, 0, 203, 0, 113, 1, 1, 2, 3, 4, 5, 6, 7, 8];

/// A bound port: everything of its own, nothing else.
pub fn bound_port(me: Who, scene: &Scene) -> Vec<Case> {
    let mut table = Table::default();
    bound_frames(&mut table, me, scene);
    bound_arp(&mut table, me, scene);
    bound_ip4(&mut table, me, scene);
    bound_ip6(&mut table, me, scene);
    bound_nd(&mut table, me, scene);
    bound_odd_nd(&mut table, me, scene);
    table.cases
}

/// An address of a bound port's prefix: it is used like an own one.
pub fn own_prefix(me: Who, scene: &Scene) -> Vec<Case> {
    let mut table = Table { group: "own prefix", ..Table::default() };
    let own = Sender { me, to: BROADCAST };
    table.pass("IPv4 of the own prefix", own.v4(me.ip4, scene.gateway.ip4, UDP, 0, &udp(1, 2, b"")));
    table.pass("ARP of the own prefix", own.arp(Arp::request((me.mac, me.ip4), scene.gateway.ip4)));
    table.pass("ARP probe of the own prefix", own.arp(Arp::request((me.mac, Ipv4Addr::UNSPECIFIED), me.ip4)));
    table.pass("IPv6 of the own prefix", own.udp6(me.ip6, scene.gateway.ip6));
    table.pass("NA of the own prefix", own.na(me.ip6, me.ip6, &lladdr_option(2, me.mac)));
    table.pass("DAD of the own prefix", own.ns(Ipv6Addr::UNSPECIFIED, me.ip6, &[]));
    table.cases
}

fn bound_frames(table: &mut Table, me: Who, scene: &Scene) {
    table.group = "source MAC";
    let Scene { gateway, victim, stranger, .. } = *scene;
    let own = Sender { me, to: gateway.mac };
    let packet = ip4(me.ip4, gateway.ip4, UDP, 0, &udp(4000, 4001, b"data"));
    for (name, mac) in [("another guest's", victim.mac), ("the gateway's", gateway.mac), ("a random", stranger.mac)] {
        table.drop(format!("source MAC {name}, own IPv4"), ether(BROADCAST, mac, IP4, &packet));
        table.drop(
            format!("source MAC {name}, own ARP"),
            Arp::request((me.mac, me.ip4), gateway.ip4).frame(BROADCAST, mac),
        );
        let packet = ip6(me.ip6, gateway.ip6, UDP, 64, &udp6(me.ip6, gateway.ip6, 1, 2));
        table.drop(format!("source MAC {name}, own IPv6"), ether(BROADCAST, mac, IP6, &packet));
        table.drop(format!("source MAC {name}, unknown ethertype"), ether(BROADCAST, mac, 0x88b6, b"data"));
        let request = ip4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, UDP, 0, &udp(68, 67, b"data"));
        table.drop(format!("source MAC {name}, DHCP request"), ether(BROADCAST, mac, IP4, &request));
        let report = mld(Ipv6Addr::UNSPECIFIED, 143, &mld2_body(ALL_NODES));
        table.drop(format!("source MAC {name}, MLD report"), ether(group_mac(ALL_NODES), mac, IP6, &report));
    }
    table.drop("multicast source MAC", ether(BROADCAST, [3, 0, 0, 0, 0, 1], IP4, &packet));
    let victims = ip4(victim.ip4, gateway.ip4, UDP, 0, &udp(4000, 4001, b"data"));
    table.drop("MAC and IPv4 of another guest", ether(gateway.mac, victim.mac, IP4, &victims));

    table.group = "tags and ethertypes";
    let good = own.v4(me.ip4, gateway.ip4, UDP, 0, &udp(4000, 4001, b"data"));
    for (tpid, vlan) in [(VLAN, 0), (VLAN, 10), (0x88a8, 0), (0x88a8, 10), (0x9100, 10), (0x9200, 10)] {
        table.drop(format!("tag {tpid:#06x} VLAN {vlan}, own IPv4"), tagged(tpid, vlan, &good));
    }
    let arp = own.arp(Arp::request((me.mac, me.ip4), gateway.ip4));
    table.drop("priority tag, own ARP", tagged(VLAN, 0, &arp));
    table.drop("two tags, own IPv4", tagged(VLAN, 10, &tagged(VLAN, 20, &good)));
    table.drop("two priority tags, own ARP", tagged(VLAN, 0, &tagged(VLAN, 0, &arp)));
    table.drop("802.1ad over 802.1Q, own ARP", tagged(0x88a8, 0, &tagged(VLAN, 0, &arp)));
    table.drop("SNAP, own IPv4", snap(&good));
    table.drop("SNAP, own ARP", snap(&arp));
    table.drop("priority tag, SNAP, own ARP", tagged(VLAN, 0, &snap(&arp)));
    let spanning_tree = [0, 38, 0x42, 0x42, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    table.drop("spanning tree", [&[0x01, 0x80, 0xc2, 0, 0, 0], &me.mac[..], &spanning_tree].concat());
    for (name, ethertype) in [
        ("LLDP", 0x88cc),
        ("PPPoE discovery", 0x8863),
        ("PPPoE session", 0x8864),
        ("MPLS", 0x8847),
        ("MPLS multicast", 0x8848),
        ("EAPOL", 0x888e),
        ("experimental", 0x88b6),
        ("ATA over Ethernet", 0x88a2),
        ("zero", 0),
    ] {
        table.drop(format!("ethertype {name}"), ether(BROADCAST, me.mac, ethertype, b"some data in it"));
    }
    for (name, ethertype) in [("IPv4", IP4), ("ARP", ARP), ("IPv6", IP6)] {
        table.drop(format!("nothing but the ethertype of {name}"), ether(BROADCAST, me.mac, ethertype, &[]));
        table.drop(format!("four bytes of {name}"), ether(BROADCAST, me.mac, ethertype, &good[14..18]));
    }
}

fn bound_arp(table: &mut Table, me: Who, scene: &Scene) {
    table.group = "ARP";
    let Scene { gateway, victim, stranger, node } = *scene;
    let own = Sender { me, to: BROADCAST };
    let mine = (me.mac, me.ip4);
    table.pass("ARP request", own.arp(Arp::request(mine, gateway.ip4)));
    table.pass("ARP reply", Arp::reply(mine, (gateway.mac, gateway.ip4)).frame(gateway.mac, me.mac));
    table.pass("gratuitous ARP request", own.arp(Arp::request(mine, me.ip4)));
    table.pass("gratuitous ARP reply", own.arp(Arp::reply(mine, (BROADCAST, me.ip4))));
    table.pass("ARP probe for the own address", own.arp(Arp::request((me.mac, Ipv4Addr::UNSPECIFIED), me.ip4)));
    table.pass("ARP request with trailing bytes", [own.arp(Arp::request(mine, gateway.ip4)), vec![0; 18]].concat());
    for (name, address) in [
        ("another guest's", victim.ip4),
        ("the gateway's", gateway.ip4),
        ("the node's", node.ip4),
        ("a random", stranger.ip4),
    ] {
        let foreign = (me.mac, address);
        table.drop(format!("ARP request from {name} address"), own.arp(Arp::request(foreign, gateway.ip4)));
        table.drop(format!("ARP reply from {name} address"), own.arp(Arp::reply(foreign, (gateway.mac, gateway.ip4))));
        table.drop(format!("gratuitous ARP for {name} address"), own.arp(Arp::request(foreign, address)));
        table.drop(
            format!("ARP probe for {name} address"),
            own.arp(Arp::request((me.mac, Ipv4Addr::UNSPECIFIED), address)),
        );
        let unicast = Arp::reply(foreign, (gateway.mac, gateway.ip4)).frame(gateway.mac, me.mac);
        table.drop(format!("unicast ARP reply from {name} address"), unicast);
    }
    for (name, mac) in [("another guest's", victim.mac), ("the gateway's", gateway.mac), ("a random", stranger.mac)] {
        table.drop(format!("ARP request with {name} MAC inside"), own.arp(Arp::request((mac, me.ip4), gateway.ip4)));
        table.drop(
            format!("ARP reply with {name} MAC inside"),
            own.arp(Arp::reply((mac, me.ip4), (gateway.mac, gateway.ip4))),
        );
        table.drop(
            format!("ARP probe with {name} MAC inside"),
            own.arp(Arp::request((mac, Ipv4Addr::UNSPECIFIED), me.ip4)),
        );
    }
    let good = Arp::request(mine, gateway.ip4);
    table.drop("ARP reply from 0.0.0.0", own.arp(Arp::reply((me.mac, Ipv4Addr::UNSPECIFIED), (gateway.mac, me.ip4))));
    table.drop("ARP of another hardware type", own.arp(Arp { hardware: 6, ..good }));
    table.drop("ARP of another protocol", own.arp(Arp { protocol: IP6, ..good }));
    table.drop("ARP with 8-byte MACs", own.arp(Arp { lengths: [8, 4], ..good }));
    table.drop("ARP with 16-byte addresses", own.arp(Arp { lengths: [6, 16], ..good }));
    for operation in [0, 3, 4, 8, 9, 25] {
        table.drop(format!("ARP operation {operation}"), own.arp(Arp { operation, ..good }));
    }
    for length in [7, 8, 10, 27] {
        let frame = ether(BROADCAST, me.mac, ARP, &good.bytes()[..length]);
        table.drop(format!("ARP cut after {length} bytes"), frame);
    }

    table.group = "RARP";
    let none = Ipv4Addr::UNSPECIFIED;
    let announce = Arp { operation: 3, sender: (me.mac, none), target: (me.mac, none), ..good };
    let rarp = |arp: Arp| ether(BROADCAST, me.mac, 0x8035, &arp.bytes());
    table.pass("RARP announcement", rarp(announce));
    table.drop("RARP announcement to one MAC", ether(gateway.mac, me.mac, 0x8035, &announce.bytes()));
    table.drop("RARP reply", rarp(Arp { operation: 4, ..announce }));
    table.drop("RARP with another guest's sender MAC", rarp(Arp { sender: (victim.mac, none), ..announce }));
    table.drop("RARP with another guest's target MAC", rarp(Arp { target: (victim.mac, none), ..announce }));
    table.drop("RARP with a sender address", rarp(Arp { sender: (me.mac, victim.ip4), ..announce }));
    table.drop("RARP with a target address", rarp(Arp { target: (me.mac, victim.ip4), ..announce }));
    table.drop("RARP cut after 20 bytes", ether(BROADCAST, me.mac, 0x8035, &announce.bytes()[..20]));
}

/// What only multicast routers send.
fn multicast_routers(table: &mut Table, me: Who) {
    let igmp = Sender { me, to: [1, 0, 0x5e, 0, 0, 0x16] };
    for (name, kind) in [
        ("membership query", 0x11),
        ("DVMRP", 0x13),
        ("PIM, version 1", 0x14),
        ("multicast router advertisement", 0x30),
        ("multicast router solicitation", 0x31),
        ("multicast router termination", 0x32),
    ] {
        let to = Ipv4Addr::new(224, 0, 0, 1);
        table.drop(format!("IGMP {name}"), igmp.v4(me.ip4, to, IGMP, 0, &icmp(kind, 0, &[0; 8])));
        table.drop(
            format!("IGMP {name} in a first fragment"),
            igmp.v4(me.ip4, to, IGMP, MORE, &icmp(kind, 0, &[0; 12])),
        );
    }
    table.drop("PIM hello", igmp.v4(me.ip4, Ipv4Addr::new(224, 0, 0, 13), PIM, 0, &icmp(0x20, 0, &[0; 8])));
}

fn bound_ip4(table: &mut Table, me: Who, scene: &Scene) {
    table.group = "IPv4";
    let Scene { gateway, victim, stranger, node } = *scene;
    let own = Sender { me, to: gateway.mac };
    let all = Sender { me, to: BROADCAST };
    let data = udp(4000, 4001, b"data");
    table.pass("IPv4 UDP", own.v4(me.ip4, gateway.ip4, UDP, 0, &data));
    table.pass("IPv4 UDP to everybody", all.v4(me.ip4, Ipv4Addr::BROADCAST, UDP, 0, &data));
    table.pass("IPv4 UDP to another guest", Sender { me, to: victim.mac }.v4(me.ip4, victim.ip4, UDP, 0, &data));
    table.pass("IPv4 TCP", own.v4(me.ip4, gateway.ip4, TCP, 0, &tcp(4000, 80)));
    table.pass("ICMP echo", own.v4(me.ip4, gateway.ip4, ICMP, 0, &icmp(8, 0, &[0, 1, 0, 1])));
    table.pass("ICMP error of its own", own.v4(me.ip4, gateway.ip4, ICMP, 0, &icmp(3, 3, &[0; 32])));
    let igmp = Sender { me, to: [1, 0, 0x5e, 0, 0, 0x16] };
    table.pass("IGMP report", igmp.v4(me.ip4, Ipv4Addr::new(224, 0, 0, 22), IGMP, 0, &icmp(0x22, 0, &[0, 0, 0, 0])));
    for (name, kind) in [("report, version 1", 0x12), ("report, version 2", 0x16), ("leave", 0x17)] {
        let to = Ipv4Addr::new(224, 0, 0, 251);
        table.pass(format!("IGMP {name}"), igmp.v4(me.ip4, to, IGMP, 0, &icmp(kind, 0, &[224, 0, 0, 251])));
    }
    let like_query = igmp.v4(me.ip4, Ipv4Addr::new(224, 0, 0, 22), IGMP, 185, &[0x11; 16]);
    table.pass("IPv4 later fragment, data like an IGMP query", like_query);
    multicast_routers(table, me);
    table.pass("PIM register", own.v4(me.ip4, gateway.ip4, PIM, 0, &icmp(0x21, 0, &[0; 28])));
    table.drop("ICMP router advertisement", all.v4(me.ip4, Ipv4Addr::BROADCAST, ICMP, 0, &icmp(9, 0, &[0; 12])));
    table.pass("ICMP router solicitation", all.v4(me.ip4, Ipv4Addr::BROADCAST, ICMP, 0, &icmp(10, 0, &[0; 4])));
    table.pass("ESP", own.v4(me.ip4, gateway.ip4, 50, 0, &[1; 24]));
    table.pass("GRE", own.v4(me.ip4, gateway.ip4, 47, 0, &[0; 24]));
    table.pass("DHCP renewal", own.v4(me.ip4, gateway.ip4, UDP, 0, &udp(68, 67, b"data")));
    table.pass("IPv4 first fragment", own.v4(me.ip4, gateway.ip4, UDP, MORE, &udp(4000, 4001, &[0; 16])));
    table.pass("IPv4 later fragment, data like DHCP", own.v4(me.ip4, gateway.ip4, UDP, 185, &LOOKS_LIKE_DHCP));
    table.pass(
        "IPv4 later fragment, data like a redirect",
        own.v4(me.ip4, gateway.ip4, ICMP, 185, &LOOKS_LIKE_REDIRECT),
    );
    for (name, address) in [
        ("another guest's", victim.ip4),
        ("the gateway's", gateway.ip4),
        ("the node's", node.ip4),
        ("a random", stranger.ip4),
        ("the broadcast", Ipv4Addr::BROADCAST),
        ("a multicast", Ipv4Addr::new(224, 0, 0, 1)),
        ("a loopback", Ipv4Addr::LOCALHOST),
        ("a link-local", Ipv4Addr::new(169, 254, 1, 1)),
    ] {
        table.drop(format!("IPv4 UDP from {name} address"), own.v4(address, gateway.ip4, UDP, 0, &data));
        table.drop(format!("IPv4 TCP from {name} address"), own.v4(address, gateway.ip4, TCP, 0, &tcp(1, 80)));
        table.drop(
            format!("ICMP echo from {name} address"),
            own.v4(address, gateway.ip4, ICMP, 0, &icmp(8, 0, &[0; 4])),
        );
        table.drop(
            format!("ICMP error from {name} address"),
            own.v4(address, gateway.ip4, ICMP, 0, &icmp(3, 4, &[0; 32])),
        );
        table
            .drop(format!("IPv4 later fragment from {name} address"), own.v4(address, gateway.ip4, UDP, 185, &[0; 16]));
        table.drop(
            format!("DHCP request from {name} address"),
            all.v4(address, Ipv4Addr::BROADCAST, UDP, 0, &udp(68, 67, b"data")),
        );
    }
    table.drop("ICMP redirect", own.v4(me.ip4, gateway.ip4, ICMP, 0, &icmp(5, 1, &[0; 32])));
    table.drop("ICMP redirect in a first fragment", own.v4(me.ip4, gateway.ip4, ICMP, MORE, &icmp(5, 1, &[0; 36])));
    table.drop("answer of a DHCP server", all.v4(me.ip4, Ipv4Addr::BROADCAST, UDP, 0, &udp(67, 68, b"data")));
    table.drop(
        "answer of a DHCP server in a first fragment",
        own.v4(me.ip4, gateway.ip4, UDP, MORE, &udp(67, 68, &[0; 16])),
    );

    let good = own.v4(me.ip4, gateway.ip4, UDP, 0, &data);
    for (name, at, bytes) in [
        ("version 6", 14, &[0x65][..]),
        ("a header of no length", 14, &[0x40]),
        ("a header of 16 bytes", 14, &[0x44]),
        ("a header longer than the packet", 14, &[0x4f]),
        ("a length of 19 bytes", 16, &[0, 19]),
        ("a length beyond the frame", 16, &[5, 0]),
    ] {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        table.drop(format!("IPv4 with {name}"), frame);
    }

    table.group = "IPv4 from 0.0.0.0";
    let none = Ipv4Addr::UNSPECIFIED;
    let to_all = Ipv4Addr::BROADCAST;
    let request = udp(68, 67, b"discover");
    table.pass("DHCP request", all.v4(none, to_all, UDP, 0, &request));
    table.drop("0.0.0.0, DHCP request to one MAC", own.v4(none, to_all, UDP, 0, &request));
    table.drop("0.0.0.0, DHCP request to one address", all.v4(none, gateway.ip4, UDP, 0, &request));
    table.drop("0.0.0.0, DHCP request in a fragment", all.v4(none, to_all, UDP, MORE, &udp(68, 67, &[0; 16])));
    table.drop("0.0.0.0, later fragment", all.v4(none, to_all, UDP, 185, &udp(68, 67, &[0; 16])));
    table.drop("0.0.0.0, DHCP from another port", all.v4(none, to_all, UDP, 0, &udp(69, 67, b"data")));
    table.drop("0.0.0.0, to another port", all.v4(none, to_all, UDP, 0, &udp(68, 53, b"data")));
    table.drop("0.0.0.0, TCP", all.v4(none, to_all, TCP, 0, &tcp(68, 67)));
    table.drop("0.0.0.0, IGMP query", igmp.v4(none, Ipv4Addr::new(224, 0, 0, 1), IGMP, 0, &icmp(0x11, 0, &[0; 4])));
    table.drop("0.0.0.0, ICMP echo", all.v4(none, to_all, ICMP, 0, &icmp(8, 0, &[0; 4])));
}

fn bound_ip6(table: &mut Table, me: Who, scene: &Scene) {
    table.group = "IPv6";
    let Scene { gateway, victim, stranger, node } = *scene;
    let own = Sender { me, to: gateway.mac };
    let (local, global, to) = (me.link_local(), me.ip6, gateway.ip6);
    table.pass("IPv6 UDP", own.udp6(global, to));
    table.pass("IPv6 UDP from the link-local address", own.udp6(local, gateway.link_local()));
    table.pass("IPv6 UDP to a group", own.udp6(local, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb)));
    table.pass("IPv6 TCP", own.v6(global, to, TCP, 64, &tcp(4000, 80)));
    table.pass("ICMPv6 echo", own.icmp6(global, to, 128, &[0, 1, 0, 1]));
    table.pass("ICMPv6 error of its own", own.icmp6(global, to, 1, &[0; 48]));
    table.pass("IPv6 ESP", own.v6(global, to, 50, 64, &[1; 24]));
    table.pass(
        "IPv6 UDP behind destination options",
        own.behind(global, to, DESTINATION_OPTIONS, options_header(UDP), &udp6(global, to, 1, 2)),
    );
    table.pass("DHCPv6 request", own.v6(local, DHCP6_SERVERS, UDP, 1, &udp6(local, DHCP6_SERVERS, 546, 547)));
    table.pass(
        "IPv6 first fragment of UDP",
        own.behind(global, to, FRAGMENT, fragment_header(UDP, 0, true), &udp(4000, 4001, &[0; 16])),
    );
    table.pass(
        "IPv6 later fragment, data like DHCPv6",
        own.behind(global, to, FRAGMENT, fragment_header(UDP, 3, false), &[2, 0x23, 2, 0x22, 0, 16, 0, 0]),
    );
    table.pass(
        "IPv6 later fragment, data like an NA",
        own.behind(global, to, FRAGMENT, fragment_header(ICMP6, 3, false), &[136; 24]),
    );
    table.pass(
        "IPv6 first fragment of an echo",
        own.behind(global, to, FRAGMENT, fragment_header(ICMP6, 0, true), &icmp6(global, to, 128, &[0; 20])),
    );
    for (name, from) in [
        ("another guest's", victim.ip6),
        ("another guest's link-local", victim.link_local()),
        ("the gateway's", gateway.ip6),
        ("the node's", node.ip6),
        ("the node's link-local", node.link_local()),
        ("a router's link-local", Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
        ("a random", stranger.ip6),
        ("a random one of the same /64", Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0xdead, 0, 0, 1)),
        ("a multicast", ALL_NODES),
        ("the loopback", Ipv6Addr::LOCALHOST),
        ("its own IPv4-mapped", me.ip4.to_ipv6_mapped()),
        ("another guest's IPv4-mapped", victim.ip4.to_ipv6_mapped()),
        ("a site-local", Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 1)),
    ] {
        table.drop(format!("IPv6 UDP from {name} address"), own.udp6(from, to));
        table.drop(format!("ICMPv6 echo from {name} address"), own.icmp6(from, to, 128, &[0; 4]));
        table.drop(format!("ICMPv6 packet too big from {name} address"), own.icmp6(from, to, 2, &[0; 48]));
        let later = own.behind(from, to, FRAGMENT, fragment_header(UDP, 3, false), &[0; 16]);
        table.drop(format!("IPv6 later fragment from {name} address"), later);
        table.drop(
            format!("DHCPv6 request from {name} address"),
            own.v6(from, DHCP6_SERVERS, UDP, 1, &udp6(from, DHCP6_SERVERS, 546, 547)),
        );
    }
    table.group = "IPv6 from ::";
    let none = Ipv6Addr::UNSPECIFIED;
    table.drop(":: UDP", own.udp6(none, to));
    table.drop(":: TCP", own.v6(none, to, TCP, 64, &tcp(1, 80)));
    table.drop(":: echo", own.icmp6(none, to, 128, &[0; 4]));
    table.drop(
        ":: fragment",
        own.behind(none, ALL_NODES, FRAGMENT, fragment_header(UDP, 0, true), &udp(1, 2, &[0; 16])),
    );
    table.drop(":: DHCPv6", own.v6(none, DHCP6_SERVERS, UDP, 1, &udp6(none, DHCP6_SERVERS, 546, 547)));
    table.group = "IPv6";
    table.drop("answer of a DHCPv6 server", own.v6(local, ALL_NODES, UDP, 64, &udp6(local, ALL_NODES, 547, 546)));
    let first = own.behind(global, to, FRAGMENT, fragment_header(UDP, 0, true), &udp(547, 546, &[0; 16]));
    table.drop("answer of a DHCPv6 server in a first fragment", first);
    let behind = own.behind(global, to, DESTINATION_OPTIONS, options_header(UDP), &udp6(global, to, 547, 546));
    table.drop("answer of a DHCPv6 server behind destination options", behind);
    for (name, next, header) in [
        ("hop-by-hop header", HOP_BY_HOP, &[58u8, 9, 1, 4][..]),
        ("destination options", DESTINATION_OPTIONS, &[58, 9][..]),
        ("destination options, none of it", DESTINATION_OPTIONS, &[][..]),
        ("routing header", 43, &[58, 8, 0, 0][..]),
    ] {
        table.drop(format!("IPv6 with a cut-off {name}"), own.v6(global, to, next, 255, header));
    }
    table.drop("ICMPv6 without a byte", own.v6(global, to, ICMP6, 255, &[]));
    table.drop("IPv6 PIM hello", own.v6(local, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 13), PIM, 1, &[0x20; 8]));
    // The chain reads well and ends where there is no packet any more.
    let upper =
        [("TCP", TCP), ("UDP", UDP), ("ICMPv6", ICMP6), ("ESP", 50), ("an authentication header", 51), ("no", 59)];
    for (name, next) in
        [("hop-by-hop header", HOP_BY_HOP), ("destination options", DESTINATION_OPTIONS), ("routing header", 43)]
    {
        for (upper, inner) in upper {
            let header = [inner, 31, 1, 4, 0, 0, 0, 0];
            let frame = own.behind(global, to, next, header, &udp6(global, to, 4000, 4001));
            table.drop(format!("IPv6 with a {name} longer than the packet, {upper} next"), frame);
        }
    }
    table.pass("IPv6 without a next header", own.v6(global, to, 59, 64, b"no next header"));
    let late =
        [&options_header(FRAGMENT)[..], &fragment_header(UDP, 3, false), &[2, 0x23, 2, 0x22, 0, 16, 0, 0]].concat();
    table.pass("IPv6 later fragment behind a hop-by-hop header", own.v6(global, to, HOP_BY_HOP, 64, &late));
}

fn bound_nd(table: &mut Table, me: Who, scene: &Scene) {
    table.group = "neighbour discovery";
    let Scene { gateway, victim, stranger, node } = *scene;
    let own = Sender { me, to: gateway.mac };
    let (none, local, global) = (Ipv6Addr::UNSPECIFIED, me.link_local(), me.ip6);
    let (sender, target) = (lladdr_option(1, me.mac), lladdr_option(2, me.mac));
    for (name, from) in [("global", global), ("link-local", local)] {
        table.pass(format!("NS from the {name} address"), own.ns(from, gateway.ip6, &sender));
        table.pass(format!("NS from the {name} address, no option"), own.ns(from, gateway.ip6, &[]));
        table.pass(format!("NA for the {name} address"), own.na(from, from, &target));
        table.pass(format!("NA for the {name} address, no option"), own.na(from, from, &[]));
        table.pass(format!("DAD for the {name} address"), own.ns(none, from, &[]));
        table.pass(format!("DAD for the {name} address with nonce"), own.ns(none, from, &[14, 1, 1, 2, 3, 4, 5, 6]));
        table.drop(format!("DAD for the {name} address with a MAC"), own.ns(none, from, &sender));
        table.drop(
            format!("NS from the {name} address, another guest's MAC"),
            own.ns(from, gateway.ip6, &lladdr_option(1, victim.mac)),
        );
        table.drop(
            format!("NA for the {name} address, another guest's MAC"),
            own.na(from, from, &lladdr_option(2, victim.mac)),
        );
        table.drop(
            format!("NA for the {name} address, a random MAC"),
            own.na(from, from, &lladdr_option(2, stranger.mac)),
        );
        let twice = [&sender[..], &lladdr_option(1, victim.mac)].concat();
        table.drop(format!("NS from the {name} address, two MACs"), own.ns(from, gateway.ip6, &twice));
        let twice = [&target[..], &lladdr_option(2, victim.mac)].concat();
        table.drop(format!("NA for the {name} address, two MACs"), own.na(from, from, &twice));
        let hidden = [&[14, 1, 0, 0, 0, 0, 0, 0][..], &lladdr_option(2, victim.mac)].concat();
        table.drop(format!("NA for the {name} address, MAC behind another option"), own.na(from, from, &hidden));
    }
    bound_options(table, me, scene);
    table.pass("NA for the link-local address from the global one", own.na(global, local, &target));
    table.pass("NA for the global address from the link-local one", own.na(local, global, &target));
    let answer = icmp6(global, gateway.ip6, 136, &nd_body(0x60, global, &target));
    table.pass("solicited NA", own.v6(global, gateway.ip6, ICMP6, 255, &answer));
    table.pass("RS", own.icmp6(local, ALL_ROUTERS, 133, &[&[0; 4], &sender[..]].concat()));
    table.pass("RS without option", own.icmp6(local, ALL_ROUTERS, 133, &[0; 4]));
    table.pass("RS from ::", own.icmp6(none, ALL_ROUTERS, 133, &[0; 4]));
    table.drop(
        "RS with another guest's MAC",
        own.icmp6(local, ALL_ROUTERS, 133, &[&[0; 4], &lladdr_option(1, victim.mac)[..]].concat()),
    );
    table.drop("RS from :: with a MAC", own.icmp6(none, ALL_ROUTERS, 133, &[&[0; 4], &sender[..]].concat()));
    for (name, who) in [
        ("another guest's address", victim.ip6),
        ("another guest's link-local address", victim.link_local()),
        ("the gateway's address", gateway.ip6),
        ("the gateway's link-local address", gateway.link_local()),
        ("the node's address", node.ip6),
        ("a random address", stranger.ip6),
    ] {
        table.drop(format!("NA for {name}"), own.na(global, who, &target));
        table.drop(format!("NA for {name} from it"), own.na(who, who, &target));
        table.drop(format!("NA for {name} from the link-local address"), own.na(local, who, &[]));
        table.drop(format!("DAD for {name}"), own.ns(none, who, &[]));
        table.drop(format!("NS from {name}"), own.ns(who, gateway.ip6, &sender));
    }
    let dad_to_one = icmp6(none, victim.ip6, 135, &nd_body(0, global, &[]));
    table.drop("DAD to one address", own.v6(none, victim.ip6, ICMP6, 255, &dad_to_one));
    table.drop("NA from ::", own.na(none, global, &target));
}

/// Name, the kind of option that may name the sender's MAC, and the frame with these options.
type Message<'a> = (&'static str, u8, &'a dyn Fn(&[u8]) -> Vec<u8>);

/// Options that are not known beside those that are: up to eight, and a foreign MAC wherever it stands.
fn bound_options(table: &mut Table, me: Who, scene: &Scene) {
    let Scene { gateway, victim, .. } = *scene;
    let own = Sender { me, to: gateway.mac };
    let (none, local, global) = (Ipv6Addr::UNSPECIFIED, me.link_local(), me.ip6);
    let one = |number: usize| [253, 1, 9, 9, 9, 9, 9, u8::try_from(number).unwrap_or(0)].to_vec();
    // The mark of a two-unit option is not that of any MAC.
    let long = |number: usize| {
        [vec![254, 2, 9, 9, 9, 9, 9, 9], [7; 7].to_vec(), vec![u8::try_from(number).unwrap_or(0)]].concat()
    };
    let solicitation = |options: &[u8]| own.icmp6(local, ALL_ROUTERS, 133, &[&[0; 4], options].concat());
    let messages: [Message<'_>; 3] = [
        ("NS", 1, &|options| own.ns(global, gateway.ip6, options)),
        ("NA", 2, &|options| own.na(global, global, options)),
        ("RS", 1, &solicitation),
    ];
    for (name, kind, message) in messages {
        for place in 0..8 {
            let among = |mac: Mac, others: usize, unknown: &dyn Fn(usize) -> Vec<u8>| {
                let mut options: Vec<Vec<u8>> = (0..others).map(unknown).collect();
                options.insert(place.min(others), lladdr_option(kind, mac));
                message(&options.concat())
            };
            table.pass(format!("{name}, own MAC in place {place} of eight"), among(me.mac, 7, &one));
            table.drop(format!("{name}, another guest's MAC in place {place} of eight"), among(victim.mac, 7, &one));
            table.pass(format!("{name}, own MAC in place {place} among long options"), among(me.mac, 7, &long));
            let foreign = among(victim.mac, 7, &long);
            table.drop(format!("{name}, another guest's MAC in place {place} among long options"), foreign);
        }
        table.pass(format!("{name}, eight unknown options"), message(&(0..8).flat_map(one).collect::<Vec<u8>>()));
        table.drop(format!("{name}, nine options"), message(&(0..9).flat_map(one).collect::<Vec<u8>>()));
        let other = lladdr_option(3 - kind, victim.mac);
        table.drop(
            format!("{name}, another guest's MAC in the option of another message"),
            message(&[&lladdr_option(kind, me.mac)[..], &other].concat()),
        );
    }
    let unknown: Vec<u8> = (0..2).flat_map(one).collect();
    table.pass("DAD with two unknown options", own.ns(none, global, &unknown));
    table.pass(
        "RS from :: with two unknown options",
        own.icmp6(none, ALL_ROUTERS, 133, &[&[0; 4], &unknown[..]].concat()),
    );
    let hidden = [&unknown[..], &lladdr_option(1, victim.mac)].concat();
    table.drop("DAD with another guest's MAC behind unknown options", own.ns(none, global, &hidden));
    table.drop(
        "RS from :: with another guest's MAC behind unknown options",
        own.icmp6(none, ALL_ROUTERS, 133, &[&[0; 4], &hidden[..]].concat()),
    );
}

/// The right content in odd form: a receiver might still take it, and a filter might not see what is inside.
fn bound_odd_nd(table: &mut Table, me: Who, scene: &Scene) {
    let Scene { gateway, victim, .. } = *scene;
    let own = Sender { me, to: gateway.mac };
    let (none, local, global) = (Ipv6Addr::UNSPECIFIED, me.link_local(), me.ip6);
    let (sender, target) = (lladdr_option(1, me.mac), lladdr_option(2, me.mac));
    let messages = [
        ("NS", icmp6(global, gateway.ip6, 135, &nd_body(0, gateway.ip6, &sender))),
        ("NA", icmp6(global, gateway.ip6, 136, &nd_body(0x20, global, &target))),
        ("foreign NA", icmp6(global, gateway.ip6, 136, &nd_body(0x20, victim.ip6, &target))),
        ("RS with a MAC", icmp6(global, gateway.ip6, 133, &[&[0; 4], &sender[..]].concat())),
        ("RA", icmp6(global, gateway.ip6, 134, &ra_body(&sender))),
        ("redirect", icmp6(global, gateway.ip6, 137, &[nd_body(0, victim.ip6, &[]), vec![0; 16]].concat())),
    ];
    for (name, message) in &messages {
        let to = gateway.ip6;
        table.drop(format!("{name} with hop limit 64"), own.v6(global, to, ICMP6, 64, message));
        table.drop(
            format!("{name} behind a hop-by-hop header"),
            own.behind(global, to, HOP_BY_HOP, options_header(ICMP6), message),
        );
        table.drop(
            format!("{name} behind destination options"),
            own.behind(global, to, DESTINATION_OPTIONS, options_header(ICMP6), message),
        );
        table.drop(
            format!("{name} behind an authentication header"),
            own.behind(global, to, 51, [ICMP6, 0, 0, 0, 0, 0, 0, 1], message),
        );
        table.drop(
            format!("{name} in an atomic fragment"),
            own.behind(global, to, FRAGMENT, fragment_header(ICMP6, 0, false), message),
        );
        table.drop(
            format!("{name} in a first fragment"),
            own.behind(global, to, FRAGMENT, fragment_header(ICMP6, 0, true), &[&message[..], &[0; 8]].concat()),
        );
        let two = [&options_header(DESTINATION_OPTIONS)[..], &options_header(ICMP6), message].concat();
        table.drop(format!("{name} behind two headers"), own.v6(global, to, HOP_BY_HOP, 255, &two));
        let hidden = own.behind(global, to, FRAGMENT, fragment_header(DESTINATION_OPTIONS, 1, false), message);
        table.drop(format!("{name} in the second fragment behind options in the first"), hidden);
    }
    // What is behind a header is as long as what has an option, and the option may stand behind the packet's end.
    for (name, from, kind, body, option) in [
        ("NS", global, 135, nd_body(0, gateway.ip6, &[]), &sender),
        ("NA", global, 136, nd_body(0x20, global, &[]), &target),
        ("RS", local, 133, vec![0; 4], &sender),
    ] {
        let message = icmp6(from, ALL_NODES, kind, &body);
        for (header, next) in [("a hop-by-hop header", HOP_BY_HOP), ("destination options", DESTINATION_OPTIONS)] {
            let frame = own.behind(from, ALL_NODES, next, options_header(ICMP6), &message);
            table.drop(format!("{name} behind {header}, bytes after the packet"), [&frame[..], option].concat());
        }
    }
    table.drop("RS from the global address", own.icmp6(global, ALL_ROUTERS, 133, &[0; 4]));
    let echo = [&[ICMP6, 0, 5, 2, 0, 0, 1, 0], &icmp6(none, ALL_NODES, 128, &[0; 4])[..]].concat();
    table.drop(":: echo with a router alert", own.v6(none, ALL_NODES, HOP_BY_HOP, 1, &echo));
    table.drop(":: MLD query with its router alert", own.mld(&mld(none, 130, &[0; 20])));
    table.group = "router messages";
    for (name, kind) in [
        ("router advertisement", 134),
        ("redirect", 137),
        ("router renumbering", 138),
        ("mobile prefix solicitation", 146),
        ("mobile prefix advertisement", 147),
        ("multicast router advertisement", 151),
        ("multicast router solicitation", 152),
        ("multicast router termination", 153),
        ("MLD query", 130),
    ] {
        table.drop(format!("{name} from the link-local address"), own.icmp6(local, ALL_NODES, kind, &ra_body(&sender)));
        table.drop(format!("{name} from the global address"), own.icmp6(global, ALL_NODES, kind, &ra_body(&[])));
        table.drop(format!("{name} from ::"), own.icmp6(none, ALL_NODES, kind, &ra_body(&[])));
    }
    table.drop("MLD query with its router alert", own.mld(&mld(local, 130, &[0; 20])));
    table.drop("cut-off NA", own.v6(global, ALL_NODES, ICMP6, 255, &messages[1].1[..12]));

    table.group = "MLD";
    let group = [&[0, 0, 0, 0][..], &solicited_node(global).octets()].concat();
    for (name, from) in [("link-local address", local), ("::", none)] {
        table.pass(
            format!("MLD report, version 2, from {name}"),
            own.mld(&mld(from, 143, &mld2_body(solicited_node(global)))),
        );
        table.pass(format!("MLD report, version 1, from {name}"), own.mld(&mld(from, 131, &group)));
        table.pass(format!("MLD done from {name}"), own.mld(&mld(from, 132, &group)));
        table.drop(
            format!("MLD report without router alert from {name}"),
            own.mld(&mld_bare(from, 143, &mld2_body(ALL_NODES))),
        );
        let mut far = mld(from, 143, &mld2_body(ALL_NODES));
        far[7] = 64;
        table.drop(format!("MLD report with hop limit 64 from {name}"), own.mld(&far));
    }
    table.drop("MLD report from the global address", own.mld(&mld(global, 143, &mld2_body(ALL_NODES))));
    table.drop(
        "MLD report from another guest's link-local address",
        own.mld(&mld(victim.link_local(), 143, &mld2_body(ALL_NODES))),
    );
}

/// What a port that is not bound may not claim. `passes` says whether this port is excepted (the uplink, for what is
/// not bound on this node).
pub fn claims(me: Who, victim: Who, name: &str, with_mac: bool, passes: bool) -> Vec<Case> {
    let mut cases = open_claims(me, victim, name, passes);
    if !passes {
        cases.extend(hidden_claims(me, victim, name));
    }
    if with_mac {
        cases.extend(mac_claims(me, victim, name, passes));
    }
    cases
}

const HARMLESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 250);
const HARMLESS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 250);

/// An address, plainly.
pub fn open_claims(me: Who, victim: Who, name: &str, passes: bool) -> Vec<Case> {
    let mut table = Table { group: "claims of IPv4, ARP, IPv6, ND", ..Table::default() };
    let own = Sender { me, to: BROADCAST };
    let (sender, target) = (lladdr_option(1, me.mac), lladdr_option(2, me.mac));
    let data = udp(4000, 4001, b"data");
    let (none4, none6) = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);

    let from = (me.mac, victim.ip4);
    let reply = own.arp(Arp::reply(from, (BROADCAST, victim.ip4)));
    let source4 = own.v4(victim.ip4, HARMLESS, UDP, 0, &data);
    let source6 = own.udp6(victim.ip6, HARMLESS6);
    let advertisement = own.na(me.ip6, victim.ip6, &target);
    table.is(passes, format!("IPv4 UDP from {name}"), source4.clone());
    table.is(passes, format!("IPv4 TCP from {name}"), own.v4(victim.ip4, HARMLESS, TCP, 0, &tcp(1, 80)));
    table.is(passes, format!("ICMP echo from {name}"), own.v4(victim.ip4, HARMLESS, ICMP, 0, &icmp(8, 0, &[0; 4])));
    table.is(passes, format!("ICMP error from {name}"), own.v4(victim.ip4, HARMLESS, ICMP, 0, &icmp(3, 4, &[0; 32])));
    table.is(
        passes,
        format!("IPv4 first fragment from {name}"),
        own.v4(victim.ip4, HARMLESS, UDP, MORE, &udp(1, 2, &[0; 16])),
    );
    table.is(passes, format!("IPv4 later fragment from {name}"), own.v4(victim.ip4, HARMLESS, UDP, 185, &[0; 16]));
    table.is(passes, format!("ARP reply from {name}"), reply.clone());
    table.is(passes, format!("ARP request from {name}"), own.arp(Arp::request(from, HARMLESS)));
    table.is(passes, format!("gratuitous ARP for {name}"), own.arp(Arp::request(from, victim.ip4)));
    table.is(passes, format!("ARP probe for {name}"), own.arp(Arp::request((me.mac, none4), victim.ip4)));
    table.is(passes, format!("IPv6 UDP from {name}"), source6.clone());
    table.is(passes, format!("IPv6 TCP from {name}"), own.v6(victim.ip6, HARMLESS6, TCP, 64, &tcp(1, 80)));
    table.is(passes, format!("ICMPv6 echo from {name}"), own.icmp6(victim.ip6, HARMLESS6, 128, &[0; 4]));
    table.is(
        passes,
        format!("IPv6 later fragment from {name}"),
        own.behind(victim.ip6, HARMLESS6, FRAGMENT, fragment_header(UDP, 3, false), &[0; 16]),
    );
    table.is(passes, format!("NS from {name}"), own.ns(victim.ip6, HARMLESS6, &sender));
    table.is(passes, format!("NA for {name}"), advertisement.clone());
    table.is(passes, format!("NA for {name}, no option"), own.na(me.ip6, victim.ip6, &[]));
    table.is(passes, format!("NA for {name} from it"), own.na(victim.ip6, victim.ip6, &target));
    table.is(
        passes,
        format!("NA for {name} from the own link-local address"),
        own.na(me.link_local(), victim.ip6, &target),
    );
    table.is(passes, format!("DAD for {name}"), own.ns(none6, victim.ip6, &[]));
    let message = icmp6(me.ip6, ALL_NODES, 136, &nd_body(0x20, victim.ip6, &target));
    for (header, next) in [("a hop-by-hop header", HOP_BY_HOP), ("destination options", DESTINATION_OPTIONS)] {
        let frame = own.behind(me.ip6, ALL_NODES, next, options_header(ICMP6), &message);
        table.is(passes, format!("NA for {name} behind {header}"), frame);
    }
    let probe = own.arp(Arp::request((me.mac, none4), victim.ip4));
    table.is(passes, format!("VLAN 10, ARP probe for {name}"), tagged(VLAN, 10, &probe));
    for (form, frame) in [("IPv4", &source4), ("ARP", &reply), ("IPv6", &source6), ("NA", &advertisement)] {
        table.is(passes, format!("VLAN 10, {form} of {name}"), tagged(VLAN, 10, frame));
    }
    table.cases
}

/// A MAC.
pub fn mac_claims(me: Who, victim: Who, name: &str, passes: bool) -> Vec<Case> {
    let mut table = Table { group: "claims of a MAC", ..Table::default() };
    let own = Sender { me, to: BROADCAST };
    let data = udp(4000, 4001, b"data");
    let posing = Sender { me: Who { mac: victim.mac, ..me }, to: BROADCAST };
    table.is(passes, format!("MAC of {name}, own IPv4"), posing.v4(me.ip4, HARMLESS, UDP, 0, &data));
    table.is(passes, format!("MAC of {name}, own IPv6"), posing.udp6(me.ip6, HARMLESS6));
    table.is(passes, format!("MAC and IPv4 of {name}"), posing.v4(victim.ip4, HARMLESS, UDP, 0, &data));
    table.is(passes, format!("MAC of {name}, unknown ethertype"), ether(BROADCAST, victim.mac, 0x88b6, b"data"));
    table.is(passes, format!("MAC of {name}, own ARP"), posing.arp(Arp::request((me.mac, me.ip4), HARMLESS)));
    table.is(passes, format!("MAC of {name} inside ARP"), own.arp(Arp::request((victim.mac, me.ip4), HARMLESS)));
    let inside = own.arp(Arp::request((victim.mac, me.ip4), HARMLESS));
    table.is(passes, format!("MAC of {name} inside ARP, VLAN 10"), tagged(VLAN, 10, &inside));
    table.is(passes, format!("MAC of {name}, VLAN 10"), tagged(VLAN, 10, &posing.v4(me.ip4, HARMLESS, UDP, 0, &data)));
    table.cases
}

/// The same where it cannot be looked at: dropped from whomever it comes.
pub fn hidden_claims(me: Who, victim: Who, name: &str) -> Vec<Case> {
    let mut table = Table { group: "claims in tags and SNAP", ..Table::default() };
    let own = Sender { me, to: BROADCAST };
    let target = lladdr_option(2, me.mac);
    let narrow = Arp::reply((me.mac, victim.ip4), (BROADCAST, victim.ip4));
    let reply = own.arp(narrow);
    let source4 = own.v4(victim.ip4, HARMLESS, UDP, 0, &udp(4000, 4001, b"data"));
    let source6 = own.udp6(victim.ip6, HARMLESS6);
    let advertisement = own.na(me.ip6, victim.ip6, &target);
    let message = icmp6(me.ip6, ALL_NODES, 136, &nd_body(0x20, victim.ip6, &target));
    for (form, frame) in [("IPv4", &source4), ("ARP", &reply), ("IPv6", &source6), ("NA", &advertisement)] {
        table.drop(format!("VLAN 0, {form} of {name}"), tagged(VLAN, 0, frame));
        table.drop(format!("VLAN 0 twice, {form} of {name}"), tagged(VLAN, 0, &tagged(VLAN, 0, frame)));
        table.drop(
            format!("VLAN 0 three times, {form} of {name}"),
            tagged(VLAN, 0, &tagged(VLAN, 0, &tagged(VLAN, 0, frame))),
        );
        table.drop(format!("VLAN 10 and 20, {form} of {name}"), tagged(VLAN, 10, &tagged(VLAN, 20, frame)));
        for tpid in [0x88a8, 0x9100, 0x9200] {
            table.drop(format!("tag {tpid:#06x}, {form} of {name}"), tagged(tpid, 0, frame));
            table.drop(
                format!("tag {tpid:#06x} over 802.1Q, {form} of {name}"),
                tagged(tpid, 0, &tagged(VLAN, 0, frame)),
            );
        }
        table.drop(format!("SNAP, {form} of {name}"), snap(frame));
        table.drop(format!("VLAN 0, SNAP, {form} of {name}"), tagged(VLAN, 0, &snap(frame)));
        table.drop(format!("VLAN 10, SNAP, {form} of {name}"), tagged(VLAN, 10, &snap(frame)));
    }
    let atomic = own.behind(me.ip6, ALL_NODES, FRAGMENT, fragment_header(ICMP6, 0, false), &message);
    table.drop(format!("NA for {name} in an atomic fragment"), atomic);
    let hidden = own.behind(me.ip6, ALL_NODES, FRAGMENT, fragment_header(DESTINATION_OPTIONS, 1, false), &message);
    table.drop(format!("NA for {name} in a second fragment behind options in the first"), hidden);
    let atomic = fragment_header(ICMP6, 0, false);
    let fragment = [&options_header(FRAGMENT)[..], &atomic, &message].concat();
    table.drop(
        format!("NA for {name} in an atomic fragment behind a hop-by-hop header"),
        own.v6(me.ip6, ALL_NODES, HOP_BY_HOP, 255, &fragment),
    );
    let fragment = own.behind(me.ip6, ALL_NODES, FRAGMENT, atomic, &message);
    table.drop(format!("VLAN 10, NA for {name} in an atomic fragment"), tagged(VLAN, 10, &fragment));
    let authenticated = own.behind(me.ip6, ALL_NODES, 51, [ICMP6, 0, 0, 0, 0, 0, 0, 1], &message);
    table.drop(format!("NA for {name} behind an authentication header"), authenticated);
    table.drop(format!("NA for {name}, cut off"), own.v6(me.ip6, ALL_NODES, ICMP6, 255, &message[..16]));
    table.drop(format!("IPv6 from {name}, IPv4-mapped"), own.udp6(victim.ip4.to_ipv6_mapped(), HARMLESS6));
    table.drop(format!("ARP for {name} with the length of 8-byte MACs"), own.arp(Arp { lengths: [8, 4], ..narrow }));
    let mac = [&me.mac[..], &[0, 0]].concat();
    let wide = [&[0, 1, 8, 0, 8, 4, 0, 2], &mac[..], &victim.ip4.octets(), &mac, &victim.ip4.octets()].concat();
    table.drop(format!("ARP for {name} with 8-byte MACs"), ether(BROADCAST, me.mac, ARP, &wide));
    table.drop(
        format!("VLAN 10, ARP for {name} with 8-byte MACs"),
        tagged(VLAN, 10, &ether(BROADCAST, me.mac, ARP, &wide)),
    );
    table.drop(format!("ARP for {name}, cut off"), ether(BROADCAST, me.mac, ARP, &narrow.bytes()[..18]));
    table.cases
}

/// The link-local address of a bound guest is as much its own as the others.
pub fn link_local_claims(me: Who, victim: Who, name: &str) -> Vec<Case> {
    let mut table = Table { group: "claims of a link-local address", ..Table::default() };
    let own = Sender { me, to: BROADCAST };
    let to = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 250);
    let theirs = victim.link_local();
    table.drop(format!("IPv6 from the link-local address of {name}"), own.udp6(theirs, to));
    table.drop(
        format!("NA for the link-local address of {name}"),
        own.na(me.link_local(), theirs, &lladdr_option(2, me.mac)),
    );
    table.drop(format!("DAD for the link-local address of {name}"), own.ns(Ipv6Addr::UNSPECIFIED, theirs, &[]));
    table.cases
}

/// The MAC of the gateway or the node, inside an advertisement of an address of one's own.
pub fn foreign_mac_inside(me: Who, victim: Who, name: &str) -> Vec<Case> {
    let mut table = Table { group: "claims of a MAC", ..Table::default() };
    let own = Sender { me, to: BROADCAST };
    table.drop(format!("NA with the MAC of {name} inside"), own.na(me.ip6, me.ip6, &lladdr_option(2, victim.mac)));
    table.cases
}

/// What every port may send, and what only the uplink may.
pub fn unbound_port(me: Who, scene: &Scene, is_uplink: bool) -> Vec<Case> {
    let mut table = Table::default();
    unbound_own(&mut table, me, scene);
    unbound_hidden(&mut table, me, scene);
    unbound_router(&mut table, me, scene, is_uplink);
    table.cases
}

fn unbound_own(table: &mut Table, me: Who, scene: &Scene) {
    let victim = scene.victim;
    let all = Sender { me, to: BROADCAST };
    let to_victim = Sender { me, to: victim.mac };
    let (none, local, global) = (Ipv6Addr::UNSPECIFIED, me.link_local(), me.ip6);
    let (sender, target) = (lladdr_option(1, me.mac), lladdr_option(2, me.mac));
    let data = udp(4000, 4001, b"data");
    let remote = Ipv4Addr::new(192, 0, 2, 250);
    let remote6 = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 250);

    // To a protected address: it must be reachable.
    table.group = "traffic to a bound guest";
    table.pass("IPv4 to a bound guest", to_victim.v4(me.ip4, victim.ip4, UDP, 0, &data));
    table.pass("ICMP error to a bound guest", to_victim.v4(me.ip4, victim.ip4, ICMP, 0, &icmp(3, 4, &[0; 32])));
    table.pass("ARP request for a bound guest", all.arp(Arp::request((me.mac, me.ip4), victim.ip4)));
    table.pass("IPv6 to a bound guest", to_victim.udp6(global, victim.ip6));
    table.pass("ICMPv6 packet too big to a bound guest", to_victim.icmp6(global, victim.ip6, 2, &[0; 48]));
    table.pass("NS for a bound guest", all.ns(global, victim.ip6, &sender));
    table.pass("NS for a bound guest from the link-local address", all.ns(local, victim.ip6, &sender));
    table.pass("NS for a bound guest's link-local address", all.ns(local, victim.link_local(), &sender));

    // Its own business.
    table.group = "own traffic";
    table.pass("IPv4 UDP", all.v4(me.ip4, remote, UDP, 0, &data));
    table.pass("IPv4 TCP", all.v4(me.ip4, remote, TCP, 0, &tcp(1, 80)));
    table.pass("ICMP echo", all.v4(me.ip4, remote, ICMP, 0, &icmp(8, 0, &[0; 4])));
    table.pass("IPv4 first fragment", all.v4(me.ip4, remote, UDP, MORE, &udp(1, 2, &[0; 16])));
    table.pass("IPv4 later fragment, data like DHCP", all.v4(me.ip4, remote, UDP, 185, &LOOKS_LIKE_DHCP));
    table.pass("ARP request", all.arp(Arp::request((me.mac, me.ip4), remote)));
    table.pass("gratuitous ARP", all.arp(Arp::request((me.mac, me.ip4), me.ip4)));
    table.pass("ARP probe", all.arp(Arp::request((me.mac, Ipv4Addr::UNSPECIFIED), me.ip4)));
    table.pass("DHCP request", all.v4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, UDP, 0, &udp(68, 67, b"data")));
    let announce = Arp {
        operation: 3,
        sender: (me.mac, Ipv4Addr::UNSPECIFIED),
        target: (me.mac, Ipv4Addr::UNSPECIFIED),
        ..Arp::request((me.mac, me.ip4), remote)
    };
    table.pass("RARP announcement", ether(BROADCAST, me.mac, 0x8035, &announce.bytes()));
    table.pass("IPv6 UDP", all.udp6(global, remote6));
    table.pass("IPv6 TCP", all.v6(global, remote6, TCP, 64, &tcp(1, 80)));
    table.pass("ICMPv6 echo", all.icmp6(global, remote6, 128, &[0; 4]));
    table.pass(
        "IPv6 UDP behind destination options",
        all.behind(global, remote6, DESTINATION_OPTIONS, options_header(UDP), &udp6(global, remote6, 1, 2)),
    );
    table.pass(
        "IPv6 first fragment",
        all.behind(global, remote6, FRAGMENT, fragment_header(UDP, 0, true), &udp(1, 2, &[0; 16])),
    );
    table.pass(
        "IPv6 later fragment, data like an NA",
        all.behind(global, remote6, FRAGMENT, fragment_header(ICMP6, 3, false), &[136; 24]),
    );
    table.pass("NS", all.ns(global, remote6, &sender));
    table.pass("NA", all.na(global, global, &target));
    table.pass("NA for the link-local address", all.na(local, local, &target));
    table.pass("DAD", all.ns(none, global, &[]));
    table.pass("RS", all.icmp6(local, ALL_ROUTERS, 133, &[&[0; 4], &sender[..]].concat()));
    table.pass("MLD report", all.mld(&mld(local, 143, &mld2_body(solicited_node(global)))));
    table.pass("MLD report from ::", all.mld(&mld(none, 143, &mld2_body(solicited_node(global)))));
    table.pass("DHCPv6 request", all.v6(local, DHCP6_SERVERS, UDP, 1, &udp6(local, DHCP6_SERVERS, 546, 547)));
    for (name, ethertype) in [("LLDP", 0x88cc), ("PPPoE", 0x8864), ("MPLS", 0x8847), ("experimental", 0x88b6)] {
        table.pass(format!("ethertype {name}"), ether(BROADCAST, me.mac, ethertype, b"some data in it"));
    }
    let spanning_tree = [0, 38, 0x42, 0x42, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    table.pass("spanning tree", [&[0x01, 0x80, 0xc2, 0, 0, 0], &me.mac[..], &spanning_tree].concat());
    for vlan in [0, 10] {
        table.pass(format!("VLAN {vlan}, IPv4"), tagged(VLAN, vlan, &all.v4(me.ip4, remote, UDP, 0, &data)));
        table.pass(format!("VLAN {vlan}, ARP"), tagged(VLAN, vlan, &all.arp(Arp::request((me.mac, me.ip4), remote))));
        table.pass(format!("VLAN {vlan}, IPv6"), tagged(VLAN, vlan, &all.udp6(global, remote6)));
        table.pass(format!("VLAN {vlan}, NA"), tagged(VLAN, vlan, &all.na(global, global, &target)));
    }
}

/// What nobody looks for a claim in, and everybody may send as long as there is none.
fn unbound_hidden(table: &mut Table, me: Who, scene: &Scene) {
    table.group = "tags and SNAP without a claim";
    let all = Sender { me, to: BROADCAST };
    let to_victim = Sender { me, to: scene.victim.mac };
    let (none, local, global) = (Ipv6Addr::UNSPECIFIED, me.link_local(), me.ip6);
    let data = udp(4000, 4001, b"data");
    let fragment = fragment_header(UDP, 3, false);
    let frames = [
        ("IPv4", all.v4(me.ip4, HARMLESS, UDP, 0, &data)),
        ("IPv4 to a bound guest", to_victim.v4(me.ip4, scene.victim.ip4, TCP, 0, &tcp(1, 80))),
        ("ARP", all.arp(Arp::request((me.mac, me.ip4), HARMLESS))),
        ("ARP request for a bound guest", all.arp(Arp::request((me.mac, me.ip4), scene.victim.ip4))),
        ("ARP probe", all.arp(Arp::request((me.mac, Ipv4Addr::UNSPECIFIED), me.ip4))),
        ("IPv6", all.udp6(global, HARMLESS6)),
        ("IPv6 later fragment", all.behind(global, HARMLESS6, FRAGMENT, fragment, &[0; 16])),
        ("NS for a bound guest", all.ns(global, scene.victim.ip6, &lladdr_option(1, me.mac))),
        ("NA", all.na(global, global, &lladdr_option(2, me.mac))),
        ("DAD", all.ns(none, global, &[])),
        ("RS", all.icmp6(local, ALL_ROUTERS, 133, &[&[0; 4], &lladdr_option(1, me.mac)[..]].concat())),
        ("MLD report", all.mld(&mld(local, 143, &mld2_body(solicited_node(global))))),
        ("echo", all.icmp6(global, HARMLESS6, 128, &[0; 4])),
        ("unknown ethertype", ether(BROADCAST, me.mac, 0x88b6, b"some data in it")),
    ];
    for (name, frame) in &frames {
        for (form, outer, vlan, inner) in [
            ("802.1ad over 802.1Q", 0x88a8, 10, VLAN),
            ("802.1Q twice", VLAN, 10, VLAN),
            ("priority tag over 802.1Q", VLAN, 0, VLAN),
            ("802.1Q over 802.1ad", VLAN, 10, 0x88a8),
            ("0x9100 over 802.1Q", 0x9100, 10, VLAN),
        ] {
            table.pass(format!("{form}, {name}"), tagged(outer, vlan, &tagged(inner, 20, frame)));
        }
        for tpid in [0x88a8, 0x9100, 0x9200] {
            table.pass(format!("tag {tpid:#06x}, {name}"), tagged(tpid, 10, frame));
        }
        table.pass(format!("SNAP, {name}"), snap(frame));
        let three = tagged(VLAN, 10, &tagged(VLAN, 20, &tagged(VLAN, 30, frame)));
        table.drop(format!("three tags, {name}"), three);
    }
    let apple = [0xaa, 0xaa, 3, 8, 0, 7, 0x80, 0x9b, 1, 2, 3, 4, 5, 6, 7, 8];
    let aarp = ether(BROADCAST, me.mac, 0x80f3, &[0, 1, 0x80, 0x9b, 6, 4, 0, 1, 2, 3, 4, 5, 6, 7]);
    let novell = ether(BROADCAST, me.mac, 30, &[0xe0, 0xe0, 3, 0xff, 0xff, 0, 30, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    for (name, frame) in [
        ("SNAP of AARP", snap(&aarp)),
        ("SNAP of AppleTalk", ether(BROADCAST, me.mac, 16, &apple)),
        ("LLC of IPX", novell),
    ] {
        table.pass(name, frame.clone());
        table.pass(format!("VLAN 10, {name}"), tagged(VLAN, 10, &frame));
        table.pass(format!("802.1ad over 802.1Q, {name}"), tagged(0x88a8, 10, &tagged(VLAN, 20, &frame)));
    }
}

/// Router and DHCP server: only the provider, or in a VLAN of one's own.
fn unbound_router(table: &mut Table, me: Who, scene: &Scene, is_uplink: bool) {
    table.group = "router and DHCP server";
    let Scene { gateway, victim, .. } = *scene;
    let all = Sender { me, to: BROADCAST };
    let to_victim = Sender { me, to: victim.mac };
    let local = me.link_local();
    let sender = lladdr_option(1, me.mac);
    let remote6 = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 250);
    let advertisement = all.icmp6(local, ALL_NODES, 134, &ra_body(&sender));
    let answer = all.v4(me.ip4, Ipv4Addr::BROADCAST, UDP, 0, &udp(67, 68, b"data"));
    table.is(is_uplink, "router advertisement", advertisement.clone());
    table.is(
        is_uplink,
        "redirect",
        all.icmp6(local, ALL_NODES, 137, &[nd_body(0, remote6, &[]), vec![0; 16]].concat()),
    );
    table.is(is_uplink, "answer of a DHCP server", answer.clone());
    table.is(
        is_uplink,
        "answer of a DHCP server to one guest",
        to_victim.v4(me.ip4, victim.ip4, UDP, 0, &udp(67, 68, b"data")),
    );
    table.is(
        is_uplink,
        "answer of a DHCPv6 server",
        all.v6(local, ALL_NODES, UDP, 64, &udp6(local, ALL_NODES, 547, 546)),
    );
    let message = icmp6(local, ALL_NODES, 134, &ra_body(&sender));
    let behind = all.behind(local, ALL_NODES, DESTINATION_OPTIONS, options_header(ICMP6), &message);
    table.is(is_uplink, "router advertisement behind destination options", behind);
    table.drop(
        "router advertisement in an atomic fragment",
        all.behind(local, ALL_NODES, FRAGMENT, fragment_header(ICMP6, 0, false), &message),
    );
    table.is(is_uplink, "VLAN 0, router advertisement", tagged(VLAN, 0, &advertisement));
    table.is(is_uplink, "VLAN 0, answer of a DHCP server", tagged(VLAN, 0, &answer));
    table.pass("VLAN 10, router advertisement", tagged(VLAN, 10, &advertisement));
    table.pass("VLAN 10, answer of a DHCP server", tagged(VLAN, 10, &answer));
    for (name, frame) in [("router advertisement", &advertisement), ("answer of a DHCP server", &answer)] {
        table.is(is_uplink, format!("VLAN 0 twice, {name}"), tagged(VLAN, 0, &tagged(VLAN, 0, frame)));
        table.is(is_uplink, format!("SNAP, {name}"), snap(frame));
        table.pass(format!("802.1ad 10 over VLAN 20, {name}"), tagged(0x88a8, 10, &tagged(VLAN, 20, frame)));
        table.pass(format!("VLAN 0 over VLAN 20, {name}"), tagged(VLAN, 0, &tagged(VLAN, 20, frame)));
    }
    if is_uplink {
        let from = Sender { me: gateway, to: BROADCAST };
        table.pass("gratuitous ARP of the gateway", from.arp(Arp::request((gateway.mac, gateway.ip4), gateway.ip4)));
        table.pass("NA of the gateway", from.na(gateway.ip6, gateway.ip6, &lladdr_option(2, gateway.mac)));
    }
}

/// Odd forms of what a bound port may and may not send: no receiver is known to need the first, every receiver might
/// take the second for what is inside.
pub fn bound_odd_forms(me: Who, scene: &Scene) -> Vec<Case> {
    let mut table = Table::default();
    odd_ip4(&mut table, me, scene);
    odd_arp(&mut table, me, scene);
    odd_ip6(&mut table, me, scene);
    table.cases
}

fn odd_ip4(table: &mut Table, me: Who, scene: &Scene) {
    let Scene { gateway, victim, stranger, .. } = *scene;
    let own = Sender { me, to: gateway.mac };
    let all = Sender { me, to: BROADCAST };
    let data = udp(4000, 4001, b"data");

    table.group = "IPv4";
    // Six words of header: a no-operation option and its padding.
    let with_options = |from: Ipv4Addr| {
        let mut packet = ip4(from, gateway.ip4, UDP, 0, &[&[1, 1, 1, 0], &data[..]].concat());
        packet[0] = 0x46;
        packet[10..12].fill(0);
        let sum = checksum(&packet[..24]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        ether(gateway.mac, me.mac, IP4, &packet)
    };
    table.pass("IPv4 with options", with_options(me.ip4));
    table.drop("IPv4 with options from another guest's address", with_options(victim.ip4));
    let good = ip4(me.ip4, gateway.ip4, UDP, 0, &data);
    let short = udp(4000, 4001, b"short frame");
    let padded = [own.v4(me.ip4, gateway.ip4, UDP, 0, &short), vec![0; 7]].concat();
    table.pass("IPv4 with the padding of a short frame", padded);
    if let Some(case) = table.cases.last_mut() {
        case.mark = Some(short); // br_netfilter takes the padding off.
    }
    for (name, address) in [("another guest's", victim.ip4), ("a random", stranger.ip4)] {
        let foreign = ip4(address, gateway.ip4, UDP, 0, &data);
        for (form, at, value) in [
            ("a header of no words", 0, 0x40),
            ("a header of four words", 0, 0x44),
            ("a header of fifteen words", 0, 0x4f),
            ("version 5", 0, 0x55),
            ("version 6", 0, 0x65),
            ("length 0", 3, 0),
            ("a length beyond its end", 2, 0x20),
            ("a wrong checksum", 10, 0),
            ("all flags", 6, 0xe0),
        ] {
            let mut packet = foreign.clone();
            packet[at] = value;
            table.drop(format!("IPv4 with {form} from {name} address"), ether(gateway.mac, me.mac, IP4, &packet));
        }
    }
    for length in [1, 4, 10, 14, 16, 19] {
        table.drop(format!("IPv4 cut after {length} bytes"), ether(gateway.mac, me.mac, IP4, &good[..length]));
    }
    table.pass("IPv4 TCP from port 0", own.v4(me.ip4, gateway.ip4, TCP, 0, &tcp(0, 80)));
    table.pass("IPv4 last fragment of one byte", own.v4(me.ip4, gateway.ip4, UDP, 185, &[7]));
    table.group = "IPv4 from 0.0.0.0";
    for (name, from, to) in [("67 to 67", 67, 67), ("67 to 68", 67, 68), ("68 to 68", 68, 68), ("546 to 547", 546, 547)]
    {
        let frame = all.v4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, UDP, 0, &udp(from, to, b"data"));
        table.drop(format!("0.0.0.0, UDP {name}"), frame);
    }
}

fn odd_arp(table: &mut Table, me: Who, scene: &Scene) {
    let Scene { gateway, victim, .. } = *scene;
    let all = Sender { me, to: BROADCAST };
    table.group = "ARP";
    let foreign = Arp::request((me.mac, victim.ip4), gateway.ip4);
    table.drop("ARP with trailing bytes from another guest's address", [all.arp(foreign), vec![0; 18]].concat());
    table.pass("ARP for 255.255.255.255", all.arp(Arp::request((me.mac, me.ip4), Ipv4Addr::BROADCAST)));
    table.drop(
        "ARP reply in the form of a probe",
        all.arp(Arp::reply((me.mac, Ipv4Addr::UNSPECIFIED), (BROADCAST, victim.ip4))),
    );
}

fn odd_ip6(table: &mut Table, me: Who, scene: &Scene) {
    let Scene { gateway, victim, .. } = *scene;
    let own = Sender { me, to: gateway.mac };
    table.group = "IPv6";
    let (local, global) = (me.link_local(), me.ip6);
    let (sender, target) = (lladdr_option(1, me.mac), lladdr_option(2, me.mac));
    let message = udp6(victim.ip6, gateway.ip6, 4000, 4001);
    for (name, next) in [("a hop-by-hop header", HOP_BY_HOP), ("destination options", DESTINATION_OPTIONS)] {
        let frame = own.behind(victim.ip6, gateway.ip6, next, options_header(UDP), &message);
        table.drop(format!("IPv6 behind {name} from another guest's address"), frame);
        let frame = own.behind(global, gateway.ip6, next, options_header(UDP), &udp6(global, gateway.ip6, 1, 2));
        table.pass(format!("own IPv6 UDP behind {name}"), frame);
    }
    table.pass("IPv6 TCP from port 0", own.v6(global, gateway.ip6, TCP, 64, &tcp(0, 80)));
    let authentication = [UDP, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let message = [&authentication[..], &udp6(global, gateway.ip6, 1, 2)].concat();
    table.pass("IPv6 UDP behind an authentication header", own.v6(global, gateway.ip6, 51, 64, &message));
    let packet = ip6(global, gateway.ip6, UDP, 64, &udp6(global, gateway.ip6, 1, 2));
    for length in [1, 8, 24, 39] {
        table.drop(format!("IPv6 cut after {length} bytes"), ether(gateway.mac, me.mac, IP6, &packet[..length]));
    }

    table.group = "neighbour discovery";
    let advertisement = |length: usize| {
        let message = icmp6(local, ALL_NODES, 136, &nd_body(0x20, global, &target));
        own.v6(local, ALL_NODES, ICMP6, 255, &message[..length])
    };
    for length in [0, 1, 4, 8, 16, 23, 25, 30] {
        table.drop(format!("NA cut after {length} bytes"), advertisement(length));
    }
    let atomic = |target: Ipv6Addr| {
        let message = icmp6(local, ALL_NODES, 136, &nd_body(0x20, target, &[]));
        let chain = [&options_header(FRAGMENT)[..], &fragment_header(ICMP6, 0, false), &message].concat();
        own.v6(local, ALL_NODES, HOP_BY_HOP, 255, &chain)
    };
    table.drop("own NA in an atomic fragment behind a hop-by-hop header", atomic(global));
    table.drop("foreign NA in an atomic fragment behind a hop-by-hop header", atomic(victim.ip6));
    let alert = [&[ICMP6, 0, 5, 2, 0, 0, 1, 0], &icmp6(local, ALL_NODES, 136, &nd_body(0x20, victim.ip6, &target))[..]]
        .concat();
    table.drop("foreign NA behind a router alert", own.v6(local, ALL_NODES, HOP_BY_HOP, 1, &alert));
    table.drop("NS with the wrong kind of option", own.ns(global, gateway.ip6, &target));
    table.drop("NA with the wrong kind of option", own.na(global, global, &sender));
    table.drop("NA with an option of length 0", own.na(global, global, &[2, 0, 0, 0, 0, 0, 0, 0]));
    table.drop("NA with an option of length 2", own.na(global, global, &[2, 2, 0, 0, 0, 0, 0, 0]));
}

/// A bound port that may tag its frames itself: inside the tag the same table holds, and outside of its VLANs nothing
/// passes. RARP has no business in a tag: QEMU announces its guest without one.
pub fn trunk(plain: &[Case], vlan: u16) -> Vec<Case> {
    let mut cases = Vec::new();
    // The kernel itself drops a tag with nothing in it.
    let untagged = plain.iter().filter(|case| !is_tagged(&case.frame) && case.frame.len() >= 16);
    for case in untagged.filter(|case| case.group != "RARP" && case.mark.is_none()) {
        let mut add = |form: String, passes: bool, frame: Vec<u8>| {
            let class = format!("{form}, {}", case.class);
            cases.push(Case { group: "trunk", class, frame, passes, offload: None, mark: None });
        };
        add(format!("own VLAN {vlan}"), case.passes, tagged(VLAN, vlan, &case.frame));
        add(format!("own VLAN {vlan}, priority 7"), case.passes, tagged(VLAN, 0xe000 | vlan, &case.frame));
        if case.passes {
            add(format!("VLAN {}", vlan + 1), false, tagged(VLAN, vlan + 1, &case.frame));
            add("VLAN 0".to_owned(), false, tagged(VLAN, 0, &case.frame));
            add(format!("802.1ad {vlan}"), false, tagged(0x88a8, vlan, &case.frame));
            let twice = tagged(VLAN, vlan, &tagged(VLAN, vlan, &case.frame));
            add(format!("own VLAN {vlan} twice"), false, twice);
            add(format!("own VLAN {vlan}, SNAP"), false, tagged(VLAN, vlan, &snap(&case.frame)));
        }
    }
    cases
}

/// Link-local addresses that a bound port may or may not use.
pub fn link_locals(me: Who, scene: &Scene, addresses: &[(Ipv6Addr, bool)]) -> Vec<Case> {
    let mut table = Table { group: "link-local addresses", ..Table::default() };
    let own = Sender { me, to: scene.gateway.mac };
    let to = scene.gateway.ip6;
    let (sender, target) = (lladdr_option(1, me.mac), lladdr_option(2, me.mac));
    for (address, passes) in addresses {
        let (from, passes) = (*address, *passes);
        table.is(passes, format!("IPv6 UDP from {from}"), own.udp6(from, to));
        table.is(passes, format!("NS from {from}"), own.ns(from, to, &sender));
        table.is(passes, format!("NA for {from}"), own.na(me.ip6, from, &target));
        table.is(passes, format!("NA for {from} from it"), own.na(from, from, &target));
        table.is(passes, format!("DAD for {from}"), own.ns(Ipv6Addr::UNSPECIFIED, from, &[]));
        let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
        table.is(passes, format!("DAD for {from} with nonce"), own.ns(Ipv6Addr::UNSPECIFIED, from, &nonce));
        let solicitation = own.icmp6(from, ALL_ROUTERS, 133, &[&[0; 4], &sender[..]].concat());
        table.is(passes, format!("RS from {from}"), solicitation);
        table.is(passes, format!("MLD report from {from}"), own.mld(&mld(from, 143, &mld2_body(solicited_node(from)))));
        table.drop(
            format!("NA for {from}, another guest's MAC"),
            own.na(me.ip6, from, &lladdr_option(2, scene.victim.mac)),
        );
        table.drop(format!("NA from {from} for another guest"), own.na(from, scene.victim.ip6, &target));
        table.drop(format!("router advertisement from {from}"), own.icmp6(from, ALL_NODES, 134, &ra_body(&sender)));
    }
    table.cases
}

/// What comes in by the uplink from the gateway's MAC, where the pool names it: packets between guests come back that
/// way, claims do not.
pub fn hairpin(gateway: Who, victim: Who) -> Vec<Case> {
    let mut table = Table { group: "back from the gateway", ..Table::default() };
    let back = Sender { me: gateway, to: BROADCAST };
    let (remote, remote6) = (Ipv4Addr::new(192, 0, 2, 250), Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 250));
    let data = udp(4000, 4001, b"data");
    let own4 = |protocol, fragment, payload: &[u8]| back.v4(victim.ip4, remote, protocol, fragment, payload);
    table.pass("IPv4 of a bound guest", own4(UDP, 0, &data));
    table.pass("IPv4 TCP of a bound guest", own4(TCP, 0, &tcp(4000, 80)));
    table.pass("ICMP echo of a bound guest", own4(ICMP, 0, &icmp(8, 0, &[0; 4])));
    table.pass("ICMP error of a bound guest", own4(ICMP, 0, &icmp(3, 4, &[0; 32])));
    table.pass("IPv4 first fragment of a bound guest", own4(UDP, MORE, &udp(1, 2, &[0; 16])));
    table.pass("IPv4 later fragment of a bound guest", own4(UDP, 185, &[0; 16]));
    table.pass("IPv6 of a bound guest", back.udp6(victim.ip6, remote6));
    table.pass("IPv6 TCP of a bound guest", back.v6(victim.ip6, remote6, TCP, 64, &tcp(4000, 80)));
    table.pass("ICMPv6 echo of a bound guest", back.icmp6(victim.ip6, remote6, 128, &[0; 4]));
    table.pass("packet too big of a bound guest", back.icmp6(victim.ip6, remote6, 2, &[0; 48]));
    let behind = options_header(UDP);
    table.pass(
        "IPv6 of a bound guest behind destination options",
        back.behind(victim.ip6, remote6, DESTINATION_OPTIONS, behind, &udp6(victim.ip6, remote6, 1, 2)),
    );
    let later = |next| fragment_header(next, 3, false);
    table
        .pass("IPv6 later fragment of a bound guest", back.behind(victim.ip6, remote6, FRAGMENT, later(UDP), &[0; 16]));
    table.pass(
        "IPv6 later fragment of a bound guest, data like an NA",
        back.behind(victim.ip6, remote6, FRAGMENT, later(ICMP6), &[136; 24]),
    );
    table.drop("ARP reply of a bound guest", back.arp(Arp::reply((gateway.mac, victim.ip4), (BROADCAST, victim.ip4))));
    table.drop("ARP request of a bound guest", back.arp(Arp::request((gateway.mac, victim.ip4), remote)));
    table.drop(
        "ARP probe for a bound guest's address",
        back.arp(Arp::request((gateway.mac, Ipv4Addr::UNSPECIFIED), victim.ip4)),
    );
    table.drop("NA of a bound guest", back.na(victim.ip6, victim.ip6, &lladdr_option(2, gateway.mac)));
    table.drop("DAD for a bound guest's address", back.ns(Ipv6Addr::UNSPECIFIED, victim.ip6, &[]));
    for (name, mac) in [("the gateway's", gateway.mac), ("the guest's", victim.mac)] {
        let (sender, target) = (lladdr_option(1, mac), lladdr_option(2, mac));
        table.drop(format!("NS of a bound guest, {name} MAC"), back.ns(victim.ip6, remote6, &sender));
        table.drop(
            format!("NA of a bound guest for another address, {name} MAC"),
            back.na(victim.ip6, remote6, &target),
        );
        let solicitation = [&[0; 4], &sender[..]].concat();
        table.drop(format!("RS of a bound guest, {name} MAC"), back.icmp6(victim.ip6, ALL_ROUTERS, 133, &solicitation));
        table.drop(
            format!("RA of a bound guest, {name} MAC"),
            back.icmp6(victim.ip6, ALL_NODES, 134, &ra_body(&sender)),
        );
    }
    table.drop("NS of a bound guest, no option", back.ns(victim.ip6, remote6, &[]));
    let redirect = [nd_body(0, remote6, &[]), vec![0; 16]].concat();
    table.drop("redirect of a bound guest", back.icmp6(victim.ip6, ALL_NODES, 137, &redirect));
    let message = icmp6(victim.ip6, ALL_NODES, 135, &nd_body(0, remote6, &[]));
    for (name, next) in [("a hop-by-hop header", HOP_BY_HOP), ("destination options", DESTINATION_OPTIONS)] {
        let frame = back.behind(victim.ip6, ALL_NODES, next, options_header(ICMP6), &message);
        table.drop(format!("NS of a bound guest behind {name}"), frame);
    }
    let local = victim.link_local();
    table.drop("IPv6 of a bound guest's link-local address", back.udp6(local, remote6));
    table.drop("echo of a bound guest's link-local address", back.icmp6(local, remote6, 128, &[0; 4]));
    table.drop("NS of a bound guest's link-local address", back.ns(local, remote6, &[]));
    table.drop("RA of a bound guest's link-local address", back.icmp6(local, ALL_NODES, 134, &ra_body(&[])));
    let (plain4, plain6) = (own4(UDP, 0, &data), back.udp6(victim.ip6, remote6));
    for (tpid, vlan) in [(VLAN, 0), (VLAN, 10), (0x88a8, 0), (0x88a8, 10), (0x9100, 10)] {
        for (name, plain) in [("IPv4", &plain4), ("IPv6", &plain6)] {
            table.drop(format!("tag {tpid:#06x} VLAN {vlan}, {name} of a bound guest"), tagged(tpid, vlan, plain));
        }
    }
    table.drop("SNAP, IPv4 of a bound guest", snap(&plain4));
    let other = Sender { me: Who { mac: [2, 0, 0, 0, 0xee, 0xef], ..gateway }, to: BROADCAST };
    table.drop("IPv4 of a bound guest from another MAC", other.v4(victim.ip4, remote, UDP, 0, &data));
    table.drop("IPv6 of a bound guest from another MAC", other.udp6(victim.ip6, remote6));
    table.cases
}

/// Frames whose checksum or whose cutting into packets is left to the network card, from a bound port.
pub fn offloads(me: Who, scene: &Scene) -> Vec<Case> {
    const TCP4: u8 = 1;
    const TCP6: u8 = 4;
    let Scene { gateway, victim, stranger, .. } = *scene;
    let own = Sender { me, to: gateway.mac };
    let mut cases = Vec::new();
    let mut add =
        |passes: bool, class: String, frame: Vec<u8>, segments: u8, start: u16, offset: u16, mark: Vec<u8>| {
            let headers = start + 20;
            let offload = Some(Offload { segments, headers, segment: 1400, start, offset });
            cases.push(Case { group: "offloads", class, frame, passes, offload, mark: Some(mark) });
        };
    let payload = |number: usize, length: usize| {
        let mark = format!("frame {number:04} left to the card").into_bytes();
        let rest = length.saturating_sub(mark.len());
        ([&mark[..], &vec![0x2a; rest]].concat(), mark)
    };
    let mut number = 0;
    for length in [1400, 20_000, 64_000] {
        let name = if length == 1400 { "checksum".to_owned() } else { format!("{} kB of segments", length / 1000) };
        let kind = |kind: u8| if length == 1400 { 0 } else { kind };
        for (whose, passes, from) in [
            ("own", true, me.ip4),
            ("another guest's", false, victim.ip4),
            ("the gateway's", false, gateway.ip4),
            ("a random", false, stranger.ip4),
        ] {
            number += 1;
            let (data, mark) = payload(number, length);
            let frame = own.v4(from, gateway.ip4, TCP, 0, &[&tcp(4000, 80), &data[..]].concat());
            add(passes, format!("IPv4 TCP, {name} left to the card, {whose} address"), frame, kind(TCP4), 34, 16, mark);
        }
        for (whose, passes, from) in
            [("own", true, me.ip6), ("another guest's", false, victim.ip6), ("a random", false, stranger.ip6)]
        {
            number += 1;
            let (data, mark) = payload(number, length);
            let frame = own.v6(from, gateway.ip6, TCP, 64, &[&tcp(4000, 80), &data[..]].concat());
            add(passes, format!("IPv6 TCP, {name} left to the card, {whose} address"), frame, kind(TCP6), 54, 16, mark);
        }
        number += 1;
        let (data, mark) = payload(number, length);
        let frame = own.v4(me.ip4, gateway.ip4, TCP, 0, &[&tcp(4000, 80), &data[..]].concat());
        let frame = [&frame[..6], &victim.mac, &frame[12..]].concat();
        add(false, format!("IPv4 TCP, {name} left to the card, another guest's MAC"), frame, kind(TCP4), 34, 16, mark);
    }
    cases
}

/// Packets by way of a node that routes: from a guest to the world, or from the world to a guest. They leave with other
/// MACs than they came with.
pub fn routed(me: Who, next: Mac, to: Who, victim: Who, bound: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let own = Sender { me, to: next };
    let mut add = |passes: bool, class: &str, frame: &dyn Fn(&[u8]) -> Vec<u8>| {
        let mark = format!("routed {class} {passes}").into_bytes();
        cases.push(Case {
            group: "routed",
            class: class.to_owned(),
            frame: frame(&mark),
            passes,
            offload: None,
            mark: Some(mark),
        });
    };
    let v4 = |from: Ipv4Addr, mark: &[u8]| own.v4(from, to.ip4, UDP, 0, &udp(4000, 4001, mark));
    let v6 = |from: Ipv6Addr, mark: &[u8]| {
        own.v6(from, to.ip6, UDP, 64, &with_checksum6(from, to.ip6, UDP, udp(4000, 4001, mark), 6))
    };
    add(true, "IPv4 through the node", &|mark| v4(me.ip4, mark));
    add(true, "IPv6 through the node", &|mark| v6(me.ip6, mark));
    if bound {
        add(false, "IPv4 from another guest's address through the node", &|mark| v4(victim.ip4, mark));
        add(false, "IPv6 from another guest's address through the node", &|mark| v6(victim.ip6, mark));
    }
    cases
}

/// A DHCP request, for an assignment that forbids it.
pub fn dhcp_request(me: Who) -> Vec<u8> {
    Sender { me, to: BROADCAST }.v4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, UDP, 0, &udp(68, 67, b"data"))
}

/// An ordinary packet to everybody, from `from` with the MAC of `me`.
pub fn packet(me: Who, from: Ipv4Addr, number: u32) -> Vec<u8> {
    let data = udp(4000, 4001, &number.to_be_bytes());
    Sender { me, to: BROADCAST }.v4(from, Ipv4Addr::BROADCAST, UDP, 0, &data)
}

/// An ARP reply and a neighbour advertisement that give an address to a MAC.
pub fn announcements(me: Who, ip4: Ipv4Addr, ip6: Ipv6Addr) -> Vec<Vec<u8>> {
    let own = Sender { me, to: BROADCAST };
    let target = lladdr_option(2, me.mac);
    vec![
        own.arp(Arp::reply((me.mac, ip4), (BROADCAST, ip4))),
        own.arp(Arp::request((me.mac, ip4), ip4)),
        own.na(me.link_local(), ip6, &target),
        own.na(ip6, ip6, &target),
        own.ns(ip6, Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1), &lladdr_option(1, me.mac)),
    ]
}
