//! The walk-throughs of docs/first-hour.md, as they are printed, each on a node whose provider behaves like that one: it knows
//! certain MACs, sends each address to one of them, and counts every frame with another.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::fs;
use std::path::Path;

use common::{Namespace, Node, need, until};

/// What is done at the provider and on the node before the walk-through, and what is to work after it.
struct Place {
    heading: &'static str,
    /// The guest's bridge.
    bridge: &'static str,
    address: &'static str,
    gateway: &'static str,
    /// On the node; `eno1` and `eno2` are its cards.
    node: &'static str,
    /// At the provider, behind these cards: `wan` and `wan2`.
    provider: &'static str,
    /// The MACs that the provider knows beside the node's; none: it takes every one.
    known: Option<&'static str>,
    /// The interface at which the provider has the guest.
    at: &'static str,
}

const BRIDGED: &str = "ip link add vmbr0 address 02:00:00:00:00:fe type bridge forward_delay 0 mcast_snooping 0; \
    ip link set eno1 master vmbr0; ip link set vmbr0 up; ip addr add 198.51.100.7/24 dev vmbr0";
const ROUTED: &str = "ip link set eno1 address 02:00:00:00:00:fe; ip addr add 198.51.100.7/24 dev eno1; \
    ip link add vmbr1 type bridge forward_delay 0 mcast_snooping 0; ip link set vmbr1 up; \
    ip route add default via 198.51.100.1";

const PLACES: [Place; 8] = [
    Place {
        heading: "Hetzner, a single address with its own MAC",
        bridge: "vmbr0",
        address: "203.0.113.10",
        gateway: "198.51.100.1",
        node: "BRIDGED; ip route add default via 198.51.100.1",
        provider: "ip addr add 198.51.100.1/24 dev wan; ip route add 203.0.113.10 dev wan; \
            ip neigh add 203.0.113.10 lladdr 00:50:56:00:aa:bb dev wan nud permanent",
        known: Some("00:50:56:00:aa:bb"),
        at: "wan",
    },
    Place {
        heading: "Hetzner, a routed subnet",
        bridge: "vmbr1",
        address: "203.0.113.17",
        gateway: "192.0.2.99",
        node: ROUTED,
        provider: "ip addr add 198.51.100.1/24 dev wan; ip route add 203.0.113.16/29 via 198.51.100.7",
        known: Some("02:00:00:00:00:fe"),
        at: "wan",
    },
    Place {
        heading: "Hetzner, a subnet on a vSwitch",
        bridge: "vmbr4000",
        address: "203.0.113.66",
        gateway: "203.0.113.65",
        // Kernels without VLANs have a wire of its own for it; tags are tried by tests/vm.
        node: "ip addr add 198.51.100.7/24 dev eno1; ip link add eno1.4000 type veth peer name vsw netns PROVIDER; \
            ip link add vmbr4000 type bridge forward_delay 0 mcast_snooping 0; ip link set eno1.4000 master vmbr4000 up; \
            ip link set vmbr4000 up; ip route add default via 198.51.100.1",
        provider: "ip addr add 198.51.100.1/24 dev wan; ip link set vsw up; ip addr add 203.0.113.65/29 dev vsw",
        known: None,
        at: "vsw",
    },
    Place {
        heading: "OVHcloud, an address with a virtual MAC",
        bridge: "vmbr0",
        address: "203.0.113.10",
        gateway: "198.51.100.254",
        node: "BRIDGED; ip route add default via 198.51.100.254",
        provider: "ip addr add 198.51.100.254/24 dev wan; ip route add 203.0.113.10 dev wan; \
            ip neigh add 203.0.113.10 lladdr 02:00:00:aa:bb:cc dev wan nud permanent",
        known: Some("02:00:00:aa:bb:cc"),
        at: "wan",
    },
    Place {
        heading: "OVHcloud, a routed block",
        bridge: "vmbr1",
        address: "203.0.113.17",
        gateway: "192.0.2.99",
        node: ROUTED,
        provider: "ip addr add 198.51.100.1/24 dev wan; ip route add 203.0.113.16/29 dev wan",
        known: Some("02:00:00:00:00:fe"),
        at: "wan",
    },
    Place {
        heading: "OVHcloud, a block in a vRack",
        bridge: "vmbr1",
        address: "203.0.113.33",
        gateway: "203.0.113.46",
        node: "ip addr add 198.51.100.7/24 dev eno1; ip route add default via 198.51.100.254; \
            ip link add vmbr1 type bridge forward_delay 0 mcast_snooping 0; ip link set eno2 master vmbr1; ip link set vmbr1 up",
        provider: "ip addr add 198.51.100.254/24 dev wan; ip addr add 203.0.113.46/28 dev wan2",
        known: None,
        at: "wan2",
    },
    Place {
        heading: "Dedibox, an address with a virtual MAC",
        bridge: "vmbr0",
        address: "203.0.113.10",
        gateway: "62.210.0.1",
        node: "BRIDGED; ip route add default via 198.51.100.1",
        provider: "ip addr add 198.51.100.1/24 dev wan; ip addr add 62.210.0.1/32 dev wan; ip route add 203.0.113.10 dev wan; \
            ip neigh add 203.0.113.10 lladdr 52:54:00:aa:bb:cc dev wan nud permanent",
        known: Some("52:54:00:aa:bb:cc"),
        at: "wan",
    },
    Place {
        heading: "Your own prefix",
        bridge: "vmbr0",
        address: "203.0.113.10",
        gateway: "203.0.113.1",
        node: "BRIDGED; ip route add default via 198.51.100.1",
        provider: "ip addr add 198.51.100.1/24 dev wan; ip addr add 203.0.113.1/24 dev wan",
        known: None,
        at: "wan",
    },
];

