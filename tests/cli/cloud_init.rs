//! Telling guests their addresses: snippets, `qm set`, `pct set`, with stand-ins for Proxmox VE's commands.

use std::fs;

use crate::common::{Node, Run};
use crate::image::make_with;

const UUID: &str = "2e5bd7c2-0ed6-4a3a-9b87-6d3a1f1b6c11";
const OUTSIDE: &str = "pool create ovh --profile ovh-bridged --bridge vmbr0 --gateway4 198.51.100.254";

/// Guest 100 with a cloud-init drive that was never filled, and a pool with two addresses for it.
fn node() -> Node {
    let node = Node::new();
    node.stand_in_proxmox();
    node.tree.write("etc/resolv.conf", "nameserver 192.0.2.53\nsearch example.net\n");
    node.run(OUTSIDE).ok();
    for address in ["203.0.113.10", "203.0.113.11"] {
        node.run(&format!("pool add ovh {address} --mac 02:00:00:aa:bb:00")).ok();
    }
    node.tree.qemu(100, conf(""));
    node
}

/// The configuration of guest 100 with these lines.
fn conf(more: &str) -> String {
    format!(
        "{more}ide2: local:cloudinit,media=cdrom\nname: web\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n\
         ostype: l26\nsmbios1: uuid={UUID}\n"
    )
}

fn config(node: &Node, vmid: u32) -> String {
    node.tree.read(&format!("etc/pve/nodes/n1/qemu-server/{vmid}.conf"))
}

/// The value of a line of guest 100.
fn line(node: &Node, key: &str) -> Option<String> {
    let text = config(node, 100);
    let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    found.map(str::to_owned)
}

fn name(part: &str) -> String {
    format!("pve-public-ip-100-{UUID}-{part}.yaml")
}

fn snippet(node: &Node, directory: &str, part: &str) -> String {
    node.tree.read(&format!("{directory}/{}", name(part)))
}

fn cicustom(storage: &str, parts: &[&str]) -> String {
    let parts = parts.iter().map(|part| format!("{part}={storage}:snippets/{}", name(part)));
    parts.collect::<Vec<_>>().join(",")
}

/// Every snippet that a guest names is there, for all guests of the node: the law that no command may break.
#[track_caller]
fn nothing_is_missing(node: &Node) {
    for entry in fs::read_dir(node.tree.path("etc/pve/nodes/n1/qemu-server")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix("cicustom: ")) {
            for part in line.split(',') {
                let (_, volume) = part.split_once('=').unwrap();
                let (storage, file) = volume.split_once(':').unwrap();
                let directory = match storage {
                    "local" => "var/lib/vz",
                    "public-ip" => "etc/pve/public-ip",
                    other => panic!("storage {other}"),
                };
                assert!(node.tree.path(directory).join(file).exists(), "{volume} is missing");
            }
        }
    }
}

const LOCAL: &str = "var/lib/vz/snippets";

/// What is on stderr apart from the announcements of commands.
fn said(run: &Run) -> Vec<&str> {
    let lines = run.err.lines().map(|line| line.strip_prefix("pve-public-ip: ").unwrap_or(line));
    lines.filter(|line| !line.starts_with("running ")).collect()
}

