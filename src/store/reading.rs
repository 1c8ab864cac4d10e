//! One look at all files, or at one: what was read before and has not changed is what it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::error::read_hint;
use super::{Snapshot, Store, StoreError};
use crate::host::files;
use crate::host::witness::is_plain;
use crate::model::{PoolName, Vmid};
use crate::registry::Registry;
use crate::registry::document::{
    self, DocumentError, Fault, GuestFile, NodeFile, POOLS_VERSION, Pool, PoolFile, PoolsFile, ReleasedFile, UPGRADE,
    VERSION,
};

/// A document as it was read: what it says or why it is unusable, and its exact bytes.
pub type Read<T> = (Result<T, DocumentError>, Vec<u8>);

impl Store {
    /// Reads everything. Files that cannot be used are listed in [`Registry::broken`].
    pub fn load(&self) -> Result<Snapshot, StoreError> {
        self.check_mounted()?;
        Ok(self.read_files(None))
    }

    /// Files of pools that guests hold addresses of, and that are not there. Only these guests are looked at.
    fn missing_files(&self, registry: &Registry, is_meant: impl Fn(Vmid) -> bool) -> Vec<DocumentError> {
        let guests = registry.guests.iter().filter(|(vmid, _)| is_meant(**vmid));
        let assigned = guests.flat_map(|(_, guest)| guest.addresses());
        let mut last = None;
        // Hundreds in a row are of one pool.
        let held = assigned.map(|(.., assigned)| &assigned.pool).filter(|pool| last.replace(*pool) != Some(*pool));
        let gone: BTreeSet<&PoolName> = held.filter(|name| !registry.pools.pools.contains_key(*name)).collect();
        let paths = gone.into_iter().map(|name| self.paths.pool_file(name));
        let is_missing = |path: &PathBuf| {
            let said = [path, &self.paths.pools_file(), &self.paths.pool_files()];
            let is_said = registry.broken.iter().any(|error| said.contains(&&error.path));
            !is_said && !path.exists() && self.last_good.read::<PoolFile>(path).is_some()
        };
        let reason = "does not exist, although guests hold addresses of the pool";
        let error = |path: PathBuf| self.explained(DocumentError::new(&path, reason, document::RESTORE));
        paths.filter(is_missing).map(error).collect()
    }

    /// Pools do not vanish as long as guests hold addresses of them: somebody has removed the file.
    pub(super) fn missing_pools(&self) -> Option<DocumentError> {
        let path = self.paths.pools_file();
        let (pools, _) = self.last_good.read::<PoolsFile>(&path)?;
        let reason = "does not exist, although guests hold addresses of its pools";
        let error = || self.explained(DocumentError::new(&path, reason, document::RESTORE));
        (!pools.pools.is_empty()).then(error)
    }

    /// Reads one file, and says what is wrong with it if it cannot be used; `None`: there is none.
    pub(super) fn document<T>(
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
    pub(super) fn explained(&self, mut error: DocumentError) -> DocumentError {
        let newer = if error.fault == Fault::UnknownKey { self.newer_release() } else { None };
        if let Some((node, release)) = newer {
            let own = env!("CARGO_PKG_VERSION");
            error.reason += &format!(": written by release {release}, which node {node} runs; this is {own}");
            UPGRADE.clone_into(&mut error.hint);
        } else if error.fault != Fault::Newer {
            let is_listing = [self.paths.guest_files(), self.paths.pool_files()].contains(&error.path);
            let has_copy = |name: &&str| !is_listing && self.copy_of(name).is_some();
            if let Some(name) = self.last_good.name(&error.path).filter(has_copy) {
                let restore = format!("`pve-public-ip registry restore {name}` puts the last known good copy back");
                error.hint =
                    if error.hint == document::RESTORE { restore } else { format!("{}; {restore}", error.hint) };
            }
        }
        error
    }

    /// Reads this node's file; `None` if there is none.
    pub fn load_node(&self) -> Option<Result<NodeFile, DocumentError>> {
        self.document(&self.paths.node_file(&self.node), document::parse).map(|(node, _)| node)
    }

    /// Reads one guest's file and its exact bytes; `None` if there is none.
    pub fn load_guest(&self, vmid: Vmid) -> Option<Read<GuestFile>> {
        let read = self.document(&self.paths.guest_file(vmid), |path, bytes| parse_guest(vmid, path, bytes));
        read.or_else(|| {
            self.last_guest(vmid)?;
            Some((Err(self.gone(&self.paths.guest_files())?), Vec::new()))
        })
    }

    /// A directory of files that is gone as a whole, although this node has copies of what was in it: a release takes a file
    /// away, and never the directory.
    fn gone(&self, directory: &Path) -> Option<DocumentError> {
        let name = self.last_good.name(directory)?;
        if directory.symlink_metadata().is_ok() || self.last_good.names(name).is_empty() {
            return None;
        }
        let copies = self.paths.last_good().join(name);
        let hint = format!(
            "`cp -r {} {}` puts the last known good copies back; if all of it is meant to be gone: `mkdir {}`",
            copies.display(),
            self.paths.registry().display(),
            directory.display()
        );
        Some(DocumentError::new(directory, "does not exist any more", &hint))
    }

    pub(super) fn pool_names(&self) -> BTreeSet<PoolName> {
        let files = Self::files_in::<PoolName>(&self.paths.pool_files()).unwrap_or_default();
        files.into_iter().map(|(name, _)| name).collect()
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
            if let Some(named) = name.to_str().and_then(named) {
                files.push((named, directory.join(name)));
            }
        }
        files.sort_unstable();
        Ok(files)
    }
}

