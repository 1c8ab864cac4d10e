//! One address for the guest of a name, and back; addresses that come into a pool and go: what callers of the API ask for. The
//! work itself is that of `assign`, `release` and the pools' operations.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::assign::Inside;
use super::look::{self, Book};
use super::network::Told;
use super::proxmox::Outcome;
use super::{Done, assign, observe_links, pools, problem_of, release};
use crate::cloudinit::prefix_length;
use crate::code;
use crate::lookup::{self, Lookup};
use crate::model::{Family, IfName, NodeName, PoolName, Prefix, Problem, Subject, Vmid};
use crate::reconcile::{Node, ReconcileError};
use crate::registry::document::{Mode, Pool, PoolAddress};
use crate::registry::{Edit, Holding, Registry};
use crate::reply::{Address, AddressChanged, Step, StepName, StepState};
use crate::request::{self, Allocate, CreateAddress, Deallocate, DeleteAddress, Property};

/// Gives an address to the guest of a name.
pub fn allocate(
    node: &Node,
    request: &Allocate,
    within: Option<&str>,
    dry_run: bool,
) -> Result<AddressChanged, Problem> {
    let book = Book::read(node)?;
    let meant = book.own_guest(node, &request.vps_id, (request.mac, request.by_mac), within)?;
    let vmid = meant.vmid;
    let lookup = book.lookup(within);
    let organization = match (within, &request.organization) {
        (Some(within), Some(named)) if within != named => {
            let sentence = format!("organization_id: this key is for `{within}` alone");
            let hint = "leave organization_id out";
            return Err(Problem::new(code!("request-invalid"), Subject::Command, sentence, hint));
        }
        (within, named) => within.map(str::to_owned).or_else(|| named.clone()),
    };
    if let Some(address) = request.address.filter(|address| within.is_some() && lookup.is_hidden(*address)) {
        return Err(Lookup::unknown(address));
    }
    let located = node.guests.find(vmid, None).map_err(|error| problem_of(&ReconcileError::from(error).into()))?;
    let interfaces = lookup::nics(&look::named(vmid, &located), request.interface, request.mac)?;
    check_network(&book.registry, request)?;
    if let (Some(address), Some(family)) = (request.address, request.family)
        && address.family() != family
    {
        let sentence = format!("family: {address} is no {family} address");
        return Err(Problem::new(code!("request-invalid"), Subject::Command, sentence, "leave the family out"));
    }
    let command = request::Assign {
        vmid,
        addresses: request.address.into_iter().collect(),
        interfaces: interfaces.clone(),
        pool: request.pool.clone(),
        families: families(&book.registry, request),
        count: None,
        more: false,
        organization,
        vps_id: meant.by_mac.then(|| request.vps_id.clone()),
        via: request.via,
        shared: request.shared.clone(),
        set_mac: request.set_mac,
        probe: None,
        hookscript: true,
        os: None,
        cloud_init: None,
        reinit: false,
        live: request.live,
    };
    let done = assign(node, &command, dry_run).map_err(|problem| seen_by(within, request.address, problem))?;
    let Done { answer, node: followed, problem, .. } = &done;
    let held = answer.addresses.iter().find(|held| interfaces.contains(&held.interface));
    let address = request.address.or(held.map(|held| held.address));
    let mut steps = vec![step(StepName::Registry, done_if(!answer.assigned.is_empty(), dry_run))];
    steps.extend(answer.mac.iter().filter_map(|outcome| outcome_step(StepName::Mac, vmid, outcome)));
    steps.extend(outcome_step(StepName::Hookscript, vmid, &answer.hookscript));
    steps.push(told_step(vmid, &answer.network, dry_run));
    let could_not_follow = problem.as_ref().filter(|problem| problem.code == code!("node-could-not-follow"));
    let in_the_way = answer.problems.first().or(could_not_follow);
    steps.push(binding(node, vmid, &located.node, (followed, in_the_way), dry_run));
    steps.extend(inside_step(vmid, &answer.inside));
    if located.node != node.name && !answer.assigned.is_empty() {
        steps.push(inside_elsewhere(vmid, &located.node, &answer.assigned));
    }
    let notes = notes_for(within, vmid, &followed.notes, &answer.problems);
    let address = address.map(|address| reread(node, within, (address, vmid), dry_run, &book)).transpose()?;
    Ok(AddressChanged { changed: answer.changed, vmid: Some(vmid), address, steps, notes, dry_run })
}

