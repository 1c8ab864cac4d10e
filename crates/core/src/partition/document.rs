//! Files: what people declare, and plans.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};
use schemars::{JsonSchema, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Flow, Labels, Strategy};
use crate::model::Vmid;

/// Reads and writes a type as the text that it is for people.
macro_rules! as_text {
    ($($type:ty, $pattern:literal;)+) => { $(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    )+ };
}

as_text! {
    Selector, "^(any|internet|[1-9][0-9]{2,8}|(app|svc|zone)-[a-z0-9_][a-z0-9_.+-]*)$";
    Service, "^((tcp|udp)/[0-9]+(-[0-9]+)?|icmp)$";
    VlanRange, "^[0-9]+-[0-9]+$";
    Growth, "^[0-9]+(\\.[0-9]{1,2})?$";
}

/// Some guests, or everybody outside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// Every guest of the plan.
    Any,
    /// Everybody outside of it.
    Internet,
    /// One guest.
    Guest(Vmid),
    /// Those of an application.
    App(String),
    /// Those of a service.
    Service(String),
    /// Those of a zone.
    Zone(String),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Internet => f.write_str("internet"),
            Self::Guest(vmid) => write!(f, "{vmid}"),
            Self::App(name) => write!(f, "app-{name}"),
            Self::Service(name) => write!(f, "svc-{name}"),
            Self::Zone(name) => write!(f, "zone-{name}"),
        }
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = |name: &str| is_label(name).then(|| name.to_owned());
        let parsed = match text {
            "any" => Some(Self::Any),
            "internet" => Some(Self::Internet),
            _ => match text.split_once('-') {
                Some(("app", name)) => named(name).map(Self::App),
                Some(("svc", name)) => named(name).map(Self::Service),
                Some(("zone", name)) => named(name).map(Self::Zone),
                _ => text.parse().ok().map(Self::Guest),
            },
        };
        parsed.ok_or_else(|| {
            format!(
                "`{text}` is neither `app-NAME`, `svc-NAME`, `zone-NAME` (in lower case), a VMID, `any` nor `internet`"
            )
        })
    }
}

/// What may be part of a tag in Proxmox VE, in lower case.
///
/// Source: pve-common `PVE/JSONSchema.pm`, `pve-tag`.
pub(super) fn is_label(text: &str) -> bool {
    let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let rest = |byte: u8| first(byte) || matches!(byte, b'-' | b'+' | b'.');
    text.len() <= 64 && text.bytes().next().is_some_and(first) && text.bytes().all(rest)
}

/// Protocol and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// TCP, from the first port to the last.
    Tcp(u16, u16),
    /// UDP likewise.
    Udp(u16, u16),
    /// ICMP and `ICMPv6`.
    Icmp,
}

impl Service {
    /// Protocol and ports as Proxmox VE's firewall has them.
    pub fn parts(self) -> (&'static str, Option<String>) {
        let range = |first: u16, last: u16| if first == last { first.to_string() } else { format!("{first}:{last}") };
        match self {
            Self::Tcp(first, last) => ("tcp", Some(range(first, last))),
            Self::Udp(first, last) => ("udp", Some(range(first, last))),
            Self::Icmp => ("icmp", None),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Icmp => f.write_str("icmp"),
            Self::Tcp(first, last) if first == last => write!(f, "tcp/{first}"),
            Self::Tcp(first, last) => write!(f, "tcp/{first}-{last}"),
            Self::Udp(first, last) if first == last => write!(f, "udp/{first}"),
            Self::Udp(first, last) => write!(f, "udp/{first}-{last}"),
        }
    }
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let number =
                |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
            let (first, last): (u16, u16) = (number(first)?, number(last)?);
            (first > 0 && first <= last).then_some((first, last))
        };
        let parsed = match text.split_once('/') {
            None if text == "icmp" => Some(Self::Icmp),
            Some(("tcp", ports)) => range(ports).map(|(first, last)| Self::Tcp(first, last)),
            Some(("udp", ports)) => range(ports).map(|(first, last)| Self::Udp(first, last)),
            _ => None,
        };
        parsed.ok_or_else(|| {
            format!("`{text}` is neither `tcp/PORT`, `udp/PORT`, `tcp/FIRST-LAST`, `udp/FIRST-LAST` nor `icmp`")
        })
    }
}

/// VLANs to take from: 1 to 4094.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl fmt::Display for VlanRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for VlanRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let id = |text: &str| text.parse().ok().filter(|id| (1..=4094).contains(id));
        match (id(first), id(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("`{text}` is no range of VLANs, such as 100-199 (1 to 4094)")),
        }
    }
}

/// By how much a subnet is larger than what its guests need now, in hundredths: 1 to 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth(u32);

impl Growth {
    /// How many addresses so many guests are given room for.
    pub fn of(self, guests: usize) -> u64 {
        (guests as u64 * u64::from(self.0)).div_ceil(100)
    }
}

