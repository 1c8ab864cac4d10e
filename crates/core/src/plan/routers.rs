//! Routers behind the uplinks: at which MACs this node has seen the gateways of its bridges, and which of them to protect.
//!
//! A MAC counts only where it was seen behind an uplink: a guest cannot send from there, whatever it claims.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use super::inputs::Inputs;
use super::segments::{pool_bridges, segments};
use super::sightings::{Router, Sighting};
use super::uplinks::uplinks_of;
use crate::code;
use crate::links::is_guest_port;
use crate::model::{Family, IfName, MacAddr, Problem};
use crate::registry::document::{Mode, Pool, Probe};

/// MACs that are remembered of one address: two routers that stand in for each other, and what was before them.
const MACS: usize = 4;

/// Routers of one bridge that are known by their advertisements only.
const ADVERTISED: usize = 8;

/// Gateways that are looked up on one node.
const LOOKED_UP: usize = 256;

/// How precisely the time is kept at which a router was heard: the note is written when something changes, not at each look.
const PRECISION: u64 = 86_400;

/// What to ask on the wire of one bridge's uplinks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The bridge.
    pub bridge: IfName,
    /// Its uplinks: questions leave only there, and only answers from there count.
    pub uplinks: BTreeSet<IfName>,
    /// The node's MAC on the bridge.
    pub mac: MacAddr,
    /// The node's link-local address on the bridge; without one no IPv6 router is asked.
    pub link_local: Option<Ipv6Addr>,
    /// Gateways whose MAC is not known.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether to ask for router advertisements.
    pub solicit: bool,
}

/// Whether an interface is this bridge or one of its VLANs. By the name, because a VLAN's interface may be missing for a
/// moment, and what was learnt must outlive that.
fn is_of(device: IfName, bridge: IfName) -> bool {
    let rest = device.as_str().strip_prefix(bridge.as_str());
    let is_tag = |rest: &str| rest.strip_prefix(['v', '.']).is_some_and(|tag| tag.parse::<u16>().is_ok());
    rest.is_some_and(|rest| rest.is_empty() || is_tag(rest))
}

fn carries_pool(inputs: &Inputs, device: IfName) -> bool {
    pool_bridges(&inputs.registry).into_iter().any(|bridge| is_of(device, bridge))
}

/// Bridged pools of the bridge that `device` is, or is a VLAN of.
fn pools_on(inputs: &Inputs, device: IfName) -> impl Iterator<Item = &Pool> {
    let pools = inputs.registry.pools.pools.values();
    pools.filter(move |pool| pool.mode() == Mode::Bridged && is_of(device, pool.bridge))
}

/// Gateways whose MAC is wanted: those of the bridged pools, and the next hops of the node's own default routes that
/// lie on a pool's bridge. What the node has itself is none.
pub fn gateways(inputs: &Inputs) -> BTreeSet<(IfName, IpAddr)> {
    let own: BTreeSet<IpAddr> = inputs.links.addresses().map(|(_, address)| address).collect();
    let segments = segments(inputs, &pool_bridges(&inputs.registry));
    let mut found = BTreeSet::new();
    for device in segments.iter().filter(|device| inputs.links.get(**device).is_some()) {
        found.extend(pools_on(inputs, *device).flat_map(Pool::gateways).map(|address| (*device, address)));
    }
    found.extend(inputs.next_hops.iter().filter(|(device, _)| segments.contains(device)).copied());
    found.into_iter().filter(|(_, address)| !own.contains(address)).take(LOOKED_UP).collect()
}

/// Gateways whose MAC is neither named nor known, so that nothing keeps a guest from using it. A bridge without an uplink
/// has no router behind one.
pub fn unknown_gateways(inputs: &Inputs) -> Vec<(IfName, IpAddr)> {
    let is_known = |device: IfName, address: IpAddr| {
        let learnt = inputs.routers.iter().any(|router| (router.bridge, router.address) == (device, address));
        learnt || pools_on(inputs, device).any(|pool| pool.gateway_mac.is_some())
    };
    let mut unknown: Vec<_> = gateways(inputs).into_iter().filter(|(device, ip)| !is_known(*device, *ip)).collect();
    unknown.retain(|(device, _)| !uplinks_of(inputs, *device).is_empty());
    unknown
}

/// Whether a port is an uplink of the bridge that `device` is, or is a VLAN of.
pub fn is_uplink_of(inputs: &Inputs, device: IfName, port: IfName) -> bool {
    uplinks_of(inputs, device).contains(&port)
}

