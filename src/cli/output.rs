//! What commands return, and the forms in which it is printed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use serde_json::Value;

use crate::host::command;

use crate::model::EXACT;
use crate::model::text::{escaped, escaped_json, escaped_lines};

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
    /// For programs.
    pub data: Value,
    /// 0, or 3 for drift, 1 for problems, [`UNREADABLE`] if not everything could be read.
    pub code: u8,
    /// Whether words of the text are to be coloured.
    pub has_colours: bool,
}

impl Output {
    /// Success.
    pub fn new(text: impl Into<String>, data: Value) -> Self {
        Self { text: text.into(), data, code: 0, has_colours: false }
    }

    /// With this exit status.
    #[must_use]
    pub fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// In the form that was asked for, with a newline at the end unless it is empty. Whatever is in it, a terminal gets
    /// nothing to act on but ends of lines, tabs and this program's own colours.
    pub fn render(&self, format: OutputFormat) -> String {
        let exact = || exact(self.data.clone());
        let mut text = match format {
            OutputFormat::Text if self.has_colours => painted(&escaped_lines(&self.text)),
            OutputFormat::Text => escaped_lines(&self.text).into_owned(),
            OutputFormat::Json => escaped_json(&exact().to_string()).into_owned(),
            OutputFormat::JsonPretty => {
                escaped_json(&serde_json::to_string_pretty(&exact()).unwrap_or_default()).into_owned()
            }
            OutputFormat::Yaml => escaped_json(&yaml(&exact())).into_owned(),
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text
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
    format!("{kind}: {}\n  hint: {}\n", escaped(sentence), escaped(hint))
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

/// Whether the locale has more than ASCII.
pub fn has_utf8() -> bool {
    let names = ["LC_ALL", "LC_CTYPE", "LANG"].iter();
    let locale = names.filter_map(|name| std::env::var(name).ok()).find(|value| !value.is_empty());
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// How many columns the terminal has on which the output is shown; a file or a pipe has any number.
pub fn terminal_width() -> usize {
    if !io::stdout().is_terminal() {
        return usize::MAX;
    }
    // "24 80": there is no safe way to ask the kernel itself.
    let size = command::run("stty", &["-F", "/dev/tty", "size"], b"").unwrap_or_default();
    let columns = String::from_utf8_lossy(&size).split_whitespace().nth(1).and_then(|columns| columns.parse().ok());
    columns.filter(|columns| *columns > 0).unwrap_or(usize::MAX)
}

/// A table in Proxmox VE's look, as wide as the terminal at most; ASCII where the locale has no UTF-8.
pub fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    table_within(terminal_width(), headers, rows)
}

/// The narrowest that a column is made so that a table fits.
const NARROW: usize = 12;

/// As [`table`], with cells of several lines if it would be wider than this otherwise.
pub fn table_within(limit: usize, headers: &[&str], rows: &[Vec<String>]) -> String {
    drawn(limit, headers, || rows.iter().map(|row| row.iter().map(String::as_str).collect()))
}

/// Rows of a long table: one text instead of a million small ones.
#[derive(Debug)]
pub struct Rows {
    columns: usize,
    text: String,
    /// Where each cell ends in it.
    ends: Vec<usize>,
}

impl Rows {
    /// None yet, of so many columns.
    pub fn new(columns: usize) -> Self {
        Self { columns: columns.max(1), text: String::new(), ends: Vec::new() }
    }

    /// Adds the next cell.
    pub fn cell(&mut self, value: impl std::fmt::Display) {
        let _ = write!(self.text, "{value}");
        self.ends.push(self.text.len());
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// As [`table`].
    pub fn table(&self, headers: &[&str]) -> String {
        let row = |number: usize| {
            let first = number * self.columns;
            let cell = |at: usize| {
                let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
                self.ends.get(at).and_then(|end| self.text.get(start..*end)).unwrap_or_default()
            };
            (first..first + self.columns).map(cell).collect()
        };
        drawn(terminal_width(), headers, || (0..self.ends.len() / self.columns).map(row))
    }
}

/// The rows are asked for twice: how wide they are, and then for themselves.
fn drawn<'a, R: Iterator<Item = Vec<&'a str>>>(limit: usize, headers: &[&str], rows: impl Fn() -> R) -> String {
    let utf8 = has_utf8();
    let mut widths: Vec<usize> = headers.iter().map(|header| length(header)).collect();
    for row in rows() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(length(&escaped(cell)));
        }
    }
    // The widest first, as long as that helps.
    loop {
        let excess = (widths.iter().map(|width| width + 3).sum::<usize>() + 1).saturating_sub(limit);
        let Some(widest) = widths.iter_mut().max().filter(|widest| excess > 0 && **widest > NARROW) else { break };
        *widest = widest.saturating_sub(excess.min(4)).max(NARROW);
    }
    let rule = |left: char, fill: char, cross: char, right: char| {
        let bars: Vec<String> = widths.iter().map(|width| fill.to_string().repeat(width + 2)).collect();
        format!("{left}{}{right}\n", bars.join(&cross.to_string()))
    };
    let bar = if utf8 { '│' } else { '|' };
    let put = |text: &mut String, cells: &[&str]| {
        let cells: Vec<_> = cells.iter().map(|cell| escaped(cell)).collect();
        let fits = cells.iter().zip(&widths).all(|(cell, width)| length(cell) <= *width);
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            for (cell, width) in cells.zip(&widths) {
                text.push(bar);
                text.push(' ');
                text.push_str(cell);
                // A width in a format has 16 bits, and a cell may be longer.
                text.extend(std::iter::repeat_n(' ', width.saturating_sub(length(cell)) + 1));
            }
            text.push(bar);
            text.push('\n');
        };
        if fits {
            return line(&mut cells.iter().map(AsRef::as_ref));
        }
        let cells: Vec<Vec<String>> = cells.iter().zip(&widths).map(|(cell, width)| wrapped(cell, *width)).collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(0);
        for number in 0..height {
            line(&mut cells.iter().map(|lines| lines.get(number).map_or("", String::as_str)));
        }
    };
    let (top, middle, bottom) = if utf8 {
        (rule('┌', '─', '┬', '┐'), rule('╞', '═', '╪', '╡'), rule('└', '─', '┴', '┘'))
    } else {
        let plain = rule('+', '-', '+', '+');
        (plain.clone(), plain.clone(), plain)
    };
    let mut text = top;
    put(&mut text, headers);
    text += &middle;
    for row in rows() {
        put(&mut text, &row);
    }
    text + &bottom
}

/// In characters.
fn length(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().count() }
}

