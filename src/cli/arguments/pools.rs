//! Arguments of `pool ...`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Reason;
use crate::model::{CoolDown, IfName, MacAddr, NodeName, PoolName, Prefix};
use crate::registry::document::{Elsewhere, Enforce, Probe, Profile, UplinkGuard};

/// `pool ...`
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// Create a pool
    Create(PoolCreate),
    /// Add addresses or prefixes to a pool, or change their MAC, gateway or cost
    ///
    /// Properties that are not given stay unchanged. If the pool has no gateway for the address, that of the profile is
    /// assumed.
    Add(PoolAdd),
    /// Add or change the addresses that a CSV or JSON file lists, all in one step or none
    ///
    /// The first line of a CSV file names its columns: `address`, `mac`, `gateway`, `monthly_cost_cents`. An empty cell
    /// leaves the property unchanged. With --dry-run the command prints a table of the changes.
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
    /// Change settings of a pool
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

/// `pool create`
#[derive(Debug, Args)]
pub struct PoolCreate {
    /// Name of the new pool
    pub(in crate::cli) name: PoolName,
    /// The provider's layout: generic-bridged, generic-routed, ovh-bridged, ovh-routed, ovh-vrack, hetzner-bridged,
    /// hetzner-routed, dedibox-bridged, or a JSON file that describes another one
    #[arg(long, value_parser = ProfileParser)]
    pub(in crate::cli) profile: ProfileOrFile,
    /// Bridge of the guests' NICs [default: the only one that fits]
    #[arg(long)]
    pub(in crate::cli) bridge: Option<IfName>,
    /// IPv4 gateway of the guests [default: by the profile]
    #[arg(long, value_name = "IP")]
    pub(in crate::cli) gateway4: Option<Ipv4Addr>,
    /// IPv6 gateway of the guests [default: by the profile]
    #[arg(long, value_name = "IP")]
    pub(in crate::cli) gateway6: Option<Ipv6Addr>,
    /// MAC of the gateway, if guests of this node reach each other through the gateway
    #[arg(long, value_name = "MAC")]
    pub(in crate::cli) gateway_mac: Option<MacAddr>,
    /// Allow guests without addresses on the bridge to be routers and DHCP servers
    #[arg(long)]
    pub(in crate::cli) guest_routers: bool,
    /// Treatment of guests' frames with a MAC that the provider does not know [default: enforce for providers that
    /// punish them (ovh, hetzner, dedibox), report for generic, off for ovh-vrack]
    #[arg(long, value_enum, value_name = "GUARD")]
    pub(in crate::cli) uplink_guard: Option<UplinkGuard>,
    /// MAC of a guest without assignments that the provider knows; may be repeated
    #[arg(long, value_name = "MAC")]
    pub(in crate::cli) allow_mac: Vec<MacAddr>,
    /// Addresses and prefixes
    pub(in crate::cli) addresses: Vec<Prefix>,
    /// When to probe the network for an address before it is assigned [default: assign for generic-bridged and
    /// generic-routed, else never]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(in crate::cli) probe: Option<Probe>,
    /// How long next-free allocation leaves out a released address: 30m, 1h, 2days; 0: not at all [default: 1h]
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) cool_down: Option<CoolDown>,
    /// How the rules of this pool are applied: on drops spoofed frames, watch only counts them, off does nothing
    /// [default: on; watch if a guest of any node would lose connectivity]
    #[arg(long, value_enum, value_name = "MODE")]
    pub(in crate::cli) enforce: Option<Enforce>,
    /// Nodes to which the provider routes the addresses: pve1,pve2 [default: every node of the cluster]
    #[arg(long, value_name = "NODES", value_delimiter = ',')]
    pub(in crate::cli) nodes: Vec<NodeName>,
    /// Treatment of guests on other nodes: refuse lets them neither be assigned an address nor start nor arrive there,
    /// warn lets them [default: refuse]
    #[arg(long, value_enum, value_name = "ELSEWHERE")]
    pub(in crate::cli) elsewhere: Option<Elsewhere>,
    /// Enforce the pool even if guests lose connectivity
    #[arg(long)]
    pub(in crate::cli) yes: bool,
    /// Why
    #[command(flatten)]
    pub(in crate::cli) reason: Reason,
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
pub(in crate::cli) struct ProfileParser;

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
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct PoolSet {
    /// The pool
    pub(in crate::cli) name: PoolName,
    /// Treatment of guests' frames with a MAC that the provider does not know
    #[arg(long, value_enum, value_name = "GUARD")]
    pub(in crate::cli) uplink_guard: Option<UplinkGuard>,
    /// MAC of a guest without assignments that the provider knows; may be repeated
    #[arg(long, value_name = "MAC")]
    pub(in crate::cli) allow_mac: Vec<MacAddr>,
    /// No longer allow this MAC; may be repeated
    #[arg(long, value_name = "MAC")]
    pub(in crate::cli) forbid_mac: Vec<MacAddr>,
    /// Bridge of the guests' NICs
    #[arg(long)]
    pub(in crate::cli) bridge: Option<IfName>,
    /// IPv4 gateway of the guests, also of those that already hold addresses
    #[arg(long, value_name = "IP")]
    pub(in crate::cli) gateway4: Option<Ipv4Addr>,
    /// Remove the IPv4 gateway
    #[arg(long, conflicts_with = "gateway4")]
    pub(in crate::cli) no_gateway4: bool,
    /// IPv6 gateway of the guests, also of those that already hold addresses
    #[arg(long, value_name = "IP")]
    pub(in crate::cli) gateway6: Option<Ipv6Addr>,
    /// Remove the IPv6 gateway
    #[arg(long, conflicts_with = "gateway6")]
    pub(in crate::cli) no_gateway6: bool,
    /// MAC of the gateway, if guests of this node reach each other through the gateway
    #[arg(long, value_name = "MAC")]
    pub(in crate::cli) gateway_mac: Option<MacAddr>,
    /// Remove the MAC of the gateway
    #[arg(long, conflicts_with = "gateway_mac")]
    pub(in crate::cli) no_gateway_mac: bool,
    /// Whether guests without addresses on the bridge may be routers and DHCP servers
    #[arg(long, value_name = "BOOL")]
    pub(in crate::cli) guest_routers: Option<bool>,
    /// When to probe the network for an address before it is assigned
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(in crate::cli) probe: Option<Probe>,
    /// How long next-free allocation leaves out a released address: 30m, 1h, 2days; 0: not at all
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) cool_down: Option<CoolDown>,
    /// How the rules of this pool are applied: on drops spoofed frames, watch only counts them, off does nothing
    #[arg(long, value_enum, value_name = "MODE")]
    pub(in crate::cli) enforce: Option<Enforce>,
    /// Nodes to which the provider routes the addresses, instead of those named before: pve1,pve2
    #[arg(long, value_name = "NODES", value_delimiter = ',')]
    pub(in crate::cli) nodes: Vec<NodeName>,
    /// The addresses work on every node of the cluster
    #[arg(long, conflicts_with = "nodes")]
    pub(in crate::cli) all_nodes: bool,
    /// Treatment of guests on other nodes: refuse lets them neither be assigned an address nor start nor arrive there,
    /// warn lets them
    #[arg(long, value_enum, value_name = "ELSEWHERE")]
    pub(in crate::cli) elsewhere: Option<Elsewhere>,
    /// Allow the MACs of all guests that are on the bridge now
    #[arg(long)]
    pub(in crate::cli) allow_present: bool,
    /// Change the pool even if guests lose connectivity
    #[arg(long)]
    pub(in crate::cli) yes: bool,
    /// Why
    #[command(flatten)]
    pub(in crate::cli) reason: Reason,
}

