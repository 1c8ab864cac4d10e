//! Every other port: it may send everything but what belongs to somebody else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::{
    AUTHENTICATION, Arp, CUSTOMER_TAG, Content, Cut, Frame, Ip4, Ip6, Tag, Upper, arp_sender, first_option, ip4, ip6,
    is_extension, is_nd, mac,
};
use super::{Bindings, Judged, Reason, Refusal, Useless, encapsulation, unless};
use crate::model::MacAddr;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Guest { router: bool },
    Uplink,
}

/// The port and what it must not claim.
struct Judge<'a> {
    sender: Sender,
    bindings: &'a Bindings,
    /// In a VLAN of its own, where it may be router and DHCP server.
    own_vlan: bool,
    /// Behind a tag of any kind.
    is_tagged: bool,
    /// Routed packets with the address of a guest of this node may come back from here.
    returns: bool,
}

pub(super) fn judge(frame: &Frame<'_>, sender: Sender, bindings: &Bindings) -> Judged {
    let judge = Judge {
        sender,
        bindings,
        own_vlan: matches!(frame.tags[..], [Tag { kind: CUSTOMER_TAG, vlan: 1.. }]),
        is_tagged: !frame.tags.is_empty(),
        returns: sender == Sender::Uplink && bindings.returning.contains(&frame.from) && frame.tags.is_empty(),
    };
    judge.mac(frame.from)?;
    match frame.tags[..] {
        [] | [Tag { kind: CUSTOMER_TAG, .. }] => {}
        // A service tag carries customers' tags; packets right behind it are looked at, for the kernel takes it off.
        [tag] if tag.is_known() && matches!(frame.content, Content::Ip4(_) | Content::Ip6(_)) => {}
        // Stricter than "everything else passes": nobody looks deeper, so anything could be in there.
        _ => return Err(Reason::Hidden.into()),
    }
    match frame.content {
        Content::Arp(packet) => judge.arp(packet),
        Content::Ip4(packet) => judge.ipv4(packet),
        Content::Ip6(packet) => judge.ipv6(packet),
        Content::Snap => Err(Reason::Hidden.into()),
        Content::Rarp(packet) => judge.rarp(packet),
        Content::Cut | Content::Other => encapsulation(frame),
    }
}

/// Whether a router forwards it: neighbour discovery and link-local addresses stay on their link (RFC 4861, RFC 4291).
fn is_routable(source: Ipv6Addr, header: Option<&Ip6<'_>>) -> bool {
    let message = header.and_then(|header| header.upper.icmp(58)).and_then(Result::ok);
    !source.is_unicast_link_local() && !message.is_some_and(|(kind, _)| is_nd(kind))
}

