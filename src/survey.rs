//! Looks at a node and what surrounds it, for `doctor` and `topology`. What cannot be looked at is the reason why, and what
//! hangs is left behind: a cluster file system may never answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::doctor::firewall::{Firewall, FirewallFile};
use crate::doctor::{Facts, Files, GuardService, Members, Observation, Release, Script, Unreadable};
use crate::guest::storages;
use crate::hookscript::{VOLUME, calls_us, is_ours, volume_path};
use crate::host::command;
use crate::host::files;
use crate::interfaces::Interfaces;
use crate::links::Links;
use crate::model::problem::line;
use crate::model::{NodeName, Vmid};
use crate::paths::Paths;
use crate::plan::{Inputs, Located};
use crate::reconcile::Node;
use crate::registry::Registry;
use crate::registry::document::POOLS_VERSION;
use crate::ruleset::BaseChain;
use crate::ruleset::{Backend, Table};
use crate::selftest;
use crate::store::StoreError;
use crate::system::port_programs::{self, Absent};
use crate::system::run::RunState;
use crate::system::{Kernel, Reference, foreign_chains, legacy_chains, routers};

/// How long to wait for what should take milliseconds.
const LIMIT: Duration = Duration::from_secs(5);

/// The same for one hookscript; it must come before the limit for all files.
const SCRIPT_LIMIT: Duration = Duration::from_secs(2);

/// Seconds that another program may take.
const PROGRAM_LIMIT: u32 = 2;

/// Larger than any of these files.
const FILE_LIMIT: usize = 1 << 20;

/// Everything that the doctor wants to know.
pub fn facts(paths: &Paths) -> Facts {
    let until = Instant::now() + LIMIT;
    let cluster = begin(paths, look_at_cluster);
    let kernel = begin(paths, |paths| Ok(look_at_kernel(paths)));
    let features = begin(paths, look_at_features);
    let programs = begin(paths, |_| Ok(look_at_programs()));
    let machine = begin(paths, |paths| Ok((look_at_interfaces(paths), Ok(look_at_guard(paths)))));

    let unanswered = |what: &str| format!("{what} did not answer within {} s", LIMIT.as_secs());
    let (links, chains, void) = wait(&kernel, until, || unanswered("the kernel"))
        .unwrap_or_else(|reason| (Err(reason.clone()), Err(reason.clone()), Err(reason)));
    let missing = wait(&features, until, || unanswered("other programs"));
    let (nft, clock) = wait(&programs, until, || unanswered("other programs"))
        .unwrap_or_else(|reason| (Err(reason.clone()), Err(reason)));
    let (interfaces, guard) = wait(&machine, until, || unanswered("`/etc` and `/run`"))
        .unwrap_or_else(|reason| (Err(reason.clone()), Err(reason)));
    let mut files = wait(&cluster, until, || silence(paths)).unwrap_or_else(|reason| Err(reason.into()));
    if let Ok(files) = &mut files {
        files.inputs.links = links.clone().unwrap_or_default();
    }
    let parameters = files.as_ref().map_err(|unreadable| unreadable.reason.clone()).map(look_at_parameters);
    let kernel = selftest::kernel_release().map_err(|error| format!("/proc/sys/kernel/osrelease: {error}"));
    Facts { files, interfaces, links, chains, void, parameters, missing, kernel, nft, clock, guard }
}

/// What there is to draw.
#[derive(Debug)]
pub struct Site {
    /// What lies under `/etc/pve`.
    pub files: Result<Files, Unreadable>,
    /// `/etc/network/interfaces`, as far as it is there.
    pub interfaces: Interfaces,
    /// The interfaces: the kernel's, or as they are described.
    pub links: Links,
    /// What could not be looked at.
    pub unknown: Vec<String>,
}

/// The node as it can be drawn. A tree under `--root` that describes its network is not this machine's kernel.
pub fn site(paths: &Paths) -> Site {
    let until = Instant::now() + LIMIT;
    let cluster = begin(paths, look_at_cluster);
    let described = begin(paths, look_at_interfaces);
    let described = wait(&described, until, || "`/etc` does not answer".to_owned());
    let mut unknown = Vec::new();
    let links = match &described {
        Ok(described) if !paths.is_machine() => described.links(),
        described => {
            let kernel = Kernel::open(Reference::default()).and_then(|mut kernel| kernel.links());
            kernel.unwrap_or_else(|error| {
                unknown.push(format!("the kernel's interfaces, because {}", line(&error)));
                described.as_ref().map(Interfaces::links).unwrap_or_default()
            })
        }
    };
    let interfaces = described.unwrap_or_else(|error| {
        unknown.push(error);
        Interfaces::default()
    });
    let files = wait(&cluster, until, || silence(paths)).unwrap_or_else(|reason| Err(reason.into()));
    Site { files, interfaces, links, unknown }
}

