//! The filter of routed traffic in the words of iptables: chains of our own, and sets where the node has `ipset`.
//!
//! What is right goes on to the administrator's own rules by `RETURN`. There is no `ACCEPT`: in iptables that ends the whole
//! table, so one address bound to one guest would be let past every rule that stands behind ours, pve-firewall's included.
//!
//! Lines are written as `iptables-save` writes them back, so that what is wanted and what is there compare as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Routed;
use crate::model::{Family, MacAddr};

/// Which iptables: two programs that do not see each other's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// In the tables of the old kernel interface; Proxmox VE's firewall forces `iptables` to be this one.
    Legacy,
    /// In tables of nf_tables.
    Nft,
}

impl Variant {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Legacy, Self::Nft];
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy => "iptables-legacy",
            Self::Nft => "iptables-nft",
        })
    }
}

/// What filters routed traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// `table inet pve-public-ip`.
    #[default]
    Nftables,
    /// Chains of one iptables.
    Iptables {
        /// Which.
        variant: Variant,
        /// Whether kernel and node have the sets; else each address is a rule.
        ipset: bool,
        /// Whether the kernel has IPv6.
        ipv6: bool,
    },
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nftables => f.write_str("nftables"),
            Self::Iptables { variant, ipset, .. } => {
                write!(f, "{variant} {}", if *ipset { "with ipset" } else { "without ipset" })
            }
        }
    }
}

/// A table of one iptables and one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IptablesTable {
    /// Which iptables.
    pub variant: Variant,
    /// Address family.
    pub family: Family,
    /// Its table.
    pub table: ChainTable,
}

/// A table of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainTable {
    /// Where packets are dropped for what they claim to be.
    Filter,
    /// Where the return path is asked for: the only hook at which iptables can.
    Raw,
}

impl ChainTable {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Raw => "raw",
        }
    }

    /// Where our chain has to be asked first.
    fn hooks(self) -> &'static [&'static str] {
        match self {
            Self::Filter => &["FORWARD", "INPUT"],
            Self::Raw => &["PREROUTING"],
        }
    }
}

impl IptablesTable {
    /// All of one iptables.
    pub fn all(variant: Variant) -> impl Iterator<Item = Self> {
        let tables = [ChainTable::Filter, ChainTable::Raw];
        tables.into_iter().flat_map(move |table| Family::BOTH.map(|family| Self { variant, family, table }))
    }

    /// The program for one of its jobs: `iptables-legacy-save`.
    pub fn program(self, job: &str) -> String {
        let stem = if self.family == Family::V6 { "ip6tables" } else { "iptables" };
        let variant = match self.variant {
            Variant::Legacy => "legacy",
            Variant::Nft => "nft",
        };
        format!("{stem}-{variant}{job}")
    }
}

impl fmt::Display for IptablesTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -t {}", self.program(""), self.table.name())
    }
}

/// The chain that the built-in ones jump to. The names of the others begin with it.
pub const CHAIN: &str = "PVE-PUBLIC-IP";
const GUEST: &str = "PVE-PUBLIC-IP-GUEST";
const SHARED: &str = "PVE-PUBLIC-IP-SHARED";
const POOL: &str = "PVE-PUBLIC-IP-POOL";
const OTHER: &str = "PVE-PUBLIC-IP-OTHER";
const LOOP: &str = "PVE-PUBLIC-IP-LOOP";
const RETURN_PATH: &str = "PVE-PUBLIC-IP-BACK";

/// What one table has of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chains {
    /// Rules by chain, without the words that append them.
    pub rules: BTreeMap<String, Vec<String>>,
    /// By built-in chain: at which places, counted from 1, it jumps to [`CHAIN`].
    pub jumps: BTreeMap<String, Vec<usize>>,
}

