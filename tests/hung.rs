//! A cluster file system that hangs: whoever reads from it can neither go on nor be killed. Hooks and looks end anyway.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::Node;

/// Longer than anything here takes that does not hang, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon that greets the kernel, takes every request, and answers none. Only its death frees who waits.
struct Hung(Child);

impl Hung {
    fn over_etc_pve(node: &Node) -> Self {
        // `struct fuse_out_header` (80 bytes, no error, the number of the request), `struct fuse_init_out` (7.31).
        let script = format!(
            r"exec 9<>/dev/fuse
mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 pmxcfs {place}
dd of={work}/request bs=1M count=1 <&9 2>/dev/null
{{ printf '\120\000\000\000\000\000\000\000'; dd if={work}/request bs=1 skip=8 count=8 2>/dev/null
  printf '\007\000\000\000\037\000\000\000\000\000\000\000\000\000\000\000'
  printf '\000\000\000\000\000\020\000\000\001\000\000\000\000\000\000\000'
  head -c 32 /dev/zero; }} >{work}/reply
dd if={work}/reply bs=80 count=1 >&9 2>/dev/null
echo >{work}/greeted
exec cat <&9 >/dev/null",
            place = node.tree.path("etc/pve").display(),
            work = node.tree.root().display()
        );
        let daemon = node.net.command("sh").args(["-euc", &script]).stdout(Stdio::null()).spawn().unwrap();
        let hung = Self(daemon);
        let deadline = Instant::now() + PATIENCE;
        while !node.tree.path("greeted").exists() {
            assert!(Instant::now() < deadline, "this test needs /dev/fuse and to be allowed to mount");
            std::thread::sleep(Duration::from_millis(20));
        }
        hung
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Guest 100 has an address.
fn assigned() -> Node {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node
}

#[test]
fn a_hook_ends_in_time_and_leaves_no_lock_behind() {
    let node = assigned();
    node.run("hook 100 pre-start").ok();
    let hung = Hung::over_etc_pve(&node);
    let started = Instant::now();
    // Whoever waits for the end of its output does not wait for the one that cannot end.
    let run = node.run("hook 100 pre-start");
    let took = started.elapsed();
    assert_eq!(run.code, 1, "{run}");
    assert!(run.err.contains("error: the hook did not finish within 10 s and gives up\n"), "{run}");
    assert!(run.err.contains("hint: is `/etc/pve` reachable? `systemctl status pve-cluster`\n"), "{run}");
    assert!(took >= Duration::from_secs(10) && took < PATIENCE, "{took:?}");
    // The one that was left behind is still there, and the node can be changed.
    let lock = node.tree.path("run/pve-public-ip/node.lock");
    node.net.sh(&format!("flock -n {} true", lock.display()));
    drop(hung);
    node.net.sh(&format!("umount -l {}", node.tree.path("etc/pve").display()));
    node.run("hook 100 pre-start").ok();
}

#[test]
fn a_look_says_at_once_what_the_guard_knows() {
    let node = assigned();
    let hung = Hung::over_etc_pve(&node);
    // As the guard notes it; its process is any that has its name.
    let mut stand_in = node.net.command("sh");
    stand_in
        .args(["-c", "printf pve-public-ip >/proc/self/comm; echo ready; exec 3</dev/null; while :; do sleep 1; done"]);
    let guard = Hung(stand_in.stdout(Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + PATIENCE;
    while fs::read_to_string(format!("/proc/{}/comm", guard.0.id())).unwrap() != "pve-public-ip\n" {
        assert!(Instant::now() < deadline, "the guard's stand-in has not its name");
        std::thread::sleep(Duration::from_millis(5));
    }
    node.tree.write(
        "run/pve-public-ip/guard",
        serde_json::json!({"pid": guard.0.id(), "last_look": 0, "last_look_ms": 0, "looks": 1, "last_change": 0,
            "repairs": 0, "guests": 1, "problems": 0,
            "trouble": "`/etc/pve` does not answer", "is_etc_pve_silent": true})
        .to_string(),
    );
    for command in ["status", "verify", "metrics"] {
        let started = Instant::now();
        let run = node.run(command);
        assert_eq!(run.code, 1, "{run}");
        assert!(run.err.contains("error: `/etc/pve` does not answer: the guard says so"), "{run}");
        assert!(run.err.contains("hint: is `/etc/pve` reachable?"), "{run}");
        // Not the 45 s of a look that knows of nothing.
        assert!(started.elapsed() < Duration::from_secs(40), "{command}: {:?}", started.elapsed());
    }
    drop(hung);
}

/// Its output is read to its end, as a shell in a pipe does.
#[test]
fn commands_that_look_around_end() {
    let node = assigned();
    let hung = Hung::over_etc_pve(&node);
    let started = Instant::now();
    let commands = ["doctor", "topology", "conflicts list", "audit", "pool list", "who 203.0.113.10", "list --free"];
    std::thread::scope(|scope| {
        let runs = commands.map(|command| scope.spawn(|| node.run(command)));
        for (command, run) in commands.iter().zip(runs) {
            let run = run.join().unwrap();
            let limit = "error: this did not finish within 45 s: `/etc/pve` may be what does not answer\n";
            match *command {
                // It says what else it has found.
                "doctor" => assert!(run.out.contains("did not answer within 5 s"), "{run}"),
                _ => assert!(run.err.contains(limit) || run.err.contains("did not answer"), "{run}"),
            }
            assert_ne!(run.code, 0, "{run}");
        }
    });
    assert!(started.elapsed() < Duration::from_secs(200), "{:?}", started.elapsed());
    drop(hung);
}

#[test]
fn a_change_that_hangs_says_so_and_is_given_up() {
    let node = assigned();
    let hung = Hung::over_etc_pve(&node);
    let run = node.run("release 100 --no-hookscript");
    assert_eq!(run.code, 1, "{run}");
    assert_eq!(
        run.err,
        "warning: waiting for `/etc/pve`, which does not answer: `systemctl status pve-cluster`\n\
         error: this hangs and is given up: what it was about to write may or may not have been written\n\
         hint: is `/etc/pve` reachable? `systemctl status pve-cluster`; afterwards `pve-public-ip list` tells what holds\n"
    );
    drop(hung);
    node.net.sh(&format!("umount -l {}", node.tree.path("etc/pve").display()));
    assert!(node.run("list").ok().out.contains("203.0.113.10"));
    node.run("release 100 --no-hookscript").ok();
}

#[test]
fn a_note_that_cannot_be_ours_is_not_read() {
    let node = assigned();
    node.run("hook 100 pre-start").ok();
    for (name, limit) in [("guard", 17 << 20), ("history", 17 << 20), ("compared", 5 << 20), ("rules", 4 << 10)] {
        let path = node.tree.path(&format!("run/pve-public-ip/{name}"));
        let before = fs::read(&path).ok();
        // Sparse: it takes no room.
        fs::File::create(&path).unwrap().set_len(limit).unwrap();
        let run = node.run("status");
        if name != "compared" {
            let line = format!("warning: `{}` is not used: it is larger than ", path.display());
            assert!(run.err.contains(&line) && run.err.contains(&format!("hint: `rm {}`", path.display())), "{run}");
        }
        node.run("hook 100 pre-start").ok();
        fs::remove_file(&path).unwrap();
        if let Some(before) = before {
            fs::write(&path, before).unwrap();
        }
    }
}

/// The daemon has ended and its mount is still there: everything says so, and how to end it.
#[test]
fn a_stale_mount_is_called_one() {
    let node = assigned();
    node.run("hook 100 pre-start").ok();
    drop(Hung::over_etc_pve(&node));
    let place = node.tree.path("etc/pve").display().to_string();
    let why = format!(
        "the mount at `{place}` is stale, because pmxcfs has ended: Transport endpoint is not connected (os error 107)"
    );
    let run = node.run("doctor");
    assert_eq!(run.code, 3, "{run}");
    assert!(run.out.contains("etc-pve-unreadable: ") && run.out.contains(&why), "{run}");
    assert!(run.out.contains("hint: `systemctl restart pve-cluster`"), "{run}");
    assert!(!run.out.contains("there is no `"), "{run}");
    for command in ["topology", "topology --check", "partition check"] {
        node.run(command).fails(1, &why, "`systemctl restart pve-cluster`");
    }
    for command in [
        "list",
        "show 100",
        "pool list",
        "pool show ovh-rbx",
        "node show",
        "verify",
        "plan",
        "apply",
        "assign 101 203.0.113.11",
        "release 100",
        "set 100 --dhcp false",
        "conflicts list",
        "registry check",
        "explain --port tap100i0 --src 203.0.113.10",
        "hook 100 pre-start",
    ] {
        let run = node.run(command);
        assert_ne!(run.code, 0, "{run}");
        assert!(run.err.contains("Transport endpoint is not connected") || run.err.contains("is stale"), "{run}");
        assert!(run.err.contains("systemctl restart pve-cluster"), "{run}");
    }
    node.net.sh(&format!("umount -l {place}"));
    node.run("doctor");
    node.run("list").ok();
}

#[test]
fn apply_protects_by_what_was_known_last() {
    let node = assigned();
    node.run("apply").ok();
    let before = node.net.filter();
    assert!(before.is_some());
    node.net.sh("nft flush ruleset");
    let hung = Hung::over_etc_pve(&node);
    let started = Instant::now();
    let run = node.run("apply");
    let took = started.elapsed();
    let place = node.tree.path("etc/pve");
    let expected = format!(
        "warning: waiting for `{place}`, which does not answer: `systemctl status pve-cluster`\n\
         error: `{place}` does not answer; until it can be read, this node is protected by what it knew last\n\
         hint: `systemctl status pve-cluster`; `pvecm status`\n",
        place = place.display()
    );
    assert_eq!((run.code, run.err.as_str()), (1, expected.as_str()), "{run}");
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert!(node.net.filter() == before, "{:?}", node.net.filter());
    // The one that was left behind is still there, and the node can be changed.
    let lock = node.tree.path("run/pve-public-ip/node.lock");
    node.net.sh(&format!("flock -n {} true", lock.display()));
    drop(hung);
    node.net.sh(&format!("umount -l {}", place.display()));
    node.run("apply").ok();
    node.run("verify").ok();
}
