//! Whose a step is: a guest's, a pool's, or the node's. What goes wrong with it is that subject's problem alone.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::checks::Index;
use super::diff::Step;
use super::guest_share::own_link_locals;
use super::segments::is_segment_of;
use super::state::Setting;
use crate::links::guest_of_port;
use crate::model::{IfName, PoolName, Subject, Vmid};
use crate::registry::Registry;
use crate::ruleset::Element;

/// The registry sorted by what steps name: addresses, MACs, ports, bridges.
#[derive(Debug)]
pub struct Subjects<'a> {
    registry: &'a Registry,
    index: Index<'a>,
    /// Last address and pool of each entry, by its first address.
    entries: BTreeMap<IpAddr, (IpAddr, &'a PoolName)>,
    /// Whose link-local addresses are: no pool has them.
    link_local: BTreeMap<IpAddr, Vmid>,
}

impl<'a> Subjects<'a> {
    /// Sorts the registry, which takes a while for a large one: only for a node on which something has gone wrong.
    pub fn new(registry: &'a Registry) -> Self {
        let entries = registry.pools.pools.iter().flat_map(|(name, pool)| {
            let of = move |net: IpNet| (net.network(), (net.broadcast(), name));
            pool.addresses.iter().map(move |entry| of(entry.address.net()))
        });
        let interfaces = registry
            .guests
            .iter()
            .flat_map(|(vmid, guest)| guest.interfaces.values().map(move |interface| (*vmid, interface)));
        let link_local = interfaces
            .flat_map(|(vmid, interface)| own_link_locals(interface).map(move |address| (IpAddr::V6(address), vmid)));
        let link_local = link_local.collect();
        Self { registry, index: Index::new(registry), entries: entries.collect(), link_local }
    }

    /// Whose a step is. One that changes elements of several has no single subject: see [`Self::of_element`].
    pub fn of(&self, step: &Step) -> Subject {
        let at = |address: IpAddr| self.of_range(address, address);
        let found = match step {
            Step::SetRoute(net, _) | Step::RemoveRoute(net) => self.of_range(net.network(), net.broadcast()),
            Step::SetNeighbour(_, address, mac) => {
                let holder = self.index.mac_holder(*mac);
                holder.map(|(vmid, ..)| Subject::Guest(vmid)).or_else(|| at(*address))
            }
            Step::RemoveNeighbour(_, address) | Step::SetProxy(_, address) | Step::RemoveProxy(_, address) => {
                at(*address)
            }
            Step::SetForwarding(port, mac, _) | Step::RemoveForwarding(port, mac) => {
                let holder = || Some(Subject::Guest(self.index.mac_holder(*mac)?.0));
                guest_of_port(*port).map(Subject::Guest).or_else(holder)
            }
            Step::ScreenPort(port) => guest_of_port(*port).map(Subject::Guest),
            Step::SetGateway(device, address) | Step::RemoveGateway(device, address) => {
                let mut pools = self.registry.pools.pools.iter();
                let pool = pools.find(|(_, pool)| {
                    is_segment_of(*device, pool.bridge) && pool.gateways().any(|gateway| gateway == *address)
                });
                pool.map(|(name, _)| Subject::Pool(name.clone()))
            }
            Step::ChangeSetting(setting) | Step::RestoreSetting(setting) => firewall_of(*setting).map(Subject::Guest),
            Step::ChangeElements { add, remove } => {
                let mut subjects = add.iter().chain(remove).map(|element| self.of_element(element));
                let first = subjects.next();
                first.filter(|first| subjects.all(|other| other == *first))
            }
            Step::ChangeIpSet { add, remove, .. } => {
                let mut subjects = add.iter().chain(remove).map(|member| self.of_member(member));
                let first = subjects.next();
                first.filter(|first| subjects.all(|other| other == *first))
            }
            _ => None,
        };
        found.unwrap_or(Subject::Node)
    }

    /// Whose an element of the filter is.
    pub fn of_element(&self, element: &Element) -> Subject {
        let names = element.names();
        let by_port = names.port.and_then(guest_of_port).map(Subject::Guest);
        let by_mac = || names.mac.and_then(|mac| Some(Subject::Guest(self.index.mac_holder(mac)?.0)));
        let by_range = || names.range.and_then(|(first, last)| self.of_range(first, last));
        by_port.or_else(by_mac).or_else(by_range).unwrap_or(Subject::Node)
    }

    /// Whose a member of a set of `ipset` is: it begins with an address or a prefix.
    pub fn of_member(&self, member: &str) -> Subject {
        let address = member.split(',').next().unwrap_or_default();
        let net = address.parse::<IpNet>().or_else(|_| address.parse::<IpAddr>().map(IpNet::from));
        net.ok().and_then(|net| self.of_range(net.network(), net.broadcast())).unwrap_or(Subject::Node)
    }

    /// Whose addresses these are: a guest's if they are all assigned to it, else a pool's.
    fn of_range(&self, first: IpAddr, last: IpAddr) -> Option<Subject> {
        if let Some(vmid) = self.link_local.get(&first).filter(|_| first == last) {
            return Some(Subject::Guest(*vmid));
        }
        let holder = self.index.other_holder(None, first);
        if let Some(vmid) = holder.filter(|holder| self.index.other_holder(None, last) == Some(*holder)) {
            return Some(Subject::Guest(vmid));
        }
        // Entries are disjoint: the last one that begins here or before is the only one that can reach into the range.
        let (_, (end, name)) = self.entries.range(..=last).next_back()?;
        (*end >= first).then(|| Subject::Pool((*name).clone()))
    }

    /// The pools that a guest has addresses of.
    pub fn pools_of(&self, vmid: Vmid) -> impl Iterator<Item = &PoolName> {
        let guest = self.registry.guests.get(&vmid);
        guest.into_iter().flat_map(|guest| guest.addresses().map(|(.., assigned)| &assigned.pool))
    }
}

/// The guest whose NIC firewall a setting is of. Source: pve-common `PVE/Network.pm`, `fwbr100i0`.
fn firewall_of(setting: Setting) -> Option<Vmid> {
    let device: IfName = setting.device()?;
    let digits = device.as_str().strip_prefix("fwbr")?.split('i').next()?;
    digits.parse().ok()
}
