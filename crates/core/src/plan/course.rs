//! Carrying out steps of which some fail: what relies on a failed one is left out, everything else is done.
//!
//! The order is that of [`super::diff()`]. What leads traffic to a guest relies on the filter that stands in between, so a
//! filter that cannot be had closes the way to whom it should protect, and to nobody else.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::diff::Step;
use super::state::Setting;
use super::subject::Subjects;
use crate::code;
use crate::model::{IfName, PoolName, Problem, Subject, Vmid};
use crate::registry::Registry;
use crate::ruleset::{Element, SetId, Table};

/// How many steps that were left out are named.
const NAMED: usize = 3;

/// Why a step is not carried out, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Refusal {
    /// What stands in the way.
    pub sentence: String,
    /// What to do.
    pub hint: String,
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed<E> {
    /// Whose problem that is.
    pub subject: Subject,
    /// The step.
    pub step: Step,
    /// Why it failed.
    pub error: E,
    /// Steps that were not tried, because they rely on it.
    pub withheld: Vec<Step>,
}

/// What became of the steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome<E> {
    /// Those that were carried out.
    pub done: Vec<Step>,
    /// Those that failed.
    pub failed: Vec<Failed<E>>,
}

impl<E> Outcome<E> {
    /// For whom all of it has to succeed: the first error.
    pub fn into_result(self) -> Result<Vec<Step>, E> {
        self.failed.into_iter().next().map_or(Ok(self.done), |failed| Err(failed.error))
    }
}

/// A step in one line: of many elements the first.
fn brief(step: &Step) -> String {
    let text = step.to_string();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    match lines.count() {
        0 => first.to_owned(),
        more => format!("{first} and {more} more elements"),
    }
}

impl Failed<Refusal> {
    /// The same for people.
    pub fn problem(&self) -> Problem {
        let Refusal { sentence, hint } = &self.error;
        let whose = self.subject.to_string();
        let mut text = if self.subject == Subject::Node || sentence.contains(&whose) {
            sentence.clone()
        } else {
            format!("{whose}: {sentence}")
        };
        if !self.withheld.is_empty() {
            let named: Vec<String> = self.withheld.iter().take(NAMED).map(brief).collect();
            let more = self.withheld.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            text += &format!("; not carried out, because it relies on that: {}{more}", named.join(", "));
        }
        Problem::new(code!("step-failed"), self.subject.clone(), text, hint.clone())
    }

    /// Whether a guest with addresses of these pools is not protected because of it.
    pub fn leaves_unprotected(&self, vmid: Vmid, pools: &BTreeSet<PoolName>, is_routed: bool) -> bool {
        let is_filter = match &self.step {
            Step::DeclareSets(Table::Bridge) | Step::LoadRules(Table::Bridge) => true,
            Step::DeclareSets(Table::Inet)
            | Step::LoadRules(Table::Inet)
            | Step::ChangeIpSet { .. }
            | Step::LoadChains { .. } => is_routed,
            Step::ChangeElements { add, .. } => {
                add.iter().any(|element| is_routed || element.set().table() == Table::Bridge)
            }
            _ => false,
        };
        is_filter
            && match &self.subject {
                Subject::Node => true,
                Subject::Pool(name) => pools.contains(name),
                Subject::Guest(other) => *other == vmid,
                _ => false,
            }
    }
}

/// Carries out steps in their order. A change of several subjects' elements that fails is tried again for each of them.
pub fn carry_out<E>(steps: Vec<Step>, registry: &Registry, mut act: impl FnMut(&Step) -> Result<(), E>) -> Outcome<E> {
    let mut course = Course { subjects: OnceCell::new(), registry, gaps: Gaps::default(), failed: Vec::new() };
    let mut done = Vec::new();
    for step in steps {
        let Some(step) = course.what_may_be_done(step) else { continue };
        let Err(error) = act(&step) else {
            done.push(step);
            continue;
        };
        let parts = split(&step, course.subjects());
        if parts.len() < 2 {
            course.fail(step, error);
            continue;
        }
        for part in parts {
            match act(&part) {
                Ok(()) => done.push(part),
                Err(error) => course.fail(part, error),
            }
        }
    }
    Outcome { done, failed: course.failed }
}

struct Course<'a, E> {
    registry: &'a Registry,
    subjects: OnceCell<Subjects<'a>>,
    gaps: Gaps,
    failed: Vec<Failed<E>>,
}

