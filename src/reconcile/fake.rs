//! A network in memory, and a node to go with it: reconciler, hook and guard without a kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use super::network::{Extent, Network, Networks, Which};
use super::{Node, ReconcileError};
use crate::host::files;
use crate::links::{BridgeOptions, Link, Links};
use crate::model::{Family, IfName, MacAddr, Vmid};
use crate::paths::Paths;
use crate::plan::{DefaultRoute, Exits, Foreign, NetState, Refusal, Rules, Step};
use crate::ruleset::{Backend, Element, Table};
use crate::system::netlink::NetlinkError;
use crate::system::run::RunState;
use crate::system::tally::Tallies;
use crate::system::{FilterError, KernelError, Reference, RoutingError};

/// Which steps the network refuses.
type Refusing = Arc<dyn Fn(&Step) -> bool + Send + Sync>;

/// The network: a state that steps change as [`Step::apply_to`] says.
#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) state: NetState,
    pub(crate) links: Links,
    pub(crate) exits: Exits,
    pub(crate) foreign: Foreign,
    /// Transactions in nf_tables so far, whoever made them.
    pub(crate) generation: u32,
    /// Steps that were carried out, in their order.
    pub(crate) done: Vec<Step>,
    /// How often the filter was read whole.
    pub(crate) reads: usize,
    /// Out of which interfaces frames were sent.
    pub(crate) sent: Vec<IfName>,
    /// Whether a look gets no answer.
    pub(crate) hangs: bool,
    /// Steps that were not safe at the moment when they were carried out.
    pub(crate) violations: Vec<String>,
    refusing: Option<Refusing>,
}

impl World {
    /// What the kernel drops by itself when an interface goes.
    pub(crate) fn lose(&mut self, name: IfName) {
        self.links.0.remove(&name);
        self.state.forget_what_hangs_on(name);
        for set in [&mut self.state.deaf_bridges, &mut self.state.own_entries, &mut self.state.fixed_macs] {
            set.remove(&name);
        }
    }

    /// Somebody else's change of the filter.
    pub(crate) fn change_filter(&mut self, change: impl FnOnce(&mut NetState)) {
        change(&mut self.state);
        self.generation += 1;
    }

    /// Traffic is led to an address only while the filter stands in front of it.
    fn check(&mut self, step: &Step) {
        let stands = |net: IpNet| {
            let bound = Element::bound_address(net);
            self.state.rules == Rules::Loaded && bound.iter().all(|element| self.state.elements.contains(element))
        };
        let is_safe = match step {
            Step::SetRoute(net, _) => stands(*net),
            Step::SetNeighbour(_, address, _) | Step::SetProxy(_, address) => stands((*address).into()),
            Step::ChangeElements { remove, .. } => {
                let led = self.state.neighbours.keys().chain(&self.state.support.proxies).map(|(_, ip)| (*ip).into());
                let mut led = led.chain(self.state.routes.keys().copied());
                !led.any(|net: IpNet| Element::bound_address(net).iter().any(|element| remove.contains(element)))
            }
            Step::RemoveTable(Table::Bridge) => self.state.routes.is_empty() && self.state.neighbours.is_empty(),
            _ => true,
        };
        if !is_safe {
            self.violations.push(step.to_string());
        }
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        if self.hangs {
            return Err(late("change"));
        }
        let device = match step {
            Step::SetForwarding(port, ..) | Step::ScreenPort(port) => Some(*port),
            Step::SetNeighbour(on, ..) | Step::SetProxy(on, _) | Step::SetGateway(on, _) => Some(*on),
            Step::SetRoute(_, route) => Some(route.device),
            _ => None,
        };
        if let Some(gone) = device.filter(|device| self.links.get(*device).is_none()) {
            return Err(RoutingError::NoInterface(gone).into());
        }
        if self.refusing.as_ref().is_some_and(|refuses| refuses(step)) {
            return Err(if step.is_transaction() {
                FilterError::NotTaken.into()
            } else {
                let (sentence, hint) = (format!("the network refuses `{step}`"), "ask it again".to_owned());
                RoutingError::Foreign(Refusal { sentence, hint }).into()
            });
        }
        self.check(step);
        step.apply_to(&mut self.state);
        match step {
            Step::ScreenPort(port) => self.change_link(*port, |link| link.screened = true),
            Step::SetDeafBridge(bridge) => self.change_link(*bridge, |link| {
                link.bridge = link.bridge.map(|bridge| BridgeOptions { no_linklocal_learn: true, ..bridge });
            }),
            Step::SetGateway(on, ip) => self.change_link(*on, |link| link.gateways.extend([*ip])),
            Step::RemoveGateway(on, ip) => self.change_link(*on, |link| link.gateways.retain(|gateway| gateway != ip)),
            _ => {}
        }
        self.generation += u32::from(step.is_transaction());
        self.done.push(step.clone());
        Ok(())
    }

