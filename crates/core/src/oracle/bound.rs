//! A bound port: it may send what is its own, and nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::{
    AUTHENTICATION, Arp, CUSTOMER_TAG, Content, Cut, Frame, IGMP, Ip4, Ip6, PIM, SOURCE_MAC, TARGET_MAC, Tag, Upper,
    first_option, ip4, ip6, is_extension, is_listener_alert, is_nd, option_kinds,
};
use crate::model::MacAddr;

use super::{Bindings, BoundPort, Judged, Reason, Refusal, Useless, unless};

const BROADCAST: [u8; 6] = [0xff; 6];

impl BoundPort {
    pub(super) fn owns(&self, address: impl Into<IpAddr>) -> bool {
        let address = address.into();
        self.own.iter().chain(&self.also).any(|net| net.contains(&address))
    }

    pub(super) fn has_mac(&self, mac: MacAddr) -> bool {
        mac == self.mac || self.further_macs.contains(&mac)
    }

    pub(super) fn owns6(&self, address: Ipv6Addr, bindings: &Bindings) -> bool {
        self.owns(address) || self.any_link_local && is_free_link_local(address, bindings)
    }
}

pub(super) fn is_link_local(address: Ipv6Addr) -> bool {
    address.octets()[..8] == [0xfe, 0x80, 0, 0, 0, 0, 0, 0]
}

/// A link-local address that a guest may take by its own choice: nobody has it, and it is not of the kinds that
/// routers have (small numbers, or made of a MAC).
fn is_free_link_local(address: Ipv6Addr, bindings: &Bindings) -> bool {
    let octets = address.octets();
    let is_small = octets[8..12] == [0; 4];
    let of_mac = octets[11..13] == [0xff, 0xfe];
    let taken = bindings.bound.has_address(address) || bindings.infrastructure.has_address(address);
    is_link_local(address) && !is_small && !of_mac && !taken
}

pub(super) fn judge(frame: &Frame<'_>, port: &BoundPort, bindings: &Bindings) -> Judged {
    unless(port.has_mac(frame.from), Reason::SourceMac)?;
    match frame.tags[..] {
        [] => {}
        [Tag { kind: CUSTOMER_TAG, vlan }] if port.trunk.contains(&vlan) => {
            // A guest without a VLAN announces itself after a migration; QEMU knows nothing of those inside.
            unless(!matches!(frame.content, Content::Rarp(_)), Reason::Ethertype)?;
        }
        _ => return Err(Reason::Tag.into()),
    }
    match frame.content {
        Content::Arp(packet) => arp(packet, port),
        Content::Rarp(packet) => rarp(packet, frame.to, port),
        Content::Ip4(packet) => ipv4(packet, frame.to, port),
        Content::Ip6(packet) => ipv6(packet, port, bindings),
        Content::Snap(..) | Content::Cut | Content::Other => Err(Reason::Ethertype.into()),
    }
}

fn arp(packet: &[u8], port: &BoundPort) -> Judged {
    let arp = Arp::parse(packet).filter(|arp| arp.hardware == 1 && [1, 2].contains(&arp.operation));
    let arp = arp.ok_or(Reason::ArpMalformed)?;
    let (mac, address) = arp.sender;
    // A probe asks whether anybody has the address that the sender is about to take.
    let is_probe = address == Ipv4Addr::UNSPECIFIED && arp.operation == 1;
    let claimed = if is_probe { arp.target.1 } else { address };
    unless(port.has_mac(mac) && port.owns(claimed), Reason::ArpForeign)
}

fn rarp(packet: &[u8], to: [u8; 6], port: &BoundPort) -> Judged {
    let nobody = Ipv4Addr::UNSPECIFIED;
    let is_own =
        |arp: &Arp| [arp.sender, arp.target].into_iter().all(|(mac, address)| port.has_mac(mac) && address == nobody);
    let arp = Arp::parse(packet).filter(|arp| arp.hardware == 1 && arp.operation == 3 && is_own(arp));
    unless(arp.is_some() && to == BROADCAST, Reason::Rarp)
}

