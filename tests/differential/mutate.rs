//! Makes new frames out of good and bad ones: other fields, headers in headers, tags, cuts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Mac;
use super::frames::{BROADCAST, IP6, fragment_header, options_header, snap, tagged};
use super::random::Random;

/// What is put where an address stands.
pub(crate) struct Words {
    pub(crate) macs: Vec<Mac>,
    pub(crate) ip4: Vec<Ipv4Addr>,
    pub(crate) ip6: Vec<Ipv6Addr>,
    pub(crate) vlans: Vec<u16>,
    /// Destination MACs.
    pub(crate) to: Vec<Mac>,
    /// Addresses of the receiver.
    pub(crate) own: Vec<IpAddr>,
}

/// Bytes that mean something in some header.
const TELLING: [u8; 32] = [
    0, 1, 2, 3, 4, 5, 6, 8, 14, 17, 0x2c, 0x33, 0x3a, 0x3b, 0x3c, 0x43, 0x44, 0x45, 0x46, 0x60, 0x81, 0x85, 0x86, 0x87,
    0x88, 0x89, 0x8f, 0xa8, 0xdd, 0xfe, 0xff, 0x80,
];
const ETHERTYPES: [u16; 12] =
    [0x0800, 0x0806, 0x86dd, 0x8035, 0x8100, 0x88a8, 0x9100, 0x9200, 0x88cc, 0x8864, 0x0026, 0x05ff];
const ICMP6_TYPES: [u8; 18] = [1, 2, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 143, 147, 151, 153, 255];
const NEXT_HEADERS: [u8; 14] = [0, 43, 44, 50, 51, 59, 60, 135, 139, 58, 17, 6, 255, 4];
const PORTS: [u16; 8] = [67, 68, 546, 547, 0, 53, 0x4343, 4000];

