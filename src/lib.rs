//! On-device speech generation by group-level speculative decoding.
//!
//! ```text
//! text -> TextFrontend -> token ids -> Session::prefill (target, draft)
//!      -> loop { draft gamma tokens -> one target pass over gamma + 1 rows
//!                -> sampling transforms -> acceptance -> rollback both }
//!      -> committed tokens -> CodecDecoder -> PCM chunks -> WAV, speaker, callback
//! ```
//!
//! Text to sound, on the defaults of a voice:
//!
//! ```
//! # #[cfg(feature = "engine")]
//! # fn main() -> voxgrain::Result<()> {
//! use voxgrain::speech::wav::WavFile;
//! use voxgrain::{Options, Stream, Voice};
//!
//! let voice = Voice::open("models/tiny")?;
//! let mut stream = Stream::new(&voice, &Options::for_voice(&voice))?;
//! stream.feed("The birch canoe slid on the smooth planks.")?;
//! stream.flush()?;
//! # let path = std::env::temp_dir().join(format!("voxgrain-doc-{}.wav", std::process::id()));
//! let mut file = WavFile::create(&path, voice.bundle().audio.sample_rate_hz)?;
//! while let Some(pcm) = stream.next_pcm()? {
//!     file.write(pcm)?;
//! }
//! file.finish()?;
//! # assert!(std::fs::metadata(&path).unwrap().len() > 1000);
//! # std::fs::remove_file(&path).unwrap();
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "engine"))]
//! # fn main() {}
//! ```
//!
//! A [`Stream`] takes text as it comes and gives samples as they come;
//! [`Synthesizer`] is the layer below, one utterance at a time;
//! [`core`] is the acceptance rule alone. `examples/` has a program for each of them.
//!
//! | feature  | adds |
//! |----------|------|
//! | (none)   | [`core`] and the index reader [`asg`]: `no_std`, no allocation |
//! | `std`    | index builder, SIMD [`kernel`]s, the decoding loop ([`decode`]), bundles, text, WAV |
//! | `engine` | the models: tract as executor over mapped weights; with them voices and streams |
//! | `convert` | [`convert`]: stock models and bundles rewritten for faster products |
//! | `bpe`    | byte-level BPE, which prompts of imported models are written in |
//! | `import` | [`import`]: language models of others as bundles |
//! | `audio`  | playback |
//! | `cli`    | the `voxgrain` program |
//! | `serve`, `manual` | its server; its man pages and completions |
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
#[cfg(feature = "convert")]
pub mod convert;
#[cfg(feature = "std")]
pub mod decode;
#[cfg(feature = "engine")]
pub mod engine;
#[cfg(feature = "std")]
mod error;
#[cfg(feature = "std")]
mod fence;
#[cfg(feature = "import")]
pub mod import;
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

// The kernel fills what the core draws from, and neither imports the other.
#[cfg(feature = "std")]
const _: () = assert!(kernel::SUM_BLOCK == crate::core::dist::SUM_BLOCK);
