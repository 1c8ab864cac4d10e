//! Compares what a guest's cloud-init image tells it with what it has to find inside.
//!
//! The document is judged by what it does, not by how it is written: one of Proxmox VE's, of this program's or of
//! somebody's own are all as good. What is not understood is said to be so, and is no reason to keep a guest from starting.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::told::{self, Told, ToldNic};
use super::{Gateway, SnippetName, Subnet, Wanted, WantedNic, assign_command, is_link_local};
use crate::code;
use crate::guest::GuestConfig;
use crate::model::{Family, MacAddr, NicId, Problem, Vmid};
use crate::registry::document::{GuestFile, GuestOs};

/// What was found, in one sentence and one hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The guest.
    pub vmid: Vmid,
    /// Whether it is certain that the guest does not get what it holds; else it cannot be told, or only some get it.
    pub wrong: bool,
    /// What is found, and what it means.
    pub sentence: String,
    /// What to do.
    pub hint: String,
}

impl From<Finding> for Problem {
    fn from(finding: Finding) -> Self {
        Self::of_guest(code!("network-data-differs"), finding.vmid, finding.sentence, finding.hint)
    }
}

/// What of an image matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The file system's label, by which the guest finds it.
    pub label: String,
    /// `network-config`.
    pub network: Option<Vec<u8>>,
    /// `meta-data`, without which cloud-init does not take the image for one.
    pub meta: Option<Vec<u8>>,
}

/// The label by which cloud-init finds a `NoCloud` volume.
const LABEL: &str = "cidata";

/// Says that the guest's configuration names this program's data of another guest: clones get a copy of `cicustom`.
pub fn borrowed(vmid: Vmid, config: &GuestConfig) -> Option<Finding> {
    let cicustom = config.cicustom();
    let names = cicustom.values().filter_map(|volume| Some((volume, SnippetName::of_volume(volume)?)));
    let (volume, name) = names.into_iter().find(|(_, name)| name.vmid != vmid || config.uuid() != Some(&name.uuid))?;
    let whose = if name.vmid == vmid {
        format!("an earlier guest {vmid} with the UUID {}", name.uuid)
    } else {
        format!("guest {}", name.vmid)
    };
    Some(Finding {
        vmid,
        wrong: true,
        sentence: format!(
            "guest {vmid} gets the cloud-init data of {whose} (`{volume}`): it would come up with that one's addresses"
        ),
        hint: format!("is it a clone or a restored copy? `qm set {vmid} --delete cicustom`; then assign it addresses"),
    })
}

/// Compares an image with what is wanted.
pub fn check(guest: &GuestFile, config: &GuestConfig, wanted: &Wanted, contents: &Contents) -> Vec<Finding> {
    let mut check = Check { guest, config, found: Vec::new() };
    check.image(wanted, contents);
    check.found
}

/// Compares a document alone with what is wanted, as the next image will have it.
pub fn check_document(guest: &GuestFile, config: &GuestConfig, wanted: &Wanted, network: &[u8]) -> Vec<Finding> {
    let mut check = Check { guest, config, found: Vec::new() };
    check.document(wanted, network);
    check.found
}

/// What a guest without a document would miss that Proxmox VE makes of its `ipconfigN` lines at the next start.
pub fn check_lines(guest: &GuestFile, config: &GuestConfig, wanted: &Wanted) -> Vec<Finding> {
    let mut check = Check { guest, config, found: Vec::new() };
    for (id, nic) in wanted.nics.iter().filter(|(_, nic)| nic.assigned) {
        let now = config.ip_config(*id).and_then(Result::ok).unwrap_or_default();
        if now != nic.ip_config() || wanted.needs_document() {
            let held = check.held(*id);
            let key = config.ip_config_key(*id);
            check.wrong(format!(
                "guest {} is not told of {held} on {id} by `{key}`: it comes up without it",
                guest.vmid
            ));
        }
    }
    check.found
}

struct Check<'a> {
    guest: &'a GuestFile,
    config: &'a GuestConfig,
    found: Vec<Finding>,
}

