//! The registry's files as types, and the strict way in: every complaint names file, key and value.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, IgnoredAny, IntoDeserializer as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::layout::{GatewayRule, Layout};
use super::shared::SharedMap;
use crate::code;
use crate::model::{Code, CoolDown, IfName, MacAddr, Moment, NicId, PoolName, Prefix, Subject, Timestamp, Vmid};

/// The format of all files but those of pools.
pub const VERSION: u64 = 1;

/// The format in which each pool has a file of its own.
pub const POOLS_VERSION: u64 = 2;

/// pmxcfs refuses larger files. Source: pve-cluster `src/pmxcfs/memdb.h`, `MEMDB_MAX_FILE_SIZE`.
pub const MAX_FILE_SIZE: usize = 1024 * 1024;

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
            addresses,
        }
    }

    /// What becomes of frames whose MAC the provider does not know.
    pub fn uplink_guard(&self) -> UplinkGuard {
        self.uplink_guard.unwrap_or_else(|| self.usual_guard())
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
            (gateway.is_ipv4() != (entry.address.family() == 4))
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
    pub fn common_gateway(&self, family: u8) -> Option<IpAddr> {
        if family == 4 { self.gateway4.map(IpAddr::V4) } else { self.gateway6.map(IpAddr::V6) }
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

/// The entries of a pool by their first address, for whoever looks up many.
#[derive(Debug)]
pub struct EntryIndex<'a> {
    pool: &'a Pool,
    by_first: Vec<&'a PoolAddress>,
}

impl<'a> EntryIndex<'a> {
    /// Sorts the entries; they are disjoint, as [`parse`] has seen to.
    pub fn new(pool: &'a Pool) -> Self {
        let mut by_first: Vec<&PoolAddress> = pool.addresses.iter().collect();
        by_first.sort_by_key(|entry| entry.address);
        Self { pool, by_first }
    }

    /// As [`Pool::entry`].
    pub fn entry(&self, prefix: Prefix) -> Option<&'a PoolAddress> {
        let behind = self.by_first.partition_point(|entry| entry.address.first() <= prefix.first());
        let entry = *self.by_first.get(behind.checked_sub(1)?)?;
        entry.address.contains(prefix).then_some(entry)
    }

    /// As [`Pool::gateway`].
    pub fn gateway(&self, prefix: Prefix) -> Option<IpAddr> {
        let common = || self.pool.common_gateway(prefix.family());
        self.entry(prefix).map_or_else(common, |entry| self.pool.gateway_of(entry))
    }
}

/// The entries of all pools by their first address, for whoever looks up many.
#[derive(Debug)]
pub struct PoolIndex<'a>(BTreeMap<&'a PoolName, EntryIndex<'a>>);

impl<'a> PoolIndex<'a> {
    /// Sorts the entries.
    pub fn new(file: &'a PoolsFile) -> Self {
        Self(file.pools.iter().map(|(name, pool)| (name, EntryIndex::new(pool))).collect())
    }

    /// As [`Pool::entry`].
    pub fn entry(&self, pool: &PoolName, prefix: Prefix) -> Option<&'a PoolAddress> {
        self.0.get(pool)?.entry(prefix)
    }

    /// Whether a NIC on this bridge with this MAC may be given an address of the pool.
    pub fn suits(&self, pool: &PoolName, address: Prefix, bridge: Option<IfName>, mac: Option<MacAddr>) -> bool {
        let Some((index, entry)) = self.0.get(pool).and_then(|index| Some((index, index.entry(address)?))) else {
            return false;
        };
        let is_right = match entry.mac {
            Some(expected) => mac == Some(expected),
            None => mac.is_some() && !index.pool.provider_mac(),
        };
        is_right
            && bridge == Some(index.pool.bridge)
            && super::allocate::check_usable(pool, index.pool, address).is_ok()
    }

    /// Whether any NIC on this bridge may be given the next free address of the pool, whatever its MAC.
    pub fn is_for_any(&self, pool: &PoolName, bridge: Option<IfName>) -> bool {
        let suits = |index: &EntryIndex<'_>| bridge == Some(index.pool.bridge) && !index.pool.provider_mac();
        self.0.get(pool).is_some_and(suits)
    }

    /// The name of the pool, if there is one only.
    pub fn only_name(&self) -> Option<&'a PoolName> {
        let mut names = self.0.keys().copied();
        names.next().filter(|_| names.next().is_none())
    }

    /// The pool that an address is of.
    pub fn pool_of(&self, address: IpAddr) -> Option<&'a PoolName> {
        let prefix = Prefix::host(address).ok()?;
        self.0.keys().find(|pool| self.entry(pool, prefix).is_some()).copied()
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