    fn change_link(&mut self, name: IfName, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.links.0.get_mut(&name) {
            change(link);
        }
    }
}

fn late(action: &str) -> KernelError {
    NetlinkError::late(action).into()
}

/// A connection to it, and who opens one.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<World>>);

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a network in memory")
    }
}

impl Fake {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these steps fail.
    pub(crate) fn refuse(&self, refuses: impl Fn(&Step) -> bool + Send + Sync + 'static) {
        self.world().refusing = Some(Arc::new(refuses));
    }

    /// From now on none does.
    pub(crate) fn refuse_nothing(&self) {
        self.world().refusing = None;
    }

    fn asked(&self, action: &str) -> Result<MutexGuard<'_, World>, KernelError> {
        let world = self.world();
        if world.hangs { Err(late(action)) } else { Ok(world) }
    }
}

impl Networks for Fake {
    fn to_look(&self, _run: &RunState) -> Result<Box<dyn Network>, ReconcileError> {
        Ok(Box::new(self.clone()))
    }

    fn to_change(&self, _run: &RunState, _log_group: Option<u16>) -> Result<Box<dyn Network>, ReconcileError> {
        Ok(Box::new(self.clone()))
    }
}

impl Network for Fake {
    fn links(&mut self, which: Which<'_>) -> Result<Links, KernelError> {
        let world = self.asked("list the interfaces")?;
        let some = |names: &BTreeSet<IfName>| {
            Links(names.iter().filter_map(|name| Some((*name, world.links.get(*name)?.clone()))).collect())
        };
        Ok(match which {
            Which::All => world.links.clone(),
            Which::Named(names) | Which::Around(names) => some(names),
            Which::Holding(addresses) => some(&world.links.holding(addresses)),
        })
    }

    fn exits(&mut self) -> Result<Exits, KernelError> {
        Ok(self.asked("list the routes")?.exits.clone())
    }

    fn next_hops(&mut self, _links: &Links) -> Result<BTreeSet<(IfName, IpAddr)>, KernelError> {
        Ok(BTreeSet::new())
    }

    fn found_gateways(
        &mut self,
        gateways: &BTreeSet<(IfName, IpAddr)>,
        _links: &Links,
    ) -> Result<BTreeMap<(IfName, IpAddr), Option<MacAddr>>, KernelError> {
        Ok(gateways.iter().map(|gateway| (*gateway, None)).collect())
    }

    fn heard_behind(
        &mut self,
        _links: &Links,
        _stations: &BTreeSet<(IfName, MacAddr)>,
    ) -> Result<BTreeMap<MacAddr, IfName>, KernelError> {
        Ok(BTreeMap::new())
    }

    fn rules(&mut self, table: Table) -> Result<Rules, KernelError> {
        Ok(self.asked("look at the rules")?.state.rules_of(table))
    }

    fn observe(
        &mut self,
        extent: Extent<'_>,
        _links: &Links,
        wanted: &NetState,
    ) -> Result<(NetState, Foreign), KernelError> {
        let mut world = self.asked("look at the filter")?;
        let mut state = world.state.clone();
        // Looked at only where they are wanted, or were set by us.
        state.own_entries.retain(|bridge| wanted.own_entries.contains(bridge));
        match extent {
            Extent::Whole(_) => world.reads += 1,
            Extent::BesideFilter => {
                state.swap_filter(&mut NetState::default());
                (state.rules, state.routed_rules) = (Rules::Absent, Rules::Absent);
            }
        }
        Ok((state, world.foreign.clone()))
    }

    fn find(&mut self, elements: &BTreeSet<Element>) -> Result<BTreeSet<Element>, KernelError> {
        let world = self.asked("look up elements")?;
        Ok(elements.intersection(&world.state.elements).cloned().collect())
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        self.world().apply(step)
    }

    fn generation(&mut self) -> Result<u32, KernelError> {
        Ok(self.asked("look at the generation")?.generation)
    }

    fn chains_mark(&mut self, _backend: Backend) -> Result<Option<u64>, KernelError> {
        Ok(None)
    }

    fn reference(&self) -> Reference {
        Reference::default()
    }

    fn tallies(&mut self) -> Result<Tallies, KernelError> {
        Ok(Tallies::default())
    }

    fn send(&mut self, device: IfName, _frames: &[Vec<u8>]) -> io::Result<()> {
        self.world().sent.push(device);
        Ok(())
    }
}

/// Node `n1`: guests 100 and 101 with addresses of the bridged pool `lan`, 102 and 103 with some of the routed pool `net`.
/// No guest runs.
pub(crate) struct Scene {
    _directory: tempfile::TempDir,
    pub(crate) node: Node,
    pub(crate) net: Fake,
}

pub(crate) const GUESTS: [u32; 4] = [100, 101, 102, 103];

