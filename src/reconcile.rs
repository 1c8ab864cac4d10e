//! The one path: gather inputs, decide, and either act or print. Hook, `apply`, `verify`, `plan` and `--dry-run` differ
//! only in what they select and whether they act.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::announce;
use crate::audit::{Change, bindings};
use crate::guest::{GuestConfig, GuestError, Guests};
use crate::links::Links;
use crate::model::{GuestKind, IfName, MacAddr, NodeName, Vmid};
use crate::paths::Paths;
use crate::plan::{
    Desired, Exits, Failed, Inputs, Learnt, Located, NetState, Obstacles, Outcome, Presence, Problem, Question,
    Refusal, Rules, Sighting, Step, Subject, carry_out, desired, diff, gateways, gateways_here, is_idle, is_uplink_of,
    learn, news, notes, questions, settle, support,
};
use crate::registry::Registry;
use crate::registry::document::{BackendChoice, GuestFile, Mode as PoolMode, Pool, PoolsFile};
use crate::ruleset::{Backend, Element, SetId, Storage, Variant};
use crate::store::News;
use crate::store::journal::{self, Durability};
use crate::store::{Store, StoreError};
use crate::system::run::{BackendNote, Mark, MarkPhase, RunError, RunState, fingerprint};
use crate::system::{FilterError, Kernel, KernelError, Nftables, Reference, packet, probe, routers, xtables};

/// What is said of a cluster file system that hangs.
pub const SILENT: &str = "does not answer";

/// How long a command waits for another one that changes this node.
pub(crate) const NODE_LOCK_LIMIT: Duration = Duration::from_secs(30);

/// The note of the bridges of VLANs that the node's share of the state took in: Proxmox VE makes one when the first guest
/// of its VLAN starts, after pre-start.
pub(crate) const VLAN_BRIDGES: &str = "vlan-bridges";

/// This node: its name, its files, its kernel.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where things lie.
    pub paths: Paths,
    /// The node's name.
    pub name: NodeName,
    /// The registry.
    pub store: Store,
    /// The guests' configurations.
    pub guests: Guests,
}

/// Whether to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only say what would be done.
    Plan,
    /// Do it.
    Apply,
}

/// What was found, and done if that was asked for.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Steps, done or to be done.
    pub steps: Vec<Step>,
    /// Steps that failed, or cannot succeed.
    pub failed: Vec<Failed<Refusal>>,
    /// Whether any of these was tried, so that trying again may help.
    pub was_refused: bool,
    /// What stands in the way of assignments, and of those steps.
    pub problems: Vec<Problem>,
    /// What is as it should be, and may still surprise.
    pub notes: Vec<Problem>,
    /// Who runs here.
    pub presence: BTreeMap<Vmid, Presence>,
    /// What should be, by which all this was found.
    pub desired: NetState,
    /// Guests whose live migration to this node is complete since the last time.
    pub arrived: Vec<Vmid>,
    /// Whether there is nothing to protect yet, and nothing of ours in the kernel.
    pub is_idle: bool,
    /// How many files of the registry, and configurations of guests with addresses, cannot be used.
    pub unreadable: usize,
    /// What guests were told of their gateways, by port.
    pub greetings: Greetings,
}

/// Frames for guests' ports.
pub type Greetings = BTreeMap<IfName, Vec<Vec<u8>>>;

/// What lies under `/etc/pve`, as it was read at one moment.
#[derive(Debug)]
pub struct Sources {
    inputs: Inputs,
    pools_source: u64,
    unreadable: BTreeMap<Vmid, GuestError>,
    /// What of the registry has no copy on this node yet.
    news: News,
}

impl Sources {
    /// Files that could not be read: of the registry, and of guests that hold addresses.
    pub fn unreadable(&self) -> usize {
        self.inputs.registry.broken.len() + self.unreadable.len()
    }

    /// What might surprise if the registry were this one.
    pub fn notes_with(&self, registry: Registry) -> Vec<Problem> {
        notes(&Inputs { registry, ..self.inputs.clone() })
    }

    /// The MACs of the interfaces, as they were at the last look.
    fn macs(&self) -> BTreeMap<IfName, MacAddr> {
        let links = &self.inputs.links.0;
        links.iter().filter_map(|(name, link)| Some((*name, link.mac?))).collect()
    }

    fn look_at_network(&mut self, kernel: &mut Kernel) -> Result<(), KernelError> {
        self.inputs.links = kernel.links()?;
        // To list a node's routes takes longer than all the rest if they are the world's.
        self.inputs.exits = if self.inputs.registry.has_routed() { kernel.exits()? } else { Exits::default() };
        Ok(())
    }

