//! Times as people ask for them. All of them UTC.

use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use crate::model::Moment;

/// A time as people name it: a day, a moment, or so long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// From one moment up to, and without, another one.
    Fixed(Moment, Moment),
    /// So long ago.
    Ago(Duration),
}

/// Why a text is not a [`Span`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time; say 2026-03-03, 2026-03-03T10:00:00Z (both UTC), or 2h, 3d for so long ago")]
pub struct SpanError(String);

const DAY: Duration = Duration::from_secs(24 * 3600);

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        if let Ok(day) = format!("{text}T00:00:00Z").parse::<Moment>() {
            return Ok(Self::Fixed(day, day.after(DAY)));
        }
        let weak = |text| humantime::parse_rfc3339_weak(text).ok()?.duration_since(UNIX_EPOCH).ok();
        if let Some(moment) = weak(text).map(Moment) {
            return Ok(Self::Fixed(moment, moment.next()));
        }
        let ago = humantime::parse_duration(text.strip_prefix('-').unwrap_or(text)).ok();
        ago.map(Self::Ago).ok_or_else(|| SpanError(text.to_owned()))
    }
}

impl Span {
    /// The moment that is meant of times to come: a day's end, a moment, or so much later.
    pub fn ahead(self, now: Moment) -> Moment {
        match self {
            Self::Fixed(from, to) if from.after(DAY) == to => to,
            Self::Fixed(from, _) => from,
            Self::Ago(span) => now.after(span),
        }
    }

    /// From when to when, as seen from `now`; the end is not part of it.
    pub fn range(self, now: Moment) -> (Moment, Moment) {
        match self {
            Self::Fixed(from, to) => (from, to),
            Self::Ago(ago) => {
                let moment = Moment(now.0.saturating_sub(ago));
                (moment, moment.next())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_say_them() {
        let now: Moment = "2026-03-05T12:00:00Z".parse().unwrap();
        for (text, from, to) in [
            ("2026-03-03", "2026-03-03T00:00:00.000000Z", "2026-03-04T00:00:00.000000Z"),
            ("2026-03-03T10:00:00Z", "2026-03-03T10:00:00.000000Z", "2026-03-03T10:00:00.000001Z"),
            ("2026-03-03 10:00:00", "2026-03-03T10:00:00.000000Z", "2026-03-03T10:00:00.000001Z"),
            ("2026-03-03T10:00:00.25Z", "2026-03-03T10:00:00.250000Z", "2026-03-03T10:00:00.250001Z"),
            ("-2h", "2026-03-05T10:00:00.000000Z", "2026-03-05T10:00:00.000001Z"),
            ("2d", "2026-03-03T12:00:00.000000Z", "2026-03-03T12:00:00.000001Z"),
            ("9999-12-31", "9999-12-31T00:00:00.000000Z", "9999-12-31T23:59:59.000000Z"),
            ("900years", "1970-01-01T00:00:00.000000Z", "1970-01-01T00:00:00.000001Z"),
        ] {
            let (start, end) = text.parse::<Span>().unwrap().range(now);
            assert_eq!((start.to_string().as_str(), end.to_string().as_str()), (from, to), "{text}");
        }
        for text in ["", "yesterday", "2026-02-30", "2026-13-01", "03.03.2026", "2h ago", "--2h", "1969-12-31"] {
            let message = text.parse::<Span>().unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{text}` is not a time; say 2026-03-03")), "{message}");
        }
    }
}
