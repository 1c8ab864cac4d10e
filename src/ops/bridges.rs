//! Whether a bridge that a pool or a guest shall use is one whose frames are filtered: said when it is named, not at the
//! next start.

use super::advice;
use crate::code;
use crate::model::{IfName, Subject};
use crate::plan::{Problem, Surroundings, unfiltered};
use crate::reconcile::Node;
use crate::survey::look_at_interfaces;
use crate::system::{Kernel, Reference};

/// The node as its kernel and its configuration show it.
pub(crate) fn surroundings(node: &Node) -> anyhow::Result<Surroundings> {
    let mut surroundings = Kernel::open(Reference::default())?.surroundings()?;
    surroundings.in_cluster = node.guests.nodes().len() > 1;
    // Not every node has one; whoever needs what is missing then says so.
    if let Ok(configured) = look_at_interfaces(&node.paths) {
        surroundings.complete(&configured);
    }
    Ok(surroundings)
}

/// Refuses what is there and is no Linux bridge, or is configured to be none. A bridge that is neither there nor configured
/// is a problem of this node: other nodes may have it.
pub(crate) fn check(node: &Node, surroundings: &Surroundings, bridge: IfName) -> anyhow::Result<Option<Problem>> {
    let Some((why, hint)) = unfiltered(&surroundings.links, bridge) else { return Ok(None) };
    if surroundings.links.get(bridge).is_some() {
        return Err(advice(code!("bridge-not-filtered"), Subject::Interface(bridge), why, hint));
    }
    let sentence = format!("{why}: guests with addresses do not start on {} as long as it is so", node.name);
    Ok(Some(Problem::new(code!("bridge-missing"), Subject::Interface(bridge), sentence, hint)))
}