impl Chains {
    /// Reads what `iptables-save` says.
    pub fn parse(text: &str) -> Self {
        let mut chains = Self::default();
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for line in text.lines() {
            if let Some(name) =
                line.strip_prefix(':').and_then(|rest| rest.split(' ').next()).filter(|name| is_ours(name))
            {
                chains.rules.entry(name.to_owned()).or_default();
            }
            let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) else { continue };
            let place = places.entry(chain).or_default();
            *place += 1;
            if is_ours(chain) {
                chains.rules.entry(chain.to_owned()).or_default().push(rule.to_owned());
            } else if rule == format!("-j {CHAIN}") {
                chains.jumps.entry(chain.to_owned()).or_default().push(*place);
            }
        }
        chains
    }

    /// What `iptables-restore --noflush` has to be told to make these of `found`. One transaction; nobody else's rule is
    /// named in it.
    pub fn script(&self, found: &Self, table: ChainTable) -> String {
        let mut text = format!("*{}\n", table.name());
        let stale: Vec<&String> = found.rules.keys().filter(|name| !self.rules.contains_key(*name)).collect();
        let changed: Vec<(&String, &Vec<String>)> =
            self.rules.iter().filter(|(name, rules)| found.rules.get(*name) != Some(rules)).collect();
        for name in changed.iter().map(|(name, _)| *name).chain(stale.iter().copied()) {
            text += &format!(":{name} - [0:0]\n");
        }
        for (hook, places) in found.jumps.iter().filter(|(hook, places)| self.jumps.get(*hook) != Some(places)) {
            text += &format!("-D {hook} -j {CHAIN}\n").repeat(places.len());
        }
        for (name, rules) in changed {
            for rule in rules {
                text += &format!("-A {name} {rule}\n");
            }
        }
        for (hook, _) in self.jumps.iter().filter(|(hook, places)| found.jumps.get(*hook) != Some(places)) {
            text += &format!("-I {hook} 1 -j {CHAIN}\n");
        }
        for name in stale {
            text += &format!("-X {name}\n");
        }
        text + "COMMIT\n"
    }

    /// What it means for the network that these are wanted and `found` are there.
    pub fn meanings(&self, found: &Self, place: IptablesTable) -> Vec<String> {
        let program = place.program("");
        if self.rules.is_empty() {
            return vec![format!(
                "{program} filters with {CHAIN} in its table {}, although nothing needs it",
                place.table.name()
            )];
        }
        if found.rules.is_empty() {
            return vec![format!(
                "{program} has no {CHAIN} in its table {}: routed traffic is not filtered there",
                place.table.name()
            )];
        }
        let mut meanings = Vec::new();
        for hook in self.jumps.keys() {
            let why = match found.jumps.get(hook).map(Vec::as_slice) {
                Some([1]) => continue,
                Some([1, ..]) => format!("asks {CHAIN} more than once"),
                Some([place, ..]) => {
                    format!("asks {CHAIN} in place {place}: what the rules before it accept is not filtered")
                }
                Some([]) | None => format!("does not ask {CHAIN}: routed traffic is not filtered"),
            };
            meanings.push(format!("{hook} of {program} {why}"));
        }
        let strangers = found.jumps.keys().filter(|hook| !self.jumps.contains_key(*hook));
        meanings.extend(strangers.map(|hook| format!("{hook} of {program} asks {CHAIN}, which does not belong there")));
        let names: BTreeSet<&String> = self.rules.keys().chain(found.rules.keys()).collect();
        for name in names {
            let none = Vec::new();
            let rules = |chains: &'_ Self| -> Vec<String> { chains.rules.get(name).unwrap_or(&none).clone() };
            let (wanted, there) = (rules(self), rules(found));
            let count = meanings.len();
            if !self.rules.contains_key(name) {
                meanings.push(format!("{program} has a chain of our name that is not ours: {name}"));
            }
            let missing = wanted.iter().filter(|rule| !there.contains(rule));
            meanings.extend(missing.map(|rule| format!("{program} lacks a rule of ours: {name} {rule}")));
            let foreign = there.iter().filter(|rule| !wanted.contains(rule));
            meanings.extend(
                foreign.map(|rule| format!("{program} has a rule in our chain that is not ours: {name} {rule}")),
            );
            if meanings.len() == count && wanted != there {
                meanings.push(format!("{program} has the rules of {name} in another order"));
            }
        }
        meanings
    }

    /// Whether all of it is in `other`, and asked first.
    pub fn is_part_of(&self, other: &Self) -> bool {
        let has = |(name, rules): (&String, &Vec<String>)| {
            other.rules.get(name).is_some_and(|there| rules.iter().all(|rule| there.contains(rule)))
        };
        self.jumps == other.jumps && self.rules.iter().all(has)
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.jumps.is_empty()
    }
}

