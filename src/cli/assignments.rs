//! `assign`, `release`, `show`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Context as _;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::bridges;
use super::conflicts::blocking;
use super::inside::by_hand;
use super::list::whereabouts;
use super::network::{self, Changed, Told};
use super::node::settle;
use super::output::{Output, advised};
use super::pools::{change, readable, shown};
use super::proxmox::{self, Failure, Outcome};
use super::{Assign, Release, Show, advice};
use super::{probe, provider_mac};
use crate::cloudinit;
use crate::guest::{GuestError, Located, NicChange};
use crate::hookscript;
use crate::links::Links;
use crate::model::text::escaped;
use crate::model::{MacAddr, NicId, Prefix, Vmid};
use crate::reconcile::{Node, ReconcileError, presence_of};
use crate::registry::document::{Assigned, GuestFile, PoolIndex, PoolsFile};
use crate::registry::{AssignRequest, Registry, Rerouted, RuleError, plain};
use crate::store::StoreError;
use crate::store::journal::now;
use crate::system::run::RunState;
use crate::system::{Kernel, Reference};

pub(super) fn assign(node: &Node, command: &Assign, dry_run: bool) -> anyhow::Result<Output> {
    let vmid = command.vmid;
    let trying = || format!("cannot assign to guest {vmid}");
    // The registry's own trouble first: without it nothing can be said about the guest.
    node.store.check_mounted().map_err(ReconcileError::from).with_context(trying)?;
    let mut located = node.guests.find(vmid, None).map_err(ReconcileError::from).with_context(trying)?;
    let mut lines = waiting_changes(node, vmid, &mut located, &command.net);
    let families = match (command.ipv4, command.ipv6) {
        (true, _) => BTreeSet::from([4]),
        (_, true) => BTreeSet::from([6]),
        _ => BTreeSet::new(),
    };
    let mut request = AssignRequest {
        vmid,
        nics: nics(vmid, &located, &command.net).with_context(trying)?,
        addresses: command.addresses.clone(),
        pool: command.pool.clone(),
        families,
        organization: command.organization.clone(),
        avoid: own_addresses(),
        contested: BTreeMap::new(),
        asking: None,
        foreign: BTreeSet::new(),
        now: now(),
    };
    lines.extend(check_filtered(node, &located, &command.net).with_context(trying)?);
    let booked = book(node, command, &mut located, &mut request, dry_run, &mut lines).with_context(trying)?;
    let Booked { new, guest, pools, remarks } = booked;

    let guest = guest.unwrap_or_else(|| GuestFile::new(vmid));
    let wanted = |assigned: &Assigned| new.contains(&assigned.address) || command.addresses.contains(&assigned.address);
    for (nic, interface, assigned) in guest.addresses().filter(|(.., assigned)| wanted(assigned)) {
        let gateway = assigned.gateway.map_or_else(String::new, |gateway| format!(", gateway {gateway}"));
        let verb = match (dry_run, new.contains(&assigned.address)) {
            (true, true) => "would be assigned to",
            (false, true) => "assigned to",
            (_, false) => "is already assigned to",
        };
        let address = plain(assigned.address);
        lines.push(format!("{address} {verb} guest {vmid} {nic} ({}), pool {}{gateway}", interface.mac, assigned.pool));
    }
    lines.extend(remarks);
    let hookscript =
        if command.no_hookscript { Outcome::AsWanted } else { proxmox::register(node, vmid, &located, dry_run) };
    lines.extend(hookscript.line("hookscript"));
    let (guest, turn) = network::turn(node, vmid, guest, dry_run);
    // The configuration too may be another one by now.
    let located = node.guests.find(vmid, None).unwrap_or(located);
    let changed = Changed {
        node,
        located: &located,
        guest: &guest,
        pools: &pools,
        running: is_running(node, vmid, &located),
        reinit: command.reinit,
        dry_run,
    };
    let told = changed.tell();
    drop(turn);
    lines.extend(told.lines.iter().cloned());
    let data = json!({
        "vmid": vmid,
        "assigned": new,
        "interfaces": guest.interfaces,
        "hookscript": hookscript.line("hookscript"),
        "network": told.data(),
    });
    let mut output = settle(node, dry_run, Output::new(lines.join("\n"), data))?;
    let live = if told.failure.is_none() { inside_now(&changed, command, &mut output) } else { None };
    failed([hookscript.failure(), told.failure, live], output)
}

