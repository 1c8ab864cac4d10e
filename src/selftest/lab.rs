//! One topology in network namespaces of its own: builds it, loads the rules as `apply` does, sends frames and looks at
//! where they arrive.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::frames::{self, BROADCAST, Mac};
use super::topologies::{
    Arrival, BRIDGE, CARD_MAC, GATEWAY_MAC, NODE_MAC, OTHER_NETWORK, Play, Segment, Sender, TAG, Topology, UPLINK,
    WORLD,
};
use super::verdicts::{Case, Who};
use super::{Error, Got};
use crate::host::command;
use crate::model::{GuestKind, IfName, MacAddr};
use crate::plan::{Desired, carry_out, desired, diff};
use crate::ruleset::{Backend, RULES, Variant};
use crate::system::namespace::{Namespace, set_parameter};
use crate::system::packet::{Wire, in_time};
use crate::system::tun::{CardWork, Tap};
use crate::system::{Kernel, Reference, xtables};

/// Local experimental ethertype: traffic that no rule knows.
pub(super) const EXPERIMENTAL: u16 = 0x88b5;
/// Frames that are sent before one looks for them. Less than what the queue of a tap device takes.
pub(super) const BURST: usize = 64;
/// How long a frame may be on its way. Usually it takes microseconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a new port may take before it forwards.
const START_LIMIT: Duration = Duration::from_secs(3);
/// How long to look where no frame can tell the end of the burst.
const SETTLING: Duration = Duration::from_millis(50);

/// A topology that stands. It ends with this value, or with the process.
pub(super) struct Lab {
    topology: &'static Topology,
    ends: Vec<End>,
    /// Keep their namespaces alive.
    guests: Vec<Namespace>,
    fences: u32,
    buffer: Vec<u8>,
}

/// Somebody who sends and receives: a guest, the provider, or the node itself.
struct End {
    name: IfName,
    mac: Mac,
    line: Line,
    /// Its own address, if it may send nothing else.
    bound: Option<Ipv4Addr>,
    /// Its addresses, if it gets nothing for others'.
    strict: Option<Who>,
    /// Whether it is on the guests' bridge.
    on_bridge: bool,
    /// Whether the guard of the uplink lets it out.
    leaves: bool,
}

impl End {
    /// Whether a frame to everybody is for it, too: a packet for one address is only for whoever has it, and a guest whose
    /// gateway is known gets no router advertisement.
    fn is_addressee(&self, frame: &[u8]) -> bool {
        let Some(who) = self.strict else { return true };
        match frames::destination(frame) {
            _ if frames::is_advertisement(frame) => false,
            Some(IpAddr::V4(to)) => to.is_multicast() || to.octets()[3] == 255 || to == who.ip4,
            Some(IpAddr::V6(to)) => to.is_multicast() || to == who.ip6 || to == who.link_local(),
            None => true,
        }
    }
}

enum Line {
    Wire(Wire),
    Tap(Tap),
}

impl Line {
    fn send(&self, frame: &[u8], work: Option<CardWork>) -> io::Result<()> {
        match self {
            Self::Wire(wire) => wire.send(frame),
            Self::Tap(tap) => tap.send(frame, work),
        }
    }

    /// The next frame, if one comes in time.
    fn receive(&self, buffer: &mut [u8], limit: Duration) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Wire(wire) => in_time(wire.as_fd(), limit, || wire.receive(buffer)),
            Self::Tap(tap) => in_time(tap.as_fd(), limit, || tap.receive(buffer)),
        }
    }
}

fn name(text: &str) -> IfName {
    IfName::literal(text)
}

/// Runs `ip -batch` in the namespace of the calling thread.
pub(super) fn ip(script: &str) -> Result<(), Error> {
    Ok(command::run("ip", &["-batch", "-"], script.as_bytes()).map(drop)?)
}

