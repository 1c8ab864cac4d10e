//! Checks of bridges, VLANs, and of filters other than ours.

use std::collections::{BTreeMap, BTreeSet};

use super::{Fix, Hit, Observation, View, listed};
use crate::guest::Nic;
use crate::links::{PortState, guest_of_port, is_guest_port};
use crate::model::{Family, IfName, NicId, Prefix, Vmid};
use crate::plan::{hears_advertisements, is_segment_of, pool_bridges, unknown_gateways};
use crate::registry::document::{Interface, Mode, UplinkGuard};
use crate::ruleset::BaseChain;
use crate::ruleset::Table;

pub(super) fn filter_missing(view: &View<'_>) -> Observation<Vec<Hit>> {
    let void = view.facts.void.as_ref().map_err(String::clone)?;
    let registry = &view.files()?.inputs.registry;
    let pools = &registry.pools.pools;
    // Before the first pool there is nothing to protect.
    let is_needed = |table: &&Table| match table {
        Table::Bridge => !pools.is_empty() || registry.assignments().next().is_some(),
        Table::Inet => pools.values().any(|pool| pool.mode() == Mode::Routed),
    };
    let hit = |table: &Table| Hit::new(table, format!("{table} or its rules are missing"), "`pve-public-ip apply`");
    Ok(void.iter().filter(is_needed).map(hit).collect())
}

/// NICs with assignments of this node's guests, as their configuration has them.
fn bound_nics<'a>(view: &View<'a>) -> Observation<Vec<(Vmid, NicId, &'a Nic, &'a Interface)>> {
    let files = view.files()?;
    let mut found = Vec::new();
    for (vmid, held) in &files.inputs.registry.guests {
        let place = files.inputs.guests.get(vmid).filter(|place| place.node == files.inputs.node);
        for (id, interface) in held.interfaces.iter().filter(|(_, interface)| !interface.addresses.is_empty()) {
            if let Some(Ok(nic)) = place.and_then(|place| place.config.nics.get(id)) {
                found.push((*vmid, *id, nic, interface));
            }
        }
    }
    Ok(found)
}

/// Bridges of the pools of which guests of this node hold addresses, with these guests.
fn needed_bridges(view: &View<'_>) -> Observation<BTreeMap<IfName, BTreeSet<Vmid>>> {
    let pools = &view.files()?.inputs.registry.pools.pools;
    let mut needed: BTreeMap<IfName, BTreeSet<Vmid>> = BTreeMap::new();
    for (vmid, .., interface) in bound_nics(view)? {
        for pool in interface.addresses.iter().filter_map(|assigned| pools.get(&assigned.pool)) {
            needed.entry(pool.bridge).or_default().insert(vmid);
        }
    }
    Ok(needed)
}

pub(super) fn bridge_missing(view: &View<'_>) -> Observation<Vec<Hit>> {
    let links = view.facts.links()?;
    let open_vswitch = view.facts.open_vswitch();
    let hit = |(bridge, guests): (IfName, BTreeSet<Vmid>)| {
        let what = match links.get(bridge) {
            None => "does not exist",
            Some(link) if link.bridge.is_none() && !open_vswitch.contains(&bridge) => "is not a bridge",
            Some(_) => return None,
        };
        let sentence =
            format!("{bridge} {what} on this node, and guests here hold addresses of its pools: {}", listed(guests));
        Some(Hit::new(&bridge, sentence, "make it in /etc/network/interfaces, then `ifreload -a`"))
    };
    Ok(needed_bridges(view)?.into_iter().filter_map(hit).collect())
}

pub(super) fn ovs_bridge(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let open_vswitch = view.facts.open_vswitch();
    let mut hits = Vec::new();
    for (name, pool) in files.inputs.registry.pools.pools.iter().filter(|(_, pool)| open_vswitch.contains(&pool.bridge))
    {
        let sentence =
            format!("{} of pool `{name}` is a bridge of Open vSwitch: nothing on it is protected", pool.bridge);
        hits.push(Hit::new(
            &pool.bridge,
            sentence,
            "make a Linux bridge, move its guests there, and make the pool anew on it",
        ));
    }
    for (vmid, id, nic, _) in bound_nics(view)? {
        if let Some(bridge) = nic.bridge.filter(|bridge| open_vswitch.contains(bridge)) {
            let sentence = format!("guest {vmid} {id} holds addresses and is on {bridge}, a bridge of Open vSwitch");
            hits.push(Hit::new(&format!("guest {vmid}"), sentence, "move the NIC to a Linux bridge"));
        }
    }
    Ok(hits)
}

