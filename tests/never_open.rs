//! Nothing is silently open: a bridge that no filter sees, a file that cannot be read, a change that is still to come.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use common::Node;

/// What stands at the place of vmbr1, how the node's configuration describes it, and why nothing on it is filtered.
const UNFILTERED: [(&str, &str, &str); 4] = [
    // As a node with Open vSwitch is configured; another device stands for it here.
    (
        "ip link add vmbr1 type veth peer name other",
        "auto vmbr1\niface vmbr1 inet manual\n\tovs_type OVSBridge\n\tovs_ports eno1\n",
        "vmbr1 is an Open vSwitch bridge, whose frames pass no filter of the kernel",
    ),
    (
        "ip link add vmbr1 type veth peer name other",
        "",
        "vmbr1 is an interface of type veth and no Linux bridge: nothing on it is filtered",
    ),
    (
        "ip link add vmbr1 type ifb",
        "auto vmbr1\niface vmbr1 inet manual\n\tbridge-ports eno1\n",
        "vmbr1 is an interface of type ifb and no Linux bridge: nothing on it is filtered",
    ),
    (
        "true",
        "auto vmbr1\niface vmbr1 inet manual\n\tovs_type OVSBridge\n",
        "vmbr1 is an Open vSwitch bridge, whose frames pass no filter of the kernel",
    ),
];

const HINT: &str = "make it a Linux bridge, or take another bridge for the pool and its guests";

/// A node whose guest 300 is on vmbr1, which is a Linux bridge at first, and holds an address of its pool.
fn on_vmbr1() -> Node {
    let node = Node::new();
    node.net.sh("ip link add vmbr1 type bridge && ip link set vmbr1 up");
    node.tree.qemu(300, "net0: virtio=02:00:00:AA:BB:30,bridge=vmbr1\nnet1: virtio=02:00:00:AA:BB:31,bridge=vmbr0\n");
    node.run("pool create a --profile generic-bridged --bridge vmbr1 --gateway4 198.18.0.1 198.18.0.5 198.18.0.6").ok();
    node.run("assign 300 198.18.0.5 --no-hookscript --no-probe").ok();
    node
}

#[test]
fn what_no_filter_sees_is_refused_by_every_command() {
    for (device, configured, why) in UNFILTERED {
        let node = on_vmbr1();
        node.net.sh(&format!("ip link del vmbr1; {device}"));
        node.tree.write("etc/network/interfaces", configured);
        for profile in ["generic-bridged", "ovh-vrack", "hetzner-bridged", "generic-routed"] {
            node.changes_nothing(&format!("pool create b --profile {profile} --bridge vmbr1 198.18.1.5")).fails(
                1,
                &format!("cannot create pool `b`: {why}"),
                HINT,
            );
        }
        node.changes_nothing("assign 300 198.18.0.6 --no-hookscript --no-probe").fails(
            1,
            &format!("cannot assign to guest 300: {why}"),
            HINT,
        );
    }
}

#[test]
fn a_guest_on_what_no_filter_sees_does_not_start_and_is_never_called_protected() {
    let missing = ("true", "", "vmbr1 does not exist on this node");
    for (device, configured, why) in UNFILTERED.into_iter().take(3).chain([missing]) {
        // What the kernel has counts here: whatever the configuration says, it may not have been loaded.
        let why = if why.contains("Open vSwitch") { UNFILTERED[1].2 } else { why };
        let node = on_vmbr1();
        node.net.sh(&format!("ip link del vmbr1; {device}"));
        node.tree.write("etc/network/interfaces", configured);
        let sentence = format!("guest 300 net0 cannot be protected: {why}");
        let run =
            node.changes_nothing("hook 300 pre-start").fails_with(1, &[&sentence, "hint: make it a Linux bridge"]);
        assert!(!run.err.contains("is protected"), "{run}");
        let verify = node.run("verify");
        assert_ne!(verify.code, 0, "{verify}");
        assert!(verify.out.contains(&format!("problem: {sentence}\n")), "{verify}");
        let status = node.run("status");
        assert!(status.out.contains("| problem") && !status.out.contains("| protected"), "{status}");
    }
}

#[test]
fn a_bridge_that_is_still_to_come_is_no_obstacle_to_a_pool() {
    let node = Node::new();
    node.tree.write("etc/network/interfaces", "auto vmbr7\niface vmbr7 inet manual\n\tbridge-ports none\n");
    node.tree.qemu(300, "net0: virtio=02:00:00:AA:BB:30,bridge=vmbr7\nnet1: virtio=02:00:00:AA:BB:31,bridge=vmbr8\n");
    let run = node.run("pool create a --profile generic-bridged --bridge vmbr7 --gateway4 198.18.0.1 198.18.0.5").ok();
    assert!(!run.out.contains("problem"), "{run}");
    let run = node.run("assign 300 198.18.0.5 --no-hookscript --no-probe").ok();
    assert!(!run.out.contains("problem"), "{run}");
    node.run("hook 300 pre-start").fails_with(1, &["vmbr7 does not exist on this node"]);
    node.net.sh("ip link add vmbr7 type bridge && ip link set vmbr7 up");
    node.run("hook 300 pre-start").ok();
    // Another node may have it; this one has not, and says so at once.
    let run = node.run("pool create b --profile generic-bridged --bridge vmbr8 --gateway4 198.18.1.1 198.18.1.5").ok();
    let said =
        "problem: vmbr8 does not exist on this node: guests with addresses do not start on n1 as long as it is so";
    assert!(run.out.contains(said), "{run}");
    let run = node.run("assign 300 198.18.1.5 --net 1 --no-hookscript --no-probe").ok();
    assert!(run.out.contains(said), "{run}");
}
