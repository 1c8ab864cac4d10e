//! Takes a frame apart as the receiving side of Linux does, and keeps what the verdicts ask for.
//!
//! Source of what a receiver accepts: Linux `net/core/dev.c` (tags), `net/ipv4/ip_input.c`, `net/ipv6/ip6_input.c`,
//! `net/ipv6/exthdrs_core.c`, `net/ipv6/ndisc.c`, `net/ipv4/arp.c`.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::model::MacAddr;

pub(super) const CUSTOMER_TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;
/// 802.1Q, 802.1ad, and two numbers that were used before there was an 802.1ad.
const TAGS: [u16; 4] = [CUSTOMER_TAG, SERVICE_TAG, 0x9100, 0x9200];
const PPPOE_SESSION: u16 = 0x8864;
/// Below it the field behind the MACs is a length (IEEE 802.3).
const FIRST_ETHERTYPE: u16 = 0x0600;

/// Two bytes in network order.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|two| u16::from_be_bytes(*two))
}

pub(super) fn mac(bytes: &[u8], at: usize) -> Option<MacAddr> {
    bytes.get(at..)?.first_chunk().map(|six| MacAddr::from_octets(*six))
}

pub(super) fn ip4(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    bytes.get(at..)?.first_chunk::<4>().map(|four| Ipv4Addr::from(*four))
}

pub(super) fn ip6(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    bytes.get(at..)?.first_chunk::<16>().map(|sixteen| Ipv6Addr::from(*sixteen))
}

/// A VLAN tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    /// Its ethertype.
    pub(super) kind: u16,
    /// VLAN id; 0 is no VLAN but a priority.
    pub(super) vlan: u16,
}

impl Tag {
    /// 802.1Q or 802.1ad: what a Linux receiver takes off.
    pub(super) fn is_known(self) -> bool {
        [CUSTOMER_TAG, SERVICE_TAG].contains(&self.kind)
    }
}

/// What is behind MACs and tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content<'a> {
    Arp(&'a [u8]),
    Rarp(&'a [u8]),
    Ip4(&'a [u8]),
    Ip6(&'a [u8]),
    /// An ethertype inside an LLC header (RFC 1042, 802.1H): that ethertype, if it is there, and what follows.
    Snap(Option<u16>, &'a [u8]),
    /// A tag or a header of `ETH_P_PPP_SES` that is not whole.
    Cut,
    /// Anything else.
    Other,
}

/// An Ethernet frame.
#[derive(Debug, Clone)]
pub(super) struct Frame<'a> {
    pub(super) to: [u8; 6],
    pub(super) from: MacAddr,
    pub(super) tags: Vec<Tag>,
    pub(super) content: Content<'a>,
}

impl<'a> Frame<'a> {
    /// `None` if it ends within its header or a tag that every kernel takes off first.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (to, from) = (*bytes.first_chunk()?, mac(bytes, 6)?);
        let mut at = 12;
        let mut kind = word(bytes, at)?;
        let mut tags = Vec::new();
        while TAGS.contains(&kind) {
            // `skb_vlan_untag` wants two bytes behind the inner ethertype.
            let inner = word(bytes, at + 2).zip(word(bytes, at + 4)).filter(|_| bytes.len() >= at + 8);
            let Some((control, inner)) = inner else {
                // Only the outermost tag is taken off before anybody looks.
                let cut = Tag { kind, vlan: 0 };
                if tags.is_empty() && cut.is_known() {
                    return None;
                }
                tags.push(cut);
                return Some(Self { to, from, tags, content: Content::Cut });
            };
            tags.push(Tag { kind, vlan: control & 0x0fff });
            kind = inner;
            at += 4;
        }
        let rest = &bytes[at + 2..];
        let content = match kind {
            0x0800 => Content::Ip4(rest),
            0x0806 => Content::Arp(rest),
            0x8035 => Content::Rarp(rest),
            0x86dd => Content::Ip6(rest),
            PPPOE_SESSION if rest.len() < 8 => Content::Cut,
            length if length < FIRST_ETHERTYPE && is_snap(rest) => {
                Content::Snap(word(rest, 6), rest.get(8..).unwrap_or_default())
            }
            _ => Content::Other,
        };
        Some(Self { to, from, tags, content })
    }
}

/// Whether an ethertype is that of a tag.
pub(super) fn is_tag(kind: u16) -> bool {
    TAGS.contains(&kind)
}

/// Whether behind an ethertype there can be a claim, or another ethertype.
pub(super) fn may_claim(kind: u16) -> bool {
    is_tag(kind) || [0x0800, 0x0806, 0x8035, 0x86dd].contains(&kind)
}

fn is_snap(rest: &[u8]) -> bool {
    rest.starts_with(&[0xaa, 0xaa, 3, 0, 0, 0]) || rest.starts_with(&[0xaa, 0xaa, 3, 0, 0, 0xf8])
}

/// An ARP or RARP packet of the only form there is for Ethernet and IPv4.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arp {
    pub(super) hardware: u16,
    pub(super) operation: u16,
    pub(super) sender: (MacAddr, Ipv4Addr),
    pub(super) target: (MacAddr, Ipv4Addr),
}

/// The sender's MAC and address of whatever calls itself ARP: a lax receiver reads them without a look at the rest.
pub(super) fn arp_sender(bytes: &[u8]) -> (Option<MacAddr>, Option<Ipv4Addr>) {
    (mac(bytes, 8), ip4(bytes, 14))
}

impl Arp {
    /// `None` if a receiver would not read it as IPv4 over six-byte MACs.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (hardware, protocol, operation) = (word(bytes, 0)?, word(bytes, 2)?, word(bytes, 6)?);
        let (sender, target) = ((mac(bytes, 8)?, ip4(bytes, 14)?), (mac(bytes, 18)?, ip4(bytes, 24)?));
        let readable = protocol == 0x0800 && bytes[4..6] == [6, 4];
        readable.then_some(Self { hardware, operation, sender, target })
    }
}

