//! A loaded model: its plan and the facts that sessions and callers ask of it.

use super::kv::LayerCache;
use super::node::TensorInfo;
use super::ops::WANTED;
use super::pool::Pool;
use super::program::Program;
use super::state::{SIZES_KEPT, State};
use super::weight::{HalfTable, Weight};
use crate::kernel::{CODES, FACTORS, factor_rows};
use crate::map::Map;
use std::sync::Arc;
use tract_onnx::tract_hir::internal::*;

/// What tract keeps on the heap for each byte of a graph file; tests/engine.rs holds it against an
/// allocator that counts.
const HEAP_PER_GRAPH_BYTE: u64 = 24;

/// A loaded graph: immutable, shared by any number of sessions.
pub struct Model {
    pub(super) plan: Arc<TypedSimplePlan>,
    pub(super) program: Option<Program>,
    /// `(kv_heads, head_dim)` of each attention layer.
    pub(super) caches: Vec<(usize, usize)>,
    /// `(k - 1) * C` of each causal convolution.
    pub(super) tails: Vec<usize>,
    pub(super) slots: usize,
    pub(super) max_positions: usize,
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) embedding: Option<(HalfTable, usize)>,
    pub(super) head: Option<Arc<Weight>>,
    pub(super) data: Map,
    /// Bytes of the graph file.
    pub(super) graph_bytes: usize,
    pub(super) name: String,
    pub(super) outputs: usize,
    /// Speech tokens of a language model: 65,536 of a factorised head, else all that are scored
    /// but the end of speech.
    pub(super) codes: usize,
    /// Whether the plan ends at the factors' scores; the logits are made of them on demand.
    pub(super) factored: bool,
    pub(super) features: usize,
    pub(super) hidden: usize,
    pub(super) taps: usize,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Model({}, {} tensors)", self.name, self.tensors.len())
    }
}

impl Model {
    /// The tensors of the data file, in the graph's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Bytes of the mapped data file.
    pub fn mapped_bytes(&self) -> usize {
        self.data.len()
    }

    /// Upper bound of the bytes on the heap; the weights are not among them.
    pub fn heap_bytes(&self) -> usize {
        Self::heap_bytes_for(self.graph_bytes as u64) as usize
    }

    /// [`heap_bytes`](Self::heap_bytes) of a model whose graph file has so many bytes, before it
    /// is loaded; for several models the sum of their files will do.
    pub const fn heap_bytes_for(graph_bytes: u64) -> u64 {
        HEAP_PER_GRAPH_BYTE * graph_bytes
    }

    /// Columns of the output (the scored vocabulary of a language model).
    pub fn output_columns(&self) -> usize {
        self.outputs
    }

    /// Width of the features that every token needs beside it: the target's states where it
    /// predicted it, for a draft that was trained so. 0 for other models.
    pub fn feature_width(&self) -> usize {
        self.features
    }

    /// Width of the hidden state before the head; 0 if the graph does not give it.
    pub fn hidden_width(&self) -> usize {
        self.hidden
    }

    /// Rows of the residual stream that the graph gives beside the hidden state, each as wide as
    /// it; 0 if it gives none.
    pub fn taps(&self) -> usize {
        self.taps
    }

    /// Positions that a session may hold.
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }

    /// Input-embedding rows of the speech tokens, `[codes][hidden]` in f32, and `hidden`.
    /// `None` for a model without token embedding (a codec).
    pub fn embedding_rows(&self) -> Option<(Vec<f32>, usize)> {
        let (table, hidden) = self.embedding.as_ref()?;
        speech_rows(table.to_vec(), self.codes, *hidden)
    }

    /// Width of the input embedding; 0 for a model without one.
    pub fn embedding_width(&self) -> usize {
        self.embedding.as_ref().map_or(0, |e| e.1)
    }

    /// One of the [`embedding_rows`](Self::embedding_rows), without making the others; `false`
    /// if there is none, or `out` has another width.
    pub fn embedding_row(&self, token: u32, out: &mut [f32]) -> bool {
        let Some((table, hidden)) = self.embedding.as_ref() else { return false };
        let (token, hidden) = (token as usize, *hidden);
        if token >= self.codes || out.len() != hidden {
            return false;
        }
        out.fill(0.0);
        if table.len() >= self.codes * hidden {
            table.add_row(token, out);
        } else {
            factor_rows(token).iter().for_each(|&r| table.add_row(r as usize, out));
        }
        true
    }

    /// Output-head rows of the speech tokens, `[codes][hidden]` in f32, and `hidden`.
    pub fn head_rows(&self) -> Option<(Vec<f32>, usize)> {
        let head = self.head.as_ref()?;
        speech_rows(head.dequantize(), self.codes, head.shape().k)
    }

    /// Bytes that one session keeps from pass to pass, for `positions` of context.
    pub fn state_bytes(&self, positions: usize) -> usize {
        let halves: usize = self
            .caches
            .iter()
            .map(|&(h, d)| h * d * (positions.next_multiple_of(16) + positions))
            .sum();
        // The rotary table holds a pair of floats for two channels.
        let rope = self.caches.first().map_or(0, |&(_, d)| 4 * d * positions);
        2 * halves + rope + 4 * self.tails.iter().sum::<usize>()
    }

    /// Bytes that a session keeps for the results of passes over at most `rows` tokens with
    /// the logits of at most `wanted` of them.
    pub fn pass_bytes(&self, rows: usize, wanted: usize) -> usize {
        if let Some(program) = &self.program {
            return program.bytes(rows, wanted);
        }
        // tract's executor keeps those of the few sizes of pass that it met last.
        let model = self.plan.model();
        let mut values = SymbolValues::default();
        for (name, value) in [("rows", rows), (WANTED, wanted)] {
            values = values.with(&model.symbols.sym(name), value as i64);
        }
        let size = |f: &TypedFact| f.shape.eval_to_usize(&values).map_or(0, |s| s.iter().product());
        let all = model.nodes().iter().flat_map(|n| &n.outputs).map(|o| size(&o.fact));
        SIZES_KEPT * 4 * all.sum::<usize>()
    }

    pub(super) fn state(&self, pool: Arc<Pool>, positions: usize) -> State {
        let layers = self.caches.iter().map(|&(h, d)| LayerCache::new(h, d, positions)).collect();
        let tails = self.tails.iter().map(|&n| vec![0.0; n]).collect();
        State::new(pool, layers, tails, self.slots)
    }
}

/// `[codes][hidden]` of a table: its own first rows if it is plain, or the sums of 480 factors.
fn speech_rows(mut table: Vec<f32>, codes: usize, hidden: usize) -> Option<(Vec<f32>, usize)> {
    if table.len() >= codes * hidden {
        table.truncate(codes * hidden);
        return Some((table, hidden));
    }
    if codes != CODES {
        return None;
    }
    Some((expand_rows(table.get(..FACTORS * hidden)?, hidden), hidden))
}

/// `[65536][hidden]` from the 480 rows of a factorised table.
fn expand_rows(factors: &[f32], hidden: usize) -> Vec<f32> {
    let mut out = vec![0.0; CODES * hidden];
    for (t, row) in out.chunks_exact_mut(hidden).enumerate() {
        for r in factor_rows(t) {
            for (o, v) in row.iter_mut().zip(&factors[r as usize * hidden..]) {
                *o += v;
            }
        }
    }
    out
}
