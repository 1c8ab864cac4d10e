//! The way that an administrator goes, from the first pool to the last release, in every form of output.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::common::{Node, Run, Tree};

/// Reads YAML with the reader that Debian ships, not with one that shares our ideas of it.
fn yaml(run: &Run) -> Value {
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)";
    let mut python = std::process::Command::new("/usr/bin/python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs /usr/bin/python3");
    python.stdin.take().unwrap().write_all(run.out.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "this test needs python3-yaml, or the output is not YAML: {run}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The same data in all three forms for programs; the text is for the caller.
#[track_caller]
fn in_every_form(node: &Node, command: &str) -> (String, Value) {
    let text = node.run(command);
    let json = node.run(&format!("{command} --output-format json"));
    let pretty = node.run(&format!("--output-format json-pretty {command}"));
    let yaml_run = node.run(&format!("{command} --output-format yaml"));
    for run in [&json, &pretty, &yaml_run] {
        assert_eq!((run.code, run.err.as_str()), (text.code, text.err.as_str()), "{run}");
        assert!(run.out.ends_with('\n') && !run.out.ends_with("\n\n"), "{run}");
    }
    assert_eq!(json.out.lines().count(), 1, "{json}");
    assert!(pretty.out.lines().count() > 1, "{pretty}");
    let data = json.json();
    assert_eq!(pretty.json(), data, "{pretty}");
    assert_eq!(yaml(&yaml_run), data, "{yaml_run}");
    (text.out, data)
}

#[test]
fn the_sequence_of_the_readme() {
    let node = Node::new();
    node.stand_in_proxmox();
    node.run("pool create ovh-rbx --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.1 203.0.113.10/32 2001:db8:0:1::10/128")
        .prints("pool ovh-rbx created: generic-bridged, bridge vmbr0, 2 entries\n");
    let run = node.run("assign 100 203.0.113.10 2001:db8:0:1::10");
    run.after_running("qm set 100 --hookscript local:snippets/pve-public-ip").prints(
        "203.0.113.10 assigned to guest 100 net0 (02:00:00:aa:bb:00), pool ovh-rbx, gateway 203.0.113.1\n\
         2001:db8:0:1::10 assigned to guest 100 net0 (02:00:00:aa:bb:00), pool ovh-rbx\n\
         hookscript: qm set 100 --hookscript local:snippets/pve-public-ip\n\
         network: the guest has no cloud-init drive: `pve-public-ip show 100` says what to configure inside\n",
    );
    node.is_in_line();
    assert_eq!(node.net.set("bound_ip4"), Vec::<String>::new());

    let protected = "pve-public-ip: guest 100 is protected: net0 203.0.113.10, 2001:db8:0:1::10 bound to 02:00:00:aa:bb:00 on tap100i0\n";
    let run = node.run("hook 100 pre-start").ok();
    assert_eq!((run.out.as_str(), run.err.as_str()), ("", protected));
    assert_eq!(node.net.set("bound_ip4"), ["203.0.113.10"]);
    node.plug("tap100i0");
    let run = node.run("hook 100 post-start").ok();
    assert_eq!((run.out.as_str(), run.err.as_str()), ("", ""));
    assert_eq!(node.net.marked(), ["203.0.113.10 dev vmbr0 lladdr 02:00:00:aa:bb:00 PERMANENT proto 121"]);
    node.run("verify").prints("node n1: the kernel is as it should be, 1 guest is bound\n");

    node.run("hook 100 pre-stop").prints("");
    assert_eq!(node.net.set("bound_ip4"), ["203.0.113.10"], "pre-stop is only an announcement");
    node.unplug("tap100i0");
    let run = node.run("hook 100 post-stop").ok();
    let stopped = "pve-public-ip: guest 100 has stopped: its bindings are removed, its addresses stay reserved\n";
    assert_eq!((run.out.as_str(), run.err.as_str()), ("", stopped));
    assert_eq!(node.net.set("bound_ip4"), Vec::<String>::new());
    assert!(node.net.set("reserved_ip4").contains(&"203.0.113.10".to_owned()));
    assert_eq!(node.net.marked(), Vec::<String>::new());

    node.run("release 100").after_running("qm set 100 --delete hookscript").prints(
        "203.0.113.10 released from guest 100\n2001:db8:0:1::10 released from guest 100\n\
         hookscript: qm set 100 --delete hookscript\n",
    );
    node.is_in_line();
    node.run("pool remove ovh-rbx").prints("pool ovh-rbx removed\n");
    node.is_in_line();
    assert_eq!(node.net.set("reserved_ip4"), Vec::<String>::new());
    assert!(!node.tree.path("etc/pve/public-ip/guests/100.json").exists());
}

#[test]
fn an_address_carries_its_customer_and_its_cost() {
    let node = Node::with_pool();
    node.run("pool add ovh-rbx 203.0.113.20 --monthly-cost-cents 205 --gateway 203.0.113.254")
        .prints("203.0.113.20 added to pool ovh-rbx\n");
    node.run("assign 100 203.0.113.20 --organization org-123456789 --no-hookscript").prints(
        "203.0.113.20 assigned to guest 100 net0 (02:00:00:aa:bb:00), pool ovh-rbx, gateway 203.0.113.254\n\
         network: the guest has no cloud-init drive: `pve-public-ip show 100` says what to configure inside\n",
    );
    let (text, data) = in_every_form(&node, "show 100");
    let since = data["interfaces"]["net0"]["addresses"][0]["assigned_at"].as_str().unwrap();
    let (known, inside) = text.split_once("inside: ").unwrap();
    assert!(inside.starts_with("not told, because the guest has no cloud-init drive"), "{inside}");
    assert_eq!(
        known,
        format!(
            "guest 100 (web) on node n1: reserved\nnet0: 02:00:00:aa:bb:00, port tap100i0\n  203.0.113.20  pool ovh-rbx, gateway 203.0.113.254, \
             since {since}, organization org-123456789, 2.05 a month\nhookscript: not registered; `qm set 100 --hookscript local:snippets/pve-public-ip`\n"
        )
    );
    assert_eq!(
        data,
        json!({"version": 1, "vmid": 100, "node": "n1", "state": "reserved", "hookscript_registered": false, "notes": [],
            "inside": data["inside"],
            "interfaces": {"net0": {"mac": "02:00:00:aa:bb:00", "addresses": [{"address": "203.0.113.20",
                "pool": "ovh-rbx", "gateway": "203.0.113.254", "organization": "org-123456789", "assigned_at": since}]}}})
    );
    let (text, data) = in_every_form(&node, "list");
    assert_eq!(
        text,
        "+------+------+--------------+-------------------+---------+------+----------+\n\
         | vmid | net  | address      | mac               | pool    | node | state    |\n\
         +------+------+--------------+-------------------+---------+------+----------+\n\
         | 100  | net0 | 203.0.113.20 | 02:00:00:aa:bb:00 | ovh-rbx | n1   | reserved |\n\
         +------+------+--------------+-------------------+---------+------+----------+\n"
    );
    assert_eq!(
        data,
        json!({"notes": [], "assignments": [{"vmid": 100, "interface": "net0", "address": "203.0.113.20", "mac": "02:00:00:aa:bb:00", "pool": "ovh-rbx",
            "gateway": "203.0.113.254", "organization": "org-123456789", "assigned_at": since, "monthly_cost_cents": 205,
            "node": "n1", "state": "reserved"}]})
    );
    // What is said later replaces what is known, and nothing else.
    let entry = |node: &Node| {
        let data = node.run("pool show ovh-rbx --output-format json").ok().json();
        let entry = data["addresses"].as_array().unwrap().iter().find(|entry| entry["address"] == "203.0.113.20");
        let entry = entry.unwrap().clone();
        json!([entry["mac"], entry["gateway"], entry["monthly_cost_cents"]])
    };
    let add = |options: &str| node.run(&format!("pool add ovh-rbx 203.0.113.20 {options}"));
    add("--monthly-cost-cents 99 --mac 02:00:00:aa:bb:00")
        .prints("203.0.113.20 of pool ovh-rbx changed: MAC none -> 02:00:00:aa:bb:00, cost 2.05 -> 0.99\n");
    assert_eq!(node.run("list --output-format json").json()["assignments"][0]["monthly_cost_cents"], 99);
    add("--monthly-cost-cents 200 --dry-run")
        .prints("203.0.113.20 of pool ovh-rbx would be changed: cost 0.99 -> 2.00\n");
    add("--monthly-cost-cents 200").prints("203.0.113.20 of pool ovh-rbx changed: cost 0.99 -> 2.00\n");
    assert_eq!(entry(&node), json!(["02:00:00:aa:bb:00", "203.0.113.254", 200]));
    add("").prints("203.0.113.20 of pool ovh-rbx is unchanged\n");
    add("--no-mac").prints("203.0.113.20 of pool ovh-rbx changed: MAC 02:00:00:aa:bb:00 -> none\n");
    add("--no-monthly-cost").prints("203.0.113.20 of pool ovh-rbx changed: cost 2.00 -> none\n");
    let moved = add("--no-gateway").ok();
    assert!(
        moved.out.starts_with(
            "203.0.113.20 of pool ovh-rbx changed: gateway 203.0.113.254 -> none\n\
             guest 100 net0 203.0.113.20: gateway 203.0.113.254 -> 203.0.113.1\n"
        ),
        "{moved}"
    );
    assert_eq!(entry(&node), json!([null, "203.0.113.1", null]));
    assert_eq!(node.run("list --output-format json").json()["assignments"][0]["gateway"], "203.0.113.1");
    add("--mac 02:00:00:aa:bb:00 --no-mac").fails_with(2, &["cannot be used with"]);
}

#[test]
fn pools_are_shown_in_every_form() {
    let node = Node::new();
    node.run("pool list").prints("no pools; `pve-public-ip pool create` makes one\n");
    node.run("pool create lan --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.9 --gateway6 fe80::1 203.0.113.8/29 2001:db8:1::/64").ok();
    node.run("pool create routed --profile hetzner-routed --bridge vmbr1 192.0.2.0/28").ok();
    node.run("assign 100 203.0.113.10").ok();
    let (text, data) = in_every_form(&node, "pool list");
    assert_eq!(
        text,
        "+-----------+-----------------+--------+-------------+--------+------+----------+-------+---------+----------+\n\
         | pool      | profile         | bridge | gateway     | family | size | assigned | free  | cooling | reserved |\n\
         +-----------+-----------------+--------+-------------+--------+------+----------+-------+---------+----------+\n\
         | lan       | generic-bridged | vmbr0  | 203.0.113.9 | IPv4   | 8    | 1        | 4     | 0       | 3        |\n\
         | lan       | generic-bridged | vmbr0  | fe80::1     | IPv6   | 2^64 | 0        | ~2^64 | 0       | 1        |\n\
         | routed    | hetzner-routed  | vmbr1  |             | IPv4   | 16   | 0        | 16    | 0       | 0        |\n\
         | all pools |                 |        |             | IPv4   | 24   | 1        | 20    | 0       | 3        |\n\
         | all pools |                 |        |             | IPv6   | 2^64 | 0        | ~2^64 | 0       | 1        |\n\
         +-----------+-----------------+--------+-------------+--------+------+----------+-------+---------+----------+\n"
    );
    let totals = |size: Value, assigned: u64, free: Value, reserved: u64| json!({"size": size, "assigned": assigned, "free": free, "cooling": 0, "reserved": reserved});
    let lan = json!({"ipv4": totals(json!(8), 1, json!(4), 3),
        "ipv6": totals(json!("18446744073709551616"), 0, json!("18446744073709551615"), 1)});
    assert_eq!(
        data,
        json!({"notes": [], "pools": [{"name": "lan", "profile": "generic-bridged", "mode": "bridged", "bridge": "vmbr0",
                "gateway4": "203.0.113.9", "gateway6": "fe80::1", "entries": 2, "enforce": "on",
                "nodes": [], "misplaced": [], "totals": lan},
            {"name": "routed", "profile": "hetzner-routed", "mode": "routed", "bridge": "vmbr1", "entries": 1,
                "enforce": "on", "nodes": [], "misplaced": [], "totals": {"ipv4": totals(json!(16), 0, json!(16), 0)}}]})
    );
    let (text, data) = in_every_form(&node, "pool show lan");
    assert_eq!(
        text,
        "pool lan: generic-bridged, bridge vmbr0, uplink guard report, probe assign, cool-down 1h\n\
         +-----------------------------------------------------+-----+-------------+------+-------------------------------------+\n\
         | address                                             | mac | gateway     | cost | held by                             |\n\
         +-----------------------------------------------------+-----+-------------+------+-------------------------------------+\n\
         | 203.0.113.8/29                                      |     | 203.0.113.9 |      |                                     |\n\
         | - 203.0.113.8                                       |     |             |      | (the network address)               |\n\
         | - 203.0.113.9                                       |     |             |      | (the gateway)                       |\n\
         | - 203.0.113.10                                      |     |             |      | 100 net0                            |\n\
         | - 203.0.113.11 to 203.0.113.14                      |     |             |      | (free)                              |\n\
         | - 203.0.113.15                                      |     |             |      | (the broadcast address)             |\n\
         | 2001:db8:1::/64                                     |     | fe80::1     |      |                                     |\n\
         | - 2001:db8:1::                                      |     |             |      | (the subnet-router anycast address) |\n\
         | - 2001:db8:1::1 to 2001:db8:1:0:ffff:ffff:ffff:ffff |     |             |      | (free)                              |\n\
         +-----------------------------------------------------+-----+-------------+------+-------------------------------------+\n"
    );
    let holders = json!([{"vmid": 100, "interface": "net0", "address": "203.0.113.10"}]);
    assert_eq!(data["addresses"][0]["holders"], holders);
    assert_eq!(data["addresses"][0]["free"], json!([{"first": "203.0.113.11", "last": "203.0.113.14"}]));
    // A pool of four thousand addresses that are all held has a line for each, as wide as any.
    node.run("pool create wide --profile generic-bridged --bridge vmbr0 --gateway4 198.51.100.1 198.18.16.0/20").ok();
    let addresses: Vec<String> = (0..4096).map(|n| format!("198.18.{}.{}/32", 16 + n / 256, n % 256)).collect();
    for (at, part) in addresses.chunks(1024).enumerate() {
        let assigned =
            |address: &String| json!({"address": address, "pool": "wide", "assigned_at": "2026-11-22T10:00:00Z"});
        let addresses: Vec<_> = part.iter().map(assigned).collect();
        let file = json!({"version": 1, "vmid": 900 + at, "interfaces": {"net0": {"mac": format!("02:00:00:00:09:0{at}"), "addresses": addresses}}});
        node.tree.write(&Tree::guest_file(900 + u32::try_from(at).unwrap()), file.to_string());
    }
    let run = node.run("pool show wide").ok();
    assert_eq!(run.out.lines().count(), 4096 + 6, "{run}");
    assert!(run.out.lines().all(|line| line.len() < 100), "{run}");
    node.run("pool remove lan 2001:db8:1::/64").prints("2001:db8:1::/64 of pool lan removed\n");
    node.changes_nothing("pool remove lan").fails(
        1,
        "cannot remove from pool `lan`: 203.0.113.10 of pool `lan` is assigned to guest 100",
        "first `pve-public-ip release 100 203.0.113.10`",
    );
}

#[test]
fn tables_have_frames_where_the_locale_can_show_them() {
    let node = Node::with_pool();
    let run = node.run_with("pool list", &[("LC_ALL", "C.UTF-8")]).ok();
    assert!(run.out.starts_with("┌") && run.out.contains("╞"), "{run}");
}

#[test]
fn the_next_free_address_is_taken() {
    let node = Node::with_pool();
    node.tree.qemu(102, "net0: virtio=02:00:00:AA:BB:03,bridge=vmbr0\nnet1: virtio=02:00:00:AA:BB:04,bridge=vmbr0\n");
    let assigned =
        |args: &str| node.run(&format!("{args} --no-hookscript --output-format json")).ok().json()["assigned"].clone();
    assert_eq!(assigned("assign 100"), json!(["203.0.113.10", "2001:db8:0:1::10"]));
    assert_eq!(assigned("assign 101 -4 --pool ovh-rbx"), json!(["203.0.113.11"]));
    assert_eq!(assigned("assign 102 -4 --net 1"), json!(["203.0.113.12"]));
    let shown = node.run("show 102 --output-format json").json();
    assert_eq!(shown["interfaces"]["net1"]["mac"], "02:00:00:aa:bb:04");
    node.changes_nothing("assign 102 -6").fails(
        1,
        "cannot assign to guest 102: pool `ovh-rbx` has no free IPv6 address",
        "only IPv4: add -4; more addresses: `pve-public-ip pool add ovh-rbx PREFIX`",
    );
    // Nothing is given where only half can be.
    node.changes_nothing("assign 102").fails(
        1,
        "cannot assign to guest 102: pool `ovh-rbx` has no free IPv6 address",
        "only IPv4: add -4; more addresses: `pve-public-ip pool add ovh-rbx PREFIX`",
    );
    // Released addresses come back when they have cooled down; the node's own never.
    node.run("pool set ovh-rbx --cool-down 0").ok();
    node.run("release 101 --no-hookscript").ok();
    assert_eq!(assigned("assign 102 -4"), json!(["203.0.113.11"]));
    node.net.sh("ip addr add 203.0.113.13/24 dev vmbr0");
    node.changes_nothing("assign 102 -4 --more").fails(
        1,
        "cannot assign to guest 102: pool `ovh-rbx` has no free IPv4 address",
        "only IPv6: add -6; more addresses: `pve-public-ip pool add ovh-rbx PREFIX`",
    );
}

#[test]
fn a_prefix_goes_to_a_router_guest() {
    let node = Node::with_pool();
    node.run("pool add ovh-rbx 198.51.100.0/24").ok();
    node.run("assign 100 198.51.100.8/29 --no-hookscript").prints(
        "198.51.100.8/29 assigned to guest 100 net0 (02:00:00:aa:bb:00), pool ovh-rbx, gateway 203.0.113.1\n\
         network: the guest has no cloud-init drive: `pve-public-ip show 100` says what to configure inside\n",
    );
    for taken in ["198.51.100.9", "198.51.100.0/28", "198.51.100.8/30"] {
        node.changes_nothing(&format!("assign 101 {taken}")).fails(
            1,
            &format!("cannot assign to guest 101: {taken} is held by guest 100, which holds 198.51.100.8/29"),
            "to move it: `pve-public-ip release 100 198.51.100.8/29`",
        );
    }
}

#[test]
fn two_nics_of_a_bond_share_an_address() {
    let node = Node::with_pool();
    let nics = "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\nnet1: virtio=02:00:00:AA:BB:00,bridge=vmbr0\nnet2: virtio=02:00:00:AA:BB:07,bridge=vmbr0\n";
    node.tree.qemu(100, nics);
    node.changes_nothing("assign 100 203.0.113.10 --net 0 --net 2").fails(
        1,
        "cannot assign to guest 100: net0 and net2 of guest 100 have different MACs",
        "an address can be on two NICs only if they have the same MAC (a bond); assign it to one of them",
    );
    node.run("assign 100 203.0.113.10 --net 0 --net 1 --no-hookscript").ok();
    node.run("hook 100 pre-start").ok();
    node.is_in_line();
    assert_eq!(node.net.set("ports"), ["\"tap100i0\"", "\"tap100i1\""]);
}

#[test]
fn assigning_again_changes_nothing() {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.changes_nothing("assign 100 203.0.113.10 --no-hookscript").prints(
        "203.0.113.10 is already assigned to guest 100 net0 (02:00:00:aa:bb:00), pool ovh-rbx, gateway 203.0.113.1\n\
         network: the guest has no cloud-init drive: `pve-public-ip show 100` says what to configure inside\n",
    );
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let node = Node::new();
    node.stand_in_proxmox();
    let create = "pool create p --profile generic-bridged --bridge vmbr0 203.0.113.10";
    node.changes_nothing(&format!("--dry-run {create}"))
        .prints("pool p would be created: generic-bridged, bridge vmbr0, 1 entry\n");
    node.run(create).ok();
    for (command, says) in [
        ("pool add p 203.0.113.11", "203.0.113.11 would be added to pool p\n"),
        ("pool remove p", "pool p would be removed\n"),
        ("pool remove p 203.0.113.10", "203.0.113.10 of pool p would be removed\n"),
        (
            "assign 100",
            "203.0.113.10 would be assigned to guest 100 net0 (02:00:00:aa:bb:00), pool p\n\
             hookscript: qm set 100 --hookscript local:snippets/pve-public-ip (not run)\n\
             network: the guest has no cloud-init drive: `pve-public-ip show 100` says what to configure inside\n",
        ),
    ] {
        node.changes_nothing(&format!("{command} --dry-run")).prints(says);
    }
    node.run("assign 100").ok();
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    let calls = node.calls();
    node.changes_nothing("release 100 --dry-run").prints(
        "203.0.113.10 would be released from guest 100\n\
         guest 100 is running: it cannot use the address any more, its binding would be removed now\n\
         hookscript: qm set 100 --delete hookscript (not run)\n",
    );
    assert_eq!(node.calls(), calls);
    let plan = node.changes_nothing("plan").ok();
    assert!(plan.out.contains("tap100i0"), "{plan}");
    assert_eq!(node.changes_nothing("apply --dry-run").ok().out, plan.out);
    // A pretended command is refused for the same reasons as a real one.
    node.changes_nothing("assign 101 203.0.113.10 --dry-run").fails(
        1,
        "cannot assign to guest 101: 203.0.113.10 is held by guest 100",
        "to move it: `pve-public-ip release 100 203.0.113.10`",
    );
}

#[test]
fn drift_is_found_said_and_repaired() {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.run("hook 100 pre-start").ok();
    let good = node.net.filter();
    node.net.sh("nft delete element bridge pve-public-ip bound_ip4 '{ 203.0.113.10 }'");
    let (text, data) = in_every_form(&node, "verify");
    assert!(text.starts_with("drift: ") && text.ends_with("hint: `pve-public-ip apply` repairs it\n"), "{text}");
    assert_eq!((text.matches("drift: ").count(), data["drift"].as_array().unwrap().len()), (1, 1), "{text}");
    assert_eq!(node.run("verify").code, 3);
    let (_, plan) = in_every_form(&node, "plan");
    assert_eq!(plan["steps"], json!(["+ bound_ip4 { 203.0.113.10 }"]));
    node.run("apply").prints("+ bound_ip4 { 203.0.113.10 }\n1 changes made\n");
    assert!(node.net.filter() == good);
    node.run("apply").prints("nothing to do\n");
    node.run("plan").prints("nothing to do\n");

    for damage in [
        "nft flush ruleset",
        "nft delete table bridge pve-public-ip",
        "nft flush chain bridge pve-public-ip prerouting",
        "nft add element bridge pve-public-ip bound_ip4 '{ 203.0.113.99 }'",
        "nft flush set bridge pve-public-ip reserved_ip4",
    ] {
        node.net.sh(damage);
        let run = node.run("verify");
        assert_eq!(run.code, 3, "after {damage}: {run}");
        node.run("apply").ok();
        assert!(node.net.filter() == good, "after {damage}");
        node.is_in_line();
    }
}

#[test]
fn release_while_the_guest_runs_says_so_and_removes_the_binding_at_once() {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 203.0.113.11 --no-hookscript").ok();
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    node.run("hook 100 post-start").ok();
    node.run("release 100 203.0.113.11 --no-hookscript").prints(
        "203.0.113.11 released from guest 100\nguest 100 is running: it cannot use the address any more, its binding is removed now\n",
    );
    assert_eq!(node.net.set("bound_ip4"), ["203.0.113.10"]);
    node.run("release 100 --no-hookscript").ok();
    assert_eq!(node.net.set("bound_ip4"), Vec::<String>::new());
    assert_eq!(node.net.marked(), Vec::<String>::new());
    node.is_in_line();
    node.changes_nothing("release 100").prints("guest 100 has no public address any more\n");
}

#[test]
fn a_destroyed_guests_addresses_can_be_released() {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    std::fs::remove_file(node.tree.path("etc/pve/nodes/n1/qemu-server/100.conf")).unwrap();
    let run = node.run("verify");
    assert_eq!(
        (run.code, run.out.as_str()),
        (
            1,
            "problem: guest 100 has public addresses, but its configuration cannot be found\n  hint: if it was destroyed: `pve-public-ip release 100`\n"
        ),
        "{run}"
    );
    node.run("release 100").prints("203.0.113.10 released from guest 100\n");
    node.is_in_line();
}

#[test]
fn containers_and_guests_behind_the_nic_firewall_have_their_own_ports() {
    let node = Node::with_pool();
    node.run("assign 200 203.0.113.10 --no-hookscript").ok();
    let run = node.run("hook 200 pre-start").ok();
    assert_eq!(
        run.err,
        "pve-public-ip: guest 200 is protected: net0 203.0.113.10 bound to 02:00:00:aa:bb:02 on veth200i0\n"
    );
    assert_eq!(node.net.set("ports"), ["\"veth200i0\""]);
    node.run("hook 200 post-stop").ok();
    node.is_in_line();
}

#[test]
fn schemas_and_completions_are_printed() {
    let node = Node::new();
    let (text, data) = in_every_form(&node, "schema");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), data["schema"]);
    let keys: Vec<&String> = data["schema"].as_object().unwrap().keys().collect();
    let files = [
        "audit.log",
        "guests/VMID.json",
        "labels",
        "nodes/NODE.json",
        "partition",
        "pools.json",
        "pools/NAME.json",
        "profile",
    ];
    assert_eq!(keys, files.into_iter().chain(["released.json", "reply", "request"]).collect::<Vec<_>>());
    for (file, key) in [("guest", "interfaces"), ("pools", "pools"), ("node", "uplinks"), ("profile", "mode")] {
        let (_, data) = in_every_form(&node, &format!("schema {file}"));
        let known = &data["schema"]["properties"];
        assert!(known[key].is_object() && known["version"].is_object(), "{file}: {data}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let run = node.run(&format!("completion {shell}")).ok();
        assert!(run.out.contains("pve-public-ip"), "{shell}: {run}");
    }
    let run = node.run("completion bash").ok();
    node.tree.write("completion", &run.out);
    node.net.sh(&format!("bash -n {}", node.tree.path("completion").display()));
}

