//! `pve-public-ip` binds the public IP addresses of Proxmox VE guests to their MAC and port.
//!
//! ```text
//!  cli (assign, apply, verify, ...)   guard     hook (pre-start ... post-stop)
//!        |            |                 |          |
//!        |            +-------- reconcile ---------+        the one path: gather, decide, act or print
//!        |                          |
//!        v                          v
//!  registry  --+             +------------+
//!  guest     --+--> Inputs ->| plan (pure)|-> desired: NetState --+
//!  links     --+             |            |                       +-> diff -> Steps -> system::Kernel
//!                            | ruleset    |   observed: NetState -+               |
//!                            +------------+            ^                          +-> nft, netlink, /proc/sys
//!                                                      +---- system::Kernel::observe
//! ```
//!
//! | room | what is in it | does input or output |
//! |---|---|---|
//! | [`model`] | addresses, MACs, names: text becomes a type here | no |
//! | [`paths`] | where everything lies, below the root that is given | no |
//! | [`links`] | a node's interfaces, as they are or as a file says | no |
//! | [`host`] | the machine: files, other programs, the service manager | yes |
//! | [`ruleset`] | the filters: their text, the keys of their sets, the same for routed traffic in the words of iptables | no |
//! | [`interfaces`] | what `/etc/network/interfaces` says of bridges, ports and addresses | no |
//! | [`registry`] | pools and assignments, and their rules | no |
//! | [`oracle`] | what must become of a frame, worked out without the filter: to check it, and to explain | no |
//! | [`audit`] | what changed, who did it, who held what: the entries of the audit log | no |
//! | [`announce`] | the frame that tells the neighbours whose address it is now | no |
//! | [`guest`] | Proxmox VE's guest configurations and where they lie | reads |
//! | [`store`] | the registry's files: the cluster's lock, copies of the last that were good, the audit log | yes |
//! | [`hookscript`] | the script by which Proxmox VE calls us | reads |
//! | [`plan`] | inputs -> desired -> diff -> steps; problems; what a new pool is assumed to have; what the oracle is told | no |
//! | [`conflict`] | the same address or MAC claimed by two, and what of that counts | no |
//! | [`cloudinit`] | what a guest has to find inside, and the words in which it is told | no |
//! | [`topology`] | the node drawn, and what cannot work as it is drawn | no |
//! | [`doctor`] | examines what surrounds the protection: one table of checks | no |
//! | [`partition`] | plans subnets for the networks behind, counts what they cost, checks a network against them | no |
//! | [`system`] | the kernel: netlink, nftables, settings; `run` keeps the node's volatile notes | yes |
//! | [`view`] | how a node is, for people and for Prometheus | no, but knows what `system` counts |
//! | [`selftest`] | attacks the rules in network namespaces of its own, and a node's own bridges; `frames`, `verdicts`, `topologies`, `targets` are its tables | only `lab` and `live`, through `system` |
//! | [`reconcile`] | gathers inputs, runs the plan for the node | through `system` |
//! | [`inspect`] | compares the image of a guest's cloud-init drive with what it has to find | reads |
//! | [`survey`] | looks at the node for [`doctor`]; what cannot be looked at is the reason why | through `system`; reads |
//! | [`hook`] | `reconcile` for one guest, in milliseconds | through `system` |
//! | [`guard`] | the same whenever something changes, as a service; `schedule`, `sayings`, `alerts` decide when to look and what to say | through `system`; `files` reads, `courier` sends, `page` serves |
//! | [`cli`] | arguments in, text or JSON out | prints |
//!
//! A room uses only rooms above it in this table. Deciding is pure, acting is dull: an `if` that depends on configuration
//! belongs into `plan`. `tests/layers.rs` holds the rooms to both.

pub mod announce;
pub mod audit;
pub mod cli;
pub mod cloudinit;
pub mod conflict;
pub mod doctor;
pub mod guard;
pub mod guest;
pub mod hook;
pub mod hookscript;
pub mod host;
pub mod inspect;
pub mod interfaces;
pub mod links;
pub mod model;
pub mod oracle;
pub mod partition;
pub mod paths;
pub mod plan;
pub mod reconcile;
pub mod registry;
pub mod ruleset;
pub mod selftest;
pub mod store;
pub mod survey;
pub mod system;
pub mod topology;
pub mod view;
