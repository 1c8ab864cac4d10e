//! Which release of this program reads which key: what one node writes, all nodes of the cluster have to read, and until all
//! are upgraded some run an older release, which refuses a file with a key that it does not know.
//!
//! A key that has come after release 0.1.0 is only written when it says something else than its default, and only when every
//! node can read it. A test compares [`KEYS`] with the keys of 0.1.0: one that is in neither list does not pass.

use serde_json::Value;

/// Which file of the registry a key is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// `pools.json`
    Pools,
    /// `guests/VMID.json`
    Guest,
    /// `released.json`
    Released,
    /// `nodes/NODE.json`, which is read by that node only
    Node,
}

/// A key that older releases refuse.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// Where it is.
    pub file: File,
    /// Its place; `*` stands for any name and any position of a list. With `=value` only that value is new.
    pub path: &'static str,
    /// The first release that reads it.
    pub since: &'static str,
}

/// Where the MACs stand that NICs had before.
pub const GIVEN_MACS: &str = "given_macs";

/// What has come after release 0.1.0.
pub const KEYS: &[Key] = &[
    Key { file: File::Guest, path: "interfaces.*.router_advertisements", since: "0.2.0" },
    Key { file: File::Guest, path: "interfaces.*.addresses.*.vps_id", since: "0.2.0" },
    Key { file: File::Guest, path: GIVEN_MACS, since: "0.2.0" },
    Key { file: File::Guest, path: "given_macs.*.given", since: "0.2.0" },
    Key { file: File::Guest, path: "given_macs.*.former", since: "0.2.0" },
    Key { file: File::Guest, path: "interfaces.*.addresses.*.via", since: "0.2.0" },
    Key { file: File::Guest, path: "interfaces.*.addresses.*.shared", since: "0.2.0" },
    Key { file: File::Guest, path: "interfaces.*.also", since: "0.2.0" },
    Key { file: File::Guest, path: "interfaces.*.further_macs", since: "0.2.0" },
    Key { file: File::Guest, path: "interfaces.*.vrrp", since: "0.2.0" },
    Key { file: File::Pools, path: "pools.*.enforce", since: "0.2.0" },
    Key { file: File::Pools, path: "pools.*.nodes", since: "0.2.0" },
    Key { file: File::Pools, path: "pools.*.elsewhere", since: "0.2.0" },
    Key { file: File::Node, path: "enforce", since: "0.2.0" },
    Key { file: File::Node, path: "port_program", since: "0.2.0" },
];

impl Key {
    /// The last name of its place.
    pub fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// Whether a document has it.
    fn is_in(&self, document: &Value) -> bool {
        let (path, value) = self.path.split_once('=').map_or((self.path, None), |(path, value)| (path, Some(value)));
        let names: Vec<&str> = path.split('.').collect();
        has(document, &names, value)
    }
}

fn has(at: &Value, names: &[&str], value: Option<&str>) -> bool {
    match (names, at) {
        ([], found) => value.is_none_or(|value| found.as_str() == Some(value)),
        (["*", rest @ ..], Value::Object(map)) => map.values().any(|next| has(next, rest, value)),
        (["*", rest @ ..], Value::Array(list)) => list.iter().any(|next| has(next, rest, value)),
        ([name, rest @ ..], Value::Object(map)) => map.get(*name).is_some_and(|next| has(next, rest, value)),
        _ => false,
    }
}

/// Keys that a change puts into a document. One that has a key already is no worse for having it still.
pub fn added(file: File, before: &Value, after: &Value) -> Vec<&'static Key> {
    let of_file = KEYS.iter().filter(|key| key.file == file && file != File::Node);
    of_file.filter(|key| key.is_in(after) && !key.is_in(before)).collect()
}

/// The first release that reads a file for each pool.
pub const POOL_FILES: &str = "0.2.0";

