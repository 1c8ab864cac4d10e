//! `registry ...`: files of the registry that cannot be used, and their last known good copies on this node.

use anyhow::Context as _;
use serde_json::json;

use super::node::settle;
use super::output::{Output, UNREADABLE, advised};
use super::{RegistryCommand, advice};
use crate::code;
use crate::model::text::escaped;
use crate::model::{Moment, Subject};
use crate::reconcile::Node;
use crate::registry::document::DocumentError;

pub(super) fn run(node: &Node, command: &RegistryCommand, dry_run: bool) -> anyhow::Result<Output> {
    match command {
        RegistryCommand::Check => check(node),
        RegistryCommand::Convert { .. } => convert(node, dry_run),
        RegistryCommand::Restore { file, .. } => restore(node, file, dry_run),
    }
}

/// How a file is called in the registry.
fn name_of(node: &Node, error: &DocumentError) -> String {
    let name = error.path.strip_prefix(node.paths.registry()).unwrap_or(&error.path);
    name.display().to_string()
}

/// When this node could read it last.
fn copied(node: &Node, name: &str) -> Option<String> {
    node.store.copy_of(name)?;
    let since = node.store.copied_at(name)?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Some(Moment(since).to_second())
}

fn check(node: &Node) -> anyhow::Result<Output> {
    let broken = node.store.load()?.registry.broken;
    let mut text = String::new();
    let mut data = Vec::new();
    for error in &broken {
        let name = name_of(node, error);
        let copy = copied(node, &name);
        let known = copy.as_ref().map_or_else(|| "no copy".to_owned(), |time| format!("copy of {time}"));
        text += &advised(&escaped(&name), &format!("{} ({known})", error.reason), &error.hint);
        data.push(json!({ "file": name, "reason": error.reason, "hint": error.hint, "copied_at": copy }));
    }
    if broken.is_empty() {
        text.push_str("every file of the registry can be read\n");
    }
    let code = if broken.is_empty() { 0 } else { UNREADABLE };
    Ok(Output::new(text, json!({ "files": data })).with_code(code))
}

fn convert(node: &Node, dry_run: bool) -> anyhow::Result<Output> {
    let is_done = node.store.convert(dry_run).context("cannot give each pool a file of its own")?;
    let verb = if dry_run { "would have" } else { "has" };
    let text = if is_done {
        format!("each pool {verb} a file of its own from now on")
    } else {
        "each pool has a file of its own already".to_owned()
    };
    Ok(settle(node, dry_run, &Subject::Node, &Output::new(text, json!({ "changed": is_done }))))
}

fn restore(node: &Node, name: &str, dry_run: bool) -> anyhow::Result<Output> {
    let trying = format!("cannot restore `{name}`");
    let broken = node.store.load()?.registry.broken;
    let names: Vec<String> = broken.iter().map(|error| name_of(node, error)).collect();
    if !names.iter().any(|broken| broken == name) {
        let hint = match names.as_slice() {
            [] => "`pve-public-ip registry check` says which files cannot: none now".to_owned(),
            names => format!("those that cannot: {}", names.join(", ")),
        };
        let subject = Subject::File(name.to_owned());
        return Err(advice(
            code!("nothing-to-restore"),
            subject,
            format!("{trying}: nothing is wrong with it, or there is no such file"),
            hint,
        ));
    }
    let Some(copy) = node.store.copy_of(name) else {
        let hint = format!("try `pve-public-ip registry restore {name}` on another node, or restore it from a backup");
        let subject = Subject::File(name.to_owned());
        return Err(advice(
            code!("no-copy"),
            subject,
            format!("{trying}: this node has no copy of it that can be used"),
            hint,
        ));
    };
    let time = copied(node, name).unwrap_or_default();
    if dry_run {
        let text = String::from_utf8_lossy(&copy).into_owned();
        return Ok(Output::new(text.clone(), json!({ "file": name, "copied_at": time, "content": text })));
    }
    let aside = node.store.restore(name, &copy)?;
    let text = format!("{name} is what this node read at {time}; what was in its place is in {}", aside.display());
    let output = Output::new(text, json!({ "file": name, "copied_at": time, "replaced": aside }));
    Ok(settle(node, false, &Subject::File(name.to_owned()), &output))
}
