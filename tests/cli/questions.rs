//! What people ask: whose is this, what is free, who is where; and the words that a shell offers while they type.

use serde_json::{Value, json};

use crate::common::{Node, Run, Tree};

/// Two pools, three guests with addresses of which one is on another node, one address that cools down.
fn busy() -> Node {
    let node = Node::new();
    node.run(
        "pool create rbx --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.1 203.0.113.0/28 2001:db8:1::/64",
    )
    .ok();
    node.run("pool create old --profile generic-bridged --bridge vmbr0 198.51.100.7 198.51.100.8").ok();
    node.tree
        .write("etc/pve/nodes/n2/qemu-server/102.conf", "name: far\nnet0: virtio=02:00:00:AA:BB:03,bridge=vmbr0\n");
    node.run("assign 100 203.0.113.2 2001:db8:1::2 --organization acme --no-hookscript").ok();
    node.run("assign 102 203.0.113.4 --organization other --no-hookscript").ok();
    node.run("assign 101 203.0.113.3 --no-hookscript").ok();
    node.run("release 101 203.0.113.3 --no-hookscript").ok();
    node.run("assign 101 198.51.100.7 --no-hookscript").ok();
    node
}

fn ask(node: &Node, subject: &str) -> Value {
    let data = node.run(&format!("who {subject} --output-format json")).ok().json();
    assert_eq!(data["subject"], subject, "{data}");
    data
}

/// The text without times, which are those of the test.
fn text(run: Run) -> String {
    let run = run.ok();
    assert_eq!(run.err, "", "{run}");
    let is_time = |word: &str| word.len() >= 20 && word.as_bytes()[10] == b'T' && word.ends_with('Z');
    let line = |line: &str| {
        let words = line.split(' ').map(|word| if is_time(word) { "TIME" } else { word });
        words.collect::<Vec<_>>().join(" ") + "\n"
    };
    run.out.lines().map(line).collect()
}

#[test]
fn an_address_has_a_holder() {
    let node = busy();
    assert_eq!(
        text(node.run("who 203.0.113.2")),
        "203.0.113.2: assigned to guest 100 (web) net0\n\
         \x20 node:          n1\n\
         \x20 state:         reserved\n\
         \x20 since:         TIME\n\
         \x20 organization:  acme\n\
         \x20 MAC:           02:00:00:aa:bb:00, port tap100i0\n\
         \x20 pool:          rbx, gateway 203.0.113.1\n"
    );
    let data = ask(&node, "203.0.113.2");
    assert_eq!((&data["kind"], &data["state"]), (&json!("address"), &json!("assigned")));
    let mut holder = data["holders"][0].clone();
    assert!(holder["assigned_at"].as_str().is_some_and(|time| time.ends_with('Z')), "{data}");
    holder.as_object_mut().unwrap().remove("assigned_at");
    assert_eq!(
        holder,
        json!({"vmid": 100, "name": "web", "interface": "net0", "address": "203.0.113.2", "mac": "02:00:00:aa:bb:00",
            "port": "tap100i0", "pool": "rbx", "gateway": "203.0.113.1", "organization": "acme", "node": "n1", "state": "reserved"})
    );
    // However it is written, and wherever the guest is.
    assert_eq!(node.run("who 2001:DB8:1:0:0:0:0:2 --output-format json").ok().json()["holders"][0]["vmid"], 100);
    let far = ask(&node, "203.0.113.4");
    assert_eq!((&far["holders"][0]["node"], &far["holders"][0]["state"]), (&json!("n2"), &json!("elsewhere")));
    node.run("hook 100 pre-start").ok();
    node.plug("tap100i0");
    node.run("hook 100 post-start").ok();
    assert_eq!(ask(&node, "203.0.113.2")["holders"][0]["state"], "protected");
    // A guest that was destroyed holds it still.
    std::fs::remove_file(node.tree.path("etc/pve/nodes/n1/qemu-server/101.conf")).unwrap();
    assert_eq!(ask(&node, "198.51.100.7")["holders"][0]["state"], "missing");
    // Two files that were edited by hand give two answers.
    node.tree.assign_by_hand(900, "02:00:00:00:09:00", "203.0.113.2", "rbx");
    assert_eq!(ask(&node, "203.0.113.2")["holders"].as_array().unwrap().len(), 2);
}

