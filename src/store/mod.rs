//! The registry's files: read and written under the cluster's lock, with a copy of the last that was good and a log of who
//! changed what.
//!
//! A change is: lock, read everything, change in memory under the rules, check that no file changed meanwhile, write
//! each changed file as a temporary file and rename it. A process that dies in between leaves whole files.

mod caller;
pub mod journal;
pub mod keys;
mod last_good;
mod lock;
mod recent;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::code;
use crate::host::files;
use crate::model::{Code, GuestKind, IfName, NodeName, PoolName, Subject, Vmid};
use crate::paths::Paths;
use crate::registry::document::{
    self, Document, DocumentError, Fault, GuestFile, NodeFile, POOLS_VERSION, Pool, PoolFile, PoolsFile, ReleasedFile,
    UPGRADE, VERSION,
};
use crate::registry::shared::SharedMap;
use crate::registry::{Registry, RuleError, releases};
use journal::Journal;
use last_good::LastGood;
pub use last_good::News;
pub use lock::LockError;
use lock::RegistryLock;

/// How long a command waits for other writers.
const LOCK_LIMIT: Duration = Duration::from_secs(30);

/// Why the registry could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read, for a reason other than its content.
    #[error("cannot read the registry at `{}`", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot save the registry at `{}`", path.display())]
    Save {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A document cannot be turned into JSON, which is a bug.
    #[error("cannot render `{}`", path.display())]
    Render {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: serde_json::Error,
    },
    /// Somebody wrote the file without taking the lock.
    #[error("`{}` was changed by someone else since it was read; nothing was written", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The result would be larger than pmxcfs takes.
    #[error("`{}` would have {size} bytes; the cluster file system allows {}", path.display(), document::MAX_FILE_SIZE)]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: usize,
    },
    /// Proxmox VE's file system is not mounted.
    #[error("the cluster file system is not mounted at `{}` (pmxcfs is not running)", path.display())]
    Down {
        /// `/etc/pve`.
        path: PathBuf,
    },
    /// pmxcfs has ended, and its mount is still there.
    #[error("the mount at `{}` is stale, because pmxcfs has ended", path.display())]
    Stale {
        /// `/etc/pve`.
        path: PathBuf,
        /// The system's reason: the transport endpoint is not connected.
        source: io::Error,
    },
    /// The keys of the API cannot be used.
    #[error("cannot use the keys of the API in `{}`", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Against the rules.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

impl StoreError {
    /// Its kind.
    pub fn code(&self) -> Code {
        match self {
            Self::Read { .. } => code!("registry-unreadable"),
            Self::Save { .. } | Self::Lock(LockError::Io { .. }) => code!("registry-not-writable"),
            Self::Render { .. } => code!("internal-error"),
            Self::Changed { .. } => code!("registry-changed-meanwhile"),
            Self::TooLarge { .. } => code!("registry-file-too-large"),
            Self::Down { .. } => code!("etc-pve-down"),
            Self::Stale { .. } => code!("etc-pve-stale"),
            Self::Lock(LockError::Busy { .. }) => code!("registry-locked"),
            Self::Lock(LockError::Expired(_)) => code!("registry-lock-lost"),
            Self::Keys { .. } => code!("keys-unusable"),
            Self::Rule(error) => error.code(),
        }
    }

    /// What it is about.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Read { path, .. }
            | Self::Save { path, .. }
            | Self::Render { path, .. }
            | Self::Changed { path }
            | Self::TooLarge { path, .. }
            | Self::Stale { path, .. }
            | Self::Keys { path, .. }
            | Self::Down { path } => Subject::File(path.display().to_string()),
            Self::Lock(_) => Subject::Node,
            Self::Rule(error) => error.subject(),
        }
    }

    /// The administrator's next step.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } | Self::Save { source, .. } | Self::Lock(LockError::Io { source, .. }) => {
                Some(write_hint(source))
            }
            Self::Changed { .. } => Some("run the command again".to_owned()),
            Self::TooLarge { .. } => Some("use prefixes instead of single addresses, or split the file".to_owned()),
            Self::Down { .. } => Some("`systemctl status pve-cluster`, then try again".to_owned()),
            Self::Stale { .. } => Some("`systemctl restart pve-cluster`".to_owned()),
            Self::Lock(LockError::Busy { path, .. }) => Some(format!(
                "try again; a lock left by a dead node goes away by itself after 120 s (or `rmdir {}`)",
                path.display()
            )),
            Self::Lock(LockError::Expired(_)) => Some("`/etc/pve` is slow: `pvecm status`, then try again".to_owned()),
            Self::Keys { source, .. } if source.kind() == io::ErrorKind::InvalidData => Some(
                "restore the file from a backup; or remove it, and make new keys: `pve-public-ip key add`".to_owned(),
            ),
            Self::Keys { source, .. } => Some(write_hint(source)),
            Self::Rule(error) => error.hint(),
            Self::Render { .. } => None,
        }
    }

    /// Whether the registry could not be written (exit code 5), as opposed to being wrong.
    pub fn is_not_writable(&self) -> bool {
        matches!(
            self,
            Self::Save { .. }
                | Self::Changed { .. }
                | Self::TooLarge { .. }
                | Self::Down { .. }
                | Self::Stale { .. }
                | Self::Lock(_)
        )
    }
}

fn read_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotConnected => "the mount at `/etc/pve` is stale: `systemctl restart pve-cluster`",
        _ => "check its type and permissions",
    }
}