pub(crate) fn vmid(number: u32) -> Vmid {
    number.to_string().parse().unwrap()
}

pub(crate) fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn mac(number: u32) -> MacAddr {
    MacAddr::from_octets([2, 0, 0, 0, 0, u8::try_from(number).unwrap()])
}

fn bridge_of(guest: u32) -> IfName {
    name(if guest < 102 { "vmbr0" } else { "vmbr1" })
}

impl Scene {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path());
        files::directories(&directory.path().join("etc/pve/nodes/n1/qemu-server")).unwrap();
        symlink("nodes/n1", paths.local_node()).unwrap();
        let net = Fake::default();
        let node = Node { networks: Arc::new(net.clone()), ..Node::open(paths).unwrap() };
        let scene = Self { _directory: directory, node, net };
        scene.write(
            "public-ip/pools.json",
            r#"{"version":1,"pools":{
                "lan":{"profile":"generic-bridged","bridge":"vmbr0","addresses":[{"address":"203.0.113.8/29"}]},
                "net":{"profile":"generic-routed","bridge":"vmbr1","gateway4":"169.254.0.1",
                    "addresses":[{"address":"192.0.2.8/29"}]}}}"#,
        );
        // Without asking which iptables this machine has.
        scene.write("public-ip/nodes/n1.json", r#"{"version":1,"backend":"nftables"}"#);
        for (guest, address) in GUESTS.into_iter().zip(["203.0.113.10", "203.0.113.11", "192.0.2.9", "192.0.2.10"]) {
            scene.assign(guest, address);
            let config = format!("net0: virtio={},bridge={}\n", mac(guest), bridge_of(guest));
            scene.write(&format!("nodes/n1/qemu-server/{guest}.conf"), &config);
        }
        let mut world = scene.net.world();
        let bridge = |index, address: &str| Link {
            index,
            up: true,
            mac: Some(mac(index)),
            addresses: vec![address.parse().unwrap()],
            bridge: Some(BridgeOptions::default()),
            kind: "bridge".to_owned(),
            ..Link::default()
        };
        let card = Link { index: 2, up: true, mac: Some(mac(2)), master: Some(name("vmbr0")), ..Link::default() };
        world.links.0.extend([
            (name("eno1"), card),
            (name("vmbr0"), bridge(3, "198.51.100.2/24")),
            (name("vmbr1"), bridge(4, "10.0.0.1/24")),
        ]);
        let via = Some("198.51.100.1".parse().unwrap());
        world.exits.routes.push(DefaultRoute { device: name("vmbr0"), via, metric: 0, family: Family::V4 });
        drop(world);
        scene
    }

    /// Writes a file below `/etc/pve`.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.node.paths.etc_pve().join(path);
        files::directories(path.parent().unwrap()).unwrap();
        files::replace_soon(&path, text.as_bytes()).unwrap();
    }

    pub(crate) fn assign(&self, guest: u32, address: &str) {
        let pool = if guest < 102 { "lan" } else { "net" };
        let file = serde_json::json!({"version": 1, "vmid": guest, "interfaces": {"net0": {
            "mac": mac(guest), "addresses": [
                {"address": format!("{address}/32"), "pool": pool, "assigned_at": "2026-11-22T10:00:00Z"}]}}});
        self.write(&format!("public-ip/guests/{guest}.json"), &file.to_string());
    }

    pub(crate) fn port(guest: u32) -> IfName {
        name(&format!("tap{guest}i0"))
    }

    /// The guest's port appears.
    pub(crate) fn plug(&self, guest: u32) {
        let link = Link {
            index: guest,
            up: true,
            mac: Some(MacAddr::from_octets([0xfe, 0, 0, 0, 0, u8::try_from(guest).unwrap()])),
            master: Some(bridge_of(guest)),
            ..Link::default()
        };
        let mut world = self.net.world();
        // A bridge that nobody has given a MAC takes over the lowest of its ports.
        let is_fixed = world.state.fixed_macs.contains(&bridge_of(guest));
        if guest >= 102 && !is_fixed && world.links.ports(bridge_of(guest)).next().is_none() {
            world.change_link(bridge_of(guest), |bridge| bridge.mac = link.mac);
        }
        world.links.0.insert(Self::port(guest), link);
    }

    /// It disappears.
    pub(crate) fn unplug(&self, guest: u32) {
        self.net.world().lose(Self::port(guest));
    }

    /// Every guest runs.
    pub(crate) fn running() -> Self {
        let scene = Self::new();
        for guest in GUESTS {
            scene.plug(guest);
        }
        scene
    }

    /// Nothing unsafe was done so far.
    #[track_caller]
    pub(crate) fn was_safe(&self) {
        assert_eq!(self.net.world().violations, [""; 0], "traffic was led where the filter did not stand");
    }
}
