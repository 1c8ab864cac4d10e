//! The programs at guests' ports (`bpf/port.c`): loaded once for a node, and attached to each port.
//!
//! They and their counts have names in the kernel's file system for such things, `/sys/fs/bpf`, so that hook, guard and
//! commands use the same ones. Whoever may load (root with all capabilities: hook, `apply`) does it when they are missing; the
//! guard only opens and attaches, for which `CAP_NET_ADMIN` is enough. A program stays at a port as long as the port, whoever
//! ends.
//!
//! Attaching waits for the kernel's readers of the packet path, 8 to 12 ms a port.

mod bpf;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::time::{ClockId, clock_gettime};

use crate::host::files;
use crate::links::Links;
use crate::model::IfName;
use crate::paths::Paths;
use crate::plan::{PortProgram, PortWish};
use crate::ruleset::PORT_REASONS;
use crate::system::tally::{Count, Entry, Tallies};

/// What `scripts/port-program` has made of `bpf/port.c`.
const DATA: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/port.data"));
const INSTRUCTIONS: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/port.insns"));

/// Where the loader leaves descriptors in its context, behind 24 bytes of its own: the map, then the programs in their order.
const CONTEXT: usize = 48;
const CONTEXT_SIZE: [u8; 4] = 48_u32.to_ne_bytes();
const DROPS_AT: usize = 24;
const OTHER_AT: usize = 40;
const BOUND_AT: usize = 44;

/// Names in the directory of one build of the programs.
const DROPS: &str = "drops";
const OTHER: &str = "other";
const BOUND: &str = "bound";

/// How the programs are called in their source begins so.
const OURS: &str = "ppip_";

/// As many counts as the map has room for.
const MOST_COUNTS: usize = 65_536;

/// Why a node has no programs at its guests' ports.
#[derive(Debug, thiserror::Error)]
pub enum Absent {
    /// The kernel does not know such a hook.
    #[error("this kernel has no hook for programs at ports; Linux 6.6 is the first that has")]
    NoHook,
    /// The kernel does not tell how its structures are laid out.
    #[error("this kernel does not say how its structures are laid out (`/sys/kernel/btf/vmlinux` is missing)")]
    NoLayout,
    /// There is no place for their names.
    #[error("`{}` is no file system of type bpf", .0.display())]
    NoFileSystem(PathBuf),
    /// Nobody has loaded them since the node has booted, or since this release was installed.
    #[error("they are not loaded")]
    NotLoaded,
    /// The kernel refused something.
    #[error("cannot {what}: {error}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

impl Absent {
    /// The administrator's next step.
    pub fn hint(&self) -> String {
        match self {
            Self::NoHook | Self::NoLayout => {
                "with a kernel of Proxmox VE 8 or 9 there is; `pve-public-ip node set --port-program off` says that \
                 it is known"
                    .to_owned()
            }
            Self::NoFileSystem(path) => format!("`mount -t bpf bpf {}`", path.display()),
            Self::NotLoaded => "`pve-public-ip apply`".to_owned(),
            Self::Refused { error, .. } if error.raw_os_error() == Some(libc::EPERM) => {
                "run it as root; if root is refused, too, `cat /sys/kernel/security/lockdown` says whether the kernel \
                 is locked down"
                    .to_owned()
            }
            Self::Refused { .. } => {
                "`dmesg` may say more; `pve-public-ip node set --port-program off` does without them".to_owned()
            }
        }
    }
}

fn refused(what: &'static str) -> impl Fn(io::Error) -> Absent {
    move |error| Absent::Refused { what, error }
}

/// Both programs and their counts, ready to be attached.
#[derive(Debug)]
pub struct PortPrograms {
    /// Of this release.
    current: Build,
    /// Of other releases, which may be at ports still, by their directories.
    earlier: BTreeMap<PathBuf, Build>,
}

/// One build of the programs.
#[derive(Debug)]
struct Build {
    drops: OwnedFd,
    other: (u32, OwnedFd),
    bound: (u32, OwnedFd),
}

impl Build {
    /// What has names in a directory.
    fn open(directory: &Path) -> io::Result<Self> {
        let program = |name| bpf::open_pinned(&directory.join(name)).and_then(numbered);
        let drops = bpf::open_pinned(&directory.join(DROPS))?;
        if bpf::sizes(drops.as_fd())? != (8, 24) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the counts have another form"));
        }
        Ok(Self { drops, other: program(OTHER)?, bound: program(BOUND)? })
    }

