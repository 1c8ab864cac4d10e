//! The seam between deciding and acting: what reconciler, hook and guard say to the network, and how they get to speak to it.
//!
//! On a node that is the kernel, [`Kernel`]. Tests put a network in memory in its place, built on [`Step::apply_to`], which
//! refuses steps and loses interfaces when it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io;
use std::net::IpAddr;

use super::ReconcileError;
use super::filter::reference;
use crate::links::Links;
use crate::model::{IfName, MacAddr};
use crate::plan::{Exits, Foreign, NetState, Rules, Step};
use crate::ruleset::{Backend, Element, Table, Variant};
use crate::system::run::RunState;
use crate::system::tally::Tallies;
use crate::system::{Kernel, KernelError, Reference, packet};

/// Which interfaces to look up.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// All of the node's.
    All,
    /// These, as far as they exist.
    Named(&'a BTreeSet<IfName>),
    /// These bridges with what they are part of, and with their VXLAN ports.
    Around(&'a BTreeSet<IfName>),
    /// Those that have one of these addresses.
    Holding(&'a BTreeSet<IpAddr>),
}

/// How much of the state to read.
#[derive(Debug, Clone, Copy)]
pub enum Extent<'a> {
    /// All of it; of iptables what these variants have.
    Whole(&'a BTreeSet<Variant>),
    /// All but the filter, which is most of the work on a large node.
    BesideFilter,
}

/// What reconciler, hook and guard speak to. One value is one connection, for one look.
pub trait Network: Debug {
    /// Interfaces with their addresses.
    fn links(&mut self, which: Which<'_>) -> Result<Links, KernelError>;

    /// The node's ways to the world.
    fn exits(&mut self) -> Result<Exits, KernelError>;

    /// Interfaces and next hops of what the node itself sends to the world.
    fn next_hops(&mut self, links: &Links) -> Result<BTreeSet<(IfName, IpAddr)>, KernelError>;

    /// At which MACs the node's neighbour table has these gateways.
    fn found_gateways(
        &mut self,
        gateways: &BTreeSet<(IfName, IpAddr)>,
        links: &Links,
    ) -> Result<BTreeMap<(IfName, IpAddr), Option<MacAddr>>, KernelError>;

    /// Behind which port of a bridge these stations were seen last.
    fn heard_behind(
        &mut self,
        links: &Links,
        stations: &BTreeSet<(IfName, MacAddr)>,
    ) -> Result<BTreeMap<MacAddr, IfName>, KernelError>;

    /// How much of a table's text is loaded.
    fn rules(&mut self, table: Table) -> Result<Rules, KernelError>;

    /// Everything that is ours, and what else there is where this is wanted.
    fn observe(
        &mut self,
        extent: Extent<'_>,
        links: &Links,
        wanted: &NetState,
    ) -> Result<(NetState, Foreign), KernelError>;

    /// Which of these elements are in their sets.
    fn find(&mut self, elements: &BTreeSet<Element>) -> Result<BTreeSet<Element>, KernelError>;

    /// Carries out one step, which is whole: all of it happens or nothing.
    fn apply(&mut self, step: &Step) -> Result<(), KernelError>;

    /// The number of the last transaction in nf_tables, whoever made it.
    fn generation(&mut self) -> Result<u32, KernelError>;

    /// A number that changes when iptables or ipset do, for this backend; none where the kernel reports changes.
    fn chains_mark(&mut self, backend: Backend) -> Result<Option<u64>, KernelError>;

    /// By what the rules are recognised.
    fn reference(&self) -> Reference;

    /// What the rules have counted.
    fn tallies(&mut self) -> Result<Tallies, KernelError>;

    /// Sends frames out of an interface.
    fn send(&mut self, device: IfName, frames: &[Vec<u8>]) -> io::Result<()>;
}

/// Opens connections to the network of a node.
pub trait Networks: Debug + Send + Sync {
    /// For looking at interfaces and counters. It does not know what the rules should be.
    fn to_look(&self, run: &RunState) -> Result<Box<dyn Network>, ReconcileError>;

    /// For changes; the rules have this nflog group. `run` notes what settings were before.
    fn to_change(&self, run: &RunState, log_group: Option<u16>) -> Result<Box<dyn Network>, ReconcileError>;
}

/// The kernel of this network namespace.
#[derive(Debug)]
pub struct Kernels;

impl Networks for Kernels {
    fn to_look(&self, run: &RunState) -> Result<Box<dyn Network>, ReconcileError> {
        Ok(Box::new(Kernel::open(Reference::default())?.noting(run)))
    }

    fn to_change(&self, run: &RunState, log_group: Option<u16>) -> Result<Box<dyn Network>, ReconcileError> {
        Ok(Box::new(Kernel::open(reference(run, log_group)?)?.noting(run)))
    }
}

impl Network for Kernel {
    fn links(&mut self, which: Which<'_>) -> Result<Links, KernelError> {
        match which {
            Which::All => Self::links(self),
            Which::Named(names) => self.links_named(names),
            Which::Around(bridges) => self.links_around(bridges),
            Which::Holding(addresses) => self.links_holding(addresses),
        }
    }

    fn exits(&mut self) -> Result<Exits, KernelError> {
        Self::exits(self)
    }

    fn next_hops(&mut self, links: &Links) -> Result<BTreeSet<(IfName, IpAddr)>, KernelError> {
        Self::next_hops(self, links)
    }

    fn found_gateways(
        &mut self,
        gateways: &BTreeSet<(IfName, IpAddr)>,
        links: &Links,
    ) -> Result<BTreeMap<(IfName, IpAddr), Option<MacAddr>>, KernelError> {
        Self::found_gateways(self, gateways, links)
    }

    fn heard_behind(
        &mut self,
        links: &Links,
        stations: &BTreeSet<(IfName, MacAddr)>,
    ) -> Result<BTreeMap<MacAddr, IfName>, KernelError> {
        Self::heard_behind(self, links, stations)
    }

    fn rules(&mut self, table: Table) -> Result<Rules, KernelError> {
        self.observe_rules(table)
    }

    fn observe(
        &mut self,
        extent: Extent<'_>,
        links: &Links,
        wanted: &NetState,
    ) -> Result<(NetState, Foreign), KernelError> {
        match extent {
            Extent::Whole(variants) => {
                self.look_into(variants.clone());
                Self::observe(self, links, wanted)
            }
            Extent::BesideFilter => self.observe_unfiltered(links, wanted),
        }
    }

    fn find(&mut self, elements: &BTreeSet<Element>) -> Result<BTreeSet<Element>, KernelError> {
        self.find_elements(elements)
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        self.apply_step(step)
    }

    fn generation(&mut self) -> Result<u32, KernelError> {
        Self::generation(self)
    }

    fn chains_mark(&mut self, backend: Backend) -> Result<Option<u64>, KernelError> {
        Self::chains_mark(self, backend)
    }

    fn reference(&self) -> Reference {
        Self::reference(self)
    }

    fn tallies(&mut self) -> Result<Tallies, KernelError> {
        Self::tallies(self)
    }

    fn send(&mut self, device: IfName, frames: &[Vec<u8>]) -> io::Result<()> {
        packet::send(device, frames)
    }
}
