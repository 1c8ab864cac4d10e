//! The kernel as the plan sees it: observe the state that is ours, apply steps to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::bridges;
use super::nftables::{FilterError, Nftables, Reference};
use super::routing::{Routing, RoutingError};
use super::run::RunState;
use super::settings::{self, SettingError, Settings};
use super::tally::Tallies;
use super::xtables::{self, XtablesError};
use crate::code;
use crate::links::Link;
use crate::links::Links;
use crate::model::{Code, IfName, MacAddr};
use crate::plan::present::Neighbour;
use crate::plan::{Exits, Foreign, NetState, Refusal, Rules, Setting, Step, Support, Surroundings, interface_down};
use crate::ruleset::{Backend, Element, Table, Variant};

/// The kernel could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Neighbours, routes, bridges.
    #[error(transparent)]
    Routing(#[from] RoutingError),
    /// Kernel settings.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// iptables, ipset.
    #[error(transparent)]
    Xtables(#[from] XtablesError),
}

impl From<super::netlink::NetlinkError> for KernelError {
    fn from(error: super::netlink::NetlinkError) -> Self {
        Self::Routing(error.into())
    }
}

impl KernelError {
    /// Its kind.
    pub fn code(&self) -> Code {
        match self {
            Self::Routing(RoutingError::Foreign(_)) => code!("foreign-state-in-the-way"),
            Self::Filter(FilterError::Full { .. }) => code!("filter-full"),
            _ => code!("kernel-refused"),
        }
    }

    /// Whether the administrator's next step ends with an `apply`.
    pub fn hint_applies(&self) -> bool {
        matches!(
            self,
            Self::Routing(RoutingError::Foreign(_) | RoutingError::Down(_))
                | Self::Filter(FilterError::Full { .. } | FilterError::Namespace(_))
        )
    }

    /// The administrator's next step.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Xtables(error) => Some(error.hint()),
            Self::Filter(FilterError::Nft { .. }) => {
                Some("is `nft` installed, and of version 1.0.6 or later? `nft --version`".to_owned())
            }
            Self::Routing(RoutingError::Foreign(refusal)) => Some(refusal.hint.clone()),
            Self::Routing(RoutingError::Down(device)) => Some(interface_down(*device).hint),
            Self::Filter(FilterError::Full { .. }) => Some(
                "`pve-public-ip apply` takes out what somebody else put into it, and says what does not fit".to_owned(),
            ),
            Self::Filter(FilterError::Netlink(error)) | Self::Routing(RoutingError::Netlink(error)) => {
                (error.errno() == Some(nix::errno::Errno::EPERM)).then(|| "run it as root".to_owned())
            }
            Self::Filter(FilterError::Namespace(_)) => {
                Some("`pve-public-ip apply` as root does that once for each boot".to_owned())
            }
            Self::Setting(error) => Some(error.hint()),
            Self::Routing(RoutingError::NoInterface(_)) | Self::Filter(_) => None,
        }
    }
}

/// An open connection to the kernel of this network namespace.
#[derive(Debug)]
pub struct Kernel {
    nftables: Nftables,
    routing: Routing,
    settings: Settings,
    reference: Reference,
    /// In which iptables there may be something of ours.
    variants: BTreeSet<Variant>,
}

impl Kernel {
    /// Connects. `reference` is what this release's rules should be (see [`Nftables::reference`]).
    pub fn open(reference: Reference) -> Result<Self, KernelError> {
        let (nftables, routing) = (Nftables::open()?, Routing::open()?);
        Ok(Self { nftables, routing, settings: Settings::default(), reference, variants: BTreeSet::new() })
    }

    /// Notes what kernel settings were before they are changed, so that another process can put them back. Without it
    /// this is only remembered, which will do for a namespace that does not outlive the program.
    #[must_use]
    pub fn noting(self, run: &RunState) -> Self {
        let routing = self.routing.noting(run.directory());
        Self { routing, settings: Settings::noted_in(run.directory()), ..self }
    }

    /// Looks there, too: by itself it asks no iptables, because that takes processes.
    pub fn look_into(&mut self, variants: BTreeSet<Variant>) {
        self.variants = variants;
    }

