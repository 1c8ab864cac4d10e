//! A command that was carried out may be given again: it says that all is so already, changes nothing, and ends well.

use serde_json::{Value, json};

use crate::common::Node;

/// `changed` and what was assigned or released.
fn outcome(node: &Node, command: &str) -> (Value, Value) {
    let data = node.run(&format!("{command} --output-format json")).ok().json();
    let addresses = data.get("assigned").or_else(|| data.get("released")).unwrap().clone();
    (data["changed"].clone(), addresses)
}

fn two_nics() -> Node {
    let node = Node::with_pool();
    node.tree.qemu(103, "net0: virtio=02:00:00:AA:BB:05,bridge=vmbr0\nnet1: virtio=02:00:00:AA:BB:06,bridge=vmbr0\n");
    node
}

#[test]
fn to_assign_again_changes_nothing() {
    let node = two_nics();
    for command in ["assign 100 203.0.113.10 2001:db8:0:1::10", "assign 101 -4 --pool ovh-rbx", "assign 103 -4 --net 1"]
    {
        let (changed, assigned) = outcome(&node, command);
        assert_eq!((changed, assigned == json!([])), (true.into(), false), "{command}");
        let again = node.changes_nothing(&format!("{command} --output-format json")).ok().json();
        assert_eq!((&again["changed"], &again["assigned"]), (&json!(false), &json!([])), "{command}");
        let said = node.run(command).ok();
        assert!(said.out.contains(" is already assigned to guest 1"), "{said}");
    }
    // All families of the pool: one is there, the other is not, and then nothing is left to take.
    assert_eq!(outcome(&node, "assign 100"), (false.into(), json!([])));
    node.changes_nothing("assign 101").fails_with(1, &["has no free IPv6 address", "hint: only IPv4: add -4"]);
    node.changes_nothing("assign 101 -4").ok();
}

/// Each NIC is asked for by itself; NICs of a bond hold the same.
#[test]
fn nics_count_by_themselves() {
    let node = two_nics();
    assert_eq!(outcome(&node, "assign 103 -4 --net 1"), (true.into(), json!(["203.0.113.10"])));
    assert_eq!(outcome(&node, "assign 103 -4"), (true.into(), json!(["203.0.113.11"])), "net0 has none yet");
    assert_eq!(outcome(&node, "assign 103 -4 --net 1"), (false.into(), json!([])));
    assert_eq!(outcome(&node, "assign 103 -4"), (false.into(), json!([])));

    node.tree.qemu(104, "net0: virtio=02:00:00:AA:BB:07,bridge=vmbr0\nnet1: virtio=02:00:00:AA:BB:07,bridge=vmbr0\n");
    assert_eq!(outcome(&node, "assign 104 -4"), (true.into(), json!(["203.0.113.12"])));
    assert_eq!(outcome(&node, "assign 104 -4 --net 0 --net 1"), (true.into(), json!(["203.0.113.12"])));
    assert_eq!(outcome(&node, "assign 104 -4 --net 0 --net 1"), (false.into(), json!([])));
}

#[test]
fn several_addresses_are_asked_for() {
    let node = Node::with_pool();
    assert_eq!(outcome(&node, "assign 100 -4 --count 2"), (true.into(), json!(["203.0.113.10", "203.0.113.11"])));
    assert_eq!(outcome(&node, "assign 100 -4 --count 2"), (false.into(), json!([])));
    assert_eq!(outcome(&node, "assign 100 -4"), (false.into(), json!([])), "two are more than one");
    assert_eq!(outcome(&node, "assign 100 -4 --more"), (true.into(), json!(["203.0.113.12"])));
    node.changes_nothing("assign 100 -4 --count 9").fails(
        1,
        "cannot assign to guest 100: pool `ovh-rbx` has only 1 more IPv4 address for guest 100, but 6 were asked for",
        "more addresses: `pve-public-ip pool add ovh-rbx PREFIX`",
    );
    assert_eq!(outcome(&node, "assign 100 -4 --more"), (true.into(), json!(["203.0.113.13"])));
    node.changes_nothing("assign 100 -4 --more").fails_with(1, &["pool `ovh-rbx` has no free IPv4 address"]);
    node.changes_nothing("assign 100 203.0.113.10 --count 2").fails_with(2, &["cannot be used with"]);
}