fn write_hint(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "`/etc/pve` is read-only without quorum: `pvecm status`; and run the command as root".to_owned()
        }
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only: `findmnt /etc/pve`".to_owned(),
        io::ErrorKind::StorageFull => "make room: `df -h /etc/pve /var/lib/pve-cluster`".to_owned(),
        io::ErrorKind::NotConnected => "the mount at `/etc/pve` is stale: `systemctl restart pve-cluster`".to_owned(),
        _ => "`systemctl status pve-cluster` and `ls -ld /etc/pve/public-ip` may tell more".to_owned(),
    }
}

/// The registry's files.
#[derive(Debug, Clone)]
pub struct Store {
    paths: Paths,
    node: NodeName,
    last_good: LastGood,
    /// What was read last: a file that has the same content is not read into a document once more.
    known: Arc<Mutex<Snapshot>>,
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
    /// The fingerprint of each file that is there.
    files: BTreeMap<PathBuf, u64>,
    /// The content of those of which this node has no copy, or that cannot be used; kept only where somebody asks for it.
    contents: BTreeMap<PathBuf, Vec<u8>>,
}

/// What files are to have; `None`: they go.
type Writes = Vec<(PathBuf, Option<Vec<u8>>)>;

/// A document as it was read: what it says or why it is unusable, and its exact bytes.
pub type Read<T> = (Result<T, DocumentError>, Vec<u8>);

impl Snapshot {
    /// The fingerprint of every guest's file that can be used.
    pub fn guests(&self) -> impl Iterator<Item = (Vmid, u64)> {
        let vmid = |path: &Path| path.file_stem()?.to_str()?.parse().ok();
        let guests = self.files.iter().filter_map(move |(path, print)| Some((vmid(path)?, *print)));
        guests.filter(|(vmid, _)| self.registry.guests.contains_key(vmid))
    }

    /// As [`Store::pools_source`] of all pools, by what was read. What was recalled in the place of a file counts for nothing.
    pub fn pools_source(&self, paths: &Paths) -> BTreeMap<String, u64> {
        let directory = paths.pool_files();
        let of_pools = self.files.iter().filter(|(path, _)| path.parent() == Some(&directory));
        let named = of_pools.filter_map(|(path, print)| Some((path.file_stem()?.to_str()?.to_owned(), *print)));
        let sources: BTreeMap<String, u64> = named.collect();
        if sources.is_empty() {
            let print = self.files.get(&paths.pools_file()).copied();
            return BTreeMap::from([("pools.json".to_owned(), print.unwrap_or_else(|| files::fingerprint(b"")))]);
        }
        sources
    }

    /// Whether a file was the same at that time.
    fn had(&self, path: &Path, print: u64) -> bool {
        self.files.get(path) == Some(&print)
    }
}

impl Store {
    /// The registry of the node `node` under `paths`.
    pub fn new(paths: &Paths, node: &NodeName) -> Self {
        let (last_good, journal) = (LastGood::new(paths), Journal::new(paths, node));
        let known = Arc::new(Mutex::new(Snapshot::default()));
        Self { paths: paths.clone(), node: node.clone(), last_good, known, recent: Arc::default(), journal }
    }

    /// Reads everything. Files that cannot be used are listed in [`Registry::broken`].
    pub fn load(&self) -> Result<Snapshot, StoreError> {
        self.load_with(None)
    }

    /// The same, with the contents of the files whose copies have other fingerprints.
    fn load_with(&self, copies: Option<&BTreeMap<String, u64>>) -> Result<Snapshot, StoreError> {
        self.check_mounted()?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut snapshot = Snapshot::default();
        let mut reading = Reading { store: self, known: &known, copies, snapshot: &mut snapshot };
        reading.pools();
        reading.released();
        reading.node();
        reading.guests();
        let holds = snapshot.registry.guests.values().any(|guest| !guest.is_empty());
        if holds && !snapshot.files.contains_key(&self.paths.pools_file()) {
            snapshot.registry.broken.extend(self.missing_pools());
        }
        let missing = self.missing_files(&snapshot.registry);
        snapshot.registry.broken.extend(missing);
        self.know(&snapshot);
        Ok(snapshot)
    }

