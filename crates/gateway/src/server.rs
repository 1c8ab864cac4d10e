//! HTTP: limits, who may call, the pages for monitoring, the graceful end.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use connectrpc::{
    CompressionRegistry, ConnectError, ConnectRpcService, DeadlinePolicy, ErrorCode, GzipProvider, Limits, Router,
};
use connectrpc_health::{Checker, HealthExt as _, HealthService, Status};
use connectrpc_reflection::Reflector;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use pve_public_ip_core::code;
use pve_public_ip_core::model::{Problem, Subject};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower_service::Service as _;

use crate::auth::{self, Attempts, Keyring, Refusal};
use crate::backend::{Backend, busy};
use crate::config::{Config, Secrets, Surroundings, TlsFiles};
use crate::contract::{self, Call};
use crate::explained::{self, explained};
use crate::keys;
use crate::log::{Level, line};
use crate::metrics::Metrics;
use crate::node::NodeMetrics;
use crate::service::{Admitted, Gate, Service, now};
use crate::stall::Stall;
use crate::status;
use crate::supervisor::{Supervisor, given_listener, watchdog};
use crate::tls::{self, Looks};

/// No request has a larger message, in bytes.
const MESSAGE_LIMIT: usize = 256 * 1024;

/// What gRPC puts before a message.
const FRAME_HEAD: usize = 5;

/// No file of secrets is larger, in bytes.
const SECRETS_LIMIT: u64 = 64 * 1024;

/// No request has larger headers, in bytes.
const HEADERS_LIMIT: usize = 32 * 1024;

/// No more headers.
const HEADERS_COUNT: usize = 64;

/// So many connections at once, from everybody and from one peer.
const CONNECTIONS: u32 = 1024;
const CONNECTIONS_OF_A_PEER: usize = 256;

/// So many requests at once, from everybody and on one connection of HTTP/2.
const REQUESTS: usize = 256;
const REQUESTS_OF_A_CONNECTION: u32 = 128;

/// So many watchers at once. With the connections below, and one each for keys and metrics, they are less than the root part takes, which is 64.
const WATCHERS: usize = 40;

/// So many connections to the root part at once, those of watchers, keys and metrics not counted.
const ROOT_CONNECTIONS: usize = 16;

/// What a peer may take for the handshake of TLS, its headers, its body.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
const HEADERS_TIME: Duration = Duration::from_secs(10);
const BODY_TIME: Duration = Duration::from_secs(15);

/// Of a request that is refused unread, so much is read for so long, of so many at once: whoever still writes when the connection
/// closes does not get his answer.
const PARTING_SIZE: usize = 1024 * 1024;
const PARTING_TIME: Duration = Duration::from_secs(1);
const PARTINGS: usize = 32;

/// After this a connection ends that nothing can be written to.
const STALL_TIME: Duration = Duration::from_secs(30);

/// After this a connection ends that has never carried a request, or that carries none now.
const UNUSED_TIME: Duration = Duration::from_secs(30);
const IDLE_TIME: Duration = Duration::from_secs(120);

/// A connection takes no more requests, and then ends, when a stream's peer takes nothing of it for so long. Each stream has something
/// to look at every second.
const UNREAD_TIME: Duration = Duration::from_secs(20);
const UNREAD_END: Duration = Duration::from_secs(40);

/// After this a connection ends whose peer does not take its answer.
const ANSWER_TIME: Duration = Duration::from_secs(180);

/// A request takes no longer, whatever its caller says.
const REQUEST_TIME: Duration = Duration::from_secs(120);

/// So long a stop takes connections that wait.
const LAST_CALLS: Duration = Duration::from_millis(500);

