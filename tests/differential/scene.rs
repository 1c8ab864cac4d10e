//! The node of the differential test: what the program makes of it, and the same written down by hand for the oracle.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::IpNet;
use pve_public_ip::guest::GuestConfig;
use pve_public_ip::links::BridgeOptions;
use pve_public_ip::links::Link;
use pve_public_ip::links::Links;
use pve_public_ip::model::{GuestKind, MacAddr};
use pve_public_ip::oracle::{Bindings, BoundPort, Holdings, PortRole};
use pve_public_ip::plan::{self, Exits, Inputs, Located, Presence};
use pve_public_ip::registry::Registry;
use pve_public_ip::registry::document::{GuestFile, parse};
use pve_public_ip::ruleset::{Backend, Element, SetId};

use super::Mac;
use super::lab::{link_local, text};
use super::verdicts::Who;

pub(crate) const GATEWAY: Mac = [2, 0, 0, 0, 0xff, 1];
/// Another machine beyond the uplink.
pub(crate) const PEER: Mac = [2, 0, 0, 0, 0xff, 2];
/// What the node has on a bridge without a pool.
pub(crate) const OTHER_NETWORK: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(198, 19, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 9, 9, 0, 0, 0, 1));
/// A VLAN that the trunk port may send in.
pub(crate) const TRUNK_VLAN: u16 = 30;
/// What a NIC has besides the addresses of pools.
pub(crate) const INNER: [&str; 2] = ["198.18.7.0/24", "2001:db8:77::/64"];
/// One of each.
pub(crate) const INNER_IP4: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 9);
pub(crate) const INNER_IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 9);
/// A further MAC of it.
pub(crate) const FURTHER_MAC: Mac = [2, 0, 0, 0, 0x77, 100];
/// A virtual router of which it is a member.
pub(crate) const VIRTUAL: u8 = 77;
/// The MACs of that.
pub(crate) const VIRTUAL_MACS: [Mac; 2] = [[0, 0, 0x5e, 0, 1, VIRTUAL], [0, 0, 0x5e, 0, 2, VIRTUAL]];
/// A link-local address that an assignment names.
pub(crate) const NAMED_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xabcd, 1, 2, 3);
/// Another one that the node has.
pub(crate) const NODE_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xabcd, 4, 5, 6);

pub(crate) const fn guest_mac(vmid: u8, nic: u8) -> Mac {
    [2, 0, 0, 0, nic, vmid]
}

/// `203.0.113.10` goes with `2001:db8:0:1::10`.
pub(crate) fn who(mac: Mac, last: u8) -> Who {
    let ip6 = format!("2001:db8:0:1::{last}").parse().unwrap();
    Who { mac, ip4: Ipv4Addr::new(203, 0, 113, last), ip6 }
}

/// Bound ports: name, guest, NIC, last octet of the addresses.
pub(crate) const BOUND: [(&str, u8, u8, u8); 4] =
    [("tap100i0", 100, 0, 10), ("tap100i1", 100, 1, 12), ("tap101i0", 101, 0, 11), ("veth102i0", 102, 0, 13)];
/// Assigned, and not here: guest, last octet.
const ELSEWHERE: [(u8, u8); 2] = [(104, 15), (105, 16)];
const PREFIXES: [&str; 3] = ["198.51.100.8/29", "2001:db8:100:1::/64", "2001:db8:100:200::/56"];

/// Of the trunk port.
const TRUNK_PREFIX: &str = "198.51.100.16/29";

