//! Takes addresses from a guest.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::Serialize;

use super::assign::{is_running, joined};
use super::network::{self, Changed, Told};
use super::proxmox::{self, Outcome};
use super::{Done, change, follow, provider_mac, told};
use crate::cloudinit;
use crate::guest::GuestError;
use crate::hookscript;
use crate::model::{NicId, PoolName, Prefix, Problem, Subject, Vmid};
use crate::reconcile::{Node, ReconcileError};
use crate::registry::document::GuestFile;
use crate::registry::{Holders, Registry};
use crate::request::Release;
use crate::store::journal::now;

/// An address that was to be released, and that the guest did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Kept {
    /// The address or prefix.
    pub address: Prefix,
    /// Who holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<Vmid>,
}

/// What a release came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Released {
    /// The guest.
    pub vmid: Vmid,
    /// Whether something is another than before.
    pub changed: bool,
    /// What it held.
    pub released: Vec<Prefix>,
    /// What it did not hold.
    pub not_held: Vec<Kept>,
    /// Whether there is such a guest.
    pub exists: bool,
    /// Whether it runs on this node.
    pub running: bool,
    /// What became of the MACs of NICs that had been given the provider's.
    pub mac: Vec<Outcome>,
    /// What became of the hookscript.
    pub hookscript: Outcome,
    /// What became of the data by which the guest learns its addresses.
    pub network: Told,
}

/// What the release of many guests' addresses came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AllReleased {
    /// Whether something is another than before.
    pub changed: bool,
    /// The guests that held addresses.
    pub guests: Vec<Released>,
    /// What kept a guest's addresses from being released, or left something to do.
    pub refused: Vec<Problem>,
}

/// Takes from all guests what they hold, or what they hold of one pool. One guest's failure keeps no other's addresses.
///
/// # Errors
///
/// If the registry cannot be read, or there is no such pool.
pub fn release_all(node: &Node, pool: Option<&PoolName>, dry_run: bool) -> Result<Done<AllReleased>, Problem> {
    let mut registry = told(node.store.load().map_err(|error| ReconcileError::from(error).into()))?.registry;
    // What cannot be read holds addresses, too.
    if !registry.broken.is_empty() {
        return told(Err(registry.broken.swap_remove(0).into()));
    }
    if let Some(name) = pool {
        told(registry.pool(name).map(drop).map_err(anyhow::Error::from))?;
    }
    let mut all = AllReleased { changed: false, guests: Vec::new(), refused: Vec::new() };
    for (vmid, guest) in &registry.guests {
        let held = guest.interfaces.values().flat_map(|nic| &nic.addresses);
        let held = held.filter(|held| pool.is_none_or(|pool| held.pool == *pool));
        let addresses: Vec<Prefix> = held.map(|held| held.address).collect();
        // A release that was killed has left something to do for a guest without addresses.
        let is_unfinished = pool.is_none() && guest.is_empty() && guest.owes_something();
        if addresses.is_empty() && !is_unfinished {
            continue;
        }
        match taken(node, &Release { vmid: *vmid, addresses, hookscript: true }, dry_run) {
            Ok((answer, problem)) => {
                all.changed |= answer.changed;
                all.refused.extend(problem);
                all.guests.push(answer);
            }
            Err(problem) => all.refused.push(problem),
        }
    }
    // Compared once, and not for each guest. Where nothing has changed there is nothing to follow.
    let has_changed = all.changed;
    let mut done = follow::follow(node, dry_run || !has_changed, &Subject::Node, all);
    done.dry_run = dry_run;
    done.answer.refused.extend(done.problem.take().into_iter().chain(done.node.failed.clone()));
    done.problem = done.answer.refused.first().cloned();
    Ok(done)
}

/// Takes addresses from a guest.
pub fn release(node: &Node, request: &Release, dry_run: bool) -> Result<Done<Released>, Problem> {
    let (answer, problem) = taken(node, request, dry_run)?;
    Ok(follow::follow(node, dry_run, &Subject::Guest(request.vmid), answer).but(problem))
}

/// The same without a look at the node, which is to follow; with what is left to do.
fn taken(node: &Node, request: &Release, dry_run: bool) -> Result<(Released, Option<Problem>), Problem> {
    told(take(node, request, dry_run).with_context(|| format!("cannot release from guest {}", request.vmid)))
}

