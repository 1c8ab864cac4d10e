//! How a problem is told to a caller: by a code of Connect and gRPC, and as a detail with all that is known of it.

use std::time::Duration;

use connectrpc::{ConnectError, ErrorCode, ErrorDetail};
use http::{HeaderMap, HeaderValue, header};
use pve_public_ip_core::model::{Code, Problem};

use crate::contract;

/// The full name of [`contract::Problem`].
pub(crate) const DETAIL: &str = "pve_public_ip.v1.Problem";

/// Each code of a problem, under the one that Connect and gRPC have for it.
const TABLE: &[(ErrorCode, &[&str])] = &[
    // The request is wrong, whatever the state of the node.
    (
        ErrorCode::InvalidArgument,
        &[
            "address-unusable",
            "bridge-not-named",
            "contradictory-options",
            "gateway-of-other-family",
            "gateway-outside",
            "host-bits",
            "import-invalid",
            "import-nothing-found",
            "import-unclear",
            "key-invalid",
            "labels-invalid",
            "mac-not-named",
            "no-dry-run",
            "node-name-unusable",
            "nothing-selected",
            "plan-invalid",
            "pool-not-named",
            "request-invalid",
            "unknown-code",
            "usage",
            "vlan-bridge-name-too-long",
        ],
    ),
    // What the request names is not there.
    (
        ErrorCode::NotFound,
        &[
            "address-in-no-pool",
            "nic-missing",
            "no-copy",
            "nothing-assigned",
            "nothing-to-restore",
            "pool-missing",
            "unknown-conflict",
            "unknown-entry",
            "unknown-guest",
            "unknown-interface",
            "unknown-node",
            "unknown-pool",
        ],
    ),
    // What the request wants is somebody else's.
    (
        ErrorCode::AlreadyExists,
        &[
            "address-taken",
            "duplicate-mac",
            "key-exists",
            "mac-taken",
            "overlap",
            "pool-exists",
            "same-address",
            "same-mac",
            "other-group",
            "group-of-other-organization",
        ],
    ),
    // There is no more of it.
    (
        ErrorCode::ResourceExhausted,
        &["api-attempts-limited", "filter-full", "no-room-for-subnets", "pool-exhausted", "too-few-addresses"],
    ),
    // The same request can be right in a moment.
    (
        ErrorCode::Unavailable,
        &[
            "api-answer-lost",
            "api-busy",
            "api-unreachable",
            "etc-pve-down",
            "etc-pve-silent",
            "etc-pve-stale",
            "no-quorum",
            "node-busy",
            "others-were-faster",
            "registry-changed-meanwhile",
            "registry-lock-lost",
            "registry-locked",
            "registry-not-writable",
        ],
    ),
    // The node or the program fails.
    (
        ErrorCode::Internal,
        &[
            "audit-log-not-read",
            "caller-not-allowed",
            "command-failed",
            "etc-pve-unreadable",
            "failed",
            "file-not-written",
            "frame-not-understood",
            "internal-error",
            "kernel-refused",
            "kernel-unreadable",
            "keys-unusable",
            "nft-missing",
            "node-unreadable",
            "not-root",
            "registry-broken",
            "registry-file-too-large",
            "registry-unreadable",
            "run-directory-unusable",
            "snippet-not-written",
            "socket-unusable",
            "step-failed",
        ],
    ),
    // The caller may not.
    (ErrorCode::PermissionDenied, &["api-key-limited", "not-in-api"]),
    // Nobody knows the caller.
    (ErrorCode::Unauthenticated, &["api-key-refused"]),
    // Something has to be changed first, on the node, in a guest, or at the provider.
    (
        ErrorCode::FailedPrecondition,
        &[
            "address-contested",
            "address-in-other-pool",
            "address-in-use",
            "would-cut-off",
            "address-not-in-pool",
            "address-of-this-node",
            "agent-failed",
            "assignment-not-whole",
            "assignment-problem",
            "attack-unheard",
            "br-netfilter",
            "bridge-learns-any-number",
            "bridge-learns-link-local",
            "bridge-mac-unknown",
            "bridge-missing",
            "bridge-not-filtered",
            "bridge-unfit",
            "by-hand-differs",
            "by-hand-same",
            "clock-not-synchronised",
            "clone-or-restore",
            "configured-address-not-own",
            "cooling-down",
            "device-passed-through",
            "files-from-the-future",
            "filter-missing",
            "foreign-chain-drops",
            "foreign-chain-policy",
            "foreign-state-in-the-way",
            "forward-policy-drop",
            "gateway-differs",
            "gateway-held",
            "gateway-mac-unknown",
            "guard-drop-in-outdated",
            "guard-in-trouble",
            "guard-not-enabled",
            "guard-not-running",
            "guard-running",
            "guest-ambiguous",
            "guest-elsewhere",
            "guest-not-told",
            "guest-on-other-node",
            "guest-other-hookscript",
            "guest-running",
            "guest-unreadable",
            "guest-without-hookscript",
            "holder-mac-differs",
            "hookscript-missing",
            "hookscript-not-everywhere",
            "hookscript-not-executable",
            "hookscript-not-ours",
            "ipfilter-drops-address",
            "ipfilter-would-drop",
            "kernel-feature-absent",
            "kernel-feature-missing",
            "kernel-old",
            "mac-kept-back",
            "mac-not-of-guest",
            "mac-not-set",
            "mac-unknown-to-provider",
            "netmask-differs",
            "network-beside-bridges",
            "network-data-differs",
            "network-data-refused",
            "nft-old",
            "nic-change-waits",
            "nic-not-understood",
            "nic-without-mac",
            "nics-differ",
            "no-agent",
            "no-pools",
            "no-snippet-storage",
            "node-could-not-follow",
            "node-offline",
            "not-in-plan",
            "open-between-zones",
            "orphaned-assignment",
            "other-mac-needed",
            "overlapping-subnets",
            "ovs-bridge",
            "ovs-present",
            "own-hookscript-failed",
            "own-hookscript-missing",
            "pending-nic-change",
            "plan-overlaps",
            "pool-elsewhere",
            "pool-nodes-not-named",
            "private-address-in-pool",
            "pool-not-enforced",
            "port-held-by-spanning-tree",
            "port-program-refused",
            "port-programs-absent",
            "port-without-program",
            "prefix-not-answered-for",
            "provider-mac-differs",
            "provider-mac-unknown",
            "proxmox-firewall",
            "registered-mac-differs",
            "registry-conflict",
            "registry-format-old",
            "registry-leftover",
            "registry-newer",
            "release-too-old",
            "routed-pool-unreachable",
            "router-advertises-prefix",
            "router-mac-not-protected",
            "rp-filter-strict",
            "second-nic-in-subnet",
            "set-nearly-full",
            "single-router",
            "snippets-not-everywhere",
            "spanning-tree-root-is-guest",
            "start-refused",
            "storage-in-the-way",
            "storage-without-snippets",
            "template-with-addresses",
            "trunk-mismatch",
            "uplink-misnamed",
            "uplink-missing",
            "version-skew",
            "vlan-interface-missing",
            "vlan-not-admitted",
            "vlan-unaware-bridge",
            "would-lose",
            "mac-of-gateway",
            "wrong-bridge",
            "wrong-node",
            "wrong-subnet",
            "wrong-vlan",
            "via-unusable",
            "via-in-use",
            "via-not-routed",
            "shared-in-other-vlan",
            "shared-with-one-mac",
            "prefix-needs-route",
            "prefix-on-link",
            "shared-address",
        ],
    ),
];

