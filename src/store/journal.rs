//! The audit log as a file: appended to whole lines at a time, by many processes, through crashes and rotation.
//!
//! An entry is written after its change, not before. An intention that is written first has to be followed by an outcome,
//! and whoever is killed in between leaves a line that may or may not be true. Here the registry itself is the witness:
//! beside the log lies the registry as the log knows it, and whatever differs from it (because somebody was killed, the
//! disk was full, a file was edited by hand, another node made the change) is found by the next change, or by the guard,
//! and gets its entry then. A process that is killed between the two files makes an entry appear twice, as found.
//!
//! Nothing that goes wrong here stops a change: it is said in one line, and made up for later.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg, OFlag};
use serde::{Deserialize, Serialize};

use crate::audit::{self, Author, Change, Entry, Query, Selection, changes, select};
use crate::host::command;
use crate::host::files;
use crate::model::{Moment, NodeName, PoolName, Vmid};
use crate::paths::Paths;
use crate::registry::Registry;
use crate::registry::document::{GuestFile, NodeFile, Pool, PoolsFile};
use crate::registry::shared::SharedMap;
use crate::store::caller;

/// Whether the last entry could not be written and that was said.
static SAID: AtomicBool = AtomicBool::new(false);

/// How often, and how long in between, to wait for another writer: a tenth of a second in all.
/// Longest copy of the registry that the log keeps; one of 100,000 addresses has 12 MB.
const AUDITED_LIMIT: usize = 256 << 20;
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// Whether an entry must be on the disk before the command goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On the disk: what the registry says now is there, too.
    Synced,
    /// With the next flush of the kernel: a guest's start does not wait for a disk, and what this describes ends with a
    /// power failure anyway.
    Soon,
}

/// The log of one node.
#[derive(Debug, Clone)]
pub struct Journal {
    paths: Paths,
    node: NodeName,
    /// Why the changes of this process are made.
    pub reason: Option<String>,
    /// Who makes them, if not whoever started this process.
    pub caller: Option<Author>,
}

/// What a search came to.
#[derive(Debug, Default)]
pub struct Found {
    /// The entries, oldest first.
    pub entries: Vec<Entry>,
    /// Lines that cannot be read.
    pub unreadable: usize,
    /// Files that could not be searched, and why.
    pub not_searched: Vec<String>,
    /// The time of the first entry of all, if all were searched.
    pub begins: Option<Moment>,
}

/// The registry as the log knows it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct RecordedRegistry {
    pools: PoolsFile,
    guests: SharedMap<Vmid, GuestFile>,
    node: Option<NodeFile>,
}

/// What changed of it since it was written whole, as a line of a file beside it: to write all that a cluster has for each
/// address that is assigned would take longer than all the rest. Each value is what is there afterwards, so that a line that
/// is read twice does no harm.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Line {
    /// By which the registry's files are recognised; without it nobody knows whether the log knows all.
    files: Option<u64>,
    /// All of them, as release 0.1.0 writes it.
    #[serde(default, skip_serializing)]
    pools: Option<PoolsFile>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    changed_pools: BTreeMap<PoolName, Option<Pool>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    guests: BTreeMap<Vmid, Option<GuestFile>>,
    /// Of no or one value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    node: Vec<Option<NodeFile>>,
}

impl Line {
    /// What makes one registry of another.
    fn between(before: &Registry, after: &Registry, files: Option<u64>) -> Self {
        let changed = before.guests.differences(&after.guests);
        let pools = before.pools.pools.differences(&after.pools.pools);
        Self {
            files,
            pools: None,
            changed_pools: pools.map(|(name, [_, new])| (name.clone(), new.cloned())).collect(),
            guests: changed.map(|(vmid, [_, new])| (*vmid, new.cloned())).collect(),
            node: (before.node != after.node).then(|| after.node.clone()).into_iter().collect(),
        }
    }

