//! Giving addresses to a guest: who may have which, and which comes next if none is named.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::document::{Assigned, GuestFile, Interface, Pool, PoolAddress};
use super::index::{Index, Where};
use super::passed_over::InUse;
use super::places::Misplaced;
use super::search::{Next, Search};
use super::{Registry, RuleError, allocate};
use crate::model::{Family, GroupName, MacAddr, Moment, NicId, NodeName, PoolName, Prefix, Timestamp, Vmid};

/// What `assign` asks for.
#[derive(Debug, Clone)]
pub struct AssignRequest {
    /// The guest.
    pub vmid: Vmid,
    /// The node on which it is; `None`: any.
    pub node: Option<NodeName>,
    /// Its NICs with the MACs that its configuration has.
    pub nics: Vec<(NicId, MacAddr)>,
    /// Addresses asked for; empty: the next free ones.
    pub addresses: Vec<Prefix>,
    /// Pool to take from; needed when no address is named and there are several pools.
    pub pool: Option<PoolName>,
    /// Families wanted when no address is named; empty: every family of the pool.
    pub families: BTreeSet<Family>,
    /// How many addresses of each of these families.
    pub quantity: Quantity,
    /// Customer.
    pub organization: Option<String>,
    /// The name by which a caller of the API knows the guest.
    pub vps_id: Option<String>,
    /// Through which address the guest is reached for the prefixes that are named.
    pub via: Option<IpAddr>,
    /// The group of guests that hold the addresses in turn.
    pub shared: Option<GroupName>,
    /// The node's own addresses with their subnets: never handed out.
    pub avoid: Vec<IpNet>,
    /// Addresses that somebody else claims: in which words, and by which number that is acknowledged.
    pub contested: BTreeMap<Prefix, (String, String)>,
    /// Whether the network has to be asked first; `None`: no.
    pub asking: Option<Asking>,
    /// Addresses that nobody holds and somebody uses, or that mean a subnet in which somebody is: none of them is chosen.
    pub in_use: BTreeMap<IpAddr, InUse>,
    /// MACs that NICs of other guests are configured with: no address of theirs is chosen.
    pub foreign: BTreeSet<MacAddr>,
    /// Now.
    pub now: Moment,
}

/// How many addresses of a pool and a family a NIC gets when none is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// As many as are missing for it to hold this many of them: asked for again, nothing changes.
    UpTo(usize),
    /// This many besides those that it holds.
    More(usize),
}

impl Default for Quantity {
    fn default() -> Self {
        Self::UpTo(1)
    }
}

/// That the network is asked who has an address before it is assigned. That takes a while, so it is not done under the lock,
/// and the address may be somebody's by the time the lock is taken.
#[derive(Debug, Clone, Default)]
pub struct Asking {
    /// Pools about whose addresses the network is asked.
    pub pools: BTreeSet<PoolName>,
    /// What it was asked about.
    pub asked: BTreeSet<Prefix>,
    /// How many addresses of a family to ask about next.
    pub ahead: usize,
}

impl Asking {
    fn is_due(&self, pool: &PoolName, address: Prefix) -> bool {
        self.pools.contains(pool) && address.single().is_some() && !self.asked.contains(&address)
    }
}

impl Registry {
    /// Gives addresses to a guest; returns those that it did not hold before.
    pub fn assign(&mut self, request: &AssignRequest) -> Result<Vec<Prefix>, RuleError> {
        self.assign_by(&mut Where::Anywhere, request)
    }

    /// As [`Self::assign`], one of many: what the rules look for is looked up in `index`, which is kept up. It is one of this
    /// registry, and since it was made nobody else changed pools or who holds what.
    pub fn assign_indexed(&mut self, index: &mut Index, request: &AssignRequest) -> Result<Vec<Prefix>, RuleError> {
        self.assign_by(&mut Where::Indexed(index), request)
    }