impl<'a, E> Course<'a, E> {
    fn subjects(&self) -> &Subjects<'a> {
        self.subjects.get_or_init(|| Subjects::new(self.registry))
    }

    fn fail(&mut self, step: Step, error: E) {
        let number = self.failed.len();
        let subjects = self.subjects.get_or_init(|| Subjects::new(self.registry));
        self.gaps.note(&step, number, subjects);
        self.failed.push(Failed { subject: subjects.of(&step), step, error, withheld: Vec::new() });
    }

    /// The step as far as it relies on nothing that failed.
    fn what_may_be_done(&mut self, step: Step) -> Option<Step> {
        if self.failed.is_empty() {
            return Some(step);
        }
        let subjects = self.subjects.get_or_init(|| Subjects::new(self.registry));
        let (may, withheld) = match step {
            Step::ChangeElements { add, remove } => self.gaps.part(add, remove, subjects),
            step => match self.gaps.relied_on(&step, subjects) {
                Some(number) => (None, vec![(number, step)]),
                None => (Some(step), Vec::new()),
            },
        };
        for (number, step) in withheld {
            self.gaps.note(&step, number, subjects);
            self.failed[number].withheld.push(step);
        }
        may
    }
}

/// Those that come and those that go.
type Elements = (Vec<Element>, Vec<Element>);

/// The same change for each subject by itself; the node's first, because all others rely on it, and there for each set.
fn split(step: &Step, subjects: &Subjects<'_>) -> Vec<Step> {
    match step {
        Step::ChangeElements { add, remove } => {
            let mut parts: BTreeMap<_, Elements> = BTreeMap::new();
            let key = |element: &Element| {
                let subject = subjects.of_element(element);
                let set = (subject == Subject::Node).then_some(element.set());
                (subject, element.set().table(), set)
            };
            for element in add {
                parts.entry(key(element)).or_default().0.push(element.clone());
            }
            for element in remove {
                parts.entry(key(element)).or_default().1.push(element.clone());
            }
            parts.into_values().map(|(add, remove)| Step::ChangeElements { add, remove }).collect()
        }
        Step::ChangeIpSet { set, create, add, remove } => {
            let mut parts: BTreeMap<Subject, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
            for member in add {
                parts.entry(subjects.of_member(member)).or_default().0.insert(member.clone());
            }
            for member in remove {
                parts.entry(subjects.of_member(member)).or_default().1.insert(member.clone());
            }
            let change = |(add, remove)| Step::ChangeIpSet { set: *set, create: false, add, remove };
            let creation = create.then(|| Step::ChangeIpSet {
                set: *set,
                create: true,
                add: BTreeSet::new(),
                remove: BTreeSet::new(),
            });
            creation.into_iter().chain(parts.into_values().map(change)).collect()
        }
        _ => Vec::new(),
    }
}

/// What is missing because a step failed, with the number of the failure.
#[derive(Debug, Default)]
struct Gaps {
    /// Tables without their sets or rules.
    tables: BTreeMap<Table, usize>,
    sets: BTreeMap<Table, usize>,
    /// The routed filter of iptables.
    chains: Option<usize>,
    ipsets: Option<usize>,
    /// Whose elements are missing.
    unfiltered: BTreeMap<Subject, usize>,
    /// By which the node's own links are told from guests' ports.
    uplinks: Option<usize>,
    settings: BTreeMap<Setting, usize>,
    neighbours: BTreeMap<(IfName, IpAddr), usize>,
    routes: BTreeMap<IpNet, usize>,
    /// To whom traffic is still led, although it should not be.
    led: BTreeMap<Subject, usize>,
    not_restored: BTreeMap<Setting, usize>,
}