/// What is said to a caller who must not know of others.
fn seen_by(within: Option<&str>, address: Option<Prefix>, problem: Problem) -> Problem {
    let tells = [
        "address-taken",
        "address-contested",
        "others-were-faster",
        "mac-taken",
        "address-in-use",
        "other-group",
        "group-of-other-organization",
    ];
    match address {
        Some(address) if within.is_some() && tells.contains(&problem.code.as_str()) => Lookup::unknown(address),
        _ => problem,
    }
}

fn notes_for(within: Option<&str>, vmid: Vmid, notes: &[Problem], problems: &[Problem]) -> Vec<Problem> {
    let is_own = |note: &&Problem| within.is_none() || note.subject == Subject::Guest(vmid);
    // Who had the address before is nobody else's business.
    let is_seen = |note: &&Problem| within.is_none() || note.code != code!("cooling-down");
    let mut all: Vec<Problem> = notes.iter().chain(problems).filter(is_own).filter(is_seen).cloned().collect();
    all.dedup();
    all
}

/// The address as it is now. A dry run has not changed it.
fn reread(
    node: &Node,
    within: Option<&str>,
    (address, vmid): (Prefix, Vmid),
    dry_run: bool,
    before: &Book,
) -> Result<Address, Problem> {
    let of = |book: &Book, within| book.lookup(within).address_of(address, Some(vmid));
    if dry_run {
        // A free one is not there for a customer until it is the customer's.
        return of(before, within).or_else(|_| of(before, None));
    }
    of(&Book::changed(node)?, within)
}

/// One address is asked for: of a pool with both families one of IPv4, unless it is said.
fn families(registry: &Registry, request: &Allocate) -> BTreeSet<Family> {
    if request.address.is_some() || request.family.is_some() {
        return request.family.into_iter().collect();
    }
    let pool = request.pool.as_ref().and_then(|name| registry.pools.pools.get(name));
    let pool = pool.or_else(|| registry.pools.pools.values().next().filter(|_| registry.pools.pools.len() == 1));
    let has_v4 = pool.is_some_and(|pool| pool.addresses.iter().any(|entry| entry.address.family() == Family::V4));
    if has_v4 { BTreeSet::from([Family::V4]) } else { BTreeSet::new() }
}

/// Compares what the caller takes for gateway and netmask with what the pool has.
fn check_network(registry: &Registry, request: &Allocate) -> Result<(), Problem> {
    if request.gateway.is_none() && request.prefix_length.is_none() {
        return Ok(());
    }
    let Some(address) = request.address else {
        let sentence = "gateway and netmask belong to an address, and none is named";
        let hint = "name `public_ip`, or leave gateway and netmask out: the answer tells them";
        return Err(Problem::new(code!("request-invalid"), Subject::Command, sentence, hint));
    };
    let Some((name, pool)) = registry.pool_of(address) else { return Ok(()) };
    let Some(entry) = pool.entry(address) else { return Ok(()) };
    check_facts(name, pool, entry, address, request.gateway, request.prefix_length)
}

