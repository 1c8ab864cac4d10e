//! What must pass and what must not, as frames: one table for a bound port, one for every other port.

mod bound;
mod claims;
mod odd_forms;
mod others;
mod unbound;

use std::net::{Ipv4Addr, Ipv6Addr};

pub use bound::{bound_port, link_locals, own_prefix, trunk};
pub use claims::{claims, foreign_mac_inside, hidden_claims, link_local_claims, mac_claims, open_claims};
pub use odd_forms::bound_odd_forms;
pub use others::{announcements, dhcp_request, hairpin, offloads, packet, routed};
pub use unbound::unbound_port;

use super::frames::{
    ALL_NODES, Arp, ICMP6, IP4, IP6, Mac, UDP, ether, group_mac, icmp6, ip4, ip6, nd_body, solicited_node, udp6,
};
use crate::model::MacAddr;

/// A frame, and whether it must arrive.
#[derive(Debug, Clone)]
pub struct Case {
    /// The rows of the report's summary.
    pub group: &'static str,
    /// What kind of frame it is, in words.
    pub class: String,
    /// The frame.
    pub frame: Vec<u8>,
    /// Whether it must arrive.
    pub passes: bool,
    /// What a virtual machine asks of its network card with the frame.
    pub offload: Option<Offload>,
    /// Bytes by which the frame is known although the kernel changes it on its way: it cuts a large one, or routes it.
    pub mark: Option<Vec<u8>>,
}

/// What a driver may leave to the network card: `struct virtio_net_hdr` of Linux `include/uapi/linux/virtio_net.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    /// Into which kind of packets the frame is cut; 0: it is not.
    pub segments: u8,
    /// Length of all headers.
    pub headers: u16,
    /// Bytes of data in each segment.
    pub segment: u16,
    /// Where the checksum begins.
    pub start: u16,
    /// Where, counted from there, it is written.
    pub offset: u16,
}

/// Somebody with a MAC and addresses.
#[derive(Debug, Clone, Copy)]
pub struct Who {
    /// The NIC's.
    pub mac: Mac,
    /// One of each family.
    pub ip4: Ipv4Addr,
    /// One of each family.
    pub ip6: Ipv6Addr,
}

impl Who {
    /// The address that the MAC makes.
    pub fn link_local(self) -> Ipv6Addr {
        MacAddr::from_octets(self.mac).link_local()
    }
}

/// Those that a sender may pose as, and what is around them.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    /// The provider's.
    pub gateway: Who,
    /// On the bridge.
    pub node: Who,
    /// Bound elsewhere on the bridge.
    pub victim: Who,
    /// Not in any pool.
    pub stranger: Who,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) group: &'static str,
    pub(super) cases: Vec<Case>,
}

impl Table {
    pub(super) fn pass(&mut self, class: impl Into<String>, frame: Vec<u8>) {
        self.is(true, class, frame);
    }

    pub(super) fn drop(&mut self, class: impl Into<String>, frame: Vec<u8>) {
        self.is(false, class, frame);
    }

    pub(super) fn is(&mut self, passes: bool, class: impl Into<String>, frame: Vec<u8>) {
        self.cases.push(Case { group: self.group, class: class.into(), frame, passes, offload: None, mark: None });
    }
}

/// Frames from one MAC, to one MAC or to the group that the destination address has.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    pub(super) me: Who,
    pub(super) to: Mac,
}

impl Sender {
    pub(super) fn v4(self, from: Ipv4Addr, to: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        ether(self.to, self.me.mac, IP4, &ip4(from, to, protocol, fragment, payload))
    }

    pub(super) fn v6(self, from: Ipv6Addr, to: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
        let mac = if to.is_multicast() { group_mac(to) } else { self.to };
        ether(mac, self.me.mac, IP6, &ip6(from, to, next, hops, payload))
    }

    pub(super) fn udp6(self, from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
        self.v6(from, to, UDP, 64, &udp6(from, to, 4000, 4001))
    }

    pub(super) fn icmp6(self, from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
        self.v6(from, to, ICMP6, 255, &icmp6(from, to, kind, body))
    }

    pub(super) fn ns(self, from: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        self.icmp6(from, solicited_node(target), 135, &nd_body(0, target, options))
    }

    /// Unsolicited, with the override flag: what poisons a neighbour's cache.
    pub(super) fn na(self, from: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        self.icmp6(from, ALL_NODES, 136, &nd_body(0x20, target, options))
    }

    /// A message behind an extension header of eight bytes.
    pub(super) fn behind(self, from: Ipv6Addr, to: Ipv6Addr, next: u8, header: [u8; 8], message: &[u8]) -> Vec<u8> {
        self.v6(from, to, next, 255, &[&header[..], message].concat())
    }

    pub(super) fn mld(self, packet: &[u8]) -> Vec<u8> {
        ether([0x33, 0x33, 0, 0, 0, 0x16], self.me.mac, IP6, packet)
    }

    pub(super) fn arp(self, arp: Arp) -> Vec<u8> {
        arp.frame(self.to, self.me.mac)
    }
}

const HOP_BY_HOP: u8 = 0;
const PIM: u8 = 103;
pub(super) const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
pub(super) const MORE: u16 = 0x2000;
/// Data of a later fragment that reads like ports 67 -> 68, and like an ICMP redirect.
const LOOKS_LIKE_DHCP: [u8; 16] = [0, 67, 0, 68, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
const LOOKS_LIKE_REDIRECT: [u8; 16] = [5, 1, 0, 0, 203, 0, 113, 1, 1, 2, 3, 4, 5, 6, 7, 8];
/// Addresses of nobody.
const HARMLESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 250);
const HARMLESS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 250);