/// Where the content starts, behind any tags.
fn content(frame: &[u8]) -> (u16, usize) {
    let mut at = 12;
    while let Some([a, b]) = frame.get(at..at + 2) {
        let kind = u16::from_be_bytes([*a, *b]);
        if ![0x8100, 0x88a8, 0x9100, 0x9200].contains(&kind) {
            return (kind, at + 2);
        }
        at += 4;
    }
    (0, frame.len())
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = frame.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Adds to a 16-bit length in network order.
fn lengthen(frame: &mut [u8], at: usize, by: i16) {
    if let Some(&[a, b]) = frame.get(at..at + 2) {
        put(frame, at, &u16::from_be_bytes([a, b]).wrapping_add_signed(by).to_be_bytes());
    }
}

/// Sends it to somebody: by the MAC, and mostly to one of the receiver's addresses or to any other.
pub(crate) fn address_to(frame: &mut [u8], words: &Words, random: &mut Random) {
    put(frame, 0, &random.pick(&words.to)[..]);
    let own = if words.own.is_empty() || random.once_in(3) { None } else { Some(*random.pick(&words.own)) };
    match (content(frame), own) {
        ((IP6, at), Some(IpAddr::V6(own))) => put(frame, at + 24, &own.octets()),
        ((IP6, at), _) => put(frame, at + 24, &random.pick(&words.ip6).octets()),
        ((0x0800, at), Some(IpAddr::V4(own))) => put(frame, at + 16, &own.octets()),
        ((0x0800, at), _) => put(frame, at + 16, &random.pick(&words.ip4).octets()),
        _ => {}
    }
}

/// One change.
pub(crate) fn mutate(frame: &mut Vec<u8>, words: &Words, random: &mut Random) {
    let (kind, at) = content(frame);
    match random.below(16) {
        0 | 1 => {
            let place = 6 + random.below(frame.len().min(110) - 6);
            frame[place] = if random.once_in(3) { random.byte() } else { *random.pick(&TELLING) };
        }
        2 => put(frame, 0, &random.pick(&words.to)[..]),
        3 => {
            let places = [6, at + 8, at + 18, at + 66, at + 50, at + 74, at + 58];
            let place = *random.pick(&places);
            put(frame, place, &random.pick(&words.macs)[..]);
        }
        4 | 5 if kind == IP6 => {
            let places = [at + 8, at + 8, at + 48, at + 48, at + 56, at + 24];
            let place = *random.pick(&places);
            put(frame, place, &random.pick(&words.ip6).octets());
        }
        4 | 5 => {
            let places = [at + 12, at + 12, at + 14, at + 24, at + 16];
            let place = *random.pick(&places);
            put(frame, place, &random.pick(&words.ip4).octets());
        }
        6 => {
            let tpid = *random.pick(&[0x8100, 0x8100, 0x8100, 0x88a8, 0x9100, 0x9200]);
            let control = *random.pick(&words.vlans) | u16::from(random.byte() & 7) << 13;
            *frame = tagged(tpid, control, frame);
        }
        7 => {
            if frame.len() < 1400 && random.once_in(2) {
                let tags = frame[..at.min(frame.len()) - 2].to_vec();
                let inner = snap(&[&tags[..12], &frame[tags.len()..]].concat());
                *frame = [&tags[..], &inner[12..]].concat();
                if random.once_in(4) {
                    put(frame, at + 5, &[0xf8]);
                }
            } else {
                put(frame, at.saturating_sub(2), &random.pick::<u16>(&ETHERTYPES).to_be_bytes());
            }
        }
        8 => frame.truncate(14 + random.below(frame.len() - 13)),
        9 => {
            let count = 1 + random.below(40);
            frame.extend(random.bytes(count));
        }
        10..=12 if kind == IP6 => mutate_ip6(frame, at, words, random),
        10..=12 if kind == 0x0800 => mutate_ip4(frame, at, random),
        10..=12 => {
            // ARP and RARP: hardware, protocol, lengths, operation.
            let place = at + random.below(8);
            put(frame, place, &[*random.pick(&TELLING)]);
        }
        _ => {
            let place = at + random.below(80);
            if place < frame.len() {
                frame[place] = *random.pick(&TELLING);
            }
        }
    }
}

fn mutate_ip4(frame: &mut Vec<u8>, at: usize, random: &mut Random) {
    match random.below(6) {
        0 => put(frame, at + 6, &random.pick(&[0u16, 0x2000, 0x4000, 1, 185, 0x2001, 0x1fff]).to_be_bytes()),
        1 => put(frame, at + 9, &[*random.pick(&[1u8, 2, 6, 17, 41, 50, 51, 58, 255, 0])]),
        2 if frame.len() > at + 20 => {
            // Options: no-operation four times.
            frame[at] = frame[at].wrapping_add(1);
            frame.splice(at + 20..at + 20, [1, 1, 1, 1]);
            lengthen(frame, at + 2, 4);
        }
        3 => lengthen(frame, at + 2, i16::from(random.byte().cast_signed()) / 4),
        4 => put(frame, at + 20, &random.pick(&PORTS).to_be_bytes()),
        _ => put(frame, at + 22, &random.pick(&PORTS).to_be_bytes()),
    }
}

fn mutate_ip6(frame: &mut Vec<u8>, at: usize, words: &Words, random: &mut Random) {
    match random.below(12) {
        0..=3 if frame.len() >= at + 40 => {
            let (next, inner) = (*random.pick(&NEXT_HEADERS), frame[at + 6]);
            let mut header = match next {
                44 => {
                    let offset = *random.pick(&[0, 0, 0, 1, 3, 185]);
                    fragment_header(inner, offset, random.once_in(2))
                }
                _ => options_header(inner),
            };
            if random.once_in(4) {
                header[1 + random.below(7)] = *random.pick(&TELLING);
            }
            frame[at + 6] = next;
            frame.splice(at + 40..at + 40, header);
            if !random.once_in(8) {
                lengthen(frame, at + 4, 8);
            }
        }
        4 => put(frame, at + 40, &[*random.pick(&ICMP6_TYPES)]),
        5 => put(frame, at + 48, &[*random.pick(&ICMP6_TYPES)]),
        6 => put(frame, at + 7, &[*random.pick(&[0, 1, 64, 254, 255])]),
        7 => put(frame, at + 6, &[*random.pick(&NEXT_HEADERS)]),
        8 => {
            // One more option of neighbour discovery, with the length told or not.
            let mac = *random.pick(&words.macs);
            frame.extend([*random.pick(&[1u8, 2, 14, 3, 25]), 1]);
            frame.extend(mac);
            if !random.once_in(6) {
                lengthen(frame, at + 4, 8);
            }
        }
        9 => match random.below(3) {
            0 => put(frame, at + 4, &[0, 0]),
            1 => lengthen(frame, at + 4, *random.pick(&[-8, 8, -1, 1, -16])),
            _ => lengthen(frame, at + 4, i16::from(random.byte().cast_signed()) / 3),
        },
        10 => put(frame, at + 40 + 2 * random.below(2), &random.pick(&PORTS).to_be_bytes()),
        _ => put(frame, at + 40, &[*random.pick(&NEXT_HEADERS), *random.pick(&[0, 1, 2, 255])]),
    }
}

/// What the bridge keeps for itself would not reach the rules: such a frame is sent to everybody instead.
pub(crate) fn keep_on_the_bridge(frame: &mut [u8], local: &[Mac]) {
    let to: Mac = frame[..6].try_into().unwrap();
    let reserved = to[..5] == [1, 0x80, 0xc2, 0, 0] && (1..16).contains(&to[5]);
    if reserved || local.contains(&to) {
        put(frame, 0, &BROADCAST);
    }
}

fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let bytes = parts.concat();
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

/// Makes the checksums right that a receiver looks at before it believes anything: of the IPv4 header and of ICMP for IPv6.
pub(crate) fn repair(frame: &mut [u8]) {
    let (kind, at) = content(frame);
    let word =
        |frame: &[u8], at: usize| frame.get(at..at + 2).map(|two| usize::from(two[0]) << 8 | usize::from(two[1]));
    match kind {
        0x0800 if frame.len() > at => {
            let end = at + usize::from(frame[at] & 15) * 4;
            put(frame, at + 10, &[0, 0]);
            if let Some(header) = frame.get(at..end) {
                let sum = checksum(&[header]);
                put(frame, at + 10, &sum);
            }
        }
        IP6 if frame.len() >= at + 40 => {
            let length = word(frame, at + 4).unwrap();
            let end = if length == 0 && frame[at + 6] == 0 { frame.len() } else { at + 40 + length };
            let (mut next, mut place) = (frame[at + 6], at + 40);
            while let (0 | 43 | 44 | 60, Some(header)) = (next, frame.get(place..place + 2)) {
                place += if next == 44 { 8 } else { 8 + 8 * usize::from(header[1]) };
                next = header[0];
            }
            if next == 58 && end <= frame.len() && place + 4 <= end {
                put(frame, place + 2, &[0, 0]);
                let size = u32::try_from(end - place).unwrap().to_be_bytes();
                let sum = checksum(&[&frame[at + 8..at + 40], &size, &[0, 0, 0, 58], &frame[place..end]]);
                put(frame, place + 2, &sum);
            }
        }
        _ => {}
    }
}
