//! A plan for the networks behind: which guests share a subnet, how large it is, which VLAN it has, and what may pass
//! between them. Nothing here is applied.
//!
//! ```text
//!  guests, their tags ------+
//!  a file: labels, flows ---+--> Network --plan()--> Plan --+--> weigh(): what the strategies cost
//!  interfaces, SDN ---------+       |                  |    +--> table, pictures, commands to review
//!  the plan of before ------+       +----- check() ----+
//! ```
//!
//! A plan that is given to the next call is kept: whoever has a place keeps it, and only what does not fit is placed anew.

mod check;
mod document;
mod gather;
mod group;
mod make;
mod render;
mod sdn;
mod space;
mod weigh;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub use check::{Finding, check};
pub use document::{
    DeclarationError, Declared, Growth, Plan, Rule, Selector, Subnet, VlanRange, Weight, parse_declared, parse_plan,
};
pub use gather::gather;
pub use group::{Group, groups};
use ipnet::IpNet;
pub use make::{PlanError, Request, plan};
pub use render::{planned_map, rule_rows, stanzas, subnet_rows, today_map, weight_rows};
pub use sdn::{Sdn, parse_sdn, script};
use serde::{Deserialize, Serialize};
pub use space::Space;
pub use weigh::{rules, weigh};

use crate::model::{IfName, NicId, NodeName, Vmid};

/// How guests are grouped into subnets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// A subnet for each application (tag `app-NAME`)
    PerApplication,
    /// A subnet for each kind of service (tag `svc-NAME`)
    PerService,
    /// A subnet for each critical application (tag `zone-critical`), and one for each service of all others
    Hybrid,
}

impl Strategy {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::PerApplication, Self::PerService, Self::Hybrid];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PerApplication => "per-application",
            Self::PerService => "per-service",
            Self::Hybrid => "hybrid",
        }
    }
}

/// The name of the zone whose guests must not share a subnet with others.
pub const CRITICAL: &str = "critical";

/// What a guest is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// The application it is a part of: tag `app-NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// What it does: tag `svc-NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// How much it must be kept apart: tag `zone-NAME`; `critical` has a meaning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

impl Labels {
    /// From Proxmox VE's tags, which are separated by semicolons, commas or blanks, in either case.
    ///
    /// Of several tags of one kind the first counts, as a guest can be in one subnet only; the others are returned.
    ///
    /// Source: pve-common `PVE/Tools.pm` `split_list`, pve-guest-common `PVE/GuestHelpers.pm` (tags are lower case unless
    /// the data centre says otherwise).
    pub fn from_tags(tags: &str) -> (Self, Vec<String>) {
        let (mut labels, mut ignored) = (Self::default(), Vec::new());
        for tag in tags.split([';', ',', ' ', '\t', '\0']).filter(|tag| !tag.is_empty()) {
            let tag = tag.to_ascii_lowercase();
            let place = match tag.split_once('-') {
                Some(("app", name)) if !name.is_empty() => (&mut labels.app, name),
                Some(("svc", name)) if !name.is_empty() => (&mut labels.service, name),
                Some(("zone", name)) if !name.is_empty() => (&mut labels.zone, name),
                _ => continue,
            };
            match place {
                (Some(there), name) if there == name => {}
                (Some(_), _) => ignored.push(tag),
                (place, name) => *place = Some(name.to_owned()),
            }
        }
        (labels, ignored)
    }

    /// Whether it must be kept apart.
    pub fn is_critical(&self) -> bool {
        self.zone.as_deref() == Some(CRITICAL)
    }

    /// With what another one says instead.
    #[must_use]
    pub fn overridden_by(&self, other: &Self) -> Self {
        let either = |one: &Option<String>, two: &Option<String>| two.clone().or_else(|| one.clone());
        Self {
            app: either(&self.app, &other.app),
            service: either(&self.service, &other.service),
            zone: either(&self.zone, &other.zone),
        }
    }
}

/// A NIC of a guest, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Which.
    pub nic: NicId,
    /// Its bridge.
    pub bridge: IfName,
    /// Its VLAN.
    pub tag: Option<u16>,
    /// Whether Proxmox VE's firewall is on for it.
    pub firewall: bool,
    /// Static addresses of the guest on it, as far as its configuration says them.
    pub addresses: Vec<IpNet>,
    /// Gateways that go with them.
    pub gateways: Vec<IpAddr>,
}

/// A guest that needs a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The node that has its configuration.
    pub node: NodeName,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What it is for.
    pub labels: Labels,
    /// Its NICs.
    pub ports: Vec<Port>,
}

/// An address range that is in use already.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Used {
    /// As it is configured: host bits and all.
    pub net: IpNet,
    /// By whom, for people: `vmbr1 of node pve1`, `SDN subnet zone1-10.0.0.0-24`.
    pub by: String,
}

/// Everything that a plan is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Guests that get a place.
    pub members: BTreeMap<Vmid, Member>,
    /// Guests that lead from a public bridge to others: the gateways of what lies behind, which get no place themselves.
    pub routers: BTreeMap<Vmid, Member>,
    /// Address ranges in use.
    pub used: Vec<Used>,
    /// VLANs in use.
    pub vlans: BTreeSet<u16>,
    /// Bridges that are VLAN-aware, and others.
    pub bridges: BTreeMap<IfName, bool>,
    /// Bridges that lead to the provider.
    pub public: BTreeSet<IfName>,
    /// Flows, if some are declared.
    pub flows: Vec<Flow>,
    /// What should be said to whoever asked: tags without effect, guests that cannot be read.
    pub notes: Vec<String>,
}

/// Traffic that is meant to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// Who begins it: `app-NAME`, `svc-NAME`, `zone-NAME`, a VMID, `any` or `internet`.
    pub from: Selector,
    /// Whom it reaches.
    pub to: Selector,
    /// `tcp/443`, `udp/53`, `tcp/8000-8100`, `icmp`; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<document::Service>,
    /// Only between guests of one application.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub within_app: bool,
}
