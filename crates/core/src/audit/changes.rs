//! What changed, worked out from what there was and what there is.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Change, Event};
use crate::model::{GuestKind, NicId, PoolName, Prefix, Vmid};
use crate::registry::Registry;
use crate::registry::document::{Assigned, GuestFile, Interface, Pool, PoolAddress};

/// What makes one registry of another, in an order in which it can have happened: what is taken comes before what is given.
///
/// A hundred thousand of them are made one guest after the other, for whoever writes them down at once.
pub fn changes<'a>(before: &'a Registry, after: &'a Registry) -> impl Iterator<Item = Change> {
    let of_guests = || before.guests.differences(&after.guests).map(|(vmid, sides)| of_guest(*vmid, sides));
    let of_pools =
        || before.pools.pools.differences(&after.pools.pools).map(|(name, [old, new])| of_pool(name, old, new));
    let node = (before.node != after.node).then(|| {
        let [was, is] = [before, after].map(|registry| registry.node.as_ref().and_then(|node| value(node, "version")));
        Change { before: was, after: is, ..Change::new(Event::NodeChanged) }
    });
    let taken = of_guests().flat_map(|sides| sides.taken).chain(of_pools().flat_map(|sides| sides.taken));
    let given = of_pools().flat_map(|sides| sides.given).chain(node).chain(of_guests().flat_map(|sides| sides.given));
    taken.chain(given)
}

/// What one guest or pool has lost, and what it has got.
#[derive(Default)]
struct Sides {
    taken: Vec<Change>,
    given: Vec<Change>,
}

fn of_guest(vmid: Vmid, [old, new]: [Option<&GuestFile>; 2]) -> Sides {
    let (mut sides, blank) = (Sides::default(), GuestFile::new(vmid));
    guest_changes(vmid, old.unwrap_or(&blank), new.unwrap_or(&blank), &mut sides.taken, &mut sides.given);
    sides
}

fn of_pool(name: &PoolName, old: Option<&Pool>, new: Option<&Pool>) -> Sides {
    let mut sides = Sides::default();
    pool_changes(name, old, new, &mut sides.taken, &mut sides.given);
    sides
}

/// The addresses that a guest's ports can use since its binding became another one; `None`: it is not bound.
pub fn bindings(kind: GuestKind, before: Option<&GuestFile>, after: Option<&GuestFile>) -> Vec<Change> {
    let of = |event: Event, guest: Option<&GuestFile>, other: Option<&GuestFile>| -> Vec<Change> {
        let held = |nic: NicId, interface: &Interface, assigned: &Assigned| {
            let mut all = other.into_iter().flat_map(GuestFile::addresses);
            all.any(|(id, twin, held)| id == nic && twin.mac == interface.mac && held.address == assigned.address)
        };
        let all = guest.into_iter().flat_map(|guest| guest.addresses().map(|entry| (guest.vmid, entry)));
        let news = all.filter(|(_, (nic, interface, assigned))| !held(*nic, interface, assigned));
        news.map(|(vmid, (nic, interface, assigned))| Change {
            port: Some(kind.port(vmid, nic)),
            ..about(event, vmid, nic, interface, assigned)
        })
        .collect()
    };
    [of(Event::Unbound, before, after), of(Event::Bound, after, before)].concat()
}

/// Every key of two maps, with its values.
fn both<'a, K: Ord, V>(old: &'a BTreeMap<K, V>, new: &'a BTreeMap<K, V>) -> BTreeMap<&'a K, [Option<&'a V>; 2]> {
    old.keys().chain(new.keys()).map(|key| (key, [old.get(key), new.get(key)])).collect()
}

fn about(event: Event, vmid: Vmid, nic: NicId, interface: &Interface, assigned: &Assigned) -> Change {
    Change {
        vmid: Some(vmid),
        interface: Some(nic),
        address: Some(assigned.address),
        mac: Some(interface.mac),
        pool: Some(assigned.pool.clone()),
        ..Change::new(event)
    }
}

/// As the registry's files have it, without `but`, which has entries of its own.
fn value(of: impl Serialize, but: &str) -> Option<Value> {
    let mut value = serde_json::to_value(of).ok()?;
    if let Value::Object(map) = &mut value {
        map.remove(but);
    }
    Some(value)
}

