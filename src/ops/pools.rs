//! Pools: made, changed, filled, removed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context as _;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use super::assign::{Retold, own_addresses, retold};
use super::enforce::{self, Present};
use super::{Done, advice, bridges, change, follow, told};
use crate::code;
use crate::model::text::meant;
use crate::model::{CoolDown, Family, IfName, MacAddr, NicId, NodeName, PoolName, Prefix, Problem, Subject, Vmid};
use crate::plan::present::Lost;
use crate::plan::{
    Inputs, Surroundings, assume_bridge, assume_gateways, is_segment_of, nodes_not_named, outlook, unfit, wrong_node,
};
use crate::reconcile::Node;
use crate::registry::document::{Elsewhere, Enforce, GuestFile, Mode, Pool, PoolAddress, Probe, Profile, UplinkGuard};
use crate::registry::{Edit, EntryChange, PoolLoss, Registry, Rerouted, misplaced};
use crate::request::{self, AddAddresses, CreatePool, RemoveFromPool, SetPool};

/// A pool that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PoolCreated {
    /// Its name.
    pub pool: PoolName,
    /// Always true.
    pub changed: bool,
    /// The provider's layout, by name.
    pub profile: String,
    /// Its bridge.
    pub bridge: IfName,
    /// IPv4 gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway4: Option<Ipv4Addr>,
    /// IPv6 gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<Ipv6Addr>,
    /// How many addresses and prefixes it has.
    pub entries: usize,
    /// What was assumed, in sentences.
    pub assumptions: Vec<String>,
    /// Addresses that no guest gets, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
    /// What guests of the pool get on this node, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlook: Option<String>,
    /// What stands in their way.
    pub problems: Vec<Problem>,
    /// Whether it is enforced.
    pub enforce: Enforce,
    /// What guests of any node would lose if it were enforced, or lose because it is.
    pub losses: Vec<Problem>,
}

fn concerned(rerouted: &[Rerouted]) -> BTreeSet<Vmid> {
    rerouted.iter().map(|change| change.vmid).collect()
}

/// Creates a pool.
pub fn create_pool(node: &Node, request: CreatePool, dry_run: bool) -> Result<Done<PoolCreated>, Problem> {
    let trying = format!("cannot create pool `{}`", request.pool);
    told(create(node, request, dry_run).context(trying))
}

/// A pool as it is asked for, completed by what the node shows, before anything is written.
pub(super) struct Prepared {
    pub(super) pool: Pool,
    /// What was assumed, in sentences.
    pub(super) said: Vec<String>,
    /// That the node lacks its bridge.
    pub(super) missing: Option<Problem>,
    surroundings: Surroundings,
    own: Vec<IpNet>,
}

/// Completes what is asked for, and refuses what cannot be on this node.
pub(super) fn prepare(node: &Node, request: CreatePool) -> anyhow::Result<Prepared> {
    let CreatePool { pool: name, profile, layout, gateway4, gateway6, gateway_mac, guest_routers, .. } = request;
    check_nodes(node, &request.nodes)?;
    let surroundings = bridges::surroundings(node)?;
    let entries: Vec<PoolAddress> = request.addresses.into_iter().map(PoolAddress::new).collect();
    let mode = layout.as_ref().map_or_else(|| profile.mode(), |layout| layout.mode);
    let mut said = Vec::new();
    let bridge = if let Some(bridge) = request.bridge {
        bridge
    } else {
        let (bridge, why) = assume_bridge(mode, &surroundings)
            .map_err(|(why, hint)| advice(code!("bridge-not-named"), Subject::Pool(name), why, hint))?;
        said.push(format!("assumed: {why}"));
        bridge
    };
    let missing = bridges::check(node, &surroundings, bridge)?;
    refuse_unfit(&surroundings, bridge, mode)?;
    let own: Vec<IpNet> = surroundings.exits.addresses.iter().map(|(_, net)| *net).collect();
    refuse_own(&own, &entries)?;
    let mut pool = Pool {
        layout,
        gateway4,
        gateway6,
        gateway_mac,
        guest_routers,
        uplink_guard: request.uplink_guard,
        allowed_macs: request.allowed_macs,
        probe: request.probe,
        cool_down: request.cool_down,
        enforce: request.enforce,
        nodes: request.nodes,
        elsewhere: request.elsewhere,
        ..Pool::new(profile, bridge, entries)
    };
    said.extend(assume_gateways(&mut pool, &surroundings, |family| {
        format!("name it with --gateway{}", family.number())
    }));
    Ok(Prepared { pool, said, missing, surroundings, own })
}

