//! The registry: pools and assignments, the authority on who owns which address.
//!
//! The rules live here and are pure: every change is checked against the whole registry before anybody writes it:
//! - pools do not overlap;
//! - an address has one holder;
//! - a MAC belongs to one guest NIC, unless two NICs of one guest share an assignment (a bond).

mod allocate;
pub mod document;
pub mod entries;
mod inventory;
pub mod layout;
mod prefixes;
pub mod releases;
pub mod room;
mod rows;
mod search;
pub mod shared;
mod spans;
mod strict;
pub mod wishes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

pub use allocate::capacity;
use document::{
    Assigned, Document, DocumentError, EntryIndex, GuestFile, Interface, Mode, NodeFile, Pool, PoolAddress, PoolsFile,
    Released, ReleasedFile,
};
pub use inventory::{Inventory, Near, Run, Totals};
use prefixes::PrefixMap;
pub use prefixes::{Holders, Holding};
use search::{Next, Search};
use shared::SharedMap;
pub use spans::{Span, State};

use crate::code;
use crate::model::{Code, IfName, MacAddr, Moment, NicId, NodeName, PoolName, Prefix, Subject, Timestamp, Vmid};

/// Everything that the registry's files say, as far as they could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    /// `pools.json`.
    pub pools: PoolsFile,
    /// `guests/<vmid>.json`.
    pub guests: SharedMap<Vmid, GuestFile>,
    /// `released.json`.
    pub released: ReleasedFile,
    /// `nodes/<node>.json` of this node.
    pub node: Option<NodeFile>,
    /// Files that could not be used. One broken guest must not stop the others, so they are kept beside the rest;
    /// a change that needs the whole registry is refused as long as there is one.
    pub broken: Vec<DocumentError>,
    /// Those of them in whose place the last known good copy counts. Never so in a registry that is to be changed.
    pub recalled: BTreeSet<PathBuf>,
    /// If `pools.json` cannot be used and no copy of it is known: the bridges that it seems to name.
    pub lost_pools: Option<BTreeSet<IfName>>,
}

/// A change that the registry's rules forbid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// `pool create` of a name that exists.
    #[error("pool `{0}` exists already")]
    PoolExists(PoolName),
    /// No such pool.
    #[error("there is no pool `{0}`")]
    NoPool(PoolName, Vec<PoolName>),
    /// Two pools, or two entries of one pool, would share addresses.
    #[error("{new} overlaps {old} of pool `{pool}`")]
    Overlap {
        /// What was to be added.
        new: Prefix,
        /// What is there.
        old: Prefix,
        /// Whose it is.
        pool: PoolName,
        /// Both are of one command.
        is_new: bool,
    },
    /// A gateway of the wrong family.
    #[error("gateway {0} is not of the family of {1}")]
    GatewayFamily(IpAddr, Prefix),
    /// The address that is to be a gateway is a guest's.
    #[error("{gateway} cannot be the gateway of pool `{pool}`: guest {vmid} holds it")]
    GatewayHeld {
        /// The gateway.
        gateway: IpAddr,
        /// The pool.
        pool: PoolName,
        /// The holder.
        vmid: Vmid,
    },
    /// A MAC that the provider bound to another address, or to one address with two MACs.
    #[error("MAC {mac} is that of guest {vmid} {nic} already")]
    MacTaken {
        /// The MAC.
        mac: MacAddr,
        /// Its guest.
        vmid: Vmid,
        /// The NIC.
        nic: NicId,
    },
    /// The NIC has no addresses.
    #[error("nothing is assigned to guest {vmid} {nic}")]
    NoInterface {
        /// The guest.
        vmid: Vmid,
        /// Its NIC.
        nic: NicId,
    },
    /// What was asked for does not fit together.
    #[error("guest {vmid}: {reason}")]
    Contradiction {
        /// The guest.
        vmid: Vmid,
        /// Key and value.
        reason: String,
    },
    /// The pool still has holders.
    #[error("{address} of pool `{pool}` is assigned to guest {vmid}")]
    InUse {
        /// The address.
        address: Prefix,
        /// The pool.
        pool: PoolName,
        /// The holder.
        vmid: Vmid,
    },
    /// The pool has no such entry.
    #[error("pool `{pool}` has no entry {address}")]
    NoEntry {
        /// The pool.
        pool: PoolName,
        /// The entry asked for.
        address: Prefix,
    },
    /// The address is in no pool.
    #[error("{0} is in no pool")]
    NotInPool(Prefix),
    /// The address is in another pool than the one named.
    #[error("{address} is in pool `{actual}`, not in `{named}`")]
    WrongPool {
        /// The address.
        address: Prefix,
        /// Where it is.
        actual: PoolName,
        /// What was asked for.
        named: PoolName,
    },
    /// Somebody else holds it.
    #[error("{address} is held by guest {holder}{}", part_of(*address, *held))]
    Taken {
        /// The address asked for.
        address: Prefix,
        /// The holder.
        holder: Vmid,
        /// What the holder holds.
        held: Prefix,
    },
    /// The address means something else in its subnet.
    #[error("{0}")]
    Unusable(String),
    /// Nothing to take an address from.
    #[error("there is no pool yet")]
    NoPools,
    /// No address and no pool named, and more than one pool to take from.
    #[error("say which pool to take an address from: {0}")]
    WhichPool(String),
    /// The NIC is not on the pool's bridge.
    #[error("guest {vmid} {nic} is on {actual}, but {address} of pool `{pool}` needs {needed}")]
    WrongBridge {
        /// The guest.
        vmid: Vmid,
        /// Its NIC.
        nic: NicId,
        /// Where the NIC is.
        actual: String,
        /// The address as people write it.
        address: String,
        /// Its pool.
        pool: PoolName,
        /// The pool's bridge.
        needed: IfName,
    },
    /// Nothing left.
    #[error("pool `{pool}` has no free IPv{family} address")]
    Exhausted {
        /// The pool.
        pool: PoolName,
        /// 4 or 6.
        family: u8,
        /// Whether another family of the pool was served.
        other_family: bool,
    },
    /// Less left than was asked for.
    #[error("pool `{pool}` has only {} for guest {vmid}, but {wanted} were asked for",
        if *free == 1 { format!("1 more IPv{family} address") } else { format!("{free} more IPv{family} addresses") })]
    TooFew {
        /// The pool.
        pool: PoolName,
        /// 4 or 6.
        family: u8,
        /// The guest.
        vmid: Vmid,
        /// How many it could have.
        free: usize,
        /// How many it was to have.
        wanted: usize,
    },
    /// What is left was released not long ago.
    #[error("pool `{pool}` has no free IPv{} address before {}: {} was guest {}'s until {}",
        address.family(), free_at.to_second(), address, released.vmid, released.at.to_second())]
    Cooling {
        /// The pool.
        pool: PoolName,
        /// What is free first.
        address: Prefix,
        /// When and by whom it was given back.
        released: Released,
        /// When it can be handed out.
        free_at: Moment,
        /// Who asks.
        vmid: Vmid,
        /// The MAC that the provider bound to it, if the NIC of the guest has another one.
        other_mac: Option<MacAddr>,
    },
    /// What is left is bound to other MACs by the provider.
    #[error("pool `{pool}` has no free IPv{} address for guest {vmid} {nic} with MAC {actual}: {} is free, but bound to MAC {expected} by the provider",
        address.family(), address)]
    OtherMac {
        /// The pool.
        pool: PoolName,
        /// An address that is free.
        address: Prefix,
        /// The provider's MAC.
        expected: MacAddr,
        /// The guest.
        vmid: Vmid,
        /// Its NIC.
        nic: NicId,
        /// The NIC's MAC.
        actual: MacAddr,
        /// How the NIC is given that MAC; `None`: it holds addresses with its own.
        set_mac: Option<String>,
    },
    /// Nobody has asked the network yet who has these: not for an administrator, but for the caller of [`Registry::assign`].
    #[error("the network was not asked yet who has {}", addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Unasked {
        /// The addresses.
        addresses: Vec<Prefix>,
    },
    /// Somebody claims it.
    #[error("{address} is contested: {sentence}")]
    Contested {
        /// The address asked for.
        address: Prefix,
        /// Who claims what.
        sentence: String,
        /// By which it is acknowledged.
        id: String,
    },
    /// The provider bound the address to another MAC than the guest's.
    #[error("{address} is bound to MAC {expected} by the provider, but guest {vmid} {nic} has {actual}")]
    ProviderMac {
        /// The address.
        address: Prefix,
        /// The provider's MAC.
        expected: MacAddr,
        /// The guest.
        vmid: Vmid,
        /// Its NIC.
        nic: NicId,
        /// The NIC's MAC.
        actual: MacAddr,
        /// A NIC of another guest has the provider's MAC.
        is_foreign: bool,
    },
    /// The MAC that is to be noted for an address is not that of its holder.
    #[error("{address} is assigned to guest {vmid} {nic}, which has MAC {actual} and not {expected}")]
    HolderMac {
        /// The address.
        address: Prefix,
        /// The provider's MAC.
        expected: MacAddr,
        /// The guest.
        vmid: Vmid,
        /// Its NIC.
        nic: NicId,
        /// The NIC's MAC.
        actual: MacAddr,
    },
    /// The profile says that the provider hands out MACs, and the registry does not know which.
    #[error("the MAC that the provider bound to {address} is not known (profile {profile} of pool `{pool}`)")]
    NoProviderMac {
        /// The address.
        address: Prefix,
        /// The pool.
        pool: PoolName,
        /// Its profile.
        profile: String,
    },
    /// The registry has this NIC with another MAC.
    #[error("guest {vmid} {nic} is registered with MAC {registered}, but has {actual}")]
    MacChanged {
        /// The guest.
        vmid: Vmid,
        /// The NIC.
        nic: NicId,
        /// What the registry says.
        registered: MacAddr,
        /// What the guest's configuration says.
        actual: MacAddr,
    },
    /// `show` of a guest that holds nothing.
    #[error("guest {0} has no public address")]
    NothingAssigned(Vmid),
    /// `release` of a part of what the guest holds, or of more than that.
    #[error("guest {vmid} holds {held}, not {address}")]
    NotWhole {
        /// The guest.
        vmid: Vmid,
        /// What was to be released.
        address: Prefix,
        /// What overlaps it.
        held: Prefix,
    },
    /// The filter of a node does not hold so much.
    #[error("all pools together need {needed} elements of the set `{set}`, and the filter of a node has room for {room}{}",
        of_which(pool.as_ref()))]
    NoRoom {
        /// The set.
        set: &'static str,
        /// Elements that would be needed.
        needed: usize,
        /// Elements for which there is room.
        room: usize,
        /// The pool that needs most, and how much.
        pool: Option<(PoolName, usize)>,
    },
    /// A node of the cluster runs a release that refuses the file if this is written.
    #[error("{}, and a release before {since} cannot read `{key}`: it would refuse to start the guests of the file that has it",
        runs(node, release.as_deref()))]
    TooNew {
        /// The name of the key.
        key: &'static str,
        /// The first release that reads it.
        since: &'static str,
        /// The node.
        node: NodeName,
        /// What it runs, if it has noted that.
        release: Option<String>,
    },
    /// A file that has to be read cannot be.
    #[error(transparent)]
    Broken(#[from] DocumentError),
}

