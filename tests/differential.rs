//! The filter in the kernel against the oracle: frames of every class, and thousands made of them by chance, go
//! through a real bridge, and each must fare as the oracle says.
//!
//! Needs root, `nft`, `ip` and `bridge`; a missing one is a failure, never a skipped test. The variables
//! `PVE_PUBLIC_IP_FUZZ_SECONDS` and `PVE_PUBLIC_IP_FUZZ_SEED` make the second run longer, and repeat one.

#[path = "common/mod.rs"]
mod common;

#[cfg(test)]
mod differential {
    use std::collections::{BTreeMap, HashMap, HashSet};
    use std::io::Write as _;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::time::{Duration, Instant, SystemTime};

    use ipnet::IpNet;
    use pve_public_ip::model::PoolName;
    use pve_public_ip::oracle::{Bindings, PortRole, Verdict, delivery, verdict};
    use pve_public_ip::plan::explain::Judge;
    use pve_public_ip::registry::document::Enforce;
    use pve_public_ip::ruleset::Table;
    use pve_public_ip::selftest::{frames, verdicts};
    use pve_public_ip::system::Nftables;

    use frames::{
        ALL_NODES, Arp, BROADCAST, IP4, IP6, ether, icmp6, ip4, ip6, lladdr_option, mld2_body, nd_body, options_header,
        udp,
    };
    use lab::{Lab, link_mac, sh};
    use mutate::{Words, address_to, keep_on_the_bridge, mutate, repair};
    use random::Random;
    use scene::{BOUND, GATEWAY, PEER, TRUNK_VLAN, guest_mac, who};
    use verdicts::{Case, Scene, Who};

    #[path = "../common/lab.rs"]
    #[expect(dead_code, reason = "the other test uses the rest")]
    mod lab;
    mod mutate;
    #[path = "../common/random.rs"]
    mod random;
    mod scene;

    type Mac = [u8; 6];

    /// Where everything that is forwarded comes out; an uplink, so that no rule about delivery applies.
    const SINK: &str = "eno2";
    const BATCH: usize = 256;
    const FIXED_SEED: u64 = 20_260_101;
    const FRAMES: usize = 40_000;

    /// Who sends.
    struct Player {
        port: &'static str,
        role: PortRole,
        me: Who,
        seeds: Vec<Vec<u8>>,
        /// Those of the seeds that pass: what is near them is where a filter errs.
        good: Vec<Vec<u8>>,
    }

    impl Player {
        /// A frame that passes, told from all others by its number.
        fn fence(&self, number: u64) -> Vec<u8> {
            let data = [b"the fence ".as_slice(), &number.to_be_bytes()].concat();
            let packet = ip4(self.me.ip4, Ipv4Addr::BROADCAST, frames::UDP, 0, &udp(9, 9, &data));
            ether(BROADCAST, self.me.mac, IP4, &packet)
        }
    }

    struct Arena {
        lab: Lab,
        players: Vec<Player>,
        bindings: Bindings,
        words: Words,
        /// MACs that the bridge takes for itself.
        local: Vec<Mac>,
        fences: u64,
        sink: Sink,
        /// If pools are only watched: what judges then.
        judge: Option<Judge>,
    }

    /// The port by which everything leaves the bridge.
    #[derive(Clone)]
    struct Sink {
        port: &'static str,
        role: PortRole,
        /// Whether what may leave by it is compared, too.
        delivers: bool,
    }

    impl Sink {
        fn open() -> Self {
            Self { port: SINK, role: PortRole::Uplink, delivers: false }
        }

        fn to(port: &'static str, role: PortRole) -> Self {
            Self { port, role, delivers: true }
        }
    }

    fn stranger() -> Who {
        Who {
            mac: [2, 0, 0, 0, 0xee, 0xee],
            ip4: Ipv4Addr::new(198, 18, 0, 9),
            ip6: "2001:db8:eeee::9".parse().unwrap(),
        }
    }

    /// What a socket shows of a frame: the kernel takes the outermost tag off.
    fn shown(frame: &[u8]) -> Vec<u8> {
        let is_tagged = frame.len() >= 20 && [[0x81, 0], [0x88, 0xa8]].iter().any(|tag| frame[12..14] == tag[..]);
        if is_tagged { [&frame[..12], &frame[16..]].concat() } else { frame.to_vec() }
    }

    impl Arena {
        fn new() -> Self {
            Self::with_sink(Sink::open())
        }

        fn with_sink(sink: Sink) -> Self {
            Self::watching(sink, &[])
        }