    fn assign_by(&mut self, place: &mut Where<'_>, request: &AssignRequest) -> Result<Vec<Prefix>, RuleError> {
        self.whole()?;
        self.check_macs(place, request)?;
        let wanted = if request.addresses.is_empty() { self.choose(request)? } else { request.addresses.clone() };
        let is_held = |guest: &GuestFile, address| {
            let on = |nic: &NicId| guest.addresses().any(|(id, _, held)| id == *nic && held.address == address);
            request.nics.iter().all(|(nic, _)| on(nic))
        };
        let (mut new, mut unasked) = (Vec::new(), Vec::new());
        for address in wanted {
            let (pool_name, pool, entry) = place.entry(self, address).ok_or(RuleError::NotInPool(address))?;
            if let Some(named) = request.pool.as_ref().filter(|named| *named != pool_name) {
                let (actual, named) = (pool_name.clone(), named.clone());
                return Err(RuleError::WrongPool { address, actual, named });
            }
            let via = request.via.filter(|_| address.single().is_none());
            if self.guests.get(&request.vmid).is_some_and(|guest| is_held(guest, address)) {
                // It has been through all of this, and to ask for it again is no change.
                if request.shared.is_some() {
                    self.check_free(place, request, address)?;
                    check_sharable(pool_name, pool, entry, address)?;
                }
                if let Some(via) = via {
                    check_routable(pool_name, pool, address, via)?;
                }
                self.rename(request, address, via);
                continue;
            }
            check_node(request, (pool_name, pool), vec![address])?;
            allocate::check_entry(pool_name, pool, entry, address).map_err(RuleError::Unusable)?;
            if let Some((taken, what)) =
                address.single().and_then(|taken| Some((taken, place.withheld(self, &request.avoid, taken)?)))
            {
                return Err(RuleError::Unusable(format!("{taken} is {what}")));
            }
            let is_due = request.asking.as_ref().is_some_and(|asking| asking.is_due(pool_name, address));
            if !is_due {
                // What is known of an address says nothing before it is asked for again.
                self.check_contested(request, address)?;
            }
            // Whose MAC an address needs does not matter to whom cannot have it.
            self.check_free(place, request, address)?;
            if request.shared.is_some() {
                check_sharable(pool_name, pool, entry, address)?;
            }
            if let Some(via) = via {
                check_routable(pool_name, pool, address, via)?;
            }
            // What the provider sends to the MAC of another address needs none of its own.
            let is_behind = via.is_some_and(|via| !address.net().contains(&via));
            if !is_behind || entry.mac.is_some() {
                self.check_provider_mac(request, address, (pool_name, pool, entry))?;
            }
            let assigned = Assigned {
                address,
                pool: pool_name.clone(),
                gateway: pool.gateway_of(entry),
                organization: request.organization.clone(),
                vps_id: request.vps_id.clone(),
                via,
                shared: request.shared.clone(),
                assigned_at: Timestamp(request.now.whole_second()),
            };
            place.note(request.vmid, request.nics.iter().map(|(_, mac)| *mac), address);
            if self.hold(request, &assigned) {
                unasked.extend(is_due.then_some(address));
                new.push(address);
            }
        }
        self.check_via(request)?;
        if unasked.is_empty() { Ok(new) } else { Err(RuleError::Unasked { addresses: unasked }) }
    }

    /// What is behind an address can be reached through it, now that the guest holds everything that is named.
    fn check_via(&self, request: &AssignRequest) -> Result<(), RuleError> {
        let vmid = request.vmid;
        if let (Some(_), Some(address)) = (request.via, request.addresses.first()) {
            if request.addresses.iter().all(|address| address.single().is_some()) {
                let reason = format!("{address} is one address: only a prefix is reached through another address");
                return Err(RuleError::Via { vmid, address: *address, reason });
            }
        }
        for (_, interface, assigned) in self.guests.get(&vmid).iter().flat_map(|guest| guest.addresses()) {
            let against = assigned.via.and_then(|via| interface.against_via(assigned.address, via));
            if let Some(reason) = against {
                return Err(RuleError::Via { vmid, address: assigned.address, reason });
            }
        }
        Ok(())
    }

