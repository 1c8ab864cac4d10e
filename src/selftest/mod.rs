//! Attacks the rules that this program would install, on the kernel that runs, and looks at what gets through.
//!
//! [`topologies`] says in which surroundings, [`verdicts`] what is sent and what must become of it, [`frames`] how it looks
//! on the wire. `lab` builds each topology in network namespaces of its own and plays the frames there. The rules get
//! in by the same path as those of a node: registry, guests and links are inputs of the plan, and the kernel is told the
//! difference.
//!
//! [`live`] sends such frames on a bridge of the node itself, at [`targets`] made of what the node protects.

mod lab;
pub mod live;

pub use pve_public_ip_core::selftest::{delivery, frames, targets, topologies, verdicts};

use std::collections::BTreeSet;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use lab::Lab;
use topologies::{TOPOLOGIES, Topology};
use verdicts::Case;

use crate::host::command::{self, CommandError};
use crate::host::files;
use crate::model::problem::line;
use crate::model::{IfName, Missing};
use crate::registry::document::DocumentError;
use crate::ruleset::Variant;
use crate::system::namespace::Namespace;
use crate::system::tun::Tap;
use crate::system::{FilterError, KernelError, Nftables};

/// Which frames to play; empty: all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Part of the name of a class or of its group, in any case.
    pub class: Option<String>,
    /// Part of the name of a topology, in any case.
    pub topology: Option<String>,
    /// The iptables that filters routed traffic; none: nftables.
    pub variant: Option<Variant>,
}

/// Why a topology, or the whole test, cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refuses.
    #[error("cannot make a network namespace with links in it")]
    System(#[from] io::Error),
    /// No tap devices.
    #[error("cannot make a tap device")]
    Tap(#[source] io::Error),
    /// `ip`, `bridge` or `nft`.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The rules could not be loaded.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The table of topologies contradicts itself.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The same.
    #[error("{0}")]
    Inputs(String),
    /// The bridge does not ask iptables.
    #[error("br_netfilter is not loaded, and to load it would change how this machine treats its own bridged frames")]
    NoBrNetfilter,
    /// Not even honest frames of this port arrive.
    #[error("an honest broadcast of {0} does not arrive everywhere")]
    Deaf(IfName),
    /// They did, and then no more.
    #[error("an honest broadcast of {0} did not arrive at {1}")]
    Lost(IfName, IfName),
    /// On a bridge of the node.
    #[error(
        "an honest frame from one port of {0} to another one does not arrive, so nothing can be said of the others"
    )]
    Unheard(IfName),
    /// The safety catch.
    #[error("the test is still in the machine's own network namespace; nothing was loaded")]
    Home,
    /// The thread of the test ended early.
    #[error("the test ended early")]
    Ended,
    /// Nothing fits the selection.
    #[error("no frame is in a class and a topology of these names")]
    NothingSelected,
}

impl From<FilterError> for Error {
    fn from(error: FilterError) -> Self {
        Self::Kernel(error.into())
    }
}

/// Where a frame was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Got {
    /// Receivers.
    pub seen: Vec<IfName>,
    /// Of the receivers that it is for, those that it did not reach although it reached others.
    pub missing: Vec<IfName>,
    /// Of those that saw it, the ones that it must never reach.
    pub forbidden: Vec<IfName>,
}

impl Got {
    /// In a word or two.
    pub fn text(&self) -> String {
        let names = |names: &[IfName]| names.iter().map(IfName::as_str).collect::<Vec<_>>().join(", ");
        match (self.seen.as_slice(), self.missing.as_slice(), self.forbidden.as_slice()) {
            ([], ..) => "drop".to_owned(),
            (_, [], []) => "pass".to_owned(),
            (_, _, forbidden @ [_, ..]) => format!("pass, and to {}", names(forbidden)),
            (_, missing, _) => format!("pass, but not to {}", names(missing)),
        }
    }
}

/// One frame's fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Where.
    pub topology: &'static str,
    /// By whom.
    pub sender: IfName,
    /// Of which kind.
    pub group: &'static str,
    /// What exactly.
    pub class: String,
    /// Whether it must arrive.
    pub passes: bool,
    /// What became of it.
    pub got: Got,
}

