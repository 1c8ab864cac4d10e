//! The hook: what happens at each phase of a guest's life, in milliseconds, without ever calling Proxmox VE back.
//!
//! Proxmox VE sets no time limit and holds the guest's lock meanwhile; so everything here is local and bounded, and a
//! watchdog in `main` ends the process after [`DEADLINE`]. Phases come twice, late, out of order or never: each does
//! all that it needs by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipnet::IpNet;

use crate::cloudinit::Finding;
use crate::guest::{GuestError, Located};
use crate::hookscript;
use crate::host::command;
use crate::inspect::{self, Moment};
use crate::links::Links;
use crate::model::{GuestKind, IfName, MacAddr, NicId, NodeName, PoolName, Prefix, Vmid};
use crate::plan::{
    Failed, Index, Inputs, NetState, Presence, Problem, Refusal, Rules, Subject, Support, carry_out, check_configured,
    check_filtered, check_guest, check_own, check_stranger, desired_for, diff, is_configured_beyond,
    is_filtered_by_chains, pool_bridges, support_problems,
};
use crate::reconcile::{
    Mode, Node, ReconcileError, Report, VLAN_BRIDGES, announce_addresses, binding_changes, node_basis, observe_share,
    presence_of,
};
use crate::registry::document::{CloudInitCheck, DocumentError, GuestFile, Pool, PoolsFile};
use crate::registry::{Registry, plain};
use crate::ruleset::{Backend, Element, SetId, Table};
use crate::store::StoreError;
use crate::store::journal::Durability;
use crate::system::run::{Mark, MarkPhase, PoolsPart, RunError, RunState, fingerprint};
use crate::system::{FilterError, Kernel, KernelError, Reference};

/// A hook that takes longer ends itself: a start that cannot be protected in this time must not happen.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How much of it may go into waiting for another process that changes the node.
const LOCK_LIMIT: Duration = Duration::from_secs(8);

/// Whether the guest's own script is running.
static WAITING: AtomicBool = AtomicBool::new(false);

/// Whether the hook waits for the guest's own script, which has all the time that it had before it was called by ours.
pub fn waits_for_script() -> bool {
    WAITING.load(Ordering::Relaxed)
}

/// Phase of a hookscript. Source: pve-guest-common `PVE/GuestHelpers.pm`, `exec_hookscript`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Phase {
    /// Before the guest starts; the only phase whose failure stops anything.
    PreStart,
    /// The guest runs.
    PostStart,
    /// An announcement: the guest may live on.
    PreStop,
    /// The guest is gone.
    PostStop,
}

impl Phase {
    /// As Proxmox VE spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PreStart => "pre-start",
            Self::PostStart => "post-start",
            Self::PreStop => "pre-stop",
            Self::PostStop => "post-stop",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Phase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let phases = [Self::PreStart, Self::PostStart, Self::PreStop, Self::PostStop];
        phases.into_iter().find(|phase| phase.as_str() == text).ok_or_else(|| format!("`{text}` is not a hook phase"))
    }
}

/// Why a phase failed. In pre-start this is why the guest does not start.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The assignment cannot be realised.
    #[error("{sentence}")]
    Refused {
        /// What is wrong.
        sentence: String,
        /// What to do.
        hint: String,
    },
    /// The guest's file in the registry is unusable.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Anything on the way.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    /// The guest's own hookscript cannot be run.
    #[error("cannot run the guest's own hookscript `{volume}`: {reason}")]
    ChainedMissing {
        /// The volume.
        volume: String,
        /// Why.
        reason: String,
    },
    /// The guest's own hookscript failed.
    #[error("the guest's own hookscript `{}` failed in {phase} ({status})", path.display())]
    ChainedFailed {
        /// The script.
        path: PathBuf,
        /// The phase.
        phase: Phase,
        /// How it ended.
        status: std::process::ExitStatus,
    },
}