    /// Notes another customer, name, way or group for an address that the guest holds, if one is named.
    fn rename(&mut self, request: &AssignRequest, address: Prefix, via: Option<IpAddr>) {
        let is_named = request.organization.is_some() || request.vps_id.is_some();
        if !is_named && via.is_none() && request.shared.is_none() {
            return;
        }
        let Some(guest) = self.guests.get_mut(&request.vmid) else { return };
        for assigned in guest.interfaces.values_mut().flat_map(|interface| &mut interface.addresses) {
            if assigned.address == address {
                assigned.organization = request.organization.clone().or(assigned.organization.take());
                assigned.vps_id = request.vps_id.clone().or(assigned.vps_id.take());
                assigned.via = via.or(assigned.via);
                assigned.shared = request.shared.clone().or(assigned.shared.take());
            }
        }
    }

    /// Nobody gets what somebody else claims, unless he holds it already.
    fn check_contested(&self, request: &AssignRequest, address: Prefix) -> Result<(), RuleError> {
        let holds = |guest: &GuestFile| guest.addresses().any(|(.., assigned)| assigned.address == address);
        if self.guests.get(&request.vmid).is_some_and(holds) {
            return Ok(());
        }
        match request.contested.iter().find(|(contested, _)| contested.overlaps(address)) {
            Some((_, (sentence, id))) => {
                let (sentence, id) = (sentence.clone(), id.clone());
                Err(RuleError::Contested { address, sentence, id })
            }
            None => Ok(()),
        }
    }

    /// Nobody else has it, or all who have it are of the group that is named, and of one customer.
    fn check_free(&self, place: &Where<'_>, request: &AssignRequest, address: Prefix) -> Result<(), RuleError> {
        let guests = place.holders(self, address);
        let holdings = guests.flat_map(|(vmid, guest)| guest.addresses().map(move |(nic, _, held)| (*vmid, nic, held)));
        for (holder, nic, held) in holdings {
            let own =
                holder == request.vmid && held.address == address && request.nics.iter().any(|(own, _)| *own == nic);
            if own || !held.address.overlaps(address) {
                continue;
            }
            let (wanted, group) = (request.shared.as_ref(), held.shared.as_ref());
            if held.address != address || holder == request.vmid || (wanted, group) == (None, None) {
                return Err(RuleError::Taken { address, holder, held: held.address });
            }
            if wanted != group {
                let (wanted, group) = (wanted.cloned(), group.cloned());
                return Err(RuleError::OtherGroup { address, vmid: request.vmid, holder, wanted, group });
            }
            let own = self.guests.get(&request.vmid).into_iter().flat_map(GuestFile::addresses);
            let own = own.filter(|(.., own)| own.address == address).find_map(|(.., own)| own.organization.clone());
            let ours = request.organization.clone().or(own);
            if held.organization != ours {
                let theirs = held.organization.clone();
                return Err(RuleError::OtherCustomer { address, vmid: request.vmid, holder, theirs });
            }
        }
        Ok(())
    }

    /// The MAC must be the one that the provider bound to the address, if the provider does that.
    fn check_provider_mac(
        &self,
        request: &AssignRequest,
        address: Prefix,
        (name, pool, entry): (&PoolName, &Pool, &PoolAddress),
    ) -> Result<(), RuleError> {
        match entry.mac {
            Some(expected) => match request.nics.iter().find(|(_, mac)| *mac != expected) {
                Some((nic, actual)) => {
                    let (vmid, nic, actual) = (request.vmid, *nic, *actual);
                    let is_foreign =
                        request.foreign.contains(&expected) || self.registered_macs(vmid).any(|mac| mac == expected);
                    Err(RuleError::ProviderMac { address, expected, vmid, nic, actual, is_foreign })
                }
                None => Ok(()),
            },
            None if pool.provider_mac() => {
                let (pool, profile) = (name.clone(), pool.profile_name().to_owned());
                Err(RuleError::NoProviderMac { address, pool, profile })
            }
            None => Ok(()),
        }
    }

