//! What is in the pools: how many addresses are in each state, which are free, and which pools are near an address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::allocate::{address, number};
use super::document::{Pool, PoolAddress, Released};
use super::prefixes::Holders;
use super::spans::{self, Span, State};
use super::{Registry, capacity};
use crate::model::{Amount, Family, MacAddr, Moment, PoolName, Prefix};

/// How many addresses of one family a pool has, and in which states. The states add up to the size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Totals {
    /// All addresses of the pool's entries.
    pub size: Amount,
    /// Held by a guest.
    pub assigned: Amount,
    /// Next-free allocation can choose them.
    pub free: Amount,
    /// Released a short time ago; next-free allocation leaves them out until the cool-down ends.
    pub cooling: Amount,
    /// Never chosen: gateways, network and broadcast addresses, addresses of the node.
    pub reserved: Amount,
}

impl Totals {
    /// The totals of two pools together.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            size: self.size.plus(other.size.0),
            assigned: self.assigned.plus(other.assigned.0),
            free: self.free.plus(other.free.0),
            cooling: self.cooling.plus(other.cooling.0),
            reserved: self.reserved.plus(other.reserved.0),
        }
    }
}

/// Neighbouring addresses of one pool that are in the same state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run<'a> {
    /// First and last address, and their state.
    pub span: Span<'a>,
    /// The MAC that the provider bound to them.
    pub mac: Option<MacAddr>,
    /// The default gateway of a guest that holds one of them.
    pub gateway: Option<IpAddr>,
}

/// A pool that has addresses of the same family as an address that is in no pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near<'a> {
    /// The pool.
    pub pool: &'a PoolName,
    /// Its entry that is nearest.
    pub entry: Prefix,
    /// How many addresses lie between, plus one.
    pub distance: u128,
}

/// The states of all addresses of a registry at one moment. It is built once and answers for every pool.
#[derive(Debug)]
pub struct Inventory<'a> {
    holders: Holders<'a>,
    cooling: BTreeMap<Prefix, (&'a Released, Moment)>,
    withheld: BTreeMap<IpAddr, String>,
}

impl<'a> Inventory<'a> {
    /// The states at `now`; `own` are the node's own addresses, which no guest gets.
    pub fn of(registry: &'a Registry, own: &[IpNet], now: Moment) -> Self {
        let holders = Holders::of(registry);
        let cooling = registry.all_cooling(&holders, now).into_iter();
        let cooling = cooling.map(|(prefix, released, free_at)| (prefix, (released, free_at))).collect();
        let mut withheld = BTreeMap::new();
        for (address, reason) in registry.withheld(own) {
            withheld.entry(address).or_insert_with(|| reason.to_string());
        }
        Self { holders, cooling, withheld }
    }

    /// The holders of each address.
    pub fn holders(&self) -> &Holders<'a> {
        &self.holders
    }

    /// The addresses of one entry from the first to the last. An address that two guests hold occurs twice.
    pub fn spans(&self, pool: &Pool, entry: &PoolAddress) -> Vec<Span<'a>> {
        spans::of(pool, entry, &self.holders, &self.cooling, &self.withheld)
    }

    /// The totals of a pool for IPv4 and for IPv6; `None` for a family of which the pool has no entry.
    pub fn totals(&self, pool: &Pool) -> [Option<Totals>; 2] {
        let mut totals = [None::<Totals>; 2];
        for entry in &pool.addresses {
            let total = totals[usize::from(entry.address.family() == Family::V6)].get_or_insert_default();
            total.size = total.size.plus(capacity(entry));
            // Two guests may hold one address: each address counts once, in the state that comes first.
            let mut counted = None::<u128>;
            for span in self.spans(pool, entry) {
                let last = number(span.last);
                let behind = counted.map_or(Some(number(span.first)), |counted| {
                    counted.checked_add(1).map(|next| next.max(number(span.first)))
                });
                let Some(first) = behind.filter(|first| *first <= last) else { continue };
                let part = match span.state {
                    State::Free => &mut total.free,
                    State::Held(..) => &mut total.assigned,
                    State::Cooling(..) => &mut total.cooling,
                    State::Withheld(_) => &mut total.reserved,
                };
                *part = part.plus((last - first).saturating_add(1));
                counted = Some(last);
            }
        }
        totals
    }

    /// The addresses of a pool in a wanted state, in order. Neighbours of different entries become one run if the provider and
    /// the guest treat them alike, so that a /64 is one run and so are eight single addresses in a row.
    pub fn runs(&self, pool: &Pool, wanted: impl Fn(&State<'_>) -> bool) -> Vec<Run<'a>> {
        let mut entries: Vec<&PoolAddress> = pool.addresses.iter().collect();
        entries.sort_by_key(|entry| entry.address);
        let mut runs: Vec<Run<'a>> = Vec::new();
        for entry in entries {
            let gateway = pool.gateway_of(entry);
            for span in self.spans(pool, entry).into_iter().filter(|span| wanted(&span.state)) {
                let joins = |run: &&mut Run<'_>| {
                    let follows = number(run.span.last).checked_add(1) == Some(number(span.first));
                    let is_alike = run.mac.is_none() && entry.mac.is_none() && run.gateway == gateway;
                    follows
                        && is_alike
                        && run.span.state == State::Free
                        && span.state == State::Free
                        && run.span.last.is_ipv4() == span.first.is_ipv4()
                };
                match runs.last_mut().filter(joins) {
                    Some(run) => run.span.last = span.last,
                    None => runs.push(Run { span, mac: entry.mac, gateway }),
                }
            }
        }
        runs
    }
}

