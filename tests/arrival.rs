//! A routed guest that arrives by live migration: it must not look for its gateway at the node that it came from.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Namespace, Node, need};

/// A guest is without its gateway for less: as a rule for a tenth of a second, on a loaded machine for some. Who is told
/// nothing finds out after half a minute.
const GAP: Duration = Duration::from_secs(15);

const PATIENCE: Duration = Duration::from_secs(60);

const CREATE: &str = "pool create net --profile ovh-routed --bridge vmbr1 --gateway4 169.254.0.1 --gateway6 fe80::1 \
    203.0.113.8/29 2001:db8:1::/64";

struct Guard(Child);

impl Guard {
    fn start(node: &Node) -> Self {
        let log = File::create(node.tree.path("guard.log")).unwrap();
        let guard = Self(node.command(&["-v", "guard"]).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let ready = format!("guard: watching node {}", node.tree.name);
        within(PATIENCE, &ready, || node.tree.read("guard.log").contains(&ready));
        guard
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn within(limit: Duration, what: &str, is_so: impl Fn() -> bool) -> Duration {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    started.elapsed()
}

/// Two nodes with a bridge each, of the same name and another MAC, and a way to a provider.
fn nodes() -> [Node; 2] {
    need(&["ping"]);
    let first = Node::new();
    let second = Node { tree: first.tree.beside("n2"), net: Namespace::new() };
    for (node, last) in [(&first, "a1"), (&second, "a2")] {
        node.net.sh(&format!(
            "for name in all default; do echo 0 > /proc/sys/net/ipv6/conf/$name/accept_dad; done
             ip link add vmbr1 address 02:00:00:00:00:{last} type bridge forward_delay 0 mcast_snooping 0
             ip link set vmbr1 up; ip link add eno1 type veth peer name wan; ip link set eno1 up; ip link set wan up
             ip addr add 198.51.100.7/24 dev eno1; ip route add default via 198.51.100.1"
        ));
    }
    [first, second]
}

/// Its NIC is a bridge of its own with a port that does nothing, so that it does not notice that its link moves: QEMU's
/// guests notice nothing either.
fn guest() -> Namespace {
    let guest = Namespace::new();
    guest.sh("for name in all default; do echo 0 > /proc/sys/net/ipv6/conf/$name/accept_dad; done
        ip link add eth0 address 02:00:00:00:00:40 type bridge forward_delay 0 mcast_snooping 0
        ip link add idle type veth peer name other; ip link set other up; ip link set idle master eth0 up; ip link set eth0 up
        ip addr add 203.0.113.10/32 dev eth0; ip addr add 2001:db8:1::10/128 dev eth0 nodad
        ip route add 169.254.0.1 dev eth0; ip route add default via 169.254.0.1
        ip -6 route add default via fe80::1 dev eth0");
    guest
}

fn plug(node: &Node, guest: &Namespace) {
    node.net.sh(&format!(
        "ip link add tap100i0 address fe:00:00:00:00:40 type veth peer name wire netns {}
         echo 1 > /proc/sys/net/ipv6/conf/tap100i0/disable_ipv6; ip link set tap100i0 master vmbr1 up",
        guest.path()
    ));
    guest.sh("ip link set wire master eth0 up");
}

/// Where the guest looks for its gateways.
fn known(guest: &Namespace, gateway: &str) -> String {
    let shown = guest.sh(&format!("ip neigh show {gateway} dev eth0"));
    let mut words = shown.split_whitespace().skip_while(|word| *word != "lladdr").skip(1);
    words.next().unwrap_or_default().to_owned()
}

fn start(node: &Node, guest: &Namespace) {
    node.run(CREATE).ok();
    node.tree.qemu(100, "net0: virtio=02:00:00:00:00:40,bridge=vmbr1\n");
    node.run("assign 100 203.0.113.10 2001:db8:1::10 --no-hookscript").ok();
    node.run("hook 100 pre-start").ok();
    plug(node, guest);
    node.run("hook 100 post-start").ok();
    for gateway in ["169.254.0.1", "fe80::1%eth0"] {
        within(PATIENCE, gateway, || {
            let ping = guest.command("ping").args(["-n", "-q", "-c", "1", "-W", "1", gateway]).output().unwrap();
            ping.status.success()
        });
    }
}

#[test]
fn a_guest_that_arrives_finds_its_gateway_at_once() {
    let [source, target] = nodes();
    let guest = guest();
    start(&source, &guest);
    for gateway in ["169.254.0.1", "fe80::1"] {
        assert_eq!(known(&guest, gateway), "02:00:00:00:00:a1");
    }
    target.run("apply").ok();
    let _guard = Guard::start(&target);
    // The order of qm: the target's hooks, then its port, then the configuration moves and the guest goes on there.
    let migration = [("PVE_MIGRATED_FROM", "n1")];
    target.run_with("hook 100 pre-start", &migration).ok();
    source.net.sh("ip link del tap100i0");
    plug(&target, &guest);
    target.run_with("hook 100 post-start", &migration).ok();
    assert_eq!(known(&guest, "169.254.0.1"), "02:00:00:00:00:a1", "what the guest knows has moved with it");
    fs::rename(
        source.tree.path("etc/pve/nodes/n1/qemu-server/100.conf"),
        source.tree.path("etc/pve/nodes/n2/qemu-server/100.conf"),
    )
    .unwrap();
    let moved = Instant::now();
    for gateway in ["169.254.0.1", "fe80::1"] {
        within(GAP.saturating_sub(moved.elapsed()), gateway, || known(&guest, gateway) == "02:00:00:00:00:a2");
    }
    let ping = guest.command("ping").args(["-n", "-q", "-c", "1", "-W", "2", "169.254.0.1"]).output().unwrap();
    assert!(ping.status.success());
}

#[test]
fn guests_hear_of_a_bridge_that_has_another_mac_or_its_gateway_back() {
    let [node, _] = nodes();
    let guest = guest();
    start(&node, &guest);
    let _guard = Guard::start(&node);
    node.net.sh("ip link set vmbr1 address 02:00:00:00:00:a3");
    for gateway in ["169.254.0.1", "fe80::1"] {
        within(GAP, gateway, || known(&guest, gateway) == "02:00:00:00:00:a3");
    }
    guest.sh("ip neigh replace 169.254.0.1 lladdr 02:00:00:00:00:a1 dev eth0 nud stale");
    node.net.sh("ip addr del 169.254.0.1/32 dev vmbr1");
    within(GAP, "the gateway is back", || known(&guest, "169.254.0.1") == "02:00:00:00:00:a3");
}
