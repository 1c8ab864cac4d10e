//! Users and groups of this machine, by their files alone: a directory service may be slow, or one of the guests.

use std::path::Path;

use super::files;

/// No file of users or groups is larger, in bytes.
const LIMIT: usize = 1 << 20;

/// A user's name; `uid 1000` of one that has none.
pub fn name(uid: u32) -> String {
    if uid == 0 {
        return "root".to_owned();
    }
    let is_meant = |fields: &[&str]| fields.get(2).is_some_and(|number| number.parse() == Ok(uid));
    let name = find("/etc/passwd", is_meant, 0).filter(|name| is_plain(name));
    name.unwrap_or_else(|| format!("uid {uid}"))
}

/// A group's number.
pub fn group(name: &str) -> Option<u32> {
    find("/etc/group", |fields| fields.first() == Some(&name), 2)?.parse().ok()
}

/// A field of the first line that is meant.
fn find(path: &str, is_meant: impl Fn(&[&str]) -> bool, field: usize) -> Option<String> {
    let known = files::read_limited(Path::new(path), LIMIT).ok()?;
    let known = String::from_utf8_lossy(&known);
    let mut lines = known.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| is_meant(fields)).and_then(|fields| fields.get(field).map(|value| (*value).to_owned()))
}

/// Whether a name is one that can be shown and stored as it is.
pub fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-@\\+".contains(c))
}
