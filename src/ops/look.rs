//! Looks at the registry for callers of the API: the guest of a name, addresses, pools, the past.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use super::{conflicts, own_addresses, problem_of};
use crate::audit::{Query, holders};
use crate::code;
use crate::guest::{Located, Places};
use crate::lookup::{self, Lookup, Meant, Named};
use crate::model::{MacAddr, Problem, Subject, Vmid};
use crate::plan::GuestState;
use crate::reconcile::{Node, Sources, count_drops_of_ports, notes_on_ports};
use crate::registry::Registry;
use crate::registry::document::DocumentError;
use crate::reply::{Address, Addresses, Check, Counter, History, Info, Metrics, Pools, Verified};
use crate::request::{self, GetAddress, ListAddresses, VerifyGuest};
use crate::store::StoreError;
use crate::store::journal::now;
use crate::system::run::RunState;
use crate::system::{Kernel, Reference};
use crate::view::exposition::exposition;
use crate::view::{Comparison, GuardStatus, GuestNic, NodeFacts, View};

/// What a caller's questions are answered from.
pub(super) struct Book {
    pub(super) registry: Registry,
    places: Arc<Places>,
    own: Vec<IpNet>,
}

impl Book {
    /// Reads it now: what changes something begins with this.
    pub(super) fn read(node: &Node) -> Result<Self, Problem> {
        Self::of(node, node.store.load_usable())
    }

    /// As a change that was just made has left it.
    pub(super) fn changed(node: &Node) -> Result<Self, Problem> {
        node.store.last_read().map_or_else(|| Self::read(node), |registry| Self::of(node, Ok(registry)))
    }

    /// As [`Self::read`], perhaps as it was a moment ago.
    fn recent(node: &Node) -> Result<Self, Problem> {
        Self::of(node, node.store.load_recent())
    }

    fn of(node: &Node, registry: Result<Registry, StoreError>) -> Result<Self, Problem> {
        let registry = registry.map_err(|error| problem_of(&error.into()))?;
        Ok(Self { registry, places: node.guests.places(), own: own_addresses() })
    }

    pub(super) fn lookup<'a>(&'a self, within: Option<&'a str>) -> Lookup<'a> {
        Lookup::of(&self.registry, &self.own, &self.places, within, now())
    }

    /// Files that cannot be used; what was known of them last counts.
    fn notes(&self) -> Vec<Problem> {
        let note =
            |error: &DocumentError| Problem::new(error.code(), error.subject(), error.to_string(), error.hint.clone());
        self.registry.broken.iter().map(note).collect()
    }

    /// The guest that a caller means.
    pub(super) fn guest(&self, node: &Node, word: &str, mac: Option<MacAddr>, by_mac: bool) -> Result<Meant, Problem> {
        lookup::check_name(word)?;
        let exists = |vmid: Vmid| self.places.contains_key(&vmid) || node.guests.find(vmid, None).is_ok();
        if let Some(found) = lookup::by_registry(word, &self.registry, exists) {
            return found.map(|vmid| Meant { vmid, by_mac: false });
        }
        let guests = node.guests.all().into_iter();
        let guests: Vec<Named> = guests.filter_map(|(vmid, found)| Some(named(vmid, &found.ok()?))).collect();
        lookup::by_configuration(word, &guests, mac, by_mac)
    }

    /// The guest of a question. Within an organization there are only guests that hold an address of it.
    fn vmid(&self, node: &Node, word: &str, within: Option<&str>) -> Result<Vmid, Problem> {
        self.holder(node, word, (None, false), within)
    }

    /// A guest that holds something of the caller's.
    pub(super) fn holder(
        &self,
        node: &Node,
        word: &str,
        (mac, by_mac): (Option<MacAddr>, bool),
        within: Option<&str>,
    ) -> Result<Vmid, Problem> {
        let vmid = self.own_guest(node, word, (mac, by_mac), within)?.vmid;
        let holds = within.is_none() || self.registry.guests.get(&vmid).is_some_and(|guest| !guest.is_empty());
        if holds { Ok(vmid) } else { Err(unknown_guest(word, mac, by_mac)) }
    }

    /// The guest that an address is for. Within an organization a guest of others is not there, and which of them have the same
    /// name is not said; one that holds nothing is there, since its first address may be asked for.
    pub(super) fn own_guest(
        &self,
        node: &Node,
        word: &str,
        (mac, by_mac): (Option<MacAddr>, bool),
        within: Option<&str>,
    ) -> Result<Meant, Problem> {
        let is_hidden = |problem: &Problem| within.is_some() && problem.code == code!("guest-ambiguous");
        let refused = || unknown_guest(word, mac, by_mac);
        let meant = self.guest(node, word, mac, by_mac);
        let meant = meant.map_err(|problem| if is_hidden(&problem) { refused() } else { problem })?;
        if self.lookup(within).is_own_guest(meant.vmid) {
            return Ok(meant);
        }
        // A name of others' allocations is found at once, and one of nobody's after all configurations were read: the time that
        // the answer takes is not to tell the two apart.
        if word.parse::<Vmid>().is_err() {
            node.guests.all();
        }
        Err(refused())
    }
}

