//! Frames that the rules send to an nflog group.
//!
//! Source: Linux `include/uapi/linux/netfilter/nfnetlink_log.h`, `net/netfilter/nfnetlink_log.c`.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::net::if_::if_indextoname;
use nix::sys::socket::{MsgFlags, SockProtocol};

use super::netlink::{Builder, Frame, NetlinkError, Socket, attribute, flags, text};
use crate::model::IfName;

/// `NFNL_SUBSYS_ULOG`, with `NFULNL_MSG_PACKET` and `NFULNL_MSG_CONFIG`.
const PACKET: u16 = 0x400;
const CONFIGURE: u16 = 0x401;

const CONFIGURE_COMMAND: u16 = 1;
const CONFIGURE_MODE: u16 = 2;
const COMMAND_BIND: u8 = 1;
const COPY_PACKET: u8 = 2;

const INPUT: u16 = 4;
const PHYSICAL_INPUT: u16 = 6;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;
const HARDWARE_HEADER: u16 = 16;

/// What of a packet is wanted: a header with one address is no longer.
const LENGTH: u32 = 128;

/// A frame that the rules have dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Why: the prefix of the rule.
    pub reason: String,
    /// The port that it came in by.
    pub port: IfName,
    /// Its beginning, from the destination MAC on.
    pub frame: Vec<u8>,
}

/// The one listener that a group can have.
#[derive(Debug)]
pub struct Nflog(Socket);

impl Nflog {
    /// Becomes the listener of a group in this network namespace.
    ///
    /// # Errors
    ///
    /// If there is one already.
    pub fn listen(group: u16) -> Result<Self, NetlinkError> {
        let mut socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
        let [high, low] = group.to_be_bytes();
        for (kind, value) in [
            (CONFIGURE_COMMAND, vec![COMMAND_BIND]),
            (CONFIGURE_MODE, [&LENGTH.to_be_bytes()[..], &[COPY_PACKET, 0]].concat()),
        ] {
            let sequence = socket.next_sequence();
            let mut builder = Builder::default();
            builder.message(CONFIGURE, flags::REQUEST | flags::ACKNOWLEDGE, sequence, &[0, 0, high, low]);
            builder.attribute(kind, &value).end_message();
            socket.request(builder.bytes(), sequence, &format!("listen to nflog group {group}"))?;
        }
        Ok(Self(socket))
    }

    /// Everything that waits. What was too much is lost; the rules count it all the same.
    pub fn drain(&mut self) -> Result<Vec<Dropped>, NetlinkError> {
        let mut found = Vec::new();
        loop {
            match self.0.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(Some(frames)) => found.extend(frames.iter().filter_map(dropped)),
                Ok(None) => return Ok(found),
                Err(error) if error.errno() == Some(Errno::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Nflog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn dropped(message: &Frame) -> Option<Dropped> {
    let rest = message.payload.get(4..).filter(|_| message.kind == PACKET)?;
    // For a frame of a bridge the input is the bridge, and the physical one its port.
    let input = attribute(rest, PHYSICAL_INPUT).or_else(|| attribute(rest, INPUT))?;
    let name = if_indextoname(u32::from_be_bytes(input.try_into().ok()?)).ok()?;
    let header = attribute(rest, HARDWARE_HEADER)?;
    Some(Dropped {
        reason: text(attribute(rest, PREFIX)?).to_owned(),
        port: name.to_str().ok()?.parse().ok()?,
        frame: [header, attribute(rest, PAYLOAD).unwrap_or_default()].concat(),
    })
}
