//! `assign`, `release`, `list`, `show`.

use std::collections::BTreeSet;
use std::time::SystemTime;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::node::settle;
use super::output::{Output, table};
use super::pools::{change, readable};
use super::proxmox::{self, Outcome};
use super::{Assign, List, Release, Show, advice};
use crate::guest::{GuestError, Located};
use crate::hookscript;
use crate::model::{MacAddr, NicId, Prefix, Vmid};
use crate::plan::{Links, Presence};
use crate::reconcile::{Node, ReconcileError, presence_of};
use crate::registry::document::{Assigned, GuestFile};
use crate::registry::{AssignRequest, Registry, RuleError, plain};
use crate::system::Kernel;
use crate::system::run::RunState;

pub(super) fn assign(node: &Node, command: &Assign, dry_run: bool) -> anyhow::Result<Output> {
    let vmid = command.vmid;
    let trying = || format!("cannot assign to guest {vmid}");
    // The registry's own trouble first: without it nothing can be said about the guest.
    node.store.check_mounted().map_err(ReconcileError::from).with_context(trying)?;
    let located = node.guests.find(vmid, None).map_err(ReconcileError::from).with_context(trying)?;
    let nics = nics(vmid, &located, &command.net).with_context(trying)?;
    let families = match (command.ipv4, command.ipv6) {
        (true, _) => BTreeSet::from([4]),
        (_, true) => BTreeSet::from([6]),
        _ => BTreeSet::new(),
    };
    let request = AssignRequest {
        vmid,
        nics: nics.clone(),
        addresses: command.addresses.clone(),
        pool: command.pool.clone(),
        families,
        organization: command.organization.clone(),
        avoid: own_addresses(),
        now: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
    };
    let (new, guest) = change(node, dry_run, |registry| {
        let new = registry.assign(&request)?;
        check_bridges(registry, vmid, &located, &request)?;
        keep_hookscript(registry, vmid, &located, command.no_hookscript);
        Ok((new, registry.guests.get(&vmid).cloned()))
    })
    .with_context(trying)?;

    let mut lines = Vec::new();
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
    let hookscript =
        if command.no_hookscript { Outcome::AsWanted } else { proxmox::register(node, vmid, &located, dry_run) };
    lines.extend(hookscript.line());
    let data = json!({
        "vmid": vmid,
        "assigned": new,
        "interfaces": guest.interfaces,
        "hookscript": hookscript.line(),
    });
    let output = settle(node, dry_run, Output::new(lines.join("\n"), data))?;
    failed_hookscript(&hookscript, output)
}

