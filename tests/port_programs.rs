//! The programs at guests' ports: what a frame leaves to the node to do, and who else is at the port.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::net::Ipv4Addr;

use common::{Ends, Node, until};
use pve_public_ip::selftest::frames::{self, IP4, IP6, Mac};
use pve_public_ip::system::tun::{CardWork, Tap};

const GUEST: Mac = [2, 0, 0, 0xaa, 0xbb, 0];
const STRANGER: Mac = [2, 0, 0, 0, 0xbb, 0x30];
/// A station that nobody knows, so that the bridge passes its frames to every port.
const AWAY: Mac = [2, 0, 0, 0, 0, 0x99];
const OWN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const SOMEBODY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// Guest 100 runs with its address, guest 300 without one; both ports are tap devices.
struct Site {
    node: Node,
    guest: Tap,
    stranger: Tap,
}

impl Site {
    fn new() -> Self {
        let node = Node::with_pool();
        let place = node.tree.path("sys/fs/bpf");
        std::fs::create_dir_all(&place).unwrap();
        node.net.sh(&format!("mount -t bpf bpf {}", place.display()));
        node.run("assign 100 203.0.113.10 --no-hookscript").ok();
        let [guest, stranger] = ["tap100i0", "tap300i0"].map(|port| plug(&node, port));
        node.run("hook 100 post-start").ok();
        Self { node, guest, stranger }
    }

    /// Whether the stranger gets this frame of the guest's, by one that comes after it and that he gets in any case.
    fn received(&self, frame: &[u8], work: Option<CardWork>) -> Option<Vec<u8>> {
        self.guest.send(frame, work).unwrap();
        self.guest.send(&datagram(GUEST, b"the last one"), None).unwrap();
        let (mut buffer, mut found) = (vec![0; 70_000], None);
        until("the last frame", || {
            loop {
                match self.stranger.receive(&mut buffer).unwrap() {
                    Some(got) if got.ends_with(b"the last one") => return true,
                    // And not by what the node announces in the guest's name.
                    Some(got) if got[6..14] == [&GUEST[..], &[8, 0]].concat() => found = Some(got),
                    Some(_) => {}
                    None => return false,
                }
            }
        });
        found
    }

    fn dropped(&self, port: &str, reason: &str) -> u64 {
        let status = self.node.run("status --output-format json").json();
        let of = |entry: &&serde_json::Value| entry["port"] == port && entry["reason"] == reason;
        status["dropped"].as_array().unwrap().iter().find(of).map_or(0, |entry| entry["packets"].as_u64().unwrap())
    }

    fn notes(&self) -> Vec<String> {
        let verified = self.node.run("verify --output-format json").json();
        let of = |note: &serde_json::Value| note["code"].as_str().unwrap().to_owned();
        let notes = verified["notes"].as_array().unwrap().iter().map(of);
        notes.filter(|code| code.starts_with("port-")).collect()
    }
}

fn plug(node: &Node, port: &str) -> Tap {
    let tap = node.net.inside(|| Tap::new(port.parse().unwrap()).unwrap());
    node.net.sh(&format!("ip link set {port} master vmbr0 up"));
    until("the port forwards", || node.net.sh(&format!("bridge link show dev {port}")).contains("state forwarding"));
    tap
}

fn datagram(from: Mac, text: &[u8]) -> Vec<u8> {
    let packet = frames::ip4(OWN, SOMEBODY, frames::UDP, 0, &frames::udp(5000, 5001, text));
    frames::ether(AWAY, from, IP4, &packet)
}

/// The checksum of what follows byte 24 goes to where the source address begins. Linux itself refuses a beginning below 20.
const INTO_THE_SOURCE: CardWork = CardWork { segments: 0, headers: 0, segment: 0, start: 24, offset: 2 };
/// That of the datagram, where it belongs.
const HONEST: CardWork = CardWork { segments: 0, headers: 0, segment: 0, start: 34, offset: 6 };

