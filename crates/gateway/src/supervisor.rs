//! What is said to systemd: that the daemon is ready, lives, stops. And the listening socket that it may give.

use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, sendto, socket};

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
        self.send(text).unwrap_or_default();
    }

    fn send(&self, text: &str) -> nix::Result<()> {
        let Some(name) = &self.socket else { return Ok(()) };
        let address = match name.strip_prefix('@') {
            Some(name) => UnixAddr::new_abstract(name.as_bytes())?,
            None => UnixAddr::new(name.as_str())?,
        };
        let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        // If nobody reads what is said, the daemon does not wait for it.
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendto(socket.as_raw_fd(), text.as_bytes(), &address, flags).map(drop)
    }
}

/// How often systemd wants a sign of life: half of what it allows.
pub fn watchdog() -> Option<Duration> {
    let limit: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let is_ours = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
    (is_ours && limit > 0).then(|| Duration::from_micros(limit) / 2)
}

/// The socket that systemd listens at for the daemon: it stays while the daemon starts anew, so that nobody is refused.
pub fn given_listener() -> Option<TcpListener> {
    let mut given = listenfd::ListenFd::from_env();
    (0..given.len()).find_map(|index| given.take_tcp_listener(index).ok().flatten())
}
