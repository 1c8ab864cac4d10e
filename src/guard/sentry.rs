//! The sentry: a thread that cuts the guests off within milliseconds while the filter does not stand, and tells the
//! service manager that the guard is alive. It waits for no look, no lock and no file.
//!
//! Every state of our tables counts in which the rules are not those that were loaded: no table, no rules, a chain that
//! was emptied, an `accept` in front of the others, a table that is dormant. What the sentry puts up the next look takes
//! down, whatever comes of it: guests that are cut off for long are no better than guests that are not protected.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{GuardError, failed};
use crate::host::service::ServiceManager;
use crate::model::problem::chain;
use crate::paths::Paths;
use crate::ruleset::Table;
use crate::system::run::RunState;
use crate::system::{Fence, FilterMonitor, KernelError, Nftables, Reference};

/// How long the guard may be busy with one thing before it counts as stuck: the sum of all that a look waits for.
const BUSY_LIMIT: Duration = Duration::from_secs(120);

/// How often the thread wakes up without a reason.
const INTERVAL: Duration = Duration::from_secs(10);

/// In place of a moment.
const NOT_READY: u64 = u64::MAX;
const RESTS: u64 = u64::MAX - 1;

/// The thread's other side.
#[derive(Debug)]
pub(super) struct Sentry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    paths: Paths,
    post: Mutex<Post>,
    started: Instant,
    /// Since when the guard has been busy, in milliseconds since it started; or that it rests, or is not ready yet.
    busy_since: AtomicU64,
}

#[derive(Debug)]
struct Post {
    nftables: Nftables,
    /// What should stand; nothing before the first look.
    expected: Option<(BTreeSet<Table>, Reference)>,
    /// The last transaction that was judged.
    generation: Option<u32>,
    fence: Option<Fence>,
}

impl Sentry {
    /// Starts the thread, in the network namespace of the caller.
    pub(super) fn start(paths: &Paths) -> Result<Self, GuardError> {
        let nftables = Nftables::open().map_err(KernelError::from)?;
        let post = Mutex::new(Post { nftables, expected: None, generation: None, fence: None });
        let (paths, started, busy_since) = (paths.clone(), Instant::now(), AtomicU64::new(NOT_READY));
        let shared = Arc::new(Shared { paths, post, started, busy_since });
        let monitor = FilterMonitor::open()?;
        let manager = ServiceManager::of_environment().map_err(failed("talk to the service manager"))?;
        let own = Arc::clone(&shared);
        let body = move || own.watch(monitor, &manager);
        thread::Builder::new().name("sentry".to_owned()).spawn(body).map_err(failed("start a thread"))?;
        Ok(Self { shared })
    }

    /// The guard is ready, and waits for something to happen.
    pub(super) fn guard_rests(&self) {
        self.shared.busy_since.store(RESTS, Ordering::Relaxed);
    }

    /// Something has happened.
    pub(super) fn guard_works(&self) {
        let now = self.shared.now();
        let set = |since| (since == RESTS).then_some(now);
        let _ = self.shared.busy_since.fetch_update(Ordering::Relaxed, Ordering::Relaxed, set);
    }

    /// Puts the fence up if the filter does not stand.
    pub(super) fn judge(&self) {
        self.shared.judge();
    }
}

/// What cuts the guests off while the filter does not stand.
pub(super) trait Barrier {
    /// From now on these tables should stand, with these rules.
    fn expect(&self, tables: BTreeSet<Table>, reference: Reference);

    /// Other rules are about to be loaded: until they are known nobody is cut off for them.
    fn stand_by(&self);

    /// Whether the guests are cut off.
    fn is_fenced(&self) -> bool;

    /// Lets them through again.
    fn lift(&self);
}

impl Barrier for Sentry {
    fn expect(&self, tables: BTreeSet<Table>, reference: Reference) {
        self.shared.post().expected = Some((tables, reference));
    }

    fn stand_by(&self) {
        self.shared.post().expected = None;
    }

    fn is_fenced(&self) -> bool {
        self.shared.post().fence.is_some()
    }

    fn lift(&self) {
        self.shared.post().fence = None;
    }
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn post(&self) -> MutexGuard<'_, Post> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever holds the post while it looks also puts the fence up: a guard that has repaired the filter meanwhile takes
    /// it down afterwards, never before.
    fn judge(&self) {
        let mut post = self.post();
        if post.fence.is_some() || post.expected.is_none() {
            return;
        }
        match post.is_open(&self.paths) {
            Ok(false) => {}
            Ok(true) => match Fence::raise() {
                Ok(fence) => post.fence = Some(fence),
                Err(error) => log::warn!("{}", chain(&error)),
            },
            Err(error) => log::debug!("sentry: {}", chain(&error)),
        }
    }

    fn watch(&self, mut monitor: FilterMonitor, manager: &ServiceManager) {
        let watchdog = manager.watchdog();
        let mut told = Instant::now();
        loop {
            let due = |interval: Duration| {
                interval.checked_sub(told.elapsed()).filter(|left| !left.is_zero()).unwrap_or(interval / 2)
            };
            let wait = watchdog.map_or(INTERVAL, due).min(INTERVAL);
            let wait = PollTimeout::from(u16::try_from(wait.as_millis() + 1).unwrap_or(u16::MAX));
            // What cannot be waited for is looked at later; the guard hears of it in its own way, too.
            let _ = poll(&mut [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)], wait);
            if monitor.is_touched() {
                self.judge();
            }
            let is_due = watchdog.is_some_and(|interval| told.elapsed() >= interval);
            let is_well = match self.busy_since.load(Ordering::Relaxed) {
                NOT_READY => false,
                RESTS => true,
                since => u128::from(self.now().saturating_sub(since)) < BUSY_LIMIT.as_millis(),
            };
            if is_due && is_well {
                manager.tell("WATCHDOG=1");
                told = Instant::now();
            }
        }
    }
}

impl Post {
    fn is_open(&mut self, paths: &Paths) -> Result<bool, KernelError> {
        let Some((tables, reference)) = self.expected.clone() else { return Ok(false) };
        let generation = self.nftables.generation()?;
        if self.generation.replace(generation) == Some(generation) {
            return Ok(false);
        }
        for table in tables {
            // A command may have loaded other rules of ours: those of another release, or with another log group.
            let accepted = || [Some(reference), RunState::latest_reference(paths)].into_iter().flatten();
            let accepted = accepted().map(|reference| reference.fingerprint(table)).collect();
            if self.nftables.is_open(table, &accepted)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
