//! Arguments of commands about this node, its registry and its callers.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Reason, name, plain_text};
use crate::audit::Span;
use crate::model::{IfName, PoolName, Prefix, Vmid};
use crate::registry::document::{BackendChoice, Enforce, PortProgramUse};
use crate::reply::Role;

/// `serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// Create this socket and serve connections to it
    #[arg(long, value_name = "SOCKET")]
    pub(in crate::cli) listen: Option<PathBuf>,
    /// User, besides root, whose requests are answered; with --listen the group of this user may connect
    #[arg(long, value_name = "NAME", default_value = crate::serve::USER)]
    pub(in crate::cli) user: String,
}

/// `port ...`
#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// Show which port has which program, since when it is loaded, and what it has dropped
    Show {
        /// Only these ports
        ports: Vec<IfName>,
    },
}

/// `key ...`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Create a key and print its secret, which cannot be shown again
    Add(KeyAdd),
    /// List the keys
    List,
    /// Revoke a key: every node refuses it within two seconds
    Revoke {
        /// Name of the key
        name: String,
        /// Why
        #[command(flatten)]
        reason: Reason,
    },
}

/// `key add`
#[derive(Debug, Args)]
pub struct KeyAdd {
    /// Name of the key; the audit log names the key with each change
    pub(in crate::cli) name: String,
    /// Role of the key: what its holder may do
    #[arg(long, value_enum)]
    pub(in crate::cli) role: Role,
    /// Limit the key to the addresses of this organization
    #[arg(long, value_name = "ORG", value_parser = name)]
    pub(in crate::cli) organization: Option<String>,
    /// When the key expires: at a time (2027-01-31T00:00:00Z), at the end of a day (2027-01-31), or after a span (90d)
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) expires: Option<Span>,
    /// Why
    #[command(flatten)]
    pub(in crate::cli) reason: Reason,
}

/// `conflicts ...`
#[derive(Debug, Subcommand)]
pub enum ConflictsCommand {
    /// List conflicts
    List {
        /// Show all conflicts [default: ten of each kind]
        #[arg(long)]
        all: bool,
    },
    /// Acknowledge conflicts: they no longer block assignments, and are listed last
    Ack {
        /// Numbers of the conflicts, from `conflicts list`
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<String>,
        /// Acknowledge all conflicts
        #[arg(long)]
        all: bool,
    },
}

/// `registry ...`
#[derive(Debug, Subcommand)]
pub enum RegistryCommand {
    /// List unusable files of the registry, and whether this node has a copy of each
    Check,
    /// Convert a registry of release 0.1.0: each pool gets a file of its own (pools/NAME.json)
    ///
    /// New registries have such files from the start. One file of all pools holds about 10,000 addresses. The conversion is one step. The command refuses it while a node of the cluster runs a release that cannot read
    /// such files. Releases before 0.2.0 cannot read the registry afterwards.
    Convert {
        /// Why
        #[command(flatten)]
        reason: Reason,
    },
    /// Replace an unusable file by this node's last known good copy
    ///
    /// With --dry-run the command prints the copy. The unusable content is kept on this node.
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
    /// The settings are in nodes/NODE.json of the registry. The guard applies them at once.
    Set(NodeSet),
}

/// `node set`
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct NodeSet {
    /// What filters routed traffic; auto is decided again at each boot, and whenever this option is given
    #[arg(long, value_enum)]
    pub(in crate::cli) backend: Option<BackendChoice>,
    /// nflog group (1 to 65535) to which dropped frames are sent, or none
    #[arg(long, value_name = "NUMBER|none")]
    pub(in crate::cli) log_group: Option<LogGroup>,
    /// Bridge port that leads to the provider; may be repeated
    #[arg(long, value_name = "PORT")]
    pub(in crate::cli) uplink: Vec<IfName>,
    /// Interface by which the node reaches the provider of routed pools [default: that of the default route]
    #[arg(long, value_name = "INTERFACE")]
    pub(in crate::cli) route_uplink: Option<IfName>,
    /// Recognise uplinks by their names and the default route again
    #[arg(long, conflicts_with = "uplink")]
    pub(in crate::cli) any_uplink: bool,
    /// Recipient of the guard's alerts by mail; empty: nobody [default: root]
    #[arg(long, value_name = "ADDRESS")]
    pub(in crate::cli) alert_mail: Option<String>,
    /// Program that receives alerts as JSON on its standard input
    #[arg(long, value_name = "PROGRAM")]
    pub(in crate::cli) alert_exec: Option<PathBuf>,
    /// Alert when more than N frames from one port are dropped within an hour; 0: never
    #[arg(long, value_name = "N")]
    pub(in crate::cli) alert_attempts: Option<u64>,
    /// Interval of the guard's metrics in seconds; 0: no metrics
    #[arg(long, value_name = "N")]
    pub(in crate::cli) metrics_seconds: Option<u64>,
    /// Directory for the guard's metrics, which `node_exporter` reads
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) metrics_directory: Option<PathBuf>,
    /// Whether the guard listens to the nflog group for conflicts; a group has one listener [default: true]
    #[arg(long, value_name = "BOOL")]
    pub(in crate::cli) watch: Option<bool>,
    /// Upper limit for the uplink guards of this node: on (as the pools say), watch (only count) or off [default: on]
    #[arg(long, value_enum, value_name = "MODE")]
    pub(in crate::cli) enforce: Option<Enforce>,
    /// What the programs at guests' ports do: check drops what no rule of nftables can see [default: check]
    #[arg(long, value_enum, value_name = "MODE")]
    pub(in crate::cli) port_program: Option<PortProgramUse>,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", value_parser = plain_text)]
    pub(in crate::cli) reason: Option<String>,
}