fn is_ours(chain: &str) -> bool {
    chain.strip_prefix(CHAIN).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// A set of `ipset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpSet {
    /// Address and MAC of guests.
    From,
    /// Addresses of guests that run here.
    Here,
    /// Addresses of routed pools.
    Pool,
}

/// A set and its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpSetName {
    /// What is in it.
    pub set: IpSet,
    /// Address family.
    pub family: Family,
}

impl IpSetName {
    /// All there are.
    pub fn all() -> impl Iterator<Item = Self> {
        let sets = [IpSet::From, IpSet::Here, IpSet::Pool];
        sets.into_iter().flat_map(|set| Family::BOTH.map(|family| Self { set, family }))
    }

    /// What has to follow `create`, but for the name.
    pub fn kind(self) -> String {
        let kind = if self.set == IpSet::From { "hash:ip,mac" } else { "hash:net" };
        format!("{kind} family {} maxelem 1048576", if self.family == Family::V6 { "inet6" } else { "inet" })
    }

    fn matching(self, directions: &str) -> String {
        format!("-m set --match-set {self} {directions}")
    }
}

impl fmt::Display for IpSetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = match self.set {
            IpSet::From => "from",
            IpSet::Here => "here",
            IpSet::Pool => "pool",
        };
        write!(f, "pve-public-ip-{set}{}", self.family.number())
    }
}

/// A prefix with more addresses is one rule instead of so many members of a set.
const EXPANDED: u8 = 8;

impl Routed {
    /// As chains of one iptables, and as sets if there are any.
    pub fn chains(
        &self,
        variant: Variant,
        ipset: bool,
        ipv6: bool,
    ) -> (BTreeMap<IptablesTable, Chains>, BTreeMap<IpSetName, BTreeSet<String>>) {
        let mut sets = BTreeMap::new();
        let mut chains = BTreeMap::new();
        for family in [Some(Family::V4), ipv6.then_some(Family::V6)].into_iter().flatten() {
            if ipset {
                sets.extend(self.sets(family));
            }
            for (table, rules) in
                [(ChainTable::Filter, self.filter(family, ipset)), (ChainTable::Raw, self.raw(family, ipset))]
            {
                let jumps = table.hooks().iter().map(|hook| ((*hook).to_owned(), vec![1])).collect();
                let rules = rules.into_iter().map(|(name, rules)| (name.to_owned(), rules)).collect();
                chains.insert(IptablesTable { variant, family, table }, Chains { rules, jumps });
            }
        }
        (chains, sets)
    }

    fn sets(&self, family: Family) -> [(IpSetName, BTreeSet<String>); 3] {
        let name = |set| IpSetName { set, family };
        let nets = |nets: &BTreeSet<IpNet>| nets.iter().filter(|net| is_family(net, family)).map(short).collect();
        let from = self.from.iter().filter(|(net, _)| is_family(net, family) && is_expanded(net));
        let from = from.flat_map(|(net, mac)| {
            let (first, last) = (net.network(), net.broadcast());
            addresses(first, last).map(move |address| format!("{address},{mac}"))
        });
        [
            (name(IpSet::From), from.collect()),
            (name(IpSet::Here), nets(&self.here)),
            (name(IpSet::Pool), nets(&self.pools)),
        ]
    }

    /// One rule for each net, or one for their set.
    fn each(
        family: Family,
        ipset: bool,
        set: IpSet,
        nets: &BTreeSet<IpNet>,
        direction: &str,
        verdict: &str,
    ) -> Vec<String> {
        if ipset {
            return vec![format!("{} -j {verdict}", IpSetName { set, family }.matching(direction))];
        }
        let option = if direction == "src" { "-s" } else { "-d" };
        nets.iter().filter(|net| is_family(net, family)).map(|net| format!("{option} {net} -j {verdict}")).collect()
    }

