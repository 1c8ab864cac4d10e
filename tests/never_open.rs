//! Nothing is silently open: a bridge that no filter sees, a file that cannot be read, a change that is still to come.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use common::Node;

/// What stands at the place of vmbr1, how the node's configuration describes it, and why nothing on it is filtered.
const UNFILTERED: [(&str, &str, &str); 4] = [
    // As a node with Open vSwitch is configured; another device stands for it here.
    (
        "ip link add vmbr1 type veth peer name other",
        "auto vmbr1\niface vmbr1 inet manual\n\tovs_type OVSBridge\n\tovs_ports eno1\n",
        "vmbr1 is an Open vSwitch bridge, whose frames pass no filter of the kernel",
    ),
    (
        "ip link add vmbr1 type veth peer name other",
        "",
        "vmbr1 is an interface of type veth and no Linux bridge: nothing on it is filtered",
    ),
    (
        "ip link add vmbr1 type ifb",
        "auto vmbr1\niface vmbr1 inet manual\n\tbridge-ports eno1\n",
        "vmbr1 is an interface of type ifb and no Linux bridge: nothing on it is filtered",
    ),
    (
        "true",
        "auto vmbr1\niface vmbr1 inet manual\n\tovs_type OVSBridge\n",
        "vmbr1 is an Open vSwitch bridge, whose frames pass no filter of the kernel",
    ),
];

const HINT: &str = "make it a Linux bridge, or take another bridge for the pool and its guests";

/// A node whose guest 300 is on vmbr1, which is a Linux bridge at first, and holds an address of its pool.
fn on_vmbr1() -> Node {
    let node = Node::new();
    node.net.sh("ip link add vmbr1 type bridge && ip link set vmbr1 up");
    node.tree.qemu(300, "net0: virtio=02:00:00:AA:BB:30,bridge=vmbr1\nnet1: virtio=02:00:00:AA:BB:31,bridge=vmbr0\n");
    node.run("pool create a --profile generic-bridged --bridge vmbr1 --gateway4 198.18.0.1 198.18.0.5 198.18.0.6").ok();
    node.run("assign 300 198.18.0.5 --no-hookscript --no-probe").ok();
    node
}

#[test]
fn what_no_filter_sees_is_refused_by_every_command() {
    for (device, configured, why) in UNFILTERED {
        let node = on_vmbr1();
        node.net.sh(&format!("ip link del vmbr1; {device}"));
        node.tree.write("etc/network/interfaces", configured);
        for profile in ["generic-bridged", "ovh-vrack", "hetzner-bridged", "generic-routed"] {
            node.changes_nothing(&format!("pool create b --profile {profile} --bridge vmbr1 198.18.1.5")).fails(
                1,
                &format!("cannot create pool `b`: {why}"),
                HINT,
            );
        }
        node.changes_nothing("assign 300 198.18.0.6 --no-hookscript --no-probe").fails(
            1,
            &format!("cannot assign to guest 300: {why}"),
            HINT,
        );
    }
}

#[test]
fn a_guest_on_what_no_filter_sees_does_not_start_and_is_never_called_protected() {
    let missing = ("true", "", "vmbr1 does not exist on this node");
    for (device, configured, why) in UNFILTERED.into_iter().take(3).chain([missing]) {
        // What the kernel has counts here: whatever the configuration says, it may not have been loaded.
        let why = if why.contains("Open vSwitch") { UNFILTERED[1].2 } else { why };
        let node = on_vmbr1();
        node.net.sh(&format!("ip link del vmbr1; {device}"));
        node.tree.write("etc/network/interfaces", configured);
        let sentence = format!("guest 300 net0 cannot be protected: {why}");
        let run =
            node.changes_nothing("hook 300 pre-start").fails_with(1, &[&sentence, "hint: make it a Linux bridge"]);
        assert!(!run.err.contains("is protected"), "{run}");
        let verify = node.run("verify");
        assert_ne!(verify.code, 0, "{verify}");
        assert!(verify.out.contains(&format!("problem: {sentence}\n")), "{verify}");
        let status = node.run("status");
        assert!(status.out.contains("| problem") && !status.out.contains("| protected"), "{status}");
    }
}

