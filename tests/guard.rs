//! The guard on a real kernel: what wakes it, how soon, and what it leaves alone.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{CREATE_ROUTED, Namespace, Node, PROVIDER};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pve_public_ip::paths::Paths;
use pve_public_ip::system::run::RunState;

/// Longer than anything here takes, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A guard that runs; it ends with this value.
struct Guard<'a> {
    node: &'a Node,
    child: Child,
}

impl<'a> Guard<'a> {
    /// Starts it and waits until it is ready.
    fn start(node: &'a Node) -> Self {
        let log = File::create(node.tree.path("guard.log")).unwrap();
        let child = node.command(&["-v", "guard"]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let guard = Self { node, child };
        guard.says("guard: watching node ");
        guard.rests();
        guard
    }

    fn log(&self) -> String {
        self.node.tree.read("guard.log")
    }

    fn count(&self, words: &str) -> usize {
        self.log().matches(words).count()
    }

    /// Waits for these words in its log.
    #[track_caller]
    fn says(&self, words: &str) {
        self.within(PATIENCE, words, || self.log().contains(words));
    }

    /// Waits until it is so; returns how long that took.
    #[track_caller]
    fn within(&self, limit: Duration, what: &str, is_so: impl Fn() -> bool) -> Duration {
        let started = Instant::now();
        while !is_so() {
            assert!(started.elapsed() < limit, "not within {limit:?}: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        started.elapsed()
    }

    /// Waits until it has nothing more to do: for longer than it ever waits between two looks that have a cause, and then
    /// until it is not about to look, which may take long on a loaded machine.
    #[track_caller]
    fn rests(&self) {
        let quiet = || {
            let before = self.count("looked because of");
            std::thread::sleep(Duration::from_millis(1200));
            common::is_asleep(self.child.id()) && before == self.count("looked because of")
        };
        self.within(PATIENCE, "it rests", quiet);
    }

    /// Does something to the node and waits until the guard has repaired it.
    #[track_caller]
    fn repairs(&self, script: &str, is_well: impl Fn() -> bool) {
        self.node.net.sh(script);
        self.within(PATIENCE, script, is_well);
        self.node.is_in_line();
        self.rests();
    }

    /// `nsenter` becomes the program itself.
    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Ends it by a signal that it obeys.
    #[track_caller]
    fn stop(mut self, signal: Signal) -> String {
        self.signal(signal);
        let status = self.child.wait().unwrap();
        let log = self.log();
        assert!(status.success(), "{status}\n{log}");
        log
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Guest 100 runs with `203.0.113.10` and `2001:db8:0:1::10`.
fn with_guest() -> Node {
    let node = Node::with_pool();
    node.net.sh("ip addr add 2001:db8:0:1::250/64 dev vmbr0 nodad");
    node.run("assign 100 203.0.113.10 2001:db8:0:1::10 --no-hookscript").ok();
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    node.run("hook 100 post-start").ok();
    node.is_in_line();
    node
}

#[test]
fn the_whole_table_stands_before_any_hook() {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    // As after a boot.
    node.net.sh("nft flush ruleset");
    fs::remove_dir_all(node.tree.path("run")).unwrap();
    let guard = Guard::start(&node);
    assert!(node.net.filter().is_some(), "{}", guard.log());
    node.is_in_line();
    assert_eq!(guard.count("looked because of"), 1, "nothing has happened since: {}", guard.log());
}

#[test]
fn each_kind_of_drift_wakes_it_and_is_said_once() {
    let node = with_guest();
    let guard = Guard::start(&node);
    let (net, mac) = (&node.net, "02:00:00:aa:bb:00");
    let is_bound = || net.filter().is_some() && net.set("ports") == ["\"tap100i0\""];
    let is_reachable =
        || net.marked().len() == 2 && net.marked().iter().all(|line| line.contains(mac) && line.contains("PERMANENT"));
    let is_pinned = || net.sh("bridge fdb show dev tap100i0").contains(&format!("{mac} sticky"));

    guard.repairs("nft flush ruleset", is_bound);
    guard.repairs("nft delete table bridge pve-public-ip", is_bound);
    assert_eq!(guard.count("repaired: the table is missing"), 1, "{}", guard.log());
    assert!(guard.log().contains("(nf_tables was changed by `nft`)"), "{}", guard.log());
    guard.repairs("nft 'delete element bridge pve-public-ip ports { \"tap100i0\" }'", is_bound);
    guard.repairs("nft 'delete element bridge pve-public-ip ports { \"tap100i0\" }'", is_bound);
    assert_eq!(guard.count("warning: repaired: missing tap100i0"), 1, "{}", guard.log());
    guard.repairs("nft insert rule bridge pve-public-ip prerouting accept", || {
        !net.sh("nft list chain bridge pve-public-ip prerouting").contains("\t\taccept\n")
    });
    guard.says("repaired: the rules are missing or were changed");
    guard.repairs("ip neigh del 203.0.113.10 dev vmbr0", is_reachable);
    guard.repairs("ip neigh replace 203.0.113.10 lladdr 02:00:00:00:00:66 nud permanent dev vmbr0", is_reachable);
    guard.repairs("ip -6 neigh change 2001:db8:0:1::10 nud stale dev vmbr0", is_reachable);
    guard.says(&format!("repaired: 203.0.113.10 is not fixed to {mac}"));
    guard.repairs(&format!("bridge fdb del {mac} dev tap100i0 master"), is_pinned);
    guard.repairs(&format!("bridge fdb replace {mac} dev tap100i0 master static"), is_pinned);
    guard.says(&format!("repaired: {mac} is not pinned to tap100i0"));
    guard.repairs("ip link set vmbr0 type bridge no_linklocal_learn 0", || {
        net.sh("ip -d link show vmbr0").contains("no_linklocal_learn 1")
    });
    guard.says("repaired: vmbr0 learns from link-local frames");
    let is_local = || net.sh("bridge fdb show br vmbr0").contains("02:00:00:00:00:fe dev vmbr0 master vmbr0 permanent");
    assert!(is_local(), "the kernel's own");
    let looks = guard.count("looked because of");
    guard.repairs("bridge fdb del 02:00:00:00:00:fe dev vmbr0 self", is_local);
    assert_eq!(guard.count("looked because of"), looks + 1, "its own repair does not wake it: {}", guard.log());
    guard.says("repaired: vmbr0 does not know its own MAC as local");
    guard.repairs("bridge fdb flush dev vmbr0", || is_local() && is_pinned());
    // Nothing of it is ours.
    let looks = guard.count("looked because of");
    net.sh("nft add table bridge other; nft delete table bridge other; ip route add 198.51.100.0/24 dev vmbr0;
        ip addr change 203.0.113.250/24 dev vmbr0 valid_lft 3000 preferred_lft 3000; ip neigh add 203.0.113.77 lladdr 02:00:00:00:00:77 dev vmbr0; bridge fdb add 02:00:00:00:00:78 dev tap100i0 master");
    guard.rests();
    assert_eq!(guard.count("looked because of"), looks, "{}", guard.log());
    let state: serde_json::Value = serde_json::from_str(&node.tree.read("run/pve-public-ip/guard")).unwrap();
    assert_eq!((&state["guests"], &state["trouble"]), (&1.into(), &serde_json::Value::Null), "{state}");
    assert!(state["repairs"].as_u64().unwrap() >= 10, "{state}");
}

#[test]
fn hooks_leave_it_nothing_to_do_and_no_drift_is_said() {
    let node = with_guest();
    let guard = Guard::start(&node);
    for _ in 0..2 {
        node.unplug("tap100i0");
        node.run("hook 100 post-stop").ok();
        guard.rests();
        node.run("hook 100 pre-start").ok();
        node.plug("tap100i0");
        node.run("hook 100 post-start").ok();
        guard.rests();
        node.is_in_line();
    }
    assert_eq!(guard.count("repaired"), 0, "{}", guard.log());
}

#[test]
fn attacks_of_our_own_are_nobodys_doing() {
    let node = with_guest();
    let guard = Guard::start(&node);
    node.run("verify --active").ok();
    guard.rests();
    node.is_in_line();
    assert_eq!((guard.count("repaired"), guard.count("warning")), (0, 0), "{}", guard.log());
}

#[test]
fn what_no_hook_sees_is_followed() {
    let node = with_guest();
    node.run("assign 101 203.0.113.11 --no-hookscript").ok();
    let guard = Guard::start(&node);
    let ports = || node.net.set("ports");

    // Plugged in without a hook; behind the NIC firewall; unplugged; moved to another node; back again; destroyed.
    node.plug("tap101i0");
    guard.within(PATIENCE, "the new port is bound", || ports() == ["\"tap100i0\"", "\"tap101i0\""]);
    // Its NIC firewall is switched on: the same port, on a bridge of its own.
    node.net.sh("ip link add fwbr101i0 type bridge; ip link set fwbr101i0 up; ip link set tap101i0 master fwbr101i0");
    node.plug("fwpr101p0");
    guard.within(PATIENCE, "and so is its other half", || {
        node.net.sh("bridge fdb show dev fwpr101p0").contains("02:00:00:aa:bb:01 sticky")
    });
    node.unplug("tap101i0");
    guard.within(PATIENCE, "the port that is gone is bound no more", || ports() == ["\"tap100i0\""]);

    let (here, there) = ("etc/pve/nodes/n1/qemu-server", "etc/pve/nodes/n2/qemu-server");
    fs::create_dir_all(node.tree.path(there)).unwrap();
    let move_guest = |from: &str, to: &str| {
        fs::rename(node.tree.path(from).join("100.conf"), node.tree.path(to).join("100.conf")).unwrap();
    };
    move_guest(here, there);
    guard.within(PATIENCE, "a guest that moved away is bound no more", || {
        ports().is_empty() && node.net.marked().is_empty()
    });
    move_guest(there, here);
    guard.within(PATIENCE, "it is back", || ports() == ["\"tap100i0\""] && node.net.marked().len() == 2);

    node.run("release 100 --no-hookscript").ok();
    guard.within(PATIENCE, "a released address is bound no more", || ports().is_empty());
    guard.rests();
    node.is_in_line();
    assert_eq!(guard.count("repaired"), 0, "{}", guard.log());
}

#[test]
fn a_guest_that_arrives_is_announced_when_its_configuration_has() {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    let (here, there) = (
        node.tree.path("etc/pve/nodes/n1/qemu-server/100.conf"),
        node.tree.path("etc/pve/nodes/n2/qemu-server/100.conf"),
    );
    fs::create_dir_all(there.parent().unwrap()).unwrap();
    fs::rename(&here, &there).unwrap();
    let guard = Guard::start(&node);
    let migrated = [("PVE_MIGRATED_FROM", "n2")];
    node.run_with("hook 100 pre-start", &migrated).ok();
    node.plug("tap100i0");
    node.run_with("hook 100 post-start", &migrated).ok();
    guard.rests();
    let bound = node.net.set("bound_ip4");
    assert_eq!((bound, node.net.marked()), (Vec::new(), Vec::new()), "it still speaks on the other node");
    assert_eq!(node.net.set("ports"), ["\"tap100i0\""], "but it cannot misbehave here");
    fs::rename(&there, &here).unwrap();
    guard.says("guard: guest 100 has arrived and was announced");
    assert_eq!(node.net.marked().len(), 1);
    guard.rests();
    assert_eq!(guard.count("was announced"), 1, "{}", guard.log());
    node.is_in_line();
}

#[test]
fn trouble_with_the_cluster_file_system_changes_nothing_and_passes() {
    let node = with_guest();
    node.tree.write("var/lib/pve-cluster/config.db", "");
    let guard = Guard::start(&node);
    let before = (node.net.filter(), node.net.marked());
    let (pve, away) = (node.tree.path("etc/pve"), node.tree.path("etc/away"));
    fs::rename(&pve, &away).unwrap();
    fs::create_dir(&pve).unwrap();
    guard.says("the cluster file system is not mounted");
    guard.says("what protects now stays as it is");
    assert!(before == (node.net.filter(), node.net.marked()), "{}", guard.log());
    node.net.sh("nft flush ruleset; ip neigh flush nud permanent proto 121");
    let is_back = || before == (node.net.filter(), node.net.marked());
    guard.within(PATIENCE, "the last known protection is put back all the same", is_back);
    let state = node.tree.read("run/pve-public-ip/guard");
    assert!(state.contains("is not mounted"), "{state}");
    fs::remove_dir(&pve).unwrap();
    fs::rename(&away, &pve).unwrap();
    guard.says("all is well again");
    guard.rests();
    node.is_in_line();
    assert_eq!(guard.count("is not mounted"), 1, "{}", guard.log());
}

#[test]
fn signals_and_sudden_death() {
    let node = with_guest();
    let before = (node.net.filter(), node.net.marked());
    let guard = Guard::start(&node);
    let requests = guard.count("looked because of Request");
    guard.signal(Signal::SIGHUP);
    guard.within(PATIENCE, "it looks when it is asked to", || guard.count("looked because of Request") == requests + 1);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let log = Guard::start(&node).stop(signal);
        assert!(log.contains("guard: stopped; what protects the guests stays in place"), "{log}");
        assert!(before == (node.net.filter(), node.net.marked()), "{log}");
    }
    drop(guard);
    // Killed at any point of its first look, it leaves what the next one completes.
    for delay in (0..60).step_by(4) {
        node.net.sh("nft flush ruleset; ip neigh flush nud permanent proto 121");
        let mut child = node.command(&["guard"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        drop(Guard::start(&node));
        assert!(before == (node.net.filter(), node.net.marked()), "killed after {delay} ms");
    }
}

#[test]
fn a_storm_of_ports_is_a_few_looks() {
    let node = with_guest();
    let guard = Guard::start(&node);
    let looks = guard.count("looked because of");
    node.net.sh(
        "for n in $(seq 200 399); do ip tuntap add tap${n}i0 mode tap; ip link set tap${n}i0 master vmbr0 up; done",
    );
    guard.rests();
    let looks = guard.count("looked because of") - looks;
    assert!((1..100).contains(&looks), "{looks} looks at 200 ports\n{}", guard.log());
    node.is_in_line();
    // Somebody who empties the ruleset all the time does not take the processor with it.
    node.net.sh("for n in $(seq 40); do nft flush ruleset; sleep 0.02; done");
    guard.rests();
    node.is_in_line();
}

#[test]
fn the_service_manager_is_told() {
    let node = with_guest();
    let path = node.tree.path("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = node.command(&["guard"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000").stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    let mut guard = Guard { node: &node, child: command.spawn().unwrap() };
    let receive = || {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("a message to the service manager");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    assert_eq!([receive(), receive()], ["READY=1", "STATUS=1 guest is bound"]);
    assert_eq!([receive(), receive(), receive()], ["WATCHDOG=1"; 3]);
    // Measured from its start: on a loaded machine all of them may wait here already.
    let elapsed = started.elapsed();
    assert!(elapsed > Duration::from_millis(300), "{elapsed:?}");
    guard.signal(Signal::SIGTERM);
    assert!(guard.child.wait().unwrap().success());
    let last = std::iter::repeat_with(receive).find(|message| message != "WATCHDOG=1").unwrap();
    assert_eq!(last, "STOPPING=1");
    node.run("--dry-run guard").fails(1, "the guard cannot pretend", "`pve-public-ip plan` shows what it would do now");
}

#[test]
fn the_fence_stands_while_the_filter_is_missing() {
    let node = with_guest();
    let guard = Guard::start(&node);
    let tables = || node.net.sh("nft list tables");
    // As if a hook hung in a read of the cluster file system.
    let run = RunState::lock(&Paths::new(node.tree.root()), PATIENCE).unwrap();
    let fenced = "nft flush ruleset; until nft list table bridge pve-public-ip-fence 2>/dev/null; do :; done";
    let text = node.net.sh(&format!("{fenced}; nft flush ruleset; nft list tables"));
    assert!(text.ends_with("table bridge pve-public-ip-fence\n"), "a flush has removed the fence:\n{text}");
    for line in ["flags owner", "hook prerouting", "iifname \"tap1*\" drop", "iifname \"fwln9*\" drop"] {
        assert!(text.contains(line), "no `{line}` in {text}");
    }
    guard.within(PATIENCE, "the filter is back, and the fence gone, although somebody holds the lock", || {
        tables() == "table bridge pve-public-ip\n"
    });
    guard.says("another pve-public-ip has been changing this node for 1 s");
    drop(run);
    guard.says("all is well again");
    guard.rests();
    node.is_in_line();
    // A guard that dies does not leave the guests cut off.
    let _run = RunState::lock(&Paths::new(node.tree.root()), PATIENCE).unwrap();
    node.net.sh(&format!("{fenced}; kill -9 {}", guard.pid()));
    guard.within(PATIENCE, "the fence falls with its owner", || tables().is_empty());
}

#[test]
fn the_fence_stands_for_every_damage_to_the_rules_and_waits_for_no_look() {
    let node = with_guest();
    let guard = Guard::start(&node);
    let table = "bridge pve-public-ip";
    let tables = || node.net.sh("nft list tables");
    let is_fenced = || tables().contains("table bridge pve-public-ip-fence\n");
    for damage in [
        format!("nft flush chain {table} prerouting"),
        format!("nft flush chain {table} bound_ip6"),
        format!("nft insert rule {table} prerouting accept"),
        format!("nft insert rule {table} bound_arp accept"),
        format!("nft 'add table {table} {{ flags dormant; }}'"),
        format!("nft flush table {table}"),
        format!("nft delete table {table}"),
    ] {
        // A look is on its way already, and waits for somebody who holds the lock.
        let run = RunState::lock(&Paths::new(node.tree.root()), PATIENCE).unwrap();
        let looks = guard.count("heard: Forwarding");
        node.net.sh("bridge fdb del 02:00:00:aa:bb:00 dev tap100i0 master");
        guard.within(PATIENCE, "it wants to look", || guard.count("heard: Forwarding") > looks);
        std::thread::sleep(Duration::from_millis(50));
        node.net.sh(&damage);
        guard.within(PATIENCE, &format!("the fence after {damage}"), is_fenced);
        drop(run);
        guard.within(PATIENCE, &format!("all is well after {damage}"), || tables() == "table bridge pve-public-ip\n");
        node.is_in_line();
        guard.rests();
    }
    // What is no damage to the rules cuts nobody off: elements, by a hook or by hand, and other rules of ours.
    let run = RunState::lock(&Paths::new(node.tree.root()), PATIENCE).unwrap();
    node.net.sh(&format!("nft 'delete element {table} ports {{ \"tap100i0\" }}'; nft add table bridge other"));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!is_fenced(), "{}", guard.log());
    drop(run);
    guard.rests();
    node.is_in_line();
}

/// A cluster file system whose daemon does nothing: who reads from it waits until the daemon dies, and then is told that
/// it is not connected.
struct HungMount<'a> {
    node: &'a Node,
    daemon: Child,
}

impl<'a> HungMount<'a> {
    fn over_etc_pve(node: &'a Node) -> Self {
        let place = node.tree.path("etc/pve");
        let script = format!(
            "exec 9<>/dev/fuse && mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 pmxcfs {} && exec sleep 600",
            place.display()
        );
        let daemon = node.net.command("sh").args(["-euc", &script]).spawn().unwrap();
        let mount = Self { node, daemon };
        let deadline = Instant::now() + PATIENCE;
        while !node.net.sh("cat /proc/mounts").contains("pmxcfs") {
            assert!(Instant::now() < deadline, "this test needs /dev/fuse and to be allowed to mount");
            std::thread::sleep(Duration::from_millis(20));
        }
        mount
    }

    fn kill_daemon(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }

    fn unmount(self) {
        self.node.net.sh(&format!("umount -l {}", self.node.tree.path("etc/pve").display()));
    }
}

impl Drop for HungMount<'_> {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
fn a_cluster_file_system_that_hangs_does_not_hold_it_up() {
    let node = with_guest();
    let guard = Guard::start(&node);
    let before = (node.net.filter(), node.net.marked());
    let is_back = || before == (node.net.filter(), node.net.marked());
    let mut mount = HungMount::over_etc_pve(&node);
    for _ in 0..2 {
        node.net.sh("nft flush ruleset; ip neigh flush nud permanent proto 121");
        guard.within(PATIENCE, "the last known protection is put back", is_back);
    }
    guard.says("/etc/pve` does not answer; what protects now stays as it is");
    mount.kill_daemon();
    guard.says("is stale, because pmxcfs has ended: Transport endpoint is not connected (os error 107)");
    guard.says("hint: `systemctl restart pve-cluster`");
    node.net.sh("nft flush ruleset");
    guard.within(PATIENCE, "it is put back once more", is_back);
    mount.unmount();
    guard.says("all is well again");
    guard.rests();
    node.is_in_line();
    // A hung reader does not keep the service from ending, nor who examines the node.
    let _mount = HungMount::over_etc_pve(&node);
    node.net.sh("nft flush ruleset");
    guard.within(PATIENCE, "it is put back by a guard that waits for its files", is_back);
    let run = node.run("doctor");
    let silence = format!(
        "not checked, because `{}` did not answer within 5 s: registry-broken, ",
        node.tree.path("etc/pve").display()
    );
    assert!(run.code == 3 && run.out.contains(&silence), "{run}");
    guard.stop(Signal::SIGTERM);
}

#[test]
fn what_routed_guests_need_comes_back_at_once() {
    let node = Node::new();
    node.net.sh("ip addr flush dev vmbr0 scope global");
    node.net.sh(PROVIDER);
    node.run(CREATE_ROUTED).ok();
    node.run("assign 100 192.0.2.10 2001:db8:1::10 --no-hookscript").ok();
    let guard = Guard::start(&node);
    let net = &node.net;
    let before = net.support();
    // Plugged in and pulled out without any hook.
    let set = |name: &str, value: u8| net.support().contains(&format!("{name}:{value}"));
    net.sh("ip link add tap100i0 type veth peer name gap100i0; ip link set gap100i0 up; ip link set tap100i0 master vmbr0 up");
    let is_well = || set("ipv6/conf/wan0/proxy_ndp", 1) && node.run("verify").code == 0;
    guard.within(PATIENCE, "the guest has what it needs", is_well);
    guard.rests();
    let running = net.support();
    let forwarding6 = if Path::new("/proc/sys/net/ipv6/conf/all/force_forwarding").exists() {
        let meaning = "what comes in on vmbr0 does not reach routed guests, or the world from them, by IPv6";
        ("ipv6/conf/vmbr0/force_forwarding", meaning)
    } else {
        ("ipv6/conf/all/forwarding", "routed guests have no IPv6 beyond this node")
    };
    for (setting, meaning) in [
        (
            "ipv4/conf/vmbr0/forwarding",
            "what comes in on vmbr0 does not reach routed guests, or the world from them, by IPv4",
        ),
        forwarding6,
        ("ipv6/conf/wan0/proxy_ndp", "nobody answers for routed guests' IPv6 addresses on wan0"),
    ] {
        guard.repairs(&format!("echo 0 > /proc/sys/net/{setting}"), || set(setting, 1));
        assert!(guard.log().contains(&format!("repaired: net/{setting} is not 1: {meaning}")), "{}", guard.log());
    }
    guard.repairs("ip addr del 169.254.0.1/32 dev vmbr0", || net.support() == running);
    assert!(guard.log().contains("repaired: the gateway 169.254.0.1 is not on vmbr0: routed guests reach nothing"));
    // The node finds another way to the provider.
    guard.repairs(
        "ip link add wan1 type bridge; ip link set wan1 up; ip route replace default dev wan1; ip -6 route replace default dev wan1",
        || net.sh("ip neigh show proxy").lines().filter(|line| line.contains(" dev wan1 ")).count() == 2,
    );
    assert!(set("ipv4/conf/wan1/forwarding", 1) && set("ipv4/conf/wan0/forwarding", 0), "{:?}", net.support());
    guard.repairs("ip link del wan1; ip route add default dev wan0; ip -6 route add default dev wan0", || {
        net.support() == running
    });
    guard.repairs("ip link del tap100i0", || net.support() == before);
}

/// A port of the bridge with a machine behind it.
fn machine_behind(node: &Node, port: &str, mac: &str, address: &str) -> Namespace {
    let machine = Namespace::new();
    node.net.sh(&format!("ip link add {port} type veth peer name inside && ip link set {port} master vmbr0 up"));
    node.net.sh(&format!("ip link set inside netns /proc/{}/ns/net", machine.pid()));
    machine.sh(&format!("ip link set inside address {mac} up && ip addr add {address} dev inside"));
    machine
}

/// It speaks for its address: asks for somebody who is not there.
fn speak(machine: &Namespace) {
    machine.sh("ping -q -c 1 -W 1 203.0.113.77 >/dev/null || true");
}

#[test]
fn who_claims_what_somebody_else_has_is_told_once() {
    let node = with_guest();
    node.tree.write("etc/pve/public-ip/nodes/n1.json", r#"{"version": 1, "log_group": 121}"#);
    let guard = Guard::start(&node);
    let outside = machine_behind(&node, "eno1", "02:00:00:00:00:99", "203.0.113.10/24");
    let other = machine_behind(&node, "tap200i0", "02:00:00:aa:bb:02", "203.0.113.10/24");
    let twin = machine_behind(&node, "tap201i0", "02:00:00:aa:bb:00", "203.0.113.250/24");
    guard.rests();
    let sentences = || -> Vec<String> {
        let data = node.run("conflicts list --output-format json").ok().json();
        let found = data["conflicts"].as_array().unwrap().iter();
        let line = |one: &serde_json::Value| {
            format!("{}{}", one["sentence"].as_str().unwrap(), if one["blocks"] == true { "!" } else { "" })
        };
        let mut found: Vec<String> = found.map(line).collect();
        found.sort_unstable();
        found
    };
    let expected = [
        "MAC 02:00:00:00:00:99 on eno1 claims 203.0.113.10, which is guest 100's!",
        "guest 200 (tap200i0, MAC 02:00:00:aa:bb:02) tried to use 203.0.113.10, which is guest 100's",
        "guest 201 (tap201i0, MAC 02:00:00:aa:bb:00) tried to use MAC 02:00:00:aa:bb:00, which is guest 100's",
    ];
    let started = Instant::now();
    while sentences() != expected {
        assert!(started.elapsed() < PATIENCE, "{:?}\n{}", sentences(), guard.log());
        [&outside, &other, &twin].into_iter().for_each(speak);
    }
    for _ in 0..3 {
        speak(&outside);
    }
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(sentences(), expected);
    assert_eq!(guard.count("conflict: MAC 02:00:00:00:00:99 was seen on eno1, for 203.0.113.10"), 1, "{}", guard.log());
    assert_eq!(guard.count("conflict: "), 3, "{}", guard.log());

    // The address stays with its guest, and goes to nobody after it while it is claimed.
    node.run("pool set ovh-rbx --cool-down 0").ok();
    node.run("release 100 --no-hookscript").ok();
    let given = node.run("assign 101 -4 --no-hookscript --no-probe --dry-run").ok();
    assert!(given.out.starts_with("203.0.113.11 would be assigned"), "{given}");
    node.run("conflicts ack --all").ok();
    let given = node.run("assign 101 -4 --no-hookscript --no-probe --dry-run").ok();
    assert!(given.out.starts_with("203.0.113.10 would be assigned"), "{given}");
    guard.stop(Signal::SIGTERM);
}

#[test]
fn what_is_changed_by_hand_or_elsewhere_is_written_down() {
    let node = with_guest();
    let guard = Guard::start(&node);
    node.tree.assign_by_hand(200, "02:00:00:aa:bb:02", "203.0.113.12/32", "ovh-rbx");
    let log = || node.tree.read("var/lib/pve-public-ip/audit.log");
    let is_found = || {
        let found =
            |line: &str| line.contains("\"event\":\"assigned\",\"vmid\":200") && line.contains("\"found\":true");
        log().lines().any(found)
    };
    guard.within(PATIENCE, "the audit log knows it", is_found);
    guard.repairs("nft flush ruleset", || node.net.filter().is_some());
    guard.within(PATIENCE, "the repair is written down", || log().contains("\"event\":\"repaired\""));
    assert_eq!(log().matches("\"vmid\":200").count(), 1, "{}", log());
    guard.stop(Signal::SIGTERM);
}

/// What somebody else made where ours is wanted: what is right is left, and what differs keeps the guard from nothing else.
#[test]
fn somebody_elses_state_is_left_and_the_rest_is_repaired() {
    let node = Node::with_pool();
    node.net.sh(PROVIDER);
    node.run(CREATE_ROUTED).ok();
    for (vmid, address) in [(100, "192.0.2.9"), (101, "192.0.2.10")] {
        node.run(&format!("assign {vmid} {address} --no-hookscript --no-probe")).ok();
    }
    let guard = Guard::start(&node);
    node.net.sh("ip route add 192.0.2.10 dev vmbr0; ip route add 192.0.2.9 dev wan0");
    for vmid in [100, 101] {
        node.run(&format!("hook {vmid} pre-start")).ok();
        node.plug(&format!("tap{vmid}i0"));
    }
    node.run("hook 100 post-start").fails_with(1, &["has a route that this program did not make"]);
    node.run("hook 101 post-start").ok();
    guard.rests();
    let routes = || node.net.sh("ip route show 192.0.2.10; ip route show 192.0.2.9");
    let before = routes();
    assert!(!before.contains("proto 121"), "{before}");
    // Everything else of the same guests, and of others, is put back; the two routes stay as they are.
    for script in ["nft flush ruleset", "ip neigh del 192.0.2.10 dev vmbr0"] {
        node.net.sh(script);
        let is_well = || {
            let verify = node.run("verify");
            verify.code == 1 && verify.out.matches("problem: ").count() == 1 && !verify.out.contains("drift: ")
        };
        guard.within(PATIENCE, script, is_well);
        assert_eq!(routes(), before, "{script}");
    }
    let said = guard.count("192.0.2.9/32 has a route that this program did not make");
    assert!((1..=2).contains(&said), "it is said once, not at every look: {said}\n{}", guard.log());
    // What stood in the way goes: the guard sees it by itself.
    node.net.sh("ip route del 192.0.2.9 dev wan0");
    guard.within(PATIENCE, "the route of guest 100", || routes().contains("192.0.2.9 dev vmbr0 proto 121"));
    node.is_in_line();
}

/// It starts while `/etc/pve` is down, as after a boot without pmxcfs: what was known last is put in place, and stays there.
#[test]
fn a_guard_that_starts_without_the_cluster_protects_by_what_was_known_last() {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript --no-probe").ok();
    node.run("apply").ok();
    let before = node.net.filter();
    assert!(before.is_some());
    node.tree.write("var/lib/pve-cluster/config.db", "");
    fs::rename(node.tree.path("etc/pve"), node.tree.path("etc/pve.aside")).unwrap();
    fs::create_dir(node.tree.path("etc/pve")).unwrap();
    node.net.sh("nft flush ruleset");
    fs::remove_dir_all(node.tree.path("run/pve-public-ip")).unwrap();
    let guard = Guard::start(&node);
    guard.says("until then by what was known last");
    guard.says("the cluster file system is not mounted");
    guard.within(PATIENCE, "the filter by the copies", || node.net.filter() == before);
    node.net.sh("nft flush ruleset");
    guard.within(PATIENCE, "the filter after a flush", || node.net.filter() == before);
    assert!(RunState::guard_note(&Paths::new(node.tree.root().to_owned())).unwrap().trouble.is_some());
}