/// `guests/<vmid>.json`: the addresses of one guest, complete enough to bind it without any other file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct GuestFile {
    /// Format version, 1.
    pub version: u64,
    /// The guest; must agree with the file's name.
    pub vmid: Vmid,
    /// NICs that have addresses.
    #[serde(default)]
    pub interfaces: BTreeMap<NicId, Interface>,
    /// Hookscript volume that the guest had before; called from ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hookscript: Option<String>,
    /// How the guest is told its addresses.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cloud_init: CloudInit,
}

/// How a guest is told its addresses, and what it was told before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CloudInit {
    /// What becomes of a start at which the guest would find other addresses in its cloud-init data.
    #[serde(default, skip_serializing_if = "is_default")]
    pub check: CloudInitCheck,
    /// What runs in the guest, if it needs a document of its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub os: GuestOs,
    /// `ipconfigN` (of a container: the same keys of `netN`) as it was before; empty if there was none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub before: BTreeMap<NicId, String>,
}

impl CloudInit {
    /// Whether the administrator configures the guest by other means.
    pub fn is_off(&self) -> bool {
        self.check == CloudInitCheck::Off
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What becomes of a start at which the guest would find other addresses than it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum CloudInitCheck {
    /// It does not start.
    #[default]
    Refuse,
    /// It starts, with a warning.
    Warn,
    /// It starts: its network is none of this program's business, which writes nothing either.
    Off,
}

/// What runs in a guest, as far as cloud-init's data depends on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum GuestOs {
    /// Anything that cloud-init serves but Alpine.
    #[default]
    Linux,
    /// Alpine: ifupdown-ng knows a gateway outside the prefix by another word only.
    Alpine,
}

impl GuestFile {
    /// A guest without addresses.
    pub fn new(vmid: Vmid) -> Self {
        Self { version: VERSION, vmid, interfaces: BTreeMap::new(), hookscript: None, cloud_init: CloudInit::default() }
    }

    /// Every address with its NIC.
    pub fn addresses(&self) -> impl Iterator<Item = (NicId, &Interface, &Assigned)> {
        self.interfaces
            .iter()
            .flat_map(|(nic, interface)| interface.addresses.iter().map(move |assigned| (*nic, interface, assigned)))
    }

    /// Whether nothing is assigned.
    pub fn is_empty(&self) -> bool {
        self.addresses().next().is_none()
    }

    /// Whether an address is there twice, other than at NICs with the same MAC, or lies in a prefix beside it.
    fn has_overlaps(&self) -> bool {
        let mut sorted: Vec<_> =
            self.addresses().map(|(nic, interface, assigned)| (assigned.address, nic, interface.mac)).collect();
        // The longer prefix last: what lies in a prefix follows it at once, or follows something else that does.
        sorted.sort_unstable();
        sorted.windows(2).any(|pair| {
            let [(one, nic, mac), (two, other_nic, other_mac)] = [pair[0], pair[1]];
            let is_shared = one == two && nic != other_nic && mac == other_mac;
            !is_shared && one.overlaps(two)
        })
    }
}

/// One NIC of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Interface {
    /// The only MAC that may be used on the NIC's port.
    pub mac: MacAddr,
    /// `false` stops the guest's DHCPv4 client; default `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// Whether everything that reaches the port is delivered, also what is addressed to others. Default: only what is for
    /// the guest's own MAC and addresses, for everybody or for a group.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_destination: bool,
    /// VLANs (1 to 4094) in which the guest itself tags its frames; what is inside is filtered like the rest.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub trunk: BTreeSet<u16>,
    /// Whether the guest may choose its IPv6 link-local addresses freely, as many do by themselves (RFC 7217). It still
    /// cannot take one that is somebody else's, or of the kind that routers have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_link_local: bool,
    /// Whether router advertisements are delivered to the guest. Default: only if the gateway of one of its IPv6 addresses
    /// is not known, so that an advertisement has to tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_advertisements: Option<bool>,
    /// Further IPv6 link-local addresses of the guest (the one made of its MAC is always allowed).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub link_local: BTreeSet<Ipv6Addr>,
    /// The NIC's own addresses.
    #[serde(default)]
    pub addresses: Vec<Assigned>,
}

