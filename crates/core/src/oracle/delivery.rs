//! What leaves the bridge by a port: to a guest what is addressed to it, to the provider MACs that it knows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::{Arp, Content, Frame, Ip6, ip4, ip6};
use crate::model::MacAddr;

use super::{Bindings, BoundPort, Judged, PortRole, Reason, unless};

pub(super) fn judge(frame: &Frame<'_>, from: &PortRole, to: &PortRole, bindings: &Bindings) -> Judged {
    let is_group = frame.to[0] & 1 == 1;
    match to {
        PortRole::Uplink if *from == PortRole::Uplink => Ok(()),
        PortRole::Uplink => {
            if let PortRole::Bound(port) = from {
                inner(frame, port)?;
            }
            let known = |macs: &std::collections::BTreeSet<_>| macs.contains(&frame.from);
            unless(bindings.registered.as_ref().is_none_or(known), Reason::UnregisteredMac)
        }
        PortRole::Bound(port) => {
            if port.strict && !is_group {
                unless(port.has_mac(MacAddr::from_octets(frame.to)), Reason::ForeignMac)?;
            }
            if !port.advertisements {
                advertisement(frame)?;
            }
            if port.strict { to_bound(frame, is_group, port, bindings) } else { Ok(()) }
        }
        PortRole::Guest { router: false } if !is_group => to_unbound(frame, bindings),
        PortRole::Guest { .. } | PortRole::Elsewhere | PortRole::Free | PortRole::SecondTraversal => Ok(()),
    }
}

/// What is of no pool does not leave for the provider.
fn inner(frame: &Frame<'_>, port: &BoundPort) -> Judged {
    let source = match packet(frame) {
        Some(Content::Ip4(packet)) => ip4(packet, 12).map(IpAddr::from),
        Some(Content::Ip6(packet)) => ip6(packet, 8).map(IpAddr::from),
        Some(Content::Arp(packet)) => Arp::parse(packet).map(|arp| IpAddr::from(arp.sender.1)),
        _ => None,
    };
    let is_inner = |address: &IpAddr| port.also.iter().any(|net| net.contains(address));
    unless(!source.as_ref().is_some_and(is_inner), Reason::InnerAddress)
}

/// What a receiver that knows nothing of tags, or of one, takes for its packet.
fn packet<'a>(frame: &Frame<'a>) -> Option<Content<'a>> {
    match frame.tags[..] {
        [] => Some(frame.content),
        [tag] if tag.is_known() => Some(frame.content),
        _ => None,
    }
}

/// A router advertisement must not reach this guest.
fn advertisement(frame: &Frame<'_>) -> Judged {
    let in_vlan = frame.tags.first().is_some_and(|tag| tag.vlan != 0);
    let Some(Content::Ip6(packet)) = packet(frame).filter(|_| !in_vlan) else { return Ok(()) };
    match Ip6::parse(packet).and_then(|header| header.upper.icmp(58)) {
        Some(message) => unless(message?.0 != 134, Reason::Advertisement),
        None => Ok(()),
    }
}

fn to_bound(frame: &Frame<'_>, is_group: bool, port: &BoundPort, bindings: &Bindings) -> Judged {
    match packet(frame) {
        Some(Content::Ip4(packet)) => {
            let for_all = |address: Ipv4Addr| address.is_multicast() || address == Ipv4Addr::BROADCAST;
            // The broadcast address of a subnet stands in no header but in that of a frame to everybody.
            let of_subnet = |address: Ipv4Addr| is_group && bindings.broadcasts.contains(&address);
            let is_own = |address: Ipv4Addr| for_all(address) || port.owns(address) || of_subnet(address);
            unless(ip4(packet, 16).is_some_and(is_own), Reason::ForeignAddress)
        }
        Some(Content::Ip6(packet)) => {
            let free = |address: Ipv6Addr| port.any_link_local && super::bound::is_link_local(address);
            let own = |address: Ipv6Addr| {
                if is_group { port.owns(address) } else { port.owns6(address, bindings) || free(address) }
            };
            let is_own = |address: Ipv6Addr| address.is_multicast() || own(address);
            unless(ip6(packet, 24).is_some_and(is_own), Reason::ForeignAddress)
        }
        _ => Ok(()),
    }
}

fn to_unbound(frame: &Frame<'_>, bindings: &Bindings) -> Judged {
    let Bindings { bound, infrastructure, reserved, .. } = bindings;
    let destination = match packet(frame) {
        Some(Content::Ip4(packet)) => ip4(packet, 16).map(IpAddr::from),
        Some(Content::Ip6(packet)) => ip6(packet, 24).map(IpAddr::from),
        _ => None,
    };
    let Some(address) = destination else { return Ok(()) };
    let is_taken = bound.has_address(address) || reserved.has_address(address);
    unless(infrastructure.has_address(address) || !is_taken, Reason::ProtectedAddress)
}