/// So long a stop waits for requests.
const STOP_TIME: Duration = Duration::from_secs(30);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The program.
pub fn main() -> ExitCode {
    // Secrets are in its memory: no core dump, and no debugger of another process of its user.
    let undumpable = nix::sys::prctl::set_dumpable(false)
        .and_then(|()| nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0));
    if let Err(error) = undumpable {
        line(Level::Error, &format!("cannot forbid core dumps: {error}"));
        return ExitCode::FAILURE;
    }
    let arguments: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let variables = variables();
    let config = match Config::parse(&arguments, &Surroundings { variables: &variables, read: &read }) {
        Ok(config) => config,
        Err(crate::config::Refusal::Answer(text)) => {
            let written = io::stdout().write_all(text.as_bytes());
            return if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Err(refusal) => return refused(&refusal.to_string(), ExitCode::from(2)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(config)),
        Err(error) => Err(format!("error: cannot start threads: {error}")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => refused(&text, ExitCode::FAILURE),
    }
}

fn refused(text: &str, code: ExitCode) -> ExitCode {
    for text in text.lines() {
        line(Level::Error, text);
    }
    code
}

fn variables() -> BTreeMap<String, String> {
    let text = |word: std::ffi::OsString| word.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

/// A file of secrets; what is larger is none.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(SECRETS_LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

/// What every request needs.
struct App {
    calls: ConnectRpcService,
    /// Health and reflection, which anybody may ask for.
    open: ConnectRpcService,
    keyring: watch::Receiver<Arc<Keyring>>,
    attempts: Mutex<Attempts>,
    metrics: Arc<Metrics>,
    node: NodeMetrics,
    requests: Arc<Semaphore>,
    partings: Semaphore,
    started: Instant,
    /// Begins the names of requests: no two runs of the daemon share one.
    run: u64,
    count: AtomicU64,
    peers: Mutex<HashMap<IpAddr, usize>>,
    stop: watch::Receiver<bool>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What gRPC's health says.
struct Health {
    keyring: watch::Receiver<Arc<Keyring>>,
    stop: watch::Receiver<bool>,
}

impl Checker for Health {
    async fn check(&self, service: &str) -> Result<Status, ConnectError> {
        if !["", contract::GATEWAY, contract::SUPERADMIN].contains(&service) {
            return Err(ConnectError::not_found("there is no such service here"));
        }
        let serves = self.keyring.borrow().is_complete() && !*self.stop.borrow();
        Ok(if serves { Status::Serving } else { Status::NotServing })
    }
}

/// The services of the contract, behind a key.
fn calls(service: Service, metrics: &Arc<Metrics>) -> ConnectRpcService {
    let service = Arc::new(service);
    let router = contract::VpsGatewayServiceExt::register(Arc::clone(&service), Router::new());
    let router = contract::SuperadminServiceExt::register(service, router);
    let limits = Limits::default()
        .with_max_request_body_size(MESSAGE_LIMIT + FRAME_HEAD)
        .with_max_message_size(MESSAGE_LIMIT)
        .with_element_memory_limit(8 * 1024 * 1024);
    ConnectRpcService::new(router)
        .with_limits(limits)
        .with_compression(CompressionRegistry::new().register(GzipProvider::new()))
        .with_deadline_policy(DeadlinePolicy::new().with_max(REQUEST_TIME).with_default_timeout(REQUEST_TIME))
        .with_interceptor(Gate { metrics: Arc::clone(metrics) })
}

/// Health and reflection: small, short, without a key.
fn open(health: Health) -> Result<ConnectRpcService, String> {
    let reflector = Reflector::from_descriptor_set_bytes(contract::DESCRIPTORS)
        .map_err(|error| format!("error: the contract cannot be described: {error}"))?;
    let router = Arc::new(HealthService::new(health)).register(Router::new());
    let router = connectrpc_health::apply_request_limits(router, connectrpc_health::request_limits());
    let router = connectrpc_reflection::install(router, reflector);
    let short = Duration::from_secs(10);
    let policy = DeadlinePolicy::new().with_max(short).with_default_timeout(short).with_enforce_on_streams(true);
    Ok(ConnectRpcService::new(router).with_compression(CompressionRegistry::new()).with_deadline_policy(policy))
}

/// Where it listens.
struct Listening {
    listener: TcpListener,
    address: SocketAddr,
    /// Whether systemd keeps the socket: whoever connects during a stop is served by the next daemon.
    is_kept: bool,
}

fn listen(config: &Config) -> Result<Listening, String> {
    let given = given_listener();
    let at = given.as_ref().map(std::net::TcpListener::local_addr).transpose();
    let wanted = config.listen(at.map_err(|error| format!("error: systemd's socket is none: {error}"))?);
    let wanted = wanted.map_err(|refusal| refusal.to_string())?;
    let is_kept = given.is_some();
    let listener = given.map_or_else(|| std::net::TcpListener::bind(wanted), Ok);
    let opened = listener.and_then(|listener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Listening { listener: TcpListener::from_std(listener)?, address, is_kept })
    });
    opened.map_err(|error| {
        format!(
            "error: cannot listen at {wanted}: {error}\nhint: `ss -tlnp` shows who does; `--listen` names another port"
        )
    })
}

/// Runs until it is told to stop.
async fn run(config: Config) -> Result<(), String> {
    let supervisor = Supervisor::of_environment();
    let metrics = Arc::new(Metrics::default());
    let (keyring, keys) = watch::channel(Arc::new(Keyring::default().with_secrets(&config.secrets)));
    let (stop, stopped) = watch::channel(false);
    let mut certificates = Certificates::load(config.tls.clone())?;
    let service = Service {
        backend: Arc::new(Backend::new(&config.api_socket, ROOT_CONNECTIONS, Arc::clone(&metrics))),
        uplink: config.uplink,
        keyring: keys.clone(),
        stop: stopped.clone(),
        watchers: Arc::new(Semaphore::new(WATCHERS)),
        metrics: Arc::clone(&metrics),
    };
    let app = Arc::new(App {
        calls: calls(service, &metrics),
        open: open(Health { keyring: keys.clone(), stop: stopped.clone() })?,
        keyring: keys,
        attempts: Mutex::default(),
        metrics: Arc::clone(&metrics),
        node: NodeMetrics::new(Backend::new(&config.api_socket, 1, Arc::clone(&metrics))),
        requests: Arc::new(Semaphore::new(REQUESTS)),
        partings: Semaphore::new(PARTINGS),
        started: Instant::now(),
        run: u64::try_from(now().0.as_nanos()).unwrap_or_default(),
        count: AtomicU64::new(0),
        peers: Mutex::default(),
        stop: stopped,
    });
    let Listening { listener, address, is_kept } = listen(&config)?;
    let own = Backend::new(&config.api_socket, 1, Arc::clone(&metrics));
    tokio::spawn(keys::refresh(own, keyring.clone()));

    let on = |kind| signal(kind).map_err(|error| format!("error: cannot hear signals: {error}"));
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let mut hangup = on(SignalKind::hangup())?;
    let mut alive = interval(watchdog().unwrap_or(Duration::from_secs(3600)));
    let mut look = interval(Duration::from_secs(1));
    let connections = Arc::new(Semaphore::new(CONNECTIONS as usize));
    line(Level::Info, &format!("listens at {address}{}", if config.tls.is_some() { " with TLS" } else { "" }));
    supervisor.say("READY=1");
    loop {
        tokio::select! {
            (connection, place) = accepted(&listener, &connections) => {
                begin(&app, connection, place, certificates.current());
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                supervisor.say(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic()));
                reload(&keyring);
                certificates.reload();
                supervisor.say("READY=1");
            }
            _ = alive.tick() => supervisor.say("WATCHDOG=1"),
            _ = look.tick() => certificates.look(),
        }
    }
    supervisor.say("STOPPING=1");
    line(Level::Info, "stops: takes no more connections, and ends what has begun");
    stop.send_replace(true);
    // Whoever has connected already was let in by the kernel, and is served; of callers that never cease, for a moment.
    let end = tokio::time::Instant::now() + if is_kept { Duration::ZERO } else { LAST_CALLS };
    while tokio::time::Instant::now() < end {
        let Ok(Ok(connection)) = timeout(Duration::from_millis(50), listener.accept()).await else { break };
        if let Ok(place) = Arc::clone(&connections).try_acquire_owned() {
            begin(&app, connection, place, certificates.current());
        }
    }
    drop(listener);
    let all = timeout(STOP_TIME, connections.acquire_many(CONNECTIONS)).await;
    if all.is_err() {
        line(Level::Warning, &format!("some requests did not end within {} s", STOP_TIME.as_secs()));
    }
    Ok(())
}

