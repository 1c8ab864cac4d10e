//! What a guest's configuration says about the network inside: cloud-init's settings, and a container's addresses.
//!
//! Source: qemu-server `PVE/QemuServer.pm` (`$confdesc_cloudinit`, `$ipconfig_fmt`) and `PVE/QemuServer/Drive.pm`
//! (`drive_is_cloudinit`), pve-container `PVE/LXC/Config.pm` (`$netconf_desc`).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::config::{GuestConfig, NicError, is_true, properties};
use crate::model::text::command_line;
use crate::model::{GuestKind, NicId, Vmid};

/// `ipconfigN` of a virtual machine, or the same keys in a container's `netN`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpConfig {
    /// `ip` and `gw`.
    pub v4: IpFamily,
    /// `ip6` and `gw6`.
    pub v6: IpFamily,
}

/// One family of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpFamily {
    /// Where the address comes from.
    pub address: Option<Addressing>,
    /// The gateway; it needs a static address.
    pub gateway: Option<IpAddr>,
}

/// Where the address of a NIC comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// From the configuration.
    Static(IpNet),
    /// From a DHCP server.
    Dhcp,
    /// From router advertisements.
    Auto,
    /// From nowhere: the guest does it by itself.
    Manual,
}

impl fmt::Display for Addressing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(net) => net.fmt(f),
            Self::Dhcp => f.pad("dhcp"),
            Self::Auto => f.pad("auto"),
            Self::Manual => f.pad("manual"),
        }
    }
}

impl fmt::Display for IpConfig {
    /// As Proxmox VE writes it; empty if there is nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (family, ip, gw) in [(&self.v4, "ip", "gw"), (&self.v6, "ip6", "gw6")] {
            parts.extend(family.address.map(|address| format!("{ip}={address}")));
            parts.extend(family.gateway.map(|gateway| format!("{gw}={gateway}")));
        }
        f.pad(&parts.join(","))
    }
}

impl IpConfig {
    /// Static addresses that have a gateway, with it.
    pub fn static_gateways(&self) -> Vec<(IpNet, IpAddr)> {
        let families = [&self.v4, &self.v6].into_iter();
        let pair = |family: &IpFamily| match family.address? {
            Addressing::Static(net) => Some((net, family.gateway?)),
            _ => None,
        };
        families.filter_map(pair).collect()
    }

    /// The keys that belong to it; a container's `netN` has others beside them.
    pub const KEYS: [&str; 4] = ["ip", "gw", "ip6", "gw6"];

    /// Reads the keys of a property string, and no others.
    pub fn parse(value: &str) -> Result<Self, NicError> {
        let mut config = Self::default();
        for (key, value) in properties(value).filter(|(key, _)| Self::KEYS.contains(key)) {
            let bad = |what: &str| NicError::Value { key: key.to_owned(), reason: format!("`{value}` is not {what}") };
            let (family, is_v6) = if key.ends_with('6') { (&mut config.v6, true) } else { (&mut config.v4, false) };
            let taken = if key.starts_with("gw") {
                let gateway = value.parse().ok().filter(|address: &IpAddr| address.is_ipv6() == is_v6);
                family.gateway.replace(gateway.ok_or_else(|| bad("an address of that family"))?).is_some()
            } else {
                let address = match value {
                    "dhcp" => Some(Addressing::Dhcp),
                    "auto" if is_v6 => Some(Addressing::Auto),
                    "manual" => Some(Addressing::Manual),
                    net => {
                        let net = net.parse().ok().filter(|net: &IpNet| net.addr().is_ipv6() == is_v6);
                        net.map(Addressing::Static)
                    }
                };
                family
                    .address
                    .replace(address.ok_or_else(|| bad("an address of that family with its length"))?)
                    .is_some()
            };
            if taken {
                return Err(NicError::Duplicate(key.to_owned()));
            }
        }
        Ok(config)
    }
}

/// In which form the guest gets its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloudInitForm {
    /// The only one that carries more than a plain address on Linux.
    NoCloud,
    /// What Windows (cloudbase-init) reads.
    ConfigDrive2,
    /// Shell variables.
    OpenNebula,
}

impl CloudInitForm {
    /// As `citype` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCloud => "nocloud",
            Self::ConfigDrive2 => "configdrive2",
            Self::OpenNebula => "opennebula",
        }
    }
}

impl GuestConfig {
    /// Drives with cloud-init's volume, by their name (`ide2`). One is right; of two nobody knows which the guest reads.
    pub fn cloud_init_drives(&self) -> BTreeMap<&str, &str> {
        if self.kind != GuestKind::Qemu {
            return BTreeMap::new();
        }
        let mut drives = BTreeMap::new();
        for (key, value) in &self.lines {
            let bus = key.trim_end_matches(|c: char| c.is_ascii_digit());
            let is_drive = bus != key && ["ide", "sata", "scsi", "virtio"].contains(&bus);
            let file = properties(value).find(|(name, _)| matches!(*name, "" | "file"));
            if let (true, Some((_, volume))) = (is_drive, file.filter(|(_, volume)| is_cloud_init_volume(volume))) {
                drives.insert(key.as_str(), volume);
            }
        }
        drives
    }

