//! Prefixes behind guests: what may be named for them, what is said, and packets through a guest that routes.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use common::{Namespace, Node, need, until};
use serde_json::json;

const QUICK: &str = "for name in all default; do echo 0 > /proc/sys/net/ipv6/conf/$name/accept_dad; done";

/// A routed pool on `vmbr1`, a bridged one on `vmbr0`, and guests 105 and 106 on both.
fn two_pools() -> Node {
    let node = Node::new();
    node.net.sh(
        "ip link add vmbr1 type bridge && ip link set vmbr1 up; ip link add eno1 type bridge; ip link set eno1 up; \
                 ip route add default dev eno1",
    );
    for vmid in [105, 106] {
        node.tree.qemu(
            vmid,
            format!(
                "net0: virtio=02:00:00:00:00:{vmid:02x},bridge=vmbr1\nnet1: virtio=02:00:00:00:01:{vmid:02x},bridge=vmbr0\n"
            ),
        );
    }
    node.run(
        "pool create net --profile generic-routed --bridge vmbr1 --gateway4 169.254.0.1 --gateway6 fe80::1 \
              198.51.100.0/24 2001:db8:1:100::/56",
    )
    .ok();
    node.run("pool create lan --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.1 203.0.113.0/24 2001:db8:2::/48")
        .ok();
    node
}

#[test]
fn what_cannot_be_reached_is_refused_in_words() {
    let node = two_pools();
    node.run("assign 105 198.51.100.10 --no-hookscript").ok();
    for (command, sentence, hint) in [
        (
            "198.51.100.32/28 --via 198.51.100.11",
            "198.51.100.32/28 cannot be reached through 198.51.100.11, which is no address of the same NIC",
            "show 105",
        ),
        (
            "198.51.100.32/28 --via 2001:db8::1",
            "198.51.100.32/28 cannot be reached through 2001:db8::1, which is of the other family",
            "show 105",
        ),
        (
            "198.51.100.32/28 --via 198.51.100.32",
            "cannot be reached through 198.51.100.32, which is its first or its last address",
            "one of the prefix for the transit",
        ),
        (
            "198.51.100.32/28 --via 198.51.100.47",
            "cannot be reached through 198.51.100.47, which is its first or its last address",
            "one of the prefix for the transit",
        ),
        (
            "198.51.100.12 --via 198.51.100.10",
            "198.51.100.12 is one address: only a prefix is reached through another address",
            "show 105",
        ),
        (
            "2001:db8:1:110::/60 --via fe80::99",
            "2001:db8:1:110::/60 cannot be reached through fe80::99, which is no address of the same NIC",
            "show 105",
        ),
        ("2001:db8:1:110::/60 --via 2001:db8:1:110::", "which is its first or its last address", "one of the prefix"),
    ] {
        node.changes_nothing(&format!("assign 105 {command} --no-hookscript")).fails_with(1, &[sentence, hint]);
    }
    node.changes_nothing("assign 105 --via 198.51.100.10").fails_with(2, &["--via", "<ADDRESSES>"]);
    // Through something that is itself behind something.
    node.run("assign 105 198.51.100.32/28 --via 198.51.100.10 --no-hookscript").ok();
    node.changes_nothing("assign 105 198.51.100.64/28 --via 198.51.100.33 --no-hookscript")
        .fails_with(1, &["cannot be reached through 198.51.100.33, which is no address of the same NIC", "show 105"]);
    // What the prefix is reached through is not given away alone.
    node.changes_nothing("release 105 198.51.100.10").fails_with(
        1,
        &[
            "guest 105 is reached through 198.51.100.10 for 198.51.100.32/28, which it would keep",
            "`pve-public-ip release 105 198.51.100.10 198.51.100.32/28`",
        ],
    );
    node.run("assign 105 198.51.100.32/28 --via 198.51.100.33 --no-hookscript").ok();
    node.run("release 105 198.51.100.10").ok();
    node.run("release 105").ok();
    // A provider that routes nothing to an address.
    node.run("pool create ovh --profile ovh-bridged --bridge vmbr0 --gateway4 192.0.2.254 192.0.2.8/29").ok();
    node.changes_nothing("assign 105 192.0.2.8/29 --via 192.0.2.9 --net 1 --no-hookscript").fails_with(
        1,
        &[
            "the provider (profile ovh-bridged of pool `ovh`) routes no prefix to an address",
            "assign single addresses of it",
        ],
    );
}

