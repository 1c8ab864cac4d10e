//! What the administrator is written about: once for each thing until it is over or a day has passed, and never many
//! times an hour.
//!
//! Times are seconds since 1970, because what was said outlives the guard.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::text::escaped;

/// The same is said again after this time.
const DAY: u64 = 86_400;

/// What may pass by itself is not said before it has lasted for so long.
const PATIENCE: u64 = 10;

/// Messages in an hour; what comes on top waits for the next one.
const LIMIT: usize = 10;
const HOUR: u64 = 3600;

/// Alerts in one message; of more the number is said.
const SHOWN: usize = 50;

/// Things that are remembered.
const KNOWN: usize = 4096;

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The filter was gone.
    Table,
    /// Something else in the kernel was not as it was left.
    Drift,
    /// Something stands in the way of an assignment.
    Problem,
    /// Something keeps the guard from its work.
    Trouble,
    /// Two claim the same.
    Conflict,
    /// A guest tries what it may not.
    Attempts,
}

impl Kind {
    /// Whether it lasts until it is over; the others are repaired by the time they are said.
    fn lasts(self) -> bool {
        matches!(self, Self::Problem | Self::Trouble | Self::Conflict | Self::Attempts)
    }

    fn patience(self) -> u64 {
        if matches!(self, Self::Problem | Self::Trouble | Self::Conflict) { PATIENCE } else { 0 }
    }
}

/// One thing to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// What it is about.
    pub kind: Kind,
    /// By which it is known again.
    pub object: String,
    /// In words.
    pub sentence: String,
    /// What to do.
    pub hint: Option<String>,
    /// It is over.
    pub recovered: bool,
    /// Since when it is so.
    pub at: u64,
}

/// What is sent, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Format version, 1.
    pub version: u64,
    /// The node.
    pub node: String,
    /// What there is to say.
    pub alerts: Vec<Alert>,
    /// How many more there were.
    pub more: usize,
    /// To whom it is mailed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail: Option<String>,
    /// The program that gets it, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<PathBuf>,
}

/// What has been said, and what waits to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alerts {
    open: BTreeMap<String, Open>,
    /// When the last messages were sent.
    sent: Vec<u64>,
    /// What waits for the next message besides what is open and was not said.
    held: Vec<Alert>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Open {
    alert: Alert,
    /// When it was said; nothing: not yet.
    said: Option<u64>,
}

fn key(kind: Kind, object: &str) -> String {
    format!("{kind:?} {object}")
}

impl Alerts {
    /// Something has happened, or is so.
    pub fn raise(&mut self, kind: Kind, object: &str, sentence: &str, hint: Option<&str>, now: u64) {
        let key = key(kind, object);
        let is_known = self.open.get(&key).is_some_and(|open| open.said.is_none_or(|said| now < said + DAY));
        if is_known || self.open.len() >= KNOWN {
            return;
        }
        let (object, sentence, hint) = (object.to_owned(), sentence.to_owned(), hint.map(str::to_owned));
        let alert = Alert { kind, object, sentence, hint, recovered: false, at: now };
        self.open.insert(key, Open { alert, said: None });
    }

    /// All things of a kind that are so now, each as object, sentence and hint; what else was so is over.
    pub fn stand(&mut self, kind: Kind, now_so: &[(String, String, Option<String>)], now: u64) {
        let objects: BTreeSet<&str> = now_so.iter().map(|(object, ..)| object.as_str()).collect();
        let is_over = |open: &Open| open.alert.kind == kind && !objects.contains(open.alert.object.as_str());
        let over: Vec<String> =
            self.open.iter().filter(|(_, open)| is_over(open)).map(|(key, _)| key.clone()).collect();
        for open in over.into_iter().filter_map(|key| self.open.remove(&key)) {
            // What nobody has heard of need not be called off.
            if open.said.is_some() && self.held.len() < KNOWN {
                self.held.push(Alert { recovered: true, hint: None, at: now, ..open.alert });
            }
        }
        for (object, sentence, hint) in now_so {
            self.raise(kind, object, sentence, hint.as_deref(), now);
        }
    }