fn runs(node: &NodeName, release: Option<&str>) -> String {
    match release {
        Some(release) => format!("node {node} runs release {release}"),
        None => format!("node {node} has guests with addresses and has not noted which release it runs"),
    }
}

/// What else of the holder's there is, if not just the address.
fn part_of(address: Prefix, held: Prefix) -> String {
    if address == held { String::new() } else { format!(", which holds {held}") }
}

fn of_which(pool: Option<&(PoolName, usize)>) -> String {
    pool.map(|(name, needed)| format!(" (pool `{name}`: {needed})")).unwrap_or_default()
}

/// The first step of all.
const NO_POOLS_HINT: &str =
    "create one: `pve-public-ip pool create NAME --profile generic-bridged --bridge vmbr0 PREFIX...`";

impl RuleError {
    /// Its kind.
    pub fn code(&self) -> Code {
        match self {
            Self::PoolExists(_) => code!("pool-exists"),
            Self::NoPool(..) => code!("unknown-pool"),
            Self::Overlap { .. } => code!("overlap"),
            Self::GatewayFamily(..) => code!("gateway-of-other-family"),
            Self::GatewayHeld { .. } => code!("gateway-held"),
            Self::MacTaken { .. } => code!("mac-taken"),
            Self::NoInterface { .. } | Self::NothingAssigned(_) => code!("nothing-assigned"),
            Self::Contradiction { .. } => code!("contradictory-options"),
            Self::InUse { .. } => code!("address-in-use"),
            Self::NoEntry { .. } => code!("unknown-entry"),
            Self::NotInPool(_) => code!("address-in-no-pool"),
            Self::WrongPool { .. } => code!("address-in-other-pool"),
            Self::Taken { .. } => code!("address-taken"),
            Self::Unusable(_) => code!("address-unusable"),
            Self::NoPools => code!("no-pools"),
            Self::WhichPool(_) => code!("pool-not-named"),
            Self::WrongBridge { .. } => code!("wrong-bridge"),
            Self::Exhausted { .. } => code!("pool-exhausted"),
            Self::TooFew { .. } => code!("too-few-addresses"),
            Self::Cooling { .. } => code!("cooling-down"),
            Self::OtherMac { .. } => code!("other-mac-needed"),
            Self::Unasked { .. } => code!("others-were-faster"),
            Self::Contested { .. } => code!("address-contested"),
            Self::ProviderMac { .. } => code!("provider-mac-differs"),
            Self::HolderMac { .. } => code!("holder-mac-differs"),
            Self::NoProviderMac { .. } => code!("provider-mac-unknown"),
            Self::MacChanged { .. } => code!("registered-mac-differs"),
            Self::NotWhole { .. } => code!("assignment-not-whole"),
            Self::NoRoom { .. } => code!("filter-full"),
            Self::TooNew { .. } => code!("release-too-old"),
            Self::Broken(error) => error.code(),
        }
    }

    /// What it is about.
    pub fn subject(&self) -> Subject {
        match self {
            Self::PoolExists(name) | Self::NoPool(name, _) => Subject::Pool(name.clone()),
            Self::Exhausted { pool, .. }
            | Self::TooFew { pool, .. }
            | Self::Cooling { pool, .. }
            | Self::OtherMac { pool, .. }
            | Self::GatewayHeld { pool, .. } => Subject::Pool(pool.clone()),
            Self::Overlap { new: address, .. }
            | Self::GatewayFamily(_, address)
            | Self::InUse { address, .. }
            | Self::NoEntry { address, .. }
            | Self::NotInPool(address)
            | Self::WrongPool { address, .. }
            | Self::Taken { address, .. }
            | Self::Contested { address, .. }
            | Self::ProviderMac { address, .. }
            | Self::HolderMac { address, .. }
            | Self::NoProviderMac { address, .. }
            | Self::NotWhole { address, .. } => Subject::Address(*address),
            Self::MacTaken { vmid, .. }
            | Self::NoInterface { vmid, .. }
            | Self::Contradiction { vmid, .. }
            | Self::WrongBridge { vmid, .. }
            | Self::MacChanged { vmid, .. }
            | Self::NothingAssigned(vmid) => Subject::Guest(*vmid),
            Self::Unusable(_) | Self::NoPools | Self::WhichPool(_) | Self::Unasked { .. } => Subject::Command,
            Self::NoRoom { .. } | Self::TooNew { .. } => Subject::Node,
            Self::Broken(error) => error.subject(),
        }
    }

    /// The administrator's next step.
    #[expect(clippy::too_many_lines, reason = "each error has its own")]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::PoolExists(name) => format!("to add addresses: `pve-public-ip pool add {name} ADDRESS`"),
            Self::Contradiction { vmid, .. } => format!("`pve-public-ip show {vmid}` shows what there is"),
            Self::NoPools => NO_POOLS_HINT.to_owned(),
            Self::NoPool(_, known) if known.is_empty() => NO_POOLS_HINT.to_owned(),
            Self::NoPool(name, known) => {
                let names: Vec<&str> = known.iter().map(PoolName::as_str).collect();
                match names.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name.as_str())) {
                    Some(near) if strsim::damerau_levenshtein(near, name.as_str()) < 3 => {
                        format!("did you mean `{near}`?")
                    }
                    _ => format!("there is: {}", names.join(", ")),
                }
            }
            Self::Overlap { is_new: true, .. } => "name one of the two".to_owned(),
            Self::Overlap { pool, old, .. } => {
                format!(
                    "leave it out, or first take out what is there: `pve-public-ip pool remove {pool} {old}`"
                )
            }
            Self::MacTaken { vmid, nic, .. } => format!(
                "give one of the guests another MAC; if both are NICs of guest {vmid}, name both in one assignment (--net {} --net N)",
                nic.index()
            ),
            Self::GatewayHeld { gateway, pool, .. } => {
                let key = if gateway.is_ipv4() { 4 } else { 6 };
                format!("name the right gateway: `pve-public-ip pool set {pool} --gateway{key} IP`")
            }
            Self::InUse { vmid, address, .. } => format!("first `pve-public-ip release {vmid} {address}`"),
            Self::NoEntry { pool, .. } => format!("`pve-public-ip pool show {pool}` lists its entries"),
            Self::NotInPool(address) => {
                format!(
                    "add it to one: `pve-public-ip pool add NAME {address}`; `pve-public-ip pool list` shows the pools"
                )
            }
            Self::WrongPool { actual, .. } => format!("leave --pool out, or say --pool {actual}"),
            Self::Taken { holder, held, .. } => {
                format!("to move it: `pve-public-ip release {holder} {held}`")
            }
            Self::Unusable(_) => "choose another one, or leave the address out to get the next free one".to_owned(),
            Self::WhichPool(_) => "add --pool NAME, or name the address".to_owned(),
            Self::WrongBridge { vmid, nic, needed, .. } => {
                format!("move {nic} of guest {vmid} to {needed}, or name another NIC with --net")
            }
            Self::Exhausted { pool, family, other_family: true } => {
                let other = if *family == 4 { 6 } else { 4 };
                format!("only IPv{other}: add -{other}; more addresses: `pve-public-ip pool add {pool} PREFIX`")
            }
            Self::TooFew { pool, .. } | Self::Exhausted { pool, .. } => format!("more addresses: `pve-public-ip pool add {pool} PREFIX`"),
            Self::Contested { id, .. } => {
                format!(
                    "to assign it anyway, first `pve-public-ip conflicts ack {id}`; `pve-public-ip conflicts list` says more"
                )
            }
            Self::Cooling { address, vmid, other_mac: Some(mac), .. } => format!(
                "it is bound to MAC {mac}: when no other guest has that, `pve-public-ip assign {vmid} {address} --set-mac`, with the guest \
                 stopped, takes it at once"
            ),
            Self::Cooling { pool, address, vmid, .. } => format!(
                "to assign it anyway, name it: `pve-public-ip assign {vmid} {address}`; not to wait in this pool: `pve-public-ip pool set {pool} --cool-down 0`"
            ),
            Self::OtherMac { vmid, expected, set_mac: Some(options), .. } => format!(
                "with the guest stopped, `pve-public-ip assign {vmid} {options} --set-mac` gives the NIC the MAC {expected}"
            ),
            Self::OtherMac { nic, expected, .. } => {
                format!(
                    "{nic} holds addresses with its MAC: give the guest another NIC with MAC {expected}, and name it with --net"
                )
            }
            Self::Unasked { .. } => "run the command again".to_owned(),
            Self::ProviderMac { is_foreign: true, .. } => {
                "a NIC of another guest has that MAC: assign the address to that guest, or give that NIC another MAC first".to_owned()
            }
            Self::ProviderMac { address, expected, vmid, nic, .. } => {
                let net = nic.net_option();
                let address = address.to_string();
                format!(
                    "with the guest stopped, `pve-public-ip assign {vmid} {address}{net} --set-mac` gives the NIC the MAC {expected}"
                )
            }
            Self::HolderMac { address, vmid, .. } => {
                format!("first `pve-public-ip release {vmid} {address}`; assign it again with --set-mac")
            }
            Self::NoProviderMac { address, pool, .. } => format!(
                "look it up at the provider, then `pve-public-ip pool add {pool} {address} --mac MAC`; a wrong MAC can lock the server"
            ),
            Self::MacChanged { vmid, .. } => {
                format!("set the guest's MAC back, or `pve-public-ip release {vmid}` and assign again with the new one")
            }
            Self::NothingAssigned(_) | Self::NoInterface { .. } => {
                "`pve-public-ip list` shows who holds what".to_owned()
            }
            Self::NotWhole { vmid, held, .. } => {
                format!("an assignment is released whole: `pve-public-ip release {vmid} {held}`")
            }
            Self::NoRoom { .. } => {
                "name only what guests get, such as 10.0.0.0/24: each /24 of IPv4 and each /32 of IPv6 is one element"
                    .to_owned()
            }
            Self::TooNew { node, release: Some(_), .. } => {
                format!("upgrade {node}, there: `apt update && apt install pve-public-ip && pve-public-ip apply`")
            }
            Self::TooNew { node, since, .. } => {
                format!("on {node}: `pve-public-ip apply`, which from release {since} on notes the release there")
            }
            Self::Broken(error) => error.hint.clone(),
            Self::GatewayFamily(_, address) => {
                format!("give an IPv{} gateway, or leave it out to use the pool's", address.family())
            }
        })
    }
}

