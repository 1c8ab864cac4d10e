//! `selftest`: what came of attacking the rules, for people and for programs.

use std::collections::BTreeMap;

use serde_json::json;

use super::answers::{NotRun, Played, Selftested};
use super::output::{Output, table};
use super::{Selftest, advice};
use crate::code;
use crate::model::Subject;
use crate::registry::document::BackendChoice;
use crate::ruleset::{RULES, Variant};
use crate::selftest::{self, Report, Row, Selection};
use crate::system::{KernelError, xtables};

pub(super) fn run(command: Selftest, verbose: bool) -> anyhow::Result<Output> {
    if !nix::unistd::geteuid().is_root() {
        return Err(advice(
            code!("not-root"),
            Subject::Command,
            "the selftest makes network namespaces, which only root may",
            "run it as root",
        ));
    }
    let variant = match command.backend.unwrap_or_default() {
        BackendChoice::Auto | BackendChoice::Nftables => None,
        BackendChoice::Iptables => Some(xtables::preferred().map_err(KernelError::from)?),
        BackendChoice::IptablesLegacy => Some(Variant::Legacy),
        BackendChoice::IptablesNft => Some(Variant::Nft),
    };
    let selection = Selection { class: command.class, topology: command.topology, variant };
    let report = selftest::run(&selection, RULES).map_err(|error| match error {
        selftest::Error::NothingSelected => advice(
            code!("nothing-selected"),
            Subject::Command,
            error.to_string(),
            "`pve-public-ip selftest --verbose` names all classes and topologies",
        ),
        error => error.into(),
    })?;
    let code = u8::from(!report.is_good());
    Ok(Output::new(text(&report, verbose), json!(data(&report))).with_code(code))
}

fn verdict(passes: bool) -> &'static str {
    if passes { "pass" } else { "drop" }
}

fn text(report: &Report, verbose: bool) -> String {
    let mut text = format!("kernel {}, nft {}: ", report.kernel, report.nft);
    if report.missing.is_empty() {
        text += "nothing missing\n";
    } else {
        text += &format!("{} missing\n", report.missing.len());
    }
    for missing in &report.missing {
        text += &format!("missing: {} ({}): {}\n", missing.feature, missing.reason, missing.meaning);
    }
    if verbose {
        let rows: Vec<Vec<String>> = report.rows.iter().map(cells).collect();
        text += &table(&ROW_HEADERS, &rows);
    } else {
        text +=
            &table(&["topology", "must drop", "dropped", "must pass", "passed"], &summary(report, |row| row.topology));
        text += &table(&["class", "must drop", "dropped", "must pass", "passed"], &summary(report, |row| row.group));
        let wrong: Vec<Vec<String>> =
            report.rows.iter().filter(|row| row.leaked() || row.broken()).map(cells).collect();
        if !wrong.is_empty() {
            text += &table(&ROW_HEADERS, &wrong);
        }
    }
    for topology in &report.not_run {
        let optional = if topology.optional { " (a node can do without)" } else { "" };
        text += &format!("not run: {}{optional}: {}\n", topology.topology, topology.reason);
    }
    let (leaked, broken) = (report.leaked(), report.broken());
    let good = report.rows.len() - leaked - broken;
    let not_run = match report.not_run.len() {
        0 => String::new(),
        1 => ", 1 topology not run".to_owned(),
        count => format!(", {count} topologies not run"),
    };
    text + &format!(
        "{} frames in {} topologies: {good} as expected, {leaked} leaked, {broken} broken{not_run} ({:.1} s)\n",
        report.rows.len(),
        report.topologies(),
        report.duration.as_secs_f64()
    )
}

const ROW_HEADERS: [&str; 5] = ["class", "topology", "sender", "expected", "got"];

fn cells(row: &Row) -> Vec<String> {
    let seen = if row.leaked() {
        let names: Vec<&str> = row.got.seen.iter().map(crate::model::IfName::as_str).collect();
        format!("LEAKED to {}", names.join(", "))
    } else {
        row.got.text()
    };
    let class = format!("{}: {}", row.group, row.class);
    vec![class, row.topology.to_owned(), row.sender.to_string(), verdict(row.passes).to_owned(), seen]
}

/// One line for each key, in the order in which they were played.
fn summary(report: &Report, key: impl Fn(&Row) -> &'static str) -> Vec<Vec<String>> {
    let mut order = Vec::new();
    let mut counts: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for row in &report.rows {
        let count = counts.entry(key(row)).or_insert_with(|| {
            order.push(key(row));
            [0; 4]
        });
        let at = if row.passes { 2 } else { 0 };
        count[at] += 1;
        count[at + 1] += usize::from(!row.leaked() && !row.broken());
    }
    let line =
        |key: &&str| std::iter::once((*key).to_owned()).chain(counts[key].map(|count| count.to_string())).collect();
    order.iter().map(line).collect()
}

fn data(report: &Report) -> Selftested {
    let row = |row: &Row| Played {
        topology: row.topology.to_string(),
        sender: row.sender.to_string(),
        group: row.group.to_string(),
        class: row.class.clone(),
        expected: verdict(row.passes).to_string(),
        got: row.got.text(),
        seen: row.got.seen.iter().map(ToString::to_string).collect(),
        leaked: row.leaked(),
        broken: row.broken(),
    };
    let not_run = report.not_run.iter().map(|entry| NotRun {
        topology: entry.topology.to_string(),
        reason: entry.reason.clone(),
        optional: entry.optional,
    });
    Selftested {
        kernel: report.kernel.clone(),
        nft: report.nft.clone(),
        missing: report.missing.clone(),
        rows: report.rows.iter().map(row).collect(),
        not_run: not_run.collect(),
        frames: report.rows.len(),
        topologies: report.topologies(),
        leaked: report.leaked(),
        broken: report.broken(),
        good: report.is_good(),
        seconds: report.duration.as_secs_f64(),
    }
}