/// The guest of a name, as far as it is there for the caller.
pub fn guest_of(node: &Node, word: &str, within: Option<&str>) -> Result<Vmid, Problem> {
    Book::recent(node)?.vmid(node, word, within)
}

/// What a caller is told of a guest that is not there for it.
fn unknown_guest(word: &str, mac: Option<MacAddr>, by_mac: bool) -> Problem {
    // The words of the search itself: no caller shall tell the two apart.
    lookup::by_configuration(word, &[], mac, by_mac).err().unwrap_or_else(|| {
        Problem::new(code!("unknown-guest"), Subject::Command, format!("no guest is called `{word}`"), "")
    })
}

/// What of a guest's configuration can mean it.
pub(super) fn named(vmid: Vmid, located: &Located) -> Named {
    let config = &located.config;
    // Source: pve-common `src/PVE/Tools.pm`, `split_list`.
    let tags = config.lines.get("tags").map(String::as_str).unwrap_or_default().split([';', ',', ' ']);
    Named {
        vmid,
        name: config.name.clone(),
        tags: tags.filter(|tag| !tag.is_empty()).map(str::to_owned).collect::<BTreeSet<_>>(),
        nics: config.nics.iter().filter_map(|(nic, found)| Some((*nic, found.as_ref().ok()?.mac?))).collect(),
    }
}

/// What is known of an address.
pub fn address(node: &Node, request: &GetAddress, within: Option<&str>) -> Result<Address, Problem> {
    Book::recent(node)?.lookup(within).address(request.address)
}

/// A page of addresses.
pub fn addresses(node: &Node, request: &ListAddresses, within: Option<&str>) -> Result<Addresses, Problem> {
    let book = Book::recent(node)?;
    let guest = request.vps_id.as_ref().map(|word| book.vmid(node, word, within)).transpose()?;
    let page = book.lookup(within).page(request, guest)?;
    // Which files are broken is nothing for a customer.
    Ok(Addresses { notes: if within.is_none() { book.notes() } else { Vec::new() }, ..page })
}

/// The pools.
pub fn pools(node: &Node) -> Result<Pools, Problem> {
    Ok(Pools { pools: Book::recent(node)?.lookup(None).pools() })
}

/// Who held an address, or what a guest held, by this node's audit log.
pub fn history(node: &Node, request: &request::History, within: Option<&str>) -> Result<History, Problem> {
    let book = Book::recent(node)?;
    let query = match (request.address, &request.vps_id) {
        (Some(address), None) => Query { address: Some(address), ..Query::default() },
        (None, Some(word)) => Query { vmid: Some(book.vmid(node, word, within)?), ..Query::default() },
        _ => {
            let sentence = "the history of an address or of a guest is asked for: name one of both";
            return Err(Problem::new(code!("request-invalid"), Subject::Command, sentence, "name `ip_id` or `vps_id`"));
        }
    };
    let found = node.store.journal.search(&query, usize::MAX);
    let mut holdings = holders(&found.entries);
    holdings.retain(|holder| {
        let is_seen = within.is_none_or(|within| holder.organization.as_deref() == Some(within));
        let is_then = request.time.is_none_or(|time| holder.is_of((time, time.next())));
        is_seen && is_then
    });
    holdings.reverse();
    let mut notes = Vec::new();
    if within.is_none() {
        let gap =
            |sentence| Problem::of_node(code!("audit-log-not-read"), sentence, "`pve-public-ip audit` says the same");
        notes.extend(found.not_searched.into_iter().map(gap));
        if found.unreadable > 0 {
            notes.push(gap(format!("lines of the audit log that cannot be read: {}", found.unreadable)));
        }
    }
    Ok(History { holdings, notes })
}