impl Default for Growth {
    fn default() -> Self {
        Self(200)
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 100 {
            0 => write!(f, "{}", self.0 / 100),
            rest if rest % 10 == 0 => write!(f, "{}.{}", self.0 / 100, rest / 10),
            rest => write!(f, "{}.{rest:02}", self.0 / 100),
        }
    }
}

impl FromStr for Growth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let hundredths = (digits(whole) && digits(rest)).then(|| {
            let rest: u32 = format!("{rest:0<2}").parse().unwrap_or_default();
            whole.parse::<u32>().unwrap_or_default() * 100 + rest
        });
        let valid = hundredths.filter(|hundredths| (100..=1600).contains(hundredths));
        valid
            .map(Self)
            .ok_or_else(|| format!("`{text}` is no factor from 1 to 16 with at most two decimals, such as 1.5"))
    }
}

/// What people say of their guests beyond tags.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// 1.
    pub version: One,
    /// Labels by VMID; what is not said here is taken from the guest's tags.
    #[serde(default, deserialize_with = "by_vmid")]
    #[schemars(with = "BTreeMap<String, Labels>")]
    pub guests: BTreeMap<Vmid, Labels>,
    /// Flows.
    #[serde(default)]
    pub flows: Vec<Flow>,
}

/// Keys are text in every format.
fn by_vmid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Vmid, Labels>, D::Error> {
    let named = BTreeMap::<String, Labels>::deserialize(deserializer)?;
    let parse = |(name, labels): (String, Labels)| Ok((name.parse().map_err(serde::de::Error::custom)?, labels));
    named.into_iter().map(parse).collect()
}

/// The only version there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct One;

impl Serialize for One {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(1)
    }
}

impl<'de> Deserialize<'de> for One {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            1 => Ok(Self),
            other => Err(serde::de::Error::custom(format!(
                "version {other} is not known: pve-public-ip {} reads version 1",
                env!("CARGO_PKG_VERSION")
            ))),
        }
    }
}

impl JsonSchema for One {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "version".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        json_schema!({ "type": "integer", "const": 1 })
    }
}

/// A subnet with its guests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// `app-shop`, `svc-db`, `critical-app-shop`, `other`; a group's second subnet ends in `-2`.
    pub name: String,
    /// The group that it is for: as its name, without the number.
    pub group: String,
    /// The addresses.
    #[schemars(with = "String")]
    pub subnet: Ipv4Net,
    /// The same for IPv6: a /64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub subnet6: Option<Ipv6Net>,
    /// VLAN.
    pub vlan: u16,
    /// Gateway: the first address when the subnet was made.
    pub gateway: std::net::Ipv4Addr,
    /// IPv6 gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<std::net::Ipv6Addr>,
    /// First and last address for DHCP: all but the gateway's.
    pub dhcp: [std::net::Ipv4Addr; 2],
    /// Who is in it.
    pub guests: Vec<Vmid>,
}

/// A plan, as it is printed and kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// 1.
    pub version: One,
    /// How guests were grouped.
    pub strategy: Strategy,
    /// The space that subnets are taken from.
    #[schemars(with = "String")]
    pub base: Ipv4Net,
    /// The same for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub base6: Option<Ipv6Net>,
    /// How much room was left.
    pub growth: Growth,
    /// VLANs to take from.
    pub vlan_range: VlanRange,
    /// Subnets by address.
    pub subnets: Vec<Subnet>,
    /// Guests that lead to the world.
    pub routers: Vec<Vmid>,
    /// Traffic between subnets that has to be allowed.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// What it costs.
    pub weight: Weight,
}

/// A file is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DeclarationError(pub String);

/// The text of a file of people: JSON, or TOML if its name says so.
pub fn parse_declared(text: &str, is_toml: bool) -> Result<Declared, DeclarationError> {
    let declared: Declared = if is_toml {
        basic_toml::from_str(text).map_err(|error| DeclarationError(error.to_string()))?
    } else {
        from_json(text)?
    };
    for (vmid, labels) in &declared.guests {
        for (key, label) in [("app", &labels.app), ("service", &labels.service), ("zone", &labels.zone)] {
            if let Some(label) = label.as_ref().filter(|label| !is_label(label)) {
                return Err(DeclarationError(format!(
                    "guests.{vmid}.{key}: `{}` is no name of at most 64 characters of a-z, 0-9, `_`, `-`, `+` and `.`",
                    label.escape_debug()
                )));
            }
        }
    }
    Ok(declared)
}

