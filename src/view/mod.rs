//! How a node is: gathered once, shown by `status`, by `metrics` and by the guard. What could not be read is one of the
//! things that there are to say.

pub mod exposition;
mod history;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

pub use history::History;

use crate::links::guest_of_port;
use crate::model::{Amount, Family, IfName, MacAddr, PoolName, Prefix, Vmid};
use crate::plan::{GuestState, GuestStates, Inputs, Problem, Router, Step, guard_of, is_idle};
use crate::registry::document::{Enforce, Pool};
use crate::registry::{Registry, capacity};
use crate::ruleset::{is_watched, reasons};
use crate::system::run::GuardNote;
use crate::system::tally::{Count, Tallies};

/// How the guard is.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct GuardStatus {
    /// Whether its process is there.
    pub runs: bool,
    /// What it noted last.
    #[serde(flatten)]
    pub note: GuardNote,
}

/// How full a pool is.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct PoolUse {
    /// Its name.
    pub name: String,
    /// The provider's layout.
    pub profile: String,
    /// Its bridge.
    pub bridge: IfName,
    /// What becomes of frames with MACs that the provider does not know.
    pub uplink_guard: &'static str,
    /// Whether it is enforced.
    pub enforce: Enforce,
    /// How many addresses are assigned, of IPv4 (`ipv4`) and IPv6 (`ipv6`).
    pub totals: BTreeMap<&'static str, PoolTotals>,
}

/// How many addresses of a pool are assigned.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct PoolTotals {
    /// Addresses that there are.
    pub size: Amount,
    /// Addresses that are assigned.
    pub assigned: Amount,
}

/// One NIC of a guest.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct GuestNic {
    /// The guest.
    pub vmid: Vmid,
    /// The NIC.
    pub interface: String,
    /// The node's side of it.
    pub port: IfName,
    /// Its MAC by the registry.
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: Vec<Prefix>,
    /// How it is.
    pub state: GuestState,
}

/// Frames that were dropped, by reason and port. An entry goes a day after its last frame.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Dropped {
    /// Where they came from.
    pub port: IfName,
    /// Whose port that is.
    pub vmid: Option<Vmid>,
    /// The counter.
    pub reason: &'static str,
    /// The same in words.
    pub sentence: &'static str,
    /// How many in the last hour, as far as that is known: the guard notes it.
    pub last_hour: Option<u64>,
    /// How many since the entry was made.
    #[serde(flatten)]
    pub count: Count,
    /// Since the last one.
    pub seconds_ago: u64,
}

/// Frames that would be dropped if the pool were enforced, with where to they want to go.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Watched {
    /// By reason and port, as what is dropped.
    #[serde(flatten)]
    pub frames: Dropped,
    /// Where to this port sends what would be dropped, whatever the reason; most frames first.
    pub to: Vec<IpAddr>,
}

/// A MAC that the provider does not know.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Stranger {
    /// Where its frames come from.
    pub port: IfName,
    /// Whose port that is.
    pub vmid: Option<Vmid>,
    /// The MAC.
    pub mac: Option<MacAddr>,
    /// How many frames.
    #[serde(flatten)]
    pub count: Count,
}

/// What came of comparing the node with its desired state.
#[derive(Debug, Clone, Copy)]
pub struct Comparison<'a> {
    /// What would have to be done.
    pub steps: &'a [Step],
    /// What stands in the way of assignments.
    pub problems: &'a [Problem],
    /// What may surprise.
    pub notes: &'a [Problem],
}

/// What is known of the node.
#[derive(Debug)]
pub struct NodeFacts<'a> {
    /// Its files and interfaces; none if they could not be read.
    pub inputs: Option<&'a Inputs>,
    /// None if it could not be compared.
    pub comparison: Option<Comparison<'a>>,
    /// What the rules have counted.
    pub tallies: &'a Tallies,
    /// What they had counted before.
    pub history: &'a History,
    /// The guard, if it has run since the node booted.
    pub guard: Option<GuardStatus>,
    /// How many claim what somebody else has, as far as nobody has acknowledged it.
    pub conflicts: usize,
    /// Files of the registry, and of guests that hold addresses, that cannot be used.
    pub unreadable: usize,
    /// What could not be read.
    pub trouble: Vec<String>,
}

