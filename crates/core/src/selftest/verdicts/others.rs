//! What else has a verdict: the uplink that sends for somebody, work that is left to the network card, routed packets, announcements.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Case, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, MORE, Offload, Scene, Sender, Table, Who};
use crate::selftest::frames::{
    ALL_NODES, ALL_ROUTERS, Arp, BROADCAST, ICMP, ICMP6, Mac, TCP, UDP, VLAN, fragment_header, icmp, icmp6,
    lladdr_option, nd_body, options_header, ra_body, snap, tagged, tcp, udp, udp6, with_checksum6,
};

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
