//! Routed guests on a real kernel: a provider, a node that is no router, and guests behind it. What the node becomes for
//! them, and that it is afterwards what it was.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::collections::BTreeMap;

use common::{Namespace, Node, need};
use pve_public_ip::selftest::frames;
use pve_public_ip::system::packet;

/// A provider behind `eno1`, and guests on `vmbr1`, on which the node has no address.
struct Site {
    node: Node,
    provider: Namespace,
    guests: BTreeMap<u32, Namespace>,
}

/// On the wire the provider asks who has the addresses; or it sends what is for them to the node.
#[derive(Clone, Copy)]
enum Delivery {
    Asks,
    Sends,
}

/// No time is spent on looking whether somebody else on the wire has an address.
const QUICK: &str = "for name in all default; do echo 0 > /proc/sys/net/ipv6/conf/$name/accept_dad; done";

fn quick() -> Namespace {
    let namespace = Namespace::new();
    namespace.sh(QUICK);
    namespace
}

/// As with Proxmox VE's firewall: what is only bridged goes through the filters of routed traffic, too.
const BRIDGED_IS_FILTERED: &str =
    "for name in ip ip6; do echo 1 > /proc/sys/net/bridge/bridge-nf-call-${name}tables; done";

const ASKED: &str = "pool create net --profile ovh-routed --bridge vmbr1 --gateway4 169.254.0.1 --gateway6 fe80::1 \
    203.0.113.8/29 192.0.2.64/29 2001:db8:1::/64";

impl Site {
    fn new(delivery: Delivery) -> Self {
        need(&["ping"]);
        let site = Self { node: Node::new(), provider: quick(), guests: BTreeMap::new() };
        site.node.net.sh(QUICK);
        site.node.net.sh(&format!(
            "ip link del vmbr0; ip link add vmbr1 address 02:00:00:00:00:fe type bridge forward_delay 0 mcast_snooping 0; \
             ip link set vmbr1 up; ip link add eno1 type veth peer name wan netns {}; ip link set eno1 up",
            site.provider.path()
        ));
        site.provider.sh(
            "ip link set wan up; ip addr add 198.51.100.1/24 dev wan; ip addr add 2001:db8:7::1/64 dev wan nodad; \
             ip addr add 192.0.2.1/32 dev lo; ip addr add 2001:db8:99::1/128 dev lo",
        );
        site.node.net.sh("ip addr add 198.51.100.7/24 dev eno1; ip addr add 2001:db8:7::2/64 dev eno1 nodad; \
             ip route add default via 198.51.100.1; ip route add default via 2001:db8:7::1");
        let (via4, via6) = match delivery {
            Delivery::Asks => ("", ""),
            Delivery::Sends => ("via 198.51.100.7", "via 2001:db8:7::2"),
        };
        site.provider.sh(&format!(
            "for net in 203.0.113.8/29 192.0.2.64/29; do ip route add $net {via4} dev wan; done; \
             ip -6 route add 2001:db8:1::/64 {via6} dev wan"
        ));
        site
    }

    /// With guests 100 and 101, which hold neighbouring addresses.
    fn with_guests(delivery: Delivery, create: &str) -> Self {
        let mut site = Self::new(delivery);
        site.node.run(create).ok();
        for (vmid, last) in [(100, 10), (101, 11)] {
            site.configure(vmid, "");
            site.node.run(&format!("assign {vmid} 203.0.113.{last} 2001:db8:1::{last} --no-hookscript")).ok();
        }
        site
    }

    fn configure(&mut self, vmid: u32, more: &str) {
        self.node.tree.qemu(vmid, format!("net0: virtio=02:00:00:00:00:{:02X},bridge=vmbr1\n{more}", vmid - 36));
    }

    /// Starts a guest that has this address of each family.
    fn start(&mut self, vmid: u32, last: u32) {
        self.node.run(&format!("hook {vmid} pre-start")).ok();
        let guest = quick();
        self.node.net.sh(&format!(
            "ip link add tap{vmid}i0 address fe:00:00:00:00:{octet} type veth peer name eth0 address 02:00:00:00:00:{octet} netns {}; \
             ip link set tap{vmid}i0 master vmbr1 up",
            guest.path(),
            octet = format!("{:02x}", vmid - 36)
        ));
        guest.sh(&format!(
            "ip link set eth0 up; ip addr add 203.0.113.{last}/32 dev eth0; ip addr add 2001:db8:1::{last}/128 dev eth0 nodad; \
             ip route add 169.254.0.1 dev eth0; ip route add default via 169.254.0.1; ip route add default via fe80::1 dev eth0"
        ));
        self.node.run(&format!("hook {vmid} post-start")).ok();
        self.guests.insert(vmid, guest);
    }