impl Gaps {
    fn note(&mut self, step: &Step, number: usize, subjects: &Subjects<'_>) {
        match step {
            Step::DeclareSets(table) => {
                self.sets.entry(*table).or_insert(number);
                self.tables.entry(*table).or_insert(number);
            }
            Step::LoadRules(table) => drop(self.tables.entry(*table).or_insert(number)),
            Step::ChangeElements { add, .. } => {
                for element in add {
                    self.unfiltered.entry(subjects.of_element(element)).or_insert(number);
                }
                if add.iter().any(|element| element.set() == SetId::Uplinks) {
                    self.uplinks.get_or_insert(number);
                }
            }
            Step::ChangeIpSet { create, add, .. } => {
                for member in add {
                    self.unfiltered.entry(subjects.of_member(member)).or_insert(number);
                }
                if *create {
                    self.ipsets.get_or_insert(number);
                    self.chains.get_or_insert(number);
                }
            }
            Step::LoadChains { wanted, .. } if !wanted.is_empty() => drop(self.chains.get_or_insert(number)),
            Step::ChangeSetting(setting) => drop(self.settings.entry(*setting).or_insert(number)),
            Step::RestoreSetting(setting) => drop(self.not_restored.entry(*setting).or_insert(number)),
            Step::SetNeighbour(on, address, _) => drop(self.neighbours.entry((*on, *address)).or_insert(number)),
            Step::SetRoute(net, _) => drop(self.routes.entry(*net).or_insert(number)),
            Step::RemoveRoute(_) | Step::RemoveProxy(..) | Step::RemoveNeighbour(..) => {
                self.led.entry(subjects.of(step)).or_insert(number);
            }
            _ => {}
        }
    }

    /// The failure because of which a step must not be carried out.
    fn relied_on(&self, step: &Step, subjects: &Subjects<'_>) -> Option<usize> {
        let of = |subject: &Subject| self.filter_of(subject, subjects);
        match step {
            Step::LoadRules(table) => {
                // Without them the rules would take the way to the provider for a guest's port.
                let uplinks = self.uplinks.filter(|_| *table == Table::Bridge);
                self.sets.get(table).copied().or(uplinks)
            }
            Step::LoadChains { wanted, .. } if !wanted.is_empty() => self.ipsets,
            // What filters now goes when its successor stands.
            Step::LoadChains { .. } | Step::RemoveTable(_) | Step::RemoveIpSet(_) => self.any_filter(),
            Step::SetForwarding(..) | Step::SetNeighbour(..) => of(&subjects.of(step)),
            Step::ChangeSetting(Setting::AcceptRa(_) | Setting::ArpIgnore(_)) => None,
            Step::ChangeSetting(setting) => self.routed_filter().or_else(|| self.node_filter()).or_else(|| {
                // A node that forwards and does not listen forgets its own default route.
                let learns = matches!(setting, Setting::Forwarding6 | Setting::Router6(_));
                self.settings.iter().find(|(other, _)| learns && matches!(other, Setting::AcceptRa(_))).map(|(_, n)| *n)
            }),
            Step::RestoreSetting(Setting::AcceptRa(_)) => {
                let forwards = |setting: &Setting| matches!(setting, Setting::Forwarding6 | Setting::Router6(_));
                self.not_restored.iter().find(|(other, _)| forwards(other)).map(|(_, number)| *number)
            }
            Step::SetGateway(..) => self.routed_filter().or_else(|| of(&subjects.of(step))),
            Step::SetRoute(net, route) => {
                let hop = route.via.unwrap_or(net.addr());
                let neighbour = self.neighbours.get(&(route.device, hop)).copied();
                neighbour.or_else(|| self.routed_filter()).or_else(|| of(&subjects.of(step)))
            }
            Step::SetProxy(_, address) => {
                let route = self.routes.iter().find(|(net, _)| net.contains(address)).map(|(_, number)| *number);
                route.or_else(|| self.routed_filter()).or_else(|| of(&subjects.of(step)))
            }
            _ => None,
        }
    }

    /// The part of a change of elements that relies on nothing that failed, and the rest by failure.
    fn part(
        &self,
        add: Vec<Element>,
        remove: Vec<Element>,
        subjects: &Subjects<'_>,
    ) -> (Option<Step>, Vec<(usize, Step)>) {
        let mut withheld: BTreeMap<usize, Elements> = BTreeMap::new();
        let (mut may_add, mut may_remove) = (Vec::new(), Vec::new());
        for element in add {
            match self.sets.get(&element.set().table()) {
                Some(number) => withheld.entry(*number).or_default().0.push(element),
                None => may_add.push(element),
            }
        }
        for element in remove {
            // The filter goes after what leads traffic to it.
            let led = if self.led.is_empty() { None } else { self.led.get(&subjects.of_element(&element)) };
            match led.or_else(|| self.sets.get(&element.set().table())) {
                Some(number) => withheld.entry(*number).or_default().1.push(element),
                None => may_remove.push(element),
            }
        }
        let is_empty = may_add.is_empty() && may_remove.is_empty();
        let may = (!is_empty).then_some(Step::ChangeElements { add: may_add, remove: may_remove });
        let step = |(number, (add, remove))| (number, Step::ChangeElements { add, remove });
        (may, withheld.into_iter().map(step).collect())
    }

