//! Parses arguments, prints the outcome, sets the exit status. Everything else is in the library.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser as _;
use pve_public_ip::cli::output::OutputFormat;
use pve_public_ip::cli::{self, Cli, Command};
use pve_public_ip::hook;
use pve_public_ip::host::command::{self, Patience};
use pve_public_ip::model::text::{escaped, escaped_lines};
use pve_public_ip::paths::Paths;
use pve_public_ip::reconcile::SILENT;
use pve_public_ip::system::run::{GuardNote, RunState};

fn main() -> ExitCode {
    if let Some(code) = hand_on_hook() {
        return code;
    }
    let cli = match Cli::try_parse_from(cli::with_help_of_problems(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    // What it prints are its answers, and nothing else.
    let is_serve = matches!(cli.command, Command::Serve(_));
    let format = if is_serve { OutputFormat::Text } else { cli.global.output_format };
    let level = if cli.global.verbose { log::LevelFilter::Debug } else { log::LevelFilter::Info };
    let paths = Paths::new(&cli.global.root);
    Log::install(level, &paths.dev_log());
    if let Some(patience) = patience(&cli.command, &paths) {
        if !command::is_supervised() {
            let lock = match patience {
                Patience::Limit(hook::DEADLINE) => RunState::lock_file(&paths),
                Patience::Limit(_) => RunState::lock_file_to_look(&paths),
                Patience::Change => None,
            };
            if let Some(code) = command::supervise(patience, lock) {
                return ExitCode::from(code);
            }
        }
        if let Patience::Limit(limit) = patience {
            watch_the_clock(limit);
        }
    }
    let output = cli.run();
    if let Some(problem) = &output.problem {
        log::error!("{}", problem.sentence);
        if !problem.hint.is_empty() {
            log::error!("hint: {}", problem.hint);
        }
    }
    // A closed pipe (`| head`) is not an error of ours.
    let _ = io::stdout().write_all(output.render(format).as_bytes());
    ExitCode::from(output.code)
}

/// What clap has to say: help and version, or that the arguments are wrong. A program that asked for JSON gets that, too.
fn refuse(error: &clap::Error) -> ExitCode {
    // It repeats what was given, which a script may have from somebody else: that is one line.
    let text = error.render().to_string();
    let mut shown = text.clone();
    for given in std::env::args_os().skip(1) {
        let given = given.to_string_lossy();
        let value = given.split_once('=').map_or("", |(_, value)| value);
        for part in [&*given, value].into_iter().filter(|part| !part.is_empty()) {
            shown = shown.replace(part, &escaped(part));
        }
    }
    let shown = escaped_lines(&shown);
    if error.use_stderr() && *shown != *text {
        let _ = io::stderr().write_all(shown.as_bytes());
    } else {
        let _ = error.print();
    }
    if error.use_stderr() {
        let format = cli::format_asked_for(std::env::args_os());
        let output = cli::usage(error);
        let _ = io::stdout().write_all(output.render(format).as_bytes());
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Hands a hook on to the process that does it before anything else is done, which that one has to do anyway: a guest waits.
fn hand_on_hook() -> Option<ExitCode> {
    // `hook VMID PHASE` and nothing else, as the hookscript calls it.
    let is_hook = std::env::args_os().len() == 4 && std::env::args_os().nth(1).is_some_and(|word| word == "hook");
    if !is_hook || command::is_supervised() {
        return None;
    }
    let root = std::env::var_os("PVE_PUBLIC_IP_ROOT").filter(|root| !root.is_empty()).unwrap_or_else(|| "/".into());
    let code = command::supervise(Patience::Limit(hook::DEADLINE), RunState::lock_file(&Paths::new(root)))?;
    Some(ExitCode::from(code))
}

/// How long a command that only looks may take: longer than it waits for the lock.
const LOOK_LIMIT: Duration = Duration::from_secs(45);

/// The same while the guard says that the cluster file system does not answer.
const SILENT_LIMIT: Duration = Duration::from_secs(3);

/// How long the command may take. Proxmox VE waits for a hook, holding the guest's lock, and monitoring for what it asks;
/// whoever changes something waits for what that takes.
fn patience(command: &Command, paths: &Paths) -> Option<Patience> {
    match command {
        Command::Hook(_) => Some(Patience::Limit(hook::DEADLINE)),
        Command::CompleteWords(_) => Some(Patience::Limit(SILENT_LIMIT)),
        // It looks at what does not hang, too, and says what it could not see.
        Command::Doctor(_) if command.only_looks() => Some(Patience::Limit(LOOK_LIMIT)),
        command if command.only_looks() => {
            let guard = RunState::guard_note(paths).filter(GuardNote::is_alive);
            let is_silent = guard.is_some_and(|note| note.is_etc_pve_silent);
            Some(Patience::Limit(if is_silent { SILENT_LIMIT } else { LOOK_LIMIT }))
        }
        command if command.reads_the_cluster() => Some(Patience::Change),
        _ => None,
    }
}

/// Ends a command that takes too long.
fn watch_the_clock(limit: Duration) {
    thread::spawn(move || {
        let (mut left, mut last) = (limit, Instant::now());
        while !left.is_zero() {
            thread::sleep(left.min(Duration::from_millis(100)));
            // Not how long it wanted to sleep: on a loaded node that is less, and the other process, which waits for this one,
            // would give it up before it has said why.
            let slept = last.elapsed();
            last += slept;
            left = if hook::waits_for_script() { left } else { left.saturating_sub(slept) };
        }
        match limit {
            hook::DEADLINE => log::error!("the hook did not finish within {} s and gives up", limit.as_secs()),
            SILENT_LIMIT => {
                log::error!("`/etc/pve` {SILENT}: the guard says so, and {} s were not enough", limit.as_secs());
            }
            _ => log::error!("this did not finish within {} s: `/etc/pve` may be what {SILENT}", limit.as_secs()),
        }
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