/// What is known after some sightings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learnt {
    /// All routers.
    pub routers: Vec<Router>,
    /// Sightings that were not believed, because somebody here has the MAC.
    pub refused: BTreeSet<Sighting>,
}

/// What is known after these sightings, in the order in which they were made.
///
/// Nothing is forgotten because it is silent. `is_certain`: the pools could be read, so that what no pool speaks of any
/// more goes.
pub fn learn(inputs: &Inputs, sightings: &[Sighting], is_certain: bool, now: u64) -> Learnt {
    let wanted = gateways(inputs);
    let owners = Owners::new(inputs);
    let mut routers = inputs.routers.clone();
    let mut refused = BTreeSet::new();
    if is_certain {
        routers.retain(|router| {
            let is_recent = now.saturating_sub(router.heard) <= 2 * PRECISION;
            let is_wanted = router.advertised || is_recent || wanted.contains(&(router.bridge, router.address));
            is_wanted && carries_pool(inputs, router.bridge)
        });
    }
    for sighting in sightings {
        let Sighting { bridge, address, mac, advertised } = sighting;
        let is_wanted = wanted.contains(&(*bridge, *address));
        if mac.octets()[0] & 1 == 1 || mac.octets() == [0; 6] || !(is_wanted || advertised.is_some()) {
            continue;
        }
        if owners.macs.contains_key(mac) || owners.link_locals.contains(address) {
            refused.insert(sighting.clone());
            continue;
        }
        let known = routers.iter().position(|router| (router.bridge, router.address) == (*bridge, *address));
        let at = match known {
            Some(at) => at,
            None if is_wanted || make_room(&mut routers, *bridge, now) => insert(&mut routers, *bridge, *address),
            None => continue,
        };
        let router = &mut routers[at];
        if router.macs.first() != Some(mac) {
            router.macs.retain(|known| known != mac);
            router.macs.insert(0, *mac);
            router.macs.truncate(MACS);
        }
        if let Some(prefixes) = advertised {
            router.advertised = true;
            router.autonomous.clone_from(prefixes);
        }
        if now.saturating_sub(router.heard) > PRECISION {
            router.heard = now;
        }
    }
    Learnt { routers, refused }
}

fn insert(routers: &mut Vec<Router>, bridge: IfName, address: IpAddr) -> usize {
    let (macs, autonomous) = (Vec::new(), BTreeSet::new());
    routers.push(Router { bridge, address, macs, heard: 0, advertised: false, autonomous });
    routers.len() - 1
}

/// Whether one more advertised router may be remembered. One that was heard lately gives no room: whoever sends a
/// thousand advertisements would drive the real one out.
fn make_room(routers: &mut Vec<Router>, bridge: IfName, now: u64) -> bool {
    let here = |router: &Router| router.bridge == bridge && router.advertised;
    if routers.iter().filter(|router| here(router)).count() < ADVERTISED {
        return true;
    }
    let oldest = routers.iter().enumerate().filter(|(_, router)| here(router)).min_by_key(|(_, router)| router.heard);
    match oldest.map(|(at, router)| (at, router.heard)) {
        Some((at, heard)) if now.saturating_sub(heard) > 2 * PRECISION => {
            routers.remove(at);
            true
        }
        _ => false,
    }
}

/// Whose MACs these are already: a learnt one that is somebody else's here would cut that one off.
struct Owners {
    macs: BTreeMap<MacAddr, String>,
    /// Link-local addresses of guests: who advertises himself with one from outside is no router of ours.
    link_locals: BTreeSet<IpAddr>,
}

impl Owners {
    fn new(inputs: &Inputs) -> Self {
        let mut macs = BTreeMap::new();
        for pool in inputs.registry.pools.pools.values() {
            let of_entries = pool.addresses.iter().filter_map(|entry| Some((entry.mac?, entry.address.net())));
            macs.extend(of_entries.map(|(mac, net)| (mac, format!("the one that the provider bound to {net}"))));
            let allowed = pool.allowed_macs.iter();
            macs.extend(allowed.map(|mac| (*mac, "allowed as that of a guest".to_owned())));
        }
        for (vmid, place) in &inputs.guests {
            let nics = place.config.nics.iter().filter_map(|(id, nic)| Some((nic.as_ref().ok()?.mac?, id)));
            macs.extend(nics.map(|(mac, id)| (mac, format!("that of guest {vmid} {id}"))));
        }
        let mut named = BTreeSet::new();
        for (vmid, guest) in &inputs.registry.guests {
            for (id, interface) in &guest.interfaces {
                macs.extend(interface.all_macs().map(|mac| (mac, format!("that of guest {vmid} {id}"))));
                named.extend(interface.link_local.iter().copied());
            }
        }
        let link_locals = macs.keys().map(|mac| mac.link_local()).chain(named).map(IpAddr::V6).collect();
        let own = inputs.links.0.iter().filter(|(name, _)| !is_guest_port(name.as_str()));
        macs.extend(own.filter_map(|(name, link)| Some((link.mac?, format!("that of this node's {name}")))));
        Self { macs, link_locals }
    }
}