/// An nflog group, or none.
#[derive(Debug, Clone, Copy)]
pub struct LogGroup(pub(in crate::cli) Option<u16>);

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

/// `audit`
#[derive(Debug, Args)]
pub struct Audit {
    /// Only entries about this guest
    #[arg(long)]
    pub(in crate::cli) vmid: Option<Vmid>,
    /// Only entries about this address or prefix and what overlaps it; also shows who held it when
    #[arg(long)]
    pub(in crate::cli) address: Option<Prefix>,
    /// Only entries about this pool
    #[arg(long)]
    pub(in crate::cli) pool: Option<PoolName>,
    /// Only entries since a day (2026-03-03), a time (2026-03-03T10:00:00Z), or a span ago (2h, 3d)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(in crate::cli) since: Option<Span>,
    /// Only entries until this time; a day includes its end
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(in crate::cli) until: Option<Span>,
    /// Only the last N entries
    #[arg(long, value_name = "N")]
    pub(in crate::cli) last: Option<usize>,
    /// Show who held the address at this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, requires = "address",
        conflicts_with_all = ["vmid", "pool", "since", "until", "last"])]
    pub(in crate::cli) at: Option<Span>,
}

/// `setup`
#[derive(Debug, Args)]
pub struct Setup {
    /// Apply the changes [default: only print them]
    #[arg(long)]
    pub(in crate::cli) yes: bool,
    /// Why
    #[command(flatten)]
    pub(in crate::cli) reason: Reason,
}

/// `uninstall`
#[derive(Debug, Args)]
pub struct Uninstall {
    /// Remove it [default: only print what would be removed]
    #[arg(long)]
    pub(in crate::cli) yes: bool,
    /// Keep bindings, routes and neighbours of running guests until the node boots
    #[arg(long)]
    pub(in crate::cli) keep_running: bool,
    /// Why
    #[command(flatten)]
    pub(in crate::cli) reason: Reason,
}

/// `doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// Repair what is safe to repair: install the hookscript or make it executable, register it with guests that have
    /// none, start the guard, stop bridges from learning from link-local frames
    #[arg(long)]
    pub(in crate::cli) fix: bool,
    /// List all checks and what each finding means
    #[arg(long, conflicts_with = "fix")]
    pub(in crate::cli) list: bool,
}

/// `plan`
#[derive(Debug, Default, Args)]
pub struct PlanShown {
    /// Show all steps, problems and notes [default: ten of each kind]
    #[arg(long)]
    pub(in crate::cli) all: bool,
}

/// `verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// Also attack: send forbidden frames on the pools' own bridges, and report what gets through
    ///
    /// The command plugs two ports into each bridge of a pool while it runs, and tries every address and MAC that is
    /// protected on the node. Every frame is addressed to the second port. Even if the filter forwards the frame, it
    /// reaches no guest, not the node and not the provider, and the bridge learns nothing from it. The command needs
    /// root and the programs `ip`, `bridge` and `nft`. It cannot try the rules for bound ports and for the uplink;
    /// `selftest` tries them in namespaces.
    #[arg(long)]
    pub(in crate::cli) active: bool,
    /// Show all findings and notes [default: ten of each kind]
    #[arg(long)]
    pub(in crate::cli) all: bool,
}

/// `status`
#[derive(Debug, Args)]
pub struct Status {
    /// Refresh every two seconds until Ctrl-C
    #[arg(long)]
    pub(in crate::cli) watch: bool,
    /// Show all rows and notes [default: ten of each kind]
    #[arg(long)]
    pub(in crate::cli) all: bool,
}

/// `metrics`
#[derive(Debug, Args)]
pub struct Metrics {
    /// Replace this file with the metrics, for the textfile collector of `node_exporter`
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) output: Option<PathBuf>,
}

/// `guard`
#[derive(Debug, Args)]
pub struct GuardOptions {
    /// Deprecated and ignored: the gateway serves metrics
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(in crate::cli) listen: Option<String>,
}
