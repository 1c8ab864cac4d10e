//! In which surroundings the frames are played: guests, ports and bridges as data, and what is sent from where.

mod list;
mod node;
mod plays;

use std::net::{Ipv4Addr, Ipv6Addr};

use super::frames::Mac;
use super::verdicts::Who;
use crate::model::{GuestKind, IfName, NicId, Vmid};
pub use list::TOPOLOGIES;

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

impl Nic {
    /// Whether it gets packets for others' addresses, too.
    pub fn gets_any_destination(self) -> bool {
        matches!(self.special, Special::AnyDestination | Special::Everything)
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

impl Topology {
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

fn name<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> T {
    match text.parse() {
        Ok(name) => name,
        Err(error) => unreachable!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::list::WEB;
    use super::*;
    use crate::links::{BridgeOptions, Link, Links};
    use crate::model::MacAddr;
    use crate::oracle::{Verdict, delivery, verdict};
    use crate::plan::{desired, explain};
    use crate::selftest::verdicts::Case;

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
