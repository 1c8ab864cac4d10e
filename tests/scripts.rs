//! What a contributor runs before there is a program: Makefile, `scripts/setup`, the demo. They say early what they need.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::os::unix::fs::symlink;
use std::process::Command;

use common::{Namespace, Run, SYSTEM_PATH};
use tempfile::TempDir;

const SOURCES: &str = env!("CARGO_MANIFEST_DIR");

/// A machine that has nothing but these programs.
fn bare(programs: &[&str]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for program in programs {
        let found =
            SYSTEM_PATH.split(':').map(|place| std::path::Path::new(place).join(program)).find(|path| path.exists());
        symlink(found.unwrap_or_else(|| panic!("this test needs `{program}`")), directory.path().join(program))
            .unwrap();
    }
    directory
}

#[test]
fn make_deb_names_its_files_when_dpkg_is_there() {
    // `make -n` expands the recipe as a run does: before the first line of it has installed anything.
    let machine = bare(&["make", "bash", "sh"]);
    let output = Command::new(machine.path().join("make"))
        .args(["-n", "-C", SOURCES, "deb"])
        .env("PATH", machine.path())
        .output()
        .unwrap();
    let run = Run::of("make -n deb".to_owned(), &output).ok();
    for kind in ["buildinfo", "changes"] {
        let name = "pve-public-ip_$(dpkg-parsechangelog -S Version)_$(dpkg --print-architecture)";
        assert!(run.out.contains(&format!("--{kind}-file=\"build/{name}.{kind}\"")), "{run}");
    }
    assert!(!run.out.contains("pve-public-ip__"), "{run}");
}

/// The same Debian as a plain chroot, and the sources in it. Mounts end with the namespace.
fn in_chroot(command: &str, bind: bool) -> Run {
    let net = Namespace::new();
    let root = TempDir::new().unwrap();
    let at = root.path().display();
    let own = if bind { format!("mount --bind {at} {at}") } else { "true".to_owned() };
    net.sh(&format!(
        "{own}; cd {at}; mkdir usr proc tmp sources dev; ln -s usr/bin usr/sbin usr/lib usr/lib64 .; \
         mount --rbind /usr usr; mount -t proc proc proc; mount --rbind {SOURCES} sources; touch program; chmod 755 program"
    ));
    let output = net.command("chroot").arg(root.path()).args(["/bin/sh", "-c", command]).output().unwrap();
    let run = Run::of(command.to_owned(), &output);
    net.sh(&format!("umount -R {at}/sources {at}/proc {at}/usr"));
    run
}

#[test]
fn a_plain_chroot_is_refused_before_anything_is_downloaded() {
    for group in ["test", "demo", "package", "bench", "fuzz"] {
        let run = in_chroot(&format!("/sources/scripts/setup build {group}"), false);
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{run}");
        assert!(run.err.starts_with("error: / must be a mount point, and the root of its mount namespace"), "{run}");
        assert!(run.err.contains("\nhint: outside of the chroot `systemd-nspawn "), "{run}");
    }
    // With a mount of its own the namespaces can be made, but who enters one leaves the chroot.
    let run = in_chroot("/sources/scripts/setup build test", true);
    assert!(run.err.starts_with("error: / must be a mount point, and the root of its mount namespace"), "{run}");
    let run = in_chroot("PVE_PUBLIC_IP=/program /sources/demo/run", false);
    assert_eq!(run.code, 1, "{run}");
    assert!(run.err.starts_with("demo: / must be a mount point"), "{run}");
    // What makes no namespaces does not mind.
    let run = in_chroot("/sources/scripts/setup --builddeps-flag", false);
    assert_eq!(run.code, 0, "{run}");
}

#[test]
fn a_proxmox_ve_node_is_no_place_for_the_tests() {
    let machine = TempDir::new().unwrap();
    let stand_in = machine.path().join("pveversion");
    std::fs::write(&stand_in, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&stand_in, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = Command::new(format!("{SOURCES}/scripts/setup"))
        .args(["build", "test"])
        .env("PATH", format!("{}:{SYSTEM_PATH}", machine.path().display()))
        .output()
        .unwrap();
    let run = Run::of("scripts/setup build test".to_owned(), &output);
    assert_eq!((run.code, run.out.as_str()), (1, ""), "{run}");
    assert!(run.err.starts_with("error: the tests are not for a Proxmox VE node"), "{run}");
    assert!(run.err.contains("hint: `pve-public-ip selftest` "), "{run}");
}