/// An address that a guest holds until it is released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Assigned {
    /// The address or prefix.
    pub address: Prefix,
    /// The pool from which it came.
    pub pool: PoolName,
    /// Gateway for the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Customer or department; carried, not interpreted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// The name by which a caller of the API knows the guest; carried, and looked up when the caller names it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vps_id: Option<String>,
    /// When it was assigned (RFC 3339, UTC).
    pub assigned_at: Timestamp,
}

/// `released.json`: addresses that were taken back not long ago. May be removed: it only keeps them from being handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ReleasedFile {
    /// Format version, 1.
    pub version: u64,
    /// When which guest gave back what.
    #[serde(default)]
    pub addresses: BTreeMap<Prefix, Released>,
}

impl Default for ReleasedFile {
    fn default() -> Self {
        Self { version: VERSION, addresses: BTreeMap::new() }
    }
}

/// Who had an address until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Released {
    /// When it was taken back (RFC 3339, UTC).
    pub at: Moment,
    /// The guest that had it, and may have it back at any time.
    pub vmid: Vmid,
    /// The pool that says how long it cools down.
    pub pool: PoolName,
}

/// `nodes/<node>.json`: optional settings of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct NodeFile {
    /// Format version, 1.
    pub version: u64,
    /// Bridge ports that lead to the provider. Default: every port of a pool's bridge that is not named like a guest's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplinks: Option<BTreeSet<IfName>>,
    /// Interface by which the node reaches the provider, and on which it answers for the addresses of routed pools that
    /// need it. Default: that of the default route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_uplink: Option<IfName>,
    /// nflog group (1 to 65535) to which dropped frames are sent, with the reason as prefix; at most ten of a reason in a
    /// second. Default: they are counted only, because not every kernel has the module for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_group: Option<u16>,
    /// `false` leaves the nflog group to somebody else: it can have one listener, and that is the guard, who looks for
    /// conflicts. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<bool>,
    /// Directory in which the guard leaves metrics for `node_exporter`. Default: /var/lib/prometheus/node-exporter, if it is
    /// there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_directory: Option<PathBuf>,
    /// Seconds between two gatherings of metrics, 1 to 3600; 0: none are gathered. Default: 15.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_seconds: Option<u64>,
    /// To whom the guard writes when something is wrong; empty: to nobody. Default: root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert_mail: Option<String>,
    /// Program, by its whole path, that gets the same as JSON on its standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert_exec: Option<PathBuf>,
    /// Frames dropped from one port in an hour from which on the guard reports that; 0: never. Default: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert_attempts: Option<u64>,
    /// What filters routed traffic. Default: auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendChoice>,
}

/// What shall filter routed traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum BackendChoice {
    /// iptables if the node has rules there (the one that has them), else nftables. It holds until the node boots.
    #[default]
    Auto,
    /// `table inet pve-public-ip`.
    Nftables,
    /// The iptables in which the node has rules, else the one that `iptables` is.
    Iptables,
    /// iptables of the old kernel interface.
    IptablesLegacy,
    /// iptables in nf_tables.
    IptablesNft,
}

impl BackendChoice {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::IptablesLegacy => "iptables-legacy",
            Self::IptablesNft => "iptables-nft",
        }
    }
}

/// A file of the registry that cannot be used as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` {reason}", path.display())]
pub struct DocumentError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, with key and value.
    pub reason: String,
    /// What to do.
    pub hint: String,
    /// What kind of fault it is.
    pub fault: Fault,
}

impl DocumentError {
    /// Its kind.
    pub fn code(&self) -> Code {
        match self.fault {
            Fault::Newer => code!("registry-newer"),
            _ => code!("registry-broken"),
        }
    }

    /// The file.
    pub fn subject(&self) -> Subject {
        Subject::File(self.path.display().to_string())
    }
}

/// Why a file cannot be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fault {
    /// It is damaged, or was edited by hand.
    #[default]
    Damaged,
    /// It has a key that this release does not know: a typing error, or the key of a newer release.
    UnknownKey,
    /// It says that a newer release wrote it.
    Newer,
}