impl Lab {
    /// Builds it. The calling thread is in the node's namespace from now on.
    pub(super) fn build(topology: &'static Topology) -> Result<Self, Error> {
        let node = Namespace::new()?;
        node.enter()?;
        set_br_netfilter(topology.br_netfilter)?;
        let mut lab = Self { topology, ends: Vec::new(), guests: Vec::new(), fences: 0, buffer: vec![0; 70_000] };
        lab.build_bridges()?;
        let mut ports = String::new();
        for (at, nic) in topology.nics.iter().enumerate() {
            let port = nic.port();
            let bridge = if nic.firewall { format!("fwbr{}i0", nic.vmid()) } else { BRIDGE.to_owned() };
            let line = match nic.kind {
                GuestKind::Qemu => {
                    // QEMU, too, makes the device; Proxmox VE plugs it in.
                    let tap = Tap::new(port).map_err(Error::Tap)?;
                    let host = host_mac(nic.mac());
                    ports += &format!("link set {port} address {host}\n");
                    Line::Tap(tap)
                }
                GuestKind::Lxc => Line::Wire(lab.plug(&node, port, nic.mac(), host_mac(nic.mac()))?),
            };
            ports += &format!("link set {port} master {bridge} up\n");
            let bound = nic.is_bound().then(|| nic.who().ip4);
            lab.ends.push(End {
                name: port,
                mac: nic.mac(),
                line,
                bound,
                strict: (nic.is_bound() && !nic.gets_any_destination()).then(|| nic.who()),
                on_bridge: true,
                leaves: topology.leaves(Sender::Nic(at)),
            });
        }
        let routed = topology.segment == Segment::Routed;
        let uplink = name(UPLINK);
        let wire = lab.plug(&node, uplink, GATEWAY_MAC, MacAddr::from_octets(CARD_MAC))?;
        let line = Line::Wire(wire);
        let end =
            End { name: uplink, mac: GATEWAY_MAC, line, bound: None, strict: None, on_bridge: !routed, leaves: true };
        lab.ends.push(end);
        ports += &format!("link set {UPLINK}{} up\n", if routed { String::new() } else { format!(" master {BRIDGE}") });
        ip(&ports)?;
        lab.finish_bridges()?;
        if topology.segment != Segment::VlanAware {
            let bridge = name(BRIDGE);
            let line = Line::Wire(Wire::open(bridge)?);
            let end =
                End { name: bridge, mac: NODE_MAC, line, bound: None, strict: None, on_bridge: true, leaves: true };
            lab.ends.push(end);
        }
        Ok(lab)
    }

    fn build_bridges(&self) -> Result<(), Error> {
        for (parameter, value) in [("accept_ra", "0"), ("accept_dad", "0")] {
            set_parameter(&format!("net/ipv6/conf/default/{parameter}"), value)?;
        }
        let aware = if self.topology.segment == Segment::VlanAware { " vlan_filtering 1" } else { "" };
        let mac = MacAddr::from_octets(NODE_MAC);
        // As Proxmox VE does, and without the snooping that keeps multicast from ports that did not ask for it.
        let options = "type bridge forward_delay 0 mcast_snooping 0";
        let mut script = format!("link set lo up\nlink add {BRIDGE} address {mac} {options}{aware}\n");
        if self.topology.pool_bridge() != BRIDGE {
            script += &format!("link add {} {options}\n", self.topology.pool_bridge());
        }
        script += &format!("addr add 203.0.113.250/24 dev {BRIDGE}\n");
        script += &format!("addr add 2001:db8:0:1::250/64 dev {BRIDGE} nodad\nlink set {BRIDGE} up\n");
        let (ip4, ip6) = OTHER_NETWORK;
        script +=
            &format!("link add vmbr8 {options}\naddr add {ip4}/24 dev vmbr8\naddr add {ip6}/64 dev vmbr8 nodad\n");
        ip(&script)?;
        // The node takes no address on the ports.
        set_parameter("net/ipv6/conf/default/disable_ipv6", "1")?;
        let mut script = String::new();
        for vmid in self.topology.nics.iter().filter(|nic| nic.firewall).map(|nic| nic.vmid()) {
            script += &format!("link add fwbr{vmid}i0 {options}\nlink set fwbr{vmid}i0 up\n");
            script += &format!("link add fwln{vmid}i0 type veth peer name fwpr{vmid}p0\n");
            script +=
                &format!("link set fwln{vmid}i0 master fwbr{vmid}i0 up\nlink set fwpr{vmid}p0 master {BRIDGE} up\n");
        }
        if script.is_empty() { Ok(()) } else { ip(&script) }
    }

