//! The product on a real kernel: bridges and guests in network namespaces, the binary called as on a node, crafted
//! frames from raw sockets, and a look at who received them.
//!
//! Needs root, `nft`, `ip` and `bridge`; a missing one is a failure, never a skipped test. The namespaces have no
//! names and hang on file descriptors of this process, so nothing is left behind, not even by a killed run.

#![allow(clippy::disallowed_methods, reason = "a test reads what was written")]

#[cfg(test)]
mod kernel {
    use std::collections::{BTreeMap, BTreeSet};
    use std::io::{BufRead as _, Read as _, Write as _};
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::{Duration, Instant};

    use pve_public_ip::plan::Step;
    use pve_public_ip::ruleset::{SetId, Table};
    use pve_public_ip::selftest::frames::{self, Mac};
    use pve_public_ip::selftest::verdicts;

    use lab::{Lab, NODE, OTHER_NODE, link_local, link_mac, nft, sh, text, try_sh, write};
    use verdicts::{Case, Scene, Who};

    mod lab;

    const fn guest_mac(vmid: u8, nic: u8) -> Mac {
        [2, 0, 0, 0, nic, vmid]
    }

    const fn ip4(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, last)
    }

    /// `203.0.113.10` goes with `2001:db8:0:1::10`.
    fn ip6(last: u8) -> Ipv6Addr {
        format!("2001:db8:0:1::{last}").parse().unwrap()
    }

    fn who(mac: Mac, last: u8) -> Who {
        Who { mac, ip4: ip4(last), ip6: ip6(last) }
    }

    const GATEWAY: Mac = [2, 0, 0, 0, 0xff, 1];
    const POOL: &str =
        "pool create public --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.1 --gateway6 2001:db8:0:1::1";

    /// A node with an address of each family on its bridge, and the provider's gateway on the uplink.
    fn node_with_uplink() -> Lab {
        let mut lab = Lab::new();
        sh("ip addr add 203.0.113.250/24 dev vmbr0; ip addr add 2001:db8:0:1::250/64 dev vmbr0 nodad");
        lab.plug("eno1", "vmbr0", GATEWAY);
        lab
    }

    /// Every kind of port: bound ones (tap, second NIC, container, behind the NIC firewall), unmanaged ones, the
    /// uplink; and assignments of a guest that is stopped and of one on another node.
    fn full_node() -> Lab {
        let mut lab = node_with_uplink();
        let nic = |nic: u8, vmid: u8, rest: &str| {
            format!("net{nic}: virtio={},bridge=vmbr0{rest}\n", text(guest_mac(vmid, nic)))
        };
        lab.guest(NODE, "qemu-server", 100, &(nic(0, 100, "") + &nic(1, 100, "")));
        lab.guest(NODE, "qemu-server", 101, &nic(0, 101, ""));
        let container =
            |vmid: u8| format!("net0: name=eth0,bridge=vmbr0,hwaddr={},type=veth\n", text(guest_mac(vmid, 0)));
        lab.guest(NODE, "lxc", 102, &container(102));
        lab.guest(NODE, "qemu-server", 103, &nic(0, 103, ",firewall=1"));
        lab.guest(NODE, "qemu-server", 104, &nic(0, 104, ""));
        lab.guest(OTHER_NODE, "qemu-server", 105, &nic(0, 105, ""));
        lab.guest(NODE, "qemu-server", 200, &nic(0, 200, ""));
        lab.guest(NODE, "lxc", 201, &container(201));
        lab.guest(NODE, "qemu-server", 202, &nic(0, 202, ",firewall=1"));

        for (port, vmid, nic) in [
            ("tap100i0", 100, 0),
            ("tap100i1", 100, 1),
            ("tap101i0", 101, 0),
            ("veth102i0", 102, 0),
            ("tap200i0", 200, 0),
            ("veth201i0", 201, 0),
        ] {
            lab.plug(port, "vmbr0", guest_mac(vmid, nic));
        }
        lab.plug_behind_firewall(103, "vmbr0", guest_mac(103, 0));
        lab.plug_behind_firewall(202, "vmbr0", guest_mac(202, 0));
        lab.listen_on_bridge();

        let single: String = (10..=20).map(|last| format!(" {}/32 {}/128", ip4(last), ip6(last))).collect();
        lab.ok(&format!("{POOL} 198.51.100.0/24 2001:db8:100::/48{single}"));
        lab.ok("pool create off-link --profile generic-bridged --bridge vmbr0 --gateway4 100.64.0.1 --gateway6 fe80::1 203.0.113.99/32");
        lab.ok("assign 100 203.0.113.10 2001:db8:0:1::10 198.51.100.8/29 2001:db8:100:1::/64 2001:db8:100:200::/56");
        for (guest, last) in [("100 --net 1", 12), ("101", 11), ("102", 13), ("103", 14), ("104", 15), ("105", 16)] {
            lab.ok(&format!("assign {guest} {} {}", ip4(last), ip6(last)));
        }
        lab.ok("apply");
        for (port, last) in [("tap100i0", 10), ("tap100i1", 12), ("tap101i0", 11), ("veth102i0", 13), ("tap103i0", 14)]
        {
            lab.bound(port, ip4(last), ip6(last));
        }
        lab.settle();
        lab.ok("verify");
        lab
    }

    fn scene(victim: Who) -> Scene {
        let stranger = Who {
            mac: [2, 0, 0, 0, 0xee, 0xee],
            ip4: Ipv4Addr::new(198, 18, 0, 9),
            ip6: "2001:db8:eeee::9".parse().unwrap(),
        };
        let node = Who { mac: link_mac("vmbr0"), ip4: ip4(250), ip6: ip6(250) };
        Scene { gateway: who(GATEWAY, 1), node, victim, stranger }
    }

    /// Prints a line of figures, not by a macro that the test harness captures: they are worth reading when all is well.
    fn say(line: &str) {
        std::io::stderr().write_all(format!("kernel: {line}\n").as_bytes()).unwrap();
    }

    /// What was played, and what came out otherwise than the tables say.
    #[derive(Default)]
    struct Tally {
        drops: usize,
        passes: usize,
        wrong: Vec<String>,
    }

    impl Tally {
        fn play(&mut self, lab: &mut Lab, sender: &str, cases: &[Case]) {
            for case in cases {
                let seen = lab.play(sender, &case.frame);
                if case.passes {
                    self.passes += 1;
                    // A frame of the uplink is for a guest, every other one at least for the provider or a guest.
                    if seen.iter().all(|port| port == "vmbr0") {
                        self.wrong.push(format!("lost, from {sender}: {}", case.class));
                    }
                } else {
                    self.drops += 1;
                    if !seen.is_empty() {
                        self.wrong.push(format!("LEAKED, from {sender} to {}: {}", seen.join(", "), case.class));
                    }
                }
            }
        }

        fn conclude(self, what: &str) {
            let line = format!(
                "{what}: {} frames, {} had to be dropped, {} had to pass, {} came out wrong",
                self.drops + self.passes,
                self.drops,
                self.passes,
                self.wrong.len()
            );
            say(&line);
            assert!(self.drops + self.passes > 0, "nothing was played");
            assert!(self.wrong.is_empty(), "{line}\n{}", self.wrong.join("\n"));
        }
    }

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
    fn counted() -> usize {
        let counters = counters();
        let refused =
            counters.iter().filter(|(name, _)| !name.starts_with("drop_inbound_")).map(|(_, packets)| packets);
        usize::try_from(refused.sum::<u64>()).unwrap()
    }

    /// The link-local address of the bridge, made of the MAC that it had when it came up.
    fn own_link_local() -> Ipv6Addr {
        let shown = sh("ip -6 -o addr show dev vmbr0 scope link");
        let address = shown.split_whitespace().skip_while(|word| *word != "inet6").nth(1);
        address.and_then(|address| address.split('/').next()).expect("a link-local address").parse().unwrap()
    }

    fn play_bound_ports(lab: &mut Lab, tally: &mut Tally) {
        for (port, mac, last) in [
            ("tap100i0", guest_mac(100, 0), 10),
            ("tap100i1", guest_mac(100, 1), 12),
            ("tap101i0", guest_mac(101, 0), 11),
            ("veth102i0", guest_mac(102, 0), 13),
            ("tap103i0", guest_mac(103, 0), 14),
        ] {
            let me = who(mac, last);
            // The first NIC poses as the second of the same guest and the other way round; the rest as the first.
            let victim = if port == "tap100i0" { who(guest_mac(100, 1), 12) } else { who(guest_mac(100, 0), 10) };
            tally.play(lab, port, &verdicts::bound_port(me, &scene(victim)));
        }
        let mac = guest_mac(100, 0);
        for (v4, v6) in [
            ("198.51.100.8", "2001:db8:100:1::"),
            ("198.51.100.15", "2001:db8:100:1:ffff::9"),
            ("198.51.100.11", "2001:db8:100:2ff::1"),
        ] {
            let me = Who { mac, ip4: v4.parse().unwrap(), ip6: v6.parse().unwrap() };
            tally.play(lab, "tap100i0", &verdicts::own_prefix(me, &scene(who(guest_mac(101, 0), 11))));
            // What is one guest's is not the other's.
            let thief = Who { mac: guest_mac(101, 0), ..me };
            let mut stolen = verdicts::own_prefix(thief, &scene(me));
            for case in &mut stolen {
                case.passes = false;
            }
            tally.play(lab, "tap101i0", &stolen);
        }
    }

    fn play_other_ports(lab: &mut Lab, tally: &mut Tally) {
        let node = scene(who(GATEWAY, 1)).node;
        let routed =
            |v4: &str, v6: &str| Who { mac: guest_mac(100, 0), ip4: v4.parse().unwrap(), ip6: v6.parse().unwrap() };
        // Name, whom, with a MAC of its own, bound on this node (then not even the uplink may).
        let victims = [
            ("a bound guest", who(guest_mac(100, 0), 10), true, true),
            ("a bound container", who(guest_mac(102, 0), 13), true, true),
            ("a guest behind its firewall", who(guest_mac(103, 0), 14), true, true),
            ("a bound prefix", routed("198.51.100.9", "2001:db8:100:1::99"), false, true),
            ("another bound prefix", routed("198.51.100.15", "2001:db8:100:2ff::1"), false, true),
            ("a stopped guest", who(guest_mac(104, 0), 15), true, false),
            ("a guest on another node", who(guest_mac(105, 0), 16), true, false),
            ("nobody yet", who([0; 6], 20), false, false),
            ("nobody's prefix", routed("198.51.100.200", "2001:db8:100:ffff::1"), false, false),
            ("the node", node, true, false),
        ];
        for (port, mac) in [
            ("tap200i0", guest_mac(200, 0)),
            ("veth201i0", guest_mac(201, 0)),
            ("tap202i0", guest_mac(202, 0)),
            ("eno1", GATEWAY),
        ] {
            let (is_uplink, end) = (port == "eno1", lab.end(port));
            let me = Who { mac, ip4: end.ip4, ip6: end.ip6 };
            tally.play(lab, port, &verdicts::unbound_port(me, &scene(who(guest_mac(100, 0), 10)), is_uplink));
            for (name, victim, with_mac, bound) in victims {
                // The node's own MAC from outside would be the node's own frame come back: not sent.
                let with_mac = with_mac && !(is_uplink && name == "the node");
                tally.play(lab, port, &verdicts::claims(me, victim, name, with_mac, is_uplink && !bound));
                if bound && with_mac {
                    tally.play(lab, port, &verdicts::link_local_claims(me, victim, name));
                }
            }
            if !is_uplink {
                let gateway = Who { mac, ..who(GATEWAY, 1) };
                tally.play(lab, port, &verdicts::claims(me, gateway, "the gateway", false, false));
                let far = Who { ip4: Ipv4Addr::new(100, 64, 0, 1), ip6: "fe80::1".parse().unwrap(), mac };
                tally.play(lab, port, &verdicts::claims(me, far, "a gateway off the pool's networks", false, false));
                let local = Who { ip6: own_link_local(), ..node };
                tally.play(lab, port, &verdicts::claims(me, local, "the node's link-local address", false, false));
                tally.play(lab, port, &verdicts::foreign_mac_inside(me, node, "the node"));
            }
        }
    }

    #[test]
    fn a_bound_port_sends_what_is_its_own_and_nothing_else() {
        let mut lab = full_node();
        let mut tally = Tally::default();
        let before = counted();
        play_bound_ports(&mut lab, &mut tally);
        // The bridge drops a multicast source by itself: once for each of the five ports.
        assert_eq!(counted() - before, tally.drops - 5, "every dropped frame is counted, and once");
        tally.conclude("bound ports");
    }

    #[test]
    fn every_other_port_sends_everything_but_what_is_protected() {
        let mut lab = full_node();
        let mut tally = Tally::default();
        let before = counted();
        play_other_ports(&mut lab, &mut tally);
        assert_eq!(counted() - before, tally.drops, "every dropped frame is counted, and once");
        tally.conclude("other ports");
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
    fn filled(set: &str) -> BTreeMap<String, u64> {
        let listing = sh(&format!("nft list set bridge pve-public-ip {set}"));
        let elements =
            listing.split("elements = {").nth(1).map(|rest| rest.split('}').next().unwrap()).unwrap_or_default();
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
        assert!(lab.run("verify").stdout.contains("the rules are missing or were changed"));
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

    #[test]
    fn what_explain_says_is_what_the_kernel_does() {
        let mut lab = living_node();
        let own = who(guest_mac(100, 0), 10);
        let unmanaged = Who { mac: guest_mac(200, 0), ip4: ip4(99), ip6: ip6(99) };
        let victim = who(guest_mac(101, 0), 11);
        // A capture of everything that guest 200 may try, and of everything that guest 100 may send.
        for (port, cases) in [
            ("tap200i0", verdicts::claims(unmanaged, victim, "a bound guest", true, false)),
            ("tap100i0", verdicts::bound_port(own, &scene(victim))),
        ] {
            let mut capture = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1].map(u32::to_le_bytes).concat();
            for case in &cases {
                let length = u32::try_from(case.frame.len()).unwrap();
                capture.extend([0, 0, length, length].map(u32::to_le_bytes).concat());
                capture.extend(&case.frame);
            }
            let file = lab.path("frames.pcap");
            std::fs::File::create(&file).unwrap().write_all(&capture).unwrap();
            let said = lab.ok(&format!("explain --port {port} --pcap {} --output-format json", file.display()));
            let said: serde_json::Value = serde_json::from_str(&said).unwrap();
            let frames = said["frames"].as_array().unwrap();
            assert_eq!(frames.len(), cases.len());
            for (case, frame) in cases.iter().zip(frames) {
                let arrives = lab.play(port, &case.frame).iter().any(|to| to != "vmbr0");
                let verdict = frame["verdict"].as_str().unwrap();
                let agrees = verdict == "either" || (verdict == "pass") == arrives;
                assert!(agrees, "{port}: {}: explained as {frame}, in the kernel it arrives: {arrives}", case.class);
            }
        }
        for (arguments, says) in [
            (
                "--port tap200i0 --src 203.0.113.10 --mac 02:00:00:00:00:c8 --claim neighbour",
                "from tap200i0 (guest 200): port without bindings\n\
                 ARP from 02:00:00:00:00:c8 to ff:ff:ff:ff:ff:ff, 42 bytes\n  \
                 is dropped: The address belongs to a guest that is bound to another port.\n",
            ),
            (
                "--port tap100i0 --src 203.0.113.10",
                "from tap100i0 (guest 100): bound port, 02:00:00:00:00:64 with 203.0.113.10 2001:db8:0:1::10 \
                 fe80::ff:fe00:64\nIPv4 from 02:00:00:00:00:64 to ff:ff:ff:ff:ff:ff, 46 bytes\n  passes\n",
            ),
            (
                "--port eno1 --to tap100i0 --hex 02000000006402000000ff010800450000200000000040110000c0000201cb00710b0fa00fa1000c000064617461",
                "from eno1: uplink\n\
                 to tap100i0 (guest 100): bound port, 02:00:00:00:00:64 with 203.0.113.10 2001:db8:0:1::10 \
                 fe80::ff:fe00:64\nIPv4 from 02:00:00:00:ff:01 to 02:00:00:00:00:64, 46 bytes\n  \
                 is dropped there: The packet is for an address that is not the guest's.\n",
            ),
        ] {
            assert_eq!(lab.ok(&format!("explain {arguments}")), says);
        }
        for (arguments, says) in [
            ("--port tap200i0 --src 203.0.113.10", "hint: say which MAC it sends with: --mac MAC"),
            ("--port tap200i0 --hex 0g", "error: --hex is not a frame in hexadecimal digits"),
            ("--port tap200i0 --pcap /dev/null", "it is no pcap file"),
        ] {
            let ran = lab.run(&format!("explain {arguments}"));
            assert!(ran.code == 1 && ran.stderr.contains(says), "{}", ran.stderr);
        }
    }

    #[test]
    fn the_guard_counts_or_keeps_back_what_the_provider_does_not_know() {
        let lab = living_node();
        let me = Who { mac: guest_mac(200, 0), ip4: Ipv4Addr::new(192, 0, 2, 200), ip6: ip6(99) };
        let seen = format!("tap200i0 . {}", text(me.mac));
        let own = who(guest_mac(100, 0), 10);
        let mut number = 0;
        // An honest frame that comes later tells that the first one is not on its way any more.
        let mut reaches_provider = |lab: &Lab, port: &str, sender: Who| {
            number += 1;
            let wire = &lab.end("eno1").wire;
            wire.drain();
            let (asked, fence) = (
                verdicts::packet(sender, sender.ip4, number),
                verdicts::packet(who(guest_mac(101, 0), 11), ip4(11), number),
            );
            lab.end(port).wire.send(&asked);
            lab.end("tap101i0").wire.send(&fence);
            let started = Instant::now();
            let mut seen = false;
            loop {
                match wire.receive(Duration::from_millis(100)) {
                    Some(frame) if frame == fence => return seen,
                    Some(frame) => seen |= frame == asked,
                    None => assert!(started.elapsed() < Duration::from_secs(60), "the fence did not arrive"),
                }
            }
        };
        // The default of a generic pool.
        let mut counted = filled("unregistered").get(&seen).copied().unwrap_or_default();
        for _ in 0..3 {
            assert!(reaches_provider(&lab, "tap200i0", me));
            let now = filled("unregistered");
            assert_eq!(now.keys().collect::<Vec<_>>(), [&seen]);
            assert!(now[&seen] > counted, "{now:?} after {counted}");
            counted = now[&seen];
        }
        // One port that sends with a new MAC in each frame takes its own room, not that of others.
        sh(
            "ip link add tap201i0 type veth peer name flood; ip link set flood up; ip link set tap201i0 master vmbr0 up",
        );
        let settled = || sh("bridge link show dev tap201i0").contains("state forwarding");
        let started = Instant::now();
        while !settled() {
            assert!(started.elapsed() < Duration::from_secs(60), "the port of the flood does not come up");
        }
        let flood = lab::Wire::open("flood");
        let of_flood = || filled("unregistered").keys().filter(|key| key.starts_with("tap201i0 ")).count();
        for number in 0..500_u16 {
            let [high, low] = number.to_be_bytes();
            flood.send(&frames::ether(frames::BROADCAST, [6, 0, 0, 0, high, low], 0x88b6, b"flood"));
        }
        let other = Who { mac: [6, 1, 1, 1, 1, 1], ..me };
        assert!(reaches_provider(&lab, "tap200i0", other));
        assert_eq!(of_flood(), 32);
        let key = format!("tap200i0 . {}", text(other.mac));
        assert!(filled("unregistered").contains_key(&key), "{:?}", filled("unregistered"));
        sh("ip link del tap201i0; nft flush set bridge pve-public-ip unregistered");
        let said = lab.ok("pool set public --uplink-guard enforce --yes");
        let note =
            format!("note: guest 200 net0 does not reach the provider: no pool knows its MAC {}\n", text(me.mac));
        assert!(said.contains(&note), "{said}");
        assert!(!reaches_provider(&lab, "tap200i0", me));
        assert_eq!(filled("drop_unregistered_mac_by"), BTreeMap::from([("tap200i0".to_owned(), 1)]));
        lab.ok(&format!("pool set public --allow-mac {}", text(me.mac)));
        assert!(reaches_provider(&lab, "tap200i0", me));
        lab.ok(&format!("pool set public --forbid-mac {}", text(me.mac)));
        assert!(!reaches_provider(&lab, "tap200i0", me));
        lab.ok("pool set public --uplink-guard off");
        assert!(reaches_provider(&lab, "tap200i0", me));
        // An assigned guest's MAC is known from the moment of its start, without any `apply`.
        lab.ok("pool set public --uplink-guard enforce --yes");
        sh("nft delete element bridge pve-public-ip uplink_registered { eno1 . 02:00:00:00:00:64 }");
        sh("nft delete element bridge pve-public-ip registered_mac { 02:00:00:00:00:64 }");
        assert!(!reaches_provider(&lab, "tap100i0", own));
        lab.ok("hook 100 pre-start");
        assert!(reaches_provider(&lab, "tap100i0", own));
        lab.ok("apply");
        assert!(reaches_provider(&lab, "tap100i0", own));
    }

    #[test]
    fn br_netfilter_makes_no_difference() {
        let mut lab = full_node();
        // Proxmox VE's firewall loads it. It looks at every frame once more, behind our rules.
        try_sh("modprobe br_netfilter");
        for name in ["iptables", "ip6tables", "arptables"] {
            write(&format!("/proc/sys/net/bridge/bridge-nf-call-{name}"), "1");
        }
        let mut tally = Tally::default();
        play_bound_ports(&mut lab, &mut tally);
        play_other_ports(&mut lab, &mut tally);
        tally.conclude("all ports, with br_netfilter");
    }

    #[test]
    fn what_nft_lists_means_the_same_when_it_is_loaded_again() {
        let mut lab = full_node();
        let listing = sh("nft list ruleset");
        sh("nft flush ruleset");
        nft(&listing);
        let mut tally = Tally::default();
        play_bound_ports(&mut lab, &mut tally);
        play_other_ports(&mut lab, &mut tally);
        tally.conclude("all ports, rules listed and loaded again");
    }

    #[test]
    fn the_frames_do_pass_without_the_rules() {
        // Else the tests above would be green on a kernel that forwards nothing.
        let mut lab = full_node();
        sh("nft flush ruleset");
        let cases = verdicts::bound_port(who(guest_mac(101, 0), 11), &scene(who(guest_mac(100, 0), 10)));
        let mut stopped = Vec::new();
        for case in &cases {
            // A frame with somebody else's MAC as its source moves that MAC: put it back first.
            lab.settle();
            if lab.play("tap101i0", &case.frame).is_empty() {
                stopped.push(case.class.clone());
            }
        }
        assert_eq!(stopped, ["multicast source MAC"], "the bridge itself drops these");
    }

    #[test]
    fn dhcp_can_be_forbidden_to_a_guest() {
        let mut lab = full_node();
        let request = verdicts::dhcp_request(who(guest_mac(101, 0), 11));
        assert_ne!(lab.play("tap101i0", &request), [""; 0], "allowed at first");
        let path = lab.path("etc/pve/public-ip/guests/101.json");
        let path = path.to_str().unwrap();
        let mut file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        file["interfaces"]["net0"]["dhcp"] = false.into();
        write(path, &file.to_string());
        lab.ok("apply");
        assert_eq!(lab.play("tap101i0", &request), [""; 0]);
        let other = verdicts::dhcp_request(who(guest_mac(100, 0), 10));
        assert_ne!(lab.play("tap100i0", &other), [""; 0], "still allowed to the others");
    }

    #[test]
    fn the_lan_of_a_router_guest_is_left_alone_and_no_other() {
        let mut lab = full_node();
        Lab::bridge("vmbr1");
        let on_lan = |vmid: u8| format!("net0: virtio={},bridge=vmbr1\n", text(guest_mac(vmid, 0)));
        for vmid in [210, 211] {
            lab.guest(NODE, "qemu-server", vmid.into(), &on_lan(vmid));
        }
        // Its own forwarding domain, so its own listeners.
        let _others = std::mem::take(&mut lab.ends);
        lab.plug("tap210i0", "vmbr1", guest_mac(210, 0));
        lab.plug("tap211i0", "vmbr1", guest_mac(211, 0));
        let me =
            Who { mac: guest_mac(210, 0), ip4: Ipv4Addr::new(192, 0, 2, 1), ip6: "2001:db8:ffff::1".parse().unwrap() };
        let victims = [("a bound guest", who(guest_mac(100, 0), 10)), ("nobody yet", who(guest_mac(200, 0), 20))];
        for (what, is_lan) in [("a bridge without a pool", false), ("the LAN of a router guest", true)] {
            if is_lan {
                // Guest 100 holds prefixes; now it has a NIC there.
                let nics: String = [(0, "vmbr0"), (1, "vmbr0"), (2, "vmbr1")]
                    .map(|(nic, bridge)| format!("net{nic}: virtio={},bridge={bridge}\n", text(guest_mac(100, nic))))
                    .concat();
                lab.guest(NODE, "qemu-server", 100, &nics);
            }
            lab.ok("apply");
            lab.settle();
            let mut tally = Tally::default();
            for (name, victim) in victims {
                // Nobody has the MAC of the second one.
                tally.play(&mut lab, "tap210i0", &verdicts::claims(me, victim, name, is_lan, is_lan));
            }
            tally.conclude(what);
        }
    }

    // ---- the law: desired, observed, repaired --------------------------------------------------------------

    /// An element that the set does not have, made from its declaration: as a foreign hand would write it.
    fn foreign_element(set: SetId) -> String {
        let listing = sh(&format!("nft list set bridge pve-public-ip {}", set.name()));
        let line = |key: &str| listing.lines().find_map(|line| line.trim().strip_prefix(key));
        let fields = line("type ").or_else(|| line("typeof ")).unwrap_or_else(|| panic!("{listing}"));
        let is_range = line("flags ").is_some_and(|flags| flags.contains("interval"));
        if is_range && fields == "ifname" {
            return "\"foreign*\"".to_owned(); // an interval of names is a wildcard
        }
        let bits = |length: u32, last: u8| match (length as usize / 4).checked_sub(10) {
            Some(zeros) => format!("0x20010db8{}{last:02x}", "0".repeat(zeros)),
            // An IPv4 address by its number.
            None => format!("0xc00002{last:02x}"),
        };
        let value = |field: &str, last: u8| match field {
            "ifname" | "iifname" => "\"tap999i9\"".to_owned(),
            "ether_addr" | "ether saddr" => "02:00:00:99:99:99".to_owned(),
            "ipv4_addr" => format!("192.0.2.{last}"),
            // The /64 sets hold the first half only, and a host part would do no harm there.
            "ipv6_addr" if set.name().ends_with("_64") => "2001:db8:99::".to_owned(),
            "ipv6_addr" => format!("2001:db8:99::{last:x}"),
            "vlan id" => "99".to_owned(),
            "@nh,64,32" => "0x20010db9".to_owned(),
            raw => match raw.rsplit_once(',').and_then(|(_, length)| length.parse().ok()) {
                Some(length) if raw.starts_with('@') => bits(length, last),
                _ => panic!("what is a field of type {raw}, in {}?", set.name()),
            },
        };
        let fields: Vec<&str> = fields.split(" . ").collect();
        let (last, others) = fields.split_last().unwrap();
        let mut parts: Vec<String> = others.iter().map(|field| value(field, 0)).collect();
        parts.push(if is_range { format!("{}-{}", value(last, 0x60), value(last, 0x63)) } else { value(last, 0x63) });
        parts.join(" . ")
    }

    /// The first element of a set, as `nft` writes it.
    fn first_element(set: SetId) -> Option<String> {
        let listing = sh(&format!("nft list set bridge pve-public-ip {}", set.name()));
        let (_, elements) = listing.split_once("elements = {")?;
        let (elements, _) = elements.split_once('}')?;
        // `nft` 1.0.6 lists a wildcard but does not find it again.
        elements.split(',').map(|element| element.trim().to_owned()).find(|element| !element.contains('*'))
    }

    fn drift(lab: &Lab, what: &str, command: &str, named: &str) {
        sh(command);
        let found = lab.run("verify");
        assert_eq!(found.code, 3, "{what}: verify said\n{}{}", found.stdout, found.stderr);
        let line = found.stdout.lines().find(|line| line.starts_with("drift: ") && line.contains(named));
        assert!(line.is_some(), "{what}: verify did not say `{named}`, but\n{}", found.stdout);
        assert_eq!(found.stdout.lines().last(), Some("hint: `pve-public-ip apply` repairs it"), "{what}");
        let repaired = lab.run("apply");
        assert_eq!(repaired.code, 0, "{what}: apply said\n{}{}", repaired.stdout, repaired.stderr);
        let after = lab.run("verify");
        assert_eq!(after.code, 0, "{what}: after apply verify said\n{}{}", after.stdout, after.stderr);
        assert_eq!(lab.ok("plan"), "nothing to do\n", "{what}: a second apply would do something");
    }

    #[test]
    fn drift_of_a_set_is_named_and_repaired() {
        let lab = full_node();
        let mut played = 0;
        assert_eq!(lab.ok("plan"), "nothing to do\n");
        let mut empty = Vec::new();
        for set in SetId::ALL.iter().filter(|set| set.table() == Table::Bridge) {
            let name = set.name();
            match first_element(*set) {
                Some(element) => {
                    let command = format!("nft 'delete element bridge pve-public-ip {name} {{ {element} }}'");
                    drift(&lab, &format!("{element} deleted from {name}"), &command, "missing ");
                    played += 1;
                }
                None if sh(&format!("nft list set bridge pve-public-ip {name}")).contains("elements = ") => {
                    drift(
                        &lab,
                        &format!("{name} flushed"),
                        &format!("nft flush set bridge pve-public-ip {name}"),
                        "missing ",
                    );
                    played += 1;
                }
                None => empty.push(name),
            }
            let element = foreign_element(*set);
            // `nft` 1.0.6 adds a wildcard only to an empty set: it misjudges the order of those that are there.
            let empty_first = if element.contains('*') {
                format!("nft flush set bridge pve-public-ip {name}; ")
            } else {
                String::new()
            };
            let command = format!("{empty_first}nft 'add element bridge pve-public-ip {name} {{ {element} }}'");
            drift(&lab, &format!("foreign element in {name}"), &command, "extra ");
            played += 1;
        }
        // Sets of features that this node does not use. Each of the others must have lost an element above.
        let unused = [
            "elsewhere",
            "free_",
            "guard_",
            "hairpin_",
            "inbound_",
            "other_vlans",
            "port_any_ll",
            "port_no_dhcp",
            "port_trunk",
            "registered_",
            "router_",
            "spanning",
            "uplink_mac",
            "watch",
        ];
        let skipped: Vec<_> =
            empty.iter().filter(|name| !unused.iter().any(|prefix| name.starts_with(prefix))).collect();
        assert!(skipped.is_empty(), "{skipped:?} are empty on this node");
        say(&format!("{played} changes of elements named and repaired"));
    }

    #[test]
    fn drift_of_the_rules_is_named_and_repaired() {
        let lab = full_node();
        let table = "bridge pve-public-ip";
        let rules = "the rules are missing or were changed";
        let older = pve_public_ip::ruleset::SETS.replacen("\t\tflags interval\n", "", 1);
        assert_ne!(older, pve_public_ip::ruleset::SETS);
        let chain = format!("{table} prerouting");
        let handle = sh(&format!("nft -a list chain {chain}"));
        let handle = handle
            .lines()
            .find(|line| line.contains("@ports"))
            .and_then(|line| line.rsplit(' ').next())
            .unwrap()
            .to_owned();
        for (what, command, named) in [
            ("a rule deleted", format!("nft delete rule {chain} handle {handle}"), rules),
            ("an accept at the top", format!("nft insert rule {chain} accept"), rules),
            ("an accept at the top of a chain", format!("nft insert rule {table} bound_arp accept"), rules),
            ("a chain flushed", format!("nft flush chain {table} bound_ip6"), rules),
            ("a chain added", format!("nft add chain {table} foreign"), rules),
            (
                "a base chain added",
                format!("nft 'add chain {table} foreign {{ type filter hook input priority 0; }}'"),
                rules,
            ),
            ("the table dormant", format!("nft 'add table {table} {{ flags dormant; }}'"), rules),
            ("a set flushed", format!("nft flush set {table} port_mac"), "missing "),
            ("the rules flushed", format!("nft flush table {table}"), rules),
            ("the table deleted", format!("nft delete table {table}"), "the table is missing"),
            ("everything flushed", "nft flush ruleset".to_owned(), "the table is missing"),
            (
                "a set of another release",
                format!("nft delete table {table}; nft -f - <<'END'\n{older}END"),
                "the table is missing",
            ),
        ] {
            drift(&lab, what, &command, named);
        }
    }

    #[test]
    fn drift_of_neighbours_routes_and_forwarding_is_named_and_repaired() {
        let lab = full_node();
        for (what, command, named) in [
            (
                "a neighbour deleted",
                "ip neigh del 203.0.113.10 dev vmbr0",
                "203.0.113.10 is not fixed to 02:00:00:00:00:64",
            ),
            (
                "an IPv6 neighbour deleted",
                "ip neigh del 2001:db8:0:1::10 dev vmbr0",
                "2001:db8:0:1::10 is not fixed to 02:00:00:00:00:64",
            ),
            (
                "a neighbour changed",
                "ip neigh replace 203.0.113.10 lladdr 02:00:00:99:99:99 dev vmbr0 nud permanent protocol 121",
                "203.0.113.10 is not fixed",
            ),
            (
                "a neighbour no longer permanent",
                "ip neigh replace 203.0.113.10 lladdr 02:00:00:00:00:64 dev vmbr0 nud reachable protocol 121",
                "203.0.113.10 is not fixed",
            ),
            (
                "a neighbour too many",
                "ip neigh add 203.0.113.99 lladdr 02:00:00:99:99:99 dev vmbr0 nud permanent protocol 121",
                "203.0.113.99 has a permanent neighbour",
            ),
            (
                "a route too many",
                "ip route add 203.0.113.99/32 dev vmbr0 proto 121",
                "203.0.113.99/32 is routed to a bridge",
            ),
            (
                "a forwarding entry deleted",
                "bridge fdb del 02:00:00:00:00:64 dev tap100i0 master",
                "02:00:00:00:00:64 is not pinned to tap100i0",
            ),
            (
                "a forwarding entry not sticky",
                "bridge fdb replace 02:00:00:00:00:64 dev tap100i0 master static",
                "02:00:00:00:00:64 is not pinned to tap100i0",
            ),
            (
                "a bound MAC pinned to another guest",
                "bridge fdb replace 02:00:00:00:00:64 dev tap200i0 master static sticky",
                "02:00:00:00:00:64 is pinned to tap200i0",
            ),
            (
                "the bridge learns",
                "ip link set vmbr0 type bridge no_linklocal_learn 0",
                "vmbr0 learns from link-local frames",
            ),
            (
                "the bridge's own entry flushed",
                "bridge fdb flush dev vmbr0; bridge fdb replace 02:00:00:00:00:64 dev tap100i0 master static sticky",
                "vmbr0 does not know its own MAC as local",
            ),
        ] {
            drift(&lab, what, command, named);
        }
    }

    #[test]
    fn a_port_that_vanishes_meanwhile_is_no_failure() {
        // Guests stop whenever they like, also between a look at the node and the change that follows from it.
        let lab = full_node();
        let mut kernel = pve_public_ip::system::Kernel::open(pve_public_ip::system::Reference::default()).unwrap();
        let mac = pve_public_ip::model::MacAddr::from_octets(guest_mac(100, 0));
        for (vanish, port) in
            [("true", "tap999i9"), ("ip link set tap100i0 nomaster", "tap100i0"), ("ip link del tap100i0", "tap100i0")]
        {
            sh(vanish);
            kernel
                .apply_step(&Step::SetForwarding(port.parse().unwrap(), mac, BTreeSet::new()))
                .unwrap_or_else(|error| panic!("{vanish}: {error}"));
        }
        assert_eq!(port_of(guest_mac(100, 0)), "nowhere");
        lab.ok("apply");
        lab.ok("verify");
    }

    // ---- caches and forwarding ------------------------------------------------------------------------------

    /// Two bound guests and an unmanaged one with real IP stacks, and the provider's gateway.
    fn living_node() -> Lab {
        let mut lab = node_with_uplink();
        for vmid in [100, 101, 200] {
            lab.guest(
                NODE,
                "qemu-server",
                vmid.into(),
                &format!("net0: virtio={},bridge=vmbr0\n", text(guest_mac(vmid, 0))),
            );
            lab.plug(&format!("tap{vmid}i0"), "vmbr0", guest_mac(vmid, 0));
        }
        lab.ok(&format!("{POOL} 203.0.113.10/32 2001:db8:0:1::10/128 203.0.113.11/32 2001:db8:0:1::11/128"));
        lab.ok("assign 100 203.0.113.10 2001:db8:0:1::10");
        lab.ok("assign 101 203.0.113.11 2001:db8:0:1::11");
        lab.bound("tap100i0", ip4(10), ip6(10));
        lab.bound("tap101i0", ip4(11), ip6(11));
        for (port, last) in [("eno1", 1), ("tap100i0", 10), ("tap101i0", 11)] {
            lab.end(port).namespace().run(|| {
                write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0");
                sh(&format!("ip addr add {}/24 dev eth0; ip addr add {}/64 dev eth0 nodad", ip4(last), ip6(last)));
            });
        }
        lab.settle();
        lab.ok("verify");
        lab
    }

    fn ping(lab: &Lab, port: &str, address: &str) -> bool {
        lab.end(port).namespace().run(|| try_sh(&format!("ping -n -c 1 -W 2 {address}")).code == 0)
    }

    /// What a guest's cache says about an address.
    fn cached(lab: &Lab, port: &str, address: &str) -> String {
        let line = lab.end(port).namespace().run(|| sh(&format!("ip neigh show {address} dev eth0")));
        let mut words = line.split_whitespace().skip_while(|word| *word != "lladdr");
        words.nth(1).unwrap_or("nothing").to_owned()
    }

    #[test]
    fn no_neighbour_cache_learns_a_false_entry() {
        let mut lab = living_node();
        // Whose cache, about whom, who lies.
        let lies = [
            ("eno1", 10, guest_mac(100, 0), "tap200i0", guest_mac(200, 0)),
            ("eno1", 10, guest_mac(100, 0), "tap101i0", guest_mac(101, 0)),
            ("tap100i0", 1, GATEWAY, "tap200i0", guest_mac(200, 0)),
            ("tap100i0", 1, GATEWAY, "tap101i0", guest_mac(101, 0)),
            ("tap100i0", 11, guest_mac(101, 0), "tap200i0", guest_mac(200, 0)),
        ];
        for rules in [true, false] {
            if !rules {
                sh("nft flush ruleset");
            }
            for (listener, last, owner, liar, mac) in lies {
                let me = Who { mac, ip4: lab.end(liar).ip4, ip6: lab.end(liar).ip6 };
                for frame in verdicts::announcements(me, ip4(last), ip6(last)) {
                    for address in [ip4(last).to_string(), ip6(last).to_string()] {
                        assert!(ping(&lab, listener, &address), "{listener} cannot reach {address}");
                        assert_eq!(cached(&lab, listener, &address), text(owner), "{listener} knows {address}");
                    }
                    lab.play(liar, &frame);
                    if rules {
                        for address in [ip4(last).to_string(), ip6(last).to_string()] {
                            assert_eq!(
                                cached(&lab, listener, &address),
                                text(owner),
                                "{listener} was told a lie about {address} by {liar}"
                            );
                        }
                    }
                    lab.end(listener).namespace().run(|| sh("ip neigh flush dev eth0"));
                }
            }
            if !rules {
                // The control: without the rules the first of these frames does poison the cache.
                let me = Who { mac: guest_mac(200, 0), ip4: ip4(99), ip6: ip6(99) };
                assert!(ping(&lab, "eno1", "203.0.113.10") && ping(&lab, "eno1", "2001:db8:0:1::10"));
                // Linux does not let go of a fresh entry within `locktime` (1 s).
                lab.end("eno1").namespace().run(|| write("/proc/sys/net/ipv4/neigh/eth0/locktime", "0"));
                for frame in verdicts::announcements(me, ip4(10), ip6(10)) {
                    lab.play("tap200i0", &frame);
                }
                assert_eq!(
                    cached(&lab, "eno1", "203.0.113.10"),
                    text(guest_mac(200, 0)),
                    "the test's ARP lie is a good one"
                );
                assert_eq!(
                    cached(&lab, "eno1", "2001:db8:0:1::10"),
                    text(guest_mac(200, 0)),
                    "the test's ND lie is a good one"
                );
            }
        }
    }

    /// The port to which the bridge sends frames for a MAC.
    fn port_of(mac: Mac) -> String {
        let mac = text(mac);
        let entries = sh("bridge fdb show br vmbr0");
        let line = entries.lines().find(|line| line.starts_with(&mac)).unwrap_or("");
        line.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap_or("nowhere").to_owned()
    }

    #[test]
    fn a_bound_mac_does_not_move_to_another_port() {
        let mut lab = living_node();
        let mac = guest_mac(100, 0);
        let lldp = frames::ether(frames::LINK_LOCAL_GROUP, mac, 0x88cc, b"a frame that no rule of a bridge sees");
        let broadcast = frames::ether(frames::BROADCAST, mac, 0x88b6, b"data");
        // Either of the two measures is enough for link-local frames, and without both the frame is a thief.
        for (what, command, moves) in [
            ("both", "true", false),
            ("only the sticky entry", "ip link set vmbr0 type bridge no_linklocal_learn 0", false),
            (
                "only the deaf bridge",
                "ip link set vmbr0 type bridge no_linklocal_learn 1; bridge fdb del 02:00:00:00:00:64 dev tap100i0 master",
                false,
            ),
            ("neither", "ip link set vmbr0 type bridge no_linklocal_learn 0", true),
        ] {
            sh(command);
            for port in ["tap200i0", "tap101i0", "eno1"] {
                lab.settle();
                assert_eq!(port_of(mac), "tap100i0", "{what}: at first");
                lab.play(port, &broadcast);
                assert_eq!(port_of(mac), "tap100i0", "{what}: after a broadcast from {port}");
                lab.play(port, &lldp);
                // Those of guests pass the filter on their way.
                let moves = moves && port == "eno1";
                assert_eq!(port_of(mac) != "tap100i0", moves, "{what}: after a link-local frame from {port}");
            }
        }
        lab.ok("apply");
        assert_eq!(port_of(mac), "tap100i0", "apply brings it back");
        let to_guest = frames::ether(
            mac,
            GATEWAY,
            frames::IP4,
            &frames::ip4(ip4(1), ip4(10), frames::UDP, 0, &frames::udp(1, 2, b"data")),
        );
        assert_eq!(lab.play("eno1", &to_guest), ["tap100i0"], "and the traffic with it");
    }

    #[test]
    fn a_flushed_bridge_takes_what_is_for_the_node_again() {
        let lab = living_node();
        assert!(ping(&lab, "tap100i0", "203.0.113.250"));
        sh("bridge fdb flush dev vmbr0");
        assert!(!ping(&lab, "tap100i0", "203.0.113.250"), "without its own entry the bridge loses the node");
        let found = lab.run("verify");
        assert_eq!(found.code, 3, "{}", found.stdout);
        let line = "vmbr0 does not know its own MAC as local: what guests send to the node does not arrive";
        assert!(found.stdout.contains(line), "{}", found.stdout);
        // What a guest says meanwhile, if no rule stands, does not stay.
        sh(&format!("bridge fdb replace {} dev tap200i0 master static", text(link_mac("vmbr0"))));
        assert_eq!(lab.run("verify").code, 3, "an entry, but not a local one");
        lab.ok("apply");
        lab.ok("verify");
        assert!(ping(&lab, "tap100i0", "203.0.113.250") && ping(&lab, "tap101i0", "2001:db8:0:1::250"));
        assert_eq!(lab.ok("plan"), "nothing to do\n");
    }

    // ---- a guest's life -------------------------------------------------------------------------------------

    /// One guest, one address of each family; the port is not there yet.
    fn node_before_start() -> Lab {
        let mut lab = node_with_uplink();
        for vmid in [100, 200] {
            lab.guest(
                NODE,
                "qemu-server",
                vmid.into(),
                &format!("net0: virtio={},bridge=vmbr0\n", text(guest_mac(vmid, 0))),
            );
        }
        lab.plug("tap200i0", "vmbr0", guest_mac(200, 0));
        lab.ok(&format!("{POOL} 203.0.113.10/32 2001:db8:0:1::10/128 203.0.113.11/32"));
        lab.ok("assign 100 203.0.113.10 2001:db8:0:1::10");
        lab.settle();
        lab
    }

    /// Plugs the guest in and sends a spoofed frame before each honest one, from the moment the port exists.
    fn first_frames_are_filtered(lab: &mut Lab) {
        lab.plug("tap100i0", "vmbr0", guest_mac(100, 0));
        let me = who(guest_mac(100, 0), 10);
        let end = lab.end("tap100i0");
        let started = Instant::now();
        let (mut honest, mut sent) = (0, 0);
        while honest == 0 {
            assert!(started.elapsed() < Duration::from_secs(60), "the port never forwards");
            for spoofed in [
                verdicts::packet(me, ip4(11), sent),
                verdicts::packet(Who { mac: guest_mac(1, 0), ..me }, ip4(10), sent),
            ] {
                end.wire.send(&spoofed);
            }
            end.wire.send(&verdicts::packet(me, me.ip4, sent));
            sent += 1;
            while let Some(frame) = lab.end("eno1").wire.receive(Duration::from_millis(2)) {
                let from_guest = frame[6..12] == me.mac || frame[6..12] == guest_mac(1, 0);
                let is_udp = from_guest && frame[12..14] == [8, 0] && frame[23] == frames::UDP;
                if is_udp {
                    assert_eq!(
                        (&frame[6..12], &frame[26..30]),
                        (&me.mac[..], &me.ip4.octets()[..]),
                        "a spoofed frame got out"
                    );
                    honest += 1;
                }
            }
        }
        lab.bound("tap100i0", me.ip4, me.ip6);
        lab.settle();
    }

    #[test]
    fn the_first_frame_of_a_guest_is_filtered_already() {
        let mut lab = node_before_start();
        lab.ok("hook 100 pre-start");
        first_frames_are_filtered(&mut lab);
        lab.ok("hook 100 post-start");
        lab.ok("verify");
        assert_eq!(port_of(guest_mac(100, 0)), "tap100i0");

        // The port goes and comes back without any hook (a crash of QEMU and a restart by hand): no gap.
        lab.unplug("tap100i0");
        first_frames_are_filtered(&mut lab);
        lab.ok("apply");
        lab.ok("verify");
        let mut tally = Tally::default();
        let other = Who { mac: guest_mac(200, 0), ip4: lab.end("tap200i0").ip4, ip6: lab.end("tap200i0").ip6 };
        let cases = verdicts::bound_port(who(guest_mac(100, 0), 10), &scene(other));
        tally.play(&mut lab, "tap100i0", &cases);
        tally.conclude("a port that came back");
    }

    #[test]
    fn from_assignment_to_release() {
        let mut lab = node_before_start();
        let attacker = Who { mac: guest_mac(200, 0), ip4: lab.end("tap200i0").ip4, ip6: lab.end("tap200i0").ip6 };
        let victim = who(guest_mac(100, 0), 10);
        let mut tally = Tally::default();
        let mut others_fail = |lab: &mut Lab, bound: bool| {
            lab.ok("verify");
            tally.play(lab, "tap200i0", &verdicts::claims(attacker, victim, "the guest", true, false));
            let provider = Who { mac: GATEWAY, ip4: lab.end("eno1").ip4, ip6: lab.end("eno1").ip6 };
            tally.play(lab, "eno1", &verdicts::claims(provider, victim, "the guest", true, !bound));
        };
        others_fail(&mut lab, false);
        let said = lab.run("hook 100 pre-start");
        assert_eq!(said.code, 0, "{}", said.stderr);
        assert!(said.stderr.contains("guest 100 is protected"), "{}", said.stderr);
        others_fail(&mut lab, true);
        first_frames_are_filtered(&mut lab);
        lab.ok("hook 100 post-start");
        others_fail(&mut lab, true);
        lab.ok("hook 100 pre-stop");
        others_fail(&mut lab, true);
        lab.unplug("tap100i0");
        lab.ok("hook 100 post-stop");
        others_fail(&mut lab, false);
        assert_eq!(first_element(SetId::Ports), None);
        assert_eq!(first_element(SetId::BoundMac), None);
        assert_eq!(
            sh(
                "ip neigh show proto 121; ip -6 neigh show proto 121; ip route show proto 121; bridge fdb show | grep sticky || true"
            ),
            ""
        );
        lab.ok("release 100");
        lab.ok("verify");
        // Nobody's MAC any more, but the pool's address all the same.
        tally.play(&mut lab, "tap200i0", &verdicts::claims(attacker, victim, "nobody", false, false));
        lab.ok("pool remove public");
        lab.ok("verify");
        assert_eq!(first_element(SetId::ReservedMac).as_deref(), None);
        tally.play(&mut lab, "tap200i0", &verdicts::claims(attacker, victim, "nobody at all", false, true));
        tally.conclude("a guest's life");
    }

    #[test]
    fn a_migrating_guest_is_heard_from_its_old_node_until_it_has_moved() {
        let mut lab = node_with_uplink();
        let config = format!("net0: virtio={},bridge=vmbr0\n", text(guest_mac(100, 0)));
        lab.guest(OTHER_NODE, "qemu-server", 100, &config);
        lab.guest(NODE, "qemu-server", 200, &format!("net0: virtio={},bridge=vmbr0\n", text(guest_mac(200, 0))));
        lab.plug("tap200i0", "vmbr0", guest_mac(200, 0));
        lab.ok(&format!("{POOL} 203.0.113.10/32 2001:db8:0:1::10/128 203.0.113.11/32"));
        lab.ok("assign 100 203.0.113.10 2001:db8:0:1::10");
        lab.settle();
        let attacker = Who { mac: guest_mac(200, 0), ip4: lab.end("tap200i0").ip4, ip6: lab.end("tap200i0").ip6 };
        let provider = Who { mac: GATEWAY, ip4: lab.end("eno1").ip4, ip6: lab.end("eno1").ip6 };
        let guest = who(guest_mac(100, 0), 10);
        let mut tally = Tally::default();
        let check = |lab: &mut Lab, tally: &mut Tally, moved: bool| {
            tally.play(lab, "tap200i0", &verdicts::claims(attacker, guest, "the guest", true, false));
            tally.play(lab, "eno1", &verdicts::claims(provider, guest, "the guest", true, !moved));
        };
        for phase in ["pre-start", "post-start"] {
            let ran = lab.run_with(&[("PVE_MIGRATED_FROM", OTHER_NODE)], &format!("hook 100 {phase}"));
            assert_eq!(ran.code, 0, "{phase}: {}", ran.stderr);
            if phase == "pre-start" {
                check(&mut lab, &mut tally, false);
                first_frames_are_filtered(&mut lab);
            }
            check(&mut lab, &mut tally, false);
        }
        lab.ok("verify");
        // What QEMU sends last is what the switches need first.
        tally.play(&mut lab, "tap100i0", &verdicts::bound_port(guest, &scene(who(guest_mac(1, 0), 11))));
        let directory = lab.path("etc/pve/nodes");
        let at = |node: &str| directory.join(node).join("qemu-server/100.conf");
        std::fs::rename(at(OTHER_NODE), at(NODE)).unwrap();
        lab.ok("apply");
        lab.ok("verify");
        check(&mut lab, &mut tally, true);
        tally.conclude("a migration");
    }

    #[test]
    fn a_neighbour_is_set_only_in_a_family_that_the_node_speaks() {
        let mut lab = Lab::new();
        lab.guest(NODE, "qemu-server", 100, &format!("net0: virtio={},bridge=vmbr0\n", text(guest_mac(100, 0))));
        lab.plug("tap100i0", "vmbr0", guest_mac(100, 0));
        lab.ok(&format!("{POOL} 203.0.113.10/32 2001:db8:0:1::10/128"));
        lab.ok("assign 100 203.0.113.10 2001:db8:0:1::10");
        let ours = || sh("ip neigh show proto 121 | sort");
        assert_eq!(ours(), "", "the node has no address at all");
        let v4 = "203.0.113.10 dev vmbr0 lladdr 02:00:00:00:00:64 PERMANENT proto 121 \n";
        let v6 = "2001:db8:0:1::10 dev vmbr0 lladdr 02:00:00:00:00:64 PERMANENT proto 121 \n";
        for (command, wanted) in [
            ("ip addr add 203.0.113.250/24 dev vmbr0", v4.to_owned()),
            ("ip addr add 2001:db8:0:1::250/64 dev vmbr0 nodad", format!("{v6}{v4}")),
            ("ip addr del 203.0.113.250/24 dev vmbr0", v6.to_owned()),
        ] {
            sh(command);
            lab.ok("apply");
            let squeezed = |text: String| {
                text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<BTreeSet<_>>()
            };
            assert_eq!(squeezed(ours()), squeezed(wanted), "after `{command}`");
        }
        lab.ok("verify");
    }

    const ROUTED: &str = "pool create routed --profile generic-routed --bridge vmbr0 203.0.113.10/32 2001:db8:0:1::10/128 198.51.100.8/29 2001:db8:100::/56";

    fn routed_node() -> Lab {
        let lab = Lab::new();
        sh("ip addr add 192.0.2.1/24 dev vmbr0; ip addr add 2001:db8:ffff::1/64 dev vmbr0 nodad");
        // The way to the provider.
        sh(
            "ip link add wan0 type bridge; ip link set wan0 up; ip route add default dev wan0; ip -6 route add default dev wan0",
        );
        lab.guest(NODE, "qemu-server", 100, &format!("net0: virtio={},bridge=vmbr0\n", text(guest_mac(100, 0))));
        lab.ok(ROUTED);
        lab.ok("assign 100 203.0.113.10 2001:db8:0:1::10 198.51.100.8/29 2001:db8:100::/56");
        lab
    }

    #[test]
    fn routes_follow_the_guest() {
        let mut lab = routed_node();
        // Else the bridge's MAC goes with its last port, and the kernel itself forgets all neighbours.
        sh("ip link set vmbr0 address 02:00:00:00:b0:00");
        lab.ok("apply");
        let routes = || sh("ip route show proto 121; ip -6 route show proto 121");
        lab.ok("hook 100 pre-start");
        assert_eq!(routes(), "", "no traffic before the guest is there");
        lab.plug("tap100i0", "vmbr0", guest_mac(100, 0));
        lab.bound("tap100i0", ip4(10), ip6(10));
        lab.listen_on_bridge();
        lab.settle();
        lab.ok("hook 100 post-start");
        lab.ok("verify");
        let found: BTreeSet<String> = routes()
            .lines()
            .map(|line| line.replace(" metric 1024", "").replace(" pref medium", "").trim().to_owned())
            .collect();
        let local = link_local(guest_mac(100, 0));
        assert_eq!(
            found,
            BTreeSet::from([
                "198.51.100.8/29 via 203.0.113.10 dev vmbr0 onlink".to_owned(),
                "203.0.113.10 dev vmbr0 scope link".to_owned(),
                "2001:db8:0:1::10 dev vmbr0".to_owned(),
                format!("2001:db8:100::/56 via {local} dev vmbr0 onlink"),
            ])
        );
        // They lead there: the guest receives what the node sends, to its addresses and to what is behind it.
        for address in ["203.0.113.10", "2001:db8:0:1::10", "198.51.100.9", "2001:db8:100:7::1"] {
            let wire = &lab.end("tap100i0").wire;
            wire.drain();
            try_sh(&format!("ping -n -c 1 -W 1 {address}"));
            let address: std::net::IpAddr = address.parse().unwrap();
            let octets = match address {
                std::net::IpAddr::V4(address) => address.octets().to_vec(),
                std::net::IpAddr::V6(address) => address.octets().to_vec(),
            };
            let mut arrived = false;
            while let Some(frame) = wire.receive(Duration::ZERO) {
                let at = if octets.len() == 4 { 30 } else { 38 };
                arrived |= frame[..6] == guest_mac(100, 0) && frame.get(at..at + octets.len()) == Some(&octets[..]);
            }
            assert!(arrived, "nothing for {address} reached the guest");
        }

        // Down in the reverse order: nobody sends to an address whose neighbour or filter is gone.
        let monitor = lab::Monitor::start("ip monitor route neigh");
        lab.unplug("tap100i0");
        lab.ok("hook 100 post-stop");
        sh("ip link add the-last type bridge; ip link set the-last up; ip route add 192.0.2.0/28 dev the-last");
        let events = monitor.told_until("192.0.2.0/28 dev the-last");
        sh("ip link del the-last");
        let deleted: Vec<&str> =
            events.lines().filter(|line| line.starts_with("Deleted") && line.contains("proto 121")).collect();
        let route = |line: &str| !line.contains("lladdr") && !line.contains("FAILED");
        assert_eq!(deleted.iter().filter(|line| route(line)).count(), 4, "{events}");
        let last_route = deleted.iter().rposition(|line| route(line)).unwrap();
        let first_neighbour = deleted
            .iter()
            .position(|line| !route(line))
            .unwrap_or_else(|| panic!("no neighbour was removed: {events}"));
        assert!(last_route < first_neighbour, "routes go before neighbours: {events}");
        assert_eq!(routes() + &sh("ip neigh show proto 121"), "");
        lab.ok("verify");
    }

    #[test]
    fn neighbours_survive_another_mac_of_the_bridge() {
        // A bridge without a MAC of its own takes the lowest of its ports; when it changes, Linux forgets every
        // neighbour on it, the permanent ones too.
        let mut lab = routed_node();
        lab.guest(NODE, "qemu-server", 101, &format!("net0: virtio={},bridge=vmbr0\n", text(guest_mac(101, 0))));
        lab.ok("pool add routed 203.0.113.11/32");
        lab.ok("assign 101 203.0.113.11");
        let start = |lab: &mut Lab, vmid: u8| {
            lab.ok(&format!("hook {vmid} pre-start"));
            lab.plug(&format!("tap{vmid}i0"), "vmbr0", guest_mac(vmid, 0));
            lab.ok(&format!("hook {vmid} post-start"));
            lab.ok("verify");
            link_mac("vmbr0")
        };
        let before = start(&mut lab, 101);
        let after = start(&mut lab, 100);
        assert!(after < before, "the start of 100 changes the bridge's MAC");
        lab.unplug("tap100i0");
        lab.ok("hook 100 post-stop");
        lab.ok("verify");
        assert_eq!(link_mac("vmbr0"), before, "and its stop brings it back");
        assert!(sh("ip neigh show 203.0.113.11 dev vmbr0").contains("lladdr 02:00:00:00:00:65 PERMANENT"));
    }

    #[test]
    fn a_foreign_route_is_never_replaced() {
        let mut lab = routed_node();
        sh("ip link add other0 type bridge; ip link set other0 up");
        for (family, net) in [("-4", "203.0.113.10/32"), ("-6", "2001:db8:0:1::10/128")] {
            sh(&format!("ip {family} route add {net} dev other0 proto static"));
            let foreign = sh(&format!("ip {family} route show {net}"));
            lab.ok("hook 100 pre-start");
            lab.plug("tap100i0", "vmbr0", guest_mac(100, 0));
            let failed = lab.run("hook 100 post-start");
            assert_eq!(failed.code, 1, "{}", failed.stderr);
            let sentence = format!("{net} has a route that this program did not make (`{net} dev other0`)");
            assert!(failed.stderr.contains(&sentence), "{}", failed.stderr);
            assert!(failed.stderr.contains(&format!("route del {net} dev other0 && ")), "{}", failed.stderr);
            for command in ["verify", "apply"] {
                let said = lab.run(command);
                assert_eq!(said.code, 1, "{}{}", said.stdout, said.stderr);
                assert!(said.stdout.contains(&format!("problem: guest 100: {sentence}")), "{}", said.stdout);
                assert!(!said.stdout.contains("drift: "), "{}", said.stdout);
            }
            assert_eq!(sh(&format!("ip {family} route show {net}")), foreign);
            lab.unplug("tap100i0");
            lab.ok("hook 100 post-stop");
            assert_eq!(sh(&format!("ip {family} route show {net}")), foreign, "post-stop removes only its own");
            sh(&format!("ip {family} route del {net} dev other0"));
        }
        lab.ok("apply");
        lab.ok("verify");
    }

    // ---- under traffic --------------------------------------------------------------------------------------

    #[test]
    fn rules_are_replaced_without_a_gap_and_without_a_loss() {
        let lab = living_node();
        let node = lab::Namespace::current();
        let root = lab.path("");
        let stop = std::sync::atomic::AtomicBool::new(false);
        let order = std::sync::atomic::Ordering::SeqCst;
        let mut counts = [0u32; 4];
        let replaced = std::thread::scope(|scope| {
            // Each round spoils rules or elements that these frames do not need, so `apply` has something to replace; every
            // fourth time it finds the table of a release that declared a set in another way.
            let spoiler = scope.spawn(|| {
                node.run(|| {
                    let mut replaced = 0;
                    while replaced < 200 {
                        if replaced % 4 == 3 {
                            let listing = sh("nft list table bridge pve-public-ip");
                            let foreign = listing.replacen("\t\tflags interval\n", "", 1);
                            assert_ne!(foreign, listing);
                            nft(&format!("delete table bridge pve-public-ip\n{foreign}"));
                        } else {
                            sh("nft 'add rule bridge pve-public-ip bound_rarp counter; add element bridge pve-public-ip bound_ip4 { 192.0.2.99 }'");
                        }
                        let line = format!("{} --root {} apply", env!("CARGO_BIN_EXE_pve-public-ip"), root.display());
                        let said = sh(&line);
                        assert!(said.contains("~ rules of table bridge pve-public-ip"), "{said}");
                        replaced += 1;
                    }
                    stop.store(true, order);
                    replaced
                })
            });
            let me = who(guest_mac(100, 0), 10);
            let unmanaged = Who { mac: guest_mac(200, 0), ip4: ip4(99), ip6: ip6(99) };
            lab.end("eno1").wire.drain();
            let [honest, spoofed, leaked, arrived] = &mut counts;
            let look = |limit: Duration, arrived: &mut u32, leaked: &mut u32| {
                while let Some(frame) = lab.end("eno1").wire.receive(limit) {
                    if frame.len() == 46 && frame[12..14] == [8, 0] && frame[..6] == frames::BROADCAST {
                        let own = frame[6..12] == me.mac && frame[26..30] == me.ip4.octets();
                        *(if own { &mut *arrived } else { &mut *leaked }) += 1;
                    }
                }
            };
            while !stop.load(order) && !spoiler.is_finished() {
                lab.end("tap100i0").wire.send(&verdicts::packet(me, me.ip4, *honest));
                *honest += 1;
                for (port, frame) in [
                    ("tap100i0", verdicts::packet(me, ip4(11), *honest)),
                    ("tap101i0", verdicts::packet(who(guest_mac(101, 0), 11), me.ip4, *honest)),
                    ("tap200i0", verdicts::packet(unmanaged, me.ip4, *honest)),
                ] {
                    lab.end(port).wire.send(&frame);
                    *spoofed += 1;
                }
                if *honest % 64 == 0 {
                    look(Duration::ZERO, arrived, leaked);
                }
            }
            let stopped = std::time::Instant::now();
            // What is on its way arrives, however loaded the machine is; then nothing more does.
            while arrived != honest && stopped.elapsed() < lab::PATIENCE {
                look(Duration::from_millis(20), arrived, leaked);
            }
            look(Duration::from_millis(300), arrived, leaked);
            spoiler.join().expect("the thread that spoils the rules")
        });
        let [honest, spoofed, leaked, arrived] = counts;
        let line = format!(
            "rules replaced {replaced} times under traffic: {spoofed} spoofed frames, {leaked} leaked; {honest} honest, {} lost",
            honest - arrived
        );
        say(&line);
        assert!(!sh("nft list tables").contains("before"), "the copy of the table is still there");
        assert!(spoofed > 1000, "too little happened: {line}");
        assert_eq!((leaked, honest - arrived), (0, 0), "{line}");
        lab.ok("verify");
    }

    // ---- the tests themselves -------------------------------------------------------------------------------

    #[test]
    fn nothing_is_left_behind() {
        let before = sh("ip -o link");
        let witness = lab::Namespace::new();
        {
            let lab = full_node();
            sh(&format!("ip link add witness type veth peer name node netns {}", witness.path()));
            assert_eq!(lab.ends.len(), 10);
            witness.run(|| sh("ip link show node"));
        }
        // The kernel takes a namespace down, and with it the other end of its links, when nothing holds it any more.
        let started = Instant::now();
        while witness.run(|| try_sh("ip link show node").code == 0) {
            assert!(started.elapsed() < Duration::from_secs(60), "something still holds the node's namespace");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(sh("ip -o link"), before);
    }
}
