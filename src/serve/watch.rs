//! What happens, told as it happens: this node's audit log, read on from where it ends; where guests are; who claims what.
//!
//! What is done on other nodes comes by the guard of this one, which writes down what it finds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek as _, SeekFrom, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use super::send;
use crate::audit::{self, Entry};
use crate::conflict::Conflict;
use crate::model::{GuestKind, NodeName, Vmid};
use crate::ops;
use crate::paths::Paths;
use crate::reconcile::Node;
use crate::registry::Registry;
use crate::reply::{Event, EventKind, Outcome};
use crate::request::Watch;
use crate::store::journal::now;

/// How often is looked into the log.
const TICK: Duration = Duration::from_millis(500);

/// How often a watcher hears that the connection lives.
const ALIVE: Duration = Duration::from_secs(15);

/// How often is looked where guests are, and for claims of others.
const ROUND: Duration = Duration::from_secs(2);

/// No line of the log is longer, in bytes.
const LINE: u64 = 1 << 20;

/// Whom what is told.
pub(super) struct Watcher<'a> {
    pub(super) id: Option<&'a Value>,
    pub(super) request: &'a Watch,
    /// The organization whose addresses exist for it.
    pub(super) within: Option<&'a str>,
}

impl Watcher<'_> {
    /// Tells, until nobody listens any more.
    pub(super) fn run(&self, paths: &Paths, output: &mut impl Write) -> io::Result<()> {
        let mut problem = |problem| send(&mut *output, self.id.cloned(), Outcome::Problem(problem));
        let node = match Node::open(paths.clone()) {
            Ok(node) => node,
            Err(error) => return problem(ops::problem_of(&error.into())),
        };
        let wanted =
            match self.request.vps_id.as_deref().map(|word| ops::guest_of(&node, word, self.within)).transpose() {
                Ok(wanted) => wanted,
                Err(refusal) => return problem(refusal),
            };
        let mut log = Log::at_end(paths.audit_log())?;
        let mut places = node.guests.places();
        let mut claims = claims(&node);
        let (mut told, mut looked) = (Instant::now(), Instant::now());
        let mut tell = |event: Event| send(output, self.id.cloned(), Outcome::Event(event));
        let plain = |kind: EventKind| Event::new(kind, now(), node.name.clone());
        tell(plain(EventKind::Ready))?;
        loop {
            sleep(TICK);
            if is_gone() {
                return Ok(());
            }
            let mut events: Vec<Event> = log.next()?.iter().filter_map(of_entry).collect();
            if looked.elapsed() >= ROUND {
                looked = Instant::now();
                let before = std::mem::replace(&mut places, node.guests.places());
                events.extend(moves(&before, &places));
                let before = std::mem::replace(&mut claims, self::claims(&node));
                let new = claims.iter().filter(|(id, _)| !before.contains_key(*id));
                events.extend(new.flat_map(|(_, events)| events.clone()));
            }
            if !events.is_empty() {
                let registry = node.store.load_usable().unwrap_or_default();
                for event in events.into_iter().flat_map(|event| completed(event, &registry)) {
                    let is_meant = wanted.is_none_or(|vmid| event.vmid == Some(vmid));
                    let is_seen = self.within.is_none_or(|within| event.organization.as_deref() == Some(within));
                    if is_meant && is_seen {
                        tell(event)?;
                        told = Instant::now();
                    }
                }
            }
            if told.elapsed() >= ALIVE {
                told = Instant::now();
                tell(plain(EventKind::Alive))?;
            }
        }
    }
}

/// Whether the other end is closed.
fn is_gone() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let ended = PollFlags::POLLHUP | PollFlags::POLLERR;
    poll(&mut fds, PollTimeout::ZERO).is_ok() && fds[0].revents().is_some_and(|events| events.intersects(ended))
}

/// The log, from where it was read last.
struct Log {
    path: PathBuf,
    file: Option<(u64, BufReader<File>)>,
}

impl Log {
    fn at_end(path: PathBuf) -> io::Result<Self> {
        let mut log = Self { path, file: None };
        log.open()?;
        if let Some((_, file)) = &mut log.file {
            file.seek(SeekFrom::End(0))?;
        }
        Ok(log)
    }

