//! Files, written whole or not at all, without following a link that somebody planted.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, statfs};

/// No file that the kernel makes up and this program reads is larger.
const KERNEL_LIMIT: usize = 1 << 20;

/// Reads a regular file of at most `limit` bytes; a longer one is returned cut off just above the limit.
pub fn read_limited(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    // Non-blocking, so that a planted FIFO cannot hang a hook.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    // With room for all of it one system call reads it, instead of one for each doubling and one for the end.
    let size = usize::try_from(meta.len()).unwrap_or(limit).min(limit);
    let mut bytes = Vec::with_capacity(size + 1);
    (&file).take(size as u64).read_to_end(&mut bytes)?;
    // Files of the kernel have another size than they say.
    if size == 0 || size == limit || bytes.len() < size {
        let rest = (limit + 1).saturating_sub(bytes.len());
        file.take(rest as u64).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The last `limit` bytes of a regular file, and whether these are all that it has.
pub fn read_end(path: &Path, limit: u64) -> io::Result<(Vec<u8>, bool)> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let begin = meta.len().saturating_sub(limit);
    let mut bytes = vec![0; usize::try_from(meta.len() - begin).unwrap_or_default()];
    file.read_exact_at(&mut bytes, begin)?;
    Ok((bytes, begin == 0))
}

/// By which the content of a file is known again.
pub fn fingerprint(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

/// As [`read_limited`], but a longer file is an error: nobody should take its beginning for the whole.
pub fn read_whole(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let bytes = read_limited(path, limit)?;
    if bytes.len() > limit {
        let message = format!("it is larger than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(bytes)
}

/// The text of a file that the kernel makes up, below /proc or /sys.
pub fn read_kernel(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&read_limited(path, KERNEL_LIMIT)?).into_owned())
}

/// What this program has noted in a file of its own; none if it has not, or may not be read. What cannot be a note of ours,
/// because it is too large or no file, is said and counts as none.
pub fn read_note(path: &Path, limit: usize) -> Option<Vec<u8>> {
    match read_whole(path, limit) {
        Ok(bytes) => Some(bytes),
        Err(error) if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => None,
        Err(error) => {
            log::warn!("`{}` is not used: {error}", path.display());
            log::warn!("hint: `rm {}`: it is written anew when it is needed", path.display());
            None
        }
    }
}

/// Replaces a file by a new one with these bytes: temporary file beside it, sync, rename.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_as(path, bytes, "local")
}

/// As [`replace`], for a script that everybody may execute as soon as it is there.
pub fn replace_script(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let executable = |file: &File| {
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        file.sync_all()
    };
    replace_with(path, bytes, "local", executable)
}

/// As [`replace`], for everybody to read, whatever the umask is. Not left to the disk at once: it is soon written anew, and
/// who writes it has better things to do than to wait for a disk.
pub fn publish(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let readable = |file: &File| file.set_permissions(fs::Permissions::from_mode(0o644));
    replace_with(path, bytes, "local", readable)
}

/// As [`replace`], for this user only, and left to the disk for later: whoever reads it finds out if it is not whole, or it lies
/// under /run, which no power failure leaves.
pub fn replace_soon(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(path, bytes, "local", |_| Ok(()))
}

/// As [`publish`], for a path that somebody typed: also a link is refused, since neither where it leads (`/dev/stdout`) nor
/// the link itself is what they meant to lose.
pub fn publish_named(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.is_symlink() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link: name the file itself"));
    }
    replace_with(path, bytes, "local", |file| {
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.sync_all()
    })
}

/// As [`replace`]; `writer` (the node's name) keeps temporary files of two nodes with the same process id apart.
///
/// The temporary name is of the form that Proxmox VE itself uses. Mode and owner are left to the file system: pmxcfs
/// decides by path and refuses `chmod`.
pub fn replace_as(path: &Path, bytes: &[u8], writer: &str) -> io::Result<()> {
    replace_with(path, bytes, writer, File::sync_all)
}

