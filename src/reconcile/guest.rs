//! The scope of one guest: what its start and stop change, in milliseconds.
//!
//! Its share is not read from the network, but looked up: the elements that are wanted, and those that its mark says were
//! applied. All else of it is set or removed again, which is idempotent.

use std::collections::{BTreeMap, BTreeSet};

use super::marks::{binding_changes, presence_of};
use super::network::{Network, Which};
use super::node::node_basis;
use super::{Carried, Mode, Node, ReconcileError, Reconciler, Report, VLAN_BRIDGES};
use crate::guest::{GuestConfig, Located};
use crate::model::{GuestKind, IfName, NicId, NodeName, PoolName, Vmid};
use crate::plan::{
    Failed, Inputs, NetState, Obstacles, Presence, Problem, Refusal, Rules, Subject, Support, check_own, desired_for,
    diff, is_filtered_by_chains, pool_bridges, support_problems,
};
use crate::registry::Registry;
use crate::registry::document::{GuestFile, Mode as PoolMode, PoolsFile};
use crate::ruleset::{Backend, Element, SetId, Table};
use crate::store::journal::Durability;
use crate::system::KernelError;
use crate::system::run::{Mark, MarkPhase, RunState};

/// One guest on this node.
#[derive(Debug, Clone, Copy)]
pub struct GuestScope<'a> {
    /// The node.
    pub node: &'a Node,
    /// Its number.
    pub vmid: Vmid,
    /// Where it comes from, if it arrives by live migration.
    pub migrated_from: Option<&'a NodeName>,
}

/// What becomes of a guest's share. `sources` are the fingerprints of the files that its pools were read from.
#[derive(Debug)]
pub enum Transition<'a> {
    /// It is bound; `inputs` get the interfaces as they are.
    Bind {
        /// Its assignments, as they are to be enforced.
        file: &'a GuestFile,
        /// How far it is.
        phase: MarkPhase,
        /// Its part of what decisions depend on.
        inputs: &'a mut Inputs,
        /// Of what the pools were made.
        sources: &'a BTreeMap<String, u64>,
    },
    /// It has stopped: its bindings are removed, its addresses stay reserved.
    Unbind {
        /// What was applied.
        mark: &'a Mark,
        /// The pools as far as it needs them.
        pools: &'a PoolsFile,
        /// Of what the pools were made.
        sources: &'a BTreeMap<String, u64>,
    },
}