    fn filter(&self, family: Family, ipset: bool) -> BTreeMap<&'static str, Vec<String>> {
        let each = |set, nets, direction, verdict| Self::each(family, ipset, set, nets, direction, verdict);
        let mut first = Vec::new();
        for (device, mac) in self.kept6.iter().filter(|_| family == Family::V6) {
            // The same chain stands before the node's own input, which is to go on.
            first.push(match mac {
                Some(mac) => format!("-i {device} {} -m addrtype ! --dst-type LOCAL -j DROP", to_mac(*mac)),
                None => format!("! -d ff00::/8 -i {device} -m addrtype ! --dst-type LOCAL -j DROP"),
            });
        }
        for (device, mac) in &self.loops {
            first.push(format!("-i {device} -o {device} {} -j {LOOP}", to_mac(*mac)));
        }
        first.extend(self.routed_bridges.keys().map(|bridge| format!("-i {bridge} -g {GUEST}")));
        first.extend(self.shared_bridges.iter().map(|bridge| format!("-i {bridge} -g {SHARED}")));
        first.extend(self.guest_bridges.iter().map(|bridge| format!("-i {bridge} -g {POOL}")));
        first.extend(self.lan_bridges.iter().map(|bridge| format!("-i {bridge} -j RETURN")));
        // Bridged only, and seen again behind the NIC firewall.
        first.push("-i fwbr+ -j RETURN".to_owned());
        first.push(format!("-j {OTHER}"));

        let mut own = Vec::new();
        if ipset {
            own.push(format!("{} -j RETURN", IpSetName { set: IpSet::From, family }.matching("src,src")));
        }
        let alone = self.from.iter().filter(|(net, _)| is_family(net, family) && !(ipset && is_expanded(net)));
        own.extend(alone.map(|(net, mac)| format!("-s {net} -m mac --mac-source {mac} -j RETURN")));
        let guest = own.iter().cloned().chain([format!("-g {POOL}")]).collect();
        let shared = own.into_iter().chain([format!("-g {OTHER}")]).collect();
        let mut round = each(IpSet::Here, &self.here, "dst", "RETURN");
        round.extend(each(IpSet::Pool, &self.pools, "dst", "DROP"));
        BTreeMap::from([
            (CHAIN, first),
            (GUEST, guest),
            (SHARED, shared),
            (POOL, each(IpSet::Pool, &self.pools, "src", "DROP")),
            (OTHER, each(IpSet::Here, &self.here, "src", "DROP")),
            (LOOP, round),
        ])
    }

    /// Sources that the filter table judges, and those that need no way back, are let through here.
    fn raw(&self, family: Family, ipset: bool) -> BTreeMap<&'static str, Vec<String>> {
        let asked = self.routed_bridges.iter().filter_map(|(bridge, mac)| Some((bridge, (*mac)?)));
        let first = asked
            .flat_map(|(bridge, mac)| {
                let frames = [to_mac(mac), to_group("broadcast"), to_group("multicast")];
                frames.map(|frames| format!("-i {bridge} {frames} -g {RETURN_PATH}"))
            })
            .collect();
        let exempt: &[&str] = if family == Family::V6 { &["::/128", "fe80::/10"] } else { &["0.0.0.0/32"] };
        let mut back: Vec<String> = exempt.iter().map(|net| format!("-s {net} -j RETURN")).collect();
        back.extend(Self::each(family, ipset, IpSet::Pool, &self.pools, "src", "RETURN"));
        back.push("-m rpfilter --invert -j DROP".to_owned());
        BTreeMap::from([(CHAIN, first), (RETURN_PATH, back)])
    }
}

fn is_family(net: &IpNet, family: Family) -> bool {
    Family::of_net(*net) == family
}

/// Whether its addresses are members of a set, one by one.
fn is_expanded(net: &IpNet) -> bool {
    net.max_prefix_len() - net.prefix_len() <= EXPANDED
}