fn guest_changes(vmid: Vmid, old: &GuestFile, new: &GuestFile, taken: &mut Vec<Change>, given: &mut Vec<Change>) {
    for (nic, [before, after]) in both(&old.interfaces, &new.interfaces) {
        let (held, holds) = (addresses(before), addresses(after));
        for (_, [was, is]) in both(&held, &holds) {
            let (event, list, (interface, assigned)) = match (was, is) {
                (Some(was), Some(is)) if was.1 == is.1 => continue,
                (Some(_), Some(is)) => (Event::AssignmentChanged, &mut *given, is),
                (Some(was), None) => (Event::Released, &mut *taken, was),
                (None, Some(is)) => (Event::Assigned, &mut *given, is),
                (None, None) => continue,
            };
            let [before, after] = [was, is].map(|side| side.and_then(|(_, assigned)| value(assigned, "address")));
            list.push(Change { before, after, ..about(event, vmid, *nic, interface, assigned) });
        }
        if let (Some(before), Some(after)) = (before, after) {
            let [was, is] = [before, after].map(|interface| value(interface, "addresses"));
            if was != is {
                let change = Change::new(Event::NicChanged);
                let (interface, mac) = (Some(*nic), Some(after.mac));
                given.push(Change { vmid: Some(vmid), interface, mac, before: was, after: is, ..change });
            }
        }
    }
    let [before, after] =
        [old, new].map(|guest| json!({ "hookscript": guest.hookscript, "cloud_init": guest.cloud_init }));
    if before != after {
        let change = Change::new(Event::GuestChanged);
        given.push(Change { vmid: Some(vmid), before: Some(before), after: Some(after), ..change });
    }
}

fn addresses(interface: Option<&Interface>) -> BTreeMap<Prefix, (&Interface, &Assigned)> {
    let all = interface.into_iter().flat_map(|interface| interface.addresses.iter().map(move |held| (interface, held)));
    all.map(|(interface, held)| (held.address, (interface, held))).collect()
}

