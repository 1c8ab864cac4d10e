//! The cluster's storages, as far as this program finds files and volumes with them.
//!
//! Source: pve-common `PVE/SectionConfig.pm`, pve-storage `PVE/Storage/Plugin.pm` and the plugins beside it.

use std::collections::BTreeMap;

use crate::model::NodeName;

/// What the bytes of a volume are, by its name. Never guessed from them: a raw volume may begin with whatever its owner
/// likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The guest's bytes.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

/// Why a volume has no file or device of its own on the node, or none that is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// Not `STORAGE:...`.
    #[error("`{0}` is not the name of a volume")]
    Name(String),
    /// No such storage.
    #[error("there is no storage `{0}` in /etc/pve/storage.cfg")]
    NoStorage(String),
    /// Only the storage's own programs reach into it.
    #[error("storage `{storage}` is of type {kind}, whose volumes are not read here")]
    Remote {
        /// The storage.
        storage: String,
        /// Its type.
        kind: String,
    },
    /// A definition without what it must have.
    #[error("storage `{storage}` of type {kind} has no `{key}` in /etc/pve/storage.cfg")]
    Incomplete {
        /// The storage.
        storage: String,
        /// Its type.
        kind: String,
        /// What is missing.
        key: &'static str,
    },
}

/// The storages by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Storages(BTreeMap<String, Storage>);

/// One storage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Storage {
    /// `dir`, `nfs`, `lvm`, `zfspool`, ...
    pub kind: String,
    /// What is set for it.
    pub settings: BTreeMap<String, String>,
}

/// What Proxmox VE makes of a `local` that is not as it should be.
const LOCAL_PATH: &str = "/var/lib/vz";
const LOCAL_CONTENT: &str = "backup,images,iso,rootdir,snippets,vztmpl";

/// Kinds that are the same on every node without being said to be.
const SHARED: [&str; 4] = ["nfs", "cifs", "cephfs", "glusterfs"];

impl Storage {
    /// Whether it is in use and may have snippets.
    pub fn takes_snippets(&self) -> bool {
        let has_files = SHARED.contains(&self.kind.as_str()) || matches!(self.kind.as_str(), "dir" | "btrfs");
        let content = self.settings.get("content").map(String::as_str).unwrap_or_default();
        !self.is_set("disable") && has_files && content.split(',').any(|kind| kind.trim() == "snippets")
    }

    /// Whether all nodes see the same files in it.
    pub fn is_shared(&self) -> bool {
        SHARED.contains(&self.kind.as_str()) || self.is_set("shared")
    }

    /// Whether a node may use it.
    pub fn is_on(&self, node: &NodeName) -> bool {
        let nodes = self.settings.get("nodes");
        nodes.is_none_or(|nodes| nodes.split([',', ';', ' ']).any(|name| name == node.as_str()))
    }

    fn is_set(&self, flag: &str) -> bool {
        self.settings.get(flag).is_some_and(|value| value != "0")
    }
}

impl Storages {
    /// Reads `storage.cfg`. Never fails: Proxmox VE itself skips what it does not understand.
    pub fn parse(text: &str) -> Self {
        let mut storages = BTreeMap::<String, Storage>::new();
        let mut current: Option<String> = None;
        for line in text.lines() {
            if line.starts_with('#') {
                continue;
            }
            if !line.starts_with([' ', '\t']) {
                let header = line.split_once(':').map(|(kind, name)| (kind.trim(), name.trim()));
                current = header.map(|(kind, name)| {
                    storages.insert(name.to_owned(), Storage { kind: kind.to_owned(), ..Storage::default() });
                    name.to_owned()
                });
            } else if let Some(storage) = current.as_ref().and_then(|name| storages.get_mut(name)) {
                let line = line.trim();
                // A flag such as `sparse` may stand without a value.
                let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
                storage.settings.insert(key.to_owned(), value.trim().to_owned());
            }
        }
        // Every node has it, named in the file or not, and always here.
        let local = storages.entry("local".to_owned()).or_default();
        let is_usual = local.kind == "dir" && local.settings.get("path").is_none_or(|path| path == LOCAL_PATH);
        if !is_usual {
            local.settings = BTreeMap::from([("content".to_owned(), LOCAL_CONTENT.to_owned())]);
        }
        "dir".clone_into(&mut local.kind);
        local.settings.insert("path".to_owned(), LOCAL_PATH.to_owned());
        local.settings.remove("nodes");
        Self(storages)
    }

