//! Rules are replaced while frames pass.

use std::time::Duration;

use pve_public_ip::selftest::verdicts::Who;
use pve_public_ip::selftest::{frames, verdicts};

use crate::lab;
use crate::lab::{nft, sh};
use crate::scene::{guest_mac, ip4, ip6, living_node, say, who};

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
        while arrived != honest && stopped.elapsed() < crate::common::PATIENCE {
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
