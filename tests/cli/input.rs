//! What people type wrong: exit status 2 for what is no command, 1 for what the registry's rules forbid.

use crate::common::Node;

/// A usage error: status 2, clap's form, and these words.
#[track_caller]
fn usage(node: &Node, command: &str, words: &str) {
    let run = node.run(command);
    assert_eq!((run.code, run.out.as_str()), (2, ""), "{run}");
    assert!(run.err.starts_with("error: ") && run.err.contains(words), "without `{words}`: {run}");
    assert!(run.err.contains("For more information, try '--help'."), "{run}");
}

#[test]
fn addresses_that_no_guest_can_own_are_refused() {
    let node = Node::with_pool();
    let before = node.tree.etc();
    let owned = "address space";
    for (address, reason) in [
        ("224.0.0.5", format!("`224.0.0.5` is or contains multicast {owned} (224.0.0.0/4), which no guest can own")),
        ("ff02::1", format!("`ff02::1` is or contains multicast {owned} (ff00::/8), which no guest can own")),
        ("127.0.0.1", format!("`127.0.0.1` is or contains loopback {owned} (127.0.0.0/8), which no guest can own")),
        ("::1", format!("`::1` is or contains loopback {owned} (::1/128), which no guest can own")),
        ("0.0.0.0", format!("`0.0.0.0` is or contains unspecified {owned} (0.0.0.0/8), which no guest can own")),
        ("::", format!("`::` is or contains unspecified {owned} (::/128), which no guest can own")),
        ("::/0", format!("`::/0` is or contains unspecified {owned} (::/128), which no guest can own")),
        ("0.0.0.0/0", format!("`0.0.0.0/0` is or contains unspecified {owned} (0.0.0.0/8), which no guest can own")),
        ("240.0.0.1", format!("`240.0.0.1` is or contains reserved {owned} (240.0.0.0/4), which no guest can own")),
        (
            "255.255.255.255",
            format!("`255.255.255.255` is or contains reserved {owned} (240.0.0.0/4), which no guest can own"),
        ),
        (
            "169.254.1.1",
            format!("`169.254.1.1` is or contains link-local {owned} (169.254.0.0/16), which no guest can own"),
        ),
        ("fe80::1", format!("`fe80::1` is or contains link-local {owned} (fe80::/10), which no guest can own")),
        (
            "::ffff:203.0.113.1",
            format!("`::ffff:203.0.113.1` is or contains IPv4-mapped {owned} (::ffff:0:0/96), which no guest can own"),
        ),
        ("203.0.113.10/29", "`203.0.113.10/29` has host bits set; did you mean 203.0.113.8/29?".to_owned()),
        ("2001:db8::1/64", "`2001:db8::1/64` has host bits set; did you mean 2001:db8::/64?".to_owned()),
        ("203.0.113.0/33", "`203.0.113.0/33` has a prefix length above 32".to_owned()),
        ("2001:db8::/129", "`2001:db8::/129` has a prefix length above 128".to_owned()),
        (
            "203.0.113.010",
            "`203.0.113.010` is not an IP address or prefix (such as 203.0.113.10, 203.0.113.8/29 or 2001:db8::/64)"
                .to_owned(),
        ),
        ("203.0.113", "`203.0.113` is not an IP address or prefix".to_owned()),
        ("example.org", "`example.org` is not an IP address or prefix".to_owned()),
    ] {
        for command in [
            "pool add ovh-rbx",
            "pool remove ovh-rbx",
            "assign 100",
            "release 100",
            "pool create x --profile generic-bridged --bridge vmbr0",
        ] {
            usage(&node, &format!("{command} {address}"), &reason);
        }
    }
    assert!(node.tree.etc() == before);
}

