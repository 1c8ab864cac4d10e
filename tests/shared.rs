//! Addresses that guests hold in turn: what may be shared, and the real keepalived in guests of one node, whose address the
//! node and the router follow and nobody else can take.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use common::{Ends, Namespace, Node, need, until};
use pve_public_ip::announce;
use pve_public_ip::model::MacAddr;
use pve_public_ip::system::packet;

const SHARED: [&str; 2] = ["203.0.113.50", "2001:db8:2::50"];

fn mac(vmid: u32) -> MacAddr {
    format!("02:00:00:00:00:{vmid:02x}").parse().unwrap()
}

/// Guests 101 and 102 of this node, 103 too; 201 on another.
fn node() -> Node {
    let node = Node::new();
    for vmid in [101, 102, 103, 104] {
        node.tree.qemu(vmid, format!("net0: virtio={},bridge=vmbr0\n", mac(vmid)));
    }
    node.tree.write("etc/pve/nodes/n2/qemu-server/201.conf", format!("net0: virtio={},bridge=vmbr0\n", mac(201)));
    node.run(
        "pool create lan --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.1 --gateway6 2001:db8:2::1 \
              203.0.113.0/24 2001:db8:2::/64",
    )
    .ok();
    node
}

#[test]
fn only_members_of_one_group_and_one_customer_share() {
    let node = node();
    node.changes_nothing("assign 101 --shared web --no-hookscript").fails_with(2, &["--shared", "<ADDRESSES>"]);
    node.changes_nothing("assign 101 203.0.113.50 --shared we/b --no-hookscript").fails_with(2, &["group name"]);
    node.run("assign 101 203.0.113.50 --no-hookscript").ok();
    node.changes_nothing("assign 102 203.0.113.50 --shared web --no-hookscript").fails_with(
        1,
        &[
            "203.0.113.50 is held by guest 101 alone, and guest 102 was to hold it in the group `web`",
            "first `pve-public-ip assign 101 203.0.113.50 --shared web`",
        ],
    );
    let said = node.run("assign 101 203.0.113.50 --shared web --no-hookscript").ok();
    assert!(said.out.contains("guest 101 is the only member of group `web` that may use 203.0.113.50"), "{said}");
    node.changes_nothing("assign 101 203.0.113.50 --shared web --no-hookscript").ok();
    let said = node.run("assign 102 203.0.113.50 --shared web --no-hookscript").ok();
    assert!(said.out.contains("pool lan, gateway 203.0.113.1, shared by group web"), "{said}");
    assert!(said.out.contains("203.0.113.50 may be used by guest 102 and by guest 101"), "{said}");
    node.run("assign 201 203.0.113.50 --shared web --no-hookscript").ok();
    for (command, words) in [
        (
            "assign 103 203.0.113.50",
            "203.0.113.50 is held by guest 101 in the group `web`, and guest 103 was to hold it alone",
        ),
        ("assign 103 203.0.113.50 --shared db", "in the group `web`, and guest 103 was to hold it in the group `db`"),
        ("assign 102 203.0.113.50 --shared db", "in the group `web`, and guest 102 was to hold it in the group `db`"),
        (
            "assign 103 203.0.113.50 --shared web --organization acme",
            "guest 101 holds 203.0.113.50 for no organization: guest 103 cannot share it",
        ),
        ("assign 103 203.0.113.48/30 --shared web", "203.0.113.48/30 is held by guest 101, which holds 203.0.113.50"),
    ] {
        node.changes_nothing(&format!("{command} --no-hookscript")).fails_with(1, &[words]);
    }
    // One address that three hold is one address, and no conflict.
    assert!(node.run("conflicts list").ok().out.contains("no conflict"));
    let shown = node.run("topology").ok();
    assert!(!shown.out.contains("203.0.113.50 is assigned"), "{shown}");
    let listed = node.run("pool list --output-format json").ok().json();
    assert!(listed.to_string().contains("\"assigned\":1"), "{listed}");
    let who = node.run("who 203.0.113.50").ok();
    for word in ["guest 101", "guest 102", "guest 201", "by group web"] {
        assert!(who.out.contains(word), "{who}");
    }
    // The last one that gives it back frees it.
    node.run("release 101 203.0.113.50").ok();
    node.run("release 201 203.0.113.50").ok();
    node.changes_nothing("assign 103 203.0.113.50 --no-hookscript")
        .fails_with(1, &["is held by guest 102 in the group"]);
    node.run("release 102 203.0.113.50").ok();
    node.run("assign 103 203.0.113.50 --no-hookscript").ok();
}

