//! What a kernel may lack.

/// What a kernel may lack.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Missing {
    /// What it is.
    pub feature: &'static str,
    /// What that means for a node.
    pub meaning: &'static str,
    /// How it was found out.
    pub reason: String,
    /// Whether no node can do without it.
    #[serde(skip)]
    pub required: bool,
}