fn replace_with(
    path: &Path,
    bytes: &[u8],
    writer: &str,
    finish: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    // A rename would put a file into the place of a device, and everybody would miss that.
    if let Ok(meta) = fs::symlink_metadata(path)
        && !meta.is_file()
        && !meta.is_symlink()
    {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "what is there is no regular file, and is left alone"));
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let temporary = path.with_file_name(format!("{name}.tmp.{writer}.{}", std::process::id()));
    // A left-over of a dead process with our id; O_EXCL below makes sure that nothing is written through a link.
    let _ = fs::remove_file(&temporary);
    let written = write_new(&temporary, bytes, finish).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_new(path: &Path, bytes: &[u8], finish: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o640)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)?;
    file.write_all(bytes)?;
    finish(&file)
}

/// Removes a file; one that is not there is removed already.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Names of what is in a directory; none if it cannot be read.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Creates a directory and its parents, as far as they are missing.
pub fn directories(path: &Path) -> io::Result<()> {
    if path.is_dir() { Ok(()) } else { fs::create_dir_all(path) }
}

/// Makes sure that `path` is a directory that only its owner, this user, can enter.
pub fn private_directory(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        directories(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_dir() || meta.uid() != nix::unistd::geteuid().as_raw() {
        let message = format!("`{}` is not a directory of this user", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    if meta.mode() & 0o022 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Opens a lock file in a private directory, creating it.
pub fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
}

/// Opens a lock file that exists.
pub fn open_existing_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

/// Waits for a lock file in a private directory; it is free again when the value goes, or this process.
pub fn lock(path: &Path) -> io::Result<Flock<File>> {
    if let Some(directory) = path.parent() {
        private_directory(directory)?;
    }
    Flock::lock(open_lock(path)?, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
}

/// As [`lock`], but several may have a shared one at once, an exclusive one only alone; `None`: not within the limit, or the
/// file cannot be had. An exclusive lock makes no file: where there is none, nobody has a shared one.
pub fn lock_within(path: &Path, shared: bool, limit: Duration) -> Option<Flock<File>> {
    let opened = if shared {
        path.parent().and_then(|directory| private_directory(directory).ok())?;
        open_lock(path)
    } else {
        open_existing_lock(path)
    };
    let mut file = opened.ok()?;
    let kind = if shared { FlockArg::LockSharedNonblock } else { FlockArg::LockExclusiveNonblock };
    let started = Instant::now();
    loop {
        match Flock::lock(file, kind) {
            Ok(lock) => return Some(lock),
            Err((same, Errno::EWOULDBLOCK)) if started.elapsed() < limit => file = same,
            Err(_) => return None,
        }
        thread::sleep(LOCK_ASKED);
    }
}

/// How often a lock is asked for that somebody else has.
const LOCK_ASKED: Duration = Duration::from_millis(10);

/// Whether `path` lies on a FUSE file system, as pmxcfs is.
pub fn is_fuse(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == FUSE_SUPER_MAGIC)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test reads what was written")]
mod tests {
    use super::*;

    type Writer = fn(&Path, &[u8]) -> io::Result<()>;

    #[test]
    fn only_files_are_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        std::os::unix::fs::symlink(at("fifo"), at("link")).unwrap();
        let kind = |name| fs::symlink_metadata(at(name)).unwrap().file_type();
        let writers: [Writer; 5] = [replace, replace_script, publish, replace_soon, publish_named];
        for name in ["fifo", "socket", "directory"] {
            let before = kind(name);
            for write in writers {
                let error = write(&at(name), b"new").unwrap_err();
                assert_eq!(error.to_string(), "what is there is no regular file, and is left alone");
            }
            assert_eq!(kind(name), before);
        }
        let error = publish_named(&at("link"), b"new").unwrap_err();
        assert_eq!(error.to_string(), "it is a symbolic link: name the file itself");
        assert!(kind("link").is_symlink());
        // A link in a place of our own was planted, or is of another time: what it leads to is not ours to write.
        replace(&at("link"), b"new").unwrap();
        assert_eq!(fs::read(at("link")).unwrap(), b"new");
        assert_eq!(names(directory.path()).len(), 4, "nothing is left behind");
    }
}
