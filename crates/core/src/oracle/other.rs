//! Every other port: it may send everything but what belongs to somebody else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::{
    AUTHENTICATION, Arp, CUSTOMER_TAG, Content, Cut, Frame, Ip4, Ip6, Tag, Upper, arp_sender, first_option, ip4, ip6,
    is_extension, is_nd, is_tag, mac, may_claim,
};
use super::{Bindings, Judged, Reason, Refusal, Useless, encapsulation, unless};
use crate::model::MacAddr;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Guest { router: bool },
    Elsewhere,
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
    let is_plain = frame.tags.is_empty() && !matches!(frame.content, Content::Snap(..));
    let judge = Judge {
        sender,
        bindings,
        own_vlan: frame.tags.iter().any(|tag| tag.vlan != 0),
        is_tagged: !frame.tags.is_empty(),
        returns: sender == Sender::Uplink && bindings.returning.contains(&frame.from) && is_plain,
    };
    judge.mac(frame.from)?;
    let content = frame.content;
    match (&frame.tags[..], content) {
        // The kernel takes one tag off and looks at what is behind it; so do the receivers.
        ([] | [Tag { kind: CUSTOMER_TAG, .. }], Content::Arp(packet)) => judge.arp(packet),
        ([] | [Tag { kind: CUSTOMER_TAG, .. }], Content::Rarp(packet)) => judge.rarp(packet),
        ([], Content::Ip4(packet)) => judge.ipv4(packet),
        ([], Content::Ip6(packet)) => judge.ipv6(packet),
        ([tag], Content::Ip4(packet)) if tag.is_known() => judge.ipv4(packet),
        ([tag], Content::Ip6(packet)) if tag.is_known() => judge.ipv6(packet),
        // Nobody looks deeper, so anything could be in there.
        ([_, _, _, ..], _) => Err(Reason::Hidden.into()),
        ([], Content::Snap(kind, packet)) => judge.snap(kind, packet),
        (_, Content::Snap(None, _)) => Err(Refusal::Useless(Useless::OddHidden)),
        (_, Content::Snap(Some(kind), _)) => unless(!may_claim(kind), Reason::Hidden),
        (_, Content::Cut | Content::Other) => encapsulation(frame),
        (_, content) => judge.hidden(content),
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
        let is_free = self.sender == Sender::Elsewhere;
        unless(is_free || !infrastructure.macs.contains(&mac), Reason::InfrastructureMac)?;
        unless(!reserved.macs.contains(&mac), Reason::ReservedMac)
    }

    fn address(&self, address: impl Into<IpAddr>) -> Judged {
        let Bindings { bound, infrastructure, reserved, .. } = self.bindings;
        let address = address.into();
        unless(!bound.has_address(address), Reason::BoundAddress)?;
        if self.sender == Sender::Uplink {
            return Ok(());
        }
        let is_free = self.sender == Sender::Elsewhere;
        unless(is_free || !infrastructure.has_address(address), Reason::InfrastructureAddress)?;
        unless(!reserved.has_address(address), Reason::ReservedAddress)
    }

    fn may_route(&self) -> bool {
        self.own_vlan || matches!(self.sender, Sender::Uplink | Sender::Elsewhere | Sender::Guest { router: true })
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
        header.has_content()?;
        if let Some(message) = header.upper.icmp(58) {
            let (kind, message) = message?;
            if is_nd(kind) {
                self.discovery(&header, ip6(packet, 8), kind, message)?;
            }
        }
        Ok(())
    }

    /// What a receiver that strips LLC headers might take for a packet.
    fn snap(&self, kind: Option<u16>, packet: &[u8]) -> Judged {
        match kind {
            Some(0x0800) => self.hidden(Content::Ip4(packet)),
            Some(0x0806) => self.hidden(Content::Arp(packet)),
            Some(0x8035) => self.hidden(Content::Rarp(packet)),
            Some(0x86dd) => self.hidden(Content::Ip6(packet)),
            Some(kind) if is_tag(kind) => Err(Reason::Hidden.into()),
            // A length: one more LLC header.
            Some(..0x0600) | None => Err(Refusal::Useless(Useless::OddHidden)),
            Some(_) => Ok(()),
        }
    }

    /// A packet where no receiver is supposed to look: what claims nothing passes, as it does without the tags.
    fn hidden(&self, content: Content<'_>) -> Judged {
        let odd = || Err(Refusal::Useless(Useless::OddHidden));
        match content {
            Content::Arp(packet) => self.arp(packet),
            Content::Rarp(packet) => self.rarp(packet),
            Content::Ip4(packet) => {
                self.ipv4(packet)?;
                let is_plain = Ip4::parse(packet).is_some() && packet.first() == Some(&0x45);
                let could_be_dhcp = packet.get(9) == Some(&17) && !self.may_route();
                if packet.len() < 20 || could_be_dhcp && !is_plain { odd() } else { Ok(()) }
            }
            Content::Ip6(packet) => {
                // Malformed, it is discarded by whoever gets it, whatever it claims behind its source.
                let Some(header) = Ip6::parse(packet) else {
                    let claim = ip6(packet, 8).map_or(Ok(()), |source| self.address(source));
                    let mapped = ip6(packet, 8).is_some_and(|source| source.to_ipv4_mapped().is_some());
                    return claim.and_then(|()| unless(!mapped, Reason::Hidden)).and_then(|()| odd());
                };
                self.ipv6(packet)?;
                let is_nd = header.upper.icmp(58).and_then(Result::ok).is_some_and(|(kind, _)| is_nd(kind));
                let behind = header.first_extension.is_some();
                let is_whole = !behind || packet.len() > 48;
                if header.is_plain() && is_whole && !(behind && is_nd) { Ok(()) } else { odd() }
            }
            Content::Snap(..) | Content::Cut | Content::Other => Ok(()),
        }
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