pub(super) fn ovs_present(view: &View<'_>) -> Observation<Vec<Hit>> {
    let concerned: BTreeSet<IfName> = bound_nics(view)?.into_iter().filter_map(|(_, _, nic, _)| nic.bridge).collect();
    let pools = pool_bridges(&view.files()?.inputs.registry);
    let others = view.facts.open_vswitch().into_iter().filter(|it| !concerned.contains(it) && !pools.contains(it));
    Ok(others.map(|bridge| Hit::new(&bridge, format!("{bridge} is a bridge of Open vSwitch"), "")).collect())
}

pub(super) fn bridge_learns(view: &View<'_>) -> Observation<Vec<Hit>> {
    let links = view.facts.links()?;
    let bridges = pool_bridges(&view.files()?.inputs.registry);
    let learns = |bridge: &IfName| {
        links.get(*bridge).and_then(|link| link.bridge).is_some_and(|options| !options.no_linklocal_learn)
    };
    let hit = |bridge: IfName| {
        let remedy = format!("`ip link set {bridge} type bridge no_linklocal_learn 1`, as `pve-public-ip apply` does");
        Hit::new(&bridge, format!("{bridge} learns from link-local frames"), remedy).fixed_by(Fix::DeafenBridge(bridge))
    };
    Ok(bridges.into_iter().filter(learns).map(hit).collect())
}

pub(super) fn root_is_guest(view: &View<'_>) -> Observation<Vec<Hit>> {
    let links = view.facts.links()?;
    let guests = links.0.keys().filter_map(|bridge| {
        let port = links.root_port(*bridge)?;
        Some((*bridge, port, guest_of_port(port)?))
    });
    let hit = |(bridge, port, vmid)| {
        let sentence = format!("guest {vmid} ({port}) is the root of the spanning tree of {bridge}");
        let remedy =
            "`pve-public-ip apply`: from then on guests have no say in it, and this one is forgotten within 20 s";
        Hit::new(&bridge, sentence, remedy)
    };
    Ok(guests.map(hit).collect())
}

pub(super) fn port_is_held(view: &View<'_>) -> Observation<Vec<Hit>> {
    let links = view.facts.links()?;
    let bridges = pool_bridges(&view.files()?.inputs.registry);
    let held = links.0.keys().filter_map(|port| {
        let (bridge, state) = links.not_forwarding(*port)?;
        (state.is_held() && bridges.contains(&bridge)).then_some((*port, bridge, state))
    });
    let hit = |(port, bridge, state): (IfName, IfName, PortState)| {
        let remedy = format!(
            "a new port waits for twice the forward delay of {bridge}; if there are no loops behind it: `ip link set {bridge} type bridge stp_state 0`"
        );
        Hit::new(&port, format!("{port} is {} in {bridge}", state.name()), remedy)
    };
    Ok(held.map(hit).collect())
}

pub(super) fn gateway_mac_unknown(view: &View<'_>) -> Observation<Vec<Hit>> {
    let inputs = &view.files()?.inputs;
    let concerned = needed_bridges(view)?;
    let mut hits = Vec::new();
    for (device, gateway) in unknown_gateways(inputs) {
        let pools = inputs.registry.pools.pools.iter().filter(|(_, pool)| is_segment_of(device, pool.bridge));
        let mut pools = pools.filter(|(_, pool)| concerned.contains_key(&pool.bridge)).map(|(name, _)| name).peekable();
        let Some(pool) = pools.next() else { continue };
        let sentence = format!("the MAC of the gateway {gateway} on {device} is not known");
        let remedy = format!(
            "`pve-public-ip apply` asks for it; else `pve-public-ip pool set {pool} --gateway-mac MAC` names it"
        );
        hits.push(Hit::new(&device, sentence, remedy));
    }
    Ok(hits)
}