/// What a file of this name in a directory is about: other names are temporary files and what FUSE leaves
/// (`.fuse_hidden...`).
pub(super) fn named<T: FromStr>(name: &str) -> Option<T> {
    name.strip_suffix(".json")?.parse().ok()
}

/// One look at all files. What was read before and has not changed is what it was.
pub(super) struct Reading<'a> {
    pub(super) store: &'a Store,
    pub(super) known: &'a Snapshot,
    /// The fingerprints of this node's copies, if somebody asks for what these lack.
    pub(super) copies: Option<&'a BTreeMap<String, u64>>,
    /// Files whose changes nobody tells, where that matters.
    pub(super) hidden: Option<BTreeSet<PathBuf>>,
    pub(super) snapshot: Snapshot,
}

impl Reading<'_> {
    pub(super) fn all(&mut self) {
        self.pools();
        self.released();
        self.node();
        self.guests();
        self.missing(|_| true);
    }

    /// As [`Self::all`], where only these may read otherwise than what is known.
    pub(super) fn again(&mut self, changed: &BTreeSet<PathBuf>) {
        self.snapshot = self.known.clone();
        if changed.is_empty() {
            return;
        }
        let (store, paths) = (self.store, &self.store.paths);
        if changed.iter().any(|path| paths.is_of_pools(path)) {
            let is_other = |name: &String| name != "pools.json" && !name.starts_with(POOLS);
            Arc::make_mut(&mut self.snapshot.files).retain(|name, _| is_other(name));
            self.snapshot.registry.pools = PoolsFile::default();
            self.pools();
        }
        if changed.contains(&paths.released_file()) {
            self.forget(&paths.released_file());
            self.snapshot.registry.released = ReleasedFile::default();
            self.released();
        }
        if changed.contains(&paths.node_file(&store.node)) {
            self.forget(&paths.node_file(&store.node));
            self.node();
        }
        let directory = paths.guest_files();
        let mut guests = BTreeSet::new();
        for path in changed.iter().filter(|path| path.parent() == Some(&directory)) {
            let Some(vmid) = path.file_name().and_then(|name| named(name.to_str()?)) else { continue };
            guests.insert(vmid);
            // `0100.json` is not how it is called.
            let path = paths.guest_file(vmid);
            self.forget(&path);
            self.snapshot.registry.guests.remove(&vmid);
            self.guest(vmid, path);
        }
        let are_pools_same = !changed.iter().any(|path| paths.is_of_pools(path));
        self.missing(|vmid| !are_pools_same || guests.contains(&vmid));
    }

    fn forget(&mut self, path: &Path) {
        if let Some(name) = self.store.last_good.name(path) {
            Arc::make_mut(&mut self.snapshot.files).remove(name);
        }
    }

    /// What a file says: `known` if that was read of the same content, else what `parse` makes of it; `None`: there is no
    /// file, or it cannot be used.
    fn keep<T>(
        &mut self,
        path: PathBuf,
        known: Option<T>,
        parse: impl FnOnce(&Path, &[u8]) -> Result<T, DocumentError>,
    ) -> Option<T> {
        // Owned only when the file's content has its place: small pieces between large ones that are freed would keep the memory.
        let name = self.store.last_good.name(&path)?;
        if let Some(hidden) = &mut self.hidden {
            // Before it is read: it may be made one meanwhile.
            if is_plain(&path) {
                hidden.remove(&path)
            } else {
                hidden.insert(path.clone())
            };
        }
        let (mut print, mut is_known) = (files::fingerprint(b""), false);
        let parse = |path: &Path, bytes: &[u8]| {
            print = files::fingerprint(bytes);
            is_known = self.known.files.get(name) == Some(&print);
            known.filter(|_| is_known).map_or_else(|| parse(path, bytes), Ok)
        };
        let (parsed, bytes) = self.store.document(&path, parse)?;
        let name = name.to_owned();
        if parsed.is_err() || self.copies.is_some_and(|copies| copies.get(&name) != Some(&print)) {
            self.snapshot.contents.insert(path, bytes);
        }
        Arc::make_mut(&mut self.snapshot.files).insert(name, print);
        parsed.map_err(|error| self.snapshot.registry.broken.push(error)).ok()
    }

    /// Version 1 counts alone: what is below `pools/` beside it was left by a conversion that did not come to its end.
    fn pools(&mut self) {
        let path = self.store.paths.pools_file();
        let known = Some(&self.known.registry.pools).filter(|pools| pools.version == VERSION).cloned();
        match self.keep(path, known, document::parse::<PoolsFile>) {
            Some(pools) if pools.version == VERSION => self.snapshot.registry.pools = pools,
            None if self.snapshot.files.contains_key("pools.json") => {}
            None if !self.store.paths.pool_files().exists() => {}
            _ => self.pool_files(),
        }
    }

    fn pool_files(&mut self) {
        if let Some(error) = self.store.gone(&self.store.paths.pool_files()) {
            self.snapshot.registry.broken.push(error);
            return;
        }
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
        let known = self.known.files.contains_key("released.json").then(|| self.known.registry.released.clone());
        if let Some(released) = self.keep(path, known, document::parse::<ReleasedFile>) {
            self.snapshot.registry.released = released;
        }
    }

    fn node(&mut self) {
        let path = self.store.paths.node_file(&self.store.node);
        self.snapshot.registry.node = self.keep(path, None, document::parse::<NodeFile>);
    }

    fn guests(&mut self) {
        // Without pools nothing of the registry is there: it was removed, and not a part of it lost.
        let has_pools =
            self.snapshot.files.contains_key("pools.json") || !self.snapshot.registry.pools.pools.is_empty();
        if let Some(error) = self.store.gone(&self.store.paths.guest_files()).filter(|_| has_pools) {
            self.snapshot.registry.broken.push(error);
            return;
        }
        let files = match self.store.guest_files() {
            Ok(files) => files,
            Err(error) => {
                self.snapshot.registry.broken.push(self.store.explained(error));
                return;
            }
        };
        for (vmid, path) in files {
            self.guest(vmid, path);
        }
    }

    fn guest(&mut self, vmid: Vmid, path: PathBuf) {
        let known = self.known.registry.guests.share(&vmid);
        let parse = |path: &Path, bytes: &[u8]| parse_guest(vmid, path, bytes).map(Arc::new);
        if let Some(guest) = self.keep(path, known, parse) {
            self.snapshot.registry.guests.insert_shared(vmid, guest);
        }
    }

    /// What should be there and is not; as far as these guests need it, for the others it was looked for before.
    fn missing(&mut self, is_meant: impl Fn(Vmid) -> bool) {
        let Snapshot { registry, files, .. } = &mut self.snapshot;
        let holds = registry.guests.values().any(|guest: &GuestFile| !guest.is_empty());
        if holds && !files.contains_key("pools.json") {
            registry.broken.extend(self.store.missing_pools());
        }
        let missing = self.store.missing_files(registry, is_meant);
        registry.broken.extend(missing);
    }
}

/// How the names of the pools' files begin.
pub(super) const POOLS: &str = "pools/";

/// How the names of the guests' files begin.
pub(super) const GUESTS: &str = "guests/";

pub(super) fn parse_pool(name: &PoolName, path: &Path, bytes: &[u8]) -> Result<Pool, DocumentError> {
    let file: PoolFile = document::parse(path, bytes)?;
    if file.name == *name {
        return Ok(file.pool);
    }
    let reason = format!("says name `{}`, but its own name says `{name}`", file.name);
    Err(DocumentError::new(path, reason, "rename the file or correct `name`"))
}

fn parse_guest(vmid: Vmid, path: &Path, bytes: &[u8]) -> Result<GuestFile, DocumentError> {
    let guest: GuestFile = document::parse(path, bytes)?;
    if guest.vmid == vmid {
        return Ok(guest);
    }
    let reason = format!("says vmid {}, but its name says {vmid}", guest.vmid);
    Err(DocumentError::new(path, reason, "rename the file or correct `vmid`"))
}

/// The whole file, `None` if it does not exist. Refuses what is not a regular file.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match files::read_limited(path, document::MAX_FILE_SIZE * 4) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
