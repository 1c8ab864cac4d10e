//! Listens to what the filter drops, in a thread of its own, and notes who claims what belongs to somebody else.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::conflict::{Claim, Claims, Source, sighted};
use crate::links::is_guest_port;
use crate::model::IfName;
use crate::paths::Paths;
use crate::store::journal::now;
use crate::system::claims;
use crate::system::netlink::NetlinkError;
use crate::system::nflog::Nflog;

/// How long to gather before the file is written, and how soon the thread ends when it is not wanted any more.
const PAUSE: u16 = 1000;

/// What is listened to: the group, and the ports that the administrator has named as uplinks.
pub type Subject = (u16, Option<BTreeSet<IfName>>);

/// The thread, until dropped.
#[derive(Debug)]
pub struct Listener {
    /// What it listens to.
    pub subject: Subject,
    ended: Arc<AtomicBool>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl Listener {
    /// Starts it.
    pub fn start(paths: &Paths, subject: Subject) -> Result<Self, NetlinkError> {
        let nflog = Nflog::listen(subject.0)?;
        let ended = Arc::new(AtomicBool::new(false));
        let (paths, uplinks, flag) = (paths.clone(), subject.1.clone(), Arc::clone(&ended));
        let body = move || {
            if let Err(error) = listen(nflog, &paths, uplinks.as_ref(), &flag) {
                log::warn!("guard: conflicts are not watched any more: {error}");
            }
        };
        let started = thread::Builder::new().name("conflicts".to_owned()).spawn(body);
        started.map_err(|error| NetlinkError::new("start a thread", error))?;
        Ok(Self { subject, ended })
    }
}

fn listen(mut nflog: Nflog, paths: &Paths, uplinks: Option<&BTreeSet<IfName>>, ended: &AtomicBool) -> io::Result<()> {
    let mut said = BTreeSet::new();
    while !ended.load(Ordering::Relaxed) {
        match poll(&mut [PollFd::new(nflog.as_fd(), PollFlags::POLLIN)], PollTimeout::from(PAUSE)) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        // What comes in the same second is one write; a flood is cut down by the rules before.
        thread::sleep(Duration::from_millis(PAUSE.into()));
        let mut seen = Claims::default();
        for dropped in nflog.drain().map_err(|error| error.source)? {
            let named = |uplinks: &BTreeSet<IfName>| uplinks.contains(&dropped.port);
            let is_uplink = uplinks.map_or_else(|| !is_guest_port(dropped.port.as_str()), named);
            if let Some(claim) = sighted(&dropped.reason, dropped.port, is_uplink, &dropped.frame) {
                say(&claim, &mut said);
                seen.note(claim, 1, now());
            }
        }
        if !seen.is_empty() {
            claims::change(paths, |claims| claims.merge(seen))?;
        }
    }
    Ok(())
}

/// Says each claim from outside once, and that a guest makes some at all.
fn say(claim: &Claim, said: &mut BTreeSet<Claim>) {
    const SAID: usize = 256;
    let key =
        if claim.source == Source::Guest { Claim { mac: None, address: None, ..claim.clone() } } else { claim.clone() };
    if said.len() < SAID && said.insert(key) {
        let mac = claim.mac.map(|mac| format!("MAC {mac}")).unwrap_or_default();
        let what =
            claim.address.map_or_else(|| "which is another port's".to_owned(), |address| format!("for {address}"));
        log::warn!("conflict: {mac} was seen on {}, {what}: `pve-public-ip conflicts list`", claim.port);
    }
}