pub(super) fn router_advertises_prefix(view: &View<'_>) -> Observation<Vec<Hit>> {
    let inputs = &view.files()?.inputs;
    let mut hits = Vec::new();
    for (vmid, id, nic, interface) in bound_nics(view)? {
        // Where no advertisement is delivered the guest does not heed it.
        if !hears_advertisements(&inputs.registry, interface) {
            continue;
        }
        let own: Vec<Prefix> = interface.addresses.iter().map(|assigned| assigned.address).collect();
        if !own.iter().any(|address| address.family() == Family::V6 && address.single().is_some()) {
            continue;
        }
        let is_near = |on: IfName| nic.bridge.is_some_and(|bridge| is_segment_of(on, bridge));
        for router in inputs.routers.iter().filter(|router| is_near(router.bridge)) {
            // What lies in a prefix that the guest holds is its own.
            let foreign = router.autonomous.iter().filter(|prefix| !own.iter().any(|own| own.contains(**prefix)));
            hits.extend(foreign.map(|prefix| {
                let sentence = format!(
                    "guest {vmid} {id}: the router {} on {} advertises {prefix} for addresses that hosts make themselves",
                    router.address, router.bridge
                );
                let net = id.net_option();
                let remedy = if interface.router_advertisements == Some(true) {
                    format!("`pve-public-ip set {vmid}{net} --router-advertisements default`, or inside the guest `sysctl -w \
                             net.ipv6.conf.all.autoconf=0`")
                } else {
                    "its gateway is known by advertisements only; inside the guest `sysctl -w net.ipv6.conf.all.autoconf=0`, and \
                     in /etc/sysctl.d to keep it"
                        .to_owned()
                };
                Hit::new(&format!("guest {vmid}"), sentence, remedy)
            }));
        }
    }
    Ok(hits)
}

/// How many MACs a bridge may learn is far more than guests have, and few enough for the kernel.
const MAX_LEARNED: u32 = 16_384;

/// Bridges that guests are plugged into, whether pools know them or not.
pub(super) fn bridge_learns_all(view: &View<'_>) -> Observation<Vec<Hit>> {
    let links = view.facts.links()?;
    let has_guests =
        |bridge: IfName| links.0.iter().any(|(port, link)| link.master == Some(bridge) && is_guest_port(port.as_str()));
    let is_unbound = |bridge: IfName| {
        links.get(bridge).and_then(|link| link.bridge).is_some_and(|options| options.max_learned == Some(0))
    };
    let hit = |bridge: &IfName| {
        let remedy = format!(
            "`ip link set {bridge} type bridge fdb_max_learned {MAX_LEARNED}` (iproute2 6.8 or newer), also as `post-up` of \
             {bridge} in /etc/network/interfaces"
        );
        Hit::new(bridge, format!("{bridge} learns any number of MACs"), remedy)
    };
    Ok(links.0.keys().filter(|bridge| is_unbound(**bridge) && has_guests(**bridge)).map(hit).collect())
}

/// Only where the provider is known to watch MACs, and the node speaks on the bridge itself.
pub(super) fn bridge_mac_unknown(view: &View<'_>) -> Observation<Vec<Hit>> {
    let links = view.facts.links()?;
    let registry = &view.files()?.inputs.registry;
    let named = registry.node.as_ref().and_then(|node| node.uplinks.as_ref());
    let is_uplink = |port: IfName| named.map_or_else(|| !is_guest_port(port.as_str()), |named| named.contains(&port));
    let mut hits = BTreeMap::new();
    for (name, pool) in &registry.pools.pools {
        let Some(link) = links.get(pool.bridge).filter(|link| !link.addresses.is_empty()) else { continue };
        let Some(mac) = link.mac.filter(|_| pool.uplink_guard() == UplinkGuard::Enforce) else { continue };
        let is_allowed =
            registry.pools.pools.values().any(|other| other.bridge == pool.bridge && other.allowed_macs.contains(&mac));
        let uplinks = links.ports(pool.bridge).filter(|port| is_uplink(*port));
        let uplinks: Vec<_> = uplinks.filter_map(|port| Some((port, links.get(port)?.mac?))).collect();
        let Some((port, own)) = uplinks.first().filter(|_| uplinks.iter().all(|(_, own)| *own != mac)) else {
            continue;
        };
        if is_allowed {
            continue;
        }
        let bridge = pool.bridge;
        let sentence = format!(
            "{bridge} has MAC {mac}, and its uplink {port} has {own}: the provider of pool `{name}` sees {mac}"
        );
        let remedy = format!(
            "`hwaddress {own}` for {bridge} in /etc/network/interfaces, then `ifreload -a`; if the provider knows {mac}: `pve-public-ip \
             pool set {name} --allow-mac {mac}`"
        );
        hits.entry(bridge).or_insert_with(|| Hit::new(&bridge, sentence, remedy));
    }
    Ok(hits.into_values().collect())
}

