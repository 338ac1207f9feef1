//! From a prompt to speech tokens: plain, token-level and group-level decoding.
//!
//! [`Speculator`] owns a target and a draft and runs rounds: the draft proposes `gamma`
//! tokens, the target scores them all in one pass, [`crate::core`] decides. It sees the
//! models through [`TokenModel`] only.

mod gamma;
mod sampler;
mod speculate;
mod stats;

pub use gamma::{Costs, DraftLength, MAX_GAMMA};
pub use sampler::Sampling;
pub use speculate::{Arm, DEFAULT_BETA, Options, RoundEnd, Speculator};
pub use stats::SpecStats;

use crate::Result;
use std::ops::Range;

/// Most rows of one pass of a prompt.
pub const PREFILL_ROWS: usize = 16;

/// A language model with a context that grows by passes and rolls back for free.
pub trait TokenModel {
    /// Runs `tokens` behind the context in one pass; the laws of the last `wanted` of them
    /// are then there. `features` has [`feature_width`](Self::feature_width) numbers a token:
    /// the [`features`](Self::features) of the target that predicted it, zeros for the first of a
    /// context.
    fn step(&mut self, tokens: &[u32], features: &[f32], wanted: usize) -> Result<()>;
    /// Logits of the last pass, `[wanted][vocabulary]`.
    fn logits(&mut self) -> &[f32];
    /// `probs = softmax(logits / temperature)` of one wanted row of the last pass, with the
    /// sums of its blocks; `false` if the logits are not numbers.
    fn softmax(
        &mut self,
        row: usize,
        inverse_temperature: f32,
        probs: &mut [f32],
        sums: &mut [f32],
    ) -> bool;
    /// Hidden states of every token of the last pass, `[tokens][hidden_width]`.
    fn hidden(&self) -> &[f32] {
        &[]
    }
    /// Width of [`hidden`](Self::hidden); 0 if the model does not give it.
    fn hidden_width(&self) -> usize {
        0
    }
    /// Rows of the residual stream that the model gives beside its hidden state, after layers
    /// that were chosen when it was exported.
    fn taps(&self) -> usize {
        0
    }
    /// One of them, of every token of the last pass, `[tokens][hidden_width]`.
    fn tap(&self, _which: usize) -> &[f32] {
        &[]
    }
    /// What a draft that reads `width` features gets of tokens `rows` of the last pass: appends
    /// `[rows][tap_1 | .. | tap_n | hidden]`, or the hidden states alone where `width` is theirs.
    fn features(&self, rows: Range<usize>, width: usize, out: &mut Vec<f32>) {
        let hidden = self.hidden_width();
        let taps = if width > hidden { self.taps() } else { 0 };
        for row in rows {
            for which in 0..taps {
                out.extend_from_slice(&self.tap(which)[row * hidden..][..hidden]);
            }
            out.extend_from_slice(&self.hidden()[row * hidden..][..hidden]);
        }
    }
    /// Numbers that the model reads beside each token: states of the target, for a draft that was
    /// trained so (Li et al. 2024, arXiv 2401.15077; from several layers: Li et al. 2025,
    /// arXiv 2503.01840). 0 for other models.
    fn feature_width(&self) -> usize {
        0
    }
    /// Tokens in the context.
    fn len(&self) -> usize;
    /// Whether nothing is in the context.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Tokens that still fit the context.
    fn room(&self) -> usize;
    /// Tokens that have logits; ids from there on are prompt symbols.
    fn vocabulary(&self) -> usize;
    /// Forgets everything from position `len` on.
    fn rollback(&mut self, len: usize);
    /// Runs a prompt in passes of bounded size: enough rows that weights are read seldom,
    /// few enough that activations stay in cache and recycled outputs stay small. For models
    /// that read no features.
    fn prefill(&mut self, tokens: &[u32]) -> Result<()> {
        tokens.chunks(PREFILL_ROWS).try_for_each(|c| self.step(c, &[], 1))
    }
}
