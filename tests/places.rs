//! Pools that work on some nodes of the cluster only: nobody gets an address, starts or arrives where it does not work.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use common::{BINARY, Node, Run};

/// Nodes n1 (this one) and n2, a pool of each, guest 100 on n1 and guest 101 on n2.
fn cluster() -> Node {
    let node = Node::new();
    std::fs::create_dir_all(node.tree.path("etc/pve/nodes/n2/qemu-server")).unwrap();
    moved(&node, 101, "n1", "n2");
    let release = format!("{{\"release\":\"{}\",\"hookscript\":true}}", env!("CARGO_PKG_VERSION"));
    node.tree.write("etc/pve/public-ip/releases/n2.json", release);
    for (pool, address) in [("a", "203.0.113.10"), ("b", "198.51.100.10")] {
        let gateway = address.replace(".10", ".1");
        node.run(&format!(
            "pool create {pool} --profile generic-bridged --bridge vmbr0 --gateway4 {gateway} --probe never {address} {address}1"
        ))
        .ok();
    }
    node.run("pool set a --nodes n1").ok();
    node.run("pool set b --nodes n2").ok();
    node
}

fn moved(node: &Node, vmid: u32, from: &str, to: &str) {
    let path = |name: &str| node.tree.path(&format!("etc/pve/nodes/{name}/qemu-server/{vmid}.conf"));
    std::fs::rename(path(from), path(to)).unwrap();
}

const WRONG: &str =
    "the provider routes 203.0.113.10 of pool `a` to node n1, not to n2: guest 101 has no network with it there";
const REMEDY: &str =
    "migrate guest 101 to n1; if the provider routes it to n2, too: `pve-public-ip pool set a --nodes n1,n2`";

#[test]
fn an_address_is_assigned_only_where_it_works() {
    let node = cluster();
    node.changes_nothing("assign 101 203.0.113.10 --no-hookscript").fails(
        1,
        &format!("cannot assign to guest 101: {WRONG}"),
        REMEDY,
    );
    node.changes_nothing("assign 101 --pool a --no-hookscript").fails(
        1,
        "cannot assign to guest 101: the provider routes the addresses of pool `a` to node n1, not to n2: guest 101 has no \
         network with them there",
        "migrate guest 101 to n1; if the provider routes them to n2, too: `pve-public-ip pool set a --nodes n1,n2`",
    );
    node.tree.write("plan.csv", "vmid,address\n101,203.0.113.10\n");
    let file = node.tree.path("plan.csv");
    node.changes_nothing(&format!("import {} --no-hookscript", file.display())).fails_with(1, &[WRONG, REMEDY]);
    // Without a pool it is the one that works where the guest is.
    let given = node.run("assign 101 --no-hookscript --output-format json").ok().json();
    assert_eq!(given["addresses"][0]["address"], "198.51.100.10");
    let given = node.run("assign 100 --no-hookscript --output-format json").ok().json();
    assert_eq!(given["addresses"][0]["address"], "203.0.113.10");
    // What the hint says helps.
    node.run("pool set a --nodes n1,n2").ok();
    node.run("assign 101 203.0.113.101 --no-hookscript").ok();
}

