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
use crate::model::{GuestKind, MacAddr, NodeName, Prefix, Vmid};
use crate::ops;
use crate::paths::Paths;
use crate::reconcile::Node;
use crate::registry::Registry;
use crate::registry::document::GuestFile;
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
                let is_here = |vmid: Vmid| places.get(&vmid).is_some_and(|(place, _)| *place == node.name);
                let apart =
                    |event| if self.within.is_some() { by_guest(event, &registry, is_here) } else { vec![event] };
                let events = events.into_iter().flat_map(apart);
                for event in events.flat_map(|event| completed(event, &registry)) {
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

/// Drift as events of the guests that it was about, each with words that name nobody else: for whoever may know of some guests
/// only. Drift that names nobody is about all that are here.
fn by_guest(event: Event, registry: &Registry, is_here: impl Fn(Vmid) -> bool) -> Vec<Event> {
    if event.event != EventKind::Drift || event.vmid.is_some() {
        return vec![event];
    }
    let named = named_in(event.text.as_deref().unwrap_or_default(), registry);
    let of = |guest: &GuestFile| {
        let events = guest.addresses().map(|(_, interface, assigned)| Event {
            vmid: Some(guest.vmid),
            address: Some(assigned.address),
            mac: Some(interface.mac),
            pool: Some(assigned.pool.clone()),
            organization: assigned.organization.clone(),
            vps_id: assigned.vps_id.clone(),
            text: Some(format!("the kernel was not as it should be for guest {}, and is again", guest.vmid)),
            ..event.clone()
        });
        events.collect::<Vec<_>>()
    };
    let is_meant = |vmid: Vmid| is_here(vmid) && named.as_ref().is_none_or(|named| named.contains(&vmid));
    registry.guests.iter().filter(|(vmid, _)| is_meant(**vmid)).flat_map(|(_, guest)| of(guest)).collect()
}

/// The guests whose ports, MACs or addresses a text names; `None`: it names none at all.
fn named_in(text: &str, registry: &Registry) -> Option<BTreeSet<Vmid>> {
    let mut named = None;
    let words = text.split(|c: char| c.is_whitespace() || "()[]{}`'\",;=".contains(c));
    for word in words.flat_map(|word| [word, word.trim_end_matches(['.', ':'])]) {
        let of_port = ["tap", "veth", "fwpr", "fwln"].iter().find_map(|kind| {
            let rest = word.strip_prefix(kind)?;
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            rest[..end].parse::<Vmid>().ok()
        });
        let holds = |guest: &GuestFile| {
            let mac = word.parse::<MacAddr>().ok();
            let address = word.parse::<Prefix>().ok();
            let mut held = guest.addresses();
            held.any(|(_, nic, assigned)| {
                mac == Some(nic.mac) || address.is_some_and(|address| address.overlaps(assigned.address))
            })
        };
        let is_name = of_port.is_some() || word.parse::<MacAddr>().is_ok() || word.parse::<Prefix>().is_ok();
        if is_name {
            let all: &mut BTreeSet<Vmid> = named.get_or_insert_default();
            all.extend(of_port);
            all.extend(registry.guests.iter().filter(|(_, guest)| holds(guest)).map(|(vmid, _)| *vmid));
        }
    }
    named
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::registry::document::parse;

    fn registry() -> Registry {
        let guest = |vmid: u32, organization: &str| -> GuestFile {
            let last = vmid % 256;
            let text = format!(
                r#"{{"version":1,"vmid":{vmid},"interfaces":{{"net0":{{"mac":"02:00:00:00:00:{last:02x}","addresses":
                    [{{"address":"203.0.113.{last}/32","pool":"a","organization":"{organization}","assigned_at":"2026-11-22T10:00:00Z"}}]}}}}}}"#
            );
            parse(Path::new("guest.json"), text.as_bytes()).unwrap()
        };
        let guests = [guest(100, "acme"), guest(101, "other"), guest(102, "acme")];
        Registry { guests: guests.into_iter().map(|guest| (guest.vmid, guest)).collect(), ..Registry::default() }
    }

    #[test]
    fn drift_is_told_to_those_whom_it_is_about() {
        let registry = registry();
        let here = |vmid: Vmid| vmid != "102".parse().unwrap();
        let about = |text: &str| -> Vec<String> {
            let event =
                Event { text: Some(text.to_owned()), ..Event::new(EventKind::Drift, now(), "n1".parse().unwrap()) };
            let events = by_guest(event, &registry, here);
            assert!(events.iter().all(|event| event.organization.is_some()));
            // Nothing of what was said, which may be about others.
            assert!(events.iter().all(|event| event.text.as_deref() != Some(text)));
            events.iter().filter_map(|event| Some(event.vmid?.to_string())).collect()
        };
        for (text, expected) in [
            ("the filter is missing", vec!["100", "101"]),
            ("missing: tap100i0 may send 203.0.113.100", vec!["100"]),
            ("203.0.113.101 is led to a bridge", vec!["101"]),
            ("02:00:00:00:00:65 on fwpr101p0.", vec!["101"]),
            ("tap100i0 and tap101i0", vec!["100", "101"]),
            ("203.0.113.0/24 is not protected", vec!["100", "101"]),
            ("198.51.100.9 is nobody's", vec![]),
            ("tap102i0", vec![]),
        ] {
            assert_eq!(about(text), expected, "{text}");
        }
    }
}
