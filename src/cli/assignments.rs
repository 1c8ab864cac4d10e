//! `assign`, `release`, `list`, `show`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::json;

use super::answers::GuestShown;
use super::inside::by_hand;
use super::output::{Output, told};
use super::partial::{looked, shown_of};
use super::pool_entries::NAMED;
use super::{Assign, Release, Show};
use crate::code;
use crate::hookscript;
use crate::model::text::escaped;
use crate::model::{Family, GroupName, Prefix, Problem, Vmid};
use crate::ops::{self, Assigned, Held, Inside, Kept, Released};
use crate::plan::GuestState;
use crate::reconcile::Node;
use crate::registry::document::{GuestFile, PoolIndex};
use crate::registry::{PassedOver, RuleError};
use crate::request;

/// The request that the arguments mean.
fn assign_request(command: &Assign) -> request::Assign {
    let families = match (command.ipv4, command.ipv6) {
        (true, _) => BTreeSet::from([Family::V4]),
        (_, true) => BTreeSet::from([Family::V6]),
        _ => BTreeSet::new(),
    };
    request::Assign {
        vmid: command.vmid,
        addresses: command.addresses.clone(),
        interfaces: command.net.clone(),
        pool: command.pool.clone(),
        families,
        count: command.count,
        more: command.more,
        organization: command.organization.clone(),
        vps_id: None,
        via: command.via,
        shared: command.shared.clone(),
        set_mac: command.set_mac,
        probe: match (command.probe, command.no_probe) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        hookscript: !command.no_hookscript,
        os: command.os,
        cloud_init: command.cloud_init,
        reinit: command.reinit,
        live: command.live,
    }
}

pub(super) fn assign(node: &Node, command: &Assign, dry_run: bool) -> anyhow::Result<Output> {
    let done = ops::assign(node, &assign_request(command), dry_run)?;
    let Assigned { vmid, addresses, mac, hookscript, network, inside, problems, remarks, .. } = &done.answer;
    let is_first = |note: &&Problem| note.code == code!("nic-change-waits");
    let mut lines: Vec<String> = remarks.iter().filter(is_first).map(|note| told("note", note)).collect();
    lines.extend(problems.iter().map(|problem| told("problem", problem)));
    lines.extend(mac.iter().filter_map(|outcome| outcome.line("MAC")));
    for held in addresses {
        let gateway = held.gateway.map_or_else(String::new, |gateway| format!(", gateway {gateway}"));
        let gateway = format!("{gateway}{}", how_held(held.via, held.shared.as_ref()));
        let verb = match (dry_run, held.new) {
            (true, true) => "would be assigned to",
            (false, true) => "assigned to",
            (_, false) => "is already assigned to",
        };
        let Held { address, interface, mac, pool, .. } = held;
        let named = command.organization.as_ref().filter(|_| done.answer.changed && !held.new);
        let customer = named.map_or_else(String::new, |name| {
            format!("; its organization {} {name}", if dry_run { "would be" } else { "is now" })
        });
        lines.push(format!("{address} {verb} guest {vmid} {interface} ({mac}), pool {pool}{gateway}{customer}"));
    }
    let passed: Vec<&PassedOver> = done.answer.passed_over.iter().filter(|one| !one.is_usual).collect();
    lines.extend(passed.iter().take(NAMED).map(|PassedOver { address, why, .. }| format!("skipped: {address} {why}")));
    lines.extend((passed.len() > NAMED).then(|| format!("skipped: {} more addresses", passed.len() - NAMED)));
    lines.extend(remarks.iter().filter(|note| !is_first(note)).map(|note| told("note", note)));
    let parts: Vec<String> = hookscript.line("hookscript").into_iter().chain(network.lines()).collect();
    let mut output = Output::of(&done, &lines, &parts);
    let more = inside_text(*vmid, inside);
    if !more.is_empty() {
        output.text = format!("{}\n{more}", output.text.trim_end());
    }
    Ok(output)
}

/// How an address is held, if not by one guest for itself.
pub(super) fn how_held(via: Option<IpAddr>, shared: Option<&GroupName>) -> String {
    let via = via.map_or_else(String::new, |via| format!(", via {via}"));
    let shared = shared.map_or_else(String::new, |group| format!(", shared by group {group}"));
    via + &shared
}

/// What a running guest needs until it boots.
fn inside_text(vmid: Vmid, inside: &Inside) -> String {
    match inside {
        Inside::Nothing => String::new(),
        Inside::NothingToDo { running } => {
            let state = if *running { "needs nothing inside" } else { "is not running on this node" };
            format!("guest {vmid} {state}: nothing to do for --live")
        }
        Inside::LeftToDo { script } => {
            let script: String = script.lines().map(|line| format!("\n    {line}")).collect();
            format!(
                "guest {vmid} is running; to use the addresses now, inside it, as root (`--live` asks its agent to do it):{script}"
            )
        }
        Inside::Told(told) => told.lines().collect::<Vec<_>>().join("\n"),
    }
}

pub(super) fn release(node: &Node, command: &Release, dry_run: bool) -> anyhow::Result<Output> {
    let Release { vmid, addresses, no_hookscript, .. } = command;
    let Some(vmid) = *vmid else { return release_all(node, command, dry_run) };
    let request = request::Release { vmid, addresses: addresses.clone(), hookscript: !no_hookscript };
    let done = ops::release(node, &request, dry_run)?;
    Ok(Output::of(&done, &released_lines(&done.answer, dry_run), &released_parts(&done.answer)))
}

