//! The phases as Proxmox VE calls them: refusals, strangers, migration, and phases that come twice or not at all.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::common::strace::straced;
use crate::common::{Node, Tree};

/// A node on which guest 100 holds 203.0.113.10, without `qm`.
fn assigned() -> Node {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node
}

fn edit(node: &Node, vmid: u32, text: &str) {
    node.tree.qemu(vmid, text);
}

#[test]
fn a_guest_that_differs_from_its_registration_does_not_start() {
    let node = assigned();
    let bound = "203.0.113.10 to 02:00:00:aa:bb:00";
    for (code, config, sentence, hint) in [
        (
            "registered-mac-differs",
            "net0: virtio=02:00:00:AA:BB:FF,bridge=vmbr0\n",
            format!("guest 100 net0 has MAC 02:00:00:aa:bb:ff, but the registry binds {bound}"),
            "set it back: `qm set 100 --net0 virtio=02:00:00:AA:BB:00,bridge=vmbr0`, or `pve-public-ip release 100` and assign again",
        ),
        (
            "wrong-bridge",
            "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr1\n",
            "guest 100 net0 is on bridge vmbr1, but 203.0.113.10 of pool `ovh-rbx` needs vmbr0".to_owned(),
            "move it: `qm set 100 --net0 virtio=02:00:00:AA:BB:00,bridge=vmbr0`, or `pve-public-ip release 100 203.0.113.10`",
        ),
        (
            "wrong-bridge",
            "net0: virtio=02:00:00:AA:BB:00\n",
            "guest 100 net0 is on no bridge, but 203.0.113.10 of pool `ovh-rbx` needs vmbr0".to_owned(),
            "move it: `qm set 100 --net0 virtio=02:00:00:AA:BB:00,bridge=vmbr0`, or `pve-public-ip release 100 203.0.113.10`",
        ),
        (
            "nic-missing",
            "net1: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n",
            "guest 100 has no net0, but 203.0.113.10 is assigned to it".to_owned(),
            "add it: `qm set 100 --net0 virtio=02:00:00:AA:BB:00,bridge=vmbr0`, or `pve-public-ip release 100`",
        ),
        (
            "nic-without-mac",
            "net0: virtio,bridge=vmbr0\n",
            format!("guest 100 net0 has no fixed MAC, but the registry binds {bound}"),
            "give it that MAC: `qm set 100 --net0 virtio=02:00:00:AA:BB:00,bridge=vmbr0`",
        ),
        (
            "nic-not-understood",
            "net0: virtio=01:00:00:AA:BB:00,bridge=vmbr0\n",
            "guest 100 net0 in the guest's configuration is not understood: virtio: MAC address `01:00:00:AA:BB:00` has the \
             group bit set (it is multicast); a guest NIC needs a unicast one"
                .to_owned(),
            "correct the line, or make the NIC anew: `qm set 100 --net0 virtio=02:00:00:AA:BB:00,bridge=vmbr0`",
        ),
        ("nic-missing", "", "guest 100 has no net0, but 203.0.113.10 is assigned to it".to_owned(), "add it: `qm set 100 --net0 virtio=02:00:00:AA:BB:00,bridge=vmbr0`, or `pve-public-ip release 100`"),
    ] {
        edit(&node, 100, config);
        node.changes_nothing("hook 100 pre-start").fails(1, &sentence, hint);
        let verify = node.run("verify");
        assert_eq!((verify.code, verify.out), (1, format!("problem: {sentence}\n  hint: {hint}\n")), "{config}");
        let problems = node.run("verify --output-format json").json()["problems"].clone();
        assert_eq!(problems, serde_json::json!([{"code": code, "subject": {"kind": "guest", "id": 100}, "sentence": sentence, "hint": hint}]));
    }
}

#[test]
fn a_changed_mac_is_never_bound_even_if_the_guest_runs() {
    let node = assigned();
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    edit(&node, 100, "net0: virtio=02:00:00:AA:BB:FF,bridge=vmbr0\n");
    node.run("apply").ok();
    assert_eq!(node.net.set("bound_mac"), ["02:00:00:aa:bb:00"]);
}

