use pve_public_ip_core::registry::document::{Elsewhere, Enforce, Probe, UplinkGuard};

use super::*;

fn sentence(result: Result<Request, Problem>) -> String {
    let problem = result.unwrap_err();
    assert_eq!(problem.code.as_str(), "request-invalid");
    assert!(problem.hint.contains("is such as"), "{problem:?}");
    problem.sentence
}

#[test]
fn a_whole_request_is_converted() {
    let message = proto::AllocatePublicIPRequest {
        vps_id: "shop".to_owned(),
        organization_id: "acme".to_owned(),
        mac_address: "02:00:00:AA:BB:01".to_owned(),
        public_ip: "203.0.113.10".to_owned(),
        gateway: Some("203.0.113.1".to_owned()),
        netmask: Some("255.255.255.0".to_owned()),
        pool: Some(String::new()),
        ..Default::default()
    };
    let Request::Allocate(request) = allocate(&message).unwrap() else { panic!() };
    assert_eq!(request.mac.unwrap().to_string(), "02:00:00:aa:bb:01");
    assert_eq!((request.prefix_length, request.pool, request.by_mac), (Some(24), None, true));
    assert_eq!((request.vps_id.as_str(), request.organization.as_deref()), ("shop", Some("acme")));
}

#[test]
fn each_bad_field_is_named_with_its_value() {
    let good = proto::AllocatePublicIPRequest { vps_id: "101".to_owned(), ..Default::default() };
    let with = |change: &dyn Fn(&mut proto::AllocatePublicIPRequest)| {
        let mut message = good.clone();
        change(&mut message);
        sentence(allocate(&message))
    };
    let long = "x".repeat(300);
    for (found, reason) in [
        (with(&|m| m.vps_id.clear()), "vps_id: it is missing"),
        (with(&|m| m.vps_id = "a\nb".to_owned()), "vps_id: `a\\nb` has a control character"),
        (with(&|m| m.vps_id.clone_from(&long)), "vps_id: it has 300 bytes; at most 255"),
        (with(&|m| m.organization_id = "\u{7f}".to_owned()), "organization_id: "),
        (with(&|m| m.mac_address = "zz".to_owned()), "mac_address: MAC address `zz`"),
        (with(&|m| m.mac_address = "01:00:5e:00:00:01".to_owned()), "mac_address: MAC address `01:00:5e:00:00:01`"),
        (with(&|m| m.public_ip = "203.0.113.010".to_owned()), "public_ip: `203.0.113.010` is not an IP"),
        (with(&|m| m.public_ip = "127.0.0.1".to_owned()), "public_ip: `127.0.0.1` is or contains loopback"),
        (with(&|m| m.public_ip = "203.0.113.10/24".to_owned()), "public_ip: `203.0.113.10/24` has host bits"),
        (with(&|m| m.gateway = Some("gw".to_owned())), "gateway: `gw` is no IP address"),
        (with(&|m| m.netmask = Some("255.0.255.0".to_owned())), "netmask: `255.0.255.0` is no netmask: it has a gap"),
        (with(&|m| m.netmask = Some("129".to_owned())), "netmask: `129` is no netmask"),
        (with(&|m| m.netmask = Some("+24".to_owned())), "netmask: `+24` is no netmask"),
        (with(&|m| m.netmask = Some("024".to_owned())), "netmask: `024` is no netmask"),
        (with(&|m| m.netmask = Some("/24".to_owned())), "netmask: `/24` is no netmask"),
        (with(&|m| m.pool = Some("no pool".to_owned())), "pool: `no pool` is not a "),
    ] {
        assert!(found.contains(reason), "{found} should have {reason}");
    }
}

