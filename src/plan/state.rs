//! The network state that this program owns: wanted or found, the same type on purpose.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{IfName, MacAddr};
use crate::ruleset::{Element, Table};

/// State that carries our mark. Keys are what the kernel treats as identity, values are what may differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetState {
    /// How much of the bridge table's text is loaded.
    pub rules: Rules,
    /// The same of the table for routed traffic.
    pub routed_rules: Rules,
    /// Members of the sets.
    pub elements: BTreeSet<Element>,
    /// Bridges that must not learn from link-local frames (these skip every filter, and are learnt all the same).
    pub deaf_bridges: BTreeSet<IfName>,
    /// Forwarding entries `static sticky`: a bound MAC stays at its port.
    pub forwarding: BTreeSet<(IfName, MacAddr)>,
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

    /// Drops what the kernel may have dropped by itself because this interface has changed: what hangs on a port goes when
    /// it is plugged elsewhere, routes and neighbours go when their bridge goes down.
    pub fn forget_what_hangs_on(&mut self, device: IfName) {
        self.forwarding.retain(|(port, _)| *port != device);
        self.neighbours.retain(|(on, _), _| *on != device);
        self.routes.retain(|_, route| route.device != device);
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
