//! Copies of the registry's files as this node could read them last: what counts as long as a file cannot be read.
//!
//! They lie where a boot leaves them, for root only, and are written by whoever brings the node in line, with the node
//! locked. Each is one file of the registry, byte for byte, so none is larger than pmxcfs allows. An index says by its
//! hash what each copy is of: most of them never change, and need not be read to know it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::host::files;
use crate::model::Vmid;
use crate::paths::Paths;
use crate::registry::document::{self, Document, MAX_FILE_SIZE};

/// Where the copies are.
#[derive(Debug, Clone)]
pub(super) struct LastGood {
    registry: PathBuf,
    directory: PathBuf,
}

/// What the copies lack.
#[derive(Debug, Clone, Default)]
pub struct News {
    write: Vec<(PathBuf, Vec<u8>)>,
    remove: Vec<PathBuf>,
    index: BTreeMap<String, u64>,
}

impl News {
    /// Whether the copies are what they should be.
    pub fn is_empty(&self) -> bool {
        self.write.is_empty() && self.remove.is_empty()
    }
}

impl LastGood {
    pub(super) fn new(paths: &Paths) -> Self {
        Self { registry: paths.registry(), directory: paths.last_good() }
    }

    /// How a file of the registry is called in it: `guests/100.json`.
    pub(super) fn name<'a>(&self, path: &'a Path) -> Option<&'a str> {
        path.to_str()?.strip_prefix(self.registry.to_str()?)?.strip_prefix('/')
    }

    /// The copy of a file of the registry.
    pub(super) fn copy(&self, path: &Path) -> Option<PathBuf> {
        Some(self.directory.join(self.name(path)?))
    }

    /// What the copy of a file says, if there is one that can be used, and its bytes.
    pub(super) fn read<T: Document>(&self, path: &Path) -> Option<(T, Vec<u8>)> {
        let bytes = files::read_limited(&self.copy(path)?, MAX_FILE_SIZE).ok()?;
        Some((document::parse(path, &bytes).ok()?, bytes))
    }

    /// The guests of which there is a copy.
    pub(super) fn guests(&self) -> Vec<Vmid> {
        self.names("guests").iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect()
    }

    /// How the copies in a directory are called.
    pub(super) fn names(&self, directory: &str) -> Vec<String> {
        files::names(&self.directory.join(directory))
    }

    /// What of these files, which can be used, has no copy: each by name and fingerprint; `content` has what is in it, unless its
    /// copy has the same. `known` are the fingerprints of the copies, `gone` says which of these have no file any more.
    pub(super) fn news<'a>(
        &self,
        known: BTreeMap<String, u64>,
        good: impl Iterator<Item = (&'a str, u64)>,
        content: impl Fn(&str) -> Option<&'a [u8]>,
        gone: impl Fn(&str) -> bool,
    ) -> News {
        let mut news = News::default();
        for (name, hash) in good {
            let is_known = known.get(name) == Some(&hash);
            if let Some(content) = (!is_known).then(|| content(name)).flatten() {
                news.write.push((self.directory.join(name), content.to_vec()));
            }
            news.index.insert(name.to_owned(), hash);
        }
        for (name, hash) in known {
            if news.index.contains_key(&name) {
                continue;
            }
            if gone(&name) {
                news.remove.push(self.directory.join(&name));
            } else {
                news.index.insert(name, hash);
            }
        }
        news
    }

    /// Writes what the copies lack. One that is not written is found by the next who looks.
    pub(super) fn keep(&self, news: &News) -> io::Result<()> {
        let directories: BTreeSet<&Path> = news.write.iter().filter_map(|(path, _)| path.parent()).collect();
        files::private_directory(&self.directory)?;
        for directory in directories {
            files::private_directory(directory)?;
        }
        for (path, bytes) in &news.write {
            files::replace_soon(path, bytes)?;
        }
        for path in &news.remove {
            files::remove(path)?;
        }
        let lines: String = news.index.iter().map(|(name, hash)| format!("{hash:016x} {name}\n")).collect();
        files::replace_soon(&self.directory.join("index"), lines.as_bytes())
    }

    /// The fingerprint of each file of which there is a copy.
    pub(super) fn index(&self) -> BTreeMap<String, u64> {
        let bytes = files::read_limited(&self.directory.join("index"), 8 << 20).unwrap_or_default();
        let line = |line: &str| {
            let (hash, name) = line.split_once(' ')?;
            Some((name.to_owned(), u64::from_str_radix(hash, 16).ok()?))
        };
        String::from_utf8_lossy(&bytes).lines().filter_map(line).collect()
    }
}
