//! What the registry's rules forbid: each refusal with its code, its subject and the administrator's next step.

use std::net::IpAddr;

use super::document::{DocumentError, Released};
use super::passed_over::InUse;
use super::places::Misplaced;
use crate::code;
use crate::model::text::{escaped, meant};
use crate::model::{
    Code, Family, GroupName, IfName, MacAddr, Moment, NicId, NodeName, PoolName, Prefix, Subject, Vmid,
};

/// A change that the registry's rules forbid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// `pool create` of a name that exists.
    #[error("pool `{0}` exists already")]
    PoolExists(PoolName),
    /// Guests of some node would lose what they use.
    #[error("{}", .losses.join("; "))]
    WouldCutOff {
        /// The pool that would be enforced.
        pool: PoolName,
        /// Who would lose what, a sentence each.
        losses: Vec<String>,
        /// What helps the first of them.
        hint: String,
    },
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
    /// The guest is on a node where the address does not work.
    #[error("{0}")]
    WrongNode(Misplaced),
    /// What a NIC is to have besides is of a pool.
    #[error("{prefix} is of {entry} of pool `{pool}`")]
    AlsoInPool {
        /// What it is to have.
        prefix: Prefix,
        /// The entry.
        entry: Prefix,
        /// Its pool.
        pool: PoolName,
    },
    /// What a NIC is to have besides has a gateway or the node.
    #[error("{prefix} cannot be the guest's: {address} is {what}")]
    AlsoTaken {
        /// What it is to have.
        prefix: Prefix,
        /// The address.
        address: IpAddr,
        /// Whose it is.
        what: String,
    },
    /// What is to come into a pool is what a NIC has besides.
    #[error("{new} cannot be of pool `{pool}`: guest {vmid} {nic} has {prefix} besides the addresses of pools")]
    BesideOfGuest {
        /// What is to come into the pool.
        new: Prefix,
        /// The pool.
        pool: PoolName,
        /// What the guest has.
        prefix: Prefix,
        /// The guest.
        vmid: Vmid,
        /// Its NIC.
        nic: NicId,
    },
    /// A further MAC of a NIC is a gateway's.
    #[error("MAC {mac} is that of a gateway")]
    MacOfGateway {
        /// The MAC.
        mac: MacAddr,
    },
    /// A further MAC of a NIC that the provider does not know.
    #[error("the provider of pool `{pool}` does not know MAC {mac}")]
    MacUnknown {
        /// The MAC.
        mac: MacAddr,
        /// The pool.
        pool: PoolName,
        /// The guest.
        vmid: Vmid,
        /// Its NIC.
        nic: NicId,
    },
    /// Nothing left.
    #[error("pool `{pool}` has no free {family} address")]
    Exhausted {
        /// The pool.
        pool: PoolName,
        /// The family of the addresses.
        family: Family,
        /// Whether another family of the pool was served.
        other_family: bool,
    },
    /// What is left is in use.
    #[error("pool `{pool}` has no free {} address that nobody uses: {address} {}", address.family(), used.why)]
    OnlyInUse {
        /// The pool.
        pool: PoolName,
        /// An address that nobody holds.
        address: Prefix,
        /// Who uses it.
        used: InUse,
        /// Who asks.
        vmid: Vmid,
    },
    /// Less left than was asked for.
    #[error("pool `{pool}` has only {} for guest {vmid}, but {wanted} were asked for",
        if *free == 1 { format!("1 more {family} address") } else { format!("{free} more {family} addresses") })]
    TooFew {
        /// The pool.
        pool: PoolName,
        /// The family of the addresses.
        family: Family,
        /// The guest.
        vmid: Vmid,
        /// How many it could have.
        free: usize,
        /// How many it was to have.
        wanted: usize,
    },
    /// What is left was released not long ago.
    #[error("pool `{pool}` has no free {} address before {}: {} was guest {}'s until {}",
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
    #[error("pool `{pool}` has no free {} address for guest {vmid} {nic} with MAC {actual}: {} is free, but bound to MAC {expected} by the provider",
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
    /// Nobody has asked the network yet who has these: not for an administrator, but for the caller of `Registry::assign`.
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
    /// A prefix that cannot be reached through the address that was named for it.
    #[error("{reason}")]
    Via {
        /// The guest.
        vmid: Vmid,
        /// The prefix.
        address: Prefix,
        /// Why.
        reason: String,
    },
    /// An address through which the guest is reached for a prefix that it keeps.
    #[error("guest {vmid} is reached through {via} for {address}, which it would keep")]
    ViaNeeded {
        /// The guest.
        vmid: Vmid,
        /// The prefix.
        address: Prefix,
        /// The address.
        via: IpAddr,
    },
    /// The provider routes nothing through a guest's address.
    #[error(
        "the provider (profile {profile} of pool `{pool}`) routes no prefix to an address, so {address} cannot be reached through {via}"
    )]
    NotRouted {
        /// The prefix.
        address: Prefix,
        /// Through which address it was to be reached.
        via: IpAddr,
        /// The pool.
        pool: PoolName,
        /// Its profile.
        profile: String,
    },
    /// Others hold it in turn, in another group or in none.
    #[error("{address} is held by guest {holder} {}, and guest {vmid} was to hold it {}", group_words(group.as_ref()), group_words(wanted.as_ref()))]
    OtherGroup {
        /// The address.
        address: Prefix,
        /// Who wants it.
        vmid: Vmid,
        /// Who has it.
        holder: Vmid,
        /// In which group it was to be held.
        wanted: Option<GroupName>,
        /// In which group it is held.
        group: Option<GroupName>,
    },
    /// Guests of different customers do not hold an address in turn.
    #[error("guest {holder} holds {address} for {}: guest {vmid} cannot share it for another organization or none", theirs.as_ref().map_or_else(|| "no organization".to_owned(), |name| format!("organization {}", escaped(name))))]
    OtherCustomer {
        /// The address.
        address: Prefix,
        /// Who wants it.
        vmid: Vmid,
        /// Who has it.
        holder: Vmid,
        /// For which customer.
        theirs: Option<String>,
    },
    /// The members of a group are in different VLANs of one bridge.
    #[error("guest {vmid} {nic} is in {}, and guest {holder}, which holds {address} in turn with it, is in {}: neither hears the other", vlan(*tag), vlan(*theirs))]
    OtherVlan {
        /// The address.
        address: Prefix,
        /// The guest that is to be a member.
        vmid: Vmid,
        /// Its NIC.
        nic: NicId,
        /// Its VLAN.
        tag: Option<u16>,
        /// A member.
        holder: Vmid,
        /// That one's VLAN.
        theirs: Option<u16>,
    },
    /// The provider sends it to one MAC.
    #[error("the provider sends {address} to {} only (profile {profile} of pool `{pool}`), so guests with other MACs cannot hold it in turn", mac.map_or_else(|| "one MAC".to_owned(), |mac| format!("MAC {mac}")))]
    OneMac {
        /// The address.
        address: Prefix,
        /// The MAC, if it is known.
        mac: Option<MacAddr>,
        /// The pool.
        pool: PoolName,
        /// Its profile.
        profile: String,
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
        None => format!("node {node} uses this registry, but has not noted which release it runs"),
    }
}

