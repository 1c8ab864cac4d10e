//! What guests find in their cloud-init images, looked at before they start.

use std::fs;
use std::process::Command;

use crate::common::{Node, Run};

const DRIVE: &str = "ide2: local:100/vm-100-cloudinit.qcow2,media=cdrom\n";
/// With network data of its own that is right; what counts at a start is the image.
const NIC: &str = "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\nsmbios1: uuid=2e5bd7c2-0ed6-4a3a-9b87-6d3a1f1b6c11\n\
    cicustom: network=local:snippets/pve-public-ip-100-2e5bd7c2-0ed6-4a3a-9b87-6d3a1f1b6c11-network.yaml\n";
const SNIPPET: &str = "var/lib/vz/snippets/pve-public-ip-100-2e5bd7c2-0ed6-4a3a-9b87-6d3a1f1b6c11-network.yaml";
const VOLUME: &str = "var/lib/vz/images/100/vm-100-cloudinit.qcow2";

/// Guest 100 holds 203.0.113.10, with a cloud-init drive.
fn assigned(drive: &str) -> Node {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.tree.qemu(100, format!("{drive}{NIC}"));
    node.tree.write(SNIPPET, good());
    node
}

/// What works for it, with this address and gateway.
fn document(address: &str, gateway: &str) -> String {
    format!(
        "version: 1\nconfig:\n  - type: physical\n    name: eth0\n    mac_address: '02:00:00:aa:bb:00'\n    subnets:\n      \
         - type: static\n        address: '{address}/32'\n        gateway: '{gateway}'\n        \
         dns_nameservers: ['192.0.2.53']\n        routes:\n          - network: '{gateway}/32'\n            \
         gateway: '0.0.0.0'\n"
    )
}

fn good() -> String {
    document("203.0.113.10", "203.0.113.1")
}

fn tool(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program} ({error}); `make setup` installs it"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes the volume as Proxmox VE does at every start; a qcow2 file if it is called one.
fn make(node: &Node, volume: &str, network: &str) {
    make_with(node, volume, network, "instance-id: 1\n", "");
}

pub(super) fn make_with(node: &Node, volume: &str, network: &str, meta: &str, vendor: &str) {
    let tree = node.tree.path("run/pve/cloudinit/100");
    node.tree.write("run/pve/cloudinit/100/network-config", network);
    node.tree.write("run/pve/cloudinit/100/meta-data", meta);
    node.tree.write("run/pve/cloudinit/100/user-data", "#cloud-config\n");
    node.tree.write("run/pve/cloudinit/100/vendor-data", vendor);
    let iso = node.tree.path("run/pve/cloudinit/iso");
    let iso = iso.to_str().unwrap();
    let arguments = ["-quiet", "-iso-level", "3", "-R", "-J", "-V", "cidata", "-o", iso, tree.to_str().unwrap()];
    tool("genisoimage", &arguments);
    let path = node.tree.path(volume);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let format = volume.strip_suffix(".qcow2").map_or("raw", |_| "qcow2");
    tool("qemu-img", &["convert", "-f", "raw", "-O", format, iso, path.to_str().unwrap()]);
}

fn setting(node: &Node, check: &str) {
    let path = "etc/pve/public-ip/guests/100.json";
    let mut file: serde_json::Value = serde_json::from_str(&node.tree.read(path)).unwrap();
    file["cloud_init"] = serde_json::json!({ "check": check });
    node.tree.write(path, file.to_string());
}

fn start(node: &Node) -> Run {
    node.run("hook 100 pre-start")
}

/// With this reason and hint, and how to start it all the same.
#[track_caller]
fn refused(node: &Node, sentence: &str, hint: &str) {
    let hint = format!("{hint}; with `assign ... --cloud-init warn` it starts all the same");
    node.changes_nothing("hook 100 pre-start").fails(1, sentence, &hint);
}

const PROTECTED: &str =
    "pve-public-ip: guest 100 is protected: net0 203.0.113.10 bound to 02:00:00:aa:bb:00 on tap100i0\n";

