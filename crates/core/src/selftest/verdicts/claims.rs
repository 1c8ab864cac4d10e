//! Attempts to take what is somebody else's: an address, a MAC, a link-local address, in the open or hidden in a frame.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Case, DESTINATION_OPTIONS, FRAGMENT, HARMLESS, HARMLESS6, HOP_BY_HOP, MORE, Sender, Table, Who};
use crate::selftest::frames::{
    ALL_NODES, ARP, Arp, BROADCAST, ICMP, ICMP6, TCP, UDP, VLAN, ether, fragment_header, icmp, icmp6, lladdr_option,
    nd_body, options_header, snap, tagged, tcp, udp,
};

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