        /// With pools that are only watched.
        fn watching(sink: Sink, watched: &[&str]) -> Self {
            let mut lab = Lab::new();
            let own = |port: &'static str, mac: Mac| (port, mac);
            let mut ports = BOUND.map(|(port, vmid, nic, _)| own(port, guest_mac(vmid, nic))).to_vec();
            ports.extend([
                own("tap200i0", guest_mac(200, 0)),
                own("tap202i0", guest_mac(202, 0)),
                own("tap210i0", guest_mac(210, 0)),
                own("tap211i0", guest_mac(211, 0)),
                own("fwpr103p0", guest_mac(103, 0)),
                own("fwln103i0", guest_mac(103, 1)),
                own("eno1", PEER),
                own(SINK, [2, 0, 0, 0, 0xff, 3]),
            ]);
            for (port, mac) in &ports {
                lab.plug(port, "vmbr0", *mac);
            }
            lab.settle();
            // Everything goes to the sink, whatever was learnt before and whoever else is there.
            for (port, _) in &ports {
                let others = if *port == sink.port { "on" } else { "off" };
                sh(&format!(
                    "ip link set {port} type bridge_slave learning off flood {others} mcast_flood {others} \
                     bcast_flood {others}; bridge fdb flush dev {port} master 2>/dev/null || true"
                ));
            }
            sh("bridge fdb show br vmbr0 | grep -v permanent | while read -r mac dev port rest; do \
                bridge fdb del $mac dev $port master; done");
            let node_mac = link_mac("vmbr0");
            let mut nftables = Nftables::open().expect("nf_tables");
            nftables.declare_sets(Table::Bridge).expect("load the sets");
            let mut inputs = scene::inputs(node_mac, sink.delivers);
            for name in watched {
                inputs.registry.pools.pools.get_mut(&name.parse::<PoolName>().unwrap()).unwrap().enforce =
                    Some(Enforce::Watch);
            }
            let judge = (!watched.is_empty()).then(|| Judge::of(&inputs));
            nftables.change_elements(&scene::elements(&inputs), &[]).expect("add the elements");
            nftables.load_rules(Table::Bridge, None).expect("load the rules");

            let mut local = vec![node_mac];
            local.extend(ports.iter().map(|(port, _)| link_mac(port)));
            let bindings = scene::bindings(node_mac);
            let mut players = players(&lab, node_mac);
            players.retain(|player| player.port != sink.port);
            // Who may not leave by the sink cannot tell that a batch is over.
            let is_heard = |player: &Player| {
                let verdict = delivery(&player.fence(0), &player.role, &sink.role, &bindings);
                !sink.delivers || verdict == Verdict::Pass
            };
            players.retain(is_heard);
            for player in &mut players {
                let passes = |frame: &&Vec<u8>| verdict(frame, &player.role, &bindings) == Verdict::Pass;
                player.good = player.seeds.iter().filter(passes).cloned().collect();
            }
            let mut words = words(&players, node_mac);
            if sink.delivers {
                let end = lab.end(sink.port);
                words.to.extend([end.mac; 12]);
                if let PortRole::Bound(port) = &sink.role {
                    words.own.extend(port.own.iter().map(IpNet::addr));
                }
            }
            Self { lab, players, bindings, words, local, fences: 0, sink, judge }
        }

        /// What must become of a frame on its way to the sink.
        fn wanted(&self, frame: &[u8], player: &Player) -> Verdict {
            let from = &player.role;
            if let Some(judge) = &self.judge {
                // The router's port is one by the test's own word: that it is not for the pools.
                let from = judge.roles(player.port.parse().unwrap());
                let sent = judge.sent(frame, &from).verdict;
                let to = judge.roles(self.sink.port.parse().unwrap());
                let is_sent = sent == Verdict::Pass && (self.sink.delivers || self.sink.role == PortRole::Uplink);
                return if is_sent { judge.delivered(frame, &from, &to).verdict } else { sent };
            }
            match verdict(frame, from, &self.bindings) {
                Verdict::Pass if self.sink.delivers => delivery(frame, from, &self.sink.role, &self.bindings),
                // Without a guard all leaves but what is of no pool.
                Verdict::Pass => {
                    let open = Bindings { registered: None, ..self.bindings.clone() };
                    delivery(frame, from, &self.sink.role, &open)
                }
                verdict => verdict,
            }
        }

        /// Sends frames of which no two look the same at the sink, and says which arrived.
        fn play(&mut self, player: usize, frames: &[Vec<u8>]) -> Vec<bool> {
            let player = &self.players[player];
            let (wire, sink) = (&self.lab.end(player.port).wire, &self.lab.end(self.sink.port).wire);
            sink.drain();
            let places: HashMap<Vec<u8>, usize> =
                frames.iter().enumerate().map(|(at, frame)| (shown(frame), at)).collect();
            assert_eq!(places.len(), frames.len(), "two frames of one batch look the same");
            for frame in frames {
                wire.send(frame);
            }
            let fence = player.fence(self.fences);
            self.fences += 1;
            wire.send(&fence);
            let mut arrived = vec![false; frames.len()];
            let started = Instant::now();
            loop {
                match sink.receive(Duration::from_secs(2)) {
                    Some(bytes) if bytes == fence => break,
                    Some(bytes) => {
                        if let Some(at) = places.get(&bytes) {
                            arrived[*at] = true;
                        }
                    }
                    None => {}
                }
                assert!(started.elapsed() < Duration::from_secs(60), "the fence of {} did not arrive", player.port);
            }
            arrived
        }
    }

