//! What the kernel says that has changed, and whether that matters.
//!
//! A change matters if it contradicts what is wanted or known. What this program or a hook of it has just done agrees
//! with both, so nobody wakes up for it.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::inputs::{BridgeOptions, Link, Links};
use super::state::NetState;
use crate::model::{IfName, MacAddr};

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
        /// It is there.
        present: bool,
    },
    /// A neighbour that carries our mark; no MAC: it has gone, or is no longer permanent.
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
    },
    /// A route that carries our mark.
    Route {
        /// Where to.
        net: IpNet,
        /// Number of the interface.
        index: u32,
        /// By way of.
        via: Option<IpAddr>,
        /// It is there.
        present: bool,
    },
    /// A transaction in nf_tables that touched our table.
    Filter {
        /// Its number.
        generation: u32,
        /// The program that did it.
        by: String,
    },
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
    Route(IpNet),
    Address(u32, IpNet),
    Filter,
    Lost,
}

impl Event {
    fn subject(&self) -> Subject {
        match self {
            Self::Link(name, _) | Self::LinkGone(name) => Subject::Link(*name),
            Self::Address { index, net, .. } => Subject::Address(*index, *net),
            Self::Neighbour { index, address, .. } => Subject::Neighbour(*index, *address),
            Self::Forwarding { index, mac, .. } => Subject::Forwarding(*index, *mac),
            Self::Route { net, .. } => Subject::Route(*net),
            Self::Filter { .. } => Subject::Filter,
            Self::Lost => Subject::Lost,
        }
    }
}

/// What events are compared with: the outcome of the last look.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// What should be.
    pub desired: &'a NetState,
    /// The interfaces.
    pub links: &'a Links,
    /// The number of the last transaction in nf_tables that has been looked at.
    pub generation: u32,
}

impl Known<'_> {
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
                    Link { bridge, ..known.clone() }
                };
                self.links.get(*name).is_none_or(|known| !as_left(known).is_alike(link))
            }
            Event::LinkGone(name) => self.links.get(*name).is_some(),
            Event::Address { index, net, present } => {
                let link = self.name(*index).and_then(|name| self.links.get(name));
                // One that is not known yet tells of itself.
                link.is_some_and(|link| link.addresses.contains(net) != *present)
            }
            Event::Lost => true,
            Event::Neighbour { index, address, mac } => {
                self.name(*index).is_some_and(|name| self.desired.neighbours.get(&(name, *address)) != mac.as_ref())
            }
            Event::Forwarding { index, mac, sticky } => {
                let mut wanted = self.desired.forwarding.iter().filter(|(_, wanted)| wanted == mac).peekable();
                match (wanted.peek().is_some(), sticky) {
                    // Learnt and forgotten all the time.
                    (false, false) => false,
                    (true, false) => {
                        let port = self.name(*index);
                        wanted.any(|(wanted, _)| Some(*wanted) == port)
                    }
                    (_, true) => {
                        let port = self.name(*index);
                        port.is_some() && wanted.all(|(wanted, _)| Some(*wanted) != port)
                    }
                }
            }
            Event::Route { net, index, via, present } => {
                let wanted = self.desired.routes.get(net);
                let is_wanted = wanted.is_some_and(|wanted| {
                    wanted.via == *via && self.links.get(wanted.device).is_some_and(|link| link.index == *index)
                });
                is_wanted != *present
            }
            // Later, with numbers that wrap around.
            Event::Filter { generation, .. } => (1..1 << 31).contains(&generation.wrapping_sub(self.generation)),
        }
    }

    fn name(&self, index: u32) -> Option<IfName> {
        self.links.0.iter().find(|(_, link)| link.index == index).map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::plan::Route;

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
        let links = Links(BTreeMap::from([(bridge, link(2, None)), (tap, link(3, Some(bridge)))]));
        let desired = NetState {
            forwarding: BTreeSet::from([(tap, mac)]),
            neighbours: BTreeMap::from([((bridge, address), mac)]),
            routes: BTreeMap::from([(address.into(), Route { device: bridge, via: None })]),
            ..NetState::default()
        };
        let known = Known { desired: &desired, links: &links, generation: u32::MAX };
        let matters = |event| known.is_contradicted_by(&event);

        let seen = |master| Event::Link(tap, Link { index: 3, master, ..Link::default() });
        assert!(!matters(seen(Some(bridge))), "as it was; an event does not tell the addresses");
        assert!(matters(seen(None)), "unplugged");
        assert!(matters(Event::Link("tap101i0".parse().unwrap(), Link::default())), "new");
        assert!(matters(Event::LinkGone(tap)));
        assert!(!matters(Event::LinkGone("tap101i0".parse().unwrap())), "never known");

        let own = |net: &str, present| Event::Address { index: 2, net: net.parse().unwrap(), present };
        assert!(!matters(own("203.0.113.1/24", true)), "told again");
        assert!(matters(own("203.0.113.1/24", false)));
        assert!(matters(own("203.0.113.2/24", true)));

        let neighbour = |index, mac| Event::Neighbour { index, address, mac };
        assert!(!matters(neighbour(2, Some(mac))));
        assert!(matters(neighbour(2, Some(other))));
        assert!(matters(neighbour(2, None)));
        assert!(matters(neighbour(3, Some(mac))), "on another interface");
        assert!(!matters(neighbour(9, None)), "its interface is gone, and said so itself");

        let forwarding = |index, mac, sticky| Event::Forwarding { index, mac, sticky };
        assert!(!matters(forwarding(3, mac, true)), "our own");
        assert!(!matters(forwarding(2, other, false)), "learnt");
        assert!(!matters(forwarding(2, mac, false)), "forgotten elsewhere");
        assert!(matters(forwarding(3, mac, false)));
        assert!(matters(forwarding(2, mac, true)), "pinned to another port");
        assert!(matters(forwarding(3, other, true)), "pinned, although nobody has it");

        let route = |index, present| Event::Route { net: address.into(), index, via: None, present };
        assert!(!matters(route(2, true)));
        assert!(matters(route(2, false)));
        assert!(matters(route(3, true)), "to another interface");
        let stray = Event::Route { net: "198.51.100.1/32".parse().unwrap(), index: 2, via: None, present: false };
        assert!(!matters(stray), "not wanted, and not there");

        let filter = |generation| Event::Filter { generation, by: String::new() };
        assert!(!matters(filter(u32::MAX)));
        assert!(!matters(filter(u32::MAX - 5)), "before the last look");
        assert!(matters(filter(3)), "numbers wrap around");
        assert!(matters(Event::Lost));

        let replaced = vec![forwarding(3, mac, false), route(2, false), forwarding(3, mac, true), route(2, true)];
        assert_eq!(latest(replaced), [forwarding(3, mac, true), route(2, true)]);
    }
}
