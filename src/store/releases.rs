//! Which release each node of the cluster runs, and whether all of them can read what is to be written.

use std::collections::BTreeMap;

use super::Store;
use crate::host::files;
use crate::model::{GuestKind, NodeName};
use crate::registry::document::POOLS_VERSION;
use crate::registry::{Registry, RuleError, releases};

impl Store {
    /// Refuses what another node of the cluster could not read any more. Which release a node runs it has noted itself, with
    /// `apply`. One that has noted nothing may have no such program at all, and then nothing of it is to be stopped; but where
    /// it has guests with addresses or settings, or a note that cannot be read, it has the program, and of any age.
    pub fn admits(&self, before: &Registry, after: &Registry) -> Result<(), RuleError> {
        let value = |document: Option<serde_json::Value>| document.unwrap_or_default();
        // A hundred thousand addresses are not rendered for nothing.
        let has_newer = |file| releases::KEYS.iter().any(|key| key.file == file);
        let mut added = Vec::new();
        if has_newer(releases::File::Pools) && before.pools != after.pools {
            let [old, new] = [before, after].map(|registry| value(serde_json::to_value(&registry.pools).ok()));
            added.extend(releases::added(releases::File::Pools, &old, &new));
        }
        if has_newer(releases::File::Released) && before.released != after.released {
            let [old, new] = [before, after].map(|registry| value(serde_json::to_value(&registry.released).ok()));
            added.extend(releases::added(releases::File::Released, &old, &new));
        }
        for (_, guests) in before.guests.differences(&after.guests) {
            let [old, new] = guests.map(|guest| value(serde_json::to_value(guest).ok()));
            added.extend(releases::added(releases::File::Guest, &old, &new));
        }
        if let Some(key) = added.into_iter().max_by_key(|key| releases::number(key.since)) {
            self.all_read(key.name(), key.since, before)?;
        }
        if before.pools.version != after.pools.version && after.pools.version == POOLS_VERSION {
            self.reads_pool_files(before)?;
        }
        Ok(())
    }

    /// Refuses a file for each pool while a node of the cluster could not read it.
    pub fn reads_pool_files(&self, registry: &Registry) -> Result<(), RuleError> {
        self.all_read("pools/NAME.json", releases::POOL_FILES, registry)
    }

    /// Whether every node of the cluster reads this key of a registry like that; one that is not known yet does not.
    pub fn is_read_everywhere(&self, path: &str, registry: &Registry) -> bool {
        let mut keys = releases::KEYS.iter().filter(|key| key.path == path);
        keys.all(|key| self.all_read(key.name(), key.since, registry).is_ok())
    }

    /// Refuses what only nodes with this release or a later one can read.
    fn all_read(&self, key: &'static str, since: &'static str, registry: &Registry) -> Result<(), RuleError> {
        let noted = self.releases();
        for node in self.other_nodes() {
            let note = noted.get(node.as_str());
            let release = note.cloned().flatten();
            let uses_it =
                || note.is_some() || self.paths.node_file(&node).exists() || self.has_holders(&node, registry);
            let is_older = |release: &String| releases::number(release) < releases::number(since);
            if release.as_ref().map_or_else(uses_it, is_older) {
                return Err(RuleError::TooNew { key, since, node, release });
            }
        }
        Ok(())
    }

    /// The other nodes of the cluster. A directory may outlive its node, which the list of members then lacks.
    fn other_nodes(&self) -> Vec<NodeName> {
        #[derive(serde::Deserialize)]
        struct Members {
            #[serde(default)]
            nodelist: BTreeMap<String, serde_json::Value>,
        }
        let members = files::read_limited(&self.paths.members(), 1 << 20).ok();
        let members = members.and_then(|bytes| serde_json::from_slice::<Members>(&bytes).ok());
        let members = members.map(|members| members.nodelist).filter(|nodes| !nodes.is_empty());
        let is_member = |name: &String| members.as_ref().is_none_or(|members| members.contains_key(name));
        let names = files::names(&self.paths.nodes()).into_iter().filter(is_member);
        let mut nodes: Vec<NodeName> =
            names.filter_map(|name| name.parse().ok()).filter(|node| *node != self.node).collect();
        nodes.sort_unstable();
        nodes
    }

    /// Whether a guest that holds addresses is on that node.
    fn has_holders(&self, node: &NodeName, registry: &Registry) -> bool {
        let mut holders = registry.guests.iter().filter(|(_, guest)| !guest.is_empty());
        holders.any(|(vmid, _)| {
            let kinds = [GuestKind::Qemu, GuestKind::Lxc];
            kinds.into_iter().any(|kind| self.paths.guest_config(node, kind, *vmid).exists())
        })
    }

    /// The newest release that a node of the cluster runs, if this is an older one.
    pub(super) fn newer_release(&self) -> Option<(String, String)> {
        let notes = self.releases().into_iter().filter_map(|(node, release)| Some((node, release?)));
        let own = releases::number(env!("CARGO_PKG_VERSION"));
        let newest = notes.max_by_key(|(_, release)| releases::number(release));
        newest.filter(|(_, release)| releases::number(release) > own)
    }

    /// Which release each node has noted; `None`: its note cannot be read.
    fn releases(&self) -> BTreeMap<String, Option<String>> {
        #[derive(serde::Deserialize)]
        struct Note {
            release: String,
        }
        let directory = self.paths.releases();
        let note = |name: String| {
            let node = name.strip_suffix(".json")?.to_owned();
            let bytes = files::read_limited(&directory.join(&name), 1 << 16).unwrap_or_default();
            let parsed = serde_json::from_slice::<Note>(&bytes).ok();
            // `rc1` is no release that could be compared.
            Some((node, parsed.map(|note| note.release).filter(|release| !releases::number(release).is_empty())))
        };
        files::names(&directory).into_iter().filter_map(note).collect()
    }
}