    fn players(lab: &Lab, node_mac: Mac) -> Vec<Player> {
        let mut players = Vec::new();
        let frames = |cases: Vec<Case>| cases.into_iter().map(|case| case.frame).collect::<Vec<_>>();
        for (port, vmid, nic, last) in BOUND {
            let me = who(guest_mac(vmid, nic), last);
            let mut seeds = frames(verdicts::bound_port(me, &scene_for(me, node_mac)));
            if vmid == 100 {
                for (last, subnet) in [(9, 1), (15, 0x2ff)] {
                    let ip6 = Ipv6Addr::new(0x2001, 0xdb8, 0x100, subnet, 0, 0, 0, 9);
                    let me = Who { ip4: Ipv4Addr::new(198, 51, 100, last), ip6, ..me };
                    seeds.extend(frames(verdicts::own_prefix(me, &scene_for(me, node_mac))));
                }
            }
            if (vmid, nic) == (100, 1) {
                // With each of its MACs, from what it has besides the addresses of pools and from what it holds.
                for mac in [me.mac, scene::FURTHER_MAC].into_iter().chain(scene::VIRTUAL_MACS) {
                    let inner = Who { mac, ip4: scene::INNER_IP4, ip6: scene::INNER_IP6 };
                    for me in [Who { mac, ..me }, inner] {
                        seeds.extend(frames(verdicts::bound_port(me, &scene_for(me, node_mac))));
                    }
                }
            }
            if vmid == 102 {
                let me = Who { ip4: Ipv4Addr::new(198, 51, 100, 17), ..me };
                seeds.extend(frames(verdicts::own_prefix(me, &scene_for(me, node_mac))));
            }
            let inside: Vec<_> = seeds.iter().map(|frame| frames::tagged(0x8100, TRUNK_VLAN, frame)).collect();
            seeds.extend((vmid == 102).then_some(inside).into_iter().flatten());
            players.push(Player { port, role: scene::bound_role(vmid, nic, last), me, seeds, good: Vec::new() });
        }
        for (port, role) in [
            ("tap200i0", PortRole::Guest { router: false }),
            ("tap202i0", PortRole::Guest { router: true }),
            ("tap210i0", PortRole::Free),
            ("tap211i0", PortRole::Elsewhere),
            ("fwpr103p0", PortRole::SecondTraversal),
            ("fwln103i0", PortRole::SecondTraversal),
            ("eno1", PortRole::Uplink),
        ] {
            let end = lab.end(port);
            let me = Who { mac: end.mac, ip4: end.ip4, ip6: end.ip6 };
            let scene = scene_for(me, node_mac);
            let is_uplink = role == PortRole::Uplink;
            let mut seeds = frames(verdicts::unbound_port(me, &scene, is_uplink));
            for victim in [scene.victim, scene.gateway, who(guest_mac(104, 0), 15), who(guest_mac(102, 0), 13)] {
                seeds.extend(frames(verdicts::claims(me, victim, "", true, false)));
                seeds.extend(frames(verdicts::link_local_claims(me, victim, "")));
                seeds.extend(with_inner_mac(me, victim.mac));
            }
            let router = Who { ip6: "fe80::1".parse().unwrap(), ..who(GATEWAY, 1) };
            seeds.extend(frames(verdicts::claims(me, router, "", true, false)));
            seeds.extend(frames(verdicts::claims(me, Who { ip6: scene::NODE_LOCAL, ..scene.node }, "", false, false)));
            let (ip4, ip6) = scene::OTHER_NETWORK;
            seeds.extend(frames(verdicts::claims(me, Who { ip4, ip6, ..scene.node }, "", true, false)));
            seeds.extend(with_inner_mac(me, GATEWAY));
            // What comes back by way of the gateway.
            let returning = Who { mac: GATEWAY, ..me };
            seeds.extend(frames(verdicts::claims(returning, scene.victim, "", false, false)));
            players.push(Player { port, role, me, seeds, good: Vec::new() });
        }
        players
    }

    fn scene_for(me: Who, node_mac: Mac) -> Scene {
        let victim = if me.mac == guest_mac(100, 0) { who(guest_mac(101, 0), 11) } else { who(guest_mac(100, 0), 10) };
        Scene { gateway: who(GATEWAY, 1), node: who(node_mac, 250), victim, stranger: stranger() }
    }

