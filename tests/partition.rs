//! `partition`: plans from trees of files, and their laws over random networks.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use proptest::prelude::*;
use pve_public_ip::doctor::Severity;
use pve_public_ip::model::Vmid;
use pve_public_ip::partition::{Labels, Member, Network, Plan, Request, Strategy, Used, check, parse_plan, plan};

fn guide() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/partition/guide")
}

fn run(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pve-public-ip"));
    command.env_clear().env("LC_ALL", "C.UTF-8").current_dir(root);
    command.arg("--root").arg(root).arg("partition").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A copy that a test may change.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-a").arg(format!("{}/.", from.display())).arg(to.path()).status().unwrap();
    assert!(copied.success());
    to
}

const BASE: [&str; 6] = ["--base", "10.20.0.0/16", "--base6", "fd00::/48", "--from", "labels.toml"];

fn with<'a>(first: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    first.iter().chain(&BASE).chain(rest).copied().collect()
}

/// A router guest with eight containers behind it, one of them a proxy for three endpoints: from the configuration to the
/// drawing, the plans, their price and the commands.
#[test]
fn a_network_behind_a_router_guest() {
    let cases = [
        ("compare.txt", with(&["compare"], &[])),
        ("plan.txt", with(&["plan", "--strategy", "hybrid"], &[])),
        ("plan.mmd", with(&["plan", "--strategy", "hybrid", "--format", "mermaid"], &[])),
        ("plan.dot", with(&["plan", "--strategy", "hybrid", "--format", "dot"], &[])),
        ("before.dot", with(&["plan", "--strategy", "hybrid", "--format", "dot-before"], &[])),
        ("plan.sh", with(&["plan", "--strategy", "per-service", "--format", "sdn"], &[])),
        ("interfaces", with(&["plan", "--strategy", "per-application", "--format", "interfaces"], &[])),
        ("plan.json", with(&["plan", "--strategy", "hybrid", "--output-format", "json-pretty"], &[])),
        ("check.txt", vec!["check", "--from", "labels.toml"]),
    ];
    let mut wrong = String::new();
    for (file, arguments) in cases {
        let output = run(&guide(), &arguments);
        assert!(output.stderr.is_empty(), "{file}: {}", text(&output.stderr));
        assert_eq!(output.status.code(), Some(if file == "check.txt" { 3 } else { 0 }), "{file}");
        let path = guide().join("expected").join(file);
        if fs::read_to_string(&path).unwrap_or_default() != text(&output.stdout) {
            wrong += &format!("{} should be\n{}\n", path.display(), text(&output.stdout));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn graphviz_draws_before_and_after() {
    for format in ["dot", "dot-before"] {
        let drawn = run(&guide(), &with(&["plan", "--strategy", "hybrid", "--format", format], &[])).stdout;
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &drawn).unwrap();
        let output = Command::new("dot").arg("-Tsvg").arg(file.path()).output().expect("this test needs `dot`");
        assert!(output.status.success() && output.stderr.is_empty(), "{format}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains("guest 500 pfsense"), "{format}");
    }
}

/// Saved, followed, and compared with what became of it.
#[test]
fn a_saved_plan_stays_and_is_checked_against() {
    let root = copy(&guide());
    let root = root.path();
    let made = with(&["plan", "--strategy", "hybrid", "--plan", "plan.json", "--save"], &[]);
    assert_eq!(run(root, &made).status.code(), Some(0));
    let first = parse_plan(&fs::read_to_string(root.join("plan.json")).unwrap()).unwrap();
    assert_eq!(run(root, &made).status.code(), Some(0));
    assert_eq!(parse_plan(&fs::read_to_string(root.join("plan.json")).unwrap()).unwrap(), first, "the same again");

    // One more: everybody else stays.
    let containers = root.join("etc/pve/nodes/pve1/lxc");
    fs::write(containers.join("109.conf"), "hostname: cache\nnet0: name=eth0,bridge=vmbr1\ntags: svc-cache\n").unwrap();
    let unchanged = fs::read_to_string(root.join("plan.json")).unwrap();
    let dry: Vec<&str> = made.iter().copied().chain(["--dry-run"]).collect();
    assert_eq!(run(root, &dry).status.code(), Some(0));
    assert_eq!(fs::read_to_string(root.join("plan.json")).unwrap(), unchanged, "only printed");
    assert_eq!(run(root, &made).status.code(), Some(0));
    let second = parse_plan(&fs::read_to_string(root.join("plan.json")).unwrap()).unwrap();
    assert_eq!(second.subnets.len(), first.subnets.len() + 1);
    for subnet in &first.subnets {
        assert!(second.subnets.contains(subnet), "{subnet:?}");
    }

    // As planned: in its subnet and VLAN. Another one is not.
    let conf = containers.join("105.conf");
    let lines = fs::read_to_string(&conf).unwrap();
    let placed = lines.replace("192.168.1.65/16,gw=192.168.1.51", "10.20.0.10/29,gw=10.20.0.9,tag=101");
    assert_ne!(lines, placed);
    fs::write(&conf, placed).unwrap();
    let output = run(root, &["check", "--plan", "plan.json", "--from", "labels.toml"]);
    let found = text(&output.stdout);
    assert_eq!(output.status.code(), Some(3));
    assert!(!found.contains("guest 105 net0 is on") && !found.contains("guest 105 net0 has"), "{found}");
    for line in [
        "error: wrong-subnet: guest 106 net0 has 192.168.1.66/16, and belongs into svc-db (10.20.0.8/29, VLAN 101)\n    hint: give it an address from 10.20.0.10 to 10.20.0.14, gateway 10.20.0.9\n",
        "error: wrong-vlan: guest 106 net0 is on vmbr1, and belongs into svc-db (10.20.0.8/29, VLAN 101)\n    hint: set `tag=101` for net0, or put it on the VNet vlan101\n",
        "warning: vlan-unaware-bridge: there are tags on vmbr1, which is not VLAN-aware (of guest 105): ",
    ] {
        assert!(found.contains(line), "{line}\n{found}");
    }

    // An address that the plan has is not in its own way.
    assert_eq!(run(root, &made).status.code(), Some(0));
    let third = parse_plan(&fs::read_to_string(root.join("plan.json")).unwrap()).unwrap();
    assert_eq!(third.subnets, second.subnets);
}

#[test]
fn says_what_it_cannot_plan() {
    let root = copy(&guide());
    let root = root.path();
    fs::write(root.join("bad.json"), r#"{"version":1,"flows":[{"from":"web","to":"any"}]}"#).unwrap();
    fs::write(root.join("old.json"), "{\"version\":1}").unwrap();
    let made = with(&["plan", "--strategy", "hybrid", "--plan", "plan.json", "--save"], &[]);
    assert_eq!(run(root, &made).status.code(), Some(0));
    let plan = |rest: &[&'static str]| [&["plan", "--strategy", "hybrid"], rest].concat();
    let cases: [(Vec<&str>, i32, &str, &str); 9] = [
        (
            plan(&["--base", "10.20.0.1/16"]),
            1,
            "--base 10.20.0.1/16 has host bits: the network is 10.20.0.0/16",
            "--base",
        ),
        (
            plan(&["--base", "10.20.0.0/30"]),
            1,
            "--base 10.20.0.0/30 is smaller than the smallest subnet, /29",
            "--base",
        ),
        (
            plan(&["--base", "10.20.0.0/28"]),
            1,
            "svc-endpoint needs a /29 (guests: 2, growth: 2), and 10.20.0.0/28 has nothing left",
            "larger --base",
        ),
        (
            plan(&["--base", "192.168.0.0/24"]),
            1,
            "needs a /29 (guests: 2, growth: 2), and 192.168.0.0/24 has nothing left",
            "larger --base",
        ),
        (
            plan(&["--base", "10.20.0.0/16", "--vlan-range", "100-101"]),
            1,
            "gets no VLAN: of 100-101 all are in use",
            "larger --vlan-range",
        ),
        (
            plan(&["--base", "10.20.0.0/16", "--base6", "fd00::/62"]),
            1,
            "fd00::/62 has 4 subnets of /64, and the VLANs 100-199 need 100",
            "such as fd00::/57",
        ),
        (
            plan(&["--base", "10.20.0.0/16", "--from", "bad.json"]),
            1,
            "`bad.json`: flows[0].from: `web` is neither `app-NAME`",
            "schema labels",
        ),
        (
            plan(&["--base", "10.20.0.0/16", "--plan", "old.json"]),
            1,
            "`old.json` is no plan: missing field",
            "begin anew",
        ),
        (
            plan(&["--base", "10.21.0.0/16", "--plan", "plan.json"]),
            1,
            "--base is 10.21.0.0/16, but the plan of before has 10.20.0.0/16",
            "begin a new one",
        ),
    ];
    for (arguments, code, sentence, hint) in cases {
        let output = run(root, &arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(sentence) && said.contains("hint: ") && said.contains(hint), "{arguments:?}: {said}");
    }
    // Nothing that was saved is lost by a plan that cannot be made.
    assert!(parse_plan(&fs::read_to_string(root.join("plan.json")).unwrap()).is_ok());
}

/// What Proxmox VE takes, by its own rules. Source: pve-network `PVE/Network/SDN/Vnets.pm`, `Zones/Plugin.pm`; pve-firewall
/// `PVE/Firewall.pm`.
const PVESH: &str = r#"#!/bin/sh
verb=$1; path=$2; shift 2
echo "$verb $path $*" >>"$CALLS"
refuse() { echo "400 Parameter verification failed: $*" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case "$path $1" in
    "/cluster/sdn/zones --type") [ "$2" = vlan ] ;;
    "/cluster/sdn/zones --zone") echo "$2" | grep -qxE '[a-zA-Z][a-zA-Z0-9]{0,6}[a-zA-Z0-9]' ;;
    "/cluster/sdn/zones --bridge") [ "$2" = vmbr1 ] ;;
    "/cluster/sdn/vnets --vnet") echo "$2" | grep -qxE '[a-zA-Z][a-zA-Z0-9]{0,6}[a-zA-Z0-9]' ;;
    "/cluster/sdn/vnets --zone") true ;;
    "/cluster/sdn/vnets --tag") [ "$2" -ge 1 ] && [ "$2" -le 4094 ] ;;
    "/cluster/sdn/vnets --alias") echo "$2" | grep -qxE '[a-zA-Z0-9._:+ -]{1,256}' ;;
    "/cluster/sdn/vnets/"*"/subnets --type") [ "$2" = subnet ] ;;
    "/cluster/sdn/vnets/"*"/subnets --subnet") true ;;
    "/cluster/sdn/vnets/"*"/subnets --gateway") true ;;
    "/cluster/firewall/groups --group") echo "$2" | grep -qxE '[A-Za-z][A-Za-z0-9_-]{1,17}' ;;
    "/cluster/firewall/groups"*" --comment") true ;;
    "/cluster/firewall/groups/"*" --type") [ "$2" = in ] ;;
    "/cluster/firewall/groups/"*" --action") [ "$2" = ACCEPT ] ;;
    "/cluster/firewall/groups/"*" --enable") [ "$2" = 1 ] ;;
    "/cluster/firewall/groups/"*" --source") true ;;
    "/cluster/firewall/groups/"*" --proto") true ;;
    "/cluster/firewall/groups/"*" --dport") echo "$2" | grep -qxE '[0-9]+(:[0-9]+)?' ;;
    *) false ;;
    esac || refuse "$1 $2"
    shift 2
