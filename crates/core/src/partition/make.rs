//! From groups to subnets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::document::{Growth, One, Plan, Subnet, VlanRange};
use super::group::groups;
use super::space::Space;
use super::weigh::{rules, weigh};
use super::{Network, Strategy};
use crate::model::Vmid;

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The base is full.
    #[error("{group} needs a /{length} (guests: {guests}, growth: {growth}), and {base} has {left}")]
    Full {
        /// The group.
        group: String,
        /// The length of its prefix.
        length: u8,
        /// Its guests.
        guests: usize,
        /// The factor.
        growth: Growth,
        /// The base.
        base: Ipv4Net,
        /// What is left of it, in words.
        left: String,
    },
    /// A group that no IPv4 prefix is large enough for.
    #[error("{group} (guests: {guests}) is, with growth {growth}, more than a subnet can have")]
    TooMany {
        /// The group.
        group: String,
        /// Its guests.
        guests: usize,
        /// The factor.
        growth: Growth,
    },
    /// No VLAN is left.
    #[error("{group} gets no VLAN: of {range} all are in use")]
    NoVlan {
        /// The group.
        group: String,
        /// The range.
        range: VlanRange,
    },
    /// The IPv6 base has too few /64.
    #[error("{base6} has {has} subnets of /64, and the VLANs {range} need {needed}")]
    Base6 {
        /// The base.
        base6: Ipv6Net,
        /// How many it has.
        has: u128,
        /// The VLANs.
        range: VlanRange,
        /// How many are needed.
        needed: u128,
    },
    /// The base has host bits or is too small for a single subnet.
    #[error("{0}")]
    Base(String),
    /// The plan of before is another one.
    #[error("{0}")]
    Previous(String),
}

