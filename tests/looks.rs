//! What only looks writes nothing: every command that shows something, and every change with `--dry-run`, on a node that has
//! just been installed, after a boot, and while guests run.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use common::{Node, Run};
use pve_public_ip::cli::Cli;

/// Commands that only show something.
const LOOKS: [&str; 49] = [
    "key list",
    "pool list",
    "pool show ovh-rbx",
    "pool show none",
    "pool export ovh-rbx",
    "pool export none",
    "list",
    "problem",
    "problem overlap",
    "list --pool ovh-rbx",
    "show 100",
    "show 100 --inside",
    "show 999",
    "who 203.0.113.10",
    "plan",
    "plan --all",
    "verify",
    "verify --all",
    "status",
    "status --output-format json",
    "metrics",
    "conflicts list",
    "audit",
    "audit --vmid 100",
    "audit --address 203.0.113.10 --at 1h",
    "doctor",
    "doctor --list",
    "topology",
    "topology --check",
    "topology --format dot",
    "partition plan --strategy hybrid --base 10.20.0.0/16",
    "partition plan --strategy hybrid --base 10.20.0.0/16 --plan none.json",
    "partition compare --base 10.20.0.0/16",
    "partition check",
    "explain --port tap100i0 --src 203.0.113.10",
    "explain --port tap200i0 --src 203.0.113.10 --to vmbr0",
    "registry check",
    "node show",
    "port show",
    "port show tap999i0",
    "schema",
    "schema guest",
    "completion bash",
    // No rules are attacked where there is no such class, but all else is made ready.
    "selftest --class none",
    "setup",
    "uninstall",
    "uninstall --keep-running",
    "release --all",
    "complete-words 1 -- pve-public-ip li",
];

/// Commands that change something, with what makes them show what they would do.
const CHANGES: [&str; 28] = [
    "--dry-run key add billing --role gateway",
    "--dry-run key revoke billing",
    "--dry-run pool create more --profile generic-bridged --bridge vmbr0 --gateway4 198.51.100.1 198.51.100.8/29",
    "--dry-run pool add ovh-rbx 203.0.113.77",
    "--dry-run pool import ovh-rbx entries.csv",
    "--dry-run import assignments.csv",
    "--dry-run pool set ovh-rbx --cool-down 30m",
    "--dry-run pool remove ovh-rbx 203.0.113.13",
    "--dry-run setup --yes",
    "--dry-run registry restore pools.json",
    "--dry-run registry convert",
    "--dry-run node set --uplink vmbr0",
    "--dry-run node set --backend nftables",
    "--dry-run assign 101 203.0.113.11",
    "--dry-run assign 101 203.0.113.11 --live",
    "--dry-run assign 101 --pool ovh-rbx",
    "--dry-run release 100",
    "--dry-run release 100 203.0.113.10",
    "--dry-run release --all --yes",
    "--dry-run uninstall --yes",
    "--dry-run set 100 --dhcp false",
    "--dry-run apply",
    "--dry-run doctor --fix",
    "--dry-run conflicts ack --all",
    "--dry-run deliver",
    "--dry-run metrics --output metrics.prom",
    "--dry-run partition plan --strategy hybrid --base 10.20.0.0/16 --plan plan.json --save",
    "--dry-run guard",
];

/// Subcommands that cannot pretend, each with the reason.
const ELSEWHERE: [(&str, &str); 2] = [
    ("hook", "is called by Proxmox VE, which does what it says"),
    ("serve", "each request says itself whether it pretends"),
];

/// What the kernel has shown since it booted that it can do: `doctor` notes it where the program has a directory for what
/// goes with a boot. It is about no node and only saves time.
const FEATURES: &str = "run/pve-public-ip/features";

