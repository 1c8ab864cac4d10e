//! MACs that two have.

use std::collections::BTreeMap;

use crate::guest::Located;
use crate::guest::{Nic, NicChange};
use crate::links::{Links, is_guest_port};
use crate::model::{IfName, MacAddr, NicId, Vmid};
use crate::registry::Registry;

/// A MAC that is not somebody's alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedMac {
    /// The MAC.
    pub mac: MacAddr,
    /// Whose it is.
    pub sentence: String,
    /// What to do.
    pub remedy: String,
}

/// MACs that two NICs of these guests have. Two of one guest to which the registry has given the same addresses are meant so.
pub fn macs_of_two_nics<'a>(guests: impl Iterator<Item = (Vmid, &'a Located)>, registry: &Registry) -> Vec<SharedMac> {
    let mut users: BTreeMap<MacAddr, Vec<(Vmid, NicId, &Located)>> = BTreeMap::new();
    for (vmid, place) in guests {
        for (mac, id) in macs(place) {
            users.entry(mac).or_default().push((vmid, id, place));
        }
    }
    users.retain(|_, nics| nics.len() > 1);
    let shared = users.into_iter().filter_map(|(mac, nics)| {
        let is_bound = |(vmid, id, _): &&(Vmid, NicId, &Located)| {
            let interface = registry.guests.get(vmid).and_then(|guest| guest.interfaces.get(id));
            interface.is_some_and(|interface| interface.mac == mac)
        };
        let is_one_guests = nics.iter().all(|(vmid, ..)| *vmid == nics[0].0);
        if is_one_guests && nics.iter().all(|nic| is_bound(&nic)) {
            return None;
        }
        let names: Vec<String> = nics.iter().map(|(vmid, id, _)| format!("guest {vmid} {id}")).collect();
        // One that is bound keeps its MAC.
        let (vmid, id, place) = nics.iter().rev().find(|nic| !is_bound(nic)).or(nics.last())?;
        let sentence = format!("{mac} is the MAC of {}", names.join(" and "));
        let remedy = format!(
            "give one of them another MAC: `{}` makes a new one",
            place.config.change_nic(*vmid, *id, NicChange::FreshMac)
        );
        Some(SharedMac { mac, sentence, remedy })
    });
    shared.collect()
}

/// MACs that NICs of these guests have in common with interfaces of the node.
pub fn macs_of_the_node<'a>(guests: impl Iterator<Item = (Vmid, &'a Located)>, links: &Links) -> Vec<SharedMac> {
    let mut own: BTreeMap<MacAddr, Vec<IfName>> = BTreeMap::new();
    // The host's side of a container's NIC has a MAC too, and it is the guest's business.
    for (name, link) in links.0.iter().filter(|(name, _)| !is_guest_port(name.as_str())) {
        if let Some(mac) = link.mac {
            own.entry(mac).or_default().push(*name);
        }
    }
    let mut shared = Vec::new();
    for (vmid, place) in guests {
        for (mac, id) in macs(place) {
            let Some(names) = own.get(&mac) else { continue };
            let names: Vec<&str> = names.iter().map(IfName::as_str).collect();
            let sentence = format!("{mac} is the MAC of guest {vmid} {id} and of this node's {}", names.join(", "));
            let command = place.config.change_nic(vmid, id, NicChange::FreshMac);
            shared.push(SharedMac { mac, sentence, remedy: format!("give guest {vmid} another MAC: `{command}`") });
        }
    }
    shared
}

fn macs(place: &Located) -> impl Iterator<Item = (MacAddr, NicId)> {
    let mac = |(id, nic): (&NicId, &Result<Nic, _>)| Some((nic.as_ref().ok()?.mac?, *id));
    place.config.nics.iter().filter_map(mac)
}
