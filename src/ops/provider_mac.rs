//! `assign --set-mac`: gives a guest's NIC the MAC that the provider bound to the addresses.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::json;

use super::proxmox::{self, Outcome};
use super::{advice, change};
use crate::audit::{Change, Event};
use crate::code;
use crate::guest::{Located, NicChange};
use crate::model::{MacAddr, NicId, Prefix, Subject, Vmid};
use crate::reconcile::{Node, ReconcileError};
use crate::registry::document::{GivenMac, GuestFile};
use crate::registry::{Registry, releases};
use crate::store::journal::Durability;

/// Sets the MAC of the NICs, and returns what was done for each that did not have it. The guest must be stopped: what
/// runs goes on with the MAC that it has.
pub(crate) fn give(
    node: &Node,
    vmid: Vmid,
    located: &Located,
    nics: &[NicId],
    mac: MacAddr,
    running: bool,
    dry_run: bool,
) -> anyhow::Result<Vec<Outcome>> {
    let tool = located.config.kind.tool();
    let mut given = Vec::new();
    for nic in nics {
        let known = mac_of(located, *nic);
        if known == Some(mac) {
            continue;
        }
        let old = known.with_context(|| format!("guest {vmid} {nic} has no MAC that could be replaced"))?;
        if running {
            return Err(advice(
                code!("guest-running"),
                Subject::Guest(vmid),
                format!("guest {vmid} is running, and its NIC keeps {old} as long as it does"),
                format!("stop it, then try again: `{tool} shutdown {vmid}`"),
            ));
        }
        if let Some((other, id, fresh)) = holder(node, mac, vmid, nics)? {
            return Err(advice(
                code!("mac-taken"),
                Subject::Guest(vmid),
                format!("MAC {mac} is that of guest {other} {id} already"),
                format!("if guest {other} does not need it, give {id} there another one: `{fresh}`"),
            ));
        }
        note_given(node, vmid, (*nic, old, mac), dry_run)?;
        let options = with_mac(located, *nic, old, mac);
        match proxmox::set(node, vmid, located, &[&options[0], &options[1]], dry_run) {
            Outcome::LeftToDo { reason, command } => {
                return Err(advice(
                    code!("mac-not-set"),
                    Subject::Guest(vmid),
                    format!("guest {vmid} {nic} has {old}, the provider wants {mac}, and {reason}"),
                    format!("do it by hand, then try again: `{command}`"),
                ));
            }
            Outcome::Failed { reason, command } => {
                let hint = format!("try it by hand: `{command}`");
                return Err(advice(code!("command-failed"), Subject::Guest(vmid), reason, hint));
            }
            done => {
                if matches!(done, Outcome::Done { .. }) {
                    node.store.journal.record(vec![mac_given(vmid, *nic, old, mac)], Durability::Synced);
                }
                given.push(done);
            }
        }
    }
    Ok(given)
}

/// Written before the NIC is given the MAC: whenever the command is killed, `release` knows what the NIC had. Only where every
/// node can read it.
fn note_given(
    node: &Node,
    vmid: Vmid,
    (nic, former, given): (NicId, MacAddr, MacAddr),
    dry_run: bool,
) -> anyhow::Result<()> {
    change(node, dry_run, |registry| {
        if node.store.is_read_everywhere(releases::GIVEN_MACS, registry) {
            let guest = registry.guests.get_or_insert_with(vmid, || GuestFile::new(vmid));
            guest.note_given_mac(nic, former, given);
        }
        Ok(())
    })?;
    Ok(())
}

/// Gives NICs back the MACs that they had before, after their last addresses were released. What somebody has changed since
/// stays.
pub(crate) fn give_back(
    node: &Node,
    vmid: Vmid,
    given: &BTreeMap<NicId, GivenMac>,
    running: bool,
    dry_run: bool,
) -> anyhow::Result<BTreeMap<NicId, Outcome>> {
    let nics: Vec<NicId> = given.keys().copied().collect();
    let mut outcomes = BTreeMap::new();
    for (nic, noted) in given {
        // The configuration may be another one by now.
        let located = node.guests.find(vmid, None).map_err(ReconcileError::from)?;
        outcomes.insert(*nic, give_one_back(node, vmid, &located, (*nic, *noted, &nics), running, dry_run)?);
    }
    Ok(outcomes)
}

