//! Checks of the registry and of the cluster that keeps it.

use std::time::Duration;

use super::{Hit, Observation, Unreadable, View, listed};
use crate::registry::room::{Fill, fill};

/// Clocks differ by less; what is more breaks corosync too.
const SKEW: Duration = Duration::from_secs(30);

#[expect(clippy::unnecessary_wraps, reason = "a row of the table like the others")]
pub(super) fn unreadable(view: &View<'_>) -> Observation<Vec<Hit>> {
    let hit = |Unreadable { reason, remedy }: &Unreadable| Hit::new("/etc/pve", reason.clone(), remedy.clone());
    Ok(view.facts.files.as_ref().err().map(hit).into_iter().collect())
}

pub(super) fn registry_broken(view: &View<'_>) -> Observation<Vec<Hit>> {
    let broken = &view.files()?.inputs.registry.broken;
    Ok(broken.iter().map(|error| Hit::new(&error.path.display(), error.to_string(), error.hint.clone())).collect())
}

pub(super) fn registry_conflict(view: &View<'_>) -> Observation<Vec<Hit>> {
    let conflicts = view.files()?.inputs.registry.conflicts();
    let hit = |(guests, sentence)| {
        let guests: std::collections::BTreeSet<_> = guests;
        let remedy = guests.last().map(|vmid| {
            format!("`pve-public-ip show {vmid}` shows what it holds; release one of them, or correct the file by hand")
        });
        Hit::new(&format!("guests {}", listed(guests)), sentence, remedy.unwrap_or_default())
    };
    Ok(conflicts.into_iter().map(hit).collect())
}

/// From which percentage on a set is nearly full.
const NEARLY: usize = 80;

pub(super) fn set_nearly_full(view: &View<'_>) -> Observation<Vec<Hit>> {
    let filled = fill(&view.files()?.inputs.registry);
    let is_nearly = |Fill { needed, room, .. }: &Fill| needed.saturating_mul(100) >= room.saturating_mul(NEARLY);
    let hit = |Fill { set, needed, room }: Fill| {
        let percent = needed.saturating_mul(100) / room.max(1);
        let sentence = format!(
            "all pools together need {needed} elements of the set `{}` and it has room for {room} ({percent} %)",
            set.name()
        );
        let remedy =
            "`pve-public-ip pool list` shows the pools: name only what guests get, such as 10.0.0.0/24 for 10.0.0.0/16";
        Hit::new(set.name(), sentence, remedy)
    };
    Ok(filled.into_iter().filter(is_nearly).map(hit).collect())
}

pub(super) fn no_quorum(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let members = files.members.as_ref().map_err(String::clone)?;
    let hit = || Hit::new("cluster", "this node is not part of a quorum", "`pvecm status` tells who is missing");
    Ok((!members.quorate).then(hit).into_iter().collect())
}

pub(super) fn node_offline(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let members = files.members.as_ref().map_err(String::clone)?;
    let hit = |node| Hit::new(node, format!("node {node} does not answer"), "`pvecm status`");
    Ok(members.offline.iter().map(hit).collect())
}

pub(super) fn nodes_not_named(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let found = files.inputs.registry.pools.pools.iter().filter_map(|(name, pool)| {
        let problem = crate::plan::nodes_not_named(&files.nodes, name, pool)?;
        Some(Hit::new(&format!("pool {name}"), problem.sentence, problem.hint))
    });
    Ok(found.collect())
}

pub(super) fn leftovers(view: &View<'_>) -> Observation<Vec<Hit>> {
    let hit = |path: &std::path::PathBuf| {
        let path = path.display();
        let remedy = format!("if it is older than an hour: `rm {path}`");
        Hit::new(&path, format!("`{path}` is a temporary file"), remedy)
    };
    Ok(view.files()?.leftovers.iter().map(hit).collect())
}

pub(super) fn files_from_the_future(view: &View<'_>) -> Observation<Vec<Hit>> {
    let ahead = view.files()?.ahead.as_ref().filter(|(_, by)| *by > SKEW);
    let hit = |(path, by): &(std::path::PathBuf, Duration)| {
        let path = path.display();
        let sentence = format!("`{path}` was written {} s from now", by.as_secs());
        Hit::new(&path, sentence, "compare `date` on all nodes; `timedatectl` tells whether a clock is synchronised")
    };
    Ok(ahead.map(hit).into_iter().collect())
}

pub(super) fn registry_format_old(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let hit = || Hit::new("pools.json", "all pools are in one file", "`pve-public-ip registry convert`");
    Ok(files.is_convertible.then(hit).into_iter().collect())
}

pub(super) fn version_skew(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let own = env!("CARGO_PKG_VERSION");
    let others = files.releases.iter().filter(|(node, note)| **node != files.inputs.node && note.release != own);
    let hit = |(node, note): (&crate::model::NodeName, &super::Release)| {
        let sentence = format!("node {node} ran release {} when it last applied; this is {own}", note.release);
        Hit::new(node, sentence, format!("on {node}, or here: `apt update && apt install pve-public-ip`"))
    };
    Ok(others.map(hit).collect())
}
