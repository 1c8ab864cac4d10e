//! `guests/VMID.json`: what one guest holds, and how it is configured.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Document, VERSION};
use crate::model::{Family, GroupName, MacAddr, NicId, PoolName, Prefix, Timestamp, Vmid, again, once};

/// `guests/<vmid>.json`: the addresses of one guest, complete enough to bind it without any other file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct GuestFile {
    /// Format version, 1.
    pub version: u64,
    /// The guest; must agree with the file's name.
    pub vmid: Vmid,
    /// NICs that have addresses.
    #[serde(default, deserialize_with = "once::map")]
    pub interfaces: BTreeMap<NicId, Interface>,
    /// Hookscript volume that the guest had before; called from ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hookscript: Option<String>,
    /// How the guest is told its addresses.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cloud_init: CloudInit,
    /// NICs that were given a provider's MAC. Each gets its former one back after the release of its last address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "once::map")]
    pub given_macs: BTreeMap<NicId, GivenMac>,
}

/// The MACs of a NIC that was given a provider's MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct GivenMac {
    /// The provider's.
    pub given: MacAddr,
    /// What the NIC had before.
    pub former: MacAddr,
}

impl GuestFile {
    /// A guest without addresses.
    pub fn new(vmid: Vmid) -> Self {
        Self {
            version: VERSION,
            vmid,
            interfaces: BTreeMap::new(),
            hookscript: None,
            cloud_init: CloudInit::default(),
            given_macs: BTreeMap::new(),
        }
    }

    /// Remembers the MAC that a NIC had before it is given another one: the first of them, whatever it is given later. What
    /// somebody else has set since is the first again.
    pub fn note_given_mac(&mut self, nic: NicId, former: MacAddr, given: MacAddr) {
        let noted = self.given_macs.get(&nic);
        let is_ours = noted.is_some_and(|noted| [noted.given, noted.former].contains(&former));
        let former = noted.filter(|_| is_ours).map_or(former, |noted| noted.former);
        self.given_macs.insert(nic, GivenMac { given, former });
    }

