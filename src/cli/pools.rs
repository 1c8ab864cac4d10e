//! `pool ...`

use std::net::IpAddr;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::answers::{Cooling, Free, PoolEntry, PoolHolder, PoolShown};
use super::output::{Output, table, told};
use super::partial::{readable, shown};
use super::pool_entries::{NAMED, added, differences, rerouted_lines, watched_lines};
use super::pool_import;
use super::pool_list;
use super::{PoolAdd, PoolCommand, PoolCreate, PoolSet, ProfileOrFile};
use crate::host::files;
use crate::model::{Family, PoolName, Prefix};
use crate::ops::{
    self, AbsentEntry, EntryAdded, PoolCreated, PoolProperties, PoolRemoved, PoolSettings, left_elsewhere, money,
    own_addresses,
};
use crate::plan::is_segment_of;
use crate::reconcile::Node;
use crate::registry::document::{self, Enforce, MAX_FILE_SIZE, Mode, Pool, Profile};
use crate::registry::layout::Layout;
use crate::registry::places::listed;
use crate::registry::{Edit, Holders, Span, State};
use crate::request;
use crate::store::journal::now;
use crate::system::routers;

pub(super) fn run(node: &Node, command: PoolCommand, dry_run: bool) -> anyhow::Result<Output> {
    match command {
        PoolCommand::Create(command) => create(node, command, dry_run),
        PoolCommand::Add(command) => add(node, &command, dry_run),
        PoolCommand::Import { name, file, .. } => pool_import::import(node, &name, &file, dry_run),
        PoolCommand::Export { name } => pool_import::export(node, &name),
        PoolCommand::Set(command) => set(node, command, dry_run),
        PoolCommand::List => pool_list::list(node),
        PoolCommand::Show { name } => show(node, &name),
        PoolCommand::Remove { name, addresses, .. } => remove(node, name, addresses, dry_run),
    }
}

fn create(node: &Node, command: PoolCreate, dry_run: bool) -> anyhow::Result<Output> {
    let name = command.name;
    let (profile, layout) = read_profile(&name, command.profile)?;
    let request = request::CreatePool {
        pool: name,
        profile,
        layout,
        bridge: command.bridge,
        gateway4: command.gateway4,
        gateway6: command.gateway6,
        gateway_mac: command.gateway_mac,
        guest_routers: command.guest_routers,
        uplink_guard: command.uplink_guard,
        allowed_macs: command.allow_mac.into_iter().collect(),
        probe: command.probe,
        cool_down: command.cool_down,
        enforce: command.enforce,
        nodes: command.nodes.into_iter().collect(),
        elsewhere: command.elsewhere,
        yes: command.yes,
        addresses: command.addresses,
    };
    let done = ops::create_pool(node, request, dry_run)?;
    let PoolCreated { pool, profile, bridge, entries, assumptions, withheld, outlook, problems, losses, .. } =
        &done.answer;
    let verb = if dry_run { "would be created" } else { "created" };
    let entries = if *entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") };
    let mut lines = vec![format!("pool {pool} {verb}: {profile}, bridge {bridge}, {entries}")];
    lines.extend(assumptions.iter().chain(withheld).chain(outlook).cloned());
    lines.extend(problems.iter().map(|problem| told("problem", problem)));
    lines.extend(watched_lines(pool, done.answer.enforce, losses));
    Ok(Output::of(&done, &lines, &[]))
}

/// The profile of a pool that is to be made, and the layout if it is in a file.
pub(super) fn read_profile(name: &PoolName, profile: ProfileOrFile) -> anyhow::Result<(Profile, Option<Layout>)> {
    match profile {
        ProfileOrFile::Profile(profile) => Ok((profile, None)),
        ProfileOrFile::File(path) => {
            let layout = read_layout(&path).with_context(|| format!("cannot create pool `{name}`"))?;
            Ok((Profile::Custom, Some(layout)))
        }
    }
}

/// A file of the caller's, wherever it is.
fn read_layout(path: &Path) -> anyhow::Result<Layout> {
    let bytes = files::read_limited(path, MAX_FILE_SIZE)
        .with_context(|| format!("cannot read the profile `{}`", path.display()))?;
    Ok(document::parse(path, &bytes)?)
}

