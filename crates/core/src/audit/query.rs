//! Finding entries, fast enough for a hundred thousand: most lines are passed over by a look at their bytes, the rest is
//! read and judged exactly.

use std::collections::BTreeMap;

use memchr::memmem::Finder;
use memchr::{memchr, memrchr};
use serde::{Deserialize, Serialize};

use super::{Entry, Event};
use crate::model::{MacAddr, Moment, NicId, PoolName, Prefix, Vmid};

/// Which entries are wanted; those that satisfy all that is said.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// About this guest.
    pub vmid: Option<Vmid>,
    /// About this address, a prefix that it lies in, or addresses of this prefix.
    pub address: Option<Prefix>,
    /// About this pool.
    pub pool: Option<PoolName>,
    /// Not before.
    pub since: Option<Moment>,
    /// Before.
    pub until: Option<Moment>,
}

/// What was found in a text.
#[derive(Debug, Default)]
pub struct Selection {
    /// The entries, in the order in which they stand there.
    pub entries: Vec<Entry>,
    /// Lines that cannot be read.
    pub unreadable: usize,
}

/// How every line of this release begins.
const HEAD: &[u8] = br#"{"version":1,"time":""#;

/// How long a time is.
const TIME: usize = "2026-03-03T10:00:00.000000Z".len();

impl Query {
    /// Those of the entries that are wanted, the last `limit` of them.
    pub fn narrowed(&self, mut entries: Vec<Entry>, limit: usize) -> Vec<Entry> {
        entries.retain(|entry| self.wants(entry));
        entries.split_off(entries.len().saturating_sub(limit))
    }

    fn wants(&self, entry: &Entry) -> bool {
        let change = &entry.change;
        self.vmid.is_none_or(|vmid| change.vmid == Some(vmid))
            && self.address.is_none_or(|wanted| change.address.is_some_and(|address| address.overlaps(wanted)))
            && self.pool.as_ref().is_none_or(|pool| change.pool.as_ref() == Some(pool))
            && self.since.is_none_or(|since| entry.time >= since)
            && self.until.is_none_or(|until| entry.time < until)
    }
}

/// The entries of a text that are wanted, the last `limit` of them.
pub fn select(text: &[u8], query: &Query, limit: usize) -> Selection {
    let mut found = Selection::default();
    let [since, until] = [query.since, query.until].map(|bound| bound.map(|moment| moment.to_string()));
    for line in candidates(text, query).into_iter().rev() {
        if found.entries.len() == limit {
            break;
        }
        if line.trim_ascii().is_empty() || is_passed_over(line, since.as_deref(), until.as_deref()) {
            continue;
        }
        match serde_json::from_slice::<Entry>(line) {
            Ok(entry) if query.wants(&entry) => found.entries.push(entry),
            Ok(_) => {}
            Err(_) => found.unreadable += 1,
        }
    }
    found.entries.reverse();
    found
}

/// Whether a line is not of the time that is asked for.
fn is_passed_over(line: &[u8], since: Option<&str>, until: Option<&str>) -> bool {
    let Some(time) = line.strip_prefix(HEAD).and_then(|rest| rest.get(..TIME)) else { return false };
    since.is_some_and(|since| time < since.as_bytes()) || until.is_some_and(|until| time >= until.as_bytes())
}

/// Lines with the words that every wanted one has.
fn candidates<'a>(text: &'a [u8], query: &Query) -> Vec<&'a [u8]> {
    if let Some(wanted) = query.address {
        // Not the text of the address: a prefix that it lies in counts, too.
        return lines_with(text, r#""address":""#, |rest| {
            let end = memchr(b'"', rest).unwrap_or(rest.len());
            let address = std::str::from_utf8(&rest[..end]).ok().and_then(|text| text.parse::<Prefix>().ok());
            address.is_none_or(|address| address.overlaps(wanted))
        });
    }
    if let Some(vmid) = query.vmid {
        let is_whole = |rest: &[u8]| rest.first().is_none_or(|byte| !byte.is_ascii_digit());
        return lines_with(text, &format!(r#""vmid":{vmid}"#), is_whole);
    }
    if let Some(pool) = &query.pool {
        return lines_with(text, &format!(r#""pool":"{pool}""#), |_| true);
    }
    text.split(|byte| *byte == b'\n').collect()
}

/// Lines with this word, if what follows it is meant.
fn lines_with<'a>(text: &'a [u8], word: &str, is_meant: impl Fn(&[u8]) -> bool) -> Vec<&'a [u8]> {
    let finder = Finder::new(word);
    let (mut lines, mut at) = (Vec::new(), 0);
    while let Some(found) = finder.find(&text[at..]).map(|offset| at + offset) {
        at = found + word.len();
        if is_meant(&text[at..]) {
            let start = memrchr(b'\n', &text[..found]).map_or(0, |newline| newline + 1);
            let end = memchr(b'\n', &text[found..]).map_or(text.len(), |offset| found + offset);
            lines.push(&text[start..end]);
            at = end;
        }
    }
    lines
}

/// A guest's hold on an address, from beginning to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Holder {
    /// The address or prefix.
    pub address: Prefix,
    /// The guest.
    pub vmid: Vmid,
    /// Its NIC.
    pub interface: NicId,
    /// The NIC's MAC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// The pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// Customer or department.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// Since when; `None`: since before the log begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Moment>,
    /// Up to when; `None`: still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
    /// Whether the end was only found, so that it may have been earlier than `until`.
    pub until_at_latest: bool,
}