/// What `assign` asks for.
#[derive(Debug, Clone)]
pub struct AssignRequest {
    /// The guest.
    pub vmid: Vmid,
    /// Its NICs with the MACs that its configuration has.
    pub nics: Vec<(NicId, MacAddr)>,
    /// Addresses asked for; empty: the next free ones.
    pub addresses: Vec<Prefix>,
    /// Pool to take from; needed when no address is named and there are several pools.
    pub pool: Option<PoolName>,
    /// Families wanted when no address is named; empty: every family of the pool.
    pub families: BTreeSet<u8>,
    /// How many addresses of each of these families.
    pub quantity: Quantity,
    /// Customer.
    pub organization: Option<String>,
    /// The name by which a caller of the API knows the guest.
    pub vps_id: Option<String>,
    /// The node's own addresses with their subnets: never handed out.
    pub avoid: Vec<IpNet>,
    /// Addresses that somebody else claims: in which words, and by which number that is acknowledged.
    pub contested: BTreeMap<Prefix, (String, String)>,
    /// Whether the network has to be asked first; `None`: no.
    pub asking: Option<Asking>,
    /// MACs that NICs of other guests are configured with: no address of theirs is chosen.
    pub foreign: BTreeSet<MacAddr>,
    /// Now.
    pub now: Moment,
}

/// How many addresses of a pool and a family a NIC gets when none is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// As many as are missing for it to hold this many of them: asked for again, nothing changes.
    UpTo(usize),
    /// This many besides those that it holds.
    More(usize),
}

impl Default for Quantity {
    fn default() -> Self {
        Self::UpTo(1)
    }
}

/// That the network is asked who has an address before it is assigned. That takes a while, so it is not done under the lock,
/// and the address may be somebody's by the time the lock is taken.
#[derive(Debug, Clone, Default)]
pub struct Asking {
    /// Pools about whose addresses the network is asked.
    pub pools: BTreeSet<PoolName>,
    /// What it was asked about.
    pub asked: BTreeSet<Prefix>,
    /// How many addresses of a family to ask about next.
    pub ahead: usize,
}

impl Asking {
    fn is_due(&self, pool: &PoolName, address: Prefix) -> bool {
        self.pools.contains(pool) && address.single().is_some() && !self.asked.contains(&address)
    }
}

/// What a pool has lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolLoss {
    /// Whether there was such a pool.
    pub existed: bool,
    /// Its entries that were removed.
    pub removed: Vec<Prefix>,
    /// What it did not have, with the pool that has it.
    pub absent: Vec<(Prefix, Option<PoolName>)>,
}

/// What becomes of a value that may be missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Edit<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// It is this from now on.
    Set(T),
    /// There is none from now on.
    Erase,
}

impl<T> Edit<T> {
    /// Whether nothing changes.
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// The value afterwards.
    pub fn of(self, old: Option<T>) -> Option<T> {
        match self {
            Self::Keep => old,
            Self::Set(new) => Some(new),
            Self::Erase => None,
        }
    }
}

/// What becomes of what is known of a pool's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryChange {
    /// The provider's MAC.
    pub mac: Edit<MacAddr>,
    /// A gateway of its own.
    pub gateway: Edit<IpAddr>,
    /// What it costs.
    pub monthly_cost_cents: Edit<u64>,
}

/// A gateway that changed under a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rerouted {
    /// The guest.
    pub vmid: Vmid,
    /// Its NIC.
    pub nic: NicId,
    /// Its address.
    pub address: Prefix,
    /// The gateway before.
    pub before: Option<IpAddr>,
    /// The gateway now.
    pub after: Option<IpAddr>,
}

/// Addresses whose release is remembered; what was released before them is free. A file of a cluster is small.
const REMEMBERED: usize = 5000;

impl Registry {
    /// The first unreadable file, as an error: a rule about the whole registry needs the whole registry.
    fn whole(&self) -> Result<(), RuleError> {
        self.broken.first().map_or(Ok(()), |error| Err(error.clone().into()))
    }

    /// A pool by name.
    pub fn pool(&self, name: &PoolName) -> Result<&Pool, RuleError> {
        let missing = || RuleError::NoPool(name.clone(), self.pools.pools.keys().cloned().collect());
        // A pool may be missing because the file cannot be read.
        let own = format!("pools/{name}.json");
        let is_of_pools = |error: &&DocumentError| error.path.ends_with("pools.json") || error.path.ends_with(&own);
        let broken = || self.broken.iter().find(is_of_pools).cloned();
        self.pools.pools.get(name).ok_or_else(|| broken().map_or_else(missing, RuleError::Broken))
    }

    /// The pool whose entry holds `prefix` whole.
    pub fn pool_of(&self, prefix: Prefix) -> Option<(&PoolName, &Pool)> {
        self.pools.pools.iter().find(|(_, pool)| pool.entry(prefix).is_some())
    }

    /// Whether an assignment may be in a file that cannot be read, so that "free" would be a guess.
    pub fn is_partial(&self) -> bool {
        self.broken.iter().any(|error| !self.recalled.contains(&error.path))
    }

    /// Whether there is a pool whose addresses are routed to their guests.
    pub fn has_routed(&self) -> bool {
        self.pools.pools.values().any(|pool| pool.mode() == Mode::Routed)
    }

    /// Every assignment of the registry.
    pub fn assignments(&self) -> impl Iterator<Item = (Vmid, NicId, &Interface, &Assigned)> {
        self.guests.iter().flat_map(|(vmid, guest)| {
            guest.addresses().map(move |(nic, interface, assigned)| (*vmid, nic, interface, assigned))
        })
    }

    /// Adds a pool.
    pub fn create_pool(&mut self, name: PoolName, pool: Pool) -> Result<(), RuleError> {
        self.whole()?;
        if self.pools.pools.contains_key(&name) {
            return Err(RuleError::PoolExists(name));
        }
        let entries = pool.addresses.clone();
        self.pools.pools.insert(name.clone(), Pool { addresses: Vec::new(), ..pool });
        self.put_entries(&name, entries)
    }

    /// Changes what the addresses of a pool have in common.
    pub fn change_pool<T>(&mut self, name: &PoolName, change: impl FnOnce(&mut Pool) -> T) -> Result<T, RuleError> {
        self.whole()?;
        let known = || self.pools.pools.keys().cloned().collect();
        let missing = RuleError::NoPool(name.clone(), known());
        self.pools.pools.get_mut(name).map(change).ok_or(missing)
    }

    /// Changes what a guest's NIC may do.
    pub fn change_interface<T>(
        &mut self,
        vmid: Vmid,
        nic: NicId,
        change: impl FnOnce(&mut Interface) -> T,
    ) -> Result<T, RuleError> {
        self.whole()?;
        let missing = RuleError::NoInterface { vmid, nic };
        let guest = self.guests.get_mut(&vmid).ok_or(missing.clone())?;
        let changed = change(guest.interfaces.get_mut(&nic).ok_or(missing)?);
        guest.contradiction().map_or(Ok(changed), |reason| Err(RuleError::Contradiction { vmid, reason }))
    }

    /// That no guest holds an address which has become a gateway of a pool.
    pub fn check_gateways(&self, name: &PoolName, before: Option<&Pool>) -> Result<(), RuleError> {
        let known: BTreeSet<IpAddr> = before.into_iter().flat_map(Pool::gateways).collect();
        let new: BTreeSet<IpAddr> = self.pool(name)?.gateways().filter(|gateway| !known.contains(gateway)).collect();
        let is_new = |address: Prefix| address.single().filter(|address| new.contains(address));
        let held = self.assignments().find_map(|(vmid, .., held)| Some((is_new(held.address)?, vmid)));
        held.map_or(Ok(()), |(gateway, vmid)| Err(RuleError::GatewayHeld { gateway, pool: name.clone(), vmid }))
    }