#[test]
fn a_new_guest_is_told_with_a_document() {
    let node = node();
    let run = node.run("assign 100 203.0.113.10").ok();
    let set = format!(
        "qm set 100 --ipconfig0 ip=203.0.113.10/32,gw=198.51.100.254 --cicustom {}",
        cicustom("local", &["meta", "network", "vendor"])
    );
    assert_eq!(
        run.out,
        format!(
            "203.0.113.10 assigned to guest 100 net0 (02:00:00:aa:bb:00), pool ovh, gateway 198.51.100.254\n\
             hookscript: qm set 100 --hookscript local:snippets/pve-public-ip\n\
             network: written to storage local: meta, network, vendor\n\
             network: {set}\n"
        ),
        "{run}"
    );
    assert_eq!(said(&run), ["guest 100 has this network at its first boot (one restored from a backup at its second)"]);
    assert_eq!(node.calls()[1..], ["qm cloudinit dump 100 meta", &set]);
    let network = snippet(&node, LOCAL, "network");
    assert!(network.contains("address: '203.0.113.10/32'") && network.contains("- network: '198.51.100.254/32'"));
    assert!(network.contains("dns_nameservers: ['192.0.2.53']"), "the node's own, as Proxmox VE would: {network}");
    assert_eq!(
        snippet(&node, LOCAL, "vendor"),
        "#cloud-config\nupdates:\n  network:\n    when: ['boot']\n",
        "so that a later address needs one boot"
    );
    let meta = snippet(&node, LOCAL, "meta");
    assert_eq!(meta, "instance-id: 'as-dumped'\n", "what Proxmox VE would give it: that of a restored guest");
    nothing_is_missing(&node);

    // Again: nothing is left to do, and nobody is called.
    let before = node.calls().len();
    node.changes_nothing("assign 100 203.0.113.10").prints(
        "203.0.113.10 is already assigned to guest 100 net0 (02:00:00:aa:bb:00), pool ovh, gateway 198.51.100.254\n",
    );
    assert_eq!(node.calls().len(), before);

    // A second address is one more subnet in the same files; the instance-id stays.
    let run = node.run("assign 100 203.0.113.11").ok();
    assert!(run.out.ends_with("network: written to storage local: network\n"), "{run}");
    assert_eq!(node.calls().len(), before, "the guest names the same files");
    assert!(snippet(&node, LOCAL, "network").contains("address: '203.0.113.11/32'"));
    assert_eq!(snippet(&node, LOCAL, "meta"), meta);

    node.run("release 100 203.0.113.11").ok();
    assert!(!snippet(&node, LOCAL, "network").contains("203.0.113.11"));
    let run = node.run("release 100").ok();
    let set = format!("qm set 100 --cicustom {} --delete ipconfig0", cicustom("local", &["meta", "vendor"]));
    assert!(run.out.contains("network: qm set 100 "), "{run}");
    assert!(
        node.calls()
            .iter()
            .any(|call| call.split(' ').count() == set.split(' ').count() && call.contains("--delete ipconfig0")),
        "{:?}",
        node.calls()
    );
    assert_eq!(line(&node, "cicustom"), Some(cicustom("local", &["meta", "vendor"])), "or it would be a new machine");
    assert_eq!(line(&node, "ipconfig0"), None);
    assert!(!node.tree.path(&format!("{LOCAL}/{}", name("network"))).exists(), "nobody names it any more");
    assert_eq!(snippet(&node, LOCAL, "meta"), meta);
    assert!(!node.tree.path("etc/pve/public-ip/guests/100.json").exists());
    nothing_is_missing(&node);
}

#[test]
fn what_was_there_before_comes_back() {
    let node = node();
    node.tree.qemu(100, conf("cicustom: user=local:snippets/own.yaml\nipconfig0: ip=dhcp,ip6=auto\n"));
    node.tree.write("var/lib/vz/snippets/own.yaml", "#cloud-config\n");
    node.run("assign 100 203.0.113.10").ok();
    assert_eq!(line(&node, "ipconfig0").unwrap(), "ip=203.0.113.10/32,gw=198.51.100.254,ip6=auto");
    assert_eq!(
        line(&node, "cicustom").unwrap(),
        format!(
            "{},user=local:snippets/own.yaml,{}",
            cicustom("local", &["meta", "network"]),
            cicustom("local", &["vendor"])
        )
    );
    assert!(snippet(&node, LOCAL, "network").contains("type: ipv6_slaac"));
    assert!(node.tree.read("etc/pve/public-ip/guests/100.json").contains("\"net0\": \"ip=dhcp,ip6=auto\""));
    nothing_is_missing(&node);
    node.run("release 100").ok();
    assert_eq!(line(&node, "ipconfig0").unwrap(), "ip=dhcp,ip6=auto");
    assert!(line(&node, "cicustom").unwrap().contains("user=local:snippets/own.yaml"));
    nothing_is_missing(&node);
}

#[test]
fn plain_words_suffice_for_a_gateway_inside() {
    let node = node();
    node.run("pool create lan --profile generic-bridged --bridge vmbr0 --gateway4 192.0.2.1 192.0.2.0/29").ok();
    node.run("assign 100 192.0.2.2").ok();
    assert_eq!(line(&node, "ipconfig0").unwrap(), "ip=192.0.2.2/29,gw=192.0.2.1");
    assert_eq!(line(&node, "cicustom"), Some(cicustom("local", &["meta", "vendor"])));
    // From words to a document and back: the file goes after the guest has stopped to name it.
    node.run("assign 100 192.0.2.3").ok();
    assert_eq!(line(&node, "cicustom"), Some(cicustom("local", &["meta", "network", "vendor"])));
    nothing_is_missing(&node);
    node.run("release 100 192.0.2.3").ok();
    assert_eq!(line(&node, "cicustom"), Some(cicustom("local", &["meta", "vendor"])));
    assert!(!node.tree.path(&format!("{LOCAL}/{}", name("network"))).exists());
    nothing_is_missing(&node);
}

