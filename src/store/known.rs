//! What was read last, and whether it is still so: all files are read, or those that have changed since.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::reading::Reading;
use super::{Snapshot, Store};
use crate::host::witness::Witness;
use crate::registry::Registry;

/// What was read last, for the next look at it.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) snapshot: Snapshot,
    /// Tells what may have changed since; `None`: anything.
    witness: Option<Witness>,
    /// Files whose changes nobody tells.
    hidden: BTreeSet<PathBuf>,
}

impl Known {
    /// Keeps what was read. What could not be used is looked at again.
    pub(super) fn keep(&mut self, mut snapshot: Snapshot, store: &Store) {
        if !snapshot.registry.broken.is_empty() {
            let broken: BTreeSet<&str> =
                snapshot.registry.broken.iter().filter_map(|error| store.last_good.name(&error.path)).collect();
            Arc::make_mut(&mut snapshot.files).retain(|name, _| !broken.contains(name.as_str()));
        }
        snapshot.contents.clear();
        self.snapshot = snapshot;
    }

    /// The files that may have changed since; `None`: all of them.
    fn changed(&mut self) -> Option<BTreeSet<PathBuf>> {
        let changed = self.witness.as_mut()?.changed()?;
        // Of what could not be used not even the list of files is sure.
        let is_whole = self.snapshot.registry.broken.is_empty();
        is_whole.then(|| changed.into_iter().chain(self.hidden.iter().cloned()).collect())
    }
}

impl Store {
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on changes of the files are noticed as far as the file system tells them, so that what has not changed is not
    /// read again: for whoever reads more than once.
    pub fn attend(&self) {
        self.attends.store(true, Ordering::Relaxed);
    }

    /// What this process has read or written last, without another look; `None`: nothing, or not all of it can be used.
    pub fn last_read(&self) -> Option<Registry> {
        let known = self.known();
        let registry = &known.snapshot.registry;
        let is_whole = !known.snapshot.files.is_empty() && registry.broken.is_empty();
        is_whole.then(|| registry.clone())
    }

