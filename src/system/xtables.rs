//! iptables and ipset: what they have of ours, and changes to it.
//!
//! Always by the full names: `iptables` alone is what the alternatives say, and Proxmox VE's firewall changes them. Many
//! rules go through `iptables-restore`, in one transaction and with a limit to the wait for the lock; the crate `iptables`
//! starts a process for each rule, so it serves where a look is enough.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use crate::host::command::{self, CommandError};
use crate::model::Family;
use crate::ruleset::{Backend, Chains, IpSetName, IptablesTable, Variant};

/// How long, in seconds, to wait for whoever holds the lock of iptables.
const LOCK_LIMIT: &str = "5";

/// How long one look may take, whatever it asks: a hook has ten seconds for all that it does, and other hooks wait for a look
/// under the node's lock.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// What a program gets in any case, after another one has used up the time.
const LAST_LIMIT: Duration = Duration::from_secs(1);

/// The end of a look that begins now.
fn end_of_look() -> Instant {
    Instant::now() + LOOK_LIMIT
}

fn look(until: Instant, program: &str, args: &[&str]) -> Result<String, CommandError> {
    let limit = until.saturating_duration_since(Instant::now()).max(LAST_LIMIT);
    command::run_for(limit, program, args, b"").map(|text| String::from_utf8_lossy(&text).into_owned())
}

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
    /// A set has room for no more.
    #[error("the set `{0}` of ipset is full")]
    Full(IpSetName),
    /// Whether the node itself uses an iptables cannot be seen.
    #[error("`{0} -t filter -S` does not answer")]
    Late(Variant),
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
            Self::Full(_) => {
                "`pve-public-ip apply` takes out what somebody else put into it, and says what does not fit".to_owned()
            }
            Self::Late(variant) => format!("does `{variant} -w 5 -S` work? {other}"),
        }
    }
}

fn save(until: Instant, place: IptablesTable) -> Result<String, XtablesError> {
    let failed = |source| XtablesError::Chains { action: "read", place, source };
    // Without the table it would read in /proc which there are, and the service does not see that.
    look(until, &place.program("-save"), &["-t", place.table.name()]).map_err(failed)
}

/// The places of one iptables.
fn places(variant: Variant, ipv6: bool) -> impl Iterator<Item = IptablesTable> {
    IptablesTable::all(variant).filter(move |place| ipv6 || place.family == Family::V4)
}

/// What a look has found of ours.
#[derive(Debug)]
pub(super) struct Seen {
    /// Chains by their place.
    pub(super) chains: BTreeMap<IptablesTable, Chains>,
    /// Where there may be some, and what kept them from being read.
    pub(super) unread_chains: Vec<(Vec<IptablesTable>, XtablesError)>,
    /// The sets of ipset, or what kept them from being read.
    pub(super) sets: Result<BTreeMap<IpSetName, BTreeSet<String>>, XtablesError>,
}

/// Reads what is ours in these. A program that fails for one table is not asked for the others, each of which could take as
/// long again: the error counts for all that follow.
pub(super) fn observe(variants: &BTreeSet<Variant>) -> Seen {
    let (until, ipv6) = (end_of_look(), has_ipv6());
    let (mut chains, mut unread_chains) = (BTreeMap::new(), Vec::new());
    for variant in variants {
        let mut rest = places(*variant, ipv6);
        while let Some(place) = rest.next() {
            match save(until, place) {
                Ok(text) => {
                    let found = Chains::parse(&text);
                    if !found.is_empty() {
                        chains.insert(place, found);
                    }
                }
                Err(error) => unread_chains.push((std::iter::once(place).chain(rest.by_ref()).collect(), error)),
            }
        }
    }
    Seen { chains, unread_chains, sets: observe_sets(until) }
}