    /// What decisions were made by when these files were last compared with the kernel.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// The node's interfaces, as they were when these files were last compared with the kernel.
    pub fn links(&self) -> &Links {
        &self.inputs.links
    }

    /// The node's ways to the world as they were then, if anything depends on them.
    pub fn exits(&self) -> Option<&Exits> {
        self.inputs.registry.has_routed().then_some(&self.inputs.exits)
    }

    /// The nflog group that the node's file names.
    pub fn log_group(&self) -> Option<u16> {
        self.inputs.registry.node.as_ref().and_then(|node| node.log_group)
    }

    /// What filtered routed traffic when these files were last compared with the kernel.
    pub fn backend(&self) -> Backend {
        self.inputs.backend
    }

    /// The nflog group that the guard listens to for conflicts, and the uplinks that the node's file names.
    pub fn watched(&self) -> Option<(u16, Option<BTreeSet<IfName>>)> {
        let file = self.inputs.registry.node.as_ref().filter(|file| file.watch != Some(false))?;
        Some((file.log_group?, file.uplinks.clone()))
    }

    /// Whether every file could be read and understood. What could not may look another way next time, without a sign.
    pub fn are_whole(&self) -> bool {
        self.unreadable.is_empty() && self.inputs.registry.broken.is_empty()
    }
}

/// How far the files that were read can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// They are as they were read.
    Whole,
    /// They may have changed since: protection that is missing is put back, and nothing is taken away for them.
    OldButSafe,
}

/// Why the node could not be brought to its desired state, or looked at.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The registry.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A guest's configuration.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The run directory.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The cluster file system hangs.
    #[error("`{}` {SILENT}", .0.display())]
    Silent(PathBuf),
    /// The node has no usable name.
    #[error("cannot tell this node's name: {0}")]
    NodeName(String),
}

impl From<FilterError> for ReconcileError {
    fn from(error: FilterError) -> Self {
        Self::Kernel(error.into())
    }
}

impl ReconcileError {
    /// The administrator's next step.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Guest(error) => Some(error.hint()),
            Self::Run(RunError::Busy(_)) => Some("wait for it, or look at `ps -C pve-public-ip`".to_owned()),
            Self::Run(RunError::Io { .. }) => {
                Some("run it as root; `df -h /run` tells whether there is room".to_owned())
            }
            Self::Kernel(error) => error.hint(),
            Self::Silent(_) => Some("`systemctl status pve-cluster`; `pvecm status`".to_owned()),
            Self::NodeName(_) => Some("`hostname` must be a name without dots".to_owned()),
        }
    }
}

impl Node {
    /// The node whose files are under `paths`.
    pub fn open(paths: Paths) -> Result<Self, ReconcileError> {
        let name = node_name(&paths)?;
        let store = Store::new(&paths, &name);
        let guests = Guests::new(&paths, &name);
        Ok(Self { paths, name, store, guests })
    }

    /// What this release's rules should be on this node.
    pub fn reference(&self, run: &RunState) -> Result<Reference, ReconcileError> {
        Ok(reference(run, self.store.node_file().and_then(|file| file.log_group))?)
    }

    /// Everything that decisions depend on, now.
    pub fn inputs(&self) -> Result<Inputs, ReconcileError> {
        let run = RunState::unlocked(&self.paths);
        let mut sources = self.read_sources()?;
        let mut kernel = Kernel::open(Reference::default())?.noting(&run);
        sources.look_at_network(&mut kernel)?;
        self.look_at_guests(&run, &mut sources);
        self.look_at_routers(&mut kernel, &mut sources.inputs, Mode::Plan)?;
        Ok(sources.inputs)
    }

    /// Brings the whole node to its desired state, then asks on the wire for routers behind the uplinks that the node does
    /// not know by itself, and takes in who answers. To ask needs no lock, and takes a second at most; nothing is asked that
    /// was asked a while ago, so that the files are read once as a rule.
    pub fn reconcile_and_ask(&self) -> Result<Report, ReconcileError> {
        let (mut report, questions) = {
            let run = RunState::lock(&self.paths, NODE_LOCK_LIMIT)?;
            let mut sources = self.read_sources()?;
            let report = self.reconcile_by(&run, &mut sources, Mode::Apply)?;
            (report, questions(sources.inputs()))
        };
        if !ask_routers(&self.paths, &questions) {
            return Ok(report);
        }
        let again = self.reconcile(Mode::Apply)?;
        report.steps.extend(again.steps);
        report.arrived.extend(again.arrived);
        report.greetings.extend(again.greetings);
        let was_refused = report.was_refused || again.was_refused;
        let Report { steps, arrived, greetings, .. } = report;
        Ok(Report { steps, was_refused, arrived, greetings, ..again })
    }