#[test]
fn an_address_that_nobody_holds_has_a_past() {
    let node = busy();
    assert_eq!(
        text(node.run("who 203.0.113.5")),
        "203.0.113.5: free\n  pool:         rbx (203.0.113.0/28), bridge vmbr0, gateway 203.0.113.1\n  \
         last holder:  none in this node's audit log\n"
    );
    assert_eq!(
        text(node.run("who 203.0.113.3")),
        "203.0.113.3: nobody holds it, cools down until TIME\n  \
         pool:         rbx (203.0.113.0/28), bridge vmbr0, gateway 203.0.113.1\n  \
         last holder:  guest 101 net0, from TIME\n  since:        TIME\n"
    );
    let cooling = ask(&node, "203.0.113.3");
    assert_eq!((&cooling["state"], &cooling["last_holder"]["vmid"]), (&json!("cooling"), &json!(101)));
    assert!(cooling["free_at"].as_str() > cooling["free_since"].as_str(), "{cooling}");
    node.run("pool set rbx --cool-down 0").ok();
    assert_eq!(ask(&node, "203.0.113.3")["state"], "free");
    // Without the audit log the registry still knows who gave it back.
    std::fs::remove_file(node.tree.path("var/lib/pve-public-ip/audit.log")).unwrap();
    assert_eq!(ask(&node, "203.0.113.3")["last_holder"]["vmid"], 101);
    assert_eq!(ask(&node, "203.0.113.5")["last_holder"], Value::Null);
    assert_eq!(
        text(node.run("who 203.0.113.1")),
        "203.0.113.1: never assigned, it is the gateway\n  pool:         rbx (203.0.113.0/28), bridge vmbr0, gateway 203.0.113.1\n  \
         last holder:  none in this node's audit log\n"
    );
    assert_eq!(ask(&node, "2001:db8:1::")["reason"], "the subnet-router anycast address");
    let free = ask(&node, "2001:db8:1::ffff:0");
    assert_eq!((&free["state"], &free["pool"]), (&json!("free"), &json!("rbx")));
}

#[test]
fn an_address_in_no_pool_has_neighbours() {
    let node = busy();
    assert_eq!(
        text(node.run("who 203.0.113.16")),
        "203.0.113.16: in no pool\n  nearest pool:  rbx (203.0.113.0/28, 1 away)\n  nearest pool:  old (198.51.100.8)\n  \
         last holder:   none in this node's audit log\n"
    );
    let data = ask(&node, "203.0.113.16");
    assert_eq!((&data["state"], &data["nearest_pools"][0]["pool"]), (&json!("outside"), &json!("rbx")));
    let own = node.run("who 203.0.113.250").ok();
    assert!(own.out.contains("an address of this node, n1"), "{own}");
    let loopback = node.run("who 127.0.0.1").ok();
    assert!(loopback.out.starts_with("127.0.0.1: in no pool, nobody can hold it\n"), "{loopback}");
    assert_eq!(ask(&node, "::1")["state"], "outside");
    // It was in a pool, and somebody had it.
    node.run("release 101 --no-hookscript").ok();
    node.run("pool remove old").ok();
    let gone = ask(&node, "198.51.100.7");
    assert_eq!((&gone["state"], &gone["last_holder"]["vmid"]), (&json!("outside"), &json!(101)));
    let empty = Node::new();
    assert_eq!(
        text(empty.run("who 203.0.113.16")),
        "203.0.113.16: in no pool\n  last holder:  none in this node's audit log\n"
    );
}

#[test]
fn prefixes_macs_and_ports_have_answers() {
    let node = busy();
    let run = text(node.run("who 203.0.113.0/29"));
    let rows: Vec<String> = run
        .lines()
        .filter(|line| line.contains(" rbx "))
        .map(|line| line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join(","))
        .collect();
    assert_eq!(
        rows,
        [
            "203.0.113.0,1,reserved,the network address,rbx",
            "203.0.113.1,1,reserved,the gateway,rbx",
            "203.0.113.2,1,assigned,100 net0,rbx",
            "203.0.113.3,1,cooling,was 101's,rbx",
            "203.0.113.4,1,assigned,102 net0,rbx",
            "203.0.113.5 to 203.0.113.7,3,free,rbx",
        ]
    );
    let data = ask(&node, "203.0.113.0/29");
    let holders: Vec<&Value> = data["holders"].as_array().unwrap().iter().map(|holder| &holder["vmid"]).collect();
    assert_eq!(holders, [&json!(100), &json!(102)]);
    // A /64 is not listed address by address.
    let wide = ask(&node, "2001:db8:1::/64");
    assert_eq!(wide["ranges"].as_array().unwrap().len(), 4, "{wide}");
    assert_eq!(ask(&node, "192.0.2.0/24")["state"], "outside");
    node.run("who 203.0.113.1/29").fails_with(2, &["did you mean 203.0.113.0/29?"]);

    assert_eq!(
        text(node.run("who 02:00:00:aa:bb:02")),
        "02:00:00:aa:bb:02:\n  guest:  200 (dns) net0, node n1, holds no address\n"
    );
    let mac = ask(&node, "02:00:00:aa:bb:00");
    assert_eq!(mac["holders"].as_array().unwrap().len(), 2, "{mac}");
    assert_eq!(mac["guests"], json!([{"vmid": 100, "interface": "net0", "node": "n1", "name": "web"}]));
    let bridge = node.run("who 02:00:00:00:00:fe").ok();
    assert!(bridge.out.contains("interface vmbr0 of this node"), "{bridge}");
    node.run("who 02:00:00:99:99:99").prints("02:00:00:99:99:99: no guest, pool or router has it\n");
    node.run("pool create ovh --profile ovh-bridged --bridge vmbr0 --gateway4 192.0.2.1").ok();
    node.run("pool add ovh 192.0.2.9 --mac 02:00:00:99:99:99").ok();
    assert_eq!(ask(&node, "02:00:00:99:99:99")["entries"], json!([{"pool": "ovh", "address": "192.0.2.9"}]));

    assert_eq!(
        text(node.run("who tap100i0")),
        "tap100i0: guest 100 (web) net0\n  state:      reserved\n  node:       n1\n  MAC:        02:00:00:aa:bb:00\n  bridge:     vmbr0\n  \
         addresses:  203.0.113.2, 2001:db8:1::2\n"
    );
    assert_eq!(ask(&node, "fwpr101p0")["holders"][0]["address"], "198.51.100.7");
    assert_eq!(ask(&node, "veth999i3")["state"], "missing");
    node.run("who 100").fails_with(2, &["`pve-public-ip show 100` shows its addresses"]);
    node.run("who eno1").fails_with(2, &["it is no address, prefix, MAC or port of a guest"]);
}