    fn words(players: &[Player], node_mac: Mac) -> Words {
        let mut macs: Vec<Mac> = players.iter().map(|player| player.me.mac).collect();
        macs.extend([GATEWAY, node_mac, guest_mac(104, 0), guest_mac(105, 0), stranger().mac]);
        let mut ip4: Vec<Ipv4Addr> = players.iter().map(|player| player.me.ip4).collect();
        ip4.extend((1..=4).chain([8, 15, 16, 17, 23, 24, 128]).map(|last| Ipv4Addr::new(198, 51, 100, last)));
        ip4.extend([1, 15, 16, 20, 21, 250].map(|last| Ipv4Addr::new(203, 0, 113, last)));
        ip4.extend([Ipv4Addr::new(203, 0, 113, 255), Ipv4Addr::new(198, 51, 100, 255), Ipv4Addr::new(192, 0, 2, 143)]);
        ip4.extend([Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, Ipv4Addr::new(192, 0, 2, 130), Ipv4Addr::LOCALHOST]);
        let mut ip6: Vec<Ipv6Addr> = players.iter().map(|player| player.me.ip6).collect();
        ip6.extend(macs.iter().map(|mac| lab::link_local(*mac)));
        ip6.extend(
            [
                "::",
                "::1",
                "::ffff:203.0.113.10",
                "fe80::1",
                "fe80::2",
                "fe80::1234:5678:9abc:def0",
                "ff02::1",
                "ff02::1:ff00:10",
                "2001:db8:100:1::77",
                "2001:db8:100:2ff::1",
                "2001:db8:100:300::1",
                "2001:db8:100::1",
                "2001:db8:0:1::15",
                "2001:db8:0:1::1",
                "2001:db8:0:1::250",
                "2001:db8:0:1::dead",
                "fe80:1::1",
                "febf::1",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ]
            .map(|text| text.parse::<Ipv6Addr>().unwrap()),
        );
        ip6.extend([scene::NAMED_LOCAL, scene::NODE_LOCAL, scene::OTHER_NETWORK.1, scene::INNER_IP6]);
        ip4.extend([scene::OTHER_NETWORK.0, scene::INNER_IP4]);
        macs.extend([scene::FURTHER_MAC, scene::VIRTUAL_MACS[0]]);
        let to = vec![
            BROADCAST,
            GATEWAY,
            guest_mac(200, 0),
            guest_mac(100, 0),
            [0x33, 0x33, 0, 0, 0, 1],
            [1, 0, 0x5e, 0, 0, 1],
        ];
        Words { macs, ip4, ip6, vlans: vec![0, 0, 10, TRUNK_VLAN, TRUNK_VLAN, 4095], to, own: Vec::new() }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Enough to see what a frame is about: MACs, tags, and the content word by word.
    fn decoded(frame: &[u8]) -> String {
        let mut text = format!("to {} from {}", hex(&frame[..6]), hex(&frame[6..12]));
        let mut rest = &frame[12..];
        while let Some([a @ (0x81 | 0x88 | 0x91 | 0x92), b @ (0 | 0xa8), c, d]) = rest.first_chunk::<4>() {
            text += &format!(", tag {a:02x}{b:02x} VLAN {}", u16::from_be_bytes([*c, *d]) & 0xfff);
            rest = &rest[4..];
        }
        let (kind, body) = rest.split_at(2.min(rest.len()));
        text += &format!(", {} and {} bytes: ", hex(kind), body.len());
        let fields: &[usize] = match kind {
            [8, 0] => &[1, 1, 2, 2, 2, 1, 1, 2, 4, 4, 2, 2, 4],
            [8, 6] | [0x80, 0x35] => &[2, 2, 1, 1, 2, 6, 4, 6, 4],
            [0x86, 0xdd] => &[4, 2, 1, 1, 16, 16, 8, 8, 8, 8, 8, 8, 8],
            _ => &[8, 8, 8],
        };
        let mut at = 0;
        for field in fields.iter().chain([&body.len()]) {
            let end = (at + field).min(body.len());
            text += &format!("{} ", hex(&body[at..end]));
            at = end;
        }
        text.trim_end().to_owned()
    }

    /// How it went.
    #[derive(Default)]
    struct Tally {
        /// By port: had to pass, had to be dropped, did not matter.
        frames: BTreeMap<&'static str, [usize; 3]>,
        wrong: BTreeMap<String, Vec<String>>,
    }

    impl Tally {
        fn play(&mut self, arena: &mut Arena, player: usize, frames: &[Vec<u8>]) {
            let arrived = arena.play(player, frames);
            let Player { port, .. } = &arena.players[player];
            for (frame, arrived) in frames.iter().zip(arrived) {
                let wanted = arena.wanted(frame, &arena.players[player]);
                let (column, agrees) = match wanted {
                    Verdict::Pass => (0, arrived),
                    Verdict::Drop(_) => (1, !arrived),
                    Verdict::Either(_) => (2, true),
                };
                self.frames.entry(port).or_default()[column] += 1;
                if !agrees {
                    let did = if arrived { "passed" } else { "was dropped" };
                    let what = format!("from {port}: {wanted:?} for the oracle, {did} in the kernel");
                    self.wrong.entry(what).or_default().push(format!("{}\n    {}", hex(frame), decoded(frame)));
                }
            }
        }

        fn conclude(self, what: &str) {
            let mut text = String::new();
            for (port, [pass, drop, either]) in &self.frames {
                let all = pass + drop + either;
                text += &format!("{what}: {port:9} {all:7} frames: {pass} pass, {drop} drop, {either} useless\n");
            }
            let wrong: usize = self.wrong.values().map(Vec::len).sum();
            text += &format!("{what}: {wrong} disagreements\n");
            // Not by a macro that the test harness captures: the figures are worth reading when all is well.
            std::io::stderr().write_all(text.as_bytes()).unwrap();
            assert!(!self.frames.is_empty(), "nothing was played");
            for (kind, frames) in &self.wrong {
                text += &format!("{} x {kind}\n", frames.len());
                let shortest = frames.iter().min_by_key(|frame| frame.len()).into_iter();
                text += &shortest.chain(frames.iter().take(2)).map(|frame| format!("  {frame}\n")).collect::<String>();
            }
            assert!(self.wrong.is_empty(), "{text}");
        }
    }

    /// Frames made by chance for one port, no two alike at the sink.
    fn batch(arena: &Arena, player: usize, random: &mut Random) -> Vec<Vec<u8>> {
        let mut frames: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        while frames.len() < BATCH {
            // Mostly its own frames; sometimes what another port would send.
            let source = if random.once_in(6) { random.below(arena.players.len()) } else { player };
            let Player { seeds, good, .. } = &arena.players[source];
            let near = if random.once_in(2) { seeds } else { good };
            let mut frame = random.pick(near).clone();
            for _ in 0..random.below(5) {
                mutate(&mut frame, &arena.words, random);
            }
            if source != player && random.once_in(2) {
                frame[6..12].copy_from_slice(&arena.players[player].me.mac);
            }
            if arena.sink.delivers && random.once_in(2) {
                address_to(&mut frame, &arena.words, random);
            }
            keep_on_the_bridge(&mut frame, &arena.local);
            if !random.once_in(4) {
                repair(&mut frame);
            }
            if frame.len() <= 1500 {
                frames.insert(shown(&frame), frame);
            }
        }
        let mut frames: Vec<_> = frames.into_values().collect();
        frames.sort_unstable();
        frames
    }

    fn run(arena: &mut Arena, seed: u64, frames: usize, limit: Option<Duration>) {
        let what = format!("differential: seed {seed}");
        std::io::stderr().write_all(format!("{what}\n").as_bytes()).unwrap();
        let (mut random, mut tally, started) = (Random::new(seed), Tally::default(), Instant::now());
        let mut count = 0;
        while limit.map_or(count < frames, |limit| started.elapsed() < limit) {
            let player = random.below(arena.players.len());
            let frames = batch(arena, player, &mut random);
            tally.play(arena, player, &frames);
            count += frames.len();
        }
        tally.conclude(&what);
    }

    // ---- a neighbour that believes what it hears -----------------------------------------------------------

    /// Behind this port is a Linux that takes every advertisement for true: no frame that passes may fool it.
    const NEIGHBOUR: &str = "eno3";
    const NEIGHBOUR_MAC: Mac = [2, 0, 0, 0, 0xff, 4];

    /// Who has what, as far as it is protected from a port.
    struct Truth {
        owners: BTreeMap<IpAddr, Mac>,
        /// Nobody has an address of these that is not among `owners`.
        protected: Vec<IpNet>,
    }

    impl Truth {
        /// What is bound, and if no uplink speaks, all that is reserved.
        fn new(arena: &Arena, with_uplink: bool) -> Self {
            let mut owners = BTreeMap::new();
            for (_, vmid, nic, last) in BOUND {
                let who = who(guest_mac(vmid, nic), last);
                let own = [who.ip4.into(), who.ip6.into(), lab::link_local(who.mac).into()];
                owners.extend(own.map(|address: IpAddr| (address, who.mac)));
            }
            owners.insert("198.51.100.16".parse().unwrap(), guest_mac(102, 0));
            let prefixes = ["198.51.100.8", "198.51.100.15", "2001:db8:100:1::77", "2001:db8:100:2ff::1"];
            owners.insert(scene::NAMED_LOCAL.into(), guest_mac(100, 0));
            owners.extend(prefixes.map(|address| (address.parse().unwrap(), guest_mac(100, 0))));
            let Bindings { bound, infrastructure, reserved, .. } = &arena.bindings;
            let mut protected = bound.nets.clone();
            if !with_uplink {
                owners.extend([who(GATEWAY, 1).ip4.into(), who(GATEWAY, 1).ip6.into()].map(|ip: IpAddr| (ip, GATEWAY)));
                owners.insert("fe80::1".parse().unwrap(), GATEWAY);
                owners.insert(lab::link_local(GATEWAY).into(), GATEWAY);
                let away = who(guest_mac(104, 0), 15);
                owners.extend([away.ip4.into(), away.ip6.into()].map(|ip: IpAddr| (ip, away.mac)));
                protected.extend(infrastructure.nets.iter().chain(&reserved.nets));
            }
            Self { owners, protected }
        }

        /// The neighbour learns the truth and forgets everything else.
        fn tell(&self, arena: &Arena) {
            let mut script = "ip neigh flush dev eth0 nud all; ip -batch - <<END\n".to_owned();
            for (address, mac) in &self.owners {
                script += &format!("neigh replace {address} lladdr {} dev eth0 nud stale\n", lab::text(*mac));
            }
            arena.lab.end(NEIGHBOUR).namespace().run(|| sh(&script));
        }

        /// What the neighbour believes and is not true.
        fn lies(&self, arena: &Arena) -> Vec<String> {
            let table =
                arena.lab.end(NEIGHBOUR).namespace().run(|| sh("ip neigh show dev eth0; ip -6 neigh show dev eth0"));
            // The MACs of one NIC are as good as each other.
            let several = scene::VIRTUAL_MACS.into_iter().chain([scene::FURTHER_MAC]).map(lab::text);
            let several: Vec<String> = several.collect();
            let is_lie = |line: &&str| {
                let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
                for word in words.iter_mut().filter(|word| several.contains(word)) {
                    *word = lab::text(guest_mac(100, 1));
                }
                let Some(at) = words.iter().position(|word| *word == "lladdr") else { return false };
                let address: IpAddr = words[0].parse().unwrap();
                let is_true = self.owners.get(&address).is_some_and(|mac| lab::text(*mac) == words[at + 1]);
                // The owner of a prefix may announce any address of it.
                let owner = scene::owner_of_prefix(address);
                let own = || owner.is_some_and(|owner| words[at + 1] == lab::text(owner));
                self.protected.iter().any(|net| net.contains(&address)) && !is_true && !own()
            };
            table.lines().filter(is_lie).map(str::to_owned).collect()
        }
    }

    fn plug_in_neighbour(arena: &mut Arena) {
        arena.lab.plug(NEIGHBOUR, "vmbr0", NEIGHBOUR_MAC);
        sh(&format!("ip link set {NEIGHBOUR} type bridge_slave learning off"));
        arena.lab.end(NEIGHBOUR).namespace().run(|| {
            for (key, value) in [
                ("ipv6/conf/eth0/disable_ipv6", "0"),
                ("ipv6/conf/eth0/accept_ra", "0"),
                ("ipv6/conf/eth0/accept_untracked_na", "2"),
                ("ipv6/conf/eth0/dad_transmits", "0"),
                ("ipv4/conf/eth0/arp_accept", "1"),
                ("ipv4/neigh/eth0/locktime", "0"),
            ] {
                lab::write(&format!("/proc/sys/net/{key}"), value);
            }
            sh("ip addr add 203.0.113.251/24 dev eth0; ip addr add 2001:db8:0:1::251/64 dev eth0 nodad; \
                ip route add 198.51.100.0/24 dev eth0; ip route add 192.0.2.0/24 dev eth0; \
                ip route add 2001:db8::/32 dev eth0");
        });
        arena.local.push(link_mac(NEIGHBOUR));
        // To be spoken to by name.
        arena.words.to = vec![BROADCAST, NEIGHBOUR_MAC, NEIGHBOUR_MAC, [0x33, 0x33, 0, 0, 0, 1]];
        arena.words.ip4.push(Ipv4Addr::new(203, 0, 113, 251));
        arena.words.ip6.extend(["2001:db8:0:1::251".parse().unwrap(), lab::link_local(NEIGHBOUR_MAC)]);
        let ports = arena.players.len();
        let started = Instant::now();
        while !sh(&format!("bridge link show dev {NEIGHBOUR}")).contains("state forwarding") {
            assert!(started.elapsed() < Duration::from_secs(60), "port {NEIGHBOUR} of {ports} does not forward");
        }
    }

    /// Plays frames and returns what the neighbour was made to believe, with the seed.
    fn fool(arena: &mut Arena, players: &[usize], truth: &Truth, seed: u64, rounds: usize) -> (usize, Vec<String>) {
        let mut random = Random::new(seed);
        let mut count = 0;
        for _ in 0..rounds {
            truth.tell(arena);
            let mut last = Vec::new();
            for _ in 0..8 {
                let player = *random.pick(players);
                let mut frames = batch(arena, player, &mut random);
                for frame in &mut frames {
                    if frame[..2] != [0x33, 0x33] {
                        let to = if random.once_in(3) { BROADCAST } else { NEIGHBOUR_MAC };
                        frame[..6].copy_from_slice(&to);
                    }
                }
                let mut distinct = HashSet::new();
                frames.retain(|frame| distinct.insert(shown(frame)));
                arena.play(player, &frames);
                count += frames.len();
                last.extend(frames.into_iter().map(|frame| (player, frame)));
            }
            if truth.lies(arena).is_empty() {
                continue;
            }
            // Which one was it?
            for (player, frame) in last {
                truth.tell(arena);
                arena.play(player, std::slice::from_ref(&frame));
                let lies = truth.lies(arena);
                if !lies.is_empty() {
                    let port = arena.players[player].port;
                    let line = format!(
                        "seed {seed}, from {port}: {}\n  {}\n  {}",
                        hex(&frame),
                        decoded(&frame),
                        lies.join("; ")
                    );
                    return (count, vec![line]);
                }
            }
            return (count, vec![format!("seed {seed}: fooled by several frames together")]);
        }
        (count, Vec::new())
    }

    #[test]
    fn a_credulous_neighbour_is_not_fooled() {
        let mut arena = Arena::new();
        plug_in_neighbour(&mut arena);
        let index = |wanted: fn(&PortRole) -> bool| {
            arena
                .players
                .iter()
                .enumerate()
                .filter(|(_, player)| wanted(&player.role))
                .map(|(at, _)| at)
                .collect::<Vec<_>>()
        };
        let guests = index(|role| matches!(role, PortRole::Bound(_) | PortRole::Guest { .. }));
        let all = index(|role| !matches!(role, PortRole::Free | PortRole::SecondTraversal));
        let (without_uplink, with_uplink) = (Truth::new(&arena, false), Truth::new(&arena, true));
        let seed = seed();
        let rounds = number("PVE_PUBLIC_IP_FUZZ_SECONDS").map_or(12, |seconds| usize::try_from(seconds).unwrap() * 4);
        for (what, players, truth) in [("guests", &guests, &without_uplink), ("guests and uplink", &all, &with_uplink)]
        {
            let (played, lies) = fool(&mut arena, players, truth, seed, rounds);
            let line = format!("differential: a neighbour heard {played} frames of {what}, seed {seed}\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            assert!(lies.is_empty(), "{what}: {}", lies.join("\n"));
        }
        // Else this would be green with a neighbour that hears nothing.
        sh("nft flush ruleset");
        for (players, truth) in [(&guests, &without_uplink), (&all, &with_uplink)] {
            let (_, lies) = fool(&mut arena, players, truth, seed, 12);
            assert!(!lies.is_empty(), "without the rules the neighbour must believe lies");
        }
    }

    fn seed() -> u64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        number("PVE_PUBLIC_IP_FUZZ_SEED").unwrap_or_else(|| u64::from(now.subsec_nanos()) ^ now.as_secs())
    }

    fn number(name: &str) -> Option<u64> {
        let text = std::env::var(name).ok()?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not `{text}`")))
    }

    /// Frames that once fared otherwise than they should.
    fn found_before(me: Who) -> Vec<Vec<u8>> {
        let local = lab::link_local(me.mac);
        let all = |ethertype, payload: &[u8]| ether(BROADCAST, me.mac, ethertype, payload);
        let v6 = |from, next, hops, payload: &[u8]| all(IP6, &ip6(from, ALL_NODES, next, hops, payload));
        let alert = |options: [u8; 6]| {
            let report = icmp6(local, ALL_NODES, 143, &mld2_body(ALL_NODES));
            v6(local, 0, 1, &[&[58, 0], &options[..], &report].concat())
        };
        vec![
            all(IP4, &ip4(me.ip4, Ipv4Addr::BROADCAST, 255, 0, b"protocol 255")),
            v6(me.ip6, 255, 64, b"protocol 255"),
            v6(me.ip6, 60, 64, &[&options_header(255)[..], b"protocol 255"].concat()),
            v6(me.ip6, frames::ICMP6, 64, &icmp6(me.ip6, ALL_NODES, 255, b"type 255")),
            Arp::request((me.mac, me.ip4), Ipv4Addr::BROADCAST).frame(BROADCAST, me.mac),
            frames::tagged(
                0x8100,
                TRUNK_VLAN,
                &Arp::request((me.mac, me.ip4), Ipv4Addr::BROADCAST).frame(BROADCAST, me.mac),
            ),
            v6(
                me.ip6,
                frames::ICMP6,
                255,
                &icmp6(me.ip6, ALL_NODES, 136, &nd_body(0, Ipv6Addr::from([0xff; 16]), &[])),
            ),
            alert([5, 2, 0, 0, 0, 0]),
            alert([0, 0, 5, 2, 0, 0]),
            frames::tagged(0x8100, 10, &all(0x88b6, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 6, 1, 2])),
        ]
    }

