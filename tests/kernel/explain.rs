//! What `explain` says of a frame is what the kernel does with it.

use std::io::Write as _;

use pve_public_ip::selftest::verdicts;
use pve_public_ip::selftest::verdicts::Who;

use crate::scene::{guest_mac, ip4, ip6, living_node, scene, who};

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
        assert!(ran.code == 1 && ran.err.contains(says), "{ran}");
    }
}
