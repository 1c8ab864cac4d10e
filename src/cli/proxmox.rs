//! Changes of a guest's configuration through Proxmox VE's own commands, printed before they are made.

use std::path::PathBuf;

use crate::guest::Located;
use crate::hookscript;
use crate::host::command;
use crate::model::Vmid;
use crate::model::text::command_line;
use crate::reconcile::Node;

/// How a change of the guest's configuration ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing had to change.
    AsWanted,
    /// Changed, by this command.
    Done(String),
    /// Not changed, for this reason; the command is for the administrator.
    LeftToDo { reason: String, command: String },
    /// The command failed.
    Failed { message: String, command: String },
}

/// Why something is not done, and what helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) hint: String,
}

impl Outcome {
    /// The line that says so.
    pub(super) fn line(&self, about: &str) -> Option<String> {
        match self {
            Self::AsWanted => None,
            Self::Done(command) => Some(format!("{about}: {command}")),
            Self::LeftToDo { reason, command } => Some(format!("{about}: {reason}; do it by hand: {command}")),
            Self::Failed { message, command } => Some(format!("{about}: {message}; try it by hand: {command}")),
        }
    }

    /// The failure, if it is one.
    pub(super) fn failure(&self) -> Option<Failure> {
        match self {
            Self::Failed { message, command } => {
                Some(Failure { message: message.clone(), hint: format!("try it by hand: `{command}`") })
            }
            _ => None,
        }
    }
}

/// Registers our hookscript.
pub(super) fn register(node: &Node, vmid: Vmid, located: &Located, dry_run: bool) -> Outcome {
    if located.config.hookscript.as_deref().is_some_and(hookscript::is_ours) {
        return Outcome::AsWanted;
    }
    set(node, vmid, located, &["--hookscript", hookscript::VOLUME], dry_run)
}

/// Puts back the hookscript that the guest had before, or none.
pub(super) fn unregister(node: &Node, vmid: Vmid, located: &Located, before: Option<&str>, dry_run: bool) -> Outcome {
    if !located.config.hookscript.as_deref().is_some_and(hookscript::is_ours) {
        return Outcome::AsWanted;
    }
    match before {
        Some(volume) => set(node, vmid, located, &["--hookscript", volume], dry_run),
        None => set(node, vmid, located, &["--delete", "hookscript"], dry_run),
    }
}

/// `qm set VMID` or `pct set VMID`.
pub(super) fn set(node: &Node, vmid: Vmid, located: &Located, options: &[&str], dry_run: bool) -> Outcome {
    let number = vmid.to_string();
    let args: Vec<&str> = ["set", &number].into_iter().chain(options.iter().copied()).collect();
    if located.node != node.name {
        let command = command_line(std::iter::once(located.config.kind.tool()).chain(args));
        return Outcome::LeftToDo { reason: format!("guest {vmid} is on node {}", located.node), command };
    }
    call(node, located.config.kind.tool(), &args, dry_run)
}

/// A command that changes something.
pub(super) fn call(node: &Node, tool: &str, args: &[&str], dry_run: bool) -> Outcome {
    let command = command_line(std::iter::once(tool).chain(args.iter().copied()));
    let program = match program(node, tool) {
        Ok(program) => program,
        Err(reason) => return Outcome::LeftToDo { reason, command },
    };
    if dry_run {
        return Outcome::Done(format!("{command} (not run)"));
    }
    log::info!("running {command}");
    match command::run(&program.to_string_lossy(), args, b"") {
        Ok(_) => Outcome::Done(command),
        Err(error) => Outcome::Failed { message: error.to_string(), command },
    }
}

/// What a command prints; the error says why it does not.
pub(super) fn ask(node: &Node, tool: &str, args: &[&str]) -> Result<String, String> {
    let program = program(node, tool)?;
    let output = command::run(&program.to_string_lossy(), args, b"").map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// Where the command is, or why there is none. The system's own `qm` would change the machine, never a node under `--root`;
/// there only a `qm` of that tree, or one that the caller put into `PATH` outside the system's directories, is meant.
fn program(node: &Node, tool: &str) -> Result<PathBuf, String> {
    if node.paths.is_machine() {
        return command::find(tool).ok_or_else(|| format!("there is no `{tool}` on this machine"));
    }
    let own = node.paths.under_root(&format!("/usr/sbin/{tool}"));
    if command::is_executable(&own) {
        return Ok(own);
    }
    let is_system = |found: &PathBuf| command::SYSTEM_DIRECTORIES.iter().any(|directory| found.starts_with(directory));
    let found = command::find(tool).filter(|found| !is_system(found));
    found.ok_or_else(|| format!("`{tool}` is not called for a node under --root"))
}
