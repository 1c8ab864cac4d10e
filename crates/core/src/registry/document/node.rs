//! `nodes/NODE.json`: the settings of one node.

use std::collections::BTreeSet;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Document, Enforce};
use crate::model::IfName;

/// `nodes/<node>.json`: optional settings of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct NodeFile {
    /// Format version, 1.
    pub version: u64,
    /// Bridge ports that lead to the provider. Default: every port of a pool's bridge that is not named like a guest's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplinks: Option<BTreeSet<IfName>>,
    /// Interface by which the node reaches the provider, and on which it answers for the addresses of routed pools that
    /// need it. Default: that of the default route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_uplink: Option<IfName>,
    /// nflog group (1 to 65535) to which dropped frames are sent, with the reason as prefix; at most ten of a reason in a
    /// second. Default: they are counted only, because not every kernel has the module for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_group: Option<u16>,
    /// `false` leaves the nflog group to somebody else: it can have one listener, and that is the guard, who looks for
    /// conflicts. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<bool>,
    /// Directory in which the guard leaves metrics for `node_exporter`. Default: /var/lib/prometheus/node-exporter, if it is
    /// there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_directory: Option<PathBuf>,
    /// Seconds between two gatherings of metrics, 1 to 3600; 0: none are gathered. Default: 15.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_seconds: Option<u64>,
    /// To whom the guard writes when something is wrong; empty: to nobody. Default: root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert_mail: Option<String>,
    /// Program, by its whole path, that gets the same as JSON on its standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert_exec: Option<PathBuf>,
    /// Frames dropped from one port in an hour from which on the guard reports that; 0: never. Default: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert_attempts: Option<u64>,
    /// The most that the uplink guards of this node do, whatever the pools say: `watch` counts what they would drop. Default:
    /// `on`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforce: Option<Enforce>,
    /// What filters routed traffic. Default: auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendChoice>,
    /// What the programs at guests' ports do, before the rules. Default: check, where the kernel can (Linux 6.6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_program: Option<PortProgramUse>,
}

impl Document for NodeFile {
    fn version(&self) -> u64 {
        self.version
    }

    fn contradiction(&self) -> Option<String> {
        if self.log_group == Some(0) {
            return Some("has log_group 0; a group is a number from 1 to 65535".to_owned());
        }
        if let Some(seconds) = self.metrics_seconds.filter(|seconds| *seconds > 3600) {
            return Some(format!("has metrics_seconds {seconds}; it is a number from 0 to 3600"));
        }
        for (key, path) in [("metrics_directory", &self.metrics_directory), ("alert_exec", &self.alert_exec)] {
            if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
                return Some(format!("has {key} `{}`; it is a whole path, which begins with /", path.display()));
            }
        }
        // It becomes a line of a mail's head.
        let is_address = |c: char| c.is_ascii_alphanumeric() || "@.+-_=".contains(c);
        let mail = self.alert_mail.as_ref().filter(|mail| mail.starts_with('-') || !mail.chars().all(is_address));
        mail.map(|mail| format!("has alert_mail `{mail}`; it is a user of this node or one mail address"))
    }
}

/// What the programs at guests' ports do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum PortProgramUse {
    /// There are none.
    Off,
    /// They drop what no rule of nftables can see: checksums and segments that a frame leaves to the node in a wrong place.
    #[default]
    Check,
}

impl PortProgramUse {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Check => "check",
        }
    }
}

/// What shall filter routed traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum BackendChoice {
    /// iptables if the node has rules there (the one that has them), else nftables. It holds until the node boots.
    #[default]
    Auto,
    /// `table inet pve-public-ip`.
    Nftables,
    /// The iptables in which the node has rules, else the one that `iptables` is.
    Iptables,
    /// iptables of the old kernel interface.
    IptablesLegacy,
    /// iptables in nf_tables.
    IptablesNft,
}

impl BackendChoice {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::IptablesLegacy => "iptables-legacy",
            Self::IptablesNft => "iptables-nft",
        }
    }
}
