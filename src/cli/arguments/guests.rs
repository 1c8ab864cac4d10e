//! Arguments of commands about guests and their addresses.

use std::net::{IpAddr, Ipv6Addr};

use clap::Args;

use super::{Reason, name};
use crate::cli::{list, who};
use crate::hook::Phase;
use crate::model::{GroupName, MacAddr, NicId, NodeName, PoolName, Prefix, Vmid};
use crate::registry::document::{CloudInitCheck, GuestOs};

/// Whether router advertisements are delivered, as far as somebody decides it.
#[derive(Debug, Clone, Copy)]
pub struct Advertisements(pub(in crate::cli) Option<bool>);

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

/// `assign`
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct Assign {
    /// The guest
    pub(in crate::cli) vmid: Vmid,
    /// Addresses or prefixes [default: the next free ones of the pool]
    pub(in crate::cli) addresses: Vec<Prefix>,
    /// NIC that gets the addresses; repeat for two NICs with the same MAC (a bond)
    #[arg(long, value_name = "N", default_values_t = [NicId::FIRST], hide_default_value = true)]
    pub(in crate::cli) net: Vec<NicId>,
    /// Pool to take from
    #[arg(long)]
    pub(in crate::cli) pool: Option<PoolName>,
    /// Only an IPv4 address
    #[arg(short = '4', conflicts_with_all = ["ipv6", "addresses"])]
    pub(in crate::cli) ipv4: bool,
    /// Only an IPv6 address
    #[arg(short = '6', conflicts_with = "addresses")]
    pub(in crate::cli) ipv6: bool,
    /// Assign until the NIC holds N addresses of each family of the pool
    #[arg(long, value_name = "N", conflicts_with = "addresses", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(in crate::cli) count: Option<u16>,
    /// Assign one more address of each family, or --count more, in addition to those that the NIC holds
    #[arg(long, conflicts_with = "addresses")]
    pub(in crate::cli) more: bool,
    /// Customer or department; also recorded for addresses that the guest already holds
    #[arg(long, value_name = "ORG", value_parser = name)]
    pub(in crate::cli) organization: Option<String>,
    /// Route the prefixes through this address of the guest, or of the prefix; the guest routes them on
    #[arg(long, value_name = "IP", requires = "addresses")]
    pub(in crate::cli) via: Option<IpAddr>,
    /// Share the addresses with the other guests of this group: each may use them, one at a time (keepalived, CARP)
    #[arg(long, value_name = "GROUP", requires = "addresses")]
    pub(in crate::cli) shared: Option<GroupName>,
    /// Set the NIC's MAC to the one that the provider bound to the addresses; the guest must be stopped
    #[arg(long)]
    pub(in crate::cli) set_mac: bool,
    /// Probe the network for the address before it is assigned [default: the pool's setting]
    #[arg(long, overrides_with = "no_probe")]
    pub(in crate::cli) probe: bool,
    /// Do not probe the network
    #[arg(long, overrides_with = "probe")]
    pub(in crate::cli) no_probe: bool,
    /// Do not register the hookscript
    #[arg(long)]
    pub(in crate::cli) no_hookscript: bool,
    /// Operating system of the guest, if its cloud-init needs other network data; kept until it is changed
    #[arg(long, value_enum)]
    pub(in crate::cli) os: Option<GuestOs>,
    /// What to do at a start if cloud-init's data differs from the assignment; `off`: you maintain that data
    #[arg(long, value_enum, value_name = "CHECK")]
    pub(in crate::cli) cloud_init: Option<CloudInitCheck>,
    /// Give the guest a new instance ID: cloud-init creates new SSH host keys at the next boot
    #[arg(long)]
    pub(in crate::cli) reinit: bool,
    /// Configure the addresses in the running guest at once, through its agent
    #[arg(long)]
    pub(in crate::cli) live: bool,
    /// Why
    #[command(flatten)]
    pub(in crate::cli) reason: Reason,
}

