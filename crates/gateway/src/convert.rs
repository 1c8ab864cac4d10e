//! Messages of the contract become requests of the root part, and its replies messages. A bad field is told by its name, its
//! value and an example.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

use pve_public_ip_core::audit::Holder;
use pve_public_ip_core::code;
use pve_public_ip_core::model::text::escaped;
use pve_public_ip_core::model::{CoolDown, Family, IfName, MacAddr, Moment, NodeName, Prefix, Problem, Subject};
use pve_public_ip_core::registry::document::Profile;
use pve_public_ip_core::registry::layout::Layout;
use pve_public_ip_core::registry::{Edit, Totals};
use pve_public_ip_core::reply;
use pve_public_ip_core::request::{self, Request};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::contract as proto;
use crate::status;

/// No text of a request is longer, in bytes.
const TEXT_LIMIT: usize = 255;

/// No cool-down is longer: ten years.
const COOL_DOWN_LIMIT: i64 = 10 * 365 * 86_400;

const ADDRESS: &str = "203.0.113.10, 2001:db8::10 or 2001:db8:1::/64";
const GATEWAY: &str = "203.0.113.1 or fe80::1";
const MAC: &str = "02:00:00:aa:bb:01";
const POOL: &str = "ovh-rbx";
const TIME: &str = "2026-11-30T12:00:00Z";
const GROUP: &str = "web";
const GUEST: &str = "101, or the name of a guest";

/// What is wrong with a field, and what were right.
fn bad(field: &str, what: impl Display, example: &str) -> Problem {
    let hint = format!("`{field}` is such as {example}");
    Problem::new(code!("request-invalid"), Subject::Command, format!("{field}: {what}"), hint)
}

fn missing(field: &str, example: &str) -> Problem {
    bad(field, "it is missing", example)
}

/// A text without surprises; `None`: it is empty.
fn text(field: &str, value: &str, example: &str) -> Result<Option<String>, Problem> {
    if value.len() > TEXT_LIMIT {
        return Err(bad(field, format!("it has {} bytes; at most {TEXT_LIMIT} are allowed", value.len()), example));
    }
    if value.chars().any(char::is_control) {
        return Err(bad(field, format!("`{}` has a control character", escaped(value)), example));
    }
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

/// A value of a type; `None`: it is empty.
fn value<T: FromStr<Err: Display>>(field: &str, value: &str, example: &str) -> Result<Option<T>, Problem> {
    let text = text(field, value, example)?;
    text.map(|text| text.parse().map_err(|error| bad(field, error, example))).transpose()
}

fn required<T: FromStr<Err: Display>>(field: &str, text: &str, example: &str) -> Result<T, Problem> {
    value(field, text, example)?.ok_or_else(|| missing(field, example))
}

/// A value that may be absent: an empty one is as absent as none.
fn maybe<T: FromStr<Err: Display>>(field: &str, text: Option<&str>, example: &str) -> Result<Option<T>, Problem> {
    value(field, text.unwrap_or_default(), example)
}

/// A value that stays if it is absent, and goes if it is empty.
fn edit<T: FromStr<Err: Display>>(field: &str, text: Option<&str>, example: &str) -> Result<Edit<T>, Problem> {
    match text {
        None => Ok(Edit::Keep),
        Some(text) => Ok(value(field, text, example)?.map_or(Edit::Erase, Edit::Set)),
    }
}

/// A plain IP address; the standard library's error does not name it.
fn address(field: &str, text: Option<&str>) -> Result<Option<IpAddr>, Problem> {
    let Some(text) = self::text(field, text.unwrap_or_default(), GATEWAY)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| bad(field, format!("`{text}` is no IP address"), GATEWAY))
}

