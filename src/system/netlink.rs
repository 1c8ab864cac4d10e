//! A netlink socket, the framing and the attributes; what the messages mean is the business of its users.
//!
//! A hundred lines of our own serve nf_tables, links, neighbours and routes alike. The crates for it cover either
//! nf_tables or rtnetlink, parse every attribute that exists, and change their interface several times a year.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// Flags of a request. Source: Linux `include/uapi/linux/netlink.h`.
pub mod flags {
    /// Every request has it.
    pub const REQUEST: u16 = 0x1;
    /// Answer with success too.
    pub const ACKNOWLEDGE: u16 = 0x4;
    /// Everything that matches (`NLM_F_ROOT | NLM_F_MATCH`).
    pub const DUMP: u16 = 0x300;
    /// Replace what is there.
    pub const REPLACE: u16 = 0x100;
    /// Fail if it is there.
    pub const EXCLUSIVE: u16 = 0x200;
    /// Create what is not there.
    pub const CREATE: u16 = 0x400;
    /// In the messages of a dump: something changed while it ran.
    pub const INTERRUPTED: u16 = 0x10;
}

/// Something netlink refused; keeps the kernel's errno.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused to {action}")]
pub struct NetlinkError {
    /// What was tried.
    pub action: String,
    /// The kernel's reason.
    pub source: io::Error,
}

impl NetlinkError {
    /// Wraps an I/O error with what was tried.
    pub fn new(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { action: action.into(), source: source.into() }
    }

    /// The kernel did not answer in time: somebody holds a lock of its for seconds, or there is far too much to list.
    pub fn late(action: impl Into<String>) -> Self {
        let text = format!("no answer within {} s", LIMIT.as_secs());
        Self::new(action, io::Error::new(io::ErrorKind::TimedOut, text))
    }

    /// The errno, if the kernel gave one.
    pub fn errno(&self) -> Option<Errno> {
        self.source.raw_os_error().map(Errno::from_raw)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One message from the kernel.
#[derive(Debug, Clone)]
pub struct Frame {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub sequence: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
}

impl Frame {
    /// For `NLMSG_ERROR`: 0 for an acknowledgement, else the errno.
    pub fn error(&self) -> Option<i32> {
        if self.kind != NLMSG_ERROR {
            return None;
        }
        let code = self.payload.get(..4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        code.map(|bytes| i32::from_ne_bytes(bytes).saturating_neg())
    }
}

/// An open socket of one netlink family.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// `nlmsg_type` of an error or acknowledgement. Source: Linux `include/uapi/linux/netlink.h`.
const NLMSG_ERROR: u16 = 2;
/// `nlmsg_type` of the end of a dump.
const NLMSG_DONE: u16 = 3;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// The kernel never builds larger replies to one read. Source: Linux `net/netlink/af_netlink.c`, `netlink_dump`.
const BUFFER: usize = 256 * 1024;

/// How long an answer may take as a whole; a list of 100,000 elements takes 50 ms.
const LIMIT: Duration = Duration::from_secs(5);

/// Room for the acknowledgements and errors of one large transaction.
const RECEIVE_SPACE: usize = 8 * 1024 * 1024;

impl Socket {
    /// Opens a socket in the caller's network namespace.
    pub fn open(protocol: SockProtocol) -> Result<Self, NetlinkError> {
        Self::listen(protocol, 0)
    }

    /// Opens a socket that hears what is told to these multicast groups, as a mask.
    pub fn listen(protocol: SockProtocol, groups: u32) -> Result<Self, NetlinkError> {
        let failed = |errno: Errno| NetlinkError::new("open a netlink socket", errno);
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).map_err(failed)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(failed)?;
        let limit = TimeVal::seconds(i64::try_from(LIMIT.as_secs()).unwrap_or(1));
        setsockopt(&fd, sockopt::ReceiveTimeout, &limit).map_err(failed)?;
        // Without CAP_NET_ADMIN the ordinary limits hold; small exchanges work all the same.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_SPACE);
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// A sequence number for the next message.
    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends one datagram, however large.
    pub fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        if bytes.len() > 100_000 {
            let _ = setsockopt(&self.fd, sockopt::SndBufForce, &(bytes.len() * 2));
        }
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty())
            .map(drop)
            .map_err(|errno| NetlinkError::new(format!("take a netlink message of {} bytes", bytes.len()), errno))
    }

    /// Has the kernel drop, for this socket, what the program does not accept. Without it everything is heard, as ever.
    pub fn hear_only(&self, program: &[Instruction]) {
        let mut compiled = compile(program);
        let length = u16::try_from(compiled.len()).unwrap_or_default();
        // The kernel copies what the pointer leads to during the call.
        let program = libc::sock_fprog { len: length, filter: compiled.as_mut_ptr() };
        if let Err(errno) = setsockopt(&self.fd, AttachFilter, &program) {
            log::debug!("the kernel takes no filter for a netlink socket: {errno}");
        }
    }

    /// The frames of the next datagram; `None` if there is none within the time limit, or at once if `flags` say so.
    pub fn receive(&mut self, flags: MsgFlags) -> Result<Option<Vec<Frame>>, NetlinkError> {
        let length = loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, flags) {
                Ok(length) => break length,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(NetlinkError::new("answer over netlink", errno)),
            }
        };
        Ok(Some(frames(&self.buffer[..length])))
    }

    /// Sends a request built for `sequence` and collects the answer: a dump to its end, or up to the acknowledgement.
    pub fn request(&mut self, bytes: &[u8], sequence: u32, action: &str) -> Result<Vec<Frame>, NetlinkError> {
        self.send(bytes)?;
        let started = Instant::now();
        let mut answer = Vec::new();
        loop {
            let frames = self.receive(MsgFlags::empty())?.filter(|_| started.elapsed() < LIMIT);
            let frames = frames.ok_or_else(|| NetlinkError::late(action))?;
            for frame in frames.into_iter().filter(|frame| frame.sequence == sequence) {
                match frame.error() {
                    Some(0) => return Ok(answer),
                    Some(errno) => return Err(NetlinkError::new(action, Errno::from_raw(errno))),
                    None if frame.kind == NLMSG_DONE => return Ok(answer),
                    None => answer.push(frame),
                }
            }
        }
    }
}