fn create(node: &Node, request: CreatePool, dry_run: bool) -> anyhow::Result<Done<PoolCreated>> {
    let (name, enforce, yes, count) = (request.pool.clone(), request.enforce, request.yes, request.addresses.len());
    let Prepared { pool, said, missing, surroundings, own } = prepare(node, request)?;
    let bridge = pool.bridge;
    let profile = pool.profile_name().to_owned();
    let (gateway4, gateway6) = (pool.gateway4, pool.gateway6);
    let present = Present::of(node);
    // Before the cluster's lock is taken.
    present.look();
    let (registry, losses) = change(node, dry_run, |registry| {
        registry.create_pool(name.clone(), pool)?;
        registry.check_gateways(&name, None)?;
        let losses = present.losses(registry, &name);
        // Nobody is cut off by what has not said whether it shall be enforced.
        if enforce.is_none() && !yes && !losses.is_empty() {
            registry.change_pool(&name, |pool| pool.enforce = Some(Enforce::Watch))?;
        }
        if registry.pool(&name)?.enforce() == Enforce::On {
            enforce::refuse(&name, &losses, yes, true)?;
        }
        Ok((registry.clone(), losses))
    })?;
    let withheld = withheld(&registry, &name, &own);
    let guests = BTreeMap::new();
    let Surroundings { links, exits, .. } = surroundings;
    let (outlook, mut problems) =
        outlook(&Inputs { links, exits, ..Inputs::new(node.name.clone(), registry.clone(), guests) }, &name);
    problems.extend(missing);
    let about = Subject::Pool(name.clone());
    let answer = PoolCreated {
        changed: true,
        profile,
        bridge,
        gateway4,
        gateway6,
        entries: count,
        assumptions: said,
        withheld,
        outlook,
        problems: problems.into_iter().collect(),
        enforce: registry.pool(&name).map(Pool::enforce).unwrap_or_default(),
        losses: losses.iter().map(|loss| loss.problem(&name)).collect(),
        pool: name,
    };
    let mut noted = private_entries(&registry, &answer.pool);
    noted.extend(nodes_unknown(node, &registry, &answer.pool));
    let mut done = follow::follow_pool(node, dry_run, &about, registry, answer);
    done.node.notes.extend(noted);
    Ok(done)
}

/// Refuses nodes that the cluster does not have.
fn check_nodes(node: &Node, named: &BTreeSet<NodeName>) -> anyhow::Result<()> {
    let known = node.guests.nodes();
    let Some(stranger) = named.iter().find(|name| !known.contains(name)) else { return Ok(()) };
    let hint = meant(stranger.as_str(), known.iter().map(NodeName::as_str));
    let sentence = format!("the cluster has no node `{stranger}`");
    Err(advice(code!("unknown-node"), Subject::Command, sentence, hint))
}

/// That a pool of public addresses has private ones, which no provider routes.
fn private_entries(registry: &Registry, name: &PoolName) -> Vec<Problem> {
    let entries = registry.pools.pools.get(name).map(Pool::private_entries).unwrap_or_default();
    let Some(first) = entries.first() else { return Vec::new() };
    let listed: Vec<String> = entries.iter().map(ToString::to_string).collect();
    let sentence = format!(
        "pool `{name}` has public addresses, and {}, which is private: no provider routes it",
        listed.join(", ")
    );
    let hint = format!(
        "`pve-public-ip pool remove {name} {first}`; a guest uses it beside its public address with `pve-public-ip set VMID --also ADDRESS`"
    );
    vec![Problem::new(code!("private-address-in-pool"), Subject::Pool(name.clone()), sentence, hint)]
}

/// That nobody has said to which nodes the provider routes the addresses of a pool, where it does so to one.
fn nodes_unknown(node: &Node, registry: &Registry, name: &PoolName) -> Option<Problem> {
    let nodes = node.guests.nodes();
    let pool = registry.pools.pools.get(name)?;
    nodes_not_named(&nodes, name, pool)
}

/// A bridge on which a pool cannot be.
fn refuse_unfit(surroundings: &Surroundings, bridge: IfName, mode: Mode) -> anyhow::Result<()> {
    match unfit(&surroundings.links, bridge).filter(|_| mode == Mode::Routed) {
        Some((why, hint)) => Err(advice(code!("bridge-unfit"), Subject::Interface(bridge), why, hint)),
        None => Ok(()),
    }
}

