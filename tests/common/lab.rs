//! A node, its guests and its provider, each in a network namespace without a name: whatever happens to the test,
//! the kernel removes them when its last file descriptor is closed.

#![allow(clippy::disallowed_methods, reason = "tests call programs as a person would, not as the product does")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, CpuSet, sched_getcpu, sched_setaffinity, setns, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use nix::unistd::{Pid, geteuid};
use pve_public_ip::selftest::frames::{self, BROADCAST, Mac};

use crate::common::{BINARY, Monitor, PATIENCE, Run, Tree};

pub(crate) const NODE: &str = "n1";
pub(crate) const OTHER_NODE: &str = "n2";
/// Local experimental ethertype: traffic that no rule knows.
const EXPERIMENTAL: u16 = 0x88b5;

/// A network namespace, held by a file descriptor.
pub(crate) struct Namespace(File);

impl Namespace {
    pub(crate) fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("cannot make a network namespace (CONFIG_NET_NS, root)");
            Self::current()
        };
        std::thread::scope(|scope| scope.spawn(make).join().expect("the thread that makes a namespace"))
    }

    pub(crate) fn current() -> Self {
        Self(File::open("/proc/thread-self/ns/net").expect("/proc/thread-self/ns/net"))
    }

    fn enter(&self) {
        setns(&self.0, CloneFlags::CLONE_NEWNET).expect("cannot enter a network namespace");
    }

    /// Runs `body` there and comes back, also from a panic.
    pub(crate) fn run<T>(&self, body: impl FnOnce() -> T) -> T {
        struct Back(Namespace);
        impl Drop for Back {
            fn drop(&mut self) {
                self.0.enter();
            }
        }
        let _back = Back(Self::current());
        self.enter();
        body()
    }

    /// What `ip link set ... netns` takes.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// A raw socket on one interface: sends frames as they are, sees every frame that arrives.
pub(crate) struct Wire(OwnedFd);

impl Wire {
    /// Opens it in the namespace of the calling thread.
    pub(crate) fn open(link: &str) -> Self {
        let all = SockProtocol::EthAll;
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd =
            socket(AddressFamily::Packet, SockType::Raw, flags, all).expect("a packet socket (CONFIG_PACKET, root)");
        let mut interfaces =
            nix::ifaddrs::getifaddrs().expect("list the interfaces").filter(|entry| entry.interface_name == link);
        let address = interfaces.find_map(|entry| entry.address?.as_link_addr().copied());
        let address = address.unwrap_or_else(|| panic!("there is no interface {link}"));
        bind(fd.as_raw_fd(), &address).expect("bind a packet socket");
        setsockopt(&fd, sockopt::RcvBufForce, &(8 << 20)).expect("enlarge the buffer of a packet socket");
        Self(fd)
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty()).expect("send a frame");
    }

    /// The next frame, or none within the time.
    pub(crate) fn receive(&self, limit: Duration) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 4096];
        let flags = if limit.is_zero() { MsgFlags::MSG_DONTWAIT } else { MsgFlags::empty() };
        if !limit.is_zero() {
            let limit = TimeVal::milliseconds(i64::try_from(limit.as_millis()).unwrap().max(1));
            setsockopt(&self.0, sockopt::ReceiveTimeout, &limit).expect("set a time limit");
        }
        match recv(self.0.as_raw_fd(), &mut buffer, flags) {
            Ok(length) => {
                buffer.truncate(length);
                Some(buffer)
            }
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => None,
            Err(error) => panic!("receive a frame: {error}"),
        }
    }

    /// Forgets what has arrived so far.
    pub(crate) fn drain(&self) {
        while self.receive(Duration::ZERO).is_some() {}
    }
}

/// Whether a socket saw this frame: the kernel takes the outermost VLAN tag out of what it shows.
pub(crate) fn same_frame(seen: &[u8], sent: &[u8]) -> bool {
    let untagged = || [&sent[..12], sent.get(16..).unwrap_or_default()].concat();
    seen == sent || seen == untagged()
}

