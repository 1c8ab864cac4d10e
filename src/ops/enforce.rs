//! What guests would lose if a pool were enforced: looked at before a command changes it, on every node of the cluster.

use std::collections::BTreeMap;

use super::observe_links;
use crate::guest::Located;
use crate::links::{Links, is_guest_port};
use crate::model::{IfName, PoolName, Vmid};
use crate::plan::present::{Loss, Lost, Neighbour, losses};
use crate::reconcile::Node;
use crate::registry::document::Enforce;
use crate::registry::{Registry, RuleError};
use crate::system::{Kernel, Reference};

/// Guests of all nodes, and what this node sees of them.
pub(super) struct Present {
    pub(super) guests: BTreeMap<Vmid, Located>,
    pub(super) seen: Vec<Neighbour>,
    links: Links,
}

impl Present {
    /// Looks at all of it. What cannot be read is not there: a command does not fail because of a guest that is not concerned.
    pub(super) fn look(node: &Node) -> Self {
        let guests = node.guests.all().into_iter().filter_map(|(vmid, located)| Some((vmid, located.ok()?)));
        let seen = Kernel::open(Reference::default()).and_then(|mut kernel| kernel.neighbours());
        let links = observe_links().unwrap_or_default();
        Self { guests: guests.collect(), seen: seen.unwrap_or_default(), links }
    }

    /// What guests would lose if this pool were enforced.
    pub(super) fn losses(&self, registry: &Registry, pool: &PoolName) -> Vec<Loss> {
        let bridge = registry.pools.pools.get(pool).map(|pool| pool.bridge);
        let leads_out = bridge.is_some_and(|bridge| self.leads_out(registry, bridge));
        losses(registry, &self.guests, &self.seen, pool, leads_out)
    }

    /// Whether a bridge has an uplink. One that is not here is another node's, and that of a provider's pool has one.
    fn leads_out(&self, registry: &Registry, bridge: IfName) -> bool {
        let named = registry.node.as_ref().and_then(|node| node.uplinks.as_ref());
        let is_uplink = |port: &IfName| named.map_or(!is_guest_port(port.as_str()), |named| named.contains(port));
        self.links.get(bridge).is_none() || self.links.ports(bridge).any(|port| is_uplink(&port))
    }

    /// What guests lose by a change: of a pool that was not enforced before, or not so strict.
    pub(super) fn lost_by(&self, before: &Registry, after: &Registry, pool: &PoolName) -> Vec<Loss> {
        let is_enforced =
            |registry: &Registry| registry.pools.pools.get(pool).is_some_and(|pool| pool.enforce() == Enforce::On);
        if !is_enforced(after) {
            return Vec::new();
        }
        let known = if is_enforced(before) { self.losses(before, pool) } else { Vec::new() };
        // Who has the provider's MAC already, and was kept back because no pool knew it, only waits for the address.
        let waits = |loss: &Loss| {
            let is_kept_back = |known: &Loss| {
                (known.vmid, known.nic) == (loss.vmid, loss.nic) && matches!(known.what, Lost::Uplink(_))
            };
            matches!(loss.what, Lost::Mac(_)) && known.iter().any(is_kept_back)
        };
        self.losses(after, pool).into_iter().filter(|loss| !known.contains(loss) && !waits(loss)).collect()
    }
}

/// Refuses a change by which guests lose something, unless somebody has said yes to it.
pub(super) fn refuse(pool: &PoolName, losses: &[Loss], yes: bool, is_in_pool: bool) -> Result<(), RuleError> {
    let Some(first) = losses.first().filter(|_| !yes) else { return Ok(()) };
    let hint = match first.what {
        // What is not in the pool cannot be assigned.
        _ if !is_in_pool => {
            format!("count first, and assign what is in use: `pve-public-ip pool set {pool} --enforce watch`")
        }
        Lost::Uplink(_) => {
            format!("if the provider knows these MACs: `pve-public-ip pool set {pool} --allow-present`")
        }
        Lost::Address(_) | Lost::Gateway(_) | Lost::Other(_) | Lost::Mac(_) => first.problem(pool).hint,
    };
    Err(RuleError::WouldCutOff { pool: pool.clone(), losses: losses.iter().map(Loss::sentence).collect(), hint })
}
