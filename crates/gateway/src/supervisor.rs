//! What is said to systemd: that the daemon is ready, lives, stops. And the listening socket, which systemd keeps while the
//! daemon is started anew, so that callers wait for a moment instead of being refused.

use std::io::IoSlice;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket};

/// The name under which systemd keeps the listening socket.
const KEPT: &str = "listener";

/// Whoever started the daemon.
#[derive(Debug, Default)]
pub struct Supervisor {
    socket: Option<String>,
}

impl Supervisor {
    /// By the variable `NOTIFY_SOCKET`; without it everything is said to nobody.
    pub fn of_environment() -> Self {
        Self { socket: std::env::var("NOTIFY_SOCKET").ok().filter(|name| name.starts_with(['/', '@'])) }
    }

    /// Says something. That nobody hears it is no failure of the daemon.
    pub fn say(&self, text: &str) {
        self.send(text, &[]).unwrap_or_default();
    }

    /// Leaves the listening socket with systemd.
    pub fn keep(&self, listener: &TcpListener) {
        self.send(&format!("FDSTORE=1\nFDNAME={KEPT}"), &[listener.as_raw_fd()]).unwrap_or_default();
    }

    fn send(&self, text: &str, descriptors: &[RawFd]) -> nix::Result<()> {
        let Some(name) = &self.socket else { return Ok(()) };
        let address = match name.strip_prefix('@') {
            Some(name) => UnixAddr::new_abstract(name.as_bytes())?,
            None => UnixAddr::new(name.as_str())?,
        };
        let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        let rights = [ControlMessage::ScmRights(descriptors)];
        let messages = if descriptors.is_empty() { &[][..] } else { &rights[..] };
        let text = [IoSlice::new(text.as_bytes())];
        // If nobody reads what is said, the daemon does not wait for it.
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg(socket.as_raw_fd(), &text, messages, flags, Some(&address)).map(drop)
    }
}

/// How often systemd wants a sign of life: half of what it allows.
pub fn watchdog() -> Option<Duration> {
    let limit: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let is_ours = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
    (is_ours && limit > 0).then(|| Duration::from_micros(limit) / 2)
}

/// The socket that systemd kept, or that it listens at for the daemon, if it is bound to this address.
pub fn kept_listener(address: SocketAddr) -> Option<TcpListener> {
    let mut kept = listenfd::ListenFd::from_env();
    for index in 0..kept.len() {
        if let Ok(Some(listener)) = kept.take_tcp_listener(index)
            && listener.local_addr().is_ok_and(|bound| bound == address)
        {
            return Some(listener);
        }
    }
    None
}
