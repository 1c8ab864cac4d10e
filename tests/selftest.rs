//! `selftest`: what it says, that it notices when the rules are wrong, and that it leaves nothing behind.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use common::{BINARY, Namespace, Run};
use pve_public_ip::ruleset::{RULES, Variant};
use pve_public_ip::selftest::topologies::TOPOLOGIES;
use pve_public_ip::selftest::{self, Report, Selection};

mod common;

fn run(namespace: &Namespace, arguments: &str) -> Run {
    let output = namespace.command(BINARY).args(arguments.split_whitespace()).output().expect("the program starts");
    Run::of(format!("pve-public-ip {arguments}"), &output)
}

/// A namespace whose /run and /tmp are its own: on the machine's other programs come and go.
fn apart() -> Namespace {
    let namespace = Namespace::new();
    namespace.sh("mount -t tmpfs run /run; mount -t tmpfs tmp /tmp");
    namespace
}

/// Everything that it could have changed where it was called.
fn surroundings(namespace: &Namespace) -> String {
    namespace.sh("ip -o link; ip -o addr; ip neigh; ip route show table all; bridge fdb; nft list ruleset; \
        ip netns list; grep -r . /proc/sys/net/bridge /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding 2>&1 || true; \
        ls /run /var/lib /tmp | grep -i pve-public || true")
}

fn wrong(report: &Report) -> String {
    let wrong = report.rows.iter().filter(|row| row.leaked() || row.broken());
    let lines =
        wrong.take(20).map(|row| format!("{}: {}: {}: {}\n", row.topology, row.sender, row.class, row.got.text()));
    lines.chain(report.not_run.iter().map(|entry| format!("{}: {}\n", entry.topology, entry.reason))).collect()
}

#[test]
fn every_frame_meets_its_fate_and_nothing_is_left_behind() {
    let namespace = apart();
    namespace.sh(
        "ip link add vmbr0 type bridge && ip link set vmbr0 addrgenmode none && ip link set vmbr0 up && nft add table bridge pve-public-ip",
    );
    let before = (surroundings(&namespace), namespace.processes());
    let run = run(&namespace, "selftest --output-format json").ok();
    assert_eq!(run.err, "");
    assert_eq!((surroundings(&namespace), namespace.processes()), before);

    let report = run.json();
    let number = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("{key} is no number"));
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!((number("leaked"), number("broken"), &report["good"]), (0, 0, &true.into()));
    assert_eq!(number("frames"), rows.len() as u64);
    assert!(rows.len() > 10_000, "only {} frames", rows.len());
    for verdict in ["drop", "pass"] {
        let found = rows.iter().filter(|row| row["expected"] == verdict && row["got"] == verdict).count();
        assert!(found > 1000, "only {found} rows with {verdict}");
    }
    let keys: BTreeSet<&str> = rows[0].as_object().expect("a row").keys().map(String::as_str).collect();
    let wanted = ["broken", "class", "expected", "got", "group", "leaked", "seen", "sender", "topology"];
    assert_eq!(keys, BTreeSet::from(wanted));
    // How many depends on the machine and on who else uses it.
    assert!(report["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{}", report["seconds"]);
    assert!(report["kernel"].is_string() && report["nft"].is_string());

    // Each topology ran, or is named with a reason, and only what a node can do without may be missing.
    let ran: BTreeSet<&str> = rows.iter().filter_map(|row| row["topology"].as_str()).collect();
    let not_run = report["not_run"].as_array().expect("not_run");
    for topology in TOPOLOGIES {
        let excused = not_run.iter().find(|entry| entry["topology"] == topology.name);
        assert!(ran.contains(topology.name) != excused.is_some(), "{}: ran and did not run, or neither", topology.name);
        if let Some(entry) = excused {
            assert!(topology.is_optional() && entry["optional"] == true && entry["reason"] != "", "{entry}");
            assert!(!report["missing"].as_array().expect("missing").is_empty(), "{entry} has no cause");
        }
    }
}