/// What became of the addresses.
fn released_lines(answer: &Released, dry_run: bool) -> Vec<String> {
    let Released { vmid, released, not_held, exists, running, .. } = answer;
    let verb = if dry_run { "would be released" } else { "released" };
    let mut lines: Vec<String> = released.iter().map(|address| format!("{address} {verb} from guest {vmid}")).collect();
    for Kept { address, holder } in not_held {
        let holder = holder.map(|holder| format!("; guest {holder} holds it, and keeps it")).unwrap_or_default();
        lines.push(format!("{address} is not assigned to guest {vmid}{holder}"));
    }
    if released.is_empty() && not_held.is_empty() {
        lines.push(format!("guest {vmid} has no public address any more"));
        if !exists {
            lines.push(format!("note: there is no guest {vmid}\n  hint: `pve-public-ip list` shows who holds what"));
        }
    }
    if *running && !released.is_empty() {
        let effect = if dry_run { "would be" } else { "is" };
        lines.push(format!(
            "guest {vmid} is running: it cannot use the address any more, its binding {effect} removed now"
        ));
    }
    lines
}

/// What became of the guest's configuration.
fn released_parts(answer: &Released) -> Vec<String> {
    let macs = answer.mac.iter().filter_map(|outcome| outcome.line("MAC"));
    macs.chain(answer.hookscript.line("hookscript")).chain(answer.network.lines()).collect()
}

fn release_all(node: &Node, command: &Release, dry_run: bool) -> anyhow::Result<Output> {
    let shown = dry_run || !command.yes;
    let done = ops::release_all(node, command.pool.as_ref(), shown)?;
    let answer = &done.answer;
    let mut lines = Vec::new();
    for released in &answer.guests {
        lines.extend(released_lines(released, shown));
        lines.extend(released_parts(released));
    }
    if answer.guests.is_empty() && answer.refused.is_empty() {
        lines.push(match &command.pool {
            Some(pool) => format!("no guest holds an address of pool {pool}: nothing to do"),
            None => "no guest holds an address: nothing to do".to_owned(),
        });
    } else if shown && !dry_run {
        let only = command.pool.as_ref().map(|pool| format!(" --pool {pool}")).unwrap_or_default();
        lines.push(format!("nothing is changed yet: `pve-public-ip release --all{only} --yes` releases them"));
    }
    let mut text = lines.join("\n");
    for problem in &answer.refused {
        text += &format!("\n{}", told("problem", problem));
    }
    let data = serde_json::to_value(&done)?;
    let code = u8::from(!answer.refused.is_empty());
    Ok(Output::new(text.trim_start(), data).with_code(code))
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
    let look = looked(node, |_| true)?;
    let registry = look.registry();
    let state = look.states().of_guest(vmid).unwrap_or(GuestState::Unknown);
    let located = look.sources.inputs().guests.get(&vmid);
    let config = located.map(|located| &located.config);
    let mut text = format!("guest {vmid}");
    text.extend(config.and_then(|config| config.name.as_ref()).map(|name| format!(" ({})", escaped(name))));
    text.extend(located.map(|located| format!(" on node {}", located.node)));
    text += &format!(": {state}\n");
    let index = PoolIndex::new(&registry.pools);
    for (nic, interface) in &guest.interfaces {
        let port = config.map_or_else(String::new, |config| format!(", port {}", config.kind.port(vmid, *nic)));
        text += &format!("{nic}: {}{port}\n", interface.mac);
        for assigned in &interface.addresses {
            let gateway = assigned.gateway.map_or_else(|| "none".to_owned(), |gateway| gateway.to_string());
            text += &format!(
                "  {}  pool {}, gateway {gateway}, since {}",
                assigned.address, assigned.pool, assigned.assigned_at
            );
            text += &how_held(assigned.via, assigned.shared.as_ref());
            if let Some(organization) = &assigned.organization {
                text += &format!(", organization {}", escaped(organization));
            }
            if let Some(cents) = cost(&index, assigned.address) {
                text += &format!(", {}.{:02} a month", cents / 100, cents % 100);
            }
            text.push('\n');
        }
    }
    let hookscript = config.and_then(|config| config.hookscript.clone());
    let registered = hookscript.as_deref().is_some_and(hookscript::is_ours);
    text += &match (&guest.hookscript, registered) {
        (Some(own), true) => format!("hookscript: registered; calls {}\n", escaped(own)),
        (None, true) => "hookscript: registered\n".to_owned(),
        (_, false) => {
            let tool = config.map_or("qm", |config| config.kind.tool());
            format!("hookscript: not registered; `{tool} set {vmid} --hookscript {}`\n", hookscript::VOLUME)
        }
    };
    let by_hand = config.and_then(|config| by_hand(node, &guest, &registry.pools, config, command.inside));
    let (inside, ways) = by_hand.unwrap_or_default();
    text += &inside;
    let node = located.map(|located| located.node.clone());
    let data = GuestShown { guest, inside: ways, node, state, hookscript_registered: registered };
    Ok(shown_of(&look, Output::new(text, json!(data))))
}