    /// What can only be said of ports that are there.
    fn finish_bridges(&self) -> Result<(), Error> {
        match self.topology.segment {
            Segment::Pool | Segment::NoPool | Segment::Elsewhere => Ok(()),
            Segment::VlanAware => {
                let mut script = format!("vlan add dev {UPLINK} vid 2-4094\n");
                for nic in self.topology.nics {
                    let port = nic.port();
                    script += &format!("vlan del dev {port} vid 1\nvlan add dev {port} vid {TAG} pvid untagged\n");
                }
                Ok(command::run("bridge", &["-batch", "-"], script.as_bytes()).map(drop)?)
            }
            Segment::Routed => {
                set_parameter("net/ipv4/ip_forward", "1")?;
                set_parameter("net/ipv6/conf/all/forwarding", "1")?;
                set_parameter(&format!("net/ipv6/conf/{UPLINK}/disable_ipv6"), "0")?;
                let gateway = MacAddr::from_octets(GATEWAY_MAC);
                let mut script = format!("addr add 192.0.2.7/24 dev {UPLINK}\n");
                script += &format!("addr add 2001:db8:ffff::7/64 dev {UPLINK} nodad\n");
                for address in [WORLD.ip4.to_string(), WORLD.ip6.to_string()] {
                    script += &format!("neigh add {address} lladdr {gateway} dev {UPLINK} nud permanent\n");
                }
                ip(&script)
            }
        }
    }

    fn plug(&mut self, node: &Namespace, port: IfName, mac: Mac, host: MacAddr) -> Result<Wire, Error> {
        let (guest, wire) = plug(node, port, mac, host, "1500")?;
        self.guests.push(guest);
        Ok(wire)
    }

    /// Brings the node to its desired state, exactly as `apply` does; then puts `rules` in the place of the program's own,
    /// if they are others.
    pub(super) fn load(
        &mut self,
        home: &Namespace,
        reference: Reference,
        rules: &str,
        variant: Option<Variant>,
    ) -> Result<(), Error> {
        if Namespace::current()?.is(home)? {
            return Err(Error::Home);
        }
        let mut kernel = Kernel::open(reference)?;
        let mut inputs = self.topology.inputs(kernel.links()?)?;
        inputs.backend = variant.map_or(Backend::Nftables, xtables::backend);
        kernel.look_into(variant.into_iter().collect());
        let Desired { state, problems } = desired(&inputs);
        if let Some(problem) = problems.into_iter().next() {
            return Err(Error::Inputs(problem.sentence));
        }
        let steps = diff(&state, &kernel.observe(&inputs.links, &state)?.0);
        carry_out(steps, &inputs.registry, |step| kernel.apply_step(step)).into_result()?;
        let links = kernel.links()?;
        if let Some(step) = diff(&state, &kernel.observe(&links, &state)?.0).first() {
            return Err(Error::Inputs(format!("the kernel does not keep what it is told: {step}")));
        }
        if rules != RULES {
            command::run("nft", &["-f", "-"], rules.as_bytes())?;
        }
        Ok(())
    }

