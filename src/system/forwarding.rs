//! Forwarding entries of bridges: which port a MAC is behind.
//!
//! A guest decides how many MACs its bridge learns, a thousand in a second if it likes. So the entries are never listed:
//! the kernel is asked for single ones, which is a look into a hash table however large that is (Linux 5.0).
//!
//! Source of the message layouts: Linux `include/uapi/linux/{neighbour,if_bridge}.h`.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use super::netlink::flags::{CREATE, REPLACE, REQUEST};
use super::netlink::{Builder, NetlinkError, attribute, attributes};
use super::pins::Pinned;
use super::routing::{Routing, RoutingError, absent_is_fine, index_of};
use super::rtnetlink::{
    AF_BRIDGE, DELETE_NEIGHBOUR, FLAG_MASTER, FLAG_SELF, FLAG_STICKY, GET_NEIGHBOUR, NEIGHBOUR_LLADDR, NEW_NEIGHBOUR,
    STATE_NOARP, STATE_PERMANENT, neighbour, read_u16, read_u32,
};
use crate::links::Link;
use crate::links::Links;
use crate::links::is_guest_port;
use crate::model::{IfName, MacAddr};

const GET_VLAN: u16 = 114;
const NEIGHBOUR_VLAN: u16 = 5;
const NEIGHBOUR_MASTER: u16 = 9;
const VLAN_ENTRY: u16 = 1;
const VLAN_ENTRY_INFO: u16 = 1;
const VLAN_ENTRY_LAST: u16 = 2;
/// `BRIDGE_VLAN_INFO_PVID`.
const IS_UNTAGGED: u16 = 2;

/// Questions that are sent at once: their answers fit into the smallest receive buffer.
const AT_ONCE: usize = 64;

/// The VLANs of a bridge port, or of a bridge itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct PortVlans {
    /// To which untagged frames belong.
    untagged: Option<u16>,
    /// First and last of each range.
    ranges: Vec<(u16, u16)>,
}

impl PortVlans {
    /// In which entries are needed: for untagged frames, and for those of `tagged` that the port lets in.
    fn of_interest(&self, tagged: &BTreeSet<u16>) -> BTreeSet<u16> {
        let has = |vlan: &&u16| self.ranges.iter().any(|(first, last)| (first..=last).contains(vlan));
        self.untagged.into_iter().chain(tagged.iter().filter(has).copied()).collect()
    }

    /// All of them.
    fn all(&self) -> BTreeSet<u16> {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last).collect()
    }

    fn parse(&mut self, attributes_of_message: &[u8]) {
        for (_, entry) in attributes(attributes_of_message).filter(|(kind, _)| *kind == VLAN_ENTRY) {
            // `struct bridge_vlan_info`: flags, number.
            let Some(info) = attribute(entry, VLAN_ENTRY_INFO) else { continue };
            let (flags, first) = (read_u16(info, 0), read_u16(info, 2));
            let last = attribute(entry, VLAN_ENTRY_LAST).map_or(first, |last| read_u16(last, 0));
            self.ranges.push((first, last));
            if flags & IS_UNTAGGED != 0 {
                self.untagged = Some(first);
            }
        }
    }
}

/// What the kernel is asked: an entry by the bridge, or by one of its ports; VLAN 0 stands for a bridge without VLANs.
#[derive(Debug, Clone, Copy)]
struct Question {
    index: u32,
    is_port: bool,
    mac: MacAddr,
    vlan: u16,
}

/// An entry: where it leads, and how.
#[derive(Debug, Clone, Copy)]
struct Entry {
    index: u32,
    is_sticky: bool,
    is_permanent: bool,
}

