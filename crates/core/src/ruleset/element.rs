//! Elements of the sets: what a binding, a pool or a gateway means in the kernel's tables.
//!
//! An element is the name of a set and the exact bytes of its key, as nftables has them: each field of a concatenation
//! is padded to four bytes (Linux `include/net/netfilter/nf_tables.h`, `NFT_REG32_SIZE`). So what is wanted and what
//! the kernel shows compare byte by byte, and only the display needs to know what the bytes mean.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use ipnet::IpNet;

use super::Table;
use crate::model::{IfName, MacAddr};

/// One field of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    /// Interface name, 16 bytes.
    Port,
    /// MAC address, 6 bytes in 8.
    Mac,
    /// IPv4 address.
    Ip4,
    /// IPv6 address.
    Ip6,
    /// 16 bytes of an ND message: its target. The same data as [`Field::Ip6`], but of another nftables type.
    Target,
    /// 8 bytes of an ND message: the first half of its target.
    HalfTarget,
    /// The first 32 bits of an IPv6 address.
    Quarter,
    /// An IPv4 address at a place of the frame where nftables expects none. The same data as [`Field::Ip4`].
    Number4,
    /// VLAN id, as in the tag.
    Vlan,
}

impl Field {
    /// Bytes of the value.
    const fn size(self) -> usize {
        match self {
            Self::Port | Self::Ip6 | Self::Target => 16,
            Self::HalfTarget => 8,
            Self::Mac => 6,
            Self::Ip4 | Self::Number4 | Self::Quarter => 4,
            Self::Vlan => 2,
        }
    }

    /// Bytes that it takes in a concatenation: whole 32-bit registers.
    const fn padded(self) -> usize {
        self.size().next_multiple_of(4)
    }
}

/// How a set stores its keys, which decides how an interval looks on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// Single keys in a hash table.
    Hash,
    /// Ranges of one field: two elements, start and the one after the end.
    Tree,
    /// Ranges of a concatenation: one element with both ends.
    Pipapo,
}

