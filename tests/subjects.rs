//! One subject's trouble stays its own: for every kind of step somebody else's state that is right already, one that
//! differs, and a kernel that refuses. Whatever it is, the other guests go on starting, running and stopping.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use common::{CREATE, CREATE_ROUTED, Node, PROVIDER, Run};

/// What becomes of guest 100 because of it.
#[derive(Clone, Copy)]
enum Then {
    /// Nothing: it is as good as ours.
    Fine,
    /// A problem with these words, which its hint solves.
    Cured(&'static str),
}

struct Case {
    name: &'static str,
    /// Somebody does this between pre-start and post-start of guest 100.
    script: &'static str,
    then: Then,
    /// Prints what somebody made: the same before, while it runs and when it has gone.
    made: &'static str,
}

const CASES: &[Case] = &[
    Case {
        name: "a route, identical",
        script: "ip route add 192.0.2.9 dev vmbr0",
        then: Then::Fine,
        made: "ip route show 192.0.2.9",
    },
    Case {
        name: "a route, identical, with a metric and a source",
        script: "ip route add 192.0.2.9 dev vmbr0 metric 50 src 203.0.113.250",
        then: Then::Fine,
        made: "ip route show 192.0.2.9 metric 50",
    },
    Case {
        name: "a route, worse",
        script: "ip route add 192.0.2.9 dev wan0 metric 50",
        then: Then::Fine,
        made: "ip route show 192.0.2.9 metric 50",
    },
    Case {
        name: "a route, differing",
        script: "ip route add 192.0.2.9 dev wan0",
        then: Then::Cured(
            "192.0.2.9/32 has a route that this program did not make (`192.0.2.9/32 dev wan0`), so that it does not lead to vmbr0",
        ),
        made: "",
    },
    Case {
        name: "a route, by a neighbour",
        script: "ip route add 192.0.2.9 via 203.0.113.77 dev vmbr0",
        then: Then::Cured("(`192.0.2.9/32 via 203.0.113.77 dev vmbr0`)"),
        made: "",
    },
    Case {
        name: "a route into nothing",
        script: "ip route add blackhole 192.0.2.9",
        then: Then::Cured("(`blackhole 192.0.2.9/32`)"),
        made: "",
    },
    Case {
        name: "an IPv6 route, identical",
        script: "ip route add 2001:db8:1::9 dev vmbr0",
        then: Then::Fine,
        made: "ip -6 route show 2001:db8:1::9",
    },
    Case {
        name: "an IPv6 route, differing",
        script: "ip route add 2001:db8:1::9 dev wan0",
        then: Then::Cured("(`2001:db8:1::9/128 dev wan0`)"),
        made: "",
    },
    Case {
        name: "an IPv6 route, differing and better",
        script: "ip route add 2001:db8:1::9 dev wan0 metric 10",
        then: Then::Cured("(`2001:db8:1::9/128 dev wan0 metric 10`)"),
        made: "",
    },
    Case {
        name: "an IPv6 route into nothing",
        script: "ip -6 route add unreachable 2001:db8:1::9",
        then: Then::Cured("(`unreachable 2001:db8:1::9/128`)"),
        made: "",
    },
    Case {
        name: "a neighbour, identical",
        script: "ip neigh add 192.0.2.9 lladdr 02:00:00:aa:bb:00 dev vmbr0 nud permanent",
        then: Then::Fine,
        made: "ip neigh show 192.0.2.9 dev vmbr0",
    },
    Case {
        name: "a neighbour, differing",
        script: "ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:99 dev vmbr0 nud permanent",
        then: Then::Cured(
            "192.0.2.9 has a permanent neighbour on vmbr0 that this program did not make: 02:00:00:00:00:99, and not 02:00:00:aa:bb:00",
        ),
        made: "",
    },
    Case {
        name: "an IPv6 neighbour, differing",
        script: "ip neigh add 2001:db8:1::9 lladdr 02:00:00:00:00:99 dev vmbr0 nud permanent",
        then: Then::Cured("2001:db8:1::9 has a permanent neighbour on vmbr0 that this program did not make"),
        made: "",
    },
    Case {
        name: "a neighbour that the kernel has learnt",
        script: "ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:99 dev vmbr0 nud reachable",
        then: Then::Fine,
        made: "",
    },
    Case {
        name: "a proxy entry",
        script: "ip neigh add proxy 192.0.2.9 dev wan0",
        then: Then::Fine,
        made: "ip neigh show proxy 192.0.2.9 dev wan0",
    },
    Case {
        name: "the gateway, identical",
        script: "ip addr add 169.254.0.1/32 dev vmbr0",
        then: Then::Fine,
        made: "ip -o addr show dev vmbr0 to 169.254.0.1",
    },
    Case {
        name: "the gateway, with its network",
        script: "ip addr add 169.254.0.1/16 dev vmbr0",
        then: Then::Fine,
        made: "ip -o addr show dev vmbr0 to 169.254.0.1",
    },
    Case {
        name: "a setting, identical",
        script: "echo 1 > /proc/sys/net/ipv4/conf/wan0/forwarding",
        then: Then::Fine,
        made: "cat /proc/sys/net/ipv4/conf/wan0/forwarding",
    },
    Case {
        name: "a forwarding entry, identical",
        script: "bridge fdb add 02:00:00:aa:bb:00 dev tap100i0 master static sticky",
        then: Then::Fine,
        made: "",
    },
    Case {
        name: "a forwarding entry, elsewhere",
        script: "bridge fdb add 02:00:00:aa:bb:00 dev veth200i0 master static",
        then: Then::Fine,
        made: "",
    },
];

/// Guests 100 and 101 hold routed addresses, 200 a bridged one and runs.
fn node() -> Node {
    let node = Node::new();
    node.net.sh(PROVIDER);
    node.run(CREATE).ok();
    node.run(&format!("{CREATE_ROUTED} --uplink-guard off")).ok();
    node.run("assign 100 192.0.2.9 2001:db8:1::9 --no-hookscript --no-probe").ok();
    node.run("assign 101 192.0.2.10 --no-hookscript --no-probe").ok();
    node.run("assign 200 203.0.113.11 --no-hookscript --no-probe").ok();
    start(&node, 200, "veth200i0");
    node
}

#[track_caller]
fn start(node: &Node, vmid: u32, port: &str) {
    node.run(&format!("hook {vmid} pre-start")).ok();
    node.plug(port);
    node.run(&format!("hook {vmid} post-start")).ok();
}

#[track_caller]
fn stop(node: &Node, vmid: u32, port: &str) {
    node.unplug(port);
    node.run(&format!("hook {vmid} post-stop")).ok();
}

/// The first command of a hint, run as an administrator would.
#[track_caller]
fn follow(node: &Node, run: &Run) {
    let text = format!("{}{}", run.out, run.err);
    let (_, rest) = text.split_once("hint: `").unwrap_or_else(|| panic!("no command: {run}"));
    let (command, _) = rest.split_once('`').unwrap();
    let program = format!("{} --root {}", common::BINARY, node.tree.root().display());
    node.net.sh(&command.replace("pve-public-ip", &program));
}

/// Guest 101 starts, is reached, and stops.
#[track_caller]
fn others_are_well(node: &Node) {
    start(node, 101, "tap101i0");
    let marked = node.net.marked();
    assert!(marked.iter().any(|line| line.starts_with("192.0.2.10 dev vmbr0 scope link")), "{marked:?}");
    assert!(marked.iter().any(|line| line.starts_with("192.0.2.10 dev vmbr0 lladdr 02:00:00:aa:bb:01")), "{marked:?}");
    assert!(node.net.sh("ip neigh show proxy dev wan0").contains("192.0.2.10"));
    let status = node.run("status").ok().out;
    assert!(status.lines().any(|line| line.contains("tap101i0") && line.contains("| protected |")), "{status}");
    stop(node, 101, "tap101i0");
}

#[test]
fn whoever_made_it() {
    for Case { name, script, then, made } in CASES {
        let node = node();
        eprintln!("--- {name}");
        node.run("hook 100 pre-start").ok();
        node.plug("tap100i0");
        node.net.sh(script);
        let before = if made.is_empty() { String::new() } else { node.net.sh(made) };
        assert!(made.is_empty() || !before.is_empty(), "{name}");
        let post_start = node.run("hook 100 post-start");
        others_are_well(&node);
        let (apply, verify) = (node.run("apply"), node.run("verify"));
        match then {
            Then::Fine => {
                post_start.ok();
                apply.prints("nothing to do\n");
                node.is_in_line();
            }
            Then::Cured(words) => {
                post_start.clone().fails_with(1, &[words]);
                for run in [&apply, &verify] {
                    let problem = format!("problem: guest 100: {}", words.trim_start_matches('('));
                    let said = run.out.contains(words) && run.out.contains("problem: guest 100: ");
                    assert!(said && run.code == 1, "{name}: {problem}: {run}");
                    assert!(!run.out.contains("guest 101") && !run.out.contains("drift: "), "{name}: {run}");
                }
                // What is not led to the guest is not asked for, either.
                let proxies = node.net.sh("ip neigh show proxy dev wan0");
                assert!(!words.contains("192.0.2.9/32") || !proxies.contains("192.0.2.9"), "{name}: {proxies}");
                follow(&node, &verify);
                node.is_in_line();
            }
        }
        let during = if made.is_empty() { String::new() } else { node.net.sh(made) };
        assert_eq!(before, during, "{name}: our mark is not put on it");
        stop(&node, 100, "tap100i0");
        let after = if made.is_empty() { String::new() } else { node.net.sh(made) };
        assert_eq!(before, after, "{name}: it stays when we go");
        node.is_in_line();
    }
}

#[test]
fn what_somebody_takes_away_is_put_back_as_ours() {
    let node = node();
    node.net.sh("ip route add 192.0.2.9 dev vmbr0; ip neigh add proxy 192.0.2.9 dev wan0;
        ip neigh add 192.0.2.9 lladdr 02:00:00:aa:bb:00 dev vmbr0 nud permanent");
    start(&node, 100, "tap100i0");
    node.is_in_line();
    node.net.sh(
        "ip route del 192.0.2.9 dev vmbr0; ip neigh del proxy 192.0.2.9 dev wan0; ip neigh del 192.0.2.9 dev vmbr0",
    );
    let run = node.run("verify").fails_with(3, &[]);
    assert_eq!(run.out.matches("drift: ").count(), 3, "{run}");
    let run = node.run("apply").ok();
    assert!(run.out.contains("3 changes made"), "{run}");
    node.is_in_line();
    let ours = |text: &str| node.net.marked().iter().any(|line| line.starts_with(text));
    assert!(ours("192.0.2.9 dev vmbr0 scope link") && ours("192.0.2.9 dev vmbr0 lladdr"), "{:?}", node.net.marked());
}

/// A pool on a bridge that is down: the kernel takes no route there.
#[test]
fn a_route_that_the_kernel_refuses() {
    let node = node();
    node.net.sh("ip link add vmbr1 address 02:00:00:00:00:fd type bridge");
    node.tree.qemu(103, "net0: virtio=02:00:00:AA:BB:03,bridge=vmbr1\n");
    node.run("pool create down --profile generic-routed --bridge vmbr1 --gateway4 169.254.0.1 198.51.100.8/29").ok();
    node.run("assign 103 198.51.100.9 --no-hookscript --no-probe").ok();
    node.run("hook 103 pre-start").ok();
    node.net.sh("ip link add tap103i0 type veth peer name gap103i0; ip link set tap103i0 master vmbr1 up");
    let words = "vmbr1 is down, so that nothing can be routed to it";
    node.run("hook 103 post-start").fails_with(1, &[words]);
    start(&node, 100, "tap100i0");
    others_are_well(&node);
    for command in ["apply", "pool add net 192.0.2.99", "assign 101 192.0.2.11 --no-hookscript --no-probe"] {
        let run = node.run(command);
        assert_eq!(run.code, i32::from(command == "apply"), "{run}");
        let problem =
            format!("problem: guest 103: {words}; not carried out, because it relies on that: + proxy 198.51.100.9");
        assert!(run.out.contains(&problem), "{run}");
        assert!(run.out.contains("\n  hint: `ip link set vmbr1 up && pve-public-ip apply`\n"), "{run}");
        assert_eq!(run.out.matches("problem: ").count(), 1, "{run}");
    }
    node.run("release 101 192.0.2.11 --no-hookscript").ok();
    // What `apply` cannot repair is no drift that it repairs.
    let verify = node.run("verify");
    assert!(verify.code == 1 && !verify.out.contains("drift: "), "{verify}");
    assert!(verify.out.contains(&format!("problem: guest 103: {words}")), "{verify}");
    follow(&node, &verify);
    node.is_in_line();
}

/// What leads traffic elsewhere although every route is in its place, or keeps a route from being there at all.
#[test]
fn what_goes_before_a_route() {
    for (name, script, words) in [
        (
            "a rule for the address",
            "ip route add default dev wan0 table 100; ip rule add to 192.0.2.8/31 lookup 100",
            "what is for 192.0.2.9/32 leaves by wan0, because a rule of policy routing goes before its route to vmbr0",
        ),
        (
            "a rule for everything",
            "ip route add default dev wan0 table 100; ip rule add pref 50 lookup 100",
            "what is for 192.0.2.9/32 leaves by wan0",
        ),
        (
            "a rule for what comes in",
            "sysctl -qw net.ipv4.conf.all.rp_filter=0; ip route add default dev wan0 table 100; \
             ip rule add iif wan0 lookup 100",
            "what is for 192.0.2.9/32 and comes in by wan0 leaves by wan0",
        ),
        ("a rule that forbids", "ip rule add to 192.0.2.9 prohibit", "what is for 192.0.2.9/32 is not delivered"),
        (
            "a rule of IPv6",
            "ip -6 route add default dev wan0 table 100; ip -6 rule add to 2001:db8:1::/64 lookup 100",
            "what is for 2001:db8:1::9/128 leaves by wan0",
        ),
        (
            "a rule for everything that has no mark",
            "ip route add default dev wan0 table 100; ip rule add not fwmark 7 lookup 100",
            "what is for 192.0.2.9/32 leaves by wan0",
        ),
        (
            "a rule for everything that jumps",
            "ip route add default dev wan0 table 100; ip rule add pref 60 lookup 100; ip rule add pref 50 goto 60",
            "what is for 192.0.2.9/32 leaves by wan0",
        ),
        (
            "a rule for everything, and the main table's behind it",
            "ip route add default dev wan0 table 100; ip rule add pref 40000 lookup 100; \
             ip rule add pref 50000 lookup main; ip rule del pref 32766",
            "what is for 192.0.2.9/32 leaves by wan0",
        ),
        (
            "a rule for everything, and the main table's for some only",
            "ip route add default dev wan0 table 100; ip rule add pref 40000 lookup 100; \
             ip rule add pref 50 fwmark 7 lookup main; ip rule add pref 60 lookup main suppress_prefixlength 32; \
             ip rule del pref 32766",
            "what is for 192.0.2.9/32 leaves by wan0",
        ),
        (
            "everything without a rule for the main table",
            "ip rule del pref 32766",
            "what is for 192.0.2.9/32 is not delivered",
        ),
    ] {
        let node = node();
        eprintln!("--- {name}");
        start(&node, 100, "tap100i0");
        node.is_in_line();
        node.net.sh(script);
        for command in ["verify", "apply"] {
            let run = node.run(command);
            assert!(run.code == 1 && run.out.contains(&format!("problem: guest 100: {words}")), "{name}: {run}");
            assert!(!run.out.contains("drift: "), "{name}: {run}");
        }
        if !name.contains("everything") && !name.contains("comes in") {
            others_are_well(&node);
        }
        follow(&node, &node.run("verify"));
        node.run("apply").ok();
        node.is_in_line();
    }
    // Rules for some packets only are the administrator's business, as are those behind the main table's.
    let node = node();
    start(&node, 100, "tap100i0");
    for family in ["", "-6"] {
        let (own, other) =
            if family.is_empty() { ("192.0.2.9", "198.51.100.0/24") } else { ("2001:db8:1::9", "fd00::/8") };
        node.net.sh(&format!("ip {family} route add default dev wan0 table 100"));
        for rule in [
            &format!("from {own} lookup 100"),
            &format!("to {other} lookup 100"),
            "fwmark 7 lookup 100",
            "tos 0x10 lookup 100",
            "ipproto tcp dport 443 lookup 100",
            "oif wan0 lookup 100",
            "iif wan9 lookup 100",
            "uidrange 1000-2000 lookup 100",
            "pref 40000 lookup 100",
            // As wg-quick makes them.
            "pref 100 lookup main suppress_prefixlength 0 && ip FAMILY rule add pref 101 not fwmark 7 lookup 100",
        ] {
            eprintln!("--- ip {family} rule add {rule}");
            node.net.sh(&format!("ip {family} rule add {}", rule.replace("FAMILY", family)));
            node.is_in_line();
        }
    }
}

/// Without IPv6 on an interface nothing of IPv6 can be had there. That is one sentence for each whom it concerns, with what
/// cures it, and nothing else is reported or keeps others from anything.
#[test]
fn an_interface_without_ipv6() {
    let words = "problem: guest 100: IPv6 is switched off on vmbr0, so that no IPv6 address can be routed to it";
    let is_all = |node: &Node| {
        for command in ["verify", "apply"] {
            let run = node.run(command);
            let problems: Vec<&str> = run.out.lines().filter(|line| line.starts_with("problem: ")).collect();
            assert!(run.code == 1 && !run.out.contains("drift: "), "{command}: {run}");
            assert!(problems.iter().any(|line| line.starts_with(words)), "{command}: {run}");
            assert!(problems.iter().all(|line| line.contains("IPv6 is switched off on vmbr0")), "{command}: {run}");
        }
    };
    let cured = |node: &Node| {
        follow(node, &node.run("verify"));
        node.run("apply").ok();
        node.is_in_line();
    };
    let script = "sysctl -qw net.ipv6.conf.vmbr0.disable_ipv6=1";

    let running = node();
    start(&running, 100, "tap100i0");
    running.is_in_line();
    running.net.sh(script);
    // The node's own link-local address has gone with it.
    running.run("apply");
    is_all(&running);
    others_are_well(&running);
    cured(&running);

    let starting = node();
    starting.net.sh(script);
    starting.run("apply");
    starting.run("hook 100 pre-start").ok();
    starting.plug("tap100i0");
    let run = starting.run("hook 100 post-start");
    assert!(run.code == 1 && run.err.contains("error: IPv6 is switched off on vmbr0"), "{run}");
    assert!(run.err.contains("hint: `sysctl -w net/ipv6/conf/vmbr0/disable_ipv6=0 && pve-public-ip apply`"), "{run}");
    others_are_well(&starting);
    is_all(&starting);
    cured(&starting);
}

/// `/proc/sys` that cannot be written, as in a container: routed guests are told, and nobody else.
#[test]
fn settings_that_cannot_be_changed() {
    let node = node();
    node.net.sh("mount --bind -o ro /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys");
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    node.run("hook 100 post-start").fails_with(1, &["cannot write `/proc/sys/net/ipv4/conf/", "Read-only file system"]);
    // The bridged one stops and starts.
    stop(&node, 200, "veth200i0");
    start(&node, 200, "veth200i0");
    let apply = node.run("apply");
    assert_eq!(apply.code, 1, "{apply}");
    assert!(apply.out.contains("problem: cannot write `/proc/sys/net/ipv4/conf/vmbr0/forwarding`"), "{apply}");
    // All else was done, with the route.
    assert!(node.net.marked().iter().any(|line| line.starts_with("192.0.2.9 dev vmbr0 scope link")));
    node.net.sh("umount /proc/sys");
    node.run("apply").ok();
    node.is_in_line();
}

/// A stand-in for `nft` that refuses what concerns a table of this family.
fn refuse_table(node: &Node, family: &str) {
    node.tree.script(
        "stand-ins/nft",
        &format!(
            "text=$(cat)\ncase \"$text\" in *'table {family}'*) echo 'Error: not today' >&2; exit 1;; esac\n\
             echo \"$text\" | exec /usr/sbin/nft \"$@\"\n"
        ),
    );
}

/// A kernel without the table for routed traffic: bridged guests do not need it, and nothing is led to routed ones.
#[test]
fn a_table_that_cannot_be_loaded() {
    let node = node();
    stop(&node, 200, "veth200i0");
    node.net.sh("nft delete table inet pve-public-ip");
    refuse_table(&node, "inet");
    start(&node, 200, "veth200i0");
    node.run("hook 100 pre-start").fails_with(1, &["cannot load the sets of table inet pve-public-ip"]);
    let apply = node.run("apply");
    assert_eq!(apply.code, 1, "{apply}");
    assert!(apply.out.contains("problem: cannot load the sets of table inet pve-public-ip"), "{apply}");
    assert!(apply.out.contains("not carried out, because it relies on that: "), "{apply}");

    // The node's own filter is another matter: nobody starts without it, and nothing is led to who runs.
    node.net.sh("nft delete table bridge pve-public-ip");
    refuse_table(&node, "bridge");
    node.run("hook 101 pre-start").fails_with(1, &["cannot load the sets of table bridge pve-public-ip"]);
    std::fs::remove_file(node.tree.path("stand-ins/nft")).unwrap();
    node.run("apply").ok();
    node.is_in_line();
}

/// An iptables that cannot be asked, as while somebody holds its lock: it is the routed guests' problem, whose filter it is, and the
/// bridged ones start, stop and are repaired.
#[test]
fn an_iptables_that_cannot_be_read() {
    let node = node();
    common::need(&["iptables-nft-save"]);
    node.run("node set --backend iptables-nft").ok();
    start(&node, 101, "tap101i0");
    for (program, script, words) in [
        (
            "iptables-nft-save",
            "echo 'Another app is currently holding the xtables lock.' >&2; exit 4",
            "holding the xtables lock",
        ),
        ("ip6tables-nft-save", "kill -SEGV $$", "cannot read ip6tables-nft -t "),
    ] {
        eprintln!("--- {program}");
        let stand_in = node.tree.script(&format!("stand-ins/{program}"), &format!("{script}\n"));
        stop(&node, 200, "veth200i0");
        node.net.sh("nft delete table bridge pve-public-ip");
        start(&node, 200, "veth200i0");
        // Who runs keeps what leads to it.
        let marked = node.net.marked();
        assert!(marked.iter().any(|line| line.starts_with("192.0.2.10 dev vmbr0 scope link")), "{marked:?}");
        let refused = node.run("hook 100 pre-start");
        assert_eq!(refused.code, 1, "{refused}");
        assert!(refused.err.contains(words) && refused.err.contains("hint: does `ip"), "{refused}");
        for command in ["apply", "verify"] {
            let run = node.run(command);
            assert!(run.code == 1 && run.out.contains("problem: cannot read ") && run.out.contains(words), "{run}");
        }
        // Done, and what is still to be done on this node is said once.
        for command in ["pool add net 192.0.2.77", "pool remove net 192.0.2.77"] {
            let run = node.run(command);
            assert!(run.code == 1 && run.out.contains("192.0.2.77") && run.err.is_empty(), "{run}");
            assert_eq!(run.out.matches("problem: ").count(), 1, "{run}");
        }
        std::fs::remove_file(stand_in).unwrap();
        node.run("apply").ok();
        node.is_in_line();
        let rules = node.net.sh("iptables-nft -S FORWARD");
        assert_eq!(rules.matches("-j PVE-PUBLIC-IP").count(), 1, "what is there is not put there twice: {rules}");
        start(&node, 100, "tap100i0");
        stop(&node, 100, "tap100i0");
    }
    // Nobody needs it any more: that something of ours may still be there is said.
    let stand_in = node.tree.script("stand-ins/iptables-nft-save", "exit 4\n");
    node.run("node set --backend nftables");
    let verify = node.run("verify");
    assert!(verify.out.contains("problem: cannot read iptables-nft -t "), "{verify}");
    std::fs::remove_file(stand_in).unwrap();
    node.run("apply").ok();
    node.is_in_line();
    assert!(!node.net.sh("iptables-nft -S").contains("PVE-PUBLIC-IP"));
}

/// A set that somebody has filled: the error names it, and only whose element does not fit hears of it.
#[test]
fn a_set_that_is_full() {
    let node = node();
    start(&node, 101, "tap101i0");
    let mut script = String::from("add element inet pve-public-ip here_ip4 { ");
    for number in 0..65535u32 {
        script += &format!("100.64.{}.{}, ", number / 256, number % 256);
    }
    node.tree.write("fill.nft", script + "}\n");
    node.net.sh(&format!("nft -f {}", node.tree.path("fill.nft").display()));
    let full = "the set `here_ip4` of table inet pve-public-ip is full: it holds 65536 elements";
    node.run("hook 100 pre-start").fails_with(1, &[full]);
    stop(&node, 200, "veth200i0");
    start(&node, 200, "veth200i0");
    // The whole look takes out what is nobody's.
    node.run("apply").ok();
    start(&node, 100, "tap100i0");
    node.is_in_line();
}

/// The same of the table that every guest needs: who runs goes on, who is refused is told why, and where there is room no more it
/// is made first.
#[test]
fn a_set_of_every_guest_that_is_full() {
    let node = node();
    start(&node, 101, "tap101i0");
    let crowd = || {
        let mut script = String::from("add element bridge pve-public-ip port_ip4 { ");
        for number in 0..65536 - node.net.set("port_ip4").len() {
            script += &format!("\"other\" . 02:00:00:00:00:01 . 100.64.{}.{}, ", number / 256, number % 256);
        }
        node.tree.write("fill.nft", script + "}\n");
        // What it says of so long a line is as long.
        node.net.sh(&format!("nft -f {} 2>/dev/null", node.tree.path("fill.nft").display()));
    };
    crowd();
    let full = "the set `port_ip4` of table bridge pve-public-ip is full: it holds 65536 elements";
    let refused = node.run("hook 100 pre-start").fails_with(1, &[full]);
    // Who has its elements starts again.
    node.run("hook 200 pre-start").ok();
    node.run("hook 101 pre-start").ok();
    follow(&node, &refused);
    node.is_in_line();
    start(&node, 100, "tap100i0");
    // What is missing and what is too much are dealt with at once.
    node.net.sh("nft delete element bridge pve-public-ip port_ip4 '{ tap100i0 . 02:00:00:aa:bb:00 . 192.0.2.9 }'");
    crowd();
    node.run("apply").ok();
    node.is_in_line();
}

/// A program that does not answer is a problem of those whose filter it is, and of nobody else.
#[test]
fn an_iptables_that_does_not_answer() {
    let node = node();
    common::need(&["iptables-nft-save", "iptables-nft"]);
    let hang = |program: &str| {
        let stand_in = format!("echo $$ >{}; exec sleep 600\n", node.tree.path("hung").display());
        node.tree.script(&format!("stand-ins/{program}"), &stand_in)
    };
    let is_ended = || {
        let pid = node.tree.read("hung");
        assert!(!std::path::Path::new(&format!("/proc/{}", pid.trim())).exists(), "it is left behind");
        std::fs::remove_file(node.tree.path("hung")).unwrap();
    };
    // What the node itself uses cannot be seen: it is not decided for good.
    let stand_in = hang("iptables-nft");
    std::fs::remove_file(node.tree.path("run/pve-public-ip/backend")).unwrap();
    let run = node.run("hook 101 pre-start").ok();
    let warning = "warning: routed traffic is filtered by nftables until iptables answers: `iptables-nft -t filter -S` does not \
                   answer\nwarning: hint: does `iptables-nft -w 5 -S` work? or `pve-public-ip node set --backend nftables`\n";
    assert!(run.err.contains(warning), "{run}");
    is_ended();
    start(&node, 101, "tap101i0");
    node.run("verify").ok();
    std::fs::remove_file(stand_in).unwrap();
    node.net.sh("iptables-nft -A FORWARD -s 198.51.100.77 -j ACCEPT");
    let apply = node.run("apply").ok();
    assert!(apply.err.contains("routed traffic is filtered by iptables-nft"), "{apply}");
    node.is_in_line();

    // What is ours there cannot be read: guests that are bridged start, and are repaired.
    for program in ["iptables-nft-save", "ip6tables-nft-save", "ipset"] {
        eprintln!("--- {program}");
        let stand_in = hang(program);
        stop(&node, 200, "veth200i0");
        node.net.sh("nft delete table bridge pve-public-ip");
        start(&node, 200, "veth200i0");
        is_ended();
        // Not every kernel has sets for it.
        if program != "ipset" {
            let refused = node.run("hook 100 pre-start");
            assert!(refused.code == 1 && refused.err.contains("did not end within"), "{refused}");
            let verify = node.run("verify");
            assert!(verify.code == 1 && verify.out.contains("problem: cannot read "), "{verify}");
        }
        std::fs::remove_file(stand_in).unwrap();
        node.run("apply").ok();
        node.is_in_line();
    }
}

/// What does not fit into the filter is refused before it is written; written by hand, it is its pool's problem alone.
#[test]
fn a_pool_that_is_too_large_for_the_filter() {
    let node = node();
    let hint = "name only what guests get, such as 10.0.0.0/24: each /24 of IPv4 and each /32 of IPv6 is one element";
    for (prefix, needed, set, room) in [
        ("10.0.0.0/8", 65539, "reserved_ip4_24", 8128),
        ("10.0.0.0/11", 8195, "reserved_ip4_24", 8128),
        ("100.64.0.0/10", 16387, "reserved_ip4_24", 8128),
        ("2a00::/21", 2049, "reserved_ip6_32", 960),
    ] {
        let own = needed - i32::from(set == "reserved_ip6_32") - if set == "reserved_ip4_24" { 3 } else { 0 };
        for dry_run in ["", " --dry-run"] {
            let command = format!("pool create lan --profile generic-bridged --bridge vmbr0 {prefix}{dry_run}");
            node.changes_nothing(&command).fails(
                1,
                &format!(
                    "cannot create pool `lan`: all pools together need {needed} elements of the set `{set}`, and the \
                     filter of a node has room for {room} (pool `lan`: {own})"
                ),
                hint,
            );
        }
    }
    node.changes_nothing("pool add ovh-rbx 10.0.0.0/8")
        .fails_with(1, &["cannot add 10.0.0.0/8 to pool `ovh-rbx`: all pools together"]);
    // Whoever edits the file can still do it.
    let pool = serde_json::json!({"version": 2, "name": "lan", "profile": "generic-bridged", "bridge": "vmbr0",
        "addresses": [{"address": "10.0.0.0/8"}]});
    node.tree.write("etc/pve/public-ip/pools/lan.json", pool.to_string());
    node.net.sh("nft delete table bridge pve-public-ip");
    start(&node, 100, "tap100i0");
    let verify = node.run("verify").fails_with(1, &[]);
    let problem = "problem: pool `lan` is too large for the filter: its addresses that nobody holds are not reserved\n";
    assert!(verify.out.contains(problem) && !verify.out.contains("drift: "), "{verify}");
    assert!(node.net.set("reserved_ip4").contains(&"192.0.2.8/29".to_owned()));
    node.run("pool add net 192.0.2.99").ok();
    node.run("pool remove lan").ok();
    node.is_in_line();
}
