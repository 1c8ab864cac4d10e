//! `set`: what a guest's NIC may do besides using its addresses.

use anyhow::Context as _;
use serde_json::json;

use super::Set;
use super::node::settle;
use super::output::Output;
use super::pools::change;
use crate::reconcile::Node;
use crate::registry::document::Interface;

pub(super) fn set(node: &Node, command: Set, dry_run: bool) -> anyhow::Result<Output> {
    let Set {
        vmid,
        net,
        dhcp,
        any_destination,
        any_link_local,
        router_advertisements,
        link_local,
        trunk,
        no_trunk,
        ..
    } = command;
    let apply = |interface: &mut Interface| {
        // What is the default does not stand in the file.
        interface.dhcp = dhcp.or(interface.dhcp).filter(|allowed| !allowed);
        interface.any_destination = any_destination.unwrap_or(interface.any_destination);
        interface.any_link_local = any_link_local.unwrap_or(interface.any_link_local);
        interface.router_advertisements =
            router_advertisements.map_or(interface.router_advertisements, |choice| choice.0);
        if !link_local.is_empty() {
            interface.link_local = link_local.into_iter().collect();
        }
        if no_trunk || !trunk.is_empty() {
            interface.trunk = trunk.into_iter().collect();
        }
        interface.clone()
    };
    let interface = change(node, dry_run, |registry| registry.change_interface(vmid, net, apply))
        .with_context(|| format!("cannot change guest {vmid}"))?;
    let verb = if dry_run { "would be changed" } else { "changed" };
    let text = format!("guest {vmid} {net} {verb}: {}", options(&interface).join(", "));
    settle(node, dry_run, Output::new(text, json!({ "vmid": vmid, "interface": net, "options": interface })))
}

/// What the NIC may do, in words.
fn options(interface: &Interface) -> Vec<String> {
    let list = |words: Vec<String>| words.join(" ");
    let mut words = vec![
        if interface.dhcp == Some(false) { "DHCP forbidden" } else { "DHCP allowed" }.to_owned(),
        if interface.any_destination { "gets frames for others too" } else { "gets only frames for itself" }.to_owned(),
    ];
    words.extend(interface.router_advertisements.map(|delivered| {
        if delivered { "gets router advertisements" } else { "gets no router advertisements" }.to_owned()
    }));
    words.extend(interface.any_link_local.then(|| "any link-local address".to_owned()));
    if !interface.link_local.is_empty() {
        let addresses = interface.link_local.iter().map(ToString::to_string).collect();
        words.push(format!("link-local {}", list(addresses)));
    }
    if !interface.trunk.is_empty() {
        words.push(format!("trunk of VLANs {}", list(interface.trunk.iter().map(ToString::to_string).collect())));
    }
    words
}