fn give_one_back(
    node: &Node,
    vmid: Vmid,
    located: &Located,
    (nic, GivenMac { given: mac, former }, nics): (NicId, GivenMac, &[NicId]),
    running: bool,
    dry_run: bool,
) -> anyhow::Result<Outcome> {
    if mac_of(located, nic) != Some(mac) {
        return Ok(Outcome::AsWanted);
    }
    if let Some((other, id, _)) = holder(node, former, vmid, nics)? {
        let reason = format!("{nic} keeps {mac}: its former MAC {former} is that of guest {other} {id} by now");
        return Ok(Outcome::LeftToDo { reason, command: located.config.change_nic(vmid, nic, NicChange::FreshMac) });
    }
    let options = with_mac(located, nic, mac, former);
    let options = [options[0].as_str(), &options[1]];
    let is_away = located.node != node.name;
    if running || is_away {
        let reason = if is_away {
            format!("guest {vmid} is on node {}, where it may be running, and {nic} keeps {mac}", located.node)
        } else {
            format!("guest {vmid} is running, and {nic} keeps {mac} as long as it does")
        };
        return Ok(Outcome::LeftToDo { reason, command: proxmox::set_by_hand(node, vmid, located, &options) });
    }
    let outcome = proxmox::set(node, vmid, located, &options, dry_run);
    if matches!(outcome, Outcome::Done { .. }) {
        node.store.journal.record(vec![mac_given(vmid, nic, mac, former)], Durability::Synced);
    }
    Ok(outcome)
}

fn mac_given(vmid: Vmid, nic: NicId, old: MacAddr, mac: MacAddr) -> Change {
    let (before, after) = (Some(json!({ "mac": old })), Some(json!({ "mac": mac })));
    let (vmid, interface, mac) = (Some(vmid), Some(nic), Some(mac));
    Change { vmid, interface, mac, before, after, ..Change::new(Event::MacGiven) }
}

/// The provider's MAC for these addresses.
pub(crate) fn wanted(registry: &Registry, addresses: &[Prefix]) -> anyhow::Result<MacAddr> {
    let mut found: Option<(Prefix, MacAddr)> = None;
    for address in addresses {
        let entry = registry.pool_of(*address).and_then(|(_, pool)| pool.entry(*address));
        let mac = entry.and_then(|entry| entry.mac).ok_or_else(|| {
            advice(
                code!("provider-mac-unknown"),
                Subject::Address(*address),
                format!("the provider's MAC for {address} is not known"),
                format!("look it up at the provider, then `pve-public-ip pool add POOL {address} --mac MAC`"),
            )
        })?;
        if let Some((other, _)) = found.filter(|(_, other)| *other != mac) {
            return Err(advice(
                code!("nics-differ"),
                Subject::Address(*address),
                format!("{other} and {address} have different MACs at the provider"),
                "assign them to two NICs",
            ));
        }
        found = Some((*address, mac));
    }
    found.map(|(_, mac)| mac).context("--set-mac needs the addresses")
}

/// A NIC of this node's guests that has the MAC, other than those of the guest that are to have it; and the command that gives
/// it another one.
fn holder(node: &Node, mac: MacAddr, vmid: Vmid, nics: &[NicId]) -> anyhow::Result<Option<(Vmid, NicId, String)>> {
    let guests = node.guests.local().map_err(ReconcileError::from)?;
    for (guest, config) in &guests {
        let holds = |id: &NicId| config.nics[id].as_ref().is_ok_and(|nic| nic.mac == Some(mac));
        let is_meant = |id: &NicId| *guest == vmid && nics.contains(id);
        if let Some(id) = config.nics.keys().find(|id| holds(id) && !is_meant(id)) {
            return Ok(Some((*guest, *id, config.change_nic(*guest, *id, NicChange::FreshMac))));
        }
    }
    Ok(None)
}

/// The MAC that a NIC has in the guest's configuration.
pub(crate) fn mac_of(located: &Located, nic: NicId) -> Option<MacAddr> {
    located.config.nics.get(&nic)?.as_ref().ok()?.mac
}

/// The option of `qm set` and `pct set` that gives a NIC another MAC.
fn with_mac(located: &Located, nic: NicId, old: MacAddr, new: MacAddr) -> [String; 2] {
    let value = located.config.lines.get(&nic.to_string()).map(|value| replaced(value, old, new));
    [format!("--{nic}"), value.unwrap_or_default()]
}

/// The value of `netN` with another MAC, everything else as it stands there.
fn replaced(value: &str, old: MacAddr, new: MacAddr) -> String {
    let part = |part: &str| match part.split_once('=') {
        Some((key, mac)) if mac.parse() == Ok(old) => format!("{key}={}", new.to_string().to_uppercase()),
        _ => part.to_owned(),
    };
    value.split(',').map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mac_is_another_one() {
        let (old, new) = ("02:00:00:aa:bb:00".parse().unwrap(), "00:50:56:00:01:02".parse().unwrap());
        for (value, wanted) in [
            (
                "virtio=02:00:00:AA:BB:00,bridge=vmbr0,firewall=1,tag=7,queues=4",
                "virtio=00:50:56:00:01:02,bridge=vmbr0,firewall=1,tag=7,queues=4",
            ),
            (
                "name=eth0,bridge=vmbr0,hwaddr=02:00:00:AA:BB:00,ip=dhcp,type=veth",
                "name=eth0,bridge=vmbr0,hwaddr=00:50:56:00:01:02,ip=dhcp,type=veth",
            ),
            (
                "bridge=vmbr0,macaddr=02:00:00:aa:bb:00,model=e1000",
                "bridge=vmbr0,macaddr=00:50:56:00:01:02,model=e1000",
            ),
        ] {
            assert_eq!(replaced(value, old, new), wanted);
        }
    }
}
