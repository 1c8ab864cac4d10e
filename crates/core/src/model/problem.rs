//! What went wrong, or is worth knowing, in one form for everybody: the command line, its JSON, the audit log, a caller by a
//! socket. Each kind has a [`Code`] that never changes and that `docs/problems.md` explains.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::{IfName, PoolName, Prefix, Vmid};

/// Name of a kind of problem: lower case words with hyphens. It never changes its meaning.
///
/// Made by [`code!`](crate::code), which refuses a name that is not in [`CODES`] when the program is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Code(&'static str);

impl Code {
    /// A name of the list, for [`code!`](crate::code).
    ///
    /// # Panics
    ///
    /// For any other name; the macro has that happen in the compiler.
    pub const fn known(name: &'static str) -> Self {
        let mut at = 0;
        while at < CODES.len() {
            if is_same(CODES[at].as_bytes(), name.as_bytes()) {
                return Self(name);
            }
            at += 1;
        }
        panic!("this code is not in the list of crates/core/src/model/problem.rs");
    }

    /// As it is printed.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl<'de> Deserialize<'de> for Code {
    /// One of a later release says nothing to this one but that something failed.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(CODES.binary_search(&name.as_str()).map_or(crate::code!("failed"), |at| Self(CODES[at])))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// The [`Code`] of this name.
#[macro_export]
macro_rules! code {
    ($name:literal) => {
        const { $crate::model::Code::known($name) }
    };
}

/// Every code, sorted; those of `doctor`'s checks among them. `docs/problems.md` has a section for each.
pub const CODES: &[&str] = &[
    "address-contested",
    "address-in-no-pool",
    "address-in-other-pool",
    "address-in-use",
    "address-not-in-pool",
    "address-of-this-node",
    "address-taken",
    "address-unusable",
    "agent-failed",
    "api-answer-lost",
    "api-attempts-limited",
    "api-busy",
    "api-key-limited",
    "api-key-refused",
    "api-unreachable",
    "assignment-not-whole",
    "assignment-problem",
    "attack-unheard",
    "audit-log-not-read",
    "br-netfilter",
    "bridge-learns-any-number",
    "bridge-learns-link-local",
    "bridge-mac-unknown",
    "bridge-missing",
    "bridge-not-filtered",
    "bridge-not-named",
    "bridge-unfit",
    "by-hand-differs",
    "by-hand-same",
    "caller-not-allowed",
    "clock-not-synchronised",
    "clone-or-restore",
    "command-failed",
    "configured-address-not-own",
    "contradictory-options",
    "cooling-down",
    "device-passed-through",
    "duplicate-mac",
    "etc-pve-down",
    "etc-pve-silent",
    "etc-pve-stale",
    "etc-pve-unreadable",
    "failed",
    "file-not-written",
    "files-from-the-future",
    "filter-full",
    "filter-missing",
    "foreign-chain-drops",
    "foreign-chain-policy",
    "foreign-state-in-the-way",
    "forward-policy-drop",
    "frame-not-understood",
    "gateway-differs",
    "gateway-held",
    "gateway-mac-unknown",
    "gateway-of-other-family",
    "gateway-outside",
    "group-of-other-organization",
    "guard-drop-in-outdated",
    "guard-in-trouble",
    "guard-not-enabled",
    "guard-not-running",
    "guard-running",
    "guest-ambiguous",
    "guest-elsewhere",
    "guest-not-told",
    "guest-on-other-node",
    "guest-other-hookscript",
    "guest-running",
    "guest-unreadable",
    "guest-without-hookscript",
    "holder-mac-differs",
    "hookscript-missing",
    "hookscript-not-everywhere",
    "hookscript-not-executable",
    "hookscript-not-ours",
    "host-bits",
    "import-invalid",
    "import-nothing-found",
    "import-unclear",
    "internal-error",
    "ipfilter-drops-address",
    "ipfilter-would-drop",
    "kernel-feature-absent",
    "kernel-feature-missing",
    "kernel-old",
    "kernel-refused",
    "kernel-unreadable",
    "key-exists",
    "key-invalid",
    "keys-unusable",
    "labels-invalid",
    "mac-kept-back",
    "mac-not-named",
    "mac-not-of-guest",
    "mac-not-set",
    "mac-of-gateway",
    "mac-taken",
    "mac-unknown-to-provider",
    "netmask-differs",
    "network-beside-bridges",
    "network-data-differs",
    "network-data-refused",
    "nft-missing",
    "nft-old",
    "nic-change-waits",
    "nic-missing",
    "nic-not-understood",
    "nic-without-mac",
    "nics-differ",
    "no-agent",
    "no-copy",
    "no-dry-run",
    "no-pools",
    "no-quorum",
    "no-room-for-subnets",
    "no-snippet-storage",
    "node-busy",
    "node-could-not-follow",
    "node-name-unusable",
    "node-offline",
    "node-unreadable",
    "not-in-api",
    "not-in-plan",
    "not-root",
    "nothing-assigned",
    "nothing-selected",
    "nothing-to-restore",
    "open-between-zones",
    "orphaned-assignment",
    "other-group",
    "other-mac-needed",
    "others-were-faster",
    "overlap",
    "overlapping-subnets",
    "ovs-bridge",
    "ovs-present",
    "own-hookscript-failed",
    "own-hookscript-missing",
    "pending-nic-change",
    "plan-invalid",
    "plan-overlaps",
    "pool-elsewhere",
    "pool-exhausted",
    "pool-exists",
    "pool-missing",
    "pool-nodes-not-named",
    "pool-not-enforced",
    "pool-not-named",
    "port-held-by-spanning-tree",
    "port-program-refused",
    "port-programs-absent",
    "port-without-program",
    "prefix-needs-route",
    "prefix-not-answered-for",
    "prefix-on-link",
    "private-address-in-pool",
    "provider-mac-differs",
    "provider-mac-unknown",
    "proxmox-firewall",
    "registered-mac-differs",
    "registry-broken",
    "registry-changed-meanwhile",
    "registry-conflict",
    "registry-file-too-large",
    "registry-format-old",
    "registry-leftover",
    "registry-lock-lost",
    "registry-locked",
    "registry-newer",
    "registry-not-writable",
    "registry-unreadable",
    "release-too-old",
    "request-invalid",
    "routed-pool-unreachable",
    "router-advertises-prefix",
    "router-mac-not-protected",
    "rp-filter-strict",
    "run-directory-unusable",
    "same-address",
    "same-mac",
    "second-nic-in-subnet",
    "set-nearly-full",
    "shared-address",
    "shared-in-other-vlan",
    "shared-with-one-mac",
    "single-router",
    "snippet-not-written",
    "snippets-not-everywhere",
    "socket-unusable",
    "spanning-tree-root-is-guest",
    "start-refused",
    "step-failed",
    "storage-in-the-way",
    "storage-without-snippets",
    "template-with-addresses",
    "too-few-addresses",
    "trunk-mismatch",
    "unknown-code",
    "unknown-conflict",
    "unknown-entry",
    "unknown-guest",
    "unknown-interface",
    "unknown-node",
    "unknown-pool",
    "uplink-misnamed",
    "uplink-missing",
    "usage",
    "version-skew",
    "via-in-use",
    "via-not-routed",
    "via-unusable",
    "vlan-bridge-name-too-long",
    "vlan-interface-missing",
    "vlan-not-admitted",
    "vlan-unaware-bridge",
    "would-cut-off",
    "would-lose",
    "wrong-bridge",
    "wrong-node",
    "wrong-subnet",
    "wrong-vlan",
];

/// What a problem is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "id", rename_all = "kebab-case")]
pub enum Subject {
    /// This node: everybody on it relies on it.
    Node,
    /// A pool: the guests with its addresses rely on it.
    Pool(PoolName),
    /// A guest.
    Guest(Vmid),
    /// An address or prefix.
    Address(Prefix),
    /// An interface of this node.
    Interface(IfName),
    /// A file.
    File(String),
    /// The command line, or the request.
    Command,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("this node"),
            Self::Pool(name) => write!(f, "pool `{name}`"),
            Self::Guest(vmid) => write!(f, "guest {vmid}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Interface(name) => write!(f, "{name}"),
            Self::File(name) => write!(f, "`{name}`"),
            Self::Command => f.write_str("the command"),
        }
    }
}

