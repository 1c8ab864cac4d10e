//! What stands between the network and the calls: limits, slow and hostile peers, TLS, streams, the start and the end.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{GATEWAY, Gateway, Root, SUPERADMIN, curl, key, path, scene, until};
use serde_json::{Value, json};

fn get() -> Value {
    json!({ "public_ip": "203.0.113.10" })
}

/// A request by hand.
fn request(headers: &str, body: &str) -> Vec<u8> {
    let path = path("GetPublicIP");
    format!("POST /{path} HTTP/1.1\r\nhost: x\r\nx-api-secret: {GATEWAY}\r\ncontent-type: application/json\r\n{headers}\r\n{body}")
        .into_bytes()
}

#[test]
fn large_requests_are_refused_and_the_next_is_served() {
    let (_directory, root, gateway) = scene();
    let large = json!({ "public_ip": "x".repeat(300 * 1024) });
    let (status, answer) = gateway.call("GetPublicIP", Some(GATEWAY), &large);
    assert_eq!((status, &answer["code"]), (429, &json!("resource_exhausted")), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("larger than 262144 bytes"), "{answer}");
    // Without a length, too.
    let header = format!("x-api-secret: {GATEWAY}");
    let chunked = ["--header", header.as_str(), "--header", "transfer-encoding: chunked"];
    assert_eq!(gateway.curl("GetPublicIP", &chunked, &large.to_string()).0, 429);
    // Whoever has no secret is not even read.
    assert_eq!(gateway.call("GetPublicIP", None, &large).0, 401);
    let headers = format!("x-large: {}\r\n", "y".repeat(64 * 1024));
    assert!(gateway.raw(&request(&headers, "")).starts_with("HTTP/1.1 431"), "large headers");
    let many: String = (0..100).map(|number| format!("x-{number}: y\r\n")).collect();
    assert!(gateway.raw(&request(&many, "")).starts_with("HTTP/1.1 431"), "many headers");
    assert_eq!(root.requests().len(), 0);
    assert_eq!(gateway.call("GetPublicIP", Some(GATEWAY), &get()).0, 200);
}

