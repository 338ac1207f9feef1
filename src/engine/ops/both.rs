//! Operators that look at the rows on both sides: full convolutions, group norms and attention
//! without order. What they keep of rows before this pass is in [`Past`](crate::engine::past::Past).

use super::{Input, Operator};
use crate::Result;
use crate::engine::node::NodeReader;
use crate::engine::past::Sums;
use crate::engine::pool::AttentionTask;
use crate::engine::shape::AttentionShape;
use crate::engine::state::State;
use crate::engine::weight::{Floats, Weight, packed_shape};
use crate::kernel::SCALE_BLOCK;
use std::sync::Arc;
use tract_onnx::tract_hir::internal::*;

/// A convolution with as many rows on either side, over all channels at once.
#[derive(Debug)]
pub(super) struct Conv {
    edge: usize,
    taps: usize,
    channels: usize,
    weight: Arc<Weight>,
    bias: Option<Floats>,
}

impl Conv {
    pub fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let shape = packed_shape(node.int("N")?, node.int("K")?, node.int("bits")?)?;
        let (taps, padding) = (node.size("kernel")?, node.int("padding")?);
        if taps % 2 == 0 || taps > 63 || padding != (taps as i64 - 1) / 2 {
            return Err(node.bad("kernel must be odd and padding half of what it has more than 1"));
        }
        let channels = shape.k / taps;
        if shape.k % taps != 0 || channels % SCALE_BLOCK != 0 {
            return Err(node.bad("K must be kernel times a multiple of 32 channels"));
        }
        let (packed, scales) = (node.weight(1, "u8")?.0, node.weight(2, "f16")?.0);
        let weight = Arc::new(Weight::new(shape, packed, scales)?);
        let bias = if node.has(3) { Some(node.floats(3)?) } else { None };
        if let Some(b) = &bias {
            node.same(b.len(), shape.n, "bias and N")?;
        }
        node.needs.edges.push(taps / 2 * channels);
        let edge = node.needs.edges.len() - 1;
        Ok(Arc::new(Self { edge, taps, channels, weight, bias }))
    }
}

impl Operator for Conv {
    fn columns(&self, input: usize) -> Option<usize> {
        (input == self.channels).then_some(self.weight.shape().n)
    }
    fn takes_residual(&self) -> bool {
        true
    }
    fn matrix(&self) -> Option<&Arc<Weight>> {
        Some(&self.weight)
    }
    fn compute(&self, state: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()> {
        let State { past, window, pool, .. } = state;
        let edge = &mut past.edges[self.edge].rows;
        window.clear();
        window.extend_from_slice(edge);
        window.extend_from_slice(input.x);
        window.resize(window.len() + edge.len(), 0.0);
        let bias = self.bias.as_ref().map(Floats::get);
        pool.convolve(&self.weight, self.taps, window, bias, input.residual, out);
        let from = past.keep * self.channels;
        let n = edge.len();
        edge.copy_from_slice(&window[from..from + n]);
        Ok(())
    }
}

/// Normalisation by mean and variance of groups of channels over all rows: those of this pass
/// and those kept of the stream so far.
#[derive(Debug)]
pub(super) struct GroupNorm {
    sums: usize,
    groups: usize,
    weight: Floats,
    bias: Floats,
    epsilon: f32,
}

impl GroupNorm {
    pub fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let (weight, bias) = (node.floats(1)?, node.floats(2)?);
        node.same(weight.len(), bias.len(), "weight and bias")?;
        let (groups, epsilon) = (node.size("groups")?, node.positive("epsilon")?);
        if weight.len() == 0 || weight.len() % groups != 0 {
            return Err(node.bad("groups must divide the channels"));
        }
        node.needs.norms.push(weight.len());
        let sums = node.needs.norms.len() - 1;
        Ok(Arc::new(Self { sums, groups, weight, bias, epsilon }))
    }
}

