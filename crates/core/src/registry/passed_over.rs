//! What next-free allocation passes over, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use super::prefixes::PrefixMap;
use super::search::fitting;
use super::{AssignRequest, Registry, allocate};
use crate::model::{NicId, Prefix, Vmid};

/// That somebody uses an address which nobody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// In words that follow the address: `is configured in guest 103 net0`.
    pub why: String,
    /// The guest that could be given it.
    pub by: Option<(Vmid, NicId)>,
    /// Whether it means a subnet or its gateway.
    pub is_part: bool,
}

impl InUse {
    /// What means a subnet or its gateway.
    pub fn as_part(why: impl Into<String>) -> Self {
        Self { why: why.into(), by: None, is_part: true }
    }
}

/// An address, or a prefix, that was not handed out although nobody holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PassedOver {
    /// The address.
    pub address: Prefix,
    /// Why, in words that follow the address.
    pub why: String,
    /// Whether it is so of every subnet, such as of its network address.
    #[serde(skip)]
    pub is_usual: bool,
}

/// No more of them are named.
const NAMED: usize = 64;

impl Registry {
    /// The addresses below those that were handed out, of the same pool and family, that nobody holds: lowest first.
    pub fn passed_over(&self, request: &AssignRequest, given: &[Prefix]) -> Vec<PassedOver> {
        let Some((_, pool)) = given.first().and_then(|first| self.pool_of(*first)) else { return Vec::new() };
        let entries = fitting(pool, request.nics.first().map(|(_, mac)| *mac));
        let mut reasons: BTreeMap<Prefix, (String, bool)> = BTreeMap::new();
        let hosts = |address: IpAddr| Prefix::host(address).ok();
        for (address, InUse { why, is_part, .. }) in &request.in_use {
            reasons.extend(hosts(*address).map(|address| (address, (why.clone(), *is_part))));
        }
        for (address, (sentence, _)) in &request.contested {
            reasons.insert(*address, (format!("is contested: {sentence}"), false));
        }
        for (address, released, free_at) in self.cooling(request.vmid, request.now) {
            let why = format!("cools down until {} (was guest {}'s)", free_at.to_second(), released.vmid);
            reasons.insert(address, (why, false));
        }
        let withheld = self.withheld(&request.avoid).collect::<Vec<_>>().into_iter().rev();
        reasons.extend(withheld.filter_map(|(address, what)| Some((hosts(address)?, (format!("is {what}"), true)))));
        let roles = entries.iter().flat_map(|entry| {
            let net = entry.address.net();
            [net.network(), net.broadcast()].map(|address| (*entry, address))
        });
        reasons.extend(roles.filter_map(|(entry, address)| {
            let role = allocate::role(pool, entry, address)?;
            Some((hosts(address)?, (format!("is {}", role.name), true)))
        }));
        let highest = |address: &Prefix| given.iter().filter(|one| one.family() == address.family()).max().copied();
        let is_below = |address: &Prefix| highest(address).is_some_and(|highest| *address < highest);
        let is_of_pool = |address: &Prefix| entries.iter().any(|entry| entry.address.overlaps(*address));
        reasons.retain(|address, _| is_below(address) && is_of_pool(address));
        // They are few, and what is held is not sorted for their sake.
        let mut near = PrefixMap::<Vec<Prefix>>::default();
        for address in reasons.keys() {
            near.entry(*address).push(*address);
        }
        let held = self.assignments().flat_map(|(.., assigned)| near.overlapping(assigned.address).flatten());
        let held: BTreeSet<Prefix> = held.copied().collect();
        reasons
            .into_iter()
            .filter(|(address, _)| !held.contains(address))
            .take(NAMED)
            .map(|(address, (why, is_usual))| PassedOver { address, why, is_usual })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Family;
    use crate::registry::fixtures::{A, B, registry, request};

    fn next(vmid: &str, mac: &str, in_use: &[(&str, &str)]) -> AssignRequest {
        let used = |(address, why): &(&str, &str)| {
            let by = why.starts_with("is configured").then(|| ("103".parse().unwrap(), NicId::FIRST));
            (address.parse().unwrap(), InUse { why: (*why).to_owned(), by, is_part: false })
        };
        AssignRequest {
            pool: Some("lan".parse().unwrap()),
            families: BTreeSet::from([Family::V4]),
            in_use: in_use.iter().map(used).collect(),
            ..request(vmid, mac, &[])
        }
    }

    #[test]
    fn what_somebody_uses_is_not_handed_out_and_that_is_said() {
        let mut registry = registry();
        let in_use = [("203.0.113.2", "is configured in guest 103 net0"), ("203.0.113.3", "is used by somebody")];
        let asked = next("100", A, &in_use);
        let given = registry.assign(&asked).unwrap();
        assert_eq!(given[0].to_string(), "203.0.113.4");
        let said: Vec<(String, bool)> = registry
            .passed_over(&asked, &given)
            .into_iter()
            .map(|one| (format!("{} {}", one.address, one.why), one.is_usual))
            .collect();
        assert_eq!(
            said,
            [
                ("203.0.113.0 is the network address".to_owned(), true),
                ("203.0.113.1 is the gateway of pool `lan`".to_owned(), true),
                ("203.0.113.2 is configured in guest 103 net0".to_owned(), false),
                ("203.0.113.3 is used by somebody".to_owned(), false),
            ]
        );
        // What is named is given.
        let named = AssignRequest { addresses: vec!["203.0.113.2".parse().unwrap()], ..next("101", B, &in_use) };
        assert_eq!(registry.clone().assign(&named).unwrap().len(), 1);
        // If nothing else is left, that is the reason.
        let all: Vec<(&str, &str)> = ["203.0.113.2", "203.0.113.3", "203.0.113.5", "203.0.113.6"]
            .map(|address| (address, "is configured in guest 103 net0"))
            .into();
        let error = registry.assign(&next("101", B, &all)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "pool `lan` has no free IPv4 address that nobody uses: 203.0.113.2 is configured in guest 103 net0"
        );
        assert_eq!(
            error.hint().unwrap(),
            "to leave it there: `pve-public-ip assign 103 203.0.113.2`; more addresses: `pve-public-ip pool add lan PREFIX`"
        );
        let strangers: Vec<(&str, &str)> = all.iter().map(|(address, _)| (*address, "is used by somebody")).collect();
        let error = registry.assign(&next("101", B, &strangers)).unwrap_err();
        assert_eq!(
            error.hint().unwrap(),
            "more addresses: `pve-public-ip pool add lan PREFIX`; if nobody uses it any more: `pve-public-ip assign 101 203.0.113.2`"
        );
    }
}