    /// Puts one address on the NICs of the request; says whether that is news. Nobody else has it.
    fn hold(&mut self, request: &AssignRequest, assigned: &Assigned) -> bool {
        let address = assigned.address;
        let guest = self.guests.get_or_insert_with(request.vmid, || GuestFile::new(request.vmid));
        let mut news = false;
        for (nic, mac) in &request.nics {
            let interface = guest.interfaces.entry(*nic).or_insert_with(|| Interface {
                also: BTreeSet::new(),
                further_macs: BTreeSet::new(),
                vrrp: BTreeSet::new(),
                mac: *mac,
                dhcp: None,
                trunk: BTreeSet::new(),
                any_link_local: false,
                any_destination: false,
                router_advertisements: None,
                link_local: BTreeSet::new(),
                addresses: Vec::new(),
            });
            if interface.addresses.iter().all(|held| held.address != address) {
                interface.addresses.push(assigned.clone());
                // The first of its family stays the primary one, whatever number comes later.
                interface.addresses.sort_by_key(|held| held.address.family());
                news = true;
            }
        }
        news
    }

    /// A NIC keeps the MAC with which it was registered, and no other NIC may have it.
    fn check_macs(&self, place: &Where<'_>, request: &AssignRequest) -> Result<(), RuleError> {
        for (nic, mac) in &request.nics {
            for (vmid, guest) in place.with_mac(self, request.vmid, *mac) {
                for (other, interface) in &guest.interfaces {
                    let same_nic = *vmid == request.vmid && other == nic;
                    if same_nic && interface.mac != *mac && !interface.addresses.is_empty() {
                        let (vmid, nic, registered) = (*vmid, *nic, interface.mac);
                        return Err(RuleError::MacChanged { vmid, nic, registered, actual: *mac });
                    }
                    let named = *vmid == request.vmid && request.nics.iter().any(|(name, _)| name == other);
                    let is_taken = interface.all_macs().any(|own| own == *mac);
                    if !same_nic && !named && is_taken && !interface.addresses.is_empty() {
                        return Err(RuleError::MacTaken { mac: *mac, vmid: *vmid, nic: *other });
                    }
                }
            }
        }
        Ok(())
    }

    /// The pool that is meant, if no address is named.
    fn meant(&self, request: &AssignRequest) -> Result<(&PoolName, &Pool), RuleError> {
        // What does not work where the guest is, is not chosen unless it is all that there is.
        let works = |pool: &Pool| request.node.as_ref().is_none_or(|node| pool.serves(node));
        let mut known: Vec<&PoolName> =
            self.pools.pools.iter().filter(|(_, pool)| works(pool)).map(|(name, _)| name).collect();
        if known.is_empty() {
            known = self.pools.pools.keys().collect();
        }
        let only = <[&PoolName; 1]>::try_from(known.as_slice()).ok().map(|[name]| name);
        let Some(name) = request.pool.as_ref().or(only) else {
            let names = known.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(if known.is_empty() { RuleError::NoPools } else { RuleError::WhichPool(names) });
        };
        self.pool(name)?;
        let missing = || RuleError::NoPool(name.clone(), Vec::new());
        self.pools.pools.get_key_value(name).ok_or_else(missing)
    }

    /// What the NICs hold of the pool that is meant, and its lowest free addresses of each family as far as they lack some.
    fn choose(&self, request: &AssignRequest) -> Result<Vec<Prefix>, RuleError> {
        let (name, pool) = self.meant(request)?;
        let search = Search::new(self, request, name, pool);
        let families = if request.families.is_empty() { search.present.clone() } else { request.families.clone() };
        if families.is_empty() {
            return Err(search.exhausted(Family::V4));
        }
        let mac = request.nics.first().map(|(_, mac)| *mac);
        let (mut chosen, mut unasked) = (Vec::new(), Vec::new());
        for family in families {
            // Of a bond each NIC holds what one of them holds.
            let held = search.held(family);
            let missing = search.missing(held.len());
            chosen.extend(held);
            if missing == 0 {
                continue;
            }
            check_node(request, (name, pool), Vec::new())?;
            let entries = search.fitting(mac);
            match search.next(&entries, family, missing)? {
                Next::Take(addresses) => chosen.extend(addresses),
                Next::Ask(addresses) => unasked.extend(addresses),
            }
        }
        if unasked.is_empty() { Ok(chosen) } else { Err(RuleError::Unasked { addresses: unasked }) }
    }

