//! What stands in the way of an assignment. The hook refuses the start for it, `verify` reports it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::code;
use crate::guest::{GuestConfig, NicChange};
use crate::model::{Code, IfName, MacAddr, NicId, NodeName, PoolName, Prefix, Problem, Subject, Vmid};
use crate::registry::document::{Assigned, EntryIndex, GuestFile, Mode, Pool, PoolAddress, PoolIndex, PoolsFile};
use crate::registry::{Holders, Misplaced, Registry, misplaced};

use super::inputs::{Inputs, Presence};
use super::segments::is_segment_of;
use super::support::{unfiltered, unfit};
use crate::links::Links;

/// Compares a guest's assignments with its configuration and with the registry, of which `index` is made.
pub fn check_guest(inputs: &Inputs, index: &Index<'_>, guest: &GuestFile) -> Vec<Problem> {
    let vmid = guest.vmid;
    if guest.is_empty() {
        return Vec::new();
    }
    let problem = |code: Code, (sentence, hint)| Problem::of_guest(code, vmid, sentence, hint);
    let Some(place) = inputs.guests.get(&vmid) else {
        let sentence = format!("guest {vmid} has public addresses, but its configuration cannot be found");
        return vec![problem(
            code!("orphaned-assignment"),
            (sentence, format!("if it was destroyed: `pve-public-ip release {vmid}`")),
        )];
    };
    let found = check_config(&inputs.registry, index, guest, &place.config);
    let foreign = check_configured(index, guest, &place.config);
    let is_here = place.node == inputs.node || inputs.presence.get(&vmid) == Some(&Presence::Incoming);
    let unfit = if is_here { check_bridges(inputs, guest, &place.config) } else { Vec::new() };
    // Without any interface the node was not looked at; and of a NIC on a wrong bridge more has been said.
    let is_seen = is_here && found.is_empty() && !inputs.links.0.is_empty();
    let open = is_seen.then(|| check_filtered(&inputs.links, guest, &place.config)).flatten();
    let foreign = foreign.map(|told| problem(code!("configured-address-not-own"), told));
    let node = if is_here { &inputs.node } else { &place.node };
    let elsewhere = misplaced(&inputs.registry.pools, guest, node);
    let elsewhere = elsewhere.iter().filter(|misplaced| misplaced.is_refused()).map(wrong_node);
    let open = open.map(|told| problem(code!("bridge-not-filtered"), told));
    let unfit = unfit.into_iter().map(|told| problem(code!("bridge-unfit"), told));
    found.into_iter().chain(foreign).chain(open).chain(unfit).chain(elsewhere).collect()
}

/// That a guest is on a node where its addresses do not work.
pub fn wrong_node(misplaced: &Misplaced) -> Problem {
    Problem::of_guest(code!("wrong-node"), misplaced.vmid, misplaced.to_string(), misplaced.hint())
}

/// That nobody has said to which nodes of the cluster the provider routes the addresses of a pool. One that hands out MACs
/// routes each address to one server.
pub fn nodes_not_named(nodes: &[NodeName], name: &PoolName, pool: &Pool) -> Option<Problem> {
    let [first, _, ..] = nodes else { return None };
    (pool.provider_mac() && pool.nodes.is_empty()).then(|| {
        let sentence = format!(
            "pool `{name}` does not name its nodes: its addresses are taken to work on each of the {} nodes of the cluster",
            nodes.len()
        );
        let hint = format!("name those that have them at the provider, such as `pve-public-ip pool set {name} --nodes {first}`");
        Problem::new(code!("pool-nodes-not-named"), Subject::Pool(name.clone()), sentence, hint)
    })
}

/// The registry sorted by addresses, for whoever looks up many.
#[derive(Debug)]
pub struct Index<'a> {
    pools: PoolIndex<'a>,
    holders: Holders<'a>,
}

impl<'a> Index<'a> {
    /// Sorts the registry.
    pub fn new(registry: &'a Registry) -> Self {
        Self { pools: PoolIndex::new(&registry.pools), holders: Holders::of(registry) }
    }