    /// Whether it has been raised and is not over.
    pub fn is_open(&self, kind: Kind, object: &str) -> bool {
        self.open.contains_key(&key(kind, object))
    }

    /// What is to be sent now, with the number of what does not fit.
    pub fn due(&mut self, now: u64) -> Option<(Vec<Alert>, usize)> {
        self.sent.retain(|sent| *sent <= now && now - sent < HOUR);
        self.open.retain(|_, open| open.alert.kind.lasts() || open.said.is_none_or(|said| now < said + DAY));
        let is_due = |open: &Open| open.said.is_none() && now >= open.alert.at + open.alert.kind.patience();
        let mut due: Vec<&mut Open> = self.open.values_mut().filter(|open| is_due(open)).collect();
        if self.sent.len() >= LIMIT || due.is_empty() && self.held.is_empty() {
            return None;
        }
        self.sent.push(now);
        let mut alerts: Vec<Alert> = due.iter_mut().map(|open| open.alert.clone()).collect();
        for open in due {
            open.said = Some(now);
        }
        // The worst first, in the order in which it happened.
        alerts.sort_by_key(|alert| (alert.kind, alert.at));
        alerts.append(&mut self.held);
        let more = alerts.len().saturating_sub(SHOWN);
        alerts.truncate(SHOWN);
        Some((alerts, more))
    }
}

