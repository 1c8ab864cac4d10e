//! Why the registry could not be read or changed, and what helps.

use std::io;
use std::path::{Path, PathBuf};

use super::lock::LockError;
use crate::code;
use crate::model::{Code, Subject};
use crate::registry::{RuleError, document};

/// Why the registry could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read, for a reason other than its content.
    #[error("cannot read the registry at `{}`", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot save the registry at `{}`", path.display())]
    Save {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A document cannot be turned into JSON, which is a bug.
    #[error("cannot render `{}`", path.display())]
    Render {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: serde_json::Error,
    },
    /// Somebody wrote the file without taking the lock.
    #[error("`{}` was changed by someone else since it was read; nothing was written", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The result would be larger than pmxcfs takes.
    #[error("`{}` would have {size} bytes; the cluster file system allows {}", path.display(), document::MAX_FILE_SIZE)]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: usize,
    },
    /// Proxmox VE's file system is not mounted.
    #[error("the cluster file system is not mounted at `{}` (pmxcfs is not running)", path.display())]
    Down {
        /// `/etc/pve`.
        path: PathBuf,
    },
    /// pmxcfs has ended, and its mount is still there.
    #[error("the mount at `{}` is stale, because pmxcfs has ended", path.display())]
    Stale {
        /// `/etc/pve`.
        path: PathBuf,
        /// The system's reason: the transport endpoint is not connected.
        source: io::Error,
    },
    /// The keys of the API cannot be used.
    #[error("cannot use the keys of the API in `{}`", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Against the rules.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

impl StoreError {
    /// Its kind.
    pub fn code(&self) -> Code {
        match self {
            Self::Read { .. } => code!("registry-unreadable"),
            Self::Save { .. } | Self::Lock(LockError::Io { .. }) => code!("registry-not-writable"),
            Self::Render { .. } => code!("internal-error"),
            Self::Changed { .. } => code!("registry-changed-meanwhile"),
            Self::TooLarge { .. } => code!("registry-file-too-large"),
            Self::Down { .. } => code!("etc-pve-down"),
            Self::Stale { .. } => code!("etc-pve-stale"),
            Self::Lock(LockError::Busy { .. }) => code!("registry-locked"),
            Self::Lock(LockError::Expired(_)) => code!("registry-lock-lost"),
            Self::Keys { .. } => code!("keys-unusable"),
            Self::Rule(error) => error.code(),
        }
    }

    /// What it is about.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Read { path, .. }
            | Self::Save { path, .. }
            | Self::Render { path, .. }
            | Self::Changed { path }
            | Self::TooLarge { path, .. }
            | Self::Stale { path, .. }
            | Self::Keys { path, .. }
            | Self::Down { path } => Subject::File(path.display().to_string()),
            Self::Lock(_) => Subject::Node,
            Self::Rule(error) => error.subject(),
        }
    }

    /// The administrator's next step.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { path, source } | Self::Save { path, source } | Self::Lock(LockError::Io { path, source }) => {
                Some(write_hint(path, source))
            }
            Self::Changed { .. } => Some("run the command again".to_owned()),
            Self::TooLarge { .. } => Some("use prefixes instead of single addresses, or split the file".to_owned()),
            Self::Down { .. } => Some("`systemctl status pve-cluster`, then try again".to_owned()),
            Self::Stale { .. } => Some("`systemctl restart pve-cluster`".to_owned()),
            Self::Lock(LockError::Busy { path, .. }) => Some(format!(
                "try again; a lock left by a dead node goes away by itself after 120 s (or `rmdir {}`)",
                path.display()
            )),
            Self::Lock(LockError::Expired(_)) => Some("`/etc/pve` is slow: `pvecm status`, then try again".to_owned()),
            Self::Keys { source, .. } if source.kind() == io::ErrorKind::InvalidData => Some(
                "restore the file from a backup; or remove it, and make new keys: `pve-public-ip key add`".to_owned(),
            ),
            Self::Keys { path, source } => Some(write_hint(path, source)),
            Self::Rule(error) => error.hint(),
            Self::Render { .. } => None,
        }
    }

    /// Whether the registry could not be written (exit code 5), as opposed to being wrong.
    pub fn is_not_writable(&self) -> bool {
        matches!(
            self,
            Self::Save { .. }
                | Self::Changed { .. }
                | Self::TooLarge { .. }
                | Self::Down { .. }
                | Self::Stale { .. }
                | Self::Lock(_)
        )
    }
}

pub(super) fn read_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotConnected => "the mount at `/etc/pve` is stale: `systemctl restart pve-cluster`",
        _ => "check its type and permissions",
    }
}

/// What helps depends on whose file system it is: the cluster's needs a quorum, and what is below `/run` is the node's own.
fn write_hint(path: &Path, error: &io::Error) -> String {
    let is_clusters = path.components().any(|part| part.as_os_str() == "pve");
    if !is_clusters {
        let own = path.ancestors().find(|directory| directory.ends_with("pve-public-ip")).unwrap_or(path).display();
        return match error.kind() {
            // Otherwise it is not the kernel that refuses, but this program: it is no directory of root's.
            io::ErrorKind::PermissionDenied if error.raw_os_error().is_some() => "run the command as root".to_owned(),
            io::ErrorKind::ReadOnlyFilesystem => format!("the file system is read-only: `findmnt -T {own}`"),
            io::ErrorKind::StorageFull => format!("make room: `df -h {own}`"),
            // What is there only saves time.
            _ => format!(
                "{own} has to be a directory of root: `mv {own} {own}.old && pve-public-ip apply` makes it anew"
            ),
        };
    }
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "`/etc/pve` is read-only without quorum: `pvecm status`; and run the command as root".to_owned()
        }
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only: `findmnt /etc/pve`".to_owned(),
        io::ErrorKind::StorageFull => "make room: `df -h /etc/pve /var/lib/pve-cluster`".to_owned(),
        io::ErrorKind::NotConnected => "the mount at `/etc/pve` is stale: `systemctl restart pve-cluster`".to_owned(),
        _ => "`systemctl status pve-cluster` and `ls -ld /etc/pve/public-ip` may tell more".to_owned(),
    }
}
