//! Forms that a guest has no reason to send from a port with addresses, and that must not be a way around the table.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Case, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, Scene, Sender, Table, Who};
use crate::selftest::frames::{
    ALL_NODES, Arp, BROADCAST, ICMP6, IP4, IP6, TCP, UDP, checksum, ether, fragment_header, icmp6, ip4, ip6,
    lladdr_option, nd_body, options_header, tcp, udp, udp6,
};

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
