//! Killing a command in front of each system call that changes something: `strace` does it, so no timing is involved.

use std::collections::BTreeMap;
use std::fs;

use super::{BINARY, Node, Run, SYSTEM_PATH, need};

/// System calls by which files, locks, processes or the network change; `?` where not every architecture has one.
pub(crate) const CHANGING: &str = "openat,write,fsync,flock,mkdirat,?mkdir,?rename,?renameat,renameat2,unlinkat,?unlink,?rmdir,\
    utimensat,sendto,sendmsg,clone,clone3,?vfork,unshare,setns";

/// Whether a call that strace wrote down can change anything: not opening to read, not asking the kernel, not talking.
fn can_change(line: &str) -> bool {
    let opens_to_read = line.starts_with("openat(") && !line.contains("O_CREAT");
    let asks = line.starts_with("sendto(") && ["RTM_GET", "_MSG_GET"].iter().any(|word| line.contains(word));
    let talks = line.starts_with("write(1, ") || line.starts_with("write(2, ");
    !opens_to_read && !asks && !talks
}

/// Whether something is different after the process died behind this call: not if the call failed, and neither a lock nor
/// a flush to the disk outlives the process.
fn leaves_something(line: &str) -> bool {
    let failed = line.rsplit_once(" = ").is_some_and(|(_, result)| result.starts_with("-1 "));
    let passes = ["flock(", "fsync("].iter().any(|call| line.starts_with(call));
    !failed && !passes
}

/// Those of the points that find something else than the one before: each state in which a killed process can leave a
/// node is met once.
fn distinct(points: Vec<Point>) -> Vec<Point> {
    let mut is_other = true;
    let mut distinct = Vec::new();
    for point in points {
        let was_other = std::mem::replace(&mut is_other, leaves_something(&point.line));
        distinct.extend(was_other.then_some(point));
    }
    distinct
}

/// A system call of a command: its name, its number among those of that name, and how strace wrote it down.
#[derive(Debug)]
pub(crate) struct Point {
    pub(crate) call: String,
    pub(crate) count: usize,
    pub(crate) line: String,
}

/// Runs a command and says where it can be killed, each time with another outcome.
pub(crate) fn points(node: &Node, command: &str) -> (Run, Vec<Point>) {
    need(&["strace"]);
    let trace = node.tree.path("trace");
    let traced = format!("trace={CHANGING}");
    let run = straced(node, command, &["-s", "64", "-o", trace.to_str().unwrap(), "-e", &traced]);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut points = Vec::new();
    let trace = fs::read_to_string(trace).unwrap();
    // A call that the kernel starts again by itself is the same call, and not to be foreseen.
    for line in trace.lines().filter(|line| !line.contains("ERESTARTNOINTR")) {
        // strace counts each system call by itself.
        let call = line.split('(').next().unwrap();
        let count = counts.entry(call).or_default();
        *count += 1;
        let point = Point { call: call.to_owned(), count: *count, line: line.to_owned() };
        points.extend(can_change(line).then_some(point));
    }
    (run, distinct(points))
}

/// Runs a command that dies in front of its `count`-th `call`; exit status 0 if it has fewer.
pub(crate) fn killed(node: &Node, command: &str, call: &str, count: usize) -> Run {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=SIGKILL:when={count}"));
    straced(node, command, &["-o", "/dev/null", "-e", &trace, "-e", &inject])
}

pub(crate) fn straced(node: &Node, command: &str, options: &[&str]) -> Run {
    let mut strace = node.net.command("strace");
    // The process that does the work, not the one that waits for it.
    strace.env("PVE_PUBLIC_IP_SUPERVISED", "1");
    strace
        .args(["-qq", "-e", "signal=none"])
        .args(options)
        .arg(BINARY)
        .arg("--root")
        .arg(node.tree.root())
        .args(command.split_whitespace());
    strace.env("PATH", format!("{}:{SYSTEM_PATH}", node.tree.path("stand-ins").display()));
    let run = Run::of(format!("strace ... {command}"), &strace.output().unwrap());
    assert!(!run.err.contains("strace: "), "strace does not work here: {run}");
    run
}