/// The code of Connect and gRPC.
pub fn of(code: Code) -> ErrorCode {
    let row = TABLE.iter().find(|(_, codes)| codes.contains(&code.as_str()));
    // One of a later release of the root part was read as `failed`, which has a row.
    row.map_or(ErrorCode::Internal, |(status, _)| *status)
}

/// After what time the same request may be right.
pub fn retry_after(code: Code) -> Option<Duration> {
    match code.as_str() {
        "no-quorum" | "etc-pve-down" | "registry-not-writable" => Some(Duration::from_secs(10)),
        "api-attempts-limited" => Some(Duration::from_secs(60)),
        _ => (of(code) == ErrorCode::Unavailable).then_some(Duration::from_secs(1)),
    }
}

/// As a message of the contract.
pub fn message(problem: Problem) -> contract::Problem {
    let retry = retry_after(problem.code).map_or(0, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
    contract::Problem {
        code: problem.code.as_str().to_owned(),
        subject: problem.subject.to_string(),
        sentence: problem.sentence,
        hint: problem.hint,
        retry_after_seconds: retry,
        ..Default::default()
    }
}

/// As the error that ends a call.
pub fn error(problem: Problem) -> ConnectError {
    error_as(of(problem.code), problem)
}

/// As the error that ends a call, with another code than the problem has elsewhere.
pub fn error_as(status: ErrorCode, problem: Problem) -> ConnectError {
    let retry = retry_after(problem.code);
    let sentence = problem.sentence.clone();
    let detail = ErrorDetail::from_message(DETAIL, &message(problem));
    let error = ConnectError::new(status, sentence).with_detail(detail);
    let Some(retry) = retry else { return error };
    let mut headers = HeaderMap::new();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(retry.as_secs()));
    error.with_headers(headers)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use buffa::Message as _;
    use pve_public_ip_core::code;
    use pve_public_ip_core::model::{CODES, Subject};

    use super::*;

    #[test]
    fn every_code_has_one_status() {
        let mut seen = BTreeSet::new();
        for code in TABLE.iter().flat_map(|(_, codes)| *codes) {
            assert!(seen.insert(*code), "{code} is in the table twice");
        }
        let all: BTreeSet<&str> = CODES.iter().copied().collect();
        let missing: Vec<_> = all.difference(&seen).collect();
        assert!(missing.is_empty(), "give these a status in crates/gateway/src/status.rs: {missing:?}");
        let unknown: Vec<_> = seen.difference(&all).collect();
        assert!(unknown.is_empty(), "these are no codes: {unknown:?}");
    }

    #[test]
    fn the_statuses_of_the_contract() {
        for (code, status) in [
            (code!("address-taken"), ErrorCode::AlreadyExists),
            (code!("address-in-no-pool"), ErrorCode::NotFound),
            (code!("unknown-guest"), ErrorCode::NotFound),
            (code!("provider-mac-differs"), ErrorCode::FailedPrecondition),
            (code!("provider-mac-unknown"), ErrorCode::FailedPrecondition),
            (code!("address-contested"), ErrorCode::FailedPrecondition),
            (code!("request-invalid"), ErrorCode::InvalidArgument),
            (code!("host-bits"), ErrorCode::InvalidArgument),
            (code!("pool-exhausted"), ErrorCode::ResourceExhausted),
            (code!("registry-locked"), ErrorCode::Unavailable),
            (code!("no-quorum"), ErrorCode::Unavailable),
            (code!("api-key-refused"), ErrorCode::Unauthenticated),
            (code!("api-key-limited"), ErrorCode::PermissionDenied),
        ] {
            assert_eq!(of(code), status, "{code}");
            assert_eq!(retry_after(code).is_some(), status == ErrorCode::Unavailable, "{code}");
        }
    }

    #[test]
    fn an_error_carries_the_problem() {
        let problem = Problem::new(code!("registry-locked"), Subject::Node, "it is locked", "wait");
        let error = error(problem);
        assert_eq!((error.code, error.message.as_deref()), (ErrorCode::Unavailable, Some("it is locked")));
        assert_eq!(error.response_headers()["retry-after"], "1");
        assert_eq!(error.details[0].type_url, "pve_public_ip.v1.Problem");
        let bytes =
            message(Problem::new(code!("registry-locked"), Subject::Node, "it is locked", "wait")).encode_to_vec();
        let read = contract::Problem::decode_from_slice(&bytes).unwrap();
        assert_eq!((read.code.as_str(), read.subject.as_str()), ("registry-locked", "this node"));
        assert_eq!((read.sentence.as_str(), read.hint.as_str(), read.retry_after_seconds), ("it is locked", "wait", 1));
    }
}
