//! Gives addresses to many guests in one step.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::Serialize;

use super::assign::{
    Held, Retold, check_bridges, keep_hookscript, keep_network, nics, own_addresses, retold, still_warm,
    waiting_changes,
};
use super::enforce::Present;
use super::probe::contested;
use super::proxmox::{self, Outcome};
use super::{Done, bridges, change, follow, told};
use crate::guest::Located;
use crate::model::{IfName, NicId, NodeName, PoolName, Prefix, Problem, Subject, Vmid};
use crate::plan::present::{Found, found};
use crate::reconcile::{Node, ReconcileError};
use crate::registry::document::{CloudInit, CloudInitCheck};
use crate::registry::wishes::Wish;
use crate::registry::{AssignRequest, Quantity, Registry};
use crate::request::{self, Assign};
use crate::store::journal::now;

/// What became of the hookscript of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Registered {
    /// The guest.
    pub vmid: Vmid,
    /// What was done, or is left to do.
    pub hookscript: Outcome,
}

/// An address of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Given {
    /// The guest.
    pub vmid: Vmid,
    /// What it holds now.
    #[serde(flatten)]
    pub held: Held,
}

/// What an import came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Imported {
    /// Whether something is another than before.
    pub changed: bool,
    /// Every address of the file, in its order.
    pub assignments: Vec<Given>,
    /// The guests whose hookscript had to be set.
    pub hookscripts: Vec<Registered>,
    /// What became of the data by which guests learn their addresses.
    pub network: Vec<Retold>,
    /// Without a file: the addresses that guests use, with where that was seen.
    pub found: Vec<Found>,
    /// What may surprise about them.
    #[serde(skip)]
    pub remarks: Vec<Problem>,
}

/// What a guest's NIC shall get, and the guest.
struct Wanted {
    /// Where each of its addresses stands in the file.
    places: Vec<String>,
    request: AssignRequest,
    command: Assign,
    located: Located,
}

/// Gives addresses to many guests: all of them, or none. The network is not asked who has them.
pub fn import(
    node: &Node,
    wishes: &[Wish],
    hookscript: bool,
    trying: &str,
    dry_run: bool,
) -> Result<Done<Imported>, Problem> {
    told(give(node, wishes, (hookscript, true), dry_run).with_context(|| trying.to_owned()))
}

/// Gives guests the addresses that they use: those of a pool. What is contradictory is left, and said.
///
/// The guests are not told anything: they have their addresses. Nobody loses a frame, because a pool whose addresses are in
/// use is only watched until somebody enforces it.
pub fn import_present(
    node: &Node,
    pool: Option<&PoolName>,
    only: Option<&NodeName>,
    hookscript: bool,
    dry_run: bool,
) -> Result<Done<Imported>, Problem> {
    let trying = || "cannot import what guests use".to_owned();
    told(give_present(node, pool, only, hookscript, dry_run).with_context(trying))
}

fn give_present(
    node: &Node,
    name: Option<&PoolName>,
    only: Option<&NodeName>,
    hookscript: bool,
    dry_run: bool,
) -> anyhow::Result<Done<Imported>> {
    let registry = node.store.load()?.registry;
    let pool = name.map(|name| registry.pool(name)).transpose()?;
    let present = Present::of(node);
    let present = present.look();
    let mut found = found(&registry, &present.guests, &present.seen, pool);
    found.retain(|one| only.is_none_or(|only| one.node == *only));
    // Without a pool it is only shown what there is; and an empty pool has nothing to give.
    let is_given = |one: &&Found| {
        let address = Prefix::host(one.address).ok();
        let is_entry = address.is_some_and(|address| pool.is_some_and(|pool| pool.entry(address).is_some()));
        is_entry && one.contradiction.is_none()
    };
    let wishes: Vec<Wish> = found
        .iter()
        .filter(is_given)
        .filter_map(|one| {
            let place = format!("guest {} {}", one.vmid, one.interface);
            let address = Prefix::host(one.address).ok()?;
            Some(Wish { place, vmid: one.vmid, address, interface: one.interface, organization: None })
        })
        .collect();
    let mut done = give(node, &wishes, (hookscript, false), dry_run)?;
    done.answer.found = found;
    Ok(done)
}

