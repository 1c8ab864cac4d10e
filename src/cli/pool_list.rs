//! `pool list`: the pools with their totals.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::json;

use super::answers::{PoolListed, Pools};
use super::output::{Output, table, told};
use super::partial::{readable, shown};
use crate::model::{Amount, Family};
use crate::ops::{left_elsewhere, own_addresses};
use crate::reconcile::Node;
use crate::registry::document::Enforce;
use crate::registry::{Inventory, Totals};
use crate::store::journal::now;

const HEADERS: [&str; 10] =
    ["pool", "profile", "bridge", "gateway", "family", "size", "assigned", "free", "cooling", "reserved"];

pub(super) fn list(node: &Node) -> anyhow::Result<Output> {
    let registry = readable(node)?;
    let inventory = Inventory::of(&registry, &own_addresses(), now());
    let mut rows = Vec::new();
    let mut data = Vec::new();
    let mut lost = Vec::new();
    let mut sums = [None::<Totals>; 2];
    for (name, pool) in &registry.pools.pools {
        let totals = inventory.totals(pool);
        let profile = match pool.enforce() {
            Enforce::On => pool.profile_name().to_owned(),
            mode => format!("{} (on {})", pool.profile_name(), mode.as_str()),
        };
        let misplaced = left_elsewhere(node, &registry, name);
        lost.extend(misplaced.iter().map(|problem| told("problem", problem)));
        let first = [name.to_string(), profile, pool.bridge.to_string()];
        let mut families = BTreeMap::new();
        let gateways = [pool.gateway4.map(|ip| ip.to_string()), pool.gateway6.map(|ip| ip.to_string())];
        for ((family, total), (gateway, sum)) in
            Family::BOTH.into_iter().zip(totals).zip(gateways.iter().zip(&mut sums))
        {
            let Some(total) = total else { continue };
            *sum = Some(sum.unwrap_or_default().plus(&total));
            rows.push([&first[..], &[gateway.clone().unwrap_or_default()], &cells(family, &total)].concat());
            families.insert(family.key().to_owned(), total);
        }
        if families.is_empty() {
            let gateway = gateways.into_iter().flatten().collect::<Vec<_>>().join(" ");
            let nothing = vec![String::new(); HEADERS.len() - first.len() - 1];
            rows.push([&first[..], &[gateway], &nothing].concat());
        }
        data.push(PoolListed {
            name: name.clone(),
            profile: pool.profile,
            mode: pool.mode(),
            bridge: pool.bridge,
            gateway4: pool.gateway4.map(IpAddr::from),
            gateway6: pool.gateway6.map(IpAddr::from),
            entries: pool.addresses.len(),
            enforce: pool.enforce(),
            nodes: pool.nodes.clone(),
            misplaced,
            totals: families,
        });
    }
    if registry.pools.pools.len() > 1 {
        for (family, sum) in Family::BOTH.into_iter().zip(sums) {
            let Some(sum) = sum else { continue };
            let first = ["all pools".to_owned(), String::new(), String::new(), String::new()];
            rows.push([&first[..], &cells(family, &sum)].concat());
        }
    }
    let mut text = if !rows.is_empty() {
        table(&HEADERS, &rows)
    } else if registry.lost_pools.is_some() {
        "the pools cannot be read".to_owned()
    } else {
        "no pools; `pve-public-ip pool create` makes one".to_owned()
    };
    for line in lost {
        text.push_str(&line);
        text.push('\n');
    }
    Ok(shown(&registry, Output::new(text, json!(Pools { pools: data }))))
}

fn cells(family: Family, total: &Totals) -> Vec<String> {
    let Totals { size, assigned, free, cooling, reserved } = total;
    let counts = [size, assigned, free, cooling, reserved].map(|amount| short(*amount));
    std::iter::once(family.to_string()).chain(counts).collect()
}

/// `12`, `2^64`, or `~2^64` for what is not exactly that: nobody compares the digits of the addresses of an IPv6 prefix.
fn short(Amount(count): Amount) -> String {
    if count < 1 << 32 {
        return count.to_string();
    }
    let below = count.ilog2();
    // The nearer one of two powers.
    let is_above = count >> (below - 1) & 1 == 1;
    let exponent = below + u32::from(is_above);
    let is_exact = !is_above && count.trailing_zeros() == below;
    format!("{}2^{exponent}", if is_exact { "" } else { "~" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_counts_are_powers() {
        for (count, text) in [
            (0, "0"),
            (4_294_967_295, "4294967295"),
            (1 << 32, "2^32"),
            ((1 << 64) - 2, "~2^64"),
            (1 << 64, "2^64"),
            ((1 << 64) + 1, "~2^64"),
            (3 << 63, "~2^65"),
            (u128::MAX, "~2^128"),
        ] {
            assert_eq!(short(Amount(count)), text, "{count}");
        }
    }
}
