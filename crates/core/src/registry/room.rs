//! What a registry puts into the sets of every node's filter, and whether it fits. How much each set holds stands in one
//! place, the text that declares it: see [`SetId::capacity`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::document::{Pool, PoolsFile};
use super::{Registry, RuleError};
use crate::model::{MacAddr, PoolName};
use crate::ruleset::SetId;

/// Left for what only a node knows: its own addresses and MACs, and gateways' MACs that it learns.
const OWN: usize = 64;

/// Blocks of addresses by their numbers, both ends included; sorted and apart once they are counted.
type Blocks = Vec<(u32, u32)>;

/// What one pool, or all assignments, need.
#[derive(Debug, Clone, Default)]
struct Need {
    /// /24 of IPv4.
    v4: Blocks,
    /// /32 of IPv6.
    v6: Blocks,
    macs: BTreeSet<MacAddr>,
}

impl Need {
    fn of_pool(pool: &Pool) -> Self {
        let mut need = Self::default();
        let nets = pool.addresses.iter().map(|entry| entry.address.net()).chain(pool.gateways().map(IpNet::from));
        for net in nets {
            need.add(net);
        }
        need.macs.extend(pool.addresses.iter().filter_map(|entry| entry.mac));
        need.macs.extend(pool.gateway_mac);
        need
    }

    fn of_assignments(registry: &Registry) -> Self {
        let mut need = Self::default();
        for (.., interface, assigned) in registry.assignments() {
            need.add(assigned.address.net());
            need.macs.extend(interface.all_macs());
        }
        need
    }

    fn add(&mut self, net: IpNet) {
        match net {
            IpNet::V4(net) => self.v4.push(blocks4(net)),
            IpNet::V6(net) => self.v6.extend(blocks6(net)),
        }
    }

    fn extend(&mut self, other: &Self) {
        self.v4.extend(&other.v4);
        self.v6.extend(&other.v6);
        self.macs.extend(&other.macs);
    }

    /// How many elements that is in each set.
    fn counts(&self) -> BTreeMap<SetId, usize> {
        BTreeMap::from([
            (SetId::ReservedIp424, count(self.v4.clone())),
            (SetId::ReservedIp632, count(self.v6.clone())),
            (SetId::ReservedMac, self.macs.len()),
        ])
    }

    /// As [`Self::counts`] of the whole registry, or more: what lies beside each other is counted once, what does not is not
    /// looked for. Enough for nearly every registry, and made without a list of all.
    fn at_most(registry: &Registry) -> BTreeMap<SetId, usize> {
        let mut most = AtMost::default();
        for pool in registry.pools.pools.values() {
            for entry in &pool.addresses {
                most.add(entry.address.net());
                most.macs += usize::from(entry.mac.is_some());
            }
            pool.gateways().for_each(|gateway| most.add(gateway.into()));
            most.macs += usize::from(pool.gateway_mac.is_some());
        }
        for guest in registry.guests.values() {
            guest.addresses().for_each(|(.., assigned)| most.add(assigned.address.net()));
            most.macs += guest.interfaces.len();
        }
        BTreeMap::from([
            (SetId::ReservedIp424, most.v4.count),
            (SetId::ReservedIp632, most.v6.count),
            (SetId::ReservedMac, most.macs),
        ])
    }

    /// Whether there is room for another one beside it.
    fn fits_with(&self, other: &Self) -> bool {
        let blocks = |own: &Blocks, others: &Blocks| count(own.iter().chain(others).copied().collect());
        let macs = self.macs.len() + other.macs.iter().filter(|mac| !self.macs.contains(mac)).count();
        blocks(&self.v4, &other.v4) <= room(SetId::ReservedIp424)
            && blocks(&self.v6, &other.v6) <= room(SetId::ReservedIp632)
            && macs <= room(SetId::ReservedMac)
    }

    /// With what lies beside each other put together: of a thousand addresses a few blocks.
    fn joined(mut self) -> Self {
        (self.v4, self.v6) = (joined(self.v4), joined(self.v6));
        self
    }
}

fn blocks4(net: Ipv4Net) -> (u32, u32) {
    (u32::from(net.network()) >> 8, u32::from(net.broadcast()) >> 8)
}

