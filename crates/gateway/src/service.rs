//! The calls: each becomes a request of the root part, and its reply the answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use connectrpc::interceptor::{
    Next, NextStream, PayloadStream, StreamRequest, StreamResponse, UnaryRequest, UnaryResponse,
};
use connectrpc::{
    CodecFormat, ConnectError, Interceptor, Payload, RequestContext, Response, ServiceRequest, ServiceResult,
    ServiceStream,
};
use futures::{StreamExt as _, stream};
use http::HeaderMap;
use pve_public_ip_core::audit::{Author, Who};
use pve_public_ip_core::code;
use pve_public_ip_core::model::{IfName, Moment, Problem, Subject};
use pve_public_ip_core::reply::{self, Event, EventKind};
use pve_public_ip_core::request::{Envelope, Request};
use serde::de::{DeserializeOwned, Deserializer as _, IgnoredAny, MapAccess, Visitor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::auth::{Caller, Keyring};
use crate::backend::{Backend, Events, busy};
use crate::contract::{self as proto, Call};
use crate::metrics::Metrics;
use crate::{convert, status};

/// The header that has the reason of a change, for the audit log.
pub const REASON: &str = "x-reason";

/// No reason is longer, in bytes.
const REASON_LIMIT: usize = 255;

/// A call that was let in, in the extensions of its HTTP request.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// Who calls.
    pub caller: Arc<Caller>,
    /// From where.
    pub peer: SocketAddr,
    /// The name of the request in logs.
    pub id: String,
    /// What is called.
    pub call: &'static Call,
}

/// What the calls need.
#[derive(Debug)]
pub struct Service {
    /// The root part.
    pub backend: Arc<Backend>,
    /// The uplink that new addresses are for.
    pub uplink: Option<IfName>,
    /// The keys that count.
    pub keyring: watch::Receiver<Arc<Keyring>>,
    /// True once the daemon stops.
    pub stop: watch::Receiver<bool>,
    /// Places of watchers.
    pub watchers: Arc<Semaphore>,
    /// Numbers.
    pub metrics: Arc<Metrics>,
}

/// The time.
pub fn now() -> Moment {
    Moment(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The reason that a caller gives, if it is a text.
fn reason(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(REASON) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes()).ok();
    let text = text.filter(|text| text.len() <= REASON_LIMIT && !text.chars().any(char::is_control));
    text.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty())).ok_or_else(|| {
        Problem::new(
            code!("request-invalid"),
            Subject::Command,
            format!("{REASON}: it is no text of at most {REASON_LIMIT} bytes"),
            format!("`{REASON}` is such as `ticket 12`"),
        )
    })
}

/// Who asks, from where, and why: for the audit log.
fn author(admitted: &Admitted, headers: &HeaderMap) -> Result<Author, Problem> {
    let Admitted { caller, peer, id, call } = admitted;
    let who = Who { user: format!("api:{}", caller.name), ..Who::default() };
    let command = format!("{} from {peer} request {id}", call.method);
    Ok(Author { who: Some(who), command: Some(command), why: reason(headers)? })
}

fn admitted(ctx: &RequestContext) -> Result<&Admitted, ConnectError> {
    ctx.extensions().get::<Admitted>().ok_or_else(|| ConnectError::internal("the call was not let in"))
}

/// What a key that is bound to an organization makes of a request: what it allocates is that organization's.
fn bound(request: Request, organization: Option<&str>) -> Result<Request, Problem> {
    let Some(own) = organization else { return Ok(request) };
    match request {
        Request::Allocate(mut allocate) => match &allocate.organization {
            Some(other) if other != own => Err(Problem::new(
                code!("api-key-limited"),
                Subject::Command,
                format!("organization_id: `{other}` is not the organization that the key of this secret is bound to"),
                format!("leave organization_id out, or say `{own}`"),
            )),
            _ => {
                allocate.organization = Some(own.to_owned());
                Ok(Request::Allocate(allocate))
            }
        },
        other => Ok(other),
    }
}