/// `set`
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct Set {
    /// The guest
    pub(in crate::cli) vmid: Vmid,
    /// Its NIC
    #[arg(long, value_name = "N", default_value_t = NicId::FIRST, hide_default_value = true)]
    pub(in crate::cli) net: NicId,
    /// Whether the guest may use DHCPv4 as a client [default: true]
    #[arg(long, value_name = "BOOL")]
    pub(in crate::cli) dhcp: Option<bool>,
    /// Whether the NIC receives frames that are addressed to others [default: false]
    #[arg(long, value_name = "BOOL")]
    pub(in crate::cli) any_destination: Option<bool>,
    /// Whether the guest may use any IPv6 link-local address [default: false]
    #[arg(long, value_name = "BOOL")]
    pub(in crate::cli) any_link_local: Option<bool>,
    /// Whether the NIC receives router advertisements: true, false, or default (only without a known IPv6 gateway)
    #[arg(long, value_name = "BOOL")]
    pub(in crate::cli) router_advertisements: Option<Advertisements>,
    /// Additional IPv6 link-local address of the guest; may be repeated, replaces the previous list
    #[arg(long, value_name = "IP")]
    pub(in crate::cli) link_local: Vec<Ipv6Addr>,
    /// VLAN that the guest tags itself; may be repeated, replaces the previous list
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..=4094))]
    pub(in crate::cli) trunk: Vec<u16>,
    /// Remove all VLANs
    #[arg(long, conflicts_with = "trunk")]
    pub(in crate::cli) no_trunk: bool,
    /// Address or prefix that no pool holds, as of a private network: it stays between guests and node, and never leaves
    /// by an uplink; may be repeated, replaces the previous list
    #[arg(long, value_name = "PREFIX")]
    pub(in crate::cli) also: Vec<Prefix>,
    /// Remove all addresses that no pool holds
    #[arg(long, conflicts_with = "also")]
    pub(in crate::cli) no_also: bool,
    /// Further MAC of the NIC, as of a nested bridge or macvlan; may be repeated, replaces the previous list
    #[arg(long, value_name = "MAC")]
    pub(in crate::cli) mac: Vec<MacAddr>,
    /// Remove all further MACs
    #[arg(long, conflicts_with = "mac")]
    pub(in crate::cli) no_mac: bool,
    /// Virtual router of which the guest is a member, so that it may use its MACs; may be repeated, replaces the previous list
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u8).range(1..))]
    pub(in crate::cli) vrrp: Vec<u8>,
    /// Remove all virtual routers
    #[arg(long, conflicts_with = "vrrp")]
    pub(in crate::cli) no_vrrp: bool,
    /// Why
    #[command(flatten)]
    pub(in crate::cli) reason: Reason,
}

/// `release`
#[derive(Debug, Args)]
pub struct Release {
    /// The guest
    #[arg(required_unless_present = "all")]
    pub(in crate::cli) vmid: Option<Vmid>,
    /// Addresses to release [default: all]
    pub(in crate::cli) addresses: Vec<Prefix>,
    /// Release the addresses of all guests of the cluster; without --yes only print them
    #[arg(long, conflicts_with_all = ["vmid", "addresses", "no_hookscript"])]
    pub(in crate::cli) all: bool,
    /// With --all: only addresses of this pool
    #[arg(long, requires = "all")]
    pub(in crate::cli) pool: Option<PoolName>,
    /// With --all: release the addresses [default: only print them]
    #[arg(long, requires = "all")]
    pub(in crate::cli) yes: bool,
    /// Leave the guest's hookscript as it is
    #[arg(long)]
    pub(in crate::cli) no_hookscript: bool,
    /// Why
    #[command(flatten)]
    pub(in crate::cli) reason: Reason,
}

/// `list`
#[derive(Debug, Args)]
pub struct List {
    /// Show free addresses: nobody holds them, and next-free allocation can choose them
    #[arg(long, conflicts_with_all = ["organization", "node", "state"])]
    pub(in crate::cli) free: bool,
    /// Only addresses of this pool
    #[arg(long)]
    pub(in crate::cli) pool: Option<PoolName>,
    /// Only addresses that were assigned for this customer or department
    #[arg(long, value_name = "ORG")]
    pub(in crate::cli) organization: Option<String>,
    /// Only guests that are on this node
    #[arg(long)]
    pub(in crate::cli) node: Option<NodeName>,
    /// Only addresses in this state
    #[arg(long, value_enum)]
    pub(in crate::cli) state: Option<list::ListedState>,
}

/// `who`
#[derive(Debug, Args)]
pub struct Who {
    /// Address, prefix, MAC, or port of a guest (tap100i0)
    #[arg(value_name = "ADDRESS|PREFIX|MAC|PORT")]
    pub(in crate::cli) subject: who::Subject,
}

/// `show`
#[derive(Debug, Args)]
pub struct Show {
    /// The guest
    pub(in crate::cli) vmid: Vmid,
    /// Show what to configure inside the guest by hand, even if cloud-init configures it
    #[arg(long)]
    pub(in crate::cli) inside: bool,
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
