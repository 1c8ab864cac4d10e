//! `verify --active` on a real kernel: it finds what was broken by hand, and nobody else hears of it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Monitor, Node, Run};
use pve_public_ip::selftest::targets::{ATTACKER, LISTENER};
use pve_public_ip::system::packet::Wire;

/// Guests 100 (203.0.113.10 and `2001:db8:0:1::10`) and 101 (203.0.113.11) run on `vmbr0`, whose uplink `eno1` has a guard; on
/// `vmbr1` guest 102 (198.51.100.2) is routed to.
fn node() -> Node {
    let node = Node::with_pool();
    // Nobody speaks of his own accord.
    node.net.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
        ip route add default via 203.0.113.1
        ip link add vmbr1 address 02:00:00:00:01:fe type bridge; ip link set vmbr1 up
        ip link add eno1 type veth peer name provider; ip link set eno1 master vmbr0 up; ip link set provider up");
    node.tree.qemu(102, "name: vpn\nnet0: virtio=02:00:00:AA:BB:03,bridge=vmbr1\n");
    node.run("pool create routed --profile generic-routed --bridge vmbr1 --gateway4 203.0.113.250 198.51.100.0/30")
        .ok();
    node.run("pool set ovh-rbx --uplink-guard enforce --yes").ok();
    node.run("assign 100 203.0.113.10 2001:db8:0:1::10 --no-hookscript").ok();
    node.run("assign 101 203.0.113.11 --no-hookscript").ok();
    node.run("assign 102 198.51.100.2 --no-hookscript").ok();
    for (vmid, bridge) in [(100, "vmbr0"), (101, "vmbr0"), (102, "vmbr1")] {
        node.run(&format!("hook {vmid} pre-start")).ok();
        node.net.sh(&format!(
            "ip link add tap{vmid}i0 type veth peer name guest{vmid}; ip link set guest{vmid} up
             ip link set tap{vmid}i0 master {bridge} up"
        ));
        node.run(&format!("hook {vmid} post-start")).ok();
    }
    node.is_in_line();
    node
}

/// Everybody who must not hear of it.
const BYSTANDERS: [&str; 7] = ["guest100", "guest101", "guest102", "provider", "eno1", "vmbr0", "vmbr1"];

/// Runs it and holds it to its promises: nobody else sees a frame of it, and it leaves nothing behind.
#[track_caller]
fn attack(node: &Node) -> Run {
    let state = || {
        let sets =
            ["ports", "port_ip4", "bound_mac", "reserved_mac", "reserved_ip4", "free_ports", "uplinks", "unregistered"];
        let links = "ip -br link show; bridge fdb show | grep -e static -e 02:70:76:65 -e fe:70:76:65 | sort";
        (sets.map(|set| node.net.set(set)), node.net.marked(), node.net.sh(links))
    };
    let before = state();
    let wires = node.net.inside(|| BYSTANDERS.map(|name| Wire::open(name.parse().unwrap()).unwrap()));
    let run = node.run("verify --active");
    let mut buffer = vec![0; 70_000];
    for (wire, name) in wires.iter().zip(BYSTANDERS) {
        while let Some(frame) = wire.receive(&mut buffer).unwrap() {
            let ours = frame.starts_with(&LISTENER) || frame[6..12] == ATTACKER.mac || frame[6..12] == LISTENER;
            assert!(!ours, "{name} saw {frame:02x?}: {run}");
        }
    }
    assert_eq!(state(), before, "{run}");
    run
}

#[test]
fn nothing_gets_through_and_nobody_notices() {
    let node = node();
    let run = attack(&node).ok();
    for line in [
        "| vmbr0  | claims of IPv4, ARP, IPv6, ND | ",
        "| vmbr0  | claims of a MAC               | ",
        "| vmbr0  | claims in tags and SNAP       | ",
        "| vmbr0  | router and DHCP server        | ",
        "| vmbr0  | delivery to another guest     | ",
        "| vmbr1  | claims of IPv4, ARP, IPv6, ND | ",
    ] {
        assert!(run.out.contains(line), "{line}: {run}");
    }
    let data = node.run("verify --active --output-format json").ok().json();
    assert_eq!(data["active"].as_array().unwrap().len(), 2, "{data}");
    for bridge in data["active"].as_array().unwrap() {
        assert!(bridge["sent"]["claims of IPv4, ARP, IPv6, ND"].as_u64().unwrap() > 100, "{data}");
        assert_eq!(bridge["passed"], serde_json::json!([]), "{data}");
    }
    // What was dropped from the test's own port is nobody's attempt.
    let status = node.run("status --output-format json").ok().json();
    assert_eq!(
        (&status["dropped"], &status["unregistered"]),
        (&serde_json::json!([]), &serde_json::json!([])),
        "{status}"
    );
}

