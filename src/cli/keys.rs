//! `key` and `serve`: who may call the API, and the root part that answers.

use serde_json::json;

use super::answers::{Keys, ListedKey};
use super::output::{Output, table};
use super::{KeyAdd, KeyCommand, Serve, advice};
use crate::code;
use crate::model::text::escaped;
use crate::model::{Moment, Subject};
use crate::ops::keys::{self, KeyAdded, NewKey, role_word};
use crate::paths::Paths;
use crate::reconcile::Node;
use crate::reply::Key;
use crate::serve;
use crate::store::journal::now;

pub(super) fn run(node: &Node, command: KeyCommand, dry_run: bool) -> anyhow::Result<Output> {
    match command {
        KeyCommand::Add(command) => add(node, command, dry_run),
        KeyCommand::List => list(node),
        KeyCommand::Revoke { name, .. } => {
            let revoked = keys::revoke(node, &name, dry_run)?;
            let text = match (revoked.changed, dry_run) {
                (true, false) => format!("key `{}` is revoked", escaped(&name)),
                (true, true) => format!("key `{}` would be revoked", escaped(&name)),
                (false, _) => format!("there is no key `{}`", escaped(&name)),
            };
            Ok(Output::new(text, json!(revoked)))
        }
    }
}

fn add(node: &Node, command: KeyAdd, dry_run: bool) -> anyhow::Result<Output> {
    let KeyAdd { name, role, organization, expires, .. } = command;
    let expires_at = expires.map(|span| span.ahead(now()));
    let added = keys::add(node, &NewKey { name, role, organization, expires_at }, dry_run)?;
    let KeyAdded { key, secret } = &added;
    let text = match secret {
        None => format!("key `{}` would be made, role {}", key.name, role_word(key.role)),
        Some(secret) => format!(
            "key `{}` is made, role {}. Its secret is shown this once:\n{secret}\ncallers send it as `x-api-secret: ...`",
            key.name,
            role_word(key.role)
        ),
    };
    Ok(Output::new(text, json!(added)))
}

fn list(node: &Node) -> anyhow::Result<Output> {
    let all = keys::list(node)?.keys;
    if all.is_empty() {
        let text = "no keys; `pve-public-ip key add NAME --role gateway` makes one";
        return Ok(Output::new(text, json!(Keys { keys: Vec::new() })));
    }
    let time = |moment: Option<Moment>| moment.map(Moment::to_second).unwrap_or_default();
    let row = |key: &Key| {
        let has_expired = key.expires_at.is_some_and(|end| end <= now());
        vec![
            key.name.clone(),
            role_word(key.role).to_owned(),
            key.organization.as_deref().map(|name| escaped(name).into_owned()).unwrap_or_default(),
            time(Some(key.created_at)),
            time(key.expires_at) + if has_expired { " (over)" } else { "" },
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    let keys = all.into_iter().map(ListedKey::from).collect();
    Ok(Output::new(table(&["name", "role", "organization", "made", "until"], &rows), json!(Keys { keys })))
}

pub(super) fn serve(paths: &Paths, command: &Serve, dry_run: bool) -> anyhow::Result<Output> {
    if dry_run {
        let hint = "a request can be a dry run: `\"dry_run\": true`";
        return Err(advice(code!("no-dry-run"), Subject::Command, "serve cannot pretend", hint));
    }
    match &command.listen {
        Some(socket) => serve::listen(paths, socket, &command.user)?,
        // A peer that is gone is no failure: it has its answer, or did not want it.
        None => {
            if let Err(error) = serve::serve(paths, &command.user) {
                log::debug!("the connection ended: {error}");
            }
        }
    }
    Ok(Output::new("", serde_json::Value::Null))
}
