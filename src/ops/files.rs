//! Files of the registry: puts the last known good copy in the place of one that cannot be used, and gives each pool a file of
//! its own.

use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Done, advice, follow, told};
use crate::code;
use crate::model::{Moment, Problem, Subject};
use crate::reconcile::Node;
use crate::registry::document::DocumentError;
use crate::request::RestoreFile;

/// A file that was replaced by a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Restored {
    /// Its name in the registry.
    pub file: String,
    /// When this node could read it last.
    pub copied_at: Moment,
    /// Whether it was replaced; false in a dry run.
    pub changed: bool,
    /// Where the unusable content is kept; absent in a dry run.
    pub replaced: Option<PathBuf>,
    /// The copy; only in a dry run.
    pub content: Option<String>,
}

/// What `registry convert` came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Converted {
    /// Whether the pools had no files of their own before.
    pub changed: bool,
}

/// The name of an unusable file in the registry.
pub(crate) fn name_of(node: &Node, error: &DocumentError) -> String {
    let name = error.path.strip_prefix(node.paths.registry()).unwrap_or(&error.path);
    name.display().to_string()
}

/// When this node made its copy of a file; `None`: there is no usable copy.
pub(crate) fn copied(node: &Node, name: &str) -> Option<Moment> {
    node.store.copy_of(name)?;
    Some(Moment(node.store.copied_at(name)?.duration_since(UNIX_EPOCH).unwrap_or_default()))
}

/// Gives each pool a file of its own.
pub fn convert_registry(node: &Node, dry_run: bool) -> Result<Done<Converted>, Problem> {
    let changed = node.store.convert(dry_run).context("cannot give each pool a file of its own");
    Ok(follow::follow(node, dry_run, &Subject::Node, Converted { changed: told(changed)? }))
}

/// Replaces an unusable file by this node's last known good copy.
pub fn restore_file(node: &Node, request: &RestoreFile, dry_run: bool) -> Result<Done<Restored>, Problem> {
    told(restore(node, &request.file, dry_run))
}

fn restore(node: &Node, name: &str, dry_run: bool) -> anyhow::Result<Done<Restored>> {
    let trying = format!("cannot restore `{name}`");
    let subject = Subject::File(name.to_owned());
    let broken = node.store.load()?.registry.broken;
    let names: Vec<String> = broken.iter().map(|error| name_of(node, error)).collect();
    if !names.iter().any(|broken| broken == name) {
        let hint = match names.as_slice() {
            [] => "`pve-public-ip registry check` says which files cannot: none now".to_owned(),
            names => format!("those that cannot: {}", names.join(", ")),
        };
        let sentence = format!("{trying}: nothing is wrong with it, or there is no such file");
        return Err(advice(code!("nothing-to-restore"), subject, sentence, hint));
    }
    let Some((copy, copied_at)) = node.store.copy_of(name).zip(copied(node, name)) else {
        let hint = format!("try `pve-public-ip registry restore {name}` on another node, or restore it from a backup");
        let sentence = format!("{trying}: this node has no copy of it that can be used");
        return Err(advice(code!("no-copy"), subject, sentence, hint));
    };
    let restored = Restored { file: name.to_owned(), copied_at, changed: !dry_run, replaced: None, content: None };
    let answer = if dry_run {
        Restored { content: Some(String::from_utf8_lossy(&copy).into_owned()), ..restored }
    } else {
        Restored { replaced: Some(node.store.restore(name, &copy)?), ..restored }
    };
    Ok(follow::follow(node, dry_run, &subject, answer))
}