impl Row {
    /// It must not arrive, and did.
    pub fn leaked(&self) -> bool {
        !self.passes && !self.got.seen.is_empty() || !self.got.forbidden.is_empty()
    }

    /// It must arrive, and did not, or not everywhere.
    pub fn broken(&self) -> bool {
        self.passes && (self.got.seen.is_empty() || !self.got.missing.is_empty())
    }
}

/// A topology that could not be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRun {
    /// Which.
    pub topology: &'static str,
    /// Why.
    pub reason: String,
    /// Whether a node can do without.
    pub optional: bool,
}

/// The outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// The version of `nft`.
    pub nft: String,
    /// What the kernel lacks.
    pub missing: Vec<Missing>,
    /// Each frame.
    pub rows: Vec<Row>,
    /// Each topology without frames.
    pub not_run: Vec<NotRun>,
    /// How long it took.
    pub duration: Duration,
}

impl Report {
    /// Frames that arrived and must not.
    pub fn leaked(&self) -> usize {
        self.rows.iter().filter(|row| row.leaked()).count()
    }

    /// Frames that did not arrive and must.
    pub fn broken(&self) -> usize {
        self.rows.iter().filter(|row| row.broken()).count()
    }

    /// Topologies with frames.
    pub fn topologies(&self) -> usize {
        self.rows.iter().map(|row| row.topology).collect::<BTreeSet<_>>().len()
    }

    /// Everything that must run has run, and every frame met its fate.
    pub fn is_good(&self) -> bool {
        !self.rows.is_empty()
            && self.rows.iter().all(|row| !row.leaked() && !row.broken())
            && self.not_run.iter().all(|topology| topology.optional)
    }
}

impl Selection {
    fn has_topology(&self, topology: &Topology) -> bool {
        is_part(self.topology.as_deref(), &[topology.name])
    }

    fn has_case(&self, case: &Case) -> bool {
        is_part(self.class.as_deref(), &[case.group, &case.class])
    }
}

fn is_part(wanted: Option<&str>, of: &[&str]) -> bool {
    let wanted = wanted.map(str::to_lowercase);
    wanted.is_none_or(|wanted| of.iter().any(|text| text.to_lowercase().contains(&wanted)))
}

/// Plays the selected frames against `rules`, which are [`crate::ruleset::RULES`] unless the test itself is tested.
///
/// Nothing is left behind, whatever happens: the namespaces have no names and the devices live in them.
pub fn run(selection: &Selection, rules: &str) -> Result<Report, Error> {
    let started = Instant::now();
    let mut report = Report { kernel: kernel_release()?, nft: nft_version()?, ..Report::default() };
    // `unshare` and `setns` move only the calling thread, and this one is nobody else's.
    let played = thread::scope(|scope| {
        let thread = scope.spawn(|| -> Result<(), Error> {
            let home = Namespace::current()?;
            stay_on_one_cpu()?;
            load_modules()?;
            report.missing = missing(&BTreeSet::new())?;
            play(selection, rules, &home, &mut report)
        });
        thread.join().unwrap_or(Err(Error::Ended))
    });
    played?;
    report.duration = started.elapsed();
    Ok(report)
}

fn play(selection: &Selection, rules: &str, home: &Namespace, report: &mut Report) -> Result<(), Error> {
    let reference = Nftables::reference(None)?;
    let mut anything = false;
    for topology in TOPOLOGIES.iter().filter(|topology| selection.has_topology(topology)) {
        let plays: Vec<_> = topology.plays.iter().map(|play| (play, topology.cases(play))).collect();
        let selected = |cases: &[Case]| cases.iter().any(|case| selection.has_case(case));
        if !plays.iter().any(|(_, cases)| selected(cases)) {
            continue;
        }
        anything = true;
        let mut rows = Vec::new();
        let played = Lab::build(topology).and_then(|mut lab| {
            lab.load(home, reference, rules, selection.variant)?;
            lab.settle()?;
            for (play, cases) in &plays {
                let cases: Vec<&Case> = cases.iter().filter(|case| selection.has_case(case)).collect();
                let got = lab.play(play, &cases)?;
                let sender = topology.sender(play);
                rows.extend(cases.into_iter().zip(got).map(|(case, got)| Row {
                    topology: topology.name,
                    sender,
                    group: case.group,
                    class: case.class.clone(),
                    passes: case.passes,
                    got,
                }));
            }
            Ok(())
        });
        home.enter()?;
        report.rows.append(&mut rows);
        if let Err(error) = played {
            let reason = line(&error);
            report.not_run.push(NotRun { topology: topology.name, reason, optional: topology.is_optional() });
        }
    }
    if anything { Ok(()) } else { Err(Error::NothingSelected) }
}