/// `255.255.255.0` or `24`.
fn netmask(field: &str, text: Option<&str>) -> Result<Option<u8>, Problem> {
    const EXAMPLE: &str = "255.255.255.0 or 24";
    let Some(text) = self::text(field, text.unwrap_or_default(), EXAMPLE)? else { return Ok(None) };
    let wrong = || bad(field, format!("`{text}` is no netmask"), EXAMPLE);
    if let Ok(mask) = text.parse::<Ipv4Addr>() {
        let bits = mask.to_bits();
        let length = bits.leading_ones();
        if length != bits.count_ones() {
            return Err(bad(field, format!("`{text}` is no netmask: it has a gap"), EXAMPLE));
        }
        return u8::try_from(length).map(Some).map_err(|_| wrong());
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    match text.parse::<u8>() {
        Ok(length) if is_number && length <= 128 => Ok(Some(length)),
        _ => Err(wrong()),
    }
}

fn page_size(size: i32) -> Result<Option<u16>, Problem> {
    match u16::try_from(size) {
        Ok(0) => Ok(None),
        Ok(size) if size <= request::PAGE_LIMIT => Ok(Some(size)),
        _ => Err(bad("page_size", format!("{size} is out of range"), &format!("100; 1 to {}", request::PAGE_LIMIT))),
    }
}

fn page_token(token: &str) -> Result<Option<String>, Problem> {
    text("page_token", token, "the `next_page_token` of the page before")
}

fn guest(text: &str) -> Result<Option<String>, Problem> {
    self::text("vps_id", text, GUEST)
}

fn organization(text: &str) -> Result<Option<String>, Problem> {
    self::text("organization_id", text, "acme")
}

/// A word of a type that is read from JSON.
fn word<T: DeserializeOwned>(field: &str, text: &str, example: &str) -> Result<T, Problem> {
    let text = self::text(field, text, example)?.ok_or_else(|| missing(field, example))?;
    serde_json::from_value(Value::String(text)).map_err(|error| bad(field, error, example))
}

/// The same, if it is given.
fn maybe_word<T: DeserializeOwned>(field: &str, text: &str, example: &str) -> Result<Option<T>, Problem> {
    if text.is_empty() { Ok(None) } else { word(field, text, example).map(Some) }
}

/// The same of a field that may be absent, and says something if it is not.
fn given<T: DeserializeOwned>(text: Option<&str>, field: &str, example: &str) -> Result<Option<T>, Problem> {
    text.map(|text| word(field, text, example)).transpose()
}

fn macs(field: &str, texts: &[String]) -> Result<BTreeSet<MacAddr>, Problem> {
    texts.iter().map(|text| required(field, text, MAC)).collect()
}

fn nodes(texts: &[String]) -> Result<BTreeSet<NodeName>, Problem> {
    texts.iter().map(|text| required("nodes", text, "pve1")).collect()
}

/// 4 or 6; `None`: it is not said.
fn family(number: u32) -> Result<Option<Family>, Problem> {
    match number {
        0 => Ok(None),
        4 => Ok(Some(Family::V4)),
        6 => Ok(Some(Family::V6)),
        _ => Err(bad("family", format!("{number} is no version of IP"), "4 or 6")),
    }
}

fn cool_down(seconds: Option<i64>) -> Result<Option<CoolDown>, Problem> {
    let time = |seconds: i64| {
        let time = u64::try_from(seconds).ok().filter(|_| seconds <= COOL_DOWN_LIMIT);
        let time = time.ok_or_else(|| bad("cool_down", format!("{seconds} s is out of range"), "3600; 0: off"));
        time.map(|time| CoolDown(Duration::from_secs(time)))
    };
    seconds.map(time).transpose()
}

/// A layout of the caller's own.
fn layout(text: &str) -> Result<Option<Layout>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    let example = "the content of a file that describes a profile: docs/providers.md";
    serde_json::from_str(text).map(Some).map_err(|error| bad("layout", error, example))
}

/// Of `AllocatePublicIP`.
pub fn allocate(message: &proto::AllocatePublicIPRequest) -> Result<Request, Problem> {
    Ok(Request::Allocate(request::Allocate {
        vps_id: guest(&message.vps_id)?.ok_or_else(|| missing("vps_id", GUEST))?,
        organization: organization(&message.organization_id)?,
        mac: value("mac_address", &message.mac_address, MAC)?,
        address: value("public_ip", &message.public_ip, ADDRESS)?,
        gateway: address("gateway", message.gateway.as_deref())?,
        prefix_length: netmask("netmask", message.netmask.as_deref())?,
        pool: maybe("pool", message.pool.as_deref(), POOL)?,
        family: family(message.family)?,
        interface: None,
        via: address("via", Some(&message.via))?,
        shared: value("shared_group", &message.shared_group, GROUP)?,
        set_mac: message.set_mac,
        by_mac: true,
        live: false,
    }))
}

