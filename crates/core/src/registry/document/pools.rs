//! Pools as files: `pools.json` of version 1, and `pools/NAME.json` of version 2.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Error as _, IntoDeserializer as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Document, VERSION, overlap};
use crate::model::{CoolDown, Family, IfName, MacAddr, NodeName, PoolName, Prefix};
use crate::registry::layout::{GatewayRule, Layout};
use crate::registry::shared::SharedMap;

/// The format in which each pool has a file of its own.
pub const POOLS_VERSION: u64 = 2;

/// As many IPv4 addresses with MACs fit into the file of a pool; without MACs nearly twice as many.
pub const POOL_ADDRESSES: u32 = 16_384;

/// `pools.json`: what there is to hand out.
///
/// In version 2 each pool has a file of its own, `pools/NAME.json`, and this one only says so: an older release that reads it
/// asks to be upgraded, where without it there would be no pools for that release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PoolsFile {
    /// Format version: 1, or 2 if each pool has a file of its own.
    pub version: u64,
    /// Pools by name; none here in version 2.
    #[serde(default)]
    pub pools: SharedMap<PoolName, Pool>,
}

impl Default for PoolsFile {
    fn default() -> Self {
        Self { version: VERSION, pools: SharedMap::default() }
    }
}

impl PoolsFile {
    /// The same pools with only the entries that satisfy `keep`.
    #[must_use]
    pub fn only(mut self, keep: impl Fn(Prefix) -> bool) -> Self {
        for pool in self.pools.values_mut() {
            pool.addresses.retain(|entry| keep(entry.address));
        }
        self
    }
}

impl Document for PoolsFile {
    const READ: RangeInclusive<u64> = VERSION..=POOLS_VERSION;

    fn version(&self) -> u64 {
        self.version
    }

    fn contradiction(&self) -> Option<String> {
        if self.version == POOLS_VERSION && !self.pools.is_empty() {
            return Some(
                "has version 2 and pools; in version 2 each pool has a file of its own below pools/".to_owned(),
            );
        }
        if let Some(overlap) = overlap(self.pools.iter()) {
            return Some(overlap.to_string());
        }
        let wrong = |(name, pool): (&PoolName, &Pool)| pool.contradiction(&format!("pools.{name}"));
        self.pools.iter().find_map(wrong)
    }
}

/// Prefixes to hand out, with what they have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Pool {
    /// The provider's layout.
    pub profile: Profile,
    /// With the profile `custom`: the layout that was read from a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Bridge on which the guests' NICs must be.
    pub bridge: IfName,
    /// IPv4 gateway of the guests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway4: Option<Ipv4Addr>,
    /// IPv6 gateway of the guests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<Ipv6Addr>,
    /// MAC of the provider's gateway. Needed only where it cannot be learnt: what guests of this node send to each other by
    /// way of the gateway comes back from its MAC, and from no other is that believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_mac: Option<MacAddr>,
    /// Whether guests on the bridge that hold no address may be routers and DHCP servers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guest_routers: bool,
    /// What becomes of guests' frames whose MAC the provider does not know. Default: what the profile says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink_guard: Option<UplinkGuard>,
    /// MACs that the provider knows although no address of the pool has them: those of guests without assignments.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub allowed_macs: BTreeSet<MacAddr>,
    /// Whether the network is asked who has an address before it is given to a guest. Default: what the profile says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// For how long an address that was released is not handed out by itself. Default: 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cool_down: Option<CoolDown>,
    /// What becomes of frames that are against the rules because of this pool. Default: `on`, they are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforce: Option<Enforce>,
    /// Nodes to which the provider routes the addresses. Default: every node of the cluster.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub nodes: BTreeSet<NodeName>,
    /// What becomes of a guest with addresses of the pool on another node than these. Default: `refuse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Elsewhere>,
    /// Addresses and prefixes, disjoint.
    #[serde(default)]
    pub addresses: Vec<PoolAddress>,
}

impl Pool {
    /// A pool with nothing but what it must have.
    pub fn new(profile: Profile, bridge: IfName, addresses: Vec<PoolAddress>) -> Self {
        Self {
            profile,
            layout: None,
            bridge,
            gateway4: None,
            gateway6: None,
            gateway_mac: None,
            guest_routers: false,
            uplink_guard: None,
            allowed_macs: BTreeSet::new(),
            probe: None,
            cool_down: None,
            enforce: None,
            nodes: BTreeSet::new(),
            elsewhere: None,
            addresses,
        }
    }

    /// What becomes of frames whose MAC the provider does not know.
    pub fn uplink_guard(&self) -> UplinkGuard {
        self.uplink_guard.unwrap_or_else(|| self.usual_guard())
    }