#[test]
fn a_guest_that_has_booted_keeps_its_identity() {
    let node = node();
    // The volume lies where this node cannot read it, so Proxmox VE is asked.
    node.tree.write("etc/pve/storage.cfg", "rbd: ceph\n\tpool vms\n\tcontent images\n");
    node.tree.qemu(100, conf("").replace("local:cloudinit", "ceph:vm-100-cloudinit"));
    let run = node.run("assign 100 203.0.113.10").ok();
    assert_eq!(
        said(&run),
        [
            "guest 100 has this network after its second boot from now (if it has never booted, its first), and keeps its SSH \
          host keys; with --reinit after its next one, as a new machine"
        ]
    );
    assert_eq!(snippet(&node, LOCAL, "meta"), "instance-id: 'as-dumped'\n");
    assert!(node.calls().contains(&"qm cloudinit dump 100 meta".to_owned()));
    let run = node.run("assign 100 203.0.113.11").ok();
    assert_eq!(said(&run), ["guest 100 has this network after its next boot, and keeps its SSH host keys"]);

    let run = node.run("assign 100 203.0.113.11 --reinit").ok();
    assert_eq!(
        said(&run),
        [
            "guest 100 takes itself for a new machine at its next boot: it has this network then, makes new SSH host keys, and \
          runs again what it runs at a first boot"
        ]
    );
    assert_ne!(snippet(&node, LOCAL, "meta"), "instance-id: 'as-dumped'\n");
}

#[test]
fn an_identity_that_cannot_be_found_out_is_not_lost() {
    let node = node();
    node.tree.write("etc/pve/storage.cfg", "rbd: ceph\n\tpool vms\n\tcontent images\n");
    node.tree.qemu(
        100,
        conf("cicustom: user=local:snippets/own.yaml\n").replace("local:cloudinit", "ceph:vm-100-cloudinit"),
    );
    node.tree.write("var/lib/vz/snippets/own.yaml", "#cloud-config\n");
    let before = config(&node, 100);
    let run = node.run("assign 100 203.0.113.10 --no-hookscript");
    run.fails(
        1,
        "203.0.113.10 assigned to guest 100 net0 (02:00:00:aa:bb:00), pool ovh, gateway 198.51.100.254, but guest 100 is not \
         told: its instance-id cannot be found out (storage `ceph` is of type rbd, whose volumes are not read here), and with \
         another one it would make new SSH host keys",
        "`pve-public-ip assign 100 203.0.113.10 --reinit`: the guest then takes itself for a new machine at its next boot",
    );
    assert_eq!(config(&node, 100), before);
    let run = node.run("assign 100 203.0.113.10 --no-hookscript --reinit").ok();
    assert!(said(&run)[0].starts_with("guest 100 takes itself for a new machine"), "{run}");
    nothing_is_missing(&node);
}

#[test]
fn what_is_the_administrators_own_is_not_touched() {
    let node = node();
    let assigned =
        "203.0.113.10 assigned to guest 100 net0 (02:00:00:aa:bb:00), pool ovh, gateway 198.51.100.254, but ";
    for (custom, error, hint) in [
        (
            "network=local:snippets/own.yaml",
            "guest 100 is not told: its `cicustom` has a network of its own: local:snippets/own.yaml: the network data of guest \
             100 does not work, line 2: there is no `version`",
            "to let this program tell the guest: `qm set 100 --delete cicustom && pve-public-ip assign 100 203.0.113.10`; or \
             write the addresses into `local:snippets/own.yaml`",
        ),
        (
            "meta=local:snippets/m.yaml,vendor=local:snippets/own.yaml",
            "guest 100 is not told: its `cicustom` has a vendor part of its own, local:snippets/own.yaml, which does not make \
             cloud-init look at the network at every boot",
            "`pve-public-ip assign 100 203.0.113.10 --reinit`: the guest then takes itself for a new machine; or add \
             `updates: {network: {when: [boot]}}` to it",
        ),
    ] {
        node.tree.qemu(
            100,
            conf(&format!("cicustom: {custom}\n")).replace("local:cloudinit", "local:100/vm-100-cloudinit.raw"),
        );
        node.tree.write("var/lib/vz/snippets/own.yaml", "#cloud-config\npackages: [vim]\n");
        let before = config(&node, 100);
        let run = node.run("assign 100 203.0.113.10 --no-hookscript");
        if custom.starts_with("network") {
            run.fails(1, &format!("{assigned}{error}"), hint);
        } else {
            run.fails_with(1, &[error, hint]);
        }
        assert_eq!(config(&node, 100), before);
        node.run("release 100 --no-hookscript").ok();
        assert_eq!(config(&node, 100), before);
    }
    // One that does what is needed is fine.
    for vendor in [
        "updates: {network: {when: [boot]}}",
        "updates:\n  network:\n    when: [ 'boot' ]",
        "updates:\n  network:\n    when:\n      - boot",
    ] {
        node.tree.write("var/lib/vz/snippets/own.yaml", format!("#cloud-config\n{vendor}\n"));
        node.tree.qemu(100, conf("cicustom: vendor=local:snippets/own.yaml\n"));
        node.run("assign 100 203.0.113.10 --no-hookscript").ok();
        let custom = line(&node, "cicustom").unwrap();
        assert_eq!(custom, format!("{},vendor=local:snippets/own.yaml", cicustom("local", &["meta", "network"])));
        node.run("release 100 --no-hookscript").ok();
    }
}