/// Changes of these NICs that wait for the guest's next start. Of a guest that is off they count at once: whatever `qm set`
/// is called for next carries them out.
fn waiting_changes(node: &Node, vmid: Vmid, located: &mut Located, wanted: &[NicId]) -> Vec<String> {
    let waiting: Vec<NicId> = wanted.iter().copied().filter(|nic| located.config.pending.contains_key(nic)).collect();
    if waiting.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = waiting.iter().map(ToString::to_string).collect();
    let (names, tool) = (names.join(", "), located.config.kind.tool());
    if located.node == node.name && !is_running(node, vmid, located) {
        located.config = located.config.at_next_start();
        return vec![format!("note: a change of {names} waits for the guest's next start, and counts here")];
    }
    vec![format!(
        "note: a change of {names} waits for the guest's next start, and does not count here: if it changes MAC or bridge, the guest does not start with it (`{tool} pending {vmid}` shows it)"
    )]
}

/// Refuses a NIC on a bridge of this node whose frames no filter sees; says which bridge is missing.
fn check_filtered(node: &Node, located: &Located, wanted: &[NicId]) -> anyhow::Result<Vec<String>> {
    if located.node != node.name {
        // Other nodes have other interfaces, and their own pre-start.
        return Ok(Vec::new());
    }
    let surroundings = bridges::surroundings(node)?;
    let nics = wanted.iter().filter_map(|id| located.config.nics.get(id)?.as_ref().ok()?.bridge);
    let mut said = Vec::new();
    for bridge in nics.collect::<BTreeSet<_>>() {
        let missing = bridges::check(node, &surroundings, bridge)?;
        said.extend(missing.map(|problem| advised("problem", &problem.sentence, &problem.hint).trim_end().to_owned()));
    }
    Ok(said)
}

