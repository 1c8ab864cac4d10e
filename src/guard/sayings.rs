//! What to say, once: drift that was repaired, what stands in the way, trouble that comes and goes. The log hears all of
//! it, the administrator by [`Alerts`] what somebody has to know who does not read logs.
//!
//! Times are seconds since 1970.

use std::collections::{BTreeMap, BTreeSet};

use log::Level;

use super::alerts::{Alerts, Kind};
use crate::conflict::Conflict;
use crate::links::guest_of_port;
use crate::model::{IfName, Vmid};
use crate::plan::{Problem, Step};
use crate::ruleset::Table;

/// The same drift again within this time is counted, not said.
const SILENCE: u64 = 3600;

/// Meanings that are said one by one; of more the number is said.
const SHOWN: usize = 10;

/// A line for the log.
pub type Line = (Level, String);

/// What has been said so far.
#[derive(Debug, Default)]
pub struct Sayings {
    drift: BTreeMap<String, u64>,
    problems: BTreeSet<Problem>,
    trouble: Option<String>,
    /// What the kernel refused at the last look for the first time: said when it does so again, because while interfaces
    /// are made anew (`ifreload`) it refuses what it takes a moment later.
    held_problems: BTreeSet<Problem>,
    held_trouble: Option<String>,
    /// For whom it is not enough that the log has it.
    pub alerts: Alerts,
}

impl Sayings {
    /// Drift has been repaired. `by` names the program that last changed the filter, if one did.
    pub fn repaired(&mut self, drift: &BTreeSet<String>, by: Option<&str>, now: u64) -> Vec<Line> {
        self.drift.retain(|_, said| now.saturating_sub(*said) < SILENCE);
        let news: Vec<&String> = drift.iter().filter(|meaning| !self.drift.contains_key(*meaning)).collect();
        let whom = by.map(|by| format!(" (nf_tables was changed by `{by}`)")).unwrap_or_default();
        let mut lines: Vec<Line> =
            news.iter().take(SHOWN).map(|meaning| (Level::Warn, format!("repaired: {meaning}{whom}"))).collect();
        if news.len() > SHOWN {
            lines.push((Level::Warn, format!("repaired: {} more of the kind", news.len() - SHOWN)));
        }
        let kind = |meaning: &str| {
            if Step::DeclareSets(Table::Bridge).meanings().iter().any(|table| table == meaning) {
                Kind::Table
            } else {
                Kind::Drift
            }
        };
        for meaning in news.iter().take(SHOWN) {
            self.alerts.raise(kind(meaning), meaning, &format!("repaired: {meaning}{whom}"), None, now);
        }
        if news.len() > SHOWN {
            let sentence = format!("repaired: {} more differences of the kind{whom}", news.len() - SHOWN);
            self.alerts.raise(Kind::Drift, "many", &sentence, Some("`journalctl -t pve-public-ip` names them"), now);
        }
        for meaning in news {
            self.drift.insert(meaning.clone(), now);
        }
        lines
    }

    /// What stands in the way of assignments now; `refused` are those of them that the kernel has refused.
    pub fn problems(&mut self, problems: &[Problem], refused: &[Problem], clock: u64) -> Vec<Line> {
        let mut now: BTreeSet<Problem> = problems.iter().cloned().collect();
        let mut lines: Vec<Line> =
            self.held_problems.difference(&now).map(|problem| passed(&problem.sentence)).collect();
        let is_new = |problem: &&Problem| !self.problems.contains(problem) && !self.held_problems.contains(problem);
        let held: BTreeSet<Problem> = refused.iter().filter(is_new).cloned().collect();
        now.retain(|problem| !held.contains(problem));
        self.held_problems = held;
        let said = |problem: &Problem| {
            [(Level::Warn, problem.sentence.clone()), (Level::Warn, format!("hint: {}", problem.hint))]
        };
        let solved = |problem: &Problem| (Level::Info, format!("solved: {}", problem.sentence));
        lines.extend(now.difference(&self.problems).flat_map(said));
        lines.extend(self.problems.difference(&now).map(solved));
        let said = |problem: &Problem| (problem.sentence.clone(), problem.sentence.clone(), Some(problem.hint.clone()));
        self.alerts.stand(Kind::Problem, &now.iter().map(said).collect::<Vec<_>>(), clock);
        self.problems = now;
        lines
    }

