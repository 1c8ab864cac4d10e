//! Gives addresses to a guest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Context as _;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use super::enforce::Unheld;
use super::network::{self, Changed, Told};
use super::probe::{self, Given, contested};
use super::proxmox::{self, Outcome};
use super::{Done, advice, bridges, follow, observe_links, provider_mac, told};
use crate::cloudinit;
use crate::code;
use crate::guest::{Located, NicChange};
use crate::hookscript;
use crate::links::Links;
use crate::model::text::unfit_name;
use crate::model::{GroupName, MacAddr, NicId, PoolName, Prefix, Problem, Subject, Vmid};
use crate::plan::{SharedMac, macs_of_two_nics, wrong_node};
use crate::reconcile::{Node, ReconcileError, presence_of};
use crate::registry::document::{Assigned as Entry, GuestFile, Interface, PoolIndex, PoolsFile};
use crate::registry::{AssignRequest, PassedOver, Quantity, Registry, RuleError, misplaced};
use crate::request::Assign;
use crate::store::StoreError;
use crate::store::journal::now;

/// An address that the guest holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Held {
    /// The address or prefix.
    pub address: Prefix,
    /// The guest's NIC.
    pub interface: NicId,
    /// Its MAC.
    pub mac: MacAddr,
    /// The pool.
    pub pool: PoolName,
    /// The gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Through which address the guest is reached for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// The group of guests that hold it in turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<GroupName>,
    /// Whether it did not hold it before.
    pub new: bool,
}

/// What is to be done in a running guest, so that it uses its addresses before it boots again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Inside {
    /// Nothing.
    #[default]
    Nothing,
    /// Nothing either, although it was asked for.
    NothingToDo {
        /// Whether the guest runs here.
        running: bool,
    },
    /// These commands, as root.
    LeftToDo {
        /// A shell script.
        script: String,
    },
    /// Its agent was told.
    Told(Told),
}

/// What an assignment came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Assigned {
    /// The guest.
    pub vmid: Vmid,
    /// Whether something is another than before.
    pub changed: bool,
    /// What it did not hold before.
    pub assigned: Vec<Prefix>,
    /// What was not chosen when no address was named, although nobody holds it and it is lower.
    pub passed_over: Vec<PassedOver>,
    /// What was asked for, as far as it is held now.
    pub addresses: Vec<Held>,
    /// All that the guest holds, by NIC.
    pub interfaces: BTreeMap<NicId, Interface>,
    /// What became of the MAC that the provider wants.
    pub mac: Vec<Outcome>,
    /// What became of the hookscript.
    pub hookscript: Outcome,
    /// What became of the data by which the guest learns its addresses.
    pub network: Told,
    /// What is to be done inside it now.
    pub inside: Inside,
    /// What stands in the way of its next start.
    pub problems: Vec<Problem>,
    /// What may surprise about it.
    #[serde(skip)]
    pub remarks: Vec<Problem>,
}

/// Gives addresses to a guest, and sees to it that it uses them.
pub fn assign(node: &Node, request: &Assign, dry_run: bool) -> Result<Done<Assigned>, Problem> {
    told(give(node, request, dry_run).with_context(|| format!("cannot assign to guest {}", request.vmid)))
}

