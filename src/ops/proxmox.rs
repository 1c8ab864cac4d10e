//! Changes of a guest's configuration through Proxmox VE's own commands, printed before they are made.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::code;
use crate::guest::Located;
use crate::hookscript;
use crate::host::command;
use crate::model::text::command_line;
use crate::model::{Problem, Vmid};
use crate::reconcile::Node;

/// How a change of the guest's configuration ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing had to change.
    #[default]
    AsWanted,
    /// Changed.
    Done {
        /// By this command.
        command: String,
    },
    /// It would be changed: this is a dry run.
    WouldBeDone {
        /// By this command.
        command: String,
    },
    /// Not changed, and left to the administrator.
    LeftToDo {
        /// Why.
        reason: String,
        /// What is to be run.
        command: String,
    },
    /// The command failed.
    Failed {
        /// What it said.
        reason: String,
        /// What is to be run.
        command: String,
    },
}

impl Outcome {
    /// What is to be said of it.
    pub fn sentence(&self) -> Option<String> {
        match self {
            Self::AsWanted => None,
            Self::Done { command } => Some(command.clone()),
            Self::WouldBeDone { command } => Some(format!("{command} (not run)")),
            Self::LeftToDo { reason, command } => Some(format!("{reason}; do it by hand: {command}")),
            Self::Failed { reason, command } => Some(format!("{reason}; try it by hand: {command}")),
        }
    }

    /// The line that says so.
    pub fn line(&self, about: &str) -> Option<String> {
        self.sentence().map(|sentence| format!("{about}: {sentence}"))
    }

    /// Whether it changed something, or would.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::WouldBeDone { .. })
    }

    /// The failure, if it is one.
    pub(crate) fn failure(&self, vmid: Vmid) -> Option<Problem> {
        match self {
            Self::Failed { reason, command } => {
                let hint = format!("try it by hand: `{command}`");
                Some(Problem::of_guest(code!("command-failed"), vmid, reason.clone(), hint))
            }
            _ => None,
        }
    }

    /// Whether the administrator has to do something.
    pub fn is_left_to_do(&self) -> bool {
        matches!(self, Self::LeftToDo { .. } | Self::Failed { .. })
    }
}

/// Registers our hookscript.
pub(crate) fn register(node: &Node, vmid: Vmid, located: &Located, dry_run: bool) -> Outcome {
    if located.config.hookscript.as_deref().is_some_and(hookscript::is_ours) {
        return Outcome::AsWanted;
    }
    set(node, vmid, located, &["--hookscript", hookscript::VOLUME], dry_run)
}

/// Puts back the hookscript that the guest had before, or none.
pub(crate) fn unregister(node: &Node, vmid: Vmid, located: &Located, before: Option<&str>, dry_run: bool) -> Outcome {
    if !located.config.hookscript.as_deref().is_some_and(hookscript::is_ours) {
        return Outcome::AsWanted;
    }
    match before {
        Some(volume) => set(node, vmid, located, &["--hookscript", volume], dry_run),
        None => set(node, vmid, located, &["--delete", "hookscript"], dry_run),
    }
}

/// `qm set VMID` or `pct set VMID`; the same by the API for a guest on another node, to which Proxmox VE hands it on.
///
/// Only root may set a hookscript, and `pvesh` is root there, too. Source: qemu-server `PVE/API2/Qemu.pm`, pve-manager
/// `PVE/CLI/pvesh.pm`.
pub(crate) fn set(node: &Node, vmid: Vmid, located: &Located, options: &[&str], dry_run: bool) -> Outcome {
    let (tool, whom) = setter(node, vmid, located);
    let args: Vec<&str> = ["set", &whom].into_iter().chain(options.iter().copied()).collect();
    call(node, tool, &args, dry_run)
}

/// The command that [`set`] would call, for somebody to run it.
pub(crate) fn set_by_hand(node: &Node, vmid: Vmid, located: &Located, options: &[&str]) -> String {
    let (tool, whom) = setter(node, vmid, located);
    command_line([tool, "set", &whom].into_iter().chain(options.iter().copied()))
}

/// The program that changes a guest's configuration, and by which word it knows the guest.
fn setter(node: &Node, vmid: Vmid, located: &Located) -> (&'static str, String) {
    if located.node == node.name {
        return (located.config.kind.tool(), vmid.to_string());
    }
    ("pvesh", format!("/nodes/{}/{}/{vmid}/config", located.node, located.config.kind.api()))
}

/// `qm cloudinit update VMID`, on whatever node: the guest's cloud-init drive is made anew.
///
/// Source: qemu-server `PVE/API2/Qemu.pm`, `cloudinit_update`.
pub(crate) fn update_cloud_init(node: &Node, vmid: Vmid, located: &Located, dry_run: bool) -> Outcome {
    if located.node == node.name {
        return call(node, "qm", &["cloudinit", "update", &vmid.to_string()], dry_run);
    }
    call(node, "pvesh", &["set", &format!("/nodes/{}/qemu/{vmid}/cloudinit", located.node)], dry_run)
}

/// The metadata that Proxmox VE makes for a guest, on whatever node.
///
/// Source: qemu-server `PVE/API2/Qemu.pm`, `cloudinit_generated_config_dump`.
pub(crate) fn dump_meta(node: &Node, vmid: Vmid, located: &Located) -> Result<String, String> {
    if located.node == node.name {
        return ask(node, "qm", &["cloudinit", "dump", &vmid.to_string(), "meta"]);
    }
    let path = format!("/nodes/{}/qemu/{vmid}/cloudinit/dump", located.node);
    let text = ask(node, "pvesh", &["get", &path, "--type", "meta", "--output-format", "json"])?;
    serde_json::from_str(&text)
        .map_err(|error| format!("`pvesh get {path}` printed something else than a text: {error}"))
}

/// A command that changes something.
pub(crate) fn call(node: &Node, tool: &str, args: &[&str], dry_run: bool) -> Outcome {
    let command = command_line(std::iter::once(tool).chain(args.iter().copied()));
    let program = match program(node, tool) {
        Ok(program) => program,
        Err(reason) => return Outcome::LeftToDo { reason, command },
    };
    if dry_run {
        return Outcome::WouldBeDone { command };
    }
    log::info!("running {command}");
    match command::run(&program.to_string_lossy(), args, b"") {
        Ok(_) => Outcome::Done { command },
        Err(error) => Outcome::Failed { reason: error.to_string(), command },
    }
}

/// What a command prints; the error says why it does not.
pub(crate) fn ask(node: &Node, tool: &str, args: &[&str]) -> Result<String, String> {
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
