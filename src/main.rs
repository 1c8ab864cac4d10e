//! Parses arguments, prints the outcome, sets the exit status. Everything else is in the library.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use clap::Parser as _;
use pve_public_ip::cli::{self, Cli, Command};
use pve_public_ip::hook;
use pve_public_ip::model::text::escaped;
use pve_public_ip::paths::Paths;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = cli.global.output_format;
    let is_hook = matches!(cli.command, Command::Hook(_));
    let level = if cli.global.verbose { log::LevelFilter::Debug } else { log::LevelFilter::Info };
    Log::install(level, &Paths::new(&cli.global.root).dev_log());
    if is_hook {
        watch_the_clock();
    }
    match cli.run() {
        Ok(output) => {
            // A closed pipe (`| head`) is not an error of ours.
            let _ = io::stdout().write_all(output.render(format).as_bytes());
            ExitCode::from(output.code)
        }
        Err(error) => {
            let (exit, hint) = cli::classify(&error);
            log::error!("{error:#}");
            if let Some(hint) = hint {
                log::error!("hint: {hint}");
            }
            ExitCode::from(exit as u8)
        }
    }
}

/// Ends a hook that takes too long: Proxmox VE would wait for ever, holding the guest's lock.
fn watch_the_clock() {
    thread::spawn(|| {
        let tick = Duration::from_millis(100);
        let mut left = hook::DEADLINE;
        while !left.is_zero() {
            thread::sleep(tick);
            left = if hook::waits_for_script() { left } else { left.saturating_sub(tick) };
        }
        log::error!("the hook did not finish within {} s and gives up", hook::DEADLINE.as_secs());
        log::error!("hint: is `/etc/pve` reachable? `systemctl status pve-cluster`");
        die();
    });
}

#[expect(clippy::exit, reason = "the main thread may hang in the kernel")]
fn die() {
    std::process::exit(1)
}

/// Whether stderr is the journal, which has the same from syslog, with its level. Source: `systemd.exec(5)`.
fn is_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let Ok(meta) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream.is_some_and(|stream| stream == format!("{}:{}", meta.dev(), meta.ino()))
}

/// Messages go to stderr, which in a hook is the task log, and to syslog, each once.
struct Log {
    level: log::LevelFilter,
    is_journal: bool,
    syslog: Option<Mutex<syslog::Logger<syslog::LoggerBackend, syslog::Formatter3164>>>,
}

impl Log {
    fn install(level: log::LevelFilter, socket: &Path) {
        let formatter = syslog::Formatter3164 {
            facility: syslog::Facility::LOG_DAEMON,
            hostname: None,
            process: "pve-public-ip".to_owned(),
            pid: std::process::id(),
        };
        let syslog = syslog::unix_custom(formatter, socket).ok().map(Mutex::new);
        let is_journal = syslog.is_some() && is_journal();
        if log::set_boxed_logger(Box::new(Self { level, is_journal, syslog })).is_ok() {
            log::set_max_level(level.max(log::LevelFilter::Info));
        }
    }
}

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = escaped(&record.args().to_string()).into_owned();
        if record.level() <= self.level && !self.is_journal {
            let line = match record.level() {
                log::Level::Error if text.starts_with("hint: ") => format!("{text}\n"),
                log::Level::Error => format!("error: {text}\n"),
                log::Level::Warn => format!("warning: {text}\n"),
                _ => format!("pve-public-ip: {text}\n"),
            };
            let _ = io::stderr().write_all(line.as_bytes());
        }
        let Some(mut syslog) = self.syslog.as_ref().and_then(|syslog| syslog.lock().ok()) else {
            return;
        };
        let _ = match record.level() {
            log::Level::Error => syslog.err(text),
            log::Level::Warn => syslog.warning(text),
            log::Level::Info => syslog.info(text),
            _ => Ok(()),
        };
    }

    fn flush(&self) {}
}
