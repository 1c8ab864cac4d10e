//! Whatever guests make grow, nobody reads it whole: what a command reads of the kernel does not depend on it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::fs::{self, File};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::strace::straced;
use common::{Ends, Node, need};

/// Longer than anything here takes, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Guest 100 runs with `203.0.113.10`; on a bridge that no pool names is the port of a guest without addresses.
fn with_guest() -> Node {
    let node = Node::with_pool();
    node.plug("tap300i0");
    // A bridge learns only by ports that are connected. The node gets its link-local address with the first of them.
    node.net
        .sh("ip link add vmbr9 type bridge; ip link set vmbr9 up; ip link add tap301i0 type veth peer name gap301i0; \
        ip link set tap301i0 master vmbr9 up; ip link set gap300i0 up; ip link set gap301i0 up");
    for port in ["tap300i0", "tap301i0"] {
        until(|| {
            node.net.sh("bridge link show").lines().any(|line| line.contains(port) && line.contains("forwarding"))
        });
    }
    until(|| {
        let addresses = node.net.sh("ip -6 addr show dev vmbr0");
        addresses.contains("fe80::") && !addresses.contains("tentative")
    });
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    node.run("hook 100 post-start").ok();
    node.is_in_line();
    node
}

/// Has a bridge learn as many MACs as a guest with a small program would in a minute, each another one.
fn learn(node: &Node, port: &str, count: u32) {
    let line = |number: u32| {
        let [a, b, c, d] = number.to_be_bytes();
        format!("fdb replace 06:{:02x}:{a:02x}:{b:02x}:{c:02x}:{d:02x} dev {port} master dynamic\n", port.as_bytes()[5])
    };
    let path = node.tree.path("learnt");
    fs::write(&path, (0..count).map(line).collect::<String>()).unwrap();
    node.net.sh(&format!("bridge -batch {}", path.display()));
}

/// Bytes that a command reads from netlink sockets.
fn reads(node: &Node, command: &str) -> usize {
    need(&["strace"]);
    let trace = node.tree.path("trace");
    straced(node, command, &["-f", "-s", "0", "-o", trace.to_str().unwrap(), "-e", "trace=recvfrom,recvmsg"]).ok();
    let lines = fs::read_to_string(trace).unwrap();
    lines.lines().filter_map(|line| line.rsplit_once(" = ")?.1.parse::<usize>().ok()).sum()
}

#[test]
fn what_bridges_have_learnt_is_not_read() {
    let node = with_guest();
    let commands = ["verify", "plan", "apply", "status", "hook 100 pre-start", "hook 100 post-start"];
    let before: Vec<usize> = commands.iter().map(|command| reads(&node, command)).collect();
    for port in ["tap300i0", "tap301i0"] {
        learn(&node, port, 50_000);
    }
    let learnt = node.net.sh("bridge fdb show | grep -c '^06:'");
    assert!(learnt.trim().parse::<usize>().unwrap() >= 100_000, "the bridges have learnt {learnt}");
    for (command, before) in commands.iter().zip(before) {
        let after = reads(&node, command);
        // Names and numbers of interfaces differ by a few bytes; one entry takes 80.
        assert!(after < before + 4_000, "`{command}` read {before} bytes of the kernel, and {after} after the storm");
    }
    node.run("hook 100 post-stop").ok();
}

#[test]
fn what_bridges_learn_wakes_nobody() {
    let node = with_guest();
    let log = File::create(node.tree.path("guard.log")).unwrap();
    let guard = node.command(&["-v", "guard"]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let guard = Ends(guard);
    until(|| node.tree.read("guard.log").contains("guard: watching node n1"));
    // It has nothing more to do, and is not about to begin.
    until(|| {
        let before = node.tree.read("guard.log").matches("looked because of").count();
        std::thread::sleep(Duration::from_millis(1500));
        let after = node.tree.read("guard.log").matches("looked because of").count();
        common::is_asleep(guard.0.id()) && before == after
    });
    // Both of its threads, in all their waits.
    let woken = || -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", guard.0.id())).unwrap();
        let status = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap());
        let count = |status: String| {
            status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok())
        };
        status.map(|status| count(status).unwrap_or(0u64)).sum()
    };
    let looks = || node.tree.read("guard.log").matches("looked because of").count();
    let (started, woken_before, looks_before) = (Instant::now(), woken(), looks());
    learn(&node, "tap300i0", 50_000);
    // It looks at files twice a second, and takes turns with the thread that does.
    let limit = started.elapsed().as_millis() / 50 + 100;
    let count = woken() - woken_before;
    assert!(u128::from(count) < limit, "woken {count} times, not {limit}");
    assert_eq!(looks(), looks_before, "{}", node.tree.read("guard.log"));
    // It hears what matters all the same.
    node.net.sh("bridge fdb del 02:00:00:aa:bb:00 dev tap100i0 master");
    until(|| node.net.sh("bridge fdb show dev tap100i0").contains("02:00:00:aa:bb:00 sticky"));
    node.net.sh("ip neigh del 203.0.113.10 dev vmbr0");
    until(|| !node.net.marked().is_empty());
}

#[test]
fn a_pin_that_nobody_wants_any_more_is_found_and_a_foreign_one_is_left() {
    let node = with_guest();
    assert_eq!(node.tree.read("run/pve-public-ip/pinned"), "tap100i0 02:00:00:aa:bb:00\n");
    // As a program leaves it that dies after another MAC was registered: the entry is known by its note only.
    node.tree.write(
        "run/pve-public-ip/pinned",
        "tap100i0 02:00:00:aa:bb:00\ntap100i0 02:00:00:99:99:99\ntap999i0 02:00:00:99:99:99\n",
    );
    node.net.sh("bridge fdb add 02:00:00:99:99:99 dev tap100i0 master static sticky; \
        bridge fdb add 02:00:00:77:77:77 dev tap300i0 master static sticky");
    let found = node.run("verify");
    assert_eq!(found.code, 3, "{found}");
    assert!(found.out.contains("02:00:00:99:99:99 is pinned to tap100i0, although it is not bound there"), "{found}");
    assert!(!found.out.contains("02:00:00:77:77:77"), "{found}");
    node.run("apply").ok();
    node.is_in_line();
    let pinned = node.net.sh("bridge fdb show | grep sticky | cut -d' ' -f1-3 | sort");
    assert_eq!(pinned, "02:00:00:77:77:77 dev tap300i0\n02:00:00:aa:bb:00 dev tap100i0\n");
    let notes = node.tree.read("run/pve-public-ip/pinned");
    assert!(notes.contains("tap100i0 02:00:00:aa:bb:00") && !notes.contains("tap100i0 02:00:00:99"), "{notes}");
    // At the end of a guest whose port stays, its pin is removed, and with it the note.
    node.run("hook 100 post-stop").ok();
    assert!(!node.net.sh("bridge fdb show").contains("02:00:00:aa:bb:00 dev tap100i0 sticky"));
    assert!(!node.tree.read("run/pve-public-ip/pinned").contains("02:00:00:aa:bb:00"));
}

#[track_caller]
fn until(is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