#[test]
fn a_guest_neither_starts_nor_arrives_where_its_address_does_not_work() {
    let node = cluster();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.run("hook 100 pre-start").ok();
    // A migration to n2, its configuration still on n1.
    let other = node.tree.beside("n2");
    let arrives = |env: &[(&str, &str)], arguments: &str| {
        let mut command = node.net.command(BINARY);
        command.arg("--root").arg(other.root()).args(arguments.split(' ')).envs(env.iter().copied());
        Run::of(format!("n2: {arguments}"), &command.output().unwrap())
    };
    let (wrong, remedy) = (WRONG.replace("101", "100"), REMEDY.replace("101", "100"));
    arrives(&[("PVE_MIGRATED_FROM", "n1")], "hook 100 pre-start").fails(1, &wrong, &remedy);
    // Recovery by HA: the configuration has moved, and the guest is started.
    moved(&node, 100, "n1", "n2");
    arrives(&[], "hook 100 pre-start").fails(1, &wrong, &remedy);
    for command in ["pool list", "pool show a", "doctor"] {
        let run = node.run(command);
        assert!(run.out.contains(&wrong), "{command}: {run}");
    }
    let listed = node.run("pool list --output-format json").json();
    assert_eq!(listed["pools"][0]["nodes"][0], "n1");
    assert_eq!(listed["pools"][0]["misplaced"][0]["code"], "wrong-node");
    assert_eq!(listed["pools"][1]["misplaced"].as_array().unwrap().len(), 0);
    arrives(&[], "verify").fails_with(3, &[]);
    // Where the pool only warns, it starts, and everybody says so.
    let run = node.run("pool set a --elsewhere warn").ok();
    assert!(run.out.contains(&wrong), "{run}");
    let started = arrives(&[], "hook 100 pre-start").ok();
    assert!(started.err.contains(&wrong) && started.err.contains("guest 100 is protected"), "{started}");
    let seen = arrives(&[], "doctor");
    assert!(seen.out.contains("guest-on-other-node") && seen.out.contains(&wrong), "{seen}");
    let noted = arrives(&[], "verify");
    assert!(format!("{}{}", noted.out, noted.err).contains(&wrong), "{noted}");
    // Back home nobody says anything.
    moved(&node, 100, "n2", "n1");
    assert!(!node.run("pool list").ok().out.contains("routes"));
}

#[test]
fn a_pool_of_a_provider_with_macs_asks_for_its_nodes() {
    let node = cluster();
    let create = "pool create hz --profile hetzner-bridged --bridge vmbr0 192.0.2.77";
    let said =
        "pool `hz` does not name its nodes: its addresses are taken to work on each of the 2 nodes of the cluster";
    let hint = "name those that have them at the provider, such as `pve-public-ip pool set hz --nodes n1`";
    let run = node.run(create).ok();
    assert!(format!("{}{}", run.out, run.err).contains(said), "{run}");
    assert!(format!("{}{}", run.out, run.err).contains(hint), "{run}");
    assert!(node.run("doctor").out.contains(said));
    node.run("pool set hz --nodes n1").ok();
    assert!(!node.run("doctor").out.contains(said));
    let shown = node.run("pool show hz").ok();
    assert!(shown.out.contains("nodes n1 (elsewhere: refuse)"), "{shown}");
    node.run("pool set hz --all-nodes").ok();
    assert_eq!(node.run("pool show hz --output-format json").ok().json()["nodes"].as_array().unwrap().len(), 0);
    node.changes_nothing("pool set hz --nodes n3").fails(
        1,
        "cannot change pool `hz`: the cluster has no node `n3`",
        "did you mean `n1`?",
    );
    node.changes_nothing("pool create x --profile generic-bridged --bridge vmbr0 --nodes other 192.0.2.99").fails(
        1,
        "cannot create pool `x`: the cluster has no node `other`",
        "there is: n1, n2",
    );
    // Who runs elsewhere stays bound, and is named.
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.plug("tap100i0");
    node.run("hook 100 pre-start").ok();
    node.run("hook 100 post-start").ok();
    let bound = node.net.set("bound_ip4");
    let run = node.run("pool set a --nodes n2").ok();
    let wrong = WRONG.replace("101", "100").replace("node n1, not to n2", "node n2, not to n1");
    assert!(run.out.contains(&wrong), "{run}");
    assert_eq!(node.net.set("bound_ip4"), bound);
}

#[test]
fn an_older_node_is_not_written_what_it_cannot_read() {
    let node = cluster();
    node.run("pool set a --all-nodes").ok();
    node.run("pool set b --all-nodes").ok();
    node.run("assign 101 203.0.113.10 --no-hookscript").ok();
    node.tree.write("etc/pve/public-ip/releases/n2.json", "{\"release\":\"0.1.0\",\"hookscript\":true}");
    node.changes_nothing("pool set a --nodes n1").fails_with(1, &["release before 0.2.0 cannot read `nodes`"]);
    node.changes_nothing("pool set a --elsewhere warn")
        .fails_with(1, &["release before 0.2.0 cannot read `elsewhere`"]);
}
