//! Deciding: inputs -> desired -> diff. Pure; tested without a kernel.

mod assume;
mod checks;
mod desired;
mod diff;
mod event;
pub mod explain;
mod inputs;
mod routed;
mod state;

pub use assume::{DefaultRoute, Surroundings, assume_bridge, assume_gateways};
pub use checks::{Index, Problem, check_configured, check_guest, check_stranger, is_configured_beyond};
pub use desired::{Desired, Stranger, desired, desired_for, pool_bridges, strangers, unregistered};
pub use diff::{Step, diff};
pub use event::{Event, Known, latest};
pub use inputs::{
    BridgeOptions, Inputs, Link, Links, Place, Presence, TEST_PORTS, guest_of_port, is_guest_port, is_test_port,
};
pub use state::{NetState, Route, Rules};
