//! Being a service: what systemd is told, and the signals that it sends.

use std::env;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The service manager that started this process, if one did. Source: `sd_notify(3)`.
#[derive(Debug)]
pub struct ServiceManager {
    address: Option<SocketAddr>,
    socket: UnixDatagram,
}

impl ServiceManager {
    /// Finds it in the environment.
    pub fn of_environment() -> io::Result<Self> {
        let address = match env::var("NOTIFY_SOCKET").ok().filter(|name| !name.is_empty()) {
            Some(name) => Some(match name.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name)?,
                None => SocketAddr::from_pathname(&name)?,
            }),
            None => None,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not stop the service.
        socket.set_nonblocking(true)?;
        Ok(Self { address, socket })
    }

    /// Whether somebody listens.
    pub fn is_there(&self) -> bool {
        self.address.is_some()
    }

    /// Tells it something, such as `READY=1`. Nothing depends on whether it hears.
    pub fn tell(&self, message: &str) {
        if let Some(address) = &self.address {
            let _ = self.socket.send_to_addr(message.as_bytes(), address);
        }
    }

    /// How often it wants to hear that the service is alive: twice within the time after which it would be killed.
    pub fn watchdog(&self) -> Option<Duration> {
        let for_us = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let limit = env::var("WATCHDOG_USEC").ok().and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
        limit.filter(|_| for_us && self.is_there()).map(|limit| Duration::from_micros(limit) / 2)
    }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// SIGHUP.
    Look,
    /// SIGTERM or SIGINT.
    Stop,
}

/// Signals as something to read.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// From now on signals wait until they are read. Threads that are started later inherit that, programs do not.
    pub fn take() -> io::Result<Self> {
        let mask: SigSet = [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        mask.thread_block()?;
        Ok(Self(SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// Readable when there is a signal.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// What the signals that wait ask for; to stop counts more than all else.
    pub fn drain(&self) -> io::Result<Option<Request>> {
        let mut request = None;
        while let Some(signal) = self.0.read_signal()? {
            let hangup = i32::try_from(signal.ssi_signo).is_ok_and(|number| number == Signal::SIGHUP as i32);
            request = if hangup { request.or(Some(Request::Look)) } else { Some(Request::Stop) };
        }
        Ok(request)
    }
}
