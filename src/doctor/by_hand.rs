//! Commands in `/etc/network/interfaces` that do what this program does, as tutorials of providers have them: routes and
//! permanent neighbours of guests' addresses. What is the same stays and does no harm; what differs keeps its guest from
//! working, and is better known before it starts.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Hit, Observation, View};
use crate::model::{IfName, MacAddr, Prefix};
use crate::plan::is_segment_of;
use crate::registry::Registry;
use crate::registry::document::{Mode, Pool};

/// What a command puts into the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Made {
    /// `ip route add NET dev DEVICE via IP`
    Route { net: IpNet, device: Option<IfName>, via: Option<IpAddr>, leads: bool },
    /// `ip neigh add IP lladdr MAC dev DEVICE`
    Neighbour { address: IpAddr, mac: MacAddr, device: IfName },
    /// The node answers there for whatever it has a route to.
    ProxyArp { device: IfName },
}

/// The commands of one line, whatever a shell has between them; variables of ifupdown are what they stand for.
fn made(interface: IfName, line: &str) -> Vec<Made> {
    let line = line.replace("${IFACE}", interface.as_str()).replace("$IFACE", interface.as_str());
    line.split([';', '&', '|']).filter_map(|command| made_by(interface, command)).collect()
}

fn made_by(interface: IfName, command: &str) -> Option<Made> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let program = words.first()?.rsplit('/').next()?;
    match program {
        "ip" => made_by_ip(&words[1..]),
        // `sysctl -w net.ipv4.conf.eno1.proxy_arp=1`, `echo 1 > /proc/sys/net/ipv4/conf/eno1/proxy_arp`
        "sysctl" | "echo" => {
            let is_on = if program == "echo" { words.get(1) == Some(&"1") } else { command.trim_end().ends_with('1') };
            let (before, _) = command.split_once("proxy_arp").filter(|_| is_on)?;
            let device = before.trim_end_matches(['.', '/']).rsplit(['.', '/']).next()?;
            let device = if matches!(device, "all" | "default") { interface } else { device.parse().ok()? };
            Some(Made::ProxyArp { device })
        }
        _ => None,
    }
}

fn made_by_ip(words: &[&str]) -> Option<Made> {
    let mut words = words.iter().copied().skip_while(|word| word.starts_with('-')).peekable();
    let object = words.next()?;
    matches!(words.next()?, "add" | "a" | "append" | "change" | "replace" | "prepend").then_some(())?;
    let mut leads = true;
    while let Some(kind) = words.next_if(|word| {
        matches!(*word, "to" | "unicast" | "blackhole" | "unreachable" | "prohibit" | "throw" | "proxy" | "local")
    }) {
        if kind == "proxy" {
            return None;
        }
        leads &= matches!(kind, "to" | "unicast");
    }
    let destination = words.next()?;
    let rest: Vec<&str> = words.collect();
    let value = |key: &str| rest.iter().position(|word| *word == key).and_then(|at| rest.get(at + 1)).copied();
    let device = value("dev").and_then(|device| device.parse().ok());
    if object.starts_with('r') {
        // A route of another table is not looked up for guests' addresses.
        if value("table").is_some_and(|table| !matches!(table, "main" | "254")) {
            return None;
        }
        let net = destination.parse().or_else(|_| destination.parse::<IpAddr>().map(IpNet::from)).ok()?;
        return Some(Made::Route { net, device, via: value("via").and_then(|via| via.parse().ok()), leads });
    }
    let is_neighbour = object.starts_with('n') && "neighbour neighbor".contains(object);
    let mac = value("lladdr")?.parse().ok()?;
    is_neighbour.then_some(Made::Neighbour { address: destination.parse().ok()?, mac, device: device? })
}

/// A command and what it has to do with addresses of pools.
struct Found {
    interface: IfName,
    line: String,
    /// What is there by it.
    what: String,
    /// Why that is not what is wanted; `None`: it is.
    differs: Option<String>,
}

fn pool_of(registry: &Registry, net: IpNet) -> Option<(&str, &Pool)> {
    let net: Prefix = net.trunc().to_string().parse().ok()?;
    let mut pools = registry.pools.pools.iter();
    pools.find(|(_, pool)| pool.entry(net).is_some()).map(|(name, pool)| (name.as_str(), pool))
}

/// The MAC of the NIC that holds an address, or for which the provider bound it.
fn mac_of(registry: &Registry, pool: &Pool, address: Prefix) -> Option<MacAddr> {
    let mut held = registry.assignments().filter(|(.., assigned)| assigned.address.contains(address));
    let holder = held.next().map(|(.., interface, _)| interface.mac);
    holder.or_else(|| pool.entry(address).and_then(|entry| entry.mac))
}