fn check_facts(
    name: &PoolName,
    pool: &Pool,
    entry: &PoolAddress,
    address: Prefix,
    gateway: Option<IpAddr>,
    length: Option<u8>,
) -> Result<(), Problem> {
    let actual = pool.gateway_of(entry);
    if let Some(gateway) = gateway.filter(|gateway| actual != Some(*gateway)) {
        let actual = actual.map_or_else(|| "none".to_owned(), |actual| actual.to_string());
        let sentence = format!("gateway {gateway} is not that of {address} in pool `{name}`, which is {actual}");
        let hint = "leave the gateway out, or change the pool's: `pve-public-ip pool set`";
        return Err(Problem::new(code!("gateway-differs"), Subject::Address(address), sentence, hint));
    }
    let actual = prefix_length(address, entry.address, actual, pool.mode() == Mode::Bridged);
    if let Some(length) = length.filter(|length| *length != actual) {
        let sentence = format!(
            "netmask /{length} is not that with which a guest uses {address} of pool `{name}`, which is /{actual}"
        );
        let hint = "leave the netmask out: the answer tells it";
        return Err(Problem::new(code!("netmask-differs"), Subject::Address(address), sentence, hint));
    }
    Ok(())
}

fn step(name: StepName, state: StepState) -> Step {
    Step { name, state, problem: None }
}

/// What was done, or would be.
fn done_if(done: bool, dry_run: bool) -> StepState {
    match (done, dry_run) {
        (true, false) => StepState::Done,
        (true, true) => StepState::Pending,
        (false, _) => StepState::Unchanged,
    }
}

fn outcome_step(name: StepName, vmid: Vmid, outcome: &Outcome) -> Option<Step> {
    let left = |reason: &String, command: &String| {
        let hint = format!("`{command}`");
        Some(Step {
            name,
            state: StepState::NotPossible,
            problem: Some(Problem::of_guest(code!("command-failed"), vmid, reason.clone(), hint)),
        })
    };
    match outcome {
        Outcome::AsWanted => Some(step(name, StepState::Unchanged)),
        Outcome::Done { .. } => Some(step(name, StepState::Done)),
        Outcome::WouldBeDone { .. } => Some(step(name, StepState::Pending)),
        Outcome::LeftToDo { reason, command } | Outcome::Failed { reason, command } => left(reason, command),
    }
}

fn told_step(vmid: Vmid, told: &Told, dry_run: bool) -> Step {
    let name = StepName::CloudInit;
    let said = |code| {
        let hint = "configure the address inside the guest";
        let problem = Problem::of_guest(code, vmid, told.sentences.join("; "), hint);
        Step { name, state: StepState::NotPossible, problem: Some(problem) }
    };
    match &told.failure {
        Some(problem) => Step { name, state: StepState::NotPossible, problem: Some(problem.clone()) },
        None if told.by_hand => said(code!("guest-not-told")),
        None if told.left_to_do => said(code!("network-data-refused")),
        None => step(name, done_if(told.changed, dry_run)),
    }
}

/// Whether the guest's port can use the address, and nobody else's, by now.
fn binding(
    node: &Node,
    vmid: Vmid,
    place: &NodeName,
    (followed, problem): (&super::Followed, Option<&Problem>),
    dry_run: bool,
) -> Step {
    let name = StepName::Binding;
    if *place != node.name {
        let sentence =
            format!("guest {vmid} is on node {place}: the guard there binds it within two seconds if it runs");
        let problem = Problem::of_guest(
            code!("guest-elsewhere"),
            vmid,
            sentence,
            format!("`pve-public-ip status` on {place} shows it"),
        );
        return Step { name, state: StepState::Pending, problem: Some(problem) };
    }
    let failed = followed.failed.iter().find(|failed| followed.is_own_failure && failed.guest() == Some(vmid));
    match failed.or(problem) {
        Some(problem) => Step { name, state: StepState::NotPossible, problem: Some(problem.clone()) },
        None => step(name, done_if(true, dry_run)),
    }
}

