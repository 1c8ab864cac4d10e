//! One writer in the cluster: Proxmox VE's own lock protocol, a directory under `/etc/pve/priv/lock`.
//!
//! `mkdir` is atomic across the cluster on pmxcfs. A lock that its holder left behind is removed by pmxcfs 120 s after
//! the first waiter asked for it by setting the directory's time to zero; on an ordinary directory this module does
//! the same by age. Between processes of one node a `flock` comes first: it costs no cluster traffic, hands over at
//! once, and proves that a lock directory marked as this node's own was left by a dead process.
//!
//! Source: pve-cluster `src/PVE/Cluster.pm` `cfs_lock`, `src/pmxcfs/memdb.c` and `cfs-plug-memdb.c`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use crate::host::files;
use crate::paths::Paths;

/// Name of the lock among those of Proxmox VE.
const LOCK_NAME: &str = "domain-pve-public-ip";

/// pmxcfs removes a lock that nobody refreshed for this long. Source: memdb.c, `CFS_LOCK_TIMEOUT`.
const EXPIRY: Duration = Duration::from_secs(120);

/// A holder must have finished by now; half of [`EXPIRY`], as Proxmox VE does it.
const HOLD_LIMIT: Duration = Duration::from_secs(60);

/// Why the registry cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error("the registry is locked by another process or node (`{}`, waited {} s)", path.display(), waited.as_secs())]
    Busy {
        /// The lock directory.
        path: PathBuf,
        /// How long this process waited.
        waited: Duration,
    },
    /// The holder took so long that the lock may have been given away.
    #[error("the registry's lock was held for {} s and may belong to somebody else by now; nothing was written", .0.as_secs())]
    Expired(Duration),
    /// The file system refuses.
    #[error("cannot lock the registry at `{}`", path.display())]
    Io {
        /// The lock directory or file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// The lock, until dropped.
#[derive(Debug)]
pub(super) struct RegistryLock {
    directory: PathBuf,
    mark: PathBuf,
    since: Instant,
    _local: Flock<fs::File>,
}

impl RegistryLock {
    /// Takes the lock, waiting at most `limit`.
    pub(super) fn take(paths: &Paths, limit: Duration) -> Result<Self, LockError> {
        let started = Instant::now();
        let directory = paths.cluster_locks().join(LOCK_NAME);
        let mark = paths.run().join("registry-lock-held");
        let local = lock_file(&local_lock(paths)?, limit, &directory)?;

        files::directories(&paths.cluster_locks())
            .map_err(|source| LockError::Io { path: directory.clone(), source })?;
        if left_behind(&directory, &mark) {
            let _ = fs::remove_dir(&directory);
        }
        let replicated = files::is_fuse(&paths.etc_pve());
        let mut asked = None::<Instant>;
        loop {
            // Before and after: whenever this process dies, the next one of this node knows whose the directory is.
            let _ = files::replace_soon(&mark, attempt().as_bytes());
            let made = fs::create_dir(&directory);
            if made.is_err() {
                let _ = fs::remove_file(&mark);
            }
            match made {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(LockError::Io { path: directory, source }),
            }
            if started.elapsed() >= limit {
                return Err(LockError::Busy { path: directory, waited: started.elapsed() });
            }
            if asked.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
                ask_for(&directory, replicated);
                asked = Some(Instant::now());
            }
            sleep(Duration::from_millis(50));
        }
        if let Some(identity) = identity(&directory) {
            let _ = files::replace_soon(&mark, identity.as_bytes());
        }
        Ok(Self { directory, mark, since: Instant::now(), _local: local })
    }

    /// The part of it that keeps other processes of this node away; `None` if one of them has it.
    pub(super) fn of_this_node(paths: &Paths) -> Result<Option<Flock<fs::File>>, LockError> {
        let path = local_lock(paths)?;
        match lock_file(&path, Duration::ZERO, &path) {
            Ok(lock) => Ok(Some(lock)),
            Err(LockError::Busy { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the lock is certainly still ours.
    pub(super) fn check(&self) -> Result<(), LockError> {
        let held = self.since.elapsed();
        if held < HOLD_LIMIT { Ok(()) } else { Err(LockError::Expired(held)) }
    }
}

impl Drop for RegistryLock {
    fn drop(&mut self) {
        // Where the directory stays, as without quorum, the mark does, too: so the next process of this node knows whose it is.
        let is_gone = match fs::remove_dir(&self.directory) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if is_gone {
            let _ = fs::remove_file(&self.mark);
        }
    }
}

/// The file that processes of this node lock, in a directory that is there.
fn local_lock(paths: &Paths) -> Result<PathBuf, LockError> {
    let run = paths.run();
    files::private_directory(&run).map_err(|source| LockError::Io { path: run.clone(), source })?;
    Ok(run.join("registry.lock"))
}

fn lock_file(path: &Path, limit: Duration, shown: &Path) -> Result<Flock<fs::File>, LockError> {
    let started = Instant::now();
    let failed = |source: io::Error| LockError::Io { path: path.to_owned(), source };
    let mut file = files::open_lock(path).map_err(failed)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, error)) if error != nix::errno::Errno::EWOULDBLOCK => {
                return Err(failed(error.into()));
            }
            Err((same, _)) => file = same,
        }
        if started.elapsed() >= limit {
            return Err(LockError::Busy { path: shown.to_owned(), waited: started.elapsed() });
        }
        sleep(Duration::from_millis(5));
    }
}

/// The directory as the mark remembers it: enough to tell it from one that another node made later.
///
/// Not its inode: on pmxcfs, as on any FUSE file system, that may be another one after a while.
fn identity(directory: &Path) -> Option<String> {
    let meta = fs::symlink_metadata(directory).ok()?;
    Some(format!("{}.{:09}\n", meta.mtime(), meta.mtime_nsec()))
}

/// What the mark says while the directory is being made.
fn attempt() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{ATTEMPT}{}\n", now.as_secs())
}

const ATTEMPT: &str = "attempt ";

/// Whether the lock directory is one that a process of this node made and did not live to remove.
///
/// Called with the local `flock` held, so that process is dead. If it died while it made the directory, the directory
/// is as old as the attempt; another node's that is as old would have had to be made in the moment of the death.
fn left_behind(directory: &Path, mark: &Path) -> bool {
    let remembered = files::read_note(mark, 4 << 10).and_then(|bytes| String::from_utf8(bytes).ok());
    let Some(remembered) = remembered else { return false };
    let Some(attempted) = remembered.strip_prefix(ATTEMPT) else {
        return Some(remembered) == identity(directory);
    };
    let modified = fs::symlink_metadata(directory).map(|meta| meta.mtime());
    // The file system's clock is a tick behind, and the second may have ended in between.
    attempted.trim().parse::<i64>().is_ok_and(|second| modified.is_ok_and(|modified| (modified - second).abs() <= 1))
}

/// Asks the holder's file system to end a stale lock.
fn ask_for(directory: &Path, replicated: bool) {
    if replicated {
        let zero = TimeSpec::new(0, 0);
        let _ = utimensat(nix::fcntl::AT_FDCWD, directory, &zero, &zero, UtimensatFlags::FollowSymlink);
        return;
    }
    let modified = fs::symlink_metadata(directory).and_then(|meta| meta.modified());
    let age = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
    if age.is_some_and(|age| age > EXPIRY) {
        let _ = fs::remove_dir(directory);
    }
}
