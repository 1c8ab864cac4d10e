//! What a node protects, and what a guest that owns none of it must not get through: attacks as data, made of the node's
//! own registry. Which of them must fail is the oracle's word, so that nothing is expected of the rules but what was
//! specified.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::frames::{Mac, UDP, udp};
use super::verdicts::{Case, Scene, Sender, Table, Who, foreign_mac_inside, hidden_claims};
use super::verdicts::{mac_claims, open_claims, unbound_port};
use crate::model::{Family, MacAddr};
use crate::oracle::{Bindings, Holdings, PortRole, Verdict, delivery, verdict};
use crate::plan::{Inputs, explain, watch};
use crate::registry::document::Enforce;

/// The attacker: a MAC that spells the program's name, and addresses set aside for tests of networks (RFC 2544, RFC 5180),
/// so that no pool has them.
pub const ATTACKER: Who = Who {
    mac: [2, b'p', b'v', b'e', b'i', 1],
    ip4: Ipv4Addr::new(198, 18, 121, 1),
    ip6: Ipv6Addr::new(0x2001, 2, 0, 121, 0, 0, 0, 1),
};

/// The only one to whom the frames go, whatever they say inside.
pub const LISTENER: Mac = [2, b'p', b'v', b'e', b'i', 2];

/// Something that is protected, or everything that no guest may do at all.
#[derive(Debug, Clone)]
pub struct Target {
    /// In words.
    pub name: String,
    what: What,
    bindings: Bindings,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Address(IpAddr),
    Mac(MacAddr),
    /// What does not depend on whom it is done to, with an address of each family to hide.
    Anybody(Who),
}

/// Everything that is protected on the node.
///
/// What is only watched is not: there an attack succeeds, and is counted.
pub fn targets(inputs: &Inputs) -> Vec<Target> {
    let limited = watch::limited(inputs, Enforce::On);
    let inputs = limited.as_ref().unwrap_or(inputs);
    if limited.is_some() && watch::is_nothing(&inputs.registry) {
        return Vec::new();
    }
    let all = explain::bindings(inputs);
    let mut owners: BTreeMap<IpNet, String> = BTreeMap::new();
    let mut owners_of_macs: BTreeMap<MacAddr, String> = BTreeMap::new();
    for (vmid, _, interface, assigned) in inputs.registry.assignments() {
        owners.insert(assigned.address.net(), format!(" of guest {vmid}"));
        owners_of_macs.insert(interface.mac, format!(" of guest {vmid}"));
    }
    let infrastructure: BTreeSet<IpNet> = all.infrastructure.nets.iter().copied().collect();
    let bound: BTreeSet<IpNet> = all.bound.nets.iter().copied().collect();
    let nets: BTreeSet<IpNet> = infrastructure.iter().chain(&bound).chain(&all.reserved.nets).copied().collect();
    let mut targets = Vec::new();
    for net in &nets {
        let own = |holds: bool| Holdings { nets: holds.then_some(*net).into_iter().collect(), ..Holdings::default() };
        let bindings = Bindings {
            bound: own(bound.contains(net)),
            reserved: own(true),
            // Whoever has it may be reached at any port.
            infrastructure: Holdings { nets: all.infrastructure.nets.clone(), ..Holdings::default() },
            ..Bindings::default()
        };
        let owner = match owners.get(net) {
            Some(owner) => owner,
            None if infrastructure.contains(net) => " of the gateway or the node",
            None => "",
        };
        for address in BTreeSet::from([net.network(), last(*net)]) {
            let of_net = if net.prefix_len() == net.max_prefix_len() { String::new() } else { format!(" in {net}") };
            let name = format!("{address}{of_net}{owner}");
            targets.push(Target { name, what: What::Address(address), bindings: bindings.clone() });
        }
    }
    let macs: BTreeSet<MacAddr> = [&all.infrastructure, &all.bound, &all.reserved]
        .into_iter()
        .flat_map(|held| held.macs.iter().copied())
        .collect();
    for mac in macs {
        let own = |held: &Holdings| Holdings {
            macs: held.macs.get(&mac).copied().into_iter().collect(),
            ..Holdings::default()
        };
        let bindings = Bindings {
            bound: own(&all.bound),
            infrastructure: own(&all.infrastructure),
            reserved: own(&all.reserved),
            ..Bindings::default()
        };
        let of_node = if all.infrastructure.macs.contains(&mac) { " of the gateway or the node" } else { "" };
        let owner = owners_of_macs.get(&mac).map_or(of_node, String::as_str);
        targets.push(Target { name: format!("{mac}{owner}"), what: What::Mac(mac), bindings });
    }
    let any = |family| nets.iter().map(IpNet::network).find(|address| Family::of(*address) == family);
    let mut who = ATTACKER;
    if let Some(IpAddr::V4(address)) = any(Family::V4) {
        who.ip4 = address;
    }
    if let Some(IpAddr::V6(address)) = any(Family::V6) {
        who.ip6 = address;
    }
    let name = "a protected address".to_owned();
    targets.push(Target { name, what: What::Anybody(who), bindings: Bindings::default() });
    targets
}

