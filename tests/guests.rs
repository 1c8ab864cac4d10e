//! What becomes of the network documents in a guest: Debian 12's and Debian 13's cloud-init render each one for every back
//! end, and ifupdown, networkd and netplan apply them in a network namespace whose other end plays the provider's gateway.
//!
//! The guest's programs are those of a Debian in a directory of its own (`scripts/guest-root`), seen through an overlay that
//! goes with the test.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

#[path = "common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pve_public_ip::cloudinit::{self, Subnet, Wanted, WantedNic};
use pve_public_ip::guest::GuestConfig;
use pve_public_ip::model::{Family, GuestKind};
use pve_public_ip::registry::document::{GuestFile, GuestOs, PoolsFile, parse};
use tempfile::TempDir;

use crate::common::{Namespace, Run};

/// Debian 12 has the release whose netplan and networkd need to be told the most, Debian 13 one that knows the schema.
const SUITES: [&str; 2] = ["bookworm", "trixie"];

/// Addresses behind the gateway.
const BEYOND: [&str; 2] = ["100.64.0.1", "2001:db8:ffff::1"];

/// A document with what it is meant to do.
struct Case {
    name: String,
    text: String,
    wanted: Wanted,
    alpine: bool,
}

/// Every golden case that has a document.
fn cases() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cloud-init");
    let mut found = Vec::new();
    for case in fs::read_dir(directory).unwrap() {
        let case = case.unwrap().path();
        let Ok(text) = fs::read_to_string(case.join("network.yaml")) else { continue };
        let read = |name: &str| fs::read(case.join(name)).unwrap();
        let config = GuestConfig::parse(GuestKind::Qemu, &read("qemu.conf"));
        let guest: GuestFile = parse(&case.join("guest.json"), &read("guest.json")).unwrap();
        let pools: PoolsFile = parse(&case.join("pools.json"), &read("pools.json")).unwrap();
        let resolver = cloudinit::resolver(&String::from_utf8(read("resolv.conf")).unwrap());
        let wanted = cloudinit::wanted(&guest, &pools, &config, &resolver).unwrap();
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        found.push(Case { name, text, wanted, alpine: guest.cloud_init.os == GuestOs::Alpine });
    }
    assert!(found.len() >= 12, "only {} documents", found.len());
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap()
}

/// A Debian in a network namespace.
struct Guest {
    net: Namespace,
    directory: TempDir,
}

impl Guest {
    fn new(suite: &str) -> Self {
        let machine = Namespace::new().sh("dpkg --print-architecture");
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from);
        let lower = cache.join(format!("pve-public-ip/guest-{suite}-{}", machine.trim()));
        assert!(lower.exists(), "this test needs {}: `scripts/setup test` makes it", lower.display());
        let guest = Self { net: Namespace::new(), directory: TempDir::new().unwrap() };
        // What is written goes with the namespace. networkd takes a /sys that cannot be written for a container's, and does
        // not wait for udev then.
        guest.net.sh(&format!(
            "cd {at} && mount -t tmpfs tmpfs . && cd {at} && mkdir upper work root && \
             mount -t overlay overlay -o lowerdir={lower},upperdir=upper,workdir=work root && cd root && \
             mount -t proc proc proc && mount -t sysfs -o ro sysfs sys && mount --bind /dev dev && mount -t tmpfs tmpfs run && \
             mkdir -p run/network run/systemd/netif run/systemd/network run/lock",
            at = guest.directory.path().display(),
            lower = lower.display()
        ));
        guest
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// What networkd says; not on the guest's own file system.
    fn log(&self) -> PathBuf {
        self.directory.path().join("networkd.log")
    }

    /// A shell script among the guest's programs.
    fn run(&self, script: &str) -> Run {
        let mut command = self.net.command("chroot");
        command.arg(self.root()).args([
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL=C.UTF-8",
            "sh",
            "-euc",
            script,
        ]);
        Run::of(script.to_owned(), &command.output().unwrap())
    }

    fn sh(&self, script: &str) -> String {
        self.run(script).ok().out
    }

    fn write(&self, path: &str, text: &str) {
        use std::io::Write;
        let mut command = self.net.command("sh");
        command.args(["-euc", "cat > \"$0\""]).arg(self.root().join(path)).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{path}");
    }

    /// Has the guest's cloud-init write the configuration for one of its back ends.
    fn render(&self, case: &Case, kind: &str) {
        self.write("network-config", &case.text);
        self.sh(&format!("cloud-init devel net-convert {}", conversion(case, kind, "/network-config", "/")));
    }

