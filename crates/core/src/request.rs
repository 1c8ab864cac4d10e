//! What may be asked for: typed, without effects, and fit for a line of JSON. The command line makes these of its arguments, a
//! socket of what it reads; `ops` of the root program carries them out.
//!
//! ```json
//! {"version":1,"id":7,"author":{"why":"ticket 12"},"op":"assign","vmid":100,"pool":"ovh-rbx"}
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::audit::Author;
use crate::code;
use crate::model::{CoolDown, IfName, MacAddr, NicId, PoolName, Prefix, Problem, Subject, Vmid};
use crate::registry::Edit;
use crate::registry::document::{CloudInitCheck, GuestOs, Probe, Profile, UplinkGuard};
use crate::registry::layout::Layout;

/// The version of this protocol.
pub const VERSION: u64 = 1;

/// No request is larger, in bytes.
pub const LIMIT: usize = 256 * 1024;

/// A request with what belongs to each.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Comes back in the reply, whatever it is.
    pub id: Option<Value>,
    /// Who asks, and why.
    pub author: Author,
    /// Only say what would be done.
    pub dry_run: bool,
    /// What is asked for.
    pub request: Request,
}

/// What may be asked for.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// Create a pool.
    CreatePool(CreatePool),
    /// Add addresses to a pool, or change what is known of them.
    AddAddresses(AddAddresses),
    /// Change what holds for all addresses of a pool.
    SetPool(SetPool),
    /// Remove a pool, or some of its addresses.
    RemoveFromPool(RemoveFromPool),
    /// Give addresses to a guest.
    Assign(Assign),
    /// Take addresses from a guest.
    Release(Release),
    /// Change what a guest's NIC may do.
    SetInterface(SetInterface),
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePool {
    /// Its name.
    pub pool: PoolName,
    /// The provider's layout.
    pub profile: Profile,
    /// The layout itself, for the profile `custom`.
    #[serde(default)]
    pub layout: Option<Layout>,
    /// Bridge of the guests' NICs; absent: the only one that fits.
    #[serde(default)]
    pub bridge: Option<IfName>,
    /// IPv4 gateway of the guests.
    #[serde(default)]
    pub gateway4: Option<Ipv4Addr>,
    /// IPv6 gateway of the guests.
    #[serde(default)]
    pub gateway6: Option<Ipv6Addr>,
    /// MAC of the gateway.
    #[serde(default)]
    pub gateway_mac: Option<MacAddr>,
    /// Whether guests without addresses may be routers.
    #[serde(default)]
    pub guest_routers: bool,
    /// What becomes of frames with a MAC that the provider does not know.
    #[serde(default)]
    pub uplink_guard: Option<UplinkGuard>,
    /// MACs that the provider knows besides.
    #[serde(default)]
    pub allowed_macs: BTreeSet<MacAddr>,
    /// Whether the network is asked who has an address before it is assigned.
    #[serde(default)]
    pub probe: Option<Probe>,
    /// For how long a released address is not handed out by itself.
    #[serde(default)]
    pub cool_down: Option<CoolDown>,
    /// Addresses and prefixes.
    #[serde(default)]
    pub addresses: Vec<Prefix>,
}

/// Addresses of a pool, all or none.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddAddresses {
    /// The pool.
    pub pool: PoolName,
    /// The addresses and prefixes, with what is known of them.
    pub entries: Vec<Entry>,
}

/// An address of a pool. What is absent stays as it is, `null` takes it away.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The address or prefix.
    pub address: Prefix,
    /// MAC that the provider bound to it.
    #[serde(default)]
    #[schemars(with = "Option<MacAddr>")]
    pub mac: Edit<MacAddr>,
    /// Gateway, if it is not the pool's.
    #[serde(default)]
    #[schemars(with = "Option<IpAddr>")]
    pub gateway: Edit<IpAddr>,
    /// What it costs.
    #[serde(default)]
    #[schemars(with = "Option<u64>")]
    pub monthly_cost_cents: Edit<u64>,
}

