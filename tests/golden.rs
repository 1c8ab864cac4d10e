//! Guest configurations as Proxmox VE writes them, and as people and accidents leave them.
//!
//! One directory a case: `qemu.conf` or `lxc.conf`, and `expected.json` with what the program understands. What is
//! left out there is absent, off or empty.
//!
//! And what such a guest has to find inside, under `cloud-init`: with `guest.json` and `pools.json` of the registry, and
//! perhaps the node's `resolv.conf`; `expected.txt` has the lines of the configuration and what is said, `network.yaml` the
//! document, where one is needed.
//!
//! And what is said of documents that a guest finds in its image, under `network-data`: the first line of each names the
//! case of `cloud-init` whose guest gets it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ipnet::IpNet;
use pve_public_ip::cloudinit::{self, Subnet};
use pve_public_ip::guest::{GuestConfig, Nic};
use pve_public_ip::model::{GuestKind, NicId};
use pve_public_ip::registry::document::{GuestFile, PoolsFile, parse};
use serde_json::{Map, Value, json};

#[test]
fn guest_configurations_are_understood() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/guest-config");
    let mut seen = 0;
    let mut wrong = String::new();
    for case in fs::read_dir(&cases).unwrap() {
        let case = case.unwrap().path();
        let (kind, file) = match (case.join("qemu.conf"), case.join("lxc.conf")) {
            (qemu, lxc) if qemu.exists() != lxc.exists() => {
                if qemu.exists() {
                    (GuestKind::Qemu, qemu)
                } else {
                    (GuestKind::Lxc, lxc)
                }
            }
            _ => panic!("{} needs either qemu.conf or lxc.conf", case.display()),
        };
        let expected: Value = serde_json::from_slice(&fs::read(case.join("expected.json")).unwrap()).unwrap();
        let found = shown(&GuestConfig::parse(kind, &fs::read(file).unwrap()));
        if found != expected {
            wrong += &format!("{}\nexpected {expected:#}\nfound {found:#}\n", case.display());
        }
        seen += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(seen >= 20, "only {seen} cases in {}", cases.display());
}

#[test]
fn guests_are_told_what_they_need() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cloud-init");
    let mut seen = 0;
    let mut wrong = String::new();
    for case in fs::read_dir(&cases).unwrap() {
        let case = case.unwrap().path();
        let read = |name: &str| fs::read(case.join(name)).unwrap_or_default();
        let kind = if case.join("qemu.conf").exists() { GuestKind::Qemu } else { GuestKind::Lxc };
        let config = GuestConfig::parse(kind, &read(if kind == GuestKind::Qemu { "qemu.conf" } else { "lxc.conf" }));
        let guest: GuestFile = parse(&case.join("guest.json"), &read("guest.json")).unwrap();
        let pools: PoolsFile = parse(&case.join("pools.json"), &read("pools.json")).unwrap();
        let resolver = cloudinit::resolver(&String::from_utf8(read("resolv.conf")).unwrap());
        let (expected, network) = match cloudinit::wanted(&guest, &pools, &config, &resolver) {
            Err(reason) => (format!("not told: {reason}\nhint: {}\n", reason.hint(guest.vmid, kind)), String::new()),
            Ok(wanted) => {
                let assigned = wanted.nics.iter().filter(|(_, nic)| nic.assigned);
                let lines = assigned.map(|(id, nic)| {
                    format!("{}: {}\n", config.ip_config_key(*id), config.with_ip_config(*id, &nic.ip_config()))
                });
                let notes = wanted.notes.iter().map(|note| format!("note: {note}\n"));
                let needs = kind == GuestKind::Qemu && wanted.needs_document();
                let network = if needs { cloudinit::document(&wanted, guest.cloud_init.os) } else { String::new() };
                (lines.chain(notes).collect(), network)
            }
        };
        for (file, found) in [("expected.txt", expected), ("network.yaml", network)] {
            if read(file) != found.as_bytes() {
                wrong += &format!("{} should be\n{found}\n", case.join(file).display());
            }
        }
        seen += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(seen >= 20, "only {seen} cases in {}", cases.display());
}