/// Of `ReleasePublicIP`.
pub fn release(message: &proto::ReleasePublicIPRequest) -> Result<Request, Problem> {
    Ok(Request::Deallocate(request::Deallocate {
        address: required("public_ip", &message.public_ip, ADDRESS)?,
        vps_id: Some(guest(&message.vps_id)?.ok_or_else(|| missing("vps_id", GUEST))?),
        mac: value("mac_address", &message.mac_address, MAC)?,
    }))
}

/// Of `GetPublicIP`.
pub fn get(message: &proto::GetPublicIPRequest) -> Result<Request, Problem> {
    Ok(Request::GetAddress(request::GetAddress { address: required("public_ip", &message.public_ip, ADDRESS)? }))
}

/// Of `ListPublicIPs`: what guests hold.
pub fn list(message: &proto::ListPublicIPsRequest) -> Result<Request, Problem> {
    Ok(Request::ListAddresses(request::ListAddresses {
        state: Some(reply::AddressState::Assigned),
        pool: value("pool", &message.pool, POOL)?,
        organization: organization(&message.organization_id)?,
        vps_id: guest(&message.vps_id)?,
        node: value("node", &message.node, "pve1")?,
        page_size: page_size(message.page_size)?,
        page_token: page_token(&message.page_token)?,
    }))
}

/// Of `WatchPublicIPs`, and the only organization that is asked for.
pub fn watch(message: &proto::WatchPublicIPsRequest) -> Result<(Request, Option<String>), Problem> {
    let request = Request::Watch(request::Watch { vps_id: guest(&message.vps_id)? });
    Ok((request, organization(&message.organization_id)?))
}

/// Of `CreateVPSPublicIP`; `uplink` is the one that the daemon was told.
pub fn create(message: &proto::CreateVPSPublicIPRequest, uplink: Option<IfName>) -> Result<Request, Problem> {
    let cost = message.monthly_cost_cents.map(|cents| {
        u64::try_from(cents).map_err(|_| bad("monthly_cost_cents", format!("{cents} is less than nothing"), "199"))
    });
    Ok(Request::CreateAddress(request::CreateAddress {
        address: required("ip_address", &message.ip_address, ADDRESS)?,
        gateway: address("gateway", message.gateway.as_deref())?,
        prefix_length: netmask("netmask", message.netmask.as_deref())?,
        monthly_cost_cents: cost.transpose()?,
        pool: maybe("pool", message.pool.as_deref(), POOL)?,
        mac: maybe("mac_address", message.mac_address.as_deref(), MAC)?,
        uplink,
        clear: message.clear.iter().map(|name| word("clear", name, "mac_address")).collect::<Result<_, _>>()?,
        yes: message.accept_losses,
    }))
}

/// Of `AssignVPSPublicIP`.
pub fn assign(message: &proto::AssignVPSPublicIPRequest) -> Result<Request, Problem> {
    Ok(Request::Allocate(request::Allocate {
        vps_id: guest(&message.vps_id)?.ok_or_else(|| missing("vps_id", GUEST))?,
        organization: organization(&message.organization_id)?,
        address: Some(required("ip_id", &message.ip_id, ADDRESS)?),
        interface: value("interface", &message.interface, "net0")?,
        via: address("via", Some(&message.via))?,
        shared: value("shared_group", &message.shared_group, GROUP)?,
        set_mac: message.set_mac,
        live: message.live,
        ..request::Allocate::default()
    }))
}

/// Of `UnassignVPSPublicIP`.
pub fn unassign(message: &proto::UnassignVPSPublicIPRequest) -> Result<Request, Problem> {
    let address = required("ip_id", &message.ip_id, ADDRESS)?;
    Ok(Request::Deallocate(request::Deallocate { address, vps_id: guest(&message.vps_id)?, mac: None }))
}

