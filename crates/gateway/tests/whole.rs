//! The whole way: a client of gRPC, the gateway, the root part, and a node below a directory.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::fs;

use common::node::{Clients, Node, repository};
use common::{GATEWAY, Gateway, SUPERADMIN, until};
use serde_json::json;

#[test]
fn a_panel_in_python_and_a_real_root_part() {
    let (repository, clients) = (repository(), Clients::install());
    let node = Node::new();
    let gateway = Gateway::start(&node.socket(), &[], &[]);
    let output = clients
        .command("python")
        .arg(repository.join("crates/gateway/tests/client.py"))
        .args([&gateway.address.to_string(), repository.join("proto").to_str().unwrap(), node.root().to_str().unwrap()])
        .env("GATEWAY_API_SECRET", GATEWAY)
        .env("SUPERADMIN_API_SECRET", SUPERADMIN)
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("all is as it should be"), "{said}");
    let log = fs::read_to_string(node.root().join("var/lib/pve-public-ip/audit.log")).unwrap();
    for words in ["api:superadmin", "api:gateway", "AssignVPSPublicIP from 127.0.0.1:"] {
        assert!(log.contains(words), "{words} is not in the audit log:\n{log}");
    }
    assert!(!log.contains(GATEWAY) && !log.contains(SUPERADMIN), "{log}");
}

#[test]
fn keys_of_the_root_part_count_until_they_are_revoked() {
    let node = Node::new();
    let gateway = Gateway::start(&node.socket(), &[], &[]);
    let made =
        node.run(&["key", "add", "panel", "--role", "gateway", "--organization", "acme", "--output-format", "json"]);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let secret = made["secret"].as_str().unwrap_or_else(|| panic!("{made}"));
    until("the key counts", || gateway.call("ListPublicIPs", Some(secret), &json!({})).0 == 200);
    let allocate = json!({ "vps_id": "shop", "public_ip": "203.0.113.10" });
    let (status, answer) = gateway.call("AllocatePublicIP", Some(secret), &allocate);
    assert_eq!((status, &answer["ip"]["organizationId"]), (200, &json!("acme")), "{answer}");
    let other = json!({ "vps_id": "mail", "public_ip": "203.0.113.11", "organization_id": "other" });
    assert_eq!(gateway.call("AllocatePublicIP", Some(GATEWAY), &other).0, 200);
    let (status, answer) = gateway.call("GetPublicIP", Some(secret), &json!({ "public_ip": "203.0.113.11" }));
    assert_eq!((status, &answer["code"]), (404, &json!("not_found")), "{answer}");
    let (_, listed) = gateway.call("ListPublicIPs", Some(secret), &json!({}));
    assert_eq!(listed["ips"].as_array().unwrap().len(), 1, "{listed}");
    let (_, listed) = gateway.call("ListPublicIPs", Some(GATEWAY), &json!({}));
    assert_eq!(listed["ips"].as_array().unwrap().len(), 2, "{listed}");
    node.run(&["key", "revoke", "panel"]);
    until("it counts no more", || gateway.call("ListPublicIPs", Some(secret), &json!({})).0 == 401);
}