/// A guest's registry files and configuration from a case under `cloud-init`.
fn cloud_init_case(case: &Path) -> (GuestFile, PoolsFile, GuestConfig) {
    let read = |name: &str| fs::read(case.join(name)).unwrap();
    let guest = parse(&case.join("guest.json"), &read("guest.json")).unwrap();
    let pools = parse(&case.join("pools.json"), &read("pools.json")).unwrap();
    (guest, pools, GuestConfig::parse(GuestKind::Qemu, &read("qemu.conf")))
}

/// What is said of a document in the image of a case's guest.
fn findings(case: &Path, document: &str) -> String {
    let (guest, pools, config) = cloud_init_case(case);
    let wanted = cloudinit::wanted(&guest, &pools, &config, &cloudinit::Resolver::default()).unwrap();
    let contents = cloudinit::Contents {
        label: "cidata".to_owned(),
        network: Some(document.as_bytes().to_vec()),
        meta: Some(b"instance-id: x\n".to_vec()),
    };
    let findings = cloudinit::check(&guest, &config, &wanted, &contents);
    let line = |finding: &cloudinit::Finding| {
        let word = if finding.wrong { "wrong" } else { "doubt" };
        format!("{word}: {}\n  hint: {}\n", finding.sentence, finding.hint)
    };
    findings.iter().map(line).collect()
}

#[test]
fn documents_in_images_are_judged() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut seen = 0;
    let mut wrong = String::new();
    for file in fs::read_dir(golden.join("network-data")).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let document = fs::read_to_string(&file).unwrap();
        let case = document.lines().next().and_then(|line| line.strip_prefix("# guest: ")).unwrap();
        let found = findings(&golden.join("cloud-init").join(case), &document);
        let expected = file.with_extension("txt");
        if fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong += &format!("{} should be\n{found}\n", expected.display());
        }
        seen += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(seen >= 20, "only {seen} documents");
}

/// What this program writes passes its own check, and so does what Proxmox VE writes where that suffices.
#[test]
fn what_guests_are_told_is_what_they_need() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cloud-init");
    let (mut own, mut plain) = (0, 0);
    for case in fs::read_dir(&cases).unwrap() {
        let case = case.unwrap().path();
        if !case.join("qemu.conf").exists() {
            continue;
        }
        let (guest, pools, config) = cloud_init_case(&case);
        let resolver =
            cloudinit::Resolver { name_servers: vec!["192.0.2.53".parse().unwrap()], search_domains: vec![] };
        let Ok(wanted) = cloudinit::wanted(&guest, &pools, &config, &resolver) else { continue };
        let document = if wanted.needs_document() {
            own += 1;
            cloudinit::document(&wanted, guest.cloud_init.os)
        } else {
            plain += 1;
            as_proxmox_writes(&wanted)
        };
        let found = findings(&case, &document);
        let no_server = wanted.nics.values().all(|nic| nic.name_servers.is_empty());
        let rest: Vec<&str> = found.lines().filter(|line| !(no_server && line.contains("nameserver"))).collect();
        let rest: Vec<&&str> = rest.iter().filter(|line| !line.contains("is told no name server")).collect();
        assert!(rest.is_empty(), "{}: {document}\n{found}", case.display());
    }
    assert!(own >= 15 && plain >= 3, "{own} documents of our own, {plain} of Proxmox VE");
}

/// What to configure inside by hand, for the cases of `cloud-init` that `inside` names.
#[test]
fn guests_without_cloud_init_are_shown_what_to_configure() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut seen = 0;
    let mut wrong = String::new();
    for file in fs::read_dir(golden.join("inside")).unwrap() {
        let file = file.unwrap().path();
        let case = golden.join("cloud-init").join(file.file_stem().unwrap());
        let read = |name: &str| fs::read(case.join(name)).unwrap_or_default();
        let kind = if case.join("qemu.conf").exists() { GuestKind::Qemu } else { GuestKind::Lxc };
        let config = GuestConfig::parse(kind, &[read("qemu.conf"), read("lxc.conf")].concat());
        let guest: GuestFile = parse(&case.join("guest.json"), &read("guest.json")).unwrap();
        let pools: PoolsFile = parse(&case.join("pools.json"), &read("pools.json")).unwrap();
        let resolver = cloudinit::resolver(&String::from_utf8(read("resolv.conf")).unwrap());
        let manuals = cloudinit::manuals(&guest, &pools, &config, &resolver).unwrap();
        let found: Vec<String> = manuals.iter().map(|it| format!("[{}] {}\n{}", it.key, it.title, it.text)).collect();
        let found = found.join("\n");
        if fs::read_to_string(&file).unwrap() != found {
            wrong += &format!("{} should be\n{found}\n", file.display());
        }
        seen += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(seen >= 8, "only {seen} cases");
}

