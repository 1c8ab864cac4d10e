//! The program is killed in front of every system call that changes something, one after the other, each time on a
//! fresh node. Whatever it left behind: the registry is whole, nothing is held twice or half given, `verify` tells the
//! truth, `apply` repairs, and the same command finishes the work.
//!
//! `strace` does the killing (`inject=...:signal=SIGKILL:when=N`), so no timing is involved. Between two of the
//! calls in `common::strace` the process only looks and computes, so a kill there leaves what a kill at the next one leaves.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use common::strace::{Point, killed, points};
use common::{CREATE, CREATE_ROUTED, Node, PROVIDER, need};
use pve_public_ip::model::{NicId, Vmid};
use pve_public_ip::paths::Paths;
use pve_public_ip::registry::Registry;
use pve_public_ip::registry::document::{Assigned, Interface};
use pve_public_ip::store::Store;

/// What a command does to a node.
struct Scenario {
    /// The command that is killed.
    command: &'static str,
    /// What comes before it.
    prepare: fn(&Node),
    /// What the command says when a killed run had done its part in the registry already, if not the usual.
    again: Option<&'static str>,
    /// Fewer points than this would mean that the killing does not work.
    at_least: usize,
}

#[test]
fn pool_create() {
    killed_everywhere(&Scenario {
        command: CREATE,
        prepare: |_| {},
        again: Some(
            "error: cannot create pool `ovh-rbx`: pool `ovh-rbx` exists already\n\
             hint: to add addresses: `pve-public-ip pool add ovh-rbx ADDRESS`\n",
        ),
        at_least: 12,
    });
}

#[test]
fn assign() {
    killed_everywhere(&Scenario {
        command: "assign 100 203.0.113.10 2001:db8:0:1::10",
        prepare: |node| {
            node.run(CREATE).ok();
            node.run("assign 101 203.0.113.11").ok();
        },
        again: None,
        at_least: 12,
    });
}