    fn add_to(self, known: &mut RecordedRegistry) {
        if let Some(pools) = self.pools {
            known.pools = pools;
        }
        for (name, pool) in self.changed_pools {
            match pool {
                Some(pool) => known.pools.pools.insert(name, pool),
                None => drop(known.pools.pools.remove(&name)),
            }
        }
        for (vmid, guest) in self.guests {
            match guest {
                Some(guest) => known.guests.insert(vmid, guest),
                None => drop(known.guests.remove(&vmid)),
            }
        }
        for node in self.node {
            known.node = node;
        }
    }
}

/// A registry, and by which its files are recognised; `None`: not all of them can be used.
type Identified<'a> = (&'a Registry, Option<u64>);

/// When there are more bytes of lines than this, the whole is written again.
const LINES: u64 = 1 << 20;

/// In so many bytes the last line is looked for first.
const END: u64 = 16 << 10;

impl Journal {
    /// The log under `paths`.
    pub fn new(paths: &Paths, node: &NodeName) -> Self {
        Self { paths: paths.clone(), node: node.clone(), reason: None, caller: None }
    }

    /// Writes down what this process did.
    pub fn record(&self, changes: Vec<Change>, durability: Durability) {
        if !changes.is_empty() {
            said(self.append(self.entries(changes.into_iter(), false), durability));
        }
    }

    fn author(&self) -> Author {
        self.caller.clone().unwrap_or_else(|| caller::author(self.reason.clone()))
    }

    /// Writes down what this process made of the registry, and what others did that has no entry yet. The registry must be
    /// locked against other processes of this node.
    pub fn follow(&self, (before, was): Identified<'_>, (after, is): Identified<'_>) {
        let is_known = was.is_some() && self.last_files() == was;
        if is_known && is.is_some() {
            let mut mine = self.entries(changes(before, after), false).peekable();
            let is_nothing = mine.peek().is_none();
            if was == is && is_nothing {
                return;
            }
            let is_long = fs::metadata(self.paths.audited_since()).is_ok_and(|meta| meta.len() > LINES);
            let added = || if is_long { self.rewrite(after, is) } else { self.add(&Line::between(before, after, is)) };
            let logged = if is_nothing { Ok(()) } else { self.append(mine, Durability::Synced) };
            said(logged.and_then(|()| added()));
            return;
        }
        let known = self.known(self.lines());
        let seen = self.seen(before, &known);
        let found = self.entries(changes(&known, &seen), true);
        let mut entries = found.chain(self.entries(changes(before, after), false)).peekable();
        if entries.peek().is_none() {
            // From now on it is known that the log knows all.
            if is.is_some() && self.paths.audited().exists() {
                said(self.add(&Line { files: is, ..Line::default() }));
            }
            return;
        }
        let logged = self.append(entries, Durability::Synced);
        said(logged.and_then(|()| self.rewrite(&self.seen(after, &known), is)));
    }

    /// Writes what the log knows, whole. What is killed between the two files leaves lines that are too old: what they say is
    /// found once more.
    fn rewrite(&self, registry: &Registry, files: Option<u64>) -> io::Result<()> {
        let Registry { pools, guests, node, .. } = registry.clone();
        files::replace(&self.paths.audited(), &serde_json::to_vec(&RecordedRegistry { pools, guests, node })?)?;
        let mut line = serde_json::to_vec(&Line { files, ..Line::default() })?;
        line.push(b'\n');
        files::replace(&self.paths.audited_since(), &line)
    }

    /// Writes what it knows beyond that. Half a line of a killed process is none.
    fn add(&self, line: &Line) -> io::Result<()> {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let path = self.paths.audited_since();
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
        let line = [b"\n", serde_json::to_vec(line)?.as_slice(), b"\n"].concat();
        file.write_all(&line)?;
        file.sync_data()
    }

    /// By which the registry's files were recognised at the last line; `None`: it does not say, or was cut off. The lines before
    /// it are as good as never needed, and may be a megabyte.
    fn last_files(&self) -> Option<u64> {
        let (end, is_whole) = files::read_end(&self.paths.audited_since(), END).ok()?;
        let mut lines = end.split(|byte| *byte == b'\n').rev().filter(|line| !line.is_empty());
        let last = lines.next()?;
        if is_whole || lines.next().is_some() {
            return serde_json::from_slice::<Line>(last).ok()?.files;
        }
        self.lines().pop()?.files
    }