fn silence(paths: &Paths) -> String {
    format!("`{}` did not answer within {} s", paths.etc_pve().display(), LIMIT.as_secs())
}

/// Starts a thread that looks at something. One that hangs ends with the process.
fn begin<T: Send + 'static>(
    paths: &Paths,
    look: impl FnOnce(&Paths) -> Observation<T> + Send + 'static,
) -> Receiver<Observation<T>> {
    let (found, receiver) = channel();
    let paths = paths.clone();
    thread::spawn(move || found.send(look(&paths)));
    receiver
}

fn wait<T>(receiver: &Receiver<Observation<T>>, until: Instant, late: impl Fn() -> String) -> Observation<T> {
    match receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(found) => found,
        Err(RecvTimeoutError::Timeout) => Err(late()),
        Err(RecvTimeoutError::Disconnected) => Err("the thread that looks at it ended early".to_owned()),
    }
}

fn look_at_kernel(paths: &Paths) -> (Observation<Links>, Observation<Vec<BaseChain>>, Observation<Vec<Table>>) {
    let chains = foreign_chains().map_err(|error| line(&error)).and_then(|mut chains| {
        chains.extend(legacy_chains().map_err(|error| line(&error))?);
        Ok(chains)
    });
    let mut kernel = match Kernel::open(Reference::default()) {
        Ok(kernel) => kernel,
        Err(error) => return (Err(line(&error)), chains, Err(line(&error))),
    };
    let mut void = Ok(Vec::new());
    // Where iptables filters routed traffic there is no table for it.
    let by_chains = RunState::unlocked(paths).backend().is_some_and(|note| note.backend != Backend::Nftables);
    for table in Table::ALL.into_iter().filter(|table| *table == Table::Bridge || !by_chains) {
        match (kernel.is_void(table), &mut void) {
            (Ok(true), Ok(void)) => void.push(table),
            (Err(error), void) => *void = Err(line(&error)),
            (Ok(_), _) => {}
        }
    }
    (kernel.links().map_err(|error| line(&error)), chains, void)
}

fn look_at_programs() -> (Observation<Result<String, String>>, Observation<bool>) {
    (Ok(selftest::nft_version().map_err(|error| line(&error))), look_at_clock())
}

/// A feature that this kernel has shown since it booted is not tried again: to try all takes longer than all else.
fn look_at_features(paths: &Paths) -> Observation<Vec<crate::model::Missing>> {
    let proven = RunState::proven_features(paths);
    let mut missing =
        selftest::missing(&proven).map_err(|error| format!("cannot make a network namespace: {error}"))?;
    let lacks = |feature: &&str| missing.iter().any(|missing| missing.feature == *feature);
    let now: BTreeSet<String> = selftest::features().filter(|feature| !lacks(feature)).map(str::to_owned).collect();
    if now != proven {
        RunState::set_proven_features(paths, &now);
    }
    if let Err(absent @ (Absent::NoHook | Absent::NoLayout)) = port_programs::possible() {
        missing.push(crate::model::Missing {
            feature: "programs at ports",
            meaning: "nothing judges the checksums that frames of guests leave to the node",
            reason: line(&absent),
            required: false,
        });
    }
    Ok(missing)
}

/// Whether the clock follows another one, by whichever service is there to say so.
fn look_at_clock() -> Observation<bool> {
    // It fails where its service is not the one that runs.
    if let Ok(report) = command::run_within(PROGRAM_LIMIT, "chronyc", &["-c", "tracking"]) {
        return Ok(!String::from_utf8_lossy(&report).trim().ends_with("Not synchronised"));
    }
    let arguments = ["show", "--property=NTPSynchronized", "--value"];
    let answer = command::run_within(PROGRAM_LIMIT, "timedatectl", &arguments).map_err(|error| line(&error))?;
    Ok(answer.starts_with(b"yes"))
}

