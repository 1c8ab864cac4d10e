//! Takes away what the program has put on this node. The registry is the cluster's and stays.

use schemars::JsonSchema;
use serde::Serialize;

use super::proxmox::{self, Outcome};
use super::{Done, Followed, Registered, advice, told};
use crate::audit::{Change, Event};
use crate::code;
use crate::doctor::UNIT;
use crate::hookscript;
use crate::model::{NodeName, Problem, Subject};
use crate::plan::{Leave, Step};
use crate::reconcile::{Mode, Node, ReconcileError};
use crate::store::journal::Durability;
use crate::system::run::{GuardNote, RunState};

/// What was taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Uninstalled {
    /// The node.
    pub node: NodeName,
    /// Whether something is another than before.
    pub changed: bool,
    /// Whether guests that run stay bound.
    pub keep_running: bool,
    /// What became of the guard.
    pub guard: Outcome,
    /// What became of the hookscripts of the guests on this node.
    pub guests: Vec<Registered>,
    /// How many guests of this node hold addresses still, in the registry.
    pub holders: usize,
}

/// Stops the guard, puts back the hookscripts of the guests on this node, and takes out of the network what is ours. With
/// `keep_running` guests that run stay bound, hookscripts stay, and only what holds back others goes.
///
/// # Errors
///
/// If a guard runs that is not systemd's to stop; then nothing was taken away. If the kernel cannot be asked; then the guard is
/// stopped and the hookscripts are put back, and the same command goes on from there.
pub fn uninstall(node: &Node, keep_running: bool, dry_run: bool) -> Result<Done<Uninstalled>, Problem> {
    told(take_away(node, keep_running, dry_run))
}

fn take_away(node: &Node, keep_running: bool, dry_run: bool) -> anyhow::Result<Done<Uninstalled>> {
    let leave = if keep_running { Leave::RunningGuests } else { Leave::Nothing };
    let mode = if dry_run { Mode::Plan } else { Mode::Apply };
    let guard = stop_guard(node, dry_run)?;
    let (mut guests, mut holders) = (Vec::new(), 0);
    // The package goes whether or not the cluster's files can be read.
    let files = if keep_running { Ok(()) } else { put_back(node, dry_run, &mut guests, &mut holders) };
    let problem = told(files).err();
    let failed = guests.iter().find_map(|guest: &Registered| guest.hookscript.failure(guest.vmid));
    let (steps, problems) = node.leave(leave, mode)?;
    let steps: Vec<String> = steps.iter().map(Step::to_string).collect();
    let changed = guard.is_done() || guests.iter().any(|guest| guest.hookscript.is_done()) || !steps.is_empty();
    if changed && !dry_run {
        let what = if keep_running { "except what binds guests that run" } else { "all of it" };
        node.store.journal.record(vec![Change::said(Event::Uninstalled, what)], Durability::Soon);
    }
    let answer = Uninstalled { node: node.name.clone(), changed, keep_running, guard, guests, holders };
    let is_own_failure = !problems.is_empty();
    let network = Followed { steps, failed: problems, is_own_failure, ..Followed::default() };
    Ok(Done { node: network, ..Done::without_node(answer, dry_run) }.but(problem.or(failed)))
}

/// A guard that runs would put everything back.
fn stop_guard(node: &Node, dry_run: bool) -> anyhow::Result<Outcome> {
    let runs = || RunState::guard_note(&node.paths).filter(GuardNote::is_alive);
    if runs().is_none() {
        return Ok(Outcome::AsWanted);
    }
    let outcome = proxmox::call(node, "systemctl", &["disable", "--now", UNIT], dry_run);
    match (dry_run, runs()) {
        (false, Some(still)) => Err(advice(
            code!("guard-running"),
            Subject::Node,
            format!("the guard still runs (process {}), and would put everything back", still.pid),
            format!("`systemctl disable --now {UNIT}`, or `kill {}` if it was started by hand", still.pid),
        )),
        _ => Ok(outcome),
    }
}

/// Guests of this node get back the hookscript that they had before.
fn put_back(node: &Node, dry_run: bool, guests: &mut Vec<Registered>, holders: &mut usize) -> anyhow::Result<()> {
    node.store.check_mounted().map_err(ReconcileError::from)?;
    let sources = node.read_sources()?;
    let inputs = sources.inputs();
    for (vmid, located) in inputs.guests.iter().filter(|(_, located)| located.node == node.name) {
        let known = inputs.registry.guests.get(vmid);
        *holders += usize::from(known.is_some_and(|guest| !guest.interfaces.is_empty()));
        if located.config.hookscript.as_deref().is_some_and(hookscript::is_ours) {
            let before = known.and_then(|guest| guest.hookscript.as_deref());
            let hookscript = proxmox::unregister(node, *vmid, located, before, dry_run);
            guests.push(Registered { vmid: *vmid, hookscript });
        }
    }
    Ok(())
}
