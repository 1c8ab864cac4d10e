//! The audit log from outside: who did it, who held what, and what becomes of a change that cannot be written down.

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::common::{BINARY, Node, need};

/// Two owners of an address, one after the other.
fn two_owners() -> Node {
    let node = Node::with_pool();
    node.run_with("assign 100 203.0.113.10 --no-hookscript --organization acme", &[("SUDO_USER", "anna")]).ok();
    let reason = ["release", "100", "--no-hookscript", "--reason", "contract ended"];
    assert!(node.command(&reason).output().unwrap().status.success());
    node.run("assign 101 203.0.113.10 --no-hookscript").ok();
    node
}

/// The entries as one line each, without their times.
fn entries(node: &Node, args: &str) -> Vec<String> {
    let audit = node.run(&format!("audit {args} --output-format json")).ok().json();
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let line = |entry: &serde_json::Value| {
        let keys = ["event", "vmid", "interface", "address", "port", "pool", "text", "found", "why"];
        keys.iter().filter(|key| !entry[**key].is_null()).map(|key| text(&entry[*key])).collect::<Vec<_>>().join(" ")
    };
    audit["entries"].as_array().unwrap().iter().map(line).collect()
}

#[test]
fn who_had_it_is_answered_with_owner_and_time() {
    let node = two_owners();
    assert_eq!(
        entries(&node, "--address 203.0.113.10"),
        [
            "entry-added 203.0.113.10 ovh-rbx",
            "assigned 100 net0 203.0.113.10 ovh-rbx",
            "released 100 net0 203.0.113.10 ovh-rbx contract ended",
            "assigned 101 net0 203.0.113.10 ovh-rbx",
        ]
    );
    assert_eq!(entries(&node, "--address 203.0.113.1"), [""; 0], "only an address that is meant");
    assert_eq!(entries(&node, "--vmid 101"), ["assigned 101 net0 203.0.113.10 ovh-rbx"]);
    assert_eq!(entries(&node, "--pool ovh-rbx --last 1").len(), 1);
    assert_eq!(entries(&node, "--since -1h").len(), entries(&node, "").len());
    assert_eq!(entries(&node, "--until -1h"), [""; 0]);

    let log = node.tree.read("var/lib/pve-public-ip/audit.log");
    let moment = log.lines().find(|line| line.contains("\"released\"")).unwrap().split('"').nth(5).unwrap().to_owned();
    let at = node.run(&format!("audit --address 203.0.113.10 --at {moment}")).ok();
    assert!(!at.out.contains("guest 100"), "the end is not part of it: {at}");
    let day = &moment[..10];
    let at = node.run(&format!("audit --address 203.0.113.10 --at {day}")).ok();
    for word in [
        "203.0.113.10 was held by guest 100 net0 (02:00:00:aa:bb:00), pool ovh-rbx, organization acme\n  from ",
        "203.0.113.10 was held by guest 101 net0 (02:00:00:aa:bb:01), pool ovh-rbx\n  from ",
        " to now\n",
    ] {
        assert!(at.out.contains(word), "without {word:?}: {at}");
    }
    let at = node.run("audit --address 203.0.113.10 --at 2026-03-03").ok();
    let begins = log.split('"').nth(5).unwrap();
    at.prints(&format!(
        "2026-03-03T00:00:00Z to 2026-03-04T00:00:00Z: nobody is known to have held 203.0.113.10; the log begins {}Z\n",
        begins.split('.').next().unwrap()
    ));
}

#[test]
fn who_did_it_is_known_through_sudo_and_tasks() {
    let node = two_owners();
    let audit = node.run("audit --vmid 100 --output-format json").ok().json();
    assert_eq!(audit["entries"][0]["who"]["user"], "root");
    assert_eq!(audit["entries"][0]["who"]["sudo"], "anna");
    let command = audit["entries"][0]["command"].as_str().unwrap();
    assert!(command.starts_with("pve-public-ip --root ") && command.ends_with(" --organization acme"), "{command}");
    let shown = node.run("audit --vmid 100").ok();
    assert!(shown.out.contains("| anna |") && shown.out.contains("because: contract ended"), "{shown}");

    // As Proxmox VE runs a hookscript: from a process that calls itself after its task.
    let upid = "UPID:n1:0000C0DE:0001E240:65A1B2C3:qmstart:101:bob@pve:";
    let root = node.tree.root().display();
    let script =
        format!("exec -a 'task {upid}' bash -c '{BINARY} --root {root} release 101 --no-hookscript >/dev/null; true'");
    assert!(node.net.command("bash").args(["-c", &script]).status().unwrap().success());
    let audit = node.run("audit --vmid 101 --last 1 --output-format json").ok().json();
    let who = &audit["entries"][0]["who"];
    assert_eq!((who["task"].as_str(), who["task_user"].as_str()), (Some(upid), Some("bob@pve")));
}