/// `SO_ATTACH_FILTER`: classic BPF, run for each message before it is queued.
#[derive(Debug, Clone, Copy)]
struct AttachFilter;

nix::setsockopt_impl!(
    AttachFilter,
    libc::SOL_SOCKET,
    libc::SO_ATTACH_FILTER,
    libc::sock_fprog,
    sockopt::SetStruct<'_, libc::sock_fprog>
);

/// An instruction of a program for [`Socket::hear_only`]. Jumps name the number of an instruction further on.
#[derive(Debug, Clone, Copy)]
pub enum Instruction {
    /// Load 16 bits of the message, in network order.
    Half(u32),
    /// Load 8 bits.
    Byte(u32),
    /// Look for an attribute of this kind among those behind this place, and load where it is; 0: nowhere.
    Attribute {
        /// Where the attributes begin.
        after: u32,
        /// Its type.
        kind: u32,
    },
    /// Load the first 8 bits of the value of the attribute that was found.
    ByteOfAttribute,
    /// Compare what was loaded: whether it is the value, or has any of its bits.
    Branch {
        /// Any of the bits.
        bits: bool,
        /// With what.
        value: u32,
        /// Where to go on if so.
        yes: u8,
        /// Where else.
        no: u8,
    },
    /// Whether the message is heard.
    End(bool),
}

