//! `import`: assignments of many guests from a file, all or none.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::fmt::Write as _;

use common::Node;

fn with_pool() -> Node {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    node
}

fn import(node: &Node, text: &str, options: &str) -> common::Run {
    node.tree.write("file", text);
    node.run(&format!("import {} {options}", node.tree.path("file").display()))
}

#[test]
fn all_of_a_file_is_assigned_in_one_step() {
    let node = with_pool();
    let text = "vmid,address,interface,organization\n100,203.0.113.10,,acme\n101,203.0.113.11,net0,\n100,2001:db8:0:1::10,,acme\n";
    node.tree.write("file", text);
    let command = format!("import {}", node.tree.path("file").display());
    let run = node.changes_nothing(&format!("{command} --dry-run")).ok();
    assert!(run.out.contains("203.0.113.11") && run.out.contains("3 would be assigned, 0 held already"), "{run}");
    let run = node.run(&command).ok();
    assert!(run.out.contains("3 assigned, 0 held already"), "{run}");
    assert!(run.out.contains("hookscript: set for 2 guests"), "{run}");
    node.is_in_line();
    let held = node.run("list --output-format json").ok().out;
    for address in ["203.0.113.10", "203.0.113.11", "2001:db8:0:1::10", "acme"] {
        assert!(held.contains(address), "{address}: {held}");
    }
    node.run("hook 100 pre-start").ok();
    node.run("hook 101 pre-start").ok();

    // The same file again is no change, and says so.
    let again = node.changes_nothing(&format!("{command} --output-format json")).ok().json();
    assert_eq!(again["changed"], false, "{again}");
    assert_eq!(again["assignments"].as_array().unwrap().len(), 3, "{again}");
    // One of it is new by now.
    let run = import(&node, &(text.to_owned() + "101,203.0.113.12,,\n"), "").ok();
    assert!(run.out.contains("1 assigned, 3 held already"), "{run}");
}

#[test]
fn one_line_that_cannot_be_done_stops_all_of_it() {
    let node = with_pool();
    node.run("assign 101 203.0.113.11 --no-hookscript").ok();
    let file = node.tree.path("file");
    for (last, why) in [
        ("100,203.0.113.11", "line 3: 203.0.113.11 is held by guest 101"),
        ("100,198.51.100.9", "line 3: 198.51.100.9 is in no pool"),
        ("999,203.0.113.12", "line 3: guest 999"),
        ("100,203.0.113.12,net7", "line 3: guest 100 has no net7"),
        ("101,203.0.113.10", "line 3: 203.0.113.10 is in line 2 already, for guest 100"),
        ("100;203.0.113.300", "line 3: address: `203.0.113.300`"),
    ] {
        node.tree.write("file", format!("vmid,address,interface\n100,203.0.113.10\n{last}\n"));
        for options in ["", " --dry-run"] {
            let run = node.changes_nothing(&format!("import {}{options}", file.display()));
            assert!(run.code == 1 && run.err.contains("error: cannot import `"), "{run}");
            assert!(run.err.contains(why) && run.err.contains("hint: "), "{why}: {run}");
        }
    }
    let run = import(&node, "\u{1b}[31m", "");
    assert!(run.code == 1 && !run.err.contains('\u{1b}'), "{run:?}");
    node.run("import /nowhere").fails_with(1, &["cannot import `/nowhere`", "No such file"]);
}

#[test]
fn guests_of_other_nodes_and_such_without_cloud_init_are_told_of() {
    let node = with_pool();
    node.tree.write("etc/pve/nodes/n2/qemu-server/300.conf", "net0: virtio=02:00:00:AA:BB:30,bridge=vmbr0\n");
    let run = import(&node, "vmid,address\n300,203.0.113.12\n100,203.0.113.10\n", "").ok();
    assert!(run.out.contains("2 assigned, 0 held already"), "{run}");
    assert!(run.out.contains("hookscript: ") && run.err.contains("/nodes/n2/qemu/300/config"), "{run}");
    assert!(run.out.contains("pve-public-ip show 100"), "{run}");
    let run = import(&node, "vmid,address\n101,203.0.113.11\n", "--no-hookscript").ok();
    assert!(!run.out.contains("hookscript"), "{run}");
}

/// Each line costs the same: a registry does not copy itself for each.
#[test]
fn many_are_assigned_under_one_lock() {
    let node = Node::new();
    node.run("pool create p --profile generic-bridged --bridge vmbr0 --gateway4 198.51.100.1 198.18.0.0/20").ok();
    let mut text = "vmid,address\n".to_owned();
    for number in 0..300 {
        let vmid = 1000 + number;
        let config = format!("net0: virtio=02:00:00:01:{:02x}:{:02x},bridge=vmbr0\n", vmid >> 8, vmid & 255);
        node.tree.write(&format!("etc/pve/nodes/n1/qemu-server/{vmid}.conf"), config);
        writeln!(text, "{vmid},198.18.{}.{}", 1 + number / 256, number % 256).unwrap();
    }
    let run = import(&node, &text, "--no-hookscript").ok();
    assert!(run.out.contains("300 assigned, 0 held already"), "{run}");
    let audit = node.run("audit --output-format json").ok().json();
    let assigned = audit["entries"].as_array().unwrap().iter().filter(|entry| entry["event"] == "assigned").count();
    assert!(assigned > 0, "{audit}");
    node.is_in_line();
}
