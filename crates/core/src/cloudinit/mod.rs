//! What a guest has to find inside, and how it is told: decided here, written and compared elsewhere.
//!
//! ```text
//!  guests/100.json ---+
//!  pools.json      ---+--> wanted() --> Wanted --+--> ipconfigN       where Proxmox VE's own words suffice
//!  100.conf        ---+                          +--> document()      where they do not
//!  resolv.conf     ---+                          +--> compared with the guest's image before it starts
//! ```

mod change;
mod check;
mod document;
mod manual;
mod snippet;
mod snippet_storage;
mod told;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

pub use change::{Boot, Change, Current, Refusal, Request, change, instance_id, looks_at_every_boot, withdrawal};
pub use check::{Contents, Finding, borrowed, check, check_document, check_lines};
pub use document::document;
use document::quoted;
pub use manual::{Manual, manuals};
pub use snippet::{Part, SnippetName};
pub use snippet_storage::{SnippetStorage, choose_snippet_storage};

use crate::guest::{Addressing, CloudInitForm, GuestConfig, IpConfig, IpFamily, NicError};
use crate::model::{Family, GuestKind, MacAddr, NicId, Prefix, Vmid};
use crate::registry::document::{Assigned, GuestFile, GuestOs, Mode, PoolsFile};

/// What the guest has to find inside: every NIC that it can know of, not only those with public addresses, because a
/// document of ours takes the place of Proxmox VE's whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// By NIC.
    pub nics: BTreeMap<NicId, WantedNic>,
    /// What the administrator should know about it, in whole sentences.
    pub notes: Vec<String>,
}

/// One NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedNic {
    /// Its name inside, as Proxmox VE has it: `eth0`.
    pub name: String,
    /// Its MAC.
    pub mac: MacAddr,
    /// Its MTU, if it is not the bridge's.
    pub mtu: Option<u16>,
    /// Whether it has assignments; the others are carried over as they are.
    pub assigned: bool,
    /// Addresses, IPv4 before IPv6.
    pub subnets: Vec<Subnet>,
    /// Name servers, on one NIC only and of its families only. From the guest's configuration, else from the node's
    /// `resolv.conf`, which may have changed since.
    pub name_servers: Vec<IpAddr>,
    /// Domains to search, on the same NIC.
    pub search_domains: Vec<String>,
}

/// Where one address of a NIC comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subnet {
    /// A fixed address.
    Static {
        /// The address with the length of its prefix.
        address: IpNet,
        /// The default gateway, at most one for each family of the guest.
        gateway: Option<Gateway>,
    },
    /// DHCP for IPv4.
    Dhcp4,
    /// DHCP for IPv6.
    Dhcp6,
    /// Router advertisements.
    Auto,
}

/// A default gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gateway {
    /// Its address.
    pub address: IpAddr,
    /// Whether it lies outside the prefix of the address, so that the guest has to be told that it is on the link.
    pub outside: bool,
}

/// Name servers and domains of the node, for guests that have none of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    /// `nameserver`.
    pub name_servers: Vec<IpAddr>,
    /// `search` or `domain`.
    pub search_domains: Vec<String>,
}

/// Why the guest's network is not configured by this program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsuitable {
    /// The administrator said so.
    #[error("its network is left to you (`cloud_init` is off)")]
    Off,
    /// Nothing that carries data to the guest.
    #[error("the guest has no cloud-init drive")]
    NoDrive,
    /// Nobody knows which one it reads.
    #[error("it has two cloud-init drives: {0}")]
    TwoDrives(String),
    /// cloudbase-init refuses a gateway outside the prefix and knows one family only.
    #[error("cloud-init cannot configure the network of Windows reliably")]
    Windows,
    /// A form that cannot say what is needed.
    #[error("its cloud-init data is in the form {form}, which cannot carry its network", form = _0.as_str())]
    Form(CloudInitForm),
    /// A NIC that cannot be told apart from another.
    #[error("its {0} and {1} have the same MAC, and cloud-init knows a NIC by its MAC")]
    SameMac(NicId, NicId),
    /// A NIC of the configuration that is not usable.
    #[error("{0}: {1}")]
    Nic(NicId, String),
    /// A broken line.
    #[error("`{0}` is not understood: {1}")]
    IpConfig(String, NicError),
    /// Two default gateways of one family.
    #[error("it would have two {family} default gateways: {ours} and, by `{key}`, {theirs}")]
    TwoGateways {
        /// Of both.
        family: Family,
        /// Of the assignment.
        ours: IpAddr,
        /// The other one.
        theirs: IpAddr,
        /// The line that names it.
        key: String,
        /// The same line without it.
        without: String,
    },
    /// Proxmox VE configures one address of a family in a container.
    #[error("Proxmox VE gives a container's NIC one {family} address, and {nic} holds {count}")]
    Container {
        /// The NIC.
        nic: NicId,
        /// Of both.
        family: Family,
        /// How many it has.
        count: usize,
    },
    /// ifupdown-ng cannot have a gateway outside the prefix.
    #[error("Alpine cannot have the gateway {1}, which is far from its address {0}")]
    Alpine(IpNet, IpAddr),
}