    /// Keeps what was read for the next look at it.
    fn know(&self, snapshot: &Snapshot) {
        let Snapshot { registry, mut files, .. } = snapshot.clone();
        // What could not be used is looked at again.
        files.retain(|path, _| registry.broken.iter().all(|error| error.path != *path));
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) =
            Snapshot { registry, files, contents: BTreeMap::new() };
    }

    /// Pools do not vanish as long as guests hold addresses of them: somebody has removed the file.
    fn missing_pools(&self) -> Option<DocumentError> {
        let path = self.paths.pools_file();
        let (pools, _) = self.last_good.read::<PoolsFile>(&path)?;
        let reason = "does not exist, although guests hold addresses of its pools";
        let error = || self.explained(DocumentError::new(&path, reason, document::RESTORE));
        (!pools.pools.is_empty()).then(error)
    }

    /// The same for a pool that has a file of its own.
    fn missing_files(&self, registry: &Registry) -> Vec<DocumentError> {
        let guests = registry.guests.values().flat_map(GuestFile::addresses);
        let held: BTreeSet<&PoolName> = guests.map(|(.., assigned)| &assigned.pool).collect();
        let gone = held.into_iter().filter(|name| !registry.pools.pools.contains_key(*name));
        let paths = gone.map(|name| self.paths.pool_file(name));
        let is_missing = |path: &PathBuf| {
            let is_said =
                registry.broken.iter().any(|error| error.path == *path || error.path == self.paths.pools_file());
            !is_said && !path.exists() && self.last_good.read::<PoolFile>(path).is_some()
        };
        let reason = "does not exist, although guests hold addresses of the pool";
        let error = |path: PathBuf| self.explained(DocumentError::new(&path, reason, document::RESTORE));
        paths.filter(is_missing).map(error).collect()
    }

    /// The registry by which guests are protected: in the place of files that cannot be used, what was known of them last.
    /// What of it has no copy yet is for [`Self::remember`].
    pub fn load_known(&self) -> Result<(Snapshot, News), StoreError> {
        let copies = self.last_good.index();
        let mut snapshot = self.load_with(Some(&copies))?;
        let bad: BTreeSet<PathBuf> = snapshot.registry.broken.iter().map(|error| error.path.clone()).collect();
        let mut contents = std::mem::take(&mut snapshot.contents);
        let good = snapshot.files.iter().filter(|(path, _)| !bad.contains(*path));
        let good = good.map(|(path, print)| (path.as_path(), *print, contents.get(path).map(Vec::as_slice)));
        let guests = self.paths.guest_files();
        let pools = self.paths.pool_files();
        let is_well = |directory: &PathBuf| !bad.contains(directory);
        let are_pools_well = is_well(&pools) && is_well(&self.paths.pools_file());
        let is_gone = |path: &Path| {
            let is_listed =
                path.parent() == Some(&guests) && is_well(&guests) || path.parent() == Some(&pools) && are_pools_well;
            is_listed && !bad.contains(path)
        };
        let news = self.last_good.news(copies, good, is_gone);
        contents.retain(|path, _| bad.contains(path));
        snapshot.contents = contents;
        for path in &bad {
            self.recall(&mut snapshot, path);
        }
        Ok((snapshot, news))
    }

    /// The registry as this node knew it last, without a look at the files: for when `/etc/pve` does not answer, or is not there.
    /// `None` if it knew none, because then there is nothing to protect.
    pub fn remembered(&self) -> Option<Registry> {
        let mut snapshot = Snapshot::default();
        let own = [self.paths.released_file(), self.paths.node_file(&self.node), self.paths.guest_files()];
        for path in own.into_iter().chain([self.paths.pools_file()]) {
            self.recall(&mut snapshot, &path);
        }
        let mut registry = snapshot.registry;
        let reason = "does not answer, or is not mounted (pmxcfs is not running)";
        let hint = "`systemctl status pve-cluster`, then try again";
        registry.broken.push(DocumentError::new(&self.paths.etc_pve(), reason, hint));
        (!registry.recalled.is_empty()).then_some(registry)
    }

    /// Puts the last known good copy of one file in its place.
    fn recall(&self, snapshot: &mut Snapshot, path: &Path) {
        let vmid = path.file_stem().and_then(|stem| stem.to_str()?.parse::<Vmid>().ok());
        let registry = &mut snapshot.registry;
        let is_known = if self.paths.is_of_pools(path) {
            let known = self.last_pools(path);
            let is_known = known.is_some();
            match known {
                Some(Recalled::All(pools)) => registry.pools = pools,
                Some(Recalled::One(file)) => {
                    registry.pools.version = POOLS_VERSION;
                    registry.pools.pools.insert(file.name, file.pool);
                }
                None => {
                    let bytes = snapshot.contents.get(path).map(Vec::as_slice).unwrap_or_default();
                    registry.lost_pools.get_or_insert_default().extend(bridges_named_in(bytes));
                }
            }
            is_known
        } else if *path == self.paths.released_file() {
            self.last_good.read(path).map(|(released, _)| registry.released = released).is_some()
        } else if *path == self.paths.node_file(&self.node) {
            registry.node = self.last_good.read(path).map(|(node, _)| node);
            registry.node.is_some()
        } else if *path == self.paths.guest_files() {
            let known = self.last_good.guests().into_iter();
            let known = known.filter_map(|vmid| Some((vmid, self.last_guest(vmid)?)));
            registry.guests = known.collect();
            !registry.guests.is_empty()
        } else {
            let known = vmid.and_then(|vmid| Some((vmid, self.last_guest(vmid)?)));
            known.map(|(vmid, guest)| registry.guests.insert(vmid, guest)).is_some()
        };
        if is_known {
            registry.recalled.insert(path.to_owned());
        }
    }

    /// The pools that a file said last, or all of them if it is the one that says where they are.
    fn last_pools(&self, path: &Path) -> Option<Recalled> {
        if path.parent() == Some(&self.paths.pool_files()) {
            return self.last_good.read(path).map(|(file, _)| Recalled::One(file));
        }
        let pools = if path == self.paths.pools_file() {
            self.last_good.read::<PoolsFile>(path)?.0
        } else {
            PoolsFile { version: POOLS_VERSION, ..PoolsFile::default() }
        };
        if pools.version == VERSION {
            return Some(Recalled::All(pools));
        }
        let names = self.last_good.names("pools").into_iter();
        let known = names.filter_map(|name| self.last_good.read::<PoolFile>(&self.paths.pool_files().join(name)));
        let pools: SharedMap<PoolName, Pool> = known.map(|(file, _)| (file.name, file.pool)).collect();
        let is_any = path == self.paths.pools_file() || !pools.is_empty();
        is_any.then_some(Recalled::All(PoolsFile { version: POOLS_VERSION, pools }))
    }

    fn last_guest(&self, vmid: Vmid) -> Option<GuestFile> {
        self.last_good.read::<GuestFile>(&self.paths.guest_file(vmid)).map(|(guest, _)| guest)
    }

    /// Copies what this node could read, for when it no longer can. The node must be locked.
    pub fn remember(&self, news: &News) {
        if let Err(error) = self.last_good.keep(news) {
            log::warn!(
                "the registry's files cannot be copied to `{}`, so nothing is known of one that becomes unreadable: {error}",
                self.paths.last_good().display()
            );
        }
    }

    /// The last known good copy of a file of the registry, by its name there.
    pub fn copy_of(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.paths.registry().join(name);
        let vmid = path.file_stem().and_then(|stem| stem.to_str()?.parse::<Vmid>().ok());
        if path.parent() == Some(&self.paths.pool_files()) {
            self.last_good.read::<PoolFile>(&path).map(|(_, bytes)| bytes)
        } else if path == self.paths.pools_file() {
            self.last_good.read::<PoolsFile>(&path).map(|(_, bytes)| bytes)
        } else if path == self.paths.released_file() {
            self.last_good.read::<ReleasedFile>(&path).map(|(_, bytes)| bytes)
        } else if path == self.paths.node_file(&self.node) {
            self.last_good.read::<NodeFile>(&path).map(|(_, bytes)| bytes)
        } else if vmid.is_some_and(|vmid| path == self.paths.guest_file(vmid)) {
            self.last_good.read::<GuestFile>(&path).map(|(_, bytes)| bytes)
        } else {
            None
        }
    }

    /// When a copy was made.
    pub fn copied_at(&self, name: &str) -> Option<std::time::SystemTime> {
        let copy = self.last_good.copy(&self.paths.registry().join(name))?;
        fs::metadata(copy).and_then(|meta| meta.modified()).ok()
    }

    /// Puts the last known good copy in the place of a file that cannot be used; what the file was is kept on this node.
    pub fn restore(&self, name: &str, copy: &[u8]) -> Result<PathBuf, StoreError> {
        self.check_mounted()?;
        let path = self.paths.registry().join(name);
        let lock = RegistryLock::take(&self.paths, LOCK_LIMIT)?;
        let before = self.load()?.registry;
        let seconds = crate::store::journal::now().0.as_secs();
        let aside = self.paths.replaced().join(format!("{}.{seconds}", name.replace('/', "-")));
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Save { path, source }
        };
        files::private_directory(&self.paths.replaced()).map_err(failed(&aside))?;
        if let Ok(Some(bytes)) = read(&path) {
            files::replace(&aside, &bytes).map_err(failed(&aside))?;
        }
        lock.check()?;
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir(&path).map_err(failed(&path))?;
        }
        let written = files::directories(path.parent().unwrap_or(&path));
        written.and_then(|()| files::replace_as(&path, copy, self.node.as_str())).map_err(failed(&path))?;
        let after = self.load()?;
        self.journal.follow((&before, None), (&after.registry, self.identity(&after)));
        Ok(aside)
    }

    /// Reads one file, and says what is wrong with it if it cannot be used; `None`: there is none.
    fn document<T>(
        &self,
        path: &Path,
        parse: impl FnOnce(&Path, &[u8]) -> Result<T, DocumentError>,
    ) -> Option<Read<T>> {
        let (parsed, bytes) = match read(path) {
            Ok(Some(bytes)) => (parse(path, &bytes), bytes),
            Ok(None) => return None,
            Err(source) => {
                let error = DocumentError::new(path, format!("cannot be read: {source}"), read_hint(&source));
                (Err(error), Vec::new())
            }
        };
        Some((parsed.map_err(|error| self.explained(error)), bytes))
    }

    /// Adds to what is wrong with a file what only this node knows: whether a newer release may have written it, and whether
    /// there is a copy.
    fn explained(&self, mut error: DocumentError) -> DocumentError {
        let newer = if error.fault == Fault::UnknownKey { self.newer_release() } else { None };
        if let Some((node, release)) = newer {
            let own = env!("CARGO_PKG_VERSION");
            error.reason += &format!(": written by release {release}, which node {node} runs; this is {own}");
            UPGRADE.clone_into(&mut error.hint);
        } else if error.fault != Fault::Newer {
            let is_listing = [self.paths.guest_files(), self.paths.pool_files()].contains(&error.path);
            let has_copy = |name: &String| !is_listing && self.copy_of(name).is_some();
            if let Some(name) = self.last_good.name(&error.path).filter(has_copy) {
                let restore = format!("`pve-public-ip registry restore {name}` puts the last known good copy back");
                error.hint =
                    if error.hint == document::RESTORE { restore } else { format!("{}; {restore}", error.hint) };
            }
        }
        error
    }

    /// Refuses what another node of the cluster could not read any more. Which release a node runs it has noted itself, with
    /// `apply`. One that has noted nothing may have no such program at all, and then nothing of it is to be stopped; but where
    /// guests hold addresses it has, and may be of any age.
    pub fn admits(&self, before: &Registry, after: &Registry) -> Result<(), RuleError> {
        let value = |document: Option<serde_json::Value>| document.unwrap_or_default();
        // A hundred thousand addresses are not rendered for nothing.
        let has_newer = |file| releases::KEYS.iter().any(|key| key.file == file);
        let mut added = Vec::new();
        if has_newer(releases::File::Pools) && before.pools != after.pools {
            let [old, new] = [before, after].map(|registry| value(serde_json::to_value(&registry.pools).ok()));
            added.extend(releases::added(releases::File::Pools, &old, &new));
        }
        if has_newer(releases::File::Released) && before.released != after.released {
            let [old, new] = [before, after].map(|registry| value(serde_json::to_value(&registry.released).ok()));
            added.extend(releases::added(releases::File::Released, &old, &new));
        }
        for (_, guests) in before.guests.differences(&after.guests) {
            let [old, new] = guests.map(|guest| value(serde_json::to_value(guest).ok()));
            added.extend(releases::added(releases::File::Guest, &old, &new));
        }
        if let Some(key) = added.into_iter().max_by_key(|key| releases::number(key.since)) {
            self.all_read(key.name(), key.since, before)?;
        }
        if before.pools.version != after.pools.version && after.pools.version == POOLS_VERSION {
            self.all_read("pools/NAME.json", releases::POOL_FILES, before)?;
        }
        Ok(())
    }

    /// Refuses what only nodes with this release or a later one can read.
    fn all_read(&self, key: &'static str, since: &'static str, registry: &Registry) -> Result<(), RuleError> {
        let noted: BTreeMap<String, String> = self.releases().into_iter().collect();
        for node in self.other_nodes() {
            let release = noted.get(node.as_str());
            let is_older = |release: &String| releases::number(release) < releases::number(since);
            if release.map_or_else(|| self.has_holders(&node, registry), is_older) {
                return Err(RuleError::TooNew { key, since, node, release: release.cloned() });
            }
        }
        Ok(())
    }

    /// The other nodes of the cluster. A directory may outlive its node, which the list of members then lacks.
    fn other_nodes(&self) -> Vec<NodeName> {
        #[derive(serde::Deserialize)]
        struct Members {
            #[serde(default)]
            nodelist: BTreeMap<String, serde_json::Value>,
        }
        let members = files::read_limited(&self.paths.members(), 1 << 20).ok();
        let members = members.and_then(|bytes| serde_json::from_slice::<Members>(&bytes).ok());
        let members = members.map(|members| members.nodelist).filter(|nodes| !nodes.is_empty());
        let is_member = |name: &String| members.as_ref().is_none_or(|members| members.contains_key(name));
        let names = files::names(&self.paths.nodes()).into_iter().filter(is_member);
        let mut nodes: Vec<NodeName> =
            names.filter_map(|name| name.parse().ok()).filter(|node| *node != self.node).collect();
        nodes.sort_unstable();
        nodes
    }

    /// Whether a guest that holds addresses is on that node.
    fn has_holders(&self, node: &NodeName, registry: &Registry) -> bool {
        let mut holders = registry.guests.iter().filter(|(_, guest)| !guest.is_empty());
        holders.any(|(vmid, _)| {
            let kinds = [GuestKind::Qemu, GuestKind::Lxc];
            kinds.into_iter().any(|kind| self.paths.guest_config(node, kind, *vmid).exists())
        })
    }

    /// The newest release that a node of the cluster runs, if this is an older one.
    fn newer_release(&self) -> Option<(String, String)> {
        let notes = self.releases();
        let own = releases::number(env!("CARGO_PKG_VERSION"));
        let newest = notes.into_iter().max_by_key(|(_, release)| releases::number(release));
        newest.filter(|(_, release)| releases::number(release) > own)
    }

    /// Which release each node has noted.
    fn releases(&self) -> Vec<(String, String)> {
        #[derive(serde::Deserialize)]
        struct Note {
            release: String,
        }
        let directory = self.paths.releases();
        let note = |name: String| {
            let node = name.strip_suffix(".json")?.to_owned();
            let bytes = files::read_limited(&directory.join(&name), 1 << 16).ok()?;
            Some((node, serde_json::from_slice::<Note>(&bytes).ok()?.release))
        };
        files::names(&directory).into_iter().filter_map(note).collect()
    }

    /// This node's file, or what was known of it last. One of which nothing is known is as good as none: the rules stand
    /// without it.
    pub fn node_file(&self) -> Option<NodeFile> {
        let known = |error: DocumentError| self.last_good.read(&error.path).map(|(node, _)| node);
        self.load_node()?.map_or_else(known, Some)
    }

    /// Reads this node's file; `None` if there is none.
    pub fn load_node(&self) -> Option<Result<NodeFile, DocumentError>> {
        self.document(&self.paths.node_file(&self.node), document::parse).map(|(node, _)| node)
    }

    /// Reads one guest's file and its exact bytes; `None` if there is none.
    pub fn load_guest(&self, vmid: Vmid) -> Option<Read<GuestFile>> {
        self.document(&self.paths.guest_file(vmid), |path, bytes| parse_guest(vmid, path, bytes))
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

    fn pool_names(&self) -> BTreeSet<PoolName> {
        let files = Self::files_in::<PoolName>(&self.paths.pool_files()).unwrap_or_default();
        files.into_iter().map(|(name, _)| name).collect()
    }

    /// The pools, and why they are only what was known of them last, if that is so. Where each pool has a file of its own, only
    /// those of these names are read.
    pub fn known_pools(
        &self,
        names: Option<&BTreeSet<PoolName>>,
    ) -> Result<(PoolsFile, Option<DocumentError>), DocumentError> {
        let bytes = read(&self.paths.pools_file()).ok().flatten().unwrap_or_default();
        if self.has_pool_files(&bytes) {
            return self.known_files(names.cloned().unwrap_or_else(|| self.pool_names()));
        }
        let error = match self.document(&self.paths.pools_file(), document::parse::<PoolsFile>) {
            Some((Ok(pools), _)) => return Ok((pools, None)),
            Some((Err(error), _)) => error,
            None => match self.missing_pools() {
                Some(error) => error,
                None => return Ok((PoolsFile::default(), None)),
            },
        };
        match self.last_good.read(&error.path) {
            Some((pools, _)) => Ok((pools, Some(error))),
            None => Err(error),
        }
    }

    fn known_files(&self, names: BTreeSet<PoolName>) -> Result<(PoolsFile, Option<DocumentError>), DocumentError> {
        let (mut pools, mut trouble) = (PoolsFile { version: POOLS_VERSION, ..PoolsFile::default() }, None);
        for name in names {
            let path = self.paths.pool_file(&name);
            let error = match self.document(&path, |path, bytes| parse_pool(&name, path, bytes)) {
                Some((Ok(pool), _)) => {
                    pools.pools.insert(name, pool);
                    continue;
                }
                Some((Err(error), _)) => error,
                None => {
                    let reason = "does not exist, although guests hold addresses of the pool";
                    self.explained(DocumentError::new(&path, reason, document::RESTORE))
                }
            };
            match self.last_good.read::<PoolFile>(&path) {
                Some((file, _)) => pools.pools.insert(name, file.pool),
                // One that does not exist, and never did, is missed where it is looked for.
                None if !path.exists() => continue,
                None => return Err(error),
            }
            trouble = Some(error);
        }
        Ok((pools, trouble))
    }

    /// By which the files that the audit log knows are told from others; `None`: not all of them can be used.
    fn identity(&self, snapshot: &Snapshot) -> Option<u64> {
        let is_audited = |path: &Path| *path != self.paths.released_file();
        let files = snapshot.files.iter().filter(|(path, _)| is_audited(path));
        snapshot.registry.broken.is_empty().then(|| {
            let mut hasher = DefaultHasher::new();
            files.for_each(|file| file.hash(&mut hasher));
            hasher.finish()
        })
    }

    /// Gives each pool a file of its own, in one step; says whether there was anything to do. Refused while a node of the cluster
    /// runs a release that could not read them.
    pub fn convert(&self, dry_run: bool) -> Result<bool, StoreError> {
        let convert = |registry: &mut Registry| -> Result<bool, StoreError> {
            if let Some(error) = registry.broken.first() {
                return Err(RuleError::from(error.clone()).into());
            }
            let is_old = registry.pools.version == VERSION;
            registry.pools.version = POOLS_VERSION;
            Ok(is_old)
        };
        if !dry_run {
            return self.change(convert);
        }
        let before = self.load()?.registry;
        let mut after = before.clone();
        let outcome = convert(&mut after)?;
        self.admits(&before, &after)?;
        self.pool_writes(&before.pools, &after.pools)?;
        Ok(outcome)
    }

    /// Changes the registry under the cluster-wide lock; `change` gets the registry as it is now.
    ///
    /// Nothing is written if `change` fails.
    pub fn change<T, E: From<StoreError>>(&self, change: impl FnOnce(&mut Registry) -> Result<T, E>) -> Result<T, E> {
        self.check_mounted()?;
        let lock = RegistryLock::take(&self.paths, LOCK_LIMIT).map_err(StoreError::from)?;
        let mut snapshot = self.load()?;
        let was = self.identity(&snapshot);
        let before = snapshot.registry.clone();
        let outcome = match change(&mut snapshot.registry) {
            Ok(outcome) => outcome,
            Err(error) => {
                // A killed process may have left a change without its entry; whoever repeats its command ends here.
                self.journal.follow((&before, was), (&before, was));
                return Err(error);
            }
        };
        for (path, bytes) in self.save(&before, &snapshot, &lock)? {
            match bytes {
                Some(bytes) => drop(snapshot.files.insert(path, files::fingerprint(&bytes))),
                None => drop(snapshot.files.remove(&path)),
            }
        }
        self.know(&snapshot);
        // Still under the lock, so that the order of the entries is that of the changes.
        self.journal.follow((&before, was), (&snapshot.registry, self.identity(&snapshot)));
        Ok(outcome)
    }

    /// Does something under the cluster-wide lock that is not about pools and guests.
    fn locked<T, E: From<StoreError>>(&self, act: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.check_mounted()?;
        let lock = RegistryLock::take(&self.paths, LOCK_LIMIT).map_err(StoreError::from)?;
        let outcome = act();
        drop(lock);
        outcome
    }

    /// Writes down what was changed by hand or on another node. Says whether it could look: a command may be at it.
    pub fn audit(&self) -> Result<bool, StoreError> {
        let Some(_lock) = RegistryLock::of_this_node(&self.paths)? else { return Ok(false) };
        let snapshot = self.load()?;
        let now = (&snapshot.registry, self.identity(&snapshot));
        self.journal.follow(now, now);
        Ok(true)
    }

    /// Writes what differs, in an order in which each state in between obeys the rules and nothing is lost: that an address
    /// was released is noted before it is, because a note about one that is still held counts for nothing; and a guest gets
    /// its gateway before its pool does, so that the same command again finds who has the old one yet.
    ///
    /// Returns what each file has now.
    fn save(&self, before: &Registry, snapshot: &Snapshot, lock: &RegistryLock) -> Result<Writes, StoreError> {
        let after = &snapshot.registry;
        self.admits(before, after)?;
        let mut writes = Writes::new();
        if let Some(node) = after.node.as_ref().filter(|node| before.node.as_ref() != Some(node)) {
            let path = self.paths.node_file(&self.node);
            writes.push((path.clone(), Some(rendered(&path, node)?)));
        }
        for (vmid, [_, new]) in before.guests.differences(&after.guests) {
            let path = self.paths.guest_file(*vmid);
            let bytes = new.map(|guest| rendered(&path, guest)).transpose()?;
            writes.push((path, bytes));
        }
        writes.extend(self.pool_writes(&before.pools, &after.pools)?);
        // What an interrupted conversion left beside version 1 is nobody's.
        let is_left = |path: &Path| before.pools.version == VERSION && path.parent() == Some(&self.paths.pool_files());
        for (path, _) in writes.iter().filter(|(path, _)| !is_left(path)) {
            let now = read(path).map_err(|source| StoreError::Read { path: path.clone(), source })?;
            if now.as_deref().map(files::fingerprint).as_ref() != snapshot.files.get(path) {
                return Err(StoreError::Changed { path: path.clone() });
            }
        }
        let released = if before.released == after.released {
            None
        } else {
            let path = self.paths.released_file();
            Some((path.clone(), rendered(&path, &after.released)?))
        };
        // Nobody shall be kept from giving an address back, and where the disk is full there is room only afterwards.
        let note = |(path, bytes): &(PathBuf, Vec<u8>)| files::replace_as(path, bytes, self.node.as_str());
        lock.check()?;
        let is_late = released.as_ref().is_some_and(|released| note(released).is_err());
        for (path, bytes) in &writes {
            lock.check()?;
            let written = match (bytes, path.parent()) {
                (Some(bytes), Some(parent)) => {
                    files::directories(parent).and_then(|()| files::replace_as(path, bytes, self.node.as_str()))
                }
                (None, _) => fs::remove_file(path),
                (Some(_), None) => Ok(()),
            };
            written.map_err(|source| StoreError::Save { path: path.clone(), source })?;
        }
        if let Some(released) = released.filter(|_| is_late) {
            if let Err(error) = note(&released) {
                let path = released.0.display();
                log::warn!("what was released may be handed out again at once: cannot save `{path}`: {error}");
            }
        }
        Ok(writes)
    }

    /// What is written for pools. The file that says which format counts is written last, and is the step in which another one
    /// does: whoever is killed before it leaves all as it was, and files that do not count.
    fn pool_writes(&self, before: &PoolsFile, after: &PoolsFile) -> Result<Writes, StoreError> {
        let pools = self.paths.pools_file();
        if before == after {
            return Ok(Writes::new());
        }
        if after.version == VERSION {
            return Ok(vec![(pools.clone(), Some(rendered(&pools, after)?))]);
        }
        let mut writes = Writes::new();
        let is_converted = before.version == VERSION;
        let nothing = SharedMap::default();
        let known = if is_converted { &nothing } else { &before.pools };
        for (name, [_, new]) in known.differences(&after.pools) {
            let path = self.paths.pool_file(name);
            let file = |pool: &Pool| PoolFile { version: POOLS_VERSION, name: name.clone(), pool: pool.clone() };
            let bytes = new.map(|pool| rendered(&path, &file(pool))).transpose()?;
            writes.push((path, bytes));
        }
        if is_converted {
            let is_left = |name: &PoolName| !after.pools.contains_key(name);
            let left = self.pool_names().into_iter().filter(is_left);
            writes.extend(left.map(|name| (self.paths.pool_file(&name), None)));
        }
        if is_converted || !pools.exists() {
            let marker = PoolsFile { version: POOLS_VERSION, ..PoolsFile::default() };
            writes.push((pools.clone(), Some(rendered(&pools, &marker)?)));
        }
        Ok(writes)
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

    fn guest_files(&self) -> Result<Vec<(Vmid, PathBuf)>, DocumentError> {
        Self::files_in(&self.paths.guest_files())
    }

    /// The files of a directory that are named by something, sorted by that.
    fn files_in<T: FromStr + Ord>(directory: &Path) -> Result<Vec<(T, PathBuf)>, DocumentError> {
        let failed = |source: io::Error| {
            DocumentError::new(directory, format!("cannot be listed: {source}"), read_hint(&source))
        };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            // Other names are temporary files and what FUSE leaves (`.fuse_hidden...`).
            let named = name.to_str().and_then(|name| name.strip_suffix(".json")).and_then(|stem| stem.parse().ok());
            if let Some(named) = named {
                files.push((named, directory.join(name)));
            }
        }
        files.sort_unstable();
        Ok(files)
    }
}

