//! Gives addresses to many guests in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::Serialize;

use super::assign::{
    Held, Retold, check_bridges, keep_hookscript, keep_network, nics, own_addresses, retold, still_warm,
    waiting_changes,
};
use super::enforce::{Looked, Present};
use super::probe::contested;
use super::proxmox::{self, Outcome};
use super::{Done, advice, bridges, change, follow, pools, told, traces};
use crate::code;
use crate::guest::Located;
use crate::model::{IfName, NicId, NodeName, PoolName, Prefix, Problem, Subject, Vmid};
use crate::plan::is_segment_of;
use crate::plan::present::{Found, found, is_public};
use crate::reconcile::{Node, ReconcileError};
use crate::registry::document::{CloudInit, CloudInitCheck, Enforce, Pool, PoolAddress};
use crate::registry::wishes::Wish;
use crate::registry::{AssignRequest, Index, Quantity, Registry, RuleError};
use crate::request::{self, Assign, CreatePool};
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
    /// The pool that was made for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<PoolName>,
    /// What was assumed of it, in sentences.
    pub assumptions: Vec<String>,
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
    told(
        give(node, wishes, Asks { hookscript, tells: true, new_pool: None }, dry_run)
            .with_context(|| trying.to_owned()),
    )
}

/// Which addresses of those that guests use are to be assigned.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Those of this pool; without one it is only shown what there is.
    pub pool: Option<PoolName>,
    /// The pool is to be made, with all that guests use on its bridge.
    pub create: Option<CreatePool>,
    /// Only guests of this node.
    pub node: Option<NodeName>,
    /// For how long the ports of this node's bridges are watched first.
    pub watch: Option<Duration>,
}

/// Gives guests the addresses that they use: those of a pool. What is contradictory is left, and said.
///
/// The guests are not told anything: they have their addresses. Nobody loses a frame, because a pool whose addresses are in
/// use is only watched until somebody enforces it.
pub fn import_present(
    node: &Node,
    selection: Selection,
    hookscript: bool,
    dry_run: bool,
) -> Result<Done<Imported>, Problem> {
    let trying = || "cannot import what guests use".to_owned();
    told(give_present(node, selection, hookscript, dry_run).with_context(trying))
}

fn give_present(
    node: &Node,
    Selection { pool: name, create, node: only, watch }: Selection,
    hookscript: bool,
    dry_run: bool,
) -> anyhow::Result<Done<Imported>> {
    // What is wrong with the question is said before anybody waits.
    let registry = node.store.load()?.registry;
    match (&name, &create) {
        (Some(name), Some(_)) if registry.pools.pools.contains_key(name) => {
            return Err(RuleError::PoolExists(name.clone()).into());
        }
        (Some(name), None) => drop(registry.pool(name)?),
        _ => {}
    }
    let mut traces = watch.map(traces::watched).transpose()?.unwrap_or_default();
    let registry = node.store.load()?.registry;
    let present = Present::of(node);
    let Looked { guests, seen, .. } = present.look();
    let (more, unread) = traces::gathered(node, guests);
    traces.all.extend(more.all);
    let is_asked_for = |one: &Found| only.as_ref().is_none_or(|only| one.node == *only);

    let mut assumptions = Vec::new();
    let mut new_pool = None;
    if let (Some(name), Some(request)) = (&name, create) {
        let mut all = found(&registry, guests, seen, &traces, None);
        all.retain(is_asked_for);
        let prepared = prepared(node, request, guests, &all)?;
        assumptions = prepared.said;
        let mut pool = prepared.pool;
        let candidates = found(&registry, guests, seen, &traces, Some(&pool));
        for one in candidates.iter().filter(|one| one.contradiction.is_none() && is_asked_for(one)) {
            let mac = pool.provider_mac().then_some(one.mac);
            pool.addresses.push(PoolAddress { mac, ..PoolAddress::new(Prefix::host(one.address)?) });
        }
        if pool.addresses.is_empty() {
            let sentence = format!("no guest on {} is known to use a public address by itself", pool.bridge);
            let hint = "`pve-public-ip import` lists what is known, and what contradicts it";
            return Err(advice(code!("import-nothing-found"), Subject::Pool(name.clone()), sentence, hint));
        }
        new_pool = Some((name.clone(), pool));
    }
    let pool = match (&new_pool, &name) {
        (Some((_, pool)), _) => Some(pool),
        (None, Some(name)) => Some(registry.pool(name)?),
        (None, None) => None,
    };
    // Of a new pool also what it does not get, and why.
    let shown = new_pool.as_ref().map(|(_, pool)| Pool { addresses: Vec::new(), ..pool.clone() });
    let mut found = found(&registry, guests, seen, &traces, shown.as_ref().or(pool));
    found.retain(is_asked_for);
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
    let mut unclear = unread.into_iter().map(|what| format!("not looked at: {what}")).collect::<Vec<_>>();
    let is_known = |address: &IpAddr| {
        let held = || registry.assignments().any(|(.., assigned)| assigned.address.net().contains(address));
        found.iter().any(|one| one.address == *address) || held()
    };
    let segments = pool.map(|pool| pool.bridge);
    let lonely = traces.routed().filter(|(address, bridge)| {
        segments.is_none_or(|of| is_segment_of(*bridge, of)) && is_public(*address) && !is_known(address)
    });
    unclear
        .extend(lonely.map(|(address, bridge)| {
            format!("the node routes {address} to {bridge}, and no guest is known to use it")
        }));
    let created = new_pool.as_ref().map(|(name, _)| name.clone());
    let asks = Asks { hookscript, tells: false, new_pool };
    let mut done = give(node, &wishes, asks, dry_run)?;
    let problem = |sentence| {
        let hint = "`pve-public-ip import --watch 10m` shows what ports send";
        Problem::new(code!("import-unclear"), Subject::Node, sentence, hint)
    };
    done.node.notes.extend(unclear.into_iter().map(problem));
    done.answer.found = found;
    done.answer.changed |= created.is_some();
    done.answer.created = created;
    done.answer.assumptions = assumptions;
    Ok(done)
}

