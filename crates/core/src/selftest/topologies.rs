//! In which surroundings the frames are played: guests, ports and bridges as data, and what is sent from where.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use serde_json::{Value, json};

use super::delivery;
use super::frames::{BROADCAST, Mac, VLAN, is_tagged, tagged};
use super::verdicts::{self, Case, Scene, Who};
use crate::guest::GuestConfig;
use crate::links::Links;
use crate::model::{GuestKind, IfName, MacAddr, NicId, NodeName, Vmid};
use crate::plan::{DefaultRoute, Exits, Inputs, Located, Presence};
use crate::registry::Registry;
use crate::registry::document::{self, DocumentError};

/// The bridge of the guests.
pub const BRIDGE: &str = "vmbr0";
/// The port that leads to the provider.
pub const UPLINK: &str = "eno1";
/// The VLAN of the guests on a VLAN-aware bridge.
pub const TAG: u16 = 10;
/// The bridge's MAC: the node's.
pub const NODE_MAC: Mac = [2, 0, 0, 0, 0xb0, 0];
/// The MAC of whoever is behind the uplink: the provider's gateway.
pub const GATEWAY_MAC: Mac = [2, 0, 0, 0, 0xff, 1];
/// The MAC of the node's card, where it is no port of the bridge.
pub const CARD_MAC: Mac = [2, 0, 0, 0, 0xe0, 1];

/// A node with its guests, and what is sent from where.
#[derive(Debug, Clone, Copy)]
pub struct Topology {
    /// As the report has it.
    pub name: &'static str,
    /// How guests and uplink are connected.
    pub segment: Segment,
    /// Whether bridged frames are shown to iptables as well.
    pub br_netfilter: bool,
    /// What the pool says besides.
    pool: PoolOption,
    /// The guests' NICs that are plugged in.
    pub nics: &'static [Nic],
    /// What is sent.
    pub plays: &'static [Play],
}

/// How guests and uplink are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// Ports of one bridge, which carries the pool.
    Pool,
    /// The same with `bridge-vlan-aware` and the guests in VLAN 10.
    VlanAware,
    /// The node routes between bridge and uplink.
    Routed,
    /// Ports of a bridge that carries no pool: the LAN behind a guest that routes a prefix.
    NoPool,
    /// Ports of a bridge that carries no pool: any network of the administrator's.
    Elsewhere,
}

/// What a pool may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PoolOption {
    Nothing,
    /// It names the MAC of the provider's gateway.
    GatewayMac,
    /// It lets guests without addresses be routers.
    GuestRouters,
    /// Only registered MACs leave by the uplink.
    Guard,
}

/// A guest's NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nic {
    /// Guest and number.
    vmid: u8,
    index: u8,
    /// A virtual machine has a tap, a container a veth.
    pub kind: GuestKind,
    /// Behind Proxmox VE's firewall: on a bridge of its own.
    pub firewall: bool,
    /// The last part of its public addresses; none: nothing is assigned to it.
    address: Option<u8>,
    prefixes: bool,
    link_local: LinkLocal,
    trunk: Option<u16>,
    special: Special,
}

/// What a NIC may have besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Special {
    Nothing,
    /// Its assignment forbids DHCP.
    NoDhcp,
    /// Gets what is addressed to others, too.
    AnyDestination,
    /// The same, and router advertisements.
    Everything,
    /// Has no address, but its MAC is known to the provider.
    Registered,
}

/// Which link-local addresses a NIC may use besides the one of its MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkLocal {
    Own,
    Named,
    Any,
}

/// Frames from one sender.
#[derive(Debug, Clone, Copy)]
pub struct Play {
    /// Who sends: a NIC by its place in the list, or the uplink.
    pub from: Sender,
    /// What.
    what: What,
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// That NIC of the topology.
    Nic(usize),
    /// Whoever is behind the uplink.
    Uplink,
}

/// To whom frames for one receiver go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Uplink,
    Guest,
    Node,
}

/// What is sent. A number is the place of a NIC.
#[derive(Debug, Clone, Copy)]
enum What {
    /// Everything that a bound port may and may not send; it poses as the other.
    Bound(usize, To),
    /// The same content with work left to the network card.
    Offloads(usize),
    /// From its own prefixes.
    OwnPrefixes,
    /// From the other's prefixes.
    ForeignPrefixes(usize),
    /// What a bound port may send in tags of its own.
    Trunk(usize),
    /// All sorts of link-local addresses.
    LinkLocals(usize),
    /// DHCP where the assignment forbids it.
    NoDhcp,
    /// Everything that a port without bindings may and may not send; the first NIC is the guest that it attacks.
    Other,
    /// What a guest router may send; the first NIC is the guest that it attacks.
    Router,
    /// What comes back from the gateway of the other's packets.
    Hairpin(usize),
    /// Through the node to the world.
    ToWorld(usize),
    /// From the world through the node to that NIC.
    FromWorld(usize),
    /// Claims where nothing is protected.
    Anything,
    /// Claims where only what guests hold is protected.
    Elsewhere,
    /// To that NIC: what is addressed to it, and what is not.
    Deliver(usize),
    /// To everybody, but not to that NIC.
    Withheld(usize),
    /// To everybody, that NIC included.
    ByGroup(usize),
    /// Out by the uplink, where a guard watches.
    Guarded,
}

/// Where a frame that passes must be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Where its destination MAC says: at one receiver, or at all of them.
    Addressed,
    /// Here, by way of the node.
    At(IfName),
    /// Where its destination MAC says, but never here.
    NotAt(IfName),
}

const fn machine(vmid: u8, address: u8) -> Nic {
    Nic {
        vmid,
        index: 0,
        kind: GuestKind::Qemu,
        firewall: false,
        address: Some(address),
        prefixes: false,
        link_local: LinkLocal::Own,
        trunk: None,
        special: Special::Nothing,
    }
}

impl Nic {
    const fn container(self) -> Self {
        Self { kind: GuestKind::Lxc, ..self }
    }

    const fn behind_firewall(self) -> Self {
        Self { firewall: true, ..self }
    }

    const fn second(self) -> Self {
        Self { index: 1, ..self }
    }

