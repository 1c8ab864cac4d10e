//! Prefixes to be looked up by what they overlap, and who holds them: ten thousand addresses are compared with ten thousand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Registry;
use super::document::{Assigned, GuestFile, Interface};
use crate::model::address::{ranges4, ranges6};
use crate::model::{Family, MacAddr, NicId, Prefix, Vmid};

/// Values by prefix; one prefix may lie inside another. A look-up costs the logarithm of their number.
#[derive(Debug)]
pub(super) struct PrefixMap<T> {
    by_prefix: BTreeMap<IpNet, T>,
    /// Family and length of the prefixes that occur: around a prefix there can be no others.
    lengths: BTreeSet<(Family, u8)>,
}

impl<T> Default for PrefixMap<T> {
    fn default() -> Self {
        Self { by_prefix: BTreeMap::new(), lengths: BTreeSet::new() }
    }
}

impl<T> PrefixMap<T> {
    /// The value of exactly this prefix, made if there is none.
    pub(super) fn entry(&mut self, prefix: Prefix) -> &mut T
    where
        T: Default,
    {
        self.lengths.insert((prefix.family(), prefix.net().prefix_len()));
        self.by_prefix.entry(prefix.net()).or_default()
    }

    /// The values of prefixes that overlap this one: those around it, then its own, then those inside.
    pub(super) fn overlapping(&self, prefix: Prefix) -> impl Iterator<Item = &T> {
        let net = prefix.net();
        let shorter = self.lengths.range((prefix.family(), 0)..(prefix.family(), net.prefix_len()));
        let around = shorter.filter_map(move |(_, length)| {
            let outer = IpNet::new(net.network(), *length).ok()?.trunc();
            self.by_prefix.get(&outer)
        });
        // Sorted by first address, the longer prefix last.
        around.chain(self.by_prefix.range(net..=IpNet::from(net.broadcast())).map(|(_, value)| value))
    }
}

/// Ranges of addresses, each with its first and last one, in order and apart from each other: those of a customer are mostly a
/// few in a row.
#[derive(Debug)]
pub(super) struct Ranges(Vec<(IpAddr, IpAddr)>);

impl Ranges {
    /// What the prefixes cover.
    pub(super) fn of(prefixes: impl Iterator<Item = Prefix>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix.net() {
                IpNet::V4(net) => v4.push(net),
                IpNet::V6(net) => v6.push(net),
            }
        }
        let (v4, v6) = (ranges4(v4), ranges6(v6));
        let v4 = v4.into_iter().map(|(first, last)| (first.into(), last.into()));
        Self(v4.chain(v6.into_iter().map(|(first, last)| (first.into(), last.into()))).collect())
    }

    /// Whether an address of the prefix is in them.
    pub(super) fn meet(&self, prefix: Prefix) -> bool {
        let (first, last) = (prefix.first(), prefix.net().broadcast());
        let behind = self.0.partition_point(|(_, end)| *end < first);
        self.0.get(behind).is_some_and(|(start, _)| *start <= last)
    }
}

/// An assignment with its guest and NIC.
pub type Holding<'a> = (Vmid, NicId, &'a Interface, &'a Assigned);

/// The assignments of a registry, to be looked up by address and by MAC.
#[derive(Debug)]
pub struct Holders<'a> {
    /// By address, the longer prefix last, then by guest.
    by_address: Vec<(Prefix, Holding<'a>)>,
    /// Family and length of the prefixes that occur: around a prefix there can be no others.
    lengths: BTreeSet<(Family, u8)>,
    /// The first holding of each NIC with addresses, by MAC, then by guest.
    by_mac: Vec<Holding<'a>>,
}

impl<'a> Holders<'a> {
    /// Sorts what is assigned.
    pub fn of(registry: &'a Registry) -> Self {
        let mut by_address: Vec<(Prefix, Holding<'a>)> =
            registry.assignments().map(|holding| (holding.3.address, holding)).collect();
        by_address.sort_by_key(|(address, (vmid, nic, ..))| (*address, *vmid, *nic));
        let mut lengths = BTreeSet::new();
        let mut last = None;
        for (address, _) in &by_address {
            let length = (address.family(), address.net().prefix_len());
            if last != Some(length) {
                lengths.insert(length);
                last = Some(length);
            }
        }
        let first = |(vmid, guest): (&Vmid, &'a GuestFile)| {
            let vmid = *vmid;
            guest.interfaces.iter().filter_map(move |(nic, held)| Some((vmid, *nic, held, held.addresses.first()?)))
        };
        let mut by_mac: Vec<Holding<'a>> = registry.guests.iter().flat_map(first).collect();
        by_mac.sort_by_key(|(vmid, nic, interface, _)| (interface.mac, *vmid, *nic));
        Self { by_address, lengths, by_mac }
    }

    /// Who holds an address of `prefix`, or a prefix around it.
    pub fn overlapping(&self, prefix: Prefix) -> impl Iterator<Item = Holding<'a>> {
        let net = prefix.net();
        let shorter = self.lengths.range((prefix.family(), 0)..(prefix.family(), net.prefix_len()));
        let around = shorter.flat_map(move |(_, length)| {
            let outer = IpNet::new(net.network(), *length).ok().map(|outer| outer.trunc());
            outer.into_iter().flat_map(|outer| self.between(outer, outer))
        });
        around.chain(self.between(net, IpNet::from(net.broadcast())))
    }