    /// Why the filter does not stand in front of this subject.
    fn filter_of(&self, subject: &Subject, subjects: &Subjects<'_>) -> Option<usize> {
        let missing = |subject: &Subject| self.unfiltered.get(subject).copied();
        self.node_filter().or_else(|| missing(subject)).or_else(|| match subject {
            Subject::Guest(vmid) => {
                let mut pools = subjects.pools_of(*vmid).map(|name| Subject::Pool(name.clone()));
                pools.find_map(|pool| missing(&pool))
            }
            _ => None,
        })
    }

    fn node_filter(&self) -> Option<usize> {
        self.tables.get(&Table::Bridge).or_else(|| self.unfiltered.get(&Subject::Node)).copied()
    }

    fn routed_filter(&self) -> Option<usize> {
        self.tables.get(&Table::Inet).copied().or(self.chains)
    }

    fn any_filter(&self) -> Option<usize> {
        self.tables.values().next().copied().or(self.chains).or_else(|| self.unfiltered.values().next().copied())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::MacAddr;
    use crate::plan::{NetState, Route, Rules, Support, diff};
    use crate::registry::document::{GuestFile, PoolsFile};
    use crate::ruleset::Variant;

    /// Guests 100 (routed, pool `net`), 101 (the same) and 102 (bridged, pool `lan`).
    fn registry() -> Registry {
        let pools: PoolsFile = serde_json::from_str(
            r#"{"version":1,"pools":{
            "lan":{"profile":"generic-bridged","bridge":"vmbr0","addresses":[{"address":"203.0.113.8/29"}]},
            "net":{"profile":"generic-routed","bridge":"vmbr1","gateway4":"169.254.0.1","addresses":[
                {"address":"192.0.2.8/29"},{"address":"2001:db8:1::/64"}]}}}"#,
        )
        .unwrap();
        let guest = |vmid: u32, pool: &str, address: &str| -> GuestFile {
            serde_json::from_value(serde_json::json!({"version": 1, "vmid": vmid, "interfaces": {"net0": {
                "mac": mac(vmid), "addresses": [
                    {"address": address, "pool": pool, "assigned_at": "2026-11-22T10:00:00Z"}]}}}))
            .unwrap()
        };
        let guests = [
            guest(100, "net", "192.0.2.9/32"),
            guest(101, "net", "192.0.2.10/32"),
            guest(102, "lan", "203.0.113.10/32"),
        ];
        Registry { pools, guests: guests.into_iter().map(|file| (file.vmid, file)).collect(), ..Registry::default() }
    }

    fn mac(vmid: u32) -> MacAddr {
        MacAddr::from_octets([2, 0, 0, 0, 0, u8::try_from(vmid).unwrap()])
    }

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }

    /// What these guests need, as far as the kinds of steps go.
    fn up() -> NetState {
        let mut state = NetState {
            rules: Rules::Loaded,
            routed_rules: Rules::Loaded,
            deaf_bridges: [name("vmbr0")].into(),
            own_entries: [name("vmbr0")].into(),
            elements: [Element::uplink(name("eno1"))].into(),
            support: Support {
                settings: [
                    Setting::AcceptRa(name("eno1")),
                    Setting::ArpIgnore(name("fwbr101i0")),
                    Setting::Forwarding4(name("vmbr1")),
                    Setting::Forwarding6,
                ]
                .into(),
                gateways: [(name("vmbr1"), IpAddr::from([169, 254, 0, 1]))].into(),
                ..Support::default()
            },
            ..NetState::default()
        };
        for file in registry().guests.values() {
            let port = name(&format!("tap{}i0", file.vmid));
            for (_, interface, assigned) in file.addresses() {
                let (net, pool) = (assigned.address.net(), assigned.pool.as_str());
                let bridge = name(if pool == "net" { "vmbr1" } else { "vmbr0" });
                state.elements.insert(Element::port(SetId::Ports, port));
                state.elements.extend(Element::port_address(port, interface.mac, net));
                state.elements.extend(Element::bound_address(net));
                state.forwarding.insert((port, interface.mac), BTreeSet::new());
                state.neighbours.insert((bridge, net.addr()), interface.mac);
                if pool == "net" {
                    state.elements.extend(Element::routed_here(net));
                    state.support.proxies.insert((name("eno1"), net.addr()));
                    state.routes.insert(net, Route { device: bridge, via: None });
                }
            }
        }
        state.elements.extend(Element::reserved_range([192, 0, 2, 8].into(), [192, 0, 2, 15].into()));
        state.elements.extend(Element::reserved_range([203, 0, 113, 8].into(), [203, 0, 113, 15].into()));
        state
    }

    type Fails = fn(&Step) -> bool;
    /// Whose it is, what failed, and what was left out because of it.
    type Left = (Subject, String, Vec<String>);

    /// Carries the steps out, of which these fail; returns what was done, and what was left out because of what.
    fn outcome(steps: Vec<Step>, fails: impl Fn(&Step) -> bool) -> (Vec<String>, Vec<Left>) {
        let Outcome { done, failed } = carry_out(steps, &registry(), |step| if fails(step) { Err(()) } else { Ok(()) });
        let shown = |step: &Step| step.to_string().lines().next().unwrap_or_default().to_owned();
        let failed = failed
            .into_iter()
            .map(|failed| (failed.subject, shown(&failed.step), failed.withheld.iter().map(shown).collect()));
        (done.iter().map(shown).collect(), failed.collect())
    }

    fn guest(vmid: u32) -> Subject {
        Subject::Guest(vmid.to_string().parse().unwrap())
    }

    fn has(step: &Step, set: SetId, text: &str) -> bool {
        let Step::ChangeElements { add, .. } = step else { return false };
        add.iter().any(|element| element.set() == set && element.to_string().contains(text))
    }

    #[test]
    fn without_failures_all_is_done_as_it_was_planned() {
        let steps = diff(&up(), &NetState::default());
        let outcome = carry_out(steps.clone(), &registry(), |_| Ok::<(), ()>(()));
        assert_eq!((outcome.done, outcome.failed), (steps, Vec::new()));
    }

    #[test]
    fn a_guest_without_its_filter_gets_no_traffic_and_others_do() {
        let fails = |step: &Step| has(step, SetId::PortIp4, "tap100i0");
        let (done, failed) = outcome(diff(&up(), &NetState::default()), fails);
        let [(subject, _, withheld)] = &failed[..] else { panic!("{failed:?}") };
        assert_eq!(subject, &guest(100));
        assert_eq!(
            withheld[..],
            [
                "+ forwarding entry 02:00:00:00:00:64 dev tap100i0 static sticky",
                "+ neighbour 192.0.2.9 lladdr 02:00:00:00:00:64 dev vmbr1 permanent",
                "+ route 192.0.2.9/32 dev vmbr1",
                "+ proxy 192.0.2.9 dev eno1",
            ]
        );
        for line in
            ["+ route 192.0.2.10/32 dev vmbr1", "+ proxy 192.0.2.10 dev eno1", "~ rules of table bridge pve-public-ip"]
        {
            assert!(done.iter().any(|done| done == line), "{line}: {done:?}");
        }
        // What the node takes from nowhere but the guest is closed all the same.
        let led = done.iter().filter(|line| line.contains("192.0.2.9"));
        assert_eq!(led.collect::<Vec<_>>(), ["+ here_ip4 { 192.0.2.9 }"]);
    }

    #[test]
    fn what_relies_on_what() {
        let all = diff(&up(), &NetState::default());
        let opens = ["+ forwarding", "+ net/ipv4/conf/vmbr1", "+ gateway", "+ neighbour", "+ route", "+ proxy"];
        let routed = ["+ net/ipv4/conf/vmbr1", "+ net/ipv6/conf/all", "+ gateway", "+ route", "+ proxy"];
        // What fails, what must not be done then, and what is done all the same.
        let cases: [(&str, Fails, &[&str], &[&str]); 13] = [
            ("sets", |step| *step == Step::DeclareSets(Table::Bridge), &opens, &["~ vmbr0", "+ net/ipv6/conf/eno1"]),
            ("rules", |step| *step == Step::LoadRules(Table::Bridge), &opens, &["~ vmbr0", "~ rules of table inet"]),
            (
                "routed sets",
                |step| *step == Step::DeclareSets(Table::Inet),
                &routed,
                &["~ rules of table bridge", "+ forwarding", "+ neighbour 203.0.113.10"],
            ),
            ("routed rules", |step| *step == Step::LoadRules(Table::Inet), &routed, &["+ neighbour 203.0.113.10"]),
            (
                "uplinks",
                |step| has(step, SetId::Uplinks, "eno1"),
                &["~ rules of table bridge", "+ neighbour", "+ route", "+ forwarding"],
                &["~ rules of table inet"],
            ),
            (
                "a pool's ranges",
                |step| has(step, SetId::ReservedIp4, "192.0.2.8-192.0.2.15"),
                &["+ route", "+ neighbour 192.0.2", "+ gateway"],
                &["+ neighbour 203.0.113.10", "~ rules of table bridge"],
            ),
            ("a bridge", |step| matches!(step, Step::SetDeafBridge(_)), &[], &["+ route", "+ neighbour"]),
            (
                "a bridge's own entry",
                |step| matches!(step, Step::SetOwnEntry(_)),
                &[],
                &["+ forwarding", "+ route", "+ neighbour"],
            ),
            ("a forwarding entry", |step| matches!(step, Step::SetForwarding(..)), &[], &["+ route", "+ neighbour"]),
            (
                "router advertisements",
                |step| matches!(step, Step::ChangeSetting(Setting::AcceptRa(_))),
                &["+ net/ipv6/conf/all"],
                &["+ net/ipv4/conf/vmbr1", "+ route"],
            ),
            ("a gateway", |step| matches!(step, Step::SetGateway(..)), &[], &["+ route 192.0.2.9", "+ neighbour"]),
            (
                "a neighbour",
                |step| matches!(step, Step::SetNeighbour(_, ip, _) if *ip == IpAddr::from([192, 0, 2, 9])),
                &["+ route 192.0.2.9", "+ proxy 192.0.2.9"],
                &["+ route 192.0.2.10/32", "+ proxy 192.0.2.10"],
            ),
            (
                "a route",
                |step| matches!(step, Step::SetRoute(net, _) if net.addr() == IpAddr::from([192, 0, 2, 9])),
                &["+ proxy 192.0.2.9"],
                &["+ proxy 192.0.2.10", "+ route 192.0.2.10/32"],
            ),
        ];
        for (what, fails, never, still) in cases {
            let (done, failed) = outcome(all.clone(), fails);
            assert!(!failed.is_empty(), "{what}");
            for line in never {
                assert!(done.iter().all(|done| !done.starts_with(line)), "{what}: {line}: {done:?}");
            }
            for line in still {
                assert!(done.iter().any(|done| done.starts_with(line)), "{what}: {line}: {done:?}");
            }
            let count = done.len() + failed.iter().map(|(.., withheld)| 1 + withheld.len()).sum::<usize>();
            assert!(count >= all.len(), "{what}: nothing is lost: {count} of {}", all.len());
        }
    }

    #[test]
    fn the_filter_stays_as_long_as_traffic_is_led_to_it() {
        let down = NetState { rules: Rules::Loaded, ..NetState::default() };
        let fails = |step: &Step| matches!(step, Step::RemoveRoute(net) if net.addr() == IpAddr::from([192, 0, 2, 9]));
        let removed = |done: &Outcome<()>, text: &str| {
            let mut elements = done.done.iter().filter_map(|step| match step {
                Step::ChangeElements { remove, .. } => Some(remove),
                _ => None,
            });
            elements.any(|remove| remove.iter().any(|element| element.to_string().contains(text)))
        };
        let outcome = carry_out(diff(&down, &up()), &registry(), |step| if fails(step) { Err(()) } else { Ok(()) });
        assert!(!removed(&outcome, "tap100i0") && removed(&outcome, "tap101i0") && removed(&outcome, "tap102i0"));
        assert_eq!(outcome.failed.len(), 1);
        // Before the node is a router no more it does not unlearn to listen.
        let fails = |step: &Step| *step == Step::RestoreSetting(Setting::Forwarding6);
        let outcome = carry_out(diff(&down, &up()), &registry(), |step| if fails(step) { Err(()) } else { Ok(()) });
        assert_eq!(outcome.failed[0].withheld, [Step::RestoreSetting(Setting::AcceptRa(name("eno1")))]);
        // What filters goes when its successor stands.
        let chained = crate::ruleset::Routed { here: ["192.0.2.9/32".parse().unwrap()].into(), ..Default::default() };
        let (chains, ipsets) = chained.chains(Variant::Nft, true, false);
        let other = NetState { rules: Rules::Loaded, chains, ipsets, ..NetState::default() };
        let before = NetState { rules: Rules::Loaded, routed_rules: Rules::Loaded, ..NetState::default() };
        let fails = |step: &Step| matches!(step, Step::LoadChains { .. });
        let outcome = carry_out(diff(&other, &before), &registry(), |step| if fails(step) { Err(()) } else { Ok(()) });
        assert!(outcome.done.iter().all(|step| !matches!(step, Step::RemoveTable(_))), "{:?}", outcome.done);
    }

    #[test]
    fn a_member_that_does_not_fit_is_its_guests_problem() {
        let chained = crate::ruleset::Routed {
            here: ["192.0.2.9/32".parse().unwrap(), "192.0.2.10/32".parse().unwrap()].into(),
            ..Default::default()
        };
        let (chains, ipsets) = chained.chains(Variant::Legacy, true, false);
        let wanted = NetState { routed_rules: Rules::Absent, elements: [].into(), chains, ipsets, ..up() };
        let fails = |step: &Step| matches!(step, Step::ChangeIpSet { add, .. } if add.iter().any(|one| one.starts_with("192.0.2.9")));
        let (done, failed) = outcome(diff(&wanted, &NetState::default()), fails);
        let subjects: BTreeSet<&Subject> = failed.iter().map(|(subject, ..)| subject).collect();
        assert_eq!(subjects, [&guest(100)].into(), "{failed:?}");
        assert!(done.iter().any(|line| line.starts_with("+ route 192.0.2.10/32")), "{done:?}");
        assert!(done.iter().all(|line| !line.starts_with("+ route 192.0.2.9/32")), "{done:?}");
        assert!(done.iter().any(|line| line.contains("-I FORWARD 1")), "the chains are loaded: {done:?}");
    }

    #[test]
    fn a_problem_says_whose_it_is_and_what_is_left_out() {
        let failed = Failed {
            subject: guest(100),
            step: Step::RemoveRoute("192.0.2.9/32".parse().unwrap()),
            error: Refusal { sentence: "vmbr1 is down".to_owned(), hint: "`ip link set vmbr1 up`".to_owned() },
            withheld: vec![Step::LoadRules(Table::Inet); 5],
        };
        let problem = failed.problem();
        assert_eq!(problem.guest(), "100".parse().ok());
        assert_eq!(
            problem.sentence,
            "guest 100: vmbr1 is down; not carried out, because it relies on that: ~ rules of table inet pve-public-ip, \
             ~ rules of table inet pve-public-ip, ~ rules of table inet pve-public-ip and 2 more"
        );
        let node = Failed { subject: Subject::Node, withheld: Vec::new(), ..failed };
        assert_eq!((node.problem().guest(), node.problem().sentence.as_str()), (None, "vmbr1 is down"));
    }

    #[test]
    fn whose_an_element_is() {
        let registry = registry();
        let subjects = Subjects::new(&registry);
        let shown: BTreeMap<String, String> = up()
            .elements
            .iter()
            .map(|element| (element.to_string(), subjects.of_element(element).to_string()))
            .collect();
        for (element, subject) in [
            ("ports { tap101i0 }", "guest 101"),
            ("bound_ip4 { 203.0.113.10 }", "guest 102"),
            ("here_ip4 { 192.0.2.9 }", "guest 100"),
            ("reserved_ip4_24 { 192.0.2.0 }", "pool `net`"),
            ("reserved_ip4 { 203.0.113.8-203.0.113.15 }", "pool `lan`"),
            ("uplinks { eno1 }", "this node"),
        ] {
            assert_eq!(shown.get(element).map(String::as_str), Some(subject), "{element}: {shown:?}");
        }
        // No pool has it.
        let link_local = Element::bound_address(IpAddr::V6(mac(102).link_local()).into());
        assert!(!link_local.is_empty());
        for element in link_local {
            assert_eq!(subjects.of_element(&element), guest(102), "{element}");
        }
    }
}