    /// What is known of the routers behind the uplinks; with [`Mode::Apply`] what can be learnt now, too.
    fn look_at_routers(&self, kernel: &mut Kernel, inputs: &mut Inputs, mode: Mode) -> Result<(), ReconcileError> {
        inputs.routers = routers::load(&self.paths);
        let is_bridged = |pool: &Pool| pool.mode() == PoolMode::Bridged;
        if inputs.routers.is_empty() && !inputs.registry.pools.pools.values().any(is_bridged) {
            return Ok(());
        }
        inputs.next_hops = kernel.next_hops(&inputs.links)?;
        let mut sightings = routers::heard(&self.paths);
        let heard = sightings.len();
        inputs.found_gateways = kernel.found_gateways(&gateways(inputs), &inputs.links)?;
        let mut by_device: BTreeMap<IfName, BTreeSet<(IpAddr, MacAddr)>> = BTreeMap::new();
        for ((device, address), mac) in &inputs.found_gateways {
            by_device.entry(*device).or_default().extend(mac.map(|mac| (*address, mac)));
        }
        for (device, found) in by_device {
            let heard = kernel.heard_behind(&inputs.links, &found.iter().map(|(_, mac)| (device, *mac)).collect())?;
            let is_outside = |mac: &MacAddr| heard.get(mac).is_some_and(|port| is_uplink_of(inputs, device, *port));
            let outside = found.into_iter().filter(|(_, mac)| is_outside(mac));
            sightings.extend(outside.map(|(address, mac)| Sighting { bridge: device, address, mac, advertised: None }));
        }
        let Learnt { routers, refused } =
            learn(inputs, &sightings, inputs.registry.broken.is_empty(), journal::now().0.as_secs());
        inputs.refused_routers = refused;
        if mode == Mode::Plan {
            // What is not written down is not known to the next one who looks.
            return Ok(());
        }
        if routers != inputs.routers {
            for line in news(&inputs.routers, &routers) {
                log::info!("{line}");
            }
            if let Err(error) = routers::save(&self.paths, &routers) {
                log::warn!(
                    "cannot write `{}`, so that it must be learnt again: {error}",
                    self.paths.routers().display()
                );
            }
        }
        if heard > 0 {
            if let Err(error) = routers::taken_in(&self.paths, heard) {
                log::debug!("what was heard of routers is taken in once more next time: {error}");
            }
        }
        inputs.routers = routers;
        Ok(())
    }

    /// Brings the whole node to its desired state, or says what that would take.
    pub fn reconcile(&self, mode: Mode) -> Result<Report, ReconcileError> {
        let run = match mode {
            Mode::Plan => RunState::lock_to_look(&self.paths, NODE_LOCK_LIMIT)?,
            Mode::Apply => RunState::lock(&self.paths, NODE_LOCK_LIMIT)?,
        };
        self.reconcile_locked(&run, mode)
    }

    /// As [`Self::reconcile`], with the node's lock held already.
    pub fn reconcile_locked(&self, run: &RunState, mode: Mode) -> Result<Report, ReconcileError> {
        self.reconcile_by(run, &mut self.read_sources()?, mode)
    }

    /// As [`Self::reconcile_locked`], by files that were read since the lock was taken.
    pub fn reconcile_by(&self, run: &RunState, sources: &mut Sources, mode: Mode) -> Result<Report, ReconcileError> {
        let mut kernel = Kernel::open(reference(run, sources.log_group())?)?.noting(run);
        self.reconcile_from(run, &mut kernel, sources, Trust::Whole, None, mode)
    }

