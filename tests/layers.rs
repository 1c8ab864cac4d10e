//! Holds the crates and their rooms to the tables at the top of their `lib.rs`: what decides does no input or output.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test reads what was written, and stops at the first surprise"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What a pure room must not name.
const FORBIDDEN: [&str; 12] = [
    "std::fs",
    "std::process",
    "std::net::Tcp",
    "std::net::Udp",
    "std::env",
    "std::time::SystemTime",
    "std::time::Instant",
    "nix::",
    "crate::host",
    "crate::store",
    "crate::system",
    "crate::cli",
];

/// A crate of the workspace: where its sources are, and its rooms, each below all that come after it. A room uses only what
/// stands before it, so that no circle can form.
const CRATES: [(&str, &[&str]); 3] = [
    (
        "crates/core/src",
        &[
            "model",
            "links",
            "ruleset",
            "interfaces",
            "registry",
            "oracle",
            "audit",
            "reply",
            "request",
            "announce",
            "guest",
            "plan",
            "conflict",
            "cloudinit",
            "lookup",
            "topology",
            "partition",
            "selftest",
        ],
    ),
    (
        "src",
        &[
            "paths",
            "host",
            "guest",
            "store",
            "hookscript",
            "doctor",
            "system",
            "view",
            "selftest",
            "reconcile",
            "inspect",
            "survey",
            "hook",
            "guard",
            "ops",
            "serve",
            "cli",
            "main",
        ],
    ),
    (
        "crates/gateway/src",
        &[
            "contract",
            "config",
            "status",
            "auth",
            "convert",
            "explained",
            "metrics",
            "log",
            "supervisor",
            "backend",
            "node",
            "keys",
            "service",
            "tls",
            "stall",
            "server",
            "main",
        ],
    ),
];

/// Rooms, and files of mixed rooms, that only decide.
const PURE: &[&str] = &[
    "crates/core/src",
    "crates/gateway/src/auth.rs",
    "crates/gateway/src/config.rs",
    "crates/gateway/src/contract.rs",
    "crates/gateway/src/convert",
    "crates/gateway/src/convert.rs",
    "crates/gateway/src/metrics.rs",
    "crates/gateway/src/status.rs",
    "src/doctor",
    "src/guard/alerts.rs",
    "src/guard/sayings.rs",
    "src/guard/schedule.rs",
    "src/paths.rs",
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

/// What changes the registry, the node, a guest or the audit log. The command line parses and renders; what changes something
/// is an operation that others can ask for as well.
const CHANGES: [&str; 18] = [
    "store.change(",
    "store.restore(",
    "store.convert(",
    "store.remember(",
    "ops::change",
    "journal.record(",
    "RunState::lock(",
    "RunState::set_note(",
    "Mode::Apply",
    "reconcile_and_ask(",
    "reconcile_or_protect(",
    "apply_step(",
    "proxmox::",
    "claims::change(",
    "note_release(",
    "follow::",
    "files::replace",
    "set_permissions",
];

#[test]
fn the_command_line_changes_nothing_itself() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut cli, mut below) = (Vec::new(), Vec::new());
    rust_files(&root.join("src/cli"), &mut cli);
    for room in ["ops", "reconcile", "guard", "hook.rs", "store", "host"] {
        rust_files(&root.join("src").join(room), &mut below);
    }
    let code = |file: &PathBuf| without_tests(&fs::read_to_string(file).unwrap());
    let below: String = below.iter().map(code).collect();
    let found: Vec<String> = cli
        .iter()
        .flat_map(|file| {
            let code = code(file);
            let words = CHANGES.iter().filter(move |word| code.contains(**word));
            words.map(|word| format!("{}: {word}", file.display()))
        })
        .collect();
    assert!(found.is_empty(), "the command line changes something by itself:\n{}", found.join("\n"));
    // A word that nobody uses any more forbids nothing.
    let stale: Vec<_> = CHANGES.iter().filter(|word| !below.contains(word.trim_start_matches("ops::"))).collect();
    assert!(stale.is_empty(), "nothing below the command line says {stale:?}");
}

