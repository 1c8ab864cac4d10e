//! Every surrounding that is played, and what is played in it.

use super::{LinkLocal, Nic, Play, PoolOption, Segment, Sender, Special, TAG, To, Topology, What};
use crate::model::GuestKind;

const fn machine(vmid: u8, address: u8) -> Nic {
    Nic {
        vmid,
        index: 0,
        kind: GuestKind::Qemu,
        firewall: false,
        address: Some(address),
        prefixes: false,
        link_local: LinkLocal::Own,
        trunk: None,
        special: Special::Nothing,
    }
}

impl Nic {
    const fn container(self) -> Self {
        Self { kind: GuestKind::Lxc, ..self }
    }

    const fn behind_firewall(self) -> Self {
        Self { firewall: true, ..self }
    }

    const fn second(self) -> Self {
        Self { index: 1, ..self }
    }

    pub(super) const fn unassigned(self) -> Self {
        Self { address: None, ..self }
    }

    pub(super) const fn with_prefixes(self) -> Self {
        Self { prefixes: true, ..self }
    }

    const fn without_dhcp(self) -> Self {
        Self { special: Special::NoDhcp, ..self }
    }

    const fn with_link_local(self, link_local: LinkLocal) -> Self {
        Self { link_local, ..self }
    }

    const fn with_any_destination(self) -> Self {
        Self { special: Special::AnyDestination, ..self }
    }

    const fn with_everything(self) -> Self {
        Self { special: Special::Everything, ..self }
    }

    const fn registered(self) -> Self {
        Self { special: Special::Registered, ..self }
    }

    const fn with_trunk(self) -> Self {
        Self { trunk: Some(TAG), ..self }
    }
}

pub(super) const WEB: Nic = machine(100, 10);
const MAIL: Nic = machine(101, 11);
const PLAIN: Topology = Topology {
    name: "",
    segment: Segment::Pool,
    br_netfilter: false,
    pool: PoolOption::Nothing,
    nics: &[],
    plays: &[],
};

const fn play(from: Sender, what: What) -> Play {
    Play { from, what }
}