    /// What becomes of frames that are against the rules because of this pool.
    pub fn enforce(&self) -> Enforce {
        self.enforce.unwrap_or_default()
    }

    /// Whether the addresses work on this node.
    pub fn serves(&self, node: &NodeName) -> bool {
        self.nodes.is_empty() || self.nodes.contains(node)
    }

    /// What becomes of a guest with its addresses on a node where they do not work.
    pub fn elsewhere(&self) -> Elsewhere {
        self.elsewhere.unwrap_or_default()
    }

    /// What the provider's layout says becomes of them.
    pub fn usual_guard(&self) -> UplinkGuard {
        self.layout.as_ref().map_or_else(|| self.profile.row().uplink_guard, |layout| layout.uplink_guard)
    }

    /// Whether the network is asked who has an address. Where the provider punishes ARP that it does not expect, or nobody
    /// knows whether it does, only if somebody says so.
    pub fn probe(&self) -> Probe {
        self.probe.unwrap_or(if self.profile.row().may_ask { Probe::Assign } else { Probe::Never })
    }

    /// For how long an address that was released is not handed out by itself.
    pub fn cool_down(&self) -> CoolDown {
        self.cool_down.unwrap_or_default()
    }

    /// Bridged or routed.
    pub fn mode(&self) -> Mode {
        self.layout.as_ref().map_or_else(|| self.profile.row().mode, |layout| layout.mode)
    }

    /// Whether the provider hands out the MAC with the address and punishes any other.
    pub fn provider_mac(&self) -> bool {
        self.layout.as_ref().map_or_else(|| self.profile.row().provider_mac, |layout| layout.provider_mac)
    }

    /// Whether somebody can send a prefix of the pool through a guest's address: the node, a router of one's own, or a provider
    /// that lets its customers choose where a prefix is routed.
    pub fn routes_through(&self, family: Family) -> bool {
        self.layout.is_some() || self.profile.row().routes_through(family)
    }

    /// The profile's name, or that of the layout.
    pub fn profile_name(&self) -> &str {
        self.layout.as_ref().map_or_else(|| self.profile.as_str(), |layout| &layout.name)
    }

    /// Whether the provider asks for the guests' addresses on the wire, and the node has to answer.
    pub fn proxy(&self) -> bool {
        self.layout.as_ref().map_or_else(|| self.profile.row().proxy, |layout| layout.proxy)
    }

    /// Where the gateways of both families are found if they are not named.
    pub fn gateway_rules(&self) -> (GatewayRule, GatewayRule) {
        self.layout.as_ref().map_or_else(|| self.profile.gateway_rules(), |layout| (layout.gateway4, layout.gateway6))
    }

    /// What of it does not fit together, apart from entries that overlap; `at`: where it stands.
    fn contradiction(&self, at: &str) -> Option<String> {
        let key = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
        if (self.profile == Profile::Custom) != self.layout.is_some() {
            let at = if at.is_empty() { String::new() } else { format!("{at}: ") };
            return Some(format!("{at}the profile `custom` and a `layout` go together"));
        }
        if let Some(reason) = self.layout.as_ref().and_then(Document::contradiction) {
            return Some(format!("{}.{reason}", key("layout")));
        }
        self.addresses.iter().find_map(|entry| {
            let gateway = entry.gateway?;
            (gateway.is_ipv4() != (entry.address.family() == Family::V4))
                .then(|| format!("{}: gateway {gateway} of {} is of the other family", key("addresses"), entry.address))
        })
    }

    /// Every gateway: those of both families, and the entries' own.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        let common = [self.gateway4.map(IpAddr::V4), self.gateway6.map(IpAddr::V6)];
        common.into_iter().flatten().chain(self.addresses.iter().filter_map(|entry| entry.gateway))
    }

    /// The entry that holds `prefix` whole.
    pub fn entry(&self, prefix: Prefix) -> Option<&PoolAddress> {
        self.addresses.iter().find(|entry| entry.address.contains(prefix))
    }

    /// Gateway for an address of this pool: the entry's own, else the pool's of that family.
    pub fn gateway(&self, prefix: Prefix) -> Option<IpAddr> {
        let own = self.entry(prefix).and_then(|entry| entry.gateway);
        own.or_else(|| self.common_gateway(prefix.family()))
    }

    /// Gateway for the addresses of one of its entries.
    pub fn gateway_of(&self, entry: &PoolAddress) -> Option<IpAddr> {
        entry.gateway.or_else(|| self.common_gateway(entry.address.family()))
    }

    /// The gateway of all entries of a family that have none of their own.
    pub fn common_gateway(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.gateway4.map(IpAddr::V4),
            Family::V6 => self.gateway6.map(IpAddr::V6),
        }
    }
}