/// `asks`: whether the hookscript is registered, and whether guests are told their addresses.
fn give(node: &Node, wishes: &[Wish], asks: (bool, bool), dry_run: bool) -> anyhow::Result<Done<Imported>> {
    let (hookscript, tells) = asks;
    node.store.check_mounted().map_err(ReconcileError::from)?;
    let mut remarks = Vec::new();
    let wanted = wanted(node, wishes, hookscript, &mut remarks)?;
    remarks.extend(check_filtered(node, &wanted)?);
    // Where the file stood when a rule was against it.
    let mut place = None;
    let changed = change(node, dry_run, |registry| {
        let contested = contested(node, registry);
        let (mut new, mut warm) = (BTreeSet::new(), Vec::new());
        for Wanted { places, request, command, located } in &wanted {
            place = places.first().cloned();
            let request = AssignRequest { contested: contested.clone(), now: now(), ..request.clone() };
            let given = registry.assign(&request).or_else(|error| {
                // One after the other: the line that is to blame is the one to be named.
                for (at, address) in places.iter().zip(&request.addresses) {
                    place = Some(at.clone());
                    registry.assign(&AssignRequest { addresses: vec![*address], ..request.clone() })?;
                }
                Err(error)
            })?;
            check_bridges(registry, request.vmid, located, &request)?;
            keep_hookscript(registry, request.vmid, located, !command.hookscript);
            if tells {
                keep_network(registry, request.vmid, located, command);
            } else {
                leave_network(registry, request.vmid);
            }
            warm.extend(given.iter().filter_map(|address| still_warm(registry, *address, &request)));
            new.extend(given.into_iter().map(|address| (request.vmid, address)));
        }
        place = None;
        Ok((new, warm, registry.clone()))
    });
    let (new, warm, registry) = match (changed, place) {
        (Err(error), Some(place)) => return Err(error).context(place),
        (changed, _) => changed?,
    };
    remarks.extend(warm);

    let held = wishes.iter().filter_map(|wish| {
        let interface = registry.guests.get(&wish.vmid)?.interfaces.get(&wish.interface)?;
        let assigned = interface.addresses.iter().find(|assigned| assigned.address == wish.address)?;
        let held = Held {
            address: wish.address,
            interface: wish.interface,
            mac: interface.mac,
            pool: assigned.pool.clone(),
            gateway: assigned.gateway,
            via: assigned.via,
            shared: assigned.shared.clone(),
            new: new.contains(&(wish.vmid, wish.address)),
        };
        Some(Given { vmid: wish.vmid, held })
    });
    let assignments: Vec<Given> = held.collect();
    let guests: BTreeMap<Vmid, &Located> = wanted.iter().map(|one| (one.request.vmid, &one.located)).collect();
    let register = |(vmid, located): (&Vmid, &&Located)| {
        let hookscript = if hookscript { proxmox::register(node, *vmid, located, dry_run) } else { Outcome::AsWanted };
        (hookscript != Outcome::AsWanted).then_some(Registered { vmid: *vmid, hookscript })
    };
    let hookscripts: Vec<Registered> = guests.iter().filter_map(register).collect();
    let told: BTreeSet<Vmid> = new.iter().map(|(vmid, _)| *vmid).filter(|_| tells).collect();
    let network = retold(node, &registry, told, dry_run);
    let failed = hookscripts.iter().find_map(|one| one.hookscript.failure(one.vmid));
    let failed = failed.or_else(|| network.iter().find_map(|one| one.problem.clone()));
    let changed = !new.is_empty()
        || hookscripts.iter().any(|one| one.hookscript.is_done())
        || network.iter().any(|one| one.network.changed);
    let answer = Imported { changed, assignments, hookscripts, network, found: Vec::new(), remarks };
    let mut done = follow::follow(node, dry_run, &Subject::Node, answer);
    done.node.notes.splice(0..0, done.answer.remarks.iter().cloned());
    Ok(done.but(failed))
}

