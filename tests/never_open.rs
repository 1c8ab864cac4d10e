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

/// A node with an uplink and a pool whose guard keeps back MACs that the provider does not know; guest 100 runs, 101 is
/// off, 666 holds nothing.
fn guarded() -> Node {
    let node = Node::new();
    node.net.sh(
        "ip link add eno1 type veth peer name provider && ip link set eno1 master vmbr0 up && ip link set provider up",
    );
    node.tree.qemu(666, "net0: virtio=02:00:00:AA:BB:66,bridge=vmbr0\n");
    node.run(
        "pool create hz --profile hetzner-bridged --bridge vmbr0 --gateway4 203.0.113.1 203.0.113.10 203.0.113.11",
    )
    .ok();
    for (vmid, mac) in [(100, "02:00:00:aa:bb:00"), (101, "02:00:00:aa:bb:01")] {
        node.run(&format!("pool add hz 203.0.113.{} --mac {mac}", vmid - 90)).ok();
        node.run(&format!("assign {vmid} 203.0.113.{} --no-hookscript --cloud-init off", vmid - 90)).ok();
    }
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    node.run("hook 100 post-start").ok();
    node
}

/// How a file of the registry may be found: what it is changed to, and what is said of it.
fn spoilt(good: &str) -> Vec<(Option<String>, &'static str)> {
    vec![
        (Some(good.replacen('"', "", 1)), "is not valid JSON"),
        (Some(good.replacen("\"version\"", "\"future_key\": 1, \"version\"", 1)), "has an unknown key `future_key`"),
        (Some(good[..good.len() / 2].to_owned()), "is not valid JSON"),
        (Some(String::new()), "is empty"),
        (Some(good.replacen("\"version\": 1", "\"version\": \"1\"", 1)), "is not valid: version"),
        (Some(good.replacen("\"version\": 1", "\"version\": 2", 1)), "has version 2, but pve-public-ip"),
        (Some("[]".to_owned()), "is not valid JSON"),
        // Something that is no file at all.
        (None, "cannot be read: not a regular file"),
    ]
}

fn put(node: &Node, file: &str, content: Option<&String>) {
    let path = node.tree.path(file);
    let _ = std::fs::remove_file(&path);
    let _ = std::fs::remove_dir(&path);
    match content {
        Some(content) => node.tree.write(file, content),
        None => std::fs::create_dir(path).unwrap(),
    }
}

/// As after a boot: nothing of the kernel and nothing under `/run` is left.
fn reboot(node: &Node) {
    node.net.sh("nft flush ruleset; ip neigh flush all nud permanent");
    let _ = std::fs::remove_dir_all(node.tree.path("run/pve-public-ip"));
}

