//! Tables in Proxmox VE's look, as wide as the terminal at most.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use crate::host::command;
use crate::model::text::{escaped, is_plain};

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

/// A column that is too wide is made as narrow as this first, and its cells get several lines.
const NARROW: usize = 12;

/// If the table still does not fit, columns are made as narrow as this, and their cells are cut.
const NARROWEST: usize = 5;

/// As [`table`], for this many columns of a terminal: a cell that is too long gets several lines, and where even that is too
/// wide it is cut, with an ellipsis. Without a limit (a file, a pipe) every cell is whole and in one line.
pub fn table_within(limit: usize, headers: &[&str], rows: &[Vec<String>]) -> String {
    let mut long = Rows::new(headers.len());
    for row in rows {
        (0..headers.len()).for_each(|at| long.text(row.get(at).map_or("", String::as_str)));
    }
    long.drawn(limit, headers)
}

/// Rows of a long table: one text instead of a million small ones.
#[derive(Debug)]
pub struct Rows {
    /// The widest cell of each column.
    widths: Vec<usize>,
    /// As it is shown, cell by cell.
    text: String,
    /// How long each cell is there: a million of them need half the room that places would.
    lengths: Vec<u32>,
    /// Where the row begins to which the next cell belongs.
    row: usize,
}

impl Rows {
    /// None yet, of so many columns.
    pub fn new(columns: usize) -> Self {
        Self { widths: vec![0; columns.max(1)], text: String::new(), lengths: Vec::new(), row: 0 }
    }

    /// Adds the next cell.
    pub fn cell(&mut self, value: impl std::fmt::Display) {
        let start = self.text.len();
        let _ = write!(self.text, "{value}");
        self.end_cell(self.text.len() - start);
    }

    /// The same for a text that is there already.
    pub fn text(&mut self, text: &str) {
        self.text.push_str(text);
        self.end_cell(text.len());
    }

    fn end_cell(&mut self, length: usize) {
        self.lengths.push(saturated(length));
        if self.lengths.len() % self.widths.len() == 0 {
            self.end_row();
        }
    }

    /// A whole row is looked at once: nearly every one is plain, and cells are short.
    fn end_row(&mut self) {
        let first = self.lengths.len() - self.widths.len();
        if is_plain(&self.text[self.row..]) {
            for (length, width) in self.lengths[first..].iter().zip(&mut self.widths) {
                *width = (*width).max(*length as usize);
            }
        } else {
            let cells = self.text.split_off(self.row);
            let mut rest = cells.as_str();
            for (size, width) in self.lengths[first..].iter_mut().zip(&mut self.widths) {
                let (cell, behind) = rest.split_at_checked(*size as usize).unwrap_or((rest, ""));
                let shown = escaped(cell);
                *width = (*width).max(length(&shown));
                self.text.push_str(&shown);
                (*size, rest) = (saturated(shown.len()), behind);
            }
        }
        self.row = self.text.len();
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// As [`table`].
    pub fn table(&self, headers: &[&str]) -> String {
        self.drawn(terminal_width(), headers)
    }

    fn drawn(&self, limit: usize, headers: &[&str]) -> String {
        let utf8 = has_utf8();
        let whole: Vec<usize> =
            headers.iter().zip(&self.widths).map(|(header, width)| length(header).max(*width)).collect();
        let mut widths = whole.clone();
        // The widest first, as long as that helps.
        for least in [NARROW, NARROWEST] {
            loop {
                let excess = (widths.iter().map(|width| width + 3).sum::<usize>() + 1).saturating_sub(limit);
                let Some(widest) = widths.iter_mut().max().filter(|widest| excess > 0 && **widest > least) else {
                    break;
                };
                *widest = widest.saturating_sub(excess.min(4)).max(least);
            }
        }
        let rule = |left: char, fill: char, cross: char, right: char| {
            let bars: Vec<String> = widths.iter().map(|width| fill.to_string().repeat(width + 2)).collect();
            format!("{left}{}{right}\n", bars.join(&cross.to_string()))
        };
        let bar = if utf8 { "│ " } else { "| " };
        let (between, behind) = (format!("{BLANKS}{bar}"), format!("{BLANKS}{}", bar.trim_end()));
        let lines = Lines { bar, between, behind, utf8, widths: &widths, whole: &whole };
        let (top, middle, bottom) = if utf8 {
            (rule('┌', '─', '┬', '┐'), rule('╞', '═', '╪', '╡'), rule('└', '─', '┴', '┘'))
        } else {
            let plain = rule('+', '-', '+', '+');
            (plain.clone(), plain.clone(), plain)
        };
        let mut text = top;
        lines.put(&mut text, headers);
        text += &middle;
        text.reserve((self.lengths.len() / self.widths.len()).saturating_mul(middle.len()) + bottom.len());
        let (mut start, mut row) = (0, Vec::new());
        for length in &self.lengths {
            let end = start + *length as usize;
            row.push(self.text.get(start..end).unwrap_or_default());
            start = end;
            if row.len() == self.widths.len() {
                lines.put(&mut text, &row);
                row.clear();
            }
        }
        text + &bottom
    }
}

const BLANKS: &str = "                                ";

/// How the lines of a table look.
struct Lines<'a> {
    bar: &'static str,
    /// What stands behind a cell, with more blanks before it than most cells need.
    between: String,
    /// The same for the last one.
    behind: String,
    utf8: bool,
    /// How wide each column is, and how wide it would have to be.
    widths: &'a [usize],
    whole: &'a [usize],
}

