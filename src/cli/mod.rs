//! The command line: arguments in, one [`Output`] out. Printing and exiting is done by `main`.

mod active;
pub mod answers;
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
mod pool_import;
mod pool_list;
mod pools;
mod registry;
mod selftest;
mod settings;
mod setup;
mod status;
mod table;
mod topology;
mod who;
mod whose;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ipnet::{Ipv4Net, Ipv6Net};
pub use output::{Output, OutputFormat};

use crate::audit::{Author, Entry, Span};
use crate::code;
use crate::hook::Phase;
use crate::model::text::escaped;
use crate::model::{CoolDown, IfName, MacAddr, NicId, NodeName, PoolName, Prefix, Problem, Subject, Vmid};
use crate::ops::{self, advice};
use crate::partition::{Declared, Growth, Plan, Strategy, VlanRange};
use crate::paths::Paths;
use crate::reconcile::Node;
use crate::registry::document::{
    BackendChoice, CloudInitCheck, GuestFile, GuestOs, NodeFile, PoolFile, PoolsFile, Probe, Profile, ReleasedFile,
    UplinkGuard,
};
use crate::registry::layout::Layout;
use crate::reply::Role;

/// Bind the public IP addresses of Proxmox VE guests to their MAC and port
///
/// A guest gets an address from a pool; its hookscript then sees to it that only this guest, with its own MAC and on
/// its own port, can use the address, from the first frame to the last.
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
    /// Form of the output
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
    /// Say what would be done, and do nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Say more
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
    /// Manage pools: what there is to hand out
    #[command(subcommand, visible_alias = "pools")]
    Pool(PoolCommand),
    /// Make a storage for the guests' cloud-init data that every node has
    ///
    /// A guest whose snippet is missing does not start. The storage `local` is another one on each node; this one lies
    /// beside the registry, in Proxmox VE's cluster file system. Says what it would change, and changes it with --yes.
    Setup(Setup),
    /// Look for files of the registry that cannot be used, or put their last known good copies back
    #[command(subcommand)]
    Registry(RegistryCommand),
    /// Show or change what is set for this node alone
    #[command(subcommand)]
    Node(NodeCommand),
    /// Give addresses to a guest
    ///
    /// The MAC is that of the guest's NIC. Without an address the NIC gets the next free one of each family of the pool, unless
    /// it holds one already: the same command again changes nothing. --count and --more ask for several.
    /// The hookscript is registered with the guest; a hookscript that it has already is kept and called by ours.
    Assign(Assign),
    /// Give addresses to many guests, as a CSV or JSON file says: all in one step, or none
    ///
    /// CSV has a first line with the names of its columns: `vmid`, `address`, and if wanted `interface` (net0), `organization`.
    /// What a guest holds already is no change. The network is not asked who has the addresses. With --dry-run the changes are
    /// only shown.
    Import {
        /// The file
        file: PathBuf,
        /// Do not register the hookscript
        #[arg(long)]
        no_hookscript: bool,
        /// Why
        #[command(flatten)]
        reason: Reason,
    },
    /// Take addresses from a guest
    ///
    /// What the guest does not hold, or holds no more, need not be taken from it: that is said, and no failure.
    Release(Release),
    /// Change what a guest's NIC may do besides using its addresses
    Set(Set),
    /// Show who holds which address, or which addresses are free
    ///
    /// The options can be combined. Free addresses are shown as ranges: a /64 is one row.
    List(List),
    /// Show who holds an address, prefix, MAC or port, or that nobody does and who held it last
    ///
    /// Answers for any address: one that a guest holds (guest, node, state, since when, for whom), one that is free (pool, last
    /// holder, since when), one that is never assigned (why), and one that is in no pool (the nearest pools).
    Who(Who),
    /// Show the addresses of one guest
    Show(Show),
    /// Show what apply would do on this node
    Plan(PlanShown),
    /// Bring this node to its desired state
    Apply,
    /// Compare this node with its desired state; exit status 3 if it differs
    Verify(Verify),
    /// Show on one screen how this node is: pools, guests, what was dropped, the guard
    Status(Status),
    /// Print the same as metrics for Prometheus
    Metrics(Metrics),
    /// Show who claims an address or MAC that somebody else has
    ///
    /// Compares the registry with the guests' configurations, the node's addresses, what Proxmox VE's SDN has given away and
    /// its firewall's sets, and shows what was seen on the network. What a guest only tried, and what stands in its
    /// configuration, takes no address from anybody. An address that is claimed on the uplink's side, or given away by SDN, is
    /// not handed out until the conflict is acknowledged or has not been seen for a day.
    #[command(subcommand)]
    Conflicts(ConflictsCommand),
    /// Show what was changed on this node, by whom and why, and who held an address when
    ///
    /// Times are UTC. What was changed by hand or on another node is there as `found`, with the time at which it was found
    /// and without its author, who is in the log of the node where it was done.
    Audit(Audit),
    /// Examine what surrounds the protection: hookscripts, guests, firewalls, kernel, cluster; exit status 3 if something
    /// should be done
    ///
    /// Finds what can break the protection or surprise, and says what it means and what to do. What cannot be looked at makes
    /// a line of its own. Remarks (info) do not count for the exit status.
    Doctor(Doctor),
    /// Draw this node: provider, uplinks, bridges, guests, and what lies behind guests that route
    ///
    /// From the guests' configurations, the registry and the kernel's interfaces; with --root, or where the kernel cannot be
    /// asked, from /etc/network/interfaces. With --check it looks for what cannot work as it is drawn: exit status 3 if
    /// something is found.
    Topology(Topology),
    /// Plan subnets for the networks behind: what shares one, its size, VLAN and gateway, and what may pass between
    ///
    /// Reads guests, tags, interfaces and SDN, and prints. It never changes the network.
    #[command(subcommand)]
    Partition(PartitionCommand),
    /// Say what becomes of a frame on this node, and why
    ///
    /// Worked out from the registry and the guests' configurations, not read from the filter: if a frame fares otherwise,
    /// `verify` tells what is not as it should be.
    Explain(Explain),
    /// Attack the rules on this kernel, in network namespaces made for it
    ///
    /// Builds bridges with guests, containers, firewall bridges and an uplink, loads the rules that this program would
    /// install, sends every kind of frame that must be dropped and every kind that must pass, from real tap and veth
    /// devices, and looks at who receives it. Needs root, `ip`, `bridge` and `nft`, but no Proxmox VE and no configuration.
    /// It touches nothing of the machine and leaves nothing behind.
    ///
    /// Exit status 0 only if every frame met its fate; a topology that this kernel cannot have is named, and fails the
    /// test unless nodes can do without it (VLAN-aware bridges, `br_netfilter`).
    Selftest(Selftest),
    /// Watch this node and repair it, until a signal ends it (the service)
    ///
    /// Does what apply does whenever something changes: an interface, the filter, a neighbour or a route of ours, the
    /// registry, a guest that moves. SIGHUP makes it look at once; SIGTERM ends it and leaves the protection in place. How
    /// it is, is in /run/pve-public-ip/guard; metrics for Prometheus are left where `node_exporter` finds them.
    Guard(GuardOptions),
    /// Send the messages to the administrator that the guard has left
    ///
    /// By mail to root and to a program, as the node's file of the registry says (`alert_mail`, `alert_exec`); systemd does
    /// it when there are some.
    Deliver,
    /// Run one phase of a guest's life (called by the hookscript)
    Hook(Hook),
    /// Answer requests of programs: JSON, a request a line, an answer a line (the socket's service)
    ///
    /// Reads standard input until it ends, as systemd calls it for a connection to /run/pve-public-ip-api.sock; only root
    /// and the gateway's user are answered. With --listen it makes a socket and serves it, until a signal ends it.
    Serve(Serve),
    /// Make, list and revoke the keys with which callers prove to the gateway who they are
    #[command(subcommand)]
    Key(KeyCommand),
    /// Print the JSON Schema of the registry's files and of the audit log
    Schema {
        /// Which file
        #[arg(value_enum)]
        file: Option<SchemaFile>,
    },
    /// Explain a code that a problem, a note or a finding has: what it means, why it comes about, what to do
    Problem {
        /// The code, as JSON has it and `doctor` prints it; none: all of them
        code: Option<String>,
    },
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the words that can stand at one place of a command line (called by the completion scripts)
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