/// Everything below a directory: kind, mode, times, content. A file that was written with the same bytes is another one.
fn everything(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        if path.ends_with(FEATURES) {
            continue;
        }
        let meta = fs::symlink_metadata(&path).unwrap();
        let stamp = format!(
            "inode {} mode {:o} owner {}:{} size {} written {}.{:09}",
            meta.ino(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        if meta.is_dir() {
            found.insert(path.clone(), format!("directory, mode {:o}", meta.mode()));
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        found.insert(path, stamp);
    }
    found
}

/// What the kernel has of ours, or what a pool changes.
fn kernel(node: &Node) -> BTreeSet<String> {
    // Time passes.
    let seen = node.net.sh("ip -d -o link | sed 's/[a-z_]*timer *[0-9.]*//g'; bridge -d link; nft list tables");
    let lines = seen.lines().map(str::to_owned).chain(node.net.filter().into_iter().flatten());
    lines.chain(node.net.marked()).chain(node.net.support()).collect()
}

/// Runs it in a directory of its own and with temporary files of its own, which it leaves empty.
fn look(node: &Node, arguments: &str) -> Run {
    let aside = tempfile::tempdir().unwrap();
    let words: Vec<&str> = arguments.split_whitespace().collect();
    let mut command = node.command(&words);
    // Not in the directory of the command itself: nsenter is left where it was started.
    let output = command.current_dir(aside.path()).env("TMPDIR", aside.path()).output().unwrap();
    let run = Run::of(format!("pve-public-ip {arguments}"), &output);
    let left: Vec<_> = fs::read_dir(aside.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?} is left by {run}");
    run
}

/// Each of them leaves files and kernel as they were, whatever it says.
fn nothing_is_written(node: &Node, when: &str) {
    let mut wrong = Vec::new();
    let mut before = (everything(node.tree.root()), kernel(node));
    for arguments in LOOKS.iter().chain(&CHANGES) {
        let run = look(node, arguments);
        assert!(run.code < 128 && run.code != 2, "it did not look: {run}");
        let after = (everything(node.tree.root()), kernel(node));
        let paths: BTreeSet<&PathBuf> = before.0.keys().chain(after.0.keys()).collect();
        for path in paths.into_iter().filter(|path| before.0.get(*path) != after.0.get(*path)) {
            wrong.push(format!(
                "{when}, `{arguments}`: {} was {:?}, is {:?}",
                path.strip_prefix(node.tree.root()).unwrap().display(),
                before.0.get(path),
                after.0.get(path)
            ));
        }
        let lines: Vec<&String> = before.1.symmetric_difference(&after.1).collect();
        if !lines.is_empty() {
            wrong.push(format!("{when}, `{arguments}`: the kernel differs in {lines:?}"));
        }
        before = after;
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn nothing_is_written_by_a_look() {
    let node = Node::new();
    node.stand_in_proxmox();
    nothing_is_written(&node, "just installed");

    node.run(common::CREATE).ok();
    node.run("assign 100 203.0.113.10 2001:db8:0:1::10").ok();
    fs::remove_dir_all(node.tree.path("run")).unwrap();
    node.net.sh("nft flush ruleset; ip neigh flush nud permanent; ip link set vmbr0 type bridge no_linklocal_learn 0");
    nothing_is_written(&node, "after a boot");

    node.run("apply").ok();
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    node.run("hook 100 post-start").ok();
    node.run("release 100 2001:db8:0:1::10").ok();
    nothing_is_written(&node, "while a guest runs");
}

/// Who adds a command says whether it only looks.
#[test]
fn every_command_is_looked_at() {
    let mut missing = Vec::new();
    let mut left: Vec<(String, clap::Command)> =
        Cli::command().get_subcommands().map(|command| (command.get_name().to_owned(), command.clone())).collect();
    while let Some((name, command)) = left.pop() {
        if command.has_subcommands() {
            let inner = command.get_subcommands().map(|inner| (format!("{name} {}", inner.get_name()), inner.clone()));
            left.extend(inner);
            continue;
        }
        let tried = |tried: &&str| tried.trim_start_matches("--dry-run ").starts_with(name.as_str());
        let is_elsewhere = ELSEWHERE.iter().any(|(other, _)| *other == name);
        if !is_elsewhere && !LOOKS.iter().chain(&CHANGES).any(tried) {
            missing.push(name);
        }
    }
    assert!(missing.is_empty(), "neither looked at nor tried with --dry-run: {missing:?}");
}