    const fn unassigned(self) -> Self {
        Self { address: None, ..self }
    }

    const fn with_prefixes(self) -> Self {
        Self { prefixes: true, ..self }
    }

    const fn without_dhcp(self) -> Self {
        Self { special: Special::NoDhcp, ..self }
    }

    const fn with_link_local(self, link_local: LinkLocal) -> Self {
        Self { link_local, ..self }
    }

    const fn with_any_destination(self) -> Self {
        Self { special: Special::AnyDestination, ..self }
    }

    const fn with_everything(self) -> Self {
        Self { special: Special::Everything, ..self }
    }

    /// Whether it gets packets for others' addresses, too.
    pub fn gets_any_destination(self) -> bool {
        matches!(self.special, Special::AnyDestination | Special::Everything)
    }

    const fn registered(self) -> Self {
        Self { special: Special::Registered, ..self }
    }

    const fn with_trunk(self) -> Self {
        Self { trunk: Some(TAG), ..self }
    }

    /// The guest's number.
    pub fn vmid(self) -> Vmid {
        number(self.vmid.into())
    }

    fn id(self) -> NicId {
        number(self.index.into())
    }

    /// The host-side interface.
    pub fn port(self) -> IfName {
        self.kind.port(self.vmid(), self.id())
    }

    /// Its MAC.
    pub fn mac(self) -> Mac {
        [2, 0, 0, 0, self.index, self.vmid]
    }

    /// Whether something is assigned to it.
    pub fn is_bound(self) -> bool {
        self.address.is_some()
    }

    /// With the addresses that it may use: its own, or if it has none some that are not in the pool.
    pub fn who(self) -> Who {
        self.address.map_or_else(|| outsider(self.mac(), self.vmid), |last| assigned(self.mac(), last))
    }
}

/// What is typed above is valid by construction.
fn number<T: std::str::FromStr<Err: std::fmt::Display>>(value: u32) -> T {
    match value.to_string().parse() {
        Ok(value) => value,
        Err(error) => unreachable!("{error}"),
    }
}

/// Somebody with addresses of the pool: `203.0.113.10` goes with `2001:db8:0:1::10`.
fn assigned(mac: Mac, last: u8) -> Who {
    let digits = u16::from(last / 100) << 8 | u16::from(last / 10 % 10) << 4 | u16::from(last % 10);
    let ip6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, digits);
    Who { mac, ip4: Ipv4Addr::new(203, 0, 113, last), ip6 }
}

/// Somebody with addresses of no pool.
fn outsider(mac: Mac, last: u8) -> Who {
    let ip6 = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, last.into());
    Who { mac, ip4: Ipv4Addr::new(192, 0, 2, last), ip6 }
}

/// Prefixes of whoever has some: the first and the last address of each, and one between.
const PREFIXES: [&str; 3] = ["198.51.100.8/29", "2001:db8:100:1::/64", "2001:db8:100:200::/56"];
const PREFIX_ADDRESSES: [(Ipv4Addr, Ipv6Addr); 3] = [
    (Ipv4Addr::new(198, 51, 100, 8), Ipv6Addr::new(0x2001, 0xdb8, 0x100, 1, 0, 0, 0, 0)),
    (Ipv4Addr::new(198, 51, 100, 15), Ipv6Addr::new(0x2001, 0xdb8, 0x100, 1, 0xffff, 0, 0, 9)),
    (Ipv4Addr::new(198, 51, 100, 11), Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0x2ff, 0, 0, 0, 1)),
];
const POOL_PREFIXES: [&str; 2] = ["198.51.100.0/24", "2001:db8:100::/48"];
const NAMED_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);
/// A guest of this node that does not run, one that runs on another node, and an address that nobody has.
const STOPPED: (u8, u8) = (104, 15);
const ELSEWHERE: (u8, u8) = (105, 16);
const NOBODYS: u8 = 20;
/// The router of a LAN.
const ROUTER: (u8, u8) = (106, 17);

const WEB: Nic = machine(100, 10);
const MAIL: Nic = machine(101, 11);
const PLAIN: Topology = Topology {
    name: "",
    segment: Segment::Pool,
    br_netfilter: false,
    pool: PoolOption::Nothing,
    nics: &[],
    plays: &[],
};

const fn play(from: Sender, what: What) -> Play {
    Play { from, what }
}