    /// Loads this release's.
    fn load() -> io::Result<Self> {
        let mut context = [0_u8; CONTEXT];
        context[..4].copy_from_slice(&CONTEXT_SIZE);
        let context = bpf::run_loader(DATA, INSTRUCTIONS, context)?;
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "the loader has left nothing");
        // All are taken over before one can fail.
        let [drops, other, bound] = [DROPS_AT, OTHER_AT, BOUND_AT].map(|at| bpf::from_loader(&context, at));
        let program = |program: Option<OwnedFd>| program.ok_or_else(missing).and_then(numbered);
        Ok(Self { drops: drops.ok_or_else(missing)?, other: program(other)?, bound: program(bound)? })
    }

    /// Gives them names in a directory, in the place of what has them.
    fn pin(&self, directory: &Path) -> io::Result<()> {
        match fs::create_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let all = [(DROPS, &self.drops), (OTHER, &self.other.1), (BOUND, &self.bound.1)];
        for (name, descriptor) in all {
            let path = directory.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => bpf::pin(descriptor.as_fd(), &path)?,
            }
        }
        Ok(())
    }

    fn program(&self, which: PortProgram) -> (u32, BorrowedFd<'_>) {
        let (number, descriptor) = match which {
            PortProgram::Bound => &self.bound,
            PortProgram::Other => &self.other,
        };
        (*number, descriptor.as_fd())
    }

    /// The program of this number, if it is one of these.
    fn numbered(&self, number: u32) -> Option<BorrowedFd<'_>> {
        let mut both = [&self.bound, &self.other].into_iter();
        both.find(|(own, _)| *own == number).map(|(_, descriptor)| descriptor.as_fd())
    }
}

fn numbered(program: OwnedFd) -> io::Result<(u32, OwnedFd)> {
    Ok((bpf::program(program.as_fd())?.number, program))
}

/// What is at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// This release's program.
    Current(PortProgram),
    /// One of ours, of another release.
    Earlier,
    /// None of ours.
    Nothing,
}

impl PortPrograms {
    /// Those that are loaded.
    pub fn open(paths: &Paths) -> Result<Self, Absent> {
        let directory = own_directory(paths)?;
        match Build::open(&directory) {
            Ok(current) => Ok(Self { current, earlier: earlier(paths, &directory) }),
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(refused("open the programs")(error)),
            Err(_) => Err(Absent::NotLoaded),
        }
    }

    /// Those that are loaded, or now are.
    pub fn open_or_load(paths: &Paths) -> Result<Self, Absent> {
        match Self::open(paths) {
            Err(Absent::NotLoaded) => {}
            found => return found,
        }
        let directory = own_directory(paths)?;
        let _lock = files::lock(&paths.run().join("port-programs.lock")).map_err(refused("take the lock for it"))?;
        // Somebody else may have been quicker.
        if let Ok(current) = Build::open(&directory) {
            return Ok(Self { current, earlier: earlier(paths, &directory) });
        }
        let current = Build::load().map_err(refused("load them"))?;
        current.pin(&directory).map_err(refused("name them in /sys/fs/bpf"))?;
        Ok(Self { current, earlier: earlier(paths, &directory) })
    }

    /// What is at a port, by its number.
    pub fn at(&self, port: u32) -> Result<Attached, Absent> {
        let numbers = bpf::attached(port).map_err(refused("ask a port for its programs"))?;
        for which in PortProgram::ALL {
            if numbers.contains(&self.current.program(which).0) {
                return Ok(Attached::Current(which));
            }
        }
        let is_earlier = |number: &u32| self.earlier.values().any(|build| build.numbered(*number).is_some());
        Ok(if numbers.iter().any(is_earlier) { Attached::Earlier } else { Attached::Nothing })
    }