fn give(node: &Node, command: &Assign, dry_run: bool) -> anyhow::Result<Done<Assigned>> {
    let vmid = command.vmid;
    if let Some(why) = command.organization.as_deref().and_then(unfit_name) {
        let hint = "leave it out, or name a customer, such as `acme`";
        return Err(advice(code!("request-invalid"), Subject::Command, format!("organization: {why}"), hint));
    }
    if command.addresses.is_empty() && (command.via.is_some() || command.shared.is_some()) {
        let hint = "name the prefix that is behind `via`, or the address that is `shared`";
        return Err(advice(code!("request-invalid"), Subject::Command, "addresses: none is named".to_owned(), hint));
    }
    // The registry's own trouble first: without it nothing can be said about the guest.
    node.store.check_mounted().map_err(ReconcileError::from)?;
    let mut located = node.guests.find(vmid, None).map_err(ReconcileError::from)?;
    let mut remarks: Vec<Problem> =
        waiting_changes(node, vmid, &mut located, &command.interfaces).into_iter().collect();
    let mut request = AssignRequest {
        vmid,
        node: Some(located.node.clone()),
        nics: nics(vmid, &located, &command.interfaces)?,
        addresses: command.addresses.clone(),
        pool: command.pool.clone(),
        families: command.families.clone(),
        quantity: quantity(command),
        organization: command.organization.clone(),
        vps_id: command.vps_id.clone(),
        via: command.via,
        shared: command.shared.clone(),
        avoid: own_addresses(),
        contested: BTreeMap::new(),
        asking: None,
        in_use: BTreeMap::new(),
        foreign: BTreeSet::new(),
        now: now(),
    };
    let problems = check_filtered(node, &located, &command.interfaces)?;
    let Booked { new, changed, guest, pools, notes, passed_over, mac } =
        book(node, command, &mut located, &mut request, dry_run)?;
    remarks.extend(notes);

    let guest = guest.unwrap_or_else(|| GuestFile::new(vmid));
    remarks.extend(twin_macs(&located, &guest));
    let elsewhere = misplaced(&pools, &guest, &located.node);
    remarks.extend(elsewhere.iter().map(wrong_node));
    let wanted = |nic: NicId, assigned: &Entry| {
        let is_named = command.addresses.contains(&assigned.address);
        // Without a name every address of the pool is what was asked for, as far as it is there.
        let is_meant = command.addresses.is_empty()
            && command.interfaces.contains(&nic)
            && (request.families.is_empty() || request.families.contains(&assigned.address.family()))
            && (command.pool.is_none() || command.pool.as_ref() == Some(&assigned.pool));
        new.contains(&assigned.address) || is_named || (is_meant && !command.more)
    };
    let held = guest.addresses().filter(|(nic, _, assigned)| wanted(*nic, assigned));
    let addresses = held.map(|(nic, interface, assigned)| Held {
        address: assigned.address,
        interface: nic,
        mac: interface.mac,
        pool: assigned.pool.clone(),
        gateway: assigned.gateway,
        via: assigned.via,
        shared: assigned.shared.clone(),
        new: new.contains(&assigned.address),
    });
    let addresses: Vec<Held> = addresses.collect();
    let hookscript =
        if command.hookscript { proxmox::register(node, vmid, &located, dry_run) } else { Outcome::AsWanted };
    let (guest, turn) = network::turn(node, vmid, guest, dry_run);
    // The configuration too may be another one by now.
    let located = node.guests.find(vmid, None).unwrap_or(located);
    let about = Changed {
        node,
        located: &located,
        guest: &guest,
        pools: &pools,
        running: is_running(node, vmid, &located),
        reinit: command.reinit,
        dry_run,
    };
    let network = about.tell();
    drop(turn);
    let answer = Assigned {
        vmid,
        passed_over,
        changed: changed || hookscript.is_done() || network.changed || !mac.is_empty(),
        assigned: new,
        addresses,
        interfaces: guest.interfaces.clone(),
        mac,
        hookscript,
        network,
        inside: Inside::Nothing,
        problems,
        remarks,
    };
    let mut done = follow::follow(node, dry_run, &Subject::Guest(vmid), answer);
    done.node.notes.splice(0..0, done.answer.remarks.iter().cloned());
    let mut failures = vec![done.answer.hookscript.failure(vmid), done.answer.network.failure.clone()];
    if done.answer.network.failure.is_none() && done.problem.is_none() {
        let (inside, failure) = inside_now(&about, command);
        done.answer.inside = inside;
        failures.push(failure);
    }
    Ok(done.but(joined(failures.into_iter().flatten())))
}

/// An assignment of which a part failed is not done: all that failed, as one problem.
pub(super) fn joined(failures: impl Iterator<Item = Problem>) -> Option<Problem> {
    failures.reduce(|mut first, next| {
        first.sentence = format!("{}; {}", first.sentence, next.sentence);
        first.hint = format!("{}; {}", first.hint, next.hint);
        first
    })
}

/// How many addresses the NIC gets when none is named.
fn quantity(command: &Assign) -> Quantity {
    let count = usize::from(command.count.unwrap_or(1));
    if command.more { Quantity::More(count) } else { Quantity::UpTo(count) }
}

