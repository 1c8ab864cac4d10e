//! The system call bpf(2), as far as it is needed to load two programs and to attach them to interfaces.
//!
//! The only place for it. Arguments are written into a buffer at the offsets that the kernel's interface fixes, and each
//! function here lends the memory that it names for the length of the call.
//! Source: Linux `include/uapi/linux/bpf.h`, `union bpf_attr`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const MAP_NEXT_KEY: libc::c_int = 4;
const PROGRAM_LOAD: libc::c_int = 5;
const PIN: libc::c_int = 6;
const OPEN_PINNED: libc::c_int = 7;
const ATTACH: libc::c_int = 8;
const DETACH: libc::c_int = 9;
const RUN: libc::c_int = 10;
const PROGRAM_BY_NUMBER: libc::c_int = 13;
const INFO: libc::c_int = 15;
const QUERY: libc::c_int = 16;

/// What comes in by an interface (tcx, Linux 6.6).
const TCX_INGRESS: u32 = 46;

/// In the place of another program.
const REPLACE: u32 = 1 << 2;
/// Before all other programs.
const BEFORE: u32 = 1 << 3;

const ARRAY: u32 = 2;
/// A program that user space runs, and that makes further calls of bpf(2).
const SYSCALL_PROGRAM: u32 = 31;
const SLEEPABLE: u32 = 1 << 4;

/// As many programs as an interface can have. Source: Linux `include/linux/bpf_mprog.h`.
const MOST_AT_AN_INTERFACE: u32 = 64;

/// Size of `union bpf_attr` as far as it is used here; the kernel takes what is missing for zeros.
const SIZE: usize = 152;

/// The arguments of a call.
struct Arguments([u8; SIZE]);

impl Arguments {
    fn new() -> Self {
        Self([0; SIZE])
    }

    fn put<const N: usize>(mut self, at: usize, octets: [u8; N]) -> Self {
        self.0[at..at + N].copy_from_slice(&octets);
        self
    }

    fn number(self, at: usize, value: u32) -> Self {
        self.put(at, value.to_ne_bytes())
    }

    fn descriptor(self, at: usize, descriptor: BorrowedFd<'_>) -> Self {
        self.put(at, descriptor.as_raw_fd().to_ne_bytes())
    }

    /// Where the kernel finds, or puts, something.
    fn place<T: ?Sized>(self, at: usize, of: *const T) -> Self {
        self.put(at, (of.cast::<u8>() as usize as u64).to_ne_bytes())
    }

    fn read(&self, at: usize) -> u32 {
        u32::from_ne_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }
}

/// Calls the kernel.
#[expect(unsafe_code, reason = "no safe interface to bpf(2) exists without a library of C")]
fn call(what: libc::c_int, arguments: &mut Arguments) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads and writes `SIZE` bytes of the buffer, and beside it only what its addresses say. Those are put
    // there by the functions below, from references that live until the call has returned, with sizes that are theirs.
    let result = unsafe { libc::syscall(libc::SYS_bpf, what, arguments.0.as_mut_ptr(), SIZE) };
    match libc::c_int::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The same, where the answer is a descriptor.
fn call_for_descriptor(what: libc::c_int, arguments: &mut Arguments) -> io::Result<OwnedFd> {
    call(what, arguments).map(owned)
}

/// Takes over a descriptor that the kernel has just made.
#[expect(unsafe_code, reason = "the kernel gives a number, which is to be closed like any other descriptor")]
fn owned(descriptor: libc::c_int) -> OwnedFd {
    // SAFETY: the kernel has just made it for this process, and nobody else has its number.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Loads what `bpftool gen skeleton -L` has made: runs its loader, which makes the map and the two programs.
///
/// `context` is what the loader gets and fills in: Linux `tools/lib/bpf/skel_internal.h`, `struct bpf_loader_ctx`, then 16
/// bytes a map and 4 bytes a program, which begin with descriptors.
pub(super) fn run_loader<const N: usize>(
    data: &[u8],
    instructions: &[u8],
    mut context: [u8; N],
) -> io::Result<[u8; N]> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let length = u32::try_from(data.len()).map_err(too_long)?;
    let count = u32::try_from(instructions.len() / 8).map_err(too_long)?;
    let created = Arguments::new().number(0, ARRAY).number(4, 4).number(8, length).number(12, 1);
    let map = call_for_descriptor(MAP_CREATE, &mut { created })?;
    let key = 0_u32;
    let update = Arguments::new().descriptor(0, as_fd(&map)).place(8, &raw const key).place(16, data.as_ptr());
    call(MAP_UPDATE, &mut { update })?;
    let (license, maps) = (c"Dual BSD/GPL", [map.as_raw_fd()]);
    let load = Arguments::new()
        .number(0, SYSCALL_PROGRAM)
        .number(4, count)
        .place(8, instructions.as_ptr())
        .place(16, license.as_ptr())
        .number(44, SLEEPABLE)
        .put(48, *b"ppip_loader")
        .place(120, maps.as_ptr());
    let program = call_for_descriptor(PROGRAM_LOAD, &mut { load })?;
    let mut run = Arguments::new()
        .descriptor(0, as_fd(&program))
        .number(40, u32::try_from(N).map_err(too_long)?)
        .place(48, context.as_mut_ptr());
    call(RUN, &mut run)?;
    // What the loader returns: a negative number of an error.
    match i32::from_ne_bytes(run.read(4).to_ne_bytes()) {
        result if result < 0 => Err(io::Error::from_raw_os_error(-result)),
        _ => Ok(context),
    }
}

