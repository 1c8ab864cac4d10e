//! A topology as a node has it: registry, guests' configurations, and default routes.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::list::WEB;
use super::{
    BRIDGE, ELSEWHERE, GATEWAY_MAC, LinkLocal, NAMED_LINK_LOCAL, NOBODYS, Nic, POOL_PREFIXES, PREFIXES, PoolOption,
    ROUTER, STOPPED, Segment, Special, TAG, Topology, UPLINK, assigned, name,
};
use crate::guest::GuestConfig;
use crate::links::Links;
use crate::model::{Family, GuestKind, MacAddr, NodeName};
use crate::plan::{DefaultRoute, Exits, Inputs, Located, Presence};
use crate::registry::Registry;
use crate::registry::document::{self, DocumentError};

impl Topology {
    /// What the node decides on: a registry as it is written, guests as Proxmox VE writes them, the links as they are.
    pub fn inputs(&self, links: Links) -> Result<Inputs, DocumentError> {
        let node: NodeName = name("selftest");
        let mut registry = Registry { pools: parse("pools.json", &self.pools())?, ..Registry::default() };
        let mut guests = BTreeMap::new();
        let mut presence = BTreeMap::new();
        let stopped = Nic { vmid: STOPPED.0, address: Some(STOPPED.1), ..WEB };
        let elsewhere = Nic { vmid: ELSEWHERE.0, address: Some(ELSEWHERE.1), ..WEB };
        let all: Vec<Nic> = self.nics.iter().copied().chain([stopped, elsewhere]).collect();
        for vmid in all.iter().map(|nic| nic.vmid()).collect::<std::collections::BTreeSet<_>>() {
            let own: Vec<Nic> = all.iter().copied().filter(|nic| nic.vmid() == vmid).collect();
            let interfaces: serde_json::Map<String, Value> = own
                .iter()
                .filter(|nic| nic.is_bound())
                .map(|nic| (nic.id().to_string(), Self::assignment(*nic)))
                .collect();
            if !interfaces.is_empty() {
                let file = json!({ "version": 1, "vmid": vmid, "interfaces": interfaces });
                registry.guests.insert(vmid, parse(&format!("guests/{vmid}.json"), &file)?);
            }
            let text: String = own.iter().map(|nic| self.config_line(*nic)).collect();
            let kind = own.first().map_or(GuestKind::Qemu, |nic| nic.kind);
            let there = if vmid == elsewhere.vmid() { name("other") } else { node.clone() };
            guests.insert(vmid, Located { node: there, config: GuestConfig::parse(kind, text.as_bytes()) });
            if self.nics.iter().any(|nic| nic.vmid() == vmid && nic.is_bound()) {
                presence.insert(vmid, Presence::Running);
            }
        }
        if self.segment == Segment::NoPool {
            // The bridge is the LAN of a guest that routes a prefix: what is on it may use that guest's addresses.
            let router = Nic { vmid: ROUTER.0, address: Some(ROUTER.1), ..WEB }.with_prefixes();
            let lan = Nic { index: 1, ..router }.unassigned();
            let vmid = router.vmid();
            let interfaces = json!({ router.id().to_string(): Self::assignment(router) });
            let file = json!({ "version": 1, "vmid": vmid, "interfaces": interfaces });
            registry.guests.insert(vmid, parse(&format!("guests/{vmid}.json"), &file)?);
            let text = self.config_line(router) + &self.config_line(lan);
            let config = GuestConfig::parse(GuestKind::Qemu, text.as_bytes());
            guests.insert(vmid, Located { node: node.clone(), config });
        }
        let by_uplink = |family| DefaultRoute { device: name(UPLINK), via: None, metric: 0, family };
        let routes = if self.segment == Segment::Routed {
            vec![by_uplink(Family::V4), by_uplink(Family::V6)]
        } else {
            Vec::new()
        };
        let exits = Exits { routes, ..Exits::default() };
        Ok(Inputs { presence, links, exits, ..Inputs::new(node, registry, guests) })
    }

