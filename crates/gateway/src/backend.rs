//! Connections to the root part: one request, one reply, at most so long and so large.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pve_public_ip_core::audit::{Author, Who};
use pve_public_ip_core::code;
use pve_public_ip_core::model::Problem;
use pve_public_ip_core::reply::{Event, Outcome, Reply};
use pve_public_ip_core::request::{self, Envelope, Request};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::metrics::Metrics;

/// No reply is larger, in bytes.
const REPLY_LIMIT: u64 = 16 * 1024 * 1024;

/// No reply takes longer.
const REPLY_TIME: Duration = Duration::from_secs(60);

/// So long a request waits for a connection.
const CONNECTION_TIME: Duration = Duration::from_secs(5);

/// A watcher is told at least every 15 s that his connection lives.
const SILENCE: Duration = Duration::from_secs(45);

/// The root part.
#[derive(Debug)]
pub struct Backend {
    path: PathBuf,
    /// Connections that nobody uses now.
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
    ids: AtomicU64,
    metrics: Arc<Metrics>,
}

/// How an exchange failed.
enum Failure {
    /// No connection was made: the request was not seen by anybody.
    Unreachable(io::Error),
    /// It broke off after the request was sent, or while it was.
    Lost(io::Error),
}

impl Backend {
    /// At most so many connections at once to the socket.
    pub fn new(path: &Path, connections: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            path: path.to_owned(),
            idle: Mutex::default(),
            permits: Semaphore::new(connections),
            ids: AtomicU64::new(1),
            metrics,
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that was used before, and that the root part has not closed since.
    fn take_idle(&self) -> Option<Connection> {
        loop {
            let connection = self.idle().pop()?;
            if connection.is_usable() {
                return Some(connection);
            }
        }
    }

    fn prepared(&self, envelope: Envelope) -> Result<(u64, String), Problem> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let line = Envelope { id: Some(id.into()), ..envelope }.line().map_err(|error| internal(&error.to_string()))?;
        if line.len() > request::LIMIT {
            return Err(internal(&format!("the request has {} bytes for the root part", line.len())));
        }
        Ok((id, line + "\n"))
    }

