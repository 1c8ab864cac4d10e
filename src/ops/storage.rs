//! A storage for the guests' cloud-init data that every node has.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::proxmox::{self, Outcome};
use super::{Done, advice, told};
use crate::audit::{Change, Event};
use crate::cloudinit::{self, SnippetStorage};
use crate::code;
use crate::guest::storage::Storage;
use crate::guest::storages;
use crate::model::{Problem, Subject};
use crate::reconcile::Node;
use crate::request::AddSnippetStorage;
use crate::store::journal::Durability;

/// Its name, unless the administrator has made one of his own at the same place.
const NAME: &str = "public-ip";

/// The registry's directory is on every node, so the snippets below it are.
const PATH: &str = "/etc/pve/public-ip";

/// How Proxmox VE is told to add it.
pub(crate) const ARGUMENTS: [&str; 9] = ["add", "dir", NAME, "--path", PATH, "--content", "snippets", "--shared", "1"];

/// The storage that takes the guests' cloud-init data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SnippetStorageAdded {
    /// Its name.
    pub storage: String,
    /// Whether it was added now.
    pub changed: bool,
    /// What `/etc/pve/storage.cfg` gets; absent if there is one that does.
    pub section: Option<String>,
    /// How `pvesm` ended.
    pub outcome: Outcome,
}

/// Adds a storage for cloud-init data, unless there is one that does.
pub fn add_snippet_storage(
    node: &Node,
    request: &AddSnippetStorage,
    dry_run: bool,
) -> Result<Done<SnippetStorageAdded>, Problem> {
    told(add(node, request, dry_run)).map(|answer| Done::without_node(answer, dry_run))
}

fn add(node: &Node, request: &AddSnippetStorage, dry_run: bool) -> anyhow::Result<SnippetStorageAdded> {
    let storages = storages(&node.paths);
    let found = cloudinit::choose_snippet_storage(&storages, &node.guests.nodes(), &node.name, PATH);
    // One of a single node does as long as there is no other node; who wants more says so.
    let is_shared = |name: &str| storages.get(name).is_some_and(Storage::is_shared);
    let suffices =
        |found: &SnippetStorage| found.missing_on.is_empty() && (is_shared(&found.storage) || !request.shared);
    if let Some(found) = found.filter(suffices) {
        let outcome = Outcome::AsWanted;
        return Ok(SnippetStorageAdded { storage: found.storage, changed: false, section: None, outcome });
    }
    if let Some(other) = storages.get(NAME) {
        let path = other.settings.get("path").map_or("no path", String::as_str);
        let sentence =
            format!("there is a storage `{NAME}` of type {} with {path}, which not every node can use", other.kind);
        return Err(advice(
            code!("storage-in-the-way"),
            Subject::Node,
            format!("cannot make a storage for cloud-init data: {sentence}"),
            format!(
                "`pvesm set {NAME} --content snippets --delete nodes,disable` if it is at {PATH}; else give it another name"
            ),
        ));
    }
    let section = format!("dir: {NAME}\n\tpath {PATH}\n\tcontent snippets\n\tshared 1\n");
    let outcome = proxmox::call(node, "pvesm", &ARGUMENTS, dry_run);
    if let Outcome::Failed { reason, command } = outcome {
        return Err(advice(code!("command-failed"), Subject::Node, reason, format!("try it by hand: `{command}`")));
    }
    let changed = matches!(outcome, Outcome::Done { .. });
    if changed {
        let change = Change { after: Some(json!(section)), ..Change::said(Event::StorageAdded, NAME) };
        node.store.journal.record(vec![change], Durability::Synced);
    }
    Ok(SnippetStorageAdded { storage: NAME.to_owned(), changed, section: Some(section), outcome })
}
