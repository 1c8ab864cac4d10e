//! `doctor`: what surrounds the protection, and what is wrong with it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use serde::Serialize;
use serde_json::json;

use super::output::Output;
use super::{Doctor, advice};
use crate::audit::{Change, Event};
use crate::code;
use crate::doctor::{CHECKS, Check, Examination, Finding, Fix, Severity, UNIT, examine};
use crate::hookscript;
use crate::host::files;
use crate::model::NodeName;
use crate::model::Subject;
use crate::model::text::{escaped, one_line};
use crate::ops::proxmox::{self, Outcome};
use crate::paths::Paths;
use crate::plan::Step;
use crate::reconcile::{NODE_LOCK_LIMIT, Node};
use crate::store::journal::Durability;
use crate::survey;
use crate::system::run::RunState;
use crate::system::{Kernel, Reference};

/// What became of a finding that can be put right.
#[derive(Debug, Serialize)]
struct Deed {
    code: &'static str,
    subject: String,
    /// What was done, or would be.
    what: String,
    /// Why it could not be.
    error: Option<String>,
}

pub(super) fn doctor(paths: &Paths, command: &Doctor, dry_run: bool) -> anyhow::Result<Output> {
    if command.list {
        return Ok(list());
    }
    let mut facts = survey::facts(paths);
    let mut examination = examine(&facts);
    let mut deeds = Vec::new();
    if command.fix {
        deeds = match &facts.files {
            Ok(_) => fix(&Node::open(paths.clone())?, &examination.findings, dry_run),
            // Whoever opened the node now might wait for ever.
            Err(unreadable) => leave(&examination.findings, &unreadable.reason),
        };
        if !dry_run && !deeds.is_empty() {
            facts = survey::facts(paths);
            examination = examine(&facts);
        }
    }
    let node = facts.files.as_ref().ok().map(|files| &files.inputs.node);
    let code = if examination.is_good() { 0 } else { 3 };
    let deeds_text: String = deeds.iter().map(|deed| deed_text(deed, dry_run)).collect();
    let text = deeds_text + &examination_text(&examination) + &summary(node, &examination);
    let mut data = json!(examination);
    data["node"] = json!(node.map(NodeName::as_str));
    data["version"] = json!(env!("CARGO_PKG_VERSION"));
    data["checks"] = json!(CHECKS.len());
    if command.fix {
        data["fixes"] = json!(deeds);
    }
    Ok(Output::new(text, data).with_code(code))
}

/// Every check, whether it finds something or not.
fn list() -> Output {
    let line =
        |Check { code, severity, explanation, .. }: &Check| format!("{} {code}\n  {explanation}\n", severity.as_str());
    let entry = |Check { code, severity, explanation, .. }: &Check| json!({ "code": code, "severity": severity, "explanation": explanation });
    Output::new(
        CHECKS.iter().map(line).collect::<String>(),
        json!({ "checks": CHECKS.iter().map(entry).collect::<Vec<_>>() }),
    )
}

/// What a check means is said once, above all that it found.
fn examination_text(examination: &Examination) -> String {
    let mut text = String::new();
    for group in examination.findings.chunk_by(|one, two| one.code == two.code) {
        let Finding { code, severity, explanation, .. } = &group[0];
        text += &format!("{}: {code}: {explanation}\n", severity.as_str());
        for Finding { sentence, remedy, fixable, .. } in group {
            text += &format!("  {}\n", escaped(sentence));
            let by_itself = if *fixable { "`pve-public-ip doctor --fix`, or " } else { "" };
            if !remedy.is_empty() {
                text += &format!("    hint: {by_itself}{}\n", escaped(remedy));
            }
        }
    }
    let mut reasons: Vec<&str> = Vec::new();
    for unchecked in &examination.unchecked {
        if !reasons.contains(&unchecked.reason.as_str()) {
            reasons.push(&unchecked.reason);
        }
    }
    for reason in reasons {
        let same = examination.unchecked.iter().filter(|unchecked| unchecked.reason == reason);
        let codes: Vec<&str> = same.map(|unchecked| unchecked.code).collect();
        text += &format!("not checked, because {}: {}\n", one_line(reason), codes.join(", "));
    }
    text
}

