//! The JSON of every command: run on a node's files, and held to the schemas that are made of the program's types.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use clap::CommandFactory as _;
use pve_public_ip::cli::Cli;
use pve_public_ip::cli::answers::schemas;
use serde_json::Value;

#[path = "common/mod.rs"]
mod common;

use common::Node;

/// Debian's own, from python3-jsonschema: an implementation that shares nothing with ours.
const CHECKER: &str = "import json, sys
from jsonschema import Draft202012Validator
schemas, answers = json.load(open(sys.argv[1])), json.load(open(sys.argv[2]))
for schema in schemas.values():
    Draft202012Validator.check_schema(schema)
for line, command, answer in answers:
    for error in Draft202012Validator(schemas[command]).iter_errors(answer):
        error = min(error.context, key=lambda e: -len(e.path), default=error) if error.context else error
        print(f'{line}: {list(error.path)}: {error.message[:600]}')
print('checked', len(answers))";

/// The words of every command that does something.
fn commands() -> BTreeSet<String> {
    fn leaves(command: &clap::Command, words: &str, found: &mut BTreeSet<String>) {
        for below in command.get_subcommands().filter(|below| below.get_name() != "help" && !below.is_hide_set()) {
            let words = format!("{words} {}", below.get_name());
            if below.has_subcommands() {
                leaves(below, &words, found);
            } else {
                found.insert(words.trim().to_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    leaves(&Cli::command(), "", &mut found);
    found
}

#[test]
fn every_command_has_a_schema() {
    let known: BTreeSet<String> = schemas().into_keys().map(str::to_owned).collect();
    assert_eq!(commands(), known);
}

/// What cannot be run on a directory as the root: the service, and what needs root and a kernel.
const NOT_RUN: [&str; 3] = ["guard", "selftest", "serve"];

/// What is run, one after the other, on one node.
const LINES: &[&str] = &[
    "pool list",
    "pool create more --profile generic-routed --bridge vmbr1 198.51.100.0/28 2001:db8:7::/64",
    "pool add more 198.51.100.64 --mac 02:00:00:00:00:09 --monthly-cost-cents 200",
    "pool add more 198.51.100.64 --monthly-cost-cents 300",
    "pool add more 198.51.100.64",
    "pool set more --cool-down 0 --dry-run",
    "assign 100 203.0.113.10 2001:db8:0:1::10 --organization acme",
    "assign 100 203.0.113.10",
    "assign 101 -4 --pool ovh-rbx --dry-run",
    "assign 101 203.0.113.10",
    "assign 102 203.0.113.11",
    "assign 101 203.0.113.13",
    "pool set ovh-rbx --gateway4 203.0.113.2",
    "pool set ovh-rbx --bridge vmbr1 --dry-run",
    "set 100 --dhcp false",
    "set 102 --dhcp false",
    "list",
    "list --free",
    "list --state cooling",
    "pool list",
    "pool show ovh-rbx",
    "pool show more",
    "pool show none",
    "pool export more",
    "pool import more FILE",
    "import ASSIGNMENTS --dry-run",
    "import ASSIGNMENTS",
    "import ASSIGNMENTS",
    "import FILE",
    "registry convert",
    "key add billing --role gateway --organization acme --expires 90d",
    "key add billing --role viewer",
    "key list",
    "key revoke billing",
    "show 100",
    "show 999",
    "who 203.0.113.10",
    "who 203.0.113.12",
    "who 203.0.113.0/24",
    "who 198.51.100.0",
    "who 198.51.100.0/28",
    "who 192.0.2.1",
    "who 192.0.2.0/24",
    "who 127.0.0.1",
    "who 203.0.113.250",
    "who 02:00:00:aa:bb:00",
    "who 02:00:00:99:99:99",
    "who tap100i0",
    "who tap101i0",
    "who veth999i0",
    "port show",
    "port show veth999i0",
    "plan",
    "apply --dry-run",
    "apply",
    "verify",
    "status",
    "metrics",
    "conflicts list",
    "conflicts ack --all",
    "audit",
    "audit --address 203.0.113.10",
    "audit --address 203.0.113.10 --at 1h",
    "explain --port tap100i0 --src 203.0.113.10",
    "explain --port vmbr0 --src 203.0.113.10",
    "doctor",
    "doctor --fix --dry-run",
    "doctor --list",
    "topology",
    "topology --check",
    "partition plan --strategy per-application --base 10.1.0.0/16",
    "partition compare --base 10.1.0.0/16",
    "partition check",
    "registry check",
    "registry restore pools.json",
    "node show",
    "node set --alert-attempts 50",
    "node set --uplink nothing",
    "setup",
    "deliver",
    "hook 100 pre-start",
    "schema",
    "schema pool",
    "schema output",
    "completion bash",
    "problem",
    "problem overlap",
    "release 101 203.0.113.13",
    "who 203.0.113.13",
    "release 101",
    "release 999",
    "release --all --pool more",
    "release --all --yes --dry-run",
    "uninstall",
    "uninstall --keep-running",
    "pool remove more",
    "pool remove more",
];

#[test]
fn answers_keep_to_their_schemas() {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    node.tree.qemu(102, "net0: virtio=02:00:00:AA:BB:03,bridge=vmbr1\n");
    let mut answers: Vec<(String, String, Value)> = Vec::new();
    let names = commands();
    node.tree.write("entries.csv", "address\n198.51.100.64\n198.51.100.65\n");
    let file = node.tree.path("entries.csv").display().to_string();
    node.tree.write("assignments.csv", "vmid,address\n102,198.51.100.65\n");
    let assignments = node.tree.path("assignments.csv").display().to_string();
    for line in LINES {
        let words = line.replace("FILE", &file).replace("ASSIGNMENTS", &assignments);
        let run = node.run(&format!("{words} --output-format json"));
        let command = names.iter().filter(|name| *line == **name || line.starts_with(&format!("{name} ")));
        let command = command.max_by_key(|name| name.len()).unwrap_or_else(|| panic!("`{line}` is no command"));
        assert!(run.code != 2 && run.out.lines().count() == 1, "{run}");
        answers.push(((*line).to_owned(), command.clone(), run.json()));
    }
    node.tree.write("etc/pve/public-ip/guests/101.json", "{");
    for line in
        ["list", "registry check", "status", "verify", "registry restore guests/101.json --dry-run", "assign 100"]
    {
        let run = node.run(&format!("{line} --output-format json"));
        let command =
            line.split(' ').take(if line.starts_with("registry") { 2 } else { 1 }).collect::<Vec<_>>().join(" ");
        answers.push((format!("{line} (broken)"), command, run.json()));
    }
    let run: BTreeSet<&str> = answers.iter().map(|(_, command, _)| command.as_str()).collect();
    let missing: Vec<_> =
        names.iter().filter(|name| !run.contains(name.as_str()) && !NOT_RUN.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "these commands are not run here: {missing:?}");

    let directory = tempfile::tempdir().unwrap();
    let [schema_file, answer_file] = ["schemas.json", "answers.json"].map(|name| directory.path().join(name));
    let schemas: BTreeMap<&str, Value> = schemas();
    std::fs::write(&schema_file, serde_json::to_vec(&schemas).unwrap()).unwrap();
    std::fs::write(&answer_file, serde_json::to_vec(&answers).unwrap()).unwrap();
    let checked =
        Command::new("/usr/bin/python3").args(["-c", CHECKER]).args([schema_file, answer_file]).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert_eq!(said, format!("checked {}\n", answers.len()), "python3-jsonschema is installed by `make setup`");
}
