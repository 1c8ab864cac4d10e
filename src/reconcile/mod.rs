//! The one path: gather inputs, decide, and either act or print. `apply`, `verify`, `plan`, hook and guard differ in the scope
//! and the baseline that they choose, and in nothing else.
//!
//! | who | scope | baseline |
//! |---|---|---|
//! | `plan`, `verify`, `status`, `apply` | the node | unknown: everything is read |
//! | guard | the node | how its last look left the filter |
//! | hook | one guest; the node, if that is not in place | what the guest's mark says was applied |

mod announce;
mod baseline;
#[cfg(test)]
pub(crate) mod fake;
mod filter;
mod guest;
mod leave;
mod look;
mod marks;
mod network;
mod node;
mod ports;
mod routers;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

pub use announce::Greetings;
pub(crate) use announce::announce_addresses;
pub use baseline::{Baseline, Left, drift};
pub use guest::{GuestScope, Transition};
pub use look::Look;
pub use marks::{compare, presence_of};
pub use network::{Extent, Kernels, Network, Networks, Which};
pub use ports::{attend_guests_ports, attend_ports, count_drops_of_ports, follow_with_ports, notes_on_ports};
pub(crate) use routers::ask_routers;
pub use sources::{Sources, Trust};

use nix::fcntl::Flock;

use crate::code;
use crate::guest::{GuestError, Guests};
use crate::model::problem::chain;
use crate::model::{Code, IfName, NodeName, Vmid};
use crate::paths::Paths;
use crate::plan::{
    Failed, Inputs, NetState, Obstacles, Outcome, PortWish, Presence, Problem, Refusal, Step, Subject, carry_out,
    questions,
};
use crate::registry::Registry;
use crate::store::{Store, StoreError};
use crate::system::run::{RunError, RunState, Shared, Tick};
use crate::system::{FilterError, KernelError};

/// What is said of a cluster file system that hangs.
pub const SILENT: &str = "does not answer";

/// How long a command waits for another one that changes this node.
pub(crate) const NODE_LOCK_LIMIT: Duration = Duration::from_secs(30);

/// How long the node's name may take to be read.
const NAME_LIMIT: Duration = Duration::from_secs(5);

/// The note of the bridges of VLANs that the node's share of the state took in: Proxmox VE makes one when the first guest
/// of its VLAN starts, after pre-start.
const VLAN_BRIDGES: &str = "vlan-bridges";

/// This node: its name, its files, its network.
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
    /// How to get to its network.
    pub networks: Arc<dyn Networks>,
    /// A change of this process that is written, or about to be, and that the node has not followed yet.
    change: Arc<Mutex<Option<Flock<File>>>>,
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
    /// What programs are to be at guests' ports; nobody has seen to it yet.
    pub ports: BTreeMap<IfName, PortWish>,
}

/// How a node followed a change.
#[derive(Debug)]
pub enum Follow {
    /// By this reconciliation.
    Own(Box<Report>),
    /// By one that somebody else began after the change was written.
    Shared(Shared),
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
    /// The cluster's files cannot be read; what was done instead.
    #[error("{}; {instead}", chain(cause))]
    Unread {
        /// Why they cannot be read.
        cause: Box<ReconcileError>,
        /// What became of the node.
        instead: String,
    },
    /// Something stands in the way of a guest.
    #[error(transparent)]
    Refused(Refusal),
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
    /// What failed first.
    pub fn first(&self) -> &Self {
        if let Self::Unread { cause, .. } = self { cause.first() } else { self }
    }

    /// Its kind.
    pub fn code(&self) -> Code {
        match self {
            Self::Store(error) => error.code(),
            Self::Guest(error) => error.code(),
            Self::Run(error) => error.code(),
            Self::Kernel(error) => error.code(),
            Self::Silent(_) => code!("etc-pve-silent"),
            Self::Unread { cause, .. } => cause.code(),
            Self::Refused(_) => code!("start-refused"),
            Self::NodeName(_) => code!("node-name-unusable"),
        }
    }

