//! What the rules had counted before: the kernel adds up, and people ask about the last hour.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::system::tally::{Entry, Tallies};

/// The time that people ask about.
const HOUR: u64 = 3600;

/// Between two notes: so exact is the hour.
const INTERVAL: u64 = 300;

/// Counts as they were every five minutes, as far back as an hour.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Oldest first.
    notes: Vec<Note>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// Seconds since 1970.
    at: u64,
    /// Frames by reason and port.
    counts: BTreeMap<String, u64>,
}

fn key(reason: &str, entry: &Entry) -> String {
    format!("{reason} {}", entry.port)
}

impl History {
    /// Notes what is counted now, if it is time for that; says whether it was.
    pub fn note(&mut self, now: u64, tallies: &Tallies) -> bool {
        // A clock that was put back would hold it up for ever.
        self.notes.retain(|note| note.at <= now);
        if self.notes.last().is_some_and(|last| now - last.at < INTERVAL) {
            return false;
        }
        let counts = tallies.ports.iter().map(|(reason, entry)| (key(reason, entry), entry.count.packets));
        self.notes.push(Note { at: now, counts: counts.collect() });
        // Of those that are older than an hour the newest one is where the hour begins.
        let old = self.notes.iter().filter(|note| now - note.at >= HOUR).count();
        self.notes.drain(..old.saturating_sub(1));
        true
    }

    /// Frames of an entry in the last hour; `None` if nobody noted what was counted before.
    pub fn last_hour(&self, now: u64, reason: &str, entry: &Entry) -> Option<u64> {
        if entry.age.as_secs() >= HOUR {
            return Some(0);
        }
        let first = self.notes.iter().rfind(|note| now.saturating_sub(note.at) >= HOUR).or(self.notes.first())?;
        if now.saturating_sub(first.at) > HOUR + 2 * INTERVAL {
            return None;
        }
        let before = first.counts.get(&key(reason, entry)).copied().unwrap_or_default();
        let all = entry.count.packets;
        // Fewer than before: the table was made anew.
        Some(all.checked_sub(before).unwrap_or(all))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::system::tally::Count;

    fn entry(packets: u64, age: u64) -> Entry {
        let count = Count { packets, bytes: 60 * packets };
        Entry { port: "tap100i0".parse().unwrap(), mac: None, count, age: Duration::from_secs(age) }
    }

    fn tallies(packets: u64) -> Tallies {
        Tallies { ports: vec![("drop_arp", entry(packets, 0))], ..Tallies::default() }
    }

    #[test]
    fn counts_become_those_of_the_last_hour() {
        let mut history = History::default();
        let hour = |history: &History, now, packets| history.last_hour(now, "drop_arp", &entry(packets, 10));
        assert_eq!(hour(&history, 1_000_000, 5), None, "nobody took notes");
        // Ten frames a minute, looked at every 15 s for three hours.
        for at in (0..3 * HOUR).step_by(15) {
            let noted = history.note(1_000_000 + at, &tallies(at / 6));
            assert_eq!(noted, at % INTERVAL == 0, "{at}");
        }
        assert!(history.notes.len() <= 14, "{}", history.notes.len());
        let now = 1_000_000 + 3 * HOUR;
        let found = hour(&history, now, 1800).unwrap();
        assert!((600..=650).contains(&found), "{found}");
        // Another reason had nothing before; a table that was made anew has less than before.
        assert_eq!(history.last_hour(now, "drop_nd", &entry(7, 10)), Some(7));
        assert_eq!(hour(&history, now, 3), Some(3));
        assert_eq!(history.last_hour(now, "drop_arp", &entry(1800, HOUR)), Some(0), "the last frame is older");
        // Nobody took notes for a while.
        assert_eq!(hour(&history, now + 2 * HOUR, 1900), None);
        assert!(history.note(500, &tallies(1)), "the clock was put back");
    }
}
