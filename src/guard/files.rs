//! Who reads `/etc/pve` for the service: a thread of its own, because whoever reads from a cluster file system that
//! hangs, hangs with it, beyond the reach of any signal. The service goes on with what it knows.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::host::files;
use crate::model::GuestKind;
use crate::reconcile::{Node, ReconcileError, Sources};

/// How often to see whether something has changed: pmxcfs tells nobody what other nodes write.
const INTERVAL: Duration = Duration::from_millis(500);

/// What could not be read may be readable again without a sign of change: after this time it is tried again.
const DOUBT: Duration = Duration::from_secs(5);

/// How to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Read again what has changed.
    Changed,
    /// Read again, whatever it looks like.
    All,
}

/// What came of it.
#[derive(Debug)]
pub enum Answer {
    /// Nothing has changed since the last time.
    Same,
    /// What the files say now.
    News(Box<Sources>),
    /// They cannot be read.
    Failed(ReconcileError),
}

/// Who reads the cluster's files for the guard.
pub trait Files {
    /// Asks, and waits for the answer at most as long as `limit`. `None`: there is none yet.
    fn ask(&mut self, ask: Ask, limit: Duration) -> Option<Answer>;

    /// Since when an answer is missing.
    fn silent_for(&self) -> Option<Duration>;
}

/// The other side of the reading thread.
#[derive(Debug)]
pub struct Reader {
    asks: Sender<Ask>,
    answers: Receiver<Answer>,
    bell: UnixDatagram,
    /// When a question was asked that has no answer yet.
    waiting_since: Option<Instant>,
    /// Tells the thread that nobody waits for its answer any more.
    gave_up: Arc<AtomicBool>,
    /// What was read and not handed out yet.
    late: Option<Box<Sources>>,
}

impl Reader {
    /// Starts the thread.
    pub fn start(node: Node) -> io::Result<Self> {
        let (asks, questions) = channel();
        let (replies, answers) = channel();
        let (bell, ring) = UnixDatagram::pair()?;
        bell.set_nonblocking(true)?;
        ring.set_nonblocking(true)?;
        let gave_up = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&gave_up);
        let body = move || read(&node, &questions, &replies, &ring, &flag);
        thread::Builder::new().name("files".to_owned()).spawn(body)?;
        Ok(Self { asks, answers, bell, waiting_since: None, gave_up, late: None })
    }

    /// Readable when there may be something to ask for.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Whether the bell was rung since the last call.
    pub fn was_rung(&self) -> bool {
        let mut rung = false;
        while self.bell.recv(&mut [0; 8]).is_ok() {
            rung = true;
        }
        rung
    }

    fn take_answer(&mut self, until: Instant) -> Option<Answer> {
        let limit = until.saturating_duration_since(Instant::now());
        let Ok(answer) = self.answers.recv_timeout(limit) else {
            self.gave_up.store(true, Ordering::Relaxed);
            return None;
        };
        self.gave_up.store(false, Ordering::Relaxed);
        self.waiting_since = None;
        match answer {
            Answer::News(sources) => {
                self.late = Some(sources);
                Some(Answer::Same)
            }
            answer => Some(answer),
        }
    }
}

impl Files for Reader {
    /// The bell rings when a late answer is there. It does not count before it is confirmed: the files may have changed since.
    fn ask(&mut self, ask: Ask, limit: Duration) -> Option<Answer> {
        let until = Instant::now() + limit;
        if self.waiting_since.is_some() {
            self.take_answer(until)?;
        }
        self.asks.send(ask).ok()?;
        self.waiting_since = Some(Instant::now());
        let answer = self.take_answer(until)?;
        Some(match (answer, self.late.take()) {
            (Answer::Same, Some(sources)) => Answer::News(sources),
            (answer, _) => answer,
        })
    }

    fn silent_for(&self) -> Option<Duration> {
        self.waiting_since.map(|since| since.elapsed())
    }
}

/// Answers questions, and rings when it sees a change in between, or when its answer is late.
fn read(node: &Node, questions: &Receiver<Ask>, replies: &Sender<Answer>, ring: &UnixDatagram, gave_up: &AtomicBool) {
    // By what the files were known when they were read last, and until when that counts; and when a change was looked for.
    let mut known = None;
    let mut seen = None;
    // Whether the registry may have changed since the audit log was compared with it.
    let mut is_unaudited = false;
    loop {
        let ask = match questions.recv_timeout(INTERVAL) {
            Ok(ask) => ask,
            Err(RecvTimeoutError::Timeout) => {
                // When nobody waits for an answer.
                is_unaudited = is_unaudited && !node.store.audit().unwrap_or_default();
                let now = Some(signature(node, false));
                if seen.is_some() && seen != now {
                    let _ = ring.send(b"!");
                }
                seen = now;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // Before reading: a change meanwhile then makes a difference next time.
        let before = (signature(node, false), signature(node, true));
        seen = Some(before.0);
        let now = Instant::now();
        let counts =
            |(signature, until): (_, Option<Instant>)| signature == before && until.is_none_or(|until| now < until);
        let answer = if ask == Ask::Changed && known.is_some_and(counts) {
            Answer::Same
        } else {
            match node.read_sources() {
                Ok(sources) => {
                    is_unaudited |= known.is_none_or(|(signature, _)| signature != before);
                    let until = (!sources.are_whole()).then(|| Instant::now() + DOUBT);
                    known = Some((before, until));
                    Answer::News(Box::new(sources))
                }
                Err(error) => {
                    known = None;
                    Answer::Failed(error)
                }
            }
        };
        if replies.send(answer).is_err() {
            return;
        }
        if gave_up.swap(false, Ordering::Relaxed) {
            let _ = ring.send(b"!");
        }
    }
}

/// By what a change of the files is seen.
///
/// Every write to pmxcfs, from whatever node, goes to its database on this one, whose time has nanoseconds; those of
/// pmxcfs itself have seconds. Directories and `.vmlist` show what is replaced and moved. Where there is no database, a
/// `deep` look takes in each file, because one may be edited in place.
fn signature(node: &Node, deep: bool) -> u64 {
    let mut hasher = DefaultHasher::new();
    let paths = &node.paths;
    let database = paths.pmxcfs_database();
    let journal = database.with_extension("db-wal");
    for path in [&database, &journal, &paths.local_node(), &paths.pools_file(), &paths.node_file(&node.name)] {
        stat(path).hash(&mut hasher);
    }
    files::read_limited(&paths.vmlist(), 16 << 20).ok().hash(&mut hasher);
    let configs = [GuestKind::Qemu, GuestKind::Lxc].map(|kind| paths.local_config_dirs(&node.name, kind));
    let directories: BTreeSet<_> =
        configs.into_iter().flatten().chain([paths.registry(), paths.guest_files(), paths.pool_files()]).collect();
    for directory in &directories {
        stat(directory).hash(&mut hasher);
        if deep && !journal.exists() {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let mut stats: Vec<_> = entries.map(|entry| (entry.file_name(), stat(&entry.path()))).collect();
            stats.sort_unstable();
            stats.hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn stat(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let meta = fs::symlink_metadata(path).ok()?;
    Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}
