//! What a port without addresses may send, or an uplink.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    Case, DESTINATION_OPTIONS, FRAGMENT, HARMLESS, HARMLESS6, LOOKS_LIKE_DHCP, MORE, Scene, Sender, Table, Who,
};
use crate::selftest::frames::{
    ALL_NODES, ALL_ROUTERS, Arp, BROADCAST, DHCP6_SERVERS, ICMP, ICMP6, TCP, UDP, VLAN, ether, fragment_header, icmp,
    icmp6, lladdr_option, mld, mld2_body, nd_body, options_header, ra_body, snap, solicited_node, tagged, tcp, udp,
    udp6,
};

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
