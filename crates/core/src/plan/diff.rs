//! What to do to get from one state to another, and in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::state::{NetState, Route, Rules, Setting};
use crate::model::{Family, IfName, MacAddr};
use crate::ruleset::{Chains, Element, IpSetName, IptablesTable, Table};

/// One change. Every step is idempotent: `Set` creates or replaces, `Remove` of what is absent is fine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Stop routing an address to the bridge.
    RemoveRoute(IpNet),
    /// Answer no more for an address.
    RemoveProxy(IfName, IpAddr),
    /// Forget a permanent neighbour.
    RemoveNeighbour(IfName, IpAddr),
    /// Take the guests' gateway off the bridge.
    RemoveGateway(IfName, IpAddr),
    /// Put a kernel setting back to what it was.
    RestoreSetting(Setting),
    /// Let the bridge learn a MAC again.
    RemoveForwarding(IfName, MacAddr),
    /// Create a table and its sets.
    DeclareSets(Table),
    /// Change members of the sets, all in one transaction.
    ChangeElements {
        /// New members.
        add: Vec<Element>,
        /// Members that go.
        remove: Vec<Element>,
    },
    /// Change a set of `ipset`.
    ChangeIpSet {
        /// Which.
        set: IpSetName,
        /// Whether it is new.
        create: bool,
        /// New members.
        add: BTreeSet<String>,
        /// Members that go, after the new ones have come.
        remove: BTreeSet<String>,
    },
    /// Make the chains of a table of iptables what is wanted, in one transaction.
    LoadChains {
        /// Where.
        place: IptablesTable,
        /// What should be.
        wanted: Chains,
        /// What is there.
        found: Chains,
    },
    /// Remove a set of `ipset` that no chain names any more.
    RemoveIpSet(IpSetName),
    /// Replace a table's rules in one transaction; the sets stay as they are.
    LoadRules(Table),
    /// Remove a table that is not needed any more.
    RemoveTable(Table),
    /// Stop a bridge from learning from link-local frames.
    SetDeafBridge(IfName),
    /// Pass what a port takes in for the groups of the bridge itself by the filter.
    ScreenPort(IfName),
    /// Make the MAC that a bridge has its own. Linux forgets the neighbours there; the permanent ones are put back.
    FixMac(IfName),
    /// Let a bridge know its own MAC as local, in each of its VLANs.
    SetOwnEntry(IfName),
    /// Pin a MAC to its port, for untagged frames and in these VLANs.
    SetForwarding(IfName, MacAddr, BTreeSet<u16>),
    /// Change a kernel setting.
    ChangeSetting(Setting),
    /// Put the guests' gateway on the bridge.
    SetGateway(IfName, IpAddr),
    /// Set a permanent neighbour.
    SetNeighbour(IfName, IpAddr, MacAddr),
    /// Answer for an address.
    SetProxy(IfName, IpAddr),
    /// Route an address or prefix to the bridge.
    SetRoute(IpNet, Route),
}

