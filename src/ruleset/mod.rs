//! The filter: text that an administrator can read, and the elements that this program puts into its sets.
//!
//! The text never changes with the number of bindings; only sets grow. It is loaded in two halves, so that rules can
//! be replaced under traffic without touching the sets: `sets.nft`, then the elements, then `rules.nft`.

mod element;

pub use element::{Element, SetId, Storage};

/// The table; `bridge` family.
pub const TABLE: &str = "pve-public-ip";

/// Declares the table and its sets; harmless when they exist.
pub const SETS: &str = include_str!("sets.nft");

/// Replaces the rules in one transaction and leaves the sets alone.
pub const RULES: &str = include_str!("rules.nft");