#[test]
fn members_are_in_one_vlan() {
    let node = node();
    node.tree.qemu(103, format!("net0: virtio={},bridge=vmbr0,tag=20\n", mac(103)));
    node.tree.qemu(104, format!("net0: virtio={},bridge=vmbr0,tag=30\n", mac(104)));
    node.run("assign 101 203.0.113.50 --shared web --no-hookscript").ok();
    node.run("assign 103 203.0.113.51 --shared db --no-hookscript").ok();
    for (command, words) in [
        (
            "assign 103 203.0.113.50 --shared web",
            "guest 103 net0 is in VLAN 20, and guest 101, which holds 203.0.113.50 in turn with it, is in no VLAN",
        ),
        (
            "assign 104 203.0.113.51 --shared db",
            "guest 104 net0 is in VLAN 30, and guest 103, which holds 203.0.113.51 in turn with it, is in VLAN 20",
        ),
        // On another node, too.
        ("assign 201 203.0.113.51 --shared db", "guest 201 net0 is in no VLAN, and guest 103"),
    ] {
        let refused = node.changes_nothing(&format!("{command} --no-hookscript"));
        refused.fails_with(1, &[words, "neither hears the other", "put both NICs into one VLAN"]);
    }
    node.tree.qemu(104, format!("net0: virtio={},bridge=vmbr0,tag=20\n", mac(104)));
    node.run("assign 104 203.0.113.51 --shared db --no-hookscript").ok();
}

#[test]
fn what_the_provider_sends_to_one_mac_is_not_shared() {
    let node = node();
    node.run("pool create hz --profile hetzner-bridged --bridge vmbr0 --gateway4 198.51.100.1 198.51.100.5").ok();
    node.run(&format!("pool add hz 198.51.100.6 --mac {} --yes", mac(101))).ok();
    node.changes_nothing("assign 101 198.51.100.6 --shared web --no-hookscript").fails_with(
        1,
        &[
            "the provider sends 198.51.100.6 to MAC 02:00:00:00:00:65 only (profile hetzner-bridged of pool `hz`)",
            "share an address of a pool without MACs of the provider",
        ],
    );
    node.changes_nothing("assign 101 198.51.100.5 --shared web --no-hookscript")
        .fails_with(1, &["the provider sends 198.51.100.5 to one MAC only"]);
}

/// A guest's network, and its keepalived.
struct Guest {
    net: Namespace,
    keepalived: Option<Ends>,
}

fn plug(node: &Node, vmid: u32, more: &str) -> Guest {
    let net = Namespace::new();
    net.sh("for name in all default; do echo 0 > /proc/sys/net/ipv6/conf/$name/accept_dad; done");
    node.run(&format!("hook {vmid} pre-start")).ok();
    node.net.sh(&format!(
        "ip link add tap{vmid}i0 type veth peer name eth0 address {} netns {}; ip link set tap{vmid}i0 master vmbr0 up",
        mac(vmid),
        net.path()
    ));
    net.sh(&format!("ip link set lo up; ip link set eth0 up; {more}"));
    node.run(&format!("hook {vmid} post-start")).ok();
    Guest { net, keepalived: None }
}

impl Guest {
    fn keepalived(&mut self, node: &Node, vmid: u32, priority: u32) {
        let instance = |name: &str, id: u32, address: &str| {
            format!(
                "vrrp_instance {name} {{\n state BACKUP\n interface eth0\n virtual_router_id {id}\n priority {priority}\n advert_int 0.2\n \
                 virtual_ipaddress {{\n {address}\n }}\n}}\n"
            )
        };
        let text = format!(
            "global_defs {{\n vrrp_version 3\n}}\n{}{}",
            instance("four", 1, "203.0.113.50/24"),
            instance("six", 2, "fe80::50/64\n 2001:db8:2::50/64")
        );
        let file = |name: &str| node.tree.path(&format!("{name}.{vmid}"));
        fs::write(file("keepalived"), text).unwrap();
        let child = self
            .net
            .command("keepalived")
            .args(["--dont-fork", "--log-console", "--vrrp", "--use-file"])
            .arg(file("keepalived"))
            .arg("--pid")
            .arg(file("pid"))
            .arg("--vrrp_pid")
            .arg(file("vrrp"))
            .stdout(fs::File::create(file("log")).unwrap())
            .stderr(fs::File::create(file("errors")).unwrap())
            .spawn()
            .unwrap();
        self.keepalived = Some(Ends(child));
    }