    /// Two claim the same: `conflicts list` says it to whoever reads the log anyway.
    pub fn conflicts(&mut self, conflicts: &[Conflict], now: u64) {
        let said = |conflict: &Conflict| (conflict.id.clone(), conflict.sentence.clone(), Some(conflict.hint.clone()));
        self.alerts.stand(Kind::Conflict, &conflicts.iter().map(said).collect::<Vec<_>>(), now);
    }

    /// Frames dropped from each port in the last hour: who tries too much? `threshold` 0: nobody does.
    pub fn attempts(&mut self, attempts: &BTreeMap<IfName, u64>, threshold: u64, now: u64) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut so = Vec::new();
        for (port, frames) in attempts.iter().filter(|_| threshold > 0) {
            let object = port.to_string();
            let was_so = self.alerts.is_open(Kind::Attempts, &object);
            // Half of it is still too much of who has tried too much: nobody shall be called off every minute.
            if *frames < if was_so { threshold.div_ceil(2) } else { threshold } {
                continue;
            }
            let guest = guest_of_port(*port).map_or(String::new(), |vmid: Vmid| format!(" of guest {vmid}"));
            let sentence = format!("{frames} frames from {port}{guest} were dropped in the last hour");
            if !was_so {
                lines.push((Level::Warn, sentence.clone()));
            }
            so.push((object, sentence, Some("`pve-public-ip status` says why".to_owned())));
        }
        self.alerts.stand(Kind::Attempts, &so, now);
        lines
    }

    /// The kernel refused what a look needs. Said if the next look fails, too.
    pub fn refused(&mut self, text: &str, hint: Option<&str>, now: u64) -> Vec<Line> {
        if self.trouble.is_some() || self.held_trouble.is_some() {
            return self.trouble(Some((text, hint)), now);
        }
        self.held_trouble = Some(text.to_owned());
        Vec::new()
    }

    /// What keeps the service from its work now; `None`: nothing.
    pub fn trouble(&mut self, trouble: Option<(&str, Option<&str>)>, now: u64) -> Vec<Line> {
        let held = self.held_trouble.take();
        let mut lines: Vec<Line> = held.filter(|_| trouble.is_none()).map(|text| passed(&text)).into_iter().collect();
        let text = trouble.map(|(text, _)| text.to_owned());
        let so = trouble.map(|(text, hint)| (text.to_owned(), text.to_owned(), hint.map(str::to_owned)));
        self.alerts.stand(Kind::Trouble, so.as_slice(), now);
        if self.trouble == text {
            return lines;
        }
        match trouble {
            Some((text, hint)) => {
                lines.push((Level::Error, format!("{text}; what protects now stays as it is")));
                lines.extend(hint.map(|hint| (Level::Error, format!("hint: {hint}"))));
            }
            None => lines.push((Level::Info, "all is well again".to_owned())),
        }
        self.trouble = text;
        lines
    }
}

