//! The tables of selftest: who sends what where, and what must become of it.

pub mod delivery;
pub mod frames;
pub mod targets;
pub mod topologies;
pub mod verdicts;