#[test]
fn bad_guests_are_refused_with_a_remedy() {
    let node = node();
    for (from, to, error, hint) in [
        (
            format!("smbios1: uuid={UUID}\n"),
            "smbios1: manufacturer=QUNNRQ==,base64=1\n".to_owned(),
            "it has no UUID, by which its snippets are told from those of a clone",
            "give it one: `qm set 100 --smbios1 uuid=",
        ),
        (
            String::new(),
            "scsi1: local:100/vm-100-cloudinit.qcow2\n".to_owned(),
            "it has two cloud-init drives: ide2 and scsi1",
            "remove one: `qm set 100 --delete scsi1`",
        ),
        (
            String::new(),
            "citype: opennebula\n".to_owned(),
            "its cloud-init data is in the form opennebula, which cannot carry its network",
            "`qm set 100 --citype nocloud` if it is a Linux guest; else `pve-public-ip show 100` says what to configure inside",
        ),
    ] {
        let text = if from.is_empty() { format!("{}{to}", conf("")) } else { conf("").replace(&from, &to) };
        node.tree.qemu(100, &text);
        let run = node.run("assign 100 203.0.113.10 --no-hookscript");
        run.fails_with(1, &[&format!("but guest 100 is not told: {error}\n"), &format!("hint: {hint}")]);
        assert_eq!(config(&node, 100), text);
    }
    node.tree.qemu(100, conf("").replace("l26", "win11"));
    let run = node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    assert!(
        run.out.ends_with(
            "network: cloud-init cannot configure the network of Windows reliably: `pve-public-ip show 100` says what to \
             configure inside\n"
        ),
        "{run}"
    );
}

#[test]
fn a_missing_uuid_keeps_the_other_words_of_its_line() {
    let node = node();
    node.tree.qemu(100, conf("").replace(&format!("uuid={UUID}"), "manufacturer=QUNNRQ==,base64=1"));
    let run = node.run("assign 100 203.0.113.10 --no-hookscript");
    let (_, hint) = run.err.split_once("--smbios1 uuid=").unwrap();
    assert_eq!(
        hint[36..].split('`').next().unwrap(),
        ",manufacturer=QUNNRQ==,base64=1 && pve-public-ip assign 100 203.0.113.10",
        "{run}"
    );
}

#[test]
fn without_a_storage_for_snippets_it_says_how_to_get_one() {
    let node = node();
    node.tree.write("etc/pve/storage.cfg", "dir: local\n\tpath /var/lib/vz\n\tcontent iso,images\n");
    let before = config(&node, 100);
    node.run("assign 100 203.0.113.10 --no-hookscript").fails(
        1,
        "203.0.113.10 assigned to guest 100 net0 (02:00:00:aa:bb:00), pool ovh, gateway 198.51.100.254, but guest 100 is not \
         told: no storage of this node takes snippets",
        "`pve-public-ip setup` makes one that all nodes have; then assign again",
    );
    assert_eq!(config(&node, 100), before);
}

#[test]
fn a_storage_of_this_node_only_is_said_to_be_one() {
    let node = node();
    node.tree.write("etc/pve/nodes/n2/qemu-server/300.conf", "name: far\n");
    let run = node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    assert_eq!(
        said(&run)[1..],
        [
            "warning: guest 100 cannot start on n2: storage `local` of this node is not there",
            "warning: hint: `pve-public-ip setup` makes a storage that all nodes have; then assign again"
        ],
        "{run}"
    );
    // With a storage that all nodes have the files move there, and those of this node go.
    node.tree.write(
        "etc/pve/storage.cfg",
        "dir: local\n\tpath /var/lib/vz\n\tcontent snippets\n\ndir: public-ip\n\tpath /etc/pve/public-ip\n\tcontent snippets\n\tshared 1\n",
    );
    let meta = snippet(&node, LOCAL, "meta");
    let run = node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    assert_eq!(said(&run).len(), 1, "no warning: {run}");
    assert_eq!(line(&node, "cicustom"), Some(cicustom("public-ip", &["meta", "network", "vendor"])));
    assert_eq!(snippet(&node, "etc/pve/public-ip/snippets", "meta"), meta);
    for part in ["meta", "network", "vendor"] {
        assert!(!node.tree.path(&format!("{LOCAL}/{}", name(part))).exists(), "{part}");
    }
    nothing_is_missing(&node);
}