/// Reads our sets.
fn observe_sets(until: Instant) -> Result<BTreeMap<IpSetName, BTreeSet<String>>, XtablesError> {
    let text = match look(until, "ipset", &["save"]) {
        Ok(text) => text,
        // Without the program there are no sets.
        Err(CommandError::Start { .. }) => return Ok(BTreeMap::new()),
        Err(source) => return Err(XtablesError::Sets { action: "read", source }),
    };
    let ours: BTreeMap<String, IpSetName> = IpSetName::all().map(|name| (name.to_string(), name)).collect();
    let mut found: BTreeMap<IpSetName, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines() {
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
    let (until, mut hasher) = (end_of_look(), DefaultHasher::new());
    for place in places(variant, has_ipv6()) {
        let text = save(until, place)?;
        text.lines().filter(|line| line.starts_with("-A ")).for_each(|line| line.hash(&mut hasher));
    }
    if ipset {
        let failed = |source| XtablesError::Sets { action: "read", source };
        let text = look(until, "ipset", &["list", "-t"]).map_err(failed)?;
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

/// Changes a set: new members come before old ones go, unless there is no room for both.
pub(super) fn change_set(
    set: IpSetName,
    create: bool,
    add: &BTreeSet<String>,
    remove: &BTreeSet<String>,
) -> Result<(), XtablesError> {
    let mut new = if create { format!("create {set} {} -exist\n", set.kind()) } else { String::new() };
    new.extend(add.iter().map(|member| format!("add {set} {member} -exist\n")));
    let old: String = remove.iter().map(|member| format!("del {set} {member} -exist\n")).collect();
    let change = |script: String| ipset("change", None, &script).map_err(|error| of_set(set, error));
    match change(format!("{new}{old}")) {
        Err(XtablesError::Full(_)) if !old.is_empty() => change(format!("{old}{new}")),
        done => done,
    }
}

/// An error about one set: that it is full is said of the set. Source: ipset `lib/errcode.c`, `IPSET_ERR_HASH_FULL`.
fn of_set(set: IpSetName, error: XtablesError) -> XtablesError {
    match error {
        XtablesError::Sets { source: CommandError::Failed { stderr, .. }, .. } if stderr.contains("Hash is full") => {
            XtablesError::Full(set)
        }
        error => error,
    }
}

/// Removes a set.
pub(super) fn remove_set(set: IpSetName) -> Result<(), XtablesError> {
    ipset("remove", None, &format!("destroy {set}\n"))
}

/// Has ipset carry out a script, which takes as long as it should; a trial only as long as a look.
fn ipset(action: &'static str, limit: Option<Duration>, script: &str) -> Result<(), XtablesError> {
    let failed = |source| XtablesError::Sets { action, source };
    let (args, script) = (["restore"], script.as_bytes());
    let output = match limit {
        None => command::run("ipset", &args, script),
        Some(limit) => command::run_for(limit, "ipset", &args, script),
    };
    output.map(drop).map_err(failed)
}

/// Which iptables this node's own rules are in, if any.
pub fn in_use() -> Result<Option<Variant>, XtablesError> {
    let names = crate::host::files::read_kernel("/proc/thread-self/net/ip_tables_names".as_ref()).unwrap_or_default();
    // To ask iptables-legacy makes the table, so it is asked only if that is there.
    let is_made = names.lines().any(|name| name == "filter");
    let until = end_of_look();
    for variant in Variant::ALL.into_iter().filter(|variant| is_made || *variant == Variant::Nft) {
        let asked = iptables::IPTables {
            cmd: match variant {
                Variant::Legacy => "iptables-legacy",
                Variant::Nft => "iptables-nft",
            },
            has_check: true,
            // It would wait without a limit; that somebody holds the lock tells enough.
            has_wait: false,
            is_numeric: false,
        };
        let limit = until.saturating_duration_since(Instant::now()).max(LAST_LIMIT);
        let rules = command::within(limit, move || asked.list_table("filter").unwrap_or_default());
        let rules = rules.ok_or(XtablesError::Late(variant))?;
        if rules.iter().any(|rule| rule.starts_with("-A ") && !rule.contains(crate::ruleset::CHAIN)) {
            return Ok(Some(variant));
        }
    }
    Ok(None)
}

/// Which iptables to use where no rules tell: that of the alternatives, which Proxmox VE's firewall sets.
pub fn preferred() -> Result<Variant, XtablesError> {
    if let Some(variant) = in_use()? {
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
        ipset("try", Some(LOOK_LIMIT), &script).is_ok()
    };
    Backend::Iptables { variant, ipset: tried("inet") && (!ipv6 || tried("inet6")), ipv6 }
}

fn has_ipv6() -> bool {
    std::fs::exists("/proc/thread-self/net/if_inet6").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not every kernel has these sets, so what ipset says of a full one stands here.
    #[test]
    fn a_full_set_is_named() {
        let said = |stderr: &str| {
            let script = format!("echo '{stderr}' >&2; exit 1");
            let source = command::run("sh", &["-c", &script], b"").unwrap_err();
            let set = IpSetName::all().next().unwrap();
            of_set(set, XtablesError::Sets { action: "change", source })
        };
        let full = said("ipset v7.17: Error in line 1: Hash is full, cannot add more elements");
        assert_eq!(full.to_string(), "the set `pve-public-ip-from4` of ipset is full");
        assert!(full.hint().starts_with("`pve-public-ip apply` takes out what somebody else put into it"));
        let other = said("ipset v7.17: Kernel error received: set type not supported");
        assert_eq!(other.to_string(), "cannot change the sets of ipset");
    }
}
