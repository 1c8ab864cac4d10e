//! YAML as far as network documents need it, and as cloud-init will understand it: it reads YAML 1.1, where an unquoted
//! `52:54:00:12:34:56` is a number to the base of 60.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// More than any network document has; what is larger is not parsed at all.
const LIMIT: usize = 64 * 1024;
const DEPTH_LIMIT: usize = 16;

/// A value and the line on which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A word or number.
    Scalar {
        text: String,
        /// Not quoted, so that it may mean something else than it says.
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order in which it is written; no key twice.
    Map(Vec<(String, Node)>),
}

/// Why a document is not understood: the line and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub(super) struct YamlError {
    pub(super) line: usize,
    pub(super) reason: String,
    /// Whether cloud-init stumbles over it too.
    pub(super) wrong: bool,
}

/// What cloud-init may well understand.
pub(super) fn strange<T>(line: usize, reason: impl Into<String>) -> Result<T, YamlError> {
    Err(YamlError { line, reason: reason.into(), wrong: false })
}

/// What cloud-init does not understand, or as something else than was meant.
pub(super) fn wrong<T>(line: usize, reason: impl Into<String>) -> Result<T, YamlError> {
    Err(YamlError { line, reason: reason.into(), wrong: true })
}

/// A list or mapping that has not ended yet.
enum Open {
    List(usize, Vec<Node>),
    Map { line: usize, entries: Vec<(String, Node)>, key: Option<String> },
}

/// The only value of the document.
pub(super) fn parse(text: &str) -> Result<Node, YamlError> {
    if text.len() > LIMIT {
        return strange(1, format!("{} bytes are more than a network document has", text.len()));
    }
    let mut open: Vec<Open> = Vec::new();
    let mut document = None;
    for event in Parser::new_from_str(text) {
        let (event, Span { start, .. }) = event.map_err(|error| YamlError {
            line: error.marker().line(),
            reason: format!("it is not YAML: {}", error.info()),
            wrong: true,
        })?;
        let line = start.line();
        if open.len() > DEPTH_LIMIT {
            return strange(line, "it is nested too deeply");
        }
        let done = match event {
            Event::DocumentStart(_) if document.is_some() => return strange(line, "a second document begins"),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                continue;
            }
            Event::Alias(_) => return strange(line, "a reference (`*...`) is not followed here"),
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                return strange(line, "a tag (`!...`) is not understood here");
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(line, Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Map { line, entries: Vec::new(), key: None });
                continue;
            }
            Event::Scalar(text, style, ..) => {
                let plain = style == ScalarStyle::Plain;
                Node { line, value: Value::Scalar { text: text.into_owned(), plain } }
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(line, list)) => Node { line, value: Value::List(list) },
                Some(Open::Map { line, entries, .. }) => Node { line, value: Value::Map(entries) },
                None => return strange(line, "it ends twice"),
            },
        };
        match open.last_mut() {
            None => document = Some(done),
            Some(Open::List(_, list)) => list.push(done),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                Some(key) => entries.push((key, done)),
                None => *key = Some(new_key(entries, done)?),
            },
        }
    }
    document.map_or_else(|| strange(1, "it is empty"), Ok)
}

fn new_key(entries: &[(String, Node)], node: Node) -> Result<String, YamlError> {
    let line = node.line;
    match node.value {
        Value::Scalar { text, .. } if entries.iter().any(|(known, _)| *known == text) => {
            strange(line, format!("`{text}` stands there twice"))
        }
        Value::Scalar { text, plain: true } if text == "<<" => strange(line, "`<<` is not followed here"),
        Value::Scalar { text, .. } => Ok(text),
        Value::List(_) | Value::Map(_) => wrong(line, "a key is not a word"),
    }
}

