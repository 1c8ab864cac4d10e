//! What must reach a guest and what must not, and what may leave by the uplink: the table of what is delivered.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::frames::{
    ALL_NODES, Arp, BROADCAST, ICMP, IP4, IP6, Mac, TCP, UDP, VLAN, ether, fragment_header, group_mac, icmp, icmp6,
    ip4, ip6, lladdr_option, nd_body, options_header, ra_body, tagged, tcp, udp,
};
use super::verdicts::{Case, FRAGMENT, MORE, Scene, Sender, Table, Who};

/// A MAC that no port of the bridge has: the bridge floods what is sent to it.
const UNKNOWN: Mac = [2, 0, 0, 0, 0xcc, 1];

/// To a guest that gets what is addressed to it and nothing else. `strict`: unless its assignment says otherwise.
pub fn to_bound(me: Who, guest: Who, scene: &Scene, strict: bool) -> Vec<Case> {
    let mut table = Table { group: "to a bound guest", ..Table::default() };
    let to = Sender { me, to: guest.mac };
    addressed(&mut table, me, guest);
    for (name, other) in [("another guest's", scene.victim), ("the node's", scene.node), ("a random", scene.stranger)] {
        let data = udp(4000, 4001, b"data");
        table.is(!strict, format!("IPv4 to {name} address"), to.v4(me.ip4, other.ip4, UDP, 0, &data));
        table.is(!strict, format!("TCP to {name} address"), to.v4(me.ip4, other.ip4, TCP, 0, &tcp(80, 4000)));
        table.is(
            !strict,
            format!("IPv4 later fragment to {name} address"),
            to.v4(me.ip4, other.ip4, UDP, 185, &[0; 16]),
        );
        let error = icmp(3, 4, &[0; 32]);
        table.is(!strict, format!("ICMP error to {name} address"), to.v4(me.ip4, other.ip4, ICMP, 0, &error));
        table.is(!strict, format!("IPv6 to {name} address"), to.udp6(me.ip6, other.ip6));
        table.is(
            !strict,
            format!("IPv6 fragment to {name} address"),
            to.behind(me.ip6, other.ip6, FRAGMENT, fragment_header(UDP, 3, false), &[0; 24]),
        );
        let local = to.udp6(me.link_local(), other.link_local());
        table.is(!strict, format!("IPv6 to {name} link-local address"), local);
    }
    let priority = tagged(VLAN, 0, &to.v4(me.ip4, scene.stranger.ip4, UDP, 0, &udp(1, 2, b"data")));
    table.is(!strict, "priority tag, IPv4 to a random address", priority);
    table.cases
}

/// From outside to a MAC that nobody has: a bridge floods it to every port.
pub fn flooded(me: Who, guest: Who, scene: &Scene, passes: bool) -> Vec<Case> {
    let mut table = Table { group: "flooded", ..Table::default() };
    let flooded = Sender { me, to: UNKNOWN };
    table.is(passes, "IPv4 to an unknown MAC", flooded.v4(me.ip4, scene.stranger.ip4, UDP, 0, &udp(1, 2, b"data")));
    table.is(passes, "IPv6 to an unknown MAC", flooded.udp6(me.ip6, scene.stranger.ip6));
    let asked = Arp::reply((me.mac, me.ip4), (UNKNOWN, scene.stranger.ip4)).frame(UNKNOWN, me.mac);
    table.is(passes, "ARP reply to an unknown MAC", asked);
    table.is(passes, "unknown ethertype to an unknown MAC", ether(UNKNOWN, me.mac, 0x88b6, b"some data in it"));
    let own = udp(1, 2, b"its own");
    table.is(passes, "IPv4 to its address at an unknown MAC", flooded.v4(me.ip4, guest.ip4, UDP, 0, &own));
    table.is(passes, "IPv6 to its address at an unknown MAC", flooded.udp6(me.ip6, guest.ip6));
    table.cases
}

