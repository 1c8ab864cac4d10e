//! Keys: who calls, and what he may. Secrets are known by their SHA-256 only, and compared in constant time.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use pve_public_ip_core::code;
use pve_public_ip_core::model::{Moment, Problem, Subject};
use pve_public_ip_core::reply::{Key, Role};
use subtle::ConstantTimeEq as _;

use crate::config::Secrets;
use crate::contract::{Call, SUPERADMIN};

/// The header that has the secret; `authorization: Bearer` does as well.
pub const HEADER: &str = "x-api-secret";

/// The calls of [`crate::contract::GATEWAY`] that only look.
const LOOKS: [&str; 4] = ["GetPublicIP", "ListPublicIPs", "WatchPublicIPs", "GetGatewayInfo"];

/// SHA-256 of a secret.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of this secret.
    pub fn of(secret: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, secret).as_ref());
        Self(bytes)
    }

    /// Of 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

impl PartialEq for Digest {
    /// Takes the same time whatever differs.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// Whoever has a key.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    /// The name of the key.
    pub name: String,
    /// What he may.
    pub role: Role,
    /// The organization whose addresses exist for him; `None`: all of them.
    pub organization: Option<String>,
    digest: Digest,
    expires_at: Option<Moment>,
}

/// Why a call is refused before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No secret came with it.
    Missing,
    /// Two different ones did, or one that is no text.
    Several,
    /// Nobody has this secret, or nobody any more.
    Unknown,
    /// The key has expired.
    Expired,
    /// Whether it is a key of the root part cannot be said now.
    Unchecked,
    /// The key is right, but not for this call.
    Forbidden(Role),
    /// Too many wrong ones came from this peer.
    TooMany,
}

impl Refusal {
    /// Its word in metrics; `None` if it says nothing about a wrong key.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Missing => Some("missing"),
            Self::Several | Self::Unknown => Some("unknown"),
            Self::Expired => Some("expired"),
            Self::Forbidden(_) => Some("forbidden"),
            Self::TooMany => Some("limited"),
            Self::Unchecked => None,
        }
    }

    /// For the caller.
    pub fn problem(self) -> Problem {
        let send = "send it as the header `x-api-secret: SECRET` or `authorization: Bearer SECRET`";
        let new =
            "`pve-public-ip key list` on the node shows the keys; `pve-public-ip key add NAME --role ROLE` makes one";
        let (code, sentence, hint) = match self {
            Self::Missing => {
                (code!("api-key-refused"), "this call needs a secret, and none came with it".to_owned(), send)
            }
            Self::Several => (
                code!("api-key-refused"),
                "the headers of this call have different secrets, or one that is no text".to_owned(),
                send,
            ),
            Self::Unknown => (code!("api-key-refused"), "nobody has this secret".to_owned(), new),
            Self::Expired => (code!("api-key-refused"), "the key of this secret has expired".to_owned(), new),
            Self::Unchecked => (
                code!("api-unreachable"),
                "whether this secret is a key cannot be said now: the node's keys cannot be read".to_owned(),
                "try again in a second; on the node: `systemctl status pve-public-ip-api.socket`",
            ),
            Self::Forbidden(role) => (
                code!("api-key-limited"),
                format!("the key of this secret has the role `{}`, which may not make this call", role_name(role)),
                new,
            ),
            Self::TooMany => (
                code!("api-attempts-limited"),
                "too many wrong secrets came from this address".to_owned(),
                "wait a minute; a right secret is answered at once",
            ),
        };
        Problem::new(code, Subject::Command, sentence, hint)
    }
}

/// As it is written at the command line.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Gateway => "gateway",
        Role::Superadmin => "superadmin",
    }
}

/// The keys that count.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Keyring {
    configured: Vec<Arc<Caller>>,
    /// Those of the root part; `None`: they are not known now.
    stored: Option<Vec<Arc<Caller>>>,
}

impl Keyring {
    /// With the secrets that the daemon was started with.
    #[must_use]
    pub fn with_secrets(self, secrets: &Secrets) -> Self {
        let callers = |secrets: &[crate::config::Secret], role| {
            let caller = |secret: &crate::config::Secret| {
                Arc::new(Caller {
                    name: role_name(role).to_owned(),
                    role,
                    organization: None,
                    digest: Digest::of(secret.as_bytes()),
                    expires_at: None,
                })
            };
            secrets.iter().map(caller).collect::<Vec<_>>()
        };
        let mut configured = callers(&secrets.gateway, Role::Gateway);
        configured.extend(callers(&secrets.superadmin, Role::Superadmin));
        Self { configured, ..self }
    }

