//! Helper of `benches/run` and `benches/storm`: makes a node's files, sends frames and bytes, takes times.
//!
//! Everything that is compared runs interleaved in one process, in slices of milliseconds, because a shared machine
//! drifts by more than the differences of interest; what is printed are medians over the rounds.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser};
use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, bind, sendmmsg, socket};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use pve_public_ip::registry::document::{self, Document, GuestFile, PoolsFile};
use serde_json::json;

/// What to do; every command prints lines of tab-separated values.
#[derive(Debug, Parser)]
enum Task {
    /// Write the files of a node with that many bindings
    Tree {
        /// Root of the node
        directory: PathBuf,
        /// Bindings: guest 100 has one, the others have ten each
        bindings: u32,
        /// They are routed, and of few guests; guest 100 has the one in the middle
        #[arg(long)]
        routed: bool,
    },
    /// Print the rules that a script would have made for that many bindings
    Linear {
        /// iptables or ebtables, in the form of `-restore`
        tool: String,
        /// Bindings, that of guest 100 in the middle
        bindings: u32,
    },
    /// Smallest frames per second of processor time through each lab, compared with the first
    Packets {
        #[command(flatten)]
        rounds: Rounds,
        /// NAME,GUEST-NETNS,INTERFACE,SOURCE-MAC,SOURCE-IP,PROVIDER-NETNS,INTERFACE
        labs: Vec<String>,
    },
    /// Bits of TCP per second of processor time through each lab, compared with the first
    Tcp {
        #[command(flatten)]
        rounds: Rounds,
        /// NAME,GUEST-NETNS,PROVIDER-NETNS,PROVIDER-IP
        labs: Vec<String>,
    },
    /// Wall time of programs, one after the other in each round; a name of _ is not printed
    Wall {
        #[command(flatten)]
        rounds: Rounds,
        /// NAME,NETNS,ROOT,PROGRAM ARGUMENTS...
        programs: Vec<String>,
    },
    /// Start guests 101 and following, evenly spread over some time: pre-start, port, post-start; wall time of both hooks
    Storm {
        /// How many
        #[arg(long)]
        guests: u32,
        /// In how many seconds
        #[arg(long)]
        seconds: f64,
        /// Where
        netns: String,
        /// Root of the node
        root: String,
        /// Called as Proxmox VE does
        hookscript: String,
    },
    /// Send with one MAC after the other, over and over; says so once a bridge can have learnt them all, and never ends
    Macs {
        /// How many
        #[arg(long)]
        macs: u32,
        /// Frames in a second, after the first round
        #[arg(long, default_value_t = 50_000)]
        rate: u32,
        /// Where
        netns: String,
        /// The interface that sends
        interface: String,
    },
}

#[derive(Debug, Args)]
struct Rounds {
    /// How often
    #[arg(id = "count", long = "rounds", default_value_t = 30)]
    count: usize,
    /// Length of a slice in milliseconds
    #[arg(long, default_value_t = 4)]
    slice: u64,
    /// Also compare NAME/NAME round by round
    #[arg(long)]
    ratio: Vec<String>,
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Tree { directory, bindings, routed } => tree(&directory, bindings, routed),
        Task::Linear { tool, bindings } => linear(&tool, bindings),
        Task::Packets { rounds, labs } => packets(&rounds, &labs),
        Task::Tcp { rounds, labs } => tcp(&rounds, &labs),
        Task::Wall { rounds, programs } => wall(&rounds, &programs),
        Task::Storm { guests, seconds, netns, root, hookscript } => storm(guests, seconds, &netns, &root, &hookscript),
        Task::Macs { macs, rate, netns, interface } => storm_of_macs(macs, rate, &netns, &interface),
    }
}

// ---- who has what ------------------------------------------------------------------------------------

/// Guest 100 has binding 0; binding 1 to 10 are guest 101's, and so on.
fn guest_of(binding: u32) -> u32 {
    100 + binding.div_ceil(10)
}

fn mac_of(vmid: u32) -> String {
    let [.., high, low] = vmid.to_be_bytes();
    format!("02:00:00:00:{high:02x}:{low:02x}")
}

