//! The calls, with curl over real connections, against a root part of the tests.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use common::{GATEWAY, Gateway, Root, SUPERADMIN, key, scene_with, until};
use serde_json::{Value, json};

fn scene() -> (tempfile::TempDir, Root, Gateway) {
    scene_with(&[("GATEWAY_UPLINK_INTERFACE", "eno1")])
}

#[test]
fn every_call_has_its_answer() {
    let (_directory, root, gateway) = scene();
    let allocate = json!({
        "vps_id": "shop", "organization_id": "acme", "mac_address": "02:00:00:AA:BB:01", "public_ip": "203.0.113.10",
        "gateway": "203.0.113.1", "netmask": "255.255.255.0"
    });
    let (status, answer) = gateway.call("AllocatePublicIP", Some(GATEWAY), &allocate);
    assert_eq!((status, &answer["changed"]), (200, &json!(true)), "{answer}");
    assert_eq!(answer["message"], "203.0.113.10 is assigned to guest 101");
    assert_eq!((&answer["gateway"], &answer["netmask"]), (&json!("203.0.113.1"), &json!("255.255.255.0")));
    assert_eq!(answer["ip"]["vpsId"], "shop");
    assert_eq!(answer["steps"][0]["state"], "STEP_STATE_PENDING");
    assert_eq!(answer["steps"][0]["problem"]["hint"], "reboot it");

    let request = root.requests().pop().unwrap();
    for (name, value) in [
        ("op", json!("allocate")),
        ("vps_id", json!("shop")),
        ("organization", json!("acme")),
        ("mac", json!("02:00:00:aa:bb:01")),
        ("address", json!("203.0.113.10")),
        ("prefix_length", json!(24)),
        ("by_mac", json!(true)),
    ] {
        assert_eq!(request[name], value, "{request}");
    }

    let (_, again) = gateway.call("AllocatePublicIP", Some(GATEWAY), &allocate);
    assert_eq!((&again["changed"], &again["ip"]), (&Value::Null, &answer["ip"]), "asked again nothing changes");

    for (method, secret, request, pointer, expected) in [
        ("GetPublicIP", GATEWAY, json!({ "public_ip": "203.0.113.10" }), "/ip/vmid", json!("101")),
        ("ListPublicIPs", GATEWAY, json!({ "page_size": 3 }), "/ips/2/ipAddress", json!("198.51.0.3")),
        ("ListPublicIPs", GATEWAY, json!({ "pageSize": 3 }), "/nextPageToken", json!("more")),
        ("GetGatewayInfo", GATEWAY, json!({}), "/pools/0/free", json!("250")),
        ("GetGatewayInfo", SUPERADMIN, json!({}), "/healthy", json!(true)),
        (
            "ReleasePublicIP",
            GATEWAY,
            json!({ "vps_id": "shop", "public_ip": "203.0.113.10" }),
            "/message",
            json!("203.0.113.10 is released from guest 101"),
        ),
        (
            "ReleasePublicIP",
            GATEWAY,
            json!({ "vps_id": "shop", "public_ip": "203.0.113.10" }),
            "/message",
            json!("guest 101 does not hold 203.0.113.10; nothing has changed"),
        ),
        (
            "CreateVPSPublicIP",
            SUPERADMIN,
            json!({ "ip_address": "203.0.113.11", "monthly_cost_cents": 199 }),
            "/ipId",
            json!("203.0.113.11"),
        ),
        (
            "AssignVPSPublicIP",
            SUPERADMIN,
            json!({ "ip_id": "203.0.113.11", "vps_id": "101", "live": true }),
            "/changed",
            json!(true),
        ),
        ("UnassignVPSPublicIP", SUPERADMIN, json!({ "ip_id": "203.0.113.11" }), "/changed", json!(true)),
        ("DeleteVPSPublicIP", SUPERADMIN, json!({ "ip_id": "203.0.113.11" }), "/changed", json!(true)),
        (
            "ListVPSPublicIPs",
            SUPERADMIN,
            json!({ "state": "ADDRESS_STATE_FREE", "page_size": 1 }),
            "/ips/0/monthlyCostCents",
            json!("199"),
        ),
        (
            "GetVPSPublicIPHistory",
            SUPERADMIN,
            json!({ "vps_id": "101" }),
            "/holdings/0/from",
            json!("2026-11-30T12:00:00Z"),
        ),
        (
            "CreatePool",
            SUPERADMIN,
            json!({ "name": "ovh-rbx", "profile": "ovh-bridged" }),
            "/pool/name",
            json!("ovh-rbx"),
        ),
        ("SetPool", SUPERADMIN, json!({ "name": "ovh-rbx", "gateway4": "" }), "/changed", json!(true)),
        ("ListPools", SUPERADMIN, json!({}), "/pools/0/coolingDown", json!("1")),
        ("VerifySecurity", SUPERADMIN, json!({ "vps_id": "101" }), "/counters/0/packets", json!("3")),
    ] {
        let (status, answer) = gateway.call(method, Some(secret), &request);
        assert_eq!((status, answer.pointer(pointer)), (200, Some(&expected)), "{method}: {answer}");
    }
    let created = root.requests().into_iter().find(|request| request["op"] == "create-address").unwrap();
    assert_eq!(created["uplink"], "eno1");
}