    fn open(&mut self) -> io::Result<()> {
        match File::open(&self.path) {
            Ok(file) => self.file = Some((file.metadata()?.ino(), BufReader::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.file = None,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What was written since. After a rotation the old file is read to its end first.
    fn next(&mut self) -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        self.read(&mut found)?;
        let there = std::fs::symlink_metadata(&self.path).ok().map(|meta| meta.ino());
        if there.is_some() && there != self.file.as_ref().map(|(inode, _)| *inode) {
            self.open()?;
            self.read(&mut found)?;
        }
        Ok(found)
    }

    fn read(&mut self, found: &mut Vec<Entry>) -> io::Result<()> {
        let Some((_, file)) = &mut self.file else { return Ok(()) };
        loop {
            let start = file.stream_position()?;
            let mut line = Vec::new();
            let length = io::Read::take(&mut *file, LINE).read_until(b'\n', &mut line)?;
            if length == 0 {
                return Ok(());
            }
            if !line.ends_with(b"\n") && u64::try_from(length).unwrap_or(LINE) < LINE {
                // It is being written.
                file.seek(SeekFrom::Start(start))?;
                return Ok(());
            }
            found.extend(serde_json::from_slice::<Entry>(&line).ok());
        }
    }
}

/// What an entry is to a watcher.
fn of_entry(entry: &Entry) -> Option<Event> {
    let event = match entry.change.event {
        audit::Event::Assigned => EventKind::Assigned,
        audit::Event::Released => EventKind::Released,
        audit::Event::Bound => EventKind::Protected,
        audit::Event::Unbound => EventKind::Unprotected,
        audit::Event::Repaired => EventKind::Drift,
        _ => return None,
    };
    let stored = entry.change.after.as_ref().or(entry.change.before.as_ref());
    let text = |key: &str| stored.and_then(|value| value.get(key)?.as_str()).map(str::to_owned);
    Some(Event {
        address: entry.change.address,
        vmid: entry.change.vmid,
        vps_id: text("vps_id"),
        mac: entry.change.mac,
        organization: text("organization"),
        pool: entry.change.pool.clone(),
        text: entry.change.text.clone(),
        ..Event::new(event, entry.time, entry.node.clone())
    })
}

fn moves(before: &BTreeMap<Vmid, (NodeName, GuestKind)>, after: &BTreeMap<Vmid, (NodeName, GuestKind)>) -> Vec<Event> {
    let moved = after.iter().filter(|(vmid, (node, _))| before.get(vmid).is_some_and(|(was, _)| was != node));
    moved
        .map(|(vmid, (node, _))| Event { vmid: Some(*vmid), ..Event::new(EventKind::Moved, now(), node.clone()) })
        .collect()
}

/// Who claims what somebody else has, by the conflict's number.
fn claims(node: &Node) -> BTreeMap<String, Vec<Event>> {
    let of = |conflict: &Conflict, vmid: Vmid| Event {
        vmid: Some(vmid),
        address: conflict.address,
        text: Some(conflict.sentence.clone()),
        ..Event::new(EventKind::Conflict, now(), node.name.clone())
    };
    let all = |conflict: Conflict| {
        let events = conflict.guests.iter().map(|vmid| of(&conflict, *vmid)).collect();
        (conflict.id, events)
    };
    ops::claimed(node).into_iter().map(all).collect()
}

/// With what the registry knows: one event for each address of a guest that is all that is known.
fn completed(event: Event, registry: &Registry) -> Vec<Event> {
    let is_known = matches!(event.event, EventKind::Assigned | EventKind::Released | EventKind::Drift);
    let Some(guest) = event.vmid.and_then(|vmid| registry.guests.get(&vmid)).filter(|_| !is_known) else {
        return vec![event];
    };
    let held = guest.addresses().filter(|(.., assigned)| event.address.is_none_or(|it| it == assigned.address));
    let mut seen = BTreeSet::new();
    let events: Vec<Event> = held
        .filter(|(.., assigned)| seen.insert(assigned.address))
        .map(|(_, interface, assigned)| Event {
            address: Some(assigned.address),
            mac: Some(interface.mac),
            pool: Some(assigned.pool.clone()),
            organization: assigned.organization.clone(),
            vps_id: assigned.vps_id.clone(),
            ..event.clone()
        })
        .collect();
    // Of a guest without addresses it is nobody's business where it is.
    let is_about_addresses = matches!(event.event, EventKind::Moved | EventKind::Conflict);
    if events.is_empty() && !is_about_addresses { vec![event] } else { events }
}