/// Declares the sets once, by table: variant, name in the kernel, fields, storage.
macro_rules! sets {
    ($($table:ident { $($variant:ident $name:literal [$($field:ident)+] $storage:ident;)+ })+) => {
        /// A set; the text that declares it says what it is for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "documented where an administrator reads them, in the text that declares them")]
        pub enum SetId { $($($variant),+),+ }

        impl SetId {
    /// What it means for the network if the kernel lacks an element of it, and if it has one without reason.
    #[expect(clippy::too_many_lines, reason = "a line for each set")]
    fn meaning(self) -> (&'static str, &'static str) {
        match self {
            Self::Ports => ("the port is not filtered as a bound one", "the port is filtered without need"),
            Self::PortMac | Self::PortIp4 | Self::PortIp6 | Self::PortIp664 | Self::PortNet4 | Self::PortNet6 => {
                ("the guest cannot send with it", "the port may send with it, although it is not its own")
            }
            Self::PortNd | Self::PortNd64 | Self::PortNdNet | Self::PortLladdr => (
                "the guest cannot announce it to its neighbours",
                "the port may announce it, although it is not its own",
            ),
            Self::PortNoDhcp => ("the guest's DHCP client gets through", "the guest's DHCP client is stopped"),
            Self::PortAnyLl => {
                ("the guest cannot choose its link-local address", "the port may use any link-local address")
            }
            Self::PortStrict => (
                "the guest gets frames that are addressed to others",
                "the guest does not get frames that are addressed to others",
            ),
            Self::PortNoRa => (
                "the guest gets router advertisements, and may make itself an address that is dropped",
                "the guest gets no router advertisements",
            ),
            Self::InnerPorts | Self::InnerIp4 | Self::InnerIp6 => (
                "what the guest has besides the addresses of pools leaves by the uplink",
                "what the guest sends with it does not leave by the uplink",
            ),
            Self::PortTrunk => ("the guest cannot send in this VLAN", "the port may send in this VLAN"),
            Self::BoundMac | Self::BoundLladdr => {
                ("the uplink can use this MAC", "the uplink cannot use this MAC, although no guest here has it")
            }
            Self::BoundIp4
            | Self::BoundIp6
            | Self::BoundIp664
            | Self::BoundNet4
            | Self::BoundNet6
            | Self::BoundNumber4
            | Self::BoundNumberNet4 => {
                ("the uplink can use it against the guest", "nobody can use it, although no guest here runs with it")
            }
            Self::BoundNd | Self::BoundNd64 | Self::BoundNdNet => (
                "the uplink can claim it by neighbour discovery",
                "nobody can claim it, although no guest here runs with it",
            ),
            Self::ReservedMac | Self::ReservedLladdr => {
                ("any guest on the node can use this MAC", "no guest can use this MAC, although nobody owns it")
            }
            Self::ReservedIp4
            | Self::ReservedIp6
            | Self::ReservedIp424
            | Self::ReservedIp632
            | Self::ReservedNumber4 => {
                ("any guest on the node can use it", "no guest can use it, although no pool has it")
            }
            Self::ReservedNd => (
                "any guest on the node can claim it by neighbour discovery",
                "no guest can claim it, although no pool has it",
            ),
            Self::InfraMac | Self::InfraIp4 | Self::InfraIp6 | Self::InfraNd => {
                ("any guest can pose as the gateway or the node", "no guest can use it, although it is no gateway's")
            }
            Self::BroadcastIp4 => (
                "guests with addresses do not get what is sent to everybody of this subnet",
                "guests get what is sent to it by a frame to everybody",
            ),
            Self::Uplinks => ("the port is filtered like a guest's", "the port is trusted like an uplink"),
            Self::UplinkMac => ("frames of the gateway are looked at more closely", "the uplink may use this MAC"),
            Self::HairpinMac => (
                "guests cannot reach each other by way of the gateway",
                "packets with guests' addresses may come back from this MAC",
            ),
            Self::RegisteredMac => (
                "frames of this MAC do not leave by a guarded uplink",
                "frames of this MAC leave by a guarded uplink, although no pool says that the provider knows it",
            ),
            Self::UplinkRegistered => {
                ("frames of this MAC are looked at more closely", "frames of this MAC leave by the uplink unasked")
            }
            Self::GuardEnforce => (
                "frames with MACs that the provider does not know leave by this uplink",
                "only frames with registered MACs leave by this uplink, although no pool asks for it",
            ),
            Self::GuardReport => (
                "frames with MACs that the provider does not know are not counted on this uplink",
                "frames with MACs that no pool has are counted on this uplink without need",
            ),
            Self::FreePorts => ("the port is filtered, although no pool is on its bridge", "the port is not filtered"),
            Self::Elsewhere => (
                "the guest cannot use addresses of the node's other networks, or be a router or DHCP server, on its own",
                "the port may use addresses of gateways and of the node",
            ),
            Self::ElsewhereMac
            | Self::ElsewhereLladdr
            | Self::ElsewhereIp4
            | Self::ElsewhereNumber4
            | Self::ElsewhereIp6
            | Self::ElsewhereNd => (
                "guests on bridges without a pool cannot use it",
                "guests on bridges without a pool can use it, although it is protected there",
            ),
            Self::OtherVlans => (
                "the uplink guard keeps back what the port sends in this VLAN, which is no pool's",
                "the uplink guard lets out whatever the port sends in this VLAN",
            ),
            Self::Spanning => (
                "the guest can become the root of the spanning tree",
                "the guest cannot take part in a spanning tree, although its bridge does not",
            ),
            Self::RouterPorts => (
                "the guest cannot be a router or DHCP server",
                "the port may send router advertisements and DHCP answers",
            ),
            Self::WatchedMac | Self::WatchedLladdr | Self::WatchedIp4 | Self::WatchedNumber4 | Self::WatchedIp6
            | Self::WatchedNd => (
                "it is protected, although its pool is only watched",
                "who uses it without right is counted, and not stopped",
            ),
            Self::WatchedBound | Self::WatchedPorts => (
                "the port is filtered, although its pools are only watched",
                "what the port does against the rules is counted, and not stopped",
            ),
            Self::WatchAll => (
                "frames are dropped, although all pools are only watched",
                "what is against the rules is counted, and not stopped",
            ),
            _ => self.routed_meaning(),
        }
    }

    /// The same for the sets of routed traffic.
    fn routed_meaning(self) -> (&'static str, &'static str) {
        match self {
            Self::RoutedBridges | Self::SharedBridges | Self::GuestBridges | Self::LanBridges => (
                "what comes from this bridge is taken for what comes from outside",
                "what comes from this bridge is taken for what comes from guests",
            ),
            Self::BridgeMac => (
                "from this bridge guests can send to the world with addresses that are nobody's",
                "a return path is asked of frames to this MAC",
            ),
            Self::Kept6 | Self::Kept6Links => (
                "what comes in here is sent on by IPv6 through the node, because of a pool's guests alone",
                "the node forwards no IPv6 that comes in here",
            ),
            Self::Loops => (
                "packets to addresses that nobody has go back to where they came from, and around",
                "packets to addresses of a pool do not leave by it when they came in there",
            ),
            Self::FromIp4 | Self::FromNet4 | Self::FromIp6 | Self::FromIp664 | Self::FromNet6 => {
                ("the node does not route what the guest sends with it", "the node routes it, although no guest has it")
            }
            Self::HereIp4 | Self::HereNet4 | Self::HereIp6 | Self::HereIp664 | Self::HereNet6 => {
                ("it can come in from outside, too", "it cannot come in from outside, although no guest here has it")
            }
            Self::PoolIp4 | Self::PoolIp6 => {
                ("the node routes it for any guest", "the node routes it for no guest, although no routed pool has it")
            }
            _ => ("it is not filtered as it should be", "it is filtered without need"),
        }
    }

            /// Every set that this program fills.
            pub const ALL: &[Self] = &[$($(Self::$variant),+),+];

            /// The table that it is in.
            pub fn table(self) -> Table {
                match self { $($(Self::$variant)|+ => Table::$table),+ }
            }

            /// Its name in the kernel; no other table has one of that name.
            pub fn name(self) -> &'static str {
                match self { $($(Self::$variant => $name),+),+ }
            }

            fn fields(self) -> &'static [Field] {
                match self { $($(Self::$variant => &[$(Field::$field),+]),+),+ }
            }

            /// How it stores its keys.
            pub fn storage(self) -> Storage {
                match self { $($(Self::$variant => Storage::$storage),+),+ }
            }
        }
    };
}

