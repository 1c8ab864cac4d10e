//! What a bridge knows of its own MAC, and how it keeps it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use common::Node;

const UPLINK: &str = "02:00:00:00:10:01";

/// Bridges without a MAC of their own: vmbr1 with an uplink, vmbr2 without. Guest 100 is on vmbr2.
fn node() -> Node {
    let node = Node::new();
    node.net.sh(&format!(
        "mount -t sysfs sys /sys
        ip link add eno1 address {UPLINK} type veth peer name gw0 && ip link set gw0 up
        ip link add vmbr1 type bridge && ip link set eno1 master vmbr1 && ip link set eno1 up && ip link set vmbr1 up
        ip addr add 203.0.113.250/24 dev vmbr1
        ip link add vmbr2 type bridge && ip link set vmbr2 up && ip addr add 198.51.100.1/24 dev vmbr2"
    ));
    node
}

fn mac(node: &Node, link: &str) -> String {
    node.net.sh(&format!("cat /sys/class/net/{link}/address")).trim().to_owned()
}

fn is_fixed(node: &Node, link: &str) -> bool {
    node.net.sh(&format!("cat /sys/class/net/{link}/addr_assign_type")).trim() == "3"
}

const CREATE: &str = "pool create lan --profile generic-bridged --bridge vmbr1 --gateway4 203.0.113.1 203.0.113.8/29";

#[test]
fn a_guest_that_starts_does_not_change_the_mac_of_the_uplink() {
    let node = node();
    assert!(!is_fixed(&node, "vmbr1"));
    assert_eq!(mac(&node, "vmbr1"), UPLINK);
    // Of an administrator, of another program that looks after them itself, and learnt.
    node.net.sh("ip neigh add 203.0.113.77 lladdr 02:00:00:00:00:77 nud permanent dev vmbr1
        ip neigh add 203.0.113.78 lladdr 02:00:00:00:00:78 nud permanent dev vmbr1 protocol 186
        ip neigh add 203.0.113.79 lladdr 02:00:00:00:00:79 nud reachable dev vmbr1 extern_learn
        ip neigh add 2001:db8::77 lladdr 02:00:00:00:00:77 nud permanent dev vmbr1");
    let neighbours = || {
        let mut lines: Vec<String> = node.net.sh("ip neigh show dev vmbr1").lines().map(str::to_owned).collect();
        lines.retain(|line| line.contains("02:00:00:00:00:7"));
        lines.sort();
        lines
    };
    let before = neighbours();
    assert_eq!(before.len(), 4, "{before:?}");
    node.run(CREATE).ok();
    assert!(is_fixed(&node, "vmbr1"), "a pool uses it");
    assert!(!is_fixed(&node, "vmbr2"), "no pool uses it");
    assert_eq!((mac(&node, "vmbr1"), neighbours()), (UPLINK.to_owned(), before.clone()));
    node.is_in_line();
    // The lowest MAC of all ports.
    node.net.sh(
        "ip link add tap7i0 address 00:00:00:00:00:07 type veth peer name peer7 && ip link set tap7i0 master vmbr1",
    );
    assert_eq!((mac(&node, "vmbr1"), neighbours()), (UPLINK.to_owned(), before));
    node.run("apply").ok();
    node.is_in_line();
}

#[test]
fn verify_says_that_a_bridge_may_lose_its_mac_and_apply_cures_it() {
    let node = node();
    node.run(CREATE).ok();
    // Made anew, as by an administrator who reloads his interfaces.
    node.net.sh(
        "ip link del vmbr1 && ip link add vmbr1 type bridge && ip link set eno1 master vmbr1 && ip link set vmbr1 up
        ip addr add 203.0.113.250/24 dev vmbr1",
    );
    let found = node.run("verify");
    assert_eq!(found.code, 3, "{}", found.out);
    let line =
        "vmbr1 has no MAC of its own: the start of any guest may change it, and the node forgets its neighbours there";
    assert!(found.out.contains(line), "{}", found.out);
    node.run("apply").ok();
    assert!(is_fixed(&node, "vmbr1") && mac(&node, "vmbr1") == UPLINK);
    node.is_in_line();
}

#[test]
fn another_mac_than_the_uplinks_is_not_kept() {
    let node = node();
    node.net.sh(
        "ip link add tap7i0 address 00:00:00:00:00:07 type veth peer name peer7 && ip link set tap7i0 master vmbr1",
    );
    assert_eq!(mac(&node, "vmbr1"), "00:00:00:00:00:07");
    node.run(CREATE).ok();
    assert!(!is_fixed(&node, "vmbr1"));
    node.net.sh("ip link del tap7i0");
    node.run("apply").ok();
    assert!(is_fixed(&node, "vmbr1") && mac(&node, "vmbr1") == UPLINK);
}

#[test]
fn without_an_uplink_the_mac_of_the_first_guest_is_kept() {
    let node = node();
    node.run("pool create net --profile generic-bridged --bridge vmbr2 --gateway4 198.51.100.1 198.51.100.8/29").ok();
    assert!(!is_fixed(&node, "vmbr2"), "an uplink may be on its way");
    node.net.sh("ip link add tap7i0 type veth peer name peer7 && ip link set tap7i0 master vmbr2");
    node.run("apply").ok();
    let kept = mac(&node, "vmbr2");
    assert!(is_fixed(&node, "vmbr2"));
    node.net.sh("ip link del tap7i0; ip link add tap8i0 address 00:00:00:00:00:08 type veth peer name peer8 && ip link set tap8i0 master vmbr2");
    assert_eq!(mac(&node, "vmbr2"), kept);
    node.run("apply").ok();
    node.is_in_line();
}