/// `pool add`
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct PoolAdd {
    /// The pool
    pub(in crate::cli) name: PoolName,
    /// Addresses or prefixes
    #[arg(required = true, value_name = "ADDRESS")]
    pub(in crate::cli) addresses: Vec<Prefix>,
    /// MAC that the provider bound to them
    #[arg(long)]
    pub(in crate::cli) mac: Option<MacAddr>,
    /// Remove the MAC
    #[arg(long, conflicts_with = "mac")]
    pub(in crate::cli) no_mac: bool,
    /// Gateway, if it is not the pool's
    #[arg(long, value_name = "IP")]
    pub(in crate::cli) gateway: Option<IpAddr>,
    /// Use the pool's gateway again
    #[arg(long, conflicts_with = "gateway")]
    pub(in crate::cli) no_gateway: bool,
    /// Monthly cost in cents
    #[arg(long, value_name = "N")]
    pub(in crate::cli) monthly_cost_cents: Option<u64>,
    /// Remove the cost
    #[arg(long, conflicts_with = "monthly_cost_cents")]
    pub(in crate::cli) no_monthly_cost: bool,
    /// Add the addresses even if guests lose connectivity
    #[arg(long)]
    pub(in crate::cli) yes: bool,
    /// Why
    #[command(flatten)]
    pub(in crate::cli) reason: Reason,
}
