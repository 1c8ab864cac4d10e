//! File systems that are full or read-only: nothing is half-written, the exit status is 5, and the hook still works
//! as far as it can.

use crate::common::Node;

/// Mounts a tmpfs with these options at `directory` of the tree, inside the node's namespace only, with what was there.
fn mount(node: &Node, directory: &str, options: &str) {
    let path = node.tree.path(directory).display().to_string();
    node.net.sh(&format!(
        "mkdir -p {path}; cp -a {path} {path}.before; mount -t tmpfs -o {options} tmpfs {path}; cp -a {path}.before/. {path}/"
    ));
}

/// The registry as the namespace sees it.
fn registry(node: &Node) -> String {
    let path = node.tree.path("etc/pve/public-ip").display().to_string();
    node.net.sh(&format!("cd {path}; find . | sort; cat pools.json pools/*.json guests/*.json"))
}

#[test]
fn a_full_disk_leaves_the_registry_as_it_was() {
    let node = Node::with_pool();
    node.run("assign 101 203.0.113.11 --no-hookscript").ok();
    mount(&node, "etc/pve/public-ip", "size=64k");
    let path = node.tree.path("etc/pve/public-ip").display().to_string();
    node.net.sh(&format!("dd if=/dev/zero of={path}/filler bs=4k 2>/dev/null || true"));
    let before = registry(&node);
    let hint = "make room: `df -h /etc/pve /var/lib/pve-cluster`";
    let full = "No space left on device (os error 28)";
    node.run("assign 100 203.0.113.10").fails(
        5,
        &format!("cannot assign to guest 100: cannot save the registry at `{path}/guests/100.json`: {full}"),
        hint,
    );
    mount(&node, "etc/pve/priv/public-ip", "size=16k");
    let keys = node.tree.path("etc/pve/priv/public-ip").display().to_string();
    node.net.sh(&format!("dd if=/dev/zero of={keys}/filler bs=4k 2>/dev/null || true"));
    let sentence = format!("cannot save the registry at `{keys}/keys.json`: {full}");
    node.run("key add panel --role viewer").fails(5, &sentence, hint);
    node.run("pool add ovh-rbx 203.0.113.20").fails(
        5,
        &format!(
            "cannot add 203.0.113.20 to pool `ovh-rbx`: cannot save the registry at `{path}/pools/ovh-rbx.json`: {full}"
        ),
        hint,
    );
    assert_eq!(registry(&node), before);
    assert!(!node.tree.path("etc/pve/priv/lock/domain-pve-public-ip").exists());
    // Looking, starting and stopping need no room there.
    node.is_in_line();
    node.run("hook 101 pre-start").ok();
    node.run("hook 101 post-stop").ok();
    // Releasing the last address removes a file, which makes room.
    node.run("release 101 --no-hookscript").ok();
    node.net.sh(&format!("rm {path}/filler"));
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.is_in_line();
}

#[test]
fn a_read_only_registry_is_said_to_be_one() {
    let node = Node::with_pool();
    node.run("assign 101 203.0.113.11 --no-hookscript").ok();
    mount(&node, "etc/pve", "size=1m");
    let path = node.tree.path("etc/pve").display().to_string();
    node.net.sh(&format!("mount -o remount,ro {path}"));
    let before = registry(&node);
    let lock = format!("{path}/priv/lock/domain-pve-public-ip");
    let sentence = format!("cannot lock the registry at `{lock}`: Read-only file system (os error 30)");
    let hint = "the file system is read-only: `findmnt /etc/pve`";
    for (command, trying) in [
        ("assign 100 203.0.113.10", "cannot assign to guest 100"),
        ("release 101", "cannot release from guest 101"),
        ("pool create x --profile generic-bridged --bridge vmbr0", "cannot create pool `x`"),
        ("pool remove ovh-rbx 203.0.113.12", "cannot remove from pool `ovh-rbx`"),
    ] {
        node.run(command).fails(5, &format!("{trying}: {sentence}"), hint);
    }
    assert_eq!(registry(&node), before);
    // Without quorum guests that may start still do, and their protection with them.
    node.run("hook 101 pre-start").ok();
    node.is_in_line();
    node.run("hook 101 post-stop").ok();
    node.is_in_line();
    node.run("assign 100 203.0.113.10 --dry-run").ok();
}

#[test]
fn a_full_run_directory_stops_the_start_with_the_reason() {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    mount(&node, "run", "size=64k");
    let path = node.tree.path("run").display().to_string();
    node.net.sh(&format!("dd if=/dev/zero of={path}/filler bs=4k 2>/dev/null || true"));
    let run = node.run("hook 100 pre-start");
    run.fails(
        1,
        &format!("cannot use `{path}/pve-public-ip/guests/100`: No space left on device (os error 28)"),
        "run it as root; `df -h /run` tells whether there is room",
    );
    assert_eq!(node.net.set("bound_ip4"), Vec::<String>::new(), "bound without a note of it");
    node.net.sh(&format!("rm {path}/filler"));
    node.run("hook 100 pre-start").ok();
    node.is_in_line();
}

#[test]
fn a_user_without_rights_is_told_so() {
    let node = Node::with_pool();
    let root = node.tree.root().display().to_string();
    // Everybody may look at the tree itself, so that the refusal is the run directory's.
    node.net.sh(&format!("chmod -R go+rX {root}/etc; chmod 755 {root}"));
    let binary = crate::common::BINARY;
    // The program may lie where only root can go.
    node.net.sh(&format!("install -m 755 {binary} {root}/program"));
    let output = node.net.command("setpriv");
    let mut output = output;
    let output = output
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(node.tree.path("program"))
        .arg("--root")
        .arg(node.tree.root())
        .args(["assign", "100", "203.0.113.10"])
        .output()
        .unwrap();
    let run = crate::common::Run::of("assign as nobody".to_owned(), &output);
    run.fails_with(5, &["error: cannot assign to guest 100: cannot lock the registry at `", "\nhint: "]);
}
