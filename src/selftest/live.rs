//! Attacks what a node protects, on its own bridges, and nobody notices.
//!
//! Two ports are plugged in for it, named like those of a guest that cannot exist, with their other ends in namespaces
//! without a name: the kernel takes them away when this process ends, however it ends. Every frame is addressed to the
//! MAC of the second one, and a static entry of the forwarding table leads there. So what gets through arrives at the
//! listener, never at a guest, the node or the provider. The bridge learns nothing of either port and floods nothing to
//! them.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd as _;
use std::thread;
use std::time::{Duration, Instant};

use super::frames::{Mac, ether};
use super::lab::{BURST, EXPERIMENTAL, distinct, forms, ip, plug};
use super::targets::{ATTACKER, LISTENER, Target};
use super::verdicts::Case;
use super::{Error, stay_on_one_cpu};
use crate::host::command::{self, CommandError};
use crate::links::TEST_PORTS;
use crate::model::{IfName, MacAddr};
use crate::system::namespace::Namespace;
use crate::system::packet::{Wire, in_time};

/// How long a new port may take before it forwards.
const START_LIMIT: Duration = Duration::from_secs(3);
/// How long a frame may be on its way. Usually it takes microseconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// What came of it on one bridge.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Outcome {
    /// The bridge.
    pub bridge: IfName,
    /// How many frames of each kind were sent.
    pub sent: BTreeMap<&'static str, usize>,
    /// Frames that must not arrive and did.
    pub passed: Vec<Passed>,
    /// How long it took.
    pub milliseconds: u64,
}

/// A frame that must not arrive and did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Passed {
    /// What it was aimed at.
    pub target: String,
    /// Its kind.
    pub group: &'static str,
    /// What exactly.
    pub frame: String,
}

/// Attacks these targets on a bridge that has ports.
pub fn attack(bridge: IfName, targets: &[&Target]) -> Result<Outcome, Error> {
    // `setns` moves only the calling thread, and this one is nobody else's.
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            stay_on_one_cpu()?;
            Pair::plug_in(bridge)?.attack(targets)
        });
        thread.join().unwrap_or(Err(Error::Ended))
    })
}

/// Takes away the ports of a run that was killed, should the kernel not have done so yet.
fn unplug() {
    for port in TEST_PORTS {
        // Usually there is none.
        let _ = command::run("ip", &["link", "delete", port], b"");
    }
}

/// Both ports, plugged in; they go with this value.
struct Pair {
    bridge: IfName,
    attacker: Wire,
    listener: Wire,
    /// Keep the far ends alive.
    _ends: [Namespace; 2],
    honest: u32,
    buffer: Vec<u8>,
}

impl Drop for Pair {
    fn drop(&mut self) {
        unplug();
    }
}

impl Pair {
    fn plug_in(bridge: IfName) -> Result<Self, Error> {
        unplug();
        let node = Namespace::current()?;
        let mtu = mtu(bridge)?;
        let end = |port: &str, mac: Mac| {
            // As high as Proxmox VE's, so that the bridge does not take it for its own.
            let host = MacAddr::from_octets([0xfe, mac[1], mac[2], mac[3], mac[4], mac[5]]);
            plug(&node, IfName::literal(port), mac, host, &mtu)
        };
        let [port, listening] = TEST_PORTS;
        let (attacker_end, attacker) = end(port, ATTACKER.mac)?;
        let (listener_end, listener) = end(listening, LISTENER)?;
        let ends = [attacker_end, listener_end];
        let pair = Self { bridge, attacker, listener, _ends: ends, honest: 0, buffer: vec![0; 70_000] };
        let each = |words: &str| TEST_PORTS.map(|port| format!("link set dev {port} {words}\n")).concat();
        // All before they are up: the bridge knows the way before the first frame, and learns no other.
        ip(&each(&format!("addrgenmode none master {bridge}")))?;
        let listener = MacAddr::from_octets(LISTENER);
        let quiet = each("learning off flood off mcast_flood off bcast_flood off");
        let quiet = format!("{quiet}fdb add {listener} dev {listening} master static\n");
        command::run("bridge", &["-batch", "-"], quiet.as_bytes())?;
        ip(&each("up"))?;
        Ok(pair)
    }

    fn attack(mut self, targets: &[&Target]) -> Result<Outcome, Error> {
        let started = Instant::now();
        // What does not arrive says something only if what may arrive does.
        while !self.is_heard(Duration::from_millis(5), |_| {})? {
            if started.elapsed() > START_LIMIT {
                return Err(Error::Unheard(self.bridge));
            }
        }
        let mut sent = BTreeMap::new();
        let mut passed = Vec::new();
        for target in targets {
            let cases = target.attacks();
            let cases: Vec<&Case> = cases.iter().collect();
            let mut rest: Vec<usize> = (0..cases.len()).collect();
            while !rest.is_empty() {
                let burst;
                (burst, rest) = distinct(&cases, &rest, BURST);
                for at in &burst {
                    *sent.entry(cases[*at].group).or_default() += 1;
                }
                passed.extend(self.play(&cases, &burst)?.into_iter().map(|at| Passed {
                    target: target.name.clone(),
                    group: cases[at].group,
                    frame: cases[at].class.clone(),
                }));
            }
        }
        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Outcome { bridge: self.bridge, sent, passed, milliseconds })
    }

    /// Sends some frames that can be told apart; returns which of them arrived.
    fn play(&mut self, cases: &[&Case], burst: &[usize]) -> Result<Vec<usize>, Error> {
        let mut known = HashMap::new();
        for at in burst {
            known.extend(forms(&cases[*at].frame).into_iter().map(|form| (form, *at)));
            self.attacker.send(&cases[*at].frame)?;
        }
        let mut arrived = Vec::new();
        if !self.is_heard(PATIENCE, |frame| arrived.extend(known.get(frame)))? {
            return Err(Error::Unheard(self.bridge));
        }
        Ok(arrived)
    }

    /// Whether an honest frame arrives. Frames keep their order on one CPU: what was sent before it arrives before it, or
    /// not at all.
    fn is_heard(&mut self, limit: Duration, mut others: impl FnMut(&[u8])) -> Result<bool, Error> {
        self.honest += 1;
        let honest =
            ether(LISTENER, ATTACKER.mac, EXPERIMENTAL, &[b"honest ", &self.honest.to_be_bytes()[..]].concat());
        self.attacker.send(&honest)?;
        let started = Instant::now();
        loop {
            let left = limit.saturating_sub(started.elapsed());
            match in_time(self.listener.as_fd(), left, || self.listener.receive(&mut self.buffer))? {
                Some(frame) if frame == honest => return Ok(true),
                Some(frame) => others(&frame),
                None if started.elapsed() >= limit => return Ok(false),
                None => {}
            }
        }
    }
}

/// A bridge takes the smallest one of its ports.
fn mtu(bridge: IfName) -> Result<String, CommandError> {
    let text = command::run("ip", &["-o", "link", "show", "dev", bridge.as_str()], b"")?;
    let text = String::from_utf8_lossy(&text);
    let mut words = text.split_whitespace().skip_while(|word| *word != "mtu").skip(1);
    Ok(words.next().unwrap_or("1500").to_owned())
}
