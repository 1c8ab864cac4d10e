//! Commands that look at what may not be readable in whole: what they could not see is said on standard error and is a note
//! of their answer, and they do not exit with 0 as if the rest were all.

use super::output::{Output, UNREADABLE};
use crate::model::problem::chain;
use crate::model::{Problem, Subject};
use crate::reconcile::{Look, Node, ReconcileError};
use crate::registry::Registry;
use crate::registry::document::DocumentError;
use crate::store::StoreError;

/// The registry for looking at. Of files that cannot be used, what was known of them last is in it.
pub(super) fn readable(node: &Node) -> Result<Registry, StoreError> {
    let registry = node.store.load_usable()?;
    warn_of_broken(&registry);
    Ok(registry)
}

/// The same with the states of guests, which are compared only if what the registry says makes that necessary.
pub(super) fn looked(node: &Node, needs_comparison: impl Fn(&Registry) -> bool) -> Result<Look, ReconcileError> {
    let look = node.look(needs_comparison)?;
    warn_of_broken(look.registry());
    if let Some(note) = uncompared(&look) {
        warn(&note.sentence, &note.hint);
    }
    Ok(look)
}

fn warn(sentence: &str, hint: &str) {
    log::warn!("{sentence}");
    log::warn!("hint: {hint}");
}

fn warn_of_broken(registry: &Registry) {
    for error in &registry.broken {
        warn(&format!("{error}; {}", what_is_shown(registry, error)), &error.hint);
    }
}

fn what_is_shown(registry: &Registry, error: &DocumentError) -> &'static str {
    let is_known = registry.recalled.contains(&error.path);
    if is_known { "shown is its last known good copy" } else { "what it says is missing here" }
}

/// Why the states of guests are not known, if so.
fn uncompared(look: &Look) -> Option<Problem> {
    let error = look.compared.as_ref()?.as_ref().err()?;
    let sentence =
        format!("the states of guests are unknown, because the node could not be compared: {}", chain(error));
    Some(Problem::new(error.code(), Subject::Node, sentence, error.hint().unwrap_or_default()))
}

/// What is only a part, or of the past, is no success.
pub(super) fn shown(registry: &Registry, output: Output) -> Output {
    if registry.broken.is_empty() {
        return output;
    }
    let note = |error: &DocumentError| {
        let sentence = format!("{error}; {}", what_is_shown(registry, error));
        Problem::new(error.code(), error.subject(), sentence, error.hint.clone())
    };
    let notes = registry.broken.iter().map(note);
    Output { code: UNREADABLE, notes: notes.chain(output.notes).collect(), ..output }
}

/// The same of a look, with a note if the states of guests are not known.
pub(super) fn shown_of(look: &Look, output: Output) -> Output {
    let notes = output.notes.into_iter().chain(uncompared(look)).collect();
    shown(look.registry(), Output { notes, ..output })
}
