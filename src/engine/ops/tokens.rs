//! Operators that read tokens.

use super::{Input, Operator, rows};
use crate::Result;
use crate::engine::model::Embedding;
use crate::engine::node::NodeReader;
use crate::engine::state::State;
use crate::engine::weight::{Floats, HalfTable, QuantizedTable, Table};
use crate::kernel::{Bits, CODES, FACTORS, SCALE_BLOCK, factor_rows};
use std::sync::Arc;
use tract_onnx::tract_hir::internal::*;

/// The sum of a token's 36 rows of a table of factors, or one row of its own.
#[derive(Debug)]
pub(super) struct FactorEmbed {
    hidden: usize,
    factors: HalfTable,
    extra: HalfTable,
}

impl FactorEmbed {
    pub fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        rows::check_digits(node)?;
        let (factors, dims) = node.weight(1, "f16")?;
        let (extra, extra_dims) = node.weight(2, "f16")?;
        let &[FACTORS, hidden] = dims.as_slice() else {
            return Err(node.bad(&format!("factors must be [{FACTORS}, hidden]")));
        };
        node.same(extra_dims.get(1).copied().unwrap_or(0), hidden, "width of extra rows")?;
        let (factors, extra) = (HalfTable::new(factors)?, HalfTable::new(extra)?);
        if hidden == 0 {
            return Err(node.bad("the table is empty"));
        }
        let tokens = CODES + extra.len() / hidden;
        node.needs.embedding =
            Some(Embedding { table: Table::Half(factors.clone()), hidden, tokens });
        Ok(Arc::new(Self { hidden, factors, extra }))
    }
}

impl Operator for FactorEmbed {
    fn columns(&self, _: usize) -> Option<usize> {
        Some(self.hidden)
    }
    fn reads_tokens(&self) -> bool {
        true
    }
    fn compute(&self, state: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()> {
        let kernel = state.pool.kernel();
        for (o, &t) in out.chunks_exact_mut(self.hidden).zip(input.tokens) {
            let t = usize::try_from(t).ok().context("negative token")?;
            if t < CODES {
                kernel.sum_rows(self.factors.get(), &factor_rows(t), o);
            } else {
                ensure!(t - CODES < self.extra.len() / self.hidden, "token {t} unknown");
                kernel.sum_rows(self.extra.get(), &[(t - CODES) as u32], o);
            }
        }
        Ok(())
    }
}

/// One row of a table for each token.
#[derive(Debug)]
pub(super) struct Embed {
    hidden: usize,
    table: HalfTable,
}

impl Embed {
    pub fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let (table, dims) = node.weight(1, "f16")?;
        let &[_, hidden] = dims.as_slice() else {
            return Err(node.bad("the table must be [tokens, hidden]"));
        };
        if hidden == 0 {
            return Err(node.bad("the table is empty"));
        }
        let table = HalfTable::new(table)?;
        let tokens = table.len() / hidden;
        node.needs.embedding =
            Some(Embedding { table: Table::Half(table.clone()), hidden, tokens });
        Ok(Arc::new(Self { hidden, table }))
    }
}

impl Operator for Embed {
    fn columns(&self, _: usize) -> Option<usize> {
        Some(self.hidden)
    }
    fn reads_tokens(&self) -> bool {
        true
    }
    fn compute(&self, state: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()> {
        let kernel = state.pool.kernel();
        for (o, &t) in out.chunks_exact_mut(self.hidden).zip(input.tokens) {
            let there = self.table.len() / self.hidden;
            let row = u32::try_from(t).ok().filter(|&t| (t as usize) < there);
            let row = row.with_context(|| format!("token {t} unknown"))?;
            kernel.sum_rows(self.table.get(), &[row], o);
        }
        Ok(())
    }
}

/// One row of a quantized table for each token. Rows lie one behind the other: a token reads its
/// own and nothing else of what may be the largest matrix of a model.
#[derive(Debug)]
pub(super) struct QEmbed {
    table: QuantizedTable,
}

impl QEmbed {
    pub fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let hidden = node.size("K")?;
        let bits = Bits::from_count(node.int("bits")?);
        let bits = bits.ok_or_else(|| node.unsupported("a quantized table of 4 or 8 bits only"))?;
        if hidden % SCALE_BLOCK != 0 {
            return Err(node.bad(&format!("K must be a multiple of {SCALE_BLOCK}, not {hidden}")));
        }
        let (values, dims) = node.weight(1, "u8")?;
        let (scales, scale_dims) = node.weight(2, "f16")?;
        let blocks = hidden / SCALE_BLOCK;
        let tokens = dims.first().copied().unwrap_or(0);
        let want = [tokens, blocks, bits.bytes_per_row_block()];
        if tokens == 0 || dims != want || scale_dims != want[..2] {
            return Err(node.bad(&format!(
                "a table of {dims:?} with scales of {scale_dims:?}, {want:?} and {:?} are wanted",
                &want[..2]
            )));
        }
        let table = QuantizedTable::new(bits, hidden, values, scales)?;
        node.needs.embedding =
            Some(Embedding { table: Table::Quantized(table.clone()), hidden, tokens });
        Ok(Arc::new(Self { table }))
    }
}

impl Operator for QEmbed {
    fn columns(&self, _: usize) -> Option<usize> {
        Some(self.table.hidden())
    }
    fn reads_tokens(&self) -> bool {
        true
    }
    fn compute(&self, _: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()> {
        for (o, &t) in out.chunks_exact_mut(self.table.hidden()).zip(input.tokens) {
            let row = usize::try_from(t).ok().filter(|&t| t < self.table.rows());
            self.table.read_row(row.with_context(|| format!("token {t} unknown"))?, o);
        }
        Ok(())
    }
}

/// The eight digits of a code as numbers from -1 to 1, through a linear layer.
#[derive(Debug)]
pub(super) struct FsqEmbed {
    /// `[channels][8]`.
    weight: Floats,
    /// `[channels]`.
    bias: Floats,
}

impl FsqEmbed {
    pub fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let (weight, bias) = (node.floats(1)?, node.floats(2)?);
        node.same(weight.len(), bias.len() * 8, "weight and bias")?;
        Ok(Arc::new(Self { weight, bias }))
    }
}

impl Operator for FsqEmbed {
    fn columns(&self, _: usize) -> Option<usize> {
        Some(self.bias.len())
    }
    fn reads_tokens(&self) -> bool {
        true
    }
    fn compute(&self, _: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()> {
        for (o, &t) in out.chunks_exact_mut(self.bias.len()).zip(input.tokens) {
            let weight = self.weight.get().chunks_exact(8);
            for ((o, w), b) in o.iter_mut().zip(weight).zip(self.bias.get()) {
                *o = *b;
                for (i, w) in w.iter().enumerate() {
                    let level = (t >> (2 * i) & 3) as f32;
                    *o = w.mul_add((level - 1.5) / 1.5, *o);
                }
            }
        }
        Ok(())
    }
}