    /// Whether that next step ends with an `apply`.
    pub fn hint_applies(&self) -> bool {
        matches!(self.first(), Self::Kernel(error) if error.hint_applies())
    }

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
            Self::Unread { cause, .. } => cause.hint(),
            Self::Refused(refusal) => Some(refusal.hint.clone()),
            Self::NodeName(_) => Some("`hostname` must be a name without dots".to_owned()),
        }
    }
}

/// What a reconciliation is about.
#[derive(Debug)]
pub enum Scope<'a> {
    /// The whole node, by files that can be trusted so far.
    Node(&'a mut Sources, Trust),
    /// What one guest's start or stop changes. Where the node's own share is not in place, that comes first.
    Guest(&'a GuestScope<'a>, Transition<'a>),
}

/// One reconciliation of a node, with its lock held, by one connection to its network.
#[derive(Debug)]
pub struct Reconciler<'a> {
    node: &'a Node,
    run: &'a RunState,
    network: &'a mut dyn Network,
    mode: Mode,
}

/// What became of steps.
struct Carried {
    done: Vec<Step>,
    failed: Vec<Failed<Refusal>>,
    /// Whether the network refused any of them, so that trying again may help.
    was_refused: bool,
}

impl<'a> Reconciler<'a> {
    /// One that has decided nothing yet.
    pub fn new(node: &'a Node, run: &'a RunState, network: &'a mut dyn Network, mode: Mode) -> Self {
        Self { node, run, network, mode }
    }

    /// Brings this scope to its desired state, or says what that would take.
    pub fn reconcile(&mut self, scope: Scope<'_>, baseline: Baseline<'_>) -> Result<Report, ReconcileError> {
        match (scope, baseline) {
            (Scope::Node(sources, trust), Baseline::Unknown) => self.node(sources, trust, None),
            (Scope::Node(sources, trust), Baseline::Kept(left)) => self.node_since(sources, trust, left),
            // Of a guest its mark knows what was applied.
            (Scope::Guest(guest, transition), _) => self.guest(guest, transition),
        }
    }

    /// Carries out steps in the order of safety, as far as nothing known stands in their way.
    fn carry_out(&mut self, steps: Vec<Step>, obstacles: &Obstacles, registry: &Registry) -> Carried {
        let mut was_refused = false;
        let Outcome { done, failed } = carry_out(steps, registry, |step| {
            if let Some(refusal) = obstacles.of(step) {
                return Err(refusal.clone());
            }
            if self.mode == Mode::Plan {
                return Ok(());
            }
            self.network.apply(step).map_err(|error| {
                was_refused = true;
                refusal(error)
            })
        });
        Carried { done, failed, was_refused }
    }
}

impl Node {
    /// The node whose files are under `paths`.
    pub fn open(paths: Paths) -> Result<Self, ReconcileError> {
        let name = node_name(&paths)?;
        Ok(Self::named(paths, name))
    }

    /// The same, where a cluster file system that hangs is no reason to wait: the name of the host is that of the node, too.
    pub fn open_anyway(paths: Paths) -> Result<Self, ReconcileError> {
        let own = paths.clone();
        let name = aside(move || node_name(&own)).recv_timeout(NAME_LIMIT);
        Ok(Self::named(paths, name.unwrap_or_else(|_| host_name())?))
    }

    /// The node of this name.
    fn named(paths: Paths, name: NodeName) -> Self {
        let store = Store::new(&paths, &name);
        let guests = Guests::new(&paths, &name);
        Self { paths, name, store, guests, networks: Arc::new(Kernels), change: Arc::default() }
    }

    /// For whoever goes on asking and changing: what has not changed is not read again, as far as the file system tells.
    pub fn attend(&self) {
        self.store.attend();
        self.guests.attend();
    }

    /// A connection for changes.
    pub(crate) fn network(&self, run: &RunState) -> Result<Box<dyn Network>, ReconcileError> {
        self.networks.to_change(run, self.store.node_file().and_then(|file| file.log_group))
    }

