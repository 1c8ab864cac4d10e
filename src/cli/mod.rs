//! The command line: arguments in, one [`Output`] out. Printing and exiting is done by `main`.

mod active;
pub mod answers;
mod arguments;
mod assignments;
mod audit;
mod complete;
mod conflicts;
mod doctor;
mod explain;
pub mod help;
mod import;
mod inside;
mod interface;
mod keys;
mod list;
mod node;
pub mod output;
mod partial;
mod partition;
mod pool_entries;
mod pool_import;
mod pool_list;
mod pools;
mod ports;
mod registry;
mod schema;
mod selftest;
mod settings;
mod setup;
mod status;
mod table;
mod topology;
mod uninstall;
mod usage;
mod who;
mod whose;

use std::path::PathBuf;
use std::time::Duration;

pub use arguments::*;
use clap::{Args, Parser, Subcommand};
pub use output::{Output, OutputFormat};
pub use schema::SchemaFile;
pub use usage::{format_asked_for, usage, with_help_of_problems};

use crate::audit::Author;
use crate::model::Problem;
use crate::model::{IfName, NodeName, PoolName};
use crate::ops::{self, advice};
use crate::paths::Paths;
use crate::reconcile::Node;

/// Bind the public IP addresses of Proxmox VE guests to their MAC and port
///
/// A guest gets an address from a pool. From the first frame to the last, only this guest can use the address: with its
/// own MAC and on its own port.
///
/// Exit status: 0 done, 1 failed, 2 usage, 3 drift or findings, 4 bad configuration, 5 registry not writable.
#[derive(Debug, Parser)]
#[command(name = "pve-public-ip", version, infer_subcommands = true, arg_required_else_help = true)]
pub struct Cli {
    /// Options of every command
    #[command(flatten)]
    pub global: Global,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Format of the output
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "PROXMOX_OUTPUT_FORMAT",
        hide_env = true,
        value_name = "FORMAT"
    )]
    pub output_format: OutputFormat,
    /// Print what would be done, and change nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Print debug messages
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Use the files of the node under this directory instead of /
    #[arg(
        long,
        global = true,
        env = "PVE_PUBLIC_IP_ROOT",
        default_value = "/",
        hide_default_value = true,
        value_name = "DIR"
    )]
    pub root: PathBuf,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Manage pools of addresses
    // Here and below: a beginning that a script may use since it had one meaning keeps it, whatever commands come.
    #[command(subcommand, visible_alias = "pools", alias = "po")]
    Pool(PoolCommand),
    /// Add a storage for the guests' cloud-init data that every node has
    ///
    /// A guest whose snippet is missing does not start, and the storage `local` differs on each node. The new storage
    /// is in Proxmox VE's cluster file system. Without --yes the command only prints the change.
    Setup(Setup),
    /// Check the registry's files, restore or convert them
    #[command(subcommand)]
    Registry(RegistryCommand),
    /// Show or change the settings of this node
    #[command(subcommand)]
    Node(NodeCommand),
    /// Give addresses to a guest
    ///
    /// Without an address, the NIC gets the next free address of each family of the pool, unless it already holds one.
    /// The same command again changes nothing. --count and --more ask for several addresses. The command registers the
    /// hookscript with the guest; our hookscript calls one that the guest already has.
    Assign(Assign),
    /// Assign addresses to many guests, from a CSV or JSON file or from what they use now: all in one step, or none
    ///
    /// Without a file the command lists the public addresses that guests of all nodes use: by their configurations, their
    /// network documents, the firewall's sets, this node's neighbour table, its static routes and its other packet filters,
    /// with --watch also by what the ports of this node send. It says what contradicts each of them. With --pool it assigns
    /// those of the pool to the guests that use them, and with --profile it makes that pool. The configuration inside the
    /// guests stays as it is, and no guest is interrupted.
    ///
    /// The first line of a CSV file names its columns: `vmid`, `address`, and optionally `interface` (net0) and
    /// `organization`. An address that the guest already holds is no change. The command does not probe the network for
    /// the addresses. With --dry-run it prints a table of the changes.
    Import {
        /// The file
        file: Option<PathBuf>,
        /// Assign the addresses of this pool to the guests that use them
        #[arg(long, conflicts_with = "file")]
        pool: Option<PoolName>,
        /// Make this pool of what is found, with this profile (see `pool create`). It starts on watch
        #[arg(long, requires = "pool", value_parser = ProfileParser)]
        profile: Option<ProfileOrFile>,
        /// Bridge of the new pool [default: the one on which the addresses are used]
        #[arg(long, requires = "profile")]
        bridge: Option<IfName>,
        /// First watch for so long what the ports of this node's bridges send, such as 10m. Every frame passes as before
        #[arg(long, value_name = "TIME", value_parser = import::watch_time, conflicts_with = "file")]
        watch: Option<Duration>,
        /// Only guests of this node [default: all nodes]
        #[arg(long, conflicts_with = "file")]
        node: Option<NodeName>,
        /// Do not register the hookscript
        #[arg(long)]
        no_hookscript: bool,
        /// Why
        #[command(flatten)]
        reason: Reason,
    },
    /// Take addresses from a guest, or from all guests (--all)
    ///
    /// Addresses that the guest does not hold are reported and are no failure. A running guest loses its addresses at
    /// once. Its former hookscript is put back with the last address.
    #[command(aliases = ["r", "re"])]
    Release(Release),
    /// Change what a guest's NIC may do besides using its addresses
    Set(Set),
    /// Show who holds which address, or which addresses are free
    ///
    /// The options can be combined. Free addresses are listed as ranges: a /64 is one row. The states are explained in
    /// docs/concepts.md.
    List(List),
    /// Show who holds an address, prefix, MAC or port, or that nobody does and who held it last
    ///
    /// Answers for any address: one that a guest holds (guest, node, state, since when, for whom), one that is free
    /// (pool, last holder, since when), one that is never assigned (why), and one that is in no pool (the nearest
    /// pools).
    Who(Who),
    /// Show the addresses of one guest
    Show(Show),
    /// Show what apply would do on this node
    Plan(PlanShown),
    /// Bring this node to its desired state
    Apply,
    /// Compare this node with its desired state; exit status 3 if it differs
    Verify(Verify),
    /// Show pools, guests, dropped frames and the guard on one screen
    Status(Status),
    /// Print metrics for Prometheus
    Metrics(Metrics),
    /// Show conflicts: two claimants of one address or MAC
    ///
    /// Compares the registry with the guests' configurations, the node's addresses, the allocations of Proxmox VE's
    /// SDN, the sets of its firewall, and frames on the network. An attempt by a guest, or a line in its configuration,
    /// blocks no address. An address that is claimed at the uplink or allocated by SDN is not assigned until the
    /// conflict is acknowledged or a day old.
    #[command(subcommand)]
    Conflicts(ConflictsCommand),
    /// Show the programs at guests' ports, which judge what a frame leaves to the node
    #[command(subcommand)]
    Port(PortCommand),
    /// Show what was changed on this node, by whom and why, and who held an address when
    ///
    /// Times are UTC. A change that was made by hand or on another node is listed as `found`, with the time when this
    /// node found the change. Its author is in the log of the node where the change was made.
    Audit(Audit),
    /// Examine hookscripts, guests, firewalls, kernel and cluster; exit status 3 if something should be done
    ///
    /// Finds what can break the protection, and prints the meaning and the remedy. A check that cannot be made is
    /// listed as such. Notes (info) do not count for the exit status.
    Doctor(Doctor),
    /// Draw this node: provider, uplinks, bridges, guests, and what lies behind guests that route
    ///
    /// Reads the guests' configurations, the registry and the kernel's interfaces; with --root, or without access to
    /// the kernel, /etc/network/interfaces. With --check the command looks for mistakes and exits with 3 if it finds
    /// one.
    Topology(Topology),
    /// Plan subnets and VLANs for the networks behind guests that route
    ///
    /// Reads guests, tags, interfaces and SDN, and prints a plan. The command never changes the network.
    #[command(subcommand)]
    Partition(PartitionCommand),
    /// Show whether this node forwards or drops a frame, and why
    ///
    /// The verdict is computed from the registry and the guests' configurations, not read from the filter. If the
    /// kernel treats a frame differently, `verify` shows the drift.
    Explain(Explain),
    /// Attack the rules on this kernel, in network namespaces of its own
    ///
    /// Builds bridges with guests, containers, firewall bridges and an uplink, loads the rules that this program would
    /// install, sends every kind of frame that must be dropped and every kind that must pass, from real tap and veth
    /// devices, and looks at who receives it. Needs root, `ip`, `bridge` and `nft`, but no Proxmox VE and no
    /// configuration. The command changes nothing on the machine and leaves nothing behind.
    ///
    /// Exit status 0 only if every frame was treated as expected. A topology that this kernel does not support is named
    /// and fails the test, unless nodes can do without it (VLAN-aware bridges, `br_netfilter`).
    Selftest(Selftest),
    /// Remove what this program has installed on this node: filter, routes, neighbours, settings, hookscripts
    ///
    /// Stops the guard first. Without --yes the command only prints what would be removed. Pools and assignments belong to the
    /// cluster and stay. `apt remove` runs it with --keep-running.
    Uninstall(Uninstall),
    /// Watch this node and repair drift (the service)
    ///
    /// The guard does what apply does whenever something changes: an interface, the filter, a neighbour, a route, the
    /// registry, the node of a guest. SIGHUP makes the guard compare at once. SIGTERM ends the guard and leaves the
    /// protection in place. `status` shows the guard; `node_exporter` finds its metrics.
    Guard(GuardOptions),
    /// Send the guard's alerts to the administrator
    ///
    /// Alerts go by mail and to a program, as `node set --alert-mail` and `--alert-exec` say. systemd runs this command
    /// when alerts are waiting.
    Deliver,
    /// Run one phase of a guest's life (called by the hookscript)
    Hook(Hook),
    /// Answer requests of programs: one JSON object per line (the service behind the API's socket)
    ///
    /// systemd runs this command for each connection to /run/pve-public-ip-api.sock. It reads standard input until its
    /// end, and answers only root and the gateway's user. With --listen it creates a socket of its own and serves it
    /// until a signal ends it.
    Serve(Serve),
    /// Create, list and revoke API keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Print the JSON Schemas of files and answers
    Schema {
        /// Which file
        #[arg(value_enum)]
        file: Option<SchemaFile>,
    },
    /// Explain the code of a problem, note or finding: meaning, cause, remedy
    Problem {
        /// The code, as in JSON and in the output of `doctor` [default: list all codes]
        code: Option<String>,
    },
    /// Print a completion script for a shell
    #[command(aliases = ["com", "comp", "compl", "comple", "complet"])]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print completions (called by the completion scripts)
    #[command(hide = true)]
    CompleteWords(CompleteWords),
}