/// Everything that is played.
pub const TOPOLOGIES: &[Topology] = &[
    Topology {
        name: "tap on a bridge, to the uplink",
        nics: &[WEB, MAIL],
        plays: &[play(Sender::Nic(0), What::Bound(1, To::Uplink)), play(Sender::Nic(0), What::Offloads(1))],
        ..PLAIN
    },
    Topology {
        name: "two guests, to each other",
        nics: &[WEB, MAIL],
        plays: &[play(Sender::Nic(0), What::Bound(1, To::Guest)), play(Sender::Nic(1), What::Bound(0, To::Guest))],
        ..PLAIN
    },
    Topology {
        name: "guest to the node",
        nics: &[WEB, MAIL],
        plays: &[play(Sender::Nic(0), What::Bound(1, To::Node))],
        ..PLAIN
    },
    Topology {
        name: "tap behind fwbr, fwln, fwpr",
        nics: &[WEB.behind_firewall(), MAIL],
        plays: &[play(Sender::Nic(0), What::Bound(1, To::Uplink)), play(Sender::Nic(0), What::Offloads(1))],
        ..PLAIN
    },
    Topology {
        name: "container",
        nics: &[machine(102, 13).container(), MAIL],
        plays: &[play(Sender::Nic(0), What::Bound(1, To::Uplink))],
        ..PLAIN
    },
    Topology {
        name: "container behind fwbr, fwln, fwpr",
        nics: &[machine(102, 13).container().behind_firewall(), MAIL],
        plays: &[play(Sender::Nic(0), What::Bound(1, To::Guest))],
        ..PLAIN
    },
    Topology {
        name: "two NICs of one guest",
        nics: &[WEB, machine(100, 12).second()],
        plays: &[play(Sender::Nic(0), What::Bound(1, To::Uplink)), play(Sender::Nic(1), What::Bound(0, To::Uplink))],
        ..PLAIN
    },
    Topology {
        name: "guest with prefixes",
        nics: &[WEB.with_prefixes(), MAIL.without_dhcp()],
        plays: &[
            play(Sender::Nic(0), What::Bound(1, To::Uplink)),
            play(Sender::Nic(0), What::OwnPrefixes),
            play(Sender::Nic(1), What::ForeignPrefixes(0)),
            play(Sender::Nic(1), What::NoDhcp),
        ],
        ..PLAIN
    },
    Topology {
        name: "link-local addresses",
        nics: &[WEB.with_link_local(LinkLocal::Any), MAIL.with_link_local(LinkLocal::Named), machine(102, 13)],
        plays: &[
            play(Sender::Nic(0), What::LinkLocals(1)),
            play(Sender::Nic(1), What::LinkLocals(2)),
            play(Sender::Nic(2), What::LinkLocals(1)),
            play(Sender::Nic(0), What::Bound(1, To::Uplink)),
        ],
        ..PLAIN
    },
    Topology {
        name: "trunk",
        nics: &[WEB.with_trunk().with_prefixes(), MAIL],
        plays: &[play(Sender::Nic(0), What::Trunk(1)), play(Sender::Nic(1), What::Bound(0, To::Uplink))],
        ..PLAIN
    },
    Topology {
        name: "VLAN-aware bridge",
        segment: Segment::VlanAware,
        nics: &[WEB, MAIL, machine(200, 0).unassigned()],
        plays: &[
            play(Sender::Nic(0), What::Bound(1, To::Uplink)),
            play(Sender::Nic(0), What::Offloads(1)),
            play(Sender::Nic(2), What::Other),
            play(Sender::Uplink, What::Other),
        ],
        ..PLAIN
    },
    Topology {
        name: "unmanaged guests",
        pool: PoolOption::GatewayMac,
        nics: &[
            WEB.with_prefixes(),
            machine(200, 0).unassigned(),
            machine(201, 0).unassigned().container(),
            machine(202, 0).unassigned().behind_firewall(),
        ],
        plays: &[
            play(Sender::Nic(1), What::Other),
            play(Sender::Nic(2), What::Other),
            play(Sender::Nic(3), What::Other),
        ],
        ..PLAIN
    },
    Topology {
        name: "guest routers allowed",
        pool: PoolOption::GuestRouters,
        nics: &[WEB, machine(200, 0).unassigned()],
        plays: &[play(Sender::Nic(1), What::Router)],
        ..PLAIN
    },
    Topology {
        name: "uplink",
        nics: &[WEB.with_prefixes(), MAIL.behind_firewall(), machine(102, 13).container()],
        plays: &[play(Sender::Uplink, What::Other)],
        ..PLAIN
    },
    Topology {
        name: "uplink, gateway's MAC known",
        pool: PoolOption::GatewayMac,
        nics: &[WEB, MAIL],
        plays: &[play(Sender::Uplink, What::Hairpin(0))],
        ..PLAIN
    },
    Topology {
        name: "to guests",
        nics: &[WEB.with_prefixes(), MAIL.behind_firewall(), machine(102, 13).container()],
        plays: &[
            play(Sender::Uplink, What::Deliver(0)),
            play(Sender::Uplink, What::Deliver(1)),
            play(Sender::Uplink, What::Deliver(2)),
            play(Sender::Nic(1), What::Deliver(0)),
            play(Sender::Nic(2), What::Deliver(1)),
        ],
        ..PLAIN
    },
    Topology {
        name: "to a guest that gets everything",
        nics: &[WEB.with_any_destination()],
        plays: &[play(Sender::Uplink, What::Deliver(0))],
        ..PLAIN
    },
    Topology {
        name: "to a guest that gets router advertisements",
        nics: &[WEB.with_everything()],
        plays: &[play(Sender::Uplink, What::Deliver(0))],
        ..PLAIN
    },
    Topology {
        name: "to everybody",
        nics: &[WEB.with_prefixes(), machine(200, 0).unassigned(), machine(102, 13).container().with_everything()],
        plays: &[
            play(Sender::Uplink, What::Withheld(0)),
            play(Sender::Nic(1), What::Withheld(0)),
            play(Sender::Uplink, What::ByGroup(0)),
            play(Sender::Nic(1), What::ByGroup(0)),
        ],
        ..PLAIN
    },
    Topology {
        name: "to unmanaged guests",
        nics: &[WEB, machine(200, 0).unassigned(), machine(201, 0).unassigned().container()],
        plays: &[
            play(Sender::Uplink, What::Deliver(1)),
            play(Sender::Nic(0), What::Deliver(2)),
            play(Sender::Nic(2), What::Deliver(1)),
        ],
        ..PLAIN
    },
    Topology {
        name: "guarded uplink",
        pool: PoolOption::Guard,
        nics: &[
            WEB,
            machine(200, 0).unassigned(),
            machine(201, 0).unassigned().container().registered(),
            machine(202, 0).unassigned().behind_firewall(),
            MAIL,
        ],
        plays: &[
            play(Sender::Nic(0), What::Bound(4, To::Uplink)),
            play(Sender::Nic(1), What::Guarded),
            play(Sender::Nic(2), What::Guarded),
            play(Sender::Nic(3), What::Guarded),
        ],
        ..PLAIN
    },
    Topology {
        name: "LAN behind a router guest",
        segment: Segment::NoPool,
        nics: &[machine(200, 0).unassigned(), machine(201, 0).unassigned().container()],
        plays: &[play(Sender::Nic(0), What::Anything), play(Sender::Nic(1), What::Anything)],
        ..PLAIN
    },
    Topology {
        name: "bridge without a pool",
        segment: Segment::Elsewhere,
        pool: PoolOption::GatewayMac,
        nics: &[
            machine(200, 0).unassigned(),
            machine(201, 0).unassigned().container(),
            machine(202, 0).unassigned().behind_firewall(),
        ],
        plays: &[
            play(Sender::Nic(0), What::Elsewhere),
            play(Sender::Nic(1), What::Elsewhere),
            play(Sender::Nic(2), What::Elsewhere),
        ],
        ..PLAIN
    },
    Topology {
        name: "routed",
        segment: Segment::Routed,
        nics: &[WEB.with_prefixes(), MAIL],
        plays: &[
            play(Sender::Nic(0), What::Bound(1, To::Node)),
            play(Sender::Nic(0), What::ToWorld(1)),
            play(Sender::Uplink, What::FromWorld(0)),
        ],
        ..PLAIN
    },
    Topology {
        name: "br_netfilter on",
        br_netfilter: true,
        nics: &[WEB, machine(200, 0).unassigned(), MAIL.behind_firewall()],
        plays: &[
            play(Sender::Nic(0), What::Bound(2, To::Uplink)),
            play(Sender::Nic(2), What::Bound(0, To::Uplink)),
            play(Sender::Nic(1), What::Other),
            play(Sender::Uplink, What::Other),
            play(Sender::Nic(0), What::Offloads(2)),
        ],
        ..PLAIN
    },
];