    /// Sees to it that a port has this program of ours and no other.
    fn attend(&self, port: u32, wanted: PortProgram) -> io::Result<()> {
        let numbers = bpf::attached(port)?;
        let (number, program) = self.current.program(wanted);
        let mut is_there = numbers.contains(&number);
        for other in numbers.into_iter().filter(|other| *other != number) {
            let lost;
            let other = match self.ours(other) {
                Some(known) => known,
                None => match lost_program(other) {
                    Some(found) => {
                        lost = found;
                        lost.as_fd()
                    }
                    None => continue,
                },
            };
            if is_there {
                bpf::detach(port, other)?;
            } else {
                // Without a moment in which there is none.
                bpf::attach(port, program, Some(other))?;
                is_there = true;
            }
        }
        match if is_there { Ok(()) } else { bpf::attach(port, program, None) } {
            // Somebody else was quicker.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// Takes all of ours away from a port.
    fn leave(&self, port: u32) -> io::Result<()> {
        for program in bpf::attached(port)?.into_iter().filter_map(|number| self.ours(number)) {
            bpf::detach(port, program)?;
        }
        Ok(())
    }

    fn ours(&self, number: u32) -> Option<BorrowedFd<'_>> {
        let builds = std::iter::once(&self.current).chain(self.earlier.values());
        builds.into_iter().find_map(|build| build.numbered(number))
    }

    /// After all ports have this release's program: forgets those of other releases.
    pub fn forget_earlier(&mut self) {
        for directory in std::mem::take(&mut self.earlier).into_keys() {
            // What cannot be removed is found again the next time.
            let _ = fs::remove_dir_all(directory);
        }
    }

    /// Takes the names away; the kernel unloads what is at no port any more.
    pub fn unload(self, paths: &Paths) {
        // What cannot be removed is found again the next time.
        let _ = fs::remove_dir_all(directory(paths));
    }

    /// How long ago this release's program was loaded, if the kernel says.
    pub fn age(&self, which: PortProgram) -> Option<Duration> {
        let loaded = bpf::program(self.current.program(which).1).ok()?.loaded;
        Some(since_boot().saturating_sub(Duration::from_nanos(loaded)))
    }

    /// Forgets the counts of all ports but these.
    pub fn forget_others(&self, wishes: &BTreeMap<IfName, PortWish>) {
        let there: BTreeSet<u32> = wishes.values().map(|wish| wish.index).collect();
        for (key, _) in counts(self.current.drops.as_fd()).unwrap_or_default() {
            let (port, _) = place(key);
            if port != 0 && !there.contains(&port) {
                // What stays is forgotten the next time.
                let _ = bpf::remove(self.current.drops.as_fd(), &key);
            }
        }
    }

    /// Adds what the programs have dropped.
    pub fn count_into(&self, tallies: &mut Tallies, names: &BTreeMap<u32, IfName>) -> io::Result<()> {
        let now = since_boot();
        for (reason, _) in PORT_REASONS {
            tallies.reasons.entry(reason).or_default();
        }
        for (key, value) in counts(self.current.drops.as_fd())? {
            let (port, reason) = place(key);
            let Some((reason, _)) = (reason as usize).checked_sub(1).and_then(|at| PORT_REASONS.get(at)) else {
                continue;
            };
            let [packets, bytes, last] = numbers(value);
            let count = Count { packets, bytes };
            match names.get(&port) {
                None if port == 0 => drop(tallies.reasons.insert(reason, count)),
                None => {}
                Some(name) => {
                    let age = now.saturating_sub(Duration::from_nanos(last));
                    tallies.ports.push((reason, Entry { port: *name, mac: None, count, age }));
                }
            }
        }
        Ok(())
    }
}

/// The programs away from all ports and out of the kernel.
pub fn remove_all(paths: &Paths, links: &Links) {
    if let Ok(programs) = PortPrograms::open(paths) {
        for link in links.0.values() {
            // What is left goes with its port.
            let _ = programs.leave(link.index);
        }
        programs.unload(paths);
    }
}

type Counts = Vec<([u8; 8], [u8; 24])>;

fn counts(map: BorrowedFd<'_>) -> io::Result<Counts> {
    bpf::entries(map, MOST_COUNTS)
}

fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// Port and reason of a count.
fn place(key: [u8; 8]) -> (u32, u32) {
    let number = |at: usize| key[at..at + 4].try_into().map_or(0, u32::from_ne_bytes);
    (number(0), number(4))
}

/// Frames, bytes, and when the last one was.
fn numbers(value: [u8; 24]) -> [u64; 3] {
    [0, 8, 16].map(|at| value[at..at + 8].try_into().map_or(0, u64::from_ne_bytes))
}

/// A program of ours whose name was lost. Only root with all capabilities gets to see it.
fn lost_program(number: u32) -> Option<OwnedFd> {
    let program = bpf::program_by_number(number).ok()?;
    let known = bpf::program(program.as_fd()).ok()?;
    known.name.starts_with(OURS).then_some(program)
}

fn directory(paths: &Paths) -> PathBuf {
    paths.programs().join("pve-public-ip")
}

/// Whether this kernel can have them.
pub fn possible() -> Result<(), Absent> {
    match bpf::attached(1) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Err(Absent::NoHook),
        // Where the loopback interface has another number.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
        found => drop(found.map_err(refused("ask a port for its programs"))?),
    }
    if Path::new("/sys/kernel/btf/vmlinux").exists() { Ok(()) } else { Err(Absent::NoLayout) }
}