impl Lines<'_> {
    /// Writes one row.
    fn put(&self, text: &mut String, cells: &[&str]) {
        if self.widths == self.whole {
            return self.line(text, cells);
        }
        let of_cell = |((cell, width), whole): ((&&str, &usize), &usize)| match length(cell) <= *width {
            true => vec![(*cell).to_owned()],
            false if width < whole && *width < NARROW => vec![shortened(cell, *width, self.utf8)],
            false => wrapped(cell, *width),
        };
        let cells: Vec<Vec<String>> = cells.iter().zip(self.widths).zip(self.whole).map(of_cell).collect();
        for number in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
            let line: Vec<&str> = cells.iter().map(|lines| lines.get(number).map_or("", String::as_str)).collect();
            self.line(text, &line);
        }
    }

    /// Writes one line, whose cells fit.
    fn line(&self, text: &mut String, cells: &[&str]) {
        text.push_str(self.bar);
        for (number, (cell, width)) in cells.iter().zip(self.widths).enumerate() {
            text.push_str(cell);
            // A width in a format has 16 bits, and a cell may be longer.
            let mut left = width.saturating_sub(length(cell)) + 1;
            while left > BLANKS.len() {
                text.push_str(BLANKS);
                left -= BLANKS.len();
            }
            let behind = if number + 1 < cells.len() { &self.between } else { &self.behind };
            text.push_str(&behind[BLANKS.len() - left..]);
        }
        text.push('\n');
    }
}

/// No cell is as long as that.
fn saturated(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// In characters.
fn length(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().count() }
}

/// Its beginning, with an ellipsis in place of the rest if there is more.
fn shortened(text: &str, width: usize, utf8: bool) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    let ellipsis = if utf8 { "…" } else { "..." };
    text.chars().take(width.saturating_sub(length(ellipsis))).chain(ellipsis.chars()).take(width).collect()
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
        // Narrower than can be done, each column keeps a few characters.
        let text = table_within(10, &["vmid", "addresses", "name"], &rows);
        assert!(text.contains(if has_utf8() { "| 203.…" } else { "| 20... |" }) || text.contains("│ 203.…"), "{text}");
        assert_eq!(wrapped("a  b", 10), ["a  b"]);
        assert_eq!(wrapped("", 5), [""]);
    }

    #[test]
    fn a_table_that_cannot_be_wrapped_is_cut() {
        let headers =
            ["pool", "profile", "bridge", "gateway", "family", "size", "assigned", "free", "cooling", "reserved"];
        let cells = [
            "ovh-rbx-customers",
            "generic-bridged",
            "vmbr0",
            "2001:db8:ffff:ffff::1",
            "IPv6",
            "2^64",
            "12",
            "2^64",
            "0",
            "1",
        ];
        let rows = [cells.map(str::to_owned).to_vec()];
        for limit in [120, 100, 80] {
            let text = table_within(limit, &headers, &rows);
            let widths: std::collections::BTreeSet<usize> = text.lines().map(length).collect();
            assert!(widths.len() == 1 && widths.iter().all(|width| *width <= limit), "{limit}: {text}");
        }
        let narrow = table_within(80, &headers, &rows);
        assert_eq!(narrow.lines().count(), 5, "a cut cell has one line: {narrow}");
        assert!(narrow.contains(if has_utf8() { "…" } else { "..." }), "{narrow}");
        let whole = table_within(usize::MAX, &headers, &rows);
        assert!(cells.iter().all(|cell| whole.contains(cell)), "{whole}");
        assert_eq!(shortened("größer als", 7, true), "größer…");
        assert_eq!(shortened("größer als", 7, false), "größ...");
        assert_eq!(shortened("größer", 6, false), "größer");
    }
}
