//! `status`: one screen for the administrator. What cannot be read makes its own line say so, never the command fail.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::json;

use super::output::{Output, OutputFormat, table};
use super::{Status, conflicts};
use crate::model::{IfName, MacAddr, PoolName, Vmid};
use crate::plan::{Presence, Problem, Step, guest_of_port};
use crate::reconcile::{Mode, Node, Report};
use crate::registry::document::Pool;
use crate::registry::{Registry, capacity, plain};
use crate::ruleset::reasons;
use crate::system::run::{GuardNote, RunState};
use crate::system::tally::{Count, Tallies};
use crate::system::{Kernel, Reference};

/// How long a bar of a pool is.
const BAR: usize = 10;

/// How the guard is.
#[derive(Debug, Serialize)]
pub(super) struct Guard {
    /// Whether its process is there.
    pub(super) runs: bool,
    /// What it noted last.
    #[serde(flatten)]
    pub(super) note: GuardNote,
}

/// How full a pool is.
#[derive(Debug, Serialize)]
pub(super) struct PoolUse {
    pub(super) name: String,
    profile: String,
    bridge: IfName,
    pub(super) uplink_guard: &'static str,
    /// Family, addresses that are assigned, addresses that there are.
    pub(super) families: Vec<(u8, u128, u128)>,
}

/// One NIC of a guest.
#[derive(Debug, Serialize)]
pub(super) struct GuestNic {
    vmid: Vmid,
    interface: String,
    port: IfName,
    mac: MacAddr,
    addresses: Vec<String>,
    pub(super) state: &'static str,
}

/// Frames that were dropped, by reason and port.
#[derive(Debug, Serialize)]
pub(super) struct Dropped {
    pub(super) port: IfName,
    pub(super) vmid: Option<Vmid>,
    pub(super) reason: &'static str,
    sentence: &'static str,
    #[serde(flatten)]
    pub(super) count: Count,
    seconds_ago: u64,
}

/// A MAC that the provider does not know.
#[derive(Debug, Serialize)]
struct Stranger {
    port: IfName,
    vmid: Option<Vmid>,
    mac: Option<MacAddr>,
    #[serde(flatten)]
    count: Count,
}

/// All that there is to say.
#[derive(Debug, Serialize)]
pub(super) struct View {
    node: String,
    version: &'static str,
    /// Whether the kernel is as it should be; `None`: it could not be compared.
    pub(super) in_line: Option<bool>,
    pub(super) differences: usize,
    pub(super) guard: Option<Guard>,
    pub(super) pools: Vec<PoolUse>,
    pub(super) guests: Vec<GuestNic>,
    /// Frames dropped in the last day.
    pub(super) dropped: Vec<Dropped>,
    /// Frames dropped since the table was made.
    pub(super) reasons: BTreeMap<&'static str, Count>,
    unregistered: Vec<Stranger>,
    /// Conflicts that nobody has acknowledged.
    pub(super) conflicts: usize,
    pub(super) problems: Vec<Problem>,
    pub(super) notes: Vec<Problem>,
    /// What could not be read.
    pub(super) trouble: Vec<String>,
}

/// Gathers it.
pub(super) fn view(node: &Node) -> View {
    let mut trouble = Vec::new();
    let mut keep = |what: &str, error: anyhow::Error| trouble.push(format!("{what}: {error:#}"));
    let report = node.reconcile(Mode::Plan).map_err(|error| keep("the node could not be compared", error.into())).ok();
    let registry = match node.store.load() {
        Ok(snapshot) => snapshot.registry,
        Err(error) => {
            keep("the registry could not be read", error.into());
            Registry::default()
        }
    };
    let tallies = Kernel::open(Reference::default()).and_then(|mut kernel| kernel.tallies());
    let tallies = tallies.map_err(|error| keep("the counters could not be read", error.into())).unwrap_or_default();
    let noted = RunState::guard_note(&node.paths);
    let guard = noted.map(|note| Guard { runs: note.is_alive(), note });
    let differences = report.as_ref().map_or(0, |report| report.steps.iter().map(|step| step.meanings().len()).sum());
    let pools = registry.pools.pools.iter().map(|(name, pool)| pool_use(name, pool, &registry)).collect();
    let (ports, strangers) = dropped(&tallies);
    let guests = guest_nics(node, &registry, report.as_ref());
    let (conflicts, _) = conflicts::all(node, registry);
    View {
        node: node.name.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        in_line: report.as_ref().map(|report| report.steps.is_empty()),
        differences,
        guard,
        pools,
        guests,
        dropped: ports,
        reasons: tallies.reasons,
        unregistered: strangers,
        conflicts: conflicts.iter().filter(|conflict| !conflict.acknowledged).count(),
        problems: report.as_ref().map(|report| report.problems.clone()).unwrap_or_default(),
        notes: report.map(|report| report.notes).unwrap_or_default(),
        trouble,
    }
}