/// Changes of these NICs that wait for the guest's next start. Of a guest that is off they count at once: whatever `qm set`
/// is called for next carries them out.
pub(super) fn waiting_changes(node: &Node, vmid: Vmid, located: &mut Located, wanted: &[NicId]) -> Option<Problem> {
    let waiting: Vec<NicId> = wanted.iter().copied().filter(|nic| located.config.pending.contains_key(nic)).collect();
    if waiting.is_empty() {
        return None;
    }
    let names: Vec<String> = waiting.iter().map(ToString::to_string).collect();
    let (names, tool) = (names.join(", "), located.config.kind.tool());
    if located.node == node.name && !is_running(node, vmid, located) {
        located.config = located.config.at_next_start();
        let sentence = format!("a change of {names} waits for the guest's next start, and counts here");
        return Some(Problem::of_guest(code!("nic-change-waits"), vmid, sentence, ""));
    }
    let sentence = format!(
        "a change of {names} waits for the guest's next start, and does not count here: if it changes MAC or bridge, the guest does not start with it (`{tool} pending {vmid}` shows it)"
    );
    Some(Problem::of_guest(code!("nic-change-waits"), vmid, sentence, ""))
}

/// Refuses a NIC on a bridge of this node whose frames no filter sees; says which bridge is missing.
fn check_filtered(node: &Node, located: &Located, wanted: &[NicId]) -> anyhow::Result<Vec<Problem>> {
    if located.node != node.name {
        // Other nodes have other interfaces, and their own pre-start.
        return Ok(Vec::new());
    }
    let surroundings = bridges::surroundings(node)?;
    let nics = wanted.iter().filter_map(|id| located.config.nics.get(id)?.as_ref().ok()?.bridge);
    let mut said = Vec::new();
    for bridge in nics.collect::<BTreeSet<_>>() {
        said.extend(bridges::check(node, &surroundings, bridge)?);
    }
    Ok(said)
}

/// What an assignment came to in the registry.
struct Booked {
    new: Vec<Prefix>,
    /// Whether anything about the guest is another than before.
    changed: bool,
    guest: Option<GuestFile>,
    pools: PoolsFile,
    notes: Vec<Problem>,
    passed_over: Vec<PassedOver>,
    /// What became of the NIC's MAC.
    mac: Vec<Outcome>,
}

/// How often a MAC is chosen for a guest, if others are faster.
const MAC_ATTEMPTS: usize = 5;

/// Writes an assignment into the registry, after the NIC was given the right MAC, if that is asked for.
fn book(
    node: &Node,
    command: &Assign,
    located: &mut Located,
    request: &mut AssignRequest,
    dry_run: bool,
) -> anyhow::Result<Booked> {
    let vmid = command.vmid;
    let mut attempts = 0;
    let mut given = Vec::new();
    // Looked at before the lock is taken, because others wait for that.
    let present = command.addresses.is_empty().then(|| Unheld::look(node));
    let present = present.as_ref();
    loop {
        if command.set_mac {
            given.extend(set_mac(node, command, located, request, present, dry_run)?);
        }
        let booked = probe::assign(
            node,
            command,
            located,
            (request, present),
            dry_run,
            |registry, request, Given { before, new }| {
                let warm = new.iter().filter_map(|address| still_warm(registry, *address, request));
                let mut notes: Vec<Problem> = warm.collect();
                check_bridges(registry, vmid, located, request)?;
                check_group(node, registry, located, request)?;
                keep_hookscript(registry, vmid, located, !command.hookscript);
                keep_network(registry, vmid, located, command);
                let guest = registry.guests.get(&vmid).cloned();
                notes.extend(guest.iter().flat_map(|guest| twins(guest, &registry.pools)));
                let named: BTreeSet<Prefix> = new.iter().chain(&command.addresses).copied().collect();
                notes.extend(guest.iter().flat_map(|guest| registry.held_notes(guest, &named)));
                let is_next = request.addresses.is_empty();
                let passed_over = if is_next { registry.passed_over(request, &new) } else { Vec::new() };
                Ok(Booked {
                    new,
                    passed_over,
                    changed: before != guest,
                    guest,
                    pools: registry.pools.clone(),
                    notes,
                    mac: Vec::new(),
                })
            },
        );
        attempts += 1;
        let rule = match booked.as_ref().map_err(|error| error.downcast_ref::<StoreError>()) {
            Err(Some(StoreError::Rule(rule))) => Some(rule),
            _ => None,
        };
        let is_chosen = command.set_mac && command.addresses.is_empty();
        match rule {
            // To be told of the address of another MAC helps only if nobody else has that MAC.
            Some(RuleError::OtherMac { .. }) if request.foreign.is_empty() && !command.set_mac => {
                request.foreign = foreign_macs(node, vmid)?;
                if request.foreign.is_empty() {
                    return booked;
                }
            }
            // Somebody else was faster, and has the address whose MAC the NIC was given.
            Some(RuleError::OtherMac { .. } | RuleError::MacTaken { .. }) if is_chosen && attempts < MAC_ATTEMPTS => {}
            _ => return booked.map(|booked| Booked { mac: given, ..booked }),
        }
    }
}

