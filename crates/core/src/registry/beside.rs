//! What a NIC has besides its addresses: addresses of no pool, further MACs, virtual routers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::document::{Interface, Pool};
use super::{Registry, RuleError};
use crate::model::{MacAddr, NicId, PoolName, Prefix, Vmid};

impl Registry {
    /// Whether what a NIC has besides its addresses is nobody else's. `own`: this node's addresses; `routers`: the MACs of
    /// gateways, as far as they are known.
    pub fn check_beside(
        &self,
        vmid: Vmid,
        nic: NicId,
        own: &[IpNet],
        routers: &BTreeSet<MacAddr>,
    ) -> Result<(), RuleError> {
        let missing = || RuleError::NoInterface { vmid, nic };
        let interface = self.guests.get(&vmid).and_then(|guest| guest.interfaces.get(&nic)).ok_or_else(missing)?;
        for prefix in &interface.also {
            self.check_also(*prefix, own)?;
        }
        for mac in interface.further_macs.iter().copied() {
            for (other, guest) in &self.guests {
                let mut nics = guest.interfaces.iter().filter(|(id, _)| (*other, **id) != (vmid, nic));
                if let Some((id, _)) = nics.find(|(_, entry)| entry.own_macs().any(|taken| taken == mac)) {
                    return Err(RuleError::MacTaken { mac, vmid: *other, nic: *id });
                }
            }
        }
        for mac in interface.further_macs.iter().copied().chain(interface.virtual_macs()) {
            let named = self.pools.pools.values().filter_map(|pool| pool.gateway_mac);
            if named.chain(routers.iter().copied()).any(|router| router == mac) {
                return Err(RuleError::MacOfGateway { mac });
            }
            if let Some(pool) = self.unknown_to(interface, mac) {
                return Err(RuleError::MacUnknown { mac, pool: pool.clone(), vmid, nic });
            }
        }
        Ok(())
    }

    /// The pool of a NIC whose provider knows the MACs of its addresses, and not this one.
    fn unknown_to(&self, interface: &Interface, mac: MacAddr) -> Option<&PoolName> {
        let held = interface.addresses.iter().map(|assigned| &assigned.pool).collect::<BTreeSet<_>>();
        let pools = self.pools.pools.iter().filter(|(name, pool)| held.contains(name) && pool.knows_macs());
        pools.filter(|(_, pool)| !pool.is_known(mac)).map(|(name, _)| name).next()
    }

    /// Whether addresses besides those of pools are in none, and take nothing from gateways and node.
    fn check_also(&self, prefix: Prefix, own: &[IpNet]) -> Result<(), RuleError> {
        for (pool, entry) in
            self.pools.pools.iter().flat_map(|(name, pool)| pool.addresses.iter().map(move |entry| (name, entry)))
        {
            if entry.address.overlaps(prefix) {
                return Err(RuleError::AlsoInPool { prefix, entry: entry.address, pool: pool.clone() });
            }
        }
        let gateways = self.pools.pools.iter().flat_map(|(name, pool)| {
            pool.gateways().map(move |gateway| (gateway, format!("the gateway of pool `{name}`")))
        });
        let own = own.iter().map(|net| (net.addr(), "an address of this node".to_owned()));
        let mut taken = gateways.chain(own).filter(|(address, _)| prefix.net().contains(address));
        taken.next().map_or(Ok(()), |(address, what)| Err(RuleError::AlsoTaken { prefix, address, what }))
    }

    /// Whether an entry that is to come into a pool is what a guest has besides.
    pub(super) fn check_beside_of_guests(&self, new: Prefix, pool: &PoolName) -> Result<(), RuleError> {
        let interfaces = self
            .guests
            .iter()
            .flat_map(|(vmid, guest)| guest.interfaces.iter().map(move |(nic, it)| (*vmid, *nic, it)));
        for (vmid, nic, interface) in interfaces {
            if let Some(prefix) = interface.also.iter().find(|prefix| prefix.overlaps(new)) {
                return Err(RuleError::BesideOfGuest { new, pool: pool.clone(), prefix: *prefix, vmid, nic });
            }
        }
        Ok(())
    }
}

impl Pool {
    /// Whether its provider knows which MACs there may be, and punishes others.
    fn knows_macs(&self) -> bool {
        self.provider_mac() && self.mode() == super::document::Mode::Bridged
    }

    /// Whether the provider knows a MAC, as far as the pool says.
    pub fn is_known(&self, mac: MacAddr) -> bool {
        self.allowed_macs.contains(&mac) || self.addresses.iter().any(|entry| entry.mac == Some(mac))
    }

    /// Entries of private networks in a pool of public addresses.
    pub fn private_entries(&self) -> Vec<Prefix> {
        let is_private = |prefix: &Prefix| match prefix.first() {
            IpAddr::V4(address) => address.is_private(),
            IpAddr::V6(address) => address.is_unique_local(),
        };
        let (private, public): (Vec<Prefix>, Vec<Prefix>) =
            self.addresses.iter().map(|entry| entry.address).partition(is_private);
        if self.provider_mac() || !public.is_empty() { private } else { Vec::new() }
    }
}