#[test]
fn a_checksum_cannot_be_left_to_the_node_in_the_place_of_an_address() {
    let site = Site::new();
    // The hook sees to its own guest's ports.
    let verified = site.node.run("verify").ok();
    assert!(verified.out.contains("leave to the node: tap300i0\n"), "{verified}");
    site.node.run("apply").ok();
    assert_eq!(site.notes(), Vec::<String>::new());
    let frame = datagram(GUEST, b"hello");
    assert_eq!(site.received(&frame, None), Some(frame.clone()));
    let honest = site.received(&frame, Some(HONEST)).unwrap();
    assert_eq!((&honest[..40], &honest[42..]), (&frame[..40], &frame[42..]));
    assert_eq!(site.received(&frame, Some(INTO_THE_SOURCE)), None);
    assert_eq!(site.received(&frame, Some(INTO_THE_SOURCE)), None);
    assert_eq!(site.dropped("tap100i0", "drop_offload"), 2);
    let metrics = site.node.run("metrics").ok();
    assert!(metrics.out.contains("pve_public_ip_dropped_packets_total{reason=\"offload\"} 2\n"), "{metrics}");

    site.node.run("node set --port-program off").ok();
    let other = site.received(&frame, Some(INTO_THE_SOURCE)).unwrap();
    assert_ne!(other[26..30], frame[26..30], "what it is for: the rules had seen another source");
    assert_eq!(site.notes(), Vec::<String>::new());
    site.node.run("node set --port-program check").ok();
    assert_eq!(site.received(&frame, Some(INTO_THE_SOURCE)), None);
}

/// Proxmox VE limits the rate of what a guest sends in the ingress qdisc of its port. Both orders: ours first, theirs first.
#[test]
fn a_rate_limit_goes_with_it_and_stays() {
    let site = Site::new();
    let frame = datagram(GUEST, b"hello");
    let limited = || {
        let shown = site.node.net.sh("tc -s qdisc show dev tap100i0 ingress");
        let (_, rest) = shown.split_once(" bytes ").unwrap();
        rest.split(' ').next().unwrap().parse::<u32>().unwrap()
    };
    site.node.net.sh("tc qdisc add dev tap100i0 handle ffff: ingress");
    // It counts only what it has a classifier for. Of all that there are each kernel has this one, and what we have loaded is one
    // that has nothing against the frame.
    let known = format!("{}/*/other", site.node.tree.path("sys/fs/bpf/pve-public-ip").display());
    site.node.net.sh(&format!("tc filter add dev tap100i0 ingress bpf direct-action object-pinned $(echo {known})"));
    for _ in 0..2 {
        let before = limited();
        assert!(site.received(&frame, None).is_some());
        assert_eq!(limited(), before + 2, "what we let by is limited");
        assert_eq!(site.received(&frame, Some(INTO_THE_SOURCE)), None);
        assert_eq!(limited(), before + 3, "what is dropped is not");
        site.node.run("node set --port-program off").ok();
        assert_eq!(site.received(&frame, Some(INTO_THE_SOURCE)), None, "theirs is there still");
        assert_eq!(limited(), before + 5);
        site.node.run("node set --port-program check").ok();
    }
    site.node.net.sh("tc qdisc del dev tap100i0 ingress");
    assert!(site.received(&frame, None).is_some());
    assert_eq!(site.received(&frame, Some(INTO_THE_SOURCE)), None);
}

#[test]
fn a_flush_of_all_rules_leaves_it_in_place() {
    let site = Site::new();
    site.node.net.sh("nft flush ruleset");
    let frame = datagram(GUEST, b"hello");
    assert!(site.received(&frame, None).is_some());
    assert_eq!(site.received(&frame, Some(INTO_THE_SOURCE)), None);
}

