//! Tap devices: the port of a virtual machine, with this program in the place of QEMU.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::libc;

use crate::model::IfName;

/// `TUNSETIFF`. Source: Linux `include/uapi/linux/if_tun.h`; the same number on amd64 and arm64.
const SET_INTERFACE: libc::Ioctl = 0x4004_54ca;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

/// Length of `struct virtio_net_hdr`, which stands before every frame in both directions.
const HEADER: usize = 10;
const NEEDS_CHECKSUM: u8 = 1;

/// The beginning of `struct ifreq`, filled up to its size.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// What a driver leaves to the card with one frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CardWork {
    /// `gso_type`; 0: only the checksum.
    pub segments: u8,
    /// `hdr_len`.
    pub headers: u16,
    /// `gso_size`.
    pub segment: u16,
    /// `csum_start`.
    pub start: u16,
    /// `csum_offset`.
    pub offset: u16,
}

/// An open tap device. It ends with this value.
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Makes a tap device in the network namespace of the calling thread, with offloads as QEMU has them.
    pub fn new(name: IfName) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
        set_interface(&file, Request { name: name.padded(), flags, rest: [0; 22] })?;
        Ok(Self(file))
    }

    /// Sends a frame as the guest would.
    pub fn send(&self, frame: &[u8], work: Option<CardWork>) -> io::Result<()> {
        let mut bytes = vec![0; HEADER];
        if let Some(work) = work {
            bytes[0] = NEEDS_CHECKSUM;
            bytes[1] = work.segments;
            let size = if work.segments == 0 { 0 } else { work.segment };
            for (at, value) in [work.headers, size, work.start, work.offset].into_iter().enumerate() {
                bytes[2 + 2 * at..4 + 2 * at].copy_from_slice(&value.to_ne_bytes());
            }
        }
        bytes.extend(frame);
        (&self.0).write_all(&bytes)
    }

    /// The next frame for the guest; `None` if there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
        match (&self.0).read(buffer) {
            Ok(length) => Ok(buffer.get(HEADER..length).map(<[u8]>::to_vec)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Besides those of bpf(2) the only call of this program that the compiler cannot check.
#[expect(unsafe_code, reason = "no safe interface to this ioctl exists, and a tap device cannot be made without it")]
fn set_interface(file: &File, mut request: Request) -> io::Result<()> {
    // SAFETY: the descriptor is open during the call. The kernel reads and writes `sizeof(struct ifreq)` bytes at the
    // pointer, which is the size of `Request` (checked below), and keeps no reference to it.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), SET_INTERFACE, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());