#[test]
fn filters_select_and_the_table_names_what_was_played() {
    let namespace = Namespace::new();
    let shown = run(&namespace, "selftest --class gratuitous --topology container --verbose").ok();
    let rows: Vec<&str> = shown.out.lines().filter(|line| line.starts_with("| ")).collect();
    assert!(rows[0].contains("class") && rows[0].contains("expected") && rows[0].contains("got"), "{shown}");
    assert!(rows.len() > 10, "{shown}");
    for row in &rows[1..] {
        assert!(row.contains("gratuitous ") && row.contains("| container"), "{row}");
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[4], cells[5], "{row}");
    }
    let last = shown.out.lines().last().unwrap_or_default();
    let count = format!("{} frames in 2 topologies: {0} as expected, 0 leaked, 0 broken (", rows.len() - 1);
    assert!(last.starts_with(&count), "`{last}` is not `{count}`");

    let short = run(&namespace, "selftest --class gratuitous --topology container").ok();
    assert!(short.out.contains("| ARP ") && !short.out.contains("gratuitous"), "{short}");
    let yaml = run(&namespace, "selftest --class gratuitous --topology container --output-format yaml").ok();
    assert!(yaml.out.contains("\"good\": true\n"), "{yaml}");

    let hint = "`pve-public-ip selftest --verbose` names all classes and topologies";
    run(&namespace, "selftest --class nonsense").fails(1, "no frame is in a class and a topology of these names", hint);
    let both = "selftest --class hairpin --topology container";
    run(&namespace, both).fails(1, "no frame is in a class and a topology of these names", hint);
}

#[test]
fn it_needs_root_and_says_so() {
    let namespace = Namespace::new();
    let output = namespace.command("unshare").args(["--user", BINARY, "selftest"]).output().expect("unshare starts");
    Run::of("selftest in a user namespace".to_owned(), &output).fails(
        1,
        "the selftest makes network namespaces, which only root may",
        "run it as root",
    );
}

#[test]
fn what_cannot_be_built_is_named_and_is_a_failure() {
    let namespace = Namespace::new();
    namespace.sh("mount -t tmpfs none /dev/net");
    let run = run(&namespace, "selftest --class gratuitous");
    assert_eq!(run.code, 1, "{run}");
    let missing =
        "missing: tap devices (/dev/net/tun: No such file or directory (os error 2)): there can be no virtual machines";
    assert!(run.out.lines().any(|line| line == missing), "{run}");
    let reason = "not run: routed: cannot make a tap device: No such file or directory (os error 2)";
    assert!(run.out.lines().any(|line| line == reason), "{run}");
    assert!(run.out.contains(" topologies not run ("), "{run}");
}

