//! What was learnt of the routers behind the uplinks: kept where it outlives a boot, so that they are protected from the
//! first frame on; and what was heard of them since, until the next look at the node takes it in.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::host::files;
use crate::paths::Paths;
use crate::plan::{Question, Router, Sighting};

/// Larger than any list of routers: there is a limit to what is learnt.
const MAX_SIZE: usize = 1 << 20;

/// Sightings that wait to be taken in; of more somebody makes them up.
const WAITING: usize = 1024;

const VERSION: u64 = 1;

#[derive(Serialize, Deserialize)]
struct Note {
    version: u64,
    routers: Vec<Router>,
}

/// Every router that was learnt. A note that cannot be read is as good as none: what it said is learnt again.
pub fn load(paths: &Paths) -> Vec<Router> {
    let bytes = files::read_limited(&paths.routers(), MAX_SIZE).unwrap_or_default();
    let note = serde_json::from_slice::<Note>(&bytes).ok().filter(|note| note.version == VERSION);
    note.map(|note| note.routers).unwrap_or_default()
}

/// Keeps it. Called with the node's lock held.
///
/// # Errors
///
/// If the file cannot be written.
pub fn save(paths: &Paths, routers: &[Router]) -> io::Result<()> {
    files::directories(&paths.state())?;
    let note = Note { version: VERSION, routers: routers.to_vec() };
    files::replace(&paths.routers(), &serde_json::to_vec_pretty(&note)?)
}

fn heard_path(paths: &Paths) -> PathBuf {
    paths.run().join("routers-heard")
}

/// What was heard and waits to be taken in, in the order in which it was heard.
pub fn heard(paths: &Paths) -> Vec<Sighting> {
    let bytes = files::read_limited(&heard_path(paths), MAX_SIZE).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Drops what has been taken in: the first `count`. More may have been heard since.
///
/// # Errors
///
/// If the run directory cannot be used.
pub fn taken_in(paths: &Paths, count: usize) -> io::Result<()> {
    let _lock = files::lock(&paths.run().join("routers.lock"))?;
    let left = heard(paths).split_off(count.min(heard(paths).len()));
    if left.is_empty() {
        return files::remove(&heard_path(paths));
    }
    files::replace(&heard_path(paths), &serde_json::to_vec(&left)?)
}

/// Notes what was heard; needs no lock of the node, because whoever hears it may have waited for an answer.
///
/// # Errors
///
/// If the run directory cannot be used.
pub fn note(paths: &Paths, sightings: Vec<Sighting>) -> io::Result<()> {
    if sightings.is_empty() {
        return Ok(());
    }
    let _lock = files::lock(&paths.run().join("routers.lock"))?;
    let mut all = heard(paths);
    all.extend(sightings);
    all.truncate(WAITING);
    files::replace(&heard_path(paths), &serde_json::to_vec(&all)?)
}

/// When which questions were asked last.
#[derive(Default, Serialize, Deserialize)]
struct Asked {
    at: u64,
    what: BTreeSet<String>,
}

/// Whether these questions should be asked: one was not asked the last time, or that is this many seconds ago. Notes that
/// they are asked now.
pub fn is_due(paths: &Paths, questions: &[Question], now: u64, interval: u64) -> bool {
    let path = paths.run().join("routers-asked");
    let mut what = BTreeSet::new();
    for Question { bridge, addresses, solicit, .. } in questions {
        what.extend(addresses.iter().map(|address| format!("{bridge} {address}")));
        what.extend(solicit.then(|| format!("{bridge} routers")));
    }
    let bytes = files::read_limited(&path, MAX_SIZE).unwrap_or_default();
    let asked: Asked = serde_json::from_slice(&bytes).unwrap_or_default();
    // A clock that was set back shall not put it off for ever.
    let is_old = now.abs_diff(asked.at) >= interval;
    if what.is_empty() || (what.is_subset(&asked.what) && !is_old) {
        return false;
    }
    let written = files::private_directory(&paths.run()).is_ok();
    if let (true, Ok(bytes)) = (written, serde_json::to_vec(&Asked { at: now, what })) {
        // At worst they are asked once too often.
        let _ = files::replace(&path, &bytes);
    }
    true
}
