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
    /// Make this socket and serve connections to it
    #[arg(long, value_name = "SOCKET")]
    pub(in crate::cli) listen: Option<PathBuf>,
    /// The user, besides root, who is answered; with --listen its group may connect
    #[arg(long, value_name = "NAME", default_value = crate::serve::USER)]
    pub(in crate::cli) user: String,
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
    pub(in crate::cli) name: String,
    /// What it may do
    #[arg(long, value_enum)]
    pub(in crate::cli) role: Role,
    /// Only the addresses of this organization can be seen and touched with it
    #[arg(long, value_name = "ORG", value_parser = name)]
    pub(in crate::cli) organization: Option<String>,
    /// From when on it counts no more: a time (2027-01-31T00:00:00Z), the end of a day (2027-01-31), or a span from now
    /// on (90d)
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) expires: Option<Span>,
    /// Why
    #[command(flatten)]
    pub(in crate::cli) reason: Reason,
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
    /// Acknowledge conflicts: they no longer block assignments, and are listed last
    Ack {
        /// Their numbers, as the list shows them
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<String>,
        /// All that there are
        #[arg(long)]
        all: bool,
    },
}

/// `registry ...`
#[derive(Debug, Subcommand)]
pub enum RegistryCommand {
    /// List unusable files of the registry, and whether this node has a copy of each
    Check,
    /// Give each pool a file of its own (pools/NAME.json), for more addresses than one file holds
    ///
    /// The conversion is one step. The command refuses it while a node of the cluster runs a release that cannot read
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
    /// The most that the uplink guards of this node do, whatever the pools say: watch counts what they would drop
    /// [default: on]
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
    /// Only about this guest
    #[arg(long)]
    pub(in crate::cli) vmid: Option<Vmid>,
    /// Only about this address or prefix and what overlaps it; also shows who held it when
    #[arg(long)]
    pub(in crate::cli) address: Option<Prefix>,
    /// Only about this pool
    #[arg(long)]
    pub(in crate::cli) pool: Option<PoolName>,
    /// Not before: a day (2026-03-03), a time (2026-03-03T10:00:00Z), or so long ago (2h, 3d)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(in crate::cli) since: Option<Span>,
    /// Not after; of a day, its end
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(in crate::cli) until: Option<Span>,
    /// Only the last N entries
    #[arg(long, value_name = "N")]
    pub(in crate::cli) last: Option<usize>,
    /// Who held the address then
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
    /// Take it away [default: only print what would go]
    #[arg(long)]
    pub(in crate::cli) yes: bool,
    /// Leave guests that run bound, and their routes and neighbours, until the node boots
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
    /// Two ports are plugged into each bridge of a pool for as long as it takes. Every frame is addressed to the second
    /// of them, so that it reaches no guest, not the node and not the provider, whatever the filter lets through, and
    /// the bridge learns nothing of it. Every address and MAC that is protected on the node is tried. Needs root and
    /// `ip`, `bridge` and `nft`. What guests with addresses may not send, and what may not leave by the uplink, cannot
    /// be tried without them: `selftest` does, with the same rules.
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
    /// No longer serves metrics, and says what does: the guard listens nowhere
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(in crate::cli) listen: Option<String>,
}
