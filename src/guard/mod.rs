//! The guard: makes the node follow the registry and the guests as long as it runs, by the path that `apply` takes.
//!
//! Hooks are not called when a guest moves away or has arrived, when a NIC is plugged or its firewall switched, when a
//! container reboots, when QEMU dies unseen, when a guest is destroyed, or when somebody flushes the ruleset. So the
//! guard listens to the kernel, looks at the files of the cluster twice a second, and repairs. When it stops, what it
//! did stays.
//!
//! One loop, which never waits for the cluster file system: see [`files`].

pub mod alerts;
pub mod asker;
pub mod courier;
pub mod files;
pub mod listener;
pub mod page;
pub mod sayings;
pub mod schedule;
mod sentry;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::audit::{self, Change};
use crate::conflict::{Conflict, Files, in_files};
use crate::host::service::{Request, ServiceManager, Signals};
use crate::links::Links;
use crate::model::IfName;
use crate::plan::{self, Event, Failed, NetState, Problem, Rules, Step, latest};
use crate::reconcile::{Greetings, Mode, Node, ReconcileError, Report, Sources, Trust, reference, send_greetings};
use crate::registry::document::NodeFile;
use crate::ruleset::{Backend, Table, Variant};
use crate::store::journal::{self, Durability};
use crate::system::claims;
use crate::system::run::{GuardNote, RunError, RunState};
use crate::system::tally::Tallies;
use crate::system::{FilterError, Kernel, KernelError, Monitor, Reference};
use crate::view::exposition::exposition;
use crate::view::{self, Comparison, History, NodeFacts, View, seconds};
use alerts::Message;
use asker::Asker;
use files::{Answer, Ask, Reader};
use listener::{Listener, Subject};
use page::Page;
use sayings::{Line, Sayings, drift};
use schedule::{Cause, Schedule};
use sentry::Sentry;

/// How long a look waits for a hook or a command that changes the node: longer than a hook takes at all.
const LOCK_LIMIT: Duration = Duration::from_secs(11);

/// How long it does while the fence stands, and guests are cut off.
const FENCED_LOCK_LIMIT: Duration = Duration::from_secs(1);

/// How long the first look may wait for the cluster file system.
const FIRST_READ_LIMIT: Duration = Duration::from_secs(20);

/// How long another look may: hooks wait meanwhile.
const READ_LIMIT: Duration = Duration::from_millis(200);

/// Between two gatherings of metrics, unless the node's file says otherwise.
pub const METRICS_INTERVAL: Duration = Duration::from_secs(15);

/// Frames dropped from one port in an hour that are too many, unless the node's file says otherwise.
pub const ATTEMPTS: u64 = 1000;
/// How often iptables is asked whether it has changed, which takes half a dozen processes.
const CHAINS_INTERVAL: Duration = Duration::from_secs(2);

/// The same where nf_tables tells of it, and only the sets of `ipset` change in silence.
const TOLD_CHAINS_INTERVAL: Duration = Duration::from_secs(10);

/// How often the node's neighbour table is asked where the gateways are.
const GATEWAYS_INTERVAL: Duration = Duration::from_secs(2);

/// When guests are told again where their gateway is.
const GREETING_PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_millis(500), Duration::from_secs(2)];

/// A cluster file system that does not answer for so long is in trouble.
const SILENCE_LIMIT: Duration = Duration::from_secs(5);

/// Why the guard ended.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// A descriptor could not be had or waited for.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The kernel does not tell what changes.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The rules have to be compiled, which the service itself is not allowed to do.
    #[error("other rules are wanted: starting again to have them compiled")]
    Uncompiled,
}

fn chains_interval(backend: Backend) -> Duration {
    match backend {
        Backend::Iptables { variant: Variant::Nft, .. } => TOLD_CHAINS_INTERVAL,
        Backend::Iptables { .. } | Backend::Nftables => CHAINS_INTERVAL,
    }
}

fn failed<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> GuardError {
    move |source| GuardError::Io { action, source: source.into() }
}

