//! A node that routes for guests, what is sent there, and what must become of it.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

use pve_public_ip::selftest::frames::{self, BROADCAST, Mac};

use crate::common::PATIENCE;
use crate::lab::{Lab, NODE, sh, text, write};

pub(crate) const PORT: u16 = 4001;
/// MACs of the node where packets reach it.
pub(crate) const BRIDGE: Mac = [2, 0, 0, 0, 0xb1, 0];
pub(crate) const OTHER_BRIDGE: Mac = [2, 0, 0, 0, 0xb2, 0];
pub(crate) const CARD: Mac = [2, 0, 0, 0, 0xe0, 1];
/// Beyond the uplink.
pub(crate) const PROVIDER: Mac = [2, 0, 0, 0, 0xff, 1];
pub(crate) const WORLD4: &str = "198.18.0.9";
pub(crate) const WORLD6: &str = "2001:db8:ffff::9";

pub(crate) const fn mac(vmid: u8) -> Mac {
    [2, 0, 0, 0, 0, vmid]
}

/// Guests 100 and 101 with neighbouring addresses, 100 with prefixes as well, and guest 200 without addresses on
/// vmbr1; guest 201 on vmbr2, which carries no pool; the uplink is a card of its own.
pub(crate) fn node(backend: &str) -> Lab {
    let mut lab = Lab::new();
    choose(&lab, backend);
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
    assert_eq!(lab.ok("plan"), "nothing to do\n");
    lab
}

pub(crate) fn choose(lab: &Lab, backend: &str) {
    lab.ok(&format!("node set --backend {backend}"));
}

pub(crate) fn guest(vmid: u32) -> Mac {
    mac(u8::try_from(vmid).unwrap())
}

/// A packet in a frame; `mark` is in its data.
pub(crate) fn packet(from_mac: Mac, to_mac: Mac, from: &str, to: &str, mark: &str) -> Vec<u8> {
    datagram((from_mac, to_mac), (from, 4000), (to, PORT), mark)
}

/// The same with its ports.
pub(crate) fn datagram(
    (from_mac, to_mac): (Mac, Mac),
    (from, source): (&str, u16),
    (to, target): (&str, u16),
    mark: &str,
) -> Vec<u8> {
    let data = frames::udp(source, target, mark.as_bytes());
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
pub(crate) struct Ears<'a> {
    lab: &'a Lab,
    node: UdpSocket,
    count: u32,
}

impl<'a> Ears<'a> {
    pub(crate) fn new(lab: &'a Lab) -> Self {
        // Hears both families. A program that another test is just starting has a copy of the socket that was here
        // before, until it is loaded: so the port may be taken for a moment.
        let started = Instant::now();
        let node = loop {
            match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)) {
                Ok(socket) => break socket,
                Err(error) if error.kind() == ErrorKind::AddrInUse && started.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("port {PORT} of the node: {error}"),
            }
        };
        node.set_nonblocking(true).unwrap();
        Self { lab, node, count: 0 }
    }

    /// Sends a packet and says who got it.
    ///
    /// # Panics
    ///
    /// If an honest packet that is sent behind it, and tells that it is not still to come, does not arrive.
    pub(crate) fn play(&mut self, port: &str, from_mac: Mac, to_mac: Mac, from: &str, to: &str) -> Vec<String> {
        let (fence_to, fence_from, fence_for, hearing) = honest(port);
        let mark = self.send(port, from_mac, to_mac, from, to);
        let fence = self.send(port, self.lab.end(port).mac, fence_to, fence_from, fence_for);
        let mut seen = Vec::new();
        let started = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(started.elapsed());
            let heard = self.lab.end(hearing).wire.receive(left.max(Duration::from_millis(1)));
            let heard = heard.unwrap_or_else(|| panic!("an honest packet from {port} does not arrive"));
            if carries(&heard, &mark) {
                seen.push(hearing.to_owned());
            }
            if carries(&heard, &fence) {
                break;
            }
        }
        for end in self.lab.ends.values() {
            while let Some(bytes) = end.wire.receive(Duration::ZERO) {
                // Back to where it came from, in a frame of the node's own; a complaint of the node has it in it, too.
                let protocol = if bytes[12..14] == frames::IP4.to_be_bytes() { bytes[23] } else { bytes[20] };
                let is_own = end.port == port && (bytes[6..12] == from_mac || protocol != frames::UDP);
                if carries(&bytes, &mark) && !is_own {
                    seen.push(end.port.clone());
                }
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

    fn send(&mut self, port: &str, from_mac: Mac, to_mac: Mac, from: &str, to: &str) -> String {
        self.count += 1;
        let mark = format!("packet {:06}", self.count);
        self.lab.end(port).wire.send(&packet(from_mac, to_mac, from, to, &mark));
        mark
    }
}

/// To which MAC, from where and to where a packet of this port passes, and who hears it.
fn honest(port: &str) -> (Mac, &'static str, &'static str, &'static str) {
    match port {
        "tap100i0" => (BRIDGE, "203.0.113.10", WORLD4, "eno1"),
        "tap101i0" => (BRIDGE, "203.0.113.11", WORLD4, "eno1"),
        "tap200i0" => (BRIDGE, "10.1.0.5", WORLD4, "eno1"),
        "tap201i0" => (OTHER_BRIDGE, "10.2.0.5", WORLD4, "eno1"),
        _ => (CARD, WORLD4, "203.0.113.10", "tap100i0"),
    }
}

fn carries(frame: &[u8], mark: &str) -> bool {
    frame.windows(mark.len()).any(|part| part == mark.as_bytes())
}

/// What is sent: port, MAC, to which MAC, from where, to where; and who must get it.
pub(crate) type Row = (&'static str, Mac, Mac, &'static str, &'static str, &'static str);

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
        ("tap200i0", mac(200), BROADCAST, "10.1.0.5", "10.1.0.1", "node"),
        ("tap200i0", mac(200), mac(100), "172.16.5.5", "203.0.113.10", "tap100i0"),
    ];
    // Of an address that is not bound here the guest may be on another node.
    rows.push(("eno1", PROVIDER, CARD, "203.0.113.14", "203.0.113.10", "tap100i0"));
    rows.push(("eno1", PROVIDER, CARD, "2001:db8:1::14", "2001:db8:1::10", "tap100i0"));
    rows
}