impl Unsuitable {
    /// The administrator's next step.
    pub fn hint(&self, vmid: Vmid, kind: GuestKind) -> String {
        let tool = kind.tool();
        let inside = format!("`pve-public-ip show {vmid}` says what to configure inside");
        match self {
            Self::Off
            | Self::NoDrive
            | Self::Windows
            | Self::SameMac(..)
            | Self::Container { .. }
            | Self::Alpine(..) => inside,
            Self::TwoDrives(drives) => {
                let last = drives.rsplit(' ').next().unwrap_or_default();
                format!("remove one: `qm set {vmid} --delete {last}`")
            }
            Self::Form(_) => format!("`qm set {vmid} --citype nocloud` if it is a Linux guest; else {inside}"),
            Self::Nic(..) | Self::IpConfig(..) => format!("correct it: `{tool} config {vmid}`"),
            Self::TwoGateways { key, without, .. } => {
                format!("take one away: `{tool} set {vmid} --{key} {without}`; then assign again")
            }
        }
    }
}

impl Wanted {
    /// Whether Proxmox VE's own document cannot say it: several addresses of a family on a NIC, a gateway outside the
    /// prefix.
    pub fn needs_document(&self) -> bool {
        let more_than_one = |nic: &WantedNic| {
            Family::BOTH.iter().any(|family| nic.subnets.iter().filter(|subnet| subnet.family() == *family).count() > 1)
        };
        let outside =
            |subnet: &Subnet| matches!(subnet, Subnet::Static { gateway: Some(gateway), .. } if gateway.outside);
        self.nics.values().any(|nic| more_than_one(nic) || nic.subnets.iter().any(outside))
    }
}

impl WantedNic {
    /// As much of it as fits into `ipconfigN`: the first address of each family.
    pub fn ip_config(&self) -> IpConfig {
        let first_of = |family: Family| {
            let first = self.subnets.iter().find(|subnet| subnet.family() == family);
            first.map_or_else(IpFamily::default, |subnet| match subnet {
                Subnet::Static { address, gateway } => IpFamily {
                    address: Some(Addressing::Static(*address)),
                    gateway: gateway.map(|gateway| gateway.address),
                },
                Subnet::Dhcp4 | Subnet::Dhcp6 => IpFamily { address: Some(Addressing::Dhcp), gateway: None },
                Subnet::Auto => IpFamily { address: Some(Addressing::Auto), gateway: None },
            })
        };
        IpConfig { v4: first_of(Family::V4), v6: first_of(Family::V6) }
    }

    /// The default gateway of a family.
    pub fn gateway(&self, family: Family) -> Option<Gateway> {
        self.subnets.iter().find_map(|subnet| match subnet {
            Subnet::Static { gateway: Some(gateway), .. } if Family::of(gateway.address) == family => Some(*gateway),
            _ => None,
        })
    }

    /// Whether only a router's advertisement can tell it the IPv6 gateway: it has addresses, and none is named.
    pub fn awaits_router(&self) -> bool {
        self.has(Family::V6) && self.gateway(Family::V6).is_none()
    }

    fn has(&self, family: Family) -> bool {
        self.subnets.iter().any(|subnet| subnet.family() == family)
    }
}

impl Subnet {
    /// Of its addresses; router advertisements are IPv6.
    pub fn family(self) -> Family {
        match self {
            Self::Static { address, .. } => Family::of_net(address),
            Self::Dhcp4 => Family::V4,
            Self::Dhcp6 | Self::Auto => Family::V6,
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static { address, gateway: None } => write!(f, "{address}"),
            Self::Static { address, gateway: Some(gateway) } => write!(f, "{address} via {}", gateway.address),
            Self::Dhcp4 => f.write_str("DHCP"),
            Self::Dhcp6 => f.write_str("DHCPv6"),
            Self::Auto => f.write_str("router advertisements"),
        }
    }
}

