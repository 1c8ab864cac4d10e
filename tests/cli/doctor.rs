//! `doctor` on a tree and in a namespace: what is found is real, and what is fixed stays fixed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::common::{Node, Run, Tree};

const SNIPPET: &str = "var/lib/vz/snippets/pve-public-ip";

/// Codes of what was found, in order.
fn codes(run: &Run) -> Vec<String> {
    let data = run.json();
    let findings = data["findings"].as_array().unwrap().iter();
    findings.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

fn finding(run: &Run, code: &str) -> Value {
    let data = run.json();
    let found = data["findings"].as_array().unwrap().iter().find(|finding| finding["code"] == code).cloned();
    found.unwrap_or_else(|| panic!("{code} was not found: {run}"))
}

fn json(node: &Node) -> Run {
    node.run("doctor --output-format json")
}

/// A node on which only the machine that runs the test can be found fault with.
fn node() -> Node {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    node.tree.write(SNIPPET, include_str!("../../hookscripts/pve-public-ip"));
    fs::set_permissions(node.tree.path(SNIPPET), fs::Permissions::from_mode(0o755)).unwrap();
    node.tree
        .write("etc/network/interfaces", "iface vmbr0 inet static\n address 203.0.113.250/24\n bridge-ports none\n");
    node.run("assign 100 203.0.113.10").ok();
    node
}

/// What depends on the machine under the test, and not on the node.
const OF_THE_MACHINE: [&str; 7] = [
    "guard-not-running",
    "br-netfilter",
    "kernel-feature-missing",
    "kernel-feature-absent",
    "clock-not-synchronised",
    "kernel-old",
    // Older tools cannot set the bound that newer kernels have.
    "bridge-learns-any-number",
];

/// What is found on this node, apart from the machine under it.
fn own_codes(node: &Node) -> Vec<String> {
    let mut found = codes(&json(node));
    found.retain(|code| !OF_THE_MACHINE.contains(&code.as_str()));
    found
}

#[test]
fn a_node_in_order_has_nothing_of_its_own() {
    let node = node();
    assert_eq!(own_codes(&node), Vec::<String>::new());
    let run = node.changes_nothing("doctor");
    assert_eq!(run.code, 3, "the guard does not run: {run}");
    assert!(run.err.is_empty(), "{run}");
    let told = "warning: guard-not-running: Nobody follows what no hook sees: hot-plug, a guest that migrates away, \
        `nft flush ruleset`, a crash.\n  the guard has not run since this node booted\n    \
        hint: `systemctl enable --now pve-public-ip.service`\n";
    assert!(run.out.contains(told), "{run}");
    assert!(
        run.out.contains("\nnot checked, because the unit pve-public-ip.service is not installed: guard-not-enabled\n"),
        "{run}"
    );
    let last = run.out.lines().last().unwrap();
    assert!(last.starts_with("node n1: ") && last.ends_with(" checks"), "{run}");
}

#[test]
fn text_and_json_have_the_same_content() {
    let node = node();
    node.tree.qemu(101, "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
    fs::remove_file(node.tree.path(SNIPPET)).unwrap();
    let (text, data) = (node.run("doctor"), json(&node));
    assert_eq!((text.code, data.code), (3, 3));
    let data = data.json();
    for finding in data["findings"].as_array().unwrap() {
        for key in ["code", "severity", "sentence", "explanation", "remedy"] {
            let value = finding[key].as_str().unwrap();
            assert!(text.out.contains(value), "{key} `{value}`: {text}");
        }
        let fixed = format!("{}\n    hint: `pve-public-ip doctor --fix`", finding["sentence"].as_str().unwrap());
        assert_eq!(text.out.contains(&fixed), finding["fixable"] == true, "{finding}");
    }
    for unchecked in data["unchecked"].as_array().unwrap() {
        for key in ["code", "reason"] {
            assert!(text.out.contains(unchecked[key].as_str().unwrap()), "{unchecked}: {text}");
        }
    }
    assert_eq!((&data["node"], &data["version"]), (&Value::from("n1"), &Value::from(env!("CARGO_PKG_VERSION"))));
    let yaml = node.run("doctor --output-format yaml");
    assert!(yaml.out.contains("\"code\": \"hookscript-missing\"\n"), "{yaml}");
}

#[test]
fn the_hookscript_is_put_in_place() {
    let node = node();
    let path = node.tree.path(SNIPPET);
    let there = path.display();
    fs::remove_file(&path).unwrap();
    assert_eq!(own_codes(&node), ["hookscript-missing"]);
    let run = node.run("doctor --fix --dry-run");
    assert!(run.out.starts_with(&format!("would fix: hookscript-missing: put our hookscript at `{there}`\n")), "{run}");
    assert!(!path.exists());

    let run = node.run("doctor --fix");
    assert!(run.out.starts_with(&format!("fixed: hookscript-missing: put our hookscript at `{there}`\n")), "{run}");
    assert_eq!(node.tree.read(SNIPPET), include_str!("../../hookscripts/pve-public-ip"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(own_codes(&node), Vec::<String>::new());
    assert!(!node.run("doctor --fix").out.contains("fixed:"), "there is nothing left to fix");
    let told = node.run("audit --last 1").ok();
    assert!(told.out.contains(&format!("put our hookscript at `{there}`")), "{told}");

    // What a removal of the package leaves there.
    node.tree.write(SNIPPET, include_str!("../../hookscripts/pve-public-ip-removed"));
    assert_eq!(own_codes(&node), ["hookscript-not-ours"]);
    node.tree.write(SNIPPET, include_str!("../../hookscripts/pve-public-ip"));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(own_codes(&node), ["hookscript-not-executable"]);
    let run = node.run("doctor --fix");
    let told = format!("fixed: hookscript-not-executable: set the mode of `{there}` to 0755\n");
    assert!(run.out.starts_with(&told), "{run}");
    assert_eq!(own_codes(&node), Vec::<String>::new());
}

#[test]
fn without_proxmox_nobody_needs_the_hookscript() {
    let node = Node::with_pool();
    node.tree.write("etc/network/interfaces", "");
    assert_eq!(own_codes(&node), Vec::<String>::new());
    node.tree.write("var/lib/pve-cluster/config.db", "");
    assert_eq!(own_codes(&node), ["hookscript-missing"]);
}

#[test]
fn a_guest_without_hookscript_gets_ours() {
    let node = node();
    node.tree.qemu(100, "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
    assert_eq!(own_codes(&node), ["guest-without-hookscript"]);
    let run = node.run("doctor --fix --output-format json");
    assert_eq!(
        run.json()["fixes"][0]["what"],
        "set the hookscript: qm set 100 --hookscript local:snippets/pve-public-ip"
    );
    assert_eq!(run.json()["fixes"][0]["error"], Value::Null);
    assert!(node.calls().contains(&"qm set 100 --hookscript local:snippets/pve-public-ip".to_owned()));
    assert_eq!(own_codes(&node), Vec::<String>::new());

    // One that fails is said, and the rest is done.
    node.tree.qemu(100, "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
    fs::remove_file(node.tree.path("stand-ins/qm")).unwrap();
    fs::remove_file(node.tree.path(SNIPPET)).unwrap();
    let run = node.run("doctor --fix");
    let told = "not fixed: guest-without-hookscript: set the hookscript: `qm` is not called for a node under --root\n";
    assert!(run.out.contains(told), "{run}");
    assert_eq!(own_codes(&node), ["guest-without-hookscript"]);
}

#[test]
fn the_guard_is_enabled_by_systemd() {
    let node = node();
    node.tree.write("lib/systemd/system/pve-public-ip.service", "[Unit]\n");
    let enabled = node.tree.path("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&enabled).unwrap();
    let calls = node.tree.path("calls");
    let link = enabled.join("pve-public-ip.service");
    node.tree.script(
        "stand-ins/systemctl",
        &format!("echo \"systemctl $*\" >> {}\nln -s /x {}\n", calls.display(), link.display()),
    );
    assert_eq!(own_codes(&node), ["guard-not-enabled"]);
    let run = node.run("doctor --fix");
    let told = "fixed: guard-not-running: let systemd start the guard: systemctl enable --now pve-public-ip.service\n";
    assert!(run.out.starts_with(told), "{run}");
    assert_eq!(run.out.matches("fixed:").count(), 1, "one call is enough for both findings: {run}");
    assert!(node.calls().contains(&"systemctl enable --now pve-public-ip.service".to_owned()));
    assert_eq!(own_codes(&node), Vec::<String>::new());
}

#[test]
fn the_kernel_is_looked_at() {
    let node = node();
    node.net.sh("ip link set vmbr0 type bridge no_linklocal_learn 0");
    assert_eq!(own_codes(&node), ["bridge-learns-link-local"]);
    let run = node.run("doctor --fix");
    let told = "fixed: bridge-learns-link-local: let vmbr0 learn nothing from link-local frames\n";
    assert!(run.out.starts_with(told), "{run}");
    assert_eq!(own_codes(&node), Vec::<String>::new());

    node.net.sh(
        "nft add table bridge strict; nft add chain bridge strict fw '{ type filter hook forward priority 0; policy drop; }'
         nft add table inet docker; nft add chain inet docker fw '{ type filter hook forward priority 0; policy drop; }'
         for table in picky mapped; do
           nft add table bridge $table; nft add chain bridge $table in '{ type filter hook prerouting priority 0; }'
         done
         nft add rule bridge picky in ether type 0x88b5 drop; nft add rule bridge mapped in ether type 0x88b5 accept
         sysctl -qw net.bridge.bridge-nf-call-iptables=1");
    assert_eq!(own_codes(&node), ["foreign-chain-policy", "forward-policy-drop", "foreign-chain-drops"]);
    let run = json(&node);
    assert_eq!(finding(&run, "foreign-chain-policy")["subject"], "table bridge strict");
    assert_eq!(finding(&run, "foreign-chain-drops")["subject"], "table bridge picky");
    assert_eq!(
        finding(&run, "forward-policy-drop")["sentence"],
        "the chain fw at forward has the policy drop, and bridged frames pass it too"
    );

    node.net.sh("nft flush ruleset; ip link del vmbr0");
    assert_eq!(own_codes(&node), ["filter-missing", "assignment-problem", "bridge-missing"]);
}

#[test]
fn a_table_is_missed_only_where_it_is_used() {
    let node = node();
    node.run("pool create routed --profile generic-routed --bridge vmbr0 198.51.100.0/30").ok();
    assert!(!own_codes(&node).contains(&"filter-missing".to_owned()));
    node.net.sh("nft delete table inet pve-public-ip");
    let sentence = finding(&json(&node), "filter-missing")["sentence"].clone();
    assert_eq!(sentence, "table inet pve-public-ip or its rules are missing");
    node.run("node set --backend iptables-nft").ok();
    node.run("apply").ok();
    assert!(!own_codes(&node).contains(&"filter-missing".to_owned()));
}

/// To try them takes longer than all else.
#[test]
fn what_the_kernel_has_shown_is_not_tried_again() {
    let node = node();
    let features = "run/pve-public-ip/features";
    json(&node);
    let proven = node.tree.read(features);
    assert!(proven.contains("veth\n") && proven.contains("sets over several fields\n"), "{proven}");
    let traced = |node: &Node| {
        let stand_in = "echo veth >> $(dirname $0)/../tried\nexec /usr/sbin/ip \"$@\"\n";
        node.tree.script("stand-ins/ip", stand_in);
        json(node);
        fs::read_to_string(node.tree.path("tried")).unwrap_or_default().lines().count()
    };
    let few = traced(&node);
    fs::remove_file(node.tree.path(features)).unwrap();
    assert!(traced(&node) - few > few, "not everything was tried again");
    assert_eq!(node.tree.read(features), proven);
}

/// What hides in files is found by the files that Proxmox VE writes.
#[test]
fn the_cluster_is_looked_at() {
    let node = node();
    let tree = &node.tree;
    tree.write(
        "etc/pve/.members",
        r#"{"nodename":"n1","cluster":{"quorate":0},"nodelist":{"n1":{"online":1},"n2":{"online":0}}}"#,
    );
    tree.write("etc/pve/nodes/n2/qemu-server/300.conf", "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
    tree.write("etc/pve/public-ip/releases/n2.json", r#"{"release":"0.0.1","hookscript":false}"#);
    tree.write("etc/pve/public-ip/guests/777.json.tmp.n2.1", "");
    tree.write("etc/pve/public-ip/guests/778.json", "{");
    tree.write("etc/pve/storage.cfg", "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n");
    tree.write("etc/pve/firewall/cluster.fw", "[OPTIONS]\nenable: 1\n");
    tree.write("etc/pve/firewall/101.fw", "[OPTIONS]\nenable: 1\nipfilter: 1\n");
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    fs::File::options()
        .write(true)
        .open(tree.path("etc/pve/public-ip/pools/ovh-rbx.json"))
        .unwrap()
        .set_modified(later)
        .unwrap();
    tree.assign_by_hand(101, "02:00:00:aa:bb:01", "203.0.113.11/32", "ovh-rbx");
    tree.qemu(
        101,
        "net0: virtio=02:00:00:AA:BB:01,bridge=vmbr0,firewall=1\nhookscript: local:snippets/pve-public-ip\n",
    );
    assert_eq!(
        own_codes(&node),
        [
            "registry-broken",
            "no-quorum",
            "ipfilter-drops-address",
            "clone-or-restore",
            "duplicate-mac",
            "hookscript-not-everywhere",
            "files-from-the-future",
            "version-skew",
            "node-offline",
            "registry-leftover",
            "storage-without-snippets",
            "proxmox-firewall",
        ]
    );
}

/// The network configuration, with what it includes.
#[test]
fn open_vswitch_is_found_in_included_files() {
    let node = node();
    node.tree.write("etc/network/interfaces", "source /etc/network/interfaces.d/*\n");
    node.tree.write("etc/network/interfaces.d/ovs", "iface vmbr7 inet manual\n\tovs_type OVSBridge\n");
    assert_eq!(own_codes(&node), ["ovs-present"]);
    node.tree.qemu(100, "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr7\nhookscript: local:snippets/pve-public-ip\n");
    assert_eq!(own_codes(&node), ["assignment-problem", "ovs-bridge"]);
}

#[test]
fn without_etc_pve_there_is_still_something_to_say() {
    let node = Node { tree: Tree::new(), net: crate::common::Namespace::new() };
    fs::remove_dir_all(node.tree.path("etc/pve")).unwrap();
    let run = node.run("doctor");
    let told = format!("not checked, because there is no `{}`: registry-broken, ", node.tree.path("etc/pve").display());
    assert!(run.out.contains(&told), "{run}");
    assert!(run.out.contains("\nthis node: "), "{run}");
    assert!(run.out.starts_with("error: etc-pve-unreadable: Registry and guests lie under /etc/pve: "), "{run}");
    // Mounted over by nothing: what lies there is not what the cluster says.
    fs::create_dir_all(node.tree.path("etc/pve")).unwrap();
    node.tree.write("var/lib/pve-cluster/config.db", "");
    let run = node.run("doctor");
    assert!(run.out.contains("not checked, because the cluster file system is not mounted at"), "{run}");
    node.tree.write("lib/systemd/system/pve-public-ip.service", "[Unit]\n");
    let run = node.run("doctor --fix");
    let told = "not fixed: guard-not-running: `systemctl enable --now pve-public-ip.service`: the cluster file system is not mounted at";
    assert!(run.out.starts_with(told), "{run}");
}

#[test]
fn apply_notes_the_release_for_other_nodes() {
    let node = node();
    let path = node.tree.path("etc/pve/public-ip/releases/n1.json");
    assert!(!path.exists());
    node.run("apply").ok();
    let expected = format!(r#"{{"release":"{}","hookscript":true}}"#, env!("CARGO_PKG_VERSION"));
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    node.run("apply").ok();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written, "what is known is not written again");
    assert_eq!(own_codes(&node), Vec::<String>::new());
}

#[test]
fn list_names_every_check() {
    let node = Node { tree: Tree::new(), net: crate::common::Namespace::new() };
    let run = node.run("doctor --list").ok();
    assert!(run.out.starts_with("error etc-pve-unreadable\n  Registry and guests lie under /etc/pve: "), "{run}");
    let data = node.run("doctor --list --output-format json").ok().json();
    assert_eq!(data["checks"].as_array().unwrap().len() * 2, run.out.lines().count());
    node.run("doctor --list --fix").fails_with(2, &["cannot be used with"]);
}