impl Node {
    /// The value of a key, if this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(known, _)| known == key).map(|(_, node)| node)
    }

    /// Keys and values; none if it is no mapping.
    pub(super) fn entries(&self) -> &[(String, Node)] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    /// What is in a list, or the value itself: many keys take one or several.
    pub(super) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(list) => list,
            Value::Scalar { text, plain: true } if is_null(text) => &[],
            Value::Scalar { .. } | Value::Map(_) => std::slice::from_ref(self),
        }
    }

    /// A word, as YAML 1.1 has it: one that is read as something else is an error, with what it would be.
    pub(super) fn word(&self) -> Result<&str, YamlError> {
        match &self.value {
            Value::Scalar { text, plain: true } if is_null(text) => wrong(self.line, "a value is missing"),
            Value::Scalar { text, plain: true } => match sexagesimal(text) {
                Some(number) => wrong(self.line, format!("{text} is read as the number {number}: it must be quoted")),
                None => Ok(text),
            },
            Value::Scalar { text, plain: false } => Ok(text),
            Value::List(_) | Value::Map(_) => wrong(self.line, "there is a list or mapping in place of a word"),
        }
    }

    /// A truth value.
    pub(super) fn flag(&self) -> Result<bool, YamlError> {
        let word = self.word()?;
        match word.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Ok(true),
            "false" | "no" | "off" => Ok(false),
            _ => wrong(self.line, format!("`{word}` is neither true nor false")),
        }
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// The number that YAML 1.1 makes of digits with colons: the only one that can look like a MAC or an address.
///
/// Source: `yaml/resolver.py` of `PyYAML`, `tag:yaml.org,2002:int`.
fn sexagesimal(text: &str) -> Option<u128> {
    let mut parts = text.split(':');
    let first = parts.next()?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut number: u128 = first.parse().ok().filter(|_| digits(first) && !first.starts_with('0'))?;
    let mut has_more = false;
    for part in parts {
        let value: u128 = part.parse().ok().filter(|value| digits(part) && part.len() <= 2 && *value < 60)?;
        number = number.checked_mul(60)?.checked_add(value)?;
        has_more = true;
    }
    has_more.then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word(text: &str) -> Result<String, String> {
        parse(&format!("a: {text}")).unwrap().get("a").unwrap().word().map(str::to_owned).map_err(|e| e.to_string())
    }

    #[test]
    fn reads_words_as_pyyaml_does() {
        for (text, expected) in [
            ("'52:54:00:12:34:56'", "52:54:00:12:34:56"),
            ("\"no\"", "no"),
            ("bc:24:11:aa:bb:cc", "bc:24:11:aa:bb:cc"),
            // Not a number to the base of 60: it begins with 0, or a digit is above 59.
            ("02:00:00:00:00:01", "02:00:00:00:00:01"),
            ("52:54:00:12:34:60", "52:54:00:12:34:60"),
            ("2001:db8::7/64", "2001:db8::7/64"),
            ("203.0.113.7", "203.0.113.7"),
        ] {
            assert_eq!(word(text).as_deref(), Ok(expected), "{text}");
        }
        for (text, reason) in [
            ("52:54:00:12:34:56", "line 1: 52:54:00:12:34:56 is read as the number 41135085296: it must be quoted"),
            ("1:2:3:4:5:6:7:8", "is read as the number 2895057742028: it must be quoted"),
            ("~", "line 1: a value is missing"),
            ("", "line 1: a value is missing"),
            ("[x]", "line 1: there is a list or mapping in place of a word"),
        ] {
            let message = word(text).unwrap_err();
            assert!(message.contains(reason), "{text} gave {message:?}");
        }
    }

    #[test]
    fn says_what_it_does_not_follow() {
        let deep = "[".repeat(20) + &"]".repeat(20);
        for (text, reason) in [
            ("", "line 1: it is empty"),
            ("a: &x 1\nb: *x\n", "line 2: a reference (`*...`) is not followed here"),
            ("a: !!str 1\n", "line 1: a tag (`!...`) is not understood here"),
            ("a: 1\na: 2\n", "line 2: `a` stands there twice"),
            ("a: 1\n---\nb: 2\n", "a second document begins"),
            ("<<: {a: 1}\n", "line 1: `<<` is not followed here"),
            ("? [a]\n: b\n", "line 1: a key is not a word"),
            ("a: [1\nb: 2", "it is not YAML:"),
            ("a:\n\t- b\n", "it is not YAML:"),
            (deep.as_str(), "line 1: it is nested too deeply"),
            (&" ".repeat(LIMIT + 1), "65537 bytes are more than a network document has"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(reason), "{text:?} gave {message:?}");
        }
    }

    proptest! {
        #[test]
        fn survives_anything(text in "[\\PC\n]{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn survives_near_misses(text in "([-?:,\\[\\]{}#&*!|>'\"%@`a0~ \n\t]){0,60}") {
            let _ = parse(&text);
        }
    }
}
