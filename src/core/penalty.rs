//! Penalties: what the context does to the logits before any token is drawn.
//!
//! The one place of the core that sees logits, because these transforms are defined on them: a
//! repeated token's logit is divided or multiplied by a number according to its sign, so the
//! result depends on where zero is, which probabilities no longer tell. Temperature and the
//! [transforms](super::dist::SamplingTransforms) come behind.
//!
//! ```text
//! z'(t) = z(t) / r  if z(t) > 0      z'(t) = z(t) r  else      for a token t of the context
//! z'(end) = -infinity                                          before min_tokens are emitted
//! ```
//!
//! This is what `repetition_penalty` and `min_new_tokens` mean in transformers (Keskar et al. 2019,
//! arXiv 1909.05858, section 4.1): once a token however often it occurred, on raw logits.
//!
//! # Law
//! With penalties the law of a token depends on all tokens before it: `p(t | s)` and `q(t | s)`.
//! Nothing in the acceptance of a position asks where its two rows are from; it is exact in its
//! sense for whatever `p` and `q` they are ([`accept`](super::accept)). So speculation stays exact
//! for the penalised target if row `i` is penalised by the context *with the drafts before it*,
//! `s + drafted[..i]`: these are the tokens that were emitted if position `i` is reached at all.
//! A draft's row may be any law that does not depend on the token drawn from it; penalised by the
//! same context it stays close to the target's, and that is what acceptance lives of.

use ::core::fmt;

/// What the context changes. The default changes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalties {
    /// Divides the positive logits of tokens in the context and multiplies the others; 1 is off.
    pub repetition: f32,
    /// How many of the context's last tokens count; 0: all of them.
    pub window: u32,
    /// Tokens before the end token may come; 0 is off.
    pub min_tokens: u32,
}

impl Default for Penalties {
    fn default() -> Self {
        Self { repetition: 1.0, window: 0, min_tokens: 0 }
    }
}

/// What stands before the token whose law is wanted.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The prompt and what was emitted. Ids without a logit do not count, but take a place in the
    /// window.
    pub tokens: &'a [u32],
    /// Behind them: what was drafted.
    pub drafted: &'a [u32],
    /// How many of `tokens` were emitted.
    pub emitted: usize,
    /// The token that ends an utterance.
    pub end: u32,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({} + {} tokens)", self.tokens.len(), self.drafted.len())
    }
}

impl Penalties {
    /// The bounds of `repetition`.
    pub const REPETITION: (f32, f32) = (0.01, 100.0);

    /// Whether nothing is changed, whatever the context.
    pub fn are_off(&self) -> bool {
        self.repetition == 1.0 && self.min_tokens == 0
    }

    /// `out[V] = ` the logits `[V]` after the penalties. Costs a copy and a look at the context.
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn apply(&self, logits: &[f32], context: &Context<'_>, out: &mut [f32]) {
        out.copy_from_slice(logits);
        if self.repetition != 1.0 {
            let count = match self.window {
                0 => usize::MAX,
                n => n as usize,
            };
            let drafted = last(context.drafted, count);
            let tokens = last(context.tokens, count - drafted.len());
            // From the raw logit each time: a token that occurs twice is penalised once.
            for &t in tokens.iter().chain(drafted) {
                if let (Some(o), Some(&z)) = (out.get_mut(t as usize), logits.get(t as usize)) {
                    *o = if z > 0.0 { z / self.repetition } else { z * self.repetition };
                }
            }
        }
        if context.emitted + context.drafted.len() < self.min_tokens as usize
            && let Some(end) = out.get_mut(context.end as usize)
        {
            *end = f32::NEG_INFINITY;
        }
    }
}

fn last(tokens: &[u32], count: usize) -> &[u32] {
    &tokens[tokens.len().saturating_sub(count)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(p: Penalties, tokens: &[u32], drafted: &[u32], emitted: usize) -> [f32; 5] {
        let mut out = [0.0; 5];
        let context = Context { tokens, drafted, emitted, end: 4 };
        p.apply(&[2.0, -1.0, 0.0, 4.0, 1.0], &context, &mut out);
        out
    }

    #[test]
    fn each_token_of_the_context_is_penalised_once_by_its_sign() {
        let p = Penalties { repetition: 2.0, ..Penalties::default() };
        assert_eq!(after(p, &[], &[], 0), [2.0, -1.0, 0.0, 4.0, 1.0]);
        assert_eq!(after(p, &[0, 1, 0, 2], &[1], 2), [1.0, -2.0, 0.0, 4.0, 1.0]);
        // Ids without a logit, and an end token in the prompt.
        assert_eq!(after(p, &[9, 4, u32::MAX], &[3], 0), [2.0, -1.0, 0.0, 2.0, 0.5]);
    }

    #[test]
    fn a_window_counts_back_over_drafts_and_context() {
        let p = |window| Penalties { repetition: 2.0, window, ..Penalties::default() };
        assert_eq!(after(p(1), &[0, 1], &[3], 1), [2.0, -1.0, 0.0, 2.0, 1.0]);
        assert_eq!(after(p(2), &[0, 1], &[3], 1), [2.0, -2.0, 0.0, 2.0, 1.0]);
        assert_eq!(after(p(2), &[0, 7], &[3], 1), [2.0, -1.0, 0.0, 2.0, 1.0]);
        assert_eq!(after(p(99), &[0, 1], &[3], 1), [1.0, -2.0, 0.0, 2.0, 1.0]);
        assert_eq!(after(p(1), &[0, 1], &[], 1), [2.0, -2.0, 0.0, 4.0, 1.0]);
    }

    #[test]
    fn the_end_waits_for_the_least_number_of_tokens() {
        let p = Penalties { min_tokens: 3, ..Penalties::default() };
        for (emitted, drafted, waits) in
            [(0, 0, true), (2, 0, true), (1, 1, true), (2, 1, false), (3, 0, false)]
        {
            let out = after(p, &[0; 9], &[1; 2][..drafted], emitted);
            assert_eq!(out[4] == f32::NEG_INFINITY, waits, "{emitted} + {drafted}");
            assert_eq!(out[..4], [2.0, -1.0, 0.0, 4.0]);
        }
    }
}
