//! Numbers that may be larger than programs which read JSON can hold.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The largest number in which most readers of JSON, and every one in JavaScript, lose nothing: 2^53 - 1 (RFC 8259,
/// section 6).
pub const EXACT: u64 = (1 << 53) - 1;

/// How many there are of something, such as the addresses of an IPv6 prefix. In JSON it is a number up to [`EXACT`], and a
/// string of digits beyond.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(pub u128);

impl Amount {
    /// The sum, or the largest number there is.
    #[must_use]
    pub fn plus(self, more: u128) -> Self {
        Self(self.0.saturating_add(more))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelling {
            Number(u64),
            Digits(String),
        }
        match Spelling::deserialize(deserializer)? {
            Spelling::Number(number) => Ok(Self(number.into())),
            Spelling::Digits(digits) => digits.parse().map(Self).map_err(serde::de::Error::custom),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match u64::try_from(self.0) {
            Ok(small) if small <= EXACT => serializer.serialize_u64(small),
            _ => serializer.collect_str(self),
        }
    }
}

impl schemars::JsonSchema for Amount {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_amounts_are_strings() {
        for (amount, json) in [
            (0, "0"),
            (u128::from(EXACT), "9007199254740991"),
            (1 << 53, "\"9007199254740992\""),
            (1 << 64, "\"18446744073709551616\""),
            (u128::MAX, "\"340282366920938463463374607431768211455\""),
        ] {
            assert_eq!(serde_json::json!(Amount(amount)).to_string(), json);
        }
        assert_eq!(Amount(u128::MAX).plus(1), Amount(u128::MAX));
    }
}
