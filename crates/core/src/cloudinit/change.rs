//! What has to change so that a guest is told: `ipconfigN` and `cicustom`, the snippets that it names, and what the guest
//! will do about it.
//!
//! cloud-init knows a machine by its instance-id, which Proxmox VE makes of the data: another address alone would make the
//! guest take itself for a new one, with new SSH host keys. So the id that it has is pinned (`meta`), and cloud-init is told
//! to look at the network at every boot (`vendor`), which it does from the boot after the one at which it was told.

use std::collections::BTreeMap;

use super::{Part, SnippetName, Unsuitable, Wanted, assign_command, base, document, quoted, yaml};
use crate::guest::{GuestConfig, IpConfig};
use crate::model::text::command_line;
use crate::model::{GuestKind, Vmid};
use crate::registry::document::{GuestFile, PoolsFile};

/// What is known of the data that the guest had at its last boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Current {
    /// Whether there is any: if not, it has not booted yet, or was restored from a backup.
    pub any: bool,
    /// Its instance-id, or the one that is pinned for it.
    pub instance_id: Option<String>,
    /// Whether it was told to look at the network at every boot.
    pub looks: bool,
}

/// What a change is made from.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The guest's assignments, as they are now.
    pub guest: &'a GuestFile,
    /// The pools.
    pub pools: &'a PoolsFile,
    /// The guest's configuration.
    pub config: &'a GuestConfig,
    /// Storage for the snippets.
    pub storage: &'a str,
    /// What the guest had; the error says why that is not known.
    pub current: &'a Result<Current, String>,
    /// An instance-id that nobody has.
    pub fresh_id: &'a str,
    /// Whether the guest shall take itself for a new one.
    pub reinit: bool,
    /// The text of a `vendor` snippet of the administrator's own.
    pub own_vendor: Option<&'a str>,
}

/// What has to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Files to write before the guest names them.
    pub snippets: BTreeMap<SnippetName, String>,
    /// Arguments of `qm set VMID` or `pct set VMID`; none: nothing has to be set.
    pub options: Vec<String>,
    /// When the guest finds out, where that depends on it.
    pub boot: Option<Boot>,
}

/// When the guest finds out, and what else it does then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// At its next boot.
    Next,
    /// It has to be told first that it shall look.
    Second,
    /// At its next boot, as a new machine.
    New,
    /// At its first boot.
    First,
}

impl Boot {
    /// One sentence about guest `vmid`.
    pub fn sentence(self, vmid: Vmid) -> String {
        match self {
            Self::Next => {
                format!("guest {vmid} has this network after its next boot, and keeps its SSH host keys")
            }
            Self::Second => format!(
                "guest {vmid} has this network after its second boot from now (if it has never booted, its first), and \
                 keeps its SSH host keys; with --reinit after its next one, as a new machine"
            ),
            Self::New => format!(
                "guest {vmid} takes itself for a new machine at its next boot: it has this network then, makes new SSH \
                 host keys, and runs again what it runs at a first boot"
            ),
            Self::First => {
                format!("guest {vmid} has this network at its first boot (one restored from a backup at its second)")
            }
        }
    }
}

/// Why a guest that could be told is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no telling it.
    #[error(transparent)]
    Unsuitable(#[from] Unsuitable),
    /// A document of the administrator's own.
    #[error("its `cicustom` has a network of its own: {0}")]
    OwnNetwork(String),
    /// A vendor part of the administrator's own.
    #[error(
        "its `cicustom` has a vendor part of its own, {0}, which does not make cloud-init look at the network at every boot"
    )]
    OwnVendor(String),
    /// The snippets cannot be bound to it.
    #[error("it has no UUID, by which its snippets are told from those of a clone")]
    NoUuid,
    /// The id that it has is not known.
    #[error("its instance-id cannot be found out ({0}), and with another one it would make new SSH host keys")]
    UnknownId(String),
}

