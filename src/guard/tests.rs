use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;

use super::files::{Answer, Ask, Files};
use super::repair::{Repair, Repairer, Wanted};
use super::schedule::Cause;
use super::sentry::Barrier;
use crate::links::Link;
use crate::plan::{Event, NetState, Rules, Step};
use crate::reconcile::fake::{GUESTS, Scene, name};
use crate::reconcile::{Node, ReconcileError, Report};
use crate::ruleset::{Element, SetId, Table};
use crate::system::Reference;
use crate::system::run::{RunError, RunState};

/// What the cluster file system does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Changed,
    Unchanged,
    Broken,
    Silent(Duration),
}

/// The cluster's files, and the fence; both note what is asked of them.
struct Around<'a> {
    node: &'a Node,
    mood: Mood,
    said: &'a RefCell<Vec<&'static str>>,
}

impl Files for Around<'_> {
    fn ask(&mut self, ask: Ask, _limit: Duration) -> Option<Answer> {
        self.said.borrow_mut().push(if ask == Ask::All { "ask for all" } else { "ask" });
        match self.mood {
            Mood::Changed => Some(Answer::News(Box::new(self.node.read_sources().unwrap()))),
            Mood::Unchanged => Some(Answer::Same),
            Mood::Broken => Some(Answer::Failed(ReconcileError::Silent(self.node.paths.etc_pve()))),
            Mood::Silent(_) => None,
        }
    }

    fn silent_for(&self) -> Option<Duration> {
        if let Mood::Silent(since) = self.mood { Some(since) } else { None }
    }
}

struct Fence<'a> {
    stands: Cell<bool>,
    said: &'a RefCell<Vec<&'static str>>,
}

impl Barrier for Fence<'_> {
    fn expect(&self, _tables: BTreeSet<Table>, _reference: Reference) {
        self.said.borrow_mut().push("expect");
    }

    fn stand_by(&self) {
        self.said.borrow_mut().push("stand by");
    }

    fn is_fenced(&self) -> bool {
        self.stands.get()
    }

    fn lift(&self) {
        self.said.borrow_mut().push("lift");
        self.stands.set(false);
    }
}

/// A guard without its loop, on a node in memory.
struct Watched {
    scene: Scene,
    repairer: Repairer,
    said: RefCell<Vec<&'static str>>,
}

impl Watched {
    /// It has looked once, and all is well.
    fn new() -> Self {
        let mut watched = Self::unseen();
        assert!(watched.look(Cause::Request, Mood::Changed).unwrap().is_some());
        watched.repairer.repairs.clear();
        watched
    }

    fn unseen() -> Self {
        let scene = Scene::running();
        let repairer = Repairer::new(scene.node.clone());
        Self { scene, repairer, said: RefCell::default() }
    }

    fn look(&mut self, cause: Cause, mood: Mood) -> Result<Option<Report>, ReconcileError> {
        self.look_fenced(cause, mood, false)
    }

    fn look_fenced(&mut self, cause: Cause, mood: Mood, fenced: bool) -> Result<Option<Report>, ReconcileError> {
        self.said.borrow_mut().clear();
        let mut files = Around { node: &self.scene.node, mood, said: &self.said };
        let fence = Fence { stands: Cell::new(fenced), said: &self.said };
        let outcome = self.repairer.look(cause, &mut files, &fence);
        assert!(!fence.stands.get(), "whatever comes of it, the guests are not cut off for long");
        self.scene.was_safe();
        outcome
    }

    fn state(&self) -> NetState {
        self.scene.net.world().state.clone()
    }

    fn reads(&self) -> usize {
        self.scene.net.world().reads
    }

    fn flush(&self) {
        self.scene.net.world().change_filter(|state| {
            Step::RemoveTable(Table::Bridge).apply_to(state);
            Step::RemoveTable(Table::Inet).apply_to(state);
        });
    }
}

