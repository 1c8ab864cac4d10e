//! Conflicts between files: the registry, the guests' configurations, the node's addresses, Proxmox VE's own address
//! management and its firewall.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::Conflict;
use crate::guest::{GuestConfig, NicChange};
use crate::model::{IfName, MacAddr, Prefix, Vmid};
use crate::plan::Index;
use crate::registry::{Registry, conflicts_among};

/// An address that Proxmox VE's SDN has given away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The address.
    pub address: IpAddr,
    /// The guest, if it is one's.
    pub vmid: Option<Vmid>,
    /// Its MAC.
    pub mac: Option<MacAddr>,
}

/// What is compared.
#[derive(Debug, Default)]
pub struct Files {
    /// The registry.
    pub registry: Registry,
    /// Every guest of the cluster whose configuration can be read.
    pub guests: BTreeMap<Vmid, GuestConfig>,
    /// The node's own addresses, with their interfaces.
    pub own: Vec<(IfName, IpAddr)>,
    /// What SDN has given away.
    pub allocations: Vec<Allocation>,
    /// Addresses that a guest may use by the firewall's sets `ipfilter-netN`.
    pub allowed: Vec<(Vmid, IpNet)>,
}

/// Reads the state of SDN's address management. What is not understood is passed over, as it is by Proxmox VE.
///
/// Source: pve-network `PVE/Network/SDN/Ipams/PVEPlugin.pm`: `zones`, `subnets` and `ips` in each other.
pub fn allocations(bytes: &[u8]) -> Vec<Allocation> {
    let mut found = Vec::new();
    collect(&serde_json::from_slice(bytes).unwrap_or_default(), &mut found);
    found
}

fn collect(value: &Value, found: &mut Vec<Allocation>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let ips = value.as_object().filter(|_| key == "ips");
        for (address, about) in ips.into_iter().flatten() {
            let text = |name: &str| match &about[name] {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            };
            let vmid = text("vmid").and_then(|vmid| vmid.parse().ok());
            let mac = text("mac").and_then(|mac| mac.parse().ok());
            found.extend(address.parse().ok().map(|address| Allocation { address, vmid, mac }));
        }
        if ips.is_none() {
            collect(value, found);
        }
    }
}

/// Every conflict between the files.
pub fn in_files(files: &Files) -> Vec<Conflict> {
    let index = Index::new(&files.registry);
    let mut found = in_registry(&index);
    for (vmid, config) in &files.guests {
        found.extend(in_configuration(files, &index, *vmid, config));
    }
    for (device, address) in &files.own {
        if let Some((holder, held)) = holder(files, &index, *address, None) {
            let sentence = format!("{address} is assigned to guest {holder}, and the node has it on {device}");
            let hint = format!("`ip addr del {address} dev {device}`, or `pve-public-ip release {holder} {held}`");
            found.push(about("node", held, [holder], sentence, hint));
        }
    }
    for allocation in &files.allocations {
        found.extend(in_allocation(files, &index, allocation));
    }
    for (vmid, net) in &files.allowed {
        if let Some((holder, held)) = holder(files, &index, net.addr(), Some(*vmid)) {
            let sentence =
                format!("{} is assigned to guest {holder}, and a firewall set lets guest {vmid} use it", net.addr());
            let hint = format!("take it out of the set in /etc/pve/firewall/{vmid}.fw");
            found.push(about("firewall", held, [holder, *vmid], sentence, hint));
        }
    }
    found
}

fn about<const N: usize>(
    kind: &'static str,
    address: Prefix,
    guests: [Vmid; N],
    sentence: String,
    hint: String,
) -> Conflict {
    Conflict { address: Some(address), guests: BTreeSet::from(guests), ..Conflict::new(kind, sentence, hint) }
}

fn in_registry(index: &Index<'_>) -> Vec<Conflict> {
    let conflict = |(guests, sentence): (BTreeSet<Vmid>, String)| {
        let releases: Vec<String> = guests.iter().map(|vmid| format!("`pve-public-ip release {vmid}`")).collect();
        Conflict { guests, ..Conflict::new("registry", sentence, releases.join(" or ")) }
    };
    conflicts_among(index.holders()).into_iter().map(conflict).collect()
}

