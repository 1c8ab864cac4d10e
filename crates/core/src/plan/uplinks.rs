//! Uplinks: which ports of a bridge lead to the provider.

use std::collections::BTreeSet;

use super::inputs::Inputs;
use crate::code;
use crate::links::{Links, is_guest_port};
use crate::model::{IfName, Problem, Subject};
use crate::ruleset::Element;

/// Names that the kernel and Proxmox VE give to links of the node itself. They are uplinks even if they come after the
/// last `apply` (a new card, a bond that is made anew), because taking the provider for a guest cuts the node off.
const UPLINK_STEMS: [&str; 5] = ["bond", "en", "eth", "team", "vlan"];

/// Whether an interface is named like a link of the node itself.
pub fn is_uplink_name(name: &str) -> bool {
    UPLINK_STEMS.iter().any(|stem| name.starts_with(stem))
}

/// Ports that lead to the provider: those that the administrator named, else what is named like a link of the node, and
/// every other port of a pool's bridge that is not named like a guest's.
pub(super) fn uplink_elements(inputs: &Inputs, segments: &BTreeSet<IfName>) -> BTreeSet<Element> {
    if let Some(named) = inputs.registry.node.as_ref().and_then(|node| node.uplinks.as_ref()) {
        return named.iter().copied().map(Element::uplink).collect();
    }
    let others = present_uplinks(inputs, segments).into_iter().filter(|port| !is_uplink_name(port.as_str()));
    others.map(Element::uplink).chain(UPLINK_STEMS.map(Element::uplinks_named)).collect()
}

/// The uplinks that are plugged into a pool's bridge now.
pub(super) fn present_uplinks(inputs: &Inputs, segments: &BTreeSet<IfName>) -> BTreeSet<IfName> {
    let named = inputs.registry.node.as_ref().and_then(|node| node.uplinks.as_ref());
    let ports = segments.iter().flat_map(|bridge| inputs.links.ports(*bridge));
    let is_uplink = |port: &IfName| named.map_or(!is_guest_port(port.as_str()), |named| named.contains(port));
    ports.filter(is_uplink).collect()
}

/// Whether a bridge may keep the MAC that it has now. To the provider it is the node's, so next to an uplink it has to be
/// that of the uplink; and it may not be kept as long as an uplink may still come, which it does before any guest.
pub(super) fn keeps_mac(inputs: &Inputs, bridge: IfName) -> bool {
    let uplinks = present_uplinks(inputs, &BTreeSet::from([bridge]));
    let is_other = |port: &IfName| uplinks.contains(port) || !is_guest_port(port.as_str());
    let (others, guests): (Vec<IfName>, Vec<IfName>) = inputs.links.ports(bridge).partition(is_other);
    let mac_of = |name: IfName| inputs.links.get(name).and_then(|link| link.mac);
    if others.is_empty() {
        return !guests.is_empty();
    }
    others.into_iter().any(|port| mac_of(port).is_some() && mac_of(port) == mac_of(bridge))
}

/// The uplinks of the bridge that this interface is, or is a VLAN of.
pub(super) fn uplinks_of(inputs: &Inputs, device: IfName) -> BTreeSet<IfName> {
    let base = device.as_str().split_once('.').and_then(|(base, _)| base.parse().ok());
    present_uplinks(inputs, &BTreeSet::from([base.unwrap_or(device)]))
}

/// Interfaces that this node's file names as uplinks, and that are part of something which is no bridge: what comes from the
/// provider comes in by that.
pub(super) fn misnamed_uplinks(inputs: &Inputs) -> Vec<Problem> {
    let named = inputs.registry.node.as_ref().and_then(|node| node.uplinks.as_ref());
    let problem = |uplink: &IfName| {
        let (sentence, hint) = misnamed_uplink(&inputs.links, *uplink)?;
        Some(Problem::new(code!("uplink-misnamed"), Subject::Interface(*uplink), sentence, hint))
    };
    named.into_iter().flatten().filter_map(problem).collect()
}

