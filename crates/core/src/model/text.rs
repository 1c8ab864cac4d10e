//! Text of others on its way to a terminal, a log, a mail or a shell: what it could do there is taken from it here, and
//! nowhere else.

use std::borrow::Cow;

/// Whether a terminal could act on this character, or a reader could be shown another order of words than there is.
///
/// Control characters (C0, DEL, C1), line and paragraph separators, the marks that turn the direction of writing
/// (Unicode Annex 9), and those that have no width and no meaning of their own.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One line of text: every unprintable character is shown as an escape (`\n`, `\u{1b}`, `\u{202e}`).
pub fn escaped(text: &str) -> Cow<'_, str> {
    escaped_but(text, false)
}

/// The same for text of several lines; their ends and tabs are meant. For the door of output: fields of others that could
/// have such an end themselves are passed through [`escaped`] before.
pub fn escaped_lines(text: &str) -> Cow<'_, str> {
    escaped_but(text, true)
}

/// No line of text that somebody gives is longer, in characters.
const LINE_LIMIT: usize = 500;

/// What keeps a text that somebody gives from being stored and shown as a line of text; `None`: nothing.
pub fn unfit_line(text: &str) -> Option<String> {
    if *text != *escaped(text) {
        return Some("it has a line break or another control character".to_owned());
    }
    let length = text.chars().count();
    (length > LINE_LIMIT).then(|| format!("it has {length} characters; {LINE_LIMIT} are allowed"))
}

/// The same for what somebody or something is called.
pub fn unfit_name(text: &str) -> Option<String> {
    if text.trim().is_empty() { Some("it is empty".to_owned()) } else { unfit_line(text) }
}

/// Whether it is printable ASCII, so that [`escaped`] would leave it as it is, and each byte is one character wide. Nearly all
/// text is so.
pub fn is_plain(text: &str) -> bool {
    all_at_once(text.as_bytes(), |byte| (b' '..=b'~').contains(&byte))
}

/// Whether it surely has no unprintable character, by its bytes alone: no control character, no first byte of the others but one,
/// and after that one no second byte of theirs. Letters of most languages and the lines of tables pass.
#[expect(clippy::needless_bitwise_bool, reason = "a lazy operator is a branch for each byte")]
fn is_harmless(text: &str, has_lines: bool) -> bool {
    let bytes = text.as_bytes();
    let is_control = |byte: u8| (byte < b' ') & !(has_lines & ((byte == b'\n') | (byte == b'\t'))) | (byte == 0x7f);
    // U+0080 to U+00BF, U+0600 to U+063F, U+F000 to U+FFFF, U+C0000 and more.
    let is_first = |byte: u8| (byte == 0xc2) | (byte == 0xd8) | (byte == 0xef) | (byte >= 0xf3);
    // U+2000 to U+207F.
    let is_pair = |first: u8, second: u8| (first == 0xe2) & (second <= 0x81);
    let rest = bytes.get(1..).unwrap_or_default();
    let mut pieces = bytes.chunks(PIECE).zip(rest.chunks(PIECE));
    all_at_once(bytes, |byte| !is_control(byte) & !is_first(byte))
        && pieces.all(|(one, two)| one.iter().zip(two).fold(true, |all, (one, two)| all & !is_pair(*one, *two)))
}

/// So many bytes are looked at before it is asked whether to go on.
const PIECE: usize = 256;

/// A table of a hundred thousand addresses is much text: it is looked at in pieces, without a branch for each byte, so that the
/// processor takes many bytes at once.
fn all_at_once(bytes: &[u8], is_meant: impl Fn(u8) -> bool) -> bool {
    bytes.chunks(PIECE).all(|piece| piece.iter().fold(true, |all, byte| all & is_meant(*byte)))
}

fn escaped_but(text: &str, has_lines: bool) -> Cow<'_, str> {
    let is_meant = |c: char| has_lines && matches!(c, '\n' | '\t');
    if is_harmless(text, has_lines) || !text.chars().any(|c| is_unprintable(c) && !is_meant(c)) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if is_meant(c) || !is_unprintable(c) => shown.push(c),
            c => shown.extend(c.escape_default()),
        }
    }
    Cow::Owned(shown)
}

