//! `verify --active`: what gets through on the node's own bridges.

use std::time::Duration;

use anyhow::Context as _;

use super::advice;
use super::output::table;
use crate::code;
use crate::host::files;
use crate::model::Subject;
use crate::plan::Inputs;
use crate::reconcile::Node;
use crate::selftest::Error;
use crate::selftest::live::{self, Outcome};
use crate::selftest::targets::{Target, targets};
use crate::system::run::RunState;

/// How long to wait for whoever changes the node, before what got through is tried once more.
const LOCK_LIMIT: Duration = Duration::from_secs(30);

/// Addresses and MACs that are named; of more the number is said.
const SHOWN: usize = 10;

/// Attacks every bridge of a pool on which somebody is.
pub(super) fn attack(node: &Node) -> anyhow::Result<Vec<Outcome>> {
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
    for bridge in inputs.occupied_bridges() {
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

pub(super) fn text(outcomes: &[Outcome]) -> String {
    if outcomes.is_empty() {
        return "attacked: nothing, because nobody is on a bridge of a pool\n".to_owned();
    }
    let mut text = String::new();
    let mut rows = Vec::new();
    for Outcome { bridge, sent, passed, .. } in outcomes {
        for (group, sent) in sent {
            let through = passed.iter().filter(|passed| passed.group == *group).count();
            let counts = [*sent, sent - through, through].map(|count| count.to_string());
            rows.push([vec![bridge.to_string(), (*group).to_owned()], counts.to_vec()].concat());
        }
        let mut by_target: Vec<(&live::Passed, usize)> = Vec::new();
        for passed in passed {
            match by_target.last_mut() {
                Some((first, count)) if first.target == passed.target => *count += 1,
                _ => by_target.push((passed, 0)),
            }
        }
        for (first, others) in by_target.iter().take(SHOWN) {
            let others = if *others > 0 { format!(" (and {others} more frames like it)") } else { String::new() };
            text += &format!("passed: {}{others}: any guest on {bridge} can send it\n", first.frame);
        }
        if by_target.len() > SHOWN {
            text += &format!("passed: the same for {} more on {bridge}\n", by_target.len() - SHOWN);
        }
    }
    if !text.is_empty() {
        text += "hint: `pve-public-ip apply`; if they pass after that, `pve-public-ip selftest` tells whether it is the kernel\n";
    }
    table(&["bridge", "attack", "sent", "dropped", "passed"], &rows) + &text
}
