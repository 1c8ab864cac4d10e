//! What commands return, and the forms in which it is printed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Map, Value};

pub use super::table::{Rows, has_utf8, table, table_within, terminal_width};
use crate::ops::Done;

use crate::model::text::{escaped, escaped_json, escaped_lines};
use crate::model::{EXACT, Problem};

/// Form of the data on stdout, as Proxmox VE's own tools have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// One line, keys sorted.
    Json,
    /// Indented.
    JsonPretty,
    /// YAML, every string quoted.
    Yaml,
}

/// Exit status of a command that could not read all that it is about.
pub const UNREADABLE: u8 = 4;

/// The outcome of a command: the same content for people and for programs.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// For people.
    pub text: String,
    /// For programs: an object.
    pub data: Value,
    /// What is worth knowing besides, and said to people on standard error.
    pub notes: Vec<Problem>,
    /// Why something of it is not done, if so: on standard error for people.
    pub problem: Option<Problem>,
    /// 0, or 3 for drift, 1 for problems, [`UNREADABLE`] if not everything could be read.
    pub code: u8,
    /// Whether words of the text are to be coloured.
    pub has_colours: bool,
}

impl Output {
    /// Success.
    pub fn new(text: impl Into<String>, data: Value) -> Self {
        Self { text: text.into(), data, notes: Vec::new(), problem: None, code: 0, has_colours: false }
    }

    /// Failure: nothing for people but the problem, and a document with it for programs.
    pub fn failed(problem: Problem, code: u8) -> Self {
        Self { problem: Some(problem), ..Self::new("", Value::Object(Map::new())).with_code(code) }
    }

    /// What an operation came to, as lines of its own, and as lines of its parts, which a failure does not repeat.
    pub fn of<T: Serialize>(done: &Done<T>, lines: &[String], parts: &[String]) -> Self {
        let data = serde_json::to_value(done).unwrap_or_default();
        if let Some(problem) = &done.problem {
            let sentence = format!("{}, but {}", lines.join("; "), problem.sentence);
            let problem = Problem { sentence, ..problem.clone() };
            return Self { problem: Some(problem), ..Self::new("", data).with_code(1) };
        }
        let mut text = [lines, parts].concat().join("\n");
        if !done.node.failed.is_empty() {
            text = format!("{}\n{}", text.trim_end(), problems_text(&done.node.failed, false));
        }
        if done.node.shows_notes {
            text = format!("{}\n{}", text.trim_end(), notes_text(&done.node.notes, false));
        }
        Self::new(text, data).with_code(u8::from(done.node.is_own_failure))
    }

    /// The whole answer as one object: what there is to say, `notes`, and `problem` if there is one. A value that is not
    /// there is absent, never `null`.
    pub fn document(&self) -> Value {
        let mut map = match without_nulls(self.data.clone()) {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            other => Map::from_iter([("data".to_owned(), other)]),
        };
        let notes = map.entry("notes").or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(notes) = notes {
            notes.extend(self.notes.iter().map(|note| serde_json::to_value(note).unwrap_or_default()));
        }
        if let Some(problem) = &self.problem {
            map.insert("problem".to_owned(), serde_json::to_value(problem).unwrap_or_default());
        }
        Value::Object(map)
    }

    /// With this exit status.
    #[must_use]
    pub fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// In the form that was asked for, with a newline at the end unless it is empty. Whatever is in it, a terminal gets
    /// nothing to act on but ends of lines, tabs and this program's own colours.
    pub fn render(&self, format: OutputFormat) -> Cow<'_, str> {
        if format == OutputFormat::Text && self.problem.is_some() {
            return Cow::default();
        }
        let exact = || exact(self.document());
        let mut text = match format {
            OutputFormat::Text if self.has_colours => painted(&escaped_lines(&self.text)).into(),
            OutputFormat::Text => escaped_lines(&self.text),
            OutputFormat::Json => escaped_json(&exact().to_string()).into_owned().into(),
            OutputFormat::JsonPretty => {
                escaped_json(&serde_json::to_string_pretty(&exact()).unwrap_or_default()).into_owned().into()
            }
            OutputFormat::Yaml => escaped_json(&yaml(&exact())).into_owned().into(),
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.to_mut().push('\n');
        }
        text
    }
}

/// Nothing stands for nothing.
fn without_nulls(data: Value) -> Value {
    match data {
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        Value::Object(map) => {
            let there = map.into_iter().filter(|(_, value)| !value.is_null());
            there.map(|(key, value)| (key, without_nulls(value))).collect()
        }
        other => other,
    }
}

/// Numbers that a reader of JSON may round become strings, wherever they stand: a counter of bytes reaches 2^53, too.
fn exact(data: Value) -> Value {
    match data {
        Value::Number(number) if number.as_u64().is_some_and(|number| number > EXACT) => number.to_string().into(),
        Value::Number(number) if number.as_i64().is_some_and(|number| number.unsigned_abs() > EXACT) => {
            number.to_string().into()
        }
        Value::Array(list) => list.into_iter().map(exact).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, exact(value))).collect(),
        other => other,
    }
}

/// Decoration only: the words say the same.
fn painted(text: &str) -> String {
    let mut painted = String::new();
    for line in text.split_inclusive('\n') {
        let is_row = line.starts_with(['|', '│']);
        let shows = |word: &str| is_row && line.contains(&format!(" {word} "));
        let alarm = ["NOT PROTECTED", "problem"].into_iter().find(|word| shows(word));
        let word = alarm.or(["trouble:", "problem:", "note:"].into_iter().find(|word| line.starts_with(word)));
        painted += &match word {
            Some(word) => {
                line.replacen(word, &format!("\x1b[{}m{word}\x1b[0m", if word == "note:" { 33 } else { 31 }), 1)
            }
            None if shows("protected") => line.replacen(" protected ", " \x1b[32mprotected\x1b[0m ", 1),
            None => line.to_owned(),
        };
    }
    painted
}

