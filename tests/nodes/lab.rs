//! Two nodes of a cluster behind one provider's switch, and what is plugged into them. The test is QEMU: it holds the
//! tap devices, and they end with its descriptors as with QEMU's.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pve_public_ip::announce;
use pve_public_ip::model::{GuestKind, MacAddr, NicId, Vmid};
use pve_public_ip::selftest::frames::{self, BROADCAST, Mac};
use pve_public_ip::selftest::verdicts::{self, Scene, Who};
use pve_public_ip::system::packet::Wire;
use pve_public_ip::system::tun::Tap;

use crate::common::{Namespace, Node, Tree, need};

/// How long to wait for what must come. What a killed hook leaves without a sign is found when the guard looks without one,
/// each minute; and on a busy machine everything is late.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// The nodes' names.
pub(crate) const NODES: [&str; 2] = ["n1", "n2"];
/// The provider's gateway: its switch itself.
const GATEWAY: Mac = [2, 0, 0, 0, 0xff, 1];
/// Local experimental ethertype: traffic that no rule knows.
const EXPERIMENTAL: u16 = 0x88b5;

/// What the program's rules look like in this kernel: to find out takes most of the time of the first command after a
/// boot, and the nodes of all tests have the same kernel.
static RULES: OnceLock<String> = OnceLock::new();

/// A guest's NIC that holds addresses: one of each family.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nic {
    pub(crate) kind: GuestKind,
    pub(crate) vmid: u32,
    index: u8,
    pub(crate) who: Who,
}

impl Nic {
    const fn new(kind: GuestKind, vmid: u32, index: u8, last: u8) -> Self {
        let mac = [2, 0, 0, 0, index, last];
        let ip6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last as u16);
        Self { kind, vmid, index, who: Who { mac, ip4: Ipv4Addr::new(203, 0, 113, last), ip6 } }
    }

    fn ids(&self) -> (Vmid, NicId) {
        (self.vmid.to_string().parse().unwrap(), self.index.to_string().parse().unwrap())
    }

    /// What its port is called.
    pub(crate) fn port(&self) -> String {
        let (vmid, nic) = self.ids();
        self.kind.port(vmid, nic).to_string()
    }

    /// The node's side of its link behind the NIC firewall.
    pub(crate) fn firewall_port(&self) -> String {
        let (vmid, nic) = self.ids();
        GuestKind::firewall_port(vmid, nic).to_string()
    }

    fn config(&self) -> String {
        let (index, mac) = (self.index, MacAddr::from_octets(self.who.mac));
        match self.kind {
            GuestKind::Qemu => format!("net{index}: virtio={mac},bridge=vmbr0\n"),
            GuestKind::Lxc => format!("net{index}: name=eth{index},bridge=vmbr0,hwaddr={mac},type=veth\n"),
        }
    }

    fn addresses(&self) -> [IpAddr; 2] {
        [self.who.ip4.into(), self.who.ip6.into()]
    }
}

/// Every NIC with addresses. Guest 102 is a restored copy of 100 in some rows; it holds nothing.
pub(crate) const NICS: [Nic; 4] = [
    Nic::new(GuestKind::Qemu, 100, 0, 10),
    Nic::new(GuestKind::Qemu, 110, 0, 11),
    Nic::new(GuestKind::Qemu, 110, 1, 12),
    Nic::new(GuestKind::Lxc, 200, 0, 13),
];

/// The NIC of a guest that comes and goes: numbers from 1000 are virtual machines, from 2000 containers.
pub(crate) fn passing(vmid: u32) -> Nic {
    let kind = if vmid < 2000 { GuestKind::Qemu } else { GuestKind::Lxc };
    let [.., high, low] = vmid.to_be_bytes();
    let mut nic = Nic::new(kind, vmid, 0, 64 + low % 64);
    nic.who.mac = [2, 0, 0, 1, high, low];
    nic
}