/// What has to arrive whatever is filtered.
fn addressed(table: &mut Table, me: Who, guest: Who) {
    let to = Sender { me, to: guest.mac };
    let all = Sender { me, to: BROADCAST };
    let data = udp(4000, 4001, b"data");
    table.pass("IPv4", to.v4(me.ip4, guest.ip4, UDP, 0, &data));
    table.pass("TCP", to.v4(me.ip4, guest.ip4, TCP, 0, &tcp(80, 4000)));
    table.pass("ICMP echo reply", to.v4(me.ip4, guest.ip4, ICMP, 0, &icmp(0, 0, &[0; 8])));
    table.pass("fragmentation needed (PMTU)", to.v4(me.ip4, guest.ip4, ICMP, 0, &icmp(3, 4, &[0; 32])));
    table.pass("time exceeded", to.v4(me.ip4, guest.ip4, ICMP, 0, &icmp(11, 0, &[0; 32])));
    table.pass("IPv4 first fragment", to.v4(me.ip4, guest.ip4, UDP, MORE, &udp(1, 2, &[0; 16])));
    table.pass("IPv4 later fragment", to.v4(me.ip4, guest.ip4, UDP, 185, &[0; 16]));
    table.pass("ESP", to.v4(me.ip4, guest.ip4, 50, 0, &[1; 24]));
    table.pass("IPv4 to everybody at its MAC", to.v4(me.ip4, Ipv4Addr::BROADCAST, UDP, 0, &data));
    table.pass("IPv4 to a group at its MAC", to.v4(me.ip4, Ipv4Addr::new(224, 0, 0, 251), UDP, 0, &data));
    table.pass("IPv4 to everybody", all.v4(me.ip4, Ipv4Addr::BROADCAST, UDP, 0, &data));
    table.pass("IPv4 to everybody of a subnet", all.v4(me.ip4, Ipv4Addr::new(203, 0, 113, 255), UDP, 0, &data));
    let group = Sender { me, to: [1, 0, 0x5e, 0, 0, 0xfb] };
    table.pass("IPv4 to a group", group.v4(me.ip4, Ipv4Addr::new(224, 0, 0, 251), UDP, 0, &data));
    table.pass("ARP reply", Arp::reply((me.mac, me.ip4), (guest.mac, guest.ip4)).frame(guest.mac, me.mac));
    table.pass("ARP request to its MAC", Arp::request((me.mac, me.ip4), guest.ip4).frame(guest.mac, me.mac));
    table.pass("ARP request", all.arp(Arp::request((me.mac, me.ip4), guest.ip4)));
    table.pass("gratuitous ARP", all.arp(Arp::request((me.mac, me.ip4), me.ip4)));
    table.pass("IPv6", to.udp6(me.ip6, guest.ip6));
    table.pass("IPv6 to the link-local address", to.udp6(me.link_local(), guest.link_local()));
    table.pass("packet too big (PMTU)", to.icmp6(me.ip6, guest.ip6, 2, &[0; 48]));
    table.pass("IPv6 fragment", to.behind(me.ip6, guest.ip6, FRAGMENT, fragment_header(UDP, 3, false), &[0; 24]));
    table.pass("NS", all.ns(me.ip6, guest.ip6, &lladdr_option(1, me.mac)));
    let solicited = nd_body(0x60, me.ip6, &lladdr_option(2, me.mac));
    table.pass("solicited NA", to.icmp6(me.ip6, guest.ip6, 136, &solicited));
    let message = icmp6(me.ip6, ALL_NODES, 128, &[0; 4]);
    table.pass("IPv6 to a group", ether(group_mac(ALL_NODES), me.mac, IP6, &ip6(me.ip6, ALL_NODES, 58, 64, &message)));
    table.pass("IPv6 to a group at its MAC", ether(guest.mac, me.mac, IP6, &ip6(me.ip6, ALL_NODES, 58, 64, &message)));
}

