//! What is set for this node alone: uplinks, logging, alerts, metrics, what filters routed traffic.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Done, advice, bridges, change, follow, told};
use crate::code;
use crate::model::{NodeName, Problem, Subject};
use crate::plan::misnamed_uplink;
use crate::reconcile::{NODE_LOCK_LIMIT, Node};
use crate::registry::document::{Document as _, Enforce, NodeFile, PortProgramUse, VERSION};
use crate::request::SetNode;
use crate::system::run::RunState;

/// The settings of a node after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NodeChanged {
    /// The node.
    pub node: NodeName,
    /// Whether a setting differs from before.
    pub changed: bool,
    /// The settings as they are now.
    pub settings: NodeFile,
}

/// Changes settings of this node.
pub fn set_node(node: &Node, request: SetNode, dry_run: bool) -> Result<Done<NodeChanged>, Problem> {
    told(set(node, request, dry_run))
}

/// Settings of which every one is the default.
pub(crate) fn defaults() -> NodeFile {
    NodeFile { version: VERSION, ..NodeFile::default() }
}

fn edit(file: &mut NodeFile, request: SetNode) {
    file.backend = request.backend.of(file.backend);
    file.log_group = request.log_group.of(file.log_group);
    // The default does not stand in the file.
    file.watch = request.watch.of(file.watch).filter(|watch| !watch);
    file.enforce = request.enforce.of(file.enforce).filter(|enforce| *enforce != Enforce::On);
    file.port_program = request.port_program.of(file.port_program).filter(|choice| *choice != PortProgramUse::Check);
    file.uplinks = request.uplinks.of(file.uplinks.take());
    file.route_uplink = request.route_uplink.of(file.route_uplink);
    file.alert_mail = request.alert_mail.of(file.alert_mail.take());
    file.alert_exec = request.alert_exec.of(file.alert_exec.take());
    file.alert_attempts = request.alert_attempts.of(file.alert_attempts);
    file.metrics_seconds = request.metrics_seconds.of(file.metrics_seconds);
    file.metrics_directory = request.metrics_directory.of(file.metrics_directory.take());
}

fn set(node: &Node, request: SetNode, dry_run: bool) -> anyhow::Result<Done<NodeChanged>> {
    let mut given = defaults();
    edit(&mut given, request.clone());
    if let Some(reason) = given.contradiction() {
        return Err(advice(
            code!("contradictory-options"),
            Subject::Node,
            format!("the node's file would be wrong: it {reason}"),
            "nothing was changed",
        ));
    }
    check_uplinks(node, &given)?;
    let asks_for_backend = !request.backend.is_keep();
    let (changed, settings) = change(node, dry_run, |registry| {
        let file = registry.node.get_or_insert_with(defaults);
        let before = file.clone();
        edit(file, request);
        Ok((before != *file, file.clone()))
    })?;
    if asks_for_backend && !dry_run {
        // `auto` asks to look again at what the node runs.
        RunState::lock(&node.paths, NODE_LOCK_LIMIT)?.forget_backend()?;
    }
    let answer = NodeChanged { node: node.name.clone(), changed, settings };
    Ok(follow::follow(node, dry_run, &Subject::Node, answer))
}

/// Refuses uplinks that do not exist or cannot lead to the provider.
fn check_uplinks(node: &Node, given: &NodeFile) -> anyhow::Result<()> {
    let Some(uplinks) = &given.uplinks else { return Ok(()) };
    let links = bridges::surroundings(node)?.links;
    for uplink in uplinks {
        if let Some((sentence, hint)) = misnamed_uplink(&links, *uplink) {
            let sentence = format!("cannot name the uplinks of node {}: {sentence}", node.name);
            return Err(advice(code!("uplink-misnamed"), Subject::Interface(*uplink), sentence, hint));
        }
        if links.get(*uplink).is_none() {
            let hint = "`ip -br link` and /etc/network/interfaces show what there is";
            let sentence = format!("this node has no interface {uplink}");
            return Err(advice(code!("unknown-interface"), Subject::Interface(*uplink), sentence, hint));
        }
    }
    Ok(())
}