#[test]
fn a_pool_that_is_gone_or_smaller_stops_the_start() {
    let node = assigned();
    let file = node.tree.pool_file("ovh-rbx");
    let pools = node.tree.read(&file);
    node.tree.write(&file, pools.replace("203.0.113.10\"", "203.0.113.99\""));
    node.run("hook 100 pre-start").fails(
        1,
        "203.0.113.10 of guest 100 is not in pool `ovh-rbx`",
        "`pve-public-ip pool add ovh-rbx 203.0.113.10`, or release the address",
    );
    fs::remove_file(node.tree.path(&file)).unwrap();
    node.tree.write("etc/pve/public-ip/pools/other.json", pools.replace("\"ovh-rbx\"", "\"other\""));
    fs::remove_dir_all(node.tree.path("var/lib/pve-public-ip/last-good")).unwrap();
    node.run("hook 100 pre-start").fails(
        1,
        "203.0.113.10 of guest 100 is of pool `ovh-rbx`, which does not exist",
        "`pve-public-ip release 100 203.0.113.10`, or create the pool again",
    );
    assert_eq!(node.net.set("bound_ip4"), Vec::<String>::new());
    fs::remove_file(node.tree.path("etc/pve/public-ip/pools.json")).unwrap();
    fs::remove_dir_all(node.tree.path("etc/pve/public-ip/pools")).unwrap();
    let _ = fs::remove_dir_all(node.tree.path("var/lib/pve-public-ip/last-good"));
    node.run("hook 100 pre-start").fails_with(1, &["which does not exist"]);
    assert_eq!(node.net.set("bound_ip4"), Vec::<String>::new());
}