/// Walks desired and observed, so that what a deleted guest left behind goes too.
///
/// Close before open: what leads traffic to an address goes first and comes last, its filter stands in between. New
/// elements enter before the rules are loaded, so that rules never stand over empty sets.
pub fn diff(desired: &NetState, observed: &NetState) -> Vec<Step> {
    let mut steps = Vec::new();
    let surplus = observed.support.without(&desired.support);
    let lacking = desired.support.without(&observed.support);
    steps.extend(gone(&desired.routes, &observed.routes).map(|(net, _)| Step::RemoveRoute(*net)));
    steps.extend(surplus.proxies.iter().map(|(on, ip)| Step::RemoveProxy(*on, *ip)));
    steps.extend(gone(&desired.neighbours, &observed.neighbours).map(|((on, ip), _)| Step::RemoveNeighbour(*on, *ip)));
    steps.extend(surplus.gateways.iter().map(|(on, ip)| Step::RemoveGateway(*on, *ip)));
    // In the reverse order, because they depend on each other.
    steps.extend(surplus.settings.iter().rev().map(|setting| Step::RestoreSetting(*setting)));
    let unpinned = gone(&desired.forwarding, &observed.forwarding);
    steps.extend(unpinned.map(|((port, mac), _)| Step::RemoveForwarding(*port, *mac)));

    let rules = Table::ALL.map(|table| (table, desired.rules_of(table), observed.rules_of(table)));
    let declare = rules.iter().filter(|(_, wanted, found)| *wanted > Rules::Absent && *found == Rules::Absent);
    steps.extend(declare.map(|(table, ..)| Step::DeclareSets(*table)));
    let add: Vec<_> = missing(&desired.elements, &observed.elements);
    let mut remove: Vec<_> = missing(&observed.elements, &desired.elements);
    // They go with their table.
    remove.retain(|element| desired.rules_of(element.set().table()) > Rules::Absent);
    if !add.is_empty() || !remove.is_empty() {
        steps.push(Step::ChangeElements { add, remove });
    }
    steps
        .extend(desired.ipsets.iter().filter_map(|(set, members)| change_set(*set, members, observed.ipsets.get(set))));
    let load = rules.iter().filter(|(_, wanted, found)| *wanted == Rules::Loaded && *found < Rules::Loaded);
    steps.extend(load.map(|(table, ..)| Step::LoadRules(*table)));
    let none = Chains::default();
    steps.extend(news(&desired.chains, &observed.chains).map(|(place, wanted)| Step::LoadChains {
        place: *place,
        wanted: wanted.clone(),
        found: observed.chains.get(place).unwrap_or(&none).clone(),
    }));
    // What filters in another way goes when its successor stands.
    steps.extend(gone(&desired.chains, &observed.chains).map(|(place, found)| Step::LoadChains {
        place: *place,
        wanted: Chains::default(),
        found: found.clone(),
    }));
    steps.extend(gone(&desired.ipsets, &observed.ipsets).map(|(set, _)| Step::RemoveIpSet(*set)));
    let end = rules.iter().filter(|(_, wanted, found)| *wanted == Rules::Absent && *found > Rules::Absent);
    steps.extend(end.map(|(table, ..)| Step::RemoveTable(*table)));

    steps.extend(desired.deaf_bridges.difference(&observed.deaf_bridges).map(|bridge| Step::SetDeafBridge(*bridge)));
    steps.extend(desired.screened_ports.difference(&observed.screened_ports).map(|port| Step::ScreenPort(*port)));
    steps.extend(desired.fixed_macs.difference(&observed.fixed_macs).map(|bridge| Step::FixMac(*bridge)));
    steps.extend(desired.own_entries.difference(&observed.own_entries).map(|bridge| Step::SetOwnEntry(*bridge)));
    let pinned = news(&desired.forwarding, &observed.forwarding);
    steps.extend(pinned.map(|((port, mac), vlans)| Step::SetForwarding(*port, *mac, vlans.clone())));
    steps.extend(lacking.settings.iter().map(|setting| Step::ChangeSetting(*setting)));
    steps.extend(lacking.gateways.iter().map(|(on, ip)| Step::SetGateway(*on, *ip)));
    // With the last IPv4 address of an interface the kernel drops its IPv4 neighbours and routes, whoever needs them.
    let emptied = |on: IfName, family| {
        let mut gone = surplus.gateways.iter();
        family == Family::V4 && gone.any(|(from, ip)| *from == on && ip.is_ipv4())
    };
    let lost = desired.neighbours.iter().filter(|((on, ip), _)| emptied(*on, Family::of(*ip)));
    let neighbours: BTreeMap<_, _> = news(&desired.neighbours, &observed.neighbours).chain(lost).collect();
    steps.extend(neighbours.into_iter().map(|((on, ip), mac)| Step::SetNeighbour(*on, *ip, *mac)));
    let lost = desired.routes.iter().filter(|(net, route)| emptied(route.device, Family::of_net(**net)));
    let routes: BTreeMap<_, _> = news(&desired.routes, &observed.routes).chain(lost).collect();
    steps.extend(routes.into_iter().map(|(net, route)| Step::SetRoute(*net, *route)));
    // Last, because the provider sends as soon as somebody answers.
    steps.extend(lacking.proxies.iter().map(|(on, ip)| Step::SetProxy(*on, *ip)));
    steps
}

