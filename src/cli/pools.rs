//! `pool ...`

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::assignments::own_addresses;
use super::bridges;
use super::node::settle_pool;
use super::output::{Output, UNREADABLE, table};
use super::{PoolAdd, PoolCommand, PoolCreate, PoolSet, ProfileOrFile, advice};
use crate::model::{NicId, PoolName, Prefix, Vmid};
use crate::plan::{Inputs, Problem, Surroundings, assume_bridge, assume_gateways, is_segment_of, outlook, unfit};
use crate::reconcile::Node;
use crate::registry::document::{self, Assigned, Interface, MAX_FILE_SIZE, Mode, Pool, PoolAddress, Profile};
use crate::registry::layout::Layout;
use crate::registry::store::StoreError;
use crate::registry::{Registry, RuleError, capacity, plain};
use crate::system::journal::now;
use crate::system::{files, routers};

pub(super) fn run(node: &Node, command: PoolCommand, dry_run: bool) -> anyhow::Result<Output> {
    match command {
        PoolCommand::Create(command) => create(node, command, dry_run),
        PoolCommand::Add(command) => add(node, &command, dry_run),
        PoolCommand::Set(command) => set(node, command, dry_run),
        PoolCommand::List => list(node),
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
    if dry_run {
        let mut registry = node.store.load()?.registry;
        return Ok(change(&mut registry)?);
    }
    node.store.change(|registry| change(registry).map_err(StoreError::from))
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
    let missing =
        bridges::check(node, &surroundings, bridge).with_context(|| format!("cannot create pool `{name}`"))?;
    if let Some((why, hint)) = unfit(&surroundings.links, bridge).filter(|_| mode == Mode::Routed) {
        return Err(advice(format!("cannot create pool `{name}`: {why}"), hint));
    }
    let own: Vec<IpAddr> = surroundings.exits.addresses.iter().map(|(_, net)| net.addr()).collect();
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
    said.extend(assume_gateways(&mut pool, &surroundings));
    let profile = pool.profile_name().to_owned();
    let gateways = json!({ "gateway4": pool.gateway4, "gateway6": pool.gateway6 });
    let registry = change(node, dry_run, |registry| {
        registry.create_pool(name.clone(), pool)?;
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
        text += &format!("\nproblem: {sentence}\n  hint: {hint}");
    }
    let data = json!({
        "pool": name, "entries": count, "bridge": bridge, "gateways": gateways, "assumptions": said,
        "outlook": outlook, "problems": problems,
    });
    settle_pool(node, dry_run, registry, Output::new(text, data))
}

/// What the node has itself is nobody else's.
fn refuse_own(own: &[IpAddr], entries: &[PoolAddress]) -> anyhow::Result<()> {
    let taken = entries.iter().filter_map(|entry| entry.address.single()).find(|address| own.contains(address));
    taken.map_or(Ok(()), |address| {
        let hint = "a pool has addresses for guests: leave it out, or take it off the node";
        Err(advice(format!("{address} is an address of this node"), hint))
    })
}

/// Which addresses of a pool no guest gets, and why.
fn withheld(registry: &Registry, name: &PoolName, own: &[IpAddr]) -> Option<String> {
    let pool = registry.pools.pools.get(name)?;
    let in_pool = |address: IpAddr| pool.addresses.iter().any(|entry| entry.address.net().contains(&address));
    let withheld = registry.withheld(own).into_iter().filter(|(address, _)| in_pool(*address));
    let named: Vec<String> = withheld.map(|(address, what)| format!("{address} ({what})")).collect();
    (!named.is_empty()).then(|| format!("not handed out: {}", named.join(", ")))
}

/// A file of the caller's, wherever it is.
fn read_layout(path: &Path) -> anyhow::Result<Layout> {
    let bytes = files::read_limited(path, MAX_FILE_SIZE)
        .with_context(|| format!("cannot read the profile `{}`", path.display()))?;
    Ok(document::parse(path, &bytes)?)
}

fn add(node: &Node, command: &PoolAdd, dry_run: bool) -> anyhow::Result<Output> {
    let PoolAdd { name, address, mac, gateway, monthly_cost_cents, .. } = command;
    let entry =
        PoolAddress { address: *address, mac: *mac, gateway: *gateway, monthly_cost_cents: *monthly_cost_cents };
    let trying = || format!("cannot add {} to pool `{name}`", plain(*address));
    let own = own_addresses();
    refuse_own(&own, std::slice::from_ref(&entry)).with_context(trying)?;
    let registry = change(node, dry_run, |registry| {
        registry.add_address(name, entry)?;
        Ok(registry.clone())
    })
    .with_context(trying)?;
    let verb = if dry_run { "would be added" } else { "added" };
    let mut text = format!("{} {verb} to pool {name}", plain(*address));
    text.extend(withheld(&registry, name, &own).iter().map(|line| format!("\n{line}")));
    settle_pool(node, dry_run, registry, Output::new(text, json!({ "pool": name, "address": address })))
}

fn set(node: &Node, command: PoolSet, dry_run: bool) -> anyhow::Result<Output> {
    let PoolSet { name, uplink_guard, allow_mac, forbid_mac, gateway_mac, guest_routers, probe, cool_down, .. } =
        command;
    let set = |pool: &mut Pool| {
        pool.uplink_guard = uplink_guard.or(pool.uplink_guard);
        pool.allowed_macs.extend(&allow_mac);
        pool.allowed_macs.retain(|mac| !forbid_mac.contains(mac));
        pool.gateway_mac = gateway_mac.or(pool.gateway_mac);
        pool.guest_routers = guest_routers.unwrap_or(pool.guest_routers);
        pool.probe = probe.or(pool.probe);
        pool.cool_down = cool_down.or(pool.cool_down);
        pool.clone()
    };
    let (pool, registry) = change(node, dry_run, |registry| Ok((registry.change_pool(&name, set)?, registry.clone())))
        .with_context(|| format!("cannot change pool `{name}`"))?;
    let verb = if dry_run { "would be changed" } else { "changed" };
    let text = format!("pool {name} {verb}: {}", properties(&pool));
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

/// How much there is to hand out: `8 IPv4, 2^64 IPv6`.
fn size(pool: &Pool) -> String {
    let of = |family: u8| {
        let entries = pool.addresses.iter().filter(|entry| entry.address.family() == family);
        entries.map(capacity).fold(0u128, u128::saturating_add)
    };
    let shown = |count: u128, family: u8| match count {
        0 => None,
        small if small < 1 << 32 => Some(format!("{small} IPv{family}")),
        large => Some(format!("2^{} IPv{family}", large.ilog2())),
    };
    [shown(of(4), 4), shown(of(6), 6)].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn list(node: &Node) -> anyhow::Result<Output> {
    let registry = readable(node)?;
    let mut rows = Vec::new();
    let mut data = Vec::new();
    for (name, pool) in &registry.pools.pools {
        let assigned = registry.assignments().filter(|(.., assigned)| assigned.pool == *name).count();
        let gateway = [pool.gateway4.map(|ip| ip.to_string()), pool.gateway6.map(|ip| ip.to_string())];
        let gateway = gateway.into_iter().flatten().collect::<Vec<_>>().join(" ");
        rows.push(vec![
            name.to_string(),
            pool.profile_name().to_owned(),
            pool.bridge.to_string(),
            gateway,
            size(pool),
            assigned.to_string(),
        ]);
        data.push(json!({
            "name": name, "profile": pool.profile, "mode": pool.mode(), "bridge": pool.bridge,
            "gateway4": pool.gateway4, "gateway6": pool.gateway6,
            "entries": pool.addresses.len(), "assigned": assigned,
        }));
    }
    let text = if !rows.is_empty() {
        table(&["pool", "profile", "bridge", "gateway", "addresses", "assigned"], &rows)
    } else if registry.lost_pools.is_some() {
        "the pools cannot be read".to_owned()
    } else {
        "no pools; `pve-public-ip pool create` makes one".to_owned()
    };
    Ok(shown(&registry, Output::new(text, data.into())))
}

type Holding<'a> = (Vmid, NicId, &'a Interface, &'a Assigned);

/// What is assigned, by its first address: to look through all of it for each entry takes seconds for ten thousand.
struct Holdings<'a> {
    by_first: BTreeMap<IpAddr, Vec<Holding<'a>>>,
    prefixes: Vec<Holding<'a>>,
}

impl<'a> Holdings<'a> {
    fn of(registry: &'a Registry) -> Self {
        let mut by_first: BTreeMap<IpAddr, Vec<Holding<'a>>> = BTreeMap::new();
        for holding in registry.assignments() {
            by_first.entry(holding.3.address.first()).or_default().push(holding);
        }
        let prefixes = registry.assignments().filter(|(.., assigned)| assigned.address.single().is_none()).collect();
        Self { by_first, prefixes }
    }

    /// Prefixes are in each other or apart.
    fn overlapping(&self, entry: Prefix) -> Vec<Holding<'a>> {
        let around = self
            .prefixes
            .iter()
            .filter(|(.., assigned)| assigned.address.contains(entry) && assigned.address.first() < entry.first());
        let inside = self.by_first.range(entry.first()..=entry.net().broadcast());
        let mut found: Vec<_> = around.chain(inside.flat_map(|(_, holdings)| holdings)).copied().collect();
        found.sort_by_key(|(vmid, nic, ..)| (*vmid, *nic));
        found
    }
}

fn show(node: &Node, name: &PoolName) -> anyhow::Result<Output> {
    let registry = readable(node)?;
    let pool: &Pool = registry.pool(name)?;
    let now = now();
    let mut rows = Vec::new();
    let mut data = Vec::new();
    let holdings = Holdings::of(&registry);
    for entry in &pool.addresses {
        let holders = holdings.overlapping(entry.address);
        let held = holders.iter().map(|(vmid, nic, _, assigned)| {
            if assigned.address == entry.address {
                format!("{vmid} {nic}")
            } else {
                format!("{vmid} {nic} ({})", plain(assigned.address))
            }
        });
        let cooling = registry.cooling_in(entry.address, now);
        let cools = cooling.iter().map(|(address, released, free_at)| {
            let which = if *address == entry.address { String::new() } else { format!("{} ", plain(*address)) };
            format!("{which}cools down until {} (was {}'s)", free_at.to_second(), released.vmid)
        });
        let held = held.chain(cools);
        let optional = |text: Option<String>| text.unwrap_or_default();
        rows.push(vec![
            plain(entry.address),
            optional(entry.mac.map(|mac| mac.to_string())),
            optional(pool.gateway(entry.address).map(|gateway| gateway.to_string())),
            optional(entry.monthly_cost_cents.map(|cents| format!("{}.{:02}", cents / 100, cents % 100))),
            held.collect::<Vec<_>>().join(", "),
        ]);
        let holders = holders
            .iter()
            .map(|(vmid, nic, _, assigned)| json!({ "vmid": vmid, "interface": nic, "address": assigned.address }));
        let cooling = cooling.iter().map(|(address, released, free_at)| {
            json!({ "address": address, "vmid": released.vmid, "released": released.at, "free_at": free_at })
        });
        data.push(json!({
            "address": entry.address, "mac": entry.mac, "gateway": pool.gateway(entry.address),
            "monthly_cost_cents": entry.monthly_cost_cents, "holders": holders.collect::<Vec<_>>(),
            "cooling": cooling.collect::<Vec<_>>(),
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
