//! What is known of the network before it is looked at.

use std::collections::BTreeSet;

use super::Report;
use crate::plan::{NetState, Step, diff};
use crate::ruleset::Table;

/// What is known before a reconciliation.
#[derive(Debug)]
pub enum Baseline<'a> {
    /// Nothing: everything is read.
    Unknown,
    /// How the last reconciliation of the whole node left the network. As long as nobody has touched the filter since, it
    /// need not be read, which is most of the work on a large node.
    Kept(&'a mut Left),
}

/// How a reconciliation of the whole node left the network.
#[derive(Debug, Clone, Default)]
pub struct Left {
    /// What the network was brought to, as far as nothing failed.
    pub state: NetState,
    /// The last transaction in nf_tables that was looked at.
    pub generation: u32,
    /// By what a change of iptables is recognised, where the kernel does not report it.
    pub chains: Option<u64>,
    /// Whether the filter was exactly `state` after that transaction.
    pub(super) is_exact: bool,
}

impl Left {
    /// Has everything read at the next look.
    pub fn doubt(&mut self) {
        self.is_exact = false;
    }

    /// Whether the filter is still as it was left, by its marks now.
    pub(super) fn is_exact_at(&self, generation: u32, chains: Option<u64>) -> bool {
        self.is_exact && self.generation == generation && self.chains == chains
    }

    /// What a reconciliation had to undo of what somebody else did since, in words.
    pub fn drift(&self, report: &Report) -> BTreeSet<String> {
        drift(&report.steps, &self.state, &report.desired)
    }
}

/// The part of the steps that undoes what somebody else did, in words: the kernel was not as it was left.
///
/// The rest of the steps follows a change of what is wanted. Of a table that is missing that is all there is to say.
pub fn drift(steps: &[Step], before: &NetState, desired: &NetState) -> BTreeSet<String> {
    if let Some(table) = steps.iter().find(|step| **step == Step::DeclareSets(Table::Bridge)) {
        return table.meanings().into_iter().collect();
    }
    let follows: BTreeSet<String> = diff(desired, before).iter().flat_map(Step::meanings).collect();
    steps.iter().flat_map(Step::meanings).filter(|meaning| !follows.contains(meaning)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Rules;
    use crate::ruleset::{Element, SetId};

    #[test]
    fn what_follows_a_change_is_no_drift() {
        let port = |name: &str| Element::port(SetId::Ports, name.parse().unwrap());
        let state = |elements: &[Element]| NetState {
            rules: Rules::Loaded,
            elements: elements.iter().cloned().collect(),
            ..NetState::default()
        };
        let (one, two) = (port("tap100i0"), port("tap101i0"));
        let before = state(std::slice::from_ref(&one));
        let desired = state(&[one.clone(), two.clone()]);
        let found = |observed: &NetState| drift(&diff(&desired, observed), &before, &desired);
        assert_eq!(found(&before), BTreeSet::new());
        let lost: Vec<String> = found(&state(&[two])).into_iter().collect();
        assert_eq!(lost, [format!("missing {}", one.meaning(true))]);
    }
}
