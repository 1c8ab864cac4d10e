//! Files of the registry that people, backups, full disks and other releases have spoilt.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::common::{Node, Tree};

const RESTORE: &str = "`pve-public-ip registry restore guests/101.json` puts the last known good copy back";
const CORRECT: &str = "correct the value; `pve-public-ip schema` prints what is allowed";
const UPGRADE: &str = "upgrade this node: `apt update && apt install pve-public-ip`";

/// A hint of the file's own, and that there is a copy.
fn or_restore(hint: &str) -> String {
    if hint == RESTORE || hint == UPGRADE { hint.to_owned() } else { format!("{hint}; {RESTORE}") }
}

/// Guests 100 and 101 hold an address each; 100 runs.
pub(crate) fn two_guests() -> Node {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.run("assign 101 203.0.113.11 --no-hookscript").ok();
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    node.run("hook 100 post-start").ok();
    node
}

/// A spoilt guest file: nothing starts or changes with it, and everything says why.
#[track_caller]
fn stops_its_guest(node: &Node, vmid: u32, reason: &str, hint: &str) {
    let path = node.tree.path(&Tree::guest_file(vmid)).display().to_string();
    let sentence = format!("`{path}` {reason}");
    node.changes_nothing(&format!("hook {vmid} pre-start")).fails(1, &sentence, hint);
    // No change of the registry is safe as long as one file of it is unknown.
    for (command, trying) in [
        ("assign 200 203.0.113.12", "cannot assign to guest 200"),
        ("pool add ovh-rbx 203.0.113.99", "cannot add 203.0.113.99 to pool `ovh-rbx`"),
        ("assign 200 203.0.113.12 --dry-run", "cannot assign to guest 200"),
    ] {
        node.changes_nothing(command).fails(4, &format!("{trying}: {sentence}"), hint);
    }
    // What can be read is shown.
    let run = node.run("list");
    let shown = "shown is its last known good copy";
    assert_eq!((run.code, run.err), (4, format!("warning: {sentence}; {shown}\nwarning: hint: {hint}\n")));
    let run = node.run("verify");
    let counts = "; as long as it is so, its last known good copy counts";
    assert!(run.out.contains(&format!("problem: {sentence}{counts}\n  hint: {hint}\n")), "{run}");
    assert_eq!(run.code, 4, "{run}");
}

#[test]
fn a_guest_file_that_is_not_understood_stops_its_guest_and_says_why() {
    let node = two_guests();
    let path = Tree::guest_file(101);
    let good = node.tree.read(&path);
    let replaced = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} is not in {good}");
        good.replace(from, to)
    };
    let keys = "`pve-public-ip schema` prints all keys";
    for (content, reason, hint) in [
        (String::new(), "is empty".to_owned(), RESTORE.to_owned()),
        (" \n\t\n".to_owned(), "is empty".to_owned(), RESTORE.to_owned()),
        (good[..good.len() / 2].to_owned(), "is not valid JSON: ".to_owned(), RESTORE.to_owned()),
        ("\0\u{1}\u{7f}junk".to_owned(), "is not valid JSON: expected value at line 1 column 1".to_owned(), RESTORE.to_owned()),
        ("{\"name\": \"left-pad\", \"license\": \"MIT\"}".to_owned(), "is not a file of this program: it has no key `version`".to_owned(), RESTORE.to_owned()),
        (
            replaced("\"version\": 1", "\"version\": 2"),
            "has version 2, but pve-public-ip 0.2.0 reads version 1: it was written by a newer release".to_owned(),
            "upgrade this node: `apt update && apt install pve-public-ip`".to_owned(),
        ),
        (replaced("\"version\": 1", "\"version\": 0"), "is not valid: version: `0` is not 1".to_owned(), RESTORE.to_owned()),
        (
            replaced("\"interfaces\"", "\"interfacs\""),
            "has an unknown key `interfacs`".to_owned(),
            format!("did you mean `interfaces`? {keys}"),
        ),
        (
            replaced("\"pool\"", "\"colour\": \"red\", \"pool\""),
            "has an unknown key `interfaces.net0.addresses.0.colour`".to_owned(),
            format!("if a newer release wrote it, {UPGRADE}; `pve-public-ip schema` prints the keys of this one"),
        ),
        (
            replaced("02:00:00:aa:bb:01", "01:00:00:aa:bb:01"),
            "is not valid: interfaces.net0.mac: MAC address `01:00:00:aa:bb:01` has the group bit set (it is multicast)".to_owned(),
            CORRECT.to_owned(),
        ),
        (replaced("203.0.113.11\"", "203.0.113.11/24\""), "is not valid: interfaces.net0.addresses[0].address: `203.0.113.11/24` has host bits set".to_owned(), CORRECT.to_owned()),
        (replaced("203.0.113.11\"", "224.0.0.1/32\""), "is not valid: interfaces.net0.addresses[0].address: `224.0.0.1/32` is or contains multicast".to_owned(), CORRECT.to_owned()),
        (
            replaced("\"interfaces\": {", "\"interfaces\": {\"net0\": {\"mac\": \"02:00:00:aa:bb:77\", \"addresses\": []}, "),
            "is not valid: interfaces: the key `net0` is there twice".to_owned(),
            CORRECT.to_owned(),
        ),
        (replaced("\"vmid\": 101", "\"vmid\": 102"), "says vmid 102, but its name says 101".to_owned(), "rename the file or correct `vmid`".to_owned()),
        (replaced("\"net0\"", "\"net99\""), "is not valid: interfaces".to_owned(), CORRECT.to_owned()),
        (replaced("203.0.113.1\"", "fe80::1\""), "interfaces.net0: 203.0.113.11: the gateway is of the other family".to_owned(), "correct the file by hand, then run `pve-public-ip verify`".to_owned()),
    ] {
        node.tree.write(&path, &content);
        // The end of a parser's message is the parser's.
        let run = node.run("hook 101 pre-start");
        let full = node.tree.path(&path).display().to_string();
        assert_eq!(run.code, 1, "{content}: {run}");
        let first = run.err.lines().next().unwrap();
        let sentence = first.strip_prefix(&format!("error: `{full}` ")).unwrap_or_else(|| panic!("{run}"));
        assert!(sentence.starts_with(&reason), "instead of {reason}: {run}");
        stops_its_guest(&node, 101, sentence, &or_restore(&hint));
        assert_eq!(node.net.set("bound_ip4"), ["203.0.113.10"]);
    }
    node.tree.write(&path, good);
    node.run("hook 101 pre-start").ok();
    node.is_in_line();
}