/// What is behind the headers of an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upper<'a> {
    /// A later fragment: data without a header.
    LaterFragment,
    /// A packet, or the first fragment of one.
    Whole {
        protocol: u8,
        /// From its header to the end that the packet gives for itself. Bytes after that are padding.
        payload: &'a [u8],
    },
}

impl<'a> Upper<'a> {
    /// Source and destination port, and whether the header is there.
    pub(super) fn udp(self) -> Option<Result<(u16, u16), Cut>> {
        let Self::Whole { protocol: 17, payload } = self else { return None };
        let ports = word(payload, 0).zip(word(payload, 2)).filter(|_| payload.len() >= 8);
        Some(ports.ok_or(Cut))
    }

    /// Type of an ICMP message (protocol 1 or 58), if there is a whole header.
    pub(super) fn icmp(self, number: u8) -> Option<Result<(u8, &'a [u8]), Cut>> {
        match self {
            Self::Whole { protocol, payload } if protocol == number => {
                Some(if payload.len() >= 8 { Ok((payload[0], payload)) } else { Err(Cut) })
            }
            _ => None,
        }
    }
}

/// What is asked for is not whole within the length that the packet gives for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut;

/// An IPv4 header that a receiver accepts (`ip_rcv_core`; the checksum is the sender's own business).
#[derive(Debug, Clone, Copy)]
pub(super) struct Ip4<'a> {
    pub(super) to: Ipv4Addr,
    pub(super) is_fragment: bool,
    pub(super) upper: Upper<'a>,
}

impl<'a> Ip4<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let (header, total) = (usize::from(first & 0xf) * 4, usize::from(word(bytes, 2)?));
        if first >> 4 != 4 || header < 20 || total < header {
            return None;
        }
        let packet = bytes.get(..total)?;
        let fragment = word(packet, 6)?;
        let upper = if fragment & 0x1fff != 0 {
            Upper::LaterFragment
        } else {
            Upper::Whole { protocol: packet[9], payload: &packet[header..] }
        };
        Some(Self { to: ip4(packet, 16)?, is_fragment: fragment & 0x3fff != 0, upper })
    }
}

/// An IPv6 header and the chain behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ip6<'a> {
    pub(super) to: Ipv6Addr,
    pub(super) hop_limit: u8,
    /// The first extension header, if there is one.
    pub(super) first_extension: Option<&'a [u8]>,
    /// What the IPv6 header itself names.
    pub(super) next: u8,
    pub(super) has_fragment_header: bool,
    /// From the last header to the end of the frame: with the padding that a receiver cuts off.
    pub(super) padded: &'a [u8],
    /// Behind an authentication header everything may be encrypted: the next header's number, and no more.
    pub(super) upper: Upper<'a>,
}

/// Options of neighbour discovery that name a MAC.
pub(super) const SOURCE_MAC: u8 = 1;
pub(super) const TARGET_MAC: u8 = 2;
pub(super) const IGMP: u8 = 2;
pub(super) const PIM: u8 = 103;
pub(super) const HOP_BY_HOP: u8 = 0;
pub(super) const AUTHENTICATION: u8 = 51;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
const NO_NEXT_HEADER: u8 = 59;

