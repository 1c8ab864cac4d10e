//! Each way to filter: the same verdicts, drift named and repaired, one put up before another one goes.

use super::lab::{Lab, NODE, nft, sh, text, try_sh, write};
use super::scene::{Ears, choose, foreign, guest, must_drop, node, play, set_br_netfilter, settle};

/// With both lines, and with the second alone; with and without `br_netfilter`.
fn play_all_ways(lab: &mut Lab, what: &str) {
    settle(lab);
    play(lab, &format!("{what}, both lines"));
    set_br_netfilter(true);
    play(lab, &format!("{what}, both lines, br_netfilter"));
    nft("flush table bridge pve-public-ip");
    play(lab, &format!("{what}, br_netfilter"));
    set_br_netfilter(false);
    play(lab, what);
    lab.ok("apply");
}

#[test]
fn packets_meet_their_fate_by_nftables() {
    play_all_ways(&mut node("nftables"), "nftables");
}

#[test]
fn packets_meet_their_fate_by_iptables_legacy() {
    play_all_ways(&mut node("iptables-legacy"), "iptables-legacy");
}

#[test]
fn packets_meet_their_fate_by_iptables_nft() {
    play_all_ways(&mut node("iptables-nft"), "iptables-nft");
}

/// What did not forward before a pool needed it: guests of a bridge without one send nothing through the node by IPv6.
#[test]
fn from_a_bridge_without_a_pool_nothing_is_forwarded_by_ipv6() {
    let lab = node("nftables");
    settle(&lab);
    let mut ears = Ears::new(&lab);
    let mut through = |to: &str| ears.play("tap201i0", guest(201), super::scene::OTHER_BRIDGE, "fd00:2::5", to);
    assert_eq!(through(super::scene::WORLD6), ["eno1"]);
    nft(&format!("add element inet pve-public-ip kept6 {{ vmbr2 . {} }}", text(super::scene::OTHER_BRIDGE)));
    assert_eq!(through(super::scene::WORLD6), Vec::<String>::new());
    assert_eq!(through("fd00:2::1"), ["node"], "the node itself is still reached");
    assert!(sh("nft list counter inet pve-public-ip drop_routed_kept").contains("packets 1 "));
    lab.ok("apply");
    assert_eq!(through(super::scene::WORLD6), ["eno1"], "the node forwarded before");
    nft("add element inet pve-public-ip kept6_links { vmbr2 }");
    assert_eq!(through(super::scene::WORLD6), Vec::<String>::new(), "by name alone, as for a tunnel");
    assert_eq!(through("fd00:2::1"), ["node"]);
}

/// The same rule as iptables has it: it stands in the one chain that input and forwarded packets pass.
#[test]
fn from_another_interface_nothing_is_forwarded_by_iptables_either() {
    for (backend, program) in [("iptables-legacy", "ip6tables-legacy"), ("iptables-nft", "ip6tables-nft")] {
        let lab = node(backend);
        settle(&lab);
        let mut ears = Ears::new(&lab);
        let mut through = |to: &str| ears.play("tap201i0", guest(201), super::scene::OTHER_BRIDGE, "fd00:2::5", to);
        assert_eq!(through(super::scene::WORLD6), ["eno1"], "{backend}");
        sh(&format!("{program} -I PVE-PUBLIC-IP 1 ! -d ff00::/8 -i vmbr2 -m addrtype ! --dst-type LOCAL -j DROP"));
        assert_eq!(through(super::scene::WORLD6), Vec::<String>::new(), "{backend}");
        assert_eq!(through("fd00:2::1"), ["node"], "{backend}");
        lab.ok("apply");
        assert_eq!(through(super::scene::WORLD6), ["eno1"], "{backend}");
    }
}

#[test]
fn without_the_filter_they_all_pass() {
    let lab = node("nftables");
    settle(&lab);
    nft("flush ruleset");
    let mut ears = Ears::new(&lab);
    let arrived = must_drop()
        .into_iter()
        .filter(|(port, from_mac, to_mac, from, to, _)| !ears.play(port, *from_mac, *to_mac, from, to).is_empty());
    // Linux itself refuses some: it has a route to their source that leads elsewhere, or an address of its own.
    assert!(arrived.count() * 10 > must_drop().len() * 8, "what is dropped above is not dropped by the filter");
}