done
"#;

#[test]
fn the_script_is_dry_until_it_is_told() {
    let root = copy(&guide());
    let root = root.path();
    let pvesh = root.join("pvesh");
    // Another process makes the file: what this one had open for writing could not be run (`ETXTBSY`).
    fs::write(root.join("pvesh.source"), PVESH).unwrap();
    let made = Command::new("install").args(["-m", "0755"]).args([root.join("pvesh.source"), pvesh]).status().unwrap();
    assert!(made.success());
    let script = root.join("plan.sh");
    let printed = run(root, &with(&["plan", "--strategy", "per-service", "--format", "sdn"], &[])).stdout;
    fs::write(&script, printed).unwrap();
    let calls = root.join("calls");
    let sh = |arguments: &[&str]| {
        let path = format!("{}:/usr/bin:/bin", root.display());
        Command::new("sh").arg(&script).args(arguments).env("PATH", path).env("CALLS", &calls).output().unwrap()
    };
    let dry = sh(&[]);
    assert!(dry.status.success());
    assert_eq!(text(&dry.stderr), "nothing was changed: run it with --apply\n");
    assert!(!calls.exists());
    let applied = sh(&["--apply"]);
    assert!(applied.status.success() && applied.stderr.is_empty(), "{}", text(&applied.stderr));
    assert_eq!(applied.stdout, dry.stdout);
    // What it printed is what it did, word for word: it can be pasted.
    let told: String =
        text(&dry.stdout).lines().map(|line| line.strip_prefix("pvesh ").unwrap().to_owned() + "\n").collect();
    assert_eq!(fs::read_to_string(calls).unwrap().replace(" \n", "\n"), told);
    assert!(told.ends_with("set /cluster/sdn\n"));
}

