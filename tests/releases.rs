//! Two releases in one cluster: while one node is not upgraded yet, the others write nothing that it cannot read.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use common::Node;

/// What the first release reads: `file place`, as in the list that the program is tested with.
const FIRST: &str = include_str!("../crates/core/src/registry/keys-0.1.0.txt");

/// A note of another node.
fn noted(node: &Node, release: &str) {
    let bytes = format!("{{\"release\":\"{release}\",\"hookscript\":true}}");
    node.tree.write("etc/pve/public-ip/releases/n2.json", bytes);
}

fn holder() -> Node {
    holding(Node::new())
}

fn holding(node: Node) -> Node {
    std::fs::create_dir_all(node.tree.path("etc/pve/nodes/n2/qemu-server")).unwrap();
    node.run(common::CREATE).ok();
    node.run("assign 100 203.0.113.10 2001:db8:0:1::10 --no-hookscript").ok();
    node
}

#[test]
fn what_a_node_of_the_cluster_cannot_read_is_not_written() {
    let node = holder();
    noted(&node, "0.1.0");
    let older = "cannot change guest 100: node n2 runs release 0.1.0, and a release before 0.2.0 cannot read \
         `router_advertisements`: it would refuse to start the guests of the file that has it";
    let hint = "upgrade n2, there: `apt update && apt install pve-public-ip && pve-public-ip apply`";
    for value in ["true", "false"] {
        for rest in ["", " --dry-run"] {
            node.changes_nothing(&format!("set 100 --router-advertisements {value}{rest}")).fails(1, older, hint);
        }
    }
    // What the older release reads is written, and the default is no key.
    node.run("set 100 --dhcp false --trunk 10 --any-destination true").ok();
    node.run("set 100 --router-advertisements default").ok();
    // `apply` of the newer release there says that it has come.
    let other = node.tree.beside("n2");
    let run = node.net.command(common::BINARY).arg("--root").arg(other.root()).arg("apply").output().unwrap();
    common::Run::of("apply on n2".to_owned(), &run).ok();
    node.run("set 100 --router-advertisements false").ok();
    assert!(node.tree.read("etc/pve/public-ip/guests/100.json").contains("\"router_advertisements\": false"));
    // A file that has the key can be changed, whatever a node runs, and be rid of it.
    noted(&node, "0.1.0");
    node.run("set 100 --router-advertisements true").ok();
    node.run("set 100 --router-advertisements default").ok();
    assert!(!node.tree.read("etc/pve/public-ip/guests/100.json").contains("router_advertisements"));
    node.run("set 100 --router-advertisements true").fails_with(1, &["node n2 runs release 0.1.0"]);
    for release in ["0.2.0", "0.10.0", "1.0.0~rc1"] {
        noted(&node, release);
        node.run("set 100 --router-advertisements true").ok();
        node.run("set 100 --router-advertisements default").ok();
    }
}

