//! What may be asked for: typed, without effects, and fit for a line of JSON. The command line makes these of its arguments, a
//! socket of what it reads; `ops` of the root program carries them out.
//!
//! ```json
//! {"version":1,"id":7,"author":{"why":"ticket 12"},"op":"assign","vmid":100,"pool":"ovh-rbx"}
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::audit::Author;
use crate::code;
use crate::model::once::Once;
use crate::model::{
    CoolDown, Family, GroupName, IfName, MacAddr, Moment, NicId, NodeName, PoolName, Prefix, Problem, Subject, Vmid,
};
use crate::registry::Edit;
use crate::registry::document::{
    BackendChoice, CloudInitCheck, Elsewhere, Enforce, GuestOs, PortProgramUse, Probe, Profile, UplinkGuard,
};
use crate::registry::layout::Layout;
use crate::reply::AddressState;

/// The version of this protocol.
pub const VERSION: u64 = 1;

/// No request is larger, in bytes.
pub const LIMIT: usize = 256 * 1024;

/// A request with what belongs to each.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Comes back in the reply, whatever it is.
    pub id: Option<Value>,
    /// Who asks, and why.
    pub author: Author,
    /// Only say what would be done.
    pub dry_run: bool,
    /// The organization whose addresses exist for the caller; `None`: all of them.
    pub within: Option<String>,
    /// What is asked for.
    pub request: Request,
}

/// A request as a line of JSON: what [`Envelope::line`] writes.
#[derive(Serialize, JsonSchema)]
pub struct Line<'a> {
    /// Format version, 1.
    version: u64,
    /// Comes back in the reply, whatever it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    /// Who asks, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    author: Option<&'a Author>,
    /// Only say what would be done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    /// The organization whose addresses exist for the caller; absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    within: Option<&'a str>,
    /// What is asked for.
    #[serde(flatten)]
    request: &'a Request,
}

/// What may be asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Create a pool.
    CreatePool(CreatePool),
    /// Add addresses to a pool, or change what is known of them.
    AddAddresses(AddAddresses),
    /// Change what holds for all addresses of a pool.
    SetPool(SetPool),
    /// Remove a pool, or some of its addresses.
    RemoveFromPool(RemoveFromPool),
    /// Give addresses to a guest.
    Assign(Assign),
    /// Take addresses from a guest.
    Release(Release),
    /// Change what a guest's NIC may do.
    SetInterface(SetInterface),
    /// Change settings of the node that the request is sent to.
    SetNode(SetNode),
    /// Bring this node to its desired state.
    Apply {},
    /// Put right what an examination finds and what is safe to put right.
    Repair {},
    /// Replace an unusable file of the registry by this node's last known good copy.
    RestoreFile(RestoreFile),
    /// Give each pool a file of its own.
    ConvertRegistry {},
    /// Add a storage for cloud-init data that every node has.
    AddSnippetStorage(AddSnippetStorage),
    /// Mark conflicts as known: they block nothing.
    AcknowledgeConflicts(AcknowledgeConflicts),
    /// Give an address to the guest of a name.
    Allocate(Allocate),
    /// Take an address from whoever holds it, or from the guest of a name.
    Deallocate(Deallocate),
    /// Put an address into a pool.
    CreateAddress(CreateAddress),
    /// Take an address that nobody holds out of its pool.
    DeleteAddress(DeleteAddress),
    /// Say what is known of an address.
    GetAddress(GetAddress),
    /// List addresses.
    ListAddresses(ListAddresses),
    /// List the pools.
    ListPools {},
    /// Say who held an address, or what a guest held.
    History(History),
    /// Say how a guest is protected.
    VerifyGuest(VerifyGuest),
    /// Say how this node is.
    Info {},
    /// Say what monitoring of this node reads.
    Metrics {},
    /// Say what happens from now on, until the caller closes the connection.
    Watch(Watch),
    /// List the keys of the API.
    ListKeys {},
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePool {
    /// Its name.
    pub pool: PoolName,
    /// The provider's layout.
    pub profile: Profile,
    /// The layout itself, for the profile `custom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Bridge of the guests' NICs; absent: the only one that fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<IfName>,
    /// IPv4 gateway of the guests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway4: Option<Ipv4Addr>,
    /// IPv6 gateway of the guests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<Ipv6Addr>,
    /// MAC of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_mac: Option<MacAddr>,
    /// Whether guests without addresses may be routers.
    #[serde(default)]
    pub guest_routers: bool,
    /// What becomes of frames with a MAC that the provider does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink_guard: Option<UplinkGuard>,
    /// MACs that the provider knows besides.
    #[serde(default)]
    pub allowed_macs: BTreeSet<MacAddr>,
    /// Whether the network is asked who has an address before it is assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// For how long a released address is not handed out by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cool_down: Option<CoolDown>,
    /// Whether it is enforced; absent: yes, unless a guest would lose something by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforce: Option<Enforce>,
    /// Nodes to which the provider routes the addresses; none: every node of the cluster.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub nodes: BTreeSet<NodeName>,
    /// What becomes of guests on other nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Elsewhere>,
    /// Whether it is enforced even if guests lose something by that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub yes: bool,
    /// Addresses and prefixes.
    #[serde(default)]
    pub addresses: Vec<Prefix>,
}