    fn lines(&self) -> Vec<Line> {
        let bytes = files::read_note(&self.paths.audited_since(), AUDITED_LIMIT).unwrap_or_default();
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        // One that cannot be read was cut off: if it is the last one, the log does not know all.
        lines.map(|line| serde_json::from_slice(line).unwrap_or_default()).collect()
    }

    fn known(&self, lines: Vec<Line>) -> Registry {
        let bytes = files::read_note(&self.paths.audited(), AUDITED_LIMIT).unwrap_or_default();
        let mut known: RecordedRegistry = serde_json::from_slice(&bytes).unwrap_or_default();
        for line in lines {
            line.add_to(&mut known);
        }
        let RecordedRegistry { pools, guests, node } = known;
        Registry { pools, guests, node, ..Registry::default() }
    }

    /// The registry with what is known of the files that cannot be read now: they are not gone.
    fn seen(&self, registry: &Registry, known: &Registry) -> Registry {
        let mut registry = registry.clone();
        for error in &registry.broken {
            let vmid = error.path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            let name = error.path.file_stem().and_then(|stem| stem.to_str()?.parse::<PoolName>().ok());
            let is_pool = error.path.parent() == Some(&self.paths.pool_files());
            let pool = name.filter(|_| is_pool).and_then(|name| Some((known.pools.pools.share(&name)?, name)));
            if let Some((pool, name)) = pool {
                registry.pools.pools.insert_shared(name, pool);
            } else if error.path == self.paths.pools_file() || error.path == self.paths.pool_files() {
                registry.pools = known.pools.clone();
            } else if error.path == self.paths.guest_files() {
                registry.guests.clone_from(&known.guests);
            } else if error.path == self.paths.node_file(&self.node) {
                registry.node.clone_from(&known.node);
            } else if let Some((vmid, guest)) = vmid.and_then(|vmid| known.guests.get_key_value(&vmid)) {
                registry.guests.insert(*vmid, guest.clone());
            }
        }
        registry
    }

    fn entries(&self, changes: impl Iterator<Item = Change>, found: bool) -> impl Iterator<Item = Entry> {
        let time = now();
        let mut author = found.then(audit::Author::default);
        changes.map(move |change| Entry {
            version: audit::VERSION,
            time,
            node: self.node.clone(),
            change,
            found,
            author: author.get_or_insert_with(|| self.author()).clone(),
        })
    }

    /// Writes entries as they come: a registry that the log sees for the first time has a hundred thousand.
    fn append(&self, entries: impl Iterator<Item = Entry>, durability: Durability) -> io::Result<()> {
        let path = self.paths.audit_log();
        files::directories(&self.paths.state())?;
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o640).custom_flags(flags).open(&path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let lock = locked(file.try_clone()?);
        let length = file.metadata()?.len();
        if length == 0 {
            // Whatever the umask says.
            file.set_permissions(Permissions::from_mode(0o640))?;
        }
        let mut text = String::new();
        if length > 0 && !ends_line(&file, length)? {
            // Whoever was here last did not come to the end: what it left is a line of its own.
            text.push('\n');
        }
        for entry in entries {
            text += &entry.line();
            if text.len() < PIECE {
                continue;
            }
            write_piece(&mut file, &mut text, length, lock.is_some())?;
        }
        write_piece(&mut file, &mut text, length, lock.is_some())?;
        drop(lock);
        if durability == Durability::Synced { file.sync_data() } else { Ok(()) }
    }

    /// The entries that are wanted, the last `limit` of them. Files that cannot have any are not opened.
    pub fn search(&self, query: &Query, limit: usize) -> Found {
        let mut found = Found::default();
        let (mut parts, mut count, mut is_whole) = (Vec::new(), 0, true);
        for (written, path) in self.files() {
            if count >= limit || query.since.is_some_and(|since| written < since) {
                is_whole = false;
                break;
            }
            match read(&path) {
                Ok(text) => {
                    let Selection { entries, unreadable } = select(&text, query, limit - count);
                    count += entries.len();
                    found.unreadable += unreadable;
                    parts.push((begin(&text), entries));
                }
                Err(error) => found.not_searched.push(format!("`{}` is not searched: {error}", path.display())),
            }
        }
        // Copied files may have any time.
        parts.sort_by_key(|(begins, _)| *begins);
        found.begins = parts.iter().find_map(|(begins, _)| *begins).filter(|_| is_whole);
        found.entries = parts.into_iter().flat_map(|(_, entries)| entries).collect();
        found
    }

