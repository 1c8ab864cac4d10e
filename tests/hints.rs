//! A hint that is a command cures what it was printed for: each is provoked, taken from what the program really said, run by
//! a shell beside tools that really change the configuration, and the complaint has to be gone.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::fs;
use std::path::Path;

use common::{BINARY, Node, Run, SYSTEM_PATH};

/// A node with the pool of the examples, guest 100 with 203.0.113.10, and stand-ins for Proxmox VE's tools.
fn node() -> Node {
    let node = Node::with_pool();
    let root = node.tree.root().display().to_string();
    for (tool, kind) in [("qm", "qemu-server"), ("pct", "lxc")] {
        node.tree.script(
            &format!("stand-ins/{tool}"),
            &format!(
                "conf={root}/etc/pve/nodes/n1/{kind}/$2.conf\n\
                 case \"$1\" in set) ;; cloudinit) exit 0;; *) echo \"$1: not known here\" >&2; exit 255;; esac\n\
                 [ -e $conf ] || {{ echo 'no such guest' >&2; exit 2; }}\n\
                 shift 2\n\
                 while [ $# -gt 0 ]; do\n\
                 key=${{1#--}} value=$2\n\
                 case \"$key\" in\n\
                 delete) for key in $(echo $value | tr , ' '); do sed -i \"/^$key:/d\" $conf; done;;\n\
                 *) case \"$value\" in virtio,*) value=virtio=02:11:22:33:44:55,${{value#virtio,}};; esac\n\
                 sed -i \"/^$key:/d\" $conf; printf '%s: %s\\n' \"$key\" \"$value\" >>$conf;;\n\
                 esac\n\
                 shift 2\n\
                 done\n"
            ),
        );
    }
    node.tree.script("stand-ins/pve-public-ip", &format!("exec {BINARY} --root {root} \"$@\"\n"));
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node
}

fn shell(node: &Node, command: &str) -> Run {
    let path = format!("{}:{SYSTEM_PATH}", node.tree.path("stand-ins").display());
    let output = node.net.command("sh").args(["-c", command]).env("PATH", path).output().unwrap();
    Run::of(command.to_owned(), &output)
}

/// What is complained of, and the commands of the hint below it.
fn complaint(run: &Run) -> (String, Vec<String>) {
    let text = format!("{}{}", run.out, run.err);
    let mut lines = text.lines();
    let sentence = lines
        .by_ref()
        .find(|line| ["error: ", "problem: ", "drift: ", "note: ", "same-"].iter().any(|kind| line.starts_with(kind)));
    let sentence = sentence.unwrap_or_else(|| panic!("no complaint: {run}")).to_owned();
    let hint =
        lines.find_map(|line| line.trim_start().strip_prefix("hint: ")).unwrap_or_else(|| panic!("no hint: {run}"));
    let commands = hint.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    (sentence, commands)
}

/// A situation: how it comes about, and the command that complains.
type Situation = (&'static str, fn(&Node), &'static str);

fn conf(node: &Node, text: &str) {
    node.tree.qemu(100, format!("name: web\n{text}"));
}