impl Span<'_> {
    /// How many addresses it has.
    pub fn count(&self) -> Amount {
        Amount(number(self.last).saturating_sub(number(self.first))).plus(1)
    }

    /// They one by one, the lowest first; a /64 has more than anybody can wait for.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let family = Family::of(self.first);
        (number(self.first)..=number(self.last)).map_while(move |at| address(at, family))
    }
}

impl Registry {
    /// The pools with addresses of the same family, the nearest first.
    pub fn nearest(&self, asked: IpNet) -> Vec<Near<'_>> {
        let (first, last) = (number(asked.network()), number(asked.broadcast()));
        let distance = |entry: &PoolAddress| {
            let net = entry.address.net();
            let below = first.saturating_sub(number(net.broadcast()));
            below.max(number(net.network()).saturating_sub(last))
        };
        let is_alike = |entry: &&PoolAddress| entry.address.net().network().is_ipv4() == asked.network().is_ipv4();
        let near = self.pools.pools.iter().filter_map(|(pool, contents)| {
            let entry = contents.addresses.iter().filter(is_alike).min_by_key(|entry| distance(entry))?;
            Some(Near { pool, entry: entry.address, distance: distance(entry) })
        });
        let mut near: Vec<Near<'_>> = near.collect();
        near.sort_by_key(|near| near.distance);
        near
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Of these pools guest 100 holds these addresses of `a`; another guest gave 203.0.113.12 back at ten o'clock.
    pub(in crate::registry) fn scene(pools: &serde_json::Value, held: &[&str]) -> Registry {
        let pools = json!({"version": 1, "pools": pools});
        let assigned = |address: &&str| json!({"address": address, "pool": "a", "assigned_at": "2026-11-22T10:00:00Z"});
        let guest = json!({"version": 1, "vmid": 100, "interfaces": {"net0": {"mac": "02:00:00:aa:bb:00",
            "addresses": held.iter().map(assigned).collect::<Vec<_>>()}}});
        let released = json!({"version": 1, "addresses": {"203.0.113.12/32": {"at": "2026-11-22T10:00:00Z", "vmid": 101, "pool": "a"}}});
        Registry {
            pools: serde_json::from_value(pools).unwrap(),
            guests: [("100".parse().unwrap(), serde_json::from_value(guest).unwrap())].into(),
            released: serde_json::from_value(released).unwrap(),
            ..Registry::default()
        }
    }

    fn registry(entries: &[serde_json::Value], held: &[&str]) -> Registry {
        let pools = json!({
            "a": {"profile": "generic-bridged", "bridge": "vmbr0", "gateway4": "203.0.113.1", "addresses": entries},
            "b": {"profile": "generic-bridged", "bridge": "vmbr1", "addresses": [{"address": "198.51.100.0/28"}]},
        });
        scene(&pools, held)
    }

    fn now() -> Moment {
        "2026-11-22T10:30:00Z".parse().unwrap()
    }

    fn free(registry: &Registry) -> Vec<String> {
        let inventory = Inventory::of(registry, &[], now());
        let runs = inventory.runs(registry.pools.pools.values().next().unwrap(), |state| *state == State::Free);
        runs.iter().map(|run| format!("{} {} {}", run.span.first, run.span.last, run.span.count())).collect()
    }

