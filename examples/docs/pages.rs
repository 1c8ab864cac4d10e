//! The generated files, by name. Apart from `main`, so that `tests/docs.rs` reads exactly what is shipped.

use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory as _, Parser as _};
use clap_mangen::roff::{Inline, Roff, bold, italic, line_break, roman};
use pve_public_ip::cli::Cli;
use pve_public_ip::doctor::{CHECKS, Check};

/// File name of the manual page.
pub(crate) const MANUAL: &str = "pve-public-ip.8";

/// Schema files and the name by which `pve-public-ip schema` knows each.
pub(crate) const SCHEMAS: [(&str, &str); 12] = [
    ("schema/pools.json", "pools"),
    ("schema/pool.json", "pool"),
    ("schema/guest.json", "guest"),
    ("schema/released.json", "released"),
    ("schema/node.json", "node"),
    ("schema/profile.json", "profile"),
    ("schema/audit.json", "audit"),
    ("schema/partition.json", "partition"),
    ("schema/labels.json", "labels"),
    ("schema/request.json", "request"),
    ("schema/reply.json", "reply"),
    ("schema/output.json", "output"),
];

/// Completion scripts and their shells.
const COMPLETIONS: [(&str, &str); 3] = [
    ("completions/bash/pve-public-ip", "bash"),
    ("completions/zsh/_pve-public-ip", "zsh"),
    ("completions/fish/pve-public-ip.fish", "fish"),
];

/// All generated files: path below the output directory, and content.
pub(crate) fn all() -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut files = vec![(MANUAL, manual())];
    for (name, file) in SCHEMAS {
        files.push((name, printed(&["schema", file])?));
    }
    for (name, shell) in COMPLETIONS {
        files.push((name, printed(&["completion", shell])?));
    }
    Ok(files)
}

/// What the program itself prints for `arguments`: users get the same text from the command and from the file.
fn printed(arguments: &[&str]) -> anyhow::Result<String> {
    // Named, because the environment could name another one.
    let cli = Cli::try_parse_from(["pve-public-ip", "--output-format", "text"].iter().chain(arguments))?;
    let format = cli.global.output_format;
    let output = cli.run();
    output.problem.as_ref().map_or(Ok(()), |problem| anyhow::bail!("cannot run {arguments:?}: {problem}"))?;
    Ok(output.render(format).into_owned())
}

/// The whole command tree with everything filled in that clap fills in only when it parses.
pub(crate) fn command() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

/// Every command that can be run, that is, the leaves of the tree, by full name.
pub(crate) fn leaves(command: &Command) -> Vec<(String, Command)> {
    let mut found = Vec::new();
    for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
        if child.has_subcommands() {
            found.extend(leaves(child));
        } else {
            found.push((child.get_bin_name().unwrap_or_else(|| child.get_name()).to_owned(), child.clone()));
        }
    }
    found
}

/// The manual page: what clap knows about the commands, and around it what it cannot know.
fn manual() -> String {
    let command = command();
    let mut page = Roff::new();
    let source = format!("pve-public-ip {}", command.get_version().unwrap_or_default());
    // No date, so that the same source always gives the same page; an empty field would be dropped.
    page.control("TH", ["PVE-PUBLIC-IP", "8", " ", &source, "System administration"]);
    section(&mut page, "NAME");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    page.text([roman(format!("pve-public-ip - {}", lower_first(&about)))]);
    section(&mut page, "SYNOPSIS");
    page.text([bold("pve-public-ip"), roman(" ["), italic("OPTIONS"), roman("] "), italic("COMMAND"), roman(" ...")]);
    section(&mut page, "DESCRIPTION");
    paragraphs(&mut page, description(&command).iter().map(String::as_str));
    paragraphs(&mut page, DESCRIPTION);
    section(&mut page, "OPTIONS");
    page.text([roman("These go with every command, before or after its name.")]);
    for arg in command.get_arguments() {
        argument(&mut page, arg);
    }
    section(&mut page, "COMMANDS");
    for (name, leaf) in &mut leaves(&command) {
        document_command(&mut page, name, leaf);
    }
    for (title, entries) in [("FILES", FILES), ("ENVIRONMENT", ENVIRONMENT), ("EXIT STATUS", EXIT_STATUS)] {
        section(&mut page, title);
        for (term, text) in entries {
            page.control("TP", []);
            page.text([bold(*term)]);
            page.text([roman(*text)]);
        }
    }
    section(&mut page, "FINDINGS OF DOCTOR");
    page.text([roman(
        "Codes never change. Errors and warnings make the exit status 3; what --fix does about one is said beside it.",
    )]);
    for Check { code, severity, explanation, .. } in CHECKS {
        page.control("TP", []);
        page.text([bold(*code), roman(format!(" ({})", severity.as_str()))]);
        page.text([roman(*explanation)]);
    }
    section(&mut page, "EXAMPLES");
    for (text, lines) in EXAMPLES {
        page.control("PP", []);
        page.text([roman(*text)]);
        page.control("PP", []);
        page.control("RS", ["4"]);
        page.control("nf", []);
        let mut code: Vec<Inline> = Vec::new();
        for line in *lines {
            code.extend([roman(*line), line_break()]);
        }
        code.pop();
        page.text(code);
        page.control("fi", []);
        page.control("RE", []);
    }
    section(&mut page, "SEE ALSO");
    page.text(see_also());
    page.render()
}

