//! Sentences that are true, and commands that can be copied: what the program says about a node, held against the node.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::process::Command;

use common::{Node, Run};

const DRIVE: &str =
    "ide2: local:100/vm-100-cloudinit.raw,media=cdrom\nsmbios1: uuid=11111111-2222-3333-4444-555555555555\n";
const NIC: &str = "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0";

/// Runs a printed command as an administrator would who copies it.
fn copied(node: &Node, command: &str) -> Run {
    let path = format!("{}:{}", node.tree.path("stand-ins").display(), common::SYSTEM_PATH);
    let output = node.net.command("sh").args(["-c", command]).env("PATH", path).current_dir(node.tree.root()).output();
    Run::of(command.to_owned(), &output.unwrap())
}

/// The image that Proxmox VE makes at a start, with this document.
fn image(node: &Node, network: &str) {
    let tree = node.tree.path("image");
    node.tree.write("image/network-config", network);
    node.tree.write("image/meta-data", "instance-id: 1\n");
    let volume = node.tree.path("var/lib/vz/images/100/vm-100-cloudinit.raw");
    std::fs::create_dir_all(volume.parent().unwrap()).unwrap();
    let mut command = Command::new("genisoimage");
    command.args(["-quiet", "-R", "-J", "-V", "cidata", "-o"]).arg(volume).arg(tree);
    assert!(command.status().expect("genisoimage runs: `make setup` installs it").success());
}

fn document(address: &str) -> String {
    format!(
        "version: 1\nconfig:\n  - type: physical\n    name: eth0\n    mac_address: '02:00:00:aa:bb:00'\n    subnets:\n      \
         - type: static\n        address: '{address}/32'\n        gateway: '203.0.113.1'\n        \
         dns_nameservers: ['192.0.2.53']\n        routes:\n          - network: '203.0.113.1/32'\n            \
         gateway: '0.0.0.0'\n"
    )
}

