//! Giving addresses back, and how long they cool down before the next guest gets them.

use std::collections::BTreeMap;

use super::document::{Interface, Released};
use super::{Holders, Registry, RuleError};
use crate::model::{Moment, PoolName, Prefix, Vmid};

/// Addresses whose release is remembered; what was released before them is free. A file of a cluster is small.
const REMEMBERED: usize = 5000;

impl Registry {
    /// Takes addresses from a guest, all if none is named; returns those that it held.
    ///
    /// What a guest does not hold need not be taken from it, so that a release may be done again.
    pub fn release(&mut self, vmid: Vmid, addresses: &[Prefix], now: Moment) -> Result<Vec<Prefix>, RuleError> {
        let Some(guest) = self.guests.get_mut(&vmid) else {
            // With a broken file nobody knows: it may be that of this very guest.
            self.whole()?;
            return Ok(Vec::new());
        };
        let held: BTreeMap<Prefix, PoolName> =
            guest.addresses().map(|(.., assigned)| (assigned.address, assigned.pool.clone())).collect();
        for address in addresses.iter().filter(|address| !held.contains_key(address)) {
            if let Some(part) = held.keys().find(|held| held.overlaps(*address)) {
                return Err(RuleError::NotWhole { vmid, address: *address, held: *part });
            }
        }
        let goes = |prefix: &Prefix| addresses.is_empty() || addresses.contains(prefix);
        for (_, interface, kept) in guest.addresses().filter(|(.., held)| !goes(&held.address)) {
            let Some(via) = kept.via else { continue };
            let left = Interface {
                addresses: interface.addresses.iter().filter(|held| !goes(&held.address)).cloned().collect(),
                ..interface.clone()
            };
            if left.against_via(kept.address, via).is_some() {
                return Err(RuleError::ViaNeeded { vmid, address: kept.address, via });
            }
        }
        for interface in guest.interfaces.values_mut() {
            interface.addresses.retain(|assigned| !goes(&assigned.address));
        }
        guest.interfaces.retain(|_, interface| !interface.addresses.is_empty());
        let gone: BTreeMap<Prefix, PoolName> = held.into_iter().filter(|(prefix, _)| goes(prefix)).collect();
        if gone.is_empty() {
            return Ok(Vec::new());
        }
        // What others hold in turn with it is still in use, and does not cool down.
        let stays = |prefix: &Prefix| self.assignments().any(|(.., held)| held.address == *prefix);
        let cools: Vec<(Prefix, PoolName)> =
            gone.iter().filter(|(prefix, _)| !stays(prefix)).map(|(prefix, pool)| (*prefix, pool.clone())).collect();
        let released = |(prefix, pool)| (prefix, Released { at: now, vmid, pool });
        self.remember(cools.into_iter().map(released), now);
        Ok(gone.into_keys().collect())
    }

    /// Notes what was released, and forgets what has cooled down.
    fn remember(&mut self, gone: impl Iterator<Item = (Prefix, Released)>, now: Moment) {
        let mut known = std::mem::take(&mut self.released.addresses);
        known.extend(gone);
        known.retain(|prefix, released| self.warm((prefix, released), now).is_some());
        let mut kept: Vec<(Prefix, Released)> = known.into_iter().collect();
        kept.sort_by_key(|(_, released)| std::cmp::Reverse(released.at));
        kept.truncate(REMEMBERED);
        self.released.addresses = kept.into_iter().collect();
    }

    /// What cools down, and is not held again.
    pub fn all_cooling(&self, holders: &Holders<'_>, now: Moment) -> Vec<(Prefix, &Released, Moment)> {
        let warm = self.released.addresses.iter().filter_map(|known| self.warm(known, now));
        warm.filter(|(prefix, ..)| !holders.hold(*prefix)).collect()
    }

    /// Who else had an address that this guest takes, or a part of it, not long ago, and when it would have been free.
    pub fn cooling_of(&self, address: Prefix, vmid: Vmid, now: Moment) -> Option<(&Released, Moment)> {
        // Thousands may cool down, and whoever asks for thousands of addresses looks at all of them each time.
        let near = self.released.addresses.iter().filter(|(prefix, _)| prefix.overlaps(address));
        let mut others = near.filter(|(_, released)| released.vmid != vmid);
        let found = others.find_map(|known| self.warm(known, now));
        found.map(|(_, released, free_at)| (released, free_at))
    }

