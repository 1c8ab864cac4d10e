//! Completion: scripts for shells, and the words that the node itself knows (guests, pools, addresses, interfaces).
//!
//! The scripts ask this program for every word, so they never differ from it. Which words an argument takes follows from
//! its type, so a new argument that is a guest or a pool is completed without a line here.

use std::any::TypeId;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use serde_json::json;

use super::answers::{Candidate, Candidates, Script};
use super::output::Output;
use super::{Cli, CompleteWords, who};
use crate::links::is_guest_port;
use crate::model::{IfName, NodeName, PoolName, Prefix, Vmid};
use crate::ops::{observe_links, own_addresses};
use crate::paths::Paths;
use crate::reconcile::Node;
use crate::registry::{Inventory, Registry, State};
use crate::store::journal::now;

/// How many free addresses of one range are offered.
const OFFERED_OF_A_RANGE: usize = 16;

/// How many free addresses are offered in all: nobody reads more.
const OFFERED: usize = 200;

/// The script for a shell.
pub(super) fn script(shell: clap_complete::Shell) -> Output {
    let text = match shell {
        clap_complete::Shell::Bash => BASH.to_owned(),
        clap_complete::Shell::Zsh => ZSH.to_owned(),
        clap_complete::Shell::Fish => FISH.to_owned(),
        // These two complete commands and options only.
        other => {
            let mut script = Vec::new();
            clap_complete::generate(other, &mut Cli::command(), "pve-public-ip", &mut script);
            String::from_utf8_lossy(&script).into_owned()
        }
    };
    Output::new(text.clone(), json!(Script { shell: shell.to_string(), script: text }))
}

/// The words that can stand at a place of a command line, one a line, each with its description behind a tab.
pub(super) fn complete(command: &CompleteWords) -> Output {
    let words: Vec<String> = command.words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let line = Line::of(&words, command.index);
    let mut tree = with_candidates(Cli::command(), "", &line);
    let here = std::env::current_dir().ok();
    let found = clap_complete::engine::complete(&mut tree, command.words.clone(), command.index, here.as_deref());
    let found = found.unwrap_or_default();
    let mut text = String::new();
    let mut candidates = Vec::new();
    for candidate in &found {
        let value = candidate.get_value().to_string_lossy();
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.lines().next().unwrap_or_default();
        // A line for a shell: what would end the line, or the word, is no candidate.
        if value.chars().any(char::is_control) {
            continue;
        }
        text += &if help.is_empty() { format!("{value}\n") } else { format!("{value}\t{help}\n") };
        candidates.push(Candidate { value: value.into_owned(), help: help.to_owned() });
    }
    Output::new(text, json!(Candidates { words: candidates }))
}

/// What the command line says before the word that is completed.
#[derive(Debug, Clone)]
struct Line {
    /// Directory under which the node's files lie.
    root: PathBuf,
    /// The guest that is named.
    vmid: Option<Vmid>,
    /// Names of pools that may be meant: whatever could be one.
    pools: BTreeSet<PoolName>,
}

impl Line {
    fn of(words: &[String], index: usize) -> Self {
        let before = words.get(1..index.min(words.len())).unwrap_or_default();
        let named = |option: &str| {
            let behind = before.iter().position(|word| word == option).and_then(|at| before.get(at + 1));
            behind.or_else(|| before.iter().find(|word| word.starts_with(&format!("{option}="))))
        };
        let root = named("--root").map(|root| root.trim_start_matches("--root=").to_owned());
        let root = root.or_else(|| std::env::var("PVE_PUBLIC_IP_ROOT").ok()).filter(|root| !root.is_empty());
        Self {
            root: root.unwrap_or_else(|| "/".to_owned()).into(),
            vmid: before.iter().find_map(|word| word.parse().ok()),
            pools: before.iter().filter_map(|word| word.trim_start_matches("--pool=").parse().ok()).collect(),
        }
    }
}

/// The command tree, with the words of the node at each argument that takes some.
fn with_candidates(command: clap::Command, path: &str, line: &Line) -> clap::Command {
    let path = format!("{path} {}", command.get_name());
    let names: Vec<String> = command.get_subcommands().map(|child| child.get_name().to_owned()).collect();
    let command = command.mut_args(|arg| {
        let Some(kind) = Kind::of(&arg, &path) else { return arg };
        let line = line.clone();
        arg.add(ArgValueCandidates::new(move || kind.candidates(&line).unwrap_or_default()))
    });
    names
        .iter()
        .fold(command, |command, name| command.mut_subcommand(name, |child| with_candidates(child, &path, line)))
}

