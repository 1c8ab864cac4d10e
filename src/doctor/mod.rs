//! Examines what surrounds the protection: everything that is not this program's own state, and can break it or surprise.
//!
//! One table of checks. Each looks at the [`Facts`] and finds something, nothing, or says why nobody can tell; none can keep
//! the others from being made.

mod by_hand;
mod cluster;
pub mod facts;
pub mod firewall;
mod guests;
mod machine;
mod network;

use std::cell::OnceCell;
use std::fmt::Display;
use std::path::PathBuf;

pub use facts::{Facts, Files, GuardService, Members, Observation, Release, Script, Unreadable};
pub use machine::UNIT;
use serde::Serialize;

pub use crate::model::Severity;
use crate::model::{IfName, Vmid};
use crate::plan::Index;

/// A row of the table.
#[derive(Debug)]
pub struct Check {
    /// Name that never changes.
    pub code: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What it means.
    pub explanation: &'static str,
    look: fn(&View<'_>) -> Observation<Vec<Hit>>,
}

/// What a check found, in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hit {
    subject: String,
    sentence: String,
    remedy: String,
    fix: Option<Fix>,
}

impl Hit {
    fn new(subject: &(impl Display + ?Sized), sentence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject: subject.to_string(), sentence: sentence.into(), remedy: remedy.into(), fix: None }
    }

    fn fixed_by(self, fix: Fix) -> Self {
        Self { fix: Some(fix), ..self }
    }
}

/// What `--fix` may do: each puts something in place that is missing, can be done twice, and takes nothing away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// Write our hookscript to this file.
    PlaceHookscript(PathBuf),
    /// Let this file be executed.
    MakeExecutable(PathBuf),
    /// Register our hookscript with a guest that has none.
    RegisterHookscript(Vmid),
    /// Have systemd start the guard, now and at boot.
    EnableGuard,
    /// Stop a bridge from learning from link-local frames.
    DeafenBridge(IfName),
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Finding {
    /// Name of its check.
    pub code: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What it is about: a guest, a file, an interface.
    pub subject: String,
    /// What was found.
    pub sentence: String,
    /// What that means.
    pub explanation: &'static str,
    /// What to do; empty if there is nothing to do.
    pub remedy: String,
    /// Whether `--fix` does it.
    pub fixable: bool,
    /// How.
    #[serde(skip)]
    pub fix: Option<Fix>,
}

/// A check that could not be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Unchecked {
    /// Name of the check.
    pub code: &'static str,
    /// Why.
    pub reason: String,
}

/// The outcome of all checks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Examination {
    /// What was found, what matters most first.
    pub findings: Vec<Finding>,
    /// What nobody can tell.
    pub unchecked: Vec<Unchecked>,
}

impl Examination {
    /// How many findings of this severity there are.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// Whether something should be done.
    pub fn is_good(&self) -> bool {
        self.count(Severity::Error) + self.count(Severity::Warning) == 0
    }
}

/// What checks look at.
struct View<'a> {
    facts: &'a Facts,
    index: OnceCell<Index<'a>>,
}

impl<'a> View<'a> {
    fn files(&self) -> Observation<&'a Files> {
        self.facts.files()
    }

    /// The registry's index, made once for all checks.
    fn index(&self, files: &'a Files) -> &Index<'a> {
        self.index.get_or_init(|| Index::new(&files.inputs.registry))
    }
}

/// Makes every check.
pub fn examine(facts: &Facts) -> Examination {
    let view = View { facts, index: OnceCell::new() };
    let mut found = Examination::default();
    for Check { code, severity, explanation, look } in CHECKS {
        match look(&view) {
            Ok(hits) => found.findings.extend(hits.into_iter().map(|hit| Finding {
                code,
                severity: *severity,
                subject: hit.subject,
                sentence: hit.sentence,
                explanation,
                remedy: hit.remedy,
                fixable: hit.fix.is_some(),
                fix: hit.fix,
            })),
            Err(reason) => found.unchecked.push(Unchecked { code, reason }),
        }
    }
    // Stable: what is as severe stays in the order of the table.
    found.findings.sort_by_key(|finding| finding.severity);
    found
}