/// No address is beside another one, so that the pool's addresses do not merge into a range.
fn address4(binding: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 10)) + binding * 2)
}

fn address6(binding: u32) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10)) + u128::from(binding) * 2)
}

/// Half of the addresses are IPv6, guest 100's is IPv4.
fn prefix_of(binding: u32) -> String {
    if binding % 2 == 0 { format!("{}/32", address4(binding)) } else { format!("{}/128", address6(binding)) }
}

fn tree(root: &Path, bindings: u32, routed: bool) -> Result<()> {
    let pve = root.join("etc/pve");
    let (configs, registry) = (pve.join("nodes/bench/qemu-server"), pve.join("public-ip"));
    for directory in [&configs, &registry.join("guests"), &root.join("run"), &root.join("var/lib/vz/snippets")] {
        fs::create_dir_all(directory)?;
    }
    fs::create_dir_all(pve.join("priv/lock"))?;
    fs::set_permissions(pve.join("priv"), fs::Permissions::from_mode(0o700))?;
    symlink("nodes/bench", pve.join("local"))?;
    symlink("nodes/bench/qemu-server", pve.join("qemu-server"))?;

    let addresses: Vec<_> = (0..bindings).map(|binding| json!({ "address": prefix_of(binding) })).collect();
    let pool = if routed {
        json!({ "profile": "hetzner-routed", "bridge": "vmbr0", "uplink_guard": "off", "addresses": addresses })
    } else {
        json!({
            "profile": "generic-bridged", "bridge": "vmbr0",
            "gateway4": "198.18.0.1", "gateway6": "2001:db8:1::1", "addresses": addresses,
        })
    };
    save_document::<PoolsFile>(&registry.join("pools.json"), json!({ "version": 1, "pools": { "bench": pool } }))?;

    let mut guests: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for binding in 0..bindings {
        // A thousand each, as many as a file may hold, and guest 100 those in the middle.
        let routed_guest = || if binding / 1000 == bindings / 2000 { 100 } else { 101 + binding / 1000 };
        guests.entry(if routed { routed_guest() } else { guest_of(binding) }).or_default().push(binding);
    }
    for (vmid, held) in guests {
        let mac = mac_of(vmid);
        let ipconfig = match &held[..] {
            [v6, v4, ..] => format!("ip={}/32,gw=198.18.0.1,ip6={}/128", address4(*v4), address6(*v6)),
            _ => format!("ip={}/32,gw=198.18.0.1", address4(held[0])),
        };
        let config = format!(
            "boot: order=scsi0;net0\ncores: 2\nipconfig0: {ipconfig}\nmemory: 2048\nname: guest{vmid}\nnet0: virtio={},bridge=vmbr0\n\
             onboot: 1\nostype: l26\nscsi0: local-lvm:vm-{vmid}-disk-0,size=32G\nscsihw: virtio-scsi-single\n",
            mac.to_uppercase()
        );
        save(&configs.join(format!("{vmid}.conf")), &config)?;
        let held: Vec<_> = held
            .into_iter()
            .map(|binding| {
                json!({ "address": prefix_of(binding), "pool": "bench", "organization": "org-123456789",
                        "assigned_at": "2026-01-01T00:00:00Z" })
            })
            .collect();
        let guest = json!({ "version": 1, "vmid": vmid, "interfaces": { "net0": { "mac": mac, "addresses": held } } });
        save_document::<GuestFile>(&registry.join(format!("guests/{vmid}.json")), guest)?;
    }
    Ok(())
}

/// As the program itself writes it.
fn save_document<T: Document>(path: &Path, value: serde_json::Value) -> Result<()> {
    save(path, std::str::from_utf8(&document::render(&serde_json::from_value::<T>(value)?)?)?)
}

fn save(path: &Path, text: &str) -> Result<()> {
    File::create(path).and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| path.display().to_string())
}