fn summary(node: Option<&NodeName>, examination: &Examination) -> String {
    let count = |severity, one: &str, several: &str| match examination.count(severity) {
        1 => format!("1 {one}"),
        count => format!("{count} {several}"),
    };
    let parts = [
        count(Severity::Error, "error", "errors"),
        count(Severity::Warning, "warning", "warnings"),
        count(Severity::Info, "remark", "remarks"),
    ];
    let checks = match examination.unchecked.len() {
        0 => format!("{} checks", CHECKS.len()),
        unmade => format!("{} of {} checks", CHECKS.len() - unmade, CHECKS.len()),
    };
    let node = node.map_or_else(|| "this node".to_owned(), |node| format!("node {node}"));
    format!("{node}: {} in {checks}\n", parts.join(", "))
}

fn deed_text(deed: &Deed, dry_run: bool) -> String {
    let Deed { code, what, error, .. } = deed;
    match error {
        Some(error) => format!("not fixed: {code}: {what}: {}\n", one_line(error)),
        None if dry_run => format!("would fix: {code}: {what}\n"),
        None => format!("fixed: {code}: {what}\n"),
    }
}

/// Findings that can be put right, each way once.
fn fixable(findings: &[Finding]) -> Vec<(&Finding, &Fix)> {
    let mut found: Vec<(&Finding, &Fix)> = Vec::new();
    for finding in findings {
        if let Some(fix) = finding.fix.as_ref().filter(|fix| found.iter().all(|(_, known)| known != fix)) {
            found.push((finding, fix));
        }
    }
    found
}

fn fix(node: &Node, findings: &[Finding], dry_run: bool) -> Vec<Deed> {
    let deed = |(finding, fix): (&Finding, &Fix)| {
        let (what, outcome) = perform(node, fix, dry_run);
        let error = outcome.err().map(|error| format!("{error:#}"));
        if error.is_none() && !dry_run {
            node.store.journal.record(vec![Change::said(Event::Repaired, what.as_str())], Durability::Soon);
        }
        Deed { code: finding.code, subject: finding.subject.clone(), what, error }
    };
    fixable(findings).into_iter().map(deed).collect()
}

/// Nothing is done, for this reason.
fn leave(findings: &[Finding], reason: &str) -> Vec<Deed> {
    let deed = |(finding, _): (&Finding, &Fix)| Deed {
        code: finding.code,
        subject: finding.subject.clone(),
        what: finding.remedy.clone(),
        error: Some(reason.to_owned()),
    };
    fixable(findings).into_iter().map(deed).collect()
}

/// What a fix does, in words, and how it went.
fn perform(node: &Node, fix: &Fix, dry_run: bool) -> (String, anyhow::Result<()>) {
    match fix {
        Fix::PlaceHookscript(path) => {
            let place = || {
                path.parent().map_or(Ok(()), files::directories)?;
                files::replace_script(path, hookscript::SCRIPT.as_bytes())
            };
            let done = if dry_run { Ok(()) } else { place() };
            (format!("put our hookscript at `{}`", path.display()), done.map_err(Into::into))
        }
        Fix::MakeExecutable(path) => {
            let done = if dry_run { Ok(()) } else { fs::set_permissions(path, Permissions::from_mode(0o755)) };
            (format!("set the mode of `{}` to 0755", path.display()), done.map_err(Into::into))
        }
        Fix::RegisterHookscript(vmid) => match node.guests.find(*vmid, None) {
            Ok(located) => called("set the hookscript", proxmox::register(node, *vmid, &located, dry_run)),
            Err(error) => ("set the hookscript".to_owned(), Err(error.into())),
        },
        Fix::EnableGuard => {
            called("let systemd start the guard", proxmox::call(node, "systemctl", &["enable", "--now", UNIT], dry_run))
        }
        Fix::DeafenBridge(bridge) => {
            let step = Step::SetDeafBridge(*bridge);
            let apply = || -> anyhow::Result<()> {
                let _run = RunState::lock(&node.paths, NODE_LOCK_LIMIT)?;
                Ok(Kernel::open(Reference::default())?.apply_step(&step)?)
            };
            (format!("let {bridge} learn nothing from link-local frames"), if dry_run { Ok(()) } else { apply() })
        }
    }
}

fn called(what: &str, outcome: Outcome) -> (String, anyhow::Result<()>) {
    match outcome {
        Outcome::Done { command } => (format!("{what}: {command}"), Ok(())),
        Outcome::WouldBeDone { command } => (format!("{what}: {command} (not run)"), Ok(())),
        Outcome::AsWanted => (what.to_owned(), Ok(())),
        Outcome::LeftToDo { reason, command } | Outcome::Failed { reason, command } => {
            (what.to_owned(), Err(advice(code!("command-failed"), Subject::Node, reason, command)))
        }
    }
}
