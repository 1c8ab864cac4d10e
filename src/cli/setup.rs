//! `setup`: a storage for snippets that every node has.

use serde_json::json;

use super::output::Output;
use super::{Setup, advice};
use crate::audit::{Change, Event};
use crate::cloudinit::{self, SnippetStorage};
use crate::code;
use crate::guest::storage::Storage;
use crate::guest::storages;
use crate::model::Subject;
use crate::model::text::command_line;
use crate::ops::proxmox::{self, Outcome};
use crate::reconcile::Node;
use crate::store::journal::Durability;

/// Its name, unless the administrator has made one of his own at the same place.
const NAME: &str = "public-ip";

/// The registry's directory is on every node, so the snippets below it are.
const PATH: &str = "/etc/pve/public-ip";

pub(super) fn setup(node: &Node, command: &Setup, dry_run: bool) -> anyhow::Result<Output> {
    let storages = storages(&node.paths);
    let place = cloudinit::choose_snippet_storage(&storages, &node.guests.nodes(), &node.name, PATH);
    // One of a single node does as long as there is no other node; who wants more says so.
    let is_shared = |name: &str| storages.get(name).is_some_and(Storage::is_shared);
    let suffices = |place: &SnippetStorage| place.missing_on.is_empty() && (is_shared(&place.storage) || !command.yes);
    if let Some(place) = place.filter(suffices) {
        let text = format!("storage {} takes snippets, and every node sees them: nothing to do", place.storage);
        return Ok(Output::new(text, json!({ "storage": place.storage, "changed": false })));
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
    let args = ["add", "dir", NAME, "--path", PATH, "--content", "snippets", "--shared", "1"];
    let mut text =
        format!("/etc/pve/storage.cfg gets a storage for cloud-init data that every node has:\n\n{section}\n");
    if !command.yes {
        text += &format!("nothing is changed yet: `pve-public-ip setup --yes` runs `pvesm {}`", command_line(args));
        return Ok(Output::new(text, json!({ "storage": NAME, "changed": false, "section": section })));
    }
    let outcome = proxmox::call(node, "pvesm", &args, dry_run);
    text += &outcome.line("storage").unwrap_or_default();
    if let Outcome::Failed { reason, command } = outcome {
        return Err(advice(code!("command-failed"), Subject::Node, reason, format!("try it by hand: `{command}`")));
    }
    let changed = matches!(outcome, Outcome::Done { .. });
    if changed {
        let change = Change { after: Some(json!(section)), ..Change::said(Event::StorageAdded, NAME) };
        node.store.journal.record(vec![change], Durability::Synced);
    }
    Ok(Output::new(text, json!({ "storage": NAME, "changed": changed, "section": section })))
}