/// Runs until a signal ends it.
pub fn run(node: Node, listen: Option<SocketAddr>) -> Result<(), GuardError> {
    let signals = Signals::take().map_err(failed("wait for signals"))?;
    let manager = ServiceManager::of_environment().map_err(failed("talk to the service manager"))?;
    let monitor = Monitor::open()?;
    let sentry = Sentry::start(&node.paths)?;
    let reader = Reader::start(node.clone()).map_err(failed("start a thread"))?;
    let asker = Asker::new().map_err(failed("make a pair of sockets"))?;
    let page = listen.and_then(|address| {
        // Nobody is protected less because nobody can look.
        let failed =
            |error: &io::Error| log::error!("cannot listen at {address} ({error}): the metrics are not served");
        Page::serve(address).inspect_err(failed).ok()
    });
    let mut sayings = Sayings::default();
    sayings.alerts = RunState::note(&node.paths, "alerts-said").unwrap_or_default();
    let history = RunState::note(&node.paths, "history").unwrap_or_default();
    let mut guard = Guard {
        page,
        history,
        gathered: Duration::ZERO,
        problems: Vec::new(),
        notes: Vec::new(),
        in_files: Vec::new(),
        unexamined: true,
        unwritten: None,
        node,
        reader,
        asker,
        started: Instant::now(),
        sources: None,
        desired: NetState::default(),
        kernel: None,
        sentry,
        generation: 0,
        is_exact: false,
        changed_by: None,
        chains_mark: None,
        chains_due: Duration::ZERO,
        gateways_due: Duration::ZERO,
        schedule: Schedule::new(),
        sayings,
        note: GuardNote { pid: std::process::id(), ..GuardNote::default() },
        manager,
        listener: None,
    };
    guard.run(monitor, &signals)
}

struct Guard {
    node: Node,
    reader: Reader,
    asker: Asker,
    started: Instant,
    /// The files as they were read last.
    sources: Option<Sources>,
    /// What the kernel was brought to by the last look.
    desired: NetState,
    kernel: Option<Kernel>,
    /// Fences the guests in from the moment when the filter does not stand to the end of the next look.
    sentry: Sentry,
    /// The last transaction in nf_tables that was looked at.
    generation: u32,
    /// Whether the filter was exactly as desired after it.
    is_exact: bool,
    /// Who changed our table since the last look.
    changed_by: Option<String>,
    /// By what a change of iptables is known, and when to look for one.
    chains_mark: Option<u64>,
    chains_due: Duration,
    /// When to look for gateways that have moved.
    gateways_due: Duration,
    schedule: Schedule,
    sayings: Sayings,
    note: GuardNote,
    manager: ServiceManager,
    /// Listens to what the filter drops, if this node's file wants that.
    listener: Option<Listener>,
    /// Where the metrics are served.
    page: Option<Page>,
    /// What the rules had counted before.
    history: History,
    /// When metrics were gathered last.
    gathered: Duration,
    /// What the last look found.
    problems: Vec<Problem>,
    notes: Vec<Problem>,
    /// Who claims what somebody else has, by the files as they were examined last.
    in_files: Vec<Conflict>,
    /// They have changed since.
    unexamined: bool,
    /// Why the metrics could not be written, once it was said.
    unwritten: Option<io::ErrorKind>,
}