fn pool_use(name: &PoolName, pool: &Pool, registry: &Registry) -> PoolUse {
    let family = |family: u8| {
        let entries = pool.addresses.iter().filter(|entry| entry.address.family() == family);
        let all = entries.map(capacity).fold(0u128, u128::saturating_add);
        let held = registry
            .assignments()
            .map(|(.., assigned)| assigned)
            .filter(|assigned| assigned.pool == *name && assigned.address.family() == family);
        let size = |net: ipnet::IpNet| 1u128.checked_shl((net.max_prefix_len() - net.prefix_len()).into());
        let used = held.map(|assigned| size(assigned.address.net()).unwrap_or(u128::MAX));
        (family, used.fold(0u128, u128::saturating_add), all)
    };
    PoolUse {
        name: name.to_string(),
        profile: pool.profile_name().to_owned(),
        bridge: pool.bridge,
        uplink_guard: pool.uplink_guard().as_str(),
        families: [family(4), family(6)].into_iter().filter(|(_, _, all)| *all > 0).collect(),
    }
}

fn guest_nics(node: &Node, registry: &Registry, report: Option<&Report>) -> Vec<GuestNic> {
    let mut nics = Vec::new();
    for (vmid, guest) in registry.guests.iter().filter(|(_, guest)| !guest.is_empty()) {
        let located = node.guests.find(*vmid, None);
        let (kind, here) = match &located {
            Ok(located) => (located.config.kind, located.node == node.name),
            Err(_) => (crate::model::GuestKind::Qemu, false),
        };
        for (id, interface) in &guest.interfaces {
            let port = kind.port(*vmid, *id);
            let state = match report {
                None => "unknown",
                Some(report) if report.problems.iter().any(|problem| problem.vmid == Some(*vmid)) => "problem",
                Some(report) => match report.presence.get(vmid) {
                    Some(_) if differs(&report.steps, port, interface.mac) => "NOT PROTECTED",
                    Some(Presence::Running) => "protected",
                    Some(Presence::Starting) => "starting",
                    Some(Presence::Incoming) => "arriving",
                    None if here => "reserved",
                    None => "elsewhere",
                },
            };
            let addresses = interface.addresses.iter().map(|assigned| plain(assigned.address)).collect();
            nics.push(GuestNic { vmid: *vmid, interface: id.to_string(), port, mac: interface.mac, addresses, state });
        }
    }
    nics
}

/// Whether what protects a port is not in place.
fn differs(steps: &[Step], port: IfName, mac: MacAddr) -> bool {
    let (port, mac) = (port.to_string(), mac.to_string());
    steps.iter().any(|step| match step {
        Step::DeclareSets(_) | Step::LoadRules(_) => true,
        Step::ChangeElements { add, .. } => {
            add.iter().map(ToString::to_string).any(|element| element.contains(&port) || element.contains(&mac))
        }
        _ => false,
    })
}

fn dropped(tallies: &Tallies) -> (Vec<Dropped>, Vec<Stranger>) {
    let sentences: BTreeMap<_, _> = reasons().collect();
    let mut ports: Vec<Dropped> = tallies
        .ports
        .iter()
        .map(|(reason, entry)| Dropped {
            port: entry.port,
            vmid: guest_of_port(entry.port),
            reason,
            sentence: sentences.get(reason).copied().unwrap_or_default(),
            count: entry.count,
            seconds_ago: entry.age.as_secs(),
        })
        .collect();
    ports.sort_by_key(|entry| (entry.seconds_ago, entry.port, entry.reason));
    let strangers = tallies.unregistered.iter().map(|entry| Stranger {
        port: entry.port,
        vmid: guest_of_port(entry.port),
        mac: entry.mac,
        count: entry.count,
    });
    (ports, strangers.collect())
}

pub(super) fn status(node: &Node, command: &Status, format: OutputFormat) -> anyhow::Result<Output> {
    let output = || {
        let view = view(node);
        let code = u8::from(view.in_line.is_none());
        Output { text: text(&view), data: json!(view), code }
    };
    if !command.watch {
        return Ok(output());
    }
    loop {
        // Home and clear, as `watch` does; nothing else is written to the terminal.
        let screen = format!("\x1b[H\x1b[J{}", output().render(format));
        io::stdout().write_all(screen.as_bytes())?;
        io::stdout().flush()?;
        sleep(Duration::from_secs(2));
    }
}

