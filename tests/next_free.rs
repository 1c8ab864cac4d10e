//! Next-free allocation stays clear of what somebody uses, and says what it passed over.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use common::Node;

/// A pool of a /28 on the node's bridge, whose gateway lies outside of it.
fn node() -> Node {
    let node = Node::new();
    let create =
        "pool create lan --profile generic-routed --bridge vmbr0 --cool-down 0 198.51.100.16/28 2001:db8:5::/64";
    node.run(create).ok();
    node
}

fn next(node: &Node, vmid: u32, options: &str) -> (String, Vec<String>) {
    let run = node.run(&format!("assign {vmid} --pool lan --no-hookscript {options} --output-format json")).ok().json();
    let said = run["passed_over"].as_array().cloned().unwrap_or_default();
    let said = said.iter().map(|one| format!("{} {}", one["address"].as_str().unwrap(), one["why"].as_str().unwrap()));
    (run["addresses"][0]["address"].as_str().unwrap().to_owned(), said.collect())
}

#[test]
fn what_guests_and_neighbours_use_is_passed_over_and_named() {
    let node = node();
    // Configured in a guest of this node, in one of another node, in a container; another's gateway; a subnet's ends.
    let nic = "net0: virtio=02:00:00:00:00:31,bridge=vmbr0\n";
    node.tree.qemu(103, format!("{nic}ipconfig0: ip=198.51.100.16/32\n"));
    node.tree.write(
        "etc/pve/nodes/n2/qemu-server/104.conf",
        "net0: virtio=02:00:00:00:00:32,bridge=vmbr0\nipconfig0: ip=198.51.100.17/32,gw=198.51.100.18\n",
    );
    node.tree.lxc(
        200,
        "hostname: dns\nnet0: name=eth0,bridge=vmbr0,hwaddr=02:00:00:AA:BB:02,type=veth,ip=198.51.100.22/30\n",
    );
    node.net.sh("ip neigh add 198.51.100.19 lladdr 02:00:00:00:00:99 dev vmbr0 nud stale");
    // A template runs for backups only, a neighbour that did not answer is nobody, and one of another bridge does not matter.
    node.tree.qemu(105, "template: 1\nnet0: virtio=02:00:00:00:00:33,bridge=vmbr0\nipconfig0: ip=198.51.100.24/32\n");
    node.net.sh("ip neigh add 198.51.100.24 dev vmbr0 nud failed");
    let (address, said) = next(&node, 100, "-4");
    assert_eq!(address, "198.51.100.21");
    assert_eq!(
        said,
        [
            "198.51.100.16 is configured in guest 103 net0 on n1",
            "198.51.100.17 is configured in guest 104 net0 on n2",
            "198.51.100.18 is the gateway of guest 104 net0",
            "198.51.100.19 is used by 02:00:00:00:00:99 on vmbr0",
            "198.51.100.20 is the network address of 198.51.100.20/30, in which guest 200 net0 is",
        ]
    );
    let run = node.run("assign 101 --pool lan --no-hookscript -4").ok();
    assert!(run.out.starts_with("198.51.100.24 assigned to guest 101 net0"), "{run}");
    for skipped in [
        "skipped: 198.51.100.16 is configured in guest 103 net0 on n1",
        "skipped: 198.51.100.22 is configured in guest 200 net0 on n1",
        "skipped: 198.51.100.19 is used by 02:00:00:00:00:99 on vmbr0",
    ] {
        assert!(run.out.contains(skipped), "{run}");
    }
    // A guest's own address is free for it, and what is named is given.
    let (address, said) = next(&node, 103, "-4");
    assert_eq!((address.as_str(), said.len()), ("198.51.100.16", 0));
    node.run("assign 101 198.51.100.19 --no-hookscript").ok();
    // IPv6 likewise.
    node.tree.qemu(103, format!("{nic}ipconfig0: ip6=2001:db8:5::1/64\n"));
    node.run("release 103 --no-hookscript").ok();
    let (address, said) = next(&node, 100, "-6");
    assert_eq!(address, "2001:db8:5::2");
    assert_eq!(
        said,
        ["2001:db8:5:: is the subnet-router anycast address", "2001:db8:5::1 is configured in guest 103 net0 on n1"]
    );
}

#[test]
fn if_all_is_in_use_that_is_the_reason() {
    let node = Node::new();
    node.run("pool create lan --profile generic-routed --bridge vmbr0 198.51.100.16").ok();
    node.tree.qemu(103, "net0: virtio=02:00:00:00:00:31,bridge=vmbr0\nipconfig0: ip=198.51.100.16/32\n");
    node.changes_nothing("assign 100 --pool lan --no-hookscript").fails(
        1,
        "cannot assign to guest 100: pool `lan` has no free IPv4 address that nobody uses: 198.51.100.16 is configured in guest \
         103 net0 on n1",
        "to leave it there: `pve-public-ip assign 103 198.51.100.16`; more addresses: `pve-public-ip pool add lan PREFIX`",
    );
    node.run("assign 103 198.51.100.16 --no-hookscript").ok();
}

#[test]
fn a_private_address_on_another_bridge_is_another_one() {
    let node = Node::new();
    node.run("pool create lan --profile generic-routed --bridge vmbr0 10.0.0.0/29").ok();
    node.tree.qemu(103, "net0: virtio=02:00:00:00:00:31,bridge=vmbr7\nipconfig0: ip=10.0.0.0/32\n");
    assert_eq!(next(&node, 100, "-4").0, "10.0.0.0");
    node.tree.qemu(103, "net0: virtio=02:00:00:00:00:31,bridge=vmbr0\nipconfig0: ip=10.0.0.1/32\n");
    assert_eq!(next(&node, 101, "-4").0, "10.0.0.2");
}