/// It was refused once, and is in order now.
fn passed(sentence: &str) -> Line {
    (Level::Info, format!("note: {sentence}; the next look was in order"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(lines: Vec<Line>) -> Vec<String> {
        lines.into_iter().map(|(level, text)| format!("{level} {text}")).collect()
    }

    #[test]
    fn drift_is_said_once() {
        let mut sayings = Sayings::default();
        let drift = BTreeSet::from(["a route is missing".to_owned()]);
        let mut at = |seconds| words(sayings.repaired(&drift, Some("nft"), seconds));
        assert_eq!(at(0), ["WARN repaired: a route is missing (nf_tables was changed by `nft`)"]);
        assert_eq!(at(10), [""; 0]);
        assert_eq!(at(3599), [""; 0]);
        assert_eq!(at(3600).len(), 1);
        let many = (10..30).map(|number| format!("meaning {number}")).collect();
        let said = words(sayings.repaired(&many, None, 0));
        assert_eq!((said.len(), said[10].as_str()), (11, "WARN repaired: 10 more of the kind"));
    }

    #[test]
    fn trouble_and_problems_come_and_go_with_a_word() {
        let mut sayings = Sayings::default();
        let trouble = Some(("/etc/pve is down", Some("start it")));
        assert_eq!(
            words(sayings.trouble(trouble, 0)),
            ["ERROR /etc/pve is down; what protects now stays as it is", "ERROR hint: start it"]
        );
        assert_eq!(words(sayings.trouble(trouble, 0)), [""; 0]);
        assert_eq!(words(sayings.trouble(None, 0)), ["INFO all is well again"]);
        assert_eq!(words(sayings.trouble(None, 0)), [""; 0]);
        let problem = Problem::of_node(crate::code!("registry-conflict"), "two hold it", "release one");
        assert_eq!(
            words(sayings.problems(std::slice::from_ref(&problem), &[], 0)),
            ["WARN two hold it", "WARN hint: release one"]
        );
        assert_eq!(words(sayings.problems(&[problem], &[], 0)), [""; 0]);
        assert_eq!(words(sayings.problems(&[], &[], 0)), ["INFO solved: two hold it"]);
    }

    #[test]
    fn who_tries_too_much_is_named_until_it_ends() {
        let mut sayings = Sayings::default();
        let port: IfName = "tap200i0".parse().unwrap();
        let mut at =
            |now, frames, threshold| words(sayings.attempts(&BTreeMap::from([(port, frames)]), threshold, now)).len();
        assert_eq!([at(0, 99, 100), at(1, 100, 0), at(2, 100, 100), at(3, 200, 100), at(4, 50, 100)], [0, 0, 1, 0, 0]);
        assert_eq!([at(5, 49, 100), at(6, 60, 100), at(7, 100, 100)], [0, 0, 1], "over, and begun anew");
        let said = words(sayings.attempts(&BTreeMap::from([("eno1".parse().unwrap(), 7)]), 7, 8));
        assert_eq!(said, ["WARN 7 frames from eno1 were dropped in the last hour"]);
    }

    #[test]
    fn the_log_and_the_administrator_hear_the_same() {
        let mut sayings = Sayings::default();
        let table = Step::DeclareSets(Table::Bridge).meanings();
        sayings.repaired(&table.iter().cloned().collect(), Some("nft"), 0);
        sayings.trouble(Some(("/etc/pve is down", Some("start it"))), 0);
        let (alerts, _) = sayings.alerts.due(20).unwrap();
        let said: Vec<_> =
            alerts.iter().map(|alert| (alert.kind, alert.sentence.as_str(), alert.hint.as_deref())).collect();
        let repaired = format!("repaired: {} (nf_tables was changed by `nft`)", table[0]);
        assert_eq!(
            said,
            [(Kind::Table, repaired.as_str(), None), (Kind::Trouble, "/etc/pve is down", Some("start it"))]
        );
        let many: BTreeSet<String> = (10..30).map(|number| format!("meaning {number}")).collect();
        sayings.repaired(&many, None, 30);
        let (alerts, _) = sayings.alerts.due(30).unwrap();
        assert_eq!(alerts.len(), SHOWN + 1);
        assert!(alerts.iter().any(|alert| alert.sentence == "repaired: 10 more differences of the kind"), "{alerts:?}");
    }
    #[test]
    fn what_the_kernel_refuses_once_is_a_note() {
        let problem = |text: &str| Problem::of_node(crate::code!("registry-conflict"), text, "look");
        let (route, other) = (problem("the kernel refused to add a route"), problem("two hold it"));
        let mut sayings = Sayings::default();
        let mut look =
            |refused: &[Problem], others: &[Problem]| words(sayings.problems(&[refused, others].concat(), refused, 0));
        let refused = std::slice::from_ref(&route);
        assert_eq!(look(refused, std::slice::from_ref(&other)), ["WARN two hold it", "WARN hint: look"]);
        let note = "INFO note: the kernel refused to add a route; the next look was in order";
        assert_eq!(look(&[], &[]), [note, "INFO solved: two hold it"]);
        assert_eq!(look(refused, &[]), [""; 0]);
        assert_eq!(look(refused, &[]), ["WARN the kernel refused to add a route", "WARN hint: look"]);
        assert_eq!(look(refused, &[]), [""; 0]);
        assert_eq!(look(&[], &[]), ["INFO solved: the kernel refused to add a route"]);
        let text = "the kernel refused to list the interfaces";
        let mut look = |fails: bool| {
            let lines = if fails { sayings.refused(text, None, 0) } else { sayings.trouble(None, 0) };
            (words(lines), sayings.alerts.is_open(Kind::Trouble, text))
        };
        assert_eq!(look(true), (vec![], false));
        assert_eq!(look(false), (vec![format!("INFO note: {text}; the next look was in order")], false));
        assert_eq!(look(true), (vec![], false));
        assert_eq!(look(true), (vec![format!("ERROR {text}; what protects now stays as it is")], true));
        assert_eq!(look(true), (vec![], true));
        assert_eq!(look(false), (vec!["INFO all is well again".to_owned()], false));
    }
}
