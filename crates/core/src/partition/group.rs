//! Who shares a subnet with whom, by strategy.

use std::collections::BTreeMap;

use super::{CRITICAL, Labels, Network, Strategy};
use crate::model::Vmid;

/// Guests that share a subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `app-shop`, `svc-db`, `critical-app-shop`, `other`.
    pub name: String,
    /// Who, in order.
    pub guests: Vec<Vmid>,
}

/// The group of guests that nothing is known of.
pub(super) const OTHER: &str = "other";

/// The groups by name. Every member is in one.
pub fn groups(network: &Network, strategy: Strategy) -> Vec<Group> {
    let mut named: BTreeMap<String, Vec<Vmid>> = BTreeMap::new();
    for (vmid, member) in &network.members {
        named.entry(name(*vmid, &member.labels, strategy)).or_default().push(*vmid);
    }
    named.into_iter().map(|(name, guests)| Group { name, guests }).collect()
}

fn name(vmid: Vmid, labels: &Labels, strategy: Strategy) -> String {
    let labelled = |kind: &str, label: &Option<String>| label.as_ref().map(|label| format!("{kind}-{label}"));
    let name = match strategy {
        Strategy::PerApplication => labelled("app", &labels.app),
        // Critical guests that belong to nothing share with nobody: nothing says that they may.
        Strategy::Hybrid if labels.is_critical() => {
            let shared = labelled("app", &labels.app).or_else(|| labelled("svc", &labels.service));
            Some(format!("{CRITICAL}-{}", shared.unwrap_or_else(|| vmid.to_string())))
        }
        Strategy::PerService | Strategy::Hybrid => labelled("svc", &labels.service),
    };
    name.unwrap_or_else(|| OTHER.to_owned())
}