impl Refusal {
    /// The administrator's next step; `smbios1` is the line as it should be.
    pub fn hint(&self, guest: &GuestFile, config: &GuestConfig, fresh_uuid: &str) -> String {
        let vmid = guest.vmid;
        let assign = assign_command(guest);
        match self {
            Self::Unsuitable(reason) => reason.hint(vmid, config.kind),
            Self::OwnNetwork(volume) => {
                let others = config.cicustom().into_iter().filter(|(part, _)| *part != Part::Network.as_str());
                let others: Vec<String> = others.map(|(part, volume)| format!("{part}={volume}")).collect();
                let (number, rest) = (vmid.to_string(), others.join(","));
                let change: [&str; 2] =
                    if others.is_empty() { ["--delete", "cicustom"] } else { ["--cicustom", &rest] };
                let take_out = command_line(["qm", "set", &number].into_iter().chain(change));
                format!(
                    "to let this program tell the guest: `{take_out} && {assign}`; or write the addresses into `{volume}`"
                )
            }
            Self::OwnVendor(_) => format!(
                "`{assign} --reinit`: the guest then takes itself for a new machine; or add \
                 `updates: {{network: {{when: [boot]}}}}` to it"
            ),
            Self::NoUuid => {
                let others = config.line("smbios1").into_iter().flat_map(|line| line.split(','));
                let others = others.filter(|part| !part.is_empty() && !part.starts_with("uuid="));
                let line: Vec<String> =
                    std::iter::once(format!("uuid={fresh_uuid}")).chain(others.map(str::to_owned)).collect();
                let (number, line) = (vmid.to_string(), line.join(","));
                let set = command_line(["qm", "set", &number, "--smbios1", &line]);
                format!("give it one: `{set} && {assign}`")
            }
            Self::UnknownId(_) => {
                format!("`{assign} --reinit`: the guest then takes itself for a new machine at its next boot")
            }
        }
    }
}

/// Decides what has to change; `wanted` is what the guest has to find inside.
pub fn change(request: &Request<'_>, wanted: &Wanted) -> Result<Change, Refusal> {
    let Request { guest, config, .. } = request;
    let mut change = Change { snippets: BTreeMap::new(), options: ip_options(request, Some(wanted))?, boot: None };
    if config.kind == GuestKind::Lxc {
        return Ok(change);
    }
    let before = config.cicustom();
    let uuid = config.uuid().ok_or(Refusal::NoUuid)?;
    let name = |part| SnippetName { vmid: guest.vmid, uuid: uuid.to_owned(), part };
    let volume = |part| format!("{}:snippets/{}", request.storage, name(part));
    // Of this guest, of another one (it is a clone), or the administrator's own.
    let ours = |part: Part| before.get(part.as_str()).and_then(|volume| SnippetName::of_volume(volume));
    let own = |part: Part| before.get(part.as_str()).filter(|volume| SnippetName::of_volume(volume).is_none());
    let mut custom: BTreeMap<&str, String> =
        before.iter().map(|(part, volume)| (*part, (*volume).to_owned())).collect();

    if let Some(network) = own(Part::Network) {
        return Err(Refusal::OwnNetwork((*network).to_owned()));
    }
    if wanted.needs_document() {
        custom.insert("network", volume(Part::Network));
        change.snippets.insert(name(Part::Network), document(wanted, guest.cloud_init.os));
    } else {
        custom.remove("network");
    }

    let copied = ours(Part::Meta).is_some_and(|meta| meta != name(Part::Meta));
    let fresh = request.reinit || copied;
    let current = match request.current {
        Ok(current) => current.clone(),
        Err(_) if fresh || own(Part::Meta).is_some() => Current::default(),
        Err(reason) => return Err(Refusal::UnknownId(reason.clone())),
    };
    let blank = request.current.as_ref().is_ok_and(|current| !current.any);
    let own_looks = request.own_vendor.is_some_and(looks_at_every_boot);
    match own(Part::Vendor) {
        None => {
            custom.insert("vendor", volume(Part::Vendor));
            change.snippets.insert(name(Part::Vendor), VENDOR.to_owned());
        }
        Some(_) if own_looks || fresh || blank => {}
        Some(vendor) => return Err(Refusal::OwnVendor((*vendor).to_owned())),
    }
    let known = if current.looks { Boot::Next } else { Boot::Second };
    let known = if blank { Boot::First } else { known };
    change.boot = Some(known);
    if own(Part::Meta).is_none() {
        let id = current.instance_id.as_deref().filter(|_| !fresh);
        if id.is_none() && (fresh || !blank) {
            change.boot = Some(Boot::New);
        }
        custom.insert("meta", volume(Part::Meta));
        change.snippets.insert(name(Part::Meta), meta(id.unwrap_or(request.fresh_id)));
    }
    set_cicustom(&mut change, &before, &custom);
    Ok(change)
}

/// What has to change so that a guest does not name the addresses any more that it has lost, where nothing else is left
/// for it or it cannot be told. Its instance-id stays pinned: without it the guest would take itself for a new machine.
pub fn withdrawal(request: &Request<'_>) -> Result<Change, Refusal> {
    let mut change = Change { snippets: BTreeMap::new(), options: ip_options(request, None)?, boot: None };
    let before = request.config.cicustom();
    let is_ours = |volume: &str| SnippetName::of_volume(volume).is_some();
    let custom = before.iter().filter(|(part, volume)| **part != "network" || !is_ours(volume));
    let custom = custom.map(|(part, volume)| (*part, (*volume).to_owned())).collect();
    set_cicustom(&mut change, &before, &custom);
    Ok(change)
}