    /// Who holds what.
    pub fn holders(&self) -> &Holders<'a> {
        &self.holders
    }

    /// The first guest, other than this one, to which the address is assigned. Who holds it in turn with this one is no other.
    pub fn other_holder(&self, vmid: Option<Vmid>, address: IpAddr) -> Option<Vmid> {
        let holding = self.holders.overlapping(Prefix::host(address).ok()?).collect::<Vec<_>>();
        let is_member = |assigned: &Assigned| {
            holding.iter().any(|(holder, .., own)| Some(*holder) == vmid && own.is_shared_with(assigned))
        };
        let others = holding.iter().filter(|(holder, .., held)| Some(*holder) != vmid && !is_member(held));
        others.map(|(holder, ..)| *holder).min()
    }

    /// The NIC with assignments that this MAC belongs to, and its first address.
    pub fn mac_holder(&self, mac: MacAddr) -> Option<(Vmid, NicId, Prefix)> {
        self.holders.with_mac(mac).next().map(|(vmid, nic, _, assigned)| (vmid, nic, assigned.address))
    }
}

/// Says which of the guest's addresses the node has itself, of those in `own`.
pub fn check_own(own: &BTreeMap<IpAddr, IfName>, guest: &GuestFile) -> Option<Problem> {
    let vmid = guest.vmid;
    guest.addresses().find_map(|(.., assigned)| {
        let address = assigned.address.single()?;
        let device = own.get(&address)?;
        Some(Problem::of_guest(
            code!("address-of-this-node"),
            vmid,
            format!("{address} of guest {vmid} is an address of this node ({device})"),
            format!("take it off the node, or `pve-public-ip release {vmid} {address}`"),
        ))
    })
}

/// Says which NIC with addresses is, or is configured to be, on something whose frames no filter sees; sentence and hint.
///
/// `links` must have the bridges of the guest's NICs, if these exist.
pub fn check_filtered(links: &Links, guest: &GuestFile, config: &GuestConfig) -> Option<(String, String)> {
    let vmid = guest.vmid;
    let held = guest.interfaces.iter().filter(|(_, interface)| !interface.addresses.is_empty());
    held.map(|(id, _)| *id).find_map(|id| {
        let configured = config.nics.get(&id).and_then(|nic| nic.as_ref().ok()).and_then(|nic| nic.bridge);
        // What is plugged in now may be elsewhere: moved by hand, or by a change that is still to come.
        let plugged = links.bridge_of(config.kind, vmid, id);
        let mut bridges = configured.into_iter().chain(plugged);
        let (why, hint) = bridges.find_map(|bridge| unfiltered(links, bridge))?;
        Some((format!("guest {vmid} {id} cannot be protected: {why}"), hint))
    })
}

/// Bridges on which the guest's addresses cannot be routed to it.
fn check_bridges(inputs: &Inputs, guest: &GuestFile, config: &GuestConfig) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (nic, _, assigned) in guest.addresses() {
        let pool = inputs.registry.pools.pools.get(&assigned.pool).filter(|pool| pool.mode() == Mode::Routed);
        let tag = config.tag(nic);
        let device = pool.and_then(|pool| inputs.links.segment(pool.bridge, tag));
        if let Some((why, hint)) = device.and_then(|device| unfit(&inputs.links, device)) {
            let address = assigned.address.to_string();
            found.push((format!("{address} cannot be routed to guest {} {nic}: {why}", guest.vmid), hint));
        }
    }
    found
}

/// Says which address that the guest is configured with is another guest's; sentence and hint.
///
/// Only as good as the registry that it is given: a hook that knows only its own guest asks again with the whole one.
pub fn check_configured(index: &Index<'_>, guest: &GuestFile, config: &GuestConfig) -> Option<(String, String)> {
    config.configured.iter().find_map(|net| {
        let owner = index.other_holder(Some(guest.vmid), net.addr())?;
        Some((
            format!("guest {} is configured with {}, which is assigned to guest {owner}", guest.vmid, net.addr()),
            instead(config, guest.vmid, net.addr(), &index.pools, None),
        ))
    })
}