/// What holds for all addresses of a pool. What is absent stays as it is, `null` takes it away.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPool {
    /// The pool.
    pub pool: PoolName,
    /// Bridge of the guests' NICs.
    #[serde(default)]
    pub bridge: Option<IfName>,
    /// IPv4 gateway.
    #[serde(default)]
    #[schemars(with = "Option<Ipv4Addr>")]
    pub gateway4: Edit<Ipv4Addr>,
    /// IPv6 gateway.
    #[serde(default)]
    #[schemars(with = "Option<Ipv6Addr>")]
    pub gateway6: Edit<Ipv6Addr>,
    /// MAC of the gateway.
    #[serde(default)]
    #[schemars(with = "Option<MacAddr>")]
    pub gateway_mac: Edit<MacAddr>,
    /// Whether guests without addresses may be routers.
    #[serde(default)]
    pub guest_routers: Option<bool>,
    /// What becomes of frames with a MAC that the provider does not know.
    #[serde(default)]
    pub uplink_guard: Option<UplinkGuard>,
    /// MACs to allow from now on.
    #[serde(default)]
    pub allow_macs: BTreeSet<MacAddr>,
    /// MACs to allow no longer.
    #[serde(default)]
    pub forbid_macs: BTreeSet<MacAddr>,
    /// Whether the network is asked who has an address before it is assigned.
    #[serde(default)]
    pub probe: Option<Probe>,
    /// For how long a released address is not handed out by itself.
    #[serde(default)]
    pub cool_down: Option<CoolDown>,
}

/// What a pool loses.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveFromPool {
    /// The pool.
    pub pool: PoolName,
    /// Its entries; none: the pool.
    #[serde(default)]
    pub addresses: Vec<Prefix>,
}

fn first() -> NicId {
    NicId::FIRST
}

fn first_nic() -> Vec<NicId> {
    vec![first()]
}

fn yes() -> bool {
    true
}

/// Addresses for a guest.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Assign {
    /// The guest.
    pub vmid: Vmid,
    /// Addresses or prefixes; none: the next free ones of the pool.
    #[serde(default)]
    pub addresses: Vec<Prefix>,
    /// NICs that get them.
    #[serde(default = "first_nic")]
    pub interfaces: Vec<NicId>,
    /// The pool to take from.
    #[serde(default)]
    pub pool: Option<PoolName>,
    /// 4, 6, or both; none: those of the pool.
    #[serde(default)]
    pub families: BTreeSet<u8>,
    /// How many of each family the NIC shall hold, or get besides; absent: one.
    #[serde(default)]
    pub count: Option<u16>,
    /// Whether `count` is besides what the NIC holds.
    #[serde(default)]
    pub more: bool,
    /// Customer or department.
    #[serde(default)]
    pub organization: Option<String>,
    /// Give the NIC the MAC that the provider bound to the addresses.
    #[serde(default)]
    pub set_mac: bool,
    /// Whether the network is asked first; absent: what the pool says.
    #[serde(default)]
    pub probe: Option<bool>,
    /// Register the hookscript.
    #[serde(default = "yes")]
    pub hookscript: bool,
    /// What runs in the guest.
    #[serde(default)]
    pub os: Option<GuestOs>,
    /// What becomes of a start at which cloud-init's data is another.
    #[serde(default)]
    pub cloud_init: Option<CloudInitCheck>,
    /// Let the guest take itself for a new machine.
    #[serde(default)]
    pub reinit: bool,
    /// Let the guest's agent use the addresses at once.
    #[serde(default)]
    pub live: bool,
}

/// Addresses that a guest loses.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The guest.
    pub vmid: Vmid,
    /// Which; none: all.
    #[serde(default)]
    pub addresses: Vec<Prefix>,
    /// Give the guest back the hookscript that it had before, when it holds nothing more.
    #[serde(default = "yes")]
    pub hookscript: bool,
}

/// What a guest's NIC may do besides using its addresses. What is absent stays as it is, `null` makes it the default.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetInterface {
    /// The guest.
    pub vmid: Vmid,
    /// Its NIC.
    #[serde(default = "first")]
    pub interface: NicId,
    /// Whether it may ask for an address by DHCPv4.
    #[serde(default)]
    pub dhcp: Option<bool>,
    /// Whether it gets frames that are addressed to others.
    #[serde(default)]
    pub any_destination: Option<bool>,
    /// Whether it may choose its link-local addresses freely.
    #[serde(default)]
    pub any_link_local: Option<bool>,
    /// Whether it gets router advertisements.
    #[serde(default)]
    #[schemars(with = "Option<bool>")]
    pub router_advertisements: Edit<bool>,
    /// Further link-local addresses.
    #[serde(default)]
    pub link_local: Option<BTreeSet<Ipv6Addr>>,
    /// VLANs in which it tags its frames itself.
    #[serde(default)]
    pub trunk: Option<BTreeSet<u16>>,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Edit<T> {
    /// `null` erases; a key that is absent keeps, by `#[serde(default)]`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Erase, Self::Set))
    }
}

