//! Volatile state of this node under `/run/pve-public-ip`: the lock of those who change the kernel, and what the
//! kernel cannot say by itself.
//!
//! Nothing here is an authority: it goes with a reboot, as the kernel's state does, and `apply` works without it.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::nftables::Reference;
use crate::code;
use crate::host::files;
use crate::model::{Code, GuestKind, Problem, Vmid};
use crate::paths::Paths;
use crate::plan::Support;
use crate::registry::document::{BackendChoice, GuestFile, PoolsFile};
use crate::ruleset::{Backend, Variant};

/// How long a start may take between pre-start and the appearance of its port, once its task is gone.
const START_LIMIT: Duration = Duration::from_secs(600);

/// The file that whoever changes the node's kernel locks.
const LOCK: &str = "node.lock";

/// What a hook noted about a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The last phase that counts.
    pub phase: MarkPhase,
    /// When (seconds since 1970).
    pub since: u64,
    /// QEMU or LXC: what its ports are called.
    pub kind: GuestKind,
    /// Numbers of the ports that were still there at post-stop: they do not make the guest a running one.
    #[serde(default)]
    pub left_ports: Vec<u32>,
    /// The assignments as they were put into the kernel: what to take out again, even if the registry has changed.
    pub applied: GuestFile,
    /// What it needs of the node around it: to be taken back when it has stopped, unless others need it.
    #[serde(default, skip_serializing_if = "Support::is_empty")]
    pub support: Support,
}

/// How far a guest was, by its hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MarkPhase {
    /// pre-start: protected, port not there yet.
    Starting,
    /// pre-start of an incoming live migration.
    Incoming,
    /// post-start, or the port was seen.
    Started,
    /// post-stop, with a port still there.
    Stopped,
}

/// The pools with only those entries that one guest needs, and what they were made of.
///
/// To read ten thousand entries takes a hook longer than all else that it does, and they change once a month.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolsPart {
    /// Hash of the pools' file and of this program's version.
    pub source: u64,
    /// Addresses whose entries are in `pools`.
    pub about: BTreeSet<String>,
    /// All pools, each with these entries only.
    pub pools: PoolsFile,
}

/// What filters routed traffic, and how that came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendNote {
    /// What was asked for when it was decided; `None`: it has to be decided again.
    pub choice: Option<BackendChoice>,
    /// What it was decided to be.
    pub backend: Backend,
    /// In which iptables there may be something of ours.
    pub variants: BTreeSet<Variant>,
}

/// How the guard is. Times are in seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct GuardNote {
    /// Its process.
    pub pid: u32,
    /// When it last compared the node with its desired state.
    pub last_look: u64,
    /// How long that took, in milliseconds.
    pub last_look_ms: u64,
    /// How often it has.
    pub looks: u64,
    /// When it last changed something.
    pub last_change: u64,
    /// Differences that nobody should have made, and that it repaired.
    pub repairs: u64,
    /// Guests that are bound on this node.
    pub guests: usize,
    /// Assignments that something stands in the way of.
    pub problems: usize,
    /// What keeps it from its work.
    pub trouble: Option<String>,
    /// Whether that is a cluster file system which does not answer, so that whoever reads it hangs.
    #[serde(default)]
    pub is_etc_pve_silent: bool,
}

impl GuardNote {
    /// Whether its process is there. A number is given again to another process after the guard's end, hardly ever to one
    /// of this name.
    pub fn is_alive(&self) -> bool {
        let name = files::read_limited(Path::new(&format!("/proc/{}/comm", self.pid)), 64);
        name.is_ok_and(|name| name.starts_with(b"pve-public-ip"))
    }
}

/// The run directory, locked against other processes that change the kernel.
#[derive(Debug)]
pub struct RunState {
    directory: PathBuf,
    _lock: Option<Flock<fs::File>>,
    /// Whoever has it only looks: nothing is noted, not even what would save time.
    is_look: bool,
}

/// The same file as our stdin: whoever has opened it for us can give its lock back if we cannot.
fn handed_over(file: &fs::File) -> Option<fs::File> {
    let stdin = fs::File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
    let identity = |file: &fs::File| file.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
    (identity(&stdin)? == identity(file)?).then_some(stdin)
}

/// Waits in the kernel's queue, which is served in turn; who asks again and again may never be the first. A thread does
/// it, because the call knows no limit: one that comes too late gives the lock back.
fn wait(mut file: fs::File, limit: Duration) -> Option<Result<Flock<fs::File>, (fs::File, Errno)>> {
    let (served, turn) = channel();
    thread::spawn(move || {
        let locked = loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Err((same, Errno::EINTR)) => file = same,
                locked => break locked,
            }
        };
        drop(served.send(locked));
    });
    turn.recv_timeout(limit).ok()
}