pub(super) fn uplink_missing(view: &View<'_>) -> Observation<Vec<Hit>> {
    let links = view.facts.links()?;
    let files = view.files()?;
    let named = files.inputs.registry.node.as_ref().and_then(|node| node.uplinks.as_ref());
    let hit = |uplink: &IfName| {
        let what = match links.get(*uplink) {
            None => "does not exist".to_owned(),
            Some(link) if link.master.is_none() => "is in no bridge".to_owned(),
            Some(_) => return None,
        };
        let remedy = format!("correct `uplinks` in `/etc/pve/public-ip/nodes/{}.json`", files.inputs.node);
        Some(Hit::new(&uplink, format!("the uplink {uplink} {what}"), remedy))
    };
    Ok(named.into_iter().flatten().filter_map(hit).collect())
}

/// A NIC with assignments and a VLAN tag.
struct Tagged {
    vmid: Vmid,
    id: NicId,
    bridge: IfName,
    tag: u16,
    /// Whether the bridge is VLAN-aware.
    aware: bool,
}

/// Those whose bridge is there.
fn tagged(view: &View<'_>) -> Observation<Vec<Tagged>> {
    let links = view.facts.links()?;
    let tagged = bound_nics(view)?.into_iter().filter_map(|(vmid, id, nic, _)| {
        let bridge = nic.bridge?;
        let aware = links.get(bridge)?.bridge?.vlan_filtering;
        Some(Tagged { vmid, id, bridge, tag: nic.tag?, aware })
    });
    Ok(tagged.collect())
}

pub(super) fn vlan_interface_missing(view: &View<'_>) -> Observation<Vec<Hit>> {
    let links = view.facts.links()?;
    let mut wanted: BTreeMap<(IfName, u16), BTreeSet<Vmid>> = BTreeMap::new();
    for Tagged { vmid, bridge, tag, aware, .. } in tagged(view)? {
        if aware && links.segment(bridge, Some(tag)).is_none() {
            wanted.entry((bridge, tag)).or_default().insert(vmid);
        }
    }
    let hit = |((bridge, tag), guests): ((IfName, u16), BTreeSet<Vmid>)| {
        let sentence =
            format!("{bridge}.{tag} does not exist; guests with assignments in this VLAN: {}", listed(guests));
        Hit::new(
            &format!("{bridge}.{tag}"),
            sentence,
            format!("add `iface {bridge}.{tag} inet manual` to /etc/network/interfaces, then `ifreload -a`"),
        )
    };
    Ok(wanted.into_iter().map(hit).collect())
}

pub(super) fn vlan_bridge_name(view: &View<'_>) -> Observation<Vec<Hit>> {
    let long = tagged(view)?.into_iter().filter_map(|Tagged { vmid, id, bridge, tag, aware }| {
        let name = format!("{bridge}v{tag}");
        if aware || name.len() <= 15 {
            return None;
        }
        let sentence = format!("guest {vmid} {id} needs the bridge {name}, which has {} characters", name.len());
        Some(Hit::new(
            &format!("guest {vmid}"),
            sentence,
            format!("make {bridge} VLAN-aware, or give it a shorter name"),
        ))
    });
    Ok(long.collect())
}

