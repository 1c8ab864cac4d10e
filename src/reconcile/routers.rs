//! The routers behind the uplinks: what is known of them, what can be learnt, and who answers when asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread;

use super::network::Network;
use super::{Mode, Node, ReconcileError};
use crate::model::{IfName, MacAddr};
use crate::paths::Paths;
use crate::plan::{Inputs, Learnt, Question, Sighting, gateways, is_uplink_of, learn, news};
use crate::registry::document::{Mode as PoolMode, Pool};
use crate::store::journal;
use crate::system::{probe, routers};

impl Node {
    /// What is known of the routers behind the uplinks; with [`Mode::Apply`] what can be learnt now, too.
    pub(super) fn look_at_routers(
        &self,
        network: &mut dyn Network,
        inputs: &mut Inputs,
        mode: Mode,
    ) -> Result<(), ReconcileError> {
        inputs.routers = routers::load(&self.paths);
        let is_bridged = |pool: &Pool| pool.mode() == PoolMode::Bridged;
        if inputs.routers.is_empty() && !inputs.registry.pools.pools.values().any(is_bridged) {
            return Ok(());
        }
        inputs.next_hops = network.next_hops(&inputs.links)?;
        let mut sightings = routers::heard(&self.paths);
        let heard = sightings.len();
        inputs.found_gateways = network.found_gateways(&gateways(inputs), &inputs.links)?;
        let mut by_device: BTreeMap<IfName, BTreeSet<(IpAddr, MacAddr)>> = BTreeMap::new();
        for ((device, address), mac) in &inputs.found_gateways {
            by_device.entry(*device).or_default().extend(mac.map(|mac| (*address, mac)));
        }
        for (device, found) in by_device {
            let heard = network.heard_behind(&inputs.links, &found.iter().map(|(_, mac)| (device, *mac)).collect())?;
            let is_outside = |mac: &MacAddr| heard.get(mac).is_some_and(|port| is_uplink_of(inputs, device, *port));
            let outside = found.into_iter().filter(|(_, mac)| is_outside(mac));
            sightings.extend(outside.map(|(address, mac)| Sighting { bridge: device, address, mac, advertised: None }));
        }
        let Learnt { routers, refused } =
            learn(inputs, &sightings, inputs.registry.broken.is_empty(), journal::now().0.as_secs());
        inputs.refused_routers = refused;
        if mode == Mode::Plan {
            // What is not written down is not known to the next one who looks.
            return Ok(());
        }
        if routers != inputs.routers {
            for line in news(&inputs.routers, &routers) {
                log::info!("{line}");
            }
            if let Err(error) = routers::save(&self.paths, &routers) {
                log::warn!(
                    "cannot write `{}`, so that it must be learnt again: {error}",
                    self.paths.routers().display()
                );
            }
        }
        if heard > 0 {
            if let Err(error) = routers::taken_in(&self.paths, heard) {
                log::debug!("what was heard of routers is taken in once more next time: {error}");
            }
        }
        inputs.routers = routers;
        Ok(())
    }
}

/// The same question is asked again after this time (seconds): advertisements tell who else is a router by now.
const ASKED_AGAIN: u64 = 600;

/// Asks by the uplinks, and notes who answers; says whether anybody did.
pub(crate) fn ask_routers(paths: &Paths, questions: &[Question]) -> bool {
    if !routers::is_due(paths, questions, journal::now().0.as_secs(), ASKED_AGAIN) {
        return false;
    }
    let asked: Vec<(&Question, IfName)> =
        questions.iter().flat_map(|question| question.uplinks.iter().map(move |uplink| (question, *uplink))).collect();
    // All at once: each takes most of a second.
    let sightings: Vec<Sighting> = thread::scope(|scope| {
        let asking: Vec<_> =
            asked.iter().map(|(question, uplink)| scope.spawn(|| probe::ask_routers(question, *uplink))).collect();
        let answers = asking.into_iter().zip(&asked).filter_map(|(thread, (_, uplink))| match thread.join() {
            Ok(Ok(found)) => Some(found),
            Ok(Err(error)) => {
                log::debug!("cannot ask on {uplink} where the routers are: {error}");
                None
            }
            Err(_) => None,
        });
        answers.flatten().collect()
    });
    let is_answered = !sightings.is_empty();
    if let Err(error) = routers::note(paths, sightings) {
        log::warn!("cannot note which routers answered: {error}");
    }
    is_answered
}
