//! Brings the node in line after a change of the registry.

use schemars::JsonSchema;
use serde::Serialize;

use super::Done;
use crate::code;
use crate::model::problem::chain;
use crate::model::{Problem, Subject};
use crate::plan::{Failed, Inputs, Refusal, notes};
use crate::reconcile::{Follow, Node, Report, follow_with_ports};
use crate::registry::Registry;
use crate::system::run::Shared;

/// What this node did to follow a change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Followed {
    /// What was changed in the kernel.
    pub steps: Vec<String>,
    /// What could not be.
    pub failed: Vec<Problem>,
    /// What may surprise.
    pub notes: Vec<Problem>,
    /// Whether something of that concerns what was changed.
    #[serde(skip)]
    pub is_own_failure: bool,
    /// Whether the notes are to be shown: they are about the pool that was changed.
    #[serde(skip)]
    pub shows_notes: bool,
}

/// The registry has changed by now: if the node cannot follow, that is a problem beside what was done.
pub(crate) fn follow<T>(node: &Node, dry_run: bool, about: &Subject, answer: T) -> Done<T> {
    let mut done = Done::without_node(answer, dry_run);
    if dry_run {
        return done;
    }
    match node.follow(about) {
        Ok(Follow::Own(mut report)) => {
            let notes = follow_with_ports(node, &report.ports);
            report.notes.extend(notes);
            done.node = followed(*report, about);
        }
        Ok(Follow::Shared(Shared { failed, notes, .. })) => {
            done.node = Followed { failed, notes, ..Followed::default() }
        }
        Err(error) => {
            let apply = "`pve-public-ip apply`";
            let hint = match error.hint() {
                Some(hint) if error.hint_applies() => hint,
                Some(hint) => format!("{hint}; then {apply}"),
                None => apply.to_owned(),
            };
            let sentence = format!("this node could not follow: {}", chain(&error));
            done.problem = Some(Problem::of_node(code!("node-could-not-follow"), sentence, hint));
        }
    }
    done
}

/// As [`follow`], and says whose frames the guard of an uplink keeps back from now on.
pub(super) fn follow_pool<T>(node: &Node, dry_run: bool, about: &Subject, registry: Registry, answer: T) -> Done<T> {
    let mut done = follow(node, dry_run, about, answer);
    if dry_run {
        let inputs = node.inputs();
        done.node.notes = inputs.map_or_else(|_| Vec::new(), |inputs| notes(&Inputs { registry, ..inputs }));
    }
    // The command itself says it of the pool that it is about.
    done.node.notes.retain(|note| note.code != code!("pool-not-enforced"));
    done.node.shows_notes = true;
    done
}

/// What is wrong with others does not make a command fail, but nobody shall have to guess why they are not well.
fn followed(report: Report, about: &Subject) -> Followed {
    let is_own = |failed: &Failed<Refusal>| failed.subject == Subject::Node || failed.subject == *about;
    let mut failed: Vec<Problem> = report.failed.iter().map(Failed::problem).collect();
    failed.dedup();
    Followed {
        steps: report.steps.iter().map(ToString::to_string).collect(),
        is_own_failure: report.failed.iter().any(is_own),
        failed,
        notes: report.notes,
        shows_notes: false,
    }
}