impl Judge<'_> {
    fn mac(&self, mac: MacAddr) -> Judged {
        let Bindings { bound, infrastructure, reserved, .. } = self.bindings;
        unless(!bound.macs.contains(&mac), Reason::BoundMac)?;
        if self.sender == Sender::Uplink {
            return Ok(());
        }
        unless(!infrastructure.macs.contains(&mac), Reason::InfrastructureMac)?;
        unless(!reserved.macs.contains(&mac), Reason::ReservedMac)
    }

    fn address(&self, address: impl Into<IpAddr>) -> Judged {
        let Bindings { bound, infrastructure, reserved, .. } = self.bindings;
        let address = address.into();
        unless(!bound.has_address(address), Reason::BoundAddress)?;
        if self.sender == Sender::Uplink {
            return Ok(());
        }
        unless(!infrastructure.has_address(address), Reason::InfrastructureAddress)?;
        unless(!reserved.has_address(address), Reason::ReservedAddress)
    }

    fn may_route(&self) -> bool {
        self.own_vlan || matches!(self.sender, Sender::Uplink | Sender::Guest { router: true })
    }

    fn arp(&self, packet: &[u8]) -> Judged {
        let (mac, address) = arp_sender(packet);
        mac.map_or(Ok(()), |mac| self.mac(mac))?;
        address.map_or(Ok(()), |address| self.address(address))?;
        let arp = Arp::parse(packet).ok_or(Reason::Unreadable)?;
        // A probe stops the owner from taking its address, whichever operation it says.
        if arp.sender.1 == Ipv4Addr::UNSPECIFIED {
            self.address(arp.target.1)?;
        }
        Ok(())
    }

    fn rarp(&self, packet: &[u8]) -> Judged {
        [8, 18].into_iter().filter_map(|at| mac(packet, at)).try_for_each(|mac| self.inner_mac(mac))
    }

    fn ipv4(&self, packet: &[u8]) -> Judged {
        ip4(packet, 12).filter(|_| !self.returns).map_or(Ok(()), |source| self.address(source))?;
        // A header that nobody can read carries no message.
        let Some(header) = Ip4::parse(packet) else { return Ok(()) };
        if let Some(ports) = header.upper.udp() {
            unless(ports?.1 != 68 || self.may_route(), Reason::RogueDhcp)?;
        }
        Ok(())
    }

    fn ipv6(&self, packet: &[u8]) -> Judged {
        let header = Ip6::parse(packet);
        if let Some(source) = ip6(packet, 8) {
            if !(self.returns && is_routable(source, header.as_ref())) {
                self.address(source)?;
            }
            unless(source.to_ipv4_mapped().is_none(), Reason::Hidden)?;
        }
        let header = header.ok_or(Reason::Unreadable)?;
        if let Some(ports) = header.upper.udp() {
            unless(ports?.1 != 546 || self.may_route(), Reason::RogueDhcp)?;
        }
        if let Upper::Whole { protocol: AUTHENTICATION, payload } = header.upper {
            let next = payload.first().copied().ok_or(Cut)?;
            unless(next != 58 && !is_extension(next), Reason::Hidden)?;
        }
        if let Some(message) = header.upper.icmp(58) {
            let (kind, message) = message?;
            if is_nd(kind) {
                self.discovery(&header, ip6(packet, 8), kind, message)?;
            }
        }
        Ok(())
    }

    fn discovery(&self, header: &Ip6<'_>, source: Option<Ipv6Addr>, kind: u8, message: &[u8]) -> Judged {
        let claims = match kind {
            134 | 137 => unless(self.may_route(), Reason::RogueRouter),
            136 => self.target(message, header.padded).and_then(|()| self.option(message, header.padded, 24, 2)),
            135 if source == Some(Ipv6Addr::UNSPECIFIED) => self.target(message, header.padded),
            135 => self.option(message, header.padded, 24, 1),
            _ => self.option(message, header.padded, 8, 1),
        };
        claims?;
        // Nobody may send it so (RFC 6980), and what is in the next fragment nobody sees.
        if header.has_fragment_header {
            let may_be_missed = self.is_tagged && !header.begins_with_fragment();
            let useless = Refusal::Useless(Useless::FragmentedDiscovery);
            return Err(if may_be_missed { useless } else { Reason::Unreadable.into() });
        }
        Ok(())
    }

    /// A protected MAC as that of another address: only where the option is the first, as every host sends it.
    fn option(&self, message: &[u8], padded: &[u8], at: usize, kind: u8) -> Judged {
        let named = |message: &[u8]| message.get(at..).and_then(|options| first_option(options, kind));
        named(message).map_or(Ok(()), |mac| self.inner_mac(mac))?;
        let in_padding = named(padded).is_some_and(|mac| self.inner_mac(mac).is_err());
        if in_padding { Err(Cut.into()) } else { Ok(()) }
    }

    /// A MAC inside a message. What the provider says of it is not about its port.
    fn inner_mac(&self, mac: MacAddr) -> Judged {
        if self.sender == Sender::Uplink { Ok(()) } else { self.mac(mac) }
    }

    fn target(&self, message: &[u8], padded: &[u8]) -> Judged {
        ip6(padded, 8).ok_or(Reason::Unreadable)?;
        let target = ip6(message, 8).ok_or(Cut)?;
        self.address(target)
    }
}
