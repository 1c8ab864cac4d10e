//! Asks on the network whether somebody has an address.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::packet::{Wire, in_time};
use crate::conflict::{claimed, question};
use crate::model::{IfName, MacAddr};

/// How often to ask, because a frame may be lost.
const TIMES: u32 = 3;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);

/// How long to wait for an answer in all. RFC 5227 would have seconds, for hosts that wake up; an administrator waits here.
const LIMIT: Duration = Duration::from_millis(600);

/// Asks for all of the addresses at once, as the station `mac` behind `device`. Who answers, or asks for one himself, has it.
/// The MACs in `known` have a right to.
pub fn ask(
    device: IfName,
    mac: MacAddr,
    addresses: &[IpAddr],
    known: &[MacAddr],
) -> io::Result<BTreeMap<IpAddr, MacAddr>> {
    let wire = Wire::open(device)?;
    let (began, mut asked, mut found) = (Instant::now(), 0, BTreeMap::new());
    let mut buffer = vec![0; 256];
    loop {
        let elapsed = began.elapsed();
        if elapsed >= LIMIT || found.len() == addresses.len() {
            return Ok(found);
        }
        if asked < TIMES && elapsed >= PAUSE * asked {
            asked += 1;
            for address in addresses.iter().filter(|address| !found.contains_key(*address)) {
                wire.send(&question(mac, *address))?;
            }
        }
        let next = if asked < TIMES { PAUSE * asked } else { LIMIT };
        let frame = in_time(wire.as_fd(), next.saturating_sub(elapsed), || wire.receive(&mut buffer))?;
        let claim = frame.and_then(|frame| claimed(&frame));
        let foreign = claim.filter(|(claimant, _)| *claimant != mac && !known.contains(claimant));
        found.extend(foreign.filter(|(_, address)| addresses.contains(address)).map(|(mac, address)| (address, mac)));
    }
}
