//! Text that others may choose, in every file and every answer that the program reads: a tenant's name of a guest, a note, a
//! file's name, what a program says. Whatever it has in it, a terminal, a log and a mail get text.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use common::{Node, Run};

/// Red, clear the screen, rub out, turn round. It stands in files of lines, so it has no end of a line.
const WORD: &str = "h\u{1b}[31m\u{9b}2J\u{7f}\u{8}\u{202e}\u{2066}\u{200f}z";

/// The same with ends of lines, where a file can have them in a value; `FORGED` must never begin a line.
const LINES: &str = "h\u{1b}[31m\u{9b}2J\u{7f}\u{202e}\r\nFORGED\u{2028}z\nFORGED";

/// What looks, in each form that it is asked for.
const LOOKS: [&str; 26] = [
    "list",
    "list --pool ovh-rbx",
    "show 100",
    "show 100 --inside",
    "show 101 --inside",
    "show 103",
    "show 200 --inside",
    "pool list",
    "pool show ovh-rbx",
    "node show",
    "plan",
    "apply --dry-run",
    "verify",
    "status",
    "metrics",
    "conflicts list",
    "audit",
    "audit --address 203.0.113.10",
    "doctor",
    "topology",
    "topology --check",
    "setup",
    "explain --port tap100i0 --src 203.0.113.10",
    "release 100 --dry-run",
    "release --all",
    "uninstall",
];

/// What changes something, or tries to.
const DEEDS: [&str; 14] = [
    "apply",
    "hook 100 pre-start",
    "hook 100 post-start",
    "hook 101 pre-start",
    "hook 103 pre-start",
    "hook 104 pre-start",
    "assign 101 203.0.113.12",
    "assign 100 203.0.113.13 --organization acme",
    "assign 100 --net 1 203.0.113.12",
    "assign 104 203.0.113.12",
    "set 100 --trunk 10",
    "pool add ovh-rbx 203.0.113.14",
    "release 100",
    "setup --yes",
];