/// The MACs with which other guests of this node are configured.
fn foreign_macs(node: &Node, vmid: Vmid) -> anyhow::Result<BTreeSet<MacAddr>> {
    let guests = node.guests.local().map_err(ReconcileError::from)?;
    let others = guests.iter().filter(|(other, _)| **other != vmid);
    let nics = others.flat_map(|(_, config)| config.nics.values());
    Ok(nics.filter_map(|nic| nic.as_ref().ok()?.mac).collect())
}

/// Gives the NIC the MAC of the addresses that are named, or else of the next free ones.
fn set_mac(
    node: &Node,
    command: &Assign,
    located: &mut Located,
    request: &mut AssignRequest,
    present: Option<&Unheld>,
    dry_run: bool,
) -> anyhow::Result<Vec<Outcome>> {
    let vmid = command.vmid;
    let registry = node.store.load().map_err(ReconcileError::from)?.registry;
    request.foreign = foreign_macs(node, vmid)?;
    let mac = if command.addresses.is_empty() {
        let in_use = present.map(|present| present.in_use(&registry, request)).unwrap_or_default();
        registry.choose_mac(&AssignRequest { contested: contested(node, &registry), in_use, ..request.clone() })?
    } else {
        provider_mac::wanted(&registry, &command.addresses)?
    };
    let running = is_running(node, vmid, located);
    let given = provider_mac::give(node, vmid, located, &command.interfaces, mac, running, dry_run)?;
    for (_, known) in &mut request.nics {
        *known = mac;
    }
    *located = node.guests.find(vmid, None).map_err(ReconcileError::from)?;
    Ok(given)
}

/// NICs of the guest that have the MAC of one with addresses, and cannot send.
fn twin_macs(located: &Located, guest: &GuestFile) -> Vec<Problem> {
    let registry = Registry { guests: [(guest.vmid, guest.clone())].into(), ..Registry::default() };
    let held = |mac: MacAddr| guest.interfaces.values().any(|interface| interface.mac == mac);
    let shared = macs_of_two_nics(std::iter::once((guest.vmid, located)), &registry).into_iter();
    let note = |shared: SharedMac| {
        let sentence = format!("{}: what comes from one without addresses is dropped", shared.sentence);
        Problem::of_guest(code!("duplicate-mac"), guest.vmid, sentence, shared.remedy)
    };
    shared.filter(|shared| held(shared.mac)).map(note).collect()
}

/// Addresses that do not work although everything is as it should be: those of a second NIC in the subnet of the first.
fn twins(guest: &GuestFile, pools: &PoolsFile) -> Vec<Problem> {
    let vmid = guest.vmid;
    let index = PoolIndex::new(pools);
    let subnet = |assigned: &Entry| {
        let pool = pools.pools.get(&assigned.pool)?;
        let entry = index.entry(&assigned.pool, assigned.address)?.address;
        Some((pool, entry))
    };
    let mut notes = Vec::new();
    for (nic, interface, assigned) in guest.addresses() {
        let Some((pool, entry)) = subnet(assigned).filter(|_| assigned.address.single().is_some()) else { continue };
        let is_twin = |other: &Entry| {
            let same_gateway = assigned.gateway.is_some() && other.gateway == assigned.gateway;
            other.address.single().is_some()
                && subnet(other).is_some_and(|(other_pool, other_entry)| {
                    other_pool.bridge == pool.bridge && (other_entry == entry || same_gateway)
                })
        };
        let mut earlier = guest.addresses().filter(|(id, other, _)| *id < nic && other.mac != interface.mac);
        let Some((first, _, other)) = earlier.find(|(.., other)| is_twin(other)) else { continue };
        let (address, other) = (assigned.address.to_string(), other.address.to_string());
        let remedy = if pool.provider_mac() {
            format!(
                "inside the guest it needs a routing table of its own: `ip rule add from {address} table {}`",
                nic.index()
            )
        } else {
            format!(
                "to have both on {first}: `pve-public-ip release {vmid} {address}`, then `pve-public-ip assign {vmid} {address} --net {}`",
                first.index()
            )
        };
        let sentence = format!(
            "{address} on {nic} is in the same subnet as {other} on {first}: the guest answers from it by {first}, where it is \
             dropped"
        );
        notes.push(Problem::of_guest(code!("second-nic-in-subnet"), vmid, sentence, remedy));
    }
    notes
}

