//! What stays of ours in a node's network when the program goes.

use std::collections::BTreeMap;

use crate::ruleset::{Element, SetId};

use super::state::{NetState, Rules};

/// How much goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// All of it.
    Nothing,
    /// Everything that holds back others. What binds guests that run, and leads traffic to them, stays until the node boots.
    RunningGuests,
}

/// What should be of what was found.
pub fn left_behind(found: &NetState, leave: Leave) -> NetState {
    if leave == Leave::Nothing {
        return NetState::default();
    }
    let mut elements = found.elements.clone();
    elements.retain(|element| binds_a_port(element.set()));
    if found.rules > Rules::Absent {
        // Bound ports are asked about before: for every other one there is nothing left to hold back.
        elements.insert(Element::uplinks_named(""));
    }
    NetState {
        elements,
        routed_rules: Rules::Absent,
        ipsets: BTreeMap::new(),
        chains: BTreeMap::new(),
        ..found.clone()
    }
}

/// Whether it says what a bound port may do, and nothing about others.
fn binds_a_port(set: SetId) -> bool {
    matches!(
        set,
        SetId::Ports
            | SetId::PortMac
            | SetId::PortLladdr
            | SetId::PortIp4
            | SetId::PortIp6
            | SetId::PortNd
            | SetId::PortIp664
            | SetId::PortNd64
            | SetId::PortNet4
            | SetId::PortNet6
            | SetId::PortNdNet
            | SetId::PortNoDhcp
            | SetId::PortAnyLl
            | SetId::PortStrict
            | SetId::PortNoRa
            | SetId::PortTrunk
            | SetId::BroadcastIp4
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MacAddr;
    use crate::plan::{Step, diff};
    use crate::ruleset::Table;

    fn found() -> NetState {
        let (port, mac): (_, MacAddr) = ("tap100i0".parse().unwrap(), "02:00:00:00:00:64".parse().unwrap());
        let elements = [
            Element::port(SetId::Ports, port),
            Element::mac_on_port(SetId::PortMac, port, mac),
            Element::port(SetId::GuardEnforce, "eno1".parse().unwrap()),
            Element::uplink("eno1".parse().unwrap()),
        ];
        let neighbours = [(("vmbr0".parse().unwrap(), "203.0.113.10".parse().unwrap()), mac)];
        NetState {
            rules: Rules::Loaded,
            routed_rules: Rules::Loaded,
            elements: elements.into(),
            neighbours: neighbours.into(),
            ..NetState::default()
        }
    }

    #[test]
    fn who_runs_stays_bound_and_nobody_else_is_held_back() {
        let found = found();
        let left = left_behind(&found, Leave::RunningGuests);
        let sets: Vec<_> = left.elements.iter().map(Element::set).collect();
        assert_eq!(sets, [SetId::Ports, SetId::PortMac, SetId::Uplinks]);
        assert_eq!((left.rules, left.routed_rules), (Rules::Loaded, Rules::Absent));
        assert_eq!(left.neighbours, found.neighbours);
        let steps = diff(&left, &found);
        assert!(matches!(&steps[..], [Step::ChangeElements { .. }, Step::RemoveTable(Table::Inet)]), "{steps:?}");
        assert_eq!(diff(&left_behind(&left, Leave::RunningGuests), &left), [], "the second time nothing is left to do");
    }

    #[test]
    fn nothing_is_left_and_where_nothing_was_nothing_comes() {
        let steps = diff(&left_behind(&found(), Leave::Nothing), &found());
        let removes = |step: &Step| matches!(step, Step::RemoveTable(_) | Step::RemoveNeighbour(..));
        assert!(steps.len() == 3 && steps.iter().all(removes), "{steps:?}");
        assert_eq!(left_behind(&NetState::default(), Leave::RunningGuests), NetState::default());
    }

    #[test]
    fn every_set_of_bound_ports_is_known_by_its_name() {
        for set in SetId::ALL {
            let named = set.name() == "ports" || set.name().starts_with("port_");
            assert_eq!(binds_a_port(*set), named || *set == SetId::BroadcastIp4, "{}", set.name());
        }
    }
}