#[test]
fn a_snippet_that_a_clone_or_a_snapshot_names_is_kept() {
    let node = node();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    let volume = format!("local:snippets/{}", name("network"));
    for (holder, text) in [
        ("guest 300", format!("cicustom: network={volume}\n")),
        ("guest 300", format!("name: x\n\n[before]\ncicustom: network={volume}\n")),
    ] {
        node.tree.write("etc/pve/nodes/n2/qemu-server/300.conf", text);
        let run = node.run("release 100 --no-hookscript").ok();
        assert!(run.out.contains(&format!("network: {volume} is kept: {holder} names it\n")), "{run}");
        assert!(node.tree.path(&format!("{LOCAL}/{}", name("network"))).exists());
        node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    }
    // What cloud-init's data was made of before is history.
    node.tree.write(
        "etc/pve/nodes/n2/qemu-server/300.conf",
        format!("name: x\n\n[special:cloudinit]\ncicustom: network={volume}\n"),
    );
    node.run("release 100 --no-hookscript").ok();
    assert!(!node.tree.path(&format!("{LOCAL}/{}", name("network"))).exists());

    // A destroyed guest's go with its addresses.
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    fs::remove_file(node.tree.path("etc/pve/nodes/n1/qemu-server/100.conf")).unwrap();
    node.run("release 100").prints("203.0.113.10 released from guest 100\n");
    let left: Vec<_> = fs::read_dir(node.tree.path(LOCAL)).unwrap().collect();
    assert_eq!(left.len(), 0, "{left:?}");
}

#[test]
fn a_clone_gets_an_identity_of_its_own() {
    let node = node();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    let text = config(&node, 100).replace("AA:BB:00", "AA:BB:01").replace(UUID, "11111111-2222-3333-4444-555555555555");
    // The clone's configuration names the files of guest 100.
    let text =
        text.replace("pve-public-ip-100-11111111-2222-3333-4444-555555555555", &format!("pve-public-ip-100-{UUID}"));
    node.tree.qemu(101, text);
    node.run("pool add ovh 203.0.113.12 --mac 02:00:00:aa:bb:01").ok();
    let run = node.run("assign 101 203.0.113.12 --no-hookscript").ok();
    assert!(said(&run)[0].starts_with("guest 101 takes itself for a new machine at its next boot"), "{run}");
    let custom = config(&node, 101);
    assert!(!custom.contains("pve-public-ip-100-") && custom.contains("pve-public-ip-101-11111111-"), "{custom}");
    let meta = node.tree.read(&format!("{LOCAL}/pve-public-ip-101-11111111-2222-3333-4444-555555555555-meta.yaml"));
    assert_ne!(meta, snippet(&node, LOCAL, "meta"));
    nothing_is_missing(&node);
}

#[test]
fn all_that_goes_is_one_list() {
    let node = node();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    // Somebody took the other parts out.
    let text = config(&node, 100);
    let network = cicustom("local", &["network"]);
    node.tree.qemu(100, text.replace(&cicustom("local", &["meta", "network", "vendor"]), &network));
    node.run("release 100 --no-hookscript").ok();
    assert_eq!(node.calls().last().unwrap(), "qm set 100 --delete ipconfig0,cicustom");
    assert_eq!(config(&node, 100), conf(""));
    assert_eq!(fs::read_dir(node.tree.path(LOCAL)).unwrap().count(), 0, "nobody names them");
}

#[test]
fn what_is_missing_comes_back_with_the_next_assign() {
    let node = node();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    let before: Vec<String> = ["meta", "network", "vendor"].map(|part| snippet(&node, LOCAL, part)).into();
    fs::remove_dir_all(node.tree.path(LOCAL)).unwrap();
    let run = node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    assert!(run.out.ends_with("network: written to storage local: meta, network, vendor\n"), "{run}");
    let after: Vec<String> = ["meta", "network", "vendor"].map(|part| snippet(&node, LOCAL, part)).into();
    assert_eq!(after[1..], before[1..]);
    nothing_is_missing(&node);
    node.changes_nothing("assign 100 203.0.113.10 --no-hookscript").ok();
}

#[test]
fn a_failing_qm_leaves_a_guest_that_can_start() {
    let node = node();
    node.tree.script("stand-ins/qm", "echo busy >&2\nexit 255\n");
    let run = node.run("assign 100 203.0.113.10 --no-hookscript");
    run.fails_with(1, &["failed (exit status: 255): busy\nhint: try it by hand: `qm set 100 --ipconfig0 "]);
    nothing_is_missing(&node);
    node.stand_in_proxmox();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    nothing_is_missing(&node);
    node.tree.script("stand-ins/qm", "exit 255\n");
    node.run("release 100 --no-hookscript")
        .fails_with(1, &["203.0.113.10 released from guest 100, but ", "hint: try it by hand: `qm set 100 "]);
    nothing_is_missing(&node);
    // The same command again does what is left.
    node.stand_in_proxmox();
    node.run("release 100 --no-hookscript").ok();
    assert_eq!(line(&node, "ipconfig0"), None);
    assert!(!node.tree.path("etc/pve/public-ip/guests/100.json").exists());
    nothing_is_missing(&node);
}

