//! Every finding of `doctor`: once where it is, and not where it is not. No kernel, no files: facts in, findings out.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use pve_public_ip::doctor::firewall::{Firewall, FirewallFile};
use pve_public_ip::doctor::{
    CHECKS, Examination, Facts, Files, Fix, GuardService, Members, Release, Script, Severity, examine,
};
use pve_public_ip::guest::GuestConfig;
use pve_public_ip::guest::storage::Storages;
use pve_public_ip::hookscript::VOLUME;
use pve_public_ip::interfaces::Interfaces;
use pve_public_ip::links::Link;
use pve_public_ip::links::Links;
use pve_public_ip::links::{BridgeOptions, BridgePort, PortState};
use pve_public_ip::model::Missing;
use pve_public_ip::model::{GuestKind, IfName, NodeName, Vmid};
use pve_public_ip::plan::{Inputs, Located, Router};
use pve_public_ip::registry::Registry;
use pve_public_ip::registry::document::{DocumentError, NodeFile, parse};
use pve_public_ip::ruleset::BaseChain;
use pve_public_ip::ruleset::Table;

const POOLS: &str = r#"{"version":1,"pools":{"ovh":{"profile":"ovh-bridged","bridge":"vmbr0","nodes":["n1","n2"],"gateway4":"203.0.113.1",
    "addresses":[{"address":"203.0.113.10/32","mac":"02:00:00:00:00:64"},{"address":"203.0.113.16/29"}]}}}"#;

const INTERFACES: &str =
    "iface eno1 inet manual\niface vmbr0 inet static\n address 203.0.113.250/24\n bridge-ports eno1\n";

fn vmid(number: u32) -> Vmid {
    number.to_string().parse().unwrap()
}

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn node(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// Nodes `n1` (this one) and `n2`; guest 100 of `n1` holds 203.0.113.10 on `vmbr0`. Nothing is wrong.
fn healthy() -> Facts {
    let mut registry =
        Registry { pools: parse("pools.json".as_ref(), POOLS.as_bytes()).unwrap(), ..Registry::default() };
    registry.guests.insert(vmid(100), held(100, "02:00:00:00:00:64", "203.0.113.10/32"));
    let mut interfaces = Interfaces::default();
    interfaces.read(INTERFACES);
    let mut links = interfaces.links();
    links.0.get_mut(&name("vmbr0")).unwrap().bridge =
        Some(BridgeOptions { no_linklocal_learn: true, ..Default::default() });
    let routers = vec![router("203.0.113.1", "")];
    let inputs = Inputs { links: links.clone(), routers, ..Inputs::new(node("n1"), registry, BTreeMap::new()) };
    let files = Files {
        inputs,
        unreadable: BTreeMap::new(),
        nodes: vec![node("n1"), node("n2")],
        storages: Storages::parse(""),
        scripts: BTreeMap::from([(VOLUME.to_owned(), Script::Ready)]),
        firewall: Firewall::default(),
        members: Ok(Members { quorate: true, offline: BTreeSet::new() }),
        releases: BTreeMap::new(),
        is_convertible: false,
        leftovers: Vec::new(),
        ahead: None,
    };
    let mut facts = Facts {
        files: Ok(files),
        interfaces: Ok(interfaces),
        links: Ok(links),
        chains: Ok(Vec::new()),
        void: Ok(Vec::new()),
        parameters: Ok(BTreeMap::from([("net/ipv4/conf/all/rp_filter".to_owned(), "2\n".to_owned())])),
        missing: Ok(Vec::new()),
        kernel: Ok("6.8.12-4-pve".to_owned()),
        nft: Ok(Ok("1.0.6".to_owned())),
        clock: Ok(true),
        guard: Ok(GuardService { runs: true, has_run: true, enabled: Some(true), ..GuardService::default() }),
    };
    facts.guest(100, "virtio=02:00:00:00:00:64,bridge=vmbr0,firewall=1", &format!("hookscript: {VOLUME}\n"));
    facts
}

/// A router on `vmbr0`, with a prefix for autonomous addresses if one is named.
fn router(address: &str, autonomous: &str) -> Router {
    Router {
        bridge: name("vmbr0"),
        address: address.parse().unwrap(),
        macs: vec!["02:00:00:00:00:fe".parse().unwrap()],
        heard: 0,
        advertised: !autonomous.is_empty(),
        autonomous: autonomous.parse().into_iter().collect(),
    }
}

/// A routed pool of which guest 100 holds 198.18.0.5, and a line below `vmbr0` of the node's configuration.
fn by_hand(facts: &mut Facts, line: &str) {
    let more = r#"},"hz":{"profile":"hetzner-routed","bridge":"vmbr0","addresses":[{"address":"198.18.0.0/29"}]}}}"#;
    let text = format!("{}{more}", POOLS.trim_end_matches("}}}"));
    facts.files().inputs.registry.pools = parse("pools.json".as_ref(), text.as_bytes()).unwrap();
    let mut guest = held(100, "02:00:00:00:00:64", "198.18.0.5/32");
    guest.interfaces.values_mut().for_each(|nic| nic.addresses[0].pool = "hz".parse().unwrap());
    facts.files().inputs.registry.guests.insert(vmid(100), guest);
    facts.described(&format!("{INTERFACES} up {line}\n"));
}

/// Guest 100 holds an IPv6 address, and a router advertises a prefix; it is delivered if the guest's file says so.
fn advertised(facts: &mut Facts, delivered: Option<bool>) {
    facts.files().inputs.routers.push(router("fe80::7", "2001:db8:7::/64"));
    facts.pools("{\"address\":\"203.0.113.16/29\"}", "{\"address\":\"2001:db8:1::/64\",\"gateway\":\"fe80::1\"}");
    let mut guest = held(100, "02:00:00:00:00:64", "2001:db8:1::10/128");
    guest.interfaces.values_mut().for_each(|nic| nic.router_advertisements = delivered);
    facts.files().inputs.registry.guests.insert(vmid(100), guest);
}

/// What `guests/VMID.json` says of a guest with one address on `net0`.
fn held(number: u32, mac: &str, address: &str) -> pve_public_ip::registry::document::GuestFile {
    let text = format!(
        r#"{{"version":1,"vmid":{number},"interfaces":{{"net0":{{"mac":"{mac}","addresses":[
        {{"address":"{address}","pool":"ovh","assigned_at":"2026-11-22T10:00:00Z"}}]}}}}}}"#
    );
    parse("guest.json".as_ref(), text.as_bytes()).unwrap()
}

