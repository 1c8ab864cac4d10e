//! Asking routers where they are, and reading their answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

use super::frames::{claimed, ip4, mac};
use crate::announce::checksum;
use crate::model::{MacAddr, Prefix};

const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_ROUTERS_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 2];

/// Neighbour solicitation for `target` (RFC 4861 section 4.3), from the node's own link-local address: one from the
/// unspecified address would tell a router that comes up just now that somebody wants its address.
pub fn solicitation(from: MacAddr, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend([1, 1]);
    message.extend(from.octets());
    packet([0x33, 0x33, 0xff, a, b, c], from, source, group, message)
}

/// Router solicitation (RFC 4861 section 4.1).
pub fn router_solicitation(from: MacAddr, source: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![133, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    message.extend(from.octets());
    packet(ALL_ROUTERS_MAC, from, source, ALL_ROUTERS, message)
}

fn packet(to: [u8; 6], from: MacAddr, source: Ipv6Addr, destination: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let sum = checksum(source, destination, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut frame = [&to[..], &from.octets(), &[0x86, 0xdd]].concat();
    // Version 6, payload length, next header ICMPv6, hop limit 255.
    frame.extend([0x60, 0, 0, 0, length[0], length[1], 58, 255]);
    frame.extend([&source.octets()[..], &destination.octets(), &message].concat());
    frame
}

/// What a router says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its address.
    pub address: IpAddr,
    /// Its MACs: the one that it names, and the sender's of the frame if that is another one (a virtual router may send
    /// with the MAC of the machine that plays it). The one that hosts believe comes last.
    pub macs: Vec<MacAddr>,
    /// If it is a router advertisement: prefixes in which hosts make addresses for themselves.
    pub advertised: Option<BTreeSet<Prefix>>,
}

/// Reads an answer to a question of `asker`, or a router advertisement, from an untagged frame.
pub fn answer(frame: &[u8], asker: MacAddr) -> Option<Answer> {
    let sender = mac(frame.get(6..12)?)?;
    let macs = |named: MacAddr| if named == sender { vec![named] } else { vec![sender, named] };
    match frame.get(12..14)? {
        [0x08, 0x06] => {
            // An answer, and to us: what others ask and announce proves nothing about a gateway.
            let is_ours = frame.get(..6)? == asker.octets() && frame.get(20..22)? == [0, 2];
            let (named, address) = claimed(frame).filter(|_| is_ours)?;
            let stated = frame.get(28..32).and_then(ip4).filter(|stated| *stated != Ipv4Addr::UNSPECIFIED)?;
            (IpAddr::V4(stated) == address).then(|| Answer { address, macs: macs(named), advertised: None })
        }
        [0x86, 0xdd] if frame.get(20..22)? == [58, 255] => match *frame.get(54)? {
            // With the flag that it is an answer.
            136 if frame.get(..6)? == asker.octets() && frame.get(58)? & 0x40 != 0 => {
                let (named, address) = claimed(frame)?;
                Some(Answer { address, macs: macs(named), advertised: None })
            }
            134 => advertisement(frame, sender),
            _ => None,
        },
        _ => None,
    }
}

/// A router advertisement (RFC 4861 section 4.2) of a router that wants to be used.
fn advertisement(frame: &[u8], sender: MacAddr) -> Option<Answer> {
    let length = usize::from(u16::from_be_bytes(frame.get(18..20)?.try_into().ok()?));
    let source: Ipv6Addr = <[u8; 16]>::try_from(frame.get(22..38)?).ok()?.into();
    let destination: Ipv6Addr = <[u8; 16]>::try_from(frame.get(38..54)?).ok()?.into();
    let message = frame.get(54..54usize.checked_add(length)?)?;
    let is_sound = source.is_unicast_link_local() && checksum(source, destination, message) == 0;
    let lifetime = message.get(6..8).filter(|_| is_sound)?;
    let mut options = message.get(16..)?;
    let (mut named, mut prefixes) = (sender, BTreeSet::new());
    while let Some([kind, units]) = options.first_chunk::<2>() {
        let option = options.get(..usize::from(*units) * 8).filter(|option| !option.is_empty())?;
        match kind {
            1 => named = option.get(2..8).and_then(mac)?,
            3 if option.get(3)? & 0x40 != 0 => {
                let address: Ipv6Addr = <[u8; 16]>::try_from(option.get(16..32)?).ok()?.into();
                let net = Ipv6Net::new(address, option[2]).ok()?.trunc();
                prefixes.extend(net.to_string().parse::<Prefix>());
            }
            _ => {}
        }
        options = options.get(option.len()..)?;
    }
    let macs = if named == sender { vec![named] } else { vec![sender, named] };
    (lifetime != [0, 0]).then_some(Answer { address: source.into(), macs, advertised: Some(prefixes) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::announce;

    const US: MacAddr = MacAddr::literal([2, 0, 0, 0, 0, 1]);
    const ROUTER: MacAddr = MacAddr::literal([2, 0, 0, 0, 0, 0xfe]);
    const VIRTUAL: MacAddr = MacAddr::literal([0, 0, 0x5e, 0, 1, 7]);

    fn arp(to: MacAddr, operation: u8, named: MacAddr, address: [u8; 4]) -> Vec<u8> {
        let start = [&to.octets()[..], &ROUTER.octets(), &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
        [&start[..], &named.octets(), &address, &to.octets(), &[198, 51, 100, 7]].concat()
    }

    fn advertised(lifetime: u8, options: &[u8]) -> Vec<u8> {
        let message = [&[134, 0, 0, 0, 64, 0, 0, lifetime][..], &[0; 8], options].concat();
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        packet([0x33, 0x33, 0, 0, 0, 1], ROUTER, ROUTER.link_local(), all_nodes, message)
    }

    #[test]
    fn only_an_answer_to_us_proves_where_a_gateway_is() {
        let gateway = [198, 51, 100, 1];
        let read = |frame: &[u8]| answer(frame, US).map(|answer| (answer.address.to_string(), answer.macs));
        assert_eq!(read(&arp(US, 2, ROUTER, gateway)), Some(("198.51.100.1".to_owned(), vec![ROUTER])));
        let virtual_router = read(&arp(US, 2, VIRTUAL, gateway)).map(|(_, macs)| macs);
        assert_eq!(virtual_router, Some(vec![ROUTER, VIRTUAL]), "sent by the machine that plays it");
        assert_eq!(read(&arp(US, 1, ROUTER, gateway)), None, "a question");
        assert_eq!(read(&arp(ROUTER, 2, ROUTER, gateway)), None, "to somebody else");
        assert_eq!(read(&arp(US, 2, ROUTER, [0; 4])), None, "without an address");
        assert_eq!(read(&announce::frame(ROUTER, IpAddr::from(gateway))), None, "an announcement");
        assert_eq!(read(&announce::frame(ROUTER, "fe80::1".parse().unwrap())), None, "an announcement");
    }

    #[test]
    fn an_advertisement_names_the_router_and_its_prefixes() {
        let prefix = |flags: u8| [&[3, 4, 64, flags][..], &[0; 12], &[0x20, 1, 0xd, 0xb8, 0, 9], &[0; 10]].concat();
        let read = |frame: &[u8]| answer(frame, US).map(|answer| (answer.macs, answer.advertised.unwrap()));
        let own = [1, 1, 2, 0, 0, 0, 0, 0xfe];
        let nine: Prefix = "2001:db8:9::/64".parse().unwrap();
        let options = [&own[..], &prefix(0xc0)].concat();
        assert_eq!(read(&advertised(9, &options)), Some((vec![ROUTER], BTreeSet::from([nine]))));
        assert_eq!(read(&advertised(9, &prefix(0x80))), Some((vec![ROUTER], BTreeSet::new())), "no autonomous one");
        assert_eq!(read(&advertised(0, &own)), None, "does not want to be a default router");
        let mut broken = advertised(9, &own);
        broken[60] ^= 1;
        assert_eq!(read(&broken), None, "a wrong checksum");
        for length in 0..broken.len() {
            assert_eq!(read(&advertised(9, &options)[..length]), None, "{length}");
        }
    }

    #[test]
    fn questions_are_as_the_standards_have_them() {
        let (source, target) = (US.link_local(), "fe80::1".parse().unwrap());
        for (frame, destination) in [
            (solicitation(US, source, target), "ff02::1:ff00:1".parse().unwrap()),
            (router_solicitation(US, source), ALL_ROUTERS),
        ] {
            assert_eq!(checksum(source, destination, &frame[54..]), 0);
            assert_eq!(usize::from(frame[19]), frame.len() - 54);
        }
    }

    proptest! {
        #[test]
        fn any_frame_can_be_read(kind in 0usize..2, icmp: u8, rest in proptest::collection::vec(any::<u8>(), 0..120)) {
            let kind = [[0x08, 0x06], [0x86, 0xdd]][kind];
            let mut frame = [&US.octets()[..], &ROUTER.octets(), &kind, &rest].concat();
            if frame.len() > 54 {
                frame[20..22].copy_from_slice(&[58, 255]);
                frame[54] = icmp;
            }
            let _ = answer(&frame, US);
        }
    }
}
