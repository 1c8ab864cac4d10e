//! The registry's files: read and written under the cluster's lock, with a copy of the last that was good and a log of who
//! changed what.
//!
//! A change is: lock, read everything, change in memory under the rules, check that no file changed meanwhile, write
//! each changed file as a temporary file and rename it. A process that dies in between leaves whole files.

mod caller;
pub mod journal;
mod last_good;
mod lock;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::files;
use crate::model::{GuestKind, IfName, NodeName, Vmid};
use crate::paths::Paths;
use crate::registry::document::{
    self, Document, DocumentError, Fault, GuestFile, NodeFile, PoolsFile, ReleasedFile, UPGRADE,
};
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
    /// Not locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Against the rules.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

impl StoreError {
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
    /// Where its changes are written down.
    pub journal: Journal,
}

/// The registry as it is on disk, with the exact bytes that were read.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What the files say.
    pub registry: Registry,
    bytes: BTreeMap<PathBuf, Vec<u8>>,
}

/// What files are to have; `None`: they go.
type Writes = Vec<(PathBuf, Option<Vec<u8>>)>;

/// A document as it was read: what it says or why it is unusable, and its exact bytes.
pub type Read<T> = (Result<T, DocumentError>, Vec<u8>);

impl Snapshot {
    /// The exact bytes of every guest's file that can be used.
    pub fn guests(&self) -> impl Iterator<Item = (Vmid, &[u8])> {
        let vmid = |path: &Path| path.file_stem()?.to_str()?.parse().ok();
        let guests = self.bytes.iter().filter_map(move |(path, bytes)| Some((vmid(path)?, &bytes[..])));
        guests.filter(|(vmid, _)| self.registry.guests.contains_key(vmid))
    }
}

impl Store {
    /// The registry of the node `node` under `paths`.
    pub fn new(paths: &Paths, node: &NodeName) -> Self {
        let (last_good, journal) = (LastGood::new(paths), Journal::new(paths, node));
        Self { paths: paths.clone(), node: node.clone(), last_good, journal }
    }

    /// Reads everything. Files that cannot be used are listed in [`Registry::broken`].
    pub fn load(&self) -> Result<Snapshot, StoreError> {
        self.check_mounted()?;
        let mut snapshot = Snapshot::default();
        if let Some(pools) = self.keep(&mut snapshot, self.paths.pools_file(), document::parse::<PoolsFile>) {
            snapshot.registry.pools = pools;
        }
        if let Some(released) = self.keep(&mut snapshot, self.paths.released_file(), document::parse::<ReleasedFile>) {
            snapshot.registry.released = released;
        }
        snapshot.registry.node = self.keep(&mut snapshot, self.paths.node_file(&self.node), document::parse);
        match self.guest_files() {
            Ok(files) => {
                for (vmid, path) in files {
                    if let Some(guest) = self.keep(&mut snapshot, path, |path, bytes| parse_guest(vmid, path, bytes)) {
                        snapshot.registry.guests.insert(vmid, guest);
                    }
                }
            }
            Err(error) => snapshot.registry.broken.push(self.explained(error)),
        }
        let holds = snapshot.registry.guests.values().any(|guest| !guest.is_empty());
        if holds && !self.paths.pools_file().exists() {
            snapshot.registry.broken.extend(self.missing_pools());
        }
        Ok(snapshot)
    }

    /// Pools do not vanish as long as guests hold addresses of them: somebody has removed the file.
    fn missing_pools(&self) -> Option<DocumentError> {
        let path = self.paths.pools_file();
        let (pools, _) = self.last_good.read::<PoolsFile>(&path)?;
        let reason = "does not exist, although guests hold addresses of its pools";
        let error = || self.explained(DocumentError::new(&path, reason, document::RESTORE));
        (!pools.pools.is_empty()).then(error)
    }

    /// The registry by which guests are protected: in the place of files that cannot be used, what was known of them last.
    /// What of it has no copy yet is for [`Self::remember`].
    pub fn load_known(&self) -> Result<(Snapshot, News), StoreError> {
        let mut snapshot = self.load()?;
        let bad: BTreeSet<PathBuf> = snapshot.registry.broken.iter().map(|error| error.path.clone()).collect();
        let good = snapshot.bytes.iter().filter(|(path, _)| !bad.contains(*path));
        let guests = self.paths.guest_files();
        let is_gone = |path: &Path| path.parent() == Some(&guests) && !bad.contains(path) && !bad.contains(&guests);
        let news = self.last_good.news(good.map(|(path, bytes)| (path.as_path(), bytes.as_slice())), is_gone);
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
        let is_known = if *path == self.paths.pools_file() {
            let known = self.last_good.read(path).map(|(pools, _)| registry.pools = pools).is_some();
            if !known {
                let bytes = snapshot.bytes.get(path).map(Vec::as_slice).unwrap_or_default();
                registry.lost_pools = Some(bridges_named_in(bytes));
            }
            known
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
        if path == self.paths.pools_file() {
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
                let error =
                    DocumentError::new(path, format!("cannot be read: {source}"), "check its type and permissions");
                (Err(error), Vec::new())
            }
        };
        Some((parsed.map_err(|error| self.explained(error)), bytes))
    }