#[test]
fn a_guest_file_that_cannot_be_read_stops_its_guest() {
    let node = two_guests();
    let path = node.tree.path(&Tree::guest_file(101));
    let good = fs::read(&path).unwrap();

    // 2 MiB of blanks before the document: too large for pmxcfs, so it was not written there by us.
    let large = [vec![b' '; 2 << 20], good.clone()].concat();
    let size = large.len();
    fs::write(&path, large).unwrap();
    stops_its_guest(&node, 101, &format!("has {size} bytes; the cluster file system allows 1048576"), RESTORE);

    let unreadable = |node: &Node, reason: &str| {
        let run = node.run("hook 101 pre-start");
        let error = format!("error: `{}` cannot be read: {reason}\nhint: ", path.display());
        assert!(run.code == 1 && run.err.starts_with(&error), "{run}");
        node.changes_nothing("assign 200 203.0.113.12").fails(
            4,
            &format!("cannot assign to guest 200: `{}` cannot be read: {reason}", path.display()),
            &or_restore("check its type and permissions"),
        );
        let list = node.run("list --output-format json");
        assert_eq!((list.code, list.json()["assignments"].as_array().unwrap().len()), (4, 2), "{list}");
        assert_eq!(node.run("apply").code, 4);
        assert_eq!(node.net.set("bound_ip4"), ["203.0.113.10"]);
    };
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    unreadable(&node, "not a regular file");
    fs::remove_dir(&path).unwrap();
    mkfifo(&path, Mode::S_IRUSR).unwrap();
    unreadable(&node, "not a regular file");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("101.json", &path).unwrap();
    unreadable(&node, "Too many levels of symbolic links (os error 40)");
}

#[test]
fn one_spoilt_file_does_not_stop_the_others_and_keeps_its_protection() {
    let node = two_guests();
    node.run("hook 101 pre-start").ok();
    node.plug("tap101i0");
    node.run("hook 101 post-start").ok();
    let good = node.net.filter();
    for content in ["", "{", "{\"version\": 9}"] {
        node.tree.write(&Tree::guest_file(101), content);
        node.net.sh("nft flush ruleset");
        assert_eq!(node.run("apply").code, 4);
        assert!(node.net.filter() == good, "101 runs and is protected as before, with {content:?}");
        node.run("hook 100 post-stop").ok();
        node.run("hook 100 pre-start").ok();
        node.run("hook 100 post-start").ok();
        assert!(node.net.filter() == good, "with {content:?}");
        let run = node.run("verify");
        assert!(run.code == 4 && !run.out.contains("drift"), "{run}");
    }
    // It stops: what was bound is taken out, what it had stays reserved.
    node.unplug("tap101i0");
    node.run("hook 101 post-stop").ok();
    assert_eq!(node.net.set("bound_ip4"), ["203.0.113.10"]);
    assert!(node.net.set("reserved_mac").contains(&"02:00:00:aa:bb:01".to_owned()));
}