impl CreatePool {
    /// A pool without addresses, with all that is not said left to the profile.
    pub fn of(pool: PoolName, profile: Profile) -> Self {
        Self {
            pool,
            profile,
            layout: None,
            bridge: None,
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
            yes: false,
            addresses: Vec::new(),
        }
    }
}

/// Addresses of a pool, all or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddAddresses {
    /// The pool.
    pub pool: PoolName,
    /// The addresses and prefixes, with what is known of them.
    pub entries: Vec<Entry>,
    /// Whether they are added even if guests lose something by that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub yes: bool,
}

/// An address of a pool. What is absent stays as it is, `null` takes it away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The address or prefix.
    pub address: Prefix,
    /// MAC that the provider bound to it.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<MacAddr>")]
    pub mac: Edit<MacAddr>,
    /// Gateway, if it is not the pool's.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<IpAddr>")]
    pub gateway: Edit<IpAddr>,
    /// What it costs.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<u64>")]
    pub monthly_cost_cents: Edit<u64>,
}

/// What holds for all addresses of a pool. What is absent stays as it is, `null` takes it away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPool {
    /// The pool.
    pub pool: PoolName,
    /// Bridge of the guests' NICs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<IfName>,
    /// IPv4 gateway.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<Ipv4Addr>")]
    pub gateway4: Edit<Ipv4Addr>,
    /// IPv6 gateway.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<Ipv6Addr>")]
    pub gateway6: Edit<Ipv6Addr>,
    /// MAC of the gateway.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<MacAddr>")]
    pub gateway_mac: Edit<MacAddr>,
    /// Whether guests without addresses may be routers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_routers: Option<bool>,
    /// What becomes of frames with a MAC that the provider does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink_guard: Option<UplinkGuard>,
    /// MACs to allow from now on.
    #[serde(default)]
    pub allow_macs: BTreeSet<MacAddr>,
    /// MACs to allow no longer.
    #[serde(default)]
    pub forbid_macs: BTreeSet<MacAddr>,
    /// Whether the network is asked who has an address before it is assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// For how long a released address is not handed out by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cool_down: Option<CoolDown>,
    /// Whether it is enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforce: Option<Enforce>,
    /// Nodes to which the provider routes the addresses; `null`: every node of the cluster.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<BTreeSet<NodeName>>")]
    pub nodes: Edit<BTreeSet<NodeName>>,
    /// What becomes of guests on other nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Elsewhere>,
    /// Whether the MACs of all guests on the bridge are allowed that its guard would keep back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_present: bool,
    /// Whether it is changed even if guests lose something by that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub yes: bool,
}

/// What a pool loses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveFromPool {
    /// The pool.
    pub pool: PoolName,
    /// Its entries; none: the pool.
    #[serde(default)]
    pub addresses: Vec<Prefix>,
}

fn first() -> NicId {
    NicId::FIRST
}

fn first_nic() -> Vec<NicId> {
    vec![first()]
}

