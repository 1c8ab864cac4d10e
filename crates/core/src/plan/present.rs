//! What guests use now, and what they would lose if a pool were enforced: by their configurations, on every node, and by what
//! the node's neighbour table knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::segments::is_segment_of;
use super::traces::{Place, Traces};
use super::uplink_guard::registered_macs;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use crate::code;
use crate::guest::{GuestConfig, Located, Nic};
use crate::model::{IfName, MacAddr, NicId, NodeName, PoolName, Prefix, Problem, Vmid};
use crate::registry::document::{Assigned, Enforce, Interface, Mode, Pool, PoolIndex, UplinkGuard};
use crate::registry::{InUse, Registry};

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
            let own = used.held.into_iter().flat_map(|interface| {
                interface.addresses.iter().map(|assigned| &assigned.address).chain(&interface.also)
            });
            own.into_iter().any(|own| own.net().contains(address))
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

/// An address that a guest uses now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Found {
    /// The guest.
    pub vmid: Vmid,
    /// Its NIC.
    pub interface: NicId,
    /// The node that it is on.
    pub node: NodeName,
    /// Its MAC.
    pub mac: MacAddr,
    /// Its bridge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<IfName>,
    /// The address.
    pub address: IpAddr,
    /// Where that was seen: `configuration`, `cicustom`, `neighbour table`, `static neighbour`, `route`, `firewall set`, `SDN`,
    /// `rule of nft`, `ARP`, `neighbour discovery`, `packets`.
    pub seen: Vec<String>,
    /// What is against assigning it, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contradiction: Option<String>,
}

/// The public addresses that guests use and that are not assigned to them, in the order of their addresses. With a pool only
/// those that it could have: on its bridge, and in its entries if it has some.
pub fn found(
    registry: &Registry,
    guests: &BTreeMap<Vmid, Located>,
    seen: &[Neighbour],
    traces: &Traces,
    pool: Option<&Pool>,
) -> Vec<Found> {
    let macs = guests.values().flat_map(|located| located.config.nics.values());
    let macs: BTreeSet<MacAddr> = macs.filter_map(|nic| nic.as_ref().ok()?.mac).collect();
    let routed: BTreeSet<(IpAddr, IfName)> = traces.routed().collect();
    let mut found = Vec::new();
    for used in all(registry, guests, seen) {
        let Used { vmid, id, mac, .. } = used;
        let config = &guests[&vmid].config;
        let own = used.held.into_iter().flat_map(|interface| &interface.addresses);
        let own: Vec<IpNet> = own.map(|assigned| assigned.address.net()).collect();
        let bridge = used.nic.bridge;
        if pool.is_some_and(|pool| !bridge.is_some_and(|bridge| is_segment_of(bridge, pool.bridge))) {
            continue;
        }
        let mut addresses = traces.of(vmid, config, id, mac);
        for net in config.static_addresses(id) {
            addresses.entry(net.addr()).or_default().insert(Place::Configuration);
        }
        for neighbour in seen.iter().filter(|neighbour| neighbour.mac == mac) {
            let place = if neighbour.is_static { Place::StaticNeighbour } else { Place::Neighbours };
            addresses.entry(neighbour.address).or_default().insert(place);
        }
        for (address, mut places) in addresses.into_iter().filter(|(address, _)| is_public(*address)) {
            let is_in_pool = |pool: &Pool| {
                pool.addresses.is_empty() || pool.addresses.iter().any(|entry| entry.address.net().contains(&address))
            };
            if own.iter().any(|net| net.contains(&address)) || !pool.is_none_or(is_in_pool) {
                continue;
            }
            let only = |all: &[Place]| places.iter().all(|place| all.contains(place));
            // Anybody can send a packet from any address, and as many claims as he likes.
            let doubt = if only(&[Place::Packets]) {
                Some("it is only the source of packets: forged, or of somebody behind the guest".to_owned())
            } else if only(&[Place::Arp, Place::Discovery, Place::Packets]) && traces.is_overfull(vmid, config, id) {
                Some("its port claims more addresses than are kept of one".to_owned())
            } else {
                traces.against((vmid, config, id, mac), address, &macs)
            };
            let is_routed = bridge.is_some_and(|bridge| routed.contains(&(address, bridge)));
            places.extend(is_routed.then_some(Place::Route));
            found.push(Found {
                vmid,
                interface: id,
                node: used.node.clone(),
                mac,
                bridge,
                address,
                seen: places.into_iter().map(Place::name).collect(),
                contradiction: against(registry, pool, &used, address).or(doubt),
            });
        }
    }
    found.sort_by_key(|one| (one.address, one.vmid, one.interface));
    // What two have, nobody can be given.
    let mut others: BTreeMap<IpAddr, Vec<(Vmid, NicId)>> = BTreeMap::new();
    for one in &found {
        others.entry(one.address).or_default().push((one.vmid, one.interface));
    }
    for one in &mut found {
        let is_rival = |rival: &&(Vmid, NicId)| **rival != (one.vmid, one.interface);
        if let Some((vmid, nic)) = others.get(&one.address).and_then(|all| all.iter().find(is_rival)) {
            one.contradiction = Some(format!("guest {vmid} {nic} uses it, too"));
        }
    }
    found
}

