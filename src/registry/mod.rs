//! The registry: pools and assignments, the authority on who owns which address.
//!
//! The rules live here and are pure: every change is checked against the whole registry before [`store`] writes it.
//! - pools do not overlap;
//! - an address has one holder;
//! - a MAC belongs to one guest NIC, unless two NICs of one guest share an assignment (a bond).

mod allocate;
pub mod document;
mod last_good;
pub mod layout;
mod lock;
pub mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

pub use allocate::capacity;
use document::{
    Assigned, Document, DocumentError, GuestFile, Interface, Mode, NodeFile, Pool, PoolAddress, PoolsFile, Released,
    ReleasedFile, VERSION,
};
pub use last_good::News;
pub use lock::LockError;

use crate::model::{IfName, MacAddr, Moment, NicId, PoolName, Prefix, Vmid};

/// Everything that the registry's files say, as far as they could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    /// `pools.json`.
    pub pools: PoolsFile,
    /// `guests/<vmid>.json`.
    pub guests: BTreeMap<Vmid, GuestFile>,
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
    },
    /// A gateway of the wrong family.
    #[error("gateway {0} is not of the family of {1}")]
    GatewayFamily(IpAddr, Prefix),
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
    #[error("{address} is held by guest {holder} ({held})")]
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
    /// What is left was released not long ago.
    #[error("pool `{pool}` has no free IPv{} address before {}: {} was guest {}'s until {}",
        address.family(), free_at.to_second(), plain(*address), released.vmid, released.at.to_second())]
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
    },
    /// Somebody claims it.
    #[error("{} is contested: {sentence}", plain(*address))]
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
    /// `release` of what is not assigned.
    #[error("guest {0} has no public address")]
    NothingAssigned(Vmid),
    /// `release` of an address that the guest does not hold.
    #[error("{address} is not assigned to guest {vmid}")]
    NotHeld {
        /// The guest.
        vmid: Vmid,
        /// The address.
        address: Prefix,
    },
    /// A file that has to be read cannot be.
    #[error(transparent)]
    Broken(#[from] DocumentError),
}

/// The first step of all.
const NO_POOLS_HINT: &str =
    "create one: `pve-public-ip pool create NAME --profile generic-bridged --bridge vmbr0 PREFIX...`";

impl RuleError {
    /// The administrator's next step.
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
            Self::Overlap { pool, .. } => format!("`pve-public-ip pool show {pool}` lists its addresses"),
            Self::MacTaken { vmid, nic, .. } => format!(
                "give one of the guests another MAC; if both are NICs of guest {vmid}, name both in one assignment (--net {} --net N)",
                nic.index()
            ),
            Self::InUse { vmid, address, .. } => format!("first `pve-public-ip release {vmid} {}`", plain(*address)),
            Self::NoEntry { pool, .. } => format!("`pve-public-ip pool show {pool}` lists its entries"),
            Self::NotInPool(address) => {
                format!(
                    "add it to one: `pve-public-ip pool add NAME {}`; `pve-public-ip pool list` shows the pools",
                    plain(*address)
                )
            }
            Self::WrongPool { actual, .. } => format!("leave --pool out, or say --pool {actual}"),
            Self::Taken { holder, held, .. } => {
                format!("to move it: `pve-public-ip release {holder} {}`", plain(*held))
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
            Self::Exhausted { pool, .. } => format!("more addresses: `pve-public-ip pool add {pool} PREFIX`"),
            Self::Contested { id, .. } => {
                format!(
                    "`pve-public-ip conflicts list` says more; to assign it all the same, first `pve-public-ip conflicts ack {id}`"
                )
            }
            Self::Cooling { pool, address, vmid, .. } => format!(
                "to take it all the same, name it: `pve-public-ip assign {vmid} {}`; to wait less: `pve-public-ip pool set {pool} --cool-down 10m`",
                plain(*address)
            ),
            Self::ProviderMac { address, expected, vmid, nic, .. } => {
                let net = if *nic == NicId::FIRST { String::new() } else { format!(" --net {}", nic.index()) };
                let address = plain(*address);
                format!(
                    "with the guest stopped, `pve-public-ip assign {vmid} {address}{net} --set-mac` gives the NIC the MAC {expected}"
                )
            }
            Self::HolderMac { address, vmid, .. } => {
                format!("first `pve-public-ip release {vmid} {0}`; assign it again with --set-mac", plain(*address))
            }
            Self::NoProviderMac { address, pool, .. } => format!(
                "look it up at the provider, then `pve-public-ip pool add {pool} {} --mac MAC`; a wrong MAC can lock the server",
                plain(*address)
            ),
            Self::MacChanged { vmid, .. } => {
                format!("set the guest's MAC back, or `pve-public-ip release {vmid}` and assign again with the new one")
            }
            Self::NothingAssigned(_) | Self::NoInterface { .. } | Self::NotHeld { .. } => {
                "`pve-public-ip list` shows who holds what".to_owned()
            }
            Self::Broken(error) => error.hint.clone(),
            Self::GatewayFamily(_, address) => {
                format!("give an IPv{} gateway, or leave it out to use the pool's", address.family())
            }
        })
    }
}

