//! What a plan costs, in numbers of this very network.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

use super::document::{Rule, Selector, Service, Subnet, Weight};
use super::{Flow, Network};
use crate::model::Vmid;

/// Where nobody has a subnet of the plan.
pub(super) const INTERNET: &str = "internet";

/// Who is where: subnets, and for each of them the applications that have a guest there.
fn ends<'a>(
    network: &'a Network,
    places: &BTreeMap<Vmid, &'a str>,
    end: &Selector,
) -> BTreeSet<(&'a str, Option<&'a str>)> {
    if *end == Selector::Internet {
        return BTreeSet::from([(INTERNET, None)]);
    }
    let is_meant = |vmid: &Vmid| {
        let labels = &network.members[vmid].labels;
        match end {
            Selector::Any => true,
            Selector::Internet => false,
            Selector::Guest(wanted) => vmid == wanted,
            Selector::App(name) => labels.app.as_ref() == Some(name),
            Selector::Service(name) => labels.service.as_ref() == Some(name),
            Selector::Zone(name) => labels.zone.as_ref() == Some(name),
        }
    };
    let members = network.members.keys().filter(|vmid| is_meant(vmid));
    members.filter_map(|vmid| Some((*places.get(vmid)?, network.members[vmid].labels.app.as_deref()))).collect()
}

/// Pairs of different subnets between which a flow passes.
fn crossings<'a>(network: &'a Network, places: &BTreeMap<Vmid, &'a str>, flow: &Flow) -> BTreeSet<(&'a str, &'a str)> {
    let (from, to) = (ends(network, places, &flow.from), ends(network, places, &flow.to));
    let mut pairs = BTreeSet::new();
    if flow.within_app {
        for (one, app) in from.iter().filter(|(_, app)| app.is_some()) {
            pairs.extend(to.iter().filter(|(two, other)| other == app && two != one).map(|(two, _)| (*one, *two)));
        }
    } else {
        // Without regard to applications there are at most as many as there are subnets.
        let names = |ends: &BTreeSet<(&'a str, Option<&'a str>)>| -> BTreeSet<&'a str> {
            ends.iter().map(|(name, _)| *name).collect()
        };
        for one in names(&from) {
            pairs.extend(names(&to).into_iter().filter(|two| *two != one).map(|two| (one, two)));
        }
    }
    pairs
}

fn places(subnets: &[Subnet]) -> BTreeMap<Vmid, &str> {
    subnets.iter().flat_map(|subnet| subnet.guests.iter().map(|vmid| (*vmid, subnet.name.as_str()))).collect()
}

/// What has to be allowed so that the declared flows pass, and nothing else.
pub fn rules(network: &Network, subnets: &[Subnet]) -> Vec<Rule> {
    let places = places(subnets);
    let mut rules = BTreeSet::new();
    for flow in &network.flows {
        let ports = flow.ports.iter().copied().map(Some);
        let ports: Vec<Option<Service>> = if flow.ports.is_empty() { vec![None] } else { ports.collect() };
        for (from, to) in crossings(network, &places, flow) {
            let rule = |port: &Option<Service>| Rule { from: from.to_owned(), to: to.to_owned(), port: *port };
            rules.extend(ports.iter().map(rule));
        }
    }
    // What is allowed as a whole needs no rule for a part.
    let whole: BTreeSet<(String, String)> =
        rules.iter().filter(|rule| rule.port.is_none()).map(|rule| (rule.from.clone(), rule.to.clone())).collect();
    let is_part = |rule: &Rule| rule.port.is_some() && whole.contains(&(rule.from.clone(), rule.to.clone()));
    rules.into_iter().filter(|rule| !is_part(rule)).collect()
}

/// What the subnets cost.
pub fn weigh(network: &Network, base: Ipv4Net, subnets: &[Subnet], rules: &[Rule], free: u64) -> Weight {
    let places = places(subnets);
    // To the world and back crosses the same boundary whatever the plan.
    let crosses = |flow: &&Flow| {
        let between = |(one, two): &(&str, &str)| *one != INTERNET && *two != INTERNET;
        crossings(network, &places, flow).iter().any(between)
    };
    let is_critical = |vmid: &Vmid| network.members.get(vmid).is_some_and(|member| member.labels.is_critical());
    let beside = |subnet: &Subnet| {
        let critical = subnet.guests.iter().filter(|vmid| is_critical(vmid)).count();
        if critical == 0 { 0 } else { subnet.guests.len() - critical }
    };
    let declared = !network.flows.is_empty();
    let used = subnets.iter().map(|subnet| 1u64 << (32 - u32::from(subnet.subnet.prefix_len()))).sum();
    debug_assert!(used + free <= 1u64 << (32 - u32::from(base.prefix_len())), "more than there is");
    Weight {
        subnets: subnets.len(),
        guests: subnets.iter().map(|subnet| subnet.guests.len()).sum(),
        crossing_flows: declared.then(|| network.flows.iter().filter(crosses).count()),
        rules: declared.then_some(rules.len()),
        beside_critical: subnets.iter().map(beside).sum(),
        used_addresses: used,
        free_addresses: free,
    }
}
