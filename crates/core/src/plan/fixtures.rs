//! A node for the tests of this room.

use std::collections::BTreeMap;

use super::inputs::{Inputs, Presence};
use super::state::NetState;
use crate::guest::{GuestConfig, Located};
use crate::links::{BridgeOptions, Link, Links};
use crate::model::{GuestKind, IfName};
use crate::registry::Registry;
use crate::registry::document::{GuestFile, PoolsFile};
use crate::ruleset::SetId;

const POOLS: &str = r#"{"version":1,"pools":{
        "lan":{"profile":"generic-bridged","bridge":"vmbr0","gateway4":"203.0.113.1","addresses":[{"address":"203.0.113.8/29"}]},
        "net":{"profile":"generic-routed","bridge":"vmbr1","guest_routers":true,"addresses":[{"address":"2001:db8:1::/48"}]}}}"#;

pub(super) const GUEST: &str = r#"{"version":1,"vmid":100,"interfaces":{"net0":{"mac":"02:00:00:00:00:0a","trunk":[258],
        "any_link_local":true,"dhcp":false,"addresses":[
        {"address":"203.0.113.10/32","pool":"lan","assigned_at":"2026-11-22T10:00:00Z"}]}}}"#;

pub(super) const OWN: (u32, &str) = (100, "net0: virtio=02:00:00:00:00:0A,bridge=vmbr0\n");

/// A node `n1` with vmbr0 (uplinks eno1 and odd0), vmbr1, vmbr2 and these guests.
pub(super) fn inputs(presence: Option<Presence>, configs: &[(u32, &str)]) -> Inputs {
    let pools: PoolsFile = serde_json::from_str(POOLS).unwrap();
    let guest: GuestFile = serde_json::from_str(GUEST).unwrap();
    let name = |text: &str| -> IfName { text.parse().unwrap() };
    let bridge = Link { bridge: Some(BridgeOptions::default()), ..Link::default() };
    let port = Link { master: Some(name("vmbr0")), ..Link::default() };
    let mut links: BTreeMap<IfName, Link> =
        ["vmbr0", "vmbr1", "vmbr2"].into_iter().map(|text| (name(text), bridge.clone())).collect();
    links.extend(["eno1", "odd0", "tap100i0"].map(|text| (name(text), port.clone())));
    links.get_mut(&name("vmbr0")).unwrap().addresses = vec!["203.0.113.250/24".parse().unwrap()];
    let place = |text: &str| Located {
        node: "n1".parse().unwrap(),
        config: GuestConfig::parse(GuestKind::Qemu, text.as_bytes()),
    };
    let vmid = |number: u32| number.to_string().parse().unwrap();
    let registry = Registry { pools, guests: [(guest.vmid, guest.clone())].into(), ..Registry::default() };
    let guests = configs.iter().map(|(number, text)| (vmid(*number), place(text))).collect();
    Inputs {
        presence: presence.map(|presence| (guest.vmid, presence)).into_iter().collect(),
        links: Links(links),
        ..Inputs::new("n1".parse().unwrap(), registry, guests)
    }
}

pub(super) fn shown(state: &NetState, sets: &[SetId]) -> Vec<String> {
    state.elements.iter().filter(|element| sets.contains(&element.set())).map(ToString::to_string).collect()
}