    /// The own address with somebody else's MAC inside the message.
    fn with_inner_mac(me: Who, mac: Mac) -> Vec<Vec<u8>> {
        let none = Ipv4Addr::UNSPECIFIED;
        let nd = |kind, body: &[u8]| {
            let message = icmp6(me.ip6, ALL_NODES, kind, body);
            ether(BROADCAST, me.mac, IP6, &ip6(me.ip6, ALL_NODES, frames::ICMP6, 255, &message))
        };
        let rarp = |sender, target| {
            let arp = Arp { operation: 3, target: (target, none), ..Arp::request((sender, none), none) };
            ether(BROADCAST, me.mac, 0x8035, &arp.bytes())
        };
        let plain = [
            rarp(mac, me.mac),
            rarp(me.mac, mac),
            nd(133, &[&[0; 4], &lladdr_option(1, mac)[..]].concat()),
            nd(135, &nd_body(0, stranger().ip6, &lladdr_option(1, mac))),
            nd(136, &nd_body(0x20, me.ip6, &lladdr_option(2, mac))),
        ];
        let tagged = plain.iter().map(|frame| frames::tagged(0x8100, 0, frame)).collect::<Vec<_>>();
        plain.into_iter().chain(tagged).collect()
    }

    fn play_known_frames(arena: &mut Arena, what: &str) {
        let mut tally = Tally::default();
        for player in 0..arena.players.len() {
            let mut batches: Vec<HashMap<Vec<u8>, Vec<u8>>> = vec![HashMap::new()];
            let Player { me, seeds, .. } = &arena.players[player];
            for mut frame in seeds.iter().cloned().chain(found_before(*me)) {
                keep_on_the_bridge(&mut frame, &arena.local);
                // With its tag a frame looks like another one without at the sink: they go one after the other.
                let key = shown(&frame);
                if batches.iter().all(|batch| batch.contains_key(&key)) {
                    batches.push(HashMap::new());
                }
                batches.iter_mut().find(|batch| !batch.contains_key(&key)).unwrap().insert(key, frame);
            }
            for batch in batches {
                tally.play(arena, player, &batch.into_values().collect::<Vec<_>>());
            }
        }
        tally.conclude(&format!("differential: {what}"));
    }

