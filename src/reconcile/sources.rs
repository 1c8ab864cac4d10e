//! What lies under `/etc/pve`, read at one moment; and what this node remembers of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::network::{Network, Which};
use super::presence_of;
use super::{Node, ReconcileError, SILENT, aside};
use crate::guest::{GuestConfig, GuestError};
use crate::links::Links;
use crate::model::{IfName, MacAddr, Vmid};
use crate::plan::{Exits, Inputs, Located, Problem, notes};
use crate::registry::Registry;
use crate::ruleset::Backend;
use crate::store::News;
use crate::system::KernelError;
use crate::system::run::{Mark, RunState, Tick};

/// How long the cluster file system may take for all files before it is said what is waited for; a cluster of 100,000
/// addresses takes a second.
const SILENCE_SAID: Duration = Duration::from_secs(10);

/// How long it is waited for after that.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// What lies under `/etc/pve`, as it was read at one moment.
#[derive(Debug)]
pub struct Sources {
    /// When the first of it was read.
    pub(super) began: Option<Tick>,
    pub(super) inputs: Inputs,
    pub(super) pools_source: BTreeMap<String, u64>,
    /// The fingerprint of each guest's file in the registry.
    pub(super) prints: Vec<(Vmid, u64)>,
    unreadable: BTreeMap<Vmid, GuestError>,
    /// What of the registry has no copy on this node yet.
    pub(super) news: News,
}

impl Sources {
    /// Files that could not be read: of the registry, and of guests that hold addresses.
    pub fn unreadable(&self) -> usize {
        self.inputs.registry.broken.len() + self.unreadable.len()
    }

    /// What might surprise if the registry were this one.
    pub fn notes_with(&self, registry: Registry) -> Vec<Problem> {
        notes(&Inputs { registry, ..self.inputs.clone() })
    }

    /// The MACs of the interfaces, as they were at the last look.
    pub(super) fn macs(&self) -> BTreeMap<IfName, MacAddr> {
        let links = &self.inputs.links.0;
        links.iter().filter_map(|(name, link)| Some((*name, link.mac?))).collect()
    }

    pub(super) fn look_at_network(&mut self, network: &mut dyn Network) -> Result<(), KernelError> {
        self.inputs.links = network.links(Which::All)?;
        // To list a node's routes takes longer than all the rest if they are the world's.
        self.inputs.exits = if self.inputs.registry.has_routed() { network.exits()? } else { Exits::default() };
        Ok(())
    }

    /// What decisions were made by when these files were last compared with the kernel.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// The node's interfaces, as they were when these files were last compared with the kernel.
    pub fn links(&self) -> &Links {
        &self.inputs.links
    }

    /// The node's ways to the world as they were then, if anything depends on them.
    pub fn exits(&self) -> Option<&Exits> {
        self.inputs.registry.has_routed().then_some(&self.inputs.exits)
    }

    /// The nflog group that the node's file names.
    pub fn log_group(&self) -> Option<u16> {
        self.inputs.registry.node.as_ref().and_then(|node| node.log_group)
    }

    /// What filtered routed traffic when these files were last compared with the kernel.
    pub fn backend(&self) -> Backend {
        self.inputs.backend
    }

    /// The nflog group that the guard listens to for conflicts, and the uplinks that the node's file names.
    pub fn watched(&self) -> Option<(u16, Option<BTreeSet<IfName>>)> {
        let file = self.inputs.registry.node.as_ref().filter(|file| file.watch != Some(false))?;
        Some((file.log_group?, file.uplinks.clone()))
    }

    /// Whether every file could be read and understood. What could not may look another way next time, without a sign.
    pub fn are_whole(&self) -> bool {
        self.unreadable.is_empty() && self.inputs.registry.broken.is_empty()
    }
}

/// How far the files that were read can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// They are as they were read.
    Whole,
    /// They may have changed since: protection that is missing is put back, and nothing is taken away for them.
    OldButSafe,
}

impl Node {
    /// As [`Self::read_sources`], for whoever has something better to do than to hang with the cluster file system.
    pub(super) fn read_sources_in_time(&self) -> Result<Sources, ReconcileError> {
        let (node, place) = (self.clone(), self.paths.etc_pve());
        let answer = aside(move || node.read_sources());
        let read = answer.recv_timeout(SILENCE_SAID).or_else(|_| {
            log::warn!("waiting for `{}`, which {SILENT}: `systemctl status pve-cluster`", place.display());
            answer.recv_timeout(GIVEN_UP)
        });
        read.unwrap_or(Err(ReconcileError::Silent(place)))
    }