    /// The MAC that the provider bound to the next free addresses, and that the NIC has or could be given: its own, else
    /// one that no other guest has.
    pub fn choose_mac(&self, request: &AssignRequest) -> Result<MacAddr, RuleError> {
        self.whole()?;
        let (name, pool) = self.meant(request)?;
        let search = Search::new(self, request, name, pool);
        let families = if request.families.is_empty() { search.present.clone() } else { request.families.clone() };
        let own = request.nics.first().map(|(_, mac)| *mac);
        let foreign: BTreeSet<MacAddr> =
            self.registered_macs(request.vmid).chain(request.foreign.iter().copied()).collect();
        let mut macs: Vec<MacAddr> = pool.addresses.iter().filter_map(|entry| entry.mac).collect();
        let is_fixed = request.nics.iter().any(|(nic, _)| self.has_interface(request.vmid, *nic));
        macs.retain(|mac| !foreign.contains(mac) && (!is_fixed || Some(*mac) == own));
        macs.sort_by_key(|mac| (Some(*mac) != own, search.first_bound(*mac), *mac));
        macs.dedup();
        let has_all = |mac: &MacAddr| {
            let entries = search.fitting(Some(*mac));
            let has_enough = |family: Family| {
                let missing = search.missing(search.held(family).len());
                search.free(&entries, family).take(missing).count() == missing
            };
            families.iter().all(|family| has_enough(*family))
        };
        // With nothing missing the NIC needs no other MAC than it has, whether an entry names it or not.
        if let Some(own) = own.filter(|_| families.iter().all(|family| search.missing(search.held(*family).len()) == 0))
        {
            return Ok(own);
        }
        check_node(request, (name, pool), Vec::new())?;
        let lacks = |family: &&Family| search.missing(search.held(**family).len()) > 0;
        let refused = || families.iter().filter(lacks).map(|family| search.refusal(&[], *family)).next();
        macs.into_iter().find(has_all).ok_or_else(|| refused().unwrap_or_else(|| search.exhausted(Family::V4)))
    }

    /// Whether a NIC holds addresses.
    pub(super) fn has_interface(&self, vmid: Vmid, nic: NicId) -> bool {
        let interface = self.guests.get(&vmid).and_then(|guest| guest.interfaces.get(&nic));
        interface.is_some_and(|interface| !interface.addresses.is_empty())
    }

    /// MACs of NICs of other guests that hold addresses.
    pub(super) fn registered_macs(&self, vmid: Vmid) -> impl Iterator<Item = MacAddr> {
        let others = self.guests.iter().filter(move |(other, _)| **other != vmid);
        let interfaces = others.flat_map(|(_, guest)| guest.interfaces.values());
        interfaces.filter(|interface| !interface.addresses.is_empty()).flat_map(Interface::own_macs)
    }
}

/// Whether several guests can have it in turn: not if the provider sends it to one MAC.
fn check_sharable(name: &PoolName, pool: &Pool, entry: &PoolAddress, address: Prefix) -> Result<(), RuleError> {
    let mac = entry.mac;
    if mac.is_none() && !pool.provider_mac() {
        return Ok(());
    }
    let (pool, profile) = (name.clone(), pool.profile_name().to_owned());
    Err(RuleError::OneMac { address, mac, pool, profile })
}

/// Whether the provider, or the administrator's own router, could send a prefix through an address at all.
fn check_routable(name: &PoolName, pool: &Pool, address: Prefix, via: IpAddr) -> Result<(), RuleError> {
    if pool.routes_through(address.family()) {
        return Ok(());
    }
    let (pool, profile) = (name.clone(), pool.profile_name().to_owned());
    Err(RuleError::NotRouted { address, via, pool, profile })
}

