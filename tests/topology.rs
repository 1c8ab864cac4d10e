//! `topology` on trees of files alone, without a kernel: one directory a case under `tests/golden/topology`, with `etc` as
//! the node has it, the drawing in its three forms, and what `--check` finds.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use proptest::prelude::*;
use pve_public_ip::guest::GuestConfig;
use pve_public_ip::interfaces::Interfaces;
use pve_public_ip::model::GuestKind;
use pve_public_ip::plan::{Inputs, Located};
use pve_public_ip::registry::Registry;
use pve_public_ip::topology::{Edge, Item, Kind, Map, check, dot, draw, mermaid, text};
use serde_json::Value;

fn cases() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/topology");
    let mut cases: Vec<PathBuf> = fs::read_dir(all).unwrap().map(|case| case.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 6, "only {} cases", cases.len());
    cases
}

fn run(case: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pve-public-ip"));
    command.env_clear().env("LC_ALL", "C.UTF-8").arg("--root").arg(case).arg("topology").args(arguments);
    command.output().unwrap()
}

/// What the program prints; where the tree lies is nobody's business.
fn printed(case: &Path, arguments: &[&str]) -> String {
    let output = run(case, arguments);
    assert!(output.stderr.is_empty(), "{}: {}", case.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().replace(&case.display().to_string(), "")
}

#[test]
fn nodes_are_drawn_and_checked() {
    let mut wrong = String::new();
    for case in cases() {
        for (file, arguments) in [
            ("expected.txt", &[][..]),
            ("expected.mmd", &["--format", "mermaid"]),
            ("expected.dot", &["--format", "dot"]),
            ("check.txt", &["--check"]),
        ] {
            let found = printed(&case, arguments);
            if fs::read_to_string(case.join(file)).unwrap_or_default() != found {
                wrong += &format!("{} should be\n{found}\n", case.join(file).display());
            }
        }
        let check = run(&case, &["--check"]);
        let has_flaws = !fs::read_to_string(case.join("check.txt")).unwrap().starts_with("nothing found");
        assert_eq!(check.status.code(), Some(if has_flaws { 3 } else { 0 }), "{}", case.display());
        assert_eq!(run(&case, &[]).status.code(), Some(0), "{}", case.display());
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Every kind of flaw is in a case.
#[test]
fn every_flaw_has_a_case() {
    let mut found = BTreeSet::new();
    for case in cases() {
        let data: Value = serde_json::from_str(&printed(&case, &["--check", "--output-format", "json"])).unwrap();
        let text = printed(&case, &["--check"]);
        for flaw in data["flaws"].as_array().unwrap() {
            let word = |key: &str| flaw[key].as_str().unwrap().to_owned();
            let told = format!("{}: {}\n  hint: {}\n", word("code"), word("sentence"), word("remedy"));
            assert!(text.contains(&told), "{told}");
            found.insert(word("code"));
        }
    }
    let codes = [
        "gateway-outside",
        "host-bits",
        "overlapping-subnets",
        "pool-elsewhere",
        "registry-broken",
        "same-address",
        "same-mac",
    ];
    assert_eq!(found, codes.map(str::to_owned).into());
}

#[test]
fn json_has_what_is_drawn() {
    for case in cases() {
        let data: Value = serde_json::from_str(&printed(&case, &["--output-format", "json"])).unwrap();
        let (items, edges) = (data["items"].as_array().unwrap(), data["edges"].as_array().unwrap());
        let drawn = printed(&case, &["--format", "mermaid"]);
        assert_eq!(nodes_and_edges(&drawn), Ok((items.len(), edges.len())), "{}", case.display());
        assert_eq!(data["node"], "n1");
    }
}

/// Graphviz itself reads what is meant for it, and finds as many nodes and edges as there are.
#[test]
fn graphviz_reads_the_graphs() {
    for case in cases() {
        let data: Value = serde_json::from_str(&printed(&case, &["--output-format", "json"])).unwrap();
        let svg = svg(&printed(&case, &["--format", "dot"]));
        let count = |class: &str| svg.matches(&format!("<g id=\"{class}")).count();
        let there = |key: &str| data[key].as_array().unwrap().len();
        assert_eq!((count("node"), count("edge")), (there("items"), there("edges")), "{}", case.display());
    }
    let hostile = cases().into_iter().find(|case| case.ends_with("names")).unwrap();
    let svg = svg(&printed(&hostile, &["--format", "dot"]));
    assert!(svg.contains("guest 100 a&quot;b]&lt;c&gt;&amp;amp;d#e;f`g|h{i}\\n\\j%%"), "{svg}");
}

fn svg(graph: &str) -> String {
    let mut child = Command::new("dot")
        .arg("-Tsvg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run dot ({error}); `make setup` installs graphviz"));
    child.stdin.take().unwrap().write_all(graph.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    // It cannot measure letters that no font here has; that is no complaint about the graph.
    let serious: Vec<&str> = complaint.lines().filter(|line| !line.contains("font") && !line.is_empty()).collect();
    assert!(output.status.success() && serious.is_empty(), "{complaint}\n{graph}");
    String::from_utf8(output.stdout).unwrap()
}

/// Mermaid has no parser in Debian. This takes only what it writes down for a flowchart, in quotes nothing but harmless
/// characters and `#NUMBER;`, and counts nodes and edges.
fn nodes_and_edges(chart: &str) -> Result<(usize, usize), String> {
    let mut lines = chart.lines();
    if lines.next() != Some("flowchart TD") || !chart.ends_with('\n') {
        return Err("no head, or no end".to_owned());
    }
    let (mut nodes, mut edges) = (0, 0);
    for line in lines.filter(|line| !line.starts_with("%% ")) {
        let complain = |what: &str| format!("{what}: {line}");
        let rest = line.strip_prefix("    n").ok_or_else(|| complain("no node"))?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(|| complain("no end of a name"))?;
        let (number, rest) = rest.split_at(end);
        let number: usize = number.parse().map_err(|_| complain("no number"))?;
        if let Some(arrow) = rest.strip_prefix(" -->") {
            let to = match arrow.strip_prefix("|\"") {
                Some(label) => {
                    let (label, to) = label.split_once("\"|").ok_or_else(|| complain("an open label"))?;
                    is_harmless(label).then_some(to).ok_or_else(|| complain("a label"))?
                }
                None => arrow,
            };
            let to: usize =
                to.strip_prefix(" n").and_then(|to| to.parse().ok()).ok_or_else(|| complain("no target"))?;
            if number >= nodes || to >= nodes {
                return Err(complain("a node that is not there"));
            }
            edges += 1;
        } else {
            let shapes = [("([\"", "\"])"), ("[\"", "\"]"), ("(\"", "\")")];
            let inside = shapes.iter().find_map(|(open, close)| rest.strip_prefix(open)?.strip_suffix(close));
            let inside = inside.ok_or_else(|| complain("no shape"))?;
            if number != nodes || edges > 0 || !inside.split("<br/>").all(is_harmless) {
                return Err(complain("a node"));
            }
            nodes += 1;
        }
    }
    Ok((nodes, edges))
}

fn is_harmless(text: &str) -> bool {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('#') {
        let Some((number, after)) = after.split_once(';') else { return false };
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || !plain(before) {
            return false;
        }
        rest = after;
    }
    plain(rest)
}

fn plain(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || " .,:/-_()".contains(c))
}

/// Quotes are closed on the line on which they are opened, and nothing outside of them is not of this program.
fn dot_is_closed(graph: &str) -> bool {
    graph.lines().all(|line| {
        let mut inside = false;
        let mut letters = line.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' if inside => drop(letters.next()),
                '"' => inside = !inside,
                letter if !inside && !letter.is_ascii() => return false,
                _ => {}
            }
        }
        !inside
    })
}

