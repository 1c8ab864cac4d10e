//! The gateway before real nodes: from a call over HTTP to frames on a wire, on one node and on two, by many callers at once, and
//! while the daemon and the root part are killed.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

#[path = "nodes/lab.rs"]
#[expect(dead_code, reason = "the lives of guests use all of it, this a part")]
mod lab;

mod common;
#[path = "common/random.rs"]
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{BINARY, Ends, Node};
use lab::{Guard, Lab, NODES, PATIENCE, Stage, nic};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use random::Random;
use serde_json::{Value, json};

/// The secret of the operator, who may call everything.
const SECRET: &str = "superadmin-secret-0123456789abcdef-012345";

/// Waits for a condition, which says what is not so yet.
fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) => assert!(began.elapsed() < PATIENCE, "{what}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The root part of a node, listening.
fn serve(node: &Node) -> Ends {
    let socket = node.tree.path("run/api.sock");
    let serve = node.command(&["serve", "--listen", socket.to_str().unwrap()]).stdout(Stdio::null()).spawn().unwrap();
    let serve = Ends(serve);
    until("the root part listens", || UnixStream::connect(&socket).map(drop).map_err(|error| error.to_string()));
    serve
}

/// A daemon with a root part behind it.
struct Gateway {
    _daemon: Ends,
    _serve: Ends,
    address: SocketAddr,
}

impl Gateway {
    fn start(node: &Node) -> Self {
        let (serve, socket) = (serve(node), node.tree.path("run/api.sock"));
        let (daemon, address) = daemon(&socket);
        let gateway = Self { _daemon: daemon, _serve: serve, address };
        until("the gateway knows the root part", || gateway.is_healthy());
        gateway
    }

    fn is_healthy(&self) -> Result<(), String> {
        let answer = get(self.address, "/healthz");
        if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
    }

    fn call(&self, method: &str, request: &Value) -> (u16, Value) {
        call(self.address, method, request).unwrap_or_else(|error| panic!("{method} {request}: {error}"))
    }

    /// The answer to a call that succeeds.
    fn done(&self, method: &str, request: &Value) -> Value {
        let (status, answer) = self.call(method, request);
        assert_eq!(status, 200, "{method} {request}: {answer}");
        answer
    }
}

/// The daemon, which cargo puts beside the program, and where it listens.
fn daemon(socket: &Path) -> (Ends, SocketAddr) {
    let program = Path::new(BINARY).with_file_name("pve-public-ip-gateway");
    assert!(program.exists(), "{} is missing: `cargo build --workspace` makes it", program.display());
    let child = Command::new(program)
        .args(["--api-socket", socket.to_str().unwrap(), "--listen", "127.0.0.1:0"])
        .env_clear()
        .envs([
            ("GATEWAY_API_SECRET", SECRET.replace("superadmin", "gateway").as_str()),
            ("SUPERADMIN_API_SECRET", SECRET),
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Ends(child);
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let address = lines.find_map(|line| Some(line.split_once("listens at ")?.1.trim().parse().unwrap()));
    let address = address.expect("the gateway listens");
    // It must not wait for somebody who reads what it says.
    std::thread::spawn(move || lines.for_each(drop));
    (child, address)
}

fn get(address: SocketAddr, path: &str) -> String {
    let answer = TcpStream::connect(address).and_then(|mut stream| {
        let mut answer = String::new();
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())?;
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    answer.unwrap_or_else(|error| error.to_string())
}

/// A call as Connect and JSON on a connection of its own: status and answer, or why there is none.
fn call(address: SocketAddr, method: &str, request: &Value) -> std::io::Result<(u16, Value)> {
    let is_operators = method.contains("VPS") || method.contains("Pool") || method == "VerifySecurity";
    let service = if is_operators { "SuperadminService" } else { "VPSGatewayService" };
    let body = request.to_string();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE * 2))?;
    let head = format!(
        "POST /pve_public_ip.v1.{service}/{method} HTTP/1.0\r\nhost: x\r\nx-api-secret: {SECRET}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let broken = || std::io::Error::other(format!("no whole answer: {answer}"));
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(broken)?;
    let body = answer.split_once("\r\n\r\n").ok_or_else(broken)?.1;
    Ok((status, serde_json::from_str(body).map_err(|_| broken())?))
}

/// The state and the problem's code of a step of an answer.
fn step(answer: &Value, name: &str) -> (String, String) {
    let steps = answer["steps"].as_array().unwrap_or_else(|| panic!("no steps: {answer}"));
    let found = steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no step {name}: {answer}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&found["state"]), text(&found["problem"]["code"]))
}

/// Frees all that the lab's guests hold, so that the calls begin with nothing.
fn release_all(lab: &Lab) {
    for vmid in [100, 110, 200] {
        lab.hosts[0].node.run(&format!("release {vmid} --no-hookscript")).ok();
    }
    for host in &lab.hosts {
        host.node.run("apply").ok();
    }
    lab.hosts[0].node.run("pool set public --cool-down 0").ok();
}

/// Waits until a NIC is so on both nodes, and looks where everybody's frames go.
fn comes_to(lab: &mut Lab, port: &str, stages: [Stage; 2]) {
    let nic = nic(port);
    for (at, wanted) in stages.into_iter().enumerate() {
        until(&format!("{port} on {}", NODES[at]), || match lab.stage(at, &nic) {
            // The kernel does not know whether an address that nobody uses is assigned.
            Ok(found) if found == wanted || (found, wanted) == (Stage::Free, Stage::Nobodys) => Ok(()),
            other => Err(format!("expected {wanted:?}, found {other:?}")),
        });
    }
    let wrong = lab.probe(&nic, stages);
    assert!(wrong.is_empty(), "{stages:?}:\n{}", wrong.join("\n"));
}

/// Both addresses of the lab's guest 100.
const ADDRESSES: [&str; 2] = ["203.0.113.10", "2001:db8:0:1::a"];

#[test]
fn from_a_call_to_frames_and_back() {
    let mut lab = Lab::new();
    release_all(&lab);
    lab.hosts[0].node.stand_in_proxmox();
    lab.hosts[0]
        .node
        .tree
        .qemu(100, lab::config(100).replace("hookscript: local:snippets/pve-public-ip\n", "name: shop\n"));
    for host in &mut lab.hosts {
        host.guard = Some(Guard::start(&host.node));
    }
    let gateway = Gateway::start(&lab.hosts[0].node);
    comes_to(&mut lab, "tap100i0", [Stage::Nobodys; 2]);

    lab.hosts[0].node.run("pool remove public").ok();
    let pool = json!({
        "name": "public", "profile": "generic-bridged", "bridge": "vmbr0", "gateway4": "203.0.113.1", "gateway6": "2001:db8:0:1::1"
    });
    assert_eq!(gateway.done("CreatePool", &pool)["changed"], true);
    gateway.done("SetPool", &json!({ "name": "public", "cool_down": 0 }));
    for address in ADDRESSES {
        let created = gateway.done("CreateVPSPublicIP", &json!({ "ip_address": address, "monthly_cost_cents": 199 }));
        let assigned = gateway.done(
            "AssignVPSPublicIP",
            &json!({ "ip_id": created["ipId"], "vps_id": "shop", "organization_id": "acme" }),
        );
        assert_eq!((&assigned["changed"], &assigned["ip"]["vmid"]), (&json!(true), &json!("100")), "{assigned}");
        for name in ["registry", "binding"] {
            assert_eq!(step(&assigned, name).0, "STEP_STATE_DONE", "{assigned}");
        }
    }
    let config = lab.hosts[0].node.tree.read("etc/pve/nodes/n1/qemu-server/100.conf");
    assert!(config.contains("hookscript: local:snippets/pve-public-ip"), "{config}");
    comes_to(&mut lab, "tap100i0", [Stage::Free; 2]);

    lab.hosts[0].node.run("hook 100 pre-start").ok();
    lab.plug(0, "tap100i0", None, false);
    lab.hosts[0].node.run("hook 100 post-start").ok();
    assert!(lab.was_announced(&nic("tap100i0")), "the provider is told where the guest is");
    comes_to(&mut lab, "tap100i0", [Stage::Running, Stage::Free]);
    let secure = gateway.done("VerifySecurity", &json!({ "vps_id": "shop" }));
    assert_eq!(secure["secure"], true, "{secure}");
    let states: Vec<&Value> = secure["checks"].as_array().unwrap().iter().map(|check| &check["state"]).collect();
    assert!(!states.is_empty() && states.iter().all(|state| **state == "protected"), "{secure}");
    let metrics = get(gateway.address, "/metrics");
    let metrics = metrics.split_once("\r\n\r\n").unwrap().1;
    for line in ["pve_public_ip_gateway_root_part_up 1", "pve_public_ip_in_line 1"] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    let names: Vec<&str> = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len(), "a name is there twice: {names:?}");
    // What the probes sent with others' addresses was counted at the port.
    let dropped: Vec<u64> = secure["counters"]
        .as_array()
        .unwrap_or_else(|| panic!("{secure}"))
        .iter()
        .filter(|counter| counter["port"] == "tap100i0")
        .map(|counter| counter["packets"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(dropped.iter().sum::<u64>() > 0, "{secure}");

    let free = gateway.done("UnassignVPSPublicIP", &json!({ "ip_id": ADDRESSES[0] }));
    assert_eq!((&free["changed"], step(&free, "binding").0.as_str()), (&json!(true), "STEP_STATE_DONE"), "{free}");
    let after = gateway.done("GetPublicIP", &json!({ "public_ip": ADDRESSES[0] }));
    assert_eq!(after["ip"]["state"], "ADDRESS_STATE_FREE", "{after}");
    gateway.done("ReleasePublicIP", &json!({ "vps_id": "shop", "public_ip": ADDRESSES[1] }));
    lab.unplug(0, "tap100i0");
    lab.hosts[0].node.run("hook 100 post-stop").ok();
    comes_to(&mut lab, "tap100i0", [Stage::Nobodys; 2]);
    let config = lab.hosts[0].node.tree.read("etc/pve/nodes/n1/qemu-server/100.conf");
    assert!(!config.contains("hookscript"), "{config}");
    let past = gateway.done("GetVPSPublicIPHistory", &json!({ "ip_id": ADDRESSES[0] }));
    let holding = &past["holdings"][0];
    assert_eq!((&holding["vmid"], &holding["organizationId"]), (&json!("100"), &json!("acme")), "{past}");
    assert!(holding["until"].as_str().is_some_and(|until| !until.is_empty()), "{past}");
}

/// A gateway on each of two nodes: what one of them gives to a guest of the other is bound there by the guard.
#[test]
fn two_gateways_on_one_registry() {
    let mut lab = Lab::new();
    release_all(&lab);
    for host in &mut lab.hosts {
        host.node.stand_in_proxmox();
        host.guard = Some(Guard::start(&host.node));
    }
    let gateways = [0, 1].map(|at| Gateway::start(&lab.hosts[at].node));
    lab.plug(0, "tap100i0", None, false);

    // The guest is on n1, and the call goes to n2.
    for address in ADDRESSES {
        let assigned = gateways[1].done("AllocatePublicIP", &json!({ "vps_id": "100", "public_ip": address }));
        assert_eq!(assigned["ip"]["node"], "n1", "{assigned}");
        assert_eq!(step(&assigned, "registry").0, "STEP_STATE_DONE", "{assigned}");
        let pending = ("STEP_STATE_PENDING".to_owned(), "guest-elsewhere".to_owned());
        assert_eq!(step(&assigned, "binding"), pending, "{assigned}");
    }
    comes_to(&mut lab, "tap100i0", [Stage::Running, Stage::Free]);
    // Each says the same of it, and the node where it is sees its protection.
    for gateway in &gateways {
        let found = gateway.done("GetPublicIP", &json!({ "public_ip": ADDRESSES[0] }));
        assert_eq!((&found["ip"]["vmid"], &found["ip"]["node"]), (&json!("100"), &json!("n1")), "{found}");
    }
    let here = gateways[0].done("VerifySecurity", &json!({ "vps_id": "100" }));
    assert_eq!(here["secure"], true, "{here}");
    let there = gateways[1].done("VerifySecurity", &json!({ "vps_id": "100" }));
    assert!(there["secure"] != true && there["problems"][0]["code"] == "guest-elsewhere", "{there}");

    // Both want the same address for different guests: one gets it, the other is told who has it.
    let taken = std::thread::scope(|scope| {
        let calls = [(0, "110"), (1, "200")].map(|(at, guest)| {
            let gateway = &gateways[at];
            scope.spawn(move || {
                gateway.call("AllocatePublicIP", &json!({ "vps_id": guest, "public_ip": "203.0.113.12" }))
            })
        });
        calls.map(|call| call.join().unwrap())
    });
    let mut statuses = taken.each_ref().map(|(status, _)| *status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{taken:?}");

    for address in ADDRESSES {
        gateways[1].done("ReleasePublicIP", &json!({ "vps_id": "100", "public_ip": address }));
    }
    comes_to(&mut lab, "tap100i0", [Stage::Nobodys; 2]);
}

/// Fifty callers for forty addresses: each guest gets one of its own, and the rest are told that there are no more.
#[test]
fn fifty_callers_for_forty_addresses() {
    let node = Node::new();
    let guests: Vec<u32> = (300..350).collect();
    for vmid in &guests {
        let mac = format!("02:00:00:BB:{:02X}:{:02X}", vmid >> 8, vmid & 0xff);
        node.tree.qemu(*vmid, format!("name: guest{vmid}\nnet0: virtio={mac},bridge=vmbr0\n"));
    }
    node.stand_in_proxmox();
    node.run("pool create many --profile generic-bridged --bridge vmbr0 --gateway4 198.51.100.1 198.51.100.64/27 198.51.100.128/29").ok();
    let gateway = Gateway::start(&node);
    let answers = std::thread::scope(|scope| {
        let calls: Vec<_> = guests
            .iter()
            .map(|vmid| {
                let gateway = &gateway;
                scope.spawn(move || {
                    // Whoever is told that it is busy calls again, as the answer says.
                    until("an answer", || {
                        match gateway.call("AllocatePublicIP", &json!({ "vps_id": vmid.to_string(), "pool": "many" })) {
                            (503, answer) => Err(answer.to_string()),
                            answer => Ok(answer),
                        }
                    })
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect::<Vec<_>>()
    });
    let given: Vec<&str> = answers
        .iter()
        .filter(|(status, _)| *status == 200)
        .map(|(_, answer)| answer["ipAddress"].as_str().unwrap())
        .collect();
    let different: BTreeSet<&&str> = given.iter().collect();
    assert_eq!((given.len(), different.len()), (40, 40), "{answers:?}");
    for (status, answer) in answers.iter().filter(|(status, _)| *status != 200) {
        assert_eq!((*status, &answer["code"]), (429, &json!("resource_exhausted")), "{answer}");
    }
    assert_eq!(answers.len(), 50);
    let info = gateway.done("GetGatewayInfo", &json!({}));
    assert_eq!((&info["pools"][0]["assigned"], &info["pools"][0]["free"]), (&json!("40"), &json!("0")), "{info}");
    node.is_in_line();
}

/// Sets a flag when it goes.
struct EndWith<'a>(&'a AtomicBool);

impl Drop for EndWith<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How often something is killed.
const KILLS: usize = 24;

/// While guests allocate and release as fast as they can, the daemon, a process behind a connection and the one that listens are
/// killed in turn. No address is held twice or lost, and the audit log tells how each came to its holder.
#[test]
fn killed_at_random_under_load() {
    let node = Node::new();
    let guests: Vec<u32> = (300..306).collect();
    for vmid in &guests {
        let mac = format!("02:00:00:BB:{:02X}:{:02X}", vmid >> 8, vmid & 0xff);
        node.tree.qemu(*vmid, format!("name: guest{vmid}\nnet0: virtio={mac},bridge=vmbr0\n"));
    }
    node.stand_in_proxmox();
    node.run("pool create many --profile generic-bridged --bridge vmbr0 --gateway4 198.51.100.1 198.51.100.64/28").ok();
    node.run("pool set many --cool-down 0").ok();
    let socket = node.tree.path("run/api.sock");
    let mut serving = Some(serve(&node));
    let (child, address) = daemon(&socket);
    let mut child = Some(child);
    let (address, ends, answered) = (Mutex::new(address), AtomicBool::new(false), AtomicUsize::new(0));
    let held: Mutex<BTreeMap<String, u32>> = Mutex::default();
    // Calls until there is an answer: whoever loses one, or is told to wait, repeats the same call.
    let repeated = |method: &str, request: &Value| {
        until(method, || {
            let to = *address.lock().unwrap();
            match call(to, method, request) {
                Ok((200, answer)) => {
                    answered.fetch_add(1, Ordering::Relaxed);
                    Ok(answer)
                }
                // `api-answer-lost`, `api-unreachable` and a busy lock are this; the keys are not known right after a start.
                Ok((status @ (401 | 503), answer)) => Err(format!("{status} {answer}")),
                Ok((status, answer)) => panic!("{method} {request}: {status} {answer}"),
                Err(error) => Err(error.to_string()),
            }
        })
    };
    let life = |vmid: u32| {
        loop {
            let given = repeated("AllocatePublicIP", &json!({ "vps_id": vmid.to_string(), "pool": "many" }));
            let given = given["ipAddress"].as_str().unwrap_or_else(|| panic!("{given}")).to_owned();
            let before = held.lock().unwrap().insert(given.clone(), vmid);
            assert!(before.is_none_or(|before| before == vmid), "{given} is given to {vmid} and was {before:?}'s");
            if ends.load(Ordering::Relaxed) {
                break;
            }
            held.lock().unwrap().remove(&given);
            repeated("ReleasePublicIP", &json!({ "vps_id": vmid.to_string(), "public_ip": given }));
        }
    };
    std::thread::scope(|scope| {
        for vmid in &guests {
            scope.spawn(|| life(*vmid));
        }
        // Callers end with this, whatever happens here.
        let _end = EndWith(&ends);
        let mut random = Random::new(20_261_130);
        for round in 0..KILLS {
            let before = answered.load(Ordering::Relaxed);
            until("calls are answered between two kills", || {
                if answered.load(Ordering::Relaxed) > before { Ok(()) } else { Err(format!("none in round {round}")) }
            });
            std::thread::sleep(Duration::from_millis(random.next() % 120));
            match round % 4 {
                0 => {
                    drop(child.take());
                    let (new, listens) = daemon(&socket);
                    (child, *address.lock().unwrap()) = (Some(new), listens);
                }
                1 => {
                    drop(serving.take());
                    serving = Some(serve(&node));
                }
                _ => {
                    let id = serving.as_ref().unwrap().0.id();
                    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
                    let children: Vec<i32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
                    // It may have ended by itself.
                    if !children.is_empty() {
                        let _ = kill(Pid::from_raw(*random.pick(&children)), Signal::SIGKILL);
                    }
                }
            }
        }
    });
    let held = held.into_inner().unwrap();
    assert_eq!(held.len(), guests.len(), "{held:?}");

    // What a killed process left undone the next command finds.
    node.run("apply").ok();
    node.is_in_line();
    node.run("registry check").ok();
    let listed = repeated("ListVPSPublicIPs", &json!({ "pool": "many", "page_size": 1000 }));
    let rows = listed["ips"].as_array().unwrap();
    let holders: BTreeMap<String, u32> = rows
        .iter()
        .filter(|row| row["state"] == "ADDRESS_STATE_ASSIGNED")
        .map(|row| (row["ipAddress"].as_str().unwrap().to_owned(), row["vmid"].as_str().unwrap().parse().unwrap()))
        .collect();
    assert_eq!(holders, held, "each guest holds what it was told, and nothing else");
    let free = rows.iter().filter(|row| row["state"] == "ADDRESS_STATE_FREE").count();
    let info = repeated("GetGatewayInfo", &json!({}));
    assert_eq!(info["pools"][0]["free"], (16 - held.len()).to_string(), "{free} {info}");
    drop((child, serving));

    let log = node.tree.read("var/lib/pve-public-ip/audit.log");
    let changes = replay(&log, &held);
    assert!(changes > KILLS, "only {changes} changes:\n{log}");
}

/// The log, replayed, comes to what is held: each address was free when it was given, and held by whom it was taken from. Returns how
/// many changes it has.
fn replay(log: &str, held: &BTreeMap<String, u32>) -> usize {
    let mut replayed: BTreeMap<String, u32> = BTreeMap::new();
    let mut changes = 0;
    for line in log.lines() {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let Some(event @ ("assigned" | "released")) = entry["event"].as_str() else { continue };
        let (address, vmid) = (entry["address"].as_str().unwrap().to_owned(), entry["vmid"].as_u64().unwrap());
        let vmid = u32::try_from(vmid).unwrap();
        let before = if event == "assigned" { replayed.insert(address, vmid) } else { replayed.remove(&address) };
        assert_eq!(before, (event == "released").then_some(vmid), "{line}\n{log}");
        changes += 1;
    }
    assert_eq!(&replayed, held, "{log}");
    changes
}
