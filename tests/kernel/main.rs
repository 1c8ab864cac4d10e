//! The product on a real kernel: bridges and guests in network namespaces, the binary called as on a node, crafted
//! frames from raw sockets, and a look at who received them.
//!
//! Needs root, `nft`, `ip` and `bridge`; a missing one is a failure, never a skipped test. The namespaces have no
//! names and hang on file descriptors of this process, so nothing is left behind, not even by a killed run.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod caches;
#[path = "../common/mod.rs"]
mod common;
mod counters;
mod drift;
mod explain;
#[path = "../common/lab.rs"]
mod lab;
mod life;
mod routes;
mod scene;
mod traffic;
mod uplink_guard;
mod verdict_tables;

use std::time::{Duration, Instant};

use crate::lab::{sh, try_sh};
use crate::scene::full_node;

#[test]
fn nothing_is_left_behind() {
    let before = sh("ip -o link");
    let witness = lab::Namespace::new();
    {
        let lab = full_node();
        sh(&format!("ip link add witness type veth peer name node netns {}", witness.path()));
        assert_eq!(lab.ends.len(), 10);
        witness.run(|| sh("ip link show node"));
    }
    // The kernel takes a namespace down, and with it the other end of its links, when nothing holds it any more.
    let started = Instant::now();
    while witness.run(|| try_sh("ip link show node").code == 0) {
        assert!(started.elapsed() < Duration::from_secs(60), "something still holds the node's namespace");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(sh("ip -o link"), before);
}
