//! What leaves for the provider with a MAC that it does not know.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use pve_public_ip::selftest::verdicts::Who;
use pve_public_ip::selftest::{frames, verdicts};

use crate::counters::filled;
use crate::lab;
use crate::lab::{Lab, sh, text};
use crate::scene::{guest_mac, ip4, ip6, living_node, who};

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
    sh("ip link add tap201i0 type veth peer name flood; ip link set flood up; ip link set tap201i0 master vmbr0 up");
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
    let note = format!("note: guest 200 net0 does not reach the provider: no pool knows its MAC {}\n", text(me.mac));
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
