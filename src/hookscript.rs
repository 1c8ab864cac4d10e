//! The script by which Proxmox VE calls us, and the storages in which it lies.
//!
//! Source: pve-guest-common `PVE/GuestHelpers.pm` `check_hookscript`, pve-storage `PVE/Storage/Plugin.pm`.

use std::path::PathBuf;

use crate::paths::Paths;
use crate::system::files;

/// File name of our hookscript in a snippets directory.
pub const NAME: &str = "pve-public-ip";

/// The volume that `assign` registers: the storage `local` exists on every node.
pub const VOLUME: &str = "local:snippets/pve-public-ip";

/// Whether a hookscript volume is ours, on whatever storage.
pub fn is_ours(volume: &str) -> bool {
    volume.split_once(':').is_some_and(|(_, path)| path == "snippets/pve-public-ip")
}

/// The file of a snippets volume such as `local:snippets/x.sh`; the error says why there is none.
pub fn volume_path(paths: &Paths, volume: &str) -> Result<PathBuf, String> {
    let (storage, name) = volume
        .split_once(':')
        .and_then(|(storage, path)| Some((storage, path.strip_prefix("snippets/")?)))
        .filter(|(_, name)| !name.is_empty() && !name.contains('/') && *name != "..")
        .ok_or_else(|| "it is not of the form STORAGE:snippets/FILE".to_owned())?;
    let text = files::read_limited(&paths.storage_cfg(), 1 << 20).unwrap_or_default();
    let directory = snippets_directory(&String::from_utf8_lossy(&text), storage)
        .ok_or_else(|| format!("there is no storage `{storage}` with files in /etc/pve/storage.cfg"))?;
    Ok(paths.under_root(&directory).join(name))
}

/// Directory for snippets of a storage, from the text of `storage.cfg`.
fn snippets_directory(text: &str, storage: &str) -> Option<String> {
    let mut kind = None;
    let mut path = None;
    let mut sub = "snippets".to_owned();
    let mut inside = false;
    for line in text.lines() {
        let is_header = !line.starts_with([' ', '\t', '#']) && line.contains(':');
        if is_header {
            let (found_kind, id) = line.split_once(':')?;
            inside = id.trim() == storage;
            if inside {
                kind = Some(found_kind.trim().to_owned());
            }
        } else if let (true, Some((key, value))) = (inside, line.trim().split_once(char::is_whitespace)) {
            match key {
                "path" => path = Some(value.trim().to_owned()),
                "content-dirs" => {
                    let mut named = value.split(',').filter_map(|part| part.trim().split_once('='));
                    sub = named.find(|(content, _)| *content == "snippets").map_or(sub, |(_, dir)| dir.to_owned());
                }
                _ => {}
            }
        }
    }
    let base = match (storage, kind.as_deref(), path) {
        // Proxmox VE forces `local` to this directory.
        ("local", _, _) => "/var/lib/vz".to_owned(),
        (_, Some("dir" | "btrfs"), Some(path)) => path,
        (_, Some("nfs" | "cifs" | "cephfs" | "glusterfs"), path) => {
            path.unwrap_or_else(|| format!("/mnt/pve/{storage}"))
        }
        _ => return None,
    };
    Some(format!("{}/{}", base.trim_end_matches('/'), sub.trim_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CFG: &str = "dir: local\n\tpath /var/lib/vz\n\tcontent iso\n\nnfs: share\n\tserver 192.0.2.1\n\tcontent snippets\n\n\
        dir: other\n\tpath /srv/x/\n\tcontent-dirs snippets=hooks/s,iso=i\n\nlvm: vg\n\tvgname pve\n";

    #[test]
    fn finds_the_file_of_a_volume() {
        for (storage, expected) in [
            ("local", Some("/var/lib/vz/snippets")),
            ("share", Some("/mnt/pve/share/snippets")),
            ("other", Some("/srv/x/hooks/s")),
            ("vg", None),
            ("none", None),
        ] {
            assert_eq!(snippets_directory(CFG, storage).as_deref(), expected, "{storage}");
        }
        let paths = Paths::new("/nowhere");
        assert_eq!(
            volume_path(&paths, "local:snippets/a.sh").unwrap(),
            PathBuf::from("/nowhere/var/lib/vz/snippets/a.sh")
        );
        for volume in ["a.sh", "local:iso/a", "local:snippets/", "local:snippets/../x", "local:snippets/a/b"] {
            assert_eq!(
                volume_path(&paths, volume).unwrap_err(),
                "it is not of the form STORAGE:snippets/FILE",
                "{volume}"
            );
        }
    }

    #[test]
    fn knows_its_own_volume_on_any_storage() {
        assert!(is_ours(VOLUME) && is_ours("cephfs:snippets/pve-public-ip"));
        assert!(!is_ours("local:snippets/pve-public-ip.sh") && !is_ours("pve-public-ip"));
    }
}