/// Everything that is played.
pub const TOPOLOGIES: &[Topology] = &[
    Topology {
        name: "tap on a bridge, to the uplink",
        nics: &[WEB, MAIL],
        plays: &[play(Sender::Nic(0), What::Bound(1, To::Uplink)), play(Sender::Nic(0), What::Offloads(1))],
        ..PLAIN
    },
    Topology {
        name: "two guests, to each other",
        nics: &[WEB, MAIL],
        plays: &[play(Sender::Nic(0), What::Bound(1, To::Guest)), play(Sender::Nic(1), What::Bound(0, To::Guest))],
        ..PLAIN
    },
    Topology {
        name: "guest to the node",
        nics: &[WEB, MAIL],
        plays: &[play(Sender::Nic(0), What::Bound(1, To::Node))],
        ..PLAIN
    },
    Topology {
        name: "tap behind fwbr, fwln, fwpr",
        nics: &[WEB.behind_firewall(), MAIL],
        plays: &[play(Sender::Nic(0), What::Bound(1, To::Uplink)), play(Sender::Nic(0), What::Offloads(1))],
        ..PLAIN
    },
    Topology {
        name: "container",
        nics: &[machine(102, 13).container(), MAIL],
        plays: &[play(Sender::Nic(0), What::Bound(1, To::Uplink))],
        ..PLAIN
    },
    Topology {
        name: "container behind fwbr, fwln, fwpr",
        nics: &[machine(102, 13).container().behind_firewall(), MAIL],
        plays: &[play(Sender::Nic(0), What::Bound(1, To::Guest))],
        ..PLAIN
    },
    Topology {
        name: "two NICs of one guest",
        nics: &[WEB, machine(100, 12).second()],
        plays: &[play(Sender::Nic(0), What::Bound(1, To::Uplink)), play(Sender::Nic(1), What::Bound(0, To::Uplink))],
        ..PLAIN
    },
    Topology {
        name: "guest with prefixes",
        nics: &[WEB.with_prefixes(), MAIL.without_dhcp()],
        plays: &[
            play(Sender::Nic(0), What::Bound(1, To::Uplink)),
            play(Sender::Nic(0), What::OwnPrefixes),
            play(Sender::Nic(1), What::ForeignPrefixes(0)),
            play(Sender::Nic(1), What::NoDhcp),
        ],
        ..PLAIN
    },
    Topology {
        name: "link-local addresses",
        nics: &[WEB.with_link_local(LinkLocal::Any), MAIL.with_link_local(LinkLocal::Named), machine(102, 13)],
        plays: &[
            play(Sender::Nic(0), What::LinkLocals(1)),
            play(Sender::Nic(1), What::LinkLocals(2)),
            play(Sender::Nic(2), What::LinkLocals(1)),
            play(Sender::Nic(0), What::Bound(1, To::Uplink)),
        ],
        ..PLAIN
    },
    Topology {
        name: "trunk",
        nics: &[WEB.with_trunk().with_prefixes(), MAIL],
        plays: &[play(Sender::Nic(0), What::Trunk(1)), play(Sender::Nic(1), What::Bound(0, To::Uplink))],
        ..PLAIN
    },
    Topology {
        name: "VLAN-aware bridge",
        segment: Segment::VlanAware,
        nics: &[WEB, MAIL, machine(200, 0).unassigned()],
        plays: &[
            play(Sender::Nic(0), What::Bound(1, To::Uplink)),
            play(Sender::Nic(0), What::Offloads(1)),
            play(Sender::Nic(2), What::Other),
            play(Sender::Uplink, What::Other),
        ],
        ..PLAIN
    },
    Topology {
        name: "unmanaged guests",
        pool: PoolOption::GatewayMac,
        nics: &[
            WEB.with_prefixes(),
            machine(200, 0).unassigned(),
            machine(201, 0).unassigned().container(),
            machine(202, 0).unassigned().behind_firewall(),
        ],
        plays: &[
            play(Sender::Nic(1), What::Other),
            play(Sender::Nic(2), What::Other),
            play(Sender::Nic(3), What::Other),
        ],
        ..PLAIN
    },
    Topology {
        name: "guest routers allowed",
        pool: PoolOption::GuestRouters,
        nics: &[WEB, machine(200, 0).unassigned()],
        plays: &[play(Sender::Nic(1), What::Router)],
        ..PLAIN
    },
    Topology {
        name: "uplink",
        nics: &[WEB.with_prefixes(), MAIL.behind_firewall(), machine(102, 13).container()],
        plays: &[play(Sender::Uplink, What::Other)],
        ..PLAIN
    },
    Topology {
        name: "uplink, gateway's MAC known",
        pool: PoolOption::GatewayMac,
        nics: &[WEB, MAIL],
        plays: &[play(Sender::Uplink, What::Hairpin(0))],
        ..PLAIN
    },
    Topology {
        name: "to guests",
        nics: &[WEB.with_prefixes(), MAIL.behind_firewall(), machine(102, 13).container()],
        plays: &[
            play(Sender::Uplink, What::Deliver(0)),
            play(Sender::Uplink, What::Deliver(1)),
            play(Sender::Uplink, What::Deliver(2)),
            play(Sender::Nic(1), What::Deliver(0)),
            play(Sender::Nic(2), What::Deliver(1)),
        ],
        ..PLAIN
    },
    Topology {
        name: "to a guest that gets everything",
        nics: &[WEB.with_any_destination()],
        plays: &[play(Sender::Uplink, What::Deliver(0))],
        ..PLAIN
    },
    Topology {
        name: "to a guest that gets router advertisements",
        nics: &[WEB.with_everything()],
        plays: &[play(Sender::Uplink, What::Deliver(0))],
        ..PLAIN
    },
    Topology {
        name: "to everybody",
        nics: &[WEB.with_prefixes(), machine(200, 0).unassigned(), machine(102, 13).container().with_everything()],
        plays: &[
            play(Sender::Uplink, What::Withheld(0)),
            play(Sender::Nic(1), What::Withheld(0)),
            play(Sender::Uplink, What::ByGroup(0)),
            play(Sender::Nic(1), What::ByGroup(0)),
        ],
        ..PLAIN
    },
    Topology {
        name: "to unmanaged guests",
        nics: &[WEB, machine(200, 0).unassigned(), machine(201, 0).unassigned().container()],
        plays: &[
            play(Sender::Uplink, What::Deliver(1)),
            play(Sender::Nic(0), What::Deliver(2)),
            play(Sender::Nic(2), What::Deliver(1)),
        ],
        ..PLAIN
    },
    Topology {
        name: "guarded uplink",
        pool: PoolOption::Guard,
        nics: &[
            WEB,
            machine(200, 0).unassigned(),
            machine(201, 0).unassigned().container().registered(),
            machine(202, 0).unassigned().behind_firewall(),
            MAIL,
        ],
        plays: &[
            play(Sender::Nic(0), What::Bound(4, To::Uplink)),
            play(Sender::Nic(1), What::Guarded),
            play(Sender::Nic(2), What::Guarded),
            play(Sender::Nic(3), What::Guarded),
        ],
        ..PLAIN
    },
    Topology {
        name: "LAN behind a router guest",
        segment: Segment::NoPool,
        nics: &[machine(200, 0).unassigned(), machine(201, 0).unassigned().container()],
        plays: &[play(Sender::Nic(0), What::Anything), play(Sender::Nic(1), What::Anything)],
        ..PLAIN
    },
    Topology {
        name: "bridge without a pool",
        segment: Segment::Elsewhere,
        pool: PoolOption::GatewayMac,
        nics: &[
            machine(200, 0).unassigned(),
            machine(201, 0).unassigned().container(),
            machine(202, 0).unassigned().behind_firewall(),
        ],
        plays: &[
            play(Sender::Nic(0), What::Elsewhere),
            play(Sender::Nic(1), What::Elsewhere),
            play(Sender::Nic(2), What::Elsewhere),
        ],
        ..PLAIN
    },
    Topology {
        name: "routed",
        segment: Segment::Routed,
        nics: &[WEB.with_prefixes(), MAIL],
        plays: &[
            play(Sender::Nic(0), What::Bound(1, To::Node)),
            play(Sender::Nic(0), What::ToWorld(1)),
            play(Sender::Uplink, What::FromWorld(0)),
        ],
        ..PLAIN
    },
    Topology {
        name: "br_netfilter on",
        br_netfilter: true,
        nics: &[WEB, machine(200, 0).unassigned(), MAIL.behind_firewall()],
        plays: &[
            play(Sender::Nic(0), What::Bound(2, To::Uplink)),
            play(Sender::Nic(2), What::Bound(0, To::Uplink)),
            play(Sender::Nic(1), What::Other),
            play(Sender::Uplink, What::Other),
            play(Sender::Nic(0), What::Offloads(2)),
        ],
        ..PLAIN
    },
];