/// The pool that is to be made: on the bridge of what was found, with the gateways that the guests have.
fn prepared(
    node: &Node,
    mut request: CreatePool,
    guests: &BTreeMap<Vmid, Located>,
    all: &[Found],
) -> anyhow::Result<pools::Prepared> {
    let mut said = Vec::new();
    if request.bridge.is_none() {
        let bridges: BTreeSet<IfName> = all.iter().filter_map(|one| one.bridge).collect();
        let mut rest = bridges.iter();
        match (rest.next(), rest.next()) {
            (Some(bridge), None) => {
                said.push(format!("assumed: bridge {bridge}, on which all of these addresses are used"));
                request.bridge = Some(*bridge);
            }
            (Some(first), Some(_)) => {
                let listed: Vec<String> = bridges.iter().map(ToString::to_string).collect();
                let sentence = format!("guests use public addresses on several bridges: {}", listed.join(", "));
                let hint = format!("a pool each: name its bridge, as in `--bridge {first}`");
                return Err(advice(code!("bridge-not-named"), Subject::Pool(request.pool), sentence, hint));
            }
            (None, _) => {}
        }
    }
    let on_bridge =
        |one: &&Found| request.bridge.is_none_or(|named| one.bridge.is_some_and(|bridge| is_segment_of(bridge, named)));
    let inside = all
        .iter()
        .filter(on_bridge)
        .filter_map(|one| guests.get(&one.vmid)?.config.ip_config(one.interface).and_then(Result::ok));
    let gateways: BTreeSet<IpAddr> =
        inside.flat_map(|inside| [inside.v4.gateway, inside.v6.gateway]).flatten().collect();
    // Two of them are two networks: what else is known decides.
    let mut v4 = gateways.iter().filter_map(|gateway| if let IpAddr::V4(v4) = gateway { Some(*v4) } else { None });
    let mut v6 = gateways.iter().filter_map(|gateway| if let IpAddr::V6(v6) = gateway { Some(*v6) } else { None });
    if let (None, Some(gateway), None) = (request.gateway4, v4.next(), v4.next()) {
        said.push(format!("assumed: gateway {gateway}, which the guests have"));
        request.gateway4 = Some(gateway);
    }
    if let (None, Some(gateway), None) = (request.gateway6, v6.next(), v6.next()) {
        said.push(format!("assumed: gateway {gateway}, which the guests have"));
        request.gateway6 = Some(gateway);
    }
    request.enforce = Some(Enforce::Watch);
    let mut prepared = pools::prepare(node, request)?;
    prepared.said.splice(0..0, said);
    Ok(prepared)
}

/// What is done beside the assignments.
struct Asks {
    /// Whether the hookscript is registered.
    hookscript: bool,
    /// Whether guests are told their addresses.
    tells: bool,
    /// A pool that is made in the same step.
    new_pool: Option<(PoolName, Pool)>,
}

fn give(node: &Node, wishes: &[Wish], asks: Asks, dry_run: bool) -> anyhow::Result<Done<Imported>> {
    let Asks { hookscript, tells, new_pool } = asks;
    node.store.check_mounted().map_err(ReconcileError::from)?;
    let mut remarks = Vec::new();
    let wanted = wanted(node, wishes, hookscript, &mut remarks)?;
    remarks.extend(check_filtered(node, &wanted)?);
    // Where the file stood when a rule was against it.
    let mut place = None;
    let changed = change(node, dry_run, |registry| {
        if let Some((name, pool)) = new_pool {
            registry.create_pool(name.clone(), pool)?;
            registry.check_gateways(&name, None)?;
        }
        let contested = contested(node, registry);
        let mut index = Index::of(registry);
        let (mut new, mut warm) = (BTreeSet::new(), Vec::new());
        for Wanted { places, request, command, located } in &wanted {
            place = places.first().cloned();
            let request = AssignRequest { contested: contested.clone(), now: now(), ..request.clone() };
            let given = registry.assign_indexed(&mut index, &request).or_else(|error| {
                // One after the other: the line that is to blame is the one to be named.
                for (at, address) in places.iter().zip(&request.addresses) {
                    place = Some(at.clone());
                    let request = AssignRequest { addresses: vec![*address], ..request.clone() };
                    registry.assign_indexed(&mut index, &request)?;
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
    let answer = Imported {
        changed,
        assignments,
        hookscripts,
        network,
        created: None,
        assumptions: Vec::new(),
        found: Vec::new(),
        remarks,
    };
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
        let place = || wishes.iter().find(|wish| wish.vmid == vmid).map(|wish| wish.place.clone()).unwrap_or_default();
        found.insert(vmid, located.map_err(ReconcileError::from).with_context(place)?);
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