/// The guest that holds an address, other than this one, and what it holds.
fn holder(files: &Files, index: &Index<'_>, address: IpAddr, other_than: Option<Vmid>) -> Option<(Vmid, Prefix)> {
    let holder = index.other_holder(other_than, address)?;
    let host = Prefix::host(address).ok()?;
    let held = files.registry.guests.get(&holder)?.addresses().map(|(.., assigned)| assigned.address);
    held.into_iter().find(|held| held.contains(host)).map(|held| (holder, held))
}

fn in_configuration(files: &Files, index: &Index<'_>, vmid: Vmid, config: &GuestConfig) -> Vec<Conflict> {
    let mut found = Vec::new();
    for net in &config.configured {
        if let Some((holder, held)) = holder(files, index, net.addr(), Some(vmid)) {
            let sentence =
                format!("{} is assigned to guest {holder}, and guest {vmid} is configured with it", net.addr());
            let nic = config.nic_with(net.addr());
            let hint = nic.map(|nic| format!("take it out of guest {vmid}: `{}`", config.without_address(vmid, nic)));
            found.push(about("configuration", held, [holder, vmid], sentence, hint.unwrap_or_default()));
        }
    }
    for (nic, mac) in config.nics.iter().filter_map(|(id, nic)| Some((*id, nic.as_ref().ok()?.mac?))) {
        let holder = index.mac_holder(mac).filter(|(holder, ..)| *holder != vmid);
        if let Some((holder, held_nic, _)) = holder {
            let sentence =
                format!("MAC {mac} is registered for guest {holder} {held_nic}, and guest {vmid} {nic} has it");
            let hint =
                format!("give guest {vmid} another one: `{}`", config.change_nic(vmid, nic, NicChange::FreshMac));
            let guests = BTreeSet::from([holder, vmid]);
            found.push(Conflict { mac: Some(mac), guests, ..Conflict::new("configuration", sentence, hint) });
        }
    }
    found
}