    /// Reads what lies under `/etc/pve`: pools, assignments, guests' configurations.
    pub fn read_sources(&self) -> Result<Sources, ReconcileError> {
        let began = Tick::now();
        let (snapshot, news) = self.store.load_known()?;
        let (pools_source, prints) = (snapshot.pools_source(), snapshot.guests().collect());
        let registry = snapshot.registry;
        let local = self.guests.local()?.into_iter();
        let mut guests: BTreeMap<Vmid, Located> =
            local.map(|(vmid, config)| (vmid, Located { node: self.name.clone(), config })).collect();
        let mut unreadable = BTreeMap::new();
        // A guest whose own file is broken is needed too: its mark knows its assignments.
        let broken = registry.broken.iter().filter_map(|error| error.path.file_stem()?.to_str()?.parse().ok());
        let wanted: BTreeSet<Vmid> = registry.guests.keys().copied().chain(broken).collect();
        let elsewhere = self.guests.find_all(wanted.into_iter().filter(|vmid| !guests.contains_key(vmid)));
        for (vmid, found) in elsewhere {
            match found {
                Ok(located) => {
                    guests.insert(vmid, located);
                }
                Err(GuestError::Unknown { .. }) => {}
                Err(error) => {
                    unreadable.insert(vmid, error);
                }
            }
        }
        // What was read while the file system went away is not what it says.
        self.store.check_mounted()?;
        let inputs = Inputs::new(self.name.clone(), registry, guests);
        Ok(Sources { began, inputs, pools_source, prints, unreadable, news })
    }

    /// As [`Self::read_sources`], without the cluster's files: by the copies of the registry and the marks of the guests that run
    /// here. `None` if nothing is known. Only [`Trust::OldButSafe`] is due to it.
    pub fn remembered_sources(&self, run: &RunState) -> Option<Sources> {
        let mut registry = self.store.remembered()?;
        let mut guests = BTreeMap::new();
        for (vmid, mark) in run.marked().into_iter().filter_map(|vmid| Some((vmid, run.mark(vmid)?))) {
            // What its ports are called is known from its start.
            guests.insert(vmid, Located { node: self.name.clone(), config: GuestConfig::parse(mark.kind, b"") });
            registry.guests.insert(vmid, mark.applied);
        }
        let inputs = Inputs::new(self.name.clone(), registry, guests);
        let (pools_source, prints, unreadable) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        Some(Sources { began: None, inputs, pools_source, prints, unreadable, news: News::default() })
    }

    /// Who runs here, by marks and ports; says which guests' configurations could not be read.
    pub(super) fn look_at_guests(&self, run: &RunState, sources: &mut Sources) -> Vec<Problem> {
        let inputs = &mut sources.inputs;
        let marks: BTreeMap<Vmid, Mark> =
            run.marked().into_iter().filter_map(|vmid| Some((vmid, run.mark(vmid)?))).collect();
        for (vmid, mark) in &marks {
            let file = self.paths.guest_file(*vmid);
            if inputs.registry.broken.iter().any(|error| error.path == file) {
                inputs.registry.guests.insert(*vmid, mark.applied.clone());
            }
        }
        // The guest may run all the same: what its ports are called is known from its start.
        for (vmid, mark) in marks.iter().filter(|(vmid, _)| sources.unreadable.contains_key(vmid)) {
            let config = GuestConfig::parse(mark.kind, b"");
            inputs.guests.insert(*vmid, Located { node: self.name.clone(), config });
        }
        let presence = |vmid: &Vmid| {
            let place = inputs.guests.get(vmid)?;
            let here = place.node == self.name;
            Some((*vmid, presence_of(*vmid, place.config.kind, here, marks.get(vmid), &inputs.links)?))
        };
        inputs.presence = inputs.registry.guests.keys().filter_map(presence).collect();
        let problem = |(vmid, error): (&Vmid, &GuestError)| {
            let sentence = match std::error::Error::source(error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            Problem::of_guest(error.code(), *vmid, sentence, error.hint())
        };
        sources.unreadable.iter().map(problem).collect()
    }
}
