//! What it costs to find subnets: processor time for a plan of 4,000 applications, and for the search alone, 1,000 and
//! 10,000 blocks of a /8 with 500 ranges in use. Prints name and milliseconds, separated by a tab.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring program")]

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::Ipv4Net;
use nix::time::{ClockId, clock_gettime};
use pve_public_ip::model::Vmid;
use pve_public_ip::partition::{Labels, Member, Network, Request, Space, Strategy, plan};

/// As many applications with one to twelve guests each.
fn network(groups: u32) -> Network {
    let mut members: BTreeMap<Vmid, Member> = BTreeMap::new();
    for group in 0..groups {
        for guest in 0..=group * 7 % 12 {
            let labels = Labels { app: Some(format!("app{group}")), ..Labels::default() };
            let member = Member { node: "pve1".parse().unwrap(), name: None, labels, ports: Vec::new() };
            members.insert((100 + group * 12 + guest).to_string().parse().unwrap(), member);
        }
    }
    Network { members, ..Network::default() }
}

/// Blocks of /22 to /29, the largest first, beside what is in use.
fn search(blocks: usize) {
    let mut space = Space::new("10.0.0.0/8".parse().unwrap());
    for number in 0..500u32 {
        let start = (10 << 24) | (number.wrapping_mul(2_654_435_761) & 0x00ff_ff00);
        space.block(Ipv4Net::new(start.into(), 24).unwrap());
    }
    let mut lengths: Vec<u8> = (0..blocks).map(|block| 22 + u8::try_from(block * 5 % 8).unwrap()).collect();
    lengths.sort_unstable();
    for length in lengths {
        assert!(space.allocate(length).is_some());
    }
}

fn processor_time(work: impl Fn()) -> Duration {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap());
    let before = now();
    work();
    now().saturating_sub(before)
}

fn main() {
    let request = Request {
        strategy: Strategy::PerApplication,
        base: "10.0.0.0/8".parse().unwrap(),
        base6: None,
        growth: "2".parse().unwrap(),
        vlan_range: "1-4094".parse().unwrap(),
    };
    let network = network(4000);
    let mut taken: [Vec<Duration>; 3] = Default::default();
    for _ in 0..15 {
        taken[0].push(processor_time(|| search(1000)));
        taken[1].push(processor_time(|| search(10_000)));
        taken[2].push(processor_time(|| assert!(plan(&network, &request, None).is_ok())));
    }
    for (name, mut taken) in ["search1000", "search10000", "plan4000"].into_iter().zip(taken) {
        taken.sort_unstable();
        println!("{name}\t{:.2}", taken[taken.len() / 2].as_secs_f64() * 1e3);
    }
}
