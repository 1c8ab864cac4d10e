//! Who runs this process: user, login, `sudo`, and the Proxmox VE task that it is part of.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::audit::{Author, Who};
use crate::host::{files, users};
use crate::model::text;

/// How far up to look for a task: hookscript, `qm`, the worker of a daemon are a few steps.
const ANCESTORS: usize = 16;

/// What of a command line is kept.
const COMMAND_LIMIT: usize = 1000;

/// The author of this process' changes.
pub(super) fn author(reason: Option<String>) -> Author {
    let task = task();
    let uid = nix::unistd::getuid().as_raw();
    let who = Who {
        user: users::name(uid),
        login: login().map(users::name),
        sudo: std::env::var("SUDO_USER").ok().filter(|name| users::is_plain(name)),
        task_user: task.as_deref().and_then(task_user).map(str::to_owned),
        task,
    };
    Author { who: Some(who), command: Some(command_line()), why: reason }
}

/// The arguments, without the directory of the program.
fn command_line() -> String {
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let mut words: Vec<String> = words.collect();
    if let Some(program) = words.first_mut() {
        *program = program.rsplit('/').next().unwrap_or_default().to_owned();
    }
    text::command_line(words.iter().map(String::as_str)).chars().take(COMMAND_LIMIT).collect()
}

fn proc(pid: u32, file: &str) -> Option<String> {
    let bytes = files::read_limited(Path::new(&format!("/proc/{pid}/{file}")), 1 << 16).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whose login this process descends from. Source: Linux `kernel/audit.h`, `AUDIT_UID_UNSET`.
fn login() -> Option<u32> {
    let uid: u32 = proc(std::process::id(), "loginuid")?.trim().parse().ok()?;
    (uid != u32::MAX).then_some(uid)
}

/// The task that an ancestor works on. Only root's processes count, because everybody can choose his own title.
fn task() -> Option<String> {
    let mut pid = std::os::unix::process::parent_id();
    for _ in 0..ANCESTORS {
        if pid <= 1 {
            return None;
        }
        let is_root = std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == 0);
        let title = proc(pid, "cmdline").unwrap_or_default();
        let task = title.split('\0').next().and_then(|title| title.strip_prefix("task "));
        let task = task.filter(|task| is_root && task_user(task).is_some());
        if let Some(task) = task {
            return Some(task.to_owned());
        }
        let status = proc(pid, "status")?;
        pid = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
    }
    None
}

/// The user in `UPID:node:pid:pstart:starttime:type:id:user:`.
fn task_user(task: &str) -> Option<&str> {
    let fields: Vec<&str> = task.split(':').collect();
    let is_hex = |field: &&str| !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_hexdigit());
    match fields[..] {
        ["UPID", _, pid, pstart, start, _, _, user, ""]
            if [pid, pstart, start].iter().all(is_hex) && users::is_plain(user) =>
        {
            Some(user)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_a_task() {
        let upid = "UPID:pve1:0000C0DE:0001E240:65A1B2C3:qmstart:100:anna@pve:";
        assert_eq!(task_user(upid), Some("anna@pve"));
        for wrong in
            ["", "UPID:", &upid[..upid.len() - 1], &upid.replace("C0DE", "C0DX"), &upid.replace("anna", "a\nb")]
        {
            assert_eq!(task_user(wrong), None, "{wrong}");
        }
        assert_eq!((users::name(0).as_str(), users::name(4_000_000_000).as_str()), ("root", "uid 4000000000"));
    }
}
