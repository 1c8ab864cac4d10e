//! What changes in the kernel of this network namespace, as it happens.

use std::os::fd::{AsFd, BorrowedFd};

use super::changes::Changes;
use super::kernel::KernelError;
use super::nftables::Transactions;
use crate::plan::Event;

/// Hears of changes of our tables in nf_tables, and of nothing else.
#[derive(Debug)]
pub struct FilterMonitor(Transactions);

impl FilterMonitor {
    /// Subscribes.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self(Transactions::open()?))
    }

    /// Whether one may have changed since the last call.
    pub fn is_touched(&mut self) -> bool {
        let mut events = Vec::new();
        let heard = self.0.drain(&mut events);
        heard.is_err() || events.iter().any(|event| matches!(event, Event::Filter { .. } | Event::Lost))
    }
}

impl AsFd for FilterMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}

/// Open subscriptions. What happens from [`Self::open`] on is told; when it was too much, that is told too.
#[derive(Debug)]
pub struct Monitor {
    transactions: Transactions,
    changes: Changes,
}

impl Monitor {
    /// Subscribes.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self { transactions: Transactions::open()?, changes: Changes::open()? })
    }

    /// Readable when there is something to tell.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.transactions.socket.as_fd(), self.changes.socket.as_fd()]
    }

    /// Everything that has happened since the last call.
    pub fn drain(&mut self) -> Result<Vec<Event>, KernelError> {
        let mut events = Vec::new();
        self.transactions.drain(&mut events)?;
        self.changes.drain(&mut events)?;
        Ok(events)
    }
}
