//! Marks: how far each guest is on this node, noted so that its hooks know what to take out again.

use std::collections::BTreeSet;

use super::ReconcileError;
use crate::audit::{Change, bindings};
use crate::links::Links;
use crate::model::{GuestKind, IfName, NicId, Vmid};
use crate::plan::{Inputs, Presence, support};
use crate::registry::Registry;
use crate::system::run::{Mark, MarkPhase, RunState};

/// Writes a mark for every guest that is about to be bound, so that its hooks know what to take out again; returns those
/// that have arrived by live migration.
pub(super) fn note(run: &RunState, inputs: &Inputs, changes: &mut Vec<Change>) -> Result<Vec<Vmid>, ReconcileError> {
    let mut arrived = Vec::new();
    for (vmid, presence) in &inputs.presence {
        let (Some(guest), Some(place)) = (inputs.registry.guests.get(vmid), inputs.guests.get(vmid)) else {
            continue;
        };
        let phase = match presence {
            Presence::Starting => MarkPhase::Starting,
            Presence::Incoming => MarkPhase::Incoming,
            Presence::Running => MarkPhase::Started,
        };
        let known = run.mark(*vmid);
        let support = support(inputs, guest);
        let is_same = |mark: &Mark| mark.phase == phase && mark.applied == *guest && mark.support == support;
        if known.as_ref().is_some_and(is_same) {
            continue;
        }
        let has_moved = |known: &Mark| known.phase == MarkPhase::Incoming && phase == MarkPhase::Started;
        arrived.extend(known.as_ref().is_some_and(has_moved).then_some(*vmid));
        let mut mark = Mark { support, ..Mark::now(phase, place.config.kind, guest.clone()) };
        if let Some(known) = known.as_ref().filter(|known| known.phase == phase) {
            mark.since = known.since;
        }
        run.set_mark(*vmid, &mark)?;
        changes.extend(binding_changes(known.as_ref(), Some(&mark)));
    }
    Ok(arrived)
}

/// Compares the guests' files with the whole registry, each content once, and notes those that are free of conflicts, so that
/// their hooks need not; says what is in conflict. `prints` are the fingerprints of the files.
pub fn compare(run: &RunState, registry: &Registry, prints: &[(Vmid, u64)]) -> Vec<(BTreeSet<Vmid>, String)> {
    let new = run.not_compared(prints.iter().copied());
    if new.is_empty() {
        return Vec::new();
    }
    // Those that are known already were compared with each other.
    let few = new.len() * 2 < prints.len();
    let conflicts = if few { registry.conflicts_of(&new) } else { registry.conflicts() };
    let conflicting: BTreeSet<Vmid> = conflicts.iter().flat_map(|(guests, _)| guests).copied().collect();
    run.set_compared(prints.iter().copied().filter(|(vmid, _)| !conflicting.contains(vmid)));
    conflicts
}

/// Drops the marks of guests that are gone, and what was kept for those that hold nothing any more.
pub(super) fn forget(run: &RunState, inputs: &Inputs, changes: &mut Vec<Change>) {
    run.keep_pools_parts(|vmid| inputs.registry.guests.contains_key(&vmid));
    for vmid in run.marked().into_iter().filter(|vmid| !inputs.presence.contains_key(vmid)) {
        let mark = run.mark(vmid);
        let stopped = mark.as_ref().is_some_and(|mark| {
            mark.phase == MarkPhase::Stopped
                && inputs.links.0.values().any(|link| mark.left_ports.contains(&link.index))
        });
        if !stopped {
            run.clear_mark(vmid);
            changes.extend(binding_changes(mark.as_ref(), None));
        }
    }
}

/// What a guest's ports can use since its mark became another one. A start that may still fail counts for nothing, and
/// the pre-start of a guest waits for no log.
pub(super) fn binding_changes(before: Option<&Mark>, after: Option<&Mark>) -> Vec<Change> {
    let kind = after.or(before).map_or(GuestKind::Qemu, |mark| mark.kind);
    let [before, after] =
        [before, after].map(|mark| mark.filter(|mark| mark.phase == MarkPhase::Started).map(|mark| &mark.applied));
    bindings(kind, before, after)
}

/// How far a guest is on this node, from its mark and its ports.
pub fn presence_of(vmid: Vmid, kind: GuestKind, here: bool, mark: Option<&Mark>, links: &Links) -> Option<Presence> {
    let phase = mark.map(|mark| mark.phase);
    let left = mark.map(|mark| &mark.left_ports[..]).unwrap_or_default();
    // Its ports stand beside each other, and most guests of a cluster have none here.
    let stem = kind.stem(vmid);
    let ports = links.0.range(stem..).take_while(|(name, _)| name.as_str().starts_with(stem.as_str()));
    let is_port = |name: &IfName| {
        let nic = name.as_str()[stem.as_str().len()..].parse();
        nic.is_ok_and(|nic: NicId| kind.port(vmid, nic) == *name)
    };
    let port_exists = ports
        .filter(|(name, _)| is_port(name))
        .any(|(_, link)| phase != Some(MarkPhase::Stopped) || !left.contains(&link.index));
    let may_be_starting = mark.is_some_and(Mark::may_be_starting);
    match (here, phase) {
        (true, _) if port_exists => Some(Presence::Running),
        (true, _) if may_be_starting => Some(Presence::Starting),
        (false, Some(MarkPhase::Incoming)) if port_exists || may_be_starting => Some(Presence::Incoming),
        _ => None,
    }
}
