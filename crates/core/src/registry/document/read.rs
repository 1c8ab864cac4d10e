//! The strict way in: every complaint names file, key and value.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer as _};

use super::{Document, DocumentError, Fault, MAX_FILE_SIZE, UPGRADE};
use crate::registry::strict;

/// What to do about a file that says nothing, as long as nobody knows a copy of it.
pub const RESTORE: &str =
    "restore it from a backup, or by `pve-public-ip registry restore` on a node that has a copy of it";

/// Reads a document strictly.
///
/// Unknown keys, wrong types and contradictions are errors, so that a typing error never silently unprotects a guest.
pub fn parse<T: Document>(path: &Path, bytes: &[u8]) -> Result<T, DocumentError> {
    let error = |reason: String, hint: &str| DocumentError::new(path, reason, hint);
    let restore = RESTORE;
    if bytes.len() > MAX_FILE_SIZE {
        return Err(error(
            format!("has {} bytes; the cluster file system allows {MAX_FILE_SIZE}", bytes.len()),
            restore,
        ));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(error("is empty".to_owned(), restore));
    }
    // Nearly every file is in order, and a node reads thousands of them: what is wrong with one is looked for afterwards.
    if let Some(document) = parse_valid::<T>(bytes) {
        return Ok(document);
    }
    check_version::<T>(bytes).map_err(|(reason, hint)| DocumentError {
        fault: if hint.is_some() { Fault::Newer } else { Fault::Damaged },
        ..error(reason, hint.unwrap_or(restore))
    })?;

    let mut unknown = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut deserializer, &mut track);
    let document: Result<T, _> = serde_ignored::deserialize(tracked, |path| unknown.push(path.to_string()));
    // First the unknown key: a missing one is often its consequence.
    if let Some(path) = unknown.first() {
        let key = path.rsplit('.').next().unwrap_or(path);
        let hint = match nearest_key::<T>(key) {
            Some(known) => {
                format!("did you mean `{known}`? `pve-public-ip schema` prints all keys")
            }
            None => {
                format!("if a newer release wrote it, {UPGRADE}; `pve-public-ip schema` prints the keys of this one")
            }
        };
        let error = error(format!("has an unknown key `{path}`"), &hint);
        return Err(DocumentError { fault: Fault::UnknownKey, ..error });
    }
    let document = document.map_err(|cause| {
        let at = track.path().to_string();
        let at = if at == "." { String::new() } else { format!("{at}: ") };
        error(format!("is not valid: {at}{cause}"), "correct the value; `pve-public-ip schema` prints what is allowed")
    })?;
    match document.contradiction() {
        Some(reason) => Err(error(reason, "correct the file by hand, then run `pve-public-ip verify`")),
        None => Ok(document),
    }
}

/// A document in which nothing is wrong.
fn parse_valid<T: Document>(bytes: &[u8]) -> Option<T> {
    // Of a text nothing is looked at twice whether it is one.
    let document: T = strict::read(std::str::from_utf8(bytes).ok()?)?;
    (T::READ.contains(&document.version()) && document.contradiction().is_none()).then_some(document)
}

/// The format version that a document says, without a look at what follows it; `None`: it says none, or is no document.
///
/// A hook asks it of files with ten thousand addresses.
pub fn first_version(bytes: &[u8]) -> Option<u64> {
    struct Stop<'a>(&'a mut Option<u64>);

    impl<'de> Visitor<'de> for Stop<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a document")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<Cow<'_, str>>()? {
                if key == "version" {
                    *self.0 = Some(map.next_value()?);
                    break;
                }
                map.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }

    let mut found = None;
    // What stands behind the version is an error for the parser that is asked for no more.
    let _stopped = serde_json::Deserializer::from_slice(bytes).deserialize_map(Stop(&mut found));
    found
}

/// Looks at `version` before anything else: a newer format may have any shape.
fn check_version<T: Document>(bytes: &[u8]) -> Result<(), (String, Option<&'static str>)> {
    #[derive(Deserialize)]
    struct Versioned {
        version: Option<serde_json::Value>,
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(("begins with a byte order mark, which is no JSON: save it as UTF-8 without one".to_owned(), None));
    }
    if !bytes.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
        return Err(("has something else than a JSON object in it".to_owned(), None));
    }
    let versioned: Versioned =
        serde_json::from_slice(bytes).map_err(|cause| (format!("is not valid JSON: {cause}"), None))?;
    let Some(value) = versioned.version else {
        return Err(("is not a file of this program: it has no key `version`".to_owned(), None));
    };
    let (oldest, newest) = T::READ.into_inner();
    let known = if oldest == newest { newest.to_string() } else { format!("{oldest} to {newest}") };
    let s = if oldest == newest { "" } else { "s" };
    match value.as_u64() {
        Some(version) if T::READ.contains(&version) => Ok(()),
        Some(newer) if newer > newest => {
            let reason = format!(
                "has version {newer}, but pve-public-ip {} reads version{s} {known}: it was written by a newer release",
                env!("CARGO_PKG_VERSION")
            );
            Err((reason, Some(UPGRADE)))
        }
        _ => Err((format!("is not valid: version: `{value}` is not {known}"), None)),
    }
}

