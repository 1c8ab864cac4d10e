//! Acting: the file system, other programs and the kernel. Nothing here decides anything.

pub mod command;
pub mod files;
pub mod image;
mod kernel;
pub mod namespace;
pub mod netlink;
mod nftables;
pub mod packet;
mod routing;
pub mod run;
pub mod tun;

pub use kernel::{Kernel, KernelError};
pub use nftables::{FilterError, Nftables};
pub use routing::RoutingError;