impl Topology {
    /// What the node decides on: a registry as it is written, guests as Proxmox VE writes them, the links as they are.
    pub fn inputs(&self, links: Links) -> Result<Inputs, DocumentError> {
        let node: NodeName = name("selftest");
        let mut registry = Registry { pools: parse("pools.json", &self.pools())?, ..Registry::default() };
        let mut guests = BTreeMap::new();
        let mut presence = BTreeMap::new();
        let stopped = Nic { vmid: STOPPED.0, address: Some(STOPPED.1), ..WEB };
        let elsewhere = Nic { vmid: ELSEWHERE.0, address: Some(ELSEWHERE.1), ..WEB };
        let all: Vec<Nic> = self.nics.iter().copied().chain([stopped, elsewhere]).collect();
        for vmid in all.iter().map(|nic| nic.vmid()).collect::<std::collections::BTreeSet<_>>() {
            let own: Vec<Nic> = all.iter().copied().filter(|nic| nic.vmid() == vmid).collect();
            let interfaces: serde_json::Map<String, Value> = own
                .iter()
                .filter(|nic| nic.is_bound())
                .map(|nic| (nic.id().to_string(), Self::assignment(*nic)))
                .collect();
            if !interfaces.is_empty() {
                let file = json!({ "version": 1, "vmid": vmid, "interfaces": interfaces });
                registry.guests.insert(vmid, parse(&format!("guests/{vmid}.json"), &file)?);
            }
            let text: String = own.iter().map(|nic| self.config_line(*nic)).collect();
            let kind = own.first().map_or(GuestKind::Qemu, |nic| nic.kind);
            let there = if vmid == elsewhere.vmid() { name("other") } else { node.clone() };
            guests.insert(vmid, Located { node: there, config: GuestConfig::parse(kind, text.as_bytes()) });
            if self.nics.iter().any(|nic| nic.vmid() == vmid && nic.is_bound()) {
                presence.insert(vmid, Presence::Running);
            }
        }
        if self.segment == Segment::NoPool {
            // The bridge is the LAN of a guest that routes a prefix: what is on it may use that guest's addresses.
            let router = Nic { vmid: ROUTER.0, address: Some(ROUTER.1), ..WEB }.with_prefixes();
            let lan = Nic { index: 1, ..router }.unassigned();
            let vmid = router.vmid();
            let interfaces = json!({ router.id().to_string(): Self::assignment(router) });
            let file = json!({ "version": 1, "vmid": vmid, "interfaces": interfaces });
            registry.guests.insert(vmid, parse(&format!("guests/{vmid}.json"), &file)?);
            let text = self.config_line(router) + &self.config_line(lan);
            let config = GuestConfig::parse(GuestKind::Qemu, text.as_bytes());
            guests.insert(vmid, Located { node: node.clone(), config });
        }
        let by_uplink = |v4| DefaultRoute { device: name(UPLINK), via: None, metric: 0, v4 };
        let routes = if self.segment == Segment::Routed { vec![by_uplink(true), by_uplink(false)] } else { Vec::new() };
        let exits = Exits { routes, ..Exits::default() };
        Ok(Inputs { presence, links, exits, ..Inputs::new(node, registry, guests) })
    }

    fn pools(&self) -> Value {
        let last = (10..=NOBODYS).map(|last| assigned([0; 6], last));
        let single = last.flat_map(|who| [who.ip4.to_string(), who.ip6.to_string()]);
        let addresses: Vec<Value> =
            single.chain(POOL_PREFIXES.map(str::to_owned)).map(|address| json!({ "address": address })).collect();
        let bridge = self.pool_bridge();
        let profile = if self.segment == Segment::Routed { "generic-routed" } else { "generic-bridged" };
        let mut pool = json!({ "profile": profile, "bridge": bridge, "addresses": addresses });
        if self.segment != Segment::Routed {
            let gateway = assigned([0; 6], 1);
            (pool["gateway4"], pool["gateway6"]) = (json!(gateway.ip4), json!(gateway.ip6));
        }
        if self.pool == PoolOption::GuestRouters {
            pool["guest_routers"] = json!(true);
        }
        if self.pool == PoolOption::Guard {
            let registered = self.nics.iter().filter(|nic| nic.special == Special::Registered);
            pool["uplink_guard"] = json!("enforce");
            pool["allowed_macs"] = registered.map(|nic| json!(MacAddr::from_octets(nic.mac()))).collect();
        }
        if self.gateway_mac() {
            pool["gateway_mac"] = json!(MacAddr::from_octets(GATEWAY_MAC));
        }
        json!({ "version": 1, "pools": { "selftest": pool } })
    }

