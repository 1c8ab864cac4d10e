//! Which program judges what comes in by a guest's port, before the bridge has it.
//!
//! The programs see what no rule of nftables sees: what a frame leaves to the node to do (`bpf/port.c`).

use std::collections::BTreeMap;

use super::{Inputs, NetState, is_idle};
use crate::links::{is_guest_port, is_test_port};
use crate::model::IfName;
use crate::registry::document::{Enforce, Pool, PortProgramUse};
use crate::ruleset::{Element, SetId};

/// What judges at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortProgram {
    /// For a port with bound addresses: frames to the bridge's own groups go nowhere.
    Bound,
    /// For any other guest's.
    Other,
}

impl PortProgram {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Bound, Self::Other];
}

/// A guest's port, and what is to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortWish {
    /// Its number: a port that was made anew has another one, and no program.
    pub index: u32,
    /// The program; none: what is there of ours goes.
    pub program: Option<PortProgram>,
}

/// What is to be at the guests' ports of a node whose desired state is `desired`.
///
/// Only a guest's own device has one (`tap100i0`, `veth100i0`): what comes by the NIC firewall's pair has passed it. Where no
/// pool is enforced nothing is dropped.
pub fn port_programs(inputs: &Inputs, desired: &NetState) -> BTreeMap<IfName, PortWish> {
    let registry = &inputs.registry;
    let choice = registry.node.as_ref().and_then(|node| node.port_program).unwrap_or_default();
    // Pools that cannot be read may be enforced.
    let is_enforced = |pool: &Pool| pool.enforce() == Enforce::On;
    let is_loose = registry.lost_pools.is_none() && !registry.pools.pools.values().any(is_enforced);
    let is_off = choice == PortProgramUse::Off || is_idle(registry) || is_loose;
    let is_device = |name: &str| name.starts_with("tap") || name.starts_with("veth");
    let ports = inputs.links.0.iter().filter(|(name, link)| {
        link.master.is_some()
            && is_device(name.as_str())
            && is_guest_port(name.as_str())
            && !is_test_port(name.as_str())
    });
    let wish = |name: &IfName| {
        let has = |set| desired.elements.contains(&Element::port(set, *name));
        let program =
            if has(SetId::Ports) && !has(SetId::WatchedBound) { PortProgram::Bound } else { PortProgram::Other };
        (!is_off).then_some(program)
    };
    ports.map(|(name, link)| (*name, PortWish { index: link.index, program: wish(name) })).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;
    use crate::plan::{Presence, desired};
    use crate::registry::document::NodeFile;

    fn wishes(inputs: &Inputs) -> Vec<(String, Option<PortProgram>)> {
        let state = desired(inputs).state;
        port_programs(inputs, &state).into_iter().map(|(name, wish)| (name.to_string(), wish.program)).collect()
    }

    #[test]
    fn bound_ports_have_another_program_than_the_rest() {
        let mut inputs = fixtures::inputs(Some(Presence::Running), &[fixtures::OWN]);
        let tap = inputs.links.0[&"tap100i0".parse().unwrap()].clone();
        inputs.links.0.insert("veth999i0".parse().unwrap(), tap.clone());
        inputs.links.0.insert("fwln999o0".parse().unwrap(), tap.clone());
        inputs.links.0.insert("tap998i0".parse().unwrap(), crate::links::Link { master: None, ..tap });
        let expected =
            [("tap100i0".to_owned(), Some(PortProgram::Bound)), ("veth999i0".to_owned(), Some(PortProgram::Other))];
        assert_eq!(wishes(&inputs), expected);
        let off = NodeFile { version: 1, port_program: Some(PortProgramUse::Off), ..NodeFile::default() };
        inputs.registry.node = Some(off);
        assert_eq!(wishes(&inputs), [("tap100i0".to_owned(), None), ("veth999i0".to_owned(), None)]);
    }

    #[test]
    fn where_nothing_is_enforced_nothing_is_dropped() {
        let mut inputs = fixtures::inputs(Some(Presence::Running), &[fixtures::OWN]);
        for pool in inputs.registry.pools.pools.values_mut() {
            pool.enforce = Some(Enforce::Watch);
        }
        assert!(wishes(&inputs).iter().all(|(_, program)| program.is_none()), "{:?}", wishes(&inputs));
    }
}
