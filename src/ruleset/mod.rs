//! The filter: text that an administrator can read, and the elements that this program puts into its sets.
//!
//! The text never changes with the number of bindings; only sets grow. It is loaded in two halves, so that rules can
//! be replaced under traffic without touching the sets: `sets.nft`, then the elements, then `rules.nft`.

mod element;

use std::borrow::Cow;

pub use element::{Element, SetId, Storage};

/// The table; `bridge` family.
pub const TABLE: &str = "pve-public-ip";

/// Declares the table and its sets; harmless when they exist.
pub const SETS: &str = include_str!("sets.nft");

/// Replaces the rules in one transaction and leaves the sets alone.
pub const RULES: &str = include_str!("rules.nft");

/// Why frames are dropped: the name of the counter and what it says.
pub fn reasons() -> impl Iterator<Item = (&'static str, &'static str)> {
    SETS.lines().filter_map(|line| line.strip_prefix("\tcounter ")?.strip_suffix("\" }")?.split_once(" { comment \""))
}

/// The rules; with an nflog group each dropped frame is sent there too, at most ten of a reason in a second.
///
/// Not every kernel has the module for it, and then the rules cannot be loaded: so it stands in them only if it is wanted.
pub fn rules(log_group: Option<u16>) -> Cow<'static, str> {
    let Some(group) = log_group else { return Cow::Borrowed(RULES) };
    let line = |line: &str| {
        let reason = line.trim().strip_prefix("counter name \"").and_then(|rest| rest.strip_suffix("\" drop"));
        let log = reason.map(|reason| {
            format!("\t\tlimit rate 10/second burst 20 packets log prefix \"{reason}\" group {group} snaplen 128\n")
        });
        log.unwrap_or_default() + line + "\n"
    };
    Cow::Owned(RULES.lines().map(line).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Sets of the text without elements of their own, with whether they take intervals.
    fn declared() -> BTreeSet<(String, bool)> {
        let blocks = SETS.split("\tset ").skip(1).map(|block| block.split("\n\t}").next().unwrap());
        let filled = blocks.filter(|block| !block.contains("elements") && !block.contains("dynamic"));
        filled.map(|block| (block.split(' ').next().unwrap().to_owned(), block.contains("flags interval"))).collect()
    }

    #[test]
    fn the_text_and_the_program_know_the_same_sets() {
        let known = SetId::ALL.iter().map(|set| (set.name().to_owned(), set.storage() != Storage::Hash)).collect();
        assert_eq!(declared(), known);
    }

    #[test]
    fn every_drop_is_logged_if_that_is_wanted() {
        assert_eq!(rules(None), RULES);
        let logged = rules(Some(7));
        let drops = RULES.lines().filter(|line| line.ends_with("\" drop")).count();
        assert!(drops > 20, "{drops}");
        assert_eq!(logged.matches("group 7 snaplen 128").count(), drops);
        assert!(logged.contains("log prefix \"drop_arp\" group 7 snaplen 128\n\t\tcounter name \"drop_arp\" drop\n"));
    }

    #[test]
    fn every_reason_has_a_name_a_sentence_and_a_set() {
        let found: Vec<_> = reasons().collect();
        assert_eq!(found.len(), SETS.matches("\n\tcounter ").count());
        assert_eq!(found[0], ("drop_source_mac", "bound port: not its MAC"));
        for (reason, _) in found {
            assert!(SETS.contains(&format!("\tset {reason}_by {{")), "{reason}");
            assert!(RULES.contains(&format!("counter name \"{reason}\" drop")), "{reason}");
        }
    }

    #[test]
    fn rules_name_only_declared_sets_and_leave_them_alone() {
        let names: BTreeSet<&str> = SETS.split("\tset ").skip(1).filter_map(|block| block.split(' ').next()).collect();
        let code = RULES.lines().map(|line| line.split('#').next().unwrap());
        for word in code.clone().flat_map(str::split_whitespace).filter_map(|word| word.strip_prefix('@')) {
            // `@th,0,8` is raw payload.
            assert!(names.contains(word) || word.contains(','), "{word} is not declared in sets.nft");
        }
        for line in code {
            assert!(!line.contains("delete ") && !line.contains("flush set"), "{line}");
        }
    }
}