/// What the node has itself is nobody else's.
fn refuse_own(own: &[IpNet], entries: &[PoolAddress]) -> anyhow::Result<()> {
    let is_own = |address: &IpAddr| own.iter().any(|net| net.addr() == *address);
    let taken = entries.iter().filter_map(|entry| entry.address.single()).find(is_own);
    taken.map_or(Ok(()), |address| {
        let hint = "a pool has addresses for guests: leave it out, or take it off the node";
        let subject = Prefix::host(address).map_or(Subject::Command, Subject::Address);
        Err(advice(code!("address-of-this-node"), subject, format!("{address} is an address of this node"), hint))
    })
}

/// Which addresses of a pool no guest gets, and why.
fn withheld(registry: &Registry, name: &PoolName, own: &[IpNet]) -> Option<String> {
    let pool = registry.pools.pools.get(name)?;
    let in_pool = |address: IpAddr| pool.addresses.iter().any(|entry| entry.address.net().contains(&address));
    let mut said = BTreeSet::new();
    let withheld = registry.withheld(own);
    let named: Vec<String> = withheld
        .filter(|(address, _)| in_pool(*address) && said.insert(*address))
        .map(|(address, what)| format!("{address} ({what})"))
        .collect();
    (!named.is_empty()).then(|| format!("not handed out: {}", named.join(", ")))
}

/// A gateway that changed under a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Rerouting {
    /// The guest.
    pub vmid: Vmid,
    /// Its NIC.
    pub interface: NicId,
    /// Its address.
    pub address: Prefix,
    /// The gateway before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<IpAddr>,
    /// The gateway now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<IpAddr>,
}

impl From<&Rerouted> for Rerouting {
    fn from(change: &Rerouted) -> Self {
        let Rerouted { vmid, nic, address, before, after } = *change;
        Self { vmid, interface: nic, address, before, after }
    }
}

/// What is another than it was: `cost 1.70 -> 2.00`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Difference {
    /// The key.
    pub what: String,
    /// As it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// As it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// An address of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct EntryAdded {
    /// The address or prefix.
    pub address: Prefix,
    /// The MAC that the provider bound to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Whether the pool did not have it before.
    pub added: bool,
    /// What of an address that it had is another than before.
    pub differences: Vec<Difference>,
}

/// Addresses of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AddressesAdded {
    /// The pool.
    pub pool: PoolName,
    /// Whether something is another than before.
    pub changed: bool,
    /// The addresses.
    pub entries: Vec<EntryAdded>,
    /// What was assumed, in sentences.
    pub assumptions: Vec<String>,
    /// Addresses that no guest gets, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
    /// Guests whose gateway is another one by that.
    pub rerouted: Vec<Rerouting>,
    /// What became of them.
    pub retold: Vec<Retold>,
    /// Whether the pool is only watched from now on: guests use its addresses, and it had none before.
    pub now_watched: bool,
    /// What guests of any node would lose if it were enforced, or lose because it is.
    pub losses: Vec<Problem>,
}

/// Adds addresses to a pool, or changes what is known of them: all or none.
pub fn add_addresses(
    node: &Node,
    request: &AddAddresses,
    trying: &str,
    dry_run: bool,
) -> Result<Done<AddressesAdded>, Problem> {
    told(add(node, request, dry_run).with_context(|| trying.to_owned()))
}