/// One end of a link to the bridge: a guest, the provider, or the bridge itself as the node sees it.
pub(crate) struct End {
    pub(crate) port: String,
    pub(crate) mac: Mac,
    /// What it may use as a source: its own if it is bound.
    pub(crate) ip4: Ipv4Addr,
    pub(crate) ip6: Ipv6Addr,
    pub(crate) bound: bool,
    namespace: Option<Namespace>,
    pub(crate) wire: Wire,
}

impl End {
    pub(crate) fn namespace(&self) -> &Namespace {
        self.namespace.as_ref().expect("the bridge is no guest")
    }

    /// A frame that must pass, by which the end of the reaction to earlier ones is known.
    fn fence(&self, number: u32) -> Vec<u8> {
        let data = [b"fence ", &number.to_be_bytes()[..]].concat();
        if self.bound {
            let packet = frames::ip4(self.ip4, Ipv4Addr::BROADCAST, frames::UDP, 0, &frames::udp(9, 9, &data));
            return frames::ether(BROADCAST, self.mac, frames::IP4, &packet);
        }
        frames::ether(BROADCAST, self.mac, EXPERIMENTAL, &data)
    }
}

/// The address that a MAC makes (RFC 4291, appendix A).
pub(crate) fn link_local(mac: Mac) -> Ipv6Addr {
    let mut octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, 0, 0, 0];
    octets[13..].copy_from_slice(&mac[3..]);
    Ipv6Addr::from(octets)
}

/// Text of a MAC.
pub(crate) fn text(mac: Mac) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// The node with everything around it.
pub(crate) struct Lab {
    home: Namespace,
    tree: Tree,
    pub(crate) ends: BTreeMap<String, End>,
    fences: u32,
}

impl Lab {
    /// A node with an empty bridge `vmbr0`. The calling thread is in its namespace from now on.
    pub(crate) fn new() -> Self {
        assert!(geteuid().is_root(), "the kernel tests make network namespaces: run them as root");
        // On one CPU frames keep their order, so the arrival of a later one tells that an earlier one was dropped.
        let mut one = CpuSet::new();
        one.set(sched_getcpu().expect("the number of this CPU")).expect("a CPU number");
        sched_setaffinity(Pid::from_raw(0), &one).expect("stay on one CPU");

        let home = Namespace::current();
        Namespace::new().enter();
        let lab = Self { home, tree: Tree::new(), ends: BTreeMap::new(), fences: 0 };
        for program in ["nft --version", "ip -Version", "bridge -Version"] {
            sh(program);
        }
        for name in ["iptables", "ip6tables", "arptables"] {
            let path = format!("/proc/sys/net/bridge/bridge-nf-call-{name}");
            if fs::exists(&path).expect("look at /proc/sys") {
                write(&path, "0");
            }
        }
        fs::create_dir_all(lab.path("run")).expect("make a directory");
        for kind in ["qemu-server", "lxc"] {
            fs::create_dir_all(lab.path(&format!("etc/pve/nodes/{OTHER_NODE}/{kind}"))).expect("make a directory");
        }
        sh("ip link set lo up");
        Self::bridge("vmbr0");
        lab
    }

    /// Makes a bridge as Proxmox VE does, without the snooping that keeps multicast from ports that did not ask for it.
    pub(crate) fn bridge(name: &str) {
        sh(&format!("ip link add {name} type bridge forward_delay 0 mcast_snooping 0"));
        sh(&format!("ip link set {name} up"));
    }

