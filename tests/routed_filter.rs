//! The filter of routed traffic on a real kernel: who may send what through the node and to it, whichever program filters.
//!
//! Needs root, `nft`, `ip` and `bridge`; a missing one is a failure, never a skipped test.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "kernel/lab.rs"]
#[expect(dead_code, reason = "shared with the other tests of the kernel")]
mod lab;

use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use pve_public_ip::selftest::frames::{self, BROADCAST, Mac};

use lab::{Lab, NODE, nft, sh, text, try_sh, write};

const PORT: u16 = 4001;
/// MACs of the node where packets reach it.
const BRIDGE: Mac = [2, 0, 0, 0, 0xb1, 0];
const OTHER_BRIDGE: Mac = [2, 0, 0, 0, 0xb2, 0];
const CARD: Mac = [2, 0, 0, 0, 0xe0, 1];
/// Beyond the uplink.
const PROVIDER: Mac = [2, 0, 0, 0, 0xff, 1];
const WORLD4: &str = "198.18.0.9";
const WORLD6: &str = "2001:db8:ffff::9";

const fn mac(vmid: u8) -> Mac {
    [2, 0, 0, 0, 0, vmid]
}

/// Guests 100 and 101 with neighbouring addresses, 100 with prefixes as well, and guest 200 without addresses on
/// vmbr1; guest 201 on vmbr2, which carries no pool; the uplink is a card of its own.
fn node() -> Lab {
    let mut lab = Lab::new();
    for parameter in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        write(&format!("/proc/sys/{parameter}"), "1");
    }
    for (bridge, mac) in [("vmbr1", BRIDGE), ("vmbr2", OTHER_BRIDGE)] {
        Lab::bridge(bridge);
        sh(&format!("ip link set {bridge} address {}", text(mac)));
    }
    sh("ip link del vmbr0
        ip addr add 10.1.0.1/24 dev vmbr1; ip addr add fd00:1::1/64 dev vmbr1 nodad
        ip addr add 10.2.0.1/24 dev vmbr2; ip addr add fd00:2::1/64 dev vmbr2 nodad");
    for (vmid, bridge) in [(100, "vmbr1"), (101, "vmbr1"), (200, "vmbr1"), (201, "vmbr2")] {
        lab.guest(NODE, "qemu-server", vmid, &format!("net0: virtio={},bridge={bridge}\n", text(guest(vmid))));
        lab.plug(&format!("tap{vmid}i0"), bridge, guest(vmid));
    }
    lab.plug("eno1", "vmbr1", PROVIDER);
    sh("ip link set eno1 nomaster");
    write("/proc/sys/net/ipv6/conf/eno1/disable_ipv6", "0");
    sh(&format!(
        "ip addr add 198.18.0.1/16 dev eno1; ip addr add 2001:db8:ffff::1/64 dev eno1 nodad
         ip route add default via 198.18.0.254; ip -6 route add default via 2001:db8:ffff::fe
         for ip in {WORLD4} {WORLD6} 198.18.0.254 2001:db8:ffff::fe; do
             ip neigh add $ip lladdr {} dev eno1 nud permanent
         done",
        text(PROVIDER)
    ));
    lab.ok("pool create net --profile hetzner-routed --uplink-guard report --bridge vmbr1 203.0.113.8/29 198.51.100.8/29 2001:db8:1::/64 2001:db8:100::/56 2001:db8:200::/64");
    lab.ok("assign 100 203.0.113.10 2001:db8:1::10 198.51.100.8/29 2001:db8:100::/56 2001:db8:200::/64");
    lab.ok("assign 101 203.0.113.11 2001:db8:1::11");
    lab.ok("apply");
    lab.ok("verify");
    lab
}

fn guest(vmid: u32) -> Mac {
    mac(u8::try_from(vmid).unwrap())
}

