//! Brings this node to its desired state because somebody asks for it.

use schemars::JsonSchema;
use serde::Serialize;

use super::{observe_links, told};
use crate::audit::{Change, Event};
use crate::inspect;
use crate::model::Problem;
use crate::reconcile::{Mode, Node, ReconcileError, Report, drift, follow_with_ports, presence_of};
use crate::store::journal::Durability;
use crate::survey;
use crate::system::run::RunState;

/// Repairs that get an entry of their own in the audit log; of more the number is noted.
const NOTED: usize = 10;

/// What was compared, and changed if that was asked for.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Applied {
    /// What was changed, or would be.
    pub steps: Vec<String>,
    /// What stands in the way of assignments.
    pub problems: Vec<Problem>,
    /// What may surprise.
    pub notes: Vec<Problem>,
    /// All that was found.
    #[serde(skip)]
    pub report: Report,
    /// Images of guests that lack what the guests hold; `apply` does not put that right.
    #[serde(skip)]
    pub images: Vec<Problem>,
}

impl From<Report> for Applied {
    fn from(report: Report) -> Self {
        Self {
            steps: report.steps.iter().map(ToString::to_string).collect(),
            problems: report.problems.clone(),
            notes: report.notes.clone(),
            report,
            images: Vec::new(),
        }
    }
}

/// Says what [`apply`] would do.
pub fn plan(node: &Node) -> Result<Applied, Problem> {
    told(node.reconcile(Mode::Plan).map_err(anyhow::Error::from)).map(Applied::from)
}

/// Changes what differs from the desired state, and looks into the images of guests.
pub fn apply(node: &Node) -> Result<Applied, Problem> {
    told(carry_out(node).map_err(anyhow::Error::from))
}

fn carry_out(node: &Node) -> Result<Applied, ReconcileError> {
    let mut report = node.reconcile_or_protect()?;
    if let Err(error) = survey::note_release(&node.paths, &node.name) {
        // Only for the doctor of other nodes; without quorum nothing can be written.
        log::debug!("cannot note this node's release in the registry: {error}");
    }
    let meanings = drift(&report.steps, &report.desired, &report.desired);
    let more = meanings.len().saturating_sub(NOTED);
    let repaired = meanings.into_iter().take(NOTED).chain((more > 0).then(|| format!("{more} more of the kind")));
    let repaired = repaired.map(|meaning| Change::said(Event::Repaired, meaning));
    node.store.journal.record(repaired.collect(), Durability::Soon);
    let notes = follow_with_ports(node, &report.ports);
    report.notes.extend(notes);
    let images = images(node, &mut report)?;
    Ok(Applied { images, ..Applied::from(report) })
}

/// Looks into the images of the node's guests: returns in what they differ from what the guests hold, which is put right
/// by other means than `apply`; what cannot be told becomes a note of the report.
pub(crate) fn images(node: &Node, report: &mut Report) -> Result<Vec<Problem>, ReconcileError> {
    let links = observe_links().unwrap_or_default();
    let run = RunState::unlocked(&node.paths);
    let runs = |vmid, kind| presence_of(vmid, kind, true, run.mark(vmid).as_ref(), &links).is_some();
    let (wrong, doubts): (Vec<_>, Vec<_>) = inspect::node(node, runs)?.into_iter().partition(|finding| finding.wrong);
    report.notes.extend(doubts.into_iter().map(Problem::from));
    Ok(wrong.into_iter().map(Problem::from).collect())
}