/// None of link-local addresses: the rules look these up one by one.
fn blocks6(net: Ipv6Net) -> Option<(u32, u32)> {
    let block = |address: Ipv6Addr| {
        let [a, b, c, d, ..] = address.octets();
        u32::from_be_bytes([a, b, c, d])
    };
    (!net.network().is_unicast_link_local()).then(|| (block(net.network()), block(net.broadcast())))
}

#[derive(Default)]
struct AtMost {
    v4: Run,
    v6: Run,
    macs: usize,
}

impl AtMost {
    fn add(&mut self, net: IpNet) {
        match net {
            IpNet::V4(net) => self.v4.add(blocks4(net)),
            IpNet::V6(net) => blocks6(net).into_iter().for_each(|blocks| self.v6.add(blocks)),
        }
    }
}

/// How many blocks there are, but for those that are also the last one's.
#[derive(Default)]
struct Run {
    count: usize,
    last: Option<(u32, u32)>,
}

impl Run {
    fn add(&mut self, block: (u32, u32)) {
        if self.last.is_none_or(|last| block.0 < last.0 || last.1 < block.1) {
            let size = u64::from(block.1 - block.0) + 1;
            self.count = self.count.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
            self.last = Some(block);
        }
    }
}

/// Whether everything has room, as far as that is known without a list of all.
fn surely_fits(registry: &Registry) -> bool {
    Need::at_most(registry).iter().all(|(set, count)| *count <= room(*set))
}

/// Sorted and apart.
fn joined(mut blocks: Blocks) -> Blocks {
    blocks.sort_unstable();
    blocks.dedup_by(|next, last| {
        let is_beside = u64::from(next.0) <= u64::from(last.1) + 1;
        if is_beside {
            last.1 = last.1.max(next.1);
        }
        is_beside
    });
    blocks
}

/// Different blocks.
fn count(blocks: Blocks) -> usize {
    let sizes = joined(blocks).into_iter().map(|(first, last)| u64::from(last - first) + 1);
    usize::try_from(sizes.sum::<u64>()).unwrap_or(usize::MAX)
}

/// How much of a set the registry may fill.
fn room(set: SetId) -> usize {
    set.capacity().map_or(usize::MAX, |size| size.saturating_sub(OWN))
}

/// How full a set is by the registry alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// The set.
    pub set: SetId,
    /// Elements that are needed on every node.
    pub needed: usize,
    /// Elements for which there is room.
    pub room: usize,
}

/// How full the sets are that hold something of every pool.
pub fn fill(registry: &Registry) -> Vec<Fill> {
    let mut need = Need::of_assignments(registry);
    for pool in registry.pools.pools.values() {
        need.extend(&Need::of_pool(pool));
    }
    need.counts().into_iter().map(|(set, needed)| Fill { set, needed, room: room(set) }).collect()
}

/// Refuses a change after which less fits than before. A registry that was too large already can be made smaller.
pub fn check(before: &Registry, after: &Registry) -> Result<(), RuleError> {
    if before.pools == after.pools && before.guests == after.guests || surely_fits(after) {
        return Ok(());
    }
    let known = fill(before);
    for now in fill(after).into_iter().filter(|now| now.needed > now.room) {
        if known.iter().any(|known| known.set == now.set && known.needed < now.needed) {
            let pool = largest(&after.pools, now.set);
            return Err(RuleError::NoRoom { set: now.set.name(), needed: now.needed, room: now.room, pool });
        }
    }
    Ok(())
}

/// The pool that needs most of a set, and how much.
fn largest(pools: &PoolsFile, set: SetId) -> Option<(PoolName, usize)> {
    let needs = pools
        .pools
        .iter()
        .map(|(name, pool)| (name.clone(), Need::of_pool(pool).counts().get(&set).copied().unwrap_or_default()));
    needs.max_by_key(|(_, needed)| *needed)
}