/// The command that tells a guest anew what it holds.
pub fn assign_command(guest: &GuestFile) -> String {
    let first = guest.addresses().next().map_or_else(String::new, |(nic, _, assigned)| {
        let net = nic.net_option();
        format!(" {}{net}", assigned.address)
    });
    format!("pve-public-ip assign {}{first}", guest.vmid)
}

/// Decides what the guest has to find inside, or says why this program does not tell it.
pub fn wanted(
    guest: &GuestFile,
    pools: &PoolsFile,
    config: &GuestConfig,
    resolver: &Resolver,
) -> Result<Wanted, Unsuitable> {
    if guest.cloud_init.is_off() {
        return Err(Unsuitable::Off);
    }
    if config.kind == GuestKind::Qemu {
        check_drive(config)?;
    }
    inside(guest, pools, config, resolver)
}

/// What the guest has to find inside, by whatever way it gets there.
pub fn inside(
    guest: &GuestFile,
    pools: &PoolsFile,
    config: &GuestConfig,
    resolver: &Resolver,
) -> Result<Wanted, Unsuitable> {
    let mut wanted = Wanted { nics: BTreeMap::new(), notes: Vec::new() };
    for (id, nic) in &config.nics {
        let held = guest.interfaces.get(id).map(|interface| interface.addresses.as_slice()).unwrap_or_default();
        let held = held.iter().filter_map(|one| Some(Assigned { address: one.configured()?, ..one.clone() }));
        let held: Vec<Assigned> = held.collect();
        let current = base(guest, pools, config, *id)?;
        if held.is_empty() && current == IpConfig::default() {
            continue;
        }
        let nic = nic.as_ref().map_err(|error| Unsuitable::Nic(*id, error.to_string()))?;
        let mac = nic.mac.ok_or_else(|| Unsuitable::Nic(*id, "it has no fixed MAC".to_owned()))?;
        if let Some((twin, _)) = wanted.nics.iter().find(|(_, other)| other.mac == mac) {
            return Err(Unsuitable::SameMac(*twin, *id));
        }
        let mut subnets = Vec::new();
        for (family, configured) in [(Family::V4, &current.v4), (Family::V6, &current.v6)] {
            let is_of = |held: &&Assigned| Family::of(held.address.first()) == family;
            let own: Vec<&Assigned> = held.iter().filter(is_of).collect();
            if config.kind == GuestKind::Lxc && own.len() > 1 {
                return Err(Unsuitable::Container { nic: *id, family, count: own.len() });
            }
            if own.is_empty() {
                subnets.extend(carried_over(configured, family));
            }
            for assigned in own {
                subnets.push(assigned_subnet(assigned, pools, guest.cloud_init.os)?);
            }
        }
        wanted.nics.insert(
            *id,
            WantedNic {
                name: format!("eth{}", id.index()),
                mac,
                mtu: nic.mtu,
                assigned: !held.is_empty(),
                subnets,
                name_servers: Vec::new(),
                search_domains: Vec::new(),
            },
        );
    }
    for family in Family::BOTH {
        one_gateway(&mut wanted, config, family)?;
    }
    name_servers(&mut wanted, guest.vmid, config, resolver);
    Ok(wanted)
}

/// What a NIC is configured with beside its assignments: the line as it is, but for an address of a pool the one before.
fn base(guest: &GuestFile, pools: &PoolsFile, config: &GuestConfig, nic: NicId) -> Result<IpConfig, Unsuitable> {
    let Some(now) = config.ip_config(nic) else { return Ok(IpConfig::default()) };
    let now = now.map_err(|error| Unsuitable::IpConfig(config.ip_config_key(nic), error))?;
    let before = guest.cloud_init.before.get(&nic).and_then(|line| IpConfig::parse(line).ok()).unwrap_or_default();
    Ok(IpConfig {
        v4: if is_pooled(pools, &now.v4) { before.v4 } else { now.v4 },
        v6: if is_pooled(pools, &now.v6) { before.v6 } else { now.v6 },
    })
}

/// The addresses that a network document gives to the NICs with these MACs, whoever wrote it. Nothing of one that is not
/// understood.
pub fn addresses(document: &str) -> Vec<(MacAddr, Vec<IpNet>)> {
    let told = told::parse(document).unwrap_or_default();
    told.nics.into_iter().map(|nic| (nic.mac, nic.addresses)).collect()
}

/// What to remember of a NIC that gets its first assignment, if the guest can be told.
pub fn before(guest: &GuestFile, pools: &PoolsFile, config: &GuestConfig, nic: NicId) -> Option<String> {
    let told = config.kind == GuestKind::Lxc || check_drive(config).is_ok();
    if !told || guest.cloud_init.is_off() || guest.cloud_init.before.contains_key(&nic) {
        return None;
    }
    base(guest, pools, config, nic).ok().map(|line| line.to_string())
}