fn add(node: &Node, request: &AddAddresses, dry_run: bool) -> anyhow::Result<Done<AddressesAdded>> {
    let AddAddresses { pool: name, entries, yes } = request;
    let entry_change = |entry: &request::Entry| {
        let request::Entry { address, mac, gateway, monthly_cost_cents } = *entry;
        (address, EntryChange { mac, gateway, monthly_cost_cents })
    };
    let wanted: Vec<(Prefix, EntryChange)> = entries.iter().map(entry_change).collect();
    let own = own_addresses();
    let entries: Vec<PoolAddress> = wanted.iter().map(|(address, _)| PoolAddress::new(*address)).collect();
    refuse_own(&own, &entries)?;
    // Only what is assumed depends on it.
    let surroundings = bridges::surroundings(node).unwrap_or_default();
    let naming = |family: Family| format!("name it: `pve-public-ip pool set {name} --gateway{} IP`", family.number());
    let present = Present::of(node);
    let (changed, said, rerouted, (now_watched, losses), registry) = change(node, dry_run, |registry| {
        let before = registry.clone();
        let old = registry.change_pool(name, |pool| pool.clone())?;
        let changed = registry.change_entries(name, &wanted)?;
        let said = registry.change_pool(name, |pool| assume_gateways(pool, &surroundings, naming))?;
        registry.check_gateways(name, Some(&old))?;
        let rerouted = registry.follow_gateways(name, &old);
        let losses = present.lost_by(&before, registry, name);
        // A pool that is filled for the first time is one that is made.
        let is_new = old.addresses.is_empty() && old.enforce.is_none();
        let now_watched = is_new && !losses.is_empty() && !yes;
        if now_watched {
            registry.change_pool(name, |pool| pool.enforce = Some(Enforce::Watch))?;
        } else {
            enforce::refuse(name, &losses, *yes, false)?;
        }
        Ok((changed, said, rerouted, (now_watched, losses), registry.clone()))
    })?;
    let entry = |(before, after): &(Option<PoolAddress>, PoolAddress)| EntryAdded {
        address: after.address,
        mac: after.mac,
        added: before.is_none(),
        differences: before.as_ref().map(|before| differences(before, after)).unwrap_or_default(),
    };
    let entries: Vec<EntryAdded> = changed.iter().map(entry).collect();
    let answer = AddressesAdded {
        pool: name.clone(),
        changed: entries.iter().any(|entry| entry.added || !entry.differences.is_empty()) || !said.is_empty(),
        entries,
        assumptions: said,
        withheld: withheld(&registry, name, &own),
        rerouted: rerouted.iter().map(Rerouting::from).collect(),
        retold: retold(node, &registry, concerned(&rerouted), dry_run),
        now_watched,
        losses: losses.iter().map(|loss| loss.problem(name)).collect(),
    };
    let private = if answer.changed { private_entries(&registry, name) } else { Vec::new() };
    let mut done = follow::follow_pool(node, dry_run, &Subject::Pool(name.clone()), registry, answer);
    done.node.notes.extend(private);
    Ok(done)
}

fn differences(before: &PoolAddress, after: &PoolAddress) -> Vec<Difference> {
    let facts = |entry: &PoolAddress| {
        [
            ("MAC", entry.mac.map(|mac| mac.to_string())),
            ("gateway", entry.gateway.map(|gateway| gateway.to_string())),
            ("cost", entry.monthly_cost_cents.map(money)),
        ]
    };
    let pairs = facts(before).into_iter().zip(facts(after)).filter(|((_, old), (_, new))| old != new);
    pairs.map(|((what, before), (_, after))| Difference { what: what.to_owned(), before, after }).collect()
}

/// `2.00`.
pub(crate) fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// What holds for all addresses of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PoolProperties {
    /// The provider's layout.
    pub profile: Profile,
    /// Whether the provider sees the guests' MACs or the node's.
    pub mode: Mode,
    /// Bridge of the guests' NICs.
    pub bridge: IfName,
    /// IPv4 gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway4: Option<Ipv4Addr>,
    /// IPv6 gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<Ipv6Addr>,
    /// MAC of the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_mac: Option<MacAddr>,
    /// Whether the node answers for the addresses.
    pub proxy: bool,
    /// Whether guests without addresses may be routers.
    pub guest_routers: bool,
    /// What becomes of frames with a MAC that the provider does not know.
    pub uplink_guard: UplinkGuard,
    /// MACs that the provider knows besides.
    pub allowed_macs: BTreeSet<MacAddr>,
    /// Whether the network is asked who has an address before it is assigned.
    pub probe: Probe,
    /// For how long a released address is not handed out by itself.
    pub cool_down: CoolDown,
    /// What becomes of frames that are against the rules because of it.
    pub enforce: Enforce,
    /// Nodes to which the provider routes the addresses; none: every node of the cluster.
    pub nodes: BTreeSet<NodeName>,
    /// What becomes of guests on other nodes.
    pub elsewhere: Elsewhere,
}

impl From<&Pool> for PoolProperties {
    fn from(pool: &Pool) -> Self {
        Self {
            profile: pool.profile,
            mode: pool.mode(),
            bridge: pool.bridge,
            gateway4: pool.gateway4,
            gateway6: pool.gateway6,
            gateway_mac: pool.gateway_mac,
            proxy: pool.proxy(),
            guest_routers: pool.guest_routers,
            uplink_guard: pool.uplink_guard(),
            allowed_macs: pool.allowed_macs.clone(),
            probe: pool.probe(),
            cool_down: pool.cool_down(),
            enforce: pool.enforce(),
            nodes: pool.nodes.clone(),
            elsewhere: pool.elsewhere(),
        }
    }
}