#[test]
fn what_has_to_be_done_elsewhere_is_said() {
    let node = two_pools();
    let said = node.run("assign 105 203.0.113.10 203.0.113.32/28 --via 203.0.113.10 --net 1 --no-hookscript").ok();
    assert!(said.out.contains("203.0.113.32/28 assigned to guest 105 net1 (02:00:00:00:01:69), pool lan, gateway 203.0.113.1, via 203.0.113.10"), "{said}");
    assert!(said.out.contains("only if the router behind vmbr0 sends it to 203.0.113.10"), "{said}");
    assert!(said.out.contains("`ip -4 route add 203.0.113.32/28 via 203.0.113.10`"), "{said}");
    let said = node.run("assign 106 198.51.100.64/28 --no-hookscript").ok();
    assert!(said.out.contains("the node asks for each address of it by ARP"), "{said}");
    assert!(said.out.contains("`pve-public-ip assign 106 198.51.100.64/28 --via 198.51.100.65`"), "{said}");
    // The command that was named: then nothing is left to say.
    let said = node.run("assign 106 198.51.100.64/28 --via 198.51.100.65 --no-hookscript").ok();
    assert!(!said.out.contains("note:") && said.out.contains("via 198.51.100.65"), "{said}");
    // An IPv6 prefix in pieces, without a word: the guest has a link-local address.
    let said = node.run("assign 106 2001:db8:1:110::/60 2001:db8:1:104::/64 --no-hookscript").ok();
    assert!(!said.out.contains("note:"), "{said}");
    node.run("assign 105 2001:db8:1:120::/60 --no-hookscript").ok();
    node.changes_nothing("assign 105 2001:db8:1:118::/64 --no-hookscript").fails_with(
        1,
        &[
            "2001:db8:1:118::/64 is held by guest 106, which holds 2001:db8:1:110::/60",
            "release 106 2001:db8:1:110::/60",
        ],
    );
    // Shown wherever addresses are.
    for (command, word) in [
        ("list", "198.51.100.64/28, via 198.51.100.65"),
        ("show 106", "198.51.100.64/28  pool net, gateway 169.254.0.1, since"),
        ("who 198.51.100.70", "via:"),
    ] {
        let run = node.run(command).ok();
        assert!(run.out.contains(word), "{run}");
    }
    let listed = node.run("list --output-format json").ok().json();
    let found =
        listed["assignments"].as_array().unwrap().iter().find(|one| one["address"] == json!("198.51.100.64/28"));
    assert_eq!(found.unwrap()["via"], json!("198.51.100.65"));
}

/// The guest learns the address of the transit, and nothing of what is behind it.
#[test]
fn cloud_init_configures_the_transit_only() {
    let node = two_pools();
    node.stand_in_proxmox();
    node.tree.qemu(105, "smbios1: uuid=11111111-2222-3333-4444-555555555555\nide2: local:vm-105-cloudinit,media=cdrom\nnet0: virtio=02:00:00:00:00:69,bridge=vmbr1\n");
    let inside = |node: &Node| node.run("show 105 --inside").ok().out;
    node.run("assign 105 198.51.100.32/28 --via 198.51.100.33 --no-hookscript").ok();
    let text = inside(&node);
    assert!(text.contains("198.51.100.33/32") && !text.contains("198.51.100.33/28"), "{text}");
    node.run("assign 105 198.51.100.10 --no-hookscript").ok();
    node.run("assign 105 198.51.100.32/28 --via 198.51.100.10 --no-hookscript").ok();
    let text = inside(&node);
    assert!(text.contains("198.51.100.10/32") && !text.contains("198.51.100.33"), "{text}");
}

/// A guest with one address more than its own NIC needs, and a host on its LAN.
struct Router {
    wan: Namespace,
    lan: Namespace,
}