fn members(set: &str) -> Vec<String> {
    let listing = try_sh(&format!("nft list set inet pve-public-ip {set}")).out;
    let elements = listing.split_once("elements = {").and_then(|(_, rest)| rest.split_once('}'));
    elements.map_or_else(Vec::new, |(elements, _)| elements.split(',').map(|one| one.trim().to_owned()).collect())
}

fn has_table() -> bool {
    sh("nft list tables").contains("table inet pve-public-ip")
}

#[test]
fn a_guest_enters_and_leaves_the_filter_with_its_hooks() {
    let mut lab = Lab::new();
    sh("ip addr add 10.1.0.1/24 dev vmbr0; ip link set vmbr0 address 02:00:00:00:b0:00");
    for vmid in [100, 101] {
        lab.guest(NODE, "qemu-server", vmid, &format!("net0: virtio={},bridge=vmbr0\n", text(guest(vmid))));
    }
    lab.ok("pool create plain --profile generic-bridged --bridge vmbr0 192.0.2.0/29");
    lab.ok("assign 101 192.0.2.2");
    lab.ok("hook 101 pre-start");
    assert!(!has_table(), "nothing is routed on this node");

    lab.ok(
        "pool create net --profile hetzner-routed --uplink-guard report --bridge vmbr0 203.0.113.8/29 2001:db8:1::/64",
    );
    lab.ok("assign 100 203.0.113.10 2001:db8:1::10");
    assert_eq!(members("pool_ip4"), ["203.0.113.8/29"]);
    assert_eq!((members("from_ip4"), members("here_ip4")), (Vec::new(), Vec::new()));
    lab.ok("hook 100 pre-start");
    assert_eq!(members("from_ip4"), ["02:00:00:00:00:64 . 203.0.113.10"]);
    assert_eq!(members("from_ip6"), ["02:00:00:00:00:64 . 2001:db8:1::10"]);
    assert_eq!(
        (members("here_ip4"), members("here_ip6")),
        (vec!["203.0.113.10".into()], vec!["2001:db8:1::10".into()])
    );
    lab.plug("tap100i0", "vmbr0", guest(100));
    lab.ok("hook 100 post-start");
    lab.ok("hook 101 post-stop");
    lab.ok("verify");

    // A hook that finds the table gone brings it back.
    nft("delete table inet pve-public-ip");
    lab.ok("hook 100 post-start");
    lab.ok("verify");
    lab.unplug("tap100i0");
    lab.ok("hook 100 post-stop");
    assert_eq!((members("from_ip4"), members("here_ip6")), (Vec::new(), Vec::new()));
    lab.ok("verify");

    lab.ok("release 100");
    lab.ok("pool remove net");
    assert!(!has_table(), "nothing is routed any more");
    lab.ok("verify");
}

#[test]
fn a_guest_enters_and_leaves_the_chains_with_its_hooks() {
    for backend in ["iptables-legacy", "iptables-nft"] {
        let mut lab = Lab::new();
        sh("ip addr add 10.1.0.1/24 dev vmbr0; ip link set vmbr0 address 02:00:00:00:b0:00");
        choose(&lab, backend);
        lab.guest(NODE, "qemu-server", 100, &format!("net0: virtio={},bridge=vmbr0\n", text(guest(100))));
        lab.ok("pool create net --profile hetzner-routed --uplink-guard report --bridge vmbr0 203.0.113.8/29 2001:db8:1::/64");
        lab.ok("assign 100 203.0.113.10 2001:db8:1::10");
        let rules =
            || sh(&format!("{backend}-save; ip6{}-save; ipset save", &backend[2..])).matches("203.0.113.10").count();
        let before = rules();
        lab.ok("hook 100 pre-start");
        assert!(rules() > before, "{backend}: not bound");
        lab.plug("tap100i0", "vmbr0", guest(100));
        lab.ok("hook 100 post-start");
        lab.ok("verify");
        // A hook that finds the chains gone brings them back.
        sh(&format!("{backend} -F; {backend} -X"));
        lab.ok("hook 100 post-start");
        lab.ok("verify");
        lab.unplug("tap100i0");
        lab.ok("hook 100 post-stop");
        assert_eq!(rules(), before, "{backend}: still bound");
        lab.ok("verify");
        lab.ok("release 100");
        lab.ok("pool remove net");
        assert_eq!(sh(&format!("{backend}-save; ipset save")).matches("PVE-PUBLIC-IP").count(), 0);
    }
}

