//! What `show` tells an administrator to configure inside a guest, given to the tools that would read it there.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Namespace, need};
use tempfile::TempDir;

/// The cases under `tests/golden/inside` with this section, and its text.
fn section(key: &str) -> Vec<(String, String)> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/inside");
    let mut found = Vec::new();
    for file in fs::read_dir(golden).unwrap() {
        let path: PathBuf = file.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let sections = text.split("\n[").map(|section| section.trim_start_matches('['));
        let own = sections.filter_map(|section| section.strip_prefix(key)?.strip_prefix(']')?.split_once('\n'));
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        found.extend(own.map(|(_, text)| (name.clone(), text.to_owned())));
    }
    found.sort();
    assert!(found.len() >= 8, "only {} cases with {key}", found.len());
    found
}

#[test]
fn netplan_takes_it() {
    need(&["netplan"]);
    for (case, text) in section("netplan") {
        let root = TempDir::new().unwrap();
        let file = root.path().join("etc/netplan/90-public-ip.yaml");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let output = Command::new("netplan").args(["generate", "--root-dir"]).arg(root.path()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{case}: {errors}");
        let made = fs::read_to_string(root.path().join("run/systemd/network/10-netplan-net0.network")).unwrap();
        let lines = |line: &str| made.lines().filter(|known| *known == line).count();
        assert_eq!(lines("DHCP=no") + lines("LinkLocalAddressing=ipv6"), 1, "{case}: {made}");
        let gateways = made.lines().filter(|line| line.starts_with("Gateway=")).count();
        let outside = !case.contains("inside");
        assert!(gateways > 0 && outside == (lines("GatewayOnLink=true") == gateways), "{case}: {made}");
    }
}

/// The other end of the guest's link, with an address of each family behind it.
const ROUTER: &str = "ip link set lo up; ip link set r0 up
    ip route add 203.0.113.0/24 dev r0; ip route add 2001:db8:1:2::/64 dev r0
    ip address add 192.0.2.200/32 dev lo; ip address add 2001:db8:ffff::1/128 dev lo nodad";

/// The words that follow this one.
fn after<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.windows(2).filter(|pair| pair[0] == word).map(|pair| pair[1]).collect()
}

#[test]
fn ifupdown_brings_it_up_and_the_guest_reaches_what_is_behind_its_gateway() {
    need(&["ifup", "ip", "ping", "sysctl"]);
    let mut pinged = [0, 0];
    for (case, text) in section("interfaces") {
        let (guest, router) = (Namespace::new(), Namespace::new());
        guest.sh(&format!("ip link add eth0 address 02:00:00:aa:bb:cc type veth peer name r0 netns {}", router.path()));
        router.sh(ROUTER);
        for gateway in after(&text, "via").into_iter().chain(after(&text, "gateway")) {
            let length = if gateway.contains(':') { "/128 nodad" } else { "/32" };
            router.sh(&format!("ip address add dev r0 {gateway}{length}"));
        }
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("interfaces");
        fs::write(&file, &text).unwrap();
        let (file, state) = (file.display(), directory.path().display());
        // Without the scripts of the machine that the test runs on.
        guest.sh(&format!("ifup --no-scripts --interfaces={file} --state-dir={state} -a 2>&1"));
        for address in after(&text, "address") {
            let (address, is_v6) = (address.split('/').next().unwrap(), address.contains(':'));
            let behind = if is_v6 { "2001:db8:ffff::1" } else { "192.0.2.200" };
            guest.sh(&format!(": {case}; ping -q -c 1 -w 5 -I {address} {behind}"));
            pinged[usize::from(is_v6)] += 1;
        }
        // What goes up comes down again.
        guest.sh(&format!("ifdown --no-scripts --interfaces={file} --state-dir={state} -a 2>&1"));
        assert_eq!(guest.sh("ip -o address show dev eth0 scope global"), "", "{case}");
    }
    assert!(pinged[0] >= 8 && pinged[1] >= 3, "{pinged:?}");
}
