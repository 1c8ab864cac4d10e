//! Providers' layouts as data: what a profile decides for a pool. A user can describe another provider in a file.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::document::{Document, Mode, UplinkGuard};

/// A provider that this program does not know by name, as `pool create --profile FILE` reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Layout {
    /// Format version, 1.
    pub version: u64,
    /// What it is called in lists.
    pub name: String,
    /// Whose MAC the provider sees: the guest's (`bridged`) or the node's (`routed`).
    pub mode: Mode,
    /// Whether the provider hands out the MAC with the address and punishes any other.
    #[serde(default)]
    pub provider_mac: bool,
    /// What becomes of MACs that the provider does not know.
    #[serde(default = "report")]
    pub uplink_guard: UplinkGuard,
    /// With the mode `routed`: whether the provider asks for the addresses on the wire (ARP, neighbour discovery), so that
    /// the node has to answer for them. Not needed where it sends what is for them to the node anyway.
    #[serde(default)]
    pub proxy: bool,
    /// Where the guests' IPv4 gateway is found.
    #[serde(default)]
    pub gateway4: GatewayRule,
    /// Where their IPv6 gateway is found.
    #[serde(default)]
    pub gateway6: GatewayRule,
}

fn report() -> UplinkGuard {
    UplinkGuard::Report
}

impl Document for Layout {
    fn version(&self) -> u64 {
        self.version
    }

    fn contradiction(&self) -> Option<String> {
        let wrong = |key: &str, rule: GatewayRule, v4: bool| match rule {
            GatewayRule::Fixed(address) if address.is_ipv4() != v4 => {
                Some(format!("{key}: {address} is of the other family"))
            }
            GatewayRule::NodeLast254 | GatewayRule::Penultimate if !v4 => {
                Some(format!("{key}: `{rule}` is for IPv4 only"))
            }
            GatewayRule::BridgeLinkLocal if v4 => Some(format!("{key}: `{rule}` is for IPv6 only")),
            _ => None,
        };
        if self.name.is_empty() || self.name.chars().any(|c| !c.is_ascii_alphanumeric() && c != '-') {
            return Some(format!("name: `{}` is not made of letters, digits and hyphens", self.name));
        }
        if self.proxy && self.mode == Mode::Bridged {
            return Some(
                "proxy: `true` is for the mode `routed` only: bridged guests answer for themselves".to_owned(),
            );
        }
        wrong("gateway4", self.gateway4, true).or_else(|| wrong("gateway6", self.gateway6, false))
    }
}

/// Where the gateway of the guests is found when a pool is made and none is named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum GatewayRule {
    /// Only where it is named.
    #[default]
    Named,
    /// This address.
    Fixed(IpAddr),
    /// The node's main address with 254 as its last octet.
    NodeLast254,
    /// The gateway of the node itself.
    NodeGateway,
    /// The node's address on the bridge, else its main address.
    NodeAddress,
    /// The node's link-local address on the bridge.
    BridgeLinkLocal,
    /// The last address but one of the pool's first prefix.
    Penultimate,
}

impl GatewayRule {
    const NAMES: [(&'static str, Self); 6] = [
        ("named", Self::Named),
        ("node-last-254", Self::NodeLast254),
        ("node-gateway", Self::NodeGateway),
        ("node-address", Self::NodeAddress),
        ("bridge-link-local", Self::BridgeLinkLocal),
        ("penultimate", Self::Penultimate),
    ];
}

impl fmt::Display for GatewayRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, Self::NAMES.iter().find(|(_, rule)| rule == self)) {
            (Self::Fixed(address), _) => write!(f, "{address}"),
            (_, name) => f.write_str(name.map_or("named", |(name, _)| name)),
        }
    }
}

impl FromStr for GatewayRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, rule)) = Self::NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(*rule);
        }
        let names = Self::NAMES.map(|(name, _)| name).join(", ");
        text.parse().map(Self::Fixed).map_err(|_| format!("`{text}` is neither an address nor one of {names}"))
    }
}

impl TryFrom<String> for GatewayRule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<GatewayRule> for String {
    fn from(rule: GatewayRule) -> Self {
        rule.to_string()
    }
}