    /// As [`Self::reconcile_locked`], from files that were read before; how far these can still be trusted is for the
    /// caller to say. `left` is how the filter was left, if nobody has touched it since: it need not be read then, which is
    /// most of the work on a large node.
    pub fn reconcile_from(
        &self,
        run: &RunState,
        kernel: &mut Kernel,
        sources: &mut Sources,
        trust: Trust,
        left: Option<&mut NetState>,
        mode: Mode,
    ) -> Result<Report, ReconcileError> {
        let macs_before = sources.macs();
        sources.look_at_network(kernel)?;
        let unreadable = self.look_at_guests(run, sources);
        self.look_at_routers(kernel, &mut sources.inputs, mode)?;
        let filter = self.routed_filter(run, &sources.inputs.registry, mode)?;
        sources.inputs.backend = filter.backend;
        kernel.look_into(filter.variants.clone());
        let inputs = &sources.inputs;
        let Desired { state, mut problems } = desired(inputs);
        // Of a guest whose configuration cannot be read nothing else is known.
        problems.retain(|problem| unreadable.iter().all(|other| other.vmid != problem.vmid));
        problems.extend(unreadable);
        let (mut observed, foreign) = match &left {
            Some(left) => {
                let (found, foreign) = kernel.observe_unfiltered(&inputs.links, &state)?;
                (NetState { rules: left.rules, routed_rules: left.routed_rules, ..found }, foreign)
            }
            None => kernel.observe(&inputs.links, &state)?,
        };
        let obstacles = settle(&state, &mut observed, &foreign);
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
            let kept = self.kept(&inputs.registry, &observed);
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
                self.store.remember(&news);
            }
            arrived = note(run, inputs, &mut changes)?;
        }
        let mut was_refused = false;
        let Outcome { done: steps, failed } = carry_out(steps, &inputs.registry, |step| {
            if let Some(refusal) = obstacles.of(step) {
                return Err(refusal.clone());
            }
            if mode == Mode::Plan {
                return Ok(());
            }
            kernel.apply_step(step).map_err(|error| {
                was_refused = true;
                refusal(error)
            })
        });
        add_failures(&mut problems, &failed, &obstacles);
        if mode == Mode::Apply {
            // Whose traffic is not led here is not announced.
            arrived.retain(|vmid| failed.iter().all(|failed| failed.subject != Subject::Guest(*vmid)));
            for guest in arrived.iter().filter_map(|vmid| inputs.registry.guests.get(vmid)) {
                announce_addresses(inputs, guest, &inputs.links);
            }
            greetings = greet(inputs, &arrived, &steps, &macs_before);
            send_greetings(&greetings);
            if trust == Trust::Whole {
                forget(run, inputs, &mut changes);
                let basis = node_basis(sources.pools_source, &inputs.registry.pools, &inputs.links);
                // As long as something of the node's share is missing, each hook tries again.
                let is_whole = failed.iter().all(|failed| matches!(failed.subject, Subject::Guest(_)));
                let basis = if is_whole { basis } else { Vec::new() };
                if !run.node_applied(&basis) {
                    run.set_node_applied(&basis);
                }
                let vlans = inputs.vlan_bridges();
                if RunState::note(&self.paths, VLAN_BRIDGES).as_ref() != Some(&vlans) {
                    RunState::set_note(&self.paths, VLAN_BRIDGES, &vlans);
                }
                let unread = foreign.unread_chains.keys().map(|place| place.variant);
                let variants = state.chains.keys().map(|place| place.variant).chain(unread).collect();
                // What cannot be read may have kept chains in place that are not wanted by the rest.
                if filter.variants != variants && inputs.registry.broken.is_empty() {
                    run.set_backend(&BackendNote { variants, ..filter })?;
                }
            }
            self.store.journal.record(changes, Durability::Soon);
        }
        let notes = notes(inputs);
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
        })
    }

    /// What filters routed traffic on this node: what was decided since it booted, as long as nobody asks for another one.
    ///
    /// It does not change by itself, because the node's own rules come and go: what is chosen before pve-firewall has
    /// started would be another one a minute later.
    pub(crate) fn routed_filter(
        &self,
        run: &RunState,
        registry: &Registry,
        mode: Mode,
    ) -> Result<BackendNote, ReconcileError> {
        let known = run.backend();
        let file = self.paths.node_file(&self.name);
        let is_known = !registry.broken.iter().any(|error| error.path == file);
        let choice = registry.node.as_ref().and_then(|node| node.backend).unwrap_or_default();
        let nothing = BackendNote { choice: None, backend: Backend::default(), variants: BTreeSet::new() };
        let variants = match known {
            Some(known) if known.choice.is_some_and(|decided| decided == choice || !is_known) => return Ok(known),
            // With nothing to route there is nothing to decide, and what stands goes.
            known if !registry.has_routed() => return Ok(known.unwrap_or(nothing)),
            known => known.unwrap_or(nothing).variants,
        };
        let backend = match choice {
            BackendChoice::Nftables => Backend::Nftables,
            BackendChoice::Auto => xtables::in_use().map_or(Backend::Nftables, xtables::backend),
            BackendChoice::Iptables => {
                let Ok(variant) = xtables::preferred() else {
                    // Without a program it is not decided which: who needs it is told when it is asked, and nobody else.
                    let backend = xtables::backend(Variant::Nft);
                    let variants = &variants | &BTreeSet::from([Variant::Nft]);
                    return Ok(BackendNote { choice: None, backend, variants });
                };
                xtables::backend(variant)
            }
            BackendChoice::IptablesLegacy => xtables::backend(Variant::Legacy),
            BackendChoice::IptablesNft => xtables::backend(Variant::Nft),
        };
        let mut note = BackendNote { choice: Some(choice), backend, variants };
        if let Backend::Iptables { variant, .. } = backend {
            note.variants.insert(variant);
        }
        if mode == Mode::Apply {
            log::info!("routed traffic is filtered by {backend}");
            run.set_backend(&note)?;
        }
        Ok(note)
    }

    /// Sets to which nothing may be added as long as a file cannot be read.
    fn kept(&self, registry: &Registry, observed: &NetState) -> BTreeSet<SetId> {
        let broken = |path: PathBuf| {
            registry.broken.iter().any(|error| error.path == path) && !registry.recalled.contains(&path)
        };
        let known: BTreeSet<SetId> = observed.elements.iter().map(Element::set).collect();
        // Known ranges stay as they are: the kernel refuses a second one that overlaps.
        let mut kept: BTreeSet<SetId> = known.iter().copied().filter(|set| set.storage() == Storage::Tree).collect();
        // What a port is exempt from depends on the pools' bridges and on the named uplinks.
        if broken(self.paths.pools_file()) {
            kept.extend([SetId::FreePorts, SetId::RouterPorts, SetId::Elsewhere, SetId::OtherVlans]);
        }
        // What stands is better than what is made of nothing.
        if registry.lost_pools.is_some()
            && known.iter().any(|set| matches!(set, SetId::GuardEnforce | SetId::GuardReport))
        {
            kept.extend([SetId::GuardEnforce, SetId::GuardReport, SetId::UplinkRegistered]);
        }
        let uplinks = broken(self.paths.node_file(&self.name)) && known.contains(&SetId::Uplinks);
        if uplinks {
            kept.extend([SetId::Uplinks, SetId::GuardEnforce, SetId::GuardReport, SetId::UplinkRegistered]);
        }
        kept
    }

    /// Reads what lies under `/etc/pve`: pools, assignments, guests' configurations.
    pub fn read_sources(&self) -> Result<Sources, ReconcileError> {
        let pools_source = fingerprint(&self.store.read_pools());
        let (snapshot, news) = self.store.load_known()?;
        let registry = snapshot.registry;
        let local = self.guests.local()?.into_iter();
        let mut guests: BTreeMap<Vmid, Located> =
            local.map(|(vmid, config)| (vmid, Located { node: self.name.clone(), config })).collect();
        let mut unreadable = BTreeMap::new();
        // A guest whose own file is broken is needed too: its mark knows its assignments.
        let broken = registry.broken.iter().filter_map(|error| error.path.file_stem()?.to_str()?.parse().ok());
        let wanted: BTreeSet<Vmid> = registry.guests.keys().copied().chain(broken).collect();
        let elsewhere = self.guests.find_all(wanted.into_iter().filter(|vmid| !guests.contains_key(vmid)));
        for (vmid, found) in elsewhere {
            match found {
                Ok(located) => {
                    guests.insert(vmid, located);
                }
                Err(GuestError::Unknown { .. }) => {}
                Err(error) => {
                    unreadable.insert(vmid, error);
                }
            }
        }
        // What was read while the file system went away is not what it says.
        self.store.check_mounted()?;
        let inputs = Inputs::new(self.name.clone(), registry, guests);
        Ok(Sources { inputs, pools_source, unreadable, news })
    }

    /// As [`Self::read_sources`], without the cluster's files: by the copies of the registry and the marks of the guests that run
    /// here. `None` if nothing is known. Only [`Trust::OldButSafe`] is due to it.
    pub fn remembered_sources(&self, run: &RunState) -> Option<Sources> {
        let mut registry = self.store.remembered()?;
        let mut guests = BTreeMap::new();
        for (vmid, mark) in run.marked().into_iter().filter_map(|vmid| Some((vmid, run.mark(vmid)?))) {
            // What its ports are called is known from its start.
            guests.insert(vmid, Located { node: self.name.clone(), config: GuestConfig::parse(mark.kind, b"") });
            registry.guests.insert(vmid, mark.applied);
        }
        let inputs = Inputs::new(self.name.clone(), registry, guests);
        Some(Sources { inputs, pools_source: 0, unreadable: BTreeMap::new(), news: News::default() })
    }

    /// Puts protection in place by what this node knew last, and takes nothing away: for when the cluster's files cannot be
    /// read. Says whether anything was known.
    pub fn protect_by_memory(&self) -> Result<bool, ReconcileError> {
        let run = RunState::lock(&self.paths, NODE_LOCK_LIMIT)?;
        let Some(mut sources) = self.remembered_sources(&run) else { return Ok(false) };
        let mut kernel = Kernel::open(reference(&run, sources.log_group())?)?.noting(&run);
        self.reconcile_from(&run, &mut kernel, &mut sources, Trust::OldButSafe, None, Mode::Apply)?;
        Ok(true)
    }

    /// Who runs here, by marks and ports; says which guests' configurations could not be read.
    fn look_at_guests(&self, run: &RunState, sources: &mut Sources) -> Vec<Problem> {
        let inputs = &mut sources.inputs;
        let marks: BTreeMap<Vmid, Mark> =
            run.marked().into_iter().filter_map(|vmid| Some((vmid, run.mark(vmid)?))).collect();
        for (vmid, mark) in &marks {
            let file = self.paths.guest_file(*vmid);
            if inputs.registry.broken.iter().any(|error| error.path == file) {
                inputs.registry.guests.insert(*vmid, mark.applied.clone());
            }
        }
        // The guest may run all the same: what its ports are called is known from its start.
        for (vmid, mark) in marks.iter().filter(|(vmid, _)| sources.unreadable.contains_key(vmid)) {
            let config = GuestConfig::parse(mark.kind, b"");
            inputs.guests.insert(*vmid, Located { node: self.name.clone(), config });
        }
        let presence = |vmid: &Vmid| {
            let place = inputs.guests.get(vmid)?;
            let here = place.node == self.name;
            Some((*vmid, presence_of(*vmid, place.config.kind, here, marks.get(vmid), &inputs.links)?))
        };
        inputs.presence = inputs.registry.guests.keys().filter_map(presence).collect();
        let problem = |(vmid, error): (&Vmid, &GuestError)| {
            let sentence = match std::error::Error::source(error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            };
            Problem { vmid: Some(*vmid), sentence, hint: error.hint() }
        };
        sources.unreadable.iter().map(problem).collect()
    }
}

