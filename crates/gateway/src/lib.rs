//! The daemon `pve-public-ip-gateway`: the API of `pve-public-ip` over Connect, gRPC and gRPC-Web. It has no privileges. What it
//! is asked it checks, and passes on to the root part by a unix socket.
//!
//! | room | what is in it |
//! |---|---|
//! | [`contract`] | what the `.proto` file says, as Rust |
//! | [`config`] | command line and environment become a configuration |
//! | [`status`] | how a problem is told to a caller |
//! | [`auth`] | keys: who calls, and what he may |
//! | [`convert`] | messages of the contract become requests of the root part, and its replies messages |
//! | [`explained`] | what the library refuses by itself becomes a problem |
//! | [`metrics`] | numbers for Prometheus |
//! | [`log`] | lines for the journal |
//! | [`supervisor`] | what is said to systemd |
//! | [`backend`] | connections to the root part |
//! | [`node`] | the metrics of the node |
//! | [`keys`] | the keys of the root part, read again every second |
//! | [`service`] | the calls |
//! | [`tls`] | certificates, loaded again when they change |
//! | [`stall`] | a connection whose peer does not read |
//! | [`server`] | HTTP: limits, who may call, the pages for monitoring, the graceful end |
//!
//! A room uses only rooms above it in this table. The first seven do no input or output.

pub mod auth;
pub mod backend;
pub mod config;
pub mod contract;
pub mod convert;
pub mod explained;
pub mod keys;
pub mod log;
pub mod metrics;
pub mod node;
pub mod server;
pub mod service;
pub mod stall;
pub mod status;
pub mod supervisor;
pub mod tls;