/// JSON, or YAML whose strings are JSON strings, with an escape for each character that JSON itself would leave as it is.
/// They can only be inside strings, so the document says the same as before.
pub fn escaped_json(document: &str) -> Cow<'_, str> {
    let is_meant = |c: char| matches!(c, '\n' | '\r' | '\t');
    if !document.chars().any(|c| is_unprintable(c) && !is_meant(c)) {
        return Cow::Borrowed(document);
    }
    let mut shown = String::with_capacity(document.len() + 16);
    for c in document.chars() {
        if is_meant(c) || !is_unprintable(c) {
            shown.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                shown += &format!("\\u{unit:04x}");
            }
        }
    }
    Cow::Owned(shown)
}

/// What a program said, on one line: its lines without blanks around them, joined by `; `.
pub fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(escaped).collect::<Vec<_>>().join("; ")
}

/// A command as a line for `sh`, so that it can be copied: each word stands for itself, whatever is in it.
pub fn command_line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// One word for `sh`. Words of harmless characters stay as they are; what cannot be shown is written by its octal digits.
pub fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,@%+=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) && !word.starts_with('=') {
        return Cow::Borrowed(word);
    }
    let mut text = "'".to_owned();
    for c in word.chars() {
        match c {
            '\'' => text += r"'\''",
            // A substitution loses the end of a line; between quotes it may stand for itself.
            c if is_unprintable(c) && c != '\n' => {
                let octal: String = c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("\\{byte:03o}")).collect();
                text += &format!("'\"$(printf '{octal}')\"'");
            }
            c => text.push(c),
        }
    }
    text.push('\'');
    Cow::Owned(text)
}

/// The name of `known` that is meant by one that is not there, or all of them, as a hint.
pub fn meant<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let distance = |known: &str| strsim::damerau_levenshtein(known, name);
    match known.iter().min_by_key(|known| distance(known)).filter(|near| distance(near) < 3) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there is: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_terminal_that_acts_there() {
        let hostile = "a\x1b[31mb\u{9b}2Jc\x7f\r\n\tnode pve1: ok\u{202e}txt\u{2066}\u{2028}\u{0}é漢";
        assert_eq!(
            escaped(hostile),
            "a\\u{1b}[31mb\\u{9b}2Jc\\u{7f}\\r\\n\\tnode pve1: ok\\u{202e}txt\\u{2066}\\u{2028}\\u{0}é漢"
        );
        assert_eq!(escaped_lines("one\ntwo\x1b\n"), "one\ntwo\\u{1b}\n");
        assert!(matches!(escaped("as it is: böse, 漢, ─│"), Cow::Borrowed(_)));
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            let text = escaped_lines(&String::from(c)).into_owned();
            assert_eq!(is_unprintable(c), escaped(&format!("x{c}")).len() > 1 + c.len_utf8(), "{c:?}");
            assert!(!is_unprintable(c) || !is_plain(&String::from(c)), "{c:?}");
            assert!(text.chars().all(|c| matches!(c, '\n' | '\t') || !c.is_control()), "{c:?}: {text:?}");
        }
        assert_eq!(one_line("  first\r\n\n second\x1b[0m \n"), "first; second\\u{1b}[0m");
    }

    #[test]
    fn json_says_the_same() {
        let text = "a\x1b\u{9b}\u{7f}\u{202e}\u{e0001}\n\"\\é";
        let value = serde_json::json!({ "key\u{9b}": [text] });
        for document in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let shown = escaped_json(&document);
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value, "{shown}");
            assert!(shown.chars().all(|c| c == '\n' || !is_unprintable(c)), "{shown:?}");
        }
    }

    #[test]
    fn words_are_words_for_a_shell() {
        assert_eq!(
            command_line(["qm", "set", "100", "--net0", "virtio=02:00:00:AA:BB:CC,bridge=vmbr0"]),
            "qm set 100 --net0 virtio=02:00:00:AA:BB:CC,bridge=vmbr0"
        );
        assert_eq!(quoted("trunks=10;20"), "'trunks=10;20'");
        assert_eq!(quoted("$(touch x)'y'"), r"'$(touch x)'\''y'\'''");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("~"), "'~'");
        assert_eq!(quoted("a\x1b"), "'a'\"$(printf '\\033')\"''");
    }
}