/// All that there is to say.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct View {
    /// The node.
    pub node: String,
    /// This release.
    pub version: &'static str,
    /// Whether the kernel is as it should be; `None`: it could not be compared.
    pub in_line: Option<bool>,
    /// Differences that `verify` would name.
    pub differences: usize,
    /// The guard.
    pub guard: Option<GuardStatus>,
    /// Pools.
    pub pools: Vec<PoolUse>,
    /// NICs with addresses.
    pub guests: Vec<GuestNic>,
    /// Frames dropped in the last day.
    pub dropped: Vec<Dropped>,
    /// Frames dropped since the table was made.
    pub reasons: BTreeMap<&'static str, Count>,
    /// Frames that would have been dropped in the last day if their pools were enforced.
    pub watched: Vec<Watched>,
    /// The same since the table was made.
    pub watched_reasons: BTreeMap<&'static str, Count>,
    /// MACs that the provider does not know.
    pub unregistered: Vec<Stranger>,
    /// Routers behind the uplinks whose MACs were learnt, and are protected.
    pub routers: Vec<Router>,
    /// Conflicts that nobody has acknowledged.
    pub conflicts: usize,
    /// What stands in the way of assignments.
    pub problems: Vec<Problem>,
    /// What may surprise.
    pub notes: Vec<Problem>,
    /// What could not be read.
    pub trouble: Vec<String>,
    /// Whether there is nothing to protect yet.
    pub is_idle: bool,
    /// Files of the registry, and of guests that hold addresses, that cannot be used; what was known of them last counts.
    pub unreadable: usize,
}

/// Seconds since 1970.
pub fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl View {
    /// Puts together what is known.
    pub fn of(node: &impl fmt::Display, known: NodeFacts<'_>) -> Self {
        let NodeFacts { inputs, comparison, tallies, history, guard, conflicts, unreadable, trouble } = known;
        let steps = comparison.map_or(&[][..], |comparison| comparison.steps);
        Self {
            node: node.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            in_line: comparison.map(|comparison| comparison.steps.is_empty()),
            differences: steps.iter().map(|step| step.meanings().len()).sum(),
            guard,
            pools: inputs.map(|inputs| pools(&inputs.registry)).unwrap_or_default(),
            guests: inputs.map(|inputs| guest_nics(inputs, comparison)).unwrap_or_default(),
            dropped: dropped(tallies, history).into_iter().filter(|entry| !is_watched(entry.reason)).collect(),
            reasons: reasons_of(tallies, false),
            watched: watched(tallies, history),
            watched_reasons: reasons_of(tallies, true),
            unregistered: strangers(tallies),
            routers: inputs.map(|inputs| inputs.routers.clone()).unwrap_or_default(),
            conflicts,
            problems: comparison.map(|comparison| comparison.problems.to_vec()).unwrap_or_default(),
            notes: comparison.map(|comparison| comparison.notes.to_vec()).unwrap_or_default(),
            trouble,
            is_idle: inputs.is_some_and(|inputs| is_idle(&inputs.registry)),
            unreadable,
        }
    }

    /// Frames dropped from each port in the last hour, whatever the reason.
    pub fn attempts(&self) -> BTreeMap<IfName, u64> {
        let mut attempts = BTreeMap::new();
        for entry in &self.dropped {
            *attempts.entry(entry.port).or_default() += entry.last_hour.unwrap_or_default();
        }
        attempts
    }
}