#[test]
fn a_dry_run_says_all_and_writes_nothing() {
    let node = node();
    let run = node.changes_nothing("assign 100 203.0.113.10 --dry-run");
    assert!(
        run.out.contains(
            "network: guest 100 has this network at its first boot (one restored from a backup at its second)\nnetwork: would be written to storage local: meta, network, \
             vendor\nnetwork: qm set 100 --ipconfig0 ip=203.0.113.10/32,gw=198.51.100.254 --cicustom "
        ) && run.out.ends_with(" (not run)\n"),
        "{run}"
    );
    assert_eq!(fs::read_dir(node.tree.path(LOCAL)).unwrap().count(), 0);
    node.run("assign 100 203.0.113.10").ok();
    node.changes_nothing("release 100 --dry-run").ok();
    nothing_is_missing(&node);
}

#[test]
fn the_administrator_can_configure_a_guest_by_other_means() {
    let node = node();
    let before = config(&node, 100);
    node.run("assign 100 203.0.113.10 --no-hookscript --cloud-init off")
        .prints("203.0.113.10 assigned to guest 100 net0 (02:00:00:aa:bb:00), pool ovh, gateway 198.51.100.254\n");
    node.run("release 100 --no-hookscript").prints("203.0.113.10 released from guest 100\n");
    assert_eq!((config(&node, 100), node.calls()), (before.clone(), Vec::new()));
    // What the guest was told before goes with the last address all the same.
    node.run("assign 100 203.0.113.10 203.0.113.11 --no-hookscript --cloud-init refuse").ok();
    node.run("assign 100 203.0.113.10 --no-hookscript --cloud-init off").ok();
    let told = config(&node, 100);
    node.run("release 100 203.0.113.10 --no-hookscript").prints("203.0.113.10 released from guest 100\n");
    assert_eq!(config(&node, 100), told);
    node.run("release 100 --no-hookscript").ok();
    assert_eq!(
        (line(&node, "ipconfig0"), line(&node, "cicustom")),
        (None, Some(cicustom("local", &["meta", "vendor"])))
    );
}

#[test]
fn alpine_is_told_in_its_own_words_until_it_is_said_otherwise() {
    let node = node();
    node.run("assign 100 203.0.113.10 --no-hookscript --os alpine").ok();
    assert!(snippet(&node, LOCAL, "network").contains("pointopoint: '198.51.100.254'"));
    node.run("assign 100 203.0.113.11 --no-hookscript").ok();
    assert!(snippet(&node, LOCAL, "network").contains("pointopoint"));
    node.run("assign 100 203.0.113.11 --no-hookscript --os linux").ok();
    assert!(!snippet(&node, LOCAL, "network").contains("pointopoint"));
}

#[test]
fn a_running_guest_is_told_what_to_do_now() {
    let node = node();
    node.plug("tap100i0");
    let run = node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    assert!(
        run.out.ends_with(
            "network: qm cloudinit update 100\n\
             guest 100 is running; to use the addresses now, inside it, as root (`--live` asks its agent to do it):\n\
             \u{20}   dev=$(grep -lix 02:00:00:aa:bb:00 /sys/class/net/*/address | head -n 1 | cut -d / -f 5)\n\
             \u{20}   ip -4 address replace 203.0.113.10/32 dev $dev\n\
             \u{20}   ip -4 route replace 198.51.100.254 dev $dev\n\
             \u{20}   ip -4 route replace default via 198.51.100.254 dev $dev\n"
        ),
        "{run}"
    );
    assert_eq!(node.net.set("bound_ip4"), ["203.0.113.10"], "the binding is applied at once");

    node.run("assign 100 203.0.113.10 --no-hookscript --live").fails_with(
        1,
        &[
            "but guest 100 has no agent that could be asked to do it",
            "hint: `qm set 100 --agent 1` and install qemu-guest-agent inside",
        ],
    );
    let text = config(&node, 100);
    node.tree.qemu(100, format!("agent: 1\n{text}"));
    node.tree.write("agent", "{\"exitcode\":0,\"exited\":1}\n");
    let run = node.run("assign 100 203.0.113.10 --no-hookscript --live").ok();
    assert!(run.out.ends_with("network: guest 100 uses the new addresses now\n"), "{run}");
    assert!(run.err.contains("running qm guest exec 100 -- sh -ec 'dev=$(grep -lix 02:00:00:aa:bb:00 "), "{run}");
    assert!(node.calls().iter().any(|call| call.starts_with("qm guest exec 100 -- sh -ec dev=")));
    node.tree.write(
        "agent",
        "{\"exitcode\":2,\"exited\":1,\"err-data\":\"RTNETLINK answers: Nexthop has invalid gateway.\\n\"}\n",
    );
    node.run("assign 100 203.0.113.10 --no-hookscript --live").fails_with(
        1,
        &[
            "guest 100 could not be told by its agent: RTNETLINK answers: Nexthop has invalid gateway.\n",
            "hint: inside it, as root: `dev=",
        ],
    );
}

