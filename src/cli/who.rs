//! `who`: one question, "whose is this?", for an address, a prefix, a MAC or a port.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde_json::json;

use super::Who;
use super::list;
use super::output::{Output, table};
use super::partial::{looked, shown_of};
use super::whose::{
    BoundEntry, ConfiguredNic, FormerHolder, HeldAddress, LastHolder, MacAnswer, MacKind, MacState, NearPool,
    NetAnswer, NetKind, NetRange, NetState, PortAnswer, PortKind,
};
use crate::audit::{Holder, Query, holders};
use crate::links::{Links, guest_of_port};
use crate::model::text::escaped;
use crate::model::{IfName, MacAddr, NicId, Prefix, PrefixError, Vmid};
use crate::ops::{observe_links, own_addresses};
use crate::plan::{GuestState, GuestStates, Inputs};
use crate::reconcile::Node;
use crate::registry::document::Released;
use crate::registry::{Holding, Inventory, Registry, Run, Span, State};
use crate::store::journal::now;
use crate::system::routers;

/// What somebody asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// An address or a prefix, whether a guest can have it or not.
    Net(IpNet),
    /// A MAC.
    Mac(MacAddr),
    /// A port of this guest's NIC.
    Port(IfName, Vmid, NicId),
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(mac) = text.parse::<MacAddr>() {
            return Ok(Self::Mac(mac));
        }
        if let Some((port, vmid, nic)) = guest_port(text) {
            return Ok(Self::Port(port, vmid, nic));
        }
        if let Ok(vmid) = text.parse::<Vmid>() {
            return Err(format!("it is the number of a guest; `pve-public-ip show {vmid}` shows its addresses"));
        }
        match text.parse::<Prefix>() {
            Ok(prefix) => Ok(Self::Net(prefix.net())),
            // Nobody can hold it, and that is an answer.
            Err(PrefixError::Reserved(..) | PrefixError::TooLarge(..)) => {
                let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
                net.map(|net| Self::Net(net.trunc())).map_err(|error| error.to_string())
            }
            Err(PrefixError::Malformed(_)) => Err(
                "it is no address, prefix, MAC or port of a guest (203.0.113.10, 2001:db8::/64, 02:00:00:aa:bb:cc, \
                     tap100i0)"
                    .to_owned(),
            ),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Guest and NIC of a port, by its name.
fn guest_port(text: &str) -> Option<(IfName, Vmid, NicId)> {
    let port: IfName = text.parse().ok()?;
    let vmid = guest_of_port(port)?;
    // `fwln100o0` is the other half of `fwln100i0`.
    let digits = text.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    Some((port, vmid, format!("net{digits}").parse().ok()?))
}

pub(super) fn who(node: &Node, command: &Who) -> anyhow::Result<Output> {
    let subject = command.subject;
    let look = looked(node, |registry| registry.assignments().any(|holding| subject.is_of(holding)))?;
    let question = Question {
        node,
        registry: look.registry(),
        inputs: look.sources.inputs(),
        states: look.states(),
        own: own_addresses(),
        links: observe_links().unwrap_or_default(),
    };
    let output = match subject {
        Subject::Net(net) if net.prefix_len() == net.max_prefix_len() => question.address(net.addr()),
        Subject::Net(net) => question.prefix(net),
        Subject::Mac(mac) => question.mac(mac),
        Subject::Port(port, vmid, nic) => question.port(port, vmid, nic),
    };
    Ok(shown_of(&look, output))
}

impl Subject {
    /// Whether an assignment is part of the answer, so that the state of its guest is asked for, too.
    fn is_of(self, (vmid, nic, interface, assigned): Holding<'_>) -> bool {
        match self {
            Self::Net(net) => net.contains(&assigned.address.net()) || assigned.address.net().contains(&net),
            Self::Mac(mac) => interface.mac == mac,
            Self::Port(_, guest, id) => (vmid, nic) == (guest, id),
        }
    }
}

/// What an answer is made of.
struct Question<'a> {
    node: &'a Node,
    registry: &'a Registry,
    inputs: &'a Inputs,
    states: GuestStates<'a>,
    own: Vec<IpNet>,
    links: Links,
}