/// The room of a file below `src`.
fn room(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// What a source says without its tests and comments. Tests may build their scenes of whatever they like.
fn without_tests(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The rooms that a source names by `crate::ROOM`, also in a list: `use crate::{ROOM, ROOM}`.
fn named(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            Some(list) => {
                let mut depth = 0_usize;
                let mut at_start = true;
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => at_start = true,
                        c if at_start && !c.is_whitespace() => {
                            found.insert(word(&list[at..]));
                            at_start = false;
                        }
                        _ => {}
                    }
                }
            }
            None => drop(found.insert(word(after))),
        }
    }
    found
}

#[test]
fn rooms_use_only_what_is_below_them() {
    let code = "use crate::{model::{A, B}, host}; crate::plan::x(); // crate::cli\nuse crate::store;";
    assert_eq!(named(&without_tests(code)), ["host", "model", "plan", "store", "cli"].map(str::to_owned).into());

    for (source, ranks) in CRATES {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        let mut files = Vec::new();
        rust_files(&directory, &mut files);
        let rank = |name: &str| ranks.iter().position(|room| *room == name);
        let (mut upward, mut seen) = (Vec::new(), BTreeSet::new());
        for file in files.iter().filter(|file| !file.ends_with("lib.rs") && !file.ends_with("tests.rs")) {
            let path = file.strip_prefix(&directory).unwrap();
            let own = room(path);
            let own_rank =
                rank(&own).unwrap_or_else(|| panic!("`{own}` of {source} has no rank: give it one in this file"));
            for other in named(&without_tests(&fs::read_to_string(file).unwrap())) {
                // What has no rank here is of the core, below all rooms of the programs.
                if rank(&other).is_some_and(|rank| rank > own_rank) {
                    upward.push(format!("{}: crate::{other}", path.display()));
                }
            }
            seen.insert(own);
        }
        assert!(upward.is_empty(), "these use what is above them:\n{}", upward.join("\n"));
        let unknown: Vec<_> = ranks.iter().filter(|room| !seen.contains(**room)).collect();
        assert!(unknown.is_empty(), "there are no such rooms in {source}: {unknown:?}");
    }
}

/// What must not be linked into a crate, with all that it stands on.
const NEVER_LINKED: [(&str, &[&str]); 3] = [
    // It runs as root in front of every guest start.
    (
        "pve-public-ip",
        &["tokio", "async-std", "smol", "futures-executor", "hyper", "rustls", "openssl", "native-tls", "reqwest"],
    ),
    ("pve-public-ip-core", &["pve-public-ip", "nix", "libc", "tokio", "hyper", "rustls", "rand", "syslog", "log"]),
    // It is reached by whoever can send it a packet: nothing of what runs as root, and one library for TLS, without C of OpenSSL.
    ("pve-public-ip-gateway", &["pve-public-ip", "openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys"]),
];

#[test]
fn crates_stand_on_what_they_may() {
    for (name, never) in NEVER_LINKED {
        let output = std::process::Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args([
                "tree",
                "--offline",
                "--locked",
                "--edges",
                "normal",
                "--prefix",
                "none",
                "--format",
                "{p}",
                "--package",
                name,
            ])
            .output()
            .unwrap();
        assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let linked: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(linked.contains(name) && linked.contains("serde_json"), "{linked:?}");
        let found: Vec<_> = never.iter().filter(|other| **other != name && linked.contains(**other)).collect();
        assert!(found.is_empty(), "{name} stands on {found:?}: `cargo tree --package {name} --invert {}`", found[0]);
    }
}

#[test]
fn programs_are_started_in_one_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    let starts = |file: &&PathBuf| fs::read_to_string(file).unwrap().contains("Command::new(");
    let found: Vec<_> = files.iter().filter(starts).map(|file| file.strip_prefix(root).unwrap().to_owned()).collect();
    assert_eq!(found, [PathBuf::from("src/host/command.rs")]);
}