/// Loads what a kernel has as a module that nobody has needed so far. What does not come is missing afterwards, and said.
///
/// `br_netfilter` shows the bridged frames of the whole machine to iptables as soon as it is there. So it is loaded only
/// where no frames are bridged yet, and is switched off outside of the test's own namespaces.
fn load_modules() -> Result<(), Error> {
    // It would also come by itself, but for the device file, which udev makes.
    if exists("/dev/net/tun").is_err() {
        drop(command::run_within(10, "modprobe", &["tun"]));
    }
    // The kernel has this in the first network namespace only: another one cannot see the machine's bridges.
    let is_machine = exists("/proc/sys/net/core/netdev_max_backlog").is_ok();
    if exists(BR_NETFILTER).is_ok() || !is_machine || has_bridges()? {
        return Ok(());
    }
    drop(command::run_within(10, "modprobe", &["br_netfilter"]));
    lab::set_br_netfilter(false)
}

/// Whether this network namespace has a bridge.
fn has_bridges() -> io::Result<bool> {
    let links = std::fs::read_dir("/sys/class/net")?;
    Ok(links.flatten().any(|link| link.path().join("bridge").is_dir()))
}

/// On one CPU frames keep their order, so the arrival of a later one tells that an earlier one was dropped.
fn stay_on_one_cpu() -> io::Result<()> {
    let mut one = CpuSet::new();
    one.set(sched_getcpu()?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &one)?)
}

/// Release of the kernel that runs.
pub fn kernel_release() -> io::Result<String> {
    Ok(files::read_kernel("/proc/sys/kernel/osrelease".as_ref())?.trim().to_owned())
}

/// Version of `nft`.
pub fn nft_version() -> Result<String, CommandError> {
    let text = command::run_within(5, "nft", &["--version"])?;
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(text.split_whitespace().find_map(|word| word.strip_prefix('v')).unwrap_or("?").to_owned())
}

/// There if `br_netfilter` is loaded.
const BR_NETFILTER: &str = "/proc/sys/net/bridge";

/// A feature, whether every node needs it, what it means to lack it, and how to find out.
type Probe = (&'static str, bool, &'static str, fn() -> Result<(), String>);

const PROBES: [Probe; 9] = [
    ("bridges", true, "no guest can be connected", || try_command("ip link add br0 type bridge")),
    ("nf_tables for bridges", true, "nothing can be filtered: this node cannot be protected", || {
        try_command("nft add table bridge probe")
    }),
    ("sets over several fields", true, "an address cannot be bound to a port: this node cannot be protected", || {
        try_command("nft add table bridge sets")?;
        try_command("nft add set bridge sets bindings { type ifname . ether_addr . ipv4_addr; }")
    }),
    ("veth", true, "there can be no containers, and no guests behind Proxmox VE's firewall", || {
        try_command("ip link add veth0 type veth peer name veth1")
    }),
    ("forwarding entries that stay", true, "a guest can draw frames for another guest's MAC to itself", || {
        try_command("ip link add br2 type bridge")?;
        try_command("ip link add veth2 master br2 type veth peer name veth3")?;
        try_command("bridge fdb replace 02:00:00:00:00:01 dev veth2 master static sticky")
    }),
    ("tap devices", true, "there can be no virtual machines", || {
        Tap::new(IfName::literal("tap0")).map(drop).map_err(|error| format!("/dev/net/tun: {error}"))
    }),
    ("IPv6", false, "the test gives the node IPv6 addresses, which this kernel does not take", || {
        exists("/proc/sys/net/ipv6")
    }),
    (
        "VLAN-aware bridges",
        false,
        "`bridge-vlan-aware` cannot be used; guests in VLANs need bridges of their own",
        || try_command("ip link add br1 type bridge vlan_filtering 1"),
    ),
    (
        "br_netfilter",
        false,
        "the rules do not need it, but how they get on with it is not tested; `modprobe br_netfilter` loads it, and \
         shows iptables what this machine bridges until `sysctl net.bridge.bridge-nf-call-iptables=0`",
        || exists(BR_NETFILTER),
    ),
];