    /// The log and what was rotated away of it, with the time at which each was written last, the youngest first.
    fn files(&self) -> Vec<(Moment, PathBuf)> {
        let (directory, log) = (self.paths.state(), self.paths.audit_log());
        let prefix = log.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let names = files::names(&directory).into_iter().filter(|name| name.starts_with(prefix));
        let mut found: Vec<(Moment, PathBuf)> = names
            .map(|name| {
                let path = directory.join(name);
                let written = fs::metadata(&path).and_then(|meta| meta.modified()).unwrap_or(UNIX_EPOCH);
                (Moment(written.duration_since(UNIX_EPOCH).unwrap_or_default()), path)
            })
            .collect();
        found.sort_unstable_by(|one, two| two.cmp(one));
        found
    }
}

/// As much is written at once.
const PIECE: usize = 256 << 10;

/// Writes what there is and empties it. Better no entry than half of one: what cannot be written whole takes along what was
/// written before it, if nobody else can have written meanwhile.
fn write_piece(file: &mut File, text: &mut String, length: u64, is_locked: bool) -> io::Result<()> {
    let written = file.write(text.as_bytes())?;
    if written < text.len() {
        if is_locked {
            file.set_len(length)?;
        }
        return Err(io::ErrorKind::StorageFull.into());
    }
    text.clear();
    Ok(())
}

/// A file of the log, compressed or not.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => {
            command::run("gzip", &["-dc", "--", &path.to_string_lossy()], b"").map_err(|error| error.to_string())
        }
        Some("xz" | "zst" | "bz2") => Err("it is compressed in another way than by gzip".to_owned()),
        _ => files::read_limited(path, usize::MAX - 1).map_err(|error| error.to_string()),
    }
}

/// The time of the first entry.
fn begin(text: &[u8]) -> Option<Moment> {
    let mut lines = text.split(|byte| *byte == b'\n');
    lines.find_map(|line| serde_json::from_slice::<Entry>(line).ok()).map(|entry| entry.time)
}

