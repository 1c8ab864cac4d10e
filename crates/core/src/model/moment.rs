//! Points in time, and lengths of it.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use schemars::json_schema;

/// A point in time, since 1970. Written with microseconds, so that texts sort as the times do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Duration);

impl Moment {
    /// To the second, which is enough for people.
    pub fn to_second(self) -> String {
        humantime::format_rfc3339_seconds(UNIX_EPOCH + self.0.min(LAST)).to_string()
    }

    /// The second in which it is.
    #[must_use]
    pub fn whole_second(self) -> Self {
        Self(Duration::from_secs(self.0.as_secs()))
    }

    /// The moment that is so much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }

    /// The first moment that is later.
    #[must_use]
    pub fn next(self) -> Self {
        self.after(Duration::from_micros(1))
    }
}

/// The last second that the format can say.
const LAST: Duration = Duration::from_secs(253_402_300_799);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_micros(UNIX_EPOCH + self.0.min(LAST)).fmt(f)
    }
}

impl FromStr for Moment {
    type Err = humantime::TimestampError;

    fn from_str(text: &str) -> Result<Self, humantime::TimestampError> {
        let time = humantime::parse_rfc3339(text)?;
        Ok(Self(time.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }
}

super::string_in_json!(Moment, json_schema!({ "type": "string", "format": "date-time" }));

/// A point in time in a file that people read: without a fraction if it is a whole second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub Moment);

/// Why a text is not a [`Timestamp`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a UTC time such as 2026-11-22T10:00:00Z")]
pub struct TimestampError(String);

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        text.parse().map(Self).map_err(|_| TimestampError(text.to_owned()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.0.subsec_nanos() == 0 { f.write_str(&self.0.to_second()) } else { self.0.fmt(f) }
    }
}

super::string_in_json!(repeated Timestamp, json_schema!({ "type": "string" }));

/// For how long an address that was released is not handed out by itself: `1h`, `30m`, `0s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoolDown(pub Duration);

impl Default for CoolDown {
    /// Neighbours, resolvers and peers of the guest that had the address have forgotten it by then, as a rule.
    fn default() -> Self {
        Self(Duration::from_secs(3600))
    }
}

/// Why a text is not a [`CoolDown`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time such as 30m, 1h, 2days or 0 (off)")]
pub struct CoolDownError(String);

impl FromStr for CoolDown {
    type Err = CoolDownError;

    fn from_str(text: &str) -> Result<Self, CoolDownError> {
        if ["0", "off"].contains(&text) {
            return Ok(Self(Duration::ZERO));
        }
        humantime::parse_duration(text).map(Self).map_err(|_| CoolDownError(text.to_owned()))
    }
}

impl fmt::Display for CoolDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

super::string_in_json!(
    CoolDown,
    json_schema!({ "type": "string", "description": "a time such as 30m, 1h, 2days; 0s: off" })
);
