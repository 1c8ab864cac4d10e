//! Telling a guest its addresses: snippets and Proxmox VE's own commands, in an order in which the guest can be started at
//! any moment. A snippet is there before the guest names it, and goes after the guest names it no more.

use std::fs::File;
use std::path::Path;

use nix::fcntl::Flock;
use schemars::JsonSchema;
use serde::Serialize;

use super::proxmox::{self, Outcome};
use crate::cloudinit::{
    self, Change, Current, Part, Refusal, Request, Resolver, SnippetName, SnippetStorage, Subnet, Unsuitable, Wanted,
    WantedNic,
};
use crate::code;
use crate::guest::{GuestConfig, Located, storages};
use crate::hookscript;
use crate::host::files;
use crate::model::text::command_line;
use crate::model::{Code, GuestKind, NodeName, Prefix, Problem, Vmid};
use crate::reconcile::Node;
use crate::registry::document::{GuestFile, PoolsFile};
use crate::system::image::{Image, ImageError};

/// No snippet is larger. Source: qemu-server `PVE/QemuServer/Cloudinit.pm`, `read_cloudinit_snippets_file`.
const LIMIT: usize = 1024 * 1024;

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Told {
    /// Whether something was changed, or would be.
    pub changed: bool,
    /// Whether the administrator has to do something.
    pub left_to_do: bool,
    /// Whether nobody tells the guest its addresses, so that they have to be configured inside it.
    pub by_hand: bool,
    /// What was done, or is left to do, in sentences.
    pub sentences: Vec<String>,
    /// Why it is not done.
    #[serde(skip)]
    pub(crate) failure: Option<Problem>,
}

impl Told {
    /// Whether the guest's configuration is as it should be.
    pub(crate) fn is_done(&self) -> bool {
        self.failure.is_none() && !self.left_to_do
    }

    fn failed(code: Code, vmid: Vmid, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { failure: Some(Problem::of_guest(code, vmid, message, hint)), ..Self::default() }
    }

    fn line(&mut self, text: impl Into<String>) {
        self.sentences.push(text.into());
    }

    /// What became of a command.
    fn ran(&mut self, outcome: &Outcome, vmid: Vmid) {
        self.sentences.extend(outcome.sentence());
        self.failure = outcome.failure(vmid);
        self.changed |= outcome.is_done();
    }

    /// For people.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.sentences.iter().map(|sentence| format!("network: {sentence}"))
    }
}

/// A guest whose assignments have changed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Changed<'a> {
    pub(crate) node: &'a Node,
    pub(crate) located: &'a Located,
    /// Its assignments, as they are now.
    pub(crate) guest: &'a GuestFile,
    pub(crate) pools: &'a PoolsFile,
    pub(crate) running: bool,
    pub(crate) reinit: bool,
    pub(crate) dry_run: bool,
}

