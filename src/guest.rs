//! Where the configurations of guests lie in every phase of their life, and how they are read. What they say is the core's
//! business.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use pve_public_ip_core::guest::*;

use crate::code;
use crate::host::files;
use crate::host::witness::Witness;
use crate::model::{Code, GuestKind, NodeName, Vmid};
use crate::paths::Paths;
use storage::Storages;

/// Why a guest's configuration cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// There is no such guest in the cluster.
    #[error("guest {vmid} does not exist: there is no `{}/*/{{qemu-server,lxc}}/{vmid}.conf`", nodes.display())]
    Unknown {
        /// The number.
        vmid: Vmid,
        /// Where it was looked for.
        nodes: PathBuf,
    },
    /// The file exists and cannot be read.
    #[error("cannot read the configuration of guest {vmid} at `{}`", path.display())]
    Unreadable {
        /// The number.
        vmid: Vmid,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A directory of configurations exists and cannot be read.
    #[error("cannot list the guests at `{}`", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl GuestError {
    /// Its kind.
    pub fn code(&self) -> Code {
        match self {
            Self::Unknown { .. } => code!("unknown-guest"),
            Self::Unreadable { .. } | Self::Directory { .. } => code!("guest-unreadable"),
        }
    }

    /// The administrator's next step.
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown { .. } => "`qm list` and `pct list` show the guests; create the guest first".to_owned(),
            Self::Unreadable { source, .. } | Self::Directory { source, .. } => match source.kind() {
                io::ErrorKind::NotConnected => {
                    "the mount at `/etc/pve` is stale: `systemctl restart pve-cluster`".to_owned()
                }
                _ => "`systemctl status pve-cluster` tells whether /etc/pve is well".to_owned(),
            },
        }
    }
}

/// The guests of the cluster, as the files under `/etc/pve` show them.
#[derive(Debug, Clone)]
pub struct Guests {
    paths: Paths,
    node: NodeName,
    /// Where they were at the last look, if changes are noticed.
    known: Arc<Mutex<Option<Known>>>,
    /// Whether they shall be.
    attends: Arc<AtomicBool>,
}

/// Where the configuration of each guest of the cluster lies, and of which kind it is.
pub type Places = BTreeMap<Vmid, (NodeName, GuestKind)>;

/// Where the guests were at the last look.
#[derive(Debug)]
struct Known {
    witness: Witness,
    /// A node that comes has directories that are not watched yet.
    nodes: PathBuf,
    places: Arc<Places>,
}

/// Larger than any configuration: pmxcfs has no larger files.
const LIMIT: usize = 1024 * 1024;

impl Guests {
    /// The guests as seen by `node`.
    pub fn new(paths: &Paths, node: &NodeName) -> Self {
        let (known, attends) = (Arc::default(), Arc::default());
        Self { paths: paths.clone(), node: node.clone(), known, attends }
    }

    /// As [`crate::store::Store::attend`], for where the guests are.
    pub fn attend(&self) {
        self.attends.store(true, Ordering::Relaxed);
    }

    /// Finds one guest: here, on `perhaps`, where `.vmlist` says, anywhere; in this order.
    ///
    /// During an incoming live migration the configuration is still under the source node (`PVE_MIGRATED_FROM`).
    pub fn find(&self, vmid: Vmid, perhaps: Option<&NodeName>) -> Result<Located, GuestError> {
        self.find_listed(vmid, perhaps, || vmlist(&self.paths.vmlist()).remove(&vmid))
    }

    /// Finds many guests, with one look at the directories of each node: to try for each guest where it might be would take
    /// as many attempts as there are guests times nodes.
    pub fn find_all(&self, vmids: impl Iterator<Item = Vmid>) -> Vec<(Vmid, Result<Located, GuestError>)> {
        let vmids: Vec<Vmid> = vmids.collect();
        if vmids.is_empty() {
            return Vec::new();
        }
        let (mut places, mut is_whole) = self.list_places();
        if vmids.iter().any(|vmid| !places.contains_key(vmid)) {
            // One that moves meanwhile may be in neither of two directories.
            let (again, is_whole_again) = self.list_places();
            is_whole &= is_whole_again;
            for (vmid, place) in again {
                places.entry(vmid).or_insert(place);
            }
        }
        let one = |vmid| {
            let config = match places.get(&vmid) {
                Some((node, kind)) => read(vmid, *kind, &self.paths.guest_config(node, *kind, vmid))
                    .map(|config| config.map(|config| Located { node: node.clone(), config })),
                None if is_whole => return (vmid, Err(GuestError::Unknown { vmid, nodes: self.paths.nodes() })),
                None => Ok(None),
            };
            (vmid, config.transpose().unwrap_or_else(|| self.find(vmid, None)))
        };
        vmids.into_iter().map(one).collect()
    }

