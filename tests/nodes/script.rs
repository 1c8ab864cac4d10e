//! Plays a row of the tables: one step after the other, and after each a look at both nodes.
//!
//! # The script of a row
//!
//! A line is `step | n1 n2` or `step | n1 n2 | n1 n2`. The step is done; then both nodes are compared with the columns. The
//! first column is the stage of the NIC on each node by the hooks alone, the second one that with the guard, where it differs.
//!
//! ```text
//! line     = step "|" stages [ "|" stages ]
//! stages   = stage stage [ "announced" ]      on n1 and on n2; the provider's switch was told of the MAC
//! stage    = name [ "*" ]                      names: see Stage; for the star see Row
//! step     = node verb ... | "move" vmid node node | "nothing:" remark
//! node     = "n1" | "n2"
//! ```
//!
//! | verb | does |
//! |---|---|
//! | `start 100 [behind firewall]` | three lines: `hook 100 pre-start`, `plug tap100i0`, `hook 100 post-start`, which announces |
//! | `stop 100` | three lines: `hook 100 pre-stop`, `unplug tap100i0`, `hook 100 post-stop` |
//! | `halt 100` | the last two of them: the guest ends by itself, so nobody calls pre-stop |
//! | `hook 100 PHASE [from n2] [refused: MESSAGE]` | a hook, as Proxmox VE calls it |
//! | `plug PORT [behind firewall \| as MAC]`, `unplug PORT` | the port appears or disappears |
//! | `firewall PORT on\|off` | the NIC firewall is switched: the port moves to another bridge |
//! | `config 100 LINE`, `config 102 of 100 with MAC\|its MAC`, `destroy 100` | the guest's configuration is written or removed |
//! | `dies`, `boots` | the node |
//! | `loses`, `regains` `pmxcfs\|quorum` | the cluster file system, or the right to write to it |
//! | `guard stops\|is killed\|starts` | the service; nothing where the row is played without it |
//! | `link PORT up\|down`, `waits`, `sh SCRIPT`, `runs COMMAND` | a link's state; ten minutes pass; a shell script; this program |
//!
//! `start`, `stop` and `halt` are short forms ([`expanded`]): each of their lines is played and looked at. Their column has
//! the stages after the last one, so the other node's stage has to be the same all the time.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pve_public_ip::selftest::frames::Mac;

use crate::common::{Run, Tree};
use crate::lab::{Guard, Lab, NODES, Nic, PATIENCE, Stage, config, nic};

/// Who looks after the nodes besides the hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Nobody: what the hooks alone can do.
    Nobody,
    /// The guard, on both nodes.
    Guard,
}

/// One way of life: its name, the port that the columns speak about, and its steps.
///
/// Where the two columns of a line differ, `verify` reports drift if there is no guard, and nowhere else. A star turns that
/// round for its node: nobody can know who did not look earlier, or the guard is not there.
pub(crate) type Row = (&'static str, &'static str, &'static str);

/// Two nodes, with or without their guards.
pub(crate) fn nodes(watch: Watch) -> Lab {
    let mut lab = Lab::new();
    if watch == Watch::Guard {
        for host in &mut lab.hosts {
            host.guard = Some(Guard::start(&host.node));
        }
    }
    lab
}

/// Plays rows one after the other on the same two nodes; each leaves them as it found them.
pub(crate) fn play_all(watch: Watch, rows: &[Row]) {
    let mut lab = nodes(watch);
    for (name, port, text) in rows {
        lab.reset_configs();
        let mut play = Play { lab: &mut lab, watch, name: (*name).to_owned(), about: nic(port) };
        let before = play.traces();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        assert!(!lines.is_empty(), "{name} has no steps");
        for line in lines {
            for line in expanded(line) {
                play.line(&line);
            }
        }
        play.ends(&before);
    }
}

/// The lines that a short form stands for; any other line itself.
pub(crate) fn expanded(line: &str) -> Vec<String> {
    let (step, column) = line.split_once('|').unwrap_or((line, ""));
    let words: Vec<&str> = step.split_whitespace().collect();
    let [node, verb @ ("start" | "stop" | "halt"), vmid, rest @ ..] = &words[..] else { return vec![line.to_owned()] };
    let stages: Vec<&str> = column.split_whitespace().collect();
    let [first, second] = stages[..] else { panic!("`{line}`: a short form has one column of two stages") };
    let is_first = *node == NODES[0];
    let last = if *verb == "start" { "running" } else { "-" };
    assert_eq!(if is_first { first } else { second }, last, "`{line}`: this is not how `{verb}` ends");
    let stages = |own: &str| if is_first { format!("{own} {second}") } else { format!("{first} {own}") };
    let port = format!("{}{vmid}i0", if vmid.starts_with('2') { "veth" } else { "tap" });
    let (starting, running, unpinned, gone) = (stages("starting"), stages("running"), stages("unpinned"), stages("-"));
    if *verb == "start" {
        return vec![
            format!("{node} hook {vmid} pre-start | {starting}"),
            format!("{node} plug {} | {starting} | {running}", [&[port.as_str()], rest].concat().join(" ")),
            format!("{node} hook {vmid} post-start | {running} announced"),
        ];
    }
    let mut lines = vec![
        format!("{node} hook {vmid} pre-stop | {running}"),
        format!("{node} unplug {port} | {unpinned} | {gone}"),
        format!("{node} hook {vmid} post-stop | {gone}"),
    ];
    if *verb == "halt" {
        lines.remove(0);
    }
    lines
}

#[test]
fn short_forms_stand_for_hooks_and_ports() {
    assert_eq!(
        expanded("n1 start 100 behind firewall | running -"),
        [
            "n1 hook 100 pre-start | starting -",
            "n1 plug tap100i0 behind firewall | starting - | running -",
            "n1 hook 100 post-start | running - announced",
        ]
    );
    assert_eq!(
        expanded("n2 stop 200 | running -"),
        [
            "n2 hook 200 pre-stop | running running",
            "n2 unplug veth200i0 | running unpinned | running -",
            "n2 hook 200 post-stop | running -",
        ]
    );
    assert_eq!(expanded("n1 halt 100 | - -"), expanded("n1 stop 100 | - -")[1..]);
    assert_eq!(expanded("n1 hook 100 pre-start | starting -"), ["n1 hook 100 pre-start | starting -"]);
}

/// Somebody's life, step by step.
pub(crate) struct Play<'a> {
    pub(crate) lab: &'a mut Lab,
    pub(crate) watch: Watch,
    /// Whose, for messages.
    pub(crate) name: String,
    /// The NIC that the columns speak about.
    pub(crate) about: Nic,
}

