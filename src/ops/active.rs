//! `verify --active`: attacks the node's own bridges, and says what gets through.

use std::time::Duration;

use anyhow::Context as _;

use super::advice;
use crate::code;
use crate::host::files;
use crate::model::Subject;
use crate::plan::Inputs;
use crate::plan::watch::limited;
use crate::reconcile::Node;
use crate::registry::document::Enforce;
use crate::selftest::Error;
use crate::selftest::live::{self, Outcome};
use crate::selftest::targets::{Target, targets};
use crate::system::run::RunState;

/// How long to wait for whoever changes the node, before what got through is tried once more.
const LOCK_LIMIT: Duration = Duration::from_secs(30);

/// Attacks every bridge of a pool on which somebody is.
pub(crate) fn attack(node: &Node) -> anyhow::Result<Vec<Outcome>> {
    if !nix::unistd::geteuid().is_root() {
        return Err(advice(
            code!("not-root"),
            Subject::Command,
            "`verify --active` plugs ports into bridges, which only root may",
            "run it as root",
        ));
    }
    // Two at a time would take each other's ports away.
    let lock = node.paths.run().join("active.lock");
    let _lock = files::lock(&lock).with_context(|| format!("cannot use `{}`", lock.display()))?;
    let inputs = node.inputs()?;
    let all = targets(&inputs);
    let all: Vec<&Target> = all.iter().collect();
    let mut outcomes = Vec::new();
    // Where pools are only watched an attack is meant to get through, and to be counted.
    let limited = limited(&inputs, Enforce::On);
    for bridge in limited.as_ref().unwrap_or(&inputs).occupied_bridges() {
        let mut outcome = live::attack(bridge, &all).map_err(advised)?;
        if !outcome.passed.is_empty() {
            outcome.passed = confirmed(node, &outcome)?;
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

fn advised(error: Error) -> anyhow::Error {
    match error {
        Error::Unheard(_) => advice(
            code!("attack-unheard"),
            Subject::Node,
            error.to_string(),
            "is there a foreign rule, or a spanning tree that keeps new ports waiting? `nft list ruleset`; `bridge -d link show`",
        ),
        error => error.into(),
    }
}

/// What gets through again while nobody changes the node: an address that was released meanwhile is no leak.
fn confirmed(node: &Node, outcome: &Outcome) -> anyhow::Result<Vec<live::Passed>> {
    let _run = RunState::lock(&node.paths, LOCK_LIMIT).map_err(crate::reconcile::ReconcileError::from)?;
    let now: Inputs = node.inputs()?;
    let all = targets(&now);
    let suspects: Vec<&Target> =
        all.iter().filter(|target| outcome.passed.iter().any(|passed| passed.target == target.name)).collect();
    Ok(live::attack(outcome.bridge, &suspects).map_err(advised)?.passed)
}
