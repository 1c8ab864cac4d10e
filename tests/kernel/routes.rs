//! Routes and neighbours of routed guests follow the guest.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::lab;
use crate::lab::{Lab, NODE, link_local, link_mac, sh, text, try_sh};
use crate::scene::{guest_mac, ip4, ip6};

const ROUTED: &str = "pool create routed --profile generic-routed --bridge vmbr0 203.0.113.10/32 2001:db8:0:1::10/128 198.51.100.8/29 2001:db8:100::/56";

fn routed_node() -> Lab {
    let lab = Lab::new();
    sh("ip addr add 192.0.2.1/24 dev vmbr0; ip addr add 2001:db8:ffff::1/64 dev vmbr0 nodad");
    // The way to the provider.
    sh(
        "ip link add wan0 type bridge; ip link set wan0 up; ip route add default dev wan0; ip -6 route add default dev wan0",
    );
    lab.guest(NODE, "qemu-server", 100, &format!("net0: virtio={},bridge=vmbr0\n", text(guest_mac(100, 0))));
    lab.ok(ROUTED);
    lab.ok("assign 100 203.0.113.10 2001:db8:0:1::10 198.51.100.8/29 2001:db8:100::/56");
    lab
}

#[test]
fn routes_follow_the_guest() {
    let mut lab = routed_node();
    // Else the bridge's MAC goes with its last port, and the kernel itself forgets all neighbours.
    sh("ip link set vmbr0 address 02:00:00:00:b0:00");
    lab.ok("apply");
    let routes = || sh("ip route show proto 121; ip -6 route show proto 121");
    lab.ok("hook 100 pre-start");
    assert_eq!(routes(), "", "no traffic before the guest is there");
    lab.plug("tap100i0", "vmbr0", guest_mac(100, 0));
    lab.bound("tap100i0", ip4(10), ip6(10));
    lab.listen_on_bridge();
    lab.settle();
    lab.ok("hook 100 post-start");
    lab.ok("verify");
    let found: BTreeSet<String> = routes()
        .lines()
        .map(|line| line.replace(" metric 1024", "").replace(" pref medium", "").trim().to_owned())
        .collect();
    let local = link_local(guest_mac(100, 0));
    assert_eq!(
        found,
        BTreeSet::from([
            "198.51.100.8/29 via 203.0.113.10 dev vmbr0 onlink".to_owned(),
            "203.0.113.10 dev vmbr0 scope link".to_owned(),
            "2001:db8:0:1::10 dev vmbr0".to_owned(),
            format!("2001:db8:100::/56 via {local} dev vmbr0 onlink"),
        ])
    );
    // They lead there: the guest receives what the node sends, to its addresses and to what is behind it.
    for address in ["203.0.113.10", "2001:db8:0:1::10", "198.51.100.9", "2001:db8:100:7::1"] {
        let wire = &lab.end("tap100i0").wire;
        wire.drain();
        try_sh(&format!("ping -n -c 1 -W 1 {address}"));
        let address: std::net::IpAddr = address.parse().unwrap();
        let octets = match address {
            std::net::IpAddr::V4(address) => address.octets().to_vec(),
            std::net::IpAddr::V6(address) => address.octets().to_vec(),
        };
        let mut arrived = false;
        while let Some(frame) = wire.receive(Duration::ZERO) {
            let at = if octets.len() == 4 { 30 } else { 38 };
            arrived |= frame[..6] == guest_mac(100, 0) && frame.get(at..at + octets.len()) == Some(&octets[..]);
        }
        assert!(arrived, "nothing for {address} reached the guest");
    }

    // Down in the reverse order: nobody sends to an address whose neighbour or filter is gone.
    let monitor = lab::monitor("ip monitor route neigh");
    lab.unplug("tap100i0");
    lab.ok("hook 100 post-stop");
    sh("ip link add the-last type bridge; ip link set the-last up; ip route add 192.0.2.0/28 dev the-last");
    let events = monitor.told_until("192.0.2.0/28 dev the-last");
    sh("ip link del the-last");
    let deleted: Vec<&str> =
        events.lines().filter(|line| line.starts_with("Deleted") && line.contains("proto 121")).collect();
    let route = |line: &str| !line.contains("lladdr") && !line.contains("FAILED");
    assert_eq!(deleted.iter().filter(|line| route(line)).count(), 4, "{events}");
    let last_route = deleted.iter().rposition(|line| route(line)).unwrap();
    let first_neighbour =
        deleted.iter().position(|line| !route(line)).unwrap_or_else(|| panic!("no neighbour was removed: {events}"));
    assert!(last_route < first_neighbour, "routes go before neighbours: {events}");
    assert_eq!(routes() + &sh("ip neigh show proto 121"), "");
    lab.ok("verify");
}

#[test]
fn neighbours_survive_another_mac_of_the_bridge() {
    // A bridge without a MAC of its own takes the lowest of its ports; when it changes, Linux forgets every
    // neighbour on it, the permanent ones too.
    let mut lab = routed_node();
    lab.guest(NODE, "qemu-server", 101, &format!("net0: virtio={},bridge=vmbr0\n", text(guest_mac(101, 0))));
    lab.ok("pool add routed 203.0.113.11/32");
    lab.ok("assign 101 203.0.113.11");
    let start = |lab: &mut Lab, vmid: u8| {
        lab.ok(&format!("hook {vmid} pre-start"));
        lab.plug(&format!("tap{vmid}i0"), "vmbr0", guest_mac(vmid, 0));
        lab.ok(&format!("hook {vmid} post-start"));
        lab.ok("verify");
        link_mac("vmbr0")
    };
    let before = start(&mut lab, 101);
    let after = start(&mut lab, 100);
    assert!(after < before, "the start of 100 changes the bridge's MAC");
    lab.unplug("tap100i0");
    lab.ok("hook 100 post-stop");
    lab.ok("verify");
    assert_eq!(link_mac("vmbr0"), before, "and its stop brings it back");
    assert!(sh("ip neigh show 203.0.113.11 dev vmbr0").contains("lladdr 02:00:00:00:00:65 PERMANENT"));
}

#[test]
fn a_foreign_route_is_never_replaced() {
    let mut lab = routed_node();
    sh("ip link add other0 type bridge; ip link set other0 up");
    for (family, net) in [("-4", "203.0.113.10/32"), ("-6", "2001:db8:0:1::10/128")] {
        sh(&format!("ip {family} route add {net} dev other0 proto static"));
        let foreign = sh(&format!("ip {family} route show {net}"));
        lab.ok("hook 100 pre-start");
        lab.plug("tap100i0", "vmbr0", guest_mac(100, 0));
        let failed = lab.run("hook 100 post-start");
        assert_eq!(failed.code, 1, "{failed}");
        let sentence = format!("{net} has a route that this program did not make (`{net} dev other0`)");
        assert!(failed.err.contains(&sentence), "{failed}");
        assert!(failed.err.contains(&format!("route del {net} dev other0 && ")), "{failed}");
        for command in ["verify", "apply"] {
            let said = lab.run(command);
            assert_eq!(said.code, 1, "{said}");
            assert!(said.out.contains(&format!("problem: guest 100: {sentence}")), "{said}");
            assert!(!said.out.contains("drift: "), "{said}");
        }
        assert_eq!(sh(&format!("ip {family} route show {net}")), foreign);
        lab.unplug("tap100i0");
        lab.ok("hook 100 post-stop");
        assert_eq!(sh(&format!("ip {family} route show {net}")), foreign, "post-stop removes only its own");
        sh(&format!("ip {family} route del {net} dev other0"));
    }
    lab.ok("apply");
    lab.ok("verify");
}
