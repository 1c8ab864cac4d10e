//! The law: what is desired is observed after `apply`, and whatever differs is named and repaired.

use std::collections::BTreeSet;

use pve_public_ip::plan::Step;
use pve_public_ip::ruleset::{SetId, Table};

use crate::caches::port_of;
use crate::lab::{Lab, sh};
use crate::scene::{full_node, guest_mac, say};

/// An element that the set does not have, made from its declaration: as a foreign hand would write it.
fn foreign_element(set: SetId) -> String {
    let listing = sh(&format!("nft list set bridge pve-public-ip {}", set.name()));
    let line = |key: &str| listing.lines().find_map(|line| line.trim().strip_prefix(key));
    let fields = line("type ").or_else(|| line("typeof ")).unwrap_or_else(|| panic!("{listing}"));
    let is_range = line("flags ").is_some_and(|flags| flags.contains("interval"));
    if is_range && fields == "ifname" {
        return "\"foreign*\"".to_owned(); // an interval of names is a wildcard
    }
    let bits = |length: u32, last: u8| match (length as usize / 4).checked_sub(10) {
        Some(zeros) => format!("0x20010db8{}{last:02x}", "0".repeat(zeros)),
        // An IPv4 address by its number.
        None => format!("0xc00002{last:02x}"),
    };
    let value = |field: &str, last: u8| match field {
        "ifname" | "iifname" => "\"tap999i9\"".to_owned(),
        "ether_addr" | "ether saddr" => "02:00:00:99:99:99".to_owned(),
        "ipv4_addr" => format!("192.0.2.{last}"),
        // The /64 sets hold the first half only, and a host part would do no harm there.
        "ipv6_addr" if set.name().ends_with("_64") => "2001:db8:99::".to_owned(),
        "ipv6_addr" => format!("2001:db8:99::{last:x}"),
        "vlan id" => "99".to_owned(),
        "@nh,64,32" => "0x20010db9".to_owned(),
        raw => match raw.rsplit_once(',').and_then(|(_, length)| length.parse().ok()) {
            Some(length) if raw.starts_with('@') => bits(length, last),
            _ => panic!("what is a field of type {raw}, in {}?", set.name()),
        },
    };
    let fields: Vec<&str> = fields.split(" . ").collect();
    let (last, others) = fields.split_last().unwrap();
    let mut parts: Vec<String> = others.iter().map(|field| value(field, 0)).collect();
    parts.push(if is_range { format!("{}-{}", value(last, 0x60), value(last, 0x63)) } else { value(last, 0x63) });
    parts.join(" . ")
}

/// The first element of a set, as `nft` writes it.
pub(crate) fn first_element(set: SetId) -> Option<String> {
    let listing = sh(&format!("nft list set bridge pve-public-ip {}", set.name()));
    let (_, elements) = listing.split_once("elements = {")?;
    let (elements, _) = elements.split_once('}')?;
    // `nft` 1.0.6 lists a wildcard but does not find it again.
    elements.split(',').map(|element| element.trim().to_owned()).find(|element| !element.contains('*'))
}

pub(crate) fn drift(lab: &Lab, what: &str, command: &str, named: &str) {
    sh(command);
    let found = lab.run("verify");
    assert_eq!(found.code, 3, "{what}: verify said\n{}{}", found.out, found.err);
    let line = found.out.lines().find(|line| line.starts_with("drift: ") && line.contains(named));
    assert!(line.is_some(), "{what}: verify did not say `{named}`, but\n{}", found.out);
    assert_eq!(found.out.lines().last(), Some("hint: `pve-public-ip apply` repairs it"), "{what}");
    let repaired = lab.run("apply");
    assert_eq!(repaired.code, 0, "{what}: apply said\n{}{}", repaired.out, repaired.err);
    let after = lab.run("verify");
    assert_eq!(after.code, 0, "{what}: after apply verify said\n{}{}", after.out, after.err);
    assert_eq!(lab.ok("plan"), "nothing to do\n", "{what}: a second apply would do something");
}

#[test]
fn drift_of_a_set_is_named_and_repaired() {
    let lab = full_node();
    let mut played = 0;
    assert_eq!(lab.ok("plan"), "nothing to do\n");
    let mut empty = Vec::new();
    for set in SetId::ALL.iter().filter(|set| set.table() == Table::Bridge) {
        let name = set.name();
        match first_element(*set) {
            Some(element) => {
                let command = format!("nft 'delete element bridge pve-public-ip {name} {{ {element} }}'");
                drift(&lab, &format!("{element} deleted from {name}"), &command, "missing ");
                played += 1;
            }
            None if sh(&format!("nft list set bridge pve-public-ip {name}")).contains("elements = ") => {
                drift(
                    &lab,
                    &format!("{name} flushed"),
                    &format!("nft flush set bridge pve-public-ip {name}"),
                    "missing ",
                );
                played += 1;
            }
            None => empty.push(name),
        }
        let element = foreign_element(*set);
        // `nft` 1.0.6 adds a wildcard only to an empty set: it misjudges the order of those that are there.
        let empty_first =
            if element.contains('*') { format!("nft flush set bridge pve-public-ip {name}; ") } else { String::new() };
        let command = format!("{empty_first}nft 'add element bridge pve-public-ip {name} {{ {element} }}'");
        drift(&lab, &format!("foreign element in {name}"), &command, "extra ");
        played += 1;
    }
    // Sets of features that this node does not use. Each of the others must have lost an element above.
    let unused = [
        "elsewhere",
        "free_",
        "guard_",
        "hairpin_",
        "inbound_",
        "inner_",
        "other_vlans",
        "port_any_ll",
        "port_no_dhcp",
        "port_trunk",
        "registered_",
        "router_",
        "spanning",
        "uplink_mac",
        "watch",
    ];
    let skipped: Vec<_> = empty.iter().filter(|name| !unused.iter().any(|prefix| name.starts_with(prefix))).collect();
    assert!(skipped.is_empty(), "{skipped:?} are empty on this node");
    say(&format!("{played} changes of elements named and repaired"));
}