    /// Waits until every port forwards, and fills the forwarding table.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        for sender in 0..self.ends.len() {
            if !self.ends[sender].on_bridge || self.ends[sender].name.as_str() == BRIDGE {
                continue;
            }
            let started = Instant::now();
            while !self.fence_passes(sender, Duration::from_millis(5))? {
                if started.elapsed() > START_LIMIT {
                    return Err(Error::Deaf(self.ends[sender].name));
                }
            }
        }
        Ok(())
    }

    /// An honest frame of each port brings its MAC back to it.
    fn teach(&mut self, sender: usize) -> Result<(), Error> {
        for at in self.listeners(sender) {
            if self.ends[at].name.as_str() != BRIDGE {
                self.send_fence(at)?;
            }
        }
        Ok(())
    }

    fn fence_passes(&mut self, sender: usize, limit: Duration) -> Result<bool, Error> {
        let fence = self.send_fence(sender)?;
        for at in self.listeners(sender) {
            let started = Instant::now();
            loop {
                match self.ends[at].line.receive(&mut self.buffer, limit)? {
                    Some(frame) if frame == fence => break,
                    _ if started.elapsed() > limit => return Ok(false),
                    _ => {}
                }
            }
        }
        Ok(true)
    }

    /// Sends a frame that must pass, and returns how it is seen. Frames keep their order, so its arrival tells that no
    /// earlier one is still to come.
    fn send_fence(&mut self, sender: usize) -> Result<Vec<u8>, Error> {
        self.fences += 1;
        let data = [b"fence ", &self.fences.to_be_bytes()[..]].concat();
        let End { name, mac, line, bound, .. } = &self.ends[sender];
        let frame = match bound {
            Some(own) => {
                let packet = frames::ip4(*own, Ipv4Addr::BROADCAST, frames::UDP, 0, &frames::udp(9, 9, &data));
                frames::ether(BROADCAST, *mac, frames::IP4, &packet)
            }
            None => frames::ether(BROADCAST, *mac, EXPERIMENTAL, &data),
        };
        // The guests' ports take the tag off.
        let trunk = self.topology.segment == Segment::VlanAware && name.as_str() == UPLINK;
        if trunk {
            line.send(&frames::tagged(frames::VLAN, TAG, &frame), None)?;
        } else {
            line.send(&frame, None)?;
        }
        Ok(frame)
    }

    /// Who hears what this one sends to everybody.
    fn listeners(&self, sender: usize) -> Vec<usize> {
        let hears = |at: &usize| self.ends[sender].leaves || self.ends[*at].name.as_str() != UPLINK;
        let others = (0..self.ends.len()).filter(|at| *at != sender && self.ends[*at].on_bridge).filter(hears);
        if self.ends[sender].on_bridge { others.collect() } else { Vec::new() }
    }

    /// Plays the cases and says of each what became of it.
    pub(super) fn play(&mut self, play: &Play, cases: &[&Case]) -> Result<Vec<Got>, Error> {
        let sender = match play.from {
            Sender::Nic(at) => at,
            Sender::Uplink => self.topology.nics.len(),
        };
        let arrival = self.topology.arrival(play);
        let mut got = vec![None; cases.len()];
        // A frame with somebody else's MAC, if it gets through, moves that MAC to the sender, and what is sent to it then
        // goes nowhere: a leak would hide leaks. So these come last and one by one.
        let own = self.ends[sender].mac;
        let (honest, posing): (Vec<usize>, Vec<usize>) =
            (0..cases.len()).partition(|at| cases[*at].frame.get(6..12) == Some(&own[..]));
        for (mut rest, limit) in [(honest, BURST), (posing, 1)] {
            while !rest.is_empty() {
                let burst;
                (burst, rest) = distinct(cases, &rest, limit);
                for (case, seen) in self.play_burst(sender, cases, &burst)? {
                    got[case] = Some(self.judge(sender, cases[case], &seen, arrival));
                }
            }
        }
        Ok(got.into_iter().flatten().collect())
    }

    /// Sends some frames that can be told apart; returns by which receivers each was seen.
    fn play_burst(
        &mut self,
        sender: usize,
        cases: &[&Case],
        burst: &[usize],
    ) -> Result<Vec<(usize, Vec<usize>)>, Error> {
        self.teach(sender)?;
        for end in &self.ends {
            while end.line.receive(&mut self.buffer, Duration::ZERO)?.is_some() {}
        }
        let mut known = HashMap::new();
        let mut marks = Vec::new();
        for at in burst {
            let case = cases[*at];
            match &case.mark {
                Some(mark) => marks.push((mark, *at)),
                None => known.extend(forms(&case.frame).into_iter().map(|form| (form, *at))),
            }
            let work = case.offload.map(|offload| CardWork {
                segments: offload.segments,
                headers: offload.headers,
                segment: offload.segment,
                start: offload.start,
                offset: offload.offset,
            });
            self.ends[sender].line.send(&case.frame, work)?;
        }
        let listeners = self.listeners(sender);
        let fence = self.send_fence(sender)?;

        let mut seen: HashMap<usize, Vec<usize>> = burst.iter().map(|at| (*at, Vec::new())).collect();
        let mut note = |receiver: usize, frame: &[u8]| {
            let marked =
                || marks.iter().find(|(mark, _)| frame.windows(mark.len()).take(200).any(|part| part == *mark));
            let case = known.get(frame).copied().or_else(|| marked().map(|(_, at)| *at));
            if let Some(seen) = case.and_then(|case| seen.get_mut(&case)) {
                if !seen.contains(&receiver) {
                    seen.push(receiver);
                }
            }
        };
        for at in (0..self.ends.len()).filter(|at| *at != sender) {
            let hears = listeners.contains(&at);
            let limit = if hears { PATIENCE } else { SETTLING };
            let started = Instant::now();
            loop {
                let frame = self.ends[at].line.receive(&mut self.buffer, limit.saturating_sub(started.elapsed()))?;
                match frame {
                    Some(frame) if frame == fence => break,
                    Some(frame) => note(at, &frame),
                    None if !hears => break,
                    None => {}
                }
                if hears && started.elapsed() >= limit {
                    return Err(Error::Lost(self.ends[sender].name, self.ends[at].name));
                }
            }
        }
        Ok(seen.into_iter().collect())
    }

    fn judge(&self, sender: usize, case: &Case, seen: &[usize], arrival: Arrival) -> Got {
        let names = |ends: &[usize]| ends.iter().map(|at| self.ends[*at].name).collect();
        let others = || (0..self.ends.len()).filter(|at| *at != sender);
        let wanted: Vec<usize> = match arrival {
            Arrival::At(name) => others().filter(|at| self.ends[*at].name == name).collect(),
            Arrival::Addressed | Arrival::NotAt(_) if case.frame[0] & 1 == 1 => {
                let listeners = self.listeners(sender).into_iter();
                listeners.filter(|at| self.ends[*at].is_addressee(&case.frame)).collect()
            }
            Arrival::Addressed | Arrival::NotAt(_) => {
                others().filter(|at| case.frame.starts_with(&self.ends[*at].mac)).collect()
            }
        };
        let is_forbidden = |at: &usize| arrival == Arrival::NotAt(self.ends[*at].name);
        let missing: Vec<usize> = wanted.into_iter().filter(|at| !seen.contains(at) && !is_forbidden(at)).collect();
        let forbidden: Vec<usize> = seen.iter().copied().filter(is_forbidden).collect();
        Got {
            seen: names(seen),
            missing: if seen.is_empty() { Vec::new() } else { names(&missing) },
            forbidden: names(&forbidden),
        }
    }
}

