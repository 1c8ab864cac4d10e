//! What is told on the wire: whose addresses these are now, and where a guest finds its gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::network::Network;
use crate::announce;
use crate::links::Links;
use crate::model::{IfName, MacAddr, Vmid};
use crate::plan::{Inputs, Presence, Step, gateways_here};
use crate::registry::document::{GuestFile, Mode as PoolMode};

/// Frames for guests' ports.
pub type Greetings = BTreeMap<IfName, Vec<Vec<u8>>>;

/// Tells the neighbours whose addresses these are now, where they see the guest's MAC. Helps, but nothing depends on it.
pub(crate) fn announce_addresses(network: &mut dyn Network, inputs: &Inputs, file: &GuestFile, links: &Links) {
    let mut frames: BTreeMap<IfName, Vec<Vec<u8>>> = BTreeMap::new();
    // Which of several guests has what they share, only they know.
    for (nic, interface, assigned) in file.addresses().filter(|(.., assigned)| assigned.shared.is_none()) {
        let (Some(pool), Some(address)) = (inputs.registry.pools.pools.get(&assigned.pool), assigned.address.single())
        else {
            continue;
        };
        let config = &inputs.guests[&file.vmid].config;
        let tag = config.tag(nic);
        let Some(device) = links.segment(pool.bridge, tag).filter(|_| pool.mode() == PoolMode::Bridged) else {
            continue;
        };
        frames.entry(device).or_default().push(announce::frame(interface.mac, address));
    }
    // All at once: to close the socket takes the kernel ten milliseconds.
    for (device, frames) in frames {
        if let Err(error) = network.send(device, &frames) {
            log::warn!("cannot announce the addresses of guest {} on {device}: {error}", file.vmid);
        }
    }
}

/// What to tell guests of the gateways that the node is for them: those that have just arrived still look for them where
/// they came from, and all on a bridge do whose MAC has changed, or which has just been given the gateway.
pub(super) fn greet(
    inputs: &Inputs,
    arrived: &[Vmid],
    steps: &[Step],
    macs_before: &BTreeMap<IfName, MacAddr>,
) -> Greetings {
    let given: BTreeSet<IpAddr> = steps
        .iter()
        .filter_map(|step| if let Step::SetGateway(_, gateway) = step { Some(*gateway) } else { None })
        .collect();
    let moved: BTreeSet<MacAddr> = macs_before
        .iter()
        .filter_map(|(name, before)| inputs.links.get(*name)?.mac.filter(|mac| mac != before))
        .collect();
    if arrived.is_empty() && given.is_empty() && moved.is_empty() {
        return Greetings::new();
    }
    let mut greetings = Greetings::new();
    let here = inputs.registry.guests.values();
    for guest in here.filter(|guest| inputs.presence.get(&guest.vmid) == Some(&Presence::Running)) {
        let is_new = arrived.contains(&guest.vmid);
        for (port, mac, gateway) in gateways_here(inputs, guest) {
            if is_new || given.contains(&gateway) || moved.contains(&mac) {
                greetings.entry(port).or_default().extend(announce::gateway(mac, gateway));
            }
        }
    }
    greetings
}

/// Sends them to the guests alone: out of their ports, and not by their bridge.
pub(super) fn send_greetings(network: &mut dyn Network, greetings: &Greetings) {
    for (port, frames) in greetings {
        if let Err(error) = network.send(*port, frames) {
            log::warn!("cannot tell the guest behind {port} where its gateway is: {error}");
        }
    }
}
