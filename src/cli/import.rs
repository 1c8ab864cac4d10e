//! `import`: assignments of many guests, from a file.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::advice;
use super::arguments::ProfileOrFile;
use super::output::{Output, told};
use super::pools::read_profile;
use super::table::table;
use crate::code;
use crate::host::files;
use crate::model::text::escaped;
use crate::model::{IfName, NodeName, PoolName, Subject};
use crate::ops::{self, Done, Given, Held, Imported, Registered, Selection};
use crate::plan::present::Found;
use crate::reconcile::Node;
use crate::registry::wishes::read_wishes;
use crate::request::CreatePool;

/// A line each for a hundred thousand addresses.
const LIMIT: usize = 32 << 20;

/// How many guests are named of those whose hookscript is left to be set.
const NAMED: usize = 10;

pub(super) fn import(node: &Node, path: &Path, hookscript: bool, dry_run: bool) -> anyhow::Result<Output> {
    let trying = format!("cannot import `{}`", escaped(&path.to_string_lossy()));
    let bytes = files::read_whole(path, LIMIT).with_context(|| trying.clone())?;
    let refused = |why: &str| {
        let subject = Subject::File(path.display().to_string());
        let hint = "a file of two lines: `printf 'vmid,address\\n100,203.0.113.10\\n' > FILE`";
        advice(code!("import-invalid"), subject, format!("{trying}: {why}"), hint)
    };
    let text = String::from_utf8(bytes).map_err(|_| refused("it is no text in UTF-8"))?;
    let wishes = read_wishes(&text).map_err(|why| refused(&escaped(&why)))?;
    let done = ops::import(node, &wishes, hookscript, &trying, dry_run)?;
    Ok(shown(&done, Vec::new(), dry_run))
}

/// How long ports may be watched: a day.
const LONGEST: Duration = Duration::from_secs(86_400);

/// A time such as `10m`.
pub(super) fn watch_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|_| format!("`{text}` is not a time such as 30s, 10m or 1h"))?;
    let fits = !time.is_zero() && time <= LONGEST;
    if fits { Ok(time) } else { Err("ports are watched for at least a moment and at most 1day".to_owned()) }
}

/// What is asked for.
pub(super) fn selection(
    pool: Option<PoolName>,
    profile: Option<ProfileOrFile>,
    bridge: Option<IfName>,
    node: Option<NodeName>,
    watch: Option<Duration>,
) -> anyhow::Result<Selection> {
    let create = match (&pool, profile) {
        (Some(name), Some(profile)) => {
            let (profile, layout) = read_profile(name, profile)?;
            Some(CreatePool { layout, bridge, ..CreatePool::of(name.clone(), profile) })
        }
        (None, _) | (_, None) => None,
    };
    Ok(Selection { pool, create, node, watch })
}

/// What guests use now.
pub(super) fn import_present(
    node: &Node,
    selection: Selection,
    hookscript: bool,
    dry_run: bool,
) -> anyhow::Result<Output> {
    if let Some(time) = selection.watch {
        log::info!("watching what the ports of {} send for {}", node.name, humantime::format_duration(time));
    }
    let is_shown_only = selection.pool.is_none();
    let done = ops::import_present(node, selection, hookscript, dry_run)?;
    let row = |one: &Found| {
        let Found { vmid, interface, node, mac, bridge, address, seen, contradiction } = one;
        let bridge = bridge.map(|bridge| bridge.to_string()).unwrap_or_default();
        let texts =
            [vmid.to_string(), interface.to_string(), node.to_string(), bridge, mac.to_string(), address.to_string()];
        let more = [seen.join(", "), contradiction.clone().unwrap_or_default()];
        texts.into_iter().chain(more).collect::<Vec<String>>()
    };
    let rows: Vec<Vec<String>> = done.answer.found.iter().map(row).collect();
    let mut lines = Vec::new();
    if rows.is_empty() {
        lines.push("no guest is known to use a public address that is not assigned to it".to_owned());
    } else {
        let headers = ["vmid", "NIC", "node", "bridge", "MAC", "uses", "seen in", "but"];
        lines.push(table(&headers, &rows).trim_end().to_owned());
    }
    if is_shown_only {
        let free = done.answer.found.iter().filter(|one| one.contradiction.is_none());
        let bridges: BTreeSet<IfName> = free.filter_map(|one| one.bridge).collect();
        lines.extend(bridges.iter().map(|bridge| {
            format!(
                "to assign those on {bridge}: `pve-public-ip import --pool NAME --profile PROFILE --bridge {bridge}`, which makes \
                 the pool"
            )
        }));
        return Ok(Output::of(&done, &lines, &[]));
    }
    if let Some(pool) = &done.answer.created {
        let verb = if dry_run { "would be created" } else { "created" };
        lines.push(format!("pool {pool} {verb} on watch: what is against its rules is counted, and passes"));
        lines.extend(done.answer.assumptions.iter().cloned());
    }
    Ok(shown(&done, lines, dry_run))
}

fn shown(done: &Done<Imported>, before: Vec<String>, dry_run: bool) -> Output {
    let Imported { assignments, hookscripts, network, remarks, .. } = &done.answer;
    let row = |Given { vmid, held }: &Given| {
        let Held { address, interface, mac, pool, .. } = held;
        vec![vmid.to_string(), interface.to_string(), address.to_string(), mac.to_string(), pool.to_string()]
    };
    let new: Vec<&Given> = assignments.iter().filter(|given| given.held.new).collect();
    let mut lines = before;
    lines.extend(remarks.iter().map(|note| told("note", note)));
    if !new.is_empty() {
        let rows: Vec<Vec<String>> = new.iter().copied().map(row).collect();
        lines.push(table(&["vmid", "NIC", "address", "MAC", "pool"], &rows).trim_end().to_owned());
    }
    let verb = if dry_run { "would be " } else { "" };
    lines.push(format!("{} {verb}assigned, {} held already", new.len(), assignments.len() - new.len()));
    let left: Vec<&Registered> = hookscripts.iter().filter(|one| one.hookscript.is_left_to_do()).collect();
    let set = hookscripts.len() - left.len();
    if set > 0 {
        lines.push(format!("hookscript: {verb}set for {set} guests"));
    }
    lines.extend(left.iter().take(NAMED).filter_map(|one| one.hookscript.line("hookscript")));
    if left.len() > NAMED {
        lines.push(format!("and {} more guests: `--output-format json` lists them", left.len() - NAMED));
    }
    let by_hand = network.iter().filter(|one| one.network.by_hand || one.network.left_to_do);
    let by_hand: Vec<String> = by_hand.map(|one| one.vmid.to_string()).collect();
    if let Some(first) = by_hand.first() {
        lines.push(format!(
            "network: {} guests are not configured by cloud-init; what to enter inside: `pve-public-ip show {first}`, ...",
            by_hand.len()
        ));
    }
    Output::of(done, &lines, &[])
}