/// A guest with at most three labels, by number.
fn member(kind: u8) -> Member {
    let label = |prefix: &str, number: u8| (number > 0).then(|| format!("{prefix}{number}"));
    let labels = Labels {
        app: label("a", kind % 5),
        service: label("s", kind / 5 % 4),
        zone: (kind % 7 == 0).then(|| "critical".to_owned()),
    };
    Member { node: "pve1".parse().unwrap(), name: None, labels, ports: Vec::new() }
}

fn network(kinds: &BTreeMap<Vmid, u8>, used: &[u16]) -> Network {
    let used = used
        .iter()
        .map(|at| Used { net: format!("10.0.{}.{}/28", at >> 8, at & 0xf0).parse().unwrap(), by: "x".to_owned() });
    Network {
        members: kinds.iter().map(|(vmid, kind)| (*vmid, member(*kind))).collect(),
        used: used.collect(),
        ..Network::default()
    }
}

fn request(strategy: Strategy) -> Request {
    Request {
        strategy,
        base: "10.0.0.0/16".parse().unwrap(),
        base6: Some("fd00::/48".parse().unwrap()),
        growth: "1.5".parse().unwrap(),
        vlan_range: "100-299".parse().unwrap(),
    }
}

/// Each guest with what would change for it if it moved.
fn seats(plan: &Plan) -> BTreeMap<Vmid, (String, u16, std::net::Ipv4Addr, Option<ipnet::Ipv6Net>)> {
    let seat =
        |subnet: &pve_public_ip::partition::Subnet| (subnet.name.clone(), subnet.vlan, subnet.gateway, subnet.subnet6);
    plan.subnets.iter().flat_map(|subnet| subnet.guests.iter().map(move |vmid| (*vmid, seat(subnet)))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A network that grows guest by guest: nobody moves, everybody has a place of the right kind, and nothing overlaps.
    #[test]
    fn one_guest_more_moves_nobody(
        strategy in prop_oneof![Just(Strategy::PerApplication), Just(Strategy::PerService), Just(Strategy::Hybrid)],
        kinds in proptest::collection::vec((100u32..400, any::<u8>()), 1..60),
        used in proptest::collection::vec(any::<u16>(), 0..20),
    ) {
        let request = request(strategy);
        let mut members = BTreeMap::new();
        let mut before: Option<Plan> = None;
        for (vmid, kind) in kinds {
            let vmid: Vmid = vmid.to_string().parse().unwrap();
            if members.contains_key(&vmid) {
                continue;
            }
            members.insert(vmid, kind);
            let network = network(&members, &used);
            let made = plan(&network, &request, before.as_ref()).unwrap();
            prop_assert_eq!(&made, &plan(&network, &request, before.as_ref()).unwrap());
            let now = seats(&made);
            prop_assert_eq!(now.len(), members.len());
            if let Some(before) = &before {
                for (vmid, seat) in seats(before) {
                    prop_assert_eq!(&now[&vmid], &seat, "guest {} moved", vmid);
                }
            }
            let mut vlans = BTreeSet::new();
            for (index, subnet) in made.subnets.iter().enumerate() {
                prop_assert!(vlans.insert(subnet.vlan) && subnet.subnet.contains(&subnet.gateway));
                let room = (1usize << (32 - subnet.subnet.prefix_len())) - 3;
                prop_assert!(subnet.guests.len() <= room);
                for other in &made.subnets[index + 1..] {
                    prop_assert!(!other.subnet.contains(&subnet.subnet) && !subnet.subnet.contains(&other.subnet));
                }
                for used in &network.used {
                    let ipnet::IpNet::V4(net) = used.net else { continue };
                    prop_assert!(!net.contains(&subnet.subnet) && !subnet.subnet.contains(&net), "{} on {net}", subnet.subnet);
                }
                if strategy == Strategy::Hybrid {
                    let critical = subnet.guests.iter().filter(|vmid| network.members[vmid].labels.is_critical()).count();
                    prop_assert!(critical == 0 || critical == subnet.guests.len());
                }
            }
            if strategy == Strategy::Hybrid {
                prop_assert_eq!(made.weight.beside_critical, 0);
            }
            let reread = parse_plan(&serde_json::to_string(&made).unwrap()).unwrap();
            prop_assert_eq!(&reread, &made);
            let bad: Vec<_> = check(&network, Some(&made)).into_iter().filter(|finding| finding.severity == Severity::Error && finding.code != "overlapping-subnets").collect();
            prop_assert!(bad.is_empty(), "{:?}", bad);
            before = Some(made);
        }
    }
}