/// What became of a guest whose addresses or gateways are others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Retold {
    /// The guest.
    pub vmid: Vmid,
    /// Whether it runs here, so that it has the gateway at its next boot only.
    pub running: bool,
    /// What became of the data by which it learns its addresses.
    pub network: Told,
    /// Why that is not done, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// Tells guests the addresses and gateways that they have since the registry changed.
pub(super) fn retold(node: &Node, registry: &Registry, vmids: BTreeSet<Vmid>, dry_run: bool) -> Vec<Retold> {
    let mut all = Vec::new();
    // Where they are is looked for once: each is where it was, or has moved meanwhile and is looked for.
    let places = node.guests.places();
    let mut links = None;
    for vmid in vmids {
        let Some(guest) = registry.guests.get(&vmid).cloned() else { continue };
        let (guest, turn) = network::turn(node, vmid, guest, dry_run);
        let place = places.get(&vmid).map(|(node, _)| node);
        let Ok(located) = node.guests.find(vmid, place) else { continue };
        let running = is_among(links.get_or_insert_with(|| observe_links().unwrap_or_default()), node, vmid, &located);
        let changed =
            Changed { node, located: &located, guest: &guest, pools: &registry.pools, running, reinit: false, dry_run };
        let network = changed.tell();
        drop(turn);
        if network.changed {
            // What was run for this one may have taken long.
            links = None;
        }
        let problem = network.failure.clone();
        all.push(Retold { vmid, running: running && !dry_run, network, problem });
    }
    all
}

/// That an address was somebody else's not long ago. Whoever names it is not kept from it.
pub(super) fn still_warm(registry: &Registry, address: Prefix, request: &AssignRequest) -> Option<Problem> {
    let (released, free_at) = registry.cooling_of(address, request.vmid, request.now)?;
    let (address, until, free_at) = (address.to_string(), released.at.to_second(), free_at.to_second());
    let sentence = format!(
        "{address} was guest {}'s until {until}, and cools down until {free_at}: what is meant for that guest may still arrive",
        released.vmid
    );
    Some(Problem::of_guest(code!("cooling-down"), request.vmid, sentence, ""))
}

/// What a running guest needs until it boots: done by its agent, or said.
fn inside_now(changed: &Changed<'_>, command: &Assign) -> (Inside, Option<Problem>) {
    let held: Vec<Prefix> = changed.guest.addresses().map(|(.., assigned)| assigned.address).collect();
    let script = changed.inside_now(&held).filter(|_| changed.running && !changed.guest.cloud_init.is_off());
    match script {
        Some(script) if command.live => {
            let told = changed.live(&script);
            let failure = told.failure.clone();
            (Inside::Told(told), failure)
        }
        Some(script) => (Inside::LeftToDo { script }, None),
        None if command.live => (Inside::NothingToDo { running: changed.running }, None),
        None => (Inside::Nothing, None),
    }
}

/// Remembers how the guest shall be told, and what its NICs were configured with.
pub(super) fn keep_network(registry: &mut Registry, vmid: Vmid, located: &Located, command: &Assign) {
    let Some(guest) = registry.guests.get_mut(&vmid) else { return };
    guest.cloud_init.os = command.os.unwrap_or(guest.cloud_init.os);
    guest.cloud_init.check = command.cloud_init.unwrap_or(guest.cloud_init.check);
    for nic in guest.interfaces.keys().copied().collect::<Vec<_>>() {
        if let Some(before) = cloudinit::before(guest, &registry.pools, &located.config, nic) {
            guest.cloud_init.before.insert(nic, before);
        }
    }
}

pub(super) fn is_running(node: &Node, vmid: Vmid, located: &Located) -> bool {
    located.node == node.name && is_among(&observe_links().unwrap_or_default(), node, vmid, located)
}

/// The same by the interfaces that are there.
fn is_among(links: &Links, node: &Node, vmid: Vmid, located: &Located) -> bool {
    located.node == node.name && presence_of(vmid, located.config.kind, true, None, links).is_some()
}

