//! Guests as Proxmox VE knows them: the text of their configuration, and the storages that it speaks of.

mod beside;
mod cloud_init;
mod config;
pub mod storage;

pub use cloud_init::{Addressing, CloudInitForm, IpConfig, IpFamily};
pub use config::{GuestConfig, Nic, NicChange, NicError, may_use, names};

use crate::model::NodeName;

/// A guest and the node that has its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Where the configuration lies.
    pub node: NodeName,
    /// What it says.
    pub config: GuestConfig,
}
