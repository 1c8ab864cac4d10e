//! `pve-public-ip` binds the public IP addresses of Proxmox VE guests to their MAC and port.
//!
//! ```text
//!  cli (assign, apply, verify, ...)   guard     hook (pre-start ... post-stop)
//!        |            |                 |          |
//!        |            +----- reconcile::Reconciler -+     the one path, by scope and baseline: gather, decide, act or print
//!        |                          |
//!        v                          v
//!  registry  --+             +------------+
//!  guest     --+--> Inputs ->| plan (pure)|-> desired: NetState --+
//!  links     --+             |            |                       +-> diff -> Steps -> Network::apply
//!                            | ruleset    |   observed: NetState -+                       |
//!                            +------------+            ^                           system::Kernel: nft, netlink, /proc/sys
//!                                                      +---- Network::observe, find
//! ```
//!
//! What decides is in the crate [`pve_public_ip_core`], which has a table of its own; its rooms are named here as if they were
//! of this crate. The rooms of the root program:
//!
//! | room | what is in it | does input or output |
//! |---|---|---|
//! | [`paths`] | where everything lies, below the root that is given | no |
//! | [`host`] | the machine: files, other programs, the service manager | yes |
//! | [`guest`] | where Proxmox VE's guest configurations lie, and how they are read | reads |
//! | [`store`] | the registry's files: the cluster's lock, copies of the last that were good, the audit log | yes |
//! | [`hookscript`] | the script by which Proxmox VE calls us | reads |
//! | [`doctor`] | examines what surrounds the protection: one table of checks | no |
//! | [`system`] | the kernel: netlink, nftables, settings, programs at ports; `run` keeps the node's volatile notes | yes |
//! | [`view`] | how a node is, for people and for Prometheus | no, but knows what `system` counts |
//! | [`selftest`] | attacks the rules in network namespaces of its own, and a node's own bridges, by the core's tables | through `system` |
//! | [`reconcile`] | one reconciler, for the node or one guest, from what is known: gathers inputs, runs the plan; `Network` is its seam | through `system` |
//! | [`inspect`] | compares the image of a guest's cloud-init drive with what it has to find | reads |
//! | [`survey`] | looks at the node for [`doctor`]; what cannot be looked at is the reason why | through `system`; reads |
//! | [`hook`] | checks one guest at each phase of its life, and has `reconcile` do the rest | through `reconcile` |
//! | [`guard`] | `reconcile` for the node whenever something changes, as a service; `schedule`, `sayings`, `alerts` decide when to look and what to say | through `system`; `files` reads, `courier` sends |
//! | [`ops`] | what may be done, one file a use case: a request in, what became of it out | through all below |
//! | [`serve`] | requests of programs: JSON lines by a socket, carried out by `ops` | reads and writes its connection |
//! | [`cli`] | arguments in, text or JSON out | prints |
//!
//! A room uses only rooms above it in this table. Deciding is pure, acting is dull: an `if` that depends on configuration
//! belongs into `plan`. `tests/layers.rs` holds the rooms of both crates to it, and the crates to what they may stand on.

pub use pve_public_ip_core::{
    announce, audit, cloudinit, code, conflict, interfaces, links, lookup, model, oracle, partition, plan, registry,
    reply, request, ruleset, topology,
};

pub mod cli;
pub mod doctor;
pub mod guard;
pub mod guest;
pub mod hook;
pub mod hookscript;
pub mod host;
pub mod inspect;
pub mod ops;
pub mod paths;
pub mod reconcile;
pub mod selftest;
pub mod serve;
pub mod store;
pub mod survey;
pub mod system;
pub mod view;