/// A line each, the second words below each other.
#[derive(Default)]
struct Facts(Vec<(&'static str, String)>);

impl Facts {
    fn add(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, value.into()));
    }

    fn text(&self, heading: &str) -> String {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        let line =
            |(name, value): &(&str, String)| format!("  {:<width$}  {value}\n", format!("{name}:"), width = width + 1);
        format!("{heading}\n{}", self.0.iter().map(line).collect::<String>())
    }
}

impl Question<'_> {
    fn address(&self, address: IpAddr) -> Output {
        let mut facts = Facts::default();
        let mut data = NetAnswer::about(address.to_string(), NetKind::Address);
        let inventory = Inventory::of(self.registry, &self.own, now());
        let prefix = match Prefix::host(address) {
            Ok(prefix) => prefix,
            Err(error) => {
                data.state = Some(NetState::Outside);
                data.reason = Some(error.to_string());
                facts.add("reason", error.to_string());
                return Output::new(facts.text(&format!("{address}: in no pool, nobody can hold it")), json!(data));
            }
        };
        let held: Vec<Holding<'_>> = inventory.holders().overlapping(prefix).collect();
        if !held.is_empty() {
            data.state = Some(NetState::Assigned);
            data.holders = held.iter().map(|holding| self.holder(*holding)).collect();
            let text = held.iter().map(|holding| self.holder_text(&address.to_string(), *holding)).collect::<String>();
            return Output::new(text, json!(data));
        }
        let last = self.last_holder(prefix);
        let found = self.registry.pools.pools.iter().find_map(|(name, pool)| {
            let entry = pool.entry(prefix)?;
            let spans = inventory.spans(pool, entry);
            let span = spans.into_iter().find(|span| (span.first..=span.last).contains(&address))?;
            Some((name, pool, entry, span))
        });
        let Some((name, pool, entry, span)) = found else { return self.outside(address.into(), last, data) };
        let (state, sentence) = match &span.state {
            State::Cooling(_, _, free_at) => {
                data.free_at = Some(*free_at);
                (NetState::Cooling, format!("nobody holds it, cools down until {}", free_at.to_second()))
            }
            State::Withheld(reason) => {
                data.reason = Some(reason.clone());
                (NetState::Reserved, format!("never assigned, it is {reason}"))
            }
            State::Free | State::Held(..) if self.registry.is_partial() => {
                (NetState::Unknown, "no file that can be read has it, and one cannot be read".to_owned())
            }
            State::Free | State::Held(..) => (NetState::Free, "free".to_owned()),
        };
        data.state = Some(state);
        data.pool = Some(name.clone());
        data.mac = entry.mac;
        data.gateway = pool.gateway_of(entry);
        let gateway = pool.gateway_of(entry).map(|gateway| format!(", gateway {gateway}")).unwrap_or_default();
        facts.add("pool", format!("{name} ({}), bridge {}{gateway}", entry.address, pool.bridge));
        if let Some(mac) = entry.mac {
            facts.add("MAC", format!("{mac}, bound to it by the provider"));
        }
        self.add_last_holder(prefix, last, &mut facts, &mut data);
        Output::new(facts.text(&format!("{address}: {sentence}")), json!(data))
    }

    /// Something that no pool has.
    fn outside(&self, net: IpNet, last: Option<Holder>, mut data: NetAnswer) -> Output {
        let mut facts = Facts::default();
        let is_lost = self.registry.lost_pools.is_some();
        data.state = Some(if is_lost { NetState::Unknown } else { NetState::Outside });
        let near = self.registry.nearest(net);
        let near = &near[..near.len().min(NEAREST)];
        let pools = near.iter().map(|near| NearPool {
            pool: near.pool.clone(),
            entry: near.entry,
            distance: near.distance.to_string(),
        });
        data.nearest_pools = Some(pools.collect());
        if self.own.iter().any(|own| net.contains(&own.addr())) {
            facts.add("node", format!("an address of this node, {}", self.node.name));
            data.node = Some(self.node.name.clone());
        }
        for near in near {
            let away = if near.distance < 1 << 16 { format!(", {} away", near.distance) } else { String::new() };
            facts.add("nearest pool", format!("{} ({}{away})", near.pool, near.entry));
        }
        if let Ok(prefix) = net.to_string().parse() {
            self.add_last_holder(prefix, last, &mut facts, &mut data);
        }
        let sentence = if is_lost { "the pools cannot be read" } else { "in no pool" };
        let subject = if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() };
        Output::new(facts.text(&format!("{subject}: {sentence}")), json!(data))
    }

    /// Who held an address last, by this node's audit log.
    fn last_holder(&self, prefix: Prefix) -> Option<Holder> {
        let found = self.node.store.journal.search(&Query { address: Some(prefix), ..Query::default() }, usize::MAX);
        for line in &found.not_searched {
            log::warn!("{line}");
        }
        holders(&found.entries).into_iter().max_by_key(|holder| (holder.until.is_none(), holder.until, holder.from))
    }

    /// The audit log of this node may not know what the registry still remembers, and the other way round.
    fn add_last_holder(&self, prefix: Prefix, last: Option<Holder>, facts: &mut Facts, data: &mut NetAnswer) {
        let released = self.registry.released.addresses.iter().filter(|(released, _)| released.overlaps(prefix));
        let released = released.map(|(_, released)| released).max_by_key(|released| released.at);
        let is_later =
            last.as_ref().is_none_or(|last| last.until.is_some_and(|until| Some(until) < released.map(|it| it.at)));
        if let Some(released) = released.filter(|_| is_later) {
            let Released { vmid, pool, at } = released.clone();
            data.last_holder = Some(LastHolder::Released(FormerHolder { vmid, pool, until: at }));
            data.free_since = Some(at);
            facts.add("last holder", format!("guest {}", released.vmid));
            facts.add("since", released.at.to_second());
            return;
        }
        let Some(last) = last else {
            facts.add("last holder", "none in this node's audit log");
            return;
        };
        let mut text = format!("guest {} {}", last.vmid, last.interface);
        text.extend(last.organization.iter().map(|name| format!(", organization {}", escaped(name))));
        text.extend(last.from.map(|from| format!(", from {}", from.to_second())));
        facts.add("last holder", text);
        match last.until {
            Some(until) => {
                let by = if last.until_at_latest { " at the latest" } else { "" };
                facts.add("since", format!("{}{by}", until.to_second()));
                data.free_since = Some(until);
            }
            None => facts.add("since", "not known: the log has no release"),
        }
        data.last_holder = Some(LastHolder::Logged(last));
    }

    /// All addresses of a prefix, as runs.
    fn prefix(&self, net: IpNet) -> Output {
        let mut data = NetAnswer::about(net.to_string(), NetKind::Prefix);
        let inventory = Inventory::of(self.registry, &self.own, now());
        let mut rows = Vec::new();
        let mut ranges = Vec::new();
        let mut held = Vec::new();
        for (name, pool) in &self.registry.pools.pools {
            for run in inventory.runs(pool, |_| true) {
                let Span { first, last, state } = &run.span;
                let is_family = first.is_ipv4() == net.network().is_ipv4();
                if !is_family || *last < net.network() || *first > net.broadcast() {
                    continue;
                }
                let span = Span {
                    first: (*first).max(net.network()),
                    last: (*last).min(net.broadcast()),
                    state: state.clone(),
                };
                let run = Run { span, ..run };
                let (word, whose) = match state {
                    State::Free if self.registry.is_partial() => (NetState::Unknown, String::new()),
                    State::Free => (NetState::Free, String::new()),
                    State::Held(vmid, nic, prefix) => {
                        held.extend(
                            inventory.holders().overlapping(*prefix).filter(|of| (of.0, of.1) == (*vmid, *nic)),
                        );
                        (NetState::Assigned, format!("{vmid} {nic}"))
                    }
                    State::Cooling(_, released, _) => (NetState::Cooling, format!("was {}'s", released.vmid)),
                    State::Withheld(reason) => (NetState::Reserved, reason.clone()),
                };
                rows.push(vec![
                    list::range(&run),
                    run.span.count().to_string(),
                    word.as_str().to_owned(),
                    whose.clone(),
                    name.to_string(),
                ]);
                ranges.push(NetRange {
                    first: run.span.first,
                    last: run.span.last,
                    count: run.span.count(),
                    state: word,
                    pool: name.clone(),
                    vmid: if let State::Held(vmid, ..) = state { Some(*vmid) } else { None },
                });
            }
        }
        if rows.is_empty() {
            let last = net.to_string().parse().ok().and_then(|prefix| self.last_holder(prefix));
            return self.outside(net, last, data);
        }
        held.dedup_by_key(|holding| (holding.0, holding.1, holding.3.address));
        data.holders = held.into_iter().map(|holding| self.holder(holding)).collect();
        data.ranges = Some(ranges);
        Output::new(table(&["address", "count", "state", "guest", "pool"], &rows), json!(data))
    }

    fn mac(&self, mac: MacAddr) -> Output {
        let mut text = String::new();
        let mut facts = Facts::default();
        let held: Vec<Holding<'_>> =
            self.registry.assignments().filter(|(_, _, interface, _)| interface.mac == mac).collect();
        for holding in &held {
            text += &self.holder_text(&holding.3.address.to_string(), *holding);
        }
        let mut nics = Vec::new();
        for (vmid, located) in self.node.guests.all() {
            let Ok(located) = located else { continue };
            for (nic, found) in &located.config.nics {
                if found.as_ref().is_ok_and(|found| found.mac == Some(mac)) {
                    let name = located.config.name.as_deref().map(|name| format!(" ({})", escaped(name)));
                    let holds =
                        if held.iter().any(|of| (of.0, of.1) == (vmid, *nic)) { "" } else { ", holds no address" };
                    facts.add(
                        "guest",
                        format!("{vmid}{} {nic}, node {}{holds}", name.unwrap_or_default(), located.node),
                    );
                    let (interface, node, name) = (*nic, located.node.clone(), located.config.name.clone());
                    nics.push(ConfiguredNic { vmid, interface, node, name });
                }
            }
        }
        let mut entries = Vec::new();
        for (name, pool) in &self.registry.pools.pools {
            for entry in pool.addresses.iter().filter(|entry| entry.mac == Some(mac)) {
                facts.add("provider", format!("bound to {} of pool {name}", entry.address));
                entries.push(BoundEntry { pool: name.clone(), address: entry.address });
            }
            if pool.allowed_macs.contains(&mac) {
                facts.add("pool", format!("{name} lets it out to the provider (--allow-mac)"));
            }
            if pool.gateway_mac == Some(mac) {
                facts.add("gateway", format!("of pool {name}"));
            }
        }
        for router in routers::load(&self.node.paths).iter().filter(|router| router.macs.contains(&mac)) {
            facts.add("router", format!("{} on {}, learnt", router.address, router.bridge));
        }
        for (name, _) in self.links.0.iter().filter(|(_, link)| link.mac == Some(mac)) {
            facts.add("node", format!("interface {name} of this node"));
        }
        let is_known = !facts.0.is_empty() || !held.is_empty();
        let heading = if is_known { format!("{mac}:") } else { format!("{mac}: no guest, pool or router has it") };
        let data = MacAnswer {
            subject: mac,
            kind: MacKind::Mac,
            state: if is_known { MacState::Known } else { MacState::Unknown },
            holders: held.iter().map(|holding| self.holder(*holding)).collect(),
            guests: nics,
            entries,
        };
        Output::new(facts.text(&heading) + &text, json!(data))
    }

    fn port(&self, port: IfName, vmid: Vmid, nic: NicId) -> Output {
        let located = self.node.guests.find(vmid, None).ok();
        let mut facts = Facts::default();
        let name = located.as_ref().and_then(|located| located.config.name.as_deref());
        let name = name.map(|name| format!(" ({})", escaped(name))).unwrap_or_default();
        let node = located.as_ref().map(|located| &located.node);
        let held: Vec<Holding<'_>> = self.registry.assignments().filter(|of| (of.0, of.1) == (vmid, nic)).collect();
        // Of a NIC without addresses nothing is compared.
        let state = match held.first() {
            Some(holding) => Some(self.states.of_nic(vmid, nic, holding.2.mac)),
            None => located.is_none().then_some(GuestState::Missing),
        };
        facts.0.extend(state.map(|state| ("state", state.to_string())));
        facts.0.extend(node.map(|node| ("node", node.to_string())));
        let configured = located.as_ref().and_then(|located| located.config.nics.get(&nic)?.as_ref().ok());
        if let Some(mac) = configured.and_then(|nic| nic.mac) {
            facts.add("MAC", mac.to_string());
        }
        if let Some(bridge) = configured.and_then(|nic| nic.bridge) {
            facts.add("bridge", bridge.to_string());
        }
        let addresses: Vec<String> = held.iter().map(|holding| holding.3.address.to_string()).collect();
        facts.add("addresses", if addresses.is_empty() { "none".to_owned() } else { addresses.join(", ") });
        let data = PortAnswer {
            subject: port,
            kind: PortKind::Port,
            state,
            vmid,
            interface: nic,
            node: node.cloned(),
            mac: configured.and_then(|nic| nic.mac),
            bridge: configured.and_then(|nic| nic.bridge),
            holders: held.iter().map(|holding| self.holder(*holding)).collect(),
        };
        Output::new(facts.text(&format!("{port}: guest {vmid}{name} {nic}")), json!(data))
    }

    fn holder(&self, (vmid, nic, interface, assigned): Holding<'_>) -> HeldAddress {
        let located = self.inputs.guests.get(&vmid);
        HeldAddress {
            vmid,
            name: located.and_then(|located| located.config.name.clone()),
            interface: nic,
            address: assigned.address,
            mac: interface.mac,
            port: located.map(|located| located.config.kind.port(vmid, nic)),
            pool: assigned.pool.clone(),
            gateway: assigned.gateway,
            via: assigned.via,
            shared: assigned.shared.clone(),
            organization: assigned.organization.clone(),
            assigned_at: assigned.assigned_at,
            node: located.map(|located| located.node.clone()),
            state: self.states.of_nic(vmid, nic, interface.mac),
        }
    }

    fn holder_text(&self, subject: &str, (vmid, nic, interface, assigned): Holding<'_>) -> String {
        let located = self.inputs.guests.get(&vmid);
        let name = located.and_then(|located| located.config.name.as_ref());
        let name = name.map(|name| format!(" ({})", escaped(name))).unwrap_or_default();
        let mut facts = Facts::default();
        let held = assigned.address.to_string();
        if held != subject {
            facts.add("held as", held);
        }
        facts.0.extend(located.map(|located| ("node", located.node.to_string())));
        facts.add("state", self.states.of_nic(vmid, nic, interface.mac).to_string());
        facts.add("since", assigned.assigned_at.to_string());
        facts.0.extend(assigned.via.map(|via| ("via", via.to_string())));
        if let Some(group) = &assigned.shared {
            facts.add("shared", format!("by group {group}"));
        }
        if let Some(organization) = &assigned.organization {
            facts.add("organization", escaped(organization));
        }
        let port = located.map(|located| format!(", port {}", located.config.kind.port(vmid, nic)));
        facts.add("MAC", format!("{}{}", interface.mac, port.unwrap_or_default()));
        let gateway = assigned.gateway.map(|gateway| format!(", gateway {gateway}")).unwrap_or_default();
        facts.add("pool", format!("{}{gateway}", assigned.pool));
        facts.text(&format!("{subject}: assigned to guest {vmid}{name} {nic}"))
    }
}