#[test]
fn a_bridge_that_is_still_to_come_is_no_obstacle_to_a_pool() {
    let node = Node::new();
    node.tree.write("etc/network/interfaces", "auto vmbr7\niface vmbr7 inet manual\n\tbridge-ports none\n");
    node.tree.qemu(300, "net0: virtio=02:00:00:AA:BB:30,bridge=vmbr7\nnet1: virtio=02:00:00:AA:BB:31,bridge=vmbr8\n");
    let run = node.run("pool create a --profile generic-bridged --bridge vmbr7 --gateway4 198.18.0.1 198.18.0.5").ok();
    assert!(!run.out.contains("problem"), "{run}");
    let run = node.run("assign 300 198.18.0.5 --no-hookscript --no-probe").ok();
    assert!(!run.out.contains("problem"), "{run}");
    node.run("hook 300 pre-start").fails_with(1, &["vmbr7 does not exist on this node"]);
    node.net.sh("ip link add vmbr7 type bridge && ip link set vmbr7 up");
    node.run("hook 300 pre-start").ok();
    // Another node may have it; this one has not, and says so at once.
    let run = node.run("pool create b --profile generic-bridged --bridge vmbr8 --gateway4 198.18.1.1 198.18.1.5").ok();
    let said =
        "problem: vmbr8 does not exist on this node: guests with addresses do not start on n1 as long as it is so";
    assert!(run.out.contains(said), "{run}");
    let run = node.run("assign 300 198.18.1.5 --net 1 --no-hookscript --no-probe").ok();
    assert!(run.out.contains(said), "{run}");
}

/// A node with an uplink and a pool whose guard keeps back MACs that the provider does not know; guest 100 runs, 101 is
/// off, 666 holds nothing.
fn guarded() -> Node {
    guarded_on(Node::new())
}

/// The same with all pools in one file.
fn guarded_as_before() -> Node {
    let node = Node::new();
    node.begin_as_before();
    guarded_on(node)
}

fn guarded_on(node: Node) -> Node {
    node.net.sh(
        "ip link add eno1 type veth peer name provider && ip link set eno1 master vmbr0 up && ip link set provider up",
    );
    node.tree.qemu(666, "net0: virtio=02:00:00:AA:BB:66,bridge=vmbr0\n");
    node.run(
        "pool create hz --profile hetzner-bridged --bridge vmbr0 --gateway4 203.0.113.1 203.0.113.10 203.0.113.11 --yes",
    )
    .ok();
    for (vmid, mac) in [(100, "02:00:00:aa:bb:00"), (101, "02:00:00:aa:bb:01")] {
        node.run(&format!("pool add hz 203.0.113.{} --mac {mac} --yes", vmid - 90)).ok();
        node.run(&format!("assign {vmid} 203.0.113.{} --no-hookscript --cloud-init off", vmid - 90)).ok();
    }
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    node.run("hook 100 post-start").ok();
    node
}

/// How a file of the registry may be found: what it is changed to, and what is said of it.
fn spoilt(good: &str) -> Vec<(Option<String>, &'static str)> {
    let with_version = |version: &str| {
        let document: serde_json::Value = serde_json::from_str(good).unwrap();
        let now = [format!("\"version\": {}", document["version"]), format!("\"version\":{}", document["version"])];
        now.iter().fold(good.to_owned(), |text, now| text.replacen(now, &format!("\"version\":{version}"), 1))
    };
    vec![
        (Some(good.replacen('"', "", 1)), "is not valid JSON"),
        (Some(good.replacen("\"version\"", "\"future_key\": 1, \"version\"", 1)), "has an unknown key `future_key`"),
        (Some(good[..good.len() / 2].to_owned()), "is not valid JSON"),
        (Some(String::new()), "is empty"),
        (Some(with_version("\"1\"")), "is not valid: version"),
        (Some(with_version("9")), "has version 9, but pve-public-ip"),
        (Some("[]".to_owned()), "has something else than a JSON object in it"),
        // Something that is no file at all.
        (None, "cannot be read: not a regular file"),
    ]
}

fn put(node: &Node, file: &str, content: Option<&String>) {
    let path = node.tree.path(file);
    let _ = std::fs::remove_file(&path);
    let _ = std::fs::remove_dir(&path);
    match content {
        Some(content) => node.tree.write(file, content),
        None => std::fs::create_dir(path).unwrap(),
    }
}