/// `serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// Make this socket and serve connections to it
    #[arg(long, value_name = "SOCKET")]
    listen: Option<PathBuf>,
    /// The user, besides root, who is answered; with --listen its group may connect
    #[arg(long, value_name = "NAME", default_value = crate::serve::USER)]
    user: String,
}

/// `key ...`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key, and show its secret: nobody can show it again
    Add(KeyAdd),
    /// List the keys
    List,
    /// Revoke a key: it counts no more within two seconds, on every node
    Revoke {
        /// Its name
        name: String,
        /// Why
        #[command(flatten)]
        reason: Reason,
    },
}

/// `key add`
#[derive(Debug, Args)]
pub struct KeyAdd {
    /// Its name: what is done with it is in the audit log under that name
    name: String,
    /// What it may do
    #[arg(long, value_enum)]
    role: Role,
    /// Only the addresses of this organization can be seen and touched with it
    #[arg(long, value_name = "ORG", value_parser = plain_text)]
    organization: Option<String>,
    /// From when on it counts no more: a time (2027-01-31T00:00:00Z), the end of a day (2027-01-31), or a span from now on (90d)
    #[arg(long, value_name = "TIME")]
    expires: Option<Span>,
    /// Why
    #[command(flatten)]
    reason: Reason,
}

/// `complete-words`
#[derive(Debug, Args)]
pub struct CompleteWords {
    /// Which of the words is completed, from 0
    index: usize,
    /// The words, the program's name first
    #[arg(last = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Files that have a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SchemaFile {
    /// pools.json
    Pools,
    /// pools/NAME.json
    Pool,
    /// guests/VMID.json
    Guest,
    /// released.json
    Released,
    /// nodes/NODE.json
    Node,
    /// A file for `pool create --profile`
    Profile,
    /// A line of the audit log
    Audit,
    /// A plan of `partition plan`
    Partition,
    /// A file for `partition --from`
    Labels,
    /// The JSON output of each command, by its name
    Output,
}