/// The NICs that are meant, with the MACs of the guest's configuration.
pub(super) fn nics(vmid: Vmid, located: &Located, wanted: &[NicId]) -> anyhow::Result<Vec<(NicId, MacAddr)>> {
    let tool = located.config.kind.tool();
    let mut nics: Vec<(NicId, MacAddr)> = Vec::new();
    for id in wanted {
        let nic = match located.config.nics.get(id) {
            None => {
                let known: Vec<String> = located.config.nics.keys().map(ToString::to_string).collect();
                let known =
                    if known.is_empty() { "it has no NIC".to_owned() } else { format!("it has {}", known.join(", ")) };
                return Err(advice(
                    code!("nic-missing"),
                    Subject::Guest(vmid),
                    format!("guest {vmid} has no {id}; {known}"),
                    format!("add it: `{tool} set {vmid} --{id} ...`, or name another one with --net"),
                ));
            }
            Some(Err(error)) => {
                return Err(advice(
                    code!("nic-not-understood"),
                    Subject::Guest(vmid),
                    format!("{id} in the configuration of guest {vmid} is not understood: {error}"),
                    format!("correct it: `{tool} config {vmid}`"),
                ));
            }
            Some(Ok(nic)) => nic,
        };
        let Some(mac) = nic.mac else {
            return Err(advice(
                code!("nic-without-mac"),
                Subject::Guest(vmid),
                format!("guest {vmid} {id} has no fixed MAC: it would get another one at every start"),
                format!("give it one: `{}`", located.config.change_nic(vmid, *id, NicChange::FreshMac)),
            ));
        };
        if let Some((other, _)) = nics.iter().find(|(_, known)| *known != mac) {
            return Err(advice(
                code!("nics-differ"),
                Subject::Guest(vmid),
                format!("{other} and {id} of guest {vmid} have different MACs"),
                "an address can be on two NICs only if they have the same MAC (a bond); assign it to one of them",
            ));
        }
        nics.push((*id, mac));
    }
    Ok(nics)
}

/// The NIC must be on the pool's bridge: a wrong one is better said now than at the next start.
pub(super) fn check_bridges(
    registry: &Registry,
    vmid: Vmid,
    located: &Located,
    request: &AssignRequest,
) -> Result<(), RuleError> {
    let Some(guest) = registry.guests.get(&vmid) else { return Ok(()) };
    for (nic, _, assigned) in guest.addresses().filter(|(nic, ..)| request.nics.iter().any(|(id, _)| id == nic)) {
        let Some(pool) = registry.pools.pools.get(&assigned.pool) else { continue };
        let bridge = located.config.nics.get(&nic).and_then(|nic| nic.as_ref().ok()).and_then(|nic| nic.bridge);
        if bridge != Some(pool.bridge) {
            let actual = bridge.map_or_else(|| "no bridge".to_owned(), |bridge| format!("bridge {bridge}"));
            return Err(RuleError::WrongBridge {
                vmid,
                nic,
                actual,
                address: assigned.address.to_string(),
                pool: assigned.pool.clone(),
                needed: pool.bridge,
            });
        }
    }
    Ok(())
}

/// Refuses a member of a group that the others cannot hear. One whose configuration cannot be read is not compared.
fn check_group(node: &Node, registry: &Registry, located: &Located, request: &AssignRequest) -> Result<(), RuleError> {
    let Some(guest) = registry.guests.get(&request.vmid) else { return Ok(()) };
    let asked = |nic: &NicId| request.nics.iter().any(|(id, _)| id == nic);
    for (nic, _, own) in guest.addresses().filter(|(nic, _, own)| own.shared.is_some() && asked(nic)) {
        let tag = located.config.tag(nic);
        let others =
            registry.assignments().filter(|(holder, .., held)| *holder != request.vmid && held.address == own.address);
        for (holder, of, ..) in others {
            let theirs = node.guests.find(holder, None).map_or(tag, |other| other.config.tag(of));
            if theirs != tag {
                return Err(RuleError::OtherVlan {
                    address: own.address,
                    vmid: request.vmid,
                    nic,
                    tag,
                    holder,
                    theirs,
                });
            }
        }
    }
    Ok(())
}

/// Remembers the hookscript that the guest has of its own, so that ours can call it.
pub(super) fn keep_hookscript(registry: &mut Registry, vmid: Vmid, located: &Located, no_hookscript: bool) {
    let own = located.config.hookscript.clone().filter(|volume| !hookscript::is_ours(volume));
    if let (Some(own), false, Some(guest)) = (own, no_hookscript, registry.guests.get_mut(&vmid)) {
        guest.hookscript = Some(own);
    }
}

/// The node's own addresses, with their subnets, are never handed out.
pub(crate) fn own_addresses() -> Vec<IpNet> {
    let links = observe_links().unwrap_or_default();
    links.0.values().flat_map(|link| link.addresses.iter().copied()).collect()
}
