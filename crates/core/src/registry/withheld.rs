//! Addresses that no guest gets, and why.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Registry;
use crate::model::PoolName;

/// What an address is that no guest gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld<'a> {
    /// The node has it.
    Own,
    /// It means the subnet, or everyone or every router in it, and the node is there.
    Of(&'static str, IpNet),
    /// A gateway of this pool.
    Gateway(&'a PoolName),
}

impl fmt::Display for Withheld<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("an address of this node"),
            Self::Of(what, net) => write!(f, "{what} address of {}, in which this node is", net.trunc()),
            Self::Gateway(pool) => write!(f, "the gateway of pool `{pool}`"),
        }
    }
}

/// What a node has itself, and what means its subnets.
pub(super) fn of_node(own: &[IpNet]) -> impl Iterator<Item = (IpAddr, Withheld<'_>)> {
    let subnets = own.iter().filter(|net| net.max_prefix_len() - net.prefix_len() >= 2);
    let meant = subnets.flat_map(|net| {
        let [first, last] = match net {
            IpNet::V4(_) => [Some("the network"), Some("the broadcast")],
            IpNet::V6(_) => [Some("the subnet-router anycast"), None],
        };
        let first = first.map(|what| (net.network(), Withheld::Of(what, *net)));
        first.into_iter().chain(last.map(|what| (net.broadcast(), Withheld::Of(what, *net))))
    });
    own.iter().map(|net| (net.addr(), Withheld::Own)).chain(meant)
}

impl Registry {
    /// The gateways of all pools.
    pub(super) fn gateways(&self) -> impl Iterator<Item = (IpAddr, Withheld<'_>)> {
        let pools = self.pools.pools.iter();
        pools.flat_map(|(name, pool)| pool.gateways().map(move |gateway| (gateway, Withheld::Gateway(name))))
    }

    /// Addresses that no guest gets: what the node has itself, what means its subnets, and gateways. Of two reasons for one
    /// the first counts.
    pub fn withheld<'a>(&'a self, own: &'a [IpNet]) -> impl Iterator<Item = (IpAddr, Withheld<'a>)> {
        of_node(own).chain(self.gateways())
    }
}