fn look_at_guard(paths: &Paths) -> GuardService {
    let noted = RunState::guard_note(paths);
    let installed = ["/lib/systemd/system", "/usr/lib/systemd/system", "/etc/systemd/system"];
    let installed = installed.iter().any(|place| paths.under_root(place).join(crate::doctor::UNIT).exists());
    let wanted = paths.under_root("/etc/systemd/system/multi-user.target.wants").join(crate::doctor::UNIT);
    GuardService {
        runs: noted.as_ref().is_some_and(crate::system::run::GuardNote::is_alive),
        has_run: noted.is_some(),
        trouble: noted.and_then(|note| note.trouble),
        enabled: installed.then(|| fs::symlink_metadata(wanted).is_ok()),
        listening: started_with_listen(paths),
    }
}

/// Files of the administrator that start the guard with `--listen`.
fn started_with_listen(paths: &Paths) -> Vec<String> {
    let own = ["/etc/systemd/system", "/run/systemd/system"];
    let own = own.iter().flat_map(|place| {
        let unit = format!("{place}/{}", crate::doctor::UNIT);
        let drop_ins = format!("{unit}.d");
        let names = files::names(&paths.under_root(&drop_ins))
            .into_iter()
            .filter(|name| Path::new(name).extension().is_some_and(|kind| kind == "conf"));
        let mut all: Vec<String> = names.map(|name| format!("{drop_ins}/{name}")).collect();
        all.sort_unstable();
        all.insert(0, unit);
        all
    });
    let listens = |path: &String| {
        let bytes = files::read_limited(&paths.under_root(path), FILE_LIMIT).unwrap_or_default();
        starts_with_listen(&String::from_utf8_lossy(&bytes))
    };
    own.filter(listens).collect()
}

/// Whether a unit's text starts something with the option `--listen`. A line that ends with a backslash goes on.
fn starts_with_listen(text: &str) -> bool {
    let text = text.replace("\\\n", " ");
    let starts =
        text.lines().filter_map(|line| line.trim_start().strip_prefix("ExecStart")?.trim_start().strip_prefix('='));
    let is_listen = |word: &str| word == "--listen" || word.starts_with("--listen=");
    starts.into_iter().any(|command| command.split_whitespace().any(|word| is_listen(word.trim_matches(['"', '\'']))))
}

/// The node's network configuration and what it includes.
pub fn look_at_interfaces(paths: &Paths) -> Observation<Interfaces> {
    let mut interfaces = Interfaces::default();
    let mut pending = vec![paths.interfaces()];
    let mut seen = BTreeSet::new();
    while let Some(path) = pending.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let bytes = files::read_limited(&path, FILE_LIMIT)
            .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
        let includes = interfaces.read(&String::from_utf8_lossy(&bytes));
        // A relative one counts from `/etc/network`.
        let absolute = |pattern: &String| {
            let is_relative = !pattern.starts_with('/');
            if is_relative { paths.interfaces().with_file_name(pattern) } else { paths.under_root(pattern) }
        };
        pending.extend(includes.iter().flat_map(|pattern| included(&absolute(pattern))));
    }
    if has_classes(paths) {
        interfaces.take_masks_of_classes();
    }
    Ok(interfaces)
}

/// Whether it is ifupdown that sets up the network, and not ifupdown2, which Proxmox VE has and which replaces it.
fn has_classes(paths: &Paths) -> bool {
    let is_there = |path: &str| fs::symlink_metadata(paths.under_root(path)).is_ok();
    !is_there("/usr/share/ifupdown2") && (is_there("/usr/sbin/ifup") || is_there("/sbin/ifup"))
}

/// The files that a pattern means: a star stands in the name of the file only, as everybody writes it.
fn included(pattern: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (pattern.parent(), pattern.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let Some((start, end)) = name.split_once('*') else {
        return if pattern.is_file() { vec![pattern.to_owned()] } else { Vec::new() };
    };
    let mut names = files::names(directory);
    names.retain(|name| name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end));
    // Read in order, though last in is first out.
    names.sort_unstable_by(|one, two| two.cmp(one));
    names.into_iter().map(|name| directory.join(name)).filter(|path| path.is_file()).collect()
}

fn look_at_parameters(files: &Files) -> BTreeMap<String, String> {
    let bridges = files.bridges();
    let calls = ["iptables", "ip6tables", "arptables"].map(|table| format!("net/bridge/bridge-nf-call-{table}"));
    let filters = bridges.into_iter().map(|bridge| format!("net/ipv4/conf/{bridge}/rp_filter"));
    let names = calls.into_iter().chain(filters).chain(["net/ipv4/conf/all/rp_filter".to_owned()]);
    names
        .filter_map(|name| Some((name.clone(), files::read_kernel(&Path::new("/proc/sys").join(name)).ok()?)))
        .collect()
}