impl HookError {
    /// The administrator's next step.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } => Some(hint.clone()),
            Self::Document(error) => Some(error.hint.clone()),
            Self::Reconcile(error) => error.hint(),
            Self::ChainedMissing { .. } => {
                Some("put the script back, or remove `hookscript` from the guest's registry file".to_owned())
            }
            Self::ChainedFailed { .. } => Some("the messages above are the script's".to_owned()),
        }
    }
}

/// Errors of the layers below become a [`HookError`] by way of [`ReconcileError`].
macro_rules! by_way_of_reconcile {
    ($($type:ty),+) => { $(
        impl From<$type> for HookError {
            fn from(error: $type) -> Self {
                Self::Reconcile(error.into())
            }
        }
    )+ };
}
by_way_of_reconcile!(StoreError, GuestError, RunError, KernelError, FilterError);

/// Runs one phase for one guest. `migrated_from` is the source node of an incoming live migration.
pub fn run(node: &Node, vmid: Vmid, phase: Phase, migrated_from: Option<&NodeName>) -> Result<(), HookError> {
    node.store.check_mounted()?;
    let file = match node.store.load_guest(vmid) {
        Some((Ok(file), bytes)) => Some((file, bytes)),
        // post-stop must go on: what to take out again is in the mark.
        Some((Err(error), _)) if phase == Phase::PostStop => {
            log::warn!("{error}");
            None
        }
        Some((Err(error), _)) => return Err(error.into()),
        None => None,
    };
    let hook = Hook { node, vmid, migrated_from };
    let chained = file.as_ref().and_then(|(file, _)| file.hookscript.clone());
    match phase {
        Phase::PreStart => {
            hook.pre_start(file)?;
            hook.chained(chained.as_deref(), phase)
        }
        Phase::PostStart => {
            hook.post_start(file.map(|(file, _)| file))?;
            hook.chained(chained.as_deref(), phase)
        }
        // Whether or not the guest's own script fails, ours has its part to do.
        Phase::PreStop => hook.chained(chained.as_deref(), phase),
        Phase::PostStop => {
            let own = hook.chained(chained.as_deref(), phase);
            hook.post_stop()?;
            own
        }
    }
}

/// What of the pools' file concerns one guest.
#[derive(Default)]
struct Pools {
    part: PoolsPart,
    is_new: bool,
}

struct Hook<'a> {
    node: &'a Node,
    vmid: Vmid,
    migrated_from: Option<&'a NodeName>,
}