/// How many pools are named for an address that is in none.
const NEAREST: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_what_it_looks_like() {
        let of = |text: &str| text.parse::<Subject>();
        assert_eq!(of("203.0.113.10"), Ok(Subject::Net("203.0.113.10/32".parse().unwrap())));
        assert_eq!(of("2001:db8::/64"), Ok(Subject::Net("2001:db8::/64".parse().unwrap())));
        assert_eq!(of("127.0.0.1"), Ok(Subject::Net("127.0.0.1/32".parse().unwrap())));
        assert_eq!(of("0.0.0.0/0"), Ok(Subject::Net("0.0.0.0/0".parse().unwrap())));
        assert_eq!(of("02:00:00:AA:bb:cc"), Ok(Subject::Mac("02:00:00:aa:bb:cc".parse().unwrap())));
        for (port, nic) in [("tap100i0", 0), ("veth100i31", 31), ("fwpr100p7", 7), ("fwln100o1", 1)] {
            let expected =
                Subject::Port(port.parse().unwrap(), "100".parse().unwrap(), format!("net{nic}").parse().unwrap());
            assert_eq!(of(port), Ok(expected), "{port}");
        }
        for (text, words) in [
            ("100", "`pve-public-ip show 100` shows its addresses"),
            ("203.0.113.9/29", "did you mean 203.0.113.8/29?"),
            ("eno1", "it is no address, prefix, MAC or port of a guest"),
            ("tap100i32", "it is no address, prefix, MAC or port of a guest"),
            ("", "it is no address, prefix, MAC or port of a guest"),
            ("203.0.113.300", "it is no address, prefix, MAC or port of a guest"),
        ] {
            assert!(of(text).unwrap_err().contains(words), "{text}: {:?}", of(text));
        }
    }
}