#[test]
fn what_cannot_be_read_is_not_free() {
    let node = busy();
    node.tree.write(&Tree::guest_file(100), "{");
    std::fs::remove_dir_all(node.tree.path("var/lib/pve-public-ip/last-good")).unwrap();
    let run = node.run("who 203.0.113.2 --output-format json");
    assert_eq!((run.code, &run.json()["state"]), (4, &json!("unknown")), "{run}");
    // Others are still found.
    let run = node.run("who 203.0.113.4 --output-format json");
    assert_eq!((run.code, &run.json()["state"]), (4, &json!("assigned")), "{run}");
    node.tree.write(&node.tree.pool_file("rbx"), "{");
    let run = node.run("who 203.0.113.5 --output-format json");
    assert_eq!((run.code, &run.json()["state"]), (4, &json!("unknown")), "{run}");
}

#[test]
fn lists_are_narrowed() {
    let node = busy();
    let addresses = |options: &str| -> Vec<String> {
        let data = node.run(&format!("list {options} --output-format json")).ok().json();
        let rows = data["assignments"].as_array().unwrap().iter();
        rows.map(|row| row["address"].as_str().unwrap().split('/').next().unwrap().to_owned()).collect()
    };
    assert_eq!(addresses("--organization acme"), ["203.0.113.2", "2001:db8:1::2"]);
    assert_eq!(addresses("--node n2"), ["203.0.113.4"]);
    assert_eq!(addresses("--node n1 --pool old"), ["198.51.100.7"]);
    assert_eq!(addresses("--state elsewhere"), ["203.0.113.4"]);
    assert_eq!(addresses("--state reserved --pool rbx --organization acme --node n1").len(), 2);
    assert_eq!(addresses("--state protected"), [""; 0]);
    node.run("list --state protected").prints("no assignment matches; `pve-public-ip list` shows all of them\n");
    node.run("list --organization nobody").prints("no assignment matches; `pve-public-ip list` shows all of them\n");

    let free = |options: &str| -> Vec<(String, String, Value)> {
        let data = node.run(&format!("list {options} --output-format json")).ok().json();
        let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
        data["ranges"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (text(row, "first"), text(row, "last"), row["count"].clone()))
            .collect()
    };
    let row = |first: &str, last: &str, count: Value| (first.to_owned(), last.to_owned(), count);
    assert_eq!(
        free("--free --pool rbx"),
        [
            row("203.0.113.5", "203.0.113.14", json!(10)),
            row("2001:db8:1::1", "2001:db8:1::1", json!(1)),
            row("2001:db8:1::3", "2001:db8:1:0:ffff:ffff:ffff:ffff", json!("18446744073709551613")),
        ]
    );
    assert_eq!(free("--free").len(), 4);
    assert_eq!(free("--state free"), free("--free"));
    assert_eq!(free("--state cooling"), [row("203.0.113.3", "203.0.113.3", json!(1))]);
    let run = node.run("list --free --pool old").ok();
    assert!(run.out.contains("| old  | 198.51.100.8 | 1     |"), "{run}");
    node.run("list --state cooling --pool old").prints("no address cools down in pool old\n");
    node.run("assign 200 198.51.100.8 --no-hookscript").ok();
    node.run("list --free --pool old")
        .prints("no free address in pool old; `pve-public-ip pool add old PREFIX` adds some\n");
    node.run("list --free --node n1").fails_with(2, &["cannot be used with"]);
}