#[test]
fn containers_are_told_by_proxmox_itself() {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    let before = "name=eth0,bridge=vmbr0,firewall=1,hwaddr=02:00:00:AA:BB:02,ip=dhcp,ip6=auto,type=veth";
    node.tree.lxc(200, format!("hostname: dns\nnet0: {before}\n"));
    let run = node.run("assign 200 203.0.113.10 --no-hookscript").ok();
    let set = "pct set 200 --net0 name=eth0,bridge=vmbr0,firewall=1,hwaddr=02:00:00:AA:BB:02,type=veth,\
               ip=203.0.113.10/32,gw=203.0.113.1,ip6=auto";
    assert!(run.out.ends_with(&format!("network: {set}\n")), "{run}");
    assert_eq!(node.calls(), [set]);
    node.run("assign 200 203.0.113.11 --no-hookscript").ok();
    node.run("release 200 --no-hookscript").ok();
    let text = node.tree.read("etc/pve/nodes/n1/lxc/200.conf");
    assert!(text.contains("hwaddr=02:00:00:AA:BB:02,type=veth,ip=dhcp,ip6=auto\n"), "{text}");
    assert!(!node.tree.path("etc/pve/public-ip/guests/200.json").exists());
}

#[test]
fn a_guest_on_another_node_is_told_there() {
    let node = node();
    node.tree.write("etc/pve/nodes/n2/qemu-server/300.conf", conf("").replace("AA:BB:00", "AA:BB:30"));
    node.run("pool add ovh 203.0.113.30 --mac 02:00:00:aa:bb:30").ok();
    let run = node.run("assign 300 203.0.113.30 --no-hookscript").ok();
    assert!(
        run.out.ends_with("network: guest 300 is on node n2; do it there: pve-public-ip assign 300 203.0.113.30\n"),
        "{run}"
    );
    assert_eq!(node.calls(), Vec::<String>::new());
    node.run("release 300 --no-hookscript").prints(
        "203.0.113.30 released from guest 300\n\
         network: guest 300 is on node n2; do it there: pve-public-ip release 300\n",
    );
}

/// Where both nodes see the snippets, all of it is done from here, by Proxmox VE's own API.
#[test]
fn a_guest_on_another_node_is_told_from_here_where_snippets_are_shared() {
    let node = node();
    node.tree.write("etc/pve/nodes/n2/qemu-server/300.conf", conf("").replace("AA:BB:00", "AA:BB:30"));
    node.tree.write(
        "etc/pve/storage.cfg",
        "dir: local\n\tpath /var/lib/vz\n\tcontent snippets\n\ndir: public-ip\n\tpath /etc/pve/public-ip\n\tcontent snippets\n\tshared 1\n",
    );
    let log = node.tree.path("pvesh-calls");
    node.tree.script(
        "stand-ins/pvesh",
        &format!("echo \"$*\" >>{}\n[ \"$1\" = set ] || printf '\"instance-id: abc\\\\n\"'\n", log.display()),
    );
    node.run("pool add ovh 203.0.113.30 --mac 02:00:00:aa:bb:30").ok();
    let run = node.run("assign 300 203.0.113.30 --no-hookscript").ok();
    assert!(!run.out.contains("do it there"), "{run}");
    let calls = node.tree.read("pvesh-calls");
    let calls: Vec<&str> = calls.lines().collect();
    assert_eq!(calls[0], "get /nodes/n2/qemu/300/cloudinit/dump --type meta --output-format json", "{calls:?}");
    assert!(calls[1].starts_with("set /nodes/n2/qemu/300/config "), "{calls:?}");
    assert!(calls[1].contains("public-ip:snippets/"), "{calls:?}");
    assert_eq!(calls.last(), Some(&"set /nodes/n2/qemu/300/cloudinit"), "{calls:?}");
    let written = std::fs::read_dir(node.tree.path("etc/pve/public-ip/snippets")).unwrap().count();
    assert!(written > 0, "{run}");
}

#[test]
fn setup_makes_a_storage_that_every_node_has() {
    let node = node();
    node.run("setup").prints("storage local takes snippets, and every node sees them: nothing to do\n");
    node.tree.write("etc/pve/nodes/n2/qemu-server/300.conf", "name: far\n");
    let says = "/etc/pve/storage.cfg gets a storage for cloud-init data that every node has:\n\n\
                dir: public-ip\n\tpath /etc/pve/public-ip\n\tcontent snippets\n\tshared 1\n\n";
    let add = "pvesm add dir public-ip --path /etc/pve/public-ip --content snippets --shared 1";
    node.changes_nothing("setup")
        .prints(&format!("{says}nothing is changed yet: `pve-public-ip setup --yes` runs `{add}`\n"));
    node.changes_nothing("setup --yes")
        .prints(&format!("{says}storage: `pvesm` is not called for a node under --root; do it by hand: {add}\n"));
    let pvesm = node.tree.script("stand-ins/pvesm", "echo no quorum >&2\nexit 255\n");
    node.changes_nothing("setup --yes --dry-run").prints(&format!("{says}storage: {add} (not run)\n"));
    node.run("setup --yes").after_running(add).fails(
        1,
        &format!("`{} {}` failed (exit status: 255): no quorum", pvesm.display(), add.strip_prefix("pvesm ").unwrap()),
        &format!("try it by hand: `{add}`"),
    );
    let cfg = node.tree.path("etc/pve/storage.cfg").display().to_string();
    node.tree.script(
        "stand-ins/pvesm",
        &format!("printf '%s: %s\\n\\tpath %s\\n\\tcontent %s\\n\\tshared %s\\n' $2 $3 $5 $7 $9 >> {cfg}\n"),
    );
    node.run("setup --yes").after_running(add).prints(&format!("{says}storage: {add}\n"));
    assert!(says.contains(&node.tree.read("etc/pve/storage.cfg")));
    node.run("setup --yes").prints("storage public-ip takes snippets, and every node sees them: nothing to do\n");
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    assert_eq!(line(&node, "cicustom"), Some(cicustom("public-ip", &["meta", "network", "vendor"])));

    node.tree.write("etc/pve/storage.cfg", "dir: public-ip\n\tpath /srv/x\n\tcontent images\n");
    node.run("setup --yes").fails(
        1,
        "cannot make a storage for cloud-init data: there is a storage `public-ip` of type dir with /srv/x, which not every \
         node can use",
        "`pvesm set public-ip --content snippets --delete nodes,disable` if it is at /etc/pve/public-ip; else give it another \
         name",
    );
}