#[test]
fn an_address_or_mac_that_two_files_claim_stops_both() {
    let node = assigned();
    node.tree.assign_by_hand(101, "02:00:00:aa:bb:01", "203.0.113.10/32", "ovh-rbx");
    // Guest 100 was compared when the node followed its assignment: the one whose file is new finds it, and from then on both
    // do not start.
    for (vmid, other) in [(101, 100), (100, 101)] {
        node.run(&format!("hook {vmid} pre-start")).fails(
            1,
            "203.0.113.10 is assigned to guest 100 and to guest 101",
            &format!("`pve-public-ip release {other}` or `pve-public-ip release {vmid}` the address"),
        );
    }
    let verify = node.run("verify --output-format json").json();
    assert_eq!(verify["problems"][0]["sentence"], "203.0.113.10 is assigned to guest 100 and to guest 101");
    node.tree.assign_by_hand(101, "02:00:00:aa:bb:00", "203.0.113.11/32", "ovh-rbx");
    edit(&node, 101, "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
    node.run("hook 101 pre-start").fails(
        1,
        "MAC 02:00:00:aa:bb:00 is that of guest 100 net0 and of guest 101 net0",
        "`pve-public-ip release 100` or `pve-public-ip release 101` the address",
    );
    assert_eq!(node.net.set("bound_ip4"), Vec::<String>::new());
}

#[test]
fn an_address_in_use_by_a_running_guest_stops_the_other_one() {
    let node = assigned();
    node.run("hook 100 pre-start").ok();
    // By hand the address is moved to 101 while 100 runs with it.
    fs::remove_file(node.tree.path(&Tree::guest_file(100))).unwrap();
    node.tree.assign_by_hand(101, "02:00:00:aa:bb:01", "203.0.113.10/32", "ovh-rbx");
    node.run("hook 101 pre-start").fails(
        1,
        "203.0.113.10 of guest 101 is in use by guest 100 on this node",
        "`pve-public-ip verify` says more; after a crash `pve-public-ip apply` cleans up",
    );
    assert_eq!(node.net.set("ports"), ["\"tap100i0\""]);
}

#[test]
fn guests_that_pose_as_others_do_not_start() {
    let node = assigned();
    for (config, sentence, hint) in [
        (
            "hookscript: local:snippets/pve-public-ip\nnet0: virtio=02:00:00:00:01:02,bridge=vmbr0\n",
            "guest 102 has the hookscript of pve-public-ip, but no public address: is it a clone?",
            "`qm set 102 --delete hookscript`, or give it an address: `pve-public-ip assign 102 --pool ovh-rbx`",
        ),
        (
            "hookscript: local:snippets/pve-public-ip\nipconfig0: ip=203.0.113.10/32,gw=203.0.113.1\nnet0: virtio=02:00:00:00:01:02,bridge=vmbr0\n",
            "guest 102 is configured with 203.0.113.10, which is assigned to guest 100: is it a clone?",
            "give it one of its own: `pve-public-ip assign 102 --pool ovh-rbx`, or take the address out of it: `qm set 102 --delete ipconfig0`",
        ),
        (
            "ipconfig0: ip=203.0.113.11/24,gw=203.0.113.1\nnet0: virtio=02:00:00:00:01:02,bridge=vmbr0\n",
            "guest 102 is configured with 203.0.113.11 of pool `ovh-rbx`, which is not assigned to it",
            "`pve-public-ip assign 102 203.0.113.11`, or take the address out of it: `qm set 102 --delete ipconfig0`",
        ),
        (
            "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n",
            "guest 102 has no assignment, but the MAC 02:00:00:aa:bb:00 of guest 100 net0 (203.0.113.10): is it a restored copy?",
            "give guest 102 another MAC: `qm set 102 --net0 virtio,bridge=vmbr0`; if guest 100 is gone for good, move the address: `pve-public-ip release 100 203.0.113.10`",
        ),
    ] {
        edit(&node, 102, config);
        node.changes_nothing("hook 102 pre-start").fails(1, sentence, hint);
        // Nothing else of its life is refused, and nothing is said.
        for phase in ["post-start", "pre-stop", "post-stop"] {
            node.changes_nothing(&format!("hook 102 {phase}")).prints("");
        }
    }
    node.tree.lxc(201, "net0: name=eth0,bridge=vmbr0,hwaddr=02:00:00:00:01:03,ip=203.0.113.10/24\n");
    node.run("hook 201 pre-start").fails(
        1,
        "guest 201 is configured with 203.0.113.10, which is assigned to guest 100: is it a clone?",
        "give it one of its own: `pve-public-ip assign 201 --pool ovh-rbx`, or take the address out of it: `pct set 201 --net0 name=eth0,bridge=vmbr0,hwaddr=02:00:00:00:01:03`",
    );
}

#[test]
fn other_peoples_guests_are_none_of_our_business() {
    let node = assigned();
    for phase in ["pre-start", "post-start", "pre-stop", "post-stop"] {
        for vmid in [101, 200] {
            node.changes_nothing(&format!("hook {vmid} {phase}")).prints("");
        }
    }
    edit(
        &node,
        102,
        "hookscript: local:snippets/other.sh\nipconfig0: ip=192.0.2.7/24\nnet0: virtio=02:00:00:00:01:02,bridge=vmbr9\n",
    );
    node.changes_nothing("hook 102 pre-start").prints("");
}

#[test]
fn an_unknown_guest_is_said_to_be_unknown() {
    let node = assigned();
    let nodes = node.tree.path("etc/pve/nodes").display().to_string();
    let sentence = format!("guest 999 does not exist: there is no `{nodes}/*/{{qemu-server,lxc}}/999.conf`");
    let hint = "`qm list` and `pct list` show the guests; create the guest first";
    node.changes_nothing("hook 999 pre-start").fails(1, &sentence, hint);
    node.changes_nothing("assign 999").fails(1, &format!("cannot assign to guest 999: {sentence}"), hint);
    node.changes_nothing("hook 999 post-stop").prints("");
    node.changes_nothing("show 999").fails(
        1,
        "guest 999 has no public address",
        "`pve-public-ip list` shows who holds what",
    );
}

#[test]
fn nothing_is_concluded_from_an_empty_etc_pve() {
    let node = assigned();
    node.run("hook 100 pre-start").ok();
    // Proxmox VE is installed, but its file system is not mounted.
    node.tree.write("var/lib/pve-cluster/config.db", "");
    fs::rename(node.tree.path("etc/pve"), node.tree.path("pve-elsewhere")).unwrap();
    fs::create_dir(node.tree.path("etc/pve")).unwrap();
    let sentence = format!(
        "the cluster file system is not mounted at `{}` (pmxcfs is not running)",
        node.tree.path("etc/pve").display()
    );
    let hint = "`systemctl status pve-cluster`, then try again";
    for (command, trying) in [
        ("hook 100 pre-start", ""),
        ("hook 101 pre-start", ""),
        ("plan", ""),
        ("verify", ""),
        ("list", ""),
        ("assign 100 203.0.113.11", "cannot assign to guest 100: "),
        ("release 100", "cannot release from guest 100: "),
        ("pool create x --profile generic-bridged --bridge vmbr0", "cannot create pool `x`: "),
    ] {
        let code = if command.starts_with("hook") { 1 } else { 5 };
        node.changes_nothing(command).fails(code, &format!("{trying}{sentence}"), hint);
    }
    let instead = "until it can be read, this node is protected by what it knew last";
    node.changes_nothing("apply").fails(5, &format!("{sentence}; {instead}"), hint);
    assert_eq!(node.net.set("bound_ip4"), ["203.0.113.10"], "the running guest keeps its protection");
    assert_eq!(
        fs::read_dir(node.tree.path("etc/pve")).unwrap().count(),
        0,
        "something was written under the mount point"
    );
}

#[test]
fn phases_may_come_twice_and_out_of_order() {
    let node = assigned();
    let bound = || !node.net.set("bound_ip4").is_empty();
    for phases in [
        "pre-start pre-start post-start post-start pre-stop pre-stop post-stop post-stop",
        "post-stop post-start post-stop",
        "pre-stop",
        // Backup in mode stop: the late post-stop is left out.
        "pre-start post-start pre-stop pre-start post-start post-stop",
        // A start that fails after pre-start has no further phase; the next one just works.
        "pre-start pre-start post-stop",
    ] {
        let mut present = false;
        for phase in phases.split(' ') {
            match phase {
                "post-start" if !present => node.plug("tap100i0"),
                "post-stop" if present => node.unplug("tap100i0"),
                _ => {}
            }
            present = phase == "post-start" || (present && phase != "post-stop");
            node.run(&format!("hook 100 {phase}")).ok();
            let expected = match phase {
                "pre-start" | "post-start" => true,
                "post-stop" => false,
                _ => bound(),
            };
            assert_eq!(bound(), expected, "{phase} of {phases}");
            node.is_in_line();
        }
        assert_eq!(node.net.marked(), Vec::<String>::new(), "after {phases}");
    }
}

#[test]
fn post_stop_with_the_port_still_there_and_a_start_after_it() {
    let node = assigned();
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    node.run("hook 100 post-start").ok();
    node.run("hook 100 post-stop").ok();
    assert_eq!(node.net.set("bound_ip4"), Vec::<String>::new());
    node.is_in_line();
    node.unplug("tap100i0");
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    node.run("hook 100 post-start").ok();
    assert_eq!(node.net.set("bound_ip4"), ["203.0.113.10"]);
    node.is_in_line();
}

#[test]
fn a_hook_restores_what_was_flushed() {
    let node = assigned();
    node.net.sh("nft flush ruleset");
    node.run("hook 100 pre-start").ok();
    node.is_in_line();
    node.plug("tap100i0");
    node.net.sh("nft flush ruleset");
    node.run("hook 100 post-start").ok();
    node.is_in_line();
    node.unplug("tap100i0");
    node.net.sh("nft flush ruleset");
    node.run("hook 100 post-stop").ok();
    node.is_in_line();
}

#[test]
fn the_target_of_a_migration_protects_and_speaks_only_when_the_guest_has_moved() {
    let node = Node::with_pool();
    let remote = "etc/pve/nodes/n2/qemu-server/300.conf";
    let config = "lock: migrate\nnet0: virtio=02:00:00:AA:BB:30,bridge=vmbr0\n";
    node.tree.write(remote, config);
    node.run("assign 300 203.0.113.10 --no-hookscript").ok();
    node.run_with("hook 300 pre-start", &[("PVE_MIGRATED_FROM", "n2")]).ok();
    assert_eq!(node.net.set("ports"), ["\"tap300i0\""], "its port is protected");
    assert_eq!(node.net.set("bound_ip4"), Vec::<String>::new(), "it still speaks on the source node");
    node.is_in_line();
    node.plug("tap300i0");
    node.run_with("hook 300 post-start", &[("PVE_MIGRATED_FROM", "n2")]).ok();
    assert_eq!(node.net.marked(), Vec::<String>::new(), "not announced yet");
    assert_eq!(node.run("list --output-format json").json()["assignments"][0]["state"], "arriving");
    node.is_in_line();
    // The switch-over fires no hook; whoever looks next sees it.
    node.tree.qemu(300, config);
    fs::remove_file(node.tree.path(remote)).unwrap();
    assert_eq!(node.run("verify").code, 3);
    node.run("apply").ok();
    assert_eq!(node.net.set("bound_ip4"), ["203.0.113.10"]);
    assert_eq!(node.net.marked().len(), 1);
    node.is_in_line();
}

#[test]
fn an_aborted_migration_leaves_nothing() {
    let node = Node::with_pool();
    node.tree.write("etc/pve/nodes/n2/qemu-server/300.conf", "net0: virtio=02:00:00:AA:BB:30,bridge=vmbr0\n");
    node.run("assign 300 203.0.113.10 --no-hookscript").ok();
    let free = node.net.filter();
    node.run_with("hook 300 pre-start", &[("PVE_MIGRATED_FROM", "n2")]).ok();
    node.plug("tap300i0");
    node.run_with("hook 300 post-start", &[("PVE_MIGRATED_FROM", "n2")]).ok();
    node.unplug("tap300i0");
    node.run("hook 300 post-stop").ok();
    assert!(node.net.filter() == free);
    node.is_in_line();
}

#[test]
fn a_guest_of_another_node_is_looked_up_where_it_is() {
    let node = Node::with_pool();
    node.tree.write("etc/pve/nodes/n3/qemu-server/300.conf", "net0: virtio=02:00:00:AA:BB:30,bridge=vmbr0\n");
    node.tree.write("etc/pve/.vmlist", r#"{"version":7,"ids":{"300":{"node":"n3","type":"qemu","version":6}}}"#);
    node.run("assign 300 203.0.113.10 --no-hookscript").ok();
    // Set but empty, as on every ordinary start.
    node.run_with("hook 101 pre-start", &[("PVE_MIGRATED_FROM", "")]).prints("");
    node.run_with("hook 100 pre-start", &[("PVE_MIGRATED_FROM", "no such node")])
        .fails_with(1, &["error: `no such node` is not a node name (it must match "]);
    for list in ["", "{}", "[1]", r#"{"ids":{"300":7}}"#, r#"{"ids":{"300":{"node":"gone"}}}"#, "\0\u{1}"] {
        node.tree.write("etc/pve/.vmlist", list);
        assert_eq!(node.run("list --output-format json").json()["assignments"][0]["node"], "n3", "with {list:?}");
    }
}

#[test]
fn no_phase_writes_under_etc_or_calls_proxmox_back() {
    let node = assigned();
    node.stand_in_proxmox();
    let before = node.tree.etc();
    for phase in ["pre-start", "post-start", "pre-stop", "post-stop"] {
        node.run(&format!("hook 100 {phase}")).ok();
        assert!(node.tree.etc() == before, "{phase} wrote under /etc");
        assert_eq!(node.calls(), Vec::<String>::new(), "{phase} called Proxmox VE back");
    }
}

#[test]
fn what_is_said_goes_to_syslog_once_too() {
    let node = assigned();
    fs::create_dir_all(node.tree.path("dev")).unwrap();
    let socket = UnixDatagram::bind(node.tree.path("dev/log")).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let received = || {
        let mut messages = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            messages.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        messages
    };
    let run = node.run("hook 100 pre-start").ok();
    let messages = received();
    assert_eq!(messages.len(), 1, "{messages:?}");
    // Facility daemon is 3; severities: 6 is info, 3 is error.
    let text = run.err.trim_end().strip_prefix("pve-public-ip: ").unwrap();
    assert!(messages[0].starts_with("<30>") && messages[0].contains(" pve-public-ip["), "{messages:?}");
    assert!(messages[0].trim_end().ends_with(text), "{messages:?}");

    edit(&node, 100, "net0: virtio=02:00:00:AA:BB:FF,bridge=vmbr0\n");
    let run = node.run("hook 100 pre-start");
    assert_eq!((run.code, run.err.lines().count()), (1, 2), "{run}");
    let messages = received();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages.iter().all(|message| message.starts_with("<27>")), "{messages:?}");
    assert!(messages[0].contains("guest 100 net0 has MAC 02:00:00:aa:bb:ff"), "{messages:?}");
    assert!(messages[1].contains("hint: set it back: `qm set "), "{messages:?}");
}

#[test]
fn a_tree_without_node_directories_works_by_its_links() {
    let node = Node::with_pool();
    fs::rename(node.tree.path("etc/pve/nodes/n1/qemu-server"), node.tree.path("etc/pve/qs")).unwrap();
    fs::remove_file(node.tree.path("etc/pve/qemu-server")).unwrap();
    symlink("qs", node.tree.path("etc/pve/qemu-server")).unwrap();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.run("hook 100 pre-start").ok();
    node.is_in_line();
}

#[test]
fn two_guests_under_one_number_do_not_confuse_it() {
    // After a node was restored from a backup, a configuration may lie under two nodes: this node's own counts.
    let node = assigned();
    node.tree.write("etc/pve/nodes/n2/qemu-server/100.conf", "net0: virtio=02:00:00:AA:BB:77,bridge=vmbr9\n");
    node.run("hook 100 pre-start").ok();
    node.is_in_line();
}

#[test]
fn the_registry_is_compared_once_for_all_guests() {
    let node = assigned();
    node.run("assign 101 203.0.113.11 --no-hookscript").ok();
    let trace = node.tree.path("trace");
    let reads_of_the_other = |vmid: u32, other: u32| {
        let options = ["-o", trace.to_str().unwrap(), "-e", "trace=openat"];
        straced(&node, &format!("hook {vmid} pre-start"), &options).ok();
        let opened = node.tree.read("trace");
        assert!(opened.contains(&Tree::guest_file(vmid)), "{opened}");
        opened.contains(&Tree::guest_file(other))
    };
    assert!(!reads_of_the_other(100, 101), "the node has compared when it followed the assignments");
    assert!(!reads_of_the_other(101, 100));
    // What has changed since is compared again, with everything.
    let file = node.tree.read(&Tree::guest_file(101));
    node.tree.write(&Tree::guest_file(101), format!("{file}\n"));
    assert!(!reads_of_the_other(100, 101));
    assert!(reads_of_the_other(101, 100));
    assert!(!reads_of_the_other(100, 101));
}

#[test]
fn what_is_kept_for_a_guests_next_start_goes_with_its_assignment() {
    let node = assigned();
    node.run("hook 100 pre-start").ok();
    node.run("hook 100 post-stop").ok();
    assert!(node.tree.volatile().contains("pools/100"), "{:?}", node.tree.volatile());
    node.run("apply").ok();
    assert!(node.tree.volatile().contains("pools/100"), "{:?}", node.tree.volatile());
    node.run("release 100").ok();
    assert!(!node.tree.volatile().contains("pools/100"), "{:?}", node.tree.volatile());
}