/// Whether the guest is configured with an address that is not its own, whoever's it is.
pub fn is_configured_with_others(guest: &GuestFile, config: &GuestConfig) -> bool {
    let is_own = |net: &IpNet| guest.addresses().any(|(.., assigned)| assigned.address.net().contains(&net.addr()));
    config.configured.iter().any(|net| !is_own(net))
}

/// Whether the guest is configured with a pool's address that is not its own.
pub fn is_configured_beyond(pools: &PoolsFile, guest: &GuestFile, config: &GuestConfig) -> bool {
    config.configured.iter().any(|net| {
        let own = guest.addresses().any(|(.., assigned)| assigned.address.net().contains(&net.addr()));
        let mut entries = pools.pools.values().flat_map(|pool| &pool.addresses);
        !own && entries.any(|entry| entry.address.net().contains(&net.addr()))
    })
}

/// Changes of the guest's NICs that wait for its next start, and keep it from starting then.
pub fn check_pending(registry: &Registry, index: &Index<'_>, guest: &GuestFile, config: &GuestConfig) -> Vec<Problem> {
    if config.pending.is_empty() {
        return Vec::new();
    }
    let (vmid, tool) = (guest.vmid, config.kind.tool());
    let known: BTreeSet<String> =
        check_config(registry, index, guest, config).into_iter().map(|problem| problem.sentence).collect();
    let nics: Vec<String> = config.pending.keys().map(ToString::to_string).collect();
    let revert = format!(
        "`{tool} set {vmid} --revert {}` takes the change back; `{tool} pending {vmid}` shows it",
        nics.join(",")
    );
    let found = check_config(registry, index, guest, &config.at_next_start()).into_iter();
    found
        .filter(|problem| !known.contains(&problem.sentence))
        .map(|Problem { sentence, .. }| {
            let sentence = format!("guest {vmid} does not start again with the changes that wait for it: {sentence}");
            Problem::of_guest(code!("pending-nic-change"), vmid, sentence, revert.clone())
        })
        .collect()
}