impl Guard {
    fn run(&mut self, mut monitor: Monitor, signals: &Signals) -> Result<(), GuardError> {
        let mut is_ready = false;
        loop {
            let now = self.now();
            let sleep = self.schedule.left(now).min((self.gathered + self.interval()).saturating_sub(now));
            let sleep = if self.chains_mark.is_some() { sleep.min(self.chains_due.saturating_sub(now)) } else { sleep };
            let sleep =
                if self.is_bound_to_gateways() { sleep.min(self.gateways_due.saturating_sub(now)) } else { sleep };
            if is_ready {
                self.sentry.guard_rests();
            }
            self.wait(&monitor, signals, sleep)?;
            self.sentry.guard_works();
            match signals.drain().map_err(failed("read a signal"))? {
                Some(Request::Stop) => {
                    self.manager.tell("STOPPING=1");
                    self.gather(false);
                    log::info!("guard: stopped; what protects the guests stays in place");
                    return Ok(());
                }
                Some(Request::Look) => self.wake(Cause::Request),
                None => {}
            }
            if self.reader.was_rung() {
                self.wake(Cause::Files);
            }
            if self.asker.was_answered() {
                self.wake(Cause::Network);
            }
            let events = monitor.drain()?;
            self.hear(events);
            self.look_at_chains();
            self.look_at_gateways();
            if self.schedule.left(self.now()).is_zero() {
                let is_done = self.look()?;
                if let Some(sources) = &self.sources {
                    self.asker.ask(&self.node.paths, plan::questions(sources.inputs()));
                }
                if is_done && !is_ready {
                    is_ready = true;
                    log::info!("guard: watching node {}, {}", self.node.name, self.summary());
                    self.manager.tell("READY=1");
                }
                self.manager.tell(&format!("STATUS={}", self.summary()));
                self.write_home();
            }
            if is_ready && (self.gathered.is_zero() || self.now() >= self.gathered + self.interval()) {
                self.gather(true);
                self.write_home();
            }
        }
    }

    /// What the node's file of the registry says, if it can be read.
    fn settings(&self) -> Option<&NodeFile> {
        self.sources.as_ref().and_then(|sources| sources.inputs().registry.node.as_ref())
    }

    /// Between two gatherings of metrics.
    fn interval(&self) -> Duration {
        let seconds = self.settings().and_then(|file| file.metrics_seconds).filter(|seconds| *seconds > 0);
        seconds.map_or(METRICS_INTERVAL, Duration::from_secs)
    }

    /// Who claims what somebody else has, as far as the guard sees it: the files that it knows, and what was noted of the
    /// network. It looks at no file of others, because their file system may hang.
    fn conflicts(&mut self) -> Vec<Conflict> {
        let Some(inputs) = self.sources.as_ref().map(Sources::inputs) else { return Vec::new() };
        if self.unexamined {
            self.unexamined = false;
            let own = inputs.links.addresses().collect();
            let guests = inputs.guests.iter().map(|(vmid, place)| (*vmid, place.config.clone())).collect();
            self.in_files = in_files(&Files { registry: inputs.registry.clone(), guests, own, ..Files::default() });
        }
        let here = inputs.guests.iter().filter(|(_, place)| place.node == inputs.node).map(|(vmid, _)| *vmid).collect();
        let claims = claims::load(&self.node.paths);
        let mut conflicts = self.in_files.clone();
        conflicts.extend(claims.conflicts(&inputs.registry, &here, journal::now()));
        claims.mark(&mut conflicts);
        conflicts.retain(|conflict| !conflict.acknowledged);
        conflicts
    }

    /// Reads what the rules have counted, and leaves it with all else that there is to know where Prometheus finds it.
    fn gather(&mut self, runs: bool) {
        self.gathered = self.now();
        let mut trouble = Vec::new();
        let tallies = match &mut self.kernel {
            Some(kernel) => kernel.tallies(),
            None => Kernel::open(Reference::default()).and_then(|mut kernel| kernel.tallies()),
        };
        let tallies = tallies.unwrap_or_else(|error| {
            trouble.push(format!("the counters could not be read: {}", chain(&error)));
            Tallies::default()
        });
        let now = seconds();
        let conflicts = self.conflicts();
        self.sayings.conflicts(&conflicts, now);
        if self.history.note(now, &tallies) {
            RunState::set_note(&self.node.paths, "history", &self.history);
        }
        let comparison = Comparison { steps: &[], problems: &self.problems, notes: &self.notes };
        let known = NodeFacts {
            inputs: self.sources.as_ref().map(Sources::inputs),
            comparison: self.note.trouble.is_none().then_some(comparison),
            tallies: &tallies,
            history: &self.history,
            guard: Some(view::GuardStatus { runs, note: self.note.clone() }),
            conflicts: conflicts.len(),
            unreadable: self.sources.as_ref().map(Sources::unreadable).unwrap_or_default(),
            trouble,
        };
        let view = View::of(&self.node.name, known);
        let settings = self.settings();
        let threshold = settings.and_then(|file| file.alert_attempts).unwrap_or(ATTEMPTS);
        let is_wanted = settings.is_none_or(|file| file.metrics_seconds != Some(0));
        let directory = settings.and_then(|file| file.metrics_directory.clone());
        say(self.sayings.attempts(&view.attempts(), threshold, now));
        if !is_wanted {
            return;
        }
        let text = exposition(&view);
        if let Some(page) = &self.page {
            page.show(&text);
        }
        let directory = match directory {
            Some(directory) => directory,
            None => Some(self.node.paths.textfiles()).filter(|directory| directory.is_dir()).unwrap_or_default(),
        };
        if directory.as_os_str().is_empty() {
            return;
        }
        let path = directory.join("pve-public-ip.prom");
        match crate::host::files::publish(&path, text.as_bytes()) {
            Ok(()) => self.unwritten = None,
            Err(error) if self.unwritten == Some(error.kind()) => {}
            Err(error) => {
                log::warn!("cannot write `{}`: {error}", path.display());
                log::warn!(
                    "hint: the service may only write where its unit lets it: `systemctl edit pve-public-ip`, ReadWritePaths="
                );
                self.unwritten = Some(error.kind());
            }
        }
    }

