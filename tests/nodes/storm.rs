//! Everybody starts at once, and stops at once: a node that boots. What it costs is measured by `benches/storm`.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use pve_public_ip::system::tun::Tap;
use serde_json::json;

use crate::common::{BRIDGE, Namespace, Node, Tree};
use crate::lab::Guard;

/// Of each family, for each guest.
const ADDRESSES: u32 = 5;
/// Tasks of Proxmox VE at the same time.
const TASKS: usize = 8;

/// Guest 1000 and following, with their addresses.
fn node(guests: u32) -> Node {
    let node = Node { tree: Tree::new(), net: Namespace::new() };
    node.net.sh(BRIDGE);
    node.net
        .sh("ip addr add 2001:db8:0:1::250/64 dev vmbr0 nodad; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6");
    node.run("pool create storm --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.1 198.18.0.0/16 2001:db8:1::/64").ok();
    for number in 0..guests {
        let mac = format!("02:00:00:01:00:{number:02x}");
        let vmid = 1000 + number;
        node.tree.qemu(vmid, format!("net0: virtio={mac},bridge=vmbr0\n"));
        let v4 = (0..ADDRESSES).map(|at| format!("198.18.{number}.{}/32", 2 * at));
        let v6 = (0..ADDRESSES).map(|at| format!("2001:db8:1::{number:x}:{at}/128"));
        let assigned = |address| json!({ "address": address, "pool": "storm", "assigned_at": "2026-11-22T10:00:00Z" });
        let addresses: Vec<_> = v4.chain(v6).map(assigned).collect();
        let file =
            json!({ "version": 1, "vmid": vmid, "interfaces": { "net0": { "mac": mac, "addresses": addresses } } });
        node.tree.write(&Tree::guest_file(vmid), file.to_string());
    }
    node
}

/// Does something for every guest, several at a time and in no order.
fn for_all(guests: u32, body: impl Fn(u32) + Sync) {
    let next = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..TASKS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= guests {
                        break;
                    }
                    body(1000 + number);
                }
            });
        }
    });
}

fn starts_and_stops(node: &Node, guests: u32) {
    let known = node.tree.lasting();
    let taps = Mutex::new(BTreeMap::new());
    for_all(guests, |vmid| {
        node.run_with(&format!("hook {vmid} pre-start"), &[("PVE_MIGRATED_FROM", "")]).ok();
        let port = format!("tap{vmid}i0");
        let tap = node.net.inside(|| Tap::new(port.parse().unwrap())).expect("make a tap device (/dev/net/tun)");
        node.net.sh(&format!("ip link set {port} master vmbr0 up"));
        taps.lock().unwrap().insert(vmid, tap);
        node.run_with(&format!("hook {vmid} post-start"), &[("PVE_MIGRATED_FROM", "")]).ok();
    });
    let verify = node.run("verify").ok();
    assert!(verify.out.ends_with(&format!("as it should be, {guests} guests are bound\n")), "{verify}");
    // What `verify` says is checked by somebody else.
    let ports = usize::try_from(guests).unwrap();
    let addresses = ports * usize::try_from(ADDRESSES).unwrap();
    // With the link-local address that each MAC makes.
    for (set, size) in [
        ("ports", ports),
        ("port_mac", ports),
        ("bound_mac", ports),
        // Once for frames to the port's own MAC, once for those to a group.
        ("port_ip4", 2 * addresses),
        ("bound_ip4", addresses),
        ("port_ip6", 2 * (addresses + ports)),
        ("bound_ip6", addresses + ports),
    ] {
        assert_eq!(node.net.set(set).len(), size, "{set}");
    }
    assert_eq!(node.net.marked().len(), 2 * addresses, "neighbours");
    assert_eq!(node.net.sh("bridge fdb show | grep -c sticky").trim(), guests.to_string(), "forwarding entries");

    for_all(guests, |vmid| {
        node.run(&format!("hook {vmid} pre-stop")).ok();
        drop(taps.lock().unwrap().remove(&vmid));
        node.net.until_gone(&format!("tap{vmid}i0"));
        node.run(&format!("hook {vmid} post-stop")).ok();
    });
    node.is_in_line();
    for set in ["ports", "port_mac", "bound_mac", "port_ip4", "bound_ip4", "port_ip6", "bound_ip6"] {
        assert_eq!(node.net.set(set), [""; 0], "{set}");
    }
    assert_eq!(node.net.marked(), [""; 0]);
    assert_eq!(node.net.sh("bridge fdb show | grep sticky || true"), "");
    // Each guest's part of the pools is kept for its next start.
    let kept = node.tree.volatile();
    let left: Vec<_> = kept.difference(&known).filter(|path| path.starts_with("guests/")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_boot_with_hooks_alone() {
    starts_and_stops(&node(100), 100);
}

#[test]
fn a_boot_with_the_guard() {
    let node = node(50);
    let _guard = Guard::start(&node);
    starts_and_stops(&node, 50);
}
