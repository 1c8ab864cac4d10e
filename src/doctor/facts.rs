//! What is known of a node when it is examined. Each part that could not be looked at is the reason why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::firewall::Firewall;
use crate::guest::storage::Storages;
use crate::interfaces::Interfaces;
use crate::links::Links;
use crate::model::Missing;
use crate::model::{IfName, NodeName, Vmid};
use crate::plan::Inputs;
use crate::ruleset::{BaseChain, Table};

/// Something, or why nobody can tell.
pub type Observation<T> = Result<T, String>;

/// Why nothing below `/etc/pve` can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The reason.
    pub reason: String,
    /// What helps.
    pub remedy: String,
}

impl<T: Into<String>> From<T> for Unreadable {
    fn from(reason: T) -> Self {
        Self { reason: reason.into(), remedy: "`systemctl status pve-cluster`, `pvecm status`".to_owned() }
    }
}

/// A node and what surrounds it.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What lies under `/etc/pve`, and files of this node that it refers to.
    pub files: Result<Files, Unreadable>,
    /// `/etc/network/interfaces`.
    pub interfaces: Observation<Interfaces>,
    /// The kernel's interfaces.
    pub links: Observation<Links>,
    /// Base chains that are not ours.
    pub chains: Observation<Vec<BaseChain>>,
    /// Our tables that are missing, or have no rules.
    pub void: Observation<Vec<Table>>,
    /// Kernel parameters by their path below `/proc/sys`, as far as they exist.
    pub parameters: Observation<BTreeMap<String, String>>,
    /// What this kernel lacks.
    pub missing: Observation<Vec<Missing>>,
    /// Release of the kernel.
    pub kernel: Observation<String>,
    /// Version of `nft`, or why it does not run.
    pub nft: Observation<Result<String, String>>,
    /// Whether something keeps the clock right.
    pub clock: Observation<bool>,
    /// The guard service.
    pub guard: Observation<GuardService>,
}

/// What lies under `/etc/pve`.
#[derive(Debug, Clone)]
pub struct Files {
    /// Registry, guests of the whole cluster, interfaces as far as they are known.
    pub inputs: Inputs,
    /// Guests whose configuration cannot be read, with the reason.
    pub unreadable: BTreeMap<Vmid, String>,
    /// The nodes of the cluster.
    pub nodes: Vec<NodeName>,
    /// The cluster's storages.
    pub storages: Storages,
    /// Hookscripts that matter on this node, by volume.
    pub scripts: BTreeMap<String, Script>,
    /// Proxmox VE's firewall.
    pub firewall: Firewall,
    /// `.members`.
    pub members: Observation<Members>,
    /// What each node noted when it last ran `apply`.
    pub releases: BTreeMap<NodeName, Release>,
    /// Whether all pools are in one file, although every node of the cluster could read a file for each.
    pub is_convertible: bool,
    /// Files in the registry's directories that a writer left.
    pub leftovers: Vec<PathBuf>,
    /// The registry's file that was written the furthest in the future, by this node's clock.
    pub ahead: Option<(PathBuf, Duration)>,
}

/// A hookscript on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// It can be run.
    Ready,
    /// There is no such file.
    Missing(PathBuf),
    /// Proxmox VE refuses to run it.
    NotExecutable(PathBuf),
    /// It has our name, and does not call us.
    NotOurs(PathBuf),
    /// The volume has no path, for this reason.
    Nowhere(String),
}

/// Whether the cluster can decide, and who is there. Source: pve-cluster `src/pmxcfs/status.c`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// A node on its own always is.
    pub quorate: bool,
    /// Nodes that do not answer.
    pub offline: BTreeSet<NodeName>,
}

/// What a node notes for the others when it runs `apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Version of the program.
    pub release: String,
    /// Whether Proxmox VE can run `local:snippets/pve-public-ip` there.
    pub hookscript: bool,
}

/// The guard service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuardService {
    /// Its process is there.
    pub runs: bool,
    /// It has run since the node booted.
    pub has_run: bool,
    /// What keeps it from its work.
    pub trouble: Option<String>,
    /// Whether systemd starts it at boot; `None`: the unit is not installed.
    pub enabled: Option<bool>,
    /// Files of systemd that start it with the option `--listen`, which it does not act upon any more.
    pub listening: Vec<String>,
}

impl Facts {
    /// What lies under `/etc/pve`.
    pub(super) fn files(&self) -> Observation<&Files> {
        self.files.as_ref().map_err(|unreadable| unreadable.reason.clone())
    }

    /// The kernel's interfaces.
    pub(super) fn links(&self) -> Observation<&Links> {
        self.links.as_ref().map_err(String::clone)
    }

    /// A number among the kernel parameters; one that the kernel does not have is none.
    pub(super) fn parameter(&self, path: &str) -> Observation<Option<u32>> {
        let parameters = self.parameters.as_ref().map_err(String::clone)?;
        Ok(parameters.get(path).and_then(|text| text.trim().parse().ok()))
    }

    /// Bridges of Open vSwitch, by the configuration, and by the kernel, where they are interfaces that are no bridges
    /// beside its `ovs-system`.
    pub(super) fn open_vswitch(&self) -> BTreeSet<IfName> {
        let mut found = self.interfaces.as_ref().map(Interfaces::open_vswitch).unwrap_or_default();
        let Ok(links) = &self.links else { return found };
        if links.0.keys().any(|name| name.as_str() == "ovs-system") {
            let no_bridge = |bridge: &IfName| links.get(*bridge).is_some_and(|link| link.bridge.is_none());
            found.extend(self.files.iter().flat_map(Files::bridges).filter(no_bridge));
        }
        found
    }
}

impl Files {
    /// Bridges of pools, and those that guests of this node are on.
    pub fn bridges(&self) -> BTreeSet<IfName> {
        let inputs = &self.inputs;
        let own = inputs.guests.values().filter(|place| place.node == inputs.node);
        let nics = own.flat_map(|place| place.config.nics.values().flatten());
        nics.filter_map(|nic| nic.bridge).chain(crate::plan::pool_bridges(&inputs.registry)).collect()
    }
}
