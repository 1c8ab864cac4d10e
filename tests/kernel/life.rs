//! A guest's life, from assignment to release.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pve_public_ip::ruleset::SetId;
use pve_public_ip::selftest::verdicts::Who;
use pve_public_ip::selftest::{frames, verdicts};

use crate::caches::port_of;
use crate::drift::first_element;
use crate::lab::{Lab, NODE, OTHER_NODE, sh, text};
use crate::scene::{GATEWAY, POOL, guest_mac, ip4, node_with_uplink, scene, who};
use crate::verdict_tables::Tally;

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
        for spoofed in
            [verdicts::packet(me, ip4(11), sent), verdicts::packet(Who { mac: guest_mac(1, 0), ..me }, ip4(10), sent)]
        {
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
    assert_eq!(said.code, 0, "{said}");
    assert!(said.err.contains("guest 100 is protected"), "{said}");
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
        assert_eq!(ran.code, 0, "{phase}: {}", ran.err);
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