fn yes() -> bool {
    true
}

/// Addresses for a guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Assign {
    /// The guest.
    pub vmid: Vmid,
    /// Addresses or prefixes; none: the next free ones of the pool.
    #[serde(default)]
    pub addresses: Vec<Prefix>,
    /// NICs that get them.
    #[serde(default = "first_nic")]
    pub interfaces: Vec<NicId>,
    /// The pool to take from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// 4, 6, or both; none: those of the pool.
    #[serde(default)]
    pub families: BTreeSet<Family>,
    /// How many of each family the NIC shall hold, or get besides; absent: one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u16>,
    /// Whether `count` is besides what the NIC holds.
    #[serde(default)]
    pub more: bool,
    /// Customer or department.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// The name by which a caller of the API knows the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vps_id: Option<String>,
    /// Through which address the guest is reached for the prefixes that are named: one of its own, or one of the prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// The group of guests that hold the addresses in turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<GroupName>,
    /// Give the NIC the MAC that the provider bound to the addresses.
    #[serde(default)]
    pub set_mac: bool,
    /// Whether the network is asked first; absent: what the pool says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<bool>,
    /// Register the hookscript.
    #[serde(default = "yes")]
    pub hookscript: bool,
    /// What runs in the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<GuestOs>,
    /// What becomes of a start at which cloud-init's data is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInitCheck>,
    /// Let the guest take itself for a new machine.
    #[serde(default)]
    pub reinit: bool,
    /// Let the guest's agent use the addresses at once.
    #[serde(default)]
    pub live: bool,
}

impl Assign {
    /// For a guest, with all else as it is where nothing is said.
    pub fn of(vmid: Vmid) -> Self {
        Self {
            vmid,
            addresses: Vec::new(),
            interfaces: first_nic(),
            pool: None,
            families: BTreeSet::new(),
            count: None,
            more: false,
            organization: None,
            vps_id: None,
            via: None,
            shared: None,
            set_mac: false,
            probe: None,
            hookscript: yes(),
            os: None,
            cloud_init: None,
            reinit: false,
            live: false,
        }
    }
}

/// Addresses that a guest loses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The guest.
    pub vmid: Vmid,
    /// Which; none: all.
    #[serde(default)]
    pub addresses: Vec<Prefix>,
    /// Give the guest back the hookscript that it had before, when it holds nothing more.
    #[serde(default = "yes")]
    pub hookscript: bool,
}

/// What a guest's NIC may do besides using its addresses. What is absent stays as it is, `null` makes it the default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetInterface {
    /// The guest.
    pub vmid: Vmid,
    /// Its NIC.
    #[serde(default = "first")]
    pub interface: NicId,
    /// Whether it may ask for an address by DHCPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// Whether it gets frames that are addressed to others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any_destination: Option<bool>,
    /// Whether it may choose its link-local addresses freely.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any_link_local: Option<bool>,
    /// Whether it gets router advertisements.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<bool>")]
    pub router_advertisements: Edit<bool>,
    /// Further link-local addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_local: Option<BTreeSet<Ipv6Addr>>,
    /// VLANs in which it tags its frames itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk: Option<BTreeSet<u16>>,
    /// Addresses that no pool holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub also: Option<BTreeSet<Prefix>>,
    /// Further MACs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub further_macs: Option<BTreeSet<MacAddr>>,
    /// Virtual routers whose MACs it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrrp: Option<BTreeSet<u8>>,
}

