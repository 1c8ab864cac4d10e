//! Checks of guests: their hookscripts, MACs, assignments, and what Proxmox VE's firewall does to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Files, Fix, Hit, Observation, Script, View, listed};
use crate::guest::GuestConfig;
use crate::hookscript::{self, VOLUME};
use crate::model::text::one_line;
use crate::model::{NodeName, Vmid};
use crate::plan::{
    Located, Stranger, check_guest, check_own, check_pending, check_stranger, macs_of_the_node, macs_of_two_nics,
    strangers,
};
use crate::registry::document::{Enforce, GuestFile, Pool, UplinkGuard};
use crate::registry::{Misplaced, misplaced};

/// Guests that hold something, with their configurations, if these are there.
fn holders(files: &Files) -> impl Iterator<Item = (&GuestFile, Option<&Located>)> {
    let guests = files.inputs.registry.guests.values().filter(|guest| !guest.is_empty());
    guests.map(|guest| (guest, files.inputs.guests.get(&guest.vmid)))
}

/// Those whose configuration is there.
fn placed(files: &Files) -> impl Iterator<Item = (&GuestFile, &Located)> {
    holders(files).filter_map(|(guest, place)| Some((guest, place?)))
}

fn guest(vmid: Vmid) -> String {
    format!("guest {vmid}")
}

/// Guests of this node.
fn here(files: &Files) -> impl Iterator<Item = (Vmid, &GuestConfig)> {
    let here = files.inputs.guests.iter().filter(|(_, place)| place.node == files.inputs.node);
    here.map(|(vmid, place)| (*vmid, &place.config))
}

/// `, and guests 100, 101 name it`.
fn named_by(files: &Files, volume: &str) -> String {
    let named = here(files).filter(|(_, config)| config.hookscript.as_deref() == Some(volume));
    let named: Vec<Vmid> = named.map(|(vmid, _)| vmid).collect();
    match named.as_slice() {
        [] => String::new(),
        [one] => format!(", and guest {one} names it"),
        several => format!(", and guests {} name it", listed(several)),
    }
}

pub(super) fn hookscript_missing(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let hit = |(volume, script): (&String, &Script)| {
        let named = named_by(files, volume);
        match script {
            Script::Missing(path) => {
                let hit = |remedy| Hit::new(volume, format!("`{}` does not exist{named}", path.display()), remedy);
                if hookscript::is_ours(volume) {
                    Some(hit(install(path)).fixed_by(Fix::PlaceHookscript(path.clone())))
                } else {
                    Some(hit("put it there, or take it out of the guests".to_owned()))
                }
            }
            Script::Nowhere(reason) => Some(Hit::new(
                volume,
                format!("`{volume}` cannot be found: {reason}{named}"),
                "`pvesm status` shows the storages; name a hookscript on one of them",
            )),
            Script::Ready | Script::NotExecutable(_) | Script::NotOurs(_) => None,
        }
    };
    Ok(files.scripts.iter().filter_map(hit).collect())
}

fn install(path: &Path) -> String {
    format!("`install -D -m 0755 /usr/share/pve-public-ip/hookscripts/pve-public-ip {}`", path.display())
}

pub(super) fn hookscript_not_ours(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let hit = |(volume, script): (&String, &Script)| {
        let Script::NotOurs(path) = script else { return None };
        let sentence = format!("`{}` does not call pve-public-ip{}", path.display(), named_by(files, volume));
        Some(Hit::new(volume, sentence, install(path)))
    };
    Ok(files.scripts.iter().filter_map(hit).collect())
}

pub(super) fn hookscript_not_executable(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let hit = |(volume, script): (&String, &Script)| {
        let Script::NotExecutable(path) = script else { return None };
        let sentence = format!("`{}` is not executable{}", path.display(), named_by(files, volume));
        let hit = Hit::new(volume, sentence, format!("`chmod 0755 {}`", path.display()));
        Some(if hookscript::is_ours(volume) { hit.fixed_by(Fix::MakeExecutable(path.clone())) } else { hit })
    };
    Ok(files.scripts.iter().filter_map(hit).collect())
}

