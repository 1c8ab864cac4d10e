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
use crate::code;
use crate::guest::{GuestError, Located};
use crate::hookscript;
use crate::host::{command, files};
use crate::inspect::{self, Moment};
use crate::model::{Code, GuestKind, MacAddr, NodeName, PoolName, Prefix, Vmid};
use crate::plan::watch::enforce_of;
use crate::plan::{
    Index, Inputs, Presence, check_configured, check_filtered, check_guest, check_stranger, is_configured_beyond,
    is_configured_with_others,
};
use crate::reconcile::{
    Baseline, GuestScope, Mode, Network, Node, ReconcileError, Reconciler, Scope, Transition, Which,
    announce_addresses, attend_guests_ports, compare,
};
use crate::registry::document::{CloudInitCheck, DocumentError, Enforce, GuestFile, POOLS_VERSION, Pool};
use crate::registry::misplaced;
use crate::store::StoreError;
use crate::system::run::{MarkPhase, PoolsPart, RunError, RunState, fingerprint};
use crate::system::{FilterError, KernelError};

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
    /// Its kind.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused { .. } => code!("start-refused"),
            Self::Document(error) => error.code(),
            Self::Reconcile(error) => error.code(),
            Self::ChainedMissing { .. } => code!("own-hookscript-missing"),
            Self::ChainedFailed { .. } => code!("own-hookscript-failed"),
        }
    }

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
    let hook = Hook { node, vmid, guest: GuestScope { node, vmid, migrated_from } };
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
    /// By which the files are known again that it was read from.
    sources: BTreeMap<String, u64>,
    is_new: bool,
}

/// The phases of one guest.
struct Hook<'a> {
    node: &'a Node,
    vmid: Vmid,
    guest: GuestScope<'a>,
}