/// What a step leaves to be seen.
struct Expected {
    stages: [Stage; 2],
    is_announced: bool,
    /// Whether `verify` says of a node that it is not as it should be.
    drift: [bool; 2],
}

impl Expected {
    fn parse(columns: &[&str], watch: Watch) -> Self {
        let column = |text: &str| -> ([Stage; 2], bool) {
            let stages = text.strip_suffix(" announced");
            let words = stages.unwrap_or(text).split(' ').map(|word| Stage::parse(word.trim_end_matches('*')));
            let found: Vec<Stage> = words.collect();
            (found.try_into().unwrap_or_else(|_| panic!("`{text}` does not name two stages")), stages.is_some())
        };
        let alone = column(columns[0]);
        let watched = columns.get(1).map_or(alone, |text| column(text));
        let (stages, is_announced) = if watch == Watch::Nobody { alone } else { watched };
        let starred = [0, 1].map(|at| columns[0].split(' ').nth(at).is_some_and(|word| word.ends_with('*')));
        let drift = [0, 1].map(|at| watch == Watch::Nobody && (alone.0[at] != watched.0[at]) != starred[at]);
        Self { stages, is_announced, drift }
    }
}

impl Play<'_> {
    /// Plays a step and looks.
    pub(crate) fn line(&mut self, line: &str) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let at = format!("{}, {:?}, `{line}`", self.name, self.watch);
        assert!((2..=3).contains(&columns.len()), "{at}: a step has one or two columns");
        self.step(columns[0], &at);
        self.look(columns[0], &Expected::parse(&columns[1..], self.watch), &at);
    }

    /// Nothing is left, and nothing is lost. What a failed start or a missing hook leaves, the next look at the node
    /// removes.
    pub(crate) fn ends(&self, before: &BTreeSet<String>) {
        self.lab.reset_configs();
        for host in &self.lab.hosts {
            assert!(host.is_alive, "{} leaves a node switched off", self.name);
            if self.watch == Watch::Nobody {
                host.node.run("apply").ok();
            }
        }
        self.within_patience(&format!("{}, {:?}: left behind or lost", self.name, self.watch), |play| {
            let after = play.traces();
            let difference: Vec<&String> = before.symmetric_difference(&after).collect();
            if difference.is_empty() { Ok(()) } else { Err(format!("{difference:#?}")) }
        });
    }

    /// Without the guard it is so now; with it, it becomes so.
    pub(crate) fn within_patience<T>(&self, at: &str, look: impl Fn(&Self) -> Result<T, String>) -> T {
        let started = Instant::now();
        loop {
            match look(self) {
                Ok(found) => return found,
                Err(wrong) if self.watch == Watch::Nobody || started.elapsed() > PATIENCE => {
                    let logs = self.lab.hosts.iter().filter(|host| host.guard.is_some()).map(|host| {
                        format!("--- guard of {}\n{}", host.node.tree.name, host.node.tree.read("guard.log"))
                    });
                    panic!("{at}: {wrong}\n{}", logs.collect::<String>());
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// All that the product may leave on a node.
    pub(crate) fn traces(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for host in &self.lab.hosts {
            let name = &host.node.tree.name;
            let notes = host.node.tree.volatile().into_iter();
            found.extend(notes.filter(|path| path.starts_with("guests/")).map(|path| format!("{name} {path}")));
            for set in host.node.net.sh("nft list sets bridge").split("\tset ").skip(1) {
                // Which port tried what is for people to read, for a day.
                if set.contains("dynamic") {
                    continue;
                }
                let (set_name, rest) = set.split_once(" {").unwrap();
                let elements = rest.split_once("elements = {").map_or("", |(_, elements)| elements);
                let elements = elements.split([',', '}']).map(str::trim).filter(|element| !element.is_empty());
                found.extend(elements.map(|element| format!("{name} {set_name} {element}")));
            }
            let script = "ip neigh show proto 121; ip route show proto 121; ip -6 route show proto 121; bridge fdb show | grep sticky || true";
            found.extend(host.node.net.sh(script).lines().map(|line| format!("{name} {}", line.trim())));
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
            "boots" => {
                self.lab.boot(host);
                if self.watch == Watch::Guard {
                    self.lab.hosts[host].guard = Some(Guard::start(&self.lab.hosts[host].node));
                }
            }
            "sh" => drop(self.lab.hosts[host].node.net.sh(rest)),
            "runs" => drop(self.lab.hosts[host].node.run(rest).ok()),
            "waits" => self.age_marks(host),
            "guard" => self.guard(host, rest),
            "loses" => self.lose(host, rest),
            "regains" => self.regain(host, rest),
            "link" => {
                let (port, how) = rest.split_once(' ').unwrap();
                self.lab.set_link(host, port, how == "up");
            }
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
        if let Some(guard) = &self.lab.hosts[host].guard {
            guard.signal(Signal::SIGHUP);
        }
    }

    /// `pmxcfs`: it is not mounted any more; `quorum`: what it shows cannot be changed.
    fn lose(&self, host: usize, what: &str) {
        let tree = &self.lab.hosts[host].node.tree;
        let mounted = tree.path("etc/pve");
        match what {
            "pmxcfs" => {
                assert_eq!(host, 1, "the first node has the files");
                tree.write("var/lib/pve-cluster/config.db", "");
                fs::rename(&mounted, tree.path("unmounted")).unwrap();
                fs::create_dir(mounted).unwrap();
            }
            "quorum" => {
                let files = self.lab.hosts[0].node.tree.path("etc/pve");
                let path = files.display();
                let script = format!("mount --bind {path} {path}; mount -o remount,bind,ro {path}");
                self.lab.hosts[host].node.net.sh(&script);
            }
            _ => panic!("a node cannot lose {what}"),
        }
    }

    fn regain(&self, host: usize, what: &str) {
        let tree = &self.lab.hosts[host].node.tree;
        if what == "pmxcfs" {
            fs::remove_dir(tree.path("etc/pve")).expect("nothing was written under the mount point");
            fs::rename(tree.path("unmounted"), tree.path("etc/pve")).unwrap();
        } else {
            let files = self.lab.hosts[0].node.tree.path("etc/pve");
            self.lab.hosts[host].node.net.sh(&format!("umount {}", files.display()));
        }
    }

    /// `stops`, `is killed`, `starts`; only where it runs.
    fn guard(&mut self, host: usize, what: &str) {
        if self.watch == Watch::Nobody {
            return;
        }
        let host = &mut self.lab.hosts[host];
        let mut end = |signal| host.guard.take().expect("the guard runs").end(signal);
        match what {
            "stops" => assert_eq!(end(Signal::SIGTERM), Some(0), "SIGTERM is how a service ends"),
            "is killed" => assert_eq!(end(Signal::SIGKILL), None, "it was killed"),
            "starts" => host.guard = Some(Guard::start(&host.node)),
            _ => panic!("the guard cannot `{what}`"),
        }
    }

    // ---- looks ----------------------------------------------------------------------------------------------

    fn look(&mut self, step: &str, expected: &Expected, at: &str) {
        let about = &self.about.clone();
        for (host, stage) in expected.stages.into_iter().enumerate() {
            let name = NODES[host];
            let node = &self.lab.hosts[host];
            // What is done on one node does not concern the other, but for commands.
            if step.starts_with(NODES[1 - host]) && !(step.contains(" runs ") && node.guard.is_some()) {
                continue;
            }
            // Without its guard nobody keeps a node in line.
            let is_ours = self.watch == Watch::Nobody || node.guard.is_some();
            self.within_patience(&format!("{at}: on {name}"), |play| {
                match play.lab.stage(host, about) {
                    Ok(found) if found == stage || (found, stage) == (Stage::Free, Stage::Nobodys) => {}
                    Err(_) if stage == Stage::Odd => {}
                    other => return Err(format!("expected {stage:?}, found {other:?}")),
                }
                let verify = (node.is_alive && is_ours).then(|| node.node.run("verify"));
                match verify.filter(|verify| (verify.code == 3) != expected.drift[host]) {
                    Some(verify) => Err(verify.to_string()),
                    None => Ok(()),
                }
            });
        }
        assert_eq!(self.lab.was_announced(about), expected.is_announced, "{at}: announced to the provider");
        self.probe(expected.stages, at);
    }

    /// Frames of everybody, wherever the NIC is.
    pub(crate) fn probe(&mut self, stages: [Stage; 2], at: &str) {
        let wrong = self.lab.probe(&self.about, stages);
        assert!(wrong.is_empty(), "{at}:\n{}", wrong.join("\n"));
    }
}