/// An assignment whose hookscript could not be registered is not done.
fn failed_hookscript(outcome: &Outcome, output: Output) -> anyhow::Result<Output> {
    match outcome {
        Outcome::Failed { message, command } => {
            let done: Vec<&str> = output.text.lines().filter(|line| !line.starts_with("hookscript:")).collect();
            Err(advice(format!("{}, but {message}", done.join("; ")), format!("try it by hand: `{command}`")))
        }
        _ => Ok(output),
    }
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
                format!("give it one: `{tool} set {vmid} --{id} ...`"),
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

/// The node's own addresses are never handed out.
fn own_addresses() -> Vec<std::net::IpAddr> {
    let links = observe_links().unwrap_or_default();
    let all = links.0.keys().copied().collect();
    links.own_addresses(&all)
}

fn observe_links() -> Option<Links> {
    // Looking at links needs no fingerprint of the rules.
    Kernel::open(0).ok()?.links().ok()
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
    let (released, left) = change(node, dry_run, |registry| {
        let released = registry.release(vmid, &command.addresses)?;
        let left = registry.guests.get(&vmid).cloned();
        // Without its file, a guest that still has our hookscript would look like a clone and not start.
        if left.as_ref().is_some_and(GuestFile::is_empty) && !has_ours {
            registry.guests.remove(&vmid);
        }
        Ok((released, left))
    })
    .with_context(trying)?;

    let verb = if dry_run { "would be released" } else { "released" };
    let mut lines: Vec<String> =
        released.iter().map(|address| format!("{} {verb} from guest {vmid}", plain(*address))).collect();
    if released.is_empty() {
        lines.push(format!("guest {vmid} has no public address any more"));
    }
    let running = located.as_ref().is_some_and(|guest| {
        let interfaces = observe_links().unwrap_or_default();
        guest.node == node.name && presence_of(vmid, guest.config.kind, true, None, &interfaces).is_some()
    });
    if running {
        let effect = if dry_run { "would be" } else { "is" };
        lines.push(format!(
            "guest {vmid} is running: it cannot use the address any more, its binding {effect} removed now"
        ));
    }
    let mut outcome = Outcome::AsWanted;
    let before = left.as_ref().and_then(|guest| guest.hookscript.clone());
    if let (Some(located), false, true) =
        (&located, command.no_hookscript, left.as_ref().is_some_and(GuestFile::is_empty))
    {
        outcome = proxmox::unregister(node, vmid, located, before.as_deref(), dry_run);
        if let (Outcome::Done(_), false) = (&outcome, dry_run) {
            change(node, dry_run, |registry| {
                if registry.guests.get(&vmid).is_some_and(GuestFile::is_empty) {
                    registry.guests.remove(&vmid);
                }
                Ok(())
            })
            .with_context(trying)?;
        }
    }
    lines.extend(outcome.line());
    let data = json!({ "vmid": vmid, "released": released, "running": running, "hookscript": outcome.line() });
    let output = settle(node, dry_run, Output::new(lines.join("\n"), data))?;
    failed_hookscript(&outcome, output)
}

/// Where a guest is and how far, for showing.
struct Whereabouts {
    node: String,
    state: &'static str,
}

fn whereabouts(node: &Node, vmid: Vmid, links: &Links, run: &RunState) -> Whereabouts {
    let Ok(located) = node.guests.find(vmid, None) else {
        return Whereabouts { node: String::new(), state: "no such guest" };
    };
    let here = located.node == node.name;
    let mark = run.mark(vmid);
    let state = match presence_of(vmid, located.config.kind, here, mark.as_ref(), links) {
        Some(Presence::Running) => "bound",
        Some(Presence::Starting) => "starting",
        Some(Presence::Incoming) => "incoming",
        None if here => "reserved",
        None => "elsewhere",
    };
    Whereabouts { node: located.node.to_string(), state }
}

pub(super) fn list(node: &Node, command: &List) -> anyhow::Result<Output> {
    let registry = readable(node)?;
    if let Some(pool) = &command.pool {
        registry.pool(pool)?;
    }
    let interfaces = observe_links().unwrap_or_default();
    let run = RunState::unlocked(&node.paths);
    let mut rows = Vec::new();
    let mut data = Vec::new();
    for (vmid, guest) in &registry.guests {
        if guest.is_empty() {
            continue;
        }
        let place = whereabouts(node, *vmid, &interfaces, &run);
        for (nic, interface, assigned) in guest.addresses() {
            if command.pool.as_ref().is_some_and(|pool| *pool != assigned.pool) {
                continue;
            }
            rows.push(vec![
                vmid.to_string(),
                nic.to_string(),
                plain(assigned.address),
                interface.mac.to_string(),
                assigned.pool.to_string(),
                place.node.clone(),
                place.state.to_owned(),
            ]);
            data.push(json!({
                "vmid": vmid, "interface": nic, "address": assigned.address, "mac": interface.mac, "pool": assigned.pool,
                "gateway": assigned.gateway, "organization": assigned.organization, "assigned_at": assigned.assigned_at,
                "monthly_cost_cents": cost(&registry, assigned.address), "node": place.node, "state": place.state,
            }));
        }
    }
    let text = if rows.is_empty() {
        "no assignments; `pve-public-ip assign VMID ADDRESS` makes one".to_owned()
    } else {
        table(&["vmid", "net", "address", "mac", "pool", "node", "state"], &rows)
    };
    Ok(Output::new(text, data.into()))
}

fn cost(registry: &Registry, address: Prefix) -> Option<u64> {
    let (_, pool) = registry.pool_of(address)?;
    pool.entry(address)?.monthly_cost_cents
}

pub(super) fn show(node: &Node, command: &Show) -> anyhow::Result<Output> {
    let vmid = command.vmid;
    let guest = match node.store.load_guest(vmid)? {
        Some((guest, _)) => guest?,
        None => GuestFile::new(vmid),
    };
    if guest.is_empty() {
        return Err(RuleError::NothingAssigned(vmid).into());
    }
    let registry = readable(node)?;
    let links = observe_links().unwrap_or_default();
    let run = RunState::unlocked(&node.paths);
    let place = whereabouts(node, vmid, &links, &run);
    let config = node.guests.find(vmid, None).ok().map(|located| located.config);
    let mut text = match config.as_ref().and_then(|config| config.name.as_ref()) {
        Some(name) => format!("guest {vmid} ({name}) on node {}: {}\n", place.node, place.state),
        None => format!("guest {vmid} on node {}: {}\n", place.node, place.state),
    };
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
                text += &format!(", organization {organization}");
            }
            if let Some(cents) = cost(&registry, assigned.address) {
                text += &format!(", {}.{:02} a month", cents / 100, cents % 100);
            }
            text.push('\n');
        }
    }
    let hookscript = config.as_ref().and_then(|config| config.hookscript.clone());
    let registered = hookscript.as_deref().is_some_and(hookscript::is_ours);
    text += &match (&guest.hookscript, registered) {
        (Some(own), true) => format!("hookscript: registered; calls {own}\n"),
        (None, true) => "hookscript: registered\n".to_owned(),
        (_, false) => {
            let tool = config.as_ref().map_or("qm", |config| config.kind.tool());
            format!("hookscript: not registered; `{tool} set {vmid} --hookscript {}`\n", hookscript::VOLUME)
        }
    };
    let mut data = serde_json::to_value(&guest)?;
    if let Value::Object(map) = &mut data {
        map.insert("node".to_owned(), place.node.into());
        map.insert("state".to_owned(), place.state.into());
        map.insert("hookscript_registered".to_owned(), registered.into());
    }
    Ok(Output::new(text, data))
}