#[test]
fn what_was_broken_by_hand_is_found() {
    let node = node();
    // An element that is missing.
    node.net.sh("nft 'delete element bridge pve-public-ip reserved_mac { 02:00:00:aa:bb:00 }'");
    let run = attack(&node);
    assert_eq!(run.code, 3, "{run}");
    assert!(run.out.contains("drift: "), "{run}");
    assert!(run.out.contains("passed: MAC of 02:00:00:aa:bb:00 of guest 100, own IPv4 (and 7 more frames like it): any guest on vmbr0 can send it\n"), "{run}");
    assert!(run.out.contains("any guest on vmbr1 can send it"), "{run}");
    assert!(!run.out.contains("passed: IPv4 UDP"), "{run}");
    node.run("apply").ok();
    attack(&node).ok();
    // A rule on top.
    node.net.sh("nft insert rule bridge pve-public-ip prerouting accept");
    let run = attack(&node);
    assert_eq!(run.code, 3, "{run}");
    assert!(run.out.contains("passed: IPv4 UDP from 198.51.100.0"), "{run}");
    assert!(run.out.contains(" more on vmbr1\nhint: `pve-public-ip apply`; if they pass after that"), "{run}");
    node.run("apply").ok();
    // No filter at all.
    node.net.sh("nft flush ruleset");
    let data = node.run("verify --active --output-format json").json();
    let bridge = &data["active"][0];
    let sent: u64 = bridge["sent"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(
        bridge["passed"].as_array().unwrap().len() as u64,
        sent,
        "every frame gets through where nothing filters"
    );
}

#[test]
fn what_cannot_be_attacked_is_said() {
    let node = Node::with_pool();
    let run = node.run("verify --active").ok();
    assert!(run.out.ends_with("attacked: nothing, because nobody is on a bridge of a pool\n"), "{run}");
    // Somebody else drops everything on the bridge: then nothing is known of our filter.
    node.plug("tap200i0");
    node.net.sh("nft add table bridge other; nft 'add chain bridge other forward { type filter hook forward priority 0; policy drop; }'");
    let error =
        "an honest frame from one port of vmbr0 to another one does not arrive, so nothing can be said of the others";
    node.run("verify --active").fails(
        1,
        error,
        "is there a foreign rule, or a spanning tree that keeps new ports waiting? `nft list ruleset`; `bridge -d link show`",
    );
}

#[test]
fn killed_at_any_time_it_leaves_nothing() {
    let node = node();
    for delay in (0..120).step_by(12) {
        let mut child =
            node.command(&["verify", "--active"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        // The kernel takes them away in its own time.
        let started = Instant::now();
        while node.net.sh("ip -br link show").contains("veth0i12") {
            assert!(started.elapsed() < Duration::from_secs(60), "killed after {delay} ms, its ports stay");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    attack(&node).ok();
}

#[test]
fn a_bridge_keeps_its_size_and_its_mac() {
    let node = node();
    // As on most nodes: the bridge has the MAC of its uplink, and the largest packets that all its ports can carry.
    node.net.sh("ip link add vmbr2 type bridge; ip link set vmbr2 up
        ip link add eno2 address fc:ff:ff:00:00:01 mtu 9000 type veth peer name provider2
        ip link set eno2 master vmbr2 up; ip link set provider2 up");
    node.run("pool create jumbo --profile generic-bridged --bridge vmbr2 --gateway4 192.0.2.1 192.0.2.10").ok();
    let shown = || node.net.sh("ip -o link show dev vmbr2 | grep -o -e 'mtu [0-9]*' -e 'ether [0-9a-f:]*'");
    let before = shown();
    assert_eq!(before, "mtu 9000\nether fc:ff:ff:00:00:01\n");
    let mut monitor = node.net.command("ip");
    monitor.args(["-o", "monitor", "link"]);
    let events = Monitor::start(monitor);
    attack(&node).ok();
    assert_eq!(shown(), before);
    node.net.sh("ip link add the-last type bridge");
    let text = events.told_until("the-last");
    assert!(text.contains("veth0i121"), "not even the ports were seen: {text}");
    for line in text.lines().filter(|line| line.contains(": vmbr2:")) {
        assert!(line.contains("mtu 9000") && line.contains("fc:ff:ff:00:00:01"), "{line}");
    }
}
