use super::*;
use crate::host::files;
use crate::plan::{NetState, Rules, Step, Subject, Subjects};
use crate::reconcile::fake::{GUESTS, Scene, vmid};
use crate::ruleset::{Element, SetId, Table};

#[test]
fn a_kept_part_of_the_pools_is_used_until_the_file_changes() {
    let root = tempfile::tempdir().unwrap();
    let paths = crate::paths::Paths::new(root.path());
    let node = Node::open(paths.clone()).unwrap();
    let vmid = "100".parse().unwrap();
    let hook = Hook { node: &node, vmid, guest: GuestScope { node: &node, vmid, migrated_from: None } };
    let pools = |addresses: &str| {
        files::directories(&paths.registry()).unwrap();
        let text = format!(
            r#"{{"version":1,"pools":{{"a":{{"profile":"generic-bridged","bridge":"vmbr0","addresses":[{addresses}]}}}}}}"#
        );
        files::replace(&paths.pools_file(), text.as_bytes()).unwrap();
    };
    let file: GuestFile = serde_json::from_str(
        r#"{"version":1,"vmid":100,"interfaces":{"net0":{"mac":"02:00:00:aa:bb:cc","addresses":[
            {"address":"203.0.113.10/32","pool":"a","assigned_at":"2026-11-22T10:00:00Z"}]}}}"#,
    )
    .unwrap();
    let nothing = BTreeSet::new();
    let configured = BTreeSet::from(["203.0.113.77/24".parse().unwrap()]);
    let entries = |pools: &Pools| -> Vec<String> {
        pools
            .part
            .pools
            .pools
            .values()
            .flat_map(|pool| &pool.addresses)
            .map(|entry| entry.address.to_string())
            .collect()
    };

    pools(r#"{"address":"203.0.113.8/29"},{"address":"203.0.113.64/26"},{"address":"2001:db8::/64"}"#);
    let read = hook.pools(&file, &configured).unwrap();
    assert!(read.is_new);
    assert_eq!(entries(&read), ["203.0.113.8/29", "203.0.113.64/26"]);
    RunState::lock(&paths, LOCK_LIMIT).unwrap().set_pools_part(hook.vmid, &read.part);
    for asked in [&configured, &nothing] {
        let again = hook.pools(&file, asked).unwrap();
        assert!(!again.is_new);
        assert_eq!(again.part, read.part);
    }
    let more = BTreeSet::from(["2001:db8::5/64".parse().unwrap()]);
    assert_eq!(entries(&hook.pools(&file, &more).unwrap()), ["203.0.113.8/29", "2001:db8::/64"]);

    pools(r#"{"address":"203.0.113.10/32"}"#);
    let changed = hook.pools(&file, &configured).unwrap();
    assert!(changed.is_new);
    assert_eq!(entries(&changed), ["203.0.113.10"]);
    pools("{}");
    let message = hook.pools(&file, &configured).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("missing field `address`"), "{message}");
}

fn call(scene: &Scene, guest: u32, phase: Phase) -> Result<(), String> {
    run(&scene.node, vmid(guest), phase, None).map_err(|error| error.to_string())
}

/// From nothing to a guest that runs.
fn start(scene: &Scene, guest: u32) {
    call(scene, guest, Phase::PreStart).unwrap();
    scene.plug(guest);
    call(scene, guest, Phase::PostStart).unwrap();
}

fn state(scene: &Scene) -> NetState {
    scene.net.world().state.clone()
}

#[test]
fn a_guest_comes_and_goes() {
    let scene = Scene::new();
    for guest in GUESTS {
        call(&scene, guest, Phase::PreStart).unwrap();
        let before = state(&scene);
        let port = Scene::port(guest);
        assert_eq!(before.rules, Rules::Loaded);
        assert!(before.elements.contains(&Element::port(SetId::Ports, port)), "guest {guest}");
        assert!(before.forwarding.keys().all(|(pinned, _)| *pinned != port), "there is no port yet");
        scene.plug(guest);
        call(&scene, guest, Phase::PostStart).unwrap();
        assert!(state(&scene).forwarding.keys().any(|(pinned, _)| *pinned == port), "guest {guest}");
        assert!(state(&scene).screened_ports.contains(&port));
    }
    // What hooks do one after the other is what `apply` does.
    assert_eq!(scene.node.reconcile(Mode::Plan).unwrap().steps, []);
    assert!(scene.net.world().sent.iter().any(|device| device.as_str() == "vmbr0"), "they are announced");
    let with_all = state(&scene);
    for guest in GUESTS {
        scene.unplug(guest);
        call(&scene, guest, Phase::PostStop).unwrap();
        assert!(!state(&scene).elements.contains(&Element::port(SetId::Ports, Scene::port(guest))));
        assert_eq!(scene.node.reconcile(Mode::Plan).unwrap().steps, [], "guest {guest}");
    }
    let down = state(&scene);
    assert!(down.routes.is_empty() && down.neighbours.is_empty() && down.forwarding.is_empty(), "{down:?}");
    let reserved =
        |state: &NetState| state.elements.iter().filter(|element| element.set() == SetId::ReservedIp4).count();
    assert!(reserved(&down) > 0 && reserved(&down) == reserved(&with_all), "addresses stay reserved");
    scene.was_safe();
}

