//! More on one NIC: addresses that no pool holds, further MACs, virtual routers; with real frames.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use common::{Namespace, Node, until};

const MAC: &str = "02:00:00:aa:bb:00";
const FURTHER: &str = "02:00:00:aa:cc:00";
const VIRTUAL: &str = "00:00:5e:00:01:07";

/// Guests 100 and 101, which run with an address each, and the provider behind `eno1`. The node has 10.9.0.1 beside its own.
struct Site {
    node: Node,
    guests: [Namespace; 2],
    provider: Namespace,
}

impl Site {
    fn new() -> Self {
        let site =
            Self { node: Node::with_pool(), guests: [Namespace::new(), Namespace::new()], provider: Namespace::new() };
        site.node.net.sh("ip addr add 10.9.0.1/24 dev vmbr0; ip link set vmbr0 type bridge mcast_snooping 0");
        site.plug("eno1", &site.provider, "02:00:00:00:ff:01", &["203.0.113.1/24", "10.9.0.9/24"]);
        for (at, vmid) in [100, 101].into_iter().enumerate() {
            site.node.run(&format!("assign {vmid} 203.0.113.1{at} --no-hookscript --no-probe")).ok();
            site.node.run(&format!("hook {vmid} pre-start")).ok();
            let addresses = [format!("203.0.113.1{at}/24"), format!("10.9.0.5{at}/24")];
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            site.plug(&format!("tap{vmid}i0"), &site.guests[at], &format!("02:00:00:aa:bb:0{at}"), &addresses);
            site.node.run(&format!("hook {vmid} post-start")).ok();
        }
        site.node.is_in_line();
        site
    }

    fn plug(&self, port: &str, end: &Namespace, mac: &str, addresses: &[&str]) {
        self.node.net.sh(&format!(
            "ip link add {port} address fe:00:00:00:00:01 type veth peer name eth0 address {mac} netns {}
             ip link set {port} master vmbr0 up",
            end.path()
        ));
        end.sh("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1; ip link set eth0 up");
        for address in addresses {
            end.sh(&format!("ip addr add {address} dev eth0"));
        }
        let forwards = || self.node.net.sh(&format!("bridge link show dev {port}")).contains("state forwarding");
        until("the port forwards", forwards);
    }

    /// Whether a guest is answered, from one of its addresses.
    fn hears(&self, at: usize, from: &str, to: &str) -> bool {
        let ping = ["-c1", "-W1", "-I", from, to];
        self.guests[at].command("ping").args(ping).output().unwrap().status.success()
    }

    fn answers(&self, at: usize, from: &str, to: &str) {
        until(&format!("{to} answers {from}"), || self.hears(at, from, to));
    }