/// A plan that was printed before.
pub fn parse_plan(text: &str) -> Result<Plan, DeclarationError> {
    let plan: Plan = from_json(text)?;
    let wrong = |sentence: String| Err(DeclarationError(sentence));
    for (index, subnet) in plan.subnets.iter().enumerate() {
        let name = &subnet.name;
        if !is_label(name) || !is_label(&subnet.group) {
            return wrong(format!("subnets[{index}].name: `{}` is no name", name.escape_debug()));
        }
        if subnet.subnet != subnet.subnet.trunc() || !plan.base.contains(&subnet.subnet) {
            return wrong(format!(
                "subnet {} of {name} does not lie in the base {}, or has host bits",
                subnet.subnet, plan.base
            ));
        }
        if !subnet.subnet.contains(&subnet.gateway) || !(1..=4094).contains(&subnet.vlan) {
            return wrong(format!("{name}: the gateway is not in the subnet, or the VLAN is not one from 1 to 4094"));
        }
        let twin = plan.subnets[..index].iter().find(|other| {
            other.name == *name
                || other.vlan == subnet.vlan
                || other.subnet.contains(&subnet.subnet)
                || subnet.subnet.contains(&other.subnet)
                || other.guests.iter().any(|vmid| subnet.guests.contains(vmid))
        });
        if let Some(twin) = twin {
            return wrong(format!("{name} and {} have a name, VLAN, address or guest in common", twin.name));
        }
    }
    Ok(plan)
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, DeclarationError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let at = if path == "." { String::new() } else { format!("{path}: ") };
        DeclarationError(format!("{at}{}", error.into_inner()))
    })?;
    deserializer.end().map_err(|error| DeclarationError(error.to_string()))?;
    Ok(parsed)
}

/// Traffic from one subnet to another that has to be allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Name of the subnet, or `internet`.
    pub from: String,
    /// Name of the subnet, or `internet`.
    pub to: String,
    /// Protocol and ports; none: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Service>,
}

/// What a plan costs. What depends on flows is missing where none are declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Weight {
    /// Subnets.
    pub subnets: usize,
    /// Guests with a place.
    pub guests: usize,
    /// Declared flows that cross the boundary between two subnets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crossing_flows: Option<usize>,
    /// Rules that have to be written for the declared flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<usize>,
    /// Guests that are not critical and share a subnet with one that is: nothing filters between them.
    pub beside_critical: usize,
    /// Addresses of the base that the subnets take.
    pub used_addresses: u64,
    /// Addresses of the base that are free.
    pub free_addresses: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_they_are_written() {
        for text in ["any", "internet", "100", "app-shop", "svc-db", "zone-critical"] {
            assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
        }
        for text in ["tcp/443", "udp/53", "tcp/8000-8100", "icmp"] {
            assert_eq!(text.parse::<Service>().unwrap().to_string(), text);
        }
        for text in ["1", "2", "1.5", "1.25", "16"] {
            assert_eq!(text.parse::<Growth>().unwrap().to_string(), text);
        }
        assert_eq!("100-199".parse::<VlanRange>().unwrap().to_string(), "100-199");
        assert_eq!("1.5".parse::<Growth>().unwrap().of(3), 5);
    }

    #[test]
    fn says_what_it_cannot_read() {
        for text in ["", "shop", "app-", "app-Shop", "svc-a b", "99", "app-$(x)"] {
            let reason = text.parse::<Selector>().unwrap_err();
            assert!(reason.starts_with(&format!("`{text}` is neither `app-NAME`")), "{reason}");
        }
        for text in ["", "tcp", "tcp/0", "tcp/70000", "tcp/9-8", "tcp/+1", "sctp/1", "icmp/8"] {
            let reason = text.parse::<Service>().unwrap_err();
            assert!(reason.starts_with(&format!("`{text}` is neither `tcp/PORT`")), "{reason}");
        }
        for text in ["", "0", "0.5", "16.01", "1.255", "-1", "1e1", "1."] {
            let reason = text.parse::<Growth>().unwrap_err();
            assert!(reason.starts_with(&format!("`{text}` is no factor")), "{reason}");
        }
        for text in ["", "0-10", "10-5", "100-4095", "a-b"] {
            let reason = text.parse::<VlanRange>().unwrap_err();
            assert!(reason.starts_with(&format!("`{text}` is no range")), "{reason}");
        }
    }

    #[test]
    fn a_file_may_be_json_or_toml() {
        let json = r#"{"version":1,"guests":{"101":{"app":"shop","service":"web"}},
            "flows":[{"from":"svc-web","to":"svc-db","ports":["tcp/5432"],"within_app":true}]}"#;
        let toml = "version = 1\n[guests.101]\napp = \"shop\"\nservice = \"web\"\n\
            [[flows]]\nfrom = \"svc-web\"\nto = \"svc-db\"\nports = [\"tcp/5432\"]\nwithin_app = true\n";
        assert_eq!(parse_declared(json, false).unwrap(), parse_declared(toml, true).unwrap());
        for (text, reason) in [
            ("", "EOF while parsing"),
            ("{}", "missing field `version`"),
            (r#"{"version":2}"#, "version: version 2 is not known"),
            (r#"{"version":1,"guests":{"7":{}}}"#, "guests"),
            (r#"{"version":1,"guests":{"101":{"app":"a b"}}}"#, "guests.101.app: `a b` is no name"),
            (r#"{"version":1,"flow":[]}"#, "unknown field `flow`, expected one of"),
            (r#"{"version":1,"flows":[{"from":"web","to":"any"}]}"#, "flows[0].from: `web` is neither"),
            (r#"{"version":1} {}"#, "trailing characters"),
        ] {
            let message = parse_declared(text, false).unwrap_err().to_string();
            assert!(message.contains(reason), "{text}: {message}");
        }
    }
}