/// The time in microseconds by the clock that systemd compares with.
fn monotonic() -> u128 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    time.map(|time| Duration::from(time).as_micros()).unwrap_or_default()
}

/// Reads the secrets again. If they cannot be used, the old ones count on.
fn reload(keyring: &watch::Sender<Arc<Keyring>>) {
    let variables = variables();
    match Secrets::load(&Surroundings { variables: &variables, read: &read }) {
        Ok(secrets) => {
            keyring.send_modify(|ring| *ring = Arc::new(Keyring::clone(ring).with_secrets(&secrets)));
            line(Level::Info, "the secrets were read again");
        }
        Err(refusal) => {
            line(Level::Warning, &format!("the secrets cannot be read again, the old ones count on: {refusal}"));
        }
    }
}

/// The certificates, and how their files looked when they were read.
struct Certificates {
    files: Option<TlsFiles>,
    current: Option<Arc<ServerConfig>>,
    looks: Option<Looks>,
}

impl Certificates {
    fn load(files: Option<TlsFiles>) -> Result<Self, String> {
        let looks = files.as_ref().map(Looks::of);
        let current = files.as_ref().map(tls::load).transpose();
        let current = current.map_err(|error| {
            format!("error: {error}\nhint: `openssl x509 -noout -text -in FILE` and `openssl pkey -noout -in FILE` say what is in them")
        })?;
        Ok(Self { files, current, looks })
    }

