//! What guests use now, and what they would lose if a pool were enforced: by their configurations, on every node, and by what
//! the node's neighbour table knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::segments::is_segment_of;
use super::uplink_guard::registered_macs;
use crate::code;
use crate::guest::{GuestConfig, Located, Nic};
use crate::model::{IfName, MacAddr, NicId, NodeName, PoolName, Prefix, Problem, Vmid};
use crate::registry::Registry;
use crate::registry::document::{Enforce, Interface, Mode, Pool, UplinkGuard};

/// An address that the node's neighbour table knows behind one of its interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The interface.
    pub device: IfName,
    /// The address.
    pub address: IpAddr,
    /// Who has it.
    pub mac: MacAddr,
    /// Whether somebody has set it by hand.
    pub is_static: bool,
}

/// What a guest loses when a pool is enforced.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loss {
    /// The guest.
    pub vmid: Vmid,
    /// Its NIC.
    pub nic: NicId,
    /// The node that it is on.
    pub node: NodeName,
    /// What.
    pub what: Lost,
}

/// The thing itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lost {
    /// An address of the pool that is not assigned to the NIC.
    Address(IpAddr),
    /// The gateway's address, which the guest has.
    Gateway(IpAddr),
    /// An address that is in no pool, on a NIC that holds some of the pool.
    Other(IpAddr),
    /// All of it: its MAC is of an address that it does not hold.
    Mac(MacAddr),
    /// The way to the provider, to whom its MAC is not known.
    Uplink(MacAddr),
}

impl Loss {
    /// `guest 101 net0 on pve2 loses ...`.
    pub fn sentence(&self) -> String {
        let Self { vmid, nic, node, what } = self;
        let what = match what {
            Lost::Address(address) => format!("its address {address}, which is not assigned to it"),
            Lost::Gateway(address) => format!("its address {address}, which is the gateway's"),
            Lost::Other(address) => format!("its address {address}, which no pool has"),
            Lost::Mac(mac) => format!("its network: its MAC {mac} is of an address that it does not hold"),
            Lost::Uplink(mac) => format!("its way to the provider: no pool knows its MAC {mac}"),
        };
        format!("guest {vmid} {nic} on {node} loses {what}")
    }

    /// As a problem of the guest.
    pub fn problem(&self, pool: &PoolName) -> Problem {
        let Self { vmid, nic, what, .. } = self;
        let hint = match what {
            Lost::Address(address) => format!("`pve-public-ip assign {vmid} {address}{}`", nic.net_option()),
            Lost::Uplink(mac) => {
                format!("if the provider knows this MAC: `pve-public-ip pool set {pool} --allow-mac {mac}`")
            }
            Lost::Mac(mac) => format!("give the guest with the MAC {mac} its address, or another MAC"),
            Lost::Gateway(_) | Lost::Other(_) => {
                format!("keep pool {pool} on watch, or take the address out of the guest")
            }
        };
        Problem::of_guest(code!("would-lose"), *vmid, self.sentence(), hint)
    }
}

/// A guest's NIC with what is known of it.
struct Used<'a> {
    vmid: Vmid,
    id: NicId,
    node: &'a NodeName,
    nic: &'a Nic,
    mac: MacAddr,
    addresses: BTreeSet<IpAddr>,
    held: Option<&'a Interface>,
}