/// The directory of this release's build, if this kernel can have it.
fn own_directory(paths: &Paths) -> Result<PathBuf, Absent> {
    let place = paths.programs();
    if !PortPrograms::have_place(paths) {
        return Err(Absent::NoFileSystem(place));
    }
    possible()?;
    let build = files::fingerprint(&[DATA, INSTRUCTIONS].concat());
    Ok(directory(paths).join(format!("{build:016x}")))
}

/// The builds of other releases. What is none is passed over.
fn earlier(paths: &Paths, own: &Path) -> BTreeMap<PathBuf, Build> {
    let all = fs::read_dir(directory(paths)).into_iter().flatten().flatten().map(|entry| entry.path());
    let others = all.filter(|path| path != own);
    others.filter_map(|path| Some((path.clone(), Build::open(&path).ok()?))).collect()
}

impl PortPrograms {
    /// Sees to it that each port has what it is to have; those that could not be given it, and why.
    pub fn attend_all(&self, wishes: &BTreeMap<IfName, PortWish>) -> BTreeMap<IfName, io::Error> {
        let attend = |(name, wish): (&IfName, &PortWish)| {
            let result = match wish.program {
                Some(program) => self.attend(wish.index, program),
                None => self.leave(wish.index),
            };
            // The guest may have stopped meanwhile.
            Some((*name, result.err().filter(|error| error.raw_os_error() != Some(libc::ENODEV))?))
        };
        wishes.iter().filter_map(attend).collect()
    }

    /// The ports that lack the program that they are to have.
    pub fn missing(&self, wishes: &BTreeMap<IfName, PortWish>) -> Result<Vec<IfName>, Absent> {
        let mut missing = Vec::new();
        for (name, wish) in wishes {
            let Some(program) = wish.program else { continue };
            match self.at(wish.index) {
                Ok(found) if found == Attached::Current(program) => {}
                Err(Absent::Refused { error, .. }) if error.raw_os_error() == Some(libc::ENODEV) => {}
                found => {
                    found?;
                    missing.push(*name);
                }
            }
        }
        Ok(missing)
    }
}

impl PortPrograms {
    /// Whether there is a place for their names.
    pub fn have_place(paths: &Paths) -> bool {
        statfs(&paths.programs()).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
    }
}