impl Command {
    /// Whether it only reads and says what it finds, at once: it may end whenever its time is over.
    pub fn only_looks(&self) -> bool {
        match self {
            Self::Status(status) => !status.watch,
            Self::Verify(verify) => !verify.active,
            Self::Doctor(doctor) => !doctor.fix,
            Self::Conflicts(ConflictsCommand::List { .. })
            | Self::Pool(PoolCommand::List | PoolCommand::Show { .. } | PoolCommand::Export { .. })
            | Self::Registry(RegistryCommand::Check)
            | Self::Key(KeyCommand::List)
            | Self::Node(NodeCommand::Show)
            | Self::Port(_)
            | Self::Plan(_)
            | Self::Metrics(_)
            | Self::List(_)
            | Self::Show(_)
            | Self::Who(_)
            | Self::Topology(_)
            | Self::Audit(_) => true,
            _ => false,
        }
    }

    /// Whether it reads or changes what lies in the cluster file system, and ends.
    pub fn reads_the_cluster(&self) -> bool {
        let stays = matches!(self, Self::Guard(_) | Self::Serve(_) | Self::Status(Status { watch: true, .. }));
        let is_elsewhere = matches!(
            self,
            Self::Deliver | Self::Selftest(_) | Self::Schema { .. } | Self::Problem { .. } | Self::Completion { .. }
        );
        !stays && !is_elsewhere
    }
}