#[expect(clippy::unnecessary_wraps, reason = "what others look at may be out of reach as a whole")]
fn look_at_cluster(paths: &Paths) -> Observation<Result<Files, Unreadable>> {
    Ok(look_at_files(paths))
}

fn look_at_files(paths: &Paths) -> Result<Files, Unreadable> {
    let node = Node::open(paths.clone()).map_err(|error| line(&error))?;
    // Before everything else: what it has to say is the reason why the rest fails.
    node.store.check_mounted().map_err(out_of_reach)?;
    let etc_pve = paths.etc_pve();
    match fs::metadata(&etc_pve) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(format!("`{}` is no directory", etc_pve.display()).into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("there is no `{}`", etc_pve.display()).into());
        }
        Err(error) => return Err(format!("cannot look at `{}`: {error}", etc_pve.display()).into()),
    }
    let registry = node.store.load_usable().map_err(out_of_reach)?;
    let (mut guests, mut unreadable) = (BTreeMap::new(), BTreeMap::new());
    for (vmid, found) in node.guests.all() {
        match found {
            Ok(located) => {
                guests.insert(vmid, located);
            }
            Err(error) => {
                unreadable.insert(vmid, line(&error));
            }
        }
    }
    let nodes = node.guests.nodes();
    let scripts = look_at_scripts(paths, &node.name, &registry, &guests);
    let firewall = look_at_firewall(paths, &node.name, &registry);
    let releases = nodes.iter().filter_map(|node| Some((node.clone(), read_release(paths, node)?))).collect();
    let (leftovers, ahead) = look_at_registry(paths, &registry);
    let is_old = registry.pools.version != POOLS_VERSION && !registry.pools.pools.is_empty();
    let is_convertible = is_old && registry.broken.is_empty() && node.store.reads_pool_files(&registry).is_ok();
    // What was read while the file system went away is not what it says.
    node.store.check_mounted().map_err(out_of_reach)?;
    let inputs = Inputs { routers: routers::load(paths), ..Inputs::new(node.name, registry, guests) };
    Ok(Files {
        inputs,
        unreadable,
        nodes,
        storages: storages(paths),
        scripts,
        firewall,
        members: look_at_members(paths),
        releases,
        is_convertible,
        leftovers,
        ahead,
    })
}

/// With what the store advises.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
fn out_of_reach(error: StoreError) -> Unreadable {
    let plain = Unreadable::from(line(&error));
    Unreadable { remedy: error.hint().unwrap_or(plain.remedy), ..plain }
}

/// Hookscripts that guests of this node with assignments name, that ours calls for them, and ours.
fn look_at_scripts(
    paths: &Paths,
    node: &NodeName,
    registry: &Registry,
    guests: &BTreeMap<Vmid, Located>,
) -> BTreeMap<String, Script> {
    let mut volumes = BTreeSet::new();
    for (vmid, place) in guests.iter().filter(|(_, place)| place.node == *node) {
        let held = registry.guests.get(vmid).filter(|held| !held.is_empty());
        let named = place.config.hookscript.as_deref().filter(|volume| held.is_some() || is_ours(volume));
        volumes.extend(named.into_iter().chain(held.and_then(|held| held.hookscript.as_deref())));
    }
    // Without Proxmox VE somebody else calls us.
    if paths.pmxcfs_database().exists() && !registry.pools.pools.is_empty() {
        volumes.insert(VOLUME);
    }
    // Their storages may hang while `/etc/pve` is well.
    let until = Instant::now() + SCRIPT_LIMIT;
    let begun: Vec<_> = volumes.into_iter().map(|volume| (volume.to_owned(), begin_script(paths, volume))).collect();
    let late = || format!("its storage did not answer within {} s", SCRIPT_LIMIT.as_secs());
    begun.into_iter().map(|(volume, look)| (volume, wait(&look, until, late).unwrap_or_else(Script::Nowhere))).collect()
}

fn begin_script(paths: &Paths, volume: &str) -> Receiver<Observation<Script>> {
    let volume = volume.to_owned();
    begin(paths, move |paths| Ok(script(paths, &volume)))
}

/// Whether Proxmox VE can run a hookscript here.
fn script(paths: &Paths, volume: &str) -> Script {
    match volume_path(paths, volume) {
        Err(reason) => Script::Nowhere(reason),
        Ok(path) if command::is_executable(&path) => {
            let known = !is_ours(volume) || files::read_limited(&path, FILE_LIMIT).is_ok_and(|text| calls_us(&text));
            if known { Script::Ready } else { Script::NotOurs(path) }
        }
        Ok(path) if path.is_file() => Script::NotExecutable(path),
        Ok(path) => Script::Missing(path),
    }
}