/// A guest is given nothing that does not work on its node, unless the pool only warns of that.
fn check_node(request: &AssignRequest, pool: (&PoolName, &Pool), addresses: Vec<Prefix>) -> Result<(), RuleError> {
    let found = request.node.as_ref().and_then(|node| Misplaced::of(pool, request.vmid, node, addresses));
    found.filter(Misplaced::is_refused).map_or(Ok(()), |misplaced| Err(RuleError::WrongNode(misplaced)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::document::PoolAddress;
    use crate::registry::fixtures::{A, B, at, registry, request};

    #[test]
    fn an_address_has_one_holder() {
        let mut registry = registry();
        let first = request("100", A, &["203.0.113.2"]);
        assert_eq!(registry.assign(&first).unwrap().len(), 1);
        assert_eq!(registry.assign(&first).unwrap().len(), 0, "again is fine and no news");
        let error = registry.assign(&request("101", B, &["203.0.113.2"])).unwrap_err();
        assert_eq!(error.to_string(), "203.0.113.2 is held by guest 100");
        assert_eq!(error.hint().unwrap(), "to move it: `pve-public-ip release 100 203.0.113.2`");
        let error = registry.assign(&request("101", B, &["203.0.113.0/29"])).unwrap_err();
        assert!(error.to_string().contains("is held by guest 100"), "{error}");
        registry.release("100".parse().unwrap(), &[], at("11:00")).unwrap();
        assert_eq!(registry.assign(&request("101", B, &["203.0.113.2"])).unwrap().len(), 1);
    }

    #[test]
    fn a_mac_belongs_to_one_nic_unless_two_share_an_assignment() {
        let mut registry = registry();
        registry.assign(&request("100", A, &["203.0.113.2"])).unwrap();
        let error = registry.assign(&request("101", A, &["203.0.113.3"])).unwrap_err();
        assert_eq!(error.to_string(), "MAC 02:00:00:00:00:0a is that of guest 100 net0 already");
        let error = registry.assign(&request("100", B, &["203.0.113.3"])).unwrap_err();
        assert!(error.to_string().contains("is registered with MAC 02:00:00:00:00:0a, but has 02:00:00:00:00:0b"));
        let mut bond = request("102", B, &["203.0.113.3"]);
        bond.nics.push(("net1".parse().unwrap(), B.parse().unwrap()));
        registry.assign(&bond).unwrap();
        assert_eq!(registry.guests[&bond.vmid].interfaces.len(), 2);
        assert!(registry.conflicts().is_empty());
    }

    #[test]
    fn what_is_contested_is_not_handed_out() {
        let mut registry = registry();
        let sentence = "somebody claims it".to_owned();
        let claimed = |addresses: &[&str]| -> BTreeMap<Prefix, (String, String)> {
            addresses.iter().map(|text| (text.parse().unwrap(), (sentence.clone(), "1a2b3c4d".to_owned()))).collect()
        };
        let next = |contested| {
            let pool = Some("lan".parse().unwrap());
            AssignRequest { pool, families: BTreeSet::from([Family::V4]), contested, ..request("100", A, &[]) }
        };
        let one = claimed(&["203.0.113.2", "203.0.113.4"]);
        assert_eq!(registry.clone().assign(&next(one.clone())).unwrap()[0].to_string(), "203.0.113.3");
        let named = AssignRequest { contested: one.clone(), ..request("100", A, &["203.0.113.2"]) };
        let error = registry.assign(&named).unwrap_err();
        assert_eq!(error.to_string(), "203.0.113.2 is contested: somebody claims it");
        let hint = error.hint().unwrap();
        assert!(hint.starts_with("to assign it anyway, first `pve-public-ip conflicts ack 1a2b3c4d`"), "{hint}");
        let all = claimed(&["203.0.113.2", "203.0.113.3", "203.0.113.4", "203.0.113.5", "203.0.113.6"]);
        let error = registry.assign(&next(all)).unwrap_err();
        assert_eq!(error.to_string(), "203.0.113.2 is contested: somebody claims it", "better than that none is left");
        registry.assign(&request("100", A, &["203.0.113.2"])).unwrap();
        assert_eq!(registry.assign(&named).unwrap(), [], "its own");
    }

    #[test]
    fn the_network_is_asked_about_what_is_chosen() {
        let mut registry = registry();
        let asking = |asked: &[&str], ahead| Asking {
            pools: BTreeSet::from(["lan".parse().unwrap()]),
            asked: asked.iter().map(|text| text.parse().unwrap()).collect(),
            ahead,
        };
        let next = |vmid: &str, asked: &[&str], ahead| AssignRequest {
            pool: Some("lan".parse().unwrap()),
            families: BTreeSet::from([Family::V4]),
            asking: Some(asking(asked, ahead)),
            ..request(vmid, if vmid == "100" { A } else { B }, &[])
        };
        let unasked = |found: Result<Vec<Prefix>, RuleError>| match found {
            Err(RuleError::Unasked { addresses }) => addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(unasked(registry.clone().assign(&next("100", &[], 1))), ["203.0.113.2"]);
        let given = registry.assign(&next("100", &["203.0.113.2"], 1)).unwrap();
        assert_eq!(given[0].to_string(), "203.0.113.2");
        // Somebody was faster: it is chosen again, of what was asked about, and nothing is said of the other guest.
        assert_eq!(
            unasked(registry.clone().assign(&next("101", &["203.0.113.2"], 3))),
            ["203.0.113.3", "203.0.113.4", "203.0.113.5"]
        );
        let given = registry.clone().assign(&next("101", &["203.0.113.2", "203.0.113.5"], 3)).unwrap();
        assert_eq!(given[0].to_string(), "203.0.113.5", "the lowest that was asked about");
        // What is named is asked about, too, but not if the guest has it or nobody can.
        let named =
            |vmid, address: &str| AssignRequest { addresses: vec![address.parse().unwrap()], ..next(vmid, &[], 1) };
        assert_eq!(unasked(registry.clone().assign(&named("101", "203.0.113.4"))), ["203.0.113.4"]);
        assert_eq!(registry.clone().assign(&named("100", "203.0.113.2")).unwrap(), []);
        let error = registry.clone().assign(&named("101", "203.0.113.2")).unwrap_err();
        assert!(matches!(error, RuleError::Taken { .. }), "{error}");
    }

    #[test]
    fn addresses_of_other_macs_are_the_reason() {
        let mut registry = registry();
        let ovh: PoolName = "ovh".parse().unwrap();
        let next = |vmid: &str, mac| AssignRequest { pool: Some("ovh".parse().unwrap()), ..request(vmid, mac, &[]) };
        let error = registry.clone().assign(&next("100", A)).unwrap_err();
        let unknown =
            "the MAC that the provider bound to 198.51.100.7 is not known (profile ovh-bridged of pool `ovh`)";
        assert_eq!(error.to_string(), unknown);
        let entry = |address: &str, mac: &str| PoolAddress {
            mac: Some(mac.parse().unwrap()),
            ..PoolAddress::new(address.parse().unwrap())
        };
        registry.add_address(&ovh, entry("198.51.100.7/32", B)).unwrap();
        let error = registry.clone().assign(&next("100", A)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "pool `ovh` has no free IPv4 address for guest 100 net0 with MAC 02:00:00:00:00:0a: 198.51.100.7 is free, but bound to \
             MAC 02:00:00:00:00:0b by the provider"
        );
        assert_eq!(
            error.hint().unwrap(),
            "with the guest stopped, `pve-public-ip assign 100 --pool ovh --set-mac` gives the NIC the MAC 02:00:00:00:00:0b"
        );
        assert_eq!(registry.choose_mac(&next("100", A)).unwrap().to_string(), B);
        let given = registry.assign(&next("101", B)).unwrap();
        assert_eq!(given[0].to_string(), "198.51.100.7");
        // An address of a MAC that another guest has is none for this one.
        registry.add_address(&ovh, entry("198.51.100.8/32", B)).unwrap();
        for error in
            [registry.clone().assign(&next("100", A)).unwrap_err(), registry.choose_mac(&next("100", A)).unwrap_err()]
        {
            assert_eq!(error.to_string(), "pool `ovh` has no free IPv4 address");
        }
        assert_eq!(registry.choose_mac(&next("101", B)).unwrap().to_string(), B, "its own");
        // A NIC that holds addresses keeps its MAC.
        registry.add_address(&ovh, entry("198.51.100.9/32", "02:00:00:00:00:0c")).unwrap();
        registry.assign(&request("100", A, &["203.0.113.2"])).unwrap();
        let error = registry.assign(&next("100", A)).unwrap_err();
        assert!(
            error.hint().unwrap().starts_with("net0 holds addresses with its MAC: give the guest another NIC"),
            "{error}"
        );
        assert!(registry.choose_mac(&next("100", A)).is_err());
        // One that cools down, with another MAC, is not passed over in silence.
        let given = registry.clone();
        registry.release("101".parse().unwrap(), &[], at("10:00")).unwrap();
        let foreign = BTreeSet::from([B.parse().unwrap(), "02:00:00:00:00:0c".parse().unwrap()]);
        let asked = AssignRequest { foreign, now: at("10:30"), ..next("102", "02:00:00:00:00:0d") };
        let error = registry.assign(&asked).unwrap_err();
        assert_eq!(
            error.to_string(),
            "pool `ovh` has no free IPv4 address before 2026-11-22T11:00:00Z: 198.51.100.7 was guest 101's until 2026-11-22T10:00:00Z"
        );
        assert_eq!(
            error.hint().unwrap(),
            "it is bound to MAC 02:00:00:00:00:0b: when no other guest has that, `pve-public-ip assign 102 198.51.100.7 --set-mac`, \
             with the guest stopped, takes it at once"
        );
        let mut registry = given;
        // Nor is one of a MAC that a guest without addresses is configured with.
        let foreign = BTreeSet::from(["02:00:00:00:00:0c".parse().unwrap()]);
        let error = registry.assign(&AssignRequest { foreign, ..next("102", "02:00:00:00:00:0d") }).unwrap_err();
        assert_eq!(error.to_string(), "pool `ovh` has no free IPv4 address");
    }

    #[test]
    fn next_free_takes_one_of_each_family() {
        let mut registry = registry();
        let mut next = request("100", A, &[]);
        next.pool = Some("lan".parse().unwrap());
        let given: Vec<String> = registry.assign(&next).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(given, ["203.0.113.2", "2001:db8::1"]);
        next.pool = None;
        let message = registry.assign(&next).unwrap_err().to_string();
        assert_eq!(message, "say which pool to take an address from: lan, ovh");
        next.pool = Some("lann".parse().unwrap());
        assert_eq!(registry.assign(&next).unwrap_err().hint().unwrap(), "did you mean `lan`?");
    }

    #[test]
    fn the_providers_mac_is_insisted_on() {
        let mut registry = registry();
        let error = registry.assign(&request("100", A, &["198.51.100.7"])).unwrap_err();
        assert!(error.to_string().contains("is not known (profile ovh-bridged of pool `ovh`)"), "{error}");
        let entry = PoolAddress { mac: Some(B.parse().unwrap()), ..PoolAddress::new("198.51.100.7".parse().unwrap()) };
        registry.add_address(&"ovh".parse().unwrap(), entry).unwrap();
        let error = registry.assign(&request("100", A, &["198.51.100.7"])).unwrap_err();
        assert!(error.to_string().contains("is bound to MAC 02:00:00:00:00:0b by the provider"), "{error}");
        registry.assign(&request("100", B, &["198.51.100.7"])).unwrap();
    }

    #[test]
    fn whose_mac_an_address_needs_is_said_to_whom_can_have_it() {
        let mut registry = registry();
        let entry = PoolAddress { mac: Some(B.parse().unwrap()), ..PoolAddress::new("198.51.100.7".parse().unwrap()) };
        registry.add_address(&"ovh".parse().unwrap(), entry).unwrap();
        // Another guest's NIC has the MAC: this one cannot have it, too.
        let foreign = BTreeSet::from([B.parse().unwrap()]);
        let error = registry.assign(&AssignRequest { foreign, ..request("100", A, &["198.51.100.7"]) }).unwrap_err();
        assert!(error.hint().unwrap().starts_with("a NIC of another guest has that MAC"), "{error}");
        let error = registry.clone().assign(&request("100", A, &["198.51.100.7"])).unwrap_err();
        assert!(error.hint().unwrap().contains("--set-mac"), "{error}");
        registry.assign(&request("101", B, &["198.51.100.7"])).unwrap();
        let error = registry.assign(&request("100", A, &["198.51.100.7"])).unwrap_err();
        assert!(matches!(error, RuleError::Taken { .. }), "{error}");
    }
}
