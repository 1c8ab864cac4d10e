//! Conflicts as the administrator sees them, and what they keep from being handed out.

use serde_json::{Value, json};

use crate::common::Node;

/// Guest 100 holds .10; guest 101 has it in its configuration; SDN has given .11 away.
fn contested() -> Node {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.tree.qemu(101, "ipconfig0: ip=203.0.113.10/24\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
    let ips = json!({"203.0.113.11": {"vmid": "300", "mac": "BC:24:11:00:00:01"}});
    let state = json!({"zones": {"z": {"subnets": {"203.0.113.0/24": {"ips": ips}}}}});
    node.tree.write("etc/pve/sdn/pve-ipam-state.json", state.to_string());
    node.tree.write("etc/pve/firewall/101.fw", "[IPSET ipfilter-net0]\n203.0.113.10\n");
    node
}

fn list(node: &Node) -> Vec<Value> {
    let data = node.run("conflicts list --output-format json").ok().json();
    assert_eq!(data["not_compared"], json!([]));
    data["conflicts"].as_array().unwrap().clone()
}

#[test]
fn conflicts_between_files_are_listed_and_acknowledged() {
    let node = Node::with_pool();
    node.run("conflicts list").prints("no conflicts\n");
    node.run("conflicts ack --all").prints("nothing to acknowledge\n");

    let node = contested();
    let found = list(&node);
    let sentences: Vec<&str> = found.iter().map(|one| one["sentence"].as_str().unwrap()).collect();
    assert_eq!(
        sentences,
        [
            "203.0.113.10 is assigned to guest 100, and guest 101 is configured with it",
            "MAC 02:00:00:aa:bb:00 is registered for guest 100 net0, and guest 101 net0 has it",
            "203.0.113.11 is in pool ovh-rbx, and SDN has given it to guest 300",
            "203.0.113.10 is assigned to guest 100, and a firewall set lets guest 101 use it",
        ]
    );
    let ids: Vec<&str> = found.iter().map(|one| one["id"].as_str().unwrap()).collect();
    let shown = node.run("conflicts list").ok();
    let line = format!(
        "{} ipam: 203.0.113.11 is in pool ovh-rbx, and SDN has given it to guest 300; the address is not handed out\n  \
         hint: remove it from Datacenter > SDN > IPAM, or the address from the pool: an address has one administration\n",
        ids[2]
    );
    assert!(shown.out.contains(&line), "{shown}");

    node.run("conflicts ack 00000000").fails(
        1,
        "there is no conflict `00000000`",
        "`pve-public-ip conflicts list` shows their numbers",
    );
    node.run("conflicts ack").fails_with(2, &["<IDS>..."]);
    node.run(&format!("conflicts ack {}", ids[0])).prints(&format!("{} acknowledged: {}\n", ids[0], sentences[0]));
    let after = list(&node);
    assert_eq!(
        (after[3]["id"].as_str(), &after[3]["acknowledged"]),
        (Some(ids[0]), &true.into()),
        "known ones come last"
    );
    let data = node.run("status --output-format json").json();
    assert_eq!(data["conflicts"], 3);
    node.run("conflicts ack --all").ok();
    assert!(list(&node).iter().all(|one| one["acknowledged"] == true && one["blocks"] == false));
}

#[test]
fn an_address_that_is_given_away_is_not_handed_out() {
    let node = contested();
    let assigned = node.run("assign 200 -4 --dry-run --no-hookscript").ok();
    assert!(assigned.out.starts_with("203.0.113.12 would be assigned to guest 200 net0"), "{assigned}");
    let id = list(&node)[2]["id"].as_str().unwrap().to_owned();
    node.changes_nothing("assign 200 203.0.113.11").fails(
        1,
        "cannot assign to guest 200: 203.0.113.11 is contested: 203.0.113.11 is in pool ovh-rbx, and SDN has given it to guest 300",
        &format!("`pve-public-ip conflicts list` says more; to assign it all the same, first `pve-public-ip conflicts ack {id}`"),
    );
    node.run(&format!("conflicts ack {id}")).ok();
    node.run("assign 200 203.0.113.11 --no-hookscript").ok();
}

/// What a tenant writes into his guest's configuration takes nothing from anybody.
#[test]
fn a_configuration_blocks_nothing() {
    let node = Node::with_pool();
    node.tree.qemu(101, "ipconfig0: ip=203.0.113.10/24\nnet0: virtio=02:00:00:AA:BB:01,bridge=vmbr0\n");
    let assigned = node.run("assign 100 -4 --dry-run --no-hookscript").ok();
    assert!(assigned.out.starts_with("203.0.113.10 would be assigned to guest 100 net0"), "{assigned}");
}