impl Hook<'_> {
    fn pre_start(&self, file: Option<(GuestFile, Vec<u8>)>) -> Result<(), HookError> {
        let located = self.node.guests.find(self.vmid, self.migrated_from)?;
        let Some((file, bytes)) = file else { return self.stranger(&located) };
        if file.is_empty() {
            return Ok(());
        }
        let pools = self.pools(&file, &located.config.configured)?;
        let presence = if self.is_incoming(&located) { Presence::Incoming } else { Presence::Starting };
        let mut inputs = self.inputs(pools.part.pools.clone(), &file, located);
        inputs.presence.insert(self.vmid, presence);
        let mut kernel = Kernel::open(Reference::default())?;
        let config = &inputs.guests[&self.vmid].config;
        let nics = config.nics.values().flatten().filter_map(|nic| nic.bridge);
        let devices = self.devices(&inputs, &file).into_iter().chain(nics).collect();
        inputs.links =
            if inputs.registry.has_routed() { kernel.links_around(&devices)? } else { kernel.links_named(&devices)? };
        drop(kernel);
        if let Some(problem) = check_guest(&inputs, &Index::new(&inputs.registry), &file).into_iter().next() {
            return Err(HookError::Refused { sentence: problem.sentence, hint: problem.hint });
        }
        let config = &inputs.guests[&self.vmid].config;
        if let Some((sentence, hint)) = check_filtered(&inputs.links, &file, config) {
            return Err(HookError::Refused { sentence, hint });
        }
        if is_configured_beyond(&inputs.registry.pools, &file, config) {
            let whole = self.node.store.load_known()?.0.registry;
            if let Some((sentence, hint)) = check_configured(&Index::new(&whole), &file, config) {
                return Err(HookError::Refused { sentence, hint });
            }
        }

        // A guest that comes from another node runs already.
        if presence == Presence::Starting {
            self.check_inside(&inputs, &file)?;
        }

        let run = RunState::lock(&self.node.paths, LOCK_LIMIT)?;
        self.check_conflicts(&run, &bytes)?;
        let phase = if presence == Presence::Incoming { MarkPhase::Incoming } else { MarkPhase::Starting };
        self.bind(&run, &inputs, &file, phase, &pools)?;
        log::info!("guest {} is protected: {}", self.vmid, summary(&file, inputs.guests[&self.vmid].config.kind));
        Ok(())
    }

    fn post_start(&self, file: Option<GuestFile>) -> Result<(), HookError> {
        let Some(file) = file.filter(|file| !file.is_empty()) else { return Ok(()) };
        let located = self.node.guests.find(self.vmid, self.migrated_from)?;
        let pools = self.pools(&file, &located.config.configured)?;
        let incoming = self.is_incoming(&located);
        let run = RunState::lock(&self.node.paths, LOCK_LIMIT)?;
        let mut inputs = self.inputs(pools.part.pools.clone(), &file, located);
        let (presence, phase) =
            if incoming { (Presence::Incoming, MarkPhase::Incoming) } else { (Presence::Running, MarkPhase::Started) };
        inputs.presence.insert(self.vmid, presence);
        let links = self.bind(&run, &inputs, &file, phase, &pools)?;
        // Others need not wait for it.
        drop(run);
        if !incoming {
            announce_addresses(&inputs, &file, &links);
        }
        Ok(())
    }

    fn post_stop(&self) -> Result<(), HookError> {
        let run = RunState::lock(&self.node.paths, LOCK_LIMIT)?;
        let Some(mark) = run.mark(self.vmid) else { return Ok(()) };
        let mut kernel = Kernel::open(self.node.reference(&run)?)?.noting(&run);
        let pools = match self.pools(&mark.applied, &BTreeSet::new()) {
            Err(HookError::Document(_)) => Pools::default(),
            read => read?,
        };
        let registry = Registry { pools: pools.part.pools, ..Registry::default() };
        let own_ports = ports(&mark.applied, mark.kind);
        let links = kernel.links_named(&own_ports.union(&pool_bridges(&registry)).copied().collect())?;
        let left_ports: Vec<u32> =
            own_ports.iter().filter_map(|port| links.get(*port)).map(|link| link.index).collect();
        let stopped = Mark { phase: MarkPhase::Stopped, left_ports: left_ports.clone(), ..mark.clone() };
        run.set_mark(self.vmid, &stopped)?;

        let basis = node_basis(pools.part.source, &registry.pools, &links);
        let recorded = self.recorded(&mut kernel, &mark, &registry.pools)?;
        let wanted = NetState {
            routed_rules: recorded.routed_rules,
            support: self.held_by_others(&run, &mark.support),
            ..self.stopped_share(&mark.applied)
        };
        // A gateway that goes can take with it what other guests need.
        let keeps_gateways = mark.support.without(&wanted.support).gateways.is_empty();
        let by_chains = run.backend().is_some_and(|note| is_filtered_by_chains(note.backend, &registry, &mark.applied));
        let is_alone = keeps_gateways && !by_chains;
        if is_alone && Self::are_loaded(&mut kernel, &recorded)? && run.node_applied(&basis) {
            let observed = observe_share(&mut kernel, &wanted, &recorded)?;
            let inputs = Registry {
                guests: BTreeMap::from([(self.vmid, mark.applied.clone())]),
                pools: registry.pools.clone(),
                ..Registry::default()
            };
            carry_out(diff(&wanted, &observed), &inputs, |step| kernel.apply_step(step)).into_result()?;
        } else {
            // The table was removed, or the bridge has another MAC now that the port is gone.
            let report = self.node.reconcile_locked(&run, Mode::Apply)?;
            self.refuse_for(&report, &registry, &mark.applied)?;
        }
        if left_ports.is_empty() {
            run.clear_mark(self.vmid);
        }
        self.node.store.journal.record(binding_changes(Some(&mark), Some(&stopped)), Durability::Soon);
        log::info!("guest {} has stopped: its bindings are removed, its addresses stay reserved", self.vmid);
        Ok(())
    }

    /// The pools as far as this guest needs them: the entries that hold its addresses, those that it is configured with,
    /// and those of gateways.
    fn pools(&self, file: &GuestFile, configured: &BTreeSet<IpNet>) -> Result<Pools, HookError> {
        let bytes = self.node.store.read_pools();
        let source = fingerprint(&bytes);
        let assigned: BTreeSet<Prefix> = file.addresses().map(|(.., assigned)| assigned.address).collect();
        let names = assigned.iter().map(ToString::to_string);
        let about: BTreeSet<String> = names.chain(configured.iter().map(ToString::to_string)).collect();
        let known = RunState::pools_part(&self.node.paths, self.vmid);
        if let Some(part) = known.filter(|known| known.source == source && known.about.is_superset(&about)) {
            return Ok(Pools { part, is_new: false });
        }
        let (pools, error) = self.node.store.known_pools()?;
        if let Some(DocumentError { hint, .. }) = error.as_ref().inspect(|error| log::warn!("{error}")) {
            log::warn!("hint: {hint}");
            log::warn!("what was known of the pools last counts for guest {}", self.vmid);
        }
        let gateways: BTreeSet<IpAddr> = pools.pools.values().flat_map(Pool::gateways).collect();
        let pools = pools.only(|entry| {
            let mut inside = configured.iter().map(IpNet::addr).chain(gateways.iter().copied());
            assigned.iter().any(|address| entry.contains(*address)) || inside.any(|ip| entry.net().contains(&ip))
        });
        // What is not what the file says is said at every start.
        Ok(Pools { part: PoolsPart { source, about, pools }, is_new: error.is_none() })
    }

    /// Puts the guest's share into the kernel, the whole node's if that is not in place; returns the interfaces that
    /// the guest's share depends on.
    fn bind(
        &self,
        run: &RunState,
        inputs: &Inputs,
        file: &GuestFile,
        phase: MarkPhase,
        pools: &Pools,
    ) -> Result<Links, HookError> {
        if pools.is_new {
            run.set_pools_part(self.vmid, &pools.part);
        }
        let kind = inputs.guests[&self.vmid].config.kind;
        let known = run.mark(self.vmid);
        let mut kernel = Kernel::open(self.node.reference(run)?)?.noting(run);
        let mut inputs = inputs.clone();
        let devices = self.devices(&inputs, file);
        inputs.links = kernel.links_named(&devices.union(&self.ports(file, kind)).copied().collect())?;
        if inputs.registry.has_routed() {
            inputs.links.0.extend(kernel.links_around(&devices)?.0);
            inputs.exits = kernel.exits()?;
            inputs.registry.node = self.node.store.node_file();
            inputs.backend = self.backend(run, &inputs.registry)?;
            let named = inputs.registry.node.as_ref().and_then(|node| node.route_uplink);
            let ways = inputs.exits.routes.iter().map(|route| route.device).chain(named).collect();
            let ways = kernel.links_named(&ways)?;
            let masters = ways.0.values().filter_map(|link| link.master).collect();
            inputs.links.0.extend(ways.0);
            inputs.links.0.extend(kernel.links_named(&masters)?.0);
            let said = if phase == MarkPhase::Starting {
                let mut around = inputs.clone();
                if around.exits.routes.is_empty() {
                    // Whatever is wrong there is not to be seen at the guest's bridge.
                    around.links = kernel.links()?;
                }
                support_problems(&around)
            } else {
                BTreeSet::new()
            };
            for Problem { sentence, hint, .. } in said {
                log::warn!("{sentence}");
                log::warn!("hint: {hint}");
            }
        }
        if let Some(Problem { sentence, hint, .. }) = check_own(&inputs.links.by_address(), file) {
            return Err(HookError::Refused { sentence, hint });
        }
        let mut mark = Mark::now(phase, kind, file.clone());
        if inputs.presence.get(&self.vmid) == Some(&Presence::Starting) {
            // A port that is there already: the guest runs, or ran a moment ago. `apply` sees it in the same way.
            let presence = presence_of(self.vmid, kind, true, Some(&mark), &inputs.links);
            inputs.presence.extend(presence.map(|presence| (self.vmid, presence)));
        }
        let is_routed = |guest| is_filtered_by_chains(inputs.backend, &inputs.registry, guest);
        let by_chains = is_routed(file) || known.as_ref().is_some_and(|mark| is_routed(&mark.applied));
        let mut wanted = desired_for(&inputs, file);
        mark.support = wanted.support.clone();
        let before = match &known {
            Some(mark) => self.recorded(&mut kernel, mark, &inputs.registry.pools)?,
            None => NetState::default(),
        };
        // What the guest no longer needs of a table may be other guests'.
        wanted.routed_rules = wanted.routed_rules.max(before.routed_rules);
        wanted.support.extend(self.held_by_others(run, &before.support.without(&mark.support)));
        let keeps_gateways = before.support.without(&wanted.support).gateways.is_empty();
        if kernel.observe_rules(Table::Bridge)? != Rules::Absent {
            self.check_holders(run, &mut kernel, &wanted, &before, file, kind)?;
        }
        run.set_mark(self.vmid, &mark)?;
        let basis = node_basis(pools.part.source, &inputs.registry.pools, &inputs.links);
        // What Proxmox VE has made for this guest since pre-start is nobody's business yet.
        let taken_in: BTreeSet<(IfName, u32)> = RunState::note(&self.node.paths, VLAN_BRIDGES).unwrap_or_default();
        let is_alone = keeps_gateways && !by_chains && inputs.vlan_bridges().is_subset(&taken_in);
        if !is_alone || !Self::are_loaded(&mut kernel, &wanted)? || !run.node_applied(&basis) {
            let report = self.node.reconcile_locked(run, Mode::Apply)?;
            self.refuse_for(&report, &inputs.registry, file)?;
            // A port left over from before may have made the guest look started already.
            run.set_mark(self.vmid, &mark)?;
        }
        let observed = observe_share(&mut kernel, &wanted, &before)?;
        let steps = diff(&wanted, &observed);
        let steps = carry_out(steps, &inputs.registry, |step| kernel.apply_step(step)).into_result()?;
        self.node.store.journal.record(binding_changes(known.as_ref(), Some(&mark)), Durability::Soon);
        for step in &steps {
            log::debug!("{step}");
        }
        Ok(inputs.links)
    }

    /// What failed of the whole node's steps counts here as far as this guest is not protected without it, or is its own.
    fn refuse_for(&self, report: &Report, registry: &Registry, file: &GuestFile) -> Result<(), HookError> {
        let pools: BTreeSet<PoolName> = file.addresses().map(|(.., assigned)| assigned.pool.clone()).collect();
        let is_routed = pools
            .iter()
            .filter_map(|name| registry.pools.pools.get(name))
            .any(|pool| pool.mode() == crate::registry::document::Mode::Routed);
        let concerns = |failed: &&Failed<Refusal>| {
            failed.subject == Subject::Guest(self.vmid) || failed.leaves_unprotected(self.vmid, &pools, is_routed)
        };
        let (own, others): (Vec<_>, Vec<_>) = report.failed.iter().partition(concerns);
        for failed in others {
            log::info!("{}", failed.problem().sentence);
        }
        own.first().map_or(Ok(()), |failed| {
            let Problem { sentence, hint, .. } = failed.problem();
            Err(HookError::Refused { sentence, hint })
        })
    }

    /// What filters routed traffic.
    fn backend(&self, run: &RunState, registry: &Registry) -> Result<Backend, HookError> {
        let mut settings = Registry { pools: registry.pools.clone(), ..Registry::default() };
        settings.node = self.node.store.node_file();
        settings.broken.extend(self.node.store.load_node().and_then(Result::err));
        Ok(self.node.routed_filter(run, &settings, Mode::Apply)?.backend)
    }

    /// Whether the rules are those that a share needs.
    fn are_loaded(kernel: &mut Kernel, share: &NetState) -> Result<bool, HookError> {
        for table in Table::ALL.into_iter().filter(|table| share.rules_of(*table) > Rules::Absent) {
            if kernel.observe_rules(table)? != Rules::Loaded {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The share that a mark says was applied.
    fn recorded(&self, kernel: &mut Kernel, mark: &Mark, pools: &PoolsFile) -> Result<NetState, HookError> {
        let config = match self.node.guests.find(self.vmid, self.migrated_from) {
            Ok(located) => located.config,
            Err(_) => crate::guest::GuestConfig::parse(mark.kind, b""),
        };
        let config = crate::guest::GuestConfig { kind: mark.kind, ..config };
        let located = Located { node: self.node.name.clone(), config };
        let mut inputs = self.inputs(pools.clone(), &mark.applied, located);
        let devices = self.devices(&inputs, &mark.applied);
        inputs.links = kernel.links_named(&devices.union(&self.ports(&mark.applied, mark.kind)).copied().collect())?;
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
        let located =
            Located { node: self.node.name.clone(), config: crate::guest::GuestConfig::parse(GuestKind::Qemu, b"") };
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

    fn inputs(&self, pools: PoolsFile, file: &GuestFile, located: Located) -> Inputs {
        let guests = BTreeMap::from([(self.vmid, file.clone())]);
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
    fn devices(&self, inputs: &Inputs, file: &GuestFile) -> BTreeSet<IfName> {
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

    fn is_incoming(&self, located: &Located) -> bool {
        self.migrated_from.is_some() && located.node != self.node.name
    }

    /// A guest without assignments is none of our business, unless it poses as one that has some.
    fn stranger(&self, located: &Located) -> Result<(), HookError> {
        let registry = self.node.store.load_known()?.0.registry;
        let ours = located.config.hookscript.as_deref().is_some_and(hookscript::is_ours);
        match check_stranger(&Index::new(&registry), self.vmid, &located.config, ours) {
            Some(problem) => Err(HookError::Refused { sentence: problem.sentence, hint: problem.hint }),
            None => Ok(()),
        }
    }

    /// Whether the guest will find its addresses in its cloud-init image, which Proxmox VE has made by now.
    fn check_inside(&self, inputs: &Inputs, file: &GuestFile) -> Result<(), HookError> {
        let config = &inputs.guests[&self.vmid].config;
        let findings = inspect::guest(&self.node.paths, file, &inputs.registry.pools, config, Moment::Start);
        let (wrong, mut rest): (Vec<Finding>, Vec<Finding>) = findings.into_iter().partition(|finding| finding.wrong);
        let mut refused = wrong.into_iter();
        // For a backup the guest is started, too, but not to run: that must not fail for what is only inside.
        let is_backup = config.line("lock") == Some("backup");
        if is_backup || file.cloud_init.check != CloudInitCheck::Refuse {
            rest.extend(refused.by_ref());
        }
        let first = refused.next();
        for finding in refused.chain(rest) {
            log::warn!("{}", finding.sentence);
            log::warn!("hint: {}", finding.hint);
        }
        match first {
            Some(Finding { sentence, hint, .. }) => {
                let anyway = "with `assign ... --cloud-init warn` it starts all the same";
                Err(HookError::Refused { sentence, hint: format!("{hint}; {anyway}") })
            }
            None => Ok(()),
        }
    }

    /// Compares the guest's file with the whole registry, once for each content.
    fn check_conflicts(&self, run: &RunState, bytes: &[u8]) -> Result<(), HookError> {
        if run.is_compared(self.vmid, bytes) {
            return Ok(());
        }
        let (snapshot, _) = self.node.store.load_known()?;
        let conflicts = snapshot.registry.conflicts();
        let conflict = conflicts.iter().find(|(guests, _)| guests.contains(&self.vmid));
        if let Some((guests, sentence)) = conflict {
            let other = guests.iter().find(|other| **other != self.vmid).copied().unwrap_or(self.vmid);
            let hint = format!("`pve-public-ip release {other}` or `pve-public-ip release {}` the address", self.vmid);
            return Err(HookError::Refused { sentence: sentence.clone(), hint });
        }
        // For all guests at once: those of a node that boots start one after the other.
        let conflicting: BTreeSet<Vmid> = conflicts.iter().flat_map(|(guests, _)| guests).copied().collect();
        run.set_compared(snapshot.guests().filter(|(vmid, _)| !conflicting.contains(vmid)));
        Ok(())
    }

    /// Refuses an address or MAC that the kernel has bound to another port: somebody runs with it on this node.
    fn check_holders(
        &self,
        run: &RunState,
        kernel: &mut Kernel,
        wanted: &NetState,
        before: &NetState,
        file: &GuestFile,
        kind: GuestKind,
    ) -> Result<(), HookError> {
        let mut pairs: Vec<(String, Element, Element)> = Vec::new();
        for (nic, interface, assigned) in file.addresses() {
            let port = kind.port(self.vmid, nic);
            let net = assigned.address.net();
            let bound = Element::bound_address(net).into_iter().zip(Element::port_address(port, interface.mac, net));
            pairs.extend(bound.take(1).map(|(bound, own)| (plain(assigned.address), bound, own)));
            let own = Element::port_mac(port, interface.mac).into_iter().take(1);
            let mac = Element::mac(SetId::BoundMac, interface.mac);
            pairs.extend(own.map(|own| (format!("MAC {}", interface.mac), mac.clone(), own)));
        }
        let asked = pairs.iter().flat_map(|(_, bound, own)| [bound.clone(), own.clone()]).collect();
        let found = kernel.find_elements(&asked)?;
        // Two NICs of one guest that share an assignment vouch for each other.
        let owned_here = |what: &str| pairs.iter().any(|(other, _, own)| other == what && found.contains(own));
        let news = |bound: &Element| wanted.elements.contains(bound) && !before.elements.contains(bound);
        for (what, bound, _) in pairs.iter().filter(|(_, bound, _)| news(bound)) {
            if found.contains(bound) && !owned_here(what) {
                let holder = run.marked().into_iter().find(|vmid| {
                    *vmid != self.vmid && run.mark(*vmid).is_some_and(|mark| share_overlaps(&mark.applied, file))
                });
                let whom = holder.map_or_else(|| "another guest".to_owned(), |vmid| format!("guest {vmid}"));
                return Err(HookError::Refused {
                    sentence: format!("{what} of guest {} is in use by {whom} on this node", self.vmid),
                    hint: "`pve-public-ip verify` says more; after a crash `pve-public-ip apply` cleans up".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Calls the hookscript that the guest had before ours.
    fn chained(&self, volume: Option<&str>, phase: Phase) -> Result<(), HookError> {
        let Some(volume) = volume else { return Ok(()) };
        let missing = |reason: String| HookError::ChainedMissing { volume: volume.to_owned(), reason };
        let path = hookscript::volume_path(&self.node.paths, volume).map_err(missing)?;
        if !command::is_executable(&path) {
            return Err(missing(format!("`{}` does not exist or is not executable", path.display())));
        }
        let args = [OsString::from(self.vmid.to_string()), OsString::from(phase.as_str())];
        WAITING.store(true, Ordering::Relaxed);
        let status = command::pass_through(&path, &args);
        WAITING.store(false, Ordering::Relaxed);
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(HookError::ChainedFailed { path, phase, status }),
            Err(error) => Err(missing(error.to_string())),
        }
    }
}

fn ports(file: &GuestFile, kind: GuestKind) -> BTreeSet<IfName> {
    file.interfaces.keys().map(|nic| kind.port(file.vmid, *nic)).collect()
}

/// `net0 203.0.113.10 bound to 02:00:00:aa:bb:cc on tap100i0`.
fn summary(file: &GuestFile, kind: GuestKind) -> String {
    let line = |(nic, interface): (&crate::model::NicId, &crate::registry::document::Interface)| {
        let addresses: Vec<String> = interface.addresses.iter().map(|assigned| plain(assigned.address)).collect();
        let mac: MacAddr = interface.mac;
        format!("{nic} {} bound to {mac} on {}", addresses.join(", "), kind.port(file.vmid, *nic))
    };
    file.interfaces.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// Whether two guests' assignments have an address or a MAC in common.
fn share_overlaps(one: &GuestFile, two: &GuestFile) -> bool {
    one.addresses().any(|(_, interface, assigned)| {
        two.addresses()
            .any(|(_, other, wanted)| interface.mac == other.mac || assigned.address.overlaps(wanted.address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::files;

    #[test]
    fn a_kept_part_of_the_pools_is_used_until_the_file_changes() {
        let root = tempfile::tempdir().unwrap();
        let paths = crate::paths::Paths::new(root.path());
        let node = Node::open(paths.clone()).unwrap();
        let hook = Hook { node: &node, vmid: "100".parse().unwrap(), migrated_from: None };
        let pools = |addresses: &str| {
            files::directories(&paths.registry()).unwrap();
            let text = format!(
                r#"{{"version":1,"pools":{{"a":{{"profile":"generic-bridged","bridge":"vmbr0","addresses":[{addresses}]}}}}}}"#
            );
            files::replace(&paths.pools_file(), text.as_bytes()).unwrap();
        };
        let file: GuestFile = serde_json::from_str(
            r#"{"version":1,"vmid":100,"interfaces":{"net0":{"mac":"02:00:00:aa:bb:cc","addresses":[
                {"address":"203.0.113.10/32","pool":"a","assigned_at":"2026-11-22T10:00:00Z"}]}}}"#,
        )
        .unwrap();
        let nothing = BTreeSet::new();
        let configured = BTreeSet::from(["203.0.113.77/24".parse().unwrap()]);
        let entries = |pools: &Pools| -> Vec<String> {
            pools
                .part
                .pools
                .pools
                .values()
                .flat_map(|pool| &pool.addresses)
                .map(|entry| entry.address.to_string())
                .collect()
        };

        pools(r#"{"address":"203.0.113.8/29"},{"address":"203.0.113.64/26"},{"address":"2001:db8::/64"}"#);
        let read = hook.pools(&file, &configured).unwrap();
        assert!(read.is_new);
        assert_eq!(entries(&read), ["203.0.113.8/29", "203.0.113.64/26"]);
        RunState::lock(&paths, LOCK_LIMIT).unwrap().set_pools_part(hook.vmid, &read.part);
        for asked in [&configured, &nothing] {
            let again = hook.pools(&file, asked).unwrap();
            assert!(!again.is_new);
            assert_eq!(again.part, read.part);
        }
        let more = BTreeSet::from(["2001:db8::5/64".parse().unwrap()]);
        assert_eq!(entries(&hook.pools(&file, &more).unwrap()), ["203.0.113.8/29", "2001:db8::/64"]);

        pools(r#"{"address":"203.0.113.10/32"}"#);
        let changed = hook.pools(&file, &configured).unwrap();
        assert!(changed.is_new);
        assert_eq!(entries(&changed), ["203.0.113.10/32"]);
        pools("{}");
        let message = hook.pools(&file, &configured).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("missing field `address`"), "{message}");
    }
}
