//! A ping every 10 ms from each guest to the provider's gateway: what is lost while the node is worked on.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};

use super::{Namespace, until};

/// Echo requests that were sent, and answers that came, by the kernel's own counts: a process that does not run in time loses
/// answers that have arrived.
fn echoes(guest: &Namespace) -> (u64, u64) {
    let text = guest.sh("cat /proc/self/net/snmp");
    let mut lines = text.lines().filter(|line| line.starts_with("Icmp:")).map(str::split_whitespace);
    let all: BTreeMap<&str, &str> = lines.next().unwrap().zip(lines.next().unwrap()).collect();
    (all["OutEchos"].parse().unwrap(), all["InEchoReps"].parse().unwrap())
}

/// The pings of these guests, which end with this value.
pub(crate) struct Pings<'a> {
    guests: Vec<(u32, &'a Namespace)>,
    children: Vec<Child>,
}

impl<'a> Pings<'a> {
    /// Starts them; each guest has got answers.
    #[track_caller]
    pub(crate) fn start(guests: impl IntoIterator<Item = (u32, &'a Namespace)>) -> Self {
        let guests: Vec<_> = guests.into_iter().collect();
        let start = |(_, guest): &(u32, &Namespace)| {
            let mut command = guest.command("ping");
            command.args(["-i", "0.01", "203.0.113.1"]).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        };
        let children = guests.iter().map(start).collect();
        let pings = Self { guests, children };
        pings.go_on(5);
        pings
    }

    /// Waits until each guest has got so many more answers.
    #[track_caller]
    pub(crate) fn go_on(&self, more: u64) {
        for (vmid, guest) in &self.guests {
            let (_, before) = echoes(guest);
            until(&format!("guest {vmid} gets answers"), || echoes(guest).1 >= before + more);
        }
    }

    /// How many pings there were. Nothing was lost: each has its answer, and they still come.
    #[track_caller]
    pub(crate) fn end(mut self) -> u64 {
        self.go_on(5);
        self.stop();
        let mut all = 0;
        for (vmid, guest) in &self.guests {
            until(&format!("guest {vmid} has all its answers"), || {
                let (sent, answered) = echoes(guest);
                sent == answered && sent > 10
            });
            all += echoes(guest).0;
        }
        all
    }

    fn stop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Pings<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}
