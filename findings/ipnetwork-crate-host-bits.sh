#!/bin/bash
# Subject: the crate ipnetwork 0.21.1, networks that were made of an interface's address.
# A good guess: `is_subnet_of` and `is_supernet_of` are about the networks, as `contains` and `network` are; a /0 has 2^32 addresses.
# Seen: they begin at the address that was given: half of 203.0.113.0/24 lies in 203.0.113.0/24 and not in 203.0.113.5/24, and only what lies
#   above the address does. `overlaps` sees the whole. A /0 has one address fewer than it has; so has ::/0.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
crates ipnetwork@=0.21.1 <<'END'
use ipnetwork::{Ipv4Network, Ipv6Network};
fn main() {
    for (inner, outer) in [
        ("203.0.113.0/25", "203.0.113.0/24"),
        ("203.0.113.0/25", "203.0.113.5/24"),
        ("203.0.113.128/25", "203.0.113.5/24"),
        ("203.0.113.5/24", "203.0.113.9/24"),
    ] {
        let (one, other): (Ipv4Network, Ipv4Network) = (inner.parse().unwrap(), outer.parse().unwrap());
        println!(
            "{inner} in {outer}: subnet {} supernet {} contains {} overlaps {}",
            one.is_subnet_of(other), other.is_supernet_of(one), other.contains(one.ip()), one.overlaps(other)
        );
    }
    let (four, six): (Ipv4Network, Ipv6Network) = ("0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap());
    println!("0.0.0.0/0 has {}, ::/0 {}", four.size(), six.size());
}
END
seen "$("$work/reader/target/debug/reader")" <<'END'
203.0.113.0/25 in 203.0.113.0/24: subnet true supernet true contains true overlaps true
203.0.113.0/25 in 203.0.113.5/24: subnet false supernet false contains true overlaps true
203.0.113.128/25 in 203.0.113.5/24: subnet true supernet true contains true overlaps true
203.0.113.5/24 in 203.0.113.9/24: subnet false supernet false contains true overlaps true
0.0.0.0/0 has 4294967295, ::/0 340282366920938463463374607431768211455
END
