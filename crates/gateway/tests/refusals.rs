//! Whatever is refused carries a problem with code, subject and hint: in Connect, gRPC and gRPC-Web, unary and as a stream, by the
//! gateway itself or by the library below it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::process::{Command, Stdio};

use common::{GATEWAY, Gateway, SUPERADMIN, path, scene};
use serde_json::Value;

/// What comes back of bytes: headers, a blank line, the body; with HTTP/2 trailers stand behind the body.
fn curl(gateway: &Gateway, arguments: &[&str], path: &str, body: &[u8]) -> Vec<u8> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--include", "--max-time", "60", "--http2-prior-knowledge"]);
    command.args(arguments).arg(format!("http://{}/{path}", gateway.address));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(std::io::Write::write_all(&mut child.stdin.take().unwrap(), body));
    let output = child.wait_with_output().unwrap();
    assert!(!output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A message in a frame.
fn frame(flags: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flags][..], &length, message].concat()
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Base64, as details are written.
fn decoded(text: &str) -> Vec<u8> {
    let table = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let value = table.iter().position(|known| *known == letter).unwrap();
        bits = bits << 6 | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).unwrap());
        }
    }
    bytes
}

/// The bytes of the problem, wherever this protocol puts them.
fn problem(answer: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(answer);
    let line = text.lines().find_map(|line| line.strip_prefix("grpc-status-details-bin:"));
    if let Some(line) = line {
        return decoded(line.trim());
    }
    let json = text.find('{').map_or_else(|| panic!("no problem in {text}"), |at| &text[at..]);
    let mut values = serde_json::Deserializer::from_str(json).into_iter::<Value>();
    let value = values.next().unwrap().unwrap();
    let error = value.get("error").unwrap_or(&value);
    let detail = &error["details"][0];
    assert_eq!(detail["type"], "pve_public_ip.v1.Problem", "{text}");
    decoded(detail["value"].as_str().unwrap())
}

/// What is wrong, the path, the secret, headers, the body.
type Case<'a> = (&'a str, String, &'a str, Vec<&'a str>, Vec<u8>);

struct Protocol {
    name: &'static str,
    kind: &'static str,
    /// Whether messages are in frames, and how the header of compression is called.
    framed: bool,
    encoding: &'static str,
    json: bool,
    grpc: bool,
}

const PROTOCOLS: [Protocol; 5] = [
    Protocol {
        name: "Connect, JSON",
        kind: "application/json",
        framed: false,
        encoding: "content-encoding",
        json: true,
        grpc: false,
    },
    Protocol {
        name: "Connect, protobuf",
        kind: "application/proto",
        framed: false,
        encoding: "content-encoding",
        json: false,
        grpc: false,
    },
    Protocol {
        name: "gRPC",
        kind: "application/grpc+proto",
        framed: true,
        encoding: "grpc-encoding",
        json: false,
        grpc: true,
    },
    Protocol {
        name: "gRPC, JSON",
        kind: "application/grpc+json",
        framed: true,
        encoding: "grpc-encoding",
        json: true,
        grpc: true,
    },
    Protocol {
        name: "gRPC-Web",
        kind: "application/grpc-web+proto",
        framed: true,
        encoding: "grpc-encoding",
        json: false,
        grpc: true,
    },
];

