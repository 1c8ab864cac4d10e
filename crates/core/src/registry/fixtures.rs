//! A registry for the tests of this room: a pool of a subnet, and one whose provider hands out MACs.

use std::collections::{BTreeMap, BTreeSet};

use super::document::{Pool, PoolAddress, Profile};
use super::{AssignRequest, Quantity, Registry};
use crate::model::{Moment, NicId};

pub(super) const A: &str = "02:00:00:00:00:0a";
pub(super) const B: &str = "02:00:00:00:00:0b";

pub(super) fn registry() -> Registry {
    let mut registry = Registry::default();
    let mut create = |name: &str, profile, gateway4: Option<&str>, addresses: &[&str]| {
        let entries = addresses.iter().map(|text| PoolAddress::new(text.parse().unwrap()));
        let mut pool = Pool::new(profile, "vmbr0".parse().unwrap(), entries.collect());
        pool.gateway4 = gateway4.map(|text| text.parse().unwrap());
        registry.create_pool(name.parse().unwrap(), pool).unwrap();
    };
    let addresses = ["203.0.113.0/29", "2001:db8::/64"];
    create("lan", Profile::GenericBridged, Some("203.0.113.1"), &addresses);
    create("ovh", Profile::OvhBridged, None, &["198.51.100.7/32"]);
    registry
}

pub(super) fn request(vmid: &str, mac: &str, addresses: &[&str]) -> AssignRequest {
    AssignRequest {
        vmid: vmid.parse().unwrap(),
        node: None,
        nics: vec![(NicId::FIRST, mac.parse().unwrap())],
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        pool: None,
        families: BTreeSet::new(),
        quantity: Quantity::default(),
        organization: None,
        vps_id: None,
        via: None,
        shared: None,
        avoid: Vec::new(),
        contested: BTreeMap::new(),
        asking: None,
        in_use: BTreeMap::new(),
        foreign: BTreeSet::new(),
        now: at("10:00"),
    }
}

pub(super) fn at(time: &str) -> Moment {
    format!("2026-11-22T{time}:00Z").parse().unwrap()
}
