//! Changes of a guest's configuration through Proxmox VE's own commands, printed before they are made.

use std::path::PathBuf;

use crate::guest::Located;
use crate::hookscript;
use crate::model::Vmid;
use crate::reconcile::Node;
use crate::system::command;

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

impl Outcome {
    /// The line that says so.
    pub(super) fn line(&self) -> Option<String> {
        match self {
            Self::AsWanted => None,
            Self::Done(command) => Some(format!("hookscript: {command}")),
            Self::LeftToDo { reason, command } => Some(format!("hookscript: {reason}; do it by hand: {command}")),
            Self::Failed { message, command } => Some(format!("hookscript: {message}; try it by hand: {command}")),
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

fn set(node: &Node, vmid: Vmid, located: &Located, options: &[&str], dry_run: bool) -> Outcome {
    let tool = located.config.kind.tool();
    let number = vmid.to_string();
    let args: Vec<&str> = ["set", &number].into_iter().chain(options.iter().copied()).collect();
    let command = format!("{tool} {}", args.join(" "));
    if located.node != node.name {
        return Outcome::LeftToDo { reason: format!("guest {vmid} is on node {}", located.node), command };
    }
    let Some(program) = program(node, tool) else {
        let reason = if node.paths.is_machine() {
            format!("there is no `{tool}` on this machine")
        } else {
            format!("`{tool}` is not called for a node under --root")
        };
        return Outcome::LeftToDo { reason, command };
    };
    if dry_run {
        return Outcome::Done(format!("{command} (not run)"));
    }
    log::info!("running {command}");
    match command::run(&program.to_string_lossy(), &args, b"") {
        Ok(_) => Outcome::Done(command),
        Err(error) => Outcome::Failed { message: error.to_string(), command },
    }
}

/// Where the command is. The system's own `qm` would change the machine, never a node under `--root`; there only a
/// `qm` of that tree, or one that the caller put into `PATH` outside the system's directories, is meant.
fn program(node: &Node, tool: &str) -> Option<PathBuf> {
    if node.paths.is_machine() {
        return command::find(tool);
    }
    let own = node.paths.under_root(&format!("/usr/sbin/{tool}"));
    if command::is_executable(&own) {
        return Some(own);
    }
    let found = command::find(tool)?;
    let is_system = command::SYSTEM_DIRECTORIES.iter().any(|directory| found.starts_with(directory));
    (!is_system).then_some(found)
}