/// What guests of all nodes would lose if this pool were enforced, and are not to be asked for. `leads_out`: whether the
/// pool's bridge has an uplink.
pub fn losses(
    registry: &Registry,
    guests: &BTreeMap<Vmid, Located>,
    seen: &[Neighbour],
    name: &PoolName,
    leads_out: bool,
) -> Vec<Loss> {
    let Some(pool) = registry.pools.pools.get(name) else { return Vec::new() };
    let known = registered_macs(registry);
    // What another pool keeps back already is not lost by this one.
    let is_other = |(other, rival): (&PoolName, &Pool)| {
        other != name
            && rival.bridge == pool.bridge
            && rival.enforce() == Enforce::On
            && rival.uplink_guard() == UplinkGuard::Enforce
    };
    let leads_out = leads_out && !registry.pools.pools.iter().any(is_other);
    let bound_macs: BTreeSet<MacAddr> = pool.addresses.iter().filter_map(|entry| entry.mac).collect();
    let gateways: BTreeSet<IpAddr> = pool.gateways().collect();
    let nets: Vec<Prefix> = pool.addresses.iter().map(|entry| entry.address).collect();
    let mut found = BTreeSet::new();
    for used in all(registry, guests, seen) {
        let holds = |interface: &&Interface| interface.addresses.iter().any(|assigned| assigned.pool == *name);
        let held = used.held.filter(holds);
        let is_own = |address: &IpAddr| {
            let own = used.held.into_iter().flat_map(|interface| &interface.addresses);
            own.into_iter().any(|assigned| assigned.address.net().contains(address))
        };
        let lost = used.addresses.iter().filter(|address| !is_own(address)).filter_map(|address| {
            let is_in = |net: &Prefix| net.net().contains(address);
            match (gateways.contains(address), nets.iter().any(is_in)) {
                (true, _) => Some(Lost::Gateway(*address)),
                (false, true) => Some(Lost::Address(*address)),
                (false, false) => held.map(|_| Lost::Other(*address)),
            }
        });
        let mut lost: Vec<Lost> = lost.collect();
        let holds_nothing = used.held.is_none_or(|interface| interface.addresses.is_empty());
        if holds_nothing && bound_macs.contains(&used.mac) {
            lost.push(Lost::Mac(used.mac));
        }
        if leads_out && is_kept_back(pool, &known, &used) {
            lost.push(Lost::Uplink(used.mac));
        }
        let Used { vmid, id, node, .. } = used;
        found.extend(lost.into_iter().map(|what| Loss { vmid, nic: id, node: node.clone(), what }));
    }
    found.into_iter().collect()
}

/// Whether the pool's guard keeps its frames from the provider. Who is in a VLAN of its own is none of the pool's business.
fn is_kept_back(pool: &Pool, known: &BTreeSet<(IfName, MacAddr)>, used: &Used<'_>) -> bool {
    let on_bridge = used.nic.bridge.is_some_and(|bridge| is_segment_of(bridge, pool.bridge));
    let is_routed = used.held.is_some_and(|interface| !interface.addresses.is_empty()) && pool.mode() == Mode::Routed;
    pool.uplink_guard() == UplinkGuard::Enforce
        && on_bridge
        && used.nic.tag.is_none()
        && !is_routed
        && !known.contains(&(pool.bridge, used.mac))
}

fn all<'a>(
    registry: &'a Registry,
    guests: &'a BTreeMap<Vmid, Located>,
    seen: &'a [Neighbour],
) -> impl Iterator<Item = Used<'a>> {
    let of_guest = move |(vmid, located): (&'a Vmid, &'a Located)| {
        let Located { node, config } = located;
        let nics = config.nics.iter().filter(move |_| !config.template);
        nics.filter_map(move |(id, nic)| {
            let nic = nic.as_ref().ok()?;
            let mac = nic.mac?;
            let held = registry.guests.get(vmid).and_then(|guest| guest.interfaces.get(id));
            Some(Used { vmid: *vmid, id: *id, node, nic, mac, addresses: addresses(config, *id, mac, seen), held })
        })
    };
    guests.iter().flat_map(of_guest)
}

/// The addresses that a NIC uses, as far as anybody knows.
pub fn addresses(config: &GuestConfig, nic: NicId, mac: MacAddr, seen: &[Neighbour]) -> BTreeSet<IpAddr> {
    let configured = config.static_addresses(nic).into_iter().map(|net| net.addr());
    let seen = seen.iter().filter(|neighbour| neighbour.mac == mac).map(|neighbour| neighbour.address);
    let is_local = |address: &IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    configured.chain(seen).filter(|address| !is_local(address)).collect()
}
