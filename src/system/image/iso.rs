//! ISO 9660 with Rock Ridge: the root directory and its files, which is all that cloud-init's `NoCloud` volumes have.
//!
//! Where the format says a number twice, in both byte orders, both must agree. What the tools that Proxmox VE runs
//! never make (files of several parts, interleaving, names twice) is refused and not guessed at.
//!
//! Source: ECMA-119; SUSP 1.12 and RRIP 1.12 for the names.

use std::collections::BTreeMap;

use super::{Bytes, Fault, broken, field};

const SECTOR: u64 = 2048;
const SECTOR_LENGTH: usize = 2048;

/// The descriptor of the volume is in this sector.
const DESCRIPTOR: u64 = 16;

/// Larger than any file of Proxmox VE's: it reads at most 1 MiB of a snippet.
const FILE_LIMIT: u64 = 1024 * 1024;

/// The root directory of Proxmox VE's images is one sector of four or five names.
const DIRECTORY_LIMIT: u64 = 64 * 1024;

/// A record may go on elsewhere, and from there elsewhere; one step is what is met.
const CONTINUATIONS: usize = 4;

/// Bits of a record's flags.
const DIRECTORY: u8 = 0x02;
const ASSOCIATED: u8 = 0x04;
const MULTI_EXTENT: u8 = 0x80;

/// Type bits of a file's mode, and that of an ordinary file.
const TYPE_BITS: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

/// An ISO 9660 file system.
#[derive(Debug)]
pub(super) struct FileSystem {
    pub(super) label: String,
    pub(super) root: BTreeMap<String, Entry>,
    size: u64,
}

/// A file or directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    start: u64,
    size: u64,
    flags: u8,
    mode: u32,
}

impl FileSystem {
    pub(super) fn open(bytes: &dyn Bytes) -> Result<Self, Fault> {
        let mut sector = [0; SECTOR_LENGTH];
        if bytes.size() < (DESCRIPTOR + 1) * SECTOR {
            return broken(format!("has only {} bytes: there is no file system in it", bytes.size()));
        }
        bytes.read_at(DESCRIPTOR * SECTOR, &mut sector)?;
        if &sector[1..6] != b"CD001" {
            return broken("holds no ISO 9660 file system");
        }
        if sector[0] != 1 || sector[6] != 1 {
            return broken(format!("has a volume descriptor of type {} version {}", sector[0], sector[6]));
        }
        let block = both16(&sector, 128, "size of a block")?;
        if u64::from(block) != SECTOR {
            return broken(format!("has blocks of {block} bytes, not 2048"));
        }
        let size = u64::from(both32(&sector, 80, "size of the volume")?) * SECTOR;
        if size > bytes.size() {
            return broken(format!("is cut off: {size} bytes of file system in a volume of {}", bytes.size()));
        }
        let label = String::from_utf8_lossy(&sector[40..72]).trim_end().to_owned();
        let mut files = Self { label, root: BTreeMap::new(), size };
        let root = files.record(&sector[156..190])?;
        if root.flags & DIRECTORY == 0 || root.size > DIRECTORY_LIMIT {
            return broken(format!("has a root directory of {} bytes that is none", root.size));
        }
        let directory = read(bytes, &root)?;
        files.root = files.entries(bytes, &directory)?;
        Ok(files)
    }

    /// The content of a file of the root directory.
    pub(super) fn content(&self, bytes: &dyn Bytes, name: &str) -> Result<Option<Vec<u8>>, Fault> {
        let Some(entry) = self.root.get(name) else { return Ok(None) };
        if entry.flags & DIRECTORY != 0 || entry.mode & TYPE_BITS != REGULAR {
            return broken(format!("has a `{name}` that is no ordinary file"));
        }
        if entry.size > FILE_LIMIT {
            return broken(format!("has a `{name}` of {} bytes, more than 1 MiB", entry.size));
        }
        read(bytes, entry).map(Some)
    }

    /// What a directory record says of its file, which must lie within the file system.
    fn record(&self, record: &[u8]) -> Result<Entry, Fault> {
        let start = u64::from(both32(record, 2, "start of a file")?) * SECTOR;
        let size = u64::from(both32(record, 10, "size of a file")?);
        let flags = record[25];
        if record[1] != 0 || flags & MULTI_EXTENT != 0 || record[26] != 0 || record[27] != 0 {
            return broken("has a file in several parts, or with extended attributes");
        }
        if start + size > self.size {
            return broken(format!("has a file beyond its end ({size} bytes at {start})"));
        }
        Ok(Entry { start, size, flags, mode: 0 })
    }

