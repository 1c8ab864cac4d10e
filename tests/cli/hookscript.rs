//! Registration of the hookscript, with stand-ins for `qm` and `pct`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::Node;

const HOOKSCRIPT: &str = "--hookscript local:snippets/pve-public-ip";
const OURS: &str = "hookscript: local:snippets/pve-public-ip\n";

fn config(node: &Node, vmid: u32) -> String {
    node.tree.read(&format!("etc/pve/nodes/n1/qemu-server/{vmid}.conf"))
}

/// A hookscript of the guest's own that writes down how it was called.
fn own_script(node: &Node, status: i32) {
    let calls = node.tree.path("calls");
    let text =
        format!("echo \"own $*\" >> {}\necho says something\necho complains >&2\nexit {status}\n", calls.display());
    node.tree.script("var/lib/vz/snippets/own.sh", &text);
}

#[test]
fn the_command_is_printed_before_it_is_made() {
    let node = Node::with_pool();
    // The stand-in looks at what was printed when it is called.
    let seen = node.tree.path("seen");
    node.stand_in_proxmox();
    let mut command = node.command(&["assign", "100", "203.0.113.10"]);
    let log = node.tree.path("stderr");
    let stand_in = node
        .tree
        .read("stand-ins/qm")
        .replace("#!/bin/sh\n", &format!("#!/bin/sh\ncp {} {}\n", log.display(), seen.display()));
    node.tree.write("stand-ins/qm", stand_in);
    let output = command.stderr(fs::File::create(&log).unwrap()).output().unwrap();
    assert!(output.status.success());
    assert_eq!(node.tree.read("seen"), "pve-public-ip: running qm set 100 --hookscript local:snippets/pve-public-ip\n");
    assert_eq!(node.calls(), ["qm set 100 --hookscript local:snippets/pve-public-ip"]);
}

#[test]
fn it_is_registered_once_and_taken_back_with_the_last_address() {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    let before = config(&node, 100);
    node.run("assign 100 203.0.113.10").ok();
    assert!(config(&node, 100).starts_with(OURS));
    node.run("assign 100 203.0.113.11").prints(
        "203.0.113.11 assigned to guest 100 net0 (02:00:00:aa:bb:00), pool ovh-rbx, gateway 203.0.113.1\n\
         network: the guest has no cloud-init drive: `pve-public-ip show 100` says what to configure inside\n",
    );
    assert_eq!(node.calls().len(), 1, "it was registered already");
    node.run("release 100 203.0.113.11").prints("203.0.113.11 released from guest 100\n");
    assert_eq!(node.calls().len(), 1, "the guest still has an address");
    node.run("release 100")
        .after_running("qm set 100 --delete hookscript")
        .prints("203.0.113.10 released from guest 100\nhookscript: qm set 100 --delete hookscript\n");
    assert_eq!(config(&node, 100), before);
    node.run("assign 200 203.0.113.10").ok();
    assert!(node.calls().contains(&"pct set 200 --hookscript local:snippets/pve-public-ip".to_owned()));
}

#[test]
fn the_administrator_can_do_it_by_hand() {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    node.run("assign 100 203.0.113.10 --no-hookscript").prints(
        "203.0.113.10 assigned to guest 100 net0 (02:00:00:aa:bb:00), pool ovh-rbx, gateway 203.0.113.1\n\
         network: the guest has no cloud-init drive: `pve-public-ip show 100` says what to configure inside\n",
    );
    assert_eq!(node.calls(), Vec::<String>::new());
    node.tree.qemu(100, format!("{OURS}{}", config(&node, 100)));
    node.run("release 100 --no-hookscript").prints("203.0.113.10 released from guest 100\n");
    assert_eq!(node.calls(), Vec::<String>::new());
    // Its own release left the hookscript there: the guest starts all the same, and a later release takes it away.
    node.run("hook 100 pre-start").prints("");
    node.run("release 100")
        .after_running("qm set 100 --delete hookscript")
        .prints("guest 100 has no public address any more\nhookscript: qm set 100 --delete hookscript\n");
    assert!(!node.tree.path("etc/pve/public-ip/guests/100.json").exists());
}

