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
use crate::registry::document::{GuestFile, Interface};
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
        if addresses.is_empty() {
            continue;
        }
        match release(node, &Release { vmid: *vmid, addresses, hookscript: true }, dry_run) {
            Ok(done) => {
                all.changed |= done.answer.changed;
                all.refused.extend(done.problem.into_iter().chain(done.node.failed));
                all.guests.push(done.answer);
            }
            Err(problem) => all.refused.push(problem),
        }
    }
    let problem = all.refused.first().cloned();
    Ok(Done::without_node(all, dry_run).but(problem))
}

/// Takes addresses from a guest.
pub fn release(node: &Node, request: &Release, dry_run: bool) -> Result<Done<Released>, Problem> {
    told(take(node, request, dry_run).with_context(|| format!("cannot release from guest {}", request.vmid)))
}

fn take(node: &Node, command: &Release, dry_run: bool) -> anyhow::Result<Done<Released>> {
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
    let (released, not_held, former, left, pools) = change(node, dry_run, |registry| {
        let before = registry.guests.get(&vmid).cloned().unwrap_or_else(|| GuestFile::new(vmid));
        let released = registry.release(vmid, &command.addresses, now())?;
        let not_held: Vec<Kept> = {
            let holders = Holders::of(registry);
            let holder = |address: Prefix| holders.overlapping(address).map(|(vmid, ..)| vmid).next();
            let others = command.addresses.iter().filter(|address| !released.contains(address));
            others.map(|address| Kept { address: *address, holder: holder(*address) }).collect()
        };
        let left = registry.guests.get(&vmid).cloned();
        let stays = |nic: &NicId| left.as_ref().is_some_and(|guest| guest.interfaces.contains_key(nic));
        let former = before.interfaces.iter().filter(|(nic, known)| known.former_mac.is_some() && !stays(nic));
        let former: BTreeMap<NicId, Interface> = former.map(|(nic, known)| (*nic, known.clone())).collect();
        // Without its file, a guest that still has our hookscript would look like a clone and not start; and what its NICs
        // had before is needed until they have it again.
        let traces = located.as_ref().is_some_and(|located| cloudinit::has_traces(&before, &located.config));
        if left.as_ref().is_some_and(GuestFile::is_empty) && !has_ours && !traces {
            registry.guests.remove(&vmid);
        }
        Ok((released, not_held, former, left, registry.pools.clone()))
    })?;

    let running = located.as_ref().is_some_and(|guest| is_running(node, vmid, guest));
    let mut outcome = Outcome::AsWanted;
    let mut mac = Vec::new();
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
        if !dry_run && network.is_done() && node.store.load_guest(vmid).is_some() {
            change(node, dry_run, |registry| {
                forget_network(registry, vmid, stays);
                Ok(())
            })?;
        }
    } else if !dry_run {
        network::sweep(node, vmid);
    }
    drop(turn);
    if exists {
        mac = provider_mac::give_back(node, vmid, &former, running, dry_run)?;
    }
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
    let done = follow::follow(node, dry_run, &Subject::Guest(vmid), answer);
    let failures = [done.answer.hookscript.failure(vmid), done.answer.network.failure.clone()];
    let macs: Vec<Problem> = done.answer.mac.iter().filter_map(|outcome| outcome.failure(vmid)).collect();
    Ok(done.but(joined(failures.into_iter().flatten().chain(macs))))
}

/// Forgets what NICs without assignments had before, now that they have it again; and the guest, if nothing is left of it.
fn forget_network(registry: &mut Registry, vmid: Vmid, hookscript_stays: bool) {
    let Some(guest) = registry.guests.get_mut(&vmid) else { return };
    let held: BTreeSet<NicId> = guest.interfaces.keys().copied().collect();
    guest.cloud_init.before.retain(|nic, _| held.contains(nic));
    if guest.is_empty() && !hookscript_stays {
        registry.guests.remove(&vmid);
    }
}
