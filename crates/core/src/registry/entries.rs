//! The entries of a pool: added, changed and read from a file of the caller's, many in one step.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::document::{Pool, PoolAddress};
use super::{Holders, Registry, RuleError, rows};
use crate::model::{Family, MacAddr, PoolName, Prefix};

/// An entry as it was, if it was there, and as it is.
pub type Changed = (Option<PoolAddress>, PoolAddress);

/// What becomes of a value that may be missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Edit<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// It is this from now on.
    Set(T),
    /// There is none from now on.
    Erase,
}

impl<T> Edit<T> {
    /// Whether nothing changes.
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// The value afterwards.
    pub fn of(self, old: Option<T>) -> Option<T> {
        match self {
            Self::Keep => old,
            Self::Set(new) => Some(new),
            Self::Erase => None,
        }
    }
}

/// What becomes of what is known of a pool's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryChange {
    /// The provider's MAC.
    pub mac: Edit<MacAddr>,
    /// A gateway of its own.
    pub gateway: Edit<IpAddr>,
    /// What it costs.
    pub monthly_cost_cents: Edit<u64>,
}

impl Registry {
    /// Adds an entry to a pool; the same entry again replaces what is known of it (a MAC learnt later).
    pub fn add_address(&mut self, name: &PoolName, entry: PoolAddress) -> Result<(), RuleError> {
        self.put_entries(name, vec![entry])
    }

    /// Adds entries to a pool, or changes those that are there; what is not said stays. Returns each as it was and as it is.
    pub fn change_entries(
        &mut self,
        name: &PoolName,
        changes: &[(Prefix, EntryChange)],
    ) -> Result<Vec<Changed>, RuleError> {
        self.whole()?;
        let known: BTreeMap<Prefix, &PoolAddress> =
            self.pool(name)?.addresses.iter().map(|entry| (entry.address, entry)).collect();
        let edited = |(address, change): &(Prefix, EntryChange)| {
            let known = known.get(address).map(|entry| PoolAddress::clone(entry));
            let old = known.clone().unwrap_or_else(|| PoolAddress::new(*address));
            let entry = PoolAddress {
                address: *address,
                mac: change.mac.of(old.mac),
                gateway: change.gateway.of(old.gateway),
                monthly_cost_cents: change.monthly_cost_cents.of(old.monthly_cost_cents),
            };
            (known, entry)
        };
        let entered: Vec<Changed> = changes.iter().map(edited).collect();
        self.put_entries(name, entered.iter().map(|(_, entry)| entry.clone()).collect())?;
        Ok(entered)
    }

    /// Adds entries to a pool in the place of those with the same address: all or none.
    pub(super) fn put_entries(&mut self, name: &PoolName, entries: Vec<PoolAddress>) -> Result<(), RuleError> {
        self.whole()?;
        self.pool(name)?;
        let mut all: BTreeMap<Prefix, (&PoolName, bool)> = BTreeMap::new();
        for (other, pool) in &self.pools.pools {
            all.extend(pool.addresses.iter().map(|entry| (entry.address, (other, false))));
        }
        let holders = entries.iter().any(|entry| entry.mac.is_some()).then(|| Holders::of(self));
        for entry in &entries {
            check_entry(entry, holders.as_ref())?;
            let new = entry.address;
            let before = all.range(..new).next_back();
            let mut around = before.into_iter().chain(all.range(new..).next());
            let overlap = around.find(|(old, (other, _))| old.overlaps(new) && !(**old == new && *other == name));
            if let Some((old, (pool, is_new))) = overlap {
                return Err(RuleError::Overlap { new, old: *old, pool: (*pool).clone(), is_new: *is_new });
            }
            if !all.contains_key(&new) {
                self.check_beside_of_guests(new, name)?;
            }
            all.entry(new).or_insert((name, true));
        }
        if let Some(pool) = self.pools.pools.get_mut(name) {
            let known = std::mem::take(&mut pool.addresses).into_iter().chain(entries);
            let by_address: BTreeMap<(Family, Prefix), PoolAddress> =
                known.map(|entry| ((entry.address.family(), entry.address), entry)).collect();
            pool.addresses = by_address.into_values().collect();
        }
        Ok(())
    }
}

/// What can be said of an entry without the others.
fn check_entry(entry: &PoolAddress, holders: Option<&Holders<'_>>) -> Result<(), RuleError> {
    let address = entry.address;
    if let Some(gateway) = entry.gateway.filter(|gateway| gateway.is_ipv4() != (address.family() == Family::V4)) {
        return Err(RuleError::GatewayFamily(gateway, address));
    }
    let (Some(expected), Some(holders)) = (entry.mac, holders) else { return Ok(()) };
    let mut held = holders.overlapping(address).filter(|(.., assigned)| assigned.address == address);
    match held.find(|(_, _, interface, _)| interface.mac != expected) {
        Some((vmid, nic, interface, _)) => {
            Err(RuleError::HolderMac { address, expected, vmid, nic, actual: interface.mac })
        }
        None => Ok(()),
    }
}