impl DocumentError {
    /// A file that is damaged.
    pub fn new(path: &Path, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { path: path.to_owned(), reason: reason.into(), hint: hint.into(), fault: Fault::Damaged }
    }
}

/// What cures every node that is older than a file of the registry.
pub const UPGRADE: &str = "upgrade this node: `apt update && apt install pve-public-ip`";

/// A file of the registry: its type-specific checks, beyond what serde sees.
pub trait Document: DeserializeOwned + Serialize + JsonSchema {
    /// The versions of its format that this release reads.
    const READ: RangeInclusive<u64> = VERSION..=VERSION;

    /// The version of its format.
    fn version(&self) -> u64;

    /// Its text: indented, keys in order.
    fn text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// Says what contradicts itself inside the document, with the key.
    fn contradiction(&self) -> Option<String>;
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

/// Two entries that have addresses in common.
#[derive(Debug, Clone, Copy)]
pub struct Overlap<'a>([(&'a PoolName, Prefix); 2]);

impl<'a> Overlap<'a> {
    /// Whose entries they are.
    pub fn pools(&self) -> [&'a PoolName; 2] {
        self.0.map(|(name, _)| name)
    }
}

impl fmt::Display for Overlap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [(one, first), (two, second)] = self.0;
        write!(f, "has overlapping addresses: {first} in pool `{one}` and {second} in pool `{two}`")
    }
}

/// The first two entries of these pools that overlap.
pub fn overlap<'a>(pools: impl Iterator<Item = (&'a PoolName, &'a Pool)>) -> Option<Overlap<'a>> {
    let entries = pools.flat_map(|(name, pool)| pool.addresses.iter().map(move |entry| (name, entry.address)));
    let mut sorted: Vec<(&PoolName, Prefix)> = entries.collect();
    // Sorted by family and first address, longer prefix last: an overlap is then always with an earlier neighbour.
    sorted.sort_by_key(|(_, address)| *address);
    let pair = sorted.windows(2).find(|pair| pair[0].1.overlaps(pair[1].1))?;
    Some(Overlap([pair[0], pair[1]]))
}

/// `pools/NAME.json`, from version 2 on: one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
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

impl Document for GuestFile {
    fn version(&self) -> u64 {
        self.version
    }

    fn contradiction(&self) -> Option<String> {
        let overlaps = self.has_overlaps();
        for (nic, interface, assigned) in self.addresses() {
            let at = || format!("interfaces.{nic}: {}", assigned.address);
            if assigned.gateway.is_some_and(|gateway| gateway.is_ipv4() != (assigned.address.family() == 4)) {
                return Some(format!("{}: the gateway is of the other family", at()));
            }
            // Which of them it is, is looked for only if there is one: a guest may hold thousands.
            let others = overlaps.then(|| self.addresses()).into_iter().flatten();
            for (other_nic, other_interface, other) in others {
                let same_entry = std::ptr::eq(assigned, other);
                let shared =
                    assigned.address == other.address && nic != other_nic && interface.mac == other_interface.mac;
                if !same_entry && !shared && assigned.address.overlaps(other.address) {
                    return Some(format!("{} overlaps {} on {other_nic}", at(), other.address));
                }
            }
        }
        for (nic, interface) in &self.interfaces {
            if let Some(id) = interface.trunk.iter().find(|id| !(1..=4094).contains(*id)) {
                return Some(format!("interfaces.{nic}.trunk: {id} is not a VLAN (1 to 4094)"));
            }
            if let Some(address) = interface.link_local.iter().find(|address| !address.is_unicast_link_local()) {
                return Some(format!("interfaces.{nic}.link_local: {address} is not in fe80::/10"));
            }
            let twin = self.interfaces.iter().find(|(other, entry)| *other > nic && entry.mac == interface.mac);
            if let Some((other, entry)) = twin {
                let shares = |one: &Assigned| entry.addresses.iter().any(|two| one.address == two.address);
                if !interface.addresses.iter().any(shares) {
                    return Some(format!(
                        "interfaces.{nic} and {other} have the same mac {} but no address in common",
                        entry.mac
                    ));
                }
            }
        }
        None
    }
}

impl Document for ReleasedFile {
    fn version(&self) -> u64 {
        self.version
    }

    fn contradiction(&self) -> Option<String> {
        None
    }
}

