//! `serve`: the API of the root part. One connection, JSON lines in and out: a request a line, answered in order.
//!
//! systemd gives a connection on standard input and output (`Accept=yes`); [`listen`] does the same without systemd. Whoever
//! is at the other end is asked of the kernel: root, or the user of the gateway. What the caller may do is the gateway's
//! business; what is right is decided here, by the same operations as of the command line.

mod listener;
mod peer;
mod watch;

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write};

pub use listener::listen;
pub use peer::USER;
use serde_json::Value;

use crate::audit::{Author, Who};
use crate::code;
use crate::model::{Problem, Subject};
use crate::ops;
use crate::paths::Paths;
use crate::reconcile::Node;
use crate::reply::{Outcome, Reply};
use crate::request::{Envelope, LIMIT, Request, id_of};

/// As much is read of what nobody will answer.
const PARTING: u64 = 16 << 20;

/// Answers what comes by standard input, until it ends.
pub fn serve(paths: &Paths, user: &str) -> io::Result<()> {
    let peer = peer::of_stdin(user);
    // Not the buffered handle: a watcher waits for each line.
    let mut output = File::from(peer::duplicate(io::stdout())?);
    let mut input = BufReader::new(File::from(peer::duplicate(io::stdin())?));
    let name = match peer {
        Ok(name) => name,
        Err(problem) => {
            send(&mut output, None, Outcome::Problem(problem))?;
            return part(input);
        }
    };
    let (mut line, mut node) = (Vec::new(), None);
    loop {
        line.clear();
        let limit = u64::try_from(LIMIT).unwrap_or(u64::MAX).saturating_add(2);
        if input.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let is_whole = line.ends_with(b"\n");
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let id = id_of(text);
        match Envelope::parse(line.strip_suffix(b"\n").unwrap_or(&line)) {
            Ok(Envelope { request: Request::Watch(watch), within, .. }) => {
                let watcher = watch::Watcher { id: id.as_ref(), request: &watch, within: within.as_deref() };
                return watcher.run(paths, &mut output);
            }
            Ok(envelope) => send(&mut output, id, answered(&mut node, paths, &name, envelope))?,
            Err(problem) => send(&mut output, id, Outcome::Problem(problem))?,
        }
        if !is_whole {
            // The rest of a line that is too long would be taken for the next one.
            return part(input);
        }
    }
}

/// Reads on for a moment what nobody will answer: a connection that is closed on something unread loses its answer, too.
fn part(input: impl Read) -> io::Result<()> {
    peer::hurry();
    let mut rest = input.take(PARTING);
    match io::copy(&mut rest, &mut io::sink()) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

/// Carries out one request. The node is the same for all of a connection: it knows the files that it has read.
fn answered(node: &mut Option<Node>, paths: &Paths, peer: &str, envelope: Envelope) -> Outcome {
    let node = match (node, Node::open(paths.clone())) {
        // Its name may be another one by now.
        (Some(known), Ok(now)) if known.name == now.name => known,
        (node, Ok(now)) => {
            now.attend();
            node.insert(now)
        }
        (_, Err(error)) => return Outcome::Problem(ops::problem_of(&error.into())),
    };
    ops::act_for(node, &author(peer, &envelope.author));
    match ops::carry_out(node, envelope) {
        Ok(done) => Outcome::Done(done),
        Err(problem) => Outcome::Problem(problem),
    }
}

/// Who is noted in the audit log: whom the peer names, as far as it is for others that it asks.
fn author(peer: &str, named: &Author) -> Author {
    let user = named.who.as_ref().map_or(peer, |who| &who.user).to_owned();
    let command = named.command.clone().or_else(|| Some("pve-public-ip serve".to_owned()));
    Author { who: Some(Who { user, ..Who::default() }), command, why: named.why.clone() }
}

fn send(output: &mut impl Write, id: Option<Value>, outcome: Outcome) -> io::Result<()> {
    let reply = Reply { id, outcome };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

/// Why somebody is not answered.
fn refused(sentence: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem::new(code!("caller-not-allowed"), Subject::Command, sentence, hint)
}
