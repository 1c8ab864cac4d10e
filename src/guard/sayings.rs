//! What to say, once: drift that was repaired, what stands in the way, trouble that comes and goes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use log::Level;

use crate::plan::{NetState, Problem, Step, diff};
use crate::ruleset::Table;

/// The same drift again within this time is counted, not said.
const SILENCE: Duration = Duration::from_secs(3600);

/// Meanings that are said one by one; of more the number is said.
const SHOWN: usize = 10;

/// A line for the log.
pub type Line = (Level, String);

/// What has been said so far.
#[derive(Debug, Default)]
pub struct Sayings {
    drift: BTreeMap<String, Duration>,
    problems: BTreeSet<Problem>,
    trouble: Option<String>,
}

/// The part of the steps that undoes what somebody else did, in words: the kernel was not as it was left.
///
/// The rest of the steps follows a change of what is wanted. Of a table that is missing that is all there is to say.
pub fn drift(steps: &[Step], before: &NetState, desired: &NetState) -> BTreeSet<String> {
    if let Some(table) = steps.iter().find(|step| **step == Step::DeclareSets(Table::Bridge)) {
        return table.meanings().into_iter().collect();
    }
    let follows: BTreeSet<String> = diff(desired, before).iter().flat_map(Step::meanings).collect();
    steps.iter().flat_map(Step::meanings).filter(|meaning| !follows.contains(meaning)).collect()
}

impl Sayings {
    /// Drift has been repaired. `by` names the program that last changed the filter, if one did.
    pub fn repaired(&mut self, drift: &BTreeSet<String>, by: Option<&str>, now: Duration) -> Vec<Line> {
        self.drift.retain(|_, said| now.saturating_sub(*said) < SILENCE);
        let news: Vec<&String> = drift.iter().filter(|meaning| !self.drift.contains_key(*meaning)).collect();
        let whom = by.map(|by| format!(" (nf_tables was changed by `{by}`)")).unwrap_or_default();
        let mut lines: Vec<Line> =
            news.iter().take(SHOWN).map(|meaning| (Level::Warn, format!("repaired: {meaning}{whom}"))).collect();
        if news.len() > SHOWN {
            lines.push((Level::Warn, format!("repaired: {} more of the kind", news.len() - SHOWN)));
        }
        for meaning in news {
            self.drift.insert(meaning.clone(), now);
        }
        lines
    }

    /// What stands in the way of assignments now.
    pub fn problems(&mut self, problems: &[Problem]) -> Vec<Line> {
        let now: BTreeSet<Problem> = problems.iter().cloned().collect();
        let said = |problem: &Problem| {
            [(Level::Warn, problem.sentence.clone()), (Level::Warn, format!("hint: {}", problem.hint))]
        };
        let solved = |problem: &Problem| (Level::Info, format!("solved: {}", problem.sentence));
        let mut lines: Vec<Line> = now.difference(&self.problems).flat_map(said).collect();
        lines.extend(self.problems.difference(&now).map(solved));
        self.problems = now;
        lines
    }

    /// What keeps the service from its work now; `None`: nothing.
    pub fn trouble(&mut self, trouble: Option<(&str, Option<&str>)>) -> Vec<Line> {
        let text = trouble.map(|(text, _)| text.to_owned());
        if self.trouble == text {
            return Vec::new();
        }
        let mut lines = Vec::new();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Rules;
    use crate::ruleset::{Element, SetId};

    fn words(lines: Vec<Line>) -> Vec<String> {
        lines.into_iter().map(|(level, text)| format!("{level} {text}")).collect()
    }

    #[test]
    fn what_follows_a_change_is_no_drift() {
        let port = |name: &str| Element::port(SetId::Ports, name.parse().unwrap());
        let state = |elements: &[Element]| NetState {
            rules: Rules::Loaded,
            elements: elements.iter().cloned().collect(),
            ..NetState::default()
        };
        let (one, two) = (port("tap100i0"), port("tap101i0"));
        let before = state(std::slice::from_ref(&one));
        let desired = state(&[one.clone(), two.clone()]);
        let found = |observed: &NetState| drift(&diff(&desired, observed), &before, &desired);
        assert_eq!(found(&before), BTreeSet::new());
        let lost: Vec<String> = found(&state(&[two])).into_iter().collect();
        assert_eq!(lost, [format!("missing {}", one.meaning(true))]);
    }

    #[test]
    fn drift_is_said_once() {
        let mut sayings = Sayings::default();
        let drift = BTreeSet::from(["a route is missing".to_owned()]);
        let mut at = |seconds| words(sayings.repaired(&drift, Some("nft"), Duration::from_secs(seconds)));
        assert_eq!(at(0), ["WARN repaired: a route is missing (nf_tables was changed by `nft`)"]);
        assert_eq!(at(10), [""; 0]);
        assert_eq!(at(3599), [""; 0]);
        assert_eq!(at(3600).len(), 1);
        let many = (10..30).map(|number| format!("meaning {number}")).collect();
        let said = words(sayings.repaired(&many, None, Duration::from_secs(0)));
        assert_eq!((said.len(), said[10].as_str()), (11, "WARN repaired: 10 more of the kind"));
    }

    #[test]
    fn trouble_and_problems_come_and_go_with_a_word() {
        let mut sayings = Sayings::default();
        let trouble = Some(("/etc/pve is down", Some("start it")));
        assert_eq!(
            words(sayings.trouble(trouble)),
            ["ERROR /etc/pve is down; what protects now stays as it is", "ERROR hint: start it"]
        );
        assert_eq!(words(sayings.trouble(trouble)), [""; 0]);
        assert_eq!(words(sayings.trouble(None)), ["INFO all is well again"]);
        assert_eq!(words(sayings.trouble(None)), [""; 0]);
        let problem = Problem { vmid: None, sentence: "two hold it".to_owned(), hint: "release one".to_owned() };
        assert_eq!(
            words(sayings.problems(std::slice::from_ref(&problem))),
            ["WARN two hold it", "WARN hint: release one"]
        );
        assert_eq!(words(sayings.problems(&[problem])), [""; 0]);
        assert_eq!(words(sayings.problems(&[])), ["INFO solved: two hold it"]);
    }
}
