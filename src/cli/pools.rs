//! `pool ...`

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use anyhow::Context as _;
use ipnet::IpNet;
use serde_json::json;

use super::assignments::{own_addresses, retold};
use super::bridges;
use super::node::settle_pool;
use super::output::{Output, UNREADABLE, advised, table};
use super::pool_import;
use super::pool_list;
use super::{PoolAdd, PoolCommand, PoolCreate, PoolSet, ProfileOrFile, advice};
use crate::host::files;
use crate::model::{IfName, PoolName, Prefix};
use crate::plan::{Inputs, Problem, Surroundings, assume_bridge, assume_gateways, is_segment_of, outlook, unfit};
use crate::reconcile::Node;
use crate::registry::document::{self, MAX_FILE_SIZE, Mode, Pool, PoolAddress, Profile};
use crate::registry::entries::Changed;
use crate::registry::layout::Layout;
use crate::registry::{Edit, EntryChange, Holders, Registry, Rerouted, RuleError, Span, State, plain, room};
use crate::store::StoreError;
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
        PoolCommand::Remove { name, addresses, .. } => remove(node, &name, &addresses, dry_run),
    }
}

/// Changes the registry, or only tries to.
pub(super) fn change<T>(
    node: &Node,
    dry_run: bool,
    change: impl FnOnce(&mut Registry) -> Result<T, RuleError>,
) -> Result<T, StoreError> {
    // What does not fit into every node's filter is refused before anything is written.
    let checked = |registry: &mut Registry| -> Result<T, RuleError> {
        let before = registry.clone();
        let outcome = change(registry)?;
        room::check(&before, registry)?;
        node.store.admits(&before, registry)?;
        Ok(outcome)
    };
    if dry_run {
        let mut registry = node.store.load()?.registry;
        return Ok(checked(&mut registry)?);
    }
    node.store.change(|registry| checked(registry).map_err(StoreError::from))
}

fn create(node: &Node, command: PoolCreate, dry_run: bool) -> anyhow::Result<Output> {
    let PoolCreate { name, gateway4, gateway6, gateway_mac, guest_routers, .. } = command;
    let count = command.addresses.len();
    let surroundings = bridges::surroundings(node)?;
    let entries: Vec<PoolAddress> = command.addresses.into_iter().map(PoolAddress::new).collect();
    let (profile, layout) = match command.profile {
        ProfileOrFile::Profile(profile) => (profile, None),
        ProfileOrFile::File(path) => {
            let layout = read_layout(&path).with_context(|| format!("cannot create pool `{name}`"))?;
            (Profile::Custom, Some(layout))
        }
    };
    let mode = layout.as_ref().map_or_else(|| profile.mode(), |layout| layout.mode);
    let mut said = Vec::new();
    let bridge = if let Some(bridge) = command.bridge {
        bridge
    } else {
        let (bridge, why) = assume_bridge(mode, &surroundings)
            .map_err(|(why, hint)| advice(format!("cannot create pool `{name}`: {why}"), hint))?;
        said.push(format!("assumed: {why}"));
        bridge
    };
    let trying = format!("cannot create pool `{name}`");
    let missing = bridges::check(node, &surroundings, bridge).with_context(|| trying.clone())?;
    refuse_unfit(&surroundings, bridge, mode, &trying)?;
    let own: Vec<IpNet> = surroundings.exits.addresses.iter().map(|(_, net)| *net).collect();
    refuse_own(&own, &entries).with_context(|| format!("cannot create pool `{name}`"))?;
    let mut pool = Pool {
        layout,
        gateway4,
        gateway6,
        gateway_mac,
        guest_routers,
        uplink_guard: command.uplink_guard,
        allowed_macs: command.allow_mac.into_iter().collect(),
        probe: command.probe,
        cool_down: command.cool_down,
        ..Pool::new(profile, bridge, entries)
    };
    said.extend(assume_gateways(&mut pool, &surroundings, |family| format!("name it with --gateway{family}")));
    let profile = pool.profile_name().to_owned();
    let gateways = json!({ "gateway4": pool.gateway4, "gateway6": pool.gateway6 });
    let registry = change(node, dry_run, |registry| {
        registry.create_pool(name.clone(), pool)?;
        registry.check_gateways(&name, None)?;
        Ok(registry.clone())
    })
    .with_context(|| format!("cannot create pool `{name}`"))?;
    let verb = if dry_run { "would be created" } else { "created" };
    let entries = if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") };
    let mut text = format!("pool {name} {verb}: {profile}, bridge {bridge}, {entries}");
    for line in &said {
        text += &format!("\n{line}");
    }
    text.extend(withheld(&registry, &name, &own).iter().map(|line| format!("\n{line}")));
    let guests = BTreeMap::new();
    let Surroundings { links, exits, .. } = surroundings;
    let (outlook, mut problems) =
        outlook(&Inputs { links, exits, ..Inputs::new(node.name.clone(), registry.clone(), guests) }, &name);
    problems.extend(missing);
    text.extend(outlook.iter().map(|line| format!("\n{line}")));
    for Problem { sentence, hint, .. } in &problems {
        text += &format!("\n{}", advised("problem", sentence, hint).trim_end());
    }
    let data = json!({
        "pool": name, "entries": count, "bridge": bridge, "gateways": gateways, "assumptions": said,
        "outlook": outlook, "problems": problems,
    });
    settle_pool(node, dry_run, registry, Output::new(text, data))
}

