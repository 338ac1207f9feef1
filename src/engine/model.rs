//! A loaded model: its plan and the facts that sessions and callers ask of it.

use super::kv::{Frequencies, LayerCache};
use super::node::TensorInfo;
use super::ops::{Node, WANTED};
use super::past::Past;
use super::pool::Pool;
use super::program::Program;
use super::shape::{AttentionShape, Embedding};
use super::state::{SIZES_KEPT, State};
use super::weight::Weight;
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
    /// Of each attention layer.
    pub(super) attention: Vec<AttentionShape>,
    pub(super) frequencies: Vec<Frequencies>,
    /// `(k - 1) * C` of each causal convolution.
    pub(super) tails: Vec<usize>,
    /// Floats that each convolution keeps, and channels of each group norm.
    pub(super) edges: Vec<usize>,
    pub(super) norms: Vec<usize>,
    pub(super) both_ways: bool,
    pub(super) slots: usize,
    pub(super) max_positions: usize,
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) embedding: Option<Embedding>,
    /// Columns behind each gate of a feed-forward layer, of those that are not padding.
    pub(super) gated: Option<usize>,
    pub(super) head: Option<Arc<Weight>>,
    pub(super) data: Map,
    /// Bytes of the graph file.
    pub(super) graph_bytes: usize,
    pub(super) name: String,
    pub(super) outputs: usize,
    /// Rows of the first output for each token.
    pub(super) rows: usize,
    /// Columns of the widest value but the first output.
    pub(super) widest: usize,
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

    /// Columns of the head's matrix product: the logits, or the scores of their factors.
    pub fn score_columns(&self) -> usize {
        if self.factored { self.outputs - CODES + FACTORS } else { self.outputs }
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

    /// Whether a row of output depends on tokens behind its own: a codec's decoder that was made
    /// for whole utterances.
    pub fn looks_ahead(&self) -> bool {
        self.both_ways
    }

    /// Columns that the widest product of the plan reads and writes together.
    pub fn widest_product(&self) -> usize {
        let nodes = self.plan.model().nodes().iter();
        let matrices = nodes.filter_map(|n| n.op_as::<Node>()?.operator.matrix());
        matrices.map(|w| w.shape().k + w.shape().n).max().unwrap_or(0)
    }

    /// Positions that a session may hold.
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }

    /// The attention layers, in order; none in a causal codec.
    pub fn attention(&self) -> &[AttentionShape] {
        &self.attention
    }

    /// Columns of the feed-forward layers, padding included; `None` where the graph has none
    /// of the usual kind.
    pub fn feed_forward_columns(&self) -> Option<usize> {
        self.gated
    }

    /// Rows of the output for each token: 1 of a language model, the spectra of a codec's.
    pub fn rows_per_token(&self) -> usize {
        self.rows
    }

    /// Columns of the widest value but the output.
    pub fn widest(&self) -> usize {
        self.widest
    }

    /// Tokens that the model can read: those with a row in its embedding. 0 for a codec.
    pub fn known_tokens(&self) -> usize {
        self.embedding.as_ref().map_or(0, |e| e.tokens)
    }

    /// Input-embedding rows of the speech tokens, `[codes][hidden]` in f32, and `hidden`.
    /// `None` for a model without token embedding (a codec), or with one that lacks some.
    pub fn embedding_rows(&self) -> Option<(Vec<f32>, usize)> {
        let embedding = self.speech_embedding()?;
        let mut rows = vec![0.0; self.codes * embedding.hidden];
        for (token, row) in rows.chunks_exact_mut(embedding.hidden).enumerate() {
            embedding.read(token as u32, row);
        }
        Some((rows, embedding.hidden))
    }

    /// A table that lacks tokens is none to compare them by.
    fn speech_embedding(&self) -> Option<&Embedding> {
        let complete =
            |e: &&Embedding| e.tokens >= self.codes && (!e.is_factored() || self.codes == CODES);
        self.embedding.as_ref().filter(complete)
    }

    /// Width of the input embedding; 0 for a model without one.
    pub fn embedding_width(&self) -> usize {
        self.embedding.as_ref().map_or(0, |e| e.hidden)
    }

    /// One of the [`embedding_rows`](Self::embedding_rows), without making the others; `false`
    /// if there is none, or `out` has another width.
    pub fn embedding_row(&self, token: u32, out: &mut [f32]) -> bool {
        let Some(embedding) = self.speech_embedding() else { return false };
        if token as usize >= self.codes || out.len() != embedding.hidden {
            return false;
        }
        embedding.read(token, out);
        true
    }

    /// Output-head rows of the speech tokens, `[codes][hidden]` in f32, and `hidden`.
    pub fn head_rows(&self) -> Option<(Vec<f32>, usize)> {
        let head = self.head.as_ref()?;
        let hidden = head.shape().k;
        let mut rows = head.dequantize();
        if self.factored {
            return Some((expand_rows(rows.get(..FACTORS * hidden)?, hidden), hidden));
        }
        if rows.len() < self.codes * hidden {
            return None;
        }
        rows.truncate(self.codes * hidden);
        Some((rows, hidden))
    }

    /// Bytes that one session keeps from pass to pass, for `positions` of context.
    pub fn state_bytes(&self, positions: usize) -> usize {
        let padded = positions.next_multiple_of(16) + positions;
        let halves: usize = self.attention.iter().map(|a| a.kv_heads * a.head_dim * padded).sum();
        // A rotary table holds a pair of floats for two channels.
        let rope: usize = self.frequencies.iter().map(|f| 4 * f.head_dim() * positions).sum();
        let floats = self.tails.iter().sum::<usize>() + 2 * self.edges.iter().sum::<usize>();
        2 * halves + rope + 4 * floats + 32 * self.norms.iter().sum::<usize>()
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

    /// `room` are the positions of a codec whose keys and values outlast a pass.
    pub(super) fn state(&self, pool: Arc<Pool>, positions: usize, room: usize) -> State {
        let cache = |a: &AttentionShape| LayerCache::new(a.kv_heads, a.head_dim, positions);
        let layers = self.attention.iter().map(cache).collect();
        let tails = self.tails.iter().map(|&n| vec![0.0; n]).collect();
        let past = Past::new(&self.edges, &self.norms, room);
        State::new(pool, layers, &self.frequencies, tails, past, self.slots)
    }
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