#[test]
fn what_each_event_asks_for() {
    let mut watched = Watched::new();
    let generation = watched.scene.net.world().generation;
    let (tap, strange) = (Scene::port(102), name("tap900i0"));
    let link = watched.scene.net.world().links.get(tap).unwrap().clone();
    let state = watched.state();
    let (net, route) = state.routes.iter().next().map(|(net, route)| (*net, *route)).unwrap();
    let ((on, address), mac) = state.neighbours.iter().next().map(|(key, mac)| (*key, *mac)).unwrap();
    let index = |device| watched.scene.net.world().links.get(device).unwrap().index;
    let (on, through) = (index(on), index(route.device));
    let filter = |generation| Event::Filter { generation, by: "nft".to_owned() };
    let neighbour = |mac| Event::Neighbour { index: on, address, mac };
    let led = |present| Event::Route { net, index: through, via: None, present, ours: true };
    let none = Wanted::default();
    let wants = |cause| Wanted { causes: BTreeSet::from([cause]), chains: false };
    let cases = [
        (filter(generation), none),
        (filter(generation + 1), wants(Cause::Filter)),
        (Event::Lost, wants(Cause::Filter)),
        (Event::Chains, Wanted { chains: true, ..Wanted::default() }),
        (neighbour(Some(mac)), Wanted::default()),
        (neighbour(None), wants(Cause::Network)),
        (led(true), Wanted::default()),
        (led(false), wants(Cause::Network)),
        (Event::Link(tap, Link { screened: true, ..link.clone() }), Wanted::default()),
        (Event::LinkGone(strange), Wanted::default()),
        (Event::Link(strange, Link { index: 900, ..link }), wants(Cause::Network)),
        (Event::LinkGone(tap), wants(Cause::Network)),
    ];
    for (event, wanted) in cases {
        let shown = format!("{event:?}");
        assert_eq!(watched.repairer.weigh(vec![event]), wanted, "{shown}");
    }
}

#[test]
fn what_others_change_is_put_back_and_they_are_named() {
    let mut watched = Watched::new();
    let before = watched.state();
    let element = before.elements.iter().find(|element| element.set() == SetId::Ports).cloned().unwrap();
    watched.scene.net.world().change_filter(|state| drop(state.elements.take(&element)));
    let generation = watched.scene.net.world().generation;
    watched.repairer.weigh(vec![Event::Filter { generation, by: "nft".to_owned() }]);
    watched.look(Cause::Filter, Mood::Unchanged).unwrap().unwrap();
    assert_eq!(watched.state(), before);
    let drift = BTreeSet::from([format!("missing {}", element.meaning(true))]);
    let repair = Repair { drift, changed_by: Some("nft".to_owned()), has_changed: true };
    assert_eq!(watched.repairer.repairs, [repair]);
    // A change of what is wanted is nobody's drift.
    watched.repairer.repairs.clear();
    watched.scene.assign(100, "203.0.113.12");
    watched.look(Cause::Files, Mood::Changed).unwrap().unwrap();
    assert_eq!(watched.repairer.repairs, [Repair { has_changed: true, ..Repair::default() }]);
    // Nor is an interface that goes by itself.
    watched.repairer.repairs.clear();
    watched.scene.unplug(103);
    watched.repairer.weigh(vec![Event::LinkGone(Scene::port(103))]);
    watched.look(Cause::Network, Mood::Unchanged).unwrap().unwrap();
    assert_eq!(watched.repairer.repairs[0].drift, BTreeSet::new());
}

#[test]
fn the_filter_is_read_when_it_may_have_changed_and_only_then() {
    let mut watched = Watched::new();
    let mut reads = watched.reads();
    let mut is_read = |watched: &Watched| std::mem::replace(&mut reads, watched.reads()) != watched.reads();
    watched.look(Cause::Network, Mood::Unchanged).unwrap();
    assert!(!is_read(&watched), "nobody has touched it");
    watched.scene.net.world().state.routes.clear();
    watched.look(Cause::Network, Mood::Unchanged).unwrap();
    assert!(!is_read(&watched), "a route is not of the filter");
    watched.scene.assign(100, "203.0.113.12");
    watched.look(Cause::Files, Mood::Changed).unwrap();
    watched.look(Cause::Network, Mood::Unchanged).unwrap();
    assert!(!is_read(&watched), "what the guard does itself it knows");
    watched.flush();
    watched.look(Cause::Filter, Mood::Unchanged).unwrap();
    assert!(is_read(&watched), "somebody else's transaction");
    watched.look(Cause::Timer, Mood::Changed).unwrap();
    assert!(is_read(&watched), "an event may have been missed");
    watched.scene.net.refuse(|step| matches!(step, Step::ChangeElements { .. }));
    watched.scene.assign(100, "203.0.113.13");
    assert!(watched.look(Cause::Files, Mood::Changed).unwrap().unwrap().was_refused);
    is_read(&watched);
    watched.scene.net.refuse_nothing();
    watched.look(Cause::Retry, Mood::Unchanged).unwrap();
    assert!(is_read(&watched), "a step had failed");
    watched.flush();
    watched.look(Cause::Filter, Mood::Broken).unwrap_err();
    is_read(&watched);
    watched.look(Cause::Network, Mood::Unchanged).unwrap();
    assert!(is_read(&watched), "the last look did not trust the files");
}