/// What an assignment came to in the registry.
struct Booked {
    new: Vec<Prefix>,
    guest: Option<GuestFile>,
    pools: PoolsFile,
    remarks: Vec<String>,
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
    lines: &mut Vec<String>,
) -> anyhow::Result<Booked> {
    let vmid = command.vmid;
    let mut attempts = 0;
    loop {
        if command.set_mac {
            lines.extend(set_mac(node, command, located, request, dry_run)?);
        }
        let booked = probe::assign(node, command, located, request, dry_run, |registry, request, new| {
            let warm = new.iter().filter_map(|address| still_warm(registry, *address, request));
            let mut remarks: Vec<String> = warm.collect();
            check_bridges(registry, vmid, located, request)?;
            keep_hookscript(registry, vmid, located, command.no_hookscript);
            keep_network(registry, vmid, located, command);
            let guest = registry.guests.get(&vmid).cloned();
            remarks.extend(guest.iter().flat_map(|guest| twins(guest, &registry.pools)));
            Ok(Booked { new: new.to_vec(), guest, pools: registry.pools.clone(), remarks })
        });
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
            _ => return booked,
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
    dry_run: bool,
) -> anyhow::Result<Vec<String>> {
    let vmid = command.vmid;
    let registry = node.store.load().map_err(ReconcileError::from)?.registry;
    request.foreign = foreign_macs(node, vmid)?;
    let mac = if command.addresses.is_empty() {
        registry.choose_mac(&AssignRequest { contested: contested(node, &registry), ..request.clone() })?
    } else {
        provider_mac::wanted(&registry, &command.addresses)?
    };
    let running = is_running(node, vmid, located);
    let lines = provider_mac::give(node, vmid, located, &command.net, mac, running, dry_run)?;
    for (_, known) in &mut request.nics {
        *known = mac;
    }
    *located = node.guests.find(vmid, None).map_err(ReconcileError::from)?;
    Ok(lines)
}

/// Addresses that do not work although everything is as it should be: those of a second NIC in the subnet of the first.
fn twins(guest: &GuestFile, pools: &PoolsFile) -> Vec<String> {
    let vmid = guest.vmid;
    let index = PoolIndex::new(pools);
    let subnet = |assigned: &Assigned| {
        let pool = pools.pools.get(&assigned.pool)?;
        let entry = index.entry(&assigned.pool, assigned.address)?.address;
        Some((pool, entry))
    };
    let mut remarks = Vec::new();
    for (nic, interface, assigned) in guest.addresses() {
        let Some((pool, entry)) = subnet(assigned).filter(|_| assigned.address.single().is_some()) else { continue };
        let is_twin = |other: &Assigned| {
            let same_gateway = assigned.gateway.is_some() && other.gateway == assigned.gateway;
            other.address.single().is_some()
                && subnet(other).is_some_and(|(other_pool, other_entry)| {
                    other_pool.bridge == pool.bridge && (other_entry == entry || same_gateway)
                })
        };
        let mut earlier = guest.addresses().filter(|(id, other, _)| *id < nic && other.mac != interface.mac);
        let Some((first, _, other)) = earlier.find(|(.., other)| is_twin(other)) else { continue };
        let (address, other) = (plain(assigned.address), plain(other.address));
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
        remarks.push(format!(
            "note: {address} on {nic} is in the same subnet as {other} on {first}: the guest answers from it by {first}, where it is \
             dropped; {remedy}"
        ));
    }
    remarks
}

/// How many guests are named of those that a change of their pool concerns.
const NAMED: usize = 10;

/// Tells guests the gateways that they have since their pool changed; says which.
pub(super) fn retold(node: &Node, registry: &Registry, rerouted: &[Rerouted], dry_run: bool) -> Vec<String> {
    let shown = |gateway: Option<IpAddr>| gateway.map_or_else(|| "none".to_owned(), |gateway| gateway.to_string());
    let line = |change: &Rerouted| {
        let Rerouted { vmid, nic, address, before, after } = change;
        format!("guest {vmid} {nic} {}: gateway {} -> {}", plain(*address), shown(*before), shown(*after))
    };
    let mut lines: Vec<String> = rerouted.iter().take(NAMED).map(line).collect();
    if rerouted.len() > NAMED {
        lines.push(format!("and {} more addresses", rerouted.len() - NAMED));
    }
    let vmids: BTreeSet<Vmid> = rerouted.iter().map(|change| change.vmid).collect();
    for vmid in vmids {
        let Some(guest) = registry.guests.get(&vmid).cloned() else { continue };
        let (guest, turn) = network::turn(node, vmid, guest, dry_run);
        let Ok(located) = node.guests.find(vmid, None) else { continue };
        let running = is_running(node, vmid, &located);
        let changed =
            Changed { node, located: &located, guest: &guest, pools: &registry.pools, running, reinit: false, dry_run };
        let told = changed.tell();
        drop(turn);
        lines.extend(told.lines);
        lines.extend(told.failure.map(|Failure { message, hint }| format!("note: {message}\n  hint: {hint}")));
        if running && !dry_run {
            lines.push(format!("guest {vmid} is running: it has the new gateway at its next boot"));
        }
    }
    lines
}

/// Addresses that somebody claims without right, and by which number that is acknowledged.
pub(super) fn contested(node: &Node, registry: &Registry) -> BTreeMap<Prefix, (String, String)> {
    let conflicts = blocking(node, registry).into_iter();
    conflicts.filter_map(|conflict| Some((conflict.address?, (conflict.sentence, conflict.id)))).collect()
}

/// That an address was somebody else's not long ago. Whoever names it is not kept from it.
fn still_warm(registry: &Registry, address: Prefix, request: &AssignRequest) -> Option<String> {
    let (released, free_at) = registry.cooling_of(address, request.vmid, request.now)?;
    let (address, until, free_at) = (plain(address), released.at.to_second(), free_at.to_second());
    Some(format!(
        "note: {address} was guest {}'s until {until}, and cools down until {free_at}: what is meant for that guest may still arrive",
        released.vmid
    ))
}

/// What a running guest needs until it boots: done by its agent, or said.
fn inside_now(changed: &Changed<'_>, command: &Assign, output: &mut Output) -> Option<Failure> {
    let vmid = command.vmid;
    let held: Vec<Prefix> = changed.guest.addresses().map(|(.., assigned)| assigned.address).collect();
    let script = changed.inside_now(&held).filter(|_| changed.running && !changed.guest.cloud_init.is_off());
    match script {
        Some(script) if command.live => {
            let told = changed.live(&script);
            output.text += &told.lines.iter().map(|line| format!("\n{line}")).collect::<String>();
            told.failure
        }
        Some(script) => {
            output.text += &format!(
                "\nguest {vmid} is running; to use the addresses now, inside it, as root (`--live` asks its agent to do it):"
            );
            output.text += &script.lines().map(|line| format!("\n    {line}")).collect::<String>();
            None
        }
        None if command.live => {
            let state = if changed.running { "needs nothing inside" } else { "is not running on this node" };
            output.text += &format!("\nguest {vmid} {state}: nothing to do for --live");
            None
        }
        None => None,
    }
}

/// An assignment of which a part failed is not done.
fn failed(failures: [Option<Failure>; 3], output: Output) -> anyhow::Result<Output> {
    let failures: Vec<Failure> = failures.into_iter().flatten().collect();
    if failures.is_empty() {
        return Ok(output);
    }
    let (messages, hints): (Vec<String>, Vec<String>) =
        failures.into_iter().map(|failure| (failure.message, failure.hint)).unzip();
    let of_a_part = |line: &&str| !line.starts_with("hookscript: ") && !line.starts_with("network: ");
    let done: Vec<&str> = output.text.lines().filter(of_a_part).collect();
    Err(advice(format!("{}, but {}", done.join("; "), messages.join("; ")), hints.join("; ")))
}

/// Remembers how the guest shall be told, and what its NICs were configured with.
fn keep_network(registry: &mut Registry, vmid: Vmid, located: &Located, command: &Assign) {
    let Some(guest) = registry.guests.get_mut(&vmid) else { return };
    guest.cloud_init.os = command.os.unwrap_or(guest.cloud_init.os);
    guest.cloud_init.check = command.cloud_init.unwrap_or(guest.cloud_init.check);
    for nic in guest.interfaces.keys().copied().collect::<Vec<_>>() {
        if let Some(before) = cloudinit::before(guest, &registry.pools, &located.config, nic) {
            guest.cloud_init.before.insert(nic, before);
        }
    }
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

fn is_running(node: &Node, vmid: Vmid, located: &Located) -> bool {
    let links = observe_links().unwrap_or_default();
    located.node == node.name && presence_of(vmid, located.config.kind, true, None, &links).is_some()
}

/// The NICs that are meant, with the MACs of the guest's configuration.
fn nics(vmid: Vmid, located: &Located, wanted: &[NicId]) -> anyhow::Result<Vec<(NicId, MacAddr)>> {
    let tool = located.config.kind.tool();
    let mut nics: Vec<(NicId, MacAddr)> = Vec::new();
    for id in wanted {
        let nic = match located.config.nics.get(id) {
            None => {
                let known: Vec<String> = located.config.nics.keys().map(ToString::to_string).collect();
                let known =
                    if known.is_empty() { "it has no NIC".to_owned() } else { format!("it has {}", known.join(", ")) };
                return Err(advice(
                    format!("guest {vmid} has no {id}; {known}"),
                    format!("add it: `{tool} set {vmid} --{id} ...`, or name another one with --net"),
                ));
            }
            Some(Err(error)) => {
                return Err(advice(
                    format!("{id} in the configuration of guest {vmid} is not understood: {error}"),
                    format!("correct it: `{tool} config {vmid}`"),
                ));
            }
            Some(Ok(nic)) => nic,
        };
        let Some(mac) = nic.mac else {
            return Err(advice(
                format!("guest {vmid} {id} has no fixed MAC: it would get another one at every start"),
                format!("give it one: `{}`", located.config.change_nic(vmid, *id, NicChange::FreshMac)),
            ));
        };
        if let Some((other, _)) = nics.iter().find(|(_, known)| *known != mac) {
            return Err(advice(
                format!("{other} and {id} of guest {vmid} have different MACs"),
                "an address can be on two NICs only if they have the same MAC (a bond); assign it to one of them",
            ));
        }
        nics.push((*id, mac));
    }
    Ok(nics)
}

/// The NIC must be on the pool's bridge: a wrong one is better said now than at the next start.
fn check_bridges(registry: &Registry, vmid: Vmid, located: &Located, request: &AssignRequest) -> Result<(), RuleError> {
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
                address: plain(assigned.address),
                pool: assigned.pool.clone(),
                needed: pool.bridge,
            });
        }
    }
    Ok(())
}

