//! Frames to the groups of the bridge itself (01:80:c2:00:00:0X), which Linux does not pass by the filter unless its port
//! is told to: from a guest's port they are never the node's own input.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use common::{Namespace, Node, until};
use pve_public_ip::model::MacAddr;
use pve_public_ip::selftest::frames::{self, ALL_NODES, IP4, IP6, Mac};
use pve_public_ip::system::packet;

const GUEST: Mac = [2, 0, 0, 0, 0xbb, 0x30];
const BRIDGE_GROUP: Mac = [1, 0x80, 0xc2, 0, 0, 0];
const LLDP_GROUP: Mac = [1, 0x80, 0xc2, 0, 0, 0x0e];
const CREATE: &str = "pool create lan --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.1 203.0.113.8/29";

/// Guest 300, which nobody manages, on `vmbr0`; as on a plain Debian the node speaks IPv6 on its port.
struct Site {
    node: Node,
    guest: Namespace,
}

impl Site {
    fn new(bridge: &str) -> Self {
        let site = Self { node: Node::new(), guest: Namespace::new() };
        site.node.tree.qemu(300, "name: stranger\nnet0: virtio=02:00:00:00:BB:30,bridge=vmbr0\n");
        site.node.net.sh(&format!(
            "ip link set vmbr0 type bridge mcast_snooping 0 {bridge}
             for name in all default; do echo 0 > /proc/sys/net/ipv4/conf/$name/rp_filter; done
             ip link add tap300i0 address fe:00:00:00:bb:30 type veth peer name eth0 address 02:00:00:00:bb:30 netns {}
             echo 0 > /proc/sys/net/ipv6/conf/tap300i0/disable_ipv6; echo 2 > /proc/sys/net/ipv6/conf/tap300i0/accept_ra
             echo 0 > /proc/sys/net/ipv4/conf/tap300i0/rp_filter; ip link set tap300i0 master vmbr0 up",
            site.guest.path()
        ));
        site.guest.sh("ip link set eth0 up");
        let forwards = || site.node.net.sh("bridge link show dev tap300i0").contains("state forwarding");
        until("the port forwards", forwards);
        site
    }

    fn send(&self, frame: &[u8]) {
        self.guest.inside(|| packet::send("eth0".parse().unwrap(), &[frame.to_vec()]).unwrap());
    }

    fn dropped(&self, counter: &str) -> u64 {
        let text = self.node.net.sh(&format!("nft list counter bridge pve-public-ip {counter}"));
        let number = text.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        number.unwrap()
    }

    /// Sends it, and waits until the filter says that it has dropped it for this reason.
    fn is_dropped(&self, frame: &[u8], counter: &str) {
        let before = self.dropped(counter);
        self.send(frame);
        until(counter, || self.dropped(counter) > before);
    }
}

fn advertisement() -> Vec<u8> {
    let router: Ipv6Addr = MacAddr::from_octets(GUEST).link_local();
    let message = frames::icmp6(router, ALL_NODES, 134, &frames::ra_body(&[]));
    frames::ether(LLDP_GROUP, GUEST, IP6, &frames::ip6(router, ALL_NODES, frames::ICMP6, 255, &message))
}

#[test]
fn a_guest_gives_the_node_no_default_route() {
    let site = Site::new("");
    let routes = || site.node.net.sh("ip -6 route show default");
    until("the port has an address", || site.node.net.sh("ip -6 addr show dev tap300i0 -tentative").contains("fe80"));
    site.send(&advertisement());
    until("without a filter the node believes it", || routes().contains("tap300i0"));
    site.node.net.sh("ip -6 route flush default; ip -6 route flush proto ra");

    site.node.run(CREATE).ok();
    site.is_dropped(&advertisement(), "drop_rogue_router");
    assert_eq!(routes(), "");
    site.node.is_in_line();

    site.node.net.sh("ip link set tap300i0 type bridge_slave group_fwd_mask 0");
    let drift = site.node.run("verify");
    assert_eq!(drift.code, 3, "{drift}");
    assert!(drift.out.contains("tap300i0 takes frames to 01:80:c2:00:00:0e for the node's own"), "{drift}");
    site.node.run("apply").ok();
    site.is_dropped(&advertisement(), "drop_rogue_router");
    assert_eq!(routes(), "");
}