    /// How many frames were dropped for this reason.
    fn dropped(&self, reason: &str) -> u64 {
        let shown = self.node.net.sh(&format!("nft list counter bridge pve-public-ip drop_{reason}"));
        shown.split("packets ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    }

    /// It is not answered, because of what is dropped for this reason.
    fn is_refused(&self, (at, from, to): (usize, &str, &str), reason: &str) {
        self.guests[at].sh("ip neigh flush all");
        let before = self.dropped(reason);
        assert!(!self.hears(at, from, to), "{from} to {to}");
        assert!(self.dropped(reason) > before, "{from} to {to}: {reason}");
    }
}

#[test]
fn a_private_network_on_the_public_nic_stays_between_guests_and_node() {
    let site = Site::new();
    let private = |at: usize, to: &'static str| (at, if at == 0 { "10.9.0.50" } else { "10.9.0.51" }, to);
    site.is_refused(private(0, "10.9.0.1"), "arp");
    let run = site.node.run("set 100 --also 10.9.0.50").ok();
    assert!(run.out.contains("also 10.9.0.50"), "{run}");
    site.node.run("set 101 --also 10.9.0.51").ok();
    site.node.is_in_line();
    site.answers(0, "10.9.0.50", "10.9.0.1");
    site.answers(0, "10.9.0.50", "10.9.0.51");
    site.answers(1, "10.9.0.51", "10.9.0.50");
    site.answers(0, "203.0.113.10", "203.0.113.1");
    // To the provider neither the question goes, nor, where the guest knows the way, the packet.
    site.is_refused(private(0, "10.9.0.9"), "inner_address");
    let known = site.provider.sh("ip neigh show dev eth0");
    assert!(!known.contains("10.9.0.50"), "{known}");
    site.guests[0].sh("ip neigh replace 10.9.0.9 lladdr 02:00:00:00:ff:01 dev eth0 nud permanent");
    let before = site.dropped("inner_address");
    assert!(!site.hears(0, "10.9.0.50", "10.9.0.9"));
    assert!(site.dropped("inner_address") > before);
    // What is the other guest's is not its own.
    site.guests[0].sh("ip addr add 10.9.0.77/24 dev eth0");
    site.is_refused((0, "10.9.0.77", "10.9.0.1"), "arp");
    // It holds through an `apply` from nothing, and ends with the option.
    site.node.net.sh("nft flush ruleset");
    site.node.run("apply").ok();
    site.answers(0, "10.9.0.50", "10.9.0.51");
    site.is_refused(private(0, "10.9.0.9"), "inner_address");
    site.node.run("set 100 --no-also").ok();
    site.is_refused(private(0, "10.9.0.1"), "arp");
    site.node.is_in_line();
}

#[test]
fn further_macs_and_those_of_virtual_routers_are_bound_like_the_first() {
    let site = Site::new();
    let speaks_with = |mac: &str| site.guests[0].sh(&format!("ip link set eth0 address {mac}; ip neigh flush all"));
    site.answers(0, "203.0.113.10", "203.0.113.1");
    for (mac, set, unset) in
        [(FURTHER, format!("--mac {FURTHER}"), "--no-mac"), (VIRTUAL, "--vrrp 7".to_owned(), "--no-vrrp")]
    {
        speaks_with(mac);
        site.is_refused((0, "203.0.113.10", "203.0.113.1"), "source_mac");
        site.node.run(&format!("set 100 {set}")).ok();
        site.node.is_in_line();
        site.answers(0, "203.0.113.10", "203.0.113.1");
        // Only with the guest's own addresses, and only for this guest.
        site.guests[0].sh("ip addr add 203.0.113.11/24 dev eth0");
        site.is_refused((0, "203.0.113.11", "203.0.113.1"), "arp");
        site.guests[0].sh("ip addr del 203.0.113.11/24 dev eth0");
        site.guests[1].sh(&format!("ip link set eth0 address {mac}; ip neigh flush all"));
        site.is_refused((1, "203.0.113.11", "203.0.113.1"), "source_mac");
        site.guests[1].sh("ip link set eth0 address 02:00:00:aa:bb:01; ip neigh flush all");
        site.node.run(&format!("set 100 {unset}")).ok();
        site.is_refused((0, "203.0.113.10", "203.0.113.1"), "source_mac");
        speaks_with(MAC);
        site.node.is_in_line();
    }
}

#[test]
fn what_is_not_the_guests_to_have_is_refused() {
    let node = Node::with_pool();
    node.net.sh("ip addr add 10.9.0.1/24 dev vmbr0");
    node.run("assign 100 203.0.113.10 --no-hookscript --no-probe").ok();
    node.run("assign 101 203.0.113.11 --no-hookscript --no-probe").ok();
    let cannot = |reason: &str| format!("cannot change guest 100: {reason}");
    for (options, reason, hint) in [
        (
            "--also 10.9.0.0/24",
            "10.9.0.0/24 cannot be the guest's: 10.9.0.1 is an address of this node",
            "name the guest's own address with --also, not the whole network",
        ),
        (
            "--also 203.0.113.12",
            "203.0.113.12 is of 203.0.113.12 of pool `ovh-rbx`",
            "an address of a pool is assigned: `pve-public-ip assign VMID ADDRESS`",
        ),
        (
            "--also 10.8.0.0/24 --also 10.8.0.7",
            "guest 100: interfaces.net0.also: 10.8.0.0/24 overlaps 10.8.0.7",
            "`pve-public-ip show 100` shows what there is",
        ),
        (
            "--mac 02:00:00:aa:bb:01",
            "MAC 02:00:00:aa:bb:01 is that of guest 101 net0 already",
            "give one of the guests another MAC; if both are NICs of guest 101, name both in one assignment (--net 0 --net N)",
        ),
        (
            "--mac 00:00:5e:00:01:07",
            "guest 100: interfaces.net0.further_macs: 00:00:5e:00:01:07 is that of a virtual router: see `vrrp`",
            "`pve-public-ip show 100` shows what there is",
        ),
    ] {
        node.changes_nothing(&format!("set 100 {options}")).fails(1, &cannot(reason), hint);
    }
    node.run("set 100 --also fe80::9").fails_with(2, &["`fe80::9` is or contains link-local address space"]);
    node.run("set 100 --vrrp 0").fails_with(2, &["0 is not in 1.."]);
    // The provider's routers may be virtual, too.
    node.run("pool set ovh-rbx --gateway-mac 00:00:5e:00:01:09").ok();
    node.changes_nothing("set 100 --vrrp 9").fails(
        1,
        &cannot("MAC 00:00:5e:00:01:09 is that of a gateway"),
        "choose another MAC, or another number of the virtual router",
    );
    // What a guest has besides comes into no pool, and its further MAC is nobody else's.
    node.run("set 100 --also 10.8.0.0/24 --mac 02:00:00:aa:cc:00").ok();
    node.changes_nothing("pool add ovh-rbx 10.8.0.9").fails(
        1,
        "cannot add 10.8.0.9 to pool `ovh-rbx`: 10.8.0.9 cannot be of pool `ovh-rbx`: guest 100 net0 has 10.8.0.0/24 besides \
         the addresses of pools",
        "take it from the guest first: `pve-public-ip set 100 --no-also`",
    );
    node.tree.qemu(103, "net0: virtio=02:00:00:AA:CC:00,bridge=vmbr0\n");
    node.changes_nothing("assign 103 203.0.113.12 --no-hookscript --no-probe")
        .fails_with(1, &["cannot assign to guest 103: MAC 02:00:00:aa:cc:00 is that of guest 100 net0 already"]);
    node.run("set 100 --no-also --no-mac").ok();
    assert!(!node.tree.read("etc/pve/public-ip/guests/100.json").contains("also"));
}

#[test]
fn the_first_address_stays_the_primary_one() {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.12 --no-hookscript --no-probe").ok();
    node.run("assign 100 203.0.113.10 --no-hookscript --no-probe").ok();
    let shown = node.run("show 100 --output-format json").ok().json();
    let held = shown["interfaces"]["net0"]["addresses"].as_array().unwrap();
    let held: Vec<&str> = held.iter().map(|one| one["address"].as_str().unwrap()).collect();
    assert_eq!(held, ["203.0.113.12", "203.0.113.10"]);
}

#[test]
fn a_private_prefix_in_a_public_pool_is_questioned() {
    let node = Node::new();
    let said = |command: &str| {
        let run = node.run(command).ok();
        format!("{}{}", run.out, run.err)
    };
    let own = said("pool create lan --profile generic-bridged --bridge vmbr0 --gateway4 10.0.0.1 10.0.0.0/24");
    assert!(!own.contains("private"), "{own}");
    said("pool create hz --profile generic-bridged --bridge vmbr0 --gateway4 198.51.100.1 198.51.100.8/29");
    let added = said("pool add hz 10.1.0.0/24");
    let sentence = "pool `hz` has public addresses, and 10.1.0.0/24, which is private: no provider routes it";
    assert!(added.contains(sentence), "{added}");
    let hint = "`pve-public-ip pool remove hz 10.1.0.0/24`; a guest uses it beside its public address with `pve-public-ip set VMID --also";
    assert!(added.contains(hint), "{added}");
    let provider = said("pool create ovh --profile ovh-bridged --bridge vmbr0 --gateway4 203.0.113.1 172.16.0.9");
    assert!(provider.contains("172.16.0.9, which is private"), "{provider}");
}
