//! The state of a guest is one word: `list`, `show`, `who`, `status` and metrics say the same of the same guest.

use std::collections::BTreeSet;
use std::fs;

use pve_public_ip::plan::GuestState;
use serde_json::Value;

use crate::common::{Node, Run};

/// Guest, its address, the state it shall have. The guest's port is asked for, too.
fn all_say(node: &Node, vmid: u32, address: &str, state: GuestState) -> GuestState {
    let json = |command: &str| node.run(&format!("{command} --output-format json")).json();
    let of = |rows: &Value, key: &str| {
        let row = rows[key].as_array().unwrap().iter().find(|row| row["vmid"] == vmid);
        row.unwrap_or_else(|| panic!("no guest {vmid} in {rows}"))["state"].clone()
    };
    let (list, status) = (json("list"), json("status"));
    let (show, who) = (json(&format!("show {vmid}")), json(&format!("who {address}")));
    let port = json(&format!("who tap{vmid}i0"));
    let said = [of(&list, "assignments"), show["state"].clone(), of(&who, "holders"), of(&status, "guests")];
    assert!(said.iter().chain([&port["state"]]).all(|said| said == state.as_str()), "{state:?}: {said:?} {port}");
    // Whoever selects by the word finds the guest, and by no other word.
    for other in GuestState::ALL {
        let found = json(&format!("list --state {}", other.as_str()));
        let is_there = found["assignments"].as_array().unwrap().iter().any(|row| row["vmid"] == vmid);
        assert_eq!(is_there, *other == state, "--state {}: {found}", other.as_str());
    }
    // People read the same.
    for (command, shown) in [
        ("list".to_owned(), format!(" {state} ")),
        ("status".to_owned(), format!(" {state} ")),
        (format!("show {vmid}"), format!(": {state}\n")),
        (format!("who {address}"), format!("state:  {state}\n")),
    ] {
        let Run { out, .. } = node.run(&command);
        assert!(out.contains(&shown), "{command}: {shown:?} is not in\n{out}");
    }
    let metrics = node.run("metrics").out;
    let count = format!("state=\"{}\"}} ", state.as_str().replace('-', "_"));
    let value = metrics.lines().find_map(|line| line.split_once(&count)).unwrap_or_else(|| panic!("{metrics}")).1;
    assert_ne!(value, "0", "{count}");
    state
}

#[test]
fn four_commands_say_one_word() {
    let node = Node::with_pool();
    let far = "etc/pve/nodes/n2/qemu-server/300.conf";
    node.tree.write("etc/pve/nodes/n2/qemu-server/301.conf", "net0: virtio=02:00:00:AA:BB:31,bridge=vmbr0\n");
    node.tree.write(far, "lock: migrate\nnet0: virtio=02:00:00:AA:BB:30,bridge=vmbr0\n");
    for assign in ["100 203.0.113.10", "101 203.0.113.11", "300 203.0.113.12", "301 203.0.113.13"] {
        node.run(&format!("assign {assign} --no-hookscript")).ok();
    }
    let mut seen = BTreeSet::new();
    seen.insert(all_say(&node, 100, "203.0.113.10", GuestState::Reserved));
    seen.insert(all_say(&node, 301, "203.0.113.13", GuestState::Elsewhere));
    node.run("hook 100 pre-start").ok();
    seen.insert(all_say(&node, 100, "203.0.113.10", GuestState::Starting));
    node.plug("tap100i0");
    node.run("hook 100 post-start").ok();
    seen.insert(all_say(&node, 100, "203.0.113.10", GuestState::Protected));
    node.run_with("hook 300 pre-start", &[("PVE_MIGRATED_FROM", "n2")]).ok();
    seen.insert(all_say(&node, 300, "203.0.113.12", GuestState::Arriving));

    // One element is missing, then everything.
    node.net.sh("nft delete element bridge pve-public-ip port_mac { tap100i0 . 02:00:00:aa:bb:00 }");
    seen.insert(all_say(&node, 100, "203.0.113.10", GuestState::NotProtected));
    all_say(&node, 101, "203.0.113.11", GuestState::Reserved);
    node.net.sh("nft delete table bridge pve-public-ip");
    all_say(&node, 100, "203.0.113.10", GuestState::NotProtected);
    node.run("apply").ok();
    all_say(&node, 100, "203.0.113.10", GuestState::Protected);

    node.tree.write("etc/pve/public-ip/releases/n2.json", r#"{"release":"0.2.0","hookscript":true}"#);
    node.run("pool set ovh-rbx --enforce watch").ok();
    seen.insert(all_say(&node, 100, "203.0.113.10", GuestState::Watched));
    node.run("pool set ovh-rbx --enforce on").ok();

    // Another MAC than the one in the registry.
    node.tree.qemu(101, "name: mail\nnet0: virtio=02:00:00:AA:BB:99,bridge=vmbr0\n");
    seen.insert(all_say(&node, 101, "203.0.113.11", GuestState::Problem));
    fs::remove_file(node.tree.path("etc/pve/nodes/n1/qemu-server/101.conf")).unwrap();
    seen.insert(all_say(&node, 101, "203.0.113.11", GuestState::Missing));

    // Nobody can lock what is no file: the node cannot be compared.
    let lock = node.tree.path("run/pve-public-ip/node.lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    seen.insert(all_say(&node, 100, "203.0.113.10", GuestState::Unknown));
    all_say(&node, 301, "203.0.113.13", GuestState::Elsewhere);
    let run = node.run("list --output-format json");
    let said = &run.json()["notes"][0];
    assert_eq!(said["code"], "run-directory-unusable", "{run}");
    assert!(said["sentence"].as_str().unwrap().starts_with("the states of guests are unknown, because"), "{run}");
    assert!(run.err.contains("warning: the states of guests are unknown"), "{run}");

    assert_eq!(seen.into_iter().collect::<Vec<_>>(), GuestState::ALL, "a state is not tried here");
}

#[test]
fn a_guest_of_two_nics_has_the_worse_state() {
    let node = Node::with_pool();
    node.tree.qemu(
        100,
        "name: web\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\nnet1: virtio=02:00:00:AA:BB:10,bridge=vmbr0\n",
    );
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.run("assign 100 203.0.113.11 --net 1 --no-hookscript").ok();
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    node.plug("tap100i1");
    node.run("hook 100 post-start").ok();
    node.net.sh("nft delete element bridge pve-public-ip port_mac { tap100i1 . 02:00:00:aa:bb:10 }");
    let list = node.run("list --output-format json").json();
    let states: Vec<&Value> = list["assignments"].as_array().unwrap().iter().map(|row| &row["state"]).collect();
    assert_eq!(states, ["protected", "not-protected"]);
    assert_eq!(node.run("show 100 --output-format json").json()["state"], "not-protected");
    // A NIC without addresses has no state: nothing of it is compared.
    node.tree.qemu(101, "net0: virtio=02:00:00:AA:BB:01,bridge=vmbr0\n");
    assert_eq!(node.run("who tap101i0 --output-format json").json()["state"], Value::Null);
}

/// The page that explains the words.
#[test]
fn every_state_is_explained_in_one_place() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/concepts.md")).unwrap();
    for state in GuestState::ALL {
        let row = format!("| `{}` | {} |", state.as_str(), state.meaning());
        assert!(page.contains(&row), "docs/concepts.md lacks: {row}");
    }
}