impl Router {
    fn plug(node: &Node, vmid: u32, bridge: &str, mac: &str, script: &str, lan_script: &str) -> Self {
        let (wan, lan) = (Namespace::new(), Namespace::new());
        wan.sh(QUICK);
        lan.sh(QUICK);
        node.run(&format!("hook {vmid} pre-start")).ok();
        node.net.sh(&format!(
            "ip link add tap{vmid}i0 type veth peer name eth0 address {mac} netns {}; ip link set tap{vmid}i0 master {bridge} up",
            wan.path()
        ));
        wan.sh(&format!(
            "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; ip link set lo up; \
             ip link add lan0 type veth peer name eth0 netns {}; ip link set lan0 up; ip link set eth0 up; {script}",
            lan.path()
        ));
        lan.sh(&format!("ip link set eth0 up; {lan_script}"));
        node.run(&format!("hook {vmid} post-start")).ok();
        Self { wan, lan }
    }
}

fn answers(from: &Namespace, address: &str) -> bool {
    from.command("ping").args(["-c1", "-W1", address]).output().unwrap().status.success()
}

/// A provider that sends everything to the node, whose guests route to networks behind them.
#[test]
fn a_routed_prefix_arrives_behind_its_guest() {
    need(&["ping"]);
    let node = Node::new();
    let provider = Namespace::new();
    node.net.sh(QUICK);
    provider.sh(QUICK);
    node.net.sh(&format!(
        "ip link del vmbr0; ip link add vmbr1 type bridge forward_delay 0 mcast_snooping 0; ip link set vmbr1 up; \
         ip link add eno1 type veth peer name wan netns {}; ip link set eno1 up; \
         ip addr add 192.0.2.7/24 dev eno1; ip addr add 2001:db8:7::2/64 dev eno1; ip route add default via 192.0.2.1",
        provider.path()
    ));
    provider.sh("ip link set wan up; ip addr add 192.0.2.1/24 dev wan; ip addr add 2001:db8:7::1/64 dev wan; \
                 ip route add 198.51.100.0/24 via 192.0.2.7; ip route add 2001:db8:1:100::/56 via 2001:db8:7::2");
    node.net.sh("ip -6 route add default via 2001:db8:7::1");
    let mac = |vmid: u32| format!("02:00:00:00:00:{vmid:02x}");
    for vmid in [105, 106, 107] {
        node.tree.qemu(vmid, format!("net0: virtio={},bridge=vmbr1\n", mac(vmid)));
    }
    node.run(
        "pool create net --profile hetzner-routed --bridge vmbr1 --gateway4 169.254.0.1 --gateway6 fe80::1 \
              198.51.100.0/24 2001:db8:1:100::/56",
    )
    .ok();
    // Behind an address of its own, of each family; behind one of the prefix; and a lone block of a guest that answers.
    node.run("assign 105 198.51.100.10 198.51.100.32/28 --via 198.51.100.10 --no-hookscript").ok();
    node.run("assign 105 2001:db8:1:101::/64 --no-hookscript").ok();
    node.run("assign 105 2001:db8:1:110::/60 --via 2001:db8:1:101::7 --no-hookscript").ok();
    node.run("assign 106 198.51.100.48/28 --via 198.51.100.49 --no-hookscript").ok();
    node.run("assign 106 2001:db8:1:120::/60 --no-hookscript").ok();
    node.run("assign 107 198.51.100.64/28 --no-hookscript").ok();
    let out = "ip route add 169.254.0.1 dev eth0; ip route add default via 169.254.0.1; ip route add default via fe80::1 dev eth0";
    let first = Router::plug(
        &node,
        105,
        "vmbr1",
        &mac(105),
        &format!(
            "ip addr add 198.51.100.10/32 dev eth0; ip addr add 2001:db8:1:101::7/64 dev eth0; {out}; \
                  ip addr add 198.51.100.46/28 dev lan0; ip addr add 2001:db8:1:110::1/64 dev lan0"
        ),
        "ip addr add 198.51.100.34/28 dev eth0; ip route add default via 198.51.100.46; \
         ip addr add 2001:db8:1:110::34/64 dev eth0; ip route add default via 2001:db8:1:110::1",
    );
    let second = Router::plug(
        &node,
        106,
        "vmbr1",
        &mac(106),
        &format!(
            "ip addr add 198.51.100.49/32 dev eth0; {out}; ip addr add 198.51.100.62/28 dev lan0; ip addr add 2001:db8:1:120::1/64 dev lan0"
        ),
        "ip addr add 198.51.100.50/28 dev eth0; ip route add default via 198.51.100.62; \
         ip addr add 2001:db8:1:120::50/64 dev eth0; ip route add default via 2001:db8:1:120::1",
    );
    let _third = Router::plug(
        &node,
        107,
        "vmbr1",
        &mac(107),
        &format!(
            "ip addr add 198.51.100.65/32 dev eth0; {out}; ip addr add 198.51.100.78/28 dev lan0; echo 1 > /proc/sys/net/ipv4/conf/eth0/proxy_arp"
        ),
        "ip addr add 198.51.100.66/28 dev eth0; ip route add default via 198.51.100.78",
    );
    node.is_in_line();
    for address in
        ["198.51.100.34", "2001:db8:1:110::34", "198.51.100.49", "198.51.100.50", "2001:db8:1:120::50", "198.51.100.66"]
    {
        until(address, || answers(&provider, address));
    }
    until("from one guest's network to another's", || answers(&second.lan, "198.51.100.34"));
    until("from behind the guest to the provider", || {
        answers(&first.lan, "192.0.2.1") && answers(&first.lan, "2001:db8:7::1")
    });
    // Nobody else sends from a prefix behind a guest, and a guest from no other than its own.
    second.wan.sh("ip addr add 198.51.100.40/32 dev lo");
    second.lan.sh("ip addr add 198.51.100.200/32 dev lo");
    let forged = |from: &Namespace, source: &str| {
        from.command("ping").args(["-c1", "-W1", "-I", source, "192.0.2.1"]).output().unwrap().status.success()
    };
    assert!(!forged(&second.wan, "198.51.100.40") && !forged(&second.lan, "198.51.100.200"));
    // Without the guest nothing of it stays; with it all is there again.
    node.net.sh("ip link del tap105i0");
    node.run("hook 105 post-stop").ok();
    let left = node.net.sh("ip route show proto 121; ip -6 route show proto 121; ip neigh show nud permanent");
    assert!(!left.contains("198.51.100.32") && !left.contains("110::") && !left.contains("101::7"), "{left}");
    until("the other guest's network still answers", || answers(&provider, "198.51.100.50"));
    node.is_in_line();
}

