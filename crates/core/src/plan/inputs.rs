//! Everything that a decision depends on, gathered before it is made.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::sightings::{Router, Sighting};
use crate::guest::Located;
use crate::links::Links;
use crate::model::{Family, IfName, MacAddr, NodeName, Vmid};
use crate::registry::Registry;
use crate::ruleset::Backend;

/// The node's view of the world at one moment.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// This node.
    pub node: NodeName,
    /// Pools and assignments.
    pub registry: Registry,
    /// Guests whose configuration could be read, wherever they are.
    pub guests: BTreeMap<Vmid, Located>,
    /// Guests that are on this node or start on it, and how far they are.
    pub presence: BTreeMap<Vmid, Presence>,
    /// Interfaces of the node.
    pub links: Links,
    /// Its ways to the world; looked up only if there are routed pools.
    pub exits: Exits,
    /// What filters the traffic that it routes.
    pub backend: Backend,
    /// Routers behind the uplinks, as far as they were learnt.
    pub routers: Vec<Router>,
    /// Sightings of routers that cannot be believed.
    pub refused_routers: BTreeSet<Sighting>,
    /// Gateways whose MAC is wanted, with the one that the node's neighbour table has, wherever it comes from.
    pub found_gateways: BTreeMap<(IfName, IpAddr), Option<MacAddr>>,
    /// Next hops of the node's own traffic to the world, with their interfaces.
    pub next_hops: BTreeSet<(IfName, IpAddr)>,
}

impl Inputs {
    /// What files say; whoever runs here, and what the network is like, is still to be looked up.
    pub fn new(node: NodeName, registry: Registry, guests: BTreeMap<Vmid, Located>) -> Self {
        Self {
            node,
            registry,
            guests,
            presence: BTreeMap::new(),
            links: Links::default(),
            exits: Exits::default(),
            backend: Backend::default(),
            routers: Vec::new(),
            refused_routers: BTreeSet::new(),
            found_gateways: BTreeMap::new(),
            next_hops: BTreeSet::new(),
        }
    }
}

/// By which ways the node reaches the world, and as whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exits {
    /// Whether the node forwards IPv6, on all interfaces, because this program switched it on, or would do so: what did
    /// not forward before shall not do it now.
    pub forwards6_for_us: bool,
    /// Its default routes, the preferred one of each family first.
    pub routes: Vec<DefaultRoute>,
    /// Its addresses on all interfaces, but for the gateways that it has for guests only.
    pub addresses: BTreeSet<(IfName, IpNet)>,
    /// Interfaces on which it learns routes or addresses by router advertisement, and is meant to.
    pub advertised: BTreeSet<IfName>,
    /// Whether the kernel can be told to forward IPv6 for single interfaces.
    pub can_force_forwarding: bool,
}

/// A default route of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DefaultRoute {
    /// The interface.
    pub device: IfName,
    /// The next hop.
    pub via: Option<IpAddr>,
    /// The lower the better.
    pub metric: u32,
    /// What it is for.
    pub family: Family,
}

/// How far a guest is on this node. A guest that is not listed does not run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// Between pre-start and the moment when its port appears.
    Starting,
    /// Live migration to this node: its port may exist, but the guest still runs and speaks on the source node.
    Incoming,
    /// Its port exists.
    Running,
}