fn inside_step(vmid: Vmid, inside: &Inside) -> Option<Step> {
    let name = StepName::GuestAgent;
    match inside {
        Inside::Nothing | Inside::NothingToDo { .. } => None,
        Inside::LeftToDo { .. } => {
            let sentence = "the guest runs, and uses the address after its next boot";
            let hint = "boot it, or ask for `live`, which needs the guest's agent";
            let problem = Problem::of_guest(code!("guest-running"), vmid, sentence, hint);
            Some(Step { name, state: StepState::Pending, problem: Some(problem) })
        }
        Inside::Told(told) => Some(match &told.failure {
            Some(problem) => Step { name, state: StepState::NotPossible, problem: Some(problem.clone()) },
            None => step(name, StepState::Done),
        }),
    }
}

/// A guest on another node learns an address at its next boot. Its agent is spoken to there.
fn inside_elsewhere(vmid: Vmid, place: &NodeName, new: &[Prefix]) -> Step {
    let addresses: Vec<String> = new.iter().map(ToString::to_string).collect();
    let sentence = format!("guest {vmid} is on node {place}: if it runs, it uses the address after its next boot");
    let hint = format!("at once, on {place}: `pve-public-ip assign {vmid} {} --live`", addresses.join(" "));
    let problem = Problem::of_guest(code!("guest-elsewhere"), vmid, sentence, hint);
    Step { name: StepName::GuestAgent, state: StepState::Pending, problem: Some(problem) }
}

/// Takes an address from whoever holds it, or from the guest of a name.
pub fn deallocate(
    node: &Node,
    request: &Deallocate,
    within: Option<&str>,
    dry_run: bool,
) -> Result<AddressChanged, Problem> {
    let book = Book::read(node)?;
    let lookup = book.lookup(within);
    let nothing = |address, vmid| {
        let (steps, notes) = (Vec::new(), Vec::new());
        AddressChanged { changed: false, vmid, address, steps, notes, dry_run }
    };
    let holders = lookup.holders(request.address);
    let whole: Vec<&Holding<'_>> = holders.iter().filter(|(.., held)| held.address.contains(request.address)).collect();
    let [first, rest @ ..] = &whole[..] else {
        if let Some(word) = &request.vps_id {
            lookup::check_name(word)?;
        }
        if let Some((vmid, _, _, assigned)) = holders.first() {
            let sentence =
                format!("{} is not one assignment: guest {vmid} holds {} of it", request.address, assigned.address);
            let hint = "release each address that is held";
            return Err(Problem::new(code!("request-invalid"), Subject::Address(request.address), sentence, hint));
        }
        // A customer cannot tell what is free from what others hold.
        return Ok(nothing(lookup.address(request.address).ok(), None));
    };
    let (holder, _, interface, assigned) = match &request.vps_id {
        Some(word) => {
            let meant = book.holder(node, word, (request.mac, true), within)?;
            let Some(held) = whole.iter().find(|(vmid, ..)| *vmid == meant) else {
                return Ok(nothing(lookup.address(request.address).ok(), Some(meant)));
            };
            held
        }
        None if rest.is_empty() => first,
        None => {
            let members: Vec<String> = whole.iter().map(|(vmid, ..)| vmid.to_string()).collect();
            let sentence = format!("several guests hold {} in turn: {}", request.address, members.join(", "));
            let hint = "name the one that is to hold it no longer: `vps_id`";
            return Err(Problem::new(code!("guest-ambiguous"), Subject::Address(request.address), sentence, hint));
        }
    };
    if let Some(mac) = request.mac.filter(|mac| *mac != interface.mac) {
        let sentence = format!("{} is held with the MAC {}, not with {mac}", request.address, interface.mac);
        let hint = "correct the MAC, or leave it out";
        return Err(Problem::new(code!("mac-not-of-guest"), Subject::Address(request.address), sentence, hint));
    }
    let command = request::Release { vmid: *holder, addresses: vec![assigned.address], hookscript: true };
    let done = release(node, &command, dry_run)?;
    let Done { answer, node: followed, problem, .. } = &done;
    let mut steps = vec![step(StepName::Registry, done_if(!answer.released.is_empty(), dry_run))];
    steps.extend(answer.mac.iter().filter_map(|mac| outcome_step(StepName::Mac, *holder, mac)));
    steps.extend(outcome_step(StepName::Hookscript, *holder, &answer.hookscript));
    steps.push(told_step(*holder, &answer.network, dry_run));
    if let Ok(located) = node.guests.find(*holder, None) {
        let in_the_way = problem.as_ref().filter(|problem| problem.code == code!("node-could-not-follow"));
        steps.push(binding(node, *holder, &located.node, (followed, in_the_way), dry_run));
    }
    let notes = notes_for(within, *holder, &followed.notes, &[]);
    let now = || reread(node, within, (request.address, *holder), dry_run, &book).ok();
    let address = if within.is_some() { None } else { now() };
    Ok(AddressChanged { changed: answer.changed, vmid: Some(*holder), address, steps, notes, dry_run })
}