#[test]
fn while_the_files_cannot_be_read_protection_is_put_back_and_nothing_is_taken_away() {
    for (mood, cause, is_restored) in [
        (Mood::Broken, Cause::Filter, true),
        (Mood::Broken, Cause::Files, true),
        (Mood::Silent(Duration::ZERO), Cause::Filter, true),
        (Mood::Silent(Duration::from_secs(60)), Cause::Network, true),
        // Nothing tells that anything is missing.
        (Mood::Silent(Duration::ZERO), Cause::Files, false),
    ] {
        let mut watched = Watched::new();
        let before = watched.state();
        watched.flush();
        let stray = Element::port(SetId::Ports, name("tap900i0"));
        watched.scene.net.world().change_filter(|state| state.elements.extend([stray.clone()]));
        let outcome = watched.look(cause, mood);
        match mood {
            Mood::Silent(since) if since.is_zero() => assert!(outcome.unwrap().is_none(), "{mood:?}"),
            _ => assert!(matches!(outcome, Err(ReconcileError::Silent(_))), "{mood:?}"),
        }
        let after = watched.state();
        assert_eq!(after.elements.is_superset(&before.elements), is_restored, "{mood:?} {cause:?}");
        assert!(after.elements.contains(&stray), "{mood:?}: it may be meant");
    }
}

#[test]
fn a_guard_that_starts_while_nobody_can_read_goes_by_what_was_known_last() {
    let mut watched = Watched::new();
    let before = watched.state();
    watched.flush();
    watched.repairer = Repairer::new(watched.scene.node.clone());
    watched.look(Cause::Request, Mood::Broken).unwrap_err();
    assert!(watched.state().elements.is_superset(&before.elements));
    assert_eq!(watched.state().rules, Rules::Loaded);
    // Nothing was known: nothing is done.
    let mut watched = Watched::unseen();
    watched.look(Cause::Request, Mood::Broken).unwrap_err();
    assert_eq!(watched.state(), NetState::default());
}

#[test]
fn a_fence_comes_down_before_anybody_is_waited_for() {
    let mut watched = Watched::new();
    let before = watched.state();
    watched.flush();
    watched.look_fenced(Cause::Filter, Mood::Unchanged, true).unwrap();
    assert_eq!(*watched.said.borrow(), ["expect", "lift", "ask", "expect", "lift"]);
    assert_eq!(watched.state(), before);
    // Another process holds the lock: the filter is put back without it.
    watched.flush();
    let lock = RunState::lock(&watched.scene.node.paths, Duration::from_secs(5)).unwrap();
    let outcome = watched.look_fenced(Cause::Filter, Mood::Unchanged, true);
    assert!(matches!(outcome, Err(ReconcileError::Run(RunError::Busy(_)))), "{outcome:?}");
    assert_eq!(*watched.said.borrow(), ["expect", "lift"]);
    assert_eq!(watched.state(), before);
    drop(lock);
}

#[test]
fn a_network_that_does_not_answer_is_asked_again() {
    let mut watched = Watched::new();
    let before = watched.state();
    watched.flush();
    watched.scene.net.world().hangs = true;
    assert!(matches!(watched.look(Cause::Filter, Mood::Unchanged), Err(ReconcileError::Kernel(_))));
    assert!(!watched.repairer.relies_on_gateways(), "the connection is given up");
    watched.scene.net.world().hangs = false;
    watched.look(Cause::Retry, Mood::Unchanged).unwrap().unwrap();
    assert_eq!(watched.state(), before);
}

#[test]
fn what_fails_for_one_guest_is_tried_again_and_others_are_right() {
    let mut watched = Watched::new();
    let before = watched.state();
    for guest in GUESTS {
        watched.flush();
        let port = Scene::port(guest);
        watched.scene.net.refuse(move |step| {
            let is_own = |element: &Element| element.names().port == Some(port);
            matches!(step, Step::ChangeElements { add, .. } if add.iter().any(is_own))
        });
        let report = watched.look(Cause::Filter, Mood::Unchanged).unwrap().unwrap();
        assert!(report.was_refused && !report.failed.is_empty());
        let missing: Vec<Element> = before.elements.difference(&watched.state().elements).cloned().collect();
        assert!(!missing.is_empty());
        let others = GUESTS.into_iter().filter(|other| *other != guest).map(Scene::port);
        for other in others {
            assert!(missing.iter().all(|element| element.names().port != Some(other)), "{guest}: {other}");
        }
        watched.scene.net.refuse_nothing();
        watched.look(Cause::Retry, Mood::Unchanged).unwrap();
        assert_eq!(watched.state(), before, "guest {guest}");
    }
}

#[test]
fn other_rules_are_no_reason_to_cut_anybody_off() {
    let mut watched = Watched::new();
    watched.scene.write("public-ip/nodes/n1.json", r#"{"version":1,"backend":"nftables","log_group":7}"#);
    watched.look(Cause::Files, Mood::Changed).unwrap();
    assert_eq!(*watched.said.borrow(), ["ask", "stand by", "expect", "lift"]);
}