/// Short ways to spoil it.
trait Spoil {
    fn files(&mut self) -> &mut Files;
    fn guest(&mut self, number: u32, net0: &str, more: &str);
    fn guest_on(&mut self, on: &str, number: u32, net0: &str, more: &str);
    fn pools(&mut self, from: &str, to: &str);
    fn firewall(&mut self, cluster: &str, guest: &str);
    fn link(&mut self, device: &str, change: impl Fn(&mut Link));
    fn chain(&mut self, family: &'static str, hook: &'static str, drops: bool, table_drops: bool);
    fn router(&mut self);
    fn guard(&mut self) -> &mut GuardService;
    fn parameter(&mut self, path: &str, value: &str);
    fn described(&mut self, text: &str);
}

impl Spoil for Facts {
    fn files(&mut self) -> &mut Files {
        self.files.as_mut().unwrap()
    }

    fn guest(&mut self, number: u32, net0: &str, more: &str) {
        self.guest_on("n1", number, net0, more);
    }

    fn guest_on(&mut self, on: &str, number: u32, net0: &str, more: &str) {
        let config = GuestConfig::parse(GuestKind::Qemu, format!("net0: {net0}\n{more}").as_bytes());
        self.files().inputs.guests.insert(vmid(number), Located { node: node(on), config });
    }

    fn pools(&mut self, from: &str, to: &str) {
        assert!(POOLS.contains(from), "{from}");
        let text = POOLS.replace(from, to);
        self.files().inputs.registry.pools = parse("pools.json".as_ref(), text.as_bytes()).unwrap();
    }

    fn firewall(&mut self, cluster: &str, guest: &str) {
        self.files().firewall.cluster = FirewallFile::parse(cluster);
        self.files().firewall.guests.insert(vmid(100), FirewallFile::parse(guest));
    }

    fn link(&mut self, device: &str, change: impl Fn(&mut Link)) {
        change(self.links.as_mut().unwrap().0.entry(name(device)).or_default());
    }

    fn chain(&mut self, family: &'static str, hook: &'static str, drops: bool, table_drops: bool) {
        let (table, name) = ("other".to_owned(), "all".to_owned());
        self.chains.as_mut().unwrap().push(BaseChain { family, table, name, hook, drops, table_drops, legacy: false });
    }

    fn guard(&mut self) -> &mut GuardService {
        self.guard.as_mut().unwrap()
    }

    fn parameter(&mut self, path: &str, value: &str) {
        self.parameters.as_mut().unwrap().insert(path.to_owned(), value.to_owned());
    }

    /// Guest 100 holds a prefix.
    fn router(&mut self) {
        self.files().inputs.registry.guests.insert(vmid(100), held(100, "02:00:00:00:00:64", "203.0.113.16/29"));
    }

    fn described(&mut self, text: &str) {
        let mut interfaces = Interfaces::default();
        interfaces.read(text);
        self.interfaces = Ok(interfaces);
    }
}

fn vlan_aware(link: &mut Link) {
    link.bridge = Some(BridgeOptions { vlan_filtering: true, no_linklocal_learn: true, ..Default::default() });
}

fn script(volume: &str, script: Script) -> BTreeMap<String, Script> {
    BTreeMap::from([(volume.to_owned(), script)])
}

const OURS: &str = "hookscript: local:snippets/pve-public-ip\n";
const ON: &str = "[OPTIONS]\nenable: 1\n";

/// What is done to a healthy node.
type Change = fn(&mut Facts);

