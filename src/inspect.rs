//! Looks into a guest's cloud-init image before the guest does.

use std::io;

use crate::cloudinit::{self, Contents, Finding, Part, Resolver, Unsuitable, Wanted};
use crate::guest::{GuestConfig, storages};
use crate::hookscript;
use crate::host::files::read_limited;
use crate::model::{GuestKind, Vmid};
use crate::paths::Paths;
use crate::reconcile::{Node, ReconcileError};
use crate::registry::document::{GuestFile, PoolsFile};
use crate::system::image::{Image, ImageError};

/// No snippet is larger. Source: qemu-server `PVE/QemuServer/Cloudinit.pm`, `read_cloudinit_snippets_file`.
const LIMIT: usize = 1024 * 1024;

/// When a guest's image is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It starts: Proxmox VE has just made the image.
    Start,
    /// It runs: a reboot from within it finds the image that was made at its start, or by `qm cloudinit update`.
    Running,
    /// It does not run: Proxmox VE makes the image anew at the next start, of the configuration as it is then.
    Stopped,
}

/// What the image of a guest on this node has that the guest should not find there, or has not.
///
/// A guest without a cloud-init drive has no image, and nothing is found. Nothing is written, and nobody is called.
pub fn guest(
    paths: &Paths,
    guest: &GuestFile,
    pools: &PoolsFile,
    config: &GuestConfig,
    moment: Moment,
) -> Vec<Finding> {
    let vmid = guest.vmid;
    let drives = config.cloud_init_drives();
    if config.kind != GuestKind::Qemu || drives.is_empty() || guest.cloud_init.is_off() {
        return Vec::new();
    }
    if let Some(borrowed) = cloudinit::borrowed(vmid, config) {
        return vec![borrowed];
    }
    // Name servers are the guest's own affair: only that there are some is looked at.
    let wanted = match cloudinit::wanted(guest, pools, config, &Resolver::default()) {
        Ok(wanted) => wanted,
        Err(reason) => {
            let wrong = matches!(reason, Unsuitable::TwoDrives(_));
            let sentence = format!("nobody can tell whether guest {vmid} gets its addresses: {reason}");
            return vec![Finding { vmid, wrong, sentence, hint: reason.hint(vmid, config.kind) }];
        }
    };
    let Some(volume) = drives.into_values().next() else { return Vec::new() };
    if moment != Moment::Start {
        // The image is made of the configuration at each start: what is wrong there stays wrong.
        let next = next_image(paths, guest, config, &wanted);
        if moment == Moment::Stopped || next.iter().any(|finding| finding.wrong) {
            return next;
        }
    }
    let unread = |reason: String, wrong, hint| vec![Finding { vmid, wrong, sentence: reason, hint }];
    let (path, format) = match storages(paths).disk(volume) {
        Ok(found) => found,
        Err(error) => {
            let sentence = format!("nobody can tell whether guest {vmid} gets its addresses from `{volume}`: {error}");
            return unread(
                sentence,
                false,
                format!("compare what it has inside with `pve-public-ip show {vmid} --inside`"),
            );
        }
    };
    match Image::open(&paths.under_root(&path), format).and_then(|image| contents(&image)) {
        Ok(contents) => {
            let mut findings = cloudinit::check(guest, config, &wanted, &contents);
            for finding in findings.iter_mut().filter(|finding| finding.wrong && moment == Moment::Running) {
                // The configuration is right: only the image is of an older one, for as long as the guest runs.
                finding.sentence += ", if it boots again before it is stopped";
                finding.hint = format!("`qm cloudinit update {vmid}`");
            }
            findings
        }
        Err(ImageError::Io { source, .. }) if moment == Moment::Running && source.kind() == io::ErrorKind::NotFound => {
            Vec::new()
        }
        Err(error) => {
            let wrong = matches!(error, ImageError::Broken { .. });
            let sentence = format!("guest {vmid}: {:#}", anyhow::Error::from(error));
            unread(sentence, wrong, format!("`qm cloudinit update {vmid}` makes it anew"))
        }
    }
}

/// What the image will lack that Proxmox VE makes at the next start.
fn next_image(paths: &Paths, guest: &GuestFile, config: &GuestConfig, wanted: &Wanted) -> Vec<Finding> {
    let Some(volume) = config.cicustom().get(Part::Network.as_str()).copied() else {
        return cloudinit::check_lines(guest, config, wanted);
    };
    // Whether a snippet is there is asked by others; without it Proxmox VE itself does not start the guest.
    let document = hookscript::volume_path(paths, volume).ok().and_then(|path| read_limited(&path, LIMIT).ok());
    document.map(|document| cloudinit::check_document(guest, config, wanted, &document)).unwrap_or_default()
}

/// The same for all guests of a node; `runs` says which of them do.
pub fn node(node: &Node, runs: impl Fn(Vmid, GuestKind) -> bool) -> Result<Vec<Finding>, ReconcileError> {
    // The registry may be large, and few guests have a drive: the others' files are not read.
    let mut located = node.guests.local()?;
    located.retain(|_, config| !config.cloud_init_drives().is_empty());
    // Files that cannot be read are named by others.
    let Ok((pools, _)) = node.store.known_pools(None) else { return Ok(Vec::new()) };
    let mut findings = Vec::new();
    for (vmid, config) in located {
        match node.store.load_guest(vmid) {
            Some((Ok(guest), _)) if !guest.is_empty() => {
                let moment = if runs(vmid, config.kind) { Moment::Running } else { Moment::Stopped };
                findings.extend(self::guest(&node.paths, &guest, &pools, &config, moment));
            }
            _ => {}
        }
    }
    Ok(findings)
}

fn contents(image: &Image) -> Result<Contents, ImageError> {
    let (network, meta) = (image.file("network-config")?, image.file("meta-data")?);
    Ok(Contents { label: image.label().to_owned(), network, meta })
}
