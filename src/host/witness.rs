//! Whether files are still as they were read, told by the kernel: it reports each change below the directories that a
//! process watches, before the call that makes the change returns.
//!
//! That holds where every change is one of this kernel. pmxcfs and network file systems change without a word, so nothing is
//! proven there, and everything is read again.
//!
//! Source: inotify(7); Linux `include/linux/fsnotify.h`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC,
    statfs,
};

/// File systems of this machine alone, whose changes inotify reports.
const LOCAL: [FsType; 6] =
    [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC, TMPFS_MAGIC, OVERLAYFS_SUPER_MAGIC];

/// What it tells of files that may read otherwise afterwards, or not at all.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_MODIFY
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// Changes of files in some directories, from the moment at which it was made.
#[derive(Debug)]
pub struct Witness {
    inotify: Inotify,
    places: Vec<Place>,
}

/// A directory that is watched, or that did not exist.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// The watch, and device and inode of what is watched: another directory may be put into its place.
    watched: Option<(WatchDescriptor, Identity)>,
}

type Identity = (u64, u64);

fn identity(path: &PathBuf) -> Option<Identity> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

impl Witness {
    /// Watches these directories; `None`: nothing would be proven by it.
    pub fn of(directories: impl IntoIterator<Item = PathBuf>) -> Option<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
        let watch = |path: PathBuf| {
            let Some(identity) = identity(&path) else { return Some(Place { path, watched: None }) };
            let is_local = statfs(&path).is_ok_and(|stat| LOCAL.contains(&stat.filesystem_type()));
            let descriptor =
                is_local.then(|| inotify.add_watch(&path, CHANGES | AddWatchFlags::IN_ONLYDIR).ok()).flatten()?;
            Some(Place { path, watched: Some((descriptor, identity)) })
        };
        let places = directories.into_iter().map(watch).collect::<Option<Vec<Place>>>()?;
        Some(Self { inotify, places })
    }

    /// The files that may have changed since the last call; `None`: any of them.
    pub fn changed(&mut self) -> Option<BTreeSet<PathBuf>> {
        // What is at the path first: what is put there later is found by the next call.
        let is_there = |place: &Place| identity(&place.path) == place.watched.map(|(_, identity)| identity);
        if !self.places.iter().all(is_there) {
            return None;
        }
        let mut changed = BTreeSet::new();
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(nix::errno::Errno::EAGAIN) => return Some(changed),
                Err(_) => return None,
            };
            for event in events {
                let is_of = |place: &&Place| place.watched.is_some_and(|(descriptor, _)| descriptor == event.wd);
                // Without a name it is the directory itself, or too much has happened to be told.
                let place = self.places.iter().find(is_of)?;
                let path = place.path.join(event.name?);
                if self.places.iter().any(|place| place.path == path) {
                    return None;
                }
                changed.insert(path);
            }
        }
    }
}

/// Whether all changes of a file are told where it lies: not if it is a link, or has another name elsewhere. (That a name is
/// added is not told. Whoever adds one and writes by it in place, as no editor does, is seen at the next change of that file.)
pub fn is_plain(path: &PathBuf) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.nlink() == 1)
}