/// A packet in a frame; `mark` is in its data.
fn packet(from_mac: Mac, to_mac: Mac, from: &str, to: &str, mark: &str) -> Vec<u8> {
    let data = frames::udp(4000, PORT, mark.as_bytes());
    match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frames::ether(to_mac, from_mac, frames::IP4, &frames::ip4(from, to, frames::UDP, 0, &data))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let data = frames::with_checksum6(from, to, frames::UDP, data, 6);
            frames::ether(to_mac, from_mac, frames::IP6, &frames::ip6(from, to, frames::UDP, 64, &data))
        }
        _ => panic!("{from} and {to} are of two families"),
    }
}

/// Where the packets with this mark arrive.
struct Ears<'a> {
    lab: &'a Lab,
    node: UdpSocket,
    count: u32,
}

impl<'a> Ears<'a> {
    fn new(lab: &'a Lab) -> Self {
        // Hears both families.
        let node = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap();
        node.set_nonblocking(true).unwrap();
        Self { lab, node, count: 0 }
    }

    /// Sends a packet and says who got it.
    fn play(&mut self, port: &str, from_mac: Mac, to_mac: Mac, from: &str, to: &str) -> Vec<String> {
        self.count += 1;
        let mark = format!("packet {:06}", self.count);
        let frame = packet(from_mac, to_mac, from, to, &mark);
        self.lab.end(port).wire.send(&frame);
        // The sender's processor carries it all the way; it is there when `send` returns.
        let mut seen = Vec::new();
        for end in self.lab.ends.values().filter(|end| end.port != port) {
            while let Some(bytes) = end.wire.receive(Duration::ZERO) {
                if carries(&bytes, &mark) {
                    seen.push(end.port.clone());
                }
            }
        }
        // Back to where it came from, in a frame of the node's own; a complaint of the node has the packet in it, too.
        while let Some(bytes) = self.lab.end(port).wire.receive(Duration::ZERO) {
            let protocol = if bytes[12..14] == frames::IP4.to_be_bytes() { bytes[23] } else { bytes[20] };
            if bytes[6..12] != from_mac && protocol == frames::UDP && carries(&bytes, &mark) {
                seen.push(port.to_owned());
            }
        }
        let mut buffer = [0; 100];
        while let Ok(length) = self.node.recv(&mut buffer) {
            if &buffer[..length] == mark.as_bytes() {
                seen.push("node".to_owned());
            }
        }
        seen
    }
}

fn carries(frame: &[u8], mark: &str) -> bool {
    frame.windows(mark.len()).any(|part| part == mark.as_bytes())
}

/// What is sent: port, MAC, to which MAC, from where, to where; and who must get it.
type Row = (&'static str, Mac, Mac, &'static str, &'static str, &'static str);

