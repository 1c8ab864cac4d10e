//! What the guard does although nothing has happened, and when.

use std::time::{Duration, Instant};

use super::schedule::Schedule;
use crate::ruleset::{Backend, Variant};

/// How often iptables is asked whether it has changed, which takes half a dozen processes.
const CHAINS_INTERVAL: Duration = Duration::from_secs(2);

/// The same where nf_tables reports it, and only the sets of `ipset` change in silence.
const REPORTED_CHAINS_INTERVAL: Duration = Duration::from_secs(10);

/// How often the node's neighbour table is asked where the gateways are.
const GATEWAYS_INTERVAL: Duration = Duration::from_secs(2);

/// When to do what. Times are counted from the start of the guard.
#[derive(Debug)]
pub(super) struct Timers {
    started: Instant,
    /// When to look at the node, and why.
    pub(super) schedule: Schedule,
    /// When to ask iptables.
    chains: Duration,
    /// When to look for gateways that have moved.
    gateways: Duration,
    /// When metrics were gathered last.
    gathered: Option<Duration>,
}

impl Timers {
    /// The first look is due at once.
    pub(super) fn new() -> Self {
        let (chains, gateways) = (Duration::ZERO, Duration::ZERO);
        Self { started: Instant::now(), schedule: Schedule::new(), chains, gateways, gathered: None }
    }

    /// Since the start.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// How long to sleep unless something happens; iptables and gateways count only where something relies on them.
    pub(super) fn left(&self, chains: bool, gateways: bool, metrics: Duration) -> Duration {
        let now = self.now();
        let due = [chains.then_some(self.chains), gateways.then_some(self.gateways)];
        let due = due.into_iter().flatten().chain([self.gathered.unwrap_or_default() + metrics]);
        let due = due.map(|due| due.saturating_sub(now));
        due.fold(self.schedule.left(now), Duration::min)
    }

    /// Whether to ask iptables now; the next time is after its pause.
    pub(super) fn are_chains_due(&mut self, backend: Backend) -> bool {
        let now = self.now();
        let is_due = now >= self.chains;
        if is_due {
            self.ask_chains_later(backend);
        }
        is_due
    }

    /// A look has asked iptables.
    pub(super) fn ask_chains_later(&mut self, backend: Backend) {
        let pause = match backend {
            Backend::Iptables { variant: Variant::Nft, .. } => REPORTED_CHAINS_INTERVAL,
            Backend::Iptables { .. } | Backend::Nftables => CHAINS_INTERVAL,
        };
        self.chains = self.now() + pause;
    }

    /// iptables may have changed.
    pub(super) fn ask_chains_now(&mut self) {
        self.chains = self.now().min(self.chains);
    }

    /// Whether to look for gateways that have moved; the next time is after the pause.
    pub(super) fn are_gateways_due(&mut self) -> bool {
        let now = self.now();
        let is_due = now >= self.gateways;
        if is_due {
            self.gateways = now + GATEWAYS_INTERVAL;
        }
        is_due
    }

    /// Whether to gather metrics.
    pub(super) fn are_metrics_due(&self, interval: Duration) -> bool {
        self.gathered.is_none_or(|gathered| self.now() >= gathered + interval)
    }

    /// They were gathered.
    pub(super) fn gathered(&mut self) {
        self.gathered = Some(self.now());
    }
}
