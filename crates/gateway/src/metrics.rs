//! Numbers for Prometheus: requests by method and code, how long they took, wrong secrets, what is open.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Upper ends of the classes of durations, in seconds.
const CLASSES: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];

/// How long requests of a method took.
#[derive(Debug, Default, Clone, Copy)]
struct Durations {
    classes: [u64; CLASSES.len()],
    count: u64,
    sum: f64,
}

#[derive(Debug, Default)]
struct Counts {
    requests: BTreeMap<(&'static str, &'static str), u64>,
    durations: BTreeMap<&'static str, Durations>,
    failed_authentications: BTreeMap<&'static str, u64>,
    root_failures: u64,
}

/// Something that is open, counted while it is.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// One more.
    pub fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All numbers.
#[derive(Debug, Default)]
pub struct Metrics {
    counts: Mutex<Counts>,
    /// Connections.
    pub connections: Gauge,
    /// Requests that are not answered yet.
    pub requests: Gauge,
    /// Watchers.
    pub streams: Gauge,
}

impl Metrics {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Numbers are whole after every line that changes them.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request was answered.
    pub fn answered(&self, method: &'static str, code: &'static str, took: Duration) {
        let mut counts = self.counts();
        *counts.requests.entry((method, code)).or_default() += 1;
        let durations = counts.durations.entry(method).or_default();
        let seconds = took.as_secs_f64();
        if let Some(class) = CLASSES.iter().position(|end| seconds <= *end) {
            durations.classes[class] += 1;
        }
        durations.count += 1;
        durations.sum += seconds;
    }

    /// A secret was refused.
    pub fn refused(&self, reason: &'static str) {
        *self.counts().failed_authentications.entry(reason).or_default() += 1;
    }

    /// The root part could not be reached, or broke off.
    pub fn root_failed(&self) {
        self.counts().root_failures += 1;
    }

    /// The text that Prometheus reads.
    pub fn render(&self, is_up: bool, version: &str) -> String {
        let mut text = String::new();
        self.write(&mut text, is_up, version).unwrap_or_default();
        text
    }

    fn write(&self, out: &mut String, is_up: bool, version: &str) -> std::fmt::Result {
        const P: &str = "pve_public_ip_gateway";
        let head = |out: &mut String, name: &str, kind: &str, help: &str| {
            writeln!(out, "# HELP {P}_{name} {help}\n# TYPE {P}_{name} {kind}")
        };
        let counts = self.counts();
        head(out, "build_info", "gauge", "Release of the gateway.")?;
        writeln!(out, "{P}_build_info{{version=\"{version}\"}} 1")?;
        head(out, "root_part_up", "gauge", "Whether the root part of the API answers.")?;
        writeln!(out, "{P}_root_part_up {}", u8::from(is_up))?;
        head(out, "root_part_failures_total", "counter", "Requests that the root part did not answer.")?;
        writeln!(out, "{P}_root_part_failures_total {}", counts.root_failures)?;
        head(out, "requests_total", "counter", "Answered requests.")?;
        for ((method, code), count) in &counts.requests {
            writeln!(out, "{P}_requests_total{{method=\"{method}\",code=\"{code}\"}} {count}")?;
        }
        head(out, "request_duration_seconds", "histogram", "How long requests took.")?;
        for (method, durations) in &counts.durations {
            let name = format!("{P}_request_duration_seconds");
            let mut sum = 0;
            for (end, count) in CLASSES.iter().zip(durations.classes) {
                sum += count;
                writeln!(out, "{name}_bucket{{method=\"{method}\",le=\"{end}\"}} {sum}")?;
            }
            writeln!(out, "{name}_bucket{{method=\"{method}\",le=\"+Inf\"}} {}", durations.count)?;
            writeln!(out, "{name}_sum{{method=\"{method}\"}} {}", durations.sum)?;
            writeln!(out, "{name}_count{{method=\"{method}\"}} {}", durations.count)?;
        }
        head(out, "failed_authentications_total", "counter", "Requests without a right secret.")?;
        for (reason, count) in &counts.failed_authentications {
            writeln!(out, "{P}_failed_authentications_total{{reason=\"{reason}\"}} {count}")?;
        }
        for (name, gauge, help) in [
            ("connections", &self.connections, "Open connections."),
            ("requests_in_flight", &self.requests, "Requests that are not answered yet."),
            ("streams", &self.streams, "Watchers."),
        ] {
            head(out, name, "gauge", help)?;
            writeln!(out, "{P}_{name} {}", gauge.value())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_add_up() {
        let metrics = Metrics::default();
        metrics.answered("GetPublicIP", "ok", Duration::from_micros(1500));
        metrics.answered("GetPublicIP", "ok", Duration::from_millis(4));
        metrics.answered("GetPublicIP", "not_found", Duration::from_secs(100));
        metrics.refused("missing");
        metrics.connections.up();
        let text = metrics.render(true, "1.2.3");
        for line in [
            "pve_public_ip_gateway_build_info{version=\"1.2.3\"} 1",
            "pve_public_ip_gateway_root_part_up 1",
            "pve_public_ip_gateway_requests_total{method=\"GetPublicIP\",code=\"ok\"} 2",
            "pve_public_ip_gateway_requests_total{method=\"GetPublicIP\",code=\"not_found\"} 1",
            "pve_public_ip_gateway_request_duration_seconds_bucket{method=\"GetPublicIP\",le=\"0.001\"} 0",
            "pve_public_ip_gateway_request_duration_seconds_bucket{method=\"GetPublicIP\",le=\"0.0025\"} 1",
            "pve_public_ip_gateway_request_duration_seconds_bucket{method=\"GetPublicIP\",le=\"60\"} 2",
            "pve_public_ip_gateway_request_duration_seconds_bucket{method=\"GetPublicIP\",le=\"+Inf\"} 3",
            "pve_public_ip_gateway_request_duration_seconds_count{method=\"GetPublicIP\"} 3",
            "pve_public_ip_gateway_failed_authentications_total{reason=\"missing\"} 1",
            "pve_public_ip_gateway_connections 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
