//! Network namespaces without a name: they end with the last file descriptor that holds them, whatever happens to the
//! program.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, held by a file descriptor.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// Makes a new one. The calling thread stays where it is.
    pub fn new() -> io::Result<Self> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::current()
        };
        let failed = |_| Err(io::Error::other("the thread that makes a network namespace ended early"));
        // `unshare` moves only the calling thread.
        std::thread::scope(|scope| scope.spawn(make).join().unwrap_or_else(failed))
    }

    /// That of the calling thread.
    pub fn current() -> io::Result<Self> {
        File::open("/proc/thread-self/ns/net").map(Self)
    }

    /// Moves the calling thread into it.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.0, CloneFlags::CLONE_NEWNET)?)
    }

    /// Whether both are the same.
    pub fn is(&self, other: &Self) -> io::Result<bool> {
        let (own, other) = (self.0.metadata()?, other.0.metadata()?);
        Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
    }

    /// What `ip link set ... netns` takes while this process runs.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Sets a kernel parameter of the calling thread's network namespace, such as `net/ipv4/ip_forward`; `false` if this
/// kernel has none of that name.
pub fn set_parameter(name: &str, value: &str) -> io::Result<bool> {
    match OpenOptions::new().write(true).open(Path::new("/proc/sys").join(name)) {
        Ok(mut file) => file.write_all(value.as_bytes()).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
