//! The filter: text that an administrator can read, and the elements that this program puts into its sets.
//!
//! The text never changes with the number of bindings; only sets grow. It is loaded in two halves, so that rules can
//! be replaced under traffic without touching the sets: `sets.nft`, then the elements, then `rules.nft`.

mod chains;
mod element;
mod foreign;
mod routed;

use std::borrow::Cow;
use std::fmt;

pub use chains::{Backend, CHAIN, Chains, IpSetName, IptablesTable, Variant};
pub use element::{Element, Names, SetId, Storage};
pub use foreign::BaseChain;
pub use routed::Routed;

/// The name of both tables.
pub const TABLE: &str = "pve-public-ip";

/// A table of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Of frames, as they enter and leave a bridge.
    Bridge,
    /// Of packets that the node routes or takes: the second line for routed pools.
    Inet,
}

impl Table {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Bridge, Self::Inet];

    /// As `nft` calls it.
    pub fn family(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Inet => "inet",
        }
    }

    /// Declares the table and its sets; harmless when they exist.
    pub fn sets(self) -> &'static str {
        match self {
            Self::Bridge => SETS,
            Self::Inet => include_str!("routed-sets.nft"),
        }
    }

    /// Replaces the rules in one transaction and leaves the sets alone.
    ///
    /// With an nflog group each frame that is dropped, or would be, is sent there too, at most ten of a reason in a second. Not every kernel has
    /// the module for it, and then the rules cannot be loaded: so it stands in them only if it is wanted.
    pub fn rules(self, log_group: Option<u16>) -> Cow<'static, str> {
        let rules = match self {
            Self::Bridge => RULES,
            Self::Inet => include_str!("routed-rules.nft"),
        };
        let Some(group) = log_group else { return Cow::Borrowed(rules) };
        let line = |line: &str| {
            let reason = line.trim().strip_prefix("counter name \"").and_then(|rest| rest.split_once('"'));
            let reason = reason.map(|(reason, _)| reason);
            let log = reason.map(|reason| {
                format!("\t\tlimit rate 10/second burst 20 packets log prefix \"{reason}\" group {group} snaplen 128\n")
            });
            log.unwrap_or_default() + line + "\n"
        };
        Cow::Owned(rules.lines().map(line).collect())
    }

    /// Why it drops, or would drop if the pool were enforced: the name of the counter and what it says.
    pub fn reasons(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let counter =
            |line: &'static str| line.strip_prefix("\tcounter ")?.strip_suffix("\" }")?.split_once(" { comment \"");
        self.sets().lines().filter_map(counter)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {} {TABLE}", self.family())
    }
}

/// The declarations of the bridge table.
pub const SETS: &str = include_str!("sets.nft");

/// The rules of the bridge table.
pub const RULES: &str = include_str!("rules.nft");

/// Whether frames of a reason pass: a pool asks for them only to be counted.
pub fn is_watched(reason: &str) -> bool {
    reason.starts_with("watch_")
}

/// Why the programs at guests' ports drop frames, in the order of their numbers in `bpf/port.c`, which begin with 1.
pub const PORT_REASONS: [(&str, &str); 2] = [
    (
        "drop_offload",
        "guest port: a checksum or segments, left to the node, that are not those of its own transport header",
    ),
    ("drop_group_at_port", "bound port: to a group of the bridge itself (01:80:c2:00:00:0X)"),
];

