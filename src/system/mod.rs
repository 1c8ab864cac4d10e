//! Acting: the file system, other programs and the kernel. Nothing here decides anything.

mod bridges;
pub mod by_hand;
mod chains;
mod changes;
pub mod claims;
mod fence;
mod forwarding;
pub mod image;
mod kernel;
mod monitor;
pub mod namespace;
pub mod netlink;
pub mod nflog;
mod nftables;
pub mod packet;
mod pins;
pub mod port_programs;
pub mod probe;
pub mod routers;
mod routing;
mod rtnetlink;
mod rules;
pub mod run;
pub mod sent;
mod settings;
pub mod tally;
pub mod tun;
pub mod xtables;

pub use chains::{foreign_chains, legacy_chains};
pub use fence::Fence;
pub use kernel::{Kernel, KernelError};
pub use monitor::{FilterMonitor, Monitor};
pub use nftables::{FilterError, Nftables, Reference};
pub use routing::RoutingError;
pub use xtables::XtablesError;
