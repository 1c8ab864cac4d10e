//! The grammar of Proxmox VE's guest configuration files, as far as this program needs it.
//!
//! Only the section before the first `[...]` header runs. Of `[PENDING]` the NICs are read apart; `[special:cloudinit]` (which
//! repeats *old* NICs) and snapshots follow it and are skipped. Unknown keys are tolerated: Proxmox VE adds some in every release.
//!
//! Source: qemu-server `PVE/QemuServer.pm` `parse_vm_config`, pve-container `PVE/LXC/Config.pm` `parse_pct_config`,
//! pve-common `PVE/JSONSchema.pm` `parse_property_string`.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::model::text::command_line;
use crate::model::{GuestKind, IfName, IfNameError, MacAddr, MacError, NicId, Vmid};

/// What this program wants to know of a guest's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestConfig {
    /// QEMU or LXC.
    pub kind: GuestKind,
    /// `net0` to `net31`; a NIC that cannot be understood keeps its complaint, the others work.
    pub nics: BTreeMap<NicId, Result<Nic, NicError>>,
    /// Volume of the hookscript.
    pub hookscript: Option<String>,
    /// Static addresses that cloud-init (QEMU) or Proxmox VE itself (LXC) configures inside the guest.
    pub configured: BTreeSet<IpNet>,
    /// `name` or `hostname`.
    pub name: Option<String>,
    /// Whether the guest is a template, which only runs for backups.
    pub template: bool,
    /// Every `key: value` of the section that runs; of two lines with one key the last.
    pub lines: BTreeMap<String, String>,
    /// Changes of NICs that the next start makes: the new line, or `None` if the NIC goes.
    pub pending: BTreeMap<NicId, Option<String>>,
}

/// One NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Without one Proxmox VE makes up a new MAC at every start.
    pub mac: Option<MacAddr>,
    /// Without one the NIC is behind QEMU's user-mode NAT and has no port.
    pub bridge: Option<IfName>,
    /// VLAN tag, 1 to 4094.
    pub tag: Option<u16>,
    /// Whether the NIC firewall is on, which may put bridges of their own between port and bridge.
    pub firewall: bool,
    /// MTU, if it is not the bridge's.
    pub mtu: Option<u16>,
}

/// Why a `netN` or `ipconfigN` line is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NicError {
    /// The same key twice.
    #[error("`{0}` stands there twice")]
    Duplicate(String),
    /// A bad value.
    #[error("{key}: {reason}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// NIC models of QEMU that Proxmox VE offers; the written form is `<model>=<MAC>`.
const MODELS: [&str; 14] = [
    "e1000",
    "e1000-82540em",
    "e1000-82544gc",
    "e1000-82545em",
    "e1000e",
    "i82551",
    "i82557b",
    "i82559er",
    "ne2k_isa",
    "ne2k_pci",
    "pcnet",
    "rtl8139",
    "virtio",
    "vmxnet3",
];

impl GuestConfig {
    /// The VLAN of a NIC.
    pub fn tag(&self, nic: NicId) -> Option<u16> {
        self.nics.get(&nic)?.as_ref().ok()?.tag
    }

    /// Reads a configuration. Never fails: Proxmox VE itself skips lines that it does not understand.
    pub fn parse(kind: GuestKind, bytes: &[u8]) -> Self {
        let mut config = Self {
            kind,
            nics: BTreeMap::new(),
            hookscript: None,
            configured: BTreeSet::new(),
            name: None,
            template: false,
            lines: BTreeMap::new(),
            pending: BTreeMap::new(),
        };
        let text = String::from_utf8_lossy(bytes);
        let mut addresses: BTreeMap<String, BTreeSet<IpNet>> = BTreeMap::new();
        let mut is_pending = false;
        for line in text.split('\n') {
            if is_section_header(line) {
                // It comes first of all sections; what follows it is history.
                if is_pending || !is_pending_header(kind, line) {
                    break;
                }
                is_pending = true;
                continue;
            }
            let raw = || raw_lxc(line).filter(|_| kind == GuestKind::Lxc);
            let Some((key, value)) = key_value(line).or_else(raw) else { continue };
            if is_pending {
                config.add_pending(key, value);
                continue;
            }
            config.lines.insert(key.to_owned(), value.to_owned());
            match key {
                "hookscript" => config.hookscript = Some(value.to_owned()),
                "name" | "hostname" => config.name = Some(value.to_owned()),
                "template" => config.template = is_true(value),
                _ => {}
            }
            if let Some(nic) = key.strip_prefix("net").and_then(|_| key.parse::<NicId>().ok()) {
                // Of two lines with one key the last counts, as in Proxmox VE.
                config.nics.insert(nic, parse_nic(kind, value));
            }
            let carries_addresses = match kind {
                GuestKind::Qemu => key.starts_with("ipconfig"),
                GuestKind::Lxc => key.starts_with("net"),
            };
            if carries_addresses {
                addresses.insert(key.to_owned(), static_addresses(value));
            }
        }
        config.configured = addresses.into_values().flatten().collect();
        config
    }

