//! The MAC of a bridge: one without a MAC of its own takes the lowest of its ports'.
//!
//! Source: Linux `net/bridge/br_stp_if.c`, `include/uapi/linux/netdevice.h` (`NET_ADDR_SET`).

use std::collections::BTreeSet;

use super::netlink::flags::{CREATE, REPLACE};
use super::netlink::{NetlinkError, attribute};
use super::routing::{Routing, RoutingError};
use super::rtnetlink::{
    AF_INET, AF_INET6, GET_NEIGHBOUR, LINK_ADDRESS, NEIGHBOUR_DESTINATION, NEIGHBOUR_LLADDR, NEIGHBOUR_PROTOCOL,
    NEW_LINK, NEW_NEIGHBOUR, STATE_PERMANENT, neighbour, read_u16, read_u32,
};
use crate::links::Link;
use crate::links::Links;
use crate::model::IfName;

/// `NTF_EXT_LEARNED`: another program put it there, and looks after it.
const FLAG_EXTERNAL: u8 = 0x10;

/// Which of these bridges keep their MAC. Netlink does not tell; where `/sys` does not either, because it is not that of
/// this network namespace, nothing can be said, and nothing is to be done.
pub(super) fn fixed_macs(links: &Links, bridges: &BTreeSet<IfName>) -> BTreeSet<IfName> {
    let is_fixed = |bridge: &&IfName| links.get(**bridge).and_then(|link| has_own_mac(**bridge, link)).unwrap_or(true);
    bridges.iter().filter(is_fixed).copied().collect()
}

fn has_own_mac(bridge: IfName, link: &Link) -> Option<bool> {
    const SET: &str = "3";
    let read = |file: &str| {
        let text = crate::host::files::read_kernel(format!("/sys/class/net/{bridge}/{file}").as_ref()).ok()?;
        Some(text.trim().to_owned())
    };
    let is_same = read("ifindex")? == link.index.to_string() && read("address")? == link.mac?.to_string();
    if is_same { Some(read("addr_assign_type")? == SET) } else { None }
}

impl Routing {
    /// Gives a bridge the MAC that it has. The kernel takes that for a new one, and forgets all neighbours there; those that
    /// are not its own knowledge are put back.
    pub(super) fn fix_mac(&mut self, bridge: IfName) -> Result<(), RoutingError> {
        let links = self.links_named(&BTreeSet::from([bridge]))?;
        let link = links.get(bridge).ok_or(RoutingError::NoInterface(bridge))?;
        let Some(mac) = link.mac else { return Ok(()) };
        let action = format!("let {bridge} keep its MAC {mac}");
        let neighbours = self.kept_neighbours(link.index)?;
        let mut fixed = [0; 16];
        fixed[4..8].copy_from_slice(&link.index.to_ne_bytes());
        self.change(NEW_LINK, 0, &fixed, &action, |message| {
            message.attribute(LINK_ADDRESS, &mac.octets());
        })?;
        for frame in neighbours {
            let flags = frame[10] & FLAG_EXTERNAL;
            let fixed = neighbour(frame[0], link.index, read_u16(&frame, 8), flags);
            self.change(NEW_NEIGHBOUR, CREATE | REPLACE, &fixed, &action, |message| {
                for kind in [NEIGHBOUR_DESTINATION, NEIGHBOUR_LLADDR, NEIGHBOUR_PROTOCOL] {
                    if let Some(value) = attribute(&frame[12..], kind) {
                        message.attribute(kind, value);
                    }
                }
            })?;
        }
        Ok(())
    }

    /// Neighbours that somebody has set.
    fn kept_neighbours(&mut self, index: u32) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let mut kept = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let frames = self.dump(GET_NEIGHBOUR, &neighbour(family, 0, 0, 0), "list the neighbours")?;
            kept.extend(frames.into_iter().filter(|frame| {
                let is_set =
                    frame.len() >= 12 && (read_u16(frame, 8) & STATE_PERMANENT != 0 || frame[10] & FLAG_EXTERNAL != 0);
                is_set && read_u32(frame, 4) == index
            }));
        }
        Ok(kept)
    }
}
