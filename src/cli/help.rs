//! `problem CODE`: what a code means, why it comes about and what to do, from the page that the package has, too.

use serde_json::json;

use super::advice;
use super::answers::{Explained, ProblemsExplained};
use super::output::Output;
use crate::code;
use crate::model::Subject;

/// The page. Each section is a code.
const PAGE: &str = include_str!("../../docs/problems.md");

/// Every section of the page, in its order.
pub fn explained() -> Vec<Explained> {
    let section = |section: &str| {
        let (code, body) = section.split_once('\n')?;
        let part = |name: &str| {
            let (_, rest) = body.split_once(&format!("**{name}:**"))?;
            let text = rest.split("\n**").next().unwrap_or_default();
            Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        let (meaning, cause, remedy) = (part("Meaning")?, part("Cause")?, part("Remedy")?);
        Some(Explained { code: code.trim().to_owned(), meaning, cause, remedy })
    };
    PAGE.split("\n## ").skip(1).filter_map(section).collect()
}

pub(super) fn problem(code: Option<&str>) -> anyhow::Result<Output> {
    let all = explained();
    let Some(code) = code else {
        let text: String = all.iter().map(|entry| format!("{}\n  {}\n", entry.code, entry.meaning)).collect();
        return Ok(Output::new(text, json!(ProblemsExplained { problems: all })));
    };
    let Some(entry) = all.iter().find(|entry| entry.code == code) else {
        let near =
            all.iter().map(|entry| (strsim::damerau_levenshtein(&entry.code, code), entry)).min_by_key(|near| near.0);
        // Half of the letters may be others, or a part of the code may be all that somebody remembers.
        let part = all.iter().find(|entry| !code.is_empty() && entry.code.contains(code));
        let near = near.filter(|(distance, entry)| *distance * 2 <= entry.code.len()).map(|(_, entry)| entry).or(part);
        let hint = match near {
            Some(entry) => format!("did you mean `pve-public-ip help problem {}`?", entry.code),
            None => "`pve-public-ip help problem` lists all codes".to_owned(),
        };
        return Err(advice(code!("unknown-code"), Subject::Command, format!("there is no code `{code}`"), hint));
    };
    let Explained { code, meaning, cause, remedy } = entry;
    Ok(Output::new(format!("{code}\n\n{meaning}\n\nCause: {cause}\n\nRemedy: {remedy}\n"), json!(entry)))
}
