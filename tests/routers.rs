//! Routers behind the uplink on a real kernel: learnt without being named, protected from every guest, and never at the
//! expense of somebody here.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Namespace, Node, need};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pve_public_ip::selftest::frames::{self, Arp, Mac};
use pve_public_ip::system::packet::{self, Wire};

const GATEWAY: &str = "02:00:00:00:0f:01";
const OTHER_ROUTER: &str = "02:00:00:00:0f:02";

/// Longer than anything here takes, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// As README's install has it: the gateway lies outside of the prefix, and nobody names its MAC.
const CREATE: &str = "pool create ovh-rbx --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.1 \
    192.0.2.10/32 192.0.2.11/32 2001:db8:0:1::10/128";

/// `vmbr0` of [`Node::new`] with the uplink `eno1`, behind which the provider's router is; guests 100 and 101 with an
/// address each, and guest 300, which nobody manages.
struct Site {
    node: Node,
    provider: Namespace,
    guests: Vec<(u32, Namespace)>,
}

impl Site {
    fn new() -> Self {
        need(&["ping"]);
        let site = Self { node: Node::new(), provider: Namespace::new(), guests: Vec::new() };
        site.node.net.sh(&format!(
            "ip link set vmbr0 type bridge forward_delay 0 mcast_snooping 0
             ip link add eno1 address 02:00:00:00:0e:01 type veth peer name wan address {GATEWAY} netns {}
             echo 1 > /proc/sys/net/ipv6/conf/eno1/disable_ipv6
             ip link set eno1 master vmbr0 up; ip route add default via 203.0.113.1",
            site.provider.path()
        ));
        site.provider.sh("for name in all default; do echo 0 > /proc/sys/net/ipv6/conf/$name/accept_dad; done
             echo 1 > /proc/sys/net/ipv4/ip_forward; ip link set wan up; ip addr add 203.0.113.1/24 dev wan
             for last in 10 11; do ip route add 192.0.2.$last dev wan; done");
        // The only way out is the one by which the guests came in.
        site.provider.sh(
            "echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects; echo 0 > /proc/sys/net/ipv4/conf/wan/send_redirects",
        );
        site.node.tree.qemu(300, "name: stranger\nnet0: virtio=02:00:00:AA:BB:30,bridge=vmbr0\n");
        site
    }

    fn with_guests() -> Self {
        let mut site = Self::new();
        site.node.run(CREATE).ok();
        for (vmid, last) in [(100, 10), (101, 11)] {
            site.node.run(&format!("assign {vmid} 192.0.2.{last} --no-hookscript --no-probe")).ok();
            site.node.run(&format!("hook {vmid} pre-start")).ok();
            site.plug(vmid, &format!("02:00:00:aa:bb:0{}", vmid - 100));
            site.node.run(&format!("hook {vmid} post-start")).ok();
            site.guests.last().unwrap().1.sh(&format!(
                "ip addr add 192.0.2.{last}/32 dev eth0; ip route add 203.0.113.1 dev eth0; ip route add default via 203.0.113.1"
            ));
        }
        site.plug(300, "02:00:00:aa:bb:30");
        site
    }

    fn plug(&mut self, vmid: u32, mac: &str) {
        let guest = Namespace::new();
        self.node.net.sh(&format!(
            "ip link add tap{vmid}i0 address fe:00:00:00:00:{:02x} type veth peer name eth0 address {mac} netns {}
             echo 1 > /proc/sys/net/ipv6/conf/tap{vmid}i0/disable_ipv6; ip link set tap{vmid}i0 master vmbr0 up",
            vmid % 256,
            guest.path()
        ));
        guest.sh("ip link set eth0 up; ip link set lo up");
        self.guests.push((vmid, guest));
    }

    fn guest(&self, vmid: u32) -> &Namespace {
        &self.guests.iter().find(|(number, _)| *number == vmid).unwrap().1
    }

    /// What was learnt, as it is kept for the next boot.
    fn learnt(&self) -> Vec<String> {
        let path = "var/lib/pve-public-ip/routers.json";
        if !self.node.tree.path(path).exists() {
            return Vec::new();
        }
        let note: serde_json::Value = serde_json::from_str(&self.node.tree.read(path)).unwrap();
        let text = |router: &serde_json::Value| {
            let macs: Vec<&str> = router["macs"].as_array().unwrap().iter().map(|mac| mac.as_str().unwrap()).collect();
            format!("{} {}", router["address"].as_str().unwrap(), macs.join(" "))
        };
        note["routers"].as_array().unwrap().iter().map(text).collect()
    }

    /// Sends frames from a guest's port.
    fn send(&self, vmid: u32, all: &[Vec<u8>]) {
        self.guest(vmid).inside(|| packet::send("eth0".parse().unwrap(), all).unwrap());
    }

    /// Whether these frames of guest 300 arrive at guest 100 or the provider.
    fn arrives(&self, all: &[Vec<u8>]) -> Vec<bool> {
        let open = |namespace: &Namespace, name: &str| namespace.inside(|| Wire::open(name.parse().unwrap()).unwrap());
        let wires = [open(self.guest(100), "eth0"), open(&self.provider, "wan")];
        self.send(300, all);
        let end = frames::ether(frames::BROADCAST, mac("02:00:00:aa:bb:30"), 0x88b5, b"the end");
        self.send(300, std::slice::from_ref(&end));
        let mut arrived = vec![false; all.len()];
        let mut buffer = vec![0; 2048];
        for wire in &wires {
            let started = Instant::now();
            loop {
                let limit = Duration::from_millis(100);
                match packet::in_time(std::os::fd::AsFd::as_fd(wire), limit, || wire.receive(&mut buffer)).unwrap() {
                    Some(frame) if frame == end => break,
                    Some(frame) => {
                        for (at, sent) in all.iter().enumerate() {
                            arrived[at] |= *sent == frame;
                        }
                    }
                    None => assert!(started.elapsed() < PATIENCE, "the last frame does not arrive"),
                }
            }
        }
        arrived
    }

    #[track_caller]
    fn pinged(from: &Namespace, address: &str) {
        let answers = || {
            let output = from.command("ping").args(["-n", "-q", "-c", "1", "-W", "1", address]).output().unwrap();
            output.status.success()
        };
        assert!((0..8).any(|_| answers()), "{address} does not answer");
    }
}

fn mac(text: &str) -> Mac {
    let octets: Vec<u8> = text.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
    octets.try_into().unwrap()
}

fn link_local(of: &str) -> Ipv6Addr {
    of.parse::<pve_public_ip::model::MacAddr>().unwrap().link_local()
}

/// What guest 300 would do to pose as the router.
fn claims(router: &str) -> Vec<Vec<u8>> {
    let (own, router) = (mac("02:00:00:aa:bb:30"), (mac(router), link_local(router)));
    let victim: Ipv6Addr = frames::ALL_NODES;
    let advertisement = |from: Mac, source: Ipv6Addr| {
        let body = frames::nd_body(0x20, source, &frames::lladdr_option(2, own));
        let packet = frames::ip6(source, victim, frames::ICMP6, 255, &frames::icmp6(source, victim, 136, &body));
        frames::ether(frames::group_mac(victim), from, frames::IP6, &packet)
    };
    let data = frames::ip6(router.1, victim, frames::UDP, 64, &frames::udp(9, 9, b"x"));
    vec![
        // Its MAC: the bridge would send to the guest what is for the router.
        frames::ether(frames::BROADCAST, router.0, 0x88b5, b"learn me"),
        Arp::request((router.0, Ipv4Addr::new(198, 18, 0, 1)), Ipv4Addr::new(198, 18, 0, 2))
            .frame(frames::BROADCAST, own),
        // Its link-local address: hosts would send to the guest what is for their default router.
        advertisement(own, router.1),
        advertisement(router.0, router.1),
        frames::ether(frames::group_mac(victim), own, frames::IP6, &data),
    ]
}

#[test]
fn the_gateway_is_learnt_without_being_named_and_nobody_can_pose_as_it() {
    let mut site = Site::with_guests();
    assert_eq!(site.learnt(), [format!("203.0.113.1 {GATEWAY}")]);
    assert!(site.node.net.set("infra_mac").contains(&GATEWAY.to_owned()));
    let arrived = site.arrives(&claims(GATEWAY));
    assert_eq!(arrived, vec![false; arrived.len()]);
    let place = site.node.net.sh(&format!("bridge fdb get {GATEWAY} br vmbr0"));
    assert!(place.contains("dev eno1"), "{place}");
    // Nobody has lost anything: guests reach the gateway, each other by way of it, and the node.
    for address in ["203.0.113.1", "192.0.2.11", "203.0.113.250"] {
        Site::pinged(site.guest(100), address);
    }
    site.node.net.sh("ip route flush cache");
    Site::pinged(&site.provider, "192.0.2.10");
    // No guard runs, and the port of guest 300, which nobody manages, has come since the last time.
    site.node.run("apply").ok();
    site.node.is_in_line();
    let shown = site.node.run("pool show ovh-rbx").ok();
    assert!(shown.out.contains(&format!("router 203.0.113.1 on vmbr0: MAC {GATEWAY}, learnt\n")), "{shown}");
    let shown = site.node.run("node show").ok();
    assert!(shown.out.contains(&format!("router        203.0.113.1 on vmbr0: MAC {GATEWAY}, learnt\n")), "{shown}");
    let shown = site.node.run("status").ok();
    assert!(shown.out.contains(&format!("router 203.0.113.1 on vmbr0: MAC {GATEWAY}, protected\n")), "{shown}");
    let run = site.node.run("verify --active --output-format json").ok().json();
    assert_eq!(run["active"][0]["passed"], serde_json::json!([]), "{run}");
    site.guests.clear();
}

#[test]
fn it_is_protected_from_the_first_frame_after_a_boot() {
    let site = Site::with_guests();
    // The router is down when the node comes up: nothing can be learnt.
    site.provider.sh("ip link set wan down");
    site.node.net.sh("nft flush ruleset; ip neigh flush all; bridge fdb flush dev eno1 master || true");
    std::fs::remove_dir_all(site.node.tree.path("run/pve-public-ip")).unwrap();
    site.node.run("apply").ok();
    assert!(site.node.net.set("infra_mac").contains(&GATEWAY.to_owned()));
    assert_eq!(site.node.net.set("hairpin_mac"), [format!("\"eno1\" . {GATEWAY}")]);
}

#[test]
fn another_router_is_followed_from_the_uplink_and_never_from_a_guest() {
    let site = Site::with_guests();
    // The guest claims the address, and the MAC of a router to come.
    site.send(
        300,
        &[
            Arp::reply(
                (mac("02:00:00:aa:bb:30"), Ipv4Addr::new(203, 0, 113, 1)),
                (frames::BROADCAST, Ipv4Addr::new(203, 0, 113, 250)),
            )
            .frame(frames::BROADCAST, mac("02:00:00:aa:bb:30")),
            frames::ether(frames::BROADCAST, mac(OTHER_ROUTER), 0x88b5, b"learn me"),
        ],
    );
    // Even if the node's own table says so: behind a guest's port there is no gateway.
    site.node.net.sh(&format!("ip neigh replace 203.0.113.1 lladdr {OTHER_ROUTER} dev vmbr0 nud reachable"));
    site.node.run("apply").ok();
    assert_eq!(site.learnt(), [format!("203.0.113.1 {GATEWAY}")]);
    // The provider has a new one.
    site.provider.sh(&format!("ip link set wan address {OTHER_ROUTER}; ip addr show dev wan > /dev/null"));
    site.node.net.sh("ip neigh del 203.0.113.1 dev vmbr0");
    Site::pinged(&site.node.net, "203.0.113.1");
    let run = site.node.run("apply").ok();
    let learnt = format!("learnt: gateway 203.0.113.1 on vmbr0 has moved from {GATEWAY} to {OTHER_ROUTER}");
    assert!(run.err.contains(&learnt), "{run}");
    assert_eq!(site.learnt(), [format!("203.0.113.1 {OTHER_ROUTER} {GATEWAY}")]);
    let arrived = site.arrives(&[claims(OTHER_ROUTER), claims(GATEWAY)].concat());
    assert_eq!(arrived, vec![false; arrived.len()]);
}

#[test]
fn a_guests_mac_is_never_taken_for_the_gateways() {
    let site = Site::new();
    // Somebody outside answers for the gateway with the MAC of a guest that nobody manages.
    site.provider.sh("ip link set wan address 02:00:00:aa:bb:30");
    let run = site.node.run(CREATE).ok();
    assert_eq!(site.learnt(), [""; 0]);
    assert!(!site.node.net.set("infra_mac").contains(&"02:00:00:aa:bb:30".to_owned()), "{run}");
    Site::pinged(&site.node.net, "203.0.113.1");
    let run = site.node.run("verify");
    let sentence = "problem: the router 203.0.113.1 was seen behind the uplink of vmbr0 with the MAC 02:00:00:aa:bb:30, \
                    which is that of guest 300 net0: that MAC is not protected as a router's\n";
    assert!(run.code == 1 && run.out.contains(sentence), "{run}");
}

/// Sends router advertisements out of `wan` until it goes.
fn advertising<T>(site: &Site, router: (Mac, Ipv6Addr), body: impl FnOnce() -> T) -> T {
    let network = [0x20, 1, 0x0d, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let prefix = [&[3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 7, 8, 0, 0, 0, 0][..], &network].concat();
    let message = frames::icmp6(router.1, frames::ALL_NODES, 134, &frames::ra_body(&prefix));
    let packet = frames::ip6(router.1, frames::ALL_NODES, frames::ICMP6, 255, &message);
    let frame = frames::ether(frames::group_mac(frames::ALL_NODES), router.0, frames::IP6, &packet);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                site.provider.inside(|| packet::send("wan".parse().unwrap(), std::slice::from_ref(&frame)).unwrap());
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let result = body();
        is_over.store(true, Ordering::Relaxed);
        result
    })
}

