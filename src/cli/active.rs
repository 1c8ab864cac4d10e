//! What `verify --active` says.

use super::output::table;
use crate::selftest::live::{self, Outcome};

/// Addresses and MACs that are named; of more the number is said.
const SHOWN: usize = 10;

pub(super) fn text(outcomes: &[Outcome]) -> String {
    if outcomes.is_empty() {
        return "attacked: nothing, because nobody is on a bridge of a pool\n".to_owned();
    }
    let mut text = String::new();
    let mut rows = Vec::new();
    for Outcome { bridge, sent, passed, .. } in outcomes {
        for (group, sent) in sent {
            let through = passed.iter().filter(|passed| passed.group == *group).count();
            let counts = [*sent, sent - through, through].map(|count| count.to_string());
            rows.push([vec![bridge.to_string(), (*group).to_owned()], counts.to_vec()].concat());
        }
        let mut by_target: Vec<(&live::Passed, usize)> = Vec::new();
        for passed in passed {
            match by_target.last_mut() {
                Some((first, count)) if first.target == passed.target => *count += 1,
                _ => by_target.push((passed, 0)),
            }
        }
        for (first, others) in by_target.iter().take(SHOWN) {
            let others = if *others > 0 { format!(" (and {others} more frames like it)") } else { String::new() };
            text += &format!("passed: {}{others}: any guest on {bridge} can send it\n", first.frame);
        }
        if by_target.len() > SHOWN {
            text += &format!("passed: the same for {} more on {bridge}\n", by_target.len() - SHOWN);
        }
    }
    if !text.is_empty() {
        text += "hint: `pve-public-ip apply`; if they pass after that, `pve-public-ip selftest` tells whether it is the kernel\n";
    }
    table(&["bridge", "attack", "sent", "dropped", "passed"], &rows) + &text
}