fn pools(registry: &Registry) -> Vec<PoolUse> {
    let mut used: BTreeMap<(&PoolName, Family), Amount> = BTreeMap::new();
    let mut counted = BTreeSet::new();
    for (.., assigned) in registry.assignments() {
        let net = assigned.address.net();
        if assigned.shared.is_some() && !counted.insert(net) {
            continue;
        }
        let size = 1u128.checked_shl((net.max_prefix_len() - net.prefix_len()).into()).unwrap_or(u128::MAX);
        let used = used.entry((&assigned.pool, assigned.address.family())).or_default();
        *used = used.plus(size);
    }
    let of = |(name, pool): (&PoolName, &Pool)| {
        let family = |family: Family| {
            let entries = pool.addresses.iter().filter(|entry| entry.address.family() == family);
            let size = entries.map(capacity).fold(Amount::default(), Amount::plus);
            let assigned = used.get(&(name, family)).copied().unwrap_or_default();
            (size.0 > 0).then_some((family.key(), PoolTotals { size, assigned }))
        };
        PoolUse {
            name: name.to_string(),
            profile: pool.profile_name().to_owned(),
            bridge: pool.bridge,
            uplink_guard: guard_of(registry, pool).as_str(),
            enforce: pool.enforce(),
            totals: Family::BOTH.into_iter().filter_map(family).collect(),
        }
    };
    registry.pools.pools.iter().map(of).collect()
}

fn guest_nics(inputs: &Inputs, comparison: Option<Comparison<'_>>) -> Vec<GuestNic> {
    let states = GuestStates::new(inputs, comparison.map(|Comparison { steps, problems, .. }| (steps, problems)));
    let mut nics = Vec::new();
    for (vmid, guest) in inputs.registry.guests.iter().filter(|(_, guest)| !guest.is_empty()) {
        for (id, interface) in &guest.interfaces {
            let addresses = interface.addresses.iter().map(|assigned| assigned.address).collect();
            nics.push(GuestNic {
                vmid: *vmid,
                interface: id.to_string(),
                port: states.port(*vmid, *id),
                mac: interface.mac,
                addresses,
                state: states.of_nic(*vmid, *id, interface.mac),
            });
        }
    }
    nics
}

fn dropped(tallies: &Tallies, history: &History) -> Vec<Dropped> {
    let sentences: BTreeMap<_, _> = reasons().collect();
    let now = seconds();
    let entries = tallies.ports.iter().map(|(reason, entry)| Dropped {
        port: entry.port,
        vmid: guest_of_port(entry.port),
        reason,
        sentence: sentences.get(reason).copied().unwrap_or_default(),
        last_hour: history.last_hour(now, reason, entry),
        count: entry.count,
        seconds_ago: entry.age.as_secs(),
    });
    let mut dropped: Vec<Dropped> = entries.collect();
    dropped.sort_by_key(|entry| (entry.seconds_ago, entry.port, entry.reason));
    dropped
}

fn reasons_of(tallies: &Tallies, watched: bool) -> BTreeMap<&'static str, Count> {
    let reasons = tallies.reasons.iter().filter(|(reason, _)| is_watched(reason) == watched);
    reasons.map(|(reason, count)| (*reason, *count)).collect()
}

fn watched(tallies: &Tallies, history: &History) -> Vec<Watched> {
    let mut destinations: BTreeMap<IfName, Vec<(u64, IpAddr)>> = BTreeMap::new();
    for (address, entry) in &tallies.destinations {
        destinations.entry(entry.port).or_default().push((entry.count.packets, *address));
    }
    for to in destinations.values_mut() {
        to.sort_unstable_by_key(|(packets, _)| std::cmp::Reverse(*packets));
    }
    let frames = dropped(tallies, history).into_iter().filter(|entry| is_watched(entry.reason));
    let with = |frames: Dropped| {
        let to = destinations.get(&frames.port).into_iter().flatten().map(|(_, address)| *address).collect();
        Watched { frames, to }
    };
    frames.map(with).collect()
}

fn strangers(tallies: &Tallies) -> Vec<Stranger> {
    let strangers = tallies.unregistered.iter();
    strangers
        .map(|entry| Stranger { port: entry.port, vmid: guest_of_port(entry.port), mac: entry.mac, count: entry.count })
        .collect()
}
