//! Holds the rooms of the crate to the table at the top of `src/lib.rs`: what decides does no input or output.

#![allow(clippy::disallowed_methods, reason = "a test reads what was written")]

use std::fs;
use std::path::{Path, PathBuf};

/// What a pure room must not name.
const FORBIDDEN: [&str; 9] = [
    "std::fs",
    "std::process",
    "std::net::Tcp",
    "std::net::Udp",
    "std::env",
    "std::time::SystemTime",
    "nix::",
    "crate::system",
    "crate::cli",
];

/// Rooms, and files of mixed rooms, that only decide.
const PURE: &[&str] = &[
    "src/announce.rs",
    "src/audit",
    "src/cloudinit",
    "src/conflict",
    "src/doctor",
    "src/model",
    "src/oracle",
    "src/partition",
    "src/plan",
    "src/ruleset",
    "src/topology",
    "src/guest/cloud_init.rs",
    "src/guard/alerts.rs",
    "src/guard/sayings.rs",
    "src/guard/schedule.rs",
    "src/guest/config.rs",
    "src/guest/storage.rs",
    "src/interfaces.rs",
    "src/registry/mod.rs",
    "src/registry/document.rs",
    "src/registry/allocate.rs",
    "src/paths.rs",
    "src/registry/layout.rs",
    "src/registry/releases.rs",
    "src/selftest/delivery.rs",
    "src/selftest/frames.rs",
    "src/selftest/targets.rs",
    "src/selftest/topologies.rs",
    "src/selftest/verdicts.rs",
];

fn rust_files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a directory of the sources") {
            rust_files(&entry.expect("an entry of it").path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

#[test]
fn deciding_is_pure() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for room in PURE {
        let before = files.len();
        rust_files(&root.join(room), &mut files);
        assert!(files.len() > before, "there is nothing at {room}: correct this list");
    }
    let mut violations = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in FORBIDDEN.iter().filter(|word| code.contains(**word)) {
                violations.push(format!("{}:{}: {word}", file.display(), number + 1));
            }
        }
    }
    assert!(violations.is_empty(), "a room that only decides does input or output:\n{}", violations.join("\n"));
}

#[test]
fn programs_are_started_in_one_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    let starts = |file: &&PathBuf| fs::read_to_string(file).unwrap().contains("Command::new(");
    let found: Vec<_> = files.iter().filter(starts).map(|file| file.strip_prefix(root).unwrap().to_owned()).collect();
    assert_eq!(found, [PathBuf::from("src/system/command.rs")]);
}
