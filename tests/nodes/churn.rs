//! Guests that come, live whatever life and go, one after the other: nothing grows and nothing stays.
//!
//! A few of them in each run of the tests; `PVE_PUBLIC_IP_CHURN_SECONDS` goes on for so long (`make churn`).

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use pve_public_ip::model::GuestKind;

use crate::common::Tree;
use crate::lab::{Lab, NODES, Nic, passing};
use crate::random::Random;
use crate::script::{Play, Watch, nodes};

/// Guests of a run that is not told how long to go on.
const GUESTS: u32 = 2;

/// What a guest may go through before it goes.
const EVENTS: usize = 5;

/// Kilobytes by which the guard may be larger after any number of guests: what its allocator holds back.
const GROWTH: u64 = 1024;

/// A guest, where it is, and whether it runs.
struct Guest {
    nic: Nic,
    at: usize,
    runs: bool,
}

impl Guest {
    /// Plays steps written for a guest on X: Y is the other node, V the guest and P its port; behind the bar stand the
    /// stages on X and on Y.
    fn plays(&self, play: &mut Play<'_>, text: &str) {
        let (vmid, port) = (self.nic.vmid.to_string(), self.nic.port());
        let places = [("X", NODES[self.at]), ("Y", NODES[1 - self.at]), ("V", &vmid), ("P", &port)];
        for line in text.lines() {
            let (step, stages) = line.trim().split_once(" | ").expect("a step and its stages");
            let named =
                step.split(' ').map(|word| places.iter().find(|(from, _)| *from == word).map_or(word, |(_, to)| to));
            let mut stages: Vec<&str> = stages.split(' ').collect();
            if self.at == 1 {
                stages.swap(0, 1);
            }
            play.line(&format!("{} | {}", named.collect::<Vec<_>>().join(" "), stages.join(" ")));
        }
    }

    fn start(&mut self, play: &mut Play<'_>) {
        self.plays(
            play,
            "X hook V pre-start | starting -
             X plug P | running -
             X hook V post-start | running - announced",
        );
        self.runs = true;
    }

    fn stop(&mut self, play: &mut Play<'_>) {
        self.plays(
            play,
            "X hook V pre-stop | running -
             X unplug P | - -
             X hook V post-stop | - -",
        );
        self.runs = false;
    }

    /// Something that happens to a guest that does not run.
    fn idles(&mut self, play: &mut Play<'_>, random: &mut Random) {
        match random.below(4) {
            0 => {
                self.plays(play, "move V X Y | - -");
                self.at = 1 - self.at;
            }
            1 => self.plays(
                play,
                "X hook V pre-start | starting -
                 X plug P | running -
                 X unplug P | - -",
            ),
            _ => self.start(play),
        }
    }

    /// Something that happens to one that runs.
    fn lives(&mut self, play: &mut Play<'_>, random: &mut Random) {
        let is_qemu = self.nic.kind == GuestKind::Qemu;
        match random.below(9) {
            0 => self.stop(play),
            1 => {
                self.plays(play, "X unplug P | - -");
                self.runs = false;
            }
            2 if is_qemu => {
                self.plays(
                    play,
                    "Y hook V pre-start from X | running incoming
                     Y plug P | running incoming
                     Y hook V post-start from X | running incoming
                     move V X Y | - running announced
                     X unplug P | - running",
                );
                self.at = 1 - self.at;
            }
            3 if is_qemu => self.plays(
                play,
                "Y hook V pre-start from X | running incoming
                 Y plug P | running incoming
                 Y hook V post-start from X | running incoming
                 Y unplug P | running incoming
                 Y hook V post-stop | running -",
            ),
            4 => self.plays(
                play,
                "X firewall P on | running -
                 X firewall P off | running -",
            ),
            5 => self.plays(play, "X sh nft flush ruleset | running -"),
            6 => self.plays(
                play,
                "X unplug P | - -
                 X plug P | running -",
            ),
            // Only this node's: how the first one's guard grows is of interest.
            7 if self.at == 1 => self.plays(
                play,
                "X guard is killed | running -
                 X guard starts | running -",
            ),
            _ => {
                self.plays(
                    play,
                    "X hook V pre-stop | running -
                     X unplug P | - -
                     move V X Y | - -",
                );
                (self.at, self.runs) = (1 - self.at, false);
            }
        }
    }
}