/// As `ipset` writes a net: a single address without its length.
fn short(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

fn addresses(first: std::net::IpAddr, last: std::net::IpAddr) -> impl Iterator<Item = std::net::IpAddr> {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    let range = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => u32::from(first).into()..=u32::from(last).into(),
        (first, last) => bits(first)..=bits(last),
    };
    range.map(move |bits| match (first, u32::try_from(bits)) {
        (IpAddr::V4(_), Ok(bits)) => Ipv4Addr::from(bits).into(),
        _ => Ipv6Addr::from(bits).into(),
    })
}

fn bits(address: std::net::IpAddr) -> u128 {
    match address {
        std::net::IpAddr::V4(address) => u32::from(address).into(),
        std::net::IpAddr::V6(address) => address.into(),
    }
}

/// Matches frames to this MAC: what is addressed to the node itself. Frames to others are bridged, and are seen here only
/// with `br_netfilter`. There is no match for it but a program for the packet filter of sockets (classic BPF), which reads
/// in front of the packet at `SKF_LL_OFF`. `physdev` would do in part, but to use it loads `br_netfilter` where it was not.
///
/// Source: Linux `include/uapi/linux/filter.h`; load a word, compare, load a half word, compare, yes, no.
fn to_mac(mac: MacAddr) -> String {
    const LINK_LAYER: u32 = 0xffe0_0000;
    let (high, low) = mac.octets().into_iter().enumerate().fold((0, 0), |(high, low), (at, octet)| {
        let octet = u32::from(octet);
        if at < 4 { (high << 8 | octet, low) } else { (high, low << 8 | octet) }
    });
    let rest = LINK_LAYER + 4;
    format!("-m bpf --bytecode \"6,32 0 0 {LINK_LAYER},21 0 3 {high},40 0 0 {rest},21 0 1 {low},6 0 0 65535,6 0 0 0\"")
}

