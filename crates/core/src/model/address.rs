//! Public addresses and prefixes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::LazyLock;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::json_schema;

use super::Family;

/// One public address (`203.0.113.10`) or prefix (`2001:db8:1::/64`), always without host bits.
///
/// An address prints as itself, a prefix with its length; parses with or without (`203.0.113.10` means `/32`). Private ranges are accepted (a
/// vRack, a lab); what can never be a unicast address of a guest is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(IpNet);

/// Why a text is not a [`Prefix`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Neither an address nor `address/length`.
    #[error("`{0}` is not an IP address or prefix (such as 203.0.113.10, 203.0.113.8/29 or 2001:db8::/64)")]
    Malformed(String),
    /// The length exceeds 32 or 128.
    #[error("`{0}` has a prefix length above {1}")]
    Length(String, u8),
    /// Larger than any provider hands out, and too large for the filter's coarse blocks.
    #[error("`{0}` is too large: the shortest prefix is /{1}")]
    TooLarge(String, u8),
    /// Bits below the prefix length are set.
    #[error("`{0}` has host bits set; did you mean {1}?")]
    HostBits(String, Prefix),
    /// Overlaps a range that no guest can own.
    #[error("`{0}` is or contains {1} address space ({2}), which no guest can own")]
    Reserved(String, &'static str, &'static str),
}

/// Ranges that are never a guest's own. Source: IANA special-purpose registries, RFC 6890; 240/4: RFC 1112.
const RESERVED: [(&str, &str); 13] = [
    ("0.0.0.0/8", "unspecified"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("::/96", "IPv4-compatible"),
    ("100::/64", "discard-only"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local (deprecated)"),
    ("ff00::/8", "multicast"),
];

/// A range of [`RESERVED`]: first and last address as numbers, its text, and what it is for.
type Range = (u128, u128, &'static str, &'static str);

/// [`RESERVED`], read once, IPv4 and IPv6: a cluster may have a hundred thousand addresses to check.
static RESERVED_RANGES: LazyLock<[Vec<Range>; 2]> = LazyLock::new(|| {
    let read = |(range, kind): (&'static str, &'static str)| {
        let net: IpNet = range.parse().ok()?;
        Some((number(net.network()), number(net.broadcast()), range, kind))
    };
    let is_v4 = |(range, _): &(&str, &str)| range.contains('.') && !range.contains(':');
    let (v4, v6): (Vec<_>, Vec<_>) = RESERVED.into_iter().partition(is_v4);
    [v4, v6].map(|ranges| ranges.into_iter().filter_map(read).collect())
});

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

impl Prefix {
    /// The prefix as the `ipnet` crate has it.
    pub fn net(self) -> IpNet {
        self.0
    }

    /// First address; the address itself if the prefix is a single one.
    pub fn first(self) -> IpAddr {
        self.0.network()
    }

    /// The only address, if the prefix is a single one (/32 or /128).
    pub fn single(self) -> Option<IpAddr> {
        (self.0.prefix_len() == self.0.max_prefix_len()).then(|| self.0.addr())
    }

    /// Its family.
    pub fn family(self) -> Family {
        Family::of_net(self.0)
    }

    /// Whether every address of `other` lies in `self`.
    pub fn contains(self, other: Self) -> bool {
        self.0.contains(&other.0)
    }

    /// Whether some address lies in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other) || other.contains(self)
    }

    /// One address as a prefix, if a guest can own it.
    pub fn host(address: IpAddr) -> Result<Self, PrefixError> {
        Self::checked(|| address.to_string(), IpNet::from(address))
    }

    fn checked(text: impl Fn() -> String, net: IpNet) -> Result<Self, PrefixError> {
        if net.prefix_len() < net.max_prefix_len() && net.trunc() != net {
            return Err(PrefixError::HostBits(text(), Self(net.trunc())));
        }
        let (first, last) = (number(net.network()), number(net.broadcast()));
        for (reserved_first, reserved_last, range, kind) in &RESERVED_RANGES[usize::from(net.addr().is_ipv6())] {
            if first <= *reserved_last && *reserved_first <= last {
                return Err(PrefixError::Reserved(text(), kind, range));
            }
        }
        let shortest = if net.addr().is_ipv4() { 8 } else { 16 };
        if net.prefix_len() < shortest {
            return Err(PrefixError::TooLarge(text(), shortest));
        }
        Ok(Self(net))
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        if let Some(net) = plain4(text.as_bytes()) {
            return Self::checked(|| text.to_owned(), net.into());
        }
        let malformed = || PrefixError::Malformed(text.to_owned());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        // The standard library refuses `203.0.113.05`, which ipnet would read as `.5`.
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => longest,
            Some(digits) => {
                let plain = !digits.is_empty()
                    && digits.bytes().all(|byte| byte.is_ascii_digit())
                    && (digits == "0" || !digits.starts_with('0'));
                let length: u32 = if plain {
                    digits.parse().map_err(|_| malformed())?
                } else {
                    return Err(malformed());
                };
                u8::try_from(length)
                    .ok()
                    .filter(|length| *length <= longest)
                    .ok_or_else(|| PrefixError::Length(text.to_owned(), longest))?
            }
        };
        let net = IpNet::new(address, length).map_err(|_| malformed())?;
        Self::checked(|| text.to_owned(), net)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            Some(IpAddr::V4(address)) => f.pad(dotted(address, &mut [0; 15])),
            Some(address) => f.pad(&address.to_string()),
            None => f.pad(&self.0.to_string()),
        }
    }
}