/// Settings of one node. What is absent stays as it is, `null` makes it the default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetNode {
    /// What filters routed traffic; `auto` is decided again.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<BackendChoice>")]
    pub backend: Edit<BackendChoice>,
    /// nflog group (1 to 65535) to which dropped frames are sent; `null`: none.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<u16>")]
    pub log_group: Edit<u16>,
    /// Whether the guard listens to that group for conflicts.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<bool>")]
    pub watch: Edit<bool>,
    /// The most that the uplink guards of the node do; `null`: what the pools say.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<Enforce>")]
    pub enforce: Edit<Enforce>,
    /// What the programs at guests' ports do; `null`: check.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<PortProgramUse>")]
    pub port_program: Edit<PortProgramUse>,
    /// Bridge ports that lead to the provider; `null`: they are known by their names.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<BTreeSet<IfName>>")]
    pub uplinks: Edit<BTreeSet<IfName>>,
    /// Interface by which the node reaches the provider of routed pools; `null`: that of the default route.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<IfName>")]
    pub route_uplink: Edit<IfName>,
    /// Recipient of the guard's mail; empty: nobody; `null`: root.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<String>")]
    pub alert_mail: Edit<String>,
    /// Program, by its whole path, that gets the same as JSON on its standard input.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<PathBuf>")]
    pub alert_exec: Edit<PathBuf>,
    /// Frames dropped from one port within an hour from which on the guard alerts; 0: never.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<u64>")]
    pub alert_attempts: Edit<u64>,
    /// Seconds between two gatherings of metrics by the guard; 0: none are gathered.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<u64>")]
    pub metrics_seconds: Edit<u64>,
    /// Directory in which the guard leaves metrics for `node_exporter`.
    #[serde(default, skip_serializing_if = "Edit::is_keep")]
    #[schemars(with = "Option<PathBuf>")]
    pub metrics_directory: Edit<PathBuf>,
}

impl SetNode {
    /// Whether it names a program that root is to run, or a directory that root is to write to: whoever may do that is root.
    pub fn is_of_the_machine(&self) -> bool {
        matches!(self.alert_exec, Edit::Set(_)) || matches!(self.metrics_directory, Edit::Set(_))
    }
}

/// A file of the registry that cannot be used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreFile {
    /// Its name in the registry: `pools.json`, `guests/100.json`.
    pub file: String,
}

/// A storage for cloud-init data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddSnippetStorage {
    /// Add one that every node has, even if a storage of this node alone suffices for now.
    #[serde(default)]
    pub shared: bool,
}

/// Conflicts that the administrator knows of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcknowledgeConflicts {
    /// Their numbers.
    #[serde(default)]
    pub conflicts: BTreeSet<String>,
    /// All conflicts that there are.
    #[serde(default)]
    pub all: bool,
}

/// An address for the guest of a name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Allocate {
    /// VMID, name of an earlier allocation, name or tag in Proxmox VE; if it is none of these, the guest is found by `mac`, and
    /// this becomes its name.
    pub vps_id: String,
    /// Customer or department.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// MAC of the guest's NIC; absent: that of `interface`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// The address; absent: the next free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Prefix>,
    /// What the caller takes for the gateway; checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// What the caller takes for the length of the prefix; checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<u8>,
    /// The pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// 4 or 6, if no address is named; absent: of a pool with both an IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// The NIC; absent: the one with `mac`, else the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<NicId>,
    /// Through which address the guest is reached for the prefix that is named: one of its own, or one of the prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// The group of guests that hold the address in turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<GroupName>,
    /// Give the NIC the MAC that the provider bound to the address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub set_mac: bool,
    /// Whether a guest may be found by `mac` alone, and gets `vps_id` for a name.
    #[serde(default)]
    pub by_mac: bool,
    /// Let the guest's agent use the address at once.
    #[serde(default)]
    pub live: bool,
}

/// An address to be taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deallocate {
    /// The address.
    pub address: Prefix,
    /// The guest that it is taken from; absent: whoever holds it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vps_id: Option<String>,
    /// What the caller takes for the MAC; checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
}

/// An address for a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAddress {
    /// The address or prefix.
    pub address: Prefix,
    /// Gateway, if it is not the pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// What the caller takes for the length of the prefix; checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<u8>,
    /// What it costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_cost_cents: Option<u64>,
    /// The pool; absent: the one that has it already, else the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// The MAC that the provider bound to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// An uplink: without `pool`, the only pool whose bridge has it is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<IfName>,
    /// What is known of it and shall be no longer.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub clear: BTreeSet<Property>,
    /// Whether it is added even if guests lose something by that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub yes: bool,
}

/// What may be known of an address of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Property {
    /// The MAC that the provider bound to it.
    MacAddress,
    /// Its gateway, if it is not the pool's.
    Gateway,
    /// What it costs.
    MonthlyCostCents,
}

