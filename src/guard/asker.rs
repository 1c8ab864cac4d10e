//! Asks for the routers behind the uplinks, in a thread of its own, because an answer may take most of a second.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::thread::{self, JoinHandle};

use crate::paths::Paths;
use crate::plan::Question;
use crate::reconcile::ask_routers;

/// The thread, while there is one, and the bell that it rings.
#[derive(Debug)]
pub struct Asker {
    bell: UnixDatagram,
    ring: UnixDatagram,
    thread: Option<JoinHandle<()>>,
}

impl Asker {
    /// One that has asked nothing yet.
    ///
    /// # Errors
    ///
    /// If there are no more descriptors.
    pub fn new() -> io::Result<Self> {
        let (bell, ring) = UnixDatagram::pair()?;
        bell.set_nonblocking(true)?;
        ring.set_nonblocking(true)?;
        Ok(Self { bell, ring, thread: None })
    }

    /// Readable when there is an answer.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Whether there was an answer since the last call; it is noted for the next look.
    pub fn was_answered(&self) -> bool {
        let mut answered = false;
        while self.bell.recv(&mut [0; 8]).is_ok() {
            answered = true;
        }
        answered
    }

    /// Asks, unless it is just doing that.
    pub fn ask(&mut self, paths: &Paths, questions: Vec<Question>) {
        if questions.is_empty() || self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let Ok(ring) = self.ring.try_clone() else { return };
        let paths = paths.clone();
        let body = move || {
            if ask_routers(&paths, &questions) {
                let _ = ring.send(b"!");
            }
        };
        match thread::Builder::new().name("routers".to_owned()).spawn(body) {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => log::warn!("guard: routers are not asked for: {error}"),
        }
    }
}