    fn has(&self, address: &str) -> bool {
        self.net.sh("ip -o addr show dev eth0").contains(&format!(" {address}/"))
    }
}

fn answers(from: &Namespace, address: &str) -> bool {
    from.command("ping").args(["-c1", "-W1", address]).output().unwrap().status.success()
}

/// By whose MAC the node and the router know an address.
fn known(node: &Node, router: &Namespace, address: &str) -> [String; 2] {
    let lladdr = |net: &Namespace, dev: &str| {
        let text = net.sh(&format!("ip neigh show to {address} dev {dev}"));
        text.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).unwrap_or_default().to_owned()
    };
    [lladdr(&node.net, "vmbr0"), lladdr(router, "wan")]
}

/// How long nobody answered for each address, of a ping every 20 ms that ran over the change.
fn longest_silence(text: &str) -> f64 {
    let time = |line: &str| line.strip_prefix('[')?.split(']').next()?.parse::<f64>().ok();
    let times: Vec<f64> = text.lines().filter(|line| line.contains("bytes from")).filter_map(time).collect();
    assert!(times.len() > 10, "{text}");
    times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
}

/// A node with a router in front, on which 101 and 102 share an address of each family; 103 has others, 104 none.
struct Scene {
    node: Node,
    router: Namespace,
    guests: BTreeMap<u32, Guest>,
}

impl Scene {
    fn new() -> Self {
        let node = node();
        let router = Namespace::new();
        let quick = "for name in all default; do echo 0 > /proc/sys/net/ipv6/conf/$name/accept_dad; done";
        router.sh(quick);
        node.net.sh(&format!(
            "{quick}; ip addr add 2001:db8:2::250/64 dev vmbr0; \
             ip link add eno1 type veth peer name wan netns {}; ip link set eno1 master vmbr0 up",
            router.path()
        ));
        router.sh("ip link set wan up; ip addr add 203.0.113.1/24 dev wan; ip addr add 2001:db8:2::1/64 dev wan");
        for vmid in [101, 102, 103] {
            node.run(&format!("assign {vmid} 203.0.113.{vmid} 2001:db8:2::{vmid} --no-hookscript")).ok();
        }
        for vmid in [101, 102] {
            node.run(&format!("set {vmid} --link-local fe80::50")).ok();
            node.run(&format!("assign {vmid} {} {} --shared web --no-hookscript", SHARED[0], SHARED[1])).ok();
        }
        let own =
            |vmid: u32| format!("ip addr add 203.0.113.{vmid}/24 dev eth0; ip addr add 2001:db8:2::{vmid}/64 dev eth0");
        let mut guests = BTreeMap::new();
        for vmid in [101, 102, 103, 104] {
            guests.insert(vmid, plug(&node, vmid, &if vmid == 104 { "true".to_owned() } else { own(vmid) }));
        }
        // A guest without addresses calls no hook.
        node.run("apply").ok();
        node.is_in_line();
        Self { node, router, guests }
    }

    fn keepalived(&mut self, vmid: u32, priority: u32) {
        self.guests.get_mut(&vmid).unwrap().keepalived(&self.node, vmid, priority);
    }

    fn is_master(&self, vmid: u32) -> bool {
        SHARED.iter().all(|address| self.guests[&vmid].has(address))
    }

    /// Node and router reach the addresses, and by this guest's MAC.
    fn until_known(&self, vmid: u32) {
        for address in SHARED {
            until("router and node reach the shared address", || {
                answers(&self.router, address) && answers(&self.node.net, address)
            });
            until("node and router know the master", || {
                known(&self.node, &self.router, address) == [mac(vmid).to_string(), mac(vmid).to_string()]
            });
        }
    }

