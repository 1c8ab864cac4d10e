//! What is sent in a topology, and what must become of it.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    Arrival, CARD_MAC, ELSEWHERE, GATEWAY_MAC, LinkLocal, NAMED_LINK_LOCAL, NOBODYS, NODE_MAC, Nic, OTHER_NETWORK,
    PREFIX_ADDRESSES, Play, STOPPED, STRANGER, Segment, Sender, Special, TAG, To, Topology, UPLINK, WORLD, What,
    assigned, name, outsider,
};
use crate::selftest::delivery;
use crate::selftest::frames::{BROADCAST, Mac, VLAN, is_tagged, tagged};
use crate::selftest::verdicts::{self, Case, Scene, Who};

impl Topology {
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
}

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

fn mac_of(vmid: u8) -> Mac {
    [2, 0, 0, 0, 0, vmid]
}