#[test]
fn killed_in_the_middle_it_leaves_nothing_behind() {
    let namespace = apart();
    let before = (surroundings(&namespace), namespace.processes());
    for (signal, after) in [(nix::sys::signal::Signal::SIGTERM, 400), (nix::sys::signal::Signal::SIGKILL, 1200)] {
        let mut command = namespace.command(BINARY);
        let mut child = command.arg("selftest").stdout(Stdio::piped()).spawn().expect("the program starts");
        std::thread::sleep(Duration::from_millis(after));
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        nix::sys::signal::kill(pid, signal).expect("the program still runs");
        let status = child.wait().expect("the program ends");
        assert_eq!(status.signal(), Some(signal as i32), "it ended by itself after less than {after} ms");
        // A tool that it had just started may live a moment longer.
        for _ in 0..3000 {
            if namespace.processes() == before.1 {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!((surroundings(&namespace), namespace.processes()), before, "after {signal}");
    }
}

/// Plays one topology or all against other rules than the program's own.
fn against(rules: &str, topology: Option<&str>) -> Report {
    common::need(&["ip", "nft", "bridge"]);
    let selection = Selection { topology: topology.map(str::to_owned), ..Selection::default() };
    selftest::run(&selection, rules).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn without_rules_everything_leaks() {
    let report = against("flush table bridge pve-public-ip\n", None);
    assert!(!report.is_good());
    assert_eq!(report.broken(), 0, "{}", wrong(&report));
    // br_netfilter drops what is malformed by itself; elsewhere only the bridge has a say.
    let kept = report.rows.iter().filter(|row| !row.passes && !row.leaked() && row.topology != "br_netfilter on");
    let kept = kept.filter(|row| !row.class.ends_with("multicast source MAC"));
    let kept: Vec<String> = kept.map(|row| format!("{}: {}: {}", row.topology, row.sender, row.class)).collect();
    assert!(kept.is_empty(), "not seen anywhere although there are no rules:\n{}", kept.join("\n"));
}

#[test]
fn a_rule_too_few_or_too_many_is_noticed() {
    // What is weakened or spoilt, and the group in which it must show.
    for (rule, instead, leaks, group, topology) in [
        (
            "iifname . ether saddr != @port_mac goto drop_source_mac\n\t\tether type arp",
            "ether type arp",
            true,
            "source MAC",
            "tap on a bridge",
        ),
        ("goto drop_arp comment \"foreign\"", "accept", true, "ARP", "container"),
        ("goto drop_ip6_source\n", "accept\n", true, "IPv6", "two guests"),
        (
            "ip6 length 32 @th,192,16 0x0201 iifname . @th,208,48 @port_lladdr accept",
            "accept",
            true,
            "neighbour discovery",
            "routed",
        ),
        ("goto drop_ip4_source", "accept", true, "offloads", "tap on a bridge"),
        ("ether type @vlan_ethertypes goto inner_18", "", true, "claims in tags and SNAP", "unmanaged"),
        ("@ll,128,16 @tags goto inner_22", "", true, "claims in tags and SNAP", "unmanaged"),
        ("@ll,112,48 @snap_headers goto inner_22", "", true, "claims in tags and SNAP", "uplink"),
        (
            "@ll,160,16 @tags goto refuse_hidden comment \"three tags\"",
            "",
            true,
            "tags and SNAP without a claim",
            "unmanaged",
        ),
        (
            "iifname . ether saddr @hairpin_mac ether type ip return",
            "iifname . ether saddr @hairpin_mac return",
            true,
            "back from the gateway",
            "gateway's MAC",
        ),
        ("meta l4proto 58 goto returned_icmp6", "", true, "back from the gateway", "gateway's MAC"),
        ("@th,0,8 @igmp_banned goto own_router_message4", "", true, "IPv4", "two guests"),
        ("goto drop_malformed comment \"header chain ends behind the packet\"", "accept", true, "IPv6", "two guests"),
        (
            "@th,640,16 0x0101 iifname . @th,656,48 != @port_lladdr goto drop_nd",
            "",
            true,
            "neighbour discovery",
            "two guests",
        ),
        (
            "meta l4proto 58 oifname @port_no_ra jump refuse_ra_message",
            "",
            true,
            "to everybody, not for the guest",
            "to everybody",
        ),
        ("goto group_to_bound\n", "accept\n", true, "to everybody, not for the guest", "to everybody"),
        ("ip daddr @broadcast_ip4 accept", "", false, "to a bound guest", "to guests"),
        (
            "iifname @uplinks ip saddr != @bound_ip4 ip saddr != @bound_net4 return",
            "iifname @uplinks return",
            true,
            "claims of IPv4, ARP, IPv6, ND",
            "uplink",
        ),
        ("ip6 length 24 goto own_dad_target", "", false, "neighbour discovery", "two NICs"),
        ("@th,0,8 @icmp6_mld_reports goto own_mld", "@th,0,8 @icmp6_mld_reports drop", false, "MLD", "fwbr"),
        ("iifname \"fwpr*\" accept", "", false, "IPv4", "tap behind fwbr"),
        ("oifname . ether daddr != @port_mac goto drop_inbound_mac", "", true, "flooded", "to guests"),
        (
            "ip daddr 255.255.255.255 accept\n\t\tgoto drop_inbound_address",
            "accept",
            true,
            "to a bound guest",
            "to guests",
        ),
        ("ip6 daddr >= ff00:: accept comment \"a group\"", "", false, "to a bound guest", "to guests"),
        ("oifname @ports oifname != @watched_bound accept", "", false, "to a bound guest", "that gets everything"),
        ("ip daddr @reserved_ip4 goto drop_inbound_reserved", "", true, "to a guest without bindings", "to unmanaged"),
        ("oifname @guard_enforce goto to_guarded_provider", "", true, "guard of the uplink", "guarded uplink"),
    ] {
        assert!(RULES.contains(rule), "`{rule}` is not in the rules any more: correct this list");
        let report = against(&RULES.replace(rule, instead), Some(topology));
        let found = report.rows.iter().any(|row| row.group == group && if leaks { row.leaked() } else { row.broken() });
        // Where not even honest broadcasts arrive there are no rows.
        let deaf = !leaks && report.not_run.iter().any(|entry| entry.reason.contains("an honest broadcast"));
        assert!(!report.is_good() && (found || deaf), "`{rule}` is missed by nobody in {group}:\n{}", wrong(&report));
    }
}

#[test]
fn routed_packets_meet_the_same_fate_by_iptables() {
    common::need(&["ip", "nft", "bridge", "iptables-legacy", "iptables-nft"]);
    for variant in Variant::ALL {
        let selection =
            Selection { topology: Some("routed".to_owned()), variant: Some(variant), ..Selection::default() };
        let report = selftest::run(&selection, RULES).unwrap_or_else(|error| panic!("{error}"));
        assert!(report.is_good() && report.rows.len() > 100, "{variant}: {}", wrong(&report));
    }
}
