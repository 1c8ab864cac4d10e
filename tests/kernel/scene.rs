//! Nodes to play on: which ports there are, who holds what, and who else is on the wire.

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use pve_public_ip::selftest::frames::Mac;
use pve_public_ip::selftest::verdicts::{Scene, Who};

use crate::lab::{Lab, NODE, OTHER_NODE, link_mac, sh, text, write};

pub(crate) const fn guest_mac(vmid: u8, nic: u8) -> Mac {
    [2, 0, 0, 0, nic, vmid]
}

pub(crate) const fn ip4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, last)
}

/// `203.0.113.10` goes with `2001:db8:0:1::10`.
pub(crate) fn ip6(last: u8) -> Ipv6Addr {
    format!("2001:db8:0:1::{last}").parse().unwrap()
}

pub(crate) fn who(mac: Mac, last: u8) -> Who {
    Who { mac, ip4: ip4(last), ip6: ip6(last) }
}

pub(crate) const GATEWAY: Mac = [2, 0, 0, 0, 0xff, 1];
pub(crate) const POOL: &str =
    "pool create public --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.1 --gateway6 2001:db8:0:1::1";

/// A node with an address of each family on its bridge, and the provider's gateway on the uplink.
pub(crate) fn node_with_uplink() -> Lab {
    let mut lab = Lab::new();
    sh("ip addr add 203.0.113.250/24 dev vmbr0; ip addr add 2001:db8:0:1::250/64 dev vmbr0 nodad");
    lab.plug("eno1", "vmbr0", GATEWAY);
    lab
}

/// Every kind of port: bound ones (tap, second NIC, container, behind the NIC firewall), unmanaged ones, the
/// uplink; and assignments of a guest that is stopped and of one on another node.
pub(crate) fn full_node() -> Lab {
    let mut lab = node_with_uplink();
    let nic =
        |nic: u8, vmid: u8, rest: &str| format!("net{nic}: virtio={},bridge=vmbr0{rest}\n", text(guest_mac(vmid, nic)));
    lab.guest(NODE, "qemu-server", 100, &(nic(0, 100, "") + &nic(1, 100, "")));
    lab.guest(NODE, "qemu-server", 101, &nic(0, 101, ""));
    let container = |vmid: u8| format!("net0: name=eth0,bridge=vmbr0,hwaddr={},type=veth\n", text(guest_mac(vmid, 0)));
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
    for (port, last) in [("tap100i0", 10), ("tap100i1", 12), ("tap101i0", 11), ("veth102i0", 13), ("tap103i0", 14)] {
        lab.bound(port, ip4(last), ip6(last));
    }
    lab.settle();
    lab.ok("verify");
    lab
}

pub(crate) fn scene(victim: Who) -> Scene {
    let stranger = Who {
        mac: [2, 0, 0, 0, 0xee, 0xee],
        ip4: Ipv4Addr::new(198, 18, 0, 9),
        ip6: "2001:db8:eeee::9".parse().unwrap(),
    };
    let node = Who { mac: link_mac("vmbr0"), ip4: ip4(250), ip6: ip6(250) };
    Scene { gateway: who(GATEWAY, 1), node, victim, stranger }
}

/// Prints a line of figures, not by a macro that the test harness captures: they are worth reading when all is well.
pub(crate) fn say(line: &str) {
    std::io::stderr().write_all(format!("kernel: {line}\n").as_bytes()).unwrap();
}

/// Two bound guests and an unmanaged one with real IP stacks, and the provider's gateway.
pub(crate) fn living_node() -> Lab {
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
