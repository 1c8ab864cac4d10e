//! One look at the node for commands that say how guests are: its files, and what came of comparing the kernel with them.

use super::{Mode, NODE_LOCK_LIMIT, Node, ReconcileError, Report, Sources};
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
    pub fn look(&self, needs_comparison: impl FnOnce(&Registry) -> bool) -> Result<Look, ReconcileError> {
        let run = RunState::lock_to_look(&self.paths, NODE_LOCK_LIMIT).map_err(ReconcileError::from);
        let mut sources = self.read_sources()?;
        let compared = needs_comparison(&sources.inputs.registry)
            .then(|| run.and_then(|run| self.reconcile_by(&run, &mut sources, Mode::Plan)));
        Ok(Look { sources, compared })
    }
}

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