/// An address that leaves its pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteAddress {
    /// The address or prefix, as it was created.
    pub address: Prefix,
}

/// An address that is asked about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetAddress {
    /// The address or prefix.
    pub address: Prefix,
}

/// Which addresses are wanted; those that satisfy all that is said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListAddresses {
    /// In this state; absent: in any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<AddressState>,
    /// Of this pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// Held for this customer or department.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// Held by this guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vps_id: Option<String>,
    /// Held by a guest on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// How many at once, 1 to [`PAGE_LIMIT`]; absent: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u16>,
    /// From the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_token: Option<String>,
}

/// No page of addresses is longer.
pub const PAGE_LIMIT: u16 = 1000;

/// Whose past is asked for: an address's or a guest's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// The address or prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Prefix>,
    /// The guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vps_id: Option<String>,
    /// Only who held it at this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Moment>,
}

/// The guest whose protection is asked about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyGuest {
    /// VMID, name of an allocation, name or tag in Proxmox VE.
    pub vps_id: String,
}

/// What a watcher wants to be told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Only of this guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vps_id: Option<String>,
}

impl<T: Serialize> Serialize for Edit<T> {
    /// A key that keeps is left out, by `skip_serializing_if`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Set(value) => serializer.serialize_some(value),
            Self::Keep | Self::Erase => serializer.serialize_none(),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Edit<T> {
    /// `null` erases; a key that is absent keeps, by `#[serde(default)]`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Erase, Self::Set))
    }
}

/// The `id` of a line, as far as there is one: it comes back whatever else is wrong with the line.
pub fn id_of(line: &[u8]) -> Option<Value> {
    #[derive(Deserialize)]
    struct Id {
        id: Option<Value>,
    }
    serde_json::from_slice::<Id>(line).ok()?.id
}

/// A key that what was read does not have, wherever it stands.
fn left_out<'a>(given: &'a Value, read: &Value) -> Option<&'a str> {
    let (given, read) = (given.as_object()?, read.as_object()?);
    let mut named = given.iter().filter(|(_, value)| !value.is_null());
    named.find_map(|(key, value)| read.get(key).map_or(Some(key.as_str()), |read| left_out(value, read)))
}

impl Envelope {
    /// Reads one line. What would be left out, or be read otherwise than it was written, is refused.
    pub fn parse(line: &[u8]) -> Result<Self, Problem> {
        let refused = |sentence: String| {
            let hint = "one JSON object a line: {\"version\":1,\"id\":1,\"op\":\"assign\",\"vmid\":100}";
            Problem::new(code!("request-invalid"), Subject::Command, sentence, hint)
        };
        if line.len() > LIMIT {
            return Err(refused(format!("the request has more bytes than the {LIMIT} that are allowed")));
        }
        let line = std::str::from_utf8(line).map_err(|error| refused(format!("the request is no text: {error}")))?;
        let no_object = |why: String| refused(format!("the request is no JSON object: {why}"));
        let mut map = match serde_json::from_str(line) {
            Ok(Once(Value::Object(map))) => map,
            Ok(_) => return Err(no_object("it is another value".to_owned())),
            Err(error) => return Err(no_object(error.to_string())),
        };
        match map.remove("version") {
            Some(version) if version == VERSION => {}
            Some(version) => {
                return Err(refused(format!(
                    "this release reads requests of version {VERSION}, not of version {version}"
                )));
            }
            None => return Err(refused("the request has no `version`".to_owned())),
        }
        let id = map.remove("id");
        let dry_run = match map.remove("dry_run") {
            None => false,
            Some(Value::Bool(dry_run)) => dry_run,
            Some(other) => return Err(refused(format!("dry_run: {other} is not true or false"))),
        };
        let within = match map.remove("within") {
            None => None,
            Some(Value::String(organization)) => Some(organization),
            Some(other) => return Err(refused(format!("within: {other} is no name of an organization"))),
        };
        let author = match map.remove("author") {
            None => Author::default(),
            Some(given) => {
                let of_author = |error: serde_json::Error| refused(format!("author: {error}"));
                let author = Author::deserialize(&given).map_err(of_author)?;
                let read = serde_json::to_value(&author).map_err(of_author)?;
                if let Some(key) = left_out(&given, &read) {
                    return Err(refused(format!("author: unknown field `{key}`")));
                }
                author
            }
        };
        let request = serde_json::from_value(Value::Object(map)).map_err(|error| refused(error.to_string()))?;
        Ok(Self { id, author, dry_run, within, request })
    }