impl Holder {
    /// Whether the hold and the time have a moment in common.
    pub fn is_of(&self, (from, to): (Moment, Moment)) -> bool {
        self.from.is_none_or(|began| began < to) && self.until.is_none_or(|ended| ended > from)
    }
}

/// Who held what, from entries in the order of time.
pub fn holders(entries: &[Entry]) -> Vec<Holder> {
    let mut open: BTreeMap<(Prefix, Vmid, NicId), Holder> = BTreeMap::new();
    let mut ended = Vec::new();
    for Entry { time, change, found, .. } in entries {
        let (Some(address), Some(vmid), Some(interface)) = (change.address, change.vmid, change.interface) else {
            continue;
        };
        let key = (address, vmid, interface);
        let stored = change.after.as_ref().or(change.before.as_ref());
        let text = |name: &str| stored.and_then(|value| value.get(name)).and_then(|value| value.as_str());
        // The registry knows it, also of what was only found, or of what was given before the log began.
        let assigned_at = text("assigned_at").and_then(|time| time.parse::<Moment>().ok());
        let holder = |from| Holder {
            address,
            vmid,
            interface,
            mac: change.mac,
            pool: change.pool.clone(),
            organization: text("organization").map(str::to_owned),
            from,
            until: None,
            until_at_latest: false,
        };
        match change.event {
            Event::Assigned => {
                let from = if *found { assigned_at.or(Some(*time)) } else { Some(*time) };
                open.entry(key).or_insert_with(|| holder(from));
            }
            Event::Released => {
                let known = open.remove(&key).unwrap_or_else(|| holder(assigned_at));
                ended.push(Holder { until: Some(*time), until_at_latest: *found, ..known });
            }
            _ => {}
        }
    }
    ended.extend(open.into_values());
    ended.sort_by_key(|holder| (holder.from, holder.until.is_none(), holder.until));
    ended
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::audit::Change;

    fn moment(text: &str) -> Moment {
        text.parse().unwrap()
    }

    fn entry(time: &str, event: Event, vmid: u32, address: &str) -> Entry {
        let change = Change {
            vmid: Some(vmid.to_string().parse().unwrap()),
            interface: Some(NicId::FIRST),
            address: Some(address.parse().unwrap()),
            pool: Some("a".parse().unwrap()),
            after: Some(json!({"assigned_at": "2026-01-01T00:00:00Z", "organization": "org"})),
            ..Change::new(event)
        };
        let node = "n1".parse().unwrap();
        Entry { version: 1, time: moment(time), node, change, found: false, author: super::super::Author::default() }
    }

    fn text(entries: &[Entry]) -> String {
        entries.iter().map(Entry::line).collect()
    }

    fn found(text: &str, query: &Query) -> Vec<String> {
        let selection = select(text.as_bytes(), query, usize::MAX);
        assert_eq!(selection.unreadable, 0);
        selection.entries.iter().map(|entry| entry.change.address.unwrap().to_string()).collect()
    }

    #[test]
    fn an_address_is_found_exactly() {
        let all = ["203.0.113.1", "203.0.113.10", "203.0.113.8/29", "203.0.113.16/28", "2001:db8::1", "2001:db8::/64"];
        let text = text(&all.map(|address| entry("2026-03-01T10:00:00Z", Event::Assigned, 100, address)));
        let of = |address: &str| found(&text, &Query { address: Some(address.parse().unwrap()), ..Query::default() });
        assert_eq!(of("203.0.113.1"), ["203.0.113.1"]);
        assert_eq!(of("203.0.113.10"), ["203.0.113.10", "203.0.113.8/29"]);
        assert_eq!(of("203.0.113.0/24").len(), 4);
        assert_eq!(of("2001:0DB8:0:0:0:0:0:1"), ["2001:db8::1", "2001:db8::/64"]);
        assert_eq!(of("198.51.100.1"), [""; 0]);
    }

    #[test]
    fn guest_pool_and_time_are_found_exactly() {
        let lines = [
            entry("2026-03-01T10:00:00Z", Event::Assigned, 1001, "203.0.113.1"),
            entry("2026-03-01T10:00:00.5Z", Event::Assigned, 100, "203.0.113.2"),
            entry("2026-03-02T10:00:00Z", Event::Released, 100, "203.0.113.2"),
            entry("2026-03-03T10:00:00Z", Event::Assigned, 1000, "203.0.113.3"),
        ];
        let text = text(&lines);
        let of = |query: Query| found(&text, &query).len();
        assert_eq!(of(Query { vmid: lines[1].change.vmid, ..Query::default() }), 2);
        assert_eq!(of(Query { pool: Some("a".parse().unwrap()), ..Query::default() }), 4);
        assert_eq!(of(Query { pool: Some("aa".parse().unwrap()), ..Query::default() }), 0);
        let (since, until) = (Some(moment("2026-03-01T10:00:00.5Z")), Some(moment("2026-03-03T10:00:00Z")));
        assert_eq!(of(Query { since, until, ..Query::default() }), 2);
        assert_eq!(of(Query { since, ..Query::default() }), 3);
        let last = select(text.as_bytes(), &Query::default(), 1).entries;
        assert_eq!(last, lines[3..]);
    }

    #[test]
    fn what_is_torn_is_counted_and_the_rest_is_found() {
        let line = entry("2026-03-01T10:00:00Z", Event::Assigned, 100, "203.0.113.1").line();
        let torn = format!("{}\n{line}\n{}", &line[..80], &line[..line.len() / 2]);
        let selection = select(torn.as_bytes(), &Query::default(), usize::MAX);
        assert_eq!((selection.entries.len(), selection.unreadable), (1, 2));
    }

    #[test]
    fn a_later_release_may_say_more() {
        let line =
            r#"{"version":1,"time":"2026-03-01T10:00:00.000000Z","node":"n1","event":"sold","vmid":100,"price":5}"#;
        let entries = select(line.as_bytes(), &Query::default(), usize::MAX).entries;
        assert_eq!(entries[0].change.event, Event::Other);
    }

    #[test]
    fn an_address_goes_from_owner_to_owner() {
        let mut late = entry("2026-03-04T10:00:00Z", Event::Released, 101, "203.0.113.2");
        late.found = true;
        let log = [
            entry("2026-02-01T10:00:00Z", Event::Released, 999, "203.0.113.2"),
            entry("2026-03-01T10:00:00Z", Event::Assigned, 100, "203.0.113.2"),
            entry("2026-03-02T10:00:00Z", Event::Released, 100, "203.0.113.2"),
            entry("2026-03-02T11:00:00Z", Event::Assigned, 101, "203.0.113.2"),
            entry("2026-03-02T12:00:00Z", Event::Assigned, 101, "203.0.113.2"),
            late,
            entry("2026-03-05T10:00:00Z", Event::Assigned, 102, "203.0.113.2"),
        ];
        let all = holders(&log);
        let at = |from: &str, to: &str| -> Vec<String> {
            let of = all.iter().filter(|holder| holder.is_of((moment(from), moment(to))));
            of.map(|holder| format!("{}{}", holder.vmid, if holder.until_at_latest { "?" } else { "" })).collect()
        };
        assert_eq!(at("2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z"), ["100", "101?"]);
        assert_eq!(at("2026-03-02T10:30:00Z", "2026-03-02T10:30:00.000001Z"), [""; 0]);
        assert_eq!(at("2026-03-02T10:00:00Z", "2026-03-02T10:00:00.000001Z"), [""; 0], "the end is not part of it");
        assert_eq!(at("2026-03-02T11:00:00Z", "2026-03-02T11:00:00.000001Z"), ["101?"]);
        assert_eq!(at("2026-06-01T00:00:00Z", "2026-06-02T00:00:00Z"), ["102"]);
        assert_eq!(at("2026-01-15T00:00:00Z", "2026-01-16T00:00:00Z"), ["999"], "by what the registry knew");
        assert_eq!(at("2025-12-01T00:00:00Z", "2025-12-02T00:00:00Z"), [""; 0]);
    }
}
