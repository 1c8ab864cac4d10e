//! What a caller of the API means and sees: the guest of a name, what is known of an address, pages of addresses.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr as _;

use ipnet::IpNet;

use crate::cloudinit::prefix_length;
use crate::code;
use crate::model::text::escaped;
use crate::model::{Family, GuestKind, MacAddr, Moment, NicId, NodeName, PoolName, Prefix, Problem, Subject, Vmid};
use crate::registry::document::{EntryIndex, GuestFile, Mode, Pool, PoolAddress};
use crate::registry::{Holding, Inventory, Registry, State, capacity};
use crate::reply::{Address, AddressHolder, AddressState, Addresses, PoolSummary};
use crate::request::{ListAddresses, PAGE_LIMIT};

/// What Proxmox VE's configuration says of a guest, as far as it can be meant by that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its number.
    pub vmid: Vmid,
    /// Its name.
    pub name: Option<String>,
    /// Its tags.
    pub tags: BTreeSet<String>,
    /// Its NICs.
    pub nics: Vec<(NicId, MacAddr)>,
}

/// The guest that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meant {
    /// Its number.
    pub vmid: Vmid,
    /// Whether only the MAC told: the caller's name for it is new.
    pub by_mac: bool,
}

/// No name of a guest is longer, in bytes.
pub const NAME_LIMIT: usize = 128;

/// Refuses what cannot be a name: it is stored and shown.
pub fn check_name(word: &str) -> Result<(), Problem> {
    let sentence = match word {
        "" => "the guest has no name: `vps_id` is empty".to_owned(),
        word if word.len() > NAME_LIMIT => {
            format!("`vps_id` has {} bytes; {NAME_LIMIT} are allowed", word.len())
        }
        word if *word != *escaped(word) => "`vps_id` has a control character".to_owned(),
        _ => return Ok(()),
    };
    Err(Problem::new(code!("request-invalid"), Subject::Command, sentence, "a VMID, the guest's name, or a tag of it"))
}

/// The guest by what the registry knows: its number if `exists`, or the name that an allocation gave to it.
pub fn by_registry(word: &str, registry: &Registry, exists: impl Fn(Vmid) -> bool) -> Option<Result<Vmid, Problem>> {
    let number = word.parse::<Vmid>().ok();
    if let Some(vmid) = number.filter(|vmid| exists(*vmid)) {
        return Some(Ok(vmid));
    }
    let labelled = registry.assignments().filter(|(.., assigned)| assigned.vps_id.as_deref() == Some(word));
    let labelled: BTreeSet<Vmid> = labelled.map(|(vmid, ..)| vmid).collect();
    // A guest that is destroyed, and holds addresses still, can be meant to release them.
    let held = number.filter(|vmid| labelled.is_empty() && registry.guests.contains_key(vmid));
    held.map(Ok).or_else(|| only(word, &labelled))
}

/// The guest by what Proxmox VE's configuration says; by its MAC last, if that is allowed.
pub fn by_configuration(word: &str, guests: &[Named], mac: Option<MacAddr>, by_mac: bool) -> Result<Meant, Problem> {
    let is_meant = |guest: &&Named| guest.name.as_deref() == Some(word) || guest.tags.contains(word);
    let named: BTreeSet<Vmid> = guests.iter().filter(is_meant).map(|guest| guest.vmid).collect();
    if let Some(found) = only(word, &named) {
        return found.map(|vmid| Meant { vmid, by_mac: false });
    }
    let Some(mac) = mac.filter(|_| by_mac) else {
        let hint = if by_mac {
            "name the MAC of its NIC, too: by that it is found"
        } else {
            "`qm list` and `pct list` show the guests"
        };
        let sentence =
            format!("no guest is called `{word}`: it is no VMID, no name of an allocation, no guest's name and no tag");
        return Err(Problem::new(code!("unknown-guest"), Subject::Command, sentence, hint));
    };
    let with_mac = guests.iter().filter(|guest| guest.nics.iter().any(|(_, known)| *known == mac));
    let with_mac: BTreeSet<Vmid> = with_mac.map(|guest| guest.vmid).collect();
    if let Some(found) = only(&mac.to_string(), &with_mac) {
        return found.map(|vmid| Meant { vmid, by_mac: true });
    }
    let sentence = format!("no guest is called `{word}`, and no guest has a NIC with the MAC {mac}");
    let hint = "create the guest first, or correct the MAC: `qm config VMID` shows it";
    Err(Problem::new(code!("unknown-guest"), Subject::Command, sentence, hint))
}