    #[test]
    fn neighbours_are_one_run_and_a_mac_ends_it() {
        let single = |low: u8| json!({"address": format!("203.0.113.{low}")});
        let with_mac =
            |low: u8| json!({"address": format!("203.0.113.{low}"), "mac": format!("02:00:00:00:00:{low:02x}")});
        let entries = [single(22), single(20), single(21), with_mac(23), with_mac(24), single(25), single(27)];
        assert_eq!(
            free(&registry(&entries, &["203.0.113.21"])),
            [
                "203.0.113.20 203.0.113.20 1",
                "203.0.113.22 203.0.113.22 1",
                "203.0.113.23 203.0.113.23 1",
                "203.0.113.24 203.0.113.24 1",
                "203.0.113.25 203.0.113.25 1",
                "203.0.113.27 203.0.113.27 1",
            ]
        );
        assert_eq!(free(&registry(&entries[..3], &[])), ["203.0.113.20 203.0.113.22 3"]);
        // The last IPv4 address and the first IPv6 address are no neighbours, and the largest numbers do not overflow.
        let ends = [json!({"address": "223.255.255.255"}), json!({"address": "2001:db8::/64"})];
        assert_eq!(
            free(&registry(&ends, &["2001:db8::ffff:ffff:ffff:ffff"])),
            ["223.255.255.255 223.255.255.255 1", "2001:db8::1 2001:db8::ffff:ffff:ffff:fffe 18446744073709551614"]
        );
    }

    #[test]
    fn totals_add_up_for_each_family() {
        let entries = [json!({"address": "203.0.113.0/28"}), json!({"address": "2001:db8::/64"})];
        let registry = registry(&entries, &["203.0.113.2", "203.0.113.4/31", "2001:db8::7"]);
        let own = ["203.0.113.7/32".parse().unwrap()];
        let inventory = Inventory::of(&registry, &own, now());
        let of = |numbers: [u128; 5]| {
            let [size, assigned, free, cooling, reserved] = numbers.map(Amount);
            Some(Totals { size, assigned, free, cooling, reserved })
        };
        let pool = registry.pools.pools.values().next().unwrap();
        assert_eq!(inventory.totals(pool), [of([16, 3, 8, 1, 4]), of([1 << 64, 1, (1 << 64) - 2, 0, 1])]);
        let other = registry.pools.pools.values().nth(1).unwrap();
        assert_eq!(inventory.totals(other), [of([16, 0, 14, 0, 2]), None]);
    }

    #[test]
    fn the_nearest_pool_comes_first() {
        let registry = registry(&[json!({"address": "203.0.113.0/28"}), json!({"address": "203.0.113.32/28"})], &[]);
        let near = |asked: &str| -> Vec<String> {
            let near = registry.nearest(asked.parse().unwrap());
            near.iter().map(|near| format!("{} {} {}", near.pool, near.entry, near.distance)).collect()
        };
        assert_eq!(near("203.0.113.16/32")[0], "a 203.0.113.0/28 1");
        assert_eq!(near("203.0.113.31/32")[0], "a 203.0.113.32/28 1");
        assert_eq!(near("198.51.100.20/32")[0], "b 198.51.100.0/28 5");
        assert_eq!(near("198.51.100.20/32").len(), 2);
        assert_eq!(near("2001:db8::1/128"), [""; 0], "no pool has IPv6");
    }

    proptest! {
        /// Whatever is held twice, inside something else or beyond the entry: each address counts once.
        #[test]
        fn every_address_counts_once(held in proptest::collection::vec((0u8..=255, 26u8..33), 0..30)) {
            let net = |(low, length): &(u8, u8)| {
                let net: IpNet = format!("203.0.113.{low}/{length}").parse().unwrap();
                net.trunc().to_string()
            };
            let held: Vec<String> = held.iter().map(net).collect();
            let held: Vec<&str> = held.iter().map(String::as_str).collect();
            let entries = [json!({"address": "203.0.113.0/26"}), json!({"address": "203.0.113.128/25"})];
            let registry = registry(&entries, &held);
            let inventory = Inventory::of(&registry, &[], now());
            let pool = registry.pools.pools.values().next().unwrap();
            let Some(Totals { size, assigned, free, cooling, reserved }) = inventory.totals(pool)[0] else {
                return Err(TestCaseError::fail("no IPv4"));
            };
            prop_assert_eq!(size.0, 64 + 128);
            prop_assert_eq!(assigned.0 + free.0 + cooling.0 + reserved.0, size.0);
            let is_held = |low: &u8| {
                let address: IpAddr = [203, 0, 113, *low].into();
                held.iter().any(|held| held.parse::<IpNet>().unwrap().contains(&address))
            };
            prop_assert_eq!(assigned.0, (0..64).chain(128..=255).filter(is_held).count() as u128);
        }
    }
}
