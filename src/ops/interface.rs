//! What a guest's NIC may do besides using its addresses.

use std::collections::BTreeSet;

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::Serialize;

use super::assign::own_addresses;
use super::{Done, change, follow, told};
use crate::model::{MacAddr, NicId, Subject, Vmid};
use crate::reconcile::Node;
use crate::registry::document::Interface;
use crate::request::SetInterface;
use crate::system::routers;

/// What a NIC may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InterfaceSet {
    /// The guest.
    pub vmid: Vmid,
    /// Its NIC.
    pub interface: NicId,
    /// Whether something is another than before.
    pub changed: bool,
    /// What it may do, and what it holds.
    pub options: Interface,
}

/// Changes it.
pub fn set_interface(
    node: &Node,
    request: SetInterface,
    dry_run: bool,
) -> Result<Done<InterfaceSet>, crate::model::Problem> {
    let SetInterface { vmid, interface: net, .. } = request;
    let apply = |interface: &mut Interface| {
        let before = interface.clone();
        // What is the default does not stand in the file.
        interface.dhcp = request.dhcp.or(interface.dhcp).filter(|allowed| !allowed);
        interface.any_destination = request.any_destination.unwrap_or(interface.any_destination);
        interface.any_link_local = request.any_link_local.unwrap_or(interface.any_link_local);
        interface.router_advertisements = request.router_advertisements.of(interface.router_advertisements);
        if let Some(link_local) = request.link_local {
            interface.link_local = link_local;
        }
        if let Some(trunk) = request.trunk {
            interface.trunk = trunk;
        }
        if let Some(also) = request.also {
            interface.also = also;
        }
        if let Some(macs) = request.further_macs {
            interface.further_macs = macs;
        }
        if let Some(vrrp) = request.vrrp {
            interface.vrrp = vrrp;
        }
        (before != *interface, interface.clone())
    };
    let (own, routers) = (own_addresses(), routers::load(&node.paths));
    let routers: BTreeSet<MacAddr> = routers.into_iter().flat_map(|router| router.macs).collect();
    let done = change(node, dry_run, |registry| {
        let changed = registry.change_interface(vmid, net, apply)?;
        registry.check_beside(vmid, net, &own, &routers)?;
        Ok(changed)
    })
    .with_context(|| format!("cannot change guest {vmid}"));
    let (changed, options) = told(done)?;
    let answer = InterfaceSet { vmid, interface: net, changed, options };
    Ok(follow::follow(node, dry_run, &Subject::Guest(vmid), answer))
}
