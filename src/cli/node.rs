//! `plan`, `apply`, `verify` and `hook`: the node's state.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::answers::{Delivered, Verified};
use super::output::{Output, UNREADABLE, advised, first_ones, notes_text, problems_text};
use super::{GuardOptions, Hook, Verify, active, advice};
use crate::code;
use crate::doctor::UNIT;
use crate::guard::{self, courier};
use crate::hook;
use crate::model::NodeName;
use crate::ops::{self, Applied};
use crate::plan::{self, Problem, Step, Subject};
use crate::reconcile::{Node, Report, notes_on_ports};
use crate::system::run::RunState;

/// Problems, then what may surprise, of which only the first ones are shown unless `all` is asked for.
fn remarks(report: &Report, all: bool) -> String {
    problems_text(&report.problems, all) + &notes_text(&report.notes, all)
}

fn drift_text(wrong: &[Problem], all: bool) -> String {
    let line = |drift: &Problem| ("drift of network data", advised("drift", &drift.sentence, &drift.hint));
    first_ones(wrong.iter().map(line), all, "verify")
}

fn steps_text(steps: &[Step], all: bool) -> String {
    first_ones(steps.iter().map(|step| (step.kind(), format!("{step}\n"))), all, "plan")
}

pub(super) fn plan(node: &Node, all: bool) -> anyhow::Result<Output> {
    let planned = ops::plan(node)?;
    let steps = steps_text(&planned.report.steps, all);
    let text = if steps.is_empty() { "nothing to do\n".to_owned() } else { steps };
    Ok(graded(&planned.report, Output::new(text + &remarks(&planned.report, all), json!(planned))))
}

/// What cannot be read makes the command fail, whatever was done in spite of it.
fn graded(report: &Report, output: Output) -> Output {
    if report.unreadable > 0 { Output { code: UNREADABLE, ..output } } else { output }
}

pub(super) fn apply(node: &Node, dry_run: bool) -> anyhow::Result<Output> {
    if dry_run {
        return plan(node, false);
    }
    let applied = ops::apply(node)?;
    let report = &applied.report;
    let changes: usize = report.steps.iter().map(step_size).sum();
    let text = match changes {
        0 if report.failed.is_empty() => "nothing to do\n".to_owned(),
        0 => "nothing was changed\n".to_owned(),
        changes => {
            let steps: String = report.steps.iter().map(|step| format!("{step}\n")).collect();
            format!("{steps}{changes} changes made\n")
        }
    };
    let code = u8::from(!report.failed.is_empty());
    let text = text + &drift_text(&applied.images, false) + &remarks(report, false);
    Ok(graded(report, Output { code, ..Output::new(text, json!(applied)) }))
}

/// Gateways that are named; of more nothing is said.
const NAMED: usize = 10;

fn step_size(step: &Step) -> usize {
    match step {
        Step::ChangeElements { add, remove } => add.len() + remove.len(),
        _ => 1,
    }
}

/// Without the guard a port that appears is drift until somebody applies, although nobody has changed anything.
fn unguarded(node: &Node, steps: &[Step]) -> Option<Problem> {
    let is_new = |step: &Step| matches!(step, Step::ScreenPort(_));
    let is_guarded = RunState::guard_note(&node.paths).is_some_and(|note| note.is_alive());
    (!is_guarded && steps.iter().any(is_new)).then(|| {
        let sentence = "no guard runs on this node: the filter holds for ports that appear, but they are not screened \
            before the next `apply`";
        let hint = format!("the guard screens them at once: `systemctl enable --now {UNIT}`");
        Problem::of_node(code!("guard-not-running"), sentence, hint)
    })
}