/// Puts an address into a pool, or changes what is known of it there.
pub fn create_address(node: &Node, request: &CreateAddress, dry_run: bool) -> Result<AddressChanged, Problem> {
    let book = Book::read(node)?;
    let address = request.address;
    let pool = pool_for(&book.registry, request)?;
    let contents = book.registry.pools.pools.get(&pool);
    let entry = contents.and_then(|pool| pool.entry(address));
    let mut gateway = Edit::Keep;
    if let Some(contents) = contents {
        let new = PoolAddress { gateway: None, ..PoolAddress::new(address) };
        let known = entry.unwrap_or(&new);
        if contents.gateway_of(known).is_none() && request.gateway.is_some() {
            gateway = request.gateway.map_or(Edit::Keep, Edit::Set);
        } else {
            check_facts(&pool, contents, known, address, request.gateway, request.prefix_length)?;
        }
    }
    let mut cost = request.monthly_cost_cents.map_or(Edit::Keep, Edit::Set);
    let mut mac = request.mac.map_or(Edit::Keep, Edit::Set);
    for known in &request.clear {
        let (is_set, name) = match known {
            Property::MacAddress => (request.mac.is_some(), "mac_address"),
            Property::Gateway => (request.gateway.is_some(), "gateway"),
            Property::MonthlyCostCents => (request.monthly_cost_cents.is_some(), "monthly_cost_cents"),
        };
        if is_set {
            let sentence = format!("{name} is given, and named in `clear`, too");
            let hint = "give it, or clear it";
            return Err(Problem::new(code!("contradictory-options"), Subject::Address(address), sentence, hint));
        }
        match known {
            Property::MacAddress => mac = entry.and_then(|entry| entry.mac).map_or(Edit::Keep, |_| Edit::Erase),
            Property::Gateway => gateway = entry.and_then(|entry| entry.gateway).map_or(Edit::Keep, |_| Edit::Erase),
            Property::MonthlyCostCents => {
                cost = entry.and_then(|entry| entry.monthly_cost_cents).map_or(Edit::Keep, |_| Edit::Erase);
            }
        }
    }
    let is_known = entry.is_some_and(|entry| {
        is_as(&cost, entry.monthly_cost_cents.as_ref()) && is_as(&mac, entry.mac.as_ref()) && gateway == Edit::Keep
    });
    let (changed, notes) = if is_known {
        (false, Vec::new())
    } else {
        let entry = request::Entry { address, mac, gateway, monthly_cost_cents: cost };
        let add = request::AddAddresses { pool: pool.clone(), entries: vec![entry], yes: request.yes };
        let done = pools::add_addresses(node, &add, &format!("cannot add {address} to pool `{pool}`"), dry_run)?;
        let is_own = |note: &&Problem| note.subject == Subject::Pool(pool.clone());
        (done.answer.changed, done.node.notes.iter().filter(is_own).cloned().collect())
    };
    let steps = vec![step(StepName::Registry, done_if(changed, dry_run))];
    let now = Book::changed(node)?;
    // A dry run of a new one has nothing to show.
    let shown = now.lookup(None).address(address).ok();
    Ok(AddressChanged { changed, vmid: None, address: shown, steps, notes, dry_run })
}