/// `conflicts ...`
#[derive(Debug, Subcommand)]
pub enum ConflictsCommand {
    /// List them
    List {
        /// Show all, not ten of a kind
        #[arg(long)]
        all: bool,
    },
    /// Say that you know of some: they block nothing, and are shown last
    Ack {
        /// Their numbers, as the list shows them
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<String>,
        /// All that there are
        #[arg(long)]
        all: bool,
    },
}

/// `pool ...`
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// Create a pool
    Create(PoolCreate),
    /// Add an address or prefix to a pool, or change what is known of one
    ///
    /// What is not given stays as it is. The profile's gateway is assumed where the pool has none for the address.
    Add(PoolAdd),
    /// Add addresses to a pool, or change what is known of them, as a CSV or JSON file says: all in one step, or none
    ///
    /// CSV has a first line with the names of its columns: `address`, `mac`, `gateway`, `monthly_cost_cents`. An empty cell leaves
    /// what is known as it is. With --dry-run the changes are only shown.
    Import {
        /// The pool
        name: PoolName,
        /// The file
        file: PathBuf,
        /// Why
        #[command(flatten)]
        reason: Reason,
    },
    /// Print the addresses of a pool as CSV, or as JSON with --output-format json, as `pool import` reads them
    Export {
        /// The pool
        name: PoolName,
    },
    /// Change what holds for all addresses of a pool
    Set(PoolSet),
    /// List the pools, and how many addresses of each are assigned, free, cooling down and reserved
    List,
    /// Show a pool's addresses and who holds them
    Show {
        /// The pool
        name: PoolName,
    },
    /// Remove a pool, or some of its addresses
    Remove {
        /// The pool
        name: PoolName,
        /// Only these entries
        addresses: Vec<Prefix>,
        /// Why
        #[command(flatten)]
        reason: Reason,
    },
}

/// `registry ...`
#[derive(Debug, Subcommand)]
pub enum RegistryCommand {
    /// Say which files of the registry cannot be used, and whether this node has a copy of each
    Check,
    /// Give each pool a file of its own (pools/NAME.json), for more addresses than one file holds
    ///
    /// In one step; refused as long as a node of the cluster runs a release that cannot read such files. There is no way back to
    /// a release before 0.2.0 afterwards.
    Convert {
        /// Why
        #[command(flatten)]
        reason: Reason,
    },
    /// Put this node's last known good copy in the place of a file that cannot be used
    ///
    /// With --dry-run the copy is printed. What is replaced is kept on this node.
    Restore {
        /// The file as the registry calls it: pools.json, pools/NAME.json, guests/100.json, nodes/pve1.json
        file: String,
        /// Why
        #[command(flatten)]
        reason: Reason,
    },
}

/// `node`
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Show the settings, and what filters routed traffic
    Show,
    /// Change settings
    ///
    /// They lie in nodes/NODE.json of the registry. The guard follows them at once.
    Set(NodeSet),
}

/// `node set`
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct NodeSet {
    /// What filters routed traffic. It holds for hooks, guard and commands until it is changed; auto is decided again at
    /// each boot, and whenever it is given here
    #[arg(long, value_enum)]
    backend: Option<BackendChoice>,
    /// nflog group (1 to 65535) to which dropped frames are sent, or none
    #[arg(long, value_name = "NUMBER|none")]
    log_group: Option<LogGroup>,
    /// Bridge port that leads to the provider; may be repeated
    #[arg(long, value_name = "PORT")]
    uplink: Vec<IfName>,
    /// Interface by which the node reaches the provider of routed pools [default: that of the default route]
    #[arg(long, value_name = "INTERFACE")]
    route_uplink: Option<IfName>,
    /// Know the uplinks by their names and the default route again
    #[arg(long, conflicts_with = "uplink")]
    any_uplink: bool,
    /// To whom the guard writes when something is wrong; empty: to nobody
    #[arg(long, value_name = "ADDRESS")]
    alert_mail: Option<String>,
    /// Program that gets the same as JSON on its standard input
    #[arg(long, value_name = "PROGRAM")]
    alert_exec: Option<PathBuf>,
    /// Frames dropped from one port in an hour from which on the guard reports that; 0: never
    #[arg(long, value_name = "N")]
    alert_attempts: Option<u64>,
    /// Seconds between two gatherings of metrics by the guard; 0: none are gathered
    #[arg(long, value_name = "N")]
    metrics_seconds: Option<u64>,
    /// Directory in which the guard leaves them for `node_exporter`
    #[arg(long, value_name = "DIR")]
    metrics_directory: Option<PathBuf>,
    /// Whether the guard listens to that group for conflicts; a group has one listener [default: true]
    #[arg(long, value_name = "BOOL")]
    watch: Option<bool>,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", value_parser = plain_text)]
    reason: Option<String>,
}

/// An nflog group, or none.
#[derive(Debug, Clone, Copy)]
pub struct LogGroup(Option<u16>);

impl std::str::FromStr for LogGroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let group = text.parse().ok().filter(|group| *group != 0);
        group.map(|group| Self(Some(group))).ok_or_else(|| "a group is a number from 1 to 65535, or none".to_owned())
    }
}

/// Whether router advertisements are delivered, as far as somebody decides it.
#[derive(Debug, Clone, Copy)]
pub struct Advertisements(Option<bool>);

impl std::str::FromStr for Advertisements {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "default" => Ok(Self(None)),
            "true" => Ok(Self(Some(true))),
            "false" => Ok(Self(Some(false))),
            _ => Err("it is true, false or default".to_owned()),
        }
    }
}