/// An IPv4 address with or without a length, as the standard library reads both, in a quarter of the time: a registry has a
/// hundred thousand. `None`: it is something else, or nothing.
fn plain4(text: &[u8]) -> Option<Ipv4Net> {
    let (mut octets, mut rest) = ([0; 4], text);
    for (number, place) in octets.iter_mut().enumerate() {
        if number > 0 {
            rest = rest.strip_prefix(b".")?;
        }
        (*place, rest) = octet(rest)?;
    }
    let length = match rest {
        [] => 32,
        [b'/', digits @ ..] => octet(digits).filter(|(_, rest)| rest.is_empty())?.0,
        _ => return None,
    };
    Ipv4Net::new(octets.into(), length).ok()
}

/// The number at the beginning of a text, and what follows it. None begins with a zero that is not all of it.
fn octet(text: &[u8]) -> Option<(u8, &[u8])> {
    let digits = text.iter().take(3).take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(digits);
    if digits.is_empty() || digits.len() > 1 && digits[0] == b'0' {
        return None;
    }
    let value = digits.iter().fold(0, |value: u16, digit| value * 10 + u16::from(digit - b'0'));
    Some((u8::try_from(value).ok()?, rest))
}

/// An IPv4 address as text: what the standard library makes of it takes ten times as long, and a table has a hundred thousand.
fn dotted(address: Ipv4Addr, text: &mut [u8; 15]) -> &str {
    let mut length = 0;
    let mut put = |byte: u8| {
        if let Some(place) = text.get_mut(length) {
            *place = byte;
            length += 1;
        }
    };
    for (number, octet) in address.octets().into_iter().enumerate() {
        if number > 0 {
            put(b'.');
        }
        if octet >= 100 {
            put(b'0' + octet / 100);
        }
        if octet >= 10 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
    }
    std::str::from_utf8(&text[..length]).unwrap_or_default()
}

super::string_in_json!(
    Prefix,
    json_schema!({
        "type": "string",
        "description": "address or prefix without host bits, such as 203.0.113.10 or 2001:db8:1::/64",
        "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$",
    })
);

/// Smallest list of disjoint, sorted ranges (both ends included) that covers the IPv4 prefixes.
pub(crate) fn ranges4(prefixes: impl IntoIterator<Item = Ipv4Net>) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let ranges = prefixes.into_iter().map(|net| (u32::from(net.network()), u32::from(net.broadcast())));
    let merged = merge(ranges, |end| end.checked_add(1)).into_iter();
    merged.map(|(start, end)| (start.into(), end.into())).collect()
}

/// Smallest list of disjoint, sorted ranges (both ends included) that covers the IPv6 prefixes.
pub(crate) fn ranges6(prefixes: impl IntoIterator<Item = Ipv6Net>) -> Vec<(Ipv6Addr, Ipv6Addr)> {
    let ranges = prefixes.into_iter().map(|net| (u128::from(net.network()), u128::from(net.broadcast())));
    let merged = merge(ranges, |end| end.checked_add(1)).into_iter();
    merged.map(|(start, end)| (start.into(), end.into())).collect()
}

