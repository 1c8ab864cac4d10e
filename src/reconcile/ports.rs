//! The programs at guests' ports. They are no steps of a reconciliation: each takes the kernel some ten milliseconds, for which
//! nobody else shall wait, and meanwhile the rules hold.

use std::collections::BTreeMap;
use std::io;

use super::Node;
use crate::code;
use crate::model::{IfName, Problem, Subject};
use crate::paths::Paths;
use crate::plan::{Inputs, PortWish, desired_for, port_programs};
use crate::registry::document::GuestFile;
use crate::system::port_programs::{Absent, PortPrograms};
use crate::system::run::RunState;
use crate::system::tally::Tallies;

/// Ports that a note names; of more it says how many.
const NAMED: usize = 5;

/// Sees to all ports of the node, and says what is wrong. Loads the programs if they are not loaded yet, and unloads them when
/// no port is to have one. Counts of ports that are gone are forgotten.
pub fn attend_ports(paths: &Paths, wishes: &BTreeMap<IfName, PortWish>) -> Vec<Problem> {
    if concerns(paths, wishes) {
        return with_programs(paths, |mut programs| {
            programs.forget_others(wishes);
            let failed = programs.attend_all(wishes);
            // By their names they are recognised at the ports that still have them.
            if failed.is_empty() {
                programs.forget_earlier();
            }
            failures(&failed)
        });
    }
    // If none is loaded, there is nothing to be taken away.
    let Ok(programs) = PortPrograms::open(paths) else { return Vec::new() };
    let failed = programs.attend_all(wishes);
    programs.unload(paths);
    failures(&failed)
}

/// Does something with the programs, which are loaded for it if they are not yet; if they cannot be, says why.
fn with_programs(paths: &Paths, body: impl FnOnce(PortPrograms) -> Vec<Problem>) -> Vec<Problem> {
    PortPrograms::open_or_load(paths).map_or_else(|absent| vec![absence(&absent)], body)
}

/// Sees to the ports after a change of the node, and says what is wrong. With a guard that is its business: the kernel takes
/// its time for each. It may not load them, though.
pub fn follow_with_ports(node: &Node, wishes: &BTreeMap<IfName, PortWish>) -> Vec<Problem> {
    if !RunState::guard_note(&node.paths).is_some_and(|note| note.is_alive()) {
        return attend_ports(&node.paths, wishes);
    }
    if concerns(&node.paths, wishes) { with_programs(&node.paths, |_| Vec::new()) } else { Vec::new() }
}

/// Sees to the ports of one guest that has started, and says in the log what is wrong. The rules hold for it in any case.
pub fn attend_guests_ports(node: &Node, mut inputs: Inputs, file: &GuestFile) {
    inputs.registry.node = node.store.node_file();
    let mut wishes = port_programs(&inputs, &desired_for(&inputs, file));
    // By its own pools alone nobody can tell that no port of the node is to have one.
    wishes.retain(|_, wish| wish.program.is_some());
    if concerns(&node.paths, &wishes) {
        for Problem { sentence, hint, .. } in
            with_programs(&node.paths, |programs| failures(&programs.attend_all(&wishes)))
        {
            log::warn!("{sentence}");
            log::warn!("hint: {hint}");
        }
    }
}

/// Adds what the programs have dropped to what the rules have counted. `names` are the ports by their numbers.
pub fn count_drops_of_ports(paths: &Paths, tallies: &mut Tallies, names: &BTreeMap<u32, IfName>) {
    let Ok(programs) = PortPrograms::open(paths) else { return };
    if let Err(error) = programs.count_into(tallies, names) {
        log::warn!("cannot read what the programs at guests' ports have dropped: {error}");
    }
}

/// What there is to say of the ports as they are.
pub fn notes_on_ports(paths: &Paths, wishes: &BTreeMap<IfName, PortWish>) -> Vec<Problem> {
    if !concerns(paths, wishes) {
        return Vec::new();
    }
    match PortPrograms::open(paths).and_then(|programs| programs.missing(wishes)) {
        Ok(missing) if missing.is_empty() => Vec::new(),
        Ok(missing) => vec![without(&missing)],
        Err(absent) => vec![absence(&absent)],
    }
}

/// Whether any port is to have a program. In a copy of a node's files there are none, unless it has a place for them.
fn concerns(paths: &Paths, wishes: &BTreeMap<IfName, PortWish>) -> bool {
    let is_node = paths.is_machine() || PortPrograms::have_place(paths);
    is_node && wishes.values().any(|wish| wish.program.is_some())
}

/// Why none of them is there.
fn absence(absent: &Absent) -> Problem {
    let sentence = format!("no program judges what guests' ports leave to the node: {absent}");
    Problem::of_node(code!("port-programs-absent"), sentence, absent.hint())
}

/// Ports that lack it.
fn without(missing: &[IfName]) -> Problem {
    let names: Vec<&str> = missing.iter().take(NAMED).map(IfName::as_str).collect();
    let more = missing.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let sentence = format!("no program judges what these ports leave to the node: {}{more}", names.join(", "));
    let hint = "`pve-public-ip apply`; the guard does it within seconds by itself";
    Problem::of_node(code!("port-without-program"), sentence, hint)
}

/// What the kernel refused.
fn failures(failed: &BTreeMap<IfName, io::Error>) -> Vec<Problem> {
    let problem = |(port, error): (&IfName, &io::Error)| {
        let sentence = format!("cannot attach a program to {port}: {error}");
        let hint = "`dmesg` may say more; `pve-public-ip node set --port-program off` does without";
        Problem {
            subject: Subject::Interface(*port),
            ..Problem::of_node(code!("port-program-refused"), sentence, hint)
        }
    };
    failed.iter().take(NAMED).map(problem).collect()
}