/// What a row of a file says of an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    address: Option<Prefix>,
    mac: Option<MacAddr>,
    gateway: Option<IpAddr>,
    monthly_cost_cents: Option<u64>,
}

/// The columns of a CSV file, in the order in which they are written.
const COLUMNS: [&str; 4] = ["address", "mac", "gateway", "monthly_cost_cents"];

/// Reads a file of entries: JSON if it begins like that, else CSV with a line of names first. What is empty stays as it is. The
/// error names the line, or the place in the JSON.
pub fn read_entries(text: &str) -> Result<Vec<(Prefix, EntryChange)>, String> {
    let rows = if rows::are_json(text) { rows::of_json(text, "addresses")? } else { rows_of_csv(text)? };
    let mut seen = BTreeMap::new();
    let mut changes = Vec::new();
    for (place, row) in rows {
        let address = row.address.ok_or_else(|| format!("{place}: there is no address"))?;
        if let Some(first) = seen.insert(address, place.clone()) {
            return Err(format!("{place}: {address} is in {first} already"));
        }
        changes.push((
            address,
            EntryChange {
                mac: row.mac.map_or(Edit::Keep, Edit::Set),
                gateway: row.gateway.map_or(Edit::Keep, Edit::Set),
                monthly_cost_cents: row.monthly_cost_cents.map_or(Edit::Keep, Edit::Set),
            },
        ));
    }
    if changes.is_empty() { Err("there is no address in it".to_owned()) } else { Ok(changes) }
}

fn rows_of_csv(text: &str) -> Result<Vec<(String, Row)>, String> {
    rows::of_csv(text, &COLUMNS, |row: &mut Row, name, cell| {
        match name {
            "address" => row.address = Some(cell.parse().map_err(|error| format!("{error}"))?),
            "mac" => row.mac = Some(cell.parse().map_err(|error| format!("{error}"))?),
            "gateway" => row.gateway = Some(cell.parse().map_err(|_| format!("`{cell}` is not an IP address"))?),
            _ => {
                let wrong = |_| format!("`{cell}` is not a whole number of cents");
                row.monthly_cost_cents = Some(cell.parse().map_err(wrong)?);
            }
        }
        Ok(())
    })
}