/// Of `DeleteVPSPublicIP`.
pub fn delete(message: &proto::DeleteVPSPublicIPRequest) -> Result<Request, Problem> {
    Ok(Request::DeleteAddress(request::DeleteAddress { address: required("ip_id", &message.ip_id, ADDRESS)? }))
}

/// Of `ListVPSPublicIPs`.
pub fn list_all(message: &proto::ListVPSPublicIPsRequest) -> Result<Request, Problem> {
    let state = match message.state.as_known() {
        Some(proto::AddressState::ADDRESS_STATE_UNSPECIFIED) => None,
        Some(proto::AddressState::ADDRESS_STATE_FREE) => Some(reply::AddressState::Free),
        Some(proto::AddressState::ADDRESS_STATE_ASSIGNED) => Some(reply::AddressState::Assigned),
        Some(proto::AddressState::ADDRESS_STATE_COOLING_DOWN) => Some(reply::AddressState::Cooling),
        Some(proto::AddressState::ADDRESS_STATE_RESERVED) => Some(reply::AddressState::Reserved),
        None => {
            let number = message.state.to_i32();
            return Err(bad("state", format!("{number} is no state of an address"), "ADDRESS_STATE_FREE"));
        }
    };
    Ok(Request::ListAddresses(request::ListAddresses {
        state,
        pool: value("pool", &message.pool, POOL)?,
        organization: organization(&message.organization_id)?,
        vps_id: guest(&message.vps_id)?,
        node: None,
        page_size: page_size(message.page_size)?,
        page_token: page_token(&message.page_token)?,
    }))
}

/// Of `GetVPSPublicIPHistory`.
pub fn history(message: &proto::GetVPSPublicIPHistoryRequest) -> Result<Request, Problem> {
    let address: Option<Prefix> = value("ip_id", &message.ip_id, ADDRESS)?;
    let vps_id = guest(&message.vps_id)?;
    if address.is_some() == vps_id.is_some() {
        let found = if address.is_some() { "both are given" } else { "both are missing" };
        return Err(bad("ip_id, vps_id", found, "one of them: an address or a guest"));
    }
    let time = self::text("time", &message.time, TIME)?;
    let time =
        time.map(|text| text.parse::<Moment>().map_err(|_| bad("time", format!("`{text}` is no time in UTC"), TIME)));
    Ok(Request::History(request::History { address, vps_id, time: time.transpose()? }))
}

/// Of `CreatePool`.
pub fn create_pool(message: &proto::CreatePoolRequest) -> Result<Request, Problem> {
    let layout = layout(&message.layout)?;
    let profile = match (&layout, message.profile.as_str()) {
        (Some(_), "" | "custom") => Profile::Custom,
        (Some(_), _) => return Err(bad("profile, layout", "both are given", "one of them: ovh-bridged, or a layout")),
        (None, name) => word("profile", name, "ovh-bridged; docs/providers.md has them all")?,
    };
    let addresses = message.addresses.iter().map(|text| required("addresses", text, ADDRESS));
    Ok(Request::CreatePool(request::CreatePool {
        pool: required("name", &message.name, POOL)?,
        profile,
        layout,
        bridge: value("bridge", &message.bridge, "vmbr0")?,
        gateway4: value("gateway4", &message.gateway4, "203.0.113.1")?,
        gateway6: value("gateway6", &message.gateway6, "fe80::1")?,
        gateway_mac: value("gateway_mac", &message.gateway_mac, MAC)?,
        guest_routers: message.guest_routers,
        uplink_guard: maybe_word("uplink_guard", &message.uplink_guard, "enforce, report or off")?,
        allowed_macs: macs("allowed_macs", &message.allowed_macs)?,
        probe: maybe_word("probe", &message.probe, "assign or never")?,
        cool_down: cool_down(message.cool_down)?,
        enforce: maybe_word("enforce", &message.enforce, "on, watch or off")?,
        nodes: nodes(&message.nodes)?,
        elsewhere: maybe_word("elsewhere", &message.elsewhere, "refuse or warn")?,
        yes: message.accept_losses,
        addresses: addresses.collect::<Result<_, _>>()?,
    }))
}

