//! The machine under the node: its files, other programs and its service manager. Nothing here knows of addresses.

pub mod command;
pub mod files;
pub mod service;
pub mod users;
pub mod witness;