/// To everybody or to a group, with an address that is not this guest's: it does not get it, others may.
pub fn withheld(me: Who, guest: Who, scene: &Scene, from_gateway: bool) -> Vec<Case> {
    let mut table = Table { group: "to everybody, not for the guest", ..Table::default() };
    let data = udp(4000, 4001, b"data");
    let macs = [("everybody", BROADCAST), ("a group", [1, 0, 0x5e, 0, 0, 1]), ("an IPv6 group", group_mac(ALL_NODES))];
    for (name, mac) in macs {
        let to = Sender { me, to: mac };
        for (whose, other) in
            [("another guest's", scene.victim), ("the node's", scene.node), ("a random", scene.stranger)]
        {
            table.pass(format!("IPv4 to {whose} address by {name}"), to.v4(me.ip4, other.ip4, UDP, 0, &data));
            table.pass(format!("TCP to {whose} address by {name}"), to.v4(me.ip4, other.ip4, TCP, 0, &tcp(80, 4000)));
            table.pass(format!("IPv6 to {whose} address by {name}"), to.udp6(me.ip6, other.ip6));
            let local = to.udp6(me.link_local(), other.link_local());
            table.pass(format!("IPv6 to {whose} link-local address by {name}"), local);
            let priority = tagged(VLAN, 0, &to.v4(me.ip4, other.ip4, UDP, 0, &udp(1, 2, b"tagged")));
            table.pass(format!("priority tag, IPv4 to {whose} address by {name}"), priority);
        }
    }
    if from_gateway {
        let all = Sender { me, to: BROADCAST };
        let body = ra_body(&lladdr_option(1, me.mac));
        table.pass("router advertisement", all.icmp6(me.link_local(), ALL_NODES, 134, &body));
        let message = icmp6(me.link_local(), guest.link_local(), 134, &body);
        let unicast = ip6(me.link_local(), guest.link_local(), 58, 255, &message);
        table.pass("router advertisement to its address, to everybody", ether(BROADCAST, me.mac, IP6, &unicast));
        let behind = all.behind(
            me.link_local(),
            ALL_NODES,
            60,
            options_header(58),
            &icmp6(me.link_local(), ALL_NODES, 134, &body),
        );
        table.pass("router advertisement behind destination options", behind);
        let plain = all.icmp6(me.link_local(), ALL_NODES, 134, &ra_body(&[]));
        table.pass("priority tag, router advertisement", tagged(VLAN, 0, &plain));
    }
    table.cases
}

/// To everybody or to a group, and yet with its own address: it gets it like the others.
pub fn own_by_group(me: Who, guest: Who) -> Vec<Case> {
    let mut table = Table { group: "to everybody, for the guest", ..Table::default() };
    for (name, mac) in [("everybody", BROADCAST), ("a group", [3, 0xbf, 0, 0, 0, 1])] {
        let to = Sender { me, to: mac };
        table.pass(format!("IPv4 to its address by {name}"), to.v4(me.ip4, guest.ip4, UDP, 0, &udp(1, 2, b"data")));
        table.pass(format!("IPv6 to its address by {name}"), to.udp6(me.ip6, guest.ip6));
        let local = to.udp6(me.link_local(), guest.link_local());
        table.pass(format!("IPv6 to its link-local address by {name}"), local);
        let echo = icmp6(me.ip6, guest.ip6, 128, &[0; 4]);
        table.pass(format!("echo to its address by {name}"), to.v6(me.ip6, guest.ip6, 58, 64, &echo));
    }
    table.cases
}

/// What only the provider sends, and a guest needs. `advertised`: whether it gets router advertisements.
pub fn from_gateway(gateway: Who, guest: Who, advertised: bool) -> Vec<Case> {
    let mut table = Table { group: "from the gateway", ..Table::default() };
    let to = Sender { me: gateway, to: guest.mac };
    let all = Sender { me: gateway, to: BROADCAST };
    let sender = lladdr_option(1, gateway.mac);
    table.pass(
        "ARP reply",
        Arp::reply((gateway.mac, gateway.ip4), (guest.mac, guest.ip4)).frame(guest.mac, gateway.mac),
    );
    table.pass("gratuitous ARP", all.arp(Arp::request((gateway.mac, gateway.ip4), gateway.ip4)));
    let advertisement = ra_body(&sender);
    let one = to.icmp6(gateway.link_local(), guest.link_local(), 134, &advertisement);
    table.is(advertised, "router advertisement to one guest", one);
    let one = to.icmp6(gateway.ip6, guest.ip6, 134, &advertisement);
    table.is(advertised, "router advertisement to its address", one);
    table.pass("router solicitation", to.icmp6(gateway.link_local(), guest.link_local(), 133, &[0; 4]));
    let offer = udp(67, 68, b"offer");
    table.pass("DHCP offer to everybody", all.v4(gateway.ip4, Ipv4Addr::BROADCAST, UDP, 0, &offer));
    table.pass("DHCP offer to the guest", to.v4(gateway.ip4, guest.ip4, UDP, 0, &offer));
    table.pass("ICMP error", to.v4(gateway.ip4, guest.ip4, ICMP, 0, &icmp(3, 1, &[0; 32])));
    table.cases
}

