//! `set`: what a guest's NIC may do besides using its addresses.

use std::collections::BTreeSet;

use super::Set;
use super::output::Output;
use crate::ops::{self, InterfaceSet};
use crate::reconcile::Node;
use crate::registry::Edit;
use crate::registry::document::Interface;
use crate::request::SetInterface;

pub(super) fn set(node: &Node, command: Set, dry_run: bool) -> anyhow::Result<Output> {
    let link_local = (!command.link_local.is_empty()).then(|| command.link_local.into_iter().collect());
    let trunk = list(command.trunk, command.no_trunk);
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
        also: list(command.also, command.no_also),
        further_macs: list(command.mac, command.no_mac),
        vrrp: list(command.vrrp, command.no_vrrp),
    };
    let done = ops::set_interface(node, request, dry_run)?;
    let InterfaceSet { vmid, interface, options: now, .. } = &done.answer;
    let verb = if dry_run { "would be changed" } else { "changed" };
    Ok(Output::of(&done, &[format!("guest {vmid} {interface} {verb}: {}", options(now).join(", "))], &[]))
}

/// The list that takes the place of the one before, if one is named or there shall be none.
fn list<T: Ord>(named: Vec<T>, none: bool) -> Option<BTreeSet<T>> {
    (none || !named.is_empty()).then(|| named.into_iter().collect())
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
    if !interface.also.is_empty() {
        words.push(format!("also {}", list(interface.also.iter().map(ToString::to_string).collect())));
    }
    if !interface.further_macs.is_empty() {
        words.push(format!("further MACs {}", list(interface.further_macs.iter().map(ToString::to_string).collect())));
    }
    if !interface.vrrp.is_empty() {
        words.push(format!("virtual routers {}", list(interface.vrrp.iter().map(ToString::to_string).collect())));
    }
    words
}
