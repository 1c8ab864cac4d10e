//! What counts where a file cannot be used: the last copy that was good. Kept, put in its place, and restored.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::last_good::News;
use super::lock::RegistryLock;
use super::reading::{GUESTS, POOLS, parse_pool, read};
use super::{LOCK_LIMIT, Snapshot, Store, StoreError};
use crate::host::files;
use crate::model::{IfName, PoolName, Vmid};
use crate::registry::Registry;
use crate::registry::document::{
    self, DocumentError, GuestFile, NodeFile, POOLS_VERSION, Pool, PoolFile, PoolsFile, ReleasedFile, VERSION,
};
use crate::registry::shared::SharedMap;

impl Store {
    /// The registry by which guests are protected: in the place of files that cannot be used, what was known of them last.
    /// What of it has no copy yet is for [`Self::remember`].
    pub fn load_known(&self) -> Result<(Snapshot, News), StoreError> {
        let copies = self.last_good.index();
        self.check_mounted()?;
        let mut snapshot = self.read_files(Some(&copies));
        let bad: BTreeSet<PathBuf> = snapshot.registry.broken.iter().map(|error| error.path.clone()).collect();
        let is_bad: BTreeSet<&str> = bad.iter().filter_map(|path| self.last_good.name(path)).collect();
        let mut contents = std::mem::take(&mut snapshot.contents);
        let content = |name: &str| contents.get(&self.paths.registry().join(name)).map(Vec::as_slice);
        let good = snapshot.files.iter().filter(|(name, _)| !is_bad.contains(name.as_str()));
        let are_pools_well = !is_bad.contains("pools") && !is_bad.contains("pools.json");
        let is_gone = |name: &str| {
            let is_listed =
                name.starts_with(GUESTS) && !is_bad.contains("guests") || name.starts_with(POOLS) && are_pools_well;
            is_listed && !is_bad.contains(name)
        };
        let news = self.last_good.news(copies, good.map(|(name, print)| (name.as_str(), *print)), content, is_gone);
        contents.retain(|path, _| bad.contains(path));
        snapshot.contents = contents;
        for path in &bad {
            self.recall(&mut snapshot, path);
        }
        Ok((snapshot, news))
    }

    /// The registry by which guests are protected, for whoever keeps no copies: these are looked at only in the place of what cannot
    /// be used.
    pub fn load_usable(&self) -> Result<Registry, StoreError> {
        let registry = self.load()?.registry;
        if registry.broken.is_empty() { Ok(registry) } else { Ok(self.load_known()?.0.registry) }
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
                    let lost = registry.lost_pools.get_or_insert_default();
                    lost.extend(bridges_named_in(snapshot.contents.get(path).map(Vec::as_slice).unwrap_or_default()));
                    if path == self.paths.pools_file() {
                        // It only said that these count, perhaps.
                        let files = self.pool_names().into_iter().map(|name| self.paths.pool_file(&name));
                        lost.extend(
                            files.filter_map(|path| read(&path).ok()?).flat_map(|bytes| bridges_named_in(&bytes)),
                        );
                    }
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
            return self.last_good.read(path).map(|(file, _)| Recalled::One(Box::new(file)));
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

    pub(super) fn last_guest(&self, vmid: Vmid) -> Option<GuestFile> {
        self.last_good.read::<GuestFile>(&self.paths.guest_file(vmid)).map(|(guest, _)| guest)
    }

    /// This node's file, or what was known of it last. One of which nothing is known is as good as none: the rules stand
    /// without it.
    pub fn node_file(&self) -> Option<NodeFile> {
        let known = |error: DocumentError| self.last_good.read(&error.path).map(|(node, _)| node);
        self.load_node()?.map_or_else(known, Some)
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
        match self.last_pools(&error.path) {
            Some(Recalled::All(pools)) => Ok((pools, Some(error))),
            Some(Recalled::One(_)) | None => Err(error),
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

    /// Copies what this node could read, for when it no longer can. The node must be locked.
    pub fn remember(&self, news: &News) {
        if let Err(error) = self.last_good.keep(news) {
            log::warn!(
                "the registry's files cannot be copied to `{}`, so nothing is known of one that becomes unreadable: {error}",
                self.paths.last_good().display()
            );
        }
    }

    /// How many files of a directory of the registry have a copy.
    pub fn copies_in(&self, name: &str) -> usize {
        self.last_good.names(name).len()
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
        self.journal.follow((&before, None), (&after.registry, Self::identity(&after)));
        Ok(aside)
    }
}

/// What was known last of pools.
enum Recalled {
    All(PoolsFile),
    One(Box<PoolFile>),
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
