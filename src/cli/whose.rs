//! The answers of `who`, by what is asked about.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::audit::Holder;
use crate::model::{Amount, GroupName, IfName, MacAddr, Moment, NicId, NodeName, PoolName, Prefix, Timestamp, Vmid};
use crate::plan::GuestState;

/// An address or a prefix.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct NetAnswer {
    /// What is asked about; addresses without their length.
    pub(super) subject: String,
    pub(super) kind: NetKind,
    /// Absent for a prefix with ranges, which have states of their own.
    pub(super) state: Option<NetState>,
    pub(super) holders: Vec<HeldAddress>,
    /// Why nobody can hold it.
    pub(super) reason: Option<String>,
    /// The pool that it is in.
    pub(super) pool: Option<PoolName>,
    /// The MAC that the provider bound to it.
    pub(super) mac: Option<MacAddr>,
    pub(super) gateway: Option<IpAddr>,
    /// When its cool-down ends.
    pub(super) free_at: Option<Moment>,
    /// Pools that are nearest, if it is in none.
    pub(super) nearest_pools: Option<Vec<NearPool>>,
    /// The node, if it is in no pool and the node itself has it.
    pub(super) node: Option<NodeName>,
    /// Who held it last.
    pub(super) last_holder: Option<LastHolder>,
    /// When that one gave it back.
    pub(super) free_since: Option<Moment>,
    /// The addresses of a prefix, as runs of one state each.
    pub(super) ranges: Option<Vec<NetRange>>,
}

/// What the subject is.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum NetKind {
    Address,
    Prefix,
}

/// State of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum NetState {
    /// A guest holds it.
    Assigned,
    /// Next-free allocation can choose it.
    Free,
    /// It was released a short time ago.
    Cooling,
    /// It is never assigned.
    Reserved,
    /// It is in no pool.
    Outside,
    /// A file that may say more cannot be read.
    Unknown,
}

impl NetState {
    /// The word, as JSON has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Free => "free",
            Self::Cooling => "cooling",
            Self::Reserved => "reserved",
            Self::Outside => "outside",
            Self::Unknown => "unknown",
        }
    }
}

/// An assignment.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct HeldAddress {
    pub(super) vmid: Vmid,
    /// The guest's name in Proxmox VE.
    pub(super) name: Option<String>,
    pub(super) interface: NicId,
    pub(super) address: Prefix,
    pub(super) mac: MacAddr,
    /// Absent if the guest's configuration cannot be found.
    pub(super) port: Option<IfName>,
    pub(super) pool: PoolName,
    pub(super) gateway: Option<IpAddr>,
    /// Through which of its addresses the guest is reached for it.
    pub(super) via: Option<IpAddr>,
    /// The group of guests that hold it in turn.
    pub(super) shared: Option<GroupName>,
    pub(super) organization: Option<String>,
    pub(super) assigned_at: Timestamp,
    pub(super) node: Option<NodeName>,
    pub(super) state: GuestState,
}

/// A pool near an address that is in none.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct NearPool {
    pub(super) pool: PoolName,
    pub(super) entry: Prefix,
    /// How many addresses lie between, plus one; a string, because it can exceed 2^53.
    pub(super) distance: String,
}

/// Who held an address last: by the audit log, or by the registry, which knows less.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum LastHolder {
    Logged(Holder),
    Released(FormerHolder),
}

/// As the registry remembers it until the cool-down ends.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct FormerHolder {
    pub(super) vmid: Vmid,
    pub(super) pool: PoolName,
    pub(super) until: Moment,
}

/// A run of addresses.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct NetRange {
    pub(super) first: IpAddr,
    pub(super) last: IpAddr,
    pub(super) count: Amount,
    pub(super) state: NetState,
    pub(super) pool: PoolName,
    pub(super) vmid: Option<Vmid>,
}

/// A MAC.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct MacAnswer {
    pub(super) subject: MacAddr,
    pub(super) kind: MacKind,
    pub(super) state: MacState,
    pub(super) holders: Vec<HeldAddress>,
    /// Guests whose configuration has it.
    pub(super) guests: Vec<ConfiguredNic>,
    /// Entries of pools to which the provider bound it.
    pub(super) entries: Vec<BoundEntry>,
}

/// What the subject is.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum MacKind {
    Mac,
}

/// Whether a guest, a pool, a router or the node has a MAC.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum MacState {
    Known,
    Unknown,
}

/// A NIC in a guest's configuration.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ConfiguredNic {
    pub(super) vmid: Vmid,
    pub(super) interface: NicId,
    pub(super) node: NodeName,
    pub(super) name: Option<String>,
}

/// An entry of a pool.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct BoundEntry {
    pub(super) pool: PoolName,
    pub(super) address: Prefix,
}

/// A port of a guest.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PortAnswer {
    pub(super) subject: IfName,
    pub(super) kind: PortKind,
    /// Absent if the NIC holds no addresses.
    pub(super) state: Option<GuestState>,
    pub(super) vmid: Vmid,
    pub(super) interface: NicId,
    pub(super) node: Option<NodeName>,
    /// As the guest's configuration has it.
    pub(super) mac: Option<MacAddr>,
    pub(super) bridge: Option<IfName>,
    pub(super) holders: Vec<HeldAddress>,
}

/// What the subject is.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PortKind {
    Port,
}

impl NetAnswer {
    /// Nothing is known yet.
    pub(super) fn about(subject: String, kind: NetKind) -> Self {
        Self {
            subject,
            kind,
            state: None,
            holders: Vec::new(),
            reason: None,
            pool: None,
            mac: None,
            gateway: None,
            free_at: None,
            nearest_pools: None,
            node: None,
            last_holder: None,
            free_since: None,
            ranges: None,
        }
    }
}