#[test]
fn bad_fields_of_the_other_requests() {
    let address = || "203.0.113.10".to_owned();
    for (found, reason) in [
        (sentence(get(&proto::GetPublicIPRequest::default())), "public_ip: it is missing"),
        (
            sentence(release(&proto::ReleasePublicIPRequest { public_ip: address(), ..Default::default() })),
            "vps_id: it is missing",
        ),
        (sentence(list(&proto::ListPublicIPsRequest { page_size: -1, ..Default::default() })), "page_size: -1 is out"),
        (sentence(list(&proto::ListPublicIPsRequest { page_size: 1001, ..Default::default() })), "page_size: 1001"),
        (
            sentence(list_all(&proto::ListVPSPublicIPsRequest {
                state: buffa::EnumValue::from(9),
                ..Default::default()
            })),
            "state: 9 is no state",
        ),
        (
            sentence(create(
                &proto::CreateVPSPublicIPRequest {
                    ip_address: address(),
                    monthly_cost_cents: Some(-5),
                    ..Default::default()
                },
                None,
            )),
            "monthly_cost_cents: -5 is less than nothing",
        ),
        (sentence(history(&proto::GetVPSPublicIPHistoryRequest::default())), "ip_id, vps_id: both are missing"),
        (
            sentence(history(&proto::GetVPSPublicIPHistoryRequest {
                ip_id: address(),
                time: "yesterday".to_owned(),
                ..Default::default()
            })),
            "time: `yesterday` is no time in UTC",
        ),
        (
            sentence(create_pool(&proto::CreatePoolRequest { profile: "ovh".to_owned(), ..Default::default() })),
            "profile: unknown variant `ovh`, expected one of `generic-bridged`",
        ),
        (
            sentence(set_pool(&proto::SetPoolRequest {
                name: "a".to_owned(),
                bridge: Some(String::new()),
                ..Default::default()
            })),
            "bridge: it is missing",
        ),
        (
            sentence(set_pool(&proto::SetPoolRequest {
                name: "a".to_owned(),
                cool_down: Some(i64::MAX),
                ..Default::default()
            })),
            "cool_down: 9223372036854775807 s is out of range",
        ),
    ] {
        assert!(found.contains(reason), "{found} should have {reason}");
    }
}

#[test]
fn what_is_absent_of_a_pool_stays_and_what_is_empty_goes() {
    let message = proto::SetPoolRequest {
        name: "a".to_owned(),
        gateway4: Some(String::new()),
        gateway6: Some("fe80::1".to_owned()),
        ..Default::default()
    };
    let Request::SetPool(request) = set_pool(&message).unwrap() else { panic!() };
    assert_eq!(request.gateway4, Edit::Erase);
    assert_eq!(request.gateway6, Edit::Set("fe80::1".parse().unwrap()));
    assert_eq!((request.gateway_mac, request.bridge), (Edit::Keep, None));
}

#[test]
fn netmasks_and_their_lengths() {
    for (text, length) in [
        ("255.255.255.0", Some(24)),
        ("255.255.255.255", Some(32)),
        ("0.0.0.0", Some(0)),
        ("24", Some(24)),
        ("0", Some(0)),
        ("128", Some(128)),
        ("", None),
    ] {
        assert_eq!(netmask("netmask", Some(text)).unwrap(), length, "{text}");
    }
    for (length, expected) in [(0, "0.0.0.0"), (24, "255.255.255.0"), (29, "255.255.255.248"), (32, "255.255.255.255")]
    {
        assert_eq!(mask(&reply_address(length)), expected);
    }
}

fn reply_address(prefix_length: u8) -> reply::Address {
    reply::Address {
        address: "203.0.113.10".parse().unwrap(),
        prefix_length,
        gateway: Some("203.0.113.1".parse().unwrap()),
        pool: "ovh-rbx".parse().unwrap(),
        state: reply::AddressState::Assigned,
        enforce: Enforce::Watch,
        monthly_cost_cents: Some(199),
        mac: None,
        free_at: None,
        shared: Some("web".parse().unwrap()),
        via: Some("203.0.113.2".parse().unwrap()),
        holder: Some(reply::AddressHolder {
            vmid: "101".parse().unwrap(),
            vps_id: Some("shop".to_owned()),
            interface: "net0".parse().unwrap(),
            node: None,
            organization: None,
            assigned_at: pve_public_ip_core::model::Timestamp(Moment(Duration::from_secs(1_700_000_000))),
        }),
    }
}

