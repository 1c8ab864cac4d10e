//! Many commands at once, on one node and on two that share `/etc/pve`: one address has one holder, and a lock that a
//! dead process left does not stop the living.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use common::{BRIDGE, Namespace, Node, Run, Tree, need};
use pve_public_ip::paths::Paths;
use pve_public_ip::store::Store;

/// Shorter than anybody waits for a lock, and long enough for a loaded machine.
const AT_ONCE: Duration = Duration::from_secs(25);

const LOCK: &str = "etc/pve/priv/lock/domain-pve-public-ip";

/// Starts `assign VMID` for each guest at once and waits for all.
fn assign_at_once(jobs: &[(&Node, u32)]) -> Vec<Run> {
    let start = |(node, vmid): &(&Node, u32)| -> (u32, Child) {
        let mut command = node.command(&["assign", &vmid.to_string(), "--output-format", "json"]);
        (*vmid, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    };
    let started: Vec<(u32, Child)> = jobs.iter().map(start).collect();
    let wait = |(vmid, child): (u32, Child)| Run::of(format!("assign {vmid}"), &child.wait_with_output().unwrap());
    started.into_iter().map(wait).collect()
}

fn with_guests(tree: &Tree, vmids: impl Iterator<Item = u32>) {
    for vmid in vmids {
        tree.qemu(vmid, format!("net0: virtio=02:00:00:01:{:02X}:{:02X},bridge=vmbr0\n", vmid / 256, vmid % 256));
    }
}

/// Every address that the registry gives to somebody; it must be whole and without contradiction.
fn holders(tree: &Tree) -> Vec<String> {
    let store = Store::new(&Paths::new(tree.root()), &tree.name.parse().unwrap());
    let registry = store.load().unwrap().registry;
    assert_eq!((registry.broken.clone(), registry.conflicts()), (Vec::new(), Vec::new()));
    registry.assignments().map(|(.., assigned)| assigned.address.to_string()).collect()
}

#[test]
fn fifty_processes_empty_a_pool_of_fifty() {
    let node = Node::new();
    // 32 + 16 + 2 addresses; the gateway is elsewhere, so every one of them can be handed out.
    node.run("pool create p --profile generic-bridged --bridge vmbr0 --gateway4 198.51.100.1 192.0.2.0/27 192.0.2.32/28 192.0.2.48/31").ok();
    with_guests(&node.tree, 300..351);
    let jobs: Vec<(&Node, u32)> = (300..350).map(|vmid| (&node, vmid)).collect();
    let mut given = BTreeSet::new();
    for run in assign_at_once(&jobs) {
        let run = run.ok();
        let address = run.json()["assigned"][0].as_str().unwrap().to_owned();
        assert!(given.insert(address), "given twice: {run}");
    }
    assert_eq!(given.len(), 50);
    assert_eq!(BTreeSet::from_iter(holders(&node.tree)), given);
    assert_eq!(holders(&node.tree).len(), 50);
    let audit = node.run("audit --output-format json").ok().json();
    let entries = audit["entries"].as_array().unwrap().iter().filter(|entry| entry["event"] == "assigned");
    let told: Vec<&str> = entries.map(|entry| entry["address"].as_str().unwrap()).collect();
    assert_eq!((told.len(), &audit["unreadable"]), (50, &0.into()));
    assert!(told.into_iter().all(|address| given.contains(address)), "{audit}");
    let exhausted = "cannot assign to guest 350: pool `p` has no free IPv4 address";
    node.changes_nothing("assign 350").fails(1, exhausted, "more addresses: `pve-public-ip pool add p PREFIX`");
    node.is_in_line();
}

#[test]
fn two_nodes_never_give_one_address_twice() {
    let one = Node::new();
    let two = Node { tree: one.tree.beside("n2"), net: Namespace::new() };
    two.net.sh(BRIDGE);
    one.run("pool create p --profile generic-bridged --bridge vmbr0 --gateway4 198.51.100.1 192.0.2.0/27").ok();
    with_guests(&one.tree, 300..316);
    with_guests(&two.tree, 400..416);
    let jobs: Vec<(&Node, u32)> = (0..16).flat_map(|n| [(&one, 300 + n), (&two, 400 + n)]).collect();
    let mut given = BTreeSet::new();
    for run in assign_at_once(&jobs) {
        let run = run.ok();
        assert!(given.insert(run.json()["assigned"][0].as_str().unwrap().to_owned()), "given twice: {run}");
    }
    assert_eq!(given.len(), 32);
    assert_eq!(BTreeSet::from_iter(holders(&two.tree)), given);
    // Each node's log tells what both did, as soon as anything is changed on it.
    for node in [&one, &two] {
        node.run("pool set p --guest-routers false").ok();
        let audit = node.run("audit --output-format json").ok().json();
        let of = |found: bool| {
            let entries = audit["entries"].as_array().unwrap().iter();
            entries.filter(|entry| entry["event"] == "assigned" && (entry["found"] == true) == found).count()
        };
        assert_eq!((of(false), of(true)), (16, 16));
    }
    assert!(!one.tree.path(LOCK).exists(), "the lock is still there");
    for (node, vmid) in [(&one, 500), (&two, 501)] {
        with_guests(&node.tree, vmid..=vmid);
        let sentence = format!("cannot assign to guest {vmid}: pool `p` has no free IPv4 address");
        node.changes_nothing(&format!("assign {vmid}")).fails(
            1,
            &sentence,
            "more addresses: `pve-public-ip pool add p PREFIX`",
        );
        // The other node's guests were given their addresses after this node looked last.
        node.run("apply").ok();
        node.is_in_line();
    }
}

#[test]
fn one_address_asked_for_by_many_has_one_holder() {
    let node = Node::with_pool();
    with_guests(&node.tree, 300..310);
    let start = |vmid: u32| {
        let mut command = node.command(&["assign", &vmid.to_string(), "203.0.113.12"]);
        (vmid, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    };
    let started: Vec<(u32, Child)> = (300..310).map(start).collect();
    let runs: Vec<(u32, Run)> = started
        .into_iter()
        .map(|(vmid, child)| (vmid, Run::of(format!("assign {vmid}"), &child.wait_with_output().unwrap())))
        .collect();
    let (winners, losers): (Vec<_>, Vec<_>) = runs.into_iter().partition(|(_, run)| run.code == 0);
    assert_eq!(winners.len(), 1, "{winners:?}");
    let winner = winners[0].0;
    for (vmid, run) in losers {
        let sentence = format!("cannot assign to guest {vmid}: 203.0.113.12 is held by guest {winner}");
        run.fails(1, &sentence, &format!("to move it: `pve-public-ip release {winner} 203.0.113.12`"));
    }
}

/// The network is asked without the lock: what was asked about may be somebody else's by the time the lock is taken.
#[test]
fn ten_ask_the_network_at_once() {
    let node = Node::new();
    let outside = Namespace::new();
    node.net.sh("ip link add eno1 type veth peer name outside && ip link set eno1 master vmbr0 up");
    node.net.sh(&format!("ip link set outside netns {}", outside.path()));
    // Somebody out there has two of them.
    outside.sh("ip link set outside address 02:00:00:00:00:99 up; ip addr add 192.0.2.2/24 dev outside; ip addr add 192.0.2.6/24 dev outside");
    node.run(
        "pool create p --profile generic-bridged --bridge vmbr0 --gateway4 198.51.100.1 192.0.2.0/28 2001:db8:1::/124",
    )
    .ok();
    with_guests(&node.tree, 300..316);
    let jobs: Vec<(&Node, u32)> = (300..310).map(|vmid| (&node, vmid)).collect();
    let started = Instant::now();
    let mut given = BTreeSet::new();
    for run in assign_at_once(&jobs) {
        let run = run.ok();
        for address in run.json()["assigned"].as_array().unwrap() {
            assert!(given.insert(address.as_str().unwrap().to_owned()), "given twice: {run}");
        }
    }
    assert_eq!((given.len(), holders(&node.tree).len()), (20, 20));
    let is_foreign = |address: &String| ["192.0.2.2", "192.0.2.6"].contains(&address.as_str());
    assert!(!given.iter().any(is_foreign), "{given:?}");
    assert!(started.elapsed() < Duration::from_secs(120), "took {:?}", started.elapsed());
    // Four IPv4 addresses are left, two of them the other's, and six want one: who gets none is told the true reason.
    let jobs: Vec<(&Node, u32)> = (310..316).map(|vmid| (&node, vmid)).collect();
    let start = |(node, vmid): &(&Node, u32)| {
        let mut command = node.command(&["assign", &vmid.to_string(), "-4", "--no-hookscript"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let started: Vec<Child> = jobs.iter().map(start).collect();
    let runs = started.into_iter().map(|child| Run::of("assign".to_owned(), &child.wait_with_output().unwrap()));
    let (winners, losers): (Vec<_>, Vec<_>) = runs.partition(|run| run.code == 0);
    assert_eq!(winners.len(), 4, "{winners:?} {losers:?}");
    for run in losers {
        let words = [
            "is contested: MAC 02:00:00:00:00:99 on eno1 answered for 192.0.2.",
            "first `pve-public-ip conflicts ack ",
        ];
        assert!(!run.err.contains("to move it"), "{run}");
        run.fails_with(1, &words);
    }
}

#[test]
fn hooks_of_many_guests_at_once() {
    let node = Node::new();
    node.run("pool create p --profile generic-bridged --bridge vmbr0 --gateway4 198.51.100.1 192.0.2.0/27").ok();
    with_guests(&node.tree, 300..320);
    for vmid in 300..320 {
        node.run(&format!("assign {vmid}")).ok();
    }
    for phase in ["pre-start", "post-stop", "pre-start"] {
        let started: Vec<Child> = (300..320)
            .map(|vmid| {
                let mut command = node.command(&["hook", &vmid.to_string(), phase]);
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for child in started {
            Run::of(format!("hook {phase}"), &child.wait_with_output().unwrap()).ok();
        }
        node.is_in_line();
        let bound = if phase == "pre-start" { 20 } else { 0 };
        assert_eq!(node.net.set("bound_ip4").len(), bound, "after {phase}");
    }
}

#[test]
fn a_lock_left_by_a_killed_process_of_this_node_is_taken_over_at_once() {
    need(&["strace"]);
    let node = Node::with_pool();
    let mut strace = node.net.command("strace");
    // The process that does the work, not the one that waits for it.
    strace.env("PVE_PUBLIC_IP_SUPERVISED", "1");
    // In front of the rename that saves the guest's file: with the lock, its directory and its mark.
    strace.args(["-qq", "-o", "/dev/null", "-e", "trace=?rename,renameat2,?renameat", "-e"]);
    strace.arg("inject=?rename,renameat2,?renameat:signal=SIGKILL:when=3");
    strace.arg(common::BINARY).arg("--root").arg(node.tree.root()).args(["assign", "100", "203.0.113.10"]);
    let run = Run::of("strace ... assign".to_owned(), &strace.output().unwrap());
    assert_eq!(run.code, 128 + 9, "{run}");
    assert!(node.tree.path(LOCK).is_dir(), "the killed process did not hold the lock: {run}");
    assert_eq!(holders(&node.tree), Vec::<String>::new());

    let started = Instant::now();
    node.run("assign 101 203.0.113.11").ok();
    assert!(started.elapsed() < AT_ONCE, "took {:?}", started.elapsed());
    assert!(!node.tree.path(LOCK).exists());
}

/// Without quorum nothing can be removed from `/etc/pve`, and the lock stays. This node knows that it is its own.
#[test]
fn a_lock_that_could_not_be_given_back_is_taken_over_at_once() {
    need(&["strace"]);
    let node = Node::with_pool();
    let mut strace = node.net.command("strace");
    // The process that does the work, not the one that waits for it.
    strace.env("PVE_PUBLIC_IP_SUPERVISED", "1");
    strace.args([
        "-qq",
        "-o",
        "/dev/null",
        "-P",
        node.tree.path(LOCK).to_str().unwrap(),
        "-e",
        "trace=?rmdir,unlinkat",
    ]);
    strace.args(["-e", "inject=?rmdir,unlinkat:error=EACCES"]);
    strace.arg(common::BINARY).arg("--root").arg(node.tree.root()).args(["pool", "add", "ovh-rbx", "203.0.113.20"]);
    Run::of("strace ... pool add".to_owned(), &strace.output().unwrap()).ok();
    assert!(node.tree.path(LOCK).is_dir(), "the lock was removed");
    let started = Instant::now();
    node.run("assign 101 203.0.113.11").ok();
    assert!(started.elapsed() < AT_ONCE, "took {:?}", started.elapsed());
    assert!(!node.tree.path(LOCK).exists());
    // One that another node made meanwhile is that node's.
    fs::create_dir_all(node.tree.path(LOCK)).unwrap();
    let waiting = node.command(&["assign", "100", "203.0.113.10"]).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert!(node.tree.path(LOCK).is_dir(), "somebody else's lock was taken away");
    fs::remove_dir(node.tree.path(LOCK)).unwrap();
    Run::of("assign".to_owned(), &waiting.wait_with_output().unwrap()).ok();
}

#[test]
fn a_lock_held_by_another_node_is_waited_for_and_respected() {
    let node = Node::with_pool();
    fs::create_dir_all(node.tree.path(LOCK)).unwrap();
    let path = node.tree.path(LOCK).display().to_string();
    let started = Instant::now();
    node.changes_nothing("assign 100 203.0.113.10").fails(
        5,
        &format!(
            "cannot assign to guest 100: the registry is locked by another process or node (`{path}`, waited 30 s)"
        ),
        &format!("try again; a lock left by a dead node goes away by itself after 120 s (or `rmdir {path}`)"),
    );
    assert!(started.elapsed() >= Duration::from_secs(30), "gave up after {:?}", started.elapsed());
    assert!(node.tree.path(LOCK).is_dir(), "somebody else's lock was taken away");

    // Given back while somebody waits.
    let waiting = node.command(&["assign", "100", "203.0.113.10"]).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    fs::remove_dir(node.tree.path(LOCK)).unwrap();
    Run::of("assign".to_owned(), &waiting.wait_with_output().unwrap()).ok();
    assert_eq!(holders(&node.tree), ["203.0.113.10"]);
}

#[test]
fn reading_does_not_wait_for_the_lock() {
    let node = Node::with_pool();
    fs::create_dir_all(node.tree.path(LOCK)).unwrap();
    for command in [
        "pool list",
        "pool show ovh-rbx",
        "list",
        "plan",
        "verify",
        "apply",
        "hook 100 pre-start",
        "assign 100 --dry-run",
    ] {
        let started = Instant::now();
        node.run(command).ok();
        assert!(started.elapsed() < AT_ONCE, "{command} took {:?}", started.elapsed());
    }
}

#[test]
fn a_lock_that_expired_is_taken_over() {
    let node = Node::with_pool();
    fs::create_dir_all(node.tree.path(LOCK)).unwrap();
    let old = SystemTime::now() - Duration::from_secs(121);
    File::open(node.tree.path(LOCK)).unwrap().set_modified(old).unwrap();
    let started = Instant::now();
    node.run("assign 100 203.0.113.10").ok();
    assert!(started.elapsed() < AT_ONCE, "took {:?}", started.elapsed());
}

#[test]
fn a_file_changed_without_the_lock_is_not_overwritten() {
    need(&["strace"]);
    let node = Node::with_pool();
    let file = node.tree.pool_file("ovh-rbx");
    let (pools, before) = (node.tree.path(&file), node.tree.read(&file));
    // The command stops with the lock in its hands, when it is about to compare the file with what it read.
    let trace = node.tree.path("trace");
    let mut strace = node.net.command("strace");
    // The process that does the work, not the one that waits for it.
    strace.env("PVE_PUBLIC_IP_SUPERVISED", "1");
    strace.args(["-qq", "-o", trace.to_str().unwrap(), "-P", pools.to_str().unwrap(), "-e", "trace=openat", "-e"]);
    strace.arg("inject=openat:signal=SIGSTOP:when=2");
    strace.arg(common::BINARY).arg("--root").arg(node.tree.root());
    let child = strace.args(["pool", "add", "ovh-rbx", "203.0.113.20"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    while !fs::read_to_string(&trace).is_ok_and(|trace| trace.contains("stopped by SIGSTOP")) {
        assert!(Instant::now() < limit, "it never stops: {:?}", fs::read_to_string(&trace));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(node.tree.path(LOCK).exists(), "the lock was never taken");
    let edited = before.replace("203.0.113.13\"", "203.0.113.14\"");
    assert_ne!(edited, before);
    fs::write(&pools, &edited).unwrap();
    let traced = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    node.net.sh(&format!("kill -CONT {traced}"));
    let run = Run::of("pool add".to_owned(), &child.wait_with_output().unwrap());
    let sentence = format!(
        "cannot add 203.0.113.20 to pool `ovh-rbx`: `{}` was changed by someone else since it was read; nothing was written",
        pools.display()
    );
    run.fails(5, &sentence, "run the command again");
    assert_eq!(node.tree.read(&file), edited);
    assert!(!node.tree.path(LOCK).exists(), "the lock is still there");
}

#[test]
fn a_hook_that_cannot_have_the_node_gives_up_in_time() {
    need(&["flock"]);
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    let lock = node.tree.path("run/pve-public-ip/node.lock").display().to_string();
    let mut holder = node
        .net
        .command("flock")
        .args([&lock, "sh", "-c", "echo held; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 5];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut line).unwrap();
    let started = Instant::now();
    node.run("hook 100 pre-start").fails(
        1,
        "another pve-public-ip has been changing this node for 8 s",
        "wait for it, or look at `ps -C pve-public-ip`",
    );
    assert!(started.elapsed() < AT_ONCE, "took {:?}", started.elapsed());
    assert_eq!(node.net.set("bound_ip4"), Vec::<String>::new());
    holder.kill().unwrap();
    holder.wait().unwrap();
}
