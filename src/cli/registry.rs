//! `registry ...`: files of the registry that cannot be used, and their last known good copies on this node.

use std::path::PathBuf;

use serde_json::json;

use super::RegistryCommand;
use super::answers::{BrokenFile, BrokenFiles};
use super::output::{Output, UNREADABLE, advised};
use crate::model::Moment;
use crate::model::text::escaped;
use crate::ops::files::{copied, name_of};
use crate::ops::{self, Restored};
use crate::reconcile::Node;
use crate::request::RestoreFile;

pub(super) fn run(node: &Node, command: RegistryCommand, dry_run: bool) -> anyhow::Result<Output> {
    match command {
        RegistryCommand::Check => check(node),
        RegistryCommand::Convert { .. } => convert(node, dry_run),
        RegistryCommand::Restore { file, .. } => restore(node, file, dry_run),
    }
}

fn check(node: &Node) -> anyhow::Result<Output> {
    let broken = node.store.load()?.registry.broken;
    let mut text = String::new();
    let mut data = Vec::new();
    for error in &broken {
        let name = name_of(node, error);
        let copy = copied(node, &name).map(Moment::to_second);
        let known = match (&copy, node.store.copies_in(&name)) {
            (Some(time), _) => format!("copy of {time}"),
            (None, 0) => "no copy".to_owned(),
            (None, 1) => "copy of 1 file in it".to_owned(),
            (None, count) => format!("copies of {count} files in it"),
        };
        text += &advised(&escaped(&name), &format!("{} ({known})", error.reason), &error.hint);
        let (reason, hint) = (error.reason.clone(), error.hint.clone());
        data.push(BrokenFile { file: name, reason, hint, copied_at: copy });
    }
    if broken.is_empty() {
        text.push_str("every file of the registry can be read\n");
    }
    let code = if broken.is_empty() { 0 } else { UNREADABLE };
    Ok(Output::new(text, json!(BrokenFiles { files: data })).with_code(code))
}

fn convert(node: &Node, dry_run: bool) -> anyhow::Result<Output> {
    let done = ops::convert_registry(node, dry_run)?;
    let verb = if dry_run { "would have" } else { "has" };
    let text = if done.answer.changed {
        format!("each pool {verb} a file of its own from now on")
    } else {
        "each pool has a file of its own already".to_owned()
    };
    Ok(Output::of(&done, &[text], &[]))
}

fn restore(node: &Node, file: String, dry_run: bool) -> anyhow::Result<Output> {
    let done = ops::restore_file(node, &RestoreFile { file }, dry_run)?;
    let Restored { file, copied_at, replaced, content, .. } = &done.answer;
    let said = |replaced: &PathBuf| {
        format!(
            "{file} is what this node read at {}; what was in its place is in {}",
            copied_at.to_second(),
            replaced.display()
        )
    };
    let text = content.clone().or_else(|| replaced.as_ref().map(said)).unwrap_or_default();
    Ok(Output::of(&done, &[text], &[]))
}