/// The program in the kernel's words. Source: Linux `include/uapi/linux/{bpf_common,filter}.h`.
fn compile(program: &[Instruction]) -> Vec<libc::sock_filter> {
    const LOAD: u16 = 0x00;
    const LOAD_INDEX: u16 = 0x01;
    const HALF: u16 = 0x08;
    const BYTE: u16 = 0x10;
    const ABSOLUTE: u16 = 0x20;
    const INDEXED: u16 = 0x40;
    const EQUAL: u16 = 0x15;
    const ANY_BIT: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const TO_INDEX: u16 = 0x07;
    /// `SKF_AD_OFF + SKF_AD_NLATTR`: searches from the place that is loaded for the type that is the index.
    const FIND_ATTRIBUTE: u32 = 0xffff_f000 + 12;
    let plain = |code: u16, k: u32| libc::sock_filter { code, jt: 0, jf: 0, k };
    let length = |instruction: &Instruction| match instruction {
        Instruction::Attribute { .. } => 3,
        Instruction::ByteOfAttribute => 2,
        _ => 1,
    };
    // Where each instruction begins; a jump counts from the next one on.
    let places: Vec<usize> =
        program.iter().scan(0, |end, instruction| Some(std::mem::replace(end, *end + length(instruction)))).collect();
    let mut compiled = Vec::new();
    for instruction in program {
        let jump = |to: u8| {
            let place = places.get(usize::from(to)).copied().unwrap_or_default();
            u8::try_from(place.saturating_sub(compiled.len() + 1)).unwrap_or_default()
        };
        match *instruction {
            Instruction::Half(at) => compiled.push(plain(LOAD | HALF | ABSOLUTE, at)),
            Instruction::Byte(at) => compiled.push(plain(LOAD | BYTE | ABSOLUTE, at)),
            Instruction::Attribute { after, kind } => {
                compiled.extend([plain(LOAD, after), plain(LOAD_INDEX, kind), plain(LOAD | ABSOLUTE, FIND_ATTRIBUTE)]);
            }
            // Behind the attribute's header.
            Instruction::ByteOfAttribute => compiled.extend([plain(TO_INDEX, 0), plain(LOAD | BYTE | INDEXED, 4)]),
            Instruction::Branch { bits, value, yes, no } => {
                let code = if bits { ANY_BIT } else { EQUAL };
                let (jt, jf) = (jump(yes), jump(no));
                compiled.push(libc::sock_filter { code, jt, jf, k: value });
            }
            Instruction::End(accepts) => compiled.push(plain(RETURN, if accepts { u32::MAX } else { 0 })),
        }
    }
    compiled
}

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut rest = bytes;
    let mut found = Vec::new();
    while let Some(header) = rest.first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(payload) = rest.get(HEADER..length) else { break };
        found.push(Frame {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            payload: payload.to_vec(),
        });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// Attributes of a message or of a nested attribute: type without flag bits, and value.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = rest.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of that type.
pub fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// A zero-terminated string attribute.
pub fn text(value: &[u8]) -> &str {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).unwrap_or_default()
}

/// Builds netlink messages back to back in one buffer.
#[derive(Debug, Default)]
pub struct Builder {
    bytes: Vec<u8>,
    message: usize,
}

/// Flag of attributes that contain attributes. Source: Linux `include/uapi/linux/netlink.h`.
const NESTED: u16 = 0x8000;

impl Builder {
    /// Starts a message; `fixed` is what stands between header and attributes.
    pub fn message(&mut self, kind: u16, flags: u16, sequence: u32, fixed: &[u8]) -> &mut Self {
        self.message = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(fixed);
        self.end_message()
    }

    /// Appends an attribute to the message.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        // A longer value cannot be expressed; every value here is a key or a name.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Appends a zero-terminated string.
    pub fn string(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Opens an attribute that contains attributes; close it with [`Self::end`].
    pub fn begin(&mut self, kind: u16) -> usize {
        let at = self.bytes.len();
        self.attribute(kind | NESTED, &[]);
        at
    }

    /// Closes a nested attribute.
    pub fn end(&mut self, at: usize) {
        let length = u16::try_from(self.bytes.len() - at).unwrap_or(u16::MAX);
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Bytes so far of a nested attribute; it must stay below 64 KiB.
    pub fn length_since(&self, at: usize) -> usize {
        self.bytes.len() - at
    }

    /// Writes the length of the current message into its header.
    pub fn end_message(&mut self) -> &mut Self {
        let length = u32::try_from(self.bytes.len() - self.message).unwrap_or(u32::MAX);
        self.bytes[self.message..self.message + 4].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// All messages.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_back() {
        let mut builder = Builder::default();
        builder.message(7, 1, 9, &[1, 2, 3, 4]).string(1, "abc");
        let nest = builder.begin(2);
        builder.attribute(3, &[5; 6]);
        builder.end(nest);
        builder.end_message();
        builder.message(8, 1, 10, &[]);
        let frames = frames(builder.bytes());
        assert_eq!(frames.iter().map(|frame| (frame.kind, frame.sequence)).collect::<Vec<_>>(), [(7, 9), (8, 10)]);
        let rest = &frames[0].payload[4..];
        assert_eq!(text(attribute(rest, 1).unwrap()), "abc");
        assert_eq!(attribute(attribute(rest, 2).unwrap(), 3).unwrap(), [5; 6]);
    }

    #[test]
    fn cut_off_messages_end_quietly() {
        for length in 0..24 {
            assert!(frames(&vec![0xff; length]).is_empty());
            let _ = attributes(&vec![0xff; length]).count();
        }
    }
}
