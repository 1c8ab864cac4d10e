//! Where snippets lie. A missing one keeps a guest from starting, before any hook is asked, so every node that may start it
//! needs it.

use crate::guest::storage::Storages;
use crate::model::NodeName;

/// A storage for snippets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnippetStorage {
    /// Its name.
    pub storage: String,
    /// The directory in which they lie.
    pub directory: String,
    /// Nodes that do not see what this one writes there.
    pub missing_on: Vec<NodeName>,
}

/// The storage that the most nodes see: the one made for it, else a shared one, else `local`.
pub fn choose_snippet_storage(
    storages: &Storages,
    nodes: &[NodeName],
    here: &NodeName,
    registry: &str,
) -> Option<SnippetStorage> {
    let usable = storages.iter().filter(|(_, storage)| storage.takes_snippets() && storage.is_on(here));
    let candidates = usable.filter_map(|(name, storage)| {
        let sees = |node: &NodeName| node == here || (storage.is_shared() && storage.is_on(node));
        let missing_on = nodes.iter().filter(|node| !sees(node)).cloned().collect();
        let directory = storages.directory(name, "snippets")?;
        let is_made_for_it = storage.settings.get("path").is_some_and(|path| path.trim_end_matches('/') == registry);
        let place = SnippetStorage { storage: name.to_owned(), directory, missing_on };
        Some(((place.missing_on.len(), !is_made_for_it, !storage.is_shared(), name != "local"), place))
    });
    candidates.min_by_key(|(rank, _)| *rank).map(|(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTRY: &str = "/etc/pve/public-ip";
    const LOCAL: &str = "dir: local\n\tpath /var/lib/vz\n\tcontent snippets\n\n";
    const OURS: &str = "dir: mine\n\tpath /etc/pve/public-ip/\n\tcontent snippets\n\tshared 1\n\n";
    const SHARE: &str = "nfs: share\n\tserver 192.0.2.1\n\texport /x\n\tcontent snippets\n\n";

    fn chosen(text: &str, nodes: &[&str]) -> Option<(String, String, usize)> {
        let nodes: Vec<NodeName> = nodes.iter().map(|node| node.parse().unwrap()).collect();
        let place = choose_snippet_storage(&Storages::parse(text), &nodes, &nodes[0], REGISTRY)?;
        Some((place.storage, place.directory, place.missing_on.len()))
    }

    #[test]
    fn the_storage_that_most_nodes_see_is_taken() {
        let found = |storage: &str, directory: &str, missing| Some((storage.to_owned(), directory.to_owned(), missing));
        let both = ["n1", "n2"];
        let ours = found("mine", "/etc/pve/public-ip/snippets", 0);
        assert_eq!(chosen(&format!("{LOCAL}{SHARE}{OURS}"), &both), ours);
        assert_eq!(chosen(&format!("{LOCAL}{SHARE}"), &both), found("share", "/mnt/pve/share/snippets", 0));
        assert_eq!(chosen(LOCAL, &both), found("local", "/var/lib/vz/snippets", 1));
        assert_eq!(chosen(LOCAL, &["n1"]), found("local", "/var/lib/vz/snippets", 0));
        // Shared, but not with everybody: the one of more nodes.
        let some = SHARE.replace("content", "nodes n1,n2\n\tcontent");
        assert_eq!(
            chosen(&format!("{LOCAL}{some}"), &["n1", "n2", "n3"]),
            found("share", "/mnt/pve/share/snippets", 1)
        );
        let others = SHARE.replace("content", "nodes n2,n3\n\tcontent");
        assert_eq!(chosen(&format!("{LOCAL}{others}"), &["n1", "n2"]), found("local", "/var/lib/vz/snippets", 1));
        assert_eq!(chosen("dir: local\n\tpath /var/lib/vz\n\tcontent iso\n", &both), None);
    }
}