    /// As a line, without its newline.
    pub fn line(&self) -> Result<String, serde_json::Error> {
        let Self { id, author, dry_run, within, request } = self;
        let (id, author, within) = (id.as_ref(), Some(author), within.as_deref());
        serde_json::to_string(&Line { version: VERSION, id, author, dry_run: *dry_run, within, request })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_request() {
        let line = r#"{"version":1,"id":"a","author":{"why":"ticket 12"},"op":"assign","vmid":100,"pool":"ovh-rbx"}"#;
        let Envelope { id, author, dry_run, request, .. } = Envelope::parse(line.as_bytes()).unwrap();
        assert_eq!((id, author.why.as_deref(), dry_run), (Some("a".into()), Some("ticket 12"), false));
        let Request::Assign(assign) = request else { panic!("{request:?}") };
        assert_eq!((assign.vmid.to_string().as_str(), assign.hookscript, assign.more), ("100", true, false));
        assert_eq!(assign.interfaces, [NicId::FIRST]);
    }

    #[test]
    fn settings_of_the_node_are_requests() {
        for (line, expected) in [
            (
                r#"{"op":"set-node","log_group":null,"uplinks":["eno1"],"alert_attempts":0}"#,
                Request::SetNode(SetNode {
                    log_group: Edit::Erase,
                    uplinks: Edit::Set(["eno1".parse().unwrap()].into()),
                    alert_attempts: Edit::Set(0),
                    ..SetNode::default()
                }),
            ),
            (r#"{"op":"apply"}"#, Request::Apply {}),
            (r#"{"op":"repair"}"#, Request::Repair {}),
            (
                r#"{"op":"restore-file","file":"pools.json"}"#,
                Request::RestoreFile(RestoreFile { file: "pools.json".into() }),
            ),
            (r#"{"op":"convert-registry"}"#, Request::ConvertRegistry {}),
            (
                r#"{"op":"add-snippet-storage","shared":true}"#,
                Request::AddSnippetStorage(AddSnippetStorage { shared: true }),
            ),
            (
                r#"{"op":"acknowledge-conflicts","conflicts":["c1"],"all":false}"#,
                Request::AcknowledgeConflicts(AcknowledgeConflicts { conflicts: ["c1".into()].into(), all: false }),
            ),
        ] {
            let value: Value = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::from_value::<Request>(value.clone()).unwrap(), expected, "{line}");
            assert_eq!(serde_json::to_value(&expected).unwrap(), value, "{line}");
        }
    }

    #[test]
    fn what_is_absent_stays_and_null_erases() {
        let entry = r#"{"address":"203.0.113.7","mac":null,"gateway":"203.0.113.1"}"#;
        let line = format!(r#"{{"version":1,"op":"add-addresses","pool":"a","entries":[{entry}]}}"#);
        let Request::AddAddresses(add) = Envelope::parse(line.as_bytes()).unwrap().request else { panic!() };
        let add = add.entries[0].clone();
        assert_eq!(
            (add.mac, add.gateway, add.monthly_cost_cents),
            (Edit::Erase, Edit::Set("203.0.113.1".parse().unwrap()), Edit::Keep)
        );
    }

    #[test]
    fn a_request_becomes_the_line_that_it_is_read_from() {
        for line in [
            r#"{"version":1,"id":7,"author":{"why":"ticket 12"},"op":"assign","vmid":100,"pool":"ovh-rbx","families":[4]}"#,
            r#"{"version":1,"dry_run":true,"op":"set-pool","pool":"a","gateway4":null,"gateway_mac":"02:00:00:00:00:01"}"#,
            r#"{"version":1,"within":"acme","op":"allocate","vps_id":"shop","address":"203.0.113.7","by_mac":true}"#,
            r#"{"version":1,"op":"create-pool","pool":"a","profile":"ovh-vrack","cool_down":"2h"}"#,
            r#"{"version":1,"op":"list-addresses","state":"cooling","page_size":7}"#,
            r#"{"version":1,"op":"list-keys"}"#,
            r#"{"version":1,"op":"metrics"}"#,
        ] {
            let envelope = Envelope::parse(line.as_bytes()).unwrap();
            let again = envelope.line().unwrap();
            assert_eq!(Envelope::parse(again.as_bytes()).unwrap(), envelope, "{again}");
        }
    }

    #[test]
    fn says_why_it_refuses() {
        for (line, reason) in [
            ("", "is no JSON object"),
            ("[]", "is no JSON object"),
            ("{}", "has no `version`"),
            (r#"{"version":2}"#, "reads requests of version 1, not of version 2"),
            (r#"{"version":"1"}"#, "not of version \"1\""),
            (r#"{"version":1}"#, "missing field `op`"),
            (r#"{"version":1,"op":"destroy"}"#, "unknown variant `destroy`"),
            (r#"{"version":1,"op":"release","vmid":100,"adresses":[]}"#, "unknown field `adresses`"),
            (r#"{"version":1,"op":"release","vmid":7}"#, "7"),
            (r#"{"version":1,"op":"release","vmid":100,"dry_run":1}"#, "dry_run: 1 is not true or false"),
            (r#"{"version":1,"op":"release","vmid":100,"within":1}"#, "within: 1 is no name of an organization"),
            (r#"{"version":1,"op":"release","vmid":100,"author":[1]}"#, "author: "),
            (r#"{"version":1,"op":"list-pools","op":"apply"}"#, "the key `op` is there twice"),
            (r#"{"version":1,"op":"info","author":{"why":"a","why":"b"}}"#, "the key `why` is there twice"),
            (r#"{"version":1,"op":"release","vmid":100,"addresses":["203.0.113.10/24"]}"#, "has host bits set"),
        ] {
            let problem = Envelope::parse(line.as_bytes()).unwrap_err();
            assert!(problem.sentence.contains(reason), "{line} gave {problem}");
            assert_eq!(problem.code.as_str(), "request-invalid");
        }
        let long = format!(r#"{{"version":1,"id":"{}"}}"#, "x".repeat(LIMIT));
        assert!(
            Envelope::parse(long.as_bytes())
                .unwrap_err()
                .sentence
                .contains("more bytes than the 262144 that are allowed")
        );
        let problem = Envelope::parse(b"{\"version\":1,\"op\":\"info\",\"within\":\"caf\xe9\"}").unwrap_err();
        assert!(problem.sentence.contains("the request is no text: invalid utf-8"), "{problem}");
    }

    /// What an operation has no key for is refused, also where it has none at all: `dryrun` would act.
    #[test]
    fn no_operation_takes_a_key_that_it_does_not_know() {
        let schema = serde_json::to_value(schemars::schema_for!(Request)).unwrap();
        let operations: Vec<&str> = schema["oneOf"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["properties"]["op"]["const"].as_str().unwrap())
            .collect();
        assert!(operations.len() > 20, "{operations:?}");
        for op in operations {
            let line = format!(r#"{{"version":1,"op":"{op}","dryrun":true}}"#);
            let problem = Envelope::parse(line.as_bytes()).unwrap_err();
            assert!(problem.sentence.contains("unknown field `dryrun`"), "{op}: {problem}");
        }
        for author in [r#"{"because":"x"}"#, r#"{"who":{"user":"root","name":"x"}}"#] {
            let line = format!(r#"{{"version":1,"op":"info","author":{author}}}"#);
            let problem = Envelope::parse(line.as_bytes()).unwrap_err();
            assert!(problem.sentence.contains("author: unknown field `"), "{problem}");
        }
        let line = br#"{"version":1,"op":"info","author":{"who":{"user":"a","login":null},"command":null,"why":"b"}}"#;
        Envelope::parse(line).unwrap();
    }
}
