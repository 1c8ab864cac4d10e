//! A gateway that runs, and a root part that answers what a test wants.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test program uses its part")]

pub mod node;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Secrets of the roles.
pub const GATEWAY: &str = "gateway-secret-0123456789abcdef-0123456789";
pub const SUPERADMIN: &str = "superadmin-secret-0123456789abcdef-012345";

/// A root part, and a gateway that asks it.
pub fn scene() -> (tempfile::TempDir, Root, Gateway) {
    scene_with(&[])
}

/// The same with more environment for the gateway.
pub fn scene_with(environment: &[(&str, &str)]) -> (tempfile::TempDir, Root, Gateway) {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::begin(directory.path());
    let gateway = Gateway::start(&root.socket, &[], environment);
    (directory, root, gateway)
}

/// Waits for a condition: no test is faster or slower than what it waits for.
pub fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what} did not happen within a minute");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What a root part knows.
#[derive(Debug, Default)]
pub struct Known {
    /// The keys that it lists.
    pub keys: Vec<Value>,
    /// Who holds what.
    pub held: BTreeMap<String, String>,
    /// The requests that came, those for keys and metrics apart.
    pub requests: Vec<Value>,
    /// What is done with the next change: `Some("close")` before the answer, `Some("garbage")`, `Some("silence")`.
    pub trick: Option<&'static str>,
    /// The problem that every request but that for keys is answered with.
    pub problem: Option<Value>,
    /// Lines for each watcher.
    pub events: Vec<Value>,
    /// How long each answer takes.
    pub pause: Duration,
}

/// A root part of the tests: a thread, and one more for each connection.
pub struct Root {
    pub socket: PathBuf,
    pub known: Arc<Mutex<Known>>,
}

impl Root {
    pub fn begin(directory: &Path) -> Self {
        Self::begin_at(&directory.join("api.sock"))
    }

    pub fn begin_at(socket: &Path) -> Self {
        let socket = socket.to_owned();
        let listener = UnixListener::bind(&socket).unwrap();
        let known = Arc::new(Mutex::new(Known::default()));
        let shared = Arc::clone(&known);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let known = Arc::clone(&shared);
                thread::spawn(move || drop(serve(stream.unwrap(), &known)));
            }
        });
        Self { socket, known }
    }

    pub fn set(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.lock().unwrap());
    }

    pub fn requests(&self) -> Vec<Value> {
        self.known.lock().unwrap().requests.clone()
    }
}

fn address(text: &str, holder: Option<&str>) -> Value {
    let mut address = json!({
        "address": text, "prefix_length": 24, "gateway": "203.0.113.1", "pool": "ovh-rbx", "state": "free",
        "monthly_cost_cents": 199
    });
    if let Some(name) = holder {
        address["state"] = "assigned".into();
        address["mac"] = "02:00:00:aa:bb:01".into();
        address["holder"] = json!({
            "vmid": 101, "vps_id": name, "interface": "net0", "node": "pve1", "assigned_at": "2026-11-30T12:00:00Z"
        });
    }
    address
}

fn pool() -> Value {
    let totals = json!({ "size": 254, "assigned": 1, "free": 250, "cooling": 1, "reserved": 2 });
    json!({
        "name": "ovh-rbx", "profile": "ovh-bridged", "bridge": "vmbr0", "totals": { "ipv4": totals }, "enforce": "watch",
        "uplink_guard": "enforce", "probe": "never", "cool_down": "1h"
    })
}

fn serve(stream: UnixStream, known: &Mutex<Known>) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        let request: Value = serde_json::from_str(&line?).unwrap();
        assert_eq!(request["version"], 1);
        let op = request["op"].as_str().unwrap().to_owned();
        if op == "list-keys" {
            let keys = known.lock().unwrap().keys.clone();
            writeln!(writer, "{}", json!({ "id": request["id"], "done": { "keys": keys } }))?;
            continue;
        }
        if op == "metrics" {
            let text = "# TYPE pve_public_ip_in_line gauge\npve_public_ip_in_line 1\n";
            writeln!(writer, "{}", json!({ "id": request["id"], "done": { "text": text } }))?;
            continue;
        }
        let (trick, problem, pause) = {
            let mut known = known.lock().unwrap();
            known.requests.push(request.clone());
            (known.trick.take(), known.problem.clone(), known.pause)
        };
        thread::sleep(pause);
        match trick {
            Some("close") => return Ok(()),
            Some("garbage") => {
                writeln!(writer, "{{]")?;
                continue;
            }
            Some("other") => {
                writeln!(writer, "{}", json!({ "id": "another", "done": {} }))?;
                continue;
            }
            Some(other) => panic!("{other}"),
            None => {}
        }
        if let Some(problem) = problem {
            writeln!(writer, "{}", json!({ "id": request["id"], "problem": problem }))?;
            continue;
        }
        if op == "watch" {
            return watch(&mut writer, &request, known);
        }
        let done = answer(&op, &request, &mut known.lock().unwrap());
        writeln!(writer, "{}", json!({ "id": request["id"], "done": done }))?;
    }
    Ok(())
}