#[test]
fn release() {
    killed_everywhere(&Scenario {
        command: "release 100",
        prepare: |node| {
            node.tree.qemu(100, "hookscript: local:snippets/own.sh\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
            node.run(CREATE).ok();
            node.run("assign 100 203.0.113.10 2001:db8:0:1::10").ok();
            node.run("assign 101 203.0.113.11").ok();
        },
        again: None,
        at_least: 12,
    });
}

/// Where all pools are in one file: that and those of the pool's guests are written.
#[test]
fn pool_set_gateway_in_the_file_of_all_pools() {
    killed_everywhere(&Scenario {
        command: "pool set ovh-rbx --gateway4 203.0.113.9",
        prepare: |node| {
            node.begin_as_before();
            node.run(CREATE).ok();
            node.run("assign 100 203.0.113.10").ok();
            node.run("assign 101 203.0.113.11").ok();
        },
        again: None,
        at_least: 12,
    });
}

/// Two pools that guests hold addresses of get a file each.
#[test]
fn registry_convert() {
    killed_everywhere(&Scenario {
        command: "registry convert",
        prepare: |node| {
            node.begin_as_before();
            node.run(CREATE).ok();
            node.run("pool create lan --profile generic-bridged --bridge vmbr0 198.18.0.0/29").ok();
            node.run("assign 100 203.0.113.10").ok();
            node.run("assign 101 198.18.0.2 --no-probe").ok();
            node.tree.write("etc/pve/public-ip/pools/gone.json", "{");
        },
        again: None,
        at_least: 12,
    });
}

/// The files of the pool and of its guests are written.
#[test]
fn pool_set_gateway() {
    killed_everywhere(&Scenario {
        command: "pool set ovh-rbx --gateway4 203.0.113.9",
        prepare: |node| {
            node.run(CREATE).ok();
            node.run("assign 100 203.0.113.10").ok();
            node.run("assign 101 203.0.113.11").ok();
        },
        again: None,
        at_least: 12,
    });
}

/// A guest that is told by cloud-init: by a document of its own.
const TOLD: &str = "ide2: local:cloudinit,media=cdrom\nipconfig0: ip=dhcp\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n\
    smbios1: uuid=2e5bd7c2-0ed6-4a3a-9b87-6d3a1f1b6c11\n";

#[test]
fn assign_and_tell() {
    killed_everywhere(&Scenario {
        command: "assign 100 203.0.113.10 203.0.113.11",
        prepare: |node| {
            node.tree.qemu(100, TOLD);
            node.run(CREATE).ok();
        },
        again: None,
        at_least: 24,
    });
}

#[test]
fn release_and_take_back() {
    killed_everywhere(&Scenario {
        command: "release 100",
        prepare: |node| {
            node.tree.qemu(100, TOLD);
            node.run(CREATE).ok();
            node.run("assign 100 203.0.113.10 203.0.113.11").ok();
        },
        again: None,
        at_least: 16,
    });
}

#[test]
fn pre_start() {
    killed_everywhere(&Scenario {
        command: "hook 100 pre-start",
        prepare: |node| {
            node.run(CREATE).ok();
            node.run("assign 100 203.0.113.10 2001:db8:0:1::10").ok();
        },
        again: None,
        at_least: 9,
    });
}

#[test]
fn post_start() {
    killed_everywhere(&Scenario {
        command: "hook 100 post-start",
        prepare: |node| {
            node.run(CREATE).ok();
            node.run("assign 100 203.0.113.10 2001:db8:0:1::10").ok();
            node.run("hook 100 pre-start").ok();
            node.plug("tap100i0");
        },
        again: None,
        at_least: 12,
    });
}

#[test]
fn post_stop() {
    killed_everywhere(&Scenario {
        command: "hook 100 post-stop",
        prepare: |node| {
            node.run(CREATE).ok();
            node.run("assign 100 203.0.113.10 2001:db8:0:1::10").ok();
            node.run("hook 100 pre-start").ok();
            node.plug("tap100i0");
            node.run("hook 100 post-start").ok();
            node.unplug("tap100i0");
        },
        again: None,
        at_least: 9,
    });
}

/// Guest 100 is ready to be started, with routed addresses on a node that is no router.
fn routed(node: &Node) {
    node.net.sh("ip addr flush dev vmbr0 scope global");
    node.net.sh(PROVIDER);
    node.run(CREATE_ROUTED).ok();
    node.run("assign 100 192.0.2.10 2001:db8:1::10").ok();
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
}

#[test]
fn post_start_of_a_routed_guest() {
    killed_everywhere(&Scenario { command: "hook 100 post-start", prepare: routed, again: None, at_least: 30 });
}

#[test]
fn post_stop_of_a_routed_guest() {
    killed_everywhere(&Scenario {
        command: "hook 100 post-stop",
        prepare: |node| {
            routed(node);
            node.run("hook 100 post-start").ok();
            node.unplug("tap100i0");
        },
        again: None,
        at_least: 30,
    });
}

/// One of the `nft` that `apply` starts dies, in front of its transaction or just behind it.
#[test]
fn nft_killed_while_it_loads_the_filter() {
    need(&["strace", "nft"]);
    for (call, which) in [("sendmsg", 1), ("exit_group", 1), ("sendmsg", 2), ("exit_group", 2)] {
        let node = fresh(&|node| {
            node.run(CREATE).ok();
            node.net.sh("nft flush ruleset");
        });
        let expected = ["the sets", "the rules"][which - 1];
        let runs = node.tree.path("nft-runs");
        let script = format!(
            "[ \"$1\" != -c ] || exec /usr/sbin/nft \"$@\"\necho run >> {runs}\n[ $(wc -l < {runs}) = {which} ] || exec /usr/sbin/nft \"$@\"\n\
             exec strace -qq -o /dev/null -e trace={call} -e inject={call}:signal=SIGKILL /usr/sbin/nft \"$@\"\n",
            runs = runs.display()
        );
        let stand_in = node.tree.script("stand-ins/nft", &script);
        let run = node.run("apply");
        let problem = format!(
            "problem: cannot load {expected} of table bridge pve-public-ip: `nft -f -` failed (signal: 9 (SIGKILL))"
        );
        assert!(run.code == 1 && run.out.contains(&problem) && run.out.contains("  hint: "), "{run}");
        assert!(!run.out.contains("nothing to do"), "{run}");
        fs::remove_file(stand_in).unwrap();
        verify_tells_the_truth_and_apply_repairs(&node, &format!("{call} of nft run {which}"));
    }
}

fn fresh(prepare: &dyn Fn(&Node)) -> Node {
    let mut node = Node::new();
    // Hundreds of nodes with a dozen commands each; who waits for a command is not what is tested here.
    node.net.is_unattended = true;
    node.stand_in_proxmox();
    prepare(&node);
    node
}

/// A node that has run since its boot: what its rules look like in this kernel is known, which takes most of the time
/// of a first command. The first is killed in `pool_create`.
fn booted(scenario: &Scenario, rules: &str) -> Node {
    fresh(&|node| {
        if scenario.command != CREATE {
            node.tree.write("run/pve-public-ip/rules", rules);
            fs::set_permissions(node.tree.path("run/pve-public-ip"), fs::Permissions::from_mode(0o700)).unwrap();
        }
        (scenario.prepare)(node);
    })
}

fn killed_everywhere(scenario: &Scenario) {
    need(&["strace"]);
    let node = fresh(&scenario.prepare);
    let before = held(&node);
    let (run, points) = points(&node, scenario.command);
    run.ok();
    let expected = End::of(&node);
    assert!(points.len() >= scenario.at_least, "`{}` has {} points only: {points:?}", scenario.command, points.len());

    let rules = node.tree.read("run/pve-public-ip/rules");
    for Point { call, count, line } in points {
        let node = booted(scenario, &rules);
        let at = format!("`{}` killed in front of {line}", scenario.command);
        let run = killed(&node, scenario.command, &call, count);
        assert_eq!(run.code, 128 + 9, "{at}: {run}");
        settle_orphans(&node);

        // Proxmox VE would not start a guest that names a snippet which is not there.
        assert_eq!(missing_snippets(&node), Vec::<String>::new(), "{at}");
        let now = held(&node);
        assert_eq!(not_cooling(&node, &before, &now), [""; 0], "{at}: released, and handed out again at once");
        assert!(now == before || now == expected.held, "{at}: {now:?} is neither {before:?} nor {:?}", expected.held);
        verify_tells_the_truth_and_apply_repairs(&node, &at);
        assert!(held(&node) == now, "{at}: apply changed the registry");

        let started = Instant::now();
        let again = node.run(scenario.command);
        // Nothing is waited for: a lock would be, for 30 s.
        assert!(started.elapsed() < Duration::from_secs(25), "{at}: took {:?} again: {again}", started.elapsed());
        if again.code != 0 {
            assert_eq!(Some(again.err.as_str()), scenario.again, "{at}: {again}");
            assert_eq!(now, expected.held, "{at}: {again}");
        }
        node.is_in_line();
        assert_eq!(audited(&node), registry(&node).assignments().map(holder).collect::<BTreeSet<_>>(), "{at}: {again}");
        let end = End::of(&node);
        assert!(end == expected, "{at}: {again}\n{}", expected.against(&end));
    }
}

/// Where a command leads: the same whether it was killed before or not.
#[derive(Debug, PartialEq)]
struct End {
    held: BTreeSet<String>,
    gateways: Vec<String>,
    snippets: Vec<String>,
    configs: Vec<String>,
    left_overs: Vec<String>,
    marked: Vec<String>,
    support: Vec<String>,
    filter: Vec<String>,
}

impl End {
    fn of(node: &Node) -> Self {
        Self {
            held: held(node),
            gateways: gateways(node),
            snippets: snippets(node),
            configs: configs(node),
            left_overs: left_overs(node),
            marked: node.net.marked(),
            support: node.net.support(),
            filter: node.net.filter().unwrap_or_default(),
        }
    }

    /// What is different, line by line.
    fn against(&self, other: &Self) -> String {
        let lines = |end: &Self| -> BTreeSet<String> {
            let parts =
                [&end.gateways, &end.snippets, &end.configs, &end.left_overs, &end.marked, &end.support, &end.filter];
            parts.into_iter().flatten().chain(&end.held).cloned().collect()
        };
        let (one, two) = (lines(self), lines(other));
        format!(
            "missing {:?}, too much {:?}",
            one.difference(&two).collect::<Vec<_>>(),
            two.difference(&one).collect::<Vec<_>>()
        )
    }
}

/// Waits for what the killed process had started: it would end by itself, and is not what is tested here.
fn settle_orphans(node: &Node) {
    let limit = Instant::now() + Duration::from_secs(60);
    while node.net.processes() > 1 {
        assert!(Instant::now() < limit, "something still runs in the namespace");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether all that differs is what a stopped guest would find inside: the killed command writes it when it is repeated,
/// `apply` does not.
fn is_only_untold(out: &str) -> bool {
    let mut drift = out.lines().filter(|line| line.starts_with("drift: ")).peekable();
    drift.peek().is_some() && drift.all(|line| line.contains(" is not told of "))
}

/// `verify` says 0 only if `apply` then has nothing to do and changes nothing, and 3 only if there is something.
fn verify_tells_the_truth_and_apply_repairs(node: &Node, at: &str) {
    let verify = node.run("verify");
    assert!(matches!(verify.code, 0 | 3) && verify.err.is_empty(), "{at}: {verify}");
    let differs = verify.code == 3 && !is_only_untold(&verify.out);
    let state = || (node.net.filter(), node.net.marked(), node.net.support());
    let before = state();
    let apply = node.run("apply").ok();
    let changed = before != state();
    assert_eq!(apply.out.starts_with("nothing to do\n"), !differs, "{at}: {verify}\n{apply}");
    assert!(differs || !changed, "{at}: {verify}\n{apply}");
    let verified = node.run("verify");
    // Before there is a pool there is nothing to protect.
    let is_quiet = is_only_untold(&verified.out)
        || verified.out.contains("the kernel is as it should be")
        || verified.out.contains("nothing to protect yet");
    assert!(is_quiet, "{at}: {verified}");
}

fn registry(node: &Node) -> Registry {
    let store = Store::new(&Paths::new(node.tree.root()), &"n1".parse().unwrap());
    let registry = store.load().unwrap().registry;
    assert_eq!(registry.broken, [], "a file is not whole");
    assert_eq!(registry.conflicts(), [], "something is held twice");
    registry
}

/// Pools' entries and who holds what.
fn held(node: &Node) -> BTreeSet<String> {
    let registry = registry(node);
    let entries = registry.pools.pools.iter().flat_map(|(name, pool)| {
        std::iter::once(format!("pool {name}"))
            .chain(pool.addresses.iter().map(move |entry| format!("{name} {}", entry.address)))
    });
    entries.chain(registry.assignments().map(holder)).collect()
}

fn holder((vmid, nic, interface, assigned): (Vmid, NicId, &Interface, &Assigned)) -> String {
    format!("{vmid} {nic} {} {}", interface.mac, assigned.address)
}

/// What the guests have as gateways.
fn gateways(node: &Node) -> Vec<String> {
    let registry = registry(node);
    registry.assignments().map(|holding| format!("{} by {:?}", holding.3.address, holding.3.gateway)).collect()
}

/// Who holds what by the audit log. What the killed process did may be in it twice, and is never missing.
fn audited(node: &Node) -> BTreeSet<String> {
    let mut held = BTreeSet::new();
    let audit = node.run("audit --output-format json").ok().json();
    for entry in audit["entries"].as_array().unwrap() {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let holder = format!("{} {} {} {}", entry["vmid"], text("interface"), text("mac"), text("address"));
        match text("event").as_str() {
            "assigned" => drop(held.insert(holder)),
            "released" => drop(held.remove(&holder)),
            _ => {}
        }
    }
    held
}

/// Addresses that a guest gave back and that do not cool down.
fn not_cooling(node: &Node, before: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    let cooling: Vec<String> = registry(node).released.addresses.keys().map(ToString::to_string).collect();
    let released = before.difference(now).filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    let addresses = released.filter_map(|line| line.rsplit(' ').next());
    addresses.filter(|address| !cooling.contains(&(*address).to_owned())).map(str::to_owned).collect()
}

/// The guests' own configurations.
fn configs(node: &Node) -> Vec<String> {
    [100, 101].iter().map(|vmid| node.tree.read(&format!("etc/pve/nodes/n1/qemu-server/{vmid}.conf"))).collect()
}

/// Names of the snippets; a killed process may leave a temporary file.
fn snippets(node: &Node) -> Vec<String> {
    let entries = fs::read_dir(node.tree.path("var/lib/vz/snippets")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.contains(".tmp.")).collect();
    names.sort_unstable();
    names
}

/// Snippets that guests name and that are not there.
fn missing_snippets(node: &Node) -> Vec<String> {
    let configs = configs(node);
    let lines = configs.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("cicustom: "));
    let volumes = lines.flat_map(|line| line.split(',')).filter_map(|part| part.split_once(":snippets/"));
    let there = snippets(node);
    volumes.filter(|(_, name)| !there.contains(&(*name).to_owned())).map(|(_, name)| name.to_owned()).collect()
}

/// What nobody will ever clean up: lock directories and guests' files without an address. Temporary files of a killed
/// process are hidden, ignored, and replaced by the next process with its number.
fn left_overs(node: &Node) -> Vec<String> {
    let names = |directory: &str| -> Vec<String> {
        let entries = fs::read_dir(node.tree.path(directory)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let empty = registry(node).guests;
    let empty = empty.values().filter(|guest| guest.is_empty());
    let empty: Vec<String> = empty.map(|guest| format!("empty file of guest {}", guest.vmid)).collect();
    names("etc/pve/priv/lock").into_iter().chain(empty).collect()
}
