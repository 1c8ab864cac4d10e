//! Values that stand in a file again and again. A hundred thousand addresses name a few pools, gateways and times, most of them
//! the same as the address before: what was made of a text last is taken for the same text.

use std::cell::RefCell;
use std::net::IpAddr;
use std::str::FromStr;
use std::thread::LocalKey;

use serde::{Deserialize, Deserializer};

/// The text that was read last, and what it says.
pub(crate) type Last<T> = RefCell<Option<(String, T)>>;

/// What a text says.
pub(crate) fn parsed<T: FromStr + Clone>(last: &'static LocalKey<Last<T>>, text: &str) -> Result<T, T::Err> {
    last.with_borrow_mut(|last| match last {
        Some((known, value)) if known == text => Ok(value.clone()),
        _ => {
            let value: T = text.parse()?;
            *last = Some((text.to_owned(), value.clone()));
            Ok(value)
        }
    })
}

/// An address of which many have the same.
#[derive(Clone, Copy)]
struct Repeated(IpAddr);

impl FromStr for Repeated {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl std::fmt::Display for Repeated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

super::string_in_json!(repeated Repeated, schemars::json_schema!({ "type": "string" }));

/// Reads an address that may be absent: for `#[serde(deserialize_with = ...)]`.
pub(crate) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    let address: Option<Repeated> = Option::deserialize(deserializer)?;
    Ok(address.map(|Repeated(address)| address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PoolName, Timestamp};

    #[test]
    fn each_text_says_what_it_says() {
        let texts = ["a", "a", "b", "a", "../x", "a", ""];
        for text in texts {
            let read: Result<PoolName, _> = serde_json::from_value(text.into());
            assert_eq!(read.ok(), text.parse().ok(), "{text}");
        }
        for text in ["2026-11-22T10:00:00Z", "2026-11-22T10:00:01Z", "2026", "2026-11-22T10:00:01Z"] {
            let read: Result<Timestamp, _> = serde_json::from_value(text.into());
            assert_eq!(read.ok(), text.parse().ok(), "{text}");
        }
        for text in ["203.0.113.1", "203.0.113.1", "fe80::1", "203.0.113.01", "fe80::1"] {
            assert_eq!(address(serde_json::json!(text)).ok().flatten(), text.parse().ok(), "{text}");
        }
        assert_eq!(address(serde_json::Value::Null).unwrap(), None);
        assert!(address(serde_json::json!(7)).unwrap_err().to_string().contains("expected a string"));
    }
}