#[test]
fn what_is_missing_is_said_with_its_package() {
    let lab = Lab::new();
    sh("ip addr add 10.1.0.1/24 dev vmbr0");
    choose(&lab, "iptables-legacy");
    let programs = lab.path("programs");
    sh(&format!("mkdir {0}; ln -s $(command -v nft) $(command -v ip) {0}", programs.display()));
    let path = programs.to_str().unwrap();
    let ran = lab.run_with(
        &[("PATH", path)],
        "pool create net --profile hetzner-routed --uplink-guard report --bridge vmbr0 203.0.113.8/29",
    );
    // The pool is made; that nothing filters its traffic yet is said.
    assert_eq!(ran.code, 1, "{ran}");
    for words in [
        "cannot read iptables-legacy -t filter: cannot run `iptables-legacy-save -t filter`: No such file or directory",
        "hint: `apt install iptables`, or `pve-public-ip node set --backend nftables`",
    ] {
        assert!(ran.out.contains(words), "{ran}");
    }
    assert_eq!(lab.run_with(&[("PATH", path)], "apply").code, 1);
    // Without ipset each address is a rule; nobody has to install it.
    sh(&format!("ln -s $(command -v iptables-legacy-save) $(command -v ip6tables-legacy-save) {path}"));
    sh(&format!("ln -s $(command -v iptables-legacy-restore) $(command -v ip6tables-legacy-restore) {path}"));
    let ran = lab.run_with(&[("PATH", path)], "apply");
    assert_eq!(ran.code, 0, "{ran}");
    assert!(
        ran.out.contains("+ iptables-legacy -t filter PVE-PUBLIC-IP-POOL -s 203.0.113.8/29 -j DROP"),
        "{}",
        ran.out
    );
    lab.ok("verify");
}

