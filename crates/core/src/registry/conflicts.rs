//! Contradictions between the registry's files: two guests with one address or one MAC.

use std::collections::BTreeSet;

use super::document::{Assigned, GuestFile};
use super::prefixes::Ranges;
use super::{Holders, Holding, Registry};
use crate::model::{MacAddr, Vmid};

impl Registry {
    /// Contradictions between files that each are fine, as sentences with the guests that they concern.
    ///
    /// Only hand edits and restored backups get there; `assign` cannot.
    pub fn conflicts(&self) -> Vec<(BTreeSet<Vmid>, String)> {
        conflicts_among(&Holders::of(self))
    }

    /// Those of [`Self::conflicts`] in which one of these guests has a part. For a few of many guests the others are not
    /// sorted, but only looked through.
    pub fn conflicts_of(&self, guests: &BTreeSet<Vmid>) -> Vec<(BTreeSet<Vmid>, String)> {
        let those = || guests.iter().filter_map(|vmid| self.guests.get(vmid)).flat_map(GuestFile::addresses);
        let macs: BTreeSet<MacAddr> = those().map(|(_, interface, _)| interface.mac).collect();
        let ranges = Ranges::of(those().map(|(.., assigned)| assigned.address));
        let meets = |guest: &GuestFile| {
            let mut nics = guest.interfaces.values();
            nics.any(|nic| {
                let mut addresses = nic.addresses.iter().map(|assigned| assigned.address);
                !nic.addresses.is_empty() && macs.contains(&nic.mac) || addresses.any(|address| ranges.meet(address))
            })
        };
        let mut near = Self::default();
        for (vmid, _) in self.guests.iter().filter(|(vmid, guest)| guests.contains(vmid) || meets(guest)) {
            if let Some(guest) = self.guests.share(vmid) {
                near.guests.insert_shared(*vmid, guest);
            }
        }
        let mut conflicts = near.conflicts();
        conflicts.retain(|(those, _)| !those.is_disjoint(guests));
        conflicts
    }
}

/// As [`Registry::conflicts`], for whoever has sorted the registry already.
pub fn conflicts_among(holders: &Holders<'_>) -> Vec<(BTreeSet<Vmid>, String)> {
    let mut found = Vec::new();
    // Prefixes are nested or disjoint: a stack of the open ones is enough to find every overlap.
    let mut open: Vec<(&Assigned, Vmid)> = Vec::new();
    for (vmid, _, _, assigned) in holders.sorted() {
        let address = assigned.address;
        open.retain(|outer| outer.0.address.contains(address));
        for (outer, holder) in open.iter().filter(|(outer, holder)| *holder != vmid && !outer.is_shared_with(assigned))
        {
            let sentence = if outer.address == address {
                format!("{address} is assigned to guest {holder} and to guest {vmid}")
            } else {
                format!("{address} of guest {vmid} lies in {} of guest {holder}", outer.address)
            };
            found.push((BTreeSet::from([*holder, vmid]), sentence));
        }
        open.push((assigned, vmid));
    }
    let mut known: Option<Holding<'_>> = None;
    let mut shared = Vec::new();
    for nic in holders.nics() {
        match known {
            Some(first) if first.2.mac == nic.2.mac && first.0 != nic.0 => shared.push((first, nic)),
            Some(first) if first.2.mac == nic.2.mac => {}
            _ => known = Some(nic),
        }
    }
    shared.sort_by_key(|(_, (vmid, nic, ..))| (*vmid, *nic));
    for ((other, other_nic, ..), (vmid, nic, interface, _)) in shared {
        let sentence = format!("MAC {} is that of guest {other} {other_nic} and of guest {vmid} {nic}", interface.mac);
        found.push((BTreeSet::from([other, vmid]), sentence));
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::NicId;
    use crate::registry::fixtures::{A, registry, request};

    #[test]
    fn hand_made_contradictions_are_found() {
        let mut registry = registry();
        registry.assign(&request("100", A, &["203.0.113.2"])).unwrap();
        let mut copy = registry.guests.values().next().unwrap().clone();
        copy.vmid = "200".parse().unwrap();
        registry.guests.insert(copy.vmid, copy);
        let sentences: Vec<String> = registry.conflicts().into_iter().map(|(_, sentence)| sentence).collect();
        assert_eq!(
            sentences,
            [
                "203.0.113.2 is assigned to guest 100 and to guest 200",
                "MAC 02:00:00:00:00:0a is that of guest 100 net0 and of guest 200 net0",
            ]
        );
    }

    proptest! {
        /// Of any guests the same is found as by comparing all of them.
        #[test]
        fn conflicts_of_some_guests_are_theirs_among_all(
            held in proptest::collection::vec((100..106u32, 0..8u8, 29..33u8, 0..5u8), 0..12),
            asked in proptest::collection::btree_set(100..106u32, 0..6),
        ) {
            let mut registry = Registry::default();
            for (vmid, last, length, mac) in held {
                let net = ipnet::Ipv4Net::new([203, 0, 113, last].into(), length).unwrap().trunc();
                let vmid: Vmid = vmid.to_string().parse().unwrap();
                let interface = serde_json::json!({ "mac": format!("02:00:00:00:00:{mac:02x}") });
                let assigned = serde_json::json!({ "address": net, "pool": "lan", "assigned_at": "2026-11-22T10:00:00Z" });
                let guest = registry.guests.get_or_insert_with(vmid, || GuestFile::new(vmid));
                let new = || serde_json::from_value(interface).unwrap();
                let interface = guest.interfaces.entry(NicId::FIRST).or_insert_with(new);
                interface.addresses.push(serde_json::from_value(assigned).unwrap());
            }
            let asked: BTreeSet<Vmid> = asked.into_iter().map(|vmid| vmid.to_string().parse().unwrap()).collect();
            let mut expected = registry.conflicts();
            expected.retain(|(guests, _)| !guests.is_disjoint(&asked));
            let mut found = registry.conflicts_of(&asked);
            expected.sort();
            found.sort();
            prop_assert_eq!(found, expected);
        }
    }
}