sets! { Bridge {
    Ports "ports" [Port] Hash;
    PortMac "port_mac" [Port Mac] Hash;
    PortLladdr "port_lladdr" [Port Mac] Hash;
    PortIp4 "port_ip4" [Port Mac Ip4] Hash;
    PortIp6 "port_ip6" [Port Mac Ip6] Hash;
    PortNd "port_nd" [Port Mac Target] Hash;
    PortIp664 "port_ip6_64" [Port Mac Ip6] Hash;
    PortNd64 "port_nd_64" [Port Mac HalfTarget] Hash;
    PortNet4 "port_net4" [Port Mac Ip4] Pipapo;
    PortNet6 "port_net6" [Port Mac Ip6] Pipapo;
    PortNdNet "port_nd_net" [Port Mac Target] Pipapo;
    PortNoDhcp "port_no_dhcp" [Port] Hash;
    PortAnyLl "port_any_ll" [Port Mac] Hash;
    PortStrict "port_strict" [Port] Hash;
    PortNoRa "port_no_ra" [Port] Hash;
    PortTrunk "port_trunk" [Port Vlan] Hash;
    InnerPorts "inner_ports" [Port] Hash;
    InnerIp4 "inner_ip4" [Port Ip4] Pipapo;
    InnerIp6 "inner_ip6" [Port Ip6] Pipapo;
    BoundMac "bound_mac" [Mac] Hash;
    BoundLladdr "bound_lladdr" [Mac] Hash;
    BoundIp4 "bound_ip4" [Ip4] Hash;
    BoundNumber4 "bound_number4" [Number4] Hash;
    BoundIp6 "bound_ip6" [Ip6] Hash;
    BoundNd "bound_nd" [Target] Hash;
    BoundIp664 "bound_ip6_64" [Ip6] Hash;
    BoundNd64 "bound_nd_64" [HalfTarget] Hash;
    BoundNet4 "bound_net4" [Ip4] Tree;
    BoundNumberNet4 "bound_number_net4" [Number4] Tree;
    BoundNet6 "bound_net6" [Ip6] Tree;
    BoundNdNet "bound_nd_net" [Target] Tree;
    ReservedMac "reserved_mac" [Mac] Hash;
    ReservedLladdr "reserved_lladdr" [Mac] Hash;
    ReservedIp424 "reserved_ip4_24" [Ip4] Hash;
    ReservedIp4 "reserved_ip4" [Ip4] Tree;
    ReservedNumber4 "reserved_number4" [Number4] Tree;
    ReservedIp632 "reserved_ip6_32" [Quarter] Hash;
    ReservedIp6 "reserved_ip6" [Ip6] Tree;
    ReservedNd "reserved_nd" [Target] Tree;
    InfraMac "infra_mac" [Mac] Hash;
    InfraIp4 "infra_ip4" [Ip4] Hash;
    InfraIp6 "infra_ip6" [Ip6] Hash;
    InfraNd "infra_nd" [Target] Hash;
    BroadcastIp4 "broadcast_ip4" [Ip4] Hash;
    Uplinks "uplinks" [Port] Tree;
    UplinkMac "uplink_mac" [Port Mac] Hash;
    HairpinMac "hairpin_mac" [Port Mac] Hash;
    RegisteredMac "registered_mac" [Mac] Hash;
    UplinkRegistered "uplink_registered" [Port Mac] Hash;
    GuardEnforce "guard_enforce" [Port] Hash;
    GuardReport "guard_report" [Port] Hash;
    FreePorts "free_ports" [Port] Hash;
    Elsewhere "elsewhere" [Port] Hash;
    ElsewhereMac "elsewhere_mac" [Mac] Hash;
    ElsewhereLladdr "elsewhere_lladdr" [Mac] Hash;
    ElsewhereIp4 "elsewhere_ip4" [Ip4] Hash;
    ElsewhereNumber4 "elsewhere_number4" [Number4] Hash;
    ElsewhereIp6 "elsewhere_ip6" [Ip6] Hash;
    ElsewhereNd "elsewhere_nd" [Target] Hash;
    OtherVlans "other_vlans" [Port Vlan] Hash;
    RouterPorts "router_ports" [Port] Hash;
    Spanning "spanning" [Port] Hash;
    WatchedMac "watched_mac" [Mac] Hash;
    WatchedLladdr "watched_lladdr" [Mac] Hash;
    WatchedIp4 "watched_ip4" [Ip4] Tree;
    WatchedNumber4 "watched_number4" [Number4] Tree;
    WatchedIp6 "watched_ip6" [Ip6] Tree;
    WatchedNd "watched_nd" [Target] Tree;
    WatchedBound "watched_bound" [Port] Hash;
    WatchedPorts "watched_ports" [Port] Hash;
    WatchAll "watch_all" [Mac] Hash;
} Inet {
    RoutedBridges "routed_bridges" [Port] Hash;
    SharedBridges "shared_bridges" [Port] Hash;
    GuestBridges "guest_bridges" [Port] Hash;
    LanBridges "lan_bridges" [Port] Hash;
    BridgeMac "bridge_mac" [Port Mac] Hash;
    Kept6 "kept6" [Port Mac] Hash;
    Kept6Links "kept6_links" [Port] Hash;
    Loops "loops" [Port Port Mac] Hash;
    FromIp4 "from_ip4" [Mac Ip4] Hash;
    FromNet4 "from_net4" [Mac Ip4] Pipapo;
    FromIp6 "from_ip6" [Mac Ip6] Hash;
    FromIp664 "from_ip6_64" [Mac Ip6] Hash;
    FromNet6 "from_net6" [Mac Ip6] Pipapo;
    HereIp4 "here_ip4" [Ip4] Hash;
    HereNet4 "here_net4" [Ip4] Tree;
    HereIp6 "here_ip6" [Ip6] Hash;
    HereIp664 "here_ip6_64" [Ip6] Hash;
    HereNet6 "here_net6" [Ip6] Tree;
    PoolIp4 "pool_ip4" [Ip4] Tree;
    PoolIp6 "pool_ip6" [Ip6] Tree;
} }

