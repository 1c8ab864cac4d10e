//! A node in use: eight guests work, and no command takes anything from one of them unasked. Pings go all the time.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::path::Path;

use common::pings::Pings;
use common::{Namespace, Node, need};

const GATEWAY: &str = "02:00:00:00:0f:01";

/// Guests with their last octet: 203.0.113.N, MAC 02:00:00:aa:cc:NN. Nobody has told the program of them.
const GUESTS: [(u32, u32); 8] =
    [(100, 10), (101, 11), (102, 12), (103, 13), (104, 14), (105, 60), (106, 61), (107, 62)];

struct Site {
    node: Node,
    provider: Namespace,
    guests: Vec<(u32, Namespace)>,
}

fn mac(vmid: u32) -> String {
    format!("02:00:00:aa:cc:{:02x}", vmid - 100)
}

impl Site {
    fn new() -> Self {
        need(&["ping"]);
        let mut site = Self { node: Node::new(), provider: Namespace::new(), guests: Vec::new() };
        site.node.net.sh(&format!(
            "ip link set vmbr0 type bridge forward_delay 0 mcast_snooping 0
             ip link add eno1 address 02:00:00:00:0e:01 type veth peer name wan address {GATEWAY} netns {}
             echo 1 > /proc/sys/net/ipv6/conf/eno1/disable_ipv6
             ip link set eno1 master vmbr0 up
             ip route replace default via 203.0.113.1",
            site.provider.path()
        ));
        site.provider.sh("ip link set wan up; ip addr add 203.0.113.1/24 dev wan");
        for (vmid, last) in GUESTS {
            // Half of them say in their configuration what they use, the others have it inside only.
            let told = if vmid % 2 == 0 {
                format!("ipconfig0: ip=203.0.113.{last}/24,gw=203.0.113.1\n")
            } else {
                String::new()
            };
            site.node.tree.qemu(vmid, format!("name: g{vmid}\n{told}net0: virtio={},bridge=vmbr0\n", mac(vmid)));
            let guest = Namespace::new();
            site.node.net.sh(&format!(
                "ip link add tap{vmid}i0 address fe:00:00:00:00:{:02x} type veth peer name eth0 address {} netns {}
                 echo 1 > /proc/sys/net/ipv6/conf/tap{vmid}i0/disable_ipv6; ip link set tap{vmid}i0 master vmbr0 up",
                vmid % 256,
                mac(vmid),
                guest.path()
            ));
            guest.sh(&format!("ip link set eth0 up; ip link set lo up; ip addr add 203.0.113.{last}/24 dev eth0"));
            site.guests.push((vmid, guest));
        }
        // Guests of another node are none of this kernel's, and lose as much.
        site.node.tree.write(
            "etc/pve/nodes/n2/qemu-server/300.conf",
            "name: far\nnet0: virtio=02:00:00:AA:CC:C8,bridge=vmbr0\nipconfig0: ip=203.0.113.15/24,gw=203.0.113.1\n",
        );
        site
    }

    /// The node has spoken with all of them.
    fn greeted(self) -> Self {
        for (_, last) in GUESTS {
            self.node.net.sh(&format!("ping -c 1 -W 5 203.0.113.{last}"));
        }
        self
    }

    fn pings(&self) -> Pings<'_> {
        Pings::start(self.guests.iter().map(|(vmid, guest)| (*vmid, guest)))
    }

    fn guest(&self, vmid: u32) -> &Namespace {
        &self.guests.iter().find(|(number, _)| *number == vmid).unwrap().1
    }
}

const HZ: &str = "pool create hz --profile hetzner-bridged --bridge vmbr0 --gateway4 203.0.113.1";

