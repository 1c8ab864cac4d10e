//! What is linked into the program: where it is from, whether it may be shipped, and whether Debian's compiler can build it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

use std::process::Command;

use serde_json::Value;

/// Licenses under which a library may be linked into what this package ships; one of those that it offers is enough.
const ALLOWED: [&str; 3] = ["MIT", "Apache-2.0", "BSD-2-Clause"];

/// What some have beside one of these: data of Unicode.
const BESIDE: &str = " AND Unicode-3.0";

fn may_be_shipped(license: &str) -> bool {
    let offered = license.replace(BESIDE, "").replace(['(', ')'], "").replace('/', " OR ");
    offered.split(" OR ").any(|one| ALLOWED.contains(&one.trim()))
}

/// `major.minor` of a compiler.
fn compiler(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap_or(0))
}

#[test]
fn licenses_are_read_right() {
    for (license, expected) in [
        ("MIT", true),
        ("Apache-2.0 / MIT", true),
        ("MIT/Apache-2.0", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("Unlicense OR MIT", true),
        ("GPL-3.0-only", false),
        ("MIT AND GPL-2.0-only", false),
        ("", false),
    ] {
        assert_eq!(may_be_shipped(license), expected, "{license}");
    }
}

#[test]
fn every_library_may_be_shipped_and_built() {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .args(["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)])
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let data: Value = serde_json::from_slice(&output.stdout).unwrap();
    let own = data["packages"].as_array().unwrap().iter().find(|package| package["name"] == "pve-public-ip").unwrap();
    let ours = compiler(own["rust_version"].as_str().unwrap());
    let mut seen = 0;
    for package in data["packages"].as_array().unwrap() {
        let name = format!("{} {}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        let license = package["license"].as_str().unwrap_or_default();
        assert!(may_be_shipped(license), "{name} is licensed `{license}`");
        if let Some(wanted) = package["rust_version"].as_str() {
            assert!(compiler(wanted) <= ours, "{name} wants Rust {wanted}, and Debian has {}.{}", ours.0, ours.1);
        }
        let is_ours = package["source"].is_null();
        let is_from_the_registry = package["source"].as_str().is_some_and(|source| source.starts_with("registry+"));
        assert!(is_ours || is_from_the_registry, "{name} is from {}", package["source"]);
        seen += 1;
    }
    assert!(seen > 30, "only {seen} libraries found");
}
