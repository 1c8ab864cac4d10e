//! Sees to the programs at guests' ports, in a thread of its own: the kernel takes some ten milliseconds for each, and a node
//! that has just been given this release has a thousand ports without.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::model::{IfName, Problem};
use crate::paths::Paths;
use crate::plan::PortWish;
use crate::reconcile::attend_ports;

type Wishes = BTreeMap<IfName, PortWish>;

/// What is to be done next, by whom, and what was said about it.
#[derive(Debug, Default)]
struct State {
    next: Option<Wishes>,
    is_busy: bool,
    /// What is wrong as far as it is known, so that it is said once.
    said: BTreeSet<String>,
}

/// The thread, while there is something to do, and its list.
#[derive(Debug, Default)]
pub(super) struct Ports(Arc<Mutex<State>>);

impl Ports {
    /// Has each port get what it is to have. What was wanted before and is not done yet is forgotten for it.
    pub(super) fn want(&self, paths: &Paths, wishes: &Wishes) {
        let mut state = lock(&self.0);
        if wishes.is_empty() {
            state.next = None;
            return;
        }
        state.next = Some(wishes.clone());
        if state.is_busy {
            return;
        }
        let (list, paths) = (Arc::clone(&self.0), paths.clone());
        match thread::Builder::new().name("ports".to_owned()).spawn(move || work(&list, &paths)) {
            Ok(_) => state.is_busy = true,
            Err(error) => log::warn!("guard: no program is attached to ports: {error}"),
        }
    }
}

fn lock(list: &Mutex<State>) -> MutexGuard<'_, State> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(list: &Mutex<State>, paths: &Paths) {
    loop {
        let wishes = {
            let mut state = lock(list);
            let next = state.next.take();
            state.is_busy = next.is_some();
            next
        };
        let Some(wishes) = wishes else { return };
        say(list, attend_ports(paths, &wishes));
    }
}

/// Says what was not said before.
fn say(list: &Mutex<State>, problems: Vec<Problem>) {
    let mut state = lock(list);
    for problem in problems.iter().filter(|problem| !state.said.contains(&problem.sentence)) {
        log::warn!("{}", problem.sentence);
        log::warn!("hint: {}", problem.hint);
    }
    state.said = problems.into_iter().map(|problem| problem.sentence).collect();
}