#[track_caller]
fn starts(node: &Node, before: &str) {
    let run = start(node).ok();
    assert_eq!(run.err, format!("{before}{PROTECTED}"), "{run}");
}

#[test]
fn a_guest_that_finds_its_address_starts_from_every_storage_of_the_node() {
    let node = assigned(DRIVE);
    node.tree.write(
        "etc/pve/storage.cfg",
        "dir: local\n\tpath /var/lib/vz\n\nnfs: share\n\tserver 192.0.2.1\n\nbtrfs: bt\n\tpath /srv/bt\n\n\
         lvmthin: local-lvm\n\tthinpool data\n\tvgname pve\n\nzfspool: local-zfs\n\tpool rpool/data\n",
    );
    for (volume, path) in [
        ("local:100/vm-100-cloudinit.qcow2", VOLUME),
        ("share:100/vm-100-cloudinit.raw", "mnt/pve/share/images/100/vm-100-cloudinit.raw"),
        ("bt:100/vm-100-cloudinit.raw", "srv/bt/images/100/vm-100-cloudinit/disk.raw"),
        ("local-lvm:vm-100-cloudinit", "dev/pve/vm-100-cloudinit"),
        ("local-zfs:vm-100-cloudinit", "dev/zvol/rpool/data/vm-100-cloudinit"),
    ] {
        node.tree.qemu(100, format!("scsi1: {volume},media=cdrom,size=4M\n{NIC}"));
        let missing = node.tree.path(path);
        let warning = format!(
            "warning: guest 100: cannot read the cloud-init image `{}`: No such file or directory (os error 2)\n\
             warning: hint: `qm cloudinit update 100` makes it anew\n",
            missing.display()
        );
        starts(&node, &warning);
        make(&node, path, &good());
        starts(&node, "");
        node.is_in_line();
        make(&node, path, &document("203.0.113.11", "203.0.113.1"));
        start(&node).fails_with(1, &["error: guest 100 is not told of 203.0.113.10 on net0: it comes up without it\n"]);
    }
}

#[test]
fn a_guest_that_does_not_find_its_address_starts_only_if_it_may() {
    let node = assigned(DRIVE);
    make(&node, VOLUME, &document("203.0.113.10", "203.0.113.2"));
    let sentence = "guest 100 is told the gateway 203.0.113.2 on net0, but its gateway is 203.0.113.1";
    let hint = "`pve-public-ip assign 100 203.0.113.10` writes it anew";
    refused(&node, sentence, hint);
    assert_eq!(node.net.set("bound_ip4"), Vec::<String>::new(), "a refused guest is bound");

    // The image is made anew at the next start; only one that runs may boot with this one.
    node.run("apply").ok();
    node.is_in_line();
    node.plug("tap100i0");
    node.run("apply").ok();
    let verify = node.run("verify");
    let later = format!("{sentence}, if it boots again before it is stopped");
    let drift = format!("drift: {later}\n  hint: `qm cloudinit update 100`\n");
    assert_eq!((verify.code, verify.out.ends_with(&drift)), (3, true), "{verify}");
    let json = node.run("verify --output-format json").json();
    assert_eq!(json["drift"], serde_json::json!([later]));
    node.unplug("tap100i0");
    node.run("apply").ok();

    // Proxmox VE starts a guest that is off for its backup.
    let warned = format!("warning: {sentence}\nwarning: hint: {hint}\n");
    node.tree.qemu(100, format!("{DRIVE}lock: backup\n{NIC}"));
    starts(&node, &warned);
    node.tree.qemu(100, format!("{DRIVE}{NIC}"));
    refused(&node, sentence, hint);

    setting(&node, "warn");
    starts(&node, &warned);
    setting(&node, "off");
    starts(&node, "");
    setting(&node, "refuse");
    refused(&node, sentence, hint);
    make(&node, VOLUME, &good());
    starts(&node, "");
    node.is_in_line();
}

