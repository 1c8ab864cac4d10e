//! The search for what is handed out next: the lowest addresses of a pool that are free for a NIC, or why there is none.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::allocate::{self, Busy};
use super::document::{GuestFile, Pool, PoolAddress, Released};
use super::prefixes::PrefixMap;
use super::{Asking, AssignRequest, Holders, Quantity, Registry, RuleError};
use crate::model::{Family, MacAddr, Moment, PoolName, Prefix};

/// A search for free addresses of a pool.
pub(super) struct Search<'a> {
    registry: &'a Registry,
    request: &'a AssignRequest,
    name: &'a PoolName,
    pool: &'a Pool,
    /// Families of the pool's entries.
    pub(super) present: BTreeSet<Family>,
    /// What cools down for others, with the time at which it is free, the first to be free first.
    cooling: Vec<(Moment, Prefix, &'a Released)>,
    /// What is held, or cools down.
    kept: Busy,
    /// The same, and what is contested.
    contested: Busy,
    avoid: BTreeSet<IpAddr>,
    /// The same without what somebody uses.
    withheld: BTreeSet<IpAddr>,
}

/// The entries of a pool for a NIC with this MAC.
pub(super) fn fitting(pool: &Pool, mac: Option<MacAddr>) -> Vec<&PoolAddress> {
    let fits = |entry: &&PoolAddress| match entry.mac {
        Some(bound) => mac.is_none_or(|mac| bound == mac),
        None => mac.is_none() || !pool.provider_mac(),
    };
    pool.addresses.iter().filter(fits).collect()
}

/// What a search comes to.
pub(super) enum Next {
    /// They are free.
    Take(Vec<Prefix>),
    /// These are, if the network has nothing against them.
    Ask(Vec<Prefix>),
}

impl<'a> Search<'a> {
    pub(super) fn new(registry: &'a Registry, request: &'a AssignRequest, name: &'a PoolName, pool: &'a Pool) -> Self {
        let held = Busy::of(registry.assignments().map(|(.., assigned)| assigned.address));
        let cooling = registry.cooling(request.vmid, request.now).filter(|(prefix, ..)| !held.meets(*prefix));
        let mut cooling: Vec<(Moment, Prefix, &Released)> =
            cooling.map(|(prefix, released, free_at)| (free_at, prefix, released)).collect();
        cooling.sort_unstable_by_key(|(free_at, prefix, _)| (*free_at, *prefix));
        let withheld: BTreeSet<IpAddr> = registry.withheld(&request.avoid).map(|(address, _)| address).collect();
        let kept = held.with(cooling.iter().map(|(_, prefix, _)| *prefix));
        Self {
            registry,
            request,
            name,
            pool,
            present: pool.addresses.iter().map(|entry| entry.address.family()).collect(),
            cooling,
            contested: kept.clone().with(request.contested.keys().copied()),
            kept,
            avoid: withheld.iter().chain(request.in_use.keys()).copied().collect(),
            withheld,
        }
    }

    pub(super) fn exhausted(&self, family: Family) -> RuleError {
        RuleError::Exhausted { pool: self.name.clone(), family, other_family: self.present.len() > 1 }
    }

