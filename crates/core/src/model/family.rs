//! IPv4 and IPv6.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::json_schema;
use serde::{Deserialize, Serialize};

/// Address family. Prints as `IPv4` or `IPv6`, and is 4 or 6 in JSON; IPv4 comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Family {
    /// IPv4, with ARP.
    V4,
    /// IPv6, with neighbour discovery.
    V6,
}

impl Family {
    /// Both, in their order.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The family of a network.
    pub fn of_net(net: IpNet) -> Self {
        Self::of(net.addr())
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    /// `ipv4` or `ipv6`: the key of what is told of each family in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    /// 4 or 6, as it stands at the end of names (`ip -4`, `pve-public-ip-pool6`).
    pub fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

impl From<Family> for u8 {
    fn from(family: Family) -> Self {
        family.number()
    }
}

impl TryFrom<u8> for Family {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            4 => Ok(Self::V4),
            6 => Ok(Self::V6),
            _ => Err(format!("`{number}` is not an address family (4 or 6)")),
        }
    }
}

impl schemars::JsonSchema for Family {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Family".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        json_schema!({ "type": "integer", "enum": [4, 6] })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IPv{}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_that_of_its_addresses() {
        for (net, family, text) in [
            ("203.0.113.10/32", Family::V4, "IPv4"),
            ("0.0.0.0/0", Family::V4, "IPv4"),
            ("2001:db8::/64", Family::V6, "IPv6"),
            ("::ffff:192.0.2.1/128", Family::V6, "IPv6"),
        ] {
            let net: IpNet = net.parse().unwrap();
            assert_eq!(
                (Family::of_net(net), Family::of(net.addr()), family.to_string().as_str()),
                (family, family, text)
            );
        }
        assert!(Family::V4 < Family::V6);
    }

    #[test]
    fn in_json_a_family_is_its_number() {
        assert_eq!(serde_json::to_string(&Family::BOTH).unwrap(), "[4,6]");
        assert_eq!(serde_json::from_str::<[Family; 2]>("[4,6]").unwrap(), Family::BOTH);
        let error = serde_json::from_str::<Family>("5").unwrap_err().to_string();
        assert!(error.starts_with("`5` is not an address family (4 or 6)"), "{error}");
    }
}