    #[test]
    fn every_known_frame_fares_as_the_oracle_says() {
        let mut arena = Arena::new();
        play_known_frames(&mut arena, "known frames");
        let listing = sh("nft list ruleset");
        sh("nft flush ruleset");
        lab::nft(&listing);
        play_known_frames(&mut arena, "known frames, rules listed and loaded again");
    }

    #[test]
    fn the_oracle_and_the_table_of_the_kernel_test_agree() {
        let node_mac = [2, 0, 0, 0, 0xe0, 1];
        let bindings = scene::bindings(node_mac);
        let mut wrong = Vec::new();
        let mut compare = |port: &str, role: &PortRole, cases: Vec<Case>| {
            for case in cases {
                let verdict = verdict(&case.frame, role, &bindings);
                let agrees = match verdict {
                    Verdict::Pass => case.passes,
                    Verdict::Drop(_) => !case.passes,
                    Verdict::Either(_) => true,
                };
                if !agrees {
                    wrong.push(format!("{port}, {}: {verdict:?}, but there {}", case.class, case.passes));
                }
            }
        };
        for (port, vmid, nic, last) in [BOUND[0], BOUND[3]] {
            let me = who(guest_mac(vmid, nic), last);
            compare(port, &scene::bound_role(vmid, nic, last), verdicts::bound_port(me, &scene_for(me, node_mac)));
        }
        for (port, mac, role) in
            [("tap200i0", guest_mac(200, 0), PortRole::Guest { router: false }), ("eno1", PEER, PortRole::Uplink)]
        {
            let ip6 = "2001:db8:ffff::99".parse().unwrap();
            let (me, is_uplink) = (Who { mac, ip4: Ipv4Addr::new(192, 0, 2, 99), ip6 }, role == PortRole::Uplink);
            let scene = scene_for(me, node_mac);
            compare(port, &role, verdicts::unbound_port(me, &scene, is_uplink));
            compare(port, &role, verdicts::claims(me, scene.victim, "a bound guest", true, false));
            compare(port, &role, verdicts::link_local_claims(me, scene.victim, "a bound guest"));
            for (name, whom) in [("a stopped guest", who(guest_mac(104, 0), 15)), ("the gateway", who(GATEWAY, 1))] {
                compare(port, &role, verdicts::claims(me, whom, name, true, is_uplink));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn the_same_frames_made_by_chance_fare_as_the_oracle_says() {
        run(&mut Arena::new(), FIXED_SEED, FRAMES, None);
    }

    /// The pool's other ports as sinks: what leaves by them is judged a second time.
    #[test]
    fn what_is_delivered_fares_as_the_oracle_says() {
        let bound = |vmid, nic, last| scene::bound_role(vmid, nic, last);
        for sink in [
            Sink::to("tap100i0", bound(100, 0, 10)),
            Sink::to("tap101i0", bound(101, 0, 11)),
            Sink::to("veth102i0", bound(102, 0, 13)),
            Sink::to("tap200i0", PortRole::Guest { router: false }),
            Sink::to("tap202i0", PortRole::Guest { router: true }),
            Sink::to("tap211i0", PortRole::Elsewhere),
            Sink::to(SINK, PortRole::Uplink),
        ] {
            for seed in [FIXED_SEED, seed()] {
                run(&mut Arena::with_sink(sink.clone()), seed, FRAMES / 8, None);
            }
        }
    }

    /// What is dropped because of a pool that is only watched passes, and nothing else does.
    #[test]
    fn a_watched_pool_stops_nothing_and_the_others_do() {
        for watched in [&["public"][..], &["returning"], &["public", "returning"]] {
            for (port, role) in [(SINK, None), ("tap100i0", Some(scene::bound_role(100, 0, 10)))] {
                let sink = role.map_or_else(Sink::open, |role| Sink::to(port, role));
                for seed in [FIXED_SEED, seed()] {
                    let mut arena = Arena::watching(sink.clone(), watched);
                    arena.players.retain(|player| player.port != "tap202i0");
                    run(&mut arena, seed, FRAMES / 10, None);
                }
            }
        }
    }

    #[test]
    fn other_frames_made_by_chance_fare_as_the_oracle_says() {
        let limit = number("PVE_PUBLIC_IP_FUZZ_SECONDS").map(Duration::from_secs);
        run(&mut Arena::new(), seed(), FRAMES, limit);
    }
}