/// What an argument names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Any guest of the cluster.
    Guest,
    /// A guest that holds addresses.
    Holder,
    Pool,
    Node,
    Organization,
    Bridge,
    GuestPort,
    /// An interface that may lead to the provider.
    Uplink,
    /// An address that next-free allocation could choose.
    Free,
    /// An address of the guest that is named, or of any guest.
    Held,
    /// An entry of the pool that is named.
    Entry,
}

impl Kind {
    /// By the type of the argument, and where that is not enough by its command or its name.
    fn of(arg: &clap::Arg, path: &str) -> Option<Self> {
        let kind = arg.get_value_parser().type_id();
        let is = |id: &str| arg.get_id().as_str() == id;
        let leaf = path.trim_start_matches(" pve-public-ip").trim();
        if kind == TypeId::of::<Vmid>() {
            return Some(if matches!(leaf, "release" | "show" | "set") { Self::Holder } else { Self::Guest });
        }
        if kind == TypeId::of::<PoolName>() {
            // A new pool has a new name.
            return (leaf != "pool create").then_some(Self::Pool);
        }
        if kind == TypeId::of::<NodeName>() {
            return Some(Self::Node);
        }
        if kind == TypeId::of::<Prefix>() {
            return match leaf {
                "assign" => Some(Self::Free),
                "pool remove" | "pool add" => Some(Self::Entry),
                "pool create" => None,
                _ => Some(Self::Held),
            };
        }
        if kind == TypeId::of::<who::Subject>() {
            return Some(Self::Held);
        }
        if kind == TypeId::of::<IfName>() {
            return Some(match leaf {
                _ if is("bridge") => Self::Bridge,
                "explain" => Self::GuestPort,
                _ => Self::Uplink,
            });
        }
        is("organization").then_some(Self::Organization)
    }

    fn candidates(self, line: &Line) -> Option<Vec<CompletionCandidate>> {
        let node = Node::open(Paths::new(std::path::absolute(&line.root).ok()?)).ok()?;
        let registry = || node.store.load_usable().ok();
        let described = |value: String, help: String| CompletionCandidate::new(value).help(Some(help.into()));
        Some(match self {
            Self::Guest => {
                let guests = node.guests.places();
                guests
                    .iter()
                    .map(|(vmid, (node, kind))| described(vmid.to_string(), format!("{} on {node}", kind.noun())))
                    .collect()
            }
            Self::Holder => {
                let registry = registry()?;
                let guests = registry.guests.iter().filter(|(_, guest)| !guest.is_empty());
                let addresses = |guest: &crate::registry::document::GuestFile| {
                    let addresses: BTreeSet<Prefix> =
                        guest.addresses().map(|(.., assigned)| assigned.address).collect();
                    addresses.into_iter().map(|address| address.to_string()).collect::<Vec<_>>().join(" ")
                };
                guests.map(|(vmid, guest)| described(vmid.to_string(), addresses(guest))).collect()
            }
            Self::Pool => {
                let registry = registry()?;
                let pools = registry.pools.pools.iter();
                pools
                    .map(|(name, pool)| {
                        described(name.to_string(), format!("{}, bridge {}", pool.profile_name(), pool.bridge))
                    })
                    .collect()
            }
            Self::Node => {
                let nodes: BTreeSet<NodeName> = node.guests.places().values().map(|(node, _)| node.clone()).collect();
                nodes.into_iter().map(|node| CompletionCandidate::new(node.to_string())).collect()
            }
            Self::Organization => {
                let registry = registry()?;
                let named = registry.assignments().filter_map(|(.., assigned)| assigned.organization.clone());
                // What a shell would take apart has to be quoted by hand.
                let is_word = |name: &String| name.chars().all(|c| c.is_alphanumeric() || "-_.@+".contains(c));
                named.filter(is_word).collect::<BTreeSet<String>>().into_iter().map(CompletionCandidate::new).collect()
            }
            Self::Bridge | Self::GuestPort | Self::Uplink => interfaces(self),
            Self::Free => free(&registry()?, line),
            Self::Held => held(&registry()?, line),
            Self::Entry => {
                let registry = registry()?;
                let pools = registry.pools.pools.iter().filter(|(name, _)| line.pools.contains(*name));
                let entries = pools.flat_map(|(name, pool)| pool.addresses.iter().map(move |entry| (name, entry)));
                entries.map(|(name, entry)| described(entry.address.to_string(), format!("pool {name}"))).collect()
            }
        })
    }
}

