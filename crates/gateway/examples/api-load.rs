//! Load for the API: `api-load ADDRESS:PORT SECRET CLIENTS SECONDS PATH BODY [PATH BODY]...` has so many clients make the calls in
//! turn, each on a connection of its own, and prints calls per second, the median and the 99th percentile in milliseconds, and how
//! many failed. `@` in a body becomes the number of the client plus 100.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and stops at the first surprise")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

/// One call; whether it was answered with 200.
fn call(stream: &mut BufReader<TcpStream>, secret: &str, path: &str, body: &str) -> bool {
    let request = format!(
        "POST /pve_public_ip.v1.{path} HTTP/1.1\r\nhost: gateway\r\nx-api-secret: {secret}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let (mut line, mut length, mut is_good, mut is_chunked) = (String::new(), 0, false, false);
    for number in 0.. {
        line.clear();
        stream.read_line(&mut line).unwrap();
        let text = line.trim_end().to_ascii_lowercase();
        if number == 0 {
            is_good = text.contains(" 200 ");
        }
        if let Some(value) = text.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        is_chunked |= text == "transfer-encoding: chunked";
        if text.is_empty() {
            break;
        }
    }
    while is_chunked {
        line.clear();
        stream.read_line(&mut line).unwrap();
        let part = usize::from_str_radix(line.trim_end(), 16).unwrap();
        stream.read_exact(&mut vec![0; part + 2]).unwrap();
        is_chunked = part > 0;
    }
    stream.read_exact(&mut vec![0; length]).unwrap();
    is_good
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, secret, clients, seconds, calls @ ..] = &arguments[..] else { panic!("see the head of this file") };
    let (clients, limit) = (clients.parse::<usize>().unwrap(), Duration::from_secs_f64(seconds.parse().unwrap()));
    let begin = Instant::now();
    let client = |number: usize| {
        let (address, secret) = (address.clone(), secret.clone());
        let calls: Vec<(String, String)> =
            calls.chunks(2).map(|pair| (pair[0].clone(), pair[1].replace('@', &(number + 100).to_string()))).collect();
        thread::spawn(move || {
            let mut stream = BufReader::new(TcpStream::connect(address).unwrap());
            stream.get_ref().set_nodelay(true).unwrap();
            let (mut took, mut failed) = (Vec::new(), 0);
            while begin.elapsed() < limit {
                for (path, body) in &calls {
                    let start = Instant::now();
                    failed += usize::from(!call(&mut stream, &secret, path, body));
                    took.push(start.elapsed());
                }
            }
            (took, failed)
        })
    };
    let threads: Vec<_> = (0..clients).map(client).collect();
    let (mut took, mut failed) = (Vec::new(), 0);
    for thread in threads {
        let (more, errors) = thread.join().unwrap();
        took.extend(more);
        failed += errors;
    }
    let span = begin.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |part: usize| took[(took.len() - 1) * part / 100].as_secs_f64() * 1e3;
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = took.len() as f64 / span;
    println!("{rate:.1} {:.2} {:.2} {failed}", at(50), at(99));
}