#[test]
fn an_answer_says_what_happened() {
    let changed = |changed, dry_run, held: bool| reply::AddressChanged {
        changed,
        vmid: Some("101".parse().unwrap()).filter(|_| held),
        dry_run,
        address: Some(reply::Address { holder: reply_address(24).holder.filter(|_| held), ..reply_address(24) }),
        steps: Vec::new(),
        notes: Vec::new(),
    };
    for (answer, given, expected) in [
        (changed(true, false, true), true, "203.0.113.10 is assigned to guest 101"),
        (changed(true, true, true), true, "203.0.113.10 would be assigned to guest 101"),
        (changed(false, false, true), true, "203.0.113.10 is assigned to guest 101; nothing has changed"),
        (changed(true, false, true), false, "203.0.113.10 is released from guest 101"),
        (changed(true, true, true), false, "203.0.113.10 would be released from guest 101"),
        (changed(false, true, true), false, "guest 101 does not hold 203.0.113.10; nothing has changed"),
        (changed(false, true, false), false, "no guest holds 203.0.113.10; nothing has changed"),
    ] {
        assert_eq!(sentence_of(&answer, given), expected);
    }
    let message = allocated(changed(true, false, true));
    assert_eq!((message.gateway.as_str(), message.netmask.as_str()), ("203.0.113.1", "255.255.255.0"));
    let ip = message.ip.into_option().unwrap();
    assert_eq!((ip.ip_id.as_str(), ip.vmid.as_str(), ip.monthly_cost_cents), ("203.0.113.10", "101", 199));
    assert_eq!((ip.assigned_at.as_str(), ip.enforce.as_str()), ("2023-11-14T22:13:20Z", "watch"));
    assert_eq!((ip.shared_group.as_str(), ip.via.as_str()), ("web", "203.0.113.2"));
}

fn sentence_of(changed: &reply::AddressChanged, given: bool) -> String {
    super::sentence(changed, given)
}

/// What the first has otherwise than the second; everything but these keys must be.
fn says_all_of_it(full: &impl serde::Serialize, least: &impl serde::Serialize, same: &[&str]) {
    let [full, least] = [serde_json::to_value(full), serde_json::to_value(least)].map(Result::unwrap);
    for (key, value) in full.as_object().unwrap() {
        assert_eq!(least.get(key) == Some(value), same.contains(&key.as_str()), "{key}: {value}");
    }
}

