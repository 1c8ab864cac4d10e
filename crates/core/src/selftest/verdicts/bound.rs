//! What a port with addresses may send: frames of every protocol, honest and forged.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    Case, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, LOOKS_LIKE_DHCP, LOOKS_LIKE_REDIRECT, MORE, PIM, Scene, Sender,
    Table, Who,
};
use crate::selftest::frames::{
    ALL_NODES, ALL_ROUTERS, ARP, Arp, BROADCAST, DHCP6_SERVERS, ICMP, ICMP6, IGMP, IP4, IP6, Mac, TCP, UDP, VLAN,
    ether, fragment_header, group_mac, icmp, icmp6, ip4, ip6, is_tagged, lladdr_option, mld, mld_bare, mld2_body,
    nd_body, options_header, ra_body, snap, solicited_node, tagged, tcp, udp, udp6,
};

/// Name, the kind of option that may name the sender's MAC, and the frame with these options.
type Message<'a> = (&'static str, u8, &'a dyn Fn(&[u8]) -> Vec<u8>);

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
