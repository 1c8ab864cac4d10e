//! `pool import`, `pool export`: the entries of a pool as a file.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::advice;
use super::answers::Exported;
use super::output::Output;
use super::partial::{readable, shown};
use super::pool_entries::{added, differences};
use super::table::table;
use crate::code;
use crate::host::files;
use crate::model::text::escaped;
use crate::model::{PoolName, Prefix, Subject};
use crate::ops::{self, EntryAdded};
use crate::reconcile::Node;
use crate::registry::EntryChange;
use crate::registry::entries::{csv, read_entries};
use crate::request;

/// Larger than any pool: the file of one has 1 MiB.
const LIMIT: usize = 4 << 20;

pub(super) fn import(node: &Node, name: &PoolName, path: &Path, dry_run: bool) -> anyhow::Result<Output> {
    let trying = format!("cannot import `{}` into pool `{name}`", escaped(&path.to_string_lossy()));
    let bytes = files::read_whole(path, LIMIT).with_context(|| trying.clone())?;
    let hint = || format!("`pve-public-ip pool export {name}` shows how such a file looks");
    let refused = |why: &str| {
        let subject = Subject::File(path.display().to_string());
        advice(code!("import-invalid"), subject, format!("{trying}: {why}"), hint())
    };
    let text = String::from_utf8(bytes).map_err(|_| refused("it is no text in UTF-8"))?;
    let read = read_entries(&text).map_err(|why| refused(&escaped(&why)))?;
    let entry = |(address, change): (Prefix, EntryChange)| {
        let EntryChange { mac, gateway, monthly_cost_cents } = change;
        request::Entry { address, mac, gateway, monthly_cost_cents }
    };
    let request =
        request::AddAddresses { pool: name.clone(), entries: read.into_iter().map(entry).collect(), yes: false };
    let done = ops::add_addresses(node, &request, &trying, dry_run)?;
    let entries = &done.answer.entries;
    let row = |entry: &EntryAdded| {
        let what = match entry.differences.as_slice() {
            _ if entry.added => format!("new{}", entry.mac.map(|mac| format!(", MAC {mac}")).unwrap_or_default()),
            [] => return None,
            some => differences(some),
        };
        Some(vec![entry.address.to_string(), what])
    };
    let rows: Vec<Vec<String>> = entries.iter().filter_map(row).collect();
    let count = entries.iter().filter(|entry| entry.added).count();
    let (changed, unchanged) = (rows.len() - count, entries.len() - rows.len());
    let verb = if dry_run { "would be " } else { "" };
    let mut lines = Vec::new();
    if !rows.is_empty() {
        lines.push(table(&["address", "change"], &rows).trim_end().to_owned());
    }
    lines.push(format!("pool {name}: {count} {verb}added, {changed} {verb}changed, {unchanged} unchanged"));
    Ok(added(&done, lines))
}

pub(super) fn export(node: &Node, name: &PoolName) -> anyhow::Result<Output> {
    let registry = readable(node)?;
    let pool = registry.pool(name)?;
    let data = json!(Exported { pool: name.clone(), addresses: pool.addresses.clone() });
    Ok(shown(&registry, Output::new(csv(pool), data)))
}
