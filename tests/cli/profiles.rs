//! Profiles: what `pool create` finds out by itself, and providers that a user describes.

use serde_json::json;

use crate::common::{Node, Run, Tree};

/// A node as the installer leaves it: the card in vmbr0, and a bridge for private networks.
fn node() -> Node {
    let node = Node::new();
    for vmid in [100, 101] {
        node.tree.qemu(vmid, format!("net0: virtio=02:00:00:AA:BB:{:02},bridge=vmbr2\n", vmid - 100));
    }
    node.tree.lxc(200, "net0: name=eth0,bridge=vmbr2,hwaddr=02:00:00:AA:BB:02,type=veth\n");
    node.net.sh(
        "ip addr flush dev vmbr0; ip link set vmbr0 up; ip link add eno1 type veth peer name provider; ip link set eno1 master vmbr0 up; \
         ip link set provider up; ip addr add 198.51.100.7/24 dev vmbr0; ip route add default via 198.51.100.1; \
         ip link add vmbr1 type bridge; ip addr add 10.0.0.1/24 dev vmbr1; ip link set vmbr1 up",
    );
    node
}

fn shown(node: &Node, pool: &str) -> serde_json::Value {
    let data = node.run(&format!("pool show {pool} --output-format json")).ok().json();
    json!([data["bridge"], data["mode"], data["gateway4"], data["gateway6"], data["uplink_guard"]])
}

#[test]
fn bridge_and_gateway_are_found_out_and_said() {
    let node = node();
    node.run("pool create rbx --profile ovh-bridged 203.0.113.10").prints(
        "pool rbx created: ovh-bridged, bridge vmbr0, 1 entry\n\
         assumed: bridge vmbr0 (uplink eno1), the only one that fits\n\
         assumed: IPv4 gateway 198.51.100.254, the node's main address 198.51.100.7 (vmbr0) with 254 at its end\n",
    );
    assert_eq!(shown(&node, "rbx"), json!(["vmbr0", "bridged", "198.51.100.254", null, "enforce"]));
    node.run("pool create fsn --profile hetzner-bridged --bridge vmbr0 203.0.113.20 2001:db8:9::/64").prints(
        "pool fsn created: hetzner-bridged, bridge vmbr0, 2 entries\n\
         assumed: IPv4 gateway 198.51.100.1, the node's own (vmbr0); compare it with what the provider says of the address\n\
         assumed: IPv6 gateway fe80::1, as always with hetzner-bridged\n",
    );
    let run = node.run("pool create net --profile hetzner-routed --bridge vmbr1 192.0.2.0/28");
    assert_eq!(run.err, "pve-public-ip: routed traffic is filtered by nftables\n", "once, when it is decided");
    Run { err: String::new(), ..run }.prints(
        "pool net created: hetzner-routed, bridge vmbr1, 1 entry\n\
         assumed: IPv4 gateway 10.0.0.1, the node's address on vmbr1\n\
         while a guest of it runs here, the node forwards IPv4 on vmbr0 and vmbr1\n",
    );
    assert_eq!(shown(&node, "net"), json!(["vmbr1", "routed", "10.0.0.1", null, "enforce"]));
    // What is said by hand is not argued with.
    node.run("pool create par --profile dedibox-bridged --bridge vmbr0 --gateway4 192.0.2.254 203.0.113.30")
        .prints("pool par created: dedibox-bridged, bridge vmbr0, 1 entry\n");
    assert_eq!(shown(&node, "par"), json!(["vmbr0", "bridged", "192.0.2.254", null, "enforce"]));
}