/// What follows of the learnt routers: MACs with the uplinks behind which they are, and the addresses at which the routers
/// can be reached, those that they make of their MACs included.
#[derive(Debug, Default)]
pub(super) struct Protected {
    /// MACs with the uplinks of their bridge.
    pub(super) macs: BTreeSet<(MacAddr, BTreeSet<IfName>)>,
    /// Addresses.
    pub(super) addresses: BTreeSet<IpAddr>,
}

/// What to protect of the routers that were learnt.
pub(super) fn protected(inputs: &Inputs) -> Protected {
    let mut protected = Protected::default();
    if inputs.routers.is_empty() {
        return protected;
    }
    let owners = Owners::new(inputs);
    let own: BTreeSet<IpAddr> = inputs.links.addresses().map(|(_, address)| address).collect();
    for router in inputs.routers.iter().filter(|router| carries_pool(inputs, router.bridge)) {
        // By now somebody here may have one of them: a router that is a guest, and has moved to this node.
        let macs: Vec<MacAddr> = router.macs.iter().copied().filter(|mac| !owners.macs.contains_key(mac)).collect();
        if macs.is_empty() || owners.link_locals.contains(&router.address) {
            continue;
        }
        let uplinks = uplinks_of(inputs, router.bridge);
        protected.addresses.extend(Some(router.address).filter(|address| !own.contains(address)));
        protected.addresses.extend(macs.iter().map(|mac| IpAddr::V6(mac.link_local())));
        protected.macs.extend(macs.into_iter().map(|mac| (mac, uplinks.clone())));
    }
    protected
}

/// Routers whose MAC cannot be protected, because somebody here has it.
pub(super) fn problems(inputs: &Inputs) -> Vec<Problem> {
    if inputs.refused_routers.is_empty() {
        return Vec::new();
    }
    let owners = Owners::new(inputs);
    let problem = |Sighting { bridge, address, mac, .. }: &Sighting| {
        let owner = owners.macs.get(mac).map_or("of a guest here by its address", String::as_str);
        let sentence = format!(
            "the router {address} was seen behind the uplink of {bridge} with the MAC {mac}, which is {owner}: that MAC is not \
             protected as a router's"
        );
        let hint = format!("two have it: `bridge fdb get {mac} br {bridge}` tells where it was seen last");
        Problem::of_node(code!("router-mac-not-protected"), sentence, hint)
    };
    inputs.refused_routers.iter().map(problem).collect()
}

/// What to ask by the uplinks: gateways that the node itself does not know, where their pool allows that, and routers
/// that advertise themselves, where guests have IPv6 addresses.
pub fn questions(inputs: &Inputs) -> Vec<Question> {
    let known = |device: IfName, address: IpAddr| {
        inputs.routers.iter().any(|router| (router.bridge, router.address) == (device, address))
    };
    let is_up = |port: &IfName| inputs.links.get(*port).is_some_and(|link| link.up);
    let wanted = gateways(inputs);
    let mut questions = Vec::new();
    // In a VLAN of a VLAN-aware bridge nothing is asked: what leaves by the uplink itself carries no tag.
    let is_bridge = |device: &IfName| inputs.links.get(*device).is_some_and(|link| link.bridge.is_some());
    for device in segments(inputs, &pool_bridges(&inputs.registry)).into_iter().filter(is_bridge).filter(is_up) {
        let Some(link) = inputs.links.get(device) else { continue };
        let uplinks: BTreeSet<IfName> = uplinks_of(inputs, device).into_iter().filter(is_up).collect();
        let (Some(mac), false) = (link.mac, uplinks.is_empty()) else { continue };
        let mut link_locals = link.addresses.iter().filter_map(|net| match net.addr() {
            IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
            _ => None,
        });
        let askable = pools_on(inputs, device).filter(|pool| pool.probe() == Probe::Assign);
        let addresses = askable.flat_map(Pool::gateways);
        let link_local = link_locals.next();
        let is_open = |address: &IpAddr| wanted.contains(&(device, *address)) && !known(device, *address);
        let addresses = addresses.filter(is_open).filter(|ip| ip.is_ipv4() || link_local.is_some()).collect();
        let mut entries = pools_on(inputs, device).flat_map(|pool| &pool.addresses);
        let solicit = link_local.is_some() && entries.any(|entry| entry.address.family() == Family::V6);
        questions.push(Question { bridge: device, uplinks, mac, link_local, addresses, solicit });
    }
    questions.retain(|question| question.solicit || !question.addresses.is_empty());
    questions
}