/// The same question is asked again after this time (seconds): advertisements tell who else is a router by now.
const ASKED_AGAIN: u64 = 600;

/// Asks by the uplinks, and notes who answers; says whether anybody did.
pub(crate) fn ask_routers(paths: &Paths, questions: &[Question]) -> bool {
    if !routers::is_due(paths, questions, journal::now().0.as_secs(), ASKED_AGAIN) {
        return false;
    }
    let asked: Vec<(&Question, IfName)> =
        questions.iter().flat_map(|question| question.uplinks.iter().map(move |uplink| (question, *uplink))).collect();
    // All at once: each takes most of a second.
    let sightings: Vec<Sighting> = thread::scope(|scope| {
        let asking: Vec<_> =
            asked.iter().map(|(question, uplink)| scope.spawn(|| probe::ask_routers(question, *uplink))).collect();
        let answers = asking.into_iter().zip(&asked).filter_map(|(thread, (_, uplink))| match thread.join() {
            Ok(Ok(found)) => Some(found),
            Ok(Err(error)) => {
                log::debug!("cannot ask on {uplink} where the routers are: {error}");
                None
            }
            Err(_) => None,
        });
        answers.flatten().collect()
    });
    let is_answered = !sightings.is_empty();
    if let Err(error) = routers::note(paths, sightings) {
        log::warn!("cannot note which routers answered: {error}");
    }
    is_answered
}