/// A sentence with what to do about it, a line each, whatever their text has in it.
pub fn advised(kind: &str, sentence: &str, hint: &str) -> String {
    if hint.is_empty() {
        return format!("{kind}: {}\n", escaped(sentence));
    }
    format!("{kind}: {}\n  hint: {}\n", escaped(sentence), escaped(hint))
}

/// As [`advised`], without the last end of line.
pub fn told(kind: &str, problem: &Problem) -> String {
    advised(kind, &problem.sentence, &problem.hint).trim_end().to_owned()
}

/// What stands in the way, the first ones of it unless all is asked for.
pub fn problems_text(problems: &[Problem], all: bool) -> String {
    let line = |problem: &Problem| ("problems", advised("problem", &problem.sentence, &problem.hint));
    first_ones(problems.iter().map(line), all, "verify")
}

/// What may surprise, likewise.
pub fn notes_text(notes: &[Problem], all: bool) -> String {
    let line = |note: &Problem| ("notes", advised("note", &note.sentence, &note.hint));
    first_ones(notes.iter().map(line), all, "verify")
}

/// How many of a kind are shown without being asked for.
pub const SHOWN: usize = 10;

/// The first ones of each kind in their order, and how many more there are. Each line has its end.
pub fn first_ones<K: Ord + std::fmt::Display>(
    lines: impl IntoIterator<Item = (K, String)>,
    all: bool,
    command: &str,
) -> String {
    let mut counts: BTreeMap<K, usize> = BTreeMap::new();
    let mut text = String::new();
    for (kind, line) in lines {
        let count = counts.entry(kind).or_default();
        *count += 1;
        if all || *count <= SHOWN {
            text += &line;
        }
    }
    let more: Vec<String> = counts
        .into_iter()
        .filter(|(_, count)| !all && *count > SHOWN)
        .map(|(kind, count)| format!("... and {} more: {kind}\n", count - SHOWN))
        .collect();
    if !more.is_empty() {
        text += &format!("{}... `pve-public-ip {command} --all` shows all\n", more.concat());
    }
    text
}

/// YAML in its simplest form: strings are JSON strings, which YAML reads as they are. Unquoted, `52:54:00:12:34:56`
/// would be a number.
fn yaml(value: &Value) -> String {
    let mut text = String::new();
    put_yaml(&mut text, value, 0);
    text
}

fn put_yaml(text: &mut String, value: &Value, depth: usize) {
    let pad = "  ".repeat(depth);
    let is_block = |value: &Value| match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let key = Value::String(key.clone());
                if is_block(value) {
                    let _ = writeln!(text, "{pad}{key}:");
                    put_yaml(text, value, depth + 1);
                } else {
                    let _ = writeln!(text, "{pad}{key}: {value}");
                }
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                if is_block(value) {
                    let mut inner = String::new();
                    put_yaml(&mut inner, value, depth + 1);
                    // The first line of a block stands behind the dash.
                    let _ = write!(text, "{pad}- {}", inner.trim_start());
                } else {
                    let _ = writeln!(text, "{pad}- {value}");
                }
            }
        }
        scalar => {
            let _ = writeln!(text, "{pad}{scalar}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_of_each_kind_are_shown() {
        let lines = || (0..25).map(|number| (if number % 2 == 0 { "even" } else { "odd" }, format!("{number}\n")));
        let text = first_ones(lines(), false, "verify");
        let (shown, more) = text.split_at(text.find("...").unwrap());
        assert_eq!(shown, (0..20).map(|number| format!("{number}\n")).collect::<String>(), "in their order");
        assert_eq!(more, "... and 3 more: even\n... and 2 more: odd\n... `pve-public-ip verify --all` shows all\n");
        assert_eq!(first_ones(lines(), true, "verify").lines().count(), 25);
        assert_eq!(first_ones(lines().take(20), false, "verify").lines().count(), 20);
        assert_eq!(first_ones(std::iter::empty::<(&str, String)>(), false, "verify"), "");
    }

    #[test]
    fn yaml_quotes_what_yaml_would_misread() {
        let data =
            serde_json::json!({"mac": "52:54:00:12:34:56", "no": [], "list": [{"a": 1, "b": ["x"]}, "on"], "n": null});
        let output = Output::new("", data);
        let text = output.render(OutputFormat::Yaml);
        assert_eq!(
            text,
            "\"list\":\n  - \"a\": 1\n    \"b\":\n      - \"x\"\n  - \"on\"\n\"mac\": \"52:54:00:12:34:56\"\n\"no\": []\n\"notes\": []\n"
        );
    }

    #[test]
    fn large_numbers_are_strings_in_every_form() {
        let data = serde_json::json!({"a": [u64::MAX, EXACT + 1, i64::MIN], "b": {"c": EXACT, "d": -1, "e": 1e300}});
        let output = Output::new("", data);
        let (large, small) = (
            r#""a":["18446744073709551615","9007199254740992","-9223372036854775808"]"#,
            r#""b":{"c":9007199254740991,"d":-1,"e":1e+300}"#,
        );
        assert_eq!(output.render(OutputFormat::Json), format!("{{{large},{small},\"notes\":[]}}\n"));
        for format in [OutputFormat::JsonPretty, OutputFormat::Yaml] {
            let text = output.render(format);
            assert!(text.contains("\"18446744073709551615\"") && text.contains(": 9007199254740991"), "{text}");
        }
    }
}