    /// A storage by name.
    pub fn get(&self, name: &str) -> Option<&Storage> {
        self.0.get(name)
    }

    /// Every storage.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Storage)> {
        self.0.iter().map(|(name, storage)| (name.as_str(), storage))
    }

    /// Directory of a storage for one kind of content; `None`: it does not exist or keeps no files.
    pub fn directory(&self, storage: &str, content: &str) -> Option<String> {
        let found = self.get(storage)?;
        let base = match (found.kind.as_str(), found.settings.get("path")) {
            ("dir" | "btrfs" | "nfs" | "cifs" | "cephfs" | "glusterfs", Some(path)) => path.clone(),
            ("nfs" | "cifs" | "cephfs" | "glusterfs", None) => format!("/mnt/pve/{storage}"),
            _ => return None,
        };
        let named = found.settings.get("content-dirs").into_iter().flat_map(|value| value.split(','));
        let mut named = named.filter_map(|part| part.trim().split_once('='));
        let sub = named.find(|(known, _)| *known == content).map_or(content, |(_, directory)| directory);
        Some(format!("{}/{}", base.trim_end_matches('/'), sub.trim_matches('/')))
    }

    /// The file or device of a guest's disk such as `local:100/vm-100-cloudinit.qcow2`, and what is in it.
    pub fn disk(&self, volume: &str) -> Result<(String, Format), VolumeError> {
        let bad = || VolumeError::Name(volume.to_owned());
        let (storage, name) = volume.split_once(':').ok_or_else(bad)?;
        if name.is_empty() || name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(bad());
        }
        let found = self.get(storage).ok_or_else(|| VolumeError::NoStorage(storage.to_owned()))?;
        let kind = || found.kind.clone();
        let setting = |key: &'static str| {
            let incomplete = || VolumeError::Incomplete { storage: storage.to_owned(), kind: kind(), key };
            found.settings.get(key).ok_or_else(incomplete)
        };
        // A linked clone's base stands before its own name.
        let mut parts = name.rsplit('/');
        let (own, guest) = (parts.next().unwrap_or_default(), parts.next());
        let format = own.strip_suffix(".qcow2").map_or(Format::Raw, |_| Format::Qcow2);
        let path = match (found.kind.as_str(), guest) {
            ("lvm" | "lvmthin", _) => format!("/dev/{}/{own}", setting("vgname")?),
            ("zfspool", _) => format!("/dev/zvol/{}/{own}", setting("pool")?),
            (_, guest) => {
                let directory = self.directory(storage, "images");
                let directory =
                    directory.ok_or_else(|| VolumeError::Remote { storage: storage.to_owned(), kind: kind() })?;
                let guest = guest.ok_or_else(bad)?;
                match own.strip_suffix(".raw").filter(|_| found.kind == "btrfs") {
                    // A subvolume of its own, so that a snapshot can be taken of it.
                    Some(own) => format!("{directory}/{guest}/{own}/disk.raw"),
                    None => format!("{directory}/{guest}/{own}"),
                }
            }
        };
        Ok((path, format))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CFG: &str = "dir: local\n\tpath /srv/elsewhere\n\tcontent iso\n\nnfs: share\n\tserver 192.0.2.1\n\tcontent snippets\n\n\
        dir: other\n\tpath /srv/x/\n\tcontent-dirs snippets=hooks/s,images=i\n\nlvm: vg\n\tvgname pve\n\n# gone\nlvmthin: thin\n\
        \tthinpool data\n\tvgname pve\n\nzfspool: local-zfs\n\tpool rpool/data\n\tsparse\n\nrbd: ceph\n\tpool vms\n\n\
        btrfs: bt\n\tpath /srv/bt\n\nlvm: half\n\n\tvgname lost\n\nthis is no header\n\tpath /x\n";

    #[test]
    fn finds_directories() {
        let storages = Storages::parse(CFG);
        for (storage, content, expected) in [
            // Proxmox VE forces `local` to this directory.
            ("local", "snippets", Some("/var/lib/vz/snippets")),
            ("share", "snippets", Some("/mnt/pve/share/snippets")),
            ("other", "snippets", Some("/srv/x/hooks/s")),
            ("other", "iso", Some("/srv/x/iso")),
            ("vg", "snippets", None),
            ("none", "snippets", None),
        ] {
            assert_eq!(storages.directory(storage, content).as_deref(), expected, "{storage}");
        }
        assert_eq!(Storages::parse("").directory("local", "images").unwrap(), "/var/lib/vz/images");
        let kinds: Vec<&str> = storages.iter().map(|(_, storage)| storage.kind.as_str()).collect();
        assert_eq!(kinds, ["btrfs", "rbd", "lvm", "dir", "zfspool", "dir", "nfs", "lvmthin", "lvm"]);
        assert_eq!(storages.get("local-zfs").unwrap().settings["sparse"], "");
    }

    #[test]
    fn knows_who_has_snippets() {
        let text = "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\tnodes n2\n\nnfs: share\n\tcontent snippets\n\n\
            dir: other\n\tpath /srv/x\n\tcontent images, snippets\n\tshared\n\tnodes n1,n2\n\n\
            lvm: vg\n\tvgname pve\n\tcontent snippets\n\ndir: off\n\tpath /srv/off\n\tcontent snippets\n\tdisable\n";
        let storages = Storages::parse(text);
        let found = |name: &str| {
            let storage = storages.get(name).unwrap();
            let on = ["n1", "n3"].map(|node| storage.is_on(&node.parse().unwrap()));
            (storage.takes_snippets(), storage.is_shared(), on)
        };
        assert_eq!(found("local"), (false, false, [true, true]), "it is on every node");
        assert_eq!(found("share"), (true, true, [true, true]));
        assert_eq!(found("other"), (true, true, [true, false]));
        assert!(!found("vg").0 && !found("off").0);
        for text in ["", "zfspool: local\n\tpool rpool\n", "dir: local\n\tpath /srv/local\n"] {
            assert!(Storages::parse(text).get("local").unwrap().takes_snippets(), "{text:?}");
        }
    }

    #[test]
    fn finds_disks() {
        let storages = Storages::parse(CFG);
        let found = |volume: &str| storages.disk(volume).map_err(|error| error.to_string());
        for (volume, path, format) in [
            ("local:100/vm-100-cloudinit.qcow2", "/var/lib/vz/images/100/vm-100-cloudinit.qcow2", Format::Qcow2),
            ("share:100/vm-100-cloudinit.raw", "/mnt/pve/share/images/100/vm-100-cloudinit.raw", Format::Raw),
            ("other:100/vm-100-cloudinit.qcow2", "/srv/x/i/100/vm-100-cloudinit.qcow2", Format::Qcow2),
            ("vg:vm-100-cloudinit", "/dev/pve/vm-100-cloudinit", Format::Raw),
            ("vg:vm-100-cloudinit.qcow2", "/dev/pve/vm-100-cloudinit.qcow2", Format::Qcow2),
            ("thin:vm-100-cloudinit", "/dev/pve/vm-100-cloudinit", Format::Raw),
            ("local-zfs:vm-100-cloudinit", "/dev/zvol/rpool/data/vm-100-cloudinit", Format::Raw),
            ("local-zfs:base-9-disk-0/vm-100-cloudinit", "/dev/zvol/rpool/data/vm-100-cloudinit", Format::Raw),
            ("bt:100/vm-100-cloudinit.raw", "/srv/bt/images/100/vm-100-cloudinit/disk.raw", Format::Raw),
            ("bt:100/vm-100-cloudinit.qcow2", "/srv/bt/images/100/vm-100-cloudinit.qcow2", Format::Qcow2),
        ] {
            assert_eq!(found(volume), Ok((path.to_owned(), format)), "{volume}");
        }
        for (volume, reason) in [
            ("vm-100-cloudinit", "`vm-100-cloudinit` is not the name of a volume"),
            ("local:../vm-100-cloudinit.raw", "`local:../vm-100-cloudinit.raw` is not the name of a volume"),
            ("local:vm-100-cloudinit.raw", "`local:vm-100-cloudinit.raw` is not the name of a volume"),
            ("local:", "`local:` is not the name of a volume"),
            ("nowhere:vm-100-cloudinit", "there is no storage `nowhere` in /etc/pve/storage.cfg"),
            ("ceph:vm-100-cloudinit", "storage `ceph` is of type rbd, whose volumes are not read here"),
            ("half:vm-100-cloudinit", "storage `half` of type lvm has no `vgname` in /etc/pve/storage.cfg"),
        ] {
            assert_eq!(found(volume), Err(reason.to_owned()), "{volume}");
        }
    }
}
