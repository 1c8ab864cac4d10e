//! Before an address is given to a guest: does somebody have it already?

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::conflicts::blocking;
use super::enforce::Unheld;
use super::{advice, change, observe_links};
use crate::code;
use crate::conflict::{Claim, Source};
use crate::guest::Located;
use crate::links::Links;
use crate::links::is_guest_port;
use crate::model::{IfName, MacAddr, Prefix, Subject};
use crate::reconcile::Node;
use crate::registry::document::{GuestFile, Pool, Probe};
use crate::registry::{Asking, AssignRequest, Registry, RuleError};
use crate::request::Assign;
use crate::store::StoreError;
use crate::store::journal::now;
use crate::system::{Kernel, Reference, claims, probe};

/// How often in a row somebody may have what is asked about, of addresses that would be handed out next.
const ATTEMPTS: usize = 3;

/// How often others may be faster.
const ROUNDS: usize = 20;

/// The most addresses that are asked about at once.
const AHEAD: usize = 64;

/// What an assignment changed in the registry.
pub(crate) struct Given {
    /// The guest as it was.
    pub(crate) before: Option<GuestFile>,
    /// What it did not hold before.
    pub(crate) new: Vec<Prefix>,
}

/// Assigns under the registry's lock, and asks the network without it, because others wait for it: so what was asked about
/// may be somebody's by the time the lock is taken, and then the choice is made again. Each time more addresses are
/// asked about, so that many that want one at once all get one soon.
pub(crate) fn assign<T>(
    node: &Node,
    command: &Assign,
    located: &Located,
    (request, present): (&AssignRequest, Option<&Unheld>),
    dry_run: bool,
    mut done: impl FnMut(&mut Registry, &AssignRequest, Given) -> Result<T, RuleError>,
) -> anyhow::Result<T> {
    let may_ask = !dry_run && command.probe != Some(false);
    let links = if may_ask { observe_links().unwrap_or_default() } else { Links::default() };
    let mut asking = Asking { ahead: 1, ..Asking::default() };
    let (mut refused, mut refusals, mut rounds) = (None, 0, 0);
    loop {
        let mut questions: BTreeMap<IfName, Vec<IpAddr>> = BTreeMap::new();
        let outcome = change(node, dry_run, |registry| {
            let contested = contested(node, registry);
            if let Some((address, (sentence, id))) = refused.and_then(|address| contested.get_key_value(&address)) {
                return Err(RuleError::Contested { address: *address, sentence: sentence.clone(), id: id.clone() });
            }
            let device = |pool: &Pool| device(pool, command, located, &links);
            if may_ask {
                let asked = registry.pools.pools.iter().filter(|(_, pool)| device(pool).is_some());
                asking.pools = asked.map(|(name, _)| name.clone()).collect();
            }
            let asking = may_ask.then(|| asking.clone());
            let in_use = present.map(|present| present.in_use(registry, request)).unwrap_or_default();
            let request = AssignRequest { contested, asking, in_use, now: now(), ..request.clone() };
            let before = registry.guests.get(&request.vmid).cloned();
            let new = match registry.assign(&request) {
                Err(RuleError::Unasked { addresses }) => {
                    for prefix in &addresses {
                        let found = registry.pool_of(*prefix).and_then(|(_, pool)| device(pool));
                        if let (Some(device), Some(address)) = (found, prefix.single()) {
                            questions.entry(device).or_default().push(address);
                        }
                    }
                    return Err(RuleError::Unasked { addresses });
                }
                new => new?,
            };
            done(registry, &request, Given { before, new })
        });
        let addresses = match outcome {
            Err(StoreError::Rule(RuleError::Unasked { addresses })) => addresses,
            outcome => return Ok(outcome?),
        };
        rounds += 1;
        if rounds > ROUNDS {
            return Err(advice(
                code!("others-were-faster"),
                Subject::Guest(request.vmid),
                "other commands took each free address while the network was asked who has it",
                "run the command again",
            ));
        }
        let answered = ask(node, &questions, &links, request);
        let is_free = |address: &Prefix| address.single().is_none_or(|address| !answered.contains(&address));
        if addresses.iter().any(is_free) {
            refusals = 0;
        } else {
            refusals += 1;
            // Whoever has them all, as a router does that answers for everything: there is no use in asking on.
            refused = addresses.first().copied().filter(|_| refusals >= ATTEMPTS);
        }
        asking.asked.extend(addresses);
        asking.ahead = (asking.ahead * 4).min(AHEAD);
    }
}