/// A bridge on which a pool cannot be.
fn refuse_unfit(surroundings: &Surroundings, bridge: IfName, mode: Mode, trying: &str) -> anyhow::Result<()> {
    match unfit(&surroundings.links, bridge).filter(|_| mode == Mode::Routed) {
        Some((why, hint)) => Err(advice(format!("{trying}: {why}"), hint)),
        None => Ok(()),
    }
}

/// What the node has itself is nobody else's.
fn refuse_own(own: &[IpNet], entries: &[PoolAddress]) -> anyhow::Result<()> {
    let is_own = |address: &IpAddr| own.iter().any(|net| net.addr() == *address);
    let taken = entries.iter().filter_map(|entry| entry.address.single()).find(is_own);
    taken.map_or(Ok(()), |address| {
        let hint = "a pool has addresses for guests: leave it out, or take it off the node";
        Err(advice(format!("{address} is an address of this node"), hint))
    })
}

/// Which addresses of a pool no guest gets, and why.
fn withheld(registry: &Registry, name: &PoolName, own: &[IpNet]) -> Option<String> {
    let pool = registry.pools.pools.get(name)?;
    let in_pool = |address: IpAddr| pool.addresses.iter().any(|entry| entry.address.net().contains(&address));
    let mut said = BTreeSet::new();
    let withheld = registry.withheld(own).into_iter();
    let named: Vec<String> = withheld
        .filter(|(address, _)| in_pool(*address) && said.insert(*address))
        .map(|(address, what)| format!("{address} ({what})"))
        .collect();
    (!named.is_empty()).then(|| format!("not handed out: {}", named.join(", ")))
}

/// A file of the caller's, wherever it is.
fn read_layout(path: &Path) -> anyhow::Result<Layout> {
    let bytes = files::read_limited(path, MAX_FILE_SIZE)
        .with_context(|| format!("cannot read the profile `{}`", path.display()))?;
    Ok(document::parse(path, &bytes)?)
}

