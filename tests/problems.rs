//! Codes of problems: each is explained, each is used, and each failure of a program that wants JSON is a document with one.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pve_public_ip::cli::help::explained;
use pve_public_ip::doctor::CHECKS;
use pve_public_ip::model::CODES;

#[path = "common/mod.rs"]
mod common;

use common::Node;

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_code_is_explained_once() {
    let page: Vec<String> = explained().into_iter().map(|entry| entry.code).collect();
    assert_eq!(page, CODES, "docs/problems.md has a section for each code of the list, in its order");
    for entry in explained() {
        for (part, text) in [("meaning", entry.meaning), ("cause", entry.cause), ("remedy", entry.remedy)] {
            assert!(text.len() > 5 && text.ends_with(['.', '`', ')']), "{part} of {}: {text:?}", entry.code);
        }
    }
}

/// A code that nothing uses explains what cannot happen.
#[test]
fn every_code_is_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("crates/core/src"), &mut files);
    sources(&root.join("crates/gateway/src"), &mut files);
    // The first is the list itself, the other has a row for each code, used or not.
    let is_list = |path: &Path| path.ends_with("model/problem.rs") || path.ends_with("gateway/src/status.rs");
    let texts: String =
        files.iter().filter(|path| !is_list(path)).map(|path| fs::read_to_string(path).unwrap()).collect();
    let unused: Vec<_> = CODES.iter().filter(|code| !texts.contains(&format!("\"{code}\""))).collect();
    assert!(unused.is_empty(), "nothing has these codes: {unused:?}");
    let known: BTreeSet<&str> = CODES.iter().copied().collect();
    let unknown: Vec<&str> = CHECKS.iter().map(|check| check.code).filter(|code| !known.contains(code)).collect();
    assert!(unknown.is_empty(), "checks of doctor that are not in the list: {unknown:?}");
}

#[test]
fn help_explains_a_code() {
    let node = Node::new();
    let run = node.run("help problem cooling-down").ok();
    assert!(run.out.starts_with("cooling-down\n\nAnother guest released the address recently"), "{run}");
    assert!(run.out.contains("\n\nCause: ") && run.out.contains("\n\nRemedy: "), "{run}");
    assert_eq!(node.run("problem cooling-down").ok().out, run.out);
    let data = node.run("help problem pool-exhausted --output-format json").ok().json();
    assert_eq!((&data["code"], data["remedy"].is_string()), (&"pool-exhausted".into(), true));
    let all = node.run("help problem --output-format json").ok().json();
    assert_eq!(all["problems"].as_array().unwrap().len(), CODES.len());
    node.run("help problem coling-down").fails(
        1,
        "there is no code `coling-down`",
        "did you mean `pve-public-ip help problem cooling-down`?",
    );
    node.run("help problem quorum").fails_with(1, &["did you mean `pve-public-ip help problem no-quorum`?"]);
    node.run("help problem qqqqqqqqqqqqq").fails_with(1, &["`pve-public-ip help problem` lists all codes"]);
}

/// Whatever fails, standard output has one object, which says why.
#[test]
fn a_failure_is_a_document() {
    let node = Node::with_pool();
    for (command, status, code, subject) in [
        ("assign 100 203.0.113.99", 1, "address-in-no-pool", "address"),
        ("assign 999", 1, "unknown-guest", "node"),
        ("assign 100 --pool other", 1, "unknown-pool", "pool"),
        ("show 100", 1, "nothing-assigned", "guest"),
        ("pool create ovh-rbx --profile generic-bridged --bridge vmbr0", 1, "pool-exists", "pool"),
        ("pool add ovh-rbx 203.0.113.10/31", 1, "overlap", "address"),
        ("conflicts ack nothing", 1, "unknown-conflict", "command"),
        ("registry restore pools.json", 1, "nothing-to-restore", "file"),
        ("guard --dry-run", 1, "no-dry-run", "command"),
        ("assign", 2, "usage", "command"),
        ("assign 7", 2, "usage", "command"),
        ("frobnicate", 2, "usage", "command"),
    ] {
        let run = node.run(&format!("{command} --output-format json"));
        assert_eq!(run.code, status, "{run}");
        let document = run.json();
        let problem = &document["problem"];
        assert_eq!((&problem["code"], &problem["subject"]["kind"]), (&code.into(), &subject.into()), "{run}");
        assert_eq!(document["notes"], serde_json::json!([]), "{run}");
        let sentence = problem["sentence"].as_str().unwrap();
        assert!(!sentence.is_empty() && !sentence.starts_with("error"), "{run}");
    }
    // A registry of which a part cannot be read is no shorter list.
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.tree.write("etc/pve/public-ip/guests/101.json", "{");
    for command in ["list", "pool list", "pool show ovh-rbx", "list --free", "who 203.0.113.10"] {
        let run = node.run(&format!("{command} --output-format json"));
        assert_eq!(run.code, 4, "{run}");
        assert!(run.json()["problem"].is_object() || !run.json()["notes"].as_array().unwrap().is_empty(), "{run}");
    }
    let refused = node.run("assign 100 203.0.113.11 --output-format json");
    assert_eq!((refused.code, &refused.json()["problem"]["code"]), (4, &"registry-broken".into()), "{refused}");
}
