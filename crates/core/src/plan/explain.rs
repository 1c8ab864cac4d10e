//! What the oracle has to be told of this node: whose ports they are, and what is protected. Made of the inputs alone, so
//! that its verdicts are not a second reading of the rules.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::desired::{broadcasts, infrastructure_addresses};
use super::guest_share::{hears_advertisements, own_nets, shared_elsewhere};
use super::inputs::{Inputs, Presence};
use super::routers;
use super::segments::{Places, pool_bridges, segments};
use super::unbound::{Unbound, other_ports, unbound_kinds};
use super::uplink_guard::{bridge_guard, registered_macs};
use super::uplinks::is_uplink_name;
use super::watch;
use crate::links::{guest_of_port, is_guest_port};
use crate::model::{IfName, Prefix, Vmid};
use crate::oracle::{Bindings, BoundPort, Holdings, Judgement, PortRole, delivery, verdict};
use crate::registry::document::{Enforce, Interface, UplinkGuard};

/// The node with all pools that its filter speaks of, and without those that are only watched.
#[derive(Debug)]
pub struct Judge {
    with: Inputs,
    with_all: Bindings,
    /// `None`: all of them are enforced.
    without: Option<(Inputs, Bindings)>,
}

/// What a port is, with all pools and without those that are only watched.
#[derive(Debug, Clone)]
pub struct Roles {
    /// With all.
    pub with: PortRole,
    /// Without.
    without: PortRole,
}

impl Judge {
    /// Of this node.
    pub fn of(inputs: &Inputs) -> Self {
        let with = watch::limited(inputs, Enforce::Watch).unwrap_or_else(|| inputs.clone());
        let without = watch::limited(inputs, Enforce::On).map(|limited| {
            let bindings = bindings(&limited);
            (limited, bindings)
        });
        Self { with_all: bindings(&with), with, without }
    }

    /// Whether no frame is dropped because of a pool.
    fn is_nothing_enforced(&self) -> bool {
        self.without.as_ref().is_some_and(|(limited, _)| watch::is_nothing(&limited.registry))
    }

    fn roles_by(&self, role: impl Fn(&Inputs) -> PortRole) -> Roles {
        let with = role(&self.with);
        let without = match &self.without {
            // Then no rule applies to anybody.
            Some(_) if self.is_nothing_enforced() => PortRole::Free,
            Some((limited, _)) => role(limited),
            None => with.clone(),
        };
        Roles { with, without }
    }

    /// What a port is.
    pub fn roles(&self, port: IfName) -> Roles {
        self.roles_by(|inputs| role(inputs, port))
    }

    /// What the port of a guest will be that has assignments and does not run; and whose it is.
    pub fn roles_when_started(&self, port: IfName) -> Option<(Vmid, Roles)> {
        let (vmid, _) = role_when_started(&self.with, port)?;
        let role =
            |inputs: &Inputs| role_when_started(inputs, port).map_or_else(|| role(inputs, port), |(_, role)| role);
        Some((vmid, self.roles_by(role)))
    }

    /// What becomes of a frame that comes in by a port.
    pub fn sent(&self, frame: &[u8], from: &Roles) -> Judgement {
        let with = verdict(frame, &from.with, &self.with_all);
        match &self.without {
            Some((_, bindings)) => Judgement::of(with, verdict(frame, &from.without, bindings)),
            None => Judgement { verdict: with, watched: None },
        }
    }

    /// What becomes of one that has passed there, and leaves by another.
    pub fn delivered(&self, frame: &[u8], from: &Roles, to: &Roles) -> Judgement {
        let with = delivery(frame, &from.with, &to.with, &self.with_all);
        match &self.without {
            Some((_, bindings)) => Judgement::of(with, delivery(frame, &from.without, &to.without, bindings)),
            None => Judgement { verdict: with, watched: None },
        }
    }
}