impl SetId {
    /// The set of that name, if it is one of ours.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|set| set.name() == name)
    }

    /// How many elements it holds, as the text says that declares it; `None`: as many as there is memory for.
    pub fn capacity(self) -> Option<usize> {
        static CAPACITIES: LazyLock<BTreeMap<SetId, usize>> = LazyLock::new(|| {
            let of = |set: &SetId| Some((*set, declared_size(set.table().sets(), set.name())?));
            SetId::ALL.iter().filter_map(of).collect()
        });
        CAPACITIES.get(&self).copied()
    }

    /// Length of its keys in bytes; a single field is not padded.
    pub fn key_size(self) -> usize {
        match self.fields() {
            [only] => only.size(),
            fields => fields.iter().map(|field| field.padded()).sum(),
        }
    }
}

/// The size in the declaration of a set.
fn declared_size(text: &str, name: &str) -> Option<usize> {
    let (_, rest) = text.split_once(&format!("\n\tset {name} {{"))?;
    let (body, _) = rest.split_once('}')?;
    let mut words = body.split([' ', '\t', '\n', ';']).filter(|word| !word.is_empty());
    words.find(|word| *word == "size").and_then(|_| words.next()?.parse().ok())
}

/// One member of a set: a key, or a range of keys (both ends included).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    set: SetId,
    first: Box<[u8]>,
    last: Option<Box<[u8]>>,
}

/// What the key of an element names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Names {
    /// An interface.
    pub port: Option<IfName>,
    /// A MAC.
    pub mac: Option<MacAddr>,
    /// First and last address.
    pub range: Option<(IpAddr, IpAddr)>,
}

/// Builds a key field by field.
#[derive(Default)]
struct Key(Vec<u8>);

impl Key {
    fn port(mut self, port: IfName) -> Self {
        self.0.extend(port.padded());
        self
    }

    fn mac(mut self, mac: MacAddr) -> Self {
        self.0.extend(mac.octets());
        self.0.extend([0, 0]);
        self
    }

    fn ip(mut self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.0.extend(address.octets()),
            IpAddr::V6(address) => self.0.extend(address.octets()),
        }
        self
    }

    fn half(mut self, address: Ipv6Addr) -> Self {
        self.0.extend(&address.octets()[..8]);
        self
    }
}

/// The sets for addresses of one purpose, by family and length of the prefix.
struct AddressSets {
    ip4: SetId,
    net4: SetId,
    ip6: SetId,
    ip6_64: SetId,
    net6: SetId,
    /// For the target of neighbour discovery, where the rules look at it: the same three once more.
    nd: Option<[SetId; 3]>,
    /// For hidden packets, where the rules look into them: the first two once more.
    number4: Option<[SetId; 2]>,
}

const PORT_SETS: AddressSets = AddressSets {
    ip4: SetId::PortIp4,
    net4: SetId::PortNet4,
    ip6: SetId::PortIp6,
    ip6_64: SetId::PortIp664,
    net6: SetId::PortNet6,
    nd: Some([SetId::PortNd, SetId::PortNd64, SetId::PortNdNet]),
    number4: None,
};

/// Addresses of a bound port as destinations of a frame to everybody or to a group: never a source.
const PORT_GROUP_SETS: AddressSets = AddressSets { nd: None, ..PORT_SETS };

/// The bit that all group MACs have in common.
const GROUP: [u8; 6] = [1, 0, 0, 0, 0, 0];