impl PlanError {
    /// What to do.
    pub fn hint(&self) -> String {
        match self {
            Self::Full { .. } => "take a larger --base, or a smaller --growth".to_owned(),
            Self::TooMany { .. } => "split the group by other tags, or take a smaller --growth".to_owned(),
            Self::NoVlan { .. } => "take a larger --vlan-range".to_owned(),
            Self::Base6 { base6, needed, .. } => {
                let bits = needed.next_power_of_two().trailing_zeros();
                let length = 64u32.saturating_sub(bits);
                format!("take a --base6 of /{length} or shorter, such as {}/{length}", base6.network())
            }
            Self::Base(_) => "such as `--base 10.20.0.0/16`".to_owned(),
            Self::Previous(_) => {
                "leave out what the plan says by itself, or begin a new one under another name".to_owned()
            }
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// How to group.
    pub strategy: Strategy,
    /// Where from.
    pub base: Ipv4Net,
    /// The same for IPv6.
    pub base6: Option<Ipv6Net>,
    /// How much room to leave.
    pub growth: Growth,
    /// VLANs to take from.
    pub vlan_range: VlanRange,
}

impl Request {
    fn check(&self) -> Result<(), PlanError> {
        if self.base != self.base.trunc() {
            let sentence = format!("--base {} has host bits: the network is {}", self.base, self.base.trunc());
            return Err(PlanError::Base(sentence));
        }
        if self.base.prefix_len() > SMALLEST {
            return Err(PlanError::Base(format!(
                "--base {} is smaller than the smallest subnet, /{SMALLEST}",
                self.base
            )));
        }
        let Some(base6) = self.base6 else { return Ok(()) };
        if base6 != base6.trunc() || base6.prefix_len() > 64 {
            return Err(PlanError::Base(format!("--base6 {base6} has host bits, or is longer than /64")));
        }
        let has = 1u128 << (64 - u32::from(base6.prefix_len()));
        let needed = u128::from(self.vlan_range.last - self.vlan_range.first) + 1;
        if has < needed { Err(PlanError::Base6 { base6, has, range: self.vlan_range, needed }) } else { Ok(()) }
    }

    /// The /64 of a VLAN: its number in the range, so that it never depends on what else there is.
    fn subnet6(&self, vlan: u16) -> Option<Ipv6Net> {
        let base6 = self.base6?;
        let number = u128::from(vlan.checked_sub(self.vlan_range.first)?);
        let address = u128::from(base6.network()) + (number << 64);
        Ipv6Net::new(Ipv6Addr::from(address), 64).ok().filter(|net| base6.contains(net))
    }
}

/// The longest prefix that a subnet gets: five guests and a gateway.
const SMALLEST: u8 = 29;

/// Network, broadcast and gateway address.
const OVERHEAD: u64 = 3;

/// The prefix that holds so many guests, with as much room as was asked for.
fn length_for(guests: usize, growth: Growth) -> Option<u8> {
    let needed = growth.of(guests).max(guests as u64) + OVERHEAD;
    let bits = needed.next_power_of_two().trailing_zeros();
    (bits <= 32).then(|| u8::try_from(32 - bits).unwrap_or_default().min(SMALLEST))
}

/// Guests that fit into a subnet.
fn room(net: Ipv4Net) -> usize {
    usize::try_from((1u64 << (32 - u32::from(net.prefix_len()))) - OVERHEAD).unwrap_or(usize::MAX)
}

/// Makes the plan. Whoever has a place in `previous` keeps it.
///
/// The same arguments give the same plan: nothing depends on order, time or chance.
pub fn plan(network: &Network, request: &Request, previous: Option<&Plan>) -> Result<Plan, PlanError> {
    request.check()?;
    let kept = previous.map(|previous| check_previous(request, previous)).transpose()?.unwrap_or_default();
    let mut maker = Maker::new(network, request, kept);
    let groups = groups(network, request.strategy);
    let mut new: Vec<(u8, String, Vec<Vmid>)> = Vec::new();
    for group in groups {
        let waiting = maker.keep(&group.name, &group.guests);
        if !waiting.is_empty() {
            let (guests, growth) = (waiting.len(), request.growth);
            let too_many = || PlanError::TooMany { group: group.name.clone(), guests, growth };
            new.push((length_for(guests, growth).ok_or_else(too_many)?, group.name, waiting));
        }
    }
    // The largest first: each then lies where its size divides the address, and nothing is wasted between them.
    new.sort();
    for (length, group, guests) in new {
        maker.place(length, group, guests)?;
    }
    let mut subnets = maker.done;
    subnets.sort_by_key(|subnet| subnet.subnet);
    let rules = rules(network, &subnets);
    let weight = weigh(network, request.base, &subnets, &rules, maker.space.left());
    Ok(Plan {
        version: One,
        strategy: request.strategy,
        base: request.base,
        base6: request.base6,
        growth: request.growth,
        vlan_range: request.vlan_range,
        subnets,
        routers: network.routers.keys().copied().collect(),
        rules,
        weight,
    })
}

fn check_previous<'a>(request: &Request, previous: &'a Plan) -> Result<Vec<&'a Subnet>, PlanError> {
    let same = [
        ("--strategy", request.strategy.as_str().to_owned(), previous.strategy.as_str().to_owned()),
        ("--base", request.base.to_string(), previous.base.to_string()),
        (
            "--base6",
            request.base6.map_or_else(|| "none".to_owned(), |net| net.to_string()),
            previous.base6.map_or_else(|| "none".to_owned(), |net| net.to_string()),
        ),
        ("--vlan-range", request.vlan_range.to_string(), previous.vlan_range.to_string()),
    ];
    for (option, now, before) in same {
        if now != before {
            return Err(PlanError::Previous(format!(
                "{option} is {now}, but the plan of before has {before}: to keep its subnets both must be the same"
            )));
        }
    }
    Ok(previous.subnets.iter().collect())
}

/// A plan that is being made.
struct Maker<'a> {
    request: &'a Request,
    space: Space,
    vlans: BTreeSet<u16>,
    /// Below it no VLAN is free.
    next_vlan: u16,
    /// Names in use.
    names: BTreeSet<String>,
    /// Subnets of before whose group was not looked at yet.
    kept: BTreeMap<String, Vec<Subnet>>,
    done: Vec<Subnet>,
}