/// Guests with NICs anywhere, on bridges that may have an uplink, an address of the node, both or neither.
fn any_node() -> impl Strategy<Value = (Inputs, Interfaces)> {
    // The fifth is VLAN 7 of the first, if that is no VLAN-aware one.
    const NAMES: [&str; 5] = ["vmbr0", "vmbr1", "vmbr2", "vmbr3", "vmbr0v7"];
    let nic = (0..NAMES.len(), prop_oneof![Just(""), Just(",tag=7"), Just(",tag=8")]);
    let guests = proptest::collection::vec(proptest::collection::vec(nic, 0..4), 0..7);
    (guests, proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), NAMES.len())).prop_map(
        |(guests, bridges)| {
            let mut interfaces = Interfaces::default();
            for (number, (_, uplink, address)) in bridges.into_iter().enumerate().filter(|(_, (there, ..))| *there) {
                let ports = if uplink { format!("eno{number}") } else { "none".to_owned() };
                let address = if address { format!(" address 10.{number}.0.1/24\n") } else { String::new() };
                let name = NAMES[number];
                interfaces.read(&format!("iface {name} inet manual\n bridge-ports {ports}\n{address}"));
            }
            let place = |nics: Vec<(usize, &str)>| {
                let line = |(id, (bridge, tag)): (usize, (usize, &str))| {
                    format!("net{id}: virtio,bridge={}{tag}\n", NAMES[bridge])
                };
                let text: String = nics.into_iter().enumerate().map(line).collect();
                Located { node: "n1".parse().unwrap(), config: GuestConfig::parse(GuestKind::Qemu, text.as_bytes()) }
            };
            let guests = guests
                .into_iter()
                .enumerate()
                .map(|(number, nics)| ((100 + number).to_string().parse().unwrap(), place(nics)));
            let mut inputs = Inputs::new("n1".parse().unwrap(), Registry::default(), guests.collect());
            inputs.links = interfaces.links();
            (inputs, interfaces)
        },
    )
}