/// `pool create`
#[derive(Debug, Args)]
pub struct PoolCreate {
    /// Name of the new pool
    name: PoolName,
    /// The provider's layout: generic-bridged, generic-routed, ovh-bridged, ovh-routed, ovh-vrack, hetzner-bridged,
    /// hetzner-routed, dedibox-bridged, or a JSON file that describes another one
    #[arg(long, value_parser = ProfileParser)]
    profile: ProfileOrFile,
    /// Bridge on which the guests' NICs are [default: the only one that fits]
    #[arg(long)]
    bridge: Option<IfName>,
    /// IPv4 gateway of the guests [default: by the profile]
    #[arg(long, value_name = "IP")]
    gateway4: Option<Ipv4Addr>,
    /// IPv6 gateway of the guests [default: by the profile]
    #[arg(long, value_name = "IP")]
    gateway6: Option<Ipv6Addr>,
    /// MAC of the gateway, where guests of this node reach each other by way of it
    #[arg(long, value_name = "MAC")]
    gateway_mac: Option<MacAddr>,
    /// Let guests on the bridge that hold no address be routers and DHCP servers
    #[arg(long)]
    guest_routers: bool,
    /// What becomes of guests' frames with a MAC that the provider does not know [default: enforce for providers that
    /// punish it (ovh, hetzner, dedibox), report for generic, off for ovh-vrack]
    #[arg(long, value_enum, value_name = "GUARD")]
    uplink_guard: Option<UplinkGuard>,
    /// MAC of a guest without assignments that the provider knows; may be repeated
    #[arg(long, value_name = "MAC")]
    allow_mac: Vec<MacAddr>,
    /// Addresses and prefixes
    addresses: Vec<Prefix>,
    /// Whether the network is asked who has an address before it is assigned [default: assign for generic-bridged and generic-routed, else never]
    #[arg(long, value_enum, value_name = "WHEN")]
    probe: Option<Probe>,
    /// For how long an address that was released is not handed out by itself: 30m, 1h, 2days; 0: not at all [default: 1h]
    #[arg(long, value_name = "TIME")]
    cool_down: Option<CoolDown>,
    /// Why
    #[command(flatten)]
    reason: Reason,
}

/// A profile by name, or a file that describes one.
#[derive(Debug, Clone)]
pub enum ProfileOrFile {
    /// Known by name.
    Profile(Profile),
    /// Described in this file.
    File(PathBuf),
}

/// Takes what has a slash or ends in `.json` for a file, and completes and checks names.
#[derive(Debug, Clone)]
struct ProfileParser;

impl clap::builder::TypedValueParser for ProfileParser {
    type Value = ProfileOrFile;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<ProfileOrFile, clap::Error> {
        let path = PathBuf::from(value);
        if path.components().count() > 1 || path.extension().is_some_and(|extension| extension == "json") {
            return Ok(ProfileOrFile::File(path));
        }
        clap::builder::EnumValueParser::new().parse_ref(command, arg, value).map(ProfileOrFile::Profile)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = clap::builder::PossibleValue> + '_>> {
        use clap::ValueEnum as _;
        Some(Box::new(Profile::value_variants().iter().filter_map(clap::ValueEnum::to_possible_value)))
    }
}

/// `pool set`
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct PoolSet {
    /// The pool
    name: PoolName,
    /// What becomes of guests' frames with a MAC that the provider does not know
    #[arg(long, value_enum, value_name = "GUARD")]
    uplink_guard: Option<UplinkGuard>,
    /// MAC of a guest without assignments that the provider knows; may be repeated
    #[arg(long, value_name = "MAC")]
    allow_mac: Vec<MacAddr>,
    /// No longer allow this MAC; may be repeated
    #[arg(long, value_name = "MAC")]
    forbid_mac: Vec<MacAddr>,
    /// Bridge on which the guests' NICs are
    #[arg(long)]
    bridge: Option<IfName>,
    /// IPv4 gateway of the guests; those that hold addresses get it, too
    #[arg(long, value_name = "IP")]
    gateway4: Option<Ipv4Addr>,
    /// No IPv4 gateway any more
    #[arg(long, conflicts_with = "gateway4")]
    no_gateway4: bool,
    /// IPv6 gateway of the guests; those that hold addresses get it, too
    #[arg(long, value_name = "IP")]
    gateway6: Option<Ipv6Addr>,
    /// No IPv6 gateway any more
    #[arg(long, conflicts_with = "gateway6")]
    no_gateway6: bool,
    /// MAC of the gateway, where guests of this node reach each other by way of it
    #[arg(long, value_name = "MAC")]
    gateway_mac: Option<MacAddr>,
    /// No MAC of the gateway any more
    #[arg(long, conflicts_with = "gateway_mac")]
    no_gateway_mac: bool,
    /// Whether guests on the bridge that hold no address may be routers and DHCP servers
    #[arg(long, value_name = "BOOL")]
    guest_routers: Option<bool>,
    /// Whether the network is asked who has an address before it is assigned
    #[arg(long, value_enum, value_name = "WHEN")]
    probe: Option<Probe>,
    /// For how long an address that was released is not handed out by itself: 30m, 1h, 2days; 0: not at all
    #[arg(long, value_name = "TIME")]
    cool_down: Option<CoolDown>,
    /// Why
    #[command(flatten)]
    reason: Reason,
}

