//! What a command opens and reads grows no faster than the cluster. Counted, not timed, so that a loaded machine makes no
//! difference.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::fs;

use common::strace::straced;
use common::{Node, Tree, need};
use serde_json::json;

/// Guests of a cluster of eight nodes, every fourth on this one, with two addresses each; without `.vmlist`.
fn cluster(guests: u32) -> Node {
    let node = Node::new();
    node.run("pool create p --profile generic-bridged --bridge vmbr0 --gateway4 198.51.100.1 198.18.0.0/20").ok();
    for number in 0..guests {
        let vmid = 1000 + number;
        let mac = format!("02:00:00:01:{:02x}:{:02x}", vmid >> 8, vmid & 255);
        let on = if number % 4 == 0 { "n1".to_owned() } else { format!("m{}", number % 7) };
        let config = format!("net0: virtio={mac},bridge=vmbr0\n");
        node.tree.write(&format!("etc/pve/nodes/{on}/qemu-server/{vmid}.conf"), config);
        let held = |at: u32| json!({"address": format!("198.18.{}.{}/32", at >> 8, at & 255), "pool": "p", "assigned_at": "2026-11-22T10:00:00Z"});
        let file = json!({"version": 1, "vmid": vmid, "interfaces": {"net0": {"mac": mac, "addresses":
            [held(256 + 2 * number), held(257 + 2 * number)]}}});
        node.tree.write(&Tree::guest_file(vmid), file.to_string());
    }
    node.run("apply").ok();
    // The audit log takes in what was written by hand.
    node.run("pool add p 192.0.2.1").ok();
    node
}

/// Files of the node that a command opens, and bytes that it reads from them and writes.
///
/// Libraries that other programs look for, and other processes, are not the cluster's doing.
fn counted(node: &Node, command: &str) -> [u64; 3] {
    let directory = node.tree.path("traces");
    fs::create_dir(&directory).unwrap();
    // A file for each process, so that no line is cut in two by another one's.
    let trace = directory.join("trace");
    let options = ["-ff", "-y", "-o", trace.to_str().unwrap(), "-e", "trace=openat,open,read,pread64,write"];
    let run = straced(node, command, &options);
    assert!(matches!(run.code, 0 | 1 | 3), "{run}");
    let root = node.tree.root().to_str().unwrap();
    let text: String = fs::read_dir(&directory)
        .unwrap()
        .map(|file| String::from_utf8_lossy(&fs::read(file.unwrap().path()).unwrap()).into_owned())
        .collect();
    fs::remove_dir_all(&directory).unwrap();
    let calls = |names: &[&str]| -> Vec<u64> {
        let is_one = |line: &&str| names.iter().any(|name| line.starts_with(&format!("{name}(")));
        let lines = text.lines().filter(is_one).filter(|line| line.contains(root));
        lines
            .map(|line| {
                line.rsplit_once(" = ").and_then(|(_, result)| result.split(' ').next()?.parse().ok()).unwrap_or(0)
            })
            .collect()
    };
    let opened = u64::try_from(calls(&["openat", "open"]).len()).unwrap();
    assert!(opened > 0, "`{command}` opened nothing: {text}");
    [opened, calls(&["read", "pread64"]).iter().sum(), calls(&["write"]).iter().sum()]
}

#[test]
fn nothing_grows_faster_than_the_cluster() {
    need(&["strace"]);
    let sizes = [40, 80, 160];
    let nodes = sizes.map(cluster);
    for command in [
        "list",
        "show 1000",
        "status",
        "verify",
        "pool list",
        "pool show p",
        "conflicts list",
        "topology",
        "doctor",
        "assign 1000 --no-hookscript --no-probe",
        "release 1001 --no-hookscript",
        "hook 1000 pre-start",
    ] {
        let [small, middle, large] = [0, 1, 2].map(|at| counted(&nodes[at], command));
        for (what, at) in [("opens", 0), ("reads", 1), ("writes", 2)] {
            let (first, second) = (middle[at].saturating_sub(small[at]), large[at].saturating_sub(middle[at]));
            // Twice as many guests more are twice as much more; a part that is the same for all does not count.
            let limit = first * 5 / 2 + 2048 * u64::from(at > 0) + 16;
            assert!(
                second <= limit,
                "`{command}` {what} {}, {}, {} at {sizes:?} guests",
                small[at],
                middle[at],
                large[at]
            );
        }
    }
    // What one assignment writes does not depend on how many there are.
    let written = nodes.each_ref().map(|node| counted(node, "assign 1004 --no-hookscript --no-probe")[2]);
    assert!(written[2] < written[0] + 4096, "assign writes {written:?} bytes at {sizes:?} guests");
}

/// Whoever brings the node in line after a change has read every guest's file, and compares them then: the hook of the guest
/// that was changed need not read them once more.
#[test]
fn a_hook_right_after_a_change_opens_no_file_of_another_guest() {
    need(&["strace"]);
    let [few, many] = [40, 160].map(|guests| {
        let node = cluster(guests);
        node.run("assign 1000 --more --no-hookscript --no-probe").ok();
        let after_assign = counted(&node, "hook 1000 pre-start")[0];
        // By hand, and the guard or `apply` has seen it.
        let path = Tree::guest_file(1000);
        node.tree.write(&path, node.tree.read(&path) + "\n");
        node.run("apply").ok();
        [after_assign, counted(&node, "hook 1000 pre-start")[0]]
    });
    assert_eq!(few, many, "files opened with 40 and with 160 guests");

    // One that nobody has seen yet is compared with all, and refused if it is in conflict with one.
    let node = cluster(40);
    let path = Tree::guest_file(1000);
    let own = node.tree.read(&path);
    node.tree.write(&path, own.replace("198.18.1.0/32", "198.18.1.9/32"));
    for _ in 0..2 {
        let run = node.run("hook 1000 pre-start");
        assert!(run.code == 1 && run.err.contains("198.18.1.9 is assigned to guest 1000 and to guest 1004"), "{run}");
        // Who brings the node in line does not make it right.
        node.run("apply");
    }
    let run = node.run("hook 1004 pre-start");
    assert!(run.code == 1 && run.err.contains("198.18.1.9 is assigned to guest 1000 and to guest 1004"), "{run}");
    node.tree.write(&path, own);
    node.run("hook 1000 pre-start").ok();
    node.run("hook 1004 pre-start").ok();
}