/// The one that is found, or that there are several.
fn only(word: &str, found: &BTreeSet<Vmid>) -> Option<Result<Vmid, Problem>> {
    let first = found.first()?;
    if found.len() == 1 {
        return Some(Ok(*first));
    }
    let list: Vec<String> = found.iter().take(5).map(ToString::to_string).collect();
    let more = if found.len() > list.len() { format!(" and {} more", found.len() - list.len()) } else { String::new() };
    let sentence = format!("`{word}` means {} guests: {}{more}", found.len(), list.join(", "));
    Some(Err(Problem::new(code!("guest-ambiguous"), Subject::Command, sentence, "name the guest by its VMID")))
}

/// The NICs that get an address: the one that is named, those with the MAC, or the first.
pub fn nics(guest: &Named, interface: Option<NicId>, mac: Option<MacAddr>) -> Result<Vec<NicId>, Problem> {
    let Some(mac) = mac else { return Ok(vec![interface.unwrap_or(NicId::FIRST)]) };
    let with_mac =
        guest.nics.iter().filter(|(nic, known)| *known == mac && interface.is_none_or(|named| named == *nic));
    let with_mac: Vec<NicId> = with_mac.map(|(nic, _)| *nic).collect();
    if !with_mac.is_empty() {
        return Ok(with_mac);
    }
    let vmid = guest.vmid;
    let known: Vec<String> = guest.nics.iter().map(|(nic, mac)| format!("{nic} {mac}")).collect();
    let known = if known.is_empty() { "none with a fixed MAC".to_owned() } else { known.join(", ") };
    let which = interface.map_or("no NIC", |_| "no such NIC");
    let sentence = format!("guest {vmid} has {which} with the MAC {mac}; it has {known}");
    Err(Problem::of_guest(code!("mac-not-of-guest"), vmid, sentence, "correct the MAC, or leave it out"))
}

/// A registry, looked at for callers.
#[derive(Debug)]
pub struct Lookup<'a> {
    registry: &'a Registry,
    own: &'a [IpNet],
    now: Moment,
    /// The states of all addresses, made when they are needed: one address is found sooner than all are sorted.
    inventory: OnceCell<Inventory<'a>>,
    /// The entries of each pool, sorted when they are needed.
    pools: BTreeMap<&'a PoolName, OnceCell<EntryIndex<'a>>>,
    places: &'a BTreeMap<Vmid, (NodeName, GuestKind)>,
    /// The organization whose addresses exist for the caller.
    within: Option<&'a str>,
}

/// The free addresses of an entry with more addresses than this are listed as the entry.
const SINGLE: u128 = 1 << 16;

impl<'a> Lookup<'a> {
    /// `own` are the node's own addresses; `places` says where guests are.
    pub fn of(
        registry: &'a Registry,
        own: &'a [IpNet],
        places: &'a BTreeMap<Vmid, (NodeName, GuestKind)>,
        within: Option<&'a str>,
        now: Moment,
    ) -> Self {
        let pools = registry.pools.pools.keys().map(|name| (name, OnceCell::new())).collect();
        Self { registry, own, now, inventory: OnceCell::new(), pools, places, within }
    }