/// As after a boot: nothing of the kernel and nothing under `/run` is left.
fn reboot(node: &Node) {
    node.net.sh("nft flush ruleset; ip neigh flush all nud permanent");
    let _ = std::fs::remove_dir_all(node.tree.path("run/pve-public-ip"));
}

#[test]
fn whatever_cannot_be_read_protects_as_it_did_last_and_is_said_by_every_command() {
    let all = [(false, "pools.json"), (true, "pools/hz.json"), (true, "guests/101.json"), (true, "released.json")];
    for (is_apart, file) in all.into_iter().chain([(true, "nodes/n1.json")]) {
        let node = if is_apart { guarded() } else { guarded_as_before() };
        node.run("node set --uplink eno1").ok();
        if file == "released.json" {
            node.run("release 101 --no-hookscript").ok();
        }
        let path = format!("etc/pve/public-ip/{file}");
        let good = node.tree.read(&path);
        let before = node.net.filter();
        for (content, reason) in spoilt(&good) {
            put(&node, &path, content.as_ref());
            let sentence = format!("`{}` {reason}", node.tree.path(&path).display());
            for damage in ["true", "nft flush ruleset"] {
                node.net.sh(damage);
                let apply = node.run("apply");
                assert!(apply.code == 4 && apply.out.contains(&format!("problem: {sentence}")), "{file}: {apply}");
                assert!(node.net.filter() == before, "{file} {reason}, {damage}: {apply}");
            }
            let verify = node.run("verify");
            assert!(verify.code == 4 && verify.out.contains(&format!("problem: {sentence}")), "{file}: {verify}");
            assert!(verify.out.contains("its last known good copy counts"), "{file}: {verify}");
            let status = node.run("status");
            assert!(status.code == 4 && status.out.contains(&format!("problem: {sentence}")), "{file}: {status}");
            assert!(status.out.contains("| protected"), "{file}: {status}");
            let doctor = node.run("doctor");
            assert!(doctor.code == 3 && doctor.out.contains("registry-broken"), "{file}: {doctor}");
            let metrics = node.run("metrics").ok();
            assert!(metrics.out.contains("\npve_public_ip_unreadable 1\n"), "{file}: {metrics}");
            for (command, rows) in [("list", 1 + usize::from(file != "released.json")), ("pool list", 1)] {
                let run = node.run(&format!("{command} --output-format json"));
                assert!(run.code == 4 && run.err.contains(&sentence), "{file}: {run}");
                let key = if command == "list" { "assignments" } else { "pools" };
                assert_eq!(run.json()[key].as_array().unwrap().len(), rows, "{file}: {run}");
            }
            let show = node.run("pool show hz");
            assert!(show.code == 4 && show.out.contains("203.0.113.10"), "{file}: {show}");
            node.changes_nothing("pool add hz 203.0.113.99").fails_with(4, &[&sentence, "\nhint: "]);
            // Who does not depend on it starts.
            node.run("hook 100 post-stop").ok();
            node.run("hook 100 pre-start").ok();
            node.run("hook 100 post-start").ok();
            assert!(node.net.filter() == before, "{file} {reason}");
        }
        // After a boot nothing but the copies is left.
        put(&node, &path, Some(&"{".to_owned()));
        reboot(&node);
        node.run("apply").fails_with(4, &[]);
        node.run("hook 100 pre-start").ok();
        node.run("hook 100 post-start").ok();
        assert!(node.net.filter() == before, "{file} after a boot");

        // The hint does what it says.
        let hint = format!("pve-public-ip registry restore {file}");
        let verify = node.run("verify");
        assert!(verify.out.contains(&format!("hint: `{hint}`")), "{verify}");
        let run = node.changes_nothing(&format!("registry restore {file} --dry-run")).ok();
        assert_eq!(run.out, good);
        node.run(hint.strip_prefix("pve-public-ip ").unwrap()).ok();
        assert_eq!(node.tree.read(&path), good);
        node.run("registry check").prints("every file of the registry can be read\n");
        node.run(&format!("registry restore {file}")).fails_with(1, &["nothing is wrong with it"]);
        node.is_in_line();
    }
}

#[test]
fn a_guest_whose_own_file_cannot_be_read_does_not_start() {
    let node = guarded();
    node.tree.write("etc/pve/public-ip/guests/101.json", "{");
    node.run("hook 101 pre-start")
        .fails_with(1, &["is not valid JSON", "`pve-public-ip registry restore guests/101.json`"]);
    node.run("registry restore guests/101.json").ok();
    node.run("hook 101 pre-start").ok();
}