#[test]
fn without_qm_it_says_so_and_goes_on() {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10").prints(
        "203.0.113.10 assigned to guest 100 net0 (02:00:00:aa:bb:00), pool ovh-rbx, gateway 203.0.113.1\n\
         hookscript: `qm` is not called for a node under --root; do it by hand: qm set 100 --hookscript local:snippets/pve-public-ip\n\
         network: the guest has no cloud-init drive: `pve-public-ip show 100` says what to configure inside\n",
    );
    node.run("hook 100 pre-start").ok();
    assert_eq!(node.net.set("bound_ip4"), ["203.0.113.10"]);
}

#[test]
fn a_failing_qm_leaves_the_assignment_and_says_what_to_do() {
    let node = Node::with_pool();
    let qm = node.tree.script(
        "stand-ins/qm",
        "echo \"can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout\" >&2\nexit 255\n",
    );
    let run = node.run("assign 100 203.0.113.10");
    run.after_running(&format!("qm set 100 {HOOKSCRIPT}")).fails(
        1,
        &format!(
            "203.0.113.10 assigned to guest 100 net0 (02:00:00:aa:bb:00), pool ovh-rbx, gateway 203.0.113.1, but \
             `{} set 100 --hookscript local:snippets/pve-public-ip` failed (exit status: 255): \
             can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout",
            qm.display()
        ),
        "try it by hand: `qm set 100 --hookscript local:snippets/pve-public-ip`",
    );
    assert!(node.run("list").ok().out.contains("203.0.113.10"));
    node.is_in_line();
    // The same command again does what is left.
    node.stand_in_proxmox();
    let run = node.run("assign 100 203.0.113.10");
    run.after_running(&format!("qm set 100 {HOOKSCRIPT}")).prints(
        "203.0.113.10 is already assigned to guest 100 net0 (02:00:00:aa:bb:00), pool ovh-rbx, gateway 203.0.113.1\n\
         hookscript: qm set 100 --hookscript local:snippets/pve-public-ip\n\
         network: the guest has no cloud-init drive: `pve-public-ip show 100` says what to configure inside\n",
    );

    let qm = node.tree.script("stand-ins/qm", "exit 2\n");
    node.run("release 100").after_running("qm set 100 --delete hookscript").fails(
        1,
        &format!(
            "203.0.113.10 released from guest 100, but `{} set 100 --delete hookscript` failed (exit status: 2)",
            qm.display()
        ),
        "try it by hand: `qm set 100 --delete hookscript`",
    );
    // A guest that still has our hookscript and no address is not taken for a clone.
    node.run("hook 100 pre-start").prints("");
    node.stand_in_proxmox();
    node.run("release 100")
        .after_running("qm set 100 --delete hookscript")
        .prints("guest 100 has no public address any more\nhookscript: qm set 100 --delete hookscript\n");
    assert!(!config(&node, 100).contains("hookscript"));
}