    /// The bridge of the pool.
    pub fn pool_bridge(&self) -> &'static str {
        if matches!(self.segment, Segment::NoPool | Segment::Elsewhere) { "vmbr9" } else { BRIDGE }
    }

    fn assignment(nic: Nic) -> Value {
        let who = nic.who();
        let own = [who.ip4.to_string(), who.ip6.to_string()].into_iter();
        let prefixes = PREFIXES.iter().filter(|_| nic.prefixes).map(|prefix| (*prefix).to_owned());
        let entry = |address| json!({ "address": address, "pool": "selftest", "assigned_at": "2026-01-01T00:00:00Z" });
        let addresses: Vec<Value> = own.chain(prefixes).map(entry).collect();
        let dhcp = nic.special != Special::NoDhcp;
        let mut interface = json!({ "mac": MacAddr::from_octets(nic.mac()), "dhcp": dhcp, "addresses": addresses });
        match nic.link_local {
            LinkLocal::Own => {}
            LinkLocal::Named => interface["link_local"] = json!([NAMED_LINK_LOCAL]),
            LinkLocal::Any => interface["any_link_local"] = json!(true),
        }
        if nic.gets_any_destination() {
            interface["any_destination"] = json!(true);
        }
        if nic.special == Special::Everything {
            interface["router_advertisements"] = json!(true);
        }
        if let Some(vlan) = nic.trunk {
            interface["trunk"] = json!([vlan]);
        }
        interface
    }

    fn config_line(&self, nic: Nic) -> String {
        let mac = MacAddr::from_octets(nic.mac()).to_string().to_uppercase();
        let firewall = if nic.firewall { ",firewall=1" } else { "" };
        let tag = if self.segment == Segment::VlanAware { format!(",tag={TAG}") } else { String::new() };
        let bridge = if nic.is_bound() { self.pool_bridge() } else { BRIDGE };
        match nic.kind {
            GuestKind::Qemu => format!("{}: virtio={mac},bridge={bridge}{firewall}{tag}\n", nic.id()),
            GuestKind::Lxc => {
                format!("{}: name=eth0,bridge={bridge}{firewall},hwaddr={mac}{tag},type=veth\n", nic.id())
            }
        }
    }

    fn who(&self, sender: Sender) -> Who {
        match sender {
            Sender::Nic(at) => self.nics[at].who(),
            Sender::Uplink => outsider(GATEWAY_MAC, 1),
        }
    }

    /// Around a sender that poses as `victim`.
    fn scene(&self, victim: Who) -> Scene {
        let node = assigned(NODE_MAC, 250);
        let gateway = if self.segment == Segment::Routed { node } else { assigned(GATEWAY_MAC, 1) };
        Scene { gateway, node, victim, stranger: STRANGER }
    }

    /// The node, as it is known on a bridge without a pool.
    fn node_elsewhere() -> Who {
        Who { mac: NODE_MAC, ip4: OTHER_NETWORK.0, ip6: OTHER_NETWORK.1 }
    }

    /// The frames of one play, with what must become of them.
    #[expect(clippy::too_many_lines, reason = "an arm for each play")]
    pub fn cases(&self, play: &Play) -> Vec<Case> {
        let me = self.who(play.from);
        match play.what {
            What::Bound(other, to) => {
                let scene = self.scene(self.nics[other].who());
                // Another guest gets what is for its own address.
                let gateway = if to == To::Guest { scene.victim } else { scene.gateway };
                let mut cases = bound(me, &Scene { gateway, ..scene });
                // A bridge never sends a frame back to where its sender is.
                cases.retain(|case| case.frame[..6] != case.frame[6..12]);
                if to == To::Node {
                    for case in &mut cases {
                        readdress(&mut case.frame, scene.gateway.mac, scene.node.mac);
                    }
                }
                cases
            }
            What::Trunk(other) => {
                let scene = self.scene(self.nics[other].who());
                let prefixes = self.prefixes(me, me, true);
                verdicts::trunk(&[bound(me, &scene), prefixes].concat(), TAG)
            }
            What::LinkLocals(other) => self.link_locals(me, play.from, other),
            What::Offloads(other) => verdicts::offloads(me, &self.scene(self.nics[other].who())),
            What::OwnPrefixes => self.prefixes(me, me, true),
            What::ForeignPrefixes(other) => self.prefixes(me, self.nics[other].who(), false),
            What::NoDhcp => vec![Case {
                group: "DHCP forbidden",
                class: "DHCP request".to_owned(),
                frame: verdicts::dhcp_request(me),
                passes: false,
                offload: None,
                mark: None,
            }],
            What::Other => {
                let mut cases = self.other(me, play.from);
                if self.segment == Segment::VlanAware && play.from == Sender::Uplink {
                    // The guests' VLAN comes tagged. With a second tag it would not be for them, and SNAP behind a tag is not
                    // looked into.
                    cases.retain(|case| !is_tagged(&case.frame) && !case.class.starts_with("SNAP, "));
                    for case in &mut cases {
                        case.frame = tagged(VLAN, TAG, &case.frame);
                    }
                }
                cases
            }
            What::Router => {
                let scene = self.scene(self.nics[0].who());
                let mut cases = verdicts::unbound_port(me, &scene, true);
                // The gateway is somebody else.
                cases.retain(|case| case.frame[6..12] == me.mac);
                cases.extend(verdicts::claims(me, scene.victim, "a bound guest", true, false));
                cases.extend(verdicts::claims(me, scene.gateway, "the gateway", false, false));
                cases
            }
            What::Hairpin(other) => verdicts::hairpin(assigned(GATEWAY_MAC, 1), self.nics[other].who()),
            What::ToWorld(other) => verdicts::routed(me, NODE_MAC, WORLD, self.nics[other].who(), true),
            What::FromWorld(other) => verdicts::routed(
                Who { mac: GATEWAY_MAC, ..WORLD },
                CARD_MAC,
                self.nics[other].who(),
                self.nics[other].who(),
                false,
            ),
            What::Deliver(to) => self.deliveries(me, play.from, self.nics[to]),
            What::Withheld(to) => {
                let scene = self.scene(assigned(mac_of(STOPPED.0), STOPPED.1));
                delivery::withheld(me, self.nics[to].who(), &scene, play.from == Sender::Uplink)
            }
            What::ByGroup(to) => delivery::own_by_group(me, self.nics[to].who()),
            What::Guarded => delivery::guarded(me, &self.scene(self.nics[0].who()), self.leaves(play.from)),
            What::Elsewhere => {
                let (stopped, nobody) = (assigned(mac_of(STOPPED.0), STOPPED.1), assigned([2, 0, 0, 0, 9, 9], NOBODYS));
                let scene = self.scene(stopped);
                let mut cases = verdicts::unbound_port(me, &scene, true);
                cases.extend(verdicts::claims(me, stopped, "a stopped guest", true, false));
                cases.extend(verdicts::claims(me, nobody, "nobody yet", false, false));
                let router = Who { ip6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), ..scene.gateway };
                for (name, who, with_mac) in [
                    ("the gateway", scene.gateway, true),
                    ("the gateway's usual link-local address", router, false),
                    ("the node", scene.node, true),
                    ("the node on another bridge", Self::node_elsewhere(), true),
                ] {
                    cases.extend(free(verdicts::claims(me, who, name, with_mac, true)));
                    cases.extend(free(verdicts::hidden_claims(me, who, name)));
                    cases.extend(free(verdicts::link_local_claims(me, who, name)));
                    cases.extend(free(verdicts::foreign_mac_inside(me, who, name)));
                }
                // Three tags, and SNAP behind one, are not looked into; and a bridge never sends a frame back.
                let is_hidden = |case: &Case| {
                    case.class.contains("three times") || (case.class.contains("SNAP") && is_tagged(&case.frame))
                };
                cases.retain(|case| !(case.passes && is_hidden(case)) && case.frame[..6] != case.frame[6..12]);
                cases
            }
            What::Anything => {
                let (stopped, nobody) = (assigned(mac_of(STOPPED.0), STOPPED.1), assigned([2, 0, 0, 0, 9, 9], NOBODYS));
                // First those to the MAC that the others are then sent from.
                let mut cases = verdicts::unbound_port(me, &self.scene(stopped), true);
                cases.extend(verdicts::claims(me, stopped, "a stopped guest", true, true));
                cases.extend(verdicts::claims(me, nobody, "nobody yet", true, true));
                cases.extend(verdicts::hidden_claims(me, stopped, "a stopped guest"));
                // The rules do not apply there, so nothing is dropped.
                for case in &mut cases {
                    case.passes = true;
                }
                cases
            }
        }
    }

    fn deliveries(&self, me: Who, from: Sender, to: Nic) -> Vec<Case> {
        let guest = to.who();
        let stopped = assigned(mac_of(STOPPED.0), STOPPED.1);
        let scene = self.scene(stopped);
        if !to.is_bound() {
            let protected = [
                ("a bound guest", self.nics[0].who()),
                ("a stopped guest", stopped),
                ("a guest on another node", assigned(mac_of(ELSEWHERE.0), ELSEWHERE.1)),
                ("nobody yet", assigned([0; 6], NOBODYS)),
            ];
            let mut cases = delivery::to_unbound(me, guest, &scene, &protected);
            if from == Sender::Uplink {
                let flooded = delivery::flooded(me, self.nics[0].who(), &scene, false).into_iter();
                cases.extend(flooded.filter(|case| case.class.contains("its address")));
            }
            return cases;
        }
        let mut cases = delivery::to_bound(me, guest, &scene, !to.gets_any_destination());
        for (ip4, ip6) in PREFIX_ADDRESSES {
            let to_prefix = delivery::to_bound(me, Who { ip4, ip6, ..guest }, &scene, true);
            // What is for the NIC itself is in the table above.
            let first = to_prefix.into_iter().filter(|case| ["IPv4", "TCP", "IPv6"].contains(&case.class.as_str()));
            let to_whom = |case: Case| Case {
                class: format!("{} to its prefix ({ip4}, {ip6})", case.class),
                passes: to.prefixes || to.gets_any_destination(),
                ..case
            };
            cases.extend(first.map(to_whom));
        }
        if from == Sender::Uplink {
            cases.extend(delivery::flooded(me, guest, &scene, to.gets_any_destination()));
            let advertised = to.special == Special::Everything;
            cases.extend(delivery::from_gateway(assigned(GATEWAY_MAC, 1), guest, advertised));
        }
        cases
    }

    fn prefixes(&self, me: Who, owner: Who, own: bool) -> Vec<Case> {
        let mut cases = Vec::new();
        for (ip4, ip6) in PREFIX_ADDRESSES {
            let scene = self.scene(owner);
            cases.extend(verdicts::own_prefix(Who { ip4, ip6, ..me }, &scene).into_iter().map(|case| {
                let (group, whose) = if own { (case.group, "") } else { ("foreign prefix", "another guest's, ") };
                Case { group, class: format!("{whose}{} ({ip4}, {ip6})", case.class), passes: own, ..case }
            }));
        }
        cases
    }

    fn link_locals(&self, me: Who, from: Sender, other: usize) -> Vec<Case> {
        let kind = match from {
            Sender::Nic(at) => self.nics[at].link_local,
            Sender::Uplink => LinkLocal::Own,
        };
        let scene = self.scene(self.nics[other].who());
        let any = kind == LinkLocal::Any;
        let addresses = [
            (me.link_local(), true),
            (NAMED_LINK_LOCAL, kind == LinkLocal::Named),
            (Ipv6Addr::new(0xfe80, 0, 0, 0, 0xdead, 0xbeef, 0x1234, 0x5678), any),
            (Ipv6Addr::new(0xfe80, 0, 0, 0, 1, 0, 0, 1), any),
            // Somebody else's, or of the kind that routers have.
            (scene.victim.link_local(), false),
            (scene.node.link_local(), false),
            (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), false),
            (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xffff, 0xffff), false),
            (Ipv6Addr::new(0xfe80, 0, 0, 0, 0xabcd, 0x12ff, 0xfe34, 0x5678), false),
            (Ipv6Addr::new(0xfe80, 1, 0, 0, 5, 6, 7, 8), false),
        ];
        verdicts::link_locals(me, &scene, &addresses)
    }

    /// A port without bindings against everybody who has something to lose.
    fn other(&self, me: Who, from: Sender) -> Vec<Case> {
        let is_uplink = from == Sender::Uplink;
        let bound = self.nics[0].who();
        let scene = self.scene(bound);
        let prefix = |ip4, ip6| Who { ip4, ip6, ..bound };
        let free = (Ipv4Addr::new(198, 51, 100, 200), Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0xffff, 0, 0, 0, 1));
        // Whom, whether with a MAC of its own, whether it is bound on this node: then not even the uplink may.
        let mut victims = vec![
            ("a bound guest", bound, true, true),
            ("a stopped guest", assigned(mac_of(STOPPED.0), STOPPED.1), true, false),
            ("a guest on another node", assigned(mac_of(ELSEWHERE.0), ELSEWHERE.1), true, false),
            ("nobody yet", assigned([0; 6], NOBODYS), false, false),
            ("nobody's prefix", prefix(free.0, free.1), false, false),
            // From outside the node's own MAC would be the node's own frame come back.
            ("the node", scene.node, !is_uplink, false),
            ("the node on another bridge", Self::node_elsewhere(), false, false),
        ];
        if self.nics[0].prefixes {
            victims.extend(PREFIX_ADDRESSES.map(|(ip4, ip6)| ("a bound prefix", prefix(ip4, ip6), false, true)));
        }
        if !is_uplink {
            victims.push(("the gateway", scene.gateway, self.gateway_mac(), false));
        }
        let mut cases = verdicts::unbound_port(me, &scene, is_uplink);
        for (name, victim, with_mac, bound) in victims {
            let claims = verdicts::claims(me, victim, name, with_mac, is_uplink && !bound);
            cases.extend(claims.into_iter().map(|case| Case { class: named(case.class, name, victim), ..case }));
            if bound && with_mac {
                cases.extend(verdicts::link_local_claims(me, victim, name));
            }
        }
        if !is_uplink {
            cases.extend(verdicts::foreign_mac_inside(me, scene.node, "the node"));
            if self.gateway_mac() {
                cases.extend(verdicts::foreign_mac_inside(me, scene.gateway, "the gateway"));
            }
        }
        cases
    }

    /// Where the frames of a play that pass must be seen.
    pub fn arrival(&self, play: &Play) -> Arrival {
        match play.what {
            What::ToWorld(_) => Arrival::At(name(UPLINK)),
            What::FromWorld(to) => Arrival::At(self.nics[to].port()),
            What::Withheld(to) => Arrival::NotAt(self.nics[to].port()),
            What::Guarded if !self.leaves(play.from) => Arrival::NotAt(name(UPLINK)),
            _ => Arrival::Addressed,
        }
    }

    fn gateway_mac(&self) -> bool {
        self.pool == PoolOption::GatewayMac
    }

    /// Whether frames of this sender leave by the uplink.
    pub fn leaves(&self, sender: Sender) -> bool {
        match sender {
            Sender::Nic(at) => {
                self.pool != PoolOption::Guard
                    || self.nics[at].special == Special::Registered
                    || self.nics[at].is_bound()
            }
            Sender::Uplink => true,
        }
    }

    /// The host-side interface by which a play's frames come in.
    pub fn sender(&self, play: &Play) -> IfName {
        match play.from {
            Sender::Nic(at) => self.nics[at].port(),
            Sender::Uplink => name(UPLINK),
        }
    }

    /// Whether a kernel may lack what it takes without being wrong for the product.
    pub fn is_optional(&self) -> bool {
        self.br_netfilter || self.segment == Segment::VlanAware
    }
}

