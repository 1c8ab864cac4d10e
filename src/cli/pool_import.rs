//! `pool import`, `pool export`: the entries of a pool as a file.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::advice;
use super::output::Output;
use super::pools::{differences, enter, readable, shown};
use super::table::table;
use crate::host::files;
use crate::model::PoolName;
use crate::model::text::escaped;
use crate::reconcile::Node;
use crate::registry::entries::{csv, read_entries};
use crate::registry::plain;

/// Larger than any pool: the file of one has 1 MiB.
const LIMIT: usize = 4 << 20;

pub(super) fn import(node: &Node, name: &PoolName, path: &Path, dry_run: bool) -> anyhow::Result<Output> {
    let trying = format!("cannot import `{}` into pool `{name}`", escaped(&path.to_string_lossy()));
    let bytes = files::read_whole(path, LIMIT).with_context(|| trying.clone())?;
    let hint = || format!("`pve-public-ip pool export {name}` shows how such a file looks");
    let text = String::from_utf8(bytes).map_err(|_| advice(format!("{trying}: it is no text in UTF-8"), hint()))?;
    let changes = read_entries(&text).map_err(|why| advice(format!("{trying}: {}", escaped(&why)), hint()))?;
    let entered = enter(node, name, &changes, &trying, dry_run)?;
    let (mut rows, mut entries, mut unchanged) = (Vec::new(), Vec::new(), 0);
    let (mut added, mut changed) = (0, 0);
    for (before, after) in &entered.changed {
        let known = before.as_ref().map(|before| differences(before, after));
        let what = match known.as_deref() {
            Some([]) => {
                unchanged += 1;
                continue;
            }
            Some(some) => {
                changed += 1;
                some.join(", ")
            }
            None => {
                added += 1;
                let mac = after.mac.map(|mac| format!(", MAC {mac}")).unwrap_or_default();
                format!("new{mac}")
            }
        };
        rows.push(vec![plain(after.address), what]);
        entries.push(json!({ "address": after.address, "changed": known }));
    }
    let verb = if dry_run { "would be " } else { "" };
    let mut lines = Vec::new();
    if !rows.is_empty() {
        lines.push(table(&["address", "change"], &rows).trim_end().to_owned());
    }
    lines.push(format!("pool {name}: {added} {verb}added, {changed} {verb}changed, {unchanged} unchanged"));
    let data = json!({
        "pool": name, "added": added, "changed": changed, "unchanged": unchanged, "entries": entries,
        "assumptions": entered.said,
    });
    entered.output(node, name, lines, data, dry_run)
}

pub(super) fn export(node: &Node, name: &PoolName) -> anyhow::Result<Output> {
    let registry = readable(node)?;
    let pool = registry.pool(name)?;
    let data = json!({ "pool": name, "addresses": pool.addresses });
    Ok(shown(&registry, Output::new(csv(pool), data)))
}
