//! `conflicts`: who claims what somebody else has.

use std::collections::BTreeMap;

use serde_json::json;

use super::ConflictsCommand;
use super::answers::Conflicts;
use super::output::{Output, advised, first_ones};
use super::partial::{readable, shown};
use crate::conflict::{Conflict, Seen};
use crate::model::text::escaped;
use crate::ops;
use crate::ops::conflicts::all;
use crate::reconcile::Node;
use crate::request::AcknowledgeConflicts;

pub(super) fn run(node: &Node, command: ConflictsCommand, dry_run: bool) -> anyhow::Result<Output> {
    match command {
        ConflictsCommand::List { all: everything } => {
            let registry = readable(node)?;
            let (conflicts, not_compared) = all(node, registry.clone(), &BTreeMap::new());
            let mut text = text(&conflicts, everything);
            let lines = not_compared.iter().map(|line| ("not compared", format!("not compared: {line}\n")));
            text += &first_ones(lines, everything, "conflicts list");
            Ok(shown(&registry, Output::new(text, json!(Conflicts { conflicts, not_compared }))))
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

fn acknowledge(node: &Node, ids: Vec<String>, all: bool, dry_run: bool) -> anyhow::Result<Output> {
    let request = AcknowledgeConflicts { conflicts: ids.into_iter().collect(), all };
    let done = ops::acknowledge_conflicts(node, request, dry_run)?;
    let verb = if dry_run { "would be acknowledged" } else { "acknowledged" };
    let line = |(id, sentence): &(String, String)| format!("{id} {verb}: {}", escaped(sentence));
    let mut lines: Vec<String> = done.answer.sentences.iter().map(line).collect();
    if lines.is_empty() {
        lines.push("nothing to acknowledge".to_owned());
    }
    Ok(Output::of(&done, &lines, &[]))
}
