//! What others have in the kernel's filters beside ours.

/// A base chain of `nf_tables`, or of the older iptables, that this program did not make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// `bridge`, `inet`, `ip`, `ip6`, ...
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// `prerouting`, `forward`, ...
    pub hook: &'static str,
    /// Drops what no rule of it accepts.
    pub drops: bool,
    /// Whether a rule of its table drops something.
    pub table_drops: bool,
    /// Of the older iptables, which `nft` does not list.
    pub legacy: bool,
}