/// What failed, and what could not be read, beside other problems; one cause of several steps is said once.
fn add_failures(problems: &mut Vec<Problem>, failed: &[Failed<Refusal>], obstacles: &Obstacles) {
    problems.extend(failed.iter().map(Failed::problem));
    // What is not wanted there any more may be there still.
    let unread = obstacles.unread().into_iter().filter(|unread| failed.iter().all(|failed| failed.error != **unread));
    problems.extend(unread.map(|Refusal { sentence, hint }| Problem {
        vmid: None,
        sentence: sentence.clone(),
        hint: hint.clone(),
    }));
    let mut said = BTreeSet::new();
    problems.retain(|problem| said.insert((problem.vmid, problem.sentence.clone())));
}

/// What the kernel says, with all its causes, and what to do about it.
pub(crate) fn refusal(error: KernelError) -> Refusal {
    let hint = error.hint().unwrap_or_else(|| "`pve-public-ip apply` tries again".to_owned());
    let sentence = format!("{:#}", anyhow::Error::from(error));
    Refusal { sentence, hint }
}

/// Writes a mark for every guest that is about to be bound, so that its hooks know what to take out again; returns those
/// that have arrived by live migration.
fn note(run: &RunState, inputs: &Inputs, changes: &mut Vec<Change>) -> Result<Vec<Vmid>, ReconcileError> {
    let mut arrived = Vec::new();
    for (vmid, presence) in &inputs.presence {
        let (Some(guest), Some(place)) = (inputs.registry.guests.get(vmid), inputs.guests.get(vmid)) else {
            continue;
        };
        let phase = match presence {
            Presence::Starting => MarkPhase::Starting,
            Presence::Incoming => MarkPhase::Incoming,
            Presence::Running => MarkPhase::Started,
        };
        let known = run.mark(*vmid);
        let support = support(inputs, guest);
        let is_same = |mark: &Mark| mark.phase == phase && mark.applied == *guest && mark.support == support;
        if known.as_ref().is_some_and(is_same) {
            continue;
        }
        let has_moved = |known: &Mark| known.phase == MarkPhase::Incoming && phase == MarkPhase::Started;
        arrived.extend(known.as_ref().is_some_and(has_moved).then_some(*vmid));
        let mut mark = Mark { support, ..Mark::now(phase, place.config.kind, guest.clone()) };
        if let Some(known) = known.as_ref().filter(|known| known.phase == phase) {
            mark.since = known.since;
        }
        run.set_mark(*vmid, &mark)?;
        changes.extend(binding_changes(known.as_ref(), Some(&mark)));
    }
    Ok(arrived)
}

