//! `list`: who holds what, and what is free.

use std::sync::LazyLock;

use clap::builder::PossibleValue;
use serde_json::json;

use super::List;
use super::answers::{Assignment, Assignments, Range, Ranges, Unheld};
use super::assignments::{cost, how_held};
use super::output::{Output, OutputFormat, Rows};
use super::partial::{looked, readable, shown, shown_of};
use crate::model::{NodeName, PoolName};
use crate::ops::own_addresses;
use crate::plan::{GuestState, NetState};
use crate::reconcile::{Look, Node};
use crate::registry::document::PoolIndex;
use crate::registry::{Inventory, Registry, Run, State};
use crate::store::journal::now;

/// State of an assigned or of a free address, as `list` shows it and `--state` selects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListedState {
    /// A guest holds it.
    Held(GuestState),
    /// Nobody holds it.
    Unheld(Unheld),
}

impl ListedState {
    const FREE: Self = Self::Unheld(Unheld::Free);
    const COOLING: Self = Self::Unheld(Unheld::Cooling);
}

impl clap::ValueEnum for ListedState {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: LazyLock<Vec<ListedState>> = LazyLock::new(|| {
            let held = GuestState::ALL.iter().copied().map(ListedState::Held);
            held.chain([ListedState::FREE, ListedState::COOLING]).collect()
        });
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (word, meaning) = match self {
            Self::Held(state) => (state.as_str(), state.meaning()),
            Self::Unheld(Unheld::Free) => ("free", "Nobody holds the address, and next-free allocation can choose it"),
            Self::Unheld(Unheld::Cooling) => {
                ("cooling", "Nobody holds the address, and next-free allocation leaves it out until its cool-down ends")
            }
        };
        Some(PossibleValue::new(word).help(meaning))
    }
}

/// Columns of assignments.
const HEADERS: [&str; 7] = ["vmid", "net", "address", "mac", "pool", "node", "state"];

pub(super) fn list(node: &Node, command: &List, format: OutputFormat) -> anyhow::Result<Output> {
    let wanted = if command.free { Some(ListedState::FREE) } else { command.state };
    if let Some(ListedState::Unheld(state)) = wanted {
        let registry = readable(node)?;
        if let Some(pool) = &command.pool {
            registry.pool(pool)?;
        }
        return Ok(list_unassigned(&registry, command.pool.as_ref(), state));
    }
    let mut look = looked(node, |registry| registry.assignments().next().is_some())?;
    // Only the differences are asked for, and a table of a hundred thousand rows needs the room.
    if let Some(Ok(report)) = &mut look.compared {
        report.desired = NetState::default();
    }
    if let Some(pool) = &command.pool {
        look.registry().pool(pool)?;
    }
    let wanted = if let Some(ListedState::Held(state)) = wanted { Some(state) } else { None };
    Ok(list_assigned(&look, command, wanted, format))
}

fn list_assigned(look: &Look, command: &List, wanted: Option<GuestState>, format: OutputFormat) -> Output {
    let (registry, states) = (look.registry(), look.states());
    let index = PoolIndex::new(&registry.pools);
    // Of a hundred thousand addresses only what is asked for is made.
    let is_text = format == OutputFormat::Text;
    let mut rows = Rows::new(HEADERS.len());
    let mut data = Vec::new();
    for (vmid, guest) in registry.guests.iter().filter(|(_, guest)| !guest.is_empty()) {
        let place = look.sources.inputs().guests.get(vmid).map(|located| &located.node);
        if command.node.is_some() && place != command.node.as_ref() {
            continue;
        }
        let number = vmid.to_string();
        for (nic, interface) in &guest.interfaces {
            let (name, mac) = (nic.to_string(), interface.mac.to_string());
            let state = states.of_nic(*vmid, *nic, interface.mac);
            if wanted.is_some_and(|wanted| wanted != state) {
                continue;
            }
            let shown = state.to_string();
            for assigned in &interface.addresses {
                let is_other_pool = command.pool.as_ref().is_some_and(|pool| *pool != assigned.pool);
                let is_other_customer = command.organization.is_some() && command.organization != assigned.organization;
                if is_other_pool || is_other_customer {
                    continue;
                }
                if is_text {
                    rows.text(&number);
                    rows.text(&name);
                    match (assigned.via, &assigned.shared) {
                        (None, None) => rows.cell(assigned.address),
                        (via, group) => rows.cell(format!("{}{}", assigned.address, how_held(via, group.as_ref()))),
                    }
                    rows.text(&mac);
                    rows.text(assigned.pool.as_str());
                    rows.text(place.map_or("", NodeName::as_str));
                    rows.text(&shown);
                    continue;
                }
                data.push(Assignment {
                    vmid: *vmid,
                    interface: *nic,
                    address: assigned.address,
                    mac: interface.mac,
                    pool: assigned.pool.clone(),
                    gateway: assigned.gateway,
                    via: assigned.via,
                    shared: assigned.shared.clone(),
                    organization: assigned.organization.clone(),
                    assigned_at: assigned.assigned_at,
                    monthly_cost_cents: cost(&index, assigned.address),
                    node: place.cloned(),
                    state,
                });
            }
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
    shown_of(look, Output::new(text, json!(Assignments { assignments: data })))
}

/// Addresses of pools that nobody holds, as runs: a /64 is one row.
fn list_unassigned(registry: &Registry, only: Option<&PoolName>, state: Unheld) -> Output {
    let inventory = Inventory::of(registry, &own_addresses(), now());
    let is_wanted = |found: &State<'_>| match state {
        Unheld::Cooling => matches!(found, State::Cooling(..)),
        Unheld::Free => *found == State::Free,
    };
    let headers = match state {
        Unheld::Cooling => ["pool", "address", "count", "mac", "gateway", "free again"],
        Unheld::Free => ["pool", "address", "count", "mac", "gateway", ""],
    };
    let columns = if state == Unheld::Cooling { headers.len() } else { headers.len() - 1 };
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
            let mut entry = Range {
                pool: name.clone(),
                first: run.span.first,
                last: run.span.last,
                count: run.span.count(),
                mac: run.mac,
                gateway: run.gateway,
                state,
                free_at: None,
                released: None,
                vmid: None,
            };
            if let State::Cooling(_, released, free_at) = &run.span.state {
                rows.cell(free_at.to_second());
                entry.free_at = Some(*free_at);
                entry.released = Some(released.at);
                entry.vmid = Some(released.vmid);
            }
            data.push(entry);
        }
    }
    let of_pool = only.map(|name| format!(" in pool {name}")).unwrap_or_default();
    let text = match (rows.is_empty(), state) {
        (false, _) => rows.table(&headers[..columns]),
        (true, _) if registry.lost_pools.is_some() => "the pools cannot be read".to_owned(),
        (true, Unheld::Cooling) => format!("no address cools down{of_pool}"),
        (true, _) => {
            let add = only.map_or("NAME", PoolName::as_str);
            format!("no free address{of_pool}; `pve-public-ip pool add {add} PREFIX` adds some")
        }
    };
    shown(registry, Output::new(text, json!(Ranges { ranges: data })))
}

/// `203.0.113.10`, or `203.0.113.10 to 203.0.113.14`.
pub(super) fn range(run: &Run<'_>) -> String {
    match &run.span {
        span if span.first == span.last => span.first.to_string(),
        span => format!("{} to {}", span.first, span.last),
    }
}