    /// Everything that decisions depend on, now.
    pub fn inputs(&self) -> Result<Inputs, ReconcileError> {
        let run = RunState::unlocked(&self.paths);
        let mut sources = self.read_sources()?;
        let mut network = self.networks.to_look(&run)?;
        sources.look_at_network(&mut *network)?;
        self.look_at_guests(&run, &mut sources);
        self.look_at_routers(&mut *network, &mut sources.inputs, Mode::Plan)?;
        Ok(sources.inputs)
    }

    /// Brings the whole node to its desired state, then asks on the wire for routers behind the uplinks that the node does
    /// not know by itself, and takes in who answers. To ask needs no lock, and takes a second at most; nothing is asked that
    /// was asked a while ago, so that the files are read once as a rule.
    pub fn reconcile_and_ask(&self) -> Result<Report, ReconcileError> {
        let run = RunState::lock(&self.paths, NODE_LOCK_LIMIT)?;
        self.reconcile_locked(run, |_, _, _| {})
    }

    /// As [`Self::reconcile_and_ask`] for a change that was written before. If it had to wait for the node's lock, a
    /// reconciliation for other changes may have begun after that, and has taken this one in: many changes at once cost little
    /// more than one. That does not count if something of it failed for the node or for `about`.
    pub fn follow(&self, about: &Subject) -> Result<Follow, ReconcileError> {
        let followed = self.follow_now(about);
        self.end_change();
        followed
    }

    fn follow_now(&self, about: &Subject) -> Result<Follow, ReconcileError> {
        let written = Tick::now();
        let run = RunState::lock(&self.paths, NODE_LOCK_LIMIT)?;
        let shared = written.and_then(|written| run.followed_since(&written));
        let is_own = |failed: &Problem| failed.subject == Subject::Node || failed.subject == *about;
        if let Some(shared) = shared.filter(|shared| !shared.failed.iter().any(is_own)) {
            return Ok(Follow::Shared(shared));
        }
        let note = |run: &RunState, sources: &Sources, report: &Report| {
            if let Some(began) = sources.began.clone().filter(|_| sources.are_whole()) {
                let failed = report.failed.iter().map(Failed::problem).collect();
                run.set_followed(&Shared { began, failed, notes: report.notes.clone() });
            }
        };
        self.reconcile_locked(run, note).map(|report| Follow::Own(Box::new(report)))
    }