    /// A file of the node.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.tree.path(path)
    }

    /// Writes the guest's configuration.
    pub(crate) fn guest(&self, node: &str, kind: &str, vmid: u32, text: &str) {
        self.tree.write(&format!("etc/pve/nodes/{node}/{kind}/{vmid}.conf"), text);
    }

    /// Runs the program.
    pub(crate) fn run(&self, arguments: &str) -> Run {
        self.run_with(&[], arguments)
    }

    /// Runs the program with more in its environment.
    pub(crate) fn run_with(&self, environment: &[(&str, &str)], arguments: &str) -> Run {
        let mut command = Command::new(BINARY);
        command.args(arguments.split_whitespace()).arg("--root").arg(self.tree.root());
        command.env_remove("PVE_MIGRATED_FROM").env_remove("PVE_PUBLIC_IP_ROOT");
        command.envs(environment.iter().copied());
        Run::of(format!("pve-public-ip {arguments}"), &command.output().expect("run pve-public-ip"))
    }

    /// Runs the program, which must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &str) -> String {
        self.run(arguments).ok().out
    }

    /// Plugs a new guest into a port; `tap100i0`, `veth100i0`, or anything else for the uplink.
    pub(crate) fn plug(&mut self, port: &str, bridge: &str, mac: Mac) {
        let namespace = Namespace::new();
        namespace.run(|| write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"));
        // Proxmox VE gives its side of a guest's link the highest MAC there can be, so that the bridge does not take it.
        let host_side = if port.starts_with("eno") {
            [2, 0, 0, 0, 0xe0, 1]
        } else {
            [0xfe, mac[1], mac[2], mac[3], mac[4], mac[5]]
        };
        sh(&format!(
            "ip link add {port} address {} type veth peer name eth0 address {} netns {}",
            text(host_side),
            text(mac),
            namespace.path()
        ));
        // Nor does the node take an address on it.
        write(&format!("/proc/sys/net/ipv6/conf/{port}/disable_ipv6"), "1");
        sh(&format!("ip link set {port} master {bridge} up"));
        let wire = namespace.run(|| {
            sh("ip link set eth0 up");
            Wire::open("eth0")
        });
        let [.., last] = mac;
        let end = End {
            port: port.to_owned(),
            mac,
            ip4: Ipv4Addr::new(192, 0, 2, last),
            ip6: Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, last.into()),
            bound: false,
            namespace: Some(namespace),
            wire,
        };
        self.ends.insert(port.to_owned(), end);
    }

    /// Plugs a guest in as Proxmox VE does when its NIC has the firewall on.
    pub(crate) fn plug_behind_firewall(&mut self, vmid: u32, bridge: &str, mac: Mac) {
        Self::bridge(&format!("fwbr{vmid}i0"));
        sh(&format!("ip link add fwln{vmid}i0 type veth peer name fwpr{vmid}p0"));
        for (port, bridge) in
            [(format!("fwln{vmid}i0"), format!("fwbr{vmid}i0")), (format!("fwpr{vmid}p0"), bridge.to_owned())]
        {
            write(&format!("/proc/sys/net/ipv6/conf/{port}/disable_ipv6"), "1");
            sh(&format!("ip link set {port} master {bridge} up"));
        }
        self.plug(&format!("tap{vmid}i0"), &format!("fwbr{vmid}i0"), mac);
    }

    /// Pulls the port out, as a guest's stop does.
    pub(crate) fn unplug(&mut self, port: &str) {
        sh(&format!("ip link del {port}"));
        self.ends.remove(port);
    }

    /// Listens to what reaches the node itself.
    pub(crate) fn listen_on_bridge(&mut self) {
        let end = End {
            port: "vmbr0".to_owned(),
            mac: link_mac("vmbr0"),
            ip4: Ipv4Addr::UNSPECIFIED,
            ip6: Ipv6Addr::UNSPECIFIED,
            bound: false,
            namespace: None,
            wire: Wire::open("vmbr0"),
        };
        self.ends.insert("vmbr0".to_owned(), end);
    }

    pub(crate) fn end(&self, port: &str) -> &End {
        self.ends.get(port).unwrap_or_else(|| panic!("nothing is plugged into {port}"))
    }

    /// Says that a port is bound to this address, so its fences are sent from it.
    pub(crate) fn bound(&mut self, port: &str, ip4: Ipv4Addr, ip6: Ipv6Addr) {
        let end = self.ends.get_mut(port).expect("a port");
        (end.ip4, end.ip6, end.bound) = (ip4, ip6, true);
    }

    /// Waits until every port forwards (a new port needs up to a second), and fills the forwarding table.
    pub(crate) fn settle(&mut self) {
        let senders: Vec<String> =
            self.ends.values().filter(|end| end.namespace.is_some()).map(|end| end.port.clone()).collect();
        for sender in senders {
            let started = Instant::now();
            let mut limit = Duration::from_millis(20);
            while !self.fence_arrives(&sender, limit) {
                assert!(started.elapsed() < PATIENCE, "frames of {sender} do not arrive everywhere");
                // A loaded machine may take longer to deliver each of them.
                limit = (limit * 5 / 4).min(Duration::from_secs(1));
            }
        }
    }

    /// Sends a frame from a port and returns where it was seen.
    ///
    /// # Panics
    ///
    /// If a frame that is sent afterwards, and must pass, does not arrive everywhere.
    pub(crate) fn play(&mut self, sender: &str, frame: &[u8]) -> Vec<String> {
        self.play_all(sender, std::slice::from_ref(&frame.to_vec())).remove(0)
    }

    /// As [`Self::play`], several frames in a row.
    pub(crate) fn play_all(&mut self, sender: &str, frames: &[Vec<u8>]) -> Vec<Vec<String>> {
        for end in self.ends.values() {
            end.wire.drain();
        }
        for frame in frames {
            self.end(sender).wire.send(frame);
        }
        let number = self.fences;
        self.fences += 1;
        let fence = self.end(sender).fence(number);
        self.end(sender).wire.send(&fence);
        let mut seen = vec![Vec::new(); frames.len()];
        for end in self.ends.values().filter(|end| end.port != sender) {
            let started = Instant::now();
            loop {
                let received = end.wire.receive(Duration::from_secs(2));
                match received {
                    Some(bytes) if bytes == fence => break,
                    Some(bytes) => {
                        let matches = frames.iter().enumerate().filter(|(_, frame)| same_frame(&bytes, frame));
                        for (at, _) in matches {
                            seen[at].push(end.port.clone());
                        }
                    }
                    None => {}
                }
                assert!(started.elapsed() < PATIENCE, "the fence of {sender} did not arrive at {}", end.port);
            }
        }
        seen
    }

    fn fence_arrives(&mut self, sender: &str, limit: Duration) -> bool {
        let number = self.fences;
        self.fences += 1;
        let fence = self.end(sender).fence(number);
        self.end(sender).wire.send(&fence);
        let mut others = self.ends.values().filter(|end| end.port != sender);
        others.all(|end| {
            let started = Instant::now();
            while started.elapsed() < limit {
                if end.wire.receive(limit).is_some_and(|bytes| bytes == fence) {
                    return true;
                }
            }
            false
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.home.enter();
    }
}

/// Runs a line of shell in the namespace of the calling thread.
pub(crate) fn try_sh(line: &str) -> Run {
    Run::of(line.to_owned(), &Command::new("sh").args(["-c", line]).output().expect("run sh"))
}

/// As [`try_sh`], must succeed.
#[track_caller]
pub(crate) fn sh(line: &str) -> String {
    try_sh(line).ok().out
}

/// Starts a program that runs on until it is killed.
pub(crate) fn background(line: &str) -> std::process::Child {
    let mut command = words_of(line);
    command.stdout(std::process::Stdio::piped()).spawn().unwrap_or_else(|error| panic!("`{line}`: {error}"))
}

fn words_of(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    command
}

/// `ip monitor` in the namespace of the calling thread.
pub(crate) fn monitor(line: &str) -> Monitor {
    Monitor::start(words_of(line))
}

/// Gives bytes to `nft -f -`.
#[track_caller]
pub(crate) fn nft(text: &str) {
    let pipe = std::process::Stdio::piped;
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(pipe()).stderr(pipe()).spawn().expect("run nft");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("write to nft");
    Run::of("nft -f -".to_owned(), &child.wait_with_output().expect("wait for nft")).ok();
}

/// Writes an existing or new file as it is.
pub(crate) fn write(path: &str, text: &str) {
    let mut file = File::create(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    file.write_all(text.as_bytes()).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// The MAC of an interface of this namespace.
pub(crate) fn link_mac(link: &str) -> Mac {
    let shown = sh(&format!("ip -o link show dev {link}"));
    let words: Vec<&str> = shown.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "link/ether").expect("an Ethernet interface");
    let octets: Vec<u8> = words[at + 1].split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
    octets.try_into().expect("six octets")
}
