//! `status` and `metrics`: how this node is, on one screen and for Prometheus. What cannot be read makes its own line say
//! so, never the command fail.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::output::{Output, OutputFormat, UNREADABLE, advised, table_within, terminal_width};
use super::{Metrics, Status, advice};
use crate::code;
use crate::host::files;
use crate::model::Subject;
use crate::model::text::escaped;
use crate::model::{Amount, Family, IfName, Vmid};
use crate::ops;
use crate::reconcile::Node;
use crate::registry::document::Enforce;
use crate::view::exposition::exposition;
use crate::view::{GuardStatus, PoolTotals, PoolUse, View, Watched, seconds};

/// Rows and notes of a kind that are shown: guests decide how many there are.
const SHOWN: usize = 10;

/// How long a bar of a pool is.
const BAR: usize = 10;

/// Routers that are shown; `node show` has all of them.
const ROUTERS: usize = 8;

pub(super) fn metrics(node: &Node, command: &Metrics) -> anyhow::Result<Output> {
    let view = ops::status(node);
    let text = exposition(&view);
    let Some(path) = &command.output else { return Ok(Output::new(text, json!(view))) };
    files::publish_named(path, text.as_bytes()).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::InvalidInput => "without `--output` the metrics are written to standard output",
            _ => {
                "name a file in a directory that is there and that root may write, such as \
                  /var/lib/prometheus/node-exporter/pve-public-ip.prom"
            }
        };
        let subject = Subject::File(path.display().to_string());
        advice(code!("file-not-written"), subject, format!("cannot write `{}`: {error}", path.display()), hint)
    })?;
    let lines = text.lines().filter(|line| !line.starts_with('#')).count();
    Ok(Output::new(format!("{lines} metrics written to {}", path.display()), json!(view)))
}

pub(super) fn status(node: &Node, command: &Status, format: OutputFormat) -> anyhow::Result<Output> {
    let screen = Screen::of_stdout();
    let output = || {
        let view = ops::status(node);
        let code = if view.unreadable > 0 { UNREADABLE } else { u8::from(view.in_line.is_none()) };
        // Of a hundred thousand addresses only what is asked for is made.
        let (text, data) = match format {
            OutputFormat::Text => (text(&view, screen.width, command.all), Value::Null),
            _ => (String::new(), json!(view)),
        };
        Output { has_colours: screen.has_colour, ..Output::new(text, data).with_code(code) }
    };
    if !command.watch {
        return Ok(output());
    }
    loop {
        // Home and clear, as `watch` does; nothing else is written to the terminal.
        let screen = format!("\x1b[H\x1b[J{}", output().render(format));
        io::stdout().write_all(screen.as_bytes())?;
        io::stdout().flush()?;
        sleep(Duration::from_secs(2));
    }
}

/// So many destinations are named of a port.
const DESTINATIONS: usize = 3;

/// What the text is shown on.
struct Screen {
    width: usize,
    has_colour: bool,
}

impl Screen {
    /// A terminal has a width, and mostly colours; a file or a pipe has neither.
    fn of_stdout() -> Self {
        if !io::stdout().is_terminal() {
            return Self { width: usize::MAX, has_colour: false };
        }
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        Self { width: terminal_width(), has_colour: !is_set("NO_COLOR") && !is_dumb }
    }
}

fn text(view: &View, width: usize, all: bool) -> String {
    let shown = if all { usize::MAX } else { SHOWN };
    let mut text = format!("node {}: {}, {}\n", view.node, health(view), guard_text(view.guard.as_ref()));
    for trouble in &view.trouble {
        text += &format!("trouble: {}\n", escaped(trouble));
    }
    let mut add = |headers: &[&str], rows: Vec<Vec<String>>, rest: &str| {
        if !rows.is_empty() {
            text += &table_within(width, headers, &rows);
            text += rest;
        }
    };
    let whose =
        |vmid: Option<Vmid>, port: IfName| vmid.map_or_else(|| port.to_string(), |vmid| format!("{vmid} ({port})"));
    add(&["pool", "profile", "bridge", "assigned", "uplink guard"], view.pools.iter().map(pool_row).collect(), "");
    let guests = view.guests.iter().map(|nic| {
        let (vmid, port, mac) = (nic.vmid.to_string(), nic.port.to_string(), nic.mac.to_string());
        let mut addresses = String::new();
        for (number, address) in nic.addresses.iter().enumerate() {
            let _ = write!(addresses, "{}{address}", if number > 0 { " " } else { "" });
        }
        vec![vmid, nic.interface.clone(), port, mac, addresses, nic.state.to_string()]
    });
    add(&["guest", "net", "port", "mac", "addresses", "state"], guests.collect(), "");
    let rest = more(view.dropped.len(), shown, "rows of dropped frames");
    let dropped = in_turn(&view.dropped, shown, |entry| entry.port).into_iter().map(|entry| {
        let hour = entry.last_hour.map_or_else(|| "?".to_owned(), |hour| hour.to_string());
        let (all, ago) = (entry.count.packets.to_string(), ago(entry.seconds_ago));
        vec![whose(entry.vmid, entry.port), hour, all, ago, entry.sentence.to_owned()]
    });
    add(&["dropped from", "last hour", "in all", "last", "because"], dropped.collect(), &rest);
    let rest = more(view.watched.len(), shown, "rows of frames that would be dropped");
    let watched = in_turn(&view.watched, shown, |entry| entry.frames.port).into_iter().map(|entry| {
        let Watched { frames, to } = entry;
        let mut to: Vec<String> = to.iter().take(DESTINATIONS + 1).map(ToString::to_string).collect();
        if to.len() > DESTINATIONS {
            "...".clone_into(&mut to[DESTINATIONS]);
        }
        let (all, ago) = (frames.count.packets.to_string(), ago(frames.seconds_ago));
        vec![whose(frames.vmid, frames.port), all, ago, frames.sentence.to_owned(), to.join(" ")]
    });
    add(&["would be dropped from", "in all", "last", "because", "its destinations"], watched.collect(), &rest);
    let rest = more(view.unregistered.len(), shown, "MACs that the provider does not know");
    let strangers = in_turn(&view.unregistered, shown, |entry| entry.port).into_iter().map(|entry| {
        let mac = entry.mac.map(|mac| mac.to_string()).unwrap_or_default();
        vec![whose(entry.vmid, entry.port), mac, entry.count.packets.to_string()]
    });
    add(&["sends to the provider", "with unknown MAC", "frames"], strangers.collect(), &rest);
    for router in view.routers.iter().take(ROUTERS) {
        text += &format!("router {router}, protected\n");
    }
    if view.conflicts > 0 {
        text += &format!("conflicts: {} (`pve-public-ip conflicts list` names them)\n", view.conflicts);
    }
    for (kind, problems) in [("problem", &view.problems), ("note", &view.notes)] {
        for problem in problems.iter().take(shown) {
            text += &advised(kind, &problem.sentence, &problem.hint);
        }
        text += &more(problems.len(), shown, &format!("{kind}s"));
    }
    text
}