#[test]
fn names_numbers_and_macs_are_checked_at_the_door() {
    let node = Node::with_pool();
    let before = node.tree.etc();
    let create = "pool create x --profile generic-bridged --bridge";
    let add = "pool add ovh-rbx 203.0.113.20";
    for (command, reason) in [
        (format!("{create} abcdefghijklmnop"), "interface name `abcdefghijklmnop` is longer than 15 characters"),
        (
            format!("{create} vm/br"),
            "interface name `vm/br` has a character other than letters, digits, `_`, `-` and `.`, or is empty",
        ),
        (format!("{create} .."), "interface name `..` has a character other than"),
        (
            format!("{add} --mac 01:00:5e:00:00:01"),
            "MAC address `01:00:5e:00:00:01` has the group bit set (it is multicast); a guest NIC needs a unicast one",
        ),
        (format!("{add} --mac ff:ff:ff:ff:ff:ff"), "MAC address `ff:ff:ff:ff:ff:ff` has the group bit set"),
        (
            format!("{add} --mac 00:00:00:00:00:00"),
            "MAC address `00:00:00:00:00:00` is all zero; a guest NIC needs one of its own",
        ),
        (
            format!("{add} --mac 02-00-00-00-00-01"),
            "MAC address `02-00-00-00-00-01` is not six two-digit hex octets joined by `:`",
        ),
        (format!("{add} --monthly-cost-cents 1.5"), "invalid digit found in string"),
        (format!("{add} --gateway 203.0.113.1/24"), "invalid IP address syntax"),
        (
            "pool create ../etc --profile generic-bridged --bridge vmbr0".to_owned(),
            "`../etc` is not a pool name (it must match ",
        ),
        (
            "pool create x --profile generic-bridge --bridge vmbr0".to_owned(),
            "tip: a similar value exists: 'generic-bridged'",
        ),
        ("pool create x --bridge vmbr0".to_owned(), "--profile <PROFILE>"),
        ("assign 99".to_owned(), "`99` is not a VMID (a number from 100 to 999999999)"),
        ("assign 1000000000".to_owned(), "`1000000000` is not a VMID"),
        ("assign 0100".to_owned(), "`0100` is not a VMID"),
        ("assign web".to_owned(), "`web` is not a VMID"),
        ("assign 100 --net 32".to_owned(), "`32` is not a guest NIC (net0 to net31)"),
        ("assign 100 --net eth0".to_owned(), "`eth0` is not a guest NIC (net0 to net31)"),
        ("assign 100 -4 -6".to_owned(), "the argument '-4' cannot be used with '-6'"),
        ("assign 100 -4 203.0.113.10".to_owned(), "the argument '-4' cannot be used with '[ADDRESSES]...'"),
        ("hook 100 prestart".to_owned(), "tip: a similar value exists: 'pre-start'"),
        ("hook 100".to_owned(), "<PHASE>"),
        ("show".to_owned(), "<VMID>"),
        ("asign 100".to_owned(), "tip: a similar subcommand exists: 'assign'"),
        ("list --output-format xml".to_owned(), "[possible values: text, json, json-pretty, yaml]"),
        ("schema guests".to_owned(), "tip: a similar value exists: 'guest'"),
    ] {
        usage(&node, &command, reason);
    }
    assert!(node.tree.etc() == before);
}

/// Four pools, one assignment, and guests whose NICs are not as they should be.
fn crowded() -> Node {
    let node = Node::with_pool();
    node.run("pool create lan --profile generic-bridged --bridge vmbr0 --gateway4 198.51.100.1 198.51.100.0/29").ok();
    node.run("pool create bare --profile ovh-bridged --bridge vmbr0 192.0.2.8").ok();
    node.run("pool create empty --profile generic-routed --bridge vmbr0").ok();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.tree.qemu(103, "net0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\nnet1: virtio=02:00:00:AA:BB:99,bridge=vmbr1\nnet2: virtio,bridge=vmbr0\n");
    node.tree.qemu(104, "name: bare\n");
    node
}

