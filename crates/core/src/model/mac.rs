//! MAC addresses.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use macaddr::MacAddr6;
use schemars::json_schema;

/// Unicast MAC address of a guest NIC, such as `bc:24:11:aa:bb:cc`.
///
/// Parses either case (Proxmox writes upper case) and prints lower case (as `nft` and `ip` do), so that
/// configuration and kernel state compare directly. The `macaddr` crate holds the bytes; its own parser
/// also takes bare and dotted forms, which no Proxmox file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(MacAddr6);

/// Why a text is not a [`MacAddr`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not the usual spelling.
    #[error("MAC address `{0}` is not six two-digit hex octets joined by `:`")]
    Malformed(String),
    /// The group bit is set (IEEE 802: first octet odd).
    #[error("MAC address `{0}` has the group bit set (it is multicast); a guest NIC needs a unicast one")]
    Group(String),
    /// All octets are zero.
    #[error("MAC address `{0}` is all zero; a guest NIC needs one of its own")]
    Zero(String),
}

impl MacAddr {
    /// The six octets in transmission order.
    pub fn octets(self) -> [u8; 6] {
        self.0.into_array()
    }

    /// The link-local address that a host makes of this MAC by itself (modified EUI-64, RFC 4291 appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let mac = self.octets();
        let mut address = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0];
        address[8..11].copy_from_slice(&mac[..3]);
        address[8] ^= 2;
        address[13..].copy_from_slice(&mac[3..]);
        Ipv6Addr::from(address)
    }

    /// Six octets that stand in the source.
    #[cfg(test)]
    pub(crate) const fn literal(octets: [u8; 6]) -> Self {
        Self(MacAddr6::new(octets[0], octets[1], octets[2], octets[3], octets[4], octets[5]))
    }

    /// Takes six octets as they come from the kernel, without the checks for people's input.
    pub fn from_octets(octets: [u8; 6]) -> Self {
        Self(octets.into())
    }
}

impl FromStr for MacAddr {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let octets = octets_of(text).ok_or_else(|| MacError::Malformed(text.to_owned()))?;
        if octets[0] & 1 == 1 {
            return Err(MacError::Group(text.to_owned()));
        }
        if octets == [0; 6] {
            return Err(MacError::Zero(text.to_owned()));
        }
        Ok(Self(octets.into()))
    }
}

/// Six pairs of hexadecimal digits with a colon between each two.
fn octets_of(text: &str) -> Option<[u8; 6]> {
    let bytes = text.as_bytes();
    let digit = |at: usize| char::from(bytes[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut octets = [0; 6];
    if bytes.len() != 17 {
        return None;
    }
    for (index, octet) in octets.iter_mut().enumerate() {
        let at = index * 3;
        *octet = digit(at)? << 4 | digit(at + 1)?;
        if bytes.get(at + 2).is_some_and(|byte| *byte != b':') {
            return None;
        }
    }
    Some(octets)
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b':'; 17];
        for (index, octet) in self.octets().into_iter().enumerate() {
            text[index * 3] = DIGITS[usize::from(octet >> 4)];
            text[index * 3 + 1] = DIGITS[usize::from(octet & 15)];
        }
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

super::string_in_json!(
    MacAddr,
    json_schema!({
        "type": "string",
        "description": "unicast MAC address, such as bc:24:11:aa:bb:cc",
        "pattern": "^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$",
    })
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_one_spelling() {
        let mac: MacAddr = "BC:24:11:AA:bb:cC".parse().unwrap();
        assert_eq!(mac.to_string(), "bc:24:11:aa:bb:cc");
        assert_eq!(mac.link_local().to_string(), "fe80::be24:11ff:feaa:bbcc");
    }

    #[test]
    fn says_why_it_rejects() {
        for (input, reason) in [
            ("bc:24:11:aa:bb", "is not six"),
            ("+a:24:11:aa:bb:cc", "is not six"),
            ("bc2411aabbcc", "is not six"),
            ("bc-24-11-aa-bb-cc", "is not six"),
            ("", "is not six"),
            ("01:00:5e:00:00:01", "has the group bit set"),
            ("ff:ff:ff:ff:ff:ff", "has the group bit set"),
            ("00:00:00:00:00:00", "is all zero"),
        ] {
            let message = input.parse::<MacAddr>().unwrap_err().to_string();
            assert!(message.contains(reason), "{input:?} gave {message:?}");
        }
    }
}