    /// The entries for a NIC with this MAC: an address that the provider bound to another one is not free for it.
    pub(super) fn fitting(&self, mac: Option<MacAddr>) -> Vec<&'a PoolAddress> {
        fitting(self.pool, mac)
    }

    /// The first address that the provider bound to a MAC.
    pub(super) fn first_bound(&self, mac: MacAddr) -> Option<Prefix> {
        self.pool.addresses.iter().filter(|entry| entry.mac == Some(mac)).map(|entry| entry.address).min()
    }

    pub(super) fn free<'b>(
        &'b self,
        entries: &'b [&'b PoolAddress],
        family: Family,
    ) -> impl Iterator<Item = Prefix> + 'b {
        allocate::free(self.pool, entries, family, &self.contested, &self.avoid)
    }

    /// What the NICs of the request hold of the pool, lowest first.
    pub(super) fn held(&self, family: Family) -> BTreeSet<Prefix> {
        let guest = self.registry.guests.get(&self.request.vmid).into_iter();
        let own = guest.flat_map(GuestFile::addresses);
        let own = own.filter(|(nic, ..)| self.request.nics.iter().any(|(id, _)| id == nic));
        let of_pool = own.filter(|(.., assigned)| assigned.pool == *self.name && assigned.address.family() == family);
        of_pool.map(|(.., assigned)| assigned.address).collect()
    }

    /// How many addresses of a family are missing for a NIC that holds so many.
    pub(super) fn missing(&self, held: usize) -> usize {
        match self.request.quantity {
            Quantity::UpTo(count) => count.saturating_sub(held),
            Quantity::More(count) => count,
        }
    }

    pub(super) fn next(&self, entries: &[&PoolAddress], family: Family, count: usize) -> Result<Next, RuleError> {
        let asking = self.request.asking.as_ref().filter(|asking| asking.pools.contains(self.name));
        let found: Vec<Prefix> = if let Some(Asking { asked, ahead, .. }) = asking {
            // What was asked about was the lowest then; some of it is somebody's by now, and something lower may be free.
            let ahead = (*ahead).max(count);
            let lowest = self.free(entries, family).take(ahead.saturating_add(asked.len()));
            let (known, unknown): (Vec<Prefix>, Vec<Prefix>) = lowest.partition(|address| asked.contains(address));
            if known.len() < count && !unknown.is_empty() {
                return Ok(Next::Ask(unknown.into_iter().take(ahead).collect()));
            }
            known.into_iter().take(count).collect()
        } else {
            self.free(entries, family).take(count).collect()
        };
        if found.len() == count {
            return Ok(Next::Take(found));
        }
        // With what is contested there are enough: that is refused later, with the reason.
        let contested = allocate::free(self.pool, entries, family, &self.kept, &self.avoid).take(count);
        let contested: Vec<Prefix> = contested.collect();
        if contested.len() == count {
            return Ok(Next::Take(contested));
        }
        let (vmid, free) = (self.request.vmid, found.len());
        if free == 0 {
            return Err(self.refusal(entries, family));
        }
        Err(RuleError::TooFew { pool: self.name.clone(), family, vmid, free, wanted: count })
    }

    /// Why there is none.
    pub(super) fn refusal(&self, entries: &[&PoolAddress], family: Family) -> RuleError {
        // What cools down with another MAC comes last: to be free is not all that it lacks.
        let all: Vec<&PoolAddress> = self.pool.addresses.iter().collect();
        self.first_to_cool(entries, family)
            .or_else(|| self.only_in_use(entries, family))
            .or_else(|| self.other_mac(family))
            .or_else(|| self.first_to_cool(&all, family))
            .unwrap_or_else(|| self.exhausted(family))
    }

    /// An address that would be free if nobody used it.
    fn only_in_use(&self, entries: &[&PoolAddress], family: Family) -> Option<RuleError> {
        let address = allocate::free(self.pool, entries, family, &self.kept, &self.withheld).next()?;
        let used = self.request.in_use.get(&address.single()?)?.clone();
        Some(RuleError::OnlyInUse { pool: self.name.clone(), address, used, vmid: self.request.vmid })
    }

    /// The address that cools down the shortest.
    fn first_to_cool(&self, entries: &[&PoolAddress], family: Family) -> Option<RuleError> {
        let holders = Holders::of(self.registry);
        let mut by_prefix = PrefixMap::<Option<usize>>::default();
        for (at, (_, prefix, _)) in self.cooling.iter().enumerate() {
            *by_prefix.entry(*prefix) = Some(at);
        }
        let mut fitting = PrefixMap::<Option<&PoolAddress>>::default();
        for entry in entries {
            *fitting.entry(entry.address) = Some(entry);
        }
        let of_family = self.cooling.iter().enumerate().filter(|(_, (_, prefix, _))| prefix.family() == family);
        of_family.into_iter().find_map(|(at, (free_at, prefix, released))| {
            let held = holders.overlapping(*prefix).map(|(.., assigned)| assigned.address);
            let longer = by_prefix.overlapping(*prefix).flatten().filter(|other| **other > at);
            let busy = Busy::of(held.chain(longer.map(|other| self.cooling[*other].1)));
            let mut entries = fitting.overlapping(*prefix).flatten();
            let address =
                entries.find_map(|entry| allocate::free_in(self.pool, entry, *prefix, &busy, &self.avoid).next())?;
            let (pool, released, vmid) = (self.name.clone(), Released::clone(released), self.request.vmid);
            let bound = self.pool.entry(address).and_then(|entry| entry.mac);
            let other_mac = bound.filter(|mac| self.request.nics.first().is_some_and(|(_, actual)| actual != mac));
            Some(RuleError::Cooling { pool, address, released, free_at: *free_at, vmid, other_mac })
        })
    }

    /// An address that is free for a NIC with another MAC, or would be if its MAC were known.
    fn other_mac(&self, family: Family) -> Option<RuleError> {
        let (nic, actual) = *self.request.nics.first()?;
        let registered = self.registry.registered_macs(self.request.vmid);
        let foreign: BTreeSet<MacAddr> = registered.chain(self.request.foreign.iter().copied()).collect();
        let (bound, unknown): (Vec<&PoolAddress>, Vec<&PoolAddress>) = self
            .pool
            .addresses
            .iter()
            .filter(|entry| entry.mac != Some(actual) && entry.mac.is_none_or(|mac| !foreign.contains(&mac)))
            .partition(|entry| entry.mac.is_some());
        let (vmid, pool) = (self.request.vmid, self.name.clone());
        if let Some(address) = self.free(&bound, family).next() {
            let expected = self.pool.entry(address)?.mac?;
            let net = nic.net_option();
            let only = if self.present.len() > 1 { format!(" -{family}") } else { String::new() };
            let is_fixed = self.registry.has_interface(vmid, nic);
            let set_mac = (!is_fixed).then(|| format!("--pool {pool}{net}{only}"));
            return Some(RuleError::OtherMac { pool, address, expected, vmid, nic, actual, set_mac });
        }
        let unknown: Vec<&PoolAddress> = unknown.into_iter().filter(|_| self.pool.provider_mac()).collect();
        let address = self.free(&unknown, family).next()?;
        let address = self.pool.entry(address).map_or(address, |entry| entry.address);
        Some(RuleError::NoProviderMac { address, pool, profile: self.pool.profile_name().to_owned() })
    }
}
