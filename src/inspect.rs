//! Looks into a guest's cloud-init image before the guest does.

use std::io;

use crate::cloudinit::{self, Contents, Finding, Resolver, Unsuitable};
use crate::guest::{GuestConfig, storages};
use crate::model::GuestKind;
use crate::paths::Paths;
use crate::reconcile::{Node, ReconcileError};
use crate::registry::document::{GuestFile, PoolsFile};
use crate::system::image::{Image, ImageError};

/// When a guest's image is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It starts: Proxmox VE has just made the image.
    Start,
    /// Any other: the volume of a guest that does not run may be out of reach, and is made anew at the next start.
    Other,
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
            for finding in findings.iter_mut().filter(|finding| finding.wrong && moment == Moment::Other) {
                // The configuration may be right by now: the image is made of it at the next start.
                finding.hint += &format!("; or, if nothing is to be written, `qm cloudinit update {vmid}`");
            }
            findings
        }
        Err(ImageError::Io { source, .. }) if moment == Moment::Other && source.kind() == io::ErrorKind::NotFound => {
            Vec::new()
        }
        Err(error) => {
            let wrong = matches!(error, ImageError::Broken { .. });
            let sentence = format!("guest {vmid}: {:#}", anyhow::Error::from(error));
            unread(sentence, wrong, format!("`qm cloudinit update {vmid}` makes it anew"))
        }
    }
}

/// The same for all guests of a node.
pub fn node(node: &Node) -> Result<Vec<Finding>, ReconcileError> {
    // The registry may be large, and few guests have a drive: the others' files are not read.
    let mut located = node.guests.local()?;
    located.retain(|_, config| !config.cloud_init_drives().is_empty());
    // Files that cannot be read are named by others.
    let Ok((pools, _)) = node.store.known_pools() else { return Ok(Vec::new()) };
    let mut findings = Vec::new();
    for (vmid, config) in located {
        match node.store.load_guest(vmid) {
            Some((Ok(guest), _)) if !guest.is_empty() => {
                findings.extend(self::guest(&node.paths, &guest, &pools, &config, Moment::Other));
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