/// A code, what is done to a healthy node, what is then said, and what is advised (its beginning).
type Row = (&'static str, Change, &'static str, &'static str);

/// Each is found, with these words.
const FOUND: &[Row] = &[
    (
        "etc-pve-unreadable",
        |facts| facts.files = Err("`/etc/pve` did not answer".into()),
        "`/etc/pve` did not answer",
        "`systemctl status pve-cluster`, `pvecm status`",
    ),
    (
        "registry-broken",
        |facts| {
            let path = std::path::Path::new("/etc/pve/public-ip/guests/7.json");
            let error = DocumentError::new(path, "is empty", "restore it");
            facts.files().inputs.registry.broken.push(error);
        },
        "`/etc/pve/public-ip/guests/7.json` is empty",
        "restore it",
    ),
    (
        "registry-conflict",
        |facts| {
            facts.files().inputs.registry.guests.insert(vmid(101), held(101, "02:00:00:00:00:65", "203.0.113.10/32"));
        },
        "203.0.113.10 is assigned to guest 100 and to guest 101",
        "`pve-public-ip show 101` shows what it holds; release one of them, or correct the file by hand",
    ),
    (
        "no-quorum",
        |facts| facts.files().members = Ok(Members::default()),
        "this node is not part of a quorum",
        "`pvecm status` tells who is missing",
    ),
    (
        "filter-missing",
        |facts| facts.void = Ok(vec![Table::Bridge]),
        "table bridge pve-public-ip or its rules are missing",
        "`pve-public-ip apply`",
    ),
    (
        "filter-missing",
        |facts| {
            facts.pools("ovh-bridged", "ovh-routed");
            facts.void = Ok(vec![Table::Inet]);
        },
        "table inet pve-public-ip or its rules are missing",
        "`pve-public-ip apply`",
    ),
    (
        "hookscript-missing",
        |facts| facts.files().scripts = script(VOLUME, Script::Missing("/var/lib/vz/snippets/pve-public-ip".into())),
        "`/var/lib/vz/snippets/pve-public-ip` does not exist, and guest 100 names it",
        "`install -D -m 0755 /usr/share/pve-public-ip/hookscripts/pve-public-ip /var/lib/vz/snippets/pve-public-ip`",
    ),
    (
        "hookscript-missing",
        |facts| {
            facts.files().scripts = script("local:snippets/x.sh", Script::Missing("/var/lib/vz/snippets/x.sh".into()));
        },
        "`/var/lib/vz/snippets/x.sh` does not exist",
        "put it there, or take it out of the guests",
    ),
    (
        "hookscript-missing",
        |facts| facts.files().scripts = script("gone:snippets/x", Script::Nowhere("there is no storage `gone`".into())),
        "`gone:snippets/x` cannot be found: there is no storage `gone`",
        "`pvesm status` shows the storages",
    ),
    (
        "hookscript-not-ours",
        |facts| facts.files().scripts = script(VOLUME, Script::NotOurs("/var/lib/vz/snippets/pve-public-ip".into())),
        "`/var/lib/vz/snippets/pve-public-ip` does not call pve-public-ip, and guest 100 names it",
        "`install -D -m 0755 /usr/share/pve-public-ip/hookscripts/pve-public-ip /var/lib/vz/snippets/pve-public-ip`",
    ),
    (
        "hookscript-not-executable",
        |facts| {
            facts.files().scripts = script(VOLUME, Script::NotExecutable("/var/lib/vz/snippets/pve-public-ip".into()));
            facts.guest(101, "virtio=02:00:00:00:00:65,bridge=vmbr1", OURS);
        },
        "`/var/lib/vz/snippets/pve-public-ip` is not executable, and guests 100, 101 name it",
        "`chmod 0755 /var/lib/vz/snippets/pve-public-ip`",
    ),
    (
        "guest-without-hookscript",
        |facts| facts.guest(100, "virtio=02:00:00:00:00:64,bridge=vmbr0", ""),
        "guest 100 has public addresses, but no hookscript",
        "`qm set 100 --hookscript local:snippets/pve-public-ip`",
    ),
    (
        "guest-without-hookscript",
        |facts| facts.guest_on("n2", 100, "virtio=02:00:00:00:00:64,bridge=vmbr0", ""),
        "guest 100 has public addresses, but no hookscript",
        "on node n2: `qm set 100 --hookscript local:snippets/pve-public-ip`",
    ),
    (
        "guest-other-hookscript",
        |facts| facts.guest(100, "virtio=02:00:00:00:00:64,bridge=vmbr0", "hookscript: local:snippets/mine.sh\n"),
        "guest 100 has public addresses, and the hookscript `local:snippets/mine.sh` instead of ours",
        "`pve-public-ip assign 100 203.0.113.10`",
    ),
    (
        "guest-unreadable",
        |facts| drop(facts.files().unreadable.insert(vmid(102), "cannot read the configuration of guest 102".into())),
        "cannot read the configuration of guest 102",
        "`systemctl status pve-cluster`",
    ),
    (
        "assignment-problem",
        |facts| facts.guest(100, "virtio=02:00:00:00:00:99,bridge=vmbr0", OURS),
        "guest 100 net0 has MAC 02:00:00:00:00:99, but the registry binds 203.0.113.10 to 02:00:00:00:00:64",
        "set it back: `qm set 100 --net0 virtio=02:00:00:00:00:64,bridge=vmbr0`",
    ),
    (
        "mac-unknown-to-provider",
        |facts| {
            facts.pools(r#""bridge":"#, r#""uplink_guard":"report","bridge":"#);
            facts.guest(101, "virtio=02:00:00:00:00:65,bridge=vmbr0", "");
        },
        "guest 101 net0 sends to the provider with 02:00:00:00:00:65, which no pool knows",
        "`pve-public-ip pool set ovh --uplink-guard enforce --yes`; if the provider knows this MAC: `pve-public-ip pool set ovh --allow-mac 02:00:00:00:00:65`",
    ),
    (
        "mac-unknown-to-provider",
        |facts| {
            facts.pools(r#""ovh-bridged","bridge""#, r#""hetzner-routed","uplink_guard":"off","bridge""#);
            facts.guest(101, "virtio=02:00:00:00:00:65,bridge=vmbr0", "");
        },
        "guest 101 net0 sends to the provider with 02:00:00:00:00:65, which no pool knows",
        "`pve-public-ip pool set ovh --uplink-guard enforce --yes`",
    ),
    (
        "bridge-missing",
        |facts| drop(facts.links.as_mut().unwrap().0.remove(&name("vmbr0"))),
        "vmbr0 does not exist on this node, and guests here hold addresses of its pools: 100",
        "make it in /etc/network/interfaces, then `ifreload -a`",
    ),
    (
        "bridge-missing",
        |facts| facts.link("vmbr0", |link| link.bridge = None),
        "vmbr0 is not a bridge on this node, and guests here hold addresses of its pools: 100",
        "make it",
    ),
    (
        "ovs-bridge",
        |facts| facts.described("iface vmbr0 inet manual\n ovs_type OVSBridge\n"),
        "vmbr0 of pool `ovh` is a bridge of Open vSwitch: nothing on it is protected",
        "make a Linux bridge",
    ),
    (
        "ovs-bridge",
        |facts| {
            facts.link("ovs-system", |_| {});
            facts.link("vmbr0", |link| link.bridge = None);
        },
        "guest 100 net0 holds addresses and is on vmbr0, a bridge of Open vSwitch",
        "move the NIC to a Linux bridge",
    ),
    (
        "ipfilter-drops-address",
        |facts| facts.firewall(ON, "[OPTIONS]\nenable: 1\n[IPSET ipfilter-net0]\n203.0.113.11\n"),
        "guest 100 net0: the set ipfilter-net0 in `/etc/pve/firewall/100.fw` does not have 203.0.113.10",
        "below `[IPSET ipfilter-net0]` in `/etc/pve/firewall/100.fw` add, a line each: 203.0.113.10",
    ),
    (
        "ipfilter-would-drop",
        |facts| facts.firewall("", "[OPTIONS]\nenable: 1\nipfilter: 1\n"),
        "guest 100 net0: the set ipfilter-net0 in `/etc/pve/firewall/100.fw` does not have 203.0.113.10",
        "below `[IPSET ipfilter-net0]` in `/etc/pve/firewall/100.fw` add, a line each: 203.0.113.10",
    ),
    (
        "vlan-bridge-name-too-long",
        |facts| {
            facts.link("vmbrcustomer", |link| link.bridge = Some(BridgeOptions::default()));
            facts.guest(100, "virtio=02:00:00:00:00:64,bridge=vmbrcustomer,tag=100", OURS);
        },
        "guest 100 net0 needs the bridge vmbrcustomerv100, which has 16 characters",
        "make vmbrcustomer VLAN-aware, or give it a shorter name",
    ),
    (
        "kernel-feature-missing",
        |facts| facts.missing = Ok(vec![lacking(true)]),
        "veth: there can be no containers (not supported)",
        "boot the kernel of Proxmox VE or Debian",
    ),
    (
        "nft-missing",
        |facts| facts.nft = Ok(Err("cannot run `nft --version`".into())),
        "`nft` does not run: cannot run `nft --version`",
        "`apt install nftables`",
    ),
    ("nft-old", |facts| facts.nft = Ok(Ok("1.0.5".into())), "`nft` is of version 1.0.5", "`apt install nftables`"),
    (
        "guard-in-trouble",
        |facts| facts.guard().trouble = Some("`/etc/pve` does not answer".into()),
        "`/etc/pve` does not answer",
        "`systemctl status pve-public-ip.service`",
    ),
    (
        "guard-not-running",
        |facts| facts.guard().runs = false,
        "the guard does not run any more",
        "`systemctl enable --now pve-public-ip.service`",
    ),
    (
        "guard-not-running",
        |facts| facts.guard = Ok(GuardService::default()),
        "the guard has not run since this node booted",
        "`systemctl enable --now pve-public-ip.service`",
    ),
    (
        "guard-drop-in-outdated",
        |facts| facts.guard().listening.push("/etc/systemd/system/pve-public-ip.service.d/metrics.conf".into()),
        "`/etc/systemd/system/pve-public-ip.service.d/metrics.conf` starts the guard with --listen, which does nothing any more",
        "take the option out of `/etc/systemd/system/pve-public-ip.service.d/metrics.conf`, then `systemctl daemon-reload`; the gateway serves the metrics: docs/monitoring.md",
    ),
    (
        "guard-not-enabled",
        |facts| facts.guard().enabled = Some(false),
        "pve-public-ip.service is not started at boot",
        "`systemctl enable --now pve-public-ip.service`",
    ),
    (
        "orphaned-assignment",
        |facts| drop(facts.files().inputs.guests.remove(&vmid(100))),
        "guest 100 does not exist, but 203.0.113.10 is assigned to it",
        "if it was destroyed: `pve-public-ip release 100`",
    ),
    (
        "clone-or-restore",
        |facts| facts.guest(101, "virtio=02:00:00:00:00:64,bridge=vmbr1", ""),
        "guest 101 has no assignment, but the MAC 02:00:00:00:00:64 of guest 100 net0 (203.0.113.10): is it a restored copy?",
        "give guest 101 another MAC: `qm set 101 --net0 virtio,bridge=vmbr1`",
    ),
    (
        "clone-or-restore",
        |facts| facts.guest(101, "virtio=02:00:00:00:00:65,bridge=vmbr1", "ipconfig0: ip=203.0.113.10/24\n"),
        "guest 101 is configured with 203.0.113.10, which is assigned to guest 100: is it a clone?",
        "take the address out of it: `qm set 101 --delete ipconfig0`",
    ),
    (
        "clone-or-restore",
        |facts| facts.guest_on("n2", 101, "virtio=02:00:00:00:00:65,bridge=vmbr1", "ipconfig0: ip=203.0.113.17/24\n"),
        "guest 101 is configured with 203.0.113.17 of pool `ovh`, which is not assigned to it",
        // The NIC is on another bridge: to assign it would fail.
        "take the address out of it: `qm set 101 --delete ipconfig0`",
    ),
    (
        "clone-or-restore",
        |facts| facts.guest(101, "virtio=02:00:00:00:00:65,bridge=vmbr1", OURS),
        "guest 101 has the hookscript of pve-public-ip, but no public address: is it a clone?",
        "`qm set 101 --delete hookscript`, or give it an address: `pve-public-ip assign 101 --pool ",
    ),
    (
        "duplicate-mac",
        |facts| {
            facts.guest(101, "virtio=02:00:00:00:00:65,bridge=vmbr1", "");
            facts.guest_on("n2", 102, "virtio=02:00:00:00:00:65,bridge=vmbr1", "");
        },
        "02:00:00:00:00:65 is the MAC of guest 101 net0 and guest 102 net0",
        "give one of them another MAC: `qm set 102 --net0 virtio,bridge=vmbr1` makes a new one",
    ),
    (
        "duplicate-mac",
        |facts| {
            facts.guest(101, "virtio=02:00:00:00:00:65,bridge=vmbr1", "net1: virtio=02:00:00:00:00:65,bridge=vmbr1\n");
        },
        "02:00:00:00:00:65 is the MAC of guest 101 net0 and guest 101 net1",
        "give one of them another MAC: `qm set 101 --net1 virtio,bridge=vmbr1` makes a new one",
    ),
    (
        "duplicate-mac",
        |facts| facts.link("vmbr0", |link| link.mac = "02:00:00:00:00:64".parse().ok()),
        "02:00:00:00:00:64 is the MAC of guest 100 net0 and of this node's vmbr0",
        "give guest 100 another MAC",
    ),
    (
        "network-beside-bridges",
        |facts| {
            facts.guest(
                101,
                "virtio=02:00:00:00:00:65,bridge=vmbr1",
                "args: -netdev tap,id=x -device e1000,netdev=x\n",
            );
        },
        "guest 101 is on a network by `-netdev tap,id=x`, not by a port of a bridge",
        "give it a NIC on a bridge (`qm set 101 --net0 ...`), and take that out of its configuration",
    ),
    (
        "device-passed-through",
        |facts| {
            facts.guest(
                101,
                "virtio=02:00:00:00:00:65,bridge=vmbr1",
                "hostpci0: 0000:03:00.0\nhostpci1: mapping=card\n",
            );
        },
        "guest 101 has devices of the node for itself: `hostpci0: 0000:03:00.0`, `hostpci1: mapping=card`",
        "",
    ),
    (
        "pending-nic-change",
        |facts| {
            let pending = format!("{OURS}[PENDING]\nnet0: virtio=02:00:00:00:00:99,bridge=vmbr0\n");
            facts.guest(100, "virtio=02:00:00:00:00:64,bridge=vmbr0,firewall=1", &pending);
        },
        "guest 100 does not start again with the changes that wait for it: guest 100 net0 has MAC 02:00:00:00:00:99, but the registry binds 203.0.113.10 to 02:00:00:00:00:64",
        "`qm set 100 --revert net0` takes the change back; `qm pending 100` shows it",
    ),
    (
        "mac-kept-back",
        |facts| facts.guest(101, "virtio=02:00:00:00:00:65,bridge=vmbr0", ""),
        "guest 101 net0 does not reach the provider: no pool knows its MAC 02:00:00:00:00:65",
        "if the provider knows this MAC: `pve-public-ip pool set ovh --allow-mac 02:00:00:00:00:65`",
    ),
    (
        "hookscript-not-everywhere",
        |facts| {
            let note = Release { release: env!("CARGO_PKG_VERSION").into(), hookscript: false };
            facts.files().releases.insert(node("n2"), note);
        },
        "`local:snippets/pve-public-ip` is not on n2",
        "install pve-public-ip there; or register `local:snippets/pve-public-ip`",
    ),
    (
        "hookscript-not-everywhere",
        |facts| {
            facts.files().storages = Storages::parse("dir: own\n\tpath /srv\n\tcontent snippets\n\tnodes n1\n");
            facts.guest(100, "virtio=02:00:00:00:00:64,bridge=vmbr0", "hookscript: own:snippets/pve-public-ip\n");
        },
        "`own:snippets/pve-public-ip` is not on n2",
        "install pve-public-ip there",
    ),
    (
        "snippets-not-everywhere",
        |facts| {
            let more = format!("{OURS}cicustom: network=local:snippets/pve-public-ip-100-network.yaml\n");
            facts.guest(100, "virtio=02:00:00:00:00:64,bridge=vmbr0", &more);
        },
        "cloud-init data on storage local is not to be had on n2; guests that name it: 100",
        "`pve-public-ip setup --yes` makes a storage that every node has; then assign again",
    ),
    (
        "bridge-learns-link-local",
        |facts| facts.link("vmbr0", |link| link.bridge = Some(BridgeOptions::default())),
        "vmbr0 learns from link-local frames",
        "`ip link set vmbr0 type bridge no_linklocal_learn 1`",
    ),
    (
        "spanning-tree-root-is-guest",
        |facts| {
            facts.link("vmbr0", |link| link.root_port = 2);
            facts.link("tap100i0", |link| {
                link.master = Some(name("vmbr0"));
                link.port = Some(BridgePort { number: 2, state: PortState::Forwarding });
            });
        },
        "guest 100 (tap100i0) is the root of the spanning tree of vmbr0",
        "`pve-public-ip apply`",
    ),
    (
        "port-held-by-spanning-tree",
        |facts| {
            facts.link("tap100i0", |link| {
                link.master = Some(name("vmbr0"));
                link.port = Some(BridgePort { number: 2, state: PortState::Blocking });
            });
        },
        "tap100i0 is blocking in vmbr0",
        "a new port waits for twice the forward delay of vmbr0; if there are no loops behind it: `ip link set vmbr0 type bridge \
         stp_state 0`",
    ),
    (
        "bridge-learns-any-number",
        |facts| {
            facts.link("vmbr0", |link| {
                link.bridge =
                    Some(BridgeOptions { no_linklocal_learn: true, max_learned: Some(0), ..Default::default() });
            });
            facts.link("tap100i0", |link| link.master = Some(name("vmbr0")));
        },
        "vmbr0 learns any number of MACs",
        "`ip link set vmbr0 type bridge fdb_max_learned 16384` (iproute2 6.8 or newer)",
    ),
    (
        "bridge-mac-unknown",
        |facts| {
            facts.link("vmbr0", |link| link.mac = "02:00:00:00:00:f0".parse().ok());
            facts.link("eno1", |link| link.mac = "02:00:00:00:00:01".parse().ok());
        },
        "vmbr0 has MAC 02:00:00:00:00:f0, and its uplink eno1 has 02:00:00:00:00:01: the provider of pool `ovh` sees 02:00:00:00:00:f0",
        "`hwaddress 02:00:00:00:00:01` for vmbr0 in /etc/network/interfaces, then `ifreload -a`; if the provider knows \
         02:00:00:00:00:f0: `pve-public-ip pool set ovh --allow-mac 02:00:00:00:00:f0`",
    ),
    (
        "gateway-mac-unknown",
        |facts| facts.files().inputs.routers.clear(),
        "the MAC of the gateway 203.0.113.1 on vmbr0 is not known",
        "`pve-public-ip apply` asks for it; else `pve-public-ip pool set ovh --gateway-mac MAC` names it",
    ),
    (
        "by-hand-differs",
        |facts| by_hand(facts, "ip route add 198.18.0.5/32 dev vmbr7"),
        "`ip route add 198.18.0.5/32 dev vmbr7` of vmbr0 makes a route to 198.18.0.5/32, and pool `hz` needs it to lead to vmbr0",
        "take the line out of /etc/network/interfaces",
    ),
    (
        "by-hand-differs",
        |facts| by_hand(facts, "ip route add blackhole 198.18.0.6"),
        "`ip route add blackhole 198.18.0.6` of vmbr0 makes a route to 198.18.0.6/32, and pool `hz` needs it to lead to vmbr0",
        "take the line out of /etc/network/interfaces",
    ),
    (
        "by-hand-differs",
        |facts| by_hand(facts, "ip neigh add 198.18.0.5 lladdr 02:00:00:00:00:99 dev vmbr0 nud permanent"),
        "`ip neigh add 198.18.0.5 lladdr 02:00:00:00:00:99 dev vmbr0 nud permanent` of vmbr0 makes a permanent neighbour 198.18.0.5 with \
         MAC 02:00:00:00:00:99, and its holder has MAC 02:00:00:00:00:64",
        "take the line out of /etc/network/interfaces",
    ),
    (
        "by-hand-differs",
        |facts| by_hand(facts, "ip neigh add 198.18.0.6 lladdr 02:00:00:00:00:99 dev vmbr0"),
        "`ip neigh add 198.18.0.6 lladdr 02:00:00:00:00:99 dev vmbr0` of vmbr0 makes a permanent neighbour 198.18.0.6 with MAC \
         02:00:00:00:00:99, and a guest that gets it needs the MAC 02:00:00:00:00:99",
        "take the line out of /etc/network/interfaces",
    ),
    (
        "set-nearly-full",
        |facts| {
            facts.pools(
                "{\"address\":\"203.0.113.16/29\"}",
                "{\"address\":\"10.0.0.0/12\"},{\"address\":\"10.16.0.0/13\"},{\"address\":\"10.24.0.0/14\"}",
            );
        },
        "all pools together need 7169 elements of the set `reserved_ip4_24` and it has room for 8128 (88 %)",
        "`pve-public-ip pool list` shows the pools",
    ),
    (
        "uplink-missing",
        |facts| {
            let uplinks = Some(BTreeSet::from([name("eno1"), name("eno7")]));
            facts.files().inputs.registry.node = Some(NodeFile { version: 1, uplinks, ..NodeFile::default() });
        },
        "the uplink eno7 does not exist",
        "correct `uplinks` in `/etc/pve/public-ip/nodes/n1.json`",
    ),
    (
        "vlan-interface-missing",
        |facts| {
            facts.link("vmbr0", vlan_aware);
            facts.guest(100, "virtio=02:00:00:00:00:64,bridge=vmbr0,tag=10", OURS);
        },
        "vmbr0.10 does not exist; guests with assignments in this VLAN: 100",
        "add `iface vmbr0.10 inet manual` to /etc/network/interfaces, then `ifreload -a`",
    ),
    (
        "vlan-not-admitted",
        |facts| {
            facts
                .described("iface vmbr0 inet manual\n bridge-ports eno1\n bridge-vlan-aware yes\n bridge-vids 20-30\n");
            facts.guest(100, "virtio=02:00:00:00:00:64,bridge=vmbr0,tag=10", OURS);
        },
        "guest 100 net0 is in VLAN 10, which `bridge-vids` of vmbr0 does not have",
        "add it to `bridge-vids` in /etc/network/interfaces, then `ifreload -a`",
    ),
    (
        "trunk-mismatch",
        |facts| facts.guest(100, "virtio=02:00:00:00:00:64,bridge=vmbr0,trunks=7;9", OURS),
        "guest 100 net0 has VLAN 7, 9 in `trunks`, but may not send in it",
        "`pve-public-ip set 100 --net 0 --trunk 7 --trunk 9`",
    ),
    (
        "trunk-mismatch",
        |facts| {
            facts.link("vmbr0", vlan_aware);
            let mut guest = held(100, "02:00:00:00:00:64", "203.0.113.10/32");
            guest.interfaces.values_mut().for_each(|interface| interface.trunk = BTreeSet::from([7]));
            facts.files().inputs.registry.guests.insert(vmid(100), guest);
        },
        "guest 100 net0 may send in VLAN 7, but the bridge does not pass it",
        "add `trunks=...` to net0: `qm config 100`",
    ),
    (
        "foreign-chain-policy",
        |facts| facts.chain("bridge", "forward", true, false),
        "the chain all at forward has the policy drop",
        "`nft list table bridge other` shows it; the guests' addresses must be accepted there",
    ),
    (
        "foreign-chain-drops",
        |facts| facts.chain("bridge", "prerouting", false, true),
        "the table other has rules that drop frames",
        "`nft list table bridge other` shows them",
    ),
    (
        "forward-policy-drop",
        |facts| {
            facts.pools("ovh-bridged", "ovh-routed");
            facts.chain("ip", "forward", true, false);
        },
        "the chain all at forward has the policy drop, and pool `ovh` is routed",
        "`nft list table ip other` shows it; let the guests' addresses pass there",
    ),
    (
        "forward-policy-drop",
        |facts| {
            facts.parameter("net/bridge/bridge-nf-call-iptables", "1\n");
            facts.chain("inet", "forward", true, false);
        },
        "the chain all at forward has the policy drop, and bridged frames pass it too",
        "`nft list table inet other` shows it",
    ),
    (
        "forward-policy-drop",
        |facts| {
            facts.pools("ovh-bridged", "ovh-routed");
            facts.chain("ip6", "forward", true, false);
            facts.chains.as_mut().unwrap()[0].legacy = true;
        },
        "the chain all at forward has the policy drop, and pool `ovh` is routed",
        "`ip6tables-legacy -S all` shows it; let the guests' addresses pass there",
    ),
    (
        "rp-filter-strict",
        |facts| {
            facts.pools("ovh-bridged", "ovh-routed");
            facts.parameter("net/ipv4/conf/all/rp_filter", "0\n");
            facts.parameter("net/ipv4/conf/vmbr0/rp_filter", "1\n");
        },
        "reverse path filtering is strict on vmbr0, and pool `ovh` is routed to it",
        "`sysctl -w net.ipv4.conf.all.rp_filter=2`, and the same in a file in /etc/sysctl.d",
    ),
    (
        "rp-filter-strict",
        |facts| {
            facts.router();
            facts.parameter("net/ipv4/conf/all/rp_filter", "1\n");
            facts.parameter("net/ipv4/conf/vmbr0/rp_filter", "0\n");
        },
        "reverse path filtering is strict on vmbr0, and guest 100 is a router on it",
        "`sysctl -w",
    ),
    (
        "kernel-old",
        |facts| facts.kernel = Ok("5.10.0-28-amd64".into()),
        "the kernel is 5.10.0-28-amd64",
        "boot a newer one; `pve-public-ip selftest` tells how the rules fare on this one",
    ),
    (
        "clock-not-synchronised",
        |facts| facts.clock = Ok(false),
        "nothing keeps this node's clock right",
        "`systemctl status chrony`, or `apt install chrony`",
    ),
    (
        "files-from-the-future",
        |facts| facts.files().ahead = Some((PathBuf::from("/etc/pve/public-ip/pools.json"), Duration::from_secs(400))),
        "`/etc/pve/public-ip/pools.json` was written 400 s from now",
        "compare `date` on all nodes",
    ),
    (
        "version-skew",
        |facts| {
            facts.files().releases.insert(node("n2"), Release { release: "0.0.9".into(), hookscript: true });
        },
        concat!("node n2 ran release 0.0.9 when it last applied; this is ", env!("CARGO_PKG_VERSION")),
        "on n2, or here: `apt update && apt install pve-public-ip`",
    ),
    (
        "pool-nodes-not-named",
        |facts| facts.pools("\"nodes\":[\"n1\",\"n2\"],", ""),
        "pool `ovh` does not name its nodes: its addresses are taken to work on each of the 2 nodes of the cluster",
        "name those that have them at the provider, such as `pve-public-ip pool set ovh --nodes n1`",
    ),
    (
        "guest-on-other-node",
        |facts| facts.pools("[\"n1\",\"n2\"]", "[\"n2\"],\"elsewhere\":\"warn\""),
        "the provider routes 203.0.113.10 of pool `ovh` to node n2, not to n1: guest 100 has no network with it there",
        "migrate guest 100 to n2; if the provider routes it to n1, too: `pve-public-ip pool set ovh --nodes n2,n1`",
    ),
    (
        "node-offline",
        |facts| facts.files().members = Ok(Members { quorate: true, offline: BTreeSet::from([node("n2")]) }),
        "node n2 does not answer",
        "`pvecm status`",
    ),
    (
        "registry-format-old",
        |facts| facts.files().is_convertible = true,
        "all pools are in one file",
        "`pve-public-ip registry convert`",
    ),
    (
        "registry-leftover",
        |facts| facts.files().leftovers.push("/etc/pve/public-ip/pools.json.tmp.n2.7".into()),
        "`/etc/pve/public-ip/pools.json.tmp.n2.7` is a temporary file",
        "if it is older than an hour: `rm /etc/pve/public-ip/pools.json.tmp.n2.7`",
    ),
    (
        "template-with-addresses",
        |facts| facts.guest(100, "virtio=02:00:00:00:00:64,bridge=vmbr0", &format!("{OURS}template: 1\n")),
        "guest 100 is a template and holds public addresses",
        "if that is not meant: `pve-public-ip release 100`",
    ),
    (
        "storage-without-snippets",
        |facts| facts.files().storages = Storages::parse("dir: local\n\tpath /var/lib/vz\n\tcontent iso,vztmpl\n"),
        "storage local has hookscripts of guests, but not the content `snippets`",
        "`pvesm set local --content iso,vztmpl,snippets`",
    ),
    (
        "ovs-present",
        |facts| facts.described("iface vmbr9 inet manual\n ovs_type OVSBridge\n"),
        "vmbr9 is a bridge of Open vSwitch",
        "",
    ),
    (
        "router-advertises-prefix",
        |facts| advertised(facts, Some(true)),
        "guest 100 net0: the router fe80::7 on vmbr0 advertises 2001:db8:7::/64 for addresses that hosts make themselves",
        "`pve-public-ip set 100 --router-advertisements default`, or inside the guest",
    ),
    (
        "by-hand-same",
        |facts| by_hand(facts, "ip route add 198.18.0.5/32 dev vmbr0 || true"),
        "`ip route add 198.18.0.5/32 dev vmbr0 || true` of vmbr0 makes a route to 198.18.0.5/32",
        "",
    ),
    (
        "by-hand-same",
        |facts| by_hand(facts, "ip neigh add 198.18.0.5 lladdr 02:00:00:00:00:64 dev $IFACE nud permanent"),
        "`ip neigh add 198.18.0.5 lladdr 02:00:00:00:00:64 dev $IFACE nud permanent` of vmbr0 makes a permanent neighbour 198.18.0.5 with \
         MAC 02:00:00:00:00:64",
        "",
    ),
    (
        "by-hand-same",
        |facts| by_hand(facts, "echo 1 > /proc/sys/net/ipv4/conf/eno1/proxy_arp"),
        "`echo 1 > /proc/sys/net/ipv4/conf/eno1/proxy_arp` of vmbr0 makes proxy ARP on eno1",
        "",
    ),
    (
        "br-netfilter",
        |facts| facts.parameter("net/bridge/bridge-nf-call-ip6tables", "1\n"),
        "on: bridge-nf-call-ip6tables",
        "",
    ),
    ("proxmox-firewall", |facts| facts.firewall(ON, ""), "Proxmox VE's firewall is on, by iptables", ""),
    (
        "proxmox-firewall",
        |facts| {
            facts.firewall(ON, "");
            facts.files().firewall.host = FirewallFile::parse("[OPTIONS]\nnftables: 1\n");
        },
        "Proxmox VE's firewall is on, by nftables",
        "",
    ),
    (
        "kernel-feature-absent",
        |facts| facts.missing = Ok(vec![lacking(false)]),
        "veth: there can be no containers (not supported)",
        "",
    ),
];

fn lacking(required: bool) -> Missing {
    Missing { feature: "veth", meaning: "there can be no containers", reason: "not supported".into(), required }
}

/// Each comes near the finding of that code, and is none.
const NOT_FOUND: &[(&str, Change)] = &[
    ("filter-missing", |facts| {
        // Nothing to protect yet.
        facts.files().inputs.registry = Registry::default();
        facts.void = Ok(Table::ALL.to_vec());
    }),
    ("filter-missing", |facts| facts.void = Ok(vec![Table::Inet])),
    ("guest-without-hookscript", |facts| facts.guest(101, "virtio=02:00:00:00:00:65,bridge=vmbr1", "")),
    ("guest-other-hookscript", |facts| {
        facts.guest(100, "virtio=02:00:00:00:00:64,bridge=vmbr0", "hookscript: ceph:snippets/pve-public-ip\n");
    }),
    ("orphaned-assignment", |facts| {
        facts.files().inputs.guests.clear();
        facts.files().unreadable.insert(vmid(100), "broken".into());
    }),
    ("mac-unknown-to-provider", |facts| {
        // A provider that does not mind.
        facts.pools("ovh-bridged", "generic-bridged");
        facts.guest(101, "virtio=02:00:00:00:00:65,bridge=vmbr0", "");
    }),
    ("mac-kept-back", |facts| facts.guest(101, "virtio=02:00:00:00:00:65,bridge=vmbr1", "")),
    ("mac-kept-back", |facts| facts.guest_on("n2", 101, "virtio=02:00:00:00:00:65,bridge=vmbr0", "")),
    ("bridge-missing", |facts| {
        facts.guest_on("n2", 100, "virtio=02:00:00:00:00:64,bridge=vmbr0", OURS);
        facts.links = Ok(Links::default());
    }),
    ("ipfilter-drops-address", |facts| {
        facts.firewall(ON, "[OPTIONS]\nenable: 1\n[IPSET ipfilter-net0]\n203.0.113.10\n");
    }),
    ("ipfilter-drops-address", |facts| {
        facts.firewall(ON, "[OPTIONS]\nenable: 1\nipfilter: 1\n");
        facts.guest(100, "virtio=02:00:00:00:00:64,bridge=vmbr0,firewall=0", OURS);
    }),
    ("ipfilter-would-drop", |facts| facts.firewall(ON, "[OPTIONS]\nenable: 1\nipfilter: 1\n")),
    ("vlan-interface-missing", |facts| {
        facts.link("vmbr0", vlan_aware);
        facts.link("vmbr0.10", |_| {});
        facts.guest(100, "virtio=02:00:00:00:00:64,bridge=vmbr0,tag=10", OURS);
    }),
    ("vlan-not-admitted", |facts| facts.guest(100, "virtio=02:00:00:00:00:64,bridge=vmbr0,tag=10", OURS)),
    ("duplicate-mac", |facts| {
        facts.guest(101, "virtio=02:00:00:00:00:65,bridge=vmbr1", "net1: virtio=02:00:00:00:00:66,bridge=vmbr1\n");
        // A guest's own port, as the node sees a container's.
        facts.link("veth100i0", |link| link.mac = "02:00:00:00:00:64".parse().ok());
    }),
    ("foreign-chain-policy", |facts| facts.chain("inet", "forward", true, true)),
    ("foreign-chain-drops", |facts| facts.chain("bridge", "prerouting", false, false)),
    ("forward-policy-drop", |facts| facts.chain("ip", "forward", true, false)),
    ("forward-policy-drop", |facts| {
        facts.pools("ovh-bridged", "ovh-routed");
        facts.chain("ip", "input", true, false);
    }),
    ("rp-filter-strict", |facts| facts.parameter("net/ipv4/conf/all/rp_filter", "1\n")),
    ("rp-filter-strict", |facts| {
        facts.router();
        facts.parameter("net/ipv4/conf/vmbr0/rp_filter", "1\n");
    }),
    ("files-from-the-future", |facts| facts.files().ahead = Some(("pools.json".into(), Duration::from_secs(3)))),
    ("pool-nodes-not-named", |facts| {
        facts.pools("\"nodes\":[\"n1\",\"n2\"],", "");
        facts.files().nodes.pop();
    }),
    ("pool-nodes-not-named", |facts| {
        facts.pools(
            "ovh-bridged\",\"bridge\":\"vmbr0\",\"nodes\":[\"n1\",\"n2\"]",
            "generic-bridged\",\"bridge\":\"vmbr0\"",
        );
    }),
    ("guest-on-other-node", |facts| {
        facts.pools("[\"n1\",\"n2\"]", "[\"n2\"],\"elsewhere\":\"warn\"");
        facts.guest_on("n2", 100, "virtio=02:00:00:00:00:64,bridge=vmbr0", OURS);
    }),
    ("version-skew", |facts| {
        let own = Release { release: env!("CARGO_PKG_VERSION").into(), hookscript: true };
        facts.files().releases.insert(node("n2"), own);
    }),
    ("gateway-mac-unknown", |facts| {
        facts.files().inputs.routers.clear();
        facts.pools("\"bridge\":\"vmbr0\"", "\"bridge\":\"vmbr0\",\"gateway_mac\":\"02:00:00:00:00:fe\"");
    }),
    ("gateway-mac-unknown", |facts| {
        // No guest of this node needs it.
        facts.files().inputs.routers.clear();
        facts.files().inputs.registry.guests = [].into();
    }),
    ("router-advertises-prefix", |facts| advertised(facts, None)),
    ("router-advertises-prefix", |facts| advertised(facts, Some(false))),
    ("by-hand-differs", |facts| by_hand(facts, "ip route add 198.18.0.5 dev vmbr0")),
    ("by-hand-differs", |facts| by_hand(facts, "ip route add 203.0.113.10 dev vmbr7")),
    ("by-hand-differs", |facts| by_hand(facts, "ip route add 198.18.0.0/30 dev vmbr7")),
    ("by-hand-differs", |facts| by_hand(facts, "ip route add 192.0.2.1 dev vmbr7")),
    ("by-hand-same", |facts| by_hand(facts, "ip route add default via 198.51.100.1")),
    ("set-nearly-full", |facts| facts.pools("{\"address\":\"203.0.113.16/29\"}", "{\"address\":\"10.0.0.0/12\"}")),
    ("nft-old", |facts| facts.nft = Ok(Ok("1.1.3".into()))),
    ("kernel-old", |facts| facts.kernel = Ok("6.1.0-28-amd64".into())),
    ("storage-without-snippets", |facts| {
        facts.files().storages = Storages::parse("dir: other\n\tpath /srv\n\tcontent iso\n");
    }),
    ("snippets-not-everywhere", |facts| {
        facts.files().storages = Storages::parse("dir: all\n\tpath /srv\n\tcontent snippets\n\tshared 1\n");
        let more = format!("{OURS}cicustom: network=all:snippets/pve-public-ip-100-network.yaml\n");
        facts.guest(100, "virtio=02:00:00:00:00:64,bridge=vmbr0", &more);
    }),
];

fn spoilt(change: Change) -> Examination {
    let mut facts = healthy();
    change(&mut facts);
    if let (Ok(files), Ok(links)) = (&mut facts.files, &facts.links) {
        files.inputs.links = links.clone();
    }
    examine(&facts)
}

#[test]
fn a_healthy_node_has_no_findings() {
    let examination = examine(&healthy());
    assert_eq!(examination, Examination::default());
    assert!(examination.is_good());
}

#[test]
fn every_finding_is_found_and_told() {
    let mut wrong = Vec::new();
    for (code, change, sentence, remedy) in FOUND {
        let examination = spoilt(*change);
        let found: Vec<_> = examination.findings.iter().filter(|finding| finding.code == *code).collect();
        let advised = |given: &str| if remedy.is_empty() { given.is_empty() } else { given.starts_with(remedy) };
        if !found.iter().any(|finding| finding.sentence == *sentence && advised(&finding.remedy)) {
            wrong.push(format!("{code}: {sentence:?} / {remedy:?}\n  found {found:#?}"));
        }
        let only_remarks = examination.findings.iter().all(|finding| finding.severity == Severity::Info);
        assert_eq!(examination.is_good(), only_remarks, "{code}");
        let order: Vec<Severity> = examination.findings.iter().map(|finding| finding.severity).collect();
        assert!(order.is_sorted(), "{code}: {order:?}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_code_has_a_row() {
    let tested: BTreeSet<&str> = FOUND.iter().map(|(code, ..)| *code).collect();
    let all: BTreeSet<&str> = CHECKS.iter().map(|check| check.code).collect();
    assert_eq!(tested, all);
}

#[test]
fn what_only_looks_alike_is_not_found() {
    for (code, change) in NOT_FOUND {
        assert!(CHECKS.iter().any(|check| check.code == *code), "{code}");
        let examination = spoilt(*change);
        let found: Vec<_> = examination.findings.iter().filter(|finding| finding.code == *code).collect();
        let unchecked: Vec<_> = examination.unchecked.iter().filter(|unchecked| unchecked.code == *code).collect();
        assert!(found.is_empty() && unchecked.is_empty(), "{code}: {found:#?} {unchecked:#?}");
    }
}

/// Only what puts something in place, and for guests of this node.
#[test]
fn only_the_safe_ones_are_fixed() {
    let mut fixable = BTreeSet::new();
    for (code, change, ..) in FOUND {
        for finding in spoilt(*change).findings.iter().filter(|finding| finding.code == *code) {
            assert_eq!(finding.fixable, finding.fix.is_some());
            if let Some(fix) = &finding.fix {
                fixable.insert((*code, format!("{fix:?}").split('(').next().unwrap_or_default().to_owned()));
            }
        }
    }
    let expected = [
        ("bridge-learns-link-local", "DeafenBridge"),
        ("guard-not-enabled", "EnableGuard"),
        ("guard-not-running", "EnableGuard"),
        ("guest-without-hookscript", "RegisterHookscript"),
        ("hookscript-missing", "PlaceHookscript"),
        ("hookscript-not-executable", "MakeExecutable"),
    ];
    assert_eq!(fixable, expected.map(|(code, fix)| (code, fix.to_owned())).into());
    let elsewhere = spoilt(|facts| facts.guest_on("n2", 100, "virtio=02:00:00:00:00:64,bridge=vmbr0", ""));
    assert!(elsewhere.findings.iter().all(|finding| !matches!(finding.fix, Some(Fix::RegisterHookscript(_)))));
}

/// What cannot be looked at is said, and everything else is looked at all the same.
#[test]
fn what_is_unknown_keeps_nothing_else_from_being_found() {
    let everything: [(Change, &[&str], &str); 7] = [
        (
            |facts| facts.files = Err("`/etc/pve` does not answer".into()),
            &["registry-broken", "no-quorum", "trunk-mismatch"],
            "`/etc/pve` does not answer",
        ),
        (|facts| facts.links = Err("no netlink".into()), &["bridge-missing", "uplink-missing"], "no netlink"),
        (
            |facts| facts.chains = Err("no nf_tables".into()),
            &["foreign-chain-policy", "foreign-chain-drops"],
            "no nf_tables",
        ),
        (|facts| facts.clock = Err("nobody knows".into()), &["clock-not-synchronised"], "nobody knows"),
        (|facts| facts.missing = Err("no namespaces".into()), &["kernel-feature-missing"], "no namespaces"),
        (
            |facts| facts.guard().enabled = None,
            &["guard-not-enabled"],
            "the unit pve-public-ip.service is not installed",
        ),
        (|facts| facts.nft = Ok(Ok("ghost".into())), &["nft-old"], "`nft --version` says `ghost`, which has no number"),
    ];
    for (change, codes, reason) in everything {
        let mut facts = healthy();
        facts.kernel = Ok("5.10.0".to_owned());
        change(&mut facts);
        let examination = examine(&facts);
        for code in codes {
            let said = examination.unchecked.iter().find(|unchecked| unchecked.code == *code);
            assert_eq!(said.map(|unchecked| unchecked.reason.as_str()), Some(reason), "{code}");
        }
        let mut found: Vec<&str> = examination.findings.iter().map(|finding| finding.code).collect();
        found.retain(|code| *code != "etc-pve-unreadable" || facts.files.is_ok());
        assert_eq!(found, ["kernel-old"], "{reason}");
    }
}