    fn current(&self) -> Option<Arc<ServerConfig>> {
        self.current.clone()
    }

    /// If a file is another: loads them.
    fn look(&mut self) {
        if self.files.as_ref().map(Looks::of) != self.looks {
            self.reload();
        }
    }

    /// Loads them. If they cannot be used, or while only one of them is replaced, the old ones serve on.
    fn reload(&mut self) {
        let Some(files) = &self.files else { return };
        self.looks = Some(Looks::of(files));
        match tls::load(files) {
            Ok(config) => {
                self.current = Some(config);
                line(Level::Info, "the certificate was loaded again");
            }
            Err(error) => line(Level::Warning, &format!("the old certificate serves on: {error}")),
        }
    }
}

/// The next connection, once there is a place for it.
async fn accepted(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> ((TcpStream, SocketAddr), OwnedSemaphorePermit) {
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(connections).acquire_owned().await else { std::future::pending().await };
        match listener.accept().await {
            Ok(connection) => return (connection, place),
            Err(error) => {
                line(Level::Warning, &format!("cannot take a connection: {error}"));
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One of a peer's connections, while it is open.
struct PeerPlace {
    app: Arc<App>,
    key: IpAddr,
}

impl PeerPlace {
    /// `None`: the peer has enough.
    fn take(app: &Arc<App>, peer: SocketAddr) -> Option<Self> {
        let key = auth::peer_key(peer.ip());
        let mut peers = locked(&app.peers);
        let count = peers.entry(key).or_default();
        // Whoever is on this machine can be a proxy for many.
        if *count >= CONNECTIONS_OF_A_PEER && !key.is_loopback() && key != auth::peer_key(IpAddr::from([0; 16])) {
            return None;
        }
        *count += 1;
        app.metrics.connections.up();
        Some(Self { app: Arc::clone(app), key })
    }
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        self.app.metrics.connections.down();
        let mut peers = locked(&self.app.peers);
        if let Some(count) = peers.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&self.key);
            }
        }
    }
}

/// Serves a connection, in a task of its own.
fn begin(
    app: &Arc<App>,
    (stream, peer): (TcpStream, SocketAddr),
    place: OwnedSemaphorePermit,
    tls: Option<Arc<ServerConfig>>,
) {
    let Some(peer_place) = PeerPlace::take(app, peer) else { return };
    // Without it answers are late, not wrong.
    stream.set_nodelay(true).unwrap_or_default();
    let app = Arc::clone(app);
    tokio::spawn(async move {
        let stream = Stall::new(stream, STALL_TIME);
        match tls {
            None => serve(&app, stream, peer).await,
            Some(config) => match timeout(HANDSHAKE_TIME, TlsAcceptor::from(config).accept(stream)).await {
                Ok(Ok(stream)) => serve(&app, stream, peer).await,
                Ok(Err(error)) if !tls::is_noise(&error) => {
                    line(Level::Info, &format!("no TLS with {peer}: {error}"));
                }
                Ok(Err(_)) | Err(_) => {}
            },
        }
        drop((peer_place, place));
    });
}