#[test]
fn a_guest_starts_by_what_was_known_of_the_pools_and_is_told_so() {
    for (node, file) in [
        (guarded_as_before(), "pools.json"),
        (guarded(), "pools/hz.json"),
        // The file that says where the pools are.
        (guarded(), "pools.json"),
    ] {
        node.tree.write(&format!("etc/pve/public-ip/{file}"), "{");
        let run = node.run("hook 101 pre-start").ok();
        assert!(run.err.contains("is not valid JSON") && run.err.contains("counts for guest 101"), "{file}: {run}");
        let again = node.run("hook 101 pre-start").ok();
        assert!(again.err.contains("is not valid JSON"), "said at every start: {again}");
        std::fs::remove_dir_all(node.tree.path("var/lib/pve-public-ip/last-good")).unwrap();
        node.run("hook 101 pre-start").fails_with(1, &["is not valid JSON", "hint: "]);
    }
}

#[test]
fn pools_of_which_nothing_is_known_leave_nobody_out_by_the_uplink() {
    nothing_is_known(&guarded_as_before(), "pools.json");
    nothing_is_known(&guarded(), "pools/hz.json");
    nothing_is_known(&guarded(), "pools.json");
}

fn nothing_is_known(node: &Node, name: &str) {
    let file = format!("etc/pve/public-ip/{name}");
    let pools = node.tree.read(&file);
    for content in [pools.replace(['[', '}'], ""), "{".to_owned(), pools.replacen('{', "", 1)] {
        node.tree.write(&file, content);
        std::fs::remove_dir_all(node.tree.path("var/lib/pve-public-ip/last-good")).unwrap();
        reboot(node);
        let apply = node.run("apply");
        assert_eq!(apply.code, 4, "{apply}");
        assert!(apply.out.contains("guests without addresses are cut off from the uplinks of vmbr0"), "{apply}");
        assert_eq!(node.net.set("guard_enforce"), ["\"eno1\""], "{apply}");
        assert!(node.net.set("router_ports").is_empty() && node.net.set("free_ports").is_empty());
        // Guests with addresses are still known by their own files.
        let known = node.net.set("uplink_registered");
        assert_eq!(known, ["\"eno1\" . 02:00:00:aa:bb:00", "\"eno1\" . 02:00:00:aa:bb:01"]);
        let list = node.run("pool list");
        assert!(list.code == 4 && list.out.starts_with("the pools cannot be read"), "{list}");
        node.run("pool show hz").fails_with(4, &[name]);
        assert_eq!(node.run("list --output-format json").json()["assignments"].as_array().unwrap().len(), 2);
        // It stays so, and ends with the fault.
        let again = node.run("apply");
        assert!(again.code == 4 && node.net.set("guard_enforce") == ["\"eno1\""], "{again}");
        node.tree.write(&file, &pools);
        node.run("apply").ok();
        assert!(node.net.set("uplink_registered").contains(&"\"eno1\" . 02:00:00:aa:bb:01".to_owned()));
        node.is_in_line();
    }
}

#[test]
fn a_list_of_guests_that_cannot_be_read_is_not_an_empty_one() {
    let node = guarded();
    let before = node.net.filter();
    let guests = node.tree.path("etc/pve/public-ip/guests");
    std::fs::rename(&guests, guests.with_extension("aside")).unwrap();
    std::fs::write(&guests, "").unwrap();
    node.net.sh("nft flush ruleset");
    let apply = node.run("apply");
    assert!(apply.code == 4 && apply.out.contains("cannot be listed"), "{apply}");
    assert!(node.net.filter() == before, "{apply}");
    assert_eq!(node.run("list --output-format json").json()["assignments"].as_array().unwrap().len(), 2);
    let audit = node.tree.read("var/lib/pve-public-ip/audit.log");
    assert!(!audit.contains("\"released\""), "{audit}");
}