#[test]
fn settings_of_the_node_are_checked_and_shown() {
    let lab = Lab::new();
    assert_eq!(
        lab.ok("node show"),
        "node          n1\nuplinks       by their names\nroute uplink  that of the default route\nlog group     none\nuplink guard  as the pools say\nport program  checks what the rules cannot see\nbackend       auto\nrouted by     nothing, because no pool is routed\nalerts        mail to root; attempts from 1000 frames an hour on\nmetrics       every 15 s, directory: node_exporter's\n"
    );
    sh("for card in eno1 eno2; do ip link add $card type veth peer name p$card; ip link set $card master vmbr0; done");
    lab.ok("node set --uplink eno1 --uplink eno2 --route-uplink eno1 --log-group 121 --backend iptables");
    let file = std::fs::read_to_string(lab.path("etc/pve/public-ip/nodes/n1.json")).unwrap();
    for part in ["\"uplinks\"", "\"eno2\"", "\"log_group\": 121", "\"backend\": \"iptables\""] {
        assert!(file.contains(part), "{file}");
    }
    let shown = lab.ok("node show");
    assert!(
        shown.contains("uplinks       eno1, eno2\nroute uplink  eno1\nlog group     121, watched for conflicts\nuplink guard  as the pools say\nport program  checks what the rules cannot see\nbackend       iptables\n"),
        "{shown}"
    );
    lab.ok("node set --any-uplink --log-group none");
    let shown = lab.ok("node show");
    assert!(shown.contains("uplinks       by their names\nroute uplink  that of the default route\nlog group     none\nuplink guard  as the pools say\nport program  checks what the rules cannot see\nbackend       iptables\n"), "{shown}");
    for (arguments, words) in [
        ("node set", "required arguments were not provided"),
        ("node set --log-group 0", "a group is a number from 1 to 65535, or none"),
        ("node set --backend ebtables", "[possible values: auto, nftables, iptables, iptables-legacy, iptables-nft]"),
        ("node set --any-uplink --uplink eno1", "cannot be used with"),
    ] {
        let ran = lab.run(arguments);
        assert_eq!(ran.code, 2, "{arguments}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains(words), "{arguments}: {}", ran.err);
    }
}

/// Each change is named by `verify`, undone by `apply`, and all is well afterwards.
fn drift(lab: &Lab, changes: &[(&str, &str)]) {
    for (command, named) in changes {
        sh(command);
        let found = lab.run("verify");
        assert_eq!(found.code, 3, "`{command}`: {}{}", found.out, found.err);
        assert!(found.out.contains(&format!("drift: {named}")), "`{command}`: verify said\n{}", found.out);
        lab.ok("apply");
        lab.ok("verify");
        assert_eq!(lab.ok("plan"), "nothing to do\n", "`{command}`");
    }
}

#[test]
fn drift_of_the_table_is_named_and_repaired() {
    let lab = node("nftables");
    let changes = [
        ("nft delete table inet pve-public-ip", "table inet pve-public-ip is missing"),
        ("nft flush ruleset", "the table is missing"),
        ("nft insert rule inet pve-public-ip forward accept", "the rules of table inet pve-public-ip are missing"),
        ("nft flush chain inet pve-public-ip guest_ip6", "the rules of table inet pve-public-ip are missing"),
        (
            "nft delete element inet pve-public-ip from_ip4 '{ 02:00:00:00:00:64 . 203.0.113.10 }'",
            "missing 02:00:00:00:00:64 203.0.113.10: the node does not route what the guest sends with it",
        ),
        (
            "nft delete element inet pve-public-ip here_ip6_64 '{ 2001:db8:200:: }'",
            "missing 2001:db8:200::: it can come in from outside, too",
        ),
        (
            "nft add element inet pve-public-ip from_ip4 '{ 02:00:00:00:00:65 . 203.0.113.10 }'",
            "extra 02:00:00:00:00:65 203.0.113.10: the node routes it, although no guest has it",
        ),
        (
            "nft flush set inet pve-public-ip routed_bridges",
            "missing vmbr1: what comes from this bridge is taken for what comes from outside",
        ),
    ];
    drift(&lab, &changes);
}

#[test]
fn drift_of_the_chains_is_named_and_repaired() {
    for variant in ["legacy", "nft"] {
        let lab = node(&format!("iptables-{variant}"));
        assert!(!has_table(), "one filter is enough");
        let (v4, v6) = (format!("iptables-{variant}"), format!("ip6tables-{variant}"));
        sh(&format!("{v4} -A FORWARD -s 192.0.2.66 -j ACCEPT; {v6} -N other; {v6} -A FORWARD -j other"));
        let before = foreign(variant);
        let changes = [
            (format!("{v4} -D FORWARD -j PVE-PUBLIC-IP"), format!("FORWARD of {v4} does not ask PVE-PUBLIC-IP")),
            (format!("{v6} -D INPUT -j PVE-PUBLIC-IP"), format!("INPUT of {v6} does not ask PVE-PUBLIC-IP")),
            (format!("{v4} -t raw -D PREROUTING -j PVE-PUBLIC-IP"), format!("PREROUTING of {v4} does not ask")),
            (
                format!("{v4} -I FORWARD 2 -j PVE-PUBLIC-IP"),
                format!("FORWARD of {v4} asks PVE-PUBLIC-IP more than once"),
            ),
            (
                format!("{v4} -D FORWARD -j PVE-PUBLIC-IP; {v4} -A FORWARD -j PVE-PUBLIC-IP"),
                format!("FORWARD of {v4} asks PVE-PUBLIC-IP in place 2"),
            ),
            (
                format!("{v4} -I PVE-PUBLIC-IP -j ACCEPT"),
                format!("{v4} has a rule in our chain that is not ours: PVE-PUBLIC-IP -j ACCEPT"),
            ),
            (
                format!("{v6} -D PVE-PUBLIC-IP -i vmbr1 -g PVE-PUBLIC-IP-GUEST"),
                format!("{v6} lacks a rule of ours: PVE-PUBLIC-IP -i vmbr1 -g PVE-PUBLIC-IP-GUEST"),
            ),
            (format!("{v4} -F PVE-PUBLIC-IP-GUEST"), format!("{v4} lacks a rule of ours: PVE-PUBLIC-IP-GUEST ")),
            (format!("{v4} -t raw -F; {v4} -t raw -X"), format!("{v4} has no PVE-PUBLIC-IP in its table raw")),
            (
                format!("{v4} -N PVE-PUBLIC-IP-X"),
                format!("{v4} has a chain of our name that is not ours: PVE-PUBLIC-IP-X"),
            ),
        ];
        let changes: Vec<(&str, &str)> = changes.iter().map(|(command, named)| (&**command, &**named)).collect();
        drift(&lab, &changes);
        assert_eq!(foreign(variant), before, "rules of others were touched");
        // Whatever else empties iptables.
        drift(
            &lab,
            &[(&format!("{v4} -F; {v4} -X; {v6}-restore </dev/null; printf '*filter\nCOMMIT\n' | {v6}-restore"), "")],
        );
    }
}

#[test]
fn the_new_filter_stands_before_the_old_one_goes() {
    let lab = node("nftables");
    settle(&lab);
    let own = |variant: &str| {
        sh(&format!("iptables-{variant}-save; ip6tables-{variant}-save")).matches("PVE-PUBLIC-IP").count()
    };
    for (backend, legacy, nft, table) in [
        ("iptables-legacy", true, false, false),
        ("iptables-nft", false, true, false),
        ("nftables", false, false, true),
        ("iptables-nft", false, true, false),
        ("iptables-legacy", true, false, false),
        ("nftables", false, false, true),
    ] {
        let said = lab.ok(&format!("node set --backend {backend} --dry-run"));
        assert!(said.contains("settings of node n1 would be changed"), "{said}");
        choose(&lab, backend);
        assert_eq!((own("legacy") > 0, own("nft") > 0, has_table()), (legacy, nft, table), "{backend}");
        lab.ok("verify");
        play(&lab, backend);
        let shown = lab.ok("node show");
        assert!(shown.contains(&format!("backend       {backend}\nrouted by     {backend}")), "{shown}");
    }
}

/// What can be done is done, and the exit status says that a file cannot be read.
fn unreadable(lab: &Lab) {
    let ran = lab.run("apply");
    assert_eq!(ran.code, 4, "{ran}");
}

#[test]
fn a_file_that_cannot_be_read_changes_no_chain() {
    for backend in ["nftables", "iptables-legacy", "iptables-nft"] {
        let lab = node(backend);
        settle(&lab);
        let pools = lab.path("etc/pve/public-ip/pools/net.json");
        let whole = std::fs::read_to_string(&pools).unwrap();
        for broken in ["{", "{\"version\": 2, \"name\": 7}"] {
            write(pools.to_str().unwrap(), broken);
            unreadable(&lab);
            play(&lab, &format!("{backend}, a pool's file broken"));
            write(pools.to_str().unwrap(), &whole);
            assert_eq!(lab.ok("plan"), "nothing to do\n", "{backend}");
        }
        write(lab.path("etc/pve/public-ip/nodes/n1.json").to_str().unwrap(), "{");
        unreadable(&lab);
        play(&lab, &format!("{backend}, the node's file broken"));
        unreadable(&lab);
        play(&lab, &format!("{backend}, the node's file still broken"));
    }
}

#[test]
fn auto_goes_by_what_the_node_runs_and_stays_with_it() {
    for (rules, chosen) in [
        ("true", "nftables"),
        ("iptables-legacy -A FORWARD -s 192.0.2.66 -j DROP", "iptables-legacy"),
        ("iptables-nft -A FORWARD -s 192.0.2.66 -j DROP", "iptables-nft"),
        // Tables without rules are nobody's.
        ("iptables-legacy -S; ip6tables-legacy -S", "nftables"),
    ] {
        let lab = Lab::new();
        sh("ip addr add 10.1.0.1/24 dev vmbr0");
        sh(rules);
        lab.ok("pool create net --profile hetzner-routed --uplink-guard report --bridge vmbr0 203.0.113.8/29");
        let shown = || lab.ok("node show");
        assert!(shown().contains(&format!("backend       auto\nrouted by     {chosen}")), "`{rules}`: {}", shown());
        // What comes and goes later changes nothing by itself.
        sh("iptables-nft -F; iptables-legacy -F FORWARD; iptables-legacy -A FORWARD -s 192.0.2.77 -j DROP");
        lab.ok("apply");
        assert!(shown().contains(&format!("routed by     {chosen}")), "`{rules}`: {}", shown());
        lab.ok("node set --backend auto");
        assert!(shown().contains("routed by     iptables-legacy"), "`{rules}`: {}", shown());
        lab.ok("verify");
    }
}