    /// What was released so short a time ago that it is not handed out to this guest by itself, and when it is again.
    pub(super) fn cooling(&self, vmid: Vmid, now: Moment) -> impl Iterator<Item = (Prefix, &Released, Moment)> {
        let others = self.released.addresses.iter().filter(move |(_, released)| released.vmid != vmid);
        others.filter_map(move |known| self.warm(known, now))
    }

    /// An address that was released, with the time at which it is free, if that is still to come.
    fn warm<'a>(
        &self,
        (prefix, released): (&Prefix, &'a Released),
        now: Moment,
    ) -> Option<(Prefix, &'a Released, Moment)> {
        let pool = self.pools.pools.get(&released.pool)?;
        let cool_down = pool.cool_down().0;
        let free_at = released.at.after(cool_down);
        // What is further ahead than that was noted by a clock that was put right since, and would cool for years.
        let is_credible = released.at <= now.after(cool_down);
        (is_credible && free_at > now).then_some((*prefix, released, free_at))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;
    use crate::model::Family;
    use crate::registry::AssignRequest;
    use crate::registry::document::{Pool, PoolAddress, Profile};
    use crate::registry::fixtures::{A, B, at, registry, request};

    #[test]
    fn what_was_released_cools_down() {
        let mut registry = registry();
        let lan: PoolName = "lan".parse().unwrap();
        let next = |vmid, mac, now| {
            let pool = Some("lan".parse().unwrap());
            AssignRequest { pool, families: BTreeSet::from([Family::V4]), now, ..request(vmid, mac, &[]) }
        };
        let given = |found: Result<Vec<Prefix>, RuleError>| found.unwrap()[0].to_string();
        let vmid = "100".parse().unwrap();
        assert_eq!(given(registry.assign(&next("100", A, at("10:00")))), "203.0.113.2");
        registry.release(vmid, &[], at("10:00")).unwrap();
        assert_eq!(given(registry.assign(&next("101", B, at("10:59")))), "203.0.113.3");
        assert_eq!(given(registry.clone().assign(&next("100", A, at("10:01")))), "203.0.113.2", "its own");
        assert_eq!(given(registry.clone().assign(&next("102", A, at("11:00")))), "203.0.113.2");
        let named = request("102", A, &["203.0.113.2"]);
        let (released, free_at) = registry.cooling_of(named.addresses[0], named.vmid, at("10:30")).unwrap();
        assert_eq!((released.vmid, free_at), (vmid, at("11:00")));
        assert_eq!(registry.cooling_of(named.addresses[0], vmid, at("10:30")), None);
        registry.clone().assign(&named).unwrap();

        // The rest is held: what is free first is named.
        let rest = ["203.0.113.4", "203.0.113.5", "203.0.113.6"];
        registry.assign(&request("103", "02:00:00:00:00:0c", &rest)).unwrap();
        registry.release("103".parse().unwrap(), &["203.0.113.5".parse().unwrap()], at("10:20")).unwrap();
        let error = registry.assign(&next("104", A, at("10:30"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "pool `lan` has no free IPv4 address before 2026-11-22T11:00:00Z: 203.0.113.2 was guest 100's until 2026-11-22T10:00:00Z"
        );
        assert_eq!(
            error.hint().unwrap(),
            "to assign it anyway, name it: `pve-public-ip assign 104 203.0.113.2`; not to wait in this pool: `pve-public-ip pool set lan --cool-down 0`"
        );
        assert_eq!(given(registry.clone().assign(&next("104", A, at("11:10")))), "203.0.113.2");
        let off = |pool: &mut Pool| pool.cool_down = Some("0".parse().unwrap());
        registry.change_pool(&lan, off).unwrap();
        assert_eq!(given(registry.clone().assign(&next("104", A, at("10:30")))), "203.0.113.2");
        registry.release("101".parse().unwrap(), &[], at("12:00")).unwrap();
        assert_eq!(registry.released.addresses, BTreeMap::new(), "what has cooled down is forgotten");
    }

    /// The clock was ahead when it was released, and was put right since.
    #[test]
    fn nothing_cools_longer_than_twice_its_time() {
        let mut registry = registry();
        let (first, second) = (request("100", A, &["203.0.113.2"]), request("101", B, &["203.0.113.3"]));
        registry.assign(&first).unwrap();
        registry.assign(&second).unwrap();
        registry.release(first.vmid, &[], at("10:59")).unwrap();
        registry.release(second.vmid, &[], at("11:01")).unwrap();
        let cooling = |registry: &Registry, now| {
            let holders = Holders::of(registry);
            registry
                .all_cooling(&holders, at(now))
                .into_iter()
                .map(|(prefix, ..)| prefix.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(cooling(&registry, "11:30"), ["203.0.113.2", "203.0.113.3"]);
        assert_eq!(cooling(&registry, "10:00"), ["203.0.113.2"], "an hour ahead may be another node's clock");
        assert_eq!(cooling(&registry, "09:00"), [] as [&str; 0]);
    }

    /// An address that cools down and is held again is not free at any time.
    #[test]
    fn a_full_pool_names_what_is_free_first() {
        let mut registry = registry();
        let rest = ["203.0.113.2", "203.0.113.3", "203.0.113.4"];
        registry.assign(&request("100", A, &rest)).unwrap();
        let other = |vmid: &str, address: &str, now| {
            let mac = format!("02:00:00:00:01:{}", &vmid[1..]);
            AssignRequest { now: at(now), ..request(vmid, &mac, &[address]) }
        };
        registry.assign(&other("103", "203.0.113.5", "10:00")).unwrap();
        registry.release("103".parse().unwrap(), &[], at("10:01")).unwrap();
        registry.assign(&other("103", "203.0.113.5", "10:02")).unwrap();
        registry.assign(&other("104", "203.0.113.6", "10:03")).unwrap();
        registry.release("104".parse().unwrap(), &[], at("10:04")).unwrap();
        let next = AssignRequest {
            pool: Some("lan".parse().unwrap()),
            families: BTreeSet::from([Family::V4]),
            now: at("10:05"),
            ..request("105", B, &[])
        };
        let message = registry.assign(&next).unwrap_err().to_string();
        assert!(message.ends_with("203.0.113.6 was guest 104's until 2026-11-22T10:04:00Z"), "{message}");
        registry.assign(&other("106", "203.0.113.6", "10:06")).unwrap();
        let message = registry.assign(&next).unwrap_err().to_string();
        assert_eq!(message, "pool `lan` has no free IPv4 address", "nothing cools down any more");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// Whatever was assigned and released: what the refusal of a full pool names is free at the time that it names, and
        /// nothing is before.
        #[test]
        fn a_refusal_tells_the_truth(
            deeds in proptest::collection::vec((0u8..8, 100u32..104, any::<bool>(), 29u8..33), 0..60),
        ) {
            let mut registry = Registry::default();
            let entry = PoolAddress::new("203.0.113.0/29".parse().unwrap());
            let mut pool = Pool::new(Profile::GenericRouted, "vmbr0".parse().unwrap(), vec![entry]);
            pool.gateway4 = Some("198.51.100.1".parse().unwrap());
            registry.create_pool("p".parse().unwrap(), pool).unwrap();
            let start: Moment = "2026-11-22T10:00:00Z".parse().unwrap();
            let mut now = start;
            for (low, vmid, gives, length) in deeds {
                now = now.after(std::time::Duration::from_secs(30));
                let net: IpNet = format!("203.0.113.{low}/{length}").parse().unwrap();
                let address: Prefix = net.trunc().to_string().parse().unwrap();
                let mac = format!("02:00:00:00:02:{}", &vmid.to_string()[1..]);
                let named = AssignRequest { now, ..request(&vmid.to_string(), &mac, &[&address.to_string()]) };
                let _ = if gives { registry.assign(&named) } else { registry.release(named.vmid, &[address], now) };
            }
            let next = |now| AssignRequest { now, ..request("900", B, &[]) };
            let is_free = |now: Moment| registry.clone().assign(&next(now));
            match registry.clone().assign(&next(now)) {
                Err(RuleError::Cooling { address, free_at, .. }) => {
                    prop_assert_eq!(is_free(free_at).unwrap(), [address]);
                    let before = Moment(free_at.0.checked_sub(std::time::Duration::from_millis(1)).unwrap());
                    prop_assert!(is_free(before).is_err());
                }
                Err(RuleError::Exhausted { .. }) => {
                    prop_assert!(is_free(now.after(std::time::Duration::from_secs(7200))).is_err());
                }
                other => prop_assert!(other.is_ok(), "{other:?}"),
            }
        }
    }
}