/// What was known last of pools.
enum Recalled {
    All(PoolsFile),
    One(PoolFile),
}

fn parse_pool(name: &PoolName, path: &Path, bytes: &[u8]) -> Result<Pool, DocumentError> {
    let file: PoolFile = document::parse(path, bytes)?;
    if file.name == *name {
        return Ok(file.pool);
    }
    let reason = format!("says name `{}`, but its own name says `{name}`", file.name);
    Err(DocumentError::new(path, reason, "rename the file or correct `name`"))
}

/// One look at all files. What was read before and has not changed is what it was.
struct Reading<'a> {
    store: &'a Store,
    known: &'a Snapshot,
    /// The fingerprints of this node's copies, if somebody asks for what these lack.
    copies: Option<&'a BTreeMap<String, u64>>,
    snapshot: &'a mut Snapshot,
}

impl Reading<'_> {
    /// What a file says: `known` if that was read of the same content, else what `parse` makes of it; `None`: there is no
    /// file, or it cannot be used.
    fn keep<T>(
        &mut self,
        path: PathBuf,
        known: Option<T>,
        parse: impl FnOnce(&Path, &[u8]) -> Result<T, DocumentError>,
    ) -> Option<T> {
        let (mut print, mut is_known) = (files::fingerprint(b""), false);
        let parse = |path: &Path, bytes: &[u8]| {
            print = files::fingerprint(bytes);
            is_known = self.known.had(path, print);
            known.filter(|_| is_known).map_or_else(|| parse(path, bytes), Ok)
        };
        let (parsed, bytes) = self.store.document(&path, parse)?;
        let has_copy = |copies: &BTreeMap<String, u64>| {
            self.store.last_good.name(&path).is_some_and(|name| copies.get(&name) == Some(&print))
        };
        if parsed.is_err() || self.copies.is_some_and(|copies| !has_copy(copies)) {
            self.snapshot.contents.insert(path.clone(), bytes);
        }
        self.snapshot.files.insert(path, print);
        parsed.map_err(|error| self.snapshot.registry.broken.push(error)).ok()
    }

    /// Version 1 counts alone: what is below `pools/` beside it was left by a conversion that did not come to its end.
    fn pools(&mut self) {
        let path = self.store.paths.pools_file();
        let known = Some(&self.known.registry.pools).filter(|pools| pools.version == VERSION).cloned();
        match self.keep(path.clone(), known, document::parse::<PoolsFile>) {
            Some(pools) if pools.version == VERSION => self.snapshot.registry.pools = pools,
            None if self.snapshot.files.contains_key(&path) => {}
            None if !self.store.paths.pool_files().exists() => {}
            _ => self.pool_files(),
        }
    }

    fn pool_files(&mut self) {
        let files = match Store::files_in(&self.store.paths.pool_files()) {
            Ok(files) => files,
            Err(error) => {
                self.snapshot.registry.broken.push(self.store.explained(error));
                return;
            }
        };
        self.snapshot.registry.pools.version = POOLS_VERSION;
        let mut is_changed = false;
        for (name, path) in files {
            let known = self.known.registry.pools.pools.share(&name);
            let parse = |path: &Path, bytes: &[u8]| {
                is_changed = true;
                parse_pool(&name, path, bytes).map(Arc::new)
            };
            if let Some(pool) = self.keep(path, known, parse) {
                self.snapshot.registry.pools.pools.insert_shared(name, pool);
            }
        }
        if is_changed {
            self.apart();
        }
    }

    /// Takes out pools that have addresses in common: nobody knows which of them is meant.
    fn apart(&mut self) {
        let registry = &mut self.snapshot.registry;
        while let Some(overlap) = document::overlap(registry.pools.pools.iter()) {
            let (reason, names) = (overlap.to_string(), overlap.pools().map(PoolName::clone));
            for name in names {
                let hint = "correct one of the files by hand, then run `pve-public-ip verify`";
                let error = DocumentError::new(&self.store.paths.pool_file(&name), reason.clone(), hint);
                registry.broken.push(self.store.explained(error));
                registry.pools.pools.remove(&name);
            }
        }
    }

    fn released(&mut self) {
        let path = self.store.paths.released_file();
        if let Some(released) = self.keep(path, None, document::parse::<ReleasedFile>) {
            self.snapshot.registry.released = released;
        }
    }

    fn node(&mut self) {
        let path = self.store.paths.node_file(&self.store.node);
        self.snapshot.registry.node = self.keep(path, None, document::parse::<NodeFile>);
    }

    fn guests(&mut self) {
        let files = match self.store.guest_files() {
            Ok(files) => files,
            Err(error) => {
                self.snapshot.registry.broken.push(self.store.explained(error));
                return;
            }
        };
        for (vmid, path) in files {
            let known = self.known.registry.guests.share(&vmid);
            let parse = |path: &Path, bytes: &[u8]| parse_guest(vmid, path, bytes).map(Arc::new);
            if let Some(guest) = self.keep(path, known, parse) {
                self.snapshot.registry.guests.insert_shared(vmid, guest);
            }
        }
    }
}