#[test]
fn the_rules_for_pools_are_said_with_the_way_out() {
    let node = crowded();
    for (command, sentence, hint) in [
        (
            "pool create lan --profile generic-bridged --bridge vmbr0",
            "cannot create pool `lan`: pool `lan` exists already",
            "to add addresses: `pve-public-ip pool add lan ADDRESS`",
        ),
        (
            "pool create x --profile generic-bridged --bridge vmbr0 192.0.2.0/28 198.51.100.4/30",
            "cannot create pool `x`: 192.0.2.0/28 overlaps 192.0.2.8 of pool `bare`",
            "leave it out, or first take out what is there: `pve-public-ip pool remove bare 192.0.2.8`",
        ),
        (
            "pool create x --profile generic-bridged --bridge vmbr0 192.0.2.128/28 192.0.2.130",
            "cannot create pool `x`: 192.0.2.130 overlaps 192.0.2.128/28 of pool `x`",
            "name one of the two",
        ),
        (
            "pool add lan 203.0.113.0/24",
            "cannot add 203.0.113.0/24 to pool `lan`: 203.0.113.0/24 overlaps 203.0.113.10 of pool `ovh-rbx`",
            "leave it out, or first take out what is there: `pve-public-ip pool remove ovh-rbx 203.0.113.10`",
        ),
        (
            "pool add lam 203.0.113.99",
            "cannot add 203.0.113.99 to pool `lam`: there is no pool `lam`",
            "did you mean `lan`?",
        ),
        ("pool show nothing-like-it", "there is no pool `nothing-like-it`", "there is: bare, empty, lan, ovh-rbx"),
        (
            "pool remove lan 198.51.100.1",
            "cannot remove from pool `lan`: pool `lan` has no entry 198.51.100.1",
            "`pve-public-ip pool show lan` lists its entries",
        ),
        (
            "pool add ovh-rbx 203.0.113.10 --mac 02:00:00:00:00:07",
            "cannot add 203.0.113.10 to pool `ovh-rbx`: 203.0.113.10 is assigned to guest 100 net0, which has MAC 02:00:00:aa:bb:00 and not 02:00:00:00:00:07",
            "first `pve-public-ip release 100 203.0.113.10`; assign it again with --set-mac",
        ),
        ("list --pool lam", "there is no pool `lam`", "did you mean `lan`?"),
    ] {
        node.changes_nothing(command).fails(1, sentence, hint);
    }
}

#[test]
fn the_rules_for_assignments_are_said_with_the_way_out() {
    let node = crowded();
    for (command, sentence, hint) in [
        (
            "assign 101",
            "cannot assign to guest 101: say which pool to take an address from: bare, empty, lan, ovh-rbx",
            "add --pool NAME, or name the address",
        ),
        (
            "assign 101 --pool empty",
            "cannot assign to guest 101: pool `empty` has no free IPv4 address",
            "more addresses: `pve-public-ip pool add empty PREFIX`",
        ),
        (
            "assign 101 192.0.2.77",
            "cannot assign to guest 101: 192.0.2.77 is in no pool",
            "add it to one: `pve-public-ip pool add NAME 192.0.2.77`; `pve-public-ip pool list` shows the pools",
        ),
        (
            "assign 101 203.0.113.11 --pool lan",
            "cannot assign to guest 101: 203.0.113.11 is in pool `ovh-rbx`, not in `lan`",
            "leave --pool out, or say --pool ovh-rbx",
        ),
        (
            "assign 101 203.0.113.10",
            "cannot assign to guest 101: 203.0.113.10 is held by guest 100",
            "to move it: `pve-public-ip release 100 203.0.113.10`",
        ),
        (
            "assign 101 198.51.100.0",
            "cannot assign to guest 101: 198.51.100.0 is the network address of pool `lan`",
            "choose another one, or leave the address out to get the next free one",
        ),
        (
            "assign 101 198.51.100.7",
            "cannot assign to guest 101: 198.51.100.7 is the broadcast address of pool `lan`",
            "choose another one, or leave the address out to get the next free one",
        ),
        (
            "assign 101 198.51.100.1",
            "cannot assign to guest 101: 198.51.100.1 is the gateway of pool `lan`",
            "choose another one, or leave the address out to get the next free one",
        ),
        (
            "assign 101 192.0.2.8",
            "cannot assign to guest 101: the MAC that the provider bound to 192.0.2.8 is not known (profile ovh-bridged of pool `bare`)",
            "look it up at the provider, then `pve-public-ip pool add bare 192.0.2.8 --mac MAC`; a wrong MAC can lock the server",
        ),
        // The first address would do, the second does not: neither is given.
        (
            "assign 101 203.0.113.11 203.0.113.10",
            "cannot assign to guest 101: 203.0.113.10 is held by guest 100",
            "to move it: `pve-public-ip release 100 203.0.113.10`",
        ),
        (
            "assign 103 203.0.113.11",
            "cannot assign to guest 103: MAC 02:00:00:aa:bb:00 is that of guest 100 net0 already",
            "give one of the guests another MAC; if both are NICs of guest 100, name both in one assignment (--net 0 --net N)",
        ),
        (
            "assign 103 203.0.113.11 --net 1",
            "cannot assign to guest 103: guest 103 net1 is on bridge vmbr1, but 203.0.113.11 of pool `ovh-rbx` needs vmbr0",
            "move net1 of guest 103 to vmbr0, or name another NIC with --net",
        ),
        (
            "assign 103 203.0.113.11 --net 2",
            "cannot assign to guest 103: guest 103 net2 has no fixed MAC: it would get another one at every start",
            "give it one: `qm set 103 --net2 virtio,bridge=vmbr0`",
        ),
        (
            "assign 103 203.0.113.11 --net 7",
            "cannot assign to guest 103: guest 103 has no net7; it has net0, net1, net2",
            "add it: `qm set 103 --net7 ...`, or name another one with --net",
        ),
        (
            "assign 104 203.0.113.11",
            "cannot assign to guest 104: guest 104 has no net0; it has no NIC",
            "add it: `qm set 104 --net0 ...`, or name another one with --net",
        ),
    ] {
        node.changes_nothing(command).fails(1, sentence, hint);
    }
    node.tree.qemu(100, "net0: virtio=02:00:00:AA:BB:FF,bridge=vmbr0\n");
    node.changes_nothing("assign 100 203.0.113.11").fails(
        1,
        "cannot assign to guest 100: guest 100 net0 is registered with MAC 02:00:00:aa:bb:00, but has 02:00:00:aa:bb:ff",
        "set the guest's MAC back, or `pve-public-ip release 100` and assign again with the new one",
    );
}

