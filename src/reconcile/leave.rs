//! Takes out of the node's network what the program has put there. Asks no file of the cluster, so that it works when the
//! package goes and nothing else is sure.

use super::network::Which;
use super::{Extent, Mode, NODE_LOCK_LIMIT, Node, ReconcileError, Reconciler, add_failures};
use crate::plan::{Leave, NetState, Obstacles, Problem, Step, diff, left_behind};
use crate::registry::Registry;
use crate::system::port_programs::remove_all;
use crate::system::run::RunState;

impl Node {
    /// Takes out all that is ours, or what holds back others than the guests that run: the steps, and what went wrong.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be asked, or another process keeps changing the node.
    pub fn leave(&self, leave: Leave, mode: Mode) -> Result<(Vec<Step>, Vec<Problem>), ReconcileError> {
        let run = match mode {
            Mode::Plan => RunState::lock_to_look(&self.paths, NODE_LOCK_LIMIT)?,
            Mode::Apply => RunState::lock(&self.paths, NODE_LOCK_LIMIT)?,
        };
        let mut network = self.networks.to_change(&run, None)?;
        let links = network.links(Which::All)?;
        if mode == Mode::Apply {
            // A hook of a program that is installed again must not take the node's share for done.
            run.set_node_applied(&[]);
        }
        let variants = run.backend().map(|note| note.variants).unwrap_or_default();
        let (found, _) = network.observe(Extent::Whole(&variants), &links, &NetState::default())?;
        let steps = diff(&left_behind(&found, leave), &found);
        let obstacles = Obstacles::default();
        let carried =
            Reconciler::new(self, &run, &mut *network, mode).carry_out(steps, &obstacles, &Registry::default());
        let mut problems = Vec::new();
        add_failures(&mut problems, &carried.failed, &obstacles);
        // As long as something is left, the notes say what it was before.
        if mode == Mode::Apply {
            // The rules alone bind guests that run.
            remove_all(&self.paths, &links);
        }
        if mode == Mode::Apply && leave == Leave::Nothing && problems.is_empty() {
            run.forget_everything()?;
        }
        Ok((carried.done, problems))
    }
}