fn add(node: &Node, command: &PoolAdd, dry_run: bool) -> anyhow::Result<Output> {
    let PoolAdd { name, addresses, mac, gateway, monthly_cost_cents, .. } = command;
    let change = EntryChange {
        mac: edit(*mac, command.no_mac),
        gateway: edit(*gateway, command.no_gateway),
        monthly_cost_cents: edit(*monthly_cost_cents, command.no_monthly_cost),
    };
    let changes: Vec<(Prefix, EntryChange)> = addresses.iter().map(|address| (*address, change)).collect();
    let listed = addresses.iter().map(|address| plain(*address)).collect::<Vec<_>>().join(", ");
    let entered = enter(node, name, &changes, &format!("cannot add {listed} to pool `{name}`"), dry_run)?;
    let mut lines = Vec::new();
    let mut entries = Vec::new();
    for (before, after) in &entered.changed {
        let address = plain(after.address);
        let differences = before.as_ref().map(|before| differences(before, after));
        lines.push(match differences.as_deref() {
            None if dry_run => format!("{address} would be added to pool {name}"),
            None => format!("{address} added to pool {name}"),
            Some([]) => format!("{address} of pool {name} is unchanged"),
            Some(some) => {
                let verb = if dry_run { "would be changed" } else { "changed" };
                format!("{address} of pool {name} {verb}: {}", some.join(", "))
            }
        });
        entries.push(json!({ "address": after.address, "changed": differences }));
    }
    let mut data = json!({ "pool": name, "entries": entries, "assumptions": entered.said });
    if let [only] = entries.as_slice() {
        data["address"] = only["address"].clone();
        data["changed"] = only["changed"].clone();
    }
    entered.output(node, name, lines, data, dry_run)
}

/// What came of entries that were added or changed.
pub(super) struct Entered {
    pub(super) changed: Vec<Changed>,
    pub(super) said: Vec<String>,
    own: Vec<IpNet>,
    rerouted: Vec<Rerouted>,
    registry: Registry,
}

/// Adds entries to a pool or changes them, all or none.
pub(super) fn enter(
    node: &Node,
    name: &PoolName,
    changes: &[(Prefix, EntryChange)],
    trying: &str,
    dry_run: bool,
) -> anyhow::Result<Entered> {
    let own = own_addresses();
    let entries: Vec<PoolAddress> = changes.iter().map(|(address, _)| PoolAddress::new(*address)).collect();
    refuse_own(&own, &entries).with_context(|| trying.to_owned())?;
    // Only what is assumed depends on it.
    let surroundings = bridges::surroundings(node).unwrap_or_default();
    let naming = |family| format!("name it: `pve-public-ip pool set {name} --gateway{family} IP`");
    let (changed, said, rerouted, registry) = change(node, dry_run, |registry| {
        let old = registry.change_pool(name, |pool| pool.clone())?;
        let changed = registry.change_entries(name, changes)?;
        let said = registry.change_pool(name, |pool| assume_gateways(pool, &surroundings, naming))?;
        registry.check_gateways(name, Some(&old))?;
        let rerouted = registry.follow_gateways(name, &old);
        Ok((changed, said, rerouted, registry.clone()))
    })
    .with_context(|| trying.to_owned())?;
    Ok(Entered { changed, said, own, rerouted, registry })
}

impl Entered {
    /// What else there is to say of it, after the node was brought in line.
    pub(super) fn output(
        self,
        node: &Node,
        name: &PoolName,
        mut lines: Vec<String>,
        data: serde_json::Value,
        dry_run: bool,
    ) -> anyhow::Result<Output> {
        let Self { said, own, rerouted, registry, .. } = self;
        lines.extend(said);
        lines.extend(withheld(&registry, name, &own));
        lines.extend(retold(node, &registry, &rerouted, dry_run));
        settle_pool(node, dry_run, registry, Output::new(lines.join("\n"), data))
    }
}

/// What an option and its `--no-` form ask for.
fn edit<T>(value: Option<T>, erase: bool) -> Edit<T> {
    if erase { Edit::Erase } else { value.map_or(Edit::Keep, Edit::Set) }
}