/// One guest from its creation to its end.
fn life(lab: &mut Lab, number: u32, random: &mut Random) {
    let vmid = 1000 + random.below(2).try_into().unwrap_or(0) * 1000 + number % 1000;
    let nic = passing(vmid);
    let mut play = Play { lab, watch: Watch::Guard, name: format!("guest {number} of the churn"), about: nic };
    let mut guest = Guest { nic, at: random.below(2), runs: false };
    let addresses = format!("{} {}", nic.who.ip4, nic.who.ip6);
    guest.plays(&mut play, "X config V | nobody nobody");
    guest.plays(&mut play, &format!("X runs assign V {addresses} --no-hookscript | - -"));
    for _ in 0..EVENTS {
        if guest.runs { guest.lives(&mut play, random) } else { guest.idles(&mut play, random) }
    }
    if guest.runs {
        guest.stop(&mut play);
    }
    guest.plays(
        &mut play,
        "X runs release V | nobody nobody
         X destroy V | nobody nobody",
    );
}

/// Kilobytes of memory and open files of a process.
fn size(pid: u32) -> (u64, usize) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("how much memory it has");
    let memory = line.trim_end_matches("kB").trim().parse().unwrap();
    (memory, fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
}

#[test]
fn nothing_grows_and_nothing_stays() {
    let told = std::env::var("PVE_PUBLIC_IP_CHURN_SECONDS").ok();
    let limit = told.map(|seconds| Duration::from_secs(seconds.parse().expect("a number of seconds")));
    let mut random = Random::new(20_261_122);
    let mut lab = nodes(Watch::Guard);
    // The first one makes what is kept for good.
    life(&mut lab, 0, &mut random);
    let files = |lab: &Lab, list: fn(&Tree) -> BTreeSet<String>| {
        // Whether a guest or a command came by here, and so many frames were dropped that the guard writes of it, is chance.
        let by_chance = ["pinned", "followed"];
        let counts = |path: &String| {
            !path.contains("lock") && !path.starts_with("alerts") && !by_chance.contains(&path.as_str())
        };
        lab.hosts.each_ref().map(|host| list(&host.node.tree).into_iter().filter(counts).collect::<BTreeSet<_>>())
    };
    let guard = |lab: &Lab| lab.hosts[0].guard.as_ref().expect("nobody killed it").pid();
    let (pid, known) = (guard(&lab), files(&lab, Tree::lasting));
    let before = size(pid);
    let play = Play { lab: &mut lab, watch: Watch::Guard, name: "the churn".to_owned(), about: passing(1000) };
    let traces = play.traces();

    let started = Instant::now();
    let mut number = 0;
    while limit.map_or(number < GUESTS, |limit| started.elapsed() < limit) {
        number += 1;
        life(&mut lab, number, &mut random);
    }
    let play = Play { lab: &mut lab, watch: Watch::Guard, name: "the churn".to_owned(), about: passing(1000) };
    play.ends(&traces);
    play.within_patience("files in the run directories", |play| {
        let now = files(play.lab, Tree::volatile);
        if now == known { Ok(()) } else { Err(format!("were {known:?}, are {now:?}")) }
    });
    // It opens a file now and then.
    let after = play.within_patience("open files of the guard", |_| {
        let now = size(pid);
        if now.1 <= before.1 { Ok(now) } else { Err(format!("were {}, are {}", before.1, now.1)) }
    });
    let said = format!(
        "{number} guests in {:?}: {} kB, {} files; then {} kB, {} files",
        started.elapsed(),
        before.0,
        before.1,
        after.0,
        after.1
    );
    std::io::Write::write_all(&mut std::io::stderr(), format!("churn: {said}\n").as_bytes()).unwrap();
    assert_eq!(guard(&lab), pid, "the guard lived through all of it");
    assert!(after.0 <= before.0 + GROWTH, "{said}");
}
