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
pub use sampler::{Sampling, Scratch};
pub use speculate::{Arm, DEFAULT_BETA, Options, RoundEnd, Speculator};
pub use stats::SpecStats;

use crate::core::dist::RowMut;
use crate::{Error, ErrorKind, Result};

/// Most rows of one pass of a prompt.
pub const PREFILL_ROWS: usize = 16;

/// A language model with a context that grows by passes and rolls back for free.
pub trait TokenModel {
    /// Runs `tokens` behind the context in one pass; the laws of the last `wanted` of them
    /// are then there. `features` has [`feature_width`](Self::feature_width) numbers a token:
    /// the hidden state that predicted it, zeros for the first of a context.
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
    /// [`softmax`](Self::softmax) of logits that are not the pass's own, `[vocabulary]`: those
    /// that penalties have changed.
    fn softmax_of(
        &mut self,
        logits: &[f32],
        inverse_temperature: f32,
        probs: &mut [f32],
        sums: &mut [f32],
    ) -> bool {
        let max = logits.iter().fold(f32::NEG_INFINITY, |max, &z| if z > max { z } else { max });
        for (p, z) in probs.iter_mut().zip(logits) {
            *p = libm::expf((z - max) * inverse_temperature);
        }
        RowMut::new(probs, sums).and_then(|mut row| row.normalise()).is_ok()
    }
    /// Hidden states of every token of the last pass, `[tokens][hidden_width]`.
    fn hidden(&self) -> &[f32] {
        &[]
    }
    /// Width of [`hidden`](Self::hidden); 0 if the model does not give it.
    fn hidden_width(&self) -> usize {
        0
    }
    /// Numbers that the model reads beside each token: the hidden state of the target, for a
    /// draft that was trained so (Li et al. 2024, arXiv 2401.15077). 0 for other models.
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

/// A model that may be absent. None scores nothing, holds nothing and refuses every pass: a draft
/// that is not there, for [`Arm::Ar`].
impl<M: TokenModel> TokenModel for Option<M> {
    fn step(&mut self, tokens: &[u32], features: &[f32], wanted: usize) -> Result<()> {
        match self {
            Some(model) => model.step(tokens, features, wanted),
            None => Err(Error::new(ErrorKind::InvalidArgument, "there is no model to run")),
        }
    }
    fn logits(&mut self) -> &[f32] {
        self.as_mut().map_or(&[], |m| m.logits())
    }
    fn softmax(
        &mut self,
        row: usize,
        inverse_temperature: f32,
        probs: &mut [f32],
        sums: &mut [f32],
    ) -> bool {
        self.as_mut().is_some_and(|m| m.softmax(row, inverse_temperature, probs, sums))
    }
    fn softmax_of(
        &mut self,
        logits: &[f32],
        inverse_temperature: f32,
        probs: &mut [f32],
        sums: &mut [f32],
    ) -> bool {
        self.as_mut().is_some_and(|m| m.softmax_of(logits, inverse_temperature, probs, sums))
    }
    fn hidden(&self) -> &[f32] {
        self.as_ref().map_or(&[], |m| m.hidden())
    }
    fn hidden_width(&self) -> usize {
        self.as_ref().map_or(0, |m| m.hidden_width())
    }
    fn feature_width(&self) -> usize {
        self.as_ref().map_or(0, |m| m.feature_width())
    }
    fn len(&self) -> usize {
        self.as_ref().map_or(0, |m| m.len())
    }
    fn room(&self) -> usize {
        self.as_ref().map_or(0, |m| m.room())
    }
    fn vocabulary(&self) -> usize {
        self.as_ref().map_or(0, |m| m.vocabulary())
    }
    fn rollback(&mut self, len: usize) {
        if let Some(model) = self {
            model.rollback(len);
        }
    }
}
