//! Compares the node with what it should be, and repairs: what is known of the files and of the network in between.

use std::collections::BTreeSet;
use std::time::Duration;

use super::files::{Answer, Ask, Files};
use super::schedule::Cause;
use super::sentry::Barrier;
use crate::links::Links;
use crate::plan::{self, Event, Rules, latest};
use crate::reconcile::{
    Baseline, Left, Mode, Network, Node, ReconcileError, Reconciler, Report, Scope, Sources, Trust,
};
use crate::ruleset::Table;
use crate::system::run::{RunError, RunState};
use crate::system::tally::Tallies;

/// How long a look waits for a hook or a command that changes the node: longer than a hook takes at all.
const LOCK_LIMIT: Duration = Duration::from_secs(11);

/// How long it does while the fence stands, and guests are cut off.
const FENCED_LOCK_LIMIT: Duration = Duration::from_secs(1);

/// How long the first look may wait for the cluster file system.
const FIRST_READ_LIMIT: Duration = Duration::from_secs(20);

/// How long another look may: hooks wait meanwhile.
const READ_LIMIT: Duration = Duration::from_millis(200);

/// A cluster file system that does not answer for so long is in trouble.
const SILENCE_LIMIT: Duration = Duration::from_secs(5);

/// What a look had to undo.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Repair {
    /// What somebody else did, in words.
    pub(super) drift: BTreeSet<String>,
    /// The program that changed our table last.
    pub(super) changed_by: Option<String>,
    /// Whether anything was changed at all.
    pub(super) has_changed: bool,
}

/// What events ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Looks for these reasons.
    pub(super) causes: BTreeSet<Cause>,
    /// A look at iptables, whether it has changed for us.
    pub(super) chains: bool,
}

/// Files, network and baseline of the last look.
#[derive(Debug)]
pub(super) struct Repairer {
    node: Node,
    /// The files as they were read last.
    sources: Option<Sources>,
    /// How often they were replaced by newer ones.
    pub(super) edition: u64,
    /// How the last look left the network.
    left: Left,
    network: Option<Box<dyn Network>>,
    /// Who changed our table since the last look.
    changed_by: Option<String>,
    /// Whether there was a look already: what the first one finds is nobody's doing.
    has_looked: bool,
    /// What the last look had to undo.
    pub(super) repairs: Vec<Repair>,
}

impl Repairer {
    /// One that knows nothing yet.
    pub(super) fn new(node: Node) -> Self {
        Self {
            node,
            sources: None,
            edition: 0,
            left: Left::default(),
            network: None,
            changed_by: None,
            has_looked: false,
            repairs: Vec::new(),
        }
    }

    /// The files as they were read last.
    pub(super) fn sources(&self) -> Option<&Sources> {
        self.sources.as_ref()
    }

    /// What the events ask for: those that contradict the last look.
    pub(super) fn weigh(&mut self, events: Vec<Event>) -> Wanted {
        let none = Links::default();
        let links = self.sources.as_ref().map_or(&none, Sources::links);
        let exits = self.sources.as_ref().and_then(Sources::exits);
        let known = plan::LastLook { desired: &self.left.state, links, exits, generation: self.left.generation };
        let mut wanted = Wanted::default();
        let mut changed = Vec::new();
        for event in latest(events).into_iter().filter(|event| known.is_contradicted_by(event)) {
            log::debug!("heard: {event:?}");
            match event {
                Event::Filter { by, .. } => {
                    wanted.causes.insert(Cause::Filter);
                    self.changed_by = Some(by);
                }
                Event::Chains => wanted.chains = true,
                Event::Lost => drop(wanted.causes.insert(Cause::Filter)),
                Event::Link(name, _) | Event::LinkGone(name) => {
                    wanted.causes.insert(Cause::Network);
                    changed.push(name);
                }
                _ => drop(wanted.causes.insert(Cause::Network)),
            }
        }
        for device in changed {
            // Nobody is to be blamed for that.
            self.left.state.forget_what_hangs_on(device);
        }
        wanted
    }

    /// Whether iptables has to be asked now and then, because the kernel does not report its changes.
    pub(super) fn relies_on_chains(&self) -> bool {
        self.left.chains.is_some() && self.network.is_some()
    }

    /// Whether iptables has changed. What cannot be read is found out by the look.
    pub(super) fn have_chains_changed(&mut self) -> bool {
        match (self.left.chains, &mut self.network, &self.sources) {
            (Some(mark), Some(network), Some(sources)) => {
                !network.chains_mark(sources.backend()).is_ok_and(|now| now == Some(mark))
            }
            _ => false,
        }
    }

    /// Whether there are gateways whose MAC is wanted.
    pub(super) fn relies_on_gateways(&self) -> bool {
        self.network.is_some()
            && self.sources.as_ref().is_some_and(|sources| !sources.inputs().found_gateways.is_empty())
    }

    /// Whether a gateway has another MAC. The kernel is not asked to report neighbours, of which a guest can make as many as
    /// it likes; so the few that matter are looked up.
    pub(super) fn have_gateways_moved(&mut self) -> bool {
        let (Some(network), Some(sources)) = (&mut self.network, &self.sources) else { return false };
        let known = &sources.inputs().found_gateways;
        let now = network.found_gateways(&known.keys().copied().collect(), sources.links());
        // One that has just fallen silent is no news; what cannot be read is found out by the look.
        now.is_ok_and(|now| now.iter().any(|(gateway, mac)| mac.is_some() && known.get(gateway) != Some(mac)))
    }

