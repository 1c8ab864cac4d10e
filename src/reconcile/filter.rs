//! What filters on this node: the rules that it should have, the program for routed traffic, and what must stay.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Mode, Node, ReconcileError};
use crate::plan::{NetState, Step};
use crate::registry::Registry;
use crate::registry::document::BackendChoice;
use crate::ruleset::{Backend, Element, SetId, Storage, Variant};
use crate::system::run::{BackendNote, RunState};
use crate::system::{FilterError, Nftables, Reference, xtables};

impl Node {
    /// What filters routed traffic on this node: what was decided since it booted, as long as nobody asks for another one.
    ///
    /// It does not change by itself, because the node's own rules come and go: what is chosen before pve-firewall has
    /// started would be another one a minute later.
    pub(crate) fn routed_filter(
        &self,
        run: &RunState,
        registry: &Registry,
        mode: Mode,
    ) -> Result<BackendNote, ReconcileError> {
        let known = run.backend();
        let file = self.paths.node_file(&self.name);
        let is_known = !registry.broken.iter().any(|error| error.path == file);
        let choice = registry.node.as_ref().and_then(|node| node.backend).unwrap_or_default();
        let nothing = BackendNote { choice: None, backend: Backend::default(), variants: BTreeSet::new() };
        let known = match known {
            Some(known) if known.choice.is_some_and(|decided| decided == choice || !is_known) => return Ok(known),
            // With nothing to route there is nothing to decide, and what stands goes.
            known if !registry.has_routed() => return Ok(known.unwrap_or(nothing)),
            known => known.unwrap_or(nothing),
        };
        let backend = match choice {
            BackendChoice::Nftables => Backend::Nftables,
            BackendChoice::Auto => match xtables::in_use() {
                Ok(used) => used.map_or(Backend::Nftables, xtables::backend),
                Err(error) => {
                    // What stood last protects, too; it is decided once more at the next look.
                    log::warn!("routed traffic is filtered by {} until iptables answers: {error}", known.backend);
                    log::warn!("hint: {}", error.hint());
                    return Ok(BackendNote { choice: None, ..known });
                }
            },
            BackendChoice::Iptables => {
                let Ok(variant) = xtables::preferred() else {
                    // Without a program it is not decided which: who needs it is told when it is asked, and nobody else.
                    let backend = xtables::backend(Variant::Nft);
                    let variants = &known.variants | &BTreeSet::from([Variant::Nft]);
                    return Ok(BackendNote { choice: None, backend, variants });
                };
                xtables::backend(variant)
            }
            BackendChoice::IptablesLegacy => xtables::backend(Variant::Legacy),
            BackendChoice::IptablesNft => xtables::backend(Variant::Nft),
        };
        let mut note = BackendNote { choice: Some(choice), backend, variants: known.variants };
        if let Backend::Iptables { variant, .. } = backend {
            note.variants.insert(variant);
        }
        if mode == Mode::Apply {
            log::info!("routed traffic is filtered by {backend}");
            run.set_backend(&note)?;
        }
        Ok(note)
    }

    /// Sets to which nothing may be added as long as a file cannot be read.
    pub(super) fn kept(&self, registry: &Registry, observed: &NetState) -> BTreeSet<SetId> {
        let unusable = || registry.broken.iter().filter(|error| !registry.recalled.contains(&error.path));
        let broken = |path: PathBuf| unusable().any(|error| error.path == path);
        let known: BTreeSet<SetId> = observed.elements.iter().map(Element::set).collect();
        // Known ranges stay as they are: the kernel refuses a second one that overlaps.
        let mut kept: BTreeSet<SetId> = known.iter().copied().filter(|set| set.storage() == Storage::Tree).collect();
        // What a port is exempt from depends on the pools' bridges and on the named uplinks.
        if unusable().any(|error| self.paths.is_of_pools(&error.path)) {
            kept.extend([SetId::FreePorts, SetId::RouterPorts, SetId::Elsewhere, SetId::OtherVlans]);
        }
        // What stands is better than what is made of nothing.
        if registry.lost_pools.is_some()
            && known.iter().any(|set| matches!(set, SetId::GuardEnforce | SetId::GuardReport))
        {
            kept.extend([SetId::GuardEnforce, SetId::GuardReport, SetId::UplinkRegistered]);
        }
        let uplinks = broken(self.paths.node_file(&self.name)) && known.contains(&SetId::Uplinks);
        if uplinks {
            kept.extend([SetId::Uplinks, SetId::GuardEnforce, SetId::GuardReport, SetId::UplinkRegistered]);
        }
        kept
    }
}

/// The step without what it takes away, and without what it adds to these sets.
pub(super) fn additive(step: Step, kept: &BTreeSet<SetId>) -> Option<Step> {
    match step {
        Step::RemoveRoute(_)
        | Step::RemoveProxy(..)
        | Step::RemoveNeighbour(..)
        | Step::RemoveGateway(..)
        | Step::RestoreSetting(_)
        | Step::RemoveForwarding(..)
        | Step::RemoveTable(_)
        | Step::RemoveIpSet(_) => None,
        Step::ChangeIpSet { set, create, add, .. } => {
            let change = create || !add.is_empty();
            change.then_some(Step::ChangeIpSet { set, create, add, remove: BTreeSet::new() })
        }
        // Chains are changed whole. As long as nothing that is wanted is missing, what is there besides may be meant.
        Step::LoadChains { wanted, found, .. } if wanted.is_empty() || wanted.is_part_of(&found) => None,
        Step::ChangeElements { mut add, .. } => {
            add.retain(|element| !kept.contains(&element.set()));
            (!add.is_empty()).then_some(Step::ChangeElements { add, remove: Vec::new() })
        }
        step => Some(step),
    }
}

/// What this release's rules should be in this kernel; computed once per boot.
pub(super) fn reference(run: &RunState, log_group: Option<u16>) -> Result<Reference, FilterError> {
    let text = Nftables::text_hash(log_group);
    if let Some(fingerprints) = run.reference(text) {
        return Ok(Reference { log_group, fingerprints });
    }
    let computed = Nftables::reference(log_group)?;
    run.set_reference(text, computed.fingerprints);
    Ok(computed)
}
