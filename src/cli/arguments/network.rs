//! Arguments of commands that draw, plan, explain and attack.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use ipnet::{Ipv4Net, Ipv6Net};

use crate::model::{IfName, MacAddr};
use crate::partition::{Growth, Strategy, VlanRange};
use crate::registry::document::BackendChoice;

/// `topology`
#[derive(Debug, Args)]
pub struct Topology {
    /// Form of the drawing
    #[arg(long, value_enum, default_value_t = Drawing::Text)]
    pub(in crate::cli) format: Drawing,
    /// Check instead of drawing: overlapping subnets, host bits, unreachable gateways, duplicate MACs and addresses
    #[arg(long, conflicts_with = "format")]
    pub(in crate::cli) check: bool,
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
    /// Plan subnets and VLANs
    ///
    /// Guests are grouped by their tags in Proxmox VE (app-shop, svc-db, zone-critical), or by a file that also
    /// declares flows. Each group gets an unused subnet with room to grow. With --plan the command reads the saved
    /// plan first, and keeps its subnets and the guests in them.
    Plan(PartitionPlan),
    /// Compare the three strategies
    ///
    /// Counts for this network: subnets, declared flows that cross a boundary, rules, guests beside critical ones,
    /// space.
    Compare(PartitionNeeds),
    /// Check the network: overlaps, host bits, open paths between zones, guests outside their planned subnet
    ///
    /// Exit status 3 if something should be done; notes (info) do not count.
    Check {
        /// Saved plan to compare the network with
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
    /// Prefix from which subnets are taken
    #[arg(long, value_name = "PREFIX")]
    pub(in crate::cli) base: Ipv4Net,
    /// The same for IPv6; each subnet gets a /64 by its VLAN
    #[arg(long, value_name = "PREFIX")]
    pub(in crate::cli) base6: Option<Ipv6Net>,
    /// Growth factor: each subnet has room for this many times today's guests, 1 to 16
    #[arg(long, value_name = "FACTOR", default_value_t)]
    pub(in crate::cli) growth: Growth,
    /// Range from which VLAN IDs are taken
    #[arg(long, value_name = "FIRST-LAST", default_value = "100-199")]
    pub(in crate::cli) vlan_range: VlanRange,
    /// Where labels and flows come from: `tags`, or a file (JSON, or TOML if its name ends in .toml)
    #[arg(long, value_name = "tags|FILE", default_value = "tags")]
    pub(in crate::cli) from: String,
}

/// `partition plan`
#[derive(Debug, Args)]
pub struct PartitionPlan {
    /// How guests are grouped
    #[arg(long, value_enum)]
    pub(in crate::cli) strategy: Strategy,
    /// What it needs to know
    #[command(flatten)]
    pub(in crate::cli) needs: PartitionNeeds,
    /// Saved plan whose subnets are kept; the file need not exist
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) plan: Option<PathBuf>,
    /// Save the plan to the file of --plan
    #[arg(long, requires = "plan")]
    pub(in crate::cli) save: bool,
    /// Form of the result: a table, pictures of before and after, a script for Proxmox VE's SDN, or stanzas for
    /// /etc/network/interfaces
    #[arg(long, value_enum, default_value_t = PartitionForm::Text)]
    pub(in crate::cli) format: PartitionForm,
    /// SDN zone of the script: 2 to 8 letters and digits
    #[arg(long, value_name = "NAME", default_value = "planned", value_parser = sdn_zone)]
    pub(in crate::cli) zone: String,
    /// VLAN-aware bridge of script and stanzas
    #[arg(long, value_name = "BRIDGE", default_value = "vmbr1")]
    pub(in crate::cli) bridge: IfName,
}

/// Form of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PartitionForm {
    /// Tables
    Text,
    /// Two flowcharts for Markdown
    Mermaid,
    /// A graph for Graphviz: the planned network
    Dot,
    /// A graph for Graphviz: the present network
    DotBefore,
    /// A shell script for Proxmox VE's SDN: prints the commands, and runs them on request
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
    /// Port at which the frame arrives, by its name on the node: tap100i0, veth101i0, eno1
    #[arg(long)]
    pub(in crate::cli) port: IfName,
    /// Port at which the frame leaves [default: only sending is judged]
    #[arg(long)]
    pub(in crate::cli) to: Option<IfName>,
    /// Source address of the packet
    #[arg(long, value_name = "IP")]
    pub(in crate::cli) src: Option<IpAddr>,
    /// Destination address [default: broadcast]
    #[arg(long, value_name = "IP", requires = "src")]
    pub(in crate::cli) dst: Option<IpAddr>,
    /// Source MAC [default: the port's own]
    #[arg(long, requires = "src")]
    pub(in crate::cli) mac: Option<MacAddr>,
    /// Kind of frame: a packet from the address, or an ARP or neighbour advertisement that claims the address
    #[arg(long, value_enum, default_value_t = Claim::Source, requires = "src")]
    pub(in crate::cli) claim: Claim,
    /// A whole frame in hexadecimal digits, from the destination MAC on
    #[arg(long, value_name = "FRAME")]
    pub(in crate::cli) hex: Option<String>,
    /// The frames of a capture, as `tcpdump -w` writes it
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) pcap: Option<PathBuf>,
}

/// How an address is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Claim {
    /// As source of a packet
    Source,
    /// In an ARP or neighbour advertisement
    Neighbour,
}

/// `selftest`
#[derive(Debug, Args)]
pub struct Selftest {
    /// Only classes whose name, or whose group, contains this text
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) class: Option<String>,
    /// Only topologies whose name contains this text
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) topology: Option<String>,
    /// What filters routed traffic [default: nftables; auto is the same here, because a new namespace has no rules]
    #[arg(long, value_enum)]
    pub(in crate::cli) backend: Option<BackendChoice>,
}