/// Source: qemu-server `PVE/QemuServer/Cloudinit.pm`, `nocloud_network`.
fn as_proxmox_writes(wanted: &cloudinit::Wanted) -> String {
    let mut text = "version: 1\nconfig:\n".to_owned();
    for nic in wanted.nics.values() {
        let (name, mac) = (&nic.name, nic.mac);
        text += &format!("    - type: physical\n      name: {name}\n      mac_address: '{mac}'\n      subnets:\n");
        for subnet in &nic.subnets {
            let lines = match subnet {
                Subnet::Dhcp4 => "type: dhcp4".to_owned(),
                Subnet::Dhcp6 => "type: dhcp6".to_owned(),
                Subnet::Auto => "type: ipv6_slaac".to_owned(),
                Subnet::Static { address: IpNet::V4(net), .. } => {
                    format!("type: static\n        address: '{}'\n        netmask: '{}'", net.addr(), net.netmask())
                }
                Subnet::Static { address, .. } => format!("type: static6\n        address: '{address}'"),
            };
            text += &format!("      - {lines}\n");
            if let Subnet::Static { gateway: Some(gateway), .. } = subnet {
                text += &format!("        gateway: '{}'\n", gateway.address);
            }
        }
    }
    text + "    - type: nameserver\n      address:\n      - '192.0.2.53'\n"
}

fn shown(config: &GuestConfig) -> Value {
    let nics: Map<String, Value> = config
        .nics
        .iter()
        .map(|(id, nic)| (id.to_string(), nic.as_ref().map_or_else(|error| error.to_string().into(), shown_nic)))
        .collect();
    let mut map = Map::from_iter([("nics".to_owned(), Value::Object(nics))]);
    map.extend(config.hookscript.clone().map(|volume| ("hookscript".to_owned(), volume.into())));
    map.extend(config.name.clone().map(|name| ("name".to_owned(), name.into())));
    map.extend(config.template.then(|| ("template".to_owned(), true.into())));
    if !config.configured.is_empty() {
        let mut nets: Vec<String> = config.configured.iter().map(ToString::to_string).collect();
        nets.sort_unstable();
        map.insert("configured".to_owned(), json!(nets));
    }
    map.extend(shown_inside(config));
    Value::Object(map)
}

/// What the configuration says about the network inside.
fn shown_inside(config: &GuestConfig) -> Map<String, Value> {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| {
        if !(value.is_null() || value == json!({}) || value == json!([]) || value == json!(false)) {
            map.insert(key.to_owned(), value);
        }
    };
    let nics = (0..32).map(|index| index.to_string().parse::<NicId>().unwrap());
    let inside = nics.filter_map(|nic| {
        let shown = config.ip_config(nic)?.map_or_else(|error| error.to_string(), |config| config.to_string());
        Some((nic.to_string(), shown))
    });
    put("inside", json!(inside.collect::<BTreeMap<_, _>>()));
    put("cloud_init_drives", json!(config.cloud_init_drives()));
    if config.line("citype").is_some() || config.is_windows() {
        put("cloud_init_form", json!(config.cloud_init_form().as_str()));
    }
    put("windows", json!(config.is_windows()));
    put("cicustom", json!(config.cicustom()));
    put("name_servers", json!(config.name_servers()));
    put("search_domains", json!(config.search_domains()));
    put("uuid", json!(config.uuid()));
    put("agent", json!(config.has_agent()));
    map
}

fn shown_nic(nic: &Nic) -> Value {
    let mut map = Map::new();
    map.extend(nic.mac.map(|mac| ("mac".to_owned(), mac.to_string().into())));
    map.extend(nic.bridge.map(|bridge| ("bridge".to_owned(), bridge.to_string().into())));
    map.extend(nic.tag.map(|tag| ("tag".to_owned(), tag.into())));
    map.extend(nic.firewall.then(|| ("firewall".to_owned(), true.into())));
    map.extend(nic.mtu.map(|mtu| ("mtu".to_owned(), mtu.into())));
    Value::Object(map)
}