fn interfaces(kind: Kind) -> Vec<CompletionCandidate> {
    let links = observe_links().unwrap_or_default();
    let is_wanted = |name: &IfName| {
        let is_bridge = links.0.get(name).is_some_and(|link| link.bridge.is_some());
        match kind {
            Kind::Bridge => is_bridge,
            Kind::GuestPort => !is_bridge && name.as_str() != "lo",
            _ => !is_guest_port(name.as_str()) && name.as_str() != "lo",
        }
    };
    links.0.keys().filter(|name| is_wanted(name)).map(|name| CompletionCandidate::new(name.to_string())).collect()
}

/// The first free addresses of each range, of the pool that is named if one is.
fn free(registry: &Registry, line: &Line) -> Vec<CompletionCandidate> {
    let inventory = Inventory::of(registry, &own_addresses(), now());
    let is_one_named = registry.pools.pools.keys().any(|name| line.pools.contains(name));
    let mut found = Vec::new();
    for (name, pool) in registry.pools.pools.iter().filter(|(name, _)| !is_one_named || line.pools.contains(*name)) {
        for run in inventory.runs(pool, |state| *state == State::Free) {
            let help = run.mac.map_or_else(|| format!("pool {name}"), |mac| format!("pool {name}, MAC {mac}"));
            let described =
                |address: IpAddr| CompletionCandidate::new(address.to_string()).help(Some(help.clone().into()));
            found.extend(run.span.addresses().take(OFFERED_OF_A_RANGE).map(described));
            if found.len() >= OFFERED {
                return found;
            }
        }
    }
    found
}

/// The addresses of the guest that is named, or of all guests.
fn held(registry: &Registry, line: &Line) -> Vec<CompletionCandidate> {
    let is_asked = |vmid: Vmid| line.vmid.is_none_or(|asked| asked == vmid);
    let mut held: Vec<_> = registry.assignments().filter(|(vmid, ..)| is_asked(*vmid)).collect();
    held.sort_by_key(|(.., assigned)| assigned.address);
    held.dedup_by_key(|(.., assigned)| assigned.address);
    let described = |(vmid, nic, _, assigned): &crate::registry::Holding<'_>| {
        CompletionCandidate::new(assigned.address.to_string()).help(Some(format!("guest {vmid} {nic}").into()))
    };
    held.iter().map(described).collect()
}

/// bash splits words at colons, and IPv6 addresses and MACs have some: the words are joined as they stand in the line, and
/// of an offered word only what follows the last colon is given back.
const BASH: &str = r#"# bash completion for pve-public-ip
_pve_public_ip() {
    local line=$COMP_LINE word apart=1 i typed words=() replies=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        [[ $line == [[:blank:]]* ]] && apart=1
        line=${line#"${line%%[![:blank:]]*}"}
        line=${line#"$word"}
        if ((apart)); then words+=("$word"); else words[${#words[@]} - 1]+=$word; fi
        apart=0
    done
    typed=${words[${#words[@]} - 1]}
    mapfile -t replies < <(pve-public-ip complete-words "$((${#words[@]} - 1))" -- "${words[@]}" 2>/dev/null)
    replies=("${replies[@]%%$'\t'*}")
    if [[ $COMP_WORDBREAKS == *:* && $typed == *:* ]]; then
        replies=("${replies[@]#"${typed%"${typed##*:}"}"}")
    fi
    COMPREPLY=("${replies[@]}")
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/=] ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -o bashdefault -o nosort -F _pve_public_ip pve-public-ip
"#;

const ZSH: &str = r#"#compdef pve-public-ip
_pve_public_ip() {
    local line value
    local -a described
    for line in "${(@f)$(pve-public-ip complete-words $((CURRENT - 1)) -- "${(@)words[1,CURRENT]}" 2>/dev/null)}"; do
        [[ -n $line ]] || continue
        value=${line%%$'\t'*}
        described+=("${value//:/\\:}${${line#$value}/$'\t'/:}")
    done
    _describe -V 'pve-public-ip' described
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _pve_public_ip "$@"
else
    compdef _pve_public_ip pve-public-ip
fi
"#;

const FISH: &str = "# fish completion for pve-public-ip
function __pve_public_ip_words
    set -l before (commandline --current-process --tokenize --cut-at-cursor)
    pve-public-ip complete-words (count $before) -- $before (commandline --current-token --cut-at-cursor) 2>/dev/null
end
complete --command pve-public-ip --no-files --keep-order --arguments '(__pve_public_ip_words)'
";
