//! What may be done, one file a use case: takes a [`crate::request`], changes registry, guest and node, and says in types what
//! became of it. Nothing here parses arguments or makes text for a terminal.

mod assign;
pub(crate) mod bridges;
pub(crate) mod conflicts;
pub mod follow;
mod interface;
pub(crate) mod network;
mod pools;
mod probe;
mod provider_mac;
pub mod proxmox;
mod release;

pub(crate) use assign::own_addresses;
pub use assign::{Assigned, Held, Inside, Retold, assign};
pub use follow::Followed;
pub use interface::{InterfaceSet, set_interface};
pub use network::Told;
pub(crate) use pools::money;
pub use pools::{
    AddressesAdded, Difference, EntryAdded, PoolCreated, PoolProperties, PoolRemoved, PoolSettings, Rerouting,
    add_addresses, create_pool, remove_from_pool, set_pool,
};
pub use release::{Kept, Released, release};
use schemars::JsonSchema;
use serde::Serialize;

use crate::audit::Author;
use crate::code;
use crate::hook::HookError;
use crate::links::Links;
use crate::model::problem::chain;
use crate::model::{Code, Problem, Subject};
use crate::reconcile::{Node, ReconcileError};
use crate::registry::document::DocumentError;
use crate::registry::{Registry, RuleError, room};
use crate::store::StoreError;
use crate::system::{Kernel, Reference};

/// What an operation came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Done<T> {
    /// What was done.
    #[serde(flatten)]
    pub answer: T,
    /// Whether nothing was done but said what would be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub dry_run: bool,
    /// What this node did to follow; absent for a dry run.
    #[serde(flatten)]
    pub node: Followed,
    /// Why a part of it is not done, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

impl<T> Done<T> {
    /// With a problem that keeps what was done from being all.
    fn but(mut self, problem: Option<Problem>) -> Self {
        self.problem = self.problem.or(problem);
        self
    }
}

/// Makes this author the one of every change that follows.
pub fn act_for(node: &mut Node, author: &Author) {
    node.store.journal.reason.clone_from(&author.why);
}

/// An error of an operation, with the next step.
pub(crate) fn advice(
    code: Code,
    subject: Subject,
    sentence: impl Into<String>,
    hint: impl Into<String>,
) -> anyhow::Error {
    Problem::new(code, subject, sentence, hint).into()
}

/// The one conversion: what went wrong below, with all that was tried, in the form for everybody.
pub fn problem_of(error: &anyhow::Error) -> Problem {
    let (code, subject, hint) = error.chain().find_map(kind).unwrap_or((code!("failed"), Subject::Command, None));
    let outermost: &(dyn std::error::Error + 'static) = error.as_ref();
    Problem::new(code, subject, chain(outermost), hint.unwrap_or_default())
}

fn kind(cause: &(dyn std::error::Error + 'static)) -> Option<(Code, Subject, Option<String>)> {
    if let Some(Problem { code, subject, hint, .. }) = cause.downcast_ref() {
        return Some((*code, subject.clone(), Some(hint.clone())));
    }
    if let Some(error) = cause.downcast_ref::<HookError>() {
        return Some((error.code(), Subject::Node, error.hint()));
    }
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return Some((error.code(), error.subject(), error.hint()));
    }
    if let Some(error) = cause.downcast_ref::<ReconcileError>() {
        let subject = if let ReconcileError::Store(error) = error.first() { error.subject() } else { Subject::Node };
        return Some((error.code(), subject, error.hint()));
    }
    if let Some(error) = cause.downcast_ref::<RuleError>() {
        return Some((error.code(), error.subject(), error.hint()));
    }
    let error = cause.downcast_ref::<DocumentError>()?;
    Some((error.code(), error.subject(), Some(error.hint.clone())))
}

/// Carries out an operation whose errors carry what was tried.
fn told<T>(done: anyhow::Result<T>) -> Result<T, Problem> {
    done.map_err(|error| problem_of(&error))
}

/// Changes the registry, or only tries to.
pub(crate) fn change<T>(
    node: &Node,
    dry_run: bool,
    change: impl FnOnce(&mut Registry) -> Result<T, RuleError>,
) -> Result<T, StoreError> {
    // What does not fit into every node's filter is refused before anything is written.
    let checked = |registry: &mut Registry| -> Result<T, RuleError> {
        let before = registry.clone();
        let outcome = change(registry)?;
        room::check(&before, registry)?;
        node.store.admits(&before, registry)?;
        Ok(outcome)
    };
    if dry_run {
        let mut registry = node.store.load()?.registry;
        return Ok(checked(&mut registry)?);
    }
    node.store.change(|registry| checked(registry).map_err(StoreError::from))
}

pub(crate) fn observe_links() -> Option<Links> {
    // Looking at links needs no fingerprint of the rules.
    Kernel::open(Reference::default()).ok()?.links().ok()
}
