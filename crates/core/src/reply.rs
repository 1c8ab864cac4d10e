//! What is answered to the requests of an API: typed, read by the gateway and by whoever speaks to the socket. What the command
//! line prints besides is of the root program.
//!
//! A reply is one line of JSON with the request's `id` and either `done` or `problem`; the request `watch` is
//! answered by any number of lines with `event`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::audit::Holder;
use crate::model::{
    CoolDown, GroupName, IfName, MacAddr, Moment, NicId, NodeName, PoolName, Prefix, Problem, Timestamp, Vmid,
};
use crate::registry::Totals;
use crate::registry::document::{Elsewhere, Enforce, Probe, UplinkGuard};

/// A line of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reply {
    /// The request's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was carried out; the value is the operation's own answer.
    Done(Value),
    /// It was not, and nothing was changed.
    Problem(Problem),
    /// Something that a watcher waits for.
    Event(Event),
}

/// In which state an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AddressState {
    /// Whoever asks for the next free one can get it.
    Free,
    /// A guest holds it.
    Assigned,
    /// Released a short time ago: only who names it gets it.
    Cooling,
    /// Nobody gets it: a gateway, a network or broadcast address, an address of the node.
    Reserved,
}

/// An address, or a prefix that is given as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Address {
    /// The address or prefix: its name in requests, too.
    pub address: Prefix,
    /// Length of the prefix that the guest configures it with.
    pub prefix_length: u8,
    /// The gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The pool.
    pub pool: PoolName,
    /// Its state.
    pub state: AddressState,
    /// What becomes of frames that are against the rules because of its pool.
    #[serde(default)]
    pub enforce: Enforce,
    /// What it costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_cost_cents: Option<u64>,
    /// The MAC of the holder's NIC, or the one that the provider bound to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// When its cool-down ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_at: Option<Moment>,
    /// The group of guests that hold it in turn. `holder` is one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<GroupName>,
    /// Through which address the guest is reached for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// The holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<AddressHolder>,
}

/// Who holds an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddressHolder {
    /// The guest.
    pub vmid: Vmid,
    /// The name that an API's caller gave to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vps_id: Option<String>,
    /// Its NIC.
    pub interface: NicId,
    /// The node where its configuration is; absent: there is no such guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Customer or department.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// Since when.
    pub assigned_at: Timestamp,
}

/// How far a part of a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// It was done now.
    Done,
    /// It is as it should be.
    Unchanged,
    /// It comes without anybody's help: at the next boot, or by the guard of the guest's node.
    Pending,
    /// Somebody has to do it.
    NotPossible,
}

/// A part of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// Which.
    pub name: StepName,
    /// How far it is.
    pub state: StepState,
    /// Why it is not done, and what helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// The parts of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepName {
    /// The registry has the assignment.
    Registry,
    /// The guest's NIC has the MAC that the provider wants.
    Mac,
    /// The guest's hookscript is ours.
    Hookscript,
    /// The guest finds its addresses by cloud-init.
    CloudInit,
    /// The node of the guest lets its port use the address, and nobody else's.
    Binding,
    /// The guest's agent has the guest use the address at once.
    GuestAgent,
}

/// What came of a change of one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddressChanged {
    /// Whether something is another than before.
    pub changed: bool,
    /// The guest that gets it, or that it is taken from; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmid: Option<Vmid>,
    /// The address, as it is now; absent if it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// The parts of the change.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// What is worth knowing.
    #[serde(default)]
    pub notes: Vec<Problem>,
    /// Whether nothing was done but said what would be. Then what would be done is a step that is `pending`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// A page of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Addresses {
    /// In order.
    pub addresses: Vec<Address>,
    /// What the next page is asked for with; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
    /// What is worth knowing.
    #[serde(default)]
    pub notes: Vec<Problem>,
}

/// A pool in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolSummary {
    /// Its name.
    pub name: PoolName,
    /// The provider's layout.
    pub profile: String,
    /// Bridge of the guests' NICs.
    pub bridge: IfName,
    /// Gateway of IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway4: Option<IpAddr>,
    /// Gateway of IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<IpAddr>,
    /// MAC of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_mac: Option<MacAddr>,
    /// What becomes of frames that are against the rules because of it.
    #[serde(default)]
    pub enforce: Enforce,
    /// What becomes of frames with a MAC that the provider does not know.
    pub uplink_guard: UplinkGuard,
    /// MACs that the provider knows besides.
    #[serde(default)]
    pub allowed_macs: BTreeSet<MacAddr>,
    /// Whether the network is asked who has an address before it is assigned.
    pub probe: Probe,
    /// For how long a released address is not handed out by itself.
    #[serde(default)]
    pub cool_down: CoolDown,
    /// Whether guests without addresses may be routers.
    #[serde(default)]
    pub guest_routers: bool,
    /// Nodes to which the provider routes the addresses; none: every node of the cluster.
    #[serde(default)]
    pub nodes: BTreeSet<NodeName>,
    /// What becomes of guests on other nodes.
    #[serde(default)]
    pub elsewhere: Elsewhere,
    /// How many addresses are in which state, of IPv4 (`ipv4`) and IPv6 (`ipv6`).
    pub totals: BTreeMap<String, Totals>,
}