    /// As [`Self::document`], within the whole registry.
    fn keep<T>(
        &self,
        snapshot: &mut Snapshot,
        path: PathBuf,
        parse: impl FnOnce(&Path, &[u8]) -> Result<T, DocumentError>,
    ) -> Option<T> {
        let (parsed, bytes) = self.document(&path, parse)?;
        snapshot.bytes.insert(path, bytes);
        parsed.map_err(|error| snapshot.registry.broken.push(error)).ok()
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
            let is_listing = error.path == self.paths.guest_files();
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
        for (vmid, guest) in &after.guests {
            let old = before.guests.get(vmid);
            if old != Some(guest) {
                let [old, new] = [old, Some(guest)].map(|guest| value(serde_json::to_value(guest).ok()));
                added.extend(releases::added(releases::File::Guest, &old, &new));
            }
        }
        let Some(key) = added.into_iter().max_by_key(|key| releases::number(key.since)) else { return Ok(()) };
        let noted: BTreeMap<String, String> = self.releases().into_iter().collect();
        for node in self.other_nodes() {
            let release = noted.get(node.as_str());
            let is_older = |release: &String| releases::number(release) < releases::number(key.since);
            if release.map_or_else(|| self.has_holders(&node, before), is_older) {
                let (key, since) = (key.name(), key.since);
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

    /// The bytes of the pools' file; none if there is no file, or if it cannot be read.
    pub fn read_pools(&self) -> Vec<u8> {
        read(&self.paths.pools_file()).ok().flatten().unwrap_or_default()
    }

    /// The pools, and why they are only what was known of them last, if that is so.
    pub fn known_pools(&self) -> Result<(PoolsFile, Option<DocumentError>), DocumentError> {
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

    /// By which the files that the audit log knows are told from others; `None`: not all of them can be used.
    fn identity(&self, snapshot: &Snapshot) -> Option<u64> {
        let is_audited = |path: &Path| *path != self.paths.released_file();
        let files = snapshot.bytes.iter().filter(|(path, _)| is_audited(path));
        snapshot.registry.broken.is_empty().then(|| {
            let mut hasher = DefaultHasher::new();
            files.for_each(|file| file.hash(&mut hasher));
            hasher.finish()
        })
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
                Some(bytes) => drop(snapshot.bytes.insert(path, bytes)),
                None => drop(snapshot.bytes.remove(&path)),
            }
        }
        // Still under the lock, so that the order of the entries is that of the changes.
        self.journal.follow((&before, was), (&snapshot.registry, self.identity(&snapshot)));
        Ok(outcome)
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
        for vmid in before.guests.keys().chain(after.guests.keys()) {
            let (old, new) = (before.guests.get(vmid), after.guests.get(vmid));
            let path = self.paths.guest_file(*vmid);
            if old != new && !writes.iter().any(|(known, _)| *known == path) {
                let bytes = new.map(|guest| rendered(&path, guest)).transpose()?;
                writes.push((path, bytes));
            }
        }
        if before.pools != after.pools {
            let path = self.paths.pools_file();
            writes.push((path.clone(), Some(rendered(&path, &after.pools)?)));
        }
        for (path, _) in &writes {
            let now = read(path).map_err(|source| StoreError::Read { path: path.clone(), source })?;
            if now.as_ref() != snapshot.bytes.get(path) {
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
        let directory = self.paths.guest_files();
        let failed = |source: io::Error| {
            DocumentError::new(&directory, format!("cannot be listed: {source}"), "check its type and permissions")
        };
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            // Other names are temporary files and what FUSE leaves (`.fuse_hidden...`).
            let vmid = name.to_str().and_then(|name| name.strip_suffix(".json")).and_then(|stem| stem.parse().ok());
            if let Some(vmid) = vmid {
                files.push((vmid, directory.join(name)));
            }
        }
        files.sort_unstable();
        Ok(files)
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
