//! `topology` on a node with a kernel.

use std::fs;

use crate::common::Node;

#[test]
fn the_kernel_is_drawn_where_nothing_is_described() {
    let node = Node::with_pool();
    node.plug("eno1");
    node.run("assign 100 203.0.113.10").ok();
    let run = node.changes_nothing("topology").ok();
    let expected = format!(
        "provider\n`- eno1\n   `- vmbr0\n      |    node 203.0.113.250/24\n      |    pool ovh-rbx: generic-bridged, gateway 203.0.113.1\n\
         \x20     |- guest 100 web\n      |       net0 tap100i0 02:00:00:aa:bb:00: 203.0.113.10 (ovh-rbx)\n\
         \x20     |- guest 101 mail\n      |       net0 tap101i0 02:00:00:aa:bb:01\n\
         \x20     `- guest 200 dns\n              net0 veth200i0 02:00:00:aa:bb:02\n              container\n\
         not drawn: cannot read `{}`: No such file or directory (os error 2)\n",
        node.tree.path("etc/network/interfaces").display()
    );
    assert_eq!((run.out.as_str(), run.err.as_str()), (expected.as_str(), ""), "{run}");
    let run = node.run("topology --format mermaid").ok();
    assert!(run.out.starts_with("flowchart TD\n") && run.out.contains("\n%% not drawn: cannot read"), "{run}");
    let run = node.run("topology --format dot").ok();
    assert!(run.out.starts_with("digraph topology {\n") && run.out.contains("\n// not drawn: cannot read"), "{run}");
}

#[test]
fn flaws_make_the_exit_status_3() {
    let node = Node::new();
    node.tree.write("etc/network/interfaces", "iface vmbr0 inet manual\n bridge-ports none\n");
    node.run("topology --check").prints("nothing found: addresses, gateways and MACs agree\n");
    node.tree.qemu(300, "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
    let run = node.changes_nothing("topology --check");
    let told = "same-mac: 02:00:00:aa:bb:00 is the MAC of guest 100 net0 and guest 300 net0\n  hint: give one of them another MAC: \
        `qm set 300 --net0 virtio,bridge=vmbr0` makes a new one\n";
    assert_eq!((run.code, run.out.as_str()), (3, told), "{run}");
    node.run("topology --check --format dot").fails_with(2, &["cannot be used with"]);
    fs::remove_dir_all(node.tree.path("etc/pve")).unwrap();
    node.run("topology").fails(
        1,
        &format!("there is no `{}`", node.tree.path("etc/pve").display()),
        "`systemctl status pve-cluster`, `pvecm status`",
    );
}
