//! Helper of `benches/run`: starts a guard on a node and takes the times between what happens there and what the guard
//! has done about it. Prints lines of a name, the median, and the quartiles, separated by tabs.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads what the kernel and the guard write")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sched::{CloneFlags, setns};
use pve_public_ip::model::{IfName, MacAddr};
use pve_public_ip::plan::Rules;
use pve_public_ip::ruleset::{Element, SetId, Table};
use pve_public_ip::system::packet::Wire;
use pve_public_ip::system::{Kernel, Nftables};

/// Measures a guard on a lab of `benches/run`.
#[derive(Debug, Parser)]
struct Task {
    /// The lab: network namespaces NAME, NAME.bound, NAME.other and NAME.provider
    lab: String,
    /// The node's files
    root: PathBuf,
    /// The program
    program: PathBuf,
    /// How often
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Seconds without anything to do
    #[arg(long, default_value_t = 60)]
    idle: u64,
}

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time in which a guard comes to rest.
const REST: Duration = Duration::from_millis(2500);

type Figures = BTreeMap<&'static str, Vec<f64>>;

fn main() -> Result<()> {
    let task = Task::parse();
    enter(&task.lab)?;
    let mut figures = Figures::new();
    let mut node = Node::start(&task, &mut figures)?;
    thread::sleep(REST);

    let before = node.processor_time()?;
    thread::sleep(Duration::from_secs(task.idle));
    let used = node.processor_time()?.saturating_sub(before);
    note(&mut figures, "idle", used.as_secs_f64() / Duration::from_secs(task.idle).as_secs_f64() * 100.0);
    note(&mut figures, "rss", node.memory()?);

    for _ in 0..task.rounds {
        node.flush(&task, &mut figures)?;
        node.port(&mut figures)?;
        node.drift(&mut figures)?;
        node.moves(&mut figures)?;
    }
    let began = Instant::now();
    nix::sys::signal::kill(node.pid(), nix::sys::signal::Signal::SIGHUP)?;
    let looks = node.looks()?;
    wait("a look", || Ok(node.looks()? > looks))?;
    note(&mut figures, "asked", ms(began.elapsed()));
    note(&mut figures, "look", node.note("last_look_ms")?);
    note(&mut figures, "rss-after", node.memory()?);

    let mut text = String::new();
    for (name, values) in &mut figures {
        values.sort_by(f64::total_cmp);
        let at = |share: usize| values[(values.len() - 1) * share / 4];
        text += &format!("{name}\t{:.3}\t{:.3}\t{:.3}\t{:.3}\n", at(2), at(1), at(3), at(4));
    }
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn note(figures: &mut Figures, name: &'static str, value: f64) {
    figures.entry(name).or_default().push(value);
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Moves this thread; sockets and children made afterwards belong to that network namespace.
fn enter(netns: &str) -> Result<()> {
    let file = File::open(format!("/run/netns/{netns}")).with_context(|| format!("network namespace {netns}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter network namespace {netns}"))
}

fn sh(line: &str) -> Result<()> {
    let output = Command::new("sh").args(["-ec", line]).output()?;
    ensure!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Time until it is so.
fn wait(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let began = Instant::now();
    while !is_so()? {
        ensure!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_micros(500));
    }
    Ok(began.elapsed())
}

struct Node {
    guard: Child,
    root: PathBuf,
    kernel: Kernel,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }
}

impl Node {
    fn start(task: &Task, figures: &mut Figures) -> Result<Self> {
        let path = task.root.join("notify");
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let began = Instant::now();
        // As the unit has it.
        let guard = Command::new("nice")
            .args(["-n", "-5"])
            .arg(&task.program)
            .arg("--root")
            .arg(&task.root)
            .arg("guard")
            .env("MALLOC_ARENA_MAX", "1")
            .env("MALLOC_TRIM_THRESHOLD_", "131072")
            .env("NOTIFY_SOCKET", &path)
            .stdin(Stdio::null())
            .stderr(File::create(task.root.join("guard.log"))?)
            .spawn()?;
        let mut buffer = [0; 256];
        loop {
            let length = socket.recv(&mut buffer).context("the guard is not ready")?;
            if buffer[..length].starts_with(b"READY") {
                break;
            }
        }
        note(figures, "start", ms(began.elapsed()));
        // Whoever notifies must not be held up by us.
        drop(socket);
        let kernel = Kernel::open(Nftables::reference(None)?)?;
        Ok(Self { guard, root: task.root.clone(), kernel })
    }

    fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(i32::try_from(self.guard.id()).unwrap_or_default())
    }

    /// Of both threads; an idle guard calls no programs.
    fn processor_time(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.guard.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            nanoseconds += text.split(' ').next().context("schedstat")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// MiB.
    fn memory(&self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.guard.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }

    fn note(&self, key: &str) -> Result<f64> {
        let text = fs::read(self.root.join("run/pve-public-ip/guard"))?;
        let state: serde_json::Value = serde_json::from_slice(&text)?;
        state.get(key).and_then(serde_json::Value::as_f64).with_context(|| format!("no {key}"))
    }

    fn looks(&self) -> Result<f64> {
        self.note("looks")
    }

    /// Whether the kernel has it; without the table it has nothing.
    fn has(&mut self, element: &Element) -> bool {
        self.kernel.find_elements(&BTreeSet::from([element.clone()])).is_ok_and(|found| !found.is_empty())
    }

    /// The ruleset is flushed while a guest spoofs another one's address and that one goes on speaking.
    fn flush(&mut self, task: &Task, figures: &mut Figures) -> Result<()> {
        let traffic = Traffic::start(&task.lab)?;
        thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        sh("nft flush ruleset")?;
        let is_loaded = |node: &mut Self| Ok(node.kernel.observe_rules(Table::Bridge)? == Rules::Loaded);
        // The tool returns after the deed.
        wait("the rules are back", || is_loaded(self))?;
        note(figures, "flush", ms(began.elapsed()));
        thread::sleep(REST);
        let (spoofed, own) = traffic.stop()?;
        let leak = match (spoofed.first(), spoofed.last()) {
            (Some(first), Some(last)) => *last - *first,
            _ => Duration::ZERO,
        };
        note(figures, "leak", ms(leak));
        let gaps = own.windows(2).map(|pair| pair[1] - pair[0]);
        note(figures, "outage", ms(gaps.max().context("guest 100 was not heard")?));
        Ok(())
    }

    /// A guest's port comes without a hook.
    fn port(&mut self, figures: &mut Figures) -> Result<()> {
        let port: IfName = "tap101i0".parse()?;
        let bound = Element::port(SetId::Ports, port);
        sh("ip link del tap101i0")?;
        wait("a port that is gone is bound no more", || Ok(!self.has(&bound)))?;
        thread::sleep(REST);
        sh("ip tuntap add tap101i0 mode tap; ip link set tap101i0 master vmbr0 up")?;
        let took = wait("the port is bound", || Ok(self.has(&bound)))?;
        note(figures, "port", ms(took));
        thread::sleep(REST);
        Ok(())
    }

    /// An element, a neighbour and a forwarding entry are taken away.
    fn drift(&mut self, figures: &mut Figures) -> Result<()> {
        let bound = Element::port(SetId::Ports, "tap101i0".parse()?);
        sh("nft 'delete element bridge pve-public-ip ports { tap101i0 }'")?;
        let took = wait("the element is back", || Ok(self.has(&bound)))?;
        note(figures, "drift-element", ms(took));
        thread::sleep(REST);
        sh("ip neigh del 198.18.0.10 dev vmbr0")?;
        let began = Instant::now();
        while sh("ip neigh show 198.18.0.10 dev vmbr0 | grep -q PERMANENT").is_err() {
            ensure!(began.elapsed() < PATIENCE, "the neighbour is not back");
        }
        note(figures, "drift-neighbour", ms(began.elapsed()));
        thread::sleep(REST);
        Ok(())
    }

    /// Guest 101's configuration moves to another node, and back.
    fn moves(&mut self, figures: &mut Figures) -> Result<()> {
        let bound = Element::port(SetId::Ports, "tap101i0".parse()?);
        let pve = self.root.join("etc/pve/nodes");
        let path = |node: &str| -> PathBuf { Path::new(&pve).join(node).join("qemu-server/101.conf") };
        fs::create_dir_all(pve.join("other/qemu-server"))?;
        fs::rename(path("bench"), path("other"))?;
        let took = wait("the binding is gone", || Ok(!self.has(&bound)))?;
        note(figures, "away", ms(took));
        thread::sleep(REST);
        fs::rename(path("other"), path("bench"))?;
        wait("the binding is back", || Ok(self.has(&bound)))?;
        thread::sleep(REST);
        Ok(())
    }
}

/// Frames through the bridge: from guest 100 with its own address, and from guest 99 with guest 100's.
struct Traffic {
    stop: Arc<AtomicBool>,
    senders: Vec<JoinHandle<Result<()>>>,
    receiver: JoinHandle<Result<[Vec<Instant>; 2]>>,
}

const LENGTH: usize = 60;
/// The last byte of a frame of ours.
const OWN: u8 = 0xa1;
const SPOOFED: u8 = 0xa2;

/// An IPv4 packet to the provider with guest 100's address as its source.
fn frame(mac: MacAddr, kind: u8) -> Vec<u8> {
    let mut frame = [&[2, 0, 0, 0xff, 0xff, 1][..], &mac.octets(), &[8, 0]].concat();
    // A header of 20 bytes, 46 bytes in all, 64 hops, protocol 253 (for experiments), and the checksum.
    frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 253, 0, 0, 198, 18, 0, 10, 203, 0, 113, 1]);
    let sum: u32 = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16));
    frame[24..26].copy_from_slice(&checksum.to_be_bytes()[2..]);
    frame.resize(LENGTH - 1, 0);
    frame.push(kind);
    frame
}

