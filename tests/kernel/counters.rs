//! What is dropped is counted, logged and shown.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Read as _};
use std::net::Ipv4Addr;

use pve_public_ip::selftest::verdicts;
use pve_public_ip::selftest::verdicts::Who;

use crate::lab;
use crate::lab::{NODE, sh, write};
use crate::scene::{GATEWAY, full_node, guest_mac, ip4, ip6, living_node, scene, who};

/// Packets in each counter of drops.
fn counters() -> BTreeMap<String, u64> {
    let listing = sh("nft -j list counters table bridge pve-public-ip");
    let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
    let counters = listing["nftables"].as_array().unwrap().iter().map(|object| &object["counter"]);
    let named = counters.filter_map(|counter| Some((counter["name"].as_str()?, counter["packets"].as_u64()?)));
    named.filter(|(name, _)| name.starts_with("drop_")).map(|(name, packets)| (name.to_owned(), packets)).collect()
}

/// Packets in all of them that say why something was not let in. What is not delivered is counted for each port that
/// it would have reached.
pub(crate) fn counted() -> usize {
    let counters = counters();
    let refused = counters.iter().filter(|(name, _)| !name.starts_with("drop_inbound_")).map(|(_, packets)| packets);
    usize::try_from(refused.sum::<u64>()).unwrap()
}

#[test]
fn the_counter_says_whose_address_or_mac_was_claimed() {
    let mut lab = full_node();
    let node = scene(who(GATEWAY, 1)).node;
    let prefix = |v6: &str| Who { ip4: Ipv4Addr::new(198, 51, 100, 9), ip6: v6.parse().unwrap(), ..who([0; 6], 0) };
    let me = Who { mac: guest_mac(200, 0), ip4: lab.end("tap200i0").ip4, ip6: lab.end("tap200i0").ip6 };
    for (name, victim, kind) in [
        ("a bound guest", who(guest_mac(100, 0), 10), "bound"),
        ("a bound /29 and /64", prefix("2001:db8:100:1::99"), "bound"),
        ("a bound /29 and /56", prefix("2001:db8:100:2ff::1"), "bound"),
        ("a stopped guest", who(guest_mac(104, 0), 15), "reserved"),
        ("a guest on another node", who(guest_mac(105, 0), 16), "reserved"),
        ("nobody yet", who([0; 6], 20), "reserved"),
        ("the node", node, "infra"),
        ("the gateway", Who { mac: [0; 6], ..who(GATEWAY, 1) }, "infra"),
    ] {
        // Without those that are dropped because they cannot be looked into.
        for case in verdicts::claims(me, victim, name, victim.mac != [0; 6], true) {
            let what = if case.class.starts_with("MAC") { "mac" } else { "address" };
            let before = counters();
            assert_eq!(lab.play("tap200i0", &case.frame), [""; 0], "{}", case.class);
            let moved: Vec<_> = counters().into_iter().filter(|(name, packets)| before[name] != *packets).collect();
            let name = format!("drop_{kind}_{what}");
            assert_eq!(moved, [(name.clone(), before[&name] + 1)], "{}", case.class);
        }
    }
}

/// Packets in each element of a set that the rules fill.
pub(crate) fn filled(set: &str) -> BTreeMap<String, u64> {
    let listing = sh(&format!("nft list set bridge pve-public-ip {set}"));
    let elements = listing.split("elements = {").nth(1).map(|rest| rest.split('}').next().unwrap()).unwrap_or_default();
    let element = |text: &str| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let key = words.iter().take_while(|word| **word != "counter" && **word != "timeout" && **word != "expires");
        let packets = words.iter().skip_while(|word| **word != "packets").nth(1)?.parse().ok()?;
        Some((key.copied().collect::<Vec<_>>().join(" ").replace('"', ""), packets))
    };
    elements.split(',').filter_map(element).collect()
}

#[test]
fn what_is_dropped_is_counted_by_port() {
    let mut lab = living_node();
    let (own, unmanaged) = (who(guest_mac(100, 0), 10), Who { mac: guest_mac(200, 0), ip4: ip4(99), ip6: ip6(99) });
    for number in 0..3 {
        assert_eq!(lab.play("tap100i0", &verdicts::packet(own, ip4(11), number)), [""; 0]);
    }
    assert_eq!(lab.play("tap200i0", &verdicts::packet(unmanaged, own.ip4, 9)), [""; 0]);
    assert_eq!(filled("drop_ip4_source_by"), BTreeMap::from([("tap100i0".to_owned(), 3)]));
    assert_eq!(filled("drop_bound_address_by"), BTreeMap::from([("tap200i0".to_owned(), 1)]));
    // What the rules fill is neither drift nor lost by a repair of the rules.
    lab.ok("verify");
    sh("nft add rule bridge pve-public-ip bound_rarp counter");
    lab.ok("apply");
    assert_eq!(filled("drop_ip4_source_by"), BTreeMap::from([("tap100i0".to_owned(), 3)]));
}

/// Listens to an nflog group and prints the prefix of each message until three seconds are silent: the kernel
/// gathers messages for one.
const LISTENER: &str = r#"
import socket, struct, sys
log = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
log.bind((0, 0))
def config(command, family, group):
    body = struct.pack("=BBH", family, 0, socket.htons(group)) + struct.pack("=HHB3x", 5, 1, command)
    log.send(struct.pack("=IHHII", 16 + len(body), 4 << 8 | 1, 5, 1, 0) + body)
    answer = log.recv(4096)
    assert struct.unpack_from("=i", answer, 16)[0] == 0, answer