/// `pool add`
#[derive(Debug, Args)]
pub struct PoolAdd {
    /// The pool
    name: PoolName,
    /// Addresses or prefixes
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<Prefix>,
    /// MAC that the provider bound to them
    #[arg(long)]
    mac: Option<MacAddr>,
    /// No MAC any more
    #[arg(long, conflicts_with = "mac")]
    no_mac: bool,
    /// Gateway, if it is not the pool's
    #[arg(long, value_name = "IP")]
    gateway: Option<IpAddr>,
    /// The pool's gateway again
    #[arg(long, conflicts_with = "gateway")]
    no_gateway: bool,
    /// What it costs
    #[arg(long, value_name = "N")]
    monthly_cost_cents: Option<u64>,
    /// No cost any more
    #[arg(long, conflicts_with = "monthly_cost_cents")]
    no_monthly_cost: bool,
    /// Why
    #[command(flatten)]
    reason: Reason,
}

/// Why something is changed.
#[derive(Debug, Clone, Default, Args)]
pub struct Reason {
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", value_parser = plain_text)]
    reason: Option<String>,
}

/// A line for a log and a terminal.
fn plain_text(text: &str) -> Result<String, String> {
    if *text != *escaped(text) {
        return Err("it has a line break or another control character".to_owned());
    }
    let length = text.chars().count();
    if length > 500 { Err(format!("it has {length} characters; 500 are allowed")) } else { Ok(text.to_owned()) }
}

/// `audit`
#[derive(Debug, Args)]
pub struct Audit {
    /// Only about this guest
    #[arg(long)]
    vmid: Option<Vmid>,
    /// Only about this address, or prefixes that it lies in, or addresses of this prefix; and who held it when
    #[arg(long)]
    address: Option<Prefix>,
    /// Only about this pool
    #[arg(long)]
    pool: Option<PoolName>,
    /// Not before: a day (2026-03-03), a time (2026-03-03T10:00:00Z), or so long ago (2h, 3d)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<Span>,
    /// Not after; of a day, its end
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<Span>,
    /// Only the last N entries
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Who held the address then
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, requires = "address",
        conflicts_with_all = ["vmid", "pool", "since", "until", "last"])]
    at: Option<Span>,
}

/// `setup`
#[derive(Debug, Args)]
pub struct Setup {
    /// Do it
    #[arg(long)]
    yes: bool,
    /// Why
    #[command(flatten)]
    reason: Reason,
}

/// `assign`
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct Assign {
    /// The guest
    vmid: Vmid,
    /// Addresses or prefixes; none: the next free ones of the pool
    addresses: Vec<Prefix>,
    /// NIC that gets them; may be repeated for two NICs with the same MAC (a bond)
    #[arg(long, value_name = "N", default_values_t = [NicId::FIRST], hide_default_value = true)]
    net: Vec<NicId>,
    /// Pool to take from
    #[arg(long)]
    pool: Option<PoolName>,
    /// Only an IPv4 address
    #[arg(short = '4', conflicts_with_all = ["ipv6", "addresses"])]
    ipv4: bool,
    /// Only an IPv6 address
    #[arg(short = '6', conflicts_with = "addresses")]
    ipv6: bool,
    /// Let the NIC hold N addresses of each family of the pool in all: as many as it lacks are assigned
    #[arg(long, value_name = "N", conflicts_with = "addresses", value_parser = clap::value_parser!(u16).range(1..=256))]
    count: Option<u16>,
    /// One more address of each family, or --count more, besides those that the NIC holds
    #[arg(long, conflicts_with = "addresses")]
    more: bool,
    /// Customer or department; noted for addresses that the guest holds already, too
    #[arg(long, value_name = "ORG", value_parser = plain_text)]
    organization: Option<String>,
    /// Give the guest's NIC the MAC that the provider bound to the addresses (the guest must be stopped)
    #[arg(long)]
    set_mac: bool,
    /// Ask the network first whether somebody has the address [default: what the pool says]
    #[arg(long, overrides_with = "no_probe")]
    probe: bool,
    /// Do not ask it
    #[arg(long, overrides_with = "probe")]
    no_probe: bool,
    /// Do not register the hookscript
    #[arg(long)]
    no_hookscript: bool,
    /// What runs in the guest, where cloud-init needs to be told otherwise; kept until it is said again
    #[arg(long, value_enum)]
    os: Option<GuestOs>,
    /// What becomes of a start at which cloud-init's data is not what is assigned; `off` leaves that data to you
    #[arg(long, value_enum, value_name = "CHECK")]
    cloud_init: Option<CloudInitCheck>,
    /// Let the guest take itself for a new machine: at its next boot it makes new SSH host keys
    #[arg(long)]
    reinit: bool,
    /// Let the agent in the running guest use the addresses at once
    #[arg(long)]
    live: bool,
    /// Why
    #[command(flatten)]
    reason: Reason,
}

