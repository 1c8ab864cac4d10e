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
        monthly_cost_cents: Some(199),
        mac: None,
        free_at: None,
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
    let changed = |changed, dry_run, held| reply::AddressChanged {
        changed,
        dry_run,
        address: Some(reply::Address { holder: reply_address(24).holder.filter(|_| held), ..reply_address(24) }),
        steps: Vec::new(),
        notes: Vec::new(),
    };
    for (answer, expected) in [
        (changed(true, false, true), "203.0.113.10 is assigned to guest 101"),
        (changed(true, true, true), "203.0.113.10 would be assigned to guest 101"),
        (changed(false, false, true), "203.0.113.10 is assigned to guest 101; nothing has changed"),
        (changed(true, false, false), "203.0.113.10 is released"),
        (changed(false, true, false), "203.0.113.10 is not assigned; nothing has changed"),
    ] {
        assert_eq!(sentence_of(&answer), expected);
    }
    let message = allocated(changed(true, false, true));
    assert_eq!((message.gateway.as_str(), message.netmask.as_str()), ("203.0.113.1", "255.255.255.0"));
    let ip = message.ip.into_option().unwrap();
    assert_eq!((ip.ip_id.as_str(), ip.vmid.as_str(), ip.monthly_cost_cents), ("203.0.113.10", "101", 199));
    assert_eq!(ip.assigned_at, "2023-11-14T22:13:20Z");
}

fn sentence_of(changed: &reply::AddressChanged) -> String {
    super::sentence(changed)
}