/// A veth pair with the far end in a namespace of its own, silent until it is told to send.
pub(super) fn plug(
    node: &Namespace,
    port: IfName,
    mac: Mac,
    host: MacAddr,
    mtu: &str,
) -> Result<(Namespace, Wire), Error> {
    let guest = Namespace::new()?;
    guest.enter()?;
    let plugged = (|| -> Result<Wire, Error> {
        set_parameter("net/ipv6/conf/default/disable_ipv6", "1")?;
        let mac = MacAddr::from_octets(mac);
        let peer = format!("peer name {port} address {host} mtu {mtu} netns {}", node.path());
        ip(&format!("link add eth0 address {mac} mtu {mtu} type veth {peer}\nlink set eth0 up\n"))?;
        Ok(Wire::open(name("eth0"))?)
    })();
    node.enter()?;
    Ok((guest, plugged?))
}

/// Proxmox VE gives its side of a guest's link the highest MAC there can be, so that the bridge does not take it.
fn host_mac(mac: Mac) -> MacAddr {
    MacAddr::from_octets([0xfe, mac[1], mac[2], mac[3], mac[4], mac[5]])
}

/// In this namespace only. Where the module is not loaded, loading it would change how the machine treats its own
/// bridged frames, so that is left to the administrator.
/// Whether bridged frames are shown to iptables in this network namespace.
pub(super) fn set_br_netfilter(on: bool) -> Result<(), Error> {
    for table in ["iptables", "ip6tables", "arptables"] {
        let there = set_parameter(&format!("net/bridge/bridge-nf-call-{table}"), if on { "1" } else { "0" })?;
        if on && !there {
            return Err(Error::NoBrNetfilter);
        }
    }
    Ok(())
}

