//! The specification row by row.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::*;

use super::Reason as R;
use crate::selftest::frames;
use frames::{
    ALL_NODES, ALL_ROUTERS, ARP, Arp, BROADCAST, DHCP6_SERVERS, ICMP, ICMP6, IGMP, IP4, IP6, TCP, UDP, VLAN, ether,
    fragment_header, icmp, icmp6, ip4, ip6, lladdr_option, mld, mld_bare, mld2_body, nd_body, options_header, ra_body,
    snap, solicited_node, tagged, tcp, udp, udp6,
};

type Mac = [u8; 6];

const ME: Mac = [2, 0, 0, 0, 0, 100];
const VICTIM: Mac = [2, 0, 0, 0, 0, 101];
const ELSEWHERE: Mac = [2, 0, 0, 0, 0, 105];
const GATEWAY: Mac = [2, 0, 0, 0, 0xff, 1];
const STRANGER: Mac = [2, 0, 0, 0, 0xee, 0xee];
const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const NONE6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const ALL: Ipv4Addr = Ipv4Addr::BROADCAST;
const MORE: u16 = 0x2000;

fn a4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, last)
}

fn a6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last)
}

fn local(mac: Mac) -> Ipv6Addr {
    MacAddr::from_octets(mac).link_local()
}

fn nets(addresses: &[IpAddr]) -> Vec<IpNet> {
    addresses.iter().copied().map(IpNet::from).collect()
}

/// .10 is ours, .11 the victim's, .16 of a guest elsewhere, .20 of nobody, .1 the gateway's.
fn bindings() -> Bindings {
    let mac = MacAddr::from_octets;
    let bound = [a4(10).into(), a6(10).into(), local(ME).into(), a4(11).into(), a6(11).into(), local(VICTIM).into()];
    let infrastructure = [a4(1).into(), a6(1).into(), local(GATEWAY).into()];
    let reserved = [a4(16).into(), a6(16).into(), a4(20).into(), a6(20).into()];
    Bindings {
        bound: Holdings { macs: [mac(ME), mac(VICTIM)].into(), nets: nets(&bound) },
        infrastructure: Holdings { macs: [mac(GATEWAY)].into(), nets: nets(&infrastructure) },
        reserved: Holdings { macs: [mac(ELSEWHERE)].into(), nets: nets(&reserved) },
        returning: BTreeSet::new(),
        registered: Some([mac(ME), mac(VICTIM)].into()),
        broadcasts: [a4(255)].into(),
    }
}

fn bound_port() -> BoundPort {
    let mut own = nets(&[a4(10).into(), a6(10).into(), local(ME).into()]);
    own.extend(["198.51.100.8/29", "2001:db8:100:1::/64"].map(|net| net.parse::<IpNet>().unwrap()));
    BoundPort {
        further_macs: BTreeSet::new(),
        also: Vec::new(),
        mac: MacAddr::from_octets(ME),
        own,
        dhcp: true,
        any_link_local: false,
        trunk: BTreeSet::new(),
        strict: true,
        advertisements: false,
    }
}

fn to_all(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    ether(BROADCAST, ME, ethertype, payload)
}

fn arp(arp: Arp) -> Vec<u8> {
    to_all(ARP, &arp.bytes())
}

fn v4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    to_all(IP4, &ip4(from, to, protocol, fragment, payload))
}

fn v6(from: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    to_all(IP6, &ip6(from, a6(1), next, hops, payload))
}

fn nd(from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    to_all(IP6, &ip6(from, to, ICMP6, 255, &icmp6(from, to, kind, body)))
}

fn behind(from: Ipv6Addr, next: u8, header: [u8; 8], message: &[u8]) -> Vec<u8> {
    v6(from, next, 255, &[&header[..], message].concat())
}