/// Of `SetPool`.
pub fn set_pool(message: &proto::SetPoolRequest) -> Result<Request, Problem> {
    let bridge = message.bridge.as_deref().map(|text| required("bridge", text, "vmbr0")).transpose()?;
    Ok(Request::SetPool(request::SetPool {
        pool: required("name", &message.name, POOL)?,
        bridge,
        gateway4: edit("gateway4", message.gateway4.as_deref(), "203.0.113.1")?,
        gateway6: edit("gateway6", message.gateway6.as_deref(), "fe80::1")?,
        gateway_mac: edit("gateway_mac", message.gateway_mac.as_deref(), MAC)?,
        guest_routers: message.guest_routers,
        uplink_guard: given(message.uplink_guard.as_deref(), "uplink_guard", "enforce, report or off")?,
        allow_macs: macs("allow_macs", &message.allow_macs)?,
        forbid_macs: macs("forbid_macs", &message.forbid_macs)?,
        probe: given(message.probe.as_deref(), "probe", "assign or never")?,
        cool_down: cool_down(message.cool_down)?,
        enforce: given(message.enforce.as_deref(), "enforce", "on, watch or off")?,
        nodes: match (message.on_every_node, nodes(&message.nodes)?) {
            (true, nodes) if nodes.is_empty() => Edit::Erase,
            (true, _) => return Err(bad("nodes, on_every_node", "both are given", "one of them: pve1")),
            (false, nodes) if nodes.is_empty() => Edit::Keep,
            (false, nodes) => Edit::Set(nodes),
        },
        elsewhere: given(message.elsewhere.as_deref(), "elsewhere", "refuse or warn")?,
        allow_present: message.allow_present,
        yes: message.accept_losses,
    }))
}

/// Of `DeletePool`.
pub fn delete_pool(message: &proto::DeletePoolRequest) -> Result<Request, Problem> {
    let pool = required("name", &message.name, POOL)?;
    Ok(Request::RemoveFromPool(request::RemoveFromPool { pool, addresses: Vec::new() }))
}

/// Of `VerifySecurity`.
pub fn verify(message: &proto::VerifySecurityRequest) -> Result<Request, Problem> {
    let vps_id = guest(&message.vps_id)?.ok_or_else(|| missing("vps_id", GUEST))?;
    Ok(Request::VerifyGuest(request::VerifyGuest { vps_id }))
}

/// What the root part answered, as the type that the call expects.
pub fn read<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_json::from_value(value).map_err(|error| {
        Problem::of_node(
            code!("internal-error"),
            format!("the root part answered what this release of the gateway does not understand: {error}"),
            "`apt-get install pve-public-ip pve-public-ip-gateway` brings both to the same release",
        )
    })
}

fn shown<T: Display>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn time(moment: Option<Moment>) -> String {
    moment.map(Moment::to_second).unwrap_or_default()
}

fn problems(problems: Vec<Problem>) -> Vec<proto::Problem> {
    problems.into_iter().map(status::message).collect()
}

/// The mask of an IPv4 address's network.
fn mask(address: &reply::Address) -> String {
    if address.address.family() != Family::V4 {
        return String::new();
    }
    let bits = u32::MAX.checked_shl(32_u32.saturating_sub(address.prefix_length.into())).unwrap_or(0);
    Ipv4Addr::from_bits(bits).to_string()
}