pub(super) fn vlan_not_admitted(view: &View<'_>) -> Observation<Vec<Hit>> {
    let nics = bound_nics(view)?.into_iter();
    let mut nics = nics.filter(|(_, _, nic, interface)| nic.tag.is_some() || !interface.trunk.is_empty()).peekable();
    if nics.peek().is_none() {
        return Ok(Vec::new());
    }
    let interfaces = view.facts.interfaces.as_ref().map_err(String::clone)?;
    let mut hits = Vec::new();
    for (vmid, id, nic, interface) in nics {
        let bridge = nic.bridge.and_then(|bridge| Some((bridge, interfaces.0.get(&bridge)?)));
        let Some((bridge, described)) = bridge.filter(|(_, described)| described.vlan_aware) else { continue };
        let wanted: BTreeSet<u16> = nic.tag.into_iter().chain(interface.trunk.iter().copied()).collect();
        let barred: Vec<u16> = wanted.into_iter().filter(|vlan| !described.vids.contains(*vlan)).collect();
        if !barred.is_empty() {
            let sentence = format!(
                "guest {vmid} {id} is in VLAN {}, which `bridge-vids` of {bridge} does not have",
                listed(barred)
            );
            let remedy = "add it to `bridge-vids` in /etc/network/interfaces, then `ifreload -a`";
            hits.push(Hit::new(&format!("guest {vmid}"), sentence, remedy));
        }
    }
    Ok(hits)
}

pub(super) fn trunk_mismatch(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let mut hits = Vec::new();
    for (vmid, id, nic, interface) in bound_nics(view)? {
        let place = &files.inputs.guests[&vmid];
        let configured = place.config.trunks(id);
        let unnamed: Vec<u16> = configured.difference(&interface.trunk).copied().collect();
        let unpassed: Vec<u16> = interface.trunk.difference(&configured).copied().collect();
        let subject = format!("guest {vmid}");
        if !unnamed.is_empty() {
            let sentence =
                format!("guest {vmid} {id} has VLAN {} in `trunks`, but may not send in it", listed(&unnamed));
            let all = configured.iter().map(|vlan| format!(" --trunk {vlan}"));
            let all: String = if configured.len() > 8 { " --trunk ID ...".to_owned() } else { all.collect() };
            hits.push(Hit::new(&subject, sentence, format!("`pve-public-ip set {vmid} --net {}{all}`", id.index())));
        }
        // Where the bridge knows no VLANs, tagged frames pass as they are.
        let aware = nic.bridge.and_then(|bridge| view.facts.links.as_ref().ok()?.get(bridge)?.bridge);
        if aware.is_some_and(|options| options.vlan_filtering) && !unpassed.is_empty() {
            let sentence =
                format!("guest {vmid} {id} may send in VLAN {}, but the bridge does not pass it", listed(&unpassed));
            let remedy = format!("add `trunks=...` to {id}: `{} config {vmid}`", place.config.kind.tool());
            hits.push(Hit::new(&subject, sentence, remedy));
        }
    }
    Ok(hits)
}

fn chains(view: &View<'_>, family: impl Fn(&str) -> bool) -> Observation<Vec<BaseChain>> {
    let chains = view.facts.chains.as_ref().map_err(String::clone)?;
    Ok(chains.iter().filter(|chain| family(chain.family)).cloned().collect())
}

fn list_command(chain: &BaseChain) -> String {
    if chain.legacy {
        return format!("`{}tables-legacy -S {}`", chain.family, chain.name);
    }
    format!("`nft list table {} {}`", chain.family, chain.table)
}

pub(super) fn foreign_chain_policy(view: &View<'_>) -> Observation<Vec<Hit>> {
    let hit = |chain: BaseChain| {
        let subject = format!("table bridge {}", chain.table);
        let sentence = format!("the chain {} at {} has the policy drop", chain.name, chain.hook);
        Hit::new(
            &subject,
            sentence,
            format!("{} shows it; the guests' addresses must be accepted there", list_command(&chain)),
        )
    };
    Ok(chains(view, |family| family == "bridge")?.into_iter().filter(|chain| chain.drops).map(hit).collect())
}