impl Document for NodeFile {
    fn version(&self) -> u64 {
        self.version
    }

    fn contradiction(&self) -> Option<String> {
        if self.log_group == Some(0) {
            return Some("has log_group 0; a group is a number from 1 to 65535".to_owned());
        }
        if let Some(seconds) = self.metrics_seconds.filter(|seconds| *seconds > 3600) {
            return Some(format!("has metrics_seconds {seconds}; it is a number from 0 to 3600"));
        }
        for (key, path) in [("metrics_directory", &self.metrics_directory), ("alert_exec", &self.alert_exec)] {
            if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
                return Some(format!("has {key} `{}`; it is a whole path, which begins with /", path.display()));
            }
        }
        // It becomes a line of a mail's head.
        let is_address = |c: char| c.is_ascii_alphanumeric() || "@.+-_=".contains(c);
        let mail = self.alert_mail.as_ref().filter(|mail| mail.starts_with('-') || !mail.chars().all(is_address));
        mail.map(|mail| format!("has alert_mail `{mail}`; it is a user of this node or one mail address"))
    }
}

/// What to do about a file that says nothing, as long as nobody knows a copy of it.
pub const RESTORE: &str =
    "restore it from a backup, or by `pve-public-ip registry restore` on a node that has a copy of it";

/// Reads a document strictly.
///
/// Unknown keys, wrong types and contradictions are errors, so that a typing error never silently unprotects a guest.
pub fn parse<T: Document>(path: &Path, bytes: &[u8]) -> Result<T, DocumentError> {
    let error = |reason: String, hint: &str| DocumentError::new(path, reason, hint);
    let restore = RESTORE;
    if bytes.len() > MAX_FILE_SIZE {
        return Err(error(
            format!("has {} bytes; the cluster file system allows {MAX_FILE_SIZE}", bytes.len()),
            restore,
        ));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(error("is empty".to_owned(), restore));
    }
    // Nearly every file is in order, and a node reads thousands of them: what is wrong with one is looked for afterwards.
    if let Some(document) = parse_valid::<T>(bytes) {
        return Ok(document);
    }
    check_version::<T>(bytes).map_err(|(reason, hint)| DocumentError {
        fault: if hint.is_some() { Fault::Newer } else { Fault::Damaged },
        ..error(reason, hint.unwrap_or(restore))
    })?;

    let mut unknown = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut deserializer, &mut track);
    let document: Result<T, _> = serde_ignored::deserialize(tracked, |path| unknown.push(path.to_string()));
    // First the unknown key: a missing one is often its consequence.
    if let Some(path) = unknown.first() {
        let key = path.rsplit('.').next().unwrap_or(path);
        let hint = match nearest_key::<T>(key) {
            Some(known) => {
                format!("did you mean `{known}`? `pve-public-ip schema` prints all keys")
            }
            None => {
                format!("if a newer release wrote it, {UPGRADE}; `pve-public-ip schema` prints the keys of this one")
            }
        };
        let error = error(format!("has an unknown key `{path}`"), &hint);
        return Err(DocumentError { fault: Fault::UnknownKey, ..error });
    }
    let document = document.map_err(|cause| {
        let at = track.path().to_string();
        let at = if at == "." { String::new() } else { format!("{at}: ") };
        error(format!("is not valid: {at}{cause}"), "correct the value; `pve-public-ip schema` prints what is allowed")
    })?;
    match document.contradiction() {
        Some(reason) => Err(error(reason, "correct the file by hand, then run `pve-public-ip verify`")),
        None => Ok(document),
    }
}

/// A document in which nothing is wrong.
fn parse_valid<T: Document>(bytes: &[u8]) -> Option<T> {
    // Of a text nothing is looked at twice whether it is one.
    let document: T = super::strict::read(std::str::from_utf8(bytes).ok()?)?;
    (T::READ.contains(&document.version()) && document.contradiction().is_none()).then_some(document)
}

/// The text of a document as it is stored, with a newline at the end.
pub fn render<T: Document>(document: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = document.text()?.into_bytes();
    bytes.push(b'\n');
    Ok(bytes)
}

