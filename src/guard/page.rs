//! One page for Prometheus, on this node only: what the guard has gathered last.
//!
//! Who asks costs the guard nothing but a thread for a moment, and of these there are few: requests are short, have to
//! come soon, and get the text that is there already.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long a client may take for all of it.
const LIMIT: Duration = Duration::from_secs(5);

/// A request line with its headers.
const LENGTH: usize = 8192;

/// Clients at a time; more are sent away at once.
const CLIENTS: usize = 16;

/// What is shown now.
#[derive(Debug, Clone)]
pub struct Page(Arc<Mutex<Arc<str>>>);

impl Page {
    /// Shows it at this address.
    pub fn serve(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let page = Self(Arc::new(Mutex::new(Arc::from(""))));
        let (shown, clients) = (page.clone(), Arc::new(AtomicUsize::new(0)));
        thread::Builder::new().name("page".to_owned()).spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else {
                    // Out of descriptors: those that are open end soon.
                    thread::sleep(Duration::from_millis(100));
                    continue;
                };
                if clients.fetch_add(1, Ordering::SeqCst) >= CLIENTS {
                    clients.fetch_sub(1, Ordering::SeqCst);
                    continue;
                }
                let (shown, place) = (shown.clone(), ClientSlot(clients.clone()));
                let served = move || {
                    let _place = place;
                    // Nobody is interested in why a client went away.
                    let _ = serve(client, &shown.text());
                };
                // Without a thread the client is sent away, too.
                drop(thread::Builder::new().name("client".to_owned()).spawn(served));
            }
        })?;
        Ok(page)
    }

    /// From now on this.
    pub fn show(&self, text: &str) {
        if let Ok(mut shown) = self.0.lock() {
            *shown = Arc::from(text);
        }
    }

    fn text(&self) -> Arc<str> {
        self.0.lock().map_or_else(|_| Arc::from(""), |shown| shown.clone())
    }
}

/// A client's place, free again when it has gone.
struct ClientSlot(Arc<AtomicUsize>);

impl Drop for ClientSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn serve(mut client: TcpStream, text: &str) -> io::Result<()> {
    let end = Instant::now() + LIMIT;
    client.set_write_timeout(Some(LIMIT))?;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    let status = loop {
        if let Some(head) = head(&request) {
            break judge(head);
        }
        if request.len() > LENGTH {
            break "431 Request Header Fields Too Large";
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break "408 Request Timeout";
        }
        client.set_read_timeout(Some(left))?;
        match client.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => request.extend(&buffer[..length]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    let (body, kind) = if status == "200 OK" {
        (text.to_owned(), "text/plain; version=0.0.4; charset=utf-8")
    } else {
        (format!("{status}\n"), "text/plain; charset=utf-8")
    };
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\n{allow}Content-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    client.write_all(head.as_bytes())?;
    if !request.starts_with(b"HEAD ") {
        client.write_all(body.as_bytes())?;
    }
    client.flush()
}

/// The request line, once all headers are there.
fn head(request: &[u8]) -> Option<&[u8]> {
    let is_whole = request.windows(4).any(|end| end == b"\r\n\r\n") || request.windows(2).any(|end| end == b"\n\n");
    let line = request.split(|byte| *byte == b'\n').next().filter(|_| is_whole && request.len() <= LENGTH)?;
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

/// What becomes of a request line.
fn judge(line: &[u8]) -> &'static str {
    let Ok(line) = std::str::from_utf8(line) else { return "400 Bad Request" };
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, protocol] = words[..] else { return "400 Bad Request" };
    let path = target.split('?').next().unwrap_or(target);
    match (protocol, method, path) {
        (protocol, ..) if !protocol.starts_with("HTTP/1.") => "400 Bad Request",
        (_, "GET" | "HEAD", "/metrics") => "200 OK",
        (_, "GET" | "HEAD", _) => "404 Not Found",
        _ => "405 Method Not Allowed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_judged_by_their_first_line() {
        for (line, status) in [
            ("GET /metrics HTTP/1.1", "200"),
            ("HEAD /metrics HTTP/1.0", "200"),
            ("GET /metrics?x=1 HTTP/1.1", "200"),
            ("GET / HTTP/1.1", "404"),
            ("GET /metrics/ HTTP/1.1", "404"),
            ("GET /../metrics HTTP/1.1", "404"),
            ("POST /metrics HTTP/1.1", "405"),
            ("GET /metrics HTTP/2.0", "400"),
            ("GET /metrics", "400"),
            ("GET  /metrics HTTP/1.1", "400"),
            ("", "400"),
        ] {
            assert!(judge(line.as_bytes()).starts_with(status), "{line}: {}", judge(line.as_bytes()));
        }
        assert!(judge(b"\xff\xfe").starts_with("400"));
        assert_eq!(head(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), Some(&b"GET / HTTP/1.1"[..]));
        assert_eq!(head(b"GET / HTTP/1.0\n\n"), Some(&b"GET / HTTP/1.0"[..]));
        assert_eq!(head(b"GET / HTTP/1.1\r\nHost: x\r\n"), None);
    }
}
