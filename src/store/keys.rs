//! `priv/public-ip/keys.json`: who may call the API. Only hashes are in it: a secret is shown once, when it is made.

use std::io;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::host::files;
use crate::reply::Key;

/// The format that this release writes.
const VERSION: u64 = 1;

/// No file of keys is larger, in bytes.
const LIMIT: usize = 512 << 10;

/// The file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    version: u64,
    keys: Vec<Key>,
}

impl Store {
    /// The keys, by name. A file that cannot be used is an error: no key counts then.
    pub fn keys(&self) -> Result<Vec<Key>, StoreError> {
        let path = self.paths.keys_file();
        let refused = |source: io::Error| StoreError::Keys { path: path.clone(), source };
        let bytes = match files::read_limited(&path, LIMIT) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(refused(error)),
        };
        let invalid = |error: serde_json::Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let file: KeysFile = serde_json::from_slice(&bytes).map_err(|error| refused(invalid(error)))?;
        if file.version != VERSION {
            let reason = format!("it has version {}, and this release reads version {VERSION}", file.version);
            return Err(refused(io::Error::new(io::ErrorKind::InvalidData, reason)));
        }
        Ok(file.keys)
    }

    /// Changes them under the lock of the registry.
    pub fn change_keys<T, E: From<StoreError>>(
        &self,
        change: impl FnOnce(&mut Vec<Key>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.locked(|| {
            let mut keys = self.keys()?;
            let outcome = change(&mut keys)?;
            keys.sort_by(|one, two| one.name.cmp(&two.name));
            let path = self.paths.keys_file();
            let refused = |source: io::Error| StoreError::Save { path: path.clone(), source };
            if let Some(directory) = path.parent() {
                files::directories(directory).map_err(refused)?;
            }
            let rendered = serde_json::to_vec(&KeysFile { version: VERSION, keys });
            let mut bytes = rendered.map_err(|source| StoreError::Render { path: path.clone(), source })?;
            bytes.push(b'\n');
            files::replace_as(&path, &bytes, self.node.as_str()).map_err(refused)?;
            Ok(outcome)
        })
    }
}
