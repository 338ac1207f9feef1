//! Operators that mix rows, those of earlier passes among them.

use super::{Input, Operator};
use crate::Result;
use crate::engine::kv::Frequencies;
use crate::engine::node::NodeReader;
use crate::engine::pool::AttentionTask;
use crate::engine::shape::AttentionShape;
use crate::engine::state::State;
use crate::engine::weight::Floats;
use std::sync::Arc;
use tract_onnx::tract_hir::internal::*;

/// Causal attention with rotary positions over the session's cache of this layer.
#[derive(Debug)]
pub(super) struct Attention {
    layer: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    /// Which of the model's rotations.
    rope: usize,
    /// Weights of the norms of queries and keys, `[head_dim]`.
    q_norm: Option<Floats>,
    k_norm: Option<Floats>,
    epsilon: f32,
}

/// The places of optional weights among the inputs.
const FREQUENCIES: usize = 3;
const Q_NORM: usize = 4;
const K_NORM: usize = 5;
/// What those who train with such norms use.
const EPSILON: f32 = 1e-6;

impl Attention {
    pub fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let (heads, kv_heads, head_dim) =
            (node.size("heads")?, node.size("kv_heads")?, node.size("head_dim")?);
        if heads % kv_heads != 0 || head_dim % 16 != 0 || heads * head_dim > 1 << 16 {
            return Err(node.bad("heads must be a multiple of kv_heads, head_dim of 16"));
        }
        let (frequencies, rope_base) = if node.has(FREQUENCIES) {
            let table = node.floats(FREQUENCIES)?;
            node.same(table.len(), head_dim / 2, "frequencies and half of head_dim")?;
            let table = Frequencies::of_table(table.get());
            (table.ok_or_else(|| node.bad("frequencies must be numbers from 0 up"))?, None)
        } else {
            let base = node.positive("rope_base")?;
            (Frequencies::of_base(base, head_dim), Some(base))
        };
        let norm = |at: usize, what: &str| -> Result<Option<Floats>> {
            let weight = node.has(at).then(|| node.floats(at)).transpose()?;
            if let Some(weight) = &weight {
                node.same(weight.len(), head_dim, what)?;
            }
            Ok(weight)
        };
        let (q_norm, k_norm) =
            (norm(Q_NORM, "q_norm and head_dim")?, norm(K_NORM, "k_norm and head_dim")?);
        let epsilon = node.positive_or("epsilon", EPSILON)?;
        let qk_norm = q_norm.is_some() || k_norm.is_some();
        let known = &mut node.needs.frequencies;
        let rope = known.iter().position(|f| *f == frequencies).unwrap_or(known.len());
        if rope == known.len() {
            known.push(frequencies);
        }
        let layer = node.needs.attention.len();
        let shape = AttentionShape { heads, kv_heads, head_dim, rope_base, qk_norm };
        node.needs.attention.push(shape);
        Ok(Arc::new(Self { layer, heads, kv_heads, head_dim, rope, q_norm, k_norm, epsilon }))
    }
}

impl Operator for Attention {
    /// From queries, keys and values beside each other.
    fn columns(&self, input: usize) -> Option<usize> {
        let need = (self.heads + 2 * self.kv_heads) * self.head_dim;
        (input == need).then_some(self.heads * self.head_dim)
    }
    fn compute(&self, state: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()> {
        let kernel = state.pool.kernel();
        let &Self { heads, kv_heads, head_dim: d, epsilon, .. } = self;
        let norms = (self.q_norm.as_ref().map(Floats::get), self.k_norm.as_ref().map(Floats::get));
        let Input { x, columns, .. } = input;
        let (rows, group) = (x.len() / columns, heads / kv_heads);
        let past = state.len;
        let State { ropes, layers, pool, rotated, half, .. } = state;
        let rope = &mut ropes[self.rope];
        rope.cover(past + rows);
        rotated.resize(d, 0.0);
        half.resize(d, 0);
        let layer = layers[self.layer].clone();
        for kv in 0..kv_heads {
            let mut cache = layer.head_mut(kv);
            for (r, x) in x.chunks_exact(columns).enumerate() {
                let key = &x[(heads + kv) * d..][..d];
                match norms.1 {
                    Some(weight) => kernel.rms_norm(key, weight, epsilon, rotated),
                    None => rotated.copy_from_slice(key),
                }
                rope.rotate(kernel, rotated, past + r);
                let value = &x[(heads + kv_heads + kv) * d..][..d];
                cache.store(kernel, past + r, rotated, value, half);
            }
        }
        let scale = 1.0 / (d as f32).sqrt();
        let query = |query: &mut [f32]| {
            let mut query = query.chunks_exact_mut(d);
            for kv in 0..kv_heads {
                for (r, x) in x.chunks_exact(columns).enumerate() {
                    let heads = x[kv * group * d..][..group * d].chunks_exact(d);
                    for (x, q) in heads.zip(&mut query) {
                        match norms.0 {
                            Some(weight) => kernel.rms_norm(x, weight, epsilon, q),
                            None => q.copy_from_slice(x),
                        }
                        q.iter_mut().for_each(|q| *q *= scale);
                        rope.rotate(kernel, q, past + r);
                    }
                }
            }
        };
        let task = AttentionTask { layer, head_dim: d, group, past, rows, causal: true };
        pool.attend(&task, query, out);
        Ok(())
    }
}

/// A depthwise convolution over a row and those before it.
#[derive(Debug)]
pub(super) struct CausalConv {
    tail: usize,
    taps: usize,
    /// `[taps][channels]`.
    weight: Floats,
    bias: Floats,
}

impl CausalConv {
    pub fn read(node: &mut NodeReader) -> Result<Arc<dyn Operator>> {
        let (_, dims) = node.weight(1, "f32")?;
        let (weight, bias) = (node.floats(1)?, node.floats(2)?);
        let &[taps, channels] = dims.as_slice() else {
            return Err(node.bad("weight must be [taps, channels]"));
        };
        node.same(bias.len(), channels, "bias and channels")?;
        if taps == 0 || taps > 1024 {
            return Err(node.bad("taps out of range"));
        }
        node.needs.tails.push((taps - 1) * channels);
        let tail = node.needs.tails.len() - 1;
        Ok(Arc::new(Self { tail, taps, weight, bias }))
    }
}

impl Operator for CausalConv {
    fn columns(&self, input: usize) -> Option<usize> {
        (input == self.bias.len()).then_some(input)
    }
    fn compute(&self, state: &mut State, input: Input<'_>, out: &mut [f32]) -> TractResult<()> {
        let (kernel, columns) = (state.pool.kernel(), input.columns);
        let past = &mut state.tails[self.tail];
        let window = &mut state.window;
        window.clear();
        window.extend_from_slice(past);
        window.extend_from_slice(input.x);
        for (r, o) in out.chunks_exact_mut(columns).enumerate() {
            let x = &window[r * columns..][..self.taps * columns];
            kernel.conv(x, self.weight.get(), self.bias.get(), o);
        }
        past.copy_from_slice(&window[window.len() - (self.taps - 1) * columns..]);
        Ok(())
    }
}