fn watch(writer: &mut UnixStream, request: &Value, known: &Mutex<Known>) -> std::io::Result<()> {
    let event = |kind: &str| json!({ "event": kind, "time": "2026-11-30T12:00:00Z", "node": "pve1" });
    writeln!(writer, "{}", json!({ "id": request["id"], "event": event("ready") }))?;
    let mut sent = 0;
    loop {
        let events = known.lock().unwrap().events.clone();
        for extra in &events[sent.min(events.len())..] {
            let mut event = event("assigned");
            event.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            writeln!(writer, "{}", json!({ "id": request["id"], "event": event }))?;
        }
        sent = events.len();
        thread::sleep(Duration::from_millis(20));
        writeln!(writer, "{}", json!({ "id": request["id"], "event": event("alive") }))?;
    }
}

fn answer(op: &str, request: &Value, known: &mut Known) -> Value {
    let text = |name: &str| request[name].as_str().map(str::to_owned);
    match op {
        "allocate" => {
            let address_text = text("address").unwrap_or_else(|| "203.0.113.10".to_owned());
            let name = text("vps_id").unwrap();
            let changed = known.held.insert(address_text.clone(), name.clone()).is_none();
            let step = json!({ "name": "cloud-init", "state": "pending", "problem": {
                "code": "guest-running", "subject": { "kind": "guest", "id": 101 }, "sentence": "it runs", "hint": "reboot it"
            }});
            json!({ "changed": changed, "vmid": 101, "address": address(&address_text, Some(&name)), "steps": [step] })
        }
        "deallocate" => {
            let address_text = text("address").unwrap();
            let changed = known.held.remove(&address_text).is_some();
            json!({ "changed": changed, "vmid": 101, "address": address(&address_text, None) })
        }
        "create-address" => json!({ "changed": true, "address": address(&text("address").unwrap(), None) }),
        "delete-address" => json!({ "changed": true }),
        "get-address" => {
            let address_text = text("address").unwrap();
            address(&address_text, known.held.get(&address_text).map(String::as_str))
        }
        "list-addresses" => {
            let count = request["page_size"].as_u64().unwrap_or(100);
            let addresses: Vec<_> = (0..count)
                .map(|number| address(&format!("198.51.{}.{}", number / 250, number % 250 + 1), Some("shop")))
                .collect();
            json!({ "addresses": addresses, "next_page_token": "more" })
        }
        "list-pools" => json!({ "pools": [pool()] }),
        "create-pool" | "set-pool" => json!({ "changed": true, "pool": "ovh-rbx", "notes": [], "steps": ["a line"] }),
        "remove-from-pool" => {
            json!({ "pool": "ovh-rbx", "changed": true, "existed": true, "removed": [], "absent": [] })
        }
        "history" => json!({ "holdings": [{
            "address": "203.0.113.10", "vmid": 101, "interface": "net0", "mac": null, "pool": "ovh-rbx",
            "organization": null, "from": "2026-11-30T12:00:00Z", "until": null, "until_at_latest": false
        }]}),
        "verify-guest" => json!({
            "node": "pve1", "secure": true, "problems": [],
            "checks": [{ "interface": "net0", "mac": "02:00:00:aa:bb:01", "addresses": ["203.0.113.10"], "state": "protected" }],
            "counters": [{ "port": "tap101i0", "reason": "spoofed-source", "packets": 3, "bytes": 180 }]
        }),
        "info" => json!({
            "version": "0.2.0", "node": "pve1", "uplinks": ["eno1"], "pools": [pool()], "healthy": true, "problems": []
        }),
        other => panic!("{other}"),
    }
}

