//! External programs: the only place that starts one, so that no error text of theirs is ever lost.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::model::text::{command_line, one_line};

/// Directories in which programs are looked for; never the caller's `PATH` alone, which may be anything.
pub const SYSTEM_DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A program that could not be run, or failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Not there, or not executable.
    #[error("cannot run `{program}`")]
    Start {
        /// Program and arguments.
        program: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Ran and failed.
    #[error("`{program}` failed ({status}){}", said(stderr))]
    Failed {
        /// Program and arguments.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to stderr.
        stderr: String,
    },
}

fn said(stderr: &str) -> String {
    let text = one_line(stderr);
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// Runs a program with `input` on its stdin and returns its stdout.
pub fn run(program: &str, args: &[&str], input: &[u8]) -> Result<Vec<u8>, CommandError> {
    let shown = || command_line(std::iter::once(program).chain(args.iter().copied()));
    let start = |source| CommandError::Start { program: shown(), source };
    let mut child = new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    // A program that ends early closes the pipe; its exit status and stderr then say more than EPIPE.
    let fed = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input));
    let output = child.wait_with_output().map_err(start)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(CommandError::Failed { program: shown(), status: output.status, stderr });
    }
    fed.map_err(start)?;
    Ok(output.stdout)
}

/// As [`run`], without input, for a program that may hang: it is killed when the time is over.
pub fn run_within(seconds: u32, program: &str, args: &[&str]) -> Result<Vec<u8>, CommandError> {
    let limit = seconds.to_string();
    let all: Vec<&str> = ["--signal=KILL", &limit, program].into_iter().chain(args.iter().copied()).collect();
    run("timeout", &all, b"")
}

/// Runs a program that speaks for itself: its output goes where ours goes.
pub fn pass_through(program: &Path, args: &[OsString]) -> io::Result<ExitStatus> {
    new(program).args(args).stdin(Stdio::null()).status()
}

/// Gives a program something to read. Nobody trusts it to end: after `limit` it is killed, with all that it has started, and
/// what it leaves behind in the background holds up nobody. What it says to stderr goes where ours goes.
pub fn feed(program: &Path, args: &[&str], input: &[u8], limit: Duration) -> Result<(), CommandError> {
    let shown = || command_line([program.to_str().unwrap_or("?")].iter().chain(args).copied());
    let start = |source| CommandError::Start { program: shown(), source };
    let mut child = new(program)
        .args(args)
        .env_clear()
        .env("PATH", SYSTEM_DIRECTORIES.join(":"))
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        // One that does not read its input must not hold us up; whether it did is its own business.
        thread::spawn(move || drop(stdin.write_all(&input)));
    }
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(start)? {
            break status;
        }
        if started.elapsed() >= limit {
            let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
            let _ = killpg(group, Signal::SIGKILL);
            break child.wait().map_err(start)?;
        }
        thread::sleep(Duration::from_millis(10));
    };
    if status.success() {
        return Ok(());
    }
    let stderr =
        if started.elapsed() >= limit { format!("not done after {} s", limit.as_secs()) } else { String::new() };
    Err(CommandError::Failed { program: shown(), status, stderr })
}

/// In the environment of a process whose parent sees to its end.
const SUPERVISED: &str = "PVE_PUBLIC_IP_SUPERVISED";

/// How long a process that has given up may take to end.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Whether this process was started by [`supervise`]; it then ends with its parent.
pub fn is_supervised() -> bool {
    let Some(supervisor) = std::env::var_os(SUPERVISED) else { return false };
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    // Whoever kills a hook means all of it: its parent may have ended before this was asked for.
    if supervisor != "1" && supervisor != *nix::unistd::getppid().to_string() {
        let _ = kill(nix::unistd::getpid(), Signal::SIGKILL);
    }
    true
}

