//! The acceptance rules and what they stand on: no `std`, no allocation, no `unsafe`.
//!
//! Everything here takes probabilities, never logits, except [`penalty`], whose transforms are
//! defined on logits. A row is one probability a token
//! over the whole vocabulary (for the default voice 65,537: the codebook and
//! end-of-speech) together with the sums of its blocks of [`dist::SUM_BLOCK`] tokens, in
//! buffers of the caller.
//!
//! - [`rng`]: the uniforms, one trait and a seeded generator whose values never change.
//! - [`dist`]: rows, draws by inverse CDF, top-k, top-p and min-p without sorting.
//! - [`penalty`]: repetition penalty and least length, which come before the softmax.
//! - [`rule`]: groups, rules, verdicts and errors, the words of the two that follow.
//! - [`accept`]: one position and one round of speculative decoding, by token, by token
//!   with a tolerance, by group, or by transport between similar tokens.
//! - [`transport`]: the last of these, its law and what can be measured of it.
//!
//! A round, with rows as a decode loop keeps them:
//!
//! ```
//! use voxgrain::core::*;
//!
//! let (vocabulary, gamma) = (300, 1);
//! let blocks = block_count(vocabulary);
//! // Anything proportional to probabilities; here a target and a draft that differ.
//! let mut target: Vec<f32> = (0..2 * vocabulary).map(|i| (i % 7) as f32).collect();
//! let mut target_sums = vec![0.0; 2 * blocks];
//! let mut draft: Vec<f32> = (0..vocabulary).map(|i| (i % 5) as f32).collect();
//! let mut draft_sums = vec![0.0; blocks];
//!
//! // The same transforms for both; no allocation from here on.
//! let transforms = SamplingTransforms { top_k: 50, ..Default::default() };
//! let mut scratch = TransformScratch::new();
//! let rows = target.chunks_mut(vocabulary).zip(target_sums.chunks_mut(blocks));
//! for (probs, sums) in rows {
//!     RowMut::new(probs, sums)?.transform(&transforms, &mut scratch)?;
//! }
//! RowMut::new(&mut draft, &mut draft_sums)?.transform(&transforms, &mut scratch)?;
//!
//! let mut rng = SeededRng::new(1);
//! let target_probs = RowBuffer::new(&target, &target_sums, vocabulary, gamma + 1)?;
//! let draft_probs = RowBuffer::new(&draft, &draft_sums, vocabulary, gamma)?;
//! let drafted = [sample(draft_probs.row(0)?, &mut rng)?];
//! let rule: Rule<'_, Singletons> = Rule::TokenLevel;
//! let verdict = verify_round(&target_probs, &draft_probs, &drafted, &rule, &mut rng)?;
//! assert!(verdict.accepted <= gamma);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod accept;
pub mod dist;
pub mod penalty;
mod residual;
pub mod rng;
pub mod rule;
pub mod transport;

pub use accept::{LazyRows, RowBuffer, Rows, sample, verify_lazily, verify_position, verify_round};
pub use dist::{
    DistError, Row, RowMut, SUM_BLOCK, SamplingTransforms, TransformScratch, block_count,
};
pub use penalty::{Context, Penalties};
pub use residual::Residual;
pub use rng::{Scripted, SeededRng, Uniform};
pub use rule::{
    AcceptError, Emission, GroupId, Groups, Origin, Outcome, Rule, Singletons, Verdict,
};