/// Remembers the hookscript that the guest has of its own, so that ours can call it.
fn keep_hookscript(registry: &mut Registry, vmid: Vmid, located: &Located, no_hookscript: bool) {
    let own = located.config.hookscript.clone().filter(|volume| !hookscript::is_ours(volume));
    if let (Some(own), false, Some(guest)) = (own, no_hookscript, registry.guests.get_mut(&vmid)) {
        guest.hookscript = Some(own);
    }
}

/// The node's own addresses, with their subnets, are never handed out.
pub(super) fn own_addresses() -> Vec<IpNet> {
    let links = observe_links().unwrap_or_default();
    links.0.values().flat_map(|link| link.addresses.iter().copied()).collect()
}

pub(super) fn observe_links() -> Option<Links> {
    // Looking at links needs no fingerprint of the rules.
    Kernel::open(Reference::default()).ok()?.links().ok()
}

pub(super) fn release(node: &Node, command: &Release, dry_run: bool) -> anyhow::Result<Output> {
    let vmid = command.vmid;
    let trying = || format!("cannot release from guest {vmid}");
    node.store.check_mounted().map_err(ReconcileError::from).with_context(trying)?;
    let located = match node.guests.find(vmid, None) {
        Ok(located) => Some(located),
        // A destroyed guest's addresses must be releasable.
        Err(GuestError::Unknown { .. }) => None,
        Err(error) => {
            return Err(anyhow::Error::from(ReconcileError::from(error)).context(trying()));
        }
    };
    let has_ours =
        located.as_ref().is_some_and(|guest| guest.config.hookscript.as_deref().is_some_and(hookscript::is_ours));
    let (released, left, pools) = change(node, dry_run, |registry| {
        let before = registry.guests.get(&vmid).cloned().unwrap_or_else(|| GuestFile::new(vmid));
        let released = registry.release(vmid, &command.addresses, now())?;
        let left = registry.guests.get(&vmid).cloned();
        // Without its file, a guest that still has our hookscript would look like a clone and not start; and what its NICs
        // had before is needed until they have it again.
        let traces = located.as_ref().is_some_and(|located| cloudinit::has_traces(&before, &located.config));
        if left.as_ref().is_some_and(GuestFile::is_empty) && !has_ours && !traces {
            registry.guests.remove(&vmid);
        }
        Ok((released, left, registry.pools.clone()))
    })
    .with_context(trying)?;

    let verb = if dry_run { "would be released" } else { "released" };
    let mut lines: Vec<String> =
        released.iter().map(|address| format!("{} {verb} from guest {vmid}", plain(*address))).collect();
    if released.is_empty() {
        lines.push(format!("guest {vmid} has no public address any more"));
    }
    let running = located.as_ref().is_some_and(|guest| is_running(node, vmid, guest));
    if running {
        let effect = if dry_run { "would be" } else { "is" };
        lines.push(format!(
            "guest {vmid} is running: it cannot use the address any more, its binding {effect} removed now"
        ));
    }
    let mut outcome = Outcome::AsWanted;
    let mut told = Told::default();
    let left = left.unwrap_or_else(|| GuestFile::new(vmid));
    let (left, turn) = network::turn(node, vmid, left, dry_run);
    if let Some(located) = &located.map(|located| node.guests.find(vmid, None).unwrap_or(located)) {
        let changed = Changed { node, located, guest: &left, pools: &pools, running, reinit: false, dry_run };
        told = changed.withdraw();
        let mut stays = command.no_hookscript && has_ours;
        if !command.no_hookscript && left.is_empty() {
            outcome = proxmox::unregister(node, vmid, located, left.hookscript.as_deref(), dry_run);
            stays = matches!(outcome, Outcome::LeftToDo { .. } | Outcome::Failed { .. });
        }
        if !dry_run && told.is_done() && node.store.load_guest(vmid).is_some() {
            change(node, dry_run, |registry| {
                forget_network(registry, vmid, stays);
                Ok(())
            })
            .with_context(trying)?;
        }
    } else if !dry_run {
        network::sweep(node, vmid);
    }
    drop(turn);
    lines.extend(outcome.line("hookscript"));
    lines.extend(told.lines.iter().cloned());
    let data = json!({
        "vmid": vmid,
        "released": released,
        "running": running,
        "hookscript": outcome.line("hookscript"),
        "network": told.data(),
    });
    let output = settle(node, dry_run, Output::new(lines.join("\n"), data))?;
    failed([outcome.failure(), told.failure, None], output)
}

