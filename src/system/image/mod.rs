//! A guest's cloud-init volume, read as the guest will read it: an ISO 9660 file system with Rock Ridge names, in a raw
//! file, on a block device or inside a qcow2 file.
//!
//! Whatever stands in the volume is taken for what it is, bytes that anybody may have written: every offset is checked,
//! nothing is followed for ever, and no more is read than was asked for.

mod iso;
mod qcow2;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::guest::storage::Format;
use iso::FileSystem;
use qcow2::Qcow2;

/// Bytes that can be read anywhere.
pub trait Bytes {
    /// How many there are.
    fn size(&self) -> u64;
    /// Fills `buffer` with what begins at `offset`; an error if it ends before that.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// What is wrong with an image, without its name.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It can, and is not what it should be.
    #[error("{0}")]
    Broken(String),
}

fn broken<T>(reason: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Broken(reason.into()))
}

/// A cloud-init volume that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The system refuses.
    #[error("cannot read the cloud-init image `{}`", path.display())]
    Io {
        /// The volume.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is not what Proxmox VE makes.
    #[error("the cloud-init image `{}` {reason}", path.display())]
    Broken {
        /// The volume.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The file system of a cloud-init volume.
pub struct Image {
    path: PathBuf,
    files: FileSystem,
    bytes: Box<dyn Bytes>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("path", &self.path).field("files", &self.files).finish_non_exhaustive()
    }
}

impl Image {
    /// Opens the volume at `path` and reads its directory.
    pub fn open(path: &Path, format: Format) -> Result<Self, ImageError> {
        let volume = Volume::open(path).map_err(|source| ImageError::Io { path: path.to_owned(), source })?;
        Self::read(path, Box::new(volume), format)
    }

    /// As [`Self::open`], with the bytes at hand; `path` is what they are called in messages.
    pub fn read(path: &Path, bytes: Box<dyn Bytes>, format: Format) -> Result<Self, ImageError> {
        let opened = || -> Result<_, Fault> {
            let bytes = match format {
                Format::Raw => bytes,
                Format::Qcow2 => Box::new(Qcow2::open(bytes)?),
            };
            Ok((FileSystem::open(&*bytes)?, bytes))
        };
        let (files, bytes) = opened().map_err(|fault| fault.of(path))?;
        Ok(Self { path: path.to_owned(), files, bytes })
    }

    /// The file system's label, without the blanks at its end.
    pub fn label(&self) -> &str {
        &self.files.label
    }

    /// What is in its root directory.
    pub fn names(&self) -> BTreeSet<&str> {
        self.files.root.keys().map(String::as_str).collect()
    }

    /// The content of a file of the root directory, if there is one of this name.
    pub fn file(&self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        self.files.content(&*self.bytes, name).map_err(|fault| fault.of(&self.path))
    }
}

impl Fault {
    fn of(self, path: &Path) -> ImageError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => ImageError::Io { path, source },
            Self::Broken(reason) => ImageError::Broken { path, reason },
        }
    }
}

/// A file or block device.
struct Volume {
    file: File,
    size: u64,
}

impl Volume {
    /// Devices are reached by way of links that udev makes; in a directory of images nobody has any business making one.
    fn open(path: &Path) -> io::Result<Self> {
        let is_device = |kind: std::fs::FileType| kind.is_block_device();
        let linked = path.symlink_metadata()?.is_symlink() && is_device(std::fs::metadata(path)?.file_type());
        let follow = if linked { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        // Non-blocking, so that a planted FIFO cannot hang a hook.
        let flags = OFlag::O_NONBLOCK | follow;
        let mut file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        let kind = file.metadata()?.file_type();
        if !is_device(kind) && (linked || !kind.is_file()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a regular file nor a block device"));
        }
        // A device says its size in no other way.
        let size = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, size })
    }
}

impl Bytes for Volume {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

/// Bytes in memory.
impl Bytes for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        let found = from.and_then(|from| from.get(..buffer.len()));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// `N` bytes of `record` from `offset`; the caller has seen to it that they are there, else zeros.
fn field<const N: usize>(record: &[u8], offset: usize) -> [u8; N] {
    let found = record.get(offset..offset + N).and_then(|bytes| bytes.try_into().ok());
    found.unwrap_or([0; N])
}
