//! The audit log: who changed what, when and why, one line of JSON for each change.
//!
//! What changed in the registry is not told by the commands: it is worked out from the registry before and after
//! ([`changes`]), so that no command can forget it. The same comparison, with the registry as the log knows it, finds what
//! was changed by hand, on another node, or by a process that was killed before it could write its entry.

mod changes;
mod query;
mod span;

use std::fmt;

pub use changes::{bindings, changes};
pub use query::{Holder, Query, Selection, holders, select};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
pub use span::{Span, SpanError};

use crate::model::{IfName, MacAddr, Moment, NicId, NodeName, PoolName, Prefix, Vmid};

/// The format that this release writes.
pub const VERSION: u64 = 1;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// Format version, 1.
    pub version: u64,
    /// When (RFC 3339, UTC).
    pub time: Moment,
    /// The node that wrote it.
    pub node: NodeName,
    /// What changed.
    #[serde(flatten)]
    pub change: Change,
    /// Whether the change was only found: made by hand, on another node, or by a process that did not live to write it
    /// down. It is then no younger than `time`, and who made it is in the log of the node where it was made, if anywhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
    /// Who did it and how; not of what was only found.
    #[serde(flatten)]
    pub author: Author,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// The kind of change.
    pub event: Event,
    /// The guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmid: Option<Vmid>,
    /// Its NIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<NicId>,
    /// The address or prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Prefix>,
    /// The NIC's MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// The guest's port on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<IfName>,
    /// The pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// What was found or done, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What was there before, as the registry has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What is there now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

impl Change {
    /// A change of which nothing but its kind is known yet.
    pub fn new(event: Event) -> Self {
        Self {
            event,
            vmid: None,
            interface: None,
            address: None,
            mac: None,
            port: None,
            pool: None,
            text: None,
            before: None,
            after: None,
        }
    }

    /// Something that was done, in words.
    pub fn said(event: Event, text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::new(event) }
    }
}

/// Kinds of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A pool was made.
    PoolCreated,
    /// What holds for all addresses of a pool was changed.
    PoolChanged,
    /// A pool was removed.
    PoolRemoved,
    /// A pool got an address or prefix.
    EntryAdded,
    /// What is known of an address of a pool was changed.
    EntryChanged,
    /// An address or prefix left its pool.
    EntryRemoved,
    /// A guest got an address.
    Assigned,
    /// What goes with an assignment was changed.
    AssignmentChanged,
    /// A guest's address was taken back.
    Released,
    /// The MAC of a NIC with addresses, or what the NIC may do, was changed.
    NicChanged,
    /// How a guest is told its addresses, or the hookscript that it had before, was changed.
    GuestChanged,
    /// What is set for this node alone was changed.
    NodeChanged,
    /// A guest's NIC was given another MAC in its own configuration.
    MacGiven,
    /// A storage for cloud-init data was added.
    StorageAdded,
    /// A running guest's port can use an address.
    Bound,
    /// It cannot any more.
    Unbound,
    /// The node was not as it should be, and was put right.
    Repaired,
    /// What the program had put on the node was taken away.
    Uninstalled,
    /// The API got a key.
    KeyAdded,
    /// A key of the API counts no more.
    KeyRevoked,
    /// Of a later release.
    #[serde(other)]
    Other,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Who made a change, how and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Author {
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<Who>,
    /// The command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Why, in the words of `--reason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Who made a change, as far as the system can tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Who {
    /// The user that the process runs as.
    pub user: String,
    /// Who logged in, by the kernel's login user id, which `su` and `sudo` leave as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Who called `sudo`, by its own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo: Option<String>,
    /// The Proxmox VE task in which it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The Proxmox VE user who started the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_user: Option<String>,
}

impl fmt::Display for Who {
    /// The person, as far as one is known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let person = self.task_user.as_ref().or(self.sudo.as_ref()).or(self.login.as_ref());
        f.write_str(person.unwrap_or(&self.user))
    }
}

impl Entry {
    /// The line, with its newline.
    pub fn line(&self) -> String {
        // Text, numbers and maps with text as keys: there is nothing that JSON does not have.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}
