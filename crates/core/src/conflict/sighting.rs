//! What a dropped frame says about who claims what.

use std::net::IpAddr;

use super::{Asker, Claim, Source, claimed, questioned};
use crate::links::is_test_port;
use crate::model::{IfName, MacAddr, Prefix};

/// Who claimed what with a frame that was dropped for `reason`; `None`: nothing that somebody else has.
///
/// From the uplink's side only ARP and neighbour discovery count: a packet from there with a protected source address was
/// perhaps sent by its owner and came back by the provider's router.
pub fn sighted(reason: &str, port: IfName, is_uplink: bool, frame: &[u8]) -> Option<Claim> {
    if is_test_port(port.as_str()) {
        // `verify --active` claims everything, and wants nothing.
        return None;
    }
    let source = if is_uplink { Source::Uplink } else { Source::Guest };
    let question = questioned(frame);
    if is_uplink && question == Some(Asker::Ours) {
        return None;
    }
    let asks = question.is_some();
    let sender = <[u8; 6]>::try_from(frame.get(6..12)?).ok().map(MacAddr::from_octets);
    let claim = match reason {
        "drop_bound_mac" | "drop_reserved_mac" | "drop_source_mac" => {
            Claim { source, port, mac: sender, address: None, asks: false }
        }
        "drop_bound_address" | "drop_reserved_address" | "drop_arp" | "drop_nd" => {
            let of_packet = || Some((sender?, origin(frame).filter(|_| !is_uplink)?));
            let (mac, address) = claimed(frame).or_else(of_packet)?;
            Claim { source, port, mac: Some(mac), address: Some(Prefix::host(address).ok()?), asks }
        }
        _ => return None,
    };
    Some(claim)
}

/// The source address of a packet.
fn origin(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14)? {
        [0x08, 0x00] => <[u8; 4]>::try_from(frame.get(26..30)?).ok().map(IpAddr::from),
        [0x86, 0xdd] => <[u8; 16]>::try_from(frame.get(22..38)?).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announce;

    #[test]
    fn only_who_speaks_for_an_address_claims_it_from_outside() {
        let mac: MacAddr = "02:00:00:aa:bb:cc".parse().unwrap();
        let address = "203.0.113.10".parse().unwrap();
        let arp = announce::frame(mac, address);
        let packet = [&[2; 6][..], &mac.octets(), &[0x08, 0x00], &[0; 12], &[203, 0, 113, 10], &[0; 4]].concat();
        let of = |reason: &str, port: &str, is_uplink: bool, frame: &[u8]| {
            let claim = sighted(reason, port.parse().unwrap(), is_uplink, frame)?;
            Some((claim.source, claim.mac, claim.address.map(|address| address.to_string())))
        };
        let whole = Some("203.0.113.10".to_owned());
        assert_eq!(of("drop_bound_address", "eno1", true, &arp), Some((Source::Uplink, Some(mac), whole.clone())));
        assert_eq!(of("drop_bound_address", "eno1", true, &packet), None);
        assert_eq!(of("drop_bound_address", "tap9i0", false, &packet), Some((Source::Guest, Some(mac), whole)));
        assert_eq!(of("drop_bound_address", crate::links::TEST_PORTS[0], false, &arp), None);
        assert_eq!(of("drop_bound_mac", "eno1", true, &packet), Some((Source::Uplink, Some(mac), None)));
        assert_eq!(of("drop_dhcp_server", "tap9i0", false, &packet), None);
        assert_eq!(of("drop_bound_mac", "tap9i0", false, &[0; 5]), None);
        // Another node asks before it assigns an address. A guest cannot hide behind that.
        let question = crate::conflict::question(mac, address);
        assert_eq!(of("drop_bound_address", "eno1", true, &question), None);
        assert!(of("drop_bound_address", "tap9i0", false, &question).is_some());
    }
}