#[test]
fn every_refusal_carries_a_problem_in_every_protocol() {
    let (_directory, root, gateway) = scene();
    let number_json: &[u8] = br#"{"ip_address":"203.0.113.9","monthly_cost_cents":"99999999999999999999"}"#;
    // Field 1 is a number where a text belongs; a length beyond the end.
    let wrong_proto: &[u8] = &[0x08, 0x65];
    for Protocol { name, kind, framed, encoding, json, grpc } in PROTOCOLS {
        let allocate = path("AllocatePublicIP");
        let create = path("CreateVPSPublicIP");
        let whole = |message: &[u8]| if framed { frame(0, message) } else { message.to_owned() };
        let packed = |message: &[u8]| if framed { frame(1, message) } else { message.to_owned() };
        let time = if grpc { "grpc-timeout: x" } else { "connect-timeout-ms: x" };
        let gzip = format!("{encoding}: gzip");
        let unknown = format!("{encoding}: snappy");
        let mut cases: Vec<Case<'_>> = vec![
            (
                "not the type",
                allocate.clone(),
                GATEWAY,
                vec![],
                whole(if json { br#"{"vps_id":101}"# } else { wrong_proto }),
            ),
            (
                "cut off",
                allocate.clone(),
                GATEWAY,
                vec![],
                whole(if json { br#"{"vps_id":"#.as_slice() } else { &[0x0a, 0x7f] }),
            ),
            ("bad gzip", allocate.clone(), GATEWAY, vec![&gzip], packed(b"no gzip at all")),
            ("unknown compression", allocate.clone(), GATEWAY, vec![&unknown], packed(b"x")),
            ("bad time", allocate.clone(), GATEWAY, vec![time], whole(b"")),
            (
                "unknown method",
                "pve_public_ip.v1.VPSGatewayService/TakePublicIP".to_owned(),
                GATEWAY,
                vec![],
                whole(b""),
            ),
            ("unknown service", "pve_public_ip.v2.Gateway/AllocatePublicIP".to_owned(), GATEWAY, vec![], whole(b"")),
            ("no secret", allocate.clone(), "", vec![], whole(b"")),
            ("another role", create.clone(), GATEWAY, vec![], whole(b"")),
            ("empty", allocate.clone(), GATEWAY, vec![], Vec::new()),
            (
                "a stream as one call",
                path("WatchPublicIPs"),
                GATEWAY,
                vec![],
                if framed { frame(0, if json { b"[" } else { wrong_proto }) } else { b"{}".to_vec() },
            ),
        ];
        if json {
            cases.push(("beyond a number", create, SUPERADMIN, vec![], whole(number_json)));
            cases.push(("not an object", allocate.clone(), GATEWAY, vec![], whole(b"[]")));
        }
        if framed {
            cases.push(("a frame that never ends", allocate.clone(), GATEWAY, vec![], vec![0, 0, 0, 0, 99, 1]));
        }
        for (what, path, secret, headers, body) in cases {
            let secret = format!("x-api-secret: {secret}");
            let kind = format!("content-type: {kind}");
            let mut arguments =
                vec!["--request", "POST", "--data-binary", "@-", "--header", &secret, "--header", &kind];
            for header in headers {
                arguments.extend(["--header", header]);
            }
            let answer = curl(&gateway, &arguments, &path, &body);
            let shown = || format!("{name}, {what}: {}", String::from_utf8_lossy(&answer));
            let problem = if name == "gRPC-Web" {
                let text = String::from_utf8_lossy(&answer);
                let line = text.lines().find_map(|line| line.split_once("grpc-status-details-bin:"));
                decoded(line.unwrap_or_else(|| panic!("{}", shown())).1.trim())
            } else {
                problem(&answer)
            };
            let is_code = |code: &str| contains(&problem, code.as_bytes());
            let codes = ["request-invalid", "not-in-api", "api-key-refused", "api-key-limited", "api-answer-lost"];
            assert!(codes.iter().any(|code| is_code(code)), "{}\n{}", shown(), String::from_utf8_lossy(&problem));
            // Field 4 of the problem is the hint: there is one.
            assert!(problem.len() > 60 && problem.contains(&0x22), "{}", shown());
        }
    }
    assert_eq!(root.requests(), Vec::<Value>::new(), "nothing of it came to the root part");
}

#[test]
fn wrong_methods_and_types_say_what_is_right() {
    let (_directory, _root, gateway) = scene();
    let secret = format!("x-api-secret: {GATEWAY}");
    let json = ["--header", "content-type: application/json"];
    let allocate = path("AllocatePublicIP");
    for (what, status, arguments) in [
        ("GET", "405", vec!["--get", "--data-urlencode", "encoding=json", "--data-urlencode", "message={}"]),
        ("PUT", "405", vec!["--request", "PUT", "--data-binary", "@-", json[0], json[1]]),
        ("DELETE", "405", vec!["--request", "DELETE", json[0], json[1]]),
        ("no type", "415", vec!["--request", "POST", "--data-binary", "@-", "--header", "content-type;"]),
        ("a form", "415", vec!["--request", "POST", "--data-binary", "@-"]),
        ("text", "415", vec!["--request", "POST", "--data-binary", "@-", "--header", "content-type: text/plain"]),
        (
            "another version",
            "400",
            vec![
                "--request",
                "POST",
                "--data-binary",
                "@-",
                json[0],
                json[1],
                "--header",
                "connect-protocol-version: 2",
            ],
        ),
    ] {
        let mut all = vec!["--header", secret.as_str()];
        all.extend(arguments);
        let answer = curl(&gateway, &all, &allocate, b"{}");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with(&format!("HTTP/2 {status}")), "{what}: {text}");
        let problem = problem(&answer);
        assert!(contains(&problem, b"request-invalid"), "{what}: {}", String::from_utf8_lossy(&problem));
        assert!(contains(&problem, b"AllocatePublicIP"), "{what}: {}", String::from_utf8_lossy(&problem));
    }
}