/// Exit status of a failure. Success is 0; drift and findings are 3; wrong arguments, by clap, are 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Anything else.
    Failed = 1,
    /// The registry's files are wrong.
    BadConfig = 4,
    /// The registry could not be written.
    NotWritable = 5,
}

impl Exit {
    /// The exit status of a command that failed for this reason.
    pub fn of(problem: &Problem) -> Self {
        match problem.code.as_str() {
            "registry-broken" | "registry-newer" | "keys-unusable" => Self::BadConfig,
            "registry-not-writable"
            | "registry-changed-meanwhile"
            | "registry-file-too-large"
            | "registry-locked"
            | "registry-lock-lost"
            | "etc-pve-down"
            | "etc-pve-stale" => Self::NotWritable,
            _ => Self::Failed,
        }
    }
}

impl Command {
    /// Why the command is given.
    fn reason(&self) -> Option<&String> {
        let Reason { reason } = match self {
            Self::Pool(PoolCommand::Create(command)) => &command.reason,
            Self::Pool(PoolCommand::Add(command)) => &command.reason,
            Self::Pool(PoolCommand::Set(command)) => &command.reason,
            Self::Import { reason, .. }
            | Self::Pool(PoolCommand::Remove { reason, .. } | PoolCommand::Import { reason, .. })
            | Self::Registry(RegistryCommand::Restore { reason, .. } | RegistryCommand::Convert { reason })
            | Self::Key(KeyCommand::Revoke { reason, .. }) => reason,
            Self::Node(NodeCommand::Set(command)) => return command.reason.as_ref(),
            Self::Setup(command) => &command.reason,
            Self::Uninstall(command) => &command.reason,
            Self::Key(KeyCommand::Add(command)) => &command.reason,
            Self::Assign(command) => &command.reason,
            Self::Release(command) => &command.reason,
            Self::Set(command) => &command.reason,
            _ => return None,
        };
        reason.as_ref()
    }
}