/// The sections of the page that have commands, with these.
fn walk_throughs() -> Vec<(String, Vec<String>)> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/first-hour.md")).unwrap();
    let sections = page.split("\n## ").skip(1).filter_map(|section| {
        let (heading, rest) = section.split_once('\n')?;
        let commands: Vec<String> =
            rest.lines().filter_map(|line| line.strip_prefix("# ")).map(str::to_owned).collect();
        (!commands.is_empty()).then(|| (heading.to_owned(), commands))
    });
    sections.collect()
}

fn answers(from: &Namespace, address: &str) -> bool {
    from.command("ping").args(["-c1", "-W2", address]).output().unwrap().status.success()
}

struct Site {
    node: Node,
    provider: Namespace,
    guest: Namespace,
}

impl Site {
    fn new(place: &Place) -> Self {
        let site = Self { node: Node::new(), provider: Namespace::new(), guest: Namespace::new() };
        let node = &site.node;
        node.stand_in_proxmox();
        for other in ["qemu-server/101", "lxc/200"] {
            fs::remove_file(node.tree.path(&format!("etc/pve/nodes/n1/{other}.conf"))).unwrap();
        }
        node.tree.qemu(100, format!("name: web\nnet0: virtio=02:00:00:00:00:64,bridge={}\n", place.bridge));
        let provider = site.provider.path();
        node.net.sh(&format!(
            "ip link del vmbr0; ip link set lo up; ip link add eno1 type veth peer name wan netns {provider}; ip link set eno1 up; \
             ip link add eno2 type veth peer name wan2 netns {provider}; ip link set eno2 up; {}",
            place.node.replace("BRIDGED", BRIDGED).replace("PROVIDER", &provider)
        ));
        site.provider.sh(&format!(
            "ip link set lo up; ip addr add 192.0.2.99/32 dev lo; ip link set wan up; ip link set wan2 up; {}",
            place.provider
        ));
        if let Some(known) = place.known {
            site.provider.sh(&format!(
                "nft 'add table netdev port; add chain netdev port in {{ type filter hook ingress device wan priority 0; }}; \
                 add rule netdev port in ether saddr != {{ 02:00:00:00:00:fe, {known} }} ether type {{ ip, arp }} counter drop'"
            ));
        }
        site
    }