/// The NIC with this port.
pub(crate) fn nic(port: &str) -> Nic {
    let number = port.trim_start_matches(char::is_alphabetic).split('i').next().and_then(|number| number.parse().ok());
    let vmid: u32 = number.unwrap_or_else(|| panic!("{port} is no guest's port"));
    let known = NICS.into_iter().find(|nic| nic.port() == port);
    known.or_else(|| (vmid >= 1000).then(|| passing(vmid))).unwrap_or_else(|| panic!("no guest has a port {port}"))
}

/// A guest's configuration as it is at first.
pub(crate) fn config(vmid: u32) -> String {
    if vmid >= 1000 {
        return passing(vmid).config();
    }
    let nics = NICS.iter().filter(|nic| nic.vmid == vmid);
    format!("hookscript: local:snippets/pve-public-ip\n{}", nics.map(Nic::config).collect::<String>())
}

enum Line {
    Wire(Wire),
    Tap(Tap),
}

/// Somebody who sends and receives.
struct End {
    line: Line,
    mac: Mac,
    heard: Vec<Vec<u8>>,
}

impl End {
    fn new(line: Line, mac: Mac) -> Self {
        Self { line, mac, heard: Vec::new() }
    }

    fn send(&self, frame: &[u8]) {
        match &self.line {
            Line::Wire(wire) => wire.send(frame).expect("send a frame"),
            Line::Tap(tap) => tap.send(frame, None).expect("send a frame through a tap device"),
        }
    }

    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(frame) = match &self.line {
            Line::Wire(wire) => wire.receive(&mut buffer),
            Line::Tap(tap) => tap.receive(&mut buffer),
        }
        .expect("receive a frame")
        {
            self.heard.push(frame);
        }
    }
}

/// A guest's port that is there.
struct Port {
    end: End,
    behind_firewall: bool,
    is_linked: bool,
}

/// A node with what is plugged into it.
pub(crate) struct Host {
    pub(crate) node: Node,
    pub(crate) is_alive: bool,
    pub(crate) guard: Option<Guard>,
    index: usize,
    ports: BTreeMap<String, Port>,
    /// The node itself on its bridge, and an unmanaged guest.
    own: Option<End>,
    stranger: Option<End>,
}

/// The service on a node; it is killed with this value.
pub(crate) struct Guard {
    child: Child,
}

impl Guard {
    /// Starts it and waits until it says that it is ready. What it says goes to `guard.log`.
    pub(crate) fn start(node: &Node) -> Self {
        match Self::try_start(node, node.command(&["guard"])) {
            Ok(guard) => guard,
            Err(status) => panic!("the guard ended with {status}\n{}", node.tree.read("guard.log")),
        }
    }

    /// Starts it by this command; how it ended, if it did so before it was ready.
    pub(crate) fn try_start(node: &Node, mut command: Command) -> Result<Self, ExitStatus> {
        let path = node.tree.path("notify");
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("a socket for the service's messages");
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let log = OpenOptions::new().create(true).append(true).open(node.tree.path("guard.log")).unwrap();
        let child = command.env("NOTIFY_SOCKET", &path).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut guard = Self { child };
        let mut buffer = [0; 512];
        let started = Instant::now();
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) if buffer[..length].starts_with(b"READY=1") => return Ok(guard),
                _ => {}
            }
            if let Some(status) = guard.child.try_wait().unwrap() {
                return Err(status);
            }
            assert!(started.elapsed() < PATIENCE, "the guard is not ready\n{}", node.tree.read("guard.log"));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).expect("the guard runs");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it by a signal and returns its exit status; none if it was killed.
    pub(crate) fn end(mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        self.child.wait().unwrap().code()
    }

    /// Waits for the end of one that somebody else has killed.
    pub(crate) fn ended(mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How far a NIC is on a node, by what the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The node is off.
    Dead,
    /// There is no filter: nothing is protected.
    Bare,
    /// Assigned, and not on this node: address and MAC are reserved.
    Free,
    /// Not assigned: only the address is reserved.
    Nobodys,
    /// Its port is filtered; on this node nothing else is changed.
    Incoming,
    /// Bound: what comes from elsewhere with its MAC or address is dropped.
    Starting,
    /// And the node has neighbours for it, but its MAC is not pinned to its port, or there is no port.
    Unpinned,
    /// Everything.
    Running,
    /// Bound, but something is half done.
    Odd,
}