pub(super) fn without_hookscript(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let bare = placed(files).filter(|(_, place)| place.config.hookscript.is_none());
    let hit = |(held, place): (&GuestFile, &Located)| {
        let vmid = held.vmid;
        let there = if place.node == files.inputs.node { String::new() } else { format!("on node {}: ", place.node) };
        let remedy = format!("{there}`{} set {vmid} --hookscript {VOLUME}`", place.config.kind.tool());
        let hit = Hit::new(&guest(vmid), format!("guest {vmid} has public addresses, but no hookscript"), remedy);
        if there.is_empty() { hit.fixed_by(Fix::RegisterHookscript(vmid)) } else { hit }
    };
    Ok(bare.map(hit).collect())
}

pub(super) fn other_hookscript(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let hit = |(held, place): (&GuestFile, &Located)| {
        let other = place.config.hookscript.as_deref().filter(|volume| !hookscript::is_ours(volume))?;
        let (vmid, address) = (held.vmid, held.addresses().next()?.2.address);
        let sentence = format!("guest {vmid} has public addresses, and the hookscript `{other}` instead of ours");
        Some(Hit::new(&guest(vmid), sentence, format!("`pve-public-ip assign {vmid} {address}`")))
    };
    Ok(placed(files).filter_map(hit).collect())
}

pub(super) fn unreadable(view: &View<'_>) -> Observation<Vec<Hit>> {
    let hit = |(vmid, reason): (&Vmid, &String)| {
        Hit::new(&guest(*vmid), reason.clone(), "`systemctl status pve-cluster` tells whether /etc/pve is well")
    };
    Ok(view.files()?.unreadable.iter().map(hit).collect())
}

pub(super) fn assignment_problem(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let index = view.index(files);
    let own = files.inputs.links.by_address();
    let problems = placed(files)
        .flat_map(|(held, _)| check_guest(&files.inputs, index, held).into_iter().chain(check_own(&own, held)));
    let hit = |problem: crate::plan::Problem| {
        let subject = problem.guest().map(guest).unwrap_or_default();
        Hit::new(&subject, problem.sentence, problem.hint)
    };
    Ok(problems.map(hit).collect())
}

pub(super) fn on_other_node(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let found = placed(files).flat_map(|(held, place)| misplaced(&files.inputs.registry.pools, held, &place.node));
    let hit = |misplaced: Misplaced| Hit::new(&guest(misplaced.vmid), misplaced.to_string(), misplaced.hint());
    Ok(found.filter(|misplaced| !misplaced.is_refused()).map(hit).collect())
}

pub(super) fn beside_bridges(view: &View<'_>) -> Observation<Vec<Hit>> {
    let hits = here(view.files()?).flat_map(|(vmid, config)| {
        let hit = move |by: String| {
            let by = one_line(&by);
            let remedy = format!(
                "give it a NIC on a bridge (`{} set {vmid} --net0 ...`), and take that out of its configuration",
                config.kind.tool()
            );
            Hit::new(&guest(vmid), format!("guest {vmid} is on a network by `{by}`, not by a port of a bridge"), remedy)
        };
        config.beside_bridges().into_iter().map(hit)
    });
    Ok(hits.collect())
}

pub(super) fn passed_through(view: &View<'_>) -> Observation<Vec<Hit>> {
    let hits = here(view.files()?).filter_map(|(vmid, config)| {
        let devices: Vec<String> =
            config.passed_through().iter().map(|device| format!("`{}`", one_line(device))).collect();
        let sentence = format!("guest {vmid} has devices of the node for itself: {}", devices.join(", "));
        (!devices.is_empty()).then(|| Hit::new(&guest(vmid), sentence, ""))
    });
    Ok(hits.collect())
}

pub(super) fn pending_change(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let index = view.index(files);
    let waiting = placed(files).filter(|(_, place)| place.node == files.inputs.node);
    let problems = waiting.flat_map(|(held, place)| check_pending(&files.inputs.registry, index, held, &place.config));
    let hit = |problem: crate::plan::Problem| {
        Hit::new(&problem.guest().map(guest).unwrap_or_default(), problem.sentence, problem.hint)
    };
    Ok(problems.map(hit).collect())
}

pub(super) fn orphaned(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let gone = holders(files).filter(|(held, place)| place.is_none() && !files.unreadable.contains_key(&held.vmid));
    let hit = |(held, _): (&GuestFile, _)| {
        let vmid = held.vmid;
        let addresses = listed(held.addresses().map(|(.., assigned)| assigned.address.to_string()));
        let sentence = format!("guest {vmid} does not exist, but {addresses} is assigned to it");
        Hit::new(&guest(vmid), sentence, format!("if it was destroyed: `pve-public-ip release {vmid}`"))
    };
    Ok(gone.map(hit).collect())
}