    /// Has a request carried out. Dropped on the way it takes its connection along, so that no reply goes to somebody else.
    pub async fn ask(&self, envelope: Envelope) -> Result<Value, Problem> {
        let looks = only_looks(&envelope.request);
        let (id, line) = self.prepared(envelope)?;
        let permit = timeout(CONNECTION_TIME, self.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else { return Err(busy("requests to the root part")) };
        let exchanged = timeout(REPLY_TIME, self.exchange(&line, looks)).await;
        let failure = match exchanged {
            Ok(Ok((reply, connection))) if reply.id == Some(id.into()) => {
                self.idle().push(connection);
                return match reply.outcome {
                    Outcome::Done(value) => Ok(value),
                    Outcome::Problem(problem) => Err(problem),
                    Outcome::Event(_) => Err(internal("the root part answered a request with an event")),
                };
            }
            // Before it reads anything it may say that it does not speak with this user.
            Ok(Ok((Reply { id: None, outcome: Outcome::Problem(problem) }, _))) => return Err(problem),
            Ok(Ok(_)) => Failure::Lost(io::Error::other("it answered another request")),
            Ok(Err(failure)) => failure,
            Err(_) => Failure::Lost(io::Error::other(format!("no answer within {} s", REPLY_TIME.as_secs()))),
        };
        self.metrics.root_failed();
        Err(self.told(failure, looks))
    }

    /// Sends the line and waits for its reply. Only what changes nothing is sent twice.
    async fn exchange(&self, line: &str, looks: bool) -> Result<(Reply, Connection), Failure> {
        let mut connection = match self.take_idle() {
            Some(connection) => connection,
            None => Connection::open(&self.path).await.map_err(Failure::Unreachable)?,
        };
        match connection.exchange(line).await {
            Ok(reply) => return Ok((reply, connection)),
            Err(_) if looks => {}
            Err(error) => return Err(Failure::Lost(error)),
        }
        let mut connection = Connection::open(&self.path).await.map_err(Failure::Unreachable)?;
        let reply = connection.exchange(line).await.map_err(Failure::Lost)?;
        Ok((reply, connection))
    }

    fn told(&self, failure: Failure, looks: bool) -> Problem {
        let path = self.path.display();
        match failure {
            Failure::Unreachable(error) => Problem::of_node(
                code!("api-unreachable"),
                format!("cannot connect to the root part at {path}: {error}"),
                "on the node: `systemctl start pve-public-ip-api.socket`",
            ),
            Failure::Lost(error) if looks => Problem::of_node(
                code!("api-unreachable"),
                format!("the root part at {path} did not answer: {error}"),
                "try again; on the node: `systemctl status pve-public-ip-api.socket`",
            ),
            Failure::Lost(error) => Problem::of_node(
                code!("api-answer-lost"),
                format!("the root part at {path} did not answer, and may have carried this out: {error}"),
                "make the same call again: what was done is answered with `changed` false",
            ),
        }
    }

    /// Begins to watch; the first line has come, so that nothing that follows is missed.
    pub async fn watch(&self, envelope: Envelope) -> Result<(Event, Events), Problem> {
        let (_, line) = self.prepared(envelope)?;
        let begun = timeout(REPLY_TIME, async {
            let mut connection = Connection::open(&self.path).await.map_err(Failure::Unreachable)?;
            connection.send(&line).await.map_err(Failure::Lost)?;
            let reply = connection.receive().await.map_err(Failure::Lost)?;
            Ok::<_, Failure>((reply, connection))
        });
        let failure = match begun.await {
            Ok(Ok((Reply { outcome: Outcome::Event(event), .. }, connection))) => {
                return Ok((event, Events { connection }));
            }
            Ok(Ok((Reply { outcome: Outcome::Problem(problem), .. }, _))) => return Err(problem),
            Ok(Ok(_)) => Failure::Lost(io::Error::other("it answered with something else than events")),
            Ok(Err(failure)) => failure,
            Err(_) => Failure::Lost(io::Error::other(format!("no answer within {} s", REPLY_TIME.as_secs()))),
        };
        self.metrics.root_failed();
        Err(self.told(failure, true))
    }
}

/// Too much at once.
pub fn busy(what: &str) -> Problem {
    Problem::of_node(
        code!("api-busy"),
        format!("there are too many {what} at once"),
        "try again in a second; use one connection for many calls",
    )
}

fn internal(sentence: &str) -> Problem {
    Problem::of_node(code!("internal-error"), sentence, "please report this")
}

/// What the gateway asks by itself.
pub fn own(request: Request) -> Envelope {
    let who = Who { user: "api".to_owned(), ..Who::default() };
    let author = Author { who: Some(who), command: Some("the gateway".to_owned()), why: None };
    Envelope { id: None, author, dry_run: false, within: None, request }
}

/// Whether a request changes nothing, whatever comes of it.
fn only_looks(request: &Request) -> bool {
    matches!(
        request,
        Request::GetAddress(_)
            | Request::ListAddresses(_)
            | Request::ListPools {}
            | Request::History(_)
            | Request::VerifyGuest(_)
            | Request::Info {}
            | Request::Metrics {}
            | Request::Watch(_)
            | Request::ListKeys {}
    )
}

/// The lines that follow a `watch`.
#[derive(Debug)]
pub struct Events {
    connection: Connection,
}

impl Events {
    /// The next one. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Event, Problem> {
        let lost = |why: &str| {
            Problem::of_node(
                code!("api-unreachable"),
                format!("the root part sends no more events: {why}"),
                "watch again; what happened meanwhile is in the lists",
            )
        };
        match timeout(SILENCE, self.connection.receive()).await {
            Ok(Ok(Reply { outcome: Outcome::Event(event), .. })) => Ok(event),
            Ok(Ok(Reply { outcome: Outcome::Problem(problem), .. })) => Err(problem),
            Ok(Ok(_)) => Err(lost("it answered with something else")),
            Ok(Err(error)) => Err(lost(&error.to_string())),
            Err(_) => Err(lost(&format!("none within {} s", SILENCE.as_secs()))),
        }
    }
}

/// A connection to the root part.
#[derive(Debug)]
struct Connection {
    stream: BufReader<UnixStream>,
    /// What has come of the next line.
    line: Vec<u8>,
}

impl Connection {
    async fn open(path: &Path) -> io::Result<Self> {
        let stream = timeout(CONNECTION_TIME, UnixStream::connect(path)).await??;
        Ok(Self { stream: BufReader::new(stream), line: Vec::new() })
    }

    /// Whether the root part has neither closed it nor said something that nobody asked for.
    fn is_usable(&self) -> bool {
        let silent = self.stream.buffer().is_empty() && self.line.is_empty();
        let mut byte = [0];
        let read = self.stream.get_ref().try_read(&mut byte);
        silent && read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    async fn exchange(&mut self, line: &str) -> io::Result<Reply> {
        self.send(line).await?;
        self.receive().await
    }

    async fn send(&mut self, line: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(line.as_bytes()).await
    }

    /// The next line. May be dropped and called again: what has come stays.
    async fn receive(&mut self) -> io::Result<Reply> {
        let left = REPLY_LIMIT.saturating_sub(self.line.len() as u64);
        (&mut self.stream).take(left).read_until(b'\n', &mut self.line).await?;
        if self.line.last() != Some(&b'\n') {
            let why = if self.line.len() as u64 >= REPLY_LIMIT {
                "its answer is too large"
            } else {
                "it closed the connection"
            };
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        let line = std::mem::take(&mut self.line);
        serde_json::from_slice(&line)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("its answer is no reply: {error}")))
    }
}