    fn add_pending(&mut self, key: &str, value: &str) {
        let nic = |key: &str| key.strip_prefix("net").and_then(|_| key.parse::<NicId>().ok());
        if key == "delete" {
            // `!` only says that it shall go whatever else.
            let gone = value.split([',', ';', ' ']).filter_map(|key| nic(key.trim().trim_start_matches('!')));
            self.pending.extend(gone.map(|nic| (nic, None)));
        } else if let Some(nic) = nic(key) {
            self.pending.insert(nic, Some(value.to_owned()));
        }
    }

    /// The configuration as the next start makes it, as far as NICs go. Proxmox VE does it before pre-start, and with every
    /// change of a guest that does not run.
    #[must_use]
    pub fn at_next_start(&self) -> Self {
        let mut next = Self { pending: BTreeMap::new(), ..self.clone() };
        for (id, line) in &self.pending {
            if let Some(line) = line {
                next.nics.insert(*id, parse_nic(self.kind, line));
                next.lines.insert(id.to_string(), line.clone());
            } else {
                next.nics.remove(id);
                next.lines.remove(&id.to_string());
            }
        }
        next
    }

    /// VLANs that the bridge passes to and from a NIC with their tags: `trunks=1;2;10-20`.
    pub fn trunks(&self, nic: NicId) -> BTreeSet<u16> {
        let line = self.line(&nic.to_string()).unwrap_or_default();
        let trunks = properties(line).find(|(key, _)| *key == "trunks").map(|(_, value)| value).unwrap_or_default();
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse::<u16>().ok()?..=last.parse().ok().filter(|last| *last <= 4094)?)
        };
        trunks.split(';').filter_map(range).flatten().collect()
    }

    /// The command of Proxmox VE that changes a NIC; what else its line says stays. A NIC that is not there, or not
    /// understood, is made anew.
    pub fn change_nic(&self, vmid: Vmid, nic: NicId, change: NicChange) -> String {
        let key = nic.to_string();
        let line = self.line(&key).unwrap_or_default();
        let mut parts: Vec<(&str, String)> = properties(line).map(|(key, value)| (key, value.to_owned())).collect();
        let put = |parts: &mut Vec<(&str, String)>, key, value| match parts.iter_mut().find(|(found, _)| *found == key)
        {
            Some((_, old)) => *old = value,
            None => parts.push((key, value)),
        };
        let mac = match change {
            NicChange::Mac(mac) | NicChange::Anew(mac, _) => Some(mac.to_string().to_uppercase()),
            NicChange::FreshMac | NicChange::Bridge(_) => None,
        };
        let name = format!("eth{}", nic.index());
        match (change, self.kind) {
            (NicChange::Bridge(bridge), _) => put(&mut parts, "bridge", bridge.to_string()),
            (NicChange::Anew(_, bridge), GuestKind::Qemu) => {
                parts = vec![("virtio", mac.unwrap_or_default()), ("bridge", bridge.to_string())];
            }
            (NicChange::Anew(_, bridge), GuestKind::Lxc) => {
                parts = vec![("name", name), ("bridge", bridge.to_string()), ("hwaddr", mac.unwrap_or_default())];
            }
            (NicChange::Mac(_) | NicChange::FreshMac, GuestKind::Lxc) => match mac {
                Some(mac) => put(&mut parts, "hwaddr", mac),
                None => parts.retain(|(key, _)| *key != "hwaddr"),
            },
            (NicChange::Mac(_) | NicChange::FreshMac, GuestKind::Qemu) => {
                parts.retain(|(key, _)| *key != "macaddr");
                for (key, value) in &mut parts {
                    let model = match *key {
                        "" | "model" => MODELS.iter().find(|model| **model == value.as_str()),
                        other => MODELS.iter().find(|model| **model == other),
                    };
                    if let Some(model) = model {
                        (*key, *value) = match &mac {
                            Some(mac) => (*model, mac.clone()),
                            None => ("", (*model).to_owned()),
                        };
                    }
                }
            }
        }
        let words =
            parts.iter().map(|(key, value)| if key.is_empty() { value.clone() } else { format!("{key}={value}") });
        let line = words.collect::<Vec<_>>().join(",");
        command_line([self.kind.tool(), "set", &vmid.to_string(), &format!("--{key}"), &line])
    }

    /// The value of one line as it stands there.
    pub fn line(&self, key: &str) -> Option<&str> {
        self.lines.get(key).map(String::as_str)
    }
}