/// `set`
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct Set {
    /// The guest
    vmid: Vmid,
    /// Its NIC
    #[arg(long, value_name = "N", default_value_t = NicId::FIRST, hide_default_value = true)]
    net: NicId,
    /// Whether it may ask for an address by DHCPv4 [default: true]
    #[arg(long, value_name = "BOOL")]
    dhcp: Option<bool>,
    /// Whether it gets frames that are addressed to others [default: false]
    #[arg(long, value_name = "BOOL")]
    any_destination: Option<bool>,
    /// Whether it may choose its IPv6 link-local addresses freely [default: false]
    #[arg(long, value_name = "BOOL")]
    any_link_local: Option<bool>,
    /// Whether it gets router advertisements: true, false, or default (only if its IPv6 gateway is not known otherwise)
    #[arg(long, value_name = "BOOL")]
    router_advertisements: Option<Advertisements>,
    /// A further IPv6 link-local address of the guest; may be repeated, replaces those named before
    #[arg(long, value_name = "IP")]
    link_local: Vec<Ipv6Addr>,
    /// A VLAN in which the guest itself tags its frames; may be repeated, replaces those named before
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..=4094))]
    trunk: Vec<u16>,
    /// No VLANs any more
    #[arg(long, conflicts_with = "trunk")]
    no_trunk: bool,
    /// Why
    #[command(flatten)]
    reason: Reason,
}

/// `release`
#[derive(Debug, Args)]
pub struct Release {
    /// The guest
    vmid: Vmid,
    /// Only these; none: all
    addresses: Vec<Prefix>,
    /// Leave the guest's hookscript as it is
    #[arg(long)]
    no_hookscript: bool,
    /// Why
    #[command(flatten)]
    reason: Reason,
}

/// `doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// Put right what is safe to put right: place the hookscript or make it executable, register it with a guest that has none,
    /// start the guard, stop bridges from learning from link-local frames
    #[arg(long)]
    fix: bool,
    /// List all checks and what each finding means
    #[arg(long, conflicts_with = "fix")]
    list: bool,
}

/// `topology`
#[derive(Debug, Args)]
pub struct Topology {
    /// Form of the drawing
    #[arg(long, value_enum, default_value_t = Drawing::Text)]
    format: Drawing,
    /// Do not draw; find subnets that overlap, host bits, gateways that cannot be reached, MACs and addresses that are there twice
    #[arg(long, conflicts_with = "format")]
    check: bool,
}

/// Form of a drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Drawing {
    /// A tree
    Text,
    /// A flowchart for Markdown
    Mermaid,
    /// A graph for Graphviz
    Dot,
}

/// `partition ...`
#[derive(Debug, Subcommand)]
pub enum PartitionCommand {
    /// Make a plan
    ///
    /// Guests are grouped by their tags in Proxmox VE (app-shop, svc-db, zone-critical), or by a file that also declares flows.
    /// Each group gets a subnet with room to grow, beside whatever is in use. With --plan the plan of before is read first: its
    /// subnets, and who is in them, stay.
    Plan(PartitionPlan),
    /// Put the three strategies side by side
    ///
    /// Counts, for this very network: subnets, declared flows that cross a boundary, rules, guests beside critical ones, space.
    Compare(PartitionNeeds),
    /// Look for mistakes: overlaps, host bits, open paths between zones, guests that are not where the plan has them
    ///
    /// Exit status 3 if something should be done; remarks (info) do not count.
    Check {
        /// A plan that was saved, to compare the network with
        #[arg(long, value_name = "FILE")]
        plan: Option<PathBuf>,
        /// Where labels and flows come from: `tags`, or a file (JSON, or TOML if its name ends in .toml)
        #[arg(long, value_name = "tags|FILE", default_value = "tags")]
        from: String,
    },
}

/// What every plan needs to know.
#[derive(Debug, Clone, Args)]
pub struct PartitionNeeds {
    /// Where subnets are taken from
    #[arg(long, value_name = "PREFIX")]
    base: Ipv4Net,
    /// The same for IPv6; each subnet gets a /64 by its VLAN
    #[arg(long, value_name = "PREFIX")]
    base6: Option<Ipv6Net>,
    /// Room for so many times the guests of today, 1 to 16
    #[arg(long, value_name = "FACTOR", default_value_t)]
    growth: Growth,
    /// VLANs to take from
    #[arg(long, value_name = "FIRST-LAST", default_value = "100-199")]
    vlan_range: VlanRange,
    /// Where labels and flows come from: `tags`, or a file (JSON, or TOML if its name ends in .toml)
    #[arg(long, value_name = "tags|FILE", default_value = "tags")]
    from: String,
}

/// `partition plan`
#[derive(Debug, Args)]
pub struct PartitionPlan {
    /// How guests are grouped
    #[arg(long, value_enum)]
    strategy: Strategy,
    /// What it needs to know
    #[command(flatten)]
    needs: PartitionNeeds,
    /// A plan that was saved: its subnets stay. May not exist yet
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Save the plan there
    #[arg(long, requires = "plan")]
    save: bool,
    /// Form of the result: a table, pictures of before and after, a script for Proxmox VE's SDN, or stanzas for
    /// /etc/network/interfaces
    #[arg(long, value_enum, default_value_t = PartitionForm::Text)]
    format: PartitionForm,
    /// SDN zone of the script: 2 to 8 letters and digits
    #[arg(long, value_name = "NAME", default_value = "planned", value_parser = sdn_zone)]
    zone: String,
    /// VLAN-aware bridge of script and stanzas
    #[arg(long, value_name = "BRIDGE", default_value = "vmbr1")]
    bridge: IfName,
}

