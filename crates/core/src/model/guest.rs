//! Guests, their NICs and the ports that Proxmox gives them.

use std::fmt;
use std::str::FromStr;

use schemars::json_schema;

use super::IfName;

/// Number of a guest, 100 to 999999999.
///
/// Source: pve-common `PVE/JSONSchema.pm`, format `pve-vmid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vmid(u32);

/// Why a text is not a [`Vmid`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a VMID (a number from 100 to 999999999)")]
pub struct VmidError(String);

impl FromStr for Vmid {
    type Err = VmidError;

    fn from_str(text: &str) -> Result<Self, VmidError> {
        let plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if plain { text.parse().ok() } else { None };
        let in_range = number.filter(|number| (100..=999_999_999).contains(number));
        in_range.map(Self).ok_or_else(|| VmidError(text.to_owned()))
    }
}

impl fmt::Display for Vmid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl serde::Serialize for Vmid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Vmid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        number.to_string().parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Vmid {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Vmid".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        json_schema!({ "type": "integer", "minimum": 100, "maximum": 999_999_999 })
    }
}

/// Virtual machine or container; decides what the port is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// Virtual machine: port `tap<vmid>i<n>`, made by QEMU itself.
    Qemu,
    /// Container: port `veth<vmid>i<n>`, made by LXC.
    Lxc,
}

impl GuestKind {
    /// The host-side interface on which the frames of this NIC enter the node.
    ///
    /// With the NIC firewall it sits on a bridge of its own, under the same name; the frame is seen there first.
    pub fn port(self, vmid: Vmid, nic: NicId) -> IfName {
        IfName::literal(&format!("{}{}", self.stem(vmid), nic.index()))
    }

    /// What the names of all such interfaces of a guest begin with.
    pub fn stem(self, vmid: Vmid) -> IfName {
        let kind = match self {
            Self::Qemu => "tap",
            Self::Lxc => "veth",
        };
        IfName::literal(&format!("{kind}{vmid}i"))
    }

    /// The interface that stands for this NIC on the pool's bridge when the NIC firewall is on.
    ///
    /// Source: pve-firewall `PVE/Firewall/Helpers.pm` and pve-common `PVE/Network.pm`, `fwbr` plumbing.
    pub fn firewall_port(vmid: Vmid, nic: NicId) -> IfName {
        IfName::literal(&format!("fwpr{vmid}p{}", nic.index()))
    }

    /// Its other half, beside the guest's port on the bridge of the NIC firewall.
    pub fn firewall_link(vmid: Vmid, nic: NicId) -> IfName {
        IfName::literal(&format!("fwln{vmid}i{}", nic.index()))
    }

    /// In words.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Qemu => "virtual machine",
            Self::Lxc => "container",
        }
    }

    /// The word for it in paths of Proxmox VE's API.
    pub fn api(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Lxc => "lxc",
        }
    }

    /// The command that changes a guest of this kind.
    pub fn tool(self) -> &'static str {
        match self {
            Self::Qemu => "qm",
            Self::Lxc => "pct",
        }
    }
}

/// A NIC of a guest, `net0` to `net31`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NicId(u8);

/// Why a text is not a [`NicId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a guest NIC (net0 to net31)")]
pub struct NicIdError(String);

impl NicId {
    /// The first NIC, which `assign` means unless told otherwise.
    pub const FIRST: Self = Self(0);

    /// 0 to 31.
    pub fn index(self) -> u8 {
        self.0
    }

    /// ` --net 1`, as it follows a command about this NIC; empty for the first one, which need not be named.
    pub fn net_option(self) -> String {
        if self == Self::FIRST { String::new() } else { format!(" --net {}", self.0) }
    }
}

impl FromStr for NicId {
    type Err = NicIdError;

    /// Takes `net0` and, for the command line, `0`.
    fn from_str(text: &str) -> Result<Self, NicIdError> {
        let digits = text.strip_prefix("net").unwrap_or(text);
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit())
            && (digits.len() == 1 || (digits.len() == 2 && !digits.starts_with('0')));
        let index = if plain { digits.parse().ok() } else { None };
        index.filter(|index| *index < 32).map(Self).ok_or_else(|| NicIdError(text.to_owned()))
    }
}

impl fmt::Display for NicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("net{}", self.0))
    }
}

super::string_in_json!(NicId, json_schema!({ "type": "string", "pattern": "^net([0-9]|[12][0-9]|3[01])$" }));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_ports_as_proxmox_does() {
        let (vmid, nic) = ("999999999".parse().unwrap(), "net31".parse().unwrap());
        assert_eq!(GuestKind::Qemu.port(vmid, nic).to_string(), "tap999999999i31");
        assert_eq!(GuestKind::Lxc.port("100".parse().unwrap(), NicId::FIRST).to_string(), "veth100i0");
        assert_eq!(GuestKind::firewall_port("100".parse().unwrap(), NicId::FIRST).to_string(), "fwpr100p0");
    }

    #[test]
    fn refuses_what_is_no_vmid_or_nic() {
        for text in ["99", "0100", "1000000000", "-100", "1e3", "", "+100", "100 "] {
            let message = text.parse::<Vmid>().unwrap_err().to_string();
            assert_eq!(message, format!("`{text}` is not a VMID (a number from 100 to 999999999)"));
        }
        for text in ["net32", "net", "net00", "eth0", "net-1", "net 1", ""] {
            let message = text.parse::<NicId>().unwrap_err().to_string();
            assert_eq!(message, format!("`{text}` is not a guest NIC (net0 to net31)"));
        }
    }
}