/// What must arrive, with and without the bridge table.
fn must_pass() -> Vec<Row> {
    let mut rows = vec![
        // Their own, to the world, to the node, to each other by way of the node, from the world.
        ("tap100i0", mac(100), BRIDGE, "203.0.113.10", WORLD4, "eno1"),
        ("tap100i0", mac(100), BRIDGE, "2001:db8:1::10", WORLD6, "eno1"),
        ("tap101i0", mac(101), BRIDGE, "203.0.113.11", WORLD4, "eno1"),
        ("tap101i0", mac(101), BRIDGE, "2001:db8:1::11", WORLD6, "eno1"),
        ("tap100i0", mac(100), BRIDGE, "203.0.113.10", "10.1.0.1", "node"),
        ("tap100i0", mac(100), BRIDGE, "2001:db8:1::10", "fd00:1::1", "node"),
        ("tap100i0", mac(100), BRIDGE, "203.0.113.10", "203.0.113.11", "tap101i0"),
        ("tap100i0", mac(100), BRIDGE, "2001:db8:1::10", "2001:db8:1::11", "tap101i0"),
        ("eno1", PROVIDER, CARD, WORLD4, "203.0.113.10", "tap100i0"),
        ("eno1", PROVIDER, CARD, WORLD6, "2001:db8:1::11", "tap101i0"),
        // Directly.
        ("tap100i0", mac(100), mac(101), "203.0.113.10", "203.0.113.11", "tap101i0"),
        // Prefixes, first and last address.
        ("tap100i0", mac(100), BRIDGE, "198.51.100.8", WORLD4, "eno1"),
        ("tap100i0", mac(100), BRIDGE, "198.51.100.15", WORLD4, "eno1"),
        ("tap100i0", mac(100), BRIDGE, "2001:db8:100:ff::1", WORLD6, "eno1"),
        ("tap100i0", mac(100), BRIDGE, "2001:db8:200::ffff", WORLD6, "eno1"),
        ("eno1", PROVIDER, CARD, WORLD4, "198.51.100.9", "tap100i0"),
        ("eno1", PROVIDER, CARD, WORLD6, "2001:db8:200::1", "tap100i0"),
        // Guests without public addresses, in the networks that the node has there.
        ("tap200i0", mac(200), BRIDGE, "10.1.0.5", WORLD4, "eno1"),
        ("tap200i0", mac(200), BRIDGE, "10.1.0.5", "10.1.0.1", "node"),
        ("tap200i0", mac(200), BRIDGE, "fd00:1::5", "fd00:1::1", "node"),
        ("tap200i0", mac(200), BRIDGE, "fe80::ff:fe00:c8", "fd00:1::1", "node"),
        ("tap201i0", mac(201), OTHER_BRIDGE, "10.2.0.5", WORLD4, "eno1"),
        ("tap201i0", mac(201), OTHER_BRIDGE, "10.2.0.5", "203.0.113.10", "tap100i0"),
        // DHCP; and what is only bridged is none of this filter's business.
        ("tap200i0", mac(200), BROADCAST, "0.0.0.0", "255.255.255.255", "node"),
        ("tap200i0", mac(200), mac(100), "172.16.5.5", "203.0.113.10", "tap100i0"),
    ];
    // Of an address that is not bound here the guest may be on another node.
    rows.push(("eno1", PROVIDER, CARD, "203.0.113.14", "203.0.113.10", "tap100i0"));
    rows.push(("eno1", PROVIDER, CARD, "2001:db8:1::14", "2001:db8:1::10", "tap100i0"));
    rows
}

/// What must not.
fn must_drop() -> Vec<Row> {
    let mut rows = Vec::new();
    // The neighbour's, a prefix's, what nobody has, also with the owner's MAC from another port.
    for (from, to, node) in [
        ("203.0.113.10", WORLD4, "10.1.0.1"),
        ("203.0.113.14", WORLD4, "10.1.0.1"),
        ("198.51.100.9", WORLD4, "10.1.0.1"),
        ("2001:db8:1::10", WORLD6, "fd00:1::1"),
        ("2001:db8:1::14", WORLD6, "fd00:1::1"),
        ("2001:db8:100:7::1", WORLD6, "fd00:1::1"),
        ("2001:db8:200::1", WORLD6, "fd00:1::1"),
    ] {
        for (port, mac, bridge) in
            [("tap101i0", mac(101), BRIDGE), ("tap200i0", mac(200), BRIDGE), ("tap201i0", mac(201), OTHER_BRIDGE)]
        {
            rows.push((port, mac, bridge, from, to, ""));
            rows.push((port, mac, bridge, from, node, ""));
        }
    }
    // From outside, what is bound here: to a guest and to the node.
    for (from, to, node) in [
        ("203.0.113.10", "203.0.113.11", "198.18.0.1"),
        ("198.51.100.9", "203.0.113.11", "198.18.0.1"),
        ("2001:db8:1::10", "2001:db8:1::11", "2001:db8:ffff::1"),
        ("2001:db8:100::9", "2001:db8:1::11", "2001:db8:ffff::1"),
        ("2001:db8:200::9", "2001:db8:1::11", "2001:db8:ffff::1"),
    ] {
        rows.push(("eno1", PROVIDER, CARD, from, to, ""));
        rows.push(("eno1", PROVIDER, CARD, from, node, ""));
    }
    // No way back: what the node routes elsewhere.
    for (from, to, node) in [("172.16.5.5", WORLD4, "10.1.0.1"), ("2001:db8:eeee::5", WORLD6, "fd00:1::1")] {
        rows.push(("tap200i0", mac(200), BRIDGE, from, to, ""));
        rows.push(("tap200i0", mac(200), BRIDGE, from, node, ""));
    }
    rows.push(("tap200i0", mac(200), BRIDGE, "10.2.0.7", WORLD4, ""));
    // Round and round: to what nobody has.
    rows.push(("eno1", PROVIDER, CARD, WORLD4, "203.0.113.14", ""));
    rows.push(("eno1", PROVIDER, CARD, WORLD6, "2001:db8:1::14", ""));
    rows
}