/// What was learnt since `before`, in words.
pub fn news(before: &[Router], after: &[Router]) -> Vec<String> {
    let mut lines = Vec::new();
    for Router { bridge, address, macs, advertised, .. } in after {
        let known = before.iter().find(|router| (router.bridge, router.address) == (*bridge, *address));
        let Some(mac) = macs.first() else { continue };
        let what = if *advertised { "router (by its advertisements)" } else { "gateway" };
        match known.and_then(|router| router.macs.first()) {
            Some(old) if old == mac => {}
            Some(old) => lines.push(format!("learnt: {what} {address} on {bridge} has moved from {old} to {mac}")),
            None => {
                lines.push(format!("learnt: {what} {address} on {bridge} has the MAC {mac}, which no guest may use"));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::GuestConfig;
    use crate::links::BridgeOptions;
    use crate::links::Link;
    use crate::model::GuestKind;
    use crate::plan::{Located, desired};
    use crate::registry::Registry;
    use crate::ruleset::{Element, SetId};

    const GATEWAY: MacAddr = MacAddr::literal([2, 0, 0, 0, 0, 0xf1]);
    const OTHER: MacAddr = MacAddr::literal([2, 0, 0, 0, 0, 0xf2]);
    const DAY: u64 = 86_400;
    const POOLS: &str = r#"{"version":1,"pools":{
        "pub":{"profile":"generic-bridged","bridge":"vmbr0","gateway4":"198.51.100.1","gateway6":"2001:db8::1",
            "addresses":[{"address":"203.0.113.8/29"},{"address":"2001:db8:0:1::/64"}]},
        "net":{"profile":"generic-routed","bridge":"vmbr1","gateway4":"169.254.0.1","addresses":[{"address":"192.0.2.8/29"}]}}}"#;

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// vmbr0 with the uplink eno1 and guest 200's port, vmbr1 with the uplink eno2.
    fn inputs() -> Inputs {
        let registry = Registry { pools: serde_json::from_str(POOLS).unwrap(), ..Registry::default() };
        let config = GuestConfig::parse(GuestKind::Qemu, b"net0: virtio=02:00:00:00:00:C8,bridge=vmbr0,tag=7\n");
        let guests = BTreeMap::from([("200".parse().unwrap(), Located { node: "n1".parse().unwrap(), config })]);
        let mut inputs = Inputs::new("n1".parse().unwrap(), registry, guests);
        let bridge = |last: u8| Link {
            bridge: Some(BridgeOptions::default()),
            mac: Some(MacAddr::literal([2, 0, 0, 0, 0, last])),
            addresses: vec!["198.51.100.7/24".parse().unwrap(), "fe80::7/64".parse().unwrap()],
            up: true,
            ..Link::default()
        };
        let port = |master: &str| Link { master: Some(name(master)), up: true, ..Link::default() };
        inputs.links.0.extend([
            (name("vmbr0"), bridge(7)),
            (name("vmbr0v7"), bridge(8)),
            (name("vmbr1"), bridge(9)),
            (name("eno1"), port("vmbr0")),
            (name("eno1.7"), port("vmbr0v7")),
            (name("eno2"), port("vmbr1")),
            (name("tap200i0"), port("vmbr0")),
        ]);
        inputs
    }

    fn seen(bridge: &str, address: &str, mac: MacAddr) -> Sighting {
        Sighting { bridge: name(bridge), address: ip(address), mac, advertised: None }
    }

    fn advertised(address: &str, mac: MacAddr) -> Sighting {
        Sighting { advertised: Some(BTreeSet::new()), ..seen("vmbr0", address, mac) }
    }

    #[test]
    fn gateways_are_those_of_bridged_pools_and_of_the_node() {
        let mut inputs = inputs();
        let shown = |inputs: &Inputs| {
            gateways(inputs).iter().map(|(device, address)| format!("{device} {address}")).collect::<Vec<_>>()
        };
        let pools = ["vmbr0 198.51.100.1", "vmbr0 2001:db8::1", "vmbr0v7 198.51.100.1", "vmbr0v7 2001:db8::1"];
        assert_eq!(shown(&inputs), pools);
        inputs.next_hops = [("vmbr0", "fe80::1"), ("wg0", "10.0.0.1")].map(|(on, at)| (name(on), ip(at))).into();
        assert!(shown(&inputs).contains(&"vmbr0 fe80::1".to_owned()), "the node's own");
        assert!(!shown(&inputs).contains(&"wg0 10.0.0.1".to_owned()), "on no bridge of a pool");
        inputs.links.0.get_mut(&name("vmbr1")).unwrap().addresses.push("198.51.100.1/32".parse().unwrap());
        assert!(!shown(&inputs).contains(&"vmbr0 198.51.100.1".to_owned()), "the node has it");
    }

    #[test]
    fn what_was_learnt_is_protected_and_comes_back_by_its_own_uplink_only() {
        let mut inputs = inputs();
        inputs.routers = learn(&inputs, &[seen("vmbr0", "198.51.100.1", GATEWAY)], true, 1000).routers;
        let elements = desired(&inputs).state.elements;
        for element in Element::infra_mac(GATEWAY) {
            assert!(elements.contains(&element), "{element}");
        }
        assert!(elements.contains(&Element::mac_on_port(SetId::HairpinMac, name("eno1"), GATEWAY)));
        assert!(elements.contains(&Element::mac_on_port(SetId::UplinkMac, name("eno1"), GATEWAY)));
        for other in ["eno2", "eno1.7", "tap200i0"] {
            assert!(!elements.contains(&Element::mac_on_port(SetId::HairpinMac, name(other), GATEWAY)), "{other}");
        }
        for address in [IpAddr::V6(GATEWAY.link_local()), ip("198.51.100.1")] {
            assert!(Element::infra_address(address).iter().all(|element| elements.contains(element)), "{address}");
        }
    }

    #[test]
    fn a_mac_that_somebody_here_has_is_not_believed() {
        let mut inputs = inputs();
        let guests = MacAddr::literal([2, 0, 0, 0, 0, 0xc8]);
        let nodes = MacAddr::literal([2, 0, 0, 0, 0, 9]);
        let group = MacAddr::literal([3, 0, 0, 0, 0, 9]);
        let own_link_local = guests.link_local().to_string();
        let sightings = [
            seen("vmbr0", "198.51.100.1", guests),
            seen("vmbr0", "198.51.100.1", nodes),
            seen("vmbr0", "198.51.100.1", group),
            advertised(&own_link_local, GATEWAY),
        ];
        let Learnt { routers, refused } = learn(&inputs, &sightings, true, 1000);
        assert_eq!((routers, refused.len()), (Vec::new(), 3));
        inputs.refused_routers = refused;
        let sentences: Vec<String> = problems(&inputs).into_iter().map(|problem| problem.sentence).collect();
        assert!(
            sentences.contains(
                &"the router 198.51.100.1 was seen behind the uplink of vmbr0 with the MAC 02:00:00:00:00:c8, which is \
                  that of guest 200 net0: that MAC is not protected as a router's"
                    .to_owned()
            ),
            "{sentences:?}"
        );
        // A router that has become a guest of this node is cut off by nothing that was learnt before.
        inputs.routers = learn(&self::inputs(), &[seen("vmbr0", "198.51.100.1", OTHER)], true, 1000).routers;
        let config = GuestConfig::parse(GuestKind::Qemu, b"net0: virtio=02:00:00:00:00:F2,bridge=vmbr0\n");
        inputs.guests.insert("300".parse().unwrap(), Located { node: "n1".parse().unwrap(), config });
        let elements = desired(&inputs).state.elements;
        assert!(!elements.contains(&Element::mac(SetId::InfraMac, OTHER)));
    }

    #[test]
    fn what_is_silent_is_not_forgotten_and_what_moves_is_followed() {
        let mut inputs = inputs();
        let mut look = |sightings: &[Sighting], certain: bool, now: u64| {
            inputs.routers = learn(&inputs, sightings, certain, now).routers;
            inputs.routers.iter().map(|router| (router.address.to_string(), router.macs.clone())).collect::<Vec<_>>()
        };
        let gateway = |macs: &[MacAddr]| vec![("198.51.100.1".to_owned(), macs.to_vec())];
        assert_eq!(look(&[seen("vmbr0", "198.51.100.1", GATEWAY)], true, 1000), gateway(&[GATEWAY]));
        assert_eq!(look(&[], true, 1000 * DAY), gateway(&[GATEWAY]));
        // A router takes over from the other one, and both may send.
        assert_eq!(look(&[seen("vmbr0", "198.51.100.1", OTHER)], true, 1000 * DAY), gateway(&[OTHER, GATEWAY]));
        assert_eq!(look(&[seen("vmbr0", "198.51.100.1", GATEWAY)], true, 1000 * DAY), gateway(&[GATEWAY, OTHER]));
        // Nobody has asked for it.
        assert_eq!(look(&[seen("vmbr0", "198.51.100.99", OTHER)], true, 1000 * DAY), gateway(&[GATEWAY, OTHER]));
        for last in 0..20 {
            let mac = MacAddr::literal([2, 0, 0, 1, 0, last]);
            look(&[seen("vmbr0", "198.51.100.1", mac)], true, 1000 * DAY);
        }
        assert_eq!(look(&[], true, 1000 * DAY)[0].1.len(), MACS);
        // Pools that cannot be read say nothing.
        let pools = std::mem::take(&mut inputs.registry.pools);
        let kept = learn(&inputs, &[], false, 2000 * DAY).routers;
        assert_eq!(kept, inputs.routers);
        assert_eq!(learn(&inputs, &[], true, 2000 * DAY).routers, Vec::new());
        inputs.registry.pools = pools;
    }

    #[test]
    fn a_flood_of_advertisements_drives_no_router_out() {
        let mut inputs = inputs();
        inputs.routers = learn(&inputs, &[advertised("fe80::1", GATEWAY)], true, 1000 * DAY).routers;
        let flood: Vec<Sighting> = (2..200).map(|last| advertised(&format!("fe80::{last:x}"), OTHER)).collect();
        inputs.routers = learn(&inputs, &flood, true, 1000 * DAY).routers;
        assert_eq!((inputs.routers.len(), inputs.routers[0].address), (ADVERTISED, ip("fe80::1")));
        // What has not been heard for days gives room.
        let new = advertised("fe80::ffff", OTHER);
        inputs.routers = learn(&inputs, &[advertised("fe80::1", GATEWAY), new], true, 1010 * DAY).routers;
        let known: BTreeSet<IpAddr> = inputs.routers.iter().map(|router| router.address).collect();
        assert!(known.contains(&ip("fe80::1")) && known.contains(&ip("fe80::ffff")), "{known:?}");
        assert_eq!(known.len(), ADVERTISED);
    }

    #[test]
    fn only_what_is_not_known_is_asked_for_and_never_in_a_vlan_of_the_bridge() {
        let mut inputs = inputs();
        let asked = |inputs: &Inputs| {
            let text = |question: Question| {
                let uplinks: Vec<_> = question.uplinks.iter().map(IfName::as_str).collect();
                let addresses: Vec<_> = question.addresses.iter().map(ToString::to_string).collect();
                format!("{} by {}: {} {}", question.bridge, uplinks.join(" "), addresses.join(" "), question.solicit)
            };
            questions(inputs).into_iter().map(text).collect::<Vec<_>>()
        };
        let both = "198.51.100.1 2001:db8::1 true";
        assert_eq!(asked(&inputs), [format!("vmbr0 by eno1: {both}"), format!("vmbr0v7 by eno1.7: {both}")]);
        inputs.routers = learn(&inputs, &[seen("vmbr0", "198.51.100.1", GATEWAY)], true, 1000).routers;
        assert_eq!(asked(&inputs)[0], "vmbr0 by eno1: 2001:db8::1 true");
        inputs.links.0.get_mut(&name("vmbr0")).unwrap().addresses.retain(|net| net.addr().is_ipv4());
        assert_eq!(asked(&inputs).len(), 1, "without a link-local address no IPv6 router is asked");
        inputs.links.0.get_mut(&name("eno1.7")).unwrap().up = false;
        assert_eq!(asked(&inputs), [""; 0]);
        let mut inputs = self::inputs();
        inputs.registry.pools.pools.values_mut().for_each(|pool| pool.probe = Some(Probe::Never));
        assert_eq!(asked(&inputs)[0], "vmbr0 by eno1:  true", "no ARP where the provider does not expect it");
    }
}
