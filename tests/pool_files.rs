//! Each pool in a file of its own: how a registry gets there, and what holds when one of the files is not as it should be.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use common::Node;

const POOLS: &str = "etc/pve/public-ip/pools.json";
const LAN: &str = "etc/pve/public-ip/pools/lan.json";
const DMZ: &str = "etc/pve/public-ip/pools/dmz.json";

/// Guest 100 holds an address of `lan`, guest 101 one of `dmz`.
fn held() -> Node {
    filled(Node::new())
}

/// The same in version 1 of the format.
fn held_as_before() -> Node {
    let node = Node::new();
    node.begin_as_before();
    filled(node)
}

fn filled(node: Node) -> Node {
    node.run("pool create lan --profile generic-bridged --bridge vmbr0 --gateway4 198.18.0.1 198.18.0.0/29").ok();
    node.run("pool create dmz --profile generic-bridged --bridge vmbr0 --gateway4 198.18.1.1 198.18.1.0/29").ok();
    node.run("assign 100 198.18.0.2 --no-hookscript --no-probe").ok();
    node.run("assign 101 198.18.1.2 --no-hookscript --no-probe").ok();
    node
}

#[test]
fn a_registry_begins_with_a_file_for_each_pool() {
    let node = Node::new();
    let run = node.changes_nothing("registry convert --dry-run").ok();
    assert!(run.out.contains("each pool has a file of its own already"), "{run}");
    let node = filled(node);
    let marker: serde_json::Value = serde_json::from_str(&node.tree.read(POOLS)).unwrap();
    assert_eq!(marker, serde_json::json!({"version": 2, "pools": {}}));
    assert!(exists(&node, LAN) && exists(&node, DMZ));
    let doctor = node.run("doctor");
    assert!(!doctor.out.contains("registry-format-old"), "{doctor}");
    node.is_in_line();
}

