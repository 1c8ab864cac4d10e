//! qcow2, as far as Proxmox VE makes cloud-init volumes of it: no backing file, no encryption, nothing compressed.
//!
//! Source: QEMU `docs/interop/qcow2.rst`.

use std::io;

use super::{Bytes, field};

const MAGIC: &[u8] = b"QFI\xfb";

/// Incompatible features that change nothing for a reader: refcounts that need repair, and how clusters would be
/// compressed if any were.
const HARMLESS: u64 = 1 << 0 | 1 << 3;

const COMPRESSED: u64 = 1 << 62;
const ALL_ZEROS: u64 = 1;
/// Where the offset is in an entry of either table.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// What QEMU may well read.
fn bad<T>(what: impl Into<String>) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("the qcow2 file {}", what.into())))
}

/// What the guest sees of a qcow2 file.
pub(super) struct Qcow2 {
    file: Box<dyn Bytes>,
    version: u32,
    cluster_bits: u32,
    size: u64,
    table: u64,
    entries: u64,
}

impl Qcow2 {
    pub(super) fn open(file: Box<dyn Bytes>) -> io::Result<Self> {
        let mut header = [0; 104];
        let length = header.len().min(usize::try_from(file.size()).unwrap_or(header.len()));
        file.read_at(0, &mut header[..length])?;
        if !header.starts_with(MAGIC) || length < 72 {
            return bad("is none, but has the name of one");
        }
        let number = |offset| u32::from_be_bytes(field(&header, offset));
        let long = |offset| u64::from_be_bytes(field(&header, offset));
        let version = number(4);
        if !(2..=3).contains(&version) {
            return bad(format!("is of version {version} of qcow2, not 2 or 3"));
        }
        if long(8) != 0 {
            return bad("has a backing file, without which it is not whole");
        }
        if number(32) != 0 {
            return bad("is encrypted");
        }
        let features = if version == 3 { long(72) } else { 0 };
        if features & !HARMLESS != 0 {
            return bad(match features & !HARMLESS {
                2 => "is marked as corrupt".to_owned(),
                4 => "keeps its data in another file".to_owned(),
                other => format!("uses features of qcow2 that are not known here ({other:#x})"),
            });
        }
        let cluster_bits = number(20);
        if !(9..=21).contains(&cluster_bits) {
            return bad(format!("has clusters of 2^{cluster_bits} bytes"));
        }
        let (size, entries, table) = (long(24), u64::from(number(36)), long(40));
        if table.checked_add(entries * 8).is_none_or(|end| end > file.size()) {
            return bad("has a table of clusters beyond its end");
        }
        Ok(Self { file, version, cluster_bits, size, table, entries })
    }

    /// Where the cluster around `offset` begins in the file; `None`: it is all zeros.
    fn cluster(&self, offset: u64) -> io::Result<Option<u64>> {
        let cluster_size = 1_u64 << self.cluster_bits;
        let index = offset >> (2 * self.cluster_bits - 3);
        if index >= self.entries {
            return bad("has a table of clusters that is too short for its size");
        }
        let tables = self.entry(self.table + index * 8)? & OFFSET;
        if tables == 0 {
            return Ok(None);
        }
        let index = (offset >> self.cluster_bits) & (cluster_size / 8 - 1);
        // Both summands are below 2^57.
        let entry = self.entry(tables + index * 8)?;
        if entry & COMPRESSED != 0 {
            return bad("has compressed clusters");
        }
        let cluster = entry & OFFSET;
        if cluster == 0 || self.version == 3 && entry & ALL_ZEROS != 0 {
            return Ok(None);
        }
        if cluster % cluster_size != 0 || cluster >= self.file.size() {
            return bad("has a cluster beyond its end or across the bounds of clusters");
        }
        Ok(Some(cluster))
    }

    fn entry(&self, offset: u64) -> io::Result<u64> {
        if offset + 8 > self.file.size() {
            return bad("has a table of clusters beyond its end");
        }
        let mut entry = [0; 8];
        self.file.read_at(offset, &mut entry)?;
        Ok(u64::from_be_bytes(entry))
    }
}

impl Bytes for Qcow2 {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let cluster_size = 1_usize << self.cluster_bits;
        let (mut offset, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let within = usize::try_from(offset & (cluster_size as u64 - 1)).unwrap_or_default();
            let length = rest.len().min(cluster_size - within);
            let (part, after) = rest.split_at_mut(length);
            part.fill(0);
            if let Some(cluster) = self.cluster(offset)? {
                let begin = cluster + within as u64;
                // The last cluster need not be there to its end; QEMU reads zeros from there on.
                let there = self.file.size().saturating_sub(begin).min(length as u64);
                self.file.read_at(begin, &mut part[..usize::try_from(there).unwrap_or(length)])?;
            }
            offset += length as u64;
            rest = after;
        }
        Ok(())
    }
}