    /// Leaves what the administrator has to know for whoever brings it.
    fn write_home(&mut self) {
        let now = seconds();
        let Some((alerts, more)) = self.sayings.alerts.due(now) else { return };
        RunState::set_note(&self.node.paths, "alerts-said", &self.sayings.alerts);
        let settings = self.settings();
        let mail = settings.and_then(|file| file.alert_mail.clone()).unwrap_or_else(|| "root".to_owned());
        let exec = settings.and_then(|file| file.alert_exec.clone());
        let node = self.node.name.to_string();
        let message = Message { version: 1, node, alerts, more, mail: Some(mail), exec };
        if let Err(error) = courier::leave(&self.node.paths, &message, now) {
            log::warn!("a message to the administrator is lost: {error}");
            return;
        }
        if !self.manager.is_there() {
            // There is nobody else who would.
            let paths = self.node.paths.clone();
            drop(thread::Builder::new().spawn(move || courier::deliver(&paths)));
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn wake(&mut self, cause: Cause) {
        self.schedule.wake(cause, self.now());
    }

    fn wait(&self, monitor: &Monitor, signals: &Signals, limit: Duration) -> Result<(), GuardError> {
        let [transactions, changes] = monitor.descriptors();
        let asker = self.asker.descriptor();
        let mut descriptors = [transactions, changes, signals.descriptor(), self.reader.descriptor(), asker]
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
        // Rounded up: to wake up too early is to wake up twice.
        let limit = limit.as_micros().div_ceil(1000);
        let limit = PollTimeout::from(u16::try_from(limit).unwrap_or(u16::MAX));
        match poll(&mut descriptors, limit) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(failed("wait for events")(errno)),
        }
    }

    /// Wakes up for what contradicts the last look.
    fn hear(&mut self, events: Vec<Event>) {
        let none = Links::default();
        let links = self.sources.as_ref().map_or(&none, Sources::links);
        let exits = self.sources.as_ref().and_then(Sources::exits);
        let known = plan::LastLook { desired: &self.desired, links, exits, generation: self.generation };
        let mut causes = BTreeSet::new();
        let mut changed = Vec::new();
        for event in latest(events).into_iter().filter(|event| known.is_contradicted_by(event)) {
            log::debug!("heard: {event:?}");
            match event {
                Event::Filter { by, .. } => {
                    causes.insert(Cause::Filter);
                    self.changed_by = Some(by);
                }
                Event::Chains => self.chains_due = self.now().min(self.chains_due),
                Event::Lost => drop(causes.insert(Cause::Filter)),
                Event::Link(name, _) | Event::LinkGone(name) => {
                    causes.insert(Cause::Network);
                    changed.push(name);
                }
                _ => drop(causes.insert(Cause::Network)),
            }
        }
        for device in changed {
            // Nobody is to be blamed for that.
            self.desired.forget_what_hangs_on(device);
        }
        if causes.contains(&Cause::Filter) {
            self.sentry.judge();
        }
        for cause in causes {
            self.wake(cause);
        }
    }

    /// Whether there are gateways whose MAC is wanted.
    fn is_bound_to_gateways(&self) -> bool {
        self.kernel.is_some()
            && self.sources.as_ref().is_some_and(|sources| !sources.inputs().found_gateways.is_empty())
    }

    /// The kernel is not asked to tell of neighbours, of which a guest can make as many as it likes; so the few that matter
    /// are looked up now and then.
    fn look_at_gateways(&mut self) {
        if !self.is_bound_to_gateways() || self.now() < self.gateways_due {
            return;
        }
        self.gateways_due = self.now() + GATEWAYS_INTERVAL;
        let (Some(kernel), Some(sources)) = (&mut self.kernel, &self.sources) else { return };
        let known = &sources.inputs().found_gateways;
        let now = kernel.found_gateways(&known.keys().copied().collect(), sources.links());
        // One that has just fallen silent is no news; what cannot be read is found out by the look.
        if now.is_ok_and(|now| now.iter().any(|(gateway, mac)| mac.is_some() && known.get(gateway) != Some(mac))) {
            self.wake(Cause::Network);
        }
    }

    /// iptables tells nobody when it changes, so it is asked now and then.
    fn look_at_chains(&mut self) {
        let (Some(mark), Some(kernel), Some(sources)) = (self.chains_mark, &self.kernel, &self.sources) else { return };
        if self.now() < self.chains_due {
            return;
        }
        // What cannot be read is found out by the look.
        let is_same = kernel.chains_mark(sources.backend()).is_ok_and(|now| now == Some(mark));
        self.chains_due = self.now() + chains_interval(sources.backend());
        if !is_same {
            self.wake(Cause::Filter);
        }
    }

    /// Compares and repairs. Says whether that came to an end, be it a bad one.
    fn look(&mut self) -> Result<bool, GuardError> {
        let (began, cause) = (self.now(), self.schedule.cause());
        let outcome = self.compare(cause);
        // Whatever came of it: guests that are cut off for long are no better than guests that are not protected.
        self.sentry.lift();
        let lines = match &outcome {
            Ok(Some(report)) => self.well(report),
            Ok(None) => Vec::new(),
            Err(ReconcileError::Kernel(KernelError::Filter(FilterError::Namespace(_)))) if self.manager.is_there() => {
                // The unit does it before it starts the service.
                return Err(GuardError::Uncompiled);
            }
            Err(error) => {
                // It may be the connection.
                self.kernel = None;
                let is_kernel = matches!(error, ReconcileError::Kernel(_));
                self.in_trouble(&chain(error), error.hint().as_deref(), is_kernel)
            }
        };
        say(lines);
        let ended = self.now();
        match &outcome {
            // What nobody refused this time fails for a reason that tells when it is over.
            Ok(Some(report)) => self.schedule.looked(began, ended, !report.was_refused),
            Ok(None) => self.schedule.put_off(ended),
            Err(_) => self.schedule.looked(began, ended, false),
        }
        self.note.looks += 1;
        self.note.last_look = seconds();
        self.note.last_look_ms = u64::try_from(ended.saturating_sub(began).as_millis()).unwrap_or(u64::MAX);
        RunState::set_note(&self.node.paths, "guard", &self.note);
        log::debug!("looked because of {cause:?} for {} ms", self.note.last_look_ms);
        Ok(!matches!(outcome, Ok(None)))
    }

    /// `None`: the files were not read in time; what is missing by the last known ones was put back all the same.
    fn compare(&mut self, cause: Cause) -> Result<Option<Report>, ReconcileError> {
        let ask = if matches!(cause, Cause::Timer | Cause::Request) { Ask::All } else { Ask::Changed };
        // Now and then, trust nothing.
        self.is_exact &= ask == Ask::Changed;
        if self.sources.is_none() {
            // Without the lock, so that hooks go on meanwhile; asked for again below, when nobody can change the node.
            if let Some(Answer::News(sources)) = self.reader.ask(ask, FIRST_READ_LIMIT) {
                self.take(*sources);
            }
        }
        let limit = if self.sentry.is_fenced() { FENCED_LOCK_LIMIT } else { LOCK_LIMIT };
        let run = match RunState::lock(&self.node.paths, limit) {
            Err(RunError::Busy(waited)) => return self.without_lock(waited),
            locked => locked?,
        };
        if self.sentry.is_fenced() {
            // What is known is good enough to close what is open; whether it still holds can be asked afterwards.
            self.restore(&run)?;
            self.sentry.lift();
        }
        match self.reader.ask(ask, READ_LIMIT) {
            Some(Answer::News(sources)) => self.take(*sources),
            Some(Answer::Same) => {}
            Some(Answer::Failed(error)) => {
                self.restore(&run)?;
                return Err(error);
            }
            None => {
                if cause > Cause::Files {
                    self.restore(&run)?;
                }
                return match self.reader.silent_for().filter(|silence| *silence >= SILENCE_LIMIT) {
                    Some(_) => Err(ReconcileError::Silent(self.node.paths.etc_pve())),
                    None => Ok(None),
                };
            }
        }
        self.reconcile(&run, Trust::Whole)
    }

    /// Somebody has held the lock for longer than any hook does: it may hang in a read of the cluster file system. What
    /// is missing is put back without it, which cannot undo what the other one does.
    fn without_lock(&mut self, waited: Duration) -> Result<Option<Report>, ReconcileError> {
        self.restore(&RunState::unlocked(&self.node.paths))?;
        Err(RunError::Busy(waited).into())
    }

    /// Puts back what is missing by the files as they were known last.
    fn restore(&mut self, run: &RunState) -> Result<(), ReconcileError> {
        if self.sources.is_none() {
            // It has just started, and nobody has read the files since: this node's copies of them are as good.
            let Some(sources) = self.node.remembered_sources(run) else { return Ok(()) };
            log::warn!(
                "guard: {} cannot be read: until then by what was known last",
                self.node.paths.etc_pve().display()
            );
            self.take(sources);
        }
        self.reconcile(run, Trust::OldButSafe).map(drop)
    }

    /// Listens to this, and to nothing else.
    fn watch(&mut self, subject: Option<Subject>) {
        if self.listener.as_ref().map(|listener| &listener.subject) == subject.as_ref() {
            return;
        }
        self.listener = None;
        match subject.map(|subject| Listener::start(&self.node.paths, subject)).transpose() {
            Ok(listener) => self.listener = listener,
            Err(error) => log::warn!("guard: conflicts are not watched: {}", chain(&error)),
        }
    }

    /// From now on by these files.
    fn take(&mut self, sources: Sources) {
        self.watch(sources.watched());
        if self.sources.as_ref().is_some_and(|known| known.log_group() != sources.log_group()) {
            // Other rules are wanted; to load them is no repair.
            self.kernel = None;
            self.sentry.stand_by();
            self.desired.rules = Rules::Different;
            self.desired.routed_rules = self.desired.routed_rules.min(Rules::Different);
        }
        self.sources = Some(sources);
        self.unexamined = true;
    }

    fn reconcile(&mut self, run: &RunState, trust: Trust) -> Result<Option<Report>, ReconcileError> {
        let Some(sources) = &mut self.sources else { return Ok(None) };
        let mut kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => Kernel::open(reference(run, sources.log_group())?)?.noting(run),
        };
        let before = kernel.generation()?;
        let backend = sources.backend();
        // Of an iptables that cannot be asked nothing is known; the look itself says why, and does the rest.
        let mark = kernel.chains_mark(backend).unwrap_or_default();
        let is_as_left = before == self.generation && mark == self.chains_mark;
        let left = (self.is_exact && is_as_left).then_some(&mut self.desired);
        self.is_exact = false;
        let mut report = self.node.reconcile_from(run, &mut kernel, sources, trust, left, Mode::Apply)?;
        let is_same = backend == sources.backend() && !report.steps.iter().any(Step::is_of_chains);
        self.chains_mark = if is_same { mark } else { kernel.chains_mark(sources.backend()).unwrap_or_default() };
        self.chains_due = self.started.elapsed() + chains_interval(sources.backend());
        let own = report.steps.iter().filter(|step| step.is_transaction()).count();
        let after = kernel.generation()?;
        // If there were others meanwhile, they have to be looked at.
        let is_alone = usize::try_from(after.wrapping_sub(before)).is_ok_and(|count| count == own);
        self.generation = if is_alone { after } else { before };
        self.is_exact = is_alone && trust == Trust::Whole && sources.are_whole() && report.failed.is_empty();
        let reference = kernel.reference();
        // It may be the connection.
        self.kernel = Some(kernel).filter(|_| !report.was_refused);
        let changed_by = self.changed_by.take();
        if self.note.looks > 0 {
            let drift = drift(&report.steps, &self.desired, &report.desired);
            self.note.repairs += u64::try_from(drift.len()).unwrap_or(u64::MAX);
            let lines = self.sayings.repaired(&drift, changed_by.as_deref(), seconds());
            let changes = lines
                .iter()
                .map(|(_, text)| Change::said(audit::Event::Repaired, text.trim_start_matches("repaired: ")));
            self.node.store.journal.record(changes.collect(), Durability::Soon);
            say(lines);
        }
        for step in &report.steps {
            log::debug!("{step}");
        }
        if !report.steps.is_empty() {
            self.note.last_change = seconds();
        }
        self.desired = std::mem::take(&mut report.desired);
        let tables = Table::ALL.into_iter().filter(|table| self.desired.rules_of(*table) > Rules::Absent);
        self.sentry.expect(tables.collect(), reference);
        Ok(Some(report))
    }

