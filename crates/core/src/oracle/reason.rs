//! Why a frame is dropped, in words for an administrator.

/// Declares the reasons once: variant and sentence.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident $sentence:literal;)+) => {
        /// Why a frame is dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $(#[doc = $sentence] $variant),+ }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The reason in one sentence.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence),+ }
            }
        }
    };
}

reasons! {
    Runt "The frame ends before its header does.";
    NoSourceMac "The source MAC is a group address or zero, which is nobody's; the bridge itself drops such frames.";

    SourceMac "The guest used a MAC that is not the one of its port.";
    Tag "The guest sent a VLAN tag, and its NIC is no trunk for that VLAN.";
    Ethertype "The guest sent something other than IPv4, ARP or IPv6.";
    ArpMalformed "The ARP packet is not a whole request or reply for IPv4 over Ethernet.";
    ArpForeign "The guest claimed by ARP an IPv4 address or a MAC that is not its own.";
    Rarp "The guest sent a RARP packet other than the announcement of its own MAC to everybody.";
    Ip4Malformed "The IPv4 header is cut off or contradicts itself.";
    Ip4Source "The guest used an IPv4 address that is not its own.";
    Ip4Unspecified "The guest sent from 0.0.0.0 something other than a DHCP request to everybody.";
    DhcpClient "The guest asked for an address by DHCP, which its assignment forbids.";
    DhcpServer "The guest answered as a DHCP server.";
    Redirect "The guest sent an ICMP redirect.";
    Ip6Malformed "The IPv6 headers are cut off, or hide what they carry.";
    Ip6Source "The guest used an IPv6 address that is not its own.";
    Ip6Unspecified "The guest sent from :: something other than a check for a duplicate of its own address, a router solicitation or a multicast report.";
    RouterMessage "The guest sent a message that only routers send: router advertisement, redirect, multicast query and the like.";
    DiscoveryForm "The neighbour discovery message has a form that no receiver should accept: hop limit, extension headers, fragments, length or options.";
    DiscoveryForeign "The guest claimed by neighbour discovery an IPv6 address or a MAC that is not its own.";
    MulticastReport "The multicast report lacks a link-local source, hop limit 1 or its router alert.";

    BoundMac "The MAC belongs to a guest that is bound to another port.";
    BoundAddress "The address belongs to a guest that is bound to another port.";
    ReservedMac "The MAC belongs to an assignment, and not to this port.";
    ReservedAddress "The address belongs to a pool, and not to this port.";
    InfrastructureMac "The MAC belongs to the gateway or to the node.";
    InfrastructureAddress "The address belongs to the gateway or to the node.";
    RogueRouter "The guest sent a router advertisement or redirect; it is no router.";
    RogueDhcp "The guest answered as a DHCP server; it is none.";
    Hidden "A claim behind two or unusual VLAN tags or in SNAP, three tags, or an IPv4-mapped address.";
    Advertisement "The guest gets no router advertisements: the address that it would make of one is not its own.";
    ForeignMac "The frame is for another MAC than that of the guest.";
    ForeignAddress "The packet is for an address that is not the guest's.";
    ProtectedAddress "The packet is for an address of a pool, and the guest has none.";
    InnerAddress "The address is of no pool, but of a network of guests and node: it does not leave by the uplink.";
    UnregisteredMac "The provider does not know this MAC, and a guard watches the uplink.";

    Unreadable "A malformed ARP, IPv6 or neighbour discovery packet could hide a claim.";
}
