//! The registry as it was a moment ago, for whoever only asks about it again and again: reading thousands of files for each
//! question would take longer than all the rest.
//!
//! pmxcfs gives the root of the file system the time of the last change of anything in it, in whole seconds by the clock of the
//! node that made it. Elsewhere the directories of the registry tell: each change of a file is a rename into one of them. A time
//! that is not over yet proves nothing, because the next change may have the same.
//!
//! Source: pve-cluster `src/pmxcfs/memdb.c`, `memdb->root->mtime`.

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Store, StoreError};
use crate::host::files;
use crate::registry::Registry;

/// What was read last, and by what it is known to be the same still.
#[derive(Debug)]
pub(super) struct Recent {
    stamp: Vec<(i64, i64)>,
    at: Instant,
    registry: Registry,
}

/// However little seems to have changed, it is read anew after so long: clocks of nodes differ, and people edit files in place.
const AGE: Duration = Duration::from_secs(5);

/// A change is so old before its time proves something: longer than a second, the unit of pmxcfs, and than clocks of a cluster
/// differ as a rule.
const SETTLED: Duration = Duration::from_secs(2);

impl Store {
    /// As [`Self::load_known`], perhaps as it was up to five seconds ago. Never what a change begins with.
    pub fn load_recent(&self) -> Result<Registry, StoreError> {
        let mut recent = self.recent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let stamp = self.stamp();
        if let (Some(known), Some(stamp)) = (recent.as_ref(), &stamp) {
            if known.stamp == *stamp && known.at.elapsed() < AGE {
                return Ok(known.registry.clone());
            }
        }
        let at = Instant::now();
        let registry = self.load_usable()?;
        // Not the time after the load: what changed meanwhile may be missing in it.
        let is_same = stamp.is_some() && stamp == self.stamp();
        *recent = stamp.filter(|_| is_same && registry.broken.is_empty()).map(|stamp| Recent {
            stamp,
            at,
            registry: registry.clone(),
        });
        Ok(registry)
    }

    /// When something changed last; `None`: so short a time ago that it may change again without another time.
    fn stamp(&self) -> Option<Vec<(i64, i64)>> {
        let root = self.paths.etc_pve();
        let places = if files::is_fuse(&root) {
            vec![root]
        } else {
            vec![self.paths.registry(), self.paths.guest_files(), self.paths.pool_files()]
        };
        let time = |path: &std::path::PathBuf| {
            std::fs::symlink_metadata(path).map_or((0, 0), |meta| (meta.mtime(), meta.mtime_nsec()))
        };
        let times: Vec<(i64, i64)> = places.iter().map(time).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let settled = i64::try_from(now.saturating_sub(SETTLED).as_secs()).unwrap_or_default();
        times.iter().all(|(seconds, _)| *seconds < settled).then_some(times)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test writes by hand")]
mod tests {
    use std::fs;

    use super::*;
    use crate::paths::Paths;

    #[test]
    fn a_change_is_seen_at_once_and_what_is_old_is_not_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path());
        fs::create_dir_all(paths.guest_files()).unwrap();
        let store = Store::new(&paths, &"n1".parse().unwrap());
        let pools = |bridge: &str| {
            format!(
                r#"{{"version":1,"pools":{{"a":{{"profile":"generic-bridged","bridge":"{bridge}","addresses":[]}}}}}}"#
            )
        };
        let write = |bridge: &str| files::replace(&paths.pools_file(), pools(bridge).as_bytes()).unwrap();
        let bridge = || store.load_recent().unwrap().pools.pools.values().next().unwrap().bridge.to_string();
        let is_kept = || store.recent.lock().unwrap().is_some();
        write("vmbr0");
        assert_eq!((bridge().as_str(), is_kept()), ("vmbr0", false), "the time of the change is not over");
        write("vmbr1");
        assert_eq!((bridge().as_str(), is_kept()), ("vmbr1", false));
        let old = || {
            let past = SystemTime::now() - Duration::from_secs(60);
            for path in [paths.registry(), paths.guest_files()] {
                fs::File::open(path).unwrap().set_modified(past).unwrap();
            }
            past
        };
        old();
        assert_eq!((bridge().as_str(), is_kept()), ("vmbr1", true));
        // By hand, in place: no directory tells, and what was read is good for a while.
        fs::write(paths.pools_file(), pools("vmbr2")).unwrap();
        assert_eq!(bridge(), "vmbr1");
        write("vmbr3");
        assert_eq!(bridge(), "vmbr3");
        // A file that cannot be used is looked at each time.
        write("not a bridge's name");
        old();
        assert!(store.load_recent().is_ok() && !is_kept());
    }
}