fn play(lab: &Lab, what: &str) {
    let mut ears = Ears::new(lab);
    let (mut wrong, mut played) = (Vec::new(), 0);
    for row in must_pass().into_iter().chain(must_drop()) {
        let (port, from_mac, to_mac, from, to, receiver) = row;
        let seen = ears.play(port, from_mac, to_mac, from, to);
        let is_right = if receiver.is_empty() { seen.is_empty() } else { seen.iter().any(|one| one == receiver) };
        if !is_right {
            wrong.push(format!("{port} {} {from} -> {to}: seen by {seen:?}, not `{receiver}`", text(from_mac)));
        }
        played += 1;
    }
    assert!(played > 70, "{played}");
    assert!(wrong.is_empty(), "{what}: {} of {played}:\n{}", wrong.len(), wrong.join("\n"));
}

fn set_br_netfilter(on: bool) {
    for name in ["iptables", "ip6tables", "arptables"] {
        write(&format!("/proc/sys/net/bridge/bridge-nf-call-{name}"), if on { "1" } else { "0" });
    }
}

/// With both lines, and with the second alone; with and without `br_netfilter`.
fn play_all_ways(lab: &mut Lab, what: &str) {
    settle(lab);
    play(lab, &format!("{what}, both lines"));
    set_br_netfilter(true);
    play(lab, &format!("{what}, both lines, br_netfilter"));
    nft("flush table bridge pve-public-ip");
    play(lab, &format!("{what}, br_netfilter"));
    set_br_netfilter(false);
    play(lab, what);
    lab.ok("apply");
}