#[test]
fn one_guest_that_stops_takes_nothing_from_the_others() {
    for guest in GUESTS {
        let scene = Scene::new();
        for other in GUESTS {
            start(&scene, other);
        }
        let before = state(&scene);
        scene.unplug(guest);
        call(&scene, guest, Phase::PostStop).unwrap();
        let after = state(&scene);
        let registry = scene.node.read_sources().unwrap().inputs().registry.clone();
        let subjects = Subjects::new(&registry);
        for step in crate::plan::diff(&before, &after) {
            let whose: BTreeSet<Subject> = match &step {
                Step::ChangeElements { add, remove } => {
                    add.iter().chain(remove).map(|element| subjects.of_element(element)).collect()
                }
                step => [subjects.of(step)].into(),
            };
            assert_eq!(whose, [Subject::Guest(vmid(guest))].into(), "{step}");
        }
        scene.was_safe();
    }
}

#[test]
fn pre_start_fails_for_what_its_own_guest_needs() {
    let elements_of = |guest: u32| {
        move |step: &Step| {
            let port = Scene::port(guest);
            let is_own = |element: &Element| element.names().port == Some(port);
            matches!(step, Step::ChangeElements { add, .. } if add.iter().any(is_own))
        }
    };
    let refused = "the rules were loaded, but the kernel shows others";
    // Guest 101 runs, and its bindings cannot be had.
    let scene = Scene::new();
    start(&scene, 101);
    scene.net.world().change_filter(|state| *state = NetState::default());
    scene.net.refuse(elements_of(101));
    for guest in [100, 102] {
        call(&scene, guest, Phase::PreStart).unwrap();
    }
    let message = call(&scene, 101, Phase::PreStart).unwrap_err();
    assert!(message.contains(refused), "{message}");
    scene.was_safe();
    // What everybody needs stops everybody.
    let everybody: [fn(&Step) -> bool; 2] =
        [|step| *step == Step::DeclareSets(Table::Bridge), |step| *step == Step::LoadRules(Table::Bridge)];
    for fails in everybody {
        let scene = Scene::new();
        scene.net.refuse(fails);
        for guest in GUESTS {
            let message = call(&scene, guest, Phase::PreStart).unwrap_err();
            assert!(message.contains(refused), "guest {guest}: {message}");
        }
        scene.was_safe();
    }
    // What a routed guest needs stops no bridged one.
    let scene = Scene::new();
    scene.net.refuse(|step| *step == Step::LoadRules(Table::Inet));
    for (guest, is_routed) in [(100, false), (101, false), (102, true), (103, true)] {
        assert_eq!(call(&scene, guest, Phase::PreStart).is_err(), is_routed, "guest {guest}");
    }
    scene.was_safe();
}

#[test]
fn whatever_is_refused_to_one_hook_leaves_others_right() {
    let whole = Scene::new();
    for guest in GUESTS {
        start(&whole, guest);
    }
    let registry = whole.node.read_sources().unwrap().inputs().registry.clone();
    let subjects = Subjects::new(&registry);
    let done = whole.net.world().done.clone();
    let own = |step: &&Step| !step.is_transaction() && subjects.of(step) == Subject::Guest(vmid(102));
    let kinds: BTreeSet<String> = done.iter().filter(own).map(ToString::to_string).collect();
    assert!(kinds.len() >= 3, "{kinds:?}");
    for kind in kinds {
        let scene = Scene::new();
        for guest in [100, 101, 103] {
            start(&scene, guest);
        }
        let refused = kind.clone();
        scene.net.refuse(move |step| step.to_string() == refused);
        let before = call(&scene, 102, Phase::PreStart);
        scene.plug(102);
        let after = call(&scene, 102, Phase::PostStart);
        let messages: Vec<String> = [before, after].into_iter().filter_map(Result::err).collect();
        assert!(messages.iter().any(|message| message.contains("the network refuses")), "{kind}: {messages:?}");
        scene.was_safe();
        // Nobody else has anything left to do.
        let plan = scene.node.reconcile(Mode::Plan).unwrap().steps;
        assert!(plan.iter().all(|step| subjects.of(step) == Subject::Guest(vmid(102))), "{kind}: {plan:?}");
        scene.net.refuse_nothing();
        call(&scene, 102, Phase::PostStart).unwrap();
        assert_eq!(scene.node.reconcile(Mode::Plan).unwrap().steps, [], "{kind}");
    }
}

#[test]
fn a_network_that_does_not_answer_stops_the_start() {
    let scene = Scene::new();
    scene.net.world().hangs = true;
    let message = call(&scene, 100, Phase::PreStart).unwrap_err();
    assert!(message.contains("list the interfaces"), "{message}");
    scene.net.world().hangs = false;
    assert_eq!(state(&scene), NetState::default());
    start(&scene, 100);
    scene.was_safe();
}
