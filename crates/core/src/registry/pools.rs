//! Pools as wholes: created, changed, removed, and what follows for those who hold addresses of them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::document::{EntryIndex, GuestFile, Pool, PoolAddress};
use super::{Registry, RuleError};
use crate::model::{NicId, PoolName, Prefix, Vmid};

/// What a pool has lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolLoss {
    /// Whether there was such a pool.
    pub existed: bool,
    /// Its entries that were removed.
    pub removed: Vec<Prefix>,
    /// What it did not have, with the pool that has it.
    pub absent: Vec<(Prefix, Option<PoolName>)>,
}

/// A gateway that changed under a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rerouted {
    /// The guest.
    pub vmid: Vmid,
    /// Its NIC.
    pub nic: NicId,
    /// Its address.
    pub address: Prefix,
    /// The gateway before.
    pub before: Option<IpAddr>,
    /// The gateway now.
    pub after: Option<IpAddr>,
}

impl Registry {
    /// Adds a pool.
    pub fn create_pool(&mut self, name: PoolName, pool: Pool) -> Result<(), RuleError> {
        self.whole()?;
        if self.pools.pools.contains_key(&name) {
            return Err(RuleError::PoolExists(name));
        }
        let entries = pool.addresses.clone();
        self.pools.pools.insert(name.clone(), Pool { addresses: Vec::new(), ..pool });
        self.put_entries(&name, entries)
    }

    /// Changes what the addresses of a pool have in common.
    pub fn change_pool<T>(&mut self, name: &PoolName, change: impl FnOnce(&mut Pool) -> T) -> Result<T, RuleError> {
        self.whole()?;
        let known = || self.pools.pools.keys().cloned().collect();
        let missing = RuleError::NoPool(name.clone(), known());
        self.pools.pools.get_mut(name).map(change).ok_or(missing)
    }

    /// Removes entries of a pool, or the pool if none is named. What is assigned stays. What the pool does not have is removed
    /// already; but a part of an entry, or more than one, is not.
    pub fn remove_from_pool(&mut self, name: &PoolName, addresses: &[Prefix]) -> Result<PoolLoss, RuleError> {
        self.whole()?;
        let mut loss = PoolLoss { existed: self.pools.pools.contains_key(name), ..PoolLoss::default() };
        for address in addresses {
            let overlapping = |pool: &Pool| {
                let overlaps = |entry: &&PoolAddress| entry.address.overlaps(*address);
                pool.addresses.iter().find(overlaps).map(|entry| entry.address)
            };
            match self.pools.pools.get(name).and_then(overlapping) {
                Some(entry) if entry == *address => loss.removed.push(*address),
                Some(_) => return Err(RuleError::NoEntry { pool: name.clone(), address: *address }),
                None => {
                    let other = self.pools.pools.iter().find(|(_, pool)| overlapping(pool).is_some());
                    loss.absent.push((*address, other.map(|(name, _)| name.clone())));
                }
            }
        }
        let leaves = |prefix: Prefix| addresses.is_empty() || addresses.iter().any(|entry| entry.contains(prefix));
        let holder = self.assignments().find(|(.., assigned)| assigned.pool == *name && leaves(assigned.address));
        if let Some((vmid, .., assigned)) = holder {
            return Err(RuleError::InUse { address: assigned.address, pool: name.clone(), vmid });
        }
        if addresses.is_empty() {
            self.pools.pools.remove(name);
        } else if let Some(pool) = self.pools.pools.get_mut(name) {
            pool.addresses.retain(|entry| !addresses.contains(&entry.address));
        }
        Ok(loss)
    }

    /// That no guest holds an address which has become a gateway of a pool.
    pub fn check_gateways(&self, name: &PoolName, before: Option<&Pool>) -> Result<(), RuleError> {
        let known: BTreeSet<IpAddr> = before.into_iter().flat_map(Pool::gateways).collect();
        let new: BTreeSet<IpAddr> = self.pool(name)?.gateways().filter(|gateway| !known.contains(gateway)).collect();
        let is_new = |address: Prefix| address.single().filter(|address| new.contains(address));
        let held = self.assignments().find_map(|(vmid, .., held)| Some((is_new(held.address)?, vmid)));
        held.map_or(Ok(()), |(gateway, vmid)| Err(RuleError::GatewayHeld { gateway, pool: name.clone(), vmid }))
    }

