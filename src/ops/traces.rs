//! Gathers where guests' addresses can be seen, beside their configurations and the neighbour table.

use std::collections::BTreeMap;
use std::time::Duration;

use super::conflicts::{allowed, given_by_sdn};
use crate::cloudinit;
use crate::guest::Located;
use crate::hookscript::volume_path;
use crate::host::files;
use crate::links::is_guest_port;
use crate::model::Vmid;
use crate::model::text::one_line;
use crate::plan::traces::{Place, Trace, Traces, Who, in_rules};
use crate::reconcile::Node;
use crate::system::sent::{SentError, Watched};
use crate::system::{Kernel, Reference, by_hand};

/// Larger than any network document.
const DOCUMENT_LIMIT: usize = 1 << 20;

/// What the bridge ports of this node send for so long. Every frame passes as before.
pub(super) fn watched(time: Duration) -> Result<Traces, SentError> {
    let mut watched = Watched::begin()?;
    std::thread::sleep(time);
    watched.read()
}

/// All of it but what ports send, and what could not be looked at.
pub(super) fn gathered(node: &Node, guests: &BTreeMap<Vmid, Located>) -> (Traces, Vec<String>) {
    let (mut traces, mut unread) = (Traces::default(), Vec::new());
    for (vmid, located) in guests {
        match of_document(node, *vmid, located) {
            Ok(found) => traces.all.extend(found),
            Err(why) => unread.push(why),
        }
    }
    let sets = allowed(node, |vmid| guests.contains_key(&vmid)).into_iter();
    traces.all.extend(sets.map(|(vmid, nic, net)| Trace {
        who: Who::Nic(vmid, nic),
        address: net.addr(),
        place: Place::FirewallSet,
    }));
    let given = given_by_sdn(node).into_iter();
    traces.all.extend(
        given.filter_map(|given| Some(Trace { who: Who::Mac(given.mac?), address: given.address, place: Place::Sdn })),
    );
    match Kernel::open(Reference::default()).and_then(|mut kernel| kernel.host_routes()) {
        Ok(routes) => traces.all.extend(routes.into_iter().map(|(address, device)| {
            let who = if is_guest_port(device.as_str()) { Who::Port(device) } else { Who::Bridge(device) };
            Trace { who, address, place: Place::Route }
        })),
        Err(error) => unread.push(format!("the node's routes: {}", one_line(&error.to_string()))),
    }
    let (rules, failed) = by_hand::rules();
    traces.all.extend(rules.iter().flat_map(|(program, text)| in_rules(program, text)));
    unread.extend(failed);
    (traces, unread)
}

/// The addresses of a guest's own network document. One of another node's storage is that node's to read.
fn of_document(node: &Node, vmid: Vmid, Located { node: on, config }: &Located) -> Result<Vec<Trace>, String> {
    let Some(volume) = config.cicustom().get("network").copied() else { return Ok(Vec::new()) };
    let path = volume_path(&node.paths, volume).map_err(|why| format!("`{volume}` of guest {vmid}: {why}"))?;
    let bytes = match files::read_limited(&path, DOCUMENT_LIMIT) {
        Ok(bytes) => bytes,
        Err(_) if *on != node.name => return Err(format!("`{volume}` of guest {vmid}: run `import` on {on}")),
        Err(error) => return Err(format!("`{volume}` of guest {vmid}: {error}")),
    };
    let mut found = Vec::new();
    for (mac, nets) in cloudinit::addresses(&String::from_utf8_lossy(&bytes)) {
        for (nic, _) in config.nics.iter().filter(|(_, nic)| nic.as_ref().is_ok_and(|nic| nic.mac == Some(mac))) {
            let who = Who::Nic(vmid, *nic);
            found.extend(nets.iter().map(|net| Trace { who, address: net.addr(), place: Place::Document }));
        }
    }
    Ok(found)
}