    /// Where the guests of the cluster are. For whoever attends, a look for what has changed.
    pub fn places(&self) -> Arc<Places> {
        if !self.attends.load(Ordering::Relaxed) {
            return Arc::new(self.list_places().0);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = known.as_mut().and_then(Known::still) {
            return places;
        }
        let own = self.nodes().into_iter().chain([self.node.clone()]);
        let of_kinds = |node| [GuestKind::Qemu, GuestKind::Lxc].map(|kind| self.paths.local_config_dirs(&node, kind));
        let directories: BTreeSet<PathBuf> = own.flat_map(of_kinds).flatten().chain([self.paths.nodes()]).collect();
        // Before they are listed, so that nothing can be missed.
        let witness = Witness::of(directories);
        let (places, is_whole) = self.list_places();
        let places = Arc::new(places);
        *known = witness.filter(|_| is_whole).map(|witness| Known {
            witness,
            nodes: self.paths.nodes(),
            places: Arc::clone(&places),
        });
        places
    }

    /// Where the configuration of each guest of the cluster lies and of which kind it is, this node's first; and whether every
    /// directory could be listed.
    fn list_places(&self) -> (Places, bool) {
        let (mut found, mut is_whole) = (BTreeMap::new(), true);
        for node in std::iter::once(self.node.clone()).chain(self.nodes()) {
            for kind in [GuestKind::Qemu, GuestKind::Lxc] {
                for directory in self.paths.local_config_dirs(&node, kind) {
                    let entries = match fs::read_dir(&directory) {
                        Ok(entries) => entries,
                        Err(error) => {
                            is_whole &= error.kind() == io::ErrorKind::NotFound;
                            continue;
                        }
                    };
                    for entry in entries {
                        let Ok(entry) = entry else {
                            is_whole = false;
                            continue;
                        };
                        let vmid = entry.file_name().to_str().and_then(|name| name.strip_suffix(".conf")?.parse().ok());
                        if let Some(vmid) = vmid {
                            found.entry(vmid).or_insert_with(|| (node.clone(), kind));
                        }
                    }
                }
            }
        }
        (found, is_whole)
    }

    fn find_listed(
        &self,
        vmid: Vmid,
        perhaps: Option<&NodeName>,
        listed: impl FnOnce() -> Option<NodeName>,
    ) -> Result<Located, GuestError> {
        let mut candidates = vec![self.node.clone()];
        candidates.extend(perhaps.cloned());
        if let Some(located) = self.first(vmid, &candidates)? {
            return Ok(located);
        }
        // A tree without node directories, as a copy for a test may be.
        for kind in [GuestKind::Qemu, GuestKind::Lxc] {
            if let Some(config) = read(vmid, kind, &self.paths.linked_guest_config(kind, vmid))? {
                return Ok(Located { node: self.node.clone(), config });
            }
        }
        if let Some(located) = self.first(vmid, &listed().into_iter().collect::<Vec<_>>())? {
            return Ok(located);
        }
        let unknown = || GuestError::Unknown { vmid, nodes: self.paths.nodes() };
        self.first(vmid, &self.nodes())?.ok_or_else(unknown)
    }

    /// Every guest whose configuration is on this node; those that cannot be read are left out, and an error is a
    /// directory that exists and cannot be read.
    pub fn local(&self) -> Result<BTreeMap<Vmid, GuestConfig>, GuestError> {
        let mut found = BTreeMap::new();
        for kind in [GuestKind::Qemu, GuestKind::Lxc] {
            for directory in self.paths.local_config_dirs(&self.node, kind) {
                let entries = match fs::read_dir(&directory) {
                    Ok(entries) => entries,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(source) => return Err(GuestError::Directory { path: directory, source }),
                };
                for entry in entries {
                    let entry = entry.map_err(|source| GuestError::Directory { path: directory.clone(), source })?;
                    let name = entry.file_name();
                    let vmid = name.to_str().and_then(|name| name.strip_suffix(".conf")?.parse().ok());
                    let Some(vmid) = vmid.filter(|vmid| !found.contains_key(vmid)) else {
                        continue;
                    };
                    if let Ok(Some(config)) = read(vmid, kind, &entry.path()) {
                        found.insert(vmid, config);
                    }
                }
            }
        }
        Ok(found)
    }

    /// Every guest of the cluster: its configuration and where it lies, or why it cannot be read.
    pub fn all(&self) -> BTreeMap<Vmid, Result<Located, GuestError>> {
        let whole = self.all_but(|_| false, |_| true).into_iter();
        whole.filter_map(|(vmid, found)| Some((vmid, found.map(Seen::located).transpose()?))).collect()
    }

    /// The same without those that are known, whose files are not read; and without what the others say if `is_meant` says so
    /// of the text: a cluster has thousands, and few are of interest.
    pub fn all_but(
        &self,
        is_known: impl Fn(Vmid) -> bool,
        is_meant: impl Fn(&[u8]) -> bool,
    ) -> BTreeMap<Vmid, Result<Seen, GuestError>> {
        let mut found = BTreeMap::new();
        for node in self.nodes().into_iter().chain([self.node.clone()]) {
            for kind in [GuestKind::Qemu, GuestKind::Lxc] {
                for directory in self.paths.local_config_dirs(&node, kind) {
                    for name in files::names(&directory) {
                        let vmid = name.strip_suffix(".conf").and_then(|vmid| vmid.parse().ok());
                        let Some(vmid) = vmid.filter(|vmid| !is_known(*vmid)) else { continue };
                        let config = match read_bytes(vmid, &directory.join(name)) {
                            Ok(Some(bytes)) => {
                                let config = is_meant(&bytes).then(|| GuestConfig::parse(kind, &bytes));
                                Ok(Seen { node: node.clone(), config })
                            }
                            // It was there a moment ago: destroyed or migrated.
                            Ok(None) => continue,
                            Err(error) => Err(error),
                        };
                        found.entry(vmid).or_insert(config);
                    }
                }
            }
        }
        found
    }

    fn first(&self, vmid: Vmid, nodes: &[NodeName]) -> Result<Option<Located>, GuestError> {
        for node in nodes {
            for kind in [GuestKind::Qemu, GuestKind::Lxc] {
                if let Some(config) = read(vmid, kind, &self.paths.guest_config(node, kind, vmid))? {
                    return Ok(Some(Located { node: node.clone(), config }));
                }
            }
        }
        Ok(None)
    }

    /// The nodes of the cluster, in order.
    pub fn nodes(&self) -> Vec<NodeName> {
        let names = files::names(&self.paths.nodes()).into_iter();
        let mut nodes: Vec<NodeName> = names.filter_map(|name| name.parse().ok()).collect();
        nodes.sort_unstable();
        nodes
    }

    /// A guest of the cluster whose configuration names `word`, also in a snapshot or a pending change; or one whose
    /// configuration cannot be read.
    pub fn naming(&self, word: &str) -> Option<String> {
        let kinds = [GuestKind::Qemu, GuestKind::Lxc];
        let directories = self.nodes().into_iter().flat_map(|node| kinds.map(|kind| (kind, node.clone())));
        let directories: Vec<_> =
            directories.flat_map(|(kind, node)| self.paths.local_config_dirs(&node, kind)).collect();
        for directory in directories {
            for name in files::names(&directory) {
                let Some(vmid) = name.strip_suffix(".conf").and_then(|vmid| vmid.parse::<Vmid>().ok()) else {
                    continue;
                };
                let bytes = match files::read_limited(&directory.join(&name), LIMIT) {
                    Ok(bytes) => bytes,
                    // It was there a moment ago: destroyed or migrated.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(_) => return Some(format!("guest {vmid}, whose configuration cannot be read, perhaps")),
                };
                if names(&String::from_utf8_lossy(&bytes), word) {
                    return Some(format!("guest {vmid}"));
                }
            }
        }
        None
    }
}

/// A guest of the cluster.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its node.
    pub node: NodeName,
    /// What its configuration says, if that is of interest.
    pub config: Option<GuestConfig>,
}