/// A gateway: it ends with the test.
pub struct Gateway {
    pub child: Child,
    pub address: SocketAddr,
    /// What it has written.
    pub log: Arc<Mutex<String>>,
}

impl Gateway {
    /// With these arguments besides, and these variables.
    pub fn start(socket: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let gateway = Self::begin(socket, arguments, variables);
        until("the root part is seen", || {
            gateway.get("/healthz").starts_with("HTTP/1.1 200") || arguments.contains(&"--tls-key")
        });
        gateway
    }

    /// The same, without waiting for the root part.
    pub fn begin(socket: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pve-public-ip-gateway"));
        command.args(["--listen", "127.0.0.1:0", "--api-socket"]).arg(socket).args(arguments).env_clear();
        command.env("GATEWAY_API_SECRET", GATEWAY).env("SUPERADMIN_API_SECRET", SUPERADMIN);
        command.envs(variables.iter().copied()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut address = None;
        for line in lines.by_ref() {
            let line = line.unwrap();
            log.lock().unwrap().push_str(&format!("{line}\n"));
            if let Some(rest) = line.split("listens at ").nth(1) {
                address = Some(rest.split(' ').next().unwrap().parse().unwrap());
                break;
            }
        }
        let shared = Arc::clone(&log);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                shared.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        let address = address.unwrap_or_else(|| panic!("the gateway does not listen: {}", log.lock().unwrap()));
        Self { child, address, log }
    }

    /// A GET by hand, with all that comes back.
    pub fn get(&self, path: &str) -> String {
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
    }

    /// Bytes by hand, with all that comes back.
    pub fn raw(&self, bytes: &[u8]) -> String {
        let Ok(mut stream) = TcpStream::connect(self.address) else { return String::new() };
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut found = Vec::new();
        // It may have enough before it has read all of it.
        drop(stream.write_all(bytes));
        drop(stream.read_to_end(&mut found));
        String::from_utf8_lossy(&found).into_owned()
    }

    /// A call as Connect and JSON with curl: status and answer.
    pub fn call(&self, method: &str, secret: Option<&str>, request: &Value) -> (u16, Value) {
        let header = secret.map(|secret| format!("x-api-secret: {secret}"));
        let mut arguments = Vec::new();
        if let Some(header) = &header {
            arguments.extend(["--header", header.as_str()]);
        }
        self.curl(method, &arguments, &request.to_string())
    }

    /// The same with arguments for curl.
    pub fn curl(&self, method: &str, arguments: &[&str], body: &str) -> (u16, Value) {
        let scheme = if arguments.contains(&"--cacert") { "https" } else { "http" };
        let output = curl(arguments, &format!("{scheme}://{}/{}", self.address, path(method)), body);
        let (answer, status) = output.rsplit_once('\n').unwrap_or_else(|| panic!("{method}: {output}"));
        (status.parse().unwrap(), serde_json::from_str(answer).unwrap_or(Value::String(answer.to_owned())))
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            let log = self.log.lock().map(|log| log.clone()).unwrap_or_default();
            writeln!(std::io::stderr(), "the gateway wrote:\n{log}").unwrap_or_default();
        }
    }
}

/// The path of a method: those of the operator are the ones that say VPS or pool.
pub fn path(method: &str) -> String {
    let is_operators = method.contains("VPS") || method.contains("Pool") || method == "VerifySecurity";
    let service = if is_operators { "SuperadminService" } else { "VPSGatewayService" };
    format!("pve_public_ip.v1.{service}/{method}")
}

/// What curl says, and the status on a line of its own.
pub fn curl(arguments: &[&str], url: &str, body: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "60", "--write-out", "\n%{http_code}"]);
    if !arguments.iter().any(|argument| argument.starts_with("content-type:")) {
        command.args(["--header", "content-type: application/json"]);
    }
    command.args(["--data-binary", "@-"]).args(arguments).arg(url);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The gateway may refuse it before curl has read all of it.
    drop(child.stdin.take().unwrap().write_all(body.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A key of the root part.
pub fn key(name: &str, secret: &str, role: &str, more: &Value) -> Value {
    let output = Command::new("sh").args(["-c", "printf %s \"$1\" | sha256sum", "sh", secret]).output().unwrap();
    let sha256 = String::from_utf8(output.stdout).unwrap()[..64].to_owned();
    let mut key = json!({ "name": name, "sha256": sha256, "role": role, "created_at": "2026-11-30T12:00:00Z" });
    key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    key
}