/// Why frames and packets are dropped, or would be: the name of the counter and what it says.
pub fn reasons() -> impl Iterator<Item = (&'static str, &'static str)> {
    Table::ALL.into_iter().flat_map(Table::reasons).chain(PORT_REASONS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Sets of the text without elements of their own, with whether they take intervals.
    fn declared(table: Table) -> BTreeSet<(String, bool)> {
        let blocks = table.sets().split("\tset ").skip(1).map(|block| block.split("\n\t}").next().unwrap());
        let filled = blocks.filter(|block| !block.contains("elements") && !block.contains("dynamic"));
        filled.map(|block| (block.split(' ').next().unwrap().to_owned(), block.contains("flags interval"))).collect()
    }

    #[test]
    fn the_text_and_the_program_know_the_same_sets() {
        for table in Table::ALL {
            let known = SetId::ALL.iter().filter(|set| set.table() == table);
            let known = known.map(|set| (set.name().to_owned(), set.storage() != Storage::Hash)).collect();
            assert_eq!(declared(table), known);
        }
        let names: BTreeSet<&str> = SetId::ALL.iter().map(|set| set.name()).collect();
        assert_eq!(names.len(), SetId::ALL.len(), "a name is there twice");
    }

    #[test]
    fn every_drop_is_logged_if_that_is_wanted() {
        assert_eq!(Table::Bridge.rules(None), RULES);
        for (table, some) in [(Table::Bridge, "drop_arp"), (Table::Inet, "drop_routed_loop")] {
            let logged = table.rules(Some(7));
            let drops = table.rules(None).lines().filter(|line| line.trim().starts_with("counter name")).count();
            assert_eq!((drops, logged.matches("group 7 snaplen 128").count()), (drops, drops));
            let log = format!("log prefix \"{some}\" group 7 snaplen 128\n\t\tcounter name \"{some}\" drop\n");
            assert!(logged.contains(&log), "{log}");
        }
    }

    #[test]
    fn every_reason_has_a_name_a_sentence_and_a_set() {
        assert_eq!(reasons().next(), Some(("drop_source_mac", "bound port: not its MAC")));
        for table in Table::ALL {
            let found: Vec<_> = table.reasons().collect();
            assert_eq!(found.len(), table.sets().matches("\n\tcounter ").count());
            for (reason, _) in found {
                assert!(table.sets().contains(&format!("\tset {reason}_by {{")), "{reason}");
                let end = format!("counter name \"{reason}\"{}", if is_watched(reason) { "" } else { " drop" });
                assert!(table.rules(None).contains(&end), "{reason}");
            }
        }
    }

    #[test]
    fn rules_name_only_declared_sets_and_leave_them_alone() {
        for table in Table::ALL {
            let names: BTreeSet<&str> =
                table.sets().split("\tset ").skip(1).filter_map(|block| block.split(' ').next()).collect();
            let rules = table.rules(None);
            let code = rules.lines().map(|line| line.split('#').next().unwrap());
            for word in code.clone().flat_map(str::split_whitespace).filter_map(|word| word.strip_prefix('@')) {
                // `@th,0,8` is raw payload.
                assert!(names.contains(word) || word.contains(','), "{word} is not declared for {table}");
            }
            for line in code {
                assert!(!line.contains("delete ") && !line.contains("flush set"), "{line}");
            }
        }
    }

    /// Linux 7 takes another protocol for that of a frame with two tags, or of `PPPoE`, than Linux 6: a rule that asks for it,
    /// or for a header that it lets nftables find, must have read before that the packet is behind one tag at most.
    #[test]
    fn no_rule_depends_on_what_a_kernel_takes_for_the_protocol() {
        use std::collections::BTreeMap;

        const READ: [&str; 7] = [
            "ether type ip ",
            "ether type ip6 ",
            "ether type arp ",
            "ether type 0x8035 ",
            "@ll,128,16 0x0800 ",
            "@ll,128,16 0x86dd ",
            "@ll,128,16 0x0806 ",
        ];
        /// Words that make nftables ask the kernel where a header is.
        const ASKED: [&str; 9] = ["ip ", "ip6 ", "arp ", "icmpv6 ", "exthdr ", "meta l4proto ", "udp ", "@nh,", "@th,"];
        let mut chains: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut name = "";
        for line in RULES.lines().map(|line| line.split('#').next().unwrap().trim()) {
            if let Some(rest) = line.strip_prefix("chain ") {
                name = rest.split(' ').next().unwrap();
            } else if !name.is_empty() && !matches!(line, "" | "}") && !line.starts_with("type filter") {
                chains.entry(name).or_default().push(line);
            }
        }
        assert!(!RULES.lines().any(|line| line.trim_start().starts_with("meta protocol")), "`meta protocol`");
        let is_read = |rule: &str| READ.iter().any(|read| rule.contains(read)) || rule.contains("@ll,128,16 0x8035 ");
        // Chains that a frame of any kind may come to, from the hooks on.
        let mut open: Vec<&str> = vec!["prerouting", "input", "forward"];
        let mut seen = BTreeSet::from(["prerouting", "input", "forward"]);
        while let Some(chain) = open.pop() {
            for rule in &chains[chain] {
                let words: Vec<&str> = rule.split(' ').collect();
                let target = words.iter().position(|word| ["goto", "jump"].contains(word)).map(|at| words[at + 1]);
                if is_read(rule) {
                    continue;
                }
                // Of a frame to the guest's own MAC all else is delivered, too.
                let usual = *rule == r#"oifname . ether daddr . ip daddr @port_ip4 accept comment "the usual case""#;
                let matches = rule.split(" comment ").next().unwrap();
                let bare: Vec<&str> = matches.split(' ').collect();
                let asks = |word: &&str| {
                    let word = word.trim();
                    bare.windows(word.split(' ').count()).enumerate().any(|(at, found)| {
                        let after = at.checked_sub(2).map(|at| bare[at..at + 2].join(" "));
                        // `ether type ip` names the type, and asks nobody.
                        (found.join(" ") == word || word.ends_with(',') && found[0].starts_with(word))
                            && after.as_deref() != Some("ether type")
                    })
                };
                let asked: Vec<&&str> = ASKED.iter().filter(|word| asks(word)).collect();
                assert!(usual || asked.is_empty(), "{chain}: `{rule}` asks for {asked:?} of any frame");
                if let Some(target) = target.filter(|target| seen.insert(*target)) {
                    open.push(target);
                }
            }
        }
        assert!(seen.len() > 40, "{seen:?}");
        let dispatched = chains.keys().filter(|chain| !seen.contains(*chain)).count();
        assert!(dispatched > 40, "{dispatched} chains");
    }

    #[test]
    fn nothing_is_accepted_for_others() {
        let rules = Table::Inet.rules(None);
        let code = rules.lines().map(|line| line.split('#').next().unwrap());
        let accepts = code.filter(|line| line.contains("accept")).collect::<Vec<_>>();
        assert!(accepts.iter().all(|line| line.ends_with("policy accept;")), "{accepts:?}");
        assert_eq!(accepts.len(), 2);
    }
}
