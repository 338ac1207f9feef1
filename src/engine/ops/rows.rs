//! Operators that make each row of output from one row of activations.

use super::{Input, Operator};
use crate::Result;
use crate::engine::node::NodeReader;
use crate::engine::state::State;
use crate::engine::weight::Floats;
use crate::kernel::{CODES, FACTORS, Kernel};
use std::sync::Arc;
use tract_onnx::tract_hir::internal::*;

/// `f` for each row: its activations and its `width` columns of output.
fn each_row(
    input: Input<'_>,
    out: &mut [f32],
    width: usize,
    f: impl Fn(&[f32], &mut [f32]),
) -> TractResult<()> {
    for (x, o) in input.x.chunks_exact(input.columns).zip(out.chunks_exact_mut(width)) {
        f(x, o)
    }
    Ok(())
}

/// Normalisation by the root of the mean square.
#[derive(Debug)]
pub(super) struct RmsNorm {
    weight: Floats,
    epsilon: f32,
}

impl RmsNorm {
    pub fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Self { weight: node.floats(1)?, epsilon: node.positive("epsilon")? }))
    }
}

impl Operator for RmsNorm {
    fn columns(&self, input: usize) -> Option<usize> {
        (input == self.weight.len()).then_some(input)
    }
    fn is_row_wise(&self) -> bool {
        true
    }
    fn compute(&self, state: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()> {
        let (kernel, weight) = (state.pool.kernel(), self.weight.get());
        each_row(input, out, input.columns, |x, o| kernel.rms_norm(x, weight, self.epsilon, o))
    }
}

/// Normalisation by mean and variance.
#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Floats,
    bias: Floats,
    epsilon: f32,
}

impl LayerNorm {
    pub fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let (weight, bias) = (node.floats(1)?, node.floats(2)?);
        node.same(weight.len(), bias.len(), "weight and bias")?;
        Ok(Arc::new(Self { weight, bias, epsilon: node.positive("epsilon")? }))
    }
}

impl Operator for LayerNorm {
    fn columns(&self, input: usize) -> Option<usize> {
        (input == self.weight.len()).then_some(input)
    }
    fn compute(&self, state: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()> {
        let kernel = state.pool.kernel();
        let (weight, bias) = (self.weight.get(), self.bias.get());
        each_row(input, out, input.columns, |x, o| {
            kernel.layer_norm(x, weight, bias, self.epsilon, o)
        })
    }
}

/// `silu` of the first half of a row times the second.
#[derive(Debug)]
pub(super) struct SwiGlu;

impl SwiGlu {
    pub fn read(_: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Self))
    }
}

impl Operator for SwiGlu {
    fn columns(&self, input: usize) -> Option<usize> {
        (input % 2 == 0).then_some(input / 2)
    }
    fn compute(&self, state: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()> {
        let (kernel, half) = (state.pool.kernel(), input.columns / 2);
        each_row(input, out, half, |x, o| kernel.swiglu(&x[..half], &x[half..], o))
    }
}

/// `x sigmoid(x)`.
#[derive(Debug)]
pub(super) struct Silu;

impl Silu {
    pub fn read(_: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Self))
    }
}

impl Operator for Silu {
    fn columns(&self, input: usize) -> Option<usize> {
        Some(input)
    }
    fn compute(&self, state: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()> {
        out.copy_from_slice(input.x);
        state.pool.kernel().silu(out);
        Ok(())
    }
}

/// The Gaussian error linear unit.
#[derive(Debug)]
pub(super) struct Gelu {
    tanh: bool,
}

impl Gelu {
    pub fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let tanh = match node.text("approximate") {
            Some(b"tanh") => true,
            Some(b"none") | None => false,
            _ => return Err(node.bad("approximate must be none or tanh")),
        };
        Ok(Arc::new(Self { tanh }))
    }
}

impl Operator for Gelu {
    fn columns(&self, input: usize) -> Option<usize> {
        Some(input)
    }
    fn compute(&self, state: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()> {
        let kernel = state.pool.kernel();
        out.copy_from_slice(input.x);
        if self.tanh {
            kernel.gelu_tanh(out)
        } else {
            kernel.gelu_erf(out)
        }
        Ok(())
    }
}

/// Factorised tables have 8 digits of 4 levels; the file must agree.
pub(super) fn check_digits(node: &NodeReader) -> Result<()> {
    match (node.int("digits")?, node.int("levels")?) {
        (8, 4) => Ok(()),
        _ => Err(node.unsupported("factorised tables of 8 digits of 4 levels only")),
    }
}

/// Logits of the codes from the scores of their factors; what is behind them as it is.
#[derive(Debug)]
pub(super) struct FactorLogits;

impl FactorLogits {
    pub fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        check_digits(node)?;
        Ok(Arc::new(Self))
    }
}

impl Operator for FactorLogits {
    fn columns(&self, input: usize) -> Option<usize> {
        Some(input.checked_sub(FACTORS)? + CODES)
    }
    fn expands_factors(&self) -> bool {
        true
    }
    fn compute(&self, state: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()> {
        let (kernel, width) = (state.pool.kernel(), input.columns - FACTORS + CODES);
        each_row(input, out, width, |x, o| expand_logits(kernel, x, o))
    }
}

/// One row of logits from its scores: the codes, then what stands for a token itself.
pub(in crate::engine) fn expand_logits(kernel: Kernel, scores: &[f32], logits: &mut [f32]) {
    kernel.factor_logits(&scores[..FACTORS], &mut logits[..CODES]);
    logits[CODES..].copy_from_slice(&scores[FACTORS..]);
}

/// A row to `factor` rows of as many times fewer columns.
#[derive(Debug)]
pub(super) struct Upsample {
    factor: usize,
}

impl Upsample {
    pub fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        Ok(Arc::new(Self { factor: node.size("factor")? }))
    }
}

impl Operator for Upsample {
    fn columns(&self, input: usize) -> Option<usize> {
        (input % self.factor == 0).then_some(input / self.factor)
    }
    fn rows(&self) -> usize {
        self.factor
    }
    fn compute(&self, _: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()> {
        out.copy_from_slice(input.x);
        Ok(())
    }
}