impl Routing {
    /// Which of the `wanted` MACs are pinned to their port, and which of those that were pinned before still are. Of what
    /// else the bridges know nothing is read.
    pub(super) fn pinned(&mut self, links: &Links, wanted: &Pinned) -> Result<Pinned, NetlinkError> {
        let noted: BTreeSet<(IfName, MacAddr)> = self.pins.load().clone();
        let none = BTreeSet::new();
        let unwanted = noted.iter().filter(|pin| !wanted.contains_key(pin)).map(|pin| (*pin, &none));
        let asked: Vec<_> = wanted.iter().map(|(pin, tagged)| (*pin, tagged)).chain(unwanted).collect();
        let bridge_of = |port: IfName| links.get(port).and_then(|link| link.master).and_then(|name| links.get(name));
        let is_aware = |port| bridge_of(port).and_then(|link| link.bridge).is_some_and(|bridge| bridge.vlan_filtering);
        let any_aware = asked.iter().any(|((port, _), _)| is_aware(*port));
        let vlans = if any_aware { self.vlans(0)? } else { BTreeMap::new() };

        let mut questions = Vec::new();
        let mut counts = Vec::new();
        for ((port, mac), tagged) in &asked {
            let link = links.get(*port).filter(|link| link.master.is_some());
            let of_interest = link.map_or_else(BTreeSet::new, |link| match vlans.get(&link.index) {
                _ if !is_aware(*port) => BTreeSet::from([0]),
                Some(own) => own.of_interest(tagged),
                None => BTreeSet::new(),
            });
            let index = link.map_or(0, |link| link.index);
            counts.push(of_interest.len());
            questions.extend(of_interest.into_iter().map(|vlan| Question { index, is_port: true, mac: *mac, vlan }));
        }
        let answers = self.entries(&questions)?;

        let names: BTreeMap<u32, IfName> = links.0.iter().map(|(name, link)| (link.index, *name)).collect();
        let mut answered = questions.iter().zip(answers);
        let mut pinned = Pinned::new();
        for ((pin @ (port, mac), tagged), count) in asked.into_iter().zip(counts) {
            let (mut here, mut missing) = (0, BTreeSet::new());
            for (question, answer) in answered.by_ref().take(count) {
                let at = answer.filter(|entry| entry.is_sticky).and_then(|entry| names.get(&entry.index).copied());
                if at == Some(port) {
                    here += 1;
                } else {
                    missing.insert(question.vlan);
                    // At another guest it is to be removed; at a card it is somebody else's business.
                    let other = at.filter(|at| is_guest_port(at.as_str())).map(|at| (at, mac));
                    pinned.extend(other.filter(|pin| !wanted.contains_key(pin)).map(|pin| (pin, BTreeSet::new())));
                }
            }
            // A port that lets in nothing needs nothing.
            let is_complete = links.get(port).is_some() && missing.is_subset(tagged);
            let is_there = if wanted.contains_key(&pin) { is_complete } else { here > 0 };
            if is_there {
                pinned.insert(pin, tagged.difference(&missing).copied().collect());
            }
        }
        Ok(pinned)
    }

    /// Behind which port of a bridge stations were heard last: each is asked for on the device that it is reached by, a
    /// bridge or an interface of a VLAN on top of it.
    pub(super) fn heard_behind(
        &mut self,
        links: &Links,
        stations: &BTreeSet<(IfName, MacAddr)>,
    ) -> Result<BTreeMap<MacAddr, IfName>, NetlinkError> {
        let mut questions = Vec::new();
        for (device, mac) in stations {
            let is_bridge = |name: &IfName| links.get(*name).is_some_and(|link| link.bridge.is_some());
            let upper = || {
                let (bridge, vlan) = device.as_str().rsplit_once('.')?;
                Some((bridge.parse().ok()?, Some(vlan.parse().ok()?)))
            };
            let found = Some((*device, None)).filter(|(device, _)| is_bridge(device)).or_else(upper);
            let Some((index, vlan)) = found.and_then(|(bridge, vlan)| Some((links.get(bridge)?.index, vlan))) else {
                continue;
            };
            let untagged = self.vlans(index)?.remove(&index).and_then(|vlans| vlans.untagged);
            let vlans = vlan.map_or_else(|| [0].into_iter().chain(untagged).collect(), |vlan| vec![vlan]);
            questions.extend(vlans.into_iter().map(|vlan| Question { index, is_port: false, mac: *mac, vlan }));
        }
        let answers = self.entries(&questions)?;
        let names: BTreeMap<u32, IfName> = links.0.iter().map(|(name, link)| (link.index, *name)).collect();
        let found = questions.iter().zip(answers).filter_map(|(question, answer)| {
            // The ports' own MACs are permanent.
            let entry = answer.filter(|entry| !entry.is_permanent)?;
            Some((question.mac, *names.get(&entry.index)?))
        });
        Ok(found.collect())
    }