/// A field that a request of the command line gets stands in these literals, or they do not compile: then the contract needs it,
/// too.
#[test]
fn the_contract_says_of_pools_what_the_command_line_says() {
    let text = ToOwned::to_owned;
    let least = proto::CreatePoolRequest { name: text("a"), profile: text("ovh-bridged"), ..Default::default() };
    let message = proto::CreatePoolRequest {
        bridge: text("vmbr1"),
        gateway4: text("203.0.113.1"),
        gateway6: text("fe80::1"),
        gateway_mac: text("02:00:00:00:00:01"),
        addresses: vec![text("203.0.113.0/24")],
        guest_routers: true,
        uplink_guard: text("report"),
        allowed_macs: vec![text("02:00:00:00:00:02")],
        probe: text("assign"),
        cool_down: Some(60),
        enforce: text("watch"),
        nodes: vec![text("pve1"), text("pve2")],
        elsewhere: text("warn"),
        accept_losses: true,
        ..least.clone()
    };
    let Request::CreatePool(made) = create_pool(&message).unwrap() else { panic!("another request") };
    let expected = request::CreatePool {
        pool: "a".parse().unwrap(),
        profile: Profile::OvhBridged,
        layout: None,
        bridge: Some("vmbr1".parse().unwrap()),
        gateway4: Some("203.0.113.1".parse().unwrap()),
        gateway6: Some("fe80::1".parse().unwrap()),
        gateway_mac: Some("02:00:00:00:00:01".parse().unwrap()),
        guest_routers: true,
        uplink_guard: Some(UplinkGuard::Report),
        allowed_macs: ["02:00:00:00:00:02".parse().unwrap()].into(),
        probe: Some(Probe::Assign),
        cool_down: Some(CoolDown(Duration::from_secs(60))),
        enforce: Some(Enforce::Watch),
        nodes: ["pve1".parse().unwrap(), "pve2".parse().unwrap()].into(),
        elsewhere: Some(Elsewhere::Warn),
        yes: true,
        addresses: vec!["203.0.113.0/24".parse().unwrap()],
    };
    assert_eq!(made, expected);
    let Request::CreatePool(least) = create_pool(&least).unwrap() else { panic!("another request") };
    says_all_of_it(&made, &least, &["pool", "profile"]);

    let least = proto::SetPoolRequest { name: text("a"), ..Default::default() };
    let message = proto::SetPoolRequest {
        bridge: Some(text("vmbr1")),
        gateway4: Some(text("203.0.113.1")),
        gateway6: Some(text("")),
        gateway_mac: Some(text("02:00:00:00:00:01")),
        uplink_guard: Some(text("off")),
        cool_down: Some(0),
        guest_routers: Some(false),
        allow_macs: vec![text("02:00:00:00:00:02")],
        forbid_macs: vec![text("02:00:00:00:00:03")],
        probe: Some(text("never")),
        enforce: Some(text("on")),
        nodes: vec![text("pve1")],
        elsewhere: Some(text("refuse")),
        allow_present: true,
        accept_losses: true,
        ..least.clone()
    };
    let Request::SetPool(made) = set_pool(&message).unwrap() else { panic!("another request") };
    let expected = request::SetPool {
        pool: "a".parse().unwrap(),
        bridge: Some("vmbr1".parse().unwrap()),
        gateway4: Edit::Set("203.0.113.1".parse().unwrap()),
        gateway6: Edit::Erase,
        gateway_mac: Edit::Set("02:00:00:00:00:01".parse().unwrap()),
        guest_routers: Some(false),
        uplink_guard: Some(UplinkGuard::Off),
        allow_macs: ["02:00:00:00:00:02".parse().unwrap()].into(),
        forbid_macs: ["02:00:00:00:00:03".parse().unwrap()].into(),
        probe: Some(Probe::Never),
        cool_down: Some(CoolDown(Duration::ZERO)),
        enforce: Some(Enforce::On),
        nodes: Edit::Set(["pve1".parse().unwrap()].into()),
        elsewhere: Some(Elsewhere::Refuse),
        allow_present: true,
        yes: true,
    };
    assert_eq!(made, expected);
    let Request::SetPool(least) = set_pool(&least).unwrap() else { panic!("another request") };
    says_all_of_it(&made, &least, &["pool"]);
    let everywhere = proto::SetPoolRequest { name: text("a"), on_every_node: true, ..Default::default() };
    let Request::SetPool(made) = set_pool(&everywhere).unwrap() else { panic!("another request") };
    assert_eq!(made.nodes, Edit::Erase);
    let both = proto::SetPoolRequest { nodes: vec![text("pve1")], ..everywhere };
    let refused = set_pool(&both).unwrap_err().sentence;
    assert_eq!(refused, "nodes, on_every_node: both are given");
}

#[test]
fn what_is_known_of_an_address_can_be_cleared_and_a_pool_deleted() {
    let text = ToOwned::to_owned;
    let message = proto::CreateVPSPublicIPRequest {
        ip_address: text("203.0.113.9"),
        monthly_cost_cents: Some(199),
        pool: Some(text("a")),
        clear: vec![text("mac_address"), text("gateway")],
        accept_losses: true,
        ..Default::default()
    };
    let Request::CreateAddress(made) = create(&message, None).unwrap() else { panic!("another request") };
    assert_eq!((made.clear.len(), made.yes, made.monthly_cost_cents), (2, true, Some(199)));

    let Request::RemoveFromPool(removed) =
        delete_pool(&proto::DeletePoolRequest { name: text("a"), ..Default::default() }).unwrap()
    else {
        panic!("another request")
    };
    assert!(removed.addresses.is_empty(), "the pool as a whole");
}

