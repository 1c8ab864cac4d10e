//! Which forwarding entries this program has made: the kernel has no room for our mark in them, and to list the entries
//! of a bridge costs as much as its guests like, because every source MAC that a guest invents is one.
//!
//! A pin is noted before it is set and forgotten after it is removed, so that a program that dies in between leaves a
//! note too many. The kernel removes the entry together with its port; such a note is dropped when there are many.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::host::files;
use crate::model::{IfName, MacAddr};

/// Longest file that is read: a line is at most 33 bytes, so that is some 30,000 pins.
const LIMIT: usize = 1 << 20;

/// With more pins than these, those whose port is gone are forgotten.
const MANY: usize = 4_096;

/// Pinned MACs by port, with the VLANs that their guest may use besides.
pub(super) type Pinned = BTreeMap<(IfName, MacAddr), BTreeSet<u16>>;

/// The pins of the calling thread's network namespace.
#[derive(Debug, Default)]
pub(super) struct Pins {
    /// Where they are noted; without it, for a namespace that ends with the program, in `known` only.
    file: Option<PathBuf>,
    known: BTreeSet<(IfName, MacAddr)>,
    is_loaded: bool,
}

impl Pins {
    /// With notes in this directory.
    pub(super) fn noted_in(directory: &Path) -> Self {
        Self { file: Some(directory.join("pinned")), ..Self::default() }
    }

    /// All of them, as they are noted now: other processes note theirs in the same file.
    pub(super) fn load(&mut self) -> &BTreeSet<(IfName, MacAddr)> {
        self.is_loaded = true;
        if let Some(path) = &self.file {
            self.known = match files::read_whole(path, LIMIT) {
                Ok(bytes) => parse(&bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
                Err(error) => {
                    // What is wanted is set anyway; only a pin that nobody wants any more stays until its port goes.
                    log::warn!("cannot read `{}`: {error}", path.display());
                    log::warn!("hint: `rm {}`, then `pve-public-ip apply`", path.display());
                    BTreeSet::new()
                }
            };
        }
        &self.known
    }

    /// Notes a pin that is about to be set.
    pub(super) fn note(&mut self, port: IfName, mac: MacAddr) -> io::Result<()> {
        if !self.is_loaded {
            self.load();
        }
        if !self.known.insert((port, mac)) {
            return Ok(());
        }
        if self.known.len() > MANY {
            self.known.retain(|(port, _)| nix::net::if_::if_nametoindex(port.as_str()).is_ok());
            return self.save();
        }
        let Some(path) = &self.file else { return Ok(()) };
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        options.open(path)?.write_all(line(port, mac).as_bytes())
    }

    /// Forgets a pin that was removed.
    pub(super) fn forget(&mut self, port: IfName, mac: MacAddr) -> io::Result<()> {
        if !self.is_loaded {
            self.load();
        }
        if self.known.remove(&(port, mac)) { self.save() } else { Ok(()) }
    }

    fn save(&self) -> io::Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        let lines: String = self.known.iter().map(|(port, mac)| line(*port, *mac)).collect();
        files::replace(path, lines.as_bytes())
    }
}

fn line(port: IfName, mac: MacAddr) -> String {
    format!("{port} {mac}\n")
}

/// A line that is cut off, by a program that died, is of a pin that was not set.
fn parse(bytes: &[u8]) -> BTreeSet<(IfName, MacAddr)> {
    let text = String::from_utf8_lossy(bytes);
    let whole = text.lines().filter_map(|line| line.split_once(' '));
    whole.filter_map(|(port, mac)| Some((port.parse().ok()?, mac.parse().ok()?))).collect()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test reads what was written")]
mod tests {
    use super::*;

    #[test]
    fn what_one_process_notes_another_one_knows() {
        let directory = tempfile::tempdir().unwrap();
        let pin = |port: &str, mac: &str| (port.parse::<IfName>().unwrap(), mac.parse::<MacAddr>().unwrap());
        let (one, two) = (pin("tap100i0", "02:00:00:00:00:01"), pin("tap101i0", "02:00:00:00:00:02"));
        let mut pins = Pins::noted_in(directory.path());
        assert!(pins.load().is_empty());
        for (port, mac) in [one, two, one] {
            pins.note(port, mac).unwrap();
        }
        let mut other = Pins::noted_in(directory.path());
        assert_eq!(*other.load(), BTreeSet::from([one, two]));
        other.forget(one.0, one.1).unwrap();
        other.forget(one.0, one.1).unwrap();
        assert_eq!(*pins.load(), BTreeSet::from([two]));

        let path = directory.path().join("pinned");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "tap101i0 02:00:00:00:00:02\n");
        files::replace(&path, format!("{text}\nnonsense\ntap102i0 02:00:00:0").as_bytes()).unwrap();
        assert_eq!(*pins.load(), BTreeSet::from([two]), "cut off");
        files::replace(&path, "x".repeat(LIMIT + 1).as_bytes()).unwrap();
        assert!(pins.load().is_empty(), "nobody reads more than that");
    }

    #[test]
    fn pins_of_ports_that_are_gone_do_not_pile_up() {
        let directory = tempfile::tempdir().unwrap();
        let mut pins = Pins::noted_in(directory.path());
        for number in 0..=u32::try_from(MANY).unwrap() {
            let [.., a, b, c] = number.to_be_bytes();
            pins.note("tap987654i9".parse().unwrap(), MacAddr::from_octets([2, 0, 0, a, b, c])).unwrap();
        }
        assert_eq!(std::fs::metadata(directory.path().join("pinned")).unwrap().len(), 0);
    }
}