/// The inputs of the program, as if read from a node with `node_mac` on its bridge.
#[expect(clippy::too_many_lines, reason = "a line for each thing in the scene")]
pub(crate) fn inputs(node_mac: Mac, guarded: bool) -> Inputs {
    let single = |last: u8| {
        let who = who([0; 6], last);
        [format!("{}/32", who.ip4), format!("{}/128", who.ip6)]
    };
    let entries = |list: Vec<String>| {
        list.iter().map(|address| format!(r#"{{"address":"{address}"}}"#)).collect::<Vec<_>>().join(",")
    };
    let all = (10..=20).flat_map(single).chain(["198.51.100.0/24", "2001:db8:100::/48"].map(str::to_owned)).collect();
    let pools = format!(
        r#"{{"version":1,"pools":{{
            "public":{{"profile":"generic-bridged","bridge":"vmbr0","gateway4":"203.0.113.1","gateway6":"2001:db8:0:1::1",
                "addresses":[{}]}},
            "returning":{{"profile":"generic-bridged","uplink_guard":"{guard}","bridge":"vmbr0","gateway6":"fe80::1","gateway_mac":"{}",
                "addresses":[{{"address":"192.0.2.128/28"}}]}}}}}}"#,
        entries(all),
        text(GATEWAY),
        guard = if guarded { "enforce" } else { "off" }
    );
    let mut registry =
        Registry { pools: parse(Path::new("pools.json"), pools.as_bytes()).unwrap(), ..Registry::default() };

    let nic = |vmid: u8, nic: u8, last: u8, more: &[&str], rest: &str| {
        let list = single(last).into_iter().chain(more.iter().map(|net| (*net).to_owned()));
        let assigned: Vec<String> = list
            .map(|net| format!(r#"{{"address":"{net}","pool":"public","assigned_at":"2026-01-01T00:00:00Z"}}"#))
            .collect();
        format!(r#""net{nic}":{{"mac":"{}",{rest}"addresses":[{}]}}"#, text(guest_mac(vmid, nic)), assigned.join(","))
    };
    let named = format!(r#""link_local":["{NAMED_LOCAL}"],"#);
    let mut interfaces: BTreeMap<u8, Vec<String>> = BTreeMap::new();
    for (_, vmid, number, last) in BOUND {
        let text = match (vmid, number) {
            (100, 0) => nic(vmid, number, last, &PREFIXES, &named),
            (100, _) => {
                let rest = format!(
                    r#""dhcp":false,"also":["{}","{}"],"further_macs":["{}"],"vrrp":[{VIRTUAL}],"#,
                    INNER[0],
                    INNER[1],
                    text(FURTHER_MAC)
                );
                nic(vmid, number, last, &[], &rest)
            }
            (101, _) => nic(vmid, number, last, &[], r#""any_link_local":true,"#),
            (102, _) => {
                let rest = format!(r#""trunk":[{TRUNK_VLAN}],"router_advertisements":true,"#);
                nic(vmid, number, last, &[TRUNK_PREFIX], &rest)
            }
            _ => nic(vmid, number, last, &[], ""),
        };
        interfaces.entry(vmid).or_default().push(text);
    }
    for (vmid, last) in ELSEWHERE {
        interfaces.entry(vmid).or_default().push(nic(vmid, 0, last, &[], ""));
    }
    for (vmid, interfaces) in interfaces {
        let text = format!(r#"{{"version":1,"vmid":{vmid},"interfaces":{{{}}}}}"#, interfaces.join(","));
        let file: GuestFile = parse(Path::new(&format!("{vmid}.json")), text.as_bytes()).unwrap();
        registry.guests.insert(file.vmid, file);
    }

    let mut guests = BTreeMap::new();
    let mut presence = BTreeMap::new();
    for (vmid, kind, bridge) in [
        (100, GuestKind::Qemu, "vmbr0"),
        (101, GuestKind::Qemu, "vmbr0"),
        (102, GuestKind::Lxc, "vmbr0"),
        (104, GuestKind::Qemu, "vmbr0"),
        (210, GuestKind::Qemu, "vmbr1"),
        (211, GuestKind::Qemu, "vmbr2"),
    ] {
        let config: String =
            [0, 1].map(|nic| format!("net{nic}: virtio={},bridge={bridge}\n", text(guest_mac(vmid, nic)))).concat();
        // Guest 100 routes its prefixes to vmbr1.
        let lan = if vmid == 100 { "net9: virtio=02:00:00:00:09:64,bridge=vmbr1\n" } else { "" };
        let config = (config + lan)
            .replace("virtio", if kind == GuestKind::Lxc { "type=veth,name=eth0,hwaddr" } else { "virtio" });
        let config = GuestConfig::parse(kind, config.as_bytes());
        let vmid = vmid.to_string().parse().unwrap();
        guests.insert(vmid, Located { node: "n1".parse().unwrap(), config });
        if vmid != "104".parse().unwrap() {
            presence.insert(vmid, Presence::Running);
        }
    }
    let mut links = Links::default();
    let addresses = ["203.0.113.250/24", "2001:db8:0:1::250/64"].map(|net| net.parse().unwrap());
    let local = [link_local(node_mac), NODE_LOCAL].map(|address| format!("{address}/64").parse().unwrap());
    links.0.insert(
        "vmbr0".parse().unwrap(),
        Link {
            mac: Some(MacAddr::from_octets(node_mac)),
            addresses: addresses.into_iter().chain(local).collect(),
            bridge: Some(BridgeOptions::default()),
            ..Link::default()
        },
    );
    let (ip4, ip6) = OTHER_NETWORK;
    let others = [format!("{ip4}/24"), format!("{ip6}/64"), "fe80::99/64".to_owned()].map(|net| net.parse().unwrap());
    let other = Link { addresses: others.into(), bridge: Some(BridgeOptions::default()), ..Link::default() };
    links.0.insert("vmbr2".parse().unwrap(), other);
    let loopback = ["127.0.0.1/8", "::1/128"].map(|net| net.parse().unwrap()).into();
    links.0.insert("lo".parse().unwrap(), Link { addresses: loopback, ..Link::default() });
    for (port, bridge) in BOUND.map(|(port, ..)| (port, "vmbr0")).into_iter().chain([
        ("eno1", "vmbr0"),
        ("eno2", "vmbr0"),
        ("tap200i0", "vmbr0"),
        ("tap210i0", "vmbr1"),
        ("tap211i0", "vmbr2"),
    ]) {
        let link = Link { master: Some(bridge.parse().unwrap()), ..Link::default() };
        links.0.insert(port.parse().unwrap(), link);
    }
    let (exits, backend) = (Exits::default(), Backend::default());
    Inputs { presence, links, exits, backend, ..Inputs::new("n1".parse().unwrap(), registry, guests) }
}

/// Everything that goes into the sets: what the program decides, and one port that may be a router, for the pool's
/// other ports may not.
pub(crate) fn elements(inputs: &Inputs) -> Vec<Element> {
    let desired = plan::desired(inputs);
    let mut elements = desired.state.elements;
    elements.insert(Element::port(SetId::RouterPorts, "tap202i0".parse().unwrap()));
    elements.into_iter().collect()
}

/// What the oracle is told.
pub(crate) fn bindings(node_mac: Mac) -> Bindings {
    let net = |text: &str| text.parse().unwrap();
    let single = |who: Who| [IpAddr::from(who.ip4), IpAddr::from(who.ip6)].map(IpNet::from);
    let mac = MacAddr::from_octets;
    let bound_macs = BOUND.map(|(_, vmid, nic, _)| guest_mac(vmid, nic)).into_iter().chain([FURTHER_MAC]);
    let bound_macs: Vec<Mac> = bound_macs.collect();
    let mut bound = Holdings { macs: bound_macs.iter().copied().map(mac).collect(), nets: PREFIXES.map(net).to_vec() };
    bound.nets.extend(BOUND.into_iter().flat_map(|(.., last)| single(who([0; 6], last))));
    bound.nets.extend(bound_macs.into_iter().map(|mac| IpNet::from(IpAddr::from(link_local(mac)))));
    bound.nets.extend([IpAddr::from(NAMED_LOCAL).into(), net(TRUNK_PREFIX)]);

    let mut infrastructure = Holdings { macs: [node_mac, GATEWAY].map(mac).into(), nets: Vec::new() };
    infrastructure.nets.extend([1, 250].into_iter().flat_map(|last| single(who([0; 6], last))));
    infrastructure.nets.extend([
        net("fe80::1/128"),
        IpAddr::from(link_local(GATEWAY)).into(),
        IpAddr::from(link_local(node_mac)).into(),
        IpAddr::from(NODE_LOCAL).into(),
        IpAddr::from(OTHER_NETWORK.0).into(),
        IpAddr::from(OTHER_NETWORK.1).into(),
    ]);

    let mut reserved = Holdings::default();
    reserved.macs.extend(ELSEWHERE.map(|(vmid, _)| mac(guest_mac(vmid, 0))));
    reserved.nets.extend(["198.51.100.0/24", "2001:db8:100::/48", "192.0.2.128/28"].map(net));
    reserved.nets.extend((10..=20).flat_map(|last| single(who([0; 6], last))));
    let registered = bound.macs.iter().copied().chain(ELSEWHERE.map(|(vmid, _)| mac(guest_mac(vmid, 0))));
    let registered = Some(registered.chain(VIRTUAL_MACS.map(mac)).collect());
    reserved.macs.extend(VIRTUAL_MACS.map(mac));
    let broadcasts = ["203.0.113.255", "198.51.100.255", "192.0.2.143"].map(|text| text.parse().unwrap()).into();
    Bindings { bound, infrastructure, reserved, returning: [mac(GATEWAY)].into(), registered, broadcasts }
}

/// What a bound port is to the oracle.
pub(crate) fn bound_role(vmid: u8, nic: u8, last: u8) -> PortRole {
    let (mac, who) = (guest_mac(vmid, nic), who(guest_mac(vmid, nic), last));
    let mut own: Vec<IpNet> =
        vec![IpAddr::from(who.ip4).into(), IpAddr::from(who.ip6).into(), IpAddr::from(link_local(mac)).into()];
    if (vmid, nic) == (100, 0) {
        own.extend(PREFIXES.map(|net| net.parse::<IpNet>().unwrap()));
        own.push(IpAddr::from(NAMED_LOCAL).into());
    }
    if vmid == 102 {
        own.push(TRUNK_PREFIX.parse().unwrap());
    }
    let is_several = (vmid, nic) == (100, 1);
    let further = [FURTHER_MAC].into_iter().chain(VIRTUAL_MACS).filter(|_| is_several);
    if is_several {
        own.push(IpAddr::from(link_local(FURTHER_MAC)).into());
    }
    PortRole::Bound(BoundPort {
        further_macs: further.map(MacAddr::from_octets).collect(),
        also: INNER.iter().filter(|_| is_several).map(|net| net.parse().unwrap()).collect(),
        mac: MacAddr::from_octets(mac),
        own,
        dhcp: (vmid, nic) != (100, 1),
        any_link_local: vmid == 101,
        trunk: (vmid == 102).then_some(TRUNK_VLAN).into_iter().collect(),
        strict: true,
        advertisements: vmid == 102,
    })
}

/// Who has the prefix that an address is of.
pub(crate) fn owner_of_prefix(address: IpAddr) -> Option<Mac> {
    let contains = |net: &str| net.parse::<IpNet>().unwrap().contains(&address);
    let first = PREFIXES.iter().any(|net| contains(net)).then(|| guest_mac(100, 0));
    first.or_else(|| contains(TRUNK_PREFIX).then(|| guest_mac(102, 0)))
}
