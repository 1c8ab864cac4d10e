//! `explain`: what becomes of a frame on this node and why, worked out from registry and guests without the filter.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use serde_json::json;

use super::answers::{ExplainedFrames, JudgedFrame};
use super::output::Output;
use super::{Claim, Explain, advice};
use crate::code;
use crate::links::guest_of_port;
use crate::model::Subject;
use crate::model::{IfName, MacAddr};
use crate::oracle::{PortRole, Reason, Useless, Verdict};
use crate::plan::Inputs;
use crate::plan::explain::{Judge, Roles};
use crate::reconcile::Node;
use crate::selftest::frames::{
    ALL_NODES, ARP, Arp, BROADCAST, ICMP6, IP4, IP6, UDP, ether, group_mac, icmp6, ip4, ip6, lladdr_option, nd_body,
    udp, udp6,
};

/// A capture of more frames than this is not for reading.
const MOST_FRAMES: usize = 10_000;
const MOST_BYTES: u64 = 64 << 20;

pub(super) fn explain(node: &Node, command: &Explain) -> anyhow::Result<Output> {
    let inputs = node.inputs()?;
    let judge_of_node = Judge::of(&inputs);
    if let Some(answer) = unfiltered(&inputs, command.port) {
        let text = format!("from {}: {}\n{}\n", command.port, answer.role, answer.sentence);
        let data = ExplainedFrames {
            port: command.port,
            role: answer.role.to_string(),
            to: command.to,
            frames: Vec::new(),
            reason: Some(answer.sentence),
            not_forwarding: None,
        };
        return Ok(Output::new(text, json!(data)));
    }
    let waiting = judge_of_node.roles_when_started(command.port);
    let caveat =
        waiting.as_ref().map(|(vmid, _)| format!("guest {vmid} does not run; what is said holds as soon as it does\n"));
    let from = waiting.map_or_else(|| judge_of_node.roles(command.port), |(_, roles)| roles);
    let frames = frames(command, &from.with)?;
    let to = command.to.map(|port| (port, judge_of_node.roles(port)));
    let mut text = caveat.unwrap_or_default() + &format!("from {}\n", described(&inputs, command.port, &from.with));
    if let Some((port, roles)) = &to {
        text += &format!("to {}\n", described(&inputs, *port, &roles.with));
    }
    let held = [Some(command.port), command.to];
    let held: Vec<String> = held.into_iter().flatten().filter_map(|port| held_up(&inputs, port)).collect();
    text += &held.iter().map(|line| format!("{line}\n")).collect::<String>();
    let to = to.map(|(_, roles)| roles);
    let mut data = Vec::new();
    for (number, frame) in frames.iter().enumerate() {
        let judged = judge(frame, &from, to.as_ref(), &judge_of_node);
        let number = if frames.len() == 1 { String::new() } else { format!("{}: ", number + 1) };
        text += &format!("{number}{}\n  {}\n", decoded(frame), judged.text);
        data.push(JudgedFrame { frame: hex(frame), verdict: judged.verdict.to_string(), reason: judged.text });
    }
    let data = ExplainedFrames {
        port: command.port,
        role: role_name(&from.with).to_string(),
        to: command.to,
        frames: data,
        reason: None,
        not_forwarding: Some(held),
    };
    Ok(Output::new(text, json!(data)))
}

/// What the bridge itself does not let through, whatever the filter says.
fn held_up(inputs: &Inputs, port: IfName) -> Option<String> {
    let (bridge, state) = inputs.links.not_forwarding(port)?;
    let why = if state.is_held() { "the spanning tree has it so" } else { "the port is down" };
    Some(format!("{bridge} passes nothing from or to {port} now: its state is {}, because {why}", state.name()))
}

/// An interface whose frames no rule of the bridge sees.
struct Unfiltered {
    role: &'static str,
    sentence: String,
}

/// The rules are at the ports of bridges. What the node itself sends by a bridge, or takes in by an interface of its own,
/// passes none of them.
fn unfiltered(inputs: &Inputs, port: IfName) -> Option<Unfiltered> {
    let link = inputs.links.get(port)?;
    if link.bridge.is_some() {
        let sentence = format!("passes: what the node itself sends by {port} is not filtered");
        return Some(Unfiltered { role: "the node itself", sentence });
    }
    let is_port = link.master.is_some() || guest_of_port(port).is_some();
    let named = inputs.registry.node.as_ref().and_then(|node| node.uplinks.as_ref());
    let is_named = named.is_some_and(|named| named.contains(&port));
    (!is_port && !is_named).then(|| Unfiltered {
        role: "no port of a bridge",
        sentence: format!("passes: {port} is no port of a bridge, so its frames are not filtered there"),
    })
}