    fn inventory(&self) -> &Inventory<'a> {
        self.inventory.get_or_init(|| Inventory::of(self.registry, self.own, self.now))
    }

    fn entry(&self, pool: &PoolName, address: Prefix) -> Option<&'a PoolAddress> {
        let contents = self.registry.pools.pools.get(pool)?;
        self.pools.get(pool)?.get_or_init(|| EntryIndex::new(contents)).entry(address)
    }

    /// Whether an assignment exists for the caller.
    fn is_seen(&self, holding: &Holding<'_>) -> bool {
        self.within.is_none_or(|within| holding.3.organization.as_deref() == Some(within))
    }

    /// Whether a guest holds addresses of nobody but the caller's organization.
    pub fn is_own_guest(&self, vmid: Vmid) -> bool {
        let held = self.registry.guests.get(&vmid).into_iter().flat_map(GuestFile::addresses);
        let mut others = held.filter(|(.., assigned)| {
            self.within.is_some_and(|within| assigned.organization.as_deref() != Some(within))
        });
        others.next().is_none()
    }

    /// What the caller is told of an address that does not exist for it: the same as of one that is in no pool.
    pub fn unknown(address: Prefix) -> Problem {
        let sentence = format!("{address} is in no pool");
        let hint = "`ListVPSPublicIPs`, or `pve-public-ip pool list`, shows what there is";
        Problem::new(code!("address-in-no-pool"), Subject::Address(address), sentence, hint)
    }

    /// The holders of an address, as far as the caller may know them.
    pub fn holders(&self, address: Prefix) -> Vec<Holding<'a>> {
        self.registry.overlapping(address).into_iter().filter(|holding| self.is_seen(holding)).collect()
    }

    /// Whether the address is not there for the caller: somebody whom he must not know of holds it, or no pool has it. The same work
    /// for both, so that the time of a refusal does not tell them apart.
    pub fn is_hidden(&self, address: Prefix) -> bool {
        let is_foreign = self.registry.overlapping(address).iter().any(|holding| !self.is_seen(holding));
        let is_nowhere = self.registry.pool_of(address).is_none_or(|(_, pool)| pool.entry(address).is_none());
        is_foreign | is_nowhere
    }

    /// What is known of an address or of a prefix as it was created. Of several guests that hold it in turn the first is named.
    pub fn address(&self, address: Prefix) -> Result<Address, Problem> {
        self.address_of(address, None)
    }

    /// The same, as this guest holds it if it does.
    pub fn address_of(&self, address: Prefix, vmid: Option<Vmid>) -> Result<Address, Problem> {
        // The same work whether it exists for the caller or not.
        let held = self.registry.overlapping(address);
        let held = held.iter().find(|holding| vmid == Some(holding.0)).or(held.first());
        let found = self.registry.pool_of(address).and_then(|(name, pool)| Some((name, pool, pool.entry(address)?)));
        if let Some(holding) = held {
            return if self.is_seen(holding) { Ok(self.held(holding)) } else { Err(Self::unknown(address)) };
        }
        let (name, pool, entry) = found.filter(|_| self.within.is_none()).ok_or_else(|| Self::unknown(address))?;
        if self.registry.is_partial() {
            let sentence = format!("whether {address} is free cannot be said: a file of the registry cannot be read");
            let hint = "`pve-public-ip verify` names the file";
            return Err(Problem::new(code!("registry-broken"), Subject::Address(address), sentence, hint));
        }
        let spans = self.inventory().spans(pool, entry);
        let span = spans.iter().find(|span| (span.first..=span.last).contains(&address.first()));
        let state = span.map_or(&State::Free, |span| &span.state);
        Ok(unheld(name, pool, entry, address, state))
    }

    fn held(&self, (vmid, interface, nic, assigned): &Holding<'_>) -> Address {
        let entry = self.entry(&assigned.pool, assigned.address);
        let pool = self.registry.pools.pools.get(&assigned.pool);
        let bridged = pool.is_some_and(|pool| pool.mode() == Mode::Bridged);
        let whole = entry.map_or(assigned.address, |entry| entry.address);
        Address {
            address: assigned.address,
            prefix_length: prefix_length(assigned.address, whole, assigned.gateway, bridged),
            gateway: assigned.gateway,
            pool: assigned.pool.clone(),
            state: AddressState::Assigned,
            enforce: pool.map(Pool::enforce).unwrap_or_default(),
            monthly_cost_cents: entry.and_then(|entry| entry.monthly_cost_cents),
            mac: Some(nic.mac),
            free_at: None,
            shared: assigned.shared.clone(),
            via: assigned.via,
            holder: Some(AddressHolder {
                vmid: *vmid,
                vps_id: assigned.vps_id.clone(),
                interface: *interface,
                node: self.places.get(vmid).map(|(node, _)| node.clone()),
                organization: assigned.organization.clone(),
                assigned_at: assigned.assigned_at,
            }),
        }
    }

    /// The pools, with totals.
    pub fn pools(&self) -> Vec<PoolSummary> {
        self.registry.pools.pools.iter().map(|(name, pool)| self.summary(name, pool)).collect()
    }

    /// One pool, with totals.
    pub fn pool(&self, name: &PoolName) -> Option<PoolSummary> {
        self.registry.pools.pools.get(name).map(|pool| self.summary(name, pool))
    }

    fn summary(&self, name: &PoolName, pool: &Pool) -> PoolSummary {
        let totals = self.inventory().totals(pool).into_iter().zip(Family::BOTH);
        PoolSummary {
            name: name.clone(),
            profile: pool.profile_name().to_owned(),
            bridge: pool.bridge,
            gateway4: pool.gateway4.map(IpAddr::V4),
            gateway6: pool.gateway6.map(IpAddr::V6),
            gateway_mac: pool.gateway_mac,
            enforce: pool.enforce(),
            uplink_guard: pool.uplink_guard(),
            allowed_macs: pool.allowed_macs.clone(),
            probe: pool.probe(),
            cool_down: pool.cool_down(),
            guest_routers: pool.guest_routers,
            nodes: pool.nodes.clone(),
            elsewhere: pool.elsewhere(),
            totals: totals.filter_map(|(totals, family)| Some((family.key().to_owned(), totals?))).collect(),
        }
    }

    /// A page of addresses, in their order. `guest` is the one that the request names.
    pub fn page(&self, request: &ListAddresses, guest: Option<Vmid>) -> Result<Addresses, Problem> {
        let size = match request.page_size {
            None => 100,
            Some(size @ 1..=PAGE_LIMIT) => usize::from(size),
            Some(size) => return Err(invalid(format!("page_size: {size} is not 1 to {PAGE_LIMIT}"))),
        };
        let after = request.page_token.as_deref().map(Position::parse).transpose()?;
        if let Some(name) = &request.pool {
            self.registry.pool(name).map_err(|error| {
                Problem::new(error.code(), error.subject(), error.to_string(), error.hint().unwrap_or_default())
            })?;
        }
        let of_holder = guest.is_some() || request.organization.is_some() || request.node.is_some();
        let only_held = of_holder || self.within.is_some() || request.state == Some(AddressState::Assigned);
        let is_asked_for = |state: AddressState| request.state.is_none_or(|wanted| wanted == state);
        let mut found: Vec<(Position, Address)> = Vec::new();
        // One more than the page has tells whether there is another page.
        let wanted = size + 1;
        if is_asked_for(AddressState::Assigned) {
            let is_wanted = |holding: &Holding<'_>| {
                let (vmid, _, _, assigned) = holding;
                self.is_seen(holding)
                    && guest.is_none_or(|guest| guest == *vmid)
                    && request.pool.as_ref().is_none_or(|pool| *pool == assigned.pool)
                    && request.organization.is_none_or_is(assigned.organization.as_deref())
                    && request.node.as_ref().is_none_or(|node| self.places.get(vmid).is_some_and(|(at, _)| at == node))
            };
            let mut held: Vec<(Position, Holding<'_>)> = self
                .registry
                .assignments()
                .filter(is_wanted)
                .map(|holding| (Position::of_holder(&holding), holding))
                .filter(|(position, _)| after.is_none_or(|after| *position > after))
                .collect();
            if held.len() > wanted {
                held.select_nth_unstable_by_key(size, |(position, _)| *position);
                held.truncate(wanted);
            }
            found.extend(held.iter().map(|(position, holding)| (*position, self.held(holding))));
        }
        if !only_held {
            self.put_unheld(request, after, wanted, is_asked_for, &mut found);
        }
        found.sort_by_key(|(position, _)| *position);
        let next_page_token = (found.len() > size).then(|| found[size - 1].0.token());
        found.truncate(size);
        Ok(Addresses {
            addresses: found.into_iter().map(|(_, address)| address).collect(),
            next_page_token,
            notes: Vec::new(),
        })
    }

    /// The first addresses behind `after` that nobody holds.
    fn put_unheld(
        &self,
        request: &ListAddresses,
        after: Option<Position>,
        wanted: usize,
        is_asked_for: impl Fn(AddressState) -> bool,
        found: &mut Vec<(Position, Address)>,
    ) {
        let pools = self.registry.pools.pools.iter();
        let pools = pools.filter(|(name, _)| request.pool.as_ref().is_none_or(|pool| pool == *name));
        let entries = pools.flat_map(|(name, pool)| pool.addresses.iter().map(move |entry| (name, pool, entry)));
        let is_behind = |(_, _, entry): &(&PoolName, &Pool, &PoolAddress)| {
            after.is_none_or(|after| entry.address.net().broadcast() >= after.prefix.first())
        };
        let mut entries: Vec<_> = entries.filter(is_behind).collect();
        entries.sort_by_key(|(.., entry)| entry.address);
        let full = found.len() + wanted;
        for (name, pool, entry) in entries {
            let spans = self.inventory().spans(pool, entry);
            let mut put = |prefix: Prefix, state: &State<'_>| {
                let position = Position { prefix, holder: None };
                if after.is_none_or(|after| position > after) && found.len() < full {
                    found.push((position, unheld(name, pool, entry, prefix, state)));
                }
                found.len() < full
            };
            let is_large = capacity(entry) > SINGLE;
            if is_large && is_asked_for(AddressState::Free) && spans.iter().any(|span| span.state == State::Free) {
                put(entry.address, &State::Free);
            }
            for span in &spans {
                let is_wanted = state_of(&span.state).is_some_and(&is_asked_for);
                let has_room = match &span.state {
                    _ if !is_wanted => true,
                    State::Free if is_large => true,
                    State::Cooling(prefix, ..) => put(*prefix, &span.state),
                    _ => span
                        .addresses()
                        .filter_map(|single| Prefix::host(single).ok())
                        .all(|single| put(single, &span.state)),
                };
                if !has_room {
                    return;
                }
            }
        }
    }
}