    /// Reads everything, or what may have changed since the last time. With `copies`, the fingerprints of this node's copies, the
    /// contents of the files whose copies have others.
    pub(super) fn read_files(&self, copies: Option<&BTreeMap<String, u64>>) -> Snapshot {
        // Taken out meanwhile: whoever reads from a file system that hangs holds up nobody else of this process.
        let mut known = std::mem::take(&mut *self.known());
        let attends = self.attends.load(Ordering::Relaxed);
        let mut changed = known.changed();
        if changed.is_none() {
            let directories = [
                self.paths.registry(),
                self.paths.guest_files(),
                self.paths.pool_files(),
                self.paths.node_file(&self.node).parent().map(Path::to_owned).unwrap_or_default(),
            ];
            // Before anything is read, so that nothing can be missed.
            known.witness = attends.then(|| Witness::of(directories)).flatten();
            known.hidden.clear();
        }
        if let (Some(changed), Some(copies)) = (&mut changed, copies) {
            let files = known.snapshot.files.iter();
            let lacking = files.filter(|(name, print)| copies.get(*name) != Some(print));
            changed.extend(lacking.map(|(name, _)| self.paths.registry().join(name)));
        }
        let mut reading = Reading {
            store: self,
            known: &known.snapshot,
            copies,
            hidden: known.witness.is_some().then(|| known.hidden.clone()),
            snapshot: Snapshot::default(),
        };
        match changed {
            Some(changed) => reading.again(&changed),
            None => reading.all(),
        }
        let Reading { snapshot, hidden, .. } = reading;
        known.hidden = hidden.unwrap_or_default();
        known.keep(snapshot.clone(), self);
        *self.known() = known;
        snapshot
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test writes by hand")]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;
    use std::time::SystemTime;

    use super::*;
    use crate::host::files;
    use crate::host::witness::is_plain;
    use crate::model::Vmid;
    use crate::paths::Paths;
    use crate::registry::RuleError;
    use crate::store::StoreError;

    /// A registry below a directory, and a connection that keeps what it knows of it.
    struct Kept {
        root: tempfile::TempDir,
        paths: Paths,
        store: Store,
    }

    fn guest(vmid: u32, last: u8) -> String {
        format!(
            r#"{{"version":1,"vmid":{vmid},"interfaces":{{"net0":{{"mac":"02:00:00:00:00:{:02x}","addresses":
                [{{"address":"203.0.113.{last}/32","pool":"a","assigned_at":"2026-11-22T10:00:00Z"}}]}}}}}}"#,
            vmid % 256
        )
    }

    fn pools(bridge: &str) -> String {
        format!(r#"{{"version":1,"pools":{{"a":{{"profile":"generic-bridged","bridge":"{bridge}","addresses":[]}}}}}}"#)
    }

    impl Kept {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let paths = Paths::new(root.path());
            fs::create_dir_all(paths.guest_files()).unwrap();
            let store = Store::new(&paths, &"n1".parse().unwrap());
            let kept = Self { root, paths, store };
            kept.replace("pools.json", &pools("vmbr0"));
            (100..103).for_each(|vmid| kept.replace(&format!("guests/{vmid}.json"), &guest(vmid, 10)));
            kept.store.attend();
            kept.load();
            kept
        }

        fn at(&self, name: &str) -> PathBuf {
            self.paths.registry().join(name)
        }

        fn replace(&self, name: &str, text: &str) {
            files::directories(self.at(name).parent().unwrap()).unwrap();
            files::replace(&self.at(name), text.as_bytes()).unwrap();
        }

        fn load(&self) -> Registry {
            self.store.load().unwrap().registry
        }

        /// What a process finds that begins now.
        fn fresh(&self) -> Registry {
            Store::new(&self.paths, &"n1".parse().unwrap()).load().unwrap().registry
        }

        /// Sees that what is known is what there is, and that nothing need be read to know it.
        fn check(&self, what: &str) {
            assert_eq!(self.load(), self.fresh(), "{what}");
            if self.fresh().broken.is_empty() {
                let changed = self.store.known().changed();
                assert!(changed.is_some_and(|changed| changed.iter().all(|path| !is_plain(path))), "{what}");
            }
        }

        fn bridge(&self) -> String {
            self.load().pools.pools.values().next().unwrap().bridge.to_string()
        }
    }

    /// The same size, the same time, the same inode: by none of these a change is known, and it is seen.
    #[test]
    fn a_hand_edit_is_seen_that_leaves_no_trace_in_the_files_data() {
        let kept = Kept::new();
        let path = kept.at("guests/100.json");
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        (&file).write_all(guest(100, 11).as_bytes()).unwrap();
        file.set_modified(time).unwrap();
        drop(file);
        let held = kept.load().guests[&"100".parse::<Vmid>().unwrap()].addresses().next().unwrap().2.address;
        assert_eq!(held.first().to_string(), "203.0.113.11");
        kept.check("edited in place");
    }

    #[test]
    fn whatever_others_do_to_the_files_is_seen() {
        let kept = Kept::new();
        kept.check("nothing");
        let other = Kept::new();
        let steps: [(&str, &dyn Fn()); 17] = [
            ("replaced", &|| kept.replace("guests/100.json", &guest(100, 12))),
            ("new", &|| kept.replace("guests/7000.json", &guest(7000, 13))),
            ("removed", &|| fs::remove_file(kept.at("guests/7000.json")).unwrap()),
            ("renamed away", &|| fs::rename(kept.at("guests/101.json"), kept.at("guests/101.old")).unwrap()),
            ("renamed back", &|| fs::rename(kept.at("guests/101.old"), kept.at("guests/101.json")).unwrap()),
            ("exchanged", &|| {
                fs::write(kept.at("guests/102.json"), guest(102, 1)).unwrap();
                fs::write(kept.at("guests/102.json"), guest(102, 9)).unwrap();
            }),
            ("broken", &|| fs::write(kept.at("guests/102.json"), "{").unwrap()),
            ("mended", &|| fs::write(kept.at("guests/102.json"), guest(102, 14)).unwrap()),
            ("pools", &|| kept.replace("pools.json", &pools("vmbr1"))),
            ("released", &|| kept.replace("released.json", r#"{"version":1,"addresses":{}}"#)),
            ("node", &|| kept.replace("nodes/n1.json", r#"{"version":1,"uplinks":["eno1"]}"#)),
            ("node again", &|| kept.replace("nodes/n1.json", r#"{"version":1,"uplinks":["eno2"]}"#)),
            ("a link", &|| {
                fs::remove_file(kept.at("guests/102.json")).unwrap();
                symlink(other.at("guests/102.json"), kept.at("guests/102.json")).unwrap();
            }),
            ("behind the link", &|| fs::write(other.at("guests/102.json"), guest(102, 20)).unwrap()),
            ("another name", &|| {
                fs::hard_link(kept.at("guests/100.json"), kept.root.path().join("alias")).unwrap();
                fs::File::open(kept.at("guests/100.json")).unwrap().set_modified(SystemTime::now()).unwrap();
            }),
            ("by the other name", &|| fs::write(kept.root.path().join("alias"), guest(100, 21)).unwrap()),
            ("another directory", &|| {
                fs::rename(kept.paths.registry(), kept.root.path().join("old")).unwrap();
                fs::rename(other.paths.registry(), kept.paths.registry()).unwrap();
            }),
        ];
        for (what, step) in steps {
            step();
            kept.check(what);
        }
        // Not in the middle of a look: what was there before the last one is not there any more.
        kept.check("twice");
    }

    #[test]
    fn pools_in_files_of_their_own_come_and_go() {
        let kept = Kept::new();
        let pool = |name: &str, bridge: &str| {
            format!(
                r#"{{"version":2,"name":"{name}","profile":"generic-bridged","bridge":"{bridge}","addresses":[{{"address":"203.0.113.0/24"}}]}}"#
            )
        };
        kept.replace("pools/a.json", &pool("a", "vmbr1"));
        kept.check("left by a conversion that did not come to its end");
        assert_eq!(kept.bridge(), "vmbr0");
        kept.replace("pools.json", r#"{"version":2,"pools":{}}"#);
        kept.check("version 2");
        assert_eq!(kept.bridge(), "vmbr1");
        fs::write(kept.at("pools/a.json"), pool("a", "vmbr2")).unwrap();
        kept.check("in place");
        assert_eq!(kept.bridge(), "vmbr2");
        kept.replace("pools/b.json", &pool("b", "vmbr2"));
        kept.check("two with the same addresses");
        assert_eq!(kept.load().broken.len(), 2);
        fs::remove_file(kept.at("pools/b.json")).unwrap();
        kept.check("one again");
        fs::remove_file(kept.at("pools/a.json")).unwrap();
        kept.check("none");
        assert!(kept.load().pools.pools.is_empty());
    }

    /// A change of one connection stands on what another one wrote since its last look.
    #[test]
    fn two_connections_change_by_turns() {
        let kept = Kept::new();
        let node = "n2".parse().unwrap();
        let stores = [kept.store.clone(), Store::new(&kept.paths, &node), Store::new(&kept.paths, &node)];
        stores.iter().for_each(Store::attend);
        let vmid: Vmid = "100".parse().unwrap();
        for turn in 0..9_u8 {
            let store = &stores[usize::from(turn) % stores.len()];
            let seen = store.change(|registry| {
                let held =
                    &mut registry.guests.get_mut(&vmid).unwrap().interfaces.values_mut().next().unwrap().addresses;
                let seen = held[0].address.first().to_string();
                held[0].address = format!("203.0.113.{}/32", 100 + turn).parse().unwrap();
                Ok::<_, StoreError>(seen)
            });
            let wanted = if turn == 0 { 10 } else { 99 + turn };
            assert_eq!(seen.unwrap(), format!("203.0.113.{wanted}"));
        }
        for store in &stores {
            assert_eq!(store.load().unwrap().registry, kept.fresh());
        }
        // Nothing is written by a change that fails, and nothing of it is known.
        let failed = stores[0].change(|registry| {
            registry.guests.remove(&vmid);
            Err::<(), StoreError>(RuleError::NoPool("b".parse().unwrap(), Vec::new()).into())
        });
        assert!(failed.is_err());
        kept.check("a change that failed");
    }

    /// Too much for the kernel to tell: everything is read again.
    #[test]
    fn more_than_can_be_told_is_seen() {
        let kept = Kept::new();
        let limit: usize =
            fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
        let (one, two) = (kept.at("guests/1.tmp"), kept.at("guests/2.tmp"));
        fs::write(&one, "").unwrap();
        for _ in 0..=limit / 4 {
            fs::rename(&one, &two).unwrap();
            fs::rename(&two, &one).unwrap();
        }
        kept.replace("guests/100.json", &guest(100, 33));
        kept.check("overflow");
    }

    #[test]
    fn without_a_word_everything_is_read() {
        let kept = Kept::new();
        let store = Store::new(&kept.paths, &"n1".parse().unwrap());
        store.load().unwrap();
        assert!(store.known().changed().is_none(), "nobody asked to be told");
        let past = SystemTime::UNIX_EPOCH;
        fs::write(kept.at("guests/100.json"), guest(100, 40)).unwrap();
        fs::File::open(kept.at("guests/100.json")).unwrap().set_modified(past).unwrap();
        assert_eq!(store.load().unwrap().registry, kept.fresh());
        assert!(Witness::of([PathBuf::from("/proc")]).is_none(), "a file system that changes without a word");
    }
}
