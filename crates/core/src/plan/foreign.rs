//! State that somebody else made where ours is wanted: what is right already is right, whoever made it; what differs
//! stands in the way of one guest, and is never removed by us. Where nobody can look nothing is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::course::Refusal;
use super::diff::Step;
use super::state::{NetState, Route};
use crate::links::Links;
use crate::model::{IfName, MacAddr};
use crate::ruleset::IptablesTable;

/// A route to one destination in the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// It carries our mark.
    pub ours: bool,
    /// The lower the better.
    pub metric: u32,
    /// What `ip` calls a route that leads nowhere (`blackhole`); empty for one that leads somewhere.
    pub kind: &'static str,
    /// The interface; none if there is none, or several.
    pub device: Option<IfName>,
    /// The next hop.
    pub via: Option<IpAddr>,
}

/// What becomes of what is for a destination, by a rule of the node that is evaluated before the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bypass {
    /// Where it has to come in for that; `None`: anywhere.
    pub from: Option<IfName>,
    /// The interface by which it leaves; `None`: it does not leave.
    pub device: Option<IfName>,
    /// A priority that is evaluated before all rules of that kind.
    pub before: u32,
}

/// What was found where something of ours is wanted, and does not carry our mark.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreign {
    /// Permanent neighbours.
    pub neighbours: BTreeMap<(IfName, IpAddr), MacAddr>,
    /// Proxy entries.
    pub proxies: BTreeSet<(IfName, IpAddr)>,
    /// All routes to a destination, ours too, in the kernel's order.
    pub routes: BTreeMap<IpNet, Vec<Way>>,
    /// Destinations that a rule of the node leads past the main table, and where to.
    pub bypassed: BTreeMap<IpNet, Bypass>,
    /// Interfaces on which something of IPv6 is wanted, and on which IPv6 is switched off.
    pub without_ipv6: BTreeSet<IfName>,
    /// Tables of iptables that could not be read, and why: nobody knows what of ours is in them.
    pub unread_chains: BTreeMap<IptablesTable, Refusal>,
    /// Why the sets of ipset could not be read, if so.
    pub unread_sets: Option<Refusal>,
}

/// What keeps steps from being carried out, and is known before.
#[derive(Debug, Clone, Default)]
pub struct Obstacles {
    gateways: BTreeMap<(IfName, IpAddr), Refusal>,
    neighbours: BTreeMap<(IfName, IpAddr), Refusal>,
    routes: BTreeMap<IpNet, Refusal>,
    chains: BTreeMap<IptablesTable, Refusal>,
    sets: Option<Refusal>,
}

impl Obstacles {
    /// What stands in the way of a step.
    pub fn of(&self, step: &Step) -> Option<&Refusal> {
        match step {
            Step::SetGateway(on, address) => self.gateways.get(&(*on, *address)),
            Step::SetNeighbour(on, address, _) => self.neighbours.get(&(*on, *address)),
            Step::SetRoute(net, _) => self.routes.get(net),
            Step::LoadChains { place, .. } => self.chains.get(place),
            Step::ChangeIpSet { .. } | Step::RemoveIpSet(_) => self.sets.as_ref(),
            _ => None,
        }
    }

    /// What could not be read, whether a step needs it or not.
    pub fn unread(&self) -> Vec<&Refusal> {
        let mut unread: Vec<&Refusal> = self.chains.values().chain(&self.sets).collect();
        unread.dedup();
        unread
    }
}

/// The metric that ours gets: IPv6 knows no 0. Source: Linux `include/uapi/linux/ipv6_route.h`, `IP6_RT_PRIO_USER`.
fn own_metric(net: &IpNet) -> u32 {
    if net.addr().is_ipv4() { 0 } else { 1024 }
}

impl Way {
    fn leads_as(&self, wanted: &Route) -> bool {
        self.kind.is_empty() && self.device == Some(wanted.device) && self.via == wanted.via
    }

    /// Behind the destination, as `ip` takes it.
    fn tail(&self, net: &IpNet) -> String {
        let via = self.via.map(|via| format!(" via {via}")).unwrap_or_default();
        let device = self.device.map(|device| format!(" dev {device}")).unwrap_or_default();
        let metric = if self.metric == own_metric(net) { String::new() } else { format!(" metric {}", self.metric) };
        format!("{via}{device}{metric}")
    }
}

/// A route as `ip` takes it.
struct Shown<'a>(&'a IpNet, &'a Way);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(net, way) = self;
        let kind = if way.kind.is_empty() { String::new() } else { format!("{} ", way.kind) };
        write!(f, "{kind}{net}{}", way.tail(net))
    }
}

/// What of the routes to a destination decides.
#[derive(Debug, PartialEq, Eq)]
pub enum Decided {
    /// It leads where it should, by whomever.
    AsWanted,
    /// Ours is to be set.
    Open,
    /// Somebody else's leads elsewhere, and goes before ours.
    Blocked(Refusal),
}