/// How this node is. What cannot be read is said in it.
pub fn status(node: &Node) -> View {
    let mut trouble = Vec::new();
    let mut keep = |what: &str, error: anyhow::Error| trouble.push(format!("{what}: {error:#}"));
    let look = node.look(|_| true).map_err(|error| keep("the registry could not be read", error.into())).ok();
    let (sources, compared) = look.map(|look| (look.sources, look.compared)).unzip();
    let report = match compared.flatten() {
        Some(Err(error)) => {
            keep("the node could not be compared", error.into());
            None
        }
        Some(Ok(report)) => Some(report),
        None => None,
    };
    let tallies = Kernel::open(Reference::default()).and_then(|mut kernel| kernel.tallies());
    let mut tallies = tallies.map_err(|error| keep("the counters could not be read", error.into())).unwrap_or_default();
    count_drops_of_ports(
        &node.paths,
        &mut tallies,
        &sources.as_ref().map(|sources| sources.links().names()).unwrap_or_default(),
    );
    let notes = report.as_ref().map(|report| [&report.notes[..], &notes_on_ports(&node.paths, &report.ports)].concat());
    let notes = notes.unwrap_or_default();
    let guard = RunState::guard_note(&node.paths).map(|note| GuardStatus { runs: note.is_alive(), note });
    let inputs = sources.as_ref().map(Sources::inputs);
    let conflicts = inputs.map(|inputs| conflicts::all(node, inputs.registry.clone(), &inputs.guests));
    let (conflicts, _) = conflicts.unwrap_or_default();
    let known = NodeFacts {
        inputs,
        comparison: report.as_ref().map(|report| Comparison {
            steps: &report.steps,
            problems: &report.problems,
            notes: &notes,
        }),
        tallies: &tallies,
        history: &RunState::note(&node.paths, "history").unwrap_or_default(),
        guard,
        conflicts: conflicts.iter().filter(|conflict| !conflict.acknowledged).count(),
        unreadable: sources.as_ref().map(Sources::unreadable).unwrap_or_default(),
        trouble,
    };
    View::of(&node.name, known)
}

/// How a guest is protected on this node.
pub fn verify_guest(node: &Node, request: &VerifyGuest) -> Result<Verified, Problem> {
    let vmid = Book::recent(node)?.guest(node, &request.vps_id, None, false)?.vmid;
    let view = status(node);
    let is_own = |problem: &&Problem| problem.guest() == Some(vmid);
    let mut problems: Vec<Problem> = view.problems.iter().filter(is_own).cloned().collect();
    problems.extend(troubles(&view));
    let nics: Vec<_> = view.guests.iter().filter(|nic| nic.vmid == vmid).collect();
    if nics.is_empty() {
        let hint = format!("`pve-public-ip assign {vmid}` gives it one");
        problems.push(Problem::of_guest(
            code!("nothing-assigned"),
            vmid,
            format!("guest {vmid} holds no address"),
            hint,
        ));
    }
    if nics.iter().any(|nic| nic.state == GuestState::Elsewhere) {
        let sentence = format!("guest {vmid} is on another node, and this one cannot see its protection");
        problems.push(Problem::of_guest(code!("guest-elsewhere"), vmid, sentence, "ask the node where it is"));
    }
    let is_safe = |state| matches!(state, GuestState::Protected | GuestState::Reserved);
    let check = |nic: &&GuestNic| {
        Some(Check {
            interface: nic.interface.parse().ok()?,
            mac: nic.mac,
            addresses: nic.addresses.clone(),
            state: nic.state.as_str().to_owned(),
        })
    };
    let counters = view.dropped.iter().filter(|dropped| dropped.vmid == Some(vmid)).map(|dropped| Counter {
        port: dropped.port,
        reason: dropped.reason.to_owned(),
        packets: dropped.count.packets,
        bytes: dropped.count.bytes,
    });
    Ok(Verified {
        node: node.name.clone(),
        secure: !nics.is_empty() && nics.iter().all(|nic| is_safe(nic.state)) && problems.is_empty(),
        checks: nics.iter().filter_map(check).collect(),
        counters: counters.collect(),
        problems,
    })
}

/// How this node is, for Prometheus.
pub fn metrics(node: &Node) -> Metrics {
    Metrics { text: exposition(&status(node)) }
}

/// How this node is, in short.
pub fn info(node: &Node) -> Result<Info, Problem> {
    let book = Book::recent(node)?;
    let view = status(node);
    let mut problems = view.problems.clone();
    problems.extend(troubles(&view));
    let guard_runs = view.guard.as_ref().is_some_and(|guard| guard.runs);
    if !guard_runs {
        let hint = "`systemctl start pve-public-ip`";
        problems.push(Problem::of_node(code!("guard-not-running"), "the guard does not run on this node", hint));
    }
    let named = book.registry.node.as_ref().and_then(|file| file.uplinks.clone());
    Ok(Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: node.name.clone(),
        uplinks: named.into_iter().flatten().collect(),
        pools: book.lookup(None).pools(),
        healthy: view.in_line == Some(true) && guard_runs && view.trouble.is_empty(),
        problems,
    })
}

/// What could not be read.
fn troubles(view: &View) -> impl Iterator<Item = Problem> {
    let trouble = |sentence: &String| {
        Problem::of_node(code!("node-unreadable"), sentence.clone(), "`pve-public-ip doctor` looks for the cause")
    };
    view.trouble.iter().map(trouble)
}
