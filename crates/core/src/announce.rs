//! Announcing a guest's address once it can be reached, so that caches which still know an earlier owner forget it.
//!
//! A gratuitous ARP request (RFC 5227 section 3) or an unsolicited neighbour advertisement (RFC 4861 section 7.2.6), one
//! frame for each address, with the guest's own MAC. Building is pure; `system::packet` sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::MacAddr;

const BROADCAST: [u8; 6] = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// The Ethernet frame that announces `address` at `mac`.
pub fn frame(mac: MacAddr, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(mac, address, REQUEST),
        IpAddr::V6(address) => advertisement(mac, address, OVERRIDE),
    }
}

/// The frames that tell a guest where its gateway is now: a guest that has moved to another node still knows the MAC of
/// the bridge that it came from. IPv4 says it as question and as answer, because some hosts heed only one of them.
pub fn gateway(mac: MacAddr, address: IpAddr) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(address) => [REQUEST, REPLY].map(|operation| arp(mac, address, operation)).into(),
        // A router: a host that hears otherwise drops it from its default routers.
        IpAddr::V6(address) => vec![advertisement(mac, address, OVERRIDE | ROUTER)],
    }
}

const REQUEST: u8 = 1;
const REPLY: u8 = 2;

const ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;

fn arp(mac: MacAddr, address: Ipv4Addr, operation: u8) -> Vec<u8> {
    let mut frame = [&BROADCAST[..], &mac.octets(), &[0x08, 0x06]].concat();
    // Ethernet, IPv4, address lengths 6 and 4.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, operation]);
    frame.extend(mac.octets());
    frame.extend(address.octets());
    frame.extend(if operation == REPLY { mac.octets() } else { [0; 6] });
    frame.extend(address.octets());
    frame
}

fn advertisement(mac: MacAddr, address: Ipv6Addr, flags: u8) -> Vec<u8> {
    // Type 136, flags; target; target link-layer address option.
    let mut message = vec![136, 0, 0, 0, flags, 0, 0, 0];
    message.extend(address.octets());
    message.extend([2, 1]);
    message.extend(mac.octets());
    let checksum = checksum(address, ALL_NODES, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = [&ALL_NODES_MAC[..], &mac.octets(), &[0x86, 0xdd]].concat();
    // Version 6, payload length 32, next header ICMPv6, hop limit 255.
    frame.extend([0x60, 0, 0, 0, 0, 32, 58, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

/// Checksum of an `ICMPv6` message with its pseudo-header (RFC 8200 section 8.1).
pub(crate) fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let pseudo = [&source.octets()[..], &destination.octets(), &length, &[0, 0, 0, 58], message].concat();
    let sum: u32 = pseudo.chunks(2).map(|pair| (u32::from(pair[0]) << 8) | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_the_standards_have_them() {
        let mac = "02:00:00:aa:bb:cc".parse().unwrap();
        let arp = frame(mac, "203.0.113.10".parse().unwrap());
        assert_eq!(arp.len(), 42);
        assert_eq!(arp[28..32], arp[38..42], "sender and target address are the same");
        let source: Ipv6Addr = "2001:db8::10".parse().unwrap();
        let advertisement = frame(mac, source.into());
        assert_eq!(advertisement.len(), 14 + 40 + 32);
        let router = &gateway(mac, source.into())[0];
        assert_eq!((advertisement[58], router[58]), (0x20, 0xa0), "only a gateway says that it is a router");
        assert_eq!(checksum(source, ALL_NODES, &router[54..]), 0);
        let both = gateway(mac, "169.254.0.1".parse().unwrap());
        assert_eq!(both.iter().map(|frame| frame[21]).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(both[1][32..38], mac.octets(), "an answer names the sender as its receiver, too");
        // Summed up with its own checksum a message gives zero.
        assert_eq!(checksum(source, ALL_NODES, &advertisement[54..]), 0);
    }
}