    /// What the rules have counted.
    pub(super) fn tallies(&mut self) -> Result<Tallies, ReconcileError> {
        match &mut self.network {
            Some(network) => Ok(network.tallies()?),
            None => Ok(self.node.networks.to_look(&RunState::unlocked(&self.node.paths))?.tallies()?),
        }
    }

    /// Compares and repairs. `None`: the files were not read in time; what is missing by the last known ones was put back
    /// anyway.
    pub(super) fn look(
        &mut self,
        cause: Cause,
        files: &mut dyn Files,
        barrier: &dyn Barrier,
    ) -> Result<Option<Report>, ReconcileError> {
        let outcome = self.compare(cause, files, barrier);
        // Whatever came of it: guests that are cut off for long are no better than guests that are not protected.
        barrier.lift();
        self.has_looked = true;
        if outcome.is_err() {
            // It may be the connection.
            self.network = None;
        }
        outcome
    }

    fn compare(
        &mut self,
        cause: Cause,
        files: &mut dyn Files,
        barrier: &dyn Barrier,
    ) -> Result<Option<Report>, ReconcileError> {
        let ask = if matches!(cause, Cause::Timer | Cause::Request) { Ask::All } else { Ask::Changed };
        if ask == Ask::All {
            // An event may have been missed: trust nothing.
            self.left.doubt();
        }
        if self.sources.is_none() {
            // Without the lock, so that hooks go on meanwhile; asked for again below, when nobody can change the node.
            if let Some(Answer::News(sources)) = files.ask(ask, FIRST_READ_LIMIT) {
                self.replace_sources(*sources, barrier);
            }
        }
        let limit = if barrier.is_fenced() { FENCED_LOCK_LIMIT } else { LOCK_LIMIT };
        let run = match RunState::lock(&self.node.paths, limit) {
            Err(RunError::Busy(waited)) => {
                // Somebody has held the lock for longer than any hook does: it may hang in a read of the cluster file system.
                // What is missing is put back without it, which cannot undo what the other one does.
                self.restore(&RunState::unlocked(&self.node.paths), barrier)?;
                return Err(RunError::Busy(waited).into());
            }
            locked => locked?,
        };
        if barrier.is_fenced() {
            // What is known is good enough to close what is open; whether it still holds can be asked afterwards.
            self.restore(&run, barrier)?;
            barrier.lift();
        }
        match files.ask(ask, READ_LIMIT) {
            Some(Answer::News(sources)) => self.replace_sources(*sources, barrier),
            Some(Answer::Same) => {}
            Some(Answer::Failed(error)) => {
                self.restore(&run, barrier)?;
                return Err(error);
            }
            None => {
                if cause > Cause::Files {
                    self.restore(&run, barrier)?;
                }
                return match files.silent_for().filter(|silence| *silence >= SILENCE_LIMIT) {
                    Some(_) => Err(ReconcileError::Silent(self.node.paths.etc_pve())),
                    None => Ok(None),
                };
            }
        }
        self.reconcile(&run, Trust::Whole, barrier)
    }

    /// Puts back what is missing by the files as they were known last.
    fn restore(&mut self, run: &RunState, barrier: &dyn Barrier) -> Result<(), ReconcileError> {
        if self.sources.is_none() {
            // It has just started, and nobody has read the files since: this node's copies of them are as good.
            let Some(sources) = self.node.remembered_sources(run) else { return Ok(()) };
            log::warn!(
                "guard: {} cannot be read: until then by what was known last",
                self.node.paths.etc_pve().display()
            );
            self.replace_sources(sources, barrier);
        }
        self.reconcile(run, Trust::OldButSafe, barrier).map(drop)
    }

    /// From now on by these files.
    fn replace_sources(&mut self, sources: Sources, barrier: &dyn Barrier) {
        if self.sources.as_ref().is_some_and(|known| known.log_group() != sources.log_group()) {
            // Other rules are wanted; to load them is no repair.
            self.network = None;
            barrier.stand_by();
            self.left.state.rules = Rules::Different;
            self.left.state.routed_rules = self.left.state.routed_rules.min(Rules::Different);
        }
        self.sources = Some(sources);
        self.edition += 1;
    }

    fn reconcile(
        &mut self,
        run: &RunState,
        trust: Trust,
        barrier: &dyn Barrier,
    ) -> Result<Option<Report>, ReconcileError> {
        let Some(sources) = &mut self.sources else { return Ok(None) };
        let mut network = match self.network.take() {
            Some(network) => network,
            None => self.node.networks.to_change(run, sources.log_group())?,
        };
        let mut reconciler = Reconciler::new(&self.node, run, &mut *network, Mode::Apply);
        let mut report = reconciler.reconcile(Scope::Node(sources, trust), Baseline::Kept(&mut self.left))?;
        let reference = network.reference();
        // It may be the connection.
        self.network = Some(network).filter(|_| !report.was_refused);
        let changed_by = self.changed_by.take();
        let drift = if self.has_looked { self.left.drift(&report) } else { BTreeSet::new() };
        self.repairs.push(Repair { drift, changed_by, has_changed: !report.steps.is_empty() });
        for step in &report.steps {
            log::debug!("{step}");
        }
        self.left.state = std::mem::take(&mut report.desired);
        let tables = Table::ALL.into_iter().filter(|table| self.left.state.rules_of(*table) > Rules::Absent);
        barrier.expect(tables.collect(), reference);
        Ok(Some(report))
    }
}
