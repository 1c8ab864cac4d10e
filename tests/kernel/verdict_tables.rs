//! Every frame of the tables of verdicts, through a real bridge: what must be dropped and what must pass.

use std::net::{Ipv4Addr, Ipv6Addr};

use pve_public_ip::selftest::verdicts;
use pve_public_ip::selftest::verdicts::{Case, Who};

use crate::counters::counted;
use crate::lab::{Lab, NODE, nft, sh, text, try_sh, write};
use crate::scene::{GATEWAY, full_node, guest_mac, say, scene, who};

/// What was played, and what came out otherwise than the tables say.
#[derive(Default)]
pub(crate) struct Tally {
    drops: usize,
    passes: usize,
    wrong: Vec<String>,
}

impl Tally {
    pub(crate) fn play(&mut self, lab: &mut Lab, sender: &str, cases: &[Case]) {
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

    pub(crate) fn conclude(self, what: &str) {
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
    let me = Who { mac: guest_mac(210, 0), ip4: Ipv4Addr::new(192, 0, 2, 1), ip6: "2001:db8:ffff::1".parse().unwrap() };
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