fn pool_changes(
    name: &PoolName,
    old: Option<&Pool>,
    new: Option<&Pool>,
    taken: &mut Vec<Change>,
    given: &mut Vec<Change>,
) {
    let entries = |pool: Option<&Pool>| -> BTreeMap<Prefix, PoolAddress> {
        pool.into_iter().flat_map(|pool| &pool.addresses).map(|entry| (entry.address, entry.clone())).collect()
    };
    let (had, has) = (entries(old), entries(new));
    let [before, after] = [old, new].map(|pool| pool.and_then(|pool| value(pool, "addresses")));
    let of_pool =
        |event| Change { pool: Some(name.clone()), before: before.clone(), after: after.clone(), ..Change::new(event) };
    match (old, new) {
        (None, Some(_)) => given.push(of_pool(Event::PoolCreated)),
        (Some(_), Some(_)) if before != after => given.push(of_pool(Event::PoolChanged)),
        _ => {}
    }
    for (address, [was, is]) in both(&had, &has).into_iter().filter(|(_, [was, is])| was != is) {
        let (event, list) = match (was, is) {
            (None, _) => (Event::EntryAdded, &mut *given),
            (_, None) => (Event::EntryRemoved, &mut *taken),
            _ => (Event::EntryChanged, &mut *given),
        };
        let [before, after] = [was, is].map(|entry| entry.and_then(|entry| value(entry, "address")));
        let (pool, address) = (Some(name.clone()), Some(*address));
        list.push(Change {
            pool,
            address,
            mac: is.or(was).and_then(|entry| entry.mac),
            before,
            after,
            ..Change::new(event)
        });
    }
    if new.is_none() {
        taken.push(of_pool(Event::PoolRemoved));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn registry(pools: &str, guests: &[&str]) -> Registry {
        let guests = guests.iter().map(|text| serde_json::from_str::<GuestFile>(text).unwrap());
        Registry {
            pools: serde_json::from_str(pools).unwrap(),
            guests: guests.map(|guest| (guest.vmid, guest)).collect(),
            ..Registry::default()
        }
    }

    const POOLS: &str = r#"{"version":1,"pools":{"a":{"profile":"generic-bridged","bridge":"vmbr0",
        "addresses":[{"address":"203.0.113.8/29"},{"address":"198.51.100.7/32","mac":"02:00:00:aa:bb:cc"}]}}}"#;

    fn guest(vmid: u32, mac: &str, addresses: &[&str]) -> String {
        let held: Vec<Value> = addresses
            .iter()
            .map(|address| json!({"address": address, "pool": "a", "assigned_at": "2026-11-22T10:00:00Z"}))
            .collect();
        json!({"version": 1, "vmid": vmid, "interfaces": {"net0": {"mac": mac, "addresses": held}}}).to_string()
    }

    fn all(before: &Registry, after: &Registry) -> Vec<Change> {
        changes(before, after).collect()
    }

    fn words(changes: &[Change]) -> Vec<String> {
        let word = |change: &Change| {
            let parts = [
                change.vmid.map(|vmid| vmid.to_string()),
                change.address.map(|address| address.to_string()),
                change.pool.as_ref().filter(|_| change.vmid.is_none()).map(ToString::to_string),
                change.port.map(|port| port.to_string()),
            ];
            parts.into_iter().flatten().fold(change.event.to_string(), |text, part| format!("{text} {part}"))
        };
        changes.iter().map(word).collect()
    }

    #[test]
    fn every_change_has_its_entry() {
        let nothing = Registry::default();
        let pool = registry(POOLS, &[]);
        assert_eq!(
            words(&all(&nothing, &pool)),
            ["pool-created a", "entry-added 198.51.100.7 a", "entry-added 203.0.113.8/29 a"]
        );
        assert_eq!(
            words(&all(&pool, &nothing)),
            ["entry-removed 198.51.100.7 a", "entry-removed 203.0.113.8/29 a", "pool-removed a"]
        );
        let mut other = pool.clone();
        let changed = other.pools.pools.values_mut().next().unwrap();
        changed.guest_routers = true;
        changed.addresses[0].monthly_cost_cents = Some(150);
        let found = all(&pool, &other);
        assert_eq!(words(&found), ["pool-changed a", "entry-changed 203.0.113.8/29 a"]);
        assert_eq!(found[0].after.as_ref().unwrap()["guest_routers"], true);
        assert_eq!(found[0].before.as_ref().unwrap().get("addresses"), None);
        assert_eq!(found[1].after, Some(json!({"monthly_cost_cents": 150})));

        let one = registry(POOLS, &[&guest(100, "02:00:00:aa:bb:00", &["203.0.113.10/32", "203.0.113.11/32"])]);
        let two = registry(
            POOLS,
            &[
                &guest(100, "02:00:00:aa:bb:99", &["203.0.113.11/32", "203.0.113.12/32"]),
                &guest(101, "02:00:00:aa:bb:01", &["203.0.113.10/32"]),
            ],
        );
        let found = all(&one, &two);
        assert_eq!(
            words(&found),
            ["released 100 203.0.113.10", "assigned 100 203.0.113.12", "nic-changed 100", "assigned 101 203.0.113.10"]
        );
        assert_eq!(found[0].before.as_ref().unwrap()["assigned_at"], "2026-11-22T10:00:00Z");
        assert_eq!(found[0].mac.unwrap().to_string(), "02:00:00:aa:bb:00");
        let mut set = one.clone();
        set.node = serde_json::from_str(r#"{"version":1,"log_group":121}"#).ok();
        let found = all(&one, &set);
        assert_eq!(words(&found), ["node-changed"]);
        assert_eq!((&found[0].before, &found[0].after), (&None, &Some(json!({"log_group": 121}))));
        let mut told = one.clone();
        told.guests.values_mut().next().unwrap().hookscript = Some("local:snippets/own".to_owned());
        assert_eq!(words(&all(&one, &told)), ["guest-changed 100"]);
    }

    #[test]
    fn a_binding_is_what_the_ports_can_use() {
        let file = |addresses: &[&str]| serde_json::from_str(&guest(100, "02:00:00:aa:bb:00", addresses)).unwrap();
        let (one, two): (GuestFile, GuestFile) = (file(&["203.0.113.10/32"]), file(&["203.0.113.11/32"]));
        let of = |before, after| words(&bindings(GuestKind::Qemu, before, after));
        assert_eq!(of(None, Some(&one)), ["bound 100 203.0.113.10 tap100i0"]);
        assert_eq!(of(Some(&one), Some(&one)), [""; 0]);
        assert_eq!(
            of(Some(&one), Some(&two)),
            ["unbound 100 203.0.113.10 tap100i0", "bound 100 203.0.113.11 tap100i0"]
        );
        assert_eq!(of(Some(&one), None), ["unbound 100 203.0.113.10 tap100i0"]);
    }

    fn any_registry() -> impl Strategy<Value = Registry> {
        proptest::collection::btree_map(100u32..104, proptest::collection::btree_set(8u8..16, 0..4), 0..4).prop_map(
            |guests| {
                let files = guests.iter().map(|(vmid, last)| {
                    let addresses: Vec<String> = last.iter().map(|last| format!("203.0.113.{last}/32")).collect();
                    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
                    guest(*vmid, "02:00:00:aa:bb:00", &addresses)
                });
                let files: Vec<String> = files.collect();
                registry(POOLS, &files.iter().map(String::as_str).collect::<Vec<_>>())
            },
        )
    }

    /// Who holds what after these changes.
    fn play(registry: &Registry, changes: &[Change]) -> Vec<(Vmid, Prefix)> {
        let mut held: Vec<(Vmid, Prefix)> =
            registry.assignments().map(|(vmid, .., held)| (vmid, held.address)).collect();
        for change in changes {
            let Some(entry) = change.vmid.zip(change.address) else { continue };
            match change.event {
                Event::Released => held.retain(|known| *known != entry),
                Event::Assigned => held.push(entry),
                _ => {}
            }
        }
        held.sort_unstable();
        held
    }

    proptest! {
        #[test]
        fn changes_lead_from_one_to_the_other(one in any_registry(), two in any_registry()) {
            prop_assert_eq!(all(&one, &one), []);
            prop_assert_eq!(play(&one, &all(&one, &two)), play(&two, &[]));
        }
    }
}