/// What a connection does.
struct Activity {
    state: Mutex<Use>,
}

struct Use {
    opened: Instant,
    /// Requests that have begun.
    begun: u64,
    /// When those began that have not ended, streams apart.
    open: BTreeMap<u64, Instant>,
    /// When something of each stream was last asked for, to be sent.
    streams: BTreeMap<u64, Instant>,
    /// When the last request ended.
    ended: Instant,
}

/// What becomes of a connection.
#[derive(PartialEq, Eq)]
enum Fate {
    Goes,
    /// It takes no more requests.
    Retires,
    /// It ends at once.
    Ends,
}

impl Activity {
    fn new() -> Self {
        let now = Instant::now();
        let state = Use { opened: now, begun: 0, open: BTreeMap::new(), streams: BTreeMap::new(), ended: now };
        Self { state: Mutex::new(state) }
    }

    fn fate(&self, stops: bool) -> Fate {
        let state = locked(&self.state);
        let is_unused = state.begun == 0;
        let is_idle = state.open.is_empty() && state.streams.is_empty();
        // By HTTP/2 a peer can take nothing of a stream while its connection is well.
        let unread = state.streams.values().map(Instant::elapsed).max().unwrap_or_default();
        if is_unused && state.opened.elapsed() > UNUSED_TIME
            || state.open.values().next().is_some_and(|began| began.elapsed() > ANSWER_TIME)
            || is_idle && state.ended.elapsed() > IDLE_TIME + UNUSED_TIME
            || unread > UNREAD_END
        {
            return Fate::Ends;
        }
        // A connection that has just come brings a request as a rule.
        let may_stop = stops && (!is_unused || state.opened.elapsed() > Duration::from_secs(1));
        let has_rested = is_idle && !is_unused && state.ended.elapsed() > IDLE_TIME;
        if may_stop || has_rested || unread > UNREAD_TIME { Fate::Retires } else { Fate::Goes }
    }
}

/// A request of a connection, until its answer is sent.
struct Open {
    activity: Arc<Activity>,
    metrics: Arc<Metrics>,
    number: u64,
    streams: bool,
    _place: Option<OwnedSemaphorePermit>,
}

impl Open {
    fn new(
        activity: &Arc<Activity>,
        metrics: &Arc<Metrics>,
        streams: bool,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let mut state = locked(&activity.state);
        state.begun += 1;
        let number = state.begun;
        let kind = if streams { &mut state.streams } else { &mut state.open };
        kind.insert(number, Instant::now());
        drop(state);
        metrics.requests.up();
        Self { activity: Arc::clone(activity), metrics: Arc::clone(metrics), number, streams, _place: place }
    }