#[test]
fn a_router_that_only_advertises_itself_is_protected() {
    let site = Site::with_guests();
    // Nothing that its MAC would tell, as with routers that stand in for each other.
    let router = (mac(OTHER_ROUTER), "fe80::a:b".parse().unwrap());
    std::fs::remove_dir_all(site.node.tree.path("run/pve-public-ip")).unwrap();
    let run = advertising(&site, router, || site.node.run("apply")).ok();
    assert!(
        run.err.contains(&format!("router (by its advertisements) fe80::a:b on vmbr0 has the MAC {OTHER_ROUTER}")),
        "{run}"
    );
    assert!(site.node.net.set("infra_ip6").contains(&"fe80::a:b".to_owned()));
    let mut forged = claims(OTHER_ROUTER);
    let own = mac("02:00:00:aa:bb:30");
    let body = frames::nd_body(0x20, router.1, &frames::lladdr_option(2, own));
    let message = frames::icmp6(router.1, frames::ALL_NODES, 136, &body);
    let packet = frames::ip6(router.1, frames::ALL_NODES, frames::ICMP6, 255, &message);
    forged.push(frames::ether(frames::group_mac(frames::ALL_NODES), own, frames::IP6, &packet));
    let arrived = site.arrives(&forged);
    assert_eq!(arrived, vec![false; arrived.len()]);
}

#[test]
fn the_guard_learns_by_itself() {
    struct Guard(Child);
    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGTERM);
            let _ = self.0.wait();
        }
    }
    let site = Site::new();
    site.provider.sh("ip addr flush dev wan");
    site.node.run(CREATE).ok();
    assert_eq!(site.learnt(), [""; 0]);
    let log = File::create(site.node.tree.path("guard.log")).unwrap();
    let guard = Guard(site.node.command(&["-v", "guard"]).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    let within = |what: &str, is_so: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !is_so() {
            assert!(started.elapsed() < PATIENCE, "{what}\n{}", site.node.tree.read("guard.log"));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    within("the guard is ready", &|| site.node.tree.read("guard.log").contains("guard: watching node n1"));
    // Now the gateway comes up, and the node speaks to it.
    site.provider.sh("ip addr add 203.0.113.1/24 dev wan");
    Site::pinged(&site.node.net, "203.0.113.1");
    within("the gateway is learnt", &|| site.node.net.set("infra_mac").contains(&GATEWAY.to_owned()));
    drop(guard);
}