/// Whether a guest's configuration has anything that has to be taken back when its last assignment is released.
pub fn has_traces(guest: &GuestFile, config: &GuestConfig) -> bool {
    let network = config.cicustom().get(Part::Network.as_str()).copied().and_then(SnippetName::of_volume);
    network.is_some() || !guest.cloud_init.before.is_empty()
}

fn is_pooled(pools: &PoolsFile, family: &IpFamily) -> bool {
    let Some(Addressing::Static(net)) = family.address else { return false };
    pools.pools.values().flat_map(|pool| &pool.addresses).any(|entry| entry.address.net().contains(&net.addr()))
}

/// One drive, in a form that Linux reads whole.
fn check_drive(config: &GuestConfig) -> Result<(), Unsuitable> {
    let drives = config.cloud_init_drives();
    let form = config.cloud_init_form();
    match drives.len() {
        0 => Err(Unsuitable::NoDrive),
        1 if config.is_windows() => Err(Unsuitable::Windows),
        1 if form != CloudInitForm::NoCloud => Err(Unsuitable::Form(form)),
        1 => Ok(()),
        _ => Err(Unsuitable::TwoDrives(drives.into_keys().collect::<Vec<_>>().join(" and "))),
    }
}

fn carried_over(configured: &IpFamily, family: Family) -> Option<Subnet> {
    match configured.address? {
        Addressing::Static(address) => Some(Subnet::Static { address, gateway: gateway(address, configured.gateway) }),
        Addressing::Dhcp if family == Family::V4 => Some(Subnet::Dhcp4),
        Addressing::Dhcp => Some(Subnet::Dhcp6),
        Addressing::Auto => Some(Subnet::Auto),
        Addressing::Manual => None,
    }
}

fn gateway(address: IpNet, gateway: Option<IpAddr>) -> Option<Gateway> {
    let gateway = gateway?;
    let outside = !address.contains(&gateway) && !is_link_local(gateway);
    Some(Gateway { address: gateway, outside })
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The length of what is on the link of a guest that uses an address of a pool's entry.
///
/// An entry that contains its gateway is a subnet. Of any other entry nothing is known to be on the link, except that guests on
/// a bridge see the whole of an IPv6 entry there.
pub fn prefix_length(address: Prefix, entry: Prefix, gateway: Option<IpAddr>, bridged: bool) -> u8 {
    let narrow = entry.net().prefix_len();
    match (address.single(), gateway) {
        // A prefix that the guest holds whole is its own link.
        (None, _) => address.net().prefix_len(),
        (Some(_), Some(gateway)) if entry.net().contains(&gateway) => narrow,
        (Some(IpAddr::V6(_)), _) if bridged => narrow.max(64),
        (Some(IpAddr::V6(_)), _) => 128,
        (Some(IpAddr::V4(_)), _) => 32,
    }
}

/// The address that the guest uses of an assignment, with the length of what is on its link.
fn assigned_subnet(assigned: &Assigned, pools: &PoolsFile, os: GuestOs) -> Result<Subnet, Unsuitable> {
    let pool = pools.pools.get(&assigned.pool);
    let entry = pool.and_then(|pool| pool.entry(assigned.address)).map_or(assigned.address, |entry| entry.address);
    let bridged = pool.is_some_and(|pool| pool.mode() == Mode::Bridged);
    let address = own_address(assigned.address, assigned.gateway);
    let length = prefix_length(assigned.address, entry, assigned.gateway, bridged);
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let mut net = IpNet::new(address, length.min(longest)).unwrap_or_else(|_| IpNet::from(address));
    if let (GuestOs::Alpine, IpNet::V6(narrow), Some(IpAddr::V6(outside))) = (os, net, assigned.gateway) {
        if gateway(net, assigned.gateway).is_some_and(|gateway| gateway.outside) {
            // ifupdown-ng has no word for a gateway outside, so the prefix has to become wide enough for it.
            let common = (u128::from(narrow.addr()) ^ u128::from(outside)).leading_zeros();
            let common = u8::try_from(common).ok().filter(|length| *length >= 48);
            let common = common.ok_or(Unsuitable::Alpine(net, IpAddr::V6(outside)))?;
            net = IpNet::new(address, common).unwrap_or(net);
        }
    }
    Ok(Subnet::Static { address: net, gateway: gateway(net, assigned.gateway) })
}

/// The address itself; of a prefix the first one that is neither its network nor the gateway.
fn own_address(prefix: Prefix, gateway: Option<IpAddr>) -> IpAddr {
    let first = prefix.first();
    if prefix.single().is_some() {
        return first;
    }
    let nth = |n: u8| match first {
        IpAddr::V4(address) => IpAddr::from((u32::from(address) + u32::from(n)).to_be_bytes()),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) + u128::from(n))),
    };
    // Of two addresses (a /31) both are usable.
    let pair = prefix.net().max_prefix_len() - prefix.net().prefix_len() == 1;
    let candidates = if pair { [nth(0), nth(1)] } else { [nth(1), nth(2)] };
    if gateway == Some(candidates[0]) { candidates[1] } else { candidates[0] }
}

