//! `set`: what a guest's NIC may do besides using its addresses.

use super::Set;
use super::output::Output;
use crate::ops::{self, InterfaceSet};
use crate::reconcile::Node;
use crate::registry::Edit;
use crate::registry::document::Interface;
use crate::request::SetInterface;

pub(super) fn set(node: &Node, command: Set, dry_run: bool) -> anyhow::Result<Output> {
    let link_local = (!command.link_local.is_empty()).then(|| command.link_local.into_iter().collect());
    let trunk = (command.no_trunk || !command.trunk.is_empty()).then(|| command.trunk.into_iter().collect());
    let request = SetInterface {
        vmid: command.vmid,
        interface: command.net,
        dhcp: command.dhcp,
        any_destination: command.any_destination,
        any_link_local: command.any_link_local,
        router_advertisements: command
            .router_advertisements
            .map_or(Edit::Keep, |choice| choice.0.map_or(Edit::Erase, Edit::Set)),
        link_local,
        trunk,
    };
    let done = ops::set_interface(node, request, dry_run)?;
    let InterfaceSet { vmid, interface, options: now, .. } = &done.answer;
    let verb = if dry_run { "would be changed" } else { "changed" };
    Ok(Output::of(&done, &[format!("guest {vmid} {interface} {verb}: {}", options(now).join(", "))], &[]))
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