fn nearest_key<T: JsonSchema>(key: &str) -> Option<String> {
    let schema = serde_json::to_value(schemars::schema_for!(T)).ok()?;
    let mut keys = BTreeSet::new();
    collect_keys(&schema, &mut keys);
    let scored = keys.into_iter().map(|known| (strsim::damerau_levenshtein(key, &known), known));
    scored.filter(|(distance, known)| *distance <= known.len().min(key.len()) / 2).min().map(|(_, known)| known)
}

fn collect_keys(schema: &serde_json::Value, keys: &mut BTreeSet<String>) {
    if let Some(properties) = schema.get("properties").and_then(serde_json::Value::as_object) {
        keys.extend(properties.keys().cloned());
    }
    match schema {
        serde_json::Value::Object(map) => map.values().for_each(|value| collect_keys(value, keys)),
        serde_json::Value::Array(list) => list.iter().for_each(|value| collect_keys(value, keys)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::document::{GuestFile, render};

    const GUEST: &str = r#"{"version":1,"vmid":100,"interfaces":{"net0":{"mac":"02:00:00:aa:bb:cc","addresses":[
        {"address":"203.0.113.10/32","pool":"ovh","gateway":"198.51.100.254","organization":"org-1","assigned_at":"2026-11-22T10:00:00Z"}]}}}"#;

    fn guest(text: &str) -> Result<GuestFile, String> {
        parse(Path::new("100.json"), text.as_bytes()).map_err(|error| format!("{error} | {}", error.hint))
    }

    #[test]
    fn the_version_is_told_without_the_rest() {
        for (text, version) in [
            (r#"{"version":1,"pools":{}}"#, Some(1)),
            (r#"{"pools":{"a":{"version":7}},"version":2}"#, Some(2)),
            ("{\n  \"version\": 2, and nobody reads on", Some(2)),
            (r#"{"version":"1"}"#, None),
            (r#"{"pools":{}}"#, None),
            ("[1]", None),
            ("", None),
        ] {
            assert_eq!(first_version(text.as_bytes()), version, "{text}");
        }
    }

    #[test]
    fn reads_and_writes_the_documented_form() {
        let file = guest(GUEST).unwrap();
        let again = render(&file).unwrap();
        assert_eq!(guest(&String::from_utf8(again).unwrap()).unwrap(), file);
        assert_eq!(file.addresses().count(), 1);
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let edited = |from: &str, to: &str| GUEST.replace(from, to);
        for (text, reason) in [
            (String::new(), "`100.json` is empty"),
            ("{".to_owned(), "is not valid JSON"),
            ("[]".to_owned(), "has something else than a JSON object in it"),
            ("null".to_owned(), "has something else than a JSON object in it"),
            (format!("\u{feff}{GUEST}"), "begins with a byte order mark, which is no JSON"),
            ("[1".to_owned(), "is not valid JSON"),
            (
                edited(
                    "\"interfaces\":{",
                    "\"interfaces\":{\"net0\":{\"mac\":\"02:00:00:00:00:09\",\"addresses\":[]},",
                ),
                "interfaces: the key `net0` is there twice",
            ),
            ("{}".to_owned(), "has no key `version`"),
            (edited("\"version\":1", "\"version\":7"), "has version 7, but pve-public-ip 0.2.0 reads version 1"),
            (edited("\"version\":1", "\"version\":\"1\""), "version: `\"1\"` is not 1"),
            (edited("\"vmid\":100", "\"vmid\":7"), "vmid: `7` is not a VMID"),
            (edited("\"address\"", "\"adress\""), "did you mean"),
            (
                edited("\"organization\"", "\"organisation\""),
                "unknown key `interfaces.net0.addresses.0.organisation` | did you mean `organization`?",
            ),
            (edited("02:00", "03:00"), "interfaces.net0.mac: MAC address `03:00:00:aa:bb:cc` has the group bit set"),
            (edited("113.10/32", "113.10/24"), "has host bits set; did you mean 203.0.113.0/24?"),
            (edited("198.51.100.254", "fe80::1"), "the gateway is of the other family"),
            (edited("2026-11-22T10:00:00Z", "yesterday"), "assigned_at: `yesterday` is not a UTC time such as"),
            (edited("net0", "net99"), "`net99` is not a guest NIC"),
        ] {
            let message = guest(&text).unwrap_err();
            assert!(message.contains(reason), "{text}\ngave {message:?}\nwithout {reason:?}");
        }
        let huge = vec![b' '; MAX_FILE_SIZE + 1];
        let message = parse::<GuestFile>(Path::new("100.json"), &huge).unwrap_err().to_string();
        assert!(message.contains("has 1048577 bytes"), "{message}");
    }
}
