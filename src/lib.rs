//! On-device speech generation by group-level speculative decoding.
//!
//! ```text
//! text -> TextFrontend -> token ids -> Session::prefill (target, draft)
//!      -> loop { draft gamma tokens -> one target pass over gamma + 1 rows
//!                -> sampling transforms -> acceptance -> rollback both }
//!      -> committed tokens -> CodecDecoder -> PCM chunks -> WAV, speaker, callback
//! ```
//!
//! | feature  | adds |
//! |----------|------|
//! | (none)   | [`core`] and the index reader [`asg`]: `no_std`, no allocation |
//! | `std`    | index builder, SIMD [`kernel`]s, bundles, text, WAV |
//! | `engine` | the models: tract as executor over mapped weights |
//! | `audio`  | playback |
//! | `cli`    | the `voxgrain` program |
//! | `capi`, `capi-core` | the C ABI, and its bare-metal half |
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs)]

pub mod asg;
#[cfg(feature = "capi-core")]
pub mod capi;
pub mod core;

#[cfg(feature = "std")]
pub mod bundle;
#[cfg(feature = "std")]
pub mod decode;
#[cfg(feature = "engine")]
pub mod engine;
#[cfg(feature = "std")]
mod error;
#[cfg(feature = "std")]
pub mod kernel;
#[cfg(feature = "std")]
pub mod map;
#[cfg(feature = "std")]
pub mod part;
#[cfg(feature = "std")]
pub mod speech;

#[cfg(feature = "std")]
pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "engine")]
pub use speech::stream::{Options, Stream};
#[cfg(feature = "engine")]
pub use speech::synth::Synthesizer;
#[cfg(feature = "engine")]
pub use speech::voice::Voice;