    /// With the root part's keys, or without knowing them. One whose digest cannot be read is no key.
    #[must_use]
    pub fn with_stored(self, keys: Option<Vec<Key>>) -> Self {
        let caller = |key: Key| {
            let digest = Digest::from_hex(&key.sha256)?;
            let Key { name, role, organization, expires_at, .. } = key;
            Some(Arc::new(Caller { name, role, organization, digest, expires_at }))
        };
        Self { stored: keys.map(|keys| keys.into_iter().filter_map(caller).collect()), ..self }
    }

    /// Whether the root part's keys are known.
    pub fn is_complete(&self) -> bool {
        self.stored.is_some()
    }

    /// Who has this secret. Every key is compared, so that the time says nothing about which one it is.
    pub fn find(&self, secret: &[u8], now: Moment) -> Result<Arc<Caller>, Refusal> {
        let digest = Digest::of(secret);
        let mut found = None;
        for caller in self.configured.iter().chain(self.stored.iter().flatten()) {
            if caller.digest == digest && found.is_none() {
                found = Some(caller);
            }
        }
        match found {
            Some(caller) if caller.expires_at.is_some_and(|end| end <= now) => Err(Refusal::Expired),
            Some(caller) => Ok(Arc::clone(caller)),
            None if self.stored.is_none() => Err(Refusal::Unchecked),
            None => Err(Refusal::Unknown),
        }
    }

    /// Whether a caller who was let in may stay: the same key, with the same role and organization.
    pub fn still_counts(&self, caller: &Caller, now: Moment) -> Result<(), Refusal> {
        let is_there = self.configured.iter().chain(self.stored.iter().flatten()).any(|other| **other == *caller);
        match is_there {
            true if caller.expires_at.is_some_and(|end| end <= now) => Err(Refusal::Expired),
            true => Ok(()),
            false if self.stored.is_none() => Err(Refusal::Unchecked),
            false => Err(Refusal::Unknown),
        }
    }
}

impl Caller {
    /// Whether he may make this call.
    pub fn may(&self, call: &Call) -> Result<(), Refusal> {
        let allowed = match self.role {
            Role::Superadmin => true,
            Role::Gateway => call.service != SUPERADMIN,
            Role::Viewer => call.service != SUPERADMIN && LOOKS.contains(&call.method),
        };
        if allowed { Ok(()) } else { Err(Refusal::Forbidden(self.role)) }
    }
}

/// The secret that came with a call.
pub fn presented(headers: &HeaderMap) -> Result<&[u8], Refusal> {
    let own = headers.get_all(HEADER).iter().map(HeaderValue::as_bytes);
    let bearer = headers.get_all(header::AUTHORIZATION).iter().map(|value| {
        let value = value.as_bytes();
        // The name of a scheme may be in either case: RFC 9110, 11.1.
        match value.split_at_checked(7) {
            Some((scheme, secret)) if scheme.eq_ignore_ascii_case(b"bearer ") => secret.trim_ascii(),
            _ => b"",
        }
    });
    let mut found: Option<&[u8]> = None;
    for secret in own.chain(bearer) {
        if found.is_some_and(|other| other != secret) {
            return Err(Refusal::Several);
        }
        found = Some(secret);
    }
    match found {
        None | Some([]) => Err(Refusal::Missing),
        Some(secret) => Ok(secret),
    }
}

/// Wrong secrets a peer may send at once.
const BURST: f64 = 20.0;

/// Wrong secrets a peer may send in a second, in the long run.
const RATE: f64 = 1.0 / 3.0;

/// As many peers are watched; more are all taken for one that has sent too many.
const PEERS: usize = 4096;

/// As often, at most, those who were quiet are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// Wrong secrets, by peer. Whoever has a right one is never limited: else one customer behind an address could shut out another.
#[derive(Debug, Default)]
pub struct Attempts {
    /// How many more it may send, as of a time.
    peers: HashMap<IpAddr, (f64, Duration)>,
    /// When those who were quiet were forgotten.
    swept: Duration,
}

