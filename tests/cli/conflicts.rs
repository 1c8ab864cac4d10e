//! Conflicts as the administrator sees them, and what they keep from being handed out.

use std::process::Stdio;
use std::time::{Duration, Instant};

use pve_public_ip::conflict::question;
use pve_public_ip::system::packet::Wire;
use serde_json::{Value, json};

use crate::common::{Namespace, Node, Run};

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
        &format!("to assign it anyway, first `pve-public-ip conflicts ack {id}`; `pve-public-ip conflicts list` says more"),
    );
    node.run(&format!("conflicts ack {id}")).ok();
    node.run("assign 200 203.0.113.11 --no-hookscript").ok();
}

/// What a tenant writes into his guest's configuration takes nothing from anybody.
#[test]
fn what_is_configured_is_passed_over_and_given_to_who_names_it() {
    let node = Node::with_pool();
    node.tree.qemu(101, "ipconfig0: ip=203.0.113.10/24\nnet0: virtio=02:00:00:AA:BB:01,bridge=vmbr0\n");
    let assigned = node.run("assign 100 -4 --dry-run --no-hookscript").ok();
    assert!(assigned.out.starts_with("203.0.113.11 would be assigned to guest 100 net0"), "{assigned}");
    assert!(assigned.out.contains("skipped: 203.0.113.10 is configured in guest 101 net0 on n1"), "{assigned}");
    let assigned = node.run("assign 100 203.0.113.10 --dry-run --no-hookscript").ok();
    assert!(assigned.out.starts_with("203.0.113.10 would be assigned to guest 100 net0"), "{assigned}");
}

/// The bridge has an uplink, and behind it somebody with these addresses.
fn with_somebody_outside(node: &Node, addresses: &[&str]) -> Namespace {
    let outside = Namespace::new();
    node.net.sh("ip link add eno1 type veth peer name outside && ip link set eno1 master vmbr0 up");
    node.net.sh(&format!("ip link set outside netns /proc/{}/ns/net", outside.pid()));
    outside.sh("ip link set outside address 02:00:00:00:00:99 up");
    for address in addresses {
        outside.sh(&format!("ip addr add {address} dev outside nodad"));
    }
    outside
}

#[test]
fn somebody_who_has_the_address_is_asked_before_it_is_given_away() {
    let node = Node::with_pool();
    let outside = with_somebody_outside(&node, &["203.0.113.10/24", "2001:db8:0:1::10/64"]);
    let started = Instant::now();
    for (address, shown) in [("203.0.113.10", "203.0.113.10"), ("2001:db8:0:1::10", "2001:db8:0:1::10")] {
        let run = node.changes_nothing(&format!("assign 100 {address}"));
        let sentence = format!(
            "error: cannot assign to guest 100: {shown} is contested: MAC 02:00:00:00:00:99 on eno1 answered for {shown}\n"
        );
        run.fails_with(1, &[&sentence, "to assign it anyway, first `pve-public-ip conflicts ack "]);
    }
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    // The next free one is another one, with and without asking again.
    for how in ["", " --no-probe"] {
        let run = node.run(&format!("assign 101 -4 --no-hookscript{how}")).ok();
        assert!(run.out.starts_with("203.0.113.1"), "{run}");
        assert!(!run.out.starts_with("203.0.113.10 "), "{run}");
        node.run("release 101 --no-hookscript").ok();
    }
    let found = list(&node);
    assert_eq!(found.iter().map(|one| &one["kind"]).collect::<Vec<_>>(), ["probe", "probe"]);
    assert_eq!((&found[0]["blocks"], &found[0]["mac"]), (&true.into(), &"02:00:00:00:00:99".into()));
    // Who knows of it may go on; and when nobody answers any more, nobody is asked to.
    node.run(&format!("conflicts ack {}", found[0]["id"].as_str().unwrap())).ok();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    outside.sh("ip addr flush dev outside");
    node.run("assign 100 2001:db8:0:1::10 --no-hookscript").ok();
}

/// Another node asks before it assigns an address; that claims nothing, not even while this node asks, too. Who else asks for
/// one is about to take it.
#[test]
fn what_another_node_asks_is_no_claim() {
    let node = Node::with_pool();
    let outside = with_somebody_outside(&node, &[]);
    let mac = "02:00:00:00:00:99".parse().unwrap();
    let ask = |is_ours: bool, address: &str, while_running: &str| {
        let mut frame = question(mac, address.parse().unwrap());
        if !is_ours {
            // An ARP message without what our nodes put behind it.
            frame.truncate(42);
        }
        let words: Vec<&str> = while_running.split_whitespace().collect();
        let mut child = node.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        outside.inside(|| {
            let wire = Wire::open("outside".parse().unwrap()).unwrap();
            while child.try_wait().unwrap().is_none() {
                wire.send(&frame).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Run::of(while_running.to_owned(), &child.wait_with_output().unwrap())
    };
    let run = ask(true, "203.0.113.10", "assign 100 -4 --no-hookscript").ok();
    assert!(run.out.starts_with("203.0.113.10 assigned to guest 100"), "{run}");
    let run = ask(true, "2001:db8:0:1::10", "assign 100 -6 --no-hookscript").ok();
    assert!(run.out.starts_with("2001:db8:0:1::10 assigned to guest 100"), "{run}");
    node.run("conflicts list").prints("no conflicts\n");
    let run = ask(false, "203.0.113.11", "assign 101 -4 --no-hookscript").ok();
    assert!(run.out.starts_with("203.0.113.12 assigned to guest 101"), "{run}");
    assert_eq!(list(&node)[0]["kind"], "probe");
}

/// What a guest answers is dropped: it takes no address from others by that.
#[test]
fn a_guest_that_answers_takes_nothing() {
    let node = Node::with_pool();
    let _outside = with_somebody_outside(&node, &[]);
    let guest = Namespace::new();
    node.net.sh("ip link add tap200i0 type veth peer name inside && ip link set tap200i0 master vmbr0 up");
    node.net.sh(&format!("ip link set inside netns /proc/{}/ns/net", guest.pid()));
    guest.sh("ip link set inside up && ip addr add 203.0.113.10/24 dev inside");
    let run = node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    assert!(run.out.starts_with("203.0.113.10 assigned to guest 100"), "{run}");
    node.run("conflicts list").prints("no conflicts\n");
}

#[test]
fn a_provider_that_punishes_it_is_not_asked_by_itself() {
    let node = Node::new();
    let _outside = with_somebody_outside(&node, &["203.0.113.10/24"]);
    node.run("pool create hz --profile hetzner-bridged --bridge vmbr0 --gateway4 203.0.113.1").ok();
    node.run("pool add hz 203.0.113.10 --mac 02:00:00:aa:bb:00").ok();
    node.run("assign 100 203.0.113.10 --probe")
        .fails_with(1, &["MAC 02:00:00:00:00:99 on eno1 answered for 203.0.113.10"]);
    node.run("conflicts ack --all").ok();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    let shown = node.run("pool set hz --probe assign").ok();
    assert!(shown.out.contains("probe assign"), "{shown}");
}