/// Every command of each hint is tried, each in a situation of its own.
const SITUATIONS: &[Situation] = &[
    (
        "another MAC",
        |node| conf(node, "net0: virtio=02:00:00:AA:BB:FF,bridge=vmbr0,firewall=0\n"),
        "hook 100 pre-start",
    ),
    ("another bridge", |node| conf(node, "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr1\n"), "hook 100 pre-start"),
    ("no bridge", |node| conf(node, "net0: virtio=02:00:00:AA:BB:00\n"), "verify"),
    ("no MAC", |node| conf(node, "net0: virtio,bridge=vmbr0\n"), "hook 100 pre-start"),
    ("no NIC", |node| conf(node, "memory: 512\n"), "hook 100 pre-start"),
    (
        "a NIC that is not understood",
        |node| conf(node, "net0: virtio=01:00:00:AA:BB:00,bridge=vmbr0\n"),
        "hook 100 pre-start",
    ),
    (
        "a pool without the address",
        |node| {
            let file = "etc/pve/public-ip/pools.json";
            let mut pools: serde_json::Value = serde_json::from_str(&node.tree.read(file)).unwrap();
            pools["pools"]["ovh-rbx"]["addresses"]
                .as_array_mut()
                .unwrap()
                .retain(|entry| entry["address"] != "203.0.113.10/32");
            node.tree.write(file, pools.to_string());
        },
        "hook 100 pre-start",
    ),
    (
        "a clone",
        |node| {
            node.tree.qemu(
                110,
                "name: c\nhookscript: local:snippets/pve-public-ip\nnet0: virtio=02:00:00:AA:BB:0C,bridge=vmbr0\n",
            );
        },
        "hook 110 pre-start",
    ),
    (
        "a clone with the address",
        |node| {
            node.tree.qemu(110, "name: c\nide2: local:cloudinit\nsmbios1: uuid=11111111-2222-3333-4444-555555555555\nipconfig0: ip=203.0.113.10/32\nnet0: virtio=02:00:00:AA:BB:0C,bridge=vmbr0\n");
        },
        "hook 110 pre-start",
    ),
    (
        "a clone with an address that nobody holds",
        |node| {
            node.tree
                .qemu(110, "name: c\nipconfig0: ip=203.0.113.11/32\nnet0: virtio=02:00:00:AA:BB:0C,bridge=vmbr0\n");
        },
        "hook 110 pre-start",
    ),
    (
        "a container with the address",
        |node| {
            node.tree.lxc(
                210,
                "hostname: c\nnet0: name=eth0,bridge=vmbr0,hwaddr=02:00:00:AA:BB:0D,ip=203.0.113.10/32,type=veth\n",
            );
        },
        "hook 210 pre-start",
    ),
    (
        "a restored copy with the MAC",
        |node| node.tree.qemu(110, "name: c\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n"),
        "hook 110 pre-start",
    ),
    (
        "two guests with one MAC",
        |node| node.tree.qemu(110, "name: c\nnet0: virtio=02:00:00:AA:BB:01,bridge=vmbr0\n"),
        "topology --check",
    ),
    (
        "a stopped guest whose lines were edited",
        |node| {
            conf(
                node,
                "ide2: local:cloudinit\nsmbios1: uuid=11111111-2222-3333-4444-555555555555\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n",
            );
        },
        "verify",
    ),
    (
        "a flushed filter",
        |node| {
            conf(node, "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
            node.run("apply").ok();
            node.net.sh("nft delete table bridge pve-public-ip");
        },
        "verify",
    ),
    (
        "a NIC without a MAC for its first address",
        |node| node.tree.qemu(120, "name: d\nnet0: virtio,bridge=vmbr0\n"),
        "assign 120 203.0.113.12 --no-hookscript",
    ),
    ("an address that somebody holds", |_| {}, "assign 101 203.0.113.10 --no-hookscript"),
    ("an entry that is assigned", |_| {}, "pool remove ovh-rbx 203.0.113.10"),
    (
        "a network document of one's own without the address",
        |node| {
            conf(
                node,
                "ide2: local:cloudinit\nsmbios1: uuid=11111111-2222-3333-4444-555555555555\ncicustom: network=local:snippets/own.yaml\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n",
            );
            node.tree.write("var/lib/vz/snippets/own.yaml", "version: 1\nconfig: []\n");
        },
        "assign 100 203.0.113.10 --no-hookscript",
    ),
    (
        "no UUID",
        |node| conf(node, "ide2: local:cloudinit\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n"),
        "assign 100 203.0.113.10 --no-hookscript",
    ),
];

/// Commands of hints that are not run here, with the reason.
const NOT_RUN: &[(&str, &str)] = &[
    ("local:snippets/own.yaml", "a file that is named, not a command"),
    (
        "pve-public-ip release 100 203.0.113.10",
        "of a restored copy: for when the original is gone; the copy then is a clone",
    ),
];

#[test]
fn hints_cure() {
    let mut cured = 0;
    let mut failed = String::new();
    for (name, provoke, command) in SITUATIONS {
        let mut number = 0;
        loop {
            let node = node();
            provoke(&node);
            let run = node.run(command);
            assert_ne!(run.code, 0, "{name} is no complaint: {run}");
            let (sentence, commands) = complaint(&run);
            assert!(!commands.is_empty(), "{name}: the hint is no command: {run}");
            let Some(cure) = commands.get(number) else { break };
            number += 1;
            let is_skipped = |(skipped, _): &&(&str, &str)| {
                skipped == cure
                    && (*name != "an address that somebody holds"
                        && *name != "an entry that is assigned"
                        && !name.contains("bridge"))
            };
            if NOT_RUN.iter().any(|entry| is_skipped(&entry)) {
                continue;
            }
            let done = shell(&node, cure);
            let again = node.run(command);
            if done.code != 0 || format!("{}{}", again.out, again.err).contains(&sentence) {
                failed += &format!("{name}: `{cure}` does not cure it\n{run}\n{done}\n{again}\n");
            }
            cured += 1;
        }
    }
    assert!(failed.is_empty(), "{failed}");
    assert!(cured >= SITUATIONS.len(), "only {cured} commands were run");
}

/// What only lists, or leaves the most important to the reader, is no command; each that is left has its reason.
const UNFINISHED: &[(&str, &str)] = &[
    ("src/cli/assignments.rs", "a NIC that is not there or not understood: nobody knows its bridge"),
    ("src/cloudinit/mod.rs", "a line that is not understood: what it meant is not known"),
    ("src/cloudinit/check.rs", "the name server is the administrator's choice"),
    ("src/doctor", "findings about what others have configured"),
    ("src/topology/check.rs", "addresses of the node and of private networks are the administrator's choice"),
    ("src/plan/support.rs", "the interface is the administrator's choice"),
];

#[test]
fn hints_are_commands_that_can_be_run() {
    fn scan(path: &Path, found: &mut Vec<String>) {
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                scan(&entry.unwrap().path(), found);
            }
            return;
        }
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            let is_open = |command: &str| {
                let is_tool = ["qm ", "pct ", "{tool} "].iter().any(|tool| command.starts_with(tool));
                is_tool && (command.ends_with(" ...") || command.contains(" config {"))
            };
            if line.split('`').skip(1).step_by(2).any(is_open) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    scan(&root.join("src"), &mut found);
    let excused = |line: &&String| UNFINISHED.iter().any(|(file, _)| line.contains(file));
    let rest: Vec<&String> = found.iter().filter(|line| !excused(line)).collect();
    assert!(rest.is_empty(), "hints that cannot be run as they are:\n{rest:#?}");
}