/// To a guest port without bindings: nothing that is addressed to somebody of a pool.
pub fn to_unbound(me: Who, guest: Who, scene: &Scene, protected: &[(&str, Who)]) -> Vec<Case> {
    let mut table = Table { group: "to a guest without bindings", ..Table::default() };
    let to = Sender { me, to: guest.mac };
    addressed(&mut table, me, guest);
    let data = udp(4000, 4001, b"data");
    for (name, owner) in protected {
        table.drop(format!("IPv4 to {name}, at its MAC"), to.v4(me.ip4, owner.ip4, UDP, 0, &data));
        table.drop(
            format!("ICMP error to {name}, at its MAC"),
            to.v4(me.ip4, owner.ip4, ICMP, 0, &icmp(3, 4, &[0; 32])),
        );
        table.drop(format!("IPv6 to {name}, at its MAC"), to.udp6(me.ip6, owner.ip6));
    }
    if let Some((name, owner)) = protected.first() {
        let local = to.udp6(me.link_local(), owner.link_local());
        table.drop(format!("IPv6 to the link-local address of {name}, at its MAC"), local);
    }
    // It may be a router for whoever asks it.
    table.pass("IPv4 to the gateway's address, at its MAC", to.v4(me.ip4, scene.gateway.ip4, UDP, 0, &data));
    table.pass("IPv4 to a random address, at its MAC", to.v4(me.ip4, scene.stranger.ip4, UDP, 0, &data));
    table.pass("IPv6 to a random address, at its MAC", to.udp6(me.ip6, scene.stranger.ip6));
    table.cases
}

/// From a guest port without bindings by way of a guarded uplink; what is for everybody reaches the others all the same.
/// `registered`: whether the provider knows its MAC.
pub fn guarded(me: Who, scene: &Scene, registered: bool) -> Vec<Case> {
    let mut table = Table { group: "guard of the uplink", ..Table::default() };
    let Scene { gateway, node, victim, stranger } = *scene;
    let macs = [
        ("own MAC", me.mac),
        ("another MAC", stranger.mac),
        ("a MAC one bit off", [me.mac[0], 0, 0, 0, 0, me.mac[5] ^ 0x10]),
    ];
    // A sender is heard by the provider or it is not.
    for (name, mac) in macs.into_iter().filter(|(_, mac)| !registered || *mac == me.mac) {
        let from = Who { mac, ..me };
        let out = Sender { me: from, to: gateway.mac };
        let all = Sender { me: from, to: BROADCAST };
        table.is(registered, format!("{name}, IPv4"), out.v4(me.ip4, stranger.ip4, UDP, 0, &udp(1, 2, b"data")));
        table.is(registered, format!("{name}, IPv6"), out.udp6(me.ip6, stranger.ip6));
        let request = Arp::request((mac, me.ip4), stranger.ip4);
        table.is(registered, format!("{name}, ARP request to the gateway's MAC"), request.frame(gateway.mac, mac));
        table.is(registered, format!("{name}, unknown ethertype"), ether(gateway.mac, mac, 0x88b6, b"some data in it"));
        let packet = ip4(me.ip4, stranger.ip4, UDP, 0, &udp(1, 2, b"tagged"));
        let frame = tagged(VLAN, 0, &ether(gateway.mac, mac, IP4, &packet));
        table.is(registered, format!("{name}, priority tag, IPv4"), frame);
        table.pass(format!("{name}, ARP request to everybody"), all.arp(request));
        table.pass(format!("{name}, NS"), all.ns(me.ip6, stranger.ip6, &lladdr_option(1, mac)));
        table
            .pass(format!("{name}, unknown ethertype to everybody"), ether(BROADCAST, mac, 0x88b6, b"some data in it"));
        let to_node = Sender { me: from, to: node.mac };
        table.pass(format!("{name}, IPv4 to the node"), to_node.v4(me.ip4, node.ip4, UDP, 0, &udp(1, 2, b"data")));
        let to_guest = Sender { me: from, to: victim.mac };
        let inside = to_guest.v4(me.ip4, victim.ip4, UDP, 0, &udp(1, 2, b"data"));
        table.pass(format!("{name}, IPv4 to a guest"), inside);
    }
    let silent = Sender { me, to: gateway.mac }.v4(me.ip4, stranger.ip4, TCP, 0, &tcp(1, 2));
    table.is(registered, "own MAC, TCP", silent);
    let probe = Ipv6Addr::UNSPECIFIED;
    table.pass("own MAC, DAD", Sender { me, to: BROADCAST }.ns(probe, me.ip6, &[]));
    table.cases
}
