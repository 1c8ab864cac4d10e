//! Ethernet frames as they are: out of an interface and from it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, recvfrom, sendto, setsockopt,
    socket, sockopt,
};

use crate::model::IfName;

/// Sends frames out of an interface.
///
/// # Errors
///
/// If the interface does not exist or is down, or the caller lacks `CAP_NET_RAW`.
pub fn send(device: IfName, frames: &[Vec<u8>]) -> io::Result<()> {
    let address = link_address(device)?;
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    for frame in frames {
        sendto(fd.as_raw_fd(), frame, &address, MsgFlags::empty())?;
    }
    Ok(())
}

/// An interface as a wire: sends frames as they are, hears every frame that arrives.
#[derive(Debug)]
pub struct Wire(OwnedFd);

/// Frames that wait until they are read; a burst must not overflow it.
const RECEIVE_SPACE: usize = 16 << 20;

impl Wire {
    /// Opens it in the network namespace of the calling thread.
    pub fn open(device: IfName) -> io::Result<Self> {
        let (flags, all) = (SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, SockProtocol::EthAll);
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, all)?;
        bind(fd.as_raw_fd(), &link_address(device)?)?;
        setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_SPACE)?;
        Ok(Self(fd))
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        Ok(nix::sys::socket::send(self.0.as_raw_fd(), frame, MsgFlags::empty()).map(drop)?)
    }

    /// The next frame; `None` if there is none. The kernel has taken an outermost VLAN tag off it.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
        match recv(self.0.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) => Ok(buffer.get(..length).map(<[u8]>::to_vec)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// As [`Self::receive`], but not what this machine sends out there, be it for others.
    pub fn receive_incoming(&self, buffer: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
        /// `PACKET_OUTGOING`. Source: Linux `include/uapi/linux/if_packet.h`.
        const OUTGOING: u8 = 4;
        /// Frames in a row that this machine sends: whoever waits has a time to keep.
        const SKIPPED: usize = 1000;
        for _ in 0..SKIPPED {
            match recvfrom::<LinkAddr>(self.0.as_raw_fd(), buffer) {
                Ok((_, Some(from))) if from.pkttype() == OUTGOING => {}
                Ok((length, _)) => return Ok(buffer.get(..length).map(<[u8]>::to_vec)),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What `next` has to give, or gets within the time once `source` has something.
pub fn in_time<T>(
    source: BorrowedFd<'_>,
    limit: Duration,
    mut next: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    if let Some(found) = next()? {
        return Ok(Some(found));
    }
    let limit = u16::try_from(limit.as_millis()).unwrap_or(u16::MAX);
    if limit == 0 || poll(&mut [PollFd::new(source, PollFlags::POLLIN)], PollTimeout::from(limit))? == 0 {
        return Ok(None);
    }
    next()
}

/// Taken from the list of interfaces, because an address of this family cannot be composed without `unsafe`.
fn link_address(device: IfName) -> io::Result<LinkAddr> {
    let mut interfaces = nix::ifaddrs::getifaddrs()?.filter(|interface| interface.interface_name == device.as_str());
    let address = interfaces.find_map(|interface| interface.address.as_ref()?.as_link_addr().copied());
    Ok(address.ok_or(Errno::ENODEV)?)
}
