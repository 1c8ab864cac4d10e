//! Where the rules of an assignment look: in the whole registry for one, in an index for thousands in a row.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Registry;
use super::document::{GuestFile, Pool, PoolAddress};
use super::prefixes::PrefixMap;
use super::withheld::{Withheld, of_node};
use crate::model::{MacAddr, PoolName, Prefix, Vmid};

/// What the rules of an assignment look for, sorted: to make it takes as long as some assignments without it.
///
/// It names guests and entries and says nothing of them: the rules read these in the registry.
#[derive(Debug, Default)]
pub struct Index {
    pools: Vec<PoolName>,
    /// Which entry of which pool, by address; entries have no address in common.
    entries: Vec<(Prefix, usize, usize)>,
    /// The first pool of which an address is a gateway.
    gateways: BTreeMap<IpAddr, PoolName>,
    holders: PrefixMap<BTreeSet<Vmid>>,
    by_mac: BTreeMap<MacAddr, BTreeSet<Vmid>>,
}

impl Index {
    /// Sorts a registry.
    pub fn of(registry: &Registry) -> Self {
        let mut index = Self::default();
        for (number, (name, pool)) in registry.pools.pools.iter().enumerate() {
            index.pools.push(name.clone());
            let entries = pool.addresses.iter().enumerate();
            index.entries.extend(entries.map(|(at, entry)| (entry.address, number, at)));
            for gateway in pool.gateways() {
                index.gateways.entry(gateway).or_insert_with(|| name.clone());
            }
        }
        index.entries.sort();
        for (vmid, guest) in &registry.guests {
            for interface in guest.interfaces.values() {
                for assigned in &interface.addresses {
                    index.holders.entry(assigned.address).insert(*vmid);
                }
                for mac in interface.all_macs() {
                    index.by_mac.entry(mac).or_default().insert(*vmid);
                }
            }
        }
        index
    }

    fn entry(&self, address: Prefix) -> Option<(&PoolName, usize)> {
        let behind = self.entries.partition_point(|(entry, ..)| entry.first() <= address.first());
        let (entry, pool, at) = self.entries.get(behind.checked_sub(1)?)?;
        entry.contains(address).then_some((self.pools.get(*pool)?, *at))
    }
}

/// Where what the rules need is looked for. Both places say the same.
pub(super) enum Where<'i> {
    /// In the whole registry.
    Anywhere,
    /// Where the index says.
    Indexed(&'i mut Index),
}

/// Some guests of a registry, in order.
type Guests<'r> = Box<dyn Iterator<Item = (&'r Vmid, &'r GuestFile)> + 'r>;

impl Where<'_> {
    /// The entry that holds a prefix whole, and its pool.
    pub(super) fn entry<'r>(
        &self,
        registry: &'r Registry,
        address: Prefix,
    ) -> Option<(&'r PoolName, &'r Pool, &'r PoolAddress)> {
        match self {
            Self::Anywhere => {
                let mut pools = registry.pools.pools.iter();
                pools.find_map(|(name, pool)| Some((name, pool, pool.entry(address)?)))
            }
            Self::Indexed(index) => {
                let (name, at) = index.entry(address)?;
                let (name, pool) = registry.pools.pools.get_key_value(name)?;
                Some((name, pool, pool.addresses.get(at)?))
            }
        }
    }

    /// Why no guest gets an address, if so; `own` is what the node has itself.
    pub(super) fn withheld(&self, registry: &Registry, own: &[IpNet], address: IpAddr) -> Option<String> {
        let of_node = of_node(own).find(|(withheld, _)| *withheld == address);
        let reason = of_node.map(|(_, reason)| reason.to_string());
        reason.or_else(|| match self {
            Self::Anywhere => {
                let mut gateways = registry.gateways();
                gateways.find(|(gateway, _)| *gateway == address).map(|(_, reason)| reason.to_string())
            }
            Self::Indexed(index) => index.gateways.get(&address).map(|pool| Withheld::Gateway(pool).to_string()),
        })
    }

    /// The guests that may hold something of a prefix or around it.
    pub(super) fn holders<'r>(&self, registry: &'r Registry, address: Prefix) -> Guests<'r> {
        match self {
            Self::Anywhere => Box::new(registry.guests.iter()),
            Self::Indexed(index) => among(registry, index.holders.overlapping(address).flatten().copied().collect()),
        }
    }

    /// The guest, and those that may have a NIC with this MAC.
    pub(super) fn with_mac<'r>(&self, registry: &'r Registry, vmid: Vmid, mac: MacAddr) -> Guests<'r> {
        match self {
            Self::Anywhere => Box::new(registry.guests.iter()),
            Self::Indexed(index) => {
                let others = index.by_mac.get(&mac).into_iter().flatten().copied();
                among(registry, others.chain([vmid]).collect())
            }
        }
    }

    /// Notes what a guest is about to hold.
    pub(super) fn note(&mut self, vmid: Vmid, macs: impl Iterator<Item = MacAddr>, address: Prefix) {
        let Self::Indexed(index) = self else { return };
        index.holders.entry(address).insert(vmid);
        for mac in macs {
            index.by_mac.entry(mac).or_default().insert(vmid);
        }
    }
}