    fn entries(&self, bytes: &dyn Bytes, directory: &[u8]) -> Result<BTreeMap<String, Entry>, Fault> {
        let mut found = BTreeMap::new();
        // Bytes at the start of each system use area that are not Rock Ridge's; known once the first record is read.
        let mut skip = None;
        // No record crosses the end of a sector.
        for sector in directory.chunks(SECTOR_LENGTH) {
            let mut rest = sector;
            while let Some(&length) = rest.first().filter(|length| **length > 0) {
                let name_length = rest.get(32).copied().map_or(usize::MAX, usize::from);
                let Some(record) = rest.get(..usize::from(length)).filter(|record| record.len() > 33) else {
                    return broken("has a directory record that is cut off");
                };
                let Some(name) = record.get(33..33_usize.saturating_add(name_length)) else {
                    return broken("has a directory record whose name is cut off");
                };
                let mut entry = self.record(record)?;
                // Padded to an even offset.
                let area = record.get(33 + name_length + (name_length + 1) % 2..).unwrap_or_default();
                match (skip, name) {
                    (None, [0]) => skip = Some(sharing(area)?),
                    (None, _) => return broken("has a directory that does not begin with itself"),
                    (Some(_), [0 | 1]) => {}
                    (Some(skip), _) => {
                        let (name, mode) = self.rock_ridge(bytes, area.get(skip..).unwrap_or_default())?;
                        entry.mode = mode;
                        if entry.flags & ASSOCIATED == 0 && found.insert(name.clone(), entry).is_some() {
                            return broken(format!("has two files named `{name}`"));
                        }
                    }
                }
                rest = &rest[record.len()..];
            }
        }
        Ok(found)
    }

    /// The name and mode that Rock Ridge gives a file.
    fn rock_ridge(&self, bytes: &dyn Bytes, area: &[u8]) -> Result<(String, u32), Fault> {
        let (mut name, mut mode) = (Vec::new(), None);
        let mut area = area.to_vec();
        for _ in 0..=CONTINUATIONS {
            let mut next = None;
            let mut rest = &area[..];
            // A byte or less may be left over for padding.
            while let [a, b, length, _version, ..] = *rest {
                let Some(data) = rest.get(4..usize::from(length)) else {
                    // Zeros: no further field.
                    if [a, b] == [0, 0] {
                        break;
                    }
                    return broken("has a Rock Ridge field that is cut off");
                };
                match &[a, b] {
                    b"NM" => {
                        let [flags, part @ ..] = data else { return broken("has a Rock Ridge name without flags") };
                        // 1: goes on in another field, which simply follows; 2 and 4: `.` and `..`.
                        if flags & !1 != 0 {
                            return broken("has a file with the name of a directory's link to itself");
                        }
                        name.extend_from_slice(part);
                    }
                    b"PX" => mode = Some(both32(data, 0, "mode of a file")?),
                    b"CE" => next = Some(self.continuation(bytes, data)?),
                    b"ZF" => return broken("has a compressed file"),
                    b"ST" => break,
                    _ => {}
                }
                rest = &rest[usize::from(length)..];
            }
            match next {
                Some(continued) => area = continued,
                None => return named(&name, mode),
            }
        }
        broken("has a Rock Ridge field that goes on and on")
    }

    fn continuation(&self, bytes: &dyn Bytes, data: &[u8]) -> Result<Vec<u8>, Fault> {
        let [block, offset, size] = [0, 8, 16].map(|at| both32(data, at, "place of a Rock Ridge field"));
        let (block, offset, size) = (u64::from(block?), u64::from(offset?), u64::from(size?));
        let start = block * SECTOR + offset;
        if size > SECTOR || start + size > self.size {
            return broken("has Rock Ridge fields beyond its end");
        }
        read(bytes, &Entry { start, size, flags: 0, mode: 0 })
    }
}

fn named(name: &[u8], mode: Option<u32>) -> Result<(String, u32), Fault> {
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty() && name.len() <= 255);
    match (name, mode) {
        (Some(name), Some(mode)) => Ok((name.to_owned(), mode)),
        _ => broken("has a file without a Rock Ridge name and mode"),
    }
}

/// How many bytes to skip in each system use area, from that of the root directory's first record.
fn sharing(area: &[u8]) -> Result<usize, Fault> {
    match *area {
        [b'S', b'P', 7, 1, 0xbe, 0xef, skip, ..] => Ok(usize::from(skip)),
        _ => broken("has no Rock Ridge names, which Proxmox VE's images have"),
    }
}

fn read(bytes: &dyn Bytes, entry: &Entry) -> Result<Vec<u8>, Fault> {
    // Everything that is read is limited by now.
    let mut content = vec![0; usize::try_from(entry.size).unwrap_or_default()];
    bytes.read_at(entry.start, &mut content)?;
    Ok(content)
}

fn both16(record: &[u8], offset: usize, what: &str) -> Result<u16, Fault> {
    let (little, big) = (field(record, offset), field(record, offset + 2));
    match (u16::from_le_bytes(little), u16::from_be_bytes(big)) {
        (one, two) if one == two => Ok(one),
        (one, two) => broken(format!("contradicts itself: the {what} is {one} or {two}")),
    }
}

fn both32(record: &[u8], offset: usize, what: &str) -> Result<u32, Fault> {
    let (little, big) = (field(record, offset), field(record, offset + 4));
    match (u32::from_le_bytes(little), u32::from_be_bytes(big)) {
        (one, two) if one == two => Ok(one),
        (one, two) => broken(format!("contradicts itself: the {what} is {one} or {two}")),
    }
}