/// In lines of at most this many characters, broken at blanks where there are some.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let line = lines.last_mut().map(|line| (line.chars().count(), line));
            let Some((used, line)) = line else { break };
            let gap = usize::from(used > 0);
            if used + gap + word.len() <= width {
                line.extend([' '].iter().take(gap).chain(&word));
                break;
            }
            if used == 0 {
                line.extend(word.drain(..width));
            }
            lines.push(String::new());
        }
    }
    lines
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
    fn a_long_table_is_like_a_short_one() {
        let headers = ["vmid", "what"];
        let cells = [["100", "plain"], ["101", "a \x1b[31m red word, and many others behind it"], ["102", "größer"]];
        let mut rows = Rows::new(2);
        assert!(rows.is_empty());
        cells.iter().flatten().for_each(|cell| rows.cell(cell));
        let short: Vec<Vec<String>> = cells.iter().map(|row| row.map(str::to_owned).to_vec()).collect();
        let (long, short) = (rows.table(&headers), table_within(usize::MAX, &headers, &short));
        assert_eq!(long, short);
        let widths: std::collections::BTreeSet<usize> = long.lines().map(length).collect();
        assert_eq!(widths.len(), 1, "{long}");
        assert!(!long.contains('\x1b'), "{long}");
    }

    #[test]
    fn yaml_quotes_what_yaml_would_misread() {
        let data =
            serde_json::json!({"mac": "52:54:00:12:34:56", "no": [], "list": [{"a": 1, "b": ["x"]}, "on"], "n": null});
        let text = Output::new("", data).render(OutputFormat::Yaml);
        assert_eq!(
            text,
            "\"list\":\n  - \"a\": 1\n    \"b\":\n      - \"x\"\n  - \"on\"\n\"mac\": \"52:54:00:12:34:56\"\n\"n\": null\n\"no\": []\n"
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
        assert_eq!(output.render(OutputFormat::Json), format!("{{{large},{small}}}\n"));
        for format in [OutputFormat::JsonPretty, OutputFormat::Yaml] {
            let text = output.render(format);
            assert!(text.contains("\"18446744073709551615\"") && text.contains(": 9007199254740991"), "{text}");
        }
    }

    #[test]
    fn cells_have_any_length() {
        let text =
            table(&["addresses", "state"], &[vec!["x".repeat(70_000), "on".into()], vec!["y".into(), "off".into()]]);
        assert_eq!(text.lines().map(|line| line.chars().count()).max(), Some(70_000 + 12), "{}", text.len());
    }

    #[test]
    fn tables_line_up() {
        let text = table(&["vmid", "address"], &[vec!["100".into(), "203.0.113.10".into()]]);
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }

    #[test]
    fn tables_keep_to_a_width() {
        let rows = [vec!["100".to_owned(), "203.0.113.10 2001:db8:0:1::10 203.0.113.11".to_owned(), "x".repeat(30)]];
        let wide = table(&["vmid", "addresses", "name"], &rows);
        assert_eq!(
            table_within(wide.lines().next().unwrap().chars().count(), &["vmid", "addresses", "name"], &rows),
            wide
        );
        for limit in [80, 60, 48] {
            let text = table_within(limit, &["vmid", "addresses", "name"], &rows);
            let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
            assert!(widths.iter().all(|width| *width == widths[0] && *width <= limit), "{limit}: {text}");
            let cells = text.replace(['|', '+', '-', '\n', ' ', '│', '┌', '─'], "");
            assert!(cells.contains("2001:db8:0:1::10"), "an address that fits is not broken: {text}");
        }
        let long = [vec!["100".to_owned(), "x".repeat(70_000), String::new()]];
        let text = table_within(usize::MAX, &["vmid", "addresses", "name"], &long);
        assert_eq!(text.matches('x').count(), 70_000, "a cell of any length is shown");
        // Narrower than can be done, nothing is lost.
        let text = table_within(10, &["vmid", "addresses", "name"], &rows);
        assert_eq!(text.matches('x').count(), 30, "{text}");
        assert_eq!(wrapped("a  b", 10), ["a  b"]);
        assert_eq!(wrapped("", 5), [""]);
    }
}
