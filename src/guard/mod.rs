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
mod metrics;
mod ports;
mod repair;
mod reporter;
pub mod sayings;
pub mod schedule;
mod sentry;
#[cfg(test)]
mod tests;
mod timers;

use std::io;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::host::service::{Request, ServiceManager, Signals};
use crate::model::IfName;
use crate::model::problem::chain;
use crate::plan::{self, Event};
use crate::reconcile::{Greetings, Node, ReconcileError, Sources, count_drops_of_ports};
use crate::registry::document::NodeFile;
use crate::system::{FilterError, KernelError, Monitor, packet};
use asker::Asker;
use files::Reader;
use listener::Listener;
use metrics::Metrics;
pub use metrics::{ATTEMPTS, METRICS_INTERVAL};
use ports::Ports;
use repair::Repairer;
use reporter::Reporter;
use schedule::Cause;
use sentry::Sentry;
use timers::Timers;

/// When guests are told again where their gateway is.
const GREETING_PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_millis(500), Duration::from_secs(2)];

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

fn failed<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> GuardError {
    move |source| GuardError::Io { action, source: source.into() }
}

/// Runs until a signal ends it.
pub fn run(node: Node) -> Result<(), GuardError> {
    let signals = Signals::take().map_err(failed("wait for signals"))?;
    let manager = ServiceManager::of_environment().map_err(failed("talk to the service manager"))?;
    let monitor = Monitor::open()?;
    let sentry = Sentry::start(&node.paths)?;
    let mut guard = Guard {
        reader: Reader::start(node.clone()).map_err(failed("start a thread"))?,
        ports: Ports::default(),
        asker: Asker::new().map_err(failed("make a pair of sockets"))?,
        sentry,
        listener: None,
        timers: Timers::new(),
        repairer: Repairer::new(node.clone()),
        metrics: Metrics::new(&node),
        reporter: Reporter::new(&node, manager),
        node,
    };
    guard.run(monitor, &signals)
}

struct Guard {
    node: Node,
    /// Reads the cluster's files.
    reader: Reader,
    /// Asks for the routers behind the uplinks.
    asker: Asker,
    /// Sees to the programs at guests' ports.
    ports: Ports,
    /// Fences the guests in from the moment when the filter does not stand to the end of the next look.
    sentry: Sentry,
    /// Listens to what the filter drops, if this node's file wants that.
    listener: Option<Listener>,
    /// When to do what.
    timers: Timers,
    /// What is known of the node, and how it is brought in line.
    repairer: Repairer,
    /// What is counted.
    metrics: Metrics,
    /// What is said.
    reporter: Reporter,
}