/// Something that stands in the way, failed, or is worth knowing: one sentence, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{sentence}")]
pub struct Problem {
    /// Which kind it is.
    pub code: Code,
    /// What it is about.
    pub subject: Subject,
    /// What is wrong, on what, and why.
    pub sentence: String,
    /// What to do; absent if there is nothing to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl Problem {
    /// A problem of a guest.
    pub fn of_guest(code: Code, vmid: Vmid, sentence: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(code, Subject::Guest(vmid), sentence, hint)
    }

    /// A problem of the node.
    pub fn of_node(code: Code, sentence: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(code, Subject::Node, sentence, hint)
    }

    /// A problem.
    pub fn new(code: Code, subject: Subject, sentence: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, subject, sentence: sentence.into(), hint: hint.into() }
    }

    /// The guest, if it is about one.
    pub fn guest(&self) -> Option<Vmid> {
        if let Subject::Guest(vmid) = self.subject { Some(vmid) } else { None }
    }

    /// With what was tried before the sentence: `cannot assign to guest 100: ...`.
    #[must_use]
    pub fn while_trying(self, what: impl fmt::Display) -> Self {
        Self { sentence: format!("{what}: {}", self.sentence), ..self }
    }
}

/// An error with its causes: `cannot read the registry at ...: Permission denied`.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The same in one line: what programs say has several.
pub fn line(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_there_once() {
        assert!(CODES.windows(2).all(|pair| pair[0] < pair[1]), "{CODES:?}");
        let is_plain = |code: &&str| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        assert!(CODES.iter().all(|code| is_plain(code) && !code.starts_with('-') && !code.ends_with('-')));
    }

    #[test]
    fn a_problem_says_what_it_is_about() {
        let vmid = "100".parse().unwrap();
        let problem = Problem::of_guest(code!("nothing-assigned"), vmid, "guest 100 has no public address", "");
        assert_eq!(
            serde_json::to_value(problem.clone()).unwrap(),
            serde_json::json!({"code": "nothing-assigned", "subject": {"kind": "guest", "id": 100},
                "sentence": "guest 100 has no public address"})
        );
        assert_eq!(problem.while_trying("cannot show").sentence, "cannot show: guest 100 has no public address");
        let node = Problem::of_node(code!("etc-pve-silent"), "x", "y");
        assert_eq!(serde_json::to_value(node).unwrap()["subject"], serde_json::json!({"kind": "node"}));
    }
}