impl Stage {
    /// As the tables spell it.
    pub(crate) fn parse(word: &str) -> Self {
        match word {
            "dead" => Self::Dead,
            "bare" => Self::Bare,
            "-" => Self::Free,
            "nobody" => Self::Nobodys,
            "incoming" => Self::Incoming,
            "starting" => Self::Starting,
            "unpinned" => Self::Unpinned,
            "running" => Self::Running,
            "odd" => Self::Odd,
            _ => panic!("`{word}` is not a stage"),
        }
    }

    fn filters_port(self) -> bool {
        !matches!(self, Self::Dead | Self::Bare | Self::Free | Self::Nobodys)
    }

    /// Whether the node believes nobody else that it is the guest.
    fn is_bound(self) -> bool {
        matches!(self, Self::Starting | Self::Unpinned | Self::Running | Self::Odd)
    }
}

/// Two nodes, the switch between them, and time to leave.
pub(crate) struct Lab {
    world: Namespace,
    gateway: End,
    pub(crate) hosts: [Host; 2],
    numbers: u32,
}

impl Lab {
    /// Both nodes up, an unmanaged guest on each, and every NIC of [`NICS`] with its addresses on `n1`; nobody runs.
    pub(crate) fn new() -> Self {
        need(&["nft", "ip", "bridge", "unshare", "nsenter"]);
        // On one CPU frames keep their order, so the arrival of a later one tells that an earlier one was dropped.
        let mut one = CpuSet::new();
        one.set(sched_getcpu().expect("the number of this CPU")).expect("a CPU number");
        sched_setaffinity(Pid::from_raw(0), &one).expect("stay on one CPU");

        let world = Namespace::new();
        world.sh(&format!(
            "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6\n\
             ip link add switch address {} type bridge forward_delay 0 mcast_snooping 0\nip link set switch up",
            MacAddr::from_octets(GATEWAY)
        ));
        let wire = world.inside(|| Wire::open("switch".parse().unwrap())).expect("listen at the provider");
        let gateway = End::new(Line::Wire(wire), GATEWAY);
        let first = Tree::new();
        let trees = [first.beside(NODES[1]), first];
        let [second, first] = trees.map(|tree| Node { tree, net: Namespace::new() });
        let mut index = 0;
        let hosts = [first, second].map(|node| {
            index += 1;
            Host { node, is_alive: false, guard: None, index, ports: BTreeMap::new(), own: None, stranger: None }
        });
        let mut lab = Self { world, gateway, hosts, numbers: 0 };
        for host in 0..2 {
            lab.boot(host);
        }
        lab.reset_configs();
        let pool = "pool create public --profile generic-bridged --bridge vmbr0 \
            --gateway4 203.0.113.1 --gateway6 2001:db8:0:1::1 203.0.113.8/29 203.0.113.64/26 2001:db8:0:1::/124 2001:db8:0:1::40/122";
        lab.hosts[0].node.run(pool).ok();
        let _ = RULES.set(lab.hosts[0].node.tree.read("run/pve-public-ip/rules"));
        for nic in NICS {
            let Who { ip4, ip6, .. } = nic.who;
            let line = format!("assign {} {ip4} {ip6} --net {} --no-hookscript", nic.vmid, nic.index);
            lab.hosts[0].node.run(&line).ok();
        }
        // The registry changed under the second node; its table is not there yet.
        for host in &lab.hosts {
            host.node.run("apply").ok();
        }
        lab
    }

