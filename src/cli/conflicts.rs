//! `conflicts`: who claims what somebody else has.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde_json::json;

use super::output::{Output, advised, first_ones};
use super::partial::{readable, shown};
use super::{ConflictsCommand, advice};
use crate::code;
use crate::conflict::{Conflict, Seen};
use crate::model::Subject;
use crate::model::text::escaped;
use crate::ops::conflicts::all;
use crate::reconcile::Node;
use crate::system::claims;

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
            code!("unknown-conflict"),
            Subject::Command,
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