    /// Something of it is asked for.
    fn asked_for(&self) {
        if self.streams {
            locked(&self.activity.state).streams.insert(self.number, Instant::now());
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.requests.down();
        let mut state = locked(&self.activity.state);
        let kind = if self.streams { &mut state.streams } else { &mut state.open };
        kind.remove(&self.number);
        state.ended = Instant::now();
    }
}

/// An answer's body, with what is given back when it is sent.
struct Held {
    body: Body,
    open: Open,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.open.asked_for();
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves HTTP until the peer or the daemon ends it.
async fn serve<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(app: &Arc<App>, stream: T, peer: SocketAddr) {
    let activity = Arc::new(Activity::new());
    let service = {
        let (app, activity) = (Arc::clone(app), Arc::clone(&activity));
        service_fn(move |request| {
            let (app, activity) = (Arc::clone(&app), Arc::clone(&activity));
            async move { Ok::<_, Infallible>(answer(&app, &activity, peer, request).await) }
        })
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIME)
        .max_headers(HEADERS_COUNT)
        .max_buf_size(HEADERS_LIMIT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADERS_LIMIT.try_into().unwrap_or(u32::MAX))
        .max_concurrent_streams(REQUESTS_OF_A_CONNECTION)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut stop = app.stop.clone();
    let mut retires = false;
    loop {
        let stops = *stop.borrow_and_update();
        match activity.fate(stops) {
            Fate::Ends => return,
            Fate::Retires if !retires => {
                connection.as_mut().graceful_shutdown();
                retires = true;
            }
            Fate::Retires | Fate::Goes => {}
        }
        let pause = if stops && !retires { Duration::from_millis(20) } else { Duration::from_secs(1) };
        tokio::select! {
            // How it ended is the peer's affair.
            _ = connection.as_mut() => return,
            _ = stop.changed(), if !stops => {}
            () = sleep(pause) => {}
        }
    }
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Full::from(text).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The name of a request: the caller's, if it is one, else a new one.
fn request_id(app: &App, headers: &HeaderMap) -> String {
    let own = headers.get("x-request-id").and_then(|value| value.to_str().ok());
    let fits = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    own.filter(fits)
        .map_or_else(|| format!("{:x}-{}", app.run, app.count.fetch_add(1, Ordering::Relaxed)), str::to_owned)
}

/// Answers a request.
async fn answer(
    app: &Arc<App>,
    activity: &Arc<Activity>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let id = request_id(app, request.headers());
    let call = Call::of_path(request.uri().path());
    let streams = call.is_some_and(|call| call.method == "WatchPublicIPs");
    let place = Arc::clone(&app.requests).try_acquire_owned().ok();
    let is_full = place.is_none();
    let open = Open::new(activity, &app.metrics, streams, place.filter(|_| !streams));
    let response = match call {
        Some(call) => called(app, peer, &id, call, request, is_full).await,
        None => other(app, peer, request).await,
    };
    let mut response = response.map(|body| Held { body, open }.boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", id);
    }
    response
}

/// What needs no key, or is no call at all.
async fn other(app: &Arc<App>, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    match path {
        "/healthz" if reads => {
            let stops = *app.stop.borrow();
            let (status, text) = match app.keyring.borrow().is_complete() {
                _ if stops => (StatusCode::SERVICE_UNAVAILABLE, "the gateway stops\n"),
                true => (StatusCode::OK, "ok\n"),
                false => (StatusCode::SERVICE_UNAVAILABLE, "the root part does not answer\n"),
            };
            page(status, "text/plain; charset=utf-8", text.to_owned())
        }
        "/metrics" if reads => {
            let headers = request.headers();
            // A proxy on this machine asks for somebody else.
            let is_forwarded = ["forwarded", "x-forwarded-for", "via"].iter().any(|name| headers.contains_key(*name));
            let is_local = peer.ip().to_canonical().is_loopback() && !is_forwarded;
            let caller = (!is_local).then(|| admit(app, peer, headers, None));
            if let Some(Err(_)) = caller {
                let text = "metrics are for this machine, or for whoever has a key\n";
                return page(StatusCode::UNAUTHORIZED, "text/plain; charset=utf-8", text.to_owned());
            }
            let mut text = app.metrics.render(app.keyring.borrow().is_complete(), env!("CARGO_PKG_VERSION"));
            // Those of the node are about all guests.
            if caller.is_none_or(|caller| caller.is_ok_and(|caller| caller.organization.is_none())) {
                text.push_str(&app.node.text().await);
            }
            page(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
        }
        // Health and reflection talk on, and have no problems.
        _ if path.starts_with("/grpc.") => match app.open.clone().call(request).await {
            Ok(response) => response.map(BodyExt::boxed_unsync),
            Err(never) => match never {},
        },
        // The library answers with 404, in the words of the protocol that was spoken.
        _ => {
            let (parts, mut body) = request.into_parts();
            part(app, &parts, &mut body).await;
            let asked = parts.headers.clone();
            match app.calls.clone().call(Request::from_parts(parts, Full::new(Bytes::new()))).await {
                Ok(response) => explained(&asked, None, response.map(BodyExt::boxed_unsync)).await,
                Err(never) => match never {},
            }
        }
    }
}

/// Who calls, if he may.
fn admit(
    app: &App,
    peer: SocketAddr,
    headers: &HeaderMap,
    call: Option<&'static Call>,
) -> Result<Arc<auth::Caller>, Refusal> {
    let found = auth::presented(headers).and_then(|secret| app.keyring.borrow().find(secret, now()));
    let found = found.and_then(|caller| call.map_or(Ok(()), |call| caller.may(call)).map(|()| caller));
    found.map_err(|refusal| {
        let is_wrong = refusal == Refusal::Unknown;
        let is_too_many = is_wrong && locked(&app.attempts).failed(peer.ip(), app.started.elapsed());
        if is_wrong && !is_too_many {
            line(Level::Warning, &format!("a wrong secret came from {peer}"));
        }
        let refusal = if is_too_many { Refusal::TooMany } else { refusal };
        if let Some(reason) = refusal.reason() {
            app.metrics.refused(reason);
        }
        refusal
    })
}

/// A call of the contract: first who calls, then what he wants.
async fn called(
    app: &Arc<App>,
    peer: SocketAddr,
    id: &str,
    call: &'static Call,
    request: Request<Incoming>,
    is_full: bool,
) -> Response<Body> {
    let began = Instant::now();
    let (mut parts, mut body) = request.into_parts();
    let refuse = |error: ConnectError, parts: &Parts, is_whole: bool| {
        app.metrics.answered(call.method, error.code.as_str(), began.elapsed());
        let mut response = error.into_http_response(&parts.headers).map(BodyExt::boxed_unsync);
        if !is_whole && parts.version < Version::HTTP_2 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    };
    let caller = match admit(app, peer, &parts.headers, Some(call)) {
        Ok(caller) => caller,
        Err(refusal) => {
            let mut error = status::error(refusal.problem());
            if error.code == ErrorCode::Unauthenticated {
                error.response_headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            return refuse(error, &parts, part(app, &parts, &mut body).await);
        }
    };
    if let Err(error) = explained::check_time(&parts.headers) {
        return refuse(error, &parts, part(app, &parts, &mut body).await);
    }
    if is_full {
        return refuse(status::error(busy("requests")), &parts, part(app, &parts, &mut body).await);
    }
    let bytes = match received(app, &parts, body).await {
        Ok(bytes) => bytes,
        Err(error) => return refuse(error, &parts, false),
    };
    parts.extensions.insert(Admitted { caller, peer, id: id.to_owned(), call });
    // Who was let in is known; what he proved it with is nobody's business further on.
    parts.headers.remove(auth::HEADER);
    parts.headers.remove(header::AUTHORIZATION);
    let asked = parts.headers.clone();
    match app.calls.clone().call(Request::from_parts(parts, Full::new(bytes))).await {
        Ok(response) => explained(&asked, Some(call), response.map(BodyExt::boxed_unsync)).await,
        Err(never) => match never {},
    }
}

/// Reads what nobody will answer; whether that was all of it.
async fn part(app: &App, parts: &Parts, body: &mut Incoming) -> bool {
    // Whoever waits to be told to send has not begun. By HTTP/2 it is read, too: clients such as curl 7.88 lose an answer that
    // comes before they have sent all.
    let is_left = parts.headers.contains_key(header::EXPECT);
    let place = app.partings.try_acquire().ok().filter(|_| !is_left);
    let Some(_place) = place else { return body.is_end_stream() };
    let mut left = PARTING_SIZE;
    let read = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let length = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(length) else { return false };
            left = rest;
        }
        true
    };
    timeout(PARTING_TIME, read).await.unwrap_or(false)
}

/// The body of a call, if it is not too large and comes in time.
async fn received(app: &App, parts: &Parts, mut body: Incoming) -> Result<Bytes, ConnectError> {
    let limit = MESSAGE_LIMIT + FRAME_HEAD;
    let invalid = |status, sentence: String| {
        let hint = "send less at once: no call needs that much";
        status::error_as(status, Problem::new(code!("request-invalid"), Subject::Command, sentence, hint))
    };
    let too_large =
        || invalid(ErrorCode::ResourceExhausted, format!("the request is larger than {MESSAGE_LIMIT} bytes"));
    if body.size_hint().lower() > limit as u64 {
        part(app, parts, &mut body).await;
        return Err(too_large());
    }
    match timeout(BODY_TIME, Limited::new(&mut body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            part(app, parts, &mut body).await;
            Err(too_large())
        }
        Ok(Err(error)) => Err(invalid(ErrorCode::InvalidArgument, format!("the request broke off: {error}"))),
        Err(_) => {
            let sentence = format!("the request did not come whole within {} s", BODY_TIME.as_secs());
            Err(invalid(ErrorCode::DeadlineExceeded, sentence))
        }
    }
}