/// The format version that a document says, without a look at what follows it; `None`: it says none, or is no document.
///
/// A hook asks it of files with ten thousand addresses.
pub fn first_version(bytes: &[u8]) -> Option<u64> {
    struct Stop<'a>(&'a mut Option<u64>);

    impl<'de> Visitor<'de> for Stop<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a document")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<Cow<'_, str>>()? {
                if key == "version" {
                    *self.0 = Some(map.next_value()?);
                    break;
                }
                map.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }

    let mut found = None;
    // What stands behind the version is an error for the parser that is asked for no more.
    let _stopped = serde_json::Deserializer::from_slice(bytes).deserialize_map(Stop(&mut found));
    found
}

/// Looks at `version` before anything else: a newer format may have any shape.
fn check_version<T: Document>(bytes: &[u8]) -> Result<(), (String, Option<&'static str>)> {
    #[derive(Deserialize)]
    struct Versioned {
        version: Option<serde_json::Value>,
    }
    let versioned: Versioned =
        serde_json::from_slice(bytes).map_err(|cause| (format!("is not valid JSON: {cause}"), None))?;
    let Some(value) = versioned.version else {
        return Err(("is not a file of this program: it has no key `version`".to_owned(), None));
    };
    let known = *T::READ.end();
    match value.as_u64() {
        Some(version) if T::READ.contains(&version) => Ok(()),
        Some(newer) if newer > known => {
            let reason = format!(
                "has version {newer}, but pve-public-ip {} reads version {known}: it was written by a newer release",
                env!("CARGO_PKG_VERSION")
            );
            Err((reason, Some(UPGRADE)))
        }
        _ => Err((format!("is not valid: version: `{value}` is not {known}"), None)),
    }
}

fn nearest_key<T: JsonSchema>(key: &str) -> Option<String> {
    let schema = serde_json::to_value(schemars::schema_for!(T)).ok()?;
    let mut keys = BTreeSet::new();
    collect_keys(&schema, &mut keys);
    let scored = keys.into_iter().map(|known| (strsim::damerau_levenshtein(key, &known), known));
    scored.filter(|(distance, known)| *distance <= known.len().min(key.len()) / 2).min().map(|(_, known)| known)
}