/// Which route to a destination decides; `ways` in the kernel's order.
pub fn decide(net: &IpNet, wanted: &Route, ways: &[Way]) -> Decided {
    let Some(best) = ways.iter().min_by_key(|way| way.metric) else { return Decided::Open };
    if best.leads_as(wanted) {
        return Decided::AsWanted;
    }
    if best.ours || best.metric > own_metric(net) {
        return Decided::Open;
    }
    let family = if net.addr().is_ipv4() { "" } else { "-6 " };
    Decided::Blocked(Refusal {
        sentence: format!(
            "{net} has a route that this program did not make (`{}`), so that it does not lead to {}",
            Shown(net, best),
            wanted.device
        ),
        hint: format!(
            "`ip {family}route del {} && pve-public-ip apply`; is it in /etc/network/interfaces, too?",
            Shown(net, best)
        ),
    })
}

/// Why nothing can be routed to an interface that is down.
pub fn interface_down(device: IfName) -> Refusal {
    Refusal {
        sentence: format!("{device} is down, so that nothing can be routed to it"),
        hint: format!("`ip link set {device} up && pve-public-ip apply`"),
    }
}

/// Why an interface takes nothing of IPv6: no neighbour, no address, no route.
pub fn without_ipv6(device: IfName) -> Refusal {
    Refusal {
        sentence: format!("IPv6 is switched off on {device}, so that no IPv6 address can be routed to it"),
        hint: format!("`sysctl -w net/ipv6/conf/{device}/disable_ipv6=0 && pve-public-ip apply`"),
    }
}

/// Why the route to a destination does not count.
fn bypassed(net: &IpNet, wanted: &Route, bypass: &Bypass) -> Refusal {
    let family = if net.addr().is_ipv4() { "" } else { "-6 " };
    let from = bypass.from.map(|from| format!(" and comes in by {from}")).unwrap_or_default();
    let to = bypass.device.map_or_else(|| "is not delivered".to_owned(), |device| format!("leaves by {device}"));
    Refusal {
        sentence: format!(
            "what is for {net}{from} {to}, because a rule of policy routing goes before its route to {}",
            wanted.device
        ),
        hint: format!("`ip {family}rule add to {net} lookup main pref {} && pve-public-ip apply`", bypass.before),
    }
}

/// Why somebody else's permanent neighbour stands in the way.
pub fn foreign_neighbour(on: IfName, address: IpAddr, wanted: MacAddr, found: MacAddr) -> Refusal {
    Refusal {
        sentence: format!(
            "{address} has a permanent neighbour on {on} that this program did not make: {found}, and not {wanted}"
        ),
        hint: format!(
            "`ip neigh del {address} dev {on} && pve-public-ip apply`; is it in /etc/network/interfaces, too?"
        ),
    }
}

/// Takes what somebody else made into what was found, as far as it is as wanted; the rest is in the way.
pub fn settle(desired: &NetState, observed: &mut NetState, foreign: &Foreign, links: &Links) -> Obstacles {
    let (chains, sets) = (foreign.unread_chains.clone(), foreign.unread_sets.clone());
    let mut obstacles = Obstacles { chains, sets, ..Obstacles::default() };
    for ((on, address), found) in &foreign.neighbours {
        let Some(wanted) = desired.neighbours.get(&(*on, *address)) else { continue };
        if found == wanted {
            observed.neighbours.insert((*on, *address), *found);
        } else {
            let refusal = foreign_neighbour(*on, *address, *wanted, *found);
            obstacles.neighbours.insert((*on, *address), refusal);
        }
    }
    let wanted = |proxy: &&(IfName, IpAddr)| desired.support.proxies.contains(*proxy);
    observed.support.proxies.extend(foreign.proxies.iter().filter(wanted));
    for (net, ways) in &foreign.routes {
        let Some(wanted) = desired.routes.get(net) else { continue };
        match decide(net, wanted, ways) {
            Decided::AsWanted => drop(observed.routes.insert(*net, *wanted)),
            Decided::Open => {}
            Decided::Blocked(refusal) => {
                // Ours may be there and not count.
                observed.routes.remove(net);
                obstacles.routes.insert(*net, refusal);
            }
        }
    }
    for (net, bypass) in &foreign.bypassed {
        let Some(wanted) = desired.routes.get(net) else { continue };
        observed.routes.remove(net);
        obstacles.routes.entry(*net).or_insert_with(|| bypassed(net, wanted, bypass));
    }
    let is_off = |on: IfName, address: IpAddr| address.is_ipv6() && foreign.without_ipv6.contains(&on);
    let off = desired.neighbours.keys().filter(|(on, address)| is_off(*on, *address));
    for (on, address) in off {
        obstacles.neighbours.entry((*on, *address)).or_insert_with(|| without_ipv6(*on));
    }
    let off = desired.support.gateways.iter().filter(|(on, address)| is_off(*on, *address));
    obstacles.gateways.extend(off.map(|(on, address)| ((*on, *address), without_ipv6(*on))));
    for (net, wanted) in desired.routes.iter().filter(|(net, wanted)| observed.routes.get(*net) != Some(*wanted)) {
        let device = wanted.device;
        let reason = if links.get(device).is_some_and(|link| !link.up) {
            interface_down(device)
        } else if is_off(device, net.addr()) {
            without_ipv6(device)
        } else {
            continue;
        };
        obstacles.routes.entry(*net).or_insert(reason);
    }
    obstacles
}