fn ipv4(packet: &[u8], to: [u8; 6], port: &BoundPort) -> Judged {
    let source = ip4(packet, 12).ok_or(Reason::Ip4Malformed)?;
    if source == Ipv4Addr::UNSPECIFIED {
        let header = Ip4::parse(packet).ok_or(Reason::Ip4Unspecified)?;
        let to_all = to == BROADCAST && header.to == Ipv4Addr::BROADCAST && !header.is_fragment;
        let ports = header.upper.udp().filter(|_| to_all).ok_or(Reason::Ip4Unspecified)?;
        unless(ports? == (68, 67), Reason::Ip4Unspecified)?;
        return unless(port.dhcp, Reason::DhcpClient);
    }
    unless(port.owns(source), Reason::Ip4Source)?;
    let header = Ip4::parse(packet).ok_or(Reason::Ip4Malformed)?;
    if let Some(ports) = header.upper.udp() {
        unless(ports?.0 != 67, Reason::DhcpServer)?;
    }
    if let Some(message) = header.upper.icmp(1) {
        let (kind, _) = message?;
        unless(kind != 5, Reason::Redirect)?;
        unless(kind != 9, Reason::RouterMessage)?;
    }
    multicast_router(header.upper)
}

/// What only multicast routers send, by the protocols that both families share or that IPv4 has instead of `ICMPv6`: IGMP
/// membership query (RFC 3376), DVMRP, PIM of version 1, multicast router discovery (RFC 4286), PIM hello (RFC 7761).
fn multicast_router(upper: Upper<'_>) -> Judged {
    let Upper::Whole { protocol, payload } = upper else { return Ok(()) };
    let is_router = |first: u8| match protocol {
        IGMP => matches!(first, 0x11 | 0x13 | 0x14 | 0x30..=0x32),
        PIM => first.trailing_zeros() >= 4,
        _ => false,
    };
    if !matches!(protocol, IGMP | PIM) {
        return Ok(());
    }
    unless(!is_router(*payload.first().ok_or(Cut)?), Reason::RouterMessage)
}

fn ipv6(packet: &[u8], port: &BoundPort, bindings: &Bindings) -> Judged {
    let source = ip6(packet, 8).ok_or(Reason::Ip6Malformed)?;
    if source == Ipv6Addr::UNSPECIFIED {
        return from_nobody(packet, port, bindings);
    }
    unless(port.owns6(source, bindings), Reason::Ip6Source)?;
    let header = Ip6::parse(packet).ok_or(Reason::Ip6Malformed)?;
    if let Some(ports) = header.upper.udp() {
        unless(ports?.0 != 547, Reason::DhcpServer)?;
    }
    if let Upper::Whole { protocol: AUTHENTICATION, payload } = header.upper {
        // Neighbour discovery behind an extension header is refused; here nobody can tell whether it is some.
        let next = payload.first().copied().ok_or(Cut)?;
        unless(next != 58 && !is_extension(next), Reason::Ip6Malformed)?;
    }
    header.has_content()?;
    if let Upper::Whole { protocol: PIM, .. } = header.upper {
        multicast_router(header.upper)?;
    }
    match header.upper.icmp(58).transpose()? {
        Some((134 | 137 | 130 | 138 | 146 | 147 | 151..=153, _)) => Err(Reason::RouterMessage.into()),
        Some((131 | 132 | 143, _)) => {
            unless(is_link_local(source) && is_listener_message(&header), Reason::MulticastReport)
        }
        Some((kind, message)) if is_nd(kind) => discovery(&header, source, kind, message, port, bindings),
        _ => Ok(()),
    }
}

fn is_listener_message(header: &Ip6<'_>) -> bool {
    header.next == 0 && header.hop_limit == 1 && header.first_extension.is_some_and(is_listener_alert)
}

/// Router and neighbour solicitation, neighbour advertisement, from an own address. A receiver takes a MAC from wherever
/// it stands among the options, so that each must be the own one.
fn discovery(
    header: &Ip6<'_>,
    source: Ipv6Addr,
    kind: u8,
    message: &[u8],
    port: &BoundPort,
    bindings: &Bindings,
) -> Judged {
    unless(header.next == 58 && header.hop_limit == 255, Reason::DiscoveryForm)?;
    let (fixed, named) = match kind {
        133 => (8, SOURCE_MAC),
        135 => (24, SOURCE_MAC),
        _ => (24, TARGET_MAC),
    };
    let bytes = message.get(fixed..).ok_or(Reason::DiscoveryForm)?;
    if kind == 133 {
        unless(is_link_local(source), Reason::DiscoveryForm)?;
    }
    if kind == 136 {
        let target = ip6(message, 8).ok_or(Reason::DiscoveryForm)?;
        unless(port.owns6(target, bindings), Reason::DiscoveryForeign)?;
    }
    options(bytes, Some(named), port)?;
    in_padding(header, message, port)
}