/// The pools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pools {
    /// By name.
    pub pools: Vec<PoolSummary>,
}

/// What came of a change of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolChanged {
    /// Whether something is another than before.
    pub changed: bool,
    /// The pool; `list-pools` says how it is now.
    pub pool: PoolName,
    /// What stands in the way of its guests.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// What is worth knowing.
    #[serde(default)]
    pub notes: Vec<Problem>,
}

/// What came of the removal of a pool, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolRemoved {
    /// Whether there was such a pool.
    pub changed: bool,
}

/// Who held an address, or what a guest held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// The latest first.
    pub holdings: Vec<Holder>,
    /// What could not be searched.
    #[serde(default)]
    pub notes: Vec<Problem>,
}

/// One NIC of a guest and its protection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// The NIC.
    pub interface: NicId,
    /// Its MAC.
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: Vec<Prefix>,
    /// How it is, in a word that `status` uses, too.
    pub state: String,
}

/// Frames that were dropped at a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counter {
    /// The port.
    pub port: IfName,
    /// Why.
    pub reason: String,
    /// How many.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How a guest is protected, as the node that answers sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verified {
    /// The node that answers.
    pub node: NodeName,
    /// Whether nothing is missing.
    pub secure: bool,
    /// Its NICs.
    pub checks: Vec<Check>,
    /// What was dropped at its ports.
    pub counters: Vec<Counter>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// The node that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Info {
    /// Release of the root part.
    pub version: String,
    /// Its name.
    pub node: NodeName,
    /// Its uplinks.
    pub uplinks: Vec<IfName>,
    /// The pools.
    pub pools: Vec<PoolSummary>,
    /// Whether its filter is as the registry wants it, and its guard runs.
    pub healthy: bool,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// What `pve-public-ip metrics` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Metrics {
    /// Numbers with their names, as Prometheus reads them.
    pub text: String,
}

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// What happened.
    pub event: EventKind,
    /// When it was seen.
    pub time: Moment,
    /// The node that saw it.
    pub node: NodeName,
    /// The address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Prefix>,
    /// The guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmid: Option<Vmid>,
    /// The name that an API's caller gave to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vps_id: Option<String>,
    /// The NIC's MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Customer or department.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// The pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// What was found, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Event {
    /// One of which nothing but its kind is known yet.
    pub fn new(event: EventKind, time: Moment, node: NodeName) -> Self {
        Self {
            event,
            time,
            node,
            address: None,
            vmid: None,
            vps_id: None,
            mac: None,
            organization: None,
            pool: None,
            text: None,
        }
    }
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The first one: from here on nothing is missed.
    Ready,
    /// A guest got an address.
    Assigned,
    /// A guest lost an address.
    Released,
    /// A running guest's port can use an address on this node.
    Protected,
    /// It cannot any more: stopped, moved away, released.
    Unprotected,
    /// A guest's configuration is on another node now.
    Moved,
    /// Somebody else claims what a guest holds.
    Conflict,
    /// The node was not as it should be.
    Drift,
    /// Nothing happened; the watcher can tell that the connection lives.
    Alive,
}

impl EventKind {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Assigned => "assigned",
            Self::Released => "released",
            Self::Protected => "protected",
            Self::Unprotected => "unprotected",
            Self::Moved => "moved",
            Self::Conflict => "conflict",
            Self::Drift => "drift",
            Self::Alive => "alive",
        }
    }
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Role {
    /// Look at what guests hold
    Viewer,
    /// Allocate and release addresses as well
    Gateway,
    /// Everything: pools, addresses, guests
    Superadmin,
}

/// A key of the API, without what it is proved with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// SHA-256 of the secret, in hexadecimal digits.
    pub sha256: String,
    /// What it may do.
    pub role: Role,
    /// The organization whose addresses it sees and touches; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// When it was made.
    pub created_at: Moment,
    /// From when on it counts no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
}

/// The keys that count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Keys {
    /// By name.
    pub keys: Vec<Key>,
}