#[test]
fn the_audit_log_is_told_who_and_why() {
    let (_directory, root, gateway) = scene();
    let headers = [
        "--header",
        &format!("authorization: Bearer {GATEWAY}"),
        "--header",
        "x-request-id: order-77",
        "--header",
        "x-reason: ticket 12",
        "--dump-header",
        "-",
    ];
    let request = json!({ "vps_id": "101", "public_ip": "203.0.113.10", "dry_run": true });
    let (status, answer) = gateway.curl("AllocatePublicIP", &headers, &request.to_string());
    let answer = answer.as_str().unwrap().to_lowercase();
    assert!(status == 200 && answer.contains("x-request-id: order-77") && answer.contains("no-store"), "{answer}");
    let request = root.requests().pop().unwrap();
    assert_eq!(request["dry_run"], true);
    let author = &request["author"];
    assert_eq!((&author["who"]["user"], &author["why"]), (&json!("api:gateway"), &json!("ticket 12")));
    let command = author["command"].as_str().unwrap();
    assert!(
        command.starts_with("AllocatePublicIP from 127.0.0.1:") && command.ends_with(" request order-77"),
        "{command}"
    );
}

#[test]
fn who_may_call_what() {
    let (_directory, root, gateway) = scene();
    let (viewer, panel, bound, expired) = ("viewer-secret", "panel-secret", "bound-secret", "expired-secret");
    root.set(|known| {
        known.keys = vec![
            key("viewer", viewer, "viewer", &json!({})),
            key("panel", panel, "gateway", &json!({})),
            key("bound", bound, "gateway", &json!({ "organization": "acme" })),
            key("old", expired, "gateway", &json!({ "expires_at": "2020-01-01T00:00:00Z" })),
        ];
    });
    let get = json!({ "public_ip": "203.0.113.10" });
    let allocate = json!({ "vps_id": "101" });
    until("the keys are known", || gateway.call("GetPublicIP", Some(viewer), &get).0 == 200);
    for (secret, request, status, code) in [
        (None, "GetPublicIP", 401, "unauthenticated"),
        (Some("wrong"), "GetPublicIP", 401, "unauthenticated"),
        (Some(expired), "GetPublicIP", 401, "unauthenticated"),
        (Some(viewer), "AllocatePublicIP", 403, "permission_denied"),
        (Some(viewer), "ListPools", 403, "permission_denied"),
        (Some(panel), "ListPools", 403, "permission_denied"),
        (Some(GATEWAY), "ListPools", 403, "permission_denied"),
    ] {
        let body = if request == "AllocatePublicIP" { &allocate } else { &get };
        let (found, answer) = gateway.call(request, secret, body);
        assert_eq!((found, &answer["code"]), (status, &json!(code)), "{secret:?} {request}: {answer}");
        assert_eq!(answer["details"][0]["type"], "pve_public_ip.v1.Problem");
    }
    for (secret, request, body) in [
        (panel, "AllocatePublicIP", &allocate),
        (SUPERADMIN, "ListPools", &json!({})),
        (SUPERADMIN, "AllocatePublicIP", &allocate),
        (bound, "AllocatePublicIP", &allocate),
    ] {
        assert_eq!(gateway.call(request, Some(secret), body).0, 200, "{request}");
    }
    let request = root.requests().pop().unwrap();
    assert_eq!((&request["within"], &request["organization"]), (&json!("acme"), &json!("acme")));
    let other = json!({ "vps_id": "101", "organization_id": "other" });
    let (status, answer) = gateway.call("AllocatePublicIP", Some(bound), &other);
    assert_eq!((status, &answer["code"]), (403, &json!("permission_denied")), "{answer}");

    // A revoked key counts no more.
    root.set(|known| known.keys.retain(|key| key["name"] != "panel"));
    let began = std::time::Instant::now();
    until("the key is revoked", || gateway.call("GetPublicIP", Some(panel), &get).0 == 401);
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "it took {:?}", began.elapsed());

    let metrics = gateway.get("/metrics");
    assert!(metrics.contains("failed_authentications_total{reason=\"missing\"} 1"), "{metrics}");
    assert!(metrics.contains("requests_total{method=\"ListPools\",code=\"permission_denied\"} 3"), "{metrics}");
    let log = gateway.log.lock().unwrap().clone();
    for secret in [GATEWAY, SUPERADMIN, viewer, panel, bound, expired, "wrong-"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn wrong_secrets_are_limited_and_right_ones_are_not() {
    let (_directory, _root, gateway) = scene();
    let get = json!({ "public_ip": "203.0.113.10" });
    let statuses: Vec<u16> = (0..40).map(|_| gateway.call("GetPublicIP", Some("wrong"), &get).0).collect();
    assert!(statuses[..20].iter().all(|status| *status == 401), "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(gateway.call("GetPublicIP", Some(GATEWAY), &get).0, 200);
    assert!(gateway.get("/metrics").contains("failed_authentications_total{reason=\"limited\"}"));
}

#[test]
fn bad_input_is_named_and_nothing_is_asked() {
    let (_directory, root, gateway) = scene();
    for (method, body, reason, hint) in [
        (
            "AllocatePublicIP",
            r#"{"vps_id":"101","public_ip":"203.0.113.300"}"#,
            "public_ip: `203.0.113.300`",
            "203.0.113.10",
        ),
        ("AllocatePublicIP", r#"{"vpsid":"101"}"#, "unknown field `vpsid`", "vps_id, organization_id"),
        ("AllocatePublicIP", r#"{"vps_id":"1","vpsId":"2"}"#, "`vpsId` is given twice", "vps_id"),
        ("AllocatePublicIP", "[]", "expected a JSON object", "vps_id"),
        ("AllocatePublicIP", "{", "EOF while parsing", "vps_id"),
        ("GetPublicIP", "{}", "public_ip: it is missing", "203.0.113.10"),
        ("ListPublicIPs", r#"{"page_size":5000}"#, "page_size: 5000 is out of range", "1 to 1000"),
        ("GetGatewayInfo", r#"{"x":1}"#, "unknown field `x`", "has no fields"),
    ] {
        let header = format!("x-api-secret: {GATEWAY}");
        let (status, answer) = gateway.curl(method, &["--header", &header], body);
        assert_eq!((status, &answer["code"]), (400, &json!("invalid_argument")), "{body}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(reason), "{answer}");
        assert!(detail(&answer).contains(hint), "{hint} is not in the detail of {answer}");
    }
    for body in [r#"{"vps_id":5}"#, r#"{"dry_run":"yes"}"#] {
        let header = format!("x-api-secret: {GATEWAY}");
        let (status, answer) = gateway.curl("AllocatePublicIP", &["--header", &header], body);
        assert_eq!((status, &answer["code"]), (400, &json!("invalid_argument")), "{body}: {answer}");
    }
    assert_eq!(root.requests(), Vec::<Value>::new(), "the root part was asked");
}

/// The detail of an error as text: a protobuf message whose fields are texts.
fn detail(answer: &Value) -> String {
    let value = answer["details"][0]["value"].as_str().unwrap_or_default();
    let script = "import base64,sys; v=sys.argv[1]; sys.stdout.buffer.write(base64.b64decode(v+'='*(-len(v)%4)))";
    let output = std::process::Command::new("python3").args(["-c", script, value]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn problems_of_the_root_part_become_statuses() {
    let (_directory, root, gateway) = scene();
    for (code, status, name) in [
        ("address-taken", 409, "already_exists"),
        ("address-in-no-pool", 404, "not_found"),
        ("unknown-guest", 404, "not_found"),
        ("provider-mac-differs", 400, "failed_precondition"),
        ("pool-exhausted", 429, "resource_exhausted"),
        ("registry-locked", 503, "unavailable"),
        ("no-quorum", 503, "unavailable"),
        ("a-code-of-tomorrow", 500, "internal"),
    ] {
        let subject = json!({ "kind": "address", "id": "203.0.113.10" });
        let problem = json!({ "code": code, "subject": subject, "sentence": "this is wrong", "hint": "do that" });
        root.set(|known| known.problem = Some(problem));
        let headers = ["--header", &format!("x-api-secret: {GATEWAY}")];
        let (found, answer) = gateway.curl("AllocatePublicIP", &headers, r#"{"vps_id":"101"}"#);
        assert_eq!((found, &answer["code"]), (status, &json!(name)), "{code}: {answer}");
        assert_eq!(answer["message"], "this is wrong");
        assert!(detail(&answer).contains("do that") && detail(&answer).contains("203.0.113.10"), "{answer}");
        let (_, with_headers) =
            gateway.curl("AllocatePublicIP", &[headers[0], headers[1], "--dump-header", "-"], r#"{"vps_id":"101"}"#);
        let has_retry = with_headers.as_str().unwrap().to_lowercase().contains("retry-after: ");
        assert_eq!(has_retry, status == 503, "{code}: {with_headers}");
    }
}

#[test]
fn what_the_root_part_breaks_off() {
    let (_directory, root, gateway) = scene();
    let get = json!({ "public_ip": "203.0.113.10" });
    let allocate = json!({ "vps_id": "101", "public_ip": "203.0.113.10" });
    for trick in ["close", "garbage", "other"] {
        // One connection is there to be used again.
        assert_eq!(gateway.call("GetPublicIP", Some(GATEWAY), &get).0, 200);
        let before = root.requests().len();
        root.set(|known| known.trick = Some(trick));
        let (status, answer) = gateway.call("AllocatePublicIP", Some(GATEWAY), &allocate);
        assert_eq!((status, &answer["code"]), (503, &json!("unavailable")), "{trick}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains("may have carried this out"), "{answer}");
        assert!(detail(&answer).contains("make the same call again"), "{answer}");
        assert_eq!(root.requests().len(), before + 1, "a change is not sent twice");
    }
    // What only looks is asked again.
    root.set(|known| known.trick = Some("close"));
    let before = root.requests().len();
    assert_eq!(gateway.call("GetPublicIP", Some(GATEWAY), &get).0, 200);
    assert_eq!(gateway.call("GetPublicIP", Some(GATEWAY), &get).0, 200);
    assert!(root.requests().len() >= before + 2);
}

#[test]
fn without_a_root_part() {
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::begin(&directory.path().join("none.sock"), &[], &[]);
    let get = json!({ "public_ip": "203.0.113.10" });
    assert!(gateway.get("/healthz").starts_with("HTTP/1.1 503"));
    let (status, answer) = gateway.call("GetPublicIP", Some(GATEWAY), &get);
    assert_eq!((status, &answer["code"]), (503, &json!("unavailable")), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("No such file or directory"), "{answer}");
    // Whether it is a key nobody can say: that is no reason to send the caller away for good.
    let (status, answer) = gateway.call("GetPublicIP", Some("some-key"), &get);
    assert_eq!((status, &answer["code"]), (503, &json!("unavailable")), "{answer}");
    assert!(gateway.get("/metrics").contains("root_part_up 0"));
    let root = Root::begin_at(&directory.path().join("none.sock"));
    until("the root part is found", || gateway.get("/healthz").starts_with("HTTP/1.1 200"));
    assert_eq!(gateway.call("GetPublicIP", Some(GATEWAY), &get).0, 200);
    drop(root);
}

/// Where docs/api.md has the calls of this run.
const BEGIN: &str = "<!-- Of a run of crates/gateway/tests/calls.rs: do not edit. -->\n";
const END: &str = "<!-- The end of that run. -->\n";

#[test]
fn the_guide_shows_what_is_answered() {
    let (_directory, root, gateway) = scene();
    let header = |secret: &str| format!("x-api-secret: {secret}");
    let mut text = String::from(BEGIN);
    let problem = |code: &str, sentence: &str, hint: &str| json!({ "code": code, "subject": { "kind": "address", "id": "203.0.113.10" }, "sentence": sentence, "hint": hint });
    for (method, request, refusal) in [
        (
            "AllocatePublicIP",
            r#"{"vps_id": "101", "mac_address": "02:00:00:aa:bb:01", "public_ip": "203.0.113.10"}"#,
            Some(problem(
                "address-taken",
                "203.0.113.10 is held by guest 102 net0",
                "`pve-public-ip who 203.0.113.10`",
            )),
        ),
        (
            "GetPublicIP",
            r#"{"public_ip": "203.0.113.10"}"#,
            Some(problem("address-in-no-pool", "203.0.113.10 is in no pool", "`pve-public-ip pool list`")),
        ),
        ("ListPublicIPs", r#"{"page_size": 1}"#, None),
        (
            "ReleasePublicIP",
            r#"{"vps_id": "101", "public_ip": "203.0.113.10", "mac_address": "02:00:00:aa:bb:01"}"#,
            Some(problem(
                "mac-not-of-guest",
                "203.0.113.10 is held with the MAC 02:00:00:aa:bb:02, not with 02:00:00:aa:bb:01",
                "`pve-public-ip who 203.0.113.10` shows the MAC",
            )),
        ),
        ("GetGatewayInfo", "{}", None),
        ("CreateVPSPublicIP", r#"{"ip_address": "203.0.113.11", "monthly_cost_cents": 199, "pool": "ovh-rbx"}"#, None),
        ("AssignVPSPublicIP", r#"{"ip_id": "203.0.113.11", "vps_id": "101", "organization_id": "acme"}"#, None),
        ("UnassignVPSPublicIP", r#"{"ip_id": "203.0.113.11"}"#, None),
        ("DeleteVPSPublicIP", r#"{"ip_id": "203.0.113.11"}"#, None),
        ("ListVPSPublicIPs", r#"{"state": "ADDRESS_STATE_FREE", "page_size": 1}"#, None),
        ("GetVPSPublicIPHistory", r#"{"ip_id": "203.0.113.10"}"#, None),
        (
            "CreatePool",
            r#"{"name": "ovh-rbx", "profile": "ovh-bridged", "bridge": "vmbr0", "addresses": ["203.0.113.0/24"]}"#,
            None,
        ),
        ("SetPool", r#"{"name": "ovh-rbx", "cool_down": 7200, "enforce": "watch"}"#, None),
        ("DeletePool", r#"{"name": "ovh-old"}"#, None),
        ("ListPools", "{}", None),
        ("VerifySecurity", r#"{"vps_id": "101"}"#, None),
    ] {
        let secret = if common::path(method).contains("Superadmin") { SUPERADMIN } else { GATEWAY };
        let secret = header(secret);
        let (status, answer) = gateway.curl(method, &["--header", &secret], request);
        assert_eq!(status, 200, "{method}: {answer}");
        text += &format!("\n### {method}\n\n`POST /{}`\n\n```json\n{request}\n```\n\n", common::path(method));
        text += &format!("```json\n{}\n```\n", serde_json::to_string_pretty(&answer).unwrap());
        if let Some(refusal) = refusal {
            root.set(|known| known.problem = Some(refusal.clone()));
            let (status, answer) = gateway.curl(method, &["--header", &secret], request);
            root.set(|known| known.problem = None);
            let (code, message) = (answer["code"].as_str().unwrap(), answer["message"].as_str().unwrap());
            let kind = refusal["code"].as_str().unwrap();
            assert!(detail(&answer).contains(kind), "{answer}");
            text += &format!("\nor, as an error, {status} `{code}`, `{kind}`:\n\n> {message}\n");
        }
    }
    text += END;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.md");
    let page = std::fs::read_to_string(path).unwrap();
    let found = page.split(BEGIN).nth(1).and_then(|rest| rest.split(END).next()).unwrap_or_default();
    let is_same = format!("{BEGIN}{found}{END}") == text;
    if !is_same {
        let new = concat!(env!("CARGO_TARGET_TMPDIR"), "/api.md");
        std::fs::write(new, text).unwrap();
        panic!("docs/api.md shows another answer: put {new} in its place, if it is right");
    }
}
