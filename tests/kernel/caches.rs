//! Neighbour caches and forwarding tables, which others would like to fill.

use pve_public_ip::selftest::frames::Mac;
use pve_public_ip::selftest::verdicts::Who;
use pve_public_ip::selftest::{frames, verdicts};

use crate::lab::{Lab, link_mac, sh, text, try_sh, write};
use crate::scene::{GATEWAY, guest_mac, ip4, ip6, living_node};

pub(crate) fn ping(lab: &Lab, port: &str, address: &str) -> bool {
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
pub(crate) fn port_of(mac: Mac) -> String {
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
    assert_eq!(found.code, 3, "{found}");
    let line = "vmbr0 does not know its own MAC as local: what guests send to the node does not arrive";
    assert!(found.out.contains(line), "{found}");
    // What a guest says meanwhile, if no rule stands, does not stay.
    sh(&format!("bridge fdb replace {} dev tap200i0 master static", text(link_mac("vmbr0"))));
    assert_eq!(lab.run("verify").code, 3, "an entry, but not a local one");
    lab.ok("apply");
    lab.ok("verify");
    assert!(ping(&lab, "tap100i0", "203.0.113.250") && ping(&lab, "tap101i0", "2001:db8:0:1::250"));
    assert_eq!(lab.ok("plan"), "nothing to do\n");
}