impl Traffic {
    fn start(lab: &str) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut senders = Vec::new();
        for (side, mac, kind) in [("bound", "02:00:00:00:00:64", OWN), ("other", "02:00:00:00:00:63", SPOOFED)] {
            let (netns, stop, mac) = (format!("{lab}.{side}"), Arc::clone(&stop), mac.parse::<MacAddr>()?);
            senders.push(thread::spawn(move || {
                enter(&netns)?;
                let wire = Wire::open("eth0".parse()?)?;
                let frame = frame(mac, kind);
                while !stop.load(Ordering::Relaxed) {
                    wire.send(&frame)?;
                    thread::sleep(Duration::from_micros(100));
                }
                Ok(())
            }));
        }
        let (netns, ended) = (format!("{lab}.provider"), Arc::clone(&stop));
        let receiver = thread::spawn(move || {
            enter(&netns)?;
            let wire = Wire::open("eth0".parse()?)?;
            let (mut own, mut spoofed, mut buffer) = (Vec::new(), Vec::new(), [0; 256]);
            while !ended.load(Ordering::Relaxed) {
                match wire.receive(&mut buffer)? {
                    Some(frame) => match frame.get(LENGTH - 1) {
                        Some(&OWN) => own.push(Instant::now()),
                        Some(&SPOOFED) => spoofed.push(Instant::now()),
                        _ => {}
                    },
                    None => thread::sleep(Duration::from_micros(50)),
                }
            }
            Ok([spoofed, own])
        });
        Ok(Self { stop, senders, receiver })
    }

    /// When the provider heard a spoofed frame, and when one of guest 100's own.
    fn stop(self) -> Result<(Vec<Instant>, Vec<Instant>)> {
        self.stop.store(true, Ordering::Relaxed);
        for sender in self.senders {
            sender.join().ok().context("a sender died")??;
        }
        let [spoofed, own] = self.receiver.join().ok().context("the receiver died")??;
        Ok((spoofed, own))
    }
}