/// `0.2.0` as numbers, to be compared.
pub fn number(release: &str) -> Vec<u64> {
    release.split(['.', '-', '+', '~']).map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemars::{JsonSchema, schema_for};
    use serde_json::json;

    use super::*;
    use crate::registry::document::{GuestFile, NodeFile, PoolsFile, ReleasedFile};

    /// Every key of a schema with its place, and every word that a value may be.
    fn places(root: &Value, at: &Value, path: &str, found: &mut BTreeSet<String>) {
        if let Some(name) = at.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix("#/$defs/")) {
            places(root, &root["$defs"][name], path, found);
        }
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        for (name, next) in at.get("properties").and_then(Value::as_object).into_iter().flatten() {
            found.insert(below(name));
            places(root, next, &below(name), found);
        }
        for kind in ["additionalProperties", "items"] {
            at.get(kind).into_iter().for_each(|next| places(root, next, &below("*"), found));
        }
        for next in at.get("patternProperties").and_then(Value::as_object).into_iter().flatten() {
            places(root, next.1, &below("*"), found);
        }
        for kind in ["anyOf", "oneOf", "allOf"] {
            let parts = at.get(kind).and_then(Value::as_array).into_iter().flatten();
            parts.for_each(|next| places(root, next, path, found));
        }
        let words = at.get("enum").and_then(Value::as_array).into_iter().flatten().chain(at.get("const"));
        found.extend(words.filter_map(Value::as_str).map(|word| format!("{path}={word}")));
    }

    fn all<T: JsonSchema>(file: &str) -> BTreeSet<String> {
        let schema = serde_json::to_value(schema_for!(T)).unwrap();
        let mut found = BTreeSet::new();
        places(&schema, &schema, "", &mut found);
        found.into_iter().map(|place| format!("{file} {place}")).collect()
    }

    #[test]
    fn every_key_says_which_release_reads_it() {
        let mut now = all::<PoolsFile>("pools");
        now.extend(all::<GuestFile>("guest"));
        now.extend(all::<ReleasedFile>("released"));
        now.extend(all::<NodeFile>("node"));
        let first: BTreeSet<String> = include_str!("keys-0.1.0.txt").lines().map(str::to_owned).collect();
        let name = |file: File| match file {
            File::Pools => "pools",
            File::Guest => "guest",
            File::Released => "released",
            File::Node => "node",
        };
        let later: BTreeSet<String> = KEYS.iter().map(|key| format!("{} {}", name(key.file), key.path)).collect();
        // What a new key may say is as new as the key.
        let of_new_key = |place: &String| place.split_once('=').is_some_and(|(key, _)| later.contains(key));
        let new: BTreeSet<&String> = now.difference(&first).filter(|place| !of_new_key(place)).collect();
        assert_eq!(new, later.iter().collect(), "keys that KEYS lacks, or names in vain");
        let lost: Vec<&String> = first.difference(&now).collect();
        assert!(lost.is_empty(), "keys of 0.1.0 that this release refuses: {lost:?}");
        assert!(first.len() > 60, "{first:?}");
        for key in KEYS {
            assert!(number(key.since) > number("0.1.0") && number(key.since) <= number(env!("CARGO_PKG_VERSION")));
        }
    }

    #[test]
    fn what_a_change_adds_is_found_wherever_it_stands() {
        let with = |value: Value| json!({"interfaces": {"net0": {}, "net1": {"router_advertisements": value}}});
        let without = json!({"interfaces": {"net0": {}, "net1": {}}});
        assert_eq!(added(File::Guest, &without, &with(true.into())), [&KEYS[0]]);
        assert_eq!(added(File::Guest, &Value::Null, &with(false.into())), [&KEYS[0]]);
        assert!(added(File::Guest, &with(true.into()), &with(false.into())).is_empty(), "it is there already");
        assert!(added(File::Guest, &with(true.into()), &without).is_empty());
        assert!(added(File::Pools, &without, &with(true.into())).is_empty());
        let word = Key { file: File::Pools, path: "pools.*.list.*=new", since: "0.2.0" };
        assert!(word.is_in(&json!({"pools": {"a": {"list": ["old", "new"]}}})));
        assert!(!word.is_in(&json!({"pools": {"a": {"list": ["old"]}}})));
    }

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for (older, newer) in
            [("0.1.0", "0.2.0"), ("0.9.9", "0.10.0"), ("0.2.0", "0.2.1"), ("", "0.1.0"), ("0.1.0~rc1", "0.2.0")]
        {
            assert!(number(older) < number(newer), "{older} {newer}");
        }
    }
}