    /// Puts NICs into the guest, and at their other end who answers for the gateways and for what is behind them.
    fn plug(&self, wanted: &Wanted) -> Namespace {
        let outside = Namespace::new();
        let mut script = String::new();
        for address in BEYOND {
            let length = if address.contains(':') { "128 nodad" } else { "32" };
            script += &format!("ip addr add {address}/{length} dev lo\n");
        }
        for nic in wanted.nics.values() {
            let name = &nic.name;
            let pid = outside.pid();
            self.net.sh(&format!("ip link add {name} address {} type veth peer name {name} netns {pid}", nic.mac));
            script += &format!("ip link set {name} up\n");
            for subnet in &nic.subnets {
                let Subnet::Static { address, gateway } = subnet else { continue };
                let host = if address.addr().is_ipv4() { "32" } else { "128 nodad" };
                if let Some(gateway) = gateway {
                    let length = if gateway.address.to_string().starts_with("fe80") { "64 nodad" } else { host };
                    script += &format!("ip addr add {}/{length} dev {name}\n", gateway.address);
                }
                script += &format!("ip route add {}/{} dev {name}\n", address.addr(), host.split(' ').next().unwrap());
            }
        }
        outside.sh(&script);
        outside
    }

    /// Every address of a NIC with a default gateway reaches what is behind it, in a minute.
    fn reaches_beyond(&self, wanted: &Wanted) -> Result<(), String> {
        let mut last = String::new();
        let started = std::time::Instant::now();
        while started.elapsed() < std::time::Duration::from_secs(60) {
            last = match self.pings(wanted) {
                None => return Ok(()),
                Some(failed) => failed,
            };
            std::thread::sleep(std::time::Duration::from_millis(700));
        }
        let state = self.run("ip addr; ip route; ip -6 route");
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        Err(format!("{last}\n{state}\n{log}"))
    }

    fn pings(&self, wanted: &Wanted) -> Option<String> {
        let with_gateway = |family: Family| wanted.nics.values().find(move |nic| nic.gateway(family).is_some());
        let mut pinged = 0;
        for (family, beyond) in Family::BOTH.into_iter().zip(BEYOND) {
            let Some(nic) = with_gateway(family) else { continue };
            for address in addresses(nic).filter(|address| Family::of(*address) == family) {
                let run = self.run(&format!("ping -n -q -c 1 -W 1 -I {address} {beyond}"));
                pinged += 1;
                if run.code != 0 {
                    return Some(run.to_string());
                }
            }
        }
        assert!(pinged > 0, "no address has a gateway");
        None
    }
}

/// Arguments of `cloud-init devel net-convert`.
fn conversion(case: &Case, kind: &str, document: &str, directory: &str) -> String {
    let distribution = match kind {
        "sysconfig" => "rhel",
        "network-manager" => "fedora",
        _ => "debian",
    };
    let macs: String = case.wanted.nics.values().map(|nic| format!(" -m {},{}", nic.name, nic.mac)).collect();
    format!("-p {document} -k yaml -d {directory} -D {distribution} -O {kind}{macs}")
}

fn addresses(nic: &WantedNic) -> impl Iterator<Item = IpAddr> {
    nic.subnets.iter().filter_map(|subnet| match subnet {
        Subnet::Static { address, .. } => Some(address.addr()),
        _ => None,
    })
}

/// `networkd` with what lies in its directories; it ends with the guest's namespace, whose last process it must not be.
struct Networkd(std::process::Child);