const BOUND_SETS: AddressSets = AddressSets {
    ip4: SetId::BoundIp4,
    net4: SetId::BoundNet4,
    ip6: SetId::BoundIp6,
    ip6_64: SetId::BoundIp664,
    net6: SetId::BoundNet6,
    nd: Some([SetId::BoundNd, SetId::BoundNd64, SetId::BoundNdNet]),
    number4: Some([SetId::BoundNumber4, SetId::BoundNumberNet4]),
};

const FROM_SETS: AddressSets = AddressSets {
    ip4: SetId::FromIp4,
    net4: SetId::FromNet4,
    ip6: SetId::FromIp6,
    ip6_64: SetId::FromIp664,
    net6: SetId::FromNet6,
    nd: None,
    number4: None,
};

const HERE_SETS: AddressSets = AddressSets {
    ip4: SetId::HereIp4,
    net4: SetId::HereNet4,
    ip6: SetId::HereIp6,
    ip6_64: SetId::HereIp664,
    net6: SetId::HereNet6,
    nd: None,
    number4: None,
};

impl Element {
    /// An element as the kernel shows it.
    pub fn raw(set: SetId, first: &[u8], last: Option<&[u8]>) -> Self {
        Self { set, first: first.into(), last: last.map(Into::into) }
    }

    fn key(set: SetId, mut key: Key) -> Self {
        key.0.truncate(set.key_size());
        Self { set, first: key.0.into(), last: None }
    }

    fn range(set: SetId, first: Key, last: Key) -> Self {
        Self { last: Some(last.0.into()), ..Self::key(set, first) }
    }

    /// The set.
    pub fn set(&self) -> SetId {
        self.set
    }

    /// First (or only) key.
    pub fn first(&self) -> &[u8] {
        &self.first
    }

    /// Last key of a range.
    pub fn last(&self) -> Option<&[u8]> {
        self.last.as_deref()
    }

    /// An interface in one of the sets of interfaces.
    pub fn port(set: SetId, port: IfName) -> Self {
        Self::key(set, Key::default().port(port))
    }

    /// An uplink by name.
    pub fn uplink(port: IfName) -> Self {
        Self::range(SetId::Uplinks, Key::default().port(port), Key::default().port(port))
    }

    /// All interfaces whose names begin with `stem` as uplinks.
    pub fn uplinks_named(stem: &str) -> Self {
        let padded = |fill: u8| {
            let mut key = stem.as_bytes().to_vec();
            key.resize(Field::Port.size(), fill);
            Key(key)
        };
        Self::range(SetId::Uplinks, padded(0), padded(0xff))
    }

    /// A MAC on a port, in one of the sets of such pairs.
    pub fn mac_on_port(set: SetId, port: IfName, mac: MacAddr) -> Self {
        Self::key(set, Key::default().port(port).mac(mac))
    }

    /// A VLAN in which a bound port may tag its frames.
    pub fn trunk(port: IfName, vlan: u16) -> Self {
        Self::vlan_on_port(SetId::PortTrunk, port, vlan)
    }

    /// A VLAN of a port, in one of the sets of such pairs.
    pub fn vlan_on_port(set: SetId, port: IfName, vlan: u16) -> Self {
        let mut key = Key::default().port(port);
        key.0.extend(vlan.to_be_bytes());
        key.0.extend([0, 0]);
        Self::key(set, key)
    }

    /// A MAC in one of the sets of MACs.
    pub fn mac(set: SetId, mac: MacAddr) -> Self {
        Self::key(set, Key::default().mac(mac))
    }

    /// The MAC of a bound port, as sender of the frame and inside RARP and neighbour discovery.
    pub fn port_mac(port: IfName, mac: MacAddr) -> Vec<Self> {
        let one = |set| Self::key(set, Key::default().port(port).mac(mac));
        vec![one(SetId::PortMac), one(SetId::PortLladdr)]
    }

    /// What a bound port may use: an address or a prefix, as source and (IPv6) as ND target.
    pub fn port_address(port: IfName, mac: MacAddr, net: IpNet) -> Vec<Self> {
        Self::address(&PORT_SETS, || Key::default().port(port).mac(mac), net)
    }

    /// The same as a destination: of a frame to everybody or to a group the port gets what is for this address.
    pub fn port_group_address(port: IfName, net: IpNet) -> Vec<Self> {
        Self::address(&PORT_GROUP_SETS, || Key::default().port(port).mac(MacAddr::from_octets(GROUP)), net)
    }

    /// What a bound port has besides the addresses of pools: it does not leave by an uplink.
    pub fn inner(port: IfName, net: IpNet) -> [Self; 2] {
        let set = if net.addr().is_ipv4() { SetId::InnerIp4 } else { SetId::InnerIp6 };
        let key = |address| Key::default().port(port).ip(address);
        [Self::port(SetId::InnerPorts, port), Self::range(set, key(net.network()), key(net.broadcast()))]
    }

    /// The MAC of a bound port, which not even the uplink may use: as sender of the frame, and inside a hidden packet.
    pub fn bound_mac(mac: MacAddr) -> [Self; 2] {
        [SetId::BoundMac, SetId::BoundLladdr].map(|set| Self::mac(set, mac))
    }