fn change_set(set: IpSetName, wanted: &BTreeSet<String>, found: Option<&BTreeSet<String>>) -> Option<Step> {
    let none = BTreeSet::new();
    let there = found.unwrap_or(&none);
    let add: BTreeSet<String> = wanted.difference(there).cloned().collect();
    let remove: BTreeSet<String> = there.difference(wanted).cloned().collect();
    let is_change = found.is_none() || !add.is_empty() || !remove.is_empty();
    is_change.then_some(Step::ChangeIpSet { set, create: found.is_none(), add, remove })
}

fn missing(of: &BTreeSet<Element>, from: &BTreeSet<Element>) -> Vec<Element> {
    of.difference(from).cloned().collect()
}

fn gone<'a, K: Ord, V>(want: &BTreeMap<K, V>, have: &'a BTreeMap<K, V>) -> impl Iterator<Item = (&'a K, &'a V)> {
    have.iter().filter(|(key, _)| !want.contains_key(key))
}

fn news<'a, K: Ord, V: PartialEq>(
    want: &'a BTreeMap<K, V>,
    have: &BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    want.iter().filter(|(key, value)| have.get(key) != Some(value))
}

/// What is wrong with a bridge.
const LEARNS_LINK_LOCAL: &str =
    "learns from link-local frames: a guest can divert traffic by an LLDP frame with a foreign MAC";
const LETS_IN: &str = "takes frames to 01:80:c2:00:00:0e for the node's own: its guest can give the node a default route, or, with \
     spanning tree, become the root bridge";
const HAS_NO_MAC: &str =
    "has no MAC of its own: the start of any guest may change it, and the node forgets its neighbours there";
const LOSES_THE_NODE: &str = "does not know its own MAC as local: what guests send to the node does not arrive";

impl Step {
    /// Applies the step to a state in memory, as the kernel would. The specification of what a step means.
    pub fn apply_to(&self, state: &mut NetState) {
        match self {
            Self::RemoveRoute(net) => drop(state.routes.remove(net)),
            Self::RemoveProxy(on, ip) => drop(state.support.proxies.remove(&(*on, *ip))),
            Self::RemoveNeighbour(on, ip) => drop(state.neighbours.remove(&(*on, *ip))),
            Self::RemoveGateway(on, ip) => drop(state.support.gateways.remove(&(*on, *ip))),
            Self::RestoreSetting(setting) => drop(state.support.settings.remove(setting)),
            Self::RemoveForwarding(port, mac) => drop(state.forwarding.remove(&(*port, *mac))),
            Self::DeclareSets(table) => {
                let rules = state.rules_of_mut(*table);
                *rules = (*rules).max(Rules::Different);
            }
            Self::ChangeElements { add, remove } => {
                state.elements.retain(|element| !remove.contains(element));
                state.elements.extend(add.iter().cloned());
            }
            Self::LoadRules(table) => *state.rules_of_mut(*table) = Rules::Loaded,
            Self::RemoveTable(table) => {
                *state.rules_of_mut(*table) = Rules::Absent;
                state.elements.retain(|element| element.set().table() != *table);
            }
            Self::ChangeIpSet { set, add, remove, .. } => {
                let members = state.ipsets.entry(*set).or_default();
                members.extend(add.iter().cloned());
                members.retain(|member| !remove.contains(member));
            }
            Self::LoadChains { place, wanted, .. } if wanted.is_empty() => drop(state.chains.remove(place)),
            Self::LoadChains { place, wanted, .. } => drop(state.chains.insert(*place, wanted.clone())),
            Self::RemoveIpSet(set) => drop(state.ipsets.remove(set)),
            Self::SetDeafBridge(bridge) => drop(state.deaf_bridges.insert(*bridge)),
            Self::ScreenPort(port) => drop(state.screened_ports.insert(*port)),
            Self::FixMac(bridge) => drop(state.fixed_macs.insert(*bridge)),
            Self::SetOwnEntry(bridge) => drop(state.own_entries.insert(*bridge)),
            Self::SetForwarding(port, mac, vlans) => drop(state.forwarding.insert((*port, *mac), vlans.clone())),
            Self::ChangeSetting(setting) => drop(state.support.settings.insert(*setting)),
            Self::SetGateway(on, ip) => drop(state.support.gateways.insert((*on, *ip))),
            Self::SetNeighbour(on, ip, mac) => drop(state.neighbours.insert((*on, *ip), *mac)),
            Self::SetProxy(on, ip) => drop(state.support.proxies.insert((*on, *ip))),
            Self::SetRoute(net, route) => drop(state.routes.insert(*net, *route)),
        }
    }