#[test]
fn another_customer_is_a_change() {
    let node = Node::with_pool();
    outcome(&node, "assign 100 -4 --organization acme");
    assert_eq!(outcome(&node, "assign 100 -4 --organization acme"), (false.into(), json!([])));
    assert_eq!(outcome(&node, "assign 100 -4"), (false.into(), json!([])), "not to name one takes none away");
    assert_eq!(outcome(&node, "assign 100 203.0.113.10 --organization other"), (true.into(), json!([])));
    assert!(node.run("show 100").ok().out.contains("organization other"));
}

#[test]
fn to_release_again_changes_nothing() {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 203.0.113.11 --no-hookscript").ok();
    node.run("assign 101 203.0.113.12 --no-hookscript").ok();
    assert_eq!(outcome(&node, "release 100 203.0.113.11"), (true.into(), json!(["203.0.113.11"])));
    node.changes_nothing("release 100 203.0.113.11").prints("203.0.113.11 is not assigned to guest 100\n");
    node.changes_nothing("release 100 203.0.113.12")
        .prints("203.0.113.12 is not assigned to guest 100; guest 101 holds it, and keeps it\n");
    assert_eq!(outcome(&node, "release 100 203.0.113.10 203.0.113.11"), (true.into(), json!(["203.0.113.10"])));
    assert_eq!(outcome(&node, "release 100"), (false.into(), json!([])));
    node.changes_nothing("release 100").prints("guest 100 has no public address any more\n");
    // A number that was mistyped can be told from one that is done with.
    node.changes_nothing("release 999").prints(
        "guest 999 has no public address any more\n\
         note: there is no guest 999\n  hint: `pve-public-ip list` shows who holds what\n",
    );
    // A part of what a guest holds, or more than that, is no second try.
    node.run("pool add ovh-rbx 198.51.100.0/24").ok();
    node.run("assign 100 198.51.100.8/29 --no-hookscript").ok();
    for other in ["198.51.100.8/30", "198.51.100.9", "198.51.100.0/24"] {
        node.changes_nothing(&format!("release 100 {other}")).fails(
            1,
            &format!("cannot release from guest 100: guest 100 holds 198.51.100.8/29, not {other}"),
            "an assignment is released whole: `pve-public-ip release 100 198.51.100.8/29`",
        );
    }
}