const VOLUME: &str = "local:100/vm-100-cloudinit.qcow2";
const IMAGE: &str = "var/lib/vz/images/100/vm-100-cloudinit.qcow2";
const ID: &str = "0123456789abcdef0123456789abcdef01234567";

/// Makes the image as Proxmox VE does at a start, of what the guest's configuration names.
fn boot(node: &Node) {
    make_with(
        node,
        IMAGE,
        &snippet(node, LOCAL, "network"),
        &snippet(node, LOCAL, "meta"),
        &snippet(node, LOCAL, "vendor"),
    );
}

#[test]
fn what_is_written_is_what_pre_start_wants_to_see() {
    let node = node();
    node.tree.qemu(100, conf("").replace("local:cloudinit", VOLUME));
    // It has booted with what Proxmox VE makes up, and keeps the identity that it has from there.
    make_with(&node, IMAGE, "version: 1\nconfig: []\n", &format!("instance-id: {ID}\n"), "");
    let run = node.run("assign 100 203.0.113.10").ok();
    assert!(said(&run)[0].contains("after its second boot from now"), "{run}");
    assert_eq!(snippet(&node, LOCAL, "meta"), format!("instance-id: '{ID}'\n"));
    // An image that was not made anew does not have the address.
    node.run("hook 100 pre-start").fails_with(1, &["203.0.113.10"]);
    boot(&node);
    node.run("hook 100 pre-start").ok();
    let run = node.run("assign 100 203.0.113.11").ok();
    assert_eq!(said(&run), ["guest 100 has this network after its next boot, and keeps its SSH host keys"]);
    boot(&node);
    node.run("hook 100 pre-start").ok();
    assert_eq!(snippet(&node, LOCAL, "meta"), format!("instance-id: '{ID}'\n"));
}

#[test]
fn an_image_that_was_never_filled_has_no_identity_to_lose() {
    let node = node();
    node.tree.qemu(100, conf("").replace("local:cloudinit", "local:100/vm-100-cloudinit.raw"));
    node.tree.write("var/lib/vz/images/100/vm-100-cloudinit.raw", vec![0; 1 << 20]);
    let run = node.run("assign 100 203.0.113.10").ok();
    assert_eq!(said(&run), ["guest 100 has this network at its first boot (one restored from a backup at its second)"]);
    assert_eq!(snippet(&node, LOCAL, "meta"), "instance-id: 'as-dumped'\n");
    // With data of the administrator's own Proxmox VE does not say which it would be.
    let own = "cicustom: user=local:snippets/own.yaml\n";
    node.tree.qemu(100, conf(own).replace("local:cloudinit", "local:100/vm-100-cloudinit.raw"));
    node.run("assign 100 203.0.113.10").ok();
    let meta = snippet(&node, LOCAL, "meta");
    assert!(meta != "instance-id: 'as-dumped'\n" && meta.len() == "instance-id: ''\n".len() + 36, "{meta}");
}

#[test]
fn of_two_commands_at_once_the_later_one_knows_both_changes() {
    let node = node();
    for round in 0..4 {
        let start = |address: &str| {
            let mut command = node.command(&["assign", "100", address, "--no-hookscript"]);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
        };
        let both = [start("203.0.113.10"), start("203.0.113.11")];
        for mut command in both {
            assert!(command.wait().unwrap().success(), "round {round}");
        }
        let network = snippet(&node, LOCAL, "network");
        for address in ["203.0.113.10/32", "203.0.113.11/32"] {
            assert!(network.contains(address), "round {round}: {network}");
        }
        nothing_is_missing(&node);
        node.run("release 100 --no-hookscript").ok();
    }
}