fn linear(tool: &str, bindings: u32) -> Result<()> {
    let mut order: Vec<u32> = (1..bindings).collect();
    order.insert(order.len() / 2, 0);
    let mut text = String::from("*filter\n:FORWARD ACCEPT\n");
    for binding in order {
        let (address, mac) = (address4(binding), mac_of(guest_of(binding)));
        text += &match tool {
            "iptables" => format!(
                "-A FORWARD -s {address} -m mac --mac-source {mac} -j ACCEPT\n-A FORWARD -s {address} -j DROP\n"
            ),
            "ebtables" => format!(
                "-A FORWARD -p IPv4 -s {mac} --ip-src {address} -j ACCEPT\n-A FORWARD -p IPv4 --ip-src {address} -j DROP\n\
                 -A FORWARD -p ARP -s ! {mac} --arp-ip-src {address} -j DROP\n"
            ),
            other => bail!("`{other}` is neither iptables nor ebtables"),
        };
    }
    // ebtables-restore knows no COMMIT and does without.
    if tool == "iptables" {
        text += "COMMIT\n";
    }
    Ok(io::stdout().write_all(text.as_bytes())?)
}

// ---- network namespaces --------------------------------------------------------------------------------

/// Moves this thread; sockets and children made afterwards belong to that network namespace.
fn enter(netns: &str) -> Result<()> {
    let file = File::open(format!("/run/netns/{netns}")).with_context(|| format!("network namespace {netns}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter network namespace {netns}"))
}

fn fields<const N: usize>(spec: &str) -> Result<[&str; N]> {
    let fields: Vec<&str> = spec.splitn(N, ',').collect();
    <[&str; N]>::try_from(fields).ok().with_context(|| format!("`{spec}` has not {N} fields"))
}

// ---- smallest frames -------------------------------------------------------------------------------------

/// Frames of one system call.
const BURST: usize = 32;

/// How long the last frames of a slice may need to arrive.
const ARRIVAL: Duration = Duration::from_millis(500);

struct PacketLab {
    name: String,
    socket: OwnedFd,
    frame: Vec<u8>,
    counter: Counter,
}

/// Frames received by an interface of another network namespace.
struct Counter {
    file: File,
    interface: String,
}

impl Counter {
    /// Of the network namespace that this thread is in; the open file stays with it.
    fn open(interface: &str) -> Result<Self> {
        Ok(Self { file: File::open("/proc/thread-self/net/dev")?, interface: format!("{interface}:") })
    }

    fn read(&mut self) -> Result<u64> {
        let mut text = String::new();
        self.file.rewind()?;
        self.file.read_to_string(&mut text)?;
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(&self.interface));
        let packets = line.and_then(|line| line.split_whitespace().nth(1)).context("no such interface")?;
        Ok(packets.parse()?)
    }
}

/// 60 bytes (64 with the checksum of the wire): UDP from the guest to the provider's router.
fn frame(target: &str, mac: &str, address: Ipv4Addr) -> Result<Vec<u8>> {
    let octets =
        |mac: &str| -> Result<Vec<u8>> { mac.split(':').map(|octet| Ok(u8::from_str_radix(octet, 16)?)).collect() };
    let mut ip = vec![0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend(address.octets());
    // Nobody's: the receiver drops the frame without an answer.
    ip.extend([203, 0, 113, 1]);
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16))?;
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let udp = [0x30, 0x39, 0x30, 0x39, 0, 26, 0, 0];
    let mut frame = [octets(target)?, octets(mac)?, vec![8, 0], ip, udp.to_vec()].concat();
    frame.resize(60, 0);
    Ok(frame)
}

fn open_packet_lab(spec: &str) -> Result<PacketLab> {
    let [name, guest, interface, mac, address, provider, receiver] = fields(spec)?;
    enter(provider)?;
    let (receiver, next) = receiver.split_once('/').map_or((receiver, None), |(own, next)| (own, Some(next)));
    let target = link(receiver)?.addr().context("no MAC")?.map(|octet| format!("{octet:02x}")).join(":");
    let counter = Counter::open(receiver)?;
    enter(guest)?;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &link(interface)?)?;
    let target = next.unwrap_or(&target);
    Ok(PacketLab { name: name.to_owned(), socket, frame: frame(target, mac, address.parse()?)?, counter })
}

fn link(interface: &str) -> Result<LinkAddr> {
    let mut all = getifaddrs()?.filter(|entry| entry.interface_name == interface);
    let found = all.find_map(|entry| entry.address.as_ref().and_then(|address| address.as_link_addr().copied()));
    found.with_context(|| format!("no interface {interface}"))
}