    /// The broadcast address of a subnet of the node or of a pool.
    pub fn broadcast(address: Ipv4Addr) -> Self {
        Self::key(SetId::BroadcastIp4, Key::default().ip(address.into()))
    }

    /// What nobody but its bound port may use, not even the uplink.
    pub fn bound_address(net: IpNet) -> Vec<Self> {
        Self::address(&BOUND_SETS, Key::default, net)
    }

    /// An address or prefix behind the rest of its key, in the sets that hold prefixes of its length.
    fn address(sets: &AddressSets, key: impl Fn() -> Key, net: IpNet) -> Vec<Self> {
        let (first, last) = (net.network(), net.broadcast());
        let one = |set| Self::key(set, key().ip(first));
        let range = |set| Self::range(set, key().ip(first), key().ip(last));
        match (net, net.max_prefix_len() - net.prefix_len()) {
            (IpNet::V4(_), 0) => [one(sets.ip4)].into_iter().chain(sets.number4.map(|[ip4, _]| one(ip4))).collect(),
            (IpNet::V4(_), _) => {
                [range(sets.net4)].into_iter().chain(sets.number4.map(|[_, net]| range(net))).collect()
            }
            (IpNet::V6(_), 0) => [one(sets.ip6)].into_iter().chain(sets.nd.map(|[nd, ..]| one(nd))).collect(),
            (IpNet::V6(net), 64) => {
                let twin = sets.nd.map(|[_, nd, _]| Self::key(nd, key().half(net.network())));
                [one(sets.ip6_64)].into_iter().chain(twin).collect()
            }
            (IpNet::V6(_), _) => [range(sets.net6)].into_iter().chain(sets.nd.map(|[.., nd]| range(nd))).collect(),
        }
    }

    /// An address or prefix that the node routes for a guest, if it comes from the guest's MAC.
    pub fn routed_from(mac: MacAddr, net: IpNet) -> Vec<Self> {
        Self::address(&FROM_SETS, || Key::default().mac(mac), net)
    }

    /// An address or prefix of a guest that runs here: the node takes it from nowhere else.
    pub fn routed_here(net: IpNet) -> Vec<Self> {
        Self::address(&HERE_SETS, Key::default, net)
    }

    /// A range of addresses (both ends included, one family) of routed pools.
    pub fn routed_pool(first: IpAddr, last: IpAddr) -> Self {
        let set = if first.is_ipv4() { SetId::PoolIp4 } else { SetId::PoolIp6 };
        Self::range(set, Key::default().ip(first), Key::default().ip(last))
    }

    /// An interface that packets for a pool must not leave by when they came in there.
    pub fn routed_loop(device: IfName, mac: MacAddr) -> Self {
        Self::key(SetId::Loops, Key::default().port(device).port(device).mac(mac))
    }

