//! Free address space, and the search for a place in it.
//!
//! Free space is kept as the largest aligned blocks that fit into it (a buddy system), by size and by address. To take
//! a block is to split one; nothing is scanned, so that ten thousand subnets of a /8 take milliseconds.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

/// Free space in a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// For each prefix length (the index) the first addresses of the free blocks. No two of them could be one block.
    free: [BTreeSet<u32>; 33],
    base: Ipv4Net,
}

/// Addresses in a block of this prefix length.
fn size(length: u8) -> u64 {
    1 << (32 - u32::from(length))
}

impl Space {
    /// All of `base` is free.
    pub fn new(base: Ipv4Net) -> Self {
        let mut free: [BTreeSet<u32>; 33] = std::array::from_fn(|_| BTreeSet::new());
        free[usize::from(base.prefix_len())].insert(base.network().into());
        Self { free, base: base.trunc() }
    }

    /// Takes whatever of `net` is still free, so that nothing is placed there.
    pub fn block(&mut self, net: Ipv4Net) {
        let net = net.trunc();
        if self.take(net) {
            return;
        }
        // No free block holds all of it: what is free of it are whole blocks inside.
        let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
        for blocks in &mut self.free[usize::from(net.prefix_len())..] {
            let inside: Vec<u32> = blocks.range(first..=last).copied().collect();
            for start in inside {
                blocks.remove(&start);
            }
        }
    }

    /// Takes exactly `net`, if all of it is free.
    pub fn take(&mut self, net: Ipv4Net) -> bool {
        let (start, length) = (u32::from(net.network()), net.prefix_len());
        let Some(holder) =
            (0..=length).rev().find(|outer| self.free[usize::from(*outer)].contains(&masked(start, *outer)))
        else {
            return false;
        };
        self.split(masked(start, holder), holder, start, length);
        true
    }

    /// Takes the lowest free block of this length.
    ///
    /// Asked for the largest blocks first this leaves no gap that a later one could have filled.
    pub fn allocate(&mut self, length: u8) -> Option<Ipv4Net> {
        let lowest = |outer: u8| self.free[usize::from(outer)].first().map(|start| (*start, outer));
        let (start, holder) = (0..=length).filter_map(lowest).min()?;
        self.split(start, holder, start, length);
        Ipv4Net::new(start.into(), length).ok()
    }

    /// Takes the other half of the block that `net` is a half of, if it is free, and returns the whole block.
    pub fn grow(&mut self, net: Ipv4Net) -> Option<Ipv4Net> {
        let whole = net.supernet().filter(|whole| self.base.contains(whole))?;
        let other = whole.subnets(net.prefix_len()).ok()?.find(|half| *half != net)?;
        self.take(other).then_some(whole)
    }

    /// Addresses that are free.
    pub fn left(&self) -> u64 {
        (0..=32u8).map(|length| size(length) * self.free[usize::from(length)].len() as u64).sum()
    }

    /// The largest block that is free.
    pub fn largest(&self) -> Option<Ipv4Net> {
        (0..=32u8).find_map(|length| {
            let start = self.free[usize::from(length)].first()?;
            Ipv4Net::new((*start).into(), length).ok()
        })
    }

    /// Cuts the block `start/length` out of the free block `from/outer` that holds it.
    fn split(&mut self, from: u32, outer: u8, start: u32, length: u8) {
        self.free[usize::from(outer)].remove(&from);
        for inner in outer + 1..=length {
            let half = masked(start, inner);
            // The half that is not needed: it differs in the last bit of the prefix.
            self.free[usize::from(inner)].insert(half ^ (1 << (32 - u32::from(inner))));
        }
    }
}