#[test]
fn whatever_cannot_be_read_protects_as_it_did_last_and_is_said_by_every_command() {
    for file in ["pools.json", "guests/101.json", "released.json", "nodes/n1.json"] {
        let node = guarded();
        node.run("node set --uplink eno1").ok();
        if file == "released.json" {
            node.run("release 101 --no-hookscript").ok();
        }
        let path = format!("etc/pve/public-ip/{file}");
        let good = node.tree.read(&path);
        let before = node.net.filter();
        for (content, reason) in spoilt(&good) {
            put(&node, &path, content.as_ref());
            let sentence = format!("`{}` {reason}", node.tree.path(&path).display());
            for damage in ["true", "nft flush ruleset"] {
                node.net.sh(damage);
                let apply = node.run("apply");
                assert!(apply.code == 4 && apply.out.contains(&format!("problem: {sentence}")), "{file}: {apply}");
                assert!(node.net.filter() == before, "{file} {reason}, {damage}: {apply}");
            }
            let verify = node.run("verify");
            assert!(verify.code == 4 && verify.out.contains(&format!("problem: {sentence}")), "{file}: {verify}");
            assert!(verify.out.contains("its last known good copy counts"), "{file}: {verify}");
            let status = node.run("status");
            assert!(status.code == 4 && status.out.contains(&format!("problem: {sentence}")), "{file}: {status}");
            assert!(status.out.contains("| protected"), "{file}: {status}");
            let doctor = node.run("doctor");
            assert!(doctor.code == 3 && doctor.out.contains("registry-broken"), "{file}: {doctor}");
            let metrics = node.run("metrics").ok();
            assert!(metrics.out.contains("\npve_public_ip_unreadable 1\n"), "{file}: {metrics}");
            for (command, rows) in [("list", 1 + usize::from(file != "released.json")), ("pool list", 1)] {
                let run = node.run(&format!("{command} --output-format json"));
                assert!(run.code == 4 && run.err.contains(&sentence), "{file}: {run}");
                assert_eq!(run.json().as_array().unwrap().len(), rows, "{file}: {run}");
            }
            let show = node.run("pool show hz");
            assert!(show.code == 4 && show.out.contains("203.0.113.10"), "{file}: {show}");
            node.changes_nothing("pool add hz 203.0.113.99").fails_with(4, &[&sentence, "\nhint: "]);
            // Who does not depend on it starts.
            node.run("hook 100 post-stop").ok();
            node.run("hook 100 pre-start").ok();
            node.run("hook 100 post-start").ok();
            assert!(node.net.filter() == before, "{file} {reason}");
        }
        // After a boot nothing but the copies is left.
        put(&node, &path, Some(&"{".to_owned()));
        reboot(&node);
        node.run("apply").fails_with(4, &[]);
        node.run("hook 100 pre-start").ok();
        node.run("hook 100 post-start").ok();
        assert!(node.net.filter() == before, "{file} after a boot");

        // The hint does what it says.
        let hint = format!("pve-public-ip registry restore {file}");
        let verify = node.run("verify");
        assert!(verify.out.contains(&format!("hint: `{hint}`")), "{verify}");
        let run = node.changes_nothing(&format!("registry restore {file} --dry-run")).ok();
        assert_eq!(run.out, good);
        node.run(hint.strip_prefix("pve-public-ip ").unwrap()).ok();
        assert_eq!(node.tree.read(&path), good);
        node.run("registry check").prints("every file of the registry can be read\n");
        node.run(&format!("registry restore {file}")).fails_with(1, &["nothing is wrong with it"]);
        node.is_in_line();
    }
}

#[test]
fn a_guest_whose_own_file_cannot_be_read_does_not_start() {
    let node = guarded();
    node.tree.write("etc/pve/public-ip/guests/101.json", "{");
    node.run("hook 101 pre-start")
        .fails_with(1, &["is not valid JSON", "`pve-public-ip registry restore guests/101.json`"]);
    node.run("registry restore guests/101.json").ok();
    node.run("hook 101 pre-start").ok();
}

#[test]
fn a_guest_starts_by_what_was_known_of_the_pools_and_is_told_so() {
    let node = guarded();
    node.tree.write("etc/pve/public-ip/pools.json", "{");
    let run = node.run("hook 101 pre-start").ok();
    assert!(run.err.contains("is not valid JSON") && run.err.contains("counts for guest 101"), "{run}");
    let again = node.run("hook 101 pre-start").ok();
    assert!(again.err.contains("is not valid JSON"), "said at every start: {again}");
    std::fs::remove_dir_all(node.tree.path("var/lib/pve-public-ip/last-good")).unwrap();
    node.run("hook 101 pre-start").fails_with(1, &["is not valid JSON", "hint: "]);
}