impl Guard {
    fn run(&mut self, mut monitor: Monitor, signals: &Signals) -> Result<(), GuardError> {
        let mut is_ready = false;
        loop {
            let (chains, gateways) = (self.repairer.relies_on_chains(), self.repairer.relies_on_gateways());
            let sleep = self.timers.left(chains, gateways, Metrics::interval(self.settings()));
            if is_ready {
                self.sentry.guard_rests();
            }
            self.wait(&monitor, signals, sleep)?;
            self.sentry.guard_works();
            match signals.drain().map_err(failed("read a signal"))? {
                Some(Request::Stop) => {
                    self.reporter.manager.tell("STOPPING=1");
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
            self.weigh(monitor.drain()?);
            if self.timers.schedule.left(self.timers.now()).is_zero() {
                let is_done = self.look()?;
                if let Some(sources) = self.repairer.sources() {
                    self.asker.ask(&self.node.paths, plan::questions(sources.inputs()));
                }
                if is_done && !is_ready {
                    is_ready = true;
                    log::info!("guard: watching node {}, {}", self.node.name, self.reporter.summary());
                    self.reporter.manager.tell("READY=1");
                }
                self.reporter.manager.tell(&format!("STATUS={}", self.reporter.summary()));
                self.send_alerts();
            }
            if is_ready && self.timers.are_metrics_due(Metrics::interval(self.settings())) {
                self.gather(true);
                self.send_alerts();
            }
        }
    }

    /// What the node's file of the registry says, if it can be read.
    fn settings(&self) -> Option<&NodeFile> {
        self.repairer.sources().and_then(|sources| sources.inputs().registry.node.as_ref())
    }

    fn gather(&mut self, runs: bool) {
        self.timers.gathered();
        let names = self.repairer.sources().map(|sources| sources.links().names()).unwrap_or_default();
        let tallies = self.repairer.tallies().map(|mut tallies| {
            count_drops_of_ports(&self.node.paths, &mut tallies, &names);
            tallies
        });
        let files = (self.repairer.sources(), self.repairer.edition);
        self.metrics.gather(&self.node, files, tallies, &mut self.reporter, runs);
    }

    fn send_alerts(&mut self) {
        let settings = self.repairer.sources().and_then(|sources| sources.inputs().registry.node.as_ref());
        self.reporter.send_alerts(&self.node, settings);
    }

    fn wake(&mut self, cause: Cause) {
        self.timers.schedule.wake(cause, self.timers.now());
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
    fn weigh(&mut self, events: Vec<Event>) {
        let wanted = self.repairer.weigh(events);
        if wanted.causes.contains(&Cause::Filter) {
            self.sentry.judge();
        }
        for cause in wanted.causes {
            self.wake(cause);
        }
        if wanted.chains {
            self.timers.ask_chains_now();
        }
        let backend = self.repairer.sources().map(Sources::backend);
        if let Some(backend) = backend.filter(|_| self.repairer.relies_on_chains()) {
            if self.timers.are_chains_due(backend) && self.repairer.have_chains_changed() {
                self.wake(Cause::Filter);
            }
        }
        if self.repairer.relies_on_gateways() && self.timers.are_gateways_due() && self.repairer.have_gateways_moved() {
            self.wake(Cause::Network);
        }
    }

    /// Compares and repairs. Says whether that came to an end, be it a bad one.
    fn look(&mut self) -> Result<bool, GuardError> {
        let (began, cause) = (self.timers.now(), self.timers.schedule.cause());
        let edition = self.repairer.edition;
        let outcome = self.repairer.look(cause, &mut self.reader, &self.sentry);
        for repair in std::mem::take(&mut self.repairer.repairs) {
            self.reporter.repaired(&self.node, &repair);
        }
        if let Some(sources) = self.repairer.sources() {
            self.timers.ask_chains_later(sources.backend());
            if self.repairer.edition != edition {
                let subject = sources.watched();
                self.watch(subject);
            }
        }
        match &outcome {
            Ok(Some(report)) => {
                Self::greet_again(&report.greetings);
                self.reporter.compared(report);
                self.ports.want(&self.node.paths, &report.ports);
            }
            Ok(None) => {}
            Err(ReconcileError::Kernel(KernelError::Filter(FilterError::Namespace(_))))
                if self.reporter.manager.is_there() =>
            {
                // The unit does it before it starts the service.
                return Err(GuardError::Uncompiled);
            }
            Err(error) => self.reporter.failed(error),
        }
        let ended = self.timers.now();
        match &outcome {
            // What nobody refused this time fails for a reason that tells when it is over.
            Ok(Some(report)) => self.timers.schedule.looked(began, ended, !report.was_refused),
            Ok(None) => self.timers.schedule.put_off(ended),
            Err(_) => self.timers.schedule.looked(began, ended, false),
        }
        let took = ended.saturating_sub(began).as_millis();
        self.reporter.looked(&self.node, took);
        log::debug!("looked because of {cause:?} for {took} ms");
        Ok(!matches!(outcome, Ok(None)))
    }

    /// Listens to this, and to nothing else.
    fn watch(&mut self, subject: Option<listener::Subject>) {
        if self.listener.as_ref().map(|listener| &listener.subject) == subject.as_ref() {
            return;
        }
        self.listener = None;
        match subject.map(|subject| Listener::start(&self.node.paths, subject)).transpose() {
            Ok(listener) => self.listener = listener,
            Err(error) => log::warn!("guard: conflicts are not watched: {}", chain(&error)),
        }
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
                for (port, frames) in greetings.iter().filter(|(port, _)| there(port)) {
                    if let Err(error) = packet::send(*port, frames) {
                        log::warn!("cannot tell the guest behind {port} where its gateway is: {error}");
                    }
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("greetings".to_owned()).spawn(again) {
            log::warn!("guard: guests are told only once where their gateway is: {error}");
        }
    }
}