/// `100, 101 and 5 more`.
fn listed<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 8;
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.len() {
        0..=SHOWN => items.join(", "),
        count => format!("{} and {} more", items[..SHOWN].join(", "), count - SHOWN),
    }
}

const fn check(
    code: &'static str,
    severity: Severity,
    explanation: &'static str,
    look: fn(&View<'_>) -> Observation<Vec<Hit>>,
) -> Check {
    Check { code, severity, explanation, look }
}

use Severity::{Error, Info, Warning};

/// The table: every code, in the order in which findings are told.
pub const CHECKS: &[Check] = &[
    check(
        "etc-pve-unreadable",
        Error,
        "Registry and guests lie under /etc/pve: as long as it cannot be read, nothing can be assigned and no guest with \
         addresses starts. Those that run stay protected.",
        cluster::unreadable,
    ),
    check(
        "registry-broken",
        Error,
        "A file of the registry cannot be used: what it says of guests and addresses does not count, and no change is \
         possible as long as it is so.",
        cluster::registry_broken,
    ),
    check(
        "registry-conflict",
        Error,
        "Two files of the registry contradict each other, as only an edit by hand or a restored backup can make them: \
         neither guest can be sure of the address.",
        cluster::registry_conflict,
    ),
    check(
        "no-quorum",
        Error,
        "Without quorum /etc/pve is read-only: guests that run stay protected, but nothing can be assigned, and Proxmox VE \
         starts no guest.",
        cluster::no_quorum,
    ),
    check(
        "filter-missing",
        Error,
        "Nothing is filtered on this node: any guest can use any address.",
        network::filter_missing,
    ),
    check(
        "hookscript-missing",
        Error,
        "Proxmox VE does not start a guest whose hookscript is not there.",
        guests::hookscript_missing,
    ),
    check(
        "hookscript-not-executable",
        Error,
        "Proxmox VE does not start a guest whose hookscript it may not execute.",
        guests::hookscript_not_executable,
    ),
    check(
        "hookscript-not-ours",
        Error,
        "The file has the name of our hookscript, and does something else, as the one does that stays when the package is \
         removed: guests that name it start without protection. Not fixed by --fix: it may be somebody's own.",
        guests::hookscript_not_ours,
    ),
    check(
        "guest-without-hookscript",
        Error,
        "Without our hookscript the guest starts whether it can be protected or not; only the guard service binds it, a \
         moment after its port is there.",
        guests::without_hookscript,
    ),
    check(
        "guest-other-hookscript",
        Error,
        "Proxmox VE knows one hookscript for a guest, and calls the other one only: the guest starts whether it can be \
         protected or not. Ours calls the other one, if `assign` registers it.",
        guests::other_hookscript,
    ),
    check(
        "guest-unreadable",
        Error,
        "The configuration of a guest cannot be read, so nobody knows its NICs: it does not start, and its MACs are \
         missing from every other check.",
        guests::unreadable,
    ),
    check(
        "assignment-problem",
        Error,
        "What is assigned cannot be realised as the guest's configuration is: the guest does not start.",
        guests::assignment_problem,
    ),
    check(
        "mac-unknown-to-provider",
        Error,
        "Frames with this MAC leave for a provider that locks servers or ports for it, because the uplink guard of the \
         pool does not keep them back.",
        guests::mac_unknown_to_provider,
    ),
    check(
        "bridge-missing",
        Error,
        "A guest of this node is assigned addresses of a pool whose bridge is not there, or is no bridge: it does not start.",
        network::bridge_missing,
    ),
    check(
        "ovs-bridge",
        Error,
        "Frames on a bridge of Open vSwitch never pass nftables: nothing on it is protected, and nobody on it is kept \
         from anything. Use a Linux bridge for pools and their guests.",
        network::ovs_bridge,
    ),
    check(
        "ipfilter-drops-address",
        Error,
        "The firewall of Proxmox VE drops what the guest sends from an assigned address, because the NIC's ipfilter set \
         does not have it. Not fixed by --fix: the file belongs to the firewall, and a rule set is not extended unasked.",
        guests::ipfilter_drops,
    ),
    check(
        "vlan-bridge-name-too-long",
        Error,
        "For a tagged NIC on a bridge that is not VLAN-aware, Proxmox VE makes a bridge BRIDGEvTAG. No interface name is \
         longer than 15 characters: the guest does not start.",
        network::vlan_bridge_name,
    ),
    check(
        "kernel-feature-missing",
        Error,
        "This kernel cannot do what the protection is made of.",
        machine::kernel_feature_missing,
    ),
    check(
        "nft-missing",
        Error,
        "The rules are loaded by `nft`: without it they cannot be put back after a reboot or an upgrade.",
        machine::nft_missing,
    ),
    check("nft-old", Error, "The rules are written for nft 1.0.6 and later.", machine::nft_old),
    check(
        "guard-in-trouble",
        Error,
        "The guard service runs, but something keeps it from its work: changes that no hook sees are not followed.",
        machine::guard_in_trouble,
    ),
    check(
        "guard-not-running",
        Warning,
        "Nobody follows what no hook sees: hot-plug, a guest that migrates away, `nft flush ruleset`, a crash.",
        machine::guard_not_running,
    ),
    check(
        "guard-drop-in-outdated",
        Warning,
        "The guard serves no metrics any more, so whoever reads them at that port reads nothing.",
        machine::guard_drop_in_outdated,
    ),
    check(
        "guard-not-enabled",
        Warning,
        "At the next boot guests start before the addresses of those that are stopped are protected.",
        machine::guard_not_enabled,
    ),
    check(
        "orphaned-assignment",
        Warning,
        "The guest does not exist any more; its addresses stay reserved for it. Not fixed by --fix: a configuration is \
         also away while a guest is restored or recovered, and an address that is released may be given to another customer.",
        guests::orphaned,
    ),
    check(
        "clone-or-restore",
        Warning,
        "A guest without assignments has the hookscript, a MAC or an address of one that has some: a clone, or a copy \
         restored under another number. With our hookscript it does not start until one of them gives way; without it, and \
         while it runs, what it sends with that MAC or address is dropped.",
        guests::clone_or_restore,
    ),
    check(
        "duplicate-mac",
        Warning,
        "Two NICs have one MAC, of one guest or of two: on one segment neither works reliably, and one with assignments keeps \
         the other one from speaking.",
        guests::duplicate_mac,
    ),
    check(
        "network-beside-bridges",
        Warning,
        "No filter of a bridge sees what the guest sends there: it can use other guests' addresses as far as the provider's \
         switch lets it, and no address can be bound to it.",
        guests::beside_bridges,
    ),
    check(
        "pending-nic-change",
        Warning,
        "A change of a NIC waits for the guest's next start, and what is assigned to it cannot be realised with it: the guest \
         does not start then.",
        guests::pending_change,
    ),
    check(
        "mac-kept-back",
        Warning,
        "The uplink guard drops what the guest sends to the provider, because no pool knows its MAC.",
        guests::mac_kept_back,
    ),
    check(
        "ipfilter-would-drop",
        Warning,
        "As ipfilter-drops-address, as soon as the firewall of the datacenter, of the node and of the guest is on.",
        guests::ipfilter_would_drop,
    ),
    check(
        "hookscript-not-everywhere",
        Warning,
        "A guest does not start on a node that does not have its hookscript, so it can neither migrate nor be recovered there.",
        guests::hookscript_not_everywhere,
    ),
    check(
        "snippets-not-everywhere",
        Warning,
        "A guest whose cloud-init snippet is not on its node does not start there.",
        guests::snippets_not_everywhere,
    ),
    check(
        "bridge-learns-link-local",
        Warning,
        "Frames to 01:80:c2:00:00:0X pass no filter, and the bridge learns their source: a guest can draw frames for \
         another guest's MAC to itself.",
        network::bridge_learns,
    ),
    check(
        "spanning-tree-root-is-guest",
        Error,
        "A guest has taken over the spanning tree of its bridge: it decides which ports pass frames, and can cut off the uplink.",
        network::root_is_guest,
    ),
    check(
        "port-held-by-spanning-tree",
        Warning,
        "The spanning tree keeps this port from passing frames: who is behind it has no network, whatever the filter says.",
        network::port_is_held,
    ),
    check(
        "bridge-learns-any-number",
        Info,
        "A guest can make its bridge learn a MAC with each frame, millions in all. They take memory of the node (128 bytes each), and a \
         port that goes away has to be looked for in all of them.",
        network::bridge_learns_all,
    ),
    check(
        "bridge-mac-unknown",
        Warning,
        "The node's own frames leave with the MAC of its bridge. A provider that watches MACs knows that of the card: of another \
         one it complains, and may lock the port or the server.",
        network::bridge_mac_unknown,
    ),
    check(
        "gateway-mac-unknown",
        Warning,
        "The MAC of a gateway is protected once it is known. Until then a guest without addresses can send with it, and \
         get what others send to the world.",
        network::gateway_mac_unknown,
    ),
    check(
        "by-hand-differs",
        Warning,
        "A command in /etc/network/interfaces makes a route or a permanent neighbour where this program needs another one. What \
         somebody else made is never removed: the guest does not work.",
        by_hand::differs,
    ),
    check(
        "set-nearly-full",
        Warning,
        "The sets of the filter have a fixed size. What does not fit is refused when it is added.",
        cluster::set_nearly_full,
    ),
    check(
        "uplink-missing",
        Warning,
        "The node's file in the registry names an uplink that does not lead anywhere; other ports of the bridge are \
         then treated as guests.",
        network::uplink_missing,
    ),
    check(
        "vlan-interface-missing",
        Warning,
        "On a VLAN-aware bridge the node speaks with a tagged guest by way of BRIDGE.TAG only: without it the node has \
         no neighbour entry and no route for the guest, and cannot announce it.",
        network::vlan_interface_missing,
    ),
    check(
        "vlan-not-admitted",
        Warning,
        "The bridge's `bridge-vids` do not have the NIC's VLAN: the uplink drops its frames.",
        network::vlan_not_admitted,
    ),
    check(
        "trunk-mismatch",
        Warning,
        "A bound NIC sends tagged frames only in the VLANs that `set --trunk` names, and the bridge only passes those \
         that the guest's configuration names: a VLAN that is in one of them only does not work.",
        network::trunk_mismatch,
    ),
    check(
        "foreign-chain-policy",
        Warning,
        "A chain that this program did not make drops bridged frames that none of its rules accept: an assigned address \
         may not work, whatever our rules say.",
        network::foreign_chain_policy,
    ),
    check(
        "forward-policy-drop",
        Warning,
        "Packets that this node routes, and with bridge-nf-call-iptables also bridged ones, pass a chain that drops what \
         none of its rules accept, as Docker has it.",
        network::forward_policy,
    ),
    check(
        "rp-filter-strict",
        Warning,
        "With strict reverse path filtering the node drops packets of an address that it would answer by way of another \
         interface: routed pools and guests that are routers lose traffic.",
        network::rp_filter_strict,
    ),
    check(
        "kernel-old",
        Warning,
        "The oldest kernel on which the rules are tested is 6.1, that of Debian 12.",
        machine::kernel_old,
    ),
    check(
        "clock-not-synchronised",
        Warning,
        "Times in the registry and in logs cannot be compared between nodes, and corosync and certificates suffer too.",
        machine::clock_not_synchronised,
    ),
    check(
        "files-from-the-future",
        Warning,
        "A file of the registry was written later than it is now by this node's clock: the clock of this node is slow, or \
         that of another one is fast.",
        cluster::files_from_the_future,
    ),
    check(
        "version-skew",
        Warning,
        "Nodes of one cluster run different releases of this program: an older one may not understand what a newer one writes.",
        cluster::version_skew,
    ),
    check(
        "pool-nodes-not-named",
        Warning,
        "A provider that hands out MACs routes each address to one server. As long as the pool does not name its nodes, a guest \
         may be started on, migrated to or recovered on one where its address does not work.",
        cluster::nodes_not_named,
    ),
    check(
        "guest-on-other-node",
        Warning,
        "The provider routes the address to other nodes than that on which the guest is: it has no network with it. Its pool only \
         warns of that (`--elsewhere warn`).",
        guests::on_other_node,
    ),
    check(
        "node-offline",
        Info,
        "A node of the cluster does not answer; its guests stay assigned to it until they are recovered.",
        cluster::node_offline,
    ),
    check(
        "registry-leftover",
        Info,
        "A writer that died left a temporary file; it is never read. Not fixed by --fix: its writer may be alive on \
         another node.",
        cluster::leftovers,
    ),
    check(
        "registry-format-old",
        Info,
        "The format of release 0.1.0: each change writes all pools through the cluster, and the file has room for about \
         10,000 addresses with MACs. Every node of the cluster reads the new format, with a file for each pool. The old one \
         is read as well.",
        cluster::registry_format_old,
    ),
    check(
        "template-with-addresses",
        Info,
        "A template holds addresses; it only runs for backups, and linked clones do not inherit them.",
        guests::template,
    ),
    check(
        "storage-without-snippets",
        Info,
        "Proxmox VE runs a hookscript from a storage whose content has no `snippets`, but neither lists it nor takes it \
         for cloud-init data.",
        guests::storage_without_snippets,
    ),
    check(
        "device-passed-through",
        Info,
        "If it is a network card, no filter of a bridge sees what the guest sends by it.",
        guests::passed_through,
    ),
    check(
        "ovs-present",
        Info,
        "This node has bridges of Open vSwitch. No pool and no guest with assignments is on them; what is, is not protected.",
        network::ovs_present,
    ),
    check(
        "router-advertises-prefix",
        Info,
        "A host that heeds router advertisements makes an address for itself in such a prefix, and prefers it to a /128 \
         that it was given. What it sends from there is dropped.",
        network::router_advertises_prefix,
    ),
    check(
        "by-hand-same",
        Info,
        "A command in /etc/network/interfaces makes what this program makes, too, while a guest runs. It does no harm; what it made \
         stays when the guest is off.",
        by_hand::same,
    ),
    check(
        "br-netfilter",
        Info,
        "Bridged frames also pass iptables and the chains of the families ip, ip6 and inet. The protection is the same \
         with and without. Proxmox VE's firewall sets it every 10 seconds while it is on, and never takes it back.",
        network::br_netfilter,
    ),
    check(
        "proxmox-firewall",
        Info,
        "The firewall of Proxmox VE is on. Both filters count: what either drops is dropped, and ours comes first.",
        guests::proxmox_firewall,
    ),
    check(
        "foreign-chain-drops",
        Info,
        "A table that this program did not make has rules that drop bridged frames. It comes after ours, and may keep an \
         assigned address from working.",
        network::foreign_chain_drops,
    ),
    check(
        "kernel-feature-absent",
        Info,
        "This kernel lacks something that only some nodes need.",
        machine::kernel_feature_absent,
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_check_has_a_name_and_words_of_its_own() {
        let codes: BTreeSet<&str> = CHECKS.iter().map(|check| check.code).collect();
        assert_eq!(codes.len(), CHECKS.len(), "a code stands there twice");
        for Check { code, explanation, .. } in CHECKS {
            assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{code}");
            assert!(explanation.ends_with('.') && explanation.len() > 40, "{code}: {explanation}");
        }
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(listed(1..=3), "1, 2, 3");
        assert_eq!(listed(1..=10), "1, 2, 3, 4, 5, 6, 7, 8 and 2 more");
    }
}