/// `cost 1.70 -> 2.00`.
pub(super) fn differences(before: &PoolAddress, after: &PoolAddress) -> Vec<String> {
    let facts = |entry: &PoolAddress| {
        [
            ("MAC", entry.mac.map(|mac| mac.to_string())),
            ("gateway", entry.gateway.map(|gateway| gateway.to_string())),
            ("cost", entry.monthly_cost_cents.map(money)),
        ]
    };
    let pairs = facts(before).into_iter().zip(facts(after)).filter(|((_, old), (_, new))| old != new);
    let shown = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    pairs.map(|((what, old), (_, new))| format!("{what} {} -> {}", shown(old), shown(new))).collect()
}

fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn set(node: &Node, command: PoolSet, dry_run: bool) -> anyhow::Result<Output> {
    let PoolSet { name, uplink_guard, allow_mac, forbid_mac, guest_routers, probe, cool_down, bridge, .. } = command;
    let gateway4 = edit(command.gateway4, command.no_gateway4);
    let gateway6 = edit(command.gateway6, command.no_gateway6);
    let gateway_mac = edit(command.gateway_mac, command.no_gateway_mac);
    let set = |pool: &mut Pool| {
        pool.bridge = bridge.unwrap_or(pool.bridge);
        pool.gateway4 = gateway4.of(pool.gateway4);
        pool.gateway6 = gateway6.of(pool.gateway6);
        pool.uplink_guard = uplink_guard.or(pool.uplink_guard);
        pool.allowed_macs.extend(&allow_mac);
        pool.allowed_macs.retain(|mac| !forbid_mac.contains(mac));
        pool.gateway_mac = gateway_mac.of(pool.gateway_mac);
        pool.guest_routers = guest_routers.unwrap_or(pool.guest_routers);
        pool.probe = probe.or(pool.probe);
        pool.cool_down = cool_down.or(pool.cool_down);
        pool.clone()
    };
    let trying = format!("cannot change pool `{name}`");
    let mut missing = None;
    if let Some(bridge) = bridge {
        let mode = node.store.load()?.registry.pool(&name).map(Pool::mode).with_context(|| trying.clone())?;
        let surroundings = bridges::surroundings(node)?;
        missing = bridges::check(node, &surroundings, bridge).with_context(|| trying.clone())?;
        refuse_unfit(&surroundings, bridge, mode, &trying)?;
    }
    let (pool, rerouted, registry) = change(node, dry_run, |registry| {
        let old = registry.change_pool(&name, |pool| pool.clone())?;
        let pool = registry.change_pool(&name, set)?;
        registry.check_gateways(&name, Some(&old))?;
        Ok((pool, registry.follow_gateways(&name, &old), registry.clone()))
    })
    .with_context(|| trying)?;
    let verb = if dry_run { "would be changed" } else { "changed" };
    let mut text = format!("pool {name} {verb}: {}", properties(&pool));
    text.extend(missing.map(|Problem { sentence, hint, .. }| format!("\nproblem: {sentence}\n  hint: {hint}")));
    text.extend(retold(node, &registry, &rerouted, dry_run).iter().map(|line| format!("\n{line}")));
    settle_pool(node, dry_run, registry, Output::new(text, json!({ "pool": name, "properties": pool_data(&pool) })))
}

/// What holds for all addresses of a pool, apart from profile, bridge and gateways.
fn properties(pool: &Pool) -> String {
    let mut words = vec![format!("uplink guard {}", pool.uplink_guard().as_str())];
    words.push(format!("probe {}, cool-down {}", pool.probe().as_str(), pool.cool_down()));
    let macs: Vec<String> = pool.allowed_macs.iter().map(ToString::to_string).collect();
    words.extend((!macs.is_empty()).then(|| format!("MACs allowed besides: {}", macs.join(" "))));
    words.extend(pool.gateway_mac.map(|mac| format!("gateway's MAC {mac}")));
    words.extend(pool.guest_routers.then(|| "guest routers".to_owned()));
    words.join(", ")
}

