//! The acceptance rules and what they stand on: no `std`, no allocation, no `unsafe`.
//!
//! Everything here takes probabilities, never logits. A row is one probability a token
//! over the whole vocabulary (for the default voice 65,537: the codebook and
//! end-of-speech) together with the sums of its blocks of [`dist::BLOCK`] tokens, in
//! buffers of the caller.
//!
//! - [`rng`]: the uniforms, one trait and a seeded generator whose values never change.
//! - [`dist`]: rows, draws by inverse CDF, top-k, top-p and min-p without sorting.
//! - [`accept`]: one position and one round of speculative decoding, by token, by token
//!   with a tolerance, or by group.

pub mod accept;
pub mod dist;
pub mod rng;

pub use accept::{
    AcceptError, Emission, GroupId, Groups, Origin, Outcome, RowBuffer, Rows, Rule, Singletons,
    Verdict, sample, verify_position, verify_round,
};
pub use dist::{BLOCK, DistError, Row, RowMut, SamplingTransforms, TransformScratch, block_count};
pub use rng::{Scripted, SeededRng, Uniform};
