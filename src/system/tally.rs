//! What the rules have counted: dropped frames by reason and by port, and MACs that the provider does not know.
//!
//! Source of the message layouts: Linux `include/uapi/linux/netfilter/nf_tables.h`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::netlink::{attribute, text};
use super::nftables::{FilterError, Nftables};
use crate::links::is_test_port;
use crate::model::{IfName, MacAddr};
use crate::ruleset::{TABLE, Table};

const GET_OBJECT: u16 = 10 << 8 | 19;
const OBJECT_TABLE: u16 = 1;
const OBJECT_NAME: u16 = 2;
const OBJECT_DATA: u16 = 4;

const ELEMENT_KEY: u16 = 1;
const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENT_EXPIRATION: u16 = 5;
/// Timeout of the sets that the rules fill, as `sets.nft` has it, in milliseconds.
const KEPT: u64 = 86_400_000;

const ELEMENT_EXPRESSION: u16 = 7;
const DATA_VALUE: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;

/// Frames and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Count {
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// An entry of a set that the rules fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The port that the frames came from.
    pub port: IfName,
    /// Their source MAC, in the set of MACs that the provider does not know.
    pub mac: Option<MacAddr>,
    /// How many.
    pub count: Count,
    /// How long ago the entry was renewed: by the last frame of a port, by the first one of a MAC that the provider does not
    /// know.
    pub age: Duration,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tallies {
    /// By reason, since the table was made.
    pub reasons: BTreeMap<&'static str, Count>,
    /// By reason and port; an entry goes a day after its last frame.
    pub ports: Vec<(&'static str, Entry)>,
    /// MACs that the provider does not know.
    pub unregistered: Vec<Entry>,
    /// Where to what would be dropped wants to go, if its pool were enforced.
    pub destinations: Vec<(IpAddr, Entry)>,
}

impl Nftables {
    /// Reads the counters; all of them are zero if there is no table.
    pub fn tallies(&mut self) -> Result<Tallies, FilterError> {
        let mut tallies = Tallies::default();
        for table in Table::ALL {
            let mut found: BTreeMap<String, Count> = BTreeMap::new();
            for frame in self.dump(table, GET_OBJECT, &[(OBJECT_TABLE, TABLE)], "list the counters")? {
                if let (Some(name), Some(data)) = (attribute(&frame, OBJECT_NAME), attribute(&frame, OBJECT_DATA)) {
                    found.insert(text(name).to_owned(), count(data));
                }
            }
            for (reason, _) in table.reasons() {
                tallies.reasons.insert(reason, found.get(reason).copied().unwrap_or_default());
                let entries = self.entries(table, &format!("{reason}_by"))?;
                tallies.ports.extend(entries.into_iter().map(|entry| (reason, entry)));
            }
        }
        tallies.unregistered = self.entries(Table::Bridge, "unregistered")?;
        for set in ["watched_to4", "watched_to6"] {
            let items = self.dump_raw(Table::Bridge, set)?;
            tallies.destinations.extend(items.iter().filter_map(|item| Some((destination(item)?, entry(item)?))));
        }
        Ok(tallies)
    }

    fn entries(&mut self, table: Table, set: &str) -> Result<Vec<Entry>, FilterError> {
        let entries = self.dump_raw(table, set)?.into_iter().filter_map(|item| entry(&item));
        // Nobody is to be alarmed by our own attacks.
        Ok(entries.filter(|entry| !is_test_port(entry.port.as_str())).collect())
    }
}

/// The address behind the port in a key.
fn destination(item: &[u8]) -> Option<IpAddr> {
    let key = attribute(attribute(item, ELEMENT_KEY)?, DATA_VALUE)?;
    let four = || <[u8; 4]>::try_from(key.get(16..)?).ok().map(IpAddr::from);
    four().or_else(|| <[u8; 16]>::try_from(key.get(16..)?).ok().map(IpAddr::from))
}

fn entry(item: &[u8]) -> Option<Entry> {
    let key = attribute(attribute(item, ELEMENT_KEY)?, DATA_VALUE)?;
    let port = text(key.get(..16)?).parse().ok()?;
    let mac = key.get(16..22).and_then(|octets| <[u8; 6]>::try_from(octets).ok()).map(MacAddr::from_octets);
    let counter = attribute(item, ELEMENT_EXPRESSION).and_then(|expression| attribute(expression, EXPRESSION_DATA));
    let milliseconds = |kind| attribute(item, kind).map(number);
    // The kernel does not tell a timeout that is the set's own.
    let timeout = milliseconds(ELEMENT_TIMEOUT).unwrap_or(KEPT);
    let age = milliseconds(ELEMENT_EXPIRATION).map_or(0, |left| timeout.saturating_sub(left));
    Some(Entry { port, mac, count: counter.map(count).unwrap_or_default(), age: Duration::from_millis(age) })
}

fn count(data: &[u8]) -> Count {
    let value = |kind| attribute(data, kind).map(number).unwrap_or_default();
    Count { packets: value(COUNTER_PACKETS), bytes: value(COUNTER_BYTES) }
}

/// 64 bits in network order.
fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |eight| u64::from_be_bytes(*eight))
}