/// Pools for which there is no room in a node's filter beside all others: the largest ones, and as few as possible.
pub fn left_out(registry: &Registry) -> BTreeSet<&PoolName> {
    if surely_fits(registry) {
        return BTreeSet::new();
    }
    let mut sorted: Vec<(usize, &PoolName, Need)> = Vec::new();
    for (name, pool) in &registry.pools.pools {
        let need = Need::of_pool(pool).joined();
        let share = |(set, needed): (&SetId, &usize)| needed.saturating_mul(1 << 20) / room(*set).max(1);
        let size = need.counts().iter().map(share).max().unwrap_or_default();
        sorted.push((size, name, need));
    }
    sorted.sort_by_key(|(size, name, _)| (*size, *name));
    let mut taken = Need::of_assignments(registry).joined();
    let mut out = BTreeSet::new();
    for (_, name, need) in &sorted {
        if taken.fits_with(need) {
            taken.extend(need);
            taken = taken.joined();
        } else {
            out.insert(*name);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(pools: &[(&str, &[&str])]) -> Registry {
        let pools: serde_json::Map<String, serde_json::Value> = pools
            .iter()
            .map(|(name, entries)| {
                let entries: Vec<_> = entries.iter().map(|entry| serde_json::json!({ "address": entry })).collect();
                let pool = serde_json::json!({"profile": "generic-bridged", "bridge": "vmbr0", "addresses": entries});
                ((*name).to_owned(), pool)
            })
            .collect();
        let pools = serde_json::from_value(serde_json::json!({ "version": 1, "pools": pools })).unwrap();
        Registry { pools, ..Registry::default() }
    }

    fn needed(registry: &Registry, set: SetId) -> usize {
        fill(registry).into_iter().find(|fill| fill.set == set).unwrap().needed
    }

    #[test]
    fn blocks_are_counted_once() {
        let registry = registry(&[
            ("a", &["203.0.113.8/29", "203.0.113.64/26", "10.0.0.0/16"]),
            ("b", &["2001:db8::/31", "2001:db9:1::/48"]),
        ]);
        assert_eq!(needed(&registry, SetId::ReservedIp424), 257);
        assert_eq!(needed(&registry, SetId::ReservedIp632), 2);
    }

    #[test]
    fn what_a_set_holds_is_what_may_be_written() {
        let refused = |pools: &[(&str, &[&str])]| check(&Registry::default(), &registry(pools)).err();
        // 8192 and 1024, but for what is the node's own.
        for fits in ["10.0.0.0/12", "2001:800::/23"] {
            assert_eq!(refused(&[("a", &[fits])]), None, "{fits}");
        }
        for (large, set, needed) in [
            ("10.0.0.0/8", "reserved_ip4_24", 65536),
            ("10.0.0.0/11", "reserved_ip4_24", 8192),
            ("100.64.0.0/10", "reserved_ip4_24", 16384),
            ("2001:800::/21", "reserved_ip6_32", 2048),
            ("2a00::/16", "reserved_ip6_32", 65536),
        ] {
            let error = refused(&[("lan", &[large])]).unwrap();
            let RuleError::NoRoom { set: found, needed: count, pool, .. } = &error else { panic!("{error}") };
            assert_eq!((*found, *count), (set, needed), "{large}");
            assert_eq!(pool.as_ref().map(|(name, needed)| (name.as_str(), *needed)), Some(("lan", needed)));
        }
        // The sum counts.
        let sum: [(&str, &[&str]); 3] = [("a", &["10.0.0.0/12"]), ("b", &["10.16.0.0/13"]), ("c", &["10.24.0.0/13"])];
        assert!(matches!(refused(&sum), Some(RuleError::NoRoom { needed: 8192, .. })));
        assert_eq!(refused(&sum[..2]), None);
    }

    #[test]
    fn one_that_is_too_large_already_can_be_changed_and_made_smaller() {
        let (large, smaller) = (registry(&[("a", &["10.0.0.0/8"])]), registry(&[("a", &["10.0.0.0/9"])]));
        let beside = registry(&[("a", &["10.0.0.0/8"]), ("b", &["2001:db8::/64"])]);
        assert_eq!(check(&large, &smaller), Ok(()));
        assert_eq!(check(&large, &beside), Ok(()), "no address of the set that is full");
        assert!(check(&smaller, &large).is_err());
    }

    #[test]
    fn the_largest_is_left_out_and_the_rest_is_filtered() {
        let all = registry(&[("a", &["203.0.113.8/29"]), ("lan", &["10.0.0.0/8"]), ("z", &["2001:db8::/64"])]);
        assert_eq!(left_out(&all).iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["lan"]);
        let two = registry(&[("a", &["10.0.0.0/12"]), ("b", &["10.16.0.0/12"]), ("c", &["203.0.113.8/29"])]);
        assert_eq!(left_out(&two).iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["b"]);
        assert!(left_out(&registry(&[("a", &["10.0.0.0/12"])])).is_empty());
    }
}