#[test]
fn a_routed_pool_says_what_becomes_of_the_node() {
    let node = node();
    node.net.sh("ip -6 addr add 2001:db8:7::2/64 dev vmbr0 nodad; ip -6 route add default via 2001:db8:7::1; ip addr flush dev vmbr1 scope global");
    let create = "pool create net --profile ovh-routed --bridge vmbr1 192.0.2.0/28 2001:db8:1::/64";
    let can_force = std::path::Path::new("/proc/sys/net/ipv6/conf/all/force_forwarding").exists();
    let forwards = if can_force { "forwards IPv6 on vmbr0 and vmbr1" } else { "forwards IPv6" };
    node.run(&format!("{create} --gateway4 169.254.0.1 --gateway6 fe80::1 --dry-run")).prints(&format!(
        "pool net would be created: ovh-routed, bridge vmbr1, 2 entries\n\
         while a guest of it runs here, the node forwards IPv4 on vmbr0 and vmbr1, {forwards}, \
         has the gateway 169.254.0.1 on vmbr1 and fe80::1 on vmbr1 and answers for its addresses on vmbr0\n"
    ));
    // In a cluster that is the default, because guests move.
    node.tree.write("etc/pve/nodes/n2/qemu-server/.keep", "");
    node.run(&format!("{create} --dry-run")).prints(&format!(
        "pool net would be created: ovh-routed, bridge vmbr1, 2 entries\n\
         assumed: IPv4 gateway 169.254.0.1, which each node has on this bridge while such a guest runs there\n\
         assumed: IPv6 gateway fe80::1, which each node has on this bridge while such a guest runs there\n\
         while a guest of it runs here, the node forwards IPv4 on vmbr0 and vmbr1, {forwards}, \
         has the gateway 169.254.0.1 on vmbr1 and fe80::1 on vmbr1 and answers for its addresses on vmbr0\n"
    ));
    // Of two ways to the provider none is taken for the one that is meant.
    node.net.sh(
        "ip link add eno2 type veth peer name other; ip link set eno2 up; ip link set other up; ip addr add 198.51.101.7/24 dev eno2; \
         ip route replace default nexthop via 198.51.100.1 nexthop via 198.51.101.1",
    );
    let run =
        node.run(&format!("{create} --gateway4 169.254.0.1 --gateway6 fe80::1 --dry-run --output-format json")).ok();
    assert_eq!(
        run.json()["problems"],
        json!([{
            "code": "routed-pool-unreachable",
            "subject": {"kind": "pool", "id": "net"},
            "sentence": "pool `net` needs an interface on which the node answers for its IPv4 addresses, but the IPv4 default route leads by eno2 and by vmbr0",
            "hint": "name it: `pve-public-ip node set --route-uplink INTERFACE` on this node; if the provider routes the addresses to the node and asks nobody for them, make the pool with a profile file that has `\"proxy\": false`",
        }])
    );
    node.tree.write("etc/pve/public-ip/nodes/n1.json", r#"{"version": 1, "route_uplink": "eno2"}"#);
    let run = node.run(&format!("{create} --gateway4 169.254.0.1 --gateway6 fe80::1 --dry-run")).ok();
    assert!(run.out.ends_with("and answers for its addresses on eno2\n"), "{run}");
    // Where the bridge is part of a network that other nodes are on, too, routing to it is another's work.
    node.net
        .sh("ip link add vxlan_v1 type vxlan id 7 dstport 4789 local 198.51.100.7; ip link set vxlan_v1 master vmbr1");
    node.changes_nothing(create).fails(
        1,
        "cannot create pool `net`: vmbr1 reaches other nodes by VXLAN (vxlan_v1), so that a guest's address would be routed on one node and used on another",
        "take a zone without VXLAN, or take a bridge of its own for the pool",
    );
}

#[test]
fn what_is_not_up_is_known_by_its_configuration() {
    let node = node();
    node.net.sh("ip route del default; ip addr flush dev vmbr0 scope global");
    node.tree.write("etc/network/interfaces", "auto lo\niface lo inet loopback\nsource /etc/network/interfaces.d/*\n");
    node.tree.write(
        "etc/network/interfaces.d/main",
        "auto vmbr0\niface vmbr0 inet static\n\taddress 198.51.100.7/24\n\tgateway 198.51.100.1\n\tbridge-ports eno1\n",
    );
    node.run("pool create rbx --profile ovh-bridged 203.0.113.10").prints(
        "pool rbx created: ovh-bridged, bridge vmbr0, 1 entry\n\
         assumed: bridge vmbr0 (uplink eno1, by /etc/network/interfaces), the only one that fits\n\
         assumed: IPv4 gateway 198.51.100.254, the node's main address 198.51.100.7 (vmbr0, by /etc/network/interfaces) with 254 at its end\n",
    );
}

#[test]
fn of_two_bridges_none_is_chosen() {
    let node = node();
    node.changes_nothing("pool create net --profile hetzner-routed 192.0.2.0/28").fails(
        1,
        "cannot create pool `net`: 2 bridges fit: vmbr0 (uplink eno1), vmbr1 (no uplink)",
        "say which: --bridge BRIDGE",
    );
    node.net.sh("ip link set eno1 nomaster");
    node.changes_nothing("pool create rbx --profile ovh-bridged 203.0.113.10").fails(
        1,
        "cannot create pool `rbx`: no bridge of this node has an uplink to the provider",
        "say which: --bridge BRIDGE",
    );
    node.net.sh("ip route del default");
    node.run("pool create rbx --profile ovh-bridged --bridge vmbr0 203.0.113.10").prints(
        "pool rbx created: ovh-bridged, bridge vmbr0, 1 entry\n\
         no IPv4 gateway: the node has no default route; name it with --gateway4\n",
    );
}

#[test]
fn another_provider_is_described_in_a_file() {
    let node = node();
    let layout = json!({
        "version": 1, "name": "scw-bridged", "mode": "bridged", "provider_mac": true, "uplink_guard": "enforce",
        "gateway4": "62.210.0.1", "gateway6": "node-gateway",
    });
    node.tree.write("scw.json", layout.to_string());
    let path = node.tree.path("scw.json").display().to_string();
    node.run(&format!("pool create scw --profile {path} --bridge vmbr0 203.0.113.10")).prints(
        "pool scw created: scw-bridged, bridge vmbr0, 1 entry\n\
         assumed: IPv4 gateway 62.210.0.1, as always with scw-bridged\n",
    );
    assert_eq!(shown(&node, "scw"), json!(["vmbr0", "bridged", "62.210.0.1", null, "enforce"]));
    let run = node.run("pool list").ok();
    assert!(run.out.contains(" scw-bridged "), "{run}");
    // It insists on the provider's MAC like a profile with a name does.
    node.tree.qemu(100, "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
    node.changes_nothing("assign 100 203.0.113.10")
        .fails_with(1, &["is not known (profile scw-bridged of pool `scw`)"]);
    node.changes_nothing("pool create more --profile ovh-bridged --bridge vmbr0 --dry-run 192.0.2.9").prints(
        "pool more would be created: ovh-bridged, bridge vmbr0, 1 entry\n\
         assumed: IPv4 gateway 198.51.100.254, the node's main address 198.51.100.7 (vmbr0) with 254 at its end\n\
         note: guest 100 net0 does not reach the provider: no pool knows its MAC 02:00:00:aa:bb:00\n  \
         hint: if the provider knows this MAC: `pve-public-ip pool set more --allow-mac 02:00:00:aa:bb:00`\n",
    );
    for (key, value, error, hint) in [
        (
            "gatway4",
            json!("192.0.2.1"),
            "has an unknown key `gatway4`",
            "did you mean `gateway4`? `pve-public-ip schema` prints all keys",
        ),
        ("version", json!(2), "has version 2", "a newer release wrote it: update pve-public-ip on this node"),
        (
            "mode",
            json!("switched"),
            "is not valid: mode: unknown variant `switched`, expected `bridged` or `routed`",
            "correct the value; `pve-public-ip schema` prints what is allowed",
        ),
        (
            "gateway6",
            json!("62.210.0.1"),
            "gateway6: 62.210.0.1 is of the other family",
            "correct the file by hand, then run `pve-public-ip verify`",
        ),
        (
            "gateway4",
            json!("the first"),
            "is not valid: gateway4: `the first` is neither an address nor one of named, node-last-254, node-gateway, node-address, bridge-link-local, penultimate",
            "correct the value; `pve-public-ip schema` prints what is allowed",
        ),
        (
            "name",
            json!("my provider"),
            "name: `my provider` is not made of letters, digits and hyphens",
            "correct the file by hand, then run `pve-public-ip verify`",
        ),
    ] {
        let mut wrong = layout.clone();
        wrong[key] = value;
        node.tree.write("wrong.json", wrong.to_string());
        let path = node.tree.path("wrong.json").display().to_string();
        let run = node.changes_nothing(&format!("pool create bad --profile {path} --bridge vmbr0 192.0.2.9"));
        assert_eq!(run.code, 4, "{run}");
        assert!(run.err.contains(&format!("cannot create pool `bad`: `{path}` {error}")), "{run}");
        assert!(key == "version" || run.err.contains(&format!("hint: {hint}\n")), "{run}");
    }
    node.changes_nothing("pool create bad --profile ./nowhere.json --bridge vmbr0").fails_with(
        1,
        &["cannot create pool `bad`: cannot read the profile `./nowhere.json`: No such file or directory"],
    );
    node.changes_nothing("pool create bad --profile ovh --bridge vmbr0")
        .fails_with(2, &["invalid value 'ovh' for '--profile <PROFILE>'", "ovh-bridged"]);
}

#[test]
fn a_nic_gets_the_mac_of_the_provider() {
    let node = node();
    node.stand_in_proxmox();
    node.tree.qemu(100, "name: web\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0,firewall=1,tag=7\n");
    node.run("pool create rbx --profile ovh-bridged --bridge vmbr0 203.0.113.12").ok();
    node.run("pool add rbx 203.0.113.10 --mac 00:50:56:00:01:02").ok();
    node.run("pool add rbx 203.0.113.11 --mac 00:50:56:00:01:03").ok();
    node.changes_nothing("assign 100 203.0.113.10").fails(
        1,
        "cannot assign to guest 100: 203.0.113.10 is bound to MAC 00:50:56:00:01:02 by the provider, but guest 100 net0 has 02:00:00:aa:bb:00",
        "with the guest stopped, `pve-public-ip assign 100 203.0.113.10 --set-mac` gives the NIC the MAC 00:50:56:00:01:02",
    );
    for (arguments, error, hint) in [
        (
            "203.0.113.10 203.0.113.11",
            "203.0.113.10 and 203.0.113.11 have different MACs at the provider",
            "assign them to two NICs",
        ),
        (
            "203.0.113.12",
            "the provider's MAC for 203.0.113.12 is not known",
            "look it up at the provider, then `pve-public-ip pool add POOL 203.0.113.12 --mac MAC`",
        ),
    ] {
        node.changes_nothing(&format!("assign 100 {arguments} --set-mac")).fails(
            1,
            &format!("cannot assign to guest 100: {error}"),
            hint,
        );
    }
    node.tree.qemu(101, "net1: e1000=00:50:56:00:01:02,bridge=vmbr2\n");
    node.changes_nothing("assign 100 203.0.113.10 --set-mac").fails(
        1,
        "cannot assign to guest 100: MAC 00:50:56:00:01:02 is that of guest 101 net1 already",
        "if guest 101 does not need it, give net1 there another one: `qm set 101 --net1 e1000,bridge=vmbr2`",
    );
    node.tree.qemu(101, "net1: e1000=02:00:00:AA:BB:01,bridge=vmbr2\n");
    node.plug("tap100i0");
    node.changes_nothing("assign 100 203.0.113.10 --set-mac").fails(
        1,
        "cannot assign to guest 100: guest 100 is running, and its NIC keeps 02:00:00:aa:bb:00 as long as it does",
        "stop it, then try again: `qm shutdown 100`",
    );
    node.unplug("tap100i0");
    let command = "MAC: qm set 100 --net0 virtio=00:50:56:00:01:02,bridge=vmbr0,firewall=1,tag=7";
    let run = node.changes_nothing("assign 100 203.0.113.10 --set-mac --dry-run").ok();
    assert!(
        run.out.starts_with(&format!(
            "{command} (not run)\n203.0.113.10 would be assigned to guest 100 net0 (00:50:56:00:01:02)"
        )),
        "{run}"
    );
    let run = node.run("assign 100 203.0.113.10 --set-mac").ok();
    assert!(
        run.out.starts_with(&format!("{command}\n203.0.113.10 assigned to guest 100 net0 (00:50:56:00:01:02)")),
        "{run}"
    );
    assert!(node.calls().contains(&command.trim_start_matches("MAC: ").to_owned()), "{:?}", node.calls());
    let run = node.run("assign 100 203.0.113.10 --set-mac").ok();
    assert!(run.out.starts_with("203.0.113.10 is already assigned to guest 100 net0 (00:50:56:00:01:02)"), "{run}");
}

/// An address passes from one customer to the next, with its MAC.
#[test]
fn a_nic_gets_its_former_mac_back() {
    let node = node();
    node.stand_in_proxmox();
    for (vmid, mac) in [(100, "02:00:00:AA:BB:00"), (101, "02:00:00:AA:BB:01")] {
        node.tree.qemu(vmid, format!("name: g\nnet0: virtio={mac},bridge=vmbr0,tag=7\n"));
    }
    node.run("pool create rbx --profile ovh-bridged --bridge vmbr0 --cool-down 0s").ok();
    node.run("pool add rbx 203.0.113.10 --mac 00:50:56:00:01:02").ok();
    node.run("pool add rbx 203.0.113.11 --mac 00:50:56:00:01:02").ok();
    node.run("assign 100 --pool rbx -4 --set-mac").ok();
    node.run("assign 100 203.0.113.11 --set-mac").ok();
    assert!(node.tree.read(&Tree::guest_file(100)).contains(r#""former": "02:00:00:aa:bb:00""#));
    let first = node.run("release 100 203.0.113.10").ok();
    assert!(!first.out.contains("MAC:"), "the NIC has another address of this MAC: {first}");

    let back = "MAC: qm set 100 --net0 virtio=02:00:00:AA:BB:00,bridge=vmbr0,tag=7";
    let run = node.changes_nothing("release 100 --dry-run").ok();
    assert!(run.out.contains(&format!("{back} (not run)\n")), "{run}");
    let run = node.run("release 100").ok();
    assert!(run.out.contains(&format!("203.0.113.11 released from guest 100\n{back}\n")), "{run}");
    assert!(node.run("audit --vmid 100").ok().out.contains("mac-given"));
    // The next customer gets address and MAC at once.
    node.run("assign 101 --pool rbx -4 --set-mac").ok();

    // What runs keeps its MAC, and it is said what is left to do.
    node.plug("tap101i0");
    let run = node.run("release 101").ok();
    let words = "MAC: guest 101 is running, and net0 keeps 00:50:56:00:01:02 as long as it does; do it by hand: \
        qm set 101 --net0 virtio=02:00:00:AA:BB:01,bridge=vmbr0,tag=7\n";
    assert!(run.out.contains(words), "{run}");
    node.unplug("tap101i0");
    node.tree.qemu(101, "name: g\nnet0: virtio=02:00:00:AA:BB:01,bridge=vmbr0,tag=7\n");

    // Another guest has the former MAC by now, or somebody has given the NIC a third one.
    node.run("assign 100 --pool rbx -4 --set-mac").ok();
    node.tree.qemu(101, "name: g\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0,tag=7\n");
    let run = node.run("release 100").ok();
    let words = "MAC: net0 keeps 00:50:56:00:01:02: its former MAC 02:00:00:aa:bb:00 is that of guest 101 net0 by now";
    assert!(run.out.contains(words), "{run}");
    node.tree.qemu(100, "name: g\nnet0: virtio=02:00:00:AA:BB:05,bridge=vmbr0,tag=7\n");
    node.run("assign 100 --pool rbx -4 --set-mac").ok();
    node.tree.qemu(100, "name: g\nnet0: virtio=02:00:00:AA:BB:06,bridge=vmbr0,tag=7\n");
    let run = node.run("release 100").ok();
    assert!(!run.out.contains("MAC:"), "{run}");

    // On another node it may run: that is left to whoever knows, by a command that works from here.
    node.tree.write("etc/pve/nodes/n2/qemu-server/102.conf", "name: g\nnet0: virtio=02:00:00:AA:BB:09,bridge=vmbr0\n");
    // The MAC is remembered only where every node reads that.
    node.tree.write("etc/pve/public-ip/releases/n2.json", r#"{"release":"0.2.0","hookscript":true}"#);
    node.run("assign 102 --pool rbx -4 --set-mac --no-hookscript").ok();
    let run = node.run("release 102").ok();
    let words = "MAC: guest 102 is on node n2, where it may be running, and net0 keeps 00:50:56:00:01:02; do it by hand: \
        pvesh set /nodes/n2/qemu/102/config --net0 virtio=02:00:00:AA:BB:09,bridge=vmbr0\n";
    assert!(run.out.contains(words), "{run}");
}

/// Whatever moment a command is killed at, the former MAC is known, and the same command again finishes it.
#[test]
fn a_former_mac_survives_a_command_that_is_killed() {
    let conf = "etc/pve/nodes/n1/qemu-server/100.conf";
    let former = "name: g\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n";
    let has = |node: &Node, mac: &str| node.tree.read(conf).contains(mac);
    for (moment, killed) in [("before", "kill -9 $PPID; exit 1"), ("after", "SET; kill -9 $PPID")] {
        let node = node();
        node.stand_in_proxmox();
        let (_, whole) =
            node.tree.read("stand-ins/qm").split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let deadly = |node: &Node, set: &str| {
            let set = set.replace("SET", "sed -i \"s/^net0: .*/net0: $4/\" $conf");
            let begin = whole.lines().take_while(|line| !line.starts_with("shift")).collect::<Vec<_>>();
            node.tree.script("stand-ins/qm", &format!("{}\n{set}\n", begin.join("\n")));
        };
        let mend = |node: &Node| node.tree.script("stand-ins/qm", &whole);
        node.tree.qemu(100, former);
        node.run("pool create rbx --profile ovh-bridged --bridge vmbr0 --cool-down 0s").ok();
        node.run("pool add rbx 203.0.113.10 --mac 00:50:56:00:01:02").ok();

        deadly(&node, killed);
        let run = node.run("assign 100 --pool rbx -4 --set-mac --no-hookscript");
        assert!(run.code != 0, "{moment}: {run}");
        mend(&node);
        node.run("assign 100 --pool rbx -4 --set-mac --no-hookscript").ok();
        assert!(has(&node, "00:50:56:00:01:02"), "{moment}");

        deadly(&node, killed);
        let run = node.run("release 100 --no-hookscript");
        assert!(run.code != 0, "{moment}: {run}");
        assert!(!node.run("list").ok().out.contains("203.0.113.10"), "{moment}: it is released");
        mend(&node);
        let run = node.run("release 100 --no-hookscript").ok();
        assert_eq!(run.out.contains("MAC: qm set 100"), moment == "before", "{moment}: {run}");
        assert!(has(&node, "02:00:00:AA:BB:00"), "{moment}: {}", node.tree.read(conf));
        assert!(!node.tree.path(&Tree::guest_file(100)).exists(), "{moment}: nothing is left of it");
    }

    // The guest that runs keeps the provider's MAC until the command is given again.
    let node = node();
    node.stand_in_proxmox();
    node.tree.qemu(100, former);
    node.run("pool create rbx --profile ovh-bridged --bridge vmbr0 --cool-down 0s").ok();
    node.run("pool add rbx 203.0.113.10 --mac 00:50:56:00:01:02").ok();
    node.run("assign 100 --pool rbx -4 --set-mac --no-hookscript").ok();
    node.plug("tap100i0");
    let run = node.run("release 100 --no-hookscript").ok();
    assert!(run.out.contains("net0 keeps 00:50:56:00:01:02 as long as it does"), "{run}");
    node.unplug("tap100i0");
    let run = node.run("release --all --yes").ok();
    assert!(run.out.contains("MAC: qm set 100"), "{run}");
    assert!(has(&node, "02:00:00:AA:BB:00"), "{}", node.tree.read(conf));
    assert!(!node.tree.path(&Tree::guest_file(100)).exists(), "nothing is left of it");
    node.run("release --all --yes").ok().prints("no guest holds an address: nothing to do\n");
}

/// The natural order: a pool, then its addresses with what the provider says of them.
#[test]
fn gateways_are_assumed_when_addresses_are_added() {
    let node = node();
    node.tree.qemu(100, "name: web\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
    node.run("pool create hz --profile hetzner-bridged --bridge vmbr0").ok();
    assert_eq!(shown(&node, "hz"), json!(["vmbr0", "bridged", null, null, "enforce"]));
    node.run("pool add hz 203.0.113.10 --mac 02:00:00:aa:bb:00").prints(
        "203.0.113.10 added to pool hz\n\
         assumed: IPv4 gateway 198.51.100.1, the node's own (vmbr0); compare it with what the provider says of the address\n",
    );
    node.run("pool add hz 203.0.113.11 --mac 02:00:00:aa:bb:01").prints("203.0.113.11 added to pool hz\n");
    node.run("pool add hz 2001:db8:9::/64 --mac 02:00:00:aa:bb:00")
        .prints("2001:db8:9::/64 added to pool hz\nassumed: IPv6 gateway fe80::1, as always with hetzner-bridged\n");
    assert_eq!(shown(&node, "hz"), json!(["vmbr0", "bridged", "198.51.100.1", "fe80::1", "enforce"]));
    let assigned = node.run("assign 100 --no-hookscript").ok();
    for line in [
        "203.0.113.10 assigned to guest 100 net0 (02:00:00:aa:bb:00), pool hz, gateway 198.51.100.1\n",
        "2001:db8:9::1 assigned to guest 100 net0 (02:00:00:aa:bb:00), pool hz, gateway fe80::1\n",
    ] {
        assert!(assigned.out.contains(line), "{assigned}");
    }
    // Where nothing can be assumed, the way to name it is said, and it is one.
    node.run("pool create rbx --profile ovh-bridged --bridge vmbr2").ok();
    node.net.sh("ip route del default");
    let run = node.run("pool add rbx 192.0.2.10 --mac 00:50:56:00:01:02").ok();
    let unknown = "192.0.2.10 added to pool rbx\n\
         no IPv4 gateway: the node has no default route; name it: `pve-public-ip pool set rbx --gateway4 IP`\n";
    assert!(run.out.starts_with(unknown), "{run}");
    node.run("pool set rbx --gateway4 192.0.2.254").ok();
    assert_eq!(shown(&node, "rbx")[2], "192.0.2.254");
    node.run("pool set rbx --no-gateway4 --bridge vmbr0").ok();
    assert_eq!(shown(&node, "rbx"), json!(["vmbr0", "bridged", null, null, "enforce"]));
    node.run("pool set rbx --gateway4 192.0.2.254 --no-gateway4").fails_with(2, &["cannot be used with"]);
}

/// What is assigned gets a gateway that is known later, in the guest's own configuration, too.
#[test]
fn a_gateway_that_is_named_later_reaches_who_holds_addresses() {
    let node = node();
    node.stand_in_proxmox();
    node.tree.qemu(
        100,
        "name: web\nide2: local:cloudinit,media=cdrom\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n\
        smbios1: uuid=2e5bd7c2-0ed6-4a3a-9b87-6d3a1f1b6c11\n",
    );
    node.run("pool create lan --profile generic-bridged --bridge vmbr0 203.0.113.8/29").ok();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    let run = node.run("pool set lan --gateway4 203.0.113.9").ok();
    let line = "\nguest 100 net0 203.0.113.10: gateway none -> 203.0.113.9\n\
                network: qm set 100 --ipconfig0 ip=203.0.113.10/29,gw=203.0.113.9";
    assert!(run.out.contains(line), "{run}");
    assert_eq!(node.run("list --output-format json").ok().json()["assignments"][0]["gateway"], "203.0.113.9");
    let config = node.tree.read("etc/pve/nodes/n1/qemu-server/100.conf");
    assert!(config.contains("ipconfig0: ip=203.0.113.10/29,gw=203.0.113.9"), "{config}");
    node.changes_nothing("pool set lan --gateway4 203.0.113.10").fails(
        1,
        "cannot change pool `lan`: 203.0.113.10 cannot be the gateway of pool `lan`: guest 100 holds it",
        "name the right gateway: `pve-public-ip pool set lan --gateway4 IP`",
    );
}

#[test]
fn each_block_of_a_vrack_has_its_gateway() {
    let node = node();
    node.run("pool create v --profile ovh-vrack --bridge vmbr0 203.0.113.8/29 203.0.113.16/29").ok();
    node.run("pool add v 203.0.113.32/28").prints(
        "203.0.113.32/28 added to pool v\n\
         assumed: IPv4 gateway 203.0.113.46 for 203.0.113.32/28, the last address but one of it\n\
         not handed out: 203.0.113.14 (the gateway of pool `v`), 203.0.113.22 (the gateway of pool `v`), \
         203.0.113.46 (the gateway of pool `v`)\n",
    );
    let data = node.run("pool show v --output-format json").ok().json();
    let gateways: Vec<_> = data["addresses"].as_array().unwrap().iter().map(|entry| entry["gateway"].clone()).collect();
    assert_eq!(gateways, ["203.0.113.14", "203.0.113.22", "203.0.113.46"]);
    node.changes_nothing("assign 100 203.0.113.22").fails_with(1, &["203.0.113.22 is the gateway of pool `v`"]);
}

/// The hint of the refusal is a command that cures it.
#[test]
fn the_next_free_address_with_its_mac() {
    let node = node();
    node.stand_in_proxmox();
    node.tree.qemu(100, "name: web\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
    node.run("pool create rbx --profile ovh-bridged --bridge vmbr0").ok();
    node.run("pool add rbx 203.0.113.10 --mac 00:50:56:00:01:02").ok();
    node.run("pool add rbx 203.0.113.11 --mac 00:50:56:00:01:03").ok();
    node.changes_nothing("assign 100 --pool rbx").fails(
        1,
        "cannot assign to guest 100: pool `rbx` has no free IPv4 address for guest 100 net0 with MAC 02:00:00:aa:bb:00: 203.0.113.10 is \
         free, but bound to MAC 00:50:56:00:01:02 by the provider",
        "with the guest stopped, `pve-public-ip assign 100 --pool rbx --set-mac` gives the NIC the MAC 00:50:56:00:01:02",
    );
    let run = node.run("assign 100 --pool rbx --set-mac").ok();
    assert!(
        run.out.starts_with(
            "MAC: qm set 100 --net0 virtio=00:50:56:00:01:02,bridge=vmbr0\n\
             203.0.113.10 assigned to guest 100 net0 (00:50:56:00:01:02), pool rbx"
        ),
        "{run}"
    );
    node.tree.qemu(101, "name: mail\nnet0: virtio=02:00:00:AA:BB:01,bridge=vmbr0\n");
    let run = node.run("assign 101 --set-mac").ok();
    assert!(run.out.contains("203.0.113.11 assigned to guest 101 net0 (00:50:56:00:01:03)"), "{run}");
    node.tree.qemu(102, "net0: virtio=02:00:00:AA:BB:07,bridge=vmbr0\n");
    node.changes_nothing("assign 102 --set-mac").fails_with(1, &["pool `rbx` has no free IPv4 address\n"]);
}

#[test]
fn a_second_nic_in_the_same_subnet_is_told_of() {
    let node = node();
    node.tree.qemu(100, "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\nnet1: virtio=02:00:00:AA:BB:01,bridge=vmbr0\n");
    node.run(
        "pool create lan --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.9 203.0.113.8/29 192.0.2.0/29",
    )
    .ok();
    let first = node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    assert!(!first.out.contains("same subnet"), "{first}");
    let second = node.run("assign 100 203.0.113.11 --net 1 --no-hookscript").ok();
    let told = "note: 203.0.113.11 on net1 is in the same subnet as 203.0.113.10 on net0: the guest answers from it by net0, where it is \
        dropped\n  hint: to have both on net0: `pve-public-ip release 100 203.0.113.11`, then `pve-public-ip assign 100 203.0.113.11 --net 0`\n";
    assert!(second.out.contains(told), "{second}");
    node.run("release 100 203.0.113.11 --no-hookscript").ok();
    let both = node.run("assign 100 203.0.113.11 --net 0 --no-hookscript").ok();
    assert!(!both.out.contains("same subnet"), "{both}");
}

#[test]
fn both_nics_of_a_bond_get_the_mac_of_the_provider() {
    let node = node();
    node.stand_in_proxmox();
    let nics = [0, 1].map(|nic| format!("net{nic}: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n")).concat();
    node.tree.qemu(100, format!("name: web\n{nics}net2: virtio=02:00:00:AA:BB:07,bridge=vmbr0\n"));
    node.run("pool create rbx --profile ovh-bridged").ok();
    node.run("pool add rbx 203.0.113.10 --mac 00:50:56:00:01:02").ok();
    let run = node.run("assign 100 203.0.113.10 --net 0 --net 1 --set-mac").ok();
    let set = |nic: u8| format!("MAC: qm set 100 --net{nic} virtio=00:50:56:00:01:02,bridge=vmbr0\n");
    assert!(run.out.starts_with(&(set(0) + &set(1))), "{run}");
    // A NIC that is not meant is somebody else, also in the same guest.
    node.run("pool add rbx 203.0.113.11 --mac 02:00:00:aa:bb:07").ok();
    node.run("release 100").ok();
    node.changes_nothing("assign 100 203.0.113.11 --net 0 --net 1 --set-mac").fails(
        1,
        "cannot assign to guest 100: MAC 02:00:00:aa:bb:07 is that of guest 100 net2 already",
        "if guest 100 does not need it, give net2 there another one: `qm set 100 --net2 virtio,bridge=vmbr0`",
    );
}