/// Which further MACs of a NIC the provider of a pool is taken to know: where it hands out MACs only those that it is said to.
pub fn known_macs<'a>(pool: &'a Pool, interface: &'a Interface) -> impl Iterator<Item = MacAddr> + 'a {
    let further = interface.further_macs.iter().copied().chain(interface.virtual_macs());
    std::iter::once(interface.mac).chain(further.filter(|mac| !pool.knows_macs() || pool.is_known(*mac)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::fixtures::{A, B, registry, request};

    #[test]
    fn what_a_nic_has_besides_is_nobody_elses() {
        let mut registry = registry();
        let (hundred, net0): (Vmid, NicId) = ("100".parse().unwrap(), NicId::FIRST);
        registry.assign(&request("100", A, &["203.0.113.2"])).unwrap();
        registry.assign(&request("101", B, &["203.0.113.3"])).unwrap();
        let own = ["10.0.0.1/24".parse().unwrap()];
        let routers = BTreeSet::from(["00:00:5e:00:01:07".parse().unwrap()]);
        let mut check = |change: &dyn Fn(&mut Interface)| {
            let before = registry.clone();
            let changed = registry.change_interface(hundred, net0, change);
            let checked = changed.and_then(|()| registry.check_beside(hundred, net0, &own, &routers));
            registry = before;
            checked.map_err(|error| (error.to_string(), error.hint().unwrap_or_default()))
        };
        let also =
            |text: &'static str| move |interface: &mut Interface| interface.also = [text.parse().unwrap()].into();
        assert_eq!(check(&also("10.0.0.5")), Ok(()));
        assert_eq!(check(&also("fd00:1::/64")), Ok(()));
        for (prefix, reason) in [
            ("10.0.0.0/24", "10.0.0.0/24 cannot be the guest's: 10.0.0.1 is an address of this node"),
            ("203.0.113.4", "203.0.113.4 is of 203.0.113.0/29 of pool `lan`"),
            ("203.0.0.0/16", "203.0.0.0/16 is of 203.0.113.0/29 of pool `lan`"),
        ] {
            assert_eq!(check(&also(prefix)).unwrap_err().0, reason);
        }
        let mac = |text: &'static str| {
            move |interface: &mut Interface| interface.further_macs = [text.parse().unwrap()].into()
        };
        assert_eq!(check(&mac("02:00:00:00:00:0e")), Ok(()));
        assert_eq!(check(&mac(B)).unwrap_err().0, "MAC 02:00:00:00:00:0b is that of guest 101 net0 already");
        assert_eq!(
            check(&mac(A)).unwrap_err().0,
            "guest 100: interfaces.net0.further_macs: 02:00:00:00:00:0a is the NIC's own"
        );
        assert_eq!(
            check(&mac("00:00:5e:00:01:09")).unwrap_err().0,
            "guest 100: interfaces.net0.further_macs: 00:00:5e:00:01:09 is that of a virtual router: see `vrrp`"
        );
        let vrrp = |id: u8| move |interface: &mut Interface| interface.vrrp = [id].into();
        assert_eq!(check(&vrrp(9)), Ok(()));
        assert_eq!(check(&vrrp(7)).unwrap_err().0, "MAC 00:00:5e:00:01:07 is that of a gateway");
        assert_eq!(
            check(&vrrp(0)).unwrap_err().0,
            "guest 100: interfaces.net0.vrrp: 0 is not a virtual router (1 to 255)"
        );
    }

    #[test]
    fn a_provider_that_hands_out_macs_is_asked() {
        let mut registry = registry();
        let (ovh, net0): (PoolName, NicId) = ("ovh".parse().unwrap(), NicId::FIRST);
        registry.change_pool(&ovh, |pool| pool.addresses[0].mac = Some(A.parse().unwrap())).unwrap();
        registry.assign(&request("100", A, &["198.51.100.7"])).unwrap();
        let vmid = "100".parse().unwrap();
        registry.change_interface(vmid, net0, |interface| interface.further_macs.insert(B.parse().unwrap())).unwrap();
        let error = registry.check_beside(vmid, net0, &[], &BTreeSet::new()).unwrap_err();
        assert_eq!(error.to_string(), "the provider of pool `ovh` does not know MAC 02:00:00:00:00:0b");
        assert_eq!(
            error.hint().unwrap(),
            "if it does: `pve-public-ip pool set ovh --allow-mac 02:00:00:00:00:0b`; a MAC that it does not know can lock the server"
        );
        registry.change_pool(&ovh, |pool| pool.allowed_macs.insert(B.parse().unwrap())).unwrap();
        assert_eq!(registry.check_beside(vmid, net0, &[], &BTreeSet::new()), Ok(()));
        registry
            .change_pool(&ovh, |pool| {
                pool.addresses.push(super::super::document::PoolAddress::new("10.0.0.0/24".parse().unwrap()));
            })
            .unwrap();
        assert_eq!(registry.pools.pools[&ovh].private_entries(), ["10.0.0.0/24".parse().unwrap()]);
    }
}
