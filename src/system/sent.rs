//! What ports of bridges send, by a table of its own that drops nothing and goes with its process, however that ends.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::netlink::{attribute, text};
use super::nftables::{FilterError, Nftables};
use crate::host::command::{self, CommandError, LastAct};
use crate::model::{IfName, MacAddr};
use crate::plan::traces::{Place, Trace, Traces, Who};
use crate::ruleset::Table;

/// The table, which `sent.nft` declares.
const NAME: &str = "pve-public-ip-watch";
/// Also if it is gone already, by `nft flush ruleset`.
const REMOVAL: &str = "add table bridge pve-public-ip-watch\ndelete table bridge pve-public-ip-watch\n";

const ELEMENT_KEY: u16 = 1;
const DATA_VALUE: u16 = 1;

/// Why nobody can say what the ports send.
#[derive(Debug, thiserror::Error)]
pub enum SentError {
    /// `nft` does not take the table.
    #[error("cannot watch the ports of the bridges")]
    Nft(#[from] CommandError),
    /// Somebody has removed the table meanwhile.
    #[error("another program has removed the table `{NAME}` while it watched the ports: what they sent is not known")]
    Gone,
    /// The kernel does not tell.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

/// Ports that are watched, as long as this value lives.
#[derive(Debug)]
pub struct Watched {
    nftables: Nftables,
    _removal: LastAct,
}

impl Watched {
    /// Begins, in this network namespace. What a command left that was killed before it could say what comes last goes first.
    pub fn begin() -> Result<Self, SentError> {
        let nftables = Nftables::open()?;
        let removal = command::at_the_end("nft", &["-f", "-"], REMOVAL.as_bytes())?;
        command::run("nft", &["-f", "-"], [REMOVAL, include_str!("sent.nft")].concat().as_bytes())?;
        Ok(Self { nftables, _removal: removal })
    }

    /// What they have sent until now.
    pub fn read(&mut self) -> Result<Traces, SentError> {
        if self.nftables.dump_elements(Table::Bridge, NAME, "begun")?.is_empty() {
            return Err(SentError::Gone);
        }
        let mut traces = Traces::default();
        let sets = [
            ("claims4", Place::Arp),
            ("claims6", Place::Discovery),
            ("sources4", Place::Packets),
            ("sources6", Place::Packets),
        ];
        for (set, place) in sets {
            let items = self.nftables.dump_elements(Table::Bridge, NAME, set)?;
            traces.all.extend(items.iter().filter_map(|item| trace(item, place)));
        }
        let overfull = self.nftables.dump_elements(Table::Bridge, NAME, "overfull")?;
        traces.overfull = overfull.iter().filter_map(|item| port(key(item)?)).collect::<BTreeSet<_>>();
        Ok(traces)
    }
}

fn key(item: &[u8]) -> Option<&[u8]> {
    attribute(attribute(item, ELEMENT_KEY)?, DATA_VALUE)
}

fn port(key: &[u8]) -> Option<IfName> {
    text(key.get(..16)?).parse().ok()
}

/// Name of a port, MAC and address, each filled up to units of four bytes.
fn trace(item: &[u8], place: Place) -> Option<Trace> {
    let key = key(item)?;
    let mac = <[u8; 6]>::try_from(key.get(16..22)?).ok().map(MacAddr::from_octets)?;
    let address = key.get(24..)?;
    let four = || <[u8; 4]>::try_from(address).ok().map(IpAddr::from);
    let address = four().or_else(|| <[u8; 16]>::try_from(address).ok().map(IpAddr::from))?;
    Some(Trace { who: Who::Sender(port(key)?, mac), address, place })
}
