//! The program from outside: arguments and files in; output, exit status and changed files out.
//!
//! Messages are compared whole wherever they are the program's own.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

#[path = "../common/mod.rs"]
mod common;

mod audit;
mod cloud_init;
mod conflicts;
mod cool_down;
mod disk;
mod doctor;
mod guest_files;
mod hook;
mod hookscript;
mod idempotent;
mod image;
mod input;
mod profiles;
mod questions;
mod readme;
mod registry_files;
mod sequence;
mod states;
mod streams;
mod topology;
