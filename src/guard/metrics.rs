//! What the guard leaves for Prometheus: the counters of the rules with all else that there is to know.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::reporter::{Reporter, say};
use crate::conflict::{Conflict, Files, in_files};
use crate::model::problem::chain;
use crate::plan::Inputs;
use crate::reconcile::{Node, ReconcileError, Sources};
use crate::registry::document::NodeFile;
use crate::store::journal;
use crate::system::claims;
use crate::system::run::RunState;
use crate::system::tally::Tallies;
use crate::view::exposition::exposition;
use crate::view::{self, Comparison, History, NodeFacts, View, seconds};

/// Between two gatherings of metrics, unless the node's file says otherwise.
pub const METRICS_INTERVAL: Duration = Duration::from_secs(15);

/// Frames dropped from one port in an hour that are too many, unless the node's file says otherwise.
pub const ATTEMPTS: u64 = 1000;

/// Where metrics go, and what they were.
#[derive(Debug)]
pub(super) struct Metrics {
    /// What the rules had counted before.
    history: History,
    /// Who claims what somebody else has, by this edition of the files.
    in_files: (u64, Vec<Conflict>),
    /// Why they could not be written, once it was said.
    unwritten: Option<io::ErrorKind>,
}

impl Metrics {
    /// As they were before the guard began anew.
    pub(super) fn new(node: &Node) -> Self {
        let history = RunState::note(&node.paths, "history").unwrap_or_default();
        Self { history, in_files: (0, Vec::new()), unwritten: None }
    }

    /// How often they are gathered.
    pub(super) fn interval(settings: Option<&NodeFile>) -> Duration {
        let seconds = settings.and_then(|file| file.metrics_seconds).filter(|seconds| *seconds > 0);
        seconds.map_or(METRICS_INTERVAL, Duration::from_secs)
    }

    /// Who claims what somebody else has, as far as the guard sees it: the files that it knows, and what was noted of the
    /// network. It looks at no file of others, because their file system may hang.
    fn conflicts(&mut self, node: &Node, inputs: &Inputs, edition: u64) -> Vec<Conflict> {
        if self.in_files.0 != edition {
            let own = inputs.links.addresses().collect();
            let guests = inputs.guests.iter().map(|(vmid, place)| (*vmid, place.config.clone())).collect();
            let found = in_files(&Files { registry: inputs.registry.clone(), guests, own, ..Files::default() });
            self.in_files = (edition, found);
        }
        let here = inputs.guests.iter().filter(|(_, place)| place.node == inputs.node).map(|(vmid, _)| *vmid).collect();
        let claims = claims::load(&node.paths);
        let mut conflicts = self.in_files.1.clone();
        conflicts.extend(claims.conflicts(&inputs.registry, &here, journal::now()));
        claims.mark(&mut conflicts);
        conflicts.retain(|conflict| !conflict.acknowledged);
        conflicts
    }

    /// Takes in what the rules have counted, and publishes it.
    pub(super) fn gather(
        &mut self,
        node: &Node,
        (sources, edition): (Option<&Sources>, u64),
        tallies: Result<Tallies, ReconcileError>,
        reporter: &mut Reporter,
        runs: bool,
    ) {
        let mut trouble = Vec::new();
        let tallies = tallies.unwrap_or_else(|error| {
            trouble.push(format!("the counters could not be read: {}", chain(&error)));
            Tallies::default()
        });
        let (now, inputs) = (seconds(), sources.map(Sources::inputs));
        let conflicts = inputs.map(|inputs| self.conflicts(node, inputs, edition)).unwrap_or_default();
        reporter.sayings.conflicts(&conflicts, now);
        if self.history.note(now, &tallies) {
            RunState::set_note(&node.paths, "history", &self.history);
        }
        let comparison = Comparison { steps: &[], problems: &reporter.problems, notes: &reporter.notes };
        let known = NodeFacts {
            inputs,
            comparison: reporter.note.trouble.is_none().then_some(comparison),
            tallies: &tallies,
            history: &self.history,
            guard: Some(view::GuardStatus { runs, note: reporter.note.clone() }),
            conflicts: conflicts.len(),
            unreadable: sources.map(Sources::unreadable).unwrap_or_default(),
            trouble,
        };
        let view = View::of(&node.name, known);
        let settings = inputs.and_then(|inputs| inputs.registry.node.as_ref());
        let threshold = settings.and_then(|file| file.alert_attempts).unwrap_or(ATTEMPTS);
        say(reporter.sayings.attempts(&view.attempts(), threshold, now));
        if settings.is_none_or(|file| file.metrics_seconds != Some(0)) {
            self.publish(node, settings.and_then(|file| file.metrics_directory.clone()), &view);
        }
    }

    fn publish(&mut self, node: &Node, directory: Option<PathBuf>, view: &View) {
        let text = exposition(view);
        let textfiles = || Some(node.paths.textfiles()).filter(|directory| directory.is_dir()).unwrap_or_default();
        let directory = directory.unwrap_or_else(textfiles);
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
}
