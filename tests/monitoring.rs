//! What the guard tells others: metrics for Prometheus, and messages to the administrator.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Node, Run, need};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pve_public_ip::selftest::frames::{BROADCAST, IP4, UDP, ether, ip4, udp};
use pve_public_ip::system::packet;

/// Longer than anything here takes, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A guard that runs; it ends with this value.
struct Guard<'a> {
    node: &'a Node,
    child: Child,
}

impl<'a> Guard<'a> {
    fn start(node: &'a Node, options: &[&str]) -> Self {
        let log = File::create(node.tree.path("guard.log")).unwrap();
        let child = node.command(&["guard"]).args(options).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let guard = Self { node, child };
        guard.until("it is ready", || guard.log().contains("guard: watching node n1"));
        guard
    }

    fn log(&self) -> String {
        self.node.tree.read("guard.log")
    }

    #[track_caller]
    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let started = Instant::now();
        while !is_so() {
            assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(mut self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "{}", self.log());
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Guest 100 runs with `203.0.113.10`; 200, which holds nothing, is plugged in, and so is an uplink.
fn node() -> Node {
    let node = Node::with_pool();
    node.net.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6");
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.run("hook 100 pre-start").ok();
    for port in ["tap100i0", "veth200i0", "eno1"] {
        node.plug(port);
        node.net.sh(&format!("ip link set g{} up", &port[1..]));
    }
    node.run("hook 100 post-start").ok();
    node.is_in_line();
    node
}

/// Guest 200 uses guest 100's address.
fn spoof(node: &Node, frames: usize) {
    let packet = ip4([203, 0, 113, 10].into(), [203, 0, 113, 1].into(), UDP, 0, &udp(1, 2, b"data"));
    let frame = ether(BROADCAST, [2, 0, 0, 0xaa, 0xbb, 2], IP4, &packet);
    let frames = vec![frame; frames];
    node.net.inside(|| packet::send("geth200i0".parse().unwrap(), &frames)).unwrap();
}

fn settings(node: &Node, more: &str) {
    node.tree.write("etc/pve/public-ip/nodes/n1.json", format!("{{\"version\": 1, \"metrics_seconds\": 1{more}}}"));
}

fn promtool(args: &[&str], input: &str) -> Run {
    need(&["promtool"]);
    let mut child = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Run::of(format!("promtool {}", args.join(" ")), &child.wait_with_output().unwrap())
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("prometheus").join(name)
}

fn names_of(metrics: &str) -> BTreeSet<String> {
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect()
}

/// The metrics that an expression names.
fn names_in(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("pve_public_ip_")).map(str::to_owned).collect()
}

#[test]
fn metrics_are_what_prometheus_asks_for() {
    let node = node();
    settings(&node, "");
    fs::create_dir_all(node.tree.path("var/lib/prometheus/node-exporter")).unwrap();
    let file = "var/lib/prometheus/node-exporter/pve-public-ip.prom";
    let guard = Guard::start(&node, &[]);
    spoof(&node, 7);
    let dropped = r#"pve_public_ip_port_dropped_packets_total{port="veth200i0",vmid="200",reason="bound_address"} 7"#;
    guard.until("the guard has noticed", || node.tree.path(file).exists() && node.tree.read(file).contains(dropped));
    let written = node.tree.read(file);
    assert_eq!(
        fs::metadata(node.tree.path(file)).unwrap().permissions().mode() & 0o777,
        0o644,
        "node_exporter is not root"
    );
    assert_eq!(fs::read_dir(node.tree.path(file).parent().unwrap()).unwrap().count(), 1, "nothing else for it to find");
    let printed = node.run("metrics").ok().out;
    for text in [&written, &printed] {
        promtool(&["check", "metrics"], text).prints("");
        assert!(text.contains("pve_public_ip_in_line 1\n"), "{text}");
        assert!(text.contains("pve_public_ip_guard_up 1\n"), "{text}");
        assert!(text.contains("pve_public_ip_guest_interfaces{state=\"protected\"} 1\n"), "{text}");
    }
    assert_eq!(names_of(&written), names_of(&printed), "the guard and the command say the same");
    let status = node.run("status").ok().out;
    assert!(status.contains("| 200 (veth200i0) | 7         | 7      | "), "{status}");

    // The rules and the dashboard speak of nothing else.
    let names = names_of(&written);
    let rules = fs::read_to_string(shipped("pve-public-ip.rules.yml")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_slice(&fs::read(shipped("dashboard.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let shown: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    let asked = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let asked: BTreeSet<String> = asked.chain(shown.iter().copied()).flat_map(names_in).collect();
    assert!(asked.len() > 12, "{asked:?}");
    assert_eq!(asked.difference(&names).collect::<Vec<_>>(), [""; 0]);
    let unasked: Vec<&String> = names.difference(&asked).collect();
    assert_eq!(unasked, [""; 0], "a metric that neither a rule nor the dashboard shows");
    let mut recorded = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, expression) in shown.iter().enumerate() {
        recorded += &format!("      - record: panel:{number}\n        expr: {}\n", serde_json::json!(expression));
    }
    node.tree.write("dashboard.yml", recorded);
    let run = promtool(&["check", "rules", node.tree.path("dashboard.yml").to_str().unwrap()], "").ok();
    assert!(run.out.contains(&format!("{} rules found", shown.len())), "{run}");

    // A guard that stops says so; one that was told to write nothing does not.
    guard.stop();
    assert!(node.tree.read(file).contains("pve_public_ip_guard_up 0\n"));
    fs::remove_file(node.tree.path(file)).unwrap();
    node.tree.write("etc/pve/public-ip/nodes/n1.json", "{\"version\": 1, \"metrics_seconds\": 0}");
    Guard::start(&node, &[]).stop();
    assert!(!node.tree.path(file).exists());
}

/// The numbers of addresses in prefixes pass 2^53, 2^64 and nearly 2^128.
#[test]
fn pools_of_any_size_are_shown() {
    let node = Node::new();
    let pools = [
        ("a", "2001:db8:1::/64 203.0.113.8/29", "18446744073709551616"),
        ("b", "2001:db8:8000::/65 2001:db8:9000::/128", "9223372036854775809"),
        ("c", "2001:db8:2:8::/75 2001:db8:3::/128", "9007199254740993"),
        ("d", "2001:db8:4::/75", "9007199254740992"),
        ("e", "2001:db8:5::/76", "4503599627370496"),
        ("f", "2a00::/24", "20282409603651670423947251286016"),
    ];
    for (name, prefixes, _) in &pools {
        node.run(&format!("pool create {name} --profile generic-bridged --bridge vmbr0 {prefixes}")).ok();
    }
    node.run("assign 100 2001:db8:1::/64 --no-hookscript --no-probe").ok();
    node.run("pool add a 203.0.113.77 --monthly-cost-cents 18446744073709551615").ok();
    let exact = |digits: &str| digits.parse::<u64>().is_ok_and(|number| number < 1 << 53);
    for command in ["status", "metrics"] {
        let view = node.run(&format!("{command} --output-format json")).ok().json();
        for ((name, _, all), pool) in pools.iter().zip(view["pools"].as_array().unwrap()) {
            let totals = pool["totals"].as_object().unwrap();
            let last = totals.get("ipv6").or_else(|| totals.get("ipv4")).unwrap();
            let wanted = if exact(all) { serde_json::from_str(all).unwrap() } else { serde_json::json!(all) };
            assert_eq!((pool["name"].as_str(), &last["size"]), (Some(*name), &wanted), "{command}");
        }
        assert_eq!(view["pools"][0]["totals"]["ipv6"]["assigned"], "18446744073709551616", "assigned");
        for format in ["json-pretty", "yaml"] {
            let text = node.run(&format!("{command} --output-format {format}")).ok().out;
            assert!(text.contains("\"20282409603651670423947251286016\""), "{text}");
        }
    }
    let status = node.run("status").ok().out;
    for shown in ["[##########] 2^64 of 2^64 IPv6", "[..........] 0 of 2^104 IPv6", "[..........] 0 of 9 IPv4"] {
        assert!(status.contains(shown), "{status}");
    }
    let metrics = node.run("metrics").ok().out;
    promtool(&["check", "metrics"], &metrics).prints("");
    for (name, _, all) in &pools {
        let line = format!("pve_public_ip_pool_addresses{{pool=\"{name}\",family=\"ipv6\"}} {all}\n");
        assert!(metrics.contains(&line), "{metrics}");
    }
    node.run("metrics --output-format json").ok();
    // What something costs is not counted, but has as many digits.
    let shown = node.run("pool show a --output-format json").ok().json();
    let costs: Vec<_> =
        shown["addresses"].as_array().unwrap().iter().map(|entry| &entry["monthly_cost_cents"]).collect();
    assert!(costs.contains(&&serde_json::json!("18446744073709551615")), "{costs:?}");
    for command in ["pool list", "pool show f", "audit", "plan", "verify", "doctor", "topology"] {
        for format in ["text", "json", "yaml"] {
            let run = node.run(&format!("{command} --output-format {format}"));
            assert!(run.code < 128 && !run.err.contains("panicked"), "{run}");
        }
    }
}

#[test]
fn a_device_is_no_place_for_metrics() {
    let node = Node::new();
    let fifo = node.tree.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let file = node.tree.path("metrics.prom");
    std::os::unix::fs::symlink(&fifo, node.tree.path("link")).unwrap();
    let to = |path: &str| node.run(&format!("metrics --output {}", node.tree.path(path).display()));
    for (path, why) in [("fifo", "no regular file, and is left alone"), ("link", "it is a symbolic link")] {
        let run = to(path);
        assert_eq!(run.code, 1, "{run}");
        assert!(run.err.contains(why), "{run}");
        assert!(run.err.contains("without `--output` the metrics are written to standard output"), "{run}");
        assert!(!fs::symlink_metadata(node.tree.path(path)).unwrap().is_file());
    }
    let run = to("nowhere/metrics.prom");
    assert!(run.code == 1 && run.err.contains("name a file in a directory that is there"), "{run}");
    for _ in 0..2 {
        assert!(to("metrics.prom").ok().out.contains("metrics written to"));
        promtool(&["check", "metrics"], &fs::read_to_string(&file).unwrap()).prints("");
    }
}

#[test]
fn rules_fire_when_they_should() {
    let rules = shipped("pve-public-ip.rules.yml");
    promtool(&["check", "rules", rules.to_str().unwrap()], "").ok();
    promtool(&["test", "rules", shipped("pve-public-ip.test.yml").to_str().unwrap()], "").ok();
    // A rule that no test speaks of would be tested by nothing.
    let tests = fs::read_to_string(shipped("pve-public-ip.test.yml")).unwrap();
    let text = fs::read_to_string(rules).unwrap();
    let alerts: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 10, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("- {{ alertname: {alert}, ")), "{alert} is not shown to be silent");
        assert!(tests.contains(&format!("- alertname: {alert}\n")), "{alert} is not shown to fire");
    }
}

fn is_bound(node: &Node) -> bool {
    node.run("verify").out.contains("the kernel is as it should be")
}

/// The service that may change the network listens nowhere. Whose unit still says that it should keeps his guests protected.
#[test]
fn the_guard_serves_nothing_and_says_who_does() {
    let node = node();
    settings(&node, "");
    let guard = Guard::start(&node, &["--listen", "127.0.0.1:9731"]);
    for words in [
        "--listen 127.0.0.1:9731: the guard serves no metrics any more, and goes on without",
        "hint: pve-public-ip-gateway has them at http://127.0.0.1:1537/metrics; then `rm /etc/systemd/system/pve-public-ip.service.d/listen.conf",
    ] {
        assert!(guard.log().contains(words), "{}", guard.log());
    }
    let sockets = node.net.sh("cat /proc/net/tcp /proc/net/tcp6");
    assert_eq!(sockets.lines().filter(|line| !line.contains("local_address")).count(), 0, "{sockets}");
    node.net.sh("nft flush ruleset");
    guard.until("the filter is back", || is_bound(&node));
}

/// The mails that the stand-in was given, each with its arguments in the first line.
fn mails(node: &Node) -> Vec<String> {
    let path = node.tree.path("mails");
    let mut names: Vec<PathBuf> = fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    names.retain(|name| name.extension().is_some_and(|extension| extension == "mail"));
    names.sort();
    names.iter().map(|name| fs::read_to_string(name).unwrap()).collect()
}

/// `sendmail` and a hook of the administrator's that keep what they get.
fn stand_ins(node: &Node) -> PathBuf {
    let keep = |name: &str, kind: &str| {
        let script = format!(
            "cd {} && n=$(date +%s%N) && {{ echo \"$@\"; cat; }} > $n.tmp && mv $n.tmp $n.{kind}\n",
            node.tree.path("mails").display()
        );
        node.tree.script(name, &script)
    };
    fs::create_dir_all(node.tree.path("mails")).unwrap();
    keep("stand-ins/sendmail", "mail");
    keep("alert hook", "json")
}

#[test]
fn the_administrator_is_told_once() {
    let node = node();
    let hook = stand_ins(&node);
    settings(&node, &format!(", \"alert_attempts\": 50, \"alert_exec\": \"{}\"", hook.display()));
    let guard = Guard::start(&node, &[]);
    let said = |words: &str| mails(&node).iter().filter(|mail| mail.contains(words)).count();

    node.net.sh("nft flush ruleset");
    guard.until("the flush is told", || said("repaired: the table is missing") == 1);
    let mail = mails(&node).concat();
    assert!(
        mail.starts_with("-t -oi\nTo: root\nSubject: pve-public-ip on n1: repaired: the table is missing"),
        "{mail}"
    );
    assert!(mail.contains("(nf_tables was changed by `nft`)"), "{mail}");
    guard.until("the filter is back", || is_bound(&node));
    node.net.sh("nft flush ruleset");
    guard.until("the filter is back again", || is_bound(&node));

    spoof(&node, 49);
    node.net.sh("ip neigh del 203.0.113.10 dev vmbr0");
    guard.until("the neighbour is told", || said("repaired: 203.0.113.10 is not fixed to 02:00:00:aa:bb:00") == 1);
    spoof(&node, 10);
    guard.until("attempts are told", || {
        said("59 frames from veth200i0 of guest 200 were dropped in the last hour") == 1
    });

    // As Proxmox VE writes: a file in the place of another.
    let replace = |relative: &str, text: &str| {
        node.tree.write(&format!("{relative}.new"), text);
        fs::rename(node.tree.path(&format!("{relative}.new")), node.tree.path(relative)).unwrap();
    };
    // Guest 101 is configured with the address of guest 100.
    let conf = node.tree.read("etc/pve/nodes/n1/qemu-server/101.conf");
    replace("etc/pve/nodes/n1/qemu-server/101.conf", &format!("ipconfig0: ip=203.0.113.10/24\n{conf}"));
    guard.until("the conflict is told", || said("guest 101 is configured with") >= 1);
    replace("etc/pve/nodes/n1/qemu-server/101.conf", &conf);
    guard.until("its end is told", || said("\nover: ") == 1);

    // What lasts is told when it has lasted, and when it is over.
    let config = node.tree.read("etc/pve/nodes/n1/qemu-server/100.conf");
    let conf = "etc/pve/nodes/n1/qemu-server/100.conf";
    replace(conf, &config.replace("AA:BB:00", "AA:BB:99"));
    guard.until("the problem is told", || said("02:00:00:aa:bb:99") == 1);
    replace(conf, &config);
    guard.until("its end is told", || said("\nover: ") == 2);
    let file = "etc/pve/public-ip/guests/100.json";
    let kept = node.tree.read(file);
    replace(file, "{");
    guard.until("a registry that cannot be read is told", || said("100.json` is not valid JSON") == 1);
    replace(file, &kept);
    guard.until("and its end", || said("\nover: ") == 3);

    assert_eq!(said("the table is missing"), 1, "{:#?}", mails(&node));
    assert_eq!(fs::read_dir(node.tree.path("run/pve-public-ip/alerts")).unwrap().count(), 0);
    // The hook was told the same, in a form for programs.
    let given = || {
        let files = fs::read_dir(node.tree.path("mails")).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|kind| kind == "json")).collect::<Vec<PathBuf>>()
    };
    guard.until("the hook has all of it", || given().len() == mails(&node).len());
    let given = given();
    let first = given.iter().min().unwrap();
    let text = fs::read_to_string(first).unwrap();
    let message: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!((&message["version"], &message["node"], &message["more"]), (&1.into(), &"n1".into(), &0.into()));
    assert_eq!((&message["alerts"][0]["kind"], &message["alerts"][0]["recovered"]), (&"table".into(), &false.into()));

    // Another guard knows what was said.
    guard.stop();
    let guard = Guard::start(&node, &[]);
    node.net.sh("nft flush ruleset");
    guard.until("the filter is back", || is_bound(&node));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(said("the table is missing"), 1, "{:#?}", mails(&node));
}