const STRANGER: Who = Who {
    mac: [2, 0, 0, 0, 0xee, 0xee],
    ip4: Ipv4Addr::new(198, 18, 0, 9),
    ip6: Ipv6Addr::new(0x2001, 0xdb8, 0xeeee, 0, 0, 0, 0, 9),
};
/// What the node has on a bridge of its own, where no guest is.
pub const OTHER_NETWORK: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(198, 19, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 0xfffe, 0, 0, 0, 0, 1));
/// Beyond the provider's gateway.
pub const WORLD: Who = Who {
    mac: GATEWAY_MAC,
    ip4: Ipv4Addr::new(192, 0, 2, 250),
    ip6: Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x250),
};

fn bound(me: Who, scene: &Scene) -> Vec<Case> {
    let mut cases = verdicts::bound_port(me, scene);
    cases.extend(verdicts::bound_odd_forms(me, scene));
    cases
}

/// The same, where nothing of it is protected. What is malformed is dropped everywhere, whatever it claims.
fn free(cases: Vec<Case>) -> impl Iterator<Item = Case> {
    const MALFORMED: [&str; 6] = [
        "8-byte MACs",
        "cut off",
        "IPv4-mapped",
        "an authentication header",
        "an atomic fragment",
        "a second fragment",
    ];
    let is_whole = |case: &Case| !MALFORMED.iter().any(|form| case.class.contains(form));
    cases.into_iter().map(move |case| Case { passes: is_whole(&case), ..case })
}

