//! Packet filters of this node that are not ours, as their programs print them.

use std::time::Duration;

use crate::host::{command, files};
use crate::ruleset::TABLE;

/// How long one program may take: a list of the Internet's bad addresses can be long.
const LIMIT: Duration = Duration::from_secs(10);

/// The rules of others, with the program that prints them, and what could not be read.
pub fn rules() -> (Vec<(&'static str, String)>, Vec<String>) {
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    let mut look = |name: &'static str, program: &str, args: &[&str]| {
        match command::run_for(LIMIT, program, args, b"") {
            Ok(output) => return Some((name, String::from_utf8_lossy(&output).into_owned())),
            // A program that is not installed has loaded nothing.
            Err(command::CommandError::Start { .. }) => {}
            Err(error) => unread.push(error.to_string()),
        }
        None
    };
    let tables = look("nft", "nft", &["list", "tables"]).map(|(_, text)| text).unwrap_or_default();
    for line in tables.lines() {
        let mut words = line.split_whitespace().skip(1);
        let (Some(family), Some(table)) = (words.next(), words.next()) else { continue };
        if !table.starts_with(TABLE) {
            found.extend(look("nft", "nft", &["list", "table", family, table]));
        }
    }
    // What `nft` shows of these is not all: `physdev` and `mac` are matches of their own.
    if !tables.is_empty() {
        found.extend(look("iptables", "iptables-nft-save", &[]));
        found.extend(look("ip6tables", "ip6tables-nft-save", &[]));
    }
    // To ask these makes their tables, so they are asked only if there are some.
    let names = |file: &str| files::read_kernel(file.as_ref()).unwrap_or_default();
    if !names("/proc/thread-self/net/ip_tables_names").trim().is_empty() {
        found.extend(look("iptables", "iptables-legacy-save", &[]));
    }
    if !names("/proc/thread-self/net/ip6_tables_names").trim().is_empty() {
        found.extend(look("ip6tables", "ip6tables-legacy-save", &[]));
    }
    if names("/proc/modules").lines().any(|line| line.starts_with("ebtable_filter ")) {
        found.extend(look("ebtables", "ebtables-legacy-save", &[]));
    }
    (found, unread)
}
