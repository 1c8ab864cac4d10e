//! What there is to say of a node in the text format of Prometheus.

use std::fmt::Write as _;

use super::{View, Watched, seconds};
use crate::model::text::escaped;
use crate::plan::GuestState;
use crate::registry::document::Enforce;

/// Gathers the samples of one metric under its help and type.
struct Text(String);

impl Text {
    fn metric(&mut self, name: &str, kind: &str, help: &str, samples: impl IntoIterator<Item = (Labels, String)>) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let pairs: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", label(value))).collect();
            let braced = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
            let _ = writeln!(self.0, "{name}{braced} {value}");
        }
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: &dyn ToString) {
        self.metric(name, kind, help, [(Vec::new(), value.to_string())]);
    }
}

type Labels = Vec<(&'static str, String)>;

/// Backslash, quote and newline are what the format itself escapes; the last, with all its kind, is none any more by then.
fn label(value: &str) -> String {
    escaped(value).replace('\\', "\\\\").replace('"', "\\\"")
}

/// Everything that does not need words. Names and units are those that Prometheus asks for.
pub fn exposition(view: &View) -> String {
    let mut text = Text(String::new());
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    text.metric("pve_public_ip_build_info", "gauge", "Release of pve-public-ip.", [(version, "1".to_owned())]);
    let in_line = u8::from(view.in_line == Some(true));
    text.single("pve_public_ip_in_line", "gauge", "Whether the kernel is as the registry says.", &in_line);
    text.single("pve_public_ip_differences", "gauge", "Differences that verify would name.", &view.differences);
    text.single(
        "pve_public_ip_problems",
        "gauge",
        "Assignments that something stands in the way of.",
        &view.problems.len(),
    );
    text.single(
        "pve_public_ip_conflicts",
        "gauge",
        "Addresses or MACs claimed by two, as far as nobody has acknowledged it.",
        &view.conflicts,
    );
    text.single(
        "pve_public_ip_unreadable",
        "gauge",
        "Sources of these metrics, and files of the registry, that could not be read.",
        &(view.trouble.len() + view.unreadable),
    );
    let interfaces = GuestState::ALL.iter().map(|state| {
        let count = view.guests.iter().filter(|nic| nic.state == *state).count();
        (vec![("state", state.as_str().replace('-', "_"))], count.to_string())
    });
    text.metric(
        "pve_public_ip_guest_interfaces",
        "gauge",
        "Guest interfaces with addresses, by their state.",
        interfaces,
    );
    let pools = |assigned: bool| {
        view.pools.iter().flat_map(move |pool| {
            pool.totals.iter().map(move |(family, totals)| {
                let labels = vec![("pool", pool.name.clone()), ("family", (*family).to_owned())];
                (labels, if assigned { totals.assigned } else { totals.size }.to_string())
            })
        })
    };
    text.metric("pve_public_ip_pool_addresses", "gauge", "Addresses of a pool.", pools(false));
    text.metric(
        "pve_public_ip_pool_assigned_addresses",
        "gauge",
        "Addresses of a pool that are assigned.",
        pools(true),
    );
    let reasons = |bytes: bool| {
        view.reasons.iter().map(move |(reason, count)| {
            let value = if bytes { count.bytes } else { count.packets };
            (vec![("reason", reason.trim_start_matches("drop_").to_owned())], value.to_string())
        })
    };
    let help = "Frames dropped since the table was loaded, by reason.";
    text.metric("pve_public_ip_dropped_packets_total", "counter", help, reasons(false));
    let help = "Bytes of frames dropped since the table was loaded, by reason.";
    text.metric("pve_public_ip_dropped_bytes_total", "counter", help, reasons(true));
    let ports = view.dropped.iter().map(|entry| {
        let vmid = entry.vmid.map(|vmid| vmid.to_string()).unwrap_or_default();
        let reason = entry.reason.trim_start_matches("drop_").to_owned();
        (vec![("port", entry.port.to_string()), ("vmid", vmid), ("reason", reason)], entry.count.packets.to_string())
    });
    let help = "Frames dropped from a port, by reason; the series goes a day after the last one.";
    text.metric("pve_public_ip_port_dropped_packets_total", "counter", help, ports);
    let watched = view.watched_reasons.iter().map(|(reason, count)| {
        (vec![("reason", reason.trim_start_matches("watch_").to_owned())], count.packets.to_string())
    });
    let help =
        "Frames that would have been dropped since the table was loaded if their pools were enforced, by reason.";
    text.metric("pve_public_ip_watched_packets_total", "counter", help, watched);
    let ports = view.watched.iter().map(|Watched { frames, .. }| {
        let vmid = frames.vmid.map(|vmid| vmid.to_string()).unwrap_or_default();
        let reason = frames.reason.trim_start_matches("watch_").to_owned();
        (vec![("port", frames.port.to_string()), ("vmid", vmid), ("reason", reason)], frames.count.packets.to_string())
    });
    let help = "The same by port; the series goes a day after the last frame.";
    text.metric("pve_public_ip_port_watched_packets_total", "counter", help, ports);
    let pools = view
        .pools
        .iter()
        .map(|pool| (vec![("pool", pool.name.clone())], u8::from(pool.enforce == Enforce::On).to_string()));
    let help = "Whether a pool is enforced: what is against its rules is dropped, not only counted.";
    text.metric("pve_public_ip_pool_enforced", "gauge", help, pools);
    let help = "MACs that a guest sends to the provider, and that no pool knows.";
    text.single("pve_public_ip_unregistered_macs", "gauge", help, &view.unregistered.len());
    let help = "When these metrics were gathered.";
    text.single("pve_public_ip_collected_timestamp_seconds", "gauge", help, &seconds());
    add_guard(&mut text, view);
    text.0
}

fn add_guard(text: &mut Text, view: &View) {
    let guard = view.guard.as_ref();
    text.single(
        "pve_public_ip_guard_up",
        "gauge",
        "Whether the guard runs.",
        &u8::from(guard.is_some_and(|guard| guard.runs)),
    );
    if let Some(guard) = guard {
        let note = &guard.note;
        text.single(
            "pve_public_ip_guard_trouble",
            "gauge",
            "Whether something keeps the guard from its work.",
            &u8::from(note.trouble.is_some()),
        );
        let help = "When the guard last compared the node with the registry.";
        text.single("pve_public_ip_guard_last_look_timestamp_seconds", "gauge", help, &note.last_look);
        let help = "How long it took to compare them.";
        let took = std::time::Duration::from_millis(note.last_look_ms).as_secs_f64();
        text.single("pve_public_ip_guard_last_look_duration_seconds", "gauge", help, &took);
        let help = "When the guard last changed something.";
        text.single("pve_public_ip_guard_last_change_timestamp_seconds", "gauge", help, &note.last_change);
        text.single(
            "pve_public_ip_guard_looks_total",
            "counter",
            "How often the guard has compared them.",
            &note.looks,
        );
        text.single(
            "pve_public_ip_guard_repairs_total",
            "counter",
            "Differences that the guard repaired.",
            &note.repairs,
        );
    }
}
