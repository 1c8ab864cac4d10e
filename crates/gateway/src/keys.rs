//! The keys of the root part, read again all the time: one that is revoked counts no more after two seconds.

use std::sync::Arc;
use std::time::Duration;

use pve_public_ip_core::model::Problem;
use pve_public_ip_core::reply::Keys;
use pve_public_ip_core::request::Request;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::auth::Keyring;
use crate::backend::{Backend, own};
use crate::convert;
use crate::log::{Level, line};

/// Between two readings.
const INTERVAL: Duration = Duration::from_millis(500);

/// Keys that are older than this are not known: they may have been revoked.
const OLDEST: Duration = Duration::from_millis(1500);

/// Reads the keys for ever.
pub async fn refresh(backend: Backend, keyring: watch::Sender<Arc<Keyring>>) {
    let mut read_at = Instant::now();
    let mut was_complete = None;
    loop {
        let time = OLDEST.saturating_sub(read_at.elapsed()).max(INTERVAL);
        let keys = timeout(time, keys(&backend)).await;
        let (keys, why) = match keys {
            Ok(Ok(keys)) => (Some(keys.keys), String::new()),
            Ok(Err(problem)) => (None, problem.sentence),
            Err(_) => (None, format!("no answer within {} ms", time.as_millis())),
        };
        let is_complete = keys.is_some();
        if is_complete {
            read_at = Instant::now();
        }
        if is_complete || read_at.elapsed() >= OLDEST || was_complete.is_none() {
            keyring.send_if_modified(|ring| {
                let new = Keyring::clone(ring).with_stored(keys);
                let is_another = new != **ring;
                if is_another {
                    *ring = Arc::new(new);
                }
                is_another
            });
            if was_complete != Some(is_complete) {
                if is_complete {
                    line(Level::Info, "the root part answers");
                } else {
                    line(Level::Warning, &format!("the root part does not answer: {why}"));
                }
                was_complete = Some(is_complete);
            }
        }
        sleep(INTERVAL).await;
    }
}

async fn keys(backend: &Backend) -> Result<Keys, Problem> {
    convert::read(backend.ask(own(Request::ListKeys {})).await?)
}