    /// Whether it is one transaction in nf_tables.
    pub fn is_transaction(&self) -> bool {
        matches!(self, Self::DeclareSets(_) | Self::ChangeElements { .. } | Self::LoadRules(_) | Self::RemoveTable(_))
    }

    /// Whether it changes iptables or ipset.
    pub fn is_of_chains(&self) -> bool {
        matches!(self, Self::ChangeIpSet { .. } | Self::LoadChains { .. } | Self::RemoveIpSet(_))
    }

    /// What drift of this kind means for the network: the step undoes it.
    pub fn meanings(&self) -> Vec<String> {
        match self {
            Self::RemoveRoute(net) => {
                vec![format!("{net} is routed to a bridge, although no guest here runs with it")]
            }
            Self::RemoveProxy(on, ip) => {
                vec![format!("the node answers for {ip} on {on}, although no guest here runs with it")]
            }
            Self::RemoveNeighbour(on, ip) => {
                vec![format!("{ip} has a permanent neighbour on {on}, although no guest here runs with it")]
            }
            Self::RemoveGateway(on, ip) => {
                vec![format!("the gateway {ip} is on {on}, although no guest here needs it")]
            }
            Self::RestoreSetting(setting) => {
                vec![format!("{} was changed for routed guests, of which none needs it now", setting.path())]
            }
            Self::RemoveForwarding(port, mac) => {
                vec![format!("{mac} is pinned to {port}, although it is not bound there")]
            }
            Self::DeclareSets(Table::Inet) => {
                vec![format!(
                    "{} is missing or another release's: routed traffic has no second line behind the bridges",
                    Table::Inet
                )]
            }
            Self::RemoveTable(table) => vec![format!("{table} filters, although nothing needs it")],
            Self::DeclareSets(Table::Bridge) => {
                vec![
                    "the table is missing or another release's: nothing is protected on this node as it should be"
                        .to_owned(),
                ]
            }
            Self::ChangeElements { add, remove } => {
                let missing = add.iter().map(|element| format!("missing {}", element.meaning(true)));
                missing.chain(remove.iter().map(|element| format!("extra {}", element.meaning(false)))).collect()
            }
            Self::LoadRules(Table::Inet) => {
                vec![format!("the rules of {} are missing or were changed", Table::Inet)]
            }
            Self::LoadRules(Table::Bridge) => {
                vec!["the rules are missing or were changed: protection on this node is not proven".to_owned()]
            }
            Self::ChangeIpSet { set, create: true, .. } => vec![format!("the set {set} of ipset is missing")],
            Self::ChangeIpSet { set, add, remove, .. } => {
                let missing = add.iter().map(|member| format!("missing {member} in the set {set} of ipset"));
                missing.chain(remove.iter().map(|member| format!("extra {member} in the set {set} of ipset"))).collect()
            }
            Self::LoadChains { place, wanted, found } => wanted.meanings(found, *place),
            Self::RemoveIpSet(set) => vec![format!("the set {set} of ipset is there, although nothing needs it")],
            Self::SetDeafBridge(bridge) => vec![format!("{bridge} {LEARNS_LINK_LOCAL}")],
            Self::ScreenPort(port) => vec![format!("{port} {LETS_IN}")],
            Self::FixMac(bridge) => vec![format!("{bridge} {HAS_NO_MAC}")],
            Self::SetOwnEntry(bridge) => vec![format!("{bridge} {LOSES_THE_NODE}")],
            Self::SetForwarding(port, mac, _) => {
                vec![format!("{mac} is not pinned to {port}: the bridge may move it to another port")]
            }
            Self::ChangeSetting(setting) => {
                let (path, value) = (setting.path(), setting.value());
                let meaning = match setting {
                    Setting::AcceptRa(device) => {
                        format!("the node does not learn its IPv6 routes on {device} any more")
                    }
                    Setting::ArpIgnore(device) => {
                        format!(
                            "{device} answers for the gateway of the guest behind it, and loses what the guest sends"
                        )
                    }
                    Setting::Forwarding4(device) => format!(
                        "what comes in on {device} does not reach routed guests, or the world from them, by IPv4"
                    ),
                    Setting::Forwarding6 => "routed guests have no IPv6 beyond this node".to_owned(),
                    Setting::ForceForwarding6(device) => format!(
                        "what comes in on {device} does not reach routed guests, or the world from them, by IPv6"
                    ),
                    Setting::Router6(device) | Setting::ProxyNdp(device) => {
                        format!("nobody answers for routed guests' IPv6 addresses on {device}")
                    }
                    Setting::NeighbourLock(device) => {
                        format!(
                            "an address that guests on {device} hold in turn may stay with the one that has lost it"
                        )
                    }
                };
                vec![format!("{path} is not {value}: {meaning}")]
            }
            Self::SetGateway(on, ip) => {
                vec![format!("the gateway {ip} is not on {on}: routed guests reach nothing")]
            }
            Self::SetProxy(on, ip) => {
                vec![format!("the node does not answer for {ip} on {on}: the provider cannot deliver what is for it")]
            }
            Self::SetNeighbour(on, ip, mac) => {
                vec![format!("{ip} is not fixed to {mac} in the node's neighbour table on {on}: it can be poisoned")]
            }
            Self::SetRoute(net, route) => {
                vec![format!("{net} is not routed to {}: the guest gets no traffic", route.device)]
            }
        }
    }
}

