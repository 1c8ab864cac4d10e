//! Names of interfaces, pools and nodes.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::json_schema;

/// Name of a network interface: 1 to 15 bytes, as the kernel allows it.
///
/// Source: Linux `net/core/dev.c`, `dev_valid_name`; narrowed to printable ASCII without quotes, because the name
/// is printed in nft syntax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName {
    /// Zero-padded, as nftables keys have it.
    bytes: [u8; 16],
}

/// Why a text is not an [`IfName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IfNameError {
    /// The kernel's limit.
    #[error("interface name `{0}` is longer than 15 characters")]
    TooLong(String),
    /// A character that no interface name on Proxmox has.
    #[error("interface name `{0}` has a character other than letters, digits, `_`, `-` and `.`, or is empty")]
    Malformed(String),
}

impl IfName {
    /// The key that nftables uses for `iifname`: 16 bytes, zero-padded.
    pub fn padded(&self) -> [u8; 16] {
        self.bytes
    }

    /// The name without padding.
    pub fn as_str(&self) -> &str {
        let end = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(16);
        std::str::from_utf8(&self.bytes[..end]).unwrap_or("?")
    }

    /// For names that this program composes of numbers: they are valid by construction.
    ///
    /// # Panics
    ///
    /// If the composed name is not valid, which is a bug.
    pub fn literal(text: &str) -> Self {
        match text.parse() {
            Ok(name) => name,
            Err(error) => unreachable!("{error}"),
        }
    }
}

impl FromStr for IfName {
    type Err = IfNameError;

    fn from_str(text: &str) -> Result<Self, IfNameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if text.is_empty() || text == "." || text == ".." || !text.bytes().all(allowed) {
            return Err(IfNameError::Malformed(text.to_owned()));
        }
        if text.len() > 15 {
            return Err(IfNameError::TooLong(text.to_owned()));
        }
        let mut bytes = [0; 16];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes })
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

super::string_in_json!(IfName, json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9_.-]{1,15}$" }));

/// Names that are kept for the next who reads the same: a hundred thousand addresses name a few pools.
static NAMES: Mutex<BTreeSet<Arc<str>>> = Mutex::new(BTreeSet::new());

/// More names than any cluster has nodes and pools; whoever makes them up gets each by itself.
const KEPT_NAMES: usize = 4096;

/// One allocation for all that have this name.
fn shared(text: &str) -> Arc<str> {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(text) {
        return Arc::clone(known);
    }
    let name: Arc<str> = text.into();
    if names.len() < KEPT_NAMES {
        names.insert(Arc::clone(&name));
    }
    name
}

/// Declares a name type with one character rule.
macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $error:ident, $what:literal, $max:literal, $first:expr, $rest:expr, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        #[doc = concat!("Why a text is not a [`", stringify!($type), "`].")]
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[error("`{0}` is not a {what} (it must match {pattern})", what = $what, pattern = $pattern)]
        pub struct $error(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                let valid = text.len() <= $max
                    && text.bytes().next().is_some_and($first)
                    && text.bytes().all($rest);
                if valid { Ok(Self(shared(text))) } else { Err($error(text.to_owned())) }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        super::string_in_json!(repeated $type, json_schema!({ "type": "string", "pattern": $pattern }));
    };
}

name_type! {
    /// Name of a pool, such as `ovh-rbx`.
    PoolName, PoolNameError, "pool name", 64,
    |byte: u8| byte.is_ascii_alphanumeric(),
    |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'),
    "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
}

name_type! {
    /// Name of a group of guests that hold an address in turn, such as `web`.
    GroupName, GroupNameError, "group name", 64,
    |byte: u8| byte.is_ascii_alphanumeric(),
    |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'),
    "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
}

name_type! {
    /// Name of a Proxmox VE node: a host name without dots.
    NodeName, NodeNameError, "node name", 63,
    |byte: u8| byte.is_ascii_alphanumeric(),
    |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-',
    "^[A-Za-z0-9][A-Za-z0-9-]{0,62}$"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_bad_names() {
        for (text, reason) in [
            ("abcdefghijklmnop", "is longer than 15"),
            ("", "or is empty"),
            ("vm/br", "has a character other"),
            ("vm\"br", "has a character other"),
            ("..", "has a character other"),
        ] {
            let message = text.parse::<IfName>().unwrap_err().to_string();
            assert!(message.contains(reason), "{text:?} gave {message:?}");
        }
        let message = "../etc".parse::<PoolName>().unwrap_err().to_string();
        assert_eq!(message, "`../etc` is not a pool name (it must match ^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$)");
        assert!("n1.example".parse::<NodeName>().unwrap_err().to_string().contains("is not a node name"));
    }
}
