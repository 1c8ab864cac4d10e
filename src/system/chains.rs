//! What others have in nf_tables that frames and packets pass, beside our own table.
//!
//! Source of the message layouts: Linux `include/uapi/linux/netfilter/nf_tables.h`.

use std::collections::BTreeSet;

use super::netlink::{attribute, attributes, text};
use super::nftables::{FilterError, GET_CHAIN, GET_RULE, Nftables};
use crate::host::command::{self, CommandError};
use crate::ruleset::BaseChain;
use crate::ruleset::TABLE;

/// In a request: of every family.
const ANY_FAMILY: [u8; 4] = [0; 4];

/// In rules and chains alike.
const OF_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
/// `NF_DROP`, as policy and as verdict.
const DROP: [u8; 4] = [0; 4];

/// The base chains that this program did not make.
pub fn foreign_chains() -> Result<Vec<BaseChain>, FilterError> {
    let mut nftables = Nftables::open()?;
    let rules = nftables.dump_of(ANY_FAMILY, GET_RULE, &[], "list the rules")?;
    let dropping: BTreeSet<(u8, &str)> = rules.iter().filter(|rule| drops(rule)).filter_map(|rule| of(rule)).collect();
    let chains = nftables.dump_of(ANY_FAMILY, GET_CHAIN, &[], "list the chains")?;
    Ok(chains.iter().filter_map(|chain| base_chain(chain, &dropping)).collect())
}

/// What forwards and drops by policy in the older iptables, which Proxmox VE uses. It is asked only where its table is in
/// use: to ask would put it to use.
pub fn legacy_chains() -> Result<Vec<BaseChain>, CommandError> {
    let mut found = Vec::new();
    for (family, tables) in [("ip", "/proc/net/ip_tables_names"), ("ip6", "/proc/net/ip6_tables_names")] {
        let used = crate::host::files::read_kernel(tables.as_ref()).unwrap_or_default();
        if used.lines().any(|table| table == "filter") {
            let rules = command::run_within(2, &format!("{family}tables-legacy"), &["-S", "FORWARD"])?;
            if drops_by_policy(&String::from_utf8_lossy(&rules)) {
                let (table, name) = ("filter".to_owned(), "FORWARD".to_owned());
                found.push(BaseChain {
                    family,
                    table,
                    name,
                    hook: "forward",
                    drops: true,
                    table_drops: false,
                    legacy: true,
                });
            }
        }
    }
    Ok(found)
}

/// By what `iptables -S FORWARD` prints.
fn drops_by_policy(rules: &str) -> bool {
    rules.lines().any(|line| line == "-P FORWARD DROP")
}

/// Family and table.
fn of(object: &[u8]) -> Option<(u8, &str)> {
    Some((*object.first()?, text(attribute(object.get(4..)?, OF_TABLE)?)))
}

fn base_chain(chain: &[u8], dropping: &BTreeSet<(u8, &str)>) -> Option<BaseChain> {
    let (family, table) = of(chain)?;
    // Ours, a copy that stands in for it, and the fence.
    if table.starts_with(TABLE) {
        return None;
    }
    let rest = chain.get(4..)?;
    let number = attribute(attribute(rest, CHAIN_HOOK)?, HOOK_NUMBER)?.last()?;
    let family_name = match family {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "another family",
    };
    let hooks = ["prerouting", "input", "forward", "output", "postrouting"];
    Some(BaseChain {
        family: family_name,
        table: table.to_owned(),
        name: text(attribute(rest, CHAIN_NAME)?).to_owned(),
        // The families without a way through the node count from another zero.
        hook: hooks.get(usize::from(*number)).filter(|_| !matches!(family, 3 | 5)).unwrap_or(&"another hook"),
        drops: attribute(rest, CHAIN_POLICY) == Some(&DROP),
        table_drops: dropping.contains(&(family, table)),
        legacy: false,
    })
}

/// Whether the rule drops or rejects, by itself and not by way of a map.
fn drops(rule: &[u8]) -> bool {
    let expressions = rule.get(4..).and_then(|rest| attribute(rest, RULE_EXPRESSIONS)).unwrap_or_default();
    attributes(expressions).any(|(_, expression)| {
        let data = attribute(expression, EXPRESSION_DATA).unwrap_or_default();
        match attribute(expression, EXPRESSION_NAME).map(text) {
            Some("reject") => true,
            Some("immediate") => {
                let verdict = attribute(data, IMMEDIATE_DATA).and_then(|data| attribute(data, DATA_VERDICT));
                verdict.and_then(|verdict| attribute(verdict, VERDICT_CODE)) == Some(&DROP)
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_no_rule() {
        assert!(drops_by_policy("-P FORWARD DROP\n-A FORWARD -j PVEFW-FORWARD\n"));
        assert!(!drops_by_policy("-P FORWARD ACCEPT\n-A FORWARD -j DROP\n"));
    }
}