fn weighed(registry: &Registry, made: &Made) -> Option<(String, Option<String>)> {
    match made {
        Made::Route { net, device, via, leads } => {
            let (name, pool) = pool_of(registry, *net)?;
            let is_whole = |prefix: Prefix| prefix.net() == net.trunc();
            let is_ours = net.prefix_len() == net.max_prefix_len()
                || registry.assignments().any(|(.., assigned)| is_whole(assigned.address));
            // Only a route to the same destination stands where ours is wanted; the node has none for bridged pools.
            if pool.mode() != Mode::Routed || !is_ours {
                return None;
            }
            let is_right = *leads && via.is_none() && device.is_some_and(|device| is_segment_of(device, pool.bridge));
            let differs = format!("pool `{name}` needs it to lead to {}", pool.bridge);
            Some((format!("a route to {net}"), (!is_right).then_some(differs)))
        }
        Made::Neighbour { address, mac, device } => {
            let (_, pool) = pool_of(registry, IpNet::from(*address))?;
            if !is_segment_of(*device, pool.bridge) {
                return None;
            }
            let wanted = mac_of(registry, pool, Prefix::host(*address).ok()?);
            let differs = match wanted {
                Some(wanted) if wanted == *mac => None,
                Some(wanted) => Some(format!("its holder has MAC {wanted}")),
                None => Some(format!("a guest that gets it needs the MAC {mac}")),
            };
            Some((format!("a permanent neighbour {address} with MAC {mac}"), differs))
        }
        Made::ProxyArp { device } => {
            let routed = registry.pools.pools.values().any(|pool| pool.mode() == Mode::Routed);
            routed.then(|| (format!("proxy ARP on {device}"), None))
        }
    }
}

fn found(view: &View<'_>) -> Observation<Vec<Found>> {
    let registry = &view.files()?.inputs.registry;
    let interfaces = view.facts.interfaces.as_ref().map_err(String::clone)?;
    let mut found = Vec::new();
    for (interface, described) in &interfaces.0 {
        for line in &described.commands {
            let weighed = made(*interface, line).into_iter().filter_map(|made| weighed(registry, &made));
            found.extend(weighed.map(|(what, differs)| Found {
                interface: *interface,
                line: line.clone(),
                what,
                differs,
            }));
        }
    }
    Ok(found)
}

pub(super) fn differs(view: &View<'_>) -> Observation<Vec<Hit>> {
    let hit = |Found { interface, line, what, differs }: Found| {
        let sentence = format!("`{line}` of {interface} makes {what}, and {}", differs?);
        let remedy = "take the line out of /etc/network/interfaces, take what it made back (`ip route del`, `ip neigh del`), then \
                      `pve-public-ip apply`";
        Some(Hit::new(&interface, sentence, remedy))
    };
    Ok(found(view)?.into_iter().filter_map(hit).collect())
}

pub(super) fn same(view: &View<'_>) -> Observation<Vec<Hit>> {
    let hit = |Found { interface, line, what, differs }: Found| {
        let sentence = format!("`{line}` of {interface} makes {what}");
        differs.is_none().then(|| Hit::new(&interface, sentence, ""))
    };
    Ok(found(view)?.into_iter().filter_map(hit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }

    #[test]
    fn understands_what_tutorials_have() {
        let route = |net: &str, device: Option<&str>, via: Option<&str>, leads| Made::Route {
            net: net.parse().unwrap(),
            device: device.map(name),
            via: via.map(|via| via.parse().unwrap()),
            leads,
        };
        let neighbour = Made::Neighbour {
            address: "203.0.113.5".parse().unwrap(),
            mac: "02:00:00:00:00:05".parse().unwrap(),
            device: name("vmbr0"),
        };
        let proxy = |device| Made::ProxyArp { device: name(device) };
        for (line, expected) in [
            ("ip route add 203.0.113.5/32 dev vmbr0", vec![route("203.0.113.5/32", Some("vmbr0"), None, true)]),
            (
                "/sbin/ip -4 ro replace 203.0.113.5 dev $IFACE || true",
                vec![route("203.0.113.5/32", Some("vmbr0"), None, true)],
            ),
            ("ip r a 203.0.113.5 via 198.51.100.1", vec![route("203.0.113.5/32", None, Some("198.51.100.1"), true)]),
            ("ip route add blackhole 203.0.113.0/29", vec![route("203.0.113.0/29", None, None, false)]),
            ("ip -6 route add 2001:db8::/64 dev ${IFACE}", vec![route("2001:db8::/64", Some("vmbr0"), None, true)]),
            ("ip route add 203.0.113.5 dev vmbr0 table 100", vec![]),
            ("ip route del 203.0.113.5 dev vmbr0", vec![]),
            ("ip route add default via 198.51.100.1", vec![]),
            ("ip neigh add 203.0.113.5 lladdr 02:00:00:00:00:05 dev vmbr0 nud permanent", vec![neighbour.clone()]),
            ("ip neighbor replace 203.0.113.5 dev vmbr0 lladdr 02:00:00:00:00:05", vec![neighbour]),
            ("ip neigh add proxy 203.0.113.5 dev eno1", vec![]),
            ("echo 1 > /proc/sys/net/ipv4/conf/eno1/proxy_arp", vec![proxy("eno1")]),
            ("echo 0 > /proc/sys/net/ipv4/conf/eno1/proxy_arp", vec![]),
            ("sysctl -w net.ipv4.conf.vmbr0.proxy_arp=1; sysctl -w net.ipv4.ip_forward=1", vec![proxy("vmbr0")]),
            ("sysctl net.ipv4.conf.all.proxy_arp=1", vec![proxy("vmbr0")]),
            ("iptables -t nat -A POSTROUTING -j MASQUERADE", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(made(name("vmbr0"), line), expected, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn survives_anything(line in "(ip|route|neigh|add|dev|via|lladdr|proxy_arp|sysctl|echo|[ ./:=0-9a-f$;|]){0,40}") {
            made(name("vmbr0"), &line);
        }
    }
}
