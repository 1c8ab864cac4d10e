//! What may surprise about how an address is held: a prefix that somebody has to route, an address that others hold in turn.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Registry;
use super::document::{Assigned, GuestFile, Interface, Mode, Pool};
use crate::code;
use crate::model::{Family, Prefix, Problem};

impl Registry {
    /// What has to be done elsewhere before these addresses of the guest work, or is good to know of them.
    pub fn held_notes(&self, guest: &GuestFile, named: &BTreeSet<Prefix>) -> Vec<Problem> {
        let mut notes = Vec::new();
        let held = guest.addresses().filter(|(.., assigned)| named.contains(&assigned.address));
        for (_, interface, assigned) in held {
            let Some(pool) = self.pools.pools.get(&assigned.pool) else { continue };
            notes.extend(behind_nobody(guest, interface, assigned, pool));
            notes.extend(self.shared_note(guest, assigned));
        }
        notes
    }

    /// Who holds an address besides, and what the program leaves to the guests.
    fn shared_note(&self, guest: &GuestFile, assigned: &Assigned) -> Option<Problem> {
        let (vmid, group) = (guest.vmid, assigned.shared.as_ref()?);
        let others = self.assignments().filter(|(other, .., held)| *other != vmid && held.is_shared_with(assigned));
        let others: BTreeSet<String> = others.map(|(other, ..)| format!("guest {other}")).collect();
        let address = assigned.address.to_string();
        let (sentence, hint) = if others.is_empty() {
            let sentence = format!("guest {vmid} is the only member of group `{group}` that may use {address}");
            (sentence, format!("the next one: `pve-public-ip assign VMID {address} --shared {group}`"))
        } else {
            let others = others.into_iter().collect::<Vec<_>>().join(", ");
            let sentence = format!(
                "{address} may be used by guest {vmid} and by {others}; cloud-init does not configure it: keepalived or the like does"
            );
            (sentence, String::new())
        };
        Some(Problem::of_guest(code!("shared-address"), vmid, sentence, hint))
    }
}

/// A prefix whose packets do not reach its guest by what this node does alone.
fn behind_nobody(guest: &GuestFile, interface: &Interface, assigned: &Assigned, pool: &Pool) -> Option<Problem> {
    let (vmid, address, bridge) = (guest.vmid, assigned.address, pool.bridge);
    if address.single().is_some() {
        return None;
    }
    match (pool.mode(), assigned.via) {
        (Mode::Bridged, Some(via)) => {
            let sentence = format!(
                "pool `{}` is bridged, so {address} reaches guest {vmid} only if the router behind {bridge} sends it to {via}",
                assigned.pool
            );
            let family = if via.is_ipv4() { "-4" } else { "-6" };
            let hint = format!(
                "there: `ip {family} route add {address} via {via}`; at a provider: route it to {via} in its panel"
            );
            Some(Problem::of_guest(code!("prefix-needs-route"), vmid, sentence, hint))
        }
        (Mode::Routed, None) if address.family() == Family::V4 && !has_address(interface, Family::V4) => {
            let transit = transit(address);
            let sentence = format!(
                "guest {vmid} has no IPv4 address of {bridge} beside {address}, so the node asks for each address of it by ARP, and the guest has to answer"
            );
            let hint = format!(
                "to have it routed instead: `pve-public-ip assign {vmid} {address} --via {transit}`, with {transit}/32 on its NIC"
            );
            Some(Problem::of_guest(code!("prefix-on-link"), vmid, sentence, hint))
        }
        (Mode::Bridged | Mode::Routed, _) => None,
    }
}

fn has_address(interface: &Interface, family: Family) -> bool {
    let single = |held: &Assigned| held.address.family() == family && held.address.single().is_some();
    interface.addresses.iter().any(|held| held.shared.is_none() && single(held))
}

/// The first address of a prefix that can be that of the transit.
fn transit(prefix: Prefix) -> IpAddr {
    let net = prefix.net();
    net.hosts().next().unwrap_or(net.network())
}
