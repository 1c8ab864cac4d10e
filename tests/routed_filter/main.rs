//! The filter of routed traffic on a real kernel: who may send what through the node and to it, whichever program filters,
//! and whoever else has rules there.
//!
//! Needs root, `nft`, `ip`, `bridge`, iptables, ipset, firewalld and D-Bus; a missing one is a failure, never a skipped test.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod backends;
mod coexistence;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/lab.rs"]
#[expect(dead_code, reason = "shared with the other tests of the kernel")]
mod lab;
mod scene;
