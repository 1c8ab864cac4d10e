//! Who claims what somebody else has: gathered from everywhere.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Done, advice, told};
use crate::code;
use crate::conflict::{Claims, Conflict, Files, allocations, in_files};
use crate::doctor::firewall::{Firewall, FirewallFile};
use crate::guest::{GuestError, Seen, may_use};
use crate::host::files;
use crate::links::Links;
use crate::model::{MacAddr, NicId, Problem, Subject, Vmid};
use crate::plan::Located;
use crate::reconcile::Node;
use crate::registry::Registry;
use crate::registry::document::Interface;
use crate::request::AcknowledgeConflicts;
use crate::store::journal::now;
use crate::system::claims;

/// Larger than any of the files that are compared.
const FILE_LIMIT: usize = 4 << 20;

/// Conflicts that were acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Acknowledged {
    /// Whether any of them was not acknowledged before.
    pub changed: bool,
    /// Their numbers.
    pub acknowledged: BTreeSet<String>,
    /// What they are about, by number.
    #[serde(skip)]
    pub sentences: Vec<(String, String)>,
}

/// Acknowledges conflicts: they block no assignment any more.
pub fn acknowledge_conflicts(
    node: &Node,
    request: AcknowledgeConflicts,
    dry_run: bool,
) -> Result<Done<Acknowledged>, Problem> {
    told(acknowledge(node, request, dry_run)).map(|answer| Done::without_node(answer, dry_run))
}

fn acknowledge(node: &Node, request: AcknowledgeConflicts, dry_run: bool) -> anyhow::Result<Acknowledged> {
    let (conflicts, _) = all(node, node.store.load_usable()?, &BTreeMap::new());
    let AcknowledgeConflicts { conflicts: mut ids, all: everything } = request;
    if everything {
        ids.extend(conflicts.iter().filter(|conflict| !conflict.acknowledged).map(|conflict| conflict.id.clone()));
    }
    if let Some(id) = ids.iter().find(|id| conflicts.iter().all(|conflict| conflict.id != **id)) {
        return Err(advice(
            code!("unknown-conflict"),
            Subject::Command,
            format!("there is no conflict `{id}`"),
            "`pve-public-ip conflicts list` shows their numbers",
        ));
    }
    if !dry_run {
        claims::change(&node.paths, |claims| claims.acknowledge(ids.iter().cloned()))
            .with_context(|| format!("cannot write below `{}`", node.paths.run().display()))?;
    }
    let meant: Vec<&Conflict> = conflicts.iter().filter(|conflict| ids.contains(&conflict.id)).collect();
    let changed = meant.iter().any(|conflict| !conflict.acknowledged);
    let sentences = meant.iter().map(|conflict| (conflict.id.clone(), conflict.sentence.clone())).collect();
    Ok(Acknowledged { changed, acknowledged: ids, sentences })
}

/// Every conflict, and what could not be compared. The configurations of `known` guests are not read once more.
pub(crate) fn all(node: &Node, registry: Registry, known: &BTreeMap<Vmid, Located>) -> (Vec<Conflict>, Vec<String>) {
    let mut not_compared = Vec::new();
    let mut guests: BTreeMap<_, _> = known.iter().map(|(vmid, located)| (*vmid, located.config.clone())).collect();
    let is_here = |(vmid, located): (&Vmid, &Located)| (located.node == node.name).then_some(*vmid);
    let mut here: BTreeSet<Vmid> = known.iter().filter_map(is_here).collect();
    let mut there: BTreeSet<Vmid> = known.keys().copied().collect();
    // Who claims what somebody else has is configured with its address or its MAC.
    let held: BTreeSet<MacAddr> =
        registry.guests.values().flat_map(|guest| guest.interfaces.values()).flat_map(Interface::own_macs).collect();
    for (vmid, found) in node.guests.all_but(|vmid| known.contains_key(&vmid), |text| may_use(text, &held)) {
        match found {
            Ok(Seen { node: place, config }) => {
                here.extend((place == node.name).then_some(vmid));
                there.insert(vmid);
                guests.extend(config.map(|config| (vmid, config)));
            }
            Err(GuestError::Unknown { .. }) => {}
            Err(error) => not_compared.push(error.to_string()),
        }
    }
    let links = super::observe_links().unwrap_or_else(|| {
        not_compared.push("the node's own addresses".to_owned());
        Links::default()
    });
    let files = Files {
        own: links.addresses().collect(),
        allocations: given_by_sdn(node),
        allowed: allowed(node, |vmid| there.contains(&vmid)).into_iter().map(|(vmid, _, net)| (vmid, net)).collect(),
        registry,
        guests,
    };
    let claims = claims::load(&node.paths);
    let mut conflicts = in_files(&files);
    conflicts.extend(claims.conflicts(&files.registry, &here, now()));
    claims.mark(&mut conflicts);
    conflicts.sort_by_key(|conflict| conflict.acknowledged);
    (conflicts, not_compared)
}

/// What the guard has heard of and nobody has acknowledged. Without a claim the registry is not read.
pub fn claimed(node: &Node) -> Vec<Conflict> {
    let claims: Claims = claims::load(&node.paths);
    if claims.is_empty() {
        return Vec::new();
    }
    let Ok(registry) = node.store.load_usable() else { return Vec::new() };
    let mut conflicts = claims.conflicts(&registry, &BTreeSet::new(), now());
    claims.mark(&mut conflicts);
    conflicts.retain(|conflict| !conflict.acknowledged);
    conflicts
}

/// Those that keep an address from being handed out: only what can be found in a moment can be among them.
pub(crate) fn blocking(node: &Node, registry: &Registry) -> Vec<Conflict> {
    let claims: Claims = claims::load(&node.paths);
    let mut conflicts = claims.conflicts(registry, &BTreeSet::new(), now());
    let allocations = given_by_sdn(node);
    if !allocations.is_empty() {
        conflicts.extend(in_files(&Files { registry: registry.clone(), allocations, ..Files::default() }));
    }
    claims.mark(&mut conflicts);
    conflicts.retain(|conflict| conflict.blocks);
    conflicts
}

pub(super) fn given_by_sdn(node: &Node) -> Vec<crate::conflict::Allocation> {
    let mut states = node.paths.sdn_allocations().into_iter();
    // After the upgrade that moved it the old one may still lie there.
    let found = states.find_map(|path| files::read_limited(&path, FILE_LIMIT).ok());
    found.map(|bytes| allocations(&bytes)).unwrap_or_default()
}

/// What the firewall's sets let guests use.
pub(super) fn allowed(node: &Node, is_guest: impl Fn(Vmid) -> bool) -> Vec<(Vmid, NicId, ipnet::IpNet)> {
    let directory = node.paths.firewall();
    let read = |name: &str| {
        let bytes = files::read_limited(&directory.join(name), FILE_LIMIT).ok()?;
        Some(FirewallFile::parse(&String::from_utf8_lossy(&bytes)))
    };
    let names = files::names(&directory).into_iter();
    let vmids = names.filter_map(|name| name.strip_suffix(".fw")?.parse().ok()).filter(|vmid| is_guest(*vmid));
    let files = vmids.filter_map(|vmid: Vmid| Some((vmid, read(&format!("{vmid}.fw"))?)));
    let firewall =
        Firewall { cluster: read("cluster.fw").unwrap_or_default(), guests: files.collect(), ..Firewall::default() };
    firewall.allowed()
}
