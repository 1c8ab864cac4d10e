//! Names of the files from which Proxmox VE takes a guest's data.

use std::fmt;
use std::str::FromStr;

use crate::model::Vmid;

/// What a snippet takes the place of. The names are those of `cicustom`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The instance-id.
    Meta,
    /// The network.
    Network,
    /// What the provider (this program) wants of cloud-init.
    Vendor,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Meta, Self::Network, Self::Vendor];

    /// As `cicustom` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Network => "network",
            Self::Vendor => "vendor",
        }
    }
}

/// `pve-public-ip-100-2e5bd7c2-0ed6-4a3a-9b87-6d3a1f1b6c11-network.yaml`: bound to number and UUID of its guest, so that a
/// clone, whose configuration names it too, can be told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnippetName {
    /// The guest.
    pub vmid: Vmid,
    /// Its `smbios1` UUID.
    pub uuid: String,
    /// What is in it.
    pub part: Part,
}

const PREFIX: &str = "pve-public-ip-";

impl SnippetName {
    /// The snippet that a volume such as `local:snippets/...` is, if it is one of this program's.
    pub fn of_volume(volume: &str) -> Option<Self> {
        volume.split_once(":snippets/")?.1.parse().ok()
    }
}

impl fmt::Display for SnippetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}-{}.yaml", self.vmid, self.uuid, self.part.as_str())
    }
}

impl FromStr for SnippetName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let rest = text.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(".yaml")).ok_or(())?;
        let (rest, part) = rest.rsplit_once('-').ok_or(())?;
        let part = Part::ALL.into_iter().find(|known| known.as_str() == part).ok_or(())?;
        let (vmid, uuid) = rest.split_once('-').ok_or(())?;
        Ok(Self { vmid: vmid.parse().map_err(|_| ())?, uuid: uuid.to_owned(), part })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let volume = "nfs:snippets/pve-public-ip-100-2e5bd7c2-0ed6-4a3a-9b87-6d3a1f1b6c11-network.yaml";
        let name = SnippetName::of_volume(volume).unwrap();
        assert_eq!((name.vmid, name.part), ("100".parse().unwrap(), Part::Network));
        assert_eq!(name.uuid, "2e5bd7c2-0ed6-4a3a-9b87-6d3a1f1b6c11");
        assert_eq!(format!("nfs:snippets/{name}"), volume);
        for volume in ["local:snippets/net.yaml", "local:snippets/pve-public-ip", "pve-public-ip-100-x-meta.yaml"] {
            assert_eq!(SnippetName::of_volume(volume), None, "{volume}");
        }
    }
}
