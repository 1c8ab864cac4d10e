//! `import` of what runs: where an address is seen, what contradicts it, and that no guest notices.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::collections::BTreeMap;
use std::process::Stdio;

use pve_public_ip::model::MacAddr;
use pve_public_ip::system::packet;

use common::pings::Pings;
use common::{Namespace, Node, Run, Tree, need, until};

/// A guest that runs: its namespace, and what it uses.
struct Guest {
    vmid: u32,
    net: Namespace,
}

fn mac(vmid: u32) -> String {
    format!("02:00:00:aa:{:02x}:{:02x}", vmid >> 8, vmid & 255)
}

/// Plugs a guest in, without an address.
fn plug(node: &Node, vmid: u32) -> Guest {
    let net = Namespace::new();
    node.net.sh(&format!(
        "ip link add tap{vmid}i0 type veth peer name eth0 address {} netns {}
         echo 1 > /proc/sys/net/ipv6/conf/tap{vmid}i0/disable_ipv6; ip link set tap{vmid}i0 master vmbr0 up",
        mac(vmid),
        net.path()
    ));
    // It asks for its gateway again and again, as guests do in the course of a day.
    net.sh("ip link set lo up; ip link set eth0 up; cd /proc/sys/net/ipv4/neigh/eth0
        echo 500 > base_reachable_time_ms; echo 1 > delay_first_probe_time");
    Guest { vmid, net }
}

/// Says by ARP that it has these addresses.
fn claim(net: &Namespace, device: &str, mac: &str, last: std::ops::RangeInclusive<u8>) {
    let mac = mac.parse::<MacAddr>().unwrap().octets();
    let frame = |last: u8| {
        let address = [203, 0, 113, last];
        let head = [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
        [&head[..], &mac, &address, &[0; 6], &address, &[0; 18]].concat()
    };
    let frames: Vec<Vec<u8>> = last.map(frame).collect();
    net.inside(|| packet::send(device.parse().unwrap(), &frames).unwrap());
}

fn quiet(node: &Node) {
    node.stand_in_proxmox();
    node.net.sh("ip link set vmbr0 type bridge forward_delay 0 mcast_snooping 0");
    for other in ["qemu-server/100", "qemu-server/101", "lxc/200"] {
        std::fs::remove_file(node.tree.path(&format!("etc/pve/nodes/n1/{other}.conf"))).unwrap();
    }
}

/// The rows of the table by guest and address: where it was seen, and what contradicts.
fn rows(run: &Run) -> BTreeMap<(String, String), (String, String)> {
    let answer: serde_json::Value = serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {run}"));
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let row = |one: &serde_json::Value| {
        let seen: Vec<String> = one["seen"].as_array().unwrap().iter().map(text).collect();
        let against = one.get("contradiction").map(text).unwrap_or_default();
        ((text(&one["vmid"]), text(&one["address"])), (seen.join(", "), against))
    };
    answer["found"].as_array().unwrap().iter().map(row).collect()
}

fn row(run: &Run, vmid: u32, address: &str) -> (String, String) {
    rows(run).remove(&(vmid.to_string(), address.to_owned())).unwrap_or_default()
}

#[test]
fn fifty_guests_of_two_nodes_are_imported_without_a_lost_frame() {
    need(&["ping", "nft"]);
    let first = Node::new();
    quiet(&first);
    let second = Node { tree: first.tree.beside("n2"), net: Namespace::new() };
    second.net.sh(
        "ip link set lo up; ip link add vmbr0 address 02:00:00:00:00:fd type bridge forward_delay 0 mcast_snooping 0
        ip link set vmbr0 up; ip addr add 203.0.113.251/24 dev vmbr0",
    );
    // One wire between provider and both nodes.
    let provider = Namespace::new();
    provider.sh("ip link add wan address 02:00:00:00:0f:01 type bridge forward_delay 0 mcast_snooping 0
        ip link set wan up; ip addr add 203.0.113.1/24 dev wan");
    let nodes = [(&first, 1), (&second, 2)];
    for (node, number) in nodes {
        node.net.sh(&format!(
            "ip link add eno1 type veth peer name w{number} netns {}; echo 1 > /proc/sys/net/ipv6/conf/eno1/disable_ipv6
             ip link set eno1 master vmbr0 up",
            provider.path()
        ));
        provider.sh(&format!("ip link set w{number} master wan up"));
    }
    let mut guests = Vec::new();
    for (node, number) in nodes {
        for index in 0..25 {
            let (vmid, last) = (number * 100 + index, number * 100 + index);
            // Of the first node's guests half have their address in the configuration, the others inside only.
            let told = if number == 2 || vmid % 2 == 0 {
                format!("ipconfig0: ip=203.0.113.{last}/24,gw=203.0.113.1\n")
            } else {
                String::new()
            };
            node.tree.qemu(vmid, format!("name: g{vmid}\n{told}net0: virtio={},bridge=vmbr0\n", mac(vmid)));
            let guest = plug(node, vmid);
            guest.net.sh(&format!("ip addr add 203.0.113.{last}/24 dev eth0"));
            guests.push(guest);
            node.net.sh(&format!("ping -c 1 -W 5 203.0.113.{last}"));
        }
    }
    let pings = Pings::start(guests.iter().map(|guest| (guest.vmid, &guest.net)));
    until("all ports of the node are heard", || {
        let listed = rows(&first.run("import --watch 2s --node n1 --output-format json").ok());
        let heard = listed.values().filter(|(seen, against)| seen.contains("ARP") && against.is_empty());
        heard.count() == 25
    });
    let command = "import --pool lan --profile generic-bridged --watch 1s --no-hookscript";
    let dry = first.changes_nothing(&format!("{command} --dry-run")).ok();
    assert!(dry.out.contains("pool lan would be created") && dry.out.contains("50 would be assigned"), "{dry}");
    let made = first.run(command).ok();
    for words in
        ["pool lan created on watch", "assumed: bridge vmbr0", "gateway 203.0.113.1", "50 assigned, 0 held already"]
    {
        assert!(made.out.contains(words), "{words}: {made}");
    }
    assert!(second.run("apply").ok().out.contains("lan") || second.run("verify").code == 0);
    first.is_in_line();
    second.is_in_line();
    // Everybody holds what he uses: nobody loses anything by what follows.
    let on = first.run("pool set lan --enforce on").ok();
    assert!(!on.out.contains("loses"), "{on}");
    second.run("apply").ok();
    for node in [&first, &second] {
        assert!(node.run("verify").ok().out.contains("25 guests are bound"));
    }
    let all = pings.end();
    assert!(all > 500, "{all} pings");
    let again = first.run("import").ok();
    assert!(again.out.contains("no guest is known to use a public address"), "{again}");
    // And each of them is kept to its own now.
    let thief = &guests[0].net;
    thief.sh("ip addr add 203.0.113.101/32 dev eth0");
    let lost = thief.sh("ping -c 2 -i 0.2 -W 1 -I 203.0.113.101 203.0.113.1 >/dev/null && echo works || echo lost");
    assert_eq!(lost.trim(), "lost");
}

#[test]
fn what_ports_send_is_seen_and_no_guest_fills_it() {
    need(&["ping", "nft"]);
    let node = Node::new();
    quiet(&node);
    let provider = Namespace::new();
    node.net.sh(&format!(
        "ip link add eno1 type veth peer name wan netns {}; ip link set eno1 master vmbr0 up",
        provider.path()
    ));
    provider.sh("ip link set wan up; ip addr add 203.0.113.1/24 dev wan; ip addr add 203.0.113.14/32 dev wan");
    let vmids = [110, 111, 112, 113, 114, 115];
    let guests: Vec<Guest> = vmids
        .into_iter()
        .map(|vmid| {
            node.tree.qemu(vmid, format!("name: g{vmid}\nnet0: virtio={},bridge=vmbr0\n", mac(vmid)));
            plug(&node, vmid)
        })
        .collect();
    // 110 has an address, and 10.0.0.5 that is nobody's business; so has 111, but it has 110's, too.
    guests[0].net.sh("ip addr add 203.0.113.10/24 dev eth0; ip addr add 10.0.0.5/24 dev eth0; ip addr add 2001:db8:7::10/64 dev eth0 nodad");
    guests[1].net.sh("ip addr add 203.0.113.11/24 dev eth0; ip addr add 203.0.113.10/32 dev eth0");
    // 112 says that it has a hundred.
    guests[2].net.sh(
        "ip addr add 203.0.113.12/24 dev eth0; for i in $(seq 100 199); do ip addr add 203.0.113.$i/32 dev eth0; done",
    );
    // 113 sends from what it does not claim.
    guests[3].net.sh("ip addr add 203.0.113.13/24 dev eth0; ip addr add 198.51.100.99/32 dev eth0
        ip neigh add 203.0.113.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent");
    // A host of the provider's has what 114 has; and 115 has another MAC than its configuration says.
    guests[4].net.sh("ip addr add 203.0.113.14/24 dev eth0");
    guests[5].net.sh("ip link set eth0 address 02:00:00:00:99:99; ip addr add 203.0.113.15/24 dev eth0");
    let heard = |run: &Run| {
        let expected = [
            (110, "203.0.113.10", "ARP"),
            (111, "203.0.113.10", "ARP"),
            (111, "203.0.113.11", "ARP"),
            (110, "2001:db8:7::10", "neighbour discovery"),
            (113, "198.51.100.99", "packets"),
            (114, "203.0.113.14", "ARP"),
        ];
        let all = expected.iter().all(|(vmid, address, place)| row(run, *vmid, address).0.contains(place));
        all && row(run, 114, "203.0.113.14").1.contains("eno1")
            && rows(run).keys().filter(|(vmid, _)| vmid == "112").count() > 32
    };
    let watch = || {
        let mut child = node
            .command(&["import", "--watch", "4s", "--output-format", "json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        until("the ports are watched", || node.net.sh("nft list tables").contains("pve-public-ip-watch"));
        while child.try_wait().unwrap().is_none() {
            for (guest, last) in [(0, 10), (1, 10), (1, 11), (4, 14)] {
                claim(&guests[guest].net, "eth0", &mac(guests[guest].vmid), last..=last);
            }
            claim(&guests[5].net, "eth0", "02:00:00:00:99:99", 15..=15);
            claim(&provider, "wan", "02:00:00:00:0f:01", 14..=14);
            claim(&guests[2].net, "eth0", &mac(112), 100..=199);
            guests[3].net.sh("ping -c 1 -W 1 -I 198.51.100.99 203.0.113.1 >/dev/null || true");
            guests[0].net.sh(
                "ping -c 1 -W 1 -I 10.0.0.5 10.0.0.1 >/dev/null || true; ping -c 1 -W 1 -I 2001:db8:7::10 2001:db8:7::1 >/dev/null || true",
            );
        }
        Run::of("import --watch".to_owned(), &child.wait_with_output().unwrap()).ok()
    };
    // On a busy machine somebody may not get to speak in time.
    let mut run = watch();
    until("everybody is heard", || {
        let is_heard = heard(&run);
        if !is_heard {
            run = watch();
        }
        is_heard
    });
    assert!(!node.net.sh("nft list tables").contains("watch"), "the table stays");
    let against = |vmid, address| row(&run, vmid, address);
    let (seen, why) = against(110, "203.0.113.10");
    assert!(seen.contains("ARP") && why == "guest 111 net0 uses it, too", "{seen}: {why}: {run}");
    let (seen, why) = against(111, "203.0.113.11");
    assert!(seen.contains("ARP") && why.is_empty(), "{seen}: {why}: {run}");
    let (seen, why) = against(110, "2001:db8:7::10");
    assert!(seen.contains("neighbour discovery") && why.is_empty(), "{seen}: {why}: {run}");
    assert!(!run.out.contains("10.0.0.5"), "{run}");
    let many: Vec<_> = rows(&run).into_iter().filter(|((vmid, _), _)| vmid == "112").collect();
    assert!(many.len() <= 65 && many.len() > 32, "{}", many.len());
    let kept = many.iter().filter(|(_, (seen, why))| !seen.contains("neighbour table") && why.is_empty());
    assert_eq!(kept.count(), 0, "{many:?}");
    let (seen, why) = against(113, "198.51.100.99");
    assert!(seen == "packets" && why.contains("only the source of packets"), "{seen}: {why}: {run}");
    let (_, why) = against(114, "203.0.113.14");
    assert!(why.contains("on eno1 uses it, too"), "{why}: {run}");
    assert_eq!(against(115, "203.0.113.15"), Default::default(), "not its MAC: {run}");
}

#[test]
fn a_watch_that_is_killed_leaves_nothing() {
    let node = Node::new();
    quiet(&node);
    // Not SIGINT: what a shell starts in the background ignores it, and so does what that starts.
    for signal in ["KILL", "TERM"] {
        let mut child =
            node.command(&["import", "--watch", "1h"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the ports are watched", || node.net.sh("nft list tables").contains("pve-public-ip-watch"));
        node.net.sh(&format!("kill -{signal} {}", child.id()));
        child.wait().unwrap();
        until("the table goes", || !node.net.sh("nft list tables").contains("pve-public-ip-watch"));
    }
    // Who takes it away meanwhile is told of; nothing is imported by half of it.
    let child = node.command(&["import", "--watch", "2s"]).stderr(Stdio::piped()).spawn().unwrap();
    until("the ports are watched", || node.net.sh("nft list tables").contains("pve-public-ip-watch"));
    node.net.sh("nft flush ruleset");
    let run = Run::of("import --watch 2s".to_owned(), &child.wait_with_output().unwrap());
    run.fails_with(1, &["another program has removed the table", "what they sent is not known"]);
    node.run("import --watch soon").fails_with(2, &["`soon` is not a time such as 30s"]);
    node.run("import --watch 2days").fails_with(2, &["at most 1day"]);
}

#[test]
fn documents_rules_routes_and_sets_are_read() {
    need(&["nft", "iptables-nft"]);
    let node = Node::new();
    quiet(&node);
    for vmid in 110..=116 {
        node.tree.qemu(vmid, format!("name: g{vmid}\nnet0: virtio={},bridge=vmbr0\n", mac(vmid)));
    }
    node.tree.qemu(
        110,
        format!("net0: virtio={},bridge=vmbr0\ncicustom: network=local:snippets/own.yaml\nide2: local:110/vm-110-cloudinit.qcow2\n", mac(110)),
    );
    let storage = "dir: local\n\tpath /var/lib/vz\n\tcontent iso,snippets,images\n";
    node.tree.write("etc/pve/storage.cfg", storage);
    let document = format!(
        "version: 2\nethernets:\n  a:\n    match:\n      macaddress: '{}'\n    addresses:\n      - 203.0.113.10/24\n      - 2001:db8:9::10/64\n",
        mac(110)
    );
    node.tree.write("var/lib/vz/snippets/own.yaml", document);
    node.tree.write("etc/pve/firewall/111.fw", "[OPTIONS]\nenable: 1\n\n[IPSET ipfilter-net0]\n\n203.0.113.11\n");
    node.net.sh(&format!(
        "ip neigh add 203.0.113.12 lladdr {} dev vmbr0 nud permanent; ip route add 203.0.113.12 dev vmbr0
         nft 'add table bridge own; add chain bridge own f {{ type filter hook forward priority 0; }}'
         nft 'add rule bridge own f iifname \"tap113i0\" ip saddr != 203.0.113.13 drop'
         nft 'add rule bridge own f iifname \"tap116i0\" ip saddr 203.0.113.13 drop'
         nft 'add set bridge own pairs {{ type ifname . ipv4_addr; elements = {{ \"tap114i0\" . 203.0.113.14 }}; }}'
         iptables-nft -A FORWARD -s 203.0.113.15 -m mac --mac-source {} -j ACCEPT
         ip link add tap116i0 type veth peer name far116; ip link set tap116i0 up; ip link set far116 up; ip route add 203.0.113.16 dev tap116i0
         ip route add 203.0.113.77 dev vmbr0",
        mac(112),
        mac(115)
    ));
    let run = node.run("import --output-format json").ok();
    for (vmid, address, places) in [
        (110, "203.0.113.10", "cicustom"),
        (110, "2001:db8:9::10", "cicustom"),
        (111, "203.0.113.11", "firewall set"),
        (112, "203.0.113.12", "static neighbour, route"),
        (113, "203.0.113.13", "rule of nft"),
        (114, "203.0.113.14", "rule of nft"),
        // `nft` shows the same rule as far as it can.
        (115, "203.0.113.15", "rule of iptables, rule of nft"),
        (116, "203.0.113.16", "route"),
    ] {
        assert_eq!(row(&run, vmid, address), (places.to_owned(), String::new()), "guest {vmid}: {run}");
    }
    assert_eq!(rows(&run).len(), 8, "{run}");
    assert!(run.out.contains("the node routes 203.0.113.77 to vmbr0, and no guest is known to use it"), "{run}");

    // The provider's MACs go into the pool where it needs them, and what is wrong with the question is said first.
    let made = node.run("import --pool hz --profile hetzner-bridged --bridge vmbr0 --no-hookscript").ok();
    assert!(made.out.contains("8 assigned, 0 held already"), "{made}");
    let shown = node.run("pool export hz").ok();
    assert!(shown.out.contains(&format!("203.0.113.13,{}", mac(113))), "{shown}");
    node.run("import --pool hz --profile hetzner-bridged --watch 1h").fails_with(1, &["hz", "exists"]);
    node.run("import --pool lan --watch 1h").fails_with(1, &["lan"]);
    node.run("import --pool two --profile generic-bridged --bridge vmbr0")
        .fails_with(1, &["no guest on vmbr0 is known"]);
    let two = Tree::guest_file(110);
    assert!(node.tree.read(&two).contains("203.0.113.10"));
    // The document is the guest's own, and stays.
    assert!(
        node.tree.read("etc/pve/nodes/n1/qemu-server/110.conf").contains("cicustom: network=local:snippets/own.yaml")
    );
}

#[test]
fn addresses_on_two_bridges_are_two_pools() {
    let node = Node::new();
    quiet(&node);
    node.net.sh("ip link add vmbr1 type bridge; ip link set vmbr1 up");
    for (vmid, bridge) in [(110, "vmbr0"), (111, "vmbr1")] {
        let last = vmid - 100;
        node.tree.qemu(
            vmid,
            format!("ipconfig0: ip=203.0.113.{last}/24,gw=203.0.113.1\nnet0: virtio={},bridge={bridge}\n", mac(vmid)),
        );
    }
    let listed = node.run("import").ok();
    for bridge in ["vmbr0", "vmbr1"] {
        assert!(
            listed.out.contains(&format!("to assign those on {bridge}: `pve-public-ip import --pool NAME")),
            "{listed}"
        );
    }
    let refused = node.changes_nothing("import --pool a --profile generic-bridged");
    refused.fails_with(1, &["on several bridges: vmbr0, vmbr1", "--bridge vmbr0"]);
    node.run("import --pool a --profile generic-bridged --bridge vmbr1 --no-hookscript").ok();
    let held = node.run("list").ok();
    assert!(held.out.contains("203.0.113.11") && !held.out.contains("203.0.113.10 "), "{held}");
}