fn add(node: &Node, command: &PoolAdd, dry_run: bool) -> anyhow::Result<Output> {
    let PoolAdd { name, addresses, mac, gateway, monthly_cost_cents, yes, .. } = command;
    let entry = |address: &Prefix| request::Entry {
        address: *address,
        mac: edit(*mac, command.no_mac),
        gateway: edit(*gateway, command.no_gateway),
        monthly_cost_cents: edit(*monthly_cost_cents, command.no_monthly_cost),
    };
    let listed = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let trying = format!("cannot add {listed} to pool `{name}`");
    let request =
        request::AddAddresses { pool: name.clone(), entries: addresses.iter().map(entry).collect(), yes: *yes };
    let done = ops::add_addresses(node, &request, &trying, dry_run)?;
    let line = |entry: &EntryAdded| {
        let EntryAdded { address, added, .. } = entry;
        match entry.differences.as_slice() {
            _ if *added && dry_run => format!("{address} would be added to pool {name}"),
            _ if *added => format!("{address} added to pool {name}"),
            [] => format!("{address} of pool {name} is unchanged"),
            some => {
                let verb = if dry_run { "would be changed" } else { "changed" };
                format!("{address} of pool {name} {verb}: {}", differences(some))
            }
        }
    };
    let lines = done.answer.entries.iter().map(line).collect();
    Ok(added(&done, lines))
}

/// What an option and its `--no-` form ask for.
fn edit<T>(value: Option<T>, erase: bool) -> Edit<T> {
    if erase { Edit::Erase } else { value.map_or(Edit::Keep, Edit::Set) }
}

fn set(node: &Node, command: PoolSet, dry_run: bool) -> anyhow::Result<Output> {
    let leads = leads(&command);
    let request = request::SetPool {
        gateway4: edit(command.gateway4, command.no_gateway4),
        gateway6: edit(command.gateway6, command.no_gateway6),
        gateway_mac: edit(command.gateway_mac, command.no_gateway_mac),
        pool: command.name,
        bridge: command.bridge,
        guest_routers: command.guest_routers,
        uplink_guard: command.uplink_guard,
        allow_macs: command.allow_mac.into_iter().collect(),
        forbid_macs: command.forbid_mac.into_iter().collect(),
        probe: command.probe,
        cool_down: command.cool_down,
        enforce: command.enforce,
        nodes: edit((!command.nodes.is_empty()).then(|| command.nodes.into_iter().collect()), command.all_nodes),
        elsewhere: command.elsewhere,
        allow_present: command.allow_present,
        yes: command.yes,
    };
    let done = ops::set_pool(node, &request, dry_run)?;
    let PoolSettings { pool, changed, properties: now, problems, rerouted, retold, losses } = &done.answer;
    let verb = match (changed, dry_run) {
        (false, _) => "is unchanged",
        (true, true) => "would be changed",
        (true, false) => "changed",
    };
    let mut lines = vec![format!("pool {pool} {verb}: {}{leads}", properties(now))];
    let named = problems.iter().take(NAMED);
    lines.extend(named.map(|problem| told("problem", problem)));
    if problems.len() > NAMED {
        lines.push(format!("and {} more guests", problems.len() - NAMED));
    }
    lines.extend(rerouted_lines(rerouted, retold));
    lines.extend(watched_lines(pool, now.enforce, losses));
    Ok(Output::of(&done, &lines, &[]))
}

/// What was asked for of bridge and gateways, which [`properties`] leaves out.
fn leads(command: &PoolSet) -> String {
    let gateway = |address: Option<IpAddr>, erase: bool, family: Family| match address {
        Some(address) => Some(format!(", {family} gateway {address}")),
        None => erase.then(|| format!(", no {family} gateway")),
    };
    let bridge = command.bridge.map(|bridge| format!(", bridge {bridge}"));
    let gateway4 = gateway(command.gateway4.map(IpAddr::V4), command.no_gateway4, Family::V4);
    let gateway6 = gateway(command.gateway6.map(IpAddr::V6), command.no_gateway6, Family::V6);
    [bridge, gateway4, gateway6].into_iter().flatten().collect()
}

/// What holds for all addresses of a pool, apart from profile, bridge and gateways.
fn properties(pool: &PoolProperties) -> String {
    let mut words = vec![format!("uplink guard {}", pool.uplink_guard.as_str())];
    words.extend((pool.enforce != Enforce::On).then(|| format!("enforce {}", pool.enforce.as_str())));
    words.push(format!("probe {}, cool-down {}", pool.probe.as_str(), pool.cool_down));
    let macs: Vec<String> = pool.allowed_macs.iter().map(ToString::to_string).collect();
    words.extend((!macs.is_empty()).then(|| format!("MACs allowed besides: {}", macs.join(" "))));
    words.extend(pool.gateway_mac.map(|mac| format!("gateway's MAC {mac}")));
    let nodes = || format!("nodes {} (elsewhere: {})", listed(&pool.nodes), pool.elsewhere.as_str());
    words.extend((!pool.nodes.is_empty()).then(nodes));
    words.extend(pool.guest_routers.then(|| "guest routers".to_owned()));
    words.join(", ")
}