/// As many rows as are shown. If there are more, first one of each port, then the second ones, so that a port with thousands
/// does not hide the others.
fn in_turn<T>(rows: &[T], shown: usize, port: impl Fn(&T) -> IfName) -> Vec<&T> {
    if rows.len() <= shown {
        return rows.iter().collect();
    }
    let mut counts: BTreeMap<IfName, usize> = BTreeMap::new();
    let mut ranked: Vec<(usize, &T)> = rows
        .iter()
        .map(|row| {
            let count = counts.entry(port(row)).or_default();
            *count += 1;
            (*count, row)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().take(shown).map(|(_, row)| row).collect()
}

/// What is said of the rest; nothing if there is none.
fn more(count: usize, shown: usize, what: &str) -> String {
    match count.saturating_sub(shown) {
        0 => String::new(),
        rest => format!("... and {rest} more of {count} {what} (`pve-public-ip status --all`)\n"),
    }
}

fn health(view: &View) -> String {
    match (view.in_line, view.differences) {
        (Some(true), _) if view.is_idle => "nothing to protect yet, there is no pool".to_owned(),
        (None, _) => "NOT COMPARED".to_owned(),
        (Some(true), _) => "the kernel is as it should be".to_owned(),
        (Some(false), 1) => "1 DIFFERENCE (`pve-public-ip verify` names it)".to_owned(),
        (Some(false), count) => format!("{count} DIFFERENCES (`pve-public-ip verify` names them)"),
    }
}

fn guard_text(guard: Option<&GuardStatus>) -> String {
    let Some(GuardStatus { runs, note }) = guard else { return "no guard runs".to_owned() };
    if !runs {
        return "no guard runs any more".to_owned();
    }
    if let Some(trouble) = &note.trouble {
        return format!("the guard is in trouble: {trouble}");
    }
    let now = seconds();
    let repairs = match note.repairs {
        0 => String::new(),
        1 => ", 1 repair".to_owned(),
        count => format!(", {count} repairs"),
    };
    let since = |at: u64| ago(now.saturating_sub(at));
    let change =
        if note.last_change > 0 { format!(", changed something {}", since(note.last_change)) } else { String::new() };
    format!("the guard looked {} ({} ms{repairs}){change}", since(note.last_look), note.last_look_ms)
}

pub(super) fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        _ => format!("{} h ago", seconds / 3600),
    }
}

/// `[##........] 2 of 8 IPv4`.
fn pool_row(pool: &PoolUse) -> Vec<String> {
    let count = |number: u128| if number < 1 << 32 { number.to_string() } else { format!("2^{}", number.ilog2()) };
    let family = |family: Family| {
        let PoolTotals { size: Amount(all), assigned: Amount(used) } = pool.totals.get(family.key())?;
        let share = BAR as u128;
        // Never empty as long as anything is assigned, never full as long as anything is free.
        let filled = (used.saturating_mul(share) / all).clamp(u128::from(*used > 0), share - u128::from(used < all));
        let filled = usize::try_from(filled).unwrap_or(BAR).min(BAR);
        let bar = "#".repeat(filled) + &".".repeat(BAR - filled);
        Some(format!("[{bar}] {} of {} {family}", count(*used), count(*all)))
    };
    let families: Vec<String> = Family::BOTH.into_iter().filter_map(family).collect();
    vec![
        pool.name.clone(),
        pool.profile.clone(),
        pool.bridge.to_string(),
        families.join(", "),
        match pool.enforce {
            Enforce::On => pool.uplink_guard.to_owned(),
            mode => format!("{}, pool on {}", pool.uplink_guard, mode.as_str()),
        },
    ]
}
