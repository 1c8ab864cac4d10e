//! How a guest's NIC with addresses is: one word, decided here and nowhere else, for `list`, `show`, `who`, `status`, metrics
//! and the guard.

use std::collections::HashSet;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::diff::Step;
use super::inputs::{Inputs, Presence};
use super::watch::enforce_of;
use crate::code;
use crate::model::{GuestKind, IfName, MacAddr, NicId, Problem, Vmid};
use crate::registry::document::Enforce;

/// Declares the states once: name, word in JSON and options, meaning.
macro_rules! states {
    ($($name:ident $word:literal $meaning:literal;)+) => {
        /// How a NIC with addresses is. Of several NICs the first of these states is that of their guest.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum GuestState { $(#[doc = $meaning] #[serde(rename = $word)] $name),+ }

        impl GuestState {
            /// All of them, in their order.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The word, as JSON and options have it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }

            /// What it means, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning),+ }
            }
        }
    };
}

states! {
    NotProtected "not-protected" "The guest runs or may run, and the filter lacks elements that protect the NIC";
    Problem "problem" "Something keeps an assignment of the guest from being realised; `verify` says what";
    Unknown "unknown" "The kernel could not be compared";
    Starting "starting" "The guest is being started, and its port does not exist yet";
    Arriving "arriving" "The guest arrives by live migration and still runs on the other node";
    Watched "watched" "The guest runs, and its pool is not enforced: what is against the rules is counted at most";
    Protected "protected" "The guest runs, and the filter has all elements that protect the NIC";
    Reserved "reserved" "The guest is on this node and stopped; nobody else can use its addresses";
    Elsewhere "elsewhere" "The guest is on another node";
    Missing "missing" "There is no such guest";
}

impl fmt::Display for GuestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            // In the one place where nobody must overlook it.
            Self::NotProtected => "NOT PROTECTED",
            other => other.as_str(),
        })
    }
}

/// What the states of guests depend on.
#[derive(Debug)]
pub struct GuestStates<'a> {
    inputs: &'a Inputs,
    /// What came of comparing the node; `None` if it could not be compared.
    compared: Option<Compared>,
}

#[derive(Debug)]
struct Compared {
    lacking: Lacking,
    /// Guests with a problem.
    troubled: HashSet<Vmid>,
}

impl<'a> GuestStates<'a> {
    /// `compared`: the steps that the node lacks, and the problems that were found.
    pub fn new(inputs: &'a Inputs, compared: Option<(&[Step], &[Problem])>) -> Self {
        // That there is no such guest is a state of its own.
        let is_trouble = |problem: &&Problem| problem.code != code!("orphaned-assignment");
        let compared = compared.map(|(steps, problems)| Compared {
            lacking: Lacking::of(steps),
            troubled: problems.iter().filter(is_trouble).filter_map(Problem::guest).collect(),
        });
        Self { inputs, compared }
    }

    /// The state of a NIC with this MAC.
    pub fn of_nic(&self, vmid: Vmid, nic: NicId, mac: MacAddr) -> GuestState {
        let located = self.inputs.guests.get(&vmid);
        let is_here = located.is_some_and(|located| located.node == self.inputs.node);
        let Some(Compared { lacking, troubled }) = &self.compared else {
            // Who is not on this node may still be on the way to it; who is, may run.
            return if located.is_none() || is_here { GuestState::Unknown } else { GuestState::Elsewhere };
        };
        let port = self.port(vmid, nic);
        match self.inputs.presence.get(&vmid) {
            _ if troubled.contains(&vmid) => GuestState::Problem,
            Some(_) if lacking.concerns(port, mac) => GuestState::NotProtected,
            Some(Presence::Running) if self.is_watched(vmid, nic) => GuestState::Watched,
            Some(Presence::Running) => GuestState::Protected,
            Some(Presence::Starting) => GuestState::Starting,
            Some(Presence::Incoming) => GuestState::Arriving,
            None if is_here => GuestState::Reserved,
            None if located.is_some() => GuestState::Elsewhere,
            None => GuestState::Missing,
        }
    }

    fn is_watched(&self, vmid: Vmid, nic: NicId) -> bool {
        let registry = &self.inputs.registry;
        let interface = registry.guests.get(&vmid).and_then(|guest| guest.interfaces.get(&nic));
        interface.is_some_and(|interface| enforce_of(registry, interface) != Enforce::On)
    }

    /// The state of a guest with addresses: that of its NICs which comes first.
    pub fn of_guest(&self, vmid: Vmid) -> Option<GuestState> {
        let guest = self.inputs.registry.guests.get(&vmid)?;
        let with_addresses = guest.interfaces.iter().filter(|(_, interface)| !interface.addresses.is_empty());
        with_addresses.map(|(nic, interface)| self.of_nic(vmid, *nic, interface.mac)).min()
    }