/// Waits until every port forwards.
fn settle(lab: &Lab) {
    let mut ears = Ears::new(lab);
    for (port, from, to) in [
        ("tap100i0", "203.0.113.10", BRIDGE),
        ("tap101i0", "203.0.113.11", BRIDGE),
        ("tap200i0", "10.1.0.5", BRIDGE),
        ("tap201i0", "10.2.0.5", OTHER_BRIDGE),
    ] {
        let arrives = |ears: &mut Ears| {
            let from_mac = ears.lab.end(port).mac;
            ears.play(port, from_mac, to, from, WORLD4).iter().any(|seen| seen == "eno1")
        };
        let mut left = 500;
        while !arrives(&mut ears) {
            left -= 1;
            assert!(left > 0, "nothing from {port} arrives");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn packets_meet_their_fate_by_nftables() {
    let mut lab = node();
    play_all_ways(&mut lab, "nftables");
}

#[test]
fn without_the_filter_they_all_pass() {
    let lab = node();
    settle(&lab);
    nft("flush ruleset");
    let mut ears = Ears::new(&lab);
    let arrived = must_drop()
        .into_iter()
        .filter(|(port, from_mac, to_mac, from, to, _)| !ears.play(port, *from_mac, *to_mac, from, to).is_empty());
    // Linux itself refuses some: it has a route to their source that leads elsewhere, or an address of its own.
    assert!(arrived.count() * 10 > must_drop().len() * 8, "what is dropped above is not dropped by the filter");
}

fn members(set: &str) -> Vec<String> {
    let listing = try_sh(&format!("nft list set inet pve-public-ip {set}")).stdout;
    let elements = listing.split_once("elements = {").and_then(|(_, rest)| rest.split_once('}'));
    elements.map_or_else(Vec::new, |(elements, _)| elements.split(',').map(|one| one.trim().to_owned()).collect())
}

fn has_table() -> bool {
    sh("nft list tables").contains("table inet pve-public-ip")
}

#[test]
fn a_guest_enters_and_leaves_the_filter_with_its_hooks() {
    let mut lab = Lab::new();
    sh("ip addr add 10.1.0.1/24 dev vmbr0; ip link set vmbr0 address 02:00:00:00:b0:00");
    for vmid in [100, 101] {
        lab.guest(NODE, "qemu-server", vmid, &format!("net0: virtio={},bridge=vmbr0\n", text(guest(vmid))));
    }
    lab.ok("pool create plain --profile generic-bridged --bridge vmbr0 192.0.2.0/29");
    lab.ok("assign 101 192.0.2.2");
    lab.ok("hook 101 pre-start");
    assert!(!has_table(), "nothing is routed on this node");

    lab.ok(
        "pool create net --profile hetzner-routed --uplink-guard report --bridge vmbr0 203.0.113.8/29 2001:db8:1::/64",
    );
    lab.ok("assign 100 203.0.113.10 2001:db8:1::10");
    assert_eq!(members("pool_ip4"), ["203.0.113.8/29"]);
    assert_eq!((members("from_ip4"), members("here_ip4")), (Vec::new(), Vec::new()));
    lab.ok("hook 100 pre-start");
    assert_eq!(members("from_ip4"), ["02:00:00:00:00:64 . 203.0.113.10"]);
    assert_eq!(members("from_ip6"), ["02:00:00:00:00:64 . 2001:db8:1::10"]);
    assert_eq!(
        (members("here_ip4"), members("here_ip6")),
        (vec!["203.0.113.10".into()], vec!["2001:db8:1::10".into()])
    );
    lab.plug("tap100i0", "vmbr0", guest(100));
    lab.ok("hook 100 post-start");
    lab.ok("hook 101 post-stop");
    lab.ok("verify");

    // A hook that finds the table gone brings it back.
    nft("delete table inet pve-public-ip");
    lab.ok("hook 100 post-start");
    lab.ok("verify");
    lab.unplug("tap100i0");
    lab.ok("hook 100 post-stop");
    assert_eq!((members("from_ip4"), members("here_ip6")), (Vec::new(), Vec::new()));
    lab.ok("verify");

    lab.ok("release 100");
    lab.ok("pool remove net");
    assert!(!has_table(), "nothing is routed any more");
    lab.ok("verify");
}

#[test]
fn drift_is_named_and_repaired() {
    let lab = node();
    let table = "inet pve-public-ip";
    for (what, command, named) in [
        ("the table", format!("nft delete table {table}"), "table inet pve-public-ip is missing"),
        ("all", "nft flush ruleset".to_owned(), "the table is missing"),
        ("a rule", format!("nft insert rule {table} forward accept"), "the rules of table inet pve-public-ip"),
        ("a chain", format!("nft flush chain {table} guest_ip6"), "the rules of table inet pve-public-ip"),
        (
            "an own address",
            format!("nft delete element {table} from_ip4 '{{ 02:00:00:00:00:64 . 203.0.113.10 }}'"),
            "missing 02:00:00:00:00:64 203.0.113.10: the node does not route what the guest sends with it",
        ),
        (
            "a prefix",
            format!("nft delete element {table} here_ip6_64 '{{ 2001:db8:200:: }}'"),
            "missing 2001:db8:200::: it can come in from outside, too",
        ),
        (
            "a foreign address",
            format!("nft add element {table} from_ip4 '{{ 02:00:00:00:00:65 . 203.0.113.10 }}'"),
            "extra 02:00:00:00:00:65 203.0.113.10: the node routes it, although no guest has it",
        ),
        (
            "a bridge",
            format!("nft flush set {table} routed_bridges"),
            "missing vmbr1: what comes from this bridge is taken for what comes from outside",
        ),
    ] {
        sh(&command);
        let found = lab.run("verify");
        assert_eq!(found.code, 3, "{what}: {}{}", found.stdout, found.stderr);
        assert!(found.stdout.contains(&format!("drift: {named}")), "{what}: verify said\n{}", found.stdout);
        lab.ok("apply");
        lab.ok("verify");
        assert_eq!(lab.ok("plan"), "nothing to do\n", "{what}");
    }
}