    /// A range of addresses (both ends included, one family) that no unbound guest port may use, with the coarse
    /// blocks by which the rules tell at once that an address is in no range.
    pub fn reserved_range(first: IpAddr, last: IpAddr) -> Vec<Self> {
        let range = |set| Self::range(set, Key::default().ip(first), Key::default().ip(last));
        match (first, last) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let blocks = u32::from(from) >> 8..=u32::from(to) >> 8;
                let block =
                    |block: u32| Self::key(SetId::ReservedIp424, Key::default().ip(Ipv4Addr::from(block << 8).into()));
                blocks.map(block).chain([range(SetId::ReservedIp4), range(SetId::ReservedNumber4)]).collect()
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let blocks = u128::from(from) >> 96..=u128::from(to) >> 96;
                let block = |block: u128| {
                    Self::key(SetId::ReservedIp632, Key::default().ip(Ipv6Addr::from(block << 96).into()))
                };
                blocks.map(block).chain([range(SetId::ReservedIp6), range(SetId::ReservedNd)]).collect()
            }
            _ => Vec::new(),
        }
    }

    /// A MAC that no unbound guest port may use, as sender of the frame or inside it.
    pub fn reserved_mac(mac: MacAddr) -> [Self; 2] {
        [SetId::ReservedMac, SetId::ReservedLladdr].map(|set| Self::mac(set, mac))
    }

    /// A MAC of the gateway or of the node, which no guest port may use.
    pub fn infra_mac(mac: MacAddr) -> Vec<Self> {
        Self::reserved_mac(mac).into_iter().chain([Self::mac(SetId::InfraMac, mac)]).collect()
    }

    /// A range of what is protected only because of pools that are not enforced (both ends included, one family).
    pub fn watched_range(first: IpAddr, last: IpAddr) -> [Self; 2] {
        let sets = if first.is_ipv4() {
            [SetId::WatchedIp4, SetId::WatchedNumber4]
        } else {
            [SetId::WatchedIp6, SetId::WatchedNd]
        };
        sets.map(|set| Self::range(set, Key::default().ip(first), Key::default().ip(last)))
    }

    /// The same for a MAC.
    pub fn watched_mac(mac: MacAddr) -> [Self; 2] {
        [SetId::WatchedMac, SetId::WatchedLladdr].map(|set| Self::mac(set, mac))
    }

    /// No pool is enforced on this node.
    pub fn watch_all() -> Self {
        Self::mac(SetId::WatchAll, MacAddr::from_octets([0; 6]))
    }

    /// An address of a gateway or of the node, which no guest port may use. It must be in a reserved range too,
    /// unless it is link-local.
    pub fn infra_address(address: IpAddr) -> Vec<Self> {
        let one = |set| Self::key(set, Key::default().ip(address));
        if address.is_ipv4() { vec![one(SetId::InfraIp4)] } else { vec![one(SetId::InfraIp6), one(SetId::InfraNd)] }
    }

    /// A MAC of the gateway or of the node that nobody holds: not protected where no pool is.
    pub fn elsewhere_mac(mac: MacAddr) -> [Self; 2] {
        [SetId::ElsewhereMac, SetId::ElsewhereLladdr].map(|set| Self::mac(set, mac))
    }

    /// The same for an address.
    pub fn elsewhere_address(address: IpAddr) -> [Self; 2] {
        let sets = if address.is_ipv4() {
            [SetId::ElsewhereIp4, SetId::ElsewhereNumber4]
        } else {
            [SetId::ElsewhereIp6, SetId::ElsewhereNd]
        };
        sets.map(|set| Self::key(set, Key::default().ip(address)))
    }

    /// What it means for the network if the kernel lacks this element, or has it without reason.
    pub fn meaning(&self, missing: bool) -> String {
        let what = self.fields_text(&self.first, self.last.as_deref()).join(" ");
        let (lacks, extra) = self.set.meaning();
        format!("{what}: {}", if missing { lacks } else { extra })
    }

    /// What its key names, as far as it does.
    pub fn names(&self) -> Names {
        let mut names = Names::default();
        let last = self.last.as_deref().unwrap_or(&self.first);
        let mut at = 0;
        for field in self.set.fields() {
            let value = |key: &[u8]| key.get(at..at + field.size()).map(<[u8]>::to_vec).unwrap_or_default();
            let (from, to) = (value(&self.first), value(last));
            match field {
                Field::Port => names.port = field_text(*field, &from).parse().ok(),
                Field::Mac => names.mac = <[u8; 6]>::try_from(from).ok().map(MacAddr::from_octets),
                Field::Vlan => {}
                Field::Ip4 if self.set == SetId::ReservedIp424 => {
                    let ends = <[u8; 4]>::try_from(from).map(|[a, b, c, _]| ([a, b, c, 0], [a, b, c, 255]));
                    names.range = ends.ok().map(|(from, to)| (from.into(), to.into()));
                }
                Field::Ip4 | Field::Number4 => {
                    let address = |bytes: Vec<u8>| <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
                    names.range = address(from).zip(address(to));
                }
                Field::Ip6 | Field::Target | Field::HalfTarget | Field::Quarter => {
                    // Sets of /64 have the first address of each as their key.
                    let known = match self.set {
                        SetId::PortIp664 | SetId::BoundIp664 | SetId::FromIp664 | SetId::HereIp664 => 8,
                        _ => from.len(),
                    };
                    let filled = |bytes: &[u8], fill: u8| {
                        let mut octets = [fill; 16];
                        octets.iter_mut().zip(bytes.iter().take(known)).for_each(|(to, from)| *to = *from);
                        IpAddr::from(octets)
                    };
                    names.range = Some((filled(&from, 0), filled(&to, 0xff)));
                }
            }
            at += field.padded();
        }
        names
    }

    fn fields_text(&self, first: &[u8], last: Option<&[u8]>) -> Vec<String> {
        let mut at = 0;
        let mut texts = Vec::new();
        for field in self.set.fields() {
            let bytes = |key: &[u8]| key.get(at..at + field.size()).map(<[u8]>::to_vec).unwrap_or_default();
            let start = field_text(*field, &bytes(first));
            let end = last.map(|last| field_text(*field, &bytes(last)));
            texts.push(match end {
                Some(end) if *field == Field::Port && end != start => format!("{start}*"),
                Some(end) if end != start => format!("{start}-{end}"),
                _ => start,
            });
            at += field.padded();
        }
        texts
    }
}

fn field_text(field: Field, bytes: &[u8]) -> String {
    match field {
        Field::Port => String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned(),
        Field::Mac => <[u8; 6]>::try_from(bytes)
            .map_or_else(|_| "?".to_owned(), |octets| MacAddr::from_octets(octets).to_string()),
        Field::Vlan => {
            <[u8; 2]>::try_from(bytes).map_or_else(|_| "?".to_owned(), |id| u16::from_be_bytes(id).to_string())
        }
        Field::Ip4 | Field::Number4 => {
            <[u8; 4]>::try_from(bytes).map_or_else(|_| "?".to_owned(), |octets| Ipv4Addr::from(octets).to_string())
        }
        Field::Ip6 | Field::Target => {
            <[u8; 16]>::try_from(bytes).map_or_else(|_| "?".to_owned(), |octets| Ipv6Addr::from(octets).to_string())
        }
        Field::HalfTarget | Field::Quarter => {
            let mut octets = [0; 16];
            octets.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            format!("{}/{}", Ipv6Addr::from(octets), bytes.len() * 8)
        }
    }
}