#[test]
fn a_guest_on_another_node_is_changed_through_proxmox_ve() {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    node.tree.write("etc/pve/nodes/n2/qemu-server/300.conf", "net0: virtio=02:00:00:AA:BB:30,bridge=vmbr0\n");
    let set = "pvesh set /nodes/n2/qemu/300/config --hookscript local:snippets/pve-public-ip";
    node.run("assign 300 203.0.113.10").after_running(set).prints(
        "203.0.113.10 assigned to guest 300 net0 (02:00:00:aa:bb:30), pool ovh-rbx, gateway 203.0.113.1\n\
         hookscript: pvesh set /nodes/n2/qemu/300/config --hookscript local:snippets/pve-public-ip\n\
         network: the guest has no cloud-init drive: `pve-public-ip show 300` says what to configure inside\n",
    );
    assert_eq!(node.calls(), [set]);
    assert!(
        node.tree.read("etc/pve/nodes/n2/qemu-server/300.conf").contains("hookscript: local:snippets/pve-public-ip")
    );
    // A container has all that it is told in its configuration, wherever that is.
    node.tree
        .write("etc/pve/nodes/n2/lxc/301.conf", "net0: name=eth0,bridge=vmbr0,hwaddr=02:00:00:AA:BB:31,type=veth\n");
    node.run("assign 301 203.0.113.11").ok();
    assert!(node.tree.read("etc/pve/nodes/n2/lxc/301.conf").contains("ip=203.0.113.11/"), "{:?}", node.calls());
    // Without Proxmox VE's command it is said what to run.
    fs::remove_file(node.tree.path("stand-ins/pvesh")).unwrap();
    let run = node.run("release 301 203.0.113.11").fails_with(0, &[]);
    assert!(run.out.contains("do it by hand: pvesh set /nodes/n2/lxc/301/config"), "{run}");
    let row = &node.run("list --output-format json").json()["assignments"][0];
    assert_eq!((row["node"].as_str(), row["state"].as_str()), (Some("n2"), Some("elsewhere")));
    // Not bound here, but nobody else's here either.
    assert_eq!(node.net.set("bound_ip4"), Vec::<String>::new());
    assert!(node.net.set("reserved_mac").contains(&"02:00:00:aa:bb:30".to_owned()));
    node.is_in_line();
}

