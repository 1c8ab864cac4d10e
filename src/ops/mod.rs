//! What may be done, one file a use case: takes a [`crate::request`], changes registry, guest and node, and says in types what
//! became of it. Nothing here parses arguments or makes text for a terminal.

pub(crate) mod active;
mod address;
mod apply;
mod assign;
pub(crate) mod bridges;
pub(crate) mod conflicts;
mod enforce;
pub(crate) mod files;
pub mod follow;
mod import;
mod interface;
pub mod keys;
mod look;
pub(crate) mod network;
mod pools;
mod probe;
mod provider_mac;
pub mod proxmox;
mod release;
mod repair;
pub(crate) mod settings;
pub(crate) mod storage;
mod traces;
mod uninstall;

pub use address::{allocate, create_address, deallocate, delete_address};
pub(crate) use apply::images;
pub use apply::{Applied, apply, plan};
pub(crate) use assign::own_addresses;
pub use assign::{Assigned, Held, Inside, Retold, assign};
pub use conflicts::{Acknowledged, acknowledge_conflicts, claimed};
pub use files::{Converted, Restored, convert_registry, restore_file};
pub use follow::Followed;
pub use import::{Given, Imported, Registered, Selection, import, import_present};
pub use interface::{InterfaceSet, set_interface};
pub use look::{address, addresses, guest_of, history, info, metrics, pools as list_pools, status, verify_guest};
pub use network::Told;
pub use pools::{
    AbsentEntry, AddressesAdded, Difference, EntryAdded, PoolCreated, PoolProperties, PoolRemoved, PoolSettings,
    Rerouting, add_addresses, create_pool, remove_from_pool, set_pool,
};
pub(crate) use pools::{left_elsewhere, money};
pub use release::{AllReleased, Kept, Released, release, release_all};
pub use repair::{Deed, Examined, examine_node, repair, repair_node};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
pub use settings::{NodeChanged, set_node};
pub use storage::{SnippetStorageAdded, add_snippet_storage};
pub use uninstall::{Uninstalled, uninstall};

use crate::audit::Author;
use crate::code;
use crate::hook::HookError;
use crate::links::Links;
use crate::model::problem::chain;
use crate::model::{Code, Problem, Subject};
use crate::reconcile::{Node, ReconcileError};
use crate::registry::document::DocumentError;
use crate::registry::{Registry, RuleError, room};
use crate::request::{Envelope, Request};
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
    /// Something that this node need not follow.
    fn without_node(answer: T, dry_run: bool) -> Self {
        Self { answer, dry_run, node: Followed::default(), problem: None }
    }

    /// With a problem that keeps what was done from being all.
    fn but(mut self, problem: Option<Problem>) -> Self {
        self.problem = self.problem.or(problem);
        self
    }
}

/// Makes this author the one of every change that follows.
pub fn act_for(node: &mut Node, author: &Author) {
    node.store.journal.reason.clone_from(&author.why);
    node.store.journal.caller = author.who.is_some().then(|| author.clone());
}

/// Carries out a request that ends with one answer.
pub fn carry_out(node: &Node, envelope: Envelope) -> Result<Value, Problem> {
    let answer = answer(node, envelope);
    // What was changed and needs nothing of the node is done with by now.
    node.end_change();
    answer
}

fn answer(node: &Node, envelope: Envelope) -> Result<Value, Problem> {
    let Envelope { request, within, dry_run, .. } = envelope;
    let within = within.as_deref();
    let is_own = matches!(
        request,
        Request::Allocate(_)
            | Request::Deallocate(_)
            | Request::GetAddress(_)
            | Request::ListAddresses(_)
            | Request::History(_)
    );
    if within.is_some() && !is_own {
        let sentence = "this request is not for one organization alone";
        let hint = "it needs a key that is not bound to an organization";
        return Err(Problem::new(code!("not-in-api"), Subject::Command, sentence, hint));
    }
    match request {
        Request::CreatePool(request) => value(create_pool(node, request, dry_run)?),
        Request::AddAddresses(request) => {
            let trying = format!("cannot add to pool `{}`", request.pool);
            value(add_addresses(node, &request, &trying, dry_run)?)
        }
        Request::SetPool(request) => value(set_pool(node, &request, dry_run)?),
        Request::RemoveFromPool(request) => value(remove_from_pool(node, &request, dry_run)?),
        Request::Assign(request) => value(assign(node, &request, dry_run)?),
        Request::Release(request) => value(release(node, &request, dry_run)?),
        Request::SetInterface(request) => value(set_interface(node, request, dry_run)?),
        Request::SetNode(request) if request.is_of_the_machine() => {
            let sentence = "programs that root runs and directories that root writes to are not set by requests";
            let hint = "on the node: `pve-public-ip node set --alert-exec PROGRAM --metrics-directory DIR`";
            Err(Problem::new(code!("not-in-api"), Subject::Node, sentence, hint))
        }
        Request::SetNode(request) => value(set_node(node, request, dry_run)?),
        Request::Apply {} => value(if dry_run { plan(node)? } else { apply(node)? }),
        Request::Repair {} => value(repair_node(node, dry_run)?),
        Request::RestoreFile(request) => value(restore_file(node, &request, dry_run)?),
        Request::ConvertRegistry {} => value(convert_registry(node, dry_run)?),
        Request::AddSnippetStorage(request) => value(add_snippet_storage(node, &request, dry_run)?),
        Request::AcknowledgeConflicts(request) => value(acknowledge_conflicts(node, request, dry_run)?),
        Request::Allocate(request) => value(allocate(node, &request, within, dry_run)?),
        Request::Deallocate(request) => value(deallocate(node, &request, within, dry_run)?),
        Request::CreateAddress(request) => value(create_address(node, &request, dry_run)?),
        Request::DeleteAddress(request) => value(delete_address(node, &request, dry_run)?),
        Request::GetAddress(request) => value(address(node, &request, within)?),
        Request::ListAddresses(request) => value(addresses(node, &request, within)?),
        Request::ListPools {} => value(list_pools(node)?),
        Request::History(request) => value(history(node, &request, within)?),
        Request::VerifyGuest(request) => value(verify_guest(node, &request)?),
        Request::Info {} => value(info(node)?),
        Request::Metrics {} => value(metrics(node)),
        Request::ListKeys {} => value(keys::list(node)?),
        Request::Watch(_) => {
            let sentence = "`watch` is answered until the connection ends";
            Err(Problem::new(
                code!("not-in-api"),
                Subject::Command,
                sentence,
                "ask for it alone, on a connection of its own",
            ))
        }
    }
}

fn value(answer: impl Serialize) -> Result<Value, Problem> {
    serde_json::to_value(answer)
        .map_err(|error| Problem::new(code!("internal-error"), Subject::Command, error.to_string(), "please report it"))
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
        Ok(outcome)
    };
    if dry_run {
        let before = node.store.load()?.registry;
        let mut after = before.clone();
        let outcome = checked(&mut after)?;
        node.store.admits(&before, &after)?;
        return Ok(outcome);
    }
    // Whoever changes something reads all once more to follow.
    node.store.attend();
    node.begin_change();
    node.store.change(|registry| checked(registry).map_err(StoreError::from))
}

pub(crate) fn observe_links() -> Option<Links> {
    // Looking at links needs no fingerprint of the rules.
    Kernel::open(Reference::default()).ok()?.links().ok()
}