    /// The form of the data: `citype`, else what the operating system reads.
    pub fn cloud_init_form(&self) -> CloudInitForm {
        match self.line("citype") {
            Some("configdrive2") => CloudInitForm::ConfigDrive2,
            Some("opennebula") => CloudInitForm::OpenNebula,
            None if self.is_windows() => CloudInitForm::ConfigDrive2,
            _ => CloudInitForm::NoCloud,
        }
    }

    /// Whether `ostype` is one of Windows: `w2k8`, `wvista`, `win11`, ...
    pub fn is_windows(&self) -> bool {
        self.kind == GuestKind::Qemu && self.line("ostype").is_some_and(|kind| kind.starts_with('w'))
    }

    /// How the NIC is configured inside, if the configuration says so.
    pub fn ip_config(&self, nic: NicId) -> Option<Result<IpConfig, NicError>> {
        let key = self.ip_config_key(nic);
        let config = IpConfig::parse(self.line(&key)?);
        (config != Ok(IpConfig::default())).then_some(config)
    }

    /// The static addresses that a NIC is configured with; what is not understood is none.
    pub fn static_addresses(&self, nic: NicId) -> Vec<IpNet> {
        let inside = self.ip_config(nic).and_then(Result::ok).unwrap_or_default();
        let addresses = [inside.v4.address, inside.v6.address].into_iter().flatten();
        addresses.filter_map(|from| if let Addressing::Static(net) = from { Some(net) } else { None }).collect()
    }

    /// The value of that line with another configuration; what else a container's NIC has stays as it is.
    pub fn with_ip_config(&self, nic: NicId, inside: &IpConfig) -> String {
        let line = self.line(&self.ip_config_key(nic)).unwrap_or_default();
        let is_other = |part: &&str| {
            !part.is_empty() && !part.split_once('=').is_some_and(|(key, _)| IpConfig::KEYS.contains(&key))
        };
        let inside = inside.to_string();
        line.split(',')
            .filter(is_other)
            .chain([inside.as_str()])
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(",")
    }

    /// The command by which the guest is not configured with a fixed address on a NIC any more.
    pub fn without_address(&self, vmid: Vmid, nic: NicId) -> String {
        let (number, key) = (vmid.to_string(), self.ip_config_key(nic));
        match self.kind {
            GuestKind::Qemu => command_line(["qm", "set", &number, "--delete", &key]),
            GuestKind::Lxc => {
                let line = self.with_ip_config(nic, &IpConfig::default());
                command_line(["pct", "set", &number, &format!("--{key}"), &line])
            }
        }
    }

    /// The NIC that is configured with an address.
    pub fn nic_with(&self, address: IpAddr) -> Option<NicId> {
        let mut nics = self.nics.keys().copied();
        nics.find(|nic| self.static_addresses(*nic).iter().any(|net| net.addr() == address))
    }

    /// The line that has it: `ipconfig0`, or a container's `net0`.
    pub fn ip_config_key(&self, nic: NicId) -> String {
        match self.kind {
            GuestKind::Qemu => format!("ipconfig{}", nic.index()),
            GuestKind::Lxc => nic.to_string(),
        }
    }

    /// Volumes that replace what Proxmox VE would write, by kind: `meta`, `network`, `user`, `vendor`.
    pub fn cicustom(&self) -> BTreeMap<&str, &str> {
        self.line("cicustom").map(properties).into_iter().flatten().collect()
    }

    /// Name servers that the guest shall use; without any it gets the node's.
    pub fn name_servers(&self) -> Vec<IpAddr> {
        self.words("nameserver").filter_map(|word| word.parse().ok()).collect()
    }

    /// Domains that the guest shall search; without any it gets the node's.
    pub fn search_domains(&self) -> Vec<&str> {
        self.words("searchdomain").collect()
    }

    /// The machine's UUID: a clone gets another one.
    pub fn uuid(&self) -> Option<&str> {
        let (_, uuid) = properties(self.line("smbios1")?).find(|(key, _)| *key == "uuid")?;
        let lengths =
            uuid.split('-').map(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(part.len()));
        lengths.eq([8, 4, 4, 4, 12].map(Some)).then_some(uuid)
    }

    /// Whether the guest's agent may be asked to run something.
    pub fn has_agent(&self) -> bool {
        self.line("agent").map(properties).into_iter().flatten().any(|(key, value)| match key {
            "" | "enabled" => is_true(value),
            _ => false,
        })
    }

    fn words(&self, key: &str) -> impl Iterator<Item = &str> {
        let text = self.line(key).unwrap_or_default();
        text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';')).filter(|word| !word.is_empty())
    }
}

/// `local-lvm:vm-100-cloudinit`, `local:100/vm-100-cloudinit.qcow2`, and `local:cloudinit` before it is made.
fn is_cloud_init_volume(volume: &str) -> bool {
    let Some((_, name)) = volume.rsplit_once([':', '/']) else { return false };
    let (stem, format) = name.split_once('.').unwrap_or((name, "raw"));
    let stem = match stem.strip_prefix("vm-").and_then(|rest| rest.split_once('-')) {
        Some((vmid, rest)) if vmid.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => stem,
    };
    stem == "cloudinit" && ["raw", "qcow2", "qcow", "qed", "vmdk", "cloop"].contains(&format)
}
