//! All that `pve-public-ip` decides and works out. Nothing here reads a file, asks the kernel, knows the time or the
//! environment: what it needs is given to it, what it finds is returned. The root program, and whatever else speaks of public
//! addresses, stands on it.
//!
//! | room | what is in it |
//! |---|---|
//! | [`model`] | addresses, MACs, names: text becomes a type here |
//! | [`links`] | a node's interfaces, as they are or as a file says |
//! | [`ruleset`] | the filters: their text, the keys of their sets, the same for routed traffic in the words of iptables |
//! | [`interfaces`] | what `/etc/network/interfaces` says of bridges, ports and addresses |
//! | [`registry`] | pools and assignments, and their rules |
//! | [`oracle`] | what must become of a frame, worked out without the filter: to check it, and to explain |
//! | [`audit`] | what changed, who did it, who held what: the entries of the audit log |
//! | [`reply`] | what an API's requests are answered with |
//! | [`request`] | what may be asked for, typed: of the command line, or a line of JSON |
//! | [`announce`] | the frame that tells the neighbours whose address it is now |
//! | [`guest`] | the text of Proxmox VE's guest configurations |
//! | [`plan`] | inputs -> desired -> diff -> steps; problems; what a new pool is assumed to have; what the oracle is told |
//! | [`conflict`] | the same address or MAC claimed by two, and what of that counts |
//! | [`cloudinit`] | what a guest has to find inside, and the words in which it is told |
//! | [`lookup`] | the guest that a name means, what is known of an address, pages of addresses |
//! | [`topology`] | the node drawn, and what cannot work as it is drawn |
//! | [`partition`] | plans subnets for the networks behind, counts what they cost, checks a network against them |
//! | [`selftest`] | the tables of attacks and of honest frames: senders, frames, verdicts, topologies |
//!
//! A room uses only rooms above it in this table.

pub mod announce;
pub mod audit;
pub mod cloudinit;
pub mod conflict;
pub mod guest;
pub mod interfaces;
pub mod links;
pub mod lookup;
pub mod model;
pub mod oracle;
pub mod partition;
pub mod plan;
pub mod registry;
pub mod reply;
pub mod request;
pub mod ruleset;
pub mod selftest;
pub mod topology;
