//! What the kernel says that has changed, and whether that matters.
//!
//! A change matters if it contradicts what is wanted or known. What this program or a hook of it has just done agrees
//! with both, so nobody wakes up for it.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::inputs::{DefaultRoute, Exits};
use super::state::{NetState, Setting};
use crate::links::{BridgeOptions, Link, Links};
use crate::model::{Family, IfName, MacAddr};

/// In place of an interface's number, where settings of all of them are meant.
///
/// Source: Linux `include/uapi/linux/netconf.h`, `NETCONFA_IFINDEX_ALL` (-1).
const WHOLE_NODE: u32 = u32::MAX;

/// A change that the kernel reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An interface as it is now. Its addresses are not told.
    Link(IfName, Link),
    /// An interface has gone.
    LinkGone(IfName),
    /// An address of the node, which is told again whenever a router refreshes it.
    Address {
        /// Number of the interface.
        index: u32,
        /// With its prefix.
        net: IpNet,
        /// It carries our mark: a gateway for guests.
        ours: bool,
        /// It is there.
        present: bool,
    },
    /// A default route, as nobody but others makes it.
    DefaultRoute {
        /// The route.
        route: DefaultRoute,
        /// It is there.
        present: bool,
    },
    /// Kernel settings of an interface, as far as they have changed.
    Settings {
        /// Those of IPv4 or of IPv6.
        family: Family,
        /// Number of the interface, or `WHOLE_NODE`.
        index: u32,
        /// Whether it forwards.
        forwarding: Option<u32>,
        /// Whether it answers for others.
        proxy: Option<u32>,
        /// One that the kernel does not name: as of Linux 6.18 that is whether the interface forwards IPv6 although the node
        /// does not.
        unnamed: bool,
    },
    /// A neighbour with our mark: the kernel is asked for no other one, of which a guest can make as many as it likes. No MAC:
    /// it has gone, or is not permanent.
    Neighbour {
        /// Number of the interface.
        index: u32,
        /// Whose.
        address: IpAddr,
        /// Where it is.
        mac: Option<MacAddr>,
    },
    /// A forwarding entry of any bridge.
    Forwarding {
        /// Number of the port.
        index: u32,
        /// The address.
        mac: MacAddr,
        /// It is there, and stays at its port.
        sticky: bool,
        /// It is there, and is the node's own.
        local: bool,
    },
    /// A route.
    Route {
        /// Where to.
        net: IpNet,
        /// Number of the interface; 0: none, or several.
        index: u32,
        /// By way of.
        via: Option<IpAddr>,
        /// It is there.
        present: bool,
        /// It carries our mark.
        ours: bool,
    },
    /// A transaction in nf_tables that touched our table.
    Filter {
        /// Its number.
        generation: u32,
        /// The program that did it.
        by: String,
    },
    /// A transaction in nf_tables that touched the tables of iptables.
    Chains,
    /// There was more than could be told: anything may have changed.
    Lost,
}

/// Drops what a later event about the same thing has overtaken: a route that is replaced is gone for a moment.
pub fn latest(events: Vec<Event>) -> Vec<Event> {
    let mut seen = HashSet::new();
    let mut kept: Vec<Event> = events.into_iter().rev().filter(|event| seen.insert(event.subject())).collect();
    kept.reverse();
    kept
}

/// What an event is about.
#[derive(PartialEq, Eq, Hash)]
enum Subject {
    Link(IfName),
    Neighbour(u32, IpAddr),
    Forwarding(u32, MacAddr),
    Route(IpNet, bool),
    Address(u32, IpNet),
    DefaultRoute(DefaultRoute),
    Settings(Family, u32, [bool; 3]),
    Filter,
    Chains,
    Lost,
}

impl Event {
    fn subject(&self) -> Subject {
        match self {
            Self::Link(name, _) | Self::LinkGone(name) => Subject::Link(*name),
            Self::Address { index, net, .. } => Subject::Address(*index, *net),
            Self::DefaultRoute { route, .. } => Subject::DefaultRoute(*route),
            Self::Settings { family, index, forwarding, proxy, unnamed } => {
                Subject::Settings(*family, *index, [forwarding.is_some(), proxy.is_some(), *unnamed])
            }
            Self::Neighbour { index, address, .. } => Subject::Neighbour(*index, *address),
            Self::Forwarding { index, mac, .. } => Subject::Forwarding(*index, *mac),
            Self::Route { net, ours, .. } => Subject::Route(*net, *ours),
            Self::Filter { .. } => Subject::Filter,
            Self::Chains => Subject::Chains,
            Self::Lost => Subject::Lost,
        }
    }
}

