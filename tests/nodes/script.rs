//! Plays a row of the tables: one step after the other, and after each a look at both nodes.

use std::collections::BTreeSet;
use std::fs;

use pve_public_ip::selftest::frames::Mac;

use crate::common::{Run, Tree};
use crate::lab::{Lab, NODES, Nic, Stage, config, nic};

/// Who looks after the nodes besides the hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Nobody: what the hooks alone can do.
    Nobody,
    /// Somebody who calls `apply` on both nodes after each step.
    Apply,
}

/// One way of life: its name, the port that the columns speak about, and its steps.
///
/// A line is `step | n1 n2 | n1 n2`: what is done, how far the NIC is then on each node by the hooks alone, and if
/// somebody looks after the nodes, where that makes a difference. Where it does `verify` reports drift, and nowhere
/// else; a star marks what nobody can know who did not look earlier. `announced`: the hook told the provider's switch.
pub(crate) type Row = (&'static str, &'static str, &'static str);

/// Plays rows one after the other on the same two nodes; each leaves them as it found them.
pub(crate) fn play_all(watch: Watch, rows: &[Row]) {
    let mut lab = Lab::new();
    for row in rows {
        Play { lab: &mut lab, watch, row }.play();
    }
}

struct Play<'a> {
    lab: &'a mut Lab,
    watch: Watch,
    row: &'a Row,
}

/// What a step leaves to be seen.
struct Expected {
    alone: [Stage; 2],
    watched: [Stage; 2],
    is_known: bool,
    is_announced: bool,
}

impl Expected {
    fn parse(columns: &[&str]) -> Self {
        let column = |text: &str| -> [Stage; 2] {
            let words: Vec<Stage> = text.split(' ').map(|word| Stage::parse(word.trim_end_matches('*'))).collect();
            words.try_into().unwrap_or_else(|_| panic!("`{text}` does not name two stages"))
        };
        let first = columns[0].strip_suffix(" announced");
        let alone = column(first.unwrap_or(columns[0]));
        Self {
            alone,
            watched: columns.get(1).map_or(alone, |text| column(text)),
            is_known: !columns[0].contains('*'),
            is_announced: first.is_some(),
        }
    }
}