#[test]
fn pools_of_which_nothing_is_known_leave_nobody_out_by_the_uplink() {
    let node = guarded();
    let pools = node.tree.read("etc/pve/public-ip/pools.json");
    for content in [pools.replace('[', ""), "{".to_owned(), pools.replacen('{', "", 1)] {
        node.tree.write("etc/pve/public-ip/pools.json", content);
        std::fs::remove_dir_all(node.tree.path("var/lib/pve-public-ip/last-good")).unwrap();
        reboot(&node);
        let apply = node.run("apply");
        assert_eq!(apply.code, 4, "{apply}");
        assert!(apply.out.contains("guests without addresses are cut off from the uplinks of vmbr0"), "{apply}");
        assert_eq!(node.net.set("guard_enforce"), ["\"eno1\""], "{apply}");
        assert!(node.net.set("router_ports").is_empty() && node.net.set("free_ports").is_empty());
        // Guests with addresses are still known by their own files.
        let known = node.net.set("uplink_registered");
        assert_eq!(known, ["\"eno1\" . 02:00:00:aa:bb:00", "\"eno1\" . 02:00:00:aa:bb:01"]);
        let list = node.run("pool list");
        assert!(list.code == 4 && list.out.starts_with("the pools cannot be read"), "{list}");
        node.run("pool show hz").fails_with(4, &["pools.json"]);
        assert_eq!(node.run("list --output-format json").json().as_array().unwrap().len(), 2);
        // It stays so, and ends with the fault.
        let again = node.run("apply");
        assert!(again.code == 4 && node.net.set("guard_enforce") == ["\"eno1\""], "{again}");
        node.tree.write("etc/pve/public-ip/pools.json", &pools);
        node.run("apply").ok();
        assert!(node.net.set("uplink_registered").contains(&"\"eno1\" . 02:00:00:aa:bb:01".to_owned()));
        node.is_in_line();
    }
}

#[test]
fn a_list_of_guests_that_cannot_be_read_is_not_an_empty_one() {
    let node = guarded();
    let before = node.net.filter();
    let guests = node.tree.path("etc/pve/public-ip/guests");
    std::fs::rename(&guests, guests.with_extension("aside")).unwrap();
    std::fs::write(&guests, "").unwrap();
    node.net.sh("nft flush ruleset");
    let apply = node.run("apply");
    assert!(apply.code == 4 && apply.out.contains("cannot be listed"), "{apply}");
    assert!(node.net.filter() == before, "{apply}");
    assert_eq!(node.run("list --output-format json").json().as_array().unwrap().len(), 2);
    let audit = node.tree.read("var/lib/pve-public-ip/audit.log");
    assert!(!audit.contains("\"released\""), "{audit}");
}

#[test]
fn a_removed_pools_file_is_missed() {
    let node = guarded();
    let before = node.net.filter();
    std::fs::remove_file(node.tree.path("etc/pve/public-ip/pools.json")).unwrap();
    reboot(&node);
    let apply = node.run("apply");
    assert!(
        apply.code == 4 && apply.out.contains("does not exist, although guests hold addresses of its pools"),
        "{apply}"
    );
    node.run("hook 100 pre-start").ok();
    node.run("hook 100 post-start").ok();
    assert!(node.net.filter() == before, "{apply}");
    node.run("registry restore pools.json").ok();
    node.is_in_line();
}

#[test]
fn a_key_of_a_newer_release_is_told_from_a_typing_error() {
    let node = guarded();
    let pools = node.tree.read("etc/pve/public-ip/pools.json");
    node.tree.write("etc/pve/public-ip/pools.json", pools.replacen("\"bridge\"", "\"future_key\": 1, \"bridge\"", 1));
    let verify = node.run("verify");
    assert!(verify.out.contains("if a newer release wrote it, upgrade this node"), "{verify}");
    assert!(!verify.out.contains("remove it"), "{verify}");
    for (release, newer) in [("0.1.0", false), (env!("CARGO_PKG_VERSION"), false), ("0.2.10", true), ("1.0.0", true)] {
        node.tree
            .write("etc/pve/public-ip/releases/n2.json", format!("{{\"release\":\"{release}\",\"hookscript\":true}}"));
        let verify = node.run("verify");
        let said = format!("written by release {release}, which node n2 runs; this is {}", env!("CARGO_PKG_VERSION"));
        assert_eq!(verify.out.contains(&said), newer, "{verify}");
        if newer {
            let hint = "  hint: upgrade this node: `apt update && apt install pve-public-ip`\n";
            assert!(verify.out.contains(hint) && !verify.out.contains("restore"), "{verify}");
        }
        // Managed guests start meanwhile.
        node.run("hook 101 pre-start").ok();
    }
}
