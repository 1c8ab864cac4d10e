//! On which nodes the addresses of a pool work, and which guests are on another one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::document::{Elsewhere, GuestFile, Pool, PoolsFile};
use crate::model::{NodeName, PoolName, Prefix, Vmid};

/// A guest that is, or is to be, on a node where addresses of a pool do not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misplaced {
    /// The guest.
    pub vmid: Vmid,
    /// The pool.
    pub pool: PoolName,
    /// Addresses that the guest holds or asks for; empty: the next free one.
    pub addresses: Vec<Prefix>,
    /// Where the guest is.
    pub node: NodeName,
    /// Where the addresses work.
    pub nodes: BTreeSet<NodeName>,
    /// What becomes of such a guest.
    pub elsewhere: Elsewhere,
}

impl Misplaced {
    /// What `node` means for a guest with these addresses; `None`: they work there.
    pub fn of((name, pool): (&PoolName, &Pool), vmid: Vmid, node: &NodeName, addresses: Vec<Prefix>) -> Option<Self> {
        (!pool.serves(node)).then(|| Self {
            vmid,
            pool: name.clone(),
            addresses,
            node: node.clone(),
            nodes: pool.nodes.clone(),
            elsewhere: pool.elsewhere(),
        })
    }

    /// Whether the guest is kept from starting there.
    pub fn is_refused(&self) -> bool {
        self.elsewhere == Elsewhere::Refuse
    }

    /// What helps.
    pub fn hint(&self) -> String {
        let Self { vmid, pool, node, nodes, .. } = self;
        let first = nodes.first().map(NodeName::as_str).unwrap_or_default();
        let (listed, them) = (listed(nodes), if self.addresses.len() == 1 { "it" } else { "them" });
        format!(
            "migrate guest {vmid} to {first}; if the provider routes {them} to {node}, too: `pve-public-ip pool set {pool} --nodes {listed},{node}`"
        )
    }
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vmid, pool, addresses, node, nodes, .. } = self;
        let what = match addresses.as_slice() {
            [] => format!("the addresses of pool `{pool}`"),
            [one] => format!("{one} of pool `{pool}`"),
            [first, rest @ ..] => format!("{first} and {} more of pool `{pool}`", rest.len()),
        };
        let to = if nodes.len() == 1 { "node" } else { "nodes" };
        let nodes = listed(nodes).replace(',', ", ");
        write!(f, "the provider routes {what} to {to} {nodes}, not to {node}: guest {vmid} has no network with ")?;
        f.write_str(if addresses.len() == 1 { "it there" } else { "them there" })
    }
}

/// `pve1,pve2`, as the option takes it.
pub fn listed(nodes: &BTreeSet<NodeName>) -> String {
    nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(",")
}

/// Of each pool of a guest that does not work on `node`, what the guest holds of it.
pub fn misplaced(pools: &PoolsFile, guest: &GuestFile, node: &NodeName) -> Vec<Misplaced> {
    let mut held: BTreeMap<&PoolName, BTreeSet<Prefix>> = BTreeMap::new();
    // Hundreds in a row are of one pool, and nearly every pool works everywhere.
    let (mut last, mut works) = (None, true);
    for (.., assigned) in guest.addresses() {
        if last.replace(&assigned.pool) != Some(&assigned.pool) {
            works = pools.pools.get(&assigned.pool).is_none_or(|pool| pool.serves(node));
        }
        if !works {
            held.entry(&assigned.pool).or_default().insert(assigned.address);
        }
    }
    let of_pool = |(name, addresses): (&PoolName, BTreeSet<Prefix>)| {
        let pool = pools.pools.get(name)?;
        Misplaced::of((name, pool), guest.vmid, node, addresses.into_iter().collect())
    };
    held.into_iter().filter_map(of_pool).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::fixtures::{A, registry, request};
    use crate::registry::{AssignRequest, RuleError};

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    #[test]
    fn an_address_is_given_only_where_it_works() {
        let mut registry = registry();
        let lan: PoolName = "lan".parse().unwrap();
        let on = |name: &str, addresses: &[&str]| AssignRequest {
            node: Some(node(name)),
            pool: Some("lan".parse().unwrap()),
            ..request("100", A, addresses)
        };
        let set = |registry: &mut crate::registry::Registry, names: &[&str], elsewhere| {
            registry.change_pool(&lan, |pool| {
                pool.nodes = names.iter().map(|name| node(name)).collect();
                pool.elsewhere = elsewhere;
            })
        };
        set(&mut registry, &["n1", "n3"], None).unwrap();
        let error = registry.clone().assign(&on("n2", &["203.0.113.2"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the provider routes 203.0.113.2 of pool `lan` to nodes n1, n3, not to n2: guest 100 has no network with it there"
        );
        assert_eq!(
            error.hint().unwrap(),
            "migrate guest 100 to n1; if the provider routes it to n2, too: `pve-public-ip pool set lan --nodes n1,n3,n2`"
        );
        let error = registry.clone().assign(&on("n2", &[])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the provider routes the addresses of pool `lan` to nodes n1, n3, not to n2: guest 100 has no network with them there"
        );
        assert!(matches!(error, RuleError::WrongNode(_)));
        // Without a name it is the only pool that works there.
        let unnamed = AssignRequest { pool: None, ..on("n2", &[]) };
        let error = registry.clone().assign(&unnamed).unwrap_err();
        assert!(!matches!(error, RuleError::WrongNode(_) | RuleError::WhichPool(_)), "{error}");
        assert_eq!(registry.clone().assign(&on("n3", &["203.0.113.2"])).unwrap().len(), 1);
        let unknown = AssignRequest { node: None, ..on("n3", &["203.0.113.2"]) };
        assert_eq!(registry.clone().assign(&unknown).unwrap().len(), 1);
        set(&mut registry, &["n1", "n3"], Some(Elsewhere::Warn)).unwrap();
        assert_eq!(registry.assign(&on("n2", &["203.0.113.2"])).unwrap().len(), 1);
        // What it holds is no question any more.
        set(&mut registry, &["n1"], None).unwrap();
        assert_eq!(registry.assign(&on("n2", &["203.0.113.2"])).unwrap(), []);
        let guest = &registry.guests[&"100".parse().unwrap()];
        let found = misplaced(&registry.pools, guest, &node("n2"));
        assert_eq!(found.len(), 1);
        assert!(found[0].is_refused());
        assert_eq!(misplaced(&registry.pools, guest, &node("n1")), []);
    }
}