fn set_cicustom(change: &mut Change, before: &BTreeMap<&str, &str>, custom: &BTreeMap<&str, String>) {
    let same =
        before.len() == custom.len() && custom.iter().all(|(part, volume)| before.get(part) == Some(&volume.as_str()));
    if same {
        return;
    }
    if custom.is_empty() {
        // Lines of NICs that go stand last; one list has all that goes.
        match change.options.as_mut_slice() {
            [.., option, list] if option == "--delete" => list.push_str(",cicustom"),
            _ => change.options.extend(["--delete".to_owned(), "cicustom".to_owned()]),
        }
    } else {
        let parts: Vec<String> = custom.iter().map(|(part, volume)| format!("{part}={volume}")).collect();
        change.options.extend(["--cicustom".to_owned(), parts.join(",")]);
    }
}

/// The lines of the NICs, as far as they differ: what is wanted, or what was there before.
fn ip_options(request: &Request<'_>, wanted: Option<&Wanted>) -> Result<Vec<String>, Refusal> {
    let Request { guest, pools, config, .. } = request;
    let (mut set, mut delete) = (Vec::new(), Vec::new());
    // Those that were noted when they got their first assignment, and no others.
    for nic in guest.cloud_init.before.keys().filter(|nic| config.nics.contains_key(nic)) {
        let assigned = wanted.and_then(|wanted| wanted.nics.get(nic)).filter(|nic| nic.assigned);
        let inside = match assigned {
            Some(nic) => nic.ip_config(),
            None => base(guest, pools, config, *nic)?,
        };
        let now = config.ip_config(*nic).and_then(Result::ok).unwrap_or_default();
        if inside == now {
            continue;
        }
        let key = config.ip_config_key(*nic);
        if config.kind == GuestKind::Qemu && inside == IpConfig::default() {
            delete.push(key);
        } else {
            set.extend([format!("--{key}"), config.with_ip_config(*nic, &inside)]);
        }
    }
    if !delete.is_empty() {
        set.extend(["--delete".to_owned(), delete.join(",")]);
    }
    Ok(set)
}

/// What `vendor` says: cloud-init applies the network at every boot, not only to a machine that it does not know.
const VENDOR: &str = "#cloud-config\nupdates:\n  network:\n    when: ['boot']\n";

/// Whether a `vendor` part has that effect.
pub fn looks_at_every_boot(vendor: &str) -> bool {
    let Ok(document) = yaml::parse(vendor) else { return false };
    let network = document.get("updates").and_then(|updates| updates.get("network"));
    let when = network.and_then(|network| network.get("when"));
    when.is_some_and(|when| when.items().iter().any(|event| event.word() == Ok("boot")))
}

fn meta(id: &str) -> String {
    format!("instance-id: {}\n", quoted(id))
}

/// The instance-id of a `meta-data` file as Proxmox VE or this program writes it.
pub fn instance_id(meta: &str) -> Option<String> {
    let value = meta.lines().find_map(|line| line.strip_prefix("instance-id:"))?.trim();
    let unquoted = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).map(|id| id.replace("''", "'"));
    Some(unquoted.unwrap_or_else(|| value.to_owned())).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_instance_ids() {
        for (meta, id) in [
            ("instance-id: 0123abcd\n", Some("0123abcd")),
            ("local-hostname: web\ninstance-id: 'it''s'\n", Some("it's")),
            ("instance-id:\n", None),
            ("dsmode: local\n", None),
        ] {
            assert_eq!(instance_id(meta).as_deref(), id, "{meta:?}");
        }
        assert_eq!(instance_id(&meta("a'b: #c")).as_deref(), Some("a'b: #c"));
    }

    #[test]
    fn knows_who_looks_at_every_boot() {
        assert!(looks_at_every_boot(VENDOR));
        assert!(looks_at_every_boot("#cloud-config\npackages: [vim]\nupdates: {network: {when: [hotplug, boot]}}\n"));
        for vendor in [
            "",
            "#cloud-config\n",
            "#cloud-config\nupdates: {network: {when: [hotplug]}}\n",
            "#cloud-config\n# updates: {network: {when: [boot]}}\n",
            "#cloud-config\nupdates: {network: {when: [boot-new-instance]}}\n",
            "#cloud-config\nother: {updates: {network: {when: [boot]}}}\n",
            "#!/bin/sh\necho: [\n",
        ] {
            assert!(!looks_at_every_boot(vendor), "{vendor:?}");
        }
    }
}