/// The first address of the block of this length that holds the address.
fn masked(address: u32, length: u8) -> u32 {
    if length == 0 { 0 } else { address & (u32::MAX << (32 - u32::from(length))) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn the_lowest_place_that_fits_is_taken() {
        let mut space = Space::new(net("10.20.0.0/24"));
        space.block(net("10.20.0.0/30"));
        let mut taken = |length| space.allocate(length).map(|net| net.to_string());
        assert_eq!(taken(26).as_deref(), Some("10.20.0.64/26"));
        assert_eq!(taken(27).as_deref(), Some("10.20.0.32/27"));
        assert_eq!(taken(29).as_deref(), Some("10.20.0.8/29"));
        assert_eq!(taken(30).as_deref(), Some("10.20.0.4/30"));
        assert_eq!(taken(25).as_deref(), Some("10.20.0.128/25"));
        assert_eq!(taken(27), None);
        assert_eq!(space.left(), 16);
        assert_eq!(space.largest(), Some(net("10.20.0.16/28")));
    }

    #[test]
    fn a_block_grows_into_its_other_half_only() {
        let mut space = Space::new(net("10.20.0.0/24"));
        assert!(space.take(net("10.20.0.64/27")));
        assert_eq!(space.grow(net("10.20.0.64/27")), Some(net("10.20.0.64/26")));
        assert!(space.take(net("10.20.0.0/28")));
        assert_eq!(space.grow(net("10.20.0.64/26")), None);
        assert!(!space.take(net("10.20.0.0/27")), "a part of it is taken");
        let mut whole = Space::new(net("10.20.0.0/24"));
        assert!(whole.take(net("10.20.0.0/24")));
        assert_eq!(whole.grow(net("10.20.0.0/24")), None, "never beyond the base");
    }

    #[test]
    fn what_is_larger_than_the_base_blocks_all_of_it() {
        let mut space = Space::new(net("10.20.0.0/24"));
        space.block(net("10.0.0.0/8"));
        assert_eq!((space.left(), space.allocate(32)), (0, None));
        let mut elsewhere = Space::new(net("10.20.0.0/24"));
        elsewhere.block(net("192.0.2.0/24"));
        assert_eq!(elsewhere.left(), 256);
    }

    /// The least end (in addresses from the base's first one) that any order of placing at any free place reaches.
    fn optimum(free: &mut Vec<bool>, lengths: &[u32], end: usize) -> usize {
        let Some((first, rest)) = lengths.split_first() else { return end };
        let mut best = usize::MAX;
        for start in (0..free.len()).step_by(*first as usize) {
            let range = start..start + *first as usize;
            if range.end <= free.len() && free[range.clone()].iter().all(|free| *free) {
                free[range.clone()].fill(false);
                best = best.min(optimum(free, rest, end.max(range.end)));
                free[range].fill(true);
            }
        }
        best
    }

    proptest! {
        /// Against every possible placing: whatever fits at all is placed, and ends at most 1.15 times as far.
        #[test]
        fn nearly_as_tight_as_can_be(
            blocked in proptest::collection::vec((0u32..32, 28u8..=32), 0..4),
            mut lengths in proptest::collection::vec(28u8..=31, 1..5),
        ) {
            let base = net("10.0.0.0/27");
            let mut space = Space::new(base);
            let mut free = vec![true; 32];
            for (at, length) in blocked {
                let net = Ipv4Net::new((u32::from(base.network()) + at).into(), length).unwrap().trunc();
                space.block(net);
                for address in net.hosts().chain([net.network(), net.broadcast()]) {
                    free[(u32::from(address) - u32::from(base.network())) as usize] = false;
                }
            }
            lengths.sort_unstable();
            let sizes: Vec<u32> = lengths.iter().map(|length| 1 << (32 - length)).collect();
            let best = optimum(&mut free, &sizes, 0);
            let placed: Vec<Option<Ipv4Net>> = lengths.iter().map(|length| space.allocate(*length)).collect();
            if best == usize::MAX {
                prop_assert!(placed.iter().any(Option::is_none));
            } else {
                let ends = placed.iter().map(|net| u32::from(net.unwrap().broadcast()) - u32::from(base.network()) + 1);
                let end = ends.max().unwrap();
                prop_assert!(f64::from(end) <= 1.15 * f64::from(u32::try_from(best).unwrap()), "{end} for {best}");
            }
        }

        #[test]
        fn nothing_is_given_twice_and_nothing_is_lost(
            wanted in proptest::collection::vec((0u32..256, 24u8..=32, any::<bool>()), 0..40),
        ) {
            let base = net("10.0.0.0/24");
            let mut space = Space::new(base);
            let mut taken: Vec<Ipv4Net> = Vec::new();
            let mut left = 256;
            for (at, length, named) in wanted {
                let named_net = Ipv4Net::new((u32::from(base.network()) + at).into(), length).unwrap().trunc();
                let got = if named { space.take(named_net).then_some(named_net) } else { space.allocate(length) };
                let overlaps = |net: &Ipv4Net| taken.iter().any(|other| other.contains(net) || net.contains(other));
                if let Some(got) = got {
                    prop_assert!(!overlaps(&got));
                    left -= size(got.prefix_len());
                    taken.push(got);
                } else if named {
                    prop_assert!(overlaps(&named_net));
                }
                prop_assert_eq!(space.left(), left);
            }
        }
    }
}