struct Judged {
    verdict: &'static str,
    text: String,
}

fn judge(frame: &[u8], from: &Roles, to: Option<&Roles>, judge: &Judge) -> Judged {
    let sent = judge.sent(frame, from);
    let (at, found) = match (sent.verdict, to) {
        (Verdict::Pass, Some(to)) => (" there", judge.delivered(frame, from, to)),
        _ => ("", sent),
    };
    match found.verdict {
        Verdict::Pass => {
            let watched = found.watched.map(|reason| (at, reason)).or(sent.watched.map(|reason| ("", reason)));
            let text = match watched {
                Some((at, reason)) => format!(
                    "passes, and is counted, because the pool is only watched. Enforced, it is dropped{at}: {}",
                    reason.sentence()
                ),
                None => "passes".to_owned(),
            };
            Judged { verdict: "pass", text }
        }
        Verdict::Drop(reason) => {
            let advice = what_works(reason, frame).map(|advice| format!(" {advice}")).unwrap_or_default();
            Judged { verdict: "drop", text: format!("is dropped{at}: {}{advice}", reason.sentence()) }
        }
        Verdict::Either(useless) => {
            Judged { verdict: "either", text: format!("may be dropped: {}", harmless(useless)) }
        }
    }
}

/// What a guest can do instead, where that is known.
fn what_works(reason: Reason, frame: &[u8]) -> Option<&'static str> {
    /// Source: RFC 9568, section 7.3.
    const VRRP: [[u8; 5]; 2] = [[0, 0, 0x5e, 0, 1], [0, 0, 0x5e, 0, 2]];
    let is_vrrp = || frame.get(6..11).is_some_and(|mac| VRRP.iter().any(|vrrp| mac == vrrp));
    match reason {
        Reason::SourceMac if is_vrrp() => Some(
            "It is a MAC of VRRP: keepalived works without `use_vmac`, and only for an address that this guest holds.",
        ),
        Reason::SourceMac => Some(
            "A macvlan, a bridge and a guest inside of the guest have MACs of their own; an ipvlan has the guest's.",
        ),
        Reason::ArpForeign | Reason::DiscoveryForeign => Some(
            "An address has one holder, unless it was assigned to several guests with `--shared GROUP`, as VRRP and CARP need it.",
        ),
        _ => None,
    }
}

fn harmless(useless: Useless) -> &'static str {
    match useless {
        Useless::Padding => "Within the length that the packet gives for itself there is no whole message.",
        Useless::CutEncapsulation => "Its second tag or its PPPoE header is cut off.",
        Useless::OddOptions => {
            "Its options do not add up or do not belong there: receivers discard it, or the options."
        }
        Useless::OddHidden => {
            "Behind its tags or its SNAP header is a packet in a form that nobody looks through there. It claims nothing."
        }
        Useless::FragmentedDiscovery => "It is neighbour discovery in fragments, which every receiver ignores.",
    }
}

fn role_name(role: &PortRole) -> &'static str {
    match role {
        PortRole::Bound(_) => "bound port",
        PortRole::Guest { router: false } => "port without bindings",
        PortRole::Guest { router: true } => "port without bindings, may be a router",
        PortRole::Elsewhere => "port where no pool is",
        PortRole::Uplink => "uplink",
        PortRole::Free => "port on the LAN of a guest that routes a prefix",
        PortRole::SecondTraversal => "inner side of the NIC firewall",
    }
}

/// `tap100i0 (guest 100): bound port, 02:00:00:aa:bb:cc with 203.0.113.10`.
fn described(inputs: &Inputs, port: IfName, role: &PortRole) -> String {
    let guest = guest_of_port(port).map_or_else(String::new, |vmid| format!(" (guest {vmid})"));
    let missing = if inputs.links.get(port).is_none() { ", not there now" } else { "" };
    let own = match role {
        PortRole::Bound(bound) => {
            // An address is written as an address.
            let shown = |net: &IpNet| {
                if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
            };
            let nets: Vec<String> = bound.own.iter().map(shown).collect();
            format!(", {} with {}", bound.mac, nets.join(" "))
        }
        _ => String::new(),
    };
    format!("{port}{guest}: {}{own}{missing}", role_name(role))
}