impl fmt::Display for Element {
    /// As `nft` writes it: `port_ip4 { tap100i0 . 02:00:00:aa:bb:cc . 203.0.113.10 }`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.fields_text(&self.first, self.last.as_deref());
        write!(f, "{} {{ {} }}", self.set.name(), fields.join(" . "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_laid_out_as_the_kernel_has_them() {
        let (port, mac) = ("tap100i0".parse().unwrap(), "02:00:00:aa:bb:cc".parse().unwrap());
        let elements = Element::port_address(port, mac, "203.0.113.10/32".parse().unwrap());
        assert_eq!(elements[0].first(), b"tap100i0\0\0\0\0\0\0\0\0\x02\0\0\xaa\xbb\xcc\0\0\xcb\0\x71\x0a");
        assert_eq!(elements[0].to_string(), "port_ip4 { tap100i0 . 02:00:00:aa:bb:cc . 203.0.113.10 }");
        for set in SetId::ALL {
            assert_eq!(SetId::by_name(set.name()), Some(*set));
        }
    }

    #[test]
    fn sets_hold_what_their_text_says() {
        let sizes: Vec<_> = SetId::ALL.iter().filter_map(|set| Some((set.name(), set.capacity()?))).collect();
        for known in [("ports", 65536), ("reserved_ip4_24", 8192), ("reserved_ip6_32", 1024), ("here_ip6_64", 65536)] {
            assert!(sizes.contains(&known), "{sizes:?}");
        }
        for table in Table::ALL {
            for declaration in table.sets().split("\n\tset ").skip(1) {
                let name = declaration.split(' ').next().unwrap();
                let body = declaration.split('}').next().unwrap();
                let Some(set) = SetId::by_name(name) else { continue };
                assert_eq!(set.capacity().is_some(), body.contains("size "), "{name}");
            }
        }
        assert_eq!((SetId::BoundMac.capacity(), SetId::ReservedIp4.capacity()), (None, None));
    }

    #[test]
    fn an_element_names_what_it_was_made_of() {
        let (port, mac): (IfName, MacAddr) = ("tap100i0".parse().unwrap(), "02:00:00:aa:bb:cc".parse().unwrap());
        for net in ["203.0.113.10/32", "203.0.113.8/29", "2001:db8::1/128", "2001:db8::/64", "2001:db8::/56"] {
            let net: IpNet = net.parse().unwrap();
            let range = Some((net.network(), net.broadcast()));
            let ports =
                Element::port_address(port, mac, net).into_iter().map(|element| (element, Some(port), Some(mac)));
            let bound = Element::bound_address(net).into_iter().map(|element| (element, None, None));
            let from = Element::routed_from(mac, net).into_iter().map(|element| (element, None, Some(mac)));
            for (element, port, mac) in ports.chain(bound).chain(from) {
                assert_eq!(element.names(), Names { port, mac, range }, "{element}");
            }
        }
        let reserved = Element::reserved_range([203, 0, 113, 8].into(), [203, 0, 113, 15].into());
        let ranges: Vec<_> = reserved.iter().filter_map(|element| element.names().range).collect();
        assert_eq!(ranges[0], ([203, 0, 113, 0].into(), [203, 0, 113, 255].into()), "the coarse block");
        assert_eq!(ranges[1], ([203, 0, 113, 8].into(), [203, 0, 113, 15].into()));
        let names = Element::mac(SetId::BoundMac, mac).names();
        assert_eq!(names, Names { mac: Some(mac), ..Names::default() });
    }

    #[test]
    fn every_prefix_length_has_its_sets() {
        let (port, mac) = ("tap100i0".parse().unwrap(), "02:00:00:aa:bb:cc".parse().unwrap());
        let shown = |net: &str| -> Vec<String> {
            let net = net.parse().unwrap();
            let elements = Element::port_address(port, mac, net).into_iter().chain(Element::bound_address(net));
            elements.map(|element| element.to_string().replace("tap100i0 . 02:00:00:aa:bb:cc . ", "")).collect()
        };
        assert_eq!(
            shown("203.0.113.8/29"),
            ["port_net4", "bound_net4", "bound_number_net4"].map(|set| format!("{set} {{ 203.0.113.8-203.0.113.15 }}"))
        );
        assert_eq!(
            shown("2001:db8::/64"),
            [
                "port_ip6_64 { 2001:db8:: }",
                "port_nd_64 { 2001:db8::/64 }",
                "bound_ip6_64 { 2001:db8:: }",
                "bound_nd_64 { 2001:db8::/64 }",
            ]
        );
        assert_eq!(shown("2001:db8::/127").len(), 4);
        assert_eq!(shown("2001:db8::1/128").len(), 4);
    }
}