fn pool_data(pool: &Pool) -> serde_json::Value {
    json!({
        "profile": pool.profile, "mode": pool.mode(), "bridge": pool.bridge,
        "gateway4": pool.gateway4, "gateway6": pool.gateway6, "gateway_mac": pool.gateway_mac,
        "proxy": pool.proxy(), "guest_routers": pool.guest_routers, "uplink_guard": pool.uplink_guard(),
        "allowed_macs": pool.allowed_macs, "probe": pool.probe(), "cool_down": pool.cool_down(),
    })
}

fn remove(node: &Node, name: &PoolName, addresses: &[Prefix], dry_run: bool) -> anyhow::Result<Output> {
    let registry = change(node, dry_run, |registry| {
        registry.remove_from_pool(name, addresses)?;
        Ok(registry.clone())
    })
    .with_context(|| format!("cannot remove from pool `{name}`"))?;
    let what = match addresses {
        [] => format!("pool {name}"),
        some => format!("{} of pool {name}", some.iter().map(|address| plain(*address)).collect::<Vec<_>>().join(", ")),
    };
    let verb = if dry_run { "would be removed" } else { "removed" };
    let output = Output::new(format!("{what} {verb}"), json!({ "pool": name, "removed": addresses }));
    settle_pool(node, dry_run, registry, output)
}

/// The registry for looking at: files that cannot be used are said on stderr, what was known of them last is shown.
pub(super) fn readable(node: &Node) -> Result<Registry, StoreError> {
    let registry = node.store.load_known()?.0.registry;
    for error in &registry.broken {
        let is_known = registry.recalled.contains(&error.path);
        let shown = if is_known { "shown is its last known good copy" } else { "what it says is missing here" };
        log::warn!("{error}; {shown}");
        log::warn!("hint: {}", error.hint);
    }
    Ok(registry)
}

/// What is only a part, or of the past, is no success.
pub(super) fn shown(registry: &Registry, output: Output) -> Output {
    if registry.broken.is_empty() { output } else { Output { code: UNREADABLE, ..output } }
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
            plain(entry.address),
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
        let held =
            held.map(|(vmid, nic, _, assigned)| json!({ "vmid": vmid, "interface": nic, "address": assigned.address }));
        let cooling = spans.iter().filter_map(|span| match &span.state {
            State::Cooling(address, released, free_at) => {
                Some(json!({ "address": address, "vmid": released.vmid, "released": released.at, "free_at": free_at }))
            }
            _ => None,
        });
        let free = spans.iter().filter(|span| span.state == State::Free);
        let free = free.map(|span| json!({ "first": span.first, "last": span.last }));
        data.push(json!({
            "address": entry.address, "mac": entry.mac, "gateway": pool.gateway_of(entry),
            "monthly_cost_cents": entry.monthly_cost_cents, "holders": held.collect::<Vec<_>>(),
            "cooling": cooling.collect::<Vec<_>>(), "free": free.collect::<Vec<_>>(),
        }));
    }
    let head = format!("pool {name}: {}, bridge {}, {}\n", pool.profile_name(), pool.bridge, properties(pool));
    let body = table(&["address", "mac", "gateway", "cost", "held by"], &rows);
    let mut learnt = routers::load(&node.paths);
    learnt.retain(|router| is_segment_of(router.bridge, pool.bridge) && pool.mode() == Mode::Bridged);
    let head = learnt.iter().fold(head, |head, router| format!("{head}router {router}, learnt\n"));
    let mut shown = pool_data(pool);
    shown["routers"] = json!(learnt);
    shown["name"] = json!(name);
    shown["addresses"] = data.into();
    Ok(self::shown(&registry, Output::new(head + &body, shown)))
}

/// A run of addresses as people write it, below the entry that they are of.
fn run_of(span: &Span<'_>) -> String {
    match &span.state {
        State::Held(.., prefix) | State::Cooling(prefix, ..) => format!("- {}", plain(*prefix)),
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
