//! What a graph is made of, as its nodes say it: for the model, and for whoever compares.

use super::weight::Table;
use crate::kernel::factor_rows;

/// One attention layer, as its graph has it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// What positions turn by; `None` where the graph has a table of frequencies instead.
    pub rope_base: Option<f32>,
    /// Whether queries or keys are normalised before they are turned.
    pub qk_norm: bool,
}

/// What tokens are looked up in.
#[derive(Debug, Clone)]
pub(super) struct Embedding {
    pub table: Table,
    /// Columns.
    pub hidden: usize,
    /// Tokens that can be read; those of a factorised table have no row each.
    pub tokens: usize,
}

impl Embedding {
    /// Whether the rows are sums of factors.
    pub fn is_factored(&self) -> bool {
        self.tokens > self.table.rows(self.hidden)
    }

    /// The row of a speech token.
    pub fn read(&self, token: u32, out: &mut [f32]) {
        match &self.table {
            Table::Half(factors) if self.is_factored() => {
                out.fill(0.0);
                factor_rows(token as usize).iter().for_each(|&r| factors.add_row(r as usize, out));
            }
            plain => plain.read_row(token as usize, out),
        }
    }
}
