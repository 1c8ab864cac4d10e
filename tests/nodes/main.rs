//! What Proxmox VE does in the life of a guest, played on two nodes behind one provider's switch: the phases that it
//! calls and those that it leaves out, in its order, with the real program and real frames.
//!
//! `rows` is the table, `script` plays a row, `lab` is the two nodes. `churn` makes up rows of
//! its own.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/random.rs"]
mod random;

mod churn;
mod kill;
mod lab;
mod rows;
mod script;
mod storm;

macro_rules! rows {
    ($($name:ident: $table:ident;)+) => {
        mod hooks_alone {
            $(#[test] fn $name() { super::script::play_all(super::script::Watch::Nobody, super::rows::$table); })+
        }
        mod with_guard {
            $(#[test] fn $name() { super::script::play_all(super::script::Watch::Guard, super::rows::$table); })+
        }
    };
}

rows! {
    start_and_stop: START_AND_STOP;
    crashes_and_backups: CRASHES_AND_BACKUPS;
    migration: MIGRATION;
    changes_while_running: CHANGES_WHILE_RUNNING;
    nodes: NODES;
}
