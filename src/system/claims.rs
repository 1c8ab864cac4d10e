//! What was seen of conflicts on the network, in the run directory: the guard, probes and acknowledgements add to it.

use std::io;
use std::path::PathBuf;

use crate::conflict::Claims;
use crate::host::files;
use crate::paths::Paths;

fn path(paths: &Paths) -> PathBuf {
    paths.run().join("claims")
}

/// What was noted since the node booted.
pub fn load(paths: &Paths) -> Claims {
    let bytes = files::read_note(&path(paths), 1 << 20).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Changes it, under a lock of its own.
pub fn change(paths: &Paths, change: impl FnOnce(&mut Claims)) -> io::Result<()> {
    let _lock = files::lock(&paths.run().join("claims.lock"))?;
    let mut claims = load(paths);
    change(&mut claims);
    files::replace(&path(paths), &serde_json::to_vec(&claims)?)
}