#[test]
fn what_was_done_by_hand_is_found() {
    let node = two_owners();
    std::fs::remove_file(node.tree.path("etc/pve/public-ip/guests/101.json")).unwrap();
    node.tree.assign_by_hand(200, "02:00:00:aa:bb:02", "203.0.113.12/32", "ovh-rbx");
    node.run("pool add ovh-rbx 203.0.113.20").ok();
    let all = entries(&node, "");
    assert_eq!(
        all[all.len() - 3..],
        [
            "released 101 net0 203.0.113.10 ovh-rbx true",
            "assigned 200 net0 203.0.113.12 ovh-rbx true",
            "entry-added 203.0.113.20 ovh-rbx",
        ]
    );
    // As long ago as the registry says.
    let at = node.run("audit --address 203.0.113.12 --at 2026-11-22T10:00:00Z").ok();
    assert!(at.out.contains("held by guest 200 net0") && at.out.contains("from 2026-11-22T10:00:00Z to now"), "{at}");
}

#[test]
fn a_guests_life_is_told() {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    node.run("hook 100 post-start").ok();
    node.run("assign 100 203.0.113.11 --no-hookscript").ok();
    node.unplug("tap100i0");
    node.run("hook 100 post-stop").ok();
    node.net.sh("nft flush ruleset");
    node.run("apply").ok();
    assert_eq!(
        entries(&node, "")[5..],
        [
            "entry-added 2001:db8:0:1::10 ovh-rbx",
            "assigned 100 net0 203.0.113.10 ovh-rbx",
            "bound 100 net0 203.0.113.10 tap100i0 ovh-rbx",
            "assigned 100 net0 203.0.113.11 ovh-rbx",
            "bound 100 net0 203.0.113.11 tap100i0 ovh-rbx",
            "unbound 100 net0 203.0.113.10 tap100i0 ovh-rbx",
            "unbound 100 net0 203.0.113.11 tap100i0 ovh-rbx",
            "repaired the table is missing or another release's: nothing is protected on this node as it should be",
        ]
    );
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing_and_is_made_up_for() {
    let node = Node::with_pool();
    let log = node.tree.path("var/lib/pve-public-ip/audit.log");
    std::fs::rename(&log, node.tree.path("kept")).unwrap();
    symlink("/dev/full", &log).unwrap();
    let warning = "warning: the audit log cannot be written, and the change is made all the same: \
        Too many levels of symbolic links (os error 40)\n";
    let run = node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    assert_eq!(run.err, warning, "{run}");
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    let run = node.run("hook 100 post-start").ok();
    assert_eq!(run.err, warning, "{run}");
    std::fs::rename(node.tree.path("kept"), &log).unwrap();
    node.run("assign 101 203.0.113.11 --no-hookscript").ok();
    let all = entries(&node, "");
    let (found, own) = ("assigned 100 net0 203.0.113.10 ovh-rbx true", "assigned 101 net0 203.0.113.11 ovh-rbx");
    assert_eq!(all[all.len() - 2..], [found, own]);
}

#[test]
fn rotation_loses_nothing_and_what_is_compressed_is_searched() {
    need(&["logrotate", "gzip"]);
    let node = two_owners();
    let before = entries(&node, "");
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/debian/pve-public-ip.logrotate");
    let rules = std::fs::read_to_string(shipped).unwrap();
    let log = node.tree.path("var/lib/pve-public-ip/audit.log");
    let own = rules.replace("/var/lib/pve-public-ip/audit.log", log.to_str().unwrap());
    assert_ne!(own, rules);
    node.tree.write("logrotate.conf", own);
    let (state, conf) = (node.tree.path("logrotate.state"), node.tree.path("logrotate.conf"));
    for turn in 0..3 {
        // The number of `--address` is another one each time.
        node.run(&format!("pool add ovh-rbx 203.0.113.{}", 20 + turn)).ok();
        let rotate = Command::new("logrotate").arg("-f").arg("-s").arg(&state).arg(&conf).output().unwrap();
        assert!(rotate.status.success() && rotate.stderr.is_empty(), "{rotate:?}");
    }
    node.run("pool add ovh-rbx 203.0.113.30").ok();
    let names: Vec<bool> =
        ["log", "log.1", "log.2.gz", "log.3.gz"].map(|end| log.with_extension(end).exists()).to_vec();
    assert_eq!(names, [true; 4]);
    let all = entries(&node, "");
    assert_eq!(all[..before.len()], before);
    assert_eq!(all.len(), before.len() + 4);
    node.tree.write("var/lib/pve-public-ip/audit.log.4.zst", "?");
    let run = node.run("audit --vmid 100");
    let remark = format!(
        "note: `{}` is not searched: it is compressed in another way than by gzip\n",
        log.with_extension("log.4.zst").display()
    );
    assert!(run.code == 1 && run.out.ends_with(&remark), "{run}");
}

#[test]
fn bad_times_and_reasons_are_refused() {
    let node = Node::with_pool();
    let run = node.run("audit --since tomorrow");
    run.fails_with(2, &["`tomorrow` is not a time; say 2026-03-03, 2026-03-03T10:00:00Z (both UTC), or 2h, 3d"]);
    node.run("audit --at 2026-03-03").fails_with(2, &["--address <ADDRESS>"]);
    for (reason, words) in [("a\nb".to_owned(), "it has a line break"), ("x".repeat(501), "it has 501 characters")] {
        let output = node.command(&["release", "100", "--reason", &reason]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(words), "{text}");
    }
}