/// Bridges that a damaged `pools.json` seems to name: what follows each `"bridge"`.
fn bridges_named_in(bytes: &[u8]) -> BTreeSet<IfName> {
    let text = String::from_utf8_lossy(bytes);
    let mut named = BTreeSet::new();
    for rest in text.split("\"bridge\"").skip(1) {
        let value = rest.trim_start().strip_prefix(':').map(str::trim_start).and_then(|rest| rest.strip_prefix('"'));
        named.extend(value.and_then(|value| value.split_once('"')?.0.parse::<IfName>().ok()));
    }
    named
}

fn parse_guest(vmid: Vmid, path: &Path, bytes: &[u8]) -> Result<GuestFile, DocumentError> {
    let guest: GuestFile = document::parse(path, bytes)?;
    if guest.vmid == vmid {
        return Ok(guest);
    }
    let reason = format!("says vmid {}, but its name says {vmid}", guest.vmid);
    Err(DocumentError::new(path, reason, "rename the file or correct `vmid`"))
}

fn rendered<T: Document>(path: &Path, document: &T) -> Result<Vec<u8>, StoreError> {
    let bytes = document::render(document).map_err(|source| StoreError::Render { path: path.to_owned(), source })?;
    if bytes.len() > document::MAX_FILE_SIZE {
        return Err(StoreError::TooLarge { path: path.to_owned(), size: bytes.len() });
    }
    Ok(bytes)
}

/// The whole file, `None` if it does not exist. Refuses what is not a regular file.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match files::read_limited(path, document::MAX_FILE_SIZE * 4) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