#[test]
fn a_pool_whose_guard_would_keep_guests_back_starts_in_watch() {
    let site = Site::new().greeted();
    let pings = site.pings();
    let made = site.node.run(HZ).ok();
    for (vmid, _) in GUESTS {
        let lost =
            format!("guest {vmid} net0 on n1 loses its way to the provider: no pool knows its MAC {}", mac(vmid));
        assert!(made.out.contains(&lost), "{}", made.out);
    }
    for words in [
        "guest 300 net0 on n2 loses its way to the provider",
        "pool hz is on watch: what is against its rules is counted, and passes",
        "to allow all MACs that are there: `pve-public-ip pool set hz --allow-present`",
        "to enforce it: `pve-public-ip pool set hz --enforce on --yes`",
    ] {
        assert!(made.out.contains(words), "{words}\n{}", made.out);
    }
    let refused = site.node.run("pool set hz --enforce on");
    refused.fails_with(
        1,
        &["guest 100 net0 on n1 loses its way to the provider", "guest 300 net0 on n2", "--allow-present"],
    );
    assert!(site.node.run("pool list").ok().out.contains("watch"));
    assert!(site.node.run("verify").ok().out.contains("as it should be"));

    // An address and the MAC of a guest that runs with both: not taken from it.
    let added = site.node.run(&format!("pool add hz 203.0.113.10 --mac {}", mac(100))).ok();
    assert!(!added.out.contains("refused"), "{}", added.out);
    for command in ["pool add hz 203.0.113.11", "verify", "status", "doctor --no-fail", "pool show hz", "list", "plan"]
    {
        site.node.run(command);
    }
    site.node.run("assign 100 203.0.113.10 --no-hookscript --no-probe").ok();
    let status = site.node.run("status").ok().out;
    for words in
        ["would be dropped from", "101 (tap101i0)", "address of a pool", "203.0.113.1", "sends to the provider"]
    {
        assert!(status.contains(words), "{words}\n{status}");
    }
    let metrics = site.node.run("metrics").ok().out;
    let series = "pve_public_ip_port_watched_packets_total{port=\"tap101i0\",vmid=\"101\",reason=\"reserved_address\"}";
    assert!(metrics.contains(series) && metrics.contains("pve_public_ip_pool_enforced{pool=\"hz\"} 0"), "{metrics}");
    assert!(!metrics.contains("pve_public_ip_port_dropped_packets_total{port=\"tap"), "{metrics}");
    let explained = site.node.run("explain --port tap101i0 --src 203.0.113.10 --mac 02:00:00:aa:cc:01").ok().out;
    assert!(explained.contains("passes, and is counted, because the pool is only watched"), "{explained}");

    // All that is there is allowed by one command; then nobody loses his way, but 101 still an address.
    site.node.run("pool set hz --allow-present").ok();
    let refused = site.node.run("pool set hz --enforce on");
    refused.fails_with(1, &["guest 101 net0 on n1 loses its address 203.0.113.11", "assign 101 203.0.113.11"]);
    pings.end();

    site.node.run("pool set hz --enforce on --yes").ok();
    assert!(site.node.run("verify").ok().out.contains("as it should be"));
    // Now it is what it was asked for.
    let lost = site.guest(101).sh("ping -c 2 -i 0.2 -W 1 203.0.113.1 >/dev/null && echo works || echo lost");
    assert_eq!(lost.trim(), "lost");
    let works = site.guest(100).sh("ping -c 1 -W 5 203.0.113.1 >/dev/null && echo works || echo lost");
    assert_eq!(works.trim(), "works");
    let works = site.guest(105).sh("ping -c 1 -W 5 203.0.113.1 >/dev/null && echo works || echo lost");
    assert_eq!(works.trim(), "works");
}

#[test]
fn the_commands_of_the_readme_take_nothing_from_anybody() {
    let site = Site::new().greeted();
    let pings = site.pings();
    let create =
        "pool create rbx --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.1 203.0.113.10 203.0.113.11";
    let made = site.node.run(create).ok();
    assert!(made.out.contains("guest 100 net0 on n1 loses its address 203.0.113.10"), "{}", made.out);
    assert!(made.out.contains("guest 101 net0 on n1 loses its address 203.0.113.11"), "{}", made.out);
    site.node.run("assign 100 203.0.113.10 --no-hookscript --no-probe").ok();
    for command in ["verify", "who 203.0.113.10", "show 100", "status", "list", "plan", "apply"] {
        site.node.run(command).ok();
    }
    // Once each address has its owner, nobody loses anything by the last step.
    site.node.run("assign 101 203.0.113.11 --no-hookscript --no-probe").ok();
    let set = site.node.run("pool set rbx --enforce on").ok();
    assert!(!set.out.contains("loses"), "{}", set.out);
    assert!(site.node.run("verify").ok().out.contains("2 guests are bound"));
    // More of them, while the pool is enforced: refused in words, and nothing changes.
    let more = site.node.run("pool add rbx 203.0.113.12");
    more.fails_with(1, &["guest 102 net0 on n1 loses its address 203.0.113.12"]);
    let guard = site.node.run("pool set rbx --uplink-guard enforce");
    guard.fails_with(1, &["guest 102 net0 on n1 loses its way to the provider", "guest 300 net0 on n2"]);
    site.node.run("node set --enforce watch").ok();
    site.node.run("pool set rbx --uplink-guard enforce --yes").ok();
    pings.end();
    let dropped = site.node.run("release 101 203.0.113.11").ok();
    assert!(dropped.out.contains("203.0.113.11"), "{}", dropped.out);
}