    /// `qm start 100`: the hook, the port with the MAC that the configuration has by now, the guest with what it was told.
    fn start(&self, place: &Place) {
        let node = &self.node;
        node.run("hook 100 pre-start").ok();
        let conf = node.tree.read("etc/pve/nodes/n1/qemu-server/100.conf");
        let net = conf.lines().find(|line| line.starts_with("net0: ")).unwrap();
        let mac = net.split(['=', ',']).nth(1).unwrap().to_lowercase();
        node.net.sh(&format!(
            "ip link add tap100i0 type veth peer name eth0 address {mac} netns {}; ip link set tap100i0 master {} up",
            self.guest.path(),
            place.bridge
        ));
        self.guest.sh("ip link set lo up; ip link set eth0 up");
        node.run("hook 100 post-start").ok();
        // Given again to a guest that runs, the command says what is to be done inside.
        let said = node.run(&format!("assign 100 {}", place.address)).ok();
        let script: String =
            said.out.lines().filter_map(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect();
        assert!(script.contains(place.address), "{said}");
        let whole = format!("mount -t sysfs sysfs /sys\n{script}");
        let output = self.guest.command("unshare").args(["--mount", "sh", "-euc", &whole]).output().unwrap();
        assert!(output.status.success(), "{script}{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Frames with MACs that the provider has not handed out.
    fn unknown(&self) -> String {
        let text = self.provider.sh("nft list table netdev port 2>/dev/null || true");
        let counted = text.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
        counted.unwrap_or("0").to_owned()
    }
}

#[test]
fn each_walk_through_works_at_its_provider() {
    need(&["ping", "nft"]);
    let walks = walk_throughs();
    let headings: Vec<&str> = walks.iter().map(|(heading, _)| heading.as_str()).collect();
    assert_eq!(headings, PLACES.map(|place| place.heading), "a walk-through that nobody has tried");
    for (place, (heading, commands)) in PLACES.iter().zip(&walks) {
        let site = Site::new(place);
        for command in commands {
            match command.strip_prefix("pve-public-ip ") {
                Some(arguments) => drop(site.node.run(arguments).ok()),
                None if command == "qm start 100" => site.start(place),
                None => panic!("{heading}: `{command}`"),
            }
        }
        site.node.is_in_line();
        until(&format!("{heading}: the guest reaches its gateway"), || answers(&site.guest, place.gateway));
        until(&format!("{heading}: the guest reaches the world"), || answers(&site.guest, "192.0.2.99"));
        until(&format!("{heading}: the provider reaches the guest"), || answers(&site.provider, place.address));
        assert!(site.node.run("list").ok().out.contains("protected"), "{heading}");

        // A neighbour that takes the address, with a MAC of its own.
        let thief = Namespace::new();
        site.node.net.sh(&format!(
            "ip link add tap999i0 type veth peer name eth0 address 02:00:00:00:09:99 netns {}; ip link set tap999i0 master {} up",
            thief.path(),
            place.bridge
        ));
        site.node.run("apply").ok();
        thief.sh(&format!(
            "ip link set eth0 up; ip addr add {}/32 dev eth0; ip route add default dev eth0; echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_notify; \
             ip link set eth0 down; ip link set eth0 up; ip route add default dev eth0",
            place.address
        ));
        assert!(!answers(&thief, place.gateway), "{heading}: somebody else uses the address");
        until(&format!("{heading}: the guest still has its address"), || {
            answers(&site.guest, "192.0.2.99") && answers(&site.provider, place.address)
        });
        let neighbour = site.provider.sh(&format!("ip neigh show to {} dev {}", place.address, place.at));
        assert!(!neighbour.contains("02:00:00:00:09:99"), "{heading}: {neighbour}");
        assert_eq!(site.unknown(), "0", "{heading}: the provider has seen a MAC that it does not know");
    }
}
