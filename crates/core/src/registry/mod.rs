//! The registry: pools and assignments, the authority on who owns which address.
//!
//! The rules live here and are pure: every change is checked against the whole registry before anybody writes it:
//! - pools do not overlap;
//! - an address has one holder;
//! - a MAC belongs to one guest NIC, unless two NICs of one guest share an assignment (a bond).

mod allocate;
mod assign;
pub mod beside;
mod conflicts;
mod cool_down;
pub mod document;
pub mod entries;
#[cfg(test)]
mod fixtures;
mod held;
mod index;
mod inventory;
pub mod layout;
mod passed_over;
pub mod places;
mod pools;
mod prefixes;
pub mod releases;
pub mod room;
mod rows;
mod rules;
mod search;
pub mod shared;
mod spans;
mod strict;
pub mod wishes;
mod withheld;

use std::collections::BTreeSet;
use std::path::PathBuf;

use ipnet::IpNet;

pub use allocate::capacity;
pub use assign::{Asking, AssignRequest, Quantity};
pub use conflicts::conflicts_among;
use document::{
    Assigned, Document as _, DocumentError, GuestFile, Interface, Mode, NodeFile, Pool, PoolAddress, PoolsFile,
    ReleasedFile,
};
pub use entries::{Edit, EntryChange};
pub use index::Index;
pub use inventory::{Inventory, Near, Run, Totals};
pub use passed_over::{InUse, PassedOver};
pub use places::{Misplaced, misplaced};
pub use pools::{PoolLoss, Rerouted};
pub use prefixes::{Holders, Holding};
pub use rules::RuleError;
use shared::SharedMap;
pub use spans::{Span, State};
pub use withheld::Withheld;

use crate::model::{IfName, Moment, NicId, PoolName, Prefix, Vmid};

/// Everything that the registry's files say, as far as they could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    /// `pools.json`.
    pub pools: PoolsFile,
    /// `guests/<vmid>.json`.
    pub guests: SharedMap<Vmid, GuestFile>,
    /// `released.json`.
    pub released: ReleasedFile,
    /// `nodes/<node>.json` of this node.
    pub node: Option<NodeFile>,
    /// Files that could not be used. One broken guest must not stop the others, so they are kept beside the rest;
    /// a change that needs the whole registry is refused as long as there is one.
    pub broken: Vec<DocumentError>,
    /// Those of them in whose place the last known good copy counts. Never so in a registry that is to be changed.
    pub recalled: BTreeSet<PathBuf>,
    /// If `pools.json` cannot be used and no copy of it is known: the bridges that it seems to name.
    pub lost_pools: Option<BTreeSet<IfName>>,
}

impl Registry {
    /// The first unreadable file, as an error: a rule about the whole registry needs the whole registry.
    fn whole(&self) -> Result<(), RuleError> {
        self.broken.first().map_or(Ok(()), |error| Err(error.clone().into()))
    }

    /// A pool by name.
    pub fn pool(&self, name: &PoolName) -> Result<&Pool, RuleError> {
        let missing = || RuleError::NoPool(name.clone(), self.pools.pools.keys().cloned().collect());
        // A pool may be missing because the file cannot be read.
        let own = format!("pools/{name}.json");
        let is_of_pools = |error: &&DocumentError| error.path.ends_with("pools.json") || error.path.ends_with(&own);
        let broken = || self.broken.iter().find(is_of_pools).cloned();
        self.pools.pools.get(name).ok_or_else(|| broken().map_or_else(missing, RuleError::Broken))
    }

    /// The pool whose entry holds `prefix` whole.
    pub fn pool_of(&self, prefix: Prefix) -> Option<(&PoolName, &Pool)> {
        self.pools.pools.iter().find(|(_, pool)| pool.entry(prefix).is_some())
    }

    /// Whether an assignment may be in a file that cannot be read, so that "free" would be a guess.
    pub fn is_partial(&self) -> bool {
        self.broken.iter().any(|error| !self.recalled.contains(&error.path))
    }

    /// Whether there is a pool whose addresses are routed to their guests.
    pub fn has_routed(&self) -> bool {
        self.pools.pools.values().any(|pool| pool.mode() == Mode::Routed)
    }

    /// Every assignment of the registry.
    pub fn assignments(&self) -> impl Iterator<Item = (Vmid, NicId, &Interface, &Assigned)> {
        self.guests.iter().flat_map(|(vmid, guest)| {
            guest.addresses().map(move |(nic, interface, assigned)| (*vmid, nic, interface, assigned))
        })
    }

    /// Changes what a guest's NIC may do.
    pub fn change_interface<T>(
        &mut self,
        vmid: Vmid,
        nic: NicId,
        change: impl FnOnce(&mut Interface) -> T,
    ) -> Result<T, RuleError> {
        self.whole()?;
        let missing = RuleError::NoInterface { vmid, nic };
        let guest = self.guests.get_mut(&vmid).ok_or(missing.clone())?;
        let changed = change(guest.interfaces.get_mut(&nic).ok_or(missing)?);
        guest.contradiction().map_or(Ok(changed), |reason| Err(RuleError::Contradiction { vmid, reason }))
    }

    /// The addresses of each entry of a pool, as spans of addresses in the same state.
    pub fn spans<'a>(&'a self, pool: &'a Pool, own: &[IpNet], now: Moment) -> Vec<(&'a PoolAddress, Vec<Span<'a>>)> {
        let inventory = Inventory::of(self, own, now);
        pool.addresses.iter().map(|entry| (entry, inventory.spans(pool, entry))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fixtures::{A, registry, request};

    #[test]
    fn a_broken_file_stops_every_change() {
        let mut registry = registry();
        registry.broken.push(DocumentError::new(std::path::Path::new("/x/7.json"), "is empty", "restore it"));
        let message = registry.assign(&request("100", A, &["203.0.113.2"])).unwrap_err().to_string();
        assert_eq!(message, "`/x/7.json` is empty");
    }
}