/// Whether a filter that may be absent lets something through.
trait Filter {
    fn is_none_or_is(&self, value: Option<&str>) -> bool;
}

impl Filter for Option<String> {
    fn is_none_or_is(&self, value: Option<&str>) -> bool {
        self.as_deref().is_none_or(|wanted| value == Some(wanted))
    }
}

fn state_of(state: &State<'_>) -> Option<AddressState> {
    match state {
        State::Free => Some(AddressState::Free),
        State::Cooling(..) => Some(AddressState::Cooling),
        State::Withheld(_) => Some(AddressState::Reserved),
        State::Held(..) => None,
    }
}

fn unheld(name: &PoolName, pool: &Pool, entry: &PoolAddress, address: Prefix, state: &State<'_>) -> Address {
    let gateway = pool.gateway_of(entry);
    Address {
        address,
        prefix_length: prefix_length(address, entry.address, gateway, pool.mode() == Mode::Bridged),
        gateway,
        pool: name.clone(),
        state: state_of(state).unwrap_or(AddressState::Assigned),
        enforce: pool.enforce(),
        monthly_cost_cents: entry.monthly_cost_cents,
        mac: entry.mac,
        free_at: if let State::Cooling(_, _, free_at) = state { Some(*free_at) } else { None },
        shared: None,
        via: None,
        holder: None,
    }
}

