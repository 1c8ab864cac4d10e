//! A port that nobody manages appears while no guard runs: `verify` says what is missing, why, and what helps for good.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use common::Node;

const DRIFT: &str = "drift: tap900i0 takes frames to 01:80:c2:00:00:0e for the node's own";
const NOTE: &str = "note: no guard runs on this node: the filter holds for ports that appear, but they are not screened \
                    before the next `apply`\n  hint: the guard screens them at once: \
                    `systemctl enable --now pve-public-ip.service`\n";

#[test]
fn a_port_that_appears_is_drift_until_it_is_screened() {
    let node = Node::with_pool();
    node.run("apply").ok();
    node.is_in_line();
    node.plug("tap900i0");
    let verify = node.run("verify");
    assert!(verify.code == 3 && verify.out.contains(DRIFT) && verify.out.contains(NOTE), "{verify}");
    // While a guard runs it is on its way: any process that has its name will do here.
    let mut stand_in = node.net.command("sh");
    stand_in
        .args(["-c", "printf pve-public-ip >/proc/self/comm; echo ready; exec 3<&0; while read -r _ <&3; do :; done"]);
    let mut guard = stand_in.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(guard.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let left = serde_json::json!({"pid": guard.id(), "last_look": 0, "last_look_ms": 0, "looks": 1, "last_change": 0,
        "repairs": 0, "guests": 0, "problems": 0, "trouble": null});
    node.tree.write("run/pve-public-ip/guard", left.to_string());
    let verify = node.run("verify");
    assert!(verify.code == 3 && verify.out.contains(DRIFT) && !verify.out.contains("no guard runs"), "{verify}");
    drop(guard.stdin.take());
    guard.wait().unwrap();
    assert!(node.run("verify").out.contains(NOTE));
    node.run("apply").ok();
    node.is_in_line();
}