config(1, 0, int(sys.argv[1]))
print("ready", flush=True)
log.settimeout(3)
try:
    while True:
        data, start = log.recv(65536), 0
        while start + 16 <= len(data):
            end, at = start + struct.unpack_from("=I", data, start)[0], start + 20
            while at + 4 <= end:
                length, kind = struct.unpack_from("=HH", data, at)
                if kind == 10:
                    print(data[at + 4:at + length - 1].decode(), flush=True)
                at += length + 3 & ~3 or 4
            start = end + 3 & ~3
except TimeoutError:
    pass
"#;

#[test]
fn what_is_dropped_goes_to_the_nflog_group_that_the_node_names() {
    let mut lab = living_node();
    let file = lab.path("etc/pve/public-ip/nodes").join(format!("{NODE}.json"));
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    write(&file.to_string_lossy(), r#"{"version": 1, "log_group": 121}"#);
    assert!(lab.run("verify").out.contains("the rules are missing or were changed"));
    lab.ok("apply");
    lab.ok("verify");
    let script = lab.path("listen.py");
    write(&script.to_string_lossy(), LISTENER);
    let mut listener = lab::background(&format!("python3 {} 121", script.display()));
    let mut heard = std::io::BufReader::new(listener.stdout.take().unwrap());
    let mut text = String::new();
    heard.read_line(&mut text).unwrap();
    assert_eq!(text, "ready\n", "no answer from nfnetlink_log");
    for number in 0..100 {
        lab.end("tap100i0").wire.send(&verdicts::packet(who(guest_mac(100, 0), 10), ip4(11), number));
    }
    let unmanaged = Who { mac: guest_mac(200, 0), ip4: ip4(99), ip6: ip6(99) };
    assert_eq!(lab.play("tap200i0", &verdicts::packet(unmanaged, ip4(10), 100)), [""; 0]);
    heard.read_to_string(&mut text).unwrap();
    assert!(listener.wait().unwrap().success());
    let count = |reason: &str| text.lines().filter(|line| *line == reason).count();
    let spoofs = count("drop_ip4_source");
    assert!((10..=40).contains(&spoofs), "{spoofs} of 100 were logged, which are too many or too few");
    assert_eq!(count("drop_bound_address"), 1, "{text}");
    // Hooks know these rules for the node's own, and without the group they go.
    lab.ok("hook 100 pre-start");
    lab.ok("verify");
    std::fs::remove_file(&file).unwrap();
    lab.ok("apply");
    assert!(!sh("nft list ruleset").contains("group 121"));
    lab.ok("verify");
}

#[test]
fn status_and_metrics_show_what_the_rules_have_counted() {
    let mut lab = living_node();
    let own = who(guest_mac(100, 0), 10);
    for number in 0..3 {
        assert_eq!(lab.play("tap100i0", &verdicts::packet(own, ip4(11), number)), [""; 0]);
    }
    let said = lab.ok("status");
    for line in [
        "node n1: the kernel is as it should be, no guard runs\n",
        "| public | generic-bridged | vmbr0  | [##########] 2 of 2 IPv4",
        "| 100   | net0 | tap100i0 | 02:00:00:00:00:64 | 203.0.113.10 2001:db8:0:1::10 | protected |\n",
        "| 100 (tap100i0) | ? | 3 |",
        "| 200 (tap200i0)        | 02:00:00:00:00:c8 | ",
    ] {
        let said = said
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").replace('│', "|"))
            .collect::<Vec<_>>();
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.iter().any(|found| found.contains(&line)), "`{line}` is not in\n{}", said.join("\n"));
    }
    let data: serde_json::Value = serde_json::from_str(&lab.ok("status --output-format json")).unwrap();
    assert_eq!((&data["in_line"], &data["differences"]), (&serde_json::json!(true), &serde_json::json!(0)));
    assert_eq!(data["dropped"][0]["packets"], 3);
    assert_eq!(data["reasons"]["drop_ip4_source"]["packets"], 3);
    let file = lab.path("metrics.prom");
    let said = lab.ok(&format!("metrics --output {}", file.display()));
    assert!(said.contains(&format!("metrics written to {}", file.display())), "{said}");
    let text = std::fs::read_to_string(&file).unwrap();
    for sample in [
        "pve_public_ip_in_line 1",
        "pve_public_ip_guest_interfaces{state=\"protected\"} 2",
        "pve_public_ip_dropped_packets_total{reason=\"ip4_source\"} 3",
        "pve_public_ip_port_dropped_packets_total{port=\"tap100i0\",vmid=\"100\",reason=\"ip4_source\"} 3",
        "pve_public_ip_guard_up 0",
    ] {
        assert!(text.lines().any(|line| line == sample), "`{sample}` is not in\n{text}");
    }
    // Each metric is described once, before its samples, and nothing is said twice.
    let mut seen = std::collections::HashSet::new();
    let mut described = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            described = rest.split(' ').next().unwrap().to_owned();
            assert_eq!(rest.ends_with(" counter"), described.ends_with("_total"), "{line}");
        } else if !line.starts_with('#') {
            assert_eq!(line.split(['{', ' ']).next().unwrap(), described);
        }
        assert!(seen.insert(line.rsplit_once(' ').unwrap().0.to_owned()) || line.starts_with('#'), "{line} twice");
    }
    // What is not as it should be is said.
    sh("nft delete element bridge pve-public-ip port_mac { tap100i0 . 02:00:00:00:00:64 }");
    let said = lab.ok("status");
    assert!(said.starts_with("node n1: 1 DIFFERENCE (`pve-public-ip verify` names it)"), "{said}");
    assert!(said.contains(" NOT PROTECTED "), "{said}");
    sh("nft delete table bridge pve-public-ip");
    let said = lab.ok("status");
    assert_eq!(said.matches("NOT PROTECTED").count(), 2, "{said}");
}