impl Service {
    /// Has a call carried out.
    async fn call<T: DeserializeOwned, R>(
        &self,
        ctx: &RequestContext,
        dry_run: bool,
        request: Result<Request, Problem>,
        answer: impl FnOnce(T) -> R,
    ) -> ServiceResult<R> {
        Response::ok(answer(self.asked(ctx, dry_run, request).await?))
    }

    /// Has a change of a pool carried out, and looks how the pool is then.
    async fn pool_call<R>(
        &self,
        ctx: &RequestContext,
        dry_run: bool,
        request: Result<Request, Problem>,
        answer: impl FnOnce(reply::PoolChanged, Option<reply::PoolSummary>) -> R,
    ) -> ServiceResult<R> {
        let changed: reply::PoolChanged = self.asked(ctx, dry_run, request).await?;
        let pools: reply::Pools = self.asked(ctx, false, Ok(Request::ListPools {})).await?;
        let now = pools.pools.into_iter().find(|pool| pool.name == changed.pool);
        Response::ok(answer(changed, now))
    }

    /// What the root part answers.
    async fn asked<T: DeserializeOwned>(
        &self,
        ctx: &RequestContext,
        dry_run: bool,
        request: Result<Request, Problem>,
    ) -> Result<T, ConnectError> {
        let admitted = admitted(ctx)?;
        let organization = admitted.caller.organization.as_deref();
        let envelope = request.and_then(|request| {
            Ok(Envelope {
                id: None,
                author: author(admitted, ctx.headers())?,
                dry_run,
                within: organization.map(str::to_owned),
                request: bound(request, organization)?,
            })
        });
        let reply = self.backend.ask(envelope.map_err(status::error)?).await.map_err(status::error)?;
        convert::read(reply).map_err(status::error)
    }
}

/// A watcher.
struct Watcher {
    events: Events,
    first: Option<Event>,
    /// The only organization whose events he is told.
    organization: Option<String>,
    caller: Arc<Caller>,
    keyring: watch::Receiver<Arc<Keyring>>,
    stop: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.metrics.streams.down();
    }
}

impl Watcher {
    /// Whether he is told this. The root part leaves out what is not the caller's; this makes sure of it.
    fn wants(&self, event: &Event) -> bool {
        let is_sign_of_life = matches!(event.event, EventKind::Ready | EventKind::Alive);
        let is_of = |wanted: &Option<String>| wanted.is_none() || *wanted == event.organization;
        is_sign_of_life || (is_of(&self.organization) && is_of(&self.caller.organization))
    }

    /// The next event that he wants, or why there are no more.
    async fn next(&mut self) -> Result<Event, ConnectError> {
        loop {
            let checked = self.keyring.borrow_and_update().still_counts(&self.caller, now());
            checked.map_err(|refusal| status::error(refusal.problem()))?;
            if *self.stop.borrow_and_update() {
                return Err(status::error(Problem::of_node(
                    code!("api-unreachable"),
                    "the gateway stops",
                    "watch again; what happened meanwhile is in the lists",
                )));
            }
            if let Some(first) = self.first.take() {
                return Ok(first);
            }
            let event = tokio::select! {
                event = self.events.next() => event.map_err(status::error)?,
                _ = self.keyring.changed() => continue,
                _ = self.stop.changed() => continue,
                // A key can expire while nothing happens.
                () = tokio::time::sleep(Duration::from_secs(1)) => continue,
            };
            if self.wants(&event) {
                return Ok(event);
            }
        }
    }
}