    /// Gives what is assigned the gateway that its pool has now, where that changed. `before` is the pool as it was: an
    /// assignment that had another gateway than that was given it by hand, and keeps it. One that has none gets one.
    pub fn follow_gateways(&mut self, name: &PoolName, before: &Pool) -> Vec<Rerouted> {
        let Some(pool) = self.pools.pools.get(name) else { return Vec::new() };
        let (old, new) = (EntryIndex::new(before), EntryIndex::new(pool));
        let mut rerouted = Vec::new();
        let has_any = |guest: &GuestFile| guest.addresses().any(|(.., assigned)| assigned.pool == *name);
        let concerned: Vec<Vmid> =
            self.guests.iter().filter(|(_, guest)| has_any(guest)).map(|(vmid, _)| *vmid).collect();
        for vmid in &concerned {
            let Some(guest) = self.guests.get_mut(vmid) else { continue };
            for (nic, interface) in &mut guest.interfaces {
                for assigned in interface.addresses.iter_mut().filter(|assigned| assigned.pool == *name) {
                    let (was, after) = (old.gateway(assigned.address), new.gateway(assigned.address));
                    let is_ours = assigned.gateway == was || assigned.gateway.is_none();
                    if is_ours && was != after && assigned.gateway != after {
                        let (vmid, nic, address, before) = (*vmid, *nic, assigned.address, assigned.gateway);
                        rerouted.push(Rerouted { vmid, nic, address, before, after });
                        assigned.gateway = after;
                    }
                }
            }
        }
        rerouted
    }

    /// Removes entries of a pool, or the pool if none is named. What is assigned stays. What the pool does not have is removed
    /// already; but a part of an entry, or more than one, is not.
    pub fn remove_from_pool(&mut self, name: &PoolName, addresses: &[Prefix]) -> Result<PoolLoss, RuleError> {
        self.whole()?;
        let mut loss = PoolLoss { existed: self.pools.pools.contains_key(name), ..PoolLoss::default() };
        for address in addresses {
            let overlapping = |pool: &Pool| {
                let overlaps = |entry: &&PoolAddress| entry.address.overlaps(*address);
                pool.addresses.iter().find(overlaps).map(|entry| entry.address)
            };
            match self.pools.pools.get(name).and_then(overlapping) {
                Some(entry) if entry == *address => loss.removed.push(*address),
                Some(_) => return Err(RuleError::NoEntry { pool: name.clone(), address: *address }),
                None => {
                    let other = self.pools.pools.iter().find(|(_, pool)| overlapping(pool).is_some());
                    loss.absent.push((*address, other.map(|(name, _)| name.clone())));
                }
            }
        }
        let leaves = |prefix: Prefix| addresses.is_empty() || addresses.iter().any(|entry| entry.contains(prefix));
        let holder = self.assignments().find(|(.., assigned)| assigned.pool == *name && leaves(assigned.address));
        if let Some((vmid, .., assigned)) = holder {
            return Err(RuleError::InUse { address: assigned.address, pool: name.clone(), vmid });
        }
        if addresses.is_empty() {
            self.pools.pools.remove(name);
        } else if let Some(pool) = self.pools.pools.get_mut(name) {
            pool.addresses.retain(|entry| !addresses.contains(&entry.address));
        }
        Ok(loss)
    }

    /// Gives addresses to a guest; returns those that it did not hold before.
    pub fn assign(&mut self, request: &AssignRequest) -> Result<Vec<Prefix>, RuleError> {
        self.whole()?;
        self.check_macs(request)?;
        let wanted = if request.addresses.is_empty() { self.choose(request)? } else { request.addresses.clone() };
        let is_held = |guest: &GuestFile, address| {
            let on = |nic: &NicId| guest.addresses().any(|(id, _, held)| id == *nic && held.address == address);
            request.nics.iter().all(|(nic, _)| on(nic))
        };
        let withheld: BTreeMap<IpAddr, String> = self.withheld(&request.avoid).into_iter().rev().collect();
        let (mut new, mut unasked) = (Vec::new(), Vec::new());
        for address in wanted {
            let (pool_name, pool) = self.pool_of(address).ok_or(RuleError::NotInPool(address))?;
            if let Some(named) = request.pool.as_ref().filter(|named| *named != pool_name) {
                let (actual, named) = (pool_name.clone(), named.clone());
                return Err(RuleError::WrongPool { address, actual, named });
            }
            if self.guests.get(&request.vmid).is_some_and(|guest| is_held(guest, address)) {
                // It has been through all of this, and to ask for it again is no change.
                self.rename(request, address);
                continue;
            }
            allocate::check_usable(pool_name, pool, address).map_err(RuleError::Unusable)?;
            if let Some((taken, what)) = address.single().and_then(|taken| Some((taken, withheld.get(&taken)?))) {
                return Err(RuleError::Unusable(format!("{taken} is {what}")));
            }
            let is_due = request.asking.as_ref().is_some_and(|asking| asking.is_due(pool_name, address));
            if !is_due {
                // What is known of an address says nothing before it is asked for again.
                self.check_contested(request, address)?;
            }
            // Whose MAC an address needs does not matter to whom cannot have it.
            self.check_free(request, address)?;
            self.check_provider_mac(request, address, pool_name, pool)?;
            let assigned = Assigned {
                address,
                pool: pool_name.clone(),
                gateway: pool.gateway(address),
                organization: request.organization.clone(),
                vps_id: request.vps_id.clone(),
                assigned_at: Timestamp(request.now.whole_second()),
            };
            if self.hold(request, &assigned) {
                unasked.extend(is_due.then_some(address));
                new.push(address);
            }
        }
        if unasked.is_empty() { Ok(new) } else { Err(RuleError::Unasked { addresses: unasked }) }
    }

    /// Notes another customer or another name for an address that the guest holds, if one is named.
    fn rename(&mut self, request: &AssignRequest, address: Prefix) {
        if request.organization.is_none() && request.vps_id.is_none() {
            return;
        }
        let Some(guest) = self.guests.get_mut(&request.vmid) else { return };
        for assigned in guest.interfaces.values_mut().flat_map(|interface| &mut interface.addresses) {
            if assigned.address == address {
                assigned.organization = request.organization.clone().or(assigned.organization.take());
                assigned.vps_id = request.vps_id.clone().or(assigned.vps_id.take());
            }
        }
    }

    /// Nobody gets what somebody else claims, unless he holds it already.
    fn check_contested(&self, request: &AssignRequest, address: Prefix) -> Result<(), RuleError> {
        let holds = |guest: &GuestFile| guest.addresses().any(|(.., assigned)| assigned.address == address);
        if self.guests.get(&request.vmid).is_some_and(holds) {
            return Ok(());
        }
        match request.contested.iter().find(|(contested, _)| contested.overlaps(address)) {
            Some((_, (sentence, id))) => {
                let (sentence, id) = (sentence.clone(), id.clone());
                Err(RuleError::Contested { address, sentence, id })
            }
            None => Ok(()),
        }
    }

    /// Addresses that no guest gets, with what they are: gateways, what the node has itself, and what means its subnets.
    pub fn withheld(&self, own: &[IpNet]) -> Vec<(IpAddr, String)> {
        let mut withheld: Vec<(IpAddr, String)> =
            own.iter().map(|net| (net.addr(), "an address of this node".to_owned())).collect();
        for net in own.iter().filter(|net| net.max_prefix_len() - net.prefix_len() >= 2) {
            let of = |what: &str| format!("{what} address of {}, in which this node is", net.trunc());
            match net {
                IpNet::V4(_) => {
                    withheld.push((net.network(), of("the network")));
                    withheld.push((net.broadcast(), of("the broadcast")));
                }
                IpNet::V6(_) => withheld.push((net.network(), of("the subnet-router anycast"))),
            }
        }
        for (name, pool) in &self.pools.pools {
            withheld.extend(pool.gateways().map(|gateway| (gateway, format!("the gateway of pool `{name}`"))));
        }
        withheld
    }

    /// Nobody else has it.
    fn check_free(&self, request: &AssignRequest, address: Prefix) -> Result<(), RuleError> {
        for (holder, nic, _, held) in self.assignments() {
            let own =
                holder == request.vmid && held.address == address && request.nics.iter().any(|(own, _)| *own == nic);
            if !own && held.address.overlaps(address) {
                return Err(RuleError::Taken { address, holder, held: held.address });
            }
        }
        Ok(())
    }

    /// The MAC must be the one that the provider bound to the address, if the provider does that.
    fn check_provider_mac(
        &self,
        request: &AssignRequest,
        address: Prefix,
        name: &PoolName,
        pool: &Pool,
    ) -> Result<(), RuleError> {
        match pool.entry(address).and_then(|entry| entry.mac) {
            Some(expected) => match request.nics.iter().find(|(_, mac)| *mac != expected) {
                Some((nic, actual)) => {
                    let (vmid, nic, actual) = (request.vmid, *nic, *actual);
                    let is_foreign =
                        request.foreign.contains(&expected) || self.registered_macs(vmid).any(|mac| mac == expected);
                    Err(RuleError::ProviderMac { address, expected, vmid, nic, actual, is_foreign })
                }
                None => Ok(()),
            },
            None if pool.provider_mac() => {
                let (pool, profile) = (name.clone(), pool.profile_name().to_owned());
                Err(RuleError::NoProviderMac { address, pool, profile })
            }
            None => Ok(()),
        }
    }

    /// Puts one address on the NICs of the request; says whether that is news. Nobody else has it.
    fn hold(&mut self, request: &AssignRequest, assigned: &Assigned) -> bool {
        let address = assigned.address;
        let guest = self.guests.get_or_insert_with(request.vmid, || GuestFile::new(request.vmid));
        let mut news = false;
        for (nic, mac) in &request.nics {
            let interface = guest.interfaces.entry(*nic).or_insert_with(|| Interface {
                mac: *mac,
                dhcp: None,
                trunk: BTreeSet::new(),
                any_link_local: false,
                any_destination: false,
                router_advertisements: None,
                link_local: BTreeSet::new(),
                addresses: Vec::new(),
            });
            if interface.addresses.iter().all(|held| held.address != address) {
                interface.addresses.push(assigned.clone());
                interface.addresses.sort_by_key(|held| (held.address.family(), held.address));
                news = true;
            }
        }
        news
    }

