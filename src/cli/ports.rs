//! `port show`: the programs at guests' ports, and what they have dropped.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::advice;
use super::output::{Output, UNREADABLE, table};
use crate::code;
use crate::links::guest_of_port;
use crate::model::{IfName, Problem, Subject, Vmid};
use crate::plan::{PortProgram, PortWish};
use crate::reconcile::{Mode, Node, count_drops_of_ports, notes_on_ports};
use crate::ruleset::PORT_REASONS;
use crate::system::port_programs::{Attached, PortPrograms};
use crate::system::tally::{Count, Tallies};

/// A guest's port.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "each answer calls it so")]
pub(super) struct Port {
    /// Its name.
    port: IfName,
    /// Whose it is.
    vmid: Option<Vmid>,
    /// Which program it is to have; none: no program at all.
    wanted: Option<&'static str>,
    /// Which one it has: `bound`, `other`, `earlier` (of another release), or none of ours.
    program: Option<&'static str>,
    /// Since when that is loaded.
    loaded_seconds_ago: Option<u64>,
    /// What it has dropped since the port is there.
    dropped: Vec<DroppedAtPort>,
}

/// Frames that a program has dropped.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DroppedAtPort {
    /// The counter.
    reason: &'static str,
    /// The same in words.
    sentence: &'static str,
    /// How many.
    #[serde(flatten)]
    count: Count,
    /// Since the last one.
    seconds_ago: u64,
}

/// The answer of `port show`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PortsShown {
    /// The ports.
    ports: Vec<Port>,
}

pub(super) fn show(node: &Node, only: &[IfName]) -> anyhow::Result<Output> {
    let report = node.reconcile(Mode::Plan)?;
    if let Some(unknown) = only.iter().find(|port| !report.ports.contains_key(port)) {
        let sentence = format!("no guest of this node has a port {unknown}");
        let hint = "`pve-public-ip port show` lists all of them";
        return Err(advice(code!("unknown-interface"), Subject::Interface(*unknown), sentence, hint));
    }
    let notes: Vec<Problem> = notes_on_ports(&node.paths, &report.ports);
    let programs = PortPrograms::open(&node.paths).ok();
    let mut tallies = Tallies::default();
    let names = report.ports.iter().map(|(port, wish)| (wish.index, *port)).collect();
    count_drops_of_ports(&node.paths, &mut tallies, &names);
    let chosen = report.ports.iter().filter(|(port, _)| only.is_empty() || only.contains(port));
    let ports: Vec<Port> = chosen.map(|(port, wish)| shown(*port, *wish, programs.as_ref(), &tallies)).collect();
    let rows: Vec<Vec<String>> = ports.iter().map(row).collect();
    let text = if rows.is_empty() {
        "no guest runs on this node\n".to_owned()
    } else {
        table(&["port", "guest", "program", "loaded", "dropped"], &rows)
    };
    let code = if report.unreadable > 0 { UNREADABLE } else { 0 };
    let text = text + &super::output::notes_text(&notes, true);
    Ok(Output { notes, ..Output::new(text, json!(PortsShown { ports })) }.with_code(code))
}

fn shown(port: IfName, wish: PortWish, programs: Option<&PortPrograms>, tallies: &Tallies) -> Port {
    // One that has gone meanwhile has none.
    let found = programs.and_then(|programs| programs.at(wish.index).ok()).unwrap_or(Attached::Nothing);
    let program = match found {
        Attached::Current(program) => Some(word(program)),
        Attached::Earlier => Some("earlier"),
        Attached::Nothing => None,
    };
    let loaded = match (found, programs) {
        (Attached::Current(program), Some(programs)) => programs.age(program),
        _ => None,
    };
    let entries = tallies.ports.iter().filter(|(_, entry)| entry.port == port);
    let dropped = entries.map(|(reason, entry)| DroppedAtPort {
        reason,
        sentence: PORT_REASONS.iter().find(|(name, _)| name == reason).map_or("", |(_, sentence)| sentence),
        count: entry.count,
        seconds_ago: entry.age.as_secs(),
    });
    Port {
        port,
        vmid: guest_of_port(port),
        wanted: wish.program.map(word),
        program,
        loaded_seconds_ago: loaded.map(|age: Duration| age.as_secs()),
        dropped: dropped.collect(),
    }
}

fn word(program: PortProgram) -> &'static str {
    match program {
        PortProgram::Bound => "bound",
        PortProgram::Other => "other",
    }
}

fn row(port: &Port) -> Vec<String> {
    let loaded = port.loaded_seconds_ago.map_or_else(String::new, super::status::ago);
    let dropped = port.dropped.iter().map(|entry| format!("{} ({})", entry.count.packets, entry.sentence));
    let program = match (port.program, port.wanted) {
        (Some("earlier"), _) => "of another release",
        (Some(program), _) => program,
        (None, Some(_)) => "MISSING",
        (None, None) => "none",
    };
    vec![
        port.port.to_string(),
        port.vmid.map_or_else(String::new, |vmid| vmid.to_string()),
        program.to_owned(),
        loaded,
        dropped.collect::<Vec<_>>().join("; "),
    ]
}