/// A moment of this node since it booted, to be compared with those of other processes. No clock that somebody sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// The boot that it is counted from.
    boot: String,
    since_boot: Duration,
}

impl Tick {
    /// Now; `None`: the kernel does not say.
    pub fn now() -> Option<Self> {
        let boot = files::read_kernel(Path::new("/proc/sys/kernel/random/boot_id")).ok()?;
        let time = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
        Some(Self { boot: boot.trim().to_owned(), since_boot: time.into() })
    }

    fn is_before(&self, other: &Self) -> bool {
        self.boot == other.boot && self.since_boot < other.since_boot
    }

    /// So much later.
    #[cfg(test)]
    pub(crate) fn later(self, by: Duration) -> Self {
        Self { since_boot: self.since_boot + by, ..self }
    }
}

/// What a reconciliation of the whole node came to, for those whose changes it has taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// When it began to read the files.
    pub began: Tick,
    /// What failed of it.
    pub failed: Vec<Problem>,
    /// What may surprise.
    pub notes: Vec<Problem>,
}

/// The note of what was reconciled last for somebody who had changed the registry.
const SHARED: &str = "followed";

impl RunError {
    /// Its kind.
    pub fn code(&self) -> Code {
        match self {
            Self::Io { .. } => code!("run-directory-unusable"),
            Self::Busy(_) => code!("node-busy"),
        }
    }
}

/// The run directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file system refuses.
    #[error("cannot use `{}`", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Somebody else is at it.
    #[error("another pve-public-ip has been changing this node for {} s", .0.as_secs())]
    Busy(Duration),
}

impl RunState {
    /// The file of the node's lock, not locked, for a process that is to take it (see `command::supervise`).
    pub fn lock_file(paths: &Paths) -> Option<fs::File> {
        files::private_directory(&paths.run()).ok()?;
        files::open_lock(&paths.run().join(LOCK)).ok()
    }

    /// The same for a process that only looks: `None` if the file does not exist, because a look writes nothing.
    pub fn lock_file_to_look(paths: &Paths) -> Option<fs::File> {
        files::open_existing_lock(&paths.run().join(LOCK)).ok()
    }