pub(super) fn verify(node: &Node, command: &Verify) -> anyhow::Result<Output> {
    let mut report = node.compare()?;
    let mut meanings: Vec<String> = report.steps.iter().flat_map(Step::meanings).collect();
    // Twin sets (a MAC as sender and inside neighbour discovery) mean the same.
    let mut said = BTreeSet::new();
    meanings.retain(|meaning| said.insert(meaning.clone()));
    let lines = meanings.iter().map(|meaning| ("drift", format!("drift: {meaning}\n")));
    let mut text = first_ones(lines, command.all, "verify");
    if !meanings.is_empty() {
        text += "hint: `pve-public-ip apply` repairs it\n";
    }
    report.notes.extend(unguarded(node, &report.steps));
    report.notes.extend(notes_on_ports(&node.paths, &report.ports));
    let wrong = ops::images(node, &mut report)?;
    text += &drift_text(&wrong, command.all);
    meanings.extend(wrong.into_iter().map(|drift| drift.sentence));
    if text.is_empty() && report.problems.is_empty() {
        let guests = match report.presence.len() {
            0 => "no guest is bound".to_owned(),
            1 => "1 guest is bound".to_owned(),
            count => format!("{count} guests are bound"),
        };
        text = if report.is_idle {
            format!("node {}: nothing to protect yet, there is no pool\n", node.name)
        } else {
            format!("node {}: the kernel is as it should be, {guests}\n", node.name)
        };
    }
    text += &remarks(&report, command.all);
    let (mut attacks, mut unknown_gateways) = (None, None);
    let mut is_leaky = false;
    if command.active {
        let attacked = ops::active::attack(node)?;
        text += &active::text(&attacked);
        let unknown = plan::unknown_gateways(&node.inputs()?);
        for (bridge, gateway) in unknown.iter().take(NAMED) {
            text += &format!(
                "not attacked: the MAC of the gateway {gateway} on {bridge}, which is not known and not protected\n"
            );
        }
        if !unknown.is_empty() {
            text +=
                "hint: `pve-public-ip apply` asks for it; `pve-public-ip pool set NAME --gateway-mac MAC` names it\n";
        }
        is_leaky = attacked.iter().any(|outcome| !outcome.passed.is_empty());
        (attacks, unknown_gateways) = (Some(attacked), Some(unknown));
    }
    let code = match (meanings.is_empty() && !is_leaky, report.problems.is_empty()) {
        (false, _) => 3,
        (true, false) => 1,
        (true, true) => 0,
    };
    let applied = Applied::from(report);
    let data = json!(Verified {
        steps: applied.steps,
        problems: applied.problems,
        drift: meanings,
        active: attacks,
        unknown_gateways,
    });
    let output = Output { notes: applied.notes, ..Output::new(text, data) };
    Ok(graded(&applied.report, output.with_code(code)))
}

pub(super) fn guard(node: Node, command: &GuardOptions, dry_run: bool) -> anyhow::Result<Output> {
    if dry_run {
        return Err(advice(
            code!("no-dry-run"),
            Subject::Command,
            "the guard cannot pretend",
            "`pve-public-ip plan` shows what it would do now",
        ));
    }
    if let Some(address) = &command.listen {
        // It ran with this before an upgrade: the guests are to be protected whatever became of the metrics.
        log::warn!("--listen {address}: the guard serves no metrics any more, and goes on without");
        log::warn!(
            "hint: pve-public-ip-gateway has them at http://127.0.0.1:1537/metrics; then \
             `rm /etc/systemd/system/pve-public-ip.service.d/listen.conf; systemctl daemon-reload`"
        );
    }
    guard::run(node)?;
    Ok(Output::new("", Value::Null))
}

pub(super) fn deliver(node: &Node, dry_run: bool) -> anyhow::Result<Output> {
    if dry_run {
        return Err(advice(
            code!("no-dry-run"),
            Subject::Command,
            "messages are sent or not",
            "`ls /run/pve-public-ip/alerts` shows what waits",
        ));
    }
    let directory = node.paths.messages();
    let count = courier::deliver(&node.paths).with_context(|| format!("cannot use `{}`", directory.display()))?;
    Ok(Output::new("", json!(Delivered { messages: count })))
}

pub(super) fn hook(node: &Node, command: &Hook) -> anyhow::Result<Output> {
    // Set but empty on an ordinary start: Proxmox VE assigns it unconditionally.
    let source = std::env::var("PVE_MIGRATED_FROM").ok().filter(|name| !name.is_empty());
    let source: Option<NodeName> = source.map(|name| name.parse()).transpose()?;
    hook::run(node, command.vmid, command.phase, source.as_ref())?;
    Ok(Output::new("", Value::Null))
}
