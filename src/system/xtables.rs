//! iptables and ipset: what they have of ours, and changes to it.
//!
//! Always by the full names: `iptables` alone is what the alternatives say, and Proxmox VE's firewall changes them. Many
//! rules go through `iptables-restore`, in one transaction and with a limit to the wait for the lock; the crate `iptables`
//! starts a process for each rule, so it serves where a look is enough.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::host::command::{self, CommandError};
use crate::model::Family;
use crate::ruleset::{Backend, Chains, IpSetName, IptablesTable, Variant};

/// How long, in seconds, to wait for whoever holds the lock of iptables.
const LOCK_LIMIT: &str = "5";

/// iptables or ipset cannot do their part.
#[derive(Debug, thiserror::Error)]
pub enum XtablesError {
    /// Reading or changing chains.
    #[error("cannot {action} {place}")]
    Chains {
        /// What was tried.
        action: &'static str,
        /// Where.
        place: IptablesTable,
        /// What the program said.
        source: CommandError,
    },
    /// Reading or changing sets.
    #[error("cannot {action} the sets of ipset")]
    Sets {
        /// What was tried.
        action: &'static str,
        /// What the program said.
        source: CommandError,
    },
    /// The node shall have a backend that it cannot have.
    #[error("there is neither `iptables-legacy` nor `iptables-nft` on this node")]
    NoIptables,
}

impl XtablesError {
    /// The administrator's next step.
    pub fn hint(&self) -> String {
        let other = "or `pve-public-ip node set --backend nftables`";
        match self {
            Self::NoIptables | Self::Chains { source: CommandError::Start { .. }, .. } => {
                format!("`apt install iptables`, {other}")
            }
            Self::Sets { source: CommandError::Start { .. }, .. } => format!("`apt install ipset`, {other}"),
            Self::Chains { place, .. } => {
                format!(
                    "does `{} -w 5 -S` work? Who holds the lock: `fuser /run/xtables.lock`; {other}",
                    place.program("")
                )
            }
            Self::Sets { .. } => format!("does `ipset list -n` work? {other}"),
        }
    }
}

