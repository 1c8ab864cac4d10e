//! Guest configurations that are odd or spoilt, seen through the commands. The grammar itself has its golden cases.

use std::fs;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::common::Node;

fn path(node: &Node, vmid: u32) -> std::path::PathBuf {
    node.tree.path(&format!("etc/pve/nodes/n1/qemu-server/{vmid}.conf"))
}

#[test]
fn only_what_runs_or_will_run_counts() {
    let node = Node::with_pool();
    node.tree.qemu(
        100,
        "#net0: virtio=02:00:00:00:00:01,bridge=vmbr9\r\nname: web\r\nnet0: e1000=02:00:00:00:00:02,bridge=vmbr9\r\n\
         net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0,new-option=1\r\n\r\n[PENDING]\nnet0: virtio=02:00:00:00:00:03,bridge=vmbr0\n\
         [special:cloudinit]\nnet0: virtio=02:00:00:00:00:04,bridge=vmbr0\n[snap]\nnet0: virtio=02:00:00:00:00:05,bridge=vmbr8\n\
         hookscript: local:snippets/old.sh\n",
    );
    node.run("assign 100 203.0.113.10 --no-hookscript").prints(
        "note: a change of net0 waits for the guest's next start, and counts here\n\
         203.0.113.10 assigned to guest 100 net0 (02:00:00:00:00:03), pool ovh-rbx, gateway 203.0.113.1\n\
         network: the guest has no cloud-init drive: `pve-public-ip show 100` says what to configure inside\n",
    );
    // Proxmox VE applies what waits before it calls the hook.
    node.tree.qemu(100, "net0: virtio=02:00:00:00:00:03,bridge=vmbr0\n");
    node.run("hook 100 pre-start").ok();
    assert_eq!(node.net.set("bound_mac"), ["02:00:00:00:00:03"]);
    node.is_in_line();
    node.tree.qemu(100, "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
    node.run("hook 100 pre-start").fails_with(1, &["has MAC 02:00:00:aa:bb:00, but the registry binds"]);
}

#[test]
fn binary_junk_is_survived() {
    let node = Node::with_pool();
    let junk: Vec<u8> = (0..65536_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]).collect();
    node.tree.qemu(102, &junk);
    node.tree.lxc(202, &junk);
    node.changes_nothing("hook 102 pre-start").prints("");
    node.changes_nothing("assign 102").fails(
        1,
        "cannot assign to guest 102: guest 102 has no net0; it has no NIC",
        "add it: `qm set 102 --net0 ...`, or name another one with --net",
    );
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.is_in_line();
    node.tree.qemu(100, [&junk, &b"\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n"[..]].concat());
    node.run("hook 100 pre-start").ok();
}

#[test]
fn a_configuration_that_cannot_be_read_stops_its_guest_only() {
    let node = crate::registry_files::two_guests();
    let good = node.net.filter();
    let hint = "`systemctl status pve-cluster` tells whether /etc/pve is well";
    let spoil: [(&str, &dyn Fn(), &str); 4] = [
        ("directory", &|| fs::create_dir(path(&node, 100)).unwrap(), "not a regular file"),
        ("fifo", &|| mkfifo(&path(&node, 100), Mode::S_IRUSR).unwrap(), "not a regular file"),
        ("2 MiB", &|| fs::write(path(&node, 100), vec![b'#'; 2 << 20]).unwrap(), "larger than 1 MiB"),
        (
            "loop",
            &|| std::os::unix::fs::symlink("100.conf", path(&node, 100)).unwrap(),
            "Too many levels of symbolic links (os error 40)",
        ),
    ];
    for (what, spoil, reason) in spoil {
        let _ = fs::remove_file(path(&node, 100));
        let _ = fs::remove_dir(path(&node, 100));
        spoil();
        let sentence =
            format!("cannot read the configuration of guest 100 at `{}`: {reason}", path(&node, 100).display());
        node.changes_nothing("hook 100 pre-start").fails(1, &sentence, hint);
        node.changes_nothing("assign 100 203.0.113.12").fails(
            1,
            &format!("cannot assign to guest 100: {sentence}"),
            hint,
        );
        // It runs: its protection stays, and the others are not in its hands.
        node.net.sh("nft flush ruleset");
        let run = node.run("apply").fails_with(4, &[]);
        let problem = format!("changes made\nproblem: {sentence}\n  hint: {hint}\n");
        assert!(run.out.ends_with(&problem), "{what}: {run}");
        assert!(node.net.filter() == good, "{what}: the running guest lost something");
        node.run("hook 101 pre-start").ok();
        node.run("hook 101 post-stop").ok();
    }
}