fn document_command(page: &mut Roff, name: &str, leaf: &mut Command) {
    page.control("SS", [name.strip_prefix("pve-public-ip ").unwrap_or(name)]);
    let usage = leaf.render_usage().to_string();
    // Long usages come in several lines; the page fills lines by itself.
    let usage: Vec<&str> = usage.trim_start_matches("Usage:").split_whitespace().collect();
    page.text([bold(usage.join(" "))]);
    paragraphs(page, description(leaf).iter().map(String::as_str));
    let aliases: Vec<&str> = leaf.get_visible_aliases().collect();
    if !aliases.is_empty() {
        paragraphs(page, [format!("Also: {}.", aliases.join(", ")).as_str()]);
    }
    let global = |arg: &&Arg| arg.is_global_set() || arg.is_hide_set() || arg.get_id() == "help";
    let (positional, options): (Vec<&Arg>, Vec<&Arg>) =
        leaf.get_arguments().filter(|arg| !global(arg)).partition(|arg| arg.is_positional());
    for arg in positional.into_iter().chain(options) {
        argument(page, arg);
    }
}

/// One argument: its spelling, its help, its values, default and environment variable.
fn argument(page: &mut Roff, arg: &Arg) {
    page.control("TP", []);
    let value = arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let takes_value = arg.is_positional() || arg.get_action().takes_values();
    let mut head = Vec::new();
    if let Some(short) = arg.get_short() {
        head.push(bold(format!("-{short}")));
    }
    if let Some(long) = arg.get_long() {
        if !head.is_empty() {
            head.push(roman(", "));
        }
        head.push(bold(format!("--{long}")));
    }
    if takes_value {
        if !head.is_empty() {
            head.push(roman(" "));
        }
        head.push(italic(value));
    }
    page.text(head);
    let mut text = plain(arg.get_long_help().or_else(|| arg.get_help())).join(" ");
    if let Some(variable) = arg.get_env() {
        text = format!("{text}. Environment: {}", variable.to_string_lossy());
    }
    let mut values = if takes_value { arg.get_possible_values() } else { Vec::new() };
    values.retain(|value| !value.is_hide_set());
    if !values.is_empty() && values.iter().all(|value| value.get_help().is_none()) {
        let names: Vec<&str> = values.iter().map(clap::builder::PossibleValue::get_name).collect();
        text = format!("{text}: {}", names.join(", "));
        values.clear();
    }
    page.text([roman(text)]);
    for value in &values {
        page.control("RS", []);
        page.control("TP", []);
        let is_default = arg.get_default_values().iter().any(|default| default == value.get_name());
        page.text([bold(value.get_name()), roman(if is_default { " (default)" } else { "" })]);
        page.text([roman(plain(value.get_help()).join(" "))]);
        page.control("RE", []);
    }
}

/// Long help of a command, by paragraph. The exit status has a section of its own.
fn description(command: &Command) -> Vec<String> {
    let text = plain(command.get_long_about().or_else(|| command.get_about()));
    text.into_iter().filter(|paragraph| !paragraph.starts_with("Exit status:")).collect()
}

fn plain(text: Option<&StyledStr>) -> Vec<String> {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn section(page: &mut Roff, title: &str) {
    page.control("SH", [title]);
}

fn paragraphs<'a>(page: &mut Roff, texts: impl IntoIterator<Item = &'a str>) {
    for text in texts {
        page.control("PP", []);
        let end = if text.ends_with(['.', ':']) { "" } else { "." };
        page.text([roman(format!("{text}{end}"))]);
    }
}

/// `Bind the ...` after a dash.
fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

fn see_also() -> Vec<Inline> {
    let mut line = Vec::new();
    for (name, number) in [
        ("systemctl", 1),
        ("qm", 1),
        ("pct", 1),
        ("pvesm", 1),
        ("nft", 8),
        ("ip-neighbour", 8),
        ("ip-route", 8),
        ("bridge", 8),
    ] {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.extend([bold(name), roman(format!("({number})"))]);
    }
    line
}

