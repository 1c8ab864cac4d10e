//! What is linked into the program: where it is from, whether it may be shipped, and whether Debian's compiler can build it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::process::Command;

use serde_json::Value;

/// Licenses under which a library may be linked into what this package ships; one of those that it offers is enough.
const ALLOWED: [&str; 6] = ["MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib"];

/// What some have beside one of these: data of Unicode.
const BESIDE: &str = " AND Unicode-3.0";

fn may_be_shipped(license: &str) -> bool {
    let offered = license.replace(BESIDE, "").replace(['(', ')'], "").replace('/', " OR ");
    offered.split(" OR ").any(|one| one.split(" AND ").all(|part| ALLOWED.contains(&part.trim())))
}

/// Libraries of which a program has two versions that are not compatible, and why that is so.
const TWICE: [(&str, &str); 1] = [
    // Both are of the gateway, which speaks protobuf by the one and HTTP/2 by the other.
    ("hashbrown", "buffa 0.9 stands on 0.15, and h2 by way of indexmap on 0.17"),
];

/// Libraries that are there in two incompatible versions, but for those of [`TWICE`]. What only builds or tests need is not
/// linked into anything, and does not count.
fn twice(data: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let nodes = data["resolve"]["nodes"].as_array().unwrap();
    let package =
        |id: &Value| data["packages"].as_array().unwrap().iter().find(|package| package["id"] == *id).unwrap();
    let mut waiting: Vec<&Value> = data["workspace_members"].as_array().unwrap().iter().collect();
    let mut linked = HashSet::new();
    while let Some(id) = waiting.pop() {
        if !linked.insert(id.as_str().unwrap()) {
            continue;
        }
        let node = nodes.iter().find(|node| node["id"] == *id).unwrap();
        let is_linked =
            |dependency: &&Value| dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
        // What a macro is made of runs in the compiler.
        if package(id)["targets"][0]["kind"][0] == "proc-macro" {
            continue;
        }
        waiting.extend(node["deps"].as_array().unwrap().iter().filter(is_linked).map(|dependency| &dependency["pkg"]));
    }
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in data["packages"].as_array().unwrap() {
        if linked.contains(package["id"].as_str().unwrap()) {
            let name = package["name"].as_str().unwrap().to_owned();
            versions.entry(name).or_default().insert(compatible(package["version"].as_str().unwrap()));
        }
    }
    versions.retain(|_, versions| versions.len() > 1);
    for (known, why) in TWICE {
        assert!(versions.remove(known).is_some(), "{known} is there once: it needs no excuse any more ({why})");
    }
    versions
}

/// The part of a version that tells incompatible ones apart: `1` of `1.2.3`, `0.2` of `0.2.3`.
fn compatible(version: &str) -> String {
    let mut numbers = version.split('.');
    let major = numbers.next().unwrap_or_default();
    if major == "0" { format!("0.{}", numbers.next().unwrap_or_default()) } else { major.to_owned() }
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
        ("Apache-2.0 AND ISC", true),
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
    let members = data["workspace_members"].as_array().unwrap();
    assert!(members.len() >= 3, "{members:?}");
    let mut seen = 0;
    for package in data["packages"].as_array().unwrap() {
        let name = format!("{} {}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        let license = package["license"].as_str().unwrap_or_default();
        assert!(may_be_shipped(license), "{name} is licensed `{license}`");
        let is_ours = package["source"].is_null();
        let is_from_the_registry = package["source"].as_str().is_some_and(|source| source.starts_with("registry+"));
        assert!(is_ours || is_from_the_registry, "{name} is from {}", package["source"]);
        seen += 1;
    }
    assert!(seen > 30, "only {seen} libraries found");
    let twice: Vec<String> = twice(&data).into_iter().map(|(name, versions)| format!("{name} {versions:?}")).collect();
    assert_eq!(twice, [""; 0], "is linked in two versions: say why in TWICE, or update what needs the older one");

    // Each program is built with the compiler that it names, with all that it stands on.
    for member in members {
        let package = |id: &Value| data["packages"].as_array().unwrap().iter().find(|package| package["id"] == *id);
        let own = package(member).unwrap();
        let version = own["rust_version"].as_str().unwrap();
        let (mut waiting, mut found) = (vec![member.clone()], HashSet::new());
        while let Some(id) = waiting.pop() {
            if !found.insert(id.as_str().unwrap().to_owned()) {
                continue;
            }
            let package = package(&id).unwrap();
            let wanted = package["rust_version"].as_str().unwrap_or("1.0");
            let (name, own) = (&package["name"], &own["name"]);
            assert!(
                compiler(wanted) <= compiler(version),
                "{name} wants Rust {wanted}, and {own} is built with {version}"
            );
            let node = data["resolve"]["nodes"].as_array().unwrap().iter().find(|node| node["id"] == id).unwrap();
            waiting.extend(node["dependencies"].as_array().unwrap().iter().cloned());
        }
        assert!(found.len() > 10, "{member} stands on {} libraries only", found.len());
    }
}
