//! Who is at the other end of a connection, by the kernel.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::refused;
use crate::host::users;
use crate::model::Problem;

/// The user as which the gateway runs.
pub const USER: &str = "pve-public-ip";

/// A connection on which nothing comes for so long ends.
const IDLE: Duration = Duration::from_secs(600);

/// A peer that takes nothing for so long is given up.
const STUCK: Duration = Duration::from_secs(30);

/// The user at the other end of standard input, if that may ask; root's own pipe or terminal is root's.
pub(super) fn of_stdin(user: &str) -> Result<String, Problem> {
    let stdin = io::stdin();
    let Ok(peer) = getsockopt(&stdin, sockopt::PeerCredentials) else {
        return Ok(users::name(nix::unistd::getuid().as_raw()));
    };
    let seconds = |limit: Duration| TimeVal::seconds(i64::try_from(limit.as_secs()).unwrap_or(i64::MAX));
    // Without a limit a peer that is gone without a word would hold one of few places.
    let _ = setsockopt(&stdin, sockopt::ReceiveTimeout, &seconds(IDLE));
    let _ = setsockopt(&stdin, sockopt::SendTimeout, &seconds(STUCK));
    let own = nix::unistd::getuid().as_raw();
    let (uid, name) = (peer.uid(), users::name(peer.uid()));
    if uid == 0 || uid == own || name == user {
        return Ok(name);
    }
    let hint = format!("only root and the user `{user}` may ask");
    Err(refused(format!("the user `{name}` may not use this socket"), hint))
}

/// From now on nothing is waited for that does not come within a second.
pub(super) fn hurry() {
    let _ = setsockopt(&io::stdin(), sockopt::ReceiveTimeout, &TimeVal::seconds(1));
}

/// The same stream once more, without a buffer in between.
pub(super) fn duplicate(stream: impl AsFd) -> io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}

/// Whether a directory is one where nobody but root can put something into the way.
pub(super) fn is_private(directory: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::symlink_metadata(directory)?;
    let is_own = meta.uid() == 0 || meta.uid() == nix::unistd::getuid().as_raw();
    Ok(meta.is_dir() && is_own && meta.mode() & 0o022 == 0)
}