impl Check<'_> {
    fn put(&mut self, wrong: bool, sentence: String, hint: String) {
        self.found.push(Finding { vmid: self.guest.vmid, wrong, sentence, hint });
    }

    fn wrong(&mut self, sentence: String) {
        let hint = self.remedy();
        self.put(true, sentence, hint);
    }

    fn doubt(&mut self, sentence: String) {
        let hint = self.remedy();
        self.put(false, sentence, hint);
    }

    /// How the document is made right: by whoever wrote it.
    fn remedy(&self) -> String {
        let assign = format!("`{}`", assign_command(self.guest));
        match self.config.cicustom().get("network") {
            Some(volume) if SnippetName::of_volume(volume).is_none() => {
                format!("correct `{volume}`, or take it out of `cicustom` and {assign}")
            }
            _ => format!("{assign} writes it anew"),
        }
    }

    fn image(&mut self, wanted: &Wanted, contents: &Contents) {
        let vmid = self.guest.vmid;
        let update = format!("`qm cloudinit update {vmid}` makes it anew");
        if contents.label != LABEL {
            let sentence = format!(
                "the cloud-init image of guest {vmid} is labelled `{}`, not `{LABEL}`: the guest does not find it",
                contents.label
            );
            return self.put(true, sentence, update);
        }
        let (Some(network), Some(_)) = (&contents.network, &contents.meta) else {
            let missing = if contents.meta.is_none() { "meta-data" } else { "network-config" };
            let sentence =
                format!("the cloud-init image of guest {vmid} has no `{missing}`: the guest gets no addresses");
            return self.put(true, sentence, update);
        };
        self.document(wanted, network);
    }

    fn document(&mut self, wanted: &Wanted, network: &[u8]) {
        let vmid = self.guest.vmid;
        let document = std::str::from_utf8(network).map_err(|_| "it is not text".to_owned());
        match document.map(told::parse) {
            Ok(Ok(told)) => self.told(wanted, &told),
            Ok(Err(error)) if error.wrong => {
                self.wrong(format!("the network data of guest {vmid} does not work, {error}"));
            }
            Ok(Err(error)) => self.unproven(&error.to_string()),
            Err(reason) => self.unproven(&reason),
        }
    }

    fn unproven(&mut self, reason: &str) {
        let vmid = self.guest.vmid;
        let hint = format!("compare it with `pve-public-ip show {vmid} --inside`");
        let sentence =
            format!("nobody can tell whether guest {vmid} gets its addresses from its network data, {reason}");
        self.put(false, sentence, hint);
    }

    fn told(&mut self, wanted: &Wanted, told: &Told) {
        let vmid = self.guest.vmid;
        let macs: BTreeSet<MacAddr> = self.config.nics.values().flatten().filter_map(|nic| nic.mac).collect();
        // A device of the node that is passed through brings a MAC of its own.
        let closed = !self.config.lines.keys().any(|key| key.starts_with("hostpci") || key.starts_with("usb"));
        for (nic, awaited) in told.nics.iter().filter_map(|nic| Some((nic, nic.awaited.as_ref()?))) {
            if !macs.contains(&nic.mac) && closed {
                self.wrong(format!(
                    "guest {vmid} is told of a NIC with the MAC {}, which it does not have: cloud-init waits for it and \
                     configures nothing; is it the data of another guest?",
                    nic.mac
                ));
            } else if macs.contains(&nic.mac) && *awaited != nic.mac.to_string() {
                self.wrong(format!(
                    "guest {vmid} is told of the MAC {awaited}: cloud-init waits for one that is spelled so, finds only {} \
                     and configures nothing",
                    nic.mac
                ));
            }
        }
        let mut names = BTreeSet::new();
        for nic in told.nics.iter().filter(|nic| !names.insert(&nic.name)) {
            self.wrong(format!("guest {vmid} is told to call two NICs `{}`: one gets no addresses", nic.name));
        }
        for (id, nic) in &wanted.nics {
            let parts: Vec<&ToldNic> = told.nics.iter().filter(|part| part.mac == nic.mac).collect();
            match (parts.as_slice(), nic.assigned) {
                ([], true) if told.unknown.is_empty() => {
                    let held = self.held(*id);
                    self.wrong(format!(
                        "guest {vmid} is told nothing of {id} ({}): it comes up without {held}",
                        nic.mac
                    ));
                }
                ([], false) if told.unknown.is_empty() && !nic.subnets.is_empty() => {
                    self.doubt(format!("guest {vmid} is told nothing of {id} ({}), which is configured", nic.mac));
                }
                ([], _) => {}
                (parts, true) => parts.iter().for_each(|part| self.assigned(*id, nic, part, told.unknown.is_empty())),
                (parts, false) => parts.iter().for_each(|part| self.carried_over(*id, nic, part)),
            }
        }
        self.gateways(told);
        let is_known = told.unknown.is_empty();
        if is_known && told.name_servers.is_empty() && told.nics.iter().all(|nic| nic.name_servers.is_empty()) {
            let hint = format!("`qm set {vmid} --nameserver ...` names one; then {}", self.remedy());
            self.put(false, format!("guest {vmid} is told no name server"), hint);
        }
        for unknown in &told.unknown {
            self.unproven(unknown);
        }
        for risk in &told.risks {
            self.doubt(format!("some guests do not get their addresses from the network data of guest {vmid}, {risk}"));
        }
    }

    /// The addresses that the guest holds on a NIC.
    fn held(&self, nic: NicId) -> String {
        let held = self.guest.interfaces.get(&nic).map(|interface| interface.addresses.as_slice()).unwrap_or_default();
        held.iter().map(|assigned| assigned.address.to_string()).collect::<Vec<_>>().join(", ")
    }

    /// A NIC with assignments; `whole`: what is not here is nowhere.
    fn assigned(&mut self, id: NicId, nic: &WantedNic, told: &ToldNic, whole: bool) {
        let vmid = self.guest.vmid;
        let held = self.guest.interfaces.get(&id).map(|interface| interface.addresses.clone()).unwrap_or_default();
        for assigned in &held {
            let net = assigned.address.net();
            if whole && !told.addresses.iter().any(|address| net.contains(&address.addr())) {
                self.wrong(format!("guest {vmid} is not told of {} on {id}: it comes up without it", assigned.address));
            }
        }
        for address in told.addresses.iter().map(IpNet::addr) {
            if !is_link_local(address) && !held.iter().any(|assigned| assigned.address.net().contains(&address)) {
                self.doubt(format!(
                    "guest {vmid} is told to use {address} on {id}, which it does not hold: nothing that it sends from \
                     there gets out"
                ));
            }
        }
        for family in Family::BOTH {
            // Without an address its gateway is not worth a word.
            let has_address = told.addresses.iter().any(|address| Family::of_net(*address) == family);
            if let Some(gateway) = nic.gateway(family).filter(|_| whole && has_address) {
                self.gateway(id, gateway, told);
            }
        }
        for server in &told.name_servers {
            if !told.addresses.iter().any(|address| address.addr().is_ipv4() == server.is_ipv4()) {
                self.doubt(format!(
                    "guest {vmid} is told of the name server {server} on {id}, which has no address of its family: \
                     NetworkManager may refuse the whole NIC"
                ));
            }
        }
    }

    fn gateway(&mut self, id: NicId, wanted: Gateway, told: &ToldNic) {
        let vmid = self.guest.vmid;
        let gateway = wanted.address;
        let family = if gateway.is_ipv4() { 4 } else { 6 };
        let mut named = told.gateways.iter().filter(|found| found.address == gateway);
        let Some(first) = named.next() else {
            let others = told.gateways.iter().filter(|found| found.address.is_ipv4() == gateway.is_ipv4());
            let others: Vec<String> = others.map(|found| found.address.to_string()).collect();
            self.wrong(if others.is_empty() {
                format!("guest {vmid} is told no IPv{family} gateway on {id}: it reaches nothing beyond the bridge")
            } else {
                format!("guest {vmid} is told the gateway {} on {id}, but its gateway is {gateway}", others.join(", "))
            });
            return;
        };
        // The form that most guests understand counts.
        let found = named.find(|found| !found.under_routes).unwrap_or(first);
        let contains = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&gateway));
        if contains(&told.addresses) || is_link_local(gateway) {
            return;
        }
        let is_alpine = self.guest.cloud_init.os == GuestOs::Alpine && gateway.is_ipv4();
        if is_alpine && !told.peers.contains(&gateway) {
            self.wrong(format!(
                "guest {vmid} is not told that its gateway {gateway} is at the other end of {id} (`pointopoint`): Alpine \
                 gets no default route"
            ));
        } else if contains(&told.links) {
            if !found.under_routes {
                return;
            }
            self.doubt(format!(
                "guest {vmid} is told of its gateway {gateway}, outside of its prefix, under `routes` alone: it gets no \
                 default route if it has ifupdown"
            ));
        } else if found.on_link {
            self.doubt(format!(
                "guest {vmid} is told by `on-link` alone that its gateway {gateway} is on {id}: it gets a default route \
                 only if it has netplan"
            ));
        } else {
            self.wrong(format!(
                "guest {vmid} is not told that its gateway {gateway}, outside of its prefix, is on {id}: Debian 12, Alpine \
                 and others get no default route"
            ));
        }
    }

    /// A NIC that is none of this program's, but must not be lost.
    fn carried_over(&mut self, id: NicId, nic: &WantedNic, told: &ToldNic) {
        for subnet in &nic.subnets {
            let Subnet::Static { address, .. } = subnet else { continue };
            if !told.addresses.iter().any(|told| told.addr() == address.addr()) {
                let vmid = self.guest.vmid;
                self.doubt(format!("guest {vmid} is not told of {} on {id}, as it is configured", address.addr()));
            }
        }
    }

    /// Two default gateways of a family: replies leave by the wrong one.
    fn gateways(&mut self, told: &Told) {
        for family in Family::BOTH {
            let all =
                told.nics.iter().flat_map(|nic| nic.gateways.iter().map(move |gateway| (nic.mac, gateway.address)));
            let all: BTreeSet<(MacAddr, IpAddr)> = all.filter(|(_, gateway)| Family::of(*gateway) == family).collect();
            if all.len() > 1 {
                let all: Vec<String> = all.iter().map(|(mac, gateway)| format!("{gateway} on {mac}")).collect();
                let sentence = format!(
                    "guest {} is told several {family} default gateways ({}): what it sends leaves by the wrong one",
                    self.guest.vmid,
                    all.join(", ")
                );
                // What is not understood may be a table for each of them.
                if told.unknown.is_empty() { self.wrong(sentence) } else { self.doubt(sentence) }
            }
        }
    }
}