/// Form of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PartitionForm {
    /// Tables
    Text,
    /// Two flowcharts for Markdown
    Mermaid,
    /// A graph for Graphviz: as planned
    Dot,
    /// A graph for Graphviz: as it is
    DotBefore,
    /// A shell script that prints commands for Proxmox VE's SDN, and runs them if told to
    Sdn,
    /// Stanzas for /etc/network/interfaces
    Interfaces,
}

/// Source: pve-network `PVE/Network/SDN/Zones/Plugin.pm`, `parse_sdn_zone_id`.
fn sdn_zone(text: &str) -> Result<String, String> {
    let is_first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    let is_rest = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_first && is_rest && (2..=8).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("a zone has 2 to 8 letters and digits, and begins with a letter".to_owned())
}

/// `explain`
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("frame").required(true).args(["src", "hex", "pcap"])))]
pub struct Explain {
    /// The port that the frame comes in by, as the node calls it: tap100i0, veth101i0, eno1
    #[arg(long)]
    port: IfName,
    /// The port that it leaves by; without it only what may be sent is judged
    #[arg(long)]
    to: Option<IfName>,
    /// A packet from this address
    #[arg(long, value_name = "IP")]
    src: Option<IpAddr>,
    /// The address that it is sent to [default: everybody]
    #[arg(long, value_name = "IP", requires = "src")]
    dst: Option<IpAddr>,
    /// The MAC that it is sent with [default: the port's own]
    #[arg(long, requires = "src")]
    mac: Option<MacAddr>,
    /// What is sent: a packet from the address, or the ARP or neighbour advertisement that claims it
    #[arg(long, value_enum, default_value_t = Claim::Source, requires = "src")]
    claim: Claim,
    /// A whole frame in hexadecimal digits, from the destination MAC on
    #[arg(long, value_name = "FRAME")]
    hex: Option<String>,
    /// The frames of a capture, as `tcpdump -w` writes it
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

/// How an address is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Claim {
    /// As source of a packet
    Source,
    /// In an ARP or neighbour advertisement
    Neighbour,
}

/// `plan`
#[derive(Debug, Default, Args)]
pub struct PlanShown {
    /// Show all steps, problems and notes, not ten of each kind
    #[arg(long)]
    all: bool,
}

/// `verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// Attack, too: send what no guest without addresses may send, on the pools' own bridges, and see what gets through
    ///
    /// Two ports are plugged into each bridge of a pool for as long as it takes. Every frame is addressed to the second of
    /// them, so that it reaches no guest, not the node and not the provider, whatever the filter lets through, and the
    /// bridge learns nothing of it. Every address and MAC that is protected on the node is tried. Needs root and `ip`,
    /// `bridge` and `nft`. What guests with addresses may not send, and what may not leave by the uplink, cannot be tried
    /// without them: `selftest` does, with the same rules.
    #[arg(long)]
    active: bool,
    /// Show all findings and notes, not ten of each kind
    #[arg(long)]
    all: bool,
}

/// `status`
#[derive(Debug, Args)]
pub struct Status {
    /// Show it again every two seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Show all rows and notes, not ten of each kind
    #[arg(long)]
    all: bool,
}

/// `metrics`
#[derive(Debug, Args)]
pub struct Metrics {
    /// Write them to this file in one step, for the textfile collector of `node_exporter`
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// `guard`
#[derive(Debug, Args)]
pub struct GuardOptions {
    /// Serve the metrics to this node, at this address, under /metrics
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = on_this_node)]
    listen: Option<SocketAddr>,
}

/// Nobody else shall read who is attacked by whom.
fn on_this_node(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "an address and a port, such as 127.0.0.1:9731".to_owned())?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err("the metrics are for this node only: 127.0.0.1 or [::1]; let a proxy with a password carry them further"
        .to_owned())
}

/// `list`
#[derive(Debug, Args)]
pub struct List {
    /// Addresses that nobody holds and that next-free allocation can choose
    #[arg(long, conflicts_with_all = ["organization", "node", "state"])]
    free: bool,
    /// Only addresses of this pool
    #[arg(long)]
    pool: Option<PoolName>,
    /// Only addresses that were assigned for this customer or department
    #[arg(long, value_name = "ORG")]
    organization: Option<String>,
    /// Only guests that are on this node
    #[arg(long)]
    node: Option<NodeName>,
    /// Only addresses in this state
    #[arg(long, value_enum)]
    state: Option<list::ListedState>,
}

/// `who`
#[derive(Debug, Args)]
pub struct Who {
    /// Address, prefix, MAC, or port of a guest (tap100i0)
    #[arg(value_name = "ADDRESS|PREFIX|MAC|PORT")]
    subject: who::Subject,
}

/// `show`
#[derive(Debug, Args)]
pub struct Show {
    /// The guest
    vmid: Vmid,
    /// What to configure inside the guest by hand, even if cloud-init tells it
    #[arg(long)]
    inside: bool,
}