impl Operator for GroupNorm {
    fn columns(&self, input: usize) -> Option<usize> {
        (input == self.weight.len()).then_some(input)
    }
    fn compute(&self, state: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()> {
        let kernel = state.pool.kernel();
        let State { past, norm, factors, .. } = state;
        let (kept, ahead) = input.x.split_at(past.keep * input.columns);
        let seen: &mut Sums = &mut past.sums[self.sums];
        seen.add(kept);
        norm.copy(seen);
        norm.add(ahead);
        let size = input.columns / self.groups;
        factors.clear();
        for (sum, square) in norm.sum.chunks_exact(size).zip(norm.square.chunks_exact(size)) {
            let count = norm.rows * size as f64;
            let mean = sum.iter().sum::<f64>() / count;
            let variance = (square.iter().sum::<f64>() / count - mean * mean).max(0.0);
            let scale = 1.0 / (variance + f64::from(self.epsilon)).sqrt();
            factors.push((mean, scale));
        }
        state.scale.clear();
        state.shift.clear();
        for (c, (w, b)) in self.weight.get().iter().zip(self.bias.get()).enumerate() {
            let (mean, scale) = factors[c / size];
            let scale = f64::from(*w) * scale;
            state.scale.push(scale as f32);
            state.shift.push((f64::from(*b) - mean * scale) as f32);
        }
        for (x, o) in input.x.chunks_exact(input.columns).zip(out.chunks_exact_mut(input.columns)) {
            kernel.scale_shift(x, &state.scale, &state.shift, o);
        }
        Ok(())
    }
}

/// Attention of every row to every other and to those kept of the stream so far, without
/// positions.
#[derive(Debug)]
pub(super) struct SelfAttention {
    layer: usize,
    heads: usize,
    head_dim: usize,
}

impl SelfAttention {
    pub fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let (heads, head_dim) = (node.size("heads")?, node.size("head_dim")?);
        if head_dim % 16 != 0 || heads * head_dim > 1 << 16 {
            return Err(node.bad("head_dim must be a multiple of 16, all heads 65536 at most"));
        }
        node.needs.attention.push(AttentionShape {
            heads,
            kv_heads: heads,
            head_dim,
            rope_base: None,
            qk_norm: false,
        });
        node.needs.both_ways = true;
        let layer = node.needs.attention.len() - 1;
        Ok(Arc::new(Self { layer, heads, head_dim }))
    }
}

impl Operator for SelfAttention {
    fn columns(&self, input: usize) -> Option<usize> {
        (input == 3 * self.heads * self.head_dim).then_some(self.heads * self.head_dim)
    }
    fn compute(&self, state: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()> {
        let kernel = state.pool.kernel();
        let &Self { heads, head_dim: d, .. } = self;
        let Input { x, columns, .. } = input;
        let rows = x.len() / columns;
        let State { past, layers, pool, half, .. } = state;
        half.resize(d, 0);
        let layer = layers[self.layer].clone();
        for head in 0..heads {
            let mut cache = layer.head_mut(head);
            for (r, x) in x.chunks_exact(columns).enumerate() {
                let (key, value) = (&x[(heads + head) * d..][..d], &x[(2 * heads + head) * d..]);
                cache.store(kernel, past.len() + r, key, &value[..d], half);
            }
        }
        let scale = 1.0 / (d as f32).sqrt();
        let query = |query: &mut [f32]| {
            let mut query = query.chunks_exact_mut(d);
            for head in 0..heads {
                for (x, q) in x.chunks_exact(columns).zip(&mut query) {
                    for (q, x) in q.iter_mut().zip(&x[head * d..]) {
                        *q = x * scale;
                    }
                }
            }
        };
        let task = AttentionTask {
            layer: layer.clone(),
            head_dim: d,
            group: 1,
            past: past.len(),
            rows,
            causal: false,
        };
        pool.attend(&task, query, out);
        for r in 0..past.keep {
            let from = past.len() + r;
            if let Some(to) = past.place(r).filter(|&to| to != from) {
                (0..heads).for_each(|head| layer.head_mut(head).copy(from, to, d));
            }
        }
        Ok(())
    }
}