#[test]
fn a_removed_pools_file_is_missed() {
    for (node, file, of) in [(guarded_as_before(), "pools.json", "its pools"), (guarded(), "pools/hz.json", "the pool")]
    {
        let before = node.net.filter();
        std::fs::remove_file(node.tree.path(&format!("etc/pve/public-ip/{file}"))).unwrap();
        reboot(&node);
        let apply = node.run("apply");
        let said = format!("{file}` does not exist, although guests hold addresses of {of}");
        assert!(apply.code == 4 && apply.out.contains(&said), "{apply}");
        node.run("hook 100 pre-start").ok();
        node.run("hook 100 post-start").ok();
        assert!(node.net.filter() == before, "{apply}");
        node.run(&format!("registry restore {file}")).ok();
        node.is_in_line();
    }
}

#[test]
fn a_key_of_a_newer_release_is_told_from_a_typing_error() {
    let node = guarded();
    node.tree.edit_pool("hz", |pool| pool["future_key"] = 1.into());
    let verify = node.run("verify");
    assert!(verify.out.contains("if a newer release wrote it, upgrade this node"), "{verify}");
    assert!(!verify.out.contains("remove it"), "{verify}");
    for (release, newer) in [("0.1.0", false), (env!("CARGO_PKG_VERSION"), false), ("0.2.10", true), ("1.0.0", true)] {
        node.tree
            .write("etc/pve/public-ip/releases/n2.json", format!("{{\"release\":\"{release}\",\"hookscript\":true}}"));
        let verify = node.run("verify");
        let said = format!("written by release {release}, which node n2 runs; this is {}", env!("CARGO_PKG_VERSION"));
        assert_eq!(verify.out.contains(&said), newer, "{verify}");
        if newer {
            let hint = "  hint: upgrade this node: `apt update && apt install pve-public-ip`\n";
            assert!(verify.out.contains(hint) && !verify.out.contains("restore"), "{verify}");
        }
        // Managed guests start meanwhile.
        node.run("hook 101 pre-start").ok();
    }
}

#[test]
fn before_the_first_pool_there_is_nothing_to_protect() {
    let node = Node::new();
    let idle = "node n1: nothing to protect yet, there is no pool";
    node.run("verify").prints(&format!("{idle}\n"));
    let status = node.run("status").ok();
    assert!(status.out.starts_with(idle), "{status}");
    node.run("plan").prints("nothing to do\n");
    node.run("apply").prints("nothing to do\n");
    node.run("verify").prints(&format!("{idle}\n"));
    // As soon as something may speak of pools, it is looked for.
    node.tree.write("etc/pve/public-ip/pools.json", "{");
    assert_eq!(node.run("verify").code, 4);
    std::fs::remove_file(node.tree.path("etc/pve/public-ip/pools.json")).unwrap();
    node.run(common::CREATE).ok();
    node.is_in_line();
    node.net.sh("nft flush ruleset");
    assert_eq!(node.run("verify").code, 3);
    node.run("apply").ok();
    // What was loaded stays: a pool may come back at any time.
    node.run("pool remove ovh-rbx").ok();
    node.is_in_line();
}

/// vmbr0 with an uplink, and vmbr1 without.
fn with_uplink() -> Node {
    let node = Node::new();
    node.net.sh("ip link add eno1 type veth peer name provider && ip link set eno1 master vmbr0 up && ip link set provider up && \
        ip link add vmbr1 type bridge && ip link set vmbr1 up && ip addr add 10.0.0.1/24 dev vmbr1 && ip route add default dev vmbr0");
    node
}

#[test]
fn who_is_routed_or_has_no_uplink_is_not_kept_back() {
    let node = with_uplink();
    node.tree.qemu(300, "net0: virtio=02:00:00:AA:BB:30,bridge=vmbr1\n");
    node.tree.qemu(301, "net0: virtio=02:00:00:AA:BB:31,bridge=vmbr1\n");
    for profile in ["hetzner-routed", "ovh-routed"] {
        let command = format!("pool create net --profile {profile} --bridge vmbr1 --gateway4 10.0.0.1 198.18.0.8/29");
        for run in [node.run(&format!("{command} --dry-run")).ok(), node.run(&command).ok()] {
            assert!(!run.out.contains("note: "), "{run}");
        }
        node.run("assign 300 198.18.0.9 --no-hookscript --cloud-init off").ok();
        let verify = node.run("verify").ok();
        assert!(!verify.out.contains("note: "), "{verify}");
        node.run("release 300 --no-hookscript").ok();
        node.run("pool remove net").ok();
    }
    // On a bridge with an uplink a guest that is routed is meant to go by way of the node; others are named.
    let run = node
        .run("pool create net --profile hetzner-routed --bridge vmbr0 --gateway4 203.0.113.250 198.18.0.8/29 --yes")
        .ok();
    assert!(run.out.contains("note: guest 100 net0 does not reach the provider"), "{run}");
    node.run("assign 100 198.18.0.9 --no-hookscript --cloud-init off").ok();
    let verify = node.run("verify").ok();
    assert!(!verify.out.contains("guest 100 net0") && verify.out.contains("guest 101 net0"), "{verify}");
}

