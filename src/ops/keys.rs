//! Keys of the API: made, listed, revoked.

use std::fs::File;
use std::io::Read as _;

use schemars::JsonSchema;
use serde::Serialize;

use super::{problem_of, told};
use crate::audit::{Change, Event};
use crate::code;
use crate::host::command;
use crate::model::{Moment, Problem, Subject};
use crate::reconcile::Node;
use crate::reply::{Key, Keys, Role};
use crate::store::StoreError;
use crate::store::journal::{Durability, now};

/// A key that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KeyAdded {
    /// The key, as it is stored.
    #[serde(flatten)]
    pub key: Key,
    /// What proves it; nobody can show it again. Absent for a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// A key that was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KeyRevoked {
    /// Its name.
    pub name: String,
    /// Whether there was one.
    pub changed: bool,
}

/// What a key is to be.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Its name: it is in the audit log of whatever is done with it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The organization whose addresses it sees and touches.
    pub organization: Option<String>,
    /// From when on it counts no more.
    pub expires_at: Option<Moment>,
}

/// The keys.
pub fn list(node: &Node) -> Result<Keys, Problem> {
    let keys = node.store.keys().map_err(|error| problem_of(&error.into()))?;
    Ok(Keys { keys })
}

/// Makes a key. The one place where its secret is known.
pub fn add(node: &Node, new: &NewKey, dry_run: bool) -> Result<KeyAdded, Problem> {
    check(new)?;
    told(make(node, new, dry_run))
}

fn make(node: &Node, new: &NewKey, dry_run: bool) -> anyhow::Result<KeyAdded> {
    let NewKey { name, role, organization, expires_at } = new.clone();
    let mut random = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let secret = format!("ppip_{}", random.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    // A program of every Debian, given the secret where nobody sees it, instead of a library in front of each guest's start.
    let printed = command::run("sha256sum", &[], secret.as_bytes())?;
    let sha256 = String::from_utf8_lossy(&printed).chars().take_while(char::is_ascii_hexdigit).collect();
    let key = Key { name, sha256, role, organization, created_at: now().whole_second(), expires_at };
    let added = |keys: &mut Vec<Key>| {
        if keys.iter().any(|known| known.name == key.name) {
            return Err(anyhow::Error::from(exists(&key.name)));
        }
        keys.push(key.clone());
        Ok(())
    };
    if dry_run {
        added(&mut node.store.keys()?)?;
        return Ok(KeyAdded { key, secret: None });
    }
    node.store.change_keys(added)?;
    let text = format!("{}, role {}", key.name, role_word(key.role));
    node.store.journal.record(vec![Change::said(Event::KeyAdded, text)], Durability::Synced);
    Ok(KeyAdded { key, secret: Some(secret) })
}

fn exists(name: &str) -> Problem {
    let sentence = format!("there is a key `{name}` already");
    let hint = format!("choose another name, or `pve-public-ip key revoke {name}` first");
    Problem::new(code!("key-exists"), Subject::Command, sentence, hint)
}

/// The word of the command line.
pub(crate) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Gateway => "gateway",
        Role::Superadmin => "superadmin",
    }
}

fn check(new: &NewKey) -> Result<(), Problem> {
    let refused =
        |sentence: String, hint: &str| Err(Problem::new(code!("key-invalid"), Subject::Command, sentence, hint));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if new.name.is_empty() || new.name.len() > 64 || !new.name.chars().all(is_plain) {
        let hint = "1 to 64 letters, digits, `-`, `_` and `.`: `pve-public-ip key add billing --role gateway`";
        return refused(format!("`{}` is no name of a key", new.name), hint);
    }
    if new.role == Role::Superadmin && new.organization.is_some() {
        let sentence = "a superadmin sees all organizations, and cannot be bound to one".to_owned();
        return refused(sentence, "leave `--organization` out, or take `--role gateway`");
    }
    if new.expires_at.is_some_and(|end| end <= now()) {
        return refused(
            "the key would have expired already".to_owned(),
            "`--expires` is a time to come, or a span: 90d",
        );
    }
    Ok(())
}

/// Takes a key back; every node's gateway notices within two seconds.
pub fn revoke(node: &Node, name: &str, dry_run: bool) -> Result<KeyRevoked, Problem> {
    let remove = |keys: &mut Vec<Key>| -> Result<bool, StoreError> {
        let before = keys.len();
        keys.retain(|key| key.name != name);
        Ok(keys.len() < before)
    };
    let outcome = if dry_run {
        node.store.keys().and_then(|mut keys| remove(&mut keys))
    } else if node.store.keys().is_ok_and(|keys| keys.iter().all(|key| key.name != name)) {
        Ok(false)
    } else {
        node.store.change_keys(remove)
    };
    let changed = outcome.map_err(|error| problem_of(&error.into()))?;
    if changed && !dry_run {
        node.store.journal.record(vec![Change::said(Event::KeyRevoked, name)], Durability::Synced);
    }
    Ok(KeyRevoked { name: name.to_owned(), changed })
}
