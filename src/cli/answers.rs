//! The JSON of every command, as types from which its schemas are made. A test runs each command and holds its output to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::ports::PortsShown;
use super::whose::{MacAnswer, NetAnswer, PortAnswer};
use crate::audit::{Entry, Holder};
use crate::conflict::Conflict;
use crate::model::{
    Amount, GroupName, IfName, MacAddr, Missing, Moment, NicId, NodeName, PoolName, Prefix, Problem, Severity,
    Timestamp, Vmid,
};
use crate::ops::keys::{KeyAdded, KeyRevoked};
use crate::ops::{
    Acknowledged, AddressesAdded, AllReleased, Applied, Assigned, Converted, Done, Examined, Imported, InterfaceSet,
    NodeChanged, PoolCreated, PoolProperties, PoolRemoved, PoolSettings, Released, Restored, SnippetStorageAdded,
    Uninstalled,
};
use crate::partition::{self, Plan, Strategy, Weight};
use crate::plan::{GuestState, Router};
use crate::registry::Totals;
use crate::registry::document::{BackendChoice, Enforce, GuestFile, Mode, PoolAddress, PortProgramUse, Profile};
use crate::reply::{Key, Role};
use crate::selftest::live;
use crate::topology::{Edge, Flaw, Item};
use crate::view::View;

/// An answer with what every answer has.
#[derive(Serialize, JsonSchema)]
struct Answer<T> {
    #[serde(flatten)]
    data: T,
    /// What is worth knowing.
    notes: Vec<Problem>,
    /// Why a part of it is not done, if so.
    problem: Option<Problem>,
}

/// Nothing was done, or could be said.
#[derive(Serialize, JsonSchema)]
struct Failure {
    /// What is worth knowing.
    notes: Vec<Problem>,
    /// Why.
    problem: Problem,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is asked for")]
enum Document<A> {
    Answer(A),
    Failure(Failure),
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is asked for")]
enum Either<A, B> {
    One(A),
    Other(B),
}

/// Declares the shape of an answer; what may be absent is an `Option`.
macro_rules! shapes {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })+) => { $(
        $(#[$meta])*
        #[derive(Debug, Serialize, JsonSchema)]
        #[allow(clippy::allow_attributes, clippy::struct_field_names, reason = "they are called as in the answer")]
        pub(super) struct $name { $(pub(super) $field: $type),* }
    )+ };
}

