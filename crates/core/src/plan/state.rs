//! The network state that this program owns: wanted or found, the same type on purpose.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::model::{IfName, MacAddr};
use crate::ruleset::{Chains, Element, IpSetName, IptablesTable, Table};

/// State that carries our mark. Keys are what the kernel treats as identity, values are what may differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetState {
    /// How much of the bridge table's text is loaded.
    pub rules: Rules,
    /// The same of the table for routed traffic.
    pub routed_rules: Rules,
    /// Members of the sets.
    pub elements: BTreeSet<Element>,
    /// Members of the sets of `ipset`.
    pub ipsets: BTreeMap<IpSetName, BTreeSet<String>>,
    /// What iptables has of ours.
    pub chains: BTreeMap<IptablesTable, Chains>,
    /// Bridges that must not learn from link-local frames (these skip every filter, and are learnt all the same).
    pub deaf_bridges: BTreeSet<IfName>,
    /// Guests' ports by which nothing comes in that has not passed the filter: what is for a group of the bridge itself
    /// would else be the node's own input, as if the port were a network card.
    pub screened_ports: BTreeSet<IfName>,
    /// Bridges that keep their MAC, whatever ports come and go: with another one Linux forgets every neighbour on them.
    pub fixed_macs: BTreeSet<IfName>,
    /// Bridges that know their own MAC as local: without that entry they take what is sent to the node for a stranger's.
    pub own_entries: BTreeSet<IfName>,
    /// Forwarding entries `static sticky`: a bound MAC stays at its port. They hold for untagged frames; the value lists
    /// the VLANs in which the guest may send tagged frames, too.
    pub forwarding: BTreeMap<(IfName, MacAddr), BTreeSet<u16>>,
    /// What routed guests need of the node around them.
    pub support: Support,
    /// Permanent neighbours by device and address.
    pub neighbours: BTreeMap<(IfName, IpAddr), MacAddr>,
    /// Host and prefix routes.
    pub routes: BTreeMap<IpNet, Route>,
}

impl NetState {
    /// How much of a table's text is loaded.
    pub fn rules_of(&self, table: Table) -> Rules {
        match table {
            Table::Bridge => self.rules,
            Table::Inet => self.routed_rules,
        }
    }

    /// The same, to be changed.
    pub fn rules_of_mut(&mut self, table: Table) -> &mut Rules {
        match table {
            Table::Bridge => &mut self.rules,
            Table::Inet => &mut self.routed_rules,
        }
    }

    /// Exchanges what the filters consist of, but for how much of the tables' text is loaded.
    pub fn swap_filter(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.elements, &mut other.elements);
        std::mem::swap(&mut self.ipsets, &mut other.ipsets);
        std::mem::swap(&mut self.chains, &mut other.chains);
    }

    /// Drops what the kernel may have dropped by itself because this interface has changed: what hangs on a port goes when
    /// it is plugged elsewhere, routes and neighbours go when their bridge goes down.
    pub fn forget_what_hangs_on(&mut self, device: IfName) {
        self.forwarding.retain(|(port, _), _| *port != device);
        self.screened_ports.remove(&device);
        self.neighbours.retain(|(on, _), _| *on != device);
        self.routes.retain(|_, route| route.device != device);
        self.support.settings.retain(|setting| setting.device() != Some(device));
        self.support.gateways.retain(|(on, _)| *on != device);
        self.support.proxies.retain(|(on, _)| *on != device);
    }
}

/// What routed guests need of the node around them, as long as they run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    /// Kernel settings; of those found, the ones that are as wanted, or that were changed by us and are wanted no more.
    pub settings: BTreeSet<Setting>,
    /// Gateways that the node has for its guests only, by bridge.
    pub gateways: BTreeSet<(IfName, IpAddr)>,
    /// Addresses for which the node answers on an uplink.
    pub proxies: BTreeSet<(IfName, IpAddr)>,
}

