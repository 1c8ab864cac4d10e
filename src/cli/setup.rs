//! `setup`: a storage for snippets that every node has.

use super::Setup;
use super::output::Output;
use crate::model::text::command_line;
use crate::ops::storage::ARGUMENTS;
use crate::ops::{self, SnippetStorageAdded};
use crate::reconcile::Node;
use crate::request::AddSnippetStorage;

pub(super) fn setup(node: &Node, command: &Setup, dry_run: bool) -> anyhow::Result<Output> {
    let request = AddSnippetStorage { shared: command.yes };
    let done = ops::add_snippet_storage(node, &request, dry_run || !command.yes)?;
    let SnippetStorageAdded { storage, section, outcome, .. } = &done.answer;
    let Some(section) = section else {
        let text = format!("storage {storage} takes snippets, and every node sees them: nothing to do");
        return Ok(Output::of(&done, &[text], &[]));
    };
    let mut lines =
        vec![format!("/etc/pve/storage.cfg gets a storage for cloud-init data that every node has:\n\n{section}")];
    if command.yes {
        lines.extend(outcome.line("storage"));
    } else {
        let call = command_line(ARGUMENTS);
        lines.push(format!("nothing is changed yet: `pve-public-ip setup --yes` runs `pvesm {call}`"));
    }
    Ok(Output::of(&done, &lines, &[]))
}