/// A guest that has its addresses already, and is not asked whether its cloud-init data say the same.
fn leave_network(registry: &mut Registry, vmid: Vmid) {
    if let Some(guest) = registry.guests.get_mut(&vmid).filter(|guest| guest.cloud_init == CloudInit::default()) {
        guest.cloud_init.check = CloudInitCheck::Off;
    }
}

/// One request for each NIC, and customer.
fn wanted(node: &Node, wishes: &[Wish], hookscript: bool, remarks: &mut Vec<Problem>) -> anyhow::Result<Vec<Wanted>> {
    let mut groups: BTreeMap<(Vmid, NicId, Option<&String>), Vec<&Wish>> = BTreeMap::new();
    for wish in wishes {
        groups.entry((wish.vmid, wish.interface, wish.organization.as_ref())).or_default().push(wish);
    }
    let vmids: BTreeSet<Vmid> = wishes.iter().map(|wish| wish.vmid).collect();
    let mut found: BTreeMap<Vmid, Located> = BTreeMap::new();
    for (vmid, located) in node.guests.find_all(vmids.into_iter()) {
        let place = wishes.iter().find(|wish| wish.vmid == vmid).map(|wish| wish.place.clone()).unwrap_or_default();
        found.insert(vmid, located.map_err(ReconcileError::from).context(place)?);
    }
    let avoid = own_addresses();
    let mut wanted = Vec::new();
    for ((vmid, interface, organization), wishes) in groups {
        let places: Vec<String> = wishes.iter().map(|wish| wish.place.clone()).collect();
        let Some(mut located) = found.get(&vmid).cloned() else { continue };
        let addresses: Vec<Prefix> = wishes.iter().map(|wish| wish.address).collect();
        remarks.extend(waiting_changes(node, vmid, &mut located, &[interface]));
        let command = Assign {
            addresses: addresses.clone(),
            interfaces: vec![interface],
            organization: organization.cloned(),
            probe: Some(false),
            hookscript,
            ..request::Assign::of(vmid)
        };
        let request = AssignRequest {
            vmid,
            node: Some(located.node.clone()),
            nics: nics(vmid, &located, &[interface]).context(places.first().cloned().unwrap_or_default())?,
            addresses,
            pool: None,
            families: BTreeSet::new(),
            quantity: Quantity::default(),
            organization: organization.cloned(),
            vps_id: None,
            via: None,
            shared: None,
            avoid: avoid.clone(),
            contested: BTreeMap::new(),
            asking: None,
            in_use: BTreeMap::new(),
            foreign: BTreeSet::new(),
            now: now(),
        };
        wanted.push(Wanted { places, request, command, located });
    }
    Ok(wanted)
}

/// Refuses a bridge of this node whose frames no filter sees; says which are missing.
fn check_filtered(node: &Node, wanted: &[Wanted]) -> anyhow::Result<Vec<Problem>> {
    let here = wanted.iter().filter(|one| one.located.node == node.name);
    let nics = here.flat_map(|one| one.request.nics.iter().map(|(nic, _)| one.located.config.nics.get(nic)));
    let used: BTreeSet<IfName> = nics.filter_map(|nic| nic?.as_ref().ok()?.bridge).collect();
    if used.is_empty() {
        return Ok(Vec::new());
    }
    let surroundings = bridges::surroundings(node)?;
    let mut said = Vec::new();
    for bridge in used {
        said.extend(bridges::check(node, &surroundings, bridge)?);
    }
    Ok(said)
}