    /// Every guest is where it was at first, and no other is there.
    pub(crate) fn reset_configs(&self) {
        for host in &self.hosts {
            for kind in ["qemu-server", "lxc"] {
                let directory = host.node.tree.path(&format!("etc/pve/nodes/{}/{kind}", host.node.tree.name));
                for entry in fs::read_dir(directory).unwrap() {
                    fs::remove_file(entry.unwrap().path()).unwrap();
                }
            }
        }
        for nic in NICS {
            match nic.kind {
                GuestKind::Qemu => self.hosts[0].node.tree.qemu(nic.vmid, config(nic.vmid)),
                GuestKind::Lxc => self.hosts[0].node.tree.lxc(nic.vmid, config(nic.vmid)),
            }
        }
    }

    // ---- nodes ----------------------------------------------------------------------------------------------

    /// A node comes up: bridge, uplink and the unmanaged guest; nothing of what it knew before.
    pub(crate) fn boot(&mut self, at: usize) {
        self.numbers += 1;
        let (number, world) = (self.numbers, self.world.path());
        let host = &mut self.hosts[at];
        assert!(!host.is_alive, "{} is up already", host.node.tree.name);
        let _ = fs::remove_dir_all(host.node.tree.path("run"));
        if let Some(rules) = RULES.get() {
            host.node.tree.write("run/pve-public-ip/rules", rules);
            let directory = host.node.tree.path("run/pve-public-ip");
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let index = host.index;
        host.node.net.sh(&format!(
            "ip link add vmbr0 address 02:00:00:00:fe:0{index} type bridge forward_delay 0 mcast_snooping 0
            ip link set vmbr0 up
            ip addr add 203.0.113.25{index}/24 dev vmbr0
            ip addr add 2001:db8:0:1::25{index}/64 dev vmbr0 nodad
            echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
            for name in iptables ip6tables arptables; do
                [ ! -e /proc/sys/net/bridge/bridge-nf-call-$name ] || echo 0 > /proc/sys/net/bridge/bridge-nf-call-$name
            done
            ip link add eno1 address 02:00:00:00:e0:0{index} type veth peer name sw{number} netns {world}
            ip link set eno1 master vmbr0 up"
        ));
        self.world.sh(&format!("ip link set sw{number} master switch up"));
        let own = host.node.net.inside(|| Wire::open("vmbr0".parse().unwrap())).expect("listen on a bridge");
        host.own = Some(End::new(Line::Wire(own), [2, 0, 0, 0, 0xfe, u8::try_from(index).unwrap()]));
        host.is_alive = true;
        forwards(&host.node.net, "eno1");
        forwards(&self.world, &format!("sw{number}"));
        let name = format!("tap90{index}i0");
        let tap = tap(&host.node.net, &name, "vmbr0");
        host.stranger = Some(End::new(Line::Tap(tap), [2, 0, 0, 0, 0xee, u8::try_from(index).unwrap()]));
        self.settle();
    }

    /// Hears what reaches the provider.
    pub(crate) fn listen_at_provider(&self) -> Wire {
        self.world.inside(|| Wire::open("switch".parse().unwrap())).expect("listen at the provider")
    }

    /// Power off: the kernel's state goes, files under `/etc/pve` stay.
    pub(crate) fn kill(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.ports.clear();
        host.guard = None;
        (host.own, host.stranger, host.is_alive) = (None, None, false);
        host.node.net = Namespace::new();
    }

    // ---- ports ----------------------------------------------------------------------------------------------

    /// QEMU or LXC makes a port, and Proxmox VE plugs it in. `mac` is what the guest believes to have.
    pub(crate) fn plug(&mut self, at: usize, port: &str, mac: Option<Mac>, behind_firewall: bool) {
        self.numbers += 1;
        let nic = nic(port);
        let host = &mut self.hosts[at];
        let net = &host.node.net;
        assert!(!host.ports.contains_key(port), "{port} is there already");
        if behind_firewall {
            make_firewall_bridge(net, &nic);
        }
        let bridge = if behind_firewall { firewall_bridge(&nic) } else { "vmbr0".to_owned() };
        let line = match nic.kind {
            GuestKind::Qemu => Line::Tap(tap(net, port, &bridge)),
            GuestKind::Lxc => {
                let inside = format!("eth{}", self.numbers);
                net.sh(&format!(
                    "ip link add {port} type veth peer name {inside} address {} netns {}\n\
                     ip link set {port} master {bridge} up",
                    MacAddr::from_octets(nic.who.mac),
                    self.world.path()
                ));
                self.world.sh(&format!("ip link set {inside} up"));
                Line::Wire(self.world.inside(|| Wire::open(inside.parse().unwrap())).expect("listen in a container"))
            }
        };
        forwards(net, port);
        let end = End::new(line, mac.unwrap_or(nic.who.mac));
        host.ports.insert(port.to_owned(), Port { end, behind_firewall, is_linked: true });
    }

    /// The port goes. What Proxmox VE's script cleans up behind the NIC firewall goes with it.
    pub(crate) fn unplug(&mut self, at: usize, port: &str) {
        let host = &mut self.hosts[at];
        let gone = host.ports.remove(port).unwrap_or_else(|| panic!("{port} is not there"));
        if matches!(gone.end.line, Line::Wire(_)) {
            host.node.net.sh(&format!("ip link del {port}"));
        }
        let behind_firewall = gone.behind_firewall;
        drop(gone);
        host.node.net.until_gone(port);
        if behind_firewall {
            remove_firewall_bridge(&host.node.net, &nic(port));
        }
    }

    /// `firewall=` of a NIC is changed while the guest runs: the same port moves.
    pub(crate) fn move_port(&mut self, at: usize, port: &str, behind_firewall: bool) {
        let host = &mut self.hosts[at];
        let (net, nic) = (&host.node.net, nic(port));
        net.sh(&format!("ip link set {port} nomaster"));
        if behind_firewall {
            make_firewall_bridge(net, &nic);
            net.sh(&format!("ip link set {port} master {}", firewall_bridge(&nic)));
        } else {
            remove_firewall_bridge(net, &nic);
            net.sh(&format!("ip link set {port} master vmbr0"));
        }
        forwards(net, port);
        host.ports.get_mut(port).expect("a port").behind_firewall = behind_firewall;
    }

    /// `link_down=` of a container's NIC: Proxmox VE takes its port off the bridge.
    pub(crate) fn set_link(&mut self, at: usize, port: &str, is_up: bool) {
        let host = &mut self.hosts[at];
        if is_up {
            host.node.net.sh(&format!("ip link set {port} master vmbr0 up"));
            forwards(&host.node.net, port);
        } else {
            host.node.net.sh(&format!("ip link set {port} down nomaster"));
        }
        host.ports.get_mut(port).expect("a port").is_linked = is_up;
    }

    // ---- what the kernel says -------------------------------------------------------------------------------

    /// How far a NIC is on a node, or what is half done.
    pub(crate) fn stage(&self, at: usize, nic: &Nic) -> Result<Stage, String> {
        let host = &self.hosts[at];
        if !host.is_alive {
            return Ok(Stage::Dead);
        }
        let said = host
            .node
            .net
            .sh("nft list sets bridge; echo neighbours; ip neigh show proto 121; echo pinned; bridge fdb show");
        let (sets, rest) = said.split_once("neighbours\n").unwrap();
        if !sets.contains("table bridge pve-public-ip {") {
            return Ok(Stage::Bare);
        }
        let (neighbours, entries) = rest.split_once("pinned\n").unwrap();
        let set = |name: &str| {
            let (_, from) = sets.split_once(&format!("\tset {name} {{")).unwrap_or_else(|| panic!("{name}: {said}"));
            from.split("\tset ").next().unwrap().to_owned()
        };
        let (port, mac) = (nic.port(), MacAddr::from_octets(nic.who.mac));
        let mut odd = Vec::new();
        // All of it or nothing.
        let mut whole = |what: &str, parts: Vec<bool>| {
            if parts.iter().any(|part| *part != parts[0]) {
                odd.push(format!("{what}: {parts:?}"));
            }
            parts[0]
        };
        let own = format!("\"{port}\" . {mac}");
        let addresses = nic.addresses().map(|address| address.to_string());
        let has = |text: String, word: &str| text.split([',', '{', '}', '\n']).any(|element| element.trim() == word);
        let filtered = whole(
            "filtered",
            vec![
                has(set("ports"), &format!("\"{port}\"")),
                has(set("port_mac"), &own),
                has(set("port_ip4"), &format!("{own} . {}", addresses[0])),
                has(set("port_ip6"), &format!("{own} . {}", addresses[1])),
            ],
        );
        let bound = whole(
            "bound",
            vec![
                has(set("bound_mac"), &mac.to_string()),
                has(set("bound_ip4"), &addresses[0]),
                has(set("bound_ip6"), &addresses[1]),
            ],
        );
        let known = addresses.iter().map(|address| {
            let words = [address.clone(), "dev vmbr0".to_owned(), format!("lladdr {mac}"), "PERMANENT".to_owned()];
            neighbours
                .lines()
                .any(|line| line.starts_with(&format!("{address} ")) && words.iter().all(|word| line.contains(word)))
        });
        let known = whole("neighbours", known.collect());
        let pinned_to = |port: &str| {
            let of_port = entries.lines().filter(|line| line.starts_with(&format!("{mac} dev {port} ")));
            of_port.into_iter().any(|line| line.contains("static") && line.contains("sticky"))
        };
        let pinned = match host.ports.get(&port) {
            Some(port_there) if port_there.behind_firewall => {
                whole("pinned", vec![pinned_to(&port), pinned_to(&nic.firewall_port())])
            }
            Some(_) => pinned_to(&port),
            None => false,
        };
        match (filtered, bound, known, pinned) {
            _ if !odd.is_empty() => Err(format!("half done: {}", odd.join("; "))),
            (false, false, false, false) => Ok(Stage::Free),
            (true, false, false, false) => Ok(Stage::Incoming),
            (true, true, false, false) => Ok(Stage::Starting),
            (true, true, true, false) => Ok(Stage::Unpinned),
            (true, true, true, true) => Ok(Stage::Running),
            other => Err(format!("filtered, bound, known, pinned: {other:?}")),
        }
    }

    // ---- frames ---------------------------------------------------------------------------------------------

    /// Every guest that could lie about a NIC does, the guest itself speaks where it runs, and so does the provider:
    /// what came through that should not, or did not that should.
    pub(crate) fn probe(&mut self, nic: &Nic, stages: [Stage; 2]) -> Vec<String> {
        self.settle();
        self.forget();
        let mut wrong = Vec::new();
        let gateway = Who { mac: GATEWAY, ip4: Ipv4Addr::new(203, 0, 113, 1), ip6: "2001:db8:0:1::1".parse().unwrap() };
        for at in 0..2 {
            if !self.hosts[at].is_alive {
                continue;
            }
            let name = self.hosts[at].node.tree.name.clone();
            let me = self.stranger(at);
            if stages[at] == Stage::Bare {
                // The control: these frames are good ones, and only the filter stops them.
                self.numbers += 1;
                let frame = verdicts::packet(me, nic.who.ip4, self.numbers);
                self.hosts[at].stranger.as_ref().unwrap().send(&frame);
                if self.hear(&frame).is_empty() {
                    wrong.push(format!("a frame of the unmanaged guest of {name} is lost although nothing stops it"));
                }
                continue;
            }
            let claims = verdicts::claims(me, nic.who, "the guest", stages[at] != Stage::Nobodys, false);
            for case in &claims {
                self.hosts[at].stranger.as_ref().unwrap().send(&case.frame);
            }
            self.settle();
            for case in &claims {
                let seen = self.heard_by(&case.frame);
                if !seen.is_empty() {
                    wrong.push(format!(
                        "LEAKED from the unmanaged guest of {name} to {}: {}",
                        seen.join(", "),
                        case.class
                    ));
                }
            }
            self.forget();
            wrong.extend(self.probe_guest(at, nic, stages, gateway));
        }
        // From the provider: somebody else's business as long as the guest is not bound here.
        self.numbers += 1;
        let frame = verdicts::packet(gateway, nic.who.ip4, self.numbers);
        self.gateway.send(&frame);
        let seen = self.hear(&frame);
        for at in (0..2).filter(|at| self.hosts[*at].is_alive) {
            let name = &self.hosts[at].node.tree.name;
            if seen.contains(name) == stages[at].is_bound() {
                wrong.push(format!(
                    "a frame from the provider with the guest's address reached {seen:?}, {name} is {:?}",
                    stages[at]
                ));
            }
        }
        self.forget();
        wrong
    }

    /// The guest where its port is: what is its own arrives, what is not does not.
    fn probe_guest(&mut self, at: usize, nic: &Nic, stages: [Stage; 2], gateway: Who) -> Vec<String> {
        let mut wrong = Vec::new();
        let port = nic.port();
        let there = self.hosts[at].ports.get(&port).filter(|there| there.is_linked);
        let Some(mac) = there.map(|there| there.end.mac) else { return wrong };
        let name = self.hosts[at].node.tree.name.clone();
        let me = Who { mac, ..nic.who };
        if stages[at].filters_port() {
            let node = Who { mac: self.hosts[at].own.as_ref().unwrap().mac, ..gateway };
            let victim = NICS.into_iter().find(|other| other.who.mac != nic.who.mac).unwrap().who;
            let scene = Scene { gateway, node, victim, stranger: self.stranger(at) };
            let cases = verdicts::bound_port(nic.who, &scene);
            let bad: Vec<_> = cases.iter().filter(|case| !case.passes).collect();
            for case in &bad {
                self.hosts[at].ports[&port].end.send(&case.frame);
            }
            self.settle();
            for case in bad {
                let seen = self.heard_by(&case.frame);
                if !seen.is_empty() {
                    wrong.push(format!("LEAKED from {port} of {name} to {}: {}", seen.join(", "), case.class));
                }
            }
            self.forget();
        }
        self.numbers += 1;
        let frame = verdicts::packet(me, me.ip4, self.numbers);
        self.hosts[at].ports[&port].end.send(&frame);
        let seen = self.hear(&frame);
        // What it may say everywhere, except where it is bound, is heard; with another MAC it has nothing to say.
        let may_speak = mac == nic.who.mac && stages[at].filters_port();
        for (to, expected) in [("the provider".to_owned(), may_speak)].into_iter().chain(
            (0..2).filter(|to| self.hosts[*to].is_alive).map(|to| {
                let hears = may_speak && (to == at || !stages[to].is_bound());
                (self.hosts[to].node.tree.name.clone(), hears)
            }),
        ) {
            if seen.contains(&to) != expected {
                let how = if expected { "did not reach" } else { "reached" };
                wrong.push(format!("an honest frame from {port} of {name} ({:?}) {how} {to}", stages[at]));
            }
        }
        self.forget();
        wrong
    }

    fn stranger(&self, at: usize) -> Who {
        unmanaged(self.hosts[at].stranger.as_ref().expect("a node that is up").mac)
    }

    /// Whether a NIC's IPv4 address was announced to the provider since the last look.
    pub(crate) fn was_announced(&mut self, nic: &Nic) -> bool {
        let frame = announce::frame(MacAddr::from_octets(nic.who.mac), nic.who.ip4.into());
        self.settle();
        let found = self.gateway.heard.contains(&frame);
        self.forget();
        found
    }

    /// Who hears a frame that was sent.
    fn hear(&mut self, frame: &[u8]) -> Vec<String> {
        self.settle();
        self.heard_by(frame)
    }

    fn heard_by(&self, frame: &[u8]) -> Vec<String> {
        let mut seen = Vec::new();
        let mut look = |name: String, end: &End| {
            let untagged = || [&frame[..12], frame.get(16..).unwrap_or_default()].concat();
            if end.heard.iter().any(|heard| heard == frame || *heard == untagged()) {
                seen.push(name);
            }
        };
        look("the provider".to_owned(), &self.gateway);
        for host in &self.hosts {
            let name = &host.node.tree.name;
            let others = host.stranger.iter().map(|end| (format!("the unmanaged guest of {name}"), end));
            let own = host.own.iter().map(|end| (name.clone(), end));
            let ports = host.ports.iter().map(|(port, there)| (format!("{port} of {name}"), &there.end));
            own.chain(others).chain(ports).for_each(|(name, end)| look(name, end));
        }
        seen
    }

    /// Waits until everything that was sent has arrived or was dropped: a frame that must pass goes the longest way, as
    /// often as a frame is queued on it, and each time behind all the others.
    fn settle(&mut self) {
        for _ in 0..4 {
            self.numbers += 1;
            let data = [b"settle ", &self.numbers.to_be_bytes()[..]].concat();
            let fence = frames::ether(BROADCAST, GATEWAY, EXPERIMENTAL, &data);
            let started = Instant::now();
            self.gateway.send(&fence);
            let mut sent = started;
            let arrived = |host: &mut Host| {
                let Some(own) = &mut host.own else { return true };
                own.listen();
                own.heard.contains(&fence)
            };
            while !self.hosts.iter_mut().all(arrived) {
                assert!(started.elapsed() < PATIENCE, "frames of the provider do not arrive");
                // The first ones are lost if a link has just come up.
                if sent.elapsed() > Duration::from_millis(200) {
                    self.gateway.send(&fence);
                    sent = Instant::now();
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        self.gateway.listen();
        for host in &mut self.hosts {
            let ports = host.ports.values_mut().map(|port| &mut port.end);
            ports.chain(&mut host.stranger).chain(&mut host.own).for_each(End::listen);
        }
    }

    fn forget(&mut self) {
        self.gateway.heard.clear();
        for host in &mut self.hosts {
            let ports = host.ports.values_mut().map(|port| &mut port.end);
            ports.chain(&mut host.stranger).chain(&mut host.own).for_each(|end| end.heard.clear());
        }
    }
}

/// A guest without assignments.
pub(crate) fn unmanaged(mac: Mac) -> Who {
    let ip6 = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, mac[5].into());
    Who { mac, ip4: Ipv4Addr::new(192, 0, 2, mac[5]), ip6 }
}

/// A tap device on a bridge, as QEMU makes it.
pub(crate) fn tap(net: &Namespace, name: &str, bridge: &str) -> Tap {
    let tap = net.inside(|| Tap::new(name.parse().unwrap())).expect("make a tap device (/dev/net/tun)");
    net.sh(&format!("ip link set {name} master {bridge} up"));
    forwards(net, name);
    tap
}

/// Waits until a port of a bridge forwards.
fn forwards(net: &Namespace, port: &str) {
    let started = Instant::now();
    while !net.sh(&format!("bridge link show dev {port}")).contains("state forwarding") {
        assert!(started.elapsed() < PATIENCE, "{port} never forwards");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn firewall_bridge(nic: &Nic) -> String {
    format!("fwbr{}i{}", nic.vmid, nic.index)
}

fn make_firewall_bridge(net: &Namespace, nic: &Nic) {
    let (bridge, outer) = (firewall_bridge(nic), nic.firewall_port());
    let inner = format!("fwln{}i{}", nic.vmid, nic.index);
    net.sh(&format!(
        "ip link add {bridge} type bridge forward_delay 0 mcast_snooping 0; ip link set {bridge} up\n\
         ip link add {inner} type veth peer name {outer}\n\
         ip link set {inner} master {bridge} up; ip link set {outer} master vmbr0 up"
    ));
    forwards(net, &inner);
    forwards(net, &outer);
}

fn remove_firewall_bridge(net: &Namespace, nic: &Nic) {
    net.sh(&format!("ip link del {}; ip link del {}", nic.firewall_port(), firewall_bridge(nic)));
}