#[test]
fn the_root_can_come_from_the_environment() {
    let node = Node::with_pool();
    let mut command = node.net.command(crate::common::BINARY);
    let output = command
        .env("PVE_PUBLIC_IP_ROOT", node.tree.root())
        .args(["pool", "list", "--output-format", "json"])
        .output()
        .unwrap();
    let run = Run::of("pool list".to_owned(), &output).ok();
    assert_eq!(run.json()["pools"][0]["name"], "ovh-rbx");
}

#[test]
fn output_to_a_closed_pipe_is_no_error() {
    let node = Node::with_pool();
    let mut child = node.command(&["schema"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    Run::of("schema | true".to_owned(), &child.wait_with_output().unwrap()).prints("");
}

#[test]
fn what_a_pool_and_a_nic_may_do_is_changed_by_command() {
    let node = Node::new();
    node.net.sh("ip link add eno1 type veth peer name p0; ip link set eno1 master vmbr0 up");
    node.run("pool create lan --profile generic-bridged --bridge vmbr0 203.0.113.8/29").ok();
    node.changes_nothing("pool set wan --uplink-guard off").fails(
        1,
        "cannot change pool `wan`: there is no pool `wan`",
        "did you mean `lan`?",
    );
    node.run("pool set lan --uplink-guard enforce --allow-mac 02:00:00:00:00:01 --allow-mac 02:00:00:aa:bb:01 --allow-mac 02:00:00:aa:bb:02 --yes").ok();
    node.run("pool set lan --forbid-mac 02:00:00:00:00:01 --guest-routers true").prints(
        "pool lan changed: uplink guard enforce, probe assign, cool-down 1h, MACs allowed besides: 02:00:00:aa:bb:01 02:00:00:aa:bb:02, guest routers\n\
         note: guest 100 net0 does not reach the provider: no pool knows its MAC 02:00:00:aa:bb:00\n  \
         hint: if the provider knows this MAC: `pve-public-ip pool set lan --allow-mac 02:00:00:aa:bb:00`\n",
    );
    node.changes_nothing("set 100 --dhcp false").fails(
        1,
        "cannot change guest 100: nothing is assigned to guest 100 net0",
        "`pve-public-ip list` shows who holds what",
    );
    node.run("assign 100 203.0.113.10").ok();
    node.run("set 100 --trunk 20 --trunk 10 --dhcp false --any-destination true")
        .prints("guest 100 net0 changed: DHCP forbidden, gets frames for others too, trunk of VLANs 10 20\n");
    node.changes_nothing("set 100 --link-local 2001:db8::1").fails(
        1,
        "cannot change guest 100: guest 100: interfaces.net0.link_local: 2001:db8::1 is not in fe80::/10",
        "`pve-public-ip show 100` shows what there is",
    );
    node.run("set 100 --no-trunk --dhcp true --any-destination false --link-local fe80::77")
        .prints("guest 100 net0 changed: DHCP allowed, gets only frames for itself, link-local fe80::77\n");
    let file: serde_json::Value = serde_json::from_str(&node.tree.read("etc/pve/public-ip/guests/100.json")).unwrap();
    let mut interface = file["interfaces"]["net0"].clone();
    interface.as_object_mut().unwrap().remove("addresses");
    assert_eq!(interface, json!({"mac": "02:00:00:aa:bb:00", "link_local": ["fe80::77"]}), "defaults are not written");
}
