//! The table of verdicts as a program: what must become of a frame, worked out without the filter.
//!
//! It is written from the specification and reads frames as their receiver would; it knows nothing of the rules in
//! `rules.nft`. So the two can be held against each other (`tests/differential.rs`), and a frame can be explained to a
//! person. [`verdict`] is about what a port sends,
//! [`delivery`] about what then leaves by another port.
//!
//! The order is the law: source MAC, ethertype, content of ARP and RARP, unspecified source, source address, content.

mod bound;
mod delivery;
mod other;
mod packet;
mod reason;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::model::MacAddr;
use packet::{Content, Frame};
pub use reason::Reason;

/// What must become of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It must arrive.
    Pass,
    /// It must not, and why.
    Drop(Reason),
    /// It does not matter.
    Either(Useless),
}

/// Frames that the table leaves open: nobody sends them in earnest, and they are harmless wherever they arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Useless {
    /// The source is in order, but within the length that the packet gives for itself there is no whole UDP or ICMP
    /// header, ND target or option, or nothing at all behind the headers. Receivers cut the packet there and then find
    /// nothing; a filter may take the padding behind it for one.
    Padding,
    /// Neighbour discovery of the sender's own, with options that do not add up, that belong to another message, or that
    /// are more than eight. Receivers discard it, or ignore the option (RFC 4861).
    OddOptions,
    /// A packet behind two tags, behind an unusual one or in SNAP that claims nothing, in a form that nobody looks
    /// through there: IPv6 extension headers, a malformed header.
    OddHidden,
    /// A tag behind a tag, or a header of `ETH_P_PPP_SES`, that is not whole. `br_netfilter` drops such frames where it is loaded.
    CutEncapsulation,
    /// Neighbour discovery in fragments that claims nothing protected, behind a VLAN tag and with a fragment header
    /// that is not the first extension header. Receivers ignore it (RFC 6980), and nftables cannot see that header.
    FragmentedDiscovery,
}

/// What a port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortRole {
    /// A guest's port with bindings.
    Bound(BoundPort),
    /// A guest's port without.
    Guest {
        /// May be router and DHCP server.
        router: bool,
    },
    /// Where no pool is, on another bridge or in another VLAN: a guest's port without bindings, or what leads to another
    /// network. What only gateways and the node have is not theirs alone there.
    Elsewhere,
    /// Leads to the provider.
    Uplink,
    /// On the LAN of a guest that routes a prefix: everything is allowed.
    Free,
    /// Inner side of the NIC firewall: its frames were judged at the guest's own port.
    SecondTraversal,
}

/// What a bound port may use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a permission of its own")]
pub struct BoundPort {
    /// The MAC of its NIC.
    pub mac: MacAddr,
    /// Further MACs with which it may do the same.
    pub further_macs: BTreeSet<MacAddr>,
    /// Addresses that no pool holds: they do not leave by an uplink.
    pub also: Vec<IpNet>,
    /// Addresses, prefixes and link-local addresses (the one made of the MAC must be listed too).
    pub own: Vec<IpNet>,
    /// Whether it may ask for an address by DHCPv4.
    pub dhcp: bool,
    /// Whether it may choose its link-local address.
    pub any_link_local: bool,
    /// VLANs in which it may send.
    pub trunk: BTreeSet<u16>,
    /// Whether it gets nothing but what is addressed to it.
    pub strict: bool,
    /// Whether it gets router advertisements.
    pub advertisements: bool,
}

/// MACs and addresses that belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// MACs.
    pub macs: BTreeSet<MacAddr>,
    /// Addresses and prefixes.
    pub nets: Vec<IpNet>,
}

impl Holdings {
    fn has_address(&self, address: impl Into<IpAddr>) -> bool {
        let address = address.into();
        self.nets.iter().any(|net| net.contains(&address))
    }
}

/// Everything that is protected on the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bindings {
    /// Of the ports bound here.
    pub bound: Holdings,
    /// Of the gateways and of the node itself.
    pub infrastructure: Holdings,
    /// Of pools and assignments, bound here or not.
    pub reserved: Holdings,
    /// MACs of gateways by which packets from one guest to another come back on the uplink.
    pub returning: BTreeSet<MacAddr>,
    /// The only MACs that leave by the uplink; `None`: there is no guard, or it only counts.
    pub registered: Option<BTreeSet<MacAddr>>,
    /// Broadcast addresses of the subnets that guests are in.
    pub broadcasts: BTreeSet<Ipv4Addr>,
}

/// What must become of a frame on a node on which not every pool is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// Whether it passes.
    pub verdict: Verdict,
    /// Why it would be dropped if the pools that are only watched were enforced: it passes, and is counted.
    pub watched: Option<Reason>,
}

impl Judgement {
    /// From the verdicts with all pools and without those that are only watched.
    pub fn of(with: Verdict, without: Verdict) -> Self {
        match (with, without) {
            (Verdict::Drop(reason), Verdict::Pass) => Self { verdict: Verdict::Pass, watched: Some(reason) },
            (Verdict::Drop(_), without) => Self { verdict: without, watched: None },
            (with, _) => Self { verdict: with, watched: None },
        }
    }
}

/// The verdict for a frame that comes in by a port.
pub fn verdict(frame: &[u8], port: &PortRole, bindings: &Bindings) -> Verdict {
    let Some(frame) = Frame::parse(frame) else { return Verdict::Drop(Reason::Runt) };
    let source = frame.from.octets();
    if source[0] & 1 == 1 || source == [0; 6] {
        return Verdict::Drop(Reason::NoSourceMac);
    }
    let judged = match port {
        PortRole::Bound(port) => bound::judge(&frame, port, bindings),
        PortRole::Guest { router } => other::judge(&frame, other::Sender::Guest { router: *router }, bindings),
        PortRole::Elsewhere => other::judge(&frame, other::Sender::Elsewhere, bindings),
        PortRole::Uplink => other::judge(&frame, other::Sender::Uplink, bindings),
        PortRole::Free | PortRole::SecondTraversal => encapsulation(&frame),
    };
    judged.into()
}

/// The verdict for a frame that came in by one port, passed, and leaves by another.
pub fn delivery(frame: &[u8], from: &PortRole, to: &PortRole, bindings: &Bindings) -> Verdict {
    match Frame::parse(frame) {
        Some(frame) => delivery::judge(&frame, from, to, bindings).into(),
        None => Verdict::Drop(Reason::Runt),
    }
}

/// A frame that no rule speaks about passes, if it is whole.
fn encapsulation(frame: &Frame<'_>) -> Judged {
    if frame.content == Content::Cut { Err(Refusal::Useless(Useless::CutEncapsulation)) } else { Ok(()) }
}

/// Why a frame need not pass; `?` ends the judgement with it.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    Reason(Reason),
    Useless(Useless),
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}

impl From<packet::Cut> for Refusal {
    fn from(_: packet::Cut) -> Self {
        Self::Useless(Useless::Padding)
    }
}

type Judged = Result<(), Refusal>;

impl From<Judged> for Verdict {
    fn from(judged: Judged) -> Self {
        match judged {
            Ok(()) => Self::Pass,
            Err(Refusal::Reason(reason)) => Self::Drop(reason),
            Err(Refusal::Useless(class)) => Self::Either(class),
        }
    }
}

/// The rest of a rule: `Err(reason)` unless it holds.
fn unless(holds: bool, reason: Reason) -> Judged {
    if holds { Ok(()) } else { Err(reason.into()) }
}

#[cfg(test)]
mod tests;