/// Drops the marks of guests that are gone, and what was kept for those that hold nothing any more.
fn forget(run: &RunState, inputs: &Inputs, changes: &mut Vec<Change>) {
    run.keep_pools_parts(|vmid| inputs.registry.guests.contains_key(&vmid));
    for vmid in run.marked().into_iter().filter(|vmid| !inputs.presence.contains_key(vmid)) {
        let mark = run.mark(vmid);
        let stopped = mark.as_ref().is_some_and(|mark| {
            mark.phase == MarkPhase::Stopped
                && inputs.links.0.values().any(|link| mark.left_ports.contains(&link.index))
        });
        if !stopped {
            run.clear_mark(vmid);
            changes.extend(binding_changes(mark.as_ref(), None));
        }
    }
}

/// What a guest's ports can use since its mark became another one. A start that may still fail counts for nothing, and
/// the pre-start of a guest waits for no log.
pub(crate) fn binding_changes(before: Option<&Mark>, after: Option<&Mark>) -> Vec<Change> {
    let kind = after.or(before).map_or(GuestKind::Qemu, |mark| mark.kind);
    let [before, after] =
        [before, after].map(|mark| mark.filter(|mark| mark.phase == MarkPhase::Started).map(|mark| &mark.applied));
    bindings(kind, before, after)
}

/// How far a guest is on this node, from its mark and its ports.
pub fn presence_of(vmid: Vmid, kind: GuestKind, here: bool, mark: Option<&Mark>, links: &Links) -> Option<Presence> {
    let phase = mark.map(|mark| mark.phase);
    let left = mark.map(|mark| &mark.left_ports[..]).unwrap_or_default();
    let port_exists = (0..32).any(|index| {
        let nic = index.to_string().parse().ok();
        let link = nic.and_then(|nic| links.get(kind.port(vmid, nic)));
        link.is_some_and(|link| phase != Some(MarkPhase::Stopped) || !left.contains(&link.index))
    });
    let may_be_starting = mark.is_some_and(Mark::may_be_starting);
    match (here, phase) {
        (true, _) if port_exists => Some(Presence::Running),
        (true, _) if may_be_starting => Some(Presence::Starting),
        (false, Some(MarkPhase::Incoming)) if port_exists || may_be_starting => Some(Presence::Incoming),
        _ => None,
    }
}

/// Tells the neighbours whose addresses these are now, where they see the guest's MAC. Helps, but nothing depends on it.
pub(crate) fn announce_addresses(inputs: &Inputs, file: &GuestFile, links: &Links) {
    let mut frames: BTreeMap<IfName, Vec<Vec<u8>>> = BTreeMap::new();
    for (nic, interface, assigned) in file.addresses() {
        let (Some(pool), Some(address)) = (inputs.registry.pools.pools.get(&assigned.pool), assigned.address.single())
        else {
            continue;
        };
        let config = &inputs.guests[&file.vmid].config;
        let tag = config.tag(nic);
        let Some(device) = links.segment(pool.bridge, tag).filter(|_| pool.mode() == PoolMode::Bridged) else {
            continue;
        };
        frames.entry(device).or_default().push(announce::frame(interface.mac, address));
    }
    // All at once: to close the socket takes the kernel ten milliseconds.
    for (device, frames) in frames {
        if let Err(error) = packet::send(device, &frames) {
            log::warn!("cannot announce the addresses of guest {} on {device}: {error}", file.vmid);
        }
    }
}