fn frames(command: &Explain, role: &PortRole) -> anyhow::Result<Vec<Vec<u8>>> {
    if let Some(text) = &command.hex {
        return Ok(vec![unhex(text).ok_or_else(|| {
            advice(
                code!("frame-not-understood"),
                Subject::Command,
                "--hex is not a frame in hexadecimal digits",
                "two digits a byte, from the destination MAC on; spaces and colons may stand between",
            )
        })?]);
    }
    if let Some(path) = &command.pcap {
        return capture(path).with_context(|| format!("cannot read the capture `{}`", path.display()));
    }
    let own = match role {
        PortRole::Bound(bound) => Some(bound.mac),
        _ => None,
    };
    let mac = command.mac.or(own).ok_or_else(|| {
        advice(
            code!("mac-not-named"),
            Subject::Interface(command.port),
            format!("the registry knows no MAC of {}: no guest holds addresses on it", command.port),
            "say which MAC it sends with: --mac MAC",
        )
    })?;
    // clap has seen to it that one of the three is there.
    let src = command.src.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Ok(vec![built(mac, src, command.dst, command.claim)])
}

/// A packet from `src`, or the message by which it is claimed.
fn built(mac: MacAddr, src: IpAddr, dst: Option<IpAddr>, claim: Claim) -> Vec<u8> {
    let mac = mac.octets();
    match (src, claim) {
        (IpAddr::V4(src), Claim::Neighbour) => Arp::request((mac, src), src).frame(BROADCAST, mac),
        (IpAddr::V4(src), Claim::Source) => {
            let to = match dst {
                Some(IpAddr::V4(to)) => to,
                _ => Ipv4Addr::BROADCAST,
            };
            ether(BROADCAST, mac, IP4, &ip4(src, to, UDP, 0, &udp(4000, 4001, b"data")))
        }
        (IpAddr::V6(src), Claim::Neighbour) => {
            let message = icmp6(src, ALL_NODES, 136, &nd_body(0x20, src, &lladdr_option(2, mac)));
            ether(group_mac(ALL_NODES), mac, IP6, &ip6(src, ALL_NODES, ICMP6, 255, &message))
        }
        (IpAddr::V6(src), Claim::Source) => {
            let to: Ipv6Addr = match dst {
                Some(IpAddr::V6(to)) => to,
                _ => ALL_NODES,
            };
            ether(BROADCAST, mac, IP6, &ip6(src, to, UDP, 64, &udp6(src, to, 4000, 4001)))
        }
    }
}

/// The frames of a classic capture file (`tcpdump -w`). Source: `pcap-savefile(5)`.
fn capture(path: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
    let word = |at: usize, little: bool| {
        let four = bytes.get(at..at + 4)?.first_chunk().copied()?;
        Some(if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) })
    };
    let little = match word(0, true) {
        Some(0xa1b2_c3d4 | 0xa1b2_3c4d) => true,
        Some(0xd4c3_b2a1 | 0x4d3c_b2a1) => false,
        Some(0x0a0d_0d0a) => bail!("it is of the newer pcapng format; `tcpdump -r FILE -w OTHER` converts it"),
        _ => bail!("it is no pcap file"),
    };
    // Ethernet is link type 1.
    match word(20, little).map(|kind| kind & 0xffff) {
        Some(1) => {}
        other => bail!("its frames are not Ethernet (link type {})", other.unwrap_or_default()),
    }
    let mut frames = Vec::new();
    let mut at = 24;
    while let Some(length) = word(at + 8, little) {
        let length = usize::try_from(length)?;
        let Some(frame) = bytes.get(at + 16..(at + 16).saturating_add(length)) else {
            bail!("frame {} is cut off", frames.len() + 1)
        };
        frames.push(frame.to_vec());
        if frames.len() > MOST_FRAMES {
            bail!(
                "it has more than {MOST_FRAMES} frames; `tcpdump -r FILE -c {MOST_FRAMES} -w OTHER` takes the first ones"
            );
        }
        at += 16 + length;
    }
    if frames.is_empty() {
        bail!("there is no frame in it");
    }
    Ok(frames)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
    let pairs = digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    if digits.len() % 2 == 0 && !digits.is_empty() { pairs.collect() } else { None }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// MACs and content in a line.
fn decoded(frame: &[u8]) -> String {
    let mac = |at: usize| {
        let octets = frame.get(at..at + 6).and_then(|octets| <[u8; 6]>::try_from(octets).ok());
        octets.map_or_else(|| "?".to_owned(), |octets| MacAddr::from_octets(octets).to_string())
    };
    let word = |at: usize| frame.get(at..at + 2).and_then(|two| <[u8; 2]>::try_from(two).ok()).map(u16::from_be_bytes);
    let kind = match word(12) {
        Some(ARP) => "ARP".to_owned(),
        Some(IP4) => "IPv4".to_owned(),
        Some(IP6) => "IPv6".to_owned(),
        Some(kind) => format!("{kind:#06x}"),
        None => "cut off".to_owned(),
    };
    format!("{kind} from {} to {}, {} bytes", mac(6), mac(0), frame.len())
}