    /// The pool that is meant, if no address is named.
    fn meant(&self, request: &AssignRequest) -> Result<(&PoolName, &Pool), RuleError> {
        let only = (self.pools.pools.len() == 1).then(|| self.pools.pools.keys().next()).flatten();
        let Some(name) = request.pool.as_ref().or(only) else {
            let known = self.pools.pools.keys().cloned().collect::<Vec<_>>();
            let names = known.iter().map(PoolName::as_str).collect::<Vec<_>>().join(", ");
            return Err(if known.is_empty() { RuleError::NoPools } else { RuleError::WhichPool(names) });
        };
        self.pool(name)?;
        let missing = || RuleError::NoPool(name.clone(), Vec::new());
        self.pools.pools.get_key_value(name).ok_or_else(missing)
    }

    /// What the NICs hold of the pool that is meant, and its lowest free addresses of each family as far as they lack some.
    fn choose(&self, request: &AssignRequest) -> Result<Vec<Prefix>, RuleError> {
        let (name, pool) = self.meant(request)?;
        let search = Search::new(self, request, name, pool);
        let families = if request.families.is_empty() { search.present.clone() } else { request.families.clone() };
        if families.is_empty() {
            return Err(search.exhausted(4));
        }
        let mac = request.nics.first().map(|(_, mac)| *mac);
        let (mut chosen, mut unasked) = (Vec::new(), Vec::new());
        for family in families {
            // Of a bond each NIC holds what one of them holds.
            let held = search.held(family);
            let missing = search.missing(held.len());
            chosen.extend(held);
            if missing == 0 {
                continue;
            }
            let entries = search.fitting(mac);
            match search.next(&entries, family, missing)? {
                Next::Take(addresses) => chosen.extend(addresses),
                Next::Ask(addresses) => unasked.extend(addresses),
            }
        }
        if unasked.is_empty() { Ok(chosen) } else { Err(RuleError::Unasked { addresses: unasked }) }
    }

    /// The MAC that the provider bound to the next free addresses, and that the NIC has or could be given: its own, else
    /// one that no other guest has.
    pub fn choose_mac(&self, request: &AssignRequest) -> Result<MacAddr, RuleError> {
        self.whole()?;
        let (name, pool) = self.meant(request)?;
        let search = Search::new(self, request, name, pool);
        let families = if request.families.is_empty() { search.present.clone() } else { request.families.clone() };
        let own = request.nics.first().map(|(_, mac)| *mac);
        let foreign: BTreeSet<MacAddr> =
            self.registered_macs(request.vmid).chain(request.foreign.iter().copied()).collect();
        let mut macs: Vec<MacAddr> = pool.addresses.iter().filter_map(|entry| entry.mac).collect();
        let is_fixed = request.nics.iter().any(|(nic, _)| self.has_interface(request.vmid, *nic));
        macs.retain(|mac| !foreign.contains(mac) && (!is_fixed || Some(*mac) == own));
        macs.sort_by_key(|mac| (Some(*mac) != own, search.first_bound(*mac), *mac));
        macs.dedup();
        let has_all = |mac: &MacAddr| {
            let entries = search.fitting(Some(*mac));
            let has_enough = |family: u8| {
                let missing = search.missing(search.held(family).len());
                search.free(&entries, family).take(missing).count() == missing
            };
            families.iter().all(|family| has_enough(*family))
        };
        // With nothing missing the NIC needs no other MAC than it has, whether an entry names it or not.
        if let Some(own) = own.filter(|_| families.iter().all(|family| search.missing(search.held(*family).len()) == 0))
        {
            return Ok(own);
        }
        let lacks = |family: &&u8| search.missing(search.held(**family).len()) > 0;
        let refused = || families.iter().filter(lacks).map(|family| search.refusal(&[], *family)).next();
        macs.into_iter().find(has_all).ok_or_else(|| refused().unwrap_or_else(|| search.exhausted(4)))
    }

    /// Whether a NIC holds addresses.
    fn has_interface(&self, vmid: Vmid, nic: NicId) -> bool {
        let interface = self.guests.get(&vmid).and_then(|guest| guest.interfaces.get(&nic));
        interface.is_some_and(|interface| !interface.addresses.is_empty())
    }

    /// MACs of NICs of other guests that hold addresses.
    fn registered_macs(&self, vmid: Vmid) -> impl Iterator<Item = MacAddr> {
        let others = self.guests.iter().filter(move |(other, _)| **other != vmid);
        let interfaces = others.flat_map(|(_, guest)| guest.interfaces.values());
        interfaces.filter(|interface| !interface.addresses.is_empty()).map(|interface| interface.mac)
    }

    /// What cools down, and is not held again.
    pub fn all_cooling(&self, holders: &Holders<'_>, now: Moment) -> Vec<(Prefix, &Released, Moment)> {
        let warm = self.released.addresses.iter().filter_map(|known| self.warm(known, now));
        warm.filter(|(prefix, ..)| !holders.hold(*prefix)).collect()
    }