/// Whom an address stands for: a /64 is one household.
pub fn peer_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => Ipv6Addr::from(u128::from(six) & !u128::from(u64::MAX)).into(),
        four @ IpAddr::V4(_) => four,
    }
}

impl Attempts {
    /// A wrong secret came at this time since the start: whether it is one too many.
    pub fn failed(&mut self, peer: IpAddr, now: Duration) -> bool {
        let refilled = |(left, at): (f64, Duration)| (left + now.saturating_sub(at).as_secs_f64() * RATE).min(BURST);
        if self.peers.len() >= PEERS && now.saturating_sub(self.swept) >= SWEEP {
            self.swept = now;
            self.peers.retain(|_, state| refilled(*state) < BURST);
        }
        let peer = peer_key(peer);
        if self.peers.len() >= PEERS && !self.peers.contains_key(&peer) {
            return true;
        }
        let state = self.peers.entry(peer).or_insert((BURST, now));
        let left = refilled(*state);
        *state = ((left - 1.0).max(0.0), now);
        left < 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Surroundings;
    use crate::contract::{CALLS, GATEWAY};

    const NOW: Moment = Moment(Duration::from_secs(1_000_000));

    fn key(name: &str, secret: &str, role: Role) -> Key {
        let sha256: String = Digest::of(secret.as_bytes()).0.iter().map(|byte| format!("{byte:02x}")).collect();
        Key {
            name: name.to_owned(),
            sha256,
            role,
            organization: None,
            created_at: Moment(Duration::ZERO),
            expires_at: None,
        }
    }

    fn keyring(keys: Option<Vec<Key>>) -> Keyring {
        let variables = [
            ("GATEWAY_API_SECRET".to_owned(), format!("{},{}", "a".repeat(32), "b".repeat(32))),
            ("SUPERADMIN_API_SECRET".to_owned(), "c".repeat(32)),
        ];
        let surroundings =
            Surroundings { variables: &variables.into(), read: &|_| Err(std::io::ErrorKind::NotFound.into()) };
        Keyring::default().with_secrets(&Secrets::load(&surroundings).unwrap()).with_stored(keys)
    }

    #[test]
    fn digests_are_those_of_sha256sum() {
        let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(Digest::from_hex(hex), Some(Digest::of(b"test")));
        for text in ["", "9f", &hex[1..], &format!("{hex}00"), &hex.replace('9', "g"), &hex.replace("9f", "+f")] {
            assert_eq!(Digest::from_hex(text), None, "{text}");
        }
        assert_eq!(format!("{:?}", Digest::of(b"test")), "Digest");
    }

    #[test]
    fn finds_who_has_a_secret() {
        let mut old = key("old", "old", Role::Viewer);
        old.expires_at = Some(NOW);
        let mut later = key("later", "later", Role::Viewer);
        later.expires_at = Some(NOW.next());
        let known = keyring(Some(vec![key("panel", "panel", Role::Gateway), old, later]));
        let unknown = keyring(None);
        for (ring, secret, expected) in [
            (&known, "a".repeat(32), Ok("gateway")),
            (&known, "b".repeat(32), Ok("gateway")),
            (&known, "c".repeat(32), Ok("superadmin")),
            (&known, "panel".to_owned(), Ok("panel")),
            (&known, "later".to_owned(), Ok("later")),
            (&known, "old".to_owned(), Err(Refusal::Expired)),
            (&known, "a".repeat(31), Err(Refusal::Unknown)),
            (&known, String::new(), Err(Refusal::Unknown)),
            (&unknown, "a".repeat(32), Ok("gateway")),
            (&unknown, "panel".to_owned(), Err(Refusal::Unchecked)),
        ] {
            let found = ring.find(secret.as_bytes(), NOW).map(|caller| caller.name.clone());
            assert_eq!(found.as_deref().map_err(|refusal| *refusal), expected, "{secret}");
        }
        assert!(known.is_complete() && !unknown.is_complete());
    }

    #[test]
    fn a_caller_stays_while_his_key_is_as_it_was() {
        let panel = key("panel", "panel", Role::Gateway);
        let ring = |keys: Option<Vec<Key>>| Keyring::default().with_stored(keys);
        let caller = ring(Some(vec![panel.clone()])).find(b"panel", NOW).unwrap();
        let bound = Key { organization: Some("acme".to_owned()), ..panel.clone() };
        let lowered = Key { role: Role::Viewer, ..panel.clone() };
        for (keys, expected) in [
            (Some(vec![key("other", "other", Role::Viewer), panel.clone()]), Ok(())),
            (Some(vec![]), Err(Refusal::Unknown)),
            (Some(vec![bound]), Err(Refusal::Unknown)),
            (Some(vec![lowered]), Err(Refusal::Unknown)),
            (None, Err(Refusal::Unchecked)),
        ] {
            assert_eq!(ring(keys).still_counts(&caller, NOW), expected);
        }
        let expiring = ring(Some(vec![Key { expires_at: Some(NOW.next()), ..panel }]));
        let caller = expiring.find(b"panel", NOW).unwrap();
        assert_eq!(expiring.still_counts(&caller, NOW), Ok(()));
        assert_eq!(expiring.still_counts(&caller, NOW.next()), Err(Refusal::Expired));
    }

    #[test]
    fn roles_may_what_the_contract_says() {
        let mut counts = [0; 3];
        for call in CALLS {
            for (role, count) in [Role::Viewer, Role::Gateway, Role::Superadmin].into_iter().zip(&mut counts) {
                let ring = Keyring::default().with_stored(Some(vec![key("k", "k", role)]));
                let caller = ring.find(b"k", NOW).unwrap();
                match caller.may(call) {
                    Ok(()) => *count += 1,
                    Err(refusal) => assert_eq!(refusal, Refusal::Forbidden(role)),
                }
            }
        }
        assert_eq!(counts, [4, 6, 17]);
        assert!(LOOKS.iter().all(|method| CALLS.iter().any(|call| call.service == GATEWAY && call.method == *method)));
    }

    #[test]
    fn a_secret_comes_in_either_header() {
        for (headers, expected) in [
            (vec![], Err(Refusal::Missing)),
            (vec![("x-api-secret", "s")], Ok("s")),
            (vec![("authorization", "Bearer s")], Ok("s")),
            (vec![("authorization", "bearer  s ")], Ok("s")),
            (vec![("authorization", "Basic s")], Err(Refusal::Missing)),
            (vec![("authorization", "s")], Err(Refusal::Missing)),
            (vec![("x-api-secret", "")], Err(Refusal::Missing)),
            (vec![("x-api-secret", "s"), ("authorization", "Bearer s")], Ok("s")),
            (vec![("x-api-secret", "s"), ("authorization", "Bearer t")], Err(Refusal::Several)),
            (vec![("x-api-secret", "s"), ("x-api-secret", "t")], Err(Refusal::Several)),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(presented(&map), expected.map(str::as_bytes), "{headers:?}");
        }
    }

    #[test]
    fn wrong_secrets_are_limited_by_peer() {
        let mut attempts = Attempts::default();
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!((0..30).filter(|_| attempts.failed(one, Duration::ZERO)).count(), 10);
        assert!(!attempts.failed("192.0.2.2".parse().unwrap(), Duration::ZERO), "another peer is not limited");
        assert!(attempts.failed("::ffff:192.0.2.1".parse().unwrap(), Duration::ZERO), "the same peer by another name");
        assert!(!attempts.failed(one, Duration::from_secs(3)), "one more after three seconds");
        assert!(attempts.failed(one, Duration::from_secs(3)));
        // A /64 is one peer.
        let six = |last: u16| format!("2001:db8::{last:x}").parse().unwrap();
        assert_eq!((0..30).filter(|last| attempts.failed(six(*last), Duration::ZERO)).count(), 10);
    }

    #[test]
    fn watching_peers_takes_bounded_memory() {
        let mut attempts = Attempts::default();
        for number in 0..20_000_u32 {
            attempts.failed(std::net::Ipv4Addr::from(number).into(), Duration::ZERO);
        }
        assert_eq!(attempts.peers.len(), PEERS);
        assert!(attempts.failed("203.0.113.1".parse().unwrap(), Duration::ZERO), "an unwatched peer counts as limited");
        assert!(!attempts.failed("203.0.113.1".parse().unwrap(), Duration::from_secs(60)));
        assert!(attempts.peers.len() < 10, "who was quiet is forgotten");
    }
}