#[test]
fn every_finding_is_said_and_the_first_wrong_one_is_the_reason() {
    let node = assigned(DRIVE);
    let other = "  - {type: physical, name: eth1, mac_address: '02:00:00:aa:bb:99'}\n";
    make(&node, VOLUME, &(document("203.0.113.12", "203.0.113.1") + other));
    let anew = "`pve-public-ip assign 100 203.0.113.10` writes it anew";
    let run = start(&node);
    let expected = format!(
        "warning: guest 100 is not told of 203.0.113.10 on net0: it comes up without it\n\
         warning: hint: {anew}\n\
         warning: guest 100 is told to use 203.0.113.12 on net0, which it does not hold: nothing that it sends from there gets out\n\
         warning: hint: {anew}\n\
         error: guest 100 is told of a NIC with the MAC 02:00:00:aa:bb:99, which it does not have: cloud-init waits for it \
         and configures nothing; is it the data of another guest?\nhint: {anew}; with `assign ... --cloud-init warn` it \
         starts all the same\n"
    );
    assert_eq!((run.code, run.err.as_str()), (1, expected.as_str()), "{run}");
    // A card of the node that is passed through has a MAC of its own.
    make(&node, VOLUME, &(good() + other));
    start(&node).fails_with(1, &["error: guest 100 is told of a NIC with the MAC 02:00:00:aa:bb:99"]);
    node.tree.qemu(100, format!("hostpci0: 0000:01:00.0\n{DRIVE}{NIC}"));
    starts(&node, "");
}

#[test]
fn a_clone_with_the_data_of_its_original_does_not_start() {
    let uuid = "2e5bd7c2-0ed6-4a3a-9b87-6d3a1f1b6c11";
    let volume = |vmid: u32| format!("local:snippets/pve-public-ip-{vmid}-{uuid}-network.yaml");
    let node = assigned(DRIVE);
    make(&node, VOLUME, &good());
    let config = |vmid: u32, uuid: &str| {
        node.tree.qemu(
            100,
            format!(
                "cicustom: network={}\n{DRIVE}net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\nsmbios1: uuid={uuid}\n",
                volume(vmid)
            ),
        );
    };
    config(100, uuid);
    starts(&node, "");
    let hint = "is it a clone or a restored copy? `qm set 100 --delete cicustom`; then assign it addresses";
    config(102, uuid);
    let sentence = format!(
        "guest 100 gets the cloud-init data of guest 102 (`{}`): it would come up with that one's addresses",
        volume(102)
    );
    refused(&node, &sentence, hint);
    config(100, "00000000-0ed6-4a3a-9b87-6d3a1f1b6c11");
    let sentence = format!(
        "guest 100 gets the cloud-init data of an earlier guest 100 with the UUID {uuid} (`{}`): it would come up with \
         that one's addresses",
        volume(100)
    );
    refused(&node, &sentence, hint);
}

#[test]
fn what_cannot_be_told_is_said_and_stops_nothing() {
    let node = assigned(DRIVE);
    node.tree.write("etc/pve/storage.cfg", "rbd: ceph\n\tpool vms\n");
    let ends = "compare what it has inside with `pve-public-ip show 100 --inside`";
    for (config, sentence, hint) in [
        (
            "ide2: ceph:vm-100-cloudinit,media=cdrom\n",
            "nobody can tell whether guest 100 gets its addresses from `ceph:vm-100-cloudinit`: storage `ceph` is of type \
             rbd, whose volumes are not read here",
            ends,
        ),
        (
            "ide2: gone:vm-100-cloudinit,media=cdrom\n",
            "nobody can tell whether guest 100 gets its addresses from `gone:vm-100-cloudinit`: there is no storage `gone` \
             in /etc/pve/storage.cfg",
            ends,
        ),
        (
            "ostype: win11\nide2: local:100/vm-100-cloudinit.qcow2,media=cdrom\n",
            "nobody can tell whether guest 100 gets its addresses: cloud-init cannot configure the network of Windows \
             reliably",
            "`pve-public-ip show 100` says what to configure inside",
        ),
    ] {
        node.tree.qemu(100, format!("{config}{NIC}"));
        starts(&node, &format!("warning: {sentence}\nwarning: hint: {hint}\n"));
        let verify = node.run("verify").ok();
        assert!(verify.out.contains(&format!("note: {sentence}\n  hint: {hint}\n")), "{verify}");
    }
}