/// How a NIC is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NicChange {
    /// It gets this MAC.
    Mac(MacAddr),
    /// Proxmox VE makes it a MAC that nobody has.
    FreshMac,
    /// It is put on this bridge.
    Bridge(IfName),
    /// It is made anew, with this MAC on this bridge.
    Anew(MacAddr, IfName),
}

/// Whether a configuration may name an address, a gateway or one of these MACs: of thousands that do not, nothing need be
/// read. It may also be that only a comment does.
pub fn may_use(bytes: &[u8], macs: &BTreeSet<MacAddr>) -> bool {
    let names = |word: &[u8; 2]| memchr::memmem::find(bytes, word).is_some();
    // `ipconfig0`, `ip=`, `ip6=`, `gw=`, `gw6=`.
    names(b"ip") || names(b"gw") || !macs.is_empty() && macs_in(bytes).any(|mac| macs.contains(&mac))
}

/// What looks like a MAC.
fn macs_in(bytes: &[u8]) -> impl Iterator<Item = MacAddr> {
    let colons = memchr::memchr_iter(b':', bytes);
    colons.filter_map(|at| {
        // The first of its five.
        let text = bytes.get(at.checked_sub(2)?..at + 15)?;
        if text[5] != b':' || text[14] != b':' {
            return None;
        }
        std::str::from_utf8(text).ok()?.parse().ok()
    })
}

/// Whether a configuration names `word` where it may become effective: in what runs, in a pending change, in a snapshot.
/// What cloud-init's data was made of before it was changed is history.
pub fn names(text: &str, word: &str) -> bool {
    let mut effective = true;
    text.lines().any(|line| {
        if is_section_header(line) {
            effective = !line.starts_with("[special:");
        }
        effective && line.contains(word)
    })
}

/// `[anything]` at the start of a line, blanks after it allowed.
fn is_section_header(line: &str) -> bool {
    line.starts_with('[') && line.trim_end().ends_with(']')
}

/// The section of changes that wait for the next start. Source: qemu-server `parse_vm_config`, pve-container
/// `parse_pct_config`.
fn is_pending_header(kind: GuestKind, line: &str) -> bool {
    match kind {
        GuestKind::Qemu => line.trim_end().eq_ignore_ascii_case("[PENDING]"),
        GuestKind::Lxc => line.trim_end().eq_ignore_ascii_case("[pve:pending]"),
    }
}

/// `key: value`; a trailing carriage return is blank and goes with the rest.
fn key_value(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(':')?;
    let name = key.trim_end_matches(|c: char| c.is_ascii_digit());
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_key = starts_well && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    let value = value.trim();
    (is_key && !value.is_empty()).then_some((key, value))
}

/// `lxc.key: value` or `lxc.key = value`, which Proxmox VE hands on to LXC.
/// Source: pve-container `src/PVE/LXC/Config.pm`, `parse_pct_config`.
fn raw_lxc(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once([':', '='])?;
    let (key, value) = (key.trim_end(), value.trim());
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.');
    let is_key = key.strip_prefix("lxc.").is_some_and(|rest| rest.chars().all(is_part));
    (is_key && !value.is_empty()).then_some((key, value))
}

/// Splits a property string; a part without `=` belongs to the default key, here written as an empty key.
pub(super) fn properties(value: &str) -> impl Iterator<Item = (&str, &str)> {
    value.split(',').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or(("", part)))
}

pub(super) fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

fn parse_nic(kind: GuestKind, value: &str) -> Result<Nic, NicError> {
    let mut nic = Nic { mac: None, bridge: None, tag: None, firewall: false, mtu: None };
    let mut seen = Vec::new();
    for (key, value) in properties(value) {
        let is_model = kind == GuestKind::Qemu && MODELS.contains(&key);
        let canonical = match (kind, key) {
            (GuestKind::Qemu, "macaddr") | (GuestKind::Lxc, "hwaddr") => "mac",
            (GuestKind::Qemu, "") => "model",
            _ if is_model => "mac",
            _ => key,
        };
        if seen.contains(&canonical) {
            return Err(NicError::Duplicate(key.to_owned()));
        }
        seen.push(canonical);
        let bad = |reason: String| NicError::Value { key: key.to_owned(), reason };
        match canonical {
            "mac" => nic.mac = Some(value.parse().map_err(|error: MacError| bad(error.to_string()))?),
            "bridge" => nic.bridge = Some(value.parse().map_err(|error: IfNameError| bad(error.to_string()))?),
            "tag" => {
                let tag = value.parse().ok().filter(|tag| (1..=4094).contains(tag));
                nic.tag = Some(tag.ok_or_else(|| bad(format!("`{value}` is not a VLAN tag (1 to 4094)")))?);
            }
            "firewall" => nic.firewall = is_true(value),
            // 1 means the bridge's own. What Proxmox VE would not take does not keep a NIC from being protected.
            "mtu" => nic.mtu = value.parse().ok().filter(|mtu| *mtu > 1),
            _ => {}
        }
    }
    Ok(nic)
}

