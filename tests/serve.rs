//! The root part of the API from outside: lines in, lines out, on standard input and by a socket.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]
#![allow(clippy::needless_pass_by_value, reason = "`json!` where it is needed reads better than a borrow of it")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::Node;
use serde_json::{Value, json};

/// Longer than anything takes that ends.
const LIMIT: Duration = Duration::from_secs(120);

/// Two nodes, three guests: `shop` and `mail` on this one, `far` on the other.
fn node() -> Node {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    node.tree.qemu(101, "name: shop\ntags: red;blue\nnet0: virtio=02:00:00:AA:BB:01,bridge=vmbr0\n");
    node.tree.qemu(102, "name: mail\ntags: red\nnet0: virtio=02:00:00:AA:BB:02,bridge=vmbr0\nnet1: virtio=02:00:00:AA:BB:12,bridge=vmbr0\n");
    node.tree
        .write("etc/pve/nodes/n2/qemu-server/300.conf", "name: far\nnet0: virtio=02:00:00:AA:BB:30,bridge=vmbr0\n");
    node
}

/// What one process answers to these lines.
fn raw(node: &Node, lines: &[u8]) -> Vec<Value> {
    let mut child = node.command(&["serve"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Answers may fill the pipe before all is asked.
    let mut input = child.stdin.take().unwrap();
    let lines = lines.to_vec();
    let writer = std::thread::spawn(move || drop(input.write_all(&lines)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn request(op: &str, mut body: Value) -> Value {
    body["version"] = 1.into();
    body["op"] = op.into();
    body
}

/// The answer to one request.
fn ask(node: &Node, op: &str, body: Value) -> Value {
    let line = format!("{}\n", request(op, body));
    let mut answers = raw(node, line.as_bytes());
    assert_eq!(answers.len(), 1, "{line}");
    answers.remove(0)
}

fn done(node: &Node, op: &str, body: Value) -> Value {
    let answer = ask(node, op, body.clone());
    assert!(answer.get("done").is_some(), "{op} {body}: {answer}");
    answer["done"].clone()
}

/// The code and the sentence of a refusal, which has a hint.
fn refused(node: &Node, op: &str, body: Value) -> (String, String) {
    let before = node.tree.registry();
    let answer = ask(node, op, body.clone());
    let problem = &answer["problem"];
    let text = |key: &str| problem[key].as_str().unwrap_or_else(|| panic!("{op} {body}: {answer}")).to_owned();
    assert!(!text("hint").is_empty(), "{answer}");
    assert_eq!(node.tree.registry(), before, "{op} {body} was refused, and changed something");
    (text("code"), text("sentence"))
}

fn step(answer: &Value, name: &str) -> String {
    let steps = answer["steps"].as_array().unwrap();
    let found = steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no step {name}: {answer}"));
    found["state"].as_str().unwrap().to_owned()
}

#[test]
fn the_life_of_an_address() {
    let node = node();
    let created =
        done(&node, "create-address", json!({"address": "203.0.113.77", "monthly_cost_cents": 150, "pool": "ovh-rbx"}));
    assert_eq!((&created["changed"], &created["address"]["state"]), (&json!(true), &json!("free")));
    let again = done(&node, "create-address", json!({"address": "203.0.113.77", "monthly_cost_cents": 150}));
    assert_eq!(again["changed"], false);
    let other = done(&node, "create-address", json!({"address": "203.0.113.77", "monthly_cost_cents": 200}));
    assert_eq!((&other["changed"], &other["address"]["monthly_cost_cents"]), (&json!(true), &json!(200)));

    let author = json!({"who": {"user": "api:billing"}, "command": "AllocatePublicIP from 192.0.2.1:4711 request r-1"});
    let allocate = json!({"vps_id": "shop", "address": "203.0.113.77", "organization": "acme", "mac": "02:00:00:aa:bb:01", "author": author});
    let given = done(&node, "allocate", allocate.clone());
    assert_eq!(given["changed"], true);
    let holder = &given["address"]["holder"];
    assert_eq!(
        (&holder["vmid"], &holder["node"], &holder["organization"]),
        (&json!(101), &json!("n1"), &json!("acme"))
    );
    assert_eq!((step(&given, "registry"), step(&given, "hookscript")), ("done".to_owned(), "done".to_owned()));
    assert_eq!(step(&given, "binding"), "done");
    // Whoever lost the answer asks again.
    let again = done(&node, "allocate", allocate);
    assert_eq!((&again["changed"], step(&again, "registry").as_str()), (&json!(false), "unchanged"));
    assert_eq!(again["address"], given["address"]);
    let looked = done(&node, "get-address", json!({"address": "203.0.113.77"}));
    assert_eq!(looked, given["address"]);

    let wrong =
        refused(&node, "deallocate", json!({"address": "203.0.113.77", "vps_id": "shop", "mac": "02:00:00:aa:bb:02"}));
    assert_eq!(
        wrong,
        (
            "mac-not-of-guest".to_owned(),
            "203.0.113.77 is held with the MAC 02:00:00:aa:bb:01, not with 02:00:00:aa:bb:02".to_owned()
        )
    );
    let not_his = done(&node, "deallocate", json!({"address": "203.0.113.77", "vps_id": "mail"}));
    assert_eq!((&not_his["changed"], &not_his["address"]["state"]), (&json!(false), &json!("assigned")));
    assert_eq!(refused(&node, "delete-address", json!({"address": "203.0.113.77"})).0, "address-in-use");
    let taken =
        done(&node, "deallocate", json!({"address": "203.0.113.77", "vps_id": "shop", "mac": "02:00:00:aa:bb:01"}));
    assert_eq!((&taken["changed"], &taken["address"]["state"]), (&json!(true), &json!("cooling")));
    assert_eq!(done(&node, "deallocate", json!({"address": "203.0.113.77", "vps_id": "shop"}))["changed"], false);
    assert_eq!(done(&node, "delete-address", json!({"address": "203.0.113.77"}))["changed"], true);
    assert_eq!(done(&node, "delete-address", json!({"address": "203.0.113.77"}))["changed"], false);

    let past = done(&node, "history", json!({"address": "203.0.113.77"}));
    let holding = &past["holdings"][0];
    assert_eq!((&holding["vmid"], &holding["organization"]), (&json!(101), &json!("acme")));
    assert!(holding["until"].is_string() && past["holdings"].as_array().unwrap().len() == 1, "{past}");
    let log = node.tree.read("var/lib/pve-public-ip/audit.log");
    let entry = log.lines().find(|line| line.contains(r#""event":"assigned""#)).unwrap();
    assert!(entry.contains("api:billing") && entry.contains("from 192.0.2.1:4711 request r-1"), "{entry}");
    node.is_in_line();
}

#[test]
fn the_guest_of_a_name() {
    let node = node();
    let vmid = |body: Value| done(&node, "allocate", body)["address"]["holder"]["vmid"].clone();
    assert_eq!(vmid(json!({"vps_id": "101"})), 101);
    assert_eq!(vmid(json!({"vps_id": "blue"})), 101);
    assert_eq!(vmid(json!({"vps_id": "mail", "interface": "net1"})), 102);
    // A name that nobody has becomes the guest's, if its MAC says which that is.
    let by_mac = json!({"vps_id": "cust-9", "mac": "02:00:00:AA:BB:30", "by_mac": true});
    let given = done(&node, "allocate", by_mac);
    let holder = &given["address"]["holder"];
    assert_eq!((&holder["vmid"], &holder["vps_id"], &holder["node"]), (&json!(300), &json!("cust-9"), &json!("n2")));
    assert_eq!((step(&given, "hookscript").as_str(), step(&given, "binding").as_str()), ("done", "pending"));
    assert_eq!(vmid(json!({"vps_id": "cust-9"})), 300);
    let listed = done(&node, "list-addresses", json!({"vps_id": "cust-9"}));
    assert_eq!(listed["addresses"].as_array().unwrap().len(), 1, "{listed}");
    // It outlives the guest, so that the address can be released.
    fs::remove_file(node.tree.path("etc/pve/nodes/n2/qemu-server/300.conf")).unwrap();
    let address = given["address"]["address"].clone();
    assert_eq!(done(&node, "deallocate", json!({"address": address, "vps_id": "cust-9"}))["changed"], true);

    for (body, code, sentence) in [
        (json!({"vps_id": "red"}), "guest-ambiguous", "`red` means 2 guests: 101, 102"),
        (json!({"vps_id": "nobody"}), "unknown-guest", "no guest is called `nobody`"),
        (json!({"vps_id": "999"}), "unknown-guest", "no guest is called `999`"),
        (json!({"vps_id": ""}), "request-invalid", "`vps_id` is empty"),
        (json!({"vps_id": "a\u{7}"}), "request-invalid", "has a control character"),
        (
            json!({"vps_id": "shop", "mac": "02:00:00:aa:bb:02"}),
            "mac-not-of-guest",
            "guest 101 has no NIC with the MAC 02:00:00:aa:bb:02",
        ),
        (
            json!({"vps_id": "new", "mac": "02:00:00:00:00:09", "by_mac": true}),
            "unknown-guest",
            "no guest has a NIC with the MAC",
        ),
        (json!({"vps_id": "shop", "address": "192.0.2.9"}), "address-in-no-pool", "192.0.2.9"),
        (
            json!({"vps_id": "shop", "address": "203.0.113.12", "gateway": "203.0.113.9"}),
            "gateway-differs",
            "which is 203.0.113.1",
        ),
        (
            json!({"vps_id": "shop", "address": "203.0.113.12", "prefix_length": 24}),
            "netmask-differs",
            "netmask /24 is not that with which a guest uses 203.0.113.12",
        ),
        (json!({"vps_id": "shop", "gateway": "203.0.113.1"}), "request-invalid", "belong to an address"),
        (json!({"vps_id": "shop", "pool": "none"}), "unknown-pool", "none"),
    ] {
        let (found, said) = refused(&node, "allocate", body.clone());
        assert!(found == code && said.contains(sentence), "{body}: {found}: {said}");
    }
    let held = done(&node, "get-address", json!({"address": "203.0.113.10"}));
    assert_eq!(held["state"], "assigned");
    let (code, said) =
        refused(&node, "allocate", json!({"vps_id": "mail", "interface": "net1", "address": "203.0.113.10"}));
    assert!(code == "address-taken" && said.contains("101"), "{code}: {said}");
}

#[test]
fn what_cannot_be_the_name_of_a_customer_is_refused() {
    let node = node();
    for (organization, why) in [
        ("", "it is empty"),
        (" ", "it is empty"),
        ("a\u{1b}[31m", "it has a line break or another control character"),
        ("a\u{202e}", "it has a line break or another control character"),
        (&"x".repeat(501), "it has 501 characters; 500 are allowed"),
    ] {
        for (op, body) in [
            ("allocate", json!({"vps_id": "shop", "address": "203.0.113.10", "organization": organization})),
            ("assign", json!({"vmid": 101, "addresses": ["203.0.113.10"], "organization": organization})),
        ] {
            let (code, sentence) = refused(&node, op, body);
            assert_eq!(code, "request-invalid");
            assert!(sentence.ends_with(&format!("organization: {why}")), "{sentence}");
        }
    }
    assert!(!node.tree.path("etc/pve/public-ip/guests/101.json").exists());
}

#[test]
fn what_would_be_read_otherwise_than_it_was_written_does_nothing() {
    let node = node();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.net.sh("nft flush ruleset");
    for line in [
        &br#"{"version":1,"id":7,"op":"apply","dryrun":true}"#[..],
        br#"{"version":1,"id":7,"op":"list-pools","op":"apply"}"#,
        br#"{"version":1,"id":7,"op":"apply","dry_run":true,"dry_run":false}"#,
        b"{\"version\":1,\"id\":7,\"op\":\"apply\",\"author\":{\"why\":\"caf\xe9\"}}",
        br#"{"version":1,"id":7,"op":"apply","author":{"because":"x"}}"#,
    ] {
        let answers = raw(&node, line);
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0]["id"], 7);
        assert_eq!(answers[0]["problem"]["code"], "request-invalid", "{answers:?}");
    }
    node.net.sh("! nft list table bridge pve-public-ip 2>/dev/null");
}

#[test]
fn an_organization_sees_nothing_of_others() {
    let node = node();
    done(&node, "allocate", json!({"vps_id": "shop", "address": "203.0.113.10", "within": "acme"}));
    done(&node, "allocate", json!({"vps_id": "mail", "address": "203.0.113.11", "organization": "other"}));
    let listed = done(&node, "list-addresses", json!({"within": "acme"}));
    assert_eq!(listed["addresses"].as_array().unwrap().len(), 1, "{listed}");
    // Others', nobody's, the gateway, one that is in no pool.
    let mut answers = Vec::new();
    for address in ["203.0.113.11", "203.0.113.12", "203.0.113.1", "192.0.2.1"] {
        let (code, said) = refused(&node, "get-address", json!({"address": address, "within": "acme"}));
        answers.push((code, said.replace(address, "IT")));
    }
    answers.dedup();
    assert_eq!(answers, [("address-in-no-pool".to_owned(), "IT is in no pool".to_owned())]);
    let foreign = refused(&node, "allocate", json!({"vps_id": "shop", "address": "203.0.113.11", "within": "acme"}));
    let nowhere = refused(&node, "allocate", json!({"vps_id": "shop", "address": "192.0.2.1", "within": "acme"}));
    assert_eq!(foreign.0, nowhere.0);
    // A guest of others is not there, in the words of one that is not there at all.
    let words =
        |vps_id: &str| refused(&node, "allocate", json!({"vps_id": vps_id, "within": "acme"})).1.replace(vps_id, "IT");
    assert_eq!(words("mail"), words("nobody"));
    assert_eq!(words("red"), words("nobody"), "two guests have that tag, one of them is another's");
    let words = |vps_id: &str| {
        let body = json!({"address": "203.0.113.10", "vps_id": vps_id, "within": "acme"});
        refused(&node, "deallocate", body).1.replace(vps_id, "IT")
    };
    assert_eq!([words("mail"), words("red")], [words("nobody"), words("nobody")]);
    // All that is said, the hint too, is the same of a guest of others, of one that holds nothing, and of none.
    node.tree.qemu(103, "name: spare\nnet0: virtio=02:00:00:AA:BB:03,bridge=vmbr0\n");
    let all = |op: &str, body: Value, word: &str| {
        let mut body = body;
        (body["vps_id"], body["within"]) = (word.into(), "acme".into());
        let answer = ask(&node, op, body).to_string();
        assert!(answer.contains("unknown-guest"), "{op} {word}: {answer}");
        answer.replace(word, "IT")
    };
    for (op, body) in [
        ("list-addresses", json!({})),
        ("history", json!({})),
        ("watch", json!({})),
        ("deallocate", json!({"address": "203.0.113.10"})),
        ("deallocate", json!({"address": "203.0.113.10", "mac": "02:00:00:aa:bb:99"})),
    ] {
        let nobodys = all(op, body.clone(), "nobody");
        for word in ["mail", "red", "spare"] {
            assert_eq!(all(op, body.clone(), word), nobodys, "{op} {body} {word}");
        }
    }
    for body in [json!({}), json!({"mac": "02:00:00:aa:bb:99", "by_mac": true})] {
        assert_eq!(all("allocate", body.clone(), "mail"), all("allocate", body, "nobody"));
    }
    for address in ["203.0.113.11", "203.0.113.12", "192.0.2.1"] {
        let answer = done(&node, "deallocate", json!({"address": address, "within": "acme"}));
        assert_eq!(answer, json!({"changed": false, "notes": [], "steps": []}));
    }
    assert_eq!(done(&node, "history", json!({"address": "203.0.113.11", "within": "acme"}))["holdings"], json!([]));
    let (code, _) = refused(&node, "allocate", json!({"vps_id": "shop", "organization": "other", "within": "acme"}));
    assert_eq!(code, "request-invalid");
    for (op, body) in [
        ("list-pools", json!({})),
        ("info", json!({})),
        ("list-keys", json!({})),
        ("metrics", json!({})),
        ("release", json!({"vmid": 102})),
        ("delete-address", json!({"address": "203.0.113.12"})),
    ] {
        let mut body = body;
        body["within"] = "acme".into();
        assert_eq!(refused(&node, op, body).0, "not-in-api", "{op}");
    }
    assert_eq!(done(&node, "get-address", json!({"address": "203.0.113.11"}))["holder"]["vmid"], 102);
}

#[test]
fn what_is_no_request_is_said_and_the_next_one_is_answered() {
    let node = node();
    let long = format!("{{\"version\":1,\"op\":\"info\",\"id\":\"{}\"}}", "x".repeat(300_000));
    let lines = "nonsense\n[]\n{\"id\":\"a\"}\n\n   \n{\"version\":1,\"id\":[1],\"op\":\"shutdown\"}\n\
        {\"version\":1,\"id\":2,\"op\":\"get-address\",\"address\":\"203.0.113.300\"}\n\
        {\"version\":1,\"id\":3,\"op\":\"get-address\",\"address\":\"203.0.113.12\",\"force\":true}\n\
        {\"version\":1,\"id\":4,\"op\":\"get-address\",\"address\":\"203.0.113.12\"}\n";
    let answers = raw(&node, &[lines.as_bytes(), b"\xff\xfe\n"].concat());
    let ids: Vec<Value> = answers.iter().map(|answer| answer.get("id").cloned().unwrap_or_default()).collect();
    assert_eq!(ids, [Value::Null, Value::Null, json!("a"), json!([1]), json!(2), json!(3), json!(4), Value::Null]);
    let are_refused: Vec<bool> = answers.iter().map(|answer| answer["problem"]["code"] == "request-invalid").collect();
    assert_eq!(are_refused, [true, true, true, true, true, true, false, true], "{answers:?}");
    assert!(answers[5]["problem"]["sentence"].as_str().unwrap().contains("unknown field `force`"));
    // The rest of a line that is too long is not taken for the next one.
    let answers = raw(&node, format!("{long}\n{{\"version\":1,\"op\":\"list-pools\"}}\n").as_bytes());
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(
        answers[0]["problem"]["sentence"].as_str().unwrap().contains("more bytes than the 262144 that are allowed"),
        "{answers:?}"
    );
    // Half a line is one without its end.
    let answers = raw(&node, b"{\"version\":1,\"op\":\"list-po");
    assert_eq!(answers[0]["problem"]["code"], "request-invalid");
    // The form of other commands' output is nothing to it.
    let mut child =
        node.command(&["serve"]).env("PROXMOX_OUTPUT_FORMAT", "json").stdin(Stdio::null()).output().unwrap();
    assert_eq!(std::mem::take(&mut child.stdout), b"");
}

/// `serve --listen`, until it is dropped.
struct Listener {
    process: Child,
    socket: PathBuf,
}

impl Listener {
    fn start(node: &Node, arguments: &[&str]) -> Self {
        let socket = node.tree.path("run/pve-public-ip/api.sock");
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let path = socket.to_string_lossy().into_owned();
        let all = [&["serve", "--listen", &path], arguments].concat();
        let process = node.command(&all).stdin(Stdio::null()).spawn().unwrap();
        let listener = Self { process, socket };
        let limit = Instant::now() + LIMIT;
        // The mode is set a moment after root can connect.
        let is_open = || fs::metadata(&listener.socket).is_ok_and(|meta| meta.mode() & 0o777 == 0o660);
        while !is_open() || UnixStream::connect(&listener.socket).is_err() {
            assert!(Instant::now() < limit, "nobody listens at {path}");
            std::thread::sleep(Duration::from_millis(10));
        }
        listener
    }

    fn connect(&self) -> Connection {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Connection(BufReader::new(stream))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // A process that was being started for a connection may hold the socket for a moment longer.
        let limit = Instant::now() + LIMIT;
        while UnixStream::connect(&self.socket).is_ok() && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

struct Connection(BufReader<UnixStream>);

impl Connection {
    fn send(&mut self, op: &str, body: Value) {
        self.0.get_mut().write_all(format!("{}\n", request(op, body)).as_bytes()).unwrap();
    }

    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    fn ask(&mut self, op: &str, body: Value) -> Value {
        self.send(op, body);
        self.next().unwrap()
    }

    /// The next event of this kind.
    fn event(&mut self, kind: &str) -> Value {
        let limit = Instant::now() + LIMIT;
        loop {
            assert!(Instant::now() < limit, "no event {kind}");
            let event = self.next().unwrap()["event"].clone();
            if event["event"] == kind {
                return event;
            }
        }
    }
}

#[test]
fn the_socket_serves_many_and_a_crash_costs_one() {
    let node = node();
    let listener = Listener::start(&node, &[]);
    let meta = fs::metadata(&listener.socket).unwrap();
    assert!(meta.file_type().is_socket() && meta.mode() & 0o777 == 0o660, "{:o}", meta.mode());
    let (mut one, mut two) = (listener.connect(), listener.connect());
    assert_eq!(one.ask("get-address", json!({"address": "203.0.113.12", "id": 1}))["done"]["state"], "free");
    assert_eq!(two.ask("allocate", json!({"vps_id": "shop", "id": 2}))["done"]["changed"], true);
    assert_eq!(
        one.ask("list-addresses", json!({"state": "assigned"}))["done"]["addresses"].as_array().unwrap().len(),
        1
    );
    // The processes behind the connections; one is killed.
    let children = || -> Vec<i32> {
        let id = listener.process.id();
        let text = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    };
    let serving = children();
    let victim = *serving.last().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim), nix::sys::signal::Signal::SIGKILL).unwrap();
    let ends = [one.ends_or_answers(), two.ends_or_answers()];
    assert_eq!(ends.iter().filter(|answers| **answers).count(), 1, "{serving:?}");
    assert_eq!(listener.connect().ask("list-pools", json!({}))["done"]["pools"].as_array().unwrap().len(), 1);
    // A second one does not take the socket away, and one that is left over is replaced.
    let path = listener.socket.to_string_lossy().into_owned();
    node.run(&format!("serve --listen {path}")).fails(
        1,
        &format!("cannot listen at `{path}`: somebody listens there already"),
        "is its directory there, and root's?",
    );
    drop(listener);
    assert!(fs::symlink_metadata(&path).is_ok());
    let again = Listener::start(&node, &[]);
    assert_eq!(again.connect().ask("list-keys", json!({}))["done"]["keys"], json!([]));
}

/// A connection keeps what it has read. Whatever others do to the files between two of its requests counts for the next one.
#[test]
fn a_connection_stands_on_what_others_have_written_since() {
    let node = node();
    let listener = Listener::start(&node, &[]);
    let (mut one, mut two) = (listener.connect(), listener.connect());
    let give = |guest: &str| json!({"vps_id": guest, "address": "203.0.113.12"});
    let take = || json!({"address": "203.0.113.12"});
    let holder = |answer: &Value| answer["done"]["address"]["holder"]["vmid"].clone();
    let code = |answer: &Value| answer["problem"]["code"].clone();
    assert_eq!(holder(&one.ask("allocate", give("shop"))), 101);
    // Another connection, in both directions.
    assert_eq!(code(&two.ask("allocate", give("mail"))), "address-taken");
    assert_eq!(two.ask("deallocate", take())["done"]["changed"], true);
    assert_eq!(one.ask("deallocate", take())["done"]["changed"], false);
    assert_eq!(holder(&two.ask("allocate", give("mail"))), 102);
    assert_eq!(code(&one.ask("allocate", give("shop"))), "address-taken");
    // The command line.
    node.run("release 102 --no-hookscript").ok();
    assert_eq!(holder(&one.ask("allocate", give("shop"))), 101);
    // An editor that writes in place, keeping size and time.
    let path = node.tree.path("etc/pve/public-ip/guests/101.json");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let text = fs::read_to_string(&path).unwrap().replace("203.0.113.12", "203.0.113.13");
    fs::write(&path, text).unwrap();
    fs::File::open(&path).unwrap().set_modified(time).unwrap();
    assert_eq!(one.ask("deallocate", take())["done"]["changed"], false);
    assert_eq!(two.ask("deallocate", json!({"address": "203.0.113.13"}))["done"]["changed"], true);
    assert_eq!(holder(&one.ask("allocate", give("mail"))), 102);
    // A file that goes, one that cannot be read, and one that is there again.
    let pools = node.tree.path(&node.tree.pool_file("ovh-rbx"));
    let known = fs::read(&pools).unwrap();
    fs::remove_file(&pools).unwrap();
    assert_eq!(code(&two.ask("allocate", json!({"vps_id": "shop", "address": "203.0.113.13"}))), "registry-broken");
    fs::write(&pools, "{").unwrap();
    assert_eq!(code(&one.ask("allocate", json!({"vps_id": "shop", "address": "203.0.113.13"}))), "registry-broken");
    fs::write(&pools, known).unwrap();
    assert_eq!(holder(&one.ask("allocate", json!({"vps_id": "shop", "address": "203.0.113.13"}))), 101);
    // A guest that is renamed, and another one that comes.
    node.tree.qemu(102, "name: post\nnet0: virtio=02:00:00:AA:BB:02,bridge=vmbr0\n");
    assert_eq!(code(&two.ask("deallocate", json!({"address": "203.0.113.12", "vps_id": "mail"}))), "unknown-guest");
    node.tree.qemu(103, "name: late\nnet0: virtio=02:00:00:AA:BB:03,bridge=vmbr0\n");
    assert_eq!(two.ask("deallocate", json!({"address": "203.0.113.12", "vps_id": "post"}))["done"]["changed"], true);
    assert_eq!(holder(&two.ask("allocate", give("103"))), 103);
    // The audit log has each change once, whoever made it.
    let audit = node.run("audit --output-format json").ok().json();
    let is_given = |entry: &&Value| entry["event"] == "assigned" && entry["address"] == "203.0.113.12";
    let given: Vec<&Value> = audit["entries"].as_array().unwrap().iter().filter(is_given).collect();
    let vmids: Vec<&Value> = given.iter().map(|entry| &entry["vmid"]).collect();
    assert_eq!(vmids, [101, 102, 101, 102, 103], "{audit}");
}

impl Connection {
    fn ends_or_answers(&mut self) -> bool {
        let line = format!("{}\n", request("list-pools", json!({})));
        if self.0.get_mut().write_all(line.as_bytes()).is_err() {
            return false;
        }
        let mut answer = String::new();
        matches!(self.0.read_line(&mut answer), Ok(length) if length > 0)
    }
}

#[test]
fn what_others_could_plant_is_no_place_for_the_socket() {
    let node = node();
    let at = |name: &str| node.tree.path(name);
    fs::create_dir_all(at("run/open")).unwrap();
    fs::set_permissions(at("run/open"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::create_dir_all(at("run/own")).unwrap();
    fs::write(at("run/own/file"), "precious").unwrap();
    std::os::unix::fs::symlink(at("run/own"), at("run/link")).unwrap();
    for (socket, reason) in [
        ("run/open/s", "is a directory that others can write, or a link"),
        ("run/link/s", "is a directory that others can write, or a link"),
        ("run/own/file", "there is something else than a socket"),
        ("run/none/s", "No such file or directory"),
    ] {
        let run = node.run(&format!("serve --listen {}", at(socket).display())).fails_with(1, &[reason]);
        assert!(run.err.contains("hint: "), "{run}");
    }
    assert_eq!(fs::read_to_string(at("run/own/file")).unwrap(), "precious");
}

#[test]
fn only_root_and_the_gateway_are_answered() {
    let node = node();
    // `nobody` has the part of the gateway here; `daemon` has none.
    let listener = Listener::start(&node, &["--user", "nobody"]);
    let by = |user: &str| {
        let mut socket = Command::new("setpriv");
        socket.args(["--reuid", user, "--clear-groups", "--regid", "nogroup"]);
        let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
            s.sendall(b'{\"version\":1,\"op\":\"list-pools\"}\\n')\ns.shutdown(socket.SHUT_WR)\nprint(s.makefile().readline(), end='')";
        let output = socket.args(["/usr/bin/python3", "-c", script]).arg(&listener.socket).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    // The tree is a private directory of root's: let the others reach the socket, not more.
    for directory in listener.socket.ancestors().skip(1).take_while(|path| path.starts_with(node.tree.root())) {
        let mode = fs::metadata(directory).unwrap().mode() | 0o011;
        fs::set_permissions(directory, fs::Permissions::from_mode(mode)).unwrap();
    }
    // Whoever the mode of the socket lets in is still asked who he is.
    fs::set_permissions(&listener.socket, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(by("daemon").contains("\"code\":\"caller-not-allowed\""), "{}", by("daemon"));
    assert!(by("nobody").contains("\"pools\":["), "{}", by("nobody"));
    // By its own mode it lets nobody else get as far as that.
    fs::set_permissions(&listener.socket, fs::Permissions::from_mode(0o660)).unwrap();
    assert!(by("daemon").contains("PermissionError"), "{}", by("daemon"));
}

#[test]
fn a_watcher_is_told_what_happens() {
    let node = node();
    let listener = Listener::start(&node, &[]);
    let mut all = listener.connect();
    let mut acme = listener.connect();
    let mut mail = listener.connect();
    all.send("watch", json!({"id": "all"}));
    acme.send("watch", json!({"within": "acme"}));
    mail.send("watch", json!({"vps_id": "mail"}));
    for watcher in [&mut all, &mut acme, &mut mail] {
        assert_eq!(watcher.event("ready")["node"], "n1");
    }
    let mut other = listener.connect();
    other.ask("allocate", json!({"vps_id": "mail", "address": "203.0.113.11", "organization": "other"}));
    other.ask("allocate", json!({"vps_id": "shop", "address": "203.0.113.10", "organization": "acme"}));
    let event = all.event("assigned");
    assert_eq!(
        (&event["vmid"], &event["address"], &event["organization"], &event["pool"]),
        (&json!(102), &json!("203.0.113.11"), &json!("other"), &json!("ovh-rbx"))
    );
    assert_eq!(all.event("assigned")["vmid"], 101);
    assert_eq!(acme.event("assigned")["vmid"], 101);
    assert_eq!(mail.event("assigned")["vmid"], 102);
    // A guest moves, and its addresses with it.
    fs::rename(
        node.tree.path("etc/pve/nodes/n1/qemu-server/101.conf"),
        node.tree.path("etc/pve/nodes/n2/qemu-server/101.conf"),
    )
    .unwrap();
    let event = acme.event("moved");
    assert_eq!(
        (&event["vmid"], &event["node"], &event["address"]),
        (&json!(101), &json!("n2"), &json!("203.0.113.10"))
    );
    // The log is rotated: what comes after is told, too.
    let log = node.tree.path("var/lib/pve-public-ip/audit.log");
    fs::rename(&log, log.with_extension("log.1")).unwrap();
    other.ask("deallocate", json!({"address": "203.0.113.11"}));
    assert_eq!(mail.event("released")["address"], "203.0.113.11");
    assert_eq!(all.event("released")["vmid"], 102);
    let mut nobody = listener.connect();
    nobody.send("watch", json!({"vps_id": "nobody"}));
    assert_eq!(nobody.next().unwrap()["problem"]["code"], "unknown-guest");
    assert_eq!(nobody.next(), None, "the connection ends");
}

#[test]
fn keys_are_shown_once() {
    let node = node();
    let added =
        node.run("key add billing --role gateway --organization acme --expires 90d --output-format json").ok().json();
    let secret = added["secret"].as_str().unwrap();
    assert!(secret.starts_with("ppip_") && secret.len() == 5 + 64, "{added}");
    let text = node.tree.read("etc/pve/priv/public-ip/keys.json");
    assert!(!text.contains(&secret[5..]), "{text}");
    let expected = Command::new("sh").args(["-c", &format!("printf %s {secret} | sha256sum")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&expected.stdout)[..64], added["sha256"].as_str().unwrap()[..]);
    let key = &done(&node, "list-keys", json!({}))["keys"][0];
    assert_eq!(
        (&key["name"], &key["role"], &key["organization"], &key["sha256"]),
        (&json!("billing"), &json!("gateway"), &json!("acme"), &added["sha256"])
    );
    assert!(key["expires_at"].is_string());
    node.run("key add root --role superadmin").ok();
    node.run("key list").ok();
    assert!(!node.run("key list --output-format json").json().to_string().contains("sha256"));
    for (line, error, hint) in [
        (
            "key add billing --role viewer",
            "there is a key `billing` already",
            "choose another name, or `pve-public-ip key revoke billing` first",
        ),
        (
            "key add ../x --role viewer",
            "`../x` is no name of a key",
            "1 to 64 letters, digits, `-`, `_` and `.`: `pve-public-ip key add billing --role gateway`",
        ),
        (
            "key add s --role superadmin --organization acme",
            "a superadmin sees all organizations, and cannot be bound to one",
            "leave `--organization` out, or take `--role gateway`",
        ),
        (
            "key add old --role viewer --expires 2020-01-01",
            "the key would have expired already",
            "`--expires` is a time to come, or a span: 90d",
        ),
    ] {
        node.run(line).fails(1, error, hint);
    }
    node.run("key revoke billing --dry-run").prints("key `billing` would be revoked\n");
    node.run("key revoke billing").prints("key `billing` is revoked\n");
    node.run("key revoke billing").prints("there is no key `billing`\n");
    let names: Vec<Value> =
        done(&node, "list-keys", json!({}))["keys"].as_array().unwrap().iter().map(|key| key["name"].clone()).collect();
    assert_eq!(names, ["root"]);
    let log = node.tree.read("var/lib/pve-public-ip/audit.log");
    assert!(log.contains("key-added") && log.contains("key-revoked") && !log.contains(&secret[5..]), "{log}");
    // A file that cannot be used lets nobody in, and says so.
    node.tree.write("etc/pve/priv/public-ip/keys.json", "{\"version\":9,\"keys\":[]}");
    assert_eq!(refused(&node, "list-keys", json!({})).0, "keys-unusable");
    node.run("key add a --role viewer").fails_with(4, &["it has version 9"]);
}

/// Says of each pair of a schema and a value what is wrong with it.
const CHECK: &str = "
import json, sys
from jsonschema import Draft202012Validator
for name, schema, value in json.load(sys.stdin):
    Draft202012Validator.check_schema(schema)
    for error in Draft202012Validator(schema).iter_errors(value):
        print(f'{name}: {json.dumps(value)}: {error.message[:400]}')
    print('checked')";

/// What is shipped for those who write a client describes what goes over the socket, refusals included.
#[test]
fn requests_and_replies_are_of_their_schemas() {
    let node = node();
    let schema = |kind: &str| -> Value { serde_json::from_str(&node.run(&format!("schema {kind}")).ok().out).unwrap() };
    let (request, reply) = (schema("request"), schema("reply"));
    let good = [
        json!({"version": 1, "id": 1, "op": "info"}),
        json!({"version": 1, "id": "a", "op": "assign", "vmid": 101, "pool": "ovh-rbx", "families": [4], "hookscript": false}),
        json!({"version": 1, "author": {"why": "ticket 12"}, "within": "acme", "op": "list-addresses", "state": "free"}),
        json!({"version": 1, "op": "release", "vmid": 101, "dry_run": true}),
        json!({"version": 1, "op": "list-pools"}),
        json!({"version": 1, "op": "list-keys"}),
        json!({"version": 1, "op": "release", "vmid": 999, "addresses": ["203.0.113.10"]}),
    ];
    // Refused by the program, and by the schema.
    let bad = [
        json!({"version": 1, "op": "destroy"}),
        json!({"version": 1, "op": "assign", "vmid": 101, "families": [5]}),
        json!({"op": "info"}),
        json!({"version": 1, "op": "release", "vmid": 100, "dry_run": 1}),
    ];
    let lines: String = good.iter().chain(&bad).map(|line| format!("{line}\n")).collect();
    let replies = raw(&node, lines.as_bytes());
    assert_eq!(replies.len(), good.len() + bad.len(), "{replies:?}");
    for (line, reply) in bad.iter().zip(&replies[good.len()..]) {
        assert_eq!(reply["problem"]["code"], "request-invalid", "{line}: {reply}");
    }
    let check = |cases: Vec<Value>| {
        let mut child = Command::new("python3");
        let mut child = child.args(["-c", CHECK]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(json!(cases).to_string().as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    let count = good.len() + replies.len();
    let right = good.iter().map(|line| json!(["request", request, line]));
    let found = check(right.chain(replies.iter().map(|line| json!(["reply", reply, line]))).collect());
    assert_eq!(found, "checked\n".repeat(count));
    for line in &bad {
        let found = check(vec![json!(["request", request, line])]);
        assert!(found.starts_with("request: "), "{line} is let through: {found}");
    }
}

/// What the command line can say of one address, a caller of the API can: a group that holds it in turn, a prefix behind a guest,
/// the family of the next free one, the MAC that the provider bound.
#[test]
fn addresses_of_all_kinds_are_given_and_taken() {
    let node = node();
    node.run("pool create lan --profile generic-bridged --bridge vmbr0 --gateway4 198.51.100.1 --gateway6 2001:db8:2::1 198.51.100.0/24 2001:db8:2::/120").ok();
    let shared = |guest: &str| json!({"vps_id": guest, "address": "198.51.100.50", "shared": "web"});
    for (guest, vmid) in [("shop", 101), ("mail", 102)] {
        let given = done(&node, "allocate", shared(guest));
        assert_eq!((&given["changed"], &given["address"]["shared"]), (&json!(true), &json!("web")), "{given}");
        // The answer is about the guest that was named, not about the first that holds it.
        assert_eq!((&given["vmid"], &given["address"]["holder"]["vmid"]), (&json!(vmid), &json!(vmid)));
        let page = done(&node, "list-addresses", json!({"vps_id": guest}));
        let held = &page["addresses"][0];
        assert_eq!((&held["address"], &held["holder"]["vmid"]), (&json!("198.51.100.50"), &json!(vmid)));
    }
    assert_eq!(done(&node, "allocate", shared("mail"))["changed"], false);
    let (code, sentence) = refused(&node, "deallocate", json!({"address": "198.51.100.50"}));
    assert_eq!(code, "guest-ambiguous");
    assert_eq!(sentence, "several guests hold 198.51.100.50 in turn: 101, 102");
    // The one that is named, not the first that holds it; and with its own MAC.
    let wrong = json!({"address": "198.51.100.50", "vps_id": "mail", "mac": "02:00:00:aa:bb:01"});
    assert_eq!(refused(&node, "deallocate", wrong).0, "mac-not-of-guest");
    let taken = json!({"address": "198.51.100.50", "vps_id": "mail", "mac": "02:00:00:aa:bb:02"});
    let mut tried = taken.clone();
    tried["dry_run"] = true.into();
    let tried = done(&node, "deallocate", tried);
    assert_eq!(
        (&tried["changed"], &tried["vmid"], &tried["address"]["holder"]["vmid"]),
        (&json!(true), &json!(102), &json!(102))
    );
    assert_eq!((step(&tried, "registry").as_str(), step(&tried, "binding").as_str()), ("pending", "pending"));
    assert_eq!(done(&node, "deallocate", taken.clone())["changed"], true);
    assert_eq!(done(&node, "deallocate", taken)["changed"], false);
    assert_eq!(done(&node, "get-address", json!({"address": "198.51.100.50"}))["holder"]["vmid"], 101);
    assert_eq!(done(&node, "deallocate", json!({"address": "198.51.100.50"}))["changed"], true);

    for (family, prefix) in [(json!(6), "2001:db8:2::"), (json!(4), "198.51.100."), (Value::Null, "198.51.100.")] {
        let given = done(&node, "allocate", json!({"vps_id": "mail", "pool": "lan", "family": family}));
        let address = given["address"]["address"].as_str().unwrap();
        assert!(address.starts_with(prefix), "{family}: {given}");
    }
    let wrong = refused(&node, "allocate", json!({"vps_id": "mail", "address": "198.51.100.9", "family": 6}));
    assert_eq!(wrong, ("request-invalid".to_owned(), "family: 198.51.100.9 is no IPv6 address".to_owned()));

    done(&node, "allocate", json!({"vps_id": "shop", "address": "198.51.100.10"}));
    let behind = json!({"vps_id": "shop", "address": "198.51.100.32/28", "via": "198.51.100.10"});
    let given = done(&node, "allocate", behind);
    let (address, via) = (&given["address"]["address"], &given["address"]["via"]);
    assert_eq!((address, via), (&json!("198.51.100.32/28"), &json!("198.51.100.10")));
    let tried = done(&node, "allocate", json!({"vps_id": "mail", "address": "198.51.100.60", "dry_run": true}));
    assert_eq!(
        (&tried["changed"], &tried["vmid"], step(&tried, "registry").as_str()),
        (&json!(true), &json!(102), "pending")
    );
    assert_eq!((&tried["address"]["state"], step(&tried, "binding").as_str()), (&json!("free"), "pending"));
    let told = tried["steps"].as_array().unwrap().iter().find(|step| step["name"] == "cloud-init").unwrap();
    assert_eq!((&told["state"], &told["problem"]["code"]), (&json!("not-possible"), &json!("guest-not-told")));
    let lone = refused(&node, "allocate", json!({"vps_id": "shop", "pool": "lan", "via": "198.51.100.10"}));
    assert_eq!(lone.0, "request-invalid");

    let mac = json!({"address": "203.0.113.60", "pool": "ovh-rbx", "mac": "02:00:00:aa:bb:60"});
    done(&node, "create-address", mac);
    let other = json!({"vps_id": "far", "address": "203.0.113.60"});
    assert_eq!(refused(&node, "allocate", other).0, "provider-mac-differs");
    let given = done(
        &node,
        "allocate",
        json!({"vps_id": "mail", "address": "203.0.113.60", "interface": "net1", "set_mac": true}),
    );
    assert_eq!(
        (step(&given, "mac").as_str(), &given["address"]["mac"]),
        ("done", &json!("02:00:00:aa:bb:60")),
        "{given}"
    );
    node.is_in_line();
}

/// What a refusal costs does not tell whether an address is another organization's or nobody's: the same system calls, on the same
/// files, for both.
#[test]
fn foreign_and_unknown_addresses_are_refused_by_the_same_work() {
    common::need(&["strace"]);
    let node = node();
    done(&node, "allocate", json!({"vps_id": "shop", "address": "203.0.113.10", "organization": "acme"}));
    done(&node, "allocate", json!({"vps_id": "mail", "address": "203.0.113.11", "organization": "other"}));
    let work = |op: &str, body: &Value, address: &str| -> Vec<String> {
        let mut body = body.clone();
        (body["address"], body["within"]) = (address.into(), "acme".into());
        node.tree.write("request", format!("{}\n", request(op, body)));
        let trace = node.tree.path("trace");
        let script = format!(
            "strace -qq -f -s 256 -e signal=none -e trace=openat,read,write,flock,fsync,mkdir,rename,sendto,socket,clone3,execve \
             -o {} {} --root {} serve <{}",
            trace.display(),
            common::BINARY,
            node.tree.root().display(),
            node.tree.path("request").display()
        );
        let output = node.net.command("sh").args(["-c", &script]).output().unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        assert!(answer.contains("address-in-no-pool") || op == "deallocate", "{answer}");
        let text = fs::read_to_string(trace).unwrap();
        // The call and the file it names; numbers of processes, descriptors and times differ by themselves.
        let shown = |line: &str| {
            let call = line.split_once(' ')?.1.trim_start().split('(').next()?.to_owned();
            let file = line.split('"').nth(1).filter(|_| call == "openat" || call == "execve").unwrap_or_default();
            Some(format!("{call} {}", file.trim_end_matches(|c: char| c.is_ascii_digit())))
        };
        text.lines().filter_map(shown).collect()
    };
    for (op, body) in
        [("allocate", json!({"vps_id": "shop"})), ("get-address", json!({})), ("deallocate", json!({"vps_id": "shop"}))]
    {
        let foreign = work(op, &body, "203.0.113.11");
        assert!(foreign.len() > 10, "{foreign:?}");
        assert_eq!(foreign, work(op, &body, "192.0.2.11"), "{op}");
    }
}