impl Cli {
    /// Runs the command. Whatever went wrong is a [`Problem`] in the output.
    pub fn run(self) -> Output {
        let is_hook = matches!(self.command, Command::Hook(_));
        match self.carry_out() {
            Ok(output) => output,
            Err(error) => {
                let problem = ops::problem_of(&error);
                // Proxmox VE asks whether a hook failed, and nothing else.
                let exit = if is_hook { Exit::Failed } else { Exit::of(&problem) };
                Output::failed(problem, exit as u8)
            }
        }
    }

    fn carry_out(self) -> anyhow::Result<Output> {
        let global = self.global;
        match self.command {
            Command::Schema { file } => Ok(schema::schema(file)),
            Command::Completion { shell } => Ok(complete::script(shell)),
            Command::CompleteWords(command) => Ok(complete::complete(&command)),
            Command::Problem { code } => help::problem(code.as_deref()),
            Command::Selftest(command) => selftest::run(command, global.verbose),
            // Looks for the node itself: where that fails or hangs there is still something to say.
            Command::Doctor(command) => {
                doctor::doctor(&Paths::new(std::path::absolute(&global.root)?), &command, global.dry_run)
            }
            // Looks for the node itself, for each request.
            Command::Serve(command) => {
                keys::serve(&Paths::new(std::path::absolute(&global.root)?), &command, global.dry_run)
            }
            Command::Topology(command) => topology::topology(&Paths::new(std::path::absolute(&global.root)?), &command),
            Command::Partition(command) => {
                partition::run(&Paths::new(std::path::absolute(&global.root)?), &command, global.dry_run)
            }
            command => {
                let paths = Paths::new(std::path::absolute(&global.root)?);
                // It has something to do even if the cluster file system hangs.
                let is_apply = matches!(command, Command::Apply);
                let mut node = if is_apply { Node::open_anyway(paths) } else { Node::open(paths) }?;
                let author = Author { why: command.reason().cloned(), ..Author::default() };
                ops::act_for(&mut node, &author);
                match command {
                    Command::Pool(command) => pools::run(&node, command, global.dry_run),
                    Command::Registry(command) => registry::run(&node, command, global.dry_run),
                    Command::Node(command) => settings::run(&node, command, global.dry_run),
                    Command::Setup(command) => setup::setup(&node, &command, global.dry_run),
                    Command::Uninstall(command) => uninstall::uninstall(&node, &command, global.dry_run),
                    Command::Assign(command) => assignments::assign(&node, &command, global.dry_run),
                    Command::Import { file: Some(file), no_hookscript, .. } => {
                        import::import(&node, &file, !no_hookscript, global.dry_run)
                    }
                    Command::Import { pool, profile, bridge, watch, node: only, no_hookscript, .. } => {
                        let selection = import::selection(pool, profile, bridge, only, watch)?;
                        import::import_present(&node, selection, !no_hookscript, global.dry_run)
                    }
                    Command::Release(command) => assignments::release(&node, &command, global.dry_run),
                    Command::Set(command) => interface::set(&node, command, global.dry_run),
                    Command::List(command) => list::list(&node, &command, global.output_format),
                    Command::Show(command) => assignments::show(&node, &command),
                    Command::Who(command) => who::who(&node, &command),
                    Command::Plan(command) => node::plan(&node, command.all),
                    Command::Apply => node::apply(&node, global.dry_run),
                    Command::Verify(command) => node::verify(&node, &command),
                    Command::Conflicts(command) => conflicts::run(&node, command, global.dry_run),
                    Command::Audit(command) => Ok(audit::audit(&node, &command)),
                    Command::Explain(command) => explain::explain(&node, &command),
                    Command::Status(command) => status::status(&node, &command, global.output_format),
                    Command::Metrics(command) => status::metrics(&node, &command),
                    Command::Guard(command) => node::guard(node, &command, global.dry_run),
                    Command::Deliver => node::deliver(&node, global.dry_run),
                    Command::Hook(command) => node::hook(&node, &command),
                    Command::Port(PortCommand::Show { ports }) => ports::show(&node, &ports),
                    Command::Key(command) => keys::run(&node, command, global.dry_run),
                    Command::Schema { .. }
                    | Command::Problem { .. }
                    | Command::Completion { .. }
                    | Command::CompleteWords(_)
                    | Command::Selftest(_)
                    | Command::Doctor(_)
                    | Command::Serve(_)
                    | Command::Topology(_)
                    | Command::Partition(_) => Ok(Output::new("", serde_json::Value::Null)),
                }
            }
        }
    }
}