impl Hook<'_> {
    fn pre_start(&self, file: Option<(GuestFile, Vec<u8>)>) -> Result<(), HookError> {
        let located = self.node.guests.find(self.vmid, self.guest.migrated_from)?;
        let Some((file, bytes)) = file else { return self.stranger(&located) };
        if file.is_empty() {
            return Ok(());
        }
        let pools = self.pools(&file, &located.config.configured)?;
        let presence = if self.guest.is_incoming(&located) { Presence::Incoming } else { Presence::Starting };
        let mut inputs = self.guest.inputs(pools.part.pools.clone(), &file, located);
        inputs.presence.insert(self.vmid, presence);
        let mut network = self.node.networks.to_look(&RunState::unlocked(&self.node.paths))?;
        let config = &inputs.guests[&self.vmid].config;
        let nics = config.nics.values().flatten().filter_map(|nic| nic.bridge);
        let devices = self.guest.devices(&inputs, &file).into_iter().chain(nics).collect();
        let is_routed = inputs.registry.has_routed();
        inputs.links = network.links(if is_routed { Which::Around(&devices) } else { Which::Named(&devices) })?;
        drop(network);
        if let Some(problem) = check_guest(&inputs, &Index::new(&inputs.registry), &file).into_iter().next() {
            return Err(HookError::Refused { sentence: problem.sentence, hint: problem.hint });
        }
        let config = &inputs.guests[&self.vmid].config;
        if let Some((sentence, hint)) = check_filtered(&inputs.links, &file, config) {
            return Err(HookError::Refused { sentence, hint });
        }
        // Of pools that were not read only the whole registry knows.
        let is_part = inputs.registry.pools.version == POOLS_VERSION && is_configured_with_others(&file, config);
        if is_part || is_configured_beyond(&inputs.registry.pools, &file, config) {
            let whole = self.node.store.load_usable()?;
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
        self.bind(&run, &mut *self.node.network(&run)?, &mut inputs, &file, phase, &pools)?;
        for misplaced in misplaced(&inputs.registry.pools, &file, &self.node.name) {
            log::warn!("{misplaced}");
            log::warn!("hint: {}", misplaced.hint());
        }
        let is_enforced = file.interfaces.values().all(|one| enforce_of(&inputs.registry, one) == Enforce::On);
        let how = if is_enforced { "protected" } else { "only watched, as its pool is" };
        log::info!("guest {} is {how}: {}", self.vmid, summary(&file, inputs.guests[&self.vmid].config.kind));
        Ok(())
    }

    fn post_start(&self, file: Option<GuestFile>) -> Result<(), HookError> {
        let Some(file) = file.filter(|file| !file.is_empty()) else { return Ok(()) };
        let located = self.node.guests.find(self.vmid, self.guest.migrated_from)?;
        let pools = self.pools(&file, &located.config.configured)?;
        let incoming = self.guest.is_incoming(&located);
        let run = RunState::lock(&self.node.paths, LOCK_LIMIT)?;
        let mut inputs = self.guest.inputs(pools.part.pools.clone(), &file, located);
        let (presence, phase) =
            if incoming { (Presence::Incoming, MarkPhase::Incoming) } else { (Presence::Running, MarkPhase::Started) };
        inputs.presence.insert(self.vmid, presence);
        let mut network = self.node.network(&run)?;
        self.bind(&run, &mut *network, &mut inputs, &file, phase, &pools)?;
        // Others need not wait for it.
        drop(run);
        if !incoming {
            announce_addresses(&mut *network, &inputs, &file, &inputs.links);
        }
        attend_guests_ports(self.node, inputs, &file);
        Ok(())
    }

    fn post_stop(&self) -> Result<(), HookError> {
        let run = RunState::lock(&self.node.paths, LOCK_LIMIT)?;
        let Some(mark) = run.mark(self.vmid) else { return Ok(()) };
        let mut network = self.node.network(&run)?;
        let pools = match self.pools(&mark.applied, &BTreeSet::new()) {
            Err(HookError::Document(_)) => Pools::default(),
            read => read?,
        };
        let transition = Transition::Unbind { mark: &mark, pools: &pools.part.pools, sources: &pools.sources };
        self.reconcile(&run, &mut *network, transition)?;
        log::info!("guest {} has stopped: its bindings are removed, its addresses stay reserved", self.vmid);
        Ok(())
    }

    /// The pools as far as this guest needs them: the entries that hold its addresses, those that it is configured with,
    /// and those of gateways.
    fn pools(&self, file: &GuestFile, configured: &BTreeSet<IpNet>) -> Result<Pools, HookError> {
        // Nothing else is read where each pool has a file of its own: that no two pools or guests have the same is looked after
        // by whoever writes them, and compared by [`Self::check_conflicts`] with every guest's file.
        let pool_names: BTreeSet<PoolName> = file.addresses().map(|(.., assigned)| assigned.pool.clone()).collect();
        let sources = self.node.store.pools_source(&pool_names);
        let source = fingerprint(format!("{sources:?}").as_bytes());
        let assigned: BTreeSet<Prefix> = file.addresses().map(|(.., assigned)| assigned.address).collect();
        let names = assigned.iter().map(ToString::to_string);
        let about: BTreeSet<String> = names.chain(configured.iter().map(ToString::to_string)).collect();
        let known = RunState::pools_part(&self.node.paths, self.vmid);
        if let Some(part) = known.filter(|known| known.source == source && known.about.is_superset(&about)) {
            return Ok(Pools { part, sources, is_new: false });
        }
        let (pools, error) = self.node.store.known_pools(Some(&pool_names))?;
        if let Some(DocumentError { hint, .. }) = error.as_ref().inspect(|error| log::warn!("{error}")) {
            log::warn!("hint: {hint}");
            log::warn!("what was known of the pools last counts for guest {}", self.vmid);
        }
        // Whether the node may take a gateway upon itself depends on whose address it is.
        let in_part = |gateway: &IpAddr| {
            pools.pools.values().flat_map(|pool| &pool.addresses).any(|entry| entry.address.net().contains(gateway))
        };
        let is_routed = |pool: &&Pool| pool.mode() == crate::registry::document::Mode::Routed;
        let is_whole = pools.version != POOLS_VERSION
            || pools.pools.values().filter(is_routed).flat_map(Pool::gateways).all(|gateway| in_part(&gateway));
        let pools = if is_whole { pools } else { self.node.store.known_pools(None)?.0 };
        let gateways: BTreeSet<IpAddr> = pools.pools.values().flat_map(Pool::gateways).collect();
        let pools = pools.only(|entry| {
            let mut inside = configured.iter().map(IpNet::addr).chain(gateways.iter().copied());
            assigned.iter().any(|address| entry.contains(*address)) || inside.any(|ip| entry.net().contains(&ip))
        });
        // What is not what the file says is said at every start.
        Ok(Pools { part: PoolsPart { source, about, pools }, sources, is_new: error.is_none() })
    }

    /// Binds the guest; `inputs` get the interfaces that its share depends on.
    fn bind(
        &self,
        run: &RunState,
        network: &mut dyn Network,
        inputs: &mut Inputs,
        file: &GuestFile,
        phase: MarkPhase,
        pools: &Pools,
    ) -> Result<(), HookError> {
        if pools.is_new {
            run.set_pools_part(self.vmid, &pools.part);
        }
        let transition = Transition::Bind { file, phase, inputs, sources: &pools.sources };
        self.reconcile(run, network, transition)
    }

    fn reconcile(
        &self,
        run: &RunState,
        network: &mut dyn Network,
        transition: Transition<'_>,
    ) -> Result<(), HookError> {
        let mut reconciler = Reconciler::new(self.node, run, network, Mode::Apply);
        let report = reconciler.reconcile(Scope::Guest(&self.guest, transition), Baseline::Unknown)?;
        for step in &report.steps {
            log::debug!("{step}");
        }
        match report.failed.into_iter().next() {
            Some(failed) => Err(ReconcileError::Refused(failed.error).into()),
            None => Ok(()),
        }
    }

    /// A guest without assignments is none of our business, unless it poses as one that has some.
    fn stranger(&self, located: &Located) -> Result<(), HookError> {
        let registry = self.node.store.load_usable()?;
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
        if run.is_compared(self.vmid, files::fingerprint(bytes)) {
            return Ok(());
        }
        let (snapshot, _) = self.node.store.load_known()?;
        let prints: Vec<(Vmid, u64)> = snapshot.guests().collect();
        // For all guests at once: those of a node that boots start one after the other.
        let conflicts = compare(run, &snapshot.registry, &prints);
        let Some((guests, sentence)) = conflicts.into_iter().find(|(guests, _)| guests.contains(&self.vmid)) else {
            return Ok(());
        };
        let other = guests.into_iter().find(|other| *other != self.vmid).unwrap_or(self.vmid);
        let hint = format!("`pve-public-ip release {other}` or `pve-public-ip release {}` the address", self.vmid);
        Err(HookError::Refused { sentence, hint })
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

/// `net0 203.0.113.10 bound to 02:00:00:aa:bb:cc on tap100i0`.
fn summary(file: &GuestFile, kind: GuestKind) -> String {
    let line = |(nic, interface): (&crate::model::NicId, &crate::registry::document::Interface)| {
        let addresses: Vec<String> = interface.addresses.iter().map(|assigned| assigned.address.to_string()).collect();
        let mac: MacAddr = interface.mac;
        format!("{nic} {} bound to {mac} on {}", addresses.join(", "), kind.port(file.vmid, *nic))
    };
    file.interfaces.iter().map(line).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