impl<'a> Maker<'a> {
    fn new(network: &Network, request: &'a Request, kept: Vec<&Subnet>) -> Self {
        let mut space = Space::new(request.base);
        // What was planned before may have been built since: then it is in use, by the plan itself.
        let is_planned = |net: &Ipv4Net| kept.iter().any(|subnet| subnet.subnet.contains(net));
        for used in &network.used {
            if let IpNet::V4(net) = used.net {
                let net = net.trunc();
                if !is_planned(&net) {
                    space.block(net);
                }
            }
        }
        let mut by_group: BTreeMap<String, Vec<Subnet>> = BTreeMap::new();
        for subnet in kept {
            space.block(subnet.subnet);
            by_group.entry(subnet.group.clone()).or_default().push(subnet.clone());
        }
        let vlans =
            network.vlans.iter().copied().chain(by_group.values().flatten().map(|subnet| subnet.vlan)).collect();
        let names = by_group.values().flatten().map(|subnet| subnet.name.clone()).collect();
        let next_vlan = request.vlan_range.first;
        Self { request, space, vlans, next_vlan, names, kept: by_group, done: Vec::new() }
    }

    /// Leaves the guests of a group where they are, and puts new ones beside them; returns those for whom there is no
    /// room. A subnet that is full grows into its other half, if nobody has that: addresses stay, only the mask changes.
    fn keep(&mut self, group: &str, guests: &[Vmid]) -> Vec<Vmid> {
        let mut waiting: BTreeSet<Vmid> = guests.iter().copied().collect();
        let mut subnets = self.kept.remove(group).unwrap_or_default();
        for subnet in &mut subnets {
            subnet.guests.retain(|vmid| waiting.remove(vmid));
        }
        for subnet in &mut subnets {
            while subnet.guests.len() + waiting.len() > room(subnet.subnet) {
                let Some(larger) = self.space.grow(subnet.subnet) else { break };
                subnet.subnet = larger;
                subnet.dhcp = dhcp(larger, subnet.gateway);
            }
            while let Some(vmid) = waiting.first().copied().filter(|_| subnet.guests.len() < room(subnet.subnet)) {
                waiting.remove(&vmid);
                subnet.guests.push(vmid);
            }
            subnet.guests.sort_unstable();
        }
        // An empty one stays, too: its VLAN may exist, and giving it to others would move them into it.
        self.done.extend(subnets);
        waiting.into_iter().collect()
    }

    fn place(&mut self, length: u8, group: String, guests: Vec<Vmid>) -> Result<(), PlanError> {
        let (base, growth) = (self.request.base, self.request.growth);
        let Some(subnet) = self.space.allocate(length) else {
            let left = match self.space.largest() {
                Some(largest) => format!("nothing larger left than {largest}"),
                None => "nothing left".to_owned(),
            };
            return Err(PlanError::Full { group, length, guests: guests.len(), growth, base, left });
        };
        let range = self.request.vlan_range;
        let Some(vlan) = (self.next_vlan..=range.last).find(|vlan| !self.vlans.contains(vlan)) else {
            return Err(PlanError::NoVlan { group, range });
        };
        self.next_vlan = vlan + 1;
        let numbered = (2..).map(|number| format!("{group}-{number}"));
        let name = std::iter::once(group.clone()).chain(numbered).find(|name| !self.names.contains(name));
        let gateway = Ipv4Addr::from(u32::from(subnet.network()) + 1);
        let subnet6 = self.request.subnet6(vlan);
        let gateway6 = subnet6.map(|net| Ipv6Addr::from(u128::from(net.network()) + 1));
        let name = name.unwrap_or_default();
        self.names.insert(name.clone());
        let dhcp = dhcp(subnet, gateway);
        self.done.push(Subnet { name, group, subnet, subnet6, vlan, gateway, gateway6, dhcp, guests });
        Ok(())
    }
}

/// All addresses on the longer side of the gateway.
fn dhcp(net: Ipv4Net, gateway: Ipv4Addr) -> [Ipv4Addr; 2] {
    let (first, last, gateway) = (u32::from(net.network()) + 1, u32::from(net.broadcast()) - 1, u32::from(gateway));
    let (first, last) = if gateway - first > last - gateway { (first, gateway - 1) } else { (gateway + 1, last) };
    [first.into(), last.into()]
}