#[test]
fn the_pool_that_enforces_is_named() {
    let node = with_uplink();
    node.run("pool create aaa --profile generic-bridged --bridge vmbr0 --gateway4 198.18.0.1 198.18.0.5").ok();
    let run = node
        .run("pool create zzz --profile hetzner-bridged --bridge vmbr0 --gateway4 203.0.113.1 203.0.113.9 --yes")
        .ok();
    assert!(run.out.contains("`pve-public-ip pool set zzz --allow-mac 02:00:00:aa:bb:00`"), "{run}");
    node.run("pool set zzz --allow-mac 02:00:00:aa:bb:00").ok();
    let verify = node.run("verify").ok();
    assert!(!verify.out.contains("02:00:00:aa:bb:00"), "{verify}");
}

#[test]
fn of_many_notes_ten_are_shown() {
    let node = with_uplink();
    for number in 300..357 {
        node.tree
            .qemu(number, format!("net0: virtio=02:00:00:00:{:02x}:{:02x},bridge=vmbr0\n", number / 256, number % 256));
    }
    let create = "pool create hz --profile hetzner-bridged --bridge vmbr0 --gateway4 203.0.113.1 203.0.113.9 --yes";
    let count = |run: &common::Run| run.out.lines().filter(|line| line.starts_with("note: guest")).count();
    let more = "... and 50 more: notes\n... `pve-public-ip verify --all` shows all\n";
    for command in
        [&format!("{create} --dry-run"), create, "pool set hz --guest-routers true", "verify", "plan", "apply"]
    {
        let run = node.run(command).ok();
        assert!(count(&run) == 10 && run.out.contains(more), "{command}: {run}");
    }
    let status = node.run("status").ok();
    assert!(count(&status) == 10 && status.out.contains("`pve-public-ip status --all`"), "{status}");
    for command in ["verify --all", "status --all"] {
        let run = node.run(command).ok();
        assert!(count(&run) == 60 && !run.out.contains("more: notes"), "{command}: {run}");
    }
    let data = node.run("verify --output-format json").ok().json();
    assert_eq!(data["notes"].as_array().unwrap().len(), 60);
}

#[test]
fn an_uplink_is_a_port_of_a_bridge() {
    let node = with_uplink();
    node.run(common::CREATE).ok();
    // As a bond is: what is part of it is no port of the bridge.
    node.net.sh(
        "ip link add vmbr9 type bridge && ip link add lone type ifb && ip link add below type veth peer name slave",
    );
    node.run("node set --uplink eno1").ok();
    node.changes_nothing("node set --uplink lone").fails(
        1,
        "cannot name the uplinks of node n1: the uplink lone is no port of a bridge: what comes from the provider is not taken for that",
        "`pve-public-ip node set --any-uplink` knows the uplinks by their names",
    );
    node.changes_nothing("node set --uplink eno7").fails(
        1,
        "this node has no interface eno7",
        "`ip -br link` and /etc/network/interfaces show what there is",
    );
    // Not up yet, but described: a bond whose cards are not the ports.
    node.tree.write(
        "etc/network/interfaces",
        "iface bond0 inet manual\n bond-slaves eno5 eno6\niface vmbr0 inet manual\n bridge-ports bond0\n",
    );
    node.changes_nothing("node set --uplink eno5").fails(
        1,
        "cannot name the uplinks of node n1: the uplink eno5 is part of bond0, and no port of a bridge: what comes from the provider is not taken for that",
        "`pve-public-ip node set --uplink bond0`",
    );
    node.run("node set --uplink bond0").ok();
    // Named by hand, it is said.
    node.tree.write("etc/pve/public-ip/nodes/n1.json", "{\"version\": 1, \"uplinks\": [\"lone\"]}");
    let verify = node.run("verify");
    assert!(verify.code != 0 && verify.out.contains("problem: the uplink lone is no port of a bridge"), "{verify}");
}