impl Envelope {
    /// Reads one line.
    pub fn parse(line: &str) -> Result<Self, Problem> {
        let refused = |sentence: String| {
            let hint = "one JSON object a line: {\"version\":1,\"id\":1,\"op\":\"assign\",\"vmid\":100}";
            Problem::new(code!("request-invalid"), Subject::Command, sentence, hint)
        };
        if line.len() > LIMIT {
            return Err(refused(format!("the request has {} bytes; {LIMIT} are allowed", line.len())));
        }
        let mut map: Map<String, Value> =
            serde_json::from_str(line).map_err(|error| refused(format!("the request is no JSON object: {error}")))?;
        match map.remove("version") {
            Some(version) if version == VERSION => {}
            Some(version) => {
                return Err(refused(format!(
                    "this release reads requests of version {VERSION}, not of version {version}"
                )));
            }
            None => return Err(refused("the request has no `version`".to_owned())),
        }
        let id = map.remove("id");
        let dry_run = match map.remove("dry_run") {
            None => false,
            Some(Value::Bool(dry_run)) => dry_run,
            Some(other) => return Err(refused(format!("dry_run: {other} is not true or false"))),
        };
        let author = map.remove("author").map(serde_json::from_value).transpose();
        let author = author.map_err(|error| refused(format!("author: {error}")))?.unwrap_or_default();
        let request = serde_json::from_value(Value::Object(map)).map_err(|error| refused(error.to_string()))?;
        Ok(Self { id, author, dry_run, request })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_request() {
        let line = r#"{"version":1,"id":"a","author":{"why":"ticket 12"},"op":"assign","vmid":100,"pool":"ovh-rbx"}"#;
        let Envelope { id, author, dry_run, request } = Envelope::parse(line).unwrap();
        assert_eq!((id, author.why.as_deref(), dry_run), (Some("a".into()), Some("ticket 12"), false));
        let Request::Assign(assign) = request else { panic!("{request:?}") };
        assert_eq!((assign.vmid.to_string().as_str(), assign.hookscript, assign.more), ("100", true, false));
        assert_eq!(assign.interfaces, [NicId::FIRST]);
    }

    #[test]
    fn what_is_absent_stays_and_null_erases() {
        let entry = r#"{"address":"203.0.113.7","mac":null,"gateway":"203.0.113.1"}"#;
        let line = format!(r#"{{"version":1,"op":"add-addresses","pool":"a","entries":[{entry}]}}"#);
        let Request::AddAddresses(add) = Envelope::parse(&line).unwrap().request else { panic!() };
        let add = add.entries[0].clone();
        assert_eq!(
            (add.mac, add.gateway, add.monthly_cost_cents),
            (Edit::Erase, Edit::Set("203.0.113.1".parse().unwrap()), Edit::Keep)
        );
    }

    #[test]
    fn says_why_it_refuses() {
        for (line, reason) in [
            ("", "is no JSON object"),
            ("[]", "is no JSON object"),
            ("{}", "has no `version`"),
            (r#"{"version":2}"#, "reads requests of version 1, not of version 2"),
            (r#"{"version":"1"}"#, "not of version \"1\""),
            (r#"{"version":1}"#, "missing field `op`"),
            (r#"{"version":1,"op":"destroy"}"#, "unknown variant `destroy`"),
            (r#"{"version":1,"op":"release","vmid":100,"adresses":[]}"#, "unknown field `adresses`"),
            (r#"{"version":1,"op":"release","vmid":7}"#, "7"),
            (r#"{"version":1,"op":"release","vmid":100,"dry_run":1}"#, "dry_run: 1 is not true or false"),
            (r#"{"version":1,"op":"release","vmid":100,"author":[1]}"#, "author: "),
            (r#"{"version":1,"op":"release","vmid":100,"addresses":["203.0.113.10/24"]}"#, "has host bits set"),
        ] {
            let problem = Envelope::parse(line).unwrap_err();
            assert!(problem.sentence.contains(reason), "{line} gave {problem}");
            assert_eq!(problem.code.as_str(), "request-invalid");
        }
        let long = format!(r#"{{"version":1,"id":"{}"}}"#, "x".repeat(LIMIT));
        assert!(Envelope::parse(&long).unwrap_err().sentence.contains("262144 are allowed"));
    }
}