    /// The addresses of each entry of a pool, as spans of addresses in the same state.
    pub fn spans<'a>(&'a self, pool: &'a Pool, own: &[IpNet], now: Moment) -> Vec<(&'a PoolAddress, Vec<Span<'a>>)> {
        let inventory = Inventory::of(self, own, now);
        pool.addresses.iter().map(|entry| (entry, inventory.spans(pool, entry))).collect()
    }

    /// What was released so short a time ago that it is not handed out to this guest by itself, and when it is again.
    fn cooling(&self, vmid: Vmid, now: Moment) -> impl Iterator<Item = (Prefix, &Released, Moment)> {
        let others = self.released.addresses.iter().filter(move |(_, released)| released.vmid != vmid);
        others.filter_map(move |known| self.warm(known, now))
    }

    /// An address that was released, with the time at which it is free, if that is still to come.
    fn warm<'a>(
        &self,
        (prefix, released): (&Prefix, &'a Released),
        now: Moment,
    ) -> Option<(Prefix, &'a Released, Moment)> {
        let pool = self.pools.pools.get(&released.pool)?;
        let free_at = released.at.after(pool.cool_down().0);
        (free_at > now).then_some((*prefix, released, free_at))
    }

    /// Who else had an address that this guest takes, or a part of it, not long ago, and when it would have been free.
    pub fn cooling_of(&self, address: Prefix, vmid: Vmid, now: Moment) -> Option<(&Released, Moment)> {
        let found = self.cooling(vmid, now).find(|(prefix, ..)| prefix.overlaps(address));
        found.map(|(_, released, free_at)| (released, free_at))
    }

    /// A NIC keeps the MAC with which it was registered, and no other NIC may have it.
    fn check_macs(&self, request: &AssignRequest) -> Result<(), RuleError> {
        for (nic, mac) in &request.nics {
            for (vmid, guest) in &self.guests {
                for (other, interface) in &guest.interfaces {
                    let same_nic = *vmid == request.vmid && other == nic;
                    if same_nic && interface.mac != *mac && !interface.addresses.is_empty() {
                        let (vmid, nic, registered) = (*vmid, *nic, interface.mac);
                        return Err(RuleError::MacChanged { vmid, nic, registered, actual: *mac });
                    }
                    let named = *vmid == request.vmid && request.nics.iter().any(|(name, _)| name == other);
                    if !same_nic && !named && interface.mac == *mac && !interface.addresses.is_empty() {
                        return Err(RuleError::MacTaken { mac: *mac, vmid: *vmid, nic: *other });
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes addresses from a guest, all if none is named; returns those that it held.
    ///
    /// What a guest does not hold need not be taken from it, so that a release may be done again.
    pub fn release(&mut self, vmid: Vmid, addresses: &[Prefix], now: Moment) -> Result<Vec<Prefix>, RuleError> {
        let Some(guest) = self.guests.get_mut(&vmid) else {
            // With a broken file nobody knows: it may be that of this very guest.
            self.whole()?;
            return Ok(Vec::new());
        };
        let held: BTreeMap<Prefix, PoolName> =
            guest.addresses().map(|(.., assigned)| (assigned.address, assigned.pool.clone())).collect();
        for address in addresses.iter().filter(|address| !held.contains_key(address)) {
            if let Some(part) = held.keys().find(|held| held.overlaps(*address)) {
                return Err(RuleError::NotWhole { vmid, address: *address, held: *part });
            }
        }
        let goes = |prefix: &Prefix| addresses.is_empty() || addresses.contains(prefix);
        for interface in guest.interfaces.values_mut() {
            interface.addresses.retain(|assigned| !goes(&assigned.address));
        }
        guest.interfaces.retain(|_, interface| !interface.addresses.is_empty());
        let gone: BTreeMap<Prefix, PoolName> = held.into_iter().filter(|(prefix, _)| goes(prefix)).collect();
        if gone.is_empty() {
            return Ok(Vec::new());
        }
        let released = |(prefix, pool)| (prefix, Released { at: now, vmid, pool });
        self.remember(gone.clone().into_iter().map(released), now);
        Ok(gone.into_keys().collect())
    }

    /// Notes what was released, and forgets what has cooled down.
    fn remember(&mut self, gone: impl Iterator<Item = (Prefix, Released)>, now: Moment) {
        let mut known = std::mem::take(&mut self.released.addresses);
        known.extend(gone);
        known.retain(|prefix, released| self.warm((prefix, released), now).is_some());
        let mut kept: Vec<(Prefix, Released)> = known.into_iter().collect();
        kept.sort_by_key(|(_, released)| std::cmp::Reverse(released.at));
        kept.truncate(REMEMBERED);
        self.released.addresses = kept.into_iter().collect();
    }

    /// Contradictions between files that each are fine, as sentences with the guests that they concern.
    ///
    /// Only hand edits and restored backups get there; `assign` cannot.
    pub fn conflicts(&self) -> Vec<(BTreeSet<Vmid>, String)> {
        conflicts_among(&Holders::of(self))
    }

    /// Those of [`Self::conflicts`] in which one of these guests has a part. For a few of many guests the others are not
    /// sorted, but only looked through.
    pub fn conflicts_of(&self, guests: &BTreeSet<Vmid>) -> Vec<(BTreeSet<Vmid>, String)> {
        let (mut prefixes, mut macs) = (PrefixMap::<()>::default(), BTreeSet::new());
        for guest in guests.iter().filter_map(|vmid| self.guests.get(vmid)) {
            for (_, interface, assigned) in guest.addresses() {
                prefixes.entry(assigned.address);
                macs.insert(interface.mac);
            }
        }
        let meets = |guest: &GuestFile| {
            guest.addresses().any(|(_, interface, assigned)| {
                macs.contains(&interface.mac) || prefixes.overlapping(assigned.address).next().is_some()
            })
        };
        let mut near = Self::default();
        for (vmid, _) in self.guests.iter().filter(|(vmid, guest)| guests.contains(vmid) || meets(guest)) {
            if let Some(guest) = self.guests.share(vmid) {
                near.guests.insert_shared(*vmid, guest);
            }
        }
        let mut conflicts = near.conflicts();
        conflicts.retain(|(those, _)| !those.is_disjoint(guests));
        conflicts
    }
}

/// As [`Registry::conflicts`], for whoever has sorted the registry already.
pub fn conflicts_among(holders: &Holders<'_>) -> Vec<(BTreeSet<Vmid>, String)> {
    let mut found = Vec::new();
    // Prefixes are nested or disjoint: a stack of the open ones is enough to find every overlap.
    let mut open: Vec<(Prefix, Vmid)> = Vec::new();
    for (vmid, _, _, assigned) in holders.sorted() {
        let address = assigned.address;
        open.retain(|outer| outer.0.contains(address));
        for outer in open.iter().filter(|outer| outer.1 != vmid) {
            let sentence = if outer.0 == address {
                format!("{address} is assigned to guest {} and to guest {vmid}", outer.1)
            } else {
                format!("{address} of guest {vmid} lies in {} of guest {}", outer.0, outer.1)
            };
            found.push((BTreeSet::from([outer.1, vmid]), sentence));
        }
        open.push((address, vmid));
    }
    let mut known: Option<Holding<'_>> = None;
    let mut shared = Vec::new();
    for nic in holders.nics() {
        match known {
            Some(first) if first.2.mac == nic.2.mac && first.0 != nic.0 => shared.push((first, nic)),
            Some(first) if first.2.mac == nic.2.mac => {}
            _ => known = Some(nic),
        }
    }
    shared.sort_by_key(|(_, (vmid, nic, ..))| (*vmid, *nic));
    for ((other, other_nic, ..), (vmid, nic, interface, _)) in shared {
        let sentence = format!("MAC {} is that of guest {other} {other_nic} and of guest {vmid} {nic}", interface.mac);
        found.push((BTreeSet::from([other, vmid]), sentence));
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use document::Profile;

    fn registry() -> Registry {
        let mut registry = Registry::default();
        let mut create = |name: &str, profile, gateway4: Option<&str>, addresses: &[&str]| {
            let entries = addresses.iter().map(|text| PoolAddress::new(text.parse().unwrap()));
            let mut pool = Pool::new(profile, "vmbr0".parse().unwrap(), entries.collect());
            pool.gateway4 = gateway4.map(|text| text.parse().unwrap());
            registry.create_pool(name.parse().unwrap(), pool).unwrap();
        };
        let addresses = ["203.0.113.0/29", "2001:db8::/64"];
        create("lan", Profile::GenericBridged, Some("203.0.113.1"), &addresses);
        create("ovh", Profile::OvhBridged, None, &["198.51.100.7/32"]);
        registry
    }

    fn request(vmid: &str, mac: &str, addresses: &[&str]) -> AssignRequest {
        AssignRequest {
            vmid: vmid.parse().unwrap(),
            nics: vec![(NicId::FIRST, mac.parse().unwrap())],
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            pool: None,
            families: BTreeSet::new(),
            quantity: Quantity::default(),
            organization: None,
            vps_id: None,
            avoid: Vec::new(),
            contested: BTreeMap::new(),
            asking: None,
            foreign: BTreeSet::new(),
            now: at("10:00"),
        }
    }

    fn at(time: &str) -> Moment {
        format!("2026-11-22T{time}:00Z").parse().unwrap()
    }

    const A: &str = "02:00:00:00:00:0a";
    const B: &str = "02:00:00:00:00:0b";

    #[test]
    fn an_address_has_one_holder() {
        let mut registry = registry();
        let first = request("100", A, &["203.0.113.2"]);
        assert_eq!(registry.assign(&first).unwrap().len(), 1);
        assert_eq!(registry.assign(&first).unwrap().len(), 0, "again is fine and no news");
        let error = registry.assign(&request("101", B, &["203.0.113.2"])).unwrap_err();
        assert_eq!(error.to_string(), "203.0.113.2 is held by guest 100");
        assert_eq!(error.hint().unwrap(), "to move it: `pve-public-ip release 100 203.0.113.2`");
        let error = registry.assign(&request("101", B, &["203.0.113.0/29"])).unwrap_err();
        assert!(error.to_string().contains("is held by guest 100"), "{error}");
        registry.release("100".parse().unwrap(), &[], at("11:00")).unwrap();
        assert_eq!(registry.assign(&request("101", B, &["203.0.113.2"])).unwrap().len(), 1);
    }

    #[test]
    fn a_mac_belongs_to_one_nic_unless_two_share_an_assignment() {
        let mut registry = registry();
        registry.assign(&request("100", A, &["203.0.113.2"])).unwrap();
        let error = registry.assign(&request("101", A, &["203.0.113.3"])).unwrap_err();
        assert_eq!(error.to_string(), "MAC 02:00:00:00:00:0a is that of guest 100 net0 already");
        let error = registry.assign(&request("100", B, &["203.0.113.3"])).unwrap_err();
        assert!(error.to_string().contains("is registered with MAC 02:00:00:00:00:0a, but has 02:00:00:00:00:0b"));
        let mut bond = request("102", B, &["203.0.113.3"]);
        bond.nics.push(("net1".parse().unwrap(), B.parse().unwrap()));
        registry.assign(&bond).unwrap();
        assert_eq!(registry.guests[&bond.vmid].interfaces.len(), 2);
        assert!(registry.conflicts().is_empty());
    }

    #[test]
    fn what_is_contested_is_not_handed_out() {
        let mut registry = registry();
        let sentence = "somebody claims it".to_owned();
        let claimed = |addresses: &[&str]| -> BTreeMap<Prefix, (String, String)> {
            addresses.iter().map(|text| (text.parse().unwrap(), (sentence.clone(), "1a2b3c4d".to_owned()))).collect()
        };
        let next = |contested| {
            let pool = Some("lan".parse().unwrap());
            AssignRequest { pool, families: BTreeSet::from([4]), contested, ..request("100", A, &[]) }
        };
        let one = claimed(&["203.0.113.2", "203.0.113.4"]);
        assert_eq!(registry.clone().assign(&next(one.clone())).unwrap()[0].to_string(), "203.0.113.3");
        let named = AssignRequest { contested: one.clone(), ..request("100", A, &["203.0.113.2"]) };
        let error = registry.assign(&named).unwrap_err();
        assert_eq!(error.to_string(), "203.0.113.2 is contested: somebody claims it");
        let hint = error.hint().unwrap();
        assert!(hint.starts_with("to assign it anyway, first `pve-public-ip conflicts ack 1a2b3c4d`"), "{hint}");
        let all = claimed(&["203.0.113.2", "203.0.113.3", "203.0.113.4", "203.0.113.5", "203.0.113.6"]);
        let error = registry.assign(&next(all)).unwrap_err();
        assert_eq!(error.to_string(), "203.0.113.2 is contested: somebody claims it", "better than that none is left");
        registry.assign(&request("100", A, &["203.0.113.2"])).unwrap();
        assert_eq!(registry.assign(&named).unwrap(), [], "its own");
    }

    #[test]
    fn what_was_released_cools_down() {
        let mut registry = registry();
        let lan: PoolName = "lan".parse().unwrap();
        let next = |vmid, mac, now| {
            let pool = Some("lan".parse().unwrap());
            AssignRequest { pool, families: BTreeSet::from([4]), now, ..request(vmid, mac, &[]) }
        };
        let given = |found: Result<Vec<Prefix>, RuleError>| found.unwrap()[0].to_string();
        let vmid = "100".parse().unwrap();
        assert_eq!(given(registry.assign(&next("100", A, at("10:00")))), "203.0.113.2");
        registry.release(vmid, &[], at("10:00")).unwrap();
        assert_eq!(given(registry.assign(&next("101", B, at("10:59")))), "203.0.113.3");
        assert_eq!(given(registry.clone().assign(&next("100", A, at("10:01")))), "203.0.113.2", "its own");
        assert_eq!(given(registry.clone().assign(&next("102", A, at("11:00")))), "203.0.113.2");
        let named = request("102", A, &["203.0.113.2"]);
        let (released, free_at) = registry.cooling_of(named.addresses[0], named.vmid, at("10:30")).unwrap();
        assert_eq!((released.vmid, free_at), (vmid, at("11:00")));
        assert_eq!(registry.cooling_of(named.addresses[0], vmid, at("10:30")), None);
        registry.clone().assign(&named).unwrap();

        // The rest is held: what is free first is named.
        let rest = ["203.0.113.4", "203.0.113.5", "203.0.113.6"];
        registry.assign(&request("103", "02:00:00:00:00:0c", &rest)).unwrap();
        registry.release("103".parse().unwrap(), &["203.0.113.5".parse().unwrap()], at("10:20")).unwrap();
        let error = registry.assign(&next("104", A, at("10:30"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "pool `lan` has no free IPv4 address before 2026-11-22T11:00:00Z: 203.0.113.2 was guest 100's until 2026-11-22T10:00:00Z"
        );
        assert_eq!(
            error.hint().unwrap(),
            "to assign it anyway, name it: `pve-public-ip assign 104 203.0.113.2`; not to wait in this pool: `pve-public-ip pool set lan --cool-down 0`"
        );
        assert_eq!(given(registry.clone().assign(&next("104", A, at("11:10")))), "203.0.113.2");
        let off = |pool: &mut Pool| pool.cool_down = Some("0".parse().unwrap());
        registry.change_pool(&lan, off).unwrap();
        assert_eq!(given(registry.clone().assign(&next("104", A, at("10:30")))), "203.0.113.2");
        registry.release("101".parse().unwrap(), &[], at("12:00")).unwrap();
        assert_eq!(registry.released.addresses, BTreeMap::new(), "what has cooled down is forgotten");
    }

    /// An address that cools down and is held again is not free at any time.
    #[test]
    fn a_full_pool_names_what_is_free_first() {
        let mut registry = registry();
        let rest = ["203.0.113.2", "203.0.113.3", "203.0.113.4"];
        registry.assign(&request("100", A, &rest)).unwrap();
        let other = |vmid: &str, address: &str, now| {
            let mac = format!("02:00:00:00:01:{}", &vmid[1..]);
            AssignRequest { now: at(now), ..request(vmid, &mac, &[address]) }
        };
        registry.assign(&other("103", "203.0.113.5", "10:00")).unwrap();
        registry.release("103".parse().unwrap(), &[], at("10:01")).unwrap();
        registry.assign(&other("103", "203.0.113.5", "10:02")).unwrap();
        registry.assign(&other("104", "203.0.113.6", "10:03")).unwrap();
        registry.release("104".parse().unwrap(), &[], at("10:04")).unwrap();
        let next = AssignRequest {
            pool: Some("lan".parse().unwrap()),
            families: BTreeSet::from([4]),
            now: at("10:05"),
            ..request("105", B, &[])
        };
        let message = registry.assign(&next).unwrap_err().to_string();
        assert!(message.ends_with("203.0.113.6 was guest 104's until 2026-11-22T10:04:00Z"), "{message}");
        registry.assign(&other("106", "203.0.113.6", "10:06")).unwrap();
        let message = registry.assign(&next).unwrap_err().to_string();
        assert_eq!(message, "pool `lan` has no free IPv4 address", "nothing cools down any more");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// Whatever was assigned and released: what the refusal of a full pool names is free at the time that it names, and
        /// nothing is before.
        #[test]
        fn a_refusal_tells_the_truth(
            deeds in proptest::collection::vec((0u8..8, 100u32..104, any::<bool>(), 29u8..33), 0..60),
        ) {
            let mut registry = Registry::default();
            let entry = PoolAddress::new("203.0.113.0/29".parse().unwrap());
            let mut pool = Pool::new(Profile::GenericRouted, "vmbr0".parse().unwrap(), vec![entry]);
            pool.gateway4 = Some("198.51.100.1".parse().unwrap());
            registry.create_pool("p".parse().unwrap(), pool).unwrap();
            let start: Moment = "2026-11-22T10:00:00Z".parse().unwrap();
            let mut now = start;
            for (low, vmid, gives, length) in deeds {
                now = now.after(std::time::Duration::from_secs(30));
                let net: IpNet = format!("203.0.113.{low}/{length}").parse().unwrap();
                let address: Prefix = net.trunc().to_string().parse().unwrap();
                let mac = format!("02:00:00:00:02:{}", &vmid.to_string()[1..]);
                let named = AssignRequest { now, ..request(&vmid.to_string(), &mac, &[&address.to_string()]) };
                let _ = if gives { registry.assign(&named) } else { registry.release(named.vmid, &[address], now) };
            }
            let next = |now| AssignRequest { now, ..request("900", B, &[]) };
            let is_free = |now: Moment| registry.clone().assign(&next(now));
            match registry.clone().assign(&next(now)) {
                Err(RuleError::Cooling { address, free_at, .. }) => {
                    prop_assert_eq!(is_free(free_at).unwrap(), [address]);
                    let before = Moment(free_at.0.checked_sub(std::time::Duration::from_millis(1)).unwrap());
                    prop_assert!(is_free(before).is_err());
                }
                Err(RuleError::Exhausted { .. }) => {
                    prop_assert!(is_free(now.after(std::time::Duration::from_secs(7200))).is_err());
                }
                other => prop_assert!(other.is_ok(), "{other:?}"),
            }
        }
    }

    #[test]
    fn an_entry_that_is_there_keeps_what_is_not_said() {
        let mut registry = registry();
        let (lan, address) = ("lan".parse().unwrap(), "203.0.113.0/29".parse().unwrap());
        let keep = EntryChange { mac: Edit::Keep, gateway: Edit::Keep, monthly_cost_cents: Edit::Keep };
        let all = EntryChange {
            mac: Edit::Set(A.parse().unwrap()),
            gateway: Edit::Set("203.0.113.6".parse().unwrap()),
            monthly_cost_cents: Edit::Set(170),
        };
        let (before, full) = registry.change_entries(&lan, &[(address, all)]).unwrap().remove(0);
        assert_eq!(before, Some(PoolAddress::new(address)));
        for (change, changed) in [
            (keep, full.clone()),
            (
                EntryChange { monthly_cost_cents: Edit::Set(200), ..keep },
                PoolAddress { monthly_cost_cents: Some(200), ..full.clone() },
            ),
            (
                EntryChange { monthly_cost_cents: Edit::Erase, ..keep },
                PoolAddress { monthly_cost_cents: None, ..full.clone() },
            ),
            (EntryChange { mac: Edit::Erase, ..keep }, PoolAddress { mac: None, ..full.clone() }),
            (EntryChange { gateway: Edit::Erase, ..keep }, PoolAddress { gateway: None, ..full.clone() }),
        ] {
            let mut registry = registry.clone();
            let (before, after) = registry.change_entries(&lan, &[(address, change)]).unwrap().remove(0);
            assert_eq!((before.as_ref(), &after), (Some(&full), &changed), "{change:?}");
            assert_eq!(registry.pools.pools[&lan].entry(address), Some(&changed));
        }
        let (before, after) =
            registry.change_entries(&lan, &[("192.0.2.7/32".parse().unwrap(), keep)]).unwrap().remove(0);
        assert_eq!((before, after), (None, PoolAddress::new("192.0.2.7/32".parse().unwrap())));
    }

    #[test]
    fn what_is_assigned_follows_the_gateway_of_its_pool() {
        let mut registry = registry();
        let lan: PoolName = "lan".parse().unwrap();
        registry.assign(&request("100", A, &["203.0.113.2", "203.0.113.3", "2001:db8::5"])).unwrap();
        let by_hand = "203.0.113.4".parse().unwrap();
        let interfaces = &mut registry.guests.get_mut(&"100".parse().unwrap()).unwrap().interfaces;
        interfaces.get_mut(&NicId::FIRST).unwrap().addresses[1].gateway = Some(by_hand);
        let old = registry.pool(&lan).unwrap().clone();
        let set = |pool: &mut Pool| {
            pool.gateway4 = Some("203.0.113.6".parse().unwrap());
            pool.gateway6 = Some("fe80::1".parse().unwrap());
        };
        registry.change_pool(&lan, set).unwrap();
        let shown = |change: &Rerouted| {
            let shown = |gateway: Option<IpAddr>| gateway.map_or("none".to_owned(), |gateway| gateway.to_string());
            format!("{} {} -> {}", change.address, shown(change.before), shown(change.after))
        };
        let changes: Vec<String> = registry.follow_gateways(&lan, &old).iter().map(shown).collect();
        assert_eq!(changes, ["203.0.113.2 203.0.113.1 -> 203.0.113.6", "2001:db8::5 none -> fe80::1"]);
        assert_eq!(registry.follow_gateways(&lan, &old), [], "once");
        let old = registry.pool(&lan).unwrap().clone();
        registry.change_pool(&lan, |pool| pool.gateway4 = Some("203.0.113.2".parse().unwrap())).unwrap();
        let error = registry.check_gateways(&lan, Some(&old)).unwrap_err();
        assert_eq!(error.to_string(), "203.0.113.2 cannot be the gateway of pool `lan`: guest 100 holds it");
    }

    #[test]
    fn the_network_is_asked_about_what_is_chosen() {
        let mut registry = registry();
        let asking = |asked: &[&str], ahead| Asking {
            pools: BTreeSet::from(["lan".parse().unwrap()]),
            asked: asked.iter().map(|text| text.parse().unwrap()).collect(),
            ahead,
        };
        let next = |vmid: &str, asked: &[&str], ahead| AssignRequest {
            pool: Some("lan".parse().unwrap()),
            families: BTreeSet::from([4]),
            asking: Some(asking(asked, ahead)),
            ..request(vmid, if vmid == "100" { A } else { B }, &[])
        };
        let unasked = |found: Result<Vec<Prefix>, RuleError>| match found {
            Err(RuleError::Unasked { addresses }) => addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(unasked(registry.clone().assign(&next("100", &[], 1))), ["203.0.113.2"]);
        let given = registry.assign(&next("100", &["203.0.113.2"], 1)).unwrap();
        assert_eq!(given[0].to_string(), "203.0.113.2");
        // Somebody was faster: it is chosen again, of what was asked about, and nothing is said of the other guest.
        assert_eq!(
            unasked(registry.clone().assign(&next("101", &["203.0.113.2"], 3))),
            ["203.0.113.3", "203.0.113.4", "203.0.113.5"]
        );
        let given = registry.clone().assign(&next("101", &["203.0.113.2", "203.0.113.5"], 3)).unwrap();
        assert_eq!(given[0].to_string(), "203.0.113.5", "the lowest that was asked about");
        // What is named is asked about, too, but not if the guest has it or nobody can.
        let named =
            |vmid, address: &str| AssignRequest { addresses: vec![address.parse().unwrap()], ..next(vmid, &[], 1) };
        assert_eq!(unasked(registry.clone().assign(&named("101", "203.0.113.4"))), ["203.0.113.4"]);
        assert_eq!(registry.clone().assign(&named("100", "203.0.113.2")).unwrap(), []);
        let error = registry.clone().assign(&named("101", "203.0.113.2")).unwrap_err();
        assert!(matches!(error, RuleError::Taken { .. }), "{error}");
    }

    #[test]
    fn addresses_of_other_macs_are_the_reason() {
        let mut registry = registry();
        let ovh: PoolName = "ovh".parse().unwrap();
        let next = |vmid: &str, mac| AssignRequest { pool: Some("ovh".parse().unwrap()), ..request(vmid, mac, &[]) };
        let error = registry.clone().assign(&next("100", A)).unwrap_err();
        let unknown =
            "the MAC that the provider bound to 198.51.100.7 is not known (profile ovh-bridged of pool `ovh`)";
        assert_eq!(error.to_string(), unknown);
        let entry = |address: &str, mac: &str| PoolAddress {
            mac: Some(mac.parse().unwrap()),
            ..PoolAddress::new(address.parse().unwrap())
        };
        registry.add_address(&ovh, entry("198.51.100.7/32", B)).unwrap();
        let error = registry.clone().assign(&next("100", A)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "pool `ovh` has no free IPv4 address for guest 100 net0 with MAC 02:00:00:00:00:0a: 198.51.100.7 is free, but bound to \
             MAC 02:00:00:00:00:0b by the provider"
        );
        assert_eq!(
            error.hint().unwrap(),
            "with the guest stopped, `pve-public-ip assign 100 --pool ovh --set-mac` gives the NIC the MAC 02:00:00:00:00:0b"
        );
        assert_eq!(registry.choose_mac(&next("100", A)).unwrap().to_string(), B);
        let given = registry.assign(&next("101", B)).unwrap();
        assert_eq!(given[0].to_string(), "198.51.100.7");
        // An address of a MAC that another guest has is none for this one.
        registry.add_address(&ovh, entry("198.51.100.8/32", B)).unwrap();
        for error in
            [registry.clone().assign(&next("100", A)).unwrap_err(), registry.choose_mac(&next("100", A)).unwrap_err()]
        {
            assert_eq!(error.to_string(), "pool `ovh` has no free IPv4 address");
        }
        assert_eq!(registry.choose_mac(&next("101", B)).unwrap().to_string(), B, "its own");
        // A NIC that holds addresses keeps its MAC.
        registry.add_address(&ovh, entry("198.51.100.9/32", "02:00:00:00:00:0c")).unwrap();
        registry.assign(&request("100", A, &["203.0.113.2"])).unwrap();
        let error = registry.assign(&next("100", A)).unwrap_err();
        assert!(
            error.hint().unwrap().starts_with("net0 holds addresses with its MAC: give the guest another NIC"),
            "{error}"
        );
        assert!(registry.choose_mac(&next("100", A)).is_err());
        // One that cools down, with another MAC, is not passed over in silence.
        let given = registry.clone();
        registry.release("101".parse().unwrap(), &[], at("10:00")).unwrap();
        let foreign = BTreeSet::from([B.parse().unwrap(), "02:00:00:00:00:0c".parse().unwrap()]);
        let asked = AssignRequest { foreign, now: at("10:30"), ..next("102", "02:00:00:00:00:0d") };
        let error = registry.assign(&asked).unwrap_err();
        assert_eq!(
            error.to_string(),
            "pool `ovh` has no free IPv4 address before 2026-11-22T11:00:00Z: 198.51.100.7 was guest 101's until 2026-11-22T10:00:00Z"
        );
        assert_eq!(
            error.hint().unwrap(),
            "it is bound to MAC 02:00:00:00:00:0b: when no other guest has that, `pve-public-ip assign 102 198.51.100.7 --set-mac`, \
             with the guest stopped, takes it at once"
        );
        let mut registry = given;
        // Nor is one of a MAC that a guest without addresses is configured with.
        let foreign = BTreeSet::from(["02:00:00:00:00:0c".parse().unwrap()]);
        let error = registry.assign(&AssignRequest { foreign, ..next("102", "02:00:00:00:00:0d") }).unwrap_err();
        assert_eq!(error.to_string(), "pool `ovh` has no free IPv4 address");
    }

    #[test]
    fn next_free_takes_one_of_each_family() {
        let mut registry = registry();
        let mut next = request("100", A, &[]);
        next.pool = Some("lan".parse().unwrap());
        let given: Vec<String> = registry.assign(&next).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(given, ["203.0.113.2", "2001:db8::1"]);
        next.pool = None;
        let message = registry.assign(&next).unwrap_err().to_string();
        assert_eq!(message, "say which pool to take an address from: lan, ovh");
        next.pool = Some("lann".parse().unwrap());
        assert_eq!(registry.assign(&next).unwrap_err().hint().unwrap(), "did you mean `lan`?");
    }

    #[test]
    fn the_providers_mac_is_insisted_on() {
        let mut registry = registry();
        let error = registry.assign(&request("100", A, &["198.51.100.7"])).unwrap_err();
        assert!(error.to_string().contains("is not known (profile ovh-bridged of pool `ovh`)"), "{error}");
        let entry = PoolAddress { mac: Some(B.parse().unwrap()), ..PoolAddress::new("198.51.100.7".parse().unwrap()) };
        registry.add_address(&"ovh".parse().unwrap(), entry).unwrap();
        let error = registry.assign(&request("100", A, &["198.51.100.7"])).unwrap_err();
        assert!(error.to_string().contains("is bound to MAC 02:00:00:00:00:0b by the provider"), "{error}");
        registry.assign(&request("100", B, &["198.51.100.7"])).unwrap();
    }

    #[test]
    fn whose_mac_an_address_needs_is_said_to_whom_can_have_it() {
        let mut registry = registry();
        let entry = PoolAddress { mac: Some(B.parse().unwrap()), ..PoolAddress::new("198.51.100.7".parse().unwrap()) };
        registry.add_address(&"ovh".parse().unwrap(), entry).unwrap();
        // Another guest's NIC has the MAC: this one cannot have it, too.
        let foreign = BTreeSet::from([B.parse().unwrap()]);
        let error = registry.assign(&AssignRequest { foreign, ..request("100", A, &["198.51.100.7"]) }).unwrap_err();
        assert!(error.hint().unwrap().starts_with("a NIC of another guest has that MAC"), "{error}");
        let error = registry.clone().assign(&request("100", A, &["198.51.100.7"])).unwrap_err();
        assert!(error.hint().unwrap().contains("--set-mac"), "{error}");
        registry.assign(&request("101", B, &["198.51.100.7"])).unwrap();
        let error = registry.assign(&request("100", A, &["198.51.100.7"])).unwrap_err();
        assert!(matches!(error, RuleError::Taken { .. }), "{error}");
    }

    #[test]
    fn what_is_assigned_keeps_its_pool() {
        let mut registry = registry();
        registry.assign(&request("100", A, &["203.0.113.2"])).unwrap();
        let lan = "lan".parse().unwrap();
        let message = registry.remove_from_pool(&lan, &[]).unwrap_err().to_string();
        assert_eq!(message, "203.0.113.2 of pool `lan` is assigned to guest 100");
        registry.remove_from_pool(&lan, &["2001:db8::/64".parse().unwrap()]).unwrap();
        let again = registry.remove_from_pool(&lan, &["2001:db8::/64".parse().unwrap()]).unwrap();
        assert_eq!((again.removed.len(), again.absent.len(), again.existed), (0, 1, true));
        let message = registry.remove_from_pool(&lan, &["203.0.113.4/30".parse().unwrap()]).unwrap_err().to_string();
        assert_eq!(message, "pool `lan` has no entry 203.0.113.4/30");
    }

    #[test]
    fn hand_made_contradictions_are_found() {
        let mut registry = registry();
        registry.assign(&request("100", A, &["203.0.113.2"])).unwrap();
        let mut copy = registry.guests.values().next().unwrap().clone();
        copy.vmid = "200".parse().unwrap();
        registry.guests.insert(copy.vmid, copy);
        let sentences: Vec<String> = registry.conflicts().into_iter().map(|(_, sentence)| sentence).collect();
        assert_eq!(
            sentences,
            [
                "203.0.113.2 is assigned to guest 100 and to guest 200",
                "MAC 02:00:00:00:00:0a is that of guest 100 net0 and of guest 200 net0",
            ]
        );
    }

    proptest! {
        /// Of any guests the same is found as by comparing all of them.
        #[test]
        fn conflicts_of_some_guests_are_theirs_among_all(
            held in proptest::collection::vec((100..106u32, 0..8u8, 29..33u8, 0..5u8), 0..12),
            asked in proptest::collection::btree_set(100..106u32, 0..6),
        ) {
            let mut registry = Registry::default();
            for (vmid, last, length, mac) in held {
                let net = ipnet::Ipv4Net::new([203, 0, 113, last].into(), length).unwrap().trunc();
                let vmid: Vmid = vmid.to_string().parse().unwrap();
                let interface = serde_json::json!({ "mac": format!("02:00:00:00:00:{mac:02x}") });
                let assigned = serde_json::json!({ "address": net, "pool": "lan", "assigned_at": "2026-11-22T10:00:00Z" });
                let guest = registry.guests.get_or_insert_with(vmid, || GuestFile::new(vmid));
                let new = || serde_json::from_value(interface).unwrap();
                let interface = guest.interfaces.entry(NicId::FIRST).or_insert_with(new);
                interface.addresses.push(serde_json::from_value(assigned).unwrap());
            }
            let asked: BTreeSet<Vmid> = asked.into_iter().map(|vmid| vmid.to_string().parse().unwrap()).collect();
            let mut expected = registry.conflicts();
            expected.retain(|(guests, _)| !guests.is_disjoint(&asked));
            let mut found = registry.conflicts_of(&asked);
            expected.sort();
            found.sort();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_broken_file_stops_every_change() {
        let mut registry = registry();
        registry.broken.push(DocumentError::new(std::path::Path::new("/x/7.json"), "is empty", "restore it"));
        let message = registry.assign(&request("100", A, &["203.0.113.2"])).unwrap_err().to_string();
        assert_eq!(message, "`/x/7.json` is empty");
    }
}