impl Message {
    /// What the administrator reads first.
    pub fn subject(&self) -> String {
        let first = self.alerts.first();
        let over = if first.is_some_and(|alert| alert.recovered) { "over: " } else { "" };
        let sentence: String =
            first.map(|alert| escaped(&alert.sentence)).unwrap_or_default().chars().take(120).collect();
        let others = match self.alerts.len() + self.more {
            0 | 1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        format!("pve-public-ip on {}: {over}{sentence}{others}", self.node)
    }

    /// All of it as a mail with headers. A header has no other letters than ASCII ones.
    pub fn mail(&self, to: &str) -> String {
        let subject: String = self.subject().chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
        let mut text = format!(
            "To: {to}\nSubject: {subject}\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\n\
             Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n\n"
        );
        for alert in &self.alerts {
            let over = if alert.recovered { "over: " } else { "" };
            text += &format!("{over}{}\n", escaped(&alert.sentence));
            if let Some(hint) = &alert.hint {
                text += &format!("  hint: {}\n", escaped(hint));
            }
        }
        if self.more > 0 {
            text += &format!("and {} more\n", self.more);
        }
        text += &format!(
            "\nThis is from the guard of pve-public-ip on node {}; `pve-public-ip status` there shows how it is now, and\n\
             `journalctl -t pve-public-ip` what was said before. The same is not said again before it is over, or for a day.\n",
            self.node
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentences(due: Option<(Vec<Alert>, usize)>) -> Vec<String> {
        let over = |alert: &Alert| if alert.recovered { "over: " } else { "" };
        due.map(|(alerts, _)| alerts.iter().map(|alert| format!("{}{}", over(alert), alert.sentence)).collect())
            .unwrap_or_default()
    }

    fn so(object: &str) -> Vec<(String, String, Option<String>)> {
        vec![(object.to_owned(), format!("{object} is wrong"), Some("correct it".to_owned()))]
    }

    #[test]
    fn one_thing_is_said_once_a_day() {
        let mut alerts = Alerts::default();
        let mut at = |now| {
            alerts.raise(Kind::Drift, "a route", "a route was missing", None, now);
            sentences(alerts.due(now))
        };
        assert_eq!(at(1000), ["a route was missing"]);
        assert_eq!(at(1001), [""; 0]);
        assert_eq!(at(1000 + DAY - 1), [""; 0]);
        assert_eq!(at(1000 + DAY), ["a route was missing"]);
    }

    #[test]
    fn what_lasts_is_said_after_a_moment_and_called_off() {
        let mut alerts = Alerts::default();
        let mut at = |now, objects: &[(String, String, Option<String>)]| {
            alerts.stand(Kind::Problem, objects, now);
            sentences(alerts.due(now))
        };
        assert_eq!(at(1000, &so("a")), [""; 0]);
        assert_eq!(at(1005, &[]), [""; 0], "it was over before anybody heard of it");
        assert_eq!(at(1010, &so("a")), [""; 0]);
        assert_eq!(at(1020, &so("a")), ["a is wrong"]);
        assert_eq!(at(1030, &so("a")), [""; 0]);
        assert_eq!(at(1020 + DAY, &so("a")), [""; 0], "as long again as the first time");
        assert_eq!(at(1030 + DAY, &so("a")), ["a is wrong"]);
        assert_eq!(at(1040 + DAY, &[so("a"), so("b")].concat()), [""; 0]);
        assert_eq!(at(1050 + DAY, &so("b")), ["b is wrong", "over: a is wrong"]);
        assert_eq!(at(1060 + DAY, &[]), ["over: b is wrong"]);
        // Another kind is not called off with it.
        alerts.stand(Kind::Attempts, &so("tap100i0"), 2000);
        alerts.stand(Kind::Problem, &[], 2000);
        assert!(alerts.is_open(Kind::Attempts, "tap100i0"));
        assert_eq!(sentences(alerts.due(2000)), ["tap100i0 is wrong"]);
    }

    #[test]
    fn messages_are_few_and_short() {
        let mut alerts = Alerts::default();
        let mut messages = 0;
        for second in 0..HOUR {
            alerts.raise(Kind::Drift, &second.to_string(), "something else", None, 1000 + second);
            messages += usize::from(alerts.due(1000 + second).is_some());
        }
        assert_eq!(messages, LIMIT);
        let (said, more) = alerts.due(1000 + HOUR).unwrap();
        assert_eq!((said.len(), said.len() + more), (SHOWN, 3600 - LIMIT));
        for number in 0..10 * KNOWN {
            alerts.raise(Kind::Drift, &format!("other {number}"), "something else", None, 1000 + HOUR);
        }
        assert!(alerts.open.len() <= KNOWN, "{}", alerts.open.len());
        assert_eq!(alerts.due(1000 + 3 * DAY).map(|(_, more)| more + SHOWN), Some(KNOWN - 3600), "the rest");
        assert_eq!(alerts.due(1000 + 5 * DAY), None);
        assert!(alerts.open.is_empty(), "what is over is forgotten");
    }

    #[test]
    fn a_mail_has_no_more_headers_than_it_is_given() {
        let alert = |sentence: &str, recovered: bool| Alert {
            kind: Kind::Problem,
            object: "o".to_owned(),
            sentence: sentence.to_owned(),
            hint: (!recovered).then(|| "do\nthis".to_owned()),
            recovered,
            at: 0,
        };
        let alerts = vec![alert("guest 100 is\r\nBcc: all@example.org böse", false), alert("x", true)];
        let message = Message { version: 1, node: "pve1".to_owned(), alerts, more: 3, mail: None, exec: None };
        let mail = message.mail("root");
        let (head, body) = mail.split_once("\n\n").unwrap();
        assert_eq!(
            head.lines().collect::<Vec<_>>(),
            [
                "To: root",
                "Subject: pve-public-ip on pve1: guest 100 is\\r\\nBcc: all@example.org b?se (and 4 more)",
                "Auto-Submitted: auto-generated",
                "MIME-Version: 1.0",
                "Content-Type: text/plain; charset=UTF-8",
                "Content-Transfer-Encoding: 8bit",
            ]
        );
        assert!(
            body.starts_with("guest 100 is\\r\\nBcc: all@example.org böse\n  hint: do\\nthis\nover: x\nand 3 more\n\n"),
            "{body}"
        );
    }
}