fn remove(node: &Node, name: PoolName, addresses: Vec<Prefix>, dry_run: bool) -> anyhow::Result<Output> {
    let done = ops::remove_from_pool(node, &request::RemoveFromPool { pool: name, addresses }, dry_run)?;
    let PoolRemoved { pool, removed, absent, existed, .. } = &done.answer;
    let verb = if dry_run { "would be removed" } else { "removed" };
    let mut lines = Vec::new();
    if !removed.is_empty() {
        let removed: Vec<String> = removed.iter().map(ToString::to_string).collect();
        lines.push(format!("{} of pool {pool} {verb}", removed.join(", ")));
    } else if absent.is_empty() && *existed {
        lines.push(format!("pool {pool} {verb}"));
    }
    lines.extend(absent.iter().map(|AbsentEntry { address, pool: other }| {
        let other = other.as_ref().map(|other| format!("; pool {other} has it, and keeps it")).unwrap_or_default();
        format!("{address} is not in pool {pool}{other}")
    }));
    if !existed {
        lines.push(format!("there is no pool {pool}\n  hint: `pve-public-ip pool list` shows the pools"));
    }
    Ok(Output::of(&done, &lines, &[]))
}

fn show(node: &Node, name: &PoolName) -> anyhow::Result<Output> {
    let registry = readable(node)?;
    let pool: &Pool = registry.pool(name)?;
    let holders = Holders::of(&registry);
    let mut rows = Vec::new();
    let mut data = Vec::new();
    for (entry, spans) in registry.spans(pool, &own_addresses(), now()) {
        let optional = |text: Option<String>| text.unwrap_or_default();
        let mut columns = vec![
            entry.address.to_string(),
            optional(entry.mac.map(|mac| mac.to_string())),
            optional(pool.gateway_of(entry).map(|gateway| gateway.to_string())),
            optional(entry.monthly_cost_cents.map(money)),
        ];
        if let [only] = spans.as_slice() {
            columns.push(state(&only.state));
            rows.push(columns);
        } else {
            columns.push(String::new());
            rows.push(columns);
            let row = |span: &Span<'_>| [vec![run_of(span)], vec![String::new(); 3], vec![state(&span.state)]].concat();
            rows.extend(spans.iter().map(row));
        }
        let held = holders.overlapping(entry.address);
        let held = held.map(|(vmid, nic, _, assigned)| PoolHolder { vmid, interface: nic, address: assigned.address });
        let cooling = spans.iter().filter_map(|span| match &span.state {
            State::Cooling(address, released, free_at) => {
                Some(Cooling { address: *address, vmid: released.vmid, released: released.at, free_at: *free_at })
            }
            _ => None,
        });
        let free = spans.iter().filter(|span| span.state == State::Free);
        let free = free.map(|span| Free { first: span.first, last: span.last });
        data.push(PoolEntry {
            address: entry.address,
            mac: entry.mac,
            gateway: pool.gateway_of(entry),
            monthly_cost_cents: entry.monthly_cost_cents,
            holders: held.collect(),
            cooling: cooling.collect(),
            free: free.collect(),
        });
    }
    let head = format!(
        "pool {name}: {}, bridge {}, {}\n",
        pool.profile_name(),
        pool.bridge,
        properties(&PoolProperties::from(pool))
    );
    let body = table(&["address", "mac", "gateway", "cost", "held by"], &rows);
    let misplaced = left_elsewhere(node, &registry, name);
    let mut learnt = routers::load(&node.paths);
    learnt.retain(|router| is_segment_of(router.bridge, pool.bridge) && pool.mode() == Mode::Bridged);
    let head = learnt.iter().fold(head, |head, router| format!("{head}router {router}, learnt\n"));
    let lost: Vec<String> = misplaced.iter().map(|problem| told("problem", problem) + "\n").collect();
    let (properties, name) = (PoolProperties::from(pool), name.clone());
    let answer = PoolShown { properties, name, routers: learnt, misplaced, addresses: data };
    Ok(shown(&registry, Output::new(head + &body + &lost.concat(), json!(answer))))
}

/// A run of addresses as people write it, below the entry that they are of.
fn run_of(span: &Span<'_>) -> String {
    match &span.state {
        State::Held(.., prefix) | State::Cooling(prefix, ..) => format!("- {prefix}"),
        _ if span.first == span.last => format!("- {}", span.first),
        _ => format!("- {} to {}", span.first, span.last),
    }
}

/// What becomes of it.
fn state(state: &State<'_>) -> String {
    match state {
        State::Free => "(free)".to_owned(),
        State::Held(vmid, nic, _) => format!("{vmid} {nic}"),
        State::Cooling(_, released, free_at) => {
            format!("cools down until {} (was {}'s)", free_at.to_second(), released.vmid)
        }
        State::Withheld(what) => format!("({what})"),
    }
}