#[test]
fn a_spoilt_pools_file_opens_nothing() {
    let node = two_guests();
    let good = node.net.filter();
    let pools = node.tree.path("etc/pve/public-ip/pools/ovh-rbx.json");
    let restore = "`pve-public-ip registry restore pools/ovh-rbx.json` puts the last known good copy back";
    for (content, reason, hint) in [
        ("", "is empty", restore.to_owned()),
        (
            "{\"version\": 7}",
            "has version 7, but pve-public-ip 0.2.0 reads version 2: it was written by a newer release",
            UPGRADE.to_owned(),
        ),
        (
            "{\"version\": 2, \"name\": \"ovh-rbx\", \"profile\": \"generic-bridged\", \"bride\": \"vmbr0\"}",
            "has an unknown key `bride`",
            format!("did you mean `bridge`? `pve-public-ip schema` prints all keys; {restore}"),
        ),
    ] {
        fs::write(&pools, content).unwrap();
        let sentence = format!("`{}` {reason}", pools.display());
        node.changes_nothing("assign 200 203.0.113.12").fails(
            4,
            &format!("cannot assign to guest 200: {sentence}"),
            &hint,
        );
        for damage in
            ["true", "nft flush set bridge pve-public-ip bound_ip4", "nft flush chain bridge pve-public-ip prerouting"]
        {
            node.net.sh(damage);
            let applied = node.run("apply").fails_with(4, &[]);
            assert!(node.net.filter() == good, "something opened after {damage}, with {content:?}: {applied}");
        }
        let verify = node.run("verify");
        let counts = "; as long as it is so, its last known good copy counts";
        let problem = format!("problem: {sentence}{counts}\n  hint: {hint}\n");
        assert!(verify.code == 4 && verify.out.starts_with(&problem), "{verify}");
    }
    // What was given can be taken back, and the stopped guest stays protected, even so.
    node.run("release 101 --no-hookscript").prints("203.0.113.11 released from guest 101\n");
    node.unplug("tap100i0");
    node.run("hook 100 post-stop").ok();
    assert_eq!(node.net.set("reserved_ip4"), ["203.0.113.1", "203.0.113.10-203.0.113.13", "203.0.113.250"]);
}

#[test]
fn overlapping_pools_and_unknown_profiles_by_hand_are_refused() {
    // Version 1, with the example's pool in it.
    let node = Node::new();
    node.begin_as_before();
    node.run(crate::common::CREATE).ok();
    let pools = node.tree.path("etc/pve/public-ip/pools.json");
    let good = fs::read_to_string(&pools).unwrap();
    for (from, to, reason) in [
        (
            "203.0.113.11",
            "203.0.113.10/31",
            "has overlapping addresses: 203.0.113.10/31 in pool `ovh-rbx` and 203.0.113.10 in pool `ovh-rbx`",
        ),
        (
            "\"pools\": {",
            "\"pools\": {\"ovh-rbx\": {\"profile\": \"generic-bridged\", \"bridge\": \"vmbr0\"}, ",
            "is not valid: pools: the key `ovh-rbx` is there twice",
        ),
        ("generic-bridged", "generic", "is not valid: pools.ovh-rbx.profile: unknown variant `generic`"),
        (
            "\"vmbr0\"",
            "\"abcdefghijklmnop\"",
            "is not valid: pools.ovh-rbx.bridge: interface name `abcdefghijklmnop` is longer than 15 characters",
        ),
        ("\"203.0.113.1\"", "\"203.0.113.1/24\"", "is not valid: pools.ovh-rbx.gateway4: "),
    ] {
        assert!(good.contains(from), "{from} is not in {good}");
        fs::write(&pools, good.replacen(from, to, 1)).unwrap();
        node.changes_nothing("assign 100").fails_with(
            4,
            &[&format!("error: cannot assign to guest 100: `{}` {reason}", pools.display()), "\nhint: "],
        );
    }
}

#[test]
fn a_nodes_file_is_checked_too() {
    let node = two_guests();
    node.tree.write("etc/pve/public-ip/nodes/n1.json", "{\"version\": 1, \"uplink\": [\"eno1\"]}");
    let path = node.tree.path("etc/pve/public-ip/nodes/n1.json").display().to_string();
    node.changes_nothing("assign 200 203.0.113.12").fails(
        4,
        &format!("cannot assign to guest 200: `{path}` has an unknown key `uplink`"),
        "did you mean `uplinks`? `pve-public-ip schema` prints all keys",
    );
    node.tree.write("etc/pve/public-ip/nodes/n1.json", "{\"version\": 1, \"uplinks\": [\"eno1\"]}");
    node.run("apply").ok();
    assert_eq!(node.net.set("uplinks"), ["\"eno1\""]);
    // Spoilt again, it does not make an uplink of what the administrator left out.
    node.tree.write("etc/pve/public-ip/nodes/n1.json", "junk");
    node.net.sh("ip link add eno2 type veth peer name provider && ip link set eno2 master vmbr0");
    assert_eq!(node.run("apply").code, 4);
    assert_eq!(node.net.set("uplinks"), ["\"eno1\""]);
    node.tree.write("etc/pve/public-ip/nodes/n1.json", "{\"version\": 1, \"uplinks\": [\"eno1\"]}");
    // Somebody else's node file is somebody else's business.
    node.tree.write("etc/pve/public-ip/nodes/n2.json", "junk");
    node.is_in_line();
}