/// What to tell guests of the gateways that the node is for them: those that have just arrived still look for them where
/// they came from, and all on a bridge do whose MAC has changed, or which has just been given the gateway.
fn greet(inputs: &Inputs, arrived: &[Vmid], steps: &[Step], macs_before: &BTreeMap<IfName, MacAddr>) -> Greetings {
    let given: BTreeSet<IpAddr> = steps
        .iter()
        .filter_map(|step| if let Step::SetGateway(_, gateway) = step { Some(*gateway) } else { None })
        .collect();
    let moved: BTreeSet<MacAddr> = macs_before
        .iter()
        .filter_map(|(name, before)| inputs.links.get(*name)?.mac.filter(|mac| mac != before))
        .collect();
    if arrived.is_empty() && given.is_empty() && moved.is_empty() {
        return Greetings::new();
    }
    let mut greetings = Greetings::new();
    let here = inputs.registry.guests.values();
    for guest in here.filter(|guest| inputs.presence.get(&guest.vmid) == Some(&Presence::Running)) {
        let is_new = arrived.contains(&guest.vmid);
        for (port, mac, gateway) in gateways_here(inputs, guest) {
            if is_new || given.contains(&gateway) || moved.contains(&mac) {
                greetings.entry(port).or_default().extend(announce::gateway(mac, gateway));
            }
        }
    }
    greetings
}

/// Sends them to the guests alone: out of their ports, and not by their bridge.
pub(crate) fn send_greetings(greetings: &Greetings) {
    for (port, frames) in greetings {
        if let Err(error) = packet::send(*port, frames) {
            log::warn!("cannot tell the guest behind {port} where its gateway is: {error}");
        }
    }
}

/// What the node's share of the state was made of: when it is the same, a hook need not look at that share.
///
/// A bridge without a fixed MAC takes over that of its ports, so it is part of it.
pub(crate) fn node_basis(pools_source: u64, pools: &PoolsFile, links: &Links) -> Vec<u8> {
    let mut basis = format!("{pools_source:016x}\n");
    for bridge in pools.pools.values().map(|pool| pool.bridge).collect::<BTreeSet<_>>() {
        let link = links.get(bridge).map(|link| (link.mac, &link.addresses, link.bridge));
        basis += &format!("{bridge} {link:?}\n");
    }
    basis.into_bytes()
}

/// The step without what it takes away, and without what it adds to these sets.
fn additive(step: Step, kept: &BTreeSet<SetId>) -> Option<Step> {
    match step {
        Step::RemoveRoute(_)
        | Step::RemoveProxy(..)
        | Step::RemoveNeighbour(..)
        | Step::RemoveGateway(..)
        | Step::RestoreSetting(_)
        | Step::RemoveForwarding(..)
        | Step::RemoveTable(_)
        | Step::RemoveIpSet(_) => None,
        Step::ChangeIpSet { set, create, add, .. } => {
            let change = create || !add.is_empty();
            change.then_some(Step::ChangeIpSet { set, create, add, remove: BTreeSet::new() })
        }
        // Chains are changed whole. As long as nothing that is wanted is missing, what is there besides may be meant.
        Step::LoadChains { wanted, found, .. } if wanted.is_empty() || wanted.is_part_of(&found) => None,
        Step::ChangeElements { mut add, .. } => {
            add.retain(|element| !kept.contains(&element.set()));
            (!add.is_empty()).then_some(Step::ChangeElements { add, remove: Vec::new() })
        }
        step => Some(step),
    }
}

/// What this release's rules should be in this kernel; computed once per boot.
pub fn reference(run: &RunState, log_group: Option<u16>) -> Result<Reference, FilterError> {
    let text = Nftables::text_hash(log_group);
    if let Some(fingerprints) = run.reference(text) {
        return Ok(Reference { log_group, fingerprints });
    }
    let computed = Nftables::reference(log_group)?;
    run.set_reference(text, computed.fingerprints);
    Ok(computed)
}

/// One guest's share as it would be if nothing of it were in the kernel but what `find` confirms.
pub(crate) fn observe_share(
    kernel: &mut Kernel,
    wanted: &NetState,
    recorded: &NetState,
) -> Result<NetState, KernelError> {
    let keys = wanted.elements.union(&recorded.elements).cloned().collect();
    Ok(NetState {
        rules: wanted.rules,
        routed_rules: wanted.routed_rules,
        // They are the whole node's.
        chains: BTreeMap::new(),
        ipsets: BTreeMap::new(),
        elements: kernel.find_elements(&keys)?,
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

/// The target of `/etc/pve/local`, else the host name.
fn node_name(paths: &Paths) -> Result<NodeName, ReconcileError> {
    let linked = std::fs::read_link(paths.local_node()).ok();
    let linked = linked.as_ref().and_then(|target| target.file_name()?.to_str());
    if let Some(name) = linked {
        return name.parse().map_err(|error: crate::model::NodeNameError| ReconcileError::NodeName(error.to_string()));
    }
    let host = nix::unistd::gethostname().map_err(|errno| ReconcileError::NodeName(errno.to_string()))?;
    let host = host.to_string_lossy();
    let short = host.split('.').next().unwrap_or_default();
    short.parse().map_err(|error: crate::model::NodeNameError| ReconcileError::NodeName(error.to_string()))
}