#[test]
fn a_node_that_has_noted_nothing_counts_as_old_where_guests_hold_addresses() {
    let node = holder();
    node.run("set 100 --router-advertisements true").ok();
    node.run("set 100 --router-advertisements default").ok();
    node.tree.write("etc/pve/nodes/n2/qemu-server/300.conf", "net0: virtio=02:00:00:AA:BB:30,bridge=vmbr0\n");
    node.run("set 100 --router-advertisements true").ok();
    node.run("set 100 --router-advertisements default").ok();
    node.run("assign 300 203.0.113.12 --no-hookscript").ok();
    node.changes_nothing("set 100 --router-advertisements true").fails(
        1,
        "cannot change guest 100: node n2 uses this registry, but has not noted which release it runs, and a release before \
         0.2.0 cannot read `router_advertisements`: it would refuse to start the guests of the file that has it",
        "on n2: `pve-public-ip apply`, which from release 0.2.0 on notes the release there",
    );
    // The directory of a node that has left the cluster may still be there.
    node.tree.write("etc/pve/.members", r#"{"nodename":"n1","version":1,"nodelist":{"n1":{"id":1,"online":1}}}"#);
    node.run("set 100 --router-advertisements true").ok();
    node.run("set 100 --router-advertisements default").ok();
    let with = r#"{"nodename":"n1","version":1,"nodelist":{"n1":{"id":1,"online":1},"n2":{"id":2,"online":0}}}"#;
    node.tree.write("etc/pve/.members", with);
    node.run("set 100 --router-advertisements true").fails_with(1, &["node n2 uses this registry"]);
}

/// Every key of a document with its place as the list has it: what names things is a star.
fn places(file: &str, at: &Value, path: &str, found: &mut BTreeSet<String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match at {
        Value::Object(map) => {
            for (name, next) in map {
                let known = FIRST.lines().any(|line| line == format!("{file} {}", below("*")))
                    || FIRST.lines().any(|line| line.starts_with(&format!("{file} {}", below("*."))));
                let place = if known { below("*") } else { below(name) };
                if !known {
                    found.insert(format!("{file} {place}"));
                }
                places(file, next, &place, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|next| places(file, next, &below("*"), found)),
        _ => {}
    }
}

#[test]
fn nothing_newer_is_written_unless_somebody_says_so() {
    let node = Node::new();
    noted(&node, "0.1.0");
    let node = holding(node);
    // From here on nothing would be refused: what is not written is not written unasked.
    noted(&node, "0.2.0");
    for command in [
        "assign 101 203.0.113.11 --no-hookscript --organization acme",
        "assign 200 203.0.113.12 --no-hookscript --cloud-init off",
        "set 100 --dhcp false --trunk 10 --any-destination true --link-local fe80::5 --any-link-local true",
        "set 101 --dhcp true",
        "pool add ovh-rbx 203.0.113.20 --mac 02:00:00:00:00:99 --gateway 203.0.113.1 --monthly-cost-cents 200",
        "pool set ovh-rbx --allow-mac 02:00:00:00:00:77 --uplink-guard enforce --probe never --cool-down 2h --guest-routers true --yes",
        "pool set ovh-rbx --gateway-mac 02:00:00:00:00:01",
        "pool create hz --profile hetzner-routed --bridge vmbr0 --gateway4 169.254.0.1 198.18.0.0/29",
        "node set --log-group 9 --alert-mail root --metrics-seconds 60 --backend nftables",
        "release 101",
        "apply",
    ] {
        node.run(command).ok();
    }
    let mut found = BTreeSet::new();
    let read =
        |file: &str| serde_json::from_str::<Value>(&node.tree.read(&format!("etc/pve/public-ip/{file}"))).unwrap();
    places("pools", &read("pools.json"), "", &mut found);
    places("released", &read("released.json"), "", &mut found);
    places("node", &read("nodes/n1.json"), "", &mut found);
    for guest in ["guests/100.json", "guests/200.json"] {
        places("guest", &read(guest), "", &mut found);
    }
    let first: BTreeSet<String> = FIRST.lines().map(str::to_owned).collect();
    let newer: Vec<&String> = found.difference(&first).collect();
    assert!(newer.is_empty(), "release 0.1.0 cannot read {newer:?}");
    assert!(found.len() > 35, "{found:?}");
}

/// A registry in this version of the format, with every key that its first release had: `tests/golden/registry`. Both are read
/// for ever, so no file there is ever changed.
fn golden(version: u64) -> Node {
    fn copy(from: &Path, node: &Node, to: &str) {
        for entry in std::fs::read_dir(from).unwrap() {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
            let to = format!("{to}/{}", name.to_str().unwrap());
            if path.is_dir() { copy(&path, node, &to) } else { node.tree.write(&to, std::fs::read(&path).unwrap()) }
        }
    }
    let node = Node::new();
    copy(&golden_files(version), &node, "etc/pve/public-ip");
    node
}

fn golden_files(version: u64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/registry/version-{version}"))
}

#[test]
fn what_any_release_wrote_is_read_alike_and_kept() {
    let looks = [
        "pool show a",
        "pool show lan",
        "pool list",
        "show 100",
        "list",
        "list --free",
        "who 203.0.113.99",
        "node show",
    ];
    let mut seen: Vec<Vec<Value>> = Vec::new();
    for version in [1, 2] {
        let node = golden(version);
        node.run("registry check").ok();
        let look = |command: &&str| node.run(&format!("{command} --output-format json")).ok().json();
        seen.push(looks.iter().map(look).collect());
        let before = node.tree.registry();
        node.run("set 100 --dhcp true").ok();
        let mut now = node.tree.registry();
        let path = node.tree.path("etc/pve/public-ip/guests/100.json");
        let [old, new] = [&before[&path], &now[&path]].map(|bytes| serde_json::from_slice::<Value>(bytes).unwrap());
        let mut expected = old;
        expected["interfaces"]["net0"].as_object_mut().unwrap().remove("dhcp");
        // The first release reads this spelling, too.
        expected["interfaces"]["net0"]["addresses"][0]["address"] = "203.0.113.10".into();
        assert_eq!(new, expected, "what was not named is as it was");
        now.insert(path.clone(), before[&path].clone());
        now.retain(|path, _| before.contains_key(path));
        assert!(now == before, "version {version}: another file has changed");
        // A pool is changed in the format that is there.
        node.run("pool add lan 198.51.100.65").ok();
        assert!(node.tree.read(&node.tree.pool_file("lan")).contains("198.51.100.65"));
        assert_eq!(node.tree.path("etc/pve/public-ip/pools").exists(), version == 2);
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn version_1_becomes_version_2_as_it_was_kept() {
    let node = golden(1);
    node.run("registry convert").ok();
    for file in ["pools.json", "pools/a.json", "pools/lan.json", "guests/100.json", "released.json", "nodes/n1.json"] {
        let kept = std::fs::read_to_string(golden_files(2).join(file)).unwrap();
        assert_eq!(node.tree.read(&format!("etc/pve/public-ip/{file}")), kept, "{file}");
    }
}