pub(super) fn clone_or_restore(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let index = view.index(files);
    let guests = &files.inputs.registry.guests;
    // One that has released its last address is still known: its file says what hookscript it had before.
    let strangers = files.inputs.guests.iter().filter(|(vmid, _)| !guests.contains_key(vmid));
    let hit = |(vmid, place): (&Vmid, &Located)| {
        let ours = place.config.hookscript.as_deref().is_some_and(hookscript::is_ours);
        let problem = check_stranger(index, *vmid, &place.config, ours)?;
        Some(Hit::new(&guest(*vmid), problem.sentence, problem.hint))
    };
    Ok(strangers.filter_map(hit).collect())
}

pub(super) fn duplicate_mac(view: &View<'_>) -> Observation<Vec<Hit>> {
    let inputs = &view.files()?.inputs;
    let guests = || inputs.guests.iter().map(|(vmid, place)| (*vmid, place));
    // Of another node's guests nobody here sees the MAC.
    let here = guests().filter(|(_, place)| place.node == inputs.node);
    let shared = macs_of_two_nics(guests(), &inputs.registry).into_iter().chain(macs_of_the_node(here, &inputs.links));
    Ok(shared.map(|shared| Hit::new(&shared.mac, shared.sentence, shared.remedy)).collect())
}

pub(super) fn mac_unknown_to_provider(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let pools = &files.inputs.registry.pools.pools;
    let punishes = |stranger: &Stranger<'_>| {
        let bridge = pools[stranger.pool].bridge;
        let mut shared = pools.values().filter(|pool| pool.bridge == bridge);
        let advised = |pool: &Pool| pool.enforce() == Enforce::On && pool.usual_guard() == UplinkGuard::Enforce;
        stranger.guard != UplinkGuard::Enforce && shared.any(advised)
    };
    let hit = |Stranger { vmid, nic, mac, pool, .. }: Stranger<'_>| {
        let sentence = format!("guest {vmid} {nic} sends to the provider with {mac}, which no pool knows");
        let remedy = format!(
            "`pve-public-ip pool set {pool} --uplink-guard enforce --yes`; if the provider knows this MAC: \
             `pve-public-ip pool set {pool} --allow-mac {mac}`"
        );
        Hit::new(&guest(vmid), sentence, remedy)
    };
    Ok(strangers(&files.inputs).into_iter().filter(punishes).map(hit).collect())
}

pub(super) fn mac_kept_back(view: &View<'_>) -> Observation<Vec<Hit>> {
    let found = crate::plan::unregistered(&view.files()?.inputs).into_iter();
    Ok(found.map(|note| Hit::new(&note.guest().map(guest).unwrap_or_default(), note.sentence, note.hint)).collect())
}

pub(super) fn ipfilter_drops(view: &View<'_>) -> Observation<Vec<Hit>> {
    ipfilter(view, true)
}

pub(super) fn ipfilter_would_drop(view: &View<'_>) -> Observation<Vec<Hit>> {
    ipfilter(view, false)
}

/// NICs whose ipfilter set does not have an assigned address, where the firewall is on, or where it is not.
fn ipfilter(view: &View<'_>, on: bool) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let mut hits = Vec::new();
    for (held, place) in placed(files).filter(|(held, _)| files.firewall.is_on_for(held.vmid) == on) {
        for (id, interface) in &held.interfaces {
            let filtered = place.config.nics.get(id).and_then(|nic| nic.as_ref().ok()).is_some_and(|nic| nic.firewall);
            let dropped = interface.addresses.iter().filter(|_| filtered).filter_map(|assigned| {
                let set = files.firewall.dropping_set(held.vmid, &place.config, *id, assigned.address)?;
                Some((set, assigned.address.to_string()))
            });
            let dropped: Vec<(String, String)> = dropped.collect();
            let Some((set, _)) = dropped.first() else { continue };
            let addresses = dropped.iter().map(|(_, address)| address.clone());
            let (vmid, path) = (held.vmid, format!("/etc/pve/firewall/{}.fw", held.vmid));
            let sentence = format!("guest {vmid} {id}: the set {set} in `{path}` does not have {}", listed(addresses));
            let lines: Vec<&str> = dropped.iter().map(|(_, address)| address.as_str()).collect();
            let remedy = format!("below `[IPSET {set}]` in `{path}` add, a line each: {}", lines.join(", "));
            hits.push(Hit::new(&guest(vmid), sentence, remedy));
        }
    }
    Ok(hits)
}