/// What is known of another node when the first pool is made, and the version in which the registry begins.
const OTHERS: &[(&str, &str, u64)] = &[
    ("releases/n2.json", r#"{"release":"0.1.0","hookscript":true}"#, 1),
    ("releases/n2.json", r#"{"release":"0.1.9~rc1","hookscript":true}"#, 1),
    ("releases/n2.json", r#"{"release":"0.2.0","hookscript":true}"#, 2),
    ("releases/n2.json", r#"{"release":"0.2.0~rc1","hookscript":true,"later":1}"#, 2),
    ("releases/n2.json", r#"{"release":"1.10.0"}"#, 2),
    // Whoever notes something has the program, and of unknown age.
    ("releases/n2.json", "{", 1),
    ("releases/n2.json", "", 1),
    ("releases/n2.json", r#"{"release":"unknown"}"#, 1),
    ("releases/n2.json", r#"{"release":7}"#, 1),
    ("nodes/n2.json", r#"{"version":1,"uplinks":["eno1"]}"#, 1),
    ("nodes/n2.json", "{", 1),
    // n3 is no node of this cluster, and n1 is this one.
    ("releases/n3.json", r#"{"release":"0.1.0","hookscript":true}"#, 2),
    ("releases/n1.json", r#"{"release":"0.1.0","hookscript":true}"#, 2),
    ("nodes/n1.json", r#"{"version":1,"uplinks":["eno1"]}"#, 2),
    ("releases/n2.json.tmp.n2.7", r#"{"release":"0.1.0"}"#, 2),
    ("releases/readme", "", 2),
];

#[test]
fn a_registry_begins_as_every_node_can_read_it() {
    for (file, content, version) in OTHERS {
        let node = Node::new();
        std::fs::create_dir_all(node.tree.path("etc/pve/nodes/n2/qemu-server")).unwrap();
        node.tree.write(&format!("etc/pve/public-ip/{file}"), content);
        node.run("pool create lan --profile generic-bridged --bridge vmbr0 198.18.0.0/29").ok();
        let pools: serde_json::Value = serde_json::from_str(&node.tree.read(POOLS)).unwrap();
        assert_eq!(pools["version"], *version, "{file}: {content}");
        assert_eq!(exists(&node, LAN), *version == 2, "{file}: {content}");
        node.is_in_line();
        let doctor = node.run("doctor");
        assert!(!doctor.out.contains("registry-format-old"), "{file}: {content}: {doctor}");
        // It stays as it is, until somebody asks.
        node.tree.write("etc/pve/public-ip/releases/n2.json", r#"{"release":"0.2.0","hookscript":true}"#);
        node.run("pool create dmz --profile generic-bridged --bridge vmbr0 198.18.1.0/29").ok();
        assert_eq!(exists(&node, DMZ), *version == 2, "{file}: {content}");
        let doctor = node.run("doctor");
        assert_eq!(doctor.out.contains("registry-format-old"), *version == 1, "{file}: {content}: {doctor}");
        if *version == 1 {
            assert!(doctor.out.contains("`pve-public-ip registry convert`"), "{doctor}");
            node.run("registry convert").ok();
            assert!(exists(&node, LAN) && exists(&node, DMZ));
            let doctor = node.run("doctor");
            assert!(!doctor.out.contains("registry-format-old"), "{doctor}");
        }
    }
}

#[test]
fn a_registry_that_was_emptied_begins_anew() {
    let node = held_as_before();
    for guest in [100, 101] {
        node.run(&format!("release {guest}")).ok();
    }
    node.run("pool remove lan").ok();
    node.run("pool remove dmz").ok();
    let pools: serde_json::Value = serde_json::from_str(&node.tree.read(POOLS)).unwrap();
    assert_eq!(pools["version"], 1, "one that is there keeps its format");
    std::fs::remove_dir_all(node.tree.path("etc/pve/public-ip")).unwrap();
    node.run("pool create lan --profile generic-bridged --bridge vmbr0 198.18.0.0/29").ok();
    assert!(exists(&node, LAN));
    node.is_in_line();
}

fn exists(node: &Node, path: &str) -> bool {
    node.tree.path(path).exists()
}

#[test]
fn a_conversion_changes_nothing_but_the_files() {
    let node = held_as_before();
    let (pools, filter) = (node.run("pool show lan --output-format json").ok().out, node.net.filter());
    node.changes_nothing("registry convert --dry-run").ok();
    let run = node.run("registry convert").ok();
    assert!(run.out.contains("each pool has a file of its own from now on"), "{run}");
    let marker: serde_json::Value = serde_json::from_str(&node.tree.read(POOLS)).unwrap();
    assert_eq!(marker, serde_json::json!({"version": 2, "pools": {}}));
    let lan = node.tree.read(LAN);
    assert!(lan.starts_with(r#"{"version":2,"name":"lan","profile":"generic-bridged","bridge":"vmbr0""#), "{lan}");
    assert_eq!(lan.lines().count(), 3, "a line for each entry: {lan}");
    assert_eq!(node.run("pool show lan --output-format json").ok().out, pools);
    assert_eq!(node.net.filter(), filter);
    node.is_in_line();
    let again = node.run("registry convert").ok();
    assert!(again.out.contains("each pool has a file of its own already"), "{again}");

    // Each change writes one file.
    let dmz = node.tree.read(DMZ);
    node.run("pool add lan 198.18.2.0/29").ok();
    node.run("pool create third --profile generic-bridged --bridge vmbr0 198.18.3.0/29").ok();
    assert!(exists(&node, "etc/pve/public-ip/pools/third.json"));
    node.run("pool remove third").ok();
    assert!(!exists(&node, "etc/pve/public-ip/pools/third.json"));
    assert_eq!(node.tree.read(DMZ), dmz);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&node.tree.read(POOLS)).unwrap(), marker);
    let audit = node.tree.read("var/lib/pve-public-ip/audit.log");
    assert_eq!(audit.matches("\"pool-created\"").count(), 3, "{audit}");
    assert!(!audit.contains("\"found\":true"), "{audit}");
}

#[test]
fn an_older_node_is_named_before_anything_is_written() {
    let node = held_as_before();
    let n2 = |text: &str| node.tree.write("etc/pve/public-ip/releases/n2.json", text);
    std::fs::create_dir_all(node.tree.path("etc/pve/nodes/n2/qemu-server")).unwrap();
    n2(r#"{"release":"0.1.0","hookscript":true}"#);
    for command in ["registry convert", "registry convert --dry-run"] {
        node.changes_nothing(command).fails(
            1,
            "cannot give each pool a file of its own: node n2 runs release 0.1.0, and a release before 0.2.0 cannot read \
             `pools/NAME.json`: it would refuse to start the guests of the file that has it",
            "upgrade n2, there: `apt update && apt install pve-public-ip && pve-public-ip apply`",
        );
    }
    n2(r#"{"release":"0.2.0","hookscript":true}"#);
    node.run("registry convert").ok();
    // One that comes back with an old release reads what that release understands: that it is to be upgraded.
    assert!(node.tree.read(POOLS).contains("\"version\": 2"));
}

#[test]
fn a_spoilt_file_is_its_own_pools_trouble() {
    let node = held();
    let (before, lan) = (node.net.filter(), node.tree.read(LAN));
    node.run("apply").ok();
    for content in
        ["{".to_owned(), lan.replace("bridge\":", "brigde\":"), lan.replace("\"lan\"", "\"other\""), String::new()]
    {
        node.tree.write(LAN, &content);
        let verify = node.run("verify");
        assert!(
            verify.out.contains("pools/lan.json") && verify.out.contains("its last known good copy counts"),
            "{verify}"
        );
        let other = node.run("hook 101 pre-start").ok();
        assert!(!other.err.contains("lan"), "the other pool's guest does not read it: {other}");
        let run = node.run("hook 100 pre-start").ok();
        assert!(run.err.contains("counts for guest 100"), "{run}");
        node.net.sh("nft flush ruleset");
        node.run("apply");
        node.run("hook 100 post-stop").ok();
        node.run("hook 101 post-stop").ok();
        assert_eq!(node.net.filter(), before, "{content}");
        node.run("pool add dmz 198.18.5.5").fails_with(4, &["pools/lan.json"]);
        node.run("registry restore pools/lan.json").ok();
        assert_eq!(node.tree.read(LAN), lan);
        node.is_in_line();
    }
    std::fs::remove_file(node.tree.path(LAN)).unwrap();
    let verify = node.run("verify");
    assert!(verify.out.contains("does not exist, although guests hold addresses of the pool"), "{verify}");
    node.run("hook 100 pre-start").ok();
    node.run("registry restore pools/lan.json").ok();
    node.is_in_line();
}

#[test]
fn two_files_with_the_same_addresses_count_as_they_were() {
    let node = held();
    let (before, lan) = (node.net.filter(), node.tree.read(LAN));
    node.run("apply").ok();
    node.tree.write(LAN, lan.replace("198.18.0.0/29", "198.18.0.0/15"));
    let verify = node.run("verify");
    for file in ["pools/dmz.json", "pools/lan.json"] {
        let said =
            format!("{file}` has overlapping addresses: 198.18.0.0/15 in pool `lan` and 198.18.1.0/29 in pool `dmz`");
        assert!(verify.out.contains(&said), "{verify}");
    }
    node.run("apply");
    assert_eq!(node.net.filter(), before);
    node.tree.write(LAN, &lan);
    node.is_in_line();
}

#[test]
fn what_says_where_the_pools_are_may_be_lost() {
    let node = held();
    let (before, marker) = (node.net.filter(), node.tree.read(POOLS));
    node.run("apply").ok();
    std::fs::remove_file(node.tree.path(POOLS)).unwrap();
    node.is_in_line();
    node.run("pool add lan 198.18.2.0/29").ok();
    assert_eq!(node.tree.read(POOLS), marker, "written again");
    node.run("pool remove lan 198.18.2.0/29").ok();
    for content in ["", "{", r#"{"version":2,"pools":{"lan":{"profile":"generic-bridged","bridge":"vmbr0"}}}"#] {
        node.tree.write(POOLS, content);
        let apply = node.run("apply");
        assert!(apply.code == 4 && apply.out.contains("its last known good copy counts"), "{apply}");
        assert_eq!(node.net.filter(), before, "{content}");
    }
    node.tree.write(POOLS, &marker);
    std::fs::rename(node.tree.path("etc/pve/public-ip/pools"), node.tree.path("etc/pve/public-ip/aside")).unwrap();
    node.tree.write("etc/pve/public-ip/pools", "");
    let apply = node.run("apply");
    assert!(apply.code == 4 && apply.out.contains("cannot be listed"), "{apply}");
    assert_eq!(node.net.filter(), before);
}

#[test]
fn version_1_counts_alone() {
    let node = held_as_before();
    node.tree.write(LAN, "{");
    node.is_in_line();
    node.run("pool add lan 198.18.2.0/29").ok();
    let doctor = node.run("doctor");
    assert!(doctor.out.contains("pools/lan.json"), "{doctor}");
    node.run("registry convert").ok();
    assert!(node.tree.read(LAN).contains("198.18.2.0/29"));
    node.is_in_line();
}

#[test]
fn a_file_of_entries_is_taken_in_whole_or_not_at_all() {
    let node = held();
    node.run("pool add lan 198.18.2.1 198.18.2.2 --monthly-cost-cents 170").ok();
    node.run("assign 100 198.18.2.1 --no-hookscript --no-probe").ok();
    let file = node.tree.path("new.csv");
    let text = "address,mac,monthly_cost_cents\n198.18.2.1,,200\n198.18.2.2,,\n198.18.6.0/29,02:00:00:aa:bb:60,\n";
    node.tree.write("new.csv", text);
    let import = format!("pool import lan {}", file.display());
    let run = node.changes_nothing(&format!("{import} --dry-run")).ok();
    for said in [
        "198.18.2.1",
        "cost 1.70 -> 2.00",
        "new, MAC 02:00:00:aa:bb:60",
        "1 would be added, 1 would be changed, 1 unchanged",
    ] {
        assert!(run.out.contains(said), "{said}: {run}");
    }
    let run = node.run(&import).ok();
    assert!(run.out.contains("pool lan: 1 added, 1 changed, 1 unchanged"), "{run}");
    node.is_in_line();
    let again = node.run(&import).ok();
    assert!(again.out.contains("pool lan: 0 added, 0 changed, 3 unchanged"), "{again}");

    // What is exported is taken in again, in each of its forms.
    for form in ["", " --output-format json"] {
        let exported = node.run(&format!("pool export lan{form}")).ok().out;
        node.tree.write("exported", exported);
        let run = node.run(&format!("pool import lan {}", node.tree.path("exported").display())).ok();
        assert!(run.out.contains("pool lan: 0 added, 0 changed, 4 unchanged"), "{run}");
    }
    for (text, why) in [
        ("address\n198.18.7.1\n198.18.1.0/30\n", "198.18.1.0/30 overlaps 198.18.1.0/29 of pool `dmz`"),
        ("address,mac\n198.18.7.1,\n198.18.2.1,02:00:00:00:00:99\n", "is assigned to guest 100 net0, which has MAC"),
        ("address\n198.18.7.1\n198.18.7.300\n", "line 3: address: `198.18.7.300` is not an IP address"),
        ("\u{1b}[31m\n", "is no column"),
    ] {
        node.tree.write("new.csv", text);
        let run = node.changes_nothing(&import);
        assert!(run.code == 1 && run.err.contains(why) && run.err.contains("hint: "), "{run}");
        assert!(!run.err.contains('\u{1b}'), "{run:?}");
    }
}