/// Addresses of pools that nobody holds and somebody uses, or that mean a subnet or a gateway of somebody's; not those of
/// `vmid`, whose NICs have `own` MACs.
///
/// Of guests that hold addresses only others need be given: what they use besides is dropped. What an enforced pool keeps its
/// holders from is no use of it either.
pub fn in_use(
    registry: &Registry,
    guests: &BTreeMap<Vmid, Located>,
    seen: &[Neighbour],
    (vmid, own): (Vmid, &BTreeSet<MacAddr>),
) -> BTreeMap<IpAddr, InUse> {
    let index = PoolIndex::new(&registry.pools);
    let pool = |address: IpAddr| index.pool_of(address).and_then(|name| registry.pools.pools.get(name));
    // A private address means something on its own bridge only.
    let is_there = |address: IpAddr, bridge: Option<IfName>| {
        pool(address)
            .is_some_and(|pool| is_public(address) || bridge.is_some_and(|bridge| is_segment_of(bridge, pool.bridge)))
    };
    let mut found = BTreeMap::new();
    let bound: BTreeSet<MacAddr> = registry.assignments().map(|(_, _, interface, _)| interface.mac).collect();
    for Neighbour { device, address, mac, .. } in seen {
        let is_kept_off = || bound.contains(mac) && pool(*address).is_some_and(|pool| pool.enforce() == Enforce::On);
        if is_there(*address, Some(*device)) && !own.contains(mac) && !is_kept_off() {
            found.insert(*address, InUse { why: format!("is used by {mac} on {device}"), by: None, is_part: false });
        }
    }
    for used in all(registry, guests, seen).filter(|used| used.vmid != vmid) {
        let Used { vmid, id, .. } = used;
        let config = &guests[&vmid].config;
        let inside = config.ip_config(id).and_then(Result::ok).unwrap_or_default();
        for net in config.static_addresses(id).iter().filter(|net| net.max_prefix_len() - net.prefix_len() >= 2) {
            let of =
                |what: &str| InUse::as_part(format!("is {what} of {}, in which guest {vmid} {id} is", net.trunc()));
            let ends = match net {
                IpNet::V4(_) => {
                    [Some((net.network(), "the network address")), Some((net.broadcast(), "the broadcast address"))]
                }
                IpNet::V6(_) => [Some((net.network(), "the subnet-router anycast address")), None],
            };
            let ends = ends.into_iter().flatten().filter(|(address, _)| is_there(*address, used.nic.bridge));
            for (address, what) in ends {
                found.entry(address).or_insert_with(|| of(what));
            }
        }
        let gateways = [inside.v4.gateway, inside.v6.gateway].into_iter().flatten();
        for gateway in gateways.filter(|gateway| is_there(*gateway, used.nic.bridge)) {
            found.insert(gateway, InUse::as_part(format!("is the gateway of guest {vmid} {id}")));
        }
        let configured: BTreeSet<IpAddr> = config.static_addresses(id).iter().map(IpNet::addr).collect();
        for address in used.addresses.iter().filter(|address| is_there(**address, used.nic.bridge)) {
            let how = if configured.contains(address) { "is configured in" } else { "is used by" };
            let why = format!("{how} guest {vmid} {id} on {}", used.node);
            found.insert(*address, InUse { why, by: Some((vmid, id)), is_part: false });
        }
    }
    found
}

/// What is against assigning an address to a NIC.
fn against(registry: &Registry, pool: Option<&Pool>, used: &Used<'_>, address: IpAddr) -> Option<String> {
    let holder = registry.assignments().find(|(.., assigned)| assigned.address.net().contains(&address));
    // Its own, which it holds in turn with others, contradicts nothing.
    let is_own = |assigned: &Assigned| assigned.shared.is_some() && assigned.address.net().contains(&address);
    if used.held.is_some_and(|interface| interface.addresses.iter().any(is_own)) {
        return None;
    }
    if let Some((vmid, nic, ..)) = holder {
        return Some(format!("it is assigned to guest {vmid} {nic}"));
    }
    let entry = pool?.entry(Prefix::host(address).ok()?);
    let expected = entry.and_then(|entry| entry.mac).filter(|expected| *expected != used.mac);
    if let Some(expected) = expected {
        return Some(format!("the provider bound it to MAC {expected}"));
    }
    if pool?.gateways().any(|gateway| gateway == address) {
        return Some("it is the gateway's".to_owned());
    }
    None
}

/// Whether an address is one of the Internet: not of a private network, not of one host alone.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !(address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_multicast()
                || address.is_unspecified()
                || address.is_broadcast())
        }
        IpAddr::V6(address) => {
            !(address.is_unique_local()
                || address.is_loopback()
                || address.is_unicast_link_local()
                || address.is_multicast()
                || address.is_unspecified())
        }
    }
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
