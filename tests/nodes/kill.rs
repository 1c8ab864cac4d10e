//! Hooks and the guard are killed in the midst of their work, while the other one goes on. What `tests/crash.rs` does to
//! every command in front of every system call is done here to a part of them, with frames.

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pve_public_ip::selftest::verdicts;
use pve_public_ip::system::packet::Wire;
use pve_public_ip::system::tun::Tap;

use crate::common::strace::{killed, points};
use crate::common::{BINARY, Node, need};
use crate::lab::{Guard, Lab, PATIENCE, Stage, nic, tap, unmanaged};
use crate::random::Random;
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
                    // It may have died a moment later than it was ready.
                    let _ = kill(Pid::from_raw(said["pid"].as_i64().unwrap().try_into().unwrap()), Signal::SIGKILL);
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

/// Everything that may not get through, from one port, as fast as it goes, until it is told to stop. Counts what was
/// sent, and keeps what reached the provider.
fn flood(port: &Tap, provider: &Wire, frames: &[Vec<u8>], stop: &AtomicBool) -> (usize, Vec<Vec<u8>>) {
    let (mut sent, mut leaked, mut buffer) = (0, Vec::new(), [0; 4096]);
    let forbidden: HashSet<&Vec<u8>> = frames.iter().collect();
    let mut listen = || {
        while let Some(frame) = provider.receive(&mut buffer).expect("receive a frame") {
            leaked.extend(forbidden.contains(&frame).then_some(frame));
        }
    };
    // At least once, however late this thread begins.
    loop {
        for frame in frames {
            port.send(frame, None).expect("send a frame");
            sent += 1;
        }
        listen();
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // The others need the processor, too.
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(200));
    listen();
    (sent, leaked)
}

#[test]
fn nothing_leaks_while_everything_dies() {
    let mut lab = nodes(Watch::Guard);
    let attacker = tap(&lab.hosts[0].node.net, "tap903i0", "vmbr0");
    let provider = lab.listen_at_provider();
    let mut play = play(&mut lab, Watch::Guard);
    let claims = verdicts::claims(unmanaged([2, 0, 0, 0, 0xee, 3]), play.about.who, "the guest", true, false);
    let frames: Vec<Vec<u8>> = claims.into_iter().map(|case| case.frame).collect();
    let stop = AtomicBool::new(false);
    let mut random = Random::new(20_261_123);
    let (sent, leaked) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&attacker, &provider, &frames, &stop));
        // The flood ends whatever happens here.
        let _stop = StopAtEnd(&stop);
        let mut is_plugged = false;
        for round in 0..60 {
            let host = &mut play.lab.hosts[0];
            match random.below(6) {
                0 if round > 5 => {
                    host.guard.take().expect("the guard runs").end(Signal::SIGKILL);
                    host.guard = Some(Guard::start(&host.node));
                }
                1 if is_plugged => {
                    play.lab.unplug(0, "tap100i0");
                    is_plugged = false;
                }
                1 => {
                    play.lab.plug(0, "tap100i0", None, false);
                    is_plugged = true;
                }
                _ => {
                    let phase = *random.pick(&["pre-start", "post-start", "pre-stop", "post-stop"]);
                    let mut hook = host.node.command(&["hook", "100", phase]);
                    let mut hook = hook.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                    std::thread::sleep(Duration::from_micros(random.next() % 25_000));
                    // It may have ended before.
                    let _ = hook.kill();
                    hook.wait().unwrap();
                }
            }
        }
        // A post-stop in between may have taken leave of the port that is there.
        if is_plugged {
            play.lab.unplug(0, "tap100i0");
        }
        play.lab.plug(0, "tap100i0", None, false);
        comes_to(&mut play, &[Stage::Running], "in the end");
        stop.store(true, Ordering::Relaxed);
        flood.join().expect("the thread that sends")
    });
    assert!(sent > 1000, "only {sent} frames were sent");
    assert_eq!(leaked, [[0; 0]; 0], "of {sent}");
    // The control: with nobody there and nothing in their way they do arrive.
    lab.hosts[0].guard.take().expect("the guard runs").end(Signal::SIGKILL);
    lab.hosts[0].node.net.sh("nft flush ruleset");
    let started = Instant::now();
    while flood(&attacker, &provider, &frames, &stop).1.is_empty() {
        assert!(started.elapsed() < PATIENCE, "the frames do not arrive although nothing stops them");
    }
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
