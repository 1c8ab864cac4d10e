//! What was seen on the network: who claims a protected address or MAC without right. Bounded, whatever is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Conflict, Seen, id_of};
use crate::links::guest_of_port;
use crate::model::{IfName, MacAddr, Moment, Prefix, Vmid};
use crate::registry::{Holders, Registry};

/// For how long a claim counts after it was seen last.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// For how long one counts that only asked for an address: if it took it, it has announced or used it by then.
const FRESH_QUESTION: Duration = Duration::from_secs(10 * 60);

/// How long before an address is assigned the network is asked who has it, at most, if the nodes' clocks agree about as well.
const AROUND_ASSIGNED: Duration = Duration::from_secs(120);

/// Claims of each source that are kept apart; more than that is a flood, and counted together.
const KEPT: usize = 128;

/// By whom a claim was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// An answer to a probe.
    Probe,
    /// The filter dropped it, and it came from the uplink.
    Uplink,
    /// The filter dropped it, and it came from a guest.
    Guest,
}

/// Who claims what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// By whom it was seen.
    pub source: Source,
    /// The port that it came from.
    pub port: IfName,
    /// The claimant's MAC; `None` when there were too many to tell.
    pub mac: Option<MacAddr>,
    /// The address that it claims; `None`: the MAC itself is claimed, or there were too many to tell.
    pub address: Option<Prefix>,
    /// Whether it only asked who has the address, as one does who is about to take it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks: bool,
}

/// What was seen, and what the administrator knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Claims with how often and when they were seen.
    seen: Vec<(Claim, Seen)>,
    /// Conflicts of any kind that the administrator knows.
    acknowledged: BTreeSet<String>,
}

impl Claims {
    /// Notes a claim that was seen so often until now.
    pub fn note(&mut self, claim: Claim, count: u64, at: Moment) {
        self.add(claim, Seen { count, first: at, last: at });
    }

    fn add(&mut self, claim: Claim, count: Seen) {
        if let Some((_, known)) = self.seen.iter_mut().find(|(known, _)| *known == claim) {
            known.count = known.count.saturating_add(count.count);
            known.first = known.first.min(count.first);
            known.last = known.last.max(count.last);
            return;
        }
        // A guest that makes up addresses must not push out what another one, or the uplink, did.
        let of_source = |seen: &[(Claim, Seen)]| seen.iter().filter(|(known, _)| known.source == claim.source).count();
        if of_source(&self.seen) >= KEPT {
            self.seen.retain(|(_, known)| is_fresh(known.last, count.last));
        }
        let is_told = claim.mac.is_some() || claim.address.is_some();
        match of_source(&self.seen) {
            0..KEPT => self.seen.push((claim, count)),
            _ if is_told => self.add(Claim { mac: None, address: None, asks: false, ..claim }, count),
            many => {
                let oldest = (0..self.seen.len()).filter(|at| self.seen[*at].0.source == claim.source);
                let oldest = oldest.min_by_key(|at| self.seen[*at].1.last).filter(|_| many >= 2 * KEPT);
                oldest.map(|at| self.seen.remove(at));
                self.seen.push((claim, count));
            }
        }
    }

    /// Takes in what another one has noted.
    pub fn merge(&mut self, other: Self) {
        for (claim, count) in other.seen {
            self.add(claim, count);
        }
        self.acknowledged.extend(other.acknowledged);
    }

    /// These were asked for again: what was answered before does not count any more.
    pub fn forget_answers(&mut self, addresses: &BTreeSet<Prefix>) {
        let asked = |claim: &Claim| claim.address.is_some_and(|address| addresses.contains(&address));
        self.seen.retain(|(claim, _)| claim.source != Source::Probe || !asked(claim));
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty() && self.acknowledged.is_empty()
    }

    /// The administrator knows of these.
    pub fn acknowledge(&mut self, ids: impl IntoIterator<Item = String>) {
        self.acknowledged.extend(ids);
    }

    /// The conflicts among what was seen. `here` are the guests on this node: who moves away takes his MAC with him.
    pub fn conflicts(&self, registry: &Registry, here: &BTreeSet<Vmid>, now: Moment) -> Vec<Conflict> {
        let limit = |claim: &Claim| if claim.asks { FRESH_QUESTION } else { FRESH };
        let mut fresh = self.seen.iter().filter(|(claim, count)| count.last.after(limit(claim)) > now).peekable();
        if fresh.peek().is_none() {
            // To sort all that is assigned takes longest.
            return Vec::new();
        }
        let holders: BTreeMap<MacAddr, Vmid> =
            registry.assignments().map(|(vmid, _, interface, _)| (interface.mac, vmid)).collect();
        let assigned = Holders::of(registry);
        fresh.filter_map(|(claim, count)| conflict(claim, *count, registry, &assigned, &holders, here)).collect()
    }

    /// Marks the conflicts that the administrator knows: they block nothing.
    pub fn mark(&self, conflicts: &mut [Conflict]) {
        for conflict in conflicts.iter_mut().filter(|conflict| self.acknowledged.contains(&conflict.id)) {
            conflict.acknowledged = true;
            conflict.blocks = false;
        }
    }
}

