//! The arguments of every command, as clap reads them. What becomes of them is in the file of each command.

mod guests;
mod network;
mod node;
mod pools;

use std::ffi::OsString;

use clap::Args;
pub use guests::*;
pub use network::*;
pub use node::*;
pub use pools::*;

use crate::model::text::{unfit_line, unfit_name};

/// `complete-words`
#[derive(Debug, Args)]
pub struct CompleteWords {
    /// Which of the words is completed, from 0
    pub(in crate::cli) index: usize,
    /// The words, the program's name first
    #[arg(last = true, allow_hyphen_values = true)]
    pub(in crate::cli) words: Vec<OsString>,
}

/// Why something is changed.
#[derive(Debug, Clone, Default, Args)]
pub struct Reason {
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", value_parser = plain_text)]
    pub(in crate::cli) reason: Option<String>,
}

/// A line for a log and a terminal.
fn plain_text(text: &str) -> Result<String, String> {
    unfit_line(text).map_or_else(|| Ok(text.to_owned()), Err)
}

/// What somebody is called.
fn name(text: &str) -> Result<String, String> {
    unfit_name(text).map_or_else(|| Ok(text.to_owned()), Err)
}