/// What else of the holder's there is, if not just the address.
fn part_of(address: Prefix, held: Prefix) -> String {
    if address == held { String::new() } else { format!(", which holds {held}") }
}

fn group_words(group: Option<&GroupName>) -> String {
    group.map_or_else(|| "alone".to_owned(), |group| format!("in the group `{group}`"))
}

fn of_which(pool: Option<&(PoolName, usize)>) -> String {
    pool.map(|(name, needed)| format!(" (pool `{name}`: {needed})")).unwrap_or_default()
}

/// The first step of all.
const NO_POOLS_HINT: &str =
    "create one: `pve-public-ip pool create NAME --profile generic-bridged --bridge vmbr0 PREFIX...`";

/// `VLAN 20`, as in a sentence.
fn vlan(tag: Option<u16>) -> String {
    tag.map_or_else(|| "no VLAN".to_owned(), |tag| format!("VLAN {tag}"))
}

impl RuleError {
    /// Its kind.
    pub fn code(&self) -> Code {
        match self {
            Self::PoolExists(_) => code!("pool-exists"),
            Self::NoPool(..) => code!("unknown-pool"),
            Self::WouldCutOff { .. } => code!("would-cut-off"),
            Self::Overlap { .. } | Self::AlsoInPool { .. } | Self::BesideOfGuest { .. } => code!("overlap"),
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
            Self::Unusable(_) | Self::AlsoTaken { .. } => code!("address-unusable"),
            Self::NoPools => code!("no-pools"),
            Self::WhichPool(_) => code!("pool-not-named"),
            Self::WrongBridge { .. } => code!("wrong-bridge"),
            Self::WrongNode(_) => code!("wrong-node"),
            Self::MacOfGateway { .. } => code!("mac-of-gateway"),
            Self::MacUnknown { .. } => code!("mac-unknown-to-provider"),
            Self::Exhausted { .. } | Self::OnlyInUse { .. } => code!("pool-exhausted"),
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
            Self::Via { .. } => code!("via-unusable"),
            Self::ViaNeeded { .. } => code!("via-in-use"),
            Self::NotRouted { .. } => code!("via-not-routed"),
            Self::OtherGroup { .. } => code!("other-group"),
            Self::OtherCustomer { .. } => code!("group-of-other-organization"),
            Self::OneMac { .. } => code!("shared-with-one-mac"),
            Self::OtherVlan { .. } => code!("shared-in-other-vlan"),
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
            | Self::OnlyInUse { pool, .. }
            | Self::Cooling { pool, .. }
            | Self::OtherMac { pool, .. }
            | Self::WouldCutOff { pool, .. }
            | Self::GatewayHeld { pool, .. } => Subject::Pool(pool.clone()),
            Self::Overlap { new: address, .. }
            | Self::AlsoInPool { prefix: address, .. }
            | Self::AlsoTaken { prefix: address, .. }
            | Self::BesideOfGuest { new: address, .. }
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
            | Self::Via { address, .. }
            | Self::ViaNeeded { address, .. }
            | Self::NotRouted { address, .. }
            | Self::OtherGroup { address, .. }
            | Self::OtherCustomer { address, .. }
            | Self::OneMac { address, .. }
            | Self::OtherVlan { address, .. }
            | Self::NotWhole { address, .. } => Subject::Address(*address),
            Self::MacTaken { vmid, .. }
            | Self::MacUnknown { vmid, .. }
            | Self::NoInterface { vmid, .. }
            | Self::Contradiction { vmid, .. }
            | Self::WrongBridge { vmid, .. }
            | Self::MacChanged { vmid, .. }
            | Self::NothingAssigned(vmid) => Subject::Guest(*vmid),
            Self::WrongNode(misplaced) => Subject::Guest(misplaced.vmid),
            Self::Unusable(_)
            | Self::NoPools
            | Self::WhichPool(_)
            | Self::Unasked { .. }
            | Self::MacOfGateway { .. } => Subject::Command,
            Self::NoRoom { .. } | Self::TooNew { .. } => Subject::Node,
            Self::Broken(error) => error.subject(),
        }
    }