/// An address as people type it: without the length if it is a single one.
pub fn plain(prefix: Prefix) -> String {
    prefix.single().map_or_else(|| prefix.to_string(), |address| address.to_string())
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
    /// Customer.
    pub organization: Option<String>,
    /// Addresses never handed out (the node's own).
    pub avoid: Vec<IpAddr>,
    /// Addresses that somebody else claims: in which words, and by which number that is acknowledged.
    pub contested: BTreeMap<Prefix, (String, String)>,
    /// Now.
    pub now: Moment,
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
        let broken = || self.broken.iter().find(|error| error.path.ends_with("pools.json")).cloned();
        self.pools.pools.get(name).ok_or_else(|| broken().map_or_else(missing, RuleError::Broken))
    }

    /// The pool whose entry holds `prefix` whole.
    pub fn pool_of(&self, prefix: Prefix) -> Option<(&PoolName, &Pool)> {
        self.pools.pools.iter().find(|(_, pool)| pool.entry(prefix).is_some())
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
        self.pools.version = VERSION;
        self.pools.pools.insert(name.clone(), Pool { addresses: Vec::new(), ..pool });
        for entry in entries {
            self.add_address(&name, entry)?;
        }
        Ok(())
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

    /// Adds an entry to a pool; the same entry again replaces what is known of it (a MAC learnt later).
    pub fn add_address(&mut self, name: &PoolName, entry: PoolAddress) -> Result<(), RuleError> {
        self.whole()?;
        self.pool(name)?;
        if let Some(gateway) = entry.gateway {
            if gateway.is_ipv4() != (entry.address.family() == 4) {
                return Err(RuleError::GatewayFamily(gateway, entry.address));
            }
        }
        for (other, pool) in &self.pools.pools {
            let same = |old: &&PoolAddress| other == name && old.address == entry.address;
            if let Some(old) = pool.addresses.iter().find(|old| !same(old) && old.address.overlaps(entry.address)) {
                return Err(RuleError::Overlap { new: entry.address, old: old.address, pool: other.clone() });
            }
        }
        if let Some(mac) = entry.mac {
            let holder = self
                .assignments()
                .find(|(.., interface, assigned)| assigned.address == entry.address && interface.mac != mac);
            if let Some((vmid, nic, interface, _)) = holder {
                let (address, actual) = (entry.address, interface.mac);
                return Err(RuleError::HolderMac { address, expected: mac, vmid, nic, actual });
            }
        }
        if let Some(pool) = self.pools.pools.get_mut(name) {
            pool.addresses.retain(|old| old.address != entry.address);
            pool.addresses.push(entry);
            pool.addresses.sort_by_key(|entry| (entry.address.family(), entry.address));
        }
        Ok(())
    }

    /// Removes entries of a pool, or the pool if none is named. What is assigned stays.
    pub fn remove_from_pool(&mut self, name: &PoolName, addresses: &[Prefix]) -> Result<(), RuleError> {
        self.whole()?;
        let pool = self.pool(name)?;
        for address in addresses {
            if !pool.addresses.iter().any(|entry| entry.address == *address) {
                return Err(RuleError::NoEntry { pool: name.clone(), address: *address });
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
        Ok(())
    }

    /// Gives addresses to a guest; returns those that it did not hold before.
    pub fn assign(&mut self, request: &AssignRequest) -> Result<Vec<Prefix>, RuleError> {
        self.whole()?;
        self.check_macs(request)?;
        let wanted = if request.addresses.is_empty() { self.choose(request)? } else { request.addresses.clone() };
        let mut new = Vec::new();
        for address in wanted {
            let (pool_name, pool) = self.pool_of(address).ok_or(RuleError::NotInPool(address))?;
            if let Some(named) = request.pool.as_ref().filter(|named| *named != pool_name) {
                let (actual, named) = (pool_name.clone(), named.clone());
                return Err(RuleError::WrongPool { address, actual, named });
            }
            allocate::check_usable(pool_name, pool, address).map_err(RuleError::Unusable)?;
            let mut withheld = self.withheld(&request.avoid).into_iter();
            if let Some((taken, what)) = withheld.find(|(taken, _)| address.single() == Some(*taken)) {
                return Err(RuleError::Unusable(format!("{taken} is {what}")));
            }
            self.check_contested(request, address)?;
            check_provider_mac(request, address, pool_name, pool)?;
            let assigned = Assigned {
                address,
                pool: pool_name.clone(),
                gateway: pool.gateway(address),
                organization: request.organization.clone(),
                assigned_at: request.now.to_second(),
            };
            if self.hold(request, &assigned)? {
                new.push(address);
            }
        }
        Ok(new)
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

    /// Addresses that no guest gets, with what they are: gateways, and what the node has itself.
    pub fn withheld(&self, own: &[IpAddr]) -> Vec<(IpAddr, String)> {
        let mut withheld: Vec<(IpAddr, String)> =
            own.iter().map(|address| (*address, "an address of this node".to_owned())).collect();
        for (name, pool) in &self.pools.pools {
            withheld.extend(pool.gateways().map(|gateway| (gateway, format!("the gateway of pool `{name}`"))));
        }
        withheld
    }

    /// Puts one address on the NICs of the request; says whether that is news.
    fn hold(&mut self, request: &AssignRequest, assigned: &Assigned) -> Result<bool, RuleError> {
        let address = assigned.address;
        for (holder, nic, _, held) in self.assignments() {
            let own =
                holder == request.vmid && held.address == address && request.nics.iter().any(|(own, _)| *own == nic);
            if !own && held.address.overlaps(address) {
                return Err(RuleError::Taken { address, holder, held: held.address });
            }
        }
        let guest = self.guests.entry(request.vmid).or_insert_with(|| GuestFile::new(request.vmid));
        let mut news = false;
        for (nic, mac) in &request.nics {
            let interface = guest.interfaces.entry(*nic).or_insert_with(|| Interface {
                mac: *mac,
                dhcp: None,
                trunk: BTreeSet::new(),
                any_link_local: false,
                any_destination: false,
                link_local: BTreeSet::new(),
                addresses: Vec::new(),
            });
            if interface.addresses.iter().all(|held| held.address != address) {
                interface.addresses.push(assigned.clone());
                interface.addresses.sort_by_key(|held| (held.address.family(), held.address));
                news = true;
            }
        }
        Ok(news)
    }

    /// The pool that is meant and its lowest free address of each family.
    fn choose(&self, request: &AssignRequest) -> Result<Vec<Prefix>, RuleError> {
        let only = (self.pools.pools.len() == 1).then(|| self.pools.pools.keys().next()).flatten();
        let Some(name) = request.pool.as_ref().or(only) else {
            let known = self.pools.pools.keys().cloned().collect::<Vec<_>>();
            let names = known.iter().map(PoolName::as_str).collect::<Vec<_>>().join(", ");
            return Err(if known.is_empty() { RuleError::NoPools } else { RuleError::WhichPool(names) });
        };
        let pool = self.pool(name)?;
        let present: BTreeSet<u8> = pool.addresses.iter().map(|entry| entry.address.family()).collect();
        let families = if request.families.is_empty() { present.clone() } else { request.families.clone() };
        let held: Vec<Prefix> = self.assignments().map(|(.., assigned)| assigned.address).collect();
        let mut pool = pool.clone();
        if let Some((_, mac)) = request.nics.first() {
            // An address that the provider bound to another MAC is not free for this guest.
            let fits = |entry: &PoolAddress| match entry.mac {
                Some(bound) => bound == *mac,
                None => !pool.provider_mac(),
            };
            let fitting: Vec<_> = pool.addresses.iter().filter(|entry| fits(entry)).cloned().collect();
            pool.addresses = fitting;
        }
        let exhausted = |family| RuleError::Exhausted { pool: name.clone(), family, other_family: present.len() > 1 };
        if families.is_empty() {
            return Err(exhausted(4));
        }
        let mut cooling: Vec<(Moment, Prefix, &Released)> = self
            .cooling(request.vmid, request.now)
            .map(|(prefix, released, free_at)| (free_at, prefix, released))
            .collect();
        cooling.sort_unstable_by_key(|(free_at, prefix, _)| (*free_at, *prefix));
        let mut kept: Vec<Prefix> = held;
        kept.extend(cooling.iter().map(|(_, prefix, _)| *prefix));
        let avoid: Vec<IpAddr> = self.withheld(&request.avoid).into_iter().map(|(address, _)| address).collect();
        // If nothing else is left, the refusal names one of these.
        let uncontested: Vec<Prefix> = kept.iter().chain(request.contested.keys()).copied().collect();
        let free = |family, kept: &[Prefix]| allocate::next_free(&pool, family, kept, &avoid);
        let first_to_cool = |family| {
            let mut kept = kept.clone();
            cooling.iter().find_map(|(free_at, prefix, released)| {
                kept.retain(|other| other != prefix);
                let released = Released::clone(released);
                let (pool, free_at, vmid) = (name.clone(), *free_at, request.vmid);
                free(family, &kept).map(|address| RuleError::Cooling { pool, address, released, free_at, vmid })
            })
        };
        families
            .into_iter()
            .map(|family| {
                free(family, &uncontested)
                    .or_else(|| free(family, &kept))
                    .ok_or_else(|| first_to_cool(family).unwrap_or_else(|| exhausted(family)))
            })
            .collect()
    }

    /// What cools down of an entry, and is not held again.
    pub fn cooling_in(&self, entry: Prefix, now: Moment) -> Vec<(Prefix, &Released, Moment)> {
        let within = self.released.addresses.range(entry..).take_while(|(prefix, _)| entry.contains(**prefix));
        let is_held = |prefix: Prefix| self.assignments().any(|(.., held)| held.address.overlaps(prefix));
        within.filter_map(|known| self.warm(known, now)).filter(|(prefix, ..)| !is_held(*prefix)).collect()
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

    /// Takes addresses from a guest, all if none is named; returns them.
    ///
    /// A file without addresses is what a release leaves that could not put the hookscript back: it may go on.
    pub fn release(&mut self, vmid: Vmid, addresses: &[Prefix], now: Moment) -> Result<Vec<Prefix>, RuleError> {
        let Some(guest) = self.guests.get_mut(&vmid).filter(|guest| !guest.is_empty() || addresses.is_empty()) else {
            // A broken file of this very guest is the better explanation.
            self.whole()?;
            return Err(RuleError::NothingAssigned(vmid));
        };
        let held: BTreeMap<Prefix, PoolName> =
            guest.addresses().map(|(.., assigned)| (assigned.address, assigned.pool.clone())).collect();
        if let Some(address) = addresses.iter().find(|address| !held.contains_key(address)) {
            return Err(RuleError::NotHeld { vmid, address: *address });
        }
        let goes = |prefix: &Prefix| addresses.is_empty() || addresses.contains(prefix);
        for interface in guest.interfaces.values_mut() {
            interface.addresses.retain(|assigned| !goes(&assigned.address));
        }
        guest.interfaces.retain(|_, interface| !interface.addresses.is_empty());
        let gone: BTreeMap<Prefix, PoolName> = held.into_iter().filter(|(prefix, _)| goes(prefix)).collect();
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
        let mut found = Vec::new();
        let mut by_start: Vec<_> =
            self.assignments().map(|(vmid, nic, _, assigned)| (assigned.address, vmid, nic)).collect();
        by_start.sort_unstable();
        // Prefixes are nested or disjoint: a stack of the open ones is enough to find every overlap.
        let mut open: Vec<(Prefix, Vmid, NicId)> = Vec::new();
        for entry in by_start {
            open.retain(|outer| outer.0.contains(entry.0));
            for outer in open.iter().filter(|outer| outer.1 != entry.1) {
                let sentence = if outer.0 == entry.0 {
                    format!("{} is assigned to guest {} and to guest {}", entry.0, outer.1, entry.1)
                } else {
                    format!("{} of guest {} lies in {} of guest {}", entry.0, entry.1, outer.0, outer.1)
                };
                found.push((BTreeSet::from([outer.1, entry.1]), sentence));
            }
            open.push(entry);
        }
        let mut macs: BTreeMap<MacAddr, (Vmid, NicId)> = BTreeMap::new();
        for (vmid, guest) in &self.guests {
            for (nic, interface) in guest.interfaces.iter().filter(|(_, interface)| !interface.addresses.is_empty()) {
                match macs.get(&interface.mac) {
                    Some((other, other_nic)) if other != vmid => found.push((
                        BTreeSet::from([*other, *vmid]),
                        format!("MAC {} is that of guest {other} {other_nic} and of guest {vmid} {nic}", interface.mac),
                    )),
                    _ => {
                        macs.insert(interface.mac, (*vmid, *nic));
                    }
                }
            }
        }
        found
    }
}

/// The MAC must be the one that the provider bound to the address, if the provider does that.
fn check_provider_mac(request: &AssignRequest, address: Prefix, name: &PoolName, pool: &Pool) -> Result<(), RuleError> {
    match pool.entry(address).and_then(|entry| entry.mac) {
        Some(expected) => match request.nics.iter().find(|(_, mac)| *mac != expected) {
            Some((nic, actual)) => {
                let (vmid, nic, actual) = (request.vmid, *nic, *actual);
                Err(RuleError::ProviderMac { address, expected, vmid, nic, actual })
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

#[cfg(test)]
mod tests {
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
            organization: None,
            avoid: Vec::new(),
            contested: BTreeMap::new(),
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
        assert_eq!(error.to_string(), "203.0.113.2/32 is held by guest 100 (203.0.113.2/32)");
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
        assert_eq!(plain(registry.clone().assign(&next(one.clone())).unwrap()[0]), "203.0.113.3");
        let named = AssignRequest { contested: one.clone(), ..request("100", A, &["203.0.113.2"]) };
        let error = registry.assign(&named).unwrap_err();
        assert_eq!(error.to_string(), "203.0.113.2 is contested: somebody claims it");
        let hint = error.hint().unwrap();
        assert!(hint.ends_with("to assign it all the same, first `pve-public-ip conflicts ack 1a2b3c4d`"), "{hint}");
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
        let given = |found: Result<Vec<Prefix>, RuleError>| plain(found.unwrap()[0]);
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
            "to take it all the same, name it: `pve-public-ip assign 104 203.0.113.2`; to wait less: `pve-public-ip pool set lan --cool-down 10m`"
        );
        assert_eq!(given(registry.clone().assign(&next("104", A, at("11:10")))), "203.0.113.2");
        let off = |pool: &mut Pool| pool.cool_down = Some("0".parse().unwrap());
        registry.change_pool(&lan, off).unwrap();
        assert_eq!(given(registry.clone().assign(&next("104", A, at("10:30")))), "203.0.113.2");
        registry.release("101".parse().unwrap(), &[], at("12:00")).unwrap();
        assert_eq!(registry.released.addresses, BTreeMap::new(), "what has cooled down is forgotten");
    }

    #[test]
    fn next_free_takes_one_of_each_family() {
        let mut registry = registry();
        let mut next = request("100", A, &[]);
        next.pool = Some("lan".parse().unwrap());
        let given: Vec<String> = registry.assign(&next).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(given, ["203.0.113.2/32", "2001:db8::/128"]);
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
    fn what_is_assigned_keeps_its_pool() {
        let mut registry = registry();
        registry.assign(&request("100", A, &["203.0.113.2"])).unwrap();
        let lan = "lan".parse().unwrap();
        let message = registry.remove_from_pool(&lan, &[]).unwrap_err().to_string();
        assert_eq!(message, "203.0.113.2/32 of pool `lan` is assigned to guest 100");
        registry.remove_from_pool(&lan, &["2001:db8::/64".parse().unwrap()]).unwrap();
        let message = registry.remove_from_pool(&lan, &["2001:db8::/64".parse().unwrap()]).unwrap_err().to_string();
        assert_eq!(message, "pool `lan` has no entry 2001:db8::/64");
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
                "203.0.113.2/32 is assigned to guest 100 and to guest 200",
                "MAC 02:00:00:00:00:0a is that of guest 100 net0 and of guest 200 net0",
            ]
        );
    }

    #[test]
    fn a_broken_file_stops_every_change() {
        let mut registry = registry();
        registry.broken.push(DocumentError::new(std::path::Path::new("/x/7.json"), "is empty", "restore it"));
        let message = registry.assign(&request("100", A, &["203.0.113.2"])).unwrap_err().to_string();
        assert_eq!(message, "`/x/7.json` is empty");
    }
}