/// Matches frames to everybody, or to a group.
fn to_group(kind: &str) -> String {
    format!("-m pkttype --pkt-type {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed() -> Routed {
        let (own, far) = ("02:00:00:00:00:64".parse().unwrap(), "02:00:00:00:e0:01".parse().unwrap());
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        Routed {
            routed_bridges: BTreeMap::from([("vmbr1".parse().unwrap(), Some("02:00:00:00:b1:00".parse().unwrap()))]),
            shared_bridges: BTreeSet::from(["vmbr0".parse().unwrap()]),
            guest_bridges: BTreeSet::from(["vmbr2".parse().unwrap()]),
            lan_bridges: BTreeSet::from(["vmbr3".parse().unwrap()]),
            kept6: BTreeMap::from([
                ("eno3".parse().unwrap(), None),
                ("vmbr2".parse().unwrap(), Some("02:00:00:00:b2:00".parse().unwrap())),
            ]),
            loops: BTreeMap::from([("eno1".parse().unwrap(), far)]),
            pools: BTreeSet::from([net("203.0.113.8/29"), net("198.51.0.0/16"), net("2001:db8:1::/64")]),
            from: BTreeSet::from([
                (net("203.0.113.10/32"), own),
                (net("203.0.113.12/31"), own),
                (net("198.51.0.0/23"), own),
                (net("2001:db8:1::10/128"), own),
            ]),
            here: BTreeSet::from([net("203.0.113.10/32"), net("198.51.0.0/23")]),
        }
    }

    /// The rules of one table as `iptables-restore` is told them.
    fn shown(ipset: bool, family: Family, table: ChainTable) -> Vec<String> {
        let (chains, _) = routed().chains(Variant::Legacy, ipset, true);
        let script =
            chains[&IptablesTable { variant: Variant::Legacy, family, table }].script(&Chains::default(), table);
        script.lines().filter(|line| line.starts_with('-')).map(str::to_owned).collect()
    }

    #[test]
    fn with_sets_the_number_of_rules_does_not_grow() {
        assert_eq!(
            shown(true, Family::V4, ChainTable::Filter),
            [
                "-A PVE-PUBLIC-IP -i eno1 -o eno1 -m bpf --bytecode \"6,32 0 0 4292870144,21 0 3 33554432,40 0 0 \
                 4292870148,21 0 1 57345,6 0 0 65535,6 0 0 0\" -j PVE-PUBLIC-IP-LOOP",
                "-A PVE-PUBLIC-IP -i vmbr1 -g PVE-PUBLIC-IP-GUEST",
                "-A PVE-PUBLIC-IP -i vmbr0 -g PVE-PUBLIC-IP-SHARED",
                "-A PVE-PUBLIC-IP -i vmbr2 -g PVE-PUBLIC-IP-POOL",
                "-A PVE-PUBLIC-IP -i vmbr3 -j RETURN",
                "-A PVE-PUBLIC-IP -i fwbr+ -j RETURN",
                "-A PVE-PUBLIC-IP -j PVE-PUBLIC-IP-OTHER",
                "-A PVE-PUBLIC-IP-GUEST -m set --match-set pve-public-ip-from4 src,src -j RETURN",
                "-A PVE-PUBLIC-IP-GUEST -s 198.51.0.0/23 -m mac --mac-source 02:00:00:00:00:64 -j RETURN",
                "-A PVE-PUBLIC-IP-GUEST -g PVE-PUBLIC-IP-POOL",
                "-A PVE-PUBLIC-IP-LOOP -m set --match-set pve-public-ip-here4 dst -j RETURN",
                "-A PVE-PUBLIC-IP-LOOP -m set --match-set pve-public-ip-pool4 dst -j DROP",
                "-A PVE-PUBLIC-IP-OTHER -m set --match-set pve-public-ip-here4 src -j DROP",
                "-A PVE-PUBLIC-IP-POOL -m set --match-set pve-public-ip-pool4 src -j DROP",
                "-A PVE-PUBLIC-IP-SHARED -m set --match-set pve-public-ip-from4 src,src -j RETURN",
                "-A PVE-PUBLIC-IP-SHARED -s 198.51.0.0/23 -m mac --mac-source 02:00:00:00:00:64 -j RETURN",
                "-A PVE-PUBLIC-IP-SHARED -g PVE-PUBLIC-IP-OTHER",
                "-I FORWARD 1 -j PVE-PUBLIC-IP",
                "-I INPUT 1 -j PVE-PUBLIC-IP",
            ]
        );
        let (_, sets) = routed().chains(Variant::Legacy, true, true);
        let members = |name: &str| -> Vec<String> {
            let (_, members) = sets.iter().find(|(set, _)| set.to_string() == name).unwrap();
            members.iter().cloned().collect()
        };
        let own = ["203.0.113.10", "203.0.113.12", "203.0.113.13"].map(|ip| format!("{ip},02:00:00:00:00:64"));
        assert_eq!(members("pve-public-ip-from4"), own);
        assert_eq!(members("pve-public-ip-here4"), ["198.51.0.0/23", "203.0.113.10"]);
        assert_eq!(members("pve-public-ip-pool6"), ["2001:db8:1::/64"]);
    }

    #[test]
    fn without_sets_each_address_is_a_rule() {
        assert_eq!(
            shown(false, Family::V6, ChainTable::Filter)[9..13],
            [
                "-A PVE-PUBLIC-IP-GUEST -s 2001:db8:1::10/128 -m mac --mac-source 02:00:00:00:00:64 -j RETURN",
                "-A PVE-PUBLIC-IP-GUEST -g PVE-PUBLIC-IP-POOL",
                "-A PVE-PUBLIC-IP-LOOP -d 2001:db8:1::/64 -j DROP",
                "-A PVE-PUBLIC-IP-POOL -s 2001:db8:1::/64 -j DROP",
            ]
        );
        assert_eq!(
            shown(false, Family::V6, ChainTable::Filter)[0],
            "-A PVE-PUBLIC-IP ! -d ff00::/8 -i eno3 -m addrtype ! --dst-type LOCAL -j DROP"
        );
        assert_eq!(
            shown(false, Family::V6, ChainTable::Filter)[1],
            "-A PVE-PUBLIC-IP -i vmbr2 -m bpf --bytecode \"6,32 0 0 4292870144,21 0 3 33554432,40 0 0 4292870148,21 0 1 \
             45568,6 0 0 65535,6 0 0 0\" -m addrtype ! --dst-type LOCAL -j DROP"
        );
        let raw = shown(false, Family::V6, ChainTable::Raw);
        assert_eq!(
            raw[1..],
            [
                "-A PVE-PUBLIC-IP -i vmbr1 -m pkttype --pkt-type broadcast -g PVE-PUBLIC-IP-BACK",
                "-A PVE-PUBLIC-IP -i vmbr1 -m pkttype --pkt-type multicast -g PVE-PUBLIC-IP-BACK",
                "-A PVE-PUBLIC-IP-BACK -s ::/128 -j RETURN",
                "-A PVE-PUBLIC-IP-BACK -s fe80::/10 -j RETURN",
                "-A PVE-PUBLIC-IP-BACK -s 2001:db8:1::/64 -j RETURN",
                "-A PVE-PUBLIC-IP-BACK -m rpfilter --invert -j DROP",
                "-I PREROUTING 1 -j PVE-PUBLIC-IP",
            ]
        );
    }

    #[test]
    fn only_what_differs_is_written_and_nothing_of_others() {
        let place = IptablesTable { variant: Variant::Nft, family: Family::V4, table: ChainTable::Filter };
        let wanted = routed().chains(Variant::Nft, false, true).0.remove(&place).unwrap();
        assert_eq!(wanted.script(&wanted, place.table), "*filter\nCOMMIT\n");
        let rules: String = wanted
            .rules
            .iter()
            .flat_map(|(name, rules)| rules.iter().map(move |rule| format!("-A {name} {rule}\n")))
            .collect();
        let found = Chains::parse(&format!(
            ":INPUT ACCEPT [0:0]\n:PVE-PUBLIC-IP-OLD - [0:0]\n:PVE-PUBLIC-IPX - [0:0]\n-A INPUT -j PVE-PUBLIC-IP\n\
             -A FORWARD -j DOCKER\n-A FORWARD -j PVE-PUBLIC-IP\n-A FORWARD -j PVE-PUBLIC-IP\n{rules}-A PVE-PUBLIC-IP-LOOP -j ACCEPT\n"
        ));
        let script = wanted.script(&found, place.table);
        let expected = "*filter\n:PVE-PUBLIC-IP-LOOP - [0:0]\n:PVE-PUBLIC-IP-OLD - [0:0]\n-D FORWARD -j PVE-PUBLIC-IP\n\
            -D FORWARD -j PVE-PUBLIC-IP\n-A PVE-PUBLIC-IP-LOOP -d 198.51.0.0/23 -j RETURN\n\
            -A PVE-PUBLIC-IP-LOOP -d 203.0.113.10/32 -j RETURN\n-A PVE-PUBLIC-IP-LOOP -d 198.51.0.0/16 -j DROP\n\
            -A PVE-PUBLIC-IP-LOOP -d 203.0.113.8/29 -j DROP\n-I FORWARD 1 -j PVE-PUBLIC-IP\n-X PVE-PUBLIC-IP-OLD\nCOMMIT\n";
        assert_eq!(script, expected);
        assert_eq!(
            wanted.meanings(&found, place),
            [
                "FORWARD of iptables-nft asks PVE-PUBLIC-IP in place 2: what the rules before it accept is not filtered",
                "iptables-nft has a rule in our chain that is not ours: PVE-PUBLIC-IP-LOOP -j ACCEPT",
                "iptables-nft has a chain of our name that is not ours: PVE-PUBLIC-IP-OLD",
            ]
        );
        assert_eq!(
            Chains::default()
                .script(&wanted, place.table)
                .lines()
                .filter(|line| line.starts_with('-'))
                .collect::<Vec<_>>()[..3],
            ["-D FORWARD -j PVE-PUBLIC-IP", "-D INPUT -j PVE-PUBLIC-IP", "-X PVE-PUBLIC-IP"]
        );
    }

    #[test]
    fn a_rule_is_never_an_accept() {
        for (ipset, family) in [true, false].into_iter().flat_map(|ipset| Family::BOTH.map(|family| (ipset, family))) {
            for table in [ChainTable::Filter, ChainTable::Raw] {
                let rules = shown(ipset, family, table);
                assert!(rules.iter().all(|rule| !rule.contains("ACCEPT")), "{rules:?}");
            }
        }
    }
}
