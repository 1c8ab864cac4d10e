//! The metrics of the node, which the root part knows: asked for when somebody looks, and not more often than they change.

use std::sync::Arc;
use std::time::Duration;

use pve_public_ip_core::reply::Metrics;
use pve_public_ip_core::request::Request;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::backend::{Backend, own};
use crate::convert;

/// Whoever looks again before this is shown the same.
const FRESH: Duration = Duration::from_secs(5);

/// Within less than Prometheus waits for.
const TIME: Duration = Duration::from_secs(8);

/// What monitoring of the node reads.
#[derive(Debug)]
pub struct NodeMetrics {
    backend: Backend,
    known: Mutex<Option<(Instant, Arc<str>)>>,
}

impl NodeMetrics {
    /// By a connection of its own.
    pub fn new(backend: Backend) -> Self {
        Self { backend, known: Mutex::default() }
    }

    /// Empty if the root part does not tell: the gateway's own metrics say whether it answers.
    pub async fn text(&self) -> Arc<str> {
        let mut known = self.known.lock().await;
        if let Some((_, text)) = known.as_ref().filter(|(read_at, _)| read_at.elapsed() < FRESH) {
            return Arc::clone(text);
        }
        let asked = async { convert::read::<Metrics>(self.backend.ask(own(Request::Metrics {})).await?) };
        let text = timeout(TIME, asked).await.ok().and_then(Result::ok).map(|metrics| metrics.text);
        let text: Arc<str> = text.unwrap_or_default().into();
        *known = Some((Instant::now(), Arc::clone(&text)));
        text
    }
}