    /// Does it with the node's lock, of which nothing is left when routers are asked.
    fn reconcile_locked(
        &self,
        run: RunState,
        note: impl FnOnce(&RunState, &Sources, &Report),
    ) -> Result<Report, ReconcileError> {
        let mut sources = self.read_sources_in_time()?;
        let mut report = self.reconcile_by(&run, &mut sources, Mode::Apply)?;
        note(&run, &sources, &report);
        drop(run);
        if !ask_routers(&self.paths, &questions(sources.inputs())) {
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

    /// Brings the whole node to its desired state, or says what that would take.
    pub fn reconcile(&self, mode: Mode) -> Result<Report, ReconcileError> {
        let run = match mode {
            Mode::Plan => RunState::lock_to_look(&self.paths, NODE_LOCK_LIMIT)?,
            Mode::Apply => RunState::lock(&self.paths, NODE_LOCK_LIMIT)?,
        };
        self.reconcile_by(&run, &mut self.read_sources_in_time()?, mode)
    }

    /// As [`Self::reconcile`], by files that were read since the lock was taken.
    pub fn reconcile_by(&self, run: &RunState, sources: &mut Sources, mode: Mode) -> Result<Report, ReconcileError> {
        self.reconcile_trusting(run, sources, Trust::Whole, mode)
    }

    fn reconcile_trusting(
        &self,
        run: &RunState,
        sources: &mut Sources,
        trust: Trust,
        mode: Mode,
    ) -> Result<Report, ReconcileError> {
        let mut network = self.networks.to_change(run, sources.log_group())?;
        Reconciler::new(self, run, &mut *network, mode).reconcile(Scope::Node(sources, trust), Baseline::Unknown)
    }

    /// As [`Self::reconcile_and_ask`]. Where the cluster's files cannot be read, what was known of them last protects the node
    /// meanwhile: `apply` runs at boot, and a node whose `/etc/pve` is down or hangs must not be open.
    pub fn reconcile_or_protect(&self) -> Result<Report, ReconcileError> {
        let cause = match self.reconcile_and_ask() {
            Err(error @ (ReconcileError::Store(_) | ReconcileError::Guest(_) | ReconcileError::Silent(_))) => error,
            done => return done,
        };
        let instead = match self.protect_by_memory() {
            Ok(false) => return Err(cause),
            Ok(true) => "until it can be read, this node is protected by what it knew last".to_owned(),
            Err(error) => {
                format!("to protect this node by what it knew last failed, too: {}", chain(&error))
            }
        };
        Err(ReconcileError::Unread { cause: Box::new(cause), instead })
    }

    /// Puts protection in place by what this node knew last, and takes nothing away: for when the cluster's files cannot be
    /// read. Says whether anything was known.
    fn protect_by_memory(&self) -> Result<bool, ReconcileError> {
        let run = RunState::lock(&self.paths, NODE_LOCK_LIMIT)?;
        let Some(mut sources) = self.remembered_sources(&run) else { return Ok(false) };
        self.reconcile_trusting(&run, &mut sources, Trust::OldButSafe, Mode::Apply)?;
        Ok(true)
    }
}

/// Does something in a thread of its own, because whoever reads from a file system that hangs, hangs with it, beyond the
/// reach of any signal. The thread is left behind if nobody waits for its answer any more.
fn aside<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (done, answer) = channel();
    thread::spawn(move || drop(done.send(body())));
    answer
}

/// What failed, and what could not be read, beside other problems; one cause of several steps is said once.
fn add_failures(problems: &mut Vec<Problem>, failed: &[Failed<Refusal>], obstacles: &Obstacles) {
    problems.extend(failed.iter().map(Failed::problem));
    // What is not wanted there any more may be there still.
    let unread = obstacles.unread().into_iter().filter(|unread| failed.iter().all(|failed| failed.error != **unread));
    let problem =
        |unread: &Refusal| Problem::of_node(code!("kernel-unreadable"), unread.sentence.clone(), unread.hint.clone());
    problems.extend(unread.into_iter().map(problem));
    let mut said = BTreeSet::new();
    problems.retain(|problem| said.insert((problem.guest(), problem.sentence.clone())));
}

/// What the kernel says, with all its causes, and what to do about it.
pub(crate) fn refusal(error: KernelError) -> Refusal {
    let hint = error.hint().unwrap_or_else(|| "`pve-public-ip apply` tries again".to_owned());
    let sentence = format!("{:#}", anyhow::Error::from(error));
    Refusal { sentence, hint }
}
/// The target of `/etc/pve/local`, else the host name.
fn node_name(paths: &Paths) -> Result<NodeName, ReconcileError> {
    let linked = std::fs::read_link(paths.local_node()).ok();
    let linked = linked.as_ref().and_then(|target| target.file_name()?.to_str());
    if let Some(name) = linked {
        return name.parse().map_err(|error: crate::model::NodeNameError| ReconcileError::NodeName(error.to_string()));
    }
    host_name()
}

/// The host's name, without its domain.
fn host_name() -> Result<NodeName, ReconcileError> {
    let host = nix::unistd::gethostname().map_err(|errno| ReconcileError::NodeName(errno.to_string()))?;
    let host = host.to_string_lossy();
    let short = host.split('.').next().unwrap_or_default();
    short.parse().map_err(|error: crate::model::NodeNameError| ReconcileError::NodeName(error.to_string()))
}