/// Has another process of this program do what this one was asked for, with the file of the node's lock as its stdin, and
/// returns its exit status; `None` if none can be started.
///
/// Who reads from a cluster file system that hangs can neither go on nor end, whatever signal it gets (state D). So this
/// process reads nothing. The other one says itself when its time is over. If it cannot end then, it is left behind: it has
/// no descriptor of the caller, who waits for the end of our output, and the lock that it may hold is given back for it.
pub fn supervise(limit: Duration, lock: Option<File>) -> Option<u8> {
    let stdin = lock.as_ref().and_then(|lock| lock.try_clone().ok()).map_or_else(Stdio::null, Stdio::from);
    let own_or_piped = |is_terminal: bool| if is_terminal { Stdio::inherit() } else { Stdio::piped() };
    let mut child = new(std::env::current_exe().ok()?)
        .args(std::env::args_os().skip(1))
        .env(SUPERVISED, std::process::id().to_string())
        .stdin(stdin)
        .stdout(own_or_piped(io::stdout().is_terminal()))
        .stderr(own_or_piped(io::stderr().is_terminal()))
        .spawn()
        .ok()?;
    let (told, copied) = channel();
    if let Some(mut pipe) = child.stdout.take() {
        let told = told.clone();
        thread::spawn(move || drop((io::copy(&mut pipe, &mut io::stdout()), told.send(()))));
    }
    if let Some(mut pipe) = child.stderr.take() {
        let told = told.clone();
        thread::spawn(move || drop((io::copy(&mut pipe, &mut io::stderr()), told.send(()))));
    }
    drop(told);
    let pid = Pid::from_raw(i32::try_from(child.id()).ok()?);
    let (done, ended) = channel();
    thread::spawn(move || drop(done.send(child.wait())));
    let mut left = limit + END_LIMIT;
    loop {
        match ended.recv_timeout(left) {
            Ok(Ok(status)) => {
                // All that it had to say: both pipes have an end, as for a caller of its own.
                while copied.recv().is_ok() {}
                let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
                return Some(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
            }
            Err(RecvTimeoutError::Timeout) if !cannot_end(pid) => left = END_LIMIT,
            _ => break,
        }
    }
    let _ = kill(pid, Signal::SIGKILL);
    // Whoever shares an open file shares its lock, and can give it back.
    drop(lock.map(|lock| Flock::lock(lock, FlockArg::LockExclusiveNonblock)));
    let _ = copied.recv_timeout(Duration::from_millis(200));
    Some(1)
}

/// Whether a process hangs in the kernel, or has ended but for a thread that does.
fn cannot_end(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_none_or(|state| matches!(state, 'D' | 'Z' | 'X'))
}

/// Finds a program in the system's directories, or in those of `PATH`.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = SYSTEM_DIRECTORIES.iter().map(std::path::PathBuf::from);
    let found = std::env::split_paths(&path).chain(system).map(|directory| directory.join(program));
    found.into_iter().find(|candidate| candidate.is_absolute() && is_executable(candidate))
}

/// Whether a regular file may be executed by somebody.
pub fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[expect(clippy::disallowed_methods, reason = "this module is the one place for it")]
fn new(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    // What is called from here may call this program once more.
    command.env_remove(SUPERVISED);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_carry_what_the_program_said() {
        let message = run("ls", &["/no/such/place"], b"").unwrap_err().to_string();
        assert!(message.starts_with("`ls /no/such/place` failed (exit status: 2): ls:"), "{message}");
        let message = run("/no/such/program", &["-x"], b"").unwrap_err().to_string();
        assert_eq!(message, "cannot run `/no/such/program -x`");
        assert_eq!(run("cat", &[], b"hello").unwrap(), b"hello");
        assert_eq!(run_within(5, "printf", &["%s", "hello"]).unwrap(), b"hello");
        let message = run_within(1, "sleep", &["60"]).unwrap_err().to_string();
        assert_eq!(message, "`timeout --signal=KILL 1 sleep 60` failed (signal: 9 (SIGKILL))");
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let shell = |script: &str, limit| feed(Path::new("/bin/sh"), &["-c", script], &vec![b'x'; 1 << 20], limit);
        shell("exit 0", Duration::from_secs(20)).unwrap();
        shell("[ -z \"$HOME\" ] && [ $(wc -c) = 1048576 ]", Duration::from_secs(20)).unwrap();
        let message = shell("exit 3", Duration::from_secs(20)).unwrap_err().to_string();
        assert_eq!(message, "`/bin/sh -c 'exit 3'` failed (exit status: 3)");
        let started = Instant::now();
        let message = shell("sleep 60 & sleep 60", Duration::from_millis(100)).unwrap_err().to_string();
        assert_eq!(message, "`/bin/sh -c 'sleep 60 & sleep 60'` failed (signal: 9 (SIGKILL)): not done after 0 s");
        assert!(started.elapsed() < Duration::from_secs(20));
        let message = feed(Path::new("/no/such/program"), &[], b"", Duration::ZERO).unwrap_err().to_string();
        assert_eq!(message, "cannot run `/no/such/program`");
    }
}
