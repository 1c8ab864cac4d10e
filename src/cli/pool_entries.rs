//! What became of the entries of a pool, in words.

use std::net::IpAddr;

use super::output::{Output, told};
use crate::model::{PoolName, Problem};
use crate::ops::{AddressesAdded, Difference, Done, Rerouting, Retold};
use crate::registry::document::Enforce;

/// How many guests are named of those that a change of their pool concerns.
pub(super) const NAMED: usize = 10;

/// What came of entries that were added or changed, after a line for each or a table of them.
pub(super) fn added(done: &Done<AddressesAdded>, mut lines: Vec<String>) -> Output {
    let AddressesAdded { assumptions, withheld, rerouted, retold, .. } = &done.answer;
    lines.extend(assumptions.iter().chain(withheld).cloned());
    lines.extend(rerouted_lines(rerouted, retold));
    if done.answer.now_watched {
        lines.extend(watched_lines(&done.answer.pool, Enforce::Watch, &done.answer.losses));
    }
    Output::of(done, &lines, &[])
}

/// `cost 1.70 -> 2.00`.
pub(super) fn differences(differences: &[Difference]) -> String {
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    let one = |one: &Difference| format!("{} {} -> {}", one.what, shown(&one.before), shown(&one.after));
    differences.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Whose gateway is another one, and what became of that.
pub(super) fn rerouted_lines(rerouted: &[Rerouting], retold: &[Retold]) -> Vec<String> {
    let shown = |gateway: Option<IpAddr>| gateway.map_or_else(|| "none".to_owned(), |gateway| gateway.to_string());
    let line = |change: &Rerouting| {
        let Rerouting { vmid, interface, address, before, after } = change;
        format!("guest {vmid} {interface} {address}: gateway {} -> {}", shown(*before), shown(*after))
    };
    let mut lines: Vec<String> = rerouted.iter().take(NAMED).map(line).collect();
    if rerouted.len() > NAMED {
        lines.push(format!("and {} more addresses", rerouted.len() - NAMED));
    }
    for Retold { vmid, running, network, problem } in retold {
        lines.extend(network.lines());
        lines.extend(problem.iter().map(|problem| told("note", problem)));
        lines.extend(running.then(|| format!("guest {vmid} is running: it has the new gateway at its next boot")));
    }
    lines
}

/// That a pool is only watched, who would lose what if it were enforced, and how it is.
pub(super) fn watched_lines(pool: &PoolName, enforce: Enforce, losses: &[Problem]) -> Vec<String> {
    if enforce == Enforce::On {
        // Whom the guard keeps back is noted already.
        let lost: Vec<&Problem> = losses.iter().filter(|loss| !loss.hint.contains("--allow-mac")).collect();
        let is_lost = !lost.is_empty();
        let lost = lost.into_iter().map(|loss| told("note", loss));
        return is_lost.then(|| "from now on:".to_owned()).into_iter().chain(lost).collect();
    }
    let mut lines: Vec<String> = losses.iter().map(|loss| told("note", loss)).collect();
    let yes = if losses.is_empty() { "" } else { " --yes" };
    let mode = enforce.as_str();
    let what = if enforce == Enforce::Off {
        "nothing is filtered because of it"
    } else {
        "what is against its rules is counted, and passes"
    };
    lines.push(format!("pool {pool} is on {mode}: {what}"));
    if losses.iter().any(|loss| loss.hint.contains("--allow-mac")) {
        lines.push(format!("  to allow all MACs that are there: `pve-public-ip pool set {pool} --allow-present`"));
    }
    let who = if losses.is_empty() {
        "nobody that is known would lose anything"
    } else {
        "the guests above lose what is named"
    };
    lines.push(format!("  to enforce it: `pve-public-ip pool set {pool} --enforce on{yes}` ({who})"));
    lines
}