    /// Waits at most `limit` until nobody changes the node, and keeps changes out until the value is dropped. Writes
    /// nothing: without a lock file nobody has changed the node since its boot, and there is nothing to wait for.
    pub fn lock_to_look(paths: &Paths, limit: Duration) -> Result<Self, RunError> {
        let path = paths.run().join(LOCK);
        match files::open_existing_lock(&path) {
            Ok(file) => Ok(Self { is_look: true, ..Self::locked(paths.run(), file, limit)? }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Self { is_look: true, ..Self::unlocked(paths) })
            }
            Err(source) => Err(RunError::Io { path, source }),
        }
    }

    /// Locks the node for changes, waiting at most `limit`.
    pub fn lock(paths: &Paths, limit: Duration) -> Result<Self, RunError> {
        let directory = paths.run();
        let io = |path: &PathBuf| {
            let path = path.clone();
            move |source| RunError::Io { path, source }
        };
        for path in [directory.clone(), directory.join("guests"), directory.join("pools")] {
            files::private_directory(&path).map_err(io(&path))?;
        }
        let path = directory.join(LOCK);
        let file = files::open_lock(&path).map_err(io(&path))?;
        Self::locked(directory, file, limit)
    }

    /// Takes the lock of this file.
    fn locked(directory: PathBuf, file: fs::File, limit: Duration) -> Result<Self, RunError> {
        let failed = |error: Errno| RunError::Io { path: directory.join(LOCK), source: error.into() };
        let file = handed_over(&file).unwrap_or(file);
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { directory, _lock: Some(lock), is_look: false }),
            Err((file, Errno::EWOULDBLOCK)) => match wait(file, limit) {
                Some(Ok(lock)) => Ok(Self { directory, _lock: Some(lock), is_look: false }),
                Some(Err((_, error))) => Err(failed(error)),
                None => Err(RunError::Busy(limit)),
            },
            Err((_, error)) => Err(failed(error)),
        }
    }

    /// Removes every note, as a boot does; the lock stays until the value is dropped, and its file beyond that.
    pub fn forget_everything(&self) -> Result<(), RunError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| RunError::Io { path, source }
        };
        for entry in fs::read_dir(&self.directory).map_err(io(&self.directory))? {
            let entry = entry.map_err(io(&self.directory))?;
            let path = entry.path();
            if entry.file_name() == LOCK {
                continue;
            }
            let is_directory = entry.file_type().map_err(io(&path))?.is_dir();
            let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(io(&path))?;
        }
        Ok(())
    }

    /// Where the notes are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The notes for looking at only: without the lock they may be a moment old.
    pub fn unlocked(paths: &Paths) -> Self {
        Self { directory: paths.run(), _lock: None, is_look: false }
    }

    /// What the hooks noted about a guest.
    pub fn mark(&self, vmid: Vmid) -> Option<Mark> {
        let bytes = files::read_note(&self.mark_path(vmid), 4 << 20)?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Every guest with a mark.
    pub fn marked(&self) -> Vec<Vmid> {
        let entries = fs::read_dir(self.directory.join("guests")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok())).collect()
    }

    /// Notes how far a guest is; before the kernel changes, so that a crash leaves a note too many, not one too few.
    pub fn set_mark(&self, vmid: Vmid, mark: &Mark) -> Result<(), RunError> {
        let path = self.mark_path(vmid);
        let failed = |source| RunError::Io { path: path.clone(), source };
        let bytes = serde_json::to_vec(mark).map_err(|error| failed(error.into()))?;
        files::replace_soon(&path, &bytes).map_err(failed)
    }

    /// Forgets a guest; after the kernel has.
    pub fn clear_mark(&self, vmid: Vmid) {
        let _ = fs::remove_file(self.mark_path(vmid));
    }

    fn mark_path(&self, vmid: Vmid) -> PathBuf {
        self.directory.join("guests").join(vmid.to_string())
    }

    /// Whether exactly this content of a guest's file was compared with the whole registry and found free of conflicts.
    ///
    /// A conflict needs a changed file, and a changed file is compared again; so an unchanged one need not be.
    pub fn is_compared(&self, vmid: Vmid, print: u64) -> bool {
        let line = comparison(vmid, print);
        self.compared().is_some_and(|known| known.split(|byte| *byte == b'\n').any(|known| known == line.as_bytes()))
    }

    /// The guests whose files were not compared with the whole registry as they are.
    pub fn not_compared(&self, prints: impl Iterator<Item = (Vmid, u64)>) -> BTreeSet<Vmid> {
        let known = self.compared().unwrap_or_default();
        let known: BTreeSet<&[u8]> = known.split(|byte| *byte == b'\n').collect();
        prints
            .filter(|(vmid, print)| !known.contains(comparison(*vmid, *print).as_bytes()))
            .map(|(vmid, _)| vmid)
            .collect()
    }

    fn compared(&self) -> Option<Vec<u8>> {
        files::read_note(&self.directory.join("compared"), 4 << 20)
    }

    /// Notes which files were compared with each other; what was noted before did not see them.
    pub fn set_compared(&self, prints: impl Iterator<Item = (Vmid, u64)>) {
        let lines: String = prints.map(|(vmid, print)| comparison(vmid, print) + "\n").collect();
        let _ = files::replace_soon(&self.directory.join("compared"), lines.as_bytes());
    }

    /// The part of the pools that was read for this guest, if one was kept.
    ///
    /// Needs no lock: the file is replaced whole, and says itself what it was made of.
    pub fn pools_part(paths: &Paths, vmid: Vmid) -> Option<PoolsPart> {
        let bytes = files::read_note(&paths.run().join("pools").join(vmid.to_string()), 16 << 20)?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Drops the parts of guests that are not assigned anything any more.
    pub fn keep_pools_parts(&self, of: impl Fn(Vmid) -> bool) {
        for entry in fs::read_dir(self.directory.join("pools")).into_iter().flatten().flatten() {
            let vmid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if vmid.is_none_or(|vmid| !of(vmid)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Keeps it.
    pub fn set_pools_part(&self, vmid: Vmid, part: &PoolsPart) {
        let Ok(bytes) = serde_json::to_vec(part) else { return };
        let _ = files::replace_soon(&self.directory.join("pools").join(vmid.to_string()), &bytes);
    }

    /// The fingerprints that the rules of the text with this hash have in this node's kernel, if they were taken.
    pub fn reference(&self, text_hash: u64) -> Option<[u64; 2]> {
        let line = String::from_utf8(files::read_note(&self.directory.join("rules"), 1 << 10)?).ok()?;
        let numbers: Option<Vec<u64>> =
            line.split_whitespace().map(|word| u64::from_str_radix(word, 16).ok()).collect();
        match *numbers? {
            [text, bridge, inet] if text == text_hash => Some([bridge, inet]),
            _ => None,
        }
    }

    /// The fingerprints that were taken last, of whatever text: by them another release knows its rules, or this one those
    /// with another log group.
    pub fn latest_reference(paths: &Paths) -> Option<Reference> {
        let line = files::read_note(&paths.run().join("rules"), 1 << 10)?;
        let text = String::from_utf8(line).ok()?;
        let mut numbers = text.split_whitespace().skip(1).map(|word| u64::from_str_radix(word, 16));
        let fingerprints = [numbers.next()?.ok()?, numbers.next()?.ok()?];
        Some(Reference { log_group: None, fingerprints })
    }

    /// Keeps the fingerprints.
    pub fn set_reference(&self, text_hash: u64, [bridge, inet]: [u64; 2]) {
        if self.is_look {
            return;
        }
        let line = format!("{text_hash:016x} {bridge:016x} {inet:016x}\n");
        let _ = files::replace_soon(&self.directory.join("rules"), line.as_bytes());
    }

    /// What the guard noted last; `None`: it has not run since the node booted.
    pub fn guard_note(paths: &Paths) -> Option<GuardNote> {
        Self::note(paths, "guard")
    }

    /// What was noted under this name since the node booted.
    pub fn note<T: DeserializeOwned>(paths: &Paths, name: &str) -> Option<T> {
        let bytes = files::read_note(&paths.run().join(name), 16 << 20)?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Notes something of the guard's; needs no lock, because there is one guard, and helps only those who look.
    pub fn set_note<T: Serialize>(paths: &Paths, name: &str, note: &T) {
        let Ok(bytes) = serde_json::to_vec(note) else { return };
        let _ = files::replace_soon(&paths.run().join(name), &bytes);
    }

    /// What came of a reconciliation that began after this moment: whatever was written before it is taken in.
    pub fn followed_since(&self, written: &Tick) -> Option<Shared> {
        let bytes = files::read_note(&self.directory.join(SHARED), 16 << 20)?;
        serde_json::from_slice::<Shared>(&bytes).ok().filter(|shared| written.is_before(&shared.began))
    }

    /// Notes it for those who wait for the node's lock meanwhile.
    pub fn set_followed(&self, shared: &Shared) {
        let Ok(bytes) = serde_json::to_vec(shared) else { return };
        let _ = files::replace_soon(&self.directory.join(SHARED), &bytes);
    }

    /// What this kernel has shown that it can do since it booted.
    pub fn proven_features(paths: &Paths) -> BTreeSet<String> {
        let bytes = files::read_note(&paths.run().join("features"), 1 << 16).unwrap_or_default();
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
    }

    /// Notes that; helps only whoever asks next.
    pub fn set_proven_features(paths: &Paths, features: &BTreeSet<String>) {
        let lines: String = features.iter().map(|feature| format!("{feature}\n")).collect();
        let _ = files::replace_soon(&paths.run().join("features"), lines.as_bytes());
    }

    /// What filters routed traffic since the node booted, if that was decided.
    pub fn backend(&self) -> Option<BackendNote> {
        let bytes = files::read_note(&self.directory.join("backend"), 1 << 16)?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Notes it; before the kernel changes, so that what is put there is found again.
    pub fn set_backend(&self, note: &BackendNote) -> Result<(), RunError> {
        let path = self.directory.join("backend");
        let failed = |source| RunError::Io { path: path.clone(), source };
        let bytes = serde_json::to_vec(note).map_err(|error| failed(error.into()))?;
        files::replace_soon(&path, &bytes).map_err(failed)
    }

    /// Has it decided once more, at the next look.
    pub fn forget_backend(&self) -> Result<(), RunError> {
        let known = self.backend();
        known.map_or(Ok(()), |known| self.set_backend(&BackendNote { choice: None, ..known }))
    }

    /// Whether the node's share of the state (pools, gateways, the node itself) was applied for exactly this basis.
    /// Of a part of it every line must be among what was noted.
    pub fn node_applied(&self, basis: &[u8]) -> bool {
        let lines = |text: &'_ [u8]| -> BTreeSet<Vec<u8>> {
            text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
        };
        let (known, asked) = (self.noted_basis().unwrap_or_default(), lines(basis));
        !asked.is_empty() && asked.is_subset(&lines(&known))
    }

    fn noted_basis(&self) -> Option<Vec<u8>> {
        files::read_note(&self.directory.join("node"), 1 << 20)
    }

    /// Notes that it was, if that is news.
    pub fn set_node_applied(&self, basis: &[u8]) {
        if self.noted_basis().as_deref() != Some(basis) {
            let _ = files::replace_soon(&self.directory.join("node"), basis);
        }
    }
}

/// Of this release: another one may find other conflicts.
fn comparison(vmid: Vmid, print: u64) -> String {
    format!("{vmid} {print:016x} {}", env!("CARGO_PKG_VERSION"))
}

/// By which the content of a file is known again, for this release.
pub fn fingerprint(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), content).hash(&mut hasher);
    hasher.finish()
}

impl Mark {
    /// A note made now.
    pub fn now(phase: MarkPhase, kind: GuestKind, applied: GuestFile) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { phase, since, kind, left_ports: Vec::new(), applied, support: Support::default() }
    }

    /// Whether a start may still be going on although no port is there: a failed start has no further hook.
    pub fn may_be_starting(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        matches!(self.phase, MarkPhase::Starting | MarkPhase::Incoming)
            && now.saturating_sub(self.since) < START_LIMIT.as_secs()
    }
}