    fn stop(&mut self, vmid: u32) {
        self.node.net.sh(&format!("ip link del tap{vmid}i0"));
        self.guests.remove(&vmid);
        self.node.run(&format!("hook {vmid} post-stop")).ok();
    }

    /// Everything about the node that routed guests change.
    fn state(&self) -> Vec<String> {
        let text = self
            .node
            .net
            .sh("ip neigh show nud permanent; ip route; ip -6 route show proto 121; ip -6 route show default");
        // Time passes.
        let lines = text.lines().map(|line| line.split(" expires ").next().unwrap().to_owned());
        self.node.net.support().into_iter().chain(lines).collect()
    }

    /// A router of the provider makes itself known, with the network that addresses are made of; returns when the node
    /// has learnt both.
    fn advertise(&self) {
        let (router, group) = ("fe80::7".parse().unwrap(), "ff02::1".parse().unwrap());
        let network = [0x20, 1, 0x0d, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let prefix = [&[3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 7, 8, 0, 0, 0, 0][..], &network].concat();
        let message = frames::icmp6(router, group, 134, &frames::ra_body(&prefix));
        let packet = frames::ip6(router, group, frames::ICMP6, 255, &message);
        let frame = frames::ether(frames::group_mac(group), [2, 0, 0, 0, 7, 1], frames::IP6, &packet);
        self.provider.inside(|| packet::send("wan".parse().unwrap(), &[frame]).unwrap());
        self.node.net.sh(
            "n=0; until ip -6 route show default | grep -q 'via fe80::7 dev eno1 proto ra' && ip -6 addr show dev eno1 scope global | grep -q dynamic; \
             do n=$((n+1)); [ $n -lt 1200 ]; sleep 0.05; done",
        );
    }

    fn proxied(&self) -> Vec<String> {
        let text = self.node.net.sh("ip neigh show proxy");
        let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        lines.sort_unstable();
        lines
    }

    fn setting(&self, path: &str) -> String {
        self.node.net.sh(&format!("cat /proc/sys/net/{path}")).trim().to_owned()
    }
}

/// Whether an echo comes back.
fn reaches(from: &Namespace, address: &str) -> bool {
    let output = from.command("ping").args(["-n", "-q", "-c", "2", "-i", "0.2", "-W", "1", address]).output().unwrap();
    output.status.success()
}

#[track_caller]
fn pinged(from: &Namespace, addresses: &[&str]) {
    for address in addresses {
        // A new port forwards after a second at the latest.
        assert!((0..5).any(|_| reaches(from, address)), "{address} does not answer");
    }
}

#[test]
fn guests_reach_the_world_through_a_node_that_was_no_router() {
    for (delivery, create) in
        [(Delivery::Asks, ASKED.to_owned()), (Delivery::Sends, ASKED.replace("ovh-routed", "hetzner-routed"))]
    {
        let mut site = Site::with_guests(delivery, &create);
        let before = site.state();
        assert!(before.contains(&"ipv4/ip_forward:0".to_owned()), "{before:?}");
        site.start(100, 10);
        site.node.is_in_line();
        pinged(&site.guests[&100], &["192.0.2.1", "2001:db8:99::1"]);
        pinged(&site.provider, &["203.0.113.10", "2001:db8:1::10"]);
        assert!(!reaches(&site.provider, "203.0.113.11"), "nobody runs with it");
        let with_one = site.state();

        // The second one shares what is there, and its going leaves it to the first.
        site.start(101, 11);
        site.node.is_in_line();
        pinged(&site.guests[&101], &["192.0.2.1", "2001:db8:99::1", "203.0.113.10", "2001:db8:1::10"]);
        pinged(&site.provider, &["203.0.113.11", "2001:db8:1::11", "203.0.113.10", "2001:db8:1::10"]);
        let asked = matches!(delivery, Delivery::Asks);
        let all = ["2001:db8:1::10", "2001:db8:1::11", "203.0.113.10", "203.0.113.11"];
        let expected: Vec<String> = all.iter().map(|address| format!("{address} dev eno1 proxy proto 121")).collect();
        assert_eq!(site.proxied(), if asked { expected } else { Vec::new() });
        assert_eq!(site.setting("ipv6/conf/eno1/proxy_ndp"), if asked { "1" } else { "0" });
        assert_eq!(site.setting("ipv4/ip_forward"), "0", "IPv4 is forwarded where it is needed only");
        site.stop(101);
        assert_eq!(site.state(), with_one);
        site.node.is_in_line();
        pinged(&site.provider, &["203.0.113.10", "2001:db8:1::10"]);

        site.stop(100);
        assert_eq!(site.state(), before);
        site.node.is_in_line();
    }
}

#[test]
fn what_others_have_set_stays() {
    let mut site = Site::with_guests(Delivery::Asks, ASKED);
    // Right already, or right for one interface of all: not ours.
    site.node.net.sh("cd /proc/sys/net; echo 1 > ipv4/conf/eno1/forwarding; echo 1 > ipv6/conf/eno1/proxy_ndp; \
         echo 1 > ipv6/conf/lo/forwarding; echo 1 > ipv6/conf/default/forwarding");
    let before = site.state();
    site.start(100, 10);
    pinged(&site.provider, &["203.0.113.10", "2001:db8:1::10"]);
    site.stop(100);
    assert_eq!(site.state(), before);

    // Changed by somebody else while a guest runs: theirs from then on.
    site.start(100, 10);
    site.node.net.sh("cd /proc/sys/net; echo 1 > ipv4/ip_forward; echo 0 > ipv6/conf/eno1/proxy_ndp");
    let run = site.node.run("verify");
    assert_eq!(run.code, 3, "{run}");
    assert_eq!(
        run.out.lines().next(),
        Some("drift: net/ipv6/conf/eno1/proxy_ndp is not 1: nobody answers for routed guests' IPv6 addresses on eno1")
    );
    site.stop(100);
    let now = |path: &str| site.setting(path);
    assert_eq!(now("ipv6/conf/eno1/proxy_ndp"), "0");
    assert_eq!(now("ipv6/conf/all/forwarding"), "0");
    assert_eq!((now("ipv4/conf/vmbr1/forwarding"), now("ipv4/conf/eno1/forwarding")), ("1".to_owned(), "1".to_owned()));
    site.node.is_in_line();
}

#[test]
fn routes_learnt_from_the_provider_survive() {
    let mut site = Site::with_guests(Delivery::Asks, ASKED);
    site.node.net.sh("ip -6 route del default; ip addr del 2001:db8:7::2/64 dev eno1");
    site.provider.sh("ip addr add fe80::7/64 dev wan nodad; ip link set wan address 02:00:00:00:07:01");
    site.advertise();
    let before = site.state();
    site.start(100, 10);
    assert_eq!(site.setting("ipv6/conf/eno1/accept_ra"), "2");
    assert_eq!(site.setting("ipv6/conf/vmbr1/accept_ra"), "1", "nothing has been learnt there");
    let now = site.state();
    let learnt = before.iter().filter(|line| line.contains("proto ra") || line.contains("dynamic"));
    assert_eq!(learnt.filter(|line| now.contains(line)).count(), 2, "{before:#?}\n{now:#?}");
    site.node.is_in_line();
    pinged(&site.guests[&100], &["2001:db8:99::1"]);
    pinged(&site.provider, &["2001:db8:1::10"]);
    // Nor is the node deaf to what comes later.
    site.node.net.sh("ip -6 route flush proto ra; ip -6 addr flush dev eno1 scope global");
    assert!(!site.state().iter().any(|line| line.contains("proto ra") || line.contains("dynamic")));
    site.advertise();
    site.node.is_in_line();
    site.stop(100);
    assert_eq!(site.state(), before);
}

#[test]
fn a_prefix_is_routed_behind_a_firewall_guest() {
    let mut site = Site::with_guests(Delivery::Asks, ASKED);
    site.provider.sh("ip -6 route replace 2001:db8:1::/64 via 2001:db8:7::2 dev wan");
    site.node.net.sh(BRIDGED_IS_FILTERED);
    site.node.net.sh("ip link add vmbr2 type bridge forward_delay 0; ip link set vmbr2 up");
    site.configure(100, "net1: virtio=02:00:00:00:01:40,bridge=vmbr2\n");
    site.node.tree.qemu(300, "net0: virtio=02:00:00:00:01:2C,bridge=vmbr2\n");
    let run = site.node.run("assign 100 192.0.2.64/29 2001:db8:1:0:1::/80 --no-hookscript").ok();
    let before = site.state();
    site.start(100, 10);
    let lan = quick();
    let firewall = &site.guests[&100];
    site.node.net.sh(&format!(
        "ip link add tap100i1 type veth peer name eth1 address 02:00:00:00:01:40 netns {}; ip link set tap100i1 master vmbr2 up; \
         ip link add tap300i0 type veth peer name eth0 address 02:00:00:00:01:2c netns {}; ip link set tap300i0 master vmbr2 up",
        firewall.path(),
        lan.path()
    ));
    firewall.sh(
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; ip link set eth1 up; \
         ip addr add 192.0.2.65/29 dev eth1; ip addr add 2001:db8:1:0:1::1/80 dev eth1 nodad",
    );
    lan.sh(
        "ip link set eth0 up; ip addr add 192.0.2.66/29 dev eth0; ip addr add 2001:db8:1:0:1::66/80 dev eth0 nodad; \
         ip route add default via 192.0.2.65; ip route add default via 2001:db8:1:0:1::1",
    );
    site.node.run("apply").ok();
    pinged(&lan, &["198.51.100.1", "2001:db8:99::1"]);
    pinged(&site.provider, &["192.0.2.66", "2001:db8:1:0:1::66", "203.0.113.10"]);
    assert_eq!(
        site.proxied().iter().filter(|line| line.starts_with("192.0.2.6") || line.starts_with("192.0.2.7")).count(),
        8
    );
    // Of an IPv6 prefix that cannot be done, which is said.
    let note = "note: the node does not answer for 2001:db8:1:0:1::/80 of guest 100: no prefix can be named as a whole, and its addresses are too many\n  \
        hint: have the provider route it to the node; else `ndppd` answers for IPv6 prefixes (pool `net`)\n";
    let verify = site.node.run("verify").ok();
    assert!(verify.out.ends_with(note), "{verify}\n{run}");
    site.node.net.sh("ip link del tap100i1; ip link del tap300i0");
    site.stop(100);
    assert_eq!(site.state(), before);
}

#[test]
fn on_a_bridge_that_spans_nodes_no_guest_is_routed() {
    let site = Site::with_guests(Delivery::Asks, ASKED);
    site.node
        .net
        .sh("ip link add vxlan_v1 type vxlan id 7 dstport 4789 local 198.51.100.7; ip link set vxlan_v1 master vmbr1");
    let (why, hint) = (
        "vmbr1 reaches other nodes by VXLAN (vxlan_v1), so that a guest's address would be routed on one node and used on another",
        "take a zone without VXLAN, or take a bridge of its own for the pool",
    );
    let sentence = format!("203.0.113.10 cannot be routed to guest 100 net0: {why}");
    site.node.changes_nothing("hook 100 pre-start").fails(1, &sentence, hint);
    site.node.run("apply").ok();
    let verify = site.node.run("verify");
    assert_eq!(verify.code, 1, "{verify}");
    assert!(verify.out.contains(&format!("problem: {sentence}\n  hint: {hint}\n")), "{verify}");
}

#[test]
fn the_nic_firewall_and_br_netfilter_stand_in_nobodys_way() {
    let mut site = Site::with_guests(Delivery::Asks, ASKED);
    site.node.net.sh(BRIDGED_IS_FILTERED);
    site.node.tree.qemu(100, "net0: virtio=02:00:00:00:00:40,bridge=vmbr1,firewall=1\n");
    site.start(100, 10);
    site.node.net.sh(
        "ip link add fwbr100i0 type bridge forward_delay 0; ip link add fwln100i0 type veth peer name fwpr100p0; \
         ip link set tap100i0 master fwbr100i0; ip link set fwln100i0 master fwbr100i0 up; \
         ip link set fwpr100p0 master vmbr1 up; ip link set fwbr100i0 up",
    );
    site.node.run("hook 100 post-start").ok();
    site.node.run("apply").ok();
    pinged(&site.guests[&100], &["192.0.2.1", "2001:db8:99::1"]);
    pinged(&site.provider, &["203.0.113.10", "2001:db8:1::10"]);
}

/// A tunnel: nobody asks there who has an address, so nobody needs an answer.
#[test]
fn where_there_is_no_arp_the_node_answers_for_nobody() {
    let mut site = Site::new(Delivery::Sends);
    site.node
        .net
        .sh("ip link add tunnel0 type veth peer name far0; ip link set far0 up; ip link set tunnel0 arp off up; ip addr add 10.9.9.2/24 dev tunnel0; \
        ip route replace default dev tunnel0; ip -6 route replace default dev tunnel0");
    let run = site.node.run(ASKED).ok();
    assert!(
        run.out.contains("the node forwards IPv4 on tunnel0 and vmbr1") && !run.out.contains("answers for"),
        "{run}"
    );
    site.configure(100, "");
    site.node.run("assign 100 203.0.113.10 2001:db8:1::10 --no-hookscript").ok();
    site.start(100, 10);
    assert_eq!(site.proxied(), [""; 0]);
    site.node.run("verify").ok();
    site.stop(100);
    site.node.run("verify").ok();
}
