//! From a prompt to speech tokens: plain, token-level and group-level decoding.
//!
//! [`Speculator`] owns a target and a draft and runs rounds: the draft proposes `gamma`
//! tokens, the target scores them all in one pass, [`crate::core`] decides. It sees the
//! models through [`TokenModel`] only.

mod sampler;
mod speculate;
mod stats;

pub use sampler::Sampling;
pub use speculate::{Arm, Options, RoundEnd, Speculator};
pub use stats::SpecStats;

use crate::Result;

/// Most rows of one pass of a prompt.
pub const PREFILL_ROWS: usize = 16;

/// A language model with a context that grows by passes and rolls back for free.
pub trait TokenModel {
    /// Runs `tokens` behind the context in one pass; the logits of the last `wanted` of
    /// them are then in [`logits`](Self::logits).
    fn step(&mut self, tokens: &[u32], wanted: usize) -> Result<()>;
    /// Logits of the last pass, `[wanted][vocabulary]`.
    fn logits(&self) -> &[f32];
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
    /// few enough that activations stay in cache and recycled outputs stay small.
    fn prefill(&mut self, tokens: &[u32]) -> Result<()> {
        tokens.chunks(PREFILL_ROWS).try_for_each(|c| self.step(c, 1))
    }
}

#[cfg(feature = "engine")]
impl TokenModel for crate::engine::Session {
    fn step(&mut self, tokens: &[u32], wanted: usize) -> Result<()> {
        self.step(tokens, wanted)
    }
    fn logits(&self) -> &[f32] {
        self.logits()
    }
    fn len(&self) -> usize {
        self.len()
    }
    fn room(&self) -> usize {
        self.room()
    }
    fn vocabulary(&self) -> usize {
        self.vocabulary()
    }
    fn rollback(&mut self, len: usize) {
        self.rollback(len)
    }
}