type Row = (&'static str, Vec<u8>, Verdict);

fn check(port: &PortRole, rows: &[Row]) {
    let bindings = bindings();
    let wrong: Vec<String> = rows
        .iter()
        .map(|(what, frame, wanted)| (what, wanted, verdict(frame, port, &bindings)))
        .filter(|(_, wanted, got)| *wanted != got)
        .map(|(what, wanted, got)| format!("{what}: {wanted:?} in the table, {got:?} here"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const PASS: Verdict = Verdict::Pass;

const fn drop(reason: Reason) -> Verdict {
    Verdict::Drop(reason)
}

#[test]
fn frames_of_a_bound_port() {
    let good = v4(a4(10), a4(1), UDP, 0, &udp(1, 2, b""));
    let foreign_mac = |ethertype, payload: &[u8]| ether(BROADCAST, STRANGER, ethertype, payload);
    let request = Arp::request((ME, a4(10)), a4(1));
    let probe = |target| arp(Arp::request((ME, NONE), target));
    let announce = Arp { operation: 3, sender: (ME, NONE), target: (ME, NONE), ..request };
    let rows = vec![
        ("foreign source MAC", foreign_mac(IP4, &good[14..]), drop(R::SourceMac)),
        ("foreign source MAC, ARP", foreign_mac(ARP, &request.bytes()), drop(R::SourceMac)),
        ("foreign source MAC, anything", foreign_mac(0x88b6, b"data"), drop(R::SourceMac)),
        ("group source MAC", ether(BROADCAST, [3, 0, 0, 0, 0, 1], IP4, &good[14..]), drop(R::NoSourceMac)),
        ("ARP request", arp(request), PASS),
        ("ARP reply", arp(Arp::reply((ME, a4(10)), (GATEWAY, a4(1)))), PASS),
        ("ARP of the own prefix", arp(Arp::request((ME, Ipv4Addr::new(198, 51, 100, 15)), a4(1))), PASS),
        ("ARP, foreign SPA", arp(Arp::request((ME, a4(11)), a4(1))), drop(R::ArpForeign)),
        ("ARP, foreign SHA", arp(Arp::reply((VICTIM, a4(10)), (GATEWAY, a4(1)))), drop(R::ArpForeign)),
        ("gratuitous ARP, foreign", arp(Arp::request((ME, a4(1)), a4(1))), drop(R::ArpForeign)),
        ("ARP probe, own", probe(a4(10)), PASS),
        ("ARP probe, foreign", probe(a4(11)), drop(R::ArpForeign)),
        ("ARP reply from 0.0.0.0", arp(Arp::reply((ME, NONE), (GATEWAY, a4(10)))), drop(R::ArpForeign)),
        ("ARP, hardware", arp(Arp { hardware: 6, ..request }), drop(R::ArpMalformed)),
        ("ARP, protocol", arp(Arp { protocol: IP6, ..request }), drop(R::ArpMalformed)),
        ("ARP, MAC length", arp(Arp { lengths: [8, 4], ..request }), drop(R::ArpMalformed)),
        ("ARP, address length", arp(Arp { lengths: [6, 16], ..request }), drop(R::ArpMalformed)),
        ("ARP, operation", arp(Arp { operation: 9, ..request }), drop(R::ArpMalformed)),
        ("ARP, cut", to_all(ARP, &request.bytes()[..27]), drop(R::ArpMalformed)),
        ("RARP announcement", to_all(0x8035, &announce.bytes()), PASS),
        ("RARP announcement to one", ether(GATEWAY, ME, 0x8035, &announce.bytes()), drop(R::Rarp)),
        ("RARP, foreign", to_all(0x8035, &Arp { target: (VICTIM, NONE), ..announce }.bytes()), drop(R::Rarp)),
        ("RARP reply", to_all(0x8035, &Arp { operation: 4, ..announce }.bytes()), drop(R::Rarp)),
        ("priority tag", tagged(0x8100, 0, &good), drop(R::Tag)),
        ("802.1Q", tagged(0x8100, 10, &good), drop(R::Tag)),
        ("802.1ad", tagged(0x88a8, 10, &good), drop(R::Tag)),
        ("QinQ", tagged(0x8100, 10, &tagged(0x8100, 20, &good)), drop(R::Tag)),
        ("0x9100", tagged(0x9100, 10, &good), drop(R::Tag)),
        ("SNAP", snap(&good), drop(R::Ethertype)),
        ("LLDP", to_all(0x88cc, b"data"), drop(R::Ethertype)),
        ("PPPoE", to_all(0x8864, b"some data"), drop(R::Ethertype)),
        ("runt", vec![0xff; 13], drop(R::Runt)),
    ];
    check(&PortRole::Bound(bound_port()), &rows);
}

#[test]
fn ipv4_of_a_bound_port() {
    let data = udp(4000, 4001, b"data");
    let looks_like_dhcp = [0, 67, 0, 68, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let request = udp(68, 67, b"discover");
    let mut cut = v4(a4(10), a4(1), ICMP, 0, &[]);
    cut.extend([8; 8]);
    let rows = vec![
        ("UDP", v4(a4(10), a4(1), UDP, 0, &data), PASS),
        ("own prefix", v4(Ipv4Addr::new(198, 51, 100, 8), a4(1), TCP, 0, &tcp(1, 80)), PASS),
        ("ICMP", v4(a4(10), a4(1), ICMP, 0, &icmp(8, 0, &[0; 4])), PASS),
        ("IGMP report", v4(a4(10), Ipv4Addr::new(224, 0, 0, 22), IGMP, 0, &icmp(0x22, 0, &[0; 4])), PASS),
        ("first fragment", v4(a4(10), a4(1), UDP, MORE, &udp(1, 2, &[0; 16])), PASS),
        ("later fragment", v4(a4(10), a4(1), UDP, 185, &looks_like_dhcp), PASS),
        ("protocol 255", v4(a4(10), a4(1), 255, 0, &data), PASS),
        ("foreign", v4(a4(11), a4(1), UDP, 0, &data), drop(R::Ip4Source)),
        ("foreign ICMP error", v4(a4(11), a4(1), ICMP, 0, &icmp(3, 4, &[0; 32])), drop(R::Ip4Source)),
        ("foreign later fragment", v4(a4(11), a4(1), UDP, 185, &[0; 16]), drop(R::Ip4Source)),
        ("broadcast source", v4(ALL, a4(1), UDP, 0, &data), drop(R::Ip4Source)),
        ("multicast source", v4(Ipv4Addr::new(224, 0, 0, 1), a4(1), UDP, 0, &data), drop(R::Ip4Source)),
        ("redirect", v4(a4(10), a4(1), ICMP, 0, &icmp(5, 1, &[0; 32])), drop(R::Redirect)),
        ("DHCP request", v4(NONE, ALL, UDP, 0, &request), PASS),
        (
            "DHCP request to one MAC",
            [&GATEWAY[..], &v4(NONE, ALL, UDP, 0, &request)[6..]].concat(),
            drop(R::Ip4Unspecified),
        ),
        ("DHCP request to one address", v4(NONE, a4(1), UDP, 0, &request), drop(R::Ip4Unspecified)),
        ("DHCP request in a fragment", v4(NONE, ALL, UDP, MORE, &udp(68, 67, &[0; 8])), drop(R::Ip4Unspecified)),
        ("0.0.0.0, other port", v4(NONE, ALL, UDP, 0, &udp(69, 67, b"")), drop(R::Ip4Unspecified)),
        ("0.0.0.0, IGMP query", v4(NONE, Ipv4Addr::new(224, 0, 0, 1), IGMP, 0, &[0x11; 8]), drop(R::Ip4Unspecified)),
        ("ICMP router advertisement", v4(a4(10), ALL, ICMP, 0, &icmp(9, 0, &[0; 4])), drop(R::RouterMessage)),
        ("ICMP router solicitation", v4(a4(10), ALL, ICMP, 0, &icmp(10, 0, &[0; 4])), PASS),
        ("IGMP query", v4(a4(10), ALL, IGMP, 0, &icmp(0x11, 0, &[0; 4])), drop(R::RouterMessage)),
        ("IGMP leave", v4(a4(10), ALL, IGMP, 0, &icmp(0x17, 0, &[0; 4])), PASS),
        ("PIM hello", v4(a4(10), ALL, 103, 0, &[0x20, 0, 0, 0]), drop(R::RouterMessage)),
        ("PIM register", v4(a4(10), ALL, 103, 0, &[0x21, 0, 0, 0]), PASS),
        ("later fragment like a query", v4(a4(10), ALL, IGMP, 185, &[0x11; 8]), PASS),
        ("DHCP server", v4(a4(10), ALL, UDP, 0, &udp(67, 68, b"")), drop(R::DhcpServer)),
        ("DHCP server, first fragment", v4(a4(10), ALL, UDP, MORE, &udp(67, 68, &[0; 8])), drop(R::DhcpServer)),
        ("cut header", to_all(IP4, &ip4(a4(10), a4(1), UDP, 0, b"")[..19]), drop(R::Ip4Malformed)),
        ("no address", to_all(IP4, &ip4(a4(10), a4(1), UDP, 0, b"")[..15]), drop(R::Ip4Malformed)),
        ("ICMP in the padding", cut, Verdict::Either(Useless::Padding)),
    ];
    check(&PortRole::Bound(bound_port()), &rows);
    let forbidden = [("DHCP forbidden", v4(NONE, ALL, UDP, 0, &request), drop(R::DhcpClient))];
    check(&PortRole::Bound(BoundPort { dhcp: false, ..bound_port() }), &forbidden);
}

#[test]
fn ipv6_of_a_bound_port() {
    let (own, lla) = (a6(10), local(ME));
    let data = udp6(own, a6(1), 1, 2);
    let prefix = "2001:db8:100:1:ffff::9".parse().unwrap();
    let report = mld2_body(ALL_NODES);
    let message = icmp6(own, ALL_NODES, 136, &nd_body(0x20, own, &[]));
    let mut rows = vec![
        ("own address", v6(own, UDP, 64, &data), PASS),
        ("own prefix", v6(prefix, TCP, 64, &tcp(1, 80)), PASS),
        ("own link-local", v6(lla, UDP, 64, &data), PASS),
        ("protocol 255", v6(own, 255, 64, &data), PASS),
        ("foreign", v6(a6(11), UDP, 64, &data), drop(R::Ip6Source)),
        ("other link-local", v6("fe80::1".parse().unwrap(), UDP, 64, &data), drop(R::Ip6Source)),
        ("v4-mapped", v6(a4(10).to_ipv6_mapped(), UDP, 64, &data), drop(R::Ip6Source)),
        ("multicast source", v6(ALL_NODES, UDP, 64, &data), drop(R::Ip6Source)),
        (":: UDP", v6(NONE6, UDP, 64, &data), drop(R::Ip6Unspecified)),
        ("DHCPv6 server", v6(own, UDP, 64, &udp6(own, a6(1), 547, 546)), drop(R::DhcpServer)),
        ("DHCPv6 client", to_all(IP6, &ip6(lla, DHCP6_SERVERS, UDP, 1, &udp6(lla, DHCP6_SERVERS, 546, 547))), PASS),
        ("fragment", behind(own, 44, fragment_header(UDP, 0, true), &data), PASS),
        ("later fragment", behind(own, 44, fragment_header(ICMP6, 3, false), &[136; 24]), PASS),
        ("later fragment of a chain", behind(own, 44, fragment_header(60, 1, false), &message), drop(R::Ip6Malformed)),
        ("cut chain", v6(own, 60, 64, &[58]), drop(R::Ip6Malformed)),
        ("chain ends behind the packet", behind(own, 60, [UDP, 31, 1, 4, 0, 0, 0, 0], &data), drop(R::Ip6Malformed)),
        ("chain ends with the packet", behind(own, 60, options_header(TCP), &[]), Verdict::Either(Useless::Padding)),
        ("no next header", v6(own, 59, 64, &[]), PASS),
        ("PIM hello", v6(own, 103, 1, &[0x20, 0, 0, 0]), drop(R::RouterMessage)),
        ("ICMPv6 behind AH", behind(own, 51, options_header(58), &message), drop(R::Ip6Malformed)),
        ("echo behind options", behind(own, 60, options_header(ICMP6), &icmp6(own, a6(1), 128, &[0; 4])), PASS),
        ("NA behind options", behind(own, 60, options_header(ICMP6), &message), drop(R::DiscoveryForm)),
        (
            "NA in an atomic fragment",
            behind(own, 44, fragment_header(ICMP6, 0, false), &message),
            drop(R::DiscoveryForm),
        ),
        ("NA, hop limit", v6(own, ICMP6, 64, &message), drop(R::DiscoveryForm)),
        ("MLD report", to_all(IP6, &mld(lla, 143, &report)), PASS),
        ("MLD done", to_all(IP6, &mld(lla, 132, &report)), PASS),
        ("MLD report from ::", to_all(IP6, &mld(NONE6, 143, &report)), PASS),
        ("MLD report, global source", to_all(IP6, &mld(own, 143, &report)), drop(R::MulticastReport)),
        ("MLD report, bare", to_all(IP6, &mld_bare(lla, 143, &report)), drop(R::MulticastReport)),
        ("MLD report, bare, ::", to_all(IP6, &mld_bare(NONE6, 143, &report)), drop(R::Ip6Unspecified)),
    ];
    rows.extend(
        [130, 134, 137, 138, 146, 147, 151, 152, 153]
            .map(|kind| ("router message", nd(lla, ALL_NODES, kind, &[0; 36]), drop(R::RouterMessage))),
    );
    check(&PortRole::Bound(bound_port()), &rows);
}

#[test]
fn neighbour_discovery_of_a_bound_port() {
    let (own, lla) = (a6(10), local(ME));
    let ns = |from, target, options: &[u8]| nd(from, solicited_node(target), 135, &nd_body(0, target, options));
    let na = |target, options: &[u8]| nd(own, ALL_NODES, 136, &nd_body(0x20, target, options));
    let rs = |from, options: &[u8]| nd(from, ALL_ROUTERS, 133, &[&[0; 4], options].concat());
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let both = |first: &[u8], kind, mac| [first, &lladdr_option(kind, mac)].concat();
    let odd = Verdict::Either(Useless::OddOptions);
    let rows = vec![
        ("NS, own SLLA", ns(own, a6(1), &lladdr_option(1, ME)), PASS),
        ("NS, no SLLA", ns(lla, a6(1), &[]), PASS),
        ("NS, foreign SLLA", ns(own, a6(1), &lladdr_option(1, VICTIM)), drop(R::DiscoveryForeign)),
        ("NS, foreign behind another", ns(own, a6(1), &both(&nonce, 1, VICTIM)), drop(R::DiscoveryForeign)),
        ("NS, foreign TLLA", ns(own, a6(1), &both(&nonce, 2, VICTIM)), drop(R::DiscoveryForeign)),
        ("NS, own behind another", ns(own, a6(1), &both(&nonce, 1, ME)), PASS),
        ("NS, own behind a long one", ns(own, a6(1), &both(&[253, 3, 1, 1].repeat(6), 1, ME)), PASS),
        ("NS, own behind seven others", ns(own, a6(1), &both(&nonce.repeat(7), 1, ME)), PASS),
        ("NS, nine options", ns(own, a6(1), &both(&nonce.repeat(8), 1, ME)), drop(R::DiscoveryForm)),
        (
            "NS, an option of no length",
            ns(own, a6(1), &both(&[14, 0, 0, 0, 0, 0, 0, 0], 1, ME)),
            drop(R::DiscoveryForm),
        ),
        ("NS, a later one of no length", ns(own, a6(1), &both(&[nonce, [9; 8]].concat(), 1, ME)), odd),
        ("NS, own TLLA", ns(own, a6(1), &lladdr_option(2, ME)), drop(R::DiscoveryForm)),
        ("NS, own TLLA behind another", ns(own, a6(1), &both(&nonce, 2, ME)), odd),
        ("NA, own behind another", na(own, &both(&nonce, 2, ME)), PASS),
        ("NA, foreign behind another", na(own, &both(&nonce, 2, VICTIM)), drop(R::DiscoveryForeign)),
        ("RS, own behind another", rs(lla, &both(&nonce, 1, ME)), PASS),
        ("RS, foreign behind another", rs(lla, &both(&nonce, 1, VICTIM)), drop(R::DiscoveryForeign)),
        ("RS from ::, nonce", rs(NONE6, &nonce), PASS),
        ("DAD, own, two others", ns(NONE6, own, &nonce.repeat(2)), PASS),
        ("DAD, own, foreign behind another", ns(NONE6, own, &both(&nonce, 1, VICTIM)), drop(R::DiscoveryForeign)),
        ("NS, foreign source", ns(a6(11), a6(1), &[]), drop(R::Ip6Source)),
        ("DAD, own", ns(NONE6, own, &[]), PASS),
        ("DAD, own, nonce", ns(NONE6, own, &nonce), PASS),
        ("DAD, own, SLLA", ns(NONE6, own, &lladdr_option(1, ME)), drop(R::DiscoveryForm)),
        ("DAD, foreign", ns(NONE6, a6(11), &[]), drop(R::DiscoveryForeign)),
        ("DAD to one", nd(NONE6, a6(1), 135, &nd_body(0, own, &[])), drop(R::DiscoveryForm)),
        ("NA, own TLLA", na(own, &lladdr_option(2, ME)), PASS),
        ("NA, no TLLA", na(lla, &[]), PASS),
        ("NA, foreign target", na(a6(11), &lladdr_option(2, ME)), drop(R::DiscoveryForeign)),
        ("NA, foreign TLLA", na(own, &lladdr_option(2, VICTIM)), drop(R::DiscoveryForeign)),
        ("RS", rs(lla, &lladdr_option(1, ME)), PASS),
        ("RS from ::", rs(NONE6, &[]), PASS),
        ("RS, foreign SLLA", rs(lla, &lladdr_option(1, VICTIM)), drop(R::DiscoveryForeign)),
        ("RS, global source", rs(own, &[]), drop(R::DiscoveryForm)),
        ("RS from ::, SLLA", rs(NONE6, &lladdr_option(1, ME)), drop(R::Ip6Unspecified)),
    ];
    check(&PortRole::Bound(bound_port()), &rows);
    let free = |text: &str| v6(text.parse().unwrap(), UDP, 64, &udp(1, 2, b""));
    let rows = vec![
        ("chosen link-local", free("fe80::1234:5678:9abc:def0"), PASS),
        ("a router's", free("fe80::1"), drop(R::Ip6Source)),
        ("the victim's", v6(local(VICTIM), UDP, 64, &udp(1, 2, b"")), drop(R::Ip6Source)),
        ("of another MAC", v6(local(STRANGER), UDP, 64, &udp(1, 2, b"")), drop(R::Ip6Source)),
    ];
    check(&PortRole::Bound(BoundPort { any_link_local: true, ..bound_port() }), &rows);
}

#[test]
fn a_trunk_sends_in_its_vlans() {
    let port = PortRole::Bound(BoundPort { trunk: [30].into(), ..bound_port() });
    let good = arp(Arp::request((ME, a4(10)), a4(1)));
    let bad = arp(Arp::request((ME, a4(11)), a4(1)));
    let rows = vec![
        ("its VLAN", tagged(0x8100, 30, &good), PASS),
        ("its VLAN, a claim", tagged(0x8100, 30, &bad), drop(R::ArpForeign)),
        ("another VLAN", tagged(0x8100, 31, &good), drop(R::Tag)),
        ("priority", tagged(0x8100, 0, &good), drop(R::Tag)),
        ("service tag", tagged(0x88a8, 30, &good), drop(R::Tag)),
        ("a second tag", tagged(0x8100, 30, &tagged(0x8100, 30, &good)), drop(R::Tag)),
        ("SNAP inside", tagged(0x8100, 30, &snap(&good)), drop(R::Ethertype)),
    ];
    check(&port, &rows);
}

/// Claims of one address, with whatever hides them.
fn claims(v4_address: Ipv4Addr, v6_address: Ipv6Addr) -> Vec<(&'static str, Vec<u8>)> {
    let from = |frame: &[u8]| [&frame[..6], &STRANGER[..], &frame[12..]].concat();
    let (other4, other6) = (Ipv4Addr::new(192, 0, 2, 9), Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 9));
    let na = icmp6(other6, ALL_NODES, 136, &nd_body(0x20, v6_address, &[]));
    let plain = [
        ("IPv4", from(&v4(v4_address, ALL, UDP, 0, &udp(1, 2, b"")))),
        ("IPv4 later fragment", from(&v4(v4_address, ALL, UDP, 185, &[0; 8]))),
        ("ARP", from(&arp(Arp::request((STRANGER, v4_address), other4)))),
        ("ARP probe", from(&arp(Arp::request((STRANGER, NONE), v4_address)))),
        ("IPv6", from(&v6(v6_address, UDP, 64, &udp(1, 2, b"")))),
        ("NA", from(&v6(other6, ICMP6, 255, &na))),
        ("NA behind options", from(&behind(other6, 60, options_header(ICMP6), &na))),
        ("DAD", from(&nd(NONE6, solicited_node(v6_address), 135, &nd_body(0, v6_address, &[])))),
    ];
    let tagged_claims = plain.iter().map(|(name, frame)| (*name, tagged(0x8100, 0, frame)));
    let in_vlan = plain.iter().map(|(name, frame)| (*name, tagged(0x8100, 10, frame)));
    let all: Vec<_> = tagged_claims.chain(in_vlan).collect();
    plain.into_iter().chain(all).collect()
}

#[test]
fn what_others_must_not_claim() {
    let guest = PortRole::Guest { router: false };
    for (v4_address, v6_address, for_guest, for_uplink) in [
        (a4(11), a6(11), drop(R::BoundAddress), drop(R::BoundAddress)),
        (a4(16), a6(16), drop(R::ReservedAddress), PASS),
        (a4(20), a6(20), drop(R::ReservedAddress), PASS),
        (a4(1), a6(1), drop(R::InfrastructureAddress), PASS),
        (Ipv4Addr::new(192, 0, 2, 7), "2001:db8:ffff::7".parse().unwrap(), PASS, PASS),
    ] {
        let rows = |wanted| {
            claims(v4_address, v6_address).into_iter().map(|(name, frame)| (name, frame, wanted)).collect::<Vec<Row>>()
        };
        check(&guest, &rows(for_guest));
        check(&PortRole::Uplink, &rows(for_uplink));
        check(&PortRole::Free, &rows(PASS));
        check(&PortRole::SecondTraversal, &rows(PASS));
    }
    for (mac, for_guest, for_uplink) in [
        (VICTIM, drop(R::BoundMac), drop(R::BoundMac)),
        (ELSEWHERE, drop(R::ReservedMac), PASS),
        (GATEWAY, drop(R::InfrastructureMac), PASS),
        (STRANGER, PASS, PASS),
    ] {
        let as_source = ether(BROADCAST, mac, 0x88b6, b"data");
        let in_arp = ether(BROADCAST, STRANGER, ARP, &Arp::request((mac, Ipv4Addr::new(192, 0, 2, 7)), a4(1)).bytes());
        let rows = |wanted| vec![("source MAC", as_source.clone(), wanted), ("SHA", in_arp.clone(), wanted)];
        check(&guest, &rows(for_guest));
        check(&PortRole::Uplink, &rows(for_uplink));
        let own = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 9);
        let from = |frame: &[u8]| [&frame[..6], &STRANGER[..], &frame[12..]].concat();
        let rarp = Arp { operation: 3, target: (mac, NONE), ..Arp::request((STRANGER, NONE), NONE) };
        let inside = [
            ("RARP", ether(BROADCAST, STRANGER, 0x8035, &rarp.bytes())),
            ("RS", from(&nd(own, ALL_ROUTERS, 133, &[&[0; 4], &lladdr_option(1, mac)[..]].concat()))),
            ("NS", from(&nd(own, ALL_NODES, 135, &nd_body(0, a6(1), &lladdr_option(1, mac))))),
            ("NA", from(&nd(own, ALL_NODES, 136, &nd_body(0, own, &lladdr_option(2, mac))))),
        ];
        let rows = |wanted| inside.clone().map(|(name, frame)| (name, frame, wanted));
        check(&guest, &rows(for_guest));
        check(&PortRole::Uplink, &rows(PASS));
    }
}

#[test]
fn what_could_hide_a_claim() {
    let claim = ether(BROADCAST, STRANGER, ARP, &Arp::request((STRANGER, a4(11)), a4(1)).bytes());
    let harmless4 = Ipv4Addr::new(192, 0, 2, 9);
    let honest = ether(BROADCAST, STRANGER, ARP, &Arp::request((STRANGER, harmless4), a4(1)).bytes());
    let harmless6 = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 9);
    let na = |target| icmp6(harmless6, ALL_NODES, 136, &nd_body(0x20, target, &[]));
    let fragment = |target| behind(harmless6, 44, fragment_header(ICMP6, 0, false), &na(target));
    let from = |frame: &[u8]| [&frame[..6], &STRANGER[..], &frame[12..]].concat();
    let deep = [&fragment_header(ICMP6, 0, false)[..], &na(harmless6)].concat();
    let deep = behind(harmless6, 60, options_header(44), &deep);
    let rows = || {
        vec![
            ("QinQ", tagged(0x88a8, 10, &tagged(0x8100, 20, &claim)), drop(R::BoundAddress)),
            ("two priority tags", tagged(0x8100, 0, &tagged(0x8100, 0, &claim)), drop(R::BoundAddress)),
            ("0x9100", tagged(0x9100, 0, &claim), drop(R::BoundAddress)),
            ("SNAP", snap(&claim), drop(R::BoundAddress)),
            ("QinQ without a claim", tagged(0x88a8, 10, &tagged(0x8100, 20, &honest)), PASS),
            ("0x9100 without a claim", tagged(0x9100, 10, &honest), PASS),
            ("802.1ad without a claim", tagged(0x88a8, 10, &honest), PASS),
            ("SNAP without a claim", snap(&honest), PASS),
            ("three tags", tagged(0x8100, 1, &tagged(0x8100, 2, &tagged(0x8100, 3, &honest))), drop(R::Hidden)),
            ("SNAP of something else", snap(&ether(BROADCAST, STRANGER, 0x80f3, b"AARP")), PASS),
            (
                "SNAP behind a tag, of something else",
                tagged(0x8100, 10, &snap(&ether(BROADCAST, STRANGER, 0x80f3, b"AARP"))),
                PASS,
            ),
            ("SNAP behind a tag without a claim", tagged(0x8100, 10, &snap(&honest)), drop(R::Hidden)),
            ("SNAP behind a tag", tagged(0x8100, 10, &snap(&claim)), drop(R::Hidden)),
            ("v4-mapped", from(&v6(a4(11).to_ipv6_mapped(), UDP, 64, &udp(1, 2, b""))), drop(R::Hidden)),
            ("ARP with 8-byte MACs", ether(BROADCAST, STRANGER, ARP, &[0, 1, 8, 0, 8, 4, 0, 2]), drop(R::Unreadable)),
            ("IPv6 chain cut", from(&v6(harmless6, 60, 64, &[58])), drop(R::Unreadable)),
            ("NA in a fragment", from(&fragment(a6(11))), drop(R::BoundAddress)),
            ("harmless NA in a fragment", from(&fragment(harmless6)), drop(R::Unreadable)),
            ("the same behind a tag", tagged(0x8100, 0, &from(&fragment(harmless6))), drop(R::Unreadable)),
            ("the same behind options", tagged(0x8100, 0, &from(&deep)), Verdict::Either(Useless::FragmentedDiscovery)),
            (
                "an NA cut before its target",
                from(&v6(harmless6, ICMP6, 255, &na(harmless6)[..16])),
                drop(R::Unreadable),
            ),
        ]
    };
    check(&PortRole::Guest { router: false }, &rows());
    check(&PortRole::Uplink, &rows());
}

#[test]
fn only_routers_route() {
    let from = |frame: &[u8]| [&frame[..6], &STRANGER[..], &frame[12..]].concat();
    let lla = local(STRANGER);
    let messages = [
        ("RA", from(&nd(lla, ALL_NODES, 134, &ra_body(&[]))), R::RogueRouter),
        ("redirect", from(&nd(lla, ALL_NODES, 137, &[0; 36])), R::RogueRouter),
        ("DHCP answer", from(&v4(Ipv4Addr::new(192, 0, 2, 9), ALL, UDP, 0, &udp(67, 68, b""))), R::RogueDhcp),
        ("DHCPv6 answer", from(&v6(lla, UDP, 64, &udp(547, 546, b""))), R::RogueDhcp),
    ];
    for (name, frame, reason) in messages {
        let tag = |vlan| tagged(0x8100, vlan, &frame);
        let rows = |wanted| vec![(name, frame.clone(), wanted), (name, tag(0), wanted), (name, tag(10), PASS)];
        check(&PortRole::Guest { router: false }, &rows(drop(reason)));
        check(&PortRole::Guest { router: true }, &rows(PASS));
        check(&PortRole::Elsewhere, &rows(PASS));
        check(&PortRole::Uplink, &rows(PASS));
    }
}

#[test]
fn packets_come_back_from_the_gateway() {
    let returning = Bindings { returning: [MacAddr::from_octets(GATEWAY)].into(), ..bindings() };
    let by = |mac: Mac, frame: &[u8]| [&frame[..6], &mac[..], &frame[12..]].concat();
    let packet = v4(a4(11), a4(10), UDP, 0, &udp(1, 2, b""));
    let claim = arp(Arp::request((GATEWAY, a4(11)), a4(10)));
    let dropped = drop(R::BoundAddress);
    for (frame, port, wanted) in [
        (by(GATEWAY, &packet), PortRole::Uplink, PASS),
        (by(STRANGER, &packet), PortRole::Uplink, dropped),
        (by(GATEWAY, &claim), PortRole::Uplink, dropped),
        (by(GATEWAY, &packet), PortRole::Guest { router: false }, drop(R::InfrastructureMac)),
    ] {
        assert_eq!(verdict(&frame, &port, &returning), wanted, "{port:?}");
    }
}

/// Where no pool is, somebody else may have what gateways and the node have; what guests hold is theirs everywhere.
#[test]
fn elsewhere_only_what_is_held_is_protected() {
    let by = |mac: Mac, frame: &[u8]| [&frame[..6], &mac[..], &frame[12..]].concat();
    let claim = |mac: Mac, address| by(mac, &arp(Arp::request((mac, address), a4(9))));
    let inside =
        by(STRANGER, &nd(local(STRANGER), ALL_NODES, 136, &nd_body(0x20, local(STRANGER), &lladdr_option(2, GATEWAY))));
    for (name, frame, guest) in [
        ("the gateway's address", claim(STRANGER, a4(1)), drop(R::InfrastructureAddress)),
        ("the gateway's MAC", claim(GATEWAY, Ipv4Addr::new(192, 0, 2, 9)), drop(R::InfrastructureMac)),
        ("the gateway's MAC inside", inside, drop(R::InfrastructureMac)),
        ("both", claim(GATEWAY, a4(1)), drop(R::InfrastructureMac)),
        (
            "both behind two tags",
            tagged(0x8100, 5, &tagged(0x8100, 6, &claim(GATEWAY, a4(1)))),
            drop(R::InfrastructureMac),
        ),
    ] {
        assert_eq!(verdict(&frame, &PortRole::Guest { router: true }, &bindings()), guest, "{name}");
        assert_eq!(verdict(&frame, &PortRole::Elsewhere, &bindings()), PASS, "{name}");
    }
    for (name, frame, wanted) in [
        ("a bound address", claim(STRANGER, a4(10)), drop(R::BoundAddress)),
        ("an unassigned address", claim(STRANGER, a4(20)), drop(R::ReservedAddress)),
        ("a bound MAC", claim(ME, Ipv4Addr::new(192, 0, 2, 9)), drop(R::BoundMac)),
    ] {
        assert_eq!(verdict(&frame, &PortRole::Elsewhere, &bindings()), wanted, "{name}");
    }
}

#[test]
fn reasons_are_sentences() {
    for reason in Reason::ALL {
        let sentence = reason.sentence();
        assert!(sentence.ends_with('.') && sentence.starts_with(char::is_uppercase), "{sentence}");
    }
}

/// What leaves by another port: to a guest only what is addressed to it, to the provider only MACs that it knows.
#[test]
fn what_is_delivered() {
    let data = udp(1, 2, b"data");
    let to =
        |mac, address: Ipv4Addr| ether(mac, STRANGER, IP4, &ip4(Ipv4Addr::new(192, 0, 2, 1), address, UDP, 0, &data));
    let packet6 = |address| ip6("2001:db8:ffff::1".parse().unwrap(), address, UDP, 64, &data);
    let to6 = |mac, address: Ipv6Addr| ether(mac, STRANGER, IP6, &packet6(address));
    let local6 = |mac: [u8; 6]| MacAddr::from_octets(mac).link_local();
    let strict = PortRole::Bound(bound_port());
    let loose = PortRole::Bound(BoundPort { strict: false, ..bound_port() });
    let listening = PortRole::Bound(BoundPort { advertisements: true, ..bound_port() });
    let ra = nd(local(GATEWAY), ALL_NODES, 134, &ra_body(&[]));
    let other = PortRole::Guest { router: false };
    let (random, group) = (Ipv4Addr::new(198, 18, 0, 9), Ipv4Addr::new(224, 0, 0, 251));
    let cut = ether(ME, STRANGER, IP4, &[0x45; 12]);
    for (name, port, frame, wanted) in [
        ("its own", &strict, to(ME, a4(10)), Ok(())),
        ("its prefix", &strict, to(ME, Ipv4Addr::new(198, 51, 100, 12)), Ok(())),
        ("a group", &strict, to(ME, group), Ok(())),
        ("everybody", &strict, to(ME, Ipv4Addr::BROADCAST), Ok(())),
        ("another's address", &strict, to(ME, a4(11)), Err(Reason::ForeignAddress)),
        ("a random address", &strict, to(ME, random), Err(Reason::ForeignAddress)),
        ("a header that ends early", &strict, cut.clone(), Err(Reason::ForeignAddress)),
        ("another MAC", &strict, to(VICTIM, a4(10)), Err(Reason::ForeignMac)),
        ("broadcast", &strict, to(BROADCAST, Ipv4Addr::BROADCAST), Ok(())),
        ("broadcast of a subnet", &strict, to(BROADCAST, a4(255)), Ok(())),
        ("broadcast of a subnet to its MAC", &strict, to(ME, a4(255)), Err(Reason::ForeignAddress)),
        ("its own, to everybody", &strict, to(BROADCAST, a4(10)), Ok(())),
        ("another's, to everybody", &strict, to(BROADCAST, a4(11)), Err(Reason::ForeignAddress)),
        ("a random one, to a group", &strict, to([1, 0, 0x5e, 0, 0, 1], random), Err(Reason::ForeignAddress)),
        ("another's, to everybody, all of it", &loose, to(BROADCAST, a4(11)), Ok(())),
        ("its own IPv6, to everybody", &strict, to6(BROADCAST, a6(10)), Ok(())),
        ("another IPv6, to everybody", &strict, to6(BROADCAST, a6(11)), Err(Reason::ForeignAddress)),
        ("router advertisement", &strict, ra.clone(), Err(Reason::Advertisement)),
        ("router advertisement, all of it", &loose, ra.clone(), Err(Reason::Advertisement)),
        ("router advertisement, wanted", &listening, ra.clone(), Ok(())),
        ("router advertisement, others", &other, ra, Ok(())),
        ("its own IPv6", &strict, to6(ME, a6(10)), Ok(())),
        ("its link-local", &strict, to6(ME, local6(ME)), Ok(())),
        ("another link-local", &strict, to6(ME, local6(VICTIM)), Err(Reason::ForeignAddress)),
        ("another IPv6", &strict, to6(ME, a6(11)), Err(Reason::ForeignAddress)),
        ("in a priority tag", &strict, tagged(VLAN, 0, &to(ME, random)), Err(Reason::ForeignAddress)),
        ("all of it", &loose, to(VICTIM, random), Ok(())),
        ("a bound address", &other, to(STRANGER, a4(10)), Err(Reason::ProtectedAddress)),
        ("an unassigned address", &other, to(STRANGER, a4(20)), Err(Reason::ProtectedAddress)),
        ("a bound link-local", &other, to6(STRANGER, local6(ME)), Err(Reason::ProtectedAddress)),
        ("the gateway's address", &other, to(STRANGER, a4(1)), Ok(())),
        ("a random address", &other, to(STRANGER, random), Ok(())),
        ("a header that ends early", &other, cut, Ok(())),
        ("a router", &PortRole::Guest { router: true }, to(STRANGER, a4(10)), Ok(())),
        ("an unknown MAC", &PortRole::Uplink, to(GATEWAY, random), Err(Reason::UnregisteredMac)),
    ] {
        let wanted = wanted.map_or_else(Verdict::Drop, |()| Verdict::Pass);
        assert_eq!(delivery(&frame, &other, port, &bindings()), wanted, "{name} to {port:?}");
    }
    let passes = |frame: &[u8], from, bindings: &Bindings| delivery(frame, from, &PortRole::Uplink, bindings);
    let known = ether(GATEWAY, ME, 0x88b6, b"anything");
    assert_eq!(passes(&known, &strict, &bindings()), Verdict::Pass, "a registered MAC");
    let unknown = to(GATEWAY, random);
    assert_eq!(passes(&unknown, &PortRole::Uplink, &bindings()), Verdict::Pass, "from one uplink to another");
    let unguarded = Bindings { registered: None, ..bindings() };
    assert_eq!(passes(&unknown, &other, &unguarded), Verdict::Pass, "no guard");
}