    fn pools(&self) -> Value {
        let last = (10..=NOBODYS).map(|last| assigned([0; 6], last));
        let single = last.flat_map(|who| [who.ip4.to_string(), who.ip6.to_string()]);
        let addresses: Vec<Value> =
            single.chain(POOL_PREFIXES.map(str::to_owned)).map(|address| json!({ "address": address })).collect();
        let bridge = self.pool_bridge();
        let profile = if self.segment == Segment::Routed { "generic-routed" } else { "generic-bridged" };
        let mut pool = json!({ "profile": profile, "bridge": bridge, "addresses": addresses });
        if self.segment != Segment::Routed {
            let gateway = assigned([0; 6], 1);
            (pool["gateway4"], pool["gateway6"]) = (json!(gateway.ip4), json!(gateway.ip6));
        }
        if self.pool == PoolOption::GuestRouters {
            pool["guest_routers"] = json!(true);
        }
        if self.pool == PoolOption::Guard {
            let registered = self.nics.iter().filter(|nic| nic.special == Special::Registered);
            pool["uplink_guard"] = json!("enforce");
            pool["allowed_macs"] = registered.map(|nic| json!(MacAddr::from_octets(nic.mac()))).collect();
        }
        if self.gateway_mac() {
            pool["gateway_mac"] = json!(MacAddr::from_octets(GATEWAY_MAC));
        }
        json!({ "version": 1, "pools": { "selftest": pool } })
    }

    /// The bridge of the pool.
    pub fn pool_bridge(&self) -> &'static str {
        if matches!(self.segment, Segment::NoPool | Segment::Elsewhere) { "vmbr9" } else { BRIDGE }
    }

    fn assignment(nic: Nic) -> Value {
        let who = nic.who();
        let own = [who.ip4.to_string(), who.ip6.to_string()].into_iter();
        let prefixes = PREFIXES.iter().filter(|_| nic.prefixes).map(|prefix| (*prefix).to_owned());
        let entry = |address| json!({ "address": address, "pool": "selftest", "assigned_at": "2026-01-01T00:00:00Z" });
        let addresses: Vec<Value> = own.chain(prefixes).map(entry).collect();
        let dhcp = nic.special != Special::NoDhcp;
        let mut interface = json!({ "mac": MacAddr::from_octets(nic.mac()), "dhcp": dhcp, "addresses": addresses });
        match nic.link_local {
            LinkLocal::Own => {}
            LinkLocal::Named => interface["link_local"] = json!([NAMED_LINK_LOCAL]),
            LinkLocal::Any => interface["any_link_local"] = json!(true),
        }
        if nic.gets_any_destination() {
            interface["any_destination"] = json!(true);
        }
        if nic.special == Special::Everything {
            interface["router_advertisements"] = json!(true);
        }
        if let Some(vlan) = nic.trunk {
            interface["trunk"] = json!([vlan]);
        }
        interface
    }

    fn config_line(&self, nic: Nic) -> String {
        let mac = MacAddr::from_octets(nic.mac()).to_string().to_uppercase();
        let firewall = if nic.firewall { ",firewall=1" } else { "" };
        let tag = if self.segment == Segment::VlanAware { format!(",tag={TAG}") } else { String::new() };
        let bridge = if nic.is_bound() { self.pool_bridge() } else { BRIDGE };
        match nic.kind {
            GuestKind::Qemu => format!("{}: virtio={mac},bridge={bridge}{firewall}{tag}\n", nic.id()),
            GuestKind::Lxc => {
                format!("{}: name=eth0,bridge={bridge}{firewall},hwaddr={mac}{tag},type=veth\n", nic.id())
            }
        }
    }
}

fn parse<T: document::Document>(path: &str, value: &Value) -> Result<T, DocumentError> {
    document::parse(Path::new(path), value.to_string().as_bytes())
}