/// `selftest`
#[derive(Debug, Args)]
pub struct Selftest {
    /// Only classes with this in their name or in that of their group
    #[arg(long, value_name = "TEXT")]
    class: Option<String>,
    /// Only topologies with this in their name
    #[arg(long, value_name = "TEXT")]
    topology: Option<String>,
    /// What filters routed traffic [default: nftables; auto is the same here, because a new namespace has no rules]
    #[arg(long, value_enum)]
    backend: Option<BackendChoice>,
}

/// `hook`
#[derive(Debug, Args)]
pub struct Hook {
    /// The guest
    pub vmid: Vmid,
    /// The phase
    #[arg(value_enum)]
    pub phase: Phase,
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
            Self::Pool(PoolCommand::Remove { reason, .. } | PoolCommand::Import { reason, .. })
            | Self::Registry(RegistryCommand::Restore { reason, .. } | RegistryCommand::Convert { reason }) => reason,
            Self::Node(NodeCommand::Set(command)) => return command.reason.as_ref(),
            Self::Setup(command) => &command.reason,
            Self::Key(KeyCommand::Add(command)) => &command.reason,
            Self::Key(KeyCommand::Revoke { reason, .. }) => reason,
            Self::Assign(command) => &command.reason,
            Self::Import { reason, .. } => reason,
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
            Command::Schema { file } => Ok(schema(file)),
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
                    Command::Assign(command) => assignments::assign(&node, &command, global.dry_run),
                    Command::Import { file, no_hookscript, .. } => {
                        import::import(&node, &file, !no_hookscript, global.dry_run)
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

fn schema(file: Option<SchemaFile>) -> Output {
    if file == Some(SchemaFile::Output) {
        let all = answers::schemas().into_iter();
        return shown_schema(all.map(|(name, schema)| (name.to_owned(), schema)).collect());
    }
    let one = |file| match file {
        SchemaFile::Pools => schemars::schema_for!(PoolsFile),
        SchemaFile::Pool => schemars::schema_for!(PoolFile),
        SchemaFile::Guest => schemars::schema_for!(GuestFile),
        SchemaFile::Released => schemars::schema_for!(ReleasedFile),
        SchemaFile::Node => schemars::schema_for!(NodeFile),
        SchemaFile::Profile => schemars::schema_for!(Layout),
        SchemaFile::Audit => schemars::schema_for!(Entry),
        SchemaFile::Partition => schemars::schema_for!(Plan),
        SchemaFile::Labels => schemars::schema_for!(Declared),
        SchemaFile::Output => schemars::schema_for!(std::collections::BTreeMap<String, schemars::Schema>),
    };
    if let Some(file) = file {
        let serde_json::Value::Object(schema) = one(file).to_value() else {
            return Output::new("", serde_json::Value::Null);
        };
        return shown_schema(schema);
    }
    let all = [
        ("pools.json", SchemaFile::Pools),
        ("pools/NAME.json", SchemaFile::Pool),
        ("guests/VMID.json", SchemaFile::Guest),
        ("released.json", SchemaFile::Released),
        ("nodes/NODE.json", SchemaFile::Node),
        ("profile", SchemaFile::Profile),
        ("audit.log", SchemaFile::Audit),
        ("partition", SchemaFile::Partition),
        ("labels", SchemaFile::Labels),
    ];
    shown_schema(all.into_iter().map(|(name, file)| (name.to_owned(), one(file).to_value())).collect())
}

fn shown_schema(schema: serde_json::Map<String, serde_json::Value>) -> Output {
    let text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    Output::new(text, serde_json::json!(answers::SchemaShown { schema }))
}

/// `help problem CODE` is what people try, and clap's `help` knows commands only.
pub fn with_help_of_problems(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.collect();
    let at = args.windows(2).position(|pair| pair[0] == "help" && pair[1] == "problem");
    // Only the first word that is no option, and no value of one, is a command.
    let takes_value = |word: &OsString| word == "--root" || word == "--output-format";
    let is_option = |at: usize| args[at].as_encoded_bytes().starts_with(b"-") || takes_value(&args[at - 1]);
    let is_command = |at: usize| (1..at).all(is_option);
    if let Some(at) = at.filter(|at| is_command(*at)) {
        args.remove(at);
    }
    args
}

/// The form of output that wrong arguments ask for, as far as that can be told.
pub fn format_asked_for(args: impl Iterator<Item = OsString>) -> OutputFormat {
    let args: Vec<String> = args.map(|word| word.to_string_lossy().into_owned()).collect();
    let option = "--output-format";
    let after = args.windows(2).find(|pair| pair[0] == option).map(|pair| pair[1].clone());
    let joined = args.iter().find_map(|word| word.strip_prefix(option)?.strip_prefix('=').map(str::to_owned));
    let asked = after.or(joined).or_else(|| std::env::var("PROXMOX_OUTPUT_FORMAT").ok());
    asked.and_then(|name| <OutputFormat as clap::ValueEnum>::from_str(&name, false).ok()).unwrap_or_default()
}

/// Wrong arguments as a failure.
pub fn usage(error: &clap::Error) -> Output {
    let text = error.to_string();
    let mut paragraphs = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let sentence = paragraphs.next().unwrap_or_default();
    let sentence = sentence.strip_prefix("error: ").unwrap_or(&sentence).to_owned();
    let hint = "`pve-public-ip help` shows commands, `pve-public-ip COMMAND --help` the options of one";
    Output::failed(Problem::new(code!("usage"), Subject::Command, sentence, hint), 2)
}