/// Now.
pub fn now() -> Moment {
    Moment(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Keeps other writers away, so that what one of them left unfinished is seen. If one does not go on, lines go in between
/// all the same: a guest does not wait for a stopped process, and each line is written at once.
fn locked(file: File) -> Option<Flock<File>> {
    let mut file = file;
    for _ in 0..LOCK_ATTEMPTS {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((same, _)) => file = same,
        }
        sleep(LOCK_PAUSE);
    }
    None
}

fn ends_line(file: &File, length: u64) -> io::Result<bool> {
    let mut last = [0];
    file.read_exact_at(&mut last, length - 1)?;
    Ok(last == *b"\n")
}

/// Says once what went wrong.
fn said(outcome: io::Result<()>) {
    match outcome {
        Ok(()) => SAID.store(false, Ordering::Relaxed),
        Err(error) if !SAID.swap(true, Ordering::Relaxed) => {
            log::warn!("the audit log cannot be written, and the change is made all the same: {error}");
        }
        Err(_) => {}
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test reads what was written")]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};
    use std::thread;

    use super::*;
    use crate::audit::Event;

    fn journal(root: &std::path::Path) -> Journal {
        Journal::new(&Paths::new(root), &"n1".parse().unwrap())
    }

    fn text(number: usize) -> Vec<Change> {
        vec![Change::said(Event::Repaired, number.to_string())]
    }

    fn texts(found: Found) -> Vec<usize> {
        assert_eq!((found.unreadable, found.not_searched), (0, Vec::new()));
        found.entries.into_iter().map(|entry| entry.change.text.unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn nothing_is_lost_or_torn_by_many_writers_and_rotation() {
        let root = tempfile::tempdir().unwrap();
        let journal = journal(root.path());
        let log = journal.paths.audit_log();
        thread::scope(|scope| {
            for writer in 0..20 {
                let journal = &journal;
                scope
                    .spawn(move || (0..50).for_each(|turn| journal.record(text(writer * 50 + turn), Durability::Soon)));
            }
            for turn in 0..10 {
                let _ = fs::rename(&log, log.with_extension(format!("log.{turn}")));
                thread::yield_now();
            }
        });
        journal.record(text(1000), Durability::Soon);
        let mut all = texts(journal.search(&Query::default(), usize::MAX));
        all.sort_unstable();
        assert_eq!(all, (0..=1000).collect::<Vec<_>>());
        assert_eq!(fs::metadata(log).unwrap().mode() & 0o7777, 0o640);
    }

    #[test]
    fn a_torn_line_costs_nothing_but_itself() {
        let root = tempfile::tempdir().unwrap();
        let journal = journal(root.path());
        journal.record(text(1), Durability::Synced);
        let path = journal.paths.audit_log();
        let mut torn = fs::read(&path).unwrap();
        torn.extend_from_within(..50);
        files::replace(&path, &torn).unwrap();
        assert_eq!(journal.search(&Query::default(), 9).unreadable, 1);
        journal.record(text(2), Durability::Synced);
        let found = journal.search(&Query::default(), 9);
        assert_eq!((found.unreadable, texts(Found { unreadable: 0, ..found })), (1, vec![1, 2]));
    }

    #[test]
    fn a_stopped_writer_holds_up_nobody() {
        let root = tempfile::tempdir().unwrap();
        let journal = journal(root.path());
        journal.record(text(1), Durability::Soon);
        let held = Flock::lock(File::open(journal.paths.audit_log()).unwrap(), FlockArg::LockExclusive).unwrap();
        journal.record(text(2), Durability::Soon);
        drop(held);
        assert_eq!(texts(journal.search(&Query::default(), 9)), [1, 2]);
    }

    #[test]
    fn no_link_and_no_pipe_is_written_to() {
        let root = tempfile::tempdir().unwrap();
        let journal = journal(root.path());
        files::directories(&journal.paths.state()).unwrap();
        let (log, target) = (journal.paths.audit_log(), root.path().join("target"));
        symlink(&target, &log).unwrap();
        let message = journal.append(std::iter::empty(), Durability::Soon).unwrap_err().to_string();
        assert_eq!((message.as_str(), target.exists()), ("Too many levels of symbolic links (os error 40)", false));
        fs::remove_file(&log).unwrap();
        nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(journal.append(std::iter::empty(), Durability::Soon).unwrap_err().to_string(), "not a regular file");
    }

    #[test]
    fn what_others_did_is_found() {
        let root = tempfile::tempdir().unwrap();
        let journal = journal(root.path());
        let pools = |names: &[&str]| {
            let pool = r#"{"profile":"generic-bridged","bridge":"vmbr0"}"#;
            let pools: Vec<String> = names.iter().map(|name| format!(r#""{name}":{pool}"#)).collect();
            let text = format!(r#"{{"version":1,"pools":{{{}}}}}"#, pools.join(","));
            Registry { pools: serde_json::from_str(&text).unwrap(), ..Registry::default() }
        };
        let entries = || -> Vec<String> {
            let all = journal.search(&Query::default(), usize::MAX).entries.into_iter();
            all.map(|entry| format!("{} {} {}", entry.change.event, entry.change.pool.unwrap(), entry.found)).collect()
        };
        journal.follow((&pools(&[]), None), (&pools(&["a"]), None));
        journal.follow((&pools(&["a"]), None), (&pools(&["a"]), None));
        assert_eq!(entries(), ["pool-created a false"]);
        journal.follow((&pools(&["b"]), None), (&pools(&["b", "c"]), None));
        assert_eq!(entries()[1..], ["pool-removed a true", "pool-created b true", "pool-created c false"]);
        let mut broken = Registry::default();
        let error = |path: &Path| crate::registry::document::DocumentError::new(path, "is empty", "");
        broken.broken.push(error(&journal.paths.pools_file()));
        journal.follow((&broken, None), (&broken, None));
        assert_eq!(entries().len(), 4, "what cannot be read is not gone");
    }

    /// Whatever was written in pieces, and wherever that ended: what the log knows is the registry, and each change is in it.
    #[test]
    fn what_is_known_is_written_in_pieces() {
        let root = tempfile::tempdir().unwrap();
        let journal = journal(root.path());
        let registry = |guests: &[(u32, &str)]| {
            let file = |(vmid, address): &(u32, &str)| -> (Vmid, GuestFile) {
                let held = serde_json::json!({"address": address, "pool": "a", "assigned_at": "2026-11-22T10:00:00Z"});
                let file = serde_json::json!({"version": 1, "vmid": vmid, "interfaces": {"net0":
                    {"mac": format!("02:00:00:00:00:{vmid:02x}"), "addresses": [held]}}});
                (vmid.to_string().parse().unwrap(), serde_json::from_value(file).unwrap())
            };
            Registry { guests: guests.iter().map(file).collect(), ..Registry::default() }
        };
        let entries = || -> Vec<String> {
            let found = journal.search(&Query::default(), 99).entries.into_iter();
            let shown = |entry: Entry| {
                let found = if entry.found { " found" } else { "" };
                format!("{} {}{found}", entry.change.event, entry.change.address.unwrap().first())
            };
            found.map(shown).collect()
        };
        let known = || journal.known(journal.lines()).guests;
        let states = [
            registry(&[]),
            registry(&[(100, "203.0.113.1")]),
            registry(&[(100, "203.0.113.1"), (101, "203.0.113.2")]),
            registry(&[(101, "203.0.113.2")]),
        ];
        for (at, pair) in states.windows(2).enumerate() {
            let at = u64::try_from(at).unwrap();
            journal.follow((&pair[0], Some(at)), (&pair[1], Some(at + 1)));
            assert_eq!(known(), pair[1].guests, "{at}");
        }
        let told = ["assigned 203.0.113.1", "assigned 203.0.113.2", "released 203.0.113.1"];
        assert_eq!(entries(), told);
        let whole = fs::read(journal.paths.audited()).unwrap();
        assert!(!String::from_utf8(whole).unwrap().contains("203.0.113.2"), "the whole was written again");
        // The same files: nothing is read or written. Others: what somebody else did is found.
        journal.follow((&states[3], Some(3)), (&states[3], Some(3)));
        journal.follow((&states[2], Some(9)), (&states[2], Some(9)));
        assert_eq!(entries()[3..], ["assigned 203.0.113.1 found"]);
        // A last line of which only a part lies at the end of the file.
        let path = journal.paths.audited_since();
        assert_eq!(journal.last_files(), Some(9));
        let long = format!("\n{{\"files\":9,\"later\":\"{}\"}}\n", "x".repeat(usize::try_from(END).unwrap()));
        let mut longer = fs::read(&path).unwrap();
        longer.extend_from_slice(long.replace(":9,", ":10,").as_bytes());
        let before = fs::read(&path).unwrap();
        files::replace(&path, &longer).unwrap();
        assert_eq!(journal.last_files(), Some(10));
        files::replace(&path, &before).unwrap();
        // Half a line, as a process leaves that is killed.
        let mut torn = fs::read(&path).unwrap();
        journal.follow((&states[2], Some(9)), (&states[3], Some(3)));
        let line = fs::read(&path).unwrap();
        torn.extend_from_slice(&line[torn.len()..torn.len() + 20]);
        files::replace(&path, &torn).unwrap();
        journal.follow((&states[3], Some(3)), (&states[1], Some(1)));
        let last = &entries()[4..];
        assert_eq!(
            last,
            ["released 203.0.113.1", "released 203.0.113.1 found", "released 203.0.113.2", "assigned 203.0.113.1"]
        );
        assert_eq!(known(), states[1].guests);
    }
}
