//! An address that was released is left alone for a while, unless somebody asks for it.

use crate::common::Node;

/// Seconds cut off, because nobody knows them.
fn without_times(text: &str) -> String {
    let is_time = |word: &str| word.len() >= 20 && word.starts_with("20") && word.contains('T') && word.contains('Z');
    let words =
        text.split(' ').map(|word| if is_time(word) { format!("TIME{}", &word[20..]) } else { word.to_owned() });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_released_address_is_not_handed_out_by_itself() {
    let node = Node::with_pool();
    node.run("assign 100 203.0.113.10 --no-hookscript").ok();
    node.run("release 100 --no-hookscript").ok();
    let shown = node.run("pool show ovh-rbx").ok();
    assert!(shown.out.contains("bridge vmbr0, uplink guard report, probe assign, cool-down 1h\n"), "{shown}");
    assert!(without_times(&shown.out).contains("| cools down until TIME (was 100's) |"), "{shown}");
    let data = node.run("pool show ovh-rbx --output-format json").ok().json();
    assert_eq!((&data["addresses"][0]["cooling"][0]["vmid"], &data["cool_down"]), (&100.into(), &"1h".into()));

    let assigned = node.run("assign 101 -4 --dry-run --no-hookscript").ok();
    assert!(assigned.out.starts_with("203.0.113.11 would be assigned to guest 101 net0"), "{assigned}");
    let back = node.run("assign 100 -4 --dry-run --no-hookscript").ok();
    assert!(back.out.starts_with("203.0.113.10 would be assigned to guest 100 net0"), "{back}");
    let named = node.run("assign 101 203.0.113.10 --dry-run --no-hookscript").ok();
    let remark = "\nnote: 203.0.113.10 was guest 100's until TIME, and cools down until TIME: what is meant for that guest may \
        still arrive\n";
    assert!(without_times(&named.out).contains(remark), "{named}");

    node.run("assign 101 203.0.113.11 203.0.113.12 203.0.113.13 --no-hookscript").ok();
    let refused = node.changes_nothing("assign 200 -4 --no-hookscript");
    let error = "error: cannot assign to guest 200: pool `ovh-rbx` has no free IPv4 address before TIME: 203.0.113.10 was guest \
        100's until TIME\n\
        hint: to assign it anyway, name it: `pve-public-ip assign 200 203.0.113.10`; not to wait in this pool: `pve-public-ip pool \
        set ovh-rbx --cool-down 0`\n";
    assert_eq!((refused.code, without_times(&refused.err).as_str()), (1, error), "{refused}");
    node.run("pool set ovh-rbx --cool-down 0").ok();
    let assigned = node.run("assign 200 -4 --no-hookscript").ok();
    assert!(assigned.out.starts_with("203.0.113.10 assigned to guest 200 net0"), "{assigned}");
    node.run("pool set ovh-rbx --cool-down soon")
        .fails_with(2, &["`soon` is not a time such as 30m, 1h, 2days or 0 (off)"]);
}

/// What cools down and is held again is not free at any time: who is told to name an address is told one that he gets.
#[test]
fn the_hint_of_a_full_pool_names_an_address_that_can_be_had() {
    let node = Node::new();
    for vmid in 103..106 {
        node.tree.qemu(vmid, format!("net0: virtio=02:00:00:AA:BB:{vmid:02x},bridge=vmbr0\n"));
    }
    node.run(
        "pool create b --profile generic-bridged --bridge vmbr0 --gateway4 198.51.100.1 203.0.113.20 203.0.113.21",
    )
    .ok();
    for command in
        ["assign 103 203.0.113.20", "release 103", "assign 103 203.0.113.20", "assign 104 203.0.113.21", "release 104"]
    {
        node.run(&format!("{command} --no-hookscript")).ok();
    }
    let refused = node.changes_nothing("assign 105 --pool b");
    let error = "error: cannot assign to guest 105: pool `b` has no free IPv4 address before TIME: 203.0.113.21 was guest 104's until TIME\n";
    assert!(without_times(&refused.err).starts_with(error), "{refused}");
    let (_, rest) = refused.err.split_once("`pve-public-ip ").unwrap();
    node.run(rest.split('`').next().unwrap()).ok();
    let shown = node.run("pool show b").ok();
    assert!(shown.out.contains("| 103 net0 |") && shown.out.contains("| 105 net0 |"), "{shown}");
}