    pub(super) fn set_forwarding(
        &mut self,
        port: IfName,
        mac: MacAddr,
        tagged: &BTreeSet<u16>,
    ) -> Result<(), RoutingError> {
        // A guest may stop at any moment; without its port there is nothing to pin, and no reason to stop here.
        let Ok(index) = index_of(port) else { return Ok(()) };
        let action = format!("pin {mac} to {port}");
        self.pins.note(port, mac).map_err(|error| NetlinkError::new(&action, error))?;
        // Without a VLAN the kernel makes an entry for each VLAN of the port: 4,095 where all are let in.
        let vlans = if self.looks_at_tags(index)? {
            let own = self.vlans(index)?.remove(&index).unwrap_or_default();
            own.of_interest(tagged).into_iter().map(Some).collect()
        } else {
            vec![None]
        };
        let put = |message: &mut Builder, vlan: Option<u16>| {
            message.attribute(NEIGHBOUR_LLADDR, &mac.octets());
            if let Some(vlan) = vlan {
                message.attribute(NEIGHBOUR_VLAN, &vlan.to_ne_bytes());
            }
        };
        // The bridge may have learnt the MAC elsewhere: only without that entry does the new one get its port. What is
        // pinned here in other VLANs is removed, too.
        let old = neighbour(AF_BRIDGE, index, 0, FLAG_MASTER);
        let _ = self.change(DELETE_NEIGHBOUR, 0, &old, &action, |message| put(message, None));
        let fixed = neighbour(AF_BRIDGE, index, STATE_NOARP, FLAG_MASTER | FLAG_STICKY);
        for vlan in vlans {
            match self.change(NEW_NEIGHBOUR, CREATE | REPLACE, &fixed, &action, |message| put(message, vlan)) {
                Err(error) if matches!(error.errno(), Some(Errno::ENODEV | Errno::EOPNOTSUPP)) => {}
                result => result?,
            }
        }
        Ok(())
    }

    pub(super) fn remove_forwarding(&mut self, port: IfName, mac: MacAddr) -> Result<(), RoutingError> {
        let action = format!("let {mac} go from {port}");
        if let Ok(index) = index_of(port) {
            let fixed = neighbour(AF_BRIDGE, index, 0, FLAG_MASTER);
            absent_is_fine(self.change(DELETE_NEIGHBOUR, 0, &fixed, &action, |message| {
                message.attribute(NEIGHBOUR_LLADDR, &mac.octets());
            }))?;
        }
        Ok(self.pins.forget(port, mac).map_err(|error| NetlinkError::new(&action, error))?)
    }

    /// Which of these bridges know their own MAC as local, wherever they need it.
    pub(super) fn own_entries(
        &mut self,
        links: &Links,
        bridges: &BTreeSet<IfName>,
    ) -> Result<BTreeSet<IfName>, NetlinkError> {
        let mut found = BTreeSet::new();
        for bridge in bridges {
            let Some(link) = links.get(*bridge) else { continue };
            if self.lacking_own_entries(link)?.is_empty() {
                found.insert(*bridge);
            }
        }
        Ok(found)
    }

