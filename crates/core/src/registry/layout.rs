//! Providers' layouts as data: what a profile decides for a pool. A user can describe another provider in a file.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::document::{Document, Mode, Profile, UplinkGuard};
use crate::model::Family;

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
        let wrong = |key: &str, rule: GatewayRule, family: Family| match rule {
            GatewayRule::Fixed(address) if Family::of(address) != family => {
                Some(format!("{key}: {address} is of the other family"))
            }
            GatewayRule::NodeLast254 | GatewayRule::Penultimate if family == Family::V6 => {
                Some(format!("{key}: `{rule}` is for IPv4 only"))
            }
            GatewayRule::BridgeLinkLocal if family == Family::V4 => Some(format!("{key}: `{rule}` is for IPv6 only")),
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
        wrong("gateway4", self.gateway4, Family::V4).or_else(|| wrong("gateway6", self.gateway6, Family::V6))
    }
}

/// What a profile decides. A pool of the profile `custom` has a [`Layout`] that decides instead.
#[derive(Debug)]
pub(super) struct Row {
    /// On the command line and in files.
    name: &'static str,
    pub(super) mode: Mode,
    /// Whether the provider hands out the MAC with the address and punishes any other.
    pub(super) provider_mac: bool,
    /// Whether the provider asks for the addresses on the wire instead of sending what is for them to the node.
    pub(super) proxy: bool,
    /// [`UplinkGuard::Enforce`] where a MAC that the provider does not know costs its customer a port or a server.
    pub(super) uplink_guard: UplinkGuard,
    /// Whether nobody minds that the network is asked who has an address. Some providers punish ARP that they do not expect.
    pub(super) may_ask: bool,
    gateway4: GatewayRule,
    gateway6: GatewayRule,
}

/// A row of [`PROFILES`], its columns in order.
macro_rules! row {
    ($name:literal, $mode:ident, $mac:literal, $proxy:literal, $guard:ident, $ask:literal, $four:expr, $six:expr) => {
        Row {
            name: $name,
            mode: Mode::$mode,
            provider_mac: $mac,
            proxy: $proxy,
            uplink_guard: UplinkGuard::$guard,
            may_ask: $ask,
            gateway4: $four,
            gateway6: $six,
        }
    };
}

const NAMED: GatewayRule = GatewayRule::Named;
const NODE: GatewayRule = GatewayRule::NodeAddress;
const ON_BRIDGE: GatewayRule = GatewayRule::BridgeLinkLocal;
const FE80_1: GatewayRule = GatewayRule::Fixed(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)));
const DEDIBOX: GatewayRule = GatewayRule::Fixed(IpAddr::V4(Ipv4Addr::new(62, 210, 0, 1)));

/// The providers' layouts, in the order of [`Profile`]. OVH and Dedibox tell the IPv6 gateway only in their API, or by router
/// advertisement. In a vRack every MAC is welcome.
#[rustfmt::skip]
const PROFILES: [Row; 9] = [
    //   name               mode     MAC    proxy  guard    ask    IPv4 gateway              IPv6 gateway
    row!("generic-bridged", Bridged, false, false, Report,  true,  NAMED,                    NAMED),
    row!("generic-routed",  Routed,  false, true,  Report,  true,  NODE,                     ON_BRIDGE),
    row!("ovh-bridged",     Bridged, true,  false, Enforce, false, GatewayRule::NodeLast254, NAMED),
    row!("ovh-routed",      Routed,  false, true,  Enforce, false, NODE,                     ON_BRIDGE),
    row!("ovh-vrack",       Bridged, false, false, Off,     false, GatewayRule::Penultimate, NAMED),
    row!("hetzner-bridged", Bridged, true,  false, Enforce, false, GatewayRule::NodeGateway, FE80_1),
    row!("hetzner-routed",  Routed,  false, false, Enforce, false, NODE,                     ON_BRIDGE),
    row!("dedibox-bridged", Bridged, true,  false, Enforce, false, DEDIBOX,                  NAMED),
    row!("custom",          Bridged, false, false, Report,  false, NAMED,                    NAMED),
];

impl Row {
    /// Whether the provider, or whoever routes there, can send a prefix to an address. OVH and Dedibox send each address of a
    /// block to a MAC by itself; in a vRack only parts of an IPv6 block have a next hop.
    pub(super) fn routes_through(&self, family: Family) -> bool {
        match self.name {
            "ovh-bridged" | "dedibox-bridged" => false,
            "ovh-vrack" => family == Family::V6,
            _ => true,
        }
    }
}

impl Profile {
    /// What it decides.
    pub(super) fn row(self) -> &'static Row {
        &PROFILES[self as usize]
    }

    /// Bridged or routed.
    pub fn mode(self) -> Mode {
        self.row().mode
    }

    /// Where the gateways of both families are found.
    pub(super) fn gateway_rules(self) -> (GatewayRule, GatewayRule) {
        (self.row().gateway4, self.row().gateway6)
    }

    /// The name used on the command line and in the registry's files.
    pub fn as_str(self) -> &'static str {
        self.row().name
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_profile_has_its_row() {
        for (at, row) in PROFILES.iter().enumerate() {
            let profile: Profile = serde_json::from_value(row.name.into()).unwrap();
            assert_eq!((profile as usize, profile.as_str()), (at, row.name));
            assert!(!row.proxy || row.mode == Mode::Routed, "{}", row.name);
        }
    }
}
