use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use super::fake::{GUESTS, Scene, World, name, vmid};
use super::*;
use crate::plan::{NetState, Rules, Step, Subject, Subjects, diff};
use crate::registry::Registry;
use crate::ruleset::{Element, SetId, Table};

/// What is still to be done, and whose that is.
fn left_over(desired: &NetState, found: &NetState, registry: &Registry) -> BTreeSet<Subject> {
    let subjects = Subjects::new(registry);
    let mut whose = BTreeSet::new();
    for step in diff(desired, found) {
        match &step {
            Step::ChangeElements { add, remove } => {
                whose.extend(add.iter().chain(remove).map(|element| subjects.of_element(element)));
            }
            step => drop(whose.insert(subjects.of(step))),
        }
    }
    whose
}

fn registry(scene: &Scene) -> Registry {
    scene.node.read_sources().unwrap().inputs().registry.clone()
}

/// The step, as far as it is this guest's, in words by which it is found again in a scene of its own.
fn kinds_of(step: &Step, guest: u32, subjects: &Subjects<'_>) -> Vec<String> {
    let own = Subject::Guest(vmid(guest));
    match step {
        Step::ChangeElements { add, remove } => {
            let own = add.iter().chain(remove).filter(|element| subjects.of_element(element) == own);
            own.map(ToString::to_string).collect()
        }
        step => (subjects.of(step) == own).then(|| step.to_string()).into_iter().collect(),
    }
}

fn is_of_kind(step: &Step, kind: &str) -> bool {
    match step {
        Step::ChangeElements { add, remove } => add.iter().chain(remove).any(|element| element.to_string() == kind),
        step => step.to_string() == kind,
    }
}

#[test]
fn whatever_fails_for_one_guest_leaves_the_others_right() {
    let all = Scene::running();
    let report = all.node.reconcile(Mode::Apply).unwrap();
    assert_eq!(report.failed, []);
    all.was_safe();
    let desired = all.net.world().state.clone();
    let registry = registry(&all);
    let (subjects, done) = (Subjects::new(&registry), all.net.world().done.clone());
    let mut tried = 0;
    for guest in [100, 102] {
        let kinds: BTreeSet<String> = done.iter().flat_map(|step| kinds_of(step, guest, &subjects)).collect();
        for kind in kinds {
            let scene = Scene::running();
            let refused = kind.clone();
            scene.net.refuse(move |step| is_of_kind(step, &refused));
            let report = scene.node.reconcile(Mode::Apply).unwrap();
            let own = BTreeSet::from([Subject::Guest(vmid(guest))]);
            let failed: BTreeSet<Subject> = report.failed.iter().map(|failed| failed.subject.clone()).collect();
            assert_eq!((failed, report.was_refused), (own.clone(), true), "{kind}");
            assert_eq!(left_over(&desired, &scene.net.world().state, &registry), own, "{kind}");
            scene.was_safe();
            // What was refused is done as soon as it is taken.
            scene.net.refuse_nothing();
            assert!(scene.node.reconcile(Mode::Apply).unwrap().failed.is_empty(), "{kind}");
            assert_eq!(diff(&desired, &scene.net.world().state), [], "{kind}");
            scene.was_safe();
            tried += 1;
        }
    }
    assert!(tried >= 15, "kinds of steps: {tried}");
}