impl Support {
    /// Adds what another one needs.
    pub fn extend(&mut self, other: Self) {
        self.settings.extend(other.settings);
        self.gateways.extend(other.gateways);
        self.proxies.extend(other.proxies);
    }

    /// What is here and not in the other one.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self {
            settings: self.settings.difference(&other.settings).copied().collect(),
            gateways: self.gateways.difference(&other.gateways).copied().collect(),
            proxies: self.proxies.difference(&other.proxies).copied().collect(),
        }
    }

    /// Whether nothing is needed.
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty() && self.gateways.is_empty() && self.proxies.is_empty()
    }
}

/// A kernel setting with the only value that is ever wanted of it, in the order of setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// Go on listening to router advertisements although the node forwards. First, because without it the kernel forgets
    /// the default routes that it has learnt as soon as it forwards.
    AcceptRa(IfName),
    /// Do not answer ARP here for addresses of other interfaces: the bridge of a guest's NIC firewall would else answer for
    /// the guest's gateway, too, and get its packets, which it does not forward.
    ArpIgnore(IfName),
    /// Forward IPv4 packets that come in here; the kernel asks the interface alone.
    Forwarding4(IfName),
    /// Forward IPv6 packets, whichever interface they come in by: before Linux 6.17 there is no other way.
    Forwarding6,
    /// Forward IPv6 packets that come in here, since Linux 6.17; nobody on another interface has a router in the node.
    ForceForwarding6(IfName),
    /// Be an IPv6 router here: answer for others, and take no router's word. Set by [`Self::Forwarding6`] too, but somebody
    /// may have reset it.
    Router6(IfName),
    /// Answer neighbour solicitations for others.
    ProxyNdp(IfName),
    /// Believe who announces itself here at once. Else the kernel ignores an announcement within a second of the last change
    /// of the neighbour, and an address that guests hold in turn stays with the one that has lost it.
    NeighbourLock(IfName),
}

impl Setting {
    /// Its file below `/proc/sys`. Names of interfaces may have dots, so keys with dots would not do.
    pub fn path(&self) -> String {
        match self {
            Self::AcceptRa(device) => format!("net/ipv6/conf/{device}/accept_ra"),
            Self::ArpIgnore(device) => format!("net/ipv4/conf/{device}/arp_ignore"),
            Self::Forwarding4(device) => format!("net/ipv4/conf/{device}/forwarding"),
            Self::Forwarding6 => "net/ipv6/conf/all/forwarding".to_owned(),
            Self::ForceForwarding6(device) => format!("net/ipv6/conf/{device}/force_forwarding"),
            Self::Router6(device) => format!("net/ipv6/conf/{device}/forwarding"),
            Self::ProxyNdp(device) => format!("net/ipv6/conf/{device}/proxy_ndp"),
            Self::NeighbourLock(device) => format!("net/ipv4/neigh/{device}/locktime"),
        }
    }

    /// The value that is wanted.
    pub fn value(&self) -> u32 {
        match self {
            Self::AcceptRa(_) => 2,
            Self::NeighbourLock(_) => 0,
            _ => 1,
        }
    }

    /// The interface, unless it is about the whole node.
    pub fn device(&self) -> Option<IfName> {
        match self {
            Self::AcceptRa(device)
            | Self::ArpIgnore(device)
            | Self::Forwarding4(device)
            | Self::ForceForwarding6(device)
            | Self::Router6(device)
            | Self::ProxyNdp(device)
            | Self::NeighbourLock(device) => Some(*device),
            Self::Forwarding6 => None,
        }
    }
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The bridge.
    pub device: IfName,
    /// The guest that routes a prefix; `None`: the address is on the bridge itself.
    pub via: Option<IpAddr>,
}

/// How much of the filter's text is loaded, in the order of loading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rules {
    /// No table, or a set is missing: nothing is filtered.
    #[default]
    Absent,
    /// The sets are there; the rules are missing or are not those of this release.
    Different,
    /// Exactly the rules of this release.
    Loaded,
}