#[test]
fn the_guests_own_script_is_kept_and_called_in_order() {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    own_script(&node, 0);
    node.tree.qemu(100, "hookscript: local:snippets/own.sh\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
    node.run("assign 100 203.0.113.10").ok();
    assert!(config(&node, 100).starts_with(OURS));
    let shown = node.run("show 100").ok();
    assert!(shown.out.contains("\nhookscript: registered; calls local:snippets/own.sh\n"), "{shown}");

    // Ours first when it starts: when the guest's own script runs, the guest is protected.
    let probe = |when: &str| {
        format!(
            "nft list set bridge pve-public-ip bound_ip4 | grep -q 203.0.113.10 && echo \"{when} bound\" >> {0} || echo \"{when} free\" >> {0}\n",
            node.tree.path("calls").display()
        )
    };
    node.tree
        .script("var/lib/vz/snippets/own.sh", &format!("{}echo says something\necho complains >&2\n", probe("$2")));
    let run = node.run("hook 100 pre-start").ok();
    assert_eq!(run.out, "says something\n");
    assert!(
        run.err.starts_with("pve-public-ip: guest 100 is protected: ") && run.err.ends_with("\ncomplains\n"),
        "{run}"
    );
    node.plug("tap100i0");
    for phase in ["post-start", "pre-stop"] {
        node.run(&format!("hook 100 {phase}")).ok();
    }
    node.unplug("tap100i0");
    let run = node.run("hook 100 post-stop").ok();
    assert!(run.err.starts_with("complains\npve-public-ip: guest 100 has stopped: "), "theirs comes first: {run}");
    assert_eq!(node.calls()[1..], ["pre-start bound", "post-start bound", "pre-stop bound", "post-stop bound"]);
    assert_eq!(node.net.set("bound_ip4"), Vec::<String>::new());

    node.run("release 100")
        .after_running("qm set 100 --hookscript local:snippets/own.sh")
        .prints("203.0.113.10 released from guest 100\nhookscript: qm set 100 --hookscript local:snippets/own.sh\n");
    assert!(config(&node, 100).starts_with("hookscript: local:snippets/own.sh\n"));
    assert!(!node.tree.path("etc/pve/public-ip/guests/100.json").exists());
}

#[test]
fn the_exit_status_of_the_guests_own_script_counts() {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    own_script(&node, 7);
    node.tree.qemu(100, "hookscript: local:snippets/own.sh\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
    node.run("assign 100 203.0.113.10").ok();
    let script = node.tree.path("var/lib/vz/snippets/own.sh").display().to_string();
    for phase in ["pre-start", "post-start", "pre-stop", "post-stop"] {
        let run = node.run(&format!("hook 100 {phase}"));
        let error = format!(
            "error: the guest's own hookscript `{script}` failed in {phase} (exit status: 7)\nhint: the messages above are the script's\n"
        );
        assert_eq!(run.code, 1, "{run}");
        assert!(run.err.ends_with(&error), "{run}");
        assert_eq!(node.calls().last().unwrap(), &format!("own 100 {phase}"));
    }
    // It failed, and ours did its part nevertheless.
    assert_eq!(node.net.set("bound_ip4"), Vec::<String>::new());
    node.is_in_line();
}

#[test]
fn the_guests_own_script_may_take_its_time() {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    node.tree.script("var/lib/vz/snippets/own.sh", "sleep 11\necho done\n");
    node.tree.qemu(100, "hookscript: local:snippets/own.sh\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
    node.run("assign 100 203.0.113.10").ok();
    // The limit of 10 s is for the program's own work.
    let run = node.run("hook 100 pre-start").ok();
    assert_eq!(run.out, "done\n", "{run}");
}

#[test]
fn a_missing_script_of_the_guest_stops_the_start_with_its_name() {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    let hint = "put the script back, or remove `hookscript` from the guest's registry file";
    let snippet = node.tree.path("var/lib/vz/snippets/own.sh");
    for (volume, reason) in [
        ("local:snippets/own.sh", format!("`{}` does not exist or is not executable", snippet.display())),
        ("nfs:snippets/own.sh", "there is no storage `nfs` with files in /etc/pve/storage.cfg".to_owned()),
        ("local:iso/own.sh", "it is not of the form STORAGE:snippets/FILE".to_owned()),
    ] {
        node.tree.qemu(100, format!("hookscript: {volume}\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n"));
        node.run("assign 100 203.0.113.10").ok();
        let run = node.run("hook 100 pre-start");
        let error = format!("error: cannot run the guest's own hookscript `{volume}`: {reason}\nhint: {hint}\n");
        assert!(run.code == 1 && run.err.ends_with(&error), "{run}");
        node.run("hook 100 post-stop").fails_with(1, &[&error]);
        node.run("release 100").ok();
    }
    own_script(&node, 0);
    fs::set_permissions(&snippet, fs::Permissions::from_mode(0o644)).unwrap();
    node.tree.qemu(100, "hookscript: local:snippets/own.sh\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
    node.run("assign 100 203.0.113.10").ok();
    node.run("hook 100 pre-start").fails_with(1, &["does not exist or is not executable"]);
}

#[test]
fn storages_of_other_kinds_are_found() {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    node.tree.write(
        "etc/pve/storage.cfg",
        "dir: local\n\tpath /var/lib/vz\n\tcontent snippets\n\ndir: hooks\n\tpath /srv/hooks\n",
    );
    let calls = node.tree.path("calls");
    node.tree.script("srv/hooks/snippets/own.sh", &format!("echo own $2 >> {}\n", calls.display()));
    node.tree.qemu(100, "hookscript: hooks:snippets/own.sh\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
    node.run("assign 100 203.0.113.10").ok();
    node.run("hook 100 pre-start").ok();
    assert_eq!(node.calls().last().unwrap(), "own pre-start");
}

#[test]
fn our_script_on_another_storage_is_ours() {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    node.tree.qemu(100, "hookscript: cephfs:snippets/pve-public-ip\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
    node.run("assign 100 203.0.113.10").ok();
    assert_eq!(node.calls(), Vec::<String>::new());
    node.run("hook 100 pre-start").ok();
}

#[test]
fn the_script_in_the_snippets_directory_only_calls_the_program() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/hookscripts/pve-public-ip")).unwrap();
    let code: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(code, ["exec /usr/sbin/pve-public-ip hook \"$@\""]);
    assert!(text.starts_with("#!/bin/sh\n"));
}