fn collect_keys(schema: &serde_json::Value, keys: &mut BTreeSet<String>) {
    if let Some(properties) = schema.get("properties").and_then(serde_json::Value::as_object) {
        keys.extend(properties.keys().cloned());
    }
    match schema {
        serde_json::Value::Object(map) => map.values().for_each(|value| collect_keys(value, keys)),
        serde_json::Value::Array(list) => list.iter().for_each(|value| collect_keys(value, keys)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    #[test]
    fn the_version_is_told_without_the_rest() {
        for (text, version) in [
            (r#"{"version":1,"pools":{}}"#, Some(1)),
            (r#"{"pools":{"a":{"version":7}},"version":2}"#, Some(2)),
            ("{\n  \"version\": 2, and nobody reads on", Some(2)),
            (r#"{"version":"1"}"#, None),
            (r#"{"pools":{}}"#, None),
            ("[1]", None),
            ("", None),
        ] {
            assert_eq!(first_version(text.as_bytes()), version, "{text}");
        }
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

    proptest! {
        /// Neighbours in the order of addresses are enough to find every overlap.
        #[test]
        fn overlaps_are_found_as_by_comparing_each_with_each(
            held in proptest::collection::vec((0u8..3, 0u8..2, 0u8..32, 27u8..33, any::<bool>()), 0..12),
        ) {
            let mut guest = GuestFile::new("100".parse().unwrap());
            for (nic, mac, low, length, is_v6) in held {
                let text = if is_v6 { format!("2001:db8::{low:x}/{}", length + 96) } else { format!("203.0.113.{low}/{length}") };
                let address = text.parse::<ipnet::IpNet>().unwrap().trunc().to_string().parse().unwrap();
                let empty = || serde_json::from_value(serde_json::json!({"mac": format!("02:00:00:00:00:0{mac}")})).unwrap();
                let assigned = Assigned {
                    address, pool: "a".parse().unwrap(), gateway: None, organization: None, vps_id: None, assigned_at: "2026-11-22T10:00:00Z".parse().unwrap(),
                };
                let nic = format!("net{nic}").parse().unwrap();
                guest.interfaces.entry(nic).or_insert_with(empty).addresses.push(assigned);
            }
            let all: Vec<_> = guest.addresses().collect();
            let is_wrong = |(nic, interface, one): &(NicId, &Interface, &Assigned)| all.iter().any(|(other, twin, two)| {
                let shared = one.address == two.address && nic != other && interface.mac == twin.mac;
                !std::ptr::eq(*one, *two) && !shared && one.address.overlaps(two.address)
            });
            prop_assert_eq!(guest.has_overlaps(), all.iter().any(is_wrong));
        }
    }

    const GUEST: &str = r#"{"version":1,"vmid":100,"interfaces":{"net0":{"mac":"02:00:00:aa:bb:cc","addresses":[
        {"address":"203.0.113.10/32","pool":"ovh","gateway":"198.51.100.254","organization":"org-1","assigned_at":"2026-11-22T10:00:00Z"}]}}}"#;

    fn guest(text: &str) -> Result<GuestFile, String> {
        parse(Path::new("100.json"), text.as_bytes()).map_err(|error| format!("{error} | {}", error.hint))
    }

    #[test]
    fn index_finds_what_a_search_finds() {
        let text = r#"{"version":1,"pools":{"a":{"profile":"generic-bridged","bridge":"vmbr0","addresses":[
            {"address":"203.0.113.64/26"},{"address":"203.0.113.8/32"},{"address":"2001:db8::/64"}]}}}"#;
        let file: PoolsFile = parse(Path::new("pools.json"), text.as_bytes()).unwrap();
        let (name, pool) = file.pools.iter().next().unwrap();
        let index = PoolIndex::new(&file);
        let mut found = 0;
        for prefix in [
            "203.0.113.7",
            "203.0.113.8",
            "203.0.113.9",
            "203.0.113.64",
            "203.0.113.127",
            "203.0.113.128",
            "203.0.113.0/24",
            "203.0.113.96/29",
            "2001:db8::5",
            "2001:db8:0:1::",
            "2001:db7::",
            "10.0.0.1",
        ] {
            let prefix: Prefix = prefix.parse().unwrap();
            assert_eq!(index.entry(name, prefix), pool.entry(prefix), "{prefix}");
            found += usize::from(index.entry(name, prefix).is_some());
        }
        assert_eq!(found, 5);
        assert_eq!(index.entry(&"b".parse().unwrap(), "203.0.113.8".parse().unwrap()), None);
    }

    #[test]
    fn reads_and_writes_the_documented_form() {
        let file = guest(GUEST).unwrap();
        let again = render(&file).unwrap();
        assert_eq!(guest(&String::from_utf8(again).unwrap()).unwrap(), file);
        assert_eq!(file.addresses().count(), 1);
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let edited = |from: &str, to: &str| GUEST.replace(from, to);
        for (text, reason) in [
            (String::new(), "`100.json` is empty"),
            ("{".to_owned(), "is not valid JSON"),
            ("[]".to_owned(), "is not valid JSON"),
            ("{}".to_owned(), "has no key `version`"),
            (edited("\"version\":1", "\"version\":7"), "has version 7, but pve-public-ip 0.2.0 reads version 1"),
            (edited("\"version\":1", "\"version\":\"1\""), "version: `\"1\"` is not 1"),
            (edited("\"vmid\":100", "\"vmid\":7"), "vmid: `7` is not a VMID"),
            (edited("\"address\"", "\"adress\""), "did you mean"),
            (
                edited("\"organization\"", "\"organisation\""),
                "unknown key `interfaces.net0.addresses.0.organisation` | did you mean `organization`?",
            ),
            (edited("02:00", "03:00"), "interfaces.net0.mac: MAC address `03:00:00:aa:bb:cc` has the group bit set"),
            (edited("113.10/32", "113.10/24"), "has host bits set; did you mean 203.0.113.0/24?"),
            (edited("198.51.100.254", "fe80::1"), "the gateway is of the other family"),
            (edited("2026-11-22T10:00:00Z", "yesterday"), "assigned_at: `yesterday` is not a UTC time such as"),
            (edited("net0", "net99"), "`net99` is not a guest NIC"),
        ] {
            let message = guest(&text).unwrap_err();
            assert!(message.contains(reason), "{text}\ngave {message:?}\nwithout {reason:?}");
        }
        let huge = vec![b' '; MAX_FILE_SIZE + 1];
        let message = parse::<GuestFile>(Path::new("100.json"), &huge).unwrap_err().to_string();
        assert!(message.contains("has 1048577 bytes"), "{message}");
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
