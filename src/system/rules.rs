//! Rules of policy routing (`ip rule`): what leads traffic past the routes of the main table, and so past ours.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::netlink::flags::{ACKNOWLEDGE, REQUEST};
use super::netlink::{Builder, NetlinkError, attribute, text};
use super::routing::Routing;
use super::rtnetlink::{AF_INET, AF_INET6, GET_ROUTE, ROUTE_DESTINATION, ROUTE_OUTPUT, TABLE_MAIN, TYPE_LOCAL};
use super::rtnetlink::{family, name_of, octets, read_u32, route};
use crate::links::Links;
use crate::model::IfName;
use crate::plan::{Bypass, Route};

const GET_RULE: u16 = 34;
const RULE_INPUT: u16 = 3;
const RULE_PRIORITY: u16 = 6;
const RULE_TABLE: u16 = 15;
const RULE_OF_VRFS: u16 = 19;
/// The rule has a table looked up, and does not decide by itself.
const TO_TABLE: u8 = 1;
/// Tables that every node has: default, main, local.
const OWN_TABLES: [u32; 3] = [253, TABLE_MAIN as u32, 255];
/// The priority of the main table's rule, unless somebody has moved it.
const MAIN_PRIORITY: u32 = 32766;
/// `FIB_RULE_INVERT`: a rule for all but what it names.
const INVERTED: u32 = 2;
/// What makes a rule one for some packets only, or for some of its table's routes: interfaces, mark, tunnel, the two
/// that suppress, user, protocol, ports, DSCP, flow label. Source: Linux `include/uapi/linux/fib_rules.h`.
const RULE_SELECTORS: [u16; 12] = [RULE_INPUT, 10, 12, 13, 14, 17, 20, 22, 23, 24, 25, 26];

const ROUTE_SOURCE: u16 = 2;
const ROUTE_INPUT: u16 = 3;

/// What matters of a rule.
struct Rule {
    priority: u32,
    table: Option<u32>,
    /// Only what comes in by this interface.
    input: Option<IfName>,
    is_of_vrfs: bool,
    /// It is for every packet, and takes the whole table.
    is_plain: bool,
}

impl Rule {
    fn read(frame: &[u8]) -> Option<Self> {
        let (action, rest) = (*frame.get(7)?, frame.get(12..)?);
        // Lengths of destination and source, and the type of service.
        let is_for_all = frame[1..4] == [0; 3] && read_u32(frame, 8) & INVERTED == 0;
        // The kernel tells of what does not suppress anything, too: as -1.
        let selects = |kind| attribute(rest, kind).is_some_and(|value| value != [0xff; 4]);
        let number = |kind| attribute(rest, kind).map(|bytes| read_u32(bytes, 0));
        Some(Self {
            priority: number(RULE_PRIORITY).unwrap_or(0),
            table: number(RULE_TABLE).or_else(|| Some(frame[4].into())).filter(|_| action == TO_TABLE),
            input: attribute(rest, RULE_INPUT).and_then(|name| text(name).parse().ok()),
            is_of_vrfs: attribute(rest, RULE_OF_VRFS).is_some(),
            is_plain: is_for_all && !RULE_SELECTORS.into_iter().any(selects),
        })
    }

    /// Whether it may lead somewhere else than a node's own tables.
    fn is_extra(&self) -> bool {
        !self.is_of_vrfs && self.table.is_none_or(|table| !OWN_TABLES.contains(&table))
    }
}

impl Routing {
    /// Those of the destinations that a rule leads past their route. Without such rules nothing is looked up.
    pub(super) fn bypassed(
        &mut self,
        links: &Links,
        routes: &BTreeMap<IpNet, Route>,
    ) -> Result<BTreeMap<IpNet, Bypass>, NetlinkError> {
        let mut found = BTreeMap::new();
        for of_family in [AF_INET, AF_INET6] {
            let mut routes = routes.iter().filter(|(net, _)| family(net.addr()) == of_family).peekable();
            if routes.peek().is_none() {
                continue;
            }
            let rules = self.dump(GET_RULE, &route(of_family, 0, 0, 0), "list the rules of routing")?;
            let rules: Vec<Rule> = rules.iter().filter_map(|frame| Rule::read(frame)).collect();
            // The first rule that has the whole main table looked up: there every route of ours is found.
            let main = rules.iter().filter(|rule| rule.table == Some(TABLE_MAIN.into()) && rule.is_plain);
            let main = main.map(|rule| rule.priority).min();
            let goes_before = |rule: &&Rule| rule.is_extra() && main.is_none_or(|main| rule.priority < main);
            let extra: Vec<&Rule> = rules.iter().filter(goes_before).collect();
            if extra.is_empty() && main.is_some() {
                continue;
            }
            let first = extra.iter().map(|rule| rule.priority).min().unwrap_or(MAIN_PRIORITY + 1);
            let mut inputs: Vec<Option<IfName>> = extra.iter().map(|rule| rule.input).collect();
            inputs.push(None);
            inputs.sort_unstable();
            inputs.dedup();
            for (net, wanted) in routes {
                let bypass = inputs.iter().find_map(|from| self.other_way(links, *net, wanted, *from));
                let before = first.saturating_sub(1).max(1);
                found.extend(bypass.map(|(from, device)| (*net, Bypass { from, device, before })));
            }
        }
        Ok(found)
    }

    /// Where what is for a destination goes instead, if it comes in by this interface.
    fn other_way(
        &mut self,
        links: &Links,
        net: IpNet,
        wanted: &Route,
        from: Option<IfName>,
    ) -> Option<(Option<IfName>, Option<IfName>)> {
        // Sent by the node itself; what comes in has some address of the world.
        let input = from
            .map(|from| links.get(from).map(|link| link.index))
            .filter(|_| from.is_some_and(|from| from.as_str() != "lo"));
        let world = if net.addr().is_ipv4() {
            IpAddr::from(Ipv4Addr::new(192, 0, 2, 1))
        } else {
            IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))
        };
        let sequence = self.socket.next_sequence();
        let mut fixed = [0; 12];
        (fixed[0], fixed[1]) = (family(net.addr()), net.max_prefix_len());
        let mut builder = Builder::default();
        builder.message(GET_ROUTE, REQUEST | ACKNOWLEDGE, sequence, &fixed);
        builder.attribute(ROUTE_DESTINATION, &octets(net.addr()));
        match input {
            Some(Some(index)) => {
                builder.attribute(ROUTE_SOURCE, &octets(world)).attribute(ROUTE_INPUT, &index.to_ne_bytes());
            }
            // There is no such interface.
            Some(None) => return None,
            None => {}
        }
        builder.end_message();
        match self.socket.request(builder.bytes(), sequence, "look up a route") {
            Ok(frames) => {
                let frame = &frames.first()?.payload;
                let rest = frame.get(12..).filter(|_| frame[7] != TYPE_LOCAL)?;
                let device = attribute(rest, ROUTE_OUTPUT).and_then(|bytes| name_of(read_u32(bytes, 0)));
                (device != Some(wanted.device)).then_some((from, device))
            }
            // A rule that forbids it. What comes in may be refused for other reasons.
            Err(_) if input.is_none() => Some((None, None)),
            Err(_) => None,
        }
    }
}