/// Why an interface cannot be an uplink, and what to name instead; `None`: it is a port of a bridge, or is not there (yet).
pub fn misnamed_uplink(links: &Links, uplink: IfName) -> Option<(String, String)> {
    let master = links.get(uplink)?.master;
    let is_bridge = |name: IfName| links.get(name).is_some_and(|link| link.bridge.is_some());
    if master.is_some_and(is_bridge) {
        return None;
    }
    // A bond, or a VLAN on top of it, may be what is plugged into the bridge.
    let port = std::iter::successors(master, |name| links.get(*name).and_then(|link| link.master));
    let port = port.take(8).find(|name| links.get(*name).and_then(|link| link.master).is_some_and(is_bridge));
    let what = match master {
        Some(master) => format!("{uplink} is part of {master}, and no port of a bridge"),
        None => format!("{uplink} is no port of a bridge"),
    };
    let hint = match port {
        Some(port) => format!("`pve-public-ip node set --uplink {port}`"),
        None => "`pve-public-ip node set --any-uplink` knows the uplinks by their names".to_owned(),
    };
    Some((format!("the uplink {what}: what comes from the provider is not taken for that"), hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::Link;
    use crate::model::MacAddr;
    use crate::plan::desired;
    use crate::plan::fixtures::{OWN, inputs, shown};
    use crate::ruleset::SetId;

    #[test]
    fn a_bridge_keeps_only_a_mac_that_may_be_kept() {
        const UPLINKS: u8 = 1;
        let fixed = |bridge_mac: Option<u8>, ports: &[(&str, u8)], named: Option<&str>| {
            let mut inputs = inputs(None, &[]);
            let name = |text: &str| -> IfName { text.parse().unwrap() };
            let mac = |last| Some(MacAddr::from_octets([2, 0, 0, 0, 0, last]));
            let links = &mut inputs.links.0;
            links.retain(|_, link| link.master.is_none());
            links.get_mut(&name("vmbr0")).unwrap().mac = bridge_mac.and_then(mac);
            for (port, last) in ports {
                let link = Link { master: Some(name("vmbr0")), mac: mac(*last), ..Link::default() };
                links.insert(name(port), link);
            }
            inputs.registry.node = named
                .map(|uplink| serde_json::from_value(serde_json::json!({"version": 1, "uplinks": [uplink]})).unwrap());
            desired(&inputs).state.fixed_macs.contains(&name("vmbr0"))
        };
        let (eno1, eno2, tap) = (("eno1", UPLINKS), ("eno2", 2), ("tap100i0", 9));
        assert!(fixed(Some(UPLINKS), &[eno1, tap], None));
        assert!(fixed(Some(UPLINKS), &[eno1], None), "before any guest comes");
        assert!(fixed(Some(2), &[eno1, eno2], None), "one of its uplinks");
        assert!(!fixed(Some(9), &[eno1, tap], None), "the provider knows the uplink's MAC, not a guest's");
        assert!(!fixed(Some(7), &[], None), "the uplink may be on its way");
        assert!(fixed(Some(9), &[tap], None), "there is none");
        assert!(!fixed(None, &[tap], None));
        assert!(!fixed(Some(9), &[("veth5i0", 3), tap], Some("veth5i0")), "an uplink named like a guest's port");
        assert!(fixed(Some(3), &[("veth5i0", 3), tap], Some("veth5i0")));
    }

    #[test]
    fn uplinks_are_known_by_name_by_place_or_by_decree() {
        let mut inputs = inputs(None, &[OWN]);
        let uplinks = |inputs: &Inputs| shown(&desired(inputs).state, &[SetId::Uplinks]).join(" ");
        assert_eq!(
            uplinks(&inputs),
            "uplinks { bond* } uplinks { en* } uplinks { eth* } uplinks { odd0 } uplinks { team* } uplinks { vlan* }"
        );
        inputs.registry.node = serde_json::from_str(r#"{"version":1,"uplinks":["odd0"]}"#).ok();
        assert_eq!(uplinks(&inputs), "uplinks { odd0 }");
    }
}