/// As a message.
pub fn public_ip(address: reply::Address) -> proto::PublicIP {
    let netmask = mask(&address);
    let reply::Address {
        address,
        prefix_length,
        gateway,
        pool,
        state,
        enforce,
        monthly_cost_cents,
        mac,
        free_at,
        shared,
        via,
        holder,
    } = address;
    let state = match state {
        reply::AddressState::Free => proto::AddressState::ADDRESS_STATE_FREE,
        reply::AddressState::Assigned => proto::AddressState::ADDRESS_STATE_ASSIGNED,
        reply::AddressState::Cooling => proto::AddressState::ADDRESS_STATE_COOLING_DOWN,
        reply::AddressState::Reserved => proto::AddressState::ADDRESS_STATE_RESERVED,
    };
    let mut message = proto::PublicIP {
        ip_id: address.to_string(),
        ip_address: address.to_string(),
        prefix_length: prefix_length.into(),
        netmask,
        gateway: shown(gateway),
        pool: pool.to_string(),
        state: state.into(),
        monthly_cost_cents: monthly_cost_cents.map_or(0, |cents| i64::try_from(cents).unwrap_or(i64::MAX)),
        mac_address: shown(mac),
        free_at: time(free_at),
        enforce: enforce.as_str().to_owned(),
        shared_group: shown(shared),
        via: shown(via),
        ..Default::default()
    };
    if let Some(holder) = holder {
        message.vmid = holder.vmid.to_string();
        message.vps_id = holder.vps_id.unwrap_or_default();
        message.interface = holder.interface.to_string();
        message.node = shown(holder.node);
        message.organization_id = holder.organization.unwrap_or_default();
        message.assigned_at = time(Some(holder.assigned_at.0));
    }
    message
}

fn steps(steps: Vec<reply::Step>) -> Vec<proto::Step> {
    let step = |step: reply::Step| {
        let name = match step.name {
            reply::StepName::Registry => "registry",
            reply::StepName::Mac => "mac",
            reply::StepName::Hookscript => "hookscript",
            reply::StepName::CloudInit => "cloud-init",
            reply::StepName::Binding => "binding",
            reply::StepName::GuestAgent => "guest-agent",
        };
        let state = match step.state {
            reply::StepState::Done => proto::StepState::STEP_STATE_DONE,
            reply::StepState::Unchanged => proto::StepState::STEP_STATE_UNCHANGED,
            reply::StepState::Pending => proto::StepState::STEP_STATE_PENDING,
            reply::StepState::NotPossible => proto::StepState::STEP_STATE_NOT_POSSIBLE,
        };
        proto::Step {
            name: name.to_owned(),
            state: state.into(),
            problem: step.problem.map(status::message).into(),
            ..Default::default()
        }
    };
    steps.into_iter().map(step).collect()
}

/// What happened to an address, in one sentence: `given` by the call, or taken.
fn sentence(changed: &reply::AddressChanged, given: bool) -> String {
    let address = shown(changed.address.as_ref().map(|address| address.address));
    let address = if address.is_empty() { "the address".to_owned() } else { address };
    let guest = changed.vmid.map_or_else(|| "no guest".to_owned(), |vmid| format!("guest {vmid}"));
    match (given, changed.changed, changed.dry_run) {
        (true, true, false) => format!("{address} is assigned to {guest}"),
        (true, true, true) => format!("{address} would be assigned to {guest}"),
        (true, false, _) => format!("{address} is assigned to {guest}; nothing has changed"),
        (false, true, false) => format!("{address} is released from {guest}"),
        (false, true, true) => format!("{address} would be released from {guest}"),
        (false, false, _) if changed.vmid.is_none() => format!("no guest holds {address}; nothing has changed"),
        (false, false, _) => format!("{guest} does not hold {address}; nothing has changed"),
    }
}

/// For `AllocatePublicIP`.
pub fn allocated(changed: reply::AddressChanged) -> proto::AllocatePublicIPResponse {
    let message = sentence(&changed, true);
    let ip = changed.address.map(public_ip);
    let of = |field: fn(&proto::PublicIP) -> &String| ip.as_ref().map(field).cloned().unwrap_or_default();
    proto::AllocatePublicIPResponse {
        changed: changed.changed,
        ip_address: of(|ip| &ip.ip_address),
        gateway: of(|ip| &ip.gateway),
        netmask: of(|ip| &ip.netmask),
        message,
        ip: ip.into(),
        steps: steps(changed.steps),
        notes: problems(changed.notes),
        ..Default::default()
    }
}