    /// The NICs without addresses whose former MAC is still to be given back.
    pub fn macs_to_give_back(&self) -> BTreeMap<NicId, GivenMac> {
        let is_free = |(nic, _): &(&NicId, &GivenMac)| !self.interfaces.contains_key(*nic);
        self.given_macs.iter().filter(is_free).map(|(nic, noted)| (*nic, *noted)).collect()
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

    /// Whether it holds something in turn with other guests.
    pub fn shares(&self) -> bool {
        self.addresses().any(|(.., assigned)| assigned.shared.is_some())
    }

    /// Whether something of the guest is still to be put back as it was before.
    pub fn owes_something(&self) -> bool {
        !self.given_macs.is_empty() || !self.cloud_init.before.is_empty()
    }

    /// Whether an address is there twice, other than at NICs with the same MAC, or lies in a prefix beside it.
    fn has_overlaps(&self) -> bool {
        let mut last = None;
        let is_behind =
            |address: Prefix| last.replace(address.net().broadcast()).is_none_or(|last| last < address.first());
        // Most were assigned in their order.
        if self.addresses().map(|(.., assigned)| assigned.address).all(is_behind) {
            return false;
        }
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

impl Document for GuestFile {
    fn version(&self) -> u64 {
        self.version
    }

    fn contradiction(&self) -> Option<String> {
        let overlaps = self.has_overlaps();
        for (nic, interface, assigned) in self.addresses() {
            let at = || format!("interfaces.{nic}: {}", assigned.address);
            if let Some(reason) = assigned.via.and_then(|via| interface.against_via(assigned.address, via)) {
                return Some(format!("interfaces.{nic}: {reason}"));
            }
            if assigned.gateway.is_some_and(|gateway| gateway.is_ipv4() != (assigned.address.family() == Family::V4)) {
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
            if let Some(mac) = interface.further_macs.iter().find(|mac| **mac == interface.mac || is_virtual(**mac)) {
                let why = if *mac == interface.mac { "the NIC's own" } else { "that of a virtual router: see `vrrp`" };
                return Some(format!("interfaces.{nic}.further_macs: {mac} is {why}"));
            }
            if interface.vrrp.contains(&0) {
                return Some(format!("interfaces.{nic}.vrrp: 0 is not a virtual router (1 to 255)"));
            }
            // One after the other, sorted: what overlaps another stands beside it.
            let also: Vec<&Prefix> = interface.also.iter().collect();
            if let Some([one, two]) =
                also.windows(2).map(|pair| [pair[0], pair[1]]).find(|[one, two]| one.overlaps(**two))
            {
                return Some(format!("interfaces.{nic}.also: {one} overlaps {two}"));
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
    /// Addresses that no pool holds and the NIC has besides, as those of a private network on the same bridge. They never leave
    /// by an uplink, and are neither routed nor answered for.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub also: BTreeSet<Prefix>,
    /// Further MACs of the NIC, as those of nested bridges and macvlan: each may use what the NIC may.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub further_macs: BTreeSet<MacAddr>,
    /// Virtual routers (1 to 255) whose MACs the NIC may use (RFC 9568); other guests may be members, too.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub vrrp: BTreeSet<u8>,
    /// The NIC's own addresses.
    #[serde(default)]
    pub addresses: Vec<Assigned>,
}

impl Interface {
    /// The MACs that are the NIC's alone.
    pub fn own_macs(&self) -> impl Iterator<Item = MacAddr> {
        std::iter::once(self.mac).chain(self.further_macs.iter().copied())
    }

    /// The virtual MACs that it shares with the other members of its virtual routers: for IPv4 and for IPv6 (RFC 9568 7.3).
    pub fn virtual_macs(&self) -> impl Iterator<Item = MacAddr> {
        self.vrrp.iter().flat_map(|id| [1, 2].map(|family| MacAddr::from_octets([0, 0, 0x5e, 0, family, *id])))
    }

    /// Every MAC with which it may send.
    pub fn all_macs(&self) -> impl Iterator<Item = MacAddr> {
        self.own_macs().chain(self.virtual_macs())
    }

    /// Why a prefix cannot be reached through this address, if so.
    pub fn against_via(&self, address: Prefix, via: IpAddr) -> Option<String> {
        if address.single().is_some() {
            return Some(format!("{address} is one address: only a prefix is reached through another address"));
        }
        if via.is_ipv4() != (address.family() == Family::V4) {
            return Some(format!("{address} cannot be reached through {via}, which is of the other family"));
        }
        if let IpAddr::V6(via) = via {
            let is_own = self.link_local.contains(&via) || self.any_link_local || via == self.mac.link_local();
            if via.is_unicast_link_local() && is_own {
                return None;
            }
        }
        let net = address.net();
        if net.contains(&via) {
            let is_end = via == net.network() || via.is_ipv4() && via == net.broadcast();
            let has_ends = net.max_prefix_len() - net.prefix_len() > 1;
            return (is_end && has_ends)
                .then(|| format!("{address} cannot be reached through {via}, which is its first or its last address"));
        }
        // Through a prefix that is itself behind something it would take two steps.
        let holds = |held: &Assigned| held.via.is_none() && held.address.net().contains(&via);
        let is_held = self.addresses.iter().any(holds);
        (!is_held).then(|| format!("{address} cannot be reached through {via}, which is no address of the same NIC"))
    }
}

/// Whether a MAC is that of a virtual router.
fn is_virtual(mac: MacAddr) -> bool {
    matches!(mac.octets(), [0, 0, 0x5e, 0, 1 | 2, _])
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
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "again::address")]
    pub gateway: Option<IpAddr>,
    /// Customer or department; carried, not interpreted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// The name by which a caller of the API knows the guest; carried, and looked up when the caller names it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vps_id: Option<String>,
    /// Through which address the guest is reached for a prefix that it routes: one of its own, or one of the prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// The group of guests that hold the address in turn, such as those of one virtual router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<GroupName>,
    /// When it was assigned (RFC 3339, UTC).
    pub assigned_at: Timestamp,
}

impl Assigned {
    /// What the guest is configured with. Of a prefix that it routes that is the address of transit, if this is one of the
    /// prefix. Nothing of an address that it shares: whoever has it at the moment configures it by itself.
    pub fn configured(&self) -> Option<Prefix> {
        match (&self.shared, self.via) {
            (Some(_), _) => None,
            (None, Some(via)) => Prefix::host(via).ok().filter(|via| self.address.contains(*via)),
            (None, None) => Some(self.address),
        }
    }

    /// Whether two guests may hold this and that at a time: the same address, in one group.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        self.address == other.address && self.shared.is_some() && self.shared == other.shared
    }
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
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "once::map")]
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
                    address, pool: "a".parse().unwrap(), gateway: None, organization: None, vps_id: None, via: None, shared: None, assigned_at: "2026-11-22T10:00:00Z".parse().unwrap(),
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
}