#[test]
fn what_guests_leave_behind_is_removed_in_the_order_of_safety() {
    let scene = Scene::running();
    scene.node.reconcile(Mode::Apply).unwrap();
    for guest in GUESTS {
        scene.write(
            &format!("public-ip/guests/{guest}.json"),
            &format!(r#"{{"version":1,"vmid":{guest},"interfaces":{{}}}}"#),
        );
    }
    // One whose route cannot be removed keeps its filter.
    scene.net.refuse(|step| matches!(step, Step::RemoveRoute(net) if net.to_string() == "192.0.2.9/32"));
    let report = scene.node.reconcile(Mode::Apply).unwrap();
    assert_eq!(report.failed.len(), 1, "{:?}", report.failed);
    let bound = Element::bound_address("192.0.2.9/32".parse().unwrap());
    assert!(bound.iter().all(|element| scene.net.world().state.elements.contains(element)));
    scene.was_safe();
    scene.net.refuse_nothing();
    scene.node.reconcile(Mode::Apply).unwrap();
    scene.was_safe();
    let world = scene.net.world();
    assert!(world.state.routes.is_empty() && world.state.neighbours.is_empty() && world.state.forwarding.is_empty());
    assert!(bound.iter().all(|element| !world.state.elements.contains(element)));
}

#[test]
fn a_look_changes_nothing() {
    let scene = Scene::running();
    let report = scene.node.reconcile(Mode::Plan).unwrap();
    assert!(!report.steps.is_empty());
    assert_eq!(scene.net.world().done, []);
    assert_eq!(scene.net.world().state, NetState::default());
    assert!(!scene.node.paths.run().join("guests/100").exists(), "no mark is written");
}

#[test]
fn a_network_that_does_not_answer_is_an_error_and_nothing_is_changed() {
    let scene = Scene::running();
    scene.net.world().hangs = true;
    let error = scene.node.reconcile(Mode::Apply).unwrap_err();
    assert!(matches!(error, ReconcileError::Kernel(_)), "{error}");
    scene.net.world().hangs = false;
    assert_eq!(scene.net.world().state, NetState::default());
    assert!(scene.node.reconcile(Mode::Apply).unwrap().failed.is_empty());
}

#[test]
fn memory_puts_back_and_takes_nothing_away() {
    let scene = Scene::running();
    scene.node.reconcile(Mode::Apply).unwrap();
    let before = scene.net.world().state.clone();
    // Of the files nothing is left, as while pmxcfs is down.
    std::fs::remove_dir_all(scene.node.paths.etc_pve()).unwrap();
    let stray = Element::port(SetId::Ports, name("tap999i0"));
    scene.net.world().change_filter(|state| {
        *state = NetState { elements: [stray.clone()].into(), rules: Rules::Different, ..state.clone() };
    });
    assert!(scene.node.protect_by_memory().unwrap());
    let after = scene.net.world().state.clone();
    let missing: Vec<_> = before.elements.difference(&after.elements).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(after.rules, Rules::Loaded);
    assert!(after.elements.contains(&stray), "it may be meant");
    scene.was_safe();
}

/// A change that somebody else makes.
#[derive(Debug, Clone)]
enum Change {
    RemoveElement(u16),
    AddElement(u32),
    RemoveTable(bool),
    SpoilRules(bool),
    RemoveRoute(u16),
    RemoveNeighbour(u16),
    MoveNeighbour(u16),
    RemoveForwarding(u16),
    RemoveSupport(u16),
    Unplug(u16),
    Plug(u32),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<u16>;
    prop_oneof![
        index().prop_map(Change::RemoveElement),
        (200u32..210).prop_map(Change::AddElement),
        any::<bool>().prop_map(Change::RemoveTable),
        any::<bool>().prop_map(Change::SpoilRules),
        index().prop_map(Change::RemoveRoute),
        index().prop_map(Change::RemoveNeighbour),
        index().prop_map(Change::MoveNeighbour),
        index().prop_map(Change::RemoveForwarding),
        index().prop_map(Change::RemoveSupport),
        index().prop_map(Change::Unplug),
        (200u32..210).prop_map(Change::Plug),
    ]
}

fn pick<K: Clone>(index: u16, keys: impl Iterator<Item = K>) -> Option<K> {
    let keys: Vec<K> = keys.collect();
    (!keys.is_empty()).then(|| keys[usize::from(index) % keys.len()].clone())
}

impl Change {
    fn make(self, scene: &Scene) {
        let mut world = scene.net.world();
        let table = |is_bridge| if is_bridge { Table::Bridge } else { Table::Inet };
        let world: &mut World = &mut world;
        match self {
            Self::RemoveElement(index) => {
                if let Some(element) = pick(index, world.state.elements.iter().cloned()) {
                    world.change_filter(|state| state.elements.retain(|other| *other != element));
                }
            }
            Self::AddElement(number) => {
                let element = Element::port(SetId::Ports, name(&format!("tap{number}i0")));
                world.change_filter(|state| state.elements.extend([element]));
            }
            Self::RemoveTable(is_bridge) => {
                world.change_filter(|state| Step::RemoveTable(table(is_bridge)).apply_to(state));
            }
            Self::SpoilRules(is_bridge) => world.change_filter(|state| {
                let rules = state.rules_of_mut(table(is_bridge));
                *rules = (*rules).min(Rules::Different);
            }),
            Self::RemoveRoute(index) => {
                let key = pick(index, world.state.routes.keys().copied());
                key.map(|key| world.state.routes.remove(&key));
            }
            Self::RemoveNeighbour(index) => {
                let key = pick(index, world.state.neighbours.keys().copied());
                key.map(|key| world.state.neighbours.remove(&key));
            }
            Self::MoveNeighbour(index) => {
                let key = pick(index, world.state.neighbours.keys().copied());
                let elsewhere = "02:00:00:00:00:fe".parse().unwrap();
                key.map(|key| world.state.neighbours.insert(key, elsewhere));
            }
            Self::RemoveForwarding(index) => {
                let key = pick(index, world.state.forwarding.keys().copied());
                key.map(|key| world.state.forwarding.remove(&key));
            }
            Self::RemoveSupport(index) => {
                let setting = pick(index, world.state.support.settings.iter().copied());
                setting.map(|setting| world.state.support.settings.remove(&setting));
                let proxy = pick(index, world.state.support.proxies.iter().copied());
                proxy.map(|proxy| world.state.support.proxies.remove(&proxy));
            }
            Self::Unplug(index) => world.lose(Scene::port(GUESTS[usize::from(index) % GUESTS.len()])),
            Self::Plug(number) => {
                let link = crate::links::Link { index: number, master: Some(name("vmbr0")), ..Default::default() };
                world.links.0.insert(name(&format!("tap{number}i0")), link);
            }
        }
    }
}

#[test]
fn a_kept_baseline_misses_nothing() {
    let scene = Scene::running();
    let run = RunState::lock(&scene.node.paths, NODE_LOCK_LIMIT).unwrap();
    let mut sources = scene.node.read_sources().unwrap();
    let look = |sources: &mut Sources, baseline: Baseline<'_>, mode| {
        let mut network = scene.net.clone();
        let mut reconciler = Reconciler::new(&scene.node, &run, &mut network, mode);
        reconciler.reconcile(Scope::Node(sources, Trust::Whole), baseline).unwrap()
    };
    let mut left = Left::default();
    let report = look(&mut sources, Baseline::Kept(&mut left), Mode::Apply);
    left.state = report.desired;
    let after = scene.net.world().clone();
    let reads = after.reads;
    // With nothing changed there is nothing to read, and nothing to do.
    assert_eq!(look(&mut sources, Baseline::Kept(&mut left.clone()), Mode::Plan).steps, []);
    assert_eq!(scene.net.world().reads, reads);

    let changes = proptest::collection::vec(change(), 1..6);
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::with_cases(64), rng);
    let outcome = runner.run(&changes, |changes| {
        *scene.net.world() = after.clone();
        for change in changes {
            change.make(&scene);
        }
        let mut sources = scene.node.read_sources().unwrap();
        let unknown = look(&mut sources, Baseline::Unknown, Mode::Plan);
        let kept = look(&mut sources, Baseline::Kept(&mut left.clone()), Mode::Plan);
        prop_assert_eq!(&kept.steps, &unknown.steps);
        prop_assert_eq!(kept.desired, unknown.desired);
        Ok(())
    });
    outcome.unwrap();
    // Both ways were taken: of these two only the second one makes the filter be read.
    for (change, is_read) in [(Change::RemoveRoute(0), false), (Change::RemoveElement(0), true)] {
        *scene.net.world() = after.clone();
        change.clone().make(&scene);
        let report = look(&mut sources, Baseline::Kept(&mut left.clone()), Mode::Plan);
        assert!(!report.steps.is_empty(), "{change:?}");
        assert_eq!(scene.net.world().reads > reads, is_read, "{change:?}");
    }
}