/// What must not.
pub(crate) fn must_drop() -> Vec<Row> {
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
        for to_mac in [BRIDGE, BROADCAST, [0x33, 0x33, 0, 0, 0, 1], [1, 0, 0x5e, 0, 0, 1]] {
            rows.push(("tap200i0", mac(200), to_mac, from, node, ""));
        }
    }
    rows.push(("tap200i0", mac(200), BRIDGE, "10.2.0.7", WORLD4, ""));
    // Round and round: to what nobody has.
    rows.push(("eno1", PROVIDER, CARD, WORLD4, "203.0.113.14", ""));
    rows.push(("eno1", PROVIDER, CARD, WORLD6, "2001:db8:1::14", ""));
    rows
}

pub(crate) fn play(lab: &Lab, what: &str) {
    let mut ears = Ears::new(lab);
    let (mut wrong, mut played) = (Vec::new(), 0);
    for row in must_pass().into_iter().chain(must_drop()) {
        let (port, from_mac, to_mac, from, to, receiver) = row;
        let seen = ears.play(port, from_mac, to_mac, from, to);
        let is_right = match receiver {
            // The bridge has no rules here: what goes to everybody reaches its other ports, but not the node.
            "" if to_mac[0] & 1 == 1 => seen.iter().all(|one| one.starts_with("tap")),
            "" => seen.is_empty(),
            receiver => seen.iter().any(|one| one == receiver),
        };
        if !is_right {
            wrong.push(format!("{port} {} {from} -> {to}: seen by {seen:?}, not `{receiver}`", text(from_mac)));
        }
        played += 1;
    }
    assert!(played > 70, "{played}");
    assert!(wrong.is_empty(), "{what}: {} of {played}:\n{}", wrong.len(), wrong.join("\n"));
}

pub(crate) fn set_br_netfilter(on: bool) {
    for name in ["iptables", "ip6tables", "arptables"] {
        write(&format!("/proc/sys/net/bridge/bridge-nf-call-{name}"), if on { "1" } else { "0" });
    }
}

/// Waits until every port forwards.
pub(crate) fn settle(lab: &Lab) {
    let mut ears = Ears::new(lab);
    for port in ["tap100i0", "tap101i0", "tap200i0", "tap201i0", "eno1"] {
        let (to_mac, from, to, hearing) = honest(port);
        let mut arrives = |limit: Duration| {
            let mark = ears.send(port, lab.end(port).mac, to_mac, from, to);
            let heard = std::iter::from_fn(|| lab.end(hearing).wire.receive(limit));
            heard.take(100).any(|bytes| carries(&bytes, &mark))
        };
        let started = Instant::now();
        let mut limit = Duration::from_millis(20);
        while !arrives(limit) {
            assert!(started.elapsed() < PATIENCE, "nothing from {port} arrives");
            // A loaded machine may take longer to deliver each of them.
            limit = (limit * 5 / 4).min(Duration::from_secs(1));
        }
    }
}

/// What somebody else has in iptables: chains, rules and policies, in order.
pub(crate) fn foreign(variant: &str) -> Vec<String> {
    let tables = ["", "6"].map(|v6| sh(&format!("ip{v6}tables-{variant}-save")));
    let lines = tables.iter().flat_map(|text| text.lines());
    // The tables themselves come and go with whoever uses them.
    let lines = lines.filter(|line| line.starts_with("-A") || line.starts_with(':') && !line.contains(" ACCEPT ["));
    let lines = lines.filter(|line| !line.contains("PVE-PUBLIC-IP"));
    lines.map(|line| line.split(" [").next().unwrap().to_owned()).collect()
}
