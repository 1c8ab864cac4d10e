//! The same address or MAC claimed by two: found by comparing files, by asking the network, and by what the filter drops.
//!
//! Whatever a guest does or writes into its configuration must not take an address from others: what comes from a
//! guest's port was dropped, and what stands in its configuration gives it nothing. So these are told, and keep nobody from
//! an address. What the uplink's side claims, and what the node or Proxmox VE's own address management has given away,
//! does: it would work against whoever got the address.

mod claims;
mod files;
mod frames;
pub mod routers;
mod sighting;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

pub use claims::{Claim, Claims, Source};
pub use files::{Allocation, Files, allocations, in_files};
pub use frames::{Asker, claimed, question, questioned};
use serde::{Deserialize, Serialize};
pub use sighting::sighted;

use crate::model::{MacAddr, Moment, Prefix, Vmid};

/// Two that claim the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Conflict {
    /// By which it is acknowledged; the same as long as the conflict is.
    pub id: String,
    /// Where it shows.
    pub kind: &'static str,
    /// The address, if it is about one.
    pub address: Option<Prefix>,
    /// The MAC: that of the second claimant, or the one that two have.
    pub mac: Option<MacAddr>,
    /// Guests that it concerns.
    pub guests: BTreeSet<Vmid>,
    /// What is the matter.
    pub sentence: String,
    /// What to do.
    pub hint: String,
    /// Whether the address is not handed out meanwhile.
    pub blocks: bool,
    /// Whether the administrator knows.
    pub acknowledged: bool,
    /// What was seen on the network, if it was.
    #[serde(flatten)]
    pub seen: Option<Seen>,
}

/// How often something was seen, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Seen {
    /// How often; of a flood, a part.
    pub count: u64,
    /// First.
    pub first: Moment,
    /// Last.
    pub last: Moment,
}

impl Conflict {
    fn new(kind: &'static str, sentence: String, hint: String) -> Self {
        let (guests, seen) = (BTreeSet::new(), None);
        let id = id_of(&(kind, &sentence));
        Self { id, kind, address: None, mac: None, guests, sentence, hint, blocks: false, acknowledged: false, seen }
    }
}

/// Eight digits for what makes a conflict the same one.
fn id_of(identity: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    format!("{:08x}", hasher.finish() & 0xffff_ffff)
}