#[test]
fn to_remove_from_a_pool_again_changes_nothing() {
    let node = Node::with_pool();
    node.run("pool create lan --profile generic-bridged --bridge vmbr0 198.51.100.0/29 198.51.100.8").ok();
    let removed = |command: &str| {
        let data = node.run(&format!("{command} --output-format json")).ok().json();
        (data["changed"].clone(), data["removed"].clone(), data["absent"].clone(), data["existed"].clone())
    };
    let (nothing, yes, no) = (json!([]), json!(true), json!(false));
    let gone = || json!([{"address": "198.51.100.8"}]);
    let address = "pool remove lan 198.51.100.8";
    assert_eq!(
        removed(&format!("{address} --dry-run")),
        (yes.clone(), json!(["198.51.100.8"]), nothing.clone(), yes.clone())
    );
    assert_eq!(removed(address), (yes.clone(), json!(["198.51.100.8"]), nothing.clone(), yes.clone()));
    assert_eq!(removed(address), (no.clone(), nothing.clone(), gone(), yes.clone()));
    node.changes_nothing(address).prints("198.51.100.8 is not in pool lan\n");
    node.changes_nothing("pool remove lan 203.0.113.10")
        .prints("203.0.113.10 is not in pool lan; pool ovh-rbx has it, and keeps it\n");
    // A part of an entry, or more than that, is no second try.
    for other in ["198.51.100.1", "198.51.100.0/30", "198.51.100.0/24"] {
        node.changes_nothing(&format!("pool remove lan {other}")).fails(
            1,
            &format!("cannot remove from pool `lan`: pool `lan` has no entry {other}"),
            "`pve-public-ip pool show lan` lists its entries",
        );
    }
    assert_eq!(removed("pool remove lan"), (yes.clone(), nothing.clone(), nothing.clone(), yes));
    assert_eq!(removed("pool remove lan"), (no.clone(), nothing.clone(), nothing.clone(), no.clone()));
    assert_eq!(removed(address), (no.clone(), nothing, gone(), no));
    // A name that was mistyped can be told from one that is done with.
    node.changes_nothing("pool remove lam")
        .prints("there is no pool lam\n  hint: `pve-public-ip pool list` shows the pools\n");
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.changes_nothing("pool remove ovh-rbx").fails_with(1, &["203.0.113.10"]);
    // A registry that cannot be read does not say what is gone.
    node.tree.write("etc/pve/public-ip/guests/101.json", "{");
    node.changes_nothing("pool remove lan").fails_with(4, &["cannot remove from pool `lan`"]);
}

#[test]
fn settings_of_the_node_change_once() {
    let node = Node::new();
    node.begin_as_before();
    node.run(crate::common::CREATE).ok();
    let changed = |command: &str| node.run(&format!("{command} --output-format json")).ok().json()["changed"].clone();
    for command in
        ["node set --alert-attempts 7", "node set --log-group 5", "node set --log-group none", "node set --watch false"]
    {
        assert_eq!(
            (changed(&format!("{command} --dry-run")), changed(command), changed(command)),
            (true.into(), true.into(), false.into()),
            "{command}"
        );
    }
    node.changes_nothing("node set --alert-attempts 7").prints("settings of node n1 unchanged\n");
    assert_eq!((changed("registry convert"), changed("registry convert")), (true.into(), false.into()));
}

/// The MAC that the provider wants is set once.
#[test]
fn to_set_the_mac_again_changes_nothing() {
    let node = Node::new();
    node.stand_in_proxmox();
    node.run("pool create p --profile ovh-bridged --bridge vmbr0 --gateway4 198.51.100.254").ok();
    node.run("pool add p 198.51.100.7 --mac 00:50:56:00:01:02").ok();
    assert_eq!(outcome(&node, "assign 100 --set-mac"), (true.into(), json!(["198.51.100.7"])));
    assert_eq!(outcome(&node, "assign 100 --set-mac"), (false.into(), json!([])));
    assert_eq!(outcome(&node, "assign 100 198.51.100.7 --set-mac"), (false.into(), json!([])));
}

/// What is held already can still be somebody else's from now on, and that is said.
#[test]
fn another_organization_of_what_is_held_is_said() {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    let held =
        "203.0.113.10 is already assigned to guest 100 net0 (02:00:00:aa:bb:00), pool ovh-rbx, gateway 203.0.113.1";
    let first = |run: crate::common::Run| run.ok().out.lines().next().unwrap().to_owned();
    let assign = "assign 100 203.0.113.10 --no-hookscript --organization acme";
    let tried = node.run(&format!("{assign} --dry-run"));
    assert_eq!(first(tried), format!("{held}; its organization would be acme"));
    assert_eq!(first(node.run(assign)), format!("{held}; its organization is now acme"));
    assert_eq!(first(node.run(assign)), held, "nothing is another than before");
    for name in ["", " "] {
        let output = node.command(&["assign", "100", "203.0.113.10", "--organization", name]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains("for '--organization <ORG>': it is empty"), "{said}");
    }
}