/// Leaves one default gateway of a family: that of the first NIC with assignments.
fn one_gateway(wanted: &mut Wanted, config: &GuestConfig, family: Family) -> Result<(), Unsuitable> {
    let mut ours: Option<(NicId, Gateway)> = None;
    for (id, nic) in wanted.nics.iter_mut().filter(|(_, nic)| nic.assigned) {
        for subnet in &mut nic.subnets {
            let Subnet::Static { address, gateway } = subnet else { continue };
            if Family::of_net(*address) != family {
                continue;
            }
            match (&mut *gateway, ours) {
                (None, None) => wanted.notes.push(format!(
                    "no gateway is known for {}: the guest gets no {family} default route by it",
                    address.addr()
                )),
                (None, _) => {}
                (Some(found), None) => ours = Some((*id, *found)),
                (Some(found), Some((first, default))) => {
                    if *id != first || found.address != default.address {
                        wanted.notes.push(format!(
                            "{} on {id} gets no default gateway, because a guest has one for {family} \
                             ({} on {first}); replies to other networks leave by that one",
                            address.addr(),
                            default.address
                        ));
                    }
                    *gateway = None;
                }
            }
        }
    }
    let Some((_, ours)) = ours else { return Ok(()) };
    for (id, nic) in wanted.nics.iter().filter(|(_, nic)| !nic.assigned) {
        if let Some(theirs) = nic.gateway(family) {
            let key = config.ip_config_key(*id);
            let mut without = nic.ip_config();
            let line = match family {
                Family::V4 => &mut without.v4,
                Family::V6 => &mut without.v6,
            };
            line.gateway = None;
            let (ours, theirs, without) = (ours.address, theirs.address, config.with_ip_config(*id, &without));
            return Err(Unsuitable::TwoGateways { family, ours, theirs, key, without });
        }
    }
    Ok(())
}

/// Puts the name servers on the NIC with the default gateway, and leaves out those that the NIC has no address for: a
/// server of another family makes older renderers for `NetworkManager` refuse the whole NIC.
fn name_servers(wanted: &mut Wanted, vmid: Vmid, config: &GuestConfig, resolver: &Resolver) {
    let needs_document = wanted.needs_document();
    let own = config.name_servers();
    let servers = if own.is_empty() { resolver.name_servers.clone() } else { own };
    let own: Vec<String> = config.search_domains().into_iter().map(str::to_owned).collect();
    let domains = if own.is_empty() { resolver.search_domains.clone() } else { own };
    let rank = |nic: &&mut WantedNic| {
        let has_gateway = Family::BOTH.iter().any(|family| nic.gateway(*family).is_some());
        (!has_gateway, !nic.assigned)
    };
    let Some(nic) = wanted.nics.values_mut().min_by_key(rank) else { return };
    let (usable, other): (Vec<IpAddr>, Vec<IpAddr>) =
        servers.into_iter().partition(|server| nic.has(Family::of(*server)));
    // Proxmox VE's own document would name it all the same.
    if let (true, true, Some(server)) = (needs_document, usable.is_empty(), other.first()) {
        let (family, needed) = if server.is_ipv4() { (4, 6) } else { (6, 4) };
        wanted.notes.push(format!(
            "the guest gets no name server: {server} is of IPv{family}, and {name} has only IPv{needed}; \
             `qm set {vmid} --nameserver ...` names one",
            name = nic.name
        ));
    }
    nic.name_servers = usable;
    nic.search_domains = domains;
}

/// The resolver of a node, from the text of its `resolv.conf`. Its own loopback addresses are of no use to a guest.
pub fn resolver(text: &str) -> Resolver {
    let mut found = Resolver::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => found.name_servers.extend(words.filter_map(|word| word.parse::<IpAddr>().ok())),
            // Of several lines the last counts: resolv.conf(5).
            Some("search" | "domain") => found.search_domains = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    found.name_servers.retain(|server| !server.is_loopback());
    found
}
