//! Routers as they are noted: where one was seen, and at which MACs.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::{IfName, MacAddr, Prefix};

/// A router, by the address at which guests or the node send to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Router {
    /// The node's interface towards it: a pool's bridge, or that of one VLAN beside it.
    pub bridge: IfName,
    /// Its address there.
    pub address: IpAddr,
    /// The MACs at which it was seen behind an uplink, the latest first.
    pub macs: Vec<MacAddr>,
    /// When it was seen last (seconds since 1970, to the day).
    pub heard: u64,
    /// It has sent router advertisements.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub advertised: bool,
    /// Prefixes of its advertisements in which hosts make addresses for themselves.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub autonomous: BTreeSet<Prefix>,
}

impl fmt::Display for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(mac) = self.macs.first() else { return write!(f, "{} on {}", self.address, self.bridge) };
        let how = if self.advertised { ", advertises itself" } else { "" };
        write!(f, "{} on {}: MAC {mac}{how}", self.address, self.bridge)
    }
}

/// A router as it was seen once, behind an uplink.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sighting {
    /// The node's interface towards it.
    pub bridge: IfName,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC.
    pub mac: MacAddr,
    /// If this was a router advertisement: its prefixes for autonomous addresses.
    #[serde(default)]
    pub advertised: Option<BTreeSet<Prefix>>,
}
