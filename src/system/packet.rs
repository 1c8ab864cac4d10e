//! Sending single Ethernet frames.

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket};

use crate::model::IfName;

/// Sends frames out of an interface.
///
/// # Errors
///
/// If the interface does not exist or is down, or the caller lacks `CAP_NET_RAW`.
pub fn send(device: IfName, frames: &[Vec<u8>]) -> io::Result<()> {
    // Taken from the list of interfaces, because an address of this family cannot be composed without `unsafe`.
    let address = nix::ifaddrs::getifaddrs()?
        .filter(|interface| interface.interface_name == device.as_str())
        .find_map(|interface| interface.address.as_ref()?.as_link_addr().copied())
        .ok_or(Errno::ENODEV)?;
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    for frame in frames {
        sendto(fd.as_raw_fd(), frame, &address, MsgFlags::empty())?;
    }
    Ok(())
}