/// For `ReleasePublicIP`.
pub fn released(changed: reply::AddressChanged) -> proto::ReleasePublicIPResponse {
    proto::ReleasePublicIPResponse {
        changed: changed.changed,
        message: sentence(&changed, false),
        ip: changed.address.map(public_ip).into(),
        steps: steps(changed.steps),
        notes: problems(changed.notes),
        ..Default::default()
    }
}

/// For `AssignVPSPublicIP`.
pub fn assigned(changed: reply::AddressChanged) -> proto::AssignVPSPublicIPResponse {
    proto::AssignVPSPublicIPResponse {
        changed: changed.changed,
        message: sentence(&changed, true),
        ip: changed.address.map(public_ip).into(),
        steps: steps(changed.steps),
        notes: problems(changed.notes),
        ..Default::default()
    }
}

/// For `UnassignVPSPublicIP`.
pub fn unassigned(changed: reply::AddressChanged) -> proto::UnassignVPSPublicIPResponse {
    proto::UnassignVPSPublicIPResponse {
        changed: changed.changed,
        message: sentence(&changed, false),
        ip: changed.address.map(public_ip).into(),
        steps: steps(changed.steps),
        notes: problems(changed.notes),
        ..Default::default()
    }
}

/// For `CreateVPSPublicIP`.
pub fn created(changed: reply::AddressChanged) -> proto::CreateVPSPublicIPResponse {
    let ip = changed.address.map(public_ip);
    proto::CreateVPSPublicIPResponse {
        ip_id: ip.as_ref().map(|ip| ip.ip_id.clone()).unwrap_or_default(),
        changed: changed.changed,
        ip: ip.into(),
        notes: problems(changed.notes),
        ..Default::default()
    }
}

/// For `DeleteVPSPublicIP`.
pub fn deleted(changed: &reply::AddressChanged) -> proto::DeleteVPSPublicIPResponse {
    proto::DeleteVPSPublicIPResponse { changed: changed.changed, ..Default::default() }
}

/// For `GetPublicIP`.
pub fn got(address: reply::Address) -> proto::GetPublicIPResponse {
    proto::GetPublicIPResponse { ip: Some(public_ip(address)).into(), ..Default::default() }
}

/// For `ListPublicIPs`.
pub fn listed(page: reply::Addresses) -> proto::ListPublicIPsResponse {
    proto::ListPublicIPsResponse {
        ips: page.addresses.into_iter().map(public_ip).collect(),
        next_page_token: page.next_page_token.unwrap_or_default(),
        notes: problems(page.notes),
        ..Default::default()
    }
}

/// For `ListVPSPublicIPs`.
pub fn listed_all(page: reply::Addresses) -> proto::ListVPSPublicIPsResponse {
    proto::ListVPSPublicIPsResponse {
        ips: page.addresses.into_iter().map(public_ip).collect(),
        next_page_token: page.next_page_token.unwrap_or_default(),
        notes: problems(page.notes),
        ..Default::default()
    }
}

/// For `GetVPSPublicIPHistory`.
pub fn held(history: reply::History) -> proto::GetVPSPublicIPHistoryResponse {
    let holding = |holder: Holder| proto::Holding {
        ip_address: holder.address.to_string(),
        vmid: holder.vmid.to_string(),
        interface: holder.interface.to_string(),
        mac_address: shown(holder.mac),
        organization_id: holder.organization.unwrap_or_default(),
        pool: shown(holder.pool),
        from: time(holder.from),
        until: time(holder.until),
        ..Default::default()
    };
    proto::GetVPSPublicIPHistoryResponse {
        holdings: history.holdings.into_iter().map(holding).collect(),
        notes: problems(history.notes),
        ..Default::default()
    }
}