    /// A number that changes when iptables or ipset do, for this backend; none where the kernel tells of changes.
    pub fn chains_mark(&self, backend: Backend) -> Result<Option<u64>, KernelError> {
        match backend {
            Backend::Nftables => Ok(None),
            Backend::Iptables { variant, ipset, .. } => Ok(Some(xtables::fingerprint(variant, ipset)?)),
        }
    }

    /// Interfaces and addresses.
    pub fn links(&mut self) -> Result<Links, KernelError> {
        Ok(self.routing.links()?)
    }

    /// Interfaces and default routes: by what a new pool is completed.
    pub fn surroundings(&mut self) -> Result<Surroundings, KernelError> {
        Ok(Surroundings { links: self.routing.links()?, exits: self.exits()?, ..Surroundings::default() })
    }

    /// What the node's neighbour table knows.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, KernelError> {
        Ok(self.routing.neighbours()?)
    }

    /// Routes to single addresses that somebody else has made, with their interfaces.
    pub fn host_routes(&mut self) -> Result<Vec<(IpAddr, IfName)>, KernelError> {
        Ok(self.routing.host_routes()?)
    }

    /// The node's ways to the world.
    pub fn exits(&mut self) -> Result<Exits, KernelError> {
        let mut exits = self.routing.exits()?;
        exits.can_force_forwarding = settings::can_force_forwarding();
        // If advertisements are not listened to, what came by them is of the past.
        exits.advertised.retain(|device| settings::value(Setting::AcceptRa(*device)).is_some_and(|value| value > 0));
        let noted = self.settings.noted()?;
        // Linux 6.17 and later are told for single interfaces.
        let is_off = || settings::value(Setting::Forwarding6) == Some(0) && !settings::can_force_forwarding6();
        exits.forwards6_for_us = noted.contains(&Setting::Forwarding6) || is_off();
        // Nor is it the end of them if none has come for a while.
        exits.advertised.extend(noted.into_iter().filter_map(|setting| match setting {
            Setting::AcceptRa(device) => Some(device),
            _ => None,
        }));
        Ok(exits)
    }

    /// These bridges with what they are part of, and with their VXLAN ports: whether guests can be routed there.
    pub fn links_around(&mut self, bridges: &BTreeSet<IfName>) -> Result<Links, KernelError> {
        let mut links = self.routing.links_named(bridges)?;
        let masters = links.0.values().filter_map(|link| link.master).collect();
        let mut more = self.routing.links_named(&masters)?;
        for link in links.0.values().filter(|link| link.bridge.is_some()) {
            more.0.extend(self.routing.vxlan_ports(link.index)?.0);
        }
        links.0.extend(more.0);
        Ok(links)
    }

    /// The interfaces that have one of these addresses. The kernel is asked for each address, and only then for interfaces: a
    /// hook asks, and a node can have thousands of them.
    pub fn links_holding(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<Links, KernelError> {
        if !addresses.iter().any(|address| self.routing.is_own(*address)) {
            return Ok(Links::default());
        }
        let mut links = self.routing.links()?;
        let holding = links.holding(addresses);
        links.0.retain(|name, _| holding.contains(name));
        Ok(links)
    }

    /// Behind which port of a bridge these stations were heard last, each asked for on the device that it is reached by.
    pub fn heard_behind(
        &mut self,
        links: &Links,
        stations: &BTreeSet<(IfName, MacAddr)>,
    ) -> Result<BTreeMap<MacAddr, IfName>, KernelError> {
        Ok(self.routing.heard_behind(links, stations)?)
    }

    /// Interfaces and next hops of what the node itself sends to the world.
    pub fn next_hops(&mut self, links: &Links) -> Result<BTreeSet<(IfName, IpAddr)>, KernelError> {
        let hops = self.routing.next_hops()?.into_iter();
        Ok(hops.filter_map(|(index, via)| Some((links.by_index(index)?, via))).collect())
    }

    /// At which MACs the node's neighbour table has these gateways.
    pub fn found_gateways(
        &mut self,
        gateways: &BTreeSet<(IfName, IpAddr)>,
        links: &Links,
    ) -> Result<BTreeMap<(IfName, IpAddr), Option<MacAddr>>, KernelError> {
        let mut found = BTreeMap::new();
        for (device, address) in gateways {
            let Some(link) = links.get(*device) else { continue };
            found.insert((*device, *address), self.routing.neighbour(link.index, *address)?);
        }
        Ok(found)
    }

    /// What the rules have counted.
    pub fn tallies(&mut self) -> Result<Tallies, KernelError> {
        Ok(self.nftables.tallies()?)
    }

    /// These interfaces, as far as they exist.
    pub fn links_named(&mut self, names: &BTreeSet<IfName>) -> Result<Links, KernelError> {
        Ok(self.routing.links_named(names)?)
    }

    /// How much of a table's text is loaded.
    pub fn observe_rules(&mut self, table: Table) -> Result<Rules, KernelError> {
        Ok(self.nftables.observe_rules(table, self.reference.fingerprint(table))?)
    }

    /// Whether a table of ours filters nothing, because it or its rules are missing.
    pub fn is_void(&mut self, table: Table) -> Result<bool, KernelError> {
        Ok(self.nftables.is_void(table)?)
    }

    /// What the rules should be.
    pub fn reference(&self) -> Reference {
        self.reference
    }

    /// The number of the last transaction in nf_tables, whoever made it.
    pub fn generation(&mut self) -> Result<u32, KernelError> {
        Ok(self.nftables.generation()?)
    }

    /// Everything that is ours, and what else there is where this is wanted. What the kernel cannot mark as ours is looked at
    /// as far as it is wanted, or noted.
    pub fn observe(&mut self, links: &Links, wanted: &NetState) -> Result<(NetState, Foreign), KernelError> {
        let (mut state, mut foreign) = self.observe_unfiltered(links, wanted)?;
        for table in Table::ALL {
            let rules = self.observe_rules(table)?;
            *state.rules_of_mut(table) = rules;
            if rules > Rules::Absent {
                state.elements.extend(self.nftables.observe_elements(table)?);
            }
        }
        if !self.variants.is_empty() {
            // Whoever needs no iptables is not kept from anything by one that is broken.
            let seen = xtables::observe(&self.variants);
            state.chains = seen.chains;
            for (places, error) in seen.unread_chains {
                let why = unreadable(error);
                foreign.unread_chains.extend(places.into_iter().map(|place| (place, why.clone())));
            }
            match seen.sets {
                Ok(sets) => state.ipsets = sets,
                Err(error) => foreign.unread_sets = Some(unreadable(error)),
            }
        }
        Ok((state, foreign))
    }

    /// The same but for the filter.
    pub fn observe_unfiltered(&mut self, links: &Links, wanted: &NetState) -> Result<(NetState, Foreign), KernelError> {
        let routing = self.routing.observe(links, wanted)?;
        let gateways = |(name, link): (&IfName, &Link)| link.gateways.iter().map(|ip| (*name, *ip)).collect::<Vec<_>>();
        let is_deaf = |link: &Link| link.bridge.is_some_and(|bridge| bridge.no_linklocal_learn);
        let state = NetState {
            deaf_bridges: links.0.iter().filter(|(_, link)| is_deaf(link)).map(|(name, _)| *name).collect(),
            screened_ports: links.0.iter().filter(|(_, link)| link.screened).map(|(name, _)| *name).collect(),
            fixed_macs: bridges::fixed_macs(links, &wanted.fixed_macs),
            own_entries: routing.own_entries,
            forwarding: routing.forwarding,
            support: Support {
                settings: self.settings.observe(&wanted.support.settings)?,
                gateways: links.0.iter().flat_map(gateways).collect(),
                proxies: routing.proxies,
            },
            neighbours: routing.neighbours,
            routes: routing.routes,
            ..NetState::default()
        };
        Ok((state, routing.foreign))
    }

    /// Which of these elements the kernel has.
    pub fn find_elements(&mut self, wanted: &BTreeSet<Element>) -> Result<BTreeSet<Element>, KernelError> {
        Ok(self.nftables.find_elements(wanted)?)
    }

    /// Carries out one step, which is whole: all of it happens or nothing. See [`crate::plan::carry_out`].
    pub fn apply_step(&mut self, step: &Step) -> Result<(), KernelError> {
        match step {
            Step::RemoveRoute(net) => Ok(self.routing.remove_route(*net)?),
            Step::RemoveProxy(device, address) => Ok(self.routing.remove_proxy(*device, *address)?),
            Step::RemoveGateway(device, address) => Ok(self.routing.remove_gateway(*device, *address)?),
            Step::RestoreSetting(setting) => Ok(self.settings.restore(*setting)?),
            Step::RemoveNeighbour(device, address) => Ok(self.routing.remove_neighbour(*device, *address)?),
            Step::RemoveForwarding(port, mac) => Ok(self.routing.remove_forwarding(*port, *mac)?),
            Step::DeclareSets(table) => Ok(self.nftables.declare_sets(*table)?),
            Step::ChangeElements { add, remove } => Ok(self.nftables.change_elements(add, remove)?),
            Step::ChangeIpSet { set, create, add, remove } => Ok(xtables::change_set(*set, *create, add, remove)?),
            Step::LoadChains { place, wanted, found } => Ok(xtables::load_chains(*place, wanted, found)?),
            Step::RemoveIpSet(set) => Ok(xtables::remove_set(*set)?),
            Step::RemoveTable(table) => Ok(self.nftables.remove_table(*table)?),
            Step::LoadRules(table) => {
                self.nftables.load_rules(*table, self.reference.log_group)?;
                if self.observe_rules(*table)? == Rules::Loaded { Ok(()) } else { Err(FilterError::NotTaken.into()) }
            }
            Step::SetDeafBridge(bridge) => Ok(self.routing.set_deaf_bridge(*bridge)?),
            Step::ScreenPort(port) => Ok(self.routing.screen_port(*port)?),
            Step::FixMac(bridge) => Ok(self.routing.fix_mac(*bridge)?),
            Step::SetOwnEntry(bridge) => Ok(self.routing.set_own_entry(*bridge)?),
            Step::SetForwarding(port, mac, vlans) => Ok(self.routing.set_forwarding(*port, *mac, vlans)?),
            Step::ChangeSetting(setting) => Ok(self.settings.change(*setting)?),
            Step::SetGateway(device, address) => Ok(self.routing.set_gateway(*device, *address)?),
            Step::SetProxy(device, address) => Ok(self.routing.set_proxy(*device, *address)?),
            Step::SetNeighbour(device, address, mac) => Ok(self.routing.set_neighbour(*device, *address, *mac)?),
            Step::SetRoute(net, route) => Ok(self.routing.set_route(*net, *route)?),
        }
    }
}

/// Why something is not changed that could not be read.
fn unreadable(error: XtablesError) -> Refusal {
    let hint = error.hint();
    Refusal { sentence: format!("{:#}", anyhow::Error::from(error)), hint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::foreign_neighbour;

    #[test]
    fn whether_a_hint_applies_is_what_it_says() {
        let (device, mac) = ("vmbr0".parse().unwrap(), "02:00:00:00:00:01".parse().unwrap());
        let foreign = foreign_neighbour(device, "192.0.2.1".parse().unwrap(), mac, mac);
        let full = FilterError::Full { table: Table::Bridge, set: "ports", size: "7".to_owned() };
        let errors: [KernelError; 7] = [
            RoutingError::Foreign(foreign).into(),
            RoutingError::Down(device).into(),
            RoutingError::NoInterface(device).into(),
            full.into(),
            FilterError::Namespace(std::io::ErrorKind::PermissionDenied.into()).into(),
            FilterError::NotTaken.into(),
            FilterError::Answer("ports").into(),
        ];
        for error in errors {
            let says = error.hint().is_some_and(|hint| hint.contains("pve-public-ip apply"));
            assert_eq!(error.hint_applies(), says, "{error}");
        }
    }
}