    /// Makes the entries of a bridge's own MAC as the kernel does when it gets that MAC.
    pub(super) fn set_own_entry(&mut self, bridge: IfName) -> Result<(), RoutingError> {
        let links = self.links_named(&BTreeSet::from([bridge]))?;
        let link = links.get(bridge).ok_or(RoutingError::NoInterface(bridge))?;
        let Some(mac) = link.mac else { return Ok(()) };
        let action = format!("let {bridge} know its own MAC {mac}");
        let fixed = neighbour(AF_BRIDGE, link.index, STATE_PERMANENT, FLAG_SELF);
        for vlan in self.lacking_own_entries(link)? {
            // Somebody may have sent with the MAC meanwhile: what the bridge has learnt is replaced.
            self.change(NEW_NEIGHBOUR, CREATE | REPLACE, &fixed, &action, |message| {
                message.attribute(NEIGHBOUR_LLADDR, &mac.octets());
                // 0 cannot be named, and is what is meant without a VLAN.
                if vlan != 0 {
                    message.attribute(NEIGHBOUR_VLAN, &vlan.to_ne_bytes());
                }
            })?;
        }
        Ok(())
    }

    /// The VLANs in which a bridge takes frames for the node, and does not know its own MAC as local.
    fn lacking_own_entries(&mut self, link: &Link) -> Result<Vec<u16>, NetlinkError> {
        let (Some(mac), Some(options)) = (link.mac, link.bridge) else { return Ok(Vec::new()) };
        let mut vlans = BTreeSet::from([0]);
        if options.vlan_filtering {
            vlans = self.vlans(link.index)?.remove(&link.index).unwrap_or_default().all();
            if options.local_in_vlan_0 {
                vlans.insert(0);
            }
        }
        let ask = |vlan| Question { index: link.index, is_port: false, mac, vlan };
        let questions: Vec<Question> = vlans.into_iter().map(ask).collect();
        let answers = self.entries(&questions)?;
        let asked = questions.iter().map(|question| question.vlan).zip(answers);
        let there = |(vlan, answer): (u16, Option<Entry>)| (vlan, answer.is_some_and(|entry| entry.is_permanent));
        Ok(lacking(asked.map(there), options.vlan_filtering))
    }

    /// The answer to each question; none: the bridge does not know the MAC.
    fn entries(&mut self, questions: &[Question]) -> Result<Vec<Option<Entry>>, NetlinkError> {
        let action = "look up a forwarding entry";
        let mut answers = vec![None; questions.len()];
        for (chunk, answers) in questions.chunks(AT_ONCE).zip(answers.chunks_mut(AT_ONCE)) {
            let mut builder = Builder::default();
            let mut asked = BTreeMap::new();
            for (number, question) in chunk.iter().enumerate() {
                let sequence = self.socket.next_sequence();
                asked.insert(sequence, number);
                let (port, flags) = if question.is_port { (question.index, FLAG_MASTER) } else { (0, 0) };
                builder.message(GET_NEIGHBOUR, REQUEST, sequence, &neighbour(AF_BRIDGE, port, 0, flags));
                builder.attribute(NEIGHBOUR_LLADDR, &question.mac.octets());
                if !question.is_port {
                    builder.attribute(NEIGHBOUR_MASTER, &question.index.to_ne_bytes());
                }
                if question.vlan != 0 {
                    builder.attribute(NEIGHBOUR_VLAN, &question.vlan.to_ne_bytes());
                }
                builder.end_message();
            }
            self.socket.send(builder.bytes())?;
            // Each question has exactly one answer: the entry, or why there is none.
            while !asked.is_empty() {
                let frames = self.socket.receive(MsgFlags::empty())?.ok_or_else(|| NetlinkError::late(action))?;
                for frame in frames {
                    let Some(number) = asked.remove(&frame.sequence) else { continue };
                    match frame.error().map(Errno::from_raw) {
                        None => {
                            let (state, flags) = (read_u16(&frame.payload, 8), frame.payload.get(10));
                            answers[number] = Some(Entry {
                                index: read_u32(&frame.payload, 4),
                                is_sticky: flags.is_some_and(|flags| flags & FLAG_STICKY != 0),
                                is_permanent: state & STATE_PERMANENT != 0,
                            });
                        }
                        // Not known, or its port has just been unplugged.
                        Some(Errno::ENOENT | Errno::ENODEV | Errno::EINVAL | Errno::EOPNOTSUPP) => {}
                        Some(errno) => return Err(NetlinkError::new(action, errno)),
                    }
                }
            }
        }
        Ok(answers)
    }