/// Whether a number is that of an extension header (`ipv6_ext_hdr`; 59 means that nothing follows).
pub(super) fn is_extension(number: u8) -> bool {
    [HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION].contains(&number)
}

/// The same and the mobility header, which is like one.
fn goes_on(number: u8) -> bool {
    is_extension(number) || number == 135
}

impl<'a> Ip6<'a> {
    /// `None` if the header or the chain behind it cannot be read to its end.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header: &[u8; 40] = bytes.first_chunk()?;
        let length = usize::from(word(bytes, 4)?);
        // `ip6_rcv_core`: no length together with a hop-by-hop header is for jumbograms, and nothing is cut off.
        let end = if length == 0 && header[6] == HOP_BY_HOP { bytes.len() } else { 40 + length };
        if header[0] >> 4 != 6 || end > bytes.len() {
            return None;
        }
        let (mut next, mut at, mut has_fragment_header) = (header[6], 40, false);
        let mut upper = None;
        while is_extension(next) && next != AUTHENTICATION {
            let extension = bytes.get(at..)?;
            let (inner, units) = (*extension.first()?, *extension.get(1)?);
            if next == FRAGMENT {
                has_fragment_header = true;
                if word(extension, 2)? & 0xfff8 != 0 {
                    // The rest of a chain that began in another fragment can be anything.
                    if is_extension(inner) {
                        return None;
                    }
                    upper = Some(Upper::LaterFragment);
                    break;
                }
                at += 8;
            } else {
                at += (usize::from(units) + 1) * 8;
            }
            next = inner;
        }
        // A chain that ends behind the last byte leads nowhere.
        if upper.is_none() && at > bytes.len() {
            return None;
        }
        let payload = bytes.get(at..end).unwrap_or_default();
        Some(Self {
            to: ip6(bytes, 24)?,
            hop_limit: header[7],
            first_extension: is_extension(header[6]).then(|| &bytes[40..]),
            next: header[6],
            has_fragment_header,
            padded: bytes.get(at..).unwrap_or_default(),
            upper: upper.unwrap_or(Upper::Whole { protocol: next, payload }),
        })
    }
}

impl Ip6<'_> {
    /// Whether a fragment header comes first.
    pub(super) fn begins_with_fragment(&self) -> bool {
        self.next == FRAGMENT
    }

    /// `Err` if nothing is behind the headers, although the first one does not say so.
    pub(super) fn has_content(&self) -> Result<(), Cut> {
        let is_empty = matches!(self.upper, Upper::Whole { payload: [], .. });
        if is_empty && self.next != NO_NEXT_HEADER { Err(Cut) } else { Ok(()) }
    }

    /// Whether the form is one of those that a filter sees through without following a chain: no extension header, a
    /// fragment header alone, or the hop-by-hop header of a multicast listener message.
    pub(super) fn is_plain(&self) -> bool {
        match self.next {
            HOP_BY_HOP => matches!(self.first_extension, Some([58, 0, ..])),
            FRAGMENT => self.first_extension.is_some_and(|header| !header.first().is_none_or(|next| goes_on(*next))),
            next => !goes_on(next),
        }
    }
}

/// `None` or the MAC of the first option of this kind, if it is the first option at all.
pub(super) fn first_option(options: &[u8], kind: u8) -> Option<MacAddr> {
    options.starts_with(&[kind, 1]).then(|| mac(options, 2)).flatten()
}

/// Where each option begins and of what kind it is; `None` if the lengths do not add up.
pub(super) fn option_kinds(options: &[u8]) -> Option<Vec<(usize, u8)>> {
    let mut kinds = Vec::new();
    let mut at = 0;
    while at < options.len() {
        let (kind, units) = (options[at], usize::from(*options.get(at + 1)?));
        kinds.push((at, kind));
        at += units * 8;
        if units == 0 || at > options.len() {
            return None;
        }
    }
    Some(kinds)
}

/// Whether a type of ICMP for IPv6 belongs to neighbour discovery.
pub(super) fn is_nd(kind: u8) -> bool {
    (133..=137).contains(&kind)
}

/// Whether a hop-by-hop header is the one of a multicast listener message: a router alert for it and two bytes of
/// padding, in any order and kind (RFC 2711, RFC 3810).
pub(super) fn is_listener_alert(extension: &[u8]) -> bool {
    const ALERT: [u8; 4] = [5, 2, 0, 0];
    let Some([58, 0, options @ ..]) = extension.first_chunk::<8>() else { return false };
    let is_padding = |bytes: &[u8]| bytes == [1, 0] || bytes == [0, 0];
    let (last, first) = (options[..4] == ALERT && is_padding(&options[4..]), options[2..] == ALERT);
    last || first && is_padding(&options[..2])
}
