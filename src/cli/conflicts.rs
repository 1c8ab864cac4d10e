//! `conflicts`: who claims what somebody else has.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use serde_json::json;

use super::output::{Output, advised, first_ones};
use super::pools::{readable, shown};
use super::{ConflictsCommand, advice};
use crate::conflict::{Claims, Conflict, Files, Seen, allocations, in_files};
use crate::doctor::firewall::{Firewall, FirewallFile};
use crate::guest::GuestError;
use crate::host::files;
use crate::links::Links;
use crate::model::Vmid;
use crate::model::text::escaped;
use crate::reconcile::Node;
use crate::registry::Registry;
use crate::store::journal::now;
use crate::system::claims;

/// Larger than any of the files that are compared.
const FILE_LIMIT: usize = 4 << 20;

pub(super) fn run(node: &Node, command: ConflictsCommand, dry_run: bool) -> anyhow::Result<Output> {
    match command {
        ConflictsCommand::List { all: everything } => {
            let registry = readable(node)?;
            let (conflicts, not_compared) = all(node, registry.clone());
            let mut text = text(&conflicts, everything);
            let lines = not_compared.iter().map(|line| ("not compared", format!("not compared: {line}\n")));
            text += &first_ones(lines, everything, "conflicts list");
            let data = json!({ "conflicts": conflicts, "not_compared": not_compared });
            Ok(shown(&registry, Output::new(text, data)))
        }
        ConflictsCommand::Ack { ids, all: everything } => acknowledge(node, ids, everything, dry_run),
    }
}

/// Every conflict, and what could not be compared.
pub(super) fn all(node: &Node, registry: Registry) -> (Vec<Conflict>, Vec<String>) {
    let mut not_compared = Vec::new();
    let (mut guests, mut here) = (BTreeMap::new(), BTreeSet::new());
    for (vmid, found) in node.guests.all() {
        match found {
            Ok(located) => {
                here.extend((located.node == node.name).then_some(vmid));
                guests.insert(vmid, located.config);
            }
            Err(GuestError::Unknown { .. }) => {}
            Err(error) => not_compared.push(error.to_string()),
        }
    }
    let links = super::assignments::observe_links().unwrap_or_else(|| {
        not_compared.push("the node's own addresses".to_owned());
        Links::default()
    });
    let files = Files {
        own: links.addresses().collect(),
        allocations: given_by_sdn(node),
        allowed: allowed(node, &guests),
        registry,
        guests,
    };
    let claims = claims::load(&node.paths);
    let mut conflicts = in_files(&files);
    conflicts.extend(claims.conflicts(&files.registry, &here, now()));
    claims.mark(&mut conflicts);
    conflicts.sort_by_key(|conflict| conflict.acknowledged);
    (conflicts, not_compared)
}

/// Those that keep an address from being handed out: only what can be found in a moment can be among them.
pub(super) fn blocking(node: &Node, registry: &Registry) -> Vec<Conflict> {
    let claims: Claims = claims::load(&node.paths);
    let mut conflicts = claims.conflicts(registry, &BTreeSet::new(), now());
    let allocations = given_by_sdn(node);
    if !allocations.is_empty() {
        conflicts.extend(in_files(&Files { registry: registry.clone(), allocations, ..Files::default() }));
    }
    claims.mark(&mut conflicts);
    conflicts.retain(|conflict| conflict.blocks);
    conflicts
}

fn given_by_sdn(node: &Node) -> Vec<crate::conflict::Allocation> {
    let mut states = node.paths.sdn_allocations().into_iter();
    // After the upgrade that moved it the old one may still lie there.
    let found = states.find_map(|path| files::read_limited(&path, FILE_LIMIT).ok());
    found.map(|bytes| allocations(&bytes)).unwrap_or_default()
}

/// What the firewall's sets let guests use.
fn allowed(node: &Node, guests: &BTreeMap<Vmid, crate::guest::GuestConfig>) -> Vec<(Vmid, ipnet::IpNet)> {
    let directory = node.paths.firewall();
    let read = |name: &str| {
        let bytes = files::read_limited(&directory.join(name), FILE_LIMIT).ok()?;
        Some(FirewallFile::parse(&String::from_utf8_lossy(&bytes)))
    };
    let names = files::names(&directory).into_iter();
    let vmids =
        names.filter_map(|name| name.strip_suffix(".fw")?.parse().ok()).filter(|vmid| guests.contains_key(vmid));
    let files = vmids.filter_map(|vmid: Vmid| Some((vmid, read(&format!("{vmid}.fw"))?)));
    let firewall =
        Firewall { cluster: read("cluster.fw").unwrap_or_default(), guests: files.collect(), ..Firewall::default() };
    firewall.allowed()
}

fn text(conflicts: &[Conflict], everything: bool) -> String {
    if conflicts.is_empty() {
        return "no conflicts\n".to_owned();
    }
    let line = |conflict: &Conflict| {
        let seen = conflict.seen.map(|Seen { count, first, last }| {
            format!("; {} from {} to {}", times(count), first.to_second(), last.to_second())
        });
        let blocks = if conflict.blocks { "; the address is not handed out" } else { "" };
        let known = if conflict.acknowledged { " (acknowledged)" } else { "" };
        let Conflict { id, kind, sentence, hint, .. } = conflict;
        advised(&format!("{id} {kind}{known}"), &format!("{sentence}{}{blocks}", seen.unwrap_or_default()), hint)
    };
    let kind = |conflict: &Conflict| {
        if conflict.acknowledged { format!("{} (acknowledged)", conflict.kind) } else { conflict.kind.to_owned() }
    };
    first_ones(conflicts.iter().map(|conflict| (kind(conflict), line(conflict))), everything, "conflicts list")
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

fn acknowledge(node: &Node, ids: Vec<String>, everything: bool, dry_run: bool) -> anyhow::Result<Output> {
    let (conflicts, _) = all(node, readable(node)?);
    let ids: BTreeSet<String> = if everything {
        conflicts.iter().filter(|conflict| !conflict.acknowledged).map(|conflict| conflict.id.clone()).collect()
    } else {
        ids.into_iter().collect()
    };
    if let Some(id) = ids.iter().find(|id| conflicts.iter().all(|conflict| conflict.id != **id)) {
        return Err(advice(
            format!("there is no conflict `{id}`"),
            "`pve-public-ip conflicts list` shows their numbers",
        ));
    }
    if !dry_run {
        claims::change(&node.paths, |claims| claims.acknowledge(ids.iter().cloned()))
            .with_context(|| format!("cannot write below `{}`", node.paths.run().display()))?;
    }
    let verb = if dry_run { "would be acknowledged" } else { "acknowledged" };
    let meant = conflicts.iter().filter(|conflict| ids.contains(&conflict.id));
    let mut text: String =
        meant.map(|conflict| format!("{} {verb}: {}\n", conflict.id, escaped(&conflict.sentence))).collect();
    if text.is_empty() {
        text.push_str("nothing to acknowledge\n");
    }
    Ok(Output::new(text, json!({ "acknowledged": ids })))
}