#[test]
fn broken_images_and_two_drives_stop_the_start() {
    let node = assigned(DRIVE);
    make(&node, VOLUME, &good());
    let path = node.tree.path(VOLUME).display().to_string();
    let update = "`qm cloudinit update 100` makes it anew";
    tool("qemu-img", &["create", "-q", "-f", "qcow2", &path, "8T"]);
    refused(&node, &format!("guest 100: the cloud-init image `{path}` holds no ISO 9660 file system"), update);
    fs::write(&path, "x").unwrap();
    let run = start(&node).ok();
    assert!(run.err.contains(&format!("cannot read the cloud-init image `{path}`: the qcow2 file is none")), "{run}");
    node.tree.qemu(100, format!("ide2: local:100/vm-100-cloudinit.raw,media=cdrom\n{NIC}"));
    let raw = "var/lib/vz/images/100/vm-100-cloudinit.raw";
    for (label, sentence) in [
        (
            "config-2",
            "the cloud-init image of guest 100 is labelled `config-2`, not `cidata`: the guest does not find it",
        ),
        ("cidata", "the cloud-init image of guest 100 has no `network-config`: the guest gets no addresses"),
    ] {
        let (tree, to) = (node.tree.path("run/empty"), node.tree.path(raw));
        node.tree.write("run/empty/meta-data", "instance-id: 1\n");
        tool("genisoimage", &["-quiet", "-R", "-V", label, "-o", to.to_str().unwrap(), tree.to_str().unwrap()]);
        refused(&node, sentence, update);
    }
    let second = "sata0: local:100/vm-100-cloudinit.raw,media=cdrom\n";
    node.tree.qemu(100, format!("{DRIVE}{second}{NIC}"));
    refused(
        &node,
        "nobody can tell whether guest 100 gets its addresses: it has two cloud-init drives: ide2 and sata0",
        "remove one: `qm set 100 --delete sata0`",
    );
}

#[test]
fn other_guests_are_not_looked_into() {
    // Without a drive, and one that runs already and only moves here.
    let node = assigned("");
    starts(&node, "");
    let node = assigned(DRIVE);
    make(&node, VOLUME, "version: 1\nconfig: []\n");
    let there = node.tree.path("etc/pve/nodes/n2/qemu-server");
    fs::create_dir_all(&there).unwrap();
    fs::rename(node.tree.path("etc/pve/nodes/n1/qemu-server/100.conf"), there.join("100.conf")).unwrap();
    node.run_with("hook 100 pre-start", &[("PVE_MIGRATED_FROM", "n2")]).ok();
    // A container has no drive, whatever its configuration says.
    let node = Node::with_pool();
    node.run("assign 200 203.0.113.12 --no-hookscript").ok();
    node.tree.lxc(200, format!("{DRIVE}net0: name=eth0,bridge=vmbr0,hwaddr=02:00:00:AA:BB:02,type=veth\n"));
    node.run("hook 200 pre-start").ok();
}