/// The entries of a pool as CSV that [`read_entries`] reads.
pub fn csv(pool: &Pool) -> String {
    let mut text = COLUMNS.join(",") + "\n";
    for entry in &pool.addresses {
        let mac = entry.mac.map(|mac| mac.to_string()).unwrap_or_default();
        let gateway = entry.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
        let cost = entry.monthly_cost_cents.map(|cents| cents.to_string()).unwrap_or_default();
        text += &format!("{},{mac},{gateway},{cost}\n", entry.address);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::document::Profile;
    use crate::registry::fixtures::{A, registry};

    #[test]
    fn what_is_written_is_read() {
        let entry = |address: &str, mac: Option<&str>| PoolAddress {
            mac: mac.map(|mac| mac.parse().unwrap()),
            ..PoolAddress::new(address.parse().unwrap())
        };
        let entries = vec![entry("203.0.113.8/29", None), entry("2001:db8::5", Some("02:00:00:aa:bb:cc"))];
        let pool = Pool::new(Profile::GenericBridged, "vmbr0".parse().unwrap(), entries.clone());
        let text = csv(&pool);
        assert_eq!(
            text,
            "address,mac,gateway,monthly_cost_cents\n203.0.113.8/29,,,\n2001:db8::5,02:00:00:aa:bb:cc,,\n"
        );
        let json = serde_json::json!({ "addresses": entries }).to_string();
        let list = serde_json::to_string(&entries).unwrap();
        for text in [text, json, list] {
            let mut registry = Registry::default();
            let empty = Pool { addresses: Vec::new(), ..pool.clone() };
            let name: PoolName = "a".parse().unwrap();
            registry.create_pool(name.clone(), empty).unwrap();
            let changed = registry.change_entries(&name, &read_entries(&text).unwrap()).unwrap();
            assert_eq!(changed.iter().filter(|(old, _)| old.is_none()).count(), 2);
            assert_eq!(registry.pools.pools[&name].addresses, entries);
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        for (text, reason) in [
            ("", "there is no address in it"),
            ("address\n", "there is no address in it"),
            ("203.0.113.5\n", "line 1: `203.0.113.5` is no column; the first line names them: address,mac"),
            (
                "address,mac\n203.0.113.5,03:00:00:00:00:01\n",
                "line 2: mac: MAC address `03:00:00:00:00:01` has the group bit set",
            ),
            ("address\n\n203.0.113.5\n203.0.113.5/32\n", "line 4: 203.0.113.5"),
            ("address\n203.0.113.5,x\n", "line 2: it has 2 cells, and there are 1 columns"),
            ("mac\n02:00:00:00:00:01\n", "line 2: there is no address"),
            ("address,gateway\n203.0.113.5,fe80\n", "line 2: gateway: `fe80` is not an IP address"),
            ("address,monthly_cost_cents\n203.0.113.5,1.70\n", "`1.70` is not a whole number of cents"),
            ("[{\"address\":\"203.0.113.5\",\"mack\":1}]", "entry 1: unknown field `mack`"),
            ("{\"adresses\":[]}", "neither a list of entries nor an object with `addresses`"),
            ("[{", "EOF while parsing"),
        ] {
            let error = read_entries(text).unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        let both = read_entries("address;mac\n203.0.113.5;02:00:00:00:00:01\n# a remark\n203.0.113.6;\n").unwrap();
        assert_eq!(both.len(), 2);
    }

    #[test]
    fn overlaps_are_found_wherever_they_stand() {
        let pool = |entries: &[&str]| {
            let entries = entries.iter().map(|entry| PoolAddress::new(entry.parse().unwrap())).collect();
            Pool::new(Profile::GenericBridged, "vmbr0".parse().unwrap(), entries)
        };
        let mut registry = Registry::default();
        registry.create_pool("a".parse().unwrap(), pool(&["203.0.113.0/29", "203.0.113.16/29"])).unwrap();
        registry.create_pool("b".parse().unwrap(), pool(&["203.0.113.32/29"])).unwrap();
        for (new, old) in [
            ("203.0.113.0/28", Some("203.0.113.0/29")),
            ("203.0.113.3", Some("203.0.113.0/29")),
            ("203.0.113.16/30", Some("203.0.113.16/29")),
            ("203.0.113.8/29", None),
            ("203.0.113.32/30", Some("203.0.113.32/29")),
            ("203.0.113.0/24", Some("203.0.113.0/29")),
        ] {
            let found = registry.clone().add_address(&"a".parse().unwrap(), PoolAddress::new(new.parse().unwrap()));
            let found = found.err().map(|error| match error {
                RuleError::Overlap { old, .. } => old,
                other => panic!("{other}"),
            });
            assert_eq!(found, old.map(|old| old.parse().unwrap()), "{new}");
        }
        let error = registry.create_pool("c".parse().unwrap(), pool(&["198.51.100.0/24", "198.51.100.7"])).unwrap_err();
        assert!(matches!(error, RuleError::Overlap { is_new: true, .. }), "{error}");
    }

    #[test]
    fn an_entry_that_is_there_keeps_what_is_not_said() {
        let mut registry = registry();
        let (lan, address) = ("lan".parse().unwrap(), "203.0.113.0/29".parse().unwrap());
        let keep = EntryChange { mac: Edit::Keep, gateway: Edit::Keep, monthly_cost_cents: Edit::Keep };
        let all = EntryChange {
            mac: Edit::Set(A.parse().unwrap()),
            gateway: Edit::Set("203.0.113.6".parse().unwrap()),
            monthly_cost_cents: Edit::Set(170),
        };
        let (before, full) = registry.change_entries(&lan, &[(address, all)]).unwrap().remove(0);
        assert_eq!(before, Some(PoolAddress::new(address)));
        for (change, changed) in [
            (keep, full.clone()),
            (
                EntryChange { monthly_cost_cents: Edit::Set(200), ..keep },
                PoolAddress { monthly_cost_cents: Some(200), ..full.clone() },
            ),
            (
                EntryChange { monthly_cost_cents: Edit::Erase, ..keep },
                PoolAddress { monthly_cost_cents: None, ..full.clone() },
            ),
            (EntryChange { mac: Edit::Erase, ..keep }, PoolAddress { mac: None, ..full.clone() }),
            (EntryChange { gateway: Edit::Erase, ..keep }, PoolAddress { gateway: None, ..full.clone() }),
        ] {
            let mut registry = registry.clone();
            let (before, after) = registry.change_entries(&lan, &[(address, change)]).unwrap().remove(0);
            assert_eq!((before.as_ref(), &after), (Some(&full), &changed), "{change:?}");
            assert_eq!(registry.pools.pools[&lan].entry(address), Some(&changed));
        }
        let (before, after) =
            registry.change_entries(&lan, &[("192.0.2.7/32".parse().unwrap(), keep)]).unwrap().remove(0);
        assert_eq!((before, after), (None, PoolAddress::new("192.0.2.7/32".parse().unwrap())));
    }
}