    fn well(&mut self, report: &Report) -> Vec<Line> {
        Self::greet_again(&report.greetings);
        for vmid in &report.arrived {
            log::info!("guard: guest {vmid} has arrived and was announced");
        }
        self.note.trouble = None;
        self.note.guests = report.presence.len();
        self.note.problems = report.problems.len();
        self.problems.clone_from(&report.problems);
        self.notes.clone_from(&report.notes);
        let mut lines = self.sayings.trouble(None, seconds());
        let refused = if report.was_refused { report.failed.as_slice() } else { &[] };
        let refused: Vec<Problem> = refused.iter().map(Failed::problem).collect();
        lines.extend(self.sayings.problems(&report.problems, &refused, seconds()));
        lines
    }

    /// A guest that arrives goes on a moment after its configuration has moved, and may have missed it.
    fn greet_again(greetings: &Greetings) {
        if greetings.is_empty() {
            return;
        }
        let greetings = greetings.clone();
        let again = move || {
            for pause in GREETING_PAUSES {
                thread::sleep(pause);
                // It may have gone by now.
                let there = |port: &IfName| nix::net::if_::if_nametoindex(port.as_str()).is_ok();
                send_greetings(&greetings.clone().into_iter().filter(|(port, _)| there(port)).collect());
            }
        };
        if let Err(error) = thread::Builder::new().name("greetings".to_owned()).spawn(again) {
            log::warn!("guard: guests are told only once where their gateway is: {error}");
        }
    }

    fn in_trouble(&mut self, text: &str, hint: Option<&str>, by_kernel: bool) -> Vec<Line> {
        self.note.trouble = Some(text.to_owned());
        if by_kernel {
            self.sayings.refused(text, hint, seconds())
        } else {
            self.sayings.trouble(Some((text, hint)), seconds())
        }
    }

    fn summary(&self) -> String {
        match (&self.note.trouble, self.note.guests) {
            (Some(trouble), _) => trouble.clone(),
            (None, 0) => "no guest is bound".to_owned(),
            (None, 1) => "1 guest is bound".to_owned(),
            (None, guests) => format!("{guests} guests are bound"),
        }
    }
}

fn say(lines: Vec<Line>) {
    for (level, text) in lines {
        log::log!(level, "{text}");
    }
}

/// The error and what caused it, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