fn text(view: &View) -> String {
    let mut text = format!("node {}: {}, {}\n", view.node, health(view), guard_text(view.guard.as_ref()));
    for trouble in &view.trouble {
        text += &format!("trouble: {trouble}\n");
    }
    let pools: Vec<Vec<String>> = view.pools.iter().map(pool_row).collect();
    if !pools.is_empty() {
        text += &table(&["pool", "profile", "bridge", "assigned", "uplink guard"], &pools);
    }
    let guests: Vec<Vec<String>> = view
        .guests
        .iter()
        .map(|nic| {
            let addresses = nic.addresses.join(" ");
            vec![
                nic.vmid.to_string(),
                nic.interface.clone(),
                nic.port.to_string(),
                nic.mac.to_string(),
                addresses,
                nic.state.to_owned(),
            ]
        })
        .collect();
    if !guests.is_empty() {
        text += &table(&["guest", "net", "port", "mac", "addresses", "state"], &guests);
    }
    let whose =
        |vmid: Option<Vmid>, port: IfName| vmid.map_or_else(|| port.to_string(), |vmid| format!("{vmid} ({port})"));
    let dropped: Vec<Vec<String>> = view
        .dropped
        .iter()
        .map(|entry| {
            let ago = ago(entry.seconds_ago);
            vec![whose(entry.vmid, entry.port), entry.count.packets.to_string(), ago, entry.sentence.to_owned()]
        })
        .collect();
    if !dropped.is_empty() {
        text += &table(&["dropped from", "frames", "last", "because"], &dropped);
    }
    let strangers: Vec<Vec<String>> = view
        .unregistered
        .iter()
        .map(|entry| {
            let mac = entry.mac.map(|mac| mac.to_string()).unwrap_or_default();
            vec![whose(entry.vmid, entry.port), mac, entry.count.packets.to_string()]
        })
        .collect();
    if !strangers.is_empty() {
        text += &table(&["sends to the provider", "with unknown MAC", "frames"], &strangers);
    }
    if view.conflicts > 0 {
        text += &format!("conflicts: {} (`pve-public-ip conflicts list` names them)\n", view.conflicts);
    }
    for (kind, problems) in [("problem", &view.problems), ("note", &view.notes)] {
        for problem in problems {
            text += &format!("{kind}: {}\n  hint: {}\n", problem.sentence, problem.hint);
        }
    }
    text
}

fn health(view: &View) -> String {
    match (view.in_line, view.differences) {
        (None, _) => "NOT COMPARED".to_owned(),
        (Some(true), _) => "the kernel is as it should be".to_owned(),
        (Some(false), 1) => "1 DIFFERENCE (`pve-public-ip verify` names it)".to_owned(),
        (Some(false), count) => format!("{count} DIFFERENCES (`pve-public-ip verify` names them)"),
    }
}

fn guard_text(guard: Option<&Guard>) -> String {
    let Some(Guard { runs, note }) = guard else { return "no guard runs".to_owned() };
    if !runs {
        return "no guard runs any more".to_owned();
    }
    if let Some(trouble) = &note.trouble {
        return format!("the guard is in trouble: {trouble}");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let repairs = match note.repairs {
        0 => String::new(),
        1 => ", 1 repair".to_owned(),
        count => format!(", {count} repairs"),
    };
    format!("the guard looked {} ({} ms{repairs})", ago(now.saturating_sub(note.last_look)), note.last_look_ms)
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        _ => format!("{} h ago", seconds / 3600),
    }
}

/// `[##........] 2 of 8 IPv4`.
fn pool_row(pool: &PoolUse) -> Vec<String> {
    let count = |number: u128| if number < 1 << 32 { number.to_string() } else { format!("2^{}", number.ilog2()) };
    let family = |(family, used, all): &(u8, u128, u128)| {
        let share = BAR as u128;
        // Never empty as long as anything is assigned, never full as long as anything is free.
        let filled = (used.saturating_mul(share) / all).clamp(u128::from(*used > 0), share - u128::from(used < all));
        let filled = usize::try_from(filled).unwrap_or(BAR).min(BAR);
        let bar = "#".repeat(filled) + &".".repeat(BAR - filled);
        format!("[{bar}] {} of {} IPv{family}", count(*used), count(*all))
    };
    let families: Vec<String> = pool.families.iter().map(family).collect();
    vec![
        pool.name.clone(),
        pool.profile.clone(),
        pool.bridge.to_string(),
        families.join(", "),
        pool.uplink_guard.to_owned(),
    ]
}
