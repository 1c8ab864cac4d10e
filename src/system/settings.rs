//! Kernel settings below `/proc/sys`, changed for as long as they are needed and then put back to what they were.
//!
//! What a setting was is noted before it is changed, in the run directory, which a boot empties as it resets the settings:
//! a program that dies in between leaves a note too many, which does no harm. A setting that is right already is not
//! noted, and so never touched; one that somebody has changed since is left as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::namespace::set_parameter;
use crate::host::files;
use crate::plan::Setting;

/// A setting could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct SettingError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl SettingError {
    /// The administrator's next step.
    pub fn hint(&self) -> String {
        if self.source.kind() == io::ErrorKind::NotFound {
            "is the protocol switched off in this kernel (`ipv6.disable=1`)? Then assign no address of it".to_owned()
        } else {
            "run it as root, and not in a container: `/proc/sys` must be writable".to_owned()
        }
    }
}

/// What a setting was before it was changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Before {
    setting: Setting,
    value: String,
    /// What the same setting was for all interfaces: if somebody switches it on for all, it stays on for this one.
    for_all: Option<String>,
    /// Settings that a change for all interfaces overwrites, as far as they were as wanted already.
    alike: Vec<String>,
}

/// The settings of the calling thread's network namespace.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Where the notes are; without it, for a namespace that ends with the program, in `notes` only.
    file: Option<PathBuf>,
    notes: BTreeMap<String, Before>,
}

impl Settings {
    /// With notes in this directory.
    pub(super) fn noted_in(directory: &Path) -> Self {
        Self { file: Some(directory.join("settings")), notes: BTreeMap::new() }
    }

    /// Those that are wanted and as wanted, and those that were changed and are not wanted any more.
    pub(super) fn observe(&mut self, wanted: &BTreeSet<Setting>) -> Result<BTreeSet<Setting>, SettingError> {
        let mut found = self.noted()?;
        found.retain(|setting| !wanted.contains(setting));
        found.extend(wanted.iter().filter(|setting| is_as_wanted(setting)));
        Ok(found)
    }

    /// Those that were changed.
    pub(super) fn noted(&mut self) -> Result<BTreeSet<Setting>, SettingError> {
        self.load()?;
        Ok(self.notes.values().map(|before| before.setting).collect())
    }

    /// Makes it what is wanted.
    pub(super) fn change(&mut self, setting: Setting) -> Result<(), SettingError> {
        let path = setting.path();
        let value = read(&path)?;
        if value == setting.value().to_string() {
            return Ok(());
        }
        self.load()?;
        let for_all = umbrella(setting).and_then(|path| read(&path).ok());
        let before = Before { setting, value, for_all, alike: alike(setting) };
        self.notes.insert(path.clone(), before);
        self.save()?;
        write(&path, &setting.value().to_string())
    }

    /// Puts it back to what it was, unless somebody else has changed it since.
    pub(super) fn restore(&mut self, setting: Setting) -> Result<(), SettingError> {
        self.load()?;
        let path = setting.path();
        let Some(before) = self.notes.get(&path) else { return Ok(()) };
        let for_all = umbrella(setting).and_then(|path| read(&path).ok());
        // An interface that is gone took its settings with it.
        let now = read(&path).ok();
        let is_ours = now == Some(setting.value().to_string());
        if is_ours && for_all == before.for_all {
            write(&path, &before.value)?;
        }
        // Also if it has been put back already, by a program that died here.
        if is_ours || now.as_ref() == Some(&before.value) {
            for path in before.alike.iter().filter(|path| read(path).is_ok()) {
                write(path, &setting.value().to_string())?;
            }
        }
        self.notes.remove(&path);
        self.save()
    }

    fn load(&mut self) -> Result<(), SettingError> {
        let Some(path) = &self.file else { return Ok(()) };
        let failed = |source| SettingError { action: "read", path: path.clone(), source };
        self.notes = match files::read_limited(path, 1 << 20) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(failed(error)),
        };
        Ok(())
    }

    fn save(&self) -> Result<(), SettingError> {
        let Some(path) = &self.file else { return Ok(()) };
        let failed = |source| SettingError { action: "write", path: path.clone(), source };
        let bytes = serde_json::to_vec(&self.notes).map_err(|error| failed(error.into()))?;
        files::replace(path, &bytes).map_err(failed)
    }
}

/// The same setting for all interfaces; changing it changes every interface's.
fn umbrella(setting: Setting) -> Option<String> {
    match setting {
        Setting::Forwarding4(_) => Some("net/ipv4/conf/all/forwarding".to_owned()),
        Setting::ForceForwarding6(_) => Some(FORCED.to_owned()),
        Setting::Router6(_) => Some(Setting::Forwarding6.path()),
        Setting::AcceptRa(_)
        | Setting::ArpIgnore(_)
        | Setting::Forwarding6
        | Setting::ProxyNdp(_)
        | Setting::NeighbourLock(_) => None,
    }
}

/// What is as wanted before a change for all interfaces, and would be lost with it.
fn alike(setting: Setting) -> Vec<String> {
    if setting != Setting::Forwarding6 {
        return Vec::new();
    }
    let interfaces = files::names(&under_proc("net/ipv6/conf")).into_iter().filter(|name| name != "all");
    let paths = interfaces.map(|name| format!("net/ipv6/conf/{name}/forwarding"));
    paths.filter(|path| read(path).is_ok_and(|value| value == setting.value().to_string())).collect()
}

fn is_as_wanted(setting: &Setting) -> bool {
    read(&setting.path()).is_ok_and(|value| value == setting.value().to_string())
}

/// The same for all interfaces. A kernel older than 6.17 has no such setting.
const FORCED: &str = "net/ipv6/conf/all/force_forwarding";

/// Whether single interfaces can be told to forward IPv6.
pub(super) fn can_force_forwarding() -> bool {
    read(FORCED).is_ok()
}

/// The value of this setting, if there is such an interface.
pub(super) fn value(setting: Setting) -> Option<u32> {
    read(&setting.path()).ok()?.parse().ok()
}

/// Whether the kernel can be told for single interfaces to forward IPv6.
pub(super) fn can_force_forwarding6() -> bool {
    under_proc("net/ipv6/conf/all/force_forwarding").exists()
}

/// `/proc/sys/net` is that of the calling thread's namespace, whatever the root directory of the files is.
fn under_proc(path: &str) -> PathBuf {
    Path::new("/proc/sys").join(path)
}

fn read(path: &str) -> Result<String, SettingError> {
    let path = under_proc(path);
    match files::read_limited(&path, 64) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).trim().to_owned()),
        Err(source) => Err(SettingError { action: "read", path, source }),
    }
}

fn write(path: &str, value: &str) -> Result<(), SettingError> {
    let written = match set_parameter(path, value) {
        Ok(false) => Err(io::ErrorKind::NotFound.into()),
        written => written.map(drop),
    };
    written.map_err(|source| SettingError { action: "write", path: under_proc(path), source })
}