    /// Gives what is assigned the gateway that its pool has now, where that changed. `before` is the pool as it was: an
    /// assignment that had another gateway than that was given it by hand, and keeps it. One that has none gets one.
    pub fn follow_gateways(&mut self, name: &PoolName, before: &Pool) -> Vec<Rerouted> {
        let Some(pool) = self.pools.pools.get(name) else { return Vec::new() };
        let (old, new) = (EntryIndex::new(before), EntryIndex::new(pool));
        let mut rerouted = Vec::new();
        let has_any = |guest: &GuestFile| guest.addresses().any(|(.., assigned)| assigned.pool == *name);
        let concerned: Vec<Vmid> =
            self.guests.iter().filter(|(_, guest)| has_any(guest)).map(|(vmid, _)| *vmid).collect();
        for vmid in &concerned {
            let Some(guest) = self.guests.get_mut(vmid) else { continue };
            for (nic, interface) in &mut guest.interfaces {
                for assigned in interface.addresses.iter_mut().filter(|assigned| assigned.pool == *name) {
                    let (was, after) = (old.gateway(assigned.address), new.gateway(assigned.address));
                    let is_ours = assigned.gateway == was || assigned.gateway.is_none();
                    if is_ours && was != after && assigned.gateway != after {
                        let (vmid, nic, address, before) = (*vmid, *nic, assigned.address, assigned.gateway);
                        rerouted.push(Rerouted { vmid, nic, address, before, after });
                        assigned.gateway = after;
                    }
                }
            }
        }
        rerouted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::fixtures::{A, registry, request};

    #[test]
    fn what_is_assigned_follows_the_gateway_of_its_pool() {
        let mut registry = registry();
        let lan: PoolName = "lan".parse().unwrap();
        registry.assign(&request("100", A, &["203.0.113.2", "203.0.113.3", "2001:db8::5"])).unwrap();
        let by_hand = "203.0.113.4".parse().unwrap();
        let interfaces = &mut registry.guests.get_mut(&"100".parse().unwrap()).unwrap().interfaces;
        interfaces.get_mut(&NicId::FIRST).unwrap().addresses[1].gateway = Some(by_hand);
        let old = registry.pool(&lan).unwrap().clone();
        let set = |pool: &mut Pool| {
            pool.gateway4 = Some("203.0.113.6".parse().unwrap());
            pool.gateway6 = Some("fe80::1".parse().unwrap());
        };
        registry.change_pool(&lan, set).unwrap();
        let shown = |change: &Rerouted| {
            let shown = |gateway: Option<IpAddr>| gateway.map_or("none".to_owned(), |gateway| gateway.to_string());
            format!("{} {} -> {}", change.address, shown(change.before), shown(change.after))
        };
        let changes: Vec<String> = registry.follow_gateways(&lan, &old).iter().map(shown).collect();
        assert_eq!(changes, ["203.0.113.2 203.0.113.1 -> 203.0.113.6", "2001:db8::5 none -> fe80::1"]);
        assert_eq!(registry.follow_gateways(&lan, &old), [], "once");
        let old = registry.pool(&lan).unwrap().clone();
        registry.change_pool(&lan, |pool| pool.gateway4 = Some("203.0.113.2".parse().unwrap())).unwrap();
        let error = registry.check_gateways(&lan, Some(&old)).unwrap_err();
        assert_eq!(error.to_string(), "203.0.113.2 cannot be the gateway of pool `lan`: guest 100 holds it");
    }

    #[test]
    fn what_is_assigned_keeps_its_pool() {
        let mut registry = registry();
        registry.assign(&request("100", A, &["203.0.113.2"])).unwrap();
        let lan = "lan".parse().unwrap();
        let message = registry.remove_from_pool(&lan, &[]).unwrap_err().to_string();
        assert_eq!(message, "203.0.113.2 of pool `lan` is assigned to guest 100");
        registry.remove_from_pool(&lan, &["2001:db8::/64".parse().unwrap()]).unwrap();
        let again = registry.remove_from_pool(&lan, &["2001:db8::/64".parse().unwrap()]).unwrap();
        assert_eq!((again.removed.len(), again.absent.len(), again.existed), (0, 1, true));
        let message = registry.remove_from_pool(&lan, &["203.0.113.4/30".parse().unwrap()]).unwrap_err().to_string();
        assert_eq!(message, "pool `lan` has no entry 203.0.113.4/30");
    }
}
