//! Where snippets lie. A missing one keeps a guest from starting, before any hook is asked, so every node that may start it
//! needs it.

use crate::guest::storage::Storages;
use crate::model::NodeName;

/// A storage for snippets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub storage: String,
    /// The directory in which they lie.
    pub directory: String,
    /// Nodes that do not see what this one writes there.
    pub missing_on: Vec<NodeName>,
}

/// The storage that the most nodes see: the one made for it, else a shared one, else `local`.
pub fn place(storages: &Storages, nodes: &[NodeName], here: &NodeName, registry: &str) -> Option<Place> {
    let usable = storages.iter().filter(|(_, storage)| storage.takes_snippets() && storage.is_on(here));
    let candidates = usable.filter_map(|(name, storage)| {
        let sees = |node: &NodeName| node == here || (storage.is_shared() && storage.is_on(node));
        let missing_on = nodes.iter().filter(|node| !sees(node)).cloned().collect();
        let directory = storages.directory(name, "snippets")?;
        let is_made_for_it = storage.settings.get("path").is_some_and(|path| path.trim_end_matches('/') == registry);
        let place = Place { storage: name.to_owned(), directory, missing_on };
        Some(((place.missing_on.len(), !is_made_for_it, !storage.is_shared(), name != "local"), place))
    });
    candidates.min_by_key(|(rank, _)| *rank).map(|(_, place)| place)
}
