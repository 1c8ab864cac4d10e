//! Changes: under the cluster's lock, in an order in which each state in between obeys the rules, and into the audit log.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lock::RegistryLock;
use super::reading::read;
use super::{LOCK_LIMIT, Snapshot, Store, StoreError};
use crate::host::files;
use crate::model::PoolName;
use crate::registry::document::{self, Document, POOLS_VERSION, Pool, PoolFile, PoolsFile, VERSION};
use crate::registry::shared::SharedMap;
use crate::registry::{Registry, RuleError};

/// What files are to have; `None`: they go.
type Writes = Vec<(PathBuf, Option<Vec<u8>>)>;

impl Store {
    /// Changes the registry under the cluster-wide lock; `change` gets the registry as it is now.
    ///
    /// Nothing is written if `change` fails.
    pub fn change<T, E: From<StoreError>>(&self, change: impl FnOnce(&mut Registry) -> Result<T, E>) -> Result<T, E> {
        self.check_mounted()?;
        let lock = RegistryLock::take(&self.paths, LOCK_LIMIT).map_err(StoreError::from)?;
        let mut snapshot = self.load_to_change()?;
        let was = Self::identity(&snapshot);
        let before = snapshot.registry.clone();
        let outcome = match change(&mut snapshot.registry) {
            Ok(outcome) => outcome,
            Err(error) => {
                // A killed process may have left a change without its entry; whoever repeats its command ends here.
                self.journal.follow((&before, was), (&before, was));
                return Err(error);
            }
        };
        let written = self.save(&before, &snapshot, &lock)?;
        let files = Arc::make_mut(&mut snapshot.files);
        for (path, bytes) in &written {
            let Some(name) = self.last_good.name(path) else { continue };
            match bytes {
                Some(bytes) => drop(files.insert(name.to_owned(), files::fingerprint(bytes))),
                None => drop(files.remove(name)),
            }
        }
        self.known().keep(snapshot.clone(), self);
        // Still under the lock, so that the order of the entries is that of the changes.
        self.journal.follow((&before, was), (&snapshot.registry, Self::identity(&snapshot)));
        Ok(outcome)
    }

    /// Reads everything. A registry without files of pools begins in the newest format that every node of the cluster reads.
    fn load_to_change(&self) -> Result<Snapshot, StoreError> {
        let mut snapshot = self.load()?;
        if !snapshot.has_pool_files() {
            let version = if self.reads_pool_files(&snapshot.registry).is_ok() { POOLS_VERSION } else { VERSION };
            snapshot.registry.pools.version = version;
        }
        Ok(snapshot)
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
        let before = self.load_to_change()?.registry;
        let mut after = before.clone();
        let outcome = convert(&mut after)?;
        self.admits(&before, &after)?;
        self.pool_writes(&before.pools, &after.pools)?;
        Ok(outcome)
    }

    /// Does something under the cluster-wide lock that is not about pools and guests.
    pub(super) fn locked<T, E: From<StoreError>>(&self, act: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
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
        let now = (&snapshot.registry, Self::identity(&snapshot));
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
            let known = self.last_good.name(path).and_then(|name| snapshot.files.get(name));
            if now.as_deref().map(files::fingerprint).as_ref() != known {
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
}

fn rendered<T: Document>(path: &Path, document: &T) -> Result<Vec<u8>, StoreError> {
    let bytes = document::render(document).map_err(|source| StoreError::Render { path: path.to_owned(), source })?;
    if bytes.len() > document::MAX_FILE_SIZE {
        return Err(StoreError::TooLarge { path: path.to_owned(), size: bytes.len() });
    }
    Ok(bytes)
}