    /// The VLANs of a port or bridge by its number, or with 0 of all of them; none where the kernel knows no VLANs.
    fn vlans(&mut self, index: u32) -> Result<BTreeMap<u32, PortVlans>, NetlinkError> {
        // `struct br_vlan_msg`: family, padding, number of the interface.
        let mut fixed = [0; 8];
        fixed[0] = AF_BRIDGE;
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        let frames = match self.dump(GET_VLAN, &fixed, "list the VLANs of a port") {
            Ok(frames) => frames,
            Err(error) if matches!(error.errno(), Some(Errno::EOPNOTSUPP | Errno::ENODEV | Errno::EINVAL)) => {
                return Ok(BTreeMap::new());
            }
            Err(error) => return Err(error),
        };
        let mut found: BTreeMap<u32, PortVlans> = BTreeMap::new();
        for frame in frames {
            found.entry(read_u32(&frame, 4)).or_default().parse(frame.get(8..).unwrap_or_default());
        }
        Ok(found)
    }
}

/// The VLANs without an entry, by whether each has one. On a VLAN-aware bridge one in VLAN 0, where it counts at all,
/// is one for all VLANs; but only the kernel's own counts, so that it is not set there.
fn lacking(vlans: impl IntoIterator<Item = (u16, bool)>, is_aware: bool) -> Vec<u16> {
    let vlans: Vec<(u16, bool)> = vlans.into_iter().collect();
    if is_aware && vlans.contains(&(0, true)) {
        return Vec::new();
    }
    vlans.into_iter().filter(|(vlan, has)| !has && (*vlan != 0 || !is_aware)).map(|(vlan, _)| vlan).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_bridge_lacks_its_own_mac() {
        assert_eq!(lacking([(0, false)], false), [0]);
        assert!(lacking([(0, true)], false).is_empty());
        assert_eq!(lacking([(1, true), (10, false), (20, false)], true), [10, 20]);
        // With its own entries in VLAN 0 only: as long as it is there, nothing is missing.
        assert!(lacking([(0, true), (1, false), (10, false)], true).is_empty());
        assert_eq!(lacking([(0, false), (1, false), (10, true)], true), [1]);
        assert!(lacking([], true).is_empty(), "the node is in none of its VLANs");
    }

    #[test]
    fn only_vlans_in_which_the_guest_can_send_are_of_interest() {
        let entry = |flags: u16, first: u16, last: Option<u16>| {
            let mut builder = Builder::default();
            builder.message(0, 0, 0, &[]);
            let nest = builder.begin(VLAN_ENTRY);
            builder.attribute(VLAN_ENTRY_INFO, &[flags.to_ne_bytes(), first.to_ne_bytes()].concat());
            if let Some(last) = last {
                builder.attribute(VLAN_ENTRY_LAST, &last.to_ne_bytes());
            }
            builder.end(nest);
            builder.bytes()[16..].to_vec()
        };
        let mut vlans = PortVlans::default();
        assert!(vlans.of_interest(&BTreeSet::from([10])).is_empty(), "the port lets nothing in");
        // As Proxmox VE sets up a NIC without `tag`: untagged in VLAN 1, and all the others.
        vlans.parse(&[entry(IS_UNTAGGED | 4, 1, None), entry(0, 2, Some(4094))].concat());
        assert_eq!(vlans, PortVlans { untagged: Some(1), ranges: vec![(1, 1), (2, 4094)] });
        assert_eq!(vlans.of_interest(&BTreeSet::new()), BTreeSet::from([1]));
        assert_eq!(vlans.of_interest(&BTreeSet::from([10, 20])), BTreeSet::from([1, 10, 20]));
        let mut tagged = PortVlans::default();
        tagged.parse(&[entry(IS_UNTAGGED | 4, 7, None), entry(0, 10, None)].concat());
        assert_eq!(tagged.of_interest(&BTreeSet::from([10, 20])), BTreeSet::from([7, 10]));
    }
}