/// The broadcast address of a prefix is protected as the others are.
fn last(net: IpNet) -> IpAddr {
    match net {
        IpNet::V4(net) => net.broadcast().into(),
        IpNet::V6(net) => net.broadcast().into(),
    }
}

impl Target {
    /// The frames that must not arrive at the listener, who gets all of them addressed to its MAC.
    pub fn attacks(&self) -> Vec<Case> {
        let with = |address: IpAddr| match address {
            IpAddr::V4(ip4) => Who { ip4, ..ATTACKER },
            IpAddr::V6(ip6) => Who { ip6, ..ATTACKER },
        };
        let mut cases = match self.what {
            What::Address(address) => {
                let mut cases = open_claims(ATTACKER, with(address), &self.name, false);
                cases.push(misled(address, &self.name));
                cases
            }
            What::Mac(mac) => {
                let victim = Who { mac: mac.octets(), ..ATTACKER };
                let mut cases = mac_claims(ATTACKER, victim, &self.name, false);
                cases.extend(foreign_mac_inside(ATTACKER, victim, &self.name));
                cases
            }
            What::Anybody(victim) => {
                let scene = Scene { gateway: victim, node: victim, victim, stranger: ATTACKER };
                let mut cases = unbound_port(ATTACKER, &scene, false);
                cases.extend(hidden_claims(ATTACKER, victim, &self.name));
                cases
            }
        };
        for case in &mut cases {
            case.frame[..6].copy_from_slice(&LISTENER);
        }
        cases.retain(|case| self.must_fail(&case.frame));
        cases
    }

    fn must_fail(&self, frame: &[u8]) -> bool {
        let guest = PortRole::Guest { router: false };
        match verdict(frame, &guest, &self.bindings) {
            Verdict::Drop(_) => true,
            Verdict::Pass => matches!(delivery(frame, &guest, &guest, &self.bindings), Verdict::Drop(_)),
            Verdict::Either(_) => false,
        }
    }
}

/// A packet for the address that arrives at somebody else's port.
fn misled(address: IpAddr, name: &str) -> Case {
    let mut table = Table { group: "delivery to another guest", ..Table::default() };
    let to = Sender { me: ATTACKER, to: LISTENER };
    let frame = match address {
        IpAddr::V4(address) => to.v4(ATTACKER.ip4, address, UDP, 0, &udp(4000, 4001, b"data")),
        IpAddr::V6(address) => to.udp6(ATTACKER.ip6, address),
    };
    table.drop(format!("packet to {name}"), frame);
    table.cases.remove(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::Links;
    use crate::selftest::topologies::TOPOLOGIES;

    #[test]
    fn attacks_must_fail_and_arrive_nowhere_else() {
        let guest = PortRole::Guest { router: false };
        let mut judged = 0;
        for topology in TOPOLOGIES {
            let inputs = topology.inputs(Links::default()).unwrap();
            let all = explain::bindings(&inputs);
            let is_drop = |verdict| matches!(verdict, Verdict::Drop(_));
            for target in targets(&inputs) {
                for case in target.attacks() {
                    assert_eq!(case.frame[..6], LISTENER, "{}: {}", target.name, case.class);
                    let fails = is_drop(verdict(&case.frame, &guest, &all))
                        || is_drop(delivery(&case.frame, &guest, &guest, &all));
                    assert!(fails, "{}: {} may pass", topology.name, case.class);
                    judged += 1;
                }
            }
        }
        assert!(judged > 5000, "{judged}");
    }

    #[test]
    fn nothing_that_is_protected_is_left_out() {
        let inputs = TOPOLOGIES[0].inputs(Links::default()).unwrap();
        let targets = targets(&inputs);
        let attacks = |name: &str| {
            let target = targets.iter().find(|target| target.name == name).unwrap();
            target.attacks().iter().map(|case| case.class.clone()).collect::<Vec<_>>()
        };
        let bound = attacks("203.0.113.10 of guest 100");
        for class in ["IPv4 UDP from", "gratuitous ARP for", "ARP probe for", "packet to"] {
            assert!(bound.contains(&format!("{class} 203.0.113.10 of guest 100")), "{class}: {bound:?}");
        }
        assert!(attacks("2001:db8:0:1::10 of guest 100").iter().any(|class| class.starts_with("DAD for")));
        assert!(attacks("203.0.113.20").len() >= 10, "an address that nobody has");
        assert!(attacks("198.51.100.255 in 198.51.100.0/24").len() >= 10, "the last one of a prefix");
        let gateway = attacks("203.0.113.1 of the gateway or the node");
        assert!(!gateway.iter().any(|class| class.starts_with("packet to")), "whoever has it may be reached");
        assert!(attacks("02:00:00:00:00:64 of guest 100").iter().any(|class| class.starts_with("MAC of")));
        assert!(attacks("a protected address").contains(&"router advertisement".to_owned()));
    }
}