#[test]
fn show_says_what_to_configure_inside_where_nobody_else_does() {
    let node = assigned("");
    node.tree.write("etc/resolv.conf", "nameserver 192.0.2.53\n");
    let shown = node.run("show 100").ok();
    let (_, inside) = shown.out.split_once("inside: ").unwrap();
    let expected = "not told, because the guest has no cloud-init drive; by hand it is done so\n\n\
        # /etc/network/interfaces (ifupdown)\n\
        # net0: put the name that `ip -br link` shows for 02:00:00:aa:bb:00 in place of eth0\nauto eth0\n\
        iface eth0 inet static\n    address 203.0.113.10/32\n    up ip -4 route replace 203.0.113.1/32 dev eth0\n    \
        up ip -4 route replace default via 203.0.113.1 dev eth0\n    dns-nameservers 192.0.2.53\n\n\
        # /etc/netplan/90-public-ip.yaml (netplan)\n";
    assert!(inside.starts_with(expected), "{inside}");
    assert!(inside.contains("\n\n# NetworkManager, as root\nnmcli connection add type ethernet "), "{inside}");
    let ways = node.run("show 100 --output-format json").json()["inside"].clone();
    let keys: Vec<&String> = ways.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["interfaces", "netplan", "nmcli"]);

    node.tree.qemu(100, format!("ostype: win11\n{DRIVE}{NIC}"));
    let shown = node.run("show 100").ok();
    let (_, inside) = shown.out.split_once("inside: ").unwrap();
    assert!(
        inside.starts_with("not told, because cloud-init cannot configure the network of Windows reliably; "),
        "{inside}"
    );
    assert!(inside.contains("# Windows, PowerShell as administrator\n# net0\n$nic = Get-NetAdapter"), "{inside}");

    node.tree.qemu(100, format!("{DRIVE}{NIC}"));
    let shown = node.run("show 100").ok();
    assert!(!shown.out.contains("inside"), "{shown}");
    let shown = node.run("show 100 --inside").ok();
    assert!(shown.out.contains("inside: by hand it is done so\n\n# /etc/network/interfaces"), "{shown}");

    // Two NICs of one MAC are a bond, which only its administrator knows.
    node.tree.qemu(100, format!("{NIC}net1: virtio=02:00:00:AA:BB:00,bridge=vmbr0\nipconfig1: ip=dhcp\n"));
    let shown = node.run("show 100").ok();
    let expected = "inside: not told, because the guest has no cloud-init drive; and nobody can say how: its net0 and net1 have the \
        same MAC, and cloud-init knows a NIC by its MAC\n";
    assert!(shown.out.ends_with(expected), "{shown}");
}

/// The snippet that a guest's configuration names for its network.
fn network_snippet(node: &Node, vmid: u32) -> String {
    let config = node.tree.read(&format!("etc/pve/nodes/n1/qemu-server/{vmid}.conf"));
    let (_, volume) = config.split_once("network=local:snippets/").unwrap_or_else(|| panic!("{config}"));
    let name: String = volume.chars().take_while(|c| !matches!(c, ',' | '\n')).collect();
    node.tree.read(&format!("var/lib/vz/snippets/{name}"))
}

#[test]
fn what_assign_tells_is_what_the_hook_finds() {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    node.tree.write("etc/resolv.conf", "nameserver 192.0.2.53\n");
    let uuid = |digit: u32| format!("smbios1: uuid={digit}e5bd7c2-0ed6-4a3a-9b87-6d3a1f1b6c11\n");
    node.tree.qemu(100, format!("{DRIVE}net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n{}", uuid(1)));
    node.run("assign 100 203.0.113.10 2001:db8:0:1::10").ok();
    make(&node, VOLUME, &network_snippet(&node, 100));
    let quiet = |run: Run| assert!(!run.err.contains("warning"), "{run}");
    quiet(start(&node).ok());
    node.is_in_line();

    node.run("assign 100 203.0.113.11").ok();
    start(&node).fails_with(1, &["error: guest 100 is not told of 203.0.113.11 on net0: it comes up without it\n"]);
    make(&node, VOLUME, &network_snippet(&node, 100));
    quiet(start(&node).ok());

    // A clone has another MAC, number and UUID, and the data of its original, until it has its own.
    let clone = node.tree.read("etc/pve/nodes/n1/qemu-server/100.conf").replace(&uuid(1), &uuid(2));
    let clone = clone.replace("100", "101").replace("pve-public-ip-101", "pve-public-ip-100");
    let clone = clone.replace("02:00:00:AA:BB:00", "02:00:00:AA:BB:01");
    let clone: String =
        clone.lines().filter(|line| !line.starts_with("ipconfig")).map(|line| format!("{line}\n")).collect();
    node.tree.qemu(101, &clone);
    node.run("hook 101 pre-start").fails_with(1, &["no public address: is it a clone?"]);
    let run = node.run("assign 101 203.0.113.12").ok();
    assert!(!run.err.contains("warning"), "{run}");
    make(&node, "var/lib/vz/images/101/vm-101-cloudinit.qcow2", &network_snippet(&node, 101));
    quiet(node.run("hook 101 pre-start").ok());
    node.is_in_line();
}