/// What the shell offers, by the shipped script, after this line.
fn bash_offers(node: &Node, line: &str) -> Vec<String> {
    let program = node.tree.path("bin/pve-public-ip");
    if !program.exists() {
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(crate::common::BINARY, &program).unwrap();
        let script = node.run("completion bash").ok().out;
        node.tree.write("completion", script);
    }
    // An interactive bash with its own line editor would need a terminal; this is what it does with a line.
    let words = r#"
        source "$1"
        COMP_LINE=$2; COMP_POINT=${#COMP_LINE}; COMP_WORDS=(); word=
        for ((i = 0; i < COMP_POINT; i++)); do
            case "${COMP_LINE:i:1}" in
                ' ') [[ -n $word ]] && COMP_WORDS+=("$word"); word= ;;
                : | =) [[ -n $word ]] && COMP_WORDS+=("$word"); COMP_WORDS+=("${COMP_LINE:i:1}"); word= ;;
                *) word+=${COMP_LINE:i:1} ;;
            esac
        done
        [[ -z $word && $COMP_LINE == *: ]] || COMP_WORDS+=("$word")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        "$(complete -p pve-public-ip | sed 's/.*-F *\([^ ]*\).*/\1/')" pve-public-ip "$word"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let output = node
        .net
        .command("bash")
        .args(["-c", words, "bash"])
        .arg(node.tree.path("completion"))
        .arg(line)
        .env("PATH", format!("{}:{}", node.tree.path("bin").display(), crate::common::SYSTEM_PATH))
        .env("PVE_PUBLIC_IP_ROOT", node.tree.root())
        .output()
        .unwrap();
    let run = Run::of(line.to_owned(), &output).ok();
    assert_eq!(run.err, "", "{run}");
    let offered: Vec<String> = run.out.lines().map(str::to_owned).collect();
    offered.into_iter().filter(|word| !word.starts_with('-') && !word.is_empty()).collect()
}

#[test]
fn a_shell_offers_guests_pools_addresses_and_bridges() {
    let node = busy();
    let offers = |line: &str| bash_offers(&node, line);
    assert_eq!(offers("pve-public-ip assign "), ["100", "101", "102", "200"]);
    assert_eq!(offers("pve-public-ip assign 10"), ["100", "101", "102"]);
    assert_eq!(offers("pve-public-ip show "), ["100", "101", "102"], "those that hold something");
    assert_eq!(
        offers("pve-public-ip release 100 "),
        ["2001:db8:1::2", "203.0.113.2"].map(str::to_owned).into_iter().rev().collect::<Vec<_>>()
    );
    assert_eq!(offers("pve-public-ip pool show "), ["old", "rbx"]);
    assert_eq!(offers("pve-public-ip list --pool r"), ["rbx"]);
    assert_eq!(offers("pve-public-ip list --organization "), ["acme", "other"]);
    assert_eq!(offers("pve-public-ip list --node "), ["n1", "n2"]);
    assert_eq!(offers("pve-public-ip pool create new --profile generic-bridged --bridge "), ["vmbr0"]);
    assert_eq!(offers("pve-public-ip pool create "), [""; 0], "a new pool has a new name");
    assert_eq!(offers("pve-public-ip pool remove old "), ["198.51.100.7", "198.51.100.8"]);
    assert!(offers("pve-public-ip list --state ").contains(&"cooling".to_owned()));
    let free = offers("pve-public-ip assign 100 --pool old ");
    assert_eq!(free, ["198.51.100.8"]);
    let free = offers("pve-public-ip assign 100 203.0.113.1");
    assert_eq!(free, ["203.0.113.10", "203.0.113.11", "203.0.113.12", "203.0.113.13", "203.0.113.14"]);
    // bash takes an address apart at its colons, and replaces only the last part.
    assert_eq!(offers("pve-public-ip who 2001:db8:1::"), ["2"]);
    assert_eq!(offers("pve-public-ip who 2001:d"), ["db8:1::2"]);
    assert!(offers("pve-public-ip assign 100 2001:db8:1::").contains(&"1".to_owned()));
    // Without a registry, or one that cannot be read, commands and options are still there.
    assert!(offers("pve-public-ip pool sh").contains(&"show".to_owned()));
    node.tree.write(&node.tree.pool_file("rbx"), "{");
    assert!(offers("pve-public-ip pool sh").contains(&"show".to_owned()));
    assert_eq!(offers("pve-public-ip who 203.0.113.2"), ["203.0.113.2"]);
}
