//! What to configure inside a guest by hand.

use std::collections::BTreeMap;

use crate::cloudinit::{self, Manual};
use crate::guest::GuestConfig;
use crate::ops::network::resolver;
use crate::reconcile::Node;
use crate::registry::document::{GuestFile, PoolsFile};

/// For a guest that nobody tells its addresses, or because it is asked for: as text and for programs.
pub(super) fn by_hand(
    node: &Node,
    guest: &GuestFile,
    pools: &PoolsFile,
    config: &GuestConfig,
    asked: bool,
) -> Option<(String, Option<BTreeMap<String, String>>)> {
    let resolver = resolver(node);
    let reason = match cloudinit::wanted(guest, pools, config, &resolver) {
        Ok(_) if !asked => return None,
        Ok(_) => String::new(),
        Err(reason) => format!("not told, because {reason}; "),
    };
    let manuals = match cloudinit::manuals(guest, pools, config, &resolver) {
        Ok(manuals) => manuals,
        Err(cannot) => return Some((format!("inside: {reason}and nobody can say how: {cannot}\n"), None)),
    };
    // The titles are comments in each of the ways.
    let ways = manuals.iter().map(|Manual { title, text, .. }| format!("\n# {title}\n{text}"));
    let text = format!("inside: {reason}by hand it is done so\n{}", ways.collect::<String>());
    let data = manuals.iter().map(|Manual { key, text, .. }| ((*key).to_owned(), text.clone()));
    Some((text, Some(data.collect())))
}
