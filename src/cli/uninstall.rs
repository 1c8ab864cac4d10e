//! `uninstall`: what this program has put on the node goes.

use super::Uninstall;
use super::output::Output;
use crate::ops::{self, Uninstalled};
use crate::reconcile::Node;

pub(super) fn uninstall(node: &Node, command: &Uninstall, dry_run: bool) -> anyhow::Result<Output> {
    let shown = dry_run || !command.yes;
    let done = ops::uninstall(node, command.keep_running, shown)?;
    let Uninstalled { changed, guard, guests, holders, .. } = &done.answer;
    let mut lines: Vec<String> = guard.line("guard").into_iter().collect();
    for guest in guests {
        lines.extend(guest.hookscript.line(&format!("hookscript of guest {}", guest.vmid)));
    }
    lines.extend(done.node.steps.iter().cloned());
    if !changed {
        lines.push("nothing of pve-public-ip is left to take out".to_owned());
    } else if command.keep_running {
        let verb = if shown { "would stay" } else { "stay" };
        lines.push(format!("guests that run {verb} bound until this node boots; nobody else is held back"));
    }
    if *holders > 0 {
        let (guests, hold) = if *holders == 1 { ("guest", "holds") } else { ("guests", "hold") };
        lines.push(format!(
            "note: {holders} {guests} of this node still {hold} addresses, which nothing protects here any more\n  \
             hint: `pve-public-ip release --all` lists what all guests hold; with --yes it releases that"
        ));
    }
    if shown && !dry_run && *changed {
        let keep = if command.keep_running { " --keep-running" } else { "" };
        lines.push(format!("nothing is changed yet: `pve-public-ip uninstall{keep} --yes` does this"));
    }
    Ok(Output::of(&done, &lines, &[]))
}