proptest! {
    /// Also where guests lead round in circles: everything is drawn, once.
    #[test]
    fn every_guest_and_nic_is_drawn_once((inputs, interfaces) in any_node()) {
        let map = draw(&inputs, &interfaces);
        let guests = map.items.iter().filter(|item| item.kind == Kind::Guest).count();
        prop_assert_eq!(guests, inputs.guests.len());
        let nics: usize = inputs.guests.values().map(|place| place.config.nics.len()).sum();
        prop_assert_eq!(map.edges.iter().filter(|edge| edge.nic.is_some()).count(), nics);
        let titles: BTreeSet<&str> = map.items.iter().map(|item| item.title.as_str()).collect();
        prop_assert_eq!(titles.len(), map.items.len());
        let tree = text(&map, true);
        for title in titles {
            prop_assert!(tree.contains(title), "{} is not in\n{}", title, tree);
        }
        prop_assert_eq!(draw(&inputs, &interfaces), map);
        let _ = check(&inputs, &interfaces);
    }

    #[test]
    fn no_name_breaks_out(names in proptest::collection::vec(any::<String>(), 1..5), nic in any::<String>()) {
        let item = |title: &String| Item { kind: Kind::Guest, title: title.clone(), details: vec![title.clone()] };
        let items: Vec<Item> = names.iter().map(item).collect();
        let edges: Vec<Edge> = (1..items.len()).map(|to| Edge { from: 0, to, nic: Some(nic.clone()) }).collect();
        let map = Map { items, edges };
        prop_assert_eq!(nodes_and_edges(&mermaid(&map)), Ok((map.items.len(), map.edges.len())));
        let graph = dot(&map);
        prop_assert!(dot_is_closed(&graph), "{}", graph);
        prop_assert_eq!(graph.lines().count(), 3 + map.items.len() + map.edges.len());
        prop_assert_eq!(text(&map, true).lines().count(), 2 * map.items.len() + map.edges.len());
        prop_assert!(text(&map, false).chars().all(|c| !c.is_control() || c == '\n'));
    }
}
