//! The registry's files: read and written under the cluster's lock, with a copy of the last that was good and a log of who
//! changed what.
//!
//! A change is: lock, read everything, change in memory under the rules, check that no file changed meanwhile, write
//! each changed file as a temporary file and rename it. A process that dies in between leaves whole files.

mod caller;
mod error;
pub mod journal;
pub mod keys;
mod known;
mod last_good;
mod lock;
mod reading;
mod recall;
mod recent;
mod releases;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::host::files;
use crate::model::{NodeName, PoolName, Vmid};
use crate::paths::Paths;
use crate::registry::Registry;
use crate::registry::document::{self, POOLS_VERSION, PoolsFile, VERSION};
pub use error::StoreError;
use journal::Journal;
use known::Known;
use last_good::LastGood;
pub use last_good::News;
pub use lock::LockError;
pub use reading::Read;
use reading::{named, read};

/// How long a command waits for other writers.
const LOCK_LIMIT: Duration = Duration::from_secs(30);

/// The registry's files.
#[derive(Debug, Clone)]
pub struct Store {
    paths: Paths,
    node: NodeName,
    last_good: LastGood,
    /// What was read last: a file that has the same content is not read into a document once more.
    known: Arc<Mutex<Known>>,
    /// Whether changes of what was read are noticed.
    attends: Arc<AtomicBool>,
    /// The same for questions that may be answered from a moment ago.
    recent: Arc<Mutex<Option<recent::Recent>>>,
    /// Where its changes are written down.
    pub journal: Journal,
}

/// The registry as it is on disk, and by what each of its files is known again.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What the files say.
    pub registry: Registry,
    /// The fingerprint of each file that is there, by its name in the registry: `guests/100.json`.
    files: Arc<BTreeMap<String, u64>>,
    /// The content of those of which this node has no copy, or that cannot be used; kept only where somebody asks for it.
    contents: BTreeMap<PathBuf, Vec<u8>>,
}

impl Snapshot {
    /// The fingerprint of every guest's file that can be used.
    pub fn guests(&self) -> impl Iterator<Item = (Vmid, u64)> {
        let guests = self.below(reading::GUESTS).filter_map(|(name, print)| Some((named(name)?, print)));
        guests.filter(|(vmid, _)| self.registry.guests.contains_key(vmid))
    }

    /// As [`Store::pools_source`] of all pools, by what was read. What was recalled in the place of a file counts for nothing.
    pub fn pools_source(&self) -> BTreeMap<String, u64> {
        let named = self.below(reading::POOLS);
        let named = named.filter_map(|(name, print)| Some((name.strip_suffix(".json")?.to_owned(), print)));
        let sources: BTreeMap<String, u64> = named.collect();
        if sources.is_empty() {
            let print = self.files.get("pools.json").copied();
            return BTreeMap::from([("pools.json".to_owned(), print.unwrap_or_else(|| files::fingerprint(b"")))]);
        }
        sources
    }

    /// Whether there is a file about pools, of whichever format.
    fn has_pool_files(&self) -> bool {
        self.files.contains_key("pools.json") || self.below(reading::POOLS).next().is_some()
    }

    /// The files whose names begin so, by the rest of their names.
    fn below(&self, directory: &'static str) -> impl Iterator<Item = (&str, u64)> {
        let names = self.files.range::<str, _>((Bound::Included(directory), Bound::Unbounded));
        names.map_while(move |(name, print)| Some((name.strip_prefix(directory)?, *print)))
    }
}

impl Store {
    /// The registry of the node `node` under `paths`.
    pub fn new(paths: &Paths, node: &NodeName) -> Self {
        let (last_good, journal) = (LastGood::new(paths), Journal::new(paths, node));
        let (known, attends, recent) = (Arc::default(), Arc::default(), Arc::default());
        Self { paths: paths.clone(), node: node.clone(), last_good, known, attends, recent, journal }
    }

    /// By which the pools of these names are known again, file by file: what does not exist or cannot be read is nothing. Of
    /// version 1 it is one file for all.
    pub fn pools_source(&self, names: &BTreeSet<PoolName>) -> BTreeMap<String, u64> {
        let print = |path: &Path| files::fingerprint(&read(path).ok().flatten().unwrap_or_default());
        let pools = self.paths.pools_file();
        let bytes = read(&pools).ok().flatten().unwrap_or_default();
        if !self.has_pool_files(&bytes) {
            return BTreeMap::from([("pools.json".to_owned(), files::fingerprint(&bytes))]);
        }
        names.iter().map(|name| (name.to_string(), print(&self.paths.pool_file(name)))).collect()
    }

    /// Whether the pools have files of their own, by the content of `pools.json`.
    fn has_pool_files(&self, pools: &[u8]) -> bool {
        let is_apart = |file: PoolsFile| file.version == POOLS_VERSION;
        if pools.is_empty() {
            self.paths.pool_files().exists()
        } else {
            // In version 1 all pools are in it, and each hook asks.
            document::first_version(pools) != Some(VERSION)
                && document::parse(&self.paths.pools_file(), pools).is_ok_and(is_apart)
        }
    }

    /// By which the files that the audit log knows are told from others; `None`: not all of them can be used.
    fn identity(snapshot: &Snapshot) -> Option<u64> {
        let files = snapshot.files.iter().filter(|(name, _)| *name != "released.json");
        snapshot.registry.broken.is_empty().then(|| {
            let mut hasher = DefaultHasher::new();
            files.for_each(|file| file.hash(&mut hasher));
            hasher.finish()
        })
    }

    /// On a machine with Proxmox VE an empty `/etc/pve` means that pmxcfs is down: nothing may be concluded from it,
    /// and nothing written, because it would lie under the later mount.
    pub fn check_mounted(&self) -> Result<(), StoreError> {
        let path = self.paths.etc_pve();
        if let Err(source) = fs::metadata(&path) {
            if source.kind() == io::ErrorKind::NotConnected {
                return Err(StoreError::Stale { path, source });
            }
        }
        let is_proxmox = self.paths.pmxcfs_database().exists();
        if is_proxmox && fs::symlink_metadata(self.paths.local_node()).is_err() {
            return Err(StoreError::Down { path });
        }
        Ok(())
    }
}
