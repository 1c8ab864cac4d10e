//! Reading and writing the registry's files.
//!
//! A change is: lock, read everything, change in memory under the rules, check that no file changed meanwhile, write
//! each changed file as a temporary file and rename it. A process that dies in between leaves whole files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::{self, Document, DocumentError, GuestFile, NodeFile, PoolsFile, ReleasedFile};
use super::lock::{LockError, RegistryLock};
use super::{Registry, RuleError};
use crate::model::{NodeName, Vmid};
use crate::paths::Paths;
use crate::system::files;
use crate::system::journal::Journal;

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
            Self::Save { .. } | Self::Changed { .. } | Self::TooLarge { .. } | Self::Down { .. } | Self::Lock(_)
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
        Self { paths: paths.clone(), node: node.clone(), journal: Journal::new(paths, node) }
    }

    /// Reads everything. Broken files are listed in [`Registry::broken`]; only an unreadable directory is an error.
    pub fn load(&self) -> Result<Snapshot, StoreError> {
        self.check_mounted()?;
        let mut snapshot = Snapshot::default();
        if let Some(pools) = keep(&mut snapshot, self.paths.pools_file(), document::parse::<PoolsFile>)? {
            snapshot.registry.pools = pools;
        }
        if let Some(released) = keep(&mut snapshot, self.paths.released_file(), document::parse::<ReleasedFile>)? {
            snapshot.registry.released = released;
        }
        snapshot.registry.node = keep(&mut snapshot, self.paths.node_file(&self.node), document::parse)?;
        for (vmid, path) in self.guest_files()? {
            if let Some(guest) = keep(&mut snapshot, path, |path, bytes| parse_guest(vmid, path, bytes))? {
                snapshot.registry.guests.insert(vmid, guest);
            }
        }
        Ok(snapshot)
    }

    /// This node's file. One that cannot be understood is as good as none: the rules stand without it.
    pub fn node_file(&self) -> Result<Option<NodeFile>, StoreError> {
        Ok(self.load_node()?.and_then(Result::ok))
    }

    /// Reads this node's file; `None` if there is none.
    pub fn load_node(&self) -> Result<Option<Result<NodeFile, DocumentError>>, StoreError> {
        let path = self.paths.node_file(&self.node);
        Ok(read(&path)?.map(|bytes| document::parse(&path, &bytes)))
    }

    /// Reads one guest's file and its exact bytes; `None` if there is none.
    pub fn load_guest(&self, vmid: Vmid) -> Result<Option<Read<GuestFile>>, StoreError> {
        let path = self.paths.guest_file(vmid);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        Ok(Some((parse_guest(vmid, &path, &bytes), bytes)))
    }

    /// The bytes of the pools' file; none if there is no file.
    pub fn read_pools(&self) -> Result<Vec<u8>, StoreError> {
        Ok(read(&self.paths.pools_file())?.unwrap_or_default())
    }

    /// What bytes from [`Self::read_pools`] say.
    pub fn parse_pools(&self, bytes: &[u8]) -> Result<PoolsFile, DocumentError> {
        let path = self.paths.pools_file();
        if bytes.is_empty() && !path.exists() { Ok(PoolsFile::default()) } else { document::parse(&path, bytes) }
    }

    /// Changes the registry under the cluster-wide lock; `change` gets the registry as it is now.
    ///
    /// Nothing is written if `change` fails.
    pub fn change<T, E: From<StoreError>>(&self, change: impl FnOnce(&mut Registry) -> Result<T, E>) -> Result<T, E> {
        self.check_mounted()?;
        let lock = RegistryLock::take(&self.paths, LOCK_LIMIT).map_err(StoreError::from)?;
        let mut snapshot = self.load()?;
        let before = snapshot.registry.clone();
        let outcome = match change(&mut snapshot.registry) {
            Ok(outcome) => outcome,
            Err(error) => {
                // A killed process may have left a change without its entry; whoever repeats its command ends here.
                self.journal.follow(&before, &before);
                return Err(error);
            }
        };
        self.save(&before, &snapshot, &lock)?;
        // Still under the lock, so that the order of the entries is that of the changes.
        self.journal.follow(&before, &snapshot.registry);
        Ok(outcome)
    }

    /// Writes down what was changed by hand or on another node. Says whether it could look: a command may be at it.
    pub fn audit(&self) -> Result<bool, StoreError> {
        let Some(_lock) = RegistryLock::of_this_node(&self.paths)? else { return Ok(false) };
        let registry = self.load()?.registry;
        self.journal.follow(&registry, &registry);
        Ok(true)
    }

    /// Writes what differs. The order does not matter for safety, because every state in between obeys the rules.
    fn save(&self, before: &Registry, snapshot: &Snapshot, lock: &RegistryLock) -> Result<(), StoreError> {
        let after = &snapshot.registry;
        let mut writes: Vec<(PathBuf, Option<Vec<u8>>)> = Vec::new();
        if before.pools != after.pools {
            let path = self.paths.pools_file();
            writes.push((path.clone(), Some(rendered(&path, &after.pools)?)));
        }
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
        for (path, _) in &writes {
            if read(path)?.as_ref() != snapshot.bytes.get(path) {
                return Err(StoreError::Changed { path: path.clone() });
            }
        }
        for (path, bytes) in writes {
            lock.check()?;
            let written = match (&bytes, path.parent()) {
                (Some(bytes), Some(parent)) => {
                    files::directories(parent).and_then(|()| files::replace_as(&path, bytes, self.node.as_str()))
                }
                (None, _) => fs::remove_file(&path),
                (Some(_), None) => Ok(()),
            };
            written.map_err(|source| StoreError::Save { path, source })?;
        }
        if before.released != after.released {
            let path = self.paths.released_file();
            let bytes = rendered(&path, &after.released)?;
            // Nobody shall be kept from giving an address back, and where the disk is full there is room only now.
            if let Err(error) = files::replace_as(&path, &bytes, self.node.as_str()) {
                log::warn!(
                    "what was released may be handed out again at once: cannot save `{}`: {error}",
                    path.display()
                );
            }
        }
        Ok(())
    }

    /// On a machine with Proxmox VE an empty `/etc/pve` means that pmxcfs is down: nothing may be concluded from it,
    /// and nothing written, because it would lie under the later mount.
    pub fn check_mounted(&self) -> Result<(), StoreError> {
        let path = self.paths.etc_pve();
        let is_proxmox = self.paths.pmxcfs_database().exists();
        if is_proxmox && fs::symlink_metadata(self.paths.local_node()).is_err() {
            return Err(StoreError::Down { path });
        }
        Ok(())
    }

    fn guest_files(&self) -> Result<Vec<(Vmid, PathBuf)>, StoreError> {
        let directory = self.paths.guest_files();
        let failed = |source| StoreError::Read { path: directory.clone(), source };
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

/// Reads a file, remembers its bytes, and keeps its complaint if it is broken.
fn keep<T>(
    snapshot: &mut Snapshot,
    path: PathBuf,
    parse: impl FnOnce(&Path, &[u8]) -> Result<T, DocumentError>,
) -> Result<Option<T>, StoreError> {
    let bytes = match read(&path) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(StoreError::Read { path, source }) => {
            let hint = "check its type and permissions".to_owned();
            snapshot.registry.broken.push(DocumentError { path, reason: format!("cannot be read: {source}"), hint });
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let parsed = parse(&path, &bytes);
    snapshot.bytes.insert(path, bytes);
    match parsed {
        Ok(document) => Ok(Some(document)),
        Err(error) => {
            snapshot.registry.broken.push(error);
            Ok(None)
        }
    }
}

fn parse_guest(vmid: Vmid, path: &Path, bytes: &[u8]) -> Result<GuestFile, DocumentError> {
    let guest: GuestFile = document::parse(path, bytes)?;
    if guest.vmid == vmid {
        return Ok(guest);
    }
    Err(DocumentError {
        path: path.to_owned(),
        reason: format!("says vmid {}, but its name says {vmid}", guest.vmid),
        hint: "rename the file or correct `vmid`".to_owned(),
    })
}

fn rendered<T: Document>(path: &Path, document: &T) -> Result<Vec<u8>, StoreError> {
    let bytes = document::render(document).map_err(|source| StoreError::Render { path: path.to_owned(), source })?;
    if bytes.len() > document::MAX_FILE_SIZE {
        return Err(StoreError::TooLarge { path: path.to_owned(), size: bytes.len() });
    }
    Ok(bytes)
}

/// The whole file, `None` if it does not exist. Refuses what is not a regular file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match files::read_limited(path, document::MAX_FILE_SIZE * 4) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Read { path: path.to_owned(), source }),
    }
}