impl Reconciler<'_> {
    /// Brings one guest's share in line.
    pub(super) fn guest(
        &mut self,
        guest: &GuestScope<'_>,
        transition: Transition<'_>,
    ) -> Result<Report, ReconcileError> {
        match transition {
            Transition::Bind { file, phase, inputs, sources } => self.bind(guest, file, phase, inputs, sources),
            Transition::Unbind { mark, pools, sources } => self.unbind(guest, mark, pools, sources),
        }
    }

    fn bind(
        &mut self,
        guest: &GuestScope<'_>,
        file: &GuestFile,
        phase: MarkPhase,
        inputs: &mut Inputs,
        sources: &BTreeMap<String, u64>,
    ) -> Result<Report, ReconcileError> {
        let (node, run, vmid) = (self.node, self.run, guest.vmid);
        let kind = inputs.guests[&vmid].config.kind;
        let known = run.mark(vmid);
        guest.look_around(run, self.network, inputs, file, phase)?;
        let held = file.addresses().filter_map(|(.., assigned)| assigned.address.single()).collect();
        let own = self.network.links(Which::Holding(&held))?.by_address();
        if let Some(Problem { sentence, hint, .. }) = check_own(&own, file) {
            return Err(ReconcileError::Refused(Refusal { sentence, hint }));
        }
        let mut mark = Mark::now(phase, kind, file.clone());
        if inputs.presence.get(&vmid) == Some(&Presence::Starting) {
            // A port that is there already: the guest runs, or ran a moment ago. `apply` sees it in the same way.
            let presence = presence_of(vmid, kind, true, Some(&mark), &inputs.links);
            inputs.presence.extend(presence.map(|presence| (vmid, presence)));
        }
        let is_routed = |guest| is_filtered_by_chains(inputs.backend, &inputs.registry, guest);
        let by_chains = is_routed(file) || known.as_ref().is_some_and(|mark| is_routed(&mark.applied));
        // What other guests hold with it is in no single guest's share.
        let shares = file.shares() || known.as_ref().is_some_and(|mark| mark.applied.shares());
        let mut wanted = desired_for(inputs, file);
        mark.support = wanted.support.clone();
        let before = match &known {
            Some(mark) => guest.recorded(self.network, mark, &inputs.registry.pools)?,
            None => NetState::default(),
        };
        // What the guest no longer needs of a table may be other guests'.
        wanted.routed_rules = wanted.routed_rules.max(before.routed_rules);
        wanted.support.extend(guest.held_by_others(run, &before.support.without(&mark.support)));
        let keeps_gateways = before.support.without(&wanted.support).gateways.is_empty();
        if self.network.rules(Table::Bridge)? != Rules::Absent {
            guest.check_holders(run, self.network, &wanted, &before, file, kind)?;
        }
        run.set_mark(vmid, &mark)?;
        let basis = node_basis(sources, &inputs.registry.pools, &inputs.links);
        // What Proxmox VE has made for this guest since pre-start is nobody's business yet.
        let taken_in: BTreeSet<(IfName, u32)> = RunState::note(&node.paths, VLAN_BRIDGES).unwrap_or_default();
        let is_alone = keeps_gateways && !by_chains && !shares && inputs.vlan_bridges().is_subset(&taken_in);
        if !is_alone || !self.are_loaded(&wanted)? || !run.node_applied(&basis) {
            let report = node.reconcile_by(run, &mut node.read_sources()?, Mode::Apply)?;
            guest.refuse_for(&report, &inputs.registry, file)?;
            // A port left over from before may have made the guest look started already.
            run.set_mark(vmid, &mark)?;
        }
        let report = self.bring(&wanted, &before, &inputs.registry)?;
        if report.failed.is_empty() {
            node.store.journal.record(binding_changes(known.as_ref(), Some(&mark)), Durability::Soon);
        }
        Ok(report)
    }

    fn unbind(
        &mut self,
        guest: &GuestScope<'_>,
        mark: &Mark,
        pools: &PoolsFile,
        sources: &BTreeMap<String, u64>,
    ) -> Result<Report, ReconcileError> {
        let (node, run, vmid) = (self.node, self.run, guest.vmid);
        let registry = Registry { pools: pools.clone(), ..Registry::default() };
        let own_ports = ports(&mark.applied, mark.kind);
        let devices = own_ports.union(&pool_bridges(&registry)).copied().collect();
        let links = self.network.links(Which::Named(&devices))?;
        let left_ports: Vec<u32> =
            own_ports.iter().filter_map(|port| links.get(*port)).map(|link| link.index).collect();
        let stopped = Mark { phase: MarkPhase::Stopped, left_ports: left_ports.clone(), ..mark.clone() };
        run.set_mark(vmid, &stopped)?;

        let basis = node_basis(sources, pools, &links);
        let recorded = guest.recorded(self.network, mark, pools)?;
        let wanted = NetState {
            routed_rules: recorded.routed_rules,
            support: guest.held_by_others(run, &mark.support),
            ..guest.stopped_share(&mark.applied)
        };
        // A gateway that goes can take with it what other guests need.
        let keeps_gateways = mark.support.without(&wanted.support).gateways.is_empty();
        let by_chains = run.backend().is_some_and(|note| is_filtered_by_chains(note.backend, &registry, &mark.applied));
        let is_alone = keeps_gateways && !by_chains && !mark.applied.shares();
        let report = if is_alone && self.are_loaded(&recorded)? && run.node_applied(&basis) {
            let guests = [(vmid, mark.applied.clone())].into();
            self.bring(&wanted, &recorded, &Registry { guests, ..registry })?
        } else {
            // The table was removed, or the bridge has another MAC now that the port is gone.
            let report = node.reconcile_by(run, &mut node.read_sources()?, Mode::Apply)?;
            guest.refuse_for(&report, &registry, &mark.applied)?;
            Report::default()
        };
        if report.failed.is_empty() {
            if left_ports.is_empty() {
                run.clear_mark(vmid);
            }
            node.store.journal.record(binding_changes(Some(mark), Some(&stopped)), Durability::Soon);
        }
        Ok(report)
    }

    /// Carries out what leads from the share that was recorded to the one that is wanted.
    fn bring(&mut self, wanted: &NetState, recorded: &NetState, registry: &Registry) -> Result<Report, ReconcileError> {
        let observed = observe_share(self.network, wanted, recorded)?;
        let steps = diff(wanted, &observed);
        let Carried { done: steps, failed, was_refused } = self.carry_out(steps, &Obstacles::default(), registry);
        Ok(Report { steps, failed, was_refused, ..Report::default() })
    }

    /// Whether the rules are those that a share needs.
    fn are_loaded(&mut self, share: &NetState) -> Result<bool, ReconcileError> {
        for table in Table::ALL.into_iter().filter(|table| share.rules_of(*table) > Rules::Absent) {
            if self.network.rules(table)? != Rules::Loaded {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl GuestScope<'_> {
    /// Looks up what the guest's share depends on: interfaces, and of a routed one the ways to the world and its filter.
    fn look_around(
        &self,
        run: &RunState,
        network: &mut dyn Network,
        inputs: &mut Inputs,
        file: &GuestFile,
        phase: MarkPhase,
    ) -> Result<(), ReconcileError> {
        let kind = inputs.guests[&self.vmid].config.kind;
        let devices = self.devices(inputs, file);
        inputs.links = network.links(Which::Named(&devices.union(&self.ports(file, kind)).copied().collect()))?;
        if !inputs.registry.has_routed() {
            return Ok(());
        }
        inputs.links.0.extend(network.links(Which::Around(&devices))?.0);
        inputs.exits = network.exits()?;
        inputs.registry.node = self.node.store.node_file();
        inputs.backend = self.backend(run, &inputs.registry)?;
        let named = inputs.registry.node.as_ref().and_then(|node| node.route_uplink);
        let ways = inputs.exits.routes.iter().map(|route| route.device).chain(named).collect();
        let ways = network.links(Which::Named(&ways))?;
        let masters = ways.0.values().filter_map(|link| link.master).collect();
        inputs.links.0.extend(ways.0);
        inputs.links.0.extend(network.links(Which::Named(&masters))?.0);
        let said = if phase == MarkPhase::Starting {
            let mut around = inputs.clone();
            if around.exits.routes.is_empty() {
                // Whatever is wrong there is not to be seen at the guest's bridge.
                around.links = network.links(Which::All)?;
            }
            support_problems(&around)
        } else {
            BTreeSet::new()
        };
        for Problem { sentence, hint, .. } in said {
            log::warn!("{sentence}");
            log::warn!("hint: {hint}");
        }
        Ok(())
    }

    /// What failed of the whole node's steps counts here as far as this guest is not protected without it, or is its own.
    fn refuse_for(&self, report: &Report, registry: &Registry, file: &GuestFile) -> Result<(), ReconcileError> {
        let pools: BTreeSet<PoolName> = file.addresses().map(|(.., assigned)| assigned.pool.clone()).collect();
        let is_routed =
            pools.iter().filter_map(|name| registry.pools.pools.get(name)).any(|pool| pool.mode() == PoolMode::Routed);
        let concerns = |failed: &&Failed<Refusal>| {
            failed.subject == Subject::Guest(self.vmid) || failed.leaves_unprotected(self.vmid, &pools, is_routed)
        };
        let (own, others): (Vec<_>, Vec<_>) = report.failed.iter().partition(concerns);
        for failed in others {
            log::info!("{}", failed.problem().sentence);
        }
        own.first().map_or(Ok(()), |failed| {
            let Problem { sentence, hint, .. } = failed.problem();
            Err(ReconcileError::Refused(Refusal { sentence, hint }))
        })
    }

    /// What filters routed traffic.
    fn backend(&self, run: &RunState, registry: &Registry) -> Result<Backend, ReconcileError> {
        let mut settings = Registry { pools: registry.pools.clone(), ..Registry::default() };
        settings.node = self.node.store.node_file();
        settings.broken.extend(self.node.store.load_node().and_then(Result::err));
        Ok(self.node.routed_filter(run, &settings, Mode::Apply)?.backend)
    }

    /// The share that a mark says was applied.
    fn recorded(&self, network: &mut dyn Network, mark: &Mark, pools: &PoolsFile) -> Result<NetState, ReconcileError> {
        let config = match self.node.guests.find(self.vmid, self.migrated_from) {
            Ok(located) => located.config,
            Err(_) => GuestConfig::parse(mark.kind, b""),
        };
        let config = GuestConfig { kind: mark.kind, ..config };
        let located = Located { node: self.node.name.clone(), config };
        let mut inputs = self.inputs(pools.clone(), &mark.applied, located);
        let devices = self.devices(&inputs, &mark.applied);
        inputs.links =
            network.links(Which::Named(&devices.union(&self.ports(&mark.applied, mark.kind)).copied().collect()))?;
        inputs.presence.insert(self.vmid, Presence::Running);
        let mut share = NetState { support: mark.support.clone(), ..desired_for(&inputs, &mark.applied) };
        // These are the node's share: a pool may name the MAC too.
        let of_node = [SetId::ReservedMac, SetId::ReservedLladdr, SetId::RegisteredMac];
        share.elements.retain(|element| !of_node.contains(&element.set()));
        Ok(share)
    }

    /// What stays of a guest that does not run here: its MACs are nobody else's.
    fn stopped_share(&self, applied: &GuestFile) -> NetState {
        let registered = match self.node.store.load_guest(self.vmid) {
            Some((Ok(file), _)) => file,
            None => GuestFile::new(self.vmid),
            Some((Err(_), _)) => applied.clone(),
        };
        let located = Located { node: self.node.name.clone(), config: GuestConfig::parse(GuestKind::Qemu, b"") };
        desired_for(&self.inputs(PoolsFile::default(), &registered, located), &registered)
    }

    /// What of this other guests that run here need too.
    fn held_by_others(&self, run: &RunState, support: &Support) -> Support {
        let (mut held, mut left) = (Support::default(), support.clone());
        for vmid in run.marked().into_iter().filter(|vmid| *vmid != self.vmid) {
            if left.is_empty() {
                break;
            }
            let Some(mark) = run.mark(vmid).filter(|mark| mark.phase != MarkPhase::Stopped) else { continue };
            let not_here = left.without(&mark.support);
            held.extend(left.without(&not_here));
            left = not_here;
        }
        held
    }

    pub(crate) fn inputs(&self, pools: PoolsFile, file: &GuestFile, located: Located) -> Inputs {
        let guests = [(self.vmid, file.clone())].into();
        let registry = Registry { pools, guests, ..Registry::default() };
        let note = RunState::unlocked(&self.node.paths).backend();
        let backend = note.map(|note| note.backend).unwrap_or_default();
        Inputs { backend, ..Inputs::new(self.node.name.clone(), registry, BTreeMap::from([(self.vmid, located)])) }
    }

    /// The guest's ports, also behind the NIC firewall.
    fn ports(&self, file: &GuestFile, kind: GuestKind) -> BTreeSet<IfName> {
        let halves =
            |nic: &NicId| [GuestKind::firewall_port(self.vmid, *nic), GuestKind::firewall_link(self.vmid, *nic)];
        let outer = file.interfaces.keys().flat_map(halves);
        ports(file, kind).into_iter().chain(outer).collect()
    }

    /// Interfaces of the node that the guest's share depends on.
    pub(crate) fn devices(&self, inputs: &Inputs, file: &GuestFile) -> BTreeSet<IfName> {
        let mut devices = pool_bridges(&inputs.registry);
        let config = &inputs.guests[&self.vmid].config;
        for (nic, _, assigned) in file.addresses() {
            let Some(pool) = inputs.registry.pools.pools.get(&assigned.pool) else { continue };
            let tag = config.tag(nic);
            for separator in tag.map(|_| [".", "v"]).into_iter().flatten() {
                devices.extend(format!("{}{separator}{}", pool.bridge, tag.unwrap_or_default()).parse::<IfName>());
            }
        }
        devices
    }

    pub(crate) fn is_incoming(&self, located: &Located) -> bool {
        self.migrated_from.is_some() && located.node != self.node.name
    }

    /// Refuses an address or MAC that the kernel has bound to another port: somebody runs with it on this node.
    fn check_holders(
        &self,
        run: &RunState,
        network: &mut dyn Network,
        wanted: &NetState,
        before: &NetState,
        file: &GuestFile,
        kind: GuestKind,
    ) -> Result<(), ReconcileError> {
        let mut pairs: Vec<(String, Element, Element)> = Vec::new();
        for (nic, interface, assigned) in file.addresses() {
            let port = kind.port(self.vmid, nic);
            let net = assigned.address.net();
            let bound = Element::bound_address(net).into_iter().zip(Element::port_address(port, interface.mac, net));
            pairs.extend(bound.take(1).map(|(bound, own)| (assigned.address.to_string(), bound, own)));
            let own = Element::port_mac(port, interface.mac).into_iter().take(1);
            let mac = Element::mac(SetId::BoundMac, interface.mac);
            pairs.extend(own.map(|own| (format!("MAC {}", interface.mac), mac.clone(), own)));
        }
        let asked = pairs.iter().flat_map(|(_, bound, own)| [bound.clone(), own.clone()]).collect();
        let found = network.find(&asked)?;
        // Two NICs of one guest that share an assignment vouch for each other.
        let owned_here = |what: &str| pairs.iter().any(|(other, _, own)| other == what && found.contains(own));
        let news = |bound: &Element| wanted.elements.contains(bound) && !before.elements.contains(bound);
        for (what, bound, _) in pairs.iter().filter(|(_, bound, _)| news(bound)) {
            if found.contains(bound) && !owned_here(what) {
                let holder = run.marked().into_iter().find(|vmid| {
                    *vmid != self.vmid && run.mark(*vmid).is_some_and(|mark| share_overlaps(&mark.applied, file))
                });
                let whom = holder.map_or_else(|| "another guest".to_owned(), |vmid| format!("guest {vmid}"));
                return Err(ReconcileError::Refused(Refusal {
                    sentence: format!("{what} of guest {} is in use by {whom} on this node", self.vmid),
                    hint: "`pve-public-ip verify` says more; after a crash `pve-public-ip apply` cleans up".to_owned(),
                }));
            }
        }
        Ok(())
    }
}

fn ports(file: &GuestFile, kind: GuestKind) -> BTreeSet<IfName> {
    file.interfaces.keys().map(|nic| kind.port(file.vmid, *nic)).collect()
}

/// One guest's share as it would be if nothing of it were in the kernel but what `find` confirms.
fn observe_share(network: &mut dyn Network, wanted: &NetState, recorded: &NetState) -> Result<NetState, KernelError> {
    let keys = wanted.elements.union(&recorded.elements).cloned().collect();
    Ok(NetState {
        rules: wanted.rules,
        routed_rules: wanted.routed_rules,
        // They are the whole node's.
        chains: BTreeMap::new(),
        ipsets: BTreeMap::new(),
        elements: network.find(&keys)?,
        deaf_bridges: wanted.deaf_bridges.clone(),
        // A port may be new: set again.
        screened_ports: BTreeSet::new(),
        fixed_macs: wanted.fixed_macs.clone(),
        own_entries: wanted.own_entries.clone(),
        // Not asked for: what is wanted is set (again), what is only recorded is removed. Both are idempotent.
        forwarding: recorded
            .forwarding
            .iter()
            .filter(|(key, _)| !wanted.forwarding.contains_key(key))
            .map(|(k, v)| (*k, v.clone()))
            .collect(),
        support: recorded.support.without(&wanted.support),
        neighbours: recorded
            .neighbours
            .iter()
            .filter(|(key, _)| !wanted.neighbours.contains_key(key))
            .map(|(k, v)| (*k, *v))
            .collect(),
        routes: recorded
            .routes
            .iter()
            .filter(|(net, _)| !wanted.routes.contains_key(net))
            .map(|(k, v)| (*k, *v))
            .collect(),
    })
}

/// Whether two guests' assignments have an address or a MAC in common.
fn share_overlaps(one: &GuestFile, two: &GuestFile) -> bool {
    one.addresses().any(|(_, interface, assigned)| {
        two.addresses()
            .any(|(_, other, wanted)| interface.mac == other.mac || assigned.address.overlaps(wanted.address))
    })
}
