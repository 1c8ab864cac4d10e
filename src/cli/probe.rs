//! Before an address is given to a guest: does somebody have it already?

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Assign;
use super::assignments::{contested, observe_links};
use crate::conflict::{Claim, Source};
use crate::guest::Located;
use crate::model::{IfName, MacAddr, Prefix};
use crate::plan::{Links, is_guest_port};
use crate::reconcile::Node;
use crate::registry::document::Probe;
use crate::registry::{AssignRequest, Registry, RuleError};
use crate::system::journal::now;
use crate::system::{Kernel, Reference, claims, probe};

/// Addresses in a row that somebody else has, of those that would be handed out next.
const ATTEMPTS: usize = 3;

/// The request, with addresses that nobody answered for: those that are named, or the next free ones. Asked without the
/// registry's lock, which others wait for.
pub(super) fn checked(
    node: &Node,
    command: &Assign,
    located: &Located,
    request: AssignRequest,
) -> anyhow::Result<AssignRequest> {
    if command.no_probe {
        return Ok(request);
    }
    let is_named = !request.addresses.is_empty();
    let links = observe_links().unwrap_or_default();
    let mut attempts = 0;
    loop {
        let Ok(snapshot) = node.store.load() else { return Ok(request) };
        // An old answer says nothing about an address that is named: it is asked for again.
        let contested_before = if is_named { BTreeMap::new() } else { contested(node, &snapshot.registry) };
        let attempt = AssignRequest { contested: contested_before, ..request.clone() };
        // Whatever is wrong is said where it is changed.
        let Ok(new) = snapshot.registry.clone().assign(&attempt) else { return Ok(request) };
        let questions = questions(&snapshot.registry, &new, command, located, &links);
        if questions.is_empty() {
            return Ok(request);
        }
        ask(node, &questions, &links, &request);
        attempts += 1;
        let contested = contested(node, &snapshot.registry);
        match new.iter().find_map(|address| Some((*address, contested.get(address)?))) {
            None if is_named => return Ok(request),
            None => return Ok(AssignRequest { addresses: new, ..request }),
            Some((address, (sentence, id))) if is_named || attempts == ATTEMPTS => {
                return Err(RuleError::Contested { address, sentence: sentence.clone(), id: id.clone() }.into());
            }
            Some(_) => {}
        }
    }
}

/// The addresses to ask for, by the device on which their guest will speak.
fn questions(
    registry: &Registry,
    new: &[Prefix],
    command: &Assign,
    located: &Located,
    links: &Links,
) -> BTreeMap<IfName, Vec<IpAddr>> {
    let mut questions: BTreeMap<IfName, Vec<IpAddr>> = BTreeMap::new();
    let nic = command.net.first().and_then(|id| located.config.nics.get(id)).and_then(|nic| nic.as_ref().ok());
    for prefix in new {
        let (Some(address), Some((_, pool))) = (prefix.single(), registry.pool_of(*prefix)) else { continue };
        // What guests answer is dropped, so there must be somebody else.
        let is_public = links.ports(pool.bridge).any(|port| !is_guest_port(port.as_str()));
        let by_itself = pool.probe() == Probe::Assign && is_public;
        let device = links.segment(pool.bridge, nic.and_then(|nic| nic.tag));
        if let Some(device) = device.filter(|_| command.probe || by_itself) {
            questions.entry(device).or_default().push(address);
        }
    }
    questions
}

/// Asks, and notes who answered in place of what was noted before.
fn ask(node: &Node, questions: &BTreeMap<IfName, Vec<IpAddr>>, links: &Links, request: &AssignRequest) {
    let own: Vec<MacAddr> = links.0.values().filter_map(|link| link.mac).collect();
    // The guest may have it already.
    let known: Vec<MacAddr> = own.iter().copied().chain(request.nics.iter().map(|(_, mac)| *mac)).collect();
    let mut answers = Vec::new();
    for (device, addresses) in questions {
        let Some(mac) = links.get(*device).and_then(|link| link.mac) else { continue };
        match probe::ask(*device, mac, addresses, &known) {
            Ok(found) => answers.extend(found.into_iter().map(|(address, mac)| (*device, address, mac))),
            Err(error) => log::warn!("cannot ask on {device} whether somebody has the address: {error}"),
        }
    }
    let ports = port_of(links, &answers.iter().map(|(device, _, mac)| (*device, *mac)).collect());
    let asked: BTreeSet<Prefix> =
        questions.values().flatten().filter_map(|address| Prefix::host(*address).ok()).collect();
    let noted = claims::change(&node.paths, |claims| {
        claims.forget_answers(&asked);
        for (device, address, mac) in answers {
            let port = ports.get(&mac).copied().unwrap_or(device);
            let address = Prefix::host(address).ok();
            claims.note(Claim { source: Source::Probe, port, mac: Some(mac), address }, 1, now());
        }
    });
    if let Err(error) = noted {
        log::warn!("cannot note who has the address: {error}");
    }
}

/// The bridge ports behind which these stations are, as far as the kernel knows: a claim names the device otherwise.
fn port_of(links: &Links, stations: &BTreeSet<(IfName, MacAddr)>) -> BTreeMap<MacAddr, IfName> {
    let found = Kernel::open(Reference::default()).and_then(|mut kernel| kernel.heard_behind(links, stations));
    found.unwrap_or_default()
}
