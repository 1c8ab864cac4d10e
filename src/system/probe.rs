//! Asks on the network whether somebody has an address.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::packet::{Wire, in_time};
use crate::conflict::routers::{answer, router_solicitation, solicitation};
use crate::conflict::{Asker, claimed, question, questioned};
use crate::model::{IfName, MacAddr};
use crate::plan::{Question, Sighting};

/// How often to ask, because a frame may be lost.
const TIMES: u32 = 3;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);

/// How long to wait for an answer in all. RFC 5227 would have seconds, for hosts that wake up; an administrator waits here.
const LIMIT: Duration = Duration::from_millis(600);

/// Who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Its MAC.
    pub mac: MacAddr,
    /// Whether it only asked for the address, too.
    pub asks: bool,
}

/// Asks for all of the addresses at once, as the station `own` behind `device`. Who answers, or asks for one himself, has it,
/// unless it is another node that asks before it assigns one. The MACs in `known` have a right to.
pub fn ask(
    device: IfName,
    own: MacAddr,
    addresses: &[IpAddr],
    known: &[MacAddr],
) -> io::Result<BTreeMap<IpAddr, Answer>> {
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
                wire.send(&question(own, *address))?;
            }
        }
        let next = if asked < TIMES { PAUSE * asked } else { LIMIT };
        let frame = in_time(wire.as_fd(), next.saturating_sub(elapsed), || wire.receive(&mut buffer))?;
        let Some(frame) = frame else { continue };
        let by = questioned(&frame);
        let Some((mac, address)) = claimed(&frame).filter(|_| by != Some(Asker::Ours)) else { continue };
        if mac != own && !known.contains(&mac) && addresses.contains(&address) {
            found.insert(address, Answer { mac, asks: by.is_some() });
        }
    }
}

/// How long to wait for routers: they put off their answer by up to half a second (RFC 4861 section 6.2.6).
const ROUTERS_LIMIT: Duration = Duration::from_millis(700);

/// Asks by one uplink of a bridge where its routers are. The question does not pass the bridge, so that no guest sees it,
/// and only what comes in by the uplink counts, so that no guest can answer.
///
/// # Errors
///
/// If the uplink has gone or is down, or the caller lacks `CAP_NET_RAW`.
pub fn ask_routers(question: &Question, uplink: IfName) -> io::Result<Vec<Sighting>> {
    let wire = Wire::open(uplink)?;
    let (began, mut asked, mut found) = (Instant::now(), 0, Vec::<Sighting>::new());
    let mut buffer = vec![0; 2048];
    loop {
        let elapsed = began.elapsed();
        let missing =
            || question.addresses.iter().filter(|address| found.iter().all(|sighting| sighting.address != **address));
        if elapsed >= ROUTERS_LIMIT || (!question.solicit && missing().next().is_none()) {
            return Ok(found);
        }
        if asked < TIMES && elapsed >= PAUSE * asked {
            for address in missing() {
                wire.send(&gateway_question(question, *address))?;
            }
            if let (0, true, Some(source)) = (asked, question.solicit, question.link_local) {
                wire.send(&router_solicitation(question.mac, source))?;
            }
            asked += 1;
        }
        let next = if asked < TIMES { PAUSE * asked } else { ROUTERS_LIMIT };
        let frame = in_time(wire.as_fd(), next.saturating_sub(elapsed), || wire.receive_incoming(&mut buffer))?;
        let Some(answer) = frame.and_then(|frame| answer(&frame, question.mac)) else { continue };
        if found.len() < ANSWERS && (answer.advertised.is_some() || question.addresses.contains(&answer.address)) {
            found.extend(answer.macs.into_iter().map(|mac| Sighting {
                bridge: question.bridge,
                address: answer.address,
                mac,
                advertised: answer.advertised.clone(),
            }));
        }
    }
}

/// Answers that are looked at: of more somebody makes them up.
const ANSWERS: usize = 1024;

fn gateway_question(of: &Question, address: IpAddr) -> Vec<u8> {
    match (address, of.link_local) {
        (IpAddr::V6(address), Some(source)) => solicitation(of.mac, source, address),
        _ => question(of.mac, address),
    }
}
