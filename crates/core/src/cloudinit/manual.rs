//! What to configure inside a guest that nobody tells its addresses: the same in the words of each way to do it.
//!
//! A gateway outside the prefix is told to be on the link wherever that is not found out by itself; the link-local address
//! is the one made of the MAC, the only one that leaves a bound port unless the registry says otherwise.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Gateway, Resolver, Subnet, Unsuitable, Wanted, WantedNic, inside, is_link_local, quoted};
use crate::guest::GuestConfig;
use crate::model::{Family, GuestKind, NicId};
use crate::registry::document::{GuestFile, GuestOs, PoolsFile};

/// One way to configure a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manual {
    /// For programs.
    pub key: &'static str,
    /// Where it goes.
    pub title: &'static str,
    /// The text.
    pub text: String,
}

/// What to configure inside a guest, whether or not cloud-init or Proxmox VE could do it; the error says why even that
/// cannot be told.
pub fn manuals(
    guest: &GuestFile,
    pools: &PoolsFile,
    config: &GuestConfig,
    resolver: &Resolver,
) -> Result<Vec<Manual>, Unsuitable> {
    // By hand there is a way around what Alpine's tools and Proxmox VE's containers cannot be told.
    let mut guest = guest.clone();
    guest.cloud_init.os = GuestOs::Linux;
    let config = GuestConfig { kind: GuestKind::Qemu, ..config.clone() };
    Ok(in_words(&inside(&guest, pools, &config, resolver)?, config.is_windows()))
}

/// For the NICs that have assignments.
fn in_words(wanted: &Wanted, windows: bool) -> Vec<Manual> {
    let text = |put: fn(NicId, &WantedNic) -> Vec<String>| {
        let nics = wanted.nics.iter().filter(|(_, nic)| nic.assigned);
        nics.flat_map(|(id, nic)| put(*id, nic)).map(|line| line + "\n").collect::<String>()
    };
    if windows {
        let title = "Windows, PowerShell as administrator";
        return vec![Manual { key: "powershell", title, text: text(powershell) }];
    }
    let netplan = "network:\n  version: 2\n  ethernets:\n".to_owned() + &text(netplan);
    vec![
        Manual { key: "interfaces", title: "/etc/network/interfaces (ifupdown)", text: text(interfaces) },
        Manual { key: "netplan", title: "/etc/netplan/90-public-ip.yaml (netplan)", text: netplan },
        Manual { key: "nmcli", title: "NetworkManager, as root", text: text(nmcli) },
    ]
}

/// Fixed addresses with their gateways; what is found out by itself needs no word.
fn fixed(nic: &WantedNic, family: Family) -> impl Iterator<Item = (IpNet, Option<Gateway>)> {
    nic.subnets.iter().filter_map(move |subnet| match subnet {
        Subnet::Static { address, gateway } if Family::of_net(*address) == family => Some((*address, *gateway)),
        _ => None,
    })
}

fn addresses(nic: &WantedNic, family: Family) -> String {
    fixed(nic, family).map(|(address, _)| address.to_string()).collect::<Vec<_>>().join(",")
}

fn servers(nic: &WantedNic, family: Family) -> Vec<String> {
    nic.name_servers.iter().filter(|server| Family::of(**server) == family).map(ToString::to_string).collect()
}

fn link_prefix(gateway: IpAddr) -> String {
    format!("{gateway}/{}", if gateway.is_ipv4() { 32 } else { 128 })
}

/// With routes by `ip`, because Alpine's ifupdown has no word for a gateway outside the prefix.
fn interfaces(id: NicId, nic: &WantedNic) -> Vec<String> {
    let name = &nic.name;
    let mut lines = vec![
        format!("# {id}: put the name that `ip -br link` shows for {} in place of {name}", nic.mac),
        format!("auto {name}"),
    ];
    let (mut mtu, mut servers) = (nic.mtu, nic.name_servers.as_slice());
    for family in Family::BOTH {
        for (address, gateway) in fixed(nic, family) {
            lines.push(format!("iface {name} inet{} static", if family == Family::V4 { "" } else { "6" }));
            let mut put = |line: String| lines.push(format!("    {line}"));
            put(format!("address {address}"));
            if let Some(mtu) = mtu.take() {
                put(format!("mtu {mtu}"));
            }
            if family == Family::V6 && nic.awaits_router() {
                // Also where the guest forwards. An address that it makes itself would not get out.
                put("accept_ra 2".to_owned());
                put("autoconf 0".to_owned());
            } else if family == Family::V6 {
                put("accept_ra 0".to_owned());
            }
            match gateway {
                Some(Gateway { address, outside: true }) => {
                    let number = family.number();
                    put(format!("up ip -{number} route replace {} dev {name}", link_prefix(address)));
                    put(format!("up ip -{number} route replace default via {address} dev {name}"));
                }
                Some(Gateway { address, .. }) => put(format!("gateway {address}")),
                None => {}
            }
            if let [_, ..] = servers {
                let words: Vec<String> = servers.iter().map(ToString::to_string).collect();
                put(format!("dns-nameservers {}", words.join(" ")));
                servers = &[];
            }
        }
    }
    lines
}

