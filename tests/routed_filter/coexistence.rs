//! Others have rules, too, and write them as they like: protection holds or is back at once, and theirs stay as they are.

use std::process::Child;
use std::time::{Duration, Instant};

use super::lab::{Lab, background, sh, write};
use super::scene::{
    BRIDGE, CARD, Ears, OTHER_BRIDGE, PORT, PROVIDER, WORLD4, WORLD6, datagram, foreign, mac, node, settle,
};

/// The guard's bound, with room for a busy machine.
const BOUND: Duration = Duration::from_secs(60);

/// Ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn guard(lab: &Lab) -> Process {
    let root = lab.path("");
    let guard = background(&format!("{} guard --root {}", env!("CARGO_BIN_EXE_pve-public-ip"), root.display()));
    let started = Instant::now();
    while !lab.path("run/pve-public-ip/guard").exists() {
        assert!(started.elapsed() < BOUND, "the guard does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    Process(guard)
}

/// From outside, with the address of a guest that runs here: no bridge sees it, so only the filter of routed traffic drops it.
fn is_protected(ears: &mut Ears<'_>) -> bool {
    let v4 = ears.play("eno1", PROVIDER, CARD, "203.0.113.10", "203.0.113.11");
    let v6 = ears.play("eno1", PROVIDER, CARD, "2001:db8:1::10", "2001:db8:1::11");
    v4.is_empty() && v6.is_empty()
}

/// Waits until it is so, and stays so for longer than the guard takes to look.
#[track_caller]
fn is_back(lab: &Lab, what: &str) -> Duration {
    let mut ears = Ears::new(lab);
    let started = Instant::now();
    while !is_protected(&mut ears) {
        assert!(started.elapsed() < BOUND, "{what}: not protected any more");
        std::thread::sleep(Duration::from_millis(5));
    }
    started.elapsed()
}

/// Rules as Proxmox VE's firewall writes them, and how: its chains anew, everybody else's left alone, the jump at the end if
/// there is none.
const PVE_FIREWALL: &str = "
for tool in iptables-legacy ip6tables-legacy; do
    $tool-restore -n <<'END'
*filter
:PVEFW-FORWARD - [0:0]
:PVEFW-INPUT - [0:0]
-A PVEFW-FORWARD -m conntrack --ctstate INVALID -j DROP
-A PVEFW-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A PVEFW-FORWARD -m comment --comment \"PVESIG:qnNexOcGa+y+jebd4dAUqFSp5nw\"
-A PVEFW-INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A PVEFW-INPUT -m comment --comment \"PVESIG:+5iMmLaxKXynOB/+5xibfx7WhFk\"
COMMIT
END
    $tool -C FORWARD -j PVEFW-FORWARD 2>/dev/null || $tool -A FORWARD -j PVEFW-FORWARD
    $tool -C INPUT -j PVEFW-INPUT 2>/dev/null || $tool -A INPUT -j PVEFW-INPUT
done";

/// As docker does when it starts: a chain of its own at the top, which accepts.
const DOCKER: &str = "
for tool in iptables-@ ip6tables-@; do
    $tool -N DOCKER-USER; $tool -N DOCKER-FORWARD
    $tool -A DOCKER-USER -j RETURN
    $tool -A DOCKER-FORWARD -j ACCEPT
    $tool -I FORWARD -j DOCKER-FORWARD
    $tool -I FORWARD -j DOCKER-USER
done";

/// A ruleset that is loaded without regard to what is there.
const RESTORE: &str = "
for tool in iptables-@ ip6tables-@; do
    $tool-restore <<'END'
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -p tcp -m tcp --dport 25 -j DROP
-A FORWARD -j ACCEPT
COMMIT
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
COMMIT
END
done";

#[test]
fn whoever_writes_rules_beside_ours() {
    for backend in ["nftables", "iptables-legacy", "iptables-nft"] {
        let lab = node(backend);
        settle(&lab);
        let guard = guard(&lab);
        for variant in ["legacy", "nft"] {
            // What proxmox-firewall, docker and others do to nf_tables is not seen by iptables-legacy, and the other way round.
            for (what, script) in [
                ("pve-firewall", PVE_FIREWALL),
                ("docker", DOCKER),
                ("iptables-restore", RESTORE),
                ("flush", "nft flush ruleset"),
            ] {
                let script = script.replace('@', variant);
                sh(&script);
                let theirs = foreign(variant);
                let what = format!("{backend}, {what} with iptables-{variant}");
                is_back(&lab, &what);
                // The first look may have come between two lines of the script.
                let started = Instant::now();
                while lab.run("verify").code != 0 {
                    assert!(started.elapsed() < BOUND, "{what}: {}", lab.run("verify").out);
                }
                is_back(&lab, &what);
                assert_eq!(foreign(variant), theirs, "{what}: rules of others were touched");
            }
        }
        drop(guard);
    }
}

#[test]
fn pve_firewall_writes_every_second() {
    for backend in ["nftables", "iptables-legacy"] {
        let lab = node(backend);
        settle(&lab);
        let _guard = guard(&lab);
        // At least three times, and until enough was played meanwhile.
        let enough = lab.path("enough");
        let writer = format!(
            "round=0\nuntil [ $round -ge 3 ] && [ -e {} ]; do {PVE_FIREWALL}\nround=$((round+1)); sleep 1; done",
            enough.display()
        );
        write(lab.path("writer").to_str().unwrap(), &writer);
        let mut writer = background(&format!("sh {}", lab.path("writer").display()));
        let mut ears = Ears::new(&lab);
        let mut played = 0;
        while writer.try_wait().unwrap().is_none() {
            assert!(is_protected(&mut ears), "{backend}: a packet got through after {played}");
            played += 1;
            if played == 100 {
                write(enough.to_str().unwrap(), "");
            }
        }
        assert!(played >= 100, "the writer ended after {played}");
        lab.ok("verify");
        let theirs = foreign("legacy");
        assert!(theirs.iter().any(|line| line.contains("PVESIG")), "{theirs:?}");
    }
}

#[test]
fn an_established_connection_opens_no_way() {
    const ESTABLISHED: &str = "-m conntrack --ctstate ESTABLISHED -j ACCEPT";
    for backend in ["nftables", "iptables-legacy", "iptables-nft"] {
        let lab = node(backend);
        settle(&lab);
        sh(&format!("iptables-legacy -A FORWARD {ESTABLISHED}; ip6tables-legacy -A FORWARD {ESTABLISHED}"));
        // The bridge table would stop the guests before they reach what is tested here.
        sh("nft flush table bridge pve-public-ip");
        let mut ears = Ears::new(&lab);
        for (own, world) in [("203.0.113.10", WORLD4), ("2001:db8:1::10", WORLD6)] {
            assert_eq!(ears.play("tap100i0", mac(100), BRIDGE, own, world), ["eno1"], "{backend}");
            let answer = datagram((PROVIDER, CARD), (world, PORT), (own, 4000), "answer");
            lab.end("eno1").wire.send(&answer);
            assert_eq!(ears.play("tap100i0", mac(100), BRIDGE, own, world), ["eno1"], "{backend}");
            // Of the same connection, from whoever has not begun it.
            for (port, mac, bridge) in [
                ("tap101i0", mac(101), BRIDGE),
                ("tap200i0", mac(200), BRIDGE),
                ("tap201i0", mac(201), OTHER_BRIDGE),
                ("eno1", PROVIDER, CARD),
            ] {
                let seen = ears.play(port, mac, bridge, own, world);
                assert_eq!(seen, Vec::<String>::new(), "{backend}: {own} from {port}");
            }
        }
        for tool in ["iptables-legacy", "ip6tables-legacy"] {
            let counted = sh(&format!("{tool} -nvxL FORWARD"));
            let line = counted.lines().find(|line| line.contains("ESTABLISHED")).unwrap();
            assert_ne!(line.split_whitespace().next(), Some("0"), "{backend}: nothing was established: {counted}");
        }
    }
}

/// A bus of its own for what needs one.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path=@/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>"#;

#[test]
fn firewalld_reloads() {
    for (backend, theirs) in [("nftables", "nftables"), ("iptables-nft", "iptables"), ("iptables-legacy", "nftables")] {
        let lab = node(backend);
        settle(&lab);
        let directory = lab.path("firewalld");
        sh(&format!("mkdir {}", directory.display()));
        let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
        write(&file("bus.conf"), &BUS.replace('@', directory.to_str().unwrap()));
        // Everything of this node is let through, so that what arrives tells of our filter only.
        write(&file("firewalld.conf"), &format!("DefaultZone=trusted\nFirewallBackend={theirs}\nIPv6_rpfilter=no\n"));
        let _bus = Process(background(&format!("dbus-daemon --nofork --nopidfile --config-file={}", file("bus.conf"))));
        let _guard = guard(&lab);
        let bus = format!("DBUS_SYSTEM_BUS_ADDRESS=unix:path={}", file("bus"));
        let _firewalld = Process(background(&format!(
            "env {bus} firewalld --nofork --nopid --system-config {} --log-file {}",
            directory.display(),
            file("log")
        )));
        let command = |words: &str| sh(&format!("{bus} firewall-cmd {words}"));
        let started = Instant::now();
        while !super::lab::try_sh(&format!("{bus} firewall-cmd --state")).out.contains("running") {
            assert!(started.elapsed() < BOUND, "firewalld does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        for _ in 0..2 {
            command("--reload");
            let what = format!("{backend}, firewalld with {theirs}");
            is_back(&lab, &what);
            let started = Instant::now();
            while lab.run("verify").code != 0 {
                assert!(started.elapsed() < BOUND, "{what}: {}", lab.run("verify").out);
            }
            is_back(&lab, &what);
            assert_eq!(command("--get-default-zone").trim(), "trusted");
        }
    }
}