    /// The node's side of a NIC.
    pub fn port(&self, vmid: Vmid, nic: NicId) -> IfName {
        let located = self.inputs.guests.get(&vmid);
        located.map_or(GuestKind::Qemu, |located| located.config.kind).port(vmid, nic)
    }
}

/// What the filter lacks of what protects ports.
#[derive(Debug, Default)]
struct Lacking {
    /// Its rules, or a whole table.
    everything: bool,
    ports: HashSet<IfName>,
    macs: HashSet<MacAddr>,
}

impl Lacking {
    fn of(steps: &[Step]) -> Self {
        let mut lacking = Self::default();
        for step in steps {
            match step {
                Step::DeclareSets(_) | Step::LoadRules(_) => lacking.everything = true,
                Step::ChangeElements { add, .. } => {
                    for names in add.iter().map(crate::ruleset::Element::names) {
                        lacking.ports.extend(names.port);
                        lacking.macs.extend(names.mac);
                    }
                }
                _ => {}
            }
        }
        lacking
    }

    fn concerns(&self, port: IfName, mac: MacAddr) -> bool {
        self.everything || self.ports.contains(&port) || self.macs.contains(&mac)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::guest::{GuestConfig, Located};
    use crate::registry::Registry;
    use crate::registry::document::{Assigned, GuestFile, Interface};
    use crate::ruleset::{Element, SetId, Table};

    fn guest(number: u32) -> (Vmid, GuestFile) {
        let vmid: Vmid = number.to_string().parse().unwrap();
        let mut file = GuestFile::new(vmid);
        let assigned = format!(
            r#"{{"mac":"02:00:00:00:00:{number:02x}","addresses":[{{"address":"203.0.113.{number}","pool":"a",
                "assigned_at":"2026-11-22T10:00:00Z"}}]}}"#
        );
        let interface: Interface = serde_json::from_str(&assigned).unwrap();
        let _: &Assigned = &interface.addresses[0];
        file.interfaces.insert(NicId::FIRST, interface);
        (vmid, file)
    }

    fn scene() -> Inputs {
        let registry = Registry { guests: (100..105).map(guest).collect(), ..Registry::default() };
        let located = |number: u32, node: &str| {
            let config = GuestConfig::parse(GuestKind::Qemu, b"");
            (number.to_string().parse().unwrap(), Located { node: node.parse().unwrap(), config })
        };
        let guests: BTreeMap<Vmid, Located> =
            [located(100, "n1"), located(101, "n1"), located(102, "n2"), located(103, "n2")].into();
        let mut inputs = Inputs::new("n1".parse().unwrap(), registry, guests);
        inputs.presence = [(100, Presence::Running), (103, Presence::Incoming)]
            .map(|(number, presence)| (number.to_string().parse().unwrap(), presence))
            .into();
        inputs
    }

    fn states(inputs: &Inputs, compared: Option<(&[Step], &[Problem])>) -> Vec<&'static str> {
        let states = GuestStates::new(inputs, compared);
        inputs.registry.guests.keys().map(|vmid| states.of_guest(*vmid).unwrap().as_str()).collect()
    }

    #[test]
    fn each_state_has_its_cause() {
        let mut inputs = scene();
        let all = ["protected", "reserved", "elsewhere", "arriving", "missing"];
        assert_eq!(states(&inputs, Some((&[], &[]))), all);
        assert_eq!(states(&inputs, None), ["unknown", "unknown", "elsewhere", "elsewhere", "unknown"]);

        let rules = [Step::LoadRules(Table::Bridge)];
        let unprotected = ["not-protected", "reserved", "elsewhere", "not-protected", "missing"];
        assert_eq!(states(&inputs, Some((&rules, &[]))), unprotected);
        let element = Element::mac(SetId::BoundMac, "02:00:00:00:00:64".parse().unwrap());
        let change = |add, remove| [Step::ChangeElements { add, remove }];
        let one = ["not-protected", "reserved", "elsewhere", "arriving", "missing"];
        assert_eq!(states(&inputs, Some((&change(vec![element.clone()], vec![]), &[]))), one);
        assert_eq!(states(&inputs, Some((&change(vec![], vec![element]), &[]))), all, "too much is drift, not a gap");

        let problem = Problem::of_guest(code!("overlap"), "101".parse().unwrap(), "a", "b");
        assert_eq!(states(&inputs, Some((&rules, &[problem])))[1], "problem");
        let orphan = Problem::of_guest(code!("orphaned-assignment"), "104".parse().unwrap(), "a", "b");
        assert_eq!(states(&inputs, Some((&[], &[orphan])))[4], "missing");
        inputs.presence.insert("100".parse().unwrap(), Presence::Starting);
        assert_eq!(states(&inputs, Some((&[], &[])))[0], "starting");
    }

    #[test]
    fn a_word_is_the_same_in_json_and_elsewhere() {
        for state in GuestState::ALL.iter().copied() {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
            assert_eq!(state.to_string().to_lowercase().replace(' ', "-"), state.as_str());
        }
        assert!(GuestState::ALL.is_sorted());
    }
}