impl Changed<'_> {
    fn vmid(&self) -> Vmid {
        self.guest.vmid
    }

    /// After `assign`.
    pub(crate) fn tell(&self) -> Told {
        let wanted = match self.wanted() {
            Ok(wanted) => wanted,
            Err(Unsuitable::Off) => return Told::default(),
            Err(
                reason @ (Unsuitable::NoDrive
                | Unsuitable::Windows
                | Unsuitable::SameMac(..)
                | Unsuitable::Container { .. }
                | Unsuitable::Alpine(..)),
            ) => {
                let mut told = Told::default();
                let hint = reason.hint(self.vmid(), self.located.config.kind);
                told.line(format!("{reason}: {hint}"));
                told.by_hand = true;
                return told;
            }
            Err(reason) => return self.refused(&reason.into()),
        };
        if let Some(told) = self.elsewhere("assign") {
            return told;
        }
        if let Some(told) = self.told_by_own(&wanted) {
            return told;
        }
        let mut told = self.swept(self.make(|request| cloudinit::change(request, &wanted)));
        for note in &wanted.notes {
            told.line(note);
        }
        told
    }

    /// After `release`.
    pub(crate) fn withdraw(&self) -> Told {
        if !cloudinit::has_traces(self.guest, &self.located.config) {
            return Told::default();
        }
        if let Some(told) = self.elsewhere("release") {
            return told;
        }
        if self.guest.is_empty() {
            return self.swept(self.make(cloudinit::withdrawal));
        }
        match self.wanted() {
            Ok(wanted) => match self.told_by_own(&wanted) {
                Some(told) => told,
                None => self.swept(self.make(|request| cloudinit::change(request, &wanted))),
            },
            Err(Unsuitable::Off) => Told::default(),
            Err(reason) => self.refused(&reason.into()),
        }
    }

    fn wanted(&self) -> Result<Wanted, Unsuitable> {
        cloudinit::wanted(self.guest, self.pools, &self.located.config, &resolver(self.node))
    }

    fn is_elsewhere(&self) -> bool {
        self.located.node != self.node.name
    }

    /// Where snippets are written.
    fn place(&self) -> SnippetStorage {
        let nodes = self.node.guests.nodes();
        let registry = "/etc/pve/public-ip";
        let place = cloudinit::choose_snippet_storage(&storages(&self.node.paths), &nodes, &self.node.name, registry);
        place.unwrap_or(SnippetStorage { storage: String::new(), directory: String::new(), missing_on: Vec::new() })
    }

    /// Whether the guest's node sees the snippets that this one writes, and this one all those that the guest names.
    fn shares_snippets(&self) -> bool {
        let (place, storages) = (self.place(), storages(&self.node.paths));
        let is_seen = |volume: &&str| {
            let storage = volume.split_once(':').and_then(|(name, _)| storages.get(name));
            storage.is_some_and(|storage| {
                storage.is_shared() && storage.is_on(&self.node.name) && storage.is_on(&self.located.node)
            })
        };
        !place.storage.is_empty()
            && !place.missing_on.contains(&self.located.node)
            && self.located.config.cicustom().values().all(is_seen)
    }

    /// What is not shared by the nodes is not at hand here: `None` if nothing of it is needed.
    fn elsewhere(&self, command: &str) -> Option<Told> {
        let node = &self.located.node;
        // A container's addresses are in its configuration alone, which can be changed from here.
        if !self.is_elsewhere() || self.located.config.kind == GuestKind::Lxc || self.shares_snippets() {
            return None;
        }
        let vmid = self.vmid();
        let held = self.guest.addresses().map(|(.., assigned)| format!(" {}", assigned.address));
        let held: String = if command == "assign" { held.collect() } else { String::new() };
        let mut told = Told::default();
        told.line(format!("guest {vmid} is on node {node}; do it there: pve-public-ip {command} {vmid}{held}"));
        told.left_to_do = true;
        Some(told)
    }

    /// What becomes of a guest whose `cicustom` names a network document of the administrator's own: that is never replaced.
    /// If it says what the guest holds, nothing is left to do; `None`: there is none, or nobody can read it here.
    fn told_by_own(&self, wanted: &Wanted) -> Option<Told> {
        let config = &self.located.config;
        let volume = config.cicustom().get(Part::Network.as_str()).copied();
        let volume = volume.filter(|volume| SnippetName::of_volume(volume).is_none())?;
        let document = self.snippet(volume)?;
        let findings = cloudinit::check_document(self.guest, config, wanted, document.as_bytes());
        if let Some(finding) = findings.iter().find(|finding| finding.wrong) {
            let refusal = Refusal::OwnNetwork(volume.to_owned());
            let Told { failure, .. } = self.refused(&refusal);
            let failure = failure
                .map(|failure| Problem { sentence: format!("{}: {}", failure.sentence, finding.sentence), ..failure });
            return Some(Told { failure, ..Told::default() });
        }
        let mut told = Told::default();
        told.line(format!("`{volume}`, which guest {} has of its own, tells it its addresses", self.vmid()));
        for finding in findings {
            told.line(finding.sentence);
        }
        Some(told)
    }

    fn refused(&self, refusal: &Refusal) -> Told {
        let vmid = self.vmid();
        let hint = refusal.hint(self.guest, &self.located.config, &fresh_uuid());
        Told::failed(code!("network-data-refused"), vmid, format!("guest {vmid} is not told: {refusal}"), hint)
    }

    fn make(&self, decide: impl Fn(&Request<'_>) -> Result<Change, Refusal>) -> Told {
        let vmid = self.vmid();
        let config = &self.located.config;
        let place = self.place();
        let is_asked = config.kind == GuestKind::Qemu && !self.guest.is_empty();
        let current = if is_asked { self.current() } else { Ok(Current::default()) };
        let fresh_id = fresh_uuid();
        let own_vendor = config.cicustom().get(Part::Vendor.as_str()).and_then(|volume| self.snippet(volume));
        let request = Request {
            guest: self.guest,
            pools: self.pools,
            config,
            storage: &place.storage,
            current: &current,
            fresh_id: &fresh_id,
            reinit: self.reinit,
            own_vendor: own_vendor.as_deref(),
        };
        let change = match decide(&request) {
            Ok(change) => change,
            Err(refusal) => return self.refused(&refusal),
        };
        let directory = self.node.paths.under_root(&place.directory);
        let differs =
            |(name, text): (&SnippetName, &String)| read(&directory.join(name.to_string())).as_ref() != Some(text);
        let news = change.snippets.iter().any(differs);
        if change.options.is_empty() && !news {
            return Told::default();
        }
        if !change.snippets.is_empty() && place.storage.is_empty() {
            return Told::failed(
                code!("no-snippet-storage"),
                vmid,
                format!("guest {vmid} is not told: no storage of this node takes snippets"),
                "`pve-public-ip setup` makes one that all nodes have; then assign again",
            );
        }
        self.carry_out(&change, &place, &directory)
    }

    /// What is left to clear up when the guest is told.
    fn swept(&self, mut told: Told) -> Told {
        // What another node has just written may not be seen here yet: what the guest names would be taken for a leftover.
        if told.is_done() && !self.dry_run && !self.is_elsewhere() {
            for kept in sweep(self.node, self.vmid()) {
                told.line(kept);
            }
        }
        told
    }

    fn carry_out(&self, change: &Change, place: &SnippetStorage, directory: &Path) -> Told {
        let vmid = self.vmid();
        let mut told = Told::default();
        if let Some(boot) = change.boot {
            let boot = boot.sentence(vmid);
            if self.dry_run { told.line(boot) } else { log::info!("{boot}") }
        }
        let mut written = Vec::new();
        for (name, text) in &change.snippets {
            let path = directory.join(name.to_string());
            if read(&path).as_ref() == Some(text) {
                continue;
            }
            if !self.dry_run {
                if let Err(error) = self.write(place, &path, text) {
                    let hint =
                        format!("is storage `{}` mounted? then assign again; or `pve-public-ip setup`", place.storage);
                    let sentence = format!("cannot write `{}`: {error}", path.display());
                    return Told::failed(code!("snippet-not-written"), vmid, sentence, hint);
                }
            }
            written.push(name.part.as_str());
        }
        if !written.is_empty() {
            let verb = if self.dry_run { "would be written" } else { "written" };
            told.changed = true;
            told.line(format!("{verb} to storage {}: {}", place.storage, written.join(", ")));
            if !place.missing_on.is_empty() {
                let nodes: Vec<&str> = place.missing_on.iter().map(NodeName::as_str).collect();
                log::warn!(
                    "guest {vmid} cannot start on {}: storage `{}` of this node is not there",
                    nodes.join(", "),
                    place.storage
                );
                log::warn!("hint: `pve-public-ip setup` makes a storage that all nodes have; then assign again");
            }
        }
        let mut outcome = Outcome::AsWanted;
        if !change.options.is_empty() {
            let options: Vec<&str> = change.options.iter().map(String::as_str).collect();
            outcome = proxmox::set(self.node, vmid, self.located, &options, self.dry_run);
            told.ran(&outcome, vmid);
        }
        told.left_to_do = matches!(outcome, Outcome::LeftToDo { .. });
        let has_drive = !self.located.config.cloud_init_drives().is_empty();
        // Whether a guest runs elsewhere nobody knows here; its drive is made anew at its next start anyway.
        if told.failure.is_none() && (self.running || self.is_elsewhere()) && has_drive {
            let outcome = proxmox::update_cloud_init(self.node, vmid, self.located, self.dry_run);
            told.ran(&outcome, vmid);
            told.left_to_do |= matches!(outcome, Outcome::LeftToDo { .. });
        }
        told
    }

    /// A directory that is not there may be one of a storage that is not mounted: only those that every node has are made.
    fn write(&self, place: &SnippetStorage, path: &Path, text: &str) -> std::io::Result<()> {
        let parent = path.parent().unwrap_or(path);
        let ours = parent.starts_with(self.node.paths.registry()) || place.storage == "local";
        if ours {
            files::directories(parent)?;
        }
        files::replace_as(path, text.as_bytes(), self.node.name.as_str())
    }

    /// The content of a snippet that the guest names.
    fn snippet(&self, volume: &str) -> Option<String> {
        read(&hookscript::volume_path(&self.node.paths, volume).ok()?)
    }

    /// The data that the guest had at its last boot.
    fn current(&self) -> Result<Current, String> {
        let config = &self.located.config;
        let custom = config.cicustom();
        let pinned = custom.get("meta").filter(|volume| SnippetName::of_volume(volume).is_some());
        let pinned = pinned.and_then(|volume| cloudinit::instance_id(&self.snippet(volume)?));
        let drive = config.cloud_init_drives().into_values().next().unwrap_or_default();
        let image = if self.is_elsewhere() {
            Err(format!("its cloud-init drive is on node {}", self.located.node))
        } else if drive.ends_with(":cloudinit") {
            Ok(None)
        } else {
            self.image(drive)
        };
        match (image, pinned) {
            (Ok(Some(image)), pinned) => Ok(Current { instance_id: pinned.or(image.instance_id), ..image }),
            (Ok(None), Some(id)) => Ok(Current { instance_id: Some(id), ..Current::default() }),
            // Its disks may have booted nevertheless.
            (Ok(None), None) => Ok(Current { any: false, ..self.would_be("").unwrap_or_default() }),
            (Err(_), Some(id)) => {
                Ok(Current { any: true, instance_id: Some(id), looks: custom.contains_key("vendor") })
            }
            (Err(reason), None) => self.would_be(&reason),
        }
    }

    /// What the guest's volume has; nothing if it was never filled.
    fn image(&self, drive: &str) -> Result<Option<Current>, String> {
        let (path, format) = storages(&self.node.paths).disk(drive).map_err(|error| error.to_string())?;
        let text = |image: &Image, name: &str| {
            image.file(name).map(|bytes| String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
        };
        match Image::open(&self.node.paths.under_root(&path), format) {
            Ok(image) => {
                let read = text(&image, "meta-data").and_then(|meta| Ok((meta, text(&image, "vendor-data")?)));
                let (meta, vendor) = read.map_err(whole)?;
                let looks = cloudinit::looks_at_every_boot(&vendor);
                Ok(Some(Current { any: true, instance_id: cloudinit::instance_id(&meta), looks }))
            }
            Err(error @ ImageError::Io { .. }) => Err(whole(error)),
            Err(_) => Ok(None),
        }
    }

    /// Asks Proxmox VE, which tells what it would write without regard to `cicustom`: what it did write, if there is none.
    fn would_be(&self, reason: &str) -> Result<Current, String> {
        let replaced = ["meta", "network", "user"].iter().any(|part| self.located.config.cicustom().contains_key(part));
        if replaced {
            return Err(reason.to_owned());
        }
        let text = proxmox::dump_meta(self.node, self.vmid(), self.located);
        let text = text.map_err(|error| format!("{reason}; {error}"))?;
        let instance_id = cloudinit::instance_id(&text);
        instance_id
            .map(|id| Current { any: true, instance_id: Some(id), looks: false })
            .ok_or_else(|| reason.to_owned())
    }

    /// What to do inside a running guest so that it has its new addresses at once, as a shell script.
    pub(crate) fn inside_now(&self, new: &[Prefix]) -> Option<String> {
        if self.located.config.kind == GuestKind::Lxc || self.located.config.is_windows() {
            return None;
        }
        let inside = cloudinit::inside(self.guest, self.pools, &self.located.config, &cloudinit::Resolver::default());
        let script: String = inside.ok()?.nics.values().map(|nic| script(nic, new)).collect();
        (!script.is_empty()).then_some(script)
    }

    /// Runs it there.
    pub(crate) fn live(&self, script: &str) -> Told {
        let vmid = self.vmid();
        let mut told = Told::default();
        if !self.located.config.has_agent() {
            return Told::failed(
                code!("no-agent"),
                vmid,
                format!("guest {vmid} has no agent that could be asked to do it"),
                format!("`qm set {vmid} --agent 1` and install qemu-guest-agent inside"),
            );
        }
        let number = vmid.to_string();
        // One line, so that it is one line in logs and can be copied from there.
        let script = script.trim_end().replace('\n', "; ");
        let args = ["guest", "exec", &number, "--", "sh", "-ec", &script];
        let shown = command_line(std::iter::once("qm").chain(args));
        if self.dry_run {
            told.line(format!("{shown} (not run)"));
            return told;
        }
        log::info!("running {shown}");
        let ended = proxmox::ask(self.node, "qm", &args).and_then(|text| succeeded(&text));
        match ended {
            Ok(()) => told.line(format!("guest {vmid} uses the new addresses now")),
            Err(message) => {
                return Told::failed(
                    code!("agent-failed"),
                    vmid,
                    format!("guest {vmid} could not be told by its agent: {message}"),
                    format!("inside it, as root: `{script}`"),
                );
            }
        }
        told
    }
}

/// `qm guest exec` ends well whatever became of the command; what it prints says it.
fn succeeded(text: &str) -> Result<(), String> {
    let result: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("`{text}`: {error}"))?;
    match result["exitcode"].as_i64() {
        Some(0) => Ok(()),
        _ => Err(result["err-data"].as_str().map_or_else(|| result.to_string(), |words| words.trim().to_owned())),
    }
}

