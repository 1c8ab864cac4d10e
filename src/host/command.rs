//! External programs: the only place that starts one, so that no error text of theirs is ever lost.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::host::files;
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
    /// Was ended because it took too long.
    #[error("`{program}` did not end within {seconds} s and was killed: what it did until then stays")]
    Late {
        /// Program and arguments.
        program: String,
        /// How long it was waited for.
        seconds: u64,
    },
}

fn said(stderr: &str) -> String {
    let text = one_line(stderr);
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// How long Proxmox VE's tools may take: they wait for locks of guests and storages.
const TOOL_LIMIT: Duration = Duration::from_secs(60);

/// How long every other program may: `nft` loads ten thousand bindings in less than a second.
const PROGRAM_LIMIT: Duration = Duration::from_secs(20);

/// Runs a program with `input` on its stdin and returns its stdout. It is killed if it takes longer than it ever should.
pub fn run(program: &str, args: &[&str], input: &[u8]) -> Result<Vec<u8>, CommandError> {
    let name = Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or(program);
    let is_tool = matches!(name, "qm" | "pct" | "pvesh" | "pvesm" | "systemctl");
    run_for(if is_tool { TOOL_LIMIT } else { PROGRAM_LIMIT }, program, args, input)
}

/// The same with another limit: for who has less time than the program may take.
pub fn run_for(limit: Duration, program: &str, args: &[&str], input: &[u8]) -> Result<Vec<u8>, CommandError> {
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
    let started = Instant::now();
    let talked = talk(&mut child, input, started + limit);
    let status = match &talked {
        Ok(Some(_)) => wait_until(&mut child, started + limit).map_err(start)?,
        Ok(None) | Err(_) => None,
    };
    let Some(status) = status else {
        // One that hangs in the kernel cannot even be killed; it is not waited for.
        let _ = child.kill();
        let _ = wait_until(&mut child, Instant::now() + END_LIMIT);
        talked.map_err(start)?;
        return Err(CommandError::Late { program: shown(), seconds: limit.as_secs() });
    };
    let Talk { fed, output, errors } = talked.map_err(start)?.unwrap_or_default();
    if !status.success() {
        let stderr = String::from_utf8_lossy(&errors).into_owned();
        return Err(CommandError::Failed { program: shown(), status, stderr });
    }
    // A program that ends early closes the pipe; its exit status and stderr say more than EPIPE, if it failed.
    if fed < input.len() {
        return Err(start(io::ErrorKind::BrokenPipe.into()));
    }
    Ok(output)
}

/// What a program read and said.
#[derive(Default)]
struct Talk {
    /// How many bytes of the input it took.
    fed: usize,
    output: Vec<u8>,
    errors: Vec<u8>,
}

/// Feeds a program and reads what it says, until it has closed its ends; `None`: it has not in time.
fn talk(child: &mut Child, input: &[u8], until: Instant) -> io::Result<Option<Talk>> {
    let mut stdin = child.stdin.take().filter(|_| !input.is_empty());
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let ends = [stdin.as_ref().map(AsFd::as_fd), stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)];
    for end in ends.into_iter().flatten() {
        fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    let mut talk = Talk::default();
    while stdin.is_some() || stdout.is_some() || stderr.is_some() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let mut waiting = Vec::new();
        waiting.extend(stdin.as_ref().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLOUT)));
        waiting.extend(stdout.as_ref().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN)));
        waiting.extend(stderr.as_ref().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN)));
        // Rounded up, so that the last millisecond is not spent turning.
        let milliseconds = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        match poll(&mut waiting, PollTimeout::from(milliseconds)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if let Some(end) = &mut stdin {
            let is_over = match end.write(&input[talk.fed..]) {
                Ok(length) => {
                    talk.fed += length;
                    talk.fed == input.len()
                }
                Err(error) => !is_for_later(&error),
            };
            if is_over {
                stdin = None;
            }
        }
        if let Some(end) = &mut stdout {
            if !read_some(end, &mut talk.output)? {
                stdout = None;
            }
        }
        if let Some(end) = &mut stderr {
            if !read_some(end, &mut talk.errors)? {
                stderr = None;
            }
        }
    }
    Ok(Some(talk))
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Reads what is there; `false` at the end.
fn read_some(end: &mut impl Read, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 1 << 14];
    loop {
        match end.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(length) => into.extend_from_slice(&buffer[..length]),
            Err(error) if is_for_later(&error) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

/// How a program that has said all has ended; `None`: it has not in time.
fn wait_until(child: &mut Child, until: Instant) -> io::Result<Option<ExitStatus>> {
    let mut pause = Duration::from_micros(50);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        // It has closed its ends, and ends in a moment.
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// As [`run`], without input, for a program that may hang: it is killed when the time is over.
pub fn run_within(seconds: u32, program: &str, args: &[&str]) -> Result<Vec<u8>, CommandError> {
    let limit = seconds.to_string();
    let all: Vec<&str> = ["--signal=KILL", &limit, program].into_iter().chain(args.iter().copied()).collect();
    run("timeout", &all, b"")
}

/// Has a library do what starts programs and waits for them without a limit of its own; `None` if that is not done within
/// `limit`, or fails in the library. What was started until then is killed.
///
/// It works in a thread, whose children the kernel lists: `proc_tid_children(5)`. One that hangs in the kernel is left behind.
pub fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let ((told, thread), (done, outcome)) = (channel(), channel());
    thread::spawn(move || {
        let _ = told.send(nix::unistd::gettid());
        let _ = done.send(work());
    });
    let thread = thread.recv().ok()?;
    match outcome.recv_timeout(limit) {
        Ok(outcome) => return Some(outcome),
        Err(RecvTimeoutError::Disconnected) => return None,
        Err(RecvTimeoutError::Timeout) => {}
    }
    let children = files::read_kernel(Path::new(&format!("/proc/self/task/{thread}/children"))).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
    }
    // It is over a moment later, unless a grandchild holds an end of the pipes.
    let _ = outcome.recv_timeout(END_LIMIT);
    None
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

/// What is done at the end of this value or of this process, however it ends.
///
/// The program has its input, and waits for the end of it: the kernel closes the pipe of a process that is killed, too. It is in
/// a process group of its own, so that a key pressed at the terminal does not end it.
#[derive(Debug)]
pub struct LastAct {
    child: Child,
    input: Option<std::process::ChildStdin>,
}

/// Has a program that reads its whole input before it acts do so at the end.
pub fn at_the_end(program: &str, args: &[&str], input: &[u8]) -> Result<LastAct, CommandError> {
    let shown = || command_line(std::iter::once(program).chain(args.iter().copied()));
    let start = |source| CommandError::Start { program: shown(), source };
    let mut child = new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(start)?;
    let mut stdin = child.stdin.take();
    if let Some(stdin) = &mut stdin {
        stdin.write_all(input).map_err(start)?;
    }
    Ok(LastAct { child, input: stdin })
}

impl Drop for LastAct {
    fn drop(&mut self) {
        self.input = None;
        // One that hangs does it later: it has all that it needs.
        let _ = wait_until(&mut self.child, Instant::now() + PROGRAM_LIMIT);
    }
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

/// How a process is seen to by its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It ends itself when this time is over.
    Limit(Duration),
    /// It changes something, and takes as long as that takes, unless it hangs in the kernel.
    Change,
}

/// After what time it is said that a change hangs, and after what time it is left behind.
const HANG_SAID: Duration = Duration::from_secs(10);
const HANG_LIMIT: Duration = Duration::from_secs(40);

/// Hands on what comes. Not by `io::copy`, which splices: that takes a file's position before it waits and puts it back
/// afterwards, so that what others wrote to the same file meanwhile (`> log 2>&1`) is written over.
fn pass_on(pipe: &mut impl Read, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut to = File::from(to.try_clone_to_owned()?);
    let mut buffer = vec![0; 0x1_0000];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Has another process of this program do what this one was asked for, and returns its exit status; `None` if none can be
/// started. One with a time limit has the file of the node's lock as its stdin.
///
/// Who reads from a cluster file system that hangs can neither go on nor end, whatever signal it gets (state D). So this
/// process reads nothing. The other one says itself when its time is over. If it cannot end then, it is left behind: it has
/// no descriptor of the caller, who waits for the end of our output, and the lock that it may hold is given back for it.
pub fn supervise(patience: Patience, lock: Option<File>) -> Option<u8> {
    let stdin = match (patience, &lock) {
        // It may be told to read something.
        (Patience::Change, _) => Stdio::inherit(),
        (Patience::Limit(_), lock) => {
            lock.as_ref().and_then(|lock| lock.try_clone().ok()).map_or_else(Stdio::null, Stdio::from)
        }
    };
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
        thread::spawn(move || drop((pass_on(&mut pipe, io::stdout().as_fd()), told.send(()))));
    }
    if let Some(mut pipe) = child.stderr.take() {
        let told = told.clone();
        thread::spawn(move || drop((pass_on(&mut pipe, io::stderr().as_fd()), told.send(()))));
    }
    drop(told);
    let pid = Pid::from_raw(i32::try_from(child.id()).ok()?);
    let (done, ended) = channel();
    thread::spawn(move || drop(done.send(child.wait())));
    let (started, mut code) = (Instant::now(), 1);
    // Since when it has hung without a break, and whether that was said.
    let (mut hangs_since, mut was_said, mut had_ended) = (None, false, false);
    loop {
        match ended.recv_timeout(END_LIMIT) {
            Ok(Ok(status)) => {
                // All that it had to say: both pipes have an end, as for a caller of its own.
                while copied.recv().is_ok() {}
                let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
                return Some(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
            }
            Err(RecvTimeoutError::Timeout) => {}
            _ => break,
        }
        // Where there is no /proc nothing is known of it, and it is not taken for one that hangs.
        let (state, status) = state_of(pid).unwrap_or(('?', 1));
        let is_over = matches!(state, 'Z' | 'X');
        // It has ended but for a thread that hangs, unless it ends in this moment.
        if is_over && had_ended {
            code = status;
            break;
        }
        had_ended = is_over;
        match patience {
            Patience::Limit(limit) => {
                if matches!(state, 'D' | '?') && started.elapsed() >= limit + END_LIMIT {
                    break;
                }
            }
            Patience::Change if state == 'D' || waits_for_fuse(pid) => {
                let hangs_for = hangs_since.get_or_insert_with(Instant::now).elapsed();
                if hangs_for >= HANG_SAID && !was_said {
                    was_said = true;
                    log::warn!("waiting for `/etc/pve`, which does not answer: `systemctl status pve-cluster`");
                }
                if hangs_for >= HANG_LIMIT {
                    log::error!(
                        "this hangs and is given up: what it was about to write may or may not have been written"
                    );
                    log::error!(
                        "hint: is `/etc/pve` reachable? `systemctl status pve-cluster`; afterwards `pve-public-ip list` tells what holds"
                    );
                    break;
                }
            }
            Patience::Change => hangs_since = None,
        }
    }
    let _ = kill(pid, Signal::SIGKILL);
    // Whoever shares an open file shares its lock, and can give it back.
    drop(lock.map(|lock| Flock::lock(lock, FlockArg::LockExclusiveNonblock)));
    let _ = copied.recv_timeout(Duration::from_millis(200));
    Some(code)
}

/// The state of a process, which is D if it hangs in the kernel, and with which status it ended, if it has. Source:
/// `proc_pid_stat(5)`.
fn state_of(pid: Pid) -> Option<(char, u8)> {
    let stat = files::read_kernel(Path::new(&format!("/proc/{pid}/stat"))).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let status = rest.split_whitespace().last()?.parse::<u32>().ok()?;
    Some((rest.chars().next()?, u8::try_from(status >> 8 & 0xff).unwrap_or(1)))
}

/// Whether a process waits for the answer of a file system that another process provides, as pmxcfs does. Nothing shows in
/// its state until it is told to end. Source: Linux `fs/fuse/dev.c`.
fn waits_for_fuse(pid: Pid) -> bool {
    let place = files::read_kernel(Path::new(&format!("/proc/{pid}/wchan"))).unwrap_or_default();
    place.contains("fuse") || place == "request_wait_answer"
}

/// Starts this program once more, with another standard input and output.
#[expect(clippy::disallowed_methods, reason = "this module is the one place for it")]
pub fn another(args: &[&OsStr], input: OwnedFd, output: OwnedFd) -> io::Result<Child> {
    Command::new("/proc/self/exe").args(args).stdin(Stdio::from(input)).stdout(Stdio::from(output)).spawn()
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
    fn a_program_that_takes_too_long_is_killed() {
        let shell = |script: &str, input: &[u8]| run_for(Duration::from_secs(1), "sh", &["-c", script], input);
        for script in ["exec sleep 60", "exec >&- 2>&- <&-; exec sleep 60", "echo; cat >/dev/null; exec sleep 60"] {
            let message = shell(script, &vec![b'x'; 1 << 20]).unwrap_err().to_string();
            let expected =
                format!("`sh -c '{script}'` did not end within 1 s and was killed: what it did until then stays");
            assert_eq!(message, expected);
        }
        // Neither side waits for the other one.
        let long = vec![b'x'; 1 << 20];
        let patient = Duration::from_secs(60);
        assert_eq!(run_for(patient, "cat", &[], &long).unwrap(), long);
        assert_eq!(run_for(patient, "sh", &["-c", "cat >&2; echo done"], &long).unwrap(), b"done\n");
        let message = run_for(patient, "sh", &["-c", "exit 3"], &long).unwrap_err().to_string();
        assert_eq!(message, "`sh -c 'exit 3'` failed (exit status: 3)");
        let message = run_for(patient, "true", &[], &long).unwrap_err().to_string();
        assert_eq!(message, "cannot run `true`");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a library would do so")]
    fn a_library_that_does_not_come_back_is_left() {
        let sleep = || Command::new("sleep").arg("600").status();
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
        assert_eq!(within(Duration::from_secs(60), || assert!(std::hint::black_box(false), "a library's bug")), None);
        let (told, ended) = channel();
        let late = within(Duration::from_millis(200), move || told.send(sleep()));
        assert!(late.is_none());
        let status = ended.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
        assert_eq!(status.signal(), Some(9), "its program was killed");
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