/// A prefix of one's own on a bridge: the router in front knows the way, and only the guest may use it.
#[test]
fn a_bridged_prefix_is_its_guests_alone() {
    need(&["ping"]);
    let node = Node::new();
    let router = Namespace::new();
    node.net.sh(&format!(
        "ip link add eno1 type veth peer name wan netns {}; ip link set eno1 master vmbr0 up",
        router.path()
    ));
    router.sh("ip link set wan up; ip addr add 203.0.113.1/24 dev wan; ip route add 203.0.113.32/28 via 203.0.113.10");
    node.tree.qemu(105, "net0: virtio=02:00:00:00:00:69,bridge=vmbr0\n");
    node.tree.qemu(106, "net0: virtio=02:00:00:00:00:6a,bridge=vmbr0\n");
    node.run("pool create lan --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.1 203.0.113.0/24").ok();
    node.run("assign 105 203.0.113.10 203.0.113.32/28 --via 203.0.113.10 --no-hookscript").ok();
    node.run("assign 106 203.0.113.11 --no-hookscript").ok();
    let out = "ip route add default via 203.0.113.1";
    let guest = Router::plug(
        &node,
        105,
        "vmbr0",
        "02:00:00:00:00:69",
        &format!("ip addr add 203.0.113.10/24 dev eth0; {out}; ip addr add 203.0.113.46/28 dev lan0"),
        "ip addr add 203.0.113.34/28 dev eth0; ip route add default via 203.0.113.46",
    );
    let other = Router::plug(
        &node,
        106,
        "vmbr0",
        "02:00:00:00:00:6a",
        &format!("ip addr add 203.0.113.11/24 dev eth0; {out}"),
        "true",
    );
    until("the host behind the guest answers", || answers(&router, "203.0.113.34"));
    until("the router answers", || answers(&guest.lan, "203.0.113.1"));
    other.wan.sh("ip addr add 203.0.113.35/32 dev eth0");
    let claim = other.wan.command("ping").args(["-c1", "-W1", "-I", "203.0.113.35", "203.0.113.1"]).output().unwrap();
    assert!(!claim.status.success(), "another guest sends from it");
    router.sh("ip route add 203.0.113.35/32 dev wan");
    assert!(!answers(&router, "203.0.113.35"), "another guest answers for it");
    node.is_in_line();
}