impl PacketLab {
    /// Sends for one slice; frames per second of processor time that arrived. A frame that does not arrive is an error: its cost would
    /// be that of a drop.
    fn slice(&mut self, length: Duration) -> Result<f64> {
        let message = [io::IoSlice::new(&self.frame)];
        let messages = vec![message; BURST];
        let mut headers = MultiHeaders::<LinkAddr>::preallocate(BURST, None);
        let none = vec![None; BURST];
        let before = self.counter.read()?;
        let (started, already) = (Instant::now(), processor_time()?);
        let mut frames = 0;
        while started.elapsed() < length {
            let results = sendmmsg(self.socket.as_raw_fd(), &mut headers, &messages, &none, [], MsgFlags::empty());
            frames += results.with_context(|| format!("cannot send in lab {}", self.name))?.count() as u64;
        }
        let took = processor_time()?.saturating_sub(already);
        // The sender's system call forwards its frames itself; only what ran over is still on its way.
        loop {
            let arrived = self.counter.read()? - before;
            if arrived >= frames {
                break;
            }
            ensure!(
                started.elapsed() < length + ARRIVAL,
                "lab {}: only {arrived} of {frames} frames arrived at the provider",
                self.name
            );
            // The kernel's own thread, which forwards what ran over, needs this processor.
            thread::sleep(Duration::from_micros(20));
        }
        Ok(per_second(frames, took))
    }
}

fn packets(rounds: &Rounds, labs: &[String]) -> Result<()> {
    let mut labs = labs.iter().map(|spec| open_packet_lab(spec)).collect::<Result<Vec<_>>>()?;
    pin()?;
    compare(rounds, &mut labs, |lab| &lab.name, PacketLab::slice)
}

/// What this process used so far, the forwarding included, which the kernel does within its system calls.
///
/// On an idle machine with one processor at work that is the time on the wall; on a busy one it leaves out the others.
fn processor_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// One processor does all: sending, forwarding and receiving.
fn pin() -> Result<()> {
    let mut set = CpuSet::new();
    set.set(thread::available_parallelism()?.get() - 1)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

// ---- TCP ---------------------------------------------------------------------------------------------------

struct TcpLab {
    name: String,
    stream: TcpStream,
    sent: u64,
    received: Arc<AtomicU64>,
}

fn open_tcp_lab(spec: &str) -> Result<TcpLab> {
    let [name, guest, provider, address] = fields(spec)?;
    enter(provider)?;
    let listener = TcpListener::bind(SocketAddrV4::new(address.parse()?, 5001))?;
    enter(guest)?;
    let connect = TcpStream::connect_timeout(&listener.local_addr()?, Duration::from_secs(5));
    let stream = connect.with_context(|| format!("lab {name}: no connection to the provider"))?;
    let (mut far_end, _) = listener.accept()?;
    let received = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&received);
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 17];
        while let Ok(length @ 1..) = far_end.read(&mut buffer) {
            count.fetch_add(length as u64, Ordering::Release);
        }
    });
    Ok(TcpLab { name: name.to_owned(), stream, sent: 0, received })
}

impl TcpLab {
    /// Bits per second of processor time in one slice, from the first write until all of it is read.
    fn slice(&mut self, length: Duration) -> Result<f64> {
        let buffer = vec![0; 1 << 17];
        let (started, already) = (Instant::now(), processor_time()?);
        let before = self.sent;
        while started.elapsed() < length {
            self.stream.write_all(&buffer)?;
            self.sent += buffer.len() as u64;
        }
        while self.received.load(Ordering::Acquire) < self.sent {
            ensure!(started.elapsed() < length + Duration::from_secs(10), "lab {}: the connection hangs", self.name);
            thread::sleep(Duration::from_micros(200));
        }
        Ok(per_second((self.sent - before) * 8, processor_time()?.saturating_sub(already)))
    }
}

