//! The script by which Proxmox VE calls us.
//!
//! Source: pve-guest-common `PVE/GuestHelpers.pm` `check_hookscript`.

use std::path::PathBuf;

use crate::guest;
use crate::paths::Paths;

/// File name of our hookscript in a snippets directory.
pub const NAME: &str = "pve-public-ip";

/// The script, as the package has it.
pub const SCRIPT: &str = include_str!("../hookscripts/pve-public-ip");

/// Whether a script calls us, as ours and every copy of it does. The one that a removal leaves behind does not.
pub fn calls_us(script: &[u8]) -> bool {
    String::from_utf8_lossy(script).contains("pve-public-ip hook")
}

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
    let directory = guest::storages(paths)
        .directory(storage, "snippets")
        .ok_or_else(|| format!("there is no storage `{storage}` with files in /etc/pve/storage.cfg"))?;
    Ok(paths.under_root(&directory).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_file_of_a_volume() {
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
        let left_behind = include_bytes!("../hookscripts/pve-public-ip-removed");
        assert!(calls_us(SCRIPT.as_bytes()) && !calls_us(left_behind) && !calls_us(b""));
    }
}