#[test]
fn an_address_is_asked_for_in_all_its_ways() {
    let text = ToOwned::to_owned;
    let message = proto::AllocatePublicIPRequest {
        vps_id: text("shop"),
        pool: Some(text("a")),
        family: 6,
        set_mac: true,
        ..Default::default()
    };
    let Request::Allocate(made) = allocate(&message).unwrap() else { panic!("another request") };
    assert_eq!((made.family, made.set_mac, made.via, made.shared), (Some(Family::V6), true, None, None));
    let wrong = allocate(&proto::AllocatePublicIPRequest { family: 5, ..message.clone() }).unwrap_err();
    assert_eq!(wrong.sentence, "family: 5 is no version of IP");

    let message = proto::AssignVPSPublicIPRequest {
        ip_id: text("203.0.113.32/28"),
        vps_id: text("101"),
        via: text("203.0.113.10"),
        set_mac: true,
        ..Default::default()
    };
    let Request::Allocate(made) = assign(&message).unwrap() else { panic!("another request") };
    assert_eq!((made.via, made.set_mac, made.by_mac), (Some("203.0.113.10".parse().unwrap()), true, false));
    let message = proto::AssignVPSPublicIPRequest { via: String::new(), shared_group: text("web"), ..message };
    let Request::Allocate(made) = assign(&message).unwrap() else { panic!("another request") };
    assert_eq!((made.via, made.shared), (None, Some("web".parse().unwrap())));
    let wrong = assign(&proto::AssignVPSPublicIPRequest { via: text("203.0.113.0/28"), ..message }).unwrap_err();
    assert_eq!(wrong.sentence, "via: `203.0.113.0/28` is no IP address");

    let message =
        proto::UnassignVPSPublicIPRequest { ip_id: text("203.0.113.50"), vps_id: text("102"), ..Default::default() };
    let Request::Deallocate(made) = unassign(&message).unwrap() else { panic!("another request") };
    assert_eq!(made.vps_id.as_deref(), Some("102"));
}

#[test]
fn words_of_pools_are_checked() {
    let set = |change: fn(&mut proto::SetPoolRequest)| {
        let mut message = proto::SetPoolRequest { name: "a".to_owned(), ..Default::default() };
        change(&mut message);
        set_pool(&message).unwrap_err()
    };
    let problem = set(|message| message.enforce = Some("maybe".to_owned()));
    assert!(problem.sentence.starts_with("enforce: unknown variant `maybe`"), "{}", problem.sentence);
    assert_eq!(problem.hint, "`enforce` is such as on, watch or off");
    assert!(set(|message| message.enforce = Some(String::new())).sentence.contains("enforce: it is missing"));
    assert!(set(|message| message.probe = Some("x".to_owned())).sentence.starts_with("probe: unknown variant `x`"));
    assert!(set(|message| message.allow_macs = vec!["x".to_owned()]).sentence.starts_with("allow_macs: "));
    let both = proto::CreatePoolRequest {
        name: "a".to_owned(),
        profile: "ovh-bridged".to_owned(),
        layout: "{}".to_owned(),
        ..Default::default()
    };
    assert!(create_pool(&both).is_err());
    let broken = proto::CreatePoolRequest { profile: String::new(), layout: "{".to_owned(), ..both };
    assert!(create_pool(&broken).unwrap_err().sentence.starts_with("layout: "));
    let clear = proto::CreateVPSPublicIPRequest {
        ip_address: "203.0.113.9".to_owned(),
        clear: vec!["pool".to_owned()],
        ..Default::default()
    };
    assert!(create(&clear, None).unwrap_err().sentence.starts_with("clear: unknown variant `pool`"));
}
