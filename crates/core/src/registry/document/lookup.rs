//! What is found in pools by address: entries that overlap, and the entry of an address without a walk over all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::{Pool, PoolAddress, PoolsFile};
use crate::model::{IfName, MacAddr, PoolName, Prefix};
use crate::registry::allocate;

/// Two entries that have addresses in common.
#[derive(Debug, Clone, Copy)]
pub struct Overlap<'a>([(&'a PoolName, Prefix); 2]);

impl<'a> Overlap<'a> {
    /// Whose entries they are.
    pub fn pools(&self) -> [&'a PoolName; 2] {
        self.0.map(|(name, _)| name)
    }
}

impl fmt::Display for Overlap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [(one, first), (two, second)] = self.0;
        write!(f, "has overlapping addresses: {first} in pool `{one}` and {second} in pool `{two}`")
    }
}

/// The first two entries of these pools that overlap.
pub fn overlap<'a>(pools: impl Iterator<Item = (&'a PoolName, &'a Pool)>) -> Option<Overlap<'a>> {
    let entries = pools.flat_map(|(name, pool)| pool.addresses.iter().map(move |entry| (name, entry.address)));
    let mut sorted: Vec<(&PoolName, Prefix)> = entries.collect();
    // Sorted by family and first address, longer prefix last: an overlap is then always with an earlier neighbour.
    sorted.sort_by_key(|(_, address)| *address);
    let pair = sorted.windows(2).find(|pair| pair[0].1.overlaps(pair[1].1))?;
    Some(Overlap([pair[0], pair[1]]))
}

/// The entries of a pool by their first address, for whoever looks up many.
#[derive(Debug)]
pub struct EntryIndex<'a> {
    pool: &'a Pool,
    by_first: Vec<&'a PoolAddress>,
}

impl<'a> EntryIndex<'a> {
    /// Sorts the entries; they are disjoint, as `parse` has seen to.
    pub fn new(pool: &'a Pool) -> Self {
        let mut by_first: Vec<&PoolAddress> = pool.addresses.iter().collect();
        by_first.sort_by_key(|entry| entry.address);
        Self { pool, by_first }
    }

    /// As [`Pool::entry`].
    pub fn entry(&self, prefix: Prefix) -> Option<&'a PoolAddress> {
        let behind = self.by_first.partition_point(|entry| entry.address.first() <= prefix.first());
        let entry = *self.by_first.get(behind.checked_sub(1)?)?;
        entry.address.contains(prefix).then_some(entry)
    }

    /// As [`Pool::gateway`].
    pub fn gateway(&self, prefix: Prefix) -> Option<IpAddr> {
        let common = || self.pool.common_gateway(prefix.family());
        self.entry(prefix).map_or_else(common, |entry| self.pool.gateway_of(entry))
    }
}

/// The entries of all pools by their first address, for whoever looks up many.
#[derive(Debug)]
pub struct PoolIndex<'a>(BTreeMap<&'a PoolName, EntryIndex<'a>>);

impl<'a> PoolIndex<'a> {
    /// Sorts the entries.
    pub fn new(file: &'a PoolsFile) -> Self {
        Self(file.pools.iter().map(|(name, pool)| (name, EntryIndex::new(pool))).collect())
    }

    /// The entries of one pool.
    pub fn of_pool(&self, pool: &PoolName) -> Option<&EntryIndex<'a>> {
        self.0.get(pool)
    }

    /// As [`Pool::entry`].
    pub fn entry(&self, pool: &PoolName, prefix: Prefix) -> Option<&'a PoolAddress> {
        self.of_pool(pool)?.entry(prefix)
    }

    /// Whether a NIC on this bridge with this MAC may be given an address of the pool.
    pub fn suits(&self, pool: &PoolName, address: Prefix, bridge: Option<IfName>, mac: Option<MacAddr>) -> bool {
        let Some((index, entry)) = self.0.get(pool).and_then(|index| Some((index, index.entry(address)?))) else {
            return false;
        };
        let is_right = match entry.mac {
            Some(expected) => mac == Some(expected),
            None => mac.is_some() && !index.pool.provider_mac(),
        };
        is_right && bridge == Some(index.pool.bridge) && allocate::check_entry(pool, index.pool, entry, address).is_ok()
    }

    /// Whether any NIC on this bridge may be given the next free address of the pool, whatever its MAC.
    pub fn is_for_any(&self, pool: &PoolName, bridge: Option<IfName>) -> bool {
        let suits = |index: &EntryIndex<'_>| bridge == Some(index.pool.bridge) && !index.pool.provider_mac();
        self.0.get(pool).is_some_and(suits)
    }

    /// The name of the pool, if there is one only.
    pub fn only_name(&self) -> Option<&'a PoolName> {
        let mut names = self.0.keys().copied();
        names.next().filter(|_| names.next().is_none())
    }

    /// The pool that an address is of.
    pub fn pool_of(&self, address: IpAddr) -> Option<&'a PoolName> {
        let prefix = Prefix::host(address).ok()?;
        self.0.keys().find(|pool| self.entry(pool, prefix).is_some()).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::registry::document::parse;

    #[test]
    fn index_finds_what_a_search_finds() {
        let text = r#"{"version":1,"pools":{"a":{"profile":"generic-bridged","bridge":"vmbr0","addresses":[
            {"address":"203.0.113.64/26"},{"address":"203.0.113.8/32"},{"address":"2001:db8::/64"}]}}}"#;
        let file: PoolsFile = parse(Path::new("pools.json"), text.as_bytes()).unwrap();
        let (name, pool) = file.pools.iter().next().unwrap();
        let index = PoolIndex::new(&file);
        let mut found = 0;
        for prefix in [
            "203.0.113.7",
            "203.0.113.8",
            "203.0.113.9",
            "203.0.113.64",
            "203.0.113.127",
            "203.0.113.128",
            "203.0.113.0/24",
            "203.0.113.96/29",
            "2001:db8::5",
            "2001:db8:0:1::",
            "2001:db7::",
            "10.0.0.1",
        ] {
            let prefix: Prefix = prefix.parse().unwrap();
            assert_eq!(index.entry(name, prefix), pool.entry(prefix), "{prefix}");
            found += usize::from(index.entry(name, prefix).is_some());
        }
        assert_eq!(found, 5);
        assert_eq!(index.entry(&"b".parse().unwrap(), "203.0.113.8".parse().unwrap()), None);
    }
}