/// What events are compared with: the outcome of the last look.
#[derive(Debug, Clone, Copy)]
pub struct LastLook<'a> {
    /// What should be.
    pub desired: &'a NetState,
    /// The interfaces.
    pub links: &'a Links,
    /// The node's ways to the world; `None` if nothing depends on them.
    pub exits: Option<&'a Exits>,
    /// The number of the last transaction in nf_tables that has been looked at.
    pub generation: u32,
}

impl LastLook<'_> {
    /// Whether the event tells something that is not as it should be, or as it was.
    pub fn is_contradicted_by(&self, event: &Event) -> bool {
        match event {
            Event::Link(name, link) => {
                let deaf = self.desired.deaf_bridges.contains(name);
                let as_left = |known: &Link| {
                    let bridge = known.bridge.map(|bridge| BridgeOptions {
                        no_linklocal_learn: bridge.no_linklocal_learn || deaf,
                        ..bridge
                    });
                    let screened = known.screened || self.desired.screened_ports.contains(name);
                    Link { bridge, screened, ..known.clone() }
                };
                self.links.get(*name).is_none_or(|known| !as_left(known).is_alike(link))
            }
            Event::LinkGone(name) => self.links.get(*name).is_some(),
            Event::Address { index, net, ours: true, present } => self
                .name(*index)
                .is_some_and(|name| self.desired.support.gateways.contains(&(name, net.addr())) != *present),
            Event::DefaultRoute { route, present } => {
                self.exits.is_some_and(|exits| exits.routes.contains(route) != *present)
            }
            Event::Settings { family, index, forwarding, proxy, unnamed } => {
                let settings = &self.desired.support.settings;
                let is_reset = |setting: Setting, value: &Option<u32>| {
                    value.is_some_and(|value| value != setting.value()) && settings.contains(&setting)
                };
                match (self.name(*index), family) {
                    (Some(name), Family::V4) => is_reset(Setting::Forwarding4(name), forwarding),
                    (Some(name), Family::V6) => {
                        is_reset(Setting::Router6(name), forwarding)
                            || is_reset(Setting::ProxyNdp(name), proxy)
                            || (*unnamed && settings.contains(&Setting::ForceForwarding6(name)))
                    }
                    (None, Family::V4) => false,
                    (None, Family::V6) => *index == WHOLE_NODE && is_reset(Setting::Forwarding6, forwarding),
                }
            }
            Event::Address { index, net, present, .. } => {
                let link = self.name(*index).and_then(|name| self.links.get(name));
                // One that is not known yet tells of itself.
                link.is_some_and(|link| link.addresses.contains(net) != *present)
            }
            Event::Chains | Event::Lost => true,
            Event::Neighbour { index, address, mac } => {
                self.name(*index).is_some_and(|name| self.desired.neighbours.get(&(name, *address)) != mac.as_ref())
            }
            Event::Forwarding { index, mac, local, .. } if self.is_own_mac(*index, *mac) => !local,
            Event::Forwarding { index, mac, sticky, .. } => {
                let mut wanted = self.desired.forwarding.keys().filter(|(_, wanted)| wanted == mac).peekable();
                // An entry for a MAC that nobody here has is somebody else's.
                wanted.peek().is_some() && {
                    let port = self.name(*index);
                    let is_here = wanted.any(|(wanted, _)| Some(*wanted) == port);
                    if *sticky { port.is_some() && !is_here } else { is_here }
                }
            }
            Event::Route { net, index, via, present, ours } => {
                let wanted = self.desired.routes.get(net);
                let is_wanted = wanted.is_some_and(|wanted| {
                    wanted.via == *via && self.links.get(wanted.device).is_some_and(|link| link.index == *index)
                });
                if *ours { is_wanted != *present } else { wanted.is_some() && !(is_wanted && *present) }
            }
            // Later, with numbers that wrap around.
            Event::Filter { generation, .. } => (1..1 << 31).contains(&generation.wrapping_sub(self.generation)),
        }
    }

    /// Whether an entry is about the MAC of a bridge that has to know it. The entry may be at a port with the same MAC.
    fn is_own_mac(&self, index: u32, mac: MacAddr) -> bool {
        let link = self.name(index).and_then(|name| Some((name, self.links.get(name)?)));
        link.is_some_and(|(name, link)| {
            let bridge = link.master.unwrap_or(name);
            let known = self.links.get(bridge).is_some_and(|bridge| bridge.mac == Some(mac));
            known && self.desired.own_entries.contains(&bridge)
        })
    }

    fn name(&self, index: u32) -> Option<IfName> {
        self.links.0.iter().find(|(_, link)| link.index == index).map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::plan::{Route, Support};

    fn settings(family: Family, index: u32, [forwarding, proxy]: [Option<u32>; 2], unnamed: bool) -> Event {
        Event::Settings { family, index, forwarding, proxy, unnamed }
    }

    #[test]
    fn only_what_contradicts_matters() {
        let (bridge, tap): (IfName, IfName) = ("vmbr0".parse().unwrap(), "tap100i0".parse().unwrap());
        let (mac, other): (MacAddr, MacAddr) =
            ("02:00:00:00:00:01".parse().unwrap(), "02:00:00:00:00:02".parse().unwrap());
        let address: IpAddr = "203.0.113.10".parse().unwrap();
        let link = |index, master| Link {
            index,
            master,
            addresses: vec!["203.0.113.1/24".parse().unwrap()],
            ..Link::default()
        };
        let gateway: IpAddr = "169.254.0.1".parse().unwrap();
        let way = |device| DefaultRoute { device, via: Some(gateway), metric: 0, family: Family::V4 };
        let exits = Exits { routes: vec![way(bridge)], ..Exits::default() };
        let own_mac: MacAddr = "02:00:00:00:00:09".parse().unwrap();
        let own_link = Link { mac: Some(own_mac), ..link(2, None) };
        let links = Links(BTreeMap::from([(bridge, own_link), (tap, link(3, Some(bridge)))]));
        let desired = NetState {
            own_entries: BTreeSet::from([bridge]),
            forwarding: BTreeMap::from([((tap, mac), BTreeSet::new())]),
            neighbours: BTreeMap::from([((bridge, address), mac)]),
            routes: BTreeMap::from([(address.into(), Route { device: bridge, via: None })]),
            support: Support {
                settings: BTreeSet::from([
                    Setting::Forwarding4(bridge),
                    Setting::Forwarding6,
                    Setting::ForceForwarding6(bridge),
                    Setting::ProxyNdp(bridge),
                ]),
                gateways: BTreeSet::from([(bridge, gateway)]),
                ..Support::default()
            },
            ..NetState::default()
        };
        let known = LastLook { desired: &desired, links: &links, exits: Some(&exits), generation: u32::MAX };
        let matters = |event| known.is_contradicted_by(&event);

        let seen = |master| Event::Link(tap, Link { index: 3, master, ..Link::default() });
        assert!(!matters(seen(Some(bridge))), "as it was; an event does not tell the addresses");
        assert!(matters(seen(None)), "unplugged");
        assert!(matters(Event::Link("tap101i0".parse().unwrap(), Link::default())), "new");
        assert!(matters(Event::LinkGone(tap)));
        assert!(!matters(Event::LinkGone("tap101i0".parse().unwrap())), "never known");

        let own = |net: &str, present| Event::Address { index: 2, net: net.parse().unwrap(), ours: false, present };
        assert!(!matters(own("203.0.113.1/24", true)), "told again");
        assert!(matters(own("203.0.113.1/24", false)));
        assert!(matters(own("203.0.113.2/24", true)));

        let ours = |index, present| Event::Address { index, net: gateway.into(), ours: true, present };
        assert!(!matters(ours(2, true)));
        assert!(matters(ours(2, false)), "the guests' gateway has gone");
        assert!(matters(ours(3, true)), "on another interface");

        let default = |device, present| Event::DefaultRoute { route: way(device), present };
        assert!(!matters(default(bridge, true)));
        assert!(matters(default(bridge, false)));
        assert!(matters(default(tap, true)));
        let nobody = LastLook { exits: None, ..known };
        assert!(!nobody.is_contradicted_by(&default(tap, true)), "there is no routed pool");

        let set = |family, index, forwarding, proxy| settings(family, index, [forwarding, proxy], false);
        let unnamed = |index| settings(Family::V6, index, [None, None], true);
        assert!(matters(unnamed(2)));
        assert!(!matters(unnamed(3)), "nobody needs it there");
        assert!(matters(set(Family::V4, 2, Some(0), None)));
        assert!(!matters(set(Family::V4, 2, Some(1), None)));
        assert!(!matters(set(Family::V4, 3, Some(0), None)), "nobody needs it there");
        assert!(!matters(set(Family::V4, WHOLE_NODE, Some(0), None)), "each interface is told of by itself");
        assert!(matters(set(Family::V6, WHOLE_NODE, Some(0), None)));
        assert!(!matters(set(Family::V6, 2, Some(0), None)), "not asked for");
        assert!(matters(set(Family::V6, 2, None, Some(0))));
        let both = vec![set(Family::V6, 2, None, Some(0)), set(Family::V6, 2, Some(1), None)];
        assert_eq!(latest(both.clone()), both, "two settings of one interface");

        let neighbour = |index, mac| Event::Neighbour { index, address, mac };
        assert!(!matters(neighbour(2, Some(mac))));
        assert!(matters(neighbour(2, Some(other))));
        assert!(matters(neighbour(2, None)));
        assert!(matters(neighbour(3, Some(mac))), "on another interface");
        assert!(!matters(neighbour(9, None)), "its interface is gone, and said so itself");

        let forwarding = |index, mac, sticky| Event::Forwarding { index, mac, sticky, local: false };
        assert!(!matters(forwarding(3, mac, true)), "our own");
        assert!(!matters(forwarding(2, other, false)), "learnt");
        assert!(!matters(forwarding(2, mac, false)), "forgotten elsewhere");
        assert!(matters(forwarding(3, mac, false)));
        assert!(matters(forwarding(2, mac, true)), "pinned to another port");
        assert!(!matters(forwarding(3, other, true)), "somebody else's");

        let own = |index, mac, local| Event::Forwarding { index, mac, sticky: false, local };
        assert!(matters(own(2, own_mac, false)), "the bridge does not know its own MAC any more");
        assert!(matters(own(3, own_mac, false)), "where it was the MAC of a port, too; or it was learnt there");
        assert!(!matters(own(2, own_mac, true)), "it is there");
        assert!(!matters(own(3, other, false)) && !matters(own(9, own_mac, false)), "somebody else's");

        let route = |index, present| Event::Route { net: address.into(), index, via: None, present, ours: true };
        assert!(!matters(route(2, true)));
        assert!(matters(route(2, false)));
        assert!(matters(route(3, true)), "to another interface");
        let stray =
            Event::Route { net: "198.51.100.1/32".parse().unwrap(), index: 2, via: None, present: false, ours: true };
        assert!(!matters(stray), "not wanted, and not there");
        let filter = |generation| Event::Filter { generation, by: String::new() };
        assert!(!matters(filter(u32::MAX)));
        assert!(!matters(filter(u32::MAX - 5)), "before the last look");
        assert!(matters(filter(3)), "numbers wrap around");
        assert!(matters(Event::Lost));

        let replaced = vec![forwarding(3, mac, false), route(2, false), forwarding(3, mac, true), route(2, true)];
        assert_eq!(latest(replaced), [forwarding(3, mac, true), route(2, true)]);
    }

    #[test]
    fn what_others_make_matters_where_ours_is_wanted() {
        let bridge: IfName = "vmbr0".parse().unwrap();
        let address: IpAddr = "203.0.113.10".parse().unwrap();
        let link = Link { index: 2, ..Link::default() };
        let links = Links(BTreeMap::from([(bridge, link)]));
        let desired = NetState {
            routes: BTreeMap::from([(address.into(), Route { device: bridge, via: None })]),
            ..NetState::default()
        };
        let known = LastLook { desired: &desired, links: &links, exits: None, generation: 0 };
        let matters = |event| known.is_contradicted_by(&event);
        let foreign = |net: &str, index, present| {
            matters(Event::Route { net: net.parse().unwrap(), index, via: None, present, ours: false })
        };
        assert!(!foreign("203.0.113.10/32", 2, true), "as wanted, by somebody else");
        assert!(foreign("203.0.113.10/32", 2, false), "it has gone: ours is wanted now");
        assert!(foreign("203.0.113.10/32", 3, true), "it is in the way");
        assert!(foreign("203.0.113.10/32", 3, false), "it is in the way no more");
        assert!(!foreign("198.51.100.1/32", 3, true) && !foreign("198.51.100.1/32", 3, false), "nobody's business");
    }
}