fn tcp(rounds: &Rounds, labs: &[String]) -> Result<()> {
    pin()?;
    let mut labs = labs.iter().map(|spec| open_tcp_lab(spec)).collect::<Result<Vec<_>>>()?;
    // The windows open up.
    for lab in &mut labs {
        for _ in 0..3 {
            lab.slice(Duration::from_millis(rounds.slice))?;
        }
    }
    compare(rounds, &mut labs, |lab| &lab.name, TcpLab::slice)
}

// ---- medians -------------------------------------------------------------------------------------------------

/// Runs `slice` for each lab in each round, between two slices of the first lab, and prints for each its median rate
/// and the median, lower and upper quartile of its ratio to the first.
fn compare<L>(
    rounds: &Rounds,
    labs: &mut [L],
    name: impl Fn(&L) -> &String,
    mut slice: impl FnMut(&mut L, Duration) -> Result<f64>,
) -> Result<()> {
    let length = Duration::from_millis(rounds.slice);
    let (first, others) = labs.split_first_mut().context("no labs")?;
    let mut rates: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut ratios: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for lab in std::iter::once(&mut *first).chain(others.iter_mut()) {
        slice(lab, length)?;
    }
    for _ in 0..rounds.count {
        let mut before = slice(first, length)?;
        for lab in &mut *others {
            let rate = slice(lab, length)?;
            let after = slice(first, length)?;
            rates.entry(name(lab).clone()).or_default().push(rate);
            ratios.entry(name(lab).clone()).or_default().push(rate * 2.0 / (before + after));
            rates.entry(name(first).clone()).or_default().push(after);
            before = after;
        }
    }
    let mut text = String::new();
    for (name, rates) in &rates {
        let ratios = ratios.get(name).cloned().unwrap_or_else(|| vec![1.0]);
        text += &format!("{name}\t{:.0}\t{}\n", median(rates), quartiles(&ratios));
    }
    text += &between(rounds, &ratios)?;
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// One line for each pair that was asked for.
fn between(rounds: &Rounds, values: &BTreeMap<String, Vec<f64>>) -> Result<String> {
    let mut text = String::new();
    for pair in &rounds.ratio {
        let (one, two) = pair.split_once('/').with_context(|| format!("`{pair}` is not NAME/NAME"))?;
        let of = |name: &str| values.get(name).with_context(|| format!("`{name}` was not measured"));
        let ratios: Vec<f64> = of(one)?.iter().zip(of(two)?).map(|(one, two)| one / two).collect();
        text += &format!("{pair}\t-\t{}\n", quartiles(&ratios));
    }
    Ok(text)
}

fn quartiles(values: &[f64]) -> String {
    format!("{:.4}\t{:.4}\t{:.4}", at(values, 0.5), at(values, 0.25), at(values, 0.75))
}

fn median(values: &[f64]) -> f64 {
    at(values, 0.5)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
fn at(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = share * sorted.len().saturating_sub(1) as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    f64::midpoint(sorted[low], sorted[high])
}

// ---- wall time -----------------------------------------------------------------------------------------------

/// Milliseconds of each program, with fork and exec, as whoever calls a hookscript sees them.
fn wall(rounds: &Rounds, programs: &[String]) -> Result<()> {
    let mut times: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for round in 0..=rounds.count {
        for spec in programs {
            let [name, netns, root, line] = fields(spec)?;
            enter(netns)?;
            let took = run(root, line)?.as_secs_f64() * 1000.0;
            // The first round fills the page cache.
            if round > 0 && name != "_" {
                times.entry(name.to_owned()).or_default().push(took);
            }
        }
    }
    let mut text = String::new();
    for (name, times) in &times {
        text += &format!("{name}\t{}\n", quartiles(times));
    }
    text += &between(rounds, &times)?;
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn run(root: &str, line: &str) -> Result<Duration> {
    let mut words = line.split_whitespace();
    let program = words.next().context("no program")?;
    #[expect(clippy::disallowed_methods, reason = "what is timed is exactly fork, exec and wait")]
    let mut command = Command::new(program);
    command.args(words).env("PVE_PUBLIC_IP_ROOT", root).stdin(Stdio::null()).stdout(Stdio::null());
    let started = Instant::now();
    let output = command.stderr(Stdio::piped()).spawn().and_then(std::process::Child::wait_with_output);
    let took = started.elapsed();
    match output {
        Ok(output) if output.status.success() => Ok(took),
        Ok(output) => bail!("`{line}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("`{program}` is not there"),
        Err(error) => bail!("cannot run `{line}`: {error}"),
    }
}

// ---- a boot --------------------------------------------------------------------------------------------------

/// Each start begins when its time has come, however many others are still going on: Proxmox VE does not wait either.
fn storm(guests: u32, seconds: f64, netns: &str, root: &str, hookscript: &str) -> Result<()> {
    let started = Instant::now();
    let start = |number: u32| -> Result<[f64; 2]> {
        let due = Duration::from_secs_f64(seconds * f64::from(number) / f64::from(guests));
        thread::sleep(due.saturating_sub(started.elapsed()));
        enter(netns)?;
        let vmid = 101 + number;
        let before = run(root, &format!("{hookscript} {vmid} pre-start"))?;
        for line in [format!("tuntap add tap{vmid}i0 mode tap"), format!("link set tap{vmid}i0 master vmbr0 up")] {
            run(root, &format!("ip {line}"))?;
        }
        let after = run(root, &format!("{hookscript} {vmid} post-start"))?;
        Ok([before, after].map(|took| took.as_secs_f64() * 1000.0))
    };
    let times: Vec<Result<[f64; 2]>> = thread::scope(|scope| {
        let start = &start;
        let starts: Vec<_> = (0..guests).map(|number| scope.spawn(move || start(number))).collect();
        starts.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a start panicked"))).collect()
    });
    let times = times.into_iter().collect::<Result<Vec<_>>>()?;
    let mut text = format!("all\t{:.1}\n", started.elapsed().as_secs_f64());
    for (phase, name) in ["pre-start", "post-start"].into_iter().enumerate() {
        let mut sorted: Vec<f64> = times.iter().map(|both| both[phase]).collect();
        sorted.sort_by(f64::total_cmp);
        text += &format!("{name}\t{:.1}\t{:.1}\t{:.1}\n", median(&sorted), at(&sorted, 0.99), at(&sorted, 1.0));
    }
    Ok(io::stdout().write_all(text.as_bytes())?)
}

// ---- MACs that a bridge learns ---------------------------------------------------------------------------------

/// How often the sender rests while it keeps to its rate.
const PULSE: Duration = Duration::from_millis(10);

/// A guest makes the bridge learn. The frames are addressed to the node, so that nothing is flooded: what costs is what is
/// learnt.
fn storm_of_macs(macs: u32, rate: u32, netns: &str, interface: &str) -> Result<()> {
    enter(netns)?;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &link(interface)?)?;
    let template = frame("02:00:00:ff:ff:02", "06:00:00:00:00:00", Ipv4Addr::new(192, 0, 2, 2))?;
    let mut headers = MultiHeaders::<LinkAddr>::preallocate(BURST, None);
    let none = vec![None; BURST];
    let in_pulse = rate.div_ceil(u32::try_from(Duration::from_secs(1).as_millis() / PULSE.as_millis())?);
    let mut next = 0u32;
    let mut is_first = true;
    loop {
        let began = Instant::now();
        let mut sent = 0;
        while sent < in_pulse || is_first {
            let frames: Vec<Vec<u8>> = (0..BURST)
                .map(|_| {
                    // Scattered as random ones are, and every one of them once in a round.
                    let scattered = next.wrapping_mul(0x9e37_79b1).to_be_bytes();
                    next = (next + 1) % macs;
                    let mut frame = template.clone();
                    frame[8..12].copy_from_slice(&scattered);
                    frame
                })
                .collect();
            let messages: Vec<_> = frames.iter().map(|frame| [io::IoSlice::new(frame)]).collect();
            let results = sendmmsg(socket.as_raw_fd(), &mut headers, &messages, &none, [], MsgFlags::empty())?;
            let count = u32::try_from(results.count())?;
            sent += count;
            if is_first && sent >= macs {
                is_first = false;
                io::stdout().write_all(b"learnt\n")?;
                io::stdout().flush()?;
            }
        }
        thread::sleep(PULSE.saturating_sub(began.elapsed()));
    }
}