impl Networkd {
    fn start(guest: &Guest) -> Self {
        // A veth has no permanent MAC, by which netplan asks for a NIC.
        guest.sh("for file in /run/systemd/network/*; do [ ! -e $file ] || sed -i s/^PermanentMACAddress=/MACAddress=/ $file; done");
        guest.sh("chown -R systemd-network /run/systemd/netif; chmod -R a+rX /run/systemd /etc/systemd/network");
        let mut command = guest.net.command("chroot");
        command.arg(guest.root()).args(["env", "-i", "LC_ALL=C.UTF-8", "/usr/lib/systemd/systemd-networkd"]);
        let log = fs::File::create(guest.log()).unwrap();
        Self(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Networkd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const APPLIED: [&str; 6] = [
    "gateway-outside",
    "several-addresses",
    "ipv6-gateway-outside",
    "ipv6-link-local-gateway-routed",
    "second-nic-private",
    "mtu",
];

/// Renders and applies one document; the error says what the guest does not reach.
fn apply(suite: &str, case: &Case, back_end: &str) -> Result<(), String> {
    let guest = Guest::new(suite);
    let _outside = guest.plug(&case.wanted);
    let networkd = match back_end {
        "ifupdown" | "ifupdown-ng" => {
            if back_end == "ifupdown-ng" {
                guest.sh("cp -a /opt/ifupdown-ng/sbin/. /usr/sbin/ && cp -a /opt/ifupdown-ng/usr/. /usr/");
            }
            guest.render(case, "eni");
            let is_static = |nic: &&WantedNic| nic.subnets.iter().all(|subnet| matches!(subnet, Subnet::Static { .. }));
            // A DHCP client would wait for a server.
            let names: Vec<&str> = case.wanted.nics.values().filter(is_static).map(|nic| nic.name.as_str()).collect();
            guest.sh(&format!(
                "file=/etc/network/interfaces.d/50-cloud-init; [ -e $file ] || file=/etc/network/interfaces; ifup -i $file {}",
                names.join(" ")
            ));
            None
        }
        "netplan" => {
            guest.render(case, "netplan");
            guest.sh("netplan generate");
            Some(Networkd::start(&guest))
        }
        _ => {
            guest.render(case, "networkd");
            Some(Networkd::start(&guest))
        }
    };
    let reached = guest.reaches_beyond(&case.wanted);
    drop(networkd);
    if reached.is_ok() {
        if let Some(nic) = case.wanted.nics.values().find(|nic| nic.mtu.is_some()) {
            let link = guest.sh(&format!("ip link show {}", nic.name));
            assert!(link.contains(&format!("mtu {} ", nic.mtu.unwrap())), "{back_end}: {link}");
        }
    }
    reached.map_err(|error| format!("{suite}, {back_end}, {}: {error}", case.name))
}

#[test]
fn ifupdown_reaches_a_gateway_outside() {
    apply_all("ifupdown");
}

#[test]
fn netplan_reaches_a_gateway_outside() {
    apply_all("netplan");
}

#[test]
fn networkd_reaches_a_gateway_outside() {
    apply_all("networkd");
}

#[test]
fn alpines_ifupdown_reaches_a_gateway_outside_in_its_own_words() {
    let mut wrong = Vec::new();
    for name in ["alpine", "ipv6-gateway-outside-alpine"] {
        wrong.extend(apply("bookworm", &case(name), "ifupdown-ng").err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The words for everybody else would not do.
    let error = apply("bookworm", &case("gateway-outside"), "ifupdown-ng").unwrap_err();
    assert!(error.contains("100% packet loss"), "{error}");
}

fn apply_all(back_end: &str) {
    let mut wrong = Vec::new();
    for suite in SUITES {
        for name in APPLIED {
            wrong.extend(apply(suite, &case(name), back_end).err());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Cases under `inside`: what `show` says to configure by hand.
const BY_HAND: [&str; 6] = [
    "gateway-outside",
    "gateway-inside",
    "several-addresses",
    "ipv6-gateway-outside",
    "ipv6-link-local-gateway-routed",
    "mtu",
];

/// Does in a guest what `show` says, in the words of one of the ways to do it.
fn configure_by_hand(suite: &str, name: &str, back_end: &str) -> Result<(), String> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let case = golden.join("cloud-init").join(name);
    let read = |name: &str| fs::read(case.join(name)).unwrap();
    let config = GuestConfig::parse(GuestKind::Qemu, &read("qemu.conf"));
    let guest: GuestFile = parse(&case.join("guest.json"), &read("guest.json")).unwrap();
    let pools: PoolsFile = parse(&case.join("pools.json"), &read("pools.json")).unwrap();
    let wanted = cloudinit::inside(&guest, &pools, &config, &cloudinit::Resolver::default()).unwrap();
    let shown = fs::read_to_string(golden.join(format!("inside/{name}.txt"))).unwrap();
    let section = |key: &str| {
        let (_, rest) = shown.split_once(&format!("[{key}] ")).unwrap();
        let (_, text) = rest.split_once('\n').unwrap();
        text.split("\n\n").next().unwrap().to_owned() + "\n"
    };
    let guest = Guest::new(suite);
    let _outside = guest.plug(&wanted);
    let networkd = if back_end == "netplan" {
        guest.write("etc/netplan/90-public-ip.yaml", &section("netplan"));
        guest.sh("chmod 600 /etc/netplan/*; netplan generate");
        Some(Networkd::start(&guest))
    } else {
        if back_end == "ifupdown-ng" {
            guest.sh("cp -a /opt/ifupdown-ng/sbin/. /usr/sbin/ && cp -a /opt/ifupdown-ng/usr/. /usr/");
        }
        guest.write("etc/network/interfaces", &section("interfaces"));
        guest.sh("ifup -i /etc/network/interfaces eth0");
        None
    };
    let reached = guest.reaches_beyond(&wanted);
    drop(networkd);
    reached.map_err(|error| format!("{suite}, {back_end}, {name}: {error}"))
}

#[test]
fn what_show_says_to_configure_by_hand_is_enough() {
    let mut wrong = Vec::new();
    for (suite, back_end) in
        [("bookworm", "ifupdown"), ("bookworm", "ifupdown-ng"), ("bookworm", "netplan"), ("trixie", "netplan")]
    {
        for name in BY_HAND {
            wrong.extend(configure_by_hand(suite, name, back_end).err());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Without the route to the gateway Debian 12's netplan has no default route: what is tested above can fail.
#[test]
fn without_the_route_to_it_a_gateway_outside_is_lost() {
    let mut case = case("gateway-outside");
    let (before, rest) = case.text.split_once("        routes:\n").unwrap();
    let after: Vec<&str> = rest.lines().skip(2).collect();
    case.text = format!("{before}{}\n", after.join("\n"));
    let error = apply("bookworm", &case, "netplan").unwrap_err();
    assert!(error.contains("100% packet loss") || error.contains("Network is unreachable"), "{error}");
}

/// As `cloud-init devel net-convert`, for many documents: to start Python for each would take minutes.
const CONVERT: &str = "
import sys
from cloudinit.cmd.devel import net_convert
for line in sys.stdin:
    net_convert.handle_args(\"net-convert\", net_convert.get_parser().parse_args(line.split()))
";

#[test]
fn every_document_is_rendered_for_every_back_end() {
    for suite in SUITES {
        let guest = Guest::new(suite);
        let mut conversions = String::new();
        for case in cases() {
            let document = format!("{}.yaml", case.name);
            guest.write(&document, &case.text);
            for kind in ["eni", "netplan", "networkd", "network-manager", "sysconfig"] {
                let directory = format!("/out/{}/{kind}", case.name);
                conversions += &format!("{}\n", conversion(&case, kind, &format!("/{document}"), &directory));
            }
        }
        guest.write("conversions", &conversions);
        guest.sh(&format!("python3 -c '{CONVERT}' < /conversions"));
        for case in cases() {
            for nic in case.wanted.nics.values().filter(|nic| nic.assigned) {
                let at = format!("{suite}, {}", case.name);
                let profile = guest.sh(&format!(
                    "cat /out/{}/network-manager/etc/NetworkManager/system-connections/cloud-init-{}.nmconnection",
                    case.name, nic.name
                ));
                let ifcfg = guest
                    .sh(&format!("cat /out/{}/sysconfig/etc/sysconfig/network-scripts/ifcfg-{}", case.name, nic.name));
                is_in_profile(nic, &profile, &at);
                let keys = keys(&ifcfg);
                for address in addresses(nic).filter(IpAddr::is_ipv4) {
                    assert!(
                        keys.values().any(|value| *value == address.to_string()),
                        "{at}: {address} is not in\n{ifcfg}"
                    );
                }
                let gateway = nic.gateway(Family::V4).map(|gateway| gateway.address.to_string());
                assert_eq!(keys.get("GATEWAY").copied(), gateway.as_deref(), "{at}: {ifcfg}");
                assert_eq!(keys.get("HWADDR").copied(), Some(nic.mac.to_string().as_str()), "{at}: {ifcfg}");
            }
        }
    }
}

/// What `NetworkManager` is told has all addresses and gateways, and no name server of a family that the NIC has not: it
/// would refuse the whole profile.
fn is_in_profile(nic: &WantedNic, profile: &str, at: &str) {
    for (family, header) in [(Family::V4, "[ipv4]"), (Family::V6, "[ipv6]")] {
        let section = profile.split_once(header).map_or("", |(_, rest)| rest.split("\n[").next().unwrap_or_default());
        let has_addresses = addresses(nic).any(|address| Family::of(address) == family);
        for address in addresses(nic).filter(|address| Family::of(*address) == family) {
            assert!(section.contains(&format!("={address}/")), "{at}: {address} is not in\n{profile}");
        }
        if let Some(gateway) = nic.gateway(family) {
            assert!(section.contains(&format!("gateway={}\n", gateway.address)), "{at}: no gateway in\n{profile}");
        }
        if !has_addresses {
            assert!(!section.contains("\ndns="), "{at}: a name server of the other family in\n{profile}");
        }
    }
    assert!(profile.to_lowercase().contains(&format!("mac-address={}", nic.mac)), "{at}: {profile}");
}

fn keys(ifcfg: &str) -> BTreeMap<&str, &str> {
    ifcfg.lines().filter_map(|line| line.split_once('=')).collect()
}

#[test]
fn every_document_satisfies_cloud_inits_own_schema() {
    let guest = Guest::new("trixie");
    for case in cases() {
        guest.write("network-config", &case.text);
        let run = guest.run("cloud-init schema -t network-config -c /network-config");
        if case.alpine && case.text.contains("pointopoint") {
            // The schema does not know the word that ifupdown-ng needs; it costs a warning.
            assert!(run.code == 1 && run.err.contains("('pointopoint' was unexpected)"), "{}: {run}", case.name);
        } else {
            assert_eq!((run.code, run.out.as_str()), (0, "Valid schema /network-config\n"), "{}: {run}", case.name);
        }
    }
}