fn mac_of(vmid: u8) -> Mac {
    [2, 0, 0, 0, 0, vmid]
}

/// Tells the classes of one victim's many addresses apart.
fn named(class: String, name: &str, victim: Who) -> String {
    if name == "a bound prefix" { format!("{class} ({}, {})", victim.ip4, victim.ip6) } else { class }
}

/// Not where it would go from a MAC to the same: a bridge never forwards that.
fn readdress(frame: &mut [u8], from: Mac, to: Mac) {
    if frame.starts_with(&from) && from != BROADCAST && frame[6..12] != to {
        frame[..6].copy_from_slice(&to);
    }
}

fn name<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> T {
    match text.parse() {
        Ok(name) => name,
        Err(error) => unreachable!("{error}"),
    }
}

fn parse<T: document::Document>(path: &str, value: &Value) -> Result<T, DocumentError> {
    document::parse(Path::new(path), value.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::links::BridgeOptions;
    use crate::links::Link;
    use crate::oracle::{Verdict, delivery, verdict};
    use crate::plan::{desired, explain};

    /// The node's interfaces as far as decisions depend on them.
    fn links(topology: &Topology) -> Links {
        let addresses = ["203.0.113.250/24", "2001:db8:0:1::250/64"].map(|net| net.parse().unwrap());
        let local = format!("{}/64", MacAddr::from_octets(NODE_MAC).link_local()).parse().unwrap();
        let bridge = Link {
            mac: Some(MacAddr::from_octets(NODE_MAC)),
            addresses: addresses.into_iter().chain([local]).collect(),
            bridge: Some(BridgeOptions::default()),
            ..Link::default()
        };
        let plugged = || Link { master: Some(name(BRIDGE)), ..Link::default() };
        let ports = topology.nics.iter().map(|nic| (nic.port(), plugged()));
        let uplink = (topology.segment != Segment::Routed).then(|| (name(UPLINK), plugged()));
        let (ip4, ip6) = OTHER_NETWORK;
        let others = [format!("{ip4}/24"), format!("{ip6}/64")].map(|net| net.parse().unwrap());
        let other = Link { addresses: others.into(), bridge: Some(BridgeOptions::default()), ..Link::default() };
        let bridges = [(name(BRIDGE), bridge), (name("vmbr8"), other)];
        Links(bridges.into_iter().chain(ports).chain(uplink).collect())
    }

    #[test]
    fn the_oracle_agrees_when_it_is_told_of_the_node() {
        let mut wrong = Vec::new();
        let mut compared = 0;
        for topology in TOPOLOGIES {
            let inputs = topology.inputs(links(topology)).unwrap();
            let bindings = explain::bindings(&inputs);
            for play in topology.plays {
                let from = explain::role(&inputs, topology.sender(play));
                let leaves_by = match play.what {
                    What::Deliver(to) | What::ByGroup(to) | What::Withheld(to) => Some(topology.nics[to].port()),
                    What::Guarded => Some(name(UPLINK)),
                    _ => None,
                };
                for case in topology.cases(play) {
                    // What is for everybody reaches everybody but the uplink: the guard's cases say that elsewhere.
                    let leaves_by = leaves_by
                        .filter(|_| !matches!(play.what, What::Guarded) || case.frame.starts_with(&GATEWAY_MAC));
                    let mut found = verdict(&case.frame, &from, &bindings);
                    if let (Verdict::Pass, Some(port)) = (found, leaves_by) {
                        found = delivery(&case.frame, &from, &explain::role(&inputs, port), &bindings);
                    }
                    let passes = case.passes && !matches!(play.what, What::Withheld(_));
                    let agrees = match found {
                        Verdict::Pass => passes,
                        Verdict::Drop(_) => !passes,
                        Verdict::Either(_) => true,
                    };
                    compared += 1;
                    if !agrees {
                        wrong.push(format!("{}: {}: {}: {found:?}", topology.name, topology.sender(play), case.class));
                    }
                }
            }
        }
        assert!(compared > 10_000, "{compared}");
        assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
    }

    #[test]
    fn every_topology_is_free_of_contradictions() {
        for topology in TOPOLOGIES {
            let inputs = topology.inputs(Links::default()).unwrap();
            assert_eq!(inputs.registry.pools.pools.len(), 1, "{}", topology.name);
            let decided = desired(&inputs);
            assert!(decided.problems.is_empty(), "{}: {:?}", topology.name, decided.problems);
            assert!(!decided.state.elements.is_empty(), "{}", topology.name);
            let names = TOPOLOGIES.iter().filter(|other| other.name == topology.name);
            assert_eq!(names.count(), 1, "{} is there twice", topology.name);
        }
    }

    #[test]
    fn one_frame_has_one_verdict() {
        for topology in TOPOLOGIES {
            for play in topology.plays {
                let cases = topology.cases(play);
                assert!(!cases.is_empty(), "{}: nothing is played", topology.name);
                let mut verdicts: BTreeMap<&[u8], &Case> = BTreeMap::new();
                for case in &cases {
                    assert!(case.frame.len() >= 14 && !case.group.is_empty(), "{}: {}", topology.name, case.class);
                    if let Some(other) = verdicts.insert(&case.frame, case) {
                        assert_eq!(
                            other.passes, case.passes,
                            "{}: `{}` and `{}` are the same frame",
                            topology.name, other.class, case.class
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn one_class_has_one_frame() {
        for topology in TOPOLOGIES {
            for play in topology.plays {
                let mut frames: BTreeMap<String, Vec<u8>> = BTreeMap::new();
                for case in topology.cases(play) {
                    let class = format!("{}: {}", case.group, case.class);
                    let other = frames.insert(class.clone(), case.frame.clone());
                    assert!(
                        other.is_none_or(|other| other == case.frame),
                        "{}: {class} names two frames",
                        topology.name
                    );
                }
            }
        }
    }

    #[test]
    fn every_specified_surrounding_is_there() {
        let has = |wanted: &dyn Fn(&Topology) -> bool| TOPOLOGIES.iter().any(wanted);
        for segment in [Segment::Pool, Segment::VlanAware, Segment::Routed, Segment::NoPool, Segment::Elsewhere] {
            assert!(has(&|topology| topology.segment == segment), "{segment:?}");
        }
        for kind in [GuestKind::Qemu, GuestKind::Lxc] {
            for (firewall, bound) in [(false, false), (false, true), (true, true)] {
                let like = |nic: &Nic| nic.kind == kind && nic.firewall == firewall && nic.is_bound() == bound;
                let sends = |topology: &Topology, play: &Play| match play.from {
                    Sender::Nic(at) => like(&topology.nics[at]),
                    Sender::Uplink => false,
                };
                let found = has(&|topology| topology.plays.iter().any(|play| sends(topology, play)));
                assert!(found, "{kind:?} firewall {firewall} bound {bound}");
            }
        }
        assert!(has(&|topology| topology.br_netfilter));
        assert!(has(&|topology| topology.nics.iter().any(|nic| nic.index == 1)));
    }

    #[test]
    fn frames_for_one_receiver_go_to_it() {
        let topology = TOPOLOGIES.iter().find(|topology| topology.name == "guest to the node").unwrap();
        let cases = topology.cases(&topology.plays[0]);
        let case = cases.iter().find(|case| case.class == "IPv4 UDP").unwrap();
        assert_eq!((&case.frame[..6], &case.frame[6..12]), (&NODE_MAC[..], &WEB.mac()[..]));
        assert_eq!(WEB.who().ip6, "2001:db8:0:1::10".parse::<Ipv6Addr>().unwrap());
        assert_eq!((WEB.port().as_str(), topology.sender(&topology.plays[0]).as_str()), ("tap100i0", "tap100i0"));
    }
}