#[test]
fn a_port_that_is_made_anew_gets_it_again() {
    let Site { node, guest, stranger } = Site::new();
    let site = Site { node, guest, stranger };
    assert_eq!(site.received(&datagram(GUEST, b"hello"), Some(INTO_THE_SOURCE)), None);
    let counts = |node: &Node| {
        let map = node.tree.path("sys/fs/bpf/pve-public-ip");
        let dump = node.net.sh(&format!("bpftool --json map dump pinned $(echo {}/*/drops)", map.display()));
        serde_json::from_str::<serde_json::Value>(&dump).unwrap().as_array().unwrap().len()
    };
    // That of the port, and that of all.
    assert_eq!(counts(&site.node), 2);
    let Site { node, guest, stranger } = site;
    let _guard = Ends(node.command(&["guard"]).spawn().unwrap());
    drop(guest);
    node.net.until_gone("tap100i0");
    let site = Site { guest: plug(&node, "tap100i0"), node, stranger };
    until("both ports have one", || site.notes().is_empty());
    until("the count of the port that is gone is forgotten", || counts(&site.node) == 1);
    assert_eq!(site.received(&datagram(GUEST, b"hello"), Some(INTO_THE_SOURCE)), None);
    assert_eq!(site.dropped("tap100i0", "drop_offload"), 1);
}

#[test]
fn without_a_place_for_it_that_is_said_and_all_else_holds() {
    let site = Site::new();
    site.node.run("uninstall --keep-running --yes").ok();
    let frame = datagram(GUEST, b"hello");
    assert!(site.received(&frame, Some(INTO_THE_SOURCE)).is_some());
    assert_eq!(site.notes(), ["port-programs-absent"]);
    site.node.run("apply").ok();
    assert_eq!(site.notes(), Vec::<String>::new());
}

/// A frame of a guest without addresses, with what it leaves to the node.
struct Row(&'static str, Vec<u8>, CardWork);

fn work(start: u16, offset: u16) -> CardWork {
    CardWork { start, offset, ..CardWork::default() }
}

fn four(protocol: u8, payload: &[u8]) -> Vec<u8> {
    frames::ether(AWAY, STRANGER, IP4, &frames::ip4(Ipv4Addr::new(192, 0, 2, 7), SOMEBODY, protocol, 0, payload))
}

fn six(next: u8, payload: &[u8]) -> Vec<u8> {
    let [from, to] = ["2001:db8:ffff::7", "2001:db8:ffff::8"].map(|text| text.parse().unwrap());
    frames::ether(AWAY, STRANGER, IP6, &frames::ip6(from, to, next, 64, payload))
}

/// With four bytes of options.
fn with_options() -> Vec<u8> {
    let mut frame = four(frames::UDP, &[&[1; 4][..], &datagram_inside()].concat());
    frame[14] = 0x46;
    frame[24..26].fill(0);
    let checksum = frames::checksum(&frame[14..38]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}

fn datagram_inside() -> Vec<u8> {
    frames::udp(5000, 5001, b"inside of whatever it is")
}

fn packet_inside() -> Vec<u8> {
    frames::ip4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), frames::UDP, 0, &datagram_inside())
}

fn segment() -> Vec<u8> {
    [&frames::tcp(5000, 5001)[..], &[7; 3000]].concat()
}