fn is_fresh(last: Moment, now: Moment) -> bool {
    last.after(FRESH) > now
}

/// What a claim amounts to now; `None`: it concerns nobody any more.
fn conflict(
    claim: &Claim,
    count: Seen,
    registry: &Registry,
    assigned: &Holders<'_>,
    holders: &BTreeMap<MacAddr, Vmid>,
    here: &BTreeSet<Vmid>,
) -> Option<Conflict> {
    let Claim { source, port, mac, address, asks } = claim;
    let holding = address.and_then(|address| assigned.overlapping(address).next());
    let since = holding.map(|(.., held)| held.assigned_at.0);
    let is_around =
        |since: Moment| count.last < since.after(AROUND_ASSIGNED) && since < count.last.after(AROUND_ASSIGNED);
    if *asks && since.is_some_and(is_around) {
        // Another node asked before it assigned it.
        return None;
    }
    let is_members = |address: Prefix| {
        let shared = assigned.overlapping(address).filter(|(.., held)| held.shared.is_some());
        shared.map(|(_, _, interface, _)| Some(interface.mac)).any(|own| own == *mac)
    };
    if address.is_some_and(is_members) {
        // They hold it in turn.
        return None;
    }
    let holding = holding.map(|(vmid, _, interface, _)| (vmid, interface.mac));
    // With the holder's own MAC it is not the address that two have.
    let address = &address.filter(|_| holding.is_none_or(|(_, own)| *mac != Some(own)));
    let holder = holding.map(|(vmid, _)| vmid);
    let claimant = match (source, guest_of_port(*port), mac) {
        (Source::Guest, Some(vmid), Some(mac)) => format!("guest {vmid} ({port}, MAC {mac})"),
        (Source::Guest, Some(vmid), None) => format!("guest {vmid} ({port})"),
        (_, _, Some(mac)) => format!("MAC {mac} on {port}"),
        (_, _, None) => format!("somebody on {port}"),
    };
    let (kind, verb) = match source {
        Source::Probe => ("probe", "answered for"),
        Source::Uplink => ("uplink", "claims"),
        Source::Guest => ("guest", "tried to use"),
    };
    let whose = |vmid: Option<Vmid>| vmid.map_or_else(String::new, |vmid| format!(", which is guest {vmid}'s"));
    let what = match (address, mac) {
        (Some(address), _) if holder.is_none() && registry.pool_of(*address).is_none() => return None,
        (Some(address), _) => {
            format!("{}{}", address, whose(holder))
        }
        (None, Some(mac)) => {
            let owner = holders.get(mac).copied();
            // A guest that has moved to another node is heard from there.
            if *source != Source::Guest && owner.is_none_or(|owner| !here.contains(&owner)) {
                return None;
            }
            format!("MAC {mac}{}", whose(owner))
        }
        (None, None) => "more addresses and MACs than can be told apart".to_owned(),
    };
    let hint = match source {
        Source::Guest => "it was dropped and reaches nobody; ask its owner what it is for".to_owned(),
        Source::Probe | Source::Uplink => {
            "find out whose machine that is, at the provider if it is none of yours; once it is settled: `pve-public-ip conflicts ack ID`"
                .to_owned()
        }
    };
    let id = id_of(claim);
    let blocks = *source != Source::Guest && address.is_some();
    let Seen { count, first, last } = count;
    Some(Conflict {
        hint: hint.replace("ID", &id),
        id,
        address: *address,
        mac: *mac,
        guests: holder.into_iter().chain(guest_of_port(*port)).collect(),
        blocks,
        seen: Some(Seen { count, first, last }),
        ..Conflict::new(kind, format!("{claimant} {verb} {what}"), String::new())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn at(time: &str) -> Moment {
        format!("2026-11-22T{time}:00Z").parse().unwrap()
    }

    fn claim(source: Source, port: &str, mac: &str, address: Option<&str>) -> Claim {
        let (port, mac) = (port.parse().unwrap(), Some(mac.parse().unwrap()));
        Claim { source, port, mac, address: address.map(|address| address.parse().unwrap()), asks: false }
    }

    fn registry() -> Registry {
        let pools = json!({"version": 1, "pools": {"a": {"profile": "generic-bridged", "bridge": "vmbr0",
            "addresses": [{"address": "203.0.113.8/29"}]}}});
        let guest = json!({"version": 1, "vmid": 100, "interfaces": {"net0": {"mac": "02:00:00:aa:bb:00", "addresses": [
            {"address": "203.0.113.10/32", "pool": "a", "assigned_at": "2026-11-22T10:00:00Z"}]}}});
        let vmid = "100".parse().unwrap();
        Registry {
            pools: serde_json::from_value(pools).unwrap(),
            guests: [(vmid, serde_json::from_value(guest).unwrap())].into(),
            ..Registry::default()
        }
    }

    const OTHER: &str = "02:00:00:00:00:99";

    #[test]
    fn only_what_comes_from_outside_blocks() {
        let mut claims = Claims::default();
        claims.note(claim(Source::Uplink, "eno1", OTHER, Some("203.0.113.10")), 1, at("10:00"));
        claims.note(claim(Source::Uplink, "eno1", OTHER, Some("203.0.113.10")), 2, at("10:05"));
        claims.note(claim(Source::Probe, "eno1", OTHER, Some("203.0.113.11")), 1, at("10:00"));
        claims.note(claim(Source::Guest, "tap200i0", OTHER, Some("203.0.113.12")), 5, at("10:00"));
        claims.note(claim(Source::Guest, "tap200i0", "02:00:00:aa:bb:00", None), 5, at("10:00"));
        claims.note(claim(Source::Uplink, "eno1", "02:00:00:aa:bb:00", None), 1, at("10:00"));
        claims.note(claim(Source::Uplink, "eno1", OTHER, Some("198.51.100.1")), 1, at("10:00"));
        let lines = |claims: &Claims, here: &[&str], now: &str| -> Vec<String> {
            let here = here.iter().map(|vmid| vmid.parse().unwrap()).collect();
            let found = claims.conflicts(&registry(), &here, at(now)).into_iter();
            found
                .map(|one| format!("{}{} {}", one.sentence, if one.blocks { "!" } else { "" }, one.seen.unwrap().count))
                .collect()
        };
        let own = "MAC 02:00:00:aa:bb:00 on eno1 claims MAC 02:00:00:aa:bb:00, which is guest 100's 1";
        let all = [
            "MAC 02:00:00:00:00:99 on eno1 claims 203.0.113.10, which is guest 100's! 3",
            "MAC 02:00:00:00:00:99 on eno1 answered for 203.0.113.11! 1",
            "guest 200 (tap200i0, MAC 02:00:00:00:00:99) tried to use 203.0.113.12 5",
            "guest 200 (tap200i0, MAC 02:00:00:aa:bb:00) tried to use MAC 02:00:00:aa:bb:00, which is guest 100's 5",
            own,
        ];
        assert_eq!(lines(&claims, &["100"], "10:30"), all);
        assert_eq!(lines(&claims, &[], "10:30"), all[..4], "it has moved");
        let tomorrow = at("10:00").after(FRESH);
        let left = claims.conflicts(&registry(), &BTreeSet::new(), tomorrow);
        assert_eq!(left.len(), 1, "what was not seen for a day is history");
        let mut known = claims.conflicts(&registry(), &BTreeSet::new(), at("10:30"));
        claims.acknowledge([known[0].id.clone()]);
        claims.mark(&mut known);
        assert_eq!(
            known.iter().map(|one| (one.acknowledged, one.blocks)).take(2).collect::<Vec<_>>(),
            [(true, false), (false, true)]
        );
        let stored = serde_json::to_vec(&claims).unwrap();
        assert_eq!(serde_json::from_slice::<Claims>(&stored).unwrap(), claims);
    }

    #[test]
    fn who_only_asked_is_soon_forgotten() {
        let mut claims = Claims::default();
        let asks = |address| Claim { asks: true, ..claim(Source::Uplink, "eno1", OTHER, Some(address)) };
        // The registry of the test: guest 100 has .10 since 10:00.
        claims.note(asks("203.0.113.10"), 1, at("09:59"));
        claims.note(asks("203.0.113.11"), 1, at("09:59"));
        let left = |claims: &Claims, now: &str| -> Vec<String> {
            let found = claims.conflicts(&registry(), &BTreeSet::new(), at(now));
            found.into_iter().map(|one| one.address.unwrap().to_string()).collect()
        };
        assert_eq!(left(&claims, "10:01"), ["203.0.113.11"], "another node asked before it assigned .10");
        assert_eq!(left(&claims, "10:09"), [""; 0]);
        claims.note(asks("203.0.113.10"), 1, at("10:03"));
        assert_eq!(left(&claims, "10:09"), ["203.0.113.10"], "that came later");
        assert_eq!(left(&claims, "10:14"), [""; 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]

        /// Whatever guests make up: the memory is bounded, and what the uplink did stays.
        #[test]
        fn a_flood_is_counted_and_pushes_nobody_out(
            flood in proptest::collection::vec((0u8..6, 0u8..20, 0u8..=255), 300..2000),
        ) {
            let mut claims = Claims::default();
            let uplink = claim(Source::Uplink, "eno1", OTHER, Some("203.0.113.10"));
            claims.note(uplink.clone(), 1, at("10:00"));
            for (port, high, low) in &flood {
                let mac = MacAddr::from_octets([2, 0, 0, 0, *high, *low]);
                let port = format!("tap{}i0", 100 + u32::from(*port)).parse().unwrap();
                let claim = Claim { source: Source::Guest, port, mac: Some(mac), address: None, asks: false };
                claims.note(claim, 1, at("10:01"));
            }
            prop_assert!(claims.seen.len() <= 2 * KEPT + 1);
            prop_assert!(claims.seen.iter().any(|(known, _)| *known == uplink));
            let counted: u64 = claims.seen.iter().map(|(_, count)| count.count).sum();
            prop_assert_eq!(counted, flood.len() as u64 + 1);
        }
    }
}