fn is_hostile(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t')
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[track_caller]
fn is_harmless(run: &Run) {
    for text in [&run.out, &run.err] {
        let found = text.lines().find(|line| line.contains(is_hostile) || line.trim_start().starts_with("FORGED"));
        assert!(found.is_none(), "{found:?}\n{run}");
    }
}

/// Every command, as text and in these forms.
fn try_all(node: &Node, formats: &[&str]) {
    for look in LOOKS {
        is_harmless(&node.run(look));
        for format in formats {
            let run = node.run(&format!("{look} --output-format {format}"));
            is_harmless(&run);
            if *format != "yaml" && !run.out.is_empty() {
                run.json();
            }
        }
    }
    for format in ["mermaid", "dot"] {
        is_harmless(&node.run(&format!("topology --format {format}")));
    }
    for deed in DEEDS {
        is_harmless(&node.run(deed));
    }
}

/// All that a tenant or another program may write, with the hostile word wherever a value stands.
fn scene() -> Node {
    let node = Node::with_pool();
    node.stand_in_proxmox();
    let tree = &node.tree;
    let nic = "virtio=02:00:00:AA:BB:00,bridge=vmbr0";
    tree.qemu(100, format!("net0: {nic}\n"));
    node.run("assign 100 203.0.113.10 2001:db8:0:1::10 --no-hookscript").ok();
    node.run("assign 101 203.0.113.11 --no-hookscript").ok();
    node.run("assign 200 203.0.113.13 --no-hookscript").ok();
    node.plug("tap100i0");
    let guest = |name: &str| {
        format!(
            "#{WORD}\nname: {name}{WORD}\ndescription: {WORD}\ntags: {WORD}\nagent: {WORD}\nostype: {WORD}\n\
             net0: {nic},tag={WORD}\nnet1: virtio=02:00:00:AA:BB:05,bridge=vmbr{WORD}\nnet2: {WORD}\n\
             hookscript: local:snippets/{WORD}\ncicustom: user=local:snippets/{WORD},{WORD}=local:snippets/a\n\
             ipconfig0: ip={WORD}\nide2: {WORD}:cloudinit\nsmbios1: uuid={WORD}\nparent: {WORD}\n{WORD}: {WORD}\n\
             searchdomain: {WORD}\nnameserver: {WORD}\nciuser: {WORD}\n\n[PENDING]\nname: {WORD}\n[{WORD}]\nname: x\n"
        )
    };
    tree.qemu(100, guest("web").replace(&format!(",tag={WORD}"), ""));
    tree.qemu(103, guest("tagged"));
    tree.qemu(
        104,
        format!(
            "name: drive{WORD}\nnet0: virtio=02:00:00:AA:BB:04,bridge=vmbr0,trunks=1;{WORD}\nide2: local:cloudinit\n\
             smbios1: uuid=11111111-2222-3333-4444-555555555555\ncicustom: user=local:snippets/{WORD}\n\
             hookscript: local:snippets/own{WORD}\n"
        ),
    );
    tree.lxc(
        200,
        format!("hostname: dns{WORD}\nnet0: name=eth0{WORD},bridge=vmbr0,hwaddr=02:00:00:AA:BB:02,type=veth\n"),
    );
    tree.write("etc/pve/storage.cfg", format!("dir: {WORD}\n\tpath /x{WORD}\n\tcontent {WORD}\ndir: local\n\tpath /var/lib/vz\n\tcontent snippets,{WORD}\n"));
    tree.write("etc/network/interfaces", format!("auto {WORD}\niface {WORD} inet static\n\taddress {WORD}\n\tgateway {WORD}\niface vmbr9 inet static\n\taddress 192.0.2.1{WORD}/24\n\tbridge-ports {WORD}\n\tup ip route add {WORD}\n"));
    tree.write("etc/resolv.conf", format!("search {WORD}\nnameserver {WORD}\n"));
    tree.write("etc/pve/firewall/100.fw", format!("[OPTIONS]\nenable: {WORD}\n[IPSET ipfilter-net0]\n{WORD}\n[IPSET {WORD}]\n203.0.113.11 # {WORD}\n[{WORD}]\n"));
    tree.write(
        "etc/pve/firewall/cluster.fw",
        format!("[OPTIONS]\nenable: 1\n[ALIASES]\n{WORD} 203.0.113.10\n[IPSET {WORD}]\n203.0.113.10\n"),
    );
    tree.write(format!("var/lib/vz/snippets/{WORD}").as_str(), WORD);
    tree.write(
        "etc/pve/.members",
        serde_json::json!({"nodename": "n1", "version": 1, "nodelist": {LINES: {"ip": LINES, "online": 1}}})
            .to_string(),
    );
    tree.write("etc/pve/sdn/pve-ipam-state.json", serde_json::json!({"zones": {LINES: {"subnets": {LINES: {"ips": {"203.0.113.12": {"vmid": "101", "hostname": LINES, "mac": LINES}}}}}}}).to_string());
    tree.write("run/pve-public-ip/guard.json", serde_json::json!({"trouble": LINES}).to_string());
    node
}

/// Puts a value into a registry file.
fn edit(node: &Node, file: &str, change: impl FnOnce(&mut serde_json::Value)) {
    let mut value = serde_json::from_str(&node.tree.read(file)).unwrap();
    change(&mut value);
    node.tree.write(file, value.to_string());
}

#[test]
fn no_text_of_others_acts_on_a_terminal() {
    let node = scene();
    edit(&node, "etc/pve/public-ip/guests/100.json", |guest| {
        guest["interfaces"]["net0"]["addresses"][0]["organization"] = LINES.into();
        guest["hookscript"] = format!("local:snippets/{LINES}").into();
    });
    let entry = serde_json::json!({"version": 1, "time": "2026-01-01T00:00:00Z", "node": "n1", "event": "assigned", "vmid": 100,
        "interface": "net0", "address": "203.0.113.10/32", "why": LINES, "command": LINES, "text": LINES,
        "before": {LINES: 1}, "after": {"organization": LINES},
        "who": {"user": LINES, "login": LINES, "sudo": LINES, "task": LINES, "task_user": LINES}});
    let log = node.tree.read("var/lib/pve-public-ip/audit.log");
    node.tree.write("var/lib/pve-public-ip/audit.log", format!("{log}{entry}\n{WORD}\n"));
    try_all(&node, &["json", "json-pretty", "yaml"]);
    // What is asked for is shown, and is to be seen as what it is.
    let run = node.run("audit --last 100").ok();
    assert!(run.out.contains("\\u{1b}[31m"), "{run}");
}

#[test]
fn broken_files_are_named_harmlessly() {
    let node = scene();
    for file in ["guests/100.json", "guests/101.json", "pools.json", "pools/ovh-rbx.json"] {
        edit(&node, &format!("etc/pve/public-ip/{file}"), |value| value[LINES] = LINES.into());
        try_all(&node, &[]);
    }
    for text in [format!("{{\"{WORD}\": "), format!("{{\"version\": \"{WORD}\"}}"), WORD.to_owned()] {
        for file in ["guests/101.json", "nodes/n1.json", "released.json", "pools.json", "pools/ovh-rbx.json"] {
            node.tree.write(&format!("etc/pve/public-ip/{file}"), &text);
        }
        node.tree.write(&format!("etc/pve/public-ip/guests/{WORD}.json"), &text);
        node.tree.write("etc/pve/.vmlist", &text);
        try_all(&node, &[]);
    }
}

#[test]
fn what_programs_say_is_shown_harmlessly() {
    let node = scene();
    let words = format!("{WORD}\\nFORGED second line{WORD}\\n");
    for tool in ["qm", "pct", "pvesm", "pvesh", "systemctl", "nft", "stty", "bridge"] {
        node.tree.script(&format!("stand-ins/{tool}"), &format!("printf '{words}' >&2; printf '{words}'; exit 1\n"));
    }
    try_all(&node, &[]);
}

#[test]
fn an_organization_is_one_line_of_text() {
    let node = Node::with_pool();
    for hostile in ["a\u{1b}[31m", "a\nb", "a\u{202e}b", "a\u{9b}b"] {
        let mut command =
            node.command(&["assign", "100", "203.0.113.10", "--no-hookscript", "--organization", hostile]);
        let run = Run::of(format!("assign --organization {hostile:?}"), &command.output().unwrap());
        run.fails_with(2, &["--organization", "it has a line break or another control character"]);
    }
    node.run("assign 100 203.0.113.10 --no-hookscript --organization Müller").ok();
}

/// What a script passes on as an argument, and what clap says of it.
#[test]
fn an_argument_is_repeated_harmlessly() {
    let node = Node::with_pool();
    for hostile in ["a\u{1b}[31m", "a\nFORGED", "a\r\nFORGED: b", "a\u{202e}b"] {
        let option = format!("--organization={hostile}");
        for arguments in [
            vec!["assign", "100", "--organization", hostile],
            vec!["assign", "100", &option],
            vec!["assign", hostile],
            vec!["pool", "show", hostile],
            vec!["pool", hostile],
            vec!["list", "--state", hostile],
            vec!["who", hostile],
            vec!["show", "100", hostile],
            vec![hostile],
        ] {
            for format in ["text", "json"] {
                let arguments = [&arguments[..], &["--output-format", format]].concat();
                let run = Run::of(format!("{arguments:?}"), &node.command(&arguments).output().unwrap());
                assert_eq!(run.code, 2, "{run}");
                is_harmless(&run);
            }
        }
    }
}