fn pool(pool: reply::PoolSummary) -> proto::PoolSummary {
    let totals = pool.totals.values().fold(Totals::default(), Totals::plus);
    proto::PoolSummary {
        name: pool.name.to_string(),
        profile: pool.profile,
        bridge: pool.bridge.to_string(),
        size: totals.size.to_string(),
        assigned: totals.assigned.to_string(),
        free: totals.free.to_string(),
        cooling_down: totals.cooling.to_string(),
        reserved: totals.reserved.to_string(),
        gateway4: shown(pool.gateway4),
        gateway6: shown(pool.gateway6),
        enforce: pool.enforce.as_str().to_owned(),
        uplink_guard: pool.uplink_guard.as_str().to_owned(),
        allowed_macs: pool.allowed_macs.iter().map(ToString::to_string).collect(),
        probe: pool.probe.as_str().to_owned(),
        cool_down: i64::try_from(pool.cool_down.0.as_secs()).unwrap_or(i64::MAX),
        guest_routers: pool.guest_routers,
        gateway_mac: shown(pool.gateway_mac),
        nodes: pool.nodes.iter().map(ToString::to_string).collect(),
        elsewhere: pool.elsewhere.as_str().to_owned(),
        ..Default::default()
    }
}

/// For `ListPools`.
pub fn pools(pools: reply::Pools) -> proto::ListPoolsResponse {
    proto::ListPoolsResponse { pools: pools.pools.into_iter().map(pool).collect(), ..Default::default() }
}

/// What is worth knowing of a change of a pool.
fn notes_of(changed: reply::PoolChanged) -> Vec<proto::Problem> {
    problems(changed.problems.into_iter().chain(changed.notes).collect())
}

/// For `CreatePool`; the pool is absent if it was only said what would be done.
pub fn pool_created(changed: reply::PoolChanged, now: Option<reply::PoolSummary>) -> proto::CreatePoolResponse {
    proto::CreatePoolResponse {
        changed: changed.changed,
        pool: now.map(pool).into(),
        notes: notes_of(changed),
        ..Default::default()
    }
}

/// For `SetPool`.
pub fn pool_set(changed: reply::PoolChanged, now: Option<reply::PoolSummary>) -> proto::SetPoolResponse {
    proto::SetPoolResponse {
        changed: changed.changed,
        pool: now.map(pool).into(),
        notes: notes_of(changed),
        ..Default::default()
    }
}

/// For `DeletePool`.
pub fn pool_deleted(removed: &reply::PoolRemoved) -> proto::DeletePoolResponse {
    proto::DeletePoolResponse { changed: removed.changed, ..Default::default() }
}

/// For `GetGatewayInfo`.
pub fn info(info: reply::Info) -> proto::GetGatewayInfoResponse {
    proto::GetGatewayInfoResponse {
        version: info.version,
        node: info.node.to_string(),
        uplinks: info.uplinks.iter().map(ToString::to_string).collect(),
        pools: info.pools.into_iter().map(pool).collect(),
        healthy: info.healthy,
        problems: problems(info.problems),
        ..Default::default()
    }
}

/// For `VerifySecurity`.
pub fn verified(verified: reply::Verified) -> proto::VerifySecurityResponse {
    let check = |check: reply::Check| proto::Check {
        interface: check.interface.to_string(),
        mac_address: check.mac.to_string(),
        ip_addresses: check.addresses.iter().map(ToString::to_string).collect(),
        state: check.state,
        ..Default::default()
    };
    let counter = |counter: reply::Counter| proto::Counter {
        port: counter.port.to_string(),
        reason: counter.reason,
        packets: counter.packets,
        bytes: counter.bytes,
        ..Default::default()
    };
    proto::VerifySecurityResponse {
        secure: verified.secure,
        node: verified.node.to_string(),
        checks: verified.checks.into_iter().map(check).collect(),
        counters: verified.counters.into_iter().map(counter).collect(),
        problems: problems(verified.problems),
        ..Default::default()
    }
}

/// For `WatchPublicIPs`.
pub fn event(event: reply::Event) -> proto::WatchPublicIPsResponse {
    proto::WatchPublicIPsResponse {
        event: event.event.as_str().to_owned(),
        time: time(Some(event.time)),
        node: event.node.to_string(),
        ip_address: shown(event.address),
        vmid: shown(event.vmid),
        vps_id: event.vps_id.unwrap_or_default(),
        mac_address: shown(event.mac),
        organization_id: event.organization.unwrap_or_default(),
        pool: shown(event.pool),
        message: event.text.unwrap_or_default(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
