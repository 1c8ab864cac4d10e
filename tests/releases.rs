//! Two releases in one cluster: while one node is not upgraded yet, the others write nothing that it cannot read.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::collections::BTreeSet;

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
    let node = Node::with_pool();
    std::fs::create_dir_all(node.tree.path("etc/pve/nodes/n2/qemu-server")).unwrap();
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
        "cannot change guest 100: node n2 has guests with addresses and has not noted which release it runs, and a release before \
         0.2.0 cannot read `router_advertisements`: it would refuse to start the guests of the file that has it",
        "on n2: `pve-public-ip apply`, which from release 0.2.0 on notes the release there",
    );
    // The directory of a node that has left the cluster may still be there.
    node.tree.write("etc/pve/.members", r#"{"nodename":"n1","version":1,"nodelist":{"n1":{"id":1,"online":1}}}"#);
    node.run("set 100 --router-advertisements true").ok();
    node.run("set 100 --router-advertisements default").ok();
    let with = r#"{"nodename":"n1","version":1,"nodelist":{"n1":{"id":1,"online":1},"n2":{"id":2,"online":0}}}"#;
    node.tree.write("etc/pve/.members", with);
    node.run("set 100 --router-advertisements true").fails_with(1, &["node n2 has guests"]);
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
    let node = holder();
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

/// A registry as release 0.1.0 wrote it, with every key that it had.
#[test]
fn what_the_first_release_wrote_is_read_and_kept() {
    let node = Node::new();
    let registry = |file: &str| format!("etc/pve/public-ip/{file}");
    let pools = r#"{"version":1,"pools":{"a":{"profile":"generic-bridged","bridge":"vmbr0","gateway4":"203.0.113.1","gateway6":"fe80::1",
        "gateway_mac":"02:00:00:00:00:01","guest_routers":true,"uplink_guard":"enforce","allowed_macs":["02:00:00:00:00:77"],
        "probe":"never","cool_down":"2h","addresses":[{"address":"203.0.113.10/32","mac":"02:00:00:aa:bb:00","gateway":"203.0.113.1",
        "monthly_cost_cents":170},{"address":"2001:db8:0:1::/64"}]}}}"#;
    node.tree.write(&registry("pools.json"), pools);
    let guest = r#"{"version":1,"vmid":100,"hookscript":"local:snippets/own","cloud_init":{"check":"warn","os":"alpine","before":{"net0":"ip=dhcp"}},
        "interfaces":{"net0":{"mac":"02:00:00:aa:bb:00","dhcp":false,"any_destination":true,"trunk":[10],"any_link_local":true,
        "link_local":["fe80::5"],"addresses":[{"address":"203.0.113.10/32","pool":"a","gateway":"203.0.113.1","organization":"acme",
        "assigned_at":"2026-11-22T10:00:00Z"}]}}}"#;
    node.tree.write(&registry("guests/100.json"), guest);
    node.tree.write(
        &registry("released.json"),
        r#"{"version":1,"addresses":{"203.0.113.99/32":{"at":"2026-11-22T10:00:00Z","vmid":101,"pool":"a"}}}"#,
    );
    node.tree.write(
        &registry("nodes/n1.json"),
        r#"{"version":1,"uplinks":["eno1"],"route_uplink":"vmbr0","log_group":9,"watch":false,"metrics_directory":"/tmp",
        "metrics_seconds":60,"alert_mail":"root","alert_exec":"/bin/true","alert_attempts":5,"backend":"nftables"}"#,
    );
    let run = node.run("registry check");
    assert_eq!(run.code, 0, "{run}");
    node.run("set 100 --dhcp true").ok();
    let now: Value = serde_json::from_str(&node.tree.read(&registry("guests/100.json"))).unwrap();
    let mut expected: Value = serde_json::from_str(guest).unwrap();
    expected["interfaces"]["net0"].as_object_mut().unwrap().remove("dhcp");
    // The first release reads this spelling, too.
    expected["interfaces"]["net0"]["addresses"][0]["address"] = "203.0.113.10".into();
    assert_eq!(now, expected, "what was not named is as it was");
}
