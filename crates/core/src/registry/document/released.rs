//! `released.json`: what was given back a short time ago.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Document, VERSION};
use crate::model::{Moment, PoolName, Prefix, Vmid, once};

/// `released.json`: addresses that were taken back not long ago. May be removed: it only keeps them from being handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ReleasedFile {
    /// Format version, 1.
    pub version: u64,
    /// When which guest gave back what.
    #[serde(default, deserialize_with = "once::map")]
    pub addresses: BTreeMap<Prefix, Released>,
}

impl Default for ReleasedFile {
    fn default() -> Self {
        Self { version: VERSION, addresses: BTreeMap::new() }
    }
}

impl Document for ReleasedFile {
    fn version(&self) -> u64 {
        self.version
    }

    fn contradiction(&self) -> Option<String> {
        None
    }
}

/// Who had an address until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Released {
    /// When it was taken back (RFC 3339, UTC).
    pub at: Moment,
    /// The guest that had it, and may have it back at any time.
    pub vmid: Vmid,
    /// The pool that says how long it cools down.
    pub pool: PoolName,
}
