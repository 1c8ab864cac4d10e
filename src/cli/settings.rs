//! `node ...`: what is set for this node alone.

use std::net::IpAddr;

use serde_json::json;

use super::answers::NodeShown;
use super::output::Output;
use super::{LogGroup, NodeCommand, NodeSet};
use crate::guard::{ATTEMPTS, METRICS_INTERVAL};
use crate::model::IfName;
use crate::ops;
use crate::ops::settings::defaults;
use crate::plan::{Router, unknown_gateways};
use crate::reconcile::{Mode, Node};
use crate::registry::document::{Enforce, NodeFile, PortProgramUse};
use crate::registry::{Edit, Registry};
use crate::request::SetNode;
use crate::system::routers;
use crate::system::run::RunState;

pub(super) fn run(node: &Node, command: NodeCommand, dry_run: bool) -> anyhow::Result<Output> {
    match command {
        NodeCommand::Show => show(node),
        NodeCommand::Set(command) => set(node, command, dry_run),
    }
}

fn show(node: &Node) -> anyhow::Result<Output> {
    // A file that cannot be read is an error here: nothing else is asked for.
    let file = node.store.load_node().transpose()?.unwrap_or_else(defaults);
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
    let enforce = match file.enforce.unwrap_or_default() {
        Enforce::Off => "off, whatever the pools say",
        Enforce::Watch => "counting only, whatever the pools say",
        Enforce::On => "as the pools say",
    };
    let port_program = match file.port_program.unwrap_or_default() {
        PortProgramUse::Off => "none",
        PortProgramUse::Check => "checks what the rules cannot see",
    };
    let listener = if file.watch == Some(false) { ", left to others" } else { ", watched for conflicts" };
    let log_group = file.log_group.map_or_else(|| "none".to_owned(), |group| format!("{group}{listener}"));
    let text = format!(
        "node          {}\nuplinks       {uplinks}\nroute uplink  {route}\nlog group     {log_group}\nuplink guard  {enforce}\nport program  {port_program}\nbackend       {}\n\
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
    let data = NodeShown {
        node: node.name.clone(),
        routers: learnt,
        uplinks: file.uplinks,
        route_uplink: file.route_uplink,
        log_group: file.log_group,
        watch: file.watch != Some(false),
        enforce: file.enforce.unwrap_or_default(),
        port_program: file.port_program.unwrap_or_default(),
        backend: choice,
        routed_traffic_is_filtered_by: in_force,
        alert_mail: file.alert_mail,
        alert_exec: file.alert_exec,
        alert_attempts: file.alert_attempts,
        metrics_seconds: file.metrics_seconds,
        metrics_directory: file.metrics_directory,
    };
    Ok(Output::new(text, json!(data)))
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

/// The request that the arguments mean.
fn request(command: NodeSet) -> SetNode {
    fn edit<T>(value: Option<T>) -> Edit<T> {
        value.map_or(Edit::Keep, Edit::Set)
    }
    let uplinks = (!command.uplink.is_empty()).then(|| command.uplink.into_iter().collect());
    let or_any = |given: bool| command.any_uplink && !given;
    SetNode {
        backend: edit(command.backend),
        log_group: command.log_group.map_or(Edit::Keep, |LogGroup(group)| group.map_or(Edit::Erase, Edit::Set)),
        watch: edit(command.watch),
        enforce: edit(command.enforce),
        port_program: edit(command.port_program),
        uplinks: if or_any(uplinks.is_some()) { Edit::Erase } else { edit(uplinks) },
        route_uplink: if or_any(command.route_uplink.is_some()) { Edit::Erase } else { edit(command.route_uplink) },
        alert_mail: edit(command.alert_mail),
        alert_exec: edit(command.alert_exec),
        alert_attempts: edit(command.alert_attempts),
        metrics_seconds: edit(command.metrics_seconds),
        metrics_directory: edit(command.metrics_directory),
    }
}

fn set(node: &Node, command: NodeSet, dry_run: bool) -> anyhow::Result<Output> {
    let done = ops::set_node(node, request(command), dry_run)?;
    let verb = match (done.answer.changed, dry_run) {
        (false, _) => "unchanged",
        (true, false) => "changed",
        (true, true) => "would be changed",
    };
    Ok(Output::of(&done, &[format!("settings of node {} {verb}", node.name)], &[]))
}
