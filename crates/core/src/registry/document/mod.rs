//! The registry's files as types, and the strict way in: every complaint names file, key and value.

mod guest;
mod lookup;
mod node;
mod pools;
mod read;
mod released;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use guest::{Assigned, CloudInit, CloudInitCheck, GivenMac, GuestFile, GuestOs, Interface};
pub use lookup::{EntryIndex, Overlap, PoolIndex, overlap};
pub use node::{BackendChoice, NodeFile, PortProgramUse};
pub use pools::{
    Elsewhere, Enforce, Mode, POOL_ADDRESSES, POOLS_VERSION, Pool, PoolAddress, PoolFile, PoolsFile, Probe, Profile,
    UplinkGuard,
};
pub use read::{RESTORE, first_version, parse};
pub use released::{Released, ReleasedFile};

use crate::code;
use crate::model::{Code, Subject};

/// The format of all files but those of pools.
pub const VERSION: u64 = 1;

/// pmxcfs refuses larger files. Source: pve-cluster `src/pmxcfs/memdb.h`, `MEMDB_MAX_FILE_SIZE`.
pub const MAX_FILE_SIZE: usize = 1024 * 1024;

/// A file of the registry that cannot be used as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` {reason}", path.display())]
pub struct DocumentError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, with key and value.
    pub reason: String,
    /// What to do.
    pub hint: String,
    /// What kind of fault it is.
    pub fault: Fault,
}

impl DocumentError {
    /// Its kind.
    pub fn code(&self) -> Code {
        match self.fault {
            Fault::Newer => code!("registry-newer"),
            _ => code!("registry-broken"),
        }
    }

    /// The file.
    pub fn subject(&self) -> Subject {
        Subject::File(self.path.display().to_string())
    }
}

/// Why a file cannot be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fault {
    /// It is damaged, or was edited by hand.
    #[default]
    Damaged,
    /// It has a key that this release does not know: a typing error, or the key of a newer release.
    UnknownKey,
    /// It says that a newer release wrote it.
    Newer,
}

impl DocumentError {
    /// A file that is damaged.
    pub fn new(path: &Path, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { path: path.to_owned(), reason: reason.into(), hint: hint.into(), fault: Fault::Damaged }
    }
}

/// What cures every node that is older than a file of the registry.
pub const UPGRADE: &str = "upgrade this node: `apt update && apt install pve-public-ip`";

/// A file of the registry: its type-specific checks, beyond what serde sees.
pub trait Document: DeserializeOwned + Serialize + JsonSchema {
    /// The versions of its format that this release reads.
    const READ: RangeInclusive<u64> = VERSION..=VERSION;

    /// The version of its format.
    fn version(&self) -> u64;

    /// Its text: indented, keys in order.
    fn text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// Says what contradicts itself inside the document, with the key.
    fn contradiction(&self) -> Option<String>;
}

/// The text of a document as it is stored, with a newline at the end.
pub fn render<T: Document>(document: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = document.text()?.into_bytes();
    bytes.push(b'\n');
    Ok(bytes)
}
