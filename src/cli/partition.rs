//! `partition`: subnets for the networks behind. Reads, prints, and writes nothing but a plan that is to be saved.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::answers::{Compared, PartitionChecked, Planned, Strategies};
use super::output::{Output, table};
use super::{PartitionCommand, PartitionForm, PartitionNeeds, PartitionPlan, advice};
use crate::code;
use crate::doctor::Severity;
use crate::host::files;
use crate::model::Subject;
use crate::model::text::escaped;
use crate::partition::{
    Declared, Finding, Network, Plan, PlanError, Request, Strategy, Weight, check, gather, parse_declared, parse_plan,
    parse_sdn, plan, planned_map, rule_rows, script, stanzas, subnet_rows, today_map, weight_rows,
};
use crate::paths::Paths;
use crate::survey;
use crate::topology::{dot, mermaid};

/// Larger than any file that people write, or any plan of a /8.
const FILE_LIMIT: usize = 64 << 20;

pub(super) fn run(paths: &Paths, command: &PartitionCommand, dry_run: bool) -> anyhow::Result<Output> {
    match command {
        PartitionCommand::Plan(command) => planned(paths, command, dry_run),
        PartitionCommand::Compare(needs) => compared(paths, needs),
        PartitionCommand::Check { plan, from } => checked(paths, plan.as_deref(), from),
    }
}

fn request(strategy: Strategy, needs: &PartitionNeeds) -> Request {
    let PartitionNeeds { base, base6, growth, vlan_range, .. } = needs;
    Request { strategy, base: *base, base6: *base6, growth: *growth, vlan_range: *vlan_range }
}