/// The device on which the network is asked about addresses of a pool: that on which their guest will speak. `None`: it is
/// not asked.
fn device(pool: &Pool, command: &Assign, located: &Located, links: &Links) -> Option<IfName> {
    let nic = command.interfaces.first().and_then(|id| located.config.nics.get(id)).and_then(|nic| nic.as_ref().ok());
    // What guests answer is dropped, so there must be somebody else.
    let is_public = links.ports(pool.bridge).any(|port| !is_guest_port(port.as_str()));
    let by_itself = pool.probe() == Probe::Assign && is_public;
    links.segment(pool.bridge, nic.and_then(|nic| nic.tag)).filter(|_| command.probe == Some(true) || by_itself)
}

/// Asks, and notes who answered in place of what was noted before; returns the addresses that somebody has.
fn ask(
    node: &Node,
    questions: &BTreeMap<IfName, Vec<IpAddr>>,
    links: &Links,
    request: &AssignRequest,
) -> BTreeSet<IpAddr> {
    let own: Vec<MacAddr> = links.0.values().filter_map(|link| link.mac).collect();
    // The guest may have it already.
    let known: Vec<MacAddr> = own.iter().copied().chain(request.nics.iter().map(|(_, mac)| *mac)).collect();
    let mut answers = Vec::new();
    for (device, addresses) in questions {
        let Some(mac) = links.get(*device).and_then(|link| link.mac) else { continue };
        match probe::ask(*device, mac, addresses, &known) {
            Ok(found) => answers.extend(found.into_iter().map(|(address, answer)| (*device, address, answer))),
            Err(error) => log::warn!("cannot ask on {device} whether somebody has the address: {error}"),
        }
    }
    let ports = port_of(links, &answers.iter().map(|(device, _, answer)| (*device, answer.mac)).collect());
    let asked: BTreeSet<Prefix> =
        questions.values().flatten().filter_map(|address| Prefix::host(*address).ok()).collect();
    let found = answers.iter().map(|(_, address, _)| *address).collect();
    let noted = claims::change(&node.paths, |claims| {
        claims.forget_answers(&asked);
        for (device, address, probe::Answer { mac, asks }) in answers {
            let port = ports.get(&mac).copied().unwrap_or(device);
            let address = Prefix::host(address).ok();
            claims.note(Claim { source: Source::Probe, port, mac: Some(mac), address, asks }, 1, now());
        }
    });
    if let Err(error) = noted {
        log::warn!("cannot note who has the address: {error}");
    }
    found
}

/// The bridge ports behind which these stations are, as far as the kernel knows: a claim names the device otherwise.
fn port_of(links: &Links, stations: &BTreeSet<(IfName, MacAddr)>) -> BTreeMap<MacAddr, IfName> {
    let found = Kernel::open(Reference::default()).and_then(|mut kernel| kernel.heard_behind(links, stations));
    found.unwrap_or_default()
}

/// Addresses that somebody claims without right, and by which number that is acknowledged.
pub(crate) fn contested(node: &Node, registry: &Registry) -> BTreeMap<Prefix, (String, String)> {
    let conflicts = blocking(node, registry).into_iter();
    conflicts.filter_map(|conflict| Some((conflict.address?, (conflict.sentence, conflict.id)))).collect()
}