#[test]
fn printed_commands_are_words_for_a_shell() {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    let own = "local:snippets/$(touch ../owned);`touch owned`;'x' &y";
    node.tree.qemu(
        100,
        format!(
            "{}cicustom: user={own}\n{NIC},trunks=10;20;30\nhookscript: local:snippets/a;b\n",
            DRIVE.replace("100/vm-100-cloudinit.raw", "cloudinit")
        ),
    );
    node.tree.write("var/lib/vz/snippets/a;b", "#!/bin/sh\n");
    let run = node.run("assign 100 203.0.113.10").ok();
    let commands: Vec<&str> =
        run.out.lines().filter_map(|line| line.split_once(": qm ")).map(|(_, rest)| rest).collect();
    assert_eq!(commands.len(), 2, "{run}");
    let called = node.calls();
    for command in commands {
        let before = node.calls().len();
        copied(&node, &format!("qm {command}")).ok();
        let again = node.calls()[before..].to_vec();
        assert!(called.contains(&again[0]), "`qm {command}` is {again:?}, and was {called:?}");
    }
    let run = node.run("release 100").ok();
    assert!(run.out.contains("qm set 100 --hookscript 'local:snippets/a;b'"), "{run}");
    let files = std::fs::read_dir(node.tree.root()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(files.into_iter().all(|name| name != "owned"), "something in a volume's name was run");
    // MACs are changed in the line as it is.
    node.tree.qemu(101, "name: b\nnet0: virtio=02:00:00:AA:BB:01,bridge=vmbr0,trunks=10;20;30\n");
    node.run("pool add ovh-rbx 203.0.113.20 --mac 02:00:00:aa:bb:77").ok();
    let run = node.run("assign 101 203.0.113.20 --set-mac --no-hookscript").ok();
    let command = run.out.lines().find_map(|line| line.split_once("qm set 101 ")).unwrap_or_else(|| panic!("{run}")).1;
    assert!(command.starts_with("--net0 '") && command.contains("trunks=10;20;30'"), "{run}");
}

#[test]
fn a_stopped_guest_is_judged_by_its_next_image() {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    node.tree.qemu(100, format!("{DRIVE}{NIC}\n"));
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    image(&node, &document("203.0.113.10"));
    node.is_in_line();
    // It was started before, and is told of another address now: the image is made anew at its next start.
    node.run("assign 100 203.0.113.11 --no-hookscript").ok();
    node.is_in_line();
    node.run("release 100 203.0.113.10 --no-hookscript").ok();
    node.is_in_line();
    // What the next image will lack is said, and cured by what is said to cure it.
    let lines = node.tree.read("etc/pve/nodes/n1/qemu-server/100.conf");
    let lacking: String = lines
        .lines()
        .filter(|line| !line.starts_with("cicustom:") && !line.starts_with("ipconfig"))
        .map(|line| format!("{line}\n"))
        .collect();
    node.tree.qemu(100, lacking);
    let run = node.run("verify");
    assert_eq!(run.code, 3, "{run}");
    assert!(
        run.out.contains(
            "drift: guest 100 is not told of 203.0.113.11 on net0 by `ipconfig0`: it comes up without it\n  \
             hint: `pve-public-ip assign 100 203.0.113.11` writes it anew\n"
        ),
        "{run}"
    );
    node.run("assign 100 203.0.113.11 --no-hookscript").ok();
    node.is_in_line();
    // Of one that runs the image counts, for a boot from within; the hint makes it anew.
    node.run("apply").ok();
    node.plug("tap100i0");
    node.run("apply").ok();
    let run = node.run("verify");
    assert_eq!(run.code, 3, "{run}");
    assert!(
        run.out.contains(
            "drift: guest 100 is not told of 203.0.113.11 on net0: it comes up without it, if it boots again before it is \
             stopped\n  hint: `qm cloudinit update 100`\n"
        ),
        "{run}"
    );
    image(&node, &document("203.0.113.11"));
    node.is_in_line();
}

#[test]
fn a_network_document_of_ones_own_that_is_right_is_left_alone() {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    let conf = format!("{DRIVE}cicustom: network=local:snippets/own.yaml\n{NIC}\n");
    node.tree.qemu(100, &conf);
    node.tree.write("var/lib/vz/snippets/own.yaml", document("203.0.113.10"));
    let run = node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    assert!(
        run.out.ends_with(
            "\nnetwork: `local:snippets/own.yaml`, which guest 100 has of its own, tells it its addresses\n"
        ),
        "{run}"
    );
    assert_eq!(node.tree.read("etc/pve/nodes/n1/qemu-server/100.conf"), conf);
    node.is_in_line();
    // One that is not right is not replaced either, and the message says what is missing.
    node.run("assign 100 203.0.113.11 --no-hookscript").fails_with(
        1,
        &[
            "but guest 100 is not told: its `cicustom` has a network of its own: local:snippets/own.yaml: guest 100 is not told \
             of 203.0.113.11 on net0: it comes up without it\nhint: ",
        ],
    );
    node.run("release 100 203.0.113.11 --no-hookscript").ok();
}

#[test]
fn several_lines_of_a_failing_program_are_one_reason() {
    let node = Node::with_pool();
    node.tree.qemu(100, format!("{DRIVE}{NIC}\n"));
    node.tree.script(
        "stand-ins/qm",
        "case \"$1\" in cloudinit) echo 'first line' >&2; echo '  second line' >&2; exit 2;; set) exit 0;; esac\n",
    );
    node.plug("tap100i0");
    let run = node.run("assign 100 203.0.113.10 --no-hookscript --reinit");
    assert_eq!(run.code, 1, "{run}");
    let errors: Vec<&str> = run.err.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = errors[..] else { panic!("not one error: {run}") };
    let (done, why) = error.split_once(", but ").unwrap_or_else(|| panic!("{run}"));
    assert!(!done.contains("second line"), "{run}");
    assert!(why.ends_with("qm cloudinit update 100` failed (exit status: 2): first line; second line"), "{run}");
    assert!(
        !run.err.contains("\n  second line") && run.err.contains("hint: try it by hand: `qm cloudinit update 100`\n"),
        "{run}"
    );
}

#[test]
fn explain_knows_guests_that_do_not_run_and_the_node_itself() {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    let run = node.run("explain --port tap100i0 --src 203.0.113.10").ok();
    assert!(
        run.out.starts_with(
            "guest 100 does not run; what is said holds as soon as it does\n\
             from tap100i0 (guest 100): bound port, 02:00:00:aa:bb:00 with 203.0.113.10"
        ),
        "{run}"
    );
    assert!(run.out.ends_with("\n  passes\n"), "{run}");
    let run = node.run("explain --port tap100i0 --src 203.0.113.11").ok();
    assert!(run.out.ends_with("\n  is dropped: The guest used an IPv4 address that is not its own.\n"), "{run}");
    for (arguments, said) in [
        (
            "--mac 00:00:5e:00:01:07",
            "It is a MAC of VRRP: keepalived works without `use_vmac`, and only for an address that this guest holds.",
        ),
        (
            "--mac 02:00:00:aa:bb:77",
            "A macvlan, a bridge and a guest inside of the guest have MACs of their own; an ipvlan has the guest's.",
        ),
    ] {
        let run = node.run(&format!("explain --port tap100i0 --src 203.0.113.10 {arguments}")).ok();
        let reason = format!("\n  is dropped: The guest used a MAC that is not the one of its port. {said}\n");
        assert!(run.out.ends_with(&reason), "{run}");
    }
    let run = node.run("explain --port tap100i0 --src 203.0.113.11 --claim neighbour").ok();
    let said = "An address has one holder, unless it was assigned to several guests with `--shared GROUP`, as VRRP and CARP need it.\n";
    assert!(run.out.contains("The guest claimed by ARP") && run.out.ends_with(said), "{run}");
    node.run("explain --port tap101i0 --src 203.0.113.11").fails(
        1,
        "the registry knows no MAC of tap101i0: no guest holds addresses on it",
        "say which MAC it sends with: --mac MAC",
    );
    for arguments in ["--src 203.0.113.250", "--src 203.0.113.250 --mac 02:00:00:00:00:fe"] {
        node.run(&format!("explain --port vmbr0 {arguments}"))
            .prints("from vmbr0: the node itself\npasses: what the node itself sends by vmbr0 is not filtered\n");
    }
    node.net.sh("ip link add wg0 type veth peer name wg1");
    node.run("explain --port wg0 --src 203.0.113.250").prints(
        "from wg0: no port of a bridge\npasses: wg0 is no port of a bridge, so its frames are not filtered there\n",
    );
}

#[test]
fn topology_finds_an_address_of_a_pool_at_two_guests_wherever_they_are() {
    let clean = "nothing found: addresses, gateways and MACs agree\n";
    let node = Node::with_pool();
    node.stand_in_proxmox();
    node.tree.write(
        "etc/network/interfaces",
        "iface vmbr0 inet static\n address 198.51.100.7/24\n gateway 198.51.100.254\n bridge-ports none\n",
    );
    node.net.sh("ip link add vmbr1 type bridge");
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.run("topology --check").prints(clean);
    let other =
        |bridge: &str| format!("net0: virtio=02:00:00:AA:BB:01,bridge={bridge}\nipconfig0: ip=203.0.113.10/32\n");
    for bridge in ["vmbr0", "vmbr0,tag=10", "vmbr1"] {
        node.tree.qemu(101, other(bridge));
        let run = node.run("topology --check");
        let flaw = "same-address: 203.0.113.10 is assigned to guest 100 net0 and is configured at guest 101 net0\n  \
                    hint: take it out of the configuration of guest 101: `qm set 101 --delete ipconfig0`\n";
        assert_eq!((run.code, run.out.starts_with(flaw)), (3, true), "{bridge}: {run}");
        copied(&node, "qm set 101 --delete ipconfig0").ok();
        node.run("topology --check").prints(clean);
    }
    // Nobody holds it, and two are configured with it; containers are cured in their own words.
    node.tree.qemu(101, other("vmbr0").replace(".10/", ".11/"));
    node.tree.lxc(200, "net0: name=eth0,bridge=vmbr1,hwaddr=02:00:00:AA:BB:02,ip=203.0.113.11/32,type=veth\n");
    let run = node.run("topology --check");
    let command = "pct set 200 --net0 name=eth0,bridge=vmbr1,hwaddr=02:00:00:AA:BB:02,type=veth";
    assert_eq!(run.code, 3, "{run}");
    assert!(run.out.contains(&format!("take it out of the configuration of guest 200: `{command}`\n")), "{run}");
    copied(&node, command).ok();
    node.run("topology --check").prints(clean);
    // A gateway outside of the subnet is put on the link by ifupdown and ifupdown2 themselves.
    node.tree.qemu(101, "net0: virtio=02:00:00:AA:BB:01,bridge=vmbr0\n");
    node.tree.write(
        "etc/network/interfaces",
        "iface vmbr0 inet static\n address 198.51.100.7/32\n gateway 192.0.2.1\n bridge-ports none\n",
    );
    node.run("topology --check").prints(clean);
}
