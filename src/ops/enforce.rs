//! What guests would lose if a pool were enforced: looked at before a command changes it, on every node of the cluster.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::observe_links;
use crate::guest::{Located, may_use};
use crate::host::files;
use crate::links::{Links, is_guest_port};
use crate::model::{IfName, MacAddr, PoolName, Vmid};
use crate::plan::present::{Loss, Lost, Neighbour, in_use, losses};
use crate::reconcile::Node;
use crate::registry::document::{Enforce, Pool};
use crate::registry::{AssignRequest, InUse, Registry, RuleError};
use crate::system::{Kernel, Reference};

/// Guests of all nodes, and what this node sees of them, looked at when it is asked for: a cluster may have thousands, and
/// few changes can take something from one.
pub(super) struct Present<'a> {
    node: &'a Node,
    looked: OnceCell<Looked>,
}

/// What was found.
pub(super) struct Looked {
    pub(super) guests: BTreeMap<Vmid, Located>,
    pub(super) seen: Vec<Neighbour>,
    links: Links,
}

/// Who may use what nobody holds: guests without addresses, on every node, and what this node's neighbour table knows.
pub(super) struct Unheld {
    guests: BTreeMap<Vmid, Located>,
    seen: Vec<Neighbour>,
}

impl Unheld {
    /// Guests that the registry has a file of hold addresses: one that is left empty is removed. What cannot be read is not there.
    pub(super) fn look(node: &Node) -> Self {
        let names = files::names(&node.paths.guest_files()).into_iter();
        let holders: BTreeSet<Vmid> = names.filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect();
        let seen = Kernel::open(Reference::default()).and_then(|mut kernel| kernel.neighbours()).unwrap_or_default();
        let macs: BTreeSet<MacAddr> = seen.iter().map(|neighbour| neighbour.mac).collect();
        let guests = node.guests.all_but(|vmid| holders.contains(&vmid), |text| may_use(text, &macs)).into_iter();
        let guests = guests.filter_map(|(vmid, found)| Some((vmid, found.ok()?.located()?))).collect();
        Self { guests, seen }
    }

    /// What nobody holds and somebody else than this guest uses.
    pub(super) fn in_use(&self, registry: &Registry, request: &AssignRequest) -> BTreeMap<IpAddr, InUse> {
        let own = request.nics.iter().map(|(_, mac)| *mac).collect();
        in_use(registry, &self.guests, &self.seen, (request.vmid, &own))
    }
}

impl<'a> Present<'a> {
    /// Not looked at yet.
    pub(super) fn of(node: &'a Node) -> Self {
        Self { node, looked: OnceCell::new() }
    }

    /// All of it. What cannot be read is not there: a command does not fail because of a guest that is not concerned.
    pub(super) fn look(&self) -> &Looked {
        self.looked.get_or_init(|| {
            let guests = self.node.guests.all().into_iter().filter_map(|(vmid, located)| Some((vmid, located.ok()?)));
            let seen = Kernel::open(Reference::default()).and_then(|mut kernel| kernel.neighbours());
            let links = observe_links().unwrap_or_default();
            Looked { guests: guests.collect(), seen: seen.unwrap_or_default(), links }
        })
    }

    /// What guests would lose if this pool were enforced.
    pub(super) fn losses(&self, registry: &Registry, pool: &PoolName) -> Vec<Loss> {
        let bridge = registry.pools.pools.get(pool).map(|pool| pool.bridge);
        let leads_out = bridge.is_some_and(|bridge| self.leads_out(registry, bridge));
        let Looked { guests, seen, .. } = self.look();
        losses(registry, guests, seen, pool, leads_out)
    }

    /// Whether a bridge has an uplink. One that is not here is another node's, and that of a provider's pool has one.
    fn leads_out(&self, registry: &Registry, bridge: IfName) -> bool {
        let named = registry.node.as_ref().and_then(|node| node.uplinks.as_ref());
        let is_uplink = |port: &IfName| named.map_or(!is_guest_port(port.as_str()), |named| named.contains(port));
        let links = &self.look().links;
        links.get(bridge).is_none() || links.ports(bridge).any(|port| is_uplink(&port))
    }

    /// What guests lose by a change: of a pool that was not enforced before, or not so strict.
    pub(super) fn lost_by(&self, before: &Registry, after: &Registry, pool: &PoolName) -> Vec<Loss> {
        let is_enforced =
            |registry: &Registry| registry.pools.pools.get(pool).is_some_and(|pool| pool.enforce() == Enforce::On);
        if !is_enforced(after) || is_enforced(before) && takes(before, pool) == takes(after, pool) {
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

/// What of a pool may take something from a guest: all but when an address is handed out again, and what it costs.
fn takes(registry: &Registry, pool: &PoolName) -> Option<Pool> {
    let mut pool = registry.pools.pools.get(pool)?.clone();
    pool.cool_down = None;
    pool.addresses.iter_mut().for_each(|entry| entry.monthly_cost_cents = None);
    Some(pool)
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