fn look_at_firewall(paths: &Paths, node: &NodeName, registry: &Registry) -> Firewall {
    // One that is not there says nothing, and neither does Proxmox VE take an unreadable one for more.
    let read = |path: &Path| {
        let bytes = files::read_limited(path, FILE_LIMIT).ok()?;
        Some(FirewallFile::parse(&String::from_utf8_lossy(&bytes)))
    };
    let holders = registry.guests.values().filter(|guest| !guest.is_empty()).map(|guest| guest.vmid);
    Firewall {
        cluster: read(&paths.firewall().join("cluster.fw")).unwrap_or_default(),
        host: read(&paths.host_firewall(node)).unwrap_or_default(),
        guests: holders.filter_map(|vmid| Some((vmid, read(&paths.firewall().join(format!("{vmid}.fw")))?))).collect(),
    }
}

/// Source: pve-cluster `src/pmxcfs/status.c`: a node on its own has no `cluster`.
fn look_at_members(paths: &Paths) -> Observation<Members> {
    let path = paths.members();
    if !path.exists() && !paths.pmxcfs_database().exists() {
        // No Proxmox VE: whoever is alone agrees with himself.
        return Ok(Members { quorate: true, offline: BTreeSet::new() });
    }
    let bytes =
        files::read_limited(&path, FILE_LIMIT).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    let value: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| format!("`{}` is not JSON: {error}", path.display()))?;
    let is = |value: Option<&serde_json::Value>| value.and_then(serde_json::Value::as_u64) == Some(1);
    let nodes = value.get("nodelist").and_then(serde_json::Value::as_object).into_iter().flatten();
    let offline = nodes.filter(|(_, entry)| !is(entry.get("online"))).filter_map(|(name, _)| name.parse().ok());
    let quorate = value.get("cluster").is_none_or(|cluster| is(cluster.get("quorate")));
    Ok(Members { quorate, offline: offline.collect() })
}

fn read_release(paths: &Paths, node: &NodeName) -> Option<Release> {
    serde_json::from_slice(&files::read_limited(&paths.release_file(node), FILE_LIMIT).ok()?).ok()
}

/// Notes for the other nodes what this one runs, where there is a registry. Nothing is written if it is known already.
pub fn note_release(paths: &Paths, node: &NodeName) -> io::Result<()> {
    if !paths.pools_file().exists() && !paths.pool_files().exists() {
        return Ok(());
    }
    let hookscript = script(paths, VOLUME) == Script::Ready;
    let release = Release { release: env!("CARGO_PKG_VERSION").to_owned(), hookscript };
    if read_release(paths, node).as_ref() == Some(&release) {
        return Ok(());
    }
    let path = paths.release_file(node);
    files::directories(path.parent().unwrap_or(&path))?;
    files::replace_as(&path, &serde_json::to_vec(&release)?, node.as_str())
}

/// Files that a writer left, and the one that was written the furthest in the future.
fn look_at_registry(paths: &Paths, registry: &Registry) -> (Vec<PathBuf>, Option<(PathBuf, Duration)>) {
    let mut leftovers = Vec::new();
    for directory in [paths.registry(), paths.guest_files(), paths.pool_files(), paths.registry().join("nodes")] {
        let names = files::names(&directory).into_iter();
        leftovers.extend(names.filter(|name| name.contains(".tmp.")).map(|name| directory.join(name)));
    }
    if registry.pools.version != POOLS_VERSION {
        // Files of pools that do not count: a conversion did not come to its end.
        let names = files::names(&paths.pool_files()).into_iter().filter(|name| !name.contains(".tmp."));
        leftovers.extend(names.map(|name| paths.pool_files().join(name)));
    }
    leftovers.sort_unstable();
    let now = SystemTime::now();
    let known = registry.guests.keys().map(|vmid| paths.guest_file(*vmid)).chain([paths.pools_file()]);
    let is_apart = registry.pools.version == POOLS_VERSION;
    let known = known.chain(registry.pools.pools.keys().filter(|_| is_apart).map(|name| paths.pool_file(name)));
    let ahead = known.filter_map(|path| {
        let written = fs::metadata(&path).and_then(|meta| meta.modified()).ok()?;
        Some((path, written.duration_since(now).ok()?))
    });
    (leftovers, ahead.max_by_key(|(_, by)| *by))
}