/// Joins ranges that touch or have something in common.
fn merge<T: Copy + Ord>(ranges: impl Iterator<Item = (T, T)>, next: impl Fn(T) -> Option<T>) -> Vec<(T, T)> {
    let mut sorted: Vec<_> = ranges.collect();
    // Mostly they are in order already.
    sorted.sort();
    let mut merged: Vec<(T, T)> = Vec::new();
    for (start, end) in sorted {
        match merged.last_mut() {
            Some(last) if next(last.1).is_none_or(|next| start <= next) => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn every_reserved_range_is_read() {
        assert_eq!(RESERVED_RANGES.each_ref().map(Vec::len), [5, RESERVED.len() - 5]);
    }

    #[test]
    fn single_addresses_have_no_length() {
        assert_eq!(prefix("203.0.113.10").to_string(), "203.0.113.10");
        assert_eq!(prefix("2001:DB8::0:1").to_string(), "2001:db8::1");
        assert_eq!(prefix("2001:db8:1::/64").single(), None);
    }

    #[test]
    fn an_address_is_written_as_the_standard_library_writes_it() {
        for octet in 0..=255 {
            let address = Ipv4Addr::new(255 - octet, octet, octet / 2, octet);
            assert_eq!(dotted(address, &mut [0; 15]), address.to_string());
        }
        assert_eq!(format!("[{:>15}]", prefix("192.0.2.1")), "[      192.0.2.1]");
    }

    #[test]
    fn says_why_it_rejects() {
        for (input, reason) in [
            ("203.0.113.05", "is not an IP address"),
            ("203.0.113.10/", "is not an IP address"),
            ("203.0.113.10/+8", "is not an IP address"),
            ("203.0.113.0/024", "is not an IP address"),
            ("", "is not an IP address"),
            ("203.0.113.10/33", "has a prefix length above 32"),
            ("2001:db8::/129", "has a prefix length above 128"),
            ("203.0.113.10/4294967297", "is not an IP address"),
            ("203.0.113.10/29", "has host bits set; did you mean 203.0.113.8/29?"),
            ("224.0.0.5", "is or contains multicast"),
            ("127.0.0.1", "is or contains loopback"),
            ("255.255.255.255", "is or contains reserved"),
            ("0.0.0.0", "is or contains unspecified"),
            ("0.0.0.0/0", "is or contains unspecified"),
            ("::", "is or contains unspecified"),
            ("::/0", "is or contains unspecified"),
            ("::1", "is or contains loopback"),
            ("64.0.0.0/7", "is too large: the shortest prefix is /8"),
            ("2000::/3", "is too large: the shortest prefix is /16"),
            ("fe80::1", "is or contains link-local"),
            ("ff02::1", "is or contains multicast"),
            ("::ffff:203.0.113.1", "is or contains IPv4-mapped"),
        ] {
            let message = input.parse::<Prefix>().unwrap_err().to_string();
            assert!(message.contains(reason), "{input:?} gave {message:?}");
        }
    }

    #[test]
    fn ranges_are_joined() {
        let nets =
            ["203.0.113.8/29", "203.0.113.4/30", "203.0.113.20/32", "203.0.113.10/32"].map(|net| net.parse().unwrap());
        let ranges: Vec<String> = ranges4(nets).iter().map(|(a, b)| format!("{a}-{b}")).collect();
        assert_eq!(ranges, ["203.0.113.4-203.0.113.15", "203.0.113.20-203.0.113.20"]);
        let nets = ["128.0.0.0/1", "255.255.255.255/32", "10.0.0.0/8", "10.1.0.0/16"].map(|net| net.parse().unwrap());
        let ranges: Vec<String> = ranges4(nets).iter().map(|(a, b)| format!("{a}-{b}")).collect();
        assert_eq!(ranges, ["10.0.0.0-10.255.255.255", "128.0.0.0-255.255.255.255"]);
        assert_eq!(ranges6(["ffff::/16", "::/0"].map(|net| net.parse().unwrap())).len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn a_plain_address_is_what_the_standard_library_takes_for_one(text in "([0-9.]{0,16}|([0-9]{1,3}[.]){3}[0-9]{1,3}|.{0,9})(/[0-9]{0,3})?") {
            let (address, length) = text.split_once('/').unwrap_or((&text, "32"));
            let is_plain = length == "0" || !length.starts_with('0');
            let length: Option<u8> = length.parse().ok().filter(|_| is_plain);
            let expected = address.parse().ok().and_then(|address| Ipv4Net::new(address, length?).ok());
            proptest::prop_assert_eq!(plain4(text.as_bytes()), expected);
        }
    }
}