/// A pool that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PoolSettings {
    /// The pool.
    pub pool: PoolName,
    /// Whether something is another than before.
    pub changed: bool,
    /// As it is now.
    pub properties: PoolProperties,
    /// What stands in the way of guests that hold its addresses.
    pub problems: Vec<Problem>,
    /// Guests whose gateway is another one by that.
    pub rerouted: Vec<Rerouting>,
    /// What became of them.
    pub retold: Vec<Retold>,
    /// What guests of any node would lose if it were enforced, or lose by this change.
    pub losses: Vec<Problem>,
}

/// Changes what holds for all addresses of a pool.
pub fn set_pool(node: &Node, request: &SetPool, dry_run: bool) -> Result<Done<PoolSettings>, Problem> {
    let trying = format!("cannot change pool `{}`", request.pool);
    told(set(node, request, dry_run).context(trying))
}

fn set(node: &Node, request: &SetPool, dry_run: bool) -> anyhow::Result<Done<PoolSettings>> {
    let name = &request.pool;
    let set = |pool: &mut Pool| {
        pool.bridge = request.bridge.unwrap_or(pool.bridge);
        pool.gateway4 = request.gateway4.of(pool.gateway4);
        pool.gateway6 = request.gateway6.of(pool.gateway6);
        pool.uplink_guard = request.uplink_guard.or(pool.uplink_guard);
        pool.allowed_macs.extend(&request.allow_macs);
        pool.allowed_macs.retain(|mac| !request.forbid_macs.contains(mac));
        pool.gateway_mac = request.gateway_mac.of(pool.gateway_mac);
        pool.guest_routers = request.guest_routers.unwrap_or(pool.guest_routers);
        pool.probe = request.probe.or(pool.probe);
        pool.cool_down = request.cool_down.or(pool.cool_down);
        pool.enforce = request.enforce.or(pool.enforce);
        pool.nodes = request.nodes.clone().of(Some(std::mem::take(&mut pool.nodes))).unwrap_or_default();
        pool.elsewhere = request.elsewhere.or(pool.elsewhere);
        pool.clone()
    };
    if let Edit::Set(nodes) = &request.nodes {
        check_nodes(node, nodes)?;
    }
    let mut problems = Vec::new();
    if let Some(bridge) = request.bridge {
        let mode = node.store.load()?.registry.pool(name).map(Pool::mode)?;
        let surroundings = bridges::surroundings(node)?;
        problems.extend(bridges::check(node, &surroundings, bridge)?);
        refuse_unfit(&surroundings, bridge, mode)?;
    }
    let present = Present::of(node);
    let (old, pool, rerouted, losses, registry) = change(node, dry_run, |registry| {
        let before = registry.clone();
        let old = registry.change_pool(name, |pool| pool.clone())?;
        let mut pool = registry.change_pool(name, set)?;
        registry.check_gateways(name, Some(&old))?;
        let rerouted = registry.follow_gateways(name, &old);
        if request.allow_present {
            // Also before the guard keeps back anybody.
            let mut guarded = registry.clone();
            guarded.change_pool(name, |pool| {
                pool.enforce = None;
                pool.uplink_guard = Some(UplinkGuard::Enforce);
            })?;
            let macs = present.losses(&guarded, name).into_iter().filter_map(|loss| match loss.what {
                Lost::Uplink(mac) => Some(mac),
                _ => None,
            });
            let macs: Vec<MacAddr> = macs.collect();
            pool = registry.change_pool(name, |pool| {
                pool.allowed_macs.extend(macs);
                pool.clone()
            })?;
        }
        let mut lost = present.lost_by(&before, registry, name);
        // Who names a MAC knows whose it is.
        lost.retain(|loss| !matches!(loss.what, Lost::Uplink(mac) if request.forbid_macs.contains(&mac)));
        enforce::refuse(name, &lost, request.yes, true)?;
        if pool.enforce() != Enforce::On {
            lost = present.losses(registry, name);
        }
        Ok((old, pool, rerouted, lost, registry.clone()))
    })?;
    if old.bridge != pool.bridge {
        problems.extend(left_behind(node, &registry, name, pool.bridge));
    }
    if (&old.nodes, old.elsewhere()) != (&pool.nodes, pool.elsewhere()) {
        problems.extend(left_elsewhere(node, &registry, name));
    }
    let answer = PoolSettings {
        pool: name.clone(),
        changed: old != pool,
        properties: PoolProperties::from(&pool),
        problems,
        rerouted: rerouted.iter().map(Rerouting::from).collect(),
        retold: retold(node, &registry, concerned(&rerouted), dry_run),
        losses: losses.iter().map(|loss| loss.problem(name)).collect(),
    };
    Ok(follow::follow_pool(node, dry_run, &Subject::Pool(name.clone()), registry, answer))
}