    /// Those of prefixes from `first` to `last`, in the order of prefixes.
    fn between(&self, first: IpNet, last: IpNet) -> impl Iterator<Item = Holding<'a>> {
        let start = self.by_address.partition_point(|(prefix, _)| prefix.net() < first);
        let from = self.by_address[start..].iter().take_while(move |(prefix, _)| prefix.net() <= last);
        from.map(|(_, holding)| *holding)
    }

    /// Whether somebody does.
    pub fn hold(&self, prefix: Prefix) -> bool {
        self.overlapping(prefix).next().is_some()
    }

    /// The NICs with addresses that have this MAC, each with its first address; the guest with the lowest number first.
    pub fn with_mac(&self, mac: MacAddr) -> impl Iterator<Item = Holding<'a>> {
        let start = self.by_mac.partition_point(|(_, _, interface, _)| interface.mac < mac);
        self.by_mac[start..].iter().take_while(move |(_, _, interface, _)| interface.mac == mac).copied()
    }

    /// All that is assigned, in the order of addresses.
    pub(super) fn sorted(&self) -> impl Iterator<Item = Holding<'a>> {
        self.by_address.iter().map(|(_, holding)| *holding)
    }

    /// All NICs with addresses, in the order of MACs.
    pub(super) fn nics(&self) -> impl Iterator<Item = Holding<'a>> {
        self.by_mac.iter().copied()
    }
}

impl Registry {
    /// As [`Holders::overlapping`], for whoever asks once: looks at all that is assigned, which is sooner done than to sort it.
    pub fn overlapping(&self, prefix: Prefix) -> Vec<Holding<'_>> {
        let mut found: Vec<Holding<'_>> =
            self.assignments().filter(|(.., assigned)| assigned.address.overlaps(prefix)).collect();
        // Those around it first, the widest before the others, as they are shorter.
        found.sort_by_key(|(vmid, nic, _, assigned)| {
            let around = assigned.address != prefix && assigned.address.contains(prefix);
            let length = assigned.address.net().prefix_len();
            (!around, if around { length } else { 0 }, assigned.address, *vmid, *nic)
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn prefix(v4: bool, low: u8, length: u8) -> Prefix {
        let (address, longest) = if v4 {
            (IpAddr::from([203, 0, 113, low]), 32)
        } else {
            (IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(low)]), 128)
        };
        IpNet::new(address, longest - length).unwrap().trunc().to_string().parse().unwrap()
    }

    proptest! {
        #[test]
        fn finds_what_a_search_through_everything_finds(
            known in proptest::collection::vec((any::<bool>(), any::<u8>(), 0u8..9), 0..40),
            asked in (any::<bool>(), any::<u8>(), 0u8..9),
        ) {
            let known: BTreeSet<Prefix> = known.into_iter().map(|(v4, low, length)| prefix(v4, low, length)).collect();
            let asked = prefix(asked.0, asked.1, asked.2);
            let mut map = PrefixMap::<Option<Prefix>>::default();
            for prefix in &known {
                *map.entry(*prefix) = Some(*prefix);
            }
            let found: BTreeSet<Prefix> = map.overlapping(asked).flatten().copied().collect();
            let expected: BTreeSet<Prefix> = known.into_iter().filter(|known| known.overlaps(asked)).collect();
            prop_assert_eq!(found, expected);
        }

        /// One pass finds the same as the sorted list, in the same order.
        #[test]
        fn one_look_finds_what_the_sorted_list_finds(
            held in proptest::collection::vec((any::<bool>(), 0u8..32, 0u8..6, 100u32..104), 0..30),
            asked in (any::<bool>(), 0u8..32, 0u8..6),
        ) {
            let mut registry = Registry::default();
            for (v4, low, length, vmid) in held {
                let vmid: Vmid = vmid.to_string().parse().unwrap();
                let assigned = serde_json::json!({"address": prefix(v4, low, length), "pool": "a",
                    "assigned_at": "2026-11-22T10:00:00Z"});
                let interface = serde_json::json!({"mac": "02:00:00:00:00:01", "addresses": []});
                let guest = registry.guests.get_or_insert_with(vmid, || GuestFile::new(vmid));
                let interface = guest.interfaces.entry(NicId::FIRST)
                    .or_insert_with(|| serde_json::from_value(interface).unwrap());
                let assigned: Assigned = serde_json::from_value(assigned).unwrap();
                if interface.addresses.iter().all(|known| known.address != assigned.address) {
                    interface.addresses.push(assigned);
                }
            }
            let asked = prefix(asked.0, asked.1, asked.2);
            let shown = |(vmid, nic, _, assigned): &Holding<'_>| (*vmid, *nic, assigned.address);
            let sorted: Vec<_> = Holders::of(&registry).overlapping(asked).map(|holding| shown(&holding)).collect();
            let found: Vec<_> = registry.overlapping(asked).iter().map(shown).collect();
            prop_assert_eq!(found, sorted);
        }
    }
}