/// Refuses a request.
fn invalid(sentence: String) -> Problem {
    Problem::new(code!("request-invalid"), Subject::Command, sentence, "docs/api.md describes each request")
}

/// A place in the order of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    prefix: Prefix,
    holder: Option<(Vmid, NicId)>,
}

impl Position {
    fn of_holder((vmid, nic, _, assigned): &Holding<'_>) -> Self {
        Self { prefix: assigned.address, holder: Some((*vmid, *nic)) }
    }

    /// As it goes to the caller and comes back.
    fn token(self) -> String {
        let holder = self.holder.map(|(vmid, nic)| format!(",{vmid},{nic}")).unwrap_or_default();
        format!("{}{holder}", self.prefix)
    }

    fn parse(token: &str) -> Result<Self, Problem> {
        let parts: Vec<&str> = token.split(',').collect();
        let position = match parts[..] {
            [prefix] => Prefix::from_str(prefix).ok().map(|prefix| Self { prefix, holder: None }),
            [prefix, vmid, nic] => prefix
                .parse()
                .ok()
                .and_then(|prefix| Some(Self { prefix, holder: Some((vmid.parse().ok()?, nic.parse().ok()?)) })),
            _ => None,
        };
        position.ok_or_else(|| invalid("page_token is not what an answer gave as next_page_token".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn registry() -> Registry {
        let pools = json!({"version": 1, "pools": {
            "a": {"profile": "generic-bridged", "bridge": "vmbr0", "gateway4": "203.0.113.1", "addresses": [{"address": "203.0.113.0/28", "monthly_cost_cents": 150}]},
            "b": {"profile": "generic-bridged", "bridge": "vmbr1", "addresses": [{"address": "198.51.100.7", "mac": "02:00:00:00:00:07"}, {"address": "2001:db8::/64"}]},
        }});
        let held = |address: &str, pool: &str, organization: &str, vps_id: &str| {
            let gateway = if pool == "a" { "203.0.113.1" } else { "fe80::1" };
            json!({"address": address, "pool": pool, "gateway": gateway, "organization": organization, "vps_id": vps_id,
                "assigned_at": "2026-11-22T10:00:00Z"})
        };
        let guest = |vmid: u32, held: serde_json::Value| {
            let guest = json!({"version": 1, "vmid": vmid, "interfaces": {"net0": {"mac": format!("02:00:00:aa:01:{}", vmid - 100), "addresses": held}}});
            (vmid.to_string().parse().unwrap(), serde_json::from_value(guest).unwrap())
        };
        let released = json!({"version": 1, "addresses": {"203.0.113.12/32": {"at": "2026-11-22T10:00:00Z", "vmid": 101, "pool": "a"}}});
        Registry {
            pools: serde_json::from_value(pools).unwrap(),
            guests: [
                guest(110, json!([])),
                guest(
                    111,
                    json!([held("203.0.113.10", "a", "acme", "shop"), held("2001:db8::11", "b", "acme", "shop")]),
                ),
                guest(112, json!([held("203.0.113.11", "a", "other", "shop2")])),
            ]
            .map(|(_, guest): (u32, _)| guest)
            .map(|guest: crate::registry::document::GuestFile| (guest.vmid, guest))
            .into(),
            released: serde_json::from_value(released).unwrap(),
            ..Registry::default()
        }
    }

    fn places() -> BTreeMap<Vmid, (NodeName, GuestKind)> {
        [("111", "one"), ("112", "two")]
            .map(|(vmid, node)| (vmid.parse().unwrap(), (node.parse().unwrap(), GuestKind::Qemu)))
            .into()
    }

    fn now() -> Moment {
        "2026-11-22T10:30:00Z".parse().unwrap()
    }

    fn pages(within: Option<&str>, request: &ListAddresses, guest: Option<&str>) -> Vec<Vec<String>> {
        let (registry, places) = (registry(), places());
        let lookup = Lookup::of(&registry, &[], &places, within, now());
        let (mut pages, mut request) = (Vec::new(), request.clone());
        loop {
            let page = lookup.page(&request, guest.map(|vmid| vmid.parse().unwrap())).unwrap();
            let line = |address: &Address| format!("{} {:?}", address.address, address.state).to_lowercase();
            pages.push(page.addresses.iter().map(line).collect());
            request.page_token = page.next_page_token;
            if request.page_token.is_none() || pages.len() > 50 {
                return pages;
            }
        }
    }

    #[test]
    fn pages_of_any_size_have_everything_once_and_in_order() {
        let all = pages(None, &ListAddresses::default(), None).concat();
        assert_eq!(all.len(), 1 + 16 + 1 + 1 + 1, "{all:?}");
        for line in [
            "198.51.100.7 free",
            "203.0.113.0 reserved",
            "203.0.113.1 reserved",
            "203.0.113.10 assigned",
            "203.0.113.12 cooling",
            "203.0.113.15 reserved",
            "2001:db8::/64 free",
            "2001:db8:: reserved",
            "2001:db8::11 assigned",
        ] {
            assert!(all.iter().any(|found| found == line), "{line}: {all:?}");
        }
        for state in [None, Some(AddressState::Free), Some(AddressState::Assigned), Some(AddressState::Reserved)] {
            let whole = pages(None, &ListAddresses { state, ..ListAddresses::default() }, None).concat();
            for page_size in [1, 2, 3, 7, 19, 20, 21] {
                let request = ListAddresses { state, page_size: Some(page_size), ..ListAddresses::default() };
                let pages = pages(None, &request, None);
                assert!(pages.iter().all(|page| page.len() <= page_size.into()));
                assert_eq!(pages.concat(), whole, "{state:?} by {page_size}");
            }
        }
    }

    #[test]
    fn filters_narrow() {
        let of = |request: ListAddresses, guest| pages(None, &request, guest).concat();
        let default = ListAddresses::default;
        assert_eq!(of(default(), Some("111")), ["203.0.113.10 assigned", "2001:db8::11 assigned"]);
        assert_eq!(
            of(ListAddresses { organization: Some("other".to_owned()), ..default() }, None),
            ["203.0.113.11 assigned"]
        );
        assert_eq!(of(ListAddresses { node: "two".parse().ok(), ..default() }, None), ["203.0.113.11 assigned"]);
        let b = ListAddresses { pool: "b".parse().ok(), ..default() };
        assert_eq!(
            of(b, None),
            ["198.51.100.7 free", "2001:db8::/64 free", "2001:db8:: reserved", "2001:db8::11 assigned"]
        );
        let (registry, places) = (registry(), places());
        let lookup = Lookup::of(&registry, &[], &places, None, now());
        for (request, reason) in [
            (ListAddresses { page_size: Some(0), ..default() }, "page_size: 0 is not 1 to 1000"),
            (ListAddresses { page_size: Some(1001), ..default() }, "page_size: 1001 is not 1 to 1000"),
            (ListAddresses { page_token: Some("x".to_owned()), ..default() }, "page_token is not what an answer gave"),
            (ListAddresses { pool: "c".parse().ok(), ..default() }, "`c`"),
        ] {
            let problem = lookup.page(&request, None).unwrap_err();
            assert!(problem.sentence.contains(reason), "{problem}");
        }
    }

    #[test]
    fn an_organization_sees_its_own_and_nothing_else() {
        let mine = pages(Some("acme"), &ListAddresses::default(), None).concat();
        assert_eq!(mine, ["203.0.113.10 assigned", "2001:db8::11 assigned"]);
        assert!(
            pages(
                Some("acme"),
                &ListAddresses { organization: Some("other".to_owned()), ..ListAddresses::default() },
                None
            )
            .concat()
            .is_empty()
        );
        let (registry, places) = (registry(), places());
        let lookup = Lookup::of(&registry, &[], &places, Some("acme"), now());
        let asked = |address: &str| lookup.address(address.parse().unwrap());
        assert_eq!(asked("203.0.113.10").unwrap().holder.unwrap().vps_id.as_deref(), Some("shop"));
        // Somebody else's, nobody's, a gateway, one that no pool has: the same words.
        for address in ["203.0.113.11", "203.0.113.5", "203.0.113.1", "192.0.2.1"] {
            assert_eq!(asked(address).unwrap_err(), Lookup::unknown(address.parse().unwrap()));
        }
        let is_own = |vmid: &str| lookup.is_own_guest(vmid.parse().unwrap());
        assert_eq!([is_own("110"), is_own("111"), is_own("112"), is_own("999")], [true, true, false, true]);
    }

    #[test]
    fn an_address_says_what_a_guest_needs() {
        let (registry, places) = (registry(), places());
        let lookup = Lookup::of(&registry, &[], &places, None, now());
        let held = lookup.address("203.0.113.10".parse().unwrap()).unwrap();
        assert_eq!((held.prefix_length, held.monthly_cost_cents, held.state), (28, Some(150), AddressState::Assigned));
        let holder = held.holder.unwrap();
        assert_eq!((holder.vmid.to_string(), holder.node.unwrap().to_string()), ("111".to_owned(), "one".to_owned()));
        let free = lookup.address("198.51.100.7".parse().unwrap()).unwrap();
        assert_eq!(
            (free.prefix_length, free.state, free.mac.unwrap().to_string().as_str()),
            (32, AddressState::Free, "02:00:00:00:00:07")
        );
        let cooling = lookup.address("203.0.113.12".parse().unwrap()).unwrap();
        assert!(cooling.free_at.is_some_and(|until| until > now()), "{cooling:?}");
        assert_eq!(lookup.address("192.0.2.1".parse().unwrap()).unwrap_err().code.as_str(), "address-in-no-pool");
        let pools = lookup.pools();
        assert_eq!((pools.len(), pools[0].totals["ipv4"].assigned.0, pools[1].totals.len()), (2, 2, 2));
    }

    fn named(vmid: &str, name: &str, tags: &[&str], mac: &str) -> Named {
        Named {
            vmid: vmid.parse().unwrap(),
            name: Some(name.to_owned()),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            nics: vec![(NicId::FIRST, mac.parse().unwrap())],
        }
    }

    #[test]
    fn a_name_means_one_guest_or_is_refused() {
        let registry = registry();
        let known = |word: &str| by_registry(word, &registry, |vmid| vmid.to_string() == "300").transpose();
        assert_eq!(known("300").unwrap().unwrap().to_string(), "300");
        assert_eq!(known("shop").unwrap().unwrap().to_string(), "111");
        assert_eq!(known("112").unwrap().unwrap().to_string(), "112", "it holds an address, although it is destroyed");
        assert_eq!(known("nobody").unwrap(), None);

        let (one, two) = ("02:00:00:00:00:01", "02:00:00:00:00:02");
        let guests = [
            named("101", "web", &["red"], one),
            named("102", "mail", &["red", "blue"], two),
            named("103", "web2", &[], two),
        ];
        let found = |word: &str, mac: &str, by_mac| by_configuration(word, &guests, mac.parse().ok(), by_mac);
        assert_eq!(found("web", "", false).unwrap().vmid.to_string(), "101");
        assert_eq!(found("blue", "", false).unwrap().vmid.to_string(), "102");
        assert_eq!(found("vm-7", one, true).unwrap(), Meant { vmid: "101".parse().unwrap(), by_mac: true });
        for (word, mac, by_mac, code, reason) in [
            ("red", "", false, "guest-ambiguous", "`red` means 2 guests: 101, 102"),
            ("vm-7", two, true, "guest-ambiguous", "`02:00:00:00:00:02` means 2 guests: 102, 103"),
            ("vm-7", one, false, "unknown-guest", "no guest is called `vm-7`"),
            ("vm-7", "", true, "unknown-guest", "no guest is called `vm-7`"),
            ("vm-7", "02:00:00:00:00:09", true, "unknown-guest", "no guest has a NIC with the MAC 02:00:00:00:00:09"),
        ] {
            let problem = found(word, mac, by_mac).unwrap_err();
            assert!(problem.code.as_str() == code && problem.sentence.contains(reason), "{problem:?}");
        }
        assert_eq!(nics(&guests[0], None, None).unwrap(), [NicId::FIRST]);
        let problem = nics(&guests[0], None, two.parse().ok()).unwrap_err();
        assert_eq!(
            problem.sentence,
            "guest 101 has no NIC with the MAC 02:00:00:00:00:02; it has net0 02:00:00:00:00:01"
        );
        for (word, reason) in [("", "is empty"), ("a\nb", "a control character"), (&"x".repeat(129), "129 bytes; 128")]
        {
            assert!(check_name(word).unwrap_err().sentence.contains(reason));
        }
    }
}