/// A refused request does not cost the next one its connection, nor a client that still writes its answer.
#[test]
fn a_refusal_leaves_the_connection() {
    let (_directory, _root, gateway) = scene();
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    let mut answer = || {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(answers.read_line(&mut head).unwrap() > 0, "the connection ended after {head:?}");
        }
        head.make_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        answers.read_exact(&mut body).unwrap();
        // Without a length it comes in chunks.
        let mut line = String::new();
        while length.is_none() && line != "0\r\n\r\n" {
            if !line.starts_with('0') {
                line.clear();
            }
            assert!(answers.read_line(&mut line).unwrap() > 0, "the connection ended after {line:?}");
        }
        head
    };
    let path = path("GetPublicIP");
    for (secret, status) in [("wrong", 401), (GATEWAY, 200), ("wrong", 401), (GATEWAY, 200)] {
        let head = format!(
            "POST /{path} HTTP/1.1\r\nhost: x\r\nx-api-secret: {secret}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        // As node sends it: the body a moment after the headers.
        stream.write_all(head.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(50));
        stream.write_all(b"1c\r\n{\"public_ip\":\"203.0.113.10\"}\r\n0\r\n\r\n").unwrap();
        let head = answer();
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{secret}: {head}");
    }
    // What is larger than anything is read as well, up to a point, and then the connection ends.
    for (secret, status) in [("wrong", "401"), (GATEWAY, "429")] {
        let body = "x".repeat(900 * 1024);
        let large = format!("content-length: {}\r\nconnection: close\r\n", body.len());
        let bytes = String::from_utf8(request(&large, &body)).unwrap().replace(GATEWAY, secret);
        let answer = gateway.raw(bytes.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    // Whoever never sends the rest is told that the connection ends.
    let bytes = String::from_utf8(request("content-length: 100\r\n", "{")).unwrap().replace(GATEWAY, "wrong");
    let answer = gateway.raw(bytes.as_bytes()).to_lowercase();
    assert!(answer.starts_with("http/1.1 401 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    // Whoever asks first does not send it at all.
    let bytes = request("expect: 100-continue\r\ncontent-length: 300000\r\n", "");
    let answer = gateway.raw(String::from_utf8(bytes).unwrap().replace(GATEWAY, "wrong").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[test]
fn nobody_waits_for_who_is_slow() {
    let (_directory, _root, gateway) = scene();
    let mut slow = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(gateway.address).unwrap();
        match number % 4 {
            0 => {}
            1 => stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\nx-slow: ").unwrap(),
            2 => stream.write_all(&request("content-length: 100\r\n", "{")).unwrap(),
            _ => stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap(),
        }
        slow.push(stream);
    }
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(gateway.call("GetPublicIP", Some(GATEWAY), &get()).0, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(30));
    // Each of them is left in the end.
    for (number, stream) in slow.iter_mut().enumerate() {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer).map_err(|error| error.kind());
        assert!(
            matches!(ended, Ok(_) | Err(std::io::ErrorKind::ConnectionReset)),
            "{number} was not ended: {ended:?} {}",
            String::from_utf8_lossy(&answer)
        );
        if number % 4 == 2 {
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.contains("deadline_exceeded") && answer.contains("within 15 s"), "{answer}");
        }
    }
    until("their places are free", || gateway.get("/metrics").contains("\npve_public_ip_gateway_connections 1\n"));
}

#[test]
fn shapes_that_smuggle_are_one_request_or_none() {
    let (_directory, root, gateway) = scene();
    let inner = String::from_utf8(request("content-length: 2\r\n", "{}")).unwrap();
    let body = r#"{"public_ip":"203.0.113.10"}"#;
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for headers in [
        // Two lengths that differ, in one header and in two.
        format!("content-length: {}\r\ncontent-length: 0\r\nconnection: close\r\n", body.len()),
        format!("content-length: {}, 0\r\nconnection: close\r\n", body.len()),
        format!("content-length: +{}\r\nconnection: close\r\n", body.len()),
        "content-length: 0x10\r\nconnection: close\r\n".to_owned(),
        "content-length: 99999999999999999999\r\nconnection: close\r\n".to_owned(),
        // A header name with a space, and a folded one.
        format!("content-length : {}\r\nconnection: close\r\n", body.len()),
        "x-a: b\r\n c: d\r\ncontent-length: 0\r\nconnection: close\r\n".to_owned(),
        // Chunked in words that are not quite that.
        "transfer-encoding: xchunked\r\nconnection: close\r\n".to_owned(),
        "transfer-encoding: chunked, identity\r\nconnection: close\r\n".to_owned(),
    ] {
        let answer = gateway.raw(&request(&headers, &format!("{body}{inner}")));
        assert!(!answer.contains("203.0.113.10\""), "{headers} gave {answer}");
        assert!(answer.starts_with("HTTP/1.1 4"), "{headers} gave {answer}");
    }
    assert_eq!(root.requests().len(), 0, "{:?}", root.requests());
    // A length beside chunks: the chunks count, as RFC 9112 says, and the connection carries nothing after them.
    let both = "content-length: 4\r\ntransfer-encoding: chunked\r\nconnection: close\r\n";
    let answer = gateway.raw(&request(both, &format!("{chunk}{inner}")));
    assert!(answer.matches("HTTP/1.1").count() == 1, "{answer}");
    assert!(root.requests().len() <= 1);
    assert_eq!(gateway.call("GetPublicIP", Some(GATEWAY), &get()).0, 200);
}

#[test]
fn wrong_methods_types_and_paths() {
    let (_directory, root, gateway) = scene();
    let header = format!("x-api-secret: {GATEWAY}");
    let body = get().to_string();
    for (arguments, status) in [
        (vec!["--request", "PUT"], 405),
        (vec!["--request", "DELETE"], 405),
        (vec!["--header", "content-type: text/plain"], 415),
        (vec!["--header", "content-type: application/grpc"], 200),
        (vec!["--header", "content-encoding: br"], 404),
        (vec!["--header", "connect-protocol-version: 2"], 400),
    ] {
        let mut all = vec!["--header", header.as_str()];
        all.extend(&arguments);
        let found = gateway.curl("GetPublicIP", &all, &body);
        let is_refused = found.0 == status || (status == 404 && found.0 == 501);
        assert!(is_refused, "{arguments:?}: {found:?}");
    }
    let url = |path: &str| format!("http://{}/{path}", gateway.address);
    for unknown in
        ["", "pve_public_ip.v1.VPSGatewayService/Nothing", "../etc/passwd", "pve_public_ip.v1.Other/GetPublicIP"]
    {
        let answer = curl(&["--header", &header], &url(unknown), "{}");
        assert!(answer.ends_with("\n404"), "{unknown}: {answer}");
    }
    assert_eq!(root.requests().len(), 0);
    // What only looks can be asked for with GET.
    let query = "?connect=v1&encoding=json&message=%7B%22public_ip%22%3A%22203.0.113.10%22%7D";
    let output = Command::new("curl")
        .args(["--silent", "--header", &header, &url(&(path("GetPublicIP") + query))])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("203.0.113.10"), "{output:?}");
}

#[test]
fn http2_without_tls_health_and_reflection() {
    let (_directory, _root, gateway) = scene();
    let header = format!("x-api-secret: {GATEWAY}");
    let found = gateway.curl("GetPublicIP", &["--http2-prior-knowledge", "--header", &header], &get().to_string());
    assert_eq!((found.0, &found.1["ip"]["ipAddress"]), (200, &json!("203.0.113.10")));
    let url = |path: &str| format!("http://{}/{path}", gateway.address);
    let health = curl(&[], &url("grpc.health.v1.Health/Check"), r#"{"service":"pve_public_ip.v1.VPSGatewayService"}"#);
    assert!(health.contains("SERVING") && health.ends_with("\n200"), "{health}");
    let health = curl(&[], &url("grpc.health.v1.Health/Check"), r#"{"service":"other"}"#);
    assert!(health.ends_with("\n404"), "{health}");
    let reflected = curl(
        &["--http2-prior-knowledge", "--header", "content-type: application/connect+json", "--output", "-"],
        &url("grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
        &framed(r#"{"listServices":""}"#),
    );
    assert!(reflected.contains("pve_public_ip.v1.SuperadminService"), "{reflected}");
}

/// As a message of a stream: a byte of flags, four of length.
fn framed(message: &str) -> String {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    assert!(length[3] < 128, "the test makes a text of it");
    format!("\0{}{message}", String::from_utf8(length.to_vec()).unwrap())
}

/// A watcher with curl: what it was told so far.
struct Watcher {
    child: std::process::Child,
    text: Arc<Mutex<String>>,
}

impl Watcher {
    fn begin(gateway: &Gateway, secret: &str, filter: &str) -> Self {
        let mut child = Command::new("curl")
            .args(["--silent", "--no-buffer", "--http2-prior-knowledge", "--data-binary", "@-", "--output", "-"])
            .args([
                "--header",
                "content-type: application/connect+json",
                "--header",
                &format!("x-api-secret: {secret}"),
            ])
            .arg(format!("http://{}/{}", gateway.address, path("WatchPublicIPs")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(framed(filter).as_bytes()).unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let text = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&text);
        thread::spawn(move || {
            let mut bytes = Vec::new();
            while out.read_until(b'}', &mut bytes).is_ok_and(|count| count > 0) {
                shared.lock().unwrap().push_str(&String::from_utf8_lossy(&std::mem::take(&mut bytes)));
            }
        });
        Self { child, text }
    }

    fn has(&self, word: &str) -> bool {
        self.text.lock().unwrap().contains(word)
    }

    fn wait(&self, word: &str) {
        let began = Instant::now();
        while !self.has(word) {
            assert!(began.elapsed() < Duration::from_secs(60), "{word} is not in {}", self.text.lock().unwrap());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn watchers_are_told_what_is_theirs_until_their_key_is_revoked() {
    let (_directory, root, gateway) = scene();
    root.set(|known| {
        known.keys = vec![
            key("acme", "acme-secret", "viewer", &json!({ "organization": "acme" })),
            key("soon", "soon-secret", "viewer", &json!({})),
        ];
    });
    until("the keys are known", || gateway.call("GetPublicIP", Some("acme-secret"), &get()).0 == 200);
    let all = Watcher::begin(&gateway, GATEWAY, "{}");
    let acme = Watcher::begin(&gateway, "acme-secret", "{}");
    let filtered = Watcher::begin(&gateway, GATEWAY, r#"{"organization_id":"other"}"#);
    let soon = Watcher::begin(&gateway, "soon-secret", "{}");
    for watcher in [&all, &acme, &filtered, &soon] {
        watcher.wait("ready");
    }
    root.set(|known| {
        known.events = vec![
            json!({ "address": "203.0.113.10", "organization": "acme" }),
            json!({ "address": "203.0.113.20", "organization": "other" }),
            json!({ "address": "203.0.113.30" }),
        ];
    });
    all.wait("203.0.113.30");
    filtered.wait("203.0.113.20");
    acme.wait("203.0.113.10");
    // After a later sign of life nothing can still be on its way.
    let alive = acme.text.lock().unwrap().matches("alive").count();
    until("acme hears more", || acme.text.lock().unwrap().matches("alive").count() > alive + 3);
    assert!(!acme.has("203.0.113.20") && !acme.has("203.0.113.30"));
    assert!(!filtered.has("203.0.113.10") && !filtered.has("203.0.113.30"));
    assert!(gateway.get("/metrics").contains("pve_public_ip_gateway_streams 4"));

    root.set(|known| known.keys.retain(|key| key["name"] != "acme"));
    acme.wait("unauthenticated");
    let expired = key("soon", "soon-secret", "viewer", &json!({ "expires_at": "2020-01-01T00:00:00Z" }));
    root.set(|known| known.keys = vec![expired]);
    soon.wait("unauthenticated");
    assert!(!all.has("unauthenticated"));
    until("their places are free", || gateway.get("/metrics").contains("pve_public_ip_gateway_streams 2"));

    let refused = Watcher::begin(&gateway, GATEWAY, r#"{"vpsid":"101"}"#);
    refused.wait("unknown field `vpsid`");

    gateway.signal("TERM");
    all.wait("the gateway stops");
}

#[test]
fn metrics_are_for_this_machine_and_whole_keys() {
    let (_directory, root, gateway) = scene();
    root.set(|known| {
        known.keys = vec![
            key("prometheus", "whole-secret", "viewer", &json!({})),
            key("acme", "acme-secret", "viewer", &json!({ "organization": "acme" })),
        ];
    });
    until("the keys are known", || gateway.call("GetPublicIP", Some("acme-secret"), &get()).0 == 200);
    let found = gateway.get("/metrics");
    assert!(
        found.contains("\npve_public_ip_gateway_root_part_up 1\n") && found.contains("\npve_public_ip_in_line 1\n"),
        "{found}"
    );
    // As by a proxy on this machine, for somebody elsewhere.
    let forwarded = |secret: &str| {
        let text = format!(
            "GET /metrics HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 192.0.2.1\r\nauthorization: Bearer {secret}\r\nconnection: close\r\n\r\n"
        );
        gateway.raw(text.as_bytes())
    };
    assert!(forwarded("wrong").starts_with("HTTP/1.1 401 "));
    assert!(forwarded("whole-secret").contains("\npve_public_ip_in_line 1\n"));
    let own = forwarded("acme-secret");
    assert!(own.contains("\npve_public_ip_gateway_connections ") && !own.contains("pve_public_ip_in_line"), "{own}");
}

/// HTTP/2 by hand: what no client does.
struct Frames(TcpStream);

impl Frames {
    /// Begins with these settings.
    fn begin(gateway: &Gateway, settings: &[(u16, u32)]) -> Self {
        let mut stream = TcpStream::connect(gateway.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut frames = Self(stream);
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        assert!(frames.send(4, 0, 0, &payload), "the connection is open");
        frames
    }

    /// Whether it could be sent.
    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        self.0.write_all(&frame).is_ok()
    }

    /// The headers of a call, as literals that no table knows.
    fn call(&mut self, method: &str, stream: u32) -> bool {
        let path = format!("/{}", path(method));
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path.as_str()),
            (":authority", "x"),
            ("content-type", "application/connect+json"),
            ("x-api-secret", GATEWAY),
        ] {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend(text.bytes());
            }
        }
        self.send(1, 4, stream, &block)
    }

    /// Answers what keeps the connection alive, and nothing else; whether it ended.
    fn keeps_alive(&mut self) -> bool {
        let mut head = [0; 9];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                return false;
            }
            Err(_) => return true,
        }
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap()];
        self.0.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        if self.0.read_exact(&mut payload).is_err() {
            return true;
        }
        self.0.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        match (head[3], head[4] & 1) {
            (4, 0) => !self.send(4, 1, 0, &[]),
            (6, 0) => !self.send(6, 1, 0, &payload),
            _ => false,
        }
    }
}

/// Of HTTP/2 a peer can be alive and take nothing of a stream: it does not keep its place.
#[test]
fn a_watcher_that_takes_nothing_is_ended() {
    let (_directory, _root, gateway) = scene();
    // Streams begin with no room at all.
    let mut frames = Frames::begin(&gateway, &[(4, 0)]);
    assert!(frames.call("WatchPublicIPs", 1));
    assert!(frames.send(0, 1, 1, framed("{}").as_bytes()));
    until("it watches", || gateway.get("/metrics").contains("pve_public_ip_gateway_streams 1"));
    let reader = Watcher::begin(&gateway, GATEWAY, "{}");
    reader.wait("ready");
    let began = Instant::now();
    while !frames.keeps_alive() {
        assert!(began.elapsed() < Duration::from_secs(180), "it keeps its place");
    }
    until("its place is free", || gateway.get("/metrics").contains("pve_public_ip_gateway_streams 1"));
    // Whoever reads is told on.
    let alive = reader.text.lock().unwrap().matches("alive").count();
    until("the other one hears more", || reader.text.lock().unwrap().matches("alive").count() > alive);
}

/// Sends the frame of a number; whether that was possible.
type Send = Box<dyn FnMut(&mut Frames, u32) -> bool>;

/// Floods of what costs the sender nothing: the connection ends or they are borne, and others are served meanwhile.
#[test]
fn floods_of_frames_hold_up_nobody() {
    let (_directory, root, mut gateway) = scene();
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = memory();
    let served = || assert_eq!(gateway.call("GetPublicIP", Some(GATEWAY), &get()).0, 200);
    let large = vec![b'x'; 16 * 1024];
    let flood = |what: &str, count: u32, mut send: Send| {
        let mut frames = Frames::begin(&gateway, &[]);
        let sent = (0..count).take_while(|number| send(&mut frames, *number)).count();
        served();
        assert!(sent > 0, "{what}");
        // What it is told is not read: the connection is given up.
    };
    flood(
        "calls that are taken back at once",
        20_000,
        Box::new(|frames, number| {
            frames.call("GetPublicIP", 2 * number + 1) && frames.send(3, 0, 2 * number + 1, &[0, 0, 0, 8])
        }),
    );
    flood("settings", 50_000, Box::new(|frames, _| frames.send(4, 0, 0, &[])));
    flood("pings", 50_000, Box::new(|frames, _| frames.send(6, 0, 0, &[0; 8])));
    flood(
        "empty data",
        50_000,
        Box::new(|frames, number| if number == 0 { frames.call("GetPublicIP", 1) } else { frames.send(0, 0, 1, &[]) }),
    );
    flood(
        "headers without an end",
        4_000,
        Box::new(
            move |frames, number| {
                if number == 0 { frames.send(1, 0, 1, &large) } else { frames.send(9, 0, 1, &large) }
            },
        ),
    );
    flood("streams without a body", 10_000, Box::new(|frames, number| frames.call("AllocatePublicIP", 2 * number + 1)));
    flood("frames of unknown kinds", 20_000, Box::new(|frames, number| frames.send(200, 255, number & 0xff, &[7; 64])));
    flood("windows that overflow", 100, Box::new(|frames, _| frames.send(8, 0, 0, &0x7fff_ffff_u32.to_be_bytes())));
    let after = memory();
    assert!(after < before + 64 * 1024, "it takes {after} kB and took {before}");
    assert!(root.requests().iter().all(|request| request["op"] == "get-address"), "{:?}", root.requests());
    assert!(gateway.child.try_wait().unwrap().is_none(), "it died");
    assert!(!gateway.log.lock().unwrap().contains("panicked"));
}

/// Whoever asks for much and reads nothing does not keep others from their answers.
#[test]
fn nobody_waits_for_who_does_not_read() {
    let (_directory, root, gateway) = scene();
    // Each answer has a kilobyte or more of it back.
    let one = request("", "").len();
    let calls = String::from_utf8(request("content-length: 28\r\n", r#"{"public_ip":"203.0.113.10"}"#)).unwrap();
    let mut deaf: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(gateway.address).unwrap()).collect();
    for stream in &mut deaf {
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        // Until nothing more is taken.
        let many = calls.repeat(2_000_000 / one);
        drop(stream.write_all(many.as_bytes()));
    }
    let asked = root.requests().len();
    for _ in 0..5 {
        assert_eq!(gateway.call("GetPublicIP", Some(GATEWAY), &get()).0, 200);
    }
    assert!(root.requests().len() >= asked + 5);
}

#[test]
fn secrets_are_changed_without_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::begin(directory.path());
    let file = directory.path().join("secret");
    let (old, new) = ("o".repeat(40), "n".repeat(40));
    std::fs::write(&file, &old).unwrap();
    let name = file.to_str().unwrap().to_owned();
    let gateway = Gateway::start(&root.socket, &[], &[("GATEWAY_API_SECRET", ""), ("GATEWAY_API_SECRET_FILE", &name)]);
    let status = |secret: &str| gateway.call("GetPublicIP", Some(secret), &get()).0;
    assert_eq!((status(&old), status(&new)), (200, 401));
    std::fs::write(&file, format!("{old}\n{new}\n")).unwrap();
    gateway.signal("HUP");
    until("both count", || status(&new) == 200);
    assert_eq!(status(&old), 200);
    // One that cannot be used changes nothing.
    std::fs::write(&file, "short").unwrap();
    gateway.signal("HUP");
    until("it is told", || gateway.log.lock().unwrap().contains("the old ones count on"));
    assert_eq!((status(&old), status(&new)), (200, 200));
    std::fs::write(&file, &new).unwrap();
    gateway.signal("HUP");
    until("the old one is gone", || status(&old) != 200);
    assert_eq!(status(&new), 200);
    let log = gateway.log.lock().unwrap().clone();
    assert!(!log.contains(&old) && !log.contains(&new), "{log}");
}

/// A certificate for 127.0.0.1, and its key, as files.
fn certificate(directory: &Path, name: &str) -> rcgen::Certificate {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    let certificate = parameters.self_signed(&key).unwrap();
    std::fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(directory.join("certificate.pem"), certificate.pem()).unwrap();
    certificate
}

#[test]
fn tls_and_its_certificate_is_loaded_again() {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::begin(directory.path());
    let first = certificate(directory.path(), "first").pem();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (chain, private) = (file("certificate.pem"), file("key.pem"));
    let gateway = Gateway::start(&root.socket, &["--tls-certificate", &chain, "--tls-key", &private], &[]);
    let trusted = file("trusted.pem");
    let header = format!("x-api-secret: {GATEWAY}");
    let status = |authority: &str, version: &str| {
        std::fs::write(&trusted, authority).unwrap();
        let url = format!("https://{}/{}", gateway.address, path("GetPublicIP"));
        let mut child = Command::new("curl")
            .args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code} %{http_version}", version])
            .args(["--cacert", &trusted, "--header", &header, "--header", "content-type: application/json"])
            .args(["--data-binary", &get().to_string(), &url])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        child.wait().unwrap();
        text
    };
    until("it serves", || status(&first, "--http2") == "200 2");
    assert_eq!(status(&first, "--http1.1"), "200 1.1");
    assert!(
        gateway.get("/healthz").is_empty() || !gateway.get("/healthz").contains("ok"),
        "without TLS nothing is said"
    );
    let second = certificate(directory.path(), "second").pem();
    until("the new one serves", || status(&second, "--http2") == "200 2");
    assert_eq!(status(&first, "--http2"), "000 0");
    // One that cannot be used is not taken.
    std::fs::write(&chain, "rubbish").unwrap();
    until("it is told", || gateway.log.lock().unwrap().contains("the old certificate serves on"));
    assert_eq!(status(&second, "--http2"), "200 2");
}

#[test]
fn client_certificates_are_wanted_if_told() {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::begin(directory.path());
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let client_key = rcgen::KeyPair::generate().unwrap();
    let client =
        rcgen::CertificateParams::new(vec!["panel".to_owned()]).unwrap().signed_by(&client_key, &issuer).unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let own = certificate(directory.path(), "gateway").pem();
    let (trusted, ca) = (file("trusted.pem", &own), file("ca.pem", &authority_certificate.pem()));
    let (chain, private) = (file("client.pem", &client.pem()), file("client-key.pem", &client_key.serialize_pem()));
    let path_of = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path_of("certificate.pem"), path_of("key.pem"));
    let gateway =
        Gateway::start(&root.socket, &["--tls-certificate", &certificate, "--tls-key", &key, "--client-ca", &ca], &[]);
    let header = format!("x-api-secret: {GATEWAY}");
    let with = ["--cacert", &trusted, "--header", &header, "--cert", &chain, "--key", &private];
    until("it serves", || gateway.curl("GetPublicIP", &with, &get().to_string()).0 == 200);
    assert_eq!(gateway.curl("GetPublicIP", &with[..4], &get().to_string()).0, 0);
}

#[test]
fn it_does_not_start_wrongly_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let start = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_pve-public-ip-gateway"))
            .args(arguments)
            .env_clear()
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let secret = ("GATEWAY_API_SECRET", GATEWAY);
    let (code, text) = start(&[], &[]);
    assert!(
        code == 2 && text.contains("error: GATEWAY_API_SECRET is not set") && text.contains("\nhint: `head"),
        "{text}"
    );
    let (code, text) = start(&[], &[("GATEWAY_API_SECRET", "hunter2")]);
    assert!(code == 2 && text.contains("has 7 bytes") && !text.contains("hunter2"), "{text}");
    let (code, text) = start(&["--listen", "0.0.0.0:0"], &[secret]);
    assert!(code == 1 && text.contains("--listen: 0.0.0.0:0 is not loopback"), "{text}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, text) = start(&["--listen", &taken.local_addr().unwrap().to_string()], &[secret]);
    assert!(code == 1 && text.contains("Address already in use") && text.contains("hint: `ss -tlnp`"), "{text}");
    let none = directory.path().join("none.pem");
    let none = none.to_str().unwrap();
    let (code, text) = start(&["--listen", "127.0.0.1:0", "--tls-certificate", none, "--tls-key", none], &[secret]);
    assert!(code == 1 && text.contains("error: --tls-certificate: ") && text.contains("none.pem"), "{text}");
}

#[test]
fn the_manual_has_each_option_and_variable() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../debian/pve-public-ip-gateway.8")).unwrap();
    let page = page.replace('\\', "");
    let help = Command::new(env!("CARGO_BIN_EXE_pve-public-ip-gateway")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let is_word = |word: &&str| word.starts_with("--") || (word.contains('_') && word.to_uppercase() == **word);
    let words = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').filter(is_word);
    let words: Vec<&str> = words.filter(|word| !["--help", "--version"].contains(word)).collect();
    assert!(words.len() > 8, "{help}");
    for word in
        words.into_iter().chain(["GATEWAY_UPLINK_INTERFACE", "gateway-api-secret", "/run/pve-public-ip-api.sock"])
    {
        assert!(page.contains(word), "{word} is not in debian/pve-public-ip-gateway.8");
    }
}

#[test]
fn secrets_are_not_where_others_read() {
    let (_directory, _root, gateway) = scene();
    let proc = |name: &str| format!("/proc/{}/{name}", gateway.child.id());
    let line = std::fs::read_to_string(proc("cmdline")).unwrap();
    assert!(!line.contains(GATEWAY) && !line.contains(SUPERADMIN));
    let limits = std::fs::read_to_string(proc("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    // What is not dumpable belongs to root, for everybody else of its user.
    let status = std::fs::read_to_string(proc("status")).unwrap();
    assert!(status.contains("CoreDumping:\t0"), "{status}");
}

#[test]
fn a_stop_ends_what_has_begun() {
    let (_directory, root, mut gateway) = scene();
    root.set(|known| known.pause = Duration::from_millis(500));
    let address = gateway.address;
    let calls: Vec<_> = (0..10)
        .map(|_| {
            thread::spawn(move || {
                let url = format!("http://{address}/{}", path("GetPublicIP"));
                curl(&["--header", &format!("x-api-secret: {GATEWAY}")], &url, &get().to_string())
            })
        })
        .collect();
    until("they have begun", || root.requests().len() == 10);
    gateway.signal("TERM");
    for call in calls {
        let answer = call.join().unwrap();
        assert!(answer.ends_with("\n200"), "{answer}");
    }
    assert!(gateway.child.wait().unwrap().success());
    assert!(TcpStream::connect(address).is_err());
}

/// Starts gateways one after another at one socket, as systemd does, while a loop of requests runs.
#[test]
fn starting_anew_refuses_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::begin(directory.path());
    let script = directory.path().join("keeper.py");
    std::fs::write(&script, KEEPER).unwrap();
    let notify = directory.path().join("notify.sock");
    let mut keeper = Command::new("python3")
        .arg(&script)
        .args([
            env!("CARGO_BIN_EXE_pve-public-ip-gateway"),
            root.socket.to_str().unwrap(),
            notify.to_str().unwrap(),
            "4",
        ])
        .env("GATEWAY_API_SECRET", GATEWAY)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(keeper.stdout.take().unwrap()).lines();
    let address = lines.next().unwrap().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let (failed, served) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let loops: Vec<_> = (0..4)
        .map(|_| {
            let (done, failed, served) = (Arc::clone(&done), Arc::clone(&failed), Arc::clone(&served));
            let url = format!("http://{address}/{}", path("GetPublicIP"));
            thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let answer = curl_quietly(&url);
                    let count = if answer.ends_with("200") { &served } else { &failed };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let said: Vec<String> = lines.map_while(Result::ok).collect();
    done.store(true, Ordering::Relaxed);
    for one in loops {
        one.join().unwrap();
    }
    assert!(keeper.wait().unwrap().success(), "{said:?}");
    for word in ["READY=1", "STOPPING=1", "WATCHDOG=1"] {
        assert!(said.iter().any(|line| line.contains(word)), "{word} is not in {said:?}");
    }
    assert_eq!((failed.load(Ordering::Relaxed), served.load(Ordering::Relaxed) > 20), (0, true), "{served:?} {said:?}");
}

fn curl_quietly(url: &str) -> String {
    let output = Command::new("curl")
        .args(["--silent", "--max-time", "60", "--output", "/dev/null", "--write-out", "%{http_code}"])
        .args(["--header", "content-type: application/json", "--header", &format!("x-api-secret: {GATEWAY}")])
        .args(["--data-binary", &get().to_string(), url])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Plays systemd: listens, and gives the socket to one gateway after the other.
const KEEPER: &str = r#"
import os, signal, socket, subprocess, sys, time
program, api, notify, rounds = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
listener = socket.create_server(("127.0.0.1", 0))
# The third descriptor is the one that is handed over.
os.dup2(listener.fileno(), 3) if listener.fileno() != 3 else os.set_inheritable(3, True)
ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
ear.bind(notify)
def start():
    code = "import os,sys; os.environ['LISTEN_PID']=str(os.getpid()); os.execv(sys.argv[1], sys.argv[1:])"
    environment = dict(os.environ, NOTIFY_SOCKET=notify, WATCHDOG_USEC="400000", LISTEN_FDS="1")
    return subprocess.Popen([sys.executable, "-c", code, program, "--api-socket", api],
                            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(3,))
def hear(word):
    while True:
        message = ear.recv(4096).decode()
        print(message.replace("\n", " "), flush=True)
        if word in message:
            return
print("%s:%d" % listener.getsockname(), flush=True)
child = start()
hear("READY=1")
for _ in range(rounds):
    hear("WATCHDOG=1")
    time.sleep(0.3)
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 0
    child = start()
    hear("READY=1")
time.sleep(0.3)
# It goes on while the callers end.
sys.stdout.flush()
os.close(1)
time.sleep(2)
child.send_signal(signal.SIGTERM)
sys.exit(child.wait(60))
"#;

/// Bytes that are no requests, or not quite, from a generator with fixed seeds: the gateway lives, and serves the next.
#[test]
fn hostile_bytes_do_no_harm() {
    let (_directory, root, mut gateway) = scene();
    let good = [
        request("content-length: 28\r\nconnection: close\r\n", r#"{"public_ip":"203.0.113.10"}"#),
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
            &[0, 0, 0, 4, 0, 0, 0, 0, 0],
            &[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x82],
        ]
        .concat(),
        framed(r#"{"public_ip":"a"}"#).into_bytes(),
    ];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    };
    for round in 0..400 {
        let mut bytes = good[round % good.len()].clone();
        for _ in 0..=random() % 6 {
            let at = random() % bytes.len();
            match random() % 4 {
                0 => bytes[at] = u8::try_from(random() % 256).unwrap(),
                1 => drop(bytes.splice(at..at, (0..random() % 40).map(|_| b'\xff'))),
                2 => bytes.truncate(at.max(1)),
                _ => {
                    let part = bytes[at..].to_vec();
                    bytes.extend(part);
                }
            }
        }
        let mut stream = TcpStream::connect(gateway.address).unwrap();
        drop(stream.write_all(&bytes));
        drop(stream.shutdown(Shutdown::Write));
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let ended = stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
        assert!(matches!(ended, Ok(_) | Err(std::io::ErrorKind::ConnectionReset)), "round {round}: {ended:?}");
    }
    assert!(root.requests().iter().all(|request| request["op"] == "get-address"), "{:?}", root.requests());
    assert!(gateway.child.try_wait().unwrap().is_none(), "it died");
    assert_eq!(gateway.call("GetPublicIP", Some(GATEWAY), &get()).0, 200);
    assert!(!gateway.log.lock().unwrap().contains("panicked"));
}

#[test]
fn many_at_once_are_served_or_told_to_wait() {
    let (_directory, root, gateway) = scene();
    root.set(|known| known.pause = Duration::from_millis(5));
    let address = gateway.address;
    let loops: Vec<_> = (0..50)
        .map(|_| {
            thread::spawn(move || {
                let url = format!("http://{address}/{}", path("GetPublicIP"));
                (0..4).map(|_| curl_quietly(&url)).collect::<Vec<_>>()
            })
        })
        .collect();
    for statuses in loops.into_iter().map(|one| one.join().unwrap()) {
        assert!(statuses.iter().all(|status| status == "200"), "{statuses:?}");
    }
    assert_eq!(root.requests().len(), 200);
}