fn among(registry: &Registry, vmids: BTreeSet<Vmid>) -> Guests<'_> {
    Box::new(vmids.into_iter().filter_map(|vmid| registry.guests.get_key_value(&vmid)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::NicId;
    use crate::registry::AssignRequest;
    use crate::registry::fixtures::request;

    /// Two pools with entries of both families, single addresses and prefixes, with and without MACs and gateways of their own.
    fn registry() -> Registry {
        let pools = json!({"version": 1, "pools": {
            "a": {"profile": "generic-bridged", "bridge": "vmbr0", "gateway4": "203.0.113.1", "addresses": [
                {"address": "203.0.113.16/28"}, {"address": "203.0.113.0/29"}, {"address": "2001:db8::/64"}]},
            "b": {"profile": "ovh-bridged", "bridge": "vmbr0", "addresses": [
                {"address": "203.0.113.40", "mac": "02:00:00:00:00:01", "gateway": "203.0.113.17"},
                {"address": "203.0.113.32/29", "mac": "02:00:00:00:00:02"}, {"address": "203.0.113.41"}]},
        }});
        Registry { pools: serde_json::from_value(pools).unwrap(), ..Registry::default() }
    }

    /// What is asked for: guest, NIC, MAC, addresses by number, and in which way.
    type Wish = (u8, u8, u8, Vec<(u8, u8)>, u8);

    fn wish() -> impl Strategy<Value = Wish> {
        (0..4u8, 0..2u8, 0..4u8, proptest::collection::vec((0..56u8, 0..6u8), 1..4), 0..8u8)
    }

    fn asked((guest, nic, mac, addresses, way): &Wish) -> AssignRequest {
        let address = |(low, kind): &(u8, u8)| match kind {
            0 => format!("203.0.113.{}/30", low & !3),
            1 => format!("2001:db8::{low:x}"),
            2 => "2001:db8::/80".to_owned(),
            _ => format!("203.0.113.{low}"),
        };
        let addresses: Vec<String> = addresses.iter().map(address).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut request = request(&format!("10{guest}"), &format!("02:00:00:00:00:0{mac}"), &addresses);
        let nic: NicId = format!("net{nic}").parse().unwrap();
        for (own, _) in &mut request.nics {
            *own = nic;
        }
        if *way == 1 {
            request.shared = Some("group".parse().unwrap());
        }
        if *way == 2 {
            request.pool = Some("a".parse().unwrap());
        }
        if *way == 3 {
            request.addresses.clear();
            request.pool = Some("a".parse().unwrap());
        }
        if *way == 4 {
            request.via = Some("203.0.113.20".parse().unwrap());
        }
        request.avoid = vec!["203.0.113.19/29".parse().unwrap()];
        request
    }

    proptest! {
        /// However they come one after the other, also after one was refused half way: the index changes nothing.
        #[test]
        fn an_index_says_what_a_walk_says(wishes in proptest::collection::vec(wish(), 1..24), known in 0..12usize) {
            let mut walked = registry();
            let known = known.min(wishes.len());
            for wish in &wishes[..known] {
                let _ = walked.assign(&asked(wish));
            }
            let mut indexed = walked.clone();
            let mut index = Index::of(&indexed);
            for wish in &wishes[known..] {
                let request = asked(wish);
                let found = indexed.assign_indexed(&mut index, &request);
                prop_assert_eq!(walked.assign(&request), found, "{:?}", request);
                prop_assert_eq!(&walked, &indexed);
            }
        }
    }

    #[test]
    fn what_is_refused_and_given_is_seen_by_both() {
        let mut registry = registry();
        let mut index = Index::of(&registry);
        let mut tell = |wish: Wish| match registry.assign_indexed(&mut index, &asked(&wish)) {
            Ok(new) => new.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        };
        assert_eq!(tell((0, 0, 1, vec![(20, 3)], 0)), "203.0.113.20");
        assert_eq!(tell((1, 0, 2, vec![(20, 3)], 0)), "203.0.113.20 is held by guest 100");
        assert_eq!(tell((1, 0, 2, vec![(20, 0)], 0)), "203.0.113.20/30 is held by guest 100, which holds 203.0.113.20");
        assert_eq!(tell((1, 0, 1, vec![(21, 3)], 0)), "MAC 02:00:00:00:00:01 is that of guest 100 net0 already");
        assert_eq!(
            tell((2, 0, 3, vec![(16, 3)], 0)),
            "203.0.113.16 is the network address of 203.0.113.16/29, in which this node is"
        );
        assert_eq!(tell((2, 0, 3, vec![(17, 3)], 0)), "203.0.113.17 is the gateway of pool `b`");
        assert_eq!(tell((2, 0, 3, vec![(55, 3)], 0)), "203.0.113.55 is in no pool");
    }
}