#[test]
fn a_gateway_must_be_of_the_addresss_family() {
    let node = Node::with_pool();
    let run = node.changes_nothing("pool add ovh-rbx 203.0.113.20 --gateway fe80::1");
    let error = "error: cannot add 203.0.113.20 to pool `ovh-rbx`: gateway fe80::1 is not of the family of 203.0.113.20\n\
         hint: give an IPv4 gateway, or leave it out to use the pool's\n";
    assert_eq!((run.code, run.err.as_str()), (1, error), "{run}");
    let run = node.changes_nothing("pool create x --profile generic-bridged --bridge vmbr0 --gateway4 fe80::1");
    assert_eq!(run.code, 2, "{run}");
}

#[test]
fn the_providers_mac_decides_who_can_have_an_address() {
    let node = Node::new();
    node.run("pool create ovh --profile ovh-bridged --bridge vmbr0 --gateway4 198.51.100.254").ok();
    node.run("pool add ovh 203.0.113.20 --mac 02:00:00:aa:bb:01").ok();
    node.changes_nothing("assign 100 203.0.113.20").fails(
        1,
        "cannot assign to guest 100: 203.0.113.20 is bound to MAC 02:00:00:aa:bb:01 by the provider, but guest 100 net0 has 02:00:00:aa:bb:00",
        "with the guest stopped, `pve-public-ip assign 100 203.0.113.20 --set-mac` gives the NIC the MAC 02:00:00:aa:bb:01",
    );
    // For next-free it is not free for this guest; for the one with the MAC it is.
    node.changes_nothing("assign 100").fails(
        1,
        "cannot assign to guest 100: pool `ovh` has no free IPv4 address",
        "more addresses: `pve-public-ip pool add ovh PREFIX`",
    );
    node.run("assign 101 --no-hookscript").prints(
        "203.0.113.20 assigned to guest 101 net0 (02:00:00:aa:bb:01), pool ovh, gateway 198.51.100.254\n\
         network: the guest has no cloud-init drive: `pve-public-ip show 101` says what to configure inside\n",
    );
}