pub(super) fn proxmox_firewall(view: &View<'_>) -> Observation<Vec<Hit>> {
    let firewall = &view.files()?.firewall;
    let kind = if firewall.host.is_on("nftables", false) { "nftables" } else { "iptables" };
    let hit = || Hit::new("firewall", format!("Proxmox VE's firewall is on, by {kind}"), "");
    Ok(firewall.is_on().then(hit).into_iter().collect())
}

/// Nodes on which the hookscript of a guest with assignments is not to be had.
pub(super) fn hookscript_not_everywhere(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let volumes: BTreeSet<&str> = placed(files)
        .filter_map(|(_, place)| place.config.hookscript.as_deref())
        .filter(|it| hookscript::is_ours(it))
        .collect();
    let others = || files.nodes.iter().filter(|node| **node != files.inputs.node);
    let mut hits = Vec::new();
    for volume in volumes {
        let name = volume.split(':').next().unwrap_or_default();
        let without: Vec<&NodeName> = match files.storages.get(name) {
            Some(_) if volume == VOLUME => {
                let lacks = |node: &&NodeName| files.releases.get(*node).is_some_and(|note| !note.hookscript);
                others().filter(lacks).collect()
            }
            Some(storage) => others().filter(|node| !storage.is_on(node)).collect(),
            // Told as missing.
            None => continue,
        };
        if !without.is_empty() {
            let sentence = format!("`{volume}` is not on {}", listed(without));
            let remedy =
                format!("install pve-public-ip there; or register `{VOLUME}`, which the package puts on every node");
            hits.push(Hit::new(volume, sentence, remedy));
        }
    }
    Ok(hits)
}

pub(super) fn snippets_not_everywhere(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let mut told: BTreeMap<&str, BTreeSet<Vmid>> = BTreeMap::new();
    for (held, place) in placed(files) {
        let ours = place.config.cicustom().into_values().filter(|volume| volume.contains(":snippets/pve-public-ip-"));
        for storage in ours.filter_map(|volume| volume.split(':').next()) {
            told.entry(storage).or_default().insert(held.vmid);
        }
    }
    let hit = |(name, guests): (&str, BTreeSet<Vmid>)| {
        let sees = |node: &NodeName| {
            let storage = files.storages.get(name).filter(|storage| storage.is_on(node));
            storage.is_some_and(|storage| storage.is_shared() || *node == files.inputs.node)
        };
        let without: Vec<&NodeName> = files.nodes.iter().filter(|node| !sees(node)).collect();
        let sentence = format!(
            "cloud-init data on storage {name} is not to be had on {}; guests that name it: {}",
            listed(&without),
            listed(guests)
        );
        let remedy = "`pve-public-ip setup --yes` makes a storage that every node has; then assign again";
        (!without.is_empty()).then(|| Hit::new(&format!("storage {name}"), sentence, remedy))
    };
    Ok(told.into_iter().filter_map(hit).collect())
}

pub(super) fn storage_without_snippets(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let volumes = placed(files).filter_map(|(_, place)| place.config.hookscript.as_deref());
    let names: BTreeSet<&str> = volumes.filter_map(|volume| Some(volume.split_once(':')?.0)).collect();
    let hit = |name: &str| {
        let storage = files.storages.get(name).filter(|storage| !storage.takes_snippets())?;
        let content = storage.settings.get("content").map(String::as_str).unwrap_or_default();
        let sentence = format!("storage {name} has hookscripts of guests, but not the content `snippets`");
        let content = if content.is_empty() { "snippets".to_owned() } else { format!("{content},snippets") };
        Some(Hit::new(&format!("storage {name}"), sentence, format!("`pvesm set {name} --content {content}`")))
    };
    Ok(names.into_iter().filter_map(hit).collect())
}

pub(super) fn template(view: &View<'_>) -> Observation<Vec<Hit>> {
    let templates = placed(view.files()?).filter(|(_, place)| place.config.template);
    let hit = |(held, _): (&GuestFile, _)| {
        let vmid = held.vmid;
        let remedy = format!("if that is not meant: `pve-public-ip release {vmid}`");
        Hit::new(&guest(vmid), format!("guest {vmid} is a template and holds public addresses"), remedy)
    };
    Ok(templates.map(hit).collect())
}
