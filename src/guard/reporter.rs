//! Tells the log, the administrator, the service manager and whoever runs `status` how the guard is.

use std::thread;

use super::alerts::Message;
use super::courier;
use super::repair::Repair;
use super::sayings::{Line, Sayings};
use crate::audit::{Change, Event};
use crate::host::service::ServiceManager;
use crate::model::problem::chain;
use crate::plan::{Failed, Problem};
use crate::reconcile::{Node, ReconcileError, Report};
use crate::registry::document::NodeFile;
use crate::store::journal::Durability;
use crate::system::run::{GuardNote, RunState};
use crate::view::seconds;

/// What was said so far, and the note of the guard's state.
#[derive(Debug)]
pub(super) struct Reporter {
    pub(super) sayings: Sayings,
    pub(super) note: GuardNote,
    pub(super) manager: ServiceManager,
    /// What the last look found.
    pub(super) problems: Vec<Problem>,
    pub(super) notes: Vec<Problem>,
}

impl Reporter {
    /// One that goes on where the last one on this node ended.
    pub(super) fn new(node: &Node, manager: ServiceManager) -> Self {
        let mut sayings = Sayings::default();
        sayings.alerts = RunState::note(&node.paths, "alerts-said").unwrap_or_default();
        Self {
            sayings,
            note: GuardNote { pid: std::process::id(), ..GuardNote::default() },
            manager,
            problems: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// What had to be undone.
    pub(super) fn repaired(&mut self, node: &Node, repair: &Repair) {
        self.note.repairs += u64::try_from(repair.drift.len()).unwrap_or(u64::MAX);
        let lines = self.sayings.repaired(&repair.drift, repair.changed_by.as_deref(), seconds());
        let changes =
            lines.iter().map(|(_, text)| Change::said(Event::Repaired, text.trim_start_matches("repaired: ")));
        node.store.journal.record(changes.collect(), Durability::Soon);
        say(lines);
        if repair.has_changed {
            self.note.last_change = seconds();
        }
    }

    /// A look came to its end.
    pub(super) fn compared(&mut self, report: &Report) {
        for vmid in &report.arrived {
            log::info!("guard: guest {vmid} has arrived and was announced");
        }
        self.note.trouble = None;
        self.note.is_etc_pve_silent = false;
        self.note.guests = report.presence.len();
        self.note.problems = report.problems.len();
        self.problems.clone_from(&report.problems);
        self.notes.clone_from(&report.notes);
        let mut lines = self.sayings.trouble(None, seconds());
        let refused = if report.was_refused { report.failed.as_slice() } else { &[] };
        let refused: Vec<Problem> = refused.iter().map(Failed::problem).collect();
        lines.extend(self.sayings.problems(&report.problems, &refused, seconds()));
        say(lines);
    }

    /// A look failed.
    pub(super) fn failed(&mut self, error: &ReconcileError) {
        let (text, hint) = (chain(error), error.hint());
        self.note.trouble = Some(text.clone());
        self.note.is_etc_pve_silent = matches!(error.first(), ReconcileError::Silent(_));
        say(if matches!(error, ReconcileError::Kernel(_)) {
            self.sayings.refused(&text, hint.as_deref(), seconds())
        } else {
            self.sayings.trouble(Some((&text, hint.as_deref())), seconds())
        });
    }

    /// Notes that there was a look, and how long it took.
    pub(super) fn looked(&mut self, node: &Node, milliseconds: u128) {
        self.note.looks += 1;
        self.note.last_look = seconds();
        self.note.last_look_ms = u64::try_from(milliseconds).unwrap_or(u64::MAX);
        RunState::set_note(&node.paths, "guard", &self.note);
    }

    /// Leaves what the administrator has to know for whoever brings it.
    pub(super) fn send_alerts(&mut self, node: &Node, settings: Option<&NodeFile>) {
        let now = seconds();
        let Some((alerts, more)) = self.sayings.alerts.due(now) else { return };
        RunState::set_note(&node.paths, "alerts-said", &self.sayings.alerts);
        let mail = settings.and_then(|file| file.alert_mail.clone()).unwrap_or_else(|| "root".to_owned());
        let exec = settings.and_then(|file| file.alert_exec.clone());
        let message = Message { version: 1, node: node.name.to_string(), alerts, more, mail: Some(mail), exec };
        if let Err(error) = courier::leave(&node.paths, &message, now) {
            log::warn!("a message to the administrator is lost: {error}");
            return;
        }
        if !self.manager.is_there() {
            // There is nobody else who would.
            let paths = node.paths.clone();
            drop(thread::Builder::new().spawn(move || courier::deliver(&paths)));
        }
    }

    /// How it is, in a few words.
    pub(super) fn summary(&self) -> String {
        match (&self.note.trouble, self.note.guests) {
            (Some(trouble), _) => trouble.clone(),
            (None, 0) => "no guest is bound".to_owned(),
            (None, 1) => "1 guest is bound".to_owned(),
            (None, guests) => format!("{guests} guests are bound"),
        }
    }
}

/// Writes lines to the log.
pub(super) fn say(lines: Vec<Line>) {
    for (level, text) in lines {
        log::log!(level, "{text}");
    }
}