const DESCRIPTION: [&str; 3] = [
    "While a guest runs, its port may send with its own MAC and its own addresses only, in IPv4, ARP, IPv6 and neighbour \
     discovery, and no other port of the bridge may use or claim them. An address in a pool is protected whether it is \
     assigned or not, and whether its guest runs or not.",
    "Proxmox VE calls the hookscript local:snippets/pve-public-ip at each phase of the guest's life, and the hookscript calls \
     the command hook. If an address cannot be protected, the guest does not start, and the task log says why.",
    "Names of commands may be shortened as long as they stay unambiguous. Data goes to standard output, everything else to \
     standard error and to syslog (facility daemon).",
];

type Entries = &'static [(&'static str, &'static str)];

const FILES: Entries = &[
    (
        "/etc/pve/public-ip/pools.json",
        "Says that each pool has a file of its own. In version 1 of the format: all pools and their addresses.",
    ),
    (
        "/etc/pve/public-ip/pools/NAME.json",
        "One pool and its addresses. Cluster-wide, written by this program; may be read by others.",
    ),
    ("/etc/pve/public-ip/guests/VMID.json", "Assignments of one guest, and the hookscript that it had before."),
    (
        "/etc/pve/public-ip/released.json",
        "Addresses that were released not long ago, and are not handed out by themselves before their pool's cool-down has \
         passed. May be removed.",
    ),
    ("/etc/pve/public-ip/nodes/NODE.json", "Optional: which ports of the node's bridges lead to the provider."),
    (
        "/run/pve-public-ip/guard",
        "How the guard is: when it last looked, how long that took, what it has repaired, its trouble.",
    ),
    (
        "/var/lib/pve-public-ip/audit.log",
        "What was changed on this node, by whom and why, a line of JSON each; rotated by logrotate(8). Beside it audited.json, \
         the registry as the log knows it.",
    ),
    ("/run/pve-public-ip", "Volatile notes of this node and its lock. May be lost: apply works without them."),
    (
        "/etc/pve/public-ip/releases/NODE.json",
        "Release that a node had at its last apply, for the doctor of the others.",
    ),
    (
        "/var/lib/vz/snippets/pve-public-ip",
        "The hookscript, known to Proxmox VE as local:snippets/pve-public-ip. Installed on Proxmox VE only.",
    ),
    (
        "/usr/share/pve-public-ip/hookscripts/pve-public-ip",
        "The same, to be copied into a snippets storage of your own.",
    ),
    (
        "/usr/share/pve-public-ip/schema",
        "JSON Schema of the registry's files, of a profile of your own and of the audit log, as printed by the command schema.",
    ),
    (
        "/etc/iproute2/rt_protos.d/pve-public-ip.conf",
        "Lets ip(8) print the name of protocol 121, which marks our neighbours and routes.",
    ),
];

const ENVIRONMENT: Entries = &[
    ("PVE_PUBLIC_IP_ROOT", "Same as --root, also for a hookscript that somebody else calls."),
    ("PROXMOX_OUTPUT_FORMAT", "Same as --output-format."),
    (
        "PVE_MIGRATED_FROM",
        "Set by Proxmox VE for a hookscript on the target of a live migration: name of the source node.",
    ),
];

const EXIT_STATUS: Entries = &[
    ("0", "Done."),
    ("1", "Failed; the message says what was tried, on what and why. A guest whose pre-start ends so does not start."),
    ("2", "The command line is wrong."),
    (
        "3",
        "verify found that the node differs from its desired state, doctor found an error or a warning, or topology --check a mistake.",
    ),
    ("4", "A file of the registry is wrong; the message names file and key."),
    ("5", "The registry cannot be written, for example without quorum."),
];

const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "Two addresses that the provider leads to bridge vmbr0, given to guest 100:",
        &[
            "pve-public-ip pool create rack --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.1 203.0.113.10/32 2001:db8:0:1::10/128",
            "pve-public-ip assign 100 --pool rack",
            "qm start 100",
        ],
    ),
    (
        "An address with the MAC that the provider made for it:",
        &["pve-public-ip pool add rack 203.0.113.11/32 --mac 02:00:00:12:34:56"],
    ),
    ("Put right what somebody changed by hand, after a look at it:", &["pve-public-ip verify || pve-public-ip apply"]),
    (
        "What is wrong around it, and what can be put right without asking:",
        &["pve-public-ip doctor", "pve-public-ip doctor --fix"],
    ),
    ("The node as a picture:", &["pve-public-ip topology --format dot"]),
    ("Take everything back from a guest:", &["pve-public-ip release 100"]),
    (
        "Who had an address on a day, and all that happened to it since:",
        &[
            "pve-public-ip audit --address 203.0.113.10 --at 2026-03-03",
            "pve-public-ip audit --address 203.0.113.10 --since 2026-03-03",
        ],
    ),
    ("Who holds what, for a program:", &["pve-public-ip list --output-format json"]),
];