/// Every command of a page that names all that it needs, by section: of its blocks and of its sentences.
fn commands_of(page: &str) -> Vec<(String, Vec<String>)> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let section = |section: &str| {
        let mut found = Vec::new();
        for (number, part) in section.split("```").enumerate() {
            let is_block = number % 2 == 1;
            let pieces: Vec<&str> =
                if is_block { part.lines().collect() } else { part.split('`').skip(1).step_by(2).collect() };
            found.extend(pieces.into_iter().map(|piece| piece.trim_start_matches("# ").replace('\n', " ")));
        }
        let names_all = |command: &String| {
            let is_open = |word: &str| word == "..." || word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase());
            command.starts_with("pve-public-ip ") && !command.split(' ').any(is_open)
        };
        let heading = section.lines().next().unwrap_or_default().to_owned();
        (heading, found.into_iter().filter(names_all).collect::<Vec<String>>())
    };
    text.split("\n## ").map(section).filter(|(_, commands)| !commands.is_empty()).collect()
}

/// What a page says is done, in its order, on a node where eight guests work who know nothing of it. A command may be refused;
/// nobody loses anything by it.
#[test]
fn no_command_of_the_pages_takes_anything_from_anybody() {
    let mut ran = 0;
    let site = Site::new().greeted();
    site.node.stand_in_proxmox();
    site.node.net.sh("for n in 1 4000; do ip link add vmbr$n type bridge; ip link set vmbr$n up; done");
    let config = |vmid: u32| format!("etc/pve/nodes/n1/qemu-server/{vmid}.conf");
    let before: Vec<(u32, String)> =
        GUESTS.iter().map(|(vmid, _)| (*vmid, site.node.tree.read(&config(*vmid)))).collect();
    let pings = site.pings();
    for page in ["README.md", "docs/first-hour.md"] {
        for (heading, commands) in commands_of(page) {
            for command in &commands {
                // It attacks in namespaces of its own, for ten seconds; tests/selftest.rs has it.
                if command == "pve-public-ip selftest" {
                    continue;
                }
                let arguments = command.trim_start_matches("pve-public-ip ").replace("--watch 10m", "--watch 1s");
                let run = site.node.run(&arguments);
                // Done, or refused in words with what to do instead.
                let is_said =
                    run.code == 0 || run.code == 3 || run.err.contains("error: ") && run.err.contains("hint: ");
                assert!(is_said, "{page}, {heading}: {run}");
                pings.go_on(2);
                ran += 1;
            }
            // The next section begins on a node that knows nothing.
            site.node.run("uninstall --yes").ok();
            let registry = site.node.tree.path("etc/pve/public-ip");
            if registry.exists() {
                std::fs::remove_dir_all(registry).unwrap();
            }
            for (vmid, text) in &before {
                site.node.tree.qemu(*vmid, text);
            }
        }
    }
    pings.end();
    assert!(ran > 30, "the pages are not read: {ran} commands");
}

#[test]
fn what_runs_is_imported_without_a_lost_frame() {
    let site = Site::new().greeted();
    let pings = site.pings();
    let listed = site.node.run("import").ok();
    for (vmid, last) in GUESTS {
        let seen = if vmid % 2 == 0 { "configuration, neighbour table" } else { "neighbour table" };
        let row = listed.out.lines().find(|line| line.contains(&format!("203.0.113.{last} "))).unwrap_or_default();
        assert!(row.contains(&mac(vmid)) && row.contains(seen), "{listed}");
    }
    assert!(listed.out.contains("203.0.113.15") && listed.out.contains(" n2 "), "{listed}");
    let create = "pool create lan --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.1 203.0.113.8/29 203.0.113.60/30";
    assert!(site.node.run(create).ok().out.contains("pool lan is on watch"));
    let dry = site.node.run("import --pool lan --no-hookscript --dry-run").ok();
    assert!(dry.out.contains("9 would be assigned"), "{dry}");
    let made = site.node.run("import --pool lan --no-hookscript").ok();
    assert!(made.out.contains("9 assigned, 0 held already"), "{made}");
    // Everybody holds what he uses: nobody loses anything by what follows.
    let on = site.node.run("pool set lan --enforce on").ok();
    assert!(!on.out.contains("loses"), "{on}");
    assert!(site.node.run("verify").ok().out.contains("8 guests are bound"));
    assert!(site.node.run("import").ok().out.contains("no guest is known to use a public address"));
    pings.end();
}