fn save(place: IptablesTable) -> Result<String, XtablesError> {
    let failed = |source| XtablesError::Chains { action: "read", place, source };
    // Without the table it would read in /proc which there are, and the service does not see that.
    let text = command::run(&place.program("-save"), &["-t", place.table.name()], b"").map_err(failed)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The places of one iptables.
fn places(variant: Variant, ipv6: bool) -> impl Iterator<Item = IptablesTable> {
    IptablesTable::all(variant).filter(move |place| ipv6 || place.family == Family::V4)
}

/// Chains of ours by their place, and what could not be read.
pub(super) type Found = (BTreeMap<IptablesTable, Chains>, Vec<(Vec<IptablesTable>, XtablesError)>);

/// Reads what is ours in these. A program that fails for one table is not asked for the others, each of which could take as
/// long again: the error counts for all that follow.
pub(super) fn observe_chains(variants: &BTreeSet<Variant>) -> Found {
    let ipv6 = has_ipv6();
    let (mut found, mut unread) = Found::default();
    for variant in variants {
        let mut rest = places(*variant, ipv6);
        while let Some(place) = rest.next() {
            match save(place) {
                Ok(text) => {
                    let chains = Chains::parse(&text);
                    if !chains.is_empty() {
                        found.insert(place, chains);
                    }
                }
                Err(error) => unread.push((std::iter::once(place).chain(rest.by_ref()).collect(), error)),
            }
        }
    }
    (found, unread)
}

/// Reads our sets.
pub(super) fn observe_sets() -> Result<BTreeMap<IpSetName, BTreeSet<String>>, XtablesError> {
    let text = match command::run("ipset", &["save"], b"") {
        Ok(text) => text,
        // Without the program there are no sets.
        Err(CommandError::Start { .. }) => return Ok(BTreeMap::new()),
        Err(source) => return Err(XtablesError::Sets { action: "read", source }),
    };
    let ours: BTreeMap<String, IpSetName> = IpSetName::all().map(|name| (name.to_string(), name)).collect();
    let mut found: BTreeMap<IpSetName, BTreeSet<String>> = BTreeMap::new();
    for line in String::from_utf8_lossy(&text).lines() {
        let mut words = line.split(' ');
        let (command, name, member) = (words.next(), words.next().and_then(|name| ours.get(name)), words.next());
        let (Some(command), Some(name)) = (command, name) else { continue };
        let members = found.entry(*name).or_default();
        if let ("add", Some(member)) = (command, member) {
            members.insert(member.to_lowercase());
        }
    }
    Ok(found)
}

/// A hash of all that iptables says, the counters of rules excepted, and of how many members our sets have: it changes
/// if anything of ours does, or comes before it.
pub(super) fn fingerprint(variant: Variant, ipset: bool) -> Result<u64, XtablesError> {
    let mut hasher = DefaultHasher::new();
    for place in places(variant, has_ipv6()) {
        let text = save(place)?;
        text.lines().filter(|line| line.starts_with("-A ")).for_each(|line| line.hash(&mut hasher));
    }
    if ipset {
        let failed = |source| XtablesError::Sets { action: "read", source };
        let text = command::run("ipset", &["list", "-t"], b"").map_err(failed)?;
        let text = String::from_utf8_lossy(&text);
        let counts = text.lines().filter(|line| line.starts_with("Name:") || line.starts_with("Number of entries:"));
        counts.for_each(|line| line.hash(&mut hasher));
    }
    Ok(hasher.finish())
}

/// Makes the chains of one table what is wanted.
pub(super) fn load_chains(place: IptablesTable, wanted: &Chains, found: &Chains) -> Result<(), XtablesError> {
    let failed = |source| XtablesError::Chains { action: "change", place, source };
    let script = wanted.script(found, place.table);
    let args = ["--noflush", "-w", LOCK_LIMIT];
    command::run(&place.program("-restore"), &args, script.as_bytes()).map(drop).map_err(failed)
}

/// Changes a set: new members come before old ones go.
pub(super) fn change_set(
    set: IpSetName,
    create: bool,
    add: &BTreeSet<String>,
    remove: &BTreeSet<String>,
) -> Result<(), XtablesError> {
    let mut script = if create { format!("create {set} {} -exist\n", set.kind()) } else { String::new() };
    script.extend(add.iter().map(|member| format!("add {set} {member} -exist\n")));
    script.extend(remove.iter().map(|member| format!("del {set} {member} -exist\n")));
    ipset("change", &script)
}

/// Removes a set.
pub(super) fn remove_set(set: IpSetName) -> Result<(), XtablesError> {
    ipset("remove", &format!("destroy {set}\n"))
}

fn ipset(action: &'static str, script: &str) -> Result<(), XtablesError> {
    let failed = |source| XtablesError::Sets { action, source };
    command::run("ipset", &["restore"], script.as_bytes()).map(drop).map_err(failed)
}

/// Which iptables this node's own rules are in, if any.
pub fn in_use() -> Option<Variant> {
    let names = crate::host::files::read_kernel("/proc/thread-self/net/ip_tables_names".as_ref()).unwrap_or_default();
    // To ask iptables-legacy makes the table, so it is asked only if that is there.
    let is_made = names.lines().any(|name| name == "filter");
    let variants = Variant::ALL.into_iter().filter(|variant| is_made || *variant == Variant::Nft);
    variants.into_iter().find(|variant| {
        let look = iptables::IPTables {
            cmd: match variant {
                Variant::Legacy => "iptables-legacy",
                Variant::Nft => "iptables-nft",
            },
            has_check: true,
            // It would wait without a limit; that somebody holds the lock tells enough.
            has_wait: false,
            is_numeric: false,
        };
        let rules = look.list_table("filter").unwrap_or_default();
        rules.iter().any(|rule| rule.starts_with("-A ") && !rule.contains(crate::ruleset::CHAIN))
    })
}

/// Which iptables to use where no rules tell: that of the alternatives, which Proxmox VE's firewall sets.
pub fn preferred() -> Result<Variant, XtablesError> {
    if let Some(variant) = in_use() {
        return Ok(variant);
    }
    let chosen = std::fs::read_link("/etc/alternatives/iptables").unwrap_or_default();
    let is_there = |variant: &Variant| command::find(&variant.to_string()).is_some();
    let mut variants = Variant::ALL.into_iter().filter(is_there).collect::<Vec<_>>();
    variants.sort_by_key(|variant| !chosen.ends_with(variant.to_string()));
    variants.first().copied().ok_or(XtablesError::NoIptables)
}

/// What this iptables can do here.
pub fn backend(variant: Variant) -> Backend {
    let ipv6 = has_ipv6();
    let tried = |family: &str| {
        let script = format!("create pve-public-ip-try hash:ip,mac family {family}\ndestroy pve-public-ip-try\n");
        ipset("try", &script).is_ok()
    };
    Backend::Iptables { variant, ipset: tried("inet") && (!ipv6 || tried("inet6")), ipv6 }
}

fn has_ipv6() -> bool {
    std::fs::exists("/proc/thread-self/net/if_inet6").unwrap_or_default()
}