#[test]
fn drift_of_the_rules_is_named_and_repaired() {
    let lab = full_node();
    let table = "bridge pve-public-ip";
    let rules = "the rules are missing or were changed";
    let older = pve_public_ip::ruleset::SETS.replacen("\t\tflags interval\n", "", 1);
    assert_ne!(older, pve_public_ip::ruleset::SETS);
    let chain = format!("{table} prerouting");
    let handle = sh(&format!("nft -a list chain {chain}"));
    let handle = handle
        .lines()
        .find(|line| line.contains("@ports"))
        .and_then(|line| line.rsplit(' ').next())
        .unwrap()
        .to_owned();
    for (what, command, named) in [
        ("a rule deleted", format!("nft delete rule {chain} handle {handle}"), rules),
        ("an accept at the top", format!("nft insert rule {chain} accept"), rules),
        ("an accept at the top of a chain", format!("nft insert rule {table} bound_arp accept"), rules),
        ("a chain flushed", format!("nft flush chain {table} bound_ip6"), rules),
        ("a chain added", format!("nft add chain {table} foreign"), rules),
        (
            "a base chain added",
            format!("nft 'add chain {table} foreign {{ type filter hook input priority 0; }}'"),
            rules,
        ),
        ("the table dormant", format!("nft 'add table {table} {{ flags dormant; }}'"), rules),
        ("a set flushed", format!("nft flush set {table} port_mac"), "missing "),
        ("the rules flushed", format!("nft flush table {table}"), rules),
        ("the table deleted", format!("nft delete table {table}"), "the table is missing"),
        ("everything flushed", "nft flush ruleset".to_owned(), "the table is missing"),
        (
            "a set of another release",
            format!("nft delete table {table}; nft -f - <<'END'\n{older}END"),
            "the table is missing",
        ),
    ] {
        drift(&lab, what, &command, named);
    }
}

#[test]
fn drift_of_neighbours_routes_and_forwarding_is_named_and_repaired() {
    let lab = full_node();
    for (what, command, named) in [
        (
            "a neighbour deleted",
            "ip neigh del 203.0.113.10 dev vmbr0",
            "203.0.113.10 is not fixed to 02:00:00:00:00:64",
        ),
        (
            "an IPv6 neighbour deleted",
            "ip neigh del 2001:db8:0:1::10 dev vmbr0",
            "2001:db8:0:1::10 is not fixed to 02:00:00:00:00:64",
        ),
        (
            "a neighbour changed",
            "ip neigh replace 203.0.113.10 lladdr 02:00:00:99:99:99 dev vmbr0 nud permanent protocol 121",
            "203.0.113.10 is not fixed",
        ),
        (
            "a neighbour no longer permanent",
            "ip neigh replace 203.0.113.10 lladdr 02:00:00:00:00:64 dev vmbr0 nud reachable protocol 121",
            "203.0.113.10 is not fixed",
        ),
        (
            "a neighbour too many",
            "ip neigh add 203.0.113.99 lladdr 02:00:00:99:99:99 dev vmbr0 nud permanent protocol 121",
            "203.0.113.99 has a permanent neighbour",
        ),
        (
            "a route too many",
            "ip route add 203.0.113.99/32 dev vmbr0 proto 121",
            "203.0.113.99/32 is routed to a bridge",
        ),
        (
            "a forwarding entry deleted",
            "bridge fdb del 02:00:00:00:00:64 dev tap100i0 master",
            "02:00:00:00:00:64 is not pinned to tap100i0",
        ),
        (
            "a forwarding entry not sticky",
            "bridge fdb replace 02:00:00:00:00:64 dev tap100i0 master static",
            "02:00:00:00:00:64 is not pinned to tap100i0",
        ),
        (
            "a bound MAC pinned to another guest",
            "bridge fdb replace 02:00:00:00:00:64 dev tap200i0 master static sticky",
            "02:00:00:00:00:64 is pinned to tap200i0",
        ),
        (
            "the bridge learns",
            "ip link set vmbr0 type bridge no_linklocal_learn 0",
            "vmbr0 learns from link-local frames",
        ),
        (
            "the bridge's own entry flushed",
            "bridge fdb flush dev vmbr0; bridge fdb replace 02:00:00:00:00:64 dev tap100i0 master static sticky",
            "vmbr0 does not know its own MAC as local",
        ),
    ] {
        drift(&lab, what, command, named);
    }
}

#[test]
fn a_port_that_vanishes_meanwhile_is_no_failure() {
    // Guests stop whenever they like, also between a look at the node and the change that follows from it.
    let lab = full_node();
    let mut kernel = pve_public_ip::system::Kernel::open(pve_public_ip::system::Reference::default()).unwrap();
    let mac = pve_public_ip::model::MacAddr::from_octets(guest_mac(100, 0));
    for (vanish, port) in
        [("true", "tap999i9"), ("ip link set tap100i0 nomaster", "tap100i0"), ("ip link del tap100i0", "tap100i0")]
    {
        sh(vanish);
        kernel
            .apply_step(&Step::SetForwarding(port.parse().unwrap(), mac, BTreeSet::new()))
            .unwrap_or_else(|error| panic!("{vanish}: {error}"));
    }
    assert_eq!(port_of(guest_mac(100, 0)), "nowhere");
    lab.ok("apply");
    lab.ok("verify");
}