/// Everything that is protected on the node.
pub fn bindings(inputs: &Inputs) -> Bindings {
    let pools = &inputs.registry.pools.pools;
    let bridges = pool_bridges(&inputs.registry);
    let segments = segments(inputs, &bridges);
    let elsewhere = shared_elsewhere(inputs);
    let mut bound = Holdings::default();
    for (vmid, presence) in &inputs.presence {
        let Some(guest) = inputs.registry.guests.get(vmid).filter(|_| *presence != Presence::Incoming) else {
            continue;
        };
        for interface in guest.interfaces.values() {
            bound.macs.extend(interface.own_macs());
            bound.nets.extend(own_nets(interface).into_iter().filter(|net| !elsewhere.contains(net)));
        }
    }
    let mut infrastructure = Holdings::default();
    let links = segments.iter().filter_map(|bridge| inputs.links.get(*bridge)?.mac);
    let learnt = routers::protected(inputs);
    let named = pools.values().filter_map(|pool| pool.gateway_mac);
    let returning: BTreeSet<_> = named.chain(learnt.macs.iter().map(|(mac, _)| *mac)).collect();
    infrastructure.macs.extend(links.filter(|mac| mac.octets() != [0; 6]).chain(returning.iter().copied()));
    infrastructure.nets.extend(infrastructure_addresses(inputs, &segments, &learnt).into_iter().map(IpNet::from));

    let entries = || pools.values().flat_map(|pool| &pool.addresses);
    let assignments = || inputs.registry.assignments();
    let owned = entries().map(|entry| entry.address).chain(assignments().map(|(.., assigned)| assigned.address));
    let macs = entries()
        .filter_map(|entry| entry.mac)
        .chain(assignments().flat_map(|(.., interface, _)| interface.all_macs()));
    let reserved = Holdings { macs: macs.collect(), nets: owned.map(Prefix::net).collect() };
    let guarded = bridges.iter().any(|bridge| bridge_guard(&inputs.registry, *bridge) == UplinkGuard::Enforce);
    let registered = guarded.then(|| registered_macs(&inputs.registry).into_iter().map(|(_, mac)| mac).collect());
    let broadcasts = broadcasts(inputs, &segments);
    Bindings { bound, infrastructure, reserved, returning, registered, broadcasts }
}

/// What the port of a guest will be that has assignments and does not run: bound, as if it did; and whose it is.
pub fn role_when_started(inputs: &Inputs, port: IfName) -> Option<(Vmid, PortRole)> {
    let (vmid, place) = guest_of_port(port).and_then(|vmid| Some((vmid, inputs.guests.get(&vmid)?)))?;
    if inputs.presence.contains_key(&vmid) || place.node != inputs.node {
        return None;
    }
    let guest = inputs.registry.guests.get(&vmid)?;
    let (_, interface) = guest.interfaces.iter().find(|(id, _)| place.config.kind.port(vmid, **id) == port)?;
    Some((vmid, bound(inputs, interface)))
}

fn bound(inputs: &Inputs, interface: &Interface) -> PortRole {
    PortRole::Bound(BoundPort {
        mac: interface.mac,
        further_macs: interface.all_macs().skip(1).collect(),
        also: interface.also.iter().map(|prefix| prefix.net()).collect(),
        own: own_nets(interface).into_iter().collect(),
        dhcp: interface.dhcp != Some(false),
        any_link_local: interface.any_link_local,
        trunk: interface.trunk.clone(),
        strict: !interface.any_destination,
        advertisements: hears_advertisements(&inputs.registry, interface),
    })
}

/// What a port is. One that nobody knows is taken for a guest's without bindings, as the rules do.
pub fn role(inputs: &Inputs, port: IfName) -> PortRole {
    for (vmid, guest) in inputs.registry.guests.iter().filter(|(vmid, _)| inputs.presence.contains_key(vmid)) {
        let Some(place) = inputs.guests.get(vmid) else { continue };
        let found = guest.interfaces.iter().find(|(id, _)| place.config.kind.port(*vmid, **id) == port);
        if let Some((_, interface)) = found {
            return bound(inputs, interface);
        }
    }
    let name = port.as_str();
    if name.starts_with("fwpr") || name.starts_with("fwln") {
        return PortRole::SecondTraversal;
    }
    let bridges = pool_bridges(&inputs.registry);
    let named = inputs.registry.node.as_ref().and_then(|node| node.uplinks.as_ref());
    let by_name = || is_uplink_name(name);
    let on_segment = || {
        let master = inputs.links.get(port).and_then(|link| link.master);
        !is_guest_port(name) && master.is_some_and(|master| segments(inputs, &bridges).contains(&master))
    };
    if named.map_or_else(|| by_name() || on_segment(), |named| named.contains(&port)) {
        return PortRole::Uplink;
    }
    let places = Places::of_pools(inputs);
    if other_ports(inputs, &places).contains(&port) {
        return PortRole::Elsewhere;
    }
    match unbound_kinds(inputs, &places).into_iter().find(|(other, _)| *other == port) {
        Some((_, Some(Unbound::Free))) => PortRole::Free,
        Some((_, Some(Unbound::Elsewhere))) => PortRole::Elsewhere,
        Some((_, Some(Unbound::Router))) => PortRole::Guest { router: true },
        Some((_, None)) | None => PortRole::Guest { router: false },
    }
}
