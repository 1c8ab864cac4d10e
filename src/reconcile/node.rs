//! The scope of the whole node.

use std::collections::{BTreeMap, BTreeSet};

use super::announce::{Greetings, announce_addresses, greet, send_greetings};
use super::baseline::Left;
use super::filter::additive;
use super::marks::{compare, forget, note};
use super::network::Extent;
use super::{Carried, Mode, ReconcileError, Reconciler, Report, Sources, Trust, VLAN_BRIDGES, add_failures};
use crate::links::Links;
use crate::plan::{Desired, NetState, Rules, Step, Subject, desired, diff, is_idle, notes, port_programs, settle};
use crate::registry::document::PoolsFile;
use crate::store::journal::Durability;
use crate::system::run::{BackendNote, RunState};

impl Reconciler<'_> {
    /// As [`Self::node`], from how the last one left the network, and notes how this one leaves it.
    pub(super) fn node_since(
        &mut self,
        sources: &mut Sources,
        trust: Trust,
        left: &mut Left,
    ) -> Result<Report, ReconcileError> {
        let before = self.network.generation()?;
        let backend = sources.backend();
        // Of an iptables that cannot be asked nothing is known; the reconciliation itself says why, and does the rest.
        let chains = self.network.chains_mark(backend).unwrap_or_default();
        let is_exact = left.is_exact_at(before, chains);
        left.is_exact = false;
        let report = self.node(sources, trust, is_exact.then_some(&mut left.state))?;
        let is_same = backend == sources.backend() && !report.steps.iter().any(Step::is_of_chains);
        left.chains = if is_same { chains } else { self.network.chains_mark(sources.backend()).unwrap_or_default() };
        let own = report.steps.iter().filter(|step| step.is_transaction()).count();
        let after = self.network.generation()?;
        // If there were others meanwhile, they have to be looked at.
        let is_alone = usize::try_from(after.wrapping_sub(before)).is_ok_and(|count| count == own);
        left.generation = if is_alone { after } else { before };
        left.is_exact = is_alone && trust == Trust::Whole && sources.are_whole() && report.failed.is_empty();
        Ok(report)
    }

    /// `left` is how the filter was left, if nobody has touched it since: it is not read then.
    pub(super) fn node(
        &mut self,
        sources: &mut Sources,
        trust: Trust,
        left: Option<&mut NetState>,
    ) -> Result<Report, ReconcileError> {
        let (node, run, mode) = (self.node, self.run, self.mode);
        let macs_before = sources.macs();
        sources.look_at_network(self.network)?;
        let unreadable = node.look_at_guests(run, sources);
        node.look_at_routers(self.network, &mut sources.inputs, mode)?;
        let filter = node.routed_filter(run, &sources.inputs.registry, mode)?;
        sources.inputs.backend = filter.backend;
        let inputs = &sources.inputs;
        let Desired { state, mut problems } = desired(inputs);
        // Of a guest whose configuration cannot be read nothing else is known.
        problems.retain(|problem| unreadable.iter().all(|other| other.guest() != problem.guest()));
        problems.extend(unreadable);
        let (mut observed, foreign) = match &left {
            Some(left) => {
                let (found, foreign) = self.network.observe(Extent::BesideFilter, &inputs.links, &state)?;
                (NetState { rules: left.rules, routed_rules: left.routed_rules, ..found }, foreign)
            }
            None => self.network.observe(Extent::Whole(&filter.variants), &inputs.links, &state)?,
        };
        let obstacles = settle(&state, &mut observed, &foreign, &inputs.links);
        // Borrowed, because to copy it would cost as much as to read it.
        let mut borrowed = left;
        if let Some(left) = &mut borrowed {
            observed.swap_filter(left);
        }
        // Before the first pool there is nothing to load, either.
        let is_idle =
            is_idle(&inputs.registry) && observed.rules == Rules::Absent && observed.routed_rules == Rules::Absent;
        let state = if is_idle { NetState::default() } else { state };
        let mut steps = diff(&state, &observed);
        if trust == Trust::OldButSafe || !inputs.registry.broken.is_empty() {
            // What cannot be read may still be meant: the last known protection stays.
            let kept = node.kept(&inputs.registry, &observed);
            steps = steps.into_iter().filter_map(|step| additive(step, &kept)).collect();
        }
        if let Some(left) = borrowed {
            observed.swap_filter(left);
        }
        let (mut arrived, mut changes) = (Vec::new(), Vec::new());
        let mut greetings = Greetings::new();
        if mode == Mode::Apply && trust == Trust::Whole {
            let news = std::mem::take(&mut sources.news);
            if !news.is_empty() {
                node.store.remember(&news);
            }
            arrived = note(run, inputs, &mut changes)?;
        }
        let Carried { done: steps, failed, was_refused } = self.carry_out(steps, &obstacles, &inputs.registry);
        add_failures(&mut problems, &failed, &obstacles);
        if mode == Mode::Apply {
            // Whose traffic is not led here is not announced.
            arrived.retain(|vmid| failed.iter().all(|failed| failed.subject != Subject::Guest(*vmid)));
            for guest in arrived.iter().filter_map(|vmid| inputs.registry.guests.get(vmid)) {
                announce_addresses(self.network, inputs, guest, &inputs.links);
            }
            greetings = greet(inputs, &arrived, &steps, &macs_before);
            send_greetings(self.network, &greetings);
            if trust == Trust::Whole {
                forget(run, inputs, &mut changes);
                // Guests that start next find that done.
                compare(run, &inputs.registry, &sources.prints);
                let basis = node_basis(&sources.pools_source, &inputs.registry.pools, &inputs.links);
                // As long as something of the node's share is missing, each hook tries again.
                let is_whole = failed.iter().all(|failed| matches!(failed.subject, Subject::Guest(_)));
                let basis = if is_whole { basis } else { Vec::new() };
                run.set_node_applied(&basis);
                let vlans = inputs.vlan_bridges();
                if RunState::note(&node.paths, VLAN_BRIDGES).as_ref() != Some(&vlans) {
                    RunState::set_note(&node.paths, VLAN_BRIDGES, &vlans);
                }
                let unread = foreign.unread_chains.keys().map(|place| place.variant);
                let variants = state.chains.keys().map(|place| place.variant).chain(unread).collect();
                // What cannot be read may have kept chains in place that are not wanted by the rest.
                if filter.variants != variants && inputs.registry.broken.is_empty() {
                    run.set_backend(&BackendNote { variants, ..filter })?;
                }
            }
            node.store.journal.record(changes, Durability::Soon);
        }
        let notes = notes(inputs);
        let ports = port_programs(inputs, &state);
        let unreadable = sources.unreadable();
        let presence = inputs.presence.clone();
        Ok(Report {
            steps,
            failed,
            was_refused,
            problems,
            notes,
            presence,
            desired: state,
            arrived,
            greetings,
            is_idle,
            unreadable,
            ports,
        })
    }
}

/// What the node's share of the state was made of: a line for each pool and bridge. When those that
/// a guest depends on are the same, its hook need not look at that share.
///
/// What has changed of other pools is not the hook's to take in. Whoever is bound can use nothing but what he holds, whatever
/// is reserved besides; and what the others' ports may not use is the guard's to keep up, who sees each change, and `apply`'s.
///
/// A bridge without a fixed MAC takes over that of its ports, so it is part of it.
pub(super) fn node_basis(pools_source: &BTreeMap<String, u64>, pools: &PoolsFile, links: &Links) -> Vec<u8> {
    let mut basis: String = pools_source.iter().map(|(name, print)| format!("{print:016x} {name}\n")).collect();
    for bridge in pools.pools.values().map(|pool| pool.bridge).collect::<BTreeSet<_>>() {
        let link = links.get(bridge).map(|link| (link.mac, &link.addresses, link.bridge));
        basis += &format!("{bridge} {link:?}\n");
    }
    basis.into_bytes()
}
