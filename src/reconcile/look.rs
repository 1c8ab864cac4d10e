//! One look at the node for commands that say how guests are: its files, and what came of comparing the kernel with them.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use super::{Mode, NODE_LOCK_LIMIT, Node, ReconcileError, Report, Sources};
use crate::host::files;
use crate::plan::GuestStates;
use crate::registry::Registry;
use crate::system::run::RunState;

/// What was read, and compared where that was asked for.
#[derive(Debug)]
pub struct Look {
    /// The files.
    pub sources: Sources,
    /// What came of comparing the kernel with them; `None`: nobody asked.
    pub compared: Option<Result<Report, ReconcileError>>,
}

impl Node {
    /// Reads the files, and compares the kernel with them if what the registry says makes that necessary. Waits for whoever
    /// changes the node, so that a change that is half done is not taken for a gap.
    pub fn look(&self, needs_comparison: impl Fn(&Registry) -> bool) -> Result<Look, ReconcileError> {
        let look = || {
            let run = RunState::lock_to_look(&self.paths, NODE_LOCK_LIMIT).map_err(ReconcileError::from);
            let mut sources = self.read_sources()?;
            let compared = needs_comparison(&sources.inputs.registry)
                .then(|| run.and_then(|run| self.reconcile_by(&run, &mut sources, Mode::Plan)));
            Ok(Look { sources, compared })
        };
        let differs = |look: &Look| look.compared.as_ref().is_some_and(|compared| compared.as_ref().is_ok_and(differs));
        self.settled(look, differs)
    }

    /// In what the node differs from its desired state.
    pub fn compare(&self) -> Result<Report, ReconcileError> {
        self.settled(|| self.reconcile(Mode::Plan), differs)
    }

    /// Looks. A difference may be a change of the registry that a command has written, and that the node is about to follow:
    /// it is looked for again when no command of this node is in the middle of one.
    fn settled<T>(
        &self,
        look: impl Fn() -> Result<T, ReconcileError>,
        differs: impl Fn(&T) -> bool,
    ) -> Result<T, ReconcileError> {
        let found = look()?;
        if !differs(&found) {
            return Ok(found);
        }
        match files::lock_within(&self.changes(), false, CHANGES_LIMIT) {
            Some(_quiet) => look(),
            None => Ok(found),
        }
    }

    /// A command is about to change the registry, and the node is to follow: until [`Self::end_change`] others know that.
    pub fn begin_change(&self) {
        let mut change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        if change.is_none() {
            // Without it the change is made all the same: others may only be misled for a moment.
            *change = files::lock_within(&self.changes(), true, LOOK_LIMIT);
        }
    }

    /// The node has followed, or does not.
    pub fn end_change(&self) {
        self.change.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn changes(&self) -> PathBuf {
        self.paths.run().join("changes.lock")
    }
}

fn differs(report: &Report) -> bool {
    !report.steps.is_empty()
}

/// How long a look waits for changes that are under way.
const CHANGES_LIMIT: Duration = Duration::from_secs(10);

/// How long a change waits for such a look.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

impl Look {
    /// The registry as it was read.
    pub fn registry(&self) -> &Registry {
        &self.sources.inputs.registry
    }

    /// How the guests are.
    pub fn states(&self) -> GuestStates<'_> {
        let report = self.compared.as_ref().and_then(|compared| compared.as_ref().ok());
        let compared = report.map(|report| (&report.steps[..], &report.problems[..]));
        GuestStates::new(&self.sources.inputs, compared)
    }
}
