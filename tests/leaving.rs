//! How the program goes: addresses of all guests released, a node without it, a package that is removed while guests run.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::os::fd::AsFd as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{CREATE_ROUTED, Ends, Namespace, Node, PATIENCE, PROVIDER, until};
use pve_public_ip::selftest::frames::{self, BROADCAST, IP4, Mac};
use pve_public_ip::system::packet::{self, Wire};

const BOUND: Mac = [2, 0, 0, 0xaa, 0xbb, 0];
const STRANGER: Mac = [2, 0, 0, 0, 0xbb, 0x30];

/// The node with guest 100, which runs with 203.0.113.10, guest 300, which nobody manages, and an uplink; what goes out
/// by it and what comes to the guests is heard in a namespace of its own.
struct Site {
    node: Node,
    outside: Namespace,
}

impl Site {
    fn new() -> Self {
        let site = Self { node: Node::with_pool(), outside: Namespace::new() };
        site.node.stand_in_proxmox();
        site.node.tree.qemu(300, "name: stranger\nnet0: virtio=02:00:00:00:BB:30,bridge=vmbr0\n");
        site.node.net.sh("ip link set vmbr0 type bridge mcast_snooping 0");
        site.plug("eno1", "02:00:00:00:ff:01");
        site.plug("tap300i0", "02:00:00:00:bb:30");
        site.node.run("assign 100 203.0.113.10").ok();
        site.node.run("hook 100 pre-start").ok();
        site.plug("tap100i0", "02:00:00:aa:bb:00");
        site.node.run("hook 100 post-start").ok();
        site.node.is_in_line();
        site
    }

    fn plug(&self, port: &str, mac: &str) {
        let end = &port[..4];
        self.node.net.sh(&format!(
            "ip link add {port} address fe:00:00:00:00:01 type veth peer name {end}x address {mac} netns {}
             ip link set {port} master vmbr0 up",
            self.outside.path()
        ));
        self.outside.sh(&format!("sysctl -qw net.ipv6.conf.{end}x.disable_ipv6=1; ip link set {end}x up"));
        let forwards = || self.node.net.sh(&format!("bridge link show dev {port}")).contains("state forwarding");
        until("the port forwards", forwards);
    }

    /// Whether a packet of this sender gets from one port to another; one from `honest`, which passes, comes behind it.
    fn passes(&self, port: &str, mac: Mac, source: &str, honest: &str) -> bool {
        let (from, to) = (format!("{}x", &port[..4]), if port == "tap3" { "eno1x" } else { "tap3x" });
        let frame = |source: &str, mark: &[u8]| {
            let packet = frames::udp(4000, 4001, mark);
            let to = "198.51.100.1".parse().unwrap();
            frames::ether(BROADCAST, mac, IP4, &frames::ip4(source.parse().unwrap(), to, frames::UDP, 0, &packet))
        };
        let (asked, fence) = (frame(source, b"is it heard"), frame(honest, b"nothing comes behind it"));
        self.outside.inside(|| {
            let wire = Wire::open(to.parse().unwrap()).unwrap();
            packet::send(from.parse().unwrap(), &[asked.clone(), fence.clone()]).unwrap();
            let (started, mut heard, mut buffer) = (Instant::now(), false, [0; 2048]);
            loop {
                assert!(started.elapsed() < PATIENCE, "an honest packet from {port} does not arrive");
                let next = || wire.receive_incoming(&mut buffer);
                let Some(bytes) = packet::in_time(wire.as_fd(), Duration::from_secs(1), next).unwrap() else {
                    continue;
                };
                heard |= bytes == asked;
                if bytes == fence {
                    return heard;
                }
            }
        })
    }

    fn bound_guest_sends(&self, source: &str) -> bool {
        self.passes("tap1", BOUND, source, "203.0.113.10")
    }

    fn stranger_sends(&self, source: &str) -> bool {
        self.passes("tap3", STRANGER, source, "198.51.100.77")
    }
}

#[test]
fn a_package_that_goes_holds_nobody_back_and_leaves_who_runs_bound() {
    let site = Site::new();
    let node = &site.node;
    assert!(site.bound_guest_sends("203.0.113.10"));
    assert!(!site.bound_guest_sends("203.0.113.11"));
    assert!(!site.stranger_sends("203.0.113.12"), "it is reserved");

    let shown = node.changes_nothing("uninstall --keep-running").ok();
    assert!(
        shown.out.ends_with("nothing is changed yet: `pve-public-ip uninstall --keep-running --yes` does this\n"),
        "{shown}"
    );
    let before = node.net.marked();
    let done = node.run("uninstall --keep-running --yes").ok();
    assert!(
        done.out.ends_with("guests that run stay bound until this node boots; nobody else is held back\n"),
        "{done}"
    );
    assert_eq!(node.net.marked(), before, "routes and neighbours");
    assert_eq!(node.calls(), ["qm set 100 --hookscript local:snippets/pve-public-ip"], "no hookscript is touched");

    assert!(site.bound_guest_sends("203.0.113.10"));
    assert!(!site.bound_guest_sends("203.0.113.11"), "who runs is still bound");
    assert!(site.stranger_sends("203.0.113.12"), "nothing is reserved any more");
    node.run("uninstall --keep-running --yes").prints("nothing of pve-public-ip is left to take out\n");

    // Installed again, it is as before.
    node.run("apply").ok();
    node.is_in_line();
    assert!(!site.stranger_sends("203.0.113.12"));
}