fn honest() -> Vec<Row> {
    let gre = [&[0, 0, 8, 0][..], &packet_inside()].concat();
    let inner = frames::ether(AWAY, STRANGER, IP4, &packet_inside());
    let vxlan = frames::udp(5000, 4789, &[&[8, 0, 0, 0, 0, 0, 1, 0][..], &inner].concat());
    let inner_six = six(frames::UDP, &datagram_inside())[14..].to_vec();
    let behind_options = [&frames::options_header(frames::UDP)[..], &datagram_inside()].concat();
    let cut = |kind, headers, start, offset| CardWork { segments: kind, headers, segment: 1000, start, offset };
    vec![
        Row("UDP", four(frames::UDP, &datagram_inside()), work(34, 6)),
        Row("TCP", four(6, &frames::tcp(5000, 5001)), work(34, 16)),
        Row("UDP-Lite", four(136, &datagram_inside()), work(34, 6)),
        Row("SCTP", four(132, &[0; 16]), work(34, 8)),
        Row("UDP behind IPv4 options", with_options(), work(38, 6)),
        Row("UDP in IPv6", six(frames::UDP, &datagram_inside()), work(54, 6)),
        Row("TCP in IPv6", six(6, &frames::tcp(5000, 5001)), work(54, 16)),
        Row("ICMPv6", six(frames::ICMP6, &[128, 0, 0, 0, 0, 1, 0, 1]), work(54, 2)),
        Row("UDP behind destination options", six(60, &behind_options), work(62, 6)),
        Row("UDP in GRE", four(47, &gre), work(58, 6)),
        Row("UDP in VXLAN", four(frames::UDP, &vxlan), work(84, 6)),
        Row("UDP in IPv4 in IPv4", four(4, &packet_inside()), work(54, 6)),
        Row("UDP in IPv6 in IPv4", four(41, &inner_six), work(74, 6)),
        Row("tagged", frames::tagged(0x8100, 30, &four(frames::UDP, &datagram_inside())), work(38, 6)),
        Row("TCP to be cut", four(6, &segment()), cut(1, 54, 34, 16)),
        Row("TCP in IPv6 to be cut", six(6, &segment()), cut(4, 74, 54, 16)),
    ]
}

fn dishonest() -> Vec<Row> {
    let arp = frames::Arp::request((STRANGER, Ipv4Addr::new(192, 0, 2, 7)), SOMEBODY).frame([0xff; 6], STRANGER);
    let options = [&frames::options_header(frames::UDP)[..], &datagram_inside()].concat();
    let solicitation = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &[0xfd; 16]].concat();
    let mut later = four(frames::UDP, &datagram_inside());
    later[20..22].copy_from_slice(&[0, 9]);
    let plain = || four(frames::UDP, &datagram_inside());
    vec![
        Row("into the source", plain(), work(24, 2)),
        Row("into the destination", plain(), work(24, 6)),
        Row("into the ports", plain(), work(34, 0)),
        Row("behind the datagram's checksum", plain(), work(34, 16)),
        Row("where TCP has no checksum", four(6, &frames::tcp(5000, 5001)), work(34, 6)),
        Row("into an ICMP message", four(frames::ICMP, &[8, 0, 0, 0, 0, 1, 0, 1]), work(34, 2)),
        Row("into IPv4 options", with_options(), work(34, 2)),
        Row("into an IPv6 source", six(frames::UDP, &datagram_inside()), work(40, 2)),
        Row("into destination options", six(60, &options), work(54, 6)),
        Row("into the target of a solicitation", six(frames::ICMP6, &solicitation), work(54, 8)),
        Row("into a later fragment", later, work(34, 6)),
        Row("into an ARP request", arp, work(20, 8)),
        Row("into the header of GRE", four(47, &[0; 40]), work(34, 2)),
        Row("into a tagged source", frames::tagged(0x8100, 30, &plain()), work(28, 2)),
        Row("of what nobody can read", frames::ether(AWAY, STRANGER, 0x8847, &[0; 60]), work(34, 6)),
        Row(
            "cut what cannot be cut",
            four(50, &segment()),
            CardWork { segments: 1, headers: 54, segment: 1000, start: 34, offset: 16 },
        ),
    ]
}