fn try_command(line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split(' ').collect();
    command::run(words[0], &words[1..], b"").map(drop).map_err(|error| error.to_string())
}

fn exists(path: &str) -> Result<(), String> {
    if matches!(std::fs::exists(path), Ok(true)) { Ok(()) } else { Err(format!("there is no {path}")) }
}

/// Tries each feature, but for those that are proven already, in a namespace of its own; returns those that this kernel
/// lacks.
pub fn missing(proven: &BTreeSet<String>) -> io::Result<Vec<Missing>> {
    let open: Vec<&Probe> = PROBES.iter().filter(|(feature, ..)| !proven.contains(*feature)).collect();
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let probe = || {
        Namespace::new()?.enter()?;
        let failed = open.iter().filter_map(|(feature, required, meaning, probe)| {
            let reason = probe().err()?.split_whitespace().collect::<Vec<_>>().join(" ");
            Some(Missing { feature, meaning, reason, required: *required })
        });
        Ok(failed.collect())
    };
    let ended = |_| Err(io::Error::other("the thread that tries features ended early"));
    // Only the thread that enters a namespace is moved.
    thread::scope(|scope| scope.spawn(probe).join().unwrap_or_else(ended))
}

/// All features that are tried.
pub fn features() -> impl Iterator<Item = &'static str> {
    PROBES.iter().map(|(feature, ..)| *feature)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(passes: bool, seen: &[&str], missing: &[&str]) -> Row {
        let names = |names: &[&str]| names.iter().map(|name| IfName::literal(name)).collect();
        Row {
            topology: "test",
            sender: IfName::literal("tap100i0"),
            group: "test",
            class: "test".to_owned(),
            passes,
            got: Got { seen: names(seen), missing: names(missing), forbidden: Vec::new() },
        }
    }

    #[test]
    fn a_row_is_judged_by_who_saw_the_frame() {
        for (row, leaked, broken, text) in [
            (row(false, &[], &[]), false, false, "drop"),
            (row(false, &["eno1"], &[]), true, false, "pass"),
            (row(true, &["eno1"], &[]), false, false, "pass"),
            (row(true, &[], &[]), false, true, "drop"),
            (row(true, &["vmbr0"], &["eno1", "tap101i0"]), false, true, "pass, but not to eno1, tap101i0"),
        ] {
            assert_eq!((row.leaked(), row.broken(), row.got.text().as_str()), (leaked, broken, text));
            let report = Report { rows: vec![row], ..Report::default() };
            assert_eq!(report.is_good(), !leaked && !broken, "{text}");
        }
    }

    #[test]
    fn nothing_played_is_not_good_and_neither_is_a_topology_left_out() {
        assert!(!Report::default().is_good());
        for optional in [true, false] {
            let not_run = vec![NotRun { topology: "other", reason: "why".to_owned(), optional }];
            let report = Report { rows: vec![row(true, &["eno1"], &[])], not_run, ..Report::default() };
            assert_eq!(report.is_good(), optional);
        }
    }

    #[test]
    fn a_selection_takes_parts_of_names_in_any_case() {
        let case = &TOPOLOGIES[0].cases(&TOPOLOGIES[0].plays[0])[0];
        for (class, topology, has_case, has_topology) in [
            (None, None, true, true),
            (Some("source mac"), Some("TAP ON"), true, true),
            (Some("another guest's, own IPv4"), None, true, true),
            (Some("no such class"), Some("no such topology"), false, false),
        ] {
            let selection = Selection {
                class: class.map(str::to_owned),
                topology: topology.map(str::to_owned),
                ..Selection::default()
            };
            assert_eq!(selection.has_case(case), has_case, "{class:?}");
            assert_eq!(selection.has_topology(&TOPOLOGIES[0]), has_topology, "{topology:?}");
        }
    }
}