/// The commands for one NIC, which inside is known by its MAC.
fn script(nic: &WantedNic, new: &[Prefix]) -> String {
    let mut lines = Vec::new();
    for subnet in &nic.subnets {
        let Subnet::Static { address, gateway } = subnet else { continue };
        if !new.iter().any(|prefix| prefix.net().contains(&address.addr())) {
            continue;
        }
        let family = if address.addr().is_ipv4() { "-4" } else { "-6" };
        if family == "-6" {
            // An IPv6 address is there once: where it has another length, `replace` succeeds and changes nothing.
            let ip = address.addr();
            lines.push(format!(
                "ip -6 address show dev $dev to {ip} | grep -q ' {address} ' || ip -6 address flush dev $dev to {ip}"
            ));
        }
        lines.push(format!("ip {family} address replace {address} dev $dev"));
        if let Some(gateway) = gateway {
            if gateway.outside {
                lines.push(format!("ip {family} route replace {} dev $dev", gateway.address));
            }
            lines.push(format!("ip {family} route replace default via {} dev $dev", gateway.address));
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    let device = format!("dev=$(grep -lix {} /sys/class/net/*/address | head -n 1 | cut -d / -f 5)", nic.mac);
    std::iter::once(device).chain(lines).map(|line| line + "\n").collect()
}

/// Waits until nobody else on this node tells guests anything, and then reads what the guest holds now: of two commands for
/// one guest the later one knows both changes. Hooks do not wait for it: `qm` may have to wait for theirs.
pub(crate) fn turn(node: &Node, vmid: Vmid, guest: GuestFile, dry_run: bool) -> (GuestFile, Option<Flock<File>>) {
    if dry_run {
        return (guest, None);
    }
    let turn = files::lock(&node.paths.run().join("network.lock"));
    if let Err(error) = &turn {
        log::warn!("cannot wait for other commands: {error}");
    }
    let now = node.store.load_guest(vmid).and_then(|(file, _)| file.ok());
    (now.unwrap_or(guest), turn.ok())
}

/// Removes the snippets of a guest that it does not name (any more, or because a command was killed), nor a clone of it, nor
/// a snapshot; returns those that somebody else names.
pub(crate) fn sweep(node: &Node, vmid: Vmid) -> Vec<String> {
    let config = node.guests.find(vmid, None).ok().map(|located| located.config);
    let named = config.as_ref().map(GuestConfig::cicustom).unwrap_or_default();
    let mut kept = Vec::new();
    let storages = storages(&node.paths);
    for (storage, _) in storages.iter().filter(|(_, storage)| storage.takes_snippets() && storage.is_on(&node.name)) {
        let Some(directory) = storages.directory(storage, "snippets") else { continue };
        let directory = node.paths.under_root(&directory);
        for name in files::names(&directory) {
            let volume = format!("{storage}:snippets/{name}");
            let is_its_own = name.parse::<SnippetName>().is_ok_and(|snippet| snippet.vmid == vmid);
            if !is_its_own || named.values().any(|named| *named == volume) {
                continue;
            }
            if let Some(other) = node.guests.naming(&volume) {
                kept.push(format!("{volume} is kept: {other} names it"));
            } else if let Err(error) = files::remove(&directory.join(&name)) {
                log::warn!("cannot remove {volume}, which no guest names any more: {error}");
            }
        }
    }
    kept
}

/// The node's name servers, which guests without their own get.
pub(crate) fn resolver(node: &Node) -> Resolver {
    cloudinit::resolver(&read(&node.paths.under_root("/etc/resolv.conf")).unwrap_or_default())
}

fn read(path: &Path) -> Option<String> {
    let bytes = files::read_limited(path, LIMIT).ok()?;
    String::from_utf8(bytes).ok()
}

/// An error with its causes.
fn whole(error: ImageError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

/// A UUID that nobody has.
fn fresh_uuid() -> String {
    read(Path::new("/proc/sys/kernel/random/uuid")).unwrap_or_default().trim().to_owned()
}
