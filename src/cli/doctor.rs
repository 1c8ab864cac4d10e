//! `doctor`: what surrounds the protection, and what is wrong with it.

use serde_json::json;

use super::Doctor;
use super::answers::{CheckListed, Checks};
use super::output::Output;
use crate::doctor::{CHECKS, Check, Examination, Finding, Severity};
use crate::model::NodeName;
use crate::model::text::{escaped, one_line};
use crate::ops::{self, Deed};
use crate::paths::Paths;

pub(super) fn doctor(paths: &Paths, command: &Doctor, dry_run: bool) -> anyhow::Result<Output> {
    if command.list {
        return Ok(list());
    }
    let examined = if command.fix { ops::repair(paths, dry_run)? } else { ops::examine_node(paths) };
    let examination = &examined.examination;
    let code = if examination.is_good() { 0 } else { 3 };
    let deeds = examined.fixes.iter().flatten();
    let text: String = deeds.map(|deed| deed_text(deed, dry_run)).collect();
    let text = text + &examination_text(examination) + &summary(examined.node.as_ref(), examination);
    Ok(Output::new(text, json!(examined)).with_code(code))
}

/// Every check, whether it finds something or not.
fn list() -> Output {
    let line =
        |Check { code, severity, explanation, .. }: &Check| format!("{} {code}\n  {explanation}\n", severity.as_str());
    let entry =
        |Check { code, severity, explanation, .. }: &Check| CheckListed { code, severity: *severity, explanation };
    Output::new(
        CHECKS.iter().map(line).collect::<String>(),
        json!(Checks { checks: CHECKS.iter().map(entry).collect() }),
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
