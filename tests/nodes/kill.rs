//! Hooks and the guard are killed in the midst of their work, while the other one goes on. What `tests/crash.rs` does to
//! every command in front of every system call is done here to a part of them, with frames.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::strace::{killed, points};
use crate::common::{BINARY, Node, need};
use crate::lab::{Guard, Lab, Stage, nic};
use crate::script::{Play, Watch, nodes};

/// Of the points of a phase every such one.
const STRIDE: usize = 4;

fn play(lab: &mut Lab, watch: Watch) -> Play<'_> {
    Play { lab, watch, name: "killed".to_owned(), about: nic("tap100i0") }
}

/// Waits until the first node is in line, with the NIC in one of these stages, and looks where its frames go.
fn comes_to(play: &mut Play<'_>, stages: &[Stage], at: &str) {
    let about = play.about;
    let stage = play.within_patience(at, |play| {
        let verify = play.lab.hosts[0].node.run("verify");
        let stage = play.lab.stage(0, &about)?;
        if verify.code == 3 || !stages.contains(&stage) { Err(format!("{stage:?}, {verify}")) } else { Ok(stage) }
    });
    play.probe([stage, Stage::Free], at);
}

#[test]
fn a_hook_dies_and_the_guard_goes_on() {
    let mut lab = nodes(Watch::Guard);
    let mut play = play(&mut lab, Watch::Guard);
    let mut deaths = 0;
    for (phase, before, after, left) in [
        ("pre-start", &[][..], &["n1 hook 100 post-stop | - -"][..], &[Stage::Free, Stage::Starting][..]),
        (
            "post-start",
            &["n1 hook 100 pre-start | starting -", "n1 plug tap100i0 | running -"],
            &["n1 unplug tap100i0 | - -", "n1 hook 100 post-stop | - -"],
            &[Stage::Running],
        ),
        (
            "post-stop",
            &["n1 hook 100 pre-start | starting -", "n1 plug tap100i0 | running -", "n1 unplug tap100i0 | - -"],
            &[],
            &[Stage::Free],
        ),
    ] {
        let command = format!("hook 100 {phase}");
        let lines = |play: &mut Play<'_>, lines: &[&str]| lines.iter().for_each(|line| play.line(line));
        lines(&mut play, before);
        let (run, points) = points(&play.lab.hosts[0].node, &command);
        run.ok();
        play.lab.was_announced(&play.about.clone());
        lines(&mut play, after);
        for point in points.into_iter().step_by(STRIDE) {
            let at = format!("`{command}` killed in front of {}", point.line);
            lines(&mut play, before);
            let run = killed(&play.lab.hosts[0].node, &command, &point.call, point.count);
            // What the guard has done meanwhile the hook need not do.
            assert!([0, 128 + 9].contains(&run.code), "{at}: {run}");
            deaths += usize::from(run.code != 0);
            comes_to(&mut play, left, &at);
            play.lab.hosts[0].node.run(&command).ok();
            play.lab.was_announced(&play.about.clone());
            lines(&mut play, after);
        }
    }
    assert!(deaths >= 5, "only {deaths} hooks were killed");
}

/// The guard, killed in front of its `count`-th `call`.
fn killed_guard(node: &Node, call: &str, count: usize) -> Command {
    let mut strace = node.net.command("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:signal=SIGKILL:when={count}")]);
    strace.arg(BINARY).arg("--root").arg(node.tree.root()).arg("guard");
    strace
}

#[test]
fn the_guard_dies_and_the_next_one_finishes() {
    need(&["strace"]);
    let mut lab = nodes(Watch::Nobody);
    let mut play = play(&mut lab, Watch::Nobody);
    play.line("n1 hook 100 pre-start | starting -");
    play.line("n1 plug tap100i0 | starting - | running -");
    play.watch = Watch::Guard;
    let mut deaths = 0;
    for call in ["flock", "openat", "write", "sendto", "sendmsg", "?rename,?renameat,renameat2"] {
        for count in [1, 3, 9, 27] {
            let at = format!("the guard killed in front of {call} {count}");
            // All that a first look can have to do.
            let node = &play.lab.hosts[0].node;
            node.net.sh(
                "nft flush ruleset; ip neigh flush proto 121 nud permanent; ip -6 neigh flush proto 121 nud permanent
                 bridge fdb del 02:00:00:00:00:0a dev tap100i0 master 2>/dev/null || true",
            );
            match Guard::try_start(node, killed_guard(node, call, count)) {
                Err(status) => assert_eq!(status.signal(), Some(9), "{at}: {status}"),
                // It has fewer of them, and so it will have with a greater number.
                Ok(survivor) => {
                    let said: serde_json::Value =
                        serde_json::from_str(&node.tree.read("run/pve-public-ip/guard")).unwrap();
                    kill(Pid::from_raw(said["pid"].as_i64().unwrap().try_into().unwrap()), Signal::SIGKILL).unwrap();
                    survivor.ended();
                    break;
                }
            }
            deaths += 1;
            play.lab.hosts[0].guard = Some(Guard::start(&play.lab.hosts[0].node));
            comes_to(&mut play, &[Stage::Running], &at);
            let guard = play.lab.hosts[0].guard.take().expect("it was started above");
            assert_eq!(guard.end(Signal::SIGTERM), Some(0), "{at}: the next one");
        }
    }
    assert!(deaths >= 8, "the guard was killed only {deaths} times");
}