pub(super) fn foreign_chain_drops(view: &View<'_>) -> Observation<Vec<Hit>> {
    let all = chains(view, |family| family == "bridge")?.into_iter();
    let tables: BTreeMap<String, BaseChain> =
        all.filter(|chain| chain.table_drops && !chain.drops).map(|chain| (chain.table.clone(), chain)).collect();
    let hit = |(table, chain): (String, BaseChain)| {
        let sentence = format!("the table {table} has rules that drop frames");
        Hit::new(&format!("table bridge {table}"), sentence, format!("{} shows them", list_command(&chain)))
    };
    Ok(tables.into_iter().map(hit).collect())
}

pub(super) fn forward_policy(view: &View<'_>) -> Observation<Vec<Hit>> {
    let routed: Vec<_> =
        view.files()?.inputs.registry.pools.pools.iter().filter(|(_, pool)| pool.mode() == Mode::Routed).collect();
    let bridged = bridged_calls(view)?.iter().any(|name| *name != "bridge-nf-call-arptables");
    if routed.is_empty() && !bridged {
        return Ok(Vec::new());
    }
    let why = match routed.first() {
        Some((name, _)) => format!("pool `{name}` is routed"),
        None => "bridged frames pass it too".to_owned(),
    };
    let hit = |chain: BaseChain| {
        let subject = format!("table {} {}", chain.family, chain.table);
        let sentence = format!("the chain {} at forward has the policy drop, and {why}", chain.name);
        Hit::new(&subject, sentence, format!("{} shows it; let the guests' addresses pass there", list_command(&chain)))
    };
    let found = chains(view, |family| matches!(family, "ip" | "ip6" | "inet"))?.into_iter();
    Ok(found.filter(|chain| chain.drops && chain.hook == "forward").map(hit).collect())
}

/// The switches of `br_netfilter` that are on.
fn bridged_calls(view: &View<'_>) -> Observation<Vec<&'static str>> {
    let mut on = Vec::new();
    for name in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"] {
        on.extend((view.facts.parameter(&format!("net/bridge/{name}"))? == Some(1)).then_some(name));
    }
    Ok(on)
}

pub(super) fn br_netfilter(view: &View<'_>) -> Observation<Vec<Hit>> {
    let on = bridged_calls(view)?;
    let hit = || Hit::new("net.bridge", format!("on: {}", on.join(", ")), "");
    Ok((!on.is_empty()).then(hit).into_iter().collect())
}

pub(super) fn rp_filter_strict(view: &View<'_>) -> Observation<Vec<Hit>> {
    let files = view.files()?;
    let pools = &files.inputs.registry.pools.pools;
    let routers = bound_nics(view)?.into_iter().filter_map(|(vmid, _, nic, interface)| {
        let routes = interface.addresses.iter().any(|assigned| assigned.address.single().is_none());
        Some((nic.bridge.filter(|_| routes)?, format!("guest {vmid} is a router on it")))
    });
    let routed = pools.iter().filter(|(_, pool)| pool.mode() == Mode::Routed);
    let mut concerned: BTreeMap<IfName, String> = routers.collect();
    concerned.extend(routed.map(|(name, pool)| (pool.bridge, format!("pool `{name}` is routed to it"))));
    if concerned.is_empty() {
        return Ok(Vec::new());
    }
    let value = |device: &str| view.facts.parameter(&format!("net/ipv4/conf/{device}/rp_filter"));
    let all = value("all")?.ok_or("this kernel has no net.ipv4.conf.all.rp_filter")?;
    let mut hits = Vec::new();
    for (bridge, why) in concerned {
        // Of both values the higher one counts: 1 is strict, 2 is loose. A bridge that is not there has none.
        if value(bridge.as_str())?.is_some_and(|own| all.max(own) == 1) {
            let sentence = format!("reverse path filtering is strict on {bridge}, and {why}");
            let remedy = "`sysctl -w net.ipv4.conf.all.rp_filter=2`, and the same in a file in /etc/sysctl.d";
            hits.push(Hit::new(&bridge, sentence, remedy));
        }
    }
    Ok(hits)
}
