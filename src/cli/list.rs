//! `list`: who holds what, and what is free.

use serde_json::json;

use super::List;
use super::assignments::cost;
use super::output::{Output, OutputFormat, Rows};
use super::pools::{readable, shown};
use crate::links::Links;
use crate::model::{GuestKind, NodeName, PoolName, Vmid};
use crate::ops::{observe_links, own_addresses};
use crate::plan::Presence;
use crate::reconcile::{Node, presence_of};
use crate::registry::document::PoolIndex;
use crate::registry::{Inventory, Registry, Run, State};
use crate::store::journal::now;
use crate::system::run::RunState;

/// State of an assigned or of a free address, as `list` shows it and `--state` selects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ListedState {
    /// The guest runs on this node and its port is bound
    Bound,
    /// The guest is being started on this node
    Starting,
    /// The guest arrives on this node by live migration
    Incoming,
    /// The guest is on this node and stopped
    Reserved,
    /// The guest is on another node
    Elsewhere,
    /// There is no such guest
    Missing,
    /// Nobody holds the address, and next-free allocation can choose it
    Free,
    /// Nobody holds the address, and next-free allocation leaves it out until its cool-down ends
    Cooling,
}

impl ListedState {
    /// As it is shown.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Starting => "starting",
            Self::Incoming => "incoming",
            Self::Reserved => "reserved",
            Self::Elsewhere => "elsewhere",
            Self::Missing => "no such guest",
            Self::Free => "free",
            Self::Cooling => "cooling",
        }
    }
}

/// The node and the state of a guest.
pub(super) struct Whereabouts {
    pub(super) node: String,
    pub(super) state: &'static str,
}

/// `found` is where its configuration lies and what kind of guest it is.
pub(super) fn whereabouts(
    node: &Node,
    vmid: Vmid,
    found: Option<(&NodeName, GuestKind)>,
    links: &Links,
    run: &RunState,
) -> Whereabouts {
    let Some((place, kind)) = found else {
        return Whereabouts { node: String::new(), state: ListedState::Missing.as_str() };
    };
    let here = *place == node.name;
    let mark = run.mark(vmid);
    let state = match presence_of(vmid, kind, here, mark.as_ref(), links) {
        Some(Presence::Running) => ListedState::Bound,
        Some(Presence::Starting) => ListedState::Starting,
        Some(Presence::Incoming) => ListedState::Incoming,
        None if here => ListedState::Reserved,
        None => ListedState::Elsewhere,
    };
    Whereabouts { node: place.to_string(), state: state.as_str() }
}

/// Columns of assignments.
const HEADERS: [&str; 7] = ["vmid", "net", "address", "mac", "pool", "node", "state"];

pub(super) fn list(node: &Node, command: &List, format: OutputFormat) -> anyhow::Result<Output> {
    let registry = readable(node)?;
    if let Some(pool) = &command.pool {
        registry.pool(pool)?;
    }
    let wanted = if command.free { Some(ListedState::Free) } else { command.state };
    match wanted {
        Some(state @ (ListedState::Free | ListedState::Cooling)) => {
            Ok(list_unassigned(&registry, command.pool.as_ref(), state))
        }
        wanted => Ok(list_assigned(node, &registry, command, wanted, format)),
    }
}

