//! Operations as requests: what the command line can change, a program can ask for as well, and gets the same answer.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

use pve_public_ip::model::Problem;
use pve_public_ip::ops;
use pve_public_ip::paths::Paths;
use pve_public_ip::request::Envelope;
use serde_json::{Value, json};

#[path = "common/mod.rs"]
mod common;

use common::Node;

/// Carries out one request on the node, as the socket's service does.
fn asked(node: &Node, request: &Value) -> Result<Value, Problem> {
    let mut line = request.clone();
    line["version"] = json!(1);
    let envelope = Envelope::parse(line.to_string().as_bytes()).unwrap();
    let opened = pve_public_ip::reconcile::Node::open(Paths::new(node.tree.root())).unwrap();
    node.net.inside(|| ops::carry_out(&opened, envelope))
}

#[test]
fn a_request_does_what_the_command_does() {
    for (request, command) in [
        (json!({"op": "set-node", "alert_attempts": 7, "log_group": 5}), "node set --alert-attempts 7 --log-group 5"),
        (json!({"op": "convert-registry"}), "registry convert"),
        (json!({"op": "acknowledge-conflicts", "all": true}), "conflicts ack --all"),
        (json!({"op": "add-snippet-storage"}), "setup --dry-run"),
        (json!({"op": "apply"}), "apply"),
        (
            json!({"op": "remove-from-pool", "pool": "ovh-rbx", "addresses": ["203.0.113.13"]}),
            "pool remove ovh-rbx 203.0.113.13",
        ),
    ] {
        let (one, other) = (Node::with_pool(), Node::with_pool());
        let mut answer = asked(&one, &request).unwrap_or_else(|problem| panic!("{request}: {problem}"));
        let mut said = other.run(&format!("{command} --output-format json")).ok().json();
        for data in [&mut answer, &mut said] {
            data.as_object_mut().unwrap().retain(|key, value| !value.is_null() && key != "dry_run" && key != "outcome");
        }
        assert_eq!(answer, said, "{command}");
        // Once more, and nothing changes.
        if answer.get("changed").is_some() {
            assert_eq!(asked(&one, &request).unwrap()["changed"], false, "{command}");
        }
    }
}

#[test]
fn a_dry_run_changes_nothing() {
    let node = Node::with_pool();
    let before = node.tree.etc();
    for request in [
        json!({"op": "set-node", "alert_attempts": 7, "dry_run": true}),
        json!({"op": "convert-registry", "dry_run": true}),
        json!({"op": "apply", "dry_run": true}),
        json!({"op": "repair", "dry_run": true}),
        json!({"op": "add-snippet-storage", "shared": true, "dry_run": true}),
    ] {
        asked(&node, &request).unwrap_or_else(|problem| panic!("{request}: {problem}"));
        assert!(node.tree.etc() == before, "{request}");
    }
}

/// Whoever may name a program that root runs, or a place that root writes to, is root: the network-facing gateway is not.
#[test]
fn a_request_names_no_program_of_root() {
    let node = Node::with_pool();
    let before = node.tree.etc();
    for key in ["alert_exec", "metrics_directory"] {
        let problem = asked(&node, &json!({"op": "set-node", key: "/tmp/x", "alert_attempts": 7})).unwrap_err();
        assert_eq!(problem.code.as_str(), "not-in-api");
        assert!(problem.sentence.starts_with("programs that root runs and directories"), "{problem}");
        assert!(node.tree.etc() == before, "{key}");
        // To take it away is no danger.
        asked(&node, &json!({"op": "set-node", key: null, "dry_run": true})).unwrap();
    }
    for file in ["../../../etc/passwd", "/etc/passwd", "guests/100.json"] {
        let problem = asked(&node, &json!({"op": "restore-file", "file": file})).unwrap_err();
        assert_eq!(problem.code.as_str(), "nothing-to-restore", "{problem}");
    }
    let problem = asked(&node, &json!({"op": "acknowledge-conflicts", "conflicts": ["nothing"]})).unwrap_err();
    assert_eq!(problem.code.as_str(), "unknown-conflict", "{problem}");
}