    /// The administrator's next step.
    #[expect(clippy::too_many_lines, reason = "each error has its own")]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::PoolExists(name) => format!("to add addresses: `pve-public-ip pool add {name} ADDRESS`"),
            Self::WouldCutOff { hint, .. } => format!("{hint} (--yes takes it from them all the same)"),
            Self::Contradiction { vmid, .. } => format!("`pve-public-ip show {vmid}` shows what there is"),
            Self::NoPools => NO_POOLS_HINT.to_owned(),
            Self::NoPool(_, known) if known.is_empty() => NO_POOLS_HINT.to_owned(),
            Self::NoPool(name, known) => meant(name.as_str(), known.iter().map(PoolName::as_str)),
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
            Self::WrongNode(misplaced) => misplaced.hint(),
            Self::AlsoInPool { .. } => "an address of a pool is assigned: `pve-public-ip assign VMID ADDRESS`".to_owned(),
            Self::AlsoTaken { .. } => "name the guest's own address with --also, not the whole network".to_owned(),
            Self::BesideOfGuest { vmid, nic, .. } => {
                format!("take it from the guest first: `pve-public-ip set {vmid}{} --no-also`", nic.net_option())
            }
            Self::MacOfGateway { .. } => "choose another MAC, or another number of the virtual router".to_owned(),
            Self::MacUnknown { mac, pool, .. } => format!(
                "if it does: `pve-public-ip pool set {pool} --allow-mac {mac}`; a MAC that it does not know can lock the server"
            ),
            Self::Exhausted { pool, family, other_family: true } => {
                let other = family.other();
                format!("only {other}: add -{}; more addresses: `pve-public-ip pool add {pool} PREFIX`", other.number())
            }
            Self::OnlyInUse { pool, address, used: InUse { by: Some((vmid, nic)), .. }, .. } => format!(
                "to leave it there: `pve-public-ip assign {vmid} {}{}`; more addresses: `pve-public-ip pool add {pool} PREFIX`",
                address, nic.net_option()
            ),
            Self::OnlyInUse { pool, address, vmid, .. } => format!(
                "more addresses: `pve-public-ip pool add {pool} PREFIX`; if nobody uses it any more: `pve-public-ip assign {vmid} {address}`"
            ),
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
            Self::Via { vmid, .. } => format!(
                "name an address of the same NIC (`pve-public-ip show {vmid}` lists them), or one of the prefix for the transit"
            ),
            Self::ViaNeeded { vmid, address, via } => format!(
                "release both: `pve-public-ip release {vmid} {via} {address}`, or first name another address with --via"
            ),
            Self::NotRouted { .. } => {
                "assign single addresses of it, or have it routed to the node and use a routed pool".to_owned()
            }
            Self::OtherGroup { address, holder, wanted: Some(wanted), group: None, .. } => format!(
                "if both are to hold it in turn, first `pve-public-ip assign {holder} {address} --shared {wanted}`"
            ),
            Self::OtherGroup { address, vmid, group: Some(group), .. } => {
                format!("if it is to be a member: `pve-public-ip assign {vmid} {address} --shared {group}`")
            }
            Self::OtherGroup { address, holder, .. } => {
                format!("to move it: `pve-public-ip release {holder} {address}`")
            }
            Self::OtherCustomer { address, vmid, .. } => {
                format!("name the same organization: `pve-public-ip assign {vmid} {address} --shared GROUP --organization ORG`")
            }
            Self::OtherVlan { .. } => {
                "put both NICs into one VLAN (`tag=` in their configurations), or give each guest an address of its own".to_owned()
            }
            Self::OneMac { .. } => "share an address of a pool without MACs of the provider (vRack, routed, your own prefix)".to_owned(),
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
                format!("give an {} gateway, or leave it out to use the pool's", address.family())
            }
        })
    }
}