/// How many elements of a large change are printed.
const SHOWN: usize = 40;

fn write_some(f: &mut fmt::Formatter<'_>, lines: Vec<String>, of_what: &str) -> fmt::Result {
    let more = lines.len().saturating_sub(SHOWN);
    f.write_str(&lines.into_iter().take(SHOWN).collect::<Vec<_>>().join("\n"))?;
    if more > 0 { write!(f, "\n  ... and {more} {of_what} more") } else { Ok(()) }
}

impl Step {
    /// What it is about, for lists that show the first steps of each kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RemoveRoute(_) => "routes to remove",
            Self::SetRoute(..) => "routes",
            Self::RemoveProxy(..) => "proxies to remove",
            Self::SetProxy(..) => "proxies",
            Self::RemoveNeighbour(..) => "neighbours to remove",
            Self::SetNeighbour(..) => "neighbours",
            Self::RemoveGateway(..) => "gateways to remove",
            Self::SetGateway(..) => "gateways",
            Self::RestoreSetting(_) => "settings to restore",
            Self::ChangeSetting(_) => "settings",
            Self::RemoveForwarding(..) => "forwarding entries to remove",
            Self::SetForwarding(..) | Self::SetOwnEntry(_) => "forwarding entries",
            Self::DeclareSets(_) | Self::RemoveTable(_) => "tables",
            Self::ChangeElements { .. } => "elements",
            Self::ChangeIpSet { .. } | Self::RemoveIpSet(_) => "ipsets",
            Self::LoadChains { .. } => "chains",
            Self::LoadRules(_) => "rules",
            Self::SetDeafBridge(_) | Self::FixMac(_) => "bridges",
            Self::ScreenPort(_) => "ports",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoveRoute(net) => write!(f, "- route {net}"),
            Self::RemoveProxy(on, ip) => write!(f, "- proxy {ip} dev {on}"),
            Self::RemoveNeighbour(on, ip) => write!(f, "- neighbour {ip} dev {on}"),
            Self::RemoveGateway(on, ip) => write!(f, "- gateway {ip} dev {on}"),
            Self::RestoreSetting(setting) => write!(f, "- {} {}", setting.path(), setting.value()),
            Self::RemoveForwarding(port, mac) => write!(f, "- forwarding entry {mac} dev {port}"),
            Self::DeclareSets(table) => write!(f, "+ {table} with its sets"),
            Self::ChangeElements { add, remove } => {
                let added = add.iter().map(|element| format!("+ {element}"));
                let lines = added.chain(remove.iter().map(|element| format!("- {element}"))).collect();
                write_some(f, lines, "elements")
            }
            Self::ChangeIpSet { set, create, add, remove } => {
                let new = create.then(|| format!("+ ipset {set}"));
                let added = add.iter().map(|member| format!("+ ipset {set} {member}"));
                let removed = remove.iter().map(|member| format!("- ipset {set} {member}"));
                write_some(f, new.into_iter().chain(added).chain(removed).collect(), "members")
            }
            Self::LoadChains { place, wanted, .. } if wanted.is_empty() => {
                write!(f, "- {place} {}", crate::ruleset::CHAIN)
            }
            Self::LoadChains { place, wanted, found } => {
                let old = |name: &String| found.rules.get(name).map(Vec::as_slice).unwrap_or_default();
                let jumps = wanted.jumps.iter().filter(|(hook, places)| found.jumps.get(*hook) != Some(places));
                let mut lines: Vec<String> =
                    jumps.map(|(hook, _)| format!("~ {place} -I {hook} 1 -j {}", crate::ruleset::CHAIN)).collect();
                for (name, rules) in &wanted.rules {
                    let new = rules.iter().filter(|rule| !old(name).contains(rule));
                    lines.extend(new.map(|rule| format!("+ {place} {name} {rule}")));
                    let gone = old(name).iter().filter(|rule| !rules.contains(rule));
                    lines.extend(gone.map(|rule| format!("- {place} {name} {rule}")));
                }
                if lines.is_empty() {
                    lines.push(format!("~ {place} {}", crate::ruleset::CHAIN));
                }
                write_some(f, lines, "rules")
            }
            Self::RemoveIpSet(set) => write!(f, "- ipset {set}"),
            Self::LoadRules(table) => write!(f, "~ rules of {table}"),
            Self::RemoveTable(table) => write!(f, "- {table}"),
            Self::SetDeafBridge(bridge) => write!(f, "~ {bridge} no_linklocal_learn 1"),
            Self::ScreenPort(port) => write!(f, "~ {port} group_fwd_mask 0xfffd"),
            Self::FixMac(bridge) => write!(f, "~ {bridge} keeps its MAC"),
            Self::SetOwnEntry(bridge) => write!(f, "+ local entry for the MAC of {bridge}"),
            Self::SetForwarding(port, mac, vlans) => {
                write!(f, "+ forwarding entry {mac} dev {port} static sticky")?;
                vlans.iter().try_for_each(|vlan| write!(f, ", vlan {vlan}"))
            }
            Self::ChangeSetting(setting) => write!(f, "+ {} {}", setting.path(), setting.value()),
            Self::SetGateway(on, ip) => write!(f, "+ gateway {ip} dev {on}"),
            Self::SetProxy(on, ip) => write!(f, "+ proxy {ip} dev {on}"),
            Self::SetNeighbour(on, ip, mac) => {
                write!(f, "+ neighbour {ip} lladdr {mac} dev {on} permanent")
            }
            Self::SetRoute(net, Route { device, via: None }) => {
                write!(f, "+ route {net} dev {device}")
            }
            Self::SetRoute(net, Route { device, via: Some(via) }) => {
                write!(f, "+ route {net} via {via} dev {device}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::Support;
    use crate::ruleset::{Routed, SetId, Variant};

    fn port() -> impl Strategy<Value = IfName> {
        (100u32..104, 0u8..2).prop_map(|(vmid, nic)| format!("tap{vmid}i{nic}").parse().unwrap())
    }

    fn mac() -> impl Strategy<Value = MacAddr> {
        (0u8..4).prop_map(|last| MacAddr::from_octets([2, 0, 0, 0, 0, last]))
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        (0u8..6).prop_map(|last| IpAddr::from([203, 0, 113, last]))
    }

    fn rules() -> impl Strategy<Value = Rules> {
        prop_oneof![Just(Rules::Absent), Just(Rules::Different), Just(Rules::Loaded)]
    }

    fn setting() -> impl Strategy<Value = Setting> {
        let device = || port();
        prop_oneof![
            device().prop_map(Setting::AcceptRa),
            device().prop_map(Setting::ArpIgnore),
            device().prop_map(Setting::Forwarding4),
            Just(Setting::Forwarding6),
            Just(Setting::ForceForwarding6("vmbr0".parse().unwrap())),
            device().prop_map(Setting::Router6),
            device().prop_map(Setting::ProxyNdp),
            device().prop_map(Setting::NeighbourLock),
        ]
    }

    prop_compose! {
        fn support()(
            settings in proptest::collection::btree_set(setting(), 0..4),
            gateways in proptest::collection::btree_set((port(), address()), 0..3),
            proxies in proptest::collection::btree_set((port(), address()), 0..3),
        ) -> Support {
            Support { settings, gateways, proxies }
        }
    }

    fn chains() -> impl Strategy<Value = (BTreeMap<IptablesTable, Chains>, BTreeMap<IpSetName, BTreeSet<String>>)> {
        let of = |addresses: BTreeSet<IpAddr>, variant, ipset| {
            let here: BTreeSet<IpNet> = addresses.into_iter().map(IpNet::from).collect();
            Routed { pools: here.clone(), here, ..Routed::default() }.chains(variant, ipset, true)
        };
        let addresses = proptest::collection::btree_set(address(), 0..4);
        let some = (addresses, prop_oneof![Just(Variant::Legacy), Just(Variant::Nft)], any::<bool>());
        prop_oneof![
            Just((BTreeMap::new(), BTreeMap::new())),
            some.prop_map(move |(all, variant, ipset)| of(all, variant, ipset))
        ]
    }

    prop_compose! {
        fn state()(
            rules in rules(),
            routed_rules in rules(),
            routed in proptest::collection::btree_set(address(), 0..4),
            (chains, ipsets) in chains(),
            elements in proptest::collection::btree_set((port(), mac()).prop_map(|(port, mac)| Element::port_mac(port, mac).remove(0)), 0..6),
            ports in proptest::collection::btree_set(port().prop_map(|port| Element::port(SetId::Ports, port)), 0..4),
            support in support(),
            forwarding in proptest::collection::btree_map((port(), mac()), proptest::collection::btree_set(1u16..4, 0..2), 0..4),
            fixed_macs in proptest::collection::btree_set(port(), 0..3),
            own_entries in proptest::collection::btree_set(port(), 0..3),
            neighbours in proptest::collection::btree_map((port(), address()), mac(), 0..4),
            routes in proptest::collection::btree_map(address().prop_map(IpNet::from), (port(), proptest::option::of(address())), 0..4),
        ) -> NetState {
            NetState {
                rules,
                routed_rules,
                // A table that is not there has no elements.
                elements: elements
                    .into_iter()
                    .chain(ports)
                    .filter(|_| rules > Rules::Absent)
                    .chain(routed.into_iter().filter(|_| routed_rules > Rules::Absent).flat_map(|ip| Element::routed_here(ip.into())))
                    .collect(),
                deaf_bridges: BTreeSet::new(),
                screened_ports: BTreeSet::new(),
                fixed_macs,
                own_entries,
                ipsets,
                chains,
                forwarding,
                support,
                neighbours,
                routes: routes.into_iter().map(|(net, (device, via))| (net, Route { device, via })).collect(),
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_to_do_between_equal_states(state in state()) {
            prop_assert_eq!(diff(&state, &state), vec![]);
        }

        #[test]
        fn the_steps_lead_to_the_desired_state(mut desired in state(), observed in state()) {
            desired.rules = Rules::Loaded;
            if desired.routed_rules > Rules::Absent {
                desired.routed_rules = Rules::Loaded;
            } // the program never wants less
            desired.fixed_macs.extend(&observed.fixed_macs);
            desired.own_entries.extend(&observed.own_entries); // nobody looks where it is not wanted
            let mut reached = observed.clone();
            for step in diff(&desired, &observed) {
                step.apply_to(&mut reached);
            }
            prop_assert_eq!(reached, desired);
        }
    }

    #[test]
    fn the_filter_stands_before_traffic_is_led_to_it_and_after_it_is_led_away() {
        let (port, mac) = ("tap100i0".parse().unwrap(), "02:00:00:00:00:01".parse().unwrap());
        let (bridge, address): (IfName, IpAddr) = ("vmbr0".parse().unwrap(), "203.0.113.10".parse().unwrap());
        let (uplink, gateway): (IfName, IpAddr) = ("eno1".parse().unwrap(), "169.254.0.1".parse().unwrap());
        let up = NetState {
            rules: Rules::Loaded,
            elements: BTreeSet::from([Element::port(SetId::Ports, port)]),
            deaf_bridges: BTreeSet::from([bridge]),
            fixed_macs: BTreeSet::from([bridge]),
            own_entries: BTreeSet::from([bridge]),
            forwarding: BTreeMap::from([((port, mac), BTreeSet::new())]),
            support: Support {
                settings: BTreeSet::from([
                    Setting::Forwarding6,
                    Setting::AcceptRa(uplink),
                    Setting::Forwarding4(bridge),
                ]),
                gateways: BTreeSet::from([(bridge, gateway)]),
                proxies: BTreeSet::from([(uplink, address)]),
            },
            neighbours: BTreeMap::from([((bridge, address), mac)]),
            routes: BTreeMap::from([(address.into(), Route { device: bridge, via: None })]),
            ..NetState::default()
        };
        let shown = |desired: &NetState, observed: &NetState| -> Vec<String> {
            diff(desired, observed).iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            shown(&up, &NetState::default()),
            [
                "+ table bridge pve-public-ip with its sets",
                "+ ports { tap100i0 }",
                "~ rules of table bridge pve-public-ip",
                "~ vmbr0 no_linklocal_learn 1",
                "~ vmbr0 keeps its MAC",
                "+ local entry for the MAC of vmbr0",
                "+ forwarding entry 02:00:00:00:00:01 dev tap100i0 static sticky",
                "+ net/ipv6/conf/eno1/accept_ra 2",
                "+ net/ipv4/conf/vmbr0/forwarding 1",
                "+ net/ipv6/conf/all/forwarding 1",
                "+ gateway 169.254.0.1 dev vmbr0",
                "+ neighbour 203.0.113.10 lladdr 02:00:00:00:00:01 dev vmbr0 permanent",
                "+ route 203.0.113.10/32 dev vmbr0",
                "+ proxy 203.0.113.10 dev eno1",
            ]
        );
        let down = NetState { rules: Rules::Loaded, ..NetState::default() };
        assert_eq!(
            shown(&down, &up),
            [
                "- route 203.0.113.10/32",
                "- proxy 203.0.113.10 dev eno1",
                "- neighbour 203.0.113.10 dev vmbr0",
                "- gateway 169.254.0.1 dev vmbr0",
                "- net/ipv6/conf/all/forwarding 1",
                "- net/ipv4/conf/vmbr0/forwarding 1",
                "- net/ipv6/conf/eno1/accept_ra 2",
                "- forwarding entry 02:00:00:00:00:01 dev tap100i0",
                "- ports { tap100i0 }",
            ]
        );
    }
}