    /// Who is no member says it is his: with his own MAC, with the master's; bound, and without any address; and a host
    /// behind the uplink, because all members run here. The master keeps it.
    fn nobody_takes_it_from(&self, master: u32) {
        for vmid in [103, 104] {
            for (address, from) in SHARED.iter().flat_map(|address| [(address, mac(vmid)), (address, mac(master))]) {
                let frame = announce::frame(from, address.parse::<IpAddr>().unwrap());
                let frames = [frame.clone(), frame];
                self.guests[&vmid].net.inside(|| packet::send("eth0".parse().unwrap(), &frames).unwrap());
            }
        }
        for address in SHARED {
            let frames = [announce::frame("02:00:00:00:99:99".parse().unwrap(), address.parse().unwrap())];
            self.router.inside(|| packet::send("wan".parse().unwrap(), &frames).unwrap());
        }
        // What comes after it has arrived.
        until("the node answers 103", || answers(&self.guests[&103].net, "203.0.113.250"));
        for address in SHARED {
            until("the node reaches the shared address", || answers(&self.node.net, address));
            assert_eq!(known(&self.node, &self.router, address), [mac(master).to_string(), mac(master).to_string()]);
        }
    }

    /// The master becomes another one by what is done in a guest, while node and router ping.
    fn fail_over(&self, in_guest: u32, how: &str, to: u32) {
        let mut pings = Vec::new();
        for (net, who) in [(&self.node.net, "node"), (&self.router, "router")] {
            for address in SHARED {
                let file = self.node.tree.path(&format!("ping.{who}.{}", address.replace(':', "-")));
                let output = fs::File::create(&file).unwrap();
                let child = net.command("ping").args(["-D", "-i", "0.02", address]).stdout(output).spawn().unwrap();
                pings.push((format!("{who} to {address}"), file, Ends(child)));
            }
        }
        let lines = |file: &Path| fs::read_to_string(file).unwrap().lines().count();
        until("the pings run", || pings.iter().all(|(_, file, _)| lines(file) > 20));
        self.guests[&in_guest].net.sh(how);
        until("the other one is master", || self.is_master(to));
        let before: Vec<usize> = pings.iter().map(|(_, file, _)| lines(file)).collect();
        let went_on = |at: usize, file: &Path| lines(file) > before[at] + 50;
        until("the pings go on", || pings.iter().enumerate().all(|(at, (_, file, _))| went_on(at, file)));
        for (what, file, ping) in pings {
            drop(ping);
            let silence = longest_silence(&fs::read_to_string(file).unwrap());
            // Three advertisements and a part of one, here 0.7 s; a kernel that was not told would take half a minute.
            assert!(silence < 10.0, "to guest {to}, {what}: nobody answered for {silence:.2} s");
        }
        self.until_known(to);
    }
}

#[test]
fn the_node_follows_the_master_and_nobody_else() {
    need(&["keepalived", "ping"]);
    let mut scene = Scene::new();
    scene.keepalived(101, 200);
    until("101 is master", || scene.is_master(101));
    scene.keepalived(102, 100);
    scene.until_known(101);
    scene.nobody_takes_it_from(101);
    // The master's network is gone.
    scene.fail_over(101, "ip link set eth0 down", 102);
    scene.nobody_takes_it_from(102);
    scene.node.is_in_line();
    // It comes back, and takes it back.
    scene.fail_over(101, "ip link set eth0 up; ip addr add 2001:db8:2::101/64 dev eth0", 101);
    // The guest of the master is stopped; what the other one needs stays.
    let node = &scene.node;
    node.net.sh("ip link del tap101i0");
    node.run("hook 101 post-stop").ok();
    until("102 is master", || scene.is_master(102));
    scene.until_known(102);
    scene.nobody_takes_it_from(102);
    node.is_in_line();
    // A member on another node: it comes in by the uplink, and is believed.
    node.run(&format!("assign 201 {} {} --shared web --no-hookscript", SHARED[0], SHARED[1])).ok();
    for address in SHARED {
        let frames = [announce::frame(mac(201), address.parse().unwrap())];
        until("the node follows", || {
            scene.router.inside(|| packet::send("wan".parse().unwrap(), &frames).unwrap());
            known(node, &scene.router, address)[0] == mac(201).to_string()
        });
    }
    assert!(node.run("conflicts list").ok().out.contains("no conflict"));
    // Without the last member that runs here nothing of it is left.
    node.run(&format!("release 201 {} {}", SHARED[0], SHARED[1])).ok();
    node.net.sh("ip link del tap102i0");
    node.run("hook 102 post-stop").ok();
    node.is_in_line();
    let set = [node.net.set("bound_ip4"), node.net.set("bound_ip6")].concat();
    assert!(set.iter().all(|line| !line.contains("203.0.113.50") && !line.contains("2001:db8:2::50")), "{set:?}");
}