/// Whether an edit leaves what is known as it is.
fn is_as<T: PartialEq>(edit: &Edit<T>, known: Option<&T>) -> bool {
    match edit {
        Edit::Keep => true,
        Edit::Set(value) => known == Some(value),
        Edit::Erase => known.is_none(),
    }
}

/// The pool that is named, that has the address, or that is the only one.
fn pool_for(registry: &Registry, request: &CreateAddress) -> Result<PoolName, Problem> {
    if let Some((name, _)) = registry.pool_of(request.address) {
        return match &request.pool {
            Some(named) if named != name => {
                let sentence = format!("{} is in pool `{name}`, not in `{named}`", request.address);
                let hint = format!("leave the pool out, or name `{name}`");
                Err(Problem::new(code!("address-in-other-pool"), Subject::Address(request.address), sentence, hint))
            }
            _ => Ok(name.clone()),
        };
    }
    if let Some(named) = &request.pool {
        return Ok(named.clone());
    }
    let bridges: BTreeSet<IfName> = request.uplink.map(with_master).unwrap_or_default();
    let all = || registry.pools.pools.iter();
    let at_uplink: Vec<&PoolName> =
        all().filter(|(_, pool)| bridges.contains(&pool.bridge)).map(|(name, _)| name).collect();
    let candidates = if at_uplink.is_empty() { all().map(|(name, _)| name).collect() } else { at_uplink };
    match candidates[..] {
        [only] => Ok(only.clone()),
        [] => {
            let hint = "make one: `pve-public-ip pool create NAME --profile PROFILE`, or `CreatePool`";
            Err(Problem::new(code!("no-pools"), Subject::Command, "there is no pool yet", hint))
        }
        _ => {
            let names: Vec<&str> = candidates.iter().map(|name| name.as_str()).collect();
            let sentence = format!("no pool has {}, and there are several: {}", request.address, names.join(", "));
            let hint = "name the one that it belongs to";
            Err(Problem::new(code!("pool-not-named"), Subject::Address(request.address), sentence, hint))
        }
    }
}

/// An uplink and the bridge that it is a port of.
fn with_master(uplink: IfName) -> BTreeSet<IfName> {
    let links = observe_links().unwrap_or_default();
    let master = links.0.get(&uplink).and_then(|link| link.master);
    [Some(uplink), master].into_iter().flatten().collect()
}

/// Takes an address that nobody holds out of its pool.
pub fn delete_address(node: &Node, request: &DeleteAddress, dry_run: bool) -> Result<AddressChanged, Problem> {
    let book = Book::read(node)?;
    let address = request.address;
    let (steps, notes) = (Vec::new(), Vec::new());
    let nothing = AddressChanged { changed: false, vmid: None, address: None, steps, notes, dry_run };
    let Some((name, pool)) = book.registry.pool_of(address) else { return Ok(nothing) };
    if let Some(entry) = pool.entry(address).filter(|entry| entry.address != address) {
        let sentence =
            format!("{address} is a part of {} in pool `{name}`, which can only go as a whole", entry.address);
        let hint = format!("delete {}, and create what shall stay", entry.address);
        return Err(Problem::new(code!("unknown-entry"), Subject::Address(address), sentence, hint));
    }
    let command = request::RemoveFromPool { pool: name.clone(), addresses: vec![address] };
    pools::remove_from_pool(node, &command, dry_run)?;
    Ok(AddressChanged { changed: true, steps: vec![step(StepName::Registry, done_if(true, dry_run))], ..nothing })
}