fn list_assigned(
    node: &Node,
    registry: &Registry,
    command: &List,
    wanted: Option<ListedState>,
    format: OutputFormat,
) -> Output {
    let interfaces = observe_links().unwrap_or_default();
    let run = RunState::unlocked(&node.paths);
    let index = PoolIndex::new(&registry.pools);
    let (places, _) = node.guests.places();
    // Of a hundred thousand addresses only what is asked for is made.
    let is_text = format == OutputFormat::Text;
    let mut rows = Rows::new(HEADERS.len());
    let mut data = Vec::new();
    for (vmid, guest) in &registry.guests {
        if guest.is_empty() {
            continue;
        }
        let found = places.get(vmid).map(|(node, kind)| (node, *kind));
        if command.node.is_some() && found.map(|(node, _)| node) != command.node.as_ref() {
            continue;
        }
        let place = whereabouts(node, *vmid, found, &interfaces, &run);
        if wanted.is_some_and(|wanted| wanted.as_str() != place.state) {
            continue;
        }
        for (nic, interface, assigned) in guest.addresses() {
            let is_other_pool = command.pool.as_ref().is_some_and(|pool| *pool != assigned.pool);
            let is_other_customer = command.organization.is_some() && command.organization != assigned.organization;
            if is_other_pool || is_other_customer {
                continue;
            }
            if is_text {
                rows.cell(vmid);
                rows.cell(nic);
                rows.cell(assigned.address.to_string());
                rows.cell(interface.mac);
                rows.cell(&assigned.pool);
                rows.cell(&place.node);
                rows.cell(place.state);
                continue;
            }
            data.push(json!({
                "vmid": vmid, "interface": nic, "address": assigned.address, "mac": interface.mac, "pool": assigned.pool,
                "gateway": assigned.gateway, "organization": assigned.organization, "assigned_at": assigned.assigned_at,
                "monthly_cost_cents": cost(&index, assigned.address), "node": place.node, "state": place.state,
            }));
        }
    }
    let is_filtered =
        wanted.is_some() || command.pool.is_some() || command.organization.is_some() || command.node.is_some();
    let text = if !rows.is_empty() {
        rows.table(&HEADERS)
    } else if !registry.broken.is_empty() {
        "no assignment can be read".to_owned()
    } else if is_filtered && registry.assignments().next().is_some() {
        "no assignment matches; `pve-public-ip list` shows all of them".to_owned()
    } else {
        "no assignments; `pve-public-ip assign VMID ADDRESS` makes one".to_owned()
    };
    shown(registry, Output::new(text, json!({ "assignments": data })))
}

/// Addresses of pools that nobody holds, as runs: a /64 is one row.
fn list_unassigned(registry: &Registry, only: Option<&PoolName>, state: ListedState) -> Output {
    let inventory = Inventory::of(registry, &own_addresses(), now());
    let is_wanted = |found: &State<'_>| match state {
        ListedState::Cooling => matches!(found, State::Cooling(..)),
        _ => *found == State::Free,
    };
    let headers = match state {
        ListedState::Cooling => ["pool", "address", "count", "mac", "gateway", "free again"],
        _ => ["pool", "address", "count", "mac", "gateway", ""],
    };
    let columns = if state == ListedState::Cooling { headers.len() } else { headers.len() - 1 };
    let mut rows = Rows::new(columns);
    let mut data = Vec::new();
    let pools = registry.pools.pools.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
    for (name, pool) in pools {
        for run in inventory.runs(pool, is_wanted) {
            rows.cell(name);
            rows.cell(range(&run));
            rows.cell(run.span.count());
            rows.cell(run.mac.map(|mac| mac.to_string()).unwrap_or_default());
            rows.cell(run.gateway.map(|gateway| gateway.to_string()).unwrap_or_default());
            let mut entry = json!({
                "pool": name, "first": run.span.first, "last": run.span.last, "count": run.span.count(),
                "mac": run.mac, "gateway": run.gateway, "state": state.as_str(),
            });
            if let State::Cooling(_, released, free_at) = &run.span.state {
                rows.cell(free_at.to_second());
                entry["free_at"] = json!(free_at);
                entry["released"] = json!(released.at);
                entry["vmid"] = json!(released.vmid);
            }
            data.push(entry);
        }
    }
    let of_pool = only.map(|name| format!(" in pool {name}")).unwrap_or_default();
    let text = match (rows.is_empty(), state) {
        (false, _) => rows.table(&headers[..columns]),
        (true, _) if registry.lost_pools.is_some() => "the pools cannot be read".to_owned(),
        (true, ListedState::Cooling) => format!("no address cools down{of_pool}"),
        (true, _) => {
            let add = only.map_or("NAME", PoolName::as_str);
            format!("no free address{of_pool}; `pve-public-ip pool add {add} PREFIX` adds some")
        }
    };
    shown(registry, Output::new(text, json!({ "ranges": data })))
}

/// `203.0.113.10`, or `203.0.113.10 to 203.0.113.14`.
pub(super) fn range(run: &Run<'_>) -> String {
    match &run.span {
        span if span.first == span.last => span.first.to_string(),
        span => format!("{} to {}", span.first, span.last),
    }
}