/// Events until it ends, with the reason as the last item.
fn events(watcher: Watcher) -> ServiceStream<proto::WatchPublicIPsResponse> {
    stream::unfold(Some(watcher), |watcher| async move {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(event) => Some((Ok(convert::event(event)), Some(watcher))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

#[expect(refining_impl_trait, reason = "every answer is a message of the contract")]
impl proto::VpsGatewayService for Service {
    async fn allocate_public_ip(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, proto::AllocatePublicIPRequest>,
    ) -> ServiceResult<proto::AllocatePublicIPResponse> {
        let message = request.to_owned_message();
        self.call(&ctx, message.dry_run, convert::allocate(&message), convert::allocated).await
    }

    async fn release_public_ip(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, proto::ReleasePublicIPRequest>,
    ) -> ServiceResult<proto::ReleasePublicIPResponse> {
        let message = request.to_owned_message();
        self.call(&ctx, message.dry_run, convert::release(&message), convert::released).await
    }

    async fn get_public_ip(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, proto::GetPublicIPRequest>,
    ) -> ServiceResult<proto::GetPublicIPResponse> {
        self.call(&ctx, false, convert::get(&request.to_owned_message()), convert::got).await
    }

    async fn list_public_i_ps(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, proto::ListPublicIPsRequest>,
    ) -> ServiceResult<proto::ListPublicIPsResponse> {
        self.call(&ctx, false, convert::list(&request.to_owned_message()), convert::listed).await
    }

    async fn watch_public_i_ps(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, proto::WatchPublicIPsRequest>,
    ) -> ServiceResult<ServiceStream<proto::WatchPublicIPsResponse>> {
        let (request, organization) = convert::watch(&request.to_owned_message()).map_err(status::error)?;
        let admitted = admitted(&ctx)?;
        let place = Arc::clone(&self.watchers).try_acquire_owned().map_err(|_| status::error(busy("watchers")))?;
        let caller = Arc::clone(&admitted.caller);
        let envelope = Envelope {
            id: None,
            author: author(admitted, ctx.headers()).map_err(status::error)?,
            dry_run: false,
            within: caller.organization.clone(),
            request,
        };
        let (first, connection) = self.backend.watch(envelope).await.map_err(status::error)?;
        self.metrics.streams.up();
        let watcher = Watcher {
            events: connection,
            first: Some(first),
            organization,
            caller,
            keyring: self.keyring.clone(),
            stop: self.stop.clone(),
            metrics: Arc::clone(&self.metrics),
            _place: place,
        };
        Response::ok(events(watcher))
    }

    async fn get_gateway_info(
        &self,
        ctx: RequestContext,
        _request: ServiceRequest<'_, proto::GetGatewayInfoRequest>,
    ) -> ServiceResult<proto::GetGatewayInfoResponse> {
        self.call(&ctx, false, Ok(Request::Info {}), convert::info).await
    }
}

#[expect(refining_impl_trait, reason = "every answer is a message of the contract")]
impl proto::SuperadminService for Service {
    async fn create_vps_public_ip(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, proto::CreateVPSPublicIPRequest>,
    ) -> ServiceResult<proto::CreateVPSPublicIPResponse> {
        let message = request.to_owned_message();
        let request = convert::create(&message, self.uplink);
        self.call(&ctx, message.dry_run, request, convert::created).await
    }

    async fn assign_vps_public_ip(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, proto::AssignVPSPublicIPRequest>,
    ) -> ServiceResult<proto::AssignVPSPublicIPResponse> {
        let message = request.to_owned_message();
        self.call(&ctx, message.dry_run, convert::assign(&message), convert::assigned).await
    }

    async fn unassign_vps_public_ip(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, proto::UnassignVPSPublicIPRequest>,
    ) -> ServiceResult<proto::UnassignVPSPublicIPResponse> {
        let message = request.to_owned_message();
        self.call(&ctx, message.dry_run, convert::unassign(&message), convert::unassigned).await
    }

    async fn delete_vps_public_ip(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, proto::DeleteVPSPublicIPRequest>,
    ) -> ServiceResult<proto::DeleteVPSPublicIPResponse> {
        let message = request.to_owned_message();
        let answer = |changed: reply::AddressChanged| convert::deleted(&changed);
        self.call(&ctx, message.dry_run, convert::delete(&message), answer).await
    }

    async fn list_vps_public_i_ps(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, proto::ListVPSPublicIPsRequest>,
    ) -> ServiceResult<proto::ListVPSPublicIPsResponse> {
        self.call(&ctx, false, convert::list_all(&request.to_owned_message()), convert::listed_all).await
    }

    async fn get_vps_public_ip_history(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, proto::GetVPSPublicIPHistoryRequest>,
    ) -> ServiceResult<proto::GetVPSPublicIPHistoryResponse> {
        self.call(&ctx, false, convert::history(&request.to_owned_message()), convert::held).await
    }

    async fn create_pool(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, proto::CreatePoolRequest>,
    ) -> ServiceResult<proto::CreatePoolResponse> {
        let message = request.to_owned_message();
        self.pool_call(&ctx, message.dry_run, convert::create_pool(&message), convert::pool_created).await
    }

    async fn set_pool(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, proto::SetPoolRequest>,
    ) -> ServiceResult<proto::SetPoolResponse> {
        let message = request.to_owned_message();
        self.pool_call(&ctx, message.dry_run, convert::set_pool(&message), convert::pool_set).await
    }

    async fn delete_pool(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, proto::DeletePoolRequest>,
    ) -> ServiceResult<proto::DeletePoolResponse> {
        let message = request.to_owned_message();
        let answer = |removed: reply::PoolRemoved| convert::pool_deleted(&removed);
        self.call(&ctx, message.dry_run, convert::delete_pool(&message), answer).await
    }

    async fn list_pools(
        &self,
        ctx: RequestContext,
        _request: ServiceRequest<'_, proto::ListPoolsRequest>,
    ) -> ServiceResult<proto::ListPoolsResponse> {
        self.call(&ctx, false, Ok(Request::ListPools {}), convert::pools).await
    }

    async fn verify_security(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, proto::VerifySecurityRequest>,
    ) -> ServiceResult<proto::VerifySecurityResponse> {
        self.call(&ctx, false, convert::verify(&request.to_owned_message()), convert::verified).await
    }
}

/// Checks what the library takes without a word, and counts.
pub struct Gate {
    /// Numbers.
    pub metrics: Arc<Metrics>,
}

#[connectrpc::async_trait]
impl Interceptor for Gate {
    async fn intercept_unary(&self, req: UnaryRequest, next: Next<'_>) -> Result<UnaryResponse, ConnectError> {
        let Some(call) = req.ctx.extensions().get::<Admitted>().map(|admitted| admitted.call) else {
            return next.run(req).await;
        };
        let began = Instant::now();
        let answer = match check(call, &req.payload) {
            Ok(()) => next.run(req).await,
            Err(error) => Err(error),
        };
        self.metrics.answered(call.method, code_of(&answer), began.elapsed());
        answer
    }

    async fn intercept_streaming(
        &self,
        req: StreamRequest,
        inbound: PayloadStream,
        next: NextStream<'_>,
    ) -> Result<StreamResponse, ConnectError> {
        let Some(call) = req.ctx.extensions().get::<Admitted>().map(|admitted| admitted.call) else {
            return next.run(req, inbound).await;
        };
        let began = Instant::now();
        let checked = inbound.map(move |payload| payload.and_then(|payload| check(call, &payload).map(|()| payload)));
        let answer = next.run(req, Box::pin(checked)).await;
        self.metrics.answered(call.method, code_of(&answer), began.elapsed());
        answer
    }
}

fn code_of<T>(answer: &Result<T, ConnectError>) -> &'static str {
    answer.as_ref().map_or_else(|error| error.code.as_str(), |_| "ok")
}

/// A field in JSON that the contract does not have is a typing error, and one that is given twice contradicts itself.
fn check(call: &Call, payload: &Payload) -> Result<(), ConnectError> {
    if payload.format() != CodecFormat::Json || payload.bytes().is_empty() {
        return Ok(());
    }
    let names = Names { call };
    let mut deserializer = serde_json::Deserializer::from_slice(payload.bytes());
    let checked = deserializer.deserialize_map(names).and_then(|()| deserializer.end());
    checked.map_err(|error| {
        let known: Vec<&str> = call.fields.iter().map(|(name, _)| *name).collect();
        let hint = match known.as_slice() {
            [] => format!("{} has no fields: `{{}}`", call.method),
            known => format!("the fields of {} are {}", call.method, known.join(", ")),
        };
        let sentence = format!("the request is not what {} takes: {error}", call.method);
        status::error(Problem::new(code!("request-invalid"), Subject::Command, sentence, hint))
    })
}

/// Reads the names of a JSON object's fields.
struct Names<'a> {
    call: &'a Call,
}

impl<'de> Visitor<'de> for Names<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        use serde::de::Error as _;
        let mut seen = vec![false; self.call.fields.len()];
        while let Some(name) = map.next_key::<String>()? {
            let known = self.call.fields.iter().position(|(own, json)| name == *own || name == *json);
            let shown: String = name.chars().take(64).collect();
            let Some(index) = known else { return Err(A::Error::custom(format!("unknown field `{shown}`"))) };
            if std::mem::replace(&mut seen[index], true) {
                return Err(A::Error::custom(format!("field `{shown}` is given twice")));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fields_of_the_contract_once() {
        let call = Call::of_path("/pve_public_ip.v1.VPSGatewayService/GetPublicIP").unwrap();
        let check = |text: &str| {
            let payload = Payload::new(text.to_owned().into(), CodecFormat::Json);
            check(call, &payload).map_err(|error| error.message.unwrap_or_default())
        };
        for good in ["", "{}", r#"{"public_ip":"a"}"#, r#"{"publicIp":{"x":[1]}}"#] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, reason) in [
            (r#"{"publicIP":"a"}"#, "unknown field `publicIP`"),
            (r#"{"public_ip":"a","publicIp":"b"}"#, "field `publicIp` is given twice"),
            (r#"{"public_ip":"a","public_ip":"a"}"#, "field `public_ip` is given twice"),
            ("[]", "expected a JSON object"),
            ("{", "EOF"),
            ("{} x", "trailing characters"),
        ] {
            let found = check(bad).unwrap_err();
            assert!(found.contains(reason), "{found}");
        }
    }

    #[test]
    fn a_key_of_an_organization_allocates_for_it() {
        let request = |organization: Option<&str>| {
            Request::Allocate(pve_public_ip_core::request::Allocate {
                organization: organization.map(str::to_owned),
                ..Default::default()
            })
        };
        assert_eq!(bound(request(None), Some("acme")).unwrap(), request(Some("acme")));
        assert_eq!(bound(request(Some("acme")), Some("acme")).unwrap(), request(Some("acme")));
        assert_eq!(bound(request(Some("other")), None).unwrap(), request(Some("other")));
        let problem = bound(request(Some("other")), Some("acme")).unwrap_err();
        assert_eq!(problem.code.as_str(), "api-key-limited");
    }

    #[test]
    fn a_reason_is_a_short_text() {
        let with = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REASON, http::HeaderValue::from_bytes(value).unwrap());
            reason(&headers).map_err(|problem| problem.sentence)
        };
        assert_eq!(with(b"ticket 12"), Ok(Some("ticket 12".to_owned())));
        assert_eq!(with("für Änne".as_bytes()), Ok(Some("für Änne".to_owned())));
        assert_eq!(with(b""), Ok(None));
        for bad in [&b"\xff"[..], b"a\tb", &[b'a'; 256]] {
            assert!(with(bad).unwrap_err().contains("x-reason: it is no text"), "{bad:?}");
        }
    }
}