/// Takes over a descriptor that the loader has left in its context.
pub(super) fn from_loader(context: &[u8], at: usize) -> Option<OwnedFd> {
    let number = context.get(at..at + 4).and_then(|octets| octets.try_into().ok()).map(i32::from_ne_bytes)?;
    (number > 2).then(|| owned(number))
}

fn as_fd(descriptor: &OwnedFd) -> BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(descriptor)
}

fn text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Gives a program or a map a name in a file system of type bpf, where other processes find it.
pub(super) fn pin(descriptor: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = text(path)?;
    call(PIN, &mut Arguments::new().place(0, path.as_ptr()).descriptor(8, descriptor)).map(drop)
}

/// Opens what has a name there.
pub(super) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = text(path)?;
    call_for_descriptor(OPEN_PINNED, &mut Arguments::new().place(0, path.as_ptr()))
}

/// What the kernel knows of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// Its number, which no other program of this kernel had before.
    pub(super) number: u32,
    /// As it is called in its source.
    pub(super) name: String,
    /// When it was loaded: nanoseconds since the boot.
    pub(super) loaded: u64,
}

/// Asks for it.
pub(super) fn program(descriptor: BorrowedFd<'_>) -> io::Result<Program> {
    // `struct bpf_prog_info` up to the name.
    let mut info = [0_u8; 80];
    let asked = Arguments::new().descriptor(0, descriptor).number(4, 80).place(8, info.as_mut_ptr());
    call(INFO, &mut { asked })?;
    let number = u32::from_ne_bytes([info[4], info[5], info[6], info[7]]);
    let loaded = info[40..48].try_into().map_or(0, u64::from_ne_bytes);
    let name = String::from_utf8_lossy(&info[64..80]).trim_end_matches('\0').to_owned();
    Ok(Program { number, name, loaded })
}

/// Opens a program by its number. Wants `CAP_SYS_ADMIN`.
pub(super) fn program_by_number(number: u32) -> io::Result<OwnedFd> {
    call_for_descriptor(PROGRAM_BY_NUMBER, &mut Arguments::new().number(0, number))
}

/// The numbers of the programs at an interface, in their order.
pub(super) fn attached(interface: u32) -> io::Result<Vec<u32>> {
    let mut numbers = [0_u32; MOST_AT_AN_INTERFACE as usize];
    let mut asked = Arguments::new()
        .number(0, interface)
        .number(4, TCX_INGRESS)
        .place(16, numbers.as_mut_ptr())
        .number(24, MOST_AT_AN_INTERFACE);
    match call(QUERY, &mut asked) {
        Ok(_) => Ok(numbers.into_iter().take(asked.read(24) as usize).collect()),
        // Nobody has attached anything there.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Attaches a program to an interface, before all others, or in the place of `instead`. It stays as long as the interface.
pub(super) fn attach(interface: u32, program: BorrowedFd<'_>, instead: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let asked = Arguments::new().number(0, interface).descriptor(4, program).number(8, TCX_INGRESS);
    let mut asked = match instead {
        Some(instead) => asked.number(12, REPLACE).descriptor(16, instead),
        None => asked.number(12, BEFORE),
    };
    call(ATTACH, &mut asked).map(drop)
}

/// Takes a program away from an interface.
pub(super) fn detach(interface: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    let asked = Arguments::new().number(0, interface).descriptor(4, program).number(8, TCX_INGRESS);
    call(DETACH, &mut { asked }).map(drop)
}

/// All that is in a map, at most so many entries, with keys of `K` and values of `V` bytes.
pub(super) fn entries<const K: usize, const V: usize>(
    map: BorrowedFd<'_>,
    most: usize,
) -> io::Result<Vec<([u8; K], [u8; V])>> {
    let (mut entries, mut key) = (Vec::new(), None::<[u8; K]>);
    while entries.len() < most {
        let mut next = [0_u8; K];
        let asked = Arguments::new().descriptor(0, map);
        let asked = match &key {
            Some(key) => asked.place(8, key.as_ptr()),
            None => asked,
        };
        match call(MAP_NEXT_KEY, &mut asked.place(16, next.as_mut_ptr())) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
            Err(error) => return Err(error),
        }
        let mut value = [0_u8; V];
        let asked = Arguments::new().descriptor(0, map).place(8, next.as_ptr()).place(16, value.as_mut_ptr());
        if call(MAP_LOOKUP, &mut { asked }).is_ok() {
            entries.push((next, value));
        }
        key = Some(next);
    }
    Ok(entries)
}

/// Takes an entry out of a map.
pub(super) fn remove<const K: usize>(map: BorrowedFd<'_>, key: &[u8; K]) -> io::Result<()> {
    call(MAP_DELETE, &mut Arguments::new().descriptor(0, map).place(8, key.as_ptr())).map(drop)
}

/// The sizes of a map's keys and values.
pub(super) fn sizes(map: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    // `struct bpf_map_info` up to the value's size.
    let mut info = [0_u8; 16];
    let asked = Arguments::new().descriptor(0, map).number(4, 16).place(8, info.as_mut_ptr());
    call(INFO, &mut { asked })?;
    let number = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
    Ok((number(8), number(12)))
}