#[test]
fn what_a_guest_may_not_send_does_not_reach_a_socket() {
    let site = Site::new("");
    let own = site.node.net.sh("ip -4 -br addr show dev vmbr0");
    let own: Ipv4Addr = own.split_whitespace().last().unwrap().split('/').next().unwrap().parse().unwrap();
    let socket = site.node.net.inside(|| UdpSocket::bind("0.0.0.0:7777").unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    // Whose address that is: a guest's that is still to come.
    let forged = Ipv4Addr::new(203, 0, 113, 9);
    let datagram = |group: Mac, text: &[u8]| {
        let packet = frames::ip4(forged, own, frames::UDP, 0, &frames::udp(7777, 7777, text));
        frames::ether(group, GUEST, IP4, &packet)
    };
    let heard = || {
        let mut buffer = [0; 64];
        match socket.recv(&mut buffer) {
            Ok(length) => Some(buffer[..length].to_vec()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    };
    site.send(&datagram(LLDP_GROUP, b"first"));
    until("without a filter the socket hears it", || heard().as_deref() == Some(b"first"));
    site.node.run(CREATE).ok();
    for last in (0..16).filter(|last| *last != 1) {
        let group = [1, 0x80, 0xc2, 0, 0, last];
        site.is_dropped(&datagram(group, b"second"), "drop_reserved_address");
        assert_eq!(heard(), None, "{last:#x}");
    }
    // Pause frames go nowhere.
    site.send(&datagram([1, 0x80, 0xc2, 0, 0, 1], b"second"));
    site.is_dropped(&datagram(LLDP_GROUP, b"second"), "drop_reserved_address");
    assert_eq!(heard(), None);
}

/// Linux runs the protocol in its first network namespace only, so here what becomes of the frame has to do.
#[test]
fn a_bridge_with_spanning_tree_hears_nothing_of_it_from_guests() {
    let site = Site::new("stp_state 1 forward_delay 200");
    // Protocol 0, version 0, configuration, flags; root with priority 0, cost 0, the same as sender, port, four times.
    let id = [&[0, 0][..], &GUEST].concat();
    let times = [0, 0, 20, 0, 2, 0, 2, 0];
    let unit = [&[0x42, 0x42, 3, 0, 0, 0, 0, 0][..], &id, &[0; 4], &id, &[0x80, 1], &times].concat();
    let frame = frames::ether(BRIDGE_GROUP, GUEST, u16::try_from(unit.len()).unwrap(), &unit);
    site.node.run(CREATE).ok();
    site.is_dropped(&frame, "drop_link_local_group");

    // Without it a bridge passes them on, by which guests find loops of their own.
    site.node.net.sh("ip link set vmbr0 type bridge stp_state 0");
    site.node.run("apply").ok();
    site.node.is_in_line();
    let before = site.dropped("drop_link_local_group");
    site.send(&frame);
    site.is_dropped(&advertisement(), "drop_rogue_router");
    assert_eq!(site.dropped("drop_link_local_group"), before);
}

/// The state of a port is the bridge's business; who asks why nothing arrives is told.
#[test]
fn a_port_that_the_spanning_tree_holds_is_told_of() {
    let site = Site::new("");
    site.node.run(CREATE).ok();
    let explain = "explain --port tap300i0 --src 192.0.2.7 --mac 02:00:00:00:bb:30";
    let held = "vmbr0 passes nothing from or to tap300i0 now: its state is ";
    let run = site.node.run(explain).ok();
    assert!(!run.out.contains(held), "{run}");
    assert!(!site.node.run("doctor").out.contains("port-held-by-spanning-tree: "));
    // Linux lets go of a blocked port where the bridge takes no part in the protocol.
    for (state, name, why) in [
        ("1", "listening", "the spanning tree has it so"),
        ("2", "learning", "the spanning tree has it so"),
        ("0", "disabled", "the port is down"),
    ] {
        site.node.net.sh(&format!("bridge link set dev tap300i0 state {state}"));
        let run = site.node.run(explain).ok();
        assert!(run.out.contains(&format!("{held}{name}, because {why}\n")), "{run}");
        let run = site.node.run("doctor");
        let is_told = run.out.contains(&format!("tap300i0 is {name} in vmbr0"));
        assert_eq!(is_told, name != "disabled", "{run}");
        // No business of the filter.
        site.node.is_in_line();
    }
}