shapes! {
    /// Nothing to say.
    Nothing {}
    /// One assigned address of `list`.
    Assignment {
        vmid: Vmid, interface: NicId, address: Prefix, mac: MacAddr, pool: PoolName, gateway: Option<IpAddr>,
        via: Option<IpAddr>, shared: Option<GroupName>,
        organization: Option<String>, assigned_at: Timestamp, monthly_cost_cents: Option<u64>, node: Option<NodeName>, state: GuestState,
    }
    /// `list`.
    Assignments { assignments: Vec<Assignment> }
    /// A run of addresses that nobody holds.
    Range {
        pool: PoolName, first: IpAddr, last: IpAddr, count: Amount, mac: Option<MacAddr>, gateway: Option<IpAddr>,
        state: Unheld, free_at: Option<Moment>, released: Option<Moment>, vmid: Option<Vmid>,
    }
    /// `list --free`.
    Ranges { ranges: Vec<Range> }
    /// A pool of `pool list`.
    PoolListed {
        name: PoolName, profile: Profile, mode: Mode, bridge: IfName, gateway4: Option<IpAddr>, gateway6: Option<IpAddr>,
        entries: usize, enforce: Enforce, nodes: BTreeSet<NodeName>, misplaced: Vec<Problem>,
        totals: BTreeMap<String, Totals>,
    }
    /// `pool list`.
    Pools { pools: Vec<PoolListed> }
    /// `pool export`.
    Exported { pool: PoolName, addresses: Vec<PoolAddress> }
    /// A holder of an address.
    PoolHolder { vmid: Vmid, interface: NicId, address: Prefix }
    /// What cools down.
    Cooling { address: Prefix, vmid: Vmid, released: Moment, free_at: Moment }
    /// Free addresses.
    Free { first: IpAddr, last: IpAddr }
    /// An entry of a pool.
    PoolEntry {
        address: Prefix, mac: Option<MacAddr>, gateway: Option<IpAddr>, monthly_cost_cents: Option<u64>,
        holders: Vec<PoolHolder>, cooling: Vec<Cooling>, free: Vec<Free>,
    }
    /// A gateway that is not protected yet: bridge and address.
    Verified {
        steps: Vec<String>, problems: Vec<Problem>, drift: Vec<String>, active: Option<Vec<live::Outcome>>,
        unknown_gateways: Option<Vec<(IfName, IpAddr)>>,
    }
    /// `conflicts list`.
    Conflicts { conflicts: Vec<Conflict>, not_compared: Vec<String> }
    /// `audit`.
    Audited {
        unreadable: usize, not_searched: Vec<String>, begins: Option<Moment>, entries: Option<Vec<Entry>>,
        holders: Option<Vec<Holder>>,
    }
    /// A frame that `explain` judged.
    JudgedFrame { frame: String, verdict: String, reason: String }
    /// `explain`.
    ExplainedFrames { port: IfName, role: String, to: Option<IfName>, frames: Vec<JudgedFrame>, reason: Option<String>, not_forwarding: Option<Vec<String>> }
    /// A check of `doctor --list`.
    CheckListed { code: &'static str, severity: Severity, explanation: &'static str }
    /// `doctor --list`.
    Checks { checks: Vec<CheckListed> }
    /// `topology`.
    Drawn { node: NodeName, items: Vec<Item>, edges: Vec<Edge>, not_drawn: Vec<String> }
    /// `topology --check`.
    Flaws { flaws: Vec<Flaw>, not_looked_at: Vec<String> }
    /// A strategy of `partition compare`.
    Compared { strategy: Strategy, weight: Option<Weight>, problem: Option<String> }
    /// `partition compare`.
    Strategies { strategies: Vec<Compared>, remarks: Vec<String> }
    /// `partition check`.
    PartitionChecked { findings: Vec<partition::Finding>, remarks: Vec<String> }
    /// A frame of the selftest.
    Played {
        topology: String, sender: String, group: String, class: String, expected: String, got: String, seen: Vec<String>,
        leaked: bool, broken: bool,
    }
    /// A topology that was not run.
    NotRun { topology: String, reason: String, optional: bool }
    /// `selftest`.
    Selftested {
        kernel: String, nft: String, missing: Vec<Missing>, rows: Vec<Played>, not_run: Vec<NotRun>, frames: usize,
        topologies: usize, leaked: usize, broken: usize, good: bool, seconds: f64,
    }
    /// A file that cannot be used.
    BrokenFile { file: String, reason: String, hint: String, copied_at: Option<String> }
    /// `registry check`.
    BrokenFiles { files: Vec<BrokenFile> }
    /// `node show`.
    NodeShown {
        node: NodeName, routers: Vec<Router>, uplinks: Option<BTreeSet<IfName>>, route_uplink: Option<IfName>,
        log_group: Option<u16>, watch: bool, enforce: Enforce, port_program: PortProgramUse, backend: BackendChoice, routed_traffic_is_filtered_by: String,
        alert_mail: Option<String>, alert_exec: Option<PathBuf>, alert_attempts: Option<u64>, metrics_seconds: Option<u64>,
        metrics_directory: Option<PathBuf>,
    }
    /// `deliver`.
    Delivered { messages: usize }
    /// `completion`.
    Script { shell: String, script: String }
    /// `schema`: one schema, or several by the name of what they are of.
    SchemaShown { schema: Map<String, Value> }
    /// `problem`.
    ProblemsExplained { problems: Vec<Explained> }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PoolShown {
    #[serde(flatten)]
    pub(super) properties: PoolProperties,
    pub(super) name: PoolName,
    pub(super) routers: Vec<Router>,
    pub(super) misplaced: Vec<Problem>,
    pub(super) addresses: Vec<PoolEntry>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct GuestShown {
    #[serde(flatten)]
    pub(super) guest: GuestFile,
    /// What to configure inside by hand, by the way in which it is done.
    pub(super) inside: Option<BTreeMap<String, String>>,
    pub(super) node: Option<NodeName>,
    pub(super) state: GuestState,
    pub(super) hookscript_registered: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Planned {
    #[serde(flatten)]
    pub(super) plan: Plan,
    pub(super) remarks: Vec<String>,
}

/// State of an address that nobody holds and that can be assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Unheld {
    /// Next-free allocation can choose it.
    Free,
    /// Next-free allocation leaves it out until its cool-down ends.
    Cooling,
}

/// A section of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Explained {
    /// The code.
    pub code: String,
    /// What it means.
    pub meaning: String,
    /// Why it comes about.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

fn one<A: JsonSchema>() -> Value {
    strict(schemars::schema_for!(Document<A>).to_value())
}

fn answer<A: JsonSchema>() -> Value {
    one::<Answer<A>>()
}

fn done<A: JsonSchema>() -> Value {
    one::<Done<A>>()
}

/// `key list`
#[derive(Serialize, JsonSchema)]
pub(super) struct Keys {
    pub(super) keys: Vec<ListedKey>,
}

/// A key of the API, without the hash of its secret: nobody needs that here.
#[derive(Serialize, JsonSchema)]
pub(super) struct ListedKey {
    name: String,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization: Option<String>,
    created_at: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Moment>,
}

impl From<Key> for ListedKey {
    fn from(Key { name, sha256: _, role, organization, created_at, expires_at }: Key) -> Self {
        Self { name, role, organization, created_at, expires_at }
    }
}

/// `complete-words`
#[derive(Serialize, JsonSchema)]
pub(super) struct Candidates {
    pub(super) words: Vec<Candidate>,
}

/// A word that can stand at the place that is completed.
#[derive(Serialize, JsonSchema)]
pub(super) struct Candidate {
    pub(super) value: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) help: String,
}

/// Every command that has a JSON of its own, by its words, with the schema of its answers.
pub fn schemas() -> BTreeMap<&'static str, Value> {
    BTreeMap::from([
        ("pool create", done::<PoolCreated>()),
        ("pool add", done::<AddressesAdded>()),
        ("pool import", done::<AddressesAdded>()),
        ("pool export", answer::<Exported>()),
        ("pool set", done::<PoolSettings>()),
        ("pool remove", done::<PoolRemoved>()),
        ("pool list", answer::<Pools>()),
        ("pool show", answer::<PoolShown>()),
        ("assign", done::<Assigned>()),
        ("import", done::<Imported>()),
        ("release", one::<Either<Done<Released>, Done<AllReleased>>>()),
        ("set", done::<InterfaceSet>()),
        ("list", one::<Either<Answer<Assignments>, Answer<Ranges>>>()),
        ("show", answer::<GuestShown>()),
        ("who", one::<Either<Answer<NetAnswer>, Either<Answer<MacAnswer>, Answer<PortAnswer>>>>()),
        ("plan", one::<Applied>()),
        ("apply", one::<Applied>()),
        ("verify", answer::<Verified>()),
        ("status", one::<View>()),
        ("metrics", one::<View>()),
        ("conflicts list", answer::<Conflicts>()),
        ("conflicts ack", done::<Acknowledged>()),
        ("audit", answer::<Audited>()),
        ("explain", answer::<ExplainedFrames>()),
        ("doctor", one::<Either<Answer<Examined>, Answer<Checks>>>()),
        ("topology", one::<Either<Answer<Drawn>, Answer<Flaws>>>()),
        ("partition plan", answer::<Planned>()),
        ("partition compare", answer::<Strategies>()),
        ("partition check", answer::<PartitionChecked>()),
        ("selftest", answer::<Selftested>()),
        ("registry check", answer::<BrokenFiles>()),
        ("registry restore", done::<Restored>()),
        ("registry convert", done::<Converted>()),
        ("key add", answer::<KeyAdded>()),
        ("key list", answer::<Keys>()),
        ("key revoke", answer::<KeyRevoked>()),
        ("serve", answer::<Nothing>()),
        ("node show", answer::<NodeShown>()),
        ("port show", answer::<PortsShown>()),
        ("node set", done::<NodeChanged>()),
        ("setup", done::<SnippetStorageAdded>()),
        ("uninstall", done::<Uninstalled>()),
        ("deliver", answer::<Delivered>()),
        ("hook", answer::<Nothing>()),
        ("guard", answer::<Nothing>()),
        ("schema", answer::<SchemaShown>()),
        ("completion", answer::<Script>()),
        ("problem", one::<Either<Answer<ProblemsExplained>, Answer<Explained>>>()),
    ])
}

/// An object has no other keys than those that are named, and a large number may be a string.
fn strict(schema: Value) -> Value {
    match schema {
        Value::Array(list) => list.into_iter().map(strict).collect(),
        Value::Object(map) => {
            let mut map: Map<String, Value> = map.into_iter().map(|(key, value)| (key, strict(value))).collect();
            let is_shape = map.contains_key("properties") && !map.contains_key("$ref") && !map.contains_key("allOf");
            if is_shape && !map.contains_key("additionalProperties") {
                map.insert("additionalProperties".to_owned(), false.into());
            }
            if map.get("format").is_some_and(|format| format == "uint64") {
                let types = match map.get("type") {
                    Some(Value::Array(types)) => types.iter().cloned().chain(["string".into()]).collect(),
                    _ => vec!["integer".into(), "string".into()],
                };
                map.insert("type".to_owned(), types.into());
                map.remove("format");
            }
            Value::Object(map)
        }
        other => other,
    }
}