pub(super) fn cost(index: &PoolIndex<'_>, address: Prefix) -> Option<u64> {
    let pool = index.pool_of(address.first())?;
    index.entry(pool, address)?.monthly_cost_cents
}

pub(super) fn show(node: &Node, command: &Show) -> anyhow::Result<Output> {
    let vmid = command.vmid;
    let guest = match node.store.load_guest(vmid) {
        Some((guest, _)) => guest?,
        None => GuestFile::new(vmid),
    };
    if guest.is_empty() {
        return Err(RuleError::NothingAssigned(vmid).into());
    }
    let registry = readable(node)?;
    let links = observe_links().unwrap_or_default();
    let run = RunState::unlocked(&node.paths);
    let located = node.guests.find(vmid, None).ok();
    let found = located.as_ref().map(|located| (&located.node, located.config.kind));
    let place = whereabouts(node, vmid, found, &links, &run);
    let config = located.map(|located| located.config);
    let mut text = match config.as_ref().and_then(|config| config.name.as_ref()) {
        Some(name) => format!("guest {vmid} ({name}) on node {}: {}\n", place.node, place.state),
        None => format!("guest {vmid} on node {}: {}\n", place.node, place.state),
    };
    let index = PoolIndex::new(&registry.pools);
    for (nic, interface) in &guest.interfaces {
        let port =
            config.as_ref().map_or_else(String::new, |config| format!(", port {}", config.kind.port(vmid, *nic)));
        text += &format!("{nic}: {}{port}\n", interface.mac);
        for assigned in &interface.addresses {
            let gateway = assigned.gateway.map_or_else(|| "none".to_owned(), |gateway| gateway.to_string());
            text += &format!(
                "  {}  pool {}, gateway {gateway}, since {}",
                plain(assigned.address),
                assigned.pool,
                assigned.assigned_at
            );
            if let Some(organization) = &assigned.organization {
                text += &format!(", organization {}", escaped(organization));
            }
            if let Some(cents) = cost(&index, assigned.address) {
                text += &format!(", {}.{:02} a month", cents / 100, cents % 100);
            }
            text.push('\n');
        }
    }
    let hookscript = config.as_ref().and_then(|config| config.hookscript.clone());
    let registered = hookscript.as_deref().is_some_and(hookscript::is_ours);
    text += &match (&guest.hookscript, registered) {
        (Some(own), true) => format!("hookscript: registered; calls {}\n", escaped(own)),
        (None, true) => "hookscript: registered\n".to_owned(),
        (_, false) => {
            let tool = config.as_ref().map_or("qm", |config| config.kind.tool());
            format!("hookscript: not registered; `{tool} set {vmid} --hookscript {}`\n", hookscript::VOLUME)
        }
    };
    let by_hand = config.as_ref().and_then(|config| by_hand(node, &guest, &registry.pools, config, command.inside));
    let (inside, ways) = by_hand.unwrap_or_default();
    text += &inside;
    let mut data = serde_json::to_value(&guest)?;
    if let Value::Object(map) = &mut data {
        map.insert("inside".to_owned(), ways);
        map.insert("node".to_owned(), place.node.into());
        map.insert("state".to_owned(), place.state.into());
        map.insert("hookscript_registered".to_owned(), registered.into());
    }
    Ok(shown(&registry, Output::new(text, data)))
}