impl Seen {
    /// The guest with its configuration.
    pub fn located(self) -> Option<Located> {
        Some(Located { node: self.node, config: self.config? })
    }
}

impl Known {
    /// The places, if they are what they were: what is in a configuration does not matter.
    fn still(&mut self) -> Option<Arc<Places>> {
        let changed = self.witness.changed()?;
        let is_config = |path: &Path| path.extension().is_some_and(|extension| extension == "conf");
        let tells = |path: &PathBuf| is_config(path) || path.parent() == Some(&self.nodes);
        (!changed.iter().any(tells)).then(|| Arc::clone(&self.places))
    }
}

/// The cluster's storages; without a readable `storage.cfg` the one that every node has.
pub fn storages(paths: &Paths) -> Storages {
    let text = files::read_limited(&paths.storage_cfg(), LIMIT).unwrap_or_default();
    Storages::parse(&String::from_utf8_lossy(&text))
}

fn read(vmid: Vmid, kind: GuestKind, path: &Path) -> Result<Option<GuestConfig>, GuestError> {
    Ok(read_bytes(vmid, path)?.map(|bytes| GuestConfig::parse(kind, &bytes)))
}

fn read_bytes(vmid: Vmid, path: &Path) -> Result<Option<Vec<u8>>, GuestError> {
    let unreadable = |source| GuestError::Unreadable { vmid, path: path.to_owned(), source };
    match files::read_limited(path, LIMIT) {
        Ok(bytes) if bytes.len() > LIMIT => {
            Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, "larger than 1 MiB")))
        }
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(unreadable(source)),
    }
}

/// `.vmlist`: `{"ids":{"100":{"node":"n1","type":"qemu","version":6}}}`; anything else counts as not knowing.
///
/// Source: pve-cluster `src/pmxcfs/status.c`.
fn vmlist(path: &Path) -> BTreeMap<Vmid, NodeName> {
    let parsed = files::read_limited(path, 16 * LIMIT)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    let ids = parsed.as_ref().and_then(|list| list.get("ids")).and_then(serde_json::Value::as_object);
    let entry = |(vmid, entry): (&String, &serde_json::Value)| {
        Some((vmid.parse().ok()?, entry.get("node")?.as_str()?.parse().ok()?))
    };
    ids.into_iter().flatten().filter_map(entry).collect()
}