fn take(node: &Node, command: &Release, dry_run: bool) -> anyhow::Result<(Released, Option<Problem>)> {
    let vmid = command.vmid;
    node.store.check_mounted().map_err(ReconcileError::from)?;
    let located = match node.guests.find(vmid, None) {
        Ok(located) => Some(located),
        // A destroyed guest's addresses must be releasable.
        Err(GuestError::Unknown { .. }) => None,
        Err(error) => return Err(ReconcileError::from(error).into()),
    };
    let has_ours =
        located.as_ref().is_some_and(|guest| guest.config.hookscript.as_deref().is_some_and(hookscript::is_ours));
    let (released, not_held, given, left, pools) = change(node, dry_run, |registry| {
        let before = registry.guests.get(&vmid).cloned().unwrap_or_else(|| GuestFile::new(vmid));
        let released = registry.release(vmid, &command.addresses, now())?;
        let not_held: Vec<Kept> = {
            let holders = Holders::of(registry);
            let holder = |address: Prefix| holders.overlapping(address).map(|(vmid, ..)| vmid).next();
            let others = command.addresses.iter().filter(|address| !released.contains(address));
            others.map(|address| Kept { address: *address, holder: holder(*address) }).collect()
        };
        let left = registry.guests.get(&vmid).cloned();
        let given = left.as_ref().map(GuestFile::macs_to_give_back).unwrap_or_default();
        // Without its file, a guest that still has our hookscript would look like a clone and not start; and what its NICs
        // had before is needed until they have it again.
        let traces = located
            .as_ref()
            .is_some_and(|located| !given.is_empty() || cloudinit::has_traces(&before, &located.config));
        if left.as_ref().is_some_and(GuestFile::is_empty) && !has_ours && !traces {
            registry.guests.remove(&vmid);
        }
        Ok((released, not_held, given, left, registry.pools.clone()))
    })?;

    let running = located.as_ref().is_some_and(|guest| is_running(node, vmid, guest));
    let mut outcome = Outcome::AsWanted;
    let mut mac = BTreeMap::new();
    let mut network = Told::default();
    let left = left.unwrap_or_else(|| GuestFile::new(vmid));
    let (left, turn) = network::turn(node, vmid, left, dry_run);
    let exists = located.is_some();
    if let Some(located) = &located.map(|located| node.guests.find(vmid, None).unwrap_or(located)) {
        let changed = Changed { node, located, guest: &left, pools: &pools, running, reinit: false, dry_run };
        network = changed.withdraw();
        let mut stays = !command.hookscript && has_ours;
        if command.hookscript && left.is_empty() {
            outcome = proxmox::unregister(node, vmid, located, left.hookscript.as_deref(), dry_run);
            stays = outcome.is_left_to_do();
        }
        mac = provider_mac::give_back(node, vmid, &given, running, dry_run)?;
        let has_again = |nic: &NicId| mac.get(nic).is_some_and(|outcome| !outcome.is_left_to_do());
        if !dry_run && node.store.load_guest(vmid).is_some() {
            change(node, dry_run, |registry| {
                forget(registry, vmid, network.is_done(), has_again, stays);
                Ok(())
            })?;
        }
    } else if !dry_run {
        network::sweep(node, vmid);
    }
    drop(turn);
    let mac: Vec<Outcome> = mac.into_values().collect();
    let answer = Released {
        vmid,
        changed: !released.is_empty() || outcome.is_done() || network.changed || mac.iter().any(Outcome::is_done),
        released,
        not_held,
        exists,
        running,
        mac,
        hookscript: outcome,
        network,
    };
    let failures = [answer.hookscript.failure(vmid), answer.network.failure.clone()].into_iter().flatten();
    let macs = answer.mac.iter().filter_map(|outcome| outcome.failure(vmid));
    let problem = joined(failures.chain(macs));
    Ok((answer, problem))
}

/// Forgets what NICs without assignments had before, as far as they have it again; and the guest, if nothing is left of it.
fn forget(
    registry: &mut Registry,
    vmid: Vmid,
    is_network_done: bool,
    has_mac_again: impl Fn(&NicId) -> bool,
    hookscript_stays: bool,
) {
    let Some(guest) = registry.guests.get_mut(&vmid) else { return };
    let held: BTreeSet<NicId> = guest.interfaces.keys().copied().collect();
    if is_network_done {
        guest.cloud_init.before.retain(|nic, _| held.contains(nic));
    }
    guest.given_macs.retain(|nic, _| held.contains(nic) || !has_mac_again(nic));
    if guest.is_empty() && is_network_done && guest.given_macs.is_empty() && !hookscript_stays {
        registry.guests.remove(&vmid);
    }
}