/// Guests that hold addresses of the pool, and have their NIC on another bridge than the pool has now.
fn left_behind(node: &Node, registry: &Registry, name: &PoolName, bridge: IfName) -> Vec<Problem> {
    let held = registry.assignments().filter(|(.., assigned)| assigned.pool == *name);
    let nics: BTreeSet<(Vmid, NicId)> = held.map(|(vmid, nic, ..)| (vmid, nic)).collect();
    let vmids: BTreeSet<Vmid> = nics.iter().map(|(vmid, _)| *vmid).collect();
    let found = node.guests.find_all(vmids.into_iter());
    let configs: BTreeMap<Vmid, _> =
        found.into_iter().filter_map(|(vmid, located)| Some((vmid, located.ok()?.config))).collect();
    let problem = |(vmid, nic): &(Vmid, NicId)| {
        let config = configs.get(vmid)?;
        let actual = config.nics.get(nic)?.as_ref().ok()?.bridge;
        if actual.is_some_and(|actual| is_segment_of(actual, bridge)) {
            return None;
        }
        let place = actual.map_or_else(|| "no bridge".to_owned(), |actual| format!("bridge {actual}"));
        let sentence =
            format!("guest {vmid} {nic} holds addresses of pool `{name}` and is on {place}: it does not start");
        let change = config.change_nic(*vmid, *nic, crate::guest::NicChange::Bridge(bridge));
        Some(Problem::of_guest(code!("wrong-bridge"), *vmid, sentence, format!("move it: `{change}`")))
    };
    nics.iter().filter_map(problem).collect()
}

/// Guests that hold addresses of the pool and are on a node where these do not work.
pub(crate) fn left_elsewhere(node: &Node, registry: &Registry, name: &PoolName) -> Vec<Problem> {
    if registry.pools.pools.get(name).is_none_or(|pool| pool.nodes.is_empty()) {
        return Vec::new();
    }
    let places = node.guests.places();
    let of_guest = |guest: &GuestFile| {
        let (place, _) = places.get(&guest.vmid)?;
        misplaced(&registry.pools, guest, place).into_iter().find(|misplaced| misplaced.pool == *name)
    };
    registry.guests.values().filter_map(of_guest).map(|misplaced| wrong_node(&misplaced)).collect()
}

/// What a pool has lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PoolRemoved {
    /// The pool.
    pub pool: PoolName,
    /// Whether anything was removed; false if all of it was removed before.
    pub changed: bool,
    /// Whether there was such a pool.
    pub existed: bool,
    /// Its entries; none: the pool itself.
    pub removed: Vec<Prefix>,
    /// What was named and the pool did not have.
    pub absent: Vec<AbsentEntry>,
}

/// What was to be removed from a pool that does not have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AbsentEntry {
    /// The address or prefix.
    pub address: Prefix,
    /// The pool that has it, or a part of it.
    pub pool: Option<PoolName>,
}

/// Removes a pool, or some of its addresses.
pub fn remove_from_pool(node: &Node, request: &RemoveFromPool, dry_run: bool) -> Result<Done<PoolRemoved>, Problem> {
    let RemoveFromPool { pool: name, addresses } = request;
    let done = change(node, dry_run, |registry| Ok((registry.remove_from_pool(name, addresses)?, registry.clone())));
    let (PoolLoss { existed, removed, absent }, registry) =
        told(done.with_context(|| format!("cannot remove from pool `{name}`")))?;
    let answer = PoolRemoved {
        pool: name.clone(),
        changed: if addresses.is_empty() { existed } else { !removed.is_empty() },
        existed,
        removed,
        absent: absent.into_iter().map(|(address, pool)| AbsentEntry { address, pool }).collect(),
    };
    Ok(follow::follow_pool(node, dry_run, &Subject::Pool(name.clone()), registry, answer))
}