#[test]
fn a_vlan_of_which_no_pool_speaks_is_left_alone() {
    let node = with_uplink();
    // What Proxmox VE makes for `tag=`: a bridge beside vmbr0. This kernel may know no VLANs; the name is what counts.
    node.net.sh("for tag in 10 77; do ip link add vmbr0v$tag type bridge && ip link set vmbr0v$tag up && \
        ip link add eno1.$tag type veth peer name p$tag && ip link set eno1.$tag master vmbr0v$tag up; done");
    node.tree.qemu(300, "net0: virtio=02:00:00:AA:BB:30,bridge=vmbr0,tag=10\n");
    node.tree.qemu(301, "net0: virtio=02:00:00:AA:BB:31,bridge=vmbr0,tag=77\n");
    node.run("pool create hz --profile ovh-routed --bridge vmbr0 --gateway4 203.0.113.250 198.18.0.8/29 --uplink-guard enforce --yes").ok();
    assert_eq!(node.net.set("guard_enforce"), ["\"eno1\""]);
    let verify = node.run("verify").ok();
    assert!(!verify.out.contains("guest 301"), "{verify}");
    node.run("assign 300 198.18.0.9 --no-hookscript --cloud-init off").ok();
    assert_eq!(node.net.set("guard_enforce"), ["\"eno1\"", "\"eno1.10\""]);
}

#[test]
fn post_start_takes_in_what_was_made_since_pre_start() {
    let node = with_uplink();
    node.tree.qemu(300, "net0: virtio=02:00:00:AA:BB:30,bridge=vmbr0,tag=10\n");
    node.run("pool create a --profile generic-bridged --bridge vmbr0 --gateway4 198.18.0.1 198.18.0.5").ok();
    node.run("assign 300 198.18.0.5 --no-hookscript --no-probe --cloud-init off").ok();
    for round in 0..2 {
        node.run("hook 300 pre-start").ok();
        node.net.sh("ip link add vmbr0v10 type bridge && ip link add odd10 type veth peer name p10 && \
            ip link set odd10 master vmbr0v10 up && ip link set vmbr0v10 up && \
            ip link add tap300i0 type veth peer name g300 && ip link set tap300i0 master vmbr0v10 up");
        node.run("hook 300 post-start").ok();
        let options = node.net.sh("ip -d link show vmbr0v10");
        assert!(options.contains("no_linklocal_learn 1"), "round {round}: {options}");
        assert!(
            node.net.set("uplinks").contains(&"\"odd10\"".to_owned()),
            "round {round}: {:?}",
            node.net.set("uplinks")
        );
        node.is_in_line();
        // Made anew, it has everything to be told again.
        node.net.sh("ip link del tap300i0; ip link del odd10; ip link del vmbr0v10");
        node.run("hook 300 post-stop").ok();
    }
}

#[test]
fn changes_that_wait_for_the_next_start_are_seen() {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    node.run("hook 100 post-start").ok();
    for (change, reason) in [
        (
            "net0: virtio=02:00:00:AA:BB:99,bridge=vmbr0",
            "guest 100 net0 has MAC 02:00:00:aa:bb:99, but the registry binds",
        ),
        ("net0: virtio=02:00:00:AA:BB:00,bridge=vmbr5", "guest 100 net0 is on bridge vmbr5, but 203.0.113.10"),
        ("delete: net0", "guest 100 has no net0, but 203.0.113.10 is assigned to it"),
    ] {
        node.tree.qemu(100, format!("net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n[PENDING]\n{change}\n"));
        let said = format!("guest 100 does not start again with the changes that wait for it: {reason}");
        let verify = node.run("verify").ok();
        assert!(verify.out.contains(&format!("note: {said}")), "{verify}");
        assert!(verify.out.contains("`qm set 100 --revert net0`"), "{verify}");
        let doctor = node.run("doctor");
        assert!(doctor.out.contains(&said), "{doctor}");
        let assign = node.run("assign 100 203.0.113.11 --no-hookscript --dry-run").ok();
        assert!(
            assign.out.contains("note: a change of net0 waits for the guest's next start, and does not count here"),
            "{assign}"
        );
    }
    // Of a guest that is off it counts: the `qm set` of `assign` itself carries it out.
    node.tree.qemu(
        101,
        "net0: virtio=02:00:00:AA:BB:01,bridge=vmbr0\n[PENDING]\nnet0: virtio=02:00:00:AA:BB:77,bridge=vmbr0\n",
    );
    let assign = node.run("assign 101 203.0.113.11 --no-hookscript").ok();
    assert!(assign.out.contains("(02:00:00:aa:bb:77)") && assign.out.contains("counts here"), "{assign}");
}