impl Play<'_> {
    fn play(mut self) {
        let (name, port, text) = *self.row;
        let about = nic(port);
        self.lab.reset_configs();
        let before = self.traces();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut played = 0;
        for line in lines {
            let columns: Vec<&str> = line.split('|').map(str::trim).collect();
            let at = format!("{name}, {:?}, `{line}`", self.watch);
            assert!((2..=3).contains(&columns.len()), "{at}: a step has one or two columns");
            self.step(columns[0], &at);
            self.look(&about, &Expected::parse(&columns[1..]), &at);
            played += 1;
        }
        assert!(played > 0, "{name} has no steps");
        // What a failed start or a missing hook leaves, the next look at the node removes.
        self.lab.reset_configs();
        for at in 0..2 {
            assert!(self.lab.hosts[at].is_alive, "{name} leaves a node switched off");
            if self.watch == Watch::Nobody {
                self.lab.hosts[at].node.run("apply").ok();
            }
        }
        let after = self.traces();
        let difference: Vec<_> = before.symmetric_difference(&after).collect();
        assert!(difference.is_empty(), "{name}, {:?}: left behind or lost: {difference:#?}", self.watch);
    }

    /// All that the product may leave on a node.
    fn traces(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for host in &self.lab.hosts {
            let name = &host.node.tree.name;
            let marks = fs::read_dir(host.node.tree.path("run/pve-public-ip/guests")).into_iter().flatten();
            found.extend(marks.map(|mark| format!("{name} mark {}", mark.unwrap().file_name().to_string_lossy())));
            found.extend(host.node.net.filter().unwrap_or_default().into_iter().map(|word| format!("{name} {word}")));
            found.extend(host.node.net.marked().into_iter().map(|line| format!("{name} {line}")));
            let entries = host.node.net.sh("bridge fdb show");
            let pinned = entries.lines().filter(|line| line.contains("sticky"));
            found.extend(pinned.map(|line| format!("{name} {line}")));
        }
        found
    }

    // ---- steps ----------------------------------------------------------------------------------------------

    fn step(&mut self, step: &str, at: &str) {
        let (first, rest) = step.split_once(' ').unwrap_or((step, ""));
        let Some(host) = NODES.iter().position(|node| *node == first) else {
            return match first {
                "nothing:" => {}
                "move" => self.rename(rest),
                _ => panic!("{at}: there is no such step"),
            };
        };
        let (verb, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "hook" => self.hook(host, rest, at),
            "plug" => self.plug(host, rest),
            "unplug" => self.lab.unplug(host, rest),
            "firewall" => {
                let (port, flag) = rest.split_once(' ').unwrap();
                self.lab.move_port(host, port, flag == "on");
            }
            "config" => self.config(host, rest),
            "destroy" => fs::remove_file(self.conf(host, rest)).unwrap(),
            "dies" => self.lab.kill(host),
            "boots" => self.lab.boot(host),
            "sh" => drop(self.lab.hosts[host].node.net.sh(rest)),
            "runs" => drop(self.lab.hosts[host].node.run(rest).ok()),
            "waits" => self.age_marks(host),
            _ => panic!("{at}: there is no such step"),
        }
    }

    /// `100 pre-start`, `100 pre-start from n2`, `100 pre-start refused: message`.
    fn hook(&self, host: usize, text: &str, at: &str) {
        let (call, refusal) = text.split_once(" refused: ").map_or((text, None), |(call, why)| (call, Some(why)));
        let (call, source) = call.split_once(" from ").unwrap_or((call, ""));
        let (vmid, phase) = call.split_once(' ').unwrap();
        let node = &self.lab.hosts[host].node;
        // Proxmox VE assigns it before every start of a virtual machine, also when there is nothing to say.
        let is_qemu = !vmid.starts_with('2');
        let environment: &[_] =
            if is_qemu && phase.ends_with("start") { &[("PVE_MIGRATED_FROM", source)] } else { &[] };
        let run: Run = node.run_with(&format!("hook {vmid} {phase}"), environment);
        match refusal {
            None => assert_eq!(run.code, 0, "{at}: {run}"),
            Some(why) => assert!(run.code == 1 && run.err.starts_with(&format!("error: {why}")), "{at}: {run}"),
        }
    }

    /// `tap100i0`, `tap100i0 behind firewall`, `tap100i0 as 02:00:00:00:99:99`.
    fn plug(&mut self, host: usize, text: &str) {
        let (port, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mac: Option<Mac> = rest.strip_prefix("as ").map(|mac| {
            let mac: pve_public_ip::model::MacAddr = mac.parse().unwrap();
            mac.octets()
        });
        self.lab.plug(host, port, mac, rest == "behind firewall");
    }

    fn conf(&self, host: usize, vmid: &str) -> std::path::PathBuf {
        let kind = if vmid.starts_with('2') { "lxc" } else { "qemu-server" };
        self.lab.hosts[host].node.tree.path(&format!("etc/pve/nodes/{}/{kind}/{vmid}.conf", NODES[host]))
    }

    /// `100 lock: backup`: another line; `100 of 110, MAC 02:...`: as 110 has it, with this MAC in place of its own.
    fn config(&self, host: usize, text: &str) {
        let (vmid, line) = text.split_once(' ').unwrap_or((text, ""));
        let number: u32 = vmid.parse().unwrap();
        let tree: &Tree = &self.lab.hosts[host].node.tree;
        let text = match line.split_once(" with ") {
            // A copy of another guest.
            Some((original, mac)) => {
                let original = config(original.strip_prefix("of ").unwrap().parse().unwrap());
                let own = original.split_once("virtio=").unwrap().1.split(',').next().unwrap();
                original.replace(own, if mac == "its MAC" { own } else { mac })
            }
            None => format!("{line}\n{}", config(number)),
        };
        if vmid.starts_with('2') { tree.lxc(number, text) } else { tree.qemu(number, text) }
    }

    /// `100 n1 n2`: the only sign that a guest has moved.
    fn rename(&self, text: &str) {
        let words: Vec<&str> = text.split(' ').collect();
        let index = |name: &str| NODES.iter().position(|node| *node == name).unwrap();
        fs::rename(self.conf(index(words[1]), words[0]), self.conf(index(words[2]), words[0])).unwrap();
    }

    /// Ten minutes go by: what was noted is that old.
    fn age_marks(&self, host: usize) {
        let directory = self.lab.hosts[host].node.tree.path("run/pve-public-ip/guests");
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let mut mark: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            mark["since"] = (mark["since"].as_u64().unwrap() - 601).into();
            fs::write(path, mark.to_string()).unwrap();
        }
    }

    // ---- looks ----------------------------------------------------------------------------------------------

    fn look(&mut self, about: &Nic, expected: &Expected, at: &str) {
        let announced = self.lab.was_announced(about);
        if self.watch == Watch::Nobody {
            assert_eq!(announced, expected.is_announced, "{at}: announced to the provider");
        }
        let stages = match self.watch {
            Watch::Nobody => expected.alone,
            Watch::Apply => expected.watched,
        };
        for host in 0..2 {
            let name = NODES[host];
            if self.watch == Watch::Apply && self.lab.hosts[host].is_alive {
                self.lab.hosts[host].node.run("apply").ok();
            }
            let found = self.lab.stage(host, about);
            assert_eq!(found, Ok(stages[host]), "{at}: on {name}");
            if self.lab.hosts[host].is_alive {
                let differs = expected.alone[host] != expected.watched[host];
                let drift = self.watch == Watch::Nobody && expected.is_known && differs;
                let verify = self.lab.hosts[host].node.run("verify");
                assert_eq!(verify.code == 3, drift, "{at}: on {name}: {verify}");
            }
        }
        let wrong = self.lab.probe(about, stages);
        assert!(wrong.is_empty(), "{at}:\n{}", wrong.join("\n"));
    }
}
