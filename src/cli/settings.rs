//! `node ...`: what is set for this node alone.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;

use super::node::settle;
use super::output::Output;
use super::{NodeCommand, NodeSet, advice};
use crate::code;
use crate::guard::{ATTEMPTS, METRICS_INTERVAL};
use crate::model::{IfName, Subject};
use crate::ops::{bridges, change};
use crate::plan::{Router, misnamed_uplink, unknown_gateways};
use crate::reconcile::{Mode, Node};
use crate::registry::document::{Document as _, NodeFile, VERSION};
use crate::registry::{Registry, RuleError};
use crate::system::routers;
use crate::system::run::RunState;

/// How long to wait for a hook or another command.
const LOCK_LIMIT: Duration = Duration::from_secs(30);

pub(super) fn run(node: &Node, command: &NodeCommand, dry_run: bool) -> anyhow::Result<Output> {
    match command {
        NodeCommand::Show => show(node),
        NodeCommand::Set(command) => set(node, command, dry_run),
    }
}

fn show(node: &Node) -> anyhow::Result<Output> {
    // A file that cannot be read is an error here: nothing else is asked for.
    let file = node.store.load_node().transpose()?.unwrap_or_else(new_file);
    let registry = Registry { node: Some(file.clone()), ..node.store.load()?.registry };
    let choice = file.backend.unwrap_or_default();
    let in_force = if registry.has_routed() {
        let run = RunState::unlocked(&node.paths);
        node.routed_filter(&run, &registry, Mode::Plan)?.backend.to_string()
    } else {
        "nothing, because no pool is routed".to_owned()
    };
    let uplinks = file.uplinks.as_ref().map_or_else(
        || "by their names".to_owned(),
        |names| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    );
    let route = file.route_uplink.map_or_else(|| "that of the default route".to_owned(), |device| device.to_string());
    let listener = if file.watch == Some(false) { ", left to others" } else { ", watched for conflicts" };
    let log_group = file.log_group.map_or_else(|| "none".to_owned(), |group| format!("{group}{listener}"));
    let text = format!(
        "node          {}\nuplinks       {uplinks}\nroute uplink  {route}\nlog group     {log_group}\nbackend       {}\n\
         routed by     {in_force}\nalerts        {}\nmetrics       {}\n",
        node.name,
        choice.as_str(),
        alerts_text(&file),
        metrics_text(&file)
    );
    let (learnt, unknown) = routers(node);
    let text =
        text + &learnt.iter().fold(String::new(), |text, router| format!("{text}router        {router}, learnt\n"));
    let text = unknown.iter().fold(text, |text, (bridge, address)| {
        format!("{text}router        {address} on {bridge}: MAC not known yet, so that a guest could use it\n")
    });
    let data = json!({
        "routers": learnt,
        "node": node.name, "uplinks": file.uplinks, "route_uplink": file.route_uplink, "log_group": file.log_group,
        "watch": file.watch != Some(false),
        "backend": choice, "routed_traffic_is_filtered_by": in_force, "alert_mail": file.alert_mail,
        "alert_exec": file.alert_exec, "alert_attempts": file.alert_attempts, "metrics_seconds": file.metrics_seconds,
        "metrics_directory": file.metrics_directory,
    });
    Ok(Output::new(text, data))
}

/// Routers whose MACs were learnt, and gateways whose MAC is not known and not named.
fn routers(node: &Node) -> (Vec<Router>, Vec<(IfName, IpAddr)>) {
    let learnt = routers::load(&node.paths);
    let unknown = node.inputs().map(|inputs| unknown_gateways(&inputs)).unwrap_or_default();
    (learnt, unknown)
}

fn alerts_text(file: &NodeFile) -> String {
    let mail = match file.alert_mail.as_deref() {
        None => "mail to root".to_owned(),
        Some("") => "no mail".to_owned(),
        Some(to) => format!("mail to {to}"),
    };
    let exec = file.alert_exec.as_ref().map_or_else(String::new, |program| format!(", {}", program.display()));
    let attempts = match file.alert_attempts.unwrap_or(ATTEMPTS) {
        0 => "attempts are not reported".to_owned(),
        frames => format!("attempts from {frames} frames an hour on"),
    };
    format!("{mail}{exec}; {attempts}")
}

fn metrics_text(file: &NodeFile) -> String {
    let directory = file.metrics_directory.as_ref();
    let directory = directory.map_or_else(|| "node_exporter's".to_owned(), |path| path.display().to_string());
    match file.metrics_seconds.unwrap_or(METRICS_INTERVAL.as_secs()) {
        0 => "none".to_owned(),
        seconds => format!("every {seconds} s, directory: {directory}"),
    }
}

/// One that says nothing.
fn new_file() -> NodeFile {
    NodeFile { version: VERSION, ..NodeFile::default() }
}

/// What the guard tells others. Only what is given here is changed.
fn tell(file: &mut NodeFile, command: &NodeSet) {
    let NodeSet { alert_mail, alert_exec, alert_attempts, metrics_seconds, metrics_directory, .. } = command;
    file.alert_mail = alert_mail.clone().or(file.alert_mail.take());
    file.alert_exec = alert_exec.clone().or(file.alert_exec.take());
    file.alert_attempts = alert_attempts.or(file.alert_attempts);
    file.metrics_seconds = metrics_seconds.or(file.metrics_seconds);
    file.metrics_directory = metrics_directory.clone().or(file.metrics_directory.take());
}

fn set(node: &Node, command: &NodeSet, dry_run: bool) -> anyhow::Result<Output> {
    let mut given = new_file();
    tell(&mut given, command);
    if let Some(reason) = given.contradiction() {
        return Err(advice(
            code!("contradictory-options"),
            Subject::Node,
            format!("the node's file would be wrong: it {reason}"),
            "nothing was changed",
        ));
    }
    let links = bridges::surroundings(node)?.links;
    for uplink in &command.uplink {
        let wrong = misnamed_uplink(&links, *uplink);
        if let Some((sentence, hint)) = wrong {
            let sentence = format!("cannot name the uplinks of node {}: {sentence}", node.name);
            return Err(advice(code!("uplink-misnamed"), Subject::Interface(*uplink), sentence, hint));
        }
        if links.get(*uplink).is_none() {
            let hint = "`ip -br link` and /etc/network/interfaces show what there is";
            let sentence = format!("this node has no interface {uplink}");
            return Err(advice(code!("unknown-interface"), Subject::Interface(*uplink), sentence, hint));
        }
    }
    let file = change(node, dry_run, |registry| {
        let file = registry.node.get_or_insert_with(new_file);
        if let Some(backend) = command.backend {
            file.backend = Some(backend);
        }
        if let Some(group) = command.log_group {
            file.log_group = group.0;
        }
        file.watch = command.watch.or(file.watch).filter(|watch| !watch);
        if command.any_uplink {
            file.uplinks = None;
        } else if !command.uplink.is_empty() {
            file.uplinks = Some(command.uplink.iter().copied().collect());
        }
        if let Some(device) = command.route_uplink {
            file.route_uplink = Some(device);
        } else if command.any_uplink {
            file.route_uplink = None;
        }
        tell(file, command);
        Ok::<_, RuleError>(file.clone())
    })?;
    if command.backend.is_some() && !dry_run {
        // `auto` asks to look again at what the node runs.
        RunState::lock(&node.paths, LOCK_LIMIT)?.forget_backend()?;
    }
    let output =
        Output::new(format!("settings of node {} changed", node.name), json!({ "node": node.name, "settings": file }));
    Ok(settle(node, dry_run, &Subject::Node, &output))
}
