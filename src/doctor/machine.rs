//! Checks of the kernel, of programs and services.

use super::{Fix, Hit, Observation, View};

/// Debian 12's.
const OLDEST_KERNEL: [u32; 2] = [6, 1];
/// Debian 12's, Proxmox VE 8's.
const OLDEST_NFT: [u32; 3] = [1, 0, 6];

/// How systemd calls the guard.
pub const UNIT: &str = "pve-public-ip.service";

pub(super) fn kernel_feature_missing(view: &View<'_>) -> Observation<Vec<Hit>> {
    features(view, true)
}

pub(super) fn kernel_feature_absent(view: &View<'_>) -> Observation<Vec<Hit>> {
    features(view, false)
}

fn features(view: &View<'_>, required: bool) -> Observation<Vec<Hit>> {
    let missing = view.facts.missing.as_ref().map_err(String::clone)?;
    let hit = |missing: &crate::model::Missing| {
        let sentence = format!("{}: {} ({})", missing.feature, missing.meaning, missing.reason);
        Hit::new(missing.feature, sentence, if required { "boot the kernel of Proxmox VE or Debian" } else { "" })
    };
    Ok(missing.iter().filter(|missing| missing.required == required).map(hit).collect())
}

/// The numbers at the start: `6.8.12-4-pve` is 6, 8, 12.
fn numbers(version: &str) -> Vec<u32> {
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    version[..end].split('.').map_while(|part| part.parse().ok()).collect()
}

pub(super) fn kernel_old(view: &View<'_>) -> Observation<Vec<Hit>> {
    let release = view.facts.kernel.as_ref().map_err(String::clone)?;
    let hit = || {
        let sentence = format!("the kernel is {release}");
        Hit::new("kernel", sentence, "boot a newer one; `pve-public-ip selftest` tells how the rules fare on this one")
    };
    Ok((numbers(release).as_slice() < &OLDEST_KERNEL[..]).then(hit).into_iter().collect())
}

pub(super) fn nft_missing(view: &View<'_>) -> Observation<Vec<Hit>> {
    let nft = view.facts.nft.as_ref().map_err(String::clone)?;
    let hit = |reason: &String| Hit::new("nft", format!("`nft` does not run: {reason}"), "`apt install nftables`");
    Ok(nft.as_ref().err().map(hit).into_iter().collect())
}

pub(super) fn nft_old(view: &View<'_>) -> Observation<Vec<Hit>> {
    let nft = view.facts.nft.as_ref().map_err(String::clone)?;
    let version = nft.as_ref().map_err(|reason| format!("`nft` does not run: {reason}"))?;
    let found = numbers(version);
    if found.is_empty() {
        return Err(format!("`nft --version` says `{version}`, which has no number"));
    }
    let hit = || Hit::new("nft", format!("`nft` is of version {version}"), "`apt install nftables`");
    Ok((found.as_slice() < &OLDEST_NFT[..]).then(hit).into_iter().collect())
}

pub(super) fn clock_not_synchronised(view: &View<'_>) -> Observation<Vec<Hit>> {
    let synchronised = *view.facts.clock.as_ref().map_err(String::clone)?;
    let hit = || {
        let sentence = "nothing keeps this node's clock right";
        Hit::new("clock", sentence, "`systemctl status chrony`, or `apt install chrony`")
    };
    Ok((!synchronised).then(hit).into_iter().collect())
}

pub(super) fn guard_in_trouble(view: &View<'_>) -> Observation<Vec<Hit>> {
    let guard = view.facts.guard.as_ref().map_err(String::clone)?;
    let hit = |trouble: &String| Hit::new(UNIT, trouble.clone(), format!("`systemctl status {UNIT}`"));
    Ok(guard.trouble.iter().filter(|_| guard.runs).map(hit).collect())
}

pub(super) fn guard_not_running(view: &View<'_>) -> Observation<Vec<Hit>> {
    let guard = view.facts.guard.as_ref().map_err(String::clone)?;
    if guard.runs {
        return Ok(Vec::new());
    }
    let since = if guard.has_run { "does not run any more" } else { "has not run since this node booted" };
    let sentence = format!("the guard {since}");
    let hit = Hit::new(UNIT, sentence, format!("`systemctl enable --now {UNIT}`"));
    Ok(vec![if guard.enabled.is_some() { hit.fixed_by(Fix::EnableGuard) } else { hit }])
}

pub(super) fn guard_drop_in_outdated(view: &View<'_>) -> Observation<Vec<Hit>> {
    let guard = view.facts.guard.as_ref().map_err(String::clone)?;
    let hit = |file: &String| {
        let sentence = format!("`{file}` starts the guard with --listen, which does nothing any more");
        let hint = format!(
            "take the option out of `{file}`, then `systemctl daemon-reload`; the gateway serves the metrics: docs/monitoring.md"
        );
        Hit::new(UNIT, sentence, hint)
    };
    Ok(guard.listening.iter().map(hit).collect())
}

pub(super) fn guard_not_enabled(view: &View<'_>) -> Observation<Vec<Hit>> {
    match view.facts.guard.as_ref().map_err(String::clone)?.enabled {
        None => Err(format!("the unit {UNIT} is not installed")),
        Some(true) => Ok(Vec::new()),
        Some(false) => {
            let sentence = format!("{UNIT} is not started at boot");
            let hit = Hit::new(UNIT, sentence, format!("`systemctl enable --now {UNIT}`"));
            Ok(vec![hit.fixed_by(Fix::EnableGuard)])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        for (text, expected) in [
            ("6.8.12-4-pve", vec![6, 8, 12]),
            ("6.1.0", vec![6, 1, 0]),
            ("1.0.6", vec![1, 0, 6]),
            ("v1", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(numbers(text), expected, "{text}");
        }
    }
}