fn netplan(id: NicId, nic: &WantedNic) -> Vec<String> {
    let quoted = |words: Vec<String>| {
        let words: Vec<String> = words.into_iter().map(|word| quoted(&word)).collect();
        format!("[{}]", words.join(", "))
    };
    let all = |nets: &dyn Fn(Family) -> Vec<String>| Family::BOTH.map(nets).concat();
    let mut lines = vec![
        format!("    {id}:"),
        format!("      match: {{macaddress: '{}'}}", nic.mac),
        "      dhcp4: false".to_owned(),
        "      dhcp6: false".to_owned(),
        format!("      accept-ra: {}", nic.awaits_router()),
    ];
    lines.extend(nic.mtu.map(|mtu| format!("      mtu: {mtu}")));
    let nets = |family| fixed(nic, family).map(|(address, _)| address.to_string()).collect();
    lines.push(format!("      addresses: {}", quoted(all(&nets))));
    if !nic.name_servers.is_empty() {
        lines.push(format!("      nameservers: {{addresses: {}}}", quoted(all(&|family| servers(nic, family)))));
    }
    let gateways: Vec<Gateway> = Family::BOTH.into_iter().filter_map(|family| nic.gateway(family)).collect();
    if !gateways.is_empty() {
        lines.push("      routes:".to_owned());
    }
    lines.extend(gateways.into_iter().map(|Gateway { address, outside }| {
        // Older netplan knows no `default`.
        let to = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        let on_link = if outside || is_link_local(address) { ", on-link: true" } else { "" };
        format!("        - {{to: '{to}', via: '{address}'{on_link}}}")
    }));
    lines
}

/// `NetworkManager` finds out by itself that a gateway outside the prefix is on the link.
fn nmcli(id: NicId, nic: &WantedNic) -> Vec<String> {
    let connection = format!("public-ip-{id}");
    let mut words = vec![format!("nmcli connection add type ethernet con-name {connection} ifname '*'")];
    words.push(format!("802-3-ethernet.mac-address {}", nic.mac));
    words.extend(nic.mtu.map(|mtu| format!("802-3-ethernet.mtu {mtu}")));
    for (family, name) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")] {
        let addresses = addresses(nic, family);
        if addresses.is_empty() {
            words.push(format!("{name}.method disabled"));
            continue;
        }
        // `manual` takes no route from an advertisement.
        let method = if family == Family::V6 && nic.awaits_router() { "auto" } else { "manual" };
        words.push(format!("{name}.method {method} {name}.addresses {addresses}"));
        words.extend(nic.gateway(family).map(|gateway| format!("{name}.gateway {}", gateway.address)));
        let servers = servers(nic, family);
        words.extend((!servers.is_empty()).then(|| format!("{name}.dns {}", servers.join(","))));
        words.extend((family == Family::V6).then(|| "ipv6.addr-gen-mode eui64".to_owned()));
    }
    vec![words.join(" \\\n    "), format!("nmcli connection up {connection}")]
}

fn powershell(id: NicId, nic: &WantedNic) -> Vec<String> {
    let mac = nic.mac.to_string().to_uppercase().replace(':', "-");
    let on = "-InterfaceIndex $nic.ifIndex";
    let mut lines = vec![format!("# {id}"), format!("$nic = Get-NetAdapter | Where-Object MacAddress -eq '{mac}'")];
    for family in Family::BOTH {
        if fixed(nic, family).next().is_none() {
            continue;
        }
        let mtu = nic.mtu.map_or_else(String::new, |mtu| format!(" -NlMtuBytes {mtu}"));
        let mut listen = "";
        if family == Family::V6 {
            // By default its link-local address is not the one made of the MAC.
            lines.push("Set-NetIPv6Protocol -RandomizeIdentifiers Disabled".to_owned());
            listen = if nic.awaits_router() { " -RouterDiscovery Enabled" } else { " -RouterDiscovery Disabled" };
        }
        lines.push(format!("Set-NetIPInterface {on} -AddressFamily {family} -Dhcp Disabled{listen}{mtu}"));
        for (address, gateway) in fixed(nic, family) {
            let (ip, length) = (address.addr(), address.prefix_len());
            lines.push(format!("New-NetIPAddress {on} -IPAddress {ip} -PrefixLength {length}"));
            let Some(Gateway { address, outside }) = gateway else { continue };
            let (nowhere, everything) = if family == Family::V4 { ("0.0.0.0", "0.0.0.0/0") } else { ("::", "::/0") };
            if outside {
                let link = link_prefix(address);
                lines.push(format!("New-NetRoute {on} -DestinationPrefix {link} -NextHop {nowhere}"));
            }
            lines.push(format!("New-NetRoute {on} -DestinationPrefix {everything} -NextHop {address}"));
        }
    }
    if !nic.name_servers.is_empty() {
        let servers = Family::BOTH.map(|family| servers(nic, family)).concat().join(",");
        lines.push(format!("Set-DnsClientServerAddress {on} -ServerAddresses {servers}"));
    }
    lines
}
