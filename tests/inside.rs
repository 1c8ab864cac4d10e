//! The commands by which a guest that runs takes its new addresses, run inside of a namespace that stands for the guest.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use common::{Namespace, Node};

/// What `assign` prints for a guest that runs, without its indentation.
fn script(out: &str) -> String {
    let lines = out.lines().filter_map(|line| line.strip_prefix("    "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The administrator may have tried the address before, with the length of his network.
#[test]
fn an_address_gets_its_length_whatever_it_had_before() {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    node.plug("tap100i0");
    let run = node.run("assign 100 203.0.113.10 2001:db8:0:1::10").ok();
    let script = script(&run.out);
    assert!(script.contains("ip -6 address replace 2001:db8:0:1::10/128 dev $dev"), "{run}");

    let guest = Namespace::new();
    guest.sh("ip link add eth0 address 02:00:00:aa:bb:00 type bridge; ip link set eth0 up
         ip -6 address add 2001:db8:0:1::10/64 dev eth0 nodad; ip -6 address add 2001:db8:0:1::99/64 dev eth0 nodad");
    // As often as anybody likes.
    for _ in 0..2 {
        // Its own interfaces are in `/sys`, as inside of a guest.
        let whole = format!("mount -t sysfs sysfs /sys\n{script}");
        let output = guest.command("unshare").args(["--mount", "sh", "-euc", &whole]).output().unwrap();
        assert!(output.status.success(), "{script}{}", String::from_utf8_lossy(&output.stderr));
        let six = guest.sh("ip -6 -o address show dev eth0 scope global");
        let six: Vec<&str> = six.lines().filter_map(|line| line.split_whitespace().nth(3)).collect();
        assert_eq!(six, ["2001:db8:0:1::10/128", "2001:db8:0:1::99/64"]);
        assert!(guest.sh("ip -4 -o address show dev eth0").contains("inet 203.0.113.10/"));
    }
}
