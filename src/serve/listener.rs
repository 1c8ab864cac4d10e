//! The socket without systemd: a process for each connection, so that what goes wrong in one costs that one.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::stat::{Mode, umask};

use super::peer;
use crate::code;
use crate::host::{command, users};
use crate::model::{Problem, Subject};
use crate::paths::Paths;

/// As many connections are served at once. Each gateway holds a few.
const CONNECTIONS: usize = 64;

/// Serves connections to a socket, until the process is ended.
///
/// `group` may connect, besides root: by default the one of the user.
pub fn listen(paths: &Paths, socket: &Path, user: &str) -> Result<(), Problem> {
    let refused = |sentence: String, hint: &str| {
        Problem::new(code!("socket-unusable"), Subject::File(socket.display().to_string()), sentence, hint)
    };
    let failed = |error: io::Error| {
        refused(format!("cannot listen at `{}`: {error}", socket.display()), "is its directory there, and root's?")
    };
    let directory = socket.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !peer::is_private(directory).map_err(failed)? {
        let sentence = format!("`{}` is a directory that others can write, or a link", directory.display());
        let hint = "name one in a directory that only root can write, such as /run/pve-public-ip-api/api.sock";
        return Err(refused(sentence, hint));
    }
    let listener = bind(socket).map_err(failed)?;
    if let Some(group) = users::group(user) {
        std::os::unix::fs::chown(socket, None, Some(group)).map_err(failed)?;
    }
    fs::set_permissions(socket, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    log::info!("listening at `{}` for root and `{user}`", socket.display());
    let mut children: Vec<Child> = Vec::new();
    loop {
        children.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_)) | Err(_)));
        if children.len() >= CONNECTIONS {
            sleep(Duration::from_millis(20));
            continue;
        }
        match listener.accept() {
            Ok((stream, _)) => match child(paths, stream, user) {
                Ok(child) => children.push(child),
                Err(error) => log::warn!("cannot serve a connection: {error}"),
            },
            // One that was given up before it was taken, or too many files: the next one may do better.
            Err(error) => {
                log::warn!("cannot take a connection: {error}");
                sleep(Duration::from_millis(20));
            }
        }
    }
}

/// A socket that is left over from a process that is gone is replaced; nothing else is.
fn bind(socket: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(socket) {
        Ok(meta) if meta.file_type().is_socket() => {
            if UnixStream::connect(socket).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there already"));
            }
            fs::remove_file(socket)?;
        }
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something else than a socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Nobody connects before its mode is set.
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(socket);
    umask(before);
    listener
}

fn child(paths: &Paths, stream: UnixStream, user: &str) -> io::Result<Child> {
    let output = OwnedFd::from(stream.try_clone()?);
    let root = paths.under_root("/");
    let args = [OsStr::new("--root"), root.as_os_str(), OsStr::new("serve"), OsStr::new("--user"), OsStr::new(user)];
    command::another(&args, OwnedFd::from(stream), output)
}