/// The network, and what should be said of it.
fn network(paths: &Paths, from: &str) -> anyhow::Result<Network> {
    let declared = if from == "tags" {
        Declared::default()
    } else {
        let path = Path::new(from);
        let text = read(path)?.with_context(|| format!("there is no file `{from}`"))?;
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        parse_declared(&text, is_toml).map_err(|error| {
            advice(
                code!("labels-invalid"),
                Subject::File(from.to_owned()),
                format!("`{from}`: {error}"),
                "`pve-public-ip schema labels` has all keys and their values",
            )
        })?
    };
    let site = survey::site(paths);
    let files = site.files.map_err(|unreadable| {
        advice(code!("etc-pve-unreadable"), Subject::Node, unreadable.reason, unreadable.remedy)
    })?;
    let mut inputs = files.inputs;
    inputs.links = site.links;
    let [subnets, vnets] = ["subnets.cfg", "vnets.cfg"].map(|name| {
        let bytes = files::read_limited(&paths.etc_pve().join("sdn").join(name), FILE_LIMIT).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let mut network = gather(&inputs, &site.interfaces, &parse_sdn(&subnets, &vnets), &declared);
    network.notes.extend(site.unknown.iter().map(|reason| format!("not looked at: {reason}")));
    network.notes.extend(files.unreadable.iter().map(|(vmid, reason)| format!("guest {vmid} is left out: {reason}")));
    network.notes.extend(inputs.registry.broken.iter().map(|error| format!("not looked at: {error}")));
    Ok(network)
}

/// A file of the administrator's; none if it does not exist.
fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match files::read_limited(path, FILE_LIMIT) {
        Ok(bytes) => Ok(Some(String::from_utf8(bytes).with_context(|| format!("`{}` is not UTF-8", path.display()))?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    }
}

fn read_plan(path: &Path) -> anyhow::Result<Option<Plan>> {
    let Some(text) = read(path)? else { return Ok(None) };
    let parsed = parse_plan(&text).map_err(|error| {
        let hint = "take the file as `partition plan --save` wrote it, or move it away to begin anew";
        let subject = Subject::File(path.display().to_string());
        advice(code!("plan-invalid"), subject, format!("`{}` is no plan: {error}", path.display()), hint)
    })?;
    Ok(Some(parsed))
}

fn planned(paths: &Paths, command: &PartitionPlan, dry_run: bool) -> anyhow::Result<Output> {
    let previous = command.plan.as_deref().map(read_plan).transpose()?.flatten();
    let network = network(paths, &command.needs.from)?;
    let made = plan(&network, &request(command.strategy, &command.needs), previous.as_ref())
        .map_err(|error| advice(code!("no-room-for-subnets"), Subject::Command, error.to_string(), error.hint()))?;
    let saved = command.plan.as_deref().filter(|_| command.save && !dry_run);
    if let Some(path) = saved {
        let text = serde_json::to_string_pretty(&made)? + "\n";
        files::publish_named(path, text.as_bytes()).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    let text = match command.format {
        PartitionForm::Text => plan_text(&network, &made),
        PartitionForm::Mermaid => {
            format!(
                "%% before\n{}\n%% after\n{}",
                mermaid(&today_map(&network)),
                mermaid(&planned_map(&network, &made))
            )
        }
        PartitionForm::Dot => dot(&planned_map(&network, &made)),
        PartitionForm::DotBefore => dot(&today_map(&network)),
        PartitionForm::Sdn => script(&made, &command.zone, command.bridge),
        PartitionForm::Interfaces => stanzas(&made, command.bridge),
    };
    for note in network.notes.iter().filter(|_| command.format != PartitionForm::Text) {
        log::warn!("{note}");
    }
    Ok(Output::new(text, json!(Planned { plan: made, remarks: network.notes })))
}

fn plan_text(network: &Network, plan: &Plan) -> String {
    let headers = ["subnet of", "vlan", "addresses", "gateway", "dhcp", "guests", "who"];
    let mut text = table(&headers, &subnet_rows(plan));
    if !plan.rules.is_empty() {
        text += &table(&["from", "to", "allow"], &rule_rows(plan));
    }
    text += &weights(&[(plan.strategy, Ok(plan.weight.clone()))]);
    text + &notes(network)
}

fn weights(weights: &[(Strategy, Result<Weight, String>)]) -> String {
    let headers =
        ["strategy", "subnets", "flows across", "rules", "beside critical", "addresses used", "addresses free"];
    table(&headers, &weight_rows(weights))
}

fn notes(network: &Network) -> String {
    let mut text: String = network.notes.iter().map(|note| format!("note: {note}\n")).collect();
    if network.flows.is_empty() {
        text += "note: no flows are declared, so flows across and rules are not counted: --from FILE declares some\n";
    }
    if network.members.is_empty() {
        text += "note: there is no guest behind a router, and none with a tag app-, svc- or zone-: nothing to plan\n";
    }
    text
}

fn compared(paths: &Paths, needs: &PartitionNeeds) -> anyhow::Result<Output> {
    let network = network(paths, &needs.from)?;
    let made = Strategy::ALL.map(|strategy| (strategy, plan(&network, &request(strategy, needs), None)));
    // What is wrong with the arguments is wrong with all three.
    if let (_, Err(error @ (PlanError::Base(_) | PlanError::Base6 { .. }))) = &made[0] {
        return Err(advice(code!("no-room-for-subnets"), Subject::Command, error.to_string(), error.hint()));
    }
    let rows = made.map(|(strategy, made)| (strategy, made.map(|plan| plan.weight).map_err(|error| error.to_string())));
    let text = weights(&rows) + &notes(&network);
    let strategies = rows.into_iter().map(|(strategy, weight)| {
        let (weight, problem) = match weight {
            Ok(weight) => (Some(weight), None),
            Err(reason) => (None, Some(reason)),
        };
        Compared { strategy, weight, problem }
    });
    let data = Strategies { strategies: strategies.collect(), remarks: network.notes };
    Ok(Output::new(text, json!(data)))
}

fn checked(paths: &Paths, file: Option<&Path>, from: &str) -> anyhow::Result<Output> {
    let plan = match file {
        Some(path) => Some(read_plan(path)?.with_context(|| format!("there is no file `{}`", path.display()))?),
        None => None,
    };
    let network = network(paths, from)?;
    let findings = check(&network, plan.as_ref());
    let line = |finding: &Finding| {
        let severity = finding.severity.as_str();
        format!(
            "{severity}: {}: {}\n    hint: {}\n",
            finding.code,
            escaped(&finding.sentence),
            escaped(&finding.remedy)
        )
    };
    let mut text: String = findings.iter().map(line).collect();
    let counts = findings.iter().filter(|finding| finding.severity != Severity::Info).count();
    if counts == 0 {
        text += &format!("{} guests: nothing to be done\n", network.members.len());
    }
    text += &network.notes.iter().map(|note| format!("note: {note}\n")).collect::<String>();
    let data = json!(PartitionChecked { findings, remarks: network.notes });
    Ok(Output::new(text, data).with_code(if counts == 0 { 0 } else { 3 }))
}