/// Options behind the end that the packet gives for itself are none, but a filter may take them for some.
fn in_padding(header: &Ip6<'_>, message: &[u8], port: &BoundPort) -> Judged {
    let mut padding = header.padded.get(message.len()..).unwrap_or_default().chunks_exact(8);
    if padding.any(|unit| named_mac(unit).is_some_and(|mac| !port.has_mac(mac))) { Err(Cut.into()) } else { Ok(()) }
}

fn named_mac(unit: &[u8]) -> Option<MacAddr> {
    first_option(unit, SOURCE_MAC).or_else(|| first_option(unit, TARGET_MAC))
}

/// Options beside which nothing foreign is named. `named`: the kind that may name the own MAC.
fn options(bytes: &[u8], named: Option<u8>, port: &BoundPort) -> Judged {
    // Every option begins at a multiple of eight bytes: whatever the lengths say, a foreign MAC stands at one of these.
    let units: Vec<&[u8]> = bytes.chunks_exact(8).collect();
    let odd = Err(Refusal::Useless(Useless::OddOptions));
    let foreign = |unit: &[u8]| named_mac(unit).is_some_and(|mac| !port.has_mac(mac));
    let is_single = bytes.len() == 8;
    let form = || Err(Refusal::Reason(Reason::DiscoveryForm));
    let Some(kinds) = option_kinds(bytes) else {
        // Receivers discard it. A filter sees that at once where nothing but the first option has to be looked at.
        return if bytes.len() % 8 != 0 || bytes.get(1) == Some(&0) || is_single { form() } else { odd };
    };
    if kinds.iter().any(|(at, _)| bytes.get(*at..at + 8).is_some_and(foreign)) {
        return Err(Reason::DiscoveryForeign.into());
    }
    let is_odd = |kind: u8| [SOURCE_MAC, TARGET_MAC].contains(&kind) && Some(kind) != named;
    let first_is_odd = units.first().is_some_and(|unit| unit[1] == 1 && is_odd(unit[0]));
    if first_is_odd || kinds.iter().zip(0..9).filter(|((at, _), number)| *at == number * 8).count() == 9 {
        return form();
    }
    if kinds.len() > 8 || kinds.iter().any(|(_, kind)| is_odd(*kind)) || units.iter().any(|unit| foreign(unit)) {
        return odd;
    }
    // As many bytes as nobody sends.
    let own_length = |at: usize| bytes.get(at + 1) == Some(&1);
    let long = kinds.iter().any(|(at, kind)| Some(*kind) == named && !own_length(*at));
    if long || units.len() > 24 { odd } else { Ok(()) }
}

/// Source `::`: duplicate address detection for an own address, router solicitation, multicast report.
fn from_nobody(packet: &[u8], port: &BoundPort, bindings: &Bindings) -> Judged {
    let header = Ip6::parse(packet).ok_or(Reason::Ip6Unspecified)?;
    let message = header.upper.icmp(58).ok_or(Reason::Ip6Unspecified)?;
    let (kind, message) = message?;
    if [131, 132, 143].contains(&kind) {
        return unless(is_listener_message(&header), Reason::Ip6Unspecified);
    }
    unless(header.next == 58 && header.hop_limit == 255, Reason::Ip6Unspecified)?;
    match kind {
        133 => match options(&message[8..], None, port).and_then(|()| in_padding(&header, message, port)) {
            Err(Refusal::Reason(_)) => Err(Reason::Ip6Unspecified.into()),
            judged => judged,
        },
        135 => {
            let to_group = header.to.octets()[..13] == [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];
            unless(to_group && message.len() >= 24, Reason::DiscoveryForm)?;
            let target = ip6(message, 8).ok_or(Reason::DiscoveryForm)?;
            unless(port.owns6(target, bindings), Reason::DiscoveryForeign)?;
            // No MAC may be named, or receivers drop it (RFC 4861, 7.1.1).
            options(&message[24..], None, port)?;
            in_padding(&header, message, port)
        }
        _ => Err(Reason::Ip6Unspecified.into()),
    }
}