#[test]
fn what_cannot_be_delivered_holds_up_nothing() {
    let node = Node::with_pool();
    let message = |mail: &str, exec: Option<&Path>| {
        let alert = serde_json::json!({"kind": "trouble", "object": "o", "sentence": "it is so", "hint": null, "recovered": false, "at": 1});
        let text =
            serde_json::json!({"version": 1, "node": "n1", "alerts": [alert], "more": 0, "mail": mail, "exec": exec});
        node.tree.write("run/pve-public-ip/alerts/1-00.json", text.to_string());
    };
    let deliver = || {
        let run = node.run("deliver").ok();
        assert_eq!(fs::read_dir(node.tree.path("run/pve-public-ip/alerts")).unwrap().count(), 0, "{run}");
        run
    };
    message("root", None);
    // Where there is one, nobody in this namespace sees it.
    node.net
        .sh("for mta in /usr/sbin/sendmail /usr/bin/sendmail; do [ ! -e $mta ] || mount --bind /dev/null $mta; done");
    assert_eq!(
        deliver().err,
        "warning: there is no `sendmail` on this node, so nobody gets mail from the guard\n\
        warning: hint: `apt install postfix`, or `\"alert_mail\": \"\"` in the node's file of the registry\n"
    );
    message("root", None);
    assert_eq!(deliver().err, "", "that is said once");
    let fails = node.tree.script("stand-ins/sendmail", "exit 75\n");
    message("root", None);
    let said = format!(
        "warning: the mail `pve-public-ip on n1: it is so` could not be sent: `{} -t -oi` failed (exit status: 75)\n",
        fails.display()
    );
    assert_eq!(deliver().err, said);
    message("", None);
    assert_eq!(deliver().err, "", "nobody wants mail");

    let hook = node.tree.script("hook", "exit 1\n");
    let refused = |why: &str| {
        format!("warning: `{}` did not take the message `pve-public-ip on n1: it is so`: {why}\n", hook.display())
    };
    message("", Some(&hook));
    assert_eq!(deliver().err, refused(&format!("`{}` failed (exit status: 1)", hook.display())));
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o777)).unwrap();
    message("", Some(&hook));
    assert_eq!(deliver().err, refused("others than root may write it; `chown root`, `chmod go-w`"));
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o644)).unwrap();
    message("", Some(&hook));
    assert_eq!(deliver().err, refused("it is no program"));
    fs::remove_file(&hook).unwrap();
    message("", Some(&hook));
    assert_eq!(deliver().err, refused("No such file or directory (os error 2)"));

    node.tree.write("run/pve-public-ip/alerts/1-00.json", "{");
    assert_eq!(
        deliver().err,
        "warning: a message to the administrator cannot be read: EOF while parsing an object at line 1 column 1\n"
    );
    node.tree.write("run/pve-public-ip/alerts/README", "not ours");
    assert_eq!(deliver().err, "");
    node.run("--dry-run deliver").fails(
        1,
        "messages are sent or not",
        "`ls /run/pve-public-ip/alerts` shows what waits",
    );
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let node = Node::with_pool();
    for (setting, reason) in [
        ("\"metrics_seconds\": 3601", "has metrics_seconds 3601; it is a number from 0 to 3600"),
        ("\"metrics_directory\": \"here\"", "has metrics_directory `here`; it is a whole path, which begins with /"),
        ("\"alert_exec\": \"mail.sh\"", "has alert_exec `mail.sh`; it is a whole path, which begins with /"),
        (
            "\"alert_mail\": \"root\\nBcc: all\"",
            "has alert_mail `root\\nBcc: all`; it is a user of this node or one mail address",
        ),
        ("\"alert_mail\": \"-oQ/tmp\"", "has alert_mail `-oQ/tmp`; it is a user of this node or one mail address"),
    ] {
        node.tree.write("etc/pve/public-ip/nodes/n1.json", format!("{{\"version\": 1, {setting}}}"));
        let run = node.run("verify");
        assert!(run.out.contains(reason), "{reason}: {run}");
    }
    std::fs::remove_file(node.tree.path("etc/pve/public-ip/nodes/n1.json")).unwrap();
    node.run("node set --alert-mail noc@example.org --alert-exec /usr/local/sbin/tell --alert-attempts 0").ok();
    node.run("node set --metrics-seconds 60").ok();
    let shown = node.run("node show").ok().out;
    let said = "alerts        mail to noc@example.org, /usr/local/sbin/tell; attempts are not reported\n\
        metrics       every 60 s, directory: node_exporter's\n";
    assert!(shown.ends_with(said), "{shown}");
    let wrong = "the node's file would be wrong: it has metrics_seconds 9999; it is a number from 0 to 3600";
    node.run("node set --metrics-seconds 9999").fails(1, wrong, "nothing was changed");
}