/// One address or prefix of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PoolAddress {
    /// The address or prefix.
    pub address: Prefix,
    /// MAC that the provider bound to it; only a NIC with this MAC may get it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Gateway, if it is not the pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// What it costs, in hundredths of the currency unit; carried, not interpreted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_cost_cents: Option<u64>,
}

impl PoolAddress {
    /// A plain entry.
    pub fn new(address: Prefix) -> Self {
        Self { address, mac: None, gateway: None, monthly_cost_cents: None }
    }
}

/// `pools/NAME.json`, from version 2 on: one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PoolFile {
    /// Format version, 2.
    pub version: u64,
    /// The pool; must agree with the file's name.
    pub name: PoolName,
    /// What it is.
    #[serde(flatten)]
    pub pool: Pool,
}

/// Not derived: a flattened struct takes in any key, and an unknown one is an error.
impl<'de> Deserialize<'de> for PoolFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;

        impl<'de> Visitor<'de> for Keys {
            type Value = PoolFile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pool")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PoolFile, A::Error> {
                let mut rest = OfPool { map, version: None, name: None };
                let pool = Pool::deserialize(MapAccessDeserializer::new(&mut rest))?;
                let version = rest.version.ok_or_else(|| A::Error::missing_field("version"))?;
                let name = rest.name.ok_or_else(|| A::Error::missing_field("name"))?;
                Ok(PoolFile { version, name, pool })
            }
        }

        deserializer.deserialize_map(Keys)
    }
}

/// The keys of the pool among those of its file; the others are kept.
struct OfPool<A> {
    map: A,
    version: Option<u64>,
    name: Option<PoolName>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for &mut OfPool<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key::<String>()? {
            match key.as_str() {
                "version" => self.version = Some(self.map.next_value()?),
                "name" => self.name = Some(self.map.next_value()?),
                _ => return seed.deserialize(key.into_deserializer()).map(Some),
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

impl Document for PoolFile {
    const READ: RangeInclusive<u64> = POOLS_VERSION..=POOLS_VERSION;

    fn version(&self) -> u64 {
        self.version
    }

    /// A line for each entry, because pmxcfs has a limit for files, and people compare them.
    fn text(&self) -> Result<String, serde_json::Error> {
        let head = Self { pool: Pool { addresses: Vec::new(), ..self.pool.clone() }, ..self.clone() };
        let mut text = serde_json::to_string(&head)?;
        text.truncate(text.strip_suffix("]}").unwrap_or(&text).len());
        for (at, entry) in self.pool.addresses.iter().enumerate() {
            text += if at == 0 { "\n" } else { ",\n" };
            text += &serde_json::to_string(entry)?;
        }
        Ok(text + "\n]}")
    }

    fn contradiction(&self) -> Option<String> {
        overlap(std::iter::once((&self.name, &self.pool)))
            .map(|overlap| overlap.to_string())
            .or_else(|| self.pool.contradiction(""))
    }
}

/// A provider's layout: how addresses of a pool reach the guests and what the provider insists on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// The guests' MACs are seen on the uplink; nobody hands MACs out.
    GenericBridged,
    /// The addresses are routed to the node, which forwards them to the bridge.
    GenericRouted,
    /// OVH additional IP with a virtual MAC.
    OvhBridged,
    /// OVH additional IP routed to the node.
    OvhRouted,
    /// OVH vRack block.
    OvhVrack,
    /// Hetzner additional IP with a separate MAC.
    HetznerBridged,
    /// Hetzner subnet routed to the node.
    HetznerRouted,
    /// Dedibox failover IP with a virtual MAC.
    DediboxBridged,
    /// Another provider, described by the pool's `layout`.
    #[cfg_attr(feature = "clap", value(skip))]
    Custom,
}

/// What becomes of frames that guests send to the provider with a MAC that it does not know. The node's own frames
/// are never touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum UplinkGuard {
    /// They leave.
    Off,
    /// They leave, and are counted.
    Report,
    /// They are dropped.
    Enforce,
}

impl UplinkGuard {
    /// The name used on the command line and in `pools.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Report => "report",
            Self::Enforce => "enforce",
        }
    }
}

impl From<Enforce> for UplinkGuard {
    /// The most that a guard does as long as no more is enforced.
    fn from(enforce: Enforce) -> Self {
        match enforce {
            Enforce::Off => Self::Off,
            Enforce::Watch => Self::Report,
            Enforce::On => Self::Enforce,
        }
    }
}

/// Whether the rules that a pool asks for are enforced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Enforce {
    /// They are not asked: what is against them passes, and is not counted.
    Off,
    /// What is against them passes, and is counted.
    Watch,
    /// What is against them is dropped.
    #[default]
    On,
}

impl Enforce {
    /// The name used on the command line and in the files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Watch => "watch",
            Self::On => "on",
        }
    }
}