/// One reconciliation does for all changes that were written before it began, and for no other.
#[test]
fn many_changes_are_followed_at_once() {
    let scene = Scene::running();
    let about = Subject::Guest(vmid(100));
    let own = |followed: Follow| match followed {
        Follow::Own(report) => Some(report.steps.len()),
        Follow::Shared(shared) => {
            assert_eq!(shared.failed.len(), 1);
            None
        }
    };
    let follow = || own(scene.node.follow(&about).unwrap());
    assert!(follow().is_some_and(|steps| steps > 0));
    // What was reconciled before this change began before it was written.
    assert_eq!(follow(), Some(0));
    let failed = |subject: Subject| vec![crate::model::Problem::new(crate::code!("failed"), subject, "no", "")];
    let share = |later: bool, subject: Subject| {
        let mut began = Tick::now().unwrap();
        if later {
            began = began.later(Duration::from_secs(3600));
        }
        let run = RunState::lock(&scene.node.paths, NODE_LOCK_LIMIT).unwrap();
        run.set_followed(&Shared { began, failed: failed(subject), notes: Vec::new() });
    };
    share(true, Subject::Guest(vmid(102)));
    assert_eq!(follow(), None, "somebody else's trouble is told");
    share(false, Subject::Guest(vmid(102)));
    assert_eq!(follow(), Some(0));
    for subject in [about.clone(), Subject::Node] {
        share(true, subject);
        assert_eq!(follow(), Some(0), "what failed for this guest is tried again");
    }
    share(true, Subject::Guest(vmid(102)));
    let note = scene.node.paths.run().join("followed");
    let text = crate::host::files::read_limited(&note, 1 << 16).unwrap();
    let text = String::from_utf8(text).unwrap();
    let boot = crate::host::files::read_kernel(std::path::Path::new("/proc/sys/kernel/random/boot_id")).unwrap();
    crate::host::files::replace(&note, text.replace(boot.trim(), "another boot").as_bytes()).unwrap();
    assert_eq!(follow(), Some(0));
}

/// While the lock is waited for, somebody else does it.
#[test]
fn who_waits_for_the_lock_is_followed_by_whoever_has_it() {
    let scene = Scene::running();
    let node = scene.node.clone();
    node.reconcile(Mode::Apply).unwrap();
    let run = RunState::lock(&node.paths, NODE_LOCK_LIMIT).unwrap();
    let waiter = {
        let node = node.clone();
        std::thread::spawn(move || {
            node.follow(&Subject::Guest(vmid(100))).map(|follow| matches!(follow, Follow::Shared(_)))
        })
    };
    // It is in the kernel's queue.
    let locks = || crate::host::files::read_kernel(std::path::Path::new("/proc/locks")).unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(node.paths.run().join("node.lock")).unwrap());
    let is_waiting = || locks().lines().any(|line| line.contains("->") && line.contains(&format!(":{inode} ")));
    while !is_waiting() {
        std::thread::sleep(Duration::from_millis(5));
    }
    node.reconcile_locked(run, |run, sources, report| {
        let began = sources.began.clone().unwrap();
        run.set_followed(&Shared { began, failed: Vec::new(), notes: report.notes.clone() });
    })
    .unwrap();
    assert!(waiter.join().unwrap().unwrap());
}