#[test]
fn a_node_is_as_before_when_the_program_has_left_it() {
    let site = Site::new();
    let node = &site.node;
    let shown = node.changes_nothing("uninstall").ok();
    for said in [
        "hookscript of guest 100: qm set 100 --delete hookscript (not run)\n",
        "note: 1 guest of this node still holds addresses, which nothing protects here any more\n",
        "nothing is changed yet: `pve-public-ip uninstall --yes` does this\n",
    ] {
        assert!(shown.out.contains(said), "{shown}");
    }
    let registry = node.tree.registry();
    let done = node.run("uninstall --yes").ok();
    assert!(done.out.contains("hookscript of guest 100: qm set 100 --delete hookscript\n"), "{done}");
    assert_eq!(node.net.filter(), None);
    assert_eq!(node.net.marked(), [""; 0]);
    assert!(node.tree.registry() == registry, "pools and assignments are the cluster's");
    assert!(site.bound_guest_sends("203.0.113.11") && site.stranger_sends("203.0.113.12"));
    let left: Vec<_> = std::fs::read_dir(node.tree.path("run/pve-public-ip")).unwrap().collect();
    assert_eq!(left.len(), 1, "the lock alone: {left:?}");
    let again = node.run("uninstall --yes").ok();
    assert!(again.out.starts_with("nothing of pve-public-ip is left to take out\n"), "{again}");
    let json = node.run("uninstall --yes --output-format json").ok().json();
    assert_eq!((&json["changed"], &json["holders"]), (&false.into(), &1.into()));
}

/// What routed guests need of the node around them goes, too, and settings are again what they were.
#[test]
fn settings_and_gateways_of_routed_guests_go() {
    let node = Node::new();
    node.stand_in_proxmox();
    node.net.sh(PROVIDER);
    let before = node.net.support();
    node.run(CREATE_ROUTED).ok();
    node.run("assign 100 192.0.2.9 2001:db8:1::9/128").ok();
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    node.run("hook 100 post-start").ok();
    assert_ne!(node.net.support(), before);
    node.run("uninstall --keep-running --yes").ok();
    assert_ne!(node.net.marked(), [""; 0], "a routed guest that runs keeps its route");
    assert_eq!(node.net.sh("nft list tables inet"), "", "nothing holds back what the node routes");
    node.run("uninstall --yes").ok();
    assert_eq!(node.net.marked(), [""; 0]);
    assert_eq!(node.net.support(), before);
}

#[test]
fn with_a_guard_of_somebody_else_nothing_is_taken_away() {
    let site = Site::new();
    let guard = site.node.command(&["guard"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = guard.id();
    let guard = Ends(guard);
    let noted = || site.node.run("status --output-format json").out.contains(&format!("\"pid\":{pid}"));
    until("the guard has started", noted);
    let filter = site.node.net.filter();
    site.node.run("uninstall --yes").fails(
        1,
        &format!("the guard still runs (process {pid}), and would put everything back"),
        &format!("`systemctl disable --now pve-public-ip.service`, or `kill {pid}` if it was started by hand"),
    );
    assert!(site.node.net.filter() == filter);
    assert!(site.node.tree.read("etc/pve/nodes/n1/qemu-server/100.conf").contains("hookscript"));
    drop(guard);
    site.node.run("uninstall --yes").ok();
    assert_eq!(site.node.net.filter(), None);
}

#[test]
fn all_addresses_are_released_when_that_is_confirmed() {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    node.tree.write(
        "etc/pve/nodes/n1/qemu-server/100.conf",
        "name: web\nhookscript: local:snippets/own.pl\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n",
    );
    node.run("pool create other --profile generic-bridged --bridge vmbr0 --gateway4 198.51.100.1 198.51.100.9").ok();
    node.run("assign 100 203.0.113.10 198.51.100.9").ok();
    node.run("assign 200 203.0.113.11").ok();
    let shown = node.changes_nothing("release --all").ok();
    assert!(shown.out.contains("203.0.113.10 would be released from guest 100\n"), "{shown}");
    assert!(
        shown.out.ends_with("nothing is changed yet: `pve-public-ip release --all --yes` releases them\n"),
        "{shown}"
    );
    let of_pool = node.changes_nothing("release --all --pool other --dry-run").ok();
    assert!(of_pool.out.starts_with("198.51.100.9 would be released from guest 100\n"), "{of_pool}");
    assert!(!of_pool.out.contains("203.0.113."), "{of_pool}");
    node.run("release --all --pool other --yes").ok();
    assert!(!node.run("list").out.contains("198.51.100.9"));
    let done = node.run("release --all --yes --output-format json").ok().json();
    assert_eq!(done["guests"].as_array().unwrap().len(), 2, "{done}");
    assert!(node.tree.read("etc/pve/nodes/n1/qemu-server/100.conf").contains("hookscript: local:snippets/own.pl"));
    node.run("release --all --yes").prints("no guest holds an address: nothing to do\n");
    node.run("release --all --pool nobodys").fails(1, "there is no pool `nobodys`", "there is: other, ovh-rbx");
    assert_eq!(node.run("release").code, 2);
    assert_eq!(node.run("release 100 --all").code, 2);
}

/// What cannot be read holds addresses, too.
#[test]
fn with_a_file_that_cannot_be_read_not_all_are_released() {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10").ok();
    node.run("assign 200 203.0.113.11").ok();
    node.tree.write(&common::Tree::guest_file(200), "{ half a fi");
    let run = node.changes_nothing("release --all --yes");
    assert_eq!(run.code, 4, "{run}");
    assert!(run.err.contains("200.json"), "{run}");
}