/// What becomes of a guest on a node where its address does not work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Elsewhere {
    /// It is given no address there, and does not start or arrive there.
    #[default]
    Refuse,
    /// It is warned about.
    Warn,
}

impl Elsewhere {
    /// The name used on the command line and in the files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Warn => "warn",
        }
    }
}

/// When the network is asked who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// Not without being told to.
    Never,
    /// Before it is assigned.
    Assign,
}

impl Probe {
    /// The name used on the command line and in `pools.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Assign => "assign",
        }
    }
}

/// Who is seen on the provider's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The provider sees the guest's MAC.
    Bridged,
    /// The provider sees the node's MAC; the node routes.
    Routed,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::registry::document::{MAX_FILE_SIZE, parse, render};

    #[test]
    fn a_pool_has_a_file_of_its_own() {
        let path = Path::new("/r/pools/lan.json");
        let text = r#"{"version":2,"name":"lan","profile":"generic-bridged","bridge":"vmbr0","gateway4":"203.0.113.9","addresses":[
{"address":"203.0.113.8/29"},
{"address":"198.51.100.7/32","mac":"02:00:00:aa:bb:cc"}
]}
"#;
        let file: PoolFile = parse(path, text.as_bytes()).unwrap();
        assert_eq!((file.name.as_str(), file.pool.addresses.len()), ("lan", 2));
        let again: PoolFile = parse(path, &render(&file).unwrap()).unwrap();
        assert_eq!(again, file);
        assert_eq!(String::from_utf8(render(&file).unwrap()).unwrap(), text.replace("/32", ""), "a line an entry");
        let empty = PoolFile { pool: Pool { addresses: Vec::new(), ..file.pool.clone() }, ..file };
        assert_eq!(parse::<PoolFile>(path, &render(&empty).unwrap()).unwrap(), empty);
        for (old, new, reason) in [
            ("\"version\":2", "\"version\":1", "version: `1` is not 2"),
            ("\"version\":2", "\"version\":3", "has version 3, but"),
            ("\"version\":2,", "", "it has no key `version`"),
            ("\"name\":\"lan\",", "", "missing field `name`"),
            ("\"bridge\"", "\"brige\"", "has an unknown key `brige`"),
            ("\"mac\"", "\"mack\"", "has an unknown key `addresses.1.mack`"),
            ("02:00:00", "03:00:00", "addresses[1].mac: MAC address `03:00:00:aa:bb:cc` has the group bit set"),
            ("198.51.100.7/32", "203.0.113.10/32", "has overlapping addresses"),
            ("generic-bridged", "custom", "the profile `custom` and a `layout` go together"),
            ("\"mac\":\"02:00:00:aa:bb:cc\"", "\"gateway\":\"fe80::1\"", "addresses: gateway fe80::1 of 198.51.100.7"),
        ] {
            let error = parse::<PoolFile>(path, text.replace(old, new).as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{new}: {error}");
        }
        let marker = PoolsFile { version: POOLS_VERSION, ..PoolsFile::default() };
        assert_eq!(parse::<PoolsFile>(path, &render(&marker).unwrap()).unwrap(), marker);
    }

    /// What one file holds is what the table of capacities says.
    #[test]
    fn a_file_holds_so_many_addresses_with_macs() {
        let entry = |number: u32| PoolAddress {
            mac: Some("02:00:00:aa:bb:cc".parse().unwrap()),
            ..PoolAddress::new(Prefix::host(IpAddr::V4((0x6440_0000 + number).into())).unwrap())
        };
        let pool = Pool::new(Profile::OvhBridged, "vmbr0".parse().unwrap(), (0..POOL_ADDRESSES).map(entry).collect());
        let file = PoolFile { version: POOLS_VERSION, name: "lan".parse().unwrap(), pool };
        let size = render(&file).unwrap().len();
        assert!((MAX_FILE_SIZE / 10 * 8..=MAX_FILE_SIZE).contains(&size), "{size}");
    }

    #[test]
    fn pools_must_not_overlap() {
        let pools = |a: &str, b: &str| {
            let text = format!(
                r#"{{"version":1,"pools":{{
                "one":{{"profile":"generic-bridged","bridge":"vmbr0","addresses":[{{"address":"{a}"}}]}},
                "two":{{"profile":"generic-routed","bridge":"vmbr1","addresses":[{{"address":"{b}"}}]}}}}}}"#
            );
            parse::<PoolsFile>(Path::new("pools.json"), text.as_bytes()).map_err(|error| error.to_string())
        };
        assert!(pools("203.0.113.8/29", "203.0.113.16/29").is_ok());
        let message = pools("203.0.113.0/24", "203.0.113.16").unwrap_err();
        assert!(message.contains("203.0.113.0/24 in pool `one` and 203.0.113.16 in pool `two`"), "{message}");
    }
}