/// The static addresses of `ip=` and `ip6=`, with their prefix length; `dhcp`, `auto` and `manual` are none.
fn static_addresses(value: &str) -> BTreeSet<IpNet> {
    properties(value)
        .filter(|(key, _)| matches!(*key, "ip" | "ip6"))
        .filter_map(|(_, value)| value.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn may_use_of(text: &str, macs: &[&str]) -> bool {
        may_use(text.as_bytes(), &macs.iter().map(|mac| mac.parse().unwrap()).collect())
    }

    #[test]
    fn what_names_no_address_need_not_be_read() {
        let plain = "cores: 2\nname: web\nnet0: virtio=02:00:00:AA:BB:0C,bridge=vmbr0\n";
        assert!(!may_use_of(plain, &[]));
        assert!(!may_use_of(plain, &["02:00:00:aa:bb:0d"]));
        assert!(may_use_of(plain, &["02:00:00:aa:bb:0c"]), "whatever the case of its letters");
        assert!(may_use_of("net0: macaddr=02:00:00:aa:bb:0c", &["02:00:00:aa:bb:0c"]), "at the end of the file");
        for named in ["ipconfig0: gw=203.0.113.1", "net0: name=eth0,gw6=fe80::1,type=veth", "net0: ip=203.0.113.2/24"] {
            assert!(may_use_of(&format!("{plain}{named}\n"), &[]), "{named}");
        }
        for short in ["", ":", "a:", "net0: 02:00:00:AA:BB:0", "::::::::::::::::::::"] {
            assert!(!may_use_of(short, &["02:00:00:aa:bb:0c"]), "{short}");
        }
    }

    proptest! {
        /// What is passed over has neither an address nor one of the MACs.
        #[test]
        fn nothing_that_is_used_is_passed_over(text in "(net[01]|ipconfig[01]|name|#c): (virtio=|hwaddr=|macaddr=|ip=|ip6=|gw=|x=)(02:00:00:0[aA]:00:01|203.0.113.2/24|2001:db8::2/64|dhcp),(ip=203.0.113.2/24|bridge=vmbr0)?\n") {
            let mac: MacAddr = "02:00:00:0a:00:01".parse().unwrap();
            for kind in [GuestKind::Qemu, GuestKind::Lxc] {
                let config = GuestConfig::parse(kind, text.as_bytes());
                let has_mac = config.nics.values().any(|nic| nic.as_ref().is_ok_and(|nic| nic.mac == Some(mac)));
                let is_used = has_mac || !config.configured.is_empty();
                prop_assert!(!is_used || may_use(text.as_bytes(), &BTreeSet::from([mac])), "{}", text);
            }
        }
    }

    fn qemu(text: &str) -> GuestConfig {
        GuestConfig::parse(GuestKind::Qemu, text.as_bytes())
    }

    fn nic(text: &str) -> Result<Nic, String> {
        qemu(&format!("net0: {text}\n")).nics[&NicId::FIRST].clone().map_err(|error| error.to_string())
    }

    #[test]
    fn understands_every_way_to_write_a_mac() {
        let mac = Some("bc:24:11:aa:bb:cc".parse().unwrap());
        for text in [
            "virtio=BC:24:11:AA:BB:CC,bridge=vmbr0",
            "e1000-82545em=bc:24:11:aa:bb:cc,bridge=vmbr0",
            "virtio,macaddr=BC:24:11:AA:BB:CC,bridge=vmbr0",
            "model=virtio,macaddr=BC:24:11:AA:BB:CC,bridge=vmbr0,",
            "bridge=vmbr0,,queues=4,host-tunnel=1,vmxnet3=BC:24:11:AA:BB:CC",
        ] {
            assert_eq!(nic(text).unwrap().mac, mac, "{text}");
        }
        assert_eq!(nic("virtio,bridge=vmbr0").unwrap().mac, None);
        assert_eq!(nic("virtio=BC:24:11:AA:BB:CC").unwrap().bridge, None);
    }

    #[test]
    fn trunks_are_numbers_and_ranges() {
        let config =
            qemu("net0: virtio=BC:24:11:AA:BB:CC,bridge=vmbr0,trunks=5;10-12;x;9-\nnet1: virtio,bridge=vmbr0\n");
        assert_eq!(config.trunks(NicId::FIRST), BTreeSet::from([5, 10, 11, 12]));
        assert_eq!(config.trunks("net1".parse().unwrap()), BTreeSet::new());
    }

    #[test]
    fn says_why_a_nic_is_not_understood() {
        for (text, reason) in [
            ("virtio=01:00:5e:00:00:01,bridge=vmbr0", "virtio: MAC address `01:00:5e:00:00:01` has the group bit set"),
            ("virtio=BC:24:11:AA:BB:CC,macaddr=BC:24:11:AA:BB:CD", "`macaddr` stands there twice"),
            ("virtio=BC:24:11:AA:BB:CC,bridge=abcdefghijklmnopq", "is longer than 15 characters"),
            ("virtio=BC:24:11:AA:BB:CC,bridge=vmbr0,tag=5000", "tag: `5000` is not a VLAN tag"),
        ] {
            let message = nic(text).unwrap_err();
            assert!(message.contains(reason), "{text:?} gave {message:?}");
        }
    }

    #[test]
    fn changes_that_wait_are_read_apart() {
        let text = "net0: virtio=BC:24:11:00:00:01,bridge=vmbr0\nnet1: virtio=BC:24:11:00:00:02,bridge=vmbr0\n[pending]\n\
            delete: !net1,cores\nnet0: virtio=BC:24:11:00:00:03,bridge=vmbr1\n[special:cloudinit]\n\
            net0: virtio=BC:24:11:00:00:04\n[snap]\nnet0: virtio=BC:24:11:00:00:05,bridge=vmbr5\n";
        let config = qemu(text);
        assert_eq!(config.nics[&NicId::FIRST].clone().unwrap().mac.unwrap().to_string(), "bc:24:11:00:00:01");
        let next = config.at_next_start();
        let nic = next.nics[&NicId::FIRST].clone().unwrap();
        assert_eq!(
            (nic.mac.unwrap().to_string().as_str(), nic.bridge.unwrap().as_str()),
            ("bc:24:11:00:00:03", "vmbr1")
        );
        assert_eq!((config.nics.len(), next.nics.len(), next.at_next_start() == next), (2, 1, true));
        // Each kind has its own word for it; the other's is a snapshot, or nothing.
        let other = GuestConfig::parse(GuestKind::Lxc, text.as_bytes());
        assert!(other.pending.is_empty());
        let container =
            "net0: name=eth0,hwaddr=BC:24:11:00:00:01\n[pve:pending]\nnet0: name=eth0,hwaddr=BC:24:11:00:00:02\n";
        let config = GuestConfig::parse(GuestKind::Lxc, container.as_bytes());
        assert_eq!(
            config.at_next_start().nics[&NicId::FIRST].clone().unwrap().mac.unwrap().to_string(),
            "bc:24:11:00:00:02"
        );
        assert!(qemu(container).pending.is_empty());
    }

    #[test]
    fn containers_have_their_own_words() {
        let text = "hostname: web\nnet0: name=eth0,bridge=vmbr0,firewall=1,hwaddr=BC:24:11:00:00:01,ip=203.0.113.7/32,ip6=auto,type=veth\n\
            lxc.net.9: virtio=no\n[pve:pending]\nnet0: name=eth0,hwaddr=BC:24:11:00:00:02\n";
        let config = GuestConfig::parse(GuestKind::Lxc, text.as_bytes());
        let nic = config.nics[&NicId::FIRST].clone().unwrap();
        assert_eq!(nic.mac.unwrap().to_string(), "bc:24:11:00:00:01");
        assert!(nic.firewall);
        assert_eq!(config.configured, BTreeSet::from(["203.0.113.7/32".parse().unwrap()]));
        assert_eq!(config.name.as_deref(), Some("web"));
    }

    proptest! {
        #[test]
        fn survives_anything(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = GuestConfig::parse(GuestKind::Qemu, &bytes);
            let _ = GuestConfig::parse(GuestKind::Lxc, &bytes);
        }

        #[test]
        fn survives_near_misses(lines in proptest::collection::vec("(net|ipconfig)[0-9]{0,3}: ?[a-z0-9:=,./\\[\\]]{0,40}", 0..8)) {
            let _ = qemu(&lines.join("\n"));
        }
    }
}