/// What SDN has given away is somebody's, or will be.
fn in_allocation(files: &Files, index: &Index<'_>, allocation: &Allocation) -> Option<Conflict> {
    let Allocation { address, vmid, mac } = allocation;
    let whom = vmid.map_or_else(|| "somebody".to_owned(), |vmid| format!("guest {vmid}"));
    let host = Prefix::host(*address).ok()?;
    let hint =
        "remove it from Datacenter > SDN > IPAM, or the address from the pool: an address has one administration";
    let conflict = match holder(files, index, *address, None) {
        Some((holder, _)) if Some(holder) == *vmid => return None,
        Some((holder, held)) => {
            let sentence = format!("{address} is assigned to guest {holder}, and SDN has given it to {whom}");
            about("ipam", held, [holder], sentence, hint.to_owned())
        }
        None => {
            let (name, pool) = files.registry.pool_of(host)?;
            // That of a pool is nobody's to hand out anyway.
            if pool.gateway(host) == Some(*address) {
                return None;
            }
            let sentence = format!("{address} is in pool {name}, and SDN has given it to {whom}");
            let conflict = about("ipam", host, [], sentence, hint.to_owned());
            Conflict { blocks: true, ..conflict }
        }
    };
    let guests = conflict.guests.iter().copied().chain(*vmid).collect();
    Some(Conflict { mac: *mac, guests, ..conflict })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::GuestKind;

    fn files() -> Files {
        let pools = json!({"version": 1, "pools": {"a": {"profile": "generic-bridged", "bridge": "vmbr0",
            "gateway4": "203.0.113.9", "addresses": [{"address": "203.0.113.8/29"}]}}});
        let guest = |vmid: u32, mac: &str, address: &str| {
            let file = json!({"version": 1, "vmid": vmid, "interfaces": {"net0": {"mac": mac, "addresses": [
                {"address": address, "pool": "a", "assigned_at": "2026-11-22T10:00:00Z"}]}}});
            (vmid.to_string().parse().unwrap(), serde_json::from_value(file).unwrap())
        };
        let guests =
            [guest(100, "02:00:00:aa:bb:00", "203.0.113.10/32"), guest(101, "02:00:00:aa:bb:01", "203.0.113.12/31")];
        let registry = Registry {
            pools: serde_json::from_value(pools).unwrap(),
            guests: guests.into_iter().collect(),
            ..Registry::default()
        };
        Files { registry, ..Files::default() }
    }

    fn sentences(files: &Files) -> Vec<String> {
        let found = in_files(files).into_iter();
        found
            .map(|conflict| {
                format!("{}: {}{}", conflict.kind, conflict.sentence, if conflict.blocks { "!" } else { "" })
            })
            .collect()
    }

    #[test]
    fn agreement_is_no_conflict() {
        let mut files = files();
        let own = "ipconfig0: ip=203.0.113.10/32\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n";
        files.guests.insert("100".parse().unwrap(), GuestConfig::parse(GuestKind::Qemu, own.as_bytes()));
        files.own.push(("vmbr0".parse().unwrap(), "203.0.113.9".parse().unwrap()));
        files.allowed.push(("100".parse().unwrap(), "203.0.113.10/32".parse().unwrap()));
        let ipam = r#"{"zones":{"z":{"subnets":{"203.0.113.8/29":{"ips":{"203.0.113.9":{"gateway":1},
            "203.0.113.10":{"vmid":"100","mac":"02:00:00:AA:BB:00"}}}}}}}"#;
        files.allocations = allocations(ipam.as_bytes());
        assert_eq!(files.allocations.len(), 2);
        assert_eq!(sentences(&files), [""; 0]);
    }

    #[test]
    fn whoever_claims_the_same_is_named() {
        let mut files = files();
        let other = "ipconfig0: ip=203.0.113.13/24\nnet1: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n";
        files.guests.insert("300".parse().unwrap(), GuestConfig::parse(GuestKind::Qemu, other.as_bytes()));
        files.own.push(("vmbr0".parse().unwrap(), "203.0.113.10".parse().unwrap()));
        files.allowed.push(("300".parse().unwrap(), "203.0.113.10/32".parse().unwrap()));
        let ipam = r#"{"zones":{"z":{"subnets":{"203.0.113.8/29":{"ips":{"203.0.113.10":{"vmid":300},
            "203.0.113.11":{"vmid":"301","mac":"02:00:00:00:00:01"},"x":{}}}}}}}"#;
        files.allocations = allocations(ipam.as_bytes());
        assert_eq!(
            sentences(&files),
            [
                "configuration: 203.0.113.13 is assigned to guest 101, and guest 300 is configured with it",
                "configuration: MAC 02:00:00:aa:bb:00 is registered for guest 100 net0, and guest 300 net1 has it",
                "node: 203.0.113.10 is assigned to guest 100, and the node has it on vmbr0",
                "ipam: 203.0.113.10 is assigned to guest 100, and SDN has given it to guest 300",
                "ipam: 203.0.113.11 is in pool a, and SDN has given it to guest 301!",
                "firewall: 203.0.113.10 is assigned to guest 100, and a firewall set lets guest 300 use it",
            ]
        );
        let mut copy = files.registry.guests.values().next().unwrap().clone();
        copy.vmid = "400".parse().unwrap();
        files.registry.guests.insert(copy.vmid, copy);
        let first = &in_files(&files)[0];
        assert_eq!(first.sentence, "203.0.113.10 is assigned to guest 100 and to guest 400");
        assert_eq!(first.hint, "`pve-public-ip release 100` or `pve-public-ip release 400`");
        assert_eq!(first.id, in_files(&files)[0].id);
    }

    #[test]
    fn any_state_of_sdn_can_be_read() {
        for text in
            ["", "{", "[]", "7", r#"{"zones":7}"#, r#"{"ips":[]}"#, r#"{"zones":{"z":{"subnets":{"s":{"ips":7}}}}}"#]
        {
            assert_eq!(allocations(text.as_bytes()), [], "{text}");
        }
        let flat = allocations(br#"{"subnets":{"s":{"ips":{"2001:db8::1":null}}}}"#);
        assert_eq!(flat.len(), 1);
    }
}