/// The same for a guest whose configuration is at hand.
fn check_config(registry: &Registry, index: &Index<'_>, guest: &GuestFile, config: &GuestConfig) -> Vec<Problem> {
    let vmid = guest.vmid;
    let mut found = Vec::new();
    let mut add =
        |code: Code, sentence: String, hint: String| found.push(Problem::of_guest(code, vmid, sentence, hint));
    for (id, interface) in &guest.interfaces {
        let nic = match config.nics.get(id) {
            None => {
                let addresses = held(guest, *id);
                add(
                    code!("nic-missing"),
                    format!("guest {vmid} has no {id}, but {addresses} is assigned to it"),
                    match anew(registry, guest, config, *id) {
                        Some(command) => format!("add it: `{command}`, or `pve-public-ip release {vmid}`"),
                        None => format!("`pve-public-ip release {vmid}`"),
                    },
                );
                continue;
            }
            Some(Err(error)) => {
                add(
                    code!("nic-not-understood"),
                    format!("guest {vmid} {id} in the guest's configuration is not understood: {error}"),
                    match anew(registry, guest, config, *id) {
                        Some(command) => format!("correct the line, or make the NIC anew: `{command}`"),
                        None => format!("`pve-public-ip release {vmid}`"),
                    },
                );
                continue;
            }
            Some(Ok(nic)) => nic,
        };
        match nic.mac {
            None => add(
                code!("nic-without-mac"),
                format!(
                    "guest {vmid} {id} has no fixed MAC, but the registry binds {} to {}",
                    held(guest, *id),
                    interface.mac
                ),
                format!("give it that MAC: `{}`", config.change_nic(vmid, *id, NicChange::Mac(interface.mac))),
            ),
            Some(mac) if mac != interface.mac => add(
                code!("registered-mac-differs"),
                format!(
                    "guest {vmid} {id} has MAC {mac}, but the registry binds {} to {}",
                    held(guest, *id),
                    interface.mac
                ),
                format!(
                    "set it back: `{}`, or `pve-public-ip release {vmid}` and assign again",
                    config.change_nic(vmid, *id, NicChange::Mac(interface.mac))
                ),
            ),
            Some(_) => {}
        }
        let mut last: Option<(&PoolName, &Pool, Option<&EntryIndex<'_>>)> = None;
        for assigned in &interface.addresses {
            // A node may have a hundred thousand, and it writes only about those with a problem.
            let address = assigned.address;
            // Hundreds in a row are of one pool.
            let known = last.filter(|(name, ..)| **name == assigned.pool);
            last = known.or_else(|| {
                let pool = registry.pools.pools.get(&assigned.pool)?;
                Some((&assigned.pool, pool, index.pools.of_pool(&assigned.pool)))
            });
            let Some((_, pool, entries)) = last else {
                add(
                    code!("pool-missing"),
                    format!("{address} of guest {vmid} is of pool `{}`, which does not exist", assigned.pool),
                    format!("`pve-public-ip release {vmid} {address}`, or create the pool again"),
                );
                continue;
            };
            if !nic.bridge.is_some_and(|bridge| is_segment_of(bridge, pool.bridge)) {
                let actual = nic.bridge.map_or_else(|| "no bridge".to_owned(), |bridge| format!("bridge {bridge}"));
                add(
                    code!("wrong-bridge"),
                    format!(
                        "guest {vmid} {id} is on {actual}, but {address} of pool `{}` needs {}",
                        assigned.pool, pool.bridge
                    ),
                    format!(
                        "move it: `{}`, or `pve-public-ip release {vmid} {address}`",
                        config.change_nic(vmid, *id, NicChange::Bridge(pool.bridge))
                    ),
                );
            }
            let entry = entries.and_then(|entries| entries.entry(address));
            if let Some((code, sentence, hint)) = against_entry(entry, vmid, (*id, interface.mac), assigned) {
                add(code, sentence, hint);
            }
        }
    }
    found
}

/// What an address has against it in its pool: it is not there, or the provider bound it to another MAC.
fn against_entry(
    entry: Option<&PoolAddress>,
    vmid: Vmid,
    (id, mac): (NicId, MacAddr),
    assigned: &Assigned,
) -> Option<(Code, String, String)> {
    let address = assigned.address;
    let Some(entry) = entry else {
        return Some((
            code!("address-not-in-pool"),
            format!("{address} of guest {vmid} is not in pool `{}`", assigned.pool),
            format!("`pve-public-ip pool add {} {address}`, or release the address", assigned.pool),
        ));
    };
    let expected = entry.mac.filter(|expected| *expected != mac)?;
    Some((
        code!("provider-mac-differs"),
        format!("the provider bound {address} to MAC {expected}, but guest {vmid} {id} is registered with {mac}"),
        format!(
            "with the guest stopped: `pve-public-ip release {vmid} {address} && pve-public-ip assign {vmid} {address}{} --set-mac`",
            id.net_option()
        ),
    ))
}

/// Says why a guest without assignments looks like a clone or a restore of one that has some.
///
/// Clones copy hookscript and ipconfig and get new MACs; a restore to a new number keeps the MACs too.
pub fn check_stranger(index: &Index<'_>, vmid: Vmid, config: &GuestConfig, our_hookscript: bool) -> Option<Problem> {
    let problem =
        |sentence: String, hint: String| Some(Problem::of_guest(code!("clone-or-restore"), vmid, sentence, hint));
    let tool = config.kind.tool();
    for (nic, mac) in config.nics.iter().filter_map(|(id, nic)| Some((*id, nic.as_ref().ok()?.mac?))) {
        if let Some((owner, id, address)) = index.mac_holder(mac) {
            let address = address.to_string();
            return problem(
                format!(
                    "guest {vmid} has no assignment, but the MAC {mac} of guest {owner} {id} ({address}): is it a restored copy?"
                ),
                format!(
                    "give guest {vmid} another MAC: `{}`; if guest {owner} is gone for good, move the address: \
                     `pve-public-ip release {owner} {address}`",
                    config.change_nic(vmid, nic, NicChange::FreshMac)
                ),
            );
        }
    }
    for net in &config.configured {
        if let Some(owner) = index.other_holder(Some(vmid), net.addr()) {
            return problem(
                format!(
                    "guest {vmid} is configured with {}, which is assigned to guest {owner}: is it a clone?",
                    net.addr()
                ),
                instead(config, vmid, net.addr(), &index.pools, index.pools.pool_of(net.addr())),
            );
        }
        if let Some(pool) = index.pools.pool_of(net.addr()) {
            return problem(
                format!("guest {vmid} is configured with {} of pool `{pool}`, which is not assigned to it", net.addr()),
                match assignable(config, net.addr(), &index.pools, pool) {
                    Some(options) => format!(
                        "`pve-public-ip assign {vmid} {}{options}`, or {}",
                        net.addr(),
                        instead(config, vmid, net.addr(), &index.pools, None)
                    ),
                    None => instead(config, vmid, net.addr(), &index.pools, None),
                },
            );
        }
    }
    if our_hookscript {
        return problem(
            format!("guest {vmid} has the hookscript of pve-public-ip, but no public address: is it a clone?"),
            format!("`{tool} set {vmid} --delete hookscript`, or give it an address: {}", some_address(index, vmid)),
        );
    }
    None
}

/// Bridge and MAC of a NIC, as far as they are understood.
fn plugged(config: &GuestConfig, nic: NicId) -> (Option<IfName>, Option<MacAddr>) {
    let nic = config.nics.get(&nic).and_then(|nic| nic.as_ref().ok());
    (nic.and_then(|nic| nic.bridge), nic.and_then(|nic| nic.mac))
}

/// With which options an address could be assigned to the NIC that is configured with it, if it could.
fn assignable(config: &GuestConfig, address: IpAddr, pools: &PoolIndex<'_>, pool: &PoolName) -> Option<String> {
    let nic = config.nic_with(address)?;
    let (bridge, mac) = plugged(config, nic);
    let is_fit = pools.suits(pool, Prefix::host(address).ok()?, bridge, mac);
    is_fit.then(|| nic.net_option())
}

/// How a guest gets rid of an address that it is configured with; or another one of the pool, with the hookscript, where that
/// takes no MAC of the provider.
fn instead(
    config: &GuestConfig,
    vmid: Vmid,
    address: IpAddr,
    pools: &PoolIndex<'_>,
    pool: Option<&PoolName>,
) -> String {
    let nic = config.nic_with(address);
    let without = nic.map(|nic| format!("take the address out of it: `{}`", config.without_address(vmid, nic)));
    let bridge = plugged(config, NicId::FIRST).0;
    let pool = pool.filter(|pool| pools.is_for_any(pool, bridge));
    let another = pool.map(|pool| format!("give it one of its own: `pve-public-ip assign {vmid} --pool {pool}`"));
    let ways: Vec<String> = another.into_iter().chain(without).collect();
    if ways.is_empty() { format!("take {address} out of its configuration") } else { ways.join(", or ") }
}

/// The command that makes a NIC with assignments anew.
fn anew(registry: &Registry, guest: &GuestFile, config: &GuestConfig, nic: NicId) -> Option<String> {
    let interface = guest.interfaces.get(&nic)?;
    let pool = registry.pools.pools.get(&interface.addresses.first()?.pool)?;
    Some(config.change_nic(guest.vmid, nic, NicChange::Anew(interface.mac, pool.bridge)))
}

/// How to give a guest an address of any pool, by name if there is only one.
fn some_address(index: &Index<'_>, vmid: Vmid) -> String {
    match index.pools.only_name() {
        Some(pool) => format!("`pve-public-ip assign {vmid} --pool {pool}`"),
        None => format!("`pve-public-ip assign {vmid} --pool NAME`"),
    }
}

fn held(guest: &GuestFile, nic: NicId) -> String {
    let addresses = guest.interfaces.get(&nic).map(|interface| &interface.addresses[..]).unwrap_or_default();
    addresses.iter().map(|assigned| assigned.address.to_string()).collect::<Vec<_>>().join(", ")
}
