//! Deciding: inputs -> desired -> diff. Pure; tested without a kernel.

mod assume;
mod checks;
mod course;
mod desired;
mod diff;
mod event;
pub mod explain;
#[cfg(test)]
mod fixtures;
mod foreign;
mod guest_share;
mod guest_state;
mod inputs;
mod leave;
mod macs;
mod port_programs;
pub mod present;
mod routed;
mod routers;
mod segments;
mod sightings;
mod state;
mod subject;
mod support;
pub mod traces;
mod unbound;
mod uplink_guard;
mod uplinks;
pub mod watch;

pub use crate::guest::Located;
pub use assume::{Surroundings, assume_bridge, assume_gateways};
pub use checks::{
    Index, check_configured, check_filtered, check_guest, check_own, check_pending, check_stranger,
    is_configured_beyond, is_configured_with_others, nodes_not_named, wrong_node,
};
pub use course::{Failed, Outcome, Refusal, carry_out};
pub use desired::{Desired, desired, desired_for, is_filtered_by_chains, is_idle, notes};
pub use diff::{Step, diff};
pub use event::{Event, LastLook, latest};
pub use foreign::{
    Bypass, Decided, Foreign, Obstacles, Way, decide, foreign_neighbour, interface_down, settle, without_ipv6,
};
pub use guest_share::hears_advertisements;
pub use guest_state::{GuestState, GuestStates};
pub use inputs::{DefaultRoute, Exits, Inputs, Presence};
pub use leave::{Leave, left_behind};
pub use macs::{SharedMac, macs_of_the_node, macs_of_two_nics};
pub use port_programs::{PortProgram, PortWish, port_programs};
pub use routers::{Learnt, Question, gateways, is_uplink_of, learn, news, questions, unknown_gateways};
pub use segments::{is_segment_of, pool_bridges};
pub use sightings::{Router, Sighting};
pub use state::{NetState, Route, Rules, Setting, Support};
pub use subject::Subjects;
pub use unbound::router_lans;
pub use uplink_guard::{Stranger, guard_of, strangers, unregistered};
pub use uplinks::{is_uplink_name, misnamed_uplink};

pub use crate::model::{Problem, Subject};
pub use support::{gateways_here, outlook, problems as support_problems, support, unfiltered, unfit};