#[test]
fn what_has_another_meaning_is_no_guests() {
    let node = Node::new();
    node.run("pool create lan --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.9 203.0.113.0/24").prints(
        "pool lan created: generic-bridged, bridge vmbr0, 1 entry\n\
         not handed out: 203.0.113.250 (an address of this node), 203.0.113.0 (the network address of 203.0.113.0/24, in which this \
         node is), 203.0.113.255 (the broadcast address of 203.0.113.0/24, in which this node is), 203.0.113.9 (the gateway of pool \
         `lan`)\n",
    );
    node.changes_nothing("pool create net --profile hetzner-routed --bridge vmbr1 203.0.113.10").fails(
        1,
        "cannot create pool `net`: 203.0.113.10 overlaps 203.0.113.0/24 of pool `lan`",
        "leave it out, or first take out what is there: `pve-public-ip pool remove lan 203.0.113.0/24`",
    );
    node.run("pool create net --profile hetzner-routed --bridge vmbr1 --gateway4 203.0.113.20 192.0.2.0/28").ok();
    for (address, meaning) in [
        ("203.0.113.9", "the gateway of pool `lan`"),
        ("203.0.113.20", "the gateway of pool `net`"),
        ("203.0.113.250", "an address of this node"),
    ] {
        node.changes_nothing(&format!("assign 100 {address}")).fails(
            1,
            &format!("cannot assign to guest 100: {address} is {meaning}"),
            "choose another one, or leave the address out to get the next free one",
        );
    }
    let hint = "a pool has addresses for guests: leave it out, or take it off the node";
    node.net.sh("ip addr add 198.51.100.7/24 dev vmbr0");
    node.changes_nothing("pool create own --profile generic-bridged --bridge vmbr0 198.51.100.7").fails(
        1,
        "cannot create pool `own`: 198.51.100.7 is an address of this node",
        hint,
    );
    node.changes_nothing("pool add lan 198.51.100.7").fails(
        1,
        "cannot add 198.51.100.7 to pool `lan`: 198.51.100.7 is an address of this node",
        hint,
    );

    // It may become one later.
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.net.sh("ip addr add 203.0.113.10/24 dev vmbr0");
    let (sentence, hint) = (
        "203.0.113.10 of guest 100 is an address of this node (vmbr0)",
        "take it off the node, or `pve-public-ip release 100 203.0.113.10`",
    );
    node.run("hook 100 pre-start").fails(1, sentence, hint);
    node.run("apply").ok();
    let verify = node.run("verify");
    assert_eq!((verify.code, verify.out.as_str()), (1, &*format!("problem: {sentence}\n  hint: {hint}\n")), "{verify}");
    // Wherever on the node it is, and of a routed pool, too.
    node.net.sh("ip addr del 203.0.113.10/24 dev vmbr0");
    node.run("pool create far --profile generic-routed --bridge vmbr0 192.0.2.65 2001:db8:7::65").ok();
    node.run("assign 101 192.0.2.65 2001:db8:7::65 --no-hookscript").ok();
    for (vmid, address, length) in [(100, "203.0.113.10", 32), (101, "192.0.2.65", 32), (101, "2001:db8:7::65", 128)] {
        node.net.sh(&format!("ip addr add {address}/{length} dev lo"));
        let sentence = format!("{address} of guest {vmid} is an address of this node (lo)");
        let hint = format!("take it off the node, or `pve-public-ip release {vmid} {address}`");
        node.run(&format!("hook {vmid} pre-start")).fails_with(1, &[&format!("error: {sentence}\nhint: {hint}\n")]);
        node.net.sh(&format!("ip addr del {address}/{length} dev lo"));
        node.run(&format!("hook {vmid} pre-start")).ok();
        node.run(&format!("hook {vmid} post-stop")).ok();
    }
}

/// A command may be cut off where its beginning means one command. Scripts do so; a release that brings a command must not
/// take the meaning away.
#[test]
fn beginnings_of_commands_keep_their_meaning() {
    /// Those of release 0.1.0.
    const FIRST: &str = "pool setup node assign release set list show plan apply verify status metrics conflicts audit doctor \
         topology explain selftest guard deliver hook schema completion help";
    let node = Node::new();
    let mut tried = 0;
    // `help` takes a command, and no option.
    for name in FIRST.split_whitespace().filter(|name| *name != "help") {
        for beginning in (1..name.len()).map(|length| &name[..length]) {
            if FIRST.split_whitespace().filter(|other| other.starts_with(beginning)).count() > 1 {
                continue;
            }
            let usage = node.run(&format!("{beginning} --help")).ok().out;
            assert!(usage.contains(&format!("Usage: pve-public-ip {name}")), "{beginning}: {usage}");
            tried += 1;
        }
    }
    assert!(tried > 60, "{tried}");
}