/// What a receiver may show of a frame: the kernel takes an outermost tag off.
pub(super) fn forms(frame: &[u8]) -> Vec<Vec<u8>> {
    let is_tagged = matches!(frame.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8])) && frame.len() >= 16;
    let untagged = || [&frame[..12], &frame[16..]].concat();
    std::iter::once(frame.to_vec()).chain(is_tagged.then(untagged)).collect()
}

/// Splits off a burst of frames none of which can be taken for another one.
pub(super) fn distinct(cases: &[&Case], of: &[usize], limit: usize) -> (Vec<usize>, Vec<usize>) {
    let mut known = HashSet::new();
    let mut burst = Vec::new();
    let mut rest = Vec::new();
    for at in of {
        let forms = forms(&cases[*at].frame);
        if burst.len() < limit && forms.iter().all(|form| !known.contains(form)) {
            known.extend(forms);
            burst.push(*at);
        } else {
            rest.push(*at);
        }
    }
    (burst, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(frame: Vec<u8>) -> Case {
        Case { group: "test", class: "test".to_owned(), frame, passes: true, offload: None, mark: None }
    }

    #[test]
    fn frames_that_look_alike_are_not_sent_together() {
        let plain = frames::ether(BROADCAST, NODE_MAC, frames::IP4, b"packet");
        let once = frames::tagged(frames::VLAN, 0, &plain);
        let twice = frames::tagged(frames::VLAN, 0, &once);
        assert_eq!(forms(&once), [once.clone(), plain.clone()]);
        assert_eq!(forms(&plain), std::slice::from_ref(&plain));
        let cases = [case(plain.clone()), case(once), case(twice), case(plain)];
        let cases: Vec<&Case> = cases.iter().collect();
        // Where the tag is taken off, the first and the second look the same, and so do the second and the third.
        assert_eq!(distinct(&cases, &[0, 1, 2, 3], BURST), (vec![0, 2], vec![1, 3]));
        assert_eq!(distinct(&cases, &[1, 3], BURST), (vec![1], vec![3]));
    }

    #[test]
    fn a_burst_is_no_longer_than_the_queue() {
        let cases: Vec<Case> = (0..100).map(|number| case(vec![number; 20])).collect();
        let cases: Vec<&Case> = cases.iter().collect();
        let (burst, rest) = distinct(&cases, &(0..100).collect::<Vec<_>>(), BURST);
        assert_eq!((burst.len(), rest.len()), (BURST, 100 - BURST));
    }
}
