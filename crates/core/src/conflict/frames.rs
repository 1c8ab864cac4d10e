//! Asking whether somebody has an address, before it is given away (RFC 5227 section 2.1, RFC 4862 section 5.4), and reading
//! who claims which address in a frame.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::announce::checksum;
use crate::model::MacAddr;

/// By this the nodes know each other's questions, which claim nothing: behind the ARP message, where there is only padding,
/// and as the nonce of the solicitation (RFC 7527), which has six bytes.
const MARK: &[u8; 6] = b"pvepip";

/// The frame that asks whether somebody has `address`: from `mac`, with no address of its own, so that nobody learns anything.
pub fn question(mac: MacAddr, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => {
            let mut frame = [&[0xff; 6][..], &mac.octets(), &[0x08, 0x06]].concat();
            // Ethernet, IPv4, address lengths 6 and 4, request.
            frame.extend([0, 1, 0x08, 0, 6, 4, 0, 1]);
            frame.extend([&mac.octets()[..], &[0; 4], &[0; 6], &address.octets(), MARK].concat());
            frame
        }
        IpAddr::V6(address) => solicitation(mac, address),
    }
}

fn solicitation(mac: MacAddr, address: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = address.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(address.octets());
    // Option 14, of eight bytes.
    message.extend([&[14, 1][..], MARK].concat());
    let sum = checksum(Ipv6Addr::UNSPECIFIED, group, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [&[0x33, 0x33, 0xff, a, b, c][..], &mac.octets(), &[0x86, 0xdd]].concat();
    // Version 6, payload length 32, next header ICMPv6, hop limit 255.
    frame.extend([0x60, 0, 0, 0, 0, 32, 58, 255]);
    frame.extend([&[0; 16][..], &group.octets(), &message].concat());
    frame
}

/// Who claims which address by ARP or neighbour discovery in a frame, also behind one VLAN tag.
///
/// A packet from an address is no claim: it may have been forwarded by somebody who never heard of that address.
pub fn claimed(frame: &[u8]) -> Option<(MacAddr, IpAddr)> {
    let tag = if frame.get(12..14)? == [0x81, 0] { 4 } else { 0 };
    let source = mac(frame.get(6..12)?)?;
    let content = frame.get(14 + tag..)?;
    match frame.get(12 + tag..14 + tag)? {
        [0x08, 0x06] => {
            if content.get(..6)? != [0, 1, 0x08, 0, 6, 4] {
                return None;
            }
            let [sender, target] = [14..18, 24..28].map(|at| content.get(at).and_then(ip4));
            // Who asks without an address of his own is about to take it.
            let address = sender.filter(|sender| !sender.is_unspecified()).or(target)?;
            Some((mac(content.get(8..14)?).unwrap_or(source), address.into()))
        }
        [0x86, 0xdd] => {
            if content.get(6..8)? != [58, 255] {
                return None;
            }
            let target: IpAddr = <[u8; 16]>::try_from(content.get(48..64)?).ok()?.into();
            let is_asking = content.get(8..24)? == [0; 16];
            match *content.get(40)? {
                136 => {
                    let option = content.get(64..72).filter(|option| option[..2] == [2, 1]);
                    Some((option.and_then(|option| mac(&option[2..])).unwrap_or(source), target))
                }
                135 if is_asking => Some((source, target)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Who asks for an address without having one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A node of this program asks before it assigns the address: that is in the registry then, or it is not.
    Ours,
    /// Anybody else, who perhaps takes it if nobody answers.
    Foreign,
}

/// Who asks with a frame, if it is such a question, also behind one VLAN tag.
pub fn questioned(frame: &[u8]) -> Option<Asker> {
    let tag = if frame.get(12..14)? == [0x81, 0] { 4 } else { 0 };
    let content = frame.get(14 + tag..)?;
    let mark = match frame.get(12 + tag..14 + tag)? {
        [0x08, 0x06] if content.get(14..18)? == [0; 4] => content.get(28..34),
        [0x86, 0xdd] if content.get(8..24)? == [0; 16] && content.get(40)? == &135 => {
            content.get(64..72).and_then(|option| option.strip_prefix(&[14, 1]))
        }
        _ => return None,
    };
    Some(if mark == Some(MARK.as_slice()) { Asker::Ours } else { Asker::Foreign })
}

pub(super) fn mac(bytes: &[u8]) -> Option<MacAddr> {
    let octets: [u8; 6] = bytes.try_into().ok()?;
    // No station has such a one.
    (octets[0] & 1 == 0 && octets != [0; 6]).then(|| MacAddr::from_octets(octets))
}

pub(super) fn ip4(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::announce;

    #[test]
    fn questions_and_announcements_are_claims() {
        let mac: MacAddr = "02:00:00:aa:bb:cc".parse().unwrap();
        for address in ["203.0.113.10", "2001:db8::10"] {
            let address: IpAddr = address.parse().unwrap();
            for frame in [question(mac, address), announce::frame(mac, address)] {
                assert_eq!(claimed(&frame), Some((mac, address)));
                let tagged = [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat();
                assert_eq!(claimed(&tagged), Some((mac, address)));
                for length in 0..frame.len() {
                    let cut = claimed(&frame[..length]);
                    assert!(cut.is_none_or(|(_, claim)| claim == address), "{length}");
                }
            }
        }
        let packet = [&[2; 12][..], &[0x08, 0x00], &[0x45; 40]].concat();
        assert_eq!(claimed(&packet), None);
    }

    #[test]
    fn nodes_know_each_others_questions() {
        let mac: MacAddr = "02:00:00:aa:bb:cc".parse().unwrap();
        for address in ["203.0.113.10", "2001:db8::10"] {
            let address: IpAddr = address.parse().unwrap();
            let ours = question(mac, address);
            let tagged = [&ours[..12], &[0x81, 0, 0, 7], &ours[12..]].concat();
            // A switch pads to sixty bytes.
            let padded = [&ours[..], &[0; 20]].concat();
            for frame in [&ours, &tagged, &padded] {
                assert_eq!(questioned(frame), Some(Asker::Ours));
            }
            let mut foreign = ours.clone();
            *foreign.last_mut().unwrap() ^= 1;
            assert_eq!(questioned(&foreign), Some(Asker::Foreign));
            let without = &ours[..ours.len() - if address.is_ipv4() { 6 } else { 8 }];
            assert_eq!(questioned(without), Some(Asker::Foreign));
            assert_eq!(questioned(&announce::frame(mac, address)), None, "who announces has it");
        }
        let packet = [&[2; 12][..], &[0x08, 0x00], &[0x45; 40]].concat();
        assert_eq!(questioned(&packet), None);
    }

    proptest! {
        #[test]
        fn any_frame_can_be_read(kind in 0usize..3, rest in proptest::collection::vec(any::<u8>(), 0..100)) {
            let kind = [[0x08, 0x06], [0x86, 0xdd], [0x81, 0x00]][kind];
            let frame = [&[2; 12][..], &kind, &rest].concat();
            let _ = (claimed(&frame), questioned(&frame));
        }
    }
}