/// `/etc/pve` as it is while pmxcfs does not run.
fn cluster_goes_down(node: &Node) {
    node.tree.write("var/lib/pve-cluster/config.db", "");
    std::fs::rename(node.tree.path("etc/pve"), node.tree.path("etc/pve.aside")).unwrap();
    std::fs::create_dir(node.tree.path("etc/pve")).unwrap();
}

fn cluster_comes_back(node: &Node) {
    std::fs::remove_dir(node.tree.path("etc/pve")).unwrap();
    std::fs::rename(node.tree.path("etc/pve.aside"), node.tree.path("etc/pve")).unwrap();
}

#[test]
fn a_boot_without_the_cluster_file_system_is_protected_by_what_was_known_last() {
    let node = guarded();
    let before = node.net.filter();
    node.unplug("tap100i0");
    node.run("hook 100 post-stop").ok();
    let sets = || ["guard_enforce", "uplink_registered", "reserved_ip4", "reserved_mac"].map(|set| node.net.set(set));
    let off = sets();
    assert!(off.iter().all(|set| !set.is_empty()), "{off:?}");
    cluster_goes_down(&node);
    reboot(&node);
    let apply = node.run("apply");
    assert_eq!(apply.code, 5, "{apply}");
    let said = "error: the cluster file system is not mounted at";
    let then = "(pmxcfs is not running); until it can be read, this node is protected by what it knew last\n";
    assert!(
        apply.err.contains(said)
            && apply.err.contains(then)
            && apply.err.contains("hint: `systemctl status pve-cluster`"),
        "{apply}"
    );
    assert_eq!(sets(), off);
    // The guests of this node are not known then, and none can start.
    for command in ["verify", "plan", "hook 100 pre-start"] {
        let run = node.run(command);
        assert!(run.code != 0 && run.err.contains("the cluster file system is not mounted"), "{run}");
    }
    let status = node.run("status");
    assert!(status.code == 1 && status.out.contains("the cluster file system is not mounted"), "{status}");
    assert!(node.run("metrics").out.contains("\npve_public_ip_unreadable 1\n"));
    // Nothing is written under the later mount.
    assert_eq!(std::fs::read_dir(node.tree.path("etc/pve")).unwrap().count(), 0);
    cluster_comes_back(&node);
    node.run("apply").ok();
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    node.run("hook 100 post-start").ok();
    node.is_in_line();
    assert!(node.net.filter() == before);
    // A guest that runs is bound again by its mark, when only the filter was lost.
    cluster_goes_down(&node);
    node.net.sh("nft flush ruleset");
    assert_eq!(node.run("apply").code, 5);
    assert!(node.net.filter() == before);
    cluster_comes_back(&node);
    node.is_in_line();
}

#[test]
fn before_the_first_pool_a_cluster_that_is_down_closes_nothing() {
    let node = Node::new();
    cluster_goes_down(&node);
    let apply = node.run("apply");
    assert!(apply.code == 5 && !apply.err.contains("knew last"), "{apply}");
    assert_eq!(node.net.filter(), None);
}

#[test]
fn a_guests_configuration_that_cannot_be_read_has_an_exit_status() {
    let node = guarded();
    let file = "etc/pve/nodes/n1/qemu-server/101.conf";
    std::fs::remove_file(node.tree.path(file)).unwrap();
    std::fs::create_dir(node.tree.path(file)).unwrap();
    for command in ["status", "verify", "apply", "plan"] {
        let run = node.run(command);
        assert!(run.code == 4 && run.out.contains("cannot read the configuration of guest 101"), "{run}");
    }
    assert!(node.run("metrics").out.contains("\npve_public_ip_unreadable 1\n"));
    let doctor = node.run("doctor");
    assert!(doctor.code == 3 && doctor.out.contains("101"), "{doctor}");
    // The others go on.
    node.run("hook 100 post-stop").ok();
    node.run("hook 100 pre-start").ok();
}