#[test]
fn the_node_writes_only_where_a_transport_header_has_its_checksum() {
    let site = Site::new();
    site.node.run("apply").ok();
    let listener = plug(&site.node, "tap301i0");
    let last = four(frames::UDP, &frames::udp(5000, 5001, b"the last one"));
    let arrives = |row: &Row| {
        // What Linux refuses by itself does not get to the port.
        let is_sent = site.stranger.send(&row.1, Some(row.2)).is_ok();
        site.stranger.send(&last, None).unwrap();
        let (mut buffer, mut found) = (vec![0; 70_000], false);
        until("the last frame", || {
            loop {
                match listener.receive(&mut buffer).unwrap() {
                    Some(got) if got.ends_with(b"the last one") => return true,
                    Some(got) => found |= got[6..12] == STRANGER,
                    None => return false,
                }
            }
        });
        (is_sent, found)
    };
    for row in &honest() {
        assert_eq!(arrives(row), (true, true), "{}", row.0);
    }
    let before = site.dropped("tap300i0", "drop_offload");
    assert_eq!(before, 0);
    let mut judged = 0;
    for row in &dishonest() {
        let (is_sent, found) = arrives(row);
        assert!(!found, "{}", row.0);
        judged += u64::from(is_sent);
    }
    assert_eq!(site.dropped("tap300i0", "drop_offload"), judged);
    assert!(judged > 12, "{judged}");
}

/// What is shipped is made of the source beside it. Other compilers make other code of it; that has to be made at all.
#[test]
fn the_object_is_that_of_the_source() {
    common::need(&["clang", "bpftool", "gcc"]);
    let project = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = common::Tree::new();
    let run = std::process::Command::new(project.join("scripts/port-program")).arg(made.root()).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let version = |program: &str| {
        let output = std::process::Command::new(program).arg("--version").env("PATH", common::SYSTEM_PATH).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let is_theirs = version("clang").contains("clang version 14.") && version("bpftool").starts_with("bpftool v7.1.");
    for name in ["port.data", "port.insns"] {
        let (kept, new) =
            (std::fs::read(project.join("bpf").join(name)).unwrap(), std::fs::read(made.path(name)).unwrap());
        assert!(kept == new || !is_theirs, "bpf/{name} is not that of bpf/port.c: `scripts/port-program` makes it");
    }
}

#[test]
fn the_command_shows_what_is_where() {
    let site = Site::new();
    site.node.run("apply").ok();
    let frame = datagram(GUEST, b"hello");
    assert_eq!(site.received(&frame, Some(INTO_THE_SOURCE)), None);
    let shown = site.node.run("port show").ok();
    assert!(shown.out.contains("| tap100i0 | 100   | bound   |"), "{shown}");
    assert!(shown.out.contains(" 1 (guest port: a checksum or segments, left to the node,"), "{shown}");
    assert!(shown.out.contains("| tap300i0 | 300   | other   |"), "{shown}");
    let one = site.node.run("port show tap100i0 --output-format json").json();
    assert_eq!(one["ports"].as_array().unwrap().len(), 1);
    assert_eq!((&one["ports"][0]["wanted"], &one["ports"][0]["program"]), (&"bound".into(), &"bound".into()));
    assert_eq!(one["ports"][0]["dropped"][0]["packets"], 1);

    // As after an upgrade: those of another release are at the ports, and their names in a directory of their own.
    let programs = site.node.tree.path("sys/fs/bpf/pve-public-ip");
    let rename = format!("cd {} && mv * 0123456789abcdef", programs.display());
    site.node.net.sh(&rename);
    let shown = site.node.run("port show").ok();
    assert!(shown.out.contains("MISSING") && shown.out.contains("they are not loaded"), "{shown}");
    // A hook sees to its own port alone; the others are recognised by the names still.
    site.node.run("hook 100 post-start").ok();
    let shown = site.node.run("port show").ok();
    assert!(shown.out.contains("| tap100i0 | 100   | bound ") && shown.out.contains("of another release"), "{shown}");
    site.node.run("apply").ok();
    let shown = site.node.run("port show").ok();
    assert!(shown.out.contains("bound") && !shown.out.contains("MISSING") && !shown.out.contains("another"), "{shown}");
    assert_eq!(site.received(&frame, Some(INTO_THE_SOURCE)), None);
    let left = site.node.net.sh(&format!("ls {}", programs.display()));
    assert!(!left.contains("0123456789abcdef") && left.lines().count() == 1, "{left}");

    let unknown = "no guest of this node has a port tap999i0";
    site.node.run("port show tap999i0").fails(1, unknown, "`pve-public-ip port show` lists all of them");
}
