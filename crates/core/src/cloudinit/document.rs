//! The network document, in cloud-init's version 1.
//!
//! Of all that was measured only this form gives a default route with a gateway outside the prefix in every renderer
//! (ifupdown, netplan, networkd, `NetworkManager`, ifcfg): the gateway, and a route to it by way of `0.0.0.0`. Version 2 with
//! `on-link` loses it in all but netplan.
//!
//! It is written by hand, and every word that is not ours is quoted: unquoted, `52:54:00:12:34:56` is a number and `no` a
//! truth value in YAML 1.1, which cloud-init reads.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::{Gateway, Subnet, Wanted, WantedNic};
use crate::registry::document::GuestOs;

/// The document for the `network` part.
pub fn document(wanted: &Wanted, os: GuestOs) -> String {
    let mut text = "version: 1\nconfig:\n".to_owned();
    for nic in wanted.nics.values().filter(|nic| !nic.subnets.is_empty()) {
        put_nic(&mut text, nic, os);
    }
    // NetworkManager's and netplan's renderers read one of the two places each, by their age.
    for nic in wanted.nics.values().filter(|nic| !nic.name_servers.is_empty()) {
        text += "  - type: nameserver\n";
        put_list(&mut text, "    address", &nic.name_servers);
        put_list(&mut text, "    search", &nic.search_domains);
    }
    text
}

fn put_nic(text: &mut String, nic: &WantedNic, os: GuestOs) {
    let _ = writeln!(text, "  - type: physical");
    let _ = writeln!(text, "    name: {}", quoted(&nic.name));
    let _ = writeln!(text, "    mac_address: {}", quoted(&nic.mac.to_string()));
    if let Some(mtu) = nic.mtu {
        let _ = writeln!(text, "    mtu: {mtu}");
    }
    let listens = |subnet: &Subnet| match subnet {
        Subnet::Auto | Subnet::Dhcp6 => true,
        // Without a gateway of ours a router may announce itself.
        Subnet::Static { address, gateway } => address.addr().is_ipv6() && gateway.is_none(),
        Subnet::Dhcp4 => false,
    };
    // What a bound NIC makes up of an announcement would not get out.
    if nic.assigned && !nic.subnets.iter().any(listens) {
        text.push_str("    accept-ra: false\n");
    }
    text.push_str("    subnets:\n");
    for (index, subnet) in nic.subnets.iter().enumerate() {
        match subnet {
            Subnet::Dhcp4 => text.push_str("      - type: dhcp4\n"),
            Subnet::Dhcp6 => text.push_str("      - type: dhcp6\n"),
            Subnet::Auto => text.push_str("      - type: ipv6_slaac\n"),
            Subnet::Static { address, gateway } => {
                text.push_str("      - type: static\n");
                let _ = writeln!(text, "        address: {}", quoted(&address.to_string()));
                if let Some(gateway) = gateway {
                    put_gateway(text, *gateway, os);
                }
            }
        }
        // On a second subnet they would take the place of the first one's in ifcfg.
        if index == 0 {
            put_list(text, "        dns_nameservers", &nic.name_servers);
            put_list(text, "        dns_search", &nic.search_domains);
        }
    }
}

fn put_gateway(text: &mut String, gateway: Gateway, os: GuestOs) {
    let address = gateway.address;
    let _ = writeln!(text, "        gateway: {}", quoted(&address.to_string()));
    if !gateway.outside {
        return;
    }
    let (length, nowhere) = if address.is_ipv4() { (32, "0.0.0.0") } else { (128, "::") };
    if let (GuestOs::Alpine, IpAddr::V4(_)) = (os, address) {
        // The only word for it that ifupdown-ng knows; cloud-init's schema does not.
        let _ = writeln!(text, "        pointopoint: {}", quoted(&address.to_string()));
    }
    text.push_str("        routes:\n");
    let _ = writeln!(text, "          - network: {}", quoted(&format!("{address}/{length}")));
    let _ = writeln!(text, "            gateway: {}", quoted(nowhere));
}

fn put_list<T: ToString>(text: &mut String, key: &str, values: &[T]) {
    if !values.is_empty() {
        let values: Vec<String> = values.iter().map(|value| quoted(&value.to_string())).collect();
        let _ = writeln!(text, "{key}: [{}]", values.join(", "));
    }
}

/// In single quotes nothing has a meaning but the quote itself.
pub(super) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "''"))
}
