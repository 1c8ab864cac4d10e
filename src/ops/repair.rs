//! Examines what surrounds the protection, and puts right what is safe to put right.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use schemars::JsonSchema;
use serde::Serialize;

use super::proxmox::{self, Outcome};
use super::{advice, told};
use crate::audit::{Change, Event};
use crate::code;
use crate::doctor::{CHECKS, Examination, Finding, Fix, UNIT, examine};
use crate::hookscript;
use crate::host::files;
use crate::model::{NodeName, Problem, Subject};
use crate::paths::Paths;
use crate::plan::Step;
use crate::reconcile::{NODE_LOCK_LIMIT, Node};
use crate::store::journal::Durability;
use crate::survey;
use crate::system::run::RunState;
use crate::system::{Kernel, Reference};

/// What an examination found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Examined {
    /// The findings, and what could not be checked.
    #[serde(flatten)]
    pub examination: Examination,
    /// The node, if its name could be told.
    pub node: Option<NodeName>,
    /// This release.
    pub version: &'static str,
    /// How many checks there are.
    pub checks: usize,
    /// What was put right, if that was asked for.
    pub fixes: Option<Vec<Deed>>,
    /// Whether nothing was put right, but only said what would be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub dry_run: bool,
}

/// What became of a finding that can be put right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Deed {
    /// The finding's code.
    pub code: &'static str,
    /// What it is about.
    pub subject: String,
    /// What was done, or would be.
    pub what: String,
    /// Why it could not be.
    pub error: Option<String>,
}

/// Examines the node. What hangs or cannot be read is among what is found.
pub fn examine_node(paths: &Paths) -> Examined {
    let facts = survey::facts(paths);
    let node = facts.files.as_ref().ok().map(|files| files.inputs.node.clone());
    let (version, checks) = (env!("CARGO_PKG_VERSION"), CHECKS.len());
    Examined { examination: examine(&facts), node, version, checks, fixes: None, dry_run: false }
}

/// Examines the node, puts right what can be put right safely, and examines it again.
pub fn repair(paths: &Paths, dry_run: bool) -> Result<Examined, Problem> {
    // Whoever opened a node whose files hang might wait for ever.
    repair_by(paths, dry_run, || told(Node::open(paths.clone()).map_err(anyhow::Error::from)))
}

/// The same for a node that is open.
pub fn repair_node(node: &Node, dry_run: bool) -> Result<Examined, Problem> {
    repair_by(&node.paths, dry_run, || Ok(node.clone()))
}

fn repair_by(paths: &Paths, dry_run: bool, open: impl FnOnce() -> Result<Node, Problem>) -> Result<Examined, Problem> {
    let facts = survey::facts(paths);
    let findings = examine(&facts).findings;
    let fixes = match &facts.files {
        Ok(_) => fix(&open()?, &findings, dry_run),
        Err(unreadable) => leave(&findings, &unreadable.reason),
    };
    Ok(Examined { fixes: Some(fixes), dry_run, ..examine_node(paths) })
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