#[test]
fn files_that_are_not_ours_are_left_alone() {
    let node = two_guests();
    for name in
        [".101.json.tmp.n1.4711", ".fuse_hidden0000001", "101.json.bak", "README", "0101.json", "99.json", "101.JSON"]
    {
        node.tree.write(&format!("etc/pve/public-ip/guests/{name}"), "junk");
    }
    node.is_in_line();
    node.run("assign 200 203.0.113.12 --no-hookscript").ok();
    assert_eq!(node.tree.read("etc/pve/public-ip/guests/README"), "junk");
}

#[test]
fn a_planted_link_is_not_written_through() {
    let node = Node::with_pool();
    node.tree.write("secret", "untouched");
    let run_directory = node.tree.path("run/pve-public-ip");
    assert_eq!(fs::metadata(&run_directory).unwrap().permissions().mode() & 0o777, 0o700);
    for name in ["node", "rules"] {
        let path = run_directory.join(name);
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink(node.tree.path("secret"), path).unwrap();
    }
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.run("hook 100 pre-start").ok();
    assert_eq!(node.tree.read("secret"), "untouched");
}

#[test]
fn spoilt_notes_under_run_are_no_authority() {
    let node = two_guests();
    let good = node.net.filter();
    for name in ["node", "rules", "guests/100", "guests/101", "checked/100", "registry-lock-held"] {
        node.tree.write(&format!("run/pve-public-ip/{name}"), "\0junk {");
    }
    node.run("apply").ok();
    assert!(node.net.filter() == good);
    node.is_in_line();
    fs::remove_dir_all(node.tree.path("run")).unwrap();
    node.run("verify").ok();
    node.run("hook 100 post-start").ok();
    assert!(node.net.filter() == good);
    node.is_in_line();
}

/// A release takes a file away. Without its directory nothing was released, whatever happened to it.
#[test]
fn files_that_are_gone_with_their_directory_are_not_released() {
    for directory in ["guests", "pools"] {
        let node = two_guests();
        node.run("hook 101 pre-start").ok();
        node.is_in_line();
        let good = node.net.filter();
        let list = node.run("list").ok().out.clone();
        let path = node.tree.path(&format!("etc/pve/public-ip/{directory}"));
        fs::remove_dir_all(&path).unwrap();

        let copies = node.tree.path(&format!("var/lib/pve-public-ip/last-good/{directory}"));
        let restore = format!("cp -r {} {}", copies.display(), path.parent().unwrap().display());
        let (sentence, hint) = (
            format!("`{}` does not exist any more", path.display()),
            format!(
                "`{restore}` puts the last known good copies back; if all of it is meant to be gone: `mkdir {}`",
                path.display()
            ),
        );
        let verify = node.run("verify");
        let counts = "; as long as it is so, its last known good copy counts";
        assert_eq!(verify.out, format!("problem: {sentence}{counts}\n  hint: {hint}\n"), "{verify}");
        assert_eq!(verify.code, 4);
        assert_eq!(node.run("registry check").code, 4);
        node.net.sh("nft flush set bridge pve-public-ip bound_ip4");
        assert_eq!(node.run("apply").code, 4);
        assert_eq!(node.net.filter(), good);
        let listed = node.run("list");
        assert_eq!((listed.code, &listed.out), (4, &list), "{listed}");
        node.changes_nothing("assign 200 203.0.113.11 --no-hookscript").fails(
            4,
            &format!("cannot assign to guest 200: {sentence}"),
            &hint,
        );
        if directory == "guests" {
            node.run("hook 101 pre-start").fails(1, &sentence, &hint);
        }
        node.net.sh(&restore);
        node.is_in_line();
        assert_eq!(node.run("list").ok().out, list);
    }
}

#[test]
fn a_registry_without_guests_that_never_had_any_is_whole() {
    let node = Node::with_pool();
    node.is_in_line();
    let guests = node.tree.path("etc/pve/public-ip/guests");
    let _ = fs::remove_dir_all(&guests);
    node.is_in_line();
    // What was released is gone, and its directory stays.
    node.run("assign 101 203.0.113.11 --no-hookscript").ok();
    node.run("release 101 --no-hookscript").ok();
    assert!(guests.is_dir());
    node.is_in_line();
}
